"""Believable wrong solutions of kata 06.  Each takes the reference and spoils one thing in it."""

import contextlib
import functools
import math
import weakref

import numpy as np

from dojo.mistakes import caught_by, rewritten

# Rules. `m.sub` and the other operations are those of kata 02; a second rule takes the place of the first.


@caught_by(1)
def what_is_subtracted_pushes_upwards(m):
    m.sub.gradient(lambda grad: (grad, grad))


@caught_by(1)
def each_factor_gets_its_own_value(m):
    m.mul.gradient(lambda grad, a, b: (grad * a, grad * b))


@caught_by(1)
def a_quotient_forgets_to_square_its_divisor(m):
    m.div.gradient(lambda grad, a, b: (grad / b, -grad * a / b))


@caught_by(1)
def a_root_loses_its_half(m):
    m.sqrt.gradient(lambda grad, out: grad / out)


@caught_by(1)
def a_number_to_the_0_is_nan_at_0(m):
    def power_back(grad, a, b):
        with np.errstate(all="ignore"):
            return grad * (b * np.power(a, np.subtract(b, 1.0))), grad * np.power(a, b) * np.log(a)

    m.power.gradient(power_back)


@caught_by(1)
def a_power_has_no_slope_in_its_exponent(m):
    m.power.gradient(lambda grad, a, b: (np.where(np.equal(b, 0), 0, grad * b * a ** (b - 1)), None))


@caught_by(1)
def the_absolute_value_rises_at_0(m):
    m.absolute.gradient(lambda grad, a: np.where(a >= 0, grad, -grad))


@caught_by(1)
def both_of_two_equals_get_all(m):
    m.maximum.gradient(lambda grad, a, b: (grad * np.greater_equal(a, b), grad * np.greater_equal(b, a)))


@caught_by(1)
def the_first_of_two_equals_gets_all(m):
    m.maximum.gradient(lambda grad, a, b: (grad * np.greater_equal(a, b), grad * np.greater(b, a)))


@caught_by(1)
def clip_holds_what_lies_on_a_bound(m):
    def clip_back(grad, a, min, max):
        low, high = (-np.inf if min is None else min), (np.inf if max is None else max)
        return grad * ((a > low) & (a < high))

    m.clip.gradient(clip_back)


@caught_by(1)
def clip_needs_both_bounds(m):
    m.clip.gradient(lambda grad, a, min, max: grad * ((a >= (min or 0)) & (a <= (max or 0))))


@caught_by(1)
def where_multiplies_by_a_mask(m):
    def where_back(grad, condition):
        with np.errstate(all="ignore"):
            return None, grad * condition, grad * np.logical_not(condition)

    m.where.gradient(where_back)


@caught_by(1)
def where_forgets_that_its_condition_is_an_input(m):
    m.where.gradient(lambda grad, condition: (np.where(condition, grad, 0), np.where(condition, 0, grad)))


@caught_by(1)
def a_product_transposes_the_wrong_one(m):
    m.matmul.gradient(lambda grad, a, b: (np.swapaxes(b @ np.swapaxes(grad, -1, -2), -1, -2), grad @ b))


@caught_by(1)
def a_product_knows_matrices_only(m):
    m.matmul.gradient(lambda grad, a, b: (grad @ np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2) @ grad))


@caught_by(1)
def a_product_of_nothing_cannot_be_folded(m):
    def matmul_back(grad, a, b):
        row, column = a.ndim == 1, b.ndim == 1
        a, b = a[None] if row else a, b[:, None] if column else b
        grad = np.expand_dims(grad, (-2,) * row + (-1,) * column)
        for_a = grad @ np.swapaxes(b, -1, -2)
        if b.ndim == 2:
            for_b = a.reshape(-1, a.shape[-1]).T @ grad.reshape(-1, grad.shape[-1])
        else:
            for_b = np.swapaxes(a, -1, -2) @ grad
        return for_a[..., 0, :] if row else for_a, for_b[..., 0] if column else for_b

    m.matmul.gradient(matmul_back)


@caught_by(1)
def a_mean_divides_by_everything(m):
    def mean_back(grad, input_shapes, axis, keepdims):
        return m.spread(grad / max(1, math.prod(input_shapes[0])), input_shapes[0], axis, keepdims)

    m.mean.gradient(mean_back)


@caught_by(1)
def a_mean_is_a_sum_on_the_way_back(m):
    def mean_back(grad, input_shapes, axis, keepdims):
        return m.spread(grad, input_shapes[0], axis, keepdims)

    m.mean.gradient(mean_back)


@caught_by(1)
def a_variance_forgets_its_correction(m):
    def var_back(grad, a, axis, correction, keepdims):
        count = a.size // max(grad.size, 1)
        return m.spread(2 * grad / max(count, 1), a.shape, axis, keepdims) * (a - a.mean(axis, keepdims=True))

    m.var.gradient(var_back)


@caught_by(1)
def a_reduced_axis_comes_back_in_front(m):
    def spread(grad, shape, axis, keepdims):
        if axis is not None and not keepdims:
            axes = axis if isinstance(axis, tuple) else (axis,)
            grad = grad.reshape((1,) * len(axes) + grad.shape)
        return np.broadcast_to(grad, shape)

    m.spread = spread


@caught_by(1)
def an_axis_from_the_end_is_counted_without_the_missing_ones(m):
    def spread(grad, shape, axis, keepdims):
        if axis is not None and not keepdims:
            for one in axis if isinstance(axis, tuple) else (axis,):
                grad = np.expand_dims(grad, one % (grad.ndim + 1))
        return np.broadcast_to(grad, shape)

    m.spread = spread


@caught_by(1)
def each_of_the_largest_gets_all(m):
    def amax_back(grad, a, out, axis, keepdims):
        return m.spread(grad, a.shape, axis, keepdims) * (a == m.spread(out, a.shape, axis, keepdims))

    m.amax.gradient(amax_back)


@caught_by(1)
def only_the_first_of_the_smallest_gets_any(m):
    def amin_back(grad, a, out, axis, keepdims):
        chosen = a == m.spread(out, a.shape, axis, keepdims)
        if isinstance(axis, tuple) or axis is None:
            first = np.zeros(a.shape, bool)
            first.flat[np.argmax(chosen)] = True
        else:
            first = chosen & (np.cumsum(chosen, axis) == 1)
        return m.spread(grad, a.shape, axis, keepdims) * first

    m.amin.gradient(amin_back)


@caught_by(1)
def a_permutation_is_applied_once_more(m):
    m.permute.gradient(lambda grad, axes: np.transpose(grad, axes))


@caught_by(1)
def a_permutation_knows_no_axes_from_the_end(m):
    m.permute.gradient(lambda grad, axes: np.transpose(grad, np.argsort(axes)))


@caught_by(1)
def a_view_wants_no_copy_on_the_way_back_either(m):
    m.view.gradient(lambda grad, input_shapes: m.view.forward(grad, shape=input_shapes[0]))


@caught_by(1)
def a_gradient_is_read_in_the_order_of_memory(m):
    m.contiguous.gradient(lambda grad: grad.ravel(order="K").reshape(grad.shape))


@caught_by(1)
def what_was_picked_twice_counts_once(m):
    def getitem_back(grad, input_shapes, index):
        full = np.zeros(input_shapes[0], grad.dtype)
        full[index] += grad
        return full

    m.getitem.gradient(getitem_back)


@caught_by(1)
def pieces_are_cut_into_equal_parts(m):
    m.join.gradient(lambda grad, lengths, axis: np.array_split(grad, len(lengths), axis))


