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
    # TODO 14.1: one new table, written over in place. A row's mean is its product with a vector; and
    # `mean_square` is the variance of what has mean 0.
    raise NotImplementedError("kata 14.1: layer_norm")


@layer_norm.gradient
def layer_norm_back(grad: Array) -> tuple[Array, Array, Array]:
    """The gradients of x, weight and bias, in the dtype of `grad`, also where x holds integers."""
    # TODO 14.2: with n the normalised row and g = grad * weight, x gets
    # inverse_std * (g - mean(g) - n * mean(g * n)). Each sum over rows or columns is a product with a vector.
    raise NotImplementedError("kata 14.2: layer_norm_back")


class LayerNorm(Module):
    """layer_norm with a scale and a shift of its own for each column.

    Attributes:
        weight, bias: (dim,), float32; ones and zeros at first.
        eps: as of layer_norm.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        # TODO 14.3: two Parameters.
        raise NotImplementedError("kata 14.3: LayerNorm.__init__")

    def forward(self, x: Tensor) -> Tensor:
        # TODO 14.3: one operation, whether the module learns or is used.
        raise NotImplementedError("kata 14.3: LayerNorm.forward")

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}"


@op(saves=["inverse_rms"])
def rms_norm(x: Array, weight: Array, *, eps: float = 1e-6) -> tuple[Array, Array]:
    """Each row of x (..., dim), divided by the root of its mean square, times weight.

    Without a mean to subtract and without a bias it is LayerNorm at half the work (Zhang and Sennrich, 2019).
    `eps` is added to the mean square. Dtype and errors as for layer_norm; what comes beside the result is
    1 / sqrt(mean square + eps) of each row.
    """
    # TODO 14.4: what is left of layer_norm.
    raise NotImplementedError("kata 14.4: rms_norm")


@rms_norm.gradient
def rms_norm_back(grad: Array) -> tuple[Array, Array]:
    """The gradients of x and weight, in the dtype of `grad`."""
    # TODO 14.4: as before, but a mean that was not subtracted has no say.
    raise NotImplementedError("kata 14.4: rms_norm_back")


class RMSNorm(Module):
    """rms_norm with a scale of its own for each column.

    Attributes:
        weight: (dim,), float32; ones at first.
        eps: as of rms_norm.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        # TODO 14.5: one Parameter.
        raise NotImplementedError("kata 14.5: RMSNorm.__init__")

    def forward(self, x: Tensor) -> Tensor:
        # TODO 14.5: one operation.
        raise NotImplementedError("kata 14.5: RMSNorm.forward")

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
        # TODO 14.6: `hidden` is 4 * dim unless told. Draw fc first, then proj.
        raise NotImplementedError("kata 14.6: FeedForward.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        # TODO 14.6: there, bent, and back.
        raise NotImplementedError("kata 14.6: FeedForward.forward")


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
        # TODO 14.7: set in the order in which they are used: ln1, attn, drop, ln2, mlp.
        raise NotImplementedError("kata 14.7: TransformerBlock.__init__")

    def forward(
        self, x: Tensor, mask: Any = None, is_causal: bool = False, cache: KVCache | None = None
    ) -> Tensor:
        """(B, T, dim) -> (B, T, dim). What is not `x` goes to the attention. Given."""
        attend = functools.partial(self.attn, mask=mask, is_causal=is_causal, cache=cache)
        return self.pre_norm(x, attend) if self.norm_first else self.post_norm(x, attend)

    def pre_norm(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """Both halves, where each norms what it reads. `attend` is `attn`, its options filled in."""
        # TODO 14.7: who is normalised, the stream or a copy of it? What attention gives, `drop` sees first.
        raise NotImplementedError("kata 14.7: TransformerBlock.pre_norm")

    def post_norm(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """Both halves, where each norms the sum."""
        # TODO 14.8: the same parts in another order.
        raise NotImplementedError("kata 14.8: TransformerBlock.post_norm")


def gradient_flow(blocks: Sequence[Module], x: Array, grad: Array) -> list[float]:
    """How long the gradient is on its way back through `blocks`, one after the other.

    x goes through the blocks, and `grad`, of the shape of what comes out, the other way. Item i of what is
    returned is the norm of the gradient at the input of block i, and the last one that of `grad`. All in
    float64 at the end; no parameter's `.grad` changes, and the blocks are, meanwhile and afterwards, as they
    were: what trains, what is frozen.
    """
    # TODO 14.9: give each block a leaf of its own to start from. `flow` of kata 06 yields what leaves get.
    raise NotImplementedError("kata 14.9: gradient_flow")


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
        # TODO 14.10: one Rotary serves all blocks; it turns heads, whose size is dim // num_heads.
        raise NotImplementedError("kata 14.10: Transformer.__init__")

    def embed(self, ids: Array, offset: int = 0, positions: Array | None = None) -> Tensor:
        """The start of the stream: ids (B, T), which stand from `offset` on, -> (B, T, dim).

        Or they stand at `positions` (B, T); to rotary models, which look at distances alone, these mean
        nothing. ValueError, naming offset + T and the context, if the first is more, and for ids that are not
        (B, T), naming their shape. Errors as of Embedding, too.
        """
        # TODO 14.10: learned and sinusoidal positions are added here, rotary ones are not.
        raise NotImplementedError("kata 14.10: Transformer.embed")

    def draw(self, rng: np.random.Generator) -> None:
        """Draw all weights anew, as those of GPT-2: normal with deviation 0.02, biases 0.

        What ends a half of a block, `attn.out_proj` and `mlp.proj`, is smaller by sqrt(2 * num_layers): so
        many halves add to the stream. Weights of norms stay as they are; their biases are biases, and become
        0. All is written into the parameters that are there.
        """
        # TODO 14.11: `initialise` of kata 05 knows weights from biases; `normal_` is of kata 12.
        raise NotImplementedError("kata 14.11: Transformer.draw")


class TinyGPT(Transformer):
    """A language model: for each place of a text, how likely each token is to come next.

    Attributes:
        ln_f: LayerNorm after the last block.
        head: TiedLinear, or a Linear without bias, from dim to vocab_size.
    """

    def __init__(self, config: GPTConfig, *, rng: np.random.Generator) -> None:
        # TODO 14.12: the blocks norm first. At the end, `draw`.
        raise NotImplementedError("kata 14.12: TinyGPT.__init__")

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
        # TODO 14.13: the length of a cache is where the ids stand.
        raise NotImplementedError("kata 14.13: TinyGPT.forward")

    def new_caches(self) -> list[KVCache]:
        """Empty caches, one for each block."""
        # TODO 14.13: each its own.
        raise NotImplementedError("kata 14.13: TinyGPT.new_caches")


class Encoder(Transformer):
    """A reader: each place sees the whole text, and what comes out is what each token means where it stands.

    Blocks norm last, as BERT's, or first. Where they norm last, the stream has to start normalised; where
    they norm first, it has to end so. Weights start as those of TinyGPT, by `draw`.

    Attributes:
        norm: LayerNorm, before the first block or after the last.
    """

    def __init__(self, config: GPTConfig, norm_first: bool = False, *, rng: np.random.Generator) -> None:
        # TODO 14.14: as TinyGPT, without a head (`tied` means nothing here).
        raise NotImplementedError("kata 14.14: Encoder.__init__")

    def forward(self, ids: Any, lengths: Any = None) -> Tensor:
        """(B, T) -> (B, T, dim). Only the first `lengths[i]` ids of row i are text, what follows is padding.

        What stands in the padding changes nothing of the text's places. Errors as of `embed` and
        `padding_mask`; ValueError, naming both shapes, if there is not one length for each row.
        """
        # TODO 14.14: a mask hides padding as keys. What padding itself makes of the text is never read.
        raise NotImplementedError("kata 14.14: Encoder.forward")


# What a model costs.


def parameters_by_part(model: Module) -> dict[str, int]:
    """How many numbers are in each part of a model: they add up to all there are, shared ones counted once.

    The parts are, in this order, "tokens", "positions", "attention", "feed-forward", "norms" and "head", also
    where a part has none (a tied head). A block by itself is sorted likewise.
    """
    # TODO 14.15: `named_parameters` gives each once, and its path tells the part.
    raise NotImplementedError("kata 14.15: parameters_by_part")


def activation_bytes(config: GPTConfig, batch: int, length: int) -> int:
    """Bytes that a recorded forward pass of TinyGPT keeps for the way back, in float32, without the logits.

    Of each norm its input and two numbers a row, of each linear layer its input, of gelu its input, of
    attention queries, keys, values, its result and one number for each head and row; of each dropout a byte
    for each number. Where queries and keys are turned, both the turned ones and what they were cut from stay.
    """
    # TODO 14.16: go through a block line by line and ask of each operation what it keeps; count what two of
    # them keep once.
    raise NotImplementedError("kata 14.16: activation_bytes")


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
    # TODO 14.17: the widest numbers first, after a header that spaces fill up to 8 bytes. `newbyteorder("<")`
    # is little-endian, and an array of bytes can be written to a file as it is.
    raise NotImplementedError("kata 14.17: write_safetensors")


def as_plain(array: Any) -> Array:
    """The array of a Tensor, and anything else as an array. Given."""
    return array.data if isinstance(array, Tensor) else np.asarray(array)


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of a .safetensors file by name, read-only, in the file's own memory: nothing is copied.

    But for bfloat16, which numpy has not: that is widened to float32. FileNotFoundError if there is no such
    file; ValueError, naming the file, if it is none, holds a dtype that is not known here, or is damaged:
    every byte after the header belongs to just one array, and each array has as many as its shape takes.
    """
    # TODO 14.18: np.memmap shows a file as an array of bytes. bfloat16 is the upper half of a float32.
    raise NotImplementedError("kata 14.18: read_safetensors")


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
    # TODO 14.19: take a name apart; a weight with two axes may need to be turned.
    raise NotImplementedError("kata 14.19: gpt2_state")


def load_gpt2(path: str | os.PathLike[str], num_heads: int) -> TinyGPT:
    """A TinyGPT with the weights of a file that has GPT-2's names, .npz or .safetensors, in float32.

    Which of the two it is, its bytes say, and not what it is called. All its numbers can be read off the
    shapes, but for that of the heads. Nothing is unpickled. FileNotFoundError if there is no such file;
    ValueError, naming it, if it is damaged, or its arrays are not those of a GPT-2 (of one block or more),
    or, naming `num_heads`, too, if so many cannot share its width. The model is tied where its head has the
    numbers of the tokens.
    """
    # TODO 14.20: an .npz is a zip, which starts with b"PK". How many blocks are there, how wide is `fc`?
    raise NotImplementedError("kata 14.20: load_gpt2")


def _read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of an .npz file; ValueError for one that is damaged. Given."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy, zipfile and zlib have a dozen kinds
        raise ValueError(f"no whole .npz file: {error}") from error
