"""What a trusted grade asks of kata 15: each check on fresh numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# Processors.


def draw_processors(rng):
    rows, vocab = int(rng.integers(1, 6)), int(rng.integers(2, 40))
    return {
        "logits": rng.normal(size=(rows, vocab)) * rng.uniform(0.3, 4),
        "ids": rng.integers(0, vocab, (rows, int(rng.integers(1, 20)))),
        "numbers": np.array([rng.uniform(0.2, 3), rng.uniform(1.05, 3), rng.uniform(0.05, 0.95)]),
        "k": rng.integers(1, vocab + 3, 1),
    }


def run_processors(student, logits, ids, numbers, k):
    heat, penalty, p = numbers.tolist()
    processors = [
        student.RepetitionPenalty(penalty),
        student.Temperature(heat),
        student.TopK(int(k[0])),
        student.TopP(p),
    ]
    found = [process(logits, ids) for process in processors]
    found.append(student.chain(*processors)(logits, ids))
    found = np.concatenate([np.ravel(one) for one in found])
    chosen = np.asarray(student.greedy(logits), float)
    return np.concatenate([np.where(np.isfinite(found), found, 1e9), chosen])


def expected_processors(logits, ids, numbers, k):
    heat, penalty, p = numbers.tolist()

    def punish(x):
        said = np.zeros(x.shape, bool)
        said[np.arange(len(x))[:, None], ids] = True
        return np.where(said, np.where(x > 0, x / penalty, x * penalty), x)

    def largest(x):
        least = np.sort(x, axis=1)[:, ::-1][:, min(int(k[0]), x.shape[1]) - 1]
        return np.where(x < least[:, None], -np.inf, x)

    def likeliest(x):
        out = np.full(x.shape, -np.inf)
        for row, new in zip(x, out, strict=True):
            share = np.exp(row - row.max())
            share, total = share / share.sum(), 0.0
            for i in np.argsort(-row):
                new[i] = row[i]
                total += share[i]
                if total >= p:
                    break
        return out

    steps = [punish, lambda x: x / heat, largest, likeliest]
    found, chained = [step(logits) for step in steps], logits
    for step in steps:
        chained = step(chained)
    found = np.concatenate([one.ravel() for one in [*found, chained]])
    return np.concatenate([np.where(np.isfinite(found), found, 1e9), logits.argmax(axis=1).astype(float)])


# Draws: 30,000 of a few ids, whose counts may be off by six standard deviations.


def draw_shares(rng):
    logits = rng.normal(size=int(rng.integers(2, 9))) * 1.5
    logits[rng.integers(len(logits))] = -np.inf
    return {"logits": logits, "seed": rng.integers(0, 2**31, 1)}


def run_shares(student, logits, seed):
    rng = np.random.default_rng(int(seed[0]))
    drawn = np.asarray(student.sample(np.tile(logits, (30_000, 1)), rng=rng))
    return np.bincount(drawn, minlength=len(logits)) / 30_000


def expected_shares(logits, seed):
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


# A batch of prompts of different lengths, beyond the context.


def draw_texts(rng):
    rows, length = int(rng.integers(1, 4)), int(rng.integers(1, 9))
    return {
        "table": rng.normal(size=(6, 6)),
        "ids": rng.integers(0, 6, (rows, length)),
        "lengths": rng.integers(1, length + 1, rows),
        "context": rng.integers(2, 10, 1),
    }


def run_texts(student, table, ids, lengths, context):
    from types import SimpleNamespace

    from tinytorch.attention import KVCache
    from tinytorch.layers import Module
    from tinytorch.tensor import Tensor

    class Model(Module):
        def __init__(self):
            self.config = SimpleNamespace(context=int(context[0]))

        def new_caches(self):
            return [KVCache()]

        def forward(self, ids, mask=None, caches=None, positions=None):
            ids = np.asarray(getattr(ids, "data", ids))
            rows, columns = ids.shape
            past = caches[0].length if caches else 0
            if past + columns > self.config.context:
                raise ValueError("beyond the context")
            if positions is None:
                positions = past + np.arange(columns)
            positions = np.broadcast_to(positions, (rows, columns))
            vectors = (1 + positions)[:, :, None] * table[ids]
            if caches:
                vectors = caches[0].append(vectors[:, None], vectors[:, None])[0][:, 0]
            sees = np.tri(past + columns, dtype=bool)[past:]
            if mask is not None:
                sees = sees & np.broadcast_to(mask, (rows, 1, columns, past + columns))[:, 0]
            return Tensor(3 * np.sin(sees.astype(float) @ vectors))

    length = ids.shape[1]
    texts = [
        student.generate(Model(), ids, 12, lengths=lengths, use_cache=use_cache)[:, length:]
        for use_cache in (True, False)
    ]
    first = ids[:1, : int(lengths[0])]
    best, score = student.beam_search(Model(), first, 3, 300)[0]
    found = [np.ravel(text) for text in texts] + [best[-3:], [score]]
    return np.concatenate(found).astype(float)


def expected_texts(table, ids, lengths, context):
    limit = int(context[0])

    def after(row):
        start = 0
        while len(row) - start > limit:
            start += max(1, limit // 2)
        return 3 * np.sin(sum((1 + i) * table[one] for i, one in enumerate(row[start:])))

    texts = []
    for row, length in zip(ids.tolist(), lengths.tolist(), strict=True):
        row = row[:length]
        for _ in range(12):
            row.append(int(after(row).argmax()))
        texts.append(row[length:])
    prompt = ids[0, : int(lengths[0])].tolist()
    rows = [(prompt, 0.0)]
    for _ in range(3):
        longer = []
        for row, score in rows:
            logits = after(row)
            log_p = logits - np.log(np.exp(logits).sum())
            longer += [([*row, i], score + log_p[i]) for i in range(6)]
        rows = longer
    best, score = max(rows, key=lambda one: one[1])
    text = np.array(texts).ravel()
    return np.concatenate([text, text, best[-3:], [score]]).astype(float)


# Bytes that come one by one.


def draw_bytes(rng):
    text = "".join(chr(int(c)) for c in rng.choice([97, 233, 8364, 128512, 32], 12))
    data = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    wrong = rng.integers(0, 256, 6)
    return {"ids": np.concatenate([data, wrong, data[: int(rng.integers(1, len(data)))]])}


def run_bytes(student, ids):
    from tinytorch.tokenization import BPETokenizer

    pieces = list(student.text_stream(BPETokenizer(), ids.tolist()))
    text = "".join(pieces)
    return np.array([len(text), len(pieces) > len(text) // 2, *map(ord, text)], np.int64)


def expected_bytes(ids):
    text = bytes(ids.tolist()).decode(errors="replace")
    return np.array([len(text), 1, *map(ord, text)], np.int64)


# Windows, their loss, and the measures.


def draw_windows(rng):
    context = int(rng.integers(1, 9))
    return {
        "ids": rng.integers(0, 6, int(rng.integers(context + 1, 60))),
        "context": np.array([context]),
        "table": rng.normal(size=(6, 6)),
        "picks": rng.uniform(size=5),
    }


def run_windows(student, ids, context, table, picks):
    from types import SimpleNamespace

    from tinytorch.layers import Module
    from tinytorch.tensor import Tensor

    class Model(Module):
        def __init__(self):
            self.config = SimpleNamespace(context=int(context[0]))

        def forward(self, ids, mask=None, caches=None, positions=None):
            ids = np.asarray(getattr(ids, "data", ids))
            return Tensor(table[ids].cumsum(axis=1))

    dataset = student.TokenDataset(ids, int(context[0]))
    indices = (picks * len(dataset)).astype(int)
    x, y = dataset.__getitems__(indices)
    loss = student.language_model_loss(Tensor(table[x]), y)
    nats = student.evaluate(Model(), ids, 3)
    bits = student.bits_per_character(nats, 10, 30)
    numbers = [len(dataset), float(loss.data), nats, student.perplexity(nats), bits]
    return np.concatenate([np.ravel(x), np.ravel(y), numbers]).astype(float)


def expected_windows(ids, context, table, picks):
    size = int(context[0])
    count = len(ids) - size
    indices = (picks * count).astype(int)
    x, y = (np.array([ids[i + by : i + by + size] for i in indices]) for by in (0, 1))

    def surprise(logits, one):
        return np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[one]

    loss = np.mean([surprise(table[a], b) for a, b in zip(x.ravel(), y.ravel(), strict=True)])
    nats = np.mean(
        [surprise(table[ids[(i - 1) // size * size : i]].sum(axis=0), ids[i]) for i in range(1, len(ids))]
    )
    numbers = [count, loss, nats, np.exp(nats), nats / 3 / np.log(2)]
    return np.concatenate([x.ravel(), y.ravel(), numbers]).astype(float)


CHECKS = (
    Check("processors", draw_processors, run_processors, expected_processors, rtol=1e-8),
    Check("draws", draw_shares, run_shares, expected_shares, atol=0.018),
    Check("texts in a batch, and the best of all", draw_texts, run_texts, expected_texts, seconds=20.0),
    Check("text from bytes", draw_bytes, run_bytes, expected_bytes),
    Check("windows and measures", draw_windows, run_windows, expected_windows, rtol=1e-8),
)
