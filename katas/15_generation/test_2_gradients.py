"""Level 2: the one thing here that has a gradient."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from dojo.measuring import check_gradient, load_probes
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.generation import language_model_loss
from tinytorch.tensor import Tensor

probes = load_probes(__file__)
steady = settings(deadline=None, derandomize=True, max_examples=20)


# 15.15 language_model_loss


@steady
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(1, 5))
def test_the_gradient_of_the_loss(seed, shape, vocab):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, vocab, shape)
    check_gradient(lambda logits: language_model_loss(logits, targets), rng.normal(size=(*shape, vocab)))


@pytest.mark.parametrize("shape", [(1, 4), (3, 4)], ids=str)
def test_a_logit_goes_down_by_its_share_and_the_right_one_up(shape, rng):
    """Softmax less 1 at the target, and a share of all tokens."""
    logits = Tensor(np.zeros((*shape, 5), np.float32), requires_grad=True)
    targets = rng.integers(0, 5, shape)
    language_model_loss(logits, targets).backward()
    wanted = (0.2 - np.eye(5, dtype=np.float32)[targets]) / np.float32(np.prod(shape))
    expect(logits.grad, wanted.astype(np.float32))


def test_every_parameter_of_a_model_hears_of_it(rng):
    model = probes.small_gpt(rng)
    ids = rng.integers(0, 11, (2, 9))
    language_model_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert np.abs(p.grad).max() > 0, name
