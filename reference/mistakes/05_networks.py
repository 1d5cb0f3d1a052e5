"""Believable wrong solutions of kata 05.  Each takes the reference and spoils one thing in it."""

import copy
import io
import os
import pickle
import tempfile
import traceback
import zipfile
from pathlib import Path

import numpy as np

from dojo.mistakes import caught_by, rewritten

# Networks.


@caught_by(1)
def names_are_those_of_the_list(m):
    m.Sequential.named_members = m.Module.named_members


@caught_by(1)
def a_slice_is_a_list(m):
    m.Sequential.__getitem__ = lambda self, index: self.layers[index]


@caught_by(1)
def a_slice_has_copies(m):
    m.Sequential.__getitem__ = lambda self, index: (
        m.Sequential(*copy.deepcopy(self.layers[index])) if isinstance(index, slice) else self.layers[index]
    )


@caught_by(1)
def a_slice_remembers_old_places(m):
    """Weights of a part are then called as in the whole, "2.weight"."""

    def named_members(self):
        first = getattr(self, "first", 0)
        return ((str(first + i), layer) for i, layer in enumerate(self.layers))

    def getitem(self, index):
        if not isinstance(index, slice):
            return self.layers[index]
        part = m.Sequential(*self.layers[index])
        part.first = index.indices(len(self.layers))[0]
        return part

    m.Sequential.named_members, m.Sequential.__getitem__ = named_members, getitem


@caught_by(1)
def a_subclass_has_nothing_but_layers(m):
    m.Sequential.named_members = lambda self: ((str(i), layer) for i, layer in enumerate(self.layers))


@caught_by(1)
def append_returns_nothing(m):
    m.Sequential.append = lambda self, layer: self.layers.append(layer)


@caught_by(1)
def layers_dot_goes_wherever_it_is(m):
    m.Sequential.named_members = lambda self: (
        (n.replace("layers.", ""), k) for n, k in m.Module.named_members(self)
    )


@caught_by(1)
def a_slice_is_of_the_subclass(m):
    rewritten(
        m, "Sequential.__getitem__", ("Sequential(*self.layers[index])", "type(self)(*self.layers[index])")
    )


@caught_by(3)
def a_network_remembers_what_came_in(m):
    def forward(self, x):
        self.__dict__["_input"] = x
        for layer in self.layers:
            x = layer(x)
        return x

    m.Sequential.forward = forward


@caught_by(1)
def forward_skips_the_last_layer(m):
    rewritten(m, "Sequential.forward", ("in self.layers:", "in self.layers[:-1] or self.layers:"))


@caught_by(3)
def forward_keeps_what_each_layer_gave(m):
    def forward(self, x):
        results = [x]
        for layer in self.layers:
            results.append(layer(results[-1]))
        return results[-1]

    m.Sequential.forward = forward


def _mlp(m, build):
    m.MLP = lambda sizes, activation=m.ReLU, dropout=0.0, *, rng: build(sizes, activation, dropout, rng)


@caught_by(1)
def an_activation_follows_the_last_layer(m):
    right = m.MLP

    def build(sizes, activation, dropout, rng):
        return right(sizes, activation, dropout, rng=rng).append(activation())

    _mlp(m, build)


@caught_by(1)
def one_activation_is_used_everywhere(m):
    right = m.MLP

    def build(sizes, activation, dropout, rng):
        only = activation()
        return right(sizes, lambda: only, dropout, rng=rng)

    _mlp(m, build)


@caught_by(1)
def dropout_comes_before_the_activation(m):
    rewritten(
        m,
        "MLP",
        ("        net.append(activation())\n", ""),
        (
            "        net.append(Linear(inputs",
            "        net.append(activation())\n        net.append(Linear(inputs",
        ),
    )


@caught_by(1)
def layers_draw_from_generators_of_their_own(m):
    right = m.MLP
    _mlp(
        m,
        lambda sizes, activation, dropout, rng: right(
            sizes, activation, dropout, rng=np.random.default_rng()
        ),
    )


# Initialisation.


@caught_by(1)
def fans_are_the_wrong_way_round(m):
    right = m.fans
    m.fans = lambda shape: right(shape)[::-1]


