"""Kata 15 · Generation: from logits to text, and from text to a model that writes it.

A language model gives logits, numbers for each token that could come next. Processors bend them, one token
is drawn, and the model is asked again with that token after all others. A `Reader` asks so that each token
is read once: what the model made of it stays in a cache. The other half is where such a model comes from:
windows of a long row of ids, each token a label for those before it, trained by kata 10's Trainer.

Logits of the next token are arrays (B, V): a row of the batch, a number for each of V ids. A model is called
as `model(ids, mask=..., caches=..., positions=...)`, has `new_caches()`, and a window of
`model.config.context` tokens. The ids that have been generated so far are arrays (B, T) of int64.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinytorch.activations import below_largest, log_softmax
from tinytorch.attention import KVCache, cache_bytes, padding_mask
from tinytorch.autograd import no_grad
from tinytorch.dataloader import DataLoader, Dataset
from tinytorch.layers import Module, parameter_bytes
from tinytorch.optimizers import AdamW, CosineAnnealingLR, LinearLR, Optimizer, SequentialLR
from tinytorch.tensor import Array, Tensor, as_array
from tinytorch.tokenization import Tokenizer
from tinytorch.training import Callback, Trainer, cross_entropy, evaluating, memory_by_part

__all__ = [
    "Reader", "RepetitionPenalty", "Temperature", "TokenDataset", "TopK", "TopP", "Validation",
    "beam_search", "bits_per_character", "chain", "decay_groups", "evaluate", "generate", "generation_bytes",
    "greedy", "language_model_loss", "left_padded", "perplexity", "sample", "stream", "text_stream",
    "token_batches", "train_language_model", "training_bytes", "warmup_cosine", "window_start",
]  # fmt: skip

LanguageModel: TypeAlias = (
    Any  # a Module that answers as the first lines above say, such as kata 14's TinyGPT
)
Processor: TypeAlias = Callable[[Array, Array], Array]
Generator: TypeAlias = np.random.Generator


# One token from the logits of a row.


def greedy(logits: Any) -> Array:
    """The most likely id of each row: (B,) int64 of logits (B, V), array or Tensor. Of equals, the lowest."""
    # TODO 15.1: where the largest is.
    raise NotImplementedError("kata 15.1: greedy")


def sample(logits: Any, *, rng: Generator) -> Array:
    """One id for each row, (B,) int64, drawn with the probabilities softmax(logits), exactly.

    Logits are as for `greedy`. What has a logit of -inf is never drawn. ValueError, which names the row,
    where nothing could be drawn: all are -inf, or one is nan.
    """
    # TODO 15.2: the sums of all probabilities up to each id divide a line into pieces. Which piece does a
    # random point of it lie in? In float64: 50,000 float32 sums add up to something else.
    raise NotImplementedError("kata 15.2: sample")


# Processors: new logits from logits (B, V) and the ids (B, T) so far.


class Temperature:
    """Logits divided by t: below 1 the likely become likelier, above 1 all become more alike.

    ValueError for a t that is not above 0: with 0 nothing is left to chance, and `greedy` does that.
    """

    def __init__(self, t: float) -> None:
        if not t > 0:
            raise ValueError(f"a temperature is above 0, and not {t}; without chance, see greedy")
        self.t = float(t)  # numpy's own float64 would make float32 logits float64

    def __call__(self, logits: Array, ids: Array) -> Array:
        # TODO 15.3: one division.
        raise NotImplementedError("kata 15.3: Temperature.__call__")


def chain(*processors: Processor) -> Processor:
    """All processors as one, the first first; without any, one that changes nothing."""

    # TODO 15.3: what one returns, the next is given.
    raise NotImplementedError("kata 15.3: chain")


class RepetitionPenalty:
    """Ids that are there already become less likely: a logit above 0 is divided by `penalty`, one below is
    multiplied by it; once, however often the id has come.

    ValueError for a penalty that is not above 0.
    """

    def __init__(self, penalty: float) -> None:
        if not penalty > 0:
            raise ValueError(f"a penalty is above 0, and not {penalty}")
        self.penalty = penalty

    def __call__(self, logits: Array, ids: Array) -> Array:
        # TODO 15.4: a copy; take_along_axis, and put_along_axis, which may write the same number twice.
        raise NotImplementedError("kata 15.4: RepetitionPenalty.__call__")


class TopK:
    """Of each row the k largest logits stay, with all that equal the last of them; the rest become -inf.

    ValueError for a k below 1. A k above V leaves all.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; it must be 1 or more")
        self.k = k

    def __call__(self, logits: Array, ids: Array) -> Array:
        # TODO 15.5: the k-th largest is all you need to know, and np.partition finds it without sorting.
        raise NotImplementedError("kata 15.5: TopK.__call__")


