"""Kata 15 in another manner: a search for each row, and texts that are generated whole."""

from __future__ import annotations

import codecs
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinytorch.activations import softmax
from tinytorch.attention import KVCache, cache_bytes
from tinytorch.dataloader import DataLoader, Dataset
from tinytorch.optimizers import AdamW, CosineAnnealingLR, LinearLR, Optimizer, SequentialLR
from tinytorch.tensor import Array, Tensor, as_array
from tinytorch.tokenization import Tokenizer
from tinytorch.training import Callback, Tally, Trainer, cross_entropy, evaluating, memory_by_part

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
    """The most likely id of each row: (B,) int64 of logits (B, V). Of equals, the lowest."""
    largest: Array = as_array(logits).argmax(axis=1)
    return largest


def sample(logits: Any, *, rng: Generator) -> Array:
    logits = as_array(logits)
    shares = softmax.forward(logits.astype(np.float64), axis=1)
    top = np.max(logits, axis=1)
    for row in range(len(shares)):
        if np.isnan(top[row]) or top[row] == -np.inf:
            raise ValueError(f"no id can be drawn for row {row}")
    drawn = np.empty(len(shares), np.int64)
    for i, row in enumerate(shares):
        sums = np.cumsum(row)
        drawn[i] = np.searchsorted(sums, rng.random() * sums[-1], side="right")
    return drawn


# Processors: new logits from logits (B, V) and the ids (B, T) so far.


class Temperature:
    """Logits divided by t: below 1 the likely become likelier, above 1 all become more alike.

    ValueError for a t that is not above 0: with 0 nothing is left to chance, and `greedy` does that.
    """

    def __init__(self, t: float) -> None:
        if not t > 0:
            raise ValueError(f"a temperature is above 0, and not {t}; without chance, see greedy")
        self.t = float(t)

    def __call__(self, logits: Array, ids: Array) -> Array:
        return logits / self.t


def chain(*processors: Processor) -> Processor:
    """All processors as one, the first first; without any, one that changes nothing."""

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
        out: Array = np.array(logits)
        for row, said in zip(out, ids, strict=True):
            unique = np.unique(said)
            old = row[unique]
            row[unique] = np.where(old < 0, old * self.penalty, old / self.penalty)
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
        k = min(self.k, logits.shape[1])
        least = -np.partition(-logits, k - 1, axis=1)[:, k - 1]
        out = np.full_like(logits, -np.inf)
        np.copyto(out, logits, where=logits >= least[:, None])
        return out


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
        """Row by row, and by probabilities: what is likelier than the last that is needed stays."""
        out = np.full_like(logits, -np.inf)
        for row, new in zip(logits, out, strict=True):
            order = np.sort(row)[::-1]
            sums = np.cumsum(softmax.forward(order.astype(np.float64), axis=0))
            needed = len(row) if self.p == 1 else int(np.searchsorted(sums, self.p)) + 1
            stay = row >= order[min(needed, len(row)) - 1]
            new[stay] = row[stay]
        return out


# Reading: what the model says after a row that grows.


