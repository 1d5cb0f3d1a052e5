"""Believable wrong solutions of kata 18.  Each takes the reference and spoils one thing in it."""

import copy
import itertools
import json
import math
import os
import pickle
import tempfile
import zlib
from pathlib import Path

import numpy as np

from dojo.mistakes import caught_by, rewritten


def rule(op):
    """Attach `op`'s next rule in place of the one it has."""
    return op.gradient


# 18.1 magnitude_mask


def _mask(m, stays):
    """magnitude_mask by `stays(sizes, sparsity, count)`, bools of flat magnitudes."""

    def magnitude_mask(weight, sparsity):
        m.check_share("sparsity", sparsity)
        weight = m.as_array(weight)
        sizes = np.abs(m.floating(weight)).reshape(-1)
        return np.asarray(stays(sizes, sparsity, round(sparsity * sizes.size)), bool).reshape(weight.shape)

    m.magnitude_mask = magnitude_mask


def _ranked(sizes, order, count):
    mask = np.ones(len(sizes), bool)
    mask[order[:count]] = False
    return mask


@caught_by(1)
def a_threshold_takes_all_equals(m):
    _mask(m, lambda s, _, n: s > np.sort(s)[n - 1] if n else np.ones(len(s)))


@caught_by(1)
def a_threshold_spares_all_equals(m):
    _mask(m, lambda s, _, n: s >= np.append(np.sort(s), np.inf)[n])


@caught_by(1)
def equals_go_as_a_sort_leaves_them(m):
    _mask(m, lambda s, _, n: _ranked(s, np.argsort(s, kind="quicksort"), n))


@caught_by(1)
def equals_go_as_a_partition_leaves_them(m):
    _mask(m, lambda s, _, n: _ranked(s, np.argpartition(s, n - 1) if n else [], n))


@caught_by(1)
def of_equals_the_last_go_first(m):
    _mask(m, lambda s, _, n: _ranked(s, np.lexsort((-np.arange(len(s)), s)), n))


@caught_by(1)
def the_largest_go(m):
    _mask(m, lambda s, _, n: _ranked(s, np.argsort(-s, kind="stable"), n))


@caught_by(1)
def a_mask_says_what_goes(m):
    right = m.magnitude_mask
    m.magnitude_mask = lambda weight, sparsity: ~right(weight, sparsity)


@caught_by(1)
def the_count_is_cut_off(m):
    _mask(m, lambda s, share, _: _ranked(s, np.argsort(s, kind="stable"), int(share * len(s))))


@caught_by(1)
def the_count_is_rounded_up(m):
    _mask(m, lambda s, share, _: _ranked(s, np.argsort(s, kind="stable"), math.ceil(share * len(s))))


@caught_by(1)
def halves_are_rounded_up(m):
    _mask(m, lambda s, share, _: _ranked(s, np.argsort(s, kind="stable"), math.floor(share * len(s) + 0.5)))


@caught_by(1)
def numbers_are_ranked_and_not_magnitudes(m):
    right = m.magnitude_mask
    m.magnitude_mask = lambda weight, sparsity: right(
        m.as_array(weight).astype(float) - np.min(m.as_array(weight), initial=0), sparsity
    )


@caught_by(1)
def magnitudes_of_bytes_are_bytes(m):
    right = m.magnitude_mask

    def magnitude_mask(weight, sparsity):
        weight = m.as_array(weight)
        if weight.dtype.kind not in "iu":
            return right(weight, sparsity)
        order = np.argsort(np.abs(weight), axis=None, kind="stable")
        return _ranked(weight.reshape(-1), order, round(sparsity * weight.size)).reshape(weight.shape)

    m.magnitude_mask = magnitude_mask


@caught_by(1)
def columns_are_read_where_memory_has_them(m):
    right = m.magnitude_mask

    def magnitude_mask(weight, sparsity):
        weight = m.as_array(weight)
        return right(weight.ravel(order="K"), sparsity).reshape(weight.shape)

    m.magnitude_mask = magnitude_mask


@caught_by(1)
def any_share_will_do(m):
    def check_share(name, value):
        if value < 0 or value > 1:  # nan is neither
            raise ValueError(f"{name} is from 0 to 1, and not {value}")

    m.check_share = check_share


@caught_by(1)
def a_share_is_clipped(m):
    m.check_share = lambda name, value: None
    right = m.magnitude_mask
    m.magnitude_mask = lambda weight, sparsity: right(
        weight, min(max(sparsity, 0), 1) if sparsity == sparsity else 0
    )


@caught_by(1)
def magnitudes_are_float32(m):
    rewritten(
        m, "magnitude_mask", ("np.abs(floating(weight))", "np.abs(floating(weight)).astype(np.float32)")
    )


# 18.2 prune_global


@caught_by(1)
def each_layer_is_pruned_alone(m):
    def prune_global(model, sparsity):
        masks = {name: m.magnitude_mask(p, sparsity) for name, p in m.weights_of(model)}
        m.check_share("sparsity", sparsity)
        m.apply_masks(model, masks)
        return masks

    m.prune_global = prune_global


@caught_by(1)
def biases_are_pruned_too(m):
    m.weights_of = lambda model: [
        (n, p) for n, p in model.named_parameters() if n.endswith(("weight", "bias"))
    ]


@caught_by(1)
def masks_are_made_and_not_applied(m):
    right = m.prune_global

    def prune_global(model, sparsity):
        before = [(p, p.data.copy()) for _, p in m.weights_of(model)]
        masks = right(model, sparsity)
        for p, data in before:
            p.data[...] = data
        return masks

    m.prune_global = prune_global


@caught_by(1)
def weights_get_new_arrays(m):
    right = m.prune_global

    def prune_global(model, sparsity):
        masks = right(model, sparsity)
        for _, p in m.weights_of(model):
            p.data = p.data.copy()
        return masks

    m.prune_global = prune_global


@caught_by(1)
def weights_are_multiplied_by_their_masks(m):
    def apply_masks(model, masks):
        with np.errstate(invalid="ignore"):
            for name, p in m.weights_of(model):
                p.data *= masks[name]
                m.increment_version(p.data)

    m.apply_masks = apply_masks


@caught_by(1)
def writes_are_not_noted(m):
    m.increment_version = lambda array: 0


@caught_by(1)
def layers_are_ranked_from_the_last(m):
    right = m.weights_of
    m.weights_of = lambda model: right(model)[::-1]


@caught_by(1)
def a_model_without_weights_is_an_error(m):
    right = m.prune_global

    def prune_global(model, sparsity):
        np.concatenate([p.data.reshape(-1) for _, p in m.weights_of(model)])
        return right(model, sparsity)

    m.prune_global = prune_global


@caught_by(1)
def weights_are_zeroed_before_the_share_is_looked_at(m):
    right = m.prune_global

    def prune_global(model, sparsity):
        if sparsity > 1:
            for _, p in m.weights_of(model):
                p.data[...] = 0
        return right(model, sparsity)

    m.prune_global = prune_global


@caught_by(1)
def weights_are_written_in_one_row(m):
    def apply_masks(model, masks):
        for name, p in m.weights_of(model):
            p.data.reshape(-1)[~masks[name].reshape(-1)] = 0  # which may be a copy
            m.increment_version(p.data)

    m.apply_masks = apply_masks


@caught_by(1)
def frozen_weights_are_spared(m):
    right = m.weights_of
    m.weights_of = lambda model: [(name, p) for name, p in right(model) if p.requires_grad]


# 18.3 gradual_sparsity, Pruner


def _schedule(m, shape):
    right = m.gradual_sparsity

    def gradual_sparsity(step, begin, end, final, initial=0.0):
        right(step, begin, end, final, initial)
        if step >= end:
            return final
        if step <= begin:
            return initial
        return final + (initial - final) * shape((step - begin) / (end - begin))

    m.gradual_sparsity = gradual_sparsity


@caught_by(1)
def sparsity_rises_in_a_line(m):
    _schedule(m, lambda done: 1 - done)


@caught_by(1)
def sparsity_rises_slowly_and_then_quickly(m):
    _schedule(m, lambda done: 1 - done**3)


@caught_by(1)
def the_cube_is_a_square(m):
    _schedule(m, lambda done: (1 - done) ** 2)


@caught_by(1)
def a_schedule_forgets_where_it_began(m):
    right = m.gradual_sparsity
    m.gradual_sparsity = lambda step, begin, end, final, initial=0.0: right(
        step, 0, max(end, 0), final, initial
    )


@caught_by(1)
def a_schedule_goes_on_beyond_its_end(m):
    right = m.gradual_sparsity

    def gradual_sparsity(step, begin, end, final, initial=0.0):
        value = right(step, begin, end, final, initial)
        if end > begin and step > end:
            return final + (initial - final) * (1 - (step - begin) / (end - begin)) ** 3
        return value

    m.gradual_sparsity = gradual_sparsity


@caught_by(1)
def nothing_is_pruned_before_it_begins(m):
    right = m.gradual_sparsity
    m.gradual_sparsity = lambda step, begin, end, final, initial=0.0: (
        0.0
        if step < begin and right(step, begin, end, final, initial) >= 0
        else right(step, begin, end, final, initial)
    )


@caught_by(1)
def a_schedule_at_one_step_divides_by_nothing(m):
    right = m.gradual_sparsity

    def gradual_sparsity(step, begin, end, final, initial=0.0):
        _ = (step - begin) / (end - begin)
        return right(step, begin, end, final, initial)

    m.gradual_sparsity = gradual_sparsity


@caught_by(1)
def gradients_are_masked_and_weights_are_not(m):
    def on_batch_end(self, trainer):
        for name, p in m.weights_of(self.model):
            if p.grad is not None:
                p.grad[~self.masks[name]] = 0
        if trainer.step % self.every == 0:
            self.masks = {n: k & self.masks[n] for n, k in m.prune_global(self.model, self.sparsity).items()}

    m.Pruner.on_batch_end = on_batch_end


@caught_by(1)
def between_two_prunings_weights_come_back(m):
    def on_batch_end(self, trainer):
        if trainer.step % self.every == 0:
            self.prune(trainer.step)

    m.Pruner.on_batch_end = on_batch_end


@caught_by(1)
def a_pruner_prunes_after_every_step(m):
    def on_batch_end(self, trainer):
        m.apply_masks(self.model, self.masks)
        self.prune(trainer.step)

    m.Pruner.on_batch_end = on_batch_end


@caught_by(1)
def a_pruner_counts_its_own_steps(m):
    def on_batch_end(self, trainer):
        self.count = getattr(self, "count", 0) + 1
        m.apply_masks(self.model, self.masks)
        if trainer.step % self.every == 0:
            self.prune(self.count - 1)

    m.Pruner.on_batch_end = on_batch_end


@caught_by(1)
def what_was_pruned_may_come_back(m):
    def prune(self, step):
        sparsity = self.schedule(step) if callable(self.schedule) else self.schedule
        self.masks = m.prune_global(self.model, sparsity)

    m.Pruner.prune = prune


@caught_by(1)
def masks_that_were_loaded_are_changed(m):
    rewritten(
        m,
        "Pruner.prune",
        (
            "self.masks = {name: mask & self.masks.get(name, mask) for name, mask in masks.items()}",
            "[np.logical_and(own, masks[name], out=own) for name, own in self.masks.items()]\n"
            "    self.masks = self.masks or masks",
        ),
    )


@caught_by(1)
def masks_are_drawn_once(m):
    right = m.Pruner.prune

    def prune(self, step):
        if not self.masks:
            right(self, step)

    m.Pruner.prune = prune


@caught_by(1)
def ranking_comes_before_the_masks(m):
    def on_batch_end(self, trainer):
        if trainer.step % self.every == 0:
            self.prune(trainer.step)
        m.apply_masks(self.model, self.masks)

    m.Pruner.on_batch_end = on_batch_end


@caught_by(1)
def a_fit_begins_with_new_masks(m):
    m.Pruner.on_fit_begin = lambda self, trainer: self.prune(trainer.step)


@caught_by(1)
def a_fit_that_begins_with_masks_does_not_apply_them(m):
    right = m.Pruner.on_fit_begin
    m.Pruner.on_fit_begin = lambda self, trainer: None if self.masks else right(self, trainer)


@caught_by(1)
def a_fit_begins_at_step_0(m):
    m.Pruner.on_fit_begin = lambda self, trainer: (
        m.apply_masks(self.model, self.masks) if self.masks else self.prune(0)
    )


@caught_by(1)
def a_checkpoint_has_no_masks(m):
    m.Pruner.state_dict = lambda self: {}
    m.Pruner.load_state_dict = lambda self, saved: None