class TopP:
    """Of each row the fewest ids stay whose probabilities are p or more together, the likeliest first; with
    all that are as likely as the last of them. The rest become -inf.

    ValueError for a p that is not above 0 and at most 1.
    """

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise ValueError(f"p is above 0 and at most 1, and not {p}")
        self.p = p

    def __call__(self, logits: Array, ids: Array) -> Array:
        # TODO 15.6: sort, and add up: an id stays if those before it have not reached p. The first always
        # does, and with p = 1 all do, whatever rounding says.
        raise NotImplementedError("kata 15.6: TopP.__call__")


# Reading: what the model says after a row that grows.


def window_start(length: Any, context: int) -> Any:
    """Where the window of a row of `length` tokens begins, for a model that reads `context` at most.

    At 0 as long as the row fits. Then the window moves, not by one token each time, but by half of its size
    when it is full: so that what was read in between stays valid. `length` is a number, or an array of them.
    """
    # TODO 15.7: how many hops of context // 2, rounded up, until what is left fits?
    raise NotImplementedError("kata 15.7: window_start")


def left_padded(ids: Any, lengths: Any = None) -> tuple[Array, Array]:
    """Rows that end together, (B, T), and how many columns before each are padding, (B,): int64, and new.

    Rows come with their padding on the right, as `pad_sequences` makes them; `lengths` (B,), integers of
    any dtype, says how many ids are real, and without it all are. Padding is made of the row's own first
    id, so that nobody who looks at the ids of a row finds a foreign one.

    Raises:
        ValueError: ids that are not (B, T) or have no row or column, and lengths that are not (B,) or not of
            1 to T; the shapes, or the length and T, are named.
        TypeError: ids that are no integers; the dtype is named.
    """
    # TODO 15.8: the id at column c of the result is that at column c - padding of the row, or its first.
    raise NotImplementedError("kata 15.8: left_padded")


@contextlib.contextmanager
def used(modules: Sequence[Module]) -> Iterator[None]:
    """Nothing trains and nothing is recorded, as in kata 10's `evaluating`, for modules that are known.

    Given. To look for all modules of a model takes a quarter of the time of a token.
    """
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class Reader:
    """Reads rows of ids that grow to the right, and gives the logits of what comes next.

    With a cache each column is given to the model once; without, all of the window again each time: the same
    logits for more work. When more columns than fit have come since the first in the caches, these are of no
    use any more, and the windows of all rows are read anew. Nothing is recorded, and the model does not
    train, while it reads.

    Args:
        padding: how many columns before each row are none of its own, (B,). The model does not see them, and
            counts positions from a row's first token in the window.
    """

    def __init__(self, model: LanguageModel, padding: Array, use_cache: bool = True) -> None:
        self.model, self.padding, self.use_cache = model, padding, use_cache
        self.modules = list(model.modules())
        self.caches: list[KVCache] | None = None
        self.begin = self.read_until = 0  # in the caches are the columns from the one to before the other

    def read(self, ids: Array) -> Array:
        """The logits (B, V) after ids (B, T), which are those of the last call and more on the right."""
        # TODO 15.9: each row's window begins at window_start of its own length. If more columns than fit have
        # come since the first that was read, or without a cache, read anew, from the first of all windows,
        # with new caches; else go on. Rows whose window begins later need a mask (kata 13's padding_mask) and
        # positions.
        raise NotImplementedError("kata 15.9: Reader.read")

    def select(self, rows: Array) -> None:
        """Go on with these rows, in this order; one may come more than once. The next ids have them so."""
        # TODO 15.9: everything that has rows: padding, and each cache (`KVCache.select`).
        raise NotImplementedError("kata 15.9: Reader.select")


# Writing.


def stream(
    model: LanguageModel,
    ids: Any,
    max_new_tokens: int,
    *,
    processors: Sequence[Processor] = (),
    rng: Generator | None = None,
    stop: Iterable[int] = (),
    use_cache: bool = True,
    pad_id: int | None = None,
    lengths: Any = None,
) -> Iterator[Array]:
    """What a model writes after ids (B, T), a token at a time: a new (B,) each, as soon as it is there.

    Args:
        processors: are applied in their order to the logits, and see all ids so far (padding as in
            `left_padded`).
        rng: draws the tokens; without it the most likely is taken.
        stop: ids after which a row is done. When all rows are, the stream ends; until then a row that is
            done gets `pad_id`, or, without one, the id it stopped with again.
        lengths: how many ids of each row are real, where shorter rows are padded on the right.

    Raises:
        ValueError, TypeError: as `left_padded` does, when the first token is asked for.
    """
    # TODO 15.10: read, process, choose, write into the next column, yield. Make room for all columns at once.
    raise NotImplementedError("kata 15.10: stream")