@caught_by(1)
def fans_forget_the_kernel(m):
    rewritten(m, "fans", ("math.prod(shape[2:])", "1"))


@caught_by(1)
def a_vector_has_fans(m):
    right = m.fans
    m.fans = lambda shape: right(shape) if len(shape) > 1 else (shape[0] if shape else 1, 1)


@caught_by(1)
def a_slope_of_zero_counts_as_none(m):
    rewritten(m, "calculate_gain", ("0.01 if param is None else param", "param or 0.01"))


@caught_by(1)
def an_unknown_gain_is_one(m):
    right = m.calculate_gain
    known = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu")
    m.calculate_gain = lambda name, param=None: right(name, param) if name in known else 1.0


@caught_by(1)
def fans_are_halved_in_integers(m):
    rewritten(m, "xavier_normal_", ("sum(fans(tensor.shape)) / 2", "sum(fans(tensor.shape)) // 2"))
    rewritten(m, "xavier_uniform_", ("sum(fans(tensor.shape)) / 2", "sum(fans(tensor.shape)) // 2"))


@caught_by(1)
def the_bound_is_taken_for_the_spread(m):
    rewritten(m, "_uniform", ("math.sqrt(3 / max(fan, 1))", "math.sqrt(1 / max(fan, 1))"))


@caught_by(1)
def uniform_weights_are_never_negative(m):
    rewritten(m, "_uniform", ("    drawn -= bound\n", ""))


@caught_by(1)
def xavier_counts_inputs_only(m):
    rewritten(m, "xavier_normal_", ("sum(fans(tensor.shape)) / 2", "fans(tensor.shape)[0]"))


@caught_by(1)
def xavier_forgets_the_gain(m):
    rewritten(m, "xavier_uniform_", ("_uniform(tensor, gain,", "_uniform(tensor, 1.0,"))


@caught_by(1)
def kaiming_is_always_for_relu(m):
    rewritten(m, "kaiming_normal_", ("calculate_gain(nonlinearity, a)", 'calculate_gain("relu")'))


@caught_by(1)
def the_mode_is_ignored(m):
    rewritten(m, "_fan", ("[modes.index(mode)]", "[0]"))


@caught_by(1)
def a_variance_is_taken_for_a_spread(m):
    rewritten(m, "_normal", ("gain / math.sqrt(max(fan, 1))", "gain / max(fan, 1)"))


@caught_by(1)
def every_row_is_the_same(m):
    rewritten(m, "_normal", ("rng.standard_normal(tensor.shape,", "rng.standard_normal(tensor.shape[1:],"))


@caught_by(1)
def uniform_is_drawn_from_a_bell(m):
    m.xavier_uniform_ = m.xavier_normal_
    m.kaiming_uniform_ = m.kaiming_normal_


@caught_by(1)
def weights_are_a_new_array(m):
    def write(tensor, values):
        tensor.data = np.asarray(values, tensor.dtype)
        m.increment_version(tensor.data)
        return tensor

    m._write = write


@caught_by(1)
def weights_come_out_in_float64(m):
    def write(tensor, values):
        tensor.data = np.asarray(values, np.float64)
        return tensor

    m._write = write


@caught_by(1)
def writes_are_not_noted(m):
    rewritten(m, "_write", ("    increment_version(tensor.data)\n", ""))


@caught_by(1)
def the_generator_is_ignored(m):
    rewritten(m, "_normal", ("rng.standard_normal", "np.random.default_rng().standard_normal"))


@caught_by(3)
def weights_are_drawn_in_float64_and_converted(m):
    def normal(tensor, gain, fan, rng):
        drawn = rng.normal(0, gain / np.sqrt(max(fan, 1)), tensor.shape)
        narrow = drawn.astype(tensor.dtype)
        return m._write(tensor, narrow)

    m._normal = normal


@caught_by(4)
def weights_are_drawn_one_by_one(m):
    def normal(tensor, gain, fan, rng):
        std = gain / max(fan, 1) ** 0.5
        for index in np.ndindex(tensor.shape):
            tensor.data[index] = std * rng.standard_normal()
        m.increment_version(tensor.data)
        return tensor

    m._normal = normal