@caught_by(1)
def pieces_are_cut_along_the_first_axis(m):
    m.join.gradient(lambda grad, lengths, axis: np.split(grad, np.cumsum(lengths)[:-1]))


@caught_by(1)
def a_base_of_0_has_no_slope_in_any_exponent(m):
    rewritten(m, "power_back", ("(a == 0) & np.greater_equal(b, 0)", "(a == 0)"))


@caught_by(1)
def a_root_is_kept_from_0_by_a_little(m):
    m.sqrt.gradient(lambda grad, out: grad / (2 * out + 1e-12))


@caught_by(1)
def a_logarithm_is_kept_from_0_by_a_little(m):
    m.log.gradient(lambda grad, a: grad / (a + 1e-12))


@caught_by(1)
def a_quotient_is_kept_from_0_by_a_little(m):
    m.div.gradient(lambda grad, out, b: (grad / (b + 1e-12), -grad * out / (b + 1e-12)))


@caught_by(1)
def an_infinite_number_has_no_sign(m):
    def absolute_back(grad, a, out):
        with np.errstate(all="ignore"):
            return grad * a / np.where(out == 0, 1, out)

    m.absolute.gradient(absolute_back)


@caught_by(1)
def a_condition_must_be_an_array(m):
    rewritten(m, "where_back", ("np.where(condition, 0, grad)", "np.where(~condition.astype(bool), grad, 0)"))


@caught_by(1)
def a_mean_of_no_axis_is_one_of_all(m):
    rewritten(
        m,
        "mean_back",
        (
            "math.prod(input_shapes[0]) // max(grad.size, 1)",
            "math.prod(input_shapes[0]) // max(grad.size if axis != () else 1, 1)",
        ),
    )


@caught_by(1)
def a_correction_is_1_or_nothing(m):
    rewritten(m, "var_back", ("count - correction", "count - bool(correction)"))


@caught_by(1)
def a_variance_of_too_few_has_a_slope(m):
    rewritten(m, "var_back", ("max(count - correction, 0)", "(count - correction)"))


@caught_by(1)
def what_is_nearly_the_largest_shares(m):
    equal, near = (
        "a == spread(out, a.shape, axis, keepdims)",
        "np.isclose(a, spread(out, a.shape, axis, keepdims))",
    )
    rewritten(m, "_share_among_equals", (equal, near))


@caught_by(1)
def what_is_nearly_as_large_gets_half(m):
    def maximum_back(grad, a, b):
        near, larger = np.isclose(a, b), np.greater(a, b)
        for_a = np.where(near, grad / 2, np.where(larger, grad, 0))
        return for_a, np.where(near, grad / 2, np.where(larger, 0, grad))

    m.maximum.gradient(maximum_back)


@caught_by(1)
def what_was_picked_gets_its_gradient_in_float64(m):
    rewritten(m, "getitem_back", ("np.zeros(input_shapes[0], grad.dtype)", "np.zeros(input_shapes[0])"))


@caught_by(1)
def products_are_computed_in_float64(m):
    rewritten(
        m, "matmul_back", ("np.asarray(a), np.asarray(b)", "np.asarray(a, float), np.asarray(b, float)")
    )


@caught_by(1)
def a_tuple_inside_of_an_index_is_no_list(m):
    rewritten(m, "getitem_back", ("(list, tuple, np.ndarray)", "(list, np.ndarray)"))


@caught_by(1)
def a_number_beside_float32_becomes_a_float64_array(m):
    m.mul.gradient(lambda grad, a, b: (grad * np.asarray(b), grad * np.asarray(a)))


@caught_by(1)
def a_list_of_exponents_is_compared_with_0_as_a_whole(m):
    rewritten(m, "power_back", ("np.equal(b, 0)", "b == 0"))


@caught_by(1)
def unsigned_numbers_do_not_pick(m):
    rewritten(m, "getitem_back", ('in "iu"', '== "i"'))


@caught_by(1)
def an_element_picked_from_either_end_is_two(m):
    rewritten(
        m,
        "getitem_back",
        ('part.dtype.kind in "iu"', 'part.dtype.kind in "iu" and len({*part.ravel().tolist()}) < part.size'),
    )


@caught_by(1)
def axes_that_were_squeezed_come_back_one_by_one(m):
    def squeeze_back(grad, input_shapes, axis):
        if axis is None:
            return grad.reshape(input_shapes[0])
        for one in axis if isinstance(axis, tuple) else (axis,):
            grad = np.expand_dims(grad, one)
        return grad

    m.squeeze.gradient(squeeze_back)


# The graph.


def _record(m, record):
    m.record = record
    m.set_recorder(record)


@caught_by(1)
def recording_waits_to_be_asked_for(m):
    m.set_recorder(None)


@caught_by(1)
def a_missing_rule_is_an_error_before_anybody_wants_it(m):
    right = m.record

    def record(op, inputs, arrays, params, out):
        if op.pull is None:
            raise TypeError(f"{op.name} has no gradient rule")
        right(op, inputs, arrays, params, out)

    _record(m, record)


@caught_by(1)
def only_nodes_of_this_recorder_are_nodes(m):
    rewritten(
        m, "source_of", ("x if x.node is None else x.node", "x.node if isinstance(x.node, Node) else x")
    )


@caught_by(1)
def constants_are_sources_too(m):
    def record(op, inputs, arrays, params, out):
        sources = [x if not isinstance(x, m.Tensor) or x.node is None else x.node for x in inputs]
        sources = [x if isinstance(x, (m.Node, m.Tensor)) else None for x in sources]
        out.node = m.Node(op, op.keep(out.data, arrays, params), sources, out.data)

    _record(m, record)


@caught_by(1)
def a_constant_written_over_is_a_leaf_of_its_own(m):
    def record(op, inputs, arrays, params, out):
        sources = [m.source_of(x) for x in inputs]
        out.node = m.Node(op, op.keep(out.data, arrays, params), sources, out.data)

    _record(m, record)


@caught_by(1)
def only_new_axes_are_added_up(m):
    def unbroadcast(grad, shape):
        return grad.sum(axis=tuple(range(grad.ndim - len(shape)))).reshape(shape)

    m.unbroadcast = unbroadcast


@caught_by(1)
def only_axes_of_length_1_are_added_up(m):
    def unbroadcast(grad, shape):
        axes = tuple(i for i, n in enumerate(shape) if n == 1)
        return grad.sum(axis=axes, keepdims=True).reshape(shape)

    m.unbroadcast = unbroadcast


@caught_by(1)
def stretched_axes_are_looked_for_from_the_left(m):
    right = m.unbroadcast

    def unbroadcast(grad, shape):
        if grad.ndim == len(shape):
            return right(grad, shape)
        padded = shape + (1,) * (grad.ndim - len(shape))
        return grad.sum(tuple(i for i, n in enumerate(padded) if n == 1), keepdims=True).reshape(shape)

    m.unbroadcast = unbroadcast


@caught_by(1)
def any_gradient_is_brought_to_any_shape(m):
    def unbroadcast(grad, shape):
        if np.broadcast_shapes(grad.shape, shape) != grad.shape:
            return np.broadcast_to(grad, shape)
        extra = grad.ndim - len(shape)
        axes = [extra + i for i, n in enumerate(shape) if n == 1]
        return grad.sum((*range(extra), *axes), keepdims=True).reshape(shape)

    m.unbroadcast = unbroadcast


