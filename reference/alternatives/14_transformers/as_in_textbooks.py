"""Kata 14 as textbooks have it: formulas as they are written, hooks, regular expressions, whole bytes."""

from __future__ import annotations

import functools
import json
import math
import mmap
import os
import re
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.activations import Dropout, gelu
from tinytorch.attention import KVCache, MultiHeadAttention, padding_mask
from tinytorch.autograd import register_hook
from tinytorch.embeddings import (
    Embedding,
    LearnedPositions,
    Rotary,
    SinusoidalPositions,
    TiedLinear,
    embedding,
    normal_,
)
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import Sequential
from tinytorch.tensor import Array, Tensor, as_array, floating, increment_version, op

__all__ = [
    "Encoder", "FeedForward", "GPTConfig", "LayerNorm", "RMSNorm", "TinyGPT", "Transformer",
    "TransformerBlock", "activation_bytes", "gpt2_state", "gradient_flow", "layer_norm", "layer_norm_back",
    "load_gpt2", "parameters_by_part", "read_safetensors", "rms_norm", "rms_norm_back", "write_safetensors",
]  # fmt: skip


# Norms: each row, which is one place of one text, brought to one scale, whatever the others are.


def check_norm(x: Array, *vectors: Array) -> None:
    """ValueError, naming all shapes, unless each vector has the shape of x's last axis. Given."""
    if any(vector.ndim != 1 or vector.shape != x.shape[-1:] for vector in vectors):
        shapes = ", ".join(str(vector.shape) for vector in vectors)
        raise ValueError(f"an input of shape {x.shape} does not fit weights of shape {shapes}")


def mean_square(rows: Array) -> Array:
    """The mean of the squares of each row of (n, dim), as a column (n, 1); without a second table. Given."""
    mean: Array = np.einsum("ij,ij->i", rows, rows)[:, None] / max(rows.shape[1], 1)
    return mean


@op(saves=["normalised", "deviation"])
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    x = floating(x)
    check_norm(x, weight, bias)
    if not x.size:
        return x, x, x[..., :1]
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + eps).astype(x.dtype)
    normalised = (x - x.mean(axis=-1, keepdims=True)) / deviation
    return (normalised * weight + bias).astype(x.dtype), normalised, deviation


@layer_norm.gradient
def layer_norm_back(
    grad: Array, normalised: Array, deviation: Array, weight: Array
) -> tuple[Array, Array, Array]:
    rows = tuple(range(grad.ndim - 1))
    for_weight, for_bias = (grad * normalised).sum(axis=rows), grad.sum(axis=rows)
    if not grad.size:
        return grad, for_weight, for_bias
    slope = grad * weight
    level = slope.mean(axis=-1, keepdims=True)
    along = (slope * normalised).mean(axis=-1, keepdims=True)
    return (slope - level - normalised * along) / deviation, for_weight, for_bias


@op(saves=["normalised", "root"])
def rms_norm(x: Array, weight: Array, *, eps: float = 1e-6) -> tuple[Array, Array, Array]:
    x = floating(x)
    check_norm(x, weight)
    if not x.size:
        return x, x, x[..., :1]
    root = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps).astype(x.dtype)
    normalised = x / root
    return (normalised * weight).astype(x.dtype), normalised, root


@rms_norm.gradient
def rms_norm_back(grad: Array, normalised: Array, root: Array, weight: Array) -> tuple[Array, Array]:
    for_weight = (grad * normalised).sum(axis=tuple(range(grad.ndim - 1)))
    if not grad.size:
        return grad, for_weight
    slope = grad * weight
    return (slope - normalised * (slope * normalised).mean(axis=-1, keepdims=True)) / root, for_weight