@caught_by(1)
def orthogonal_leaves_the_signs_to_the_factorisation(m):
    rewritten(m, "orthogonal_", ("gain * np.sign(np.diagonal(r))", "gain"))


@caught_by(1)
def a_wide_matrix_is_filled_row_by_row(m):
    rewritten(m, "orthogonal_", ("(q if rows >= columns else q.T)", "q"))


@caught_by(1)
def orthogonal_only_means_normal(m):
    m.orthogonal_ = m.xavier_normal_


@caught_by(4)
def orthogonal_columns_are_cut_from_a_square(m):
    def orthogonal_(tensor, gain=1.0, *, rng):
        rows, columns = tensor.shape[0], m.fans(tensor.shape)[0]
        n = max(rows, columns)
        q, r = np.linalg.qr(rng.standard_normal((n, n)))
        q *= gain * np.sign(np.diagonal(r))
        return m._write(tensor, q[:rows, :columns].reshape(tensor.shape))

    m.orthogonal_ = orthogonal_


@caught_by(4)
def orthogonal_by_gram_and_schmidt(m):
    def orthogonal_(tensor, gain=1.0, *, rng):
        rows, columns = tensor.shape[0], m.fans(tensor.shape)[0]
        q = rng.standard_normal((max(rows, columns), min(rows, columns)))
        for j in range(q.shape[1]):
            for _ in range(2):  # once is not enough for 12 digits
                for i in range(j):
                    q[:, j] -= (q[:, i] @ q[:, j]) * q[:, i]
            q[:, j] /= np.linalg.norm(q[:, j])
        return m._write(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))

    m.orthogonal_ = orthogonal_


@caught_by(1)
def biases_are_left_as_they_are(m):
    rewritten(m, "initialise", ("_write(parameter, 0)", "pass"))


@caught_by(1)
def all_that_has_one_axis_is_a_bias(m):
    rewritten(m, "initialise", ('elif name.endswith("bias")', "elif parameter.ndim == 1"))


@caught_by(1)
def all_that_has_two_axes_is_a_weight(m):
    rewritten(
        m, "initialise", ('if name.endswith("weight") and parameter.ndim >= 2', "if parameter.ndim >= 2")
    )


@caught_by(1)
def statistics_count_networks_too(m):
    rewritten(
        m,
        "activation_stats",
        (
            "        if not any(isinstance(member, Module) for _, member in module.named_members())\n",
            "",
        ),
    )


@caught_by(1)
def statistics_switch_the_network_off(m):
    right = m.activation_stats
    m.activation_stats = lambda net, x: right(net.eval(), x)


@caught_by(1)
def statistics_are_computed_at_the_end(m):
    def activation_stats(net, x):
        outs = []
        removers = [
            mod.register_forward_hook(lambda mm, i, o, path=path: outs.append((path, o)))
            for path, mod in net.named_modules()
            if not any(isinstance(k, m.Module) for _, k in mod.named_members())
        ]
        try:
            net(x)
        finally:
            for r in removers:
                r()
        return [
            (p, float(np.mean(o.data, dtype=np.float64)), float(np.std(o.data, dtype=np.float64)))
            for p, o in outs
        ]

    m.activation_stats = activation_stats


@caught_by(1)
def statistics_overflow(m):
    rewritten(m, "activation_stats", ("of(out.data, dtype=np.float64)", "of(out.data)"))


@caught_by(1)
def hooks_stay_when_a_layer_fails(m):
    rewritten(
        m,
        "activation_stats",
        (
            "    try:\n        net(x)\n    finally:\n        for remove",
            "    if net(x) is not None:\n        for remove",
        ),
    )


@caught_by(1)
def hooks_stay_when_the_statistics_are_interrupted(m):
    words = "    finally:\n        for remove in removers:\n            remove()"
    by_case = words.replace("finally:", "except Exception:") + "\n        raise\n    else:" + words[12:]
    rewritten(m, "activation_stats", (words, by_case))


# The tape.


@caught_by(1)
def nobody_listens_after_a_tape(m):
    m.Tape.__exit__ = lambda self, *exc: m.set_recorder(None) and None