def generate(
    model: LanguageModel,
    ids: Any,
    max_new_tokens: int,
    *,
    processors: Sequence[Processor] = (),
    rng: Generator | None = None,
    stop: Iterable[int] = (),
    use_cache: bool = True,
    pad_id: int | None = None,
    lengths: Any = None,
) -> Array:
    """The ids (B, T) and what a model writes after them: (B, T + n), n at most `max_new_tokens`.

    Arguments and errors as for `stream`. Where `lengths` says that rows are shorter than T, they are moved to
    the right, so that what is new is in the columns from T on; before them is `pad_id`, or their first id.
    """
    # TODO 15.11: the columns of a stream, side by side.
    raise NotImplementedError("kata 15.11: generate")


def beam_search(
    model: LanguageModel,
    ids: Any,
    max_new_tokens: int,
    beams: int,
    length_penalty: float = 1.0,
    stop: Iterable[int] = (),
    *,
    use_cache: bool = True,
) -> list[tuple[Array, float]]:
    """The likeliest continuations of one row, ids (T,) or (1, T), that a search in `beams` rows finds.

    Each step extends every row by every token, and keeps the likeliest `beams` of all, less those that are
    done. A row is done with a token of `stop`. With as many beams as there are rows, nothing is missed; with
    one, it is the greedy choice.

    Returns:
        (ids (T + n,), log probability of the n new ones), at most `beams`, the best first: that with the
        largest log probability / n ** length_penalty. None of them has a probability of 0. Where no token is
        wanted, the row alone, with 0.

    Raises:
        ValueError: beams below 1, with their number; ids of several rows, with their shape.
    """
    # TODO 15.12: the log probabilities of rows and of next tokens add up to a table (rows, V). The largest of
    # it: divmod says which row, and which token. The reader must follow.
    raise NotImplementedError("kata 15.12: beam_search")


def text_stream(tokenizer: Tokenizer, ids: Iterable[Any]) -> Iterator[str]:
    """The text of ids as they come, each a number or an array with one: pieces of whole characters.

    Together they are `tokenizer.decode(ids)`, and none is empty. A piece comes as soon as its last byte is
    there; bytes that will never be a character become U+FFFD, as in decode. ValueError, naming it, for an id
    that there is not.
    """
    # TODO 15.13: `codecs.getincrementaldecoder` keeps the bytes of a character that is not complete. A token
    # that is a string ends what was before it.
    raise NotImplementedError("kata 15.13: text_stream")


# Learning to write: every token is the label of those before it.


class TokenDataset(Dataset):
    """All windows of `context` ids in one long row, each with the ids one further on: what comes next.

    Nothing is copied until a batch is fetched, so that the row may be a memory map. ValueError, which names
    both numbers, for a row that is no longer than `context`, and for ids that are not (n,).
    """

    def __init__(self, ids: Any, context: int) -> None:
        self.ids: Array = as_array(ids)
        if self.ids.ndim != 1 or context < 1 or len(self.ids) <= context:
            raise ValueError(f"ids of shape {self.ids.shape} have no window of {context} and one more")
        self.context = context

    def __len__(self) -> int:
        # TODO 15.14: the last window needs a token after it.
        raise NotImplementedError("kata 15.14: TokenDataset.__len__")

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """The window that begins at `index`, and that which begins one further on: views, (context,) each.

        IndexError, naming it, for an index below 0 or not below the length.
        """
        # TODO 15.14: two slices.
        raise NotImplementedError("kata 15.14: TokenDataset.__getitem__")

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        """A batch of them, (n, context) each, in one look-up; n may be 0. IndexError as for one."""
        # TODO 15.14: np.lib.stride_tricks.sliding_window_view shows all windows at once. To numpy, -1 is the
        # last of them.
        raise NotImplementedError("kata 15.14: TokenDataset.__getitems__")


class RandomWindows:
    """A sampler: `count` indices below `length`, each time anew, and each index may come again. Given."""

    def __init__(self, length: int, count: int, *, rng: Generator) -> None:
        self.length, self.count, self.rng = length, count, rng

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(self.rng.integers(self.length, size=self.count).tolist())


def token_batches(ids: Any, context: int, batch_size: int, *, batches: int, rng: Generator) -> DataLoader:
    """A loader whose epochs are so many batches of windows from random places. Given.

    A permutation of all windows, as `shuffle` makes, would be of a million numbers and see each token
    `context` times.
    """
    dataset = TokenDataset(ids, context)
    sampler = RandomWindows(len(dataset), batches * batch_size, rng=rng)
    return DataLoader(dataset, batch_size, sampler=sampler)


