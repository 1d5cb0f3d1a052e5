"""Level 3: what a block keeps for its way back is what training costs, and files are not read twice.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import dataclasses

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, check_memory_growth, kept_bytes, load_probes, peak_bytes, retained_bytes
from tinytorch.autograd import is_grad_enabled, no_grad
from tinytorch.layers import parameter_bytes
from tinytorch.tensor import Tensor, mean, sqrt, tanh
from tinytorch.transformers import (
    Encoder,
    FeedForward,
    GPTConfig,
    LayerNorm,
    RMSNorm,
    TinyGPT,
    TransformerBlock,
    activation_bytes,
    gradient_flow,
    layer_norm,
    load_gpt2,
    read_safetensors,
    rms_norm,
    write_safetensors,
)

KIB, MIB = 1 << 10, 1 << 20
PROBES = {probe.name: probe for probe in load_probes(__file__).PROBES}

NORM = Budget(
    "a norm of rows of 128",
    limit=3.6,
    reference=1.03,
    naive=9.0,
    unit="times the memory of its result, at the worst moment",
    naively="a version that goes to float64",
)
NORM_BACK = Budget(
    "the gradients of a norm",
    limit=5.5,
    reference=2.03,
    naive=9.0,
    unit="times the memory of its input, at the worst moment",
    naively="a version that goes to float64",
)
NORM_KEPT = Budget(
    "what the way back keeps of a norm",
    limit=1.5,
    reference=1.02,
    naive=2.0,
    unit="times the memory of its input, the input among it",
    naively="a version that keeps the input and what became of it",
)
BLOCK = Budget(
    "a block there, recorded",
    limit=20,
    reference=16.1,
    naive=42,
    unit="times the memory of the stream, for the way back",
    naively="a block whose norms and gelu are made of single operations",
)
GRADS = Budget(
    "gradient_flow through 8 blocks",
    limit=220,
    reference=150,
    naive=332,
    unit="times the memory of the stream, at the worst moment",
    naively="a version that goes back through all blocks that follow, for each,",
)
READ = Budget(
    "reading a file of 4 MiB",
    limit=0.3,
    reference=0.003,
    naive=1.0,
    unit="times the file",
    naively="a version that reads all bytes",
)
WRITE = Budget(
    "writing 4 MiB of arrays",
    limit=0.9,
    reference=0.003,
    naive=2.0,
    unit="times the file",
    naively="a version that puts all bytes together first",
)
WRITE_ONE = Budget(
    "writing an array of 4 MiB",
    limit=0.5,
    reference=0.003,
    naive=1.0,
    unit="times the file",
    naively="a version that makes bytes of it",
)
LONG = Budget(
    "TinyGPT of one block, on a text of 2,048",
    limit=1.6,
    reference=1.07,
    naive=11.8,
    unit="times the memory of the block alone, at the worst moment",
    naively="a version with a table of which place sees which",
)
LOAD = Budget(
    "load_gpt2 of 3 MiB",
    limit=1.8,
    reference=1.11,
    naive=3.0,
    unit="times the model's own weights, at the worst moment",
    naively="a version that copies what it renames",
)


def random(rng, *shape):
    return rng.random(shape, np.float32)


def vectors(rng, dim):
    return random(rng, dim), random(rng, dim)


# 14.1, 14.2, 14.4 norms


def norms(rng):
    """(op, arrays), with rows of 2 MiB together."""
    x, (weight, bias) = random(rng, 4096, 128), vectors(rng, 128)
    return [(layer_norm, (x, weight, bias)), (rms_norm, (x, weight))]


def test_a_norm_needs_memory_for_its_result_and_numbers_for_each_row(rng):
    for op, arrays in norms(rng):
        NORM.check(peak_bytes(lambda op=op, arrays=arrays: op(*arrays)) / arrays[0].nbytes)


def test_the_twin_that_goes_to_float64_is_caught(rng):
    x = random(rng, 4096, 128)

    def norm():
        exact = x.astype(np.float64)
        off = exact - exact.mean(1, keepdims=True)
        squares = off**2
        return (off / np.sqrt(squares.mean(1, keepdims=True))).astype(np.float32)

    NORM.catches(peak_bytes(norm) / x.nbytes)


def test_its_way_back_needs_little_more(rng):
    for op, arrays in norms(rng):
        out, back = op.vjp(*arrays)
        NORM_BACK.check(peak_bytes(lambda back=back, out=out: back(out)) / out.nbytes)


def test_the_twin_that_goes_back_in_float64_is_caught(rng):
    x, grad = random(rng, 4096, 128), random(rng, 4096, 128)

    def back():
        exact, slope = x.astype(np.float64), grad.astype(np.float64)
        along = exact * (slope * exact).mean(1, keepdims=True)
        return (slope - slope.mean(1, keepdims=True) - along).astype(np.float32)

    NORM_BACK.catches(peak_bytes(back) / x.nbytes)


def test_a_norm_keeps_one_table_and_numbers_for_each_row(rng):
    """Its input, or what that became: either can be had from the other."""
    for op, (x, *rest) in norms(rng):
        kept = kept_bytes(lambda op=op, x=x, rest=rest: op.vjp(x + np.float32(1), *rest)[1])
        NORM_KEPT.check(kept / x.nbytes)


def test_the_twin_that_keeps_two_tables_is_caught(rng):
    x = random(rng, 4096, 128)

    def there():
        mine = x + np.float32(1)
        normalised = mine - mine.mean(1, keepdims=True)
        return lambda grad: (mine, normalised)

    NORM_KEPT.catches(kept_bytes(there) / x.nbytes)


def test_memory_of_a_model_grows_as_the_length_of_its_text():
    for name in ("a block (1, n, 64), recorded", "TinyGPT of n layers, recorded"):
        check_memory_growth(PROBES[name])


# 14.7, 14.8 blocks


def stream(rng):
    """256 KiB."""
    return Tensor(random(rng, 4, 128, 128), requires_grad=True)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_keeps_sixteen_times_its_stream(norm_first, rng):
    """2 about each norm, 3 that attention reads and 1 that it finds, 8 about gelu."""
    assert is_grad_enabled()
    block, x = TransformerBlock(128, 4, norm_first=norm_first, rng=rng), stream(rng)
    size = x.data.nbytes
    kept = kept_bytes(lambda: block(x + 1.0)) - size
    BLOCK.check(kept / size)
    expect(retained_bytes(lambda: block(x)) / KIB, 0.0, atol=64.0)


class Naive(LayerNorm):
    def forward(self, x):
        off = x - mean(x, axis=-1, keepdims=True)
        deviation = sqrt(mean(off * off, axis=-1, keepdims=True) + self.eps)
        return off / deviation * self.weight + self.bias


def test_the_twin_with_norms_and_gelu_of_single_operations_is_caught(rng):
    block, x = TransformerBlock(128, 4, norm=Naive, rng=rng), stream(rng)
    block.mlp.activation = lambda x: x * 0.5 * (1.0 + tanh(0.79788 * (x + 0.044715 * (x * x * x))))
    size = x.data.nbytes
    BLOCK.catches((kept_bytes(lambda: block(x + 1.0)) - size) / size)


def test_without_a_gradient_nothing_is_kept(rng):
    block, x = TransformerBlock(128, 4, rng=rng), stream(rng)
    with no_grad():
        expect(kept_bytes(lambda: block(x)) / x.data.nbytes, 1.0, atol=0.1)


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_the_layer_of_a_norm_keeps_no_more_than_its_operation(norm, rng):
    layer, x = norm(128), stream(rng)
    size = x.data.nbytes
    NORM_KEPT.check((kept_bytes(lambda: layer(x + 1.0)) - size) / size)


def test_the_twin_whose_layer_is_made_of_single_operations_is_caught(rng):
    layer, x = RMSNorm(128), stream(rng)
    size = x.data.nbytes

    def composed():
        y = x + 1.0
        return y / sqrt(mean(y * y, axis=-1, keepdims=True) + layer.eps) * layer.weight

    NORM_KEPT.catches((kept_bytes(composed) - size) / size)


LAYERS = {
    "LayerNorm": lambda rng: LayerNorm(128),
    "RMSNorm": lambda rng: RMSNorm(128),
    "FeedForward": lambda rng: FeedForward(128, rng=rng),
    "TransformerBlock": lambda rng: TransformerBlock(128, 4, rng=rng),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_no_batch(name, training, rng):
    """What a layer kept for itself would stay for as long as the model does."""
    layer, x = LAYERS[name](rng).train(training), random(rng, 1, 128, 128)
    made = lambda: layer(Tensor(x + np.float32(1), requires_grad=True))  # noqa: E731
    expect(retained_bytes(made) / KIB, 0.0, atol=32.0)


# 14.9 gradient_flow


def test_gradients_are_followed_through_one_graph(rng):
    blocks = [TransformerBlock(64, 4, rng=rng) for _ in range(8)]
    x, grad = random(rng, 2, 2, 64, 64)
    GRADS.check(peak_bytes(lambda: gradient_flow(blocks, x, grad)) / x.nbytes)


def test_the_twin_that_goes_back_from_the_end_for_each_block_is_caught(rng):
    blocks = [TransformerBlock(64, 4, rng=rng) for _ in range(8)]
    x, _ = random(rng, 2, 2, 64, 64)

    def graphs():
        outs = []
        for i in range(0, 8, 2):
            out = Tensor(x, requires_grad=True)
            for block in blocks[i:]:
                out = block(out)
            outs.append(out)
        return outs

    GRADS.catches(peak_bytes(graphs) / x.nbytes)


# 14.16 activation_bytes


@pytest.mark.parametrize(
    "change",
    [{}, {"num_kv_heads": 2, "hidden": 100}, {"positions": "rotary"}, {"dropout": 0.1, "tied": False}],
    ids=str,
)
def test_the_formula_is_what_the_graph_keeps(change, rng):
    """To a twentieth. Half of it is the feed-forward network's."""
    config = GPTConfig(32, context=64, dim=64, num_layers=3, num_heads=4)
    config = dataclasses.replace(config, **change)
    model, ids = TinyGPT(config, rng=rng), rng.integers(0, 32, (4, 64))
    logits = 4 * 4 * 64 * 32
    kept = kept_bytes(lambda: model(ids)) - logits
    expect(activation_bytes(config, 4, 64) / kept, 1.0, atol=0.05)