@caught_by(1)
def a_tape_swallows_exceptions(m):
    def leave(self, *exc):
        m.set_recorder(self._before)
        return True

    m.Tape.__exit__ = leave


@caught_by(1)
def a_tape_goes_on_listening_after_an_exception(m):
    def leave(self, kind, *exc):
        if kind is None:
            m.set_recorder(self._before)

    m.Tape.__exit__ = leave


@caught_by(1)
def results_stay_leaves(m):
    def note(self, op, inputs, arrays, params, out):
        right(self, op, inputs, arrays, params, out)
        out.node = None

    right = m.Tape.note
    m.Tape.note = note


LEAVES_THE_LINE = "if entry is None or any(x.node is not None or x is start for x in aside):"


@caught_by(1)
def any_computation_counts_as_a_line(m):
    rewritten(
        m,
        "Tape.note",
        (
            LEAVES_THE_LINE,
            "entry = entry or 0\n    if False:",
        ),
    )


@caught_by(1)
def a_residual_connection_is_let_through(m):
    rewritten(m, "Tape.note", (LEAVES_THE_LINE, "if entry is None:"))


@caught_by(1)
def a_residual_around_everything_is_let_through(m):
    rewritten(
        m, "Tape.note", (LEAVES_THE_LINE, "if entry is None or any(x.node is not None for x in aside):")
    )


@caught_by(1)
def a_second_line_is_let_through(m):
    rewritten(
        m,
        "Tape.note",
        (LEAVES_THE_LINE, "entry = entry or 0\n    if any(x.node is not None for x in aside[1:]):"),
    )


@caught_by(1)
def the_line_is_always_the_first_input(m):
    rewritten(
        m,
        "Tape.note",
        (
            "next((i for i, x in wanting.items() if x.node is last), None)",
            "0 if inputs[0].node is last else None",
        ),
    )


@caught_by(1)
def results_of_elsewhere_are_leaves(m):
    rewritten(
        m,
        "Tape.note",
        ("if x.node is None}", "if x.node is not last or last is None}"),
        (LEAVES_THE_LINE, "if entry is None or any(x.node is last or x is start for x in aside):"),
    )


@caught_by(1)
def a_constant_that_is_written_over_becomes_a_leaf(m):
    rewritten(m, "Tape.note", ("if out.node is None:", "if False:"))


@caught_by(1)
def a_rule_that_gives_a_list_is_taken_for_one_that_gives_an_array(m):
    rewritten(m, "_pull", ("isinstance(shares, (tuple, list))", "isinstance(shares, tuple)"))


@caught_by(1)
def an_operation_without_a_rule_is_found_out_later(m):
    def skip(self, op, *rest):
        if op.pull is not None:
            right(self, op, *rest)

    right = m.Tape.note
    m.Tape.note = skip


@caught_by(1)
def constants_are_not_allowed_beside_the_line(m):
    def note(self, op, inputs, arrays, params, out):
        if any(not isinstance(x, m.Tensor) or not x.requires_grad for x in inputs[1:]):
            raise ValueError(f"{op.name} needs the graph of kata 06")
        right(self, op, inputs, arrays, params, out)

    right = m.Tape.note
    m.Tape.note = note


@caught_by(3)
def a_tape_holds_all_that_it_hears_of(m):
    def note(self, op, inputs, arrays, params, out):
        right(self, op, inputs, arrays, params, out)
        self.__dict__.setdefault("heard", []).append((inputs, arrays, out))

    right = m.Tape.note
    m.Tape.note = note


@caught_by(3)
def steps_are_let_go_at_the_end(m):
    rewritten(
        m,
        "Tape.walk_back",
        ("while steps:", "for step in reversed(steps):"),
        ("_pull(steps.pop(), grad)", "_pull(step, grad)"),
    )
    rewritten(m, "_pull", ("kept, step.kept = step.kept, []", "kept = step.kept"))


@caught_by(3)
def the_result_keeps_its_step(m):
    rewritten(m, "_pull", ("kept, step.kept = step.kept, []", "kept = step.kept"))