def language_model_loss(logits: Tensor, targets: Any) -> Tensor:
    """The mean over all tokens of -log of the probability of the right one: nats a token.

    Logits (..., V), targets (...) integers: an array, a Tensor or lists. ValueError, naming both shapes,
    where they do not fit.
    """
    # TODO 15.15: cross_entropy takes rows.
    raise NotImplementedError("kata 15.15: language_model_loss")


def evaluate(model: LanguageModel, ids: Any, batch_size: int = 16) -> float:
    """Nats a token of a row of ids: the mean over all of them but the first, each predicted once.

    The row is cut into windows of the model's context, the last of which may be shorter; a token sees those
    before it in its window. Nothing trains, nothing is recorded. ValueError, naming the shape, for ids that
    are not (n,), or fewer than two.
    """
    # TODO 15.16: cut off what fills whole windows, as rows; go through them in batches, then take the rest.
    # Means of batches count as many tokens as they have.
    raise NotImplementedError("kata 15.16: evaluate")


def perplexity(nats: float) -> float:
    """exp(nats a token): among how many equally likely tokens one would be as uncertain."""
    # TODO 15.17: one call.
    raise NotImplementedError("kata 15.17: perplexity")


def bits_per_character(nats: float, tokens: int, characters: int) -> float:
    """Bits a character of a text, from nats a token: comparable between tokenizers, as perplexity is not."""
    # TODO 15.17: nats of the whole text, in bits, by its characters. A bit is log(2) nats.
    raise NotImplementedError("kata 15.17: bits_per_character")


def decay_groups(model: LanguageModel, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer: what has two axes or more decays, biases and norms' weights do not.

    Two, in this order, without one that would have no parameters; also where `weight_decay` is 0.
    """
    # TODO 15.18: by ndim.
    raise NotImplementedError("kata 15.18: decay_groups")


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: int, least: float = 0.1) -> SequentialLR:
    """A schedule of `steps` steps: up in a line from 1 / warmup of the rate to all of it, which the step of
    number `warmup` has, and then down along half a wave to `least` of it.

    Where groups have rates of their own, each rises to its own, and all fall to one: `least` of the first
    group's rate.

    ValueError, naming both, for a warm-up that is not of 1 to steps - 1 steps.
    """
    # TODO 15.18: kata 08 has LinearLR, CosineAnnealingLR and SequentialLR.
    raise NotImplementedError("kata 15.18: warmup_cosine")


class Validation(Callback):
    """After each epoch, `evaluate` on these ids, as "val_loss" in the history. Given."""

    def __init__(self, ids: Any) -> None:
        self.ids = ids

    def on_epoch_end(self, trainer: Trainer) -> None:
        trainer.history.setdefault("val_loss", []).append(evaluate(trainer.model, self.ids))


def train_language_model(
    model: LanguageModel,
    ids: Any,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    rng: Generator,
    validation: Any = None,
    every: int | None = None,
    warmup: int | None = None,
    weight_decay: float = 0.1,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
) -> dict[str, list[float]]:
    """Train a model to predict the next of these ids, and return the history of kata 10's Trainer.

    AdamW with betas (0.9, 0.95) and `decay_groups`, `warmup_cosine`, gradients clipped to a norm of 1, on
    random windows of the model's context. Every `every` steps (without it, all steps) are an epoch: a line in
    the history, a `validation` (a row of ids) as "val_loss", and the `checkpoint`, from which the same call
    goes on.

    Args:
        warmup: steps until the rate is `lr`; without it a twentieth of all, and 1 at least.
        callbacks: more of them; they come after the validation.

    Raises:
        ValueError: steps that are no multiple of `every`, naming both; as for TokenDataset and
            `warmup_cosine`.
    """
    # TODO 15.19: a loader, an optimizer, a schedule that goes by steps, and a Trainer.
    raise NotImplementedError("kata 15.19: train_language_model")


# Where does the memory go?


def training_bytes(model: LanguageModel, batch: int, length: int) -> dict[str, int]:
    """Bytes of training with AdamW on ids (batch, length): "weights", "gradients", "optimizer", "buffers" and
    "activations", which are measured by one forward pass. The model stays as it is, its gradients too."""
    # TODO 15.20: kata 10's memory_by_part. An optimizer that has not made a step yet remembers nothing; AdamW
    # will have two numbers for each weight.
    raise NotImplementedError("kata 15.20: training_bytes")


def generation_bytes(model: LanguageModel, batch: int, length: int) -> dict[str, int]:
    """Bytes of generating `batch` rows up to `length` tokens: "weights", "buffers", and "cache": the keys and
    values of all tokens in all layers, as far as they are within the context, without room to grow. A tied
    table counts once, as a weight."""
    # TODO 15.20: kata 13's cache_bytes, of the weights' dtype; the config says how many heads.
    raise NotImplementedError("kata 15.20: generation_bytes")
