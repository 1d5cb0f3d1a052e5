"""Kata 15 in another manner: draws by Gumbel's trick, and masks that say everything."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinytorch.activations import log_softmax, softmax
from tinytorch.attention import KVCache
from tinytorch.dataloader import DataLoader, Dataset
from tinytorch.layers import Parameter
from tinytorch.optimizers import AdamW, LRScheduler, Optimizer
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
    logits = as_array(logits)
    return np.array([int(np.argmax(row)) for row in logits], np.int64)


def sample(logits: Any, *, rng: Generator) -> Array:
    """The largest of logits and noise: exponential waiting times, of which the shortest wins."""
    logits = as_array(logits)
    reached = logits.max(axis=1)
    if not (reached > -np.inf).all():
        raise ValueError(f"there is nothing to draw from in row {int(np.argmin(reached > -np.inf))}")
    noise = -np.log(rng.exponential(size=logits.shape))
    found: Array = (logits + noise).argmax(axis=1)
    return found


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
    return lambda logits, ids: functools.reduce(lambda x, process: process(x, ids), processors, logits)


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
        said = np.zeros(logits.shape, bool)
        said[np.arange(len(ids))[:, None], ids] = True
        factor = np.where(logits > 0, 1 / self.penalty, self.penalty)
        punished: Array = np.where(said, logits * factor, logits).astype(logits.dtype)
        return punished


class TopK:
    """Of each row the k largest logits stay, with all that equal the last of them; the rest become -inf.

    ValueError for a k below 1. A k above V leaves all.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k is {k}; it must be 1 or more")
        self.k = k

    def __call__(self, logits: Array, ids: Array) -> Array:
        ordered = np.sort(logits, axis=1)
        out: Array = logits.copy()
        out[logits < ordered[:, [-min(self.k, ordered.shape[1])]]] = -np.inf
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
        """In the order of the ids: who is likelier than those that already have p, goes."""
        if self.p == 1:
            return logits.copy()
        order = np.argsort(logits, axis=1)[:, ::-1]
        shares = softmax.forward(np.take_along_axis(logits, order, axis=1).astype(np.float64), axis=1)
        before = np.cumsum(shares, axis=1) - shares
        last = (before < self.p).sum(axis=1) - 1
        least = logits[np.arange(len(logits)), order[np.arange(len(logits)), np.maximum(last, 0)]]
        out: Array = logits.copy()
        out[logits < least[:, None]] = -np.inf
        return out


# Reading: what the model says after a row that grows.


def window_start(length: Any, context: int) -> Any:
    if np.ndim(length):
        return np.array([window_start(one, context) for one in np.asarray(length).tolist()])
    start = 0
    while length - start > context:
        start += context // 2 or 1
    return start


def left_padded(ids: Any, lengths: Any = None) -> tuple[Array, Array]:
    ids = as_array(ids)
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"rows of ids are wanted, and this has shape {ids.shape}")
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"{ids.dtype} are no ids")
    rows, columns = ids.shape
    counts = np.full(rows, columns) if lengths is None else np.asarray(lengths)
    if counts.shape != (rows,):
        raise ValueError(f"lengths {counts.shape} for ids {ids.shape}")
    out = np.empty((rows, columns), np.int64)
    for row, old, count in zip(out, ids, counts.tolist(), strict=True):
        if count < 1 or count > columns:
            raise ValueError(f"length {count}: there are 1 to {columns} ids in a row")
        row[: columns - count] = old[0]
        row[columns - count :] = old[:count]
    return out, columns - counts.astype(np.int64)


