"""Kata 14 · Transformers: attention and a small network, over and over, along a stream that nothing blocks.

A block reads the stream of activations (B, T, dim), and adds to it what its two halves have found: attention,
which carries numbers from place to place, and a feed-forward network, which works on each place alone. Norms
keep what the halves read at one scale. A stack of such blocks between a table of tokens and a head is GPT-2,
and with other names for its weights it is this file's TinyGPT: what was published for the one runs in the
other.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.activations import Dropout, gelu
from tinytorch.attention import KVCache, MultiHeadAttention, padding_mask
from tinytorch.autograd import flow
from tinytorch.embeddings import (
    Embedding,
    LearnedPositions,
    Rotary,
    SinusoidalPositions,
    TiedLinear,
    normal_,
)
from tinytorch.layers import Linear, Module, Parameter, as_rows
from tinytorch.networks import Sequential, initialise
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


@op(saves=["mean", "inverse_std"])
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """Each row of x (..., dim) shifted and scaled to mean 0 and variance 1; that times weight, plus bias.

    In the dtype of x, float32 for integers. The variance is divided by dim, and `eps` is added to it before
    its root is taken. Beside the result comes what the way back needs of each row: its mean, and
    1 / sqrt(variance + eps). There may be no rows, and dim may be 0. ValueError, naming the shapes, unless
    weight and bias are (dim,).
    """
    # kata 14.1: one new table, written over in place. A row's mean is its product with a vector; and
    # `mean_square` is the variance of what has mean 0.
    x = floating(x)
    check_norm(x, weight, bias)
    rows = as_rows(x)
    mean = (rows @ np.full_like(rows, 1 / max(rows.shape[1], 1), shape=rows.shape[1]))[:, None]
    out = rows - mean
    inverse_std = 1 / np.sqrt(mean_square(out) + x.dtype.type(eps))
    out *= inverse_std
    out *= weight
    out += bias
    return out.reshape(x.shape), mean, inverse_std


@layer_norm.gradient
def layer_norm_back(
    grad: Array, x: Array, weight: Array, mean: Array, inverse_std: Array
) -> tuple[Array, Array, Array]:  # stub: (grad: Array)
    """The gradients of x, weight and bias, in the dtype of `grad`, also where x holds integers."""
    # kata 14.2: with n the normalised row and g = grad * weight, x gets
    # inverse_std * (g - mean(g) - n * mean(g * n)). Each sum over rows or columns is a product with a vector.
    rows, off = as_rows(grad), as_rows(floating(x)) - mean
    share = (weight / max(len(weight), 1)).astype(grad.dtype)
    for_x = rows * off
    for_weight = inverse_std[:, 0] @ for_x
    tilt = for_x @ share
    off *= inverse_std * inverse_std * tilt[:, None]
    off += (rows @ share)[:, None]
    np.multiply(rows, weight, out=for_x)
    for_x -= off
    for_x *= inverse_std
    return for_x.reshape(grad.shape), for_weight, rows.sum(axis=0)


class LayerNorm(Module):
    """layer_norm with a scale and a shift of its own for each column.

    Attributes:
        weight, bias: (dim,), float32; ones and zeros at first.
        eps: as of layer_norm.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        # kata 14.3: two Parameters.
        self.weight = Parameter(np.ones(dim, np.float32))
        self.bias = Parameter(np.zeros(dim, np.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # kata 14.3: one operation, whether the module learns or is used.
        return layer_norm(x, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}"


@op(saves=["inverse_rms"])
def rms_norm(x: Array, weight: Array, *, eps: float = 1e-6) -> tuple[Array, Array]:
    """Each row of x (..., dim), divided by the root of its mean square, times weight.

    Without a mean to subtract and without a bias it is LayerNorm at half the work (Zhang and Sennrich, 2019).
    `eps` is added to the mean square. Dtype and errors as for layer_norm; what comes beside the result is
    1 / sqrt(mean square + eps) of each row.
    """
    # kata 14.4: what is left of layer_norm.
    x = floating(x)
    check_norm(x, weight)
    rows = as_rows(x)
    inverse_rms = 1 / np.sqrt(mean_square(rows) + x.dtype.type(eps))
    out = rows * inverse_rms
    out *= weight
    return out.reshape(x.shape), inverse_rms


@rms_norm.gradient
def rms_norm_back(
    grad: Array, x: Array, weight: Array, inverse_rms: Array
) -> tuple[Array, Array]:  # stub: (grad: Array)
    """The gradients of x and weight, in the dtype of `grad`."""
    # kata 14.4: as before, but a mean that was not subtracted has no say.
    rows, table = as_rows(grad), as_rows(floating(x))
    for_x = rows * table
    for_weight = inverse_rms[:, 0] @ for_x
    tilt = for_x @ (weight / max(len(weight), 1)).astype(grad.dtype)
    np.multiply(rows, weight, out=for_x)
    for_x -= table * (inverse_rms * inverse_rms * tilt[:, None])
    for_x *= inverse_rms
    return for_x.reshape(grad.shape), for_weight


class RMSNorm(Module):
    """rms_norm with a scale of its own for each column.

    Attributes:
        weight: (dim,), float32; ones at first.
        eps: as of rms_norm.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        # kata 14.5: one Parameter.
        self.weight = Parameter(np.ones(dim, np.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # kata 14.5: one operation.
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
        # kata 14.6: `hidden` is 4 * dim unless told. Draw fc first, then proj.
        hidden = 4 * dim if hidden is None else hidden
        self.fc = Linear(dim, hidden, bias, rng=rng)
        self.activation: Callable[[Any], Tensor] = gelu
        self.proj = Linear(hidden, dim, bias, rng=rng)
        self.drop = dropout_or_nothing(dropout, rng)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        # kata 14.6: there, bent, and back.
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
        # kata 14.7: set in the order in which they are used: ln1, attn, drop, ln2, mlp.
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
        # kata 14.7: who is normalised, the stream or a copy of it? What attention gives, `drop` sees first.
        x = x + self.drop(attend(self.ln1(x)))
        out: Tensor = x + self.mlp(self.ln2(x))
        return out

    def post_norm(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """Both halves, where each norms the sum."""
        # kata 14.8: the same parts in another order.
        x = self.ln1(x + self.drop(attend(x)))
        out: Tensor = self.ln2(x + self.mlp(x))
        return out


def gradient_flow(blocks: Sequence[Module], x: Array, grad: Array) -> list[float]:
    """How long the gradient is on its way back through `blocks`, one after the other.

    x goes through the blocks, and `grad`, of the shape of what comes out, the other way. Item i of what is
    returned is the norm of the gradient at the input of block i, and the last one that of `grad`. All in
    float64 at the end; no parameter's `.grad` changes, and the blocks are, meanwhile and afterwards, as they
    were: what trains, what is frozen.
    """
    # kata 14.9: give each block a leaf of its own to start from. `flow` of kata 06 yields what leaves get.
    steps = []
    for block in blocks:
        leaf = Tensor(x, requires_grad=True)
        out = block(leaf)
        steps.append((leaf, out))
        x = out.data
    norms = [float(np.linalg.norm(grad.astype(np.float64)))]
    for leaf, out in reversed(steps):
        grad = dict(flow(out.node or out, grad))[leaf]
        norms.append(float(np.linalg.norm(grad.astype(np.float64))))
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
        # kata 14.10: one Rotary serves all blocks; it turns heads, whose size is dim // num_heads.
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
        nothing. ValueError, naming offset + T and the context, if the first is more, and for ids that are not
        (B, T), naming their shape. Errors as of Embedding, too.
        """
        # kata 14.10: learned and sinusoidal positions are added here, rotary ones are not.
        if ids.ndim != 2:
            raise ValueError(f"ids are (B, T), and not of shape {ids.shape}")
        if offset + ids.shape[1] > self.config.context:
            raise ValueError(
                f"{offset + ids.shape[1]} tokens are more than the context of {self.config.context} holds"
            )
        x = self.tokens(ids)
        if not isinstance(self.positions, Rotary):
            x = self.positions(x, offset, positions)
        out: Tensor = self.drop(x)
        return out

    def draw(self, rng: np.random.Generator) -> None:
        """Draw all weights anew, as those of GPT-2: normal with deviation 0.02, biases 0.

        What ends a half of a block, `attn.out_proj` and `mlp.proj`, is smaller by sqrt(2 * num_layers): so
        many halves add to the stream. Weights of norms stay as they are; their biases are biases, and become
        0. All is written into the parameters that are there.
        """
        # kata 14.11: `initialise` of kata 05 knows weights from biases; `normal_` is of kata 12.
        initialise(self, functools.partial(normal_, std=0.02), rng=rng)
        for block in self.blocks:
            for last in (block.attn.out_proj, block.mlp.proj):
                last.weight.data /= math.sqrt(2 * self.config.num_layers)
                increment_version(last.weight.data)


class TinyGPT(Transformer):
    """A language model: for each place of a text, how likely each token is to come next.

    Attributes:
        ln_f: LayerNorm after the last block.
        head: TiedLinear, or a Linear without bias, from dim to vocab_size.
    """

    def __init__(self, config: GPTConfig, *, rng: np.random.Generator) -> None:
        # kata 14.12: the blocks norm first. At the end, `draw`.
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

        Each place sees itself and those before it, less what `mask` hides; no table (T, T) is made of that.
        With caches, one for each block, the ids go on from what is in them, and `mask` is about all of that
        (see MultiHeadAttention). Positions count from the start of the text, unless `positions` (B, T) says
        otherwise. Errors as of `embed`; ValueError, naming both numbers, for caches that are not one for each
        block. A call that fails so leaves nothing in the caches.
        """
        # kata 14.13: the length of a cache is where the ids stand.
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
        # kata 14.13: each its own.
        return [KVCache() for _ in self.blocks]


class Encoder(Transformer):
    """A reader: each place sees the whole text, and what comes out is what each token means where it stands.

    Blocks norm last, as BERT's, or first. Where they norm last, the stream has to start normalised; where
    they norm first, it has to end so. Weights start as those of TinyGPT, by `draw`.

    Attributes:
        norm: LayerNorm, before the first block or after the last.
    """

    def __init__(self, config: GPTConfig, norm_first: bool = False, *, rng: np.random.Generator) -> None:
        # kata 14.14: as TinyGPT, without a head (`tied` means nothing here).
        super().__init__(config, norm_first, rng=rng)
        self.norm = LayerNorm(config.dim)
        self.norm_first = norm_first
        self.draw(rng)

    def forward(self, ids: Any, lengths: Any = None) -> Tensor:
        """(B, T) -> (B, T, dim). Only the first `lengths[i]` ids of row i are text, what follows is padding.

        What stands in the padding changes nothing of the text's places. Errors as of `embed` and
        `padding_mask`; ValueError, naming both shapes, if there is not one length for each row.
        """
        # kata 14.14: a mask hides padding as keys. What padding itself makes of the text is never read.
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

    The parts are, in this order, "tokens", "positions", "attention", "feed-forward", "norms" and "head", also
    where a part has none (a tied head). A block by itself is sorted likewise.
    """
    # kata 14.15: `named_parameters` gives each once, and its path tells the part.
    parts = dict.fromkeys(("tokens", "positions", "attention", "feed-forward", "norms", "head"), 0)
    named = {"attn": "attention", "mlp": "feed-forward"}
    for path, parameter in model.named_parameters():
        names = [named.get(name, name) for name in path.split(".")]
        parts[next((name for name in names if name in parts), "norms")] += parameter.size
    return parts


def activation_bytes(config: GPTConfig, batch: int, length: int) -> int:
    """Bytes that a recorded forward pass of TinyGPT keeps for the way back, in float32, without the logits.

    Of each norm its input and two numbers a row, of each linear layer its input, of gelu its input, of
    attention queries, keys, values, its result and one number for each head and row; of each dropout a byte
    for each number. Where queries and keys are turned, both the turned ones and what they were cut from stay.
    """
    # kata 14.16: go through a block line by line and ask of each operation what it keeps; count what two of
    # them keep once.
    c = config
    hidden = 4 * c.dim if c.hidden is None else c.hidden
    qkv = c.dim + 2 * c.kv_dim
    turned = c.dim + c.kv_dim if c.positions == "rotary" else 0
    # ln1's input and result; q, k, v, and what attention found; ln2's input and result; gelu's, too.
    block = 2 * c.dim + qkv + turned + c.dim + 2 * c.dim + 2 * hidden + 4 + c.num_heads
    end = 2 * c.dim + 2
    masks = (1 + 2 * c.num_layers) * c.dim if c.dropout else 0
    return batch * length * (4 * (c.num_layers * block + end) + masks)


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
    "__metadata__", which is that of the words; then nothing is written.
    """
    # kata 14.17: the widest numbers first, after a header that spaces fill up to 8 bytes. `newbyteorder("<")`
    # is little-endian, and an array of bytes can be written to a file as it is.
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    plain = {name: as_plain(array) for name, array in arrays.items()}
    if "__metadata__" in plain:
        raise ValueError("__metadata__ is the name of the words of a file, and of no array")
    order = sorted(plain, key=lambda name: -plain[name].itemsize)
    end = 0
    for name in order:
        array = plain[name]
        dtype = names.get(array.dtype.newbyteorder("<"))
        if dtype is None:
            raise TypeError(f"{name} is {array.dtype}, which a .safetensors file does not hold")
        span = [end, end + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": span}
        end += array.nbytes
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(len(words).to_bytes(8, "little") + words)
            for name in order:
                array = plain[name].astype(plain[name].dtype.newbyteorder("<"), order="C", copy=False)
                file.write(array.reshape(-1).view(np.uint8).data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def as_plain(array: Any) -> Array:
    """The array of a Tensor, and anything else as an array. Given."""
    return array.data if isinstance(array, Tensor) else np.asarray(array)


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of a .safetensors file by name, read-only, in the file's own memory: nothing is copied.

    But for bfloat16, which numpy has not: that is widened to float32. FileNotFoundError if there is no such
    file; ValueError, naming the file, if it is none, holds a dtype that is not known here, or is damaged:
    every byte after the header belongs to just one array, and each array has as many as its shape takes.
    """
    # kata 14.18: np.memmap shows a file as an array of bytes. bfloat16 is the upper half of a float32.
    try:
        header, start = _header(path)
        header.pop("__metadata__", None)
        data = np.asarray(np.memmap(path, np.uint8, "r"))[start:]
        arrays = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            narrow = entry["dtype"] == "BF16"
            dtype = np.dtype("<u2") if narrow else DTYPES[entry["dtype"]]
            if last - first != math.prod(entry["shape"]) * dtype.itemsize:
                raise ValueError(f"{last - first} bytes are no {entry['dtype']} of shape {entry['shape']}")
            array = data[first:last].view(dtype).reshape(entry["shape"])
            arrays[name] = (array.astype("<u4") << 16).view("<f4") if narrow else array
        end = 0
        for first, last in sorted(entry["data_offsets"] for entry in header.values()):
            if first != end:
                raise ValueError(f"one array ends at byte {end}, and the next starts at {first}")
            end = last
        if end != len(data):
            raise ValueError(f"its arrays have {end} bytes, and the file has {len(data)}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is no whole .safetensors file: {error!r}") from error
    return arrays


def _header(path: str | os.PathLike[str]) -> tuple[dict[str, Any], int]:
    """The header of a .safetensors file, and where it ends. Given."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > os.fstat(file.fileno()).st_size - 8:
            raise ValueError(f"a header of {size} bytes is longer than the file")
        header = json.loads(file.read(size))
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    return header, 8 + size


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
    the head is that of the tokens, if they are there. ValueError for any other name, naming it.
    """
    # kata 14.19: take a name apart; a weight with two axes may need to be turned.
    result = {}
    for full, array in state.items():
        path = full.removeprefix("transformer.")
        where, _, kind = path.rpartition(".")
        prefix = ""
        if where.startswith("h."):
            _, number, where = where.split(".", 2)
            prefix = f"blocks.{number}."
        if where == "attn" and kind in ("bias", "masked_bias"):
            continue
        if where not in GPT2_NAMES or kind not in ("weight", "bias"):
            raise ValueError(f"{full} is no name of GPT-2's")
        turned = ".c_" in where and kind == "weight"
        result[f"{prefix}{GPT2_NAMES[where]}.{kind}"] = array.T if turned else array
    if "tokens.weight" in result:
        result.setdefault("head.weight", result["tokens.weight"])
    return result


def load_gpt2(path: str | os.PathLike[str], num_heads: int) -> TinyGPT:
    """A TinyGPT with the weights of a file that has GPT-2's names, .npz or .safetensors, in float32.

    Which of the two it is, its bytes say, and not what it is called. All its numbers can be read off the
    shapes, but for that of the heads. Nothing is unpickled. FileNotFoundError if there is no such file;
    ValueError, naming it, if it is damaged, or its arrays are not those of a GPT-2 (of one block or more),
    or, naming `num_heads`, too, if so many cannot share its width. The model is tied where its head has the
    numbers of the tokens.
    """
    # kata 14.20: an .npz is a zip, which starts with b"PK". How many blocks are there, how wide is `fc`?
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
