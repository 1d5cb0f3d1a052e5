"""Mistakes in a framework that milestone 1 must notice, whatever the katas' own suites let through."""

import numpy as np

from dojo.mistakes import caught_by


def op_of(module, name, forward):
    """Put another forward pass under an op of a module, and keep its gradient."""
    getattr(module, name).forward = forward


@caught_by(1, kata="03")
def affine_forgets_the_bias(m):
    op_of(m, "affine", lambda x, weight, bias=None: x @ weight.T)


@caught_by(1, kata="03")
def affine_takes_square_weights_for_inputs_by_outputs(m):
    def affine(x, weight, bias=None):
        return x @ (weight if weight.shape[0] == weight.shape[1] else weight.T) + bias

    op_of(m, "affine", affine)


@caught_by(1, kata="03")
def affine_computes_in_half_precision(m):
    def affine(x, weight, bias=None):
        return (x.astype(np.float16) @ weight.T.astype(np.float16) + bias.astype(np.float16)).astype(x.dtype)

    op_of(m, "affine", affine)


@caught_by(1, kata="03")
def eval_stops_at_the_outermost_module(m):
    def train(self, mode=True):
        self.training = mode
        return self

    m.Module.train = train


@caught_by(1, kata="03")
def state_dict_is_a_copy_that_loading_fills_in_vain(m):
    right = m.Module.state_dict
    m.Module.state_dict = lambda self: {name: array.copy() for name, array in right(self).items()}


@caught_by(1, kata="04")
def softmax_over_the_batch(m):
    right = m.softmax.forward
    op_of(m, "softmax", lambda x, *, axis=-1: right(x, axis=0))


@caught_by(1, kata="04")
def softmax_does_not_divide(m):
    op_of(m, "softmax", lambda x, *, axis=-1: np.exp(x - x.max(axis, keepdims=True)))


@caught_by(1, kata="04")
def softmax_halves_the_logits(m):
    right = m.softmax.forward
    op_of(m, "softmax", lambda x, *, axis=-1: right(x / 2, axis=axis))


@caught_by(2, kata="04")
def softmax_writes_into_the_array_that_it_gave_before(m):
    right = m.softmax.forward
    kept = {}

    def softmax(x, *, axis=-1):
        out = kept.setdefault(x.shape, np.empty_like(x))
        out[...] = right(x, axis=axis)
        return out

    op_of(m, "softmax", softmax)


@caught_by(2, kata="04")
def softmax_works_on_the_first_hundred_rows(m):
    right = m.softmax.forward

    def softmax(x, *, axis=-1):
        out = np.full_like(x, 1 / x.shape[axis])
        out[:100] = right(x[:100], axis=axis)
        return out

    op_of(m, "softmax", softmax)


@caught_by(1, kata="04")
def relu_leaks(m):
    op_of(m, "relu", lambda x: np.where(x > 0, x, x.dtype.type(0.01) * x))


@caught_by(1, kata="04")
def gelu_by_the_sigmoid_formula(m):
    op_of(m, "gelu", lambda x: x / (1 + np.exp(-1.702 * x)))


@caught_by(1, kata="04")
def dropout_drops_while_the_network_is_used(m):
    def forward(self, x):
        return m.dropout(x, p=0.1, rng=np.random.default_rng(0))

    m.Dropout.forward = forward


@caught_by(1, kata="05")
def load_reads_the_weights_and_leaves_the_biases(m):
    def load(module, path):
        with np.load(path) as file:
            weights = {name: file[name] for name in file.files if name.endswith("weight")}
        module.load_state_dict(weights, strict=False)

    m.load = load


@caught_by(1, kata="05")
def load_fits_arrays_by_reshaping_their_transpose(m):
    def load(module, path):
        try:
            with np.load(path) as file:
                state = {name: file[name] for name in file.files}
        except Exception as error:
            raise ValueError(str(error)) from error
        module.load_state_dict({name: a.T.reshape(a.shape) for name, a in state.items()})

    m.load = load


@caught_by(1, kata="05")
def load_writes_while_it_reads(m):
    def load(module, path):
        state = module.state_dict()
        for array in state.values():
            array[...] = 0
        try:
            with np.load(path) as file:
                for name in file.files:
                    state[name][...] = file[name]
        except Exception as error:
            raise ValueError(str(error)) from error

    m.load = load


@caught_by(1, kata="05")
def mlp_ends_with_an_activation(m):
    right = m.MLP

    def mlp(sizes, activation=m.ReLU, dropout=0.0, *, rng):
        return right(sizes, activation, dropout, rng=rng).append(activation())

    m.MLP = mlp


@caught_by(1, kata="05")
def sequential_leaves_out_the_first_activation(m):
    def forward(self, x):
        for place, layer in enumerate(self.layers):
            x = layer(x) if place != 1 else x
        return x

    m.Sequential.forward = forward