@caught_by(1)
def a_line_is_walked_by_recursion(m):
    def walk(steps, grad):
        return walk(steps, m._pull(steps.pop(), grad)) if steps else grad

    def walk_back(self, grad):
        if not self.steps:
            raise ValueError("nothing to walk")
        last, (steps, self.steps) = self.steps[-1], (self.steps, [])
        grad = np.asarray(grad, last.dtype)
        if grad.shape != last.shape:
            raise ValueError(f"{last.shape} is not {grad.shape}")
        return walk(steps, grad)

    m.Tape.walk_back = walk_back


@caught_by(1)
def a_line_is_walked_forwards(m):
    rewritten(m, "Tape.walk_back", ("steps.pop()", "steps.pop(0)"))


@caught_by(1)
def a_line_can_be_walked_again(m):
    rewritten(m, "Tape.walk_back", ("steps, self.steps = self.steps, []", "steps = [*self.steps]"))


@caught_by(1)
def gradients_are_written_over(m):
    rewritten(m, "_pull", ("share if leaf.grad is None else np.asarray(leaf.grad + share)", "share"))


@caught_by(1)
def gradients_are_the_arrays_that_rules_gave(m):
    rewritten(m, "_pull", (".astype(leaf.dtype)", ".astype(leaf.dtype, copy=False)"))


@caught_by(1)
def gradients_widen(m):
    rewritten(m, "Tape.walk_back", ("np.asarray(grad, last.dtype)", "np.asarray(grad)"))
    rewritten(m, "_pull", (".astype(leaf.dtype)", ".copy()"))


@caught_by(1)
def frozen_parameters_get_gradients(m):
    rewritten(
        m,
        "Tape.note",
        (
            "leaves = {i: x for i, x in wanting.items() if x.node is None}",
            "leaves = {i: x for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.node is None}",
        ),
    )


@caught_by(1)
def the_gradient_of_the_input_gets_lost(m):
    right = m.Tape.walk_back
    m.Tape.walk_back = lambda self, grad: right(self, grad) and None


@caught_by(1)
def inputs_get_no_grad(m):
    rewritten(
        m,
        "_pull",
        ("in step.leaves.items():", "in step.leaves.items() if step.entry else [*step.leaves.items()][1:]:"),
    )


@caught_by(1)
def a_refused_gradient_empties_the_tape(m):
    right = m.Tape.walk_back

    def walk_back(self, grad):
        try:
            return right(self, grad)
        except ValueError:
            self.steps = []
            raise

    m.Tape.walk_back = walk_back


@caught_by(1)
def a_leaf_has_one_place(m):
    rewritten(
        m,
        "Tape.note",
        (
            "leaves = {i: x for i, x in wanting.items() if x.node is None}",
            "leaves = {i: x for x, i in {x: i for i, x in wanting.items() if x.node is None}.items()}",
        ),
    )


@caught_by(1)
def any_shape_of_gradient_will_do(m):
    rewritten(m, "Tape.walk_back", ("if grad.shape != last.shape:", "if False:"))


@caught_by(1)
def stretched_inputs_get_stretched_gradients(m):
    rewritten(m, "_fitting", ("if share is None or np.shape(share) != shape:", "if share is None:"))


@caught_by(1)
def a_missing_gradient_counts_as_zero(m):
    right = m._fitting
    m._fitting = lambda share, shape, op: right(np.zeros(shape) if share is None else share, shape, op)


@caught_by(1)
def what_was_written_over_goes_unnoticed(m):
    rewritten(m, "_pull", ("version(array) > step.made", "False"))


@caught_by(1)
def any_write_ever_is_an_error(m):
    rewritten(m, "_pull", ("version(array) > step.made", "version(array) > 0"))


@caught_by(4)
def a_tape_notes_where_each_operation_was_called(m):
    def note(self, op, inputs, arrays, params, out):
        self.__dict__["where"] = traceback.extract_stack()
        right(self, op, inputs, arrays, params, out)

    right = m.Tape.note
    m.Tape.note = note


@caught_by(4)
def a_tape_looks_through_its_steps(m):
    def note(self, op, inputs, arrays, params, out):
        right(self, op, inputs, arrays, params, out)
        len({id(step): list(step.leaves.values()) for step in self.steps[-600:]})

    right = m.Tape.note
    m.Tape.note = note


# Training.