@caught_by(1)
def nodes_come_in_the_order_in_which_they_are_met(m):
    def topological(root, ends=()):
        order = {root: None}
        for item in (todo := [root]):
            for source in m.sources_of(item, ends):
                if source is not None and source not in order:
                    order[source] = None
                    todo.append(source)
        return list(order)

    m.topological = topological


@caught_by(1)
def the_walk_calls_itself(m):
    def topological(root, ends=()):
        order = {}

        def visit(item):
            if item is not None and item not in order:
                for source in m.sources_of(item, ends):
                    visit(source)
                order[item] = None

        visit(root)
        return [*order][::-1]

    m.topological = topological


@caught_by(1)
def the_ends_are_passed_by(m):
    right = m.topological
    m.topological = lambda root, ends=(): right(root)


@caught_by(1)
def the_ends_are_left_out(m):
    right = m.topological
    m.topological = lambda root, ends=(): [item for item in right(root, ends) if item not in ends]


def _shares_of(m, mend):
    """The engine's reading of a rule, with `mend(source, share)` in place of shape and dtype."""

    def shares_of(node, grad):
        grad = m.hooked(node.hooks or (), grad)
        shares = node.op.pull(grad, *node.kept)
        shares = shares if isinstance(shares, (tuple, list)) else (shares,)
        if any(source is not None for source in node.sources[len(shares) :]):
            raise TypeError(f"{node.op.name}: the rule gave too few gradients")
        for source, share in zip(node.sources, shares, strict=False):
            if source is not None and share is not None:
                yield source, mend(source, share)

    m.shares_of = shares_of


@caught_by(1)
def shares_keep_the_dtype_of_the_result(m):
    def mend(source, share):
        return share if share.shape == source.shape else m.unbroadcast(share, source.shape)

    _shares_of(m, mend)


@caught_by(1)
def nobody_undoes_broadcasting(m):
    _shares_of(m, lambda source, share: share.astype(source.dtype))


@caught_by(1)
def a_rule_may_forget_an_input(m):
    right = m.shares_of

    def shares_of(node, grad):
        with contextlib.suppress(TypeError):
            yield from right(node, grad)
            return
        yield node.sources[0], node.op.pull(grad, *node.kept)

    m.shares_of = shares_of


@caught_by(1)
def a_list_of_gradients_is_taken_for_one(m):
    def shares_of(node, grad):
        shares = node.op.pull(m.hooked(node.hooks or (), grad), *node.kept)
        shares = shares if isinstance(shares, tuple) else (np.asarray(shares),)
        if any(source is not None for source in node.sources[len(shares) :]):
            raise TypeError(f"{node.op.name}: the rule gave too few gradients")
        for source, share in zip(node.sources, shares, strict=False):
            if source is not None and share is not None:
                yield source, m.unbroadcast(np.asarray(share, source.dtype), source.shape)

    m.shares_of = shares_of


@caught_by(1)
def a_share_of_as_many_numbers_is_reshaped(m):
    rewritten(
        m,
        "shares_of",
        (
            "share = unbroadcast(share, source.shape)",
            "fits = share.size == math.prod(source.shape)\n" + " " * 16 + "share = "
            "share.reshape(source.shape) if fits else unbroadcast(share, source.shape)",
        ),
    )


@caught_by(1)
def a_rule_is_asked_twice(m):
    right = m.shares_of

    def shares_of(node, grad):
        if node.op.name != "checkpointed":
            node.op.pull(grad, *node.kept)
        return right(node, grad)

    m.shares_of = shares_of


@caught_by(1)
def what_was_freed_is_not_named(m):
    rewritten(m, "look_over", ('f"{name} {node.shape} was freed', 'f"the graph was freed'))


@caught_by(1)
def nodes_are_looked_over_twice(m):
    """The second time an iterator has nothing left."""
    right = m.look_over

    def look_over(nodes):
        for node in nodes:
            if node.kept is None:
                right([node])
        right(nodes)

    m.look_over = look_over
    rewritten(
        m,
        "flow",
        (
            "look_over(item for item in order if isinstance(item, Node) and item not in ends)",
            "look_over([item for item in order if isinstance(item, Node) and item not in ends])",
        ),
    )


@caught_by(1)
def hooks_of_results_are_not_called(m):
    right = m.shares_of

    def shares_of(node, grad):
        node.hooks = None
        return right(node, grad)

    m.shares_of = shares_of


@caught_by(1)
def nobody_looks_for_writes(m):
    def look_over(nodes):
        for node in nodes:
            if node.kept is None:
                raise RuntimeError(f"{node.op.name} was freed: retain_graph")
            if node.op.pull is None:
                raise TypeError(node.op.name)

    m.look_over = look_over


@caught_by(1)
def any_write_since_spoils_everything(m):
    right = m.look_over

    def look_over(nodes):
        nodes = [*nodes]
        right(nodes)
        for node in nodes:
            if node.kept and m.version() > node.made:
                raise RuntimeError(f"something that {node.op.name} kept was changed")

    m.look_over = look_over


@caught_by(1)
def any_write_ever_spoils_everything(m):
    right = m.look_over

    def look_over(nodes):
        nodes = [*nodes]
        for node in nodes:
            node.made = 0
        right(nodes)

    m.look_over = look_over


@caught_by(1)
def a_list_that_was_kept_is_not_looked_into(m):
    m._arrays_in = lambda kept: (item for item in kept if isinstance(item, np.ndarray))


@caught_by(1)
def a_freed_graph_gives_nothing_and_says_nothing(m):
    right = m.look_over
    m.look_over = lambda nodes: right(node for node in nodes if node.kept is not None)
    shares = m.shares_of
    m.shares_of = lambda node, grad: iter(()) if node.kept is None else shares(node, grad)


@caught_by(1)
def errors_come_when_half_is_done(m):
    right_look, right_shares = m.look_over, m.shares_of
    m.look_over = lambda nodes: None

    def shares_of(node, grad):
        right_look([node])
        return right_shares(node, grad)

    m.shares_of = shares_of


def _flow(m, carry, free=True):
    """The reference's walk, but for how `carry(pending, source, share)` adds up."""

    def flow(root, grad, retain_graph=False, ends=()):
        order = m.topological(root, ends)
        m.look_over(item for item in order if isinstance(item, m.Node) and item not in ends)
        pending = {root: grad}
        for item in order:
            if isinstance(item, m.Node) and item not in ends:
                if item in pending:
                    for source, share in m.shares_of(item, np.asarray(pending.pop(item))):
                        carry(pending, source, share)
                if free and not retain_graph:
                    item.kept, item.sources = None, ()
            elif item in pending:
                yield item, np.asarray(pending.pop(item))

    m.flow = flow


@caught_by(1)
def the_last_use_of_a_result_wins(m):
    _flow(m, lambda pending, source, share: pending.__setitem__(source, share))


@caught_by(1)
def a_walk_goes_on_from_an_end_where_it_begins(m):
    right = m.flow
    m.flow = lambda root, grad, retain_graph=False, ends=frozenset(): right(
        root, grad, retain_graph, frozenset(ends) - {root}
    )


@caught_by(1)
def gradients_on_their_way_are_added_in_place(m):
    def carry(pending, source, share):
        if source in pending:
            pending[source] = np.asarray(pending[source])
            pending[source] += share
        else:
            pending[source] = share

    _flow(m, carry)


@caught_by(1)
def a_graph_can_be_walked_any_number_of_times(m):
    def carry(pending, source, share):
        pending[source] = pending[source] + share if source in pending else share

    _flow(m, carry, free=False)