@caught_by(1)
def every_may_be_nothing(m):
    def __init__(self, model, schedule, every=1):
        self.model, self.schedule, self.every, self.masks = model, schedule, max(every, 1), {}

    m.Pruner.__init__ = __init__


@caught_by(1)
def a_schedule_must_rise(m):
    rewritten(m, "gradual_sparsity", ("if end < begin:", "if end < begin or final < initial:"))


@caught_by(1)
def a_whole_number_is_no_sparsity(m):
    rewritten(
        m,
        "Pruner.prune",
        (
            "self.schedule(step) if callable(self.schedule) else self.schedule",
            "self.schedule if isinstance(self.schedule, float) else self.schedule(step)",
        ),
    )


@caught_by(1)
def masks_that_hide_nothing_are_drawn_anew(m):
    rewritten(m, "Pruner.on_fit_begin", ("if self.masks:", "if self.sparsity:"))


# 18.4 sparse_bytes


def _bytes(m, change):
    right = m.sparse_bytes

    def sparse_bytes(mask, itemsize=4):
        mask = m.as_array(mask)
        sizes = right(mask, itemsize)
        return {**sizes, **change(mask, itemsize, int(np.count_nonzero(mask)))}

    m.sparse_bytes = sparse_bytes


@caught_by(1)
def bits_are_whole_bytes(m):
    _bytes(m, lambda mask, itemsize, kept: {"bitmap": mask.size + kept * itemsize})