# 14.12 to 14.14 models


def test_a_tied_model_has_one_table(rng):
    config = GPTConfig(4096, context=8, dim=128, num_layers=1, num_heads=4)
    tied, loose = (TinyGPT(dataclasses.replace(config, tied=t), rng=rng) for t in (True, False))
    expect(parameter_bytes(loose) - parameter_bytes(tied), 4 * 4096 * 128)
    kept = kept_bytes(lambda: TinyGPT(config, rng=rng))
    expect(kept / parameter_bytes(tied), 1.0, atol=0.1)


def test_a_model_that_is_used_needs_a_block_at_a_time(rng):
    """Without a graph, what one block needs is free for the next."""
    peaks = {}
    for layers in (1, 6):
        model = TinyGPT(GPTConfig(16, context=64, dim=64, num_layers=layers, num_heads=4), rng=rng)
        ids = rng.integers(0, 16, (4, 64))
        with no_grad():
            peaks[layers] = peak_bytes(lambda model=model, ids=ids: model(ids))
    expect(peaks[6] / peaks[1], 1.0, atol=0.3)


def long_text(rng):
    model = TinyGPT(GPTConfig(16, 2048, dim=16, num_layers=1, num_heads=1, positions="rotary"), rng=rng)
    return model, rng.integers(0, 16, (1, 2048))


