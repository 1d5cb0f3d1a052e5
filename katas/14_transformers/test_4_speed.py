"""Level 4: a norm is a few passes over memory, a block is its products, and a cache saves all that was done.

Ratios within this run, in CPU time, never seconds. Each budget has a twin: a naive version, written out
here, that must not fit.
"""

import itertools
import json
import struct

import numpy as np

from dojo.measuring import Budget, race
from tinytorch.autograd import no_grad
from tinytorch.tensor import Tensor
from tinytorch.transformers import (
    Encoder,
    GPTConfig,
    TinyGPT,
    TransformerBlock,
    gradient_flow,
    layer_norm,
    read_safetensors,
    rms_norm,
)

NORM = Budget(
    "a norm of (256, 96)",
    limit=6,
    reference=1.0,
    naive=56,
    unit="times the time of its formula in plain numpy",
    naively="a version that goes row by row",
)
NORM_BACK = Budget(
    "a norm of (256, 96), there and back",
    limit=6,
    reference=1.0,
    naive=46,
    unit="times the time of its formulas in plain numpy",
    naively="a version that goes row by row",
)
BLOCK = Budget(
    "a block (16, 32, 32), there and back",
    limit=6,
    reference=2.5,
    naive=18,  # 8.7 where products are slow
    unit="times the time of the products of matrices in it, and of four passes",
    naively="a version that takes its places one by one",
)
FLOW = Budget(
    "gradient_flow through 8 blocks",
    limit=2.6,
    reference=1.0,
    naive=4.5,
    unit="times the time of going there and back once",
    naively="a version that starts again for each block",
)
CACHED = Budget(
    "the 64th token, with caches",
    limit=0.4,
    reference=0.15,
    naive=1.0,
    unit="times the time of all 64",
    naively="a version that reads all again",
)
WIDEN = Budget(
    "reading 16,384 numbers of bfloat16",
    limit=8,
    reference=1.3,
    naive=50,
    unit="times the time of reading as many of 16 bits",
    naively="a version that widens number by number",
)
MANY = Budget(
    "reading a file of 1,000 arrays",
    limit=16,
    reference=9.5,
    naive=56,
    unit="times the time of one of 100",
    naively="a version that compares each array with each other",
)
PADDED = Budget(
    "an encoder of 8 texts, padded to one length",
    limit=2.6,
    reference=1.0,
    naive=5.0,  # 3.7 where products are slow
    unit="times the time without padding",
    naively="a version that reads text by text",
)


def random(rng, *shape):
    return rng.random(shape, np.float32)


# 14.1, 14.2, 14.4 norms


def formula(x, weight, bias, grad):
    """layer_norm in plain numpy, all rows at once."""
    off = x - x.mean(1, keepdims=True)
    scale = 1 / np.sqrt((off * off).mean(1, keepdims=True) + np.float32(1e-5))
    return off * scale * weight + bias


def formulas(x, weight, bias, grad):
    off = x - x.mean(1, keepdims=True)
    scale = 1 / np.sqrt((off * off).mean(1, keepdims=True) + np.float32(1e-5))
    normal = off * scale
    out = normal * weight + bias
    slope = grad * weight
    along = normal * (slope * normal).mean(1, keepdims=True)
    return out, (slope - slope.mean(1, keepdims=True) - along) * scale, (grad * normal).sum(0), grad.sum(0)


def operands(rng):
    """96 KiB a table."""
    return random(rng, 256, 96), random(rng, 96), random(rng, 96), random(rng, 256, 96)


def race_norms(budget, one, other, rng):
    budget.check(race(one, other, limit=budget.limit, inputs=lambda: operands(rng)))


def test_a_norm_is_a_few_passes_over_memory(rng):
    race_norms(NORM, lambda x, w, b, g: layer_norm(x, w, b), formula, rng)
    race_norms(NORM, lambda x, w, b, g: rms_norm(x, w), formula, rng)


def by_rows(x, weight, bias, grad):
    return np.array([formula(row[None], weight, bias, None)[0] for row in x])