def _backward(m, deliver, check=True):
    """The reference's `backward`, but for how `deliver(leaf, share)` adds to `.grad`."""

    def backward(x, grad=None, retain_graph=False):
        root = m.source_of(x)
        if root is None:
            raise RuntimeError("not recorded: import tinytorch.autograd first")
        if grad is None:
            if check and x.size != 1:
                raise ValueError(f"{x.shape} needs a gradient")
            grad = np.ones_like(x.data)
        grad = np.asarray(grad.data if isinstance(grad, m.Tensor) else grad, x.dtype)
        if check and grad.shape != x.shape:
            raise ValueError(f"{grad.shape} is not {x.shape}")
        for leaf, share in m.flow(root, grad, retain_graph):
            deliver(leaf, m.hooked(m._leaf_hooks.get(id(leaf), ()), share))

    m.backward = backward


@caught_by(1)
def a_new_gradient_takes_the_place_of_the_old(m):
    _backward(m, lambda leaf, share: setattr(leaf, "grad", share.copy()))


@caught_by(1)
def a_gradient_is_handed_out_uncopied(m):
    def deliver(leaf, share):
        leaf.grad = share if leaf.grad is None else leaf.grad + share

    _backward(m, deliver)


@caught_by(1)
def a_gradient_that_is_nan_is_hidden(m):
    def deliver(leaf, share):
        share = np.nan_to_num(share)
        leaf.grad = np.array(share if leaf.grad is None else leaf.grad + share)

    _backward(m, deliver)


@caught_by(1)
def a_gradient_without_axes_is_no_array(m):
    def deliver(leaf, share):
        leaf.grad = share[()] * 1 if leaf.grad is None else leaf.grad + share

    _backward(m, deliver)


@caught_by(1)
def many_numbers_have_a_gradient_of_ones_by_default(m):
    right = m.backward

    def backward(x, grad=None, retain_graph=False):
        right(x, np.ones_like(x.data) if grad is None else grad, retain_graph)

    m.backward = backward


@caught_by(1)
def a_gradient_of_0_is_taken_for_none(m):
    right = m.backward

    def backward(x, grad=None, retain_graph=False):
        bare = grad.data if isinstance(grad, m.Tensor) else grad
        right(x, None if np.size(bare) == 1 and not np.any(bare) else grad, retain_graph)

    m.backward = backward


@caught_by(1)
def a_gradient_keeps_the_dtype_in_which_it_came(m):
    rewritten(m, "backward", ("np.asarray(grad, tensor.dtype)", "np.asarray(grad)"))


@caught_by(1)
def a_leaf_takes_the_array_that_it_is_given(m):
    rewritten(
        m, "backward", ("leaf.grad = share.copy()", "leaf.grad = share.copy() if tensor.node else share")
    )


@caught_by(1)
def a_gradient_of_any_shape_is_stretched(m):
    right = m.backward

    def backward(x, grad=None, retain_graph=False):
        if grad is not None:
            bare = grad.data if isinstance(grad, m.Tensor) else grad
            with contextlib.suppress(ValueError):
                grad = np.broadcast_to(np.asarray(bare, x.dtype), x.shape)
        right(x, grad, retain_graph)

    m.backward = backward


@caught_by(1)
def a_list_goes_through_float32(m):
    right = m.backward

    def backward(x, grad=None, retain_graph=False):
        right(x, grad if grad is None else m.as_array(grad), retain_graph)

    m.backward = backward


# Switching off, and listening.


@caught_by(1)
def leaving_no_grad_always_switches_recording_on(m):
    @contextlib.contextmanager
    def no_grad():
        m.set_recorder(None)
        try:
            yield
        finally:
            m.set_recorder(m.record)

    m.no_grad = no_grad


@caught_by(1)
def an_error_leaves_recording_switched_off(m):
    @contextlib.contextmanager
    def no_grad():
        previous = m.set_recorder(None)
        yield
        m.set_recorder(previous)

    m.no_grad = no_grad


class _ForFunctions:
    """A `no_grad` whose decorator is written out."""

    def __init__(self, m, around):
        self.m, self.around = m, around

    def __enter__(self):
        self.previous = self.m.set_recorder(None)

    def __exit__(self, *exc):
        self.m.set_recorder(self.previous)

    def __call__(self, function):
        return functools.wraps(function)(self.around(function))


@caught_by(1)
def an_error_in_a_function_leaves_recording_switched_off(m):
    def around(function):
        def quiet(*args, **options):
            previous = m.set_recorder(None)
            out = function(*args, **options)
            m.set_recorder(previous)
            return out

        return quiet

    m.no_grad = lambda: _ForFunctions(m, around)


@caught_by(1)
def a_function_under_no_grad_has_no_keywords(m):
    def around(function):
        def quiet(*args):
            with m.no_grad():
                return function(*args)

        return quiet

    m.no_grad = lambda: _ForFunctions(m, around)


@caught_by(1)
def no_grad_remembers_one_recorder_for_all(m):
    class NoGrad(contextlib.ContextDecorator):
        def __enter__(self):
            NoGrad.previous = m.set_recorder(None)

        def __exit__(self, *exc):
            m.set_recorder(NoGrad.previous)

    m.no_grad = NoGrad


@caught_by(1)
def no_grad_remembers_one_recorder_for_a_function(m):
    class NoGrad(contextlib.ContextDecorator):
        def __enter__(self):
            self.previous = m.set_recorder(None)

        def __exit__(self, *exc):
            m.set_recorder(self.previous)

    m.no_grad = NoGrad


@caught_by(1)
def no_grad_asks_who_records_when_it_is_made(m):
    class NoGrad(contextlib.ContextDecorator):
        def __init__(self):
            self.previous = m.set_recorder(None)
            m.set_recorder(self.previous)

        def __enter__(self):
            m.set_recorder(None)

        def __exit__(self, *exc):
            m.set_recorder(self.previous)

    m.no_grad = NoGrad


@caught_by(1)
def whether_it_records_is_known_to_no_grad_alone(m):
    enabled = [True]

    @contextlib.contextmanager
    def no_grad():
        before, was, enabled[0] = m.set_recorder(None), enabled[0], False
        try:
            yield
        finally:
            m.set_recorder(before)
            enabled[0] = was

    m.no_grad, m.is_grad_enabled = no_grad, lambda: enabled[0]


@caught_by(1)
def asking_switches_off(m):
    m.is_grad_enabled = lambda: m.set_recorder(None) is not None


@caught_by(1)
def hooks_of_leaves_see_each_share_by_itself(m):
    right, hooked, found = m.shares_of, m.hooked, m._leaf_hooks

    def shares_of(node, grad):
        for source, share in right(node, grad):
            hooks = () if isinstance(source, m.Node) else found.get(id(source), ())
            yield source, hooked(hooks, share)

    def for_results_only(hooks, grad):
        return grad if any(hooks is other for other in found.values()) else hooked(hooks, grad)

    m.shares_of, m.hooked = shares_of, for_results_only


@caught_by(1)
def hooks_outlive_their_tensors(m):
    class Silent:
        @staticmethod
        def finalize(*args):
            return None

        ref = weakref.ref

    m.weakref = Silent


@caught_by(1)
def a_hook_only_watches(m):
    right = m.hooked

    def hooked(hooks, grad):
        right(hooks, grad)
        return grad

    m.hooked = hooked