def beside_its_block(model, ids, call):
    """How much memory a call takes, in that of the model's only block."""
    x = Tensor(np.ones((1, 2048, 16), np.float32))
    with no_grad():
        return peak_bytes(call) / peak_bytes(lambda: model.blocks[0](x, is_causal=True))


@pytest.mark.timeout(60)
def test_what_places_see_is_no_table(rng):
    """A text of n has n activations a number, and n² pairs of places, which attention need not write down."""
    model, ids = long_text(rng)
    LONG.check(beside_its_block(model, ids, lambda: model(ids)))


def test_the_twin_with_a_table_of_what_is_seen_is_caught(rng):
    model, ids = long_text(rng)

    def with_a_table():
        seen = np.tri(2048, dtype=np.float32)
        return model.blocks[0](model.embed(ids), seen > 0)

    LONG.catches(beside_its_block(model, ids, with_a_table))


def test_an_encoder_keeps_no_batch(rng):
    model = Encoder(GPTConfig(16, context=64, dim=64, num_layers=2, num_heads=4), rng=rng)
    ids = rng.integers(0, 16, (4, 64))
    expect(retained_bytes(lambda: model(ids, [64, 3, 5, 9])) / KIB, 0.0, atol=32.0)


# 14.17, 14.18 files


def arrays(rng):
    return {str(i): random(rng, 512, 256) for i in range(8)}