@caught_by(1)
def bits_are_cut_off(m):
    _bytes(m, lambda mask, itemsize, kept: {"bitmap": mask.size // 8 + kept * itemsize})


@caught_by(1)
def zeros_are_what_a_bitmap_stores(m):
    _bytes(m, lambda mask, itemsize, kept: {"bitmap": -(-mask.size // 8) + (mask.size - kept) * itemsize})


@caught_by(1)
def rows_have_beginnings_and_no_end(m):
    _bytes(
        m,
        lambda mask, itemsize, kept: {"csr": kept * (itemsize + 4) + 4 * (len(mask) if mask.ndim > 1 else 1)},
    )


@caught_by(1)
def columns_take_as_much_as_numbers(m):
    def change(mask, itemsize, kept):
        return {"csr": kept * 2 * itemsize + 4 * ((len(mask) if mask.ndim > 1 else 1) + 1)}

    _bytes(m, change)


@caught_by(1)
def a_vector_has_as_many_rows_as_numbers(m):
    _bytes(
        m,
        lambda mask, itemsize, kept: {
            "csr": kept * (itemsize + 4) + 4 * ((len(mask) if mask.ndim else 1) + 1)
        },
    )


@caught_by(1)
def all_axes_but_the_last_are_rows(m):
    def change(mask, itemsize, kept):
        return {"csr": kept * (itemsize + 4) + 4 * (math.prod(mask.shape[:-1]) + 1)}

    _bytes(m, change)


@caught_by(1)
def numbers_are_added_up_and_not_counted(m):
    _bytes(m, lambda mask, itemsize, kept: {"bitmap": -(-mask.size // 8) + int(mask.sum()) * itemsize})


@caught_by(1)
def counts_are_numpy_s(m):
    _bytes(m, lambda mask, itemsize, kept: {"bitmap": np.int64(-(-mask.size // 8) + kept * itemsize)})


# 18.5 prune_neurons, shrink_mlp


def _neurons(m, strength):
    def prune_neurons(first, second, keep):
        rows, columns = first.weight.data, second.weight.data
        if len(rows) != columns.shape[1]:
            raise ValueError(f"weights of shape {rows.shape} do not feed weights of shape {columns.shape}")
        kept = m.strongest(strength(rows, columns), keep)
        bias = None if first.bias is None else first.bias.data[kept]
        return m.remade(first, weight=rows[kept], bias=bias), m.remade(second, weight=columns[:, kept])

    m.prune_neurons = prune_neurons


@caught_by(1)
def a_neuron_is_as_strong_as_what_it_reads(m):
    _neurons(m, lambda rows, columns: np.linalg.norm(rows, axis=1))


@caught_by(1)
def a_neuron_is_as_strong_as_what_reads_it(m):
    _neurons(m, lambda rows, columns: np.linalg.norm(columns, axis=0))


@caught_by(1)
def lengths_are_added(m):
    _neurons(m, lambda rows, columns: np.linalg.norm(rows, axis=1) + np.linalg.norm(columns, axis=0))


@caught_by(1)
def lengths_are_sums_of_magnitudes(m):
    _neurons(m, lambda rows, columns: abs(rows).sum(axis=1) * abs(columns).sum(axis=0))


@caught_by(1)
def neurons_come_in_the_order_of_their_strength(m):
    def strongest(scores, keep):
        if not 1 <= keep <= len(scores):
            raise ValueError(f"of {len(scores)}, not {keep}")
        return np.argsort(-scores, kind="stable")[:keep]

    m.strongest = strongest


@caught_by(1)
def the_weakest_neurons_stay(m):
    right = m.strongest
    m.strongest = lambda scores, keep: right(scores.max() - scores, keep)


@caught_by(1)
def biases_stay_where_they_are(m):
    right = m.prune_neurons

    def prune_neurons(first, second, keep):
        one, two = right(first, second, keep)
        if one.bias is not None:
            one.bias = m.Parameter(first.bias.data[:keep].copy())
        return one, two

    m.prune_neurons = prune_neurons


@caught_by(1)
def the_bias_of_what_reads_is_shared(m):
    right = m.prune_neurons

    def prune_neurons(first, second, keep):
        one, two = right(first, second, keep)
        two.bias = second.bias
        return one, two

    m.prune_neurons = prune_neurons


@caught_by(1)
def neurons_are_set_to_0(m):
    def prune_neurons(first, second, keep):
        if len(first.weight) != second.weight.shape[1]:
            raise ValueError(f"{first.weight.shape} {second.weight.shape}")
        strength = np.linalg.norm(first.weight.data, axis=1) * np.linalg.norm(second.weight.data, axis=0)
        kept = m.strongest(strength, keep)
        one, two = copy.deepcopy(first), copy.deepcopy(second)
        two.weight.data[:, np.setdiff1d(np.arange(len(strength)), kept)] = 0
        return one, two

    m.prune_neurons = prune_neurons


@caught_by(1)
def what_reads_thaws(m):
    right = m.prune_neurons

    def prune_neurons(first, second, keep):
        one, two = right(first, second, keep)
        for p in two.parameters():
            p.requires_grad = True
        return one, two

    m.prune_neurons = prune_neurons


@caught_by(1)
def the_layers_given_are_changed(m):
    right = m.prune_neurons

    def prune_neurons(first, second, keep):
        one, two = right(first, second, keep)
        first.weight, second.weight = one.weight, two.weight
        return one, two

    m.prune_neurons = prune_neurons


@caught_by(1)
def layers_that_do_not_fit_are_cut(m):
    right = m.prune_neurons

    def prune_neurons(first, second, keep):
        least = min(len(first.weight), second.weight.shape[1])
        bias = None if first.bias is None else first.bias.data[:least]
        one = m.remade(first, weight=first.weight.data[:least], bias=bias)
        return right(one, m.remade(second, weight=second.weight.data[:, :least]), keep)

    m.prune_neurons = prune_neurons


def _shrunk(m, keep_of=lambda fraction, n: max(1, round(fraction * n)), progressive=True, checked=True):
    def shrink_mlp(model, keep_fraction):
        m.check_share("keep_fraction", keep_fraction)
        layers = [copy.deepcopy(layer) for layer in model]
        originals = list(layers)
        places = [i for i, layer in enumerate(layers) if isinstance(layer, m.Linear)]
        pairs = list(itertools.pairwise(places))
        for i, j in pairs:
            for between in layers[i + 1 : j]:
                if checked and between.state_dict():
                    raise TypeError(type(between).__name__)
            keep = keep_of(keep_fraction, len(layers[i].weight))
            if progressive:
                layers[i], layers[j] = m.prune_neurons(layers[i], layers[j], keep)
            else:
                rows, columns = originals[i].weight.data, originals[j].weight.data
                strength = np.linalg.norm(rows, axis=1) * np.linalg.norm(columns, axis=0)
                kept = m.strongest(strength, keep)
                layers[i] = m.remade(
                    layers[i], weight=layers[i].weight.data[kept], bias=layers[i].bias.data[kept]
                )
                layers[j] = m.remade(layers[j], weight=layers[j].weight.data[:, kept])
        made = m.Sequential(*layers)
        made.training = model.training
        return made

    m.shrink_mlp = shrink_mlp


@caught_by(1)
def fractions_of_neurons_are_cut_off(m):
    _shrunk(m, lambda fraction, n: max(1, int(fraction * n)))


@caught_by(1)
def a_layer_may_lose_all_neurons(m):
    _shrunk(m, lambda fraction, n: round(fraction * n))


@caught_by(1)
def what_neurons_read_from_those_that_go_counts(m):
    _shrunk(m, progressive=False)


@caught_by(1)
def norms_may_stand_between(m):
    _shrunk(m, checked=False)


@caught_by(1)
def the_last_layer_is_pruned_too(m):
    right = m.shrink_mlp

    def shrink_mlp(model, keep_fraction):
        small = right(model, keep_fraction)
        last = [layer for layer in small if isinstance(layer, m.Linear)][-1]
        keep = max(1, round(keep_fraction * len(last.weight)))
        last.weight.data = last.weight.data[:keep]
        return small

    m.shrink_mlp = shrink_mlp


@caught_by(1)
def what_stands_between_is_shared(m):
    right = m.shrink_mlp

    def shrink_mlp(model, keep_fraction):
        small = right(model, keep_fraction)
        for i, layer in enumerate(model):
            if not isinstance(layer, m.Linear):
                small.layers[i] = layer
        return small

    m.shrink_mlp = shrink_mlp


@caught_by(1)
def one_layer_alone_is_not_copied(m):
    right = m.shrink_mlp
    m.shrink_mlp = lambda model, keep: right(model, keep) if len(list(model)) > 1 else model


@caught_by(1)
def the_model_itself_shrinks(m):
    right = m.shrink_mlp

    def shrink_mlp(model, keep_fraction):
        model.layers = list(right(model, keep_fraction))
        return model

    m.shrink_mlp = shrink_mlp


@caught_by(1)
def both_layers_have_a_bias_or_none_has(m):
    right = m.prune_neurons

    def prune_neurons(first, second, keep):
        one, two = right(first, second, keep)
        if one.bias is None:
            two.bias = None
        return one, two

    m.prune_neurons = prune_neurons


@caught_by(1)
def smaller_layers_are_in_training(m):
    right = m.prune_neurons

    def prune_neurons(first, second, keep):
        one, two = right(first, second, keep)
        one.training = two.training = True
        return one, two

    m.prune_neurons = prune_neurons


@caught_by(1)
def a_smaller_model_is_put_together_anew(m):
    right = m.shrink_mlp
    m.shrink_mlp = lambda model, keep_fraction: m.Sequential(*right(model, keep_fraction))


@caught_by(1)
def a_share_is_looked_at_where_neurons_go(m):
    rewritten(
        m,
        "shrink_mlp",
        ('    check_share("keep_fraction", keep_fraction)\n', ""),
        ("        keep = max", '        check_share("keep_fraction", keep_fraction)\n        keep = max'),
    )


@caught_by(1)
def buffers_may_stand_between(m):
    rewritten(m, "shrink_mlp", ("between.state_dict()", "list(between.parameters())"))


@caught_by(1)
def what_is_frozen_may_stand_between(m):
    rewritten(m, "shrink_mlp", ("between.state_dict()", "any(p.requires_grad for p in between.parameters())"))


@caught_by(1)
def containers_may_not_stand_between(m):
    rewritten(
        m, "shrink_mlp", ("between.state_dict()", "between.state_dict() or isinstance(between, Sequential)")
    )


@caught_by(1)
def only_what_is_well_known_may_stand_between(m):
    rewritten(
        m,
        "shrink_mlp",
        (
            "between.state_dict()",
            'between.state_dict() or not type(between).__module__.startswith("tinytorch.")',
        ),
    )


# 18.6 prune_channels


def _channels(m, strength):
    """prune_channels with another strength: of a copy whose norm, or kernels, have that strength."""
    right = m.prune_channels

    def prune_channels(conv, norm, following, keep):
        right(conv, norm, following, min(keep, len(conv.weight)) or 1)
        scores = np.asarray(strength(conv.weight.data, norm))
        before = m.strongest
        m.strongest = lambda _, keep: before(scores, keep)
        try:
            return right(conv, norm, following, keep)
        finally:
            m.strongest = before

    m.prune_channels = prune_channels


def _sums(kernels):
    return np.abs(kernels).reshape(len(kernels), -1).sum(axis=1)


@caught_by(1)
def kernels_count_also_before_a_norm(m):
    _channels(m, lambda kernels, norm: _sums(kernels))


@caught_by(1)
def kernels_count_by_their_lengths(m):
    _channels(
        m,
        lambda kernels, norm: (
            np.sqrt((kernels.reshape(len(kernels), -1) ** 2).sum(1))
            if norm is None
            else abs(norm.weight.data)
        ),
    )


@caught_by(1)
def kernels_count_by_their_sums_with_signs(m):
    _channels(
        m,
        lambda kernels, norm: (
            abs(kernels.reshape(len(kernels), -1).sum(1)) if norm is None else abs(norm.weight.data)
        ),
    )


@caught_by(1)
def a_norm_s_weights_count_with_their_signs(m):
    _channels(
        m, lambda kernels, norm: _sums(kernels) if norm is None else norm.weight.data - norm.weight.data.min()
    )


def _spoiled(m, spoil):
    right = m.prune_channels

    def prune_channels(conv, norm, following, keep):
        found = right(conv, norm, following, keep)
        spoil(conv, norm, following, keep, *found)
        return found

    m.prune_channels = prune_channels


@caught_by(1)
def the_running_mean_keeps_the_first_channels(m):
    def spoil(conv, norm, following, keep, one, between, two):
        if between is not None:
            between.running_mean = m.Buffer(norm.running_mean.data[:keep].copy())

    _spoiled(m, spoil)


@caught_by(1)
def the_norm_s_bias_keeps_the_first_channels(m):
    def spoil(conv, norm, following, keep, one, between, two):
        if between is not None:
            between.bias = m.Parameter(norm.bias.data[:keep].copy())

    _spoiled(m, spoil)


@caught_by(1)
def the_number_of_batches_starts_anew(m):
    def spoil(conv, norm, following, keep, one, between, two):
        if between is not None:
            between.num_batches_tracked.data[...] = 0

    _spoiled(m, spoil)


@caught_by(1)
def pixels_of_a_channel_are_not_neighbours(m):
    """As if Flatten went pixel by pixel."""

    def spoil(conv, norm, following, keep, one, between, two):
        weight = following.weight.data
        if weight.ndim == 2 and weight.shape[1] > len(conv.weight):
            score = _sums(conv.weight.data) if norm is None else abs(norm.weight.data)
            kept = m.strongest(score, keep)
            read = weight.reshape(len(weight), -1, len(score))[:, :, kept]
            two.weight = m.Parameter(read.reshape(len(weight), -1).copy())

    _spoiled(m, spoil)


@caught_by(1)
def a_new_norm_is_in_training(m):
    right = m.prune_channels

    def prune_channels(conv, norm, following, keep):
        one, between, two = right(conv, norm, following, keep)
        return one, between and between.train(), two

    m.prune_channels = prune_channels


@caught_by(1)
def the_stride_is_forgotten(m):
    def spoil(conv, norm, following, keep, one, between, two):
        one.stride = 1

    _spoiled(m, spoil)


@caught_by(1)
def the_norm_has_its_usual_options(m):
    def spoil(conv, norm, following, keep, one, between, two):
        if between is not None:
            between.eps, between.momentum = 1e-5, 0.1

    _spoiled(m, spoil)


@caught_by(1)
def groups_are_not_looked_at(m):
    right = m.prune_channels

    def prune_channels(conv, norm, following, keep):
        groups = [(layer, layer.groups) for layer in (conv, following) if isinstance(layer, m.Conv2d)]
        for layer, _ in groups:
            layer.groups = 1
        try:
            if isinstance(following, m.Conv2d) and following.weight.shape[1] != len(conv.weight):
                return conv, norm, following
            return right(conv, norm, following, keep)
        finally:
            for layer, number in groups:
                layer.groups = number

    m.prune_channels = prune_channels


@caught_by(1)
def anything_may_read_channels(m):
    right = m.prune_channels

    def prune_channels(conv, norm, following, keep):
        if not isinstance(following, (m.Conv2d, m.Linear)):
            return conv, norm, following
        return right(conv, norm, following, keep)

    m.prune_channels = prune_channels


@caught_by(1)
def the_norm_is_shared(m):
    right = m.prune_channels

    def prune_channels(conv, norm, following, keep):
        one, between, two = right(conv, norm, following, keep)
        return one, norm if norm is not None and keep == len(conv.weight) else between, two

    m.prune_channels = prune_channels


@caught_by(1)
def convolutions_are_in_training_again(m):
    right = m.prune_channels

    def prune_channels(conv, norm, following, keep):
        one, between, two = right(conv, norm, following, keep)
        one.training = two.training = True
        return one, between, two

    m.prune_channels = prune_channels


@caught_by(1)
def the_padding_of_what_reads_is_forgotten(m):
    right = m.prune_channels

    def prune_channels(conv, norm, following, keep):
        made = right(conv, norm, following, keep)
        made[2].padding = 0
        return made

    m.prune_channels = prune_channels


# 18.7 quantization_grid


def _grid(m, change):
    """quantization_grid from `change(low, high, lowest, highest, symmetric)` -> (scale, zero_point)."""

    def quantization_grid(low, high, bits=8, symmetric=True, dtype=np.float32):
        lowest, highest = m.bounds(bits, symmetric)
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
            raise ValueError(f"from {low} to {high}")
        with np.errstate(all="ignore"):
            scale, zero = change(low, high, lowest, highest, symmetric)
        return np.asarray(scale, dtype), np.asarray(zero).astype(m.integers(bits))

    m.quantization_grid = quantization_grid


def _right(low, high, lowest, highest, symmetric, tiny=True, one=True, zero_of=None, held=True):
    if held:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    steps = highest - lowest
    scale = np.maximum(-low, high) / highest if symmetric else high / steps - low / steps
    if tiny:
        scale = np.where(scale > 0, np.maximum(scale, np.finfo(np.float32).tiny), scale)
    if one:
        scale = np.where(scale == 0, 1, scale)
    if symmetric:
        return scale, np.zeros(scale.shape)
    zero = (
        (zero_of or (lambda: np.rint(lowest - low / scale)))()
        if zero_of is None
        else zero_of(low, scale, lowest, highest)
    )
    return scale, np.clip(zero, lowest, highest)


@caught_by(1)
def a_symmetric_grid_has_256_steps(m):
    def change(low, high, lowest, highest, symmetric):
        scale, zero = _right(low, high, lowest, highest, symmetric)
        return (scale * highest / (highest + 0.5) if symmetric else scale), zero

    _grid(m, change)


@caught_by(1)
def a_grid_has_as_many_steps_as_numbers(m):
    def change(low, high, lowest, highest, symmetric):
        scale, zero = _right(low, high, lowest, highest, symmetric)
        return (scale if symmetric else scale * (highest - lowest) / (highest - lowest + 1)), zero

    _grid(m, change)


@caught_by(1)
def a_range_need_not_hold_zero(m):
    _grid(m, lambda *a: _right(*a, held=False))


@caught_by(1)
def ends_are_written_over(m):
    rewritten(
        m,
        "quantization_grid",
        (
            "low, high = np.minimum(low, 0), np.maximum(high, 0)",
            "low, high = np.minimum(low, 0, out=low), np.maximum(high, 0, out=high)",
        ),
    )


@caught_by(1)
def zero_points_are_cut_off(m):
    _grid(
        m, lambda *a: _right(*a, zero_of=lambda low, scale, lowest, highest: np.trunc(lowest - low / scale))
    )


@caught_by(1)
def zero_points_are_rounded_up_at_halves(m):
    _grid(
        m,
        lambda *a: _right(
            *a, zero_of=lambda low, scale, lowest, highest: np.floor(lowest - low / scale + 0.5)
        ),
    )


@caught_by(1)
def zero_points_have_the_other_sign(m):
    _grid(m, lambda *a: _right(*a, zero_of=lambda low, scale, lowest, highest: np.rint(low / scale - lowest)))


@caught_by(1)
def only_the_highest_counts(m):
    def change(low, high, lowest, highest, symmetric):
        return _right(np.maximum(low, -high) if symmetric else low, high, lowest, highest, symmetric)

    _grid(m, change)


@caught_by(1)
def nothing_but_zero_has_no_scale(m):
    _grid(m, lambda *a: _right(*a, one=False))


@caught_by(1)
def scales_may_lose_their_digits(m):
    _grid(m, lambda *a: _right(*a, tiny=False))


@caught_by(1)
def ends_are_subtracted_before_they_are_divided(m):
    def change(low, high, lowest, highest, symmetric):
        scale, zero = _right(low, high, lowest, highest, symmetric)
        if not symmetric:
            wide = (np.maximum(high, 0) - np.minimum(low, 0)) / (highest - lowest)
            scale = np.where(np.isinf(wide), wide, scale)
        return scale, zero

    _grid(m, change)


@caught_by(1)
def a_range_may_be_upside_down(m):
    right = m.quantization_grid
    m.quantization_grid = lambda low, high, *rest: right(np.minimum(low, high), np.maximum(low, high), *rest)


@caught_by(1)
def any_number_of_bits_will_do(m):
    def bounds(bits, symmetric=True):
        half = 1 << max(bits - 1, 1)
        return (1 - half if symmetric else -half), half - 1

    m.bounds = bounds


@caught_by(1)
def ends_are_no_lists(m):
    m.numbers = lambda end: end.astype(np.float64) if np.ndim(end) else np.float64(end)
    rewritten(
        m,
        "quantization_grid",
        ("np.asarray(low, np.float64), np.asarray(high, np.float64)", "numbers(low), numbers(high)"),
    )


# 18.8 quantize, dequantize


def _quantize(m, work):
    """quantize with `work(x, scale, zero, lowest, highest)` for the integers."""

    def quantize(x, bits=8, axis=None, symmetric=True, within=None):
        x = m.floating(m.as_array(x))
        if axis is not None:
            if not -x.ndim <= axis < x.ndim:
                raise ValueError(f"an array of shape {x.shape} has no axis {axis}")
            axis %= x.ndim
        others = None if axis is None else tuple(i for i in range(x.ndim) if i != axis)
        low, high = x.min(axis=others, initial=0), x.max(axis=others, initial=0)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("not finite")
        if within is not None:
            low, high = (np.broadcast_to(end, low.shape) for end in within)
        scale, zero = m.quantization_grid(low, high, bits, symmetric, x.dtype)
        steps = work(x, m.along(scale, axis, x.ndim), m.along(zero, axis, x.ndim), *m.bounds(bits, symmetric))
        with np.errstate(invalid="ignore"):
            return m.QuantizedArray(np.asarray(steps).astype(zero.dtype), scale, zero, axis)

    m.quantize = quantize


@caught_by(1)
def numbers_are_cut_off(m):
    _quantize(m, lambda x, scale, zero, lo, hi: np.clip(np.trunc(x / scale) + zero, lo, hi))


@caught_by(1)
def halves_of_steps_are_rounded_up(m):
    _quantize(m, lambda x, scale, zero, lo, hi: np.clip(np.floor(x / scale + 0.5) + zero, lo, hi))


@caught_by(1)
def the_zero_point_is_not_added(m):
    _quantize(m, lambda x, scale, zero, lo, hi: np.clip(np.rint(x / scale), lo, hi))


@caught_by(1)
def the_zero_point_is_added_before_rounding(m):
    """Halves are rounded to even, and an odd zero point makes others of them even."""
    _quantize(m, lambda x, scale, zero, lo, hi: np.clip(np.rint(x / scale + zero), lo, hi))


@caught_by(1)
def numbers_beyond_the_range_wrap_around(m):
    def work(x, scale, zero, lo, hi):
        return np.asarray(np.rint(x / scale) + zero).astype(np.int64)

    _quantize(m, work)


@caught_by(1)
def clipping_comes_before_the_zero_point(m):
    def work(x, scale, zero, lo, hi):
        return np.asarray(np.clip(np.rint(x / scale), lo, hi) + zero).astype(np.int64)

    _quantize(m, work)


@caught_by(1)
def the_lowest_integer_may_be_used(m):
    _quantize(m, lambda x, scale, zero, lo, hi: np.clip(np.rint(x / scale) + zero, -hi - 1, hi))


@caught_by(1)
def scales_go_along_the_other_axes(m):
    right = m.quantize

    def quantize(x, bits=8, axis=None, symmetric=True, within=None):
        x = m.as_array(x)
        if axis is not None and x.ndim == 2 and -2 <= axis < 2:
            axis = 1 - axis % 2
        return right(x, bits, axis, symmetric, within)

    m.quantize = quantize


@caught_by(1)
def an_axis_from_the_end_stays_so(m):
    right = m.quantize

    def quantize(x, bits=8, axis=None, symmetric=True, within=None):
        q = right(x, bits, axis, symmetric, within)
        return m.QuantizedArray(q.values, q.scale, q.zero_point, axis)

    m.quantize = quantize


@caught_by(1)
def scales_are_float64(m):
    right = m.quantize

    def quantize(*args, **options):
        q = right(*args, **options)
        return m.QuantizedArray(q.values, q.scale.astype(np.float64), q.zero_point, q.axis)

    m.quantize = quantize


@caught_by(1)
def what_is_not_finite_is_quantized(m):
    right = m.quantize

    def quantize(x, bits=8, axis=None, symmetric=True, within=None):
        return right(
            np.nan_to_num(m.floating(m.as_array(x)), posinf=1e3, neginf=-1e3), bits, axis, symmetric, within
        )

    m.quantize = quantize


@caught_by(1)
def a_range_is_only_made_narrower(m):
    right = m.quantize

    def quantize(x, bits=8, axis=None, symmetric=True, within=None):
        if within is not None:
            array = m.as_array(x)
            low, high = float(np.min(array, initial=0)), float(np.max(array, initial=0))
            within = np.maximum(within[0], low), np.minimum(within[1], high)
        return right(x, bits, axis, symmetric, within)

    m.quantize = quantize


@caught_by(1)
def values_are_always_bytes(m):
    right = m.quantize

    def quantize(*args, **options):
        q = right(*args, **options)
        return m.QuantizedArray(q.values.astype(np.int8), q.scale, q.zero_point, q.axis)

    m.quantize = quantize


@caught_by(1)
def differences_of_bytes_are_bytes(m):
    def dequantize(self):
        off = self.values - m.along(self.zero_point, self.axis, self.values.ndim)
        return off.astype(self.scale.dtype) * m.along(self.scale, self.axis, off.ndim)

    m.QuantizedArray.dequantize = dequantize


@caught_by(1)
def the_zero_point_stays_in(m):
    def dequantize(self):
        return self.values.astype(self.scale.dtype) * m.along(self.scale, self.axis, self.values.ndim)

    m.QuantizedArray.dequantize = dequantize


@caught_by(1)
def scales_broadcast_as_they_come(m):
    """Right for scales along the last axis."""

    def dequantize(self):
        try:
            return (self.values.astype(self.scale.dtype) - self.zero_point) * self.scale
        except ValueError:
            return self.values.astype(self.scale.dtype)

    m.QuantizedArray.dequantize = dequantize


@caught_by(1)
def dequantized_numbers_are_made_once_and_kept(m):
    right = m.QuantizedArray.dequantize

    def dequantize(self):
        kept = vars(self)
        if "made" not in kept:
            kept["made"] = right(self)
        return kept["made"]

    m.QuantizedArray.dequantize = dequantize


@caught_by(1)
def dequantized_numbers_are_float64(m):
    right = m.QuantizedArray.dequantize
    m.QuantizedArray.dequantize = lambda self: right(self).astype(np.float64)


@caught_by(1)
def what_has_no_axes_has_any(m):
    rewritten(
        m,
        "quantize",
        ("if not -x.ndim <= axis < x.ndim:", "if x.ndim and not -x.ndim <= axis < x.ndim:"),
        ("axis %= x.ndim", "axis = axis % x.ndim if x.ndim else None"),
    )


@caught_by(1)
def ends_for_each_place_are_no_lists(m):
    rewritten(m, "quantize", ("np.broadcast_to(end, low.shape)", "0 * low + 1.0 * end"))


# 18.9 observers


@caught_by(1)
def an_observer_has_seen_the_last_batch(m):
    right = m.MinMaxObserver.observe

    def observe(self, x):
        if m.as_array(x).size:
            self.low, self.high = math.inf, -math.inf
        right(self, x)

    m.MinMaxObserver.observe = observe


@caught_by(1)
def an_observer_has_a_running_mean(m):
    def observe(self, x):
        x = m.as_array(x)
        if x.size:
            low, high = float(x.min()), float(x.max())
            if not math.isfinite(low + high):
                raise ValueError
            first = math.isinf(self.low)
            self.low, self.high = (
                (low, high) if first else (0.9 * self.low + 0.1 * low, 0.9 * self.high + 0.1 * high)
            )

    m.MinMaxObserver.observe = observe


@caught_by(1)
def an_observer_has_seen_zero(m):
    right = m.MinMaxObserver.range
    m.MinMaxObserver.range = lambda self: (min(right(self)[0], 0.0), max(right(self)[1], 0.0))


@caught_by(1)
def nan_is_observed(m):
    def observe(self, x):
        x = m.as_array(x)
        if x.size:
            self.low, self.high = min(self.low, float(np.nanmin(x))), max(self.high, float(np.nanmax(x)))

    m.MinMaxObserver.observe = observe


@caught_by(1)
def a_range_of_nothing_is_from_0_to_0(m):
    right = m.MinMaxObserver.range
    m.MinMaxObserver.range = lambda self: (0.0, 0.0) if self.low > self.high else right(self)


@caught_by(1)
def an_empty_batch_is_an_error(m):
    right = m.MinMaxObserver.observe

    def observe(self, x):
        m.as_array(x).min()
        right(self, x)

    m.MinMaxObserver.observe = observe


@caught_by(1)
def observers_share_what_they_saw(m):
    right = m.MinMaxObserver.observe

    def observe(self, x):
        right(self, x)
        m.MinMaxObserver.low, m.MinMaxObserver.high = self.low, self.high
        vars(self).pop("low"), vars(self).pop("high")

    m.MinMaxObserver.__init__ = lambda self: None
    m.MinMaxObserver.low, m.MinMaxObserver.high = math.inf, -math.inf
    m.MinMaxObserver.observe = observe


def _percentile(
    m, most=lambda self: (100 - self.percentile) / 200 * self.counts.sum(), side="right", clip=True
):
    def range_(self):
        low, high = m.MinMaxObserver.range(self)
        edges = self.edges()
        below = int(np.searchsorted(np.cumsum(self.counts), most(self), side=side))
        above = int(np.searchsorted(np.cumsum(self.counts[::-1]), most(self), side=side))
        found = float(edges[min(below, len(edges) - 1)]), float(edges[::-1][min(above, len(edges) - 1)])
        return (max(low, found[0]), min(high, found[1])) if clip else found

    m.PercentileObserver.range = range_


@caught_by(1)
def each_side_may_lose_all_that_both_may(m):
    _percentile(m, lambda self: (100 - self.percentile) / 100 * self.counts.sum())


@caught_by(1)
def just_as_many_as_are_allowed_are_too_many(m):
    _percentile(m, side="left")


@caught_by(1)
def a_range_is_wider_than_what_was_seen(m):
    _percentile(m, clip=False)


@caught_by(1)
def bins_are_counted_and_not_numbers(m):
    _percentile(m, lambda self: (100 - self.percentile) / 200 * len(self.counts))


@caught_by(1)
def only_high_numbers_are_left_out(m):
    right = m.PercentileObserver.range
    m.PercentileObserver.range = lambda self: (m.MinMaxObserver.range(self)[0], right(self)[1])


@caught_by(1)
def ends_are_in_the_middle_of_bins(m):
    right = m.PercentileObserver.range

    def range_(self):
        low, high = right(self)
        half = self.limit / len(self.counts)
        return (low + half, high - half) if high - low > 2 * half else (low, high)

    m.PercentileObserver.range = range_


@caught_by(1)
def ends_of_bins_are_numpy_s(m):
    rewritten(
        m,
        "PercentileObserver.range",
        ("float(edges[below])", "edges[below]"),
        ("float(edges[::-1][above])", "edges[::-1][above]"),
    )


# 18.10 integer_matmul, quantized_matmul


def _product(m, multiply):
    right = m.integer_matmul

    def integer_matmul(a, b):
        right(a, b)
        return multiply(a, b)

    m.integer_matmul = integer_matmul


@caught_by(1)
def products_are_always_in_float32(m):
    _product(m, lambda a, b: (a.astype(np.float32) @ b.astype(np.float32)).astype(np.int64))


@caught_by(1)
def sums_of_bytes_are_in_32_bits(m):
    _product(m, lambda a, b: (a.astype(np.int32) @ b.astype(np.int32)).astype(np.int64))


@caught_by(1)
def bytes_are_multiplied_as_bytes(m):
    _product(m, lambda a, b: (a @ b).astype(np.int64))


@caught_by(3)
def products_are_always_in_float64(m):
    rewritten(m, "integer_matmul", ("np.float32 if largest <= 1 << 24 else np.float64", "np.float64"))


@caught_by(1)
def all_bytes_have_a_sign(m):
    rewritten(
        m,
        "integer_matmul",
        ("largest <= 1 << 24", "a.itemsize == b.itemsize == 1 and a.shape[1] <= 1024"),
    )


@caught_by(1)
def magnitudes_of_factors_are_np_abs(m):
    def multiply(a, b):
        if not a.size or not b.size:
            return a.astype(np.int64) @ b.astype(np.int64)
        largest = a.shape[1] * int(np.abs(a).max()) * int(np.abs(b).max())
        dtype = np.float32 if largest <= 1 << 24 else np.float64
        return (a.astype(dtype) @ b.astype(dtype)).astype(np.int64)

    _product(m, multiply)


@caught_by(1)
def the_length_of_sums_does_not_count(m):
    def multiply(a, b):
        largest = math.prod(max(int(x.max(initial=0)), -int(x.min(initial=0))) for x in (a, b))
        dtype = np.float32 if largest <= 1 << 24 else np.float64
        return (a.astype(dtype) @ b.astype(dtype)).astype(np.int64)

    _product(m, multiply)


@caught_by(1)
def what_no_float_holds_is_a_guess(m):
    def integer_matmul(a, b):
        if a.dtype.kind not in "iu" or b.dtype.kind not in "iu":
            raise TypeError(f"{a.dtype} {b.dtype}")
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise ValueError(f"{a.shape} {b.shape}")
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)

    m.integer_matmul = integer_matmul


@caught_by(1)
def floats_are_multiplied_too(m):
    right = m.integer_matmul

    def integer_matmul(a, b):
        if a.dtype.kind in "fb" or b.dtype.kind in "fb":
            return np.asarray(a @ b, np.int64)
        return right(a, b)

    m.integer_matmul = integer_matmul


@caught_by(1)
def products_are_floats(m):
    right = m.integer_matmul
    m.integer_matmul = lambda a, b: right(a, b).astype(np.float64)


@caught_by(3)
def products_are_numpy_s(m):
    _product(m, lambda a, b: a.astype(np.int64) @ b.astype(np.int64))


def _total(m, total):
    def quantized_matmul(a, b):
        if a.axis not in (None, 0) or b.axis not in (None, 1):
            raise ValueError(f"{a.axis} {b.axis}")
        whole = m.integer_matmul(a.values, b.values)
        za, zb = (m.along(q.zero_point.astype(np.int64), q.axis, 2) for q in (a, b))
        rows = a.values.sum(axis=1, dtype=np.int64)[:, None]
        columns = b.values.sum(axis=0, dtype=np.int64)
        whole = total(whole, za, zb, rows, columns, a.shape[1])
        scale = m.along(a.scale.astype(np.float64), a.axis, 2) * m.along(b.scale, b.axis, 2)
        return (whole * scale).astype(np.result_type(a.scale, b.scale))

    m.quantized_matmul = quantized_matmul


@caught_by(1)
def zero_points_are_left_out_of_sums(m):
    _total(m, lambda t, za, zb, rows, columns, k: t)


@caught_by(1)
def zero_points_of_the_second_are_left_out(m):
    _total(m, lambda t, za, zb, rows, columns, k: t - za * columns)


@caught_by(1)
def the_product_of_zero_points_is_left_out(m):
    _total(m, lambda t, za, zb, rows, columns, k: t - za * columns - zb * rows)


@caught_by(1)
def the_product_of_zero_points_counts_once(m):
    _total(m, lambda t, za, zb, rows, columns, k: t - za * columns - zb * rows + za * zb)


@caught_by(1)
def sums_of_bytes_wrap_around(m):
    def quantized_matmul(a, b):
        if a.axis not in (None, 0) or b.axis not in (None, 1):
            raise ValueError(f"{a.axis} {b.axis}")
        whole = m.integer_matmul(a.values, b.values)
        za, zb = (m.along(q.zero_point.astype(np.int64), q.axis, 2) for q in (a, b))
        whole -= za * b.values.sum(axis=0, dtype=np.int8)
        whole -= zb * (a.values.sum(axis=1, dtype=np.int8)[:, None] - a.shape[1] * za)
        scale = m.along(a.scale.astype(np.float64), a.axis, 2) * m.along(b.scale, b.axis, 2)
        return (whole * scale).astype(np.result_type(a.scale, b.scale))

    m.quantized_matmul = quantized_matmul


@caught_by(1)
def floats_are_multiplied_after_all(m):
    right = m.quantized_matmul

    def quantized_matmul(a, b):
        right(a, b)
        return a.dequantize() @ b.dequantize()

    m.quantized_matmul = quantized_matmul


@caught_by(1)
def scales_within_a_sum_are_not_refused(m):
    right = m.quantized_matmul

    def quantized_matmul(a, b):
        if a.axis == 1 or b.axis == 0:
            return a.dequantize() @ b.dequantize()
        return right(a, b)

    m.quantized_matmul = quantized_matmul


@caught_by(1)
def scales_are_multiplied_in_float32(m):
    rewritten(m, "quantized_matmul", ("a.scale.astype(np.float64)", "a.scale"))


@caught_by(1)
def sums_are_scaled_twice_in_float32(m):
    rewritten(
        m,
        "quantized_matmul",
        (
            "(total * scale).astype(np.result_type(a.scale, b.scale))",
            "(total * along(a.scale, a.axis, 2)).astype(a.scale.dtype) * along(b.scale, b.axis, 2)",
        ),
    )


@caught_by(1)
def products_are_float64(m):
    right = m.quantized_matmul
    m.quantized_matmul = lambda a, b: right(a, b).astype(np.float64)


@caught_by(1)
def a_bound_wraps_around(m):
    rewritten(
        m,
        "integer_matmul",
        (
            "a.shape[1] * math.prod(max(int(m.max(initial=0)), -int(m.min(initial=0))) for m in (a, b))",
            "a.shape[1] * np.prod([max(int(m.max(initial=0)), -int(m.min(initial=0))) for m in (a, b)])",
        ),
    )


@caught_by(1)
def magnitudes_of_factors_are_those_of_int64(m):
    rewritten(
        m,
        "integer_matmul",
        (
            "max(int(m.max(initial=0)), -int(m.min(initial=0))) for m in (a, b)",
            "int(np.abs(m.astype(np.int64)).max(initial=0)) for m in (a, b)",
        ),
    )


# 18.11 quantized_affine, QuantizedLinear


def _affine(m, forward):
    m.quantized_affine.forward = forward


@caught_by(1)
def the_bias_is_scaled_too(m):
    right = m.quantized_affine.forward

    def forward(x, values, scale, bias=None):
        out = right(x, values, np.ones_like(scale), None)
        return (out + (0 if bias is None else bias)).astype(out.dtype) * scale.astype(out.dtype)

    _affine(m, forward)


@caught_by(1)
def the_bias_is_forgotten(m):
    right = m.quantized_affine.forward
    _affine(m, lambda x, values, scale, bias=None: right(x, values, scale))


@caught_by(1)
def scales_go_to_the_inputs(m):
    right = m.quantized_affine.forward

    def forward(x, values, scale, bias=None):
        if scale.ndim and len(scale) == values.shape[1]:
            return right(m.floating(x) * scale, values, np.ones(len(values), scale.dtype), bias)
        return right(x, values, np.broadcast_to(scale.mean(), len(values)), bias)

    _affine(m, forward)


@caught_by(1)
def outputs_are_in_the_dtype_of_scales(m):
    right = m.quantized_affine.forward

    def forward(x, values, scale, bias=None):
        return right(x, values, scale, bias).astype(scale.dtype)

    _affine(m, forward)


@caught_by(1)
def inputs_are_written_over(m):
    right = m.quantized_affine.forward

    def forward(x, values, scale, bias=None):
        out = right(x, values, scale, bias)
        if x.dtype.kind == "f" and x.flags.writeable:
            x *= 0
        return out

    _affine(m, forward)


@caught_by(1)
def the_last_piece_is_forgotten(m):
    right = m.chunks

    def chunks(count, each):
        pieces = list(right(count, each))
        return pieces[:-1] if len(pieces) > 1 else pieces

    m.chunks = chunks


@caught_by(1)
def inputs_have_two_axes(m):
    right = m.quantized_affine.forward

    def forward(x, values, scale, bias=None):
        if x.ndim != 2:
            x = x.reshape(-1, x.shape[-1])
        return right(x, values, scale, bias)

    _affine(m, forward)


@caught_by(3)
def all_weights_become_floats_first(m):
    def forward(x, values, scale, bias=None):
        x = m.floating(x)
        if x.shape[-1:] != values.shape[1:]:
            raise ValueError(f"an input of shape {x.shape} does not fit weights of shape {values.shape}")
        out = m.as_rows(x) @ values.astype(x.dtype).T * scale.astype(x.dtype)
        out = out if bias is None else out + bias.astype(x.dtype)
        return out.reshape(*x.shape[:-1], len(values))

    _affine(m, forward)


@caught_by(4)
def weights_are_multiplied_row_by_row(m):
    def forward(x, values, scale, bias=None):
        x = m.floating(x)
        if x.shape[-1:] != values.shape[1:]:
            raise ValueError(f"an input of shape {x.shape} does not fit weights of shape {values.shape}")
        rows = m.as_rows(x)
        out = np.empty((len(rows), len(values)), x.dtype)
        for i, row in enumerate(values):
            out[:, i] = (rows * row.astype(x.dtype)).sum(axis=1)
        out *= scale.astype(x.dtype)
        out = out if bias is None else out + bias.astype(x.dtype)
        return out.reshape(*x.shape[:-1], len(values))

    _affine(m, forward)


def _after_init(m, change):
    right = m.QuantizedLinear.__init__

    def __init__(self, linear, *args, **options):
        right(self, linear, *args, **options)
        change(self, linear)

    m.QuantizedLinear.__init__ = __init__


@caught_by(1)
def weights_are_parameters(m):
    def change(self, linear):
        self.scale = m.Parameter(self.scale.data)

    _after_init(m, change)


@caught_by(1)
def numbers_are_plain_arrays(m):
    def change(self, linear):
        self.scale = m.Tensor(self.scale.data)

    _after_init(m, change)


@caught_by(1)
def the_bias_is_shared(m):
    def change(self, linear):
        if linear.bias is not None:
            self.bias = m.Buffer(linear.bias.data)

    _after_init(m, change)


@caught_by(1)
def a_new_layer_is_in_training(m):
    def change(self, linear):
        self.training = True

    _after_init(m, change)


@caught_by(1)
def a_scale_for_all_outputs_in_any_case(m):
    right = m.QuantizedLinear.__init__
    m.QuantizedLinear.__init__ = lambda self, linear, bits=8, per_channel=True, input_range=None: right(
        self, linear, bits, False, input_range
    )


@caught_by(1)
def a_scale_for_each_input(m):
    right = m.quantize

    def __init__(self, linear, bits=8, per_channel=True, input_range=None):
        q = right(linear.weight, bits, axis=1 if per_channel else None)
        self.bits, self.training = bits, linear.training
        self.weight, self.scale = m.Buffer(q.values), m.Buffer(q.scale)
        self.bias = None if linear.bias is None else m.Buffer(linear.bias.data.copy())
        self.input_range = None if input_range is None else m.Buffer(np.array(input_range, np.float64))

    m.QuantizedLinear.__init__ = __init__


@caught_by(1)
def a_range_is_no_buffer(m):
    def change(self, linear):
        if self.input_range is not None:
            self.input_range = m.Tensor(self.input_range.data)

    _after_init(m, change)


@caught_by(3)
def floats_are_kept_beside_the_bytes(m):
    def change(self, linear):
        self.floats = linear.weight.data.copy()

    _after_init(m, change)


@caught_by(3)
def floats_are_made_once_and_kept(m):
    right = m.QuantizedLinear.forward

    def forward(self, x):
        if not hasattr(self, "floats"):
            self.floats = self.weight.data.astype(np.float32)
        return right(self, x)

    m.QuantizedLinear.forward = forward


def _forward(m, forward):
    right = m.QuantizedLinear.forward

    def chosen(self, x):
        return right(self, x) if self.input_range is None else forward(self, x, right)

    m.QuantizedLinear.forward = chosen


@caught_by(1)
def a_range_is_not_used(m):
    _forward(m, lambda self, x, right: m.quantized_affine(x, self.weight, self.scale, self.bias))


@caught_by(1)
def inputs_are_on_a_symmetric_grid(m):
    right = m.quantize

    def quantize(x, bits=8, axis=None, symmetric=True, within=None):
        return (
            right(x, bits, axis, True, within)
            if within is not None and not symmetric
            else right(x, bits, axis, symmetric, within)
        )

    def forward(self, x, usual):
        m.quantize = quantize
        try:
            return usual(self, x)
        finally:
            m.quantize = right

    _forward(m, forward)


@caught_by(1)
def inputs_have_as_few_bits_as_weights(m):
    right = m.quantize

    def forward(self, x, usual):
        m.quantize = lambda x, bits=8, *args, **options: right(x, self.bits, *args, **options)
        try:
            return usual(self, x)
        finally:
            m.quantize = right

    _forward(m, forward)


@caught_by(1)
def inputs_find_their_own_range(m):
    right = m.quantize

    def forward(self, x, usual):
        m.quantize = lambda x, bits=8, axis=None, symmetric=True, within=None: right(x, bits, axis, symmetric)
        try:
            return usual(self, x)
        finally:
            m.quantize = right

    _forward(m, forward)


@caught_by(1)
def a_quantised_product_forgets_the_bias(m):
    def forward(self, x, usual):
        bias, self.bias = self.bias, None
        try:
            return usual(self, x)
        finally:
            self.bias = bias

    _forward(m, forward)


@caught_by(1)
def a_quantised_product_is_an_array(m):
    _forward(m, lambda self, x, usual: usual(self, x).data)


@caught_by(1)
def a_quantised_product_is_float32(m):
    _forward(m, lambda self, x, usual: m.Tensor(usual(self, x).data.astype(np.float32)))


@caught_by(1)
def a_layer_of_float64_gives_float64(m):
    rewritten(m, "QuantizedLinear.forward", (".astype(array.dtype, copy=False)", ""))


# 18.12 calibrate, quantize_model


@caught_by(1)
def hooks_stay(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        ranges = right(model, batches, observer)
        for layer in ranges:
            layer.register_forward_hook(lambda *args: None)
        return ranges

    m.calibrate = calibrate


@caught_by(1)
def hooks_stay_where_somebody_stops_it_all(m):
    rewritten(
        m,
        "calibrate",
        (
            "    finally:\n        for remove in removers:\n            remove()\n",
            "    except Exception:\n        [remove() for remove in removers]\n        raise\n"
            "    [remove() for remove in removers]\n",
        ),
    )


@caught_by(1)
def hooks_stay_where_something_fails(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        try:
            return right(model, batches, observer)
        except OSError:
            for layer in model.modules():
                layer.register_forward_hook(lambda *args: None)
            raise

    m.calibrate = calibrate


@caught_by(1)
def a_model_is_calibrated_in_training(m):
    import contextlib

    m.evaluating = lambda model: contextlib.nullcontext()


@caught_by(1)
def a_model_stays_in_eval_mode(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        try:
            return right(model, batches, observer)
        finally:
            model.eval()

    m.calibrate = calibrate


@caught_by(1)
def outputs_are_observed(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        batches = list(batches)
        ranges = right(model, batches, observer)
        found = {layer: observer() for layer in ranges}
        removers = [
            layer.register_forward_hook(lambda module, inputs, out: found[module].observe(out))
            for layer in found
        ]
        with m.evaluating(model):
            for batch in batches:
                model(m.Tensor(m.as_array(batch[0] if isinstance(batch, (tuple, list)) else batch)))
        for remove in removers:
            remove()
        return {layer: seen.range() for layer, seen in found.items()}

    m.calibrate = calibrate


@caught_by(1)
def layers_share_an_observer(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        one = observer()
        return right(model, batches, lambda: one)

    m.calibrate = calibrate


@caught_by(1)
def only_the_first_batch_calibrates(m):
    right = m.calibrate
    m.calibrate = lambda model, batches, *rest: right(
        model, [b for _, b in zip(range(1), batches, strict=False)], *rest
    )


@caught_by(1)
def the_observer_is_not_asked_for(m):
    right = m.calibrate
    m.calibrate = lambda model, batches, observer=None: right(model, batches)


@caught_by(1)
def pairs_are_taken_for_inputs(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        return right(model, ([b] if isinstance(b, list) else b for b in batches), observer)

    m.calibrate = calibrate


@caught_by(1)
def no_batches_are_no_ranges(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        batches = list(batches)
        return right(model, batches, observer) if batches else {}

    m.calibrate = calibrate


@caught_by(1)
def a_layer_that_was_not_used_is_from_0_to_0(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        ranges = right(model, batches, observer)
        return {x: ranges.get(x, (0.0, 0.0)) for x in model.modules() if isinstance(x, m.Linear)}

    m.calibrate = calibrate


@caught_by(3)
def batches_are_kept_while_calibrating(m):
    right = m.calibrate
    m.calibrate = lambda model, batches, *rest, **options: right(model, list(batches), *rest, **options)


@caught_by(1)
def the_model_itself_is_quantized(m):
    right = m.quantize_model

    def quantize_model(model, *args, **options):
        made = right(model, *args, **options)
        if isinstance(model, m.Sequential):
            model.layers = list(made)
            return model
        return made

    m.quantize_model = quantize_model


def _converted(m, change):
    """quantize_model by walking over attributes of a copy: `change(model)`."""

    def quantize_model(model, bits=8, per_channel=True, calibration=None, observer=m.MinMaxObserver):
        m.bounds(bits)
        ranges = {} if calibration is None else m.calibrate(model, calibration, observer)
        return change(model, bits, per_channel, ranges)

    m.quantize_model = quantize_model


@caught_by(1)
def only_attributes_are_looked_at(m):
    """Layers in lists and dicts stay as they are."""

    def change(model, bits, per_channel, ranges):
        memo = {}
        for module in model.modules():
            for value in vars(module).values():
                if isinstance(value, m.Linear):
                    memo[id(value)] = m.QuantizedLinear(value, bits, per_channel, ranges.get(value))
        return copy.deepcopy(model, memo)

    _converted(m, change)


@caught_by(1)
def convolutions_stay_in_floats(m):
    def change(model, bits, per_channel, ranges):
        linears = [x for x in model.modules() if isinstance(x, m.Linear)]
        return copy.deepcopy(
            model, {id(x): m.QuantizedLinear(x, bits, per_channel, ranges.get(x)) for x in linears}
        )

    _converted(m, change)


@caught_by(1)
def a_shared_layer_is_two(m):
    right = m.quantize_model

    def quantize_model(model, *args, **options):
        made = right(model, *args, **options)
        if hasattr(made, "first"):
            made.first[0] = copy.deepcopy(made.first[0])
        return made

    m.quantize_model = quantize_model


@caught_by(1)
def the_rest_is_shared(m):
    right = m.quantize_model

    def quantize_model(model, *args, **options):
        made = right(model, *args, **options)
        if isinstance(model, m.Sequential):
            for i, layer in enumerate(model):
                if not isinstance(layer, (m.Linear, m.Conv2d)):
                    made.layers[i] = layer
        return made

    m.quantize_model = quantize_model


@caught_by(1)
def subclasses_stay_in_floats(m):
    def change(model, bits, per_channel, ranges):
        memo = {}
        for x in model.modules():
            if type(x) is m.Linear:
                memo[id(x)] = m.QuantizedLinear(x, bits, per_channel, ranges.get(x))
            elif type(x) is m.Conv2d:
                memo[id(x)] = m.QuantizedConv2d(x, bits, per_channel)
        return copy.deepcopy(model, memo)

    _converted(m, change)


@caught_by(1)
def subclasses_are_not_calibrated(m):
    rewritten(m, "calibrate", ("isinstance(layer, Linear)", "type(layer) is Linear"))


@caught_by(1)
def subclasses_of_convolutions_stay_in_floats(m):
    rewritten(m, "quantize_model", ("isinstance(layer, Conv2d)", "type(layer) is Conv2d"))


@caught_by(1)
def ranges_are_found_and_forgotten(m):
    right = m.calibrate

    def calibrate(*args):
        right(*args)
        return {}

    def quantize_model(model, bits=8, per_channel=True, calibration=None, observer=m.MinMaxObserver):
        if calibration is not None:
            right(model, calibration, observer)
        return usual(model, bits, per_channel)

    usual = m.quantize_model
    m.quantize_model = quantize_model


@caught_by(1)
def bits_are_always_eight(m):
    right = m.quantize_model

    def quantize_model(model, bits=8, *args, **options):
        m.bounds(bits)
        return right(model, 8, *args, **options)

    m.quantize_model = quantize_model


@caught_by(3)
def a_model_is_copied_and_then_quantized(m):
    right = m.quantize_model
    m.quantize_model = lambda model, *args, **options: (copy.deepcopy(model), right(model, *args, **options))[
        1
    ]


@caught_by(1)
def batches_are_gone_through_for_each_layer(m):
    right = m.calibrate

    def calibrate(model, batches, observer=m.MinMaxObserver):
        linears = [layer for layer in model.modules() if isinstance(layer, m.Linear)]
        if not linears:
            return right(model, batches, observer)
        ranges, failed = {}, None
        for layer in linears:
            try:
                ranges.update(
                    {key: ends for key, ends in right(model, batches, observer).items() if key is layer}
                )
            except ValueError as error:
                failed = error
        if failed and not ranges:
            raise failed
        return ranges

    m.calibrate = calibrate


@caught_by(1)
def a_model_is_calibrated_for_each_layer(m):
    rewritten(
        m,
        "quantize_model",
        ("    ranges = {} if calibration is None else calibrate(model, calibration, observer)\n", ""),
        (
            "memo[id(layer)] = QuantizedLinear(",
            "ranges = {} if calibration is None else calibrate(model, calibration, observer)\n"
            "            memo[id(layer)] = QuantizedLinear(",
        ),
    )


@caught_by(1)
def an_empty_list_is_no_calibration(m):
    rewritten(
        m,
        "quantize_model",
        (
            "{} if calibration is None else calibrate(model, calibration, observer)",
            "calibrate(model, calibration, observer) if calibration else {}",
        ),
    )


@caught_by(1)
def whatever_goes_in_is_made_float32(m):
    rewritten(m, "calibrate", ("else batch)))", "else batch).astype(np.float32)))"))


@caught_by(1)
def what_has_no_linear_had_no_batches(m):
    rewritten(m, "calibrate", ("if not used:", "if not observers:"))


@caught_by(1)
def a_layer_is_looked_at_once_for_each_batch(m):
    rewritten(
        m,
        "calibrate",
        ("observers[layer].observe(inputs[0])", "latest[layer] = inputs[0]"),
        ("observers: dict[Module, MinMaxObserver] = {}", "observers, latest = {}, {}"),
        (
            "used = True",
            "used = True\n                [observers[layer].observe(x) for layer, x in latest.items()]",
        ),
    )


# 18.13 fake_quantize, FakeQuantLinear


@caught_by(1)
def stairs_have_no_slope(m):
    rule(m.fake_quantize)(lambda grad, inside: grad * 0)


@caught_by(1)
def beyond_the_range_gradients_go_through(m):
    rule(m.fake_quantize)(lambda grad: grad)


@caught_by(1)
def gradients_go_where_numbers_were_clipped(m):
    rule(m.fake_quantize)(lambda grad, inside: grad if inside is None else grad * ~inside)


def _inside(m, test):
    right = m.fake_quantize.forward

    def forward(x, *, bits=8, axis=None, symmetric=True, within=None):
        out, inside = right(x, bits=bits, axis=axis, symmetric=symmetric, within=within)
        return out, inside if inside is None else test(m.floating(x), inside, within, symmetric, axis)

    m.fake_quantize.forward = forward


@caught_by(1)
def the_ends_lie_outside(m):
    def test(x, inside, within, symmetric, axis):
        if np.ndim(within[0]):
            return inside
        low, high = min(within[0], 0), max(within[1], 0)
        if symmetric:
            high = max(-low, high)
            low = -high
        return (x > low) & (x < high)

    _inside(m, test)


@caught_by(1)
def zero_may_lie_outside(m):
    def test(x, inside, within, symmetric, axis):
        if np.ndim(within[0]) or symmetric:
            return inside
        return (x >= within[0]) & (x <= within[1])

    _inside(m, test)


@caught_by(1)
def a_symmetric_range_has_the_ends_it_was_given(m):
    def test(x, inside, within, symmetric, axis):
        if np.ndim(within[0]):
            return inside
        return (x >= min(within[0], 0)) & (x <= max(within[1], 0))

    _inside(m, test)


@caught_by(1)
def ends_along_an_axis_go_along_the_last(m):
    def test(x, inside, within, symmetric, axis):
        if not np.ndim(within[0]):
            return inside
        high = np.maximum(-np.minimum(within[0], 0), within[1])
        return abs(x) <= high

    _inside(m, test)


@caught_by(1)
def fake_quantize_is_always_symmetric(m):
    right = m.fake_quantize.forward
    m.fake_quantize.forward = lambda x, *, bits=8, axis=None, symmetric=True, within=None: right(
        x, bits=bits, axis=axis, within=within
    )


@caught_by(1)
def fake_quantize_keeps_its_input(m):
    def back(grad, x, within, symmetric, axis):
        if within is None:
            return grad
        low, high = (np.asarray(end, x.dtype) for end in within)
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        if symmetric:
            high = np.maximum(-low, high)
            low = -high
        low, high = (m.along(end, axis if end.ndim else None, x.ndim) for end in (low, high))
        return grad * ((x >= low) & (x <= high))

    rule(m.fake_quantize)(back)


@caught_by(1)
def weights_are_rounded_once(m):
    def forward(self, x):
        kept = vars(self)
        if "rounded" not in kept:
            kept["rounded"] = m.fake_quantize(self.weight, bits=self.bits, axis=0)
        return m.affine(x, kept["rounded"], self.bias)

    m.FakeQuantLinear.forward = forward


@caught_by(1)
def the_gradient_that_came_is_written_over(m):
    def fake_quantize_back(grad, inside):
        return grad if inside is None else np.multiply(grad, inside, out=grad)

    m.fake_quantize.gradient(fake_quantize_back)


@caught_by(1)
def a_layer_trains_copies(m):
    right = m.FakeQuantLinear.__init__

    def __init__(self, linear, bits=8):
        right(self, linear, bits)
        self.weight = m.Parameter(linear.weight.data.copy())

    m.FakeQuantLinear.__init__ = __init__


@caught_by(1)
def a_layer_in_training_has_one_scale(m):
    m.FakeQuantLinear.forward = lambda self, x: m.affine(
        x, m.fake_quantize(self.weight, bits=self.bits), self.bias
    )


@caught_by(1)
def a_layer_in_training_has_eight_bits(m):
    m.FakeQuantLinear.forward = lambda self, x: m.affine(x, m.fake_quantize(self.weight, axis=0), self.bias)


@caught_by(1)
def inputs_are_rounded_and_weights_are_not(m):
    m.FakeQuantLinear.forward = lambda self, x: m.affine(
        m.fake_quantize(x, bits=self.bits), self.weight, self.bias
    )


@caught_by(1)
def nothing_below_a_layer_in_training_learns(m):
    rewritten(m, "FakeQuantLinear.forward", ("affine(x,", "affine(x.data,"))


@caught_by(1)
def ends_of_a_straight_line_are_no_lists(m):
    rewritten(m, "fake_quantize", ("np.asarray(end, x.dtype)", "end * x.dtype.type(1)"))


# 18.14 distillation_loss


def _loss(m, loss):
    """distillation_loss with another number: loss(p, log_p, log_q, hard, rows, labels, T, alpha)."""
    right = m.distillation_loss.forward

    def forward(student, teacher, labels, *, temperature=4.0, alpha=0.5):
        _, slope = right(student, teacher, labels, temperature=temperature, alpha=alpha)
        s = m.floating(student)
        t = m.floating(teacher).astype(s.dtype)
        log_p, log_q = m.log_softmax(t / temperature), m.log_softmax(s / temperature)
        picked = m.log_softmax(s)[np.arange(len(s)), m.as_array(labels)]
        value = loss(log_p.astype(float), log_q.astype(float), picked.astype(float), temperature, alpha)
        return np.asarray(value, s.dtype), slope

    m.distillation_loss.forward = forward


def _kl(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


@caught_by(1)
def a_loss_forgets_the_square_of_the_temperature(m):
    _loss(m, lambda p, q, picked, t, a: (a * _kl(p, q) - (1 - a) * picked).mean())


@caught_by(1)
def a_loss_has_the_temperature_once(m):
    _loss(m, lambda p, q, picked, t, a: (a * t * _kl(p, q) - (1 - a) * picked).mean())


@caught_by(1)
def a_loss_is_added_up(m):
    _loss(m, lambda p, q, picked, t, a: (a * t * t * _kl(p, q) - (1 - a) * picked).sum())


@caught_by(1)
def a_loss_is_a_mean_over_classes_too(m):
    _loss(m, lambda p, q, picked, t, a: (a * t * t * _kl(p, q) / p.shape[1] - (1 - a) * picked).mean())


@caught_by(1)
def student_and_teacher_are_swapped(m):
    _loss(m, lambda p, q, picked, t, a: (a * t * t * _kl(q, p) - (1 - a) * picked).mean())


@caught_by(1)
def soft_targets_have_cross_entropy(m):
    _loss(m, lambda p, q, picked, t, a: (-a * t * t * (np.exp(p) * q).sum(axis=1) - (1 - a) * picked).mean())


@caught_by(1)
def alpha_is_the_share_of_the_labels(m):
    _loss(m, lambda p, q, picked, t, a: ((1 - a) * t * t * _kl(p, q) - a * picked).mean())


@caught_by(1)
def labels_do_not_give_their_share_away(m):
    _loss(m, lambda p, q, picked, t, a: (a * t * t * _kl(p, q) - picked).mean())


@caught_by(1)
def the_temperature_is_for_labels_too(m):
    right = m.distillation_loss.forward

    def forward(student, teacher, labels, *, temperature=4.0, alpha=0.5):
        out, slope = right(student, teacher, labels, temperature=temperature, alpha=alpha)
        s = m.floating(student)
        rows, y = np.arange(len(s)), m.as_array(labels)
        warm, plain = m.log_softmax(s / temperature)[rows, y].mean(), m.log_softmax(s)[rows, y].mean()
        return np.asarray(out + (1 - alpha) * (plain - warm), s.dtype), slope

    m.distillation_loss.forward = forward


@caught_by(1)
def large_logits_overflow(m):
    def log_softmax(x):
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    m.log_softmax = log_softmax


@caught_by(1)
def probabilities_have_logarithms(m):
    """log(softmax), which is -inf where the softmax is 0."""
    right = m.log_softmax

    def log_softmax(x):
        return np.log(np.exp(right(x)))

    m.log_softmax = log_softmax


@caught_by(1)
def any_temperature_will_do(m):
    right = m.distillation_loss.forward

    def forward(student, teacher, labels, *, temperature=4.0, alpha=0.5):
        return right(student, teacher, labels, temperature=abs(temperature) or 1.0, alpha=alpha)

    m.distillation_loss.forward = forward


@caught_by(1)
def a_teacher_of_one_row_is_stretched(m):
    right = m.distillation_loss.forward

    def forward(student, teacher, labels, *, temperature=4.0, alpha=0.5):
        if len(teacher) == 1:
            teacher = np.broadcast_to(teacher, np.shape(student))
        return right(student, teacher, labels, temperature=temperature, alpha=alpha)

    m.distillation_loss.forward = forward


@caught_by(1)
def a_loss_is_in_the_dtype_of_the_teacher(m):
    right = m.distillation_loss.forward

    def forward(student, teacher, labels, *, temperature=4.0, alpha=0.5):
        out, slope = right(student, teacher, labels, temperature=temperature, alpha=alpha)
        return out.astype(np.result_type(out, m.floating(teacher))), slope

    m.distillation_loss.forward = forward


def _slope(m, change):
    right = m.distillation_loss.forward

    def forward(student, teacher, labels, *, temperature=4.0, alpha=0.5):
        out, _ = right(student, teacher, labels, temperature=temperature, alpha=alpha)
        s = m.floating(student)
        t = m.floating(teacher).astype(s.dtype)
        p, q = (np.exp(m.log_softmax(x / temperature)) for x in (t, s))
        hard = np.exp(m.log_softmax(s))
        hard[np.arange(len(s)), m.as_array(labels)] -= 1
        return out, np.asarray(change(p, q, hard, temperature, alpha, len(s)), s.dtype)

    m.distillation_loss.forward = forward


@caught_by(2)
def a_slope_has_the_temperature_squared(m):
    _slope(m, lambda p, q, hard, t, a, n: (a * t * t * (q - p) + (1 - a) * hard) / n)


@caught_by(2)
def a_slope_has_no_temperature(m):
    _slope(m, lambda p, q, hard, t, a, n: (a * (q - p) + (1 - a) * hard) / n)


@caught_by(2)
def a_slope_is_not_divided_by_the_rows(m):
    _slope(m, lambda p, q, hard, t, a, n: a * t * (q - p) + (1 - a) * hard)


@caught_by(1)
def a_slope_is_that_of_the_teacher(m):
    _slope(m, lambda p, q, hard, t, a, n: (a * t * (p - q) + (1 - a) * hard) / n)


@caught_by(2)
def a_slope_forgets_the_labels(m):
    _slope(m, lambda p, q, hard, t, a, n: a * t * (q - p) / n)


@caught_by(2)
def a_loss_s_gradient_is_1(m):
    rule(m.distillation_loss)(lambda grad, slope: (slope, None, None))


@caught_by(2)
def a_slope_is_changed_on_the_way_back(m):
    def back(grad, slope):
        slope *= grad
        return slope, None, None

    rule(m.distillation_loss)(back)


@caught_by(2)
def a_teacher_has_a_gradient(m):
    rule(m.distillation_loss)(lambda grad, slope: (slope * grad, -slope * grad, None))


@caught_by(3)
def a_loss_keeps_both_answers(m):
    right = m.distillation_loss.forward

    def forward(*arrays, **options):
        out, slope = right(*arrays, **options)
        return out, [slope, slope * 2, slope * 3]

    m.distillation_loss.forward = forward
    rule(m.distillation_loss)(lambda grad, slope: (slope[0] * grad, None, None))


@caught_by(4)
def a_loss_goes_row_by_row(m):
    right = m.distillation_loss.forward

    def forward(student, teacher, labels, *, temperature=4.0, alpha=0.5):
        out, slope = right(student, teacher, labels, temperature=temperature, alpha=alpha)
        for row, wanted, label in zip(student, teacher, m.as_array(labels), strict=True):
            right(row[None], wanted[None], label[None], temperature=temperature, alpha=alpha)
        return out, slope

    m.distillation_loss.forward = forward


# 18.15 distill


def _distill(
    m, *, evaluating=True, clear=True, weigh=True, mean=True, student_first=None, temperature_of=None
):
    import contextlib

    def distill(student, teacher, loader, optimizer, *, epochs=1, temperature=4.0, alpha=0.5):
        losses = []
        for _ in range(epochs):
            if student_first is not None:
                student_first(student)
            total, rows = 0.0, 0
            for inputs, labels in loader:
                x = m.Tensor(m.as_array(inputs))
                with m.evaluating(teacher) if evaluating else contextlib.nullcontext():
                    wanted = teacher(x).data
                t = temperature if temperature_of is None else temperature_of
                loss = m.distillation_loss(student(x), wanted, labels, temperature=t, alpha=alpha)
                if clear:
                    optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += float(loss.data) * (len(labels) if weigh else 1)
                rows += len(labels) if weigh else 1
            if not rows:
                raise ValueError("nothing")
            losses.append(total / rows if mean else total)
        return losses

    m.distill = distill


@caught_by(1)
def a_teacher_answers_in_training(m):
    _distill(m, evaluating=False)


@caught_by(1)
def gradients_add_up_while_distilling(m):
    _distill(m, clear=False)


@caught_by(1)
def a_mean_is_over_batches(m):
    _distill(m, weigh=False)


@caught_by(1)
def losses_are_added_up(m):
    _distill(m, mean=False)


@caught_by(1)
def a_student_is_put_into_training(m):
    _distill(m, student_first=lambda student: student.train())


@caught_by(1)
def the_temperature_given_is_not_used(m):
    _distill(m, temperature_of=4.0)


@caught_by(1)
def one_epoch_whatever_is_asked_for(m):
    right = m.distill

    def distill(student, teacher, loader, optimizer, *, epochs=1, temperature=4.0, alpha=0.5):
        return right(
            student, teacher, loader, optimizer, epochs=min(epochs, 1), temperature=temperature, alpha=alpha
        )

    m.distill = distill


@caught_by(1)
def a_teacher_stays_in_eval_mode(m):
    right = m.distill

    def distill(student, teacher, *args, **options):
        try:
            return right(student, teacher, *args, **options)
        finally:
            teacher.eval()

    m.distill = distill


@caught_by(1)
def nothing_to_learn_from_is_no_loss(m):
    right = m.distill

    def distill(student, teacher, loader, *args, **options):
        loader = list(loader)
        return right(student, teacher, loader, *args, **options) if loader else [0.0]

    m.distill = distill


@caught_by(1)
def students_read_floats_alone(m):
    rewritten(m, "distill", ("Tensor(as_array(inputs))", "Tensor(as_array(inputs).astype(np.float32))"))


# 18.16 size_report, save_compressed, load_compressed


def _report(m, change):
    right = m.size_report
    m.size_report = lambda model: change(right(model), model)


@caught_by(1)
def there_is_no_total(m):
    _report(m, lambda rows, model: rows[:-1])


@caught_by(1)
def a_total_s_sparsity_is_a_mean_of_shares(m):
    def change(rows, model):
        shares = [row.sparsity for row in rows[:-1]]
        return [*rows[:-1], rows[-1]._replace(sparsity=sum(shares) / max(len(shares), 1))]

    _report(m, change)


@caught_by(1)
def stored_is_csr_where_that_is_smaller(m):
    def change(rows, model):
        state = model.state_dict()
        new = []
        for row in rows[:-1]:
            csr = m.sparse_bytes(state[row.name], state[row.name].itemsize)["csr"]
            new.append(row._replace(stored=min(row.stored, csr)))
        return [*new, rows[-1]._replace(stored=sum(row.stored for row in new))]

    _report(m, change)


@caught_by(1)
def everything_takes_four_bytes(m):
    def change(rows, model):
        new = [row._replace(dense=4 * math.prod(row.shape)) for row in rows[:-1]]
        return [*new, rows[-1]._replace(dense=sum(row.dense for row in new))]

    _report(m, change)


@caught_by(1)
def sparsity_is_what_stays(m):
    _report(m, lambda rows, model: [row._replace(sparsity=1 - row.sparsity) for row in rows])


@caught_by(1)
def an_array_counts_under_each_of_its_names(m):
    def size_report(model):
        rows = []
        for name, array in model.state_dict().items():
            sizes = m.sparse_bytes(array, array.itemsize)
            empty = (array.size - np.count_nonzero(array)) / max(array.size, 1)
            rows.append(
                m.SizeRow(
                    name,
                    array.shape,
                    str(array.dtype),
                    array.nbytes,
                    min(sizes["dense"], sizes["bitmap"]),
                    empty,
                )
            )
        size = sum(math.prod(row.shape) for row in rows)
        zeros = sum(row.sparsity * math.prod(row.shape) for row in rows)
        dense, stored = sum(row.dense for row in rows), sum(row.stored for row in rows)
        return [*rows, m.SizeRow("total", (size,), "", dense, stored, zeros / max(size, 1))]

    m.size_report = size_report


@caught_by(1)
def equal_arrays_count_once(m):
    key = "(array.shape, array.tobytes())"
    rewritten(
        m,
        "size_report",
        ("id(array) not in seen", f"{key} not in seen"),
        ("seen.add(id(array))", f"seen.add({key})"),
    )


@caught_by(1)
def buffers_are_not_reported(m):
    def change(rows, model):
        named = dict(model.named_parameters())
        return [row for row in rows if row.name in named or row.name == "total"]

    _report(m, change)


def _file(m, save, load):
    def save_compressed(model, path):
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(save(model.state_dict()))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def load_compressed(path):
        raw = Path(path).read_bytes()
        try:
            return load(raw)
        except Exception as error:
            raise ValueError(f"{path}: {error}") from error

    m.save_compressed, m.load_compressed = save_compressed, load_compressed


@caught_by(1)
def a_file_is_a_pickle(m):
    def check(raw):
        if zlib.crc32(raw[4:]).to_bytes(4, "little") != raw[:4]:
            pickle.loads(raw)
            raise ValueError("changed")
        return pickle.loads(raw[4:])

    def save(state):
        body = pickle.dumps({name: np.array(array) for name, array in state.items()})
        return zlib.crc32(body).to_bytes(4, "little") + body

    _file(m, save, check)


def _words(state):
    return {
        n: [a.dtype.str, list(a.shape), np.ascontiguousarray(a).tobytes().hex()] for n, a in state.items()
    }


def _arrays(words):
    return {
        n: np.frombuffer(bytearray(bytes.fromhex(h)), dtype).reshape(shape).copy()
        for n, (dtype, shape, h) in words.items()
    }


@caught_by(1)
def a_file_is_text(m):
    def save(state):
        body = json.dumps(_words(state)).encode()
        return zlib.crc32(body).to_bytes(4, "little") + body

    def load(raw):
        if zlib.crc32(raw[4:]).to_bytes(4, "little") != raw[:4]:
            raise ValueError("changed")
        return _arrays(json.loads(raw[4:]))

    _file(m, save, load)


@caught_by(1)
def zeros_are_written_too(m):
    right = m.sparse_bytes

    def save_compressed(model, path):
        m.sparse_bytes = lambda mask, itemsize=4: {**right(mask, itemsize), "bitmap": 1 << 60}
        try:
            saved(model, path)
        finally:
            m.sparse_bytes = right

    saved = m.save_compressed
    m.save_compressed = save_compressed


@caught_by(1)
def there_is_no_checksum(m):
    class Zlib:
        crc32 = staticmethod(lambda data, value=0: 0)

    m.zlib = Zlib


@caught_by(1)
def a_checksum_is_a_sum(m):
    class Sum:
        @staticmethod
        def crc32(data, value=0):
            return (value + int(np.frombuffer(bytes(data), np.uint8).sum(dtype=np.int64))) & 0xFFFFFFFF

    m.zlib = Sum


@caught_by(1)
def a_file_is_written_in_another_folder(m):
    rewritten(
        m,
        "save_compressed",
        (
            'path.with_name(f".{path.name}.{os.getpid()}.unfinished")',
            'Path(_tempfile.gettempdir()) / f"{path.name}.{os.getpid()}.unfinished"',
        ),
    )
    m._tempfile = tempfile


@caught_by(1)
def what_somebody_stopped_is_left_behind(m):
    rewritten(
        m,
        "save_compressed",
        ("    finally:\n        unfinished", "    except Exception:\n        unfinished"),
        ("unlink(missing_ok=True)", "unlink(missing_ok=True)\n        raise"),
    )


@caught_by(1)
def a_file_grows_where_it_is(m):
    right, replace = m.save_compressed, os.replace

    def save_compressed(model, path):
        now, os.replace = os.replace, replace
        try:
            right(model, f"{path}.tmp")
        finally:
            os.replace = now
        Path(path).write_bytes(Path(f"{path}.tmp").read_bytes())
        os.unlink(f"{path}.tmp")
        os.replace(path, path)

    m.save_compressed = save_compressed


@caught_by(1)
def what_failed_is_left_behind(m):
    class Kept(type(Path())):
        def unlink(self, missing_ok=False):
            pass

    m.Path = Kept


@caught_by(1)
def what_is_loaded_cannot_be_written_to(m):
    right = m.load_compressed

    def load_compressed(path):
        state = right(path)
        for array in state.values():
            array.flags.writeable = False
        return state

    m.load_compressed = load_compressed


@caught_by(1)
def everything_comes_back_as_float32(m):
    right = m.load_compressed
    m.load_compressed = lambda path: {n: a.astype(np.float32) for n, a in right(path).items()}


@caught_by(1)
def everything_comes_back_flat(m):
    right = m.load_compressed
    m.load_compressed = lambda path: {n: a.reshape(-1) for n, a in right(path).items()}


@caught_by(1)
def errors_do_not_name_the_file(m):
    right = m.load_compressed

    def load_compressed(path):
        try:
            return right(path)
        except ValueError:
            raise ValueError("damaged") from None

    m.load_compressed = load_compressed


@caught_by(1)
def a_missing_file_is_damaged(m):
    right = m.load_compressed

    def load_compressed(path):
        try:
            return right(path)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None

    m.load_compressed = load_compressed


@caught_by(1)
def nan_is_not_written(m):
    right = m.save_compressed

    class Holding(m.Module):
        def __init__(self, state):
            self.state = state

        def state_dict(self):
            return self.state

    def save_compressed(model, path):
        state = {n: np.nan_to_num(a) if a.dtype.kind == "f" else a for n, a in model.state_dict().items()}
        right(Holding(state), path)

    m.save_compressed = save_compressed


@caught_by(3)
def a_file_is_put_together_first(m):
    right = m.save_compressed

    def save_compressed(model, path):
        together = b"".join([a.tobytes() for a in model.state_dict().values()] * 1)
        right(model, path)
        del together

    m.save_compressed = save_compressed


@caught_by(3)
def zeros_are_put_back_one_by_one(m):
    right = m.load_compressed

    def load_compressed(path):
        state = right(path)
        for name, array in state.items():
            flat = array.reshape(-1)
            state[name] = np.fromiter((x for x in flat.tolist()), array.dtype, len(flat)).reshape(array.shape)
            for i in range(len(flat)):
                _ = flat[i]
        return state

    m.load_compressed = load_compressed


@caught_by(1)
def what_is_nearly_0_counts_as_0(m):
    rewritten(
        m, "size_report", ("array.size - int(np.count_nonzero(array))", "int(np.isclose(array, 0).sum())")
    )


@caught_by(1)
def what_follows_a_file_is_not_looked_at(m):
    """It says at its beginning how long it is."""
    right = m.save_compressed

    def save_compressed(model, path):
        right(model, path)
        raw = Path(path).read_bytes()
        Path(path).write_bytes(len(raw).to_bytes(8, "little") + raw)

    m.save_compressed = save_compressed
    m.rest_of = lambda raw: raw[8 : 8 + int.from_bytes(raw[:8], "little")]
    rewritten(m, "load_compressed", ("Path(path).read_bytes()", "rest_of(Path(path).read_bytes())"))


@caught_by(1)
def only_what_cannot_be_renamed_is_cleaned_up(m):
    rewritten(
        m,
        "save_compressed",
        (
            '    try:\n        with open(unfinished, "wb")',
            '    if True:\n        with open(unfinished, "wb")',
        ),
        (
            "        os.replace(unfinished, path)\n    finally:",
            "    try:\n        os.replace(unfinished, path)\n    finally:",
        ),
    )


# Time.


@caught_by(3)
def weights_are_ranked_by_python(m):
    def magnitude_mask(weight, sparsity):
        m.check_share("sparsity", sparsity)
        weight = m.as_array(weight)
        flat = np.abs(m.floating(weight)).reshape(-1)
        order = sorted(range(flat.size), key=lambda i: flat[i])
        mask = np.ones(flat.size, bool)
        mask[order[: round(sparsity * flat.size)]] = False
        return mask.reshape(weight.shape)

    m.magnitude_mask = magnitude_mask


@caught_by(4)
def bytes_are_counted_one_by_one(m):
    right = m.sparse_bytes

    def sparse_bytes(mask, itemsize=4):
        kept = sum(1 for x in m.as_array(mask).reshape(-1) if x)
        sizes = right(mask, itemsize)
        sizes["bitmap"] = -(-m.as_array(mask).size // 8) + kept * itemsize
        return sizes

    m.sparse_bytes = sparse_bytes


@caught_by(4)
def rows_are_quantized_one_by_one(m):
    right = m.quantize

    def quantize(x, bits=8, axis=None, symmetric=True, within=None):
        q = right(x, bits, axis, symmetric, within)
        if axis == 0:
            for row in m.floating(m.as_array(x)):
                right(row, bits, None, symmetric)
        return q

    m.quantize = quantize


@caught_by(3)
def numbers_are_quantized_in_float64(m):
    right = m.quantize

    def quantize(x, bits=8, axis=None, symmetric=True, within=None):
        exact = m.floating(m.as_array(x)).astype(np.float64)
        wide = [exact * 1.0]
        q = right(x, bits, axis, symmetric, within)
        del wide
        return q

    m.quantize = quantize


@caught_by(3)
def masks_are_pairs_of_python_s(m):
    right = m.magnitude_mask

    def magnitude_mask(weight, sparsity):
        mask = right(weight, sparsity)
        pairs = list(zip(np.ravel(m.as_array(weight)).tolist(), range(mask.size), strict=True))
        del pairs
        return mask

    m.magnitude_mask = magnitude_mask


@caught_by(1)
def smaller_layers_are_views_of_larger_ones(m):
    right = m.remade

    def remade(layer, **arrays):
        made = right(layer, **arrays)
        made.before = layer
        return made

    m.remade = remade


@caught_by(3)
def observers_keep_batches(m):
    right = m.MinMaxObserver.observe

    def observe(self, x):
        right(self, x)
        self.batches = [*getattr(self, "batches", []), np.array(m.as_array(x))]

    m.MinMaxObserver.observe = observe


# Mutants that cannot be told from the original, and why.
EQUIVALENT: dict[str, str] = {
    "prune_global: np.empty(0) -> np.empty(1)": "of a mask for no weights nothing is handed out",
    "gradual_sparsity: step <= begin -> step < begin": (
        "at `begin` the formula gives `initial`, too, but for rounding"
    ),
    "along: values if axis is None else values.reshape([-1 if i == axis else 1 for i in range(ndim)]) -> "
    "values.reshape([-1 if i == axis else 1 for i in range(ndim)])": (
        "one number broadcasts alike without axes and with axes of length 1"
    ),
    "quantization_grid: np.clip(np.rint(lowest - low / scale), lowest, highest) -> "
    "np.clip(lowest, np.rint(lowest - low / scale), highest)": (
        "the larger of the first two, in either order, and then the smaller of that and the last"
    ),
    "QuantizedArray.dequantize: if self.zero_point.any(): -> if True:": (
        "zeros that are subtracted change no number; it only takes time"
    ),
    "QuantizedArray: dataclass(frozen=True, eq=False) -> dataclass(frozen=False, eq=False)": (
        "given; nobody sets its fields, and no text says what happens then"
    ),
    "QuantizedArray: dataclass(frozen=True, eq=False) -> dataclass(frozen=True, eq=True)": (
        "given; nobody compares or hashes them, and no text says what that would give"
    ),
    "integer_matmul: m.max(initial=0) -> m.max(initial=1)": (
        "a bound that is 1 instead of 0 chooses the same floats for products that are all 0"
    ),
    "integer_matmul: m.min(initial=0) -> m.min(initial=1)": (
        "-1 is never the larger one: beside it is the largest number, or 0"
    ),
    "integer_matmul: largest <= 1 << 24 -> largest < 1 << 24": (
        "float64 is as exact; just where sums may reach 2**24 it takes more time and bytes"
    ),
    "quantized_matmul: np.result_type(a.scale, b.scale) -> np.result_type(b.scale, a.scale)": (
        "dtypes meet in the same one in either order"
    ),
    "quantized_matmul: a.values.sum(axis=1, dtype=np.int64) -> a.values.sum(axis=1)": (
        "numpy adds up bytes in int64 of its own accord where its long integers have 64 bits"
    ),
    "quantized_matmul: b.values.sum(axis=0, dtype=np.int64) -> b.values.sum(axis=0)": (
        "numpy adds up bytes in int64 of its own accord where its long integers have 64 bits"
    ),
    "quantized_affine: 4 * values.shape[1] -> 5 * values.shape[1]": "pieces are smaller, and as right",
    "QuantizedLinear.forward: 1 if scale.ndim else None -> 1": (
        "`along` makes one scale an axis of length 1, which serves all columns"
    ),
    "QuantizedLinear.forward: 1 if scale.ndim else None -> None": (
        "scales of the columns lie along the last axis, where numpy broadcasts them without being told"
    ),
    "QuantizedLinear.forward: quantized_matmul(inputs, weights).astype(array.dtype, copy=False) -> "
    "quantized_matmul(inputs, weights).astype(array.dtype, copy=True)": (
        "the product belongs to nobody else; a copy of it only takes time"
    ),
    "QuantizedConv2d.forward: 0 if scale.ndim else None -> 0": (
        "`along` makes one scale an axis of length 1, which serves all kernels"
    ),
    "distillation_loss: floating(teacher_logits).astype(student.dtype, copy=False) -> "
    "floating(teacher_logits).astype(student.dtype, copy=True)": (
        "nothing writes to the teacher's logits; a copy of them only takes time"
    ),
    "save_compressed: sizes['bitmap'] < sizes['dense'] -> sizes['bitmap'] <= sizes['dense']": (
        "of two of one size either is the smaller, and the layout is free"
    ),
}