def test_the_twin_that_goes_row_by_row_is_caught(rng):
    NORM.catches(race(by_rows, formula, limit=NORM.limit, inputs=lambda: operands(rng)))


def test_and_so_is_its_way_back(rng):
    race_norms(NORM_BACK, lambda x, w, b, g: layer_norm.vjp(x, w, b)[1](g), formulas, rng)
    race_norms(NORM_BACK, lambda x, w, b, g: rms_norm.vjp(x, w)[1](g), formulas, rng)


def test_the_twin_that_goes_back_row_by_row_is_caught(rng):
    def back(x, weight, bias, grad):
        return [formulas(a[None], weight, bias, b[None]) for a, b in zip(x, grad, strict=True)]

    NORM_BACK.catches(race(back, formulas, limit=NORM_BACK.limit, inputs=lambda: operands(rng)))


# 14.6 to 14.8 blocks


def block_and_back(block, x):
    out = block(Tensor(x, requires_grad=True), is_causal=True)
    block.zero_grad()
    out.backward(x)
    return out


def plain_products(x, qkv, out, fc, proj):
    """Three for each layer, forwards, to its input and to its weight; and seven small ones a head.

    And two passes of tanh and two of exp, for the activation and the weights of attention, there and back.
    """
    rows = x.reshape(-1, x.shape[-1])
    for weight in (qkv, out, fc):
        found = rows @ weight.T
        _ = found @ weight, found.T @ rows
    back = np.tanh(found) @ proj.T
    _ = np.tanh(back @ proj), back.T @ found
    heads = np.ascontiguousarray(x.reshape(len(x), x.shape[1], 4, -1).transpose(0, 2, 1, 3))
    for _ in range(4):
        scores = heads @ heads.transpose(0, 1, 3, 2)
    weights = np.exp(scores)
    for _ in range(3):
        mixed = weights @ heads
    return back, mixed, np.exp(scores)


def block_operands(rng):
    return random(rng, 16, 32, 32), *(random(rng, *s) for s in ((96, 32), (32, 32), (128, 32), (32, 128)))


def test_a_block_costs_its_products_and_some_passes(rng):
    block = TransformerBlock(32, 4, rng=rng)
    BLOCK.check(
        race(
            lambda x, *_: block_and_back(block, x),
            plain_products,
            limit=BLOCK.limit,
            inputs=lambda: block_operands(rng),
        )
    )


def test_the_twin_that_takes_places_one_by_one_is_caught(rng):
    block = TransformerBlock(32, 4, rng=rng)

    def one_by_one(x, *_):
        return [block.mlp(block.ln2(Tensor(place))) for text in x for place in text], block_and_back(block, x)

    BLOCK.catches(race(one_by_one, plain_products, limit=BLOCK.limit, inputs=lambda: block_operands(rng)))


# 14.9 gradient_flow


def chain(blocks, x):
    out = leaf = Tensor(x, requires_grad=True)
    for block in blocks:
        out = block(out)
    out.backward(x)
    return leaf.grad


def test_a_gradient_is_followed_in_one_go(rng):
    blocks = [TransformerBlock(16, 2, rng=rng) for _ in range(8)]
    FLOW.check(
        race(
            lambda x: gradient_flow(blocks, x, x),
            lambda x: chain(blocks, x),
            limit=FLOW.limit,
            inputs=lambda: (random(rng, 2, 16, 16),),
        )
    )


def test_the_twin_that_starts_again_for_each_block_is_caught(rng):
    blocks = [TransformerBlock(16, 2, rng=rng) for _ in range(8)]
    FLOW.catches(
        race(
            lambda x: [chain(blocks[i:], x) for i in range(8)],
            lambda x: chain(blocks, x),
            limit=FLOW.limit,
            inputs=lambda: (random(rng, 2, 16, 16),),
        )
    )


# 14.13 caches


def filled(model, ids):
    caches = model.new_caches()
    with no_grad():
        model(ids[:, :-1], caches=caches)
    return model, ids, caches


def every(model, ids, caches):
    with no_grad():
        return model(ids)


