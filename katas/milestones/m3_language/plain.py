"""A TinyGPT, its optimizer and byte-pair encoding in plain numpy and float64: what the tests expect.

Slow and short, and without anything of tinytorch. Weights go by the names that `state_dict` gives them.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
State = Mapping[str, Array]


def norm(x: Array, state: State, name: str) -> Array:
    """Each row to mean 0 and deviation 1, then scaled and shifted."""
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * state[name + ".weight"] + state[name + ".bias"]


def linear(x: Array, state: State, name: str) -> Array:
    return x @ state[name + ".weight"].T + state[name + ".bias"]


def gelu(x: Array) -> Array:
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def turned(x: Array) -> Array:
    """Rotary positions: a number of the first half and its partner in the second, as one complex number."""
    length, width = x.shape[-2:]
    pairs = x[..., : width // 2] + 1j * x[..., width // 2 :]
    speed = 10_000.0 ** (-np.arange(0, width, 2) / width)
    pairs = pairs * np.exp(1j * np.arange(length)[:, None] * speed)
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


def attention(x: Array, state: State, name: str, heads: int, rotary: bool) -> Array:
    """(B, T, dim) -> (B, T, dim), head by head."""
    length, dim = x.shape[1:]
    width = dim // heads
    q, k, v = np.split(linear(x, state, name + ".qkv_proj"), 3, axis=-1)
    found = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        a, b = (turned(y[..., part]) if rotary else y[..., part] for y in (q, k))
        scores = a @ b.transpose(0, 2, 1) / math.sqrt(width)
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        found.append(softmax(scores) @ v[..., part])
    return linear(np.concatenate(found, axis=-1), state, name + ".out_proj")


def logits(state: State, ids: Array, layers: int, heads: int) -> Array:
    """(B, T) -> (B, T, vocabulary)."""
    x = state["tokens.weight"][ids]
    rotary = "positions.weight" not in state
    if not rotary:
        x = x + state["positions.weight"][: ids.shape[1]]
    for i in range(layers):
        x = x + attention(norm(x, state, f"blocks.{i}.ln1"), state, f"blocks.{i}.attn", heads, rotary)
        wide = gelu(linear(norm(x, state, f"blocks.{i}.ln2"), state, f"blocks.{i}.mlp.fc"))
        x = x + linear(wide, state, f"blocks.{i}.mlp.proj")
    return norm(x, state, "ln_f") @ state["tokens.weight"].T


def loss(state: State, ids: Array, targets: Array, layers: int, heads: int) -> float:
    """Nats a token."""
    likely = softmax(logits(state, ids, layers, heads))
    return float(-np.log(np.take_along_axis(likely, targets[..., None], -1)).mean())


def shares(logits: Array, said: Array, manner: str) -> Array:
    """How often each token comes after `said` in a manner of writing, by the formula of each."""
    x = logits.astype(np.float64)
    if manner == "without repeating itself":
        x = np.where(np.isin(np.arange(len(x)), said), np.where(x > 0, x / 1.3, x * 1.3), x)
    if manner in ("temperature 0.8", "the likeliest that make 90 %", "without repeating itself"):
        x = x / 0.8
    order = np.argsort(-x)
    stay = len(x)
    if manner == "the likeliest":
        stay = 1
    elif manner == "the 10 likeliest":
        stay = 10
    elif manner == "the likeliest that make 90 %":
        stay = 1 + int((np.cumsum(softmax(x)[order]) < 0.9).sum())
    x[order[stay:]] = -np.inf
    return softmax(x)


def gradients(state: dict[str, Array], ids: Array, targets: Array, layers: int, heads: int) -> State:
    """By central differences, number by number: for very small models."""
    grads = {name: np.zeros_like(array) for name, array in state.items()}
    for name, array in state.items():
        for place in np.ndindex(array.shape):
            there, step = array[place], 1e-5
            array[place] = there + step
            above = loss(state, ids, targets, layers, heads)
            array[place] = there - step
            grads[name][place] = (above - loss(state, ids, targets, layers, heads)) / (2 * step)
            array[place] = there
    return grads


def rates(lr: float, steps: int, warmup: int, least: float = 0.1) -> list[float]:
    """The learning rate of each step: up in a line, then down along half a wave to `least` of it."""
    up = [lr * (1 + i * (warmup - 1) / warmup) / warmup for i in range(warmup)]
    rest = steps - warmup
    down = [least * lr + (1 - least) * lr * (1 + math.cos(math.pi * i / rest)) / 2 for i in range(rest)]
    return up + down


class AdamW:
    """Betas 0.9 and 0.95; matrices decay; gradients are cut to a norm of 1 together."""

    def __init__(self, state: dict[str, Array], decay: float) -> None:
        self.state, self.decay, self.steps = state, decay, 0
        self.first = {name: np.zeros_like(array) for name, array in state.items()}
        self.second = {name: np.zeros_like(array) for name, array in state.items()}

    def step(self, grads: State, lr: float) -> None:
        self.steps += 1
        size = math.sqrt(sum(float((grad**2).sum()) for grad in grads.values()))
        for name, grad in grads.items():
            grad = grad * min(1.0, 1 / (size + 1e-6))
            self.first[name] = 0.9 * self.first[name] + 0.1 * grad
            self.second[name] = 0.95 * self.second[name] + 0.05 * grad**2
            m = self.first[name] / (1 - 0.9**self.steps)
            v = self.second[name] / (1 - 0.95**self.steps)
            old = self.state[name]
            shrunk = old * (1 - lr * self.decay) if old.ndim > 1 else old
            self.state[name] = shrunk - lr * m / (np.sqrt(v) + 1e-8)


def merges_of(words: Sequence[bytes], count: int) -> Iterator[tuple[int, int]]:
    """Byte-pair encoding, counted anew for each merge; of equally frequent pairs the smallest."""
    rows = [list(word) for word in words]
    for new in range(256, 256 + count):
        counts = Counter(pair for row in rows for pair in itertools.pairwise(row))
        if not counts or max(counts.values()) < 2:
            return
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        yield best
        rows = [joined(row, best, new) for row in rows]


def joined(row: Sequence[int], pair: tuple[int, int], new: int) -> list[int]:
    """A row with `new` in place of each occurrence of the pair, from left to right."""
    out: list[int] = []
    for i in row:
        if out and (out[-1], i) == pair:
            out[-1] = new
        else:
            out.append(i)
    return out


def pair_bits(learnt: str, text: str) -> float:
    """Bits a character of a text for who knows only how often which character followed which in another.

    Each pair counts as if seen a tenth of a time more, so that none is impossible.
    """
    pairs, firsts = Counter(itertools.pairwise(learnt)), Counter(learnt)
    kinds = len(set(learnt + text))
    likely = ((pairs[a, b] + 0.1) / (firsts[a] + 0.1 * kinds) for a, b in itertools.pairwise(text))
    return -sum(map(math.log2, likely)) / len(text)