def window_start(length: Any, context: int) -> Any:
    hop = max(context // 2, 1)
    over = np.maximum(np.asarray(length) - context, 0)
    return (over + hop - 1) // hop * hop


def left_padded(ids: Any, lengths: Any = None) -> tuple[Array, Array]:
    """Rows that end together: (B, T) int64, and how many columns before each row are padding, (B,).

    Rows come with their padding on the right, as `pad_sequences` makes them; `lengths` (B,) says how many ids
    are real, and without it all are. Padding is made of the row's own first id, so that nobody who looks at
    the ids of a row finds a foreign one.

    Raises:
        ValueError: ids that are not (B, T) or have no column, and lengths that are not (B,) or not of 1 to T;
            the shapes, or the length, are named.
        TypeError: ids that are no integers.
    """
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


class Reader:
    """Keeps where each row begins, and reads anew whenever that is another column."""

    def __init__(self, model: LanguageModel, padding: Array, use_cache: bool = True) -> None:
        self.model, self.padding, self.use_cache = model, np.array(padding), use_cache
        self.begins: list[int] = []
        self.caches: list[KVCache] | None = None
        self.window = self.read_so_far = 0

    def read(self, ids: Array) -> Array:
        end, context = ids.shape[1], self.model.config.context
        begins = [int(pad + window_start(end - pad, context)) for pad in self.padding]
        anew = self.caches is None or begins != self.begins or end - self.window > context
        if anew:
            self.window = self.read_so_far = min(begins)
            if self.use_cache:
                self.caches = self.model.new_caches()
        self.begins = begins
        how: dict[str, Any] = {}
        if max(begins) > self.window:
            seen = [[column >= begin for column in range(self.window, end)] for begin in begins]
            places = [[max(0, column - begin) for column in range(self.read_so_far, end)] for begin in begins]
            how = {"mask": np.array(seen)[:, None, None], "positions": np.array(places)}
        if self.caches is not None:
            how["caches"] = self.caches
        with evaluating(self.model):
            logits = self.model(ids[:, self.read_so_far :], **how).data
        if self.use_cache:
            self.read_so_far = end
        return np.copy(logits[:, logits.shape[1] - 1])

    def select(self, rows: Array) -> None:
        self.padding = self.padding[rows]
        self.begins = [self.begins[i] for i in np.asarray(rows).tolist()] if self.begins else []
        if self.caches is not None:
            for cache in self.caches:
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
    """What a model writes after ids (B, T), a token at a time: (B,) for each step, as soon as it is there.

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
    text, padding = left_padded(ids, lengths)
    reader, process, stops = Reader(model, padding, use_cache), chain(*processors), tuple(stop)
    going = np.ones(len(text), bool)
    start = text.shape[1]
    for _ in range(max_new_tokens):
        if not going.any():
            break
        logits = process(reader.read(text), text)
        new = greedy(logits) if rng is None else sample(logits, rng=rng)
        new[~going] = text[~going, -1] if pad_id is None else pad_id
        going &= ~np.isin(new, stops)
        text = np.hstack([text, new[:, None]])
    if pad_id is not None:
        for row, columns in zip(text[:, :start], padding, strict=True):
            row[:columns] = pad_id
    return text


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
    text, padding = left_padded(np.reshape(ids, (1, -1)) if np.ndim(ids) < 2 else ids)
    if len(text) != 1:
        raise ValueError(f"a search is for one row, and not for ids of shape {text.shape}")
    if beams <= 0:
        raise ValueError(f"there must be beams, and not {beams}")
    start, stops, room = text.shape[1], tuple(stop), beams
    reader, scores = Reader(model, padding, use_cache), np.zeros(1)
    ends: list[tuple[float, Array, float]] = []

    def end(row: Array, score: float) -> None:
        new = max(len(row) - start, 1)
        ends.append((score / new**length_penalty, row, score))

    for _ in range(max_new_tokens):
        logits = reader.read(text).astype(np.float64)
        table = scores[:, None] + (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        flat = table.ravel()
        best = np.argpartition(-flat, min(room, flat.size) - 1)[:room]
        best = best[np.isfinite(flat[best])]
        rows, tokens = best // table.shape[1], best % table.shape[1]
        text, scores = np.column_stack([text[rows], tokens]), flat[best]
        stay = ~np.isin(tokens, stops)
        for row, score in zip(text[~stay], scores[~stay], strict=True):
            end(row, float(score))
            room -= 1
        text, scores = text[stay], scores[stay]
        if not room or not len(text):
            break
        reader.select(rows[stay])
    for row, score in zip(text, scores, strict=True):
        end(row, float(score))
    ends.sort(key=lambda one: one[0], reverse=True)
    return [(row, score) for _, row, score in ends]


def text_stream(tokenizer: Tokenizer, ids: Iterable[Any]) -> Iterator[str]:
    """Through codecs.iterdecode, a run of tokens of bytes at a time."""

    def tokens() -> Iterator[Any]:
        for one in ids:
            yield tokenizer.vocabulary.id_to_token(int(np.ravel(one)[0]))

    for is_text, run in itertools.groupby(tokens(), key=lambda token: isinstance(token, str)):
        if is_text:
            yield from run
        else:
            yield from codecs.iterdecode(run, "utf-8", errors="replace")


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
        return len(self.ids) - self.context

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """The window that begins at `index`, and that which begins one further on: views, (context,) each.

        IndexError for an index below 0 or not below the length.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there is no window {index} among {len(self)}")
        window = self.ids[index : index + self.context + 1]
        return window[:-1], window[1:]

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        starts = np.asarray(indices, int).reshape(-1)
        if starts.size and not 0 <= starts.min() <= starts.max() < len(self):
            wrong = starts.min() if starts.min() < 0 else starts.max()
            raise IndexError(f"window {wrong} of {len(self)}")
        windows = np.take(self.ids, np.add.outer(starts, np.arange(self.context + 1)))
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
    right = as_array(targets)
    if tuple(logits.shape[:-1]) != right.shape:
        raise ValueError(f"targets of {right.shape} are not what logits of {logits.shape} are about")
    return cross_entropy(logits.reshape(right.size, logits.shape[-1]), np.ravel(right))


def evaluate(model: LanguageModel, ids: Any, batch_size: int = 16) -> float:
    ids = as_array(ids)
    if ids.ndim != 1 or len(ids) < 2:
        raise ValueError(f"ids of shape {ids.shape} predict nothing")
    context, tally = model.config.context, Tally()
    full = (len(ids) - 1) // context
    with evaluating(model):
        for start in range(0, full, batch_size):
            rows = range(start, min(start + batch_size, full))
            x = np.stack([ids[i * context : (i + 1) * context] for i in rows])
            y = np.stack([ids[i * context + 1 : (i + 1) * context + 1] for i in rows])
            tally.add(y.size, nats=float(language_model_loss(model(x), y).data))
        rest = ids[full * context :]
        if len(rest) > 1:
            loss = language_model_loss(model(rest[None, :-1]), rest[None, 1:])
            tally.add(len(rest) - 1, nats=float(loss.data))
    return tally.means()["nats"]


def perplexity(nats: float) -> float:
    """exp(nats a token): among how many equally likely tokens one would be as uncertain."""
    return math.exp(nats)


def bits_per_character(nats: float, tokens: int, characters: int) -> float:
    """Bits a character of a text, from nats a token: comparable between tokenizers, as perplexity is not."""
    return nats * tokens / characters / math.log(2)


def decay_groups(model: LanguageModel, weight_decay: float) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for decay, wanted in ((weight_decay, lambda p: p.ndim >= 2), (0.0, lambda p: p.ndim < 2)):
        params = list(filter(wanted, model.parameters()))
        if params:
            groups.append({"params": params, "weight_decay": decay})
    return groups


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: int, least: float = 0.1) -> SequentialLR:
    """A schedule of `steps` steps: up in a line from 1 / warmup of the rate to all of it, which the step of
    number `warmup` has, and then down along half a wave to `least` of it.

    ValueError for a warm-up that is not of 1 to steps - 1 steps.
    """
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
        ValueError: steps that are no multiple of `every`; as for TokenDataset and `warmup_cosine`.
    """
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
    "activations", which are measured by one forward pass."""
    ids = np.zeros((batch, length), np.int64)
    parts = memory_by_part(model, AdamW(model.parameters()), language_model_loss, ids, ids)
    return {**parts, "optimizer": 2 * parts["weights"]}


def generation_bytes(model: LanguageModel, batch: int, length: int) -> dict[str, int]:
    """Bytes of generating `batch` rows up to `length` tokens: "weights", "buffers", and "cache": the keys and
    values of all tokens in all layers, as far as they are within the context, without room to grow."""
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
    of_weights = {id(p.data) for p in model.parameters()}
    buffers = sum(array.nbytes for array in model.state_dict().values() if id(array) not in of_weights)
    return {"weights": total, "buffers": buffers, "cache": cache}