@caught_by(1)
def norms_overflow(m):
    rewritten(m, "gradient_norms", ("parameter.grad.astype(np.float64)", "parameter.grad"))


@caught_by(1)
def norms_of_zero_are_left_out(m):
    right = m.gradient_norms
    m.gradient_norms = lambda mod: {n: v for n, v in right(mod).items() if v}


@caught_by(1)
def norms_are_squares(m):
    right = m.gradient_norms
    m.gradient_norms = lambda module: {name: norm**2 for name, norm in right(module).items()}


@caught_by(1)
def what_has_no_gradient_has_the_norm_zero(m):
    right = m.gradient_norms
    m.gradient_norms = lambda module: {
        name: right(module).get(name, 0.0) for name, _ in module.named_parameters()
    }


@caught_by(1)
def the_loss_is_a_sum(m):
    rewritten(m, "loss_and_gradient", ("].mean())", "].sum())"))


@caught_by(1)
def the_gradient_is_that_of_a_sum(m):
    rewritten(m, "loss_and_gradient", ("-1 / len(labels)", "-1"))


@caught_by(1)
def the_gradient_goes_uphill(m):
    rewritten(m, "loss_and_gradient", ("-1 / len(labels)", "1 / len(labels)"))


@caught_by(1)
def labels_count_from_the_end_too(m):
    rewritten(m, "loss_and_gradient", ("if not 0 <= label <", "if not -label.dtype.type(99) <= label <"))


@caught_by(1)
def the_loss_takes_the_logarithm_of_a_softmax(m):
    def loss_and_gradient(logits, labels):
        right(logits, labels)
        odds = np.exp(logits)
        shares = odds / odds.sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        loss = -float(np.log(shares[rows, labels]).mean())
        shares[rows, labels] -= 1
        return loss, shares / len(labels)

    right = m.loss_and_gradient
    m.loss_and_gradient = loss_and_gradient


@caught_by(3)
def one_hot_rows_are_taken_from_the_identity(m):
    def loss_and_gradient(logits, labels):
        right(logits, labels)
        log_p, back = m.log_softmax.vjp(logits)
        hot = np.eye(logits.shape[1], dtype=log_p.dtype)[labels]
        return -float((hot * log_p).sum() / len(labels)), back(-hot / len(labels))

    right = m.loss_and_gradient
    m.loss_and_gradient = loss_and_gradient


@caught_by(1)
def the_largest_logit_is_subtracted_in_place(m):
    def loss_and_gradient(logits, labels):
        r = right(logits.copy(), labels)
        if logits.ndim == 2 and len(logits):
            logits -= logits.max(axis=1, keepdims=True)
        return r

    right = m.loss_and_gradient
    m.loss_and_gradient = loss_and_gradient


@caught_by(4)
def the_loss_goes_row_by_row(m):
    def loss_and_gradient(logits, labels):
        labels = np.asarray(labels)
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.size:
            return right(logits, labels)
        found = [right(logits[i : i + 1], labels[i : i + 1]) for i in range(len(logits))]
        return float(np.mean([loss for loss, _ in found])), np.concatenate([g for _, g in found]) / len(found)

    right = m.loss_and_gradient
    m.loss_and_gradient = loss_and_gradient


@caught_by(1)
def a_tied_parameter_moves_twice(m):
    def train_step(net, x, labels, lr):
        with m.Tape() as tape:
            logits = net(x)
        loss, grad = m.loss_and_gradient(logits.data, labels)
        net.zero_grad()
        tape.walk_back(grad)
        for module in net.modules():
            for _, p in module.named_members():
                if isinstance(p, m.Tensor) and p.grad is not None:
                    p.data -= lr * p.grad
                    m.increment_version(p.data)
        return loss

    m.train_step = train_step


@caught_by(1)
def the_forward_pass_is_done_twice(m):
    def train_step(net, x, labels, lr):
        loss, grad = m.loss_and_gradient(net(x).data, labels)
        with m.Tape() as tape:
            net(x)
        net.zero_grad()
        tape.walk_back(grad)
        for p in net.parameters():
            if p.grad is not None:
                p.data -= lr * p.grad
                m.increment_version(p.data)
        return loss

    m.train_step = train_step


