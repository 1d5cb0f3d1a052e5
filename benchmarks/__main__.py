"""The reference beside PyTorch and beside textbook numpy, in one table: `python -m benchmarks`.

A ratio is the reference's processor time over the other's, in turns, one thread each: the median, and the
quartiles. Each module says more about its kata: `python -m benchmarks.spatial`, and of whole trainings
`python -m benchmarks.cifar10`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import cifar10, tokenization
from benchmarks.beside import images, measure, pairs_of, pytorch, reference

activations: Any = reference("tinytorch.activations")
embeddings: Any = reference("tinytorch.embeddings")
attention: Any = reference("tinytorch.attention")
optimizers: Any = reference("tinytorch.optimizers")
spatial: Any = reference("tinytorch.spatial")
tensor: Any = reference("tinytorch.tensor")
compose: Any = reference("dojo.compose")
torch: Any = pytorch()
textbook: Any = compose.load_file(
    cifar10.curriculum.ROOT / "reference/alternatives/07_spatial/as_in_textbooks.py"
)

Call = Callable[[], object]
rng = np.random.default_rng(0)
PAIRS = 11


def there_and_back(op: Any, arrays: list[Any], grad: Any, **params: Any) -> Call:
    def run() -> Any:
        _, back = op.vjp(*arrays, **params)
        return back(grad)

    return run


def theirs(function: Callable[..., Any], arrays: list[Any], grad: Any) -> Call:
    tensors = [torch.tensor(np.ascontiguousarray(a), requires_grad=True) for a in arrays]
    upstream = torch.tensor(np.ascontiguousarray(grad))
    return lambda: torch.autograd.grad(function(*tensors), tensors, upstream)


def kata_07(name: str, arrays: list[Any], function: Callable[..., Any], **params: Any) -> tuple[Call, ...]:
    out, _ = getattr(spatial, name).vjp(*arrays, **params)
    grad = images(rng, *out.shape)
    return (
        there_and_back(getattr(spatial, name), arrays, grad, **params),
        theirs(function, arrays, grad),
        there_and_back(getattr(textbook, name), arrays, grad, **params),
    )


def convolution(n: int, channels: int, side: int) -> tuple[Call, ...]:
    arrays = [
        images(rng, n, channels, side, side),
        rng.standard_normal((channels, channels, 3, 3), np.float32),
    ]
    return kata_07("conv2d", arrays, lambda x, w: torch.nn.functional.conv2d(x, w, padding=1), padding=1)


def relu() -> tuple[Call, ...]:
    x, grad = rng.standard_normal((2, 1 << 20), np.float32)

    def naive() -> Any:
        out = np.where(x > 0, x, 0)
        return out, np.where(x > 0, grad, 0)

    return there_and_back(activations.relu, [x], grad), theirs(torch.relu, [x], grad), naive


def gelu() -> tuple[Call, ...]:
    x = rng.standard_normal(1 << 20, np.float32)
    shown = torch.tensor(x)

    def naive() -> Any:
        return (
            0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi, dtype=np.float32) * (x + np.float32(0.044715) * x**3)))
        )

    return (
        lambda: activations.gelu.run([x], {}),
        lambda: torch.nn.functional.gelu(shown, approximate="tanh"),
        naive,
    )


def adam() -> tuple[Call, ...]:
    """2.1 million parameters in 8 arrays, against the fused kernel."""
    mine = [optimizers.Parameter(rng.standard_normal((512, 512), np.float32)) for _ in range(8)]
    others = [torch.nn.Parameter(torch.tensor(p.data)) for p in mine]
    for p, other in zip(mine, others, strict=True):
        p.grad = rng.standard_normal(p.shape, np.float32)
        other.grad = torch.tensor(p.grad)
    kept = [(p.data.copy(), p.grad, np.zeros_like(p.data), np.zeros_like(p.data)) for p in mine]

    def naive() -> None:
        for i, (data, grad, m, v) in enumerate(kept):
            m = 0.9 * m + 0.1 * grad
            v = 0.999 * v + 0.001 * grad**2
            kept[i] = data - 1e-3 * (m / 0.5) / (np.sqrt(v / 0.5) + 1e-8), grad, m, v

    return optimizers.Adam(mine).step, torch.optim.Adam(others, fused=True).step, naive


def look_up() -> tuple[Call, ...]:
    """4,096 tokens, half of them frequent ones, against np.add.at."""
    weight, grad = (
        rng.standard_normal((5_000, 128), np.float32),
        rng.standard_normal((4_096, 128), np.float32),
    )
    ids = np.where(rng.random(4_096) < 0.5, rng.integers(0, 50, 4_096), rng.integers(0, 5_000, 4_096))
    places = torch.tensor(ids)

    def naive() -> Any:
        table = np.zeros_like(weight)
        np.add.at(table, ids, grad)
        return weight[ids], table

    mine = there_and_back(embeddings.embedding, [weight, ids], grad)
    return mine, theirs(lambda w: torch.nn.functional.embedding(places, w), [weight], grad), naive


def chain() -> tuple[Call, ...]:
    """A hundred operations on four numbers, there and back."""
    reference("tinytorch.autograd")

    def steps(x: Any) -> Any:
        for _ in range(50):
            x = x * x + x
        return x.sum()

    x = tensor.Tensor(np.full(4, 0.01, np.float32), requires_grad=True)
    other = torch.full((4,), 0.01, requires_grad=True)
    return lambda: steps(x).backward(), lambda: steps(other).backward()


def merges() -> tuple[Call | None, ...]:
    """64 merges of byte-pair encoding, of 66 kB of text; PyTorch has no tokenizer."""
    words = tokenization.ours.count_words(tokenization.text()[: 1 << 16])
    return (
        lambda: tokenization.ours.train_merges(words, 64),
        None,
        lambda: tokenization.naive.naive_train(words, 64),
    )


def attend() -> tuple[Call, ...]:
    """Causal attention of 4 heads, against the fused kernel; in a textbook, with all weights at once."""
    arrays = [rng.standard_normal((1, 4, 2048, 64), np.float32) for _ in range(3)]
    grad = rng.standard_normal((1, 4, 2048, 64), np.float32)
    hidden = ~np.tri(2048, dtype=bool)

    def naive() -> Any:
        q, k, v = arrays
        scores = np.where(hidden, np.float32(-np.inf), q @ k.swapaxes(2, 3) / np.float32(8))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
        slopes = grad @ v.swapaxes(2, 3)
        slopes = weights * (slopes - (slopes * weights).sum(axis=-1, keepdims=True)) / np.float32(8)
        return weights @ v, slopes @ k, slopes.swapaxes(2, 3) @ q, weights.swapaxes(2, 3) @ grad

    return (
        there_and_back(attention.fused_attention, arrays, grad, is_causal=True),
        theirs(
            lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
            arrays,
            grad,
        ),
        naive,
    )


def step() -> tuple[Call, ...]:
    """A training step of milestone 2: batch, forward, backward, update."""
    runs = [cifar10.SIDES[name](1_000).run() for name in ("tinytorch", "pytorch")]
    return tuple(lambda run=run: next(run) for run in runs)


def rows() -> dict[str, Callable[[], tuple[Call | None, ...]]]:
    """By name: the reference, PyTorch and, of most, a textbook version."""
    table: dict[str, Callable[[], tuple[Call | None, ...]]] = {
        "conv 3x3, 64 to 64, (128, 64, 32, 32)": lambda: convolution(128, 64, 32),
        "conv 3x3, 128 to 128, (128, 128, 8, 8)": lambda: convolution(128, 128, 8),
        "max-pool 2x2, (128, 64, 32, 32)": lambda: kata_07(
            "max_pool2d",
            [images(rng, 128, 64, 32, 32)],
            lambda x: torch.nn.functional.max_pool2d(x, 2),
            kernel=2,
        ),
        "batch norm, (128, 64, 32, 32)": lambda: kata_07(
            "batch_norm",
            [images(rng, 128, 64, 32, 32), *rng.standard_normal((2, 64), np.float32)],
            lambda x, w, b: torch.nn.functional.batch_norm(x, None, None, w, b, True),
        ),
        "relu, 1 M": relu,
        "gelu, 1 M, forward": gelu,
        "Adam, 2.1 M parameters": adam,
        "embedding, 4,096 tokens, (5000, 128)": look_up,
        "autograd, 100 operations on 4 numbers": chain,
        "64 merges of 66 kB of text": merges,
        "attention, causal, (1, 4, 2048, 64)": attend,
    }
    if reference("dojo.datasets").available("cifar10"):
        table["a training step of milestone 2"] = step
    return table


def words(mine: Call, other: Call) -> str:
    low, middle, high = statistics.quantiles(pairs_of(mine, other, PAIRS)[0], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    print(f"{'there and back, float32':42}{'to PyTorch':24}to textbook numpy")
    for name, make in rows().items():
        mine, others, *naive = make()
        print(f"{name:42}{words(mine, others) if others else '-':24}", end="", flush=True)
        print(words(mine, naive[0]) if naive else "", flush=True)


if __name__ == "__main__":
    measure(main, __doc__)