def last(model, ids, caches):
    with no_grad():
        return model(ids[:, -1:], caches=caches)


def tiny(rng):
    return TinyGPT(GPTConfig(32, context=64, dim=64, num_layers=2, num_heads=4), rng=rng)


def test_a_token_with_caches_costs_a_token(rng):
    model = tiny(rng)
    CACHED.check(
        race(last, every, limit=CACHED.limit, inputs=lambda: filled(model, rng.integers(0, 32, (8, 64))))
    )


def test_the_twin_that_reads_all_again_is_caught(rng):
    model = tiny(rng)
    again = lambda model, ids, caches: every(model, ids.copy(), None)  # noqa: E731
    CACHED.catches(
        race(again, every, limit=CACHED.limit, inputs=lambda: filled(model, rng.integers(0, 32, (8, 64))))
    )


# 14.14 Encoder


def test_texts_of_several_lengths_go_together(rng):
    model = Encoder(GPTConfig(32, context=16, dim=32, num_layers=2, num_heads=4), rng=rng)
    PADDED.check(
        race(
            lambda ids, lengths: model(ids, lengths),
            lambda ids, lengths: model(ids),
            limit=PADDED.limit,
            inputs=lambda: (rng.integers(0, 32, (8, 16)), rng.integers(1, 17, 8)),
        )
    )


def test_the_twin_that_reads_text_by_text_is_caught(rng):
    model = Encoder(GPTConfig(32, context=16, dim=32, num_layers=2, num_heads=4), rng=rng)
    PADDED.catches(
        race(
            lambda ids, lengths: [model(text[None, :n]) for text, n in zip(ids, lengths, strict=True)],
            lambda ids, lengths: model(ids),
            limit=PADDED.limit,
            inputs=lambda: (rng.integers(0, 32, (8, 16)), rng.integers(1, 17, 8)),
        )
    )


# 14.18 read_safetensors


def halves(folder, dtype, rng):
    """A file of 32 KiB."""
    entry = {"dtype": dtype, "shape": [128, 128], "data_offsets": [0, 1 << 15]}
    words = json.dumps({"x": entry}).encode()
    file = folder / dtype
    file.write_bytes(len(words).to_bytes(8, "little") + words + rng.bytes(1 << 15))
    return file


def test_bfloat16_is_widened_all_at_once(rng, tmp_path):
    narrow, short = (halves(tmp_path, dtype, rng) for dtype in ("BF16", "U16"))
    WIDEN.check(race(lambda: read_safetensors(narrow), lambda: read_safetensors(short), limit=WIDEN.limit))


def test_the_twin_that_widens_number_by_number_is_caught(rng, tmp_path):
    short = halves(tmp_path, "U16", rng)

    def widened():
        numbers = read_safetensors(short)["x"].ravel().tolist()
        return [struct.unpack("<f", struct.pack("<I", n << 16))[0] for n in numbers]

    WIDEN.catches(race(widened, lambda: read_safetensors(short), limit=WIDEN.limit))


def numbered(folder, count):
    """A file of so many numbers, each an array."""
    arrays = {str(i): {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(count)}
    words = json.dumps(arrays).encode()
    file = folder / str(count)
    file.write_bytes(len(words).to_bytes(8, "little") + words + bytes(count))
    return file


def test_a_file_of_many_arrays_is_read_in_time_as_there_are_many(tmp_path):
    many, few = (numbered(tmp_path, count) for count in (1000, 100))
    MANY.check(race(lambda: read_safetensors(many), lambda: read_safetensors(few), limit=MANY.limit))


def test_the_twin_that_compares_each_with_each_other_is_caught(tmp_path):
    many, few = (numbered(tmp_path, count) for count in (1000, 100))

    def compared(file, count):
        read_safetensors(file)
        spans = [(i, i + 1) for i in range(count)]
        assert not any(a < d and c < b for (a, b), (c, d) in itertools.combinations(spans, 2))

    MANY.catches(race(lambda: compared(many, 1000), lambda: compared(few, 100), limit=MANY.limit))
