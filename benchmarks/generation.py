"""Kata 15 beside PyTorch: `python -m benchmarks.generation`. A TinyGPT writes, with a cache and without.

The network is that of milestone 3 (4 layers, width 128, 4 heads), on one thread, in float32. PyTorch's side
has the same weights and says the same; its cache grows by `torch.cat`, or was made for the whole text.
The rows of choices are for a vocabulary of 50,000.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.beside import measure, pytorch, reference, row, title

ours: Any = reference("tinytorch.generation")
transformers: Any = reference("tinytorch.transformers")
torch: Any = pytorch()
F: Any = torch.nn.functional

VOCABULARY, PROMPT = 65, 8
LENGTHS = (64, 128, 256, 512)
UNCACHED = 512  # more takes too long
TARGET = 1 / 1.3  # of PyTorch's time with the same cache


class Theirs:
    """A TinyGPT in PyTorch, by its weights."""

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.w = {name: torch.tensor(array) for name, array in model.state_dict().items()}
        self.room: list[Any] = []

    def read(self, ids: Any, past: int, kind: str) -> Any:
        """Logits of the last of the ids (1, T), which come after `past` others."""
        w, config = self.w, self.config
        heads, length = config.num_heads, ids.shape[1]
        x = F.embedding(ids, w["tokens.weight"]) + w["positions.weight"][past : past + length]
        for i in range(config.num_layers):
            p = f"blocks.{i}."
            h = F.layer_norm(x, (config.dim,), w[p + "ln1.weight"], w[p + "ln1.bias"])
            qkv = F.linear(h, w[p + "attn.qkv_proj.weight"], w[p + "attn.qkv_proj.bias"])
            q, k, v = (t.view(1, length, heads, -1).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
            k, v = self.cached(i, k, v, past, kind)
            h = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
            h = h.transpose(1, 2).reshape(1, length, config.dim)
            x = x + F.linear(h, w[p + "attn.out_proj.weight"], w[p + "attn.out_proj.bias"])
            h = F.layer_norm(x, (config.dim,), w[p + "ln2.weight"], w[p + "ln2.bias"])
            h = F.gelu(F.linear(h, w[p + "mlp.fc.weight"], w[p + "mlp.fc.bias"]), approximate="tanh")
            x = x + F.linear(h, w[p + "mlp.proj.weight"], w[p + "mlp.proj.bias"])
        x = F.layer_norm(x[:, -1], (config.dim,), w["ln_f.weight"], w["ln_f.bias"])
        return F.linear(x, w["tokens.weight"])

    def cached(self, layer: int, k: Any, v: Any, past: int, kind: str) -> tuple[Any, Any]:
        if kind == "none":
            return k, v
        if kind == "concatenated":
            if past:
                k, v = (
                    torch.cat([old, new], dim=2) for old, new in zip(self.room[layer], (k, v), strict=True)
                )
                self.room[layer] = (k, v)
            else:
                self.room.append((k, v))
            return k, v
        if not past:
            self.room.append(tuple(torch.empty(1, k.shape[1], self.config.context, k.shape[3]) for _ in "kv"))
        end = past + k.shape[2]
        for held, new in zip(self.room[layer], (k, v), strict=True):
            held[:, :, past:end] = new
        mine: tuple[Any, Any] = tuple(held[:, :, :end] for held in self.room[layer])  # type: ignore[assignment]
        return mine

    def write(self, ids: Any, count: int, kind: str) -> Any:
        self.room = []
        with torch.inference_mode():
            for _ in range(count):
                past = ids.shape[1] - 1 if self.room else 0
                logits = self.read(ids[:, past:], past, kind)
                ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
        return ids


def same_words(model: Any, theirs: Theirs) -> None:
    """Whether both say the same, whatever the cache."""
    ids = np.arange(PROMPT)[None] % VOCABULARY
    mine = ours.generate(model, ids, 40)
    for kind in ("none", "concatenated", "preallocated"):
        np.testing.assert_array_equal(mine, theirs.write(torch.tensor(ids), 40, kind).numpy())


def rate(work: Callable[[], object], tokens: int) -> float:
    work()
    begin = time.process_time()
    work()
    return tokens / (time.process_time() - begin)


def texts(length: int) -> None:
    config = transformers.GPTConfig(VOCABULARY, length, 128, 4, 4)
    model = transformers.TinyGPT(config, rng=np.random.default_rng(0))
    theirs = Theirs(model)
    if length >= PROMPT + 40:
        same_words(model, theirs)
    ids, count = np.arange(PROMPT)[None], length - PROMPT
    shown = torch.tensor(ids)

    def mine(use_cache: bool) -> Callable[[], object]:
        return lambda: ours.generate(model, ids, count, use_cache=use_cache)

    title(f"a text of {length} tokens")
    for kind in ("concatenated", "preallocated"):
        row(
            f"with a cache; theirs is {kind}",
            mine(True),
            lambda kind=kind: theirs.write(shown, count, kind),
            TARGET,
        )
    if length <= UNCACHED:
        row("without a cache", mine(False), lambda: theirs.write(shown, count, "none"))
    rates = {use_cache: rate(mine(use_cache), count) for use_cache in (True, False)}
    print(
        f"tokens a second: {rates[True]:,.0f} with a cache, {rates[False]:,.0f} without, "
        f"{rates[True] / rates[False]:.1f} times"
    )


def choices() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 50_000), np.float32) * 3
    shown, ids = torch.tensor(logits), np.zeros((4, 1), np.int64)
    draws = np.random.default_rng(0)
    title("one token of 50,000, for 4 rows")

    def top_k() -> Any:
        least = torch.topk(shown, 40).values[:, -1:]
        return shown.masked_fill(shown < least, -torch.inf)

    def top_p() -> Any:
        largest_first, places = torch.sort(shown, descending=True)
        shares = largest_first.softmax(dim=-1)
        gone = shares.cumsum(dim=-1) - shares >= 0.9
        return shown.masked_fill(gone.scatter(1, places, gone), -torch.inf)

    row("greedy", lambda: ours.greedy(logits), lambda: shown.argmax(dim=1))
    row(
        "sample (multinomial)",
        lambda: ours.sample(logits, rng=draws),
        lambda: torch.multinomial(shown.softmax(dim=1), 1),
    )
    largest, likeliest = ours.TopK(40), ours.TopP(0.9)
    row("TopK(40)", lambda: largest(logits, ids), top_k)
    row("TopP(0.9)", lambda: likeliest(logits, ids), top_p)


def searches() -> None:
    model = transformers.TinyGPT(
        transformers.GPTConfig(VOCABULARY, 128, 128, 4, 4), rng=np.random.default_rng(0)
    )
    print("\ntokens a second of one text, in processor time")
    for beams, use_cache in itertools.product((1, 4, 8), (True, False)):
        found = rate(lambda b=beams, c=use_cache: ours.beam_search(model, [1], 64, b, use_cache=c), 64)
        print(f"{beams} beams, {'with a cache' if use_cache else 'without'}: {found:,.0f}")


def main() -> None:
    choices()
    for length in LENGTHS:
        texts(length)
    searches()


if __name__ == "__main__":
    measure(main, __doc__)