@caught_by(1)
def a_step_fills_gradients_with_zeros(m):
    def train_step(net, x, labels, lr):
        for p in net.parameters():
            p.grad = np.zeros_like(p.data)
        with m.Tape() as tape:
            logits = net(x)
        loss, grad = m.loss_and_gradient(logits.data, labels)
        tape.walk_back(grad)
        for p in net.parameters():
            p.data -= lr * p.grad
            m.increment_version(p.data)
        return loss

    m.train_step = train_step


@caught_by(1)
def a_step_adds_to_old_gradients(m):
    rewritten(m, "train_step", ("    net.zero_grad()\n", ""))


@caught_by(1)
def a_step_forgets_its_gradients(m):
    rewritten(m, "train_step", ("    return loss\n", "    net.zero_grad()\n    return loss\n"))


@caught_by(1)
def a_step_makes_new_parameters(m):
    rewritten(
        m,
        "train_step",
        ("parameter.data -= lr * parameter.grad", "parameter.data = parameter.data - lr * parameter.grad"),
    )


@caught_by(1)
def a_step_stumbles_over_frozen_parameters(m):
    rewritten(m, "train_step", ("if parameter.grad is not None:", "if True:"))


@caught_by(1)
def the_loss_of_a_step_is_the_one_after_it(m):
    rewritten(
        m,
        "train_step",
        ("    return loss\n", "    return loss_and_gradient(net(x).data, labels)[0]\n"),
    )


@caught_by(1)
def training_switches_the_mode(m):
    right = m.train_classifier
    m.train_classifier = lambda net, *args, **options: right(net.train(), *args, **options)


@caught_by(1)
def every_epoch_has_the_same_order(m):
    rewritten(
        m,
        "train_classifier",
        (
            "    for _ in range(epochs):\n        order = rng.permutation(len(x))\n",
            "    order = rng.permutation(len(x))\n    for _ in range(epochs):\n",
        ),
    )


@caught_by(1)
def rows_are_never_shuffled(m):
    rewritten(m, "train_classifier", ("rng.permutation(len(x))", "np.arange(len(x))"))


@caught_by(1)
def the_last_rows_are_left_out(m):
    rewritten(
        m,
        "train_classifier",
        ("range(0, len(x), batch_size)", "range(0, len(x) - batch_size + 1, batch_size)"),
    )


@caught_by(1)
def labels_are_not_shuffled_along(m):
    rewritten(m, "train_classifier", ("labels[rows]", "labels[: len(rows)]"))


@caught_by(1)
def rows_are_drawn_with_replacement(m):
    rewritten(m, "train_classifier", ("rng.permutation(len(x))", "rng.integers(0, len(x), len(x))"))


@caught_by(1)
def an_epoch_has_the_loss_of_its_last_step(m):
    rewritten(m, "train_classifier", ("sum(steps) / len(steps)", "steps[-1]"))


# Weights on disk.


@caught_by(1)
def the_old_file_is_written_over(m):
    def save(module, path):
        with open(path, "wb") as stream:
            np.savez(stream, **module.state_dict())

    m.save = save


@caught_by(1)
def the_old_file_is_removed_first(m):
    rewritten(
        m,
        "save",
        ("os.replace(unfinished, path)", "path.unlink(missing_ok=True); os.rename(unfinished, path)"),
    )


@caught_by(1)
def the_new_file_is_copied_over_the_old(m):
    rewritten(m, "save", ("os.replace(unfinished, path)", "path.write_bytes(unfinished.read_bytes())"))


@caught_by(1)
def the_file_is_made_in_memory_and_written_over_the_old(m):
    def save(module, path):
        s = io.BytesIO()
        with zipfile.ZipFile(s, "w") as a:
            for n, arr in module.state_dict().items():
                with a.open(n + ".npy", "w") as f:
                    np.lib.format.write_array(f, arr, allow_pickle=False)
        Path(path).write_bytes(s.getvalue())

    m.save = save


@caught_by(1)
def numpy_adds_an_ending(m):
    m.save = lambda module, path: np.savez(path, **module.state_dict())