class Reader:
    """Says with a mask of (B, 1, T, K), always, who sees whom."""

    def __init__(self, model: LanguageModel, padding: Array, use_cache: bool = True) -> None:
        self.model, self.padding, self.use_cache = model, padding, use_cache
        self.first: Array | None = None  # of each row's window
        self.origin = self.end = 0
        self.caches: list[KVCache] = []

    def read(self, ids: Array) -> Array:
        total, context = ids.shape[1], self.model.config.context
        first = self.padding + window_start(total - self.padding, context)
        if (
            not self.use_cache
            or self.first is None
            or not np.array_equal(first, self.first)
            or total - self.origin > context
        ):
            self.first, self.origin = first, int(min(first))
            self.end = self.origin
            self.caches = self.model.new_caches() if self.use_cache else []
        queries, keys = np.arange(self.end, total), np.arange(self.origin, total)
        mask = (keys >= first[:, None, None]) & (keys <= queries[:, None])
        positions = np.maximum(queries - first[:, None], 0)
        with evaluating(self.model):
            out = self.model(
                ids[:, self.end :], mask=mask[:, None], caches=self.caches or None, positions=positions
            )
        self.end = total
        return np.array(out.data[:, -1])

    def select(self, rows: Array) -> None:
        self.padding = np.take(self.padding, rows)
        if self.first is not None:
            self.first = np.take(self.first, rows)
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
    rows, padding = left_padded(ids, lengths)
    stops, open_rows = set(stop), set(range(len(rows)))
    reader = Reader(model, padding, use_cache)
    while open_rows and max_new_tokens > 0:
        logits = reader.read(rows)
        for process in processors:
            logits = process(logits, rows)
        new = (sample(logits, rng=rng) if rng is not None else greedy(logits)).tolist()
        for i, one in enumerate(new):
            if i not in open_rows:
                new[i] = int(rows[i, -1]) if pad_id is None else pad_id
            elif one in stops:
                open_rows.remove(i)
        rows = np.column_stack([rows, new])
        max_new_tokens -= 1
        yield np.array(new, np.int64)


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
    prompt = as_array(ids)
    prompt = prompt[None] if prompt.ndim == 1 else prompt
    if len(prompt) != 1:
        raise ValueError(f"one row can be searched for at a time, not {prompt.shape}")
    if beams < 1:
        raise ValueError(f"{beams} beams find nothing")
    first = prompt[0].astype(np.int64).tolist()
    stops, reader = set(stop), Reader(model, np.zeros(1, np.int64), use_cache)
    alive: list[tuple[float, list[int]]] = [(0.0, first)]
    over: list[tuple[float, list[int]]] = []
    for step in range(max_new_tokens):
        logits = reader.read(np.array([row for _, row in alive]))
        logs = log_softmax.forward(logits.astype(np.float64), axis=1)
        candidates = []
        for i, (score, _) in enumerate(alive):
            for token in np.flatnonzero(logits[i] > -np.inf).tolist():
                candidates.append((score + float(logs[i, token]), i, token))
        best = heapq.nlargest(beams - len(over), candidates, key=lambda one: one[0])
        chosen = []
        coming = []
        for score, i, token in best:
            row = (score, [*alive[i][1], token])
            if token in stops:
                over.append(row)
            else:
                coming.append(row)
                chosen.append(i)
        alive = coming
        if not alive:
            break
        if step + 1 < max_new_tokens:
            reader.select(np.array(chosen))
    ranked = over + alive
    ranked.sort(key=lambda one: -one[0] / max(1, len(one[1]) - len(first)) ** length_penalty)
    return [(np.array(row), score) for score, row in ranked]