class LayerNorm(Module):
    """layer_norm with a scale and a shift of its own for each column.

    Attributes:
        weight, bias: (dim,), float32; ones and zeros at first.
        eps: as of layer_norm.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(dim, np.float32))
        self.bias = Parameter(np.zeros(dim, np.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}"


class RMSNorm(Module):
    """rms_norm with a scale of its own for each column.

    Attributes:
        weight: (dim,), float32; ones at first.
        eps: as of rms_norm.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        self.weight = Parameter(np.ones(dim, np.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}"


# A block.


def dropout_or_nothing(p: float, rng: np.random.Generator) -> Module:
    """Dropout; or, where nothing is to be dropped, a module that hands on its input. Given."""
    return Dropout(p, rng=rng) if p else Sequential()


class FeedForward(Module):
    """A network of one hidden layer, for each place alone: where a transformer keeps most of its weights.

    Attributes:
        fc: Linear, from dim to hidden.
        activation: what comes between, an operation or a function on Tensors: gelu.
        proj: Linear, from hidden back to dim.
        drop: Dropout of what comes out, if `dropout` is not 0.
    """

    def __init__(
        self,
        dim: int,
        hidden: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        rng: np.random.Generator,
    ) -> None:
        hidden = 4 * dim if hidden is None else hidden
        self.fc = Linear(dim, hidden, bias, rng=rng)
        self.activation: Callable[[Any], Tensor] = gelu
        self.proj = Linear(hidden, dim, bias, rng=rng)
        self.drop = dropout_or_nothing(dropout, rng)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        out: Tensor = self.drop(self.proj(self.activation(self.fc(x))))
        return out


class TransformerBlock(Module):
    """Attention, then a feed-forward network, each added to the stream it reads from.

    With `norm_first` each half reads a normalised copy of the stream, and the stream itself is only ever
    added to (GPT-2 and all since). Without, the stream is normalised after each addition, as in 2017 and in
    BERT.

    Attributes:
        ln1, attn: norm and MultiHeadAttention of the first half.
        ln2, mlp: norm and FeedForward of the second.
        drop: Dropout of what attention gives, if `dropout` is not 0; `mlp` has its own.
        norm_first: as given.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        norm_first: bool = True,
        rotary: Rotary | None = None,
        norm: Callable[[int], Module] = LayerNorm,
        bias: bool = True,
        *,
        rng: np.random.Generator,
    ) -> None:
        """`norm(dim)` makes a norm; `bias` is about the linear layers. Errors as of MultiHeadAttention."""
        self.ln1 = norm(dim)
        self.attn = MultiHeadAttention(dim, num_heads, num_kv_heads, bias, rotary, rng=rng)
        self.drop = dropout_or_nothing(dropout, rng)
        self.ln2 = norm(dim)
        self.mlp = FeedForward(dim, hidden, dropout, bias, rng=rng)
        self.norm_first = norm_first

    def forward(
        self, x: Tensor, mask: Any = None, is_causal: bool = False, cache: KVCache | None = None
    ) -> Tensor:
        """(B, T, dim) -> (B, T, dim). What is not `x` goes to the attention. Given."""
        attend = functools.partial(self.attn, mask=mask, is_causal=is_causal, cache=cache)
        return self.pre_norm(x, attend) if self.norm_first else self.post_norm(x, attend)

    def pre_norm(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """Both halves, where each norms what it reads. `attend` is `attn`, its options filled in."""
        x = x + self.drop(attend(self.ln1(x)))
        out: Tensor = x + self.mlp(self.ln2(x))
        return out

    def post_norm(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """Both halves, where each norms the sum."""
        x = self.ln1(x + self.drop(attend(x)))
        out: Tensor = self.ln2(x + self.mlp(x))
        return out


def gradient_flow(blocks: Sequence[Module], x: Array, grad: Array) -> list[float]:
    """One graph with a hook before each block; gradients of parameters are put back afterwards."""
    norms: list[float] = []

    def note(grad: Array) -> None:
        norms.append(float(np.sqrt(np.square(grad, dtype=np.float64).sum())))

    note(grad)
    before = [(p, p.grad) for block in blocks for p in block.parameters()]
    for p, _ in before:
        p.grad = None
    stream = Tensor(x, requires_grad=True)
    stream = stream * 1.0  # a node of its own, which a hook can hear
    for block in blocks:
        stream = stream * 1.0
        register_hook(stream, note)
        stream = block(stream)
    stream.backward(grad)
    for p, old in before:
        p.grad = old
    return norms[::-1]


# Models.


@dataclass(frozen=True)
class GPTConfig:
    """The numbers that make a model, and name the shapes of all its weights. Given.

    Attributes:
        vocab_size: how many tokens there are.
        context: the most positions that the model can see at once.
        dim: the width of the stream.
        num_layers: how many blocks.
        num_heads, num_kv_heads, hidden, dropout, bias: as of TransformerBlock.
        positions: "learned", "sinusoidal" or "rotary".
        tied: whether the head shares the table of tokens.
    """

    vocab_size: int
    context: int
    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int | None = None
    hidden: int | None = None
    dropout: float = 0.0
    bias: bool = True
    positions: str = "learned"
    tied: bool = True

    def __post_init__(self) -> None:
        if self.positions not in ("learned", "sinusoidal", "rotary"):
            raise ValueError(f'positions are "learned", "sinusoidal" or "rotary", not {self.positions!r}')

    @property
    def kv_dim(self) -> int:
        """How many numbers a place has as keys, and as many again as values."""
        return self.dim // self.num_heads * (self.num_kv_heads or self.num_heads)


class Transformer(Module):
    """What all models here have in common: tokens, positions and blocks.

    Attributes:
        config: its numbers.
        tokens: Embedding of vocab_size rows.
        positions: LearnedPositions or SinusoidalPositions, which add to the stream; or the Rotary that turns
            queries and keys in all blocks.
        drop: Dropout at the start of the stream, if there is any.
        blocks: a list of TransformerBlocks.
    """

    def __init__(self, config: GPTConfig, norm_first: bool, *, rng: np.random.Generator) -> None:
        c = config
        self.config = c
        self.tokens = Embedding(c.vocab_size, c.dim, rng=rng)
        self.positions: Module
        rotary = None
        if c.positions == "learned":
            self.positions = LearnedPositions(c.context, c.dim, rng=rng)
        elif c.positions == "sinusoidal":
            self.positions = SinusoidalPositions(c.dim, c.context)
        else:
            self.positions = rotary = Rotary(c.dim // c.num_heads, c.context)
        self.drop = dropout_or_nothing(c.dropout, rng)
        self.blocks = [
            TransformerBlock(
                c.dim,
                c.num_heads,
                c.num_kv_heads,
                c.hidden,
                c.dropout,
                norm_first,
                rotary,
                bias=c.bias,
                rng=rng,
            )
            for _ in range(c.num_layers)
        ]

    def embed(self, ids: Array, offset: int = 0, positions: Array | None = None) -> Tensor:
        """The start of the stream: ids (B, T), which stand from `offset` on, -> (B, T, dim).

        Or they stand at `positions` (B, T); to rotary models, which look at distances alone, these mean
        nothing. ValueError, naming the numbers, if the text is longer than `context`, and for ids that are
        not (B, T).
        """
        if ids.ndim != 2:
            raise ValueError(f"ids are (B, T), and not of shape {ids.shape}")
        if offset + ids.shape[1] > self.config.context:
            raise ValueError(
                f"{offset + ids.shape[1]} tokens are more than the context of {self.config.context} holds"
            )
        x = self.tokens(ids)
        if self.config.positions == "rotary":
            return self.drop(x)
        if positions is None:
            positions = np.broadcast_to(np.arange(offset, offset + ids.shape[1]), ids.shape)
        if self.config.positions == "learned":
            return self.drop(x + embedding(self.positions.weight, positions))
        return self.drop(x + self.positions.table[positions])

    def draw(self, rng: np.random.Generator) -> None:
        last = ("attn.out_proj.weight", "mlp.proj.weight")
        for name, p in self.named_parameters():
            if p.ndim == 2:
                normal_(p, 0.02 / math.sqrt(2 * len(self.blocks)) if name.endswith(last) else 0.02, rng=rng)
            elif name.endswith("bias"):
                p.data.fill(0)
                increment_version(p.data)


class TinyGPT(Transformer):
    """A language model: for each place of a text, how likely each token is to come next.

    Attributes:
        ln_f: LayerNorm after the last block.
        head: TiedLinear, or a Linear without bias, from dim to vocab_size.
    """

    def __init__(self, config: GPTConfig, *, rng: np.random.Generator) -> None:
        super().__init__(config, norm_first=True, rng=rng)
        self.ln_f = LayerNorm(config.dim)
        self.head: Module
        if config.tied:
            self.head = TiedLinear(self.tokens)
        else:
            self.head = Linear(config.dim, config.vocab_size, bias=False, rng=rng)
        self.draw(rng)

    def forward(
        self,
        ids: Any,
        mask: Any = None,
        caches: Sequence[KVCache] | None = None,
        positions: Array | None = None,
    ) -> Tensor:
        """Logits (B, T, vocab_size) of what follows each of the ids (B, T).

        Each place sees itself and those before it, less what `mask` hides. With caches, one for each block,
        the ids go on from what is in them, and `mask` is about all of that (see MultiHeadAttention).
        Positions count from the start of the text, unless `positions` (B, T) says otherwise. Errors as of
        `embed`; ValueError, naming both numbers, for caches that are not one for each block.
        """
        if caches is not None and len(caches) != len(self.blocks):
            raise ValueError(f"{len(caches)} caches for {len(self.blocks)} blocks: each needs one")
        offset = caches[0].length if caches else 0
        x = self.embed(as_array(ids), offset, positions)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, is_causal=True, cache=None if caches is None else caches[i])
        logits: Tensor = self.head(self.ln_f(x))
        return logits

    def new_caches(self) -> list[KVCache]:
        """Empty caches, one for each block."""
        return [KVCache() for _ in self.blocks]


class Encoder(Transformer):
    """A reader: each place sees the whole text, and what comes out is what each token means where it stands.

    Blocks norm last, as BERT's, or first. Where they norm last, the stream has to start normalised; where
    they norm first, it has to end so.

    Attributes:
        norm: LayerNorm, before the first block or after the last.
    """

    def __init__(self, config: GPTConfig, norm_first: bool = False, *, rng: np.random.Generator) -> None:
        super().__init__(config, norm_first, rng=rng)
        self.norm = LayerNorm(config.dim)
        self.norm_first = norm_first
        self.draw(rng)

    def forward(self, ids: Any, lengths: Any = None) -> Tensor:
        """(B, T) -> (B, T, dim). Only the first `lengths[i]` ids of row i are text, what follows is padding.

        What stands in the padding changes nothing of the text's places. Errors as of `embed` and
        `padding_mask`; ValueError, naming both, if there is not one length for each row.
        """
        ids = as_array(ids)
        x = self.embed(ids)
        mask = None
        if lengths is not None:
            if np.shape(lengths) != ids.shape[:1]:
                raise ValueError(f"ids of shape {ids.shape} and lengths of shape {np.shape(lengths)}")
            mask = padding_mask(lengths, ids.shape[1])
        if not self.norm_first:
            x = self.norm(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x) if self.norm_first else x


# What a model costs.


def parameters_by_part(model: Module) -> dict[str, int]:
    """How many numbers are in each part of a model: they add up to all there are, shared ones counted once.

    The parts are "tokens", "positions", "attention", "feed-forward", "norms" and "head", also where a part
    has none (a tied head).
    """
    kinds = {MultiHeadAttention: "attention", FeedForward: "feed-forward", Linear: "head"}
    kinds |= dict.fromkeys((LayerNorm, RMSNorm), "norms")
    kinds |= {Embedding: "tokens", LearnedPositions: "positions"}
    parts = dict.fromkeys(("tokens", "positions", "attention", "feed-forward", "norms", "head"), 0)
    seen: set[Any] = set()
    for module in model.modules():
        for p in module.parameters() if type(module) in kinds else ():
            if p not in seen:
                seen.add(p)
                parts[kinds[type(module)]] += p.size
    return parts


def activation_bytes(config: GPTConfig, batch: int, length: int) -> int:
    """Bytes that a recorded forward pass of TinyGPT keeps for the way back, in float32, without the logits.

    Of each norm its input and two numbers a row, of each linear layer its input, of gelu its input, of
    attention queries, keys, values, its result and one number for each head and row; of each dropout a byte
    for each number. Where queries and keys are turned, both the turned ones and what they were cut from stay.
    """
    c = config
    hidden = c.hidden or 4 * c.dim
    per_block = {
        "ln1": c.dim + 2,
        "qkv_proj": c.dim,
        "turned": c.dim + c.kv_dim if c.positions == "rotary" else 0,
        "attention": c.dim + 2 * c.kv_dim + c.dim + c.num_heads,
        "ln2": c.dim + 2,
        "fc": c.dim,
        "gelu": hidden,
        "proj": hidden,
    }
    numbers = batch * length * (c.num_layers * sum(per_block.values()) + (c.dim + 2) + c.dim)
    masks = batch * length * c.dim * (2 * c.num_layers + 1) if c.dropout > 0 else 0
    return 4 * numbers + masks


# Weights of others. A .safetensors file is the length of a header in 8 bytes, the header in JSON, and bytes.

DTYPES = {
    "BOOL": np.dtype(bool),
    **{f"{k}{8 * n}": np.dtype(f"<{k.lower()}{n}") for k in "IU" for n in (1, 2, 4, 8)},
    **{f"F{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
}


def write_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays, and perhaps words about them, as a .safetensors file.

    Each array starts at a multiple of its numbers' size, and is not copied on its way. The file is there
    whole or not at all, as with `save` of kata 05. TypeError, naming the array and its dtype, for what is
    neither bools, integers nor floats of at most 64 bits, and ValueError for an array of the name
    "__metadata__"; then nothing is written.
    """
    known = {dtype.str.replace("=", "<"): name for name, dtype in DTYPES.items()}
    if "__metadata__" in arrays:
        raise ValueError("an array cannot have the name __metadata__")
    entries: list[tuple[int, str, Any]] = []
    for name, given in arrays.items():
        array = as_plain(given)
        if array.dtype.newbyteorder("<").str not in known:
            raise TypeError(f"array {name} of dtype {array.dtype} cannot be written")
        entries.append((array.itemsize, name, array))
    entries.sort(key=lambda entry: entry[0], reverse=True)
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(metadata)
    place = 0
    for _, name, array in entries:
        header[name] = {
            "dtype": known[array.dtype.newbyteorder("<").str],
            "shape": array.shape,
            "data_offsets": (place, place + array.nbytes),
        }
        place += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text = text.ljust((len(text) + 7) // 8 * 8)
    handle, unfinished = tempfile.mkstemp(dir=Path(path).parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(struct.pack("<Q", len(text)))
            file.write(text)
            for _, _, array in entries:
                np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tofile(file)
        Path(unfinished).replace(path)
    except BaseException:
        os.unlink(unfinished)
        raise


def as_plain(array: Any) -> Array:
    """The array of a Tensor, and anything else as an array. Given."""
    return array.data if isinstance(array, Tensor) else np.asarray(array)


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of a .safetensors file by name, read-only, in the file's own memory: nothing is copied.

    But for bfloat16, which numpy has not: that is widened to float32. FileNotFoundError if there is no such
    file; ValueError, naming the file, if it is none, holds a dtype that is not known here, or is damaged:
    every byte after the header belongs to just one array, and each array has as many as its shape takes.
    """
    words = os.fspath(path)
    with open(path, "rb") as file:
        try:
            raw = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise ValueError(f"{words} is empty") from error
    try:
        (size,) = struct.unpack("<Q", raw[:8])
        if 8 + size > len(raw):
            raise ValueError("the header does not end")
        header = json.loads(bytes(raw[8 : 8 + size]))
        header.pop("__metadata__", None)
        data = raw[8 + size :]
        arrays, spans = {}, []
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            shape = tuple(entry["shape"])
            if start < 0 or stop < start or stop > len(data) or any(n < 0 for n in shape):
                raise ValueError(f"{name} lies outside")
            dtype = DTYPES[entry["dtype"]] if entry["dtype"] != "BF16" else np.dtype("<u2")
            array = np.frombuffer(data[start:stop], dtype).reshape(shape)
            if entry["dtype"] == "BF16":
                wide = np.zeros((*shape, 2), "<u2")
                wide[..., 1] = array
                array = wide.view("<f4")[..., 0]
            arrays[name] = array
            spans.append((start, stop))
        spans.sort()
        ends = [0, *(stop for _, stop in spans)]
        if [*(start for start, _ in spans), len(data)] != ends:
            raise ValueError("holes or overlaps")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise ValueError(f"{words}: {error}") from error
    return arrays


# GPT-2's names for what is here called otherwise.
GPT2_NAMES = {
    "wte": "tokens",
    "wpe": "positions",
    "lm_head": "head",
    "ln_f": "ln_f",
    "ln_1": "ln1",
    "attn.c_attn": "attn.qkv_proj",
    "attn.c_proj": "attn.out_proj",
    "ln_2": "ln2",
    "mlp.c_fc": "mlp.fc",
    "mlp.c_proj": "mlp.proj",
}


def gpt2_state(state: Mapping[str, Array]) -> dict[str, Array]:
    """What TinyGPT.load_state_dict wants, from arrays under GPT-2's names: views of them.

    All names may start with "transformer.". Weights called c_... are (inputs, outputs) there. The masks that
    are saved with some files (`attn.bias`, `attn.masked_bias`) are left out, and without an `lm_head.weight`
    the head is that of the tokens. ValueError for any other name, naming it.
    """
    result: dict[str, Array] = {}
    pattern = re.compile(r"(?:transformer\.)?(?:h\.(\d+)\.)?(.+)\.(weight|bias)")
    for full, array in state.items():
        if re.search(r"\.attn\.(masked_)?bias$", full):
            continue
        found = pattern.fullmatch(full)
        if not found or found[2] not in GPT2_NAMES:
            raise ValueError(f"what is {full}?")
        number, part, kind = found.groups()
        name = GPT2_NAMES[part] + "." + kind
        if number is not None:
            name = f"blocks.{number}.{name}"
        result[name] = np.swapaxes(array, 0, 1) if "c_" in part and kind == "weight" else array
    if "tokens.weight" in result and "head.weight" not in result:
        result["head.weight"] = result["tokens.weight"]
    return result


def load_gpt2(path: str | os.PathLike[str], num_heads: int) -> TinyGPT:
    """A TinyGPT with the weights of a file that has GPT-2's names, .npz or .safetensors, in float32.

    All its numbers can be read off the shapes, but for that of the heads. Nothing is unpickled.
    FileNotFoundError if there is no such file; ValueError, naming it, if it is damaged, or its arrays are not
    those of a GPT-2.
    """
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    try:
        state = gpt2_state(_read_npz(path) if is_zip else read_safetensors(path))
        vocab_size, dim = state["tokens.weight"].shape
        config = GPTConfig(
            vocab_size,
            context=len(state["positions.weight"]),
            dim=dim,
            num_layers=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
            num_heads=num_heads,
            hidden=len(state["blocks.0.mlp.fc.weight"]),
            tied=np.array_equal(state["head.weight"], state["tokens.weight"]),
        )
        model = TinyGPT(config, rng=np.random.default_rng(0))
        model.load_state_dict(state)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)} does not hold a GPT-2: {error}") from error
    return model


def _read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of an .npz file; ValueError for one that is damaged. Given."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy, zipfile and zlib have a dozen kinds
        raise ValueError(f"no whole .npz file: {error}") from error
