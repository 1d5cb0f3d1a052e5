import numpy as np
import pytest

from dojo.measuring import GradientError, check_formula
from tests.measuring.seeded import Op, affine, layer_norm, matmul, relu, softmax, spoiled, square, tanh


def softmax_formula(x, *, axis=-1):
    weights = np.exp(x - np.max(x.real, axis=axis, keepdims=True))
    return weights / np.sum(weights, axis=axis, keepdims=True)


def layer_norm_formula(x, weight, bias):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * weight + bias


FORMULAS = {
    "softmax": (softmax, softmax_formula, [(3, 4)]),
    "tanh": (tanh, np.tanh, [(3, 4)]),
    "a scalar": (tanh, np.tanh, [()]),
    "nothing at all": (tanh, np.tanh, [(0, 3)]),
    "many": (square, lambda x: x * x, [(40, 30)]),
    "relu": (relu, lambda x: np.where(x.real > 0, x, 0), [(4, 5)]),
    "matmul": (matmul, np.matmul, [(2, 3, 4), (2, 4, 2)]),
    "affine": (affine, lambda x, weight, bias: x @ weight + bias, [(4, 3), (3, 5), (5,)]),
    "layer norm": (layer_norm, layer_norm_formula, [(3, 6), (6,), (6,)]),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_right_op_agrees_with_its_formula(name, dtype):
    forward, formula, shapes = FORMULAS[name]
    for seed in range(20):
        draw = np.random.default_rng(seed)
        check_formula(Op(forward), formula, *[np.asarray(draw.normal(size=s)).astype(dtype) for s in shapes])


@pytest.mark.parametrize(("dtype", "off"), [(np.float64, 1e-8), (np.float32, 1e-3)])
def test_a_gradient_that_is_hardly_wrong_is_wrong(rng, dtype, off):
    wrong = Op(spoiled(tanh, lambda back, g, out, inputs: back(g) * dtype(1 + off)))
    with pytest.raises(GradientError, match="tanh: gradient for `x`, worst at"):
        check_formula(wrong, np.tanh, rng.normal(size=(3, 4)).astype(dtype))


def test_a_wrong_output_is_named(rng):
    x = rng.normal(size=(3, 4))
    with pytest.raises(GradientError, match=r"tanh: the output at \(\d, \d\) is .*, and by the formula"):
        check_formula(Op(tanh), np.sinh, x)
    with pytest.raises(GradientError, match=r"the output has shape \(3, 4\), and by the formula \(3,\)"):
        check_formula(Op(tanh), lambda x: x[:, 0], x)


def test_a_gradient_in_another_dtype_is_named(rng):
    wrong = Op(spoiled(tanh, lambda back, g, out, inputs: back(g).astype(np.float64)))
    with pytest.raises(GradientError, match="the gradient for `x` is float64, and `x` is float32"):
        check_formula(wrong, np.tanh, rng.normal(size=3).astype(np.float32))


@pytest.mark.parametrize(
    "formula", [np.abs, lambda x: np.sqrt(x.real**2), lambda x: np.conj(x) * np.sign(x.real)]
)
def test_a_formula_that_is_not_analytic_is_the_authors_mistake(rng, formula):
    def absolute(x):
        return np.abs(x), lambda g: g * np.sign(x)

    with pytest.raises(ValueError, match="not analytic"):
        check_formula(Op(absolute), formula, rng.normal(size=6))


def test_parameters_reach_the_formula(rng):
    check_formula(Op(softmax), softmax_formula, rng.normal(size=(3, 4)), axis=0)