@caught_by(1)
def removing_a_hook_twice_is_an_error(m):
    right = m.register_hook

    def register_hook(x, hook):
        right(x, hook)
        source = m.source_of(x)
        hooks = source.hooks if isinstance(source, m.Node) else m._leaf_hooks[id(source)]
        return lambda: hooks.remove(hook)

    m.register_hook = register_hook


@caught_by(1)
def removing_a_hook_twice_removes_its_equal(m):
    rewritten(
        m,
        "register_hook",
        ("hooks.append(own)", "hooks.append(hook)"),
        ("if own in hooks", "if hook in hooks"),
        ("hooks.remove(own)", "hooks.remove(hook)"),
    )


@caught_by(1)
def what_a_hook_returns_becomes_the_gradient_itself(m):
    rewritten(
        m,
        "backward",
        ("id(leaf), ()), share)", "id(leaf), ()), share.copy())"),
        ("leaf.grad = share.copy()", "leaf.grad = share"),
    )


# Computing again.


@caught_by(1)
def a_checkpoint_asks_for_gradients_of_all_its_inputs(m):
    rewritten(
        m,
        "checkpointed",
        ("Tensor(x.data, x.requires_grad)", 'Tensor(x.data, x.dtype.kind == "f")'),
        (
            "states, out.requires_grad",
            "states, out.requires_grad and any(source_of(x) is not None for x in (*inputs, *outside))",
        ),
    )


@caught_by(1)
def only_a_parameter_may_be_returned_from_outside(m):
    rewritten(m, "checkpointed", ("    note(out)", "    if out.node is None:\n        note(out)"))


@caught_by(1)
def only_the_first_segment_puts_its_generators_back(m):
    rewritten(m, "checkpoint_sequential", ("rngs=rngs)", "rngs=() if start else rngs)"))


@caught_by(1)
def parameters_inside_a_checkpoint_learn_nothing(m):
    right = m.checkpointed.run

    def run(arrays, params):
        result, params = right(arrays, params)
        return result, {**params, "outside": []}

    m.checkpointed.run = run


@caught_by(1)
def a_tensor_that_is_handed_over_twice_is_one(m):
    rewritten(
        m,
        "checkpointed",
        (
            "[Tensor(x.data, x.requires_grad) if isinstance(x, Tensor) else x for x in inputs]",
            "[{id(y): y for y in inputs}[id(x)] for x in inputs]\n"
            "    fresh = {id(x): Tensor(x.data, x.requires_grad) for x in inner if isinstance(x, Tensor)}\n"
            "    inner = [fresh.get(id(x), x) for x in inner]",
        ),
    )


@caught_by(1)
def only_the_first_generator_is_put_back(m):
    rewritten(m, "checkpointed_back", ("in zip(rngs, states, strict=True)", "in [*zip(rngs, states)][:1]"))


@caught_by(1)
def a_checkpoint_goes_back_by_backward(m):
    def again(grad, function, rngs, inner, outside, states):
        before = m.set_recorder(m.record)
        try:
            fresh = [m.Tensor(x.data, x.requires_grad) if isinstance(x, m.Tensor) else x for x in inner]
            m.backward(function(*fresh), grad, retain_graph=True)
        finally:
            m.set_recorder(before)
        return [getattr(x, "grad", None) for x in fresh] + [None] * len(outside)

    m.checkpointed.gradient(again)


def _again(m, before, after):
    """The reference's way back through a checkpoint, with something else done to the generators."""

    def back(grad, function, rngs, inner, outside, states):
        kept = before(rngs, states)
        recorder = m.set_recorder(m.record)
        try:
            root = m.source_of(function(*inner))
        finally:
            m.set_recorder(recorder)
            after(rngs, kept)
        found = dict(m.flow(root, grad, ends={m.source_of(x) for x in outside}))
        return [found.get(m.source_of(x)) for x in (*inner, *outside)]

    m.checkpointed.gradient(back)


@caught_by(1)
def a_checkpoint_draws_another_mask(m):
    _again(m, lambda rngs, states: None, lambda rngs, kept: None)


@caught_by(1)
def a_checkpoint_leaves_its_generators_in_the_past(m):
    def rewind(rngs, states):
        for rng, state in zip(rngs, states, strict=True):
            rng.bit_generator.state = state

    _again(m, rewind, lambda rngs, kept: None)


@caught_by(1)
def a_checkpoint_goes_on_into_the_graph_outside(m):
    right = m.flow
    m.flow = lambda root, grad, retain_graph=False, ends=(): right(root, grad, retain_graph)


@caught_by(1)
def a_checkpoint_counts_only_inputs_that_need_gradients(m):
    right = m.checkpoint

    def checkpoint(function, *inputs, rngs=()):
        if not any(m.source_of(x) is not None for x in inputs):
            with m.no_grad():
                return function(*inputs)
        return right(function, *inputs, rngs=rngs)

    m.checkpoint = checkpoint


@caught_by(1)
def a_checkpoint_records_under_no_grad(m):
    right = m.checkpoint

    def checkpoint(function, *inputs, rngs=()):
        before = m.set_recorder(m.record)
        try:
            return right(function, *inputs, rngs=rngs)
        finally:
            m.set_recorder(before)

    m.checkpoint = checkpoint


@caught_by(1)
def every_segment_runs_the_last_layers(m):
    def checkpoint_sequential(layers, segments, x, rngs=()):
        layers = list(layers)
        if segments < 1:
            raise ValueError(segments)
        size = max(1, math.ceil(len(layers) / segments))
        for start in range(0, len(layers), size):

            def piece(x):
                for layer in layers[start : start + size]:  # noqa: B023
                    x = layer(x)
                return x

            x = m.checkpoint(piece, x, rngs=rngs) if start + size < len(layers) else piece(x)
        return x

    m.checkpoint_sequential = checkpoint_sequential