def text_stream(tokenizer: Tokenizer, ids: Iterable[Any]) -> Iterator[str]:
    """Holds back what begins a character, three bytes at most."""
    held = b""
    for one in ids:
        token = tokenizer.vocabulary.id_to_token(int(np.asarray(one).item()))
        if isinstance(token, str):
            yield held.decode(errors="replace") + token
            held = b""
            continue
        held += token
        cut = len(held)
        for back in range(1, min(3, len(held)) + 1):
            byte = held[-back]
            if byte >= 0xC0:  # the first byte of a character that may go on
                try:
                    held[-back:].decode()
                except UnicodeDecodeError as error:
                    if error.reason == "unexpected end of data":
                        cut = len(held) - back
                break
        if cut:
            yield held[:cut].decode(errors="replace")
            held = held[cut:]
    if held:
        yield held.decode(errors="replace")


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
        if index < 0 or index >= len(self):
            raise IndexError(f"window {index} of {len(self)}")
        end = index + self.context
        return self.ids[index:end], self.ids[index + 1 : end + 1]

    def __getitems__(self, indices: Sequence[int] | Array) -> tuple[Array, Array]:
        for index in indices:
            if index < 0 or index >= len(self):
                raise IndexError(f"window {index} of {len(self)}")
        places = np.array(indices, int)[:, None] + np.arange(self.context)
        return self.ids[places], self.ids[places + 1]


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

    Logits (..., V), targets (...) integers. ValueError, naming both shapes, where they do not fit.
    """
    targets = as_array(targets)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits of shape {logits.shape} do not fit targets of shape {targets.shape}")
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def evaluate(model: LanguageModel, ids: Any, batch_size: int = 16) -> float:
    ids = as_array(ids)
    if ids.ndim != 1 or ids.size < 2:
        raise ValueError(f"nothing is predicted in ids of shape {ids.shape}")
    size = model.config.context
    starts = list(range(0, ids.size - 1, size))
    parts = [ids[i : i + size + 1] for i in starts]
    total = 0.0
    with evaluating(model):
        for length, group in itertools.groupby(parts, key=len):
            left = list(group)
            while left:
                batch, left = np.stack(left[:batch_size]), left[batch_size:]
                loss = language_model_loss(model(batch[:, :-1]), batch[:, 1:])
                total += float(loss.data) * len(batch) * (length - 1)
    return total / (ids.size - 1)


def perplexity(nats: float) -> float:
    """exp(nats a token): among how many equally likely tokens one would be as uncertain."""
    return math.exp(nats)


def bits_per_character(nats: float, tokens: int, characters: int) -> float:
    """Bits a character of a text, from nats a token: comparable between tokenizers, as perplexity is not."""
    return nats * tokens / characters / math.log(2)


def decay_groups(model: LanguageModel, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class WarmupCosine(LRScheduler):
    def __init__(self, optimizer: Optimizer, steps: int, warmup: int, least: float) -> None:
        self.steps, self.warmup = steps, warmup
        self.least = least * optimizer.param_groups[0]["lr"]
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float) -> float:
        if epoch < self.warmup:
            start = 1 / self.warmup
            return base_lr * (start + (1 - start) * epoch / self.warmup)
        wave = (1 + math.cos(math.pi * (epoch - self.warmup) / (self.steps - self.warmup))) / 2
        return self.least + (base_lr - self.least) * wave


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: int, least: float = 0.1) -> LRScheduler:
    if warmup < 1 or warmup >= steps:
        raise ValueError(f"{warmup} of {steps} steps cannot be a warm-up")
    return WarmupCosine(optimizer, steps, warmup, least)


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
    """The optimizer of a copy makes a step, and is asked what it remembers."""
    ids = np.ones((batch, length), np.int64)
    stands_in = [Parameter(np.zeros_like(p.data)) for p in model.parameters()]
    optimizer = AdamW(stands_in)
    for p in stands_in:
        p.grad = np.zeros_like(p.data)
    optimizer.step()
    return memory_by_part(model, optimizer, language_model_loss, ids, ids)


def generation_bytes(model: LanguageModel, batch: int, length: int) -> dict[str, int]:
    config, parameters = model.config, list(model.parameters())
    every = {id(array): array.nbytes for array in model.state_dict().values()}
    for p in parameters:
        del every[id(p.data)]
    numbers = 2 * config.num_layers * batch * min(length, config.context) * config.kv_dim
    return {
        "weights": sum(p.data.nbytes for p in parameters),
        "buffers": sum(every.values()),
        "cache": numbers * parameters[0].dtype.itemsize,
    }
