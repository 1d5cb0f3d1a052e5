"""Kata 15: choices, losses and schedules are PyTorch's, in float64 to 1e-10, and a text is that of a plain
loop over the same network in PyTorch."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.generation import (
    RepetitionPenalty,
    TopK,
    TopP,
    beam_search,
    decay_groups,
    generate,
    language_model_loss,
    perplexity,
    warmup_cosine,
)
from tinytorch.layers import Parameter
from tinytorch.optimizers import SGD
from tinytorch.tensor import Tensor
from tinytorch.transformers import GPTConfig, TinyGPT

torch = pytest.importorskip("torch")

SEEDS = st.integers(0, 2**16)
thorough = settings(deadline=None, derandomize=True, max_examples=60)


@thorough
@given(SEEDS, st.integers(1, 5), st.integers(1, 30), st.integers(1, 30))
def test_top_k_is_what_topk_leaves(seed, rows, vocab, k):
    logits = np.random.default_rng(seed).normal(size=(rows, vocab))
    theirs = torch.tensor(logits)
    least = torch.topk(theirs, min(k, vocab)).values[:, -1:]
    wanted = theirs.masked_fill(theirs < least, -torch.inf).numpy()
    np.testing.assert_array_equal(TopK(k)(logits, np.zeros((rows, 1), int)), wanted)


@thorough
@given(SEEDS, st.integers(1, 5), st.integers(1, 30))
def test_top_p_is_what_a_sort_and_a_cumsum_leave(seed, rows, vocab):
    """The way of transformers: from the least likely, what is not needed for p goes."""
    rng = np.random.default_rng(seed)
    logits, p = rng.normal(size=(rows, vocab)) * 2, float(rng.uniform(0.05, 0.95))
    smallest_first, places = torch.sort(torch.tensor(logits))
    gone = smallest_first.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    gone[:, -1] = False
    wanted = torch.tensor(logits).masked_fill(gone.scatter(1, places, gone), -torch.inf).numpy()
    np.testing.assert_array_equal(TopP(p)(logits, np.zeros((rows, 1), int)), wanted)


@thorough
@given(SEEDS, st.integers(1, 4), st.integers(1, 20), st.integers(1, 9))
def test_a_penalty_is_what_gather_and_scatter_make(seed, rows, vocab, length):
    rng = np.random.default_rng(seed)
    logits, ids = rng.normal(size=(rows, vocab)), rng.integers(0, vocab, (rows, length))
    theirs, places = torch.tensor(logits), torch.tensor(ids)
    said = theirs.gather(1, places)
    wanted = theirs.scatter(1, places, torch.where(said < 0, said * 1.3, said / 1.3)).numpy()
    np.testing.assert_allclose(RepetitionPenalty(1.3)(logits, ids), wanted, rtol=1e-12)


@thorough
@given(SEEDS, st.integers(1, 4), st.integers(1, 6), st.integers(1, 9))
def test_the_loss_and_its_gradient_are_pytorchs(seed, rows, length, vocab):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(rows, length, vocab)), rng.integers(0, vocab, (rows, length))
    mine = Tensor(logits.copy(), requires_grad=True)
    theirs = torch.tensor(logits, requires_grad=True)
    loss = language_model_loss(mine, targets)
    wanted = torch.nn.functional.cross_entropy(theirs.reshape(-1, vocab), torch.tensor(targets).reshape(-1))
    np.testing.assert_allclose(loss.data, wanted.item(), rtol=1e-10)
    loss.backward()
    wanted.backward()
    np.testing.assert_allclose(mine.grad, theirs.grad.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(perplexity(float(loss.data)), wanted.exp().item(), rtol=1e-10)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 1), (30, 6), (100, 50)])
def test_the_schedule_is_pytorchs(steps, warmup):
    mine = SGD([Parameter(np.ones(1, np.float32))], lr=0.5)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    schedule = warmup_cosine(mine, steps, warmup)
    rise = torch.optim.lr_scheduler.LinearLR(theirs, 1 / warmup, total_iters=warmup)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, steps - warmup, eta_min=0.05)
    wanted = torch.optim.lr_scheduler.SequentialLR(theirs, [rise, fall], [warmup])
    for step in range(steps):
        assert math.isclose(mine.param_groups[0]["lr"], theirs.param_groups[0]["lr"], rel_tol=1e-9), step
        schedule.step()
        theirs.step()
        wanted.step()


class Theirs:
    """A TinyGPT in PyTorch, by its weights, without a cache."""

    def __init__(self, model):
        self.config = model.config
        self.w = {name: torch.tensor(array) for name, array in model.state_dict().items()}

    def after(self, ids):
        """Logits of what comes after (T,), which fit the context."""
        functional, w, config, length = torch.nn.functional, self.w, self.config, len(ids)
        x = (w["tokens.weight"][torch.tensor(ids)] + w["positions.weight"][:length])[None]
        for i in range(config.num_layers):
            p = f"blocks.{i}."
            h = functional.layer_norm(x, (config.dim,), w[p + "ln1.weight"], w[p + "ln1.bias"])
            qkv = functional.linear(h, w[p + "attn.qkv_proj.weight"], w[p + "attn.qkv_proj.bias"])
            q, k, v = (t.view(1, length, config.num_heads, -1).transpose(1, 2) for t in qkv.chunk(3, -1))
            h = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h.transpose(1, 2).reshape(1, length, config.dim)
            x = x + functional.linear(h, w[p + "attn.out_proj.weight"], w[p + "attn.out_proj.bias"])
            h = functional.layer_norm(x, (config.dim,), w[p + "ln2.weight"], w[p + "ln2.bias"])
            h = functional.linear(h, w[p + "mlp.fc.weight"], w[p + "mlp.fc.bias"])
            h = functional.gelu(h, approximate="tanh")
            x = x + functional.linear(h, w[p + "mlp.proj.weight"], w[p + "mlp.proj.bias"])
        x = functional.layer_norm(x[0, -1], (config.dim,), w["ln_f.weight"], w["ln_f.bias"])
        return w["tokens.weight"] @ x


def model_of(seed):
    rng = np.random.default_rng(seed)
    model = TinyGPT(GPTConfig(11, 8, 16, 2, 2), rng=rng)
    for p in model.parameters():
        p.data = rng.normal(size=p.shape) if p.ndim > 1 else p.data.astype(np.float64)
    return model


def window(row):
    start = 0
    while len(row) - start > 8:
        start += 4
    return row[start:]


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_of_texts_is_what_pytorch_would_write(seed):
    model = model_of(seed)
    theirs, ids, lengths = Theirs(model), np.random.default_rng(seed).integers(0, 11, (3, 6)), [6, 2, 4]
    got = generate(model, ids, 14, lengths=lengths)
    for row, length, new in zip(ids.tolist(), lengths, got[:, 6:], strict=True):
        row = row[:length]
        for _ in range(14):
            row.append(int(theirs.after(window(row)).argmax()))
        np.testing.assert_array_equal(new, row[length:])


@pytest.mark.parametrize("seed", range(2))
def test_a_search_is_what_a_search_in_pytorch_finds(seed):
    model = model_of(seed)
    theirs, rows = Theirs(model), [([1, 2], 0.0)]
    for _ in range(9):
        every = []
        for row, score in rows:
            logs = theirs.after(window(row)).log_softmax(dim=0).tolist()
            every += [([*row, i], score + log) for i, log in enumerate(logs)]
        rows = sorted(every, key=lambda one: -one[1])[:3]
    found = beam_search(model, [1, 2], 9, 3)
    assert [ids.tolist() for ids, _ in found] == [row for row, _ in rows]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in rows], rtol=1e-9)


def test_groups_leave_no_parameter_out():
    model = model_of(0)
    found = [p for group in decay_groups(model, 0.1) for p in group["params"]]
    assert sorted(map(id, found)) == sorted(map(id, model.parameters()))
