"""Kata 18 in figures: what a smaller network costs in answers, and what it gains in bytes and in time.

    python -m benchmarks.compression             all tables: ten minutes on two cores
    python -m benchmarks.compression speed       one of them: bits, pruning, smaller, cnn, cifar10 or speed

On milestone 1's networks, and on milestone 2's, which are trained first: a small one, and, if named, that of
CIFAR-10. MNIST and CIFAR-10 are used where they are in the data folder (`dojo data`). Everything is drawn
from fixed seeds.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.beside import measure_some, reference, row, title

ours: Any = reference("tinytorch.compression")
activations: Any = reference("tinytorch.activations")
dataloader: Any = reference("tinytorch.dataloader")
layers: Any = reference("tinytorch.layers")
networks: Any = reference("tinytorch.networks")
optimizers: Any = reference("tinytorch.optimizers")
spatial: Any = reference("tinytorch.spatial")
tensor: Any = reference("tinytorch.tensor")
training: Any = reference("tinytorch.training")
datasets: Any = reference("dojo.datasets")
compose: Any = reference("dojo.compose")
curriculum: Any = reference("dojo.curriculum")

MILESTONES = curriculum.ROOT / "katas/milestones"
m1: Any = compose.load_file(MILESTONES / "m1_inference/inference.py")
m2: Any = compose.load_file(MILESTONES / "m2_vision/vision.py")

SETS = (
    ("spirals", "spirals"),
    ("digits", "tinydigits"),
    ("digits", "mnist"),
    ("shapes", "tinyshapes"),
    ("cifar10", "cifar10"),
)


def there(data: str) -> bool:
    return data not in m1.REAL or bool(datasets.available(data))


def learning(data: str, count: int, seed: int = 100) -> tuple[Any, Any]:
    """Inputs and labels to learn from or to calibrate with; none of them is looked at in the end."""
    rng = np.random.default_rng(seed)
    if data in m1.REAL:
        inputs, labels = getattr(datasets, data)(train=True)
        chosen = rng.permutation(len(labels))[:count]
        return inputs[chosen], labels[chosen]
    made: Callable[..., Any] = getattr(datasets, data)
    return made(count, noise=0.4, rng=rng) if data == "spirals" else made(count, rng)


class Task:
    """A network of milestone 1, and data for it: rows to look at and rows to learn from."""

    def __init__(self, name: str, data: str, count: int = 0) -> None:
        self.model = m1.models()[name]
        self.net = m1.network(self.model)
        inputs, self.labels = m1.examples(data)
        self.rows = m1.prepare(self.model, inputs)
        inputs, labels = learning(data, count or (30_000 if data in m1.REAL else 12_000))
        self.learn = m1.prepare(self.model, inputs), labels

    def accuracy(self, net: Any) -> float:
        """In percent."""
        answers = []
        with training.evaluating(net):
            for start in range(0, len(self.rows), 500):
                answers.append(net(tensor.Tensor(self.rows[start : start + 500])).data.argmax(axis=1))
        return 100 * float(np.mean(np.concatenate(answers) == self.labels))

    def loader(self, seed: int = 0) -> Any:
        data = dataloader.TensorDataset(*self.learn)
        return dataloader.DataLoader(data, 64, shuffle=True, rng=np.random.default_rng(seed))

    def tuned(self, net: Any, epochs: int, callbacks: Iterable[Any] = (), lr: float = 3e-4) -> Any:
        """The network, after some epochs more."""
        optimizer = optimizers.AdamW(net.parameters(), lr=lr)
        trainer = training.Trainer(
            net.train(), optimizer, training.cross_entropy, callbacks=list(callbacks), max_norm=1.0
        )
        trainer.fit(self.loader(), epochs)
        return net.eval()


def bytes_of(net: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        ours.save_compressed(net, path)
        return path.stat().st_size


# Bits.

BITS = (16, 8, 6, 4, 3, 2)


def bits() -> None:
    print(
        "\nright answers in percent, by bits of the weights; p: one scale a layer, a: inputs in 8 bits, too"
    )
    print(
        f"{'':20}{'float32':>9}{16:>8}{8:>8}{'8p':>8}{'8a':>8}{6:>8}{4:>8}{'4p':>8}{3:>8}{2:>8}   bytes, in 8"
    )
    for name, data in SETS:
        if not there(data):
            continue
        task = Task(name, data, 500)
        batches = [task.learn[0]]
        variants: list[dict[str, Any]] = [
            {"bits": 16},
            {"bits": 8},
            {"bits": 8, "per_channel": False},
            {"bits": 8, "calibration": batches},
            {"bits": 6},
            {"bits": 4},
            {"bits": 4, "per_channel": False},
            {"bits": 3},
            {"bits": 2},
        ]
        figures = [task.accuracy(task.net)]
        figures += [task.accuracy(ours.quantize_model(task.net, **options)) for options in variants]
        sizes = bytes_of(task.net), bytes_of(ours.quantize_model(task.net))
        shown = "".join(f"{figure:8.1f}" for figure in figures)
        print(f"{f'{name} on {data}':20} {shown}   {sizes[0]:,} {sizes[1]:,}", flush=True)


# Weights taken away, one by one.

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)


def pruned(net: Any, sparsity: float) -> Any:
    net = copy.deepcopy(net)
    ours.prune_global(net, sparsity)
    return net


def gradually(task: Task, sparsity: float, epochs: int = 4) -> Any:
    net, steps = copy.deepcopy(task.net), epochs * len(task.loader())
    schedule = lambda step: ours.gradual_sparsity(step, 0, steps // 2, sparsity)  # noqa: E731
    return task.tuned(net, epochs, [ours.Pruner(net, schedule, every=10)])


def pruning() -> None:
    head = "".join(f"{s:>8.0%}" for s in (0, *SPARSITIES))
    print(f"\nright answers in percent, by how many weights are 0\n{'':34}{head}")
    for name, data in SETS[1:]:
        if not there(data):
            continue
        task = Task(name, data)
        figures = [task.accuracy(task.net)]
        once = [task.accuracy(pruned(task.net, s)) for s in SPARSITIES]
        print(line(f"{name} on {data}, at once", figures + once), flush=True)
        later = [task.accuracy(gradually(task, s)) for s in (0.0, *SPARSITIES)]
        print(line(f"{name} on {data}, 4 epochs", later), flush=True)
    net = m1.network(m1.models()["digits"])
    sizes = [bytes_of(pruned(net, s)) / 1000 for s in (0.0, *SPARSITIES)]
    print(line("digits: file, in kB", sizes))
    small = [bytes_of(pruned(ours.quantize_model(net), 0)) / 1000]
    small += [bytes_of(ours.quantize_model(pruned(net, s))) / 1000 for s in SPARSITIES]
    print(line("digits: file in 8 bits, in kB", small))


def line(name: str, figures: Iterable[float]) -> str:
    return f"{name:34}" + "".join(f"{figure:8.1f}" for figure in figures)


# Smaller layers, and a teacher.

FRACTIONS = (0.75, 0.5, 0.25, 0.1)


def smaller() -> None:
    head = "".join(f"{f:>8.0%}" for f in (1, *FRACTIONS))
    print(f"\nright answers in percent, by how many neurons of each hidden layer stay\n{'':34}{head}")
    for name, data in SETS[1:]:
        if not there(data):
            continue
        task = Task(name, data)
        nets = [task.net, *(ours.shrink_mlp(task.net, f) for f in FRACTIONS)]
        print(line(f"{name} on {data}, at once", map(task.accuracy, nets)), flush=True)
        nets = [copy.deepcopy(task.net), *(ours.shrink_mlp(task.net, f) for f in FRACTIONS)]
        print(line("  labels, 4 epochs", [task.accuracy(task.tuned(net, 4)) for net in nets]), flush=True)
        taught = [distilled(task, ours.shrink_mlp(task.net, f), 4) for f in (1.0, *FRACTIONS)]
        print(line("  its teacher, 4 epochs", map(task.accuracy, taught)), flush=True)
    print(f"\na student that begins with nothing, on few rows\n{'':34}{'labels':>8}{'teacher':>8}")
    for name, data, hidden in (
        ("digits", "tinydigits", 8),
        ("digits", "mnist", 16),
        ("shapes", "tinyshapes", 16),
    ):
        if not there(data):
            continue
        task = Task(name, data, 1000)
        sizes = task.model.sizes[0], hidden, task.model.sizes[-1]
        rows = [from_nothing(task, sizes, seed) for seed in range(3)]
        print(line(f"{name} on {data}, {hidden} neurons", np.mean(rows, axis=0)), flush=True)


def from_nothing(task: Task, sizes: tuple[int, ...], seed: int) -> list[float]:
    """The answers of a new network that learned from labels, and of one that had a teacher."""
    alone, taught = (networks.MLP(sizes, rng=np.random.default_rng(seed)) for _ in range(2))
    return [
        task.accuracy(task.tuned(alone, 20, lr=1e-3)),
        task.accuracy(distilled(task, taught, 20, alpha=0.9, lr=1e-3)),
    ]


def distilled(task: Task, student: Any, epochs: int, alpha: float = 0.7, lr: float = 3e-4) -> Any:
    optimizer = optimizers.AdamW(student.parameters(), lr=lr)
    ours.distill(student.train(), task.net, task.loader(), optimizer, epochs=epochs, alpha=alpha)
    return student.eval()


# A small network of convolutions, as milestone 2 trains it.


def cnn(name: str = "tinyshapes") -> None:
    recipe = m2.RECIPES[name]
    trainer, loader, _ = m2.training(recipe, m2.dataset(recipe))
    trainer.fit(loader, recipe.epochs)
    net, data = trainer.model.eval(), m2.looking(m2.dataset(recipe, train=False))

    def accuracy(model: Any) -> float:
        likely, labels = m2.answers(model, data)
        return 100 * float((likely.argmax(axis=1) == labels).mean())

    print(f"\nmilestone 2's network on {name}: right answers in percent, and its file in kB")
    print(line("float32", [accuracy(net), bytes_of(net) / 1000]))
    for count in BITS:
        for per_channel in (True, False):
            model = ours.quantize_model(net, count, per_channel)
            row_of = f"{count} bits, a scale for each {'kernel' if per_channel else 'layer'}"
            print(line(row_of, [accuracy(model), bytes_of(model) / 1000]), flush=True)
    for sparsity in SPARSITIES:
        model = pruned(net, sparsity)
        print(line(f"{sparsity:.0%} of weights 0", [accuracy(model), bytes_of(model) / 1000]), flush=True)
    for keep in (0.75, 0.5):
        model = fewer_channels(net, keep)
        figures = [accuracy(model), bytes_of(model) / 1000]
        optimizer = m2.optimizer_of(model, recipe)
        tuned = training.Trainer(model.train(), optimizer, training.cross_entropy)
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-3
        tuned.fit(loader, 1)
        print(line(f"{keep:.0%} of channels; an epoch later", [*figures, accuracy(model.eval())]), flush=True)


def fewer_channels(net: Any, keep: float) -> Any:
    """Each trained convolution with fewer channels, by what reads it."""
    parts = list(copy.deepcopy(net))
    convs = [i for i, part in enumerate(parts) if isinstance(part, spatial.Conv2d)]
    for i, j in zip(convs, [*convs[1:], len(parts) - 1], strict=True):
        norm = next(k for k in range(i, j) if isinstance(parts[k], spatial.BatchNorm2d))
        count = round(keep * len(parts[i].weight))
        parts[i], parts[norm], parts[j] = ours.prune_channels(parts[i], parts[norm], parts[j], count)
    return networks.Sequential(*parts)


# What gets faster, and what does not.


def csr(weight: Any) -> Callable[[Any], Any]:
    """x @ weight.T from the numbers that are not 0, row by row: what can be done in numpy."""
    where = [np.flatnonzero(r) for r in weight]
    values = [r[w] for r, w in zip(weight, where, strict=True)]

    def product(x: Any) -> Any:
        turned = np.ascontiguousarray(x.T)
        return np.stack([v @ turned[w] for v, w in zip(values, where, strict=True)], axis=1)

    return product


def speed() -> None:
    rng = np.random.default_rng(0)
    title("a layer of 1024 x 1024, 64 rows, beside float32 (times its time)")
    linear = layers.Linear(1024, 1024, rng=rng)
    x = rng.standard_normal((64, 1024), np.float32)
    weight, shown = linear.weight.data, tensor.Tensor(x)

    def dense() -> Any:
        return linear(shown)

    for sparsity in (0.5, 0.9, 0.99):
        sparse = copy.deepcopy(linear)
        ours.prune_global(sparse, sparsity)
        row(f"{sparsity:.0%} of weights 0, as ever", lambda sparse=sparse: sparse(shown), dense)
        product = csr(sparse.weight.data)
        row(f"{sparsity:.0%} of weights 0, only the others", lambda product=product: product(x), dense)
    for name, options in (
        ("8 bits, inputs in float32", {}),
        ("16 bits, inputs in float32", {"bits": 16}),
        ("8 bits, inputs too", {"input_range": (-4.0, 4.0)}),
        ("16 bits, inputs too", {"bits": 16, "input_range": (-4.0, 4.0)}),
    ):
        layer = ours.QuantizedLinear(linear, **options)
        row(name, lambda layer=layer: layer(shown), dense)
    a, b = (rng.integers(-127, 128, (1024, 1024)).astype(np.int8) for _ in range(2))
    row("integer_matmul alone", lambda: ours.integer_matmul(a[:64], b), lambda: x @ weight)
    wide = a[:64].astype(np.int32), b.astype(np.int32)
    row("numpy's product of int32", lambda: wide[0] @ wide[1], lambda: x @ weight)
    net = networks.MLP([784, 512, 512, 10], rng=rng)
    pixels = tensor.Tensor(rng.standard_normal((64, 784), np.float32))
    title("an MLP 784-512-512-10, 64 rows, beside all of its neurons")
    for keep in (0.75, 0.5, 0.25, 0.1):
        small = ours.shrink_mlp(net, keep)
        row(f"{keep:.0%} of each hidden layer", lambda small=small: small(pixels), lambda: net(pixels))
    title("a convolution 64 to 64, then another, (16, 64, 16, 16)")
    convs = [spatial.Conv2d(64, 64, 3, padding=1, rng=rng) for _ in range(2)]
    images = tensor.Tensor(rng.standard_normal((16, 64, 16, 16), np.float32))
    for keep in (48, 32, 16, 6):
        one, _, two = ours.prune_channels(convs[0], None, convs[1], keep)
        row(
            f"{keep} channels between",
            lambda one=one, two=two: two(one(images)),
            lambda: convs[1](convs[0](images)),
        )
    linear = layers.Linear(4096, 4096, rng=rng)
    few, layer = tensor.Tensor(x[:1].repeat(4, axis=1)), ours.QuantizedLinear(linear)
    title("one row through 4096 x 4096")
    row("8 bits, inputs in float32", lambda: layer(few), lambda: linear(few))


TABLES: dict[str, Callable[[], None]] = {
    "bits": bits,
    "pruning": pruning,
    "smaller": smaller,
    "cnn": cnn,
    "cifar10": lambda: cnn("cifar10"),
    "speed": speed,
}


if __name__ == "__main__":
    measure_some(TABLES, __doc__, left_out=("cifar10",))
