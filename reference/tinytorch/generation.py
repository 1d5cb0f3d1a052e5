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
    # kata 15.1: where the largest is.
    largest: Array = as_array(logits).argmax(axis=1)
    return largest


def sample(logits: Any, *, rng: Generator) -> Array:
    """One id for each row, (B,) int64, drawn with the probabilities softmax(logits), exactly.

    Logits are as for `greedy`. What has a logit of -inf is never drawn. ValueError, which names the row,
    where nothing could be drawn: all are -inf, or one is nan.
    """
    # kata 15.2: the sums of all probabilities up to each id divide a line into pieces. Which piece does a
    # random point of it lie in? In float64: 50,000 float32 sums add up to something else.
    logits = as_array(logits)
    for row, largest in enumerate(logits.max(axis=1)):
        if not largest > -np.inf:
            raise ValueError(f"row {row} has no id that could be drawn: its largest logit is {largest}")
    line = below_largest(logits.astype(np.float64), axis=1)
    np.exp(line, out=line)
    line.cumsum(axis=1, out=line)
    points = rng.random((len(line), 1)) * line[:, -1:]
    found: Array = (line <= points).sum(axis=1)
    return found


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
        # kata 15.3: one division.
        return logits / self.t


def chain(*processors: Processor) -> Processor:
    """All processors as one, the first first; without any, one that changes nothing."""

    # kata 15.3: what one returns, the next is given.
    def process(logits: Array, ids: Array) -> Array:
        for processor in processors:
            logits = processor(logits, ids)
        return logits

    return process


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
        # kata 15.4: a copy; take_along_axis, and put_along_axis, which may write the same number twice.
        out: Array = logits.copy()
        seen = np.take_along_axis(logits, ids, axis=1)
        np.put_along_axis(out, ids, np.where(seen > 0, seen / self.penalty, seen * self.penalty), axis=1)
        return out