@caught_by(1)
def layers_that_are_left_over_are_left_out(m):
    right = m.checkpoint_sequential

    def checkpoint_sequential(layers, segments, x, rngs=()):
        layers = list(layers)
        if segments > 0 and len(layers) > segments:
            layers = layers[: len(layers) // segments * segments]
        return right(layers, segments, x, rngs)

    m.checkpoint_sequential = checkpoint_sequential


@caught_by(1)
def what_is_left_over_goes_to_the_last_segment(m):
    rewritten(
        m,
        "checkpoint_sequential",
        (
            "[len(layers) * i // segments for i in range(segments + 1)]",
            "[len(layers) // segments * i for i in range(segments)] + [len(layers)]",
        ),
    )


@caught_by(1)
def segments_are_as_long_as_the_first(m):
    """11 layers in 4 are 3, 3, 3 and 2, but 9 in 5 are four of 2 and one of 1."""
    rewritten(
        m,
        "checkpoint_sequential",
        (
            "[len(layers) * i // segments for i in range(segments + 1)]",
            "[*range(0, len(layers), math.ceil(len(layers) / segments) or 1), len(layers)]",
        ),
    )


@caught_by(1)
def the_last_segment_is_computed_twice_as_well(m):
    right = m.checkpoint_sequential

    def checkpoint_sequential(layers, segments, x, rngs=()):
        layers = [*layers, lambda x: x] if segments > 0 else layers
        return right(layers, segments + (segments > 0), x, rngs)

    m.checkpoint_sequential = checkpoint_sequential


# Checking.


@caught_by(1)
def gradcheck_weighs_with_ones(m):
    right = m.gradcheck

    class Ones:
        @staticmethod
        def standard_normal(shape):
            return np.ones(shape)

    m.gradcheck = lambda function, *arrays, rng, **tolerances: right(
        function, *arrays, rng=Ones, **tolerances
    )


@caught_by(1)
def gradcheck_has_a_generator_of_its_own(m):
    rewritten(m, "gradcheck", ("rng.standard_normal", "np.random.default_rng(0).standard_normal"))


@caught_by(1)
def gradcheck_is_content_with_anything_near(m):
    right = m.gradcheck
    m.gradcheck = lambda function, *arrays, rng, rtol=1e-1, atol=1e-1: right(
        function, *arrays, rng=rng, rtol=rtol, atol=atol
    )


@caught_by(1)
def gradcheck_looks_at_the_first_argument_only(m):
    right = m.gradcheck

    def gradcheck(function, *arrays, rng, **tolerances):
        constants = [m.Tensor(np.asarray(a)) if isinstance(a, np.ndarray) else a for a in arrays[1:]]
        return right(lambda x: function(x, *constants), arrays[0], rng=rng, **tolerances)

    m.gradcheck = gradcheck


@caught_by(1)
def gradcheck_returns_what_it_thinks(m):
    right = m.gradcheck

    def gradcheck(function, *arrays, rng, **tolerances):
        try:
            return right(function, *arrays, rng=rng, **tolerances)
        except AssertionError:
            return False

    m.gradcheck = gradcheck


def _gradcheck_moves(m, which):
    rewritten(m, "gradcheck", ('if np.asarray(a).dtype.kind == "f"', f"if {which}"))


@caught_by(1)
def gradcheck_hands_lists_of_floats_on(m):
    _gradcheck_moves(m, 'isinstance(a, (float, np.ndarray)) and np.asarray(a).dtype.kind == "f"')


@caught_by(1)
def gradcheck_moves_every_list(m):
    _gradcheck_moves(m, 'isinstance(a, (float, list)) or np.asarray(a).dtype.kind == "f"')


@caught_by(1)
def gradcheck_moves_every_number(m):
    _gradcheck_moves(m, 'isinstance(a, (float, int)) or np.asarray(a).dtype.kind == "f"')


@caught_by(1)
def gradcheck_makes_arrays_of_all_else(m):
    rewritten(m, "gradcheck", ("else a for a in arrays", "else np.asarray(a) for a in arrays"))


# Forward mode.


@caught_by(1)
def a_tangent_stays_in_its_own_dtype(m):
    rewritten(m, "jvp", ("np.asarray(as_array(tangent), x.dtype)", "np.asarray(tangent)"))


@caught_by(1)
def tangents_that_are_left_over_do_not_matter(m):
    right = m.jvp

    def jvp(function, primals, tangents):
        return right(function, primals, tangents[: len(primals)])

    m.jvp = jvp


@caught_by(1)
def an_operation_is_done_again_for_its_tangent(m):
    @m.forward_rule("sigmoid_", "relu_", "tanh_", "dropout")
    def push(op, tangents, arrays, params, out):
        return op.vjp(*arrays, **{name: params[name] for name in op.params if name in params})[1](tangents[0])


@caught_by(1)
def only_the_first_operand_moves(m):
    right = m.push_elementwise

    @m.forward_rule("mul", "div", "power", "maximum", "where")
    def push(op, tangents, arrays, params, out):
        first = next(i for i, t in enumerate(tangents) if t is not None)
        return right(op, [t if i == first else None for i, t in enumerate(tangents)], arrays, params, out)


@caught_by(1)
def the_product_rule_has_one_term(m):
    @m.forward_rule("matmul", "affine")
    def push(op, tangents, arrays, params, out):
        if tangents[0] is not None:
            return op.forward(tangents[0], arrays[1])
        return op.forward(arrays[0], tangents[1])


@caught_by(1)
def a_bias_is_added_to_tangents(m):
    @m.forward_rule("affine")
    def push(op, tangents, arrays, params, out):
        moved = 0
        for i, tangent in enumerate(tangents[:2]):
            if tangent is not None:
                moved = moved + op.forward(*arrays[:i], tangent, *arrays[i + 1 :])
        return moved if len(tangents) < 3 or tangents[2] is None else moved + tangents[2]


@caught_by(1)
def what_stands_still_counts_as_moving_by_itself(m):
    @m.forward_rule("add", "sub", "join")
    def push(op, tangents, arrays, params, out):
        moves = [a if t is None else t for t, a in zip(tangents, arrays, strict=True)]
        return op.run(moves, {name: params[name] for name in op.params if name in params})[0]


@caught_by(1)
def a_bias_cannot_move_alone(m):
    right = m.push_product

    @m.forward_rule("matmul", "affine")
    def push(op, tangents, arrays, params, out):
        if tangents[0] is None and tangents[1] is None:
            return np.zeros_like(out)
        return right(op, tangents, arrays, params, out)


@caught_by(1)
def forward_mode_runs_the_function_twice(m):
    right = m.jvp

    def jvp(function, primals, tangents):
        _, moved = right(function, primals, tangents)
        with m.no_grad():
            return function(*map(m.Tensor, primals)).data, moved

    m.jvp = jvp


@caught_by(1)
def forward_mode_is_off_under_no_grad(m):
    right = m.jvp

    def jvp(function, primals, tangents):
        if m.is_grad_enabled():
            return right(function, primals, tangents)
        out = function(*map(m.Tensor, primals)).data
        return out, np.zeros_like(out)

    m.jvp = jvp


@caught_by(1)
def a_reduction_adds_up_its_tangents(m):
    @m.forward_rule("amax", "amin", "var")
    def push(op, tangents, arrays, params, out):
        return tangents[0].sum(params.get("axis"), keepdims=params.get("keepdims", False))


@caught_by(1)
def a_tangent_of_any_shape_is_stretched(m):
    right = m.jvp

    def jvp(function, primals, tangents):
        stretched = []
        for p, t in zip(primals, tangents, strict=True):
            with contextlib.suppress(ValueError):
                t = np.broadcast_to(t, np.shape(p))
            stretched.append(t)
        return right(function, primals, stretched)

    m.jvp = jvp


@caught_by(1)
def forward_mode_goes_on_after_an_error(m):
    right = m.jvp

    def jvp(function, primals, tangents):
        try:
            return right(function, primals, tangents)
        except Exception:
            m.set_recorder(None)
            raise

    m.jvp = jvp


# To look at.


@caught_by(1)
def lines_are_numbered_from_the_end(m):
    right = m._numbered

    def numbered(x):
        rows = [*right(x)]
        last = len(rows) - 1
        for i, label, sources, item in reversed(rows):
            yield last - i, label, [last - s for s in sources], item

    m._numbered = numbered


@caught_by(1)
def the_drawing_calls_itself(m):
    def numbered(tensor):
        number, rows = {}, []

        def visit(item):
            if item is not None and item not in number:
                for source in m.sources_of(item):
                    visit(source)
                number[item] = len(number)
                name = item.op.name if isinstance(item, m.Node) else type(item).__name__
                sources = [number[source] for source in m.sources_of(item) if source is not None]
                rows.append((number[item], f"{name} {item.shape}", sources, item))

        visit(m.source_of(tensor))
        return rows

    m._numbered = numbered


@caught_by(1)
def what_is_kept_twice_counts_once(m):
    rewritten(
        m,
        "graph_text",
        (
            "sum(array.nbytes for array in _arrays_in(item.kept))",
            "sum({id(array): array.nbytes for array in _arrays_in(item.kept)}.values())",
        ),
    )


@caught_by(1)
def labels_stand_without_quotes(m):
    right = m.graph_mermaid
    m.graph_mermaid = lambda x: right(x).replace('"', "")


@caught_by(1)
def arrows_point_to_what_a_result_is_made_of(m):
    right = m.graph_mermaid

    def graph_mermaid(x):
        lines = right(x).splitlines()
        return "\n".join(" --> ".join(reversed(line.strip().split(" --> "))) for line in lines)

    m.graph_mermaid = graph_mermaid


@caught_by(1)
def only_the_end_of_a_graph_can_have_been_freed(m):
    rewritten(
        m,
        "graph_text",
        ('if sources else ", freed"', 'if sources or item is not source_of(tensor) else ", freed"'),
    )


@caught_by(1)
def a_picture_of_a_freed_graph_is_an_error(m):
    right = m._numbered

    def numbered(x):
        for row in right(x):
            if row[3].__class__ is m.Node and row[3].kept is None:
                raise RuntimeError("freed")
            yield row

    m._numbered = numbered


# Right, but too much is kept.


@caught_by(3)
def exp_keeps_its_input(m):
    m.exp.gradient(lambda grad, a: grad * np.exp(a))


@caught_by(3)
def sqrt_keeps_its_input(m):
    m.sqrt.gradient(lambda grad, a: grad / (2 * np.sqrt(a)))


@caught_by(3)
def a_sum_keeps_an_array_for_its_shape(m):
    m.total.gradient(lambda grad, a, axis, keepdims: m.spread(grad, a.shape, axis, keepdims))


@caught_by(3)
def a_mean_keeps_an_array_for_its_shape(m):
    def mean_back(grad, a, axis, keepdims):
        return m.spread(grad / max(1, a.size // max(grad.size, 1)), a.shape, axis, keepdims)

    m.mean.gradient(mean_back)


@caught_by(3)
def a_reshape_keeps_an_array_for_its_shape(m):
    m.reshape.gradient(lambda grad, a: grad.reshape(a.shape))


@caught_by(3)
def picking_keeps_an_array_for_its_shape(m):
    right = m.getitem.pull
    m.getitem.gradient(lambda grad, a, index: right(grad, [a.shape], index))


@caught_by(3)
def a_join_keeps_its_result(m):
    m.join.gradient(lambda grad, out, lengths, axis: np.split(grad, np.cumsum(lengths)[:-1], axis))
    m.add.gradient(lambda grad, a: (grad, grad))


@caught_by(3)
def where_keeps_both_sides(m):
    m.where.gradient(
        lambda grad, condition, a: (None, np.where(condition, grad, 0), np.where(condition, 0, grad))
    )


@caught_by(3)
def a_repeated_number_is_laid_out(m):
    right = m.spread
    m.spread = lambda grad, shape, axis, keepdims: np.array(right(grad, shape, axis, keepdims))


@caught_by(3)
def a_mean_is_divided_when_it_has_been_repeated(m):
    rewritten(
        m,
        "mean_back",
        (
            "spread(grad / max(count, 1), input_shapes[0], axis, keepdims)",
            "spread(grad, input_shapes[0], axis, keepdims) / max(count, 1)",
        ),
    )


@caught_by(3)
def the_gradient_of_a_constant_is_computed_too(m):
    right = m.matmul.pull
    m.matmul.gradient(lambda grad, a, b: right(grad, a, b, (True, True)))


@caught_by(3)
def the_gradient_of_an_exponent_that_is_a_number_is_computed_too(m):
    right = m.power.pull
    m.power.gradient(lambda grad, a, b: right(grad, a, b, (True, True)))


@caught_by(3)
def only_a_number_is_taken_for_a_constant(m):
    rewritten(
        m,
        "power_back",
        ("if needs_input_grad[0]", "if not isinstance(a, (int, float))"),
        ("if needs_input_grad[1]", "if not isinstance(b, (int, float))"),
    )


@caught_by(3)
def stretched_rows_are_added_in_float64(m):
    right = m.unbroadcast
    m.unbroadcast = lambda grad, shape: right(grad.astype(np.float64), shape).astype(grad.dtype)


@caught_by(3)
def stretched_rows_are_copied_first(m):
    rewritten(m, "unbroadcast", ("grad.sum(", "grad.copy().sum("))


@caught_by(3)
def one_matrix_for_many_gets_a_gradient_from_each(m):
    right = m.matmul.pull

    def matmul_back(grad, a, b, needs_input_grad):
        if np.ndim(a) < 3 or np.ndim(b) != 2 or not np.size(a):
            return right(grad, a, b, needs_input_grad)
        for_a = grad @ np.swapaxes(b, -1, -2) if needs_input_grad[0] else None
        return for_a, np.swapaxes(a, -1, -2) @ grad if needs_input_grad[1] else None

    m.matmul.gradient(matmul_back)


@caught_by(3)
def nodes_are_freed_all_at_the_end(m):
    right = m.flow

    def flow(root, grad, retain_graph=False, ends=()):
        held = [(item, item.kept) for item in m.topological(root, ends) if isinstance(item, m.Node)]
        yield from right(root, grad, retain_graph, ends)
        del held

    m.flow = flow


@caught_by(3)
def each_gradient_on_its_way_stays(m):
    right = m.flow

    def flow(root, grad, retain_graph=False, ends=()):
        passed, shares = [], m.shares_of

        def note(node, grad):
            passed.append(grad * 1)
            return shares(node, grad)

        m.shares_of = note
        try:
            yield from right(root, grad, retain_graph, ends)
        finally:
            m.shares_of = shares

    m.flow = flow


@caught_by(3)
def results_are_kept_by_their_nodes(m):
    right = m.record
    results = weakref.WeakKeyDictionary()

    class Node(m.Node):
        __slots__ = ("__weakref__",)

    m.Node = Node

    def record(op, inputs, arrays, params, out):
        right(op, inputs, arrays, params, out)
        results[out.node] = out.data

    _record(m, record)


@caught_by(3)
def a_checkpoint_keeps_what_is_inside(m):
    right, real = m.checkpointed.run, m.set_recorder

    def run(arrays, params):
        held = []

        def keeping(watch):
            def watching(op, inputs, arrays, params, out):
                held.append(out.data)
                watch(op, inputs, arrays, params, out)

            m.set_recorder = real
            return real(watching)

        m.set_recorder = keeping
        try:
            result, saved = right(arrays, params)
        finally:
            m.set_recorder = real
        return result, {**saved, "function": lambda *inputs: (held, saved["function"](*inputs))[1]}

    m.checkpointed.run = run


@caught_by(3)
def forward_mode_remembers_every_tangent(m):
    right = m.jvp
    held = []

    def jvp(function, primals, tangents):
        held.clear()
        rules = dict(m._forward_rules)
        for name, rule in rules.items():

            def remembering(op, tangents, arrays, params, out, rule=rule):
                held.append(rule(op, tangents, arrays, params, out))
                return held[-1]

            m._forward_rules[name] = remembering
        try:
            return right(function, primals, tangents)
        finally:
            m._forward_rules.update(rules)

    m.jvp = jvp


# Right, but too slow.


@caught_by(4)
def nodes_are_looked_up_in_a_list(m):
    right = m.topological

    def topological(root, ends=()):
        found = []
        for item in right(root, ends):
            if len(found) > 5000 or not any(item is other for other in found):
                found.append(item)
        return found

    m.topological = topological


@caught_by(4)
def each_operation_asks_anew_what_its_rule_needs(m):
    import inspect

    right = m.record

    def record(op, inputs, arrays, params, out):
        inspect.signature(op.pull or op.forward)
        inspect.signature(op.forward)
        right(op, inputs, arrays, params, out)

    _record(m, record)


@caught_by(4)
def slices_are_put_back_element_by_element(m):
    def getitem_back(grad, input_shapes, index):
        full = np.zeros(input_shapes[0], grad.dtype)
        places = np.arange(full.size).reshape(full.shape)[index].ravel()
        flat = full.reshape(-1)
        for place, value in zip(places.tolist(), np.ravel(grad).tolist(), strict=True):
            flat[place] += value
        return full

    m.getitem.gradient(getitem_back)


@caught_by(4)
def the_largest_are_looked_for_one_by_one(m):
    def back(grad, a, out, axis, keepdims):
        full, each = (m.spread(np.asarray(g), a.shape, axis, keepdims) for g in (out, grad))
        pairs = zip(a.ravel().tolist(), full.ravel().tolist(), strict=True)
        chosen = np.array([x == y for x, y in pairs], bool).reshape(a.shape)
        return each / chosen.sum(axis, grad.dtype, keepdims=True) * chosen

    m.amax.gradient(back)


@caught_by(4)
def powers_are_raised_one_by_one(m):
    right = m.power.pull

    def slope(a, b):
        return 0.0 if b == 0 else b * np.float64(a) ** (b - 1)

    def power_back(grad, a, b, needs_input_grad):
        for_a, for_b = right(grad, a, b, needs_input_grad)
        if needs_input_grad[0] and np.size(a) and grad.shape == (64, 64):
            for_a = (grad * np.vectorize(slope)(a, b)).astype(grad.dtype)
        return for_a, for_b

    m.power.gradient(power_back)


@caught_by(4)
def a_batch_is_multiplied_one_by_one(m):
    right = m.matmul.pull

    def matmul_back(grad, a, b, needs_input_grad):
        if np.ndim(a) != 3 or np.ndim(b) != 2 or not np.size(a):
            return right(grad, a, b, needs_input_grad)
        for_a = np.stack([g @ b.T for g in grad]) if needs_input_grad[0] else None
        return for_a, sum(one.T @ g for one, g in zip(a, grad, strict=True)) if needs_input_grad[1] else None

    m.matmul.gradient(matmul_back)


@caught_by(3)
def stretched_rows_are_added_in_a_loop(m):
    right = m.unbroadcast

    def unbroadcast(grad, shape):
        if grad.ndim == 2 and shape == grad.shape[1:]:
            return np.array([math.fsum(column) for column in grad.T.tolist()], grad.dtype)
        return right(grad, shape)

    m.unbroadcast = unbroadcast


@caught_by(4)
def forward_mode_makes_the_whole_matrix(m):
    right = m.jvp

    def jvp(function, primals, tangents):
        if len(primals) == 1 and np.shape(primals[0]) == (64,) and primals[0].dtype == np.float32:
            columns = [right(function, primals, [u])[1] for u in np.eye(64, dtype=np.float32)]
            return right(function, primals, tangents)[0], np.stack(columns, axis=-1) @ tangents[0]
        return right(function, primals, tangents)

    m.jvp = jvp


SAME_LENGTH = "both have one entry for each, by how they were made"
EITHER_WAY = "the other way round gives the same, but for the order of words in an error"
ONLY_FASTER = "without the short cut the answer is the same, only later"
NAMES = "these are names; in which order they are registered does not matter"
A_MARK = "this node is only a mark: nobody looks into it"

# fmt: off
EQUIVALENT = {
    "power_back: np.equal(b, 0) -> np.equal(0, b)": EITHER_WAY,
    "maximum_back: np.equal(a, b) -> np.equal(b, a)": EITHER_WAY,
    "unbroadcast: broadcast_shapes(shape, grad.shape) -> broadcast_shapes(grad.shape, shape)": EITHER_WAY,
    "gradcheck: assert_close(found, numerical_gradient(number, x.data), rtol=rtol, atol=atol)"
    " -> assert_close(numerical_gradient(number, x.data), found, rtol=rtol, atol=atol)": EITHER_WAY,
    "getitem_back: [np.asarray(part) for part in parts if isinstance(part, (list, tuple, np.ndarray))]"
    " -> [np.asarray(part) for part in parts]":
        "adding to zeros is what an assignment does, only later",
    "getitem_back: if any((part.dtype.kind in 'iu' for part in picks)): -> if True:":
        "adding to zeros is what an assignment does, only later",
    "record: op.keep(data, arrays, params) if op.needs else () -> op.keep(data, arrays, params)":
        ONLY_FASTER,
    "look_over: now > node.made -> now >= node.made": ONLY_FASTER,
    "unbroadcast: grad.sum((*range(extra), *stretched), keepdims=True)"
    " -> grad.sum((*range(extra), *stretched), keepdims=False)":
        "the reshape after it puts axes of length 1 back",
    "topological: {root: 0} -> {root: 1}":
        "nothing uses the root, so that its count is never looked at",
    "topological: if source is not None: -> if True:":
        "in the list of the first walk, which is dropped, a None does no harm",
    "checkpointed: Node(checkpointed, None, (), np.empty(0)) -> Node(None, checkpointed, (), np.empty(0))":
        A_MARK,
    "checkpointed: np.empty(0) -> np.empty(1)": A_MARK,
    "checkpointed_back: zip(rngs, states, strict=True) -> zip(rngs, states, strict=False)": SAME_LENGTH,
    "checkpointed_back: zip(rngs, now, strict=True) -> zip(rngs, now, strict=False)": SAME_LENGTH,
    "push_linear: zip(tangents, arrays, strict=True) -> zip(tangents, arrays, strict=False)": SAME_LENGTH,
    "Node: __slots__ = ('dtype', 'hooks', 'kept', 'made', 'op', 'shape', 'sources') -> pass":
        "slots make a node smaller and nothing else",
    "push_linear: forward_rule('add', 'sub', 'neg', 'total', 'mean', 'reshape', 'contiguous', 'transpose',"
    " 'permute', 'squeeze', 'unsqueeze', 'expand', 'getitem', 'join') -> forward_rule('sub', 'add', 'neg',"
    " 'total', 'mean', 'reshape', 'contiguous', 'transpose', 'permute', 'squeeze', 'unsqueeze',"
    " 'expand', 'getitem', 'join')": NAMES,
    "push_elementwise: forward_rule('mul', 'div', 'power', 'exp', 'log', 'sqrt', 'tanh', 'tanh_', 'absolute',"
    " 'maximum', 'clip', 'where', 'relu', 'relu_', 'leaky_relu', 'leaky_relu_', 'sigmoid',"
    " 'sigmoid_', 'gelu',"
    " 'dropout', 'softmax') -> forward_rule('div', 'mul', 'power', 'exp', 'log', 'sqrt', 'tanh', 'tanh_',"
    " 'absolute', 'maximum', 'clip', 'where', 'relu', 'relu_', 'leaky_relu', 'leaky_relu_', 'sigmoid',"
    " 'sigmoid_', 'gelu', 'dropout', 'softmax')": NAMES,
    "push_product: forward_rule('matmul', 'affine') -> forward_rule('affine', 'matmul')": NAMES,
    "push_reduction: forward_rule('amax', 'amin', 'var') -> forward_rule('amin', 'amax', 'var')": NAMES,
}