def test_arrays_are_written_one_by_one(rng, tmp_path):
    some = arrays(rng)
    WRITE.check(peak_bytes(lambda: write_safetensors(tmp_path / "w", some)) / (4 * MIB))


def test_a_large_array_is_not_copied_on_its_way(rng, tmp_path):
    one = {"x": random(rng, 1024, 1024)}
    WRITE_ONE.check(peak_bytes(lambda: write_safetensors(tmp_path / "w", one)) / (4 * MIB))


def test_the_twin_that_makes_bytes_of_it_is_caught(rng):
    x = random(rng, 1024, 1024)
    WRITE_ONE.catches(peak_bytes(x.tobytes) / (4 * MIB))


def test_the_twin_that_puts_all_bytes_together_is_caught(rng):
    some = arrays(rng)
    WRITE.catches(peak_bytes(lambda: b"".join(a.tobytes() for a in some.values())) / (4 * MIB))


def test_a_file_is_its_own_memory(rng, tmp_path):
    write_safetensors(tmp_path / "w", arrays(rng))
    READ.check(peak_bytes(lambda: read_safetensors(tmp_path / "w")) / (4 * MIB))


def test_the_twin_that_reads_all_bytes_is_caught(rng, tmp_path):
    write_safetensors(tmp_path / "w", arrays(rng))
    READ.catches(peak_bytes((tmp_path / "w").read_bytes) / (4 * MIB))


# 14.20 load_gpt2


def published(rng, dim=128, layers=4):
    named = {"wte.weight": random(rng, 100, dim), "wpe.weight": random(rng, 32, dim)}
    for i in range(layers):
        for name, shape in (
            ("attn.c_attn", (dim, 3 * dim)), ("attn.c_proj", (dim, dim)),
            ("mlp.c_fc", (dim, 4 * dim)), ("mlp.c_proj", (4 * dim, dim)),
        ):  # fmt: skip
            named[f"h.{i}.{name}.weight"] = random(rng, *shape)
            named[f"h.{i}.{name}.bias"] = random(rng, shape[1])
        for name in ("ln_1", "ln_2"):
            named |= {f"h.{i}.{name}.{kind}": random(rng, dim) for kind in ("weight", "bias")}
    return {**named, "ln_f.weight": random(rng, dim), "ln_f.bias": random(rng, dim)}


def test_weights_go_from_the_file_to_their_places(rng, tmp_path):
    named = published(rng)
    write_safetensors(tmp_path / "w", named)
    size = sum(a.nbytes for a in named.values())
    LOAD.check(peak_bytes(lambda: load_gpt2(tmp_path / "w", 4)) / size)


def test_the_twin_that_copies_what_it_renames_is_caught(rng):
    named = published(rng)
    size = sum(a.nbytes for a in named.values())

    def copies():
        read = {n: a.copy() for n, a in named.items()}
        turned = {n: a.T.copy() for n, a in read.items()}
        return read, turned, {n: a.copy() for n, a in turned.items()}

    LOAD.catches(peak_bytes(copies) / size)