class TopK:
    """Of each row the k largest logits stay, with all that equal the last of them; the rest become -inf.

    ValueError for a k below 1. A k above V leaves all.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; it must be 1 or more")
        self.k = k

    def __call__(self, logits: Array, ids: Array) -> Array:
        # kata 15.5: the k-th largest is all you need to know, and np.partition finds it without sorting.
        place = logits.shape[1] - min(self.k, logits.shape[1])
        least = np.partition(logits, place, axis=1)[:, place : place + 1]
        return np.where(logits < least, -np.inf, logits)


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
        # kata 15.6: sort, and add up: an id stays if those before it have not reached p. The first always
        # does, and with p = 1 all do, whatever rounding says.
        if self.p == 1:
            return logits
        largest_first = -np.sort(-logits, axis=1)
        sums = np.exp(below_largest(largest_first.astype(np.float64), axis=1)).cumsum(axis=1)
        count = 1 + (sums[:, :-1] < self.p * sums[:, -1:]).sum(axis=1, keepdims=True)
        return np.where(logits < np.take_along_axis(largest_first, count - 1, axis=1), -np.inf, logits)


# Reading: what the model says after a row that grows.


def window_start(length: Any, context: int) -> Any:
    """Where the window of a row of `length` tokens begins, for a model that reads `context` at most.

    At 0 as long as the row fits. Then the window moves, not by one token each time, but by half of its size
    when it is full: so that what was read in between stays valid. `length` is a number, or an array of them.
    """
    # kata 15.7: how many hops of context // 2, rounded up, until what is left fits?
    hop = max(1, context // 2)
    return np.maximum(0, -((context - length) // hop)) * hop


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
    # kata 15.8: the id at column c of the result is that at column c - padding of the row, or its first.
    ids = as_array(ids)
    if ids.ndim != 2 or not ids.size:
        raise ValueError(f"ids are (rows, columns) with one token at least, not of shape {ids.shape}")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids are integers, not {ids.dtype}")
    rows, columns = ids.shape
    lengths = np.full(rows, columns) if lengths is None else as_array(lengths)
    if lengths.shape != (rows,):
        raise ValueError(f"ids of shape {ids.shape} do not fit lengths of shape {lengths.shape}")
    for length in lengths.tolist():
        if not 1 <= length <= columns:
            raise ValueError(f"a length of {length} is not from 1 to the {columns} columns that there are")
    padding = columns - lengths.astype(np.int64)
    source = np.maximum(np.arange(columns) - padding[:, None], 0)
    return np.take_along_axis(ids, source, axis=1).astype(np.int64, copy=False), padding


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
        # kata 15.9: each row's window begins at window_start of its own length. If more columns than fit have
        # come since the first that was read, or without a cache, read anew, from the first of all windows,
        # with new caches; else go on. Rows whose window begins later need a mask (kata 13's padding_mask) and
        # positions.
        length, context = ids.shape[1], self.model.config.context
        starts = self.padding + window_start(length - self.padding, context)
        if self.caches is None or length - self.begin > context:
            self.begin = self.read_until = int(starts.min())
            self.caches = self.model.new_caches() if self.use_cache else None
        mask = positions = None
        if (starts > self.begin).any():
            mask = padding_mask(length - starts, length - self.begin, side="left")
            positions = np.maximum(np.arange(self.read_until, length) - starts[:, None], 0)
        with used(self.modules):
            fresh = ids[:, self.read_until :]
            logits = self.model(fresh, mask=mask, caches=self.caches, positions=positions)
        self.read_until = length
        last: Array = as_array(logits)[:, -1].copy()  # the logits of all other columns may go
        return last

    def select(self, rows: Array) -> None:
        """Go on with these rows, in this order; one may come more than once. The next ids have them so."""
        # kata 15.9: everything that has rows: padding, and each cache (`KVCache.select`).
        self.padding = self.padding[rows]
        for cache in self.caches or ():
            cache.select(rows)


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
    # kata 15.10: read, process, choose, write into the next column, yield. Make room for all columns at once.
    prompt, padding = left_padded(ids, lengths)
    rows, length = prompt.shape
    written = np.empty((rows, length + max_new_tokens), np.int64)
    written[:, :length] = prompt
    reader, process, stops = Reader(model, padding, use_cache), chain(*processors), list(stop)
    done = np.zeros(rows, bool)
    for end in range(length, length + max_new_tokens):
        if done.all():
            return
        so_far = written[:, :end]
        logits = process(reader.read(so_far), so_far)
        chosen = greedy(logits) if rng is None else sample(logits, rng=rng)
        filler = so_far[:, -1] if pad_id is None else pad_id
        written[:, end] = np.where(done, filler, chosen)
        done |= np.isin(chosen, stops)
        yield written[:, end].copy()


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
    # kata 15.11: the columns of a stream, side by side.
    prompt, padding = left_padded(ids, lengths)
    if pad_id is not None:
        prompt[np.arange(prompt.shape[1]) < padding[:, None]] = pad_id
    how = {"rng": rng, "stop": stop, "use_cache": use_cache, "pad_id": pad_id, "lengths": lengths}
    new = stream(model, ids, max_new_tokens, processors=processors, **how)
    return np.concatenate([prompt, *(column[:, None] for column in new)], axis=1)


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
    # kata 15.12: the log probabilities of rows and of next tokens add up to a table (rows, V). The largest of
    # it: divmod says which row, and which token. The reader must follow.
    prompt, padding = left_padded(np.atleast_2d(as_array(ids)))
    if beams < 1 or len(prompt) != 1:
        raise ValueError(f"beam search needs 1 beam or more, not {beams}, and 1 row, not {prompt.shape}")
    reader, stops, length = Reader(model, padding, use_cache), list(stop), prompt.shape[1]
    rows, scores = prompt, np.zeros(1)
    found: list[tuple[Array, float]] = []
    for _ in range(max_new_tokens):
        table = log_softmax.forward(reader.read(rows).astype(np.float64), axis=1) + scores[:, None]
        best = np.argsort(-table, axis=None, kind="stable")[: beams - len(found)]
        best = best[table.ravel()[best] > -np.inf]
        source, tokens = np.divmod(best, table.shape[1])
        rows = np.concatenate([rows[source], tokens[:, None]], axis=1)
        scores = table.ravel()[best]
        done = np.isin(tokens, stops)
        found += zip(rows[done], scores[done].tolist(), strict=True)
        rows, scores = rows[~done], scores[~done]
        if not len(rows):
            break
        reader.select(source[~done])
    found += zip(rows, scores.tolist(), strict=True)

    def value(one: tuple[Array, float]) -> float:
        return one[1] / float(max(1, len(one[0]) - length) ** length_penalty)

    return sorted(found, key=value, reverse=True)


def text_stream(tokenizer: Tokenizer, ids: Iterable[Any]) -> Iterator[str]:
    """The text of ids as they come, each a number or an array with one: pieces of whole characters.

    Together they are `tokenizer.decode(ids)`, and none is empty. A piece comes as soon as its last byte is
    there; bytes that will never be a character become U+FFFD, as in decode. ValueError, naming it, for an id
    that there is not.
    """
    # kata 15.13: `codecs.getincrementaldecoder` keeps the bytes of a character that is not complete. A token
    # that is a string ends what was before it.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for one in ids:
        token = tokenizer.vocabulary.id_to_token(int(np.reshape(one, ())))
        text = decoder.decode(b"", True) + token if isinstance(token, str) else decoder.decode(token)
        if text:
            yield text
    if rest := decoder.decode(b"", True):
        yield rest


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
        # kata 15.14: the last window needs a token after it.
        return len(self.ids) - self.context

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """The window that begins at `index`, and that which begins one further on: views, (context,) each.

        IndexError, naming it, for an index below 0 or not below the length.
        """
        # kata 15.14: two slices.
        if not 0 <= index < len(self):
            raise IndexError(f"there is no window {index} among {len(self)}")
        window = self.ids[index : index + self.context + 1]
        return window[:-1], window[1:]

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        """A batch of them, (n, context) each, in one look-up; n may be 0. IndexError as for one."""
        # kata 15.14: np.lib.stride_tricks.sliding_window_view shows all windows at once. To numpy, -1 is the
        # last of them.
        places = np.asarray(indices, np.int64)
        for index in places[(places < 0) | (places >= len(self))]:
            raise IndexError(f"there is no window {index} among {len(self)}")
        windows = np.lib.stride_tricks.sliding_window_view(self.ids, self.context + 1)[places]
        return windows[:, :-1], windows[:, 1:]


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
    # kata 15.15: cross_entropy takes rows.
    targets = as_array(targets)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits of shape {logits.shape} do not fit targets of shape {targets.shape}")
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def evaluate(model: LanguageModel, ids: Any, batch_size: int = 16) -> float:
    """Nats a token of a row of ids: the mean over all of them but the first, each predicted once.

    The row is cut into windows of the model's context, the last of which may be shorter; a token sees those
    before it in its window. Nothing trains, nothing is recorded. ValueError, naming the shape, for ids that
    are not (n,), or fewer than two.
    """
    # kata 15.16: cut off what fills whole windows, as rows; go through them in batches, then take the rest.
    # Means of batches count as many tokens as they have.
    ids = as_array(ids)
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"ids of shape {ids.shape} have no token that others come before")
    context, count = model.config.context, len(ids) - 1
    whole = count // context * context
    x, y = ids[:whole].reshape(-1, context), ids[1 : whole + 1].reshape(-1, context)
    batches = [(x[i : i + batch_size], y[i : i + batch_size]) for i in range(0, len(x), batch_size)]
    if whole < count:
        batches.append((ids[None, whole:-1], ids[None, whole + 1 :]))
    with evaluating(model):
        nats: list[float] = [float(language_model_loss(model(x), y).data) * y.size for x, y in batches]
    return sum(nats) / count


def perplexity(nats: float) -> float:
    """exp(nats a token): among how many equally likely tokens one would be as uncertain."""
    # kata 15.17: one call.
    return math.exp(nats)


def bits_per_character(nats: float, tokens: int, characters: int) -> float:
    """Bits a character of a text, from nats a token: comparable between tokenizers, as perplexity is not."""
    # kata 15.17: nats of the whole text, in bits, by its characters. A bit is log(2) nats.
    return nats * tokens / characters / math.log(2)


def decay_groups(model: LanguageModel, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer: what has two axes or more decays, biases and norms' weights do not.

    Two, in this order, without one that would have no parameters; also where `weight_decay` is 0.
    """
    # kata 15.18: by ndim.
    groups: list[dict[str, Any]] = []
    for matrices, decay in ((True, weight_decay), (False, 0.0)):
        chosen = [p for p in model.parameters() if (p.ndim >= 2) == matrices]
        if chosen:
            groups.append({"params": chosen, "weight_decay": decay})
    return groups


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: int, least: float = 0.1) -> SequentialLR:
    """A schedule of `steps` steps: up in a line from 1 / warmup of the rate to all of it, which the step of
    number `warmup` has, and then down along half a wave to `least` of it.

    Where groups have rates of their own, each rises to its own, and all fall to one: `least` of the first
    group's rate.

    ValueError, naming both, for a warm-up that is not of 1 to steps - 1 steps.
    """
    # kata 15.18: kata 08 has LinearLR, CosineAnnealingLR and SequentialLR.
    if not 1 <= warmup < steps:
        raise ValueError(f"a warm-up of {warmup} steps does not fit {steps}")
    lr = optimizer.param_groups[0]["lr"]
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup)
    fall = CosineAnnealingLR(optimizer, steps - warmup, eta_min=least * lr)
    return SequentialLR(optimizer, [rise, fall], [warmup])


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
    # kata 15.19: a loader, an optimizer, a schedule that goes by steps, and a Trainer.
    every = steps if every is None else every
    if steps % every:
        raise ValueError(f"{steps} steps are no multiple of {every}")
    loader = token_batches(ids, model.config.context, batch_size, batches=every, rng=rng)
    optimizer = AdamW(decay_groups(model, weight_decay), lr=lr, betas=(0.9, 0.95))
    trainer = Trainer(
        model,
        optimizer,
        language_model_loss,
        scheduler=warmup_cosine(optimizer, steps, max(1, steps // 20) if warmup is None else warmup),
        scheduler_per="step",
        callbacks=[*([] if validation is None else [Validation(validation)]), *callbacks],
        max_norm=1.0,
    )
    return trainer.fit(loader, steps // every, checkpoint=checkpoint)


# Where does the memory go?


def training_bytes(model: LanguageModel, batch: int, length: int) -> dict[str, int]:
    """Bytes of training with AdamW on ids (batch, length): "weights", "gradients", "optimizer", "buffers" and
    "activations", which are measured by one forward pass. The model stays as it is, its gradients too."""
    # kata 15.20: kata 10's memory_by_part. An optimizer that has not made a step yet remembers nothing; AdamW
    # will have two numbers for each weight.
    ids = np.zeros((batch, length), np.int64)
    parts = memory_by_part(model, AdamW(model.parameters()), language_model_loss, ids, ids)
    return {**parts, "optimizer": 2 * parts["weights"]}


def generation_bytes(model: LanguageModel, batch: int, length: int) -> dict[str, int]:
    """Bytes of generating `batch` rows up to `length` tokens: "weights", "buffers", and "cache": the keys and
    values of all tokens in all layers, as far as they are within the context, without room to grow. A tied
    table counts once, as a weight."""
    # kata 15.20: kata 13's cache_bytes, of the weights' dtype; the config says how many heads.
    config, weights = model.config, [p.data for p in model.parameters()]
    cache = cache_bytes(
        batch,
        config.num_kv_heads or config.num_heads,
        min(length, config.context),
        config.dim // config.num_heads,
        config.num_layers,
        weights[0].itemsize,
    )
    total = sum(array.nbytes for array in weights)
    return {"weights": total, "buffers": parameter_bytes(model) - total, "cache": cache}