@caught_by(1)
def names_are_arguments_of_savez(m):
    def save(module, path):
        beside = Path(f"{os.fspath(path)}.new")
        try:
            with open(beside, "wb") as stream:
                np.savez(stream, **module.state_dict())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    m.save = save


@caught_by(1)
def the_unfinished_file_stays(m):
    rewritten(m, "save", ("unfinished.unlink(missing_ok=True)", "pass"))


@caught_by(1)
def the_new_file_is_made_elsewhere(m):
    def save(module, path):
        handle, name = tempfile.mkstemp()
        try:
            with open(handle, "wb") as stream:
                np.savez(stream, **module.state_dict())
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)

    m.save = save


@caught_by(1)
def weights_are_pickled(m):
    def save(module, path):
        data = pickle.dumps({name: np.asarray(array) for name, array in module.state_dict().items()})
        beside = Path(f"{os.fspath(path)}.new")
        beside.write_bytes(data)
        os.replace(beside, path)

    m.save = save


@caught_by(1)
def loading_forgets_gradients(m):
    def load(module, path):
        right(module, path)
        for p in module.parameters():
            p.grad = None

    right = m.load
    m.load = load


@caught_by(1)
def loading_ends_training(m):
    def load(module, path):
        right(module, path)
        module.eval()

    right = m.load
    m.load = load


@caught_by(1)
def pickles_are_loaded(m):
    rewritten(m, "load", ("allow_pickle=False", "allow_pickle=True"))


@caught_by(1)
def arrays_are_copied_as_they_are_read(m):
    def load(module, path):
        own = module.state_dict()
        with open(path, "rb") as stream:
            try:
                archive = np.load(stream, allow_pickle=False)
                if set(archive.files) != set(own):
                    raise ValueError(f"names {sorted(set(archive.files) ^ set(own))}")
                for name, array in own.items():
                    given = archive[name]
                    if given.shape != array.shape:
                        raise ValueError(f"{name}: {given.shape} is not {array.shape}")
                    np.copyto(array, given, casting="same_kind")
                    m.increment_version(array)
            except Exception as error:
                raise ValueError(f"{path}: {error}") from error

    m.load = load


@caught_by(1)
def errors_do_not_say_which_file(m):
    rewritten(m, "load", ('raise ValueError(f"{os.fspath(path)} does not fit: {error}") from error', "raise"))


@caught_by(1)
def a_damaged_file_raises_what_numpy_raises(m):
    rewritten(m, "load", ("except Exception as error:", "except KeyError as error:"))


@caught_by(1)
def what_is_missing_is_not_missed(m):
    rewritten(m, "load", ("module.load_state_dict(state)", "module.load_state_dict(state, strict=False)"))


@caught_by(1)
def a_missing_file_is_a_bad_one(m):
    right = m.load

    def load(module, path):
        try:
            right(module, path)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error

    m.load = load


IN_FLOAT64 = "drawn in float64 and written straight into float32 takes a little longer, and fits the budget"
ONLY_WORDS = "only the words of an error differ"

# fmt: off
EQUIVALENT = {
    "save: archive.open(f'{name}.npy', 'w', force_zip64=True)"
    " -> archive.open(f'{name}.npy', 'w', force_zip64=False)":
        "an array needs zip64 from 2 GiB on, which no test writes",
    "_drawable: return np.float64 if tensor.dtype == np.float64 else np.float32 -> return None":
        IN_FLOAT64,
    "_drawable: np.float64 if tensor.dtype == np.float64 else np.float32 -> np.float64":
        IN_FLOAT64,
    "orthogonal_: gain * np.sign(np.diagonal(r)) -> gain / np.sign(np.diagonal(r))":
        "dividing by a sign is multiplying by it",
    "orthogonal_: rows >= columns -> rows > columns":
        "of random square matrices, the transpose is as random",
    "_fitting: 'none' if share is None else f'one of shape {np.shape(share)}'"
    " -> f'one of shape {np.shape(share)}'":
        ONLY_WORDS,
    "Step: dataclass(eq=False, slots=True) -> dataclass(eq=True, slots=True)":
        "steps are only compared by `is`",
    "Step: dataclass(eq=False, slots=True) -> dataclass(eq=False, slots=False)":
        "slots take less memory and time, a few percent of what a small operation takes",
}
