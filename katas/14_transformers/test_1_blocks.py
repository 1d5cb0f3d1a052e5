"""Level 1: a block is two halves, each added to the stream that it reads from."""

import functools

import numpy as np
import pytest

from dojo.expect import expect
from tinytorch.attention import KVCache
from tinytorch.autograd import no_grad
from tinytorch.embeddings import Rotary
from tinytorch.layers import Linear, Module, count_parameters
from tinytorch.tensor import Tensor
from tinytorch.transformers import FeedForward, LayerNorm, RMSNorm, TransformerBlock, gradient_flow


def new(seed=0):
    return np.random.default_rng(seed)


def bent(x):
    """gelu, by the formula with tanh."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)


# 14.6 FeedForward


def test_a_feed_forward_is_two_layers_with_a_gelu_between(rng):
    mlp, x = FeedForward(3, 5, rng=new()), rng.normal(size=(2, 4, 3)).astype(np.float32)
    state = mlp.state_dict()
    expect(mlp(Tensor(x)), linear(bent(linear(x, state, "fc")), state, "proj").astype(np.float32))


def test_its_hidden_layer_is_four_times_as_wide_unless_told():
    shapes = {name: p.shape for name, p in FeedForward(3, rng=new()).named_parameters()}
    expect(shapes, {"fc.weight": (12, 3), "fc.bias": (12,), "proj.weight": (3, 12), "proj.bias": (3,)})


def test_it_can_do_without_biases():
    shapes = {name: p.shape for name, p in FeedForward(3, 5, bias=False, rng=new()).named_parameters()}
    expect(shapes, {"fc.weight": (5, 3), "proj.weight": (3, 5)})


def test_its_layers_are_drawn_from_the_generator_one_after_the_other():
    mlp, rng = FeedForward(3, 5, rng=new()), new()
    for layer, inputs, outputs in ((mlp.fc, 3, 5), (mlp.proj, 5, 3)):
        own = Linear(inputs, outputs, rng=rng)
        expect([layer.weight, layer.bias], [own.weight.data, own.bias.data])


def test_what_comes_out_is_dropped_in_training(rng):
    """The same as without, but for what is 0; and the rest is twice as large, since half was dropped."""
    mlp, x = FeedForward(8, dropout=0.5, rng=new()), Tensor(rng.normal(size=(50, 8)).astype(np.float32))
    used, trained = mlp.eval()(x).data, mlp.train()(x).data
    gone = trained == 0
    assert 0.3 < gone.mean() < 0.7
    expect(trained[~gone], 2 * used[~gone])


def test_another_activation_can_be_put_in(rng):
    mlp, x = FeedForward(3, rng=new()), rng.normal(size=(2, 3)).astype(np.float32)
    mlp.activation = lambda x: x * 2.0
    state = mlp.state_dict()
    for training in (True, False):
        expect(mlp.train(training)(Tensor(x)), linear(2 * linear(x, state, "fc"), state, "proj"))


# 14.7, 14.8 TransformerBlock


class Marked(Module):
    """Stands in for a part: adds `plus` and multiplies by `times`."""

    def __init__(self, plus=0.0, times=1.0):
        self.plus, self.times = plus, times

    def forward(self, x, *args, **kwargs):
        return (x + self.plus) * self.times


def marked(block):
    """The block with parts of which each leaves its own mark on a number."""
    block.ln1, block.attn, block.drop = Marked(times=2.0), Marked(plus=1.0), Marked(times=10.0)
    block.ln2, block.mlp = Marked(times=3.0), Marked(plus=5.0)
    return block


def test_a_block_that_norms_first_norms_what_its_halves_read():
    """1 + 10 (2 + 1) is 31, and 31 + (93 + 5) is 129."""
    block = marked(TransformerBlock(2, 1, rng=new()))
    expect(block(Tensor(np.ones((1, 1, 2), np.float32))), np.full((1, 1, 2), 129, np.float32))


def test_a_block_that_norms_last_norms_the_stream():
    """2 (1 + 10 (1 + 1)) is 42, and 3 (42 + 47) is 267."""
    block = marked(TransformerBlock(2, 1, norm_first=False, rng=new()))
    expect(block(Tensor(np.ones((1, 1, 2), np.float32))), np.full((1, 1, 2), 267, np.float32))


def test_the_parts_of_a_block_have_the_shapes_of_its_numbers():
    block = TransformerBlock(8, 4, num_kv_heads=2, hidden=10, bias=True, rng=new())
    shapes = {name: p.shape for name, p in block.named_parameters()}
    expect(
        shapes,
        {
            "ln1.weight": (8,), "ln1.bias": (8,),
            "attn.qkv_proj.weight": (16, 8), "attn.qkv_proj.bias": (16,),
            "attn.out_proj.weight": (8, 8), "attn.out_proj.bias": (8,),
            "ln2.weight": (8,), "ln2.bias": (8,),
            "mlp.fc.weight": (10, 8), "mlp.fc.bias": (10,),
            "mlp.proj.weight": (8, 10), "mlp.proj.bias": (8,),
        },
    )  # fmt: skip
    parts = list(dict.fromkeys(name.split(".")[0] for name in shapes))
    expect(parts, ["ln1", "attn", "ln2", "mlp"])  # in the order in which they are used
    bare = TransformerBlock(8, 4, bias=False, rng=new())
    expect([name for name, _ in bare.named_parameters() if "bias" in name], ["ln1.bias", "ln2.bias"])
    expect(bare.mlp.fc.weight.shape, (32, 8))


def test_a_block_can_have_other_norms():
    block = TransformerBlock(4, 2, norm=functools.partial(RMSNorm, eps=0.5), rng=new())
    for norm in (block.ln1, block.ln2):
        assert isinstance(norm, RMSNorm)
        expect((norm.weight.shape, norm.eps), ((4,), 0.5))
    assert block.ln1 is not block.ln2
    assert isinstance(TransformerBlock(4, 2, rng=new()).ln2, LayerNorm)


def test_a_block_turns_queries_and_keys_if_it_is_told_how(rng):
    rotary, x = Rotary(4, 8), Tensor(rng.normal(size=(1, 8, 8)).astype(np.float32))
    turned, plain = (TransformerBlock(8, 2, rotary=r, rng=new()) for r in (rotary, None))
    assert turned.attn.rotary is rotary
    assert abs(turned(x).data - plain(x).data).max() > 1e-3


@pytest.mark.parametrize("norm_first", [True, False])
def test_what_attention_is_told_goes_through_the_block(norm_first, rng):
    """The future, and what a mask hides, change nothing; a cache gives the same, place by place."""
    block = TransformerBlock(8, 2, norm_first=norm_first, rng=new())
    x = rng.normal(size=(2, 5, 8)).astype(np.float32)
    other = x.copy()
    other[:, 3] = rng.normal(size=8)
    causal = block(Tensor(x), is_causal=True).data
    expect(block(Tensor(other), is_causal=True).data[:, :3], causal[:, :3])
    seen = np.arange(5) != 3
    hidden = [block(Tensor(a), seen[None, None, None]).data[:, seen] for a in (x, other)]
    expect(hidden[0], hidden[1])
    assert abs(block(Tensor(x)).data - block(Tensor(other)).data)[:, :3].max() > 1e-4
    with no_grad():
        cache = KVCache()
        steps = [block(Tensor(x[:, i : i + 1]), is_causal=True, cache=cache).data for i in range(5)]
    expect(np.concatenate(steps, axis=1), causal)


@pytest.mark.parametrize("norm_first", [True, False])
def test_both_halves_drop_in_training(norm_first, rng):
    """With everything dropped, nothing is added to the stream."""
    block = TransformerBlock(8, 2, dropout=1.0, norm_first=norm_first, rng=new())
    x = rng.normal(size=(1, 3, 8)).astype(np.float32)
    norm = lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)  # noqa: E731
    expect(block(Tensor(x)), x if norm_first else norm(norm(x)))
    assert abs(block.eval()(Tensor(x)).data - x).max() > 0.01


def test_both_halves_drop_the_share_that_was_asked_for():
    """Of 16,000 numbers a quarter, to five deviations: 274."""
    block = TransformerBlock(8, 2, dropout=0.25, rng=new())
    for drop in (block.drop, block.mlp.drop):
        gone = (drop(Tensor(np.ones((2000, 8), np.float32))).data == 0).sum()
        assert abs(int(gone) - 4000) < 274


def test_without_dropout_nothing_is_drawn(rng):
    source = new()
    block = TransformerBlock(8, 2, rng=source)
    before = source.bit_generator.state
    block(Tensor(rng.normal(size=(1, 3, 8)).astype(np.float32)))
    expect(source.bit_generator.state, before)


def test_a_block_counts_its_parameters():
    """12 dim² of weights, and 13 dim of biases and norms, is what people count with."""
    expect(count_parameters(TransformerBlock(16, 4, rng=new())), 12 * 16 * 16 + 13 * 16)


# 14.9 gradient_flow


def test_gradients_by_hand():
    """Two blocks that double, one that adds half of its input to it."""
    double = Marked(times=2.0)

    class Half(Module):
        def forward(self, x):
            return x + x * 0.5

    x, grad = np.ones((2, 2)), np.array([[3.0, 0.0], [0.0, 4.0]])
    expect(gradient_flow([double, Half(), double], x, grad), [30.0, 15.0, 10.0, 5.0])
    expect(gradient_flow([], x, grad), [5.0])


def test_the_gradient_of_a_block_is_at_its_own_input(rng):
    """The slope of a quadratic depends on where it is: x² at 2, and then at 4."""

    class Square(Module):
        def forward(self, x):
            return x * x

    expect(gradient_flow([Square(), Square()], np.array([2.0]), np.array([1.0])), [32.0, 8.0, 1.0])


def test_a_block_that_hands_on_its_input_hands_on_its_gradient():
    class Nothing(Module):
        def forward(self, x):
            return x

    expect(gradient_flow([Nothing(), Nothing()], np.ones(4), np.ones(4)), [2.0, 2.0, 2.0])


def test_parameters_keep_the_gradients_they_had(rng):
    blocks = [TransformerBlock(8, 2, rng=new()) for _ in range(2)]
    blocks[0].mlp.fc.weight.grad = np.ones((32, 8), np.float32)
    x, grad = rng.normal(size=(2, 1, 3, 8)).astype(np.float32)
    norms = gradient_flow(blocks, x, grad)
    assert all(isinstance(n, float) for n in norms)
    expect(blocks[0].mlp.fc.weight.grad, np.ones((32, 8), np.float32))
    assert all(p.grad is None for block in blocks for p in block.parameters() if p.shape != (32, 8))
    expect(norms[-1], float(np.linalg.norm(grad.astype(np.float64))), rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_blocks_are_left_as_they_were(training, rng):
    """Those that train go on doing so, and those that do not, do not; what is frozen stays frozen."""
    block = TransformerBlock(8, 2, rng=new()).train(training)
    block.attn.train(not training)
    block.mlp.requires_grad_(False)
    before = [m.training for m in block.modules()], block.mlp.fc.weight.requires_grad
    x, grad = rng.normal(size=(2, 1, 3, 8)).astype(np.float32)
    gradient_flow([block], x, grad)
    expect(([m.training for m in block.modules()], block.mlp.fc.weight.requires_grad), before)
    assert block.attn.out_proj.weight.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_each_block_is_gone_through_in_the_mode_that_it_is_in(training):
    """What a block drops in training belongs to its gradient."""

    class Spy(Module):
        def forward(self, x):
            modes.add((self, self.training))
            return x * 2.0

    one, other, modes = Spy().train(training), Spy().train(not training), set()
    expect(gradient_flow([one, other], np.ones(4), np.ones(4)), [8.0, 4.0, 2.0])
    assert modes == {(one, training), (other, not training)}


def test_norms_of_large_gradients_do_not_overflow():
    expect(gradient_flow([Marked(times=2.0)], f32_row(), 1e30 * f32_row()), [4e30, 2e30], rtol=1e-5)


def f32_row():
    return np.ones((1, 4), np.float32)
