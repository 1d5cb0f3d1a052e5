"""Believable wrong solutions of kata 03.  Each takes the reference and spoils one thing in it."""

import functools
import math

import numpy as np

from dojo.mistakes import caught_by, rewritten

# affine.


def _affine(m, product, add=lambda out, bias: out + bias):
    """An affine map with another product of matrices, or another way to add the bias."""
    right = m.affine.forward

    def forward(x, weight, bias=None):
        right(x, weight, bias)  # refuses what does not fit
        x, weight = m.promote(x, weight)
        out = product(x, weight)
        return out if bias is None else add(out, bias)

    m.affine.forward = forward


def _in_place(out, bias):
    out += bias
    return out


@caught_by(1)
def weights_are_inputs_by_outputs(m):
    def affine(x, weight, bias=None):
        if x.shape[-1:] != weight.shape[:1]:
            raise ValueError(f"{x.shape} does not fit {weight.shape}")
        return x @ weight if bias is None else x @ weight + bias

    m.affine.forward = affine


@caught_by(1)
def minus_one_stands_for_the_rows_even_without_inputs(m):
    m.as_rows = lambda a: a.reshape(-1, a.shape[-1])


@caught_by(1)
def leading_axes_become_one(m):
    right = m.affine.forward
    m.affine.forward = lambda *arrays: m.as_rows(right(*arrays)) if arrays[0].ndim > 2 else right(*arrays)


@caught_by(1)
def whatever_broadcasts_is_a_bias(m):
    right = m.affine.forward
    m.affine.forward = lambda x, weight, bias=None: right(x, weight) + (0 if bias is None else bias)


@caught_by(1)
def numpy_explains_what_does_not_fit(m):
    m.affine.forward = lambda x, weight, bias=None: x @ weight.T + (0 if bias is None else bias)


@caught_by(1)
def integers_meet_weights_in_numpys_dtype(m):
    m.promote = lambda a, b: (np.asarray(a), np.asarray(b))


@caught_by(1)
def a_wide_bias_widens_the_output(m):
    right = m.affine.forward

    def affine(x, weight, bias=None):
        out = right(x, weight)
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"{bias.shape} {weight.shape}")
        return out if bias is None else np.add(out, bias, out=out if bias.dtype == out.dtype else None)

    m.affine.forward = affine


@caught_by(3)
def products_are_computed_in_float64(m):
    right = m.affine.forward

    def affine(x, weight, bias=None):
        xp, wp = m.promote(x, weight)
        if xp.dtype.kind != "f":
            return right(xp, wp, bias)
        return right(xp.astype(np.float64), wp.astype(np.float64), bias).astype(xp.dtype)

    m.affine.forward = affine


@caught_by(1)
def everything_is_float32(m):
    right = m.affine.forward
    m.affine.forward = lambda *arrays: right(*(a if a is None else a.astype(np.float32) for a in arrays))


@caught_by(1)
def an_input_of_one_column_is_stretched(m):
    right = m.affine.forward

    def affine(x, weight, *bias):
        if x.ndim and x.shape[-1] == 1:
            x = np.broadcast_to(x, (*x.shape[:-1], weight.shape[-1]))
        return right(x, weight, *bias)

    m.affine.forward = affine


@caught_by(1)
def the_output_is_written_over_the_input_where_shapes_allow(m):
    right = m.affine.forward

    def affine(x, weight, bias=None):
        out = right(x, weight, bias)
        if x.shape == out.shape and x.flags.writeable:
            x[...] = out
            return x
        return out

    m.affine.forward = affine


@caught_by(3)
def the_bias_is_added_into_another_array(m):
    def add(out, bias):
        total = np.empty_like(out)
        return np.add(out, bias, out=total)

    _affine(m, lambda x, weight: (m.as_rows(x) @ weight.T).reshape(*x.shape[:-1], len(weight)), add)


@caught_by(3)
def the_transposed_weights_are_laid_out(m):
    def product(x, weight):
        return (m.as_rows(x) @ np.ascontiguousarray(weight.T)).reshape(*x.shape[:-1], len(weight))

    _affine(m, product, _in_place)


@caught_by(3)
def a_column_of_ones_is_put_beside_the_input(m):
    right = m.affine.forward

    def affine(x, weight, bias=None):
        right(x, weight, bias)
        x, weight = m.promote(x, weight)
        bias = np.zeros(len(weight), weight.dtype) if bias is None else bias
        wide = np.concatenate([x, np.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)
        return right(wide, np.concatenate([weight, bias[:, None].astype(weight.dtype)], axis=1))

    m.affine.forward = affine


@caught_by(4)
def rows_are_multiplied_one_by_one(m):
    def product(x, weight):
        rows = m.as_rows(x)
        out = np.empty((len(rows), len(weight)), np.result_type(x, weight))
        for i, row in enumerate(rows):
            out[i] = weight @ row
        return out.reshape(*x.shape[:-1], len(weight))

    _affine(m, product, _in_place)


@caught_by(4)
def numpy_multiplies_the_leading_axes(m):
    _affine(m, lambda x, weight: x @ weight.T, _in_place)


@caught_by(4)
def einsum_multiplies(m):
    _affine(m, lambda x, weight: np.einsum("...i,oi->...o", x, weight), _in_place)


@caught_by(1)
def integers_among_themselves_become_floats(m):
    rewritten(m, "affine", ("= promote(x, weight)", "= promote(*promote(x, weight * np.float32(1)))"))


# affine_back.


@caught_by(1)
def the_gradient_of_the_weights_is_transposed(m):
    def back(grad, x, weight, bias):
        rows = m.as_rows(grad)
        return (rows @ weight).reshape(x.shape), m.as_rows(x).T @ rows, rows.sum(axis=0)

    m.affine.gradient(back)


@caught_by(1)
def the_gradients_are_means_over_the_rows(m):
    def back(grad, x, weight, bias):
        rows, n = m.as_rows(grad), max(1, math.prod(grad.shape[:-1]))
        return (rows @ weight).reshape(x.shape), rows.T @ m.as_rows(x) / n, rows.mean(axis=0)

    m.affine.gradient(back)


@caught_by(1)
def only_the_first_axis_is_summed_for_the_bias(m):
    right = m.affine_back

    def back(grad, x, weight, bias, needs_input_grad):
        return *right(grad, x, weight, bias, needs_input_grad)[:2], grad.sum(
            axis=0
        ) if grad.ndim > 1 else grad

    m.affine.gradient(back)


@caught_by(1)
def the_bias_gets_one_number(m):
    right = m.affine_back

    def back(grad, x, weight, bias, needs_input_grad):
        return *right(grad, x, weight, bias, needs_input_grad)[:2], np.full(grad.shape[-1:], grad.sum())

    m.affine.gradient(back)


@caught_by(1)
def a_bias_that_was_not_given_gets_a_gradient(m):
    right = m.affine_back

    def back(grad, x, weight, bias):
        return right(grad, x, weight, np.zeros(1), (True,) * 3)

    m.affine.gradient(back)


@caught_by(1)
def one_row_without_a_batch_is_forgotten(m):
    m.affine.gradient(lambda grad, x, weight, bias: (grad @ weight, grad.T @ x, grad.sum(axis=0)))


@caught_by(2)
def what_the_weights_want_decides_for_the_input(m):
    right = m.affine_back
    m.affine.gradient(
        lambda grad, x, weight, bias, needs_input_grad: right(
            grad, x, weight, bias, (needs_input_grad[1], needs_input_grad[0], *needs_input_grad[2:])
        )
    )


@caught_by(2)
def unless_all_is_wanted_there_is_nothing(m):
    right = m.affine_back

    def back(grad, x, weight, bias, needs_input_grad):
        return right(grad, x, weight, bias, needs_input_grad) if all(needs_input_grad) else (None, None, None)

    m.affine.gradient(back)


@caught_by(2)
def the_incoming_gradient_is_cleaned_in_place(m):
    right = m.affine_back
    m.affine.gradient(
        lambda grad, x, weight, bias, needs_input_grad: right(
            np.nan_to_num(grad, copy=False), x, weight, bias, needs_input_grad
        )
    )


@caught_by(3)
def the_output_is_kept(m):
    right = m.affine_back
    m.affine.gradient(
        lambda grad, x, weight, bias, out, needs_input_grad: right(grad, x, weight, bias, needs_input_grad)
    )


@caught_by(3)
def a_copy_of_the_transposed_weights_is_kept(m):
    right, forward = m.affine_back, m.affine.forward
    m.affine.saves = ("transposed",)
    m.affine.forward = lambda x, weight, bias=None: (forward(x, weight, bias), weight.T.copy())
    m.affine.gradient(
        lambda grad, x, bias, transposed, needs_input_grad: right(
            grad, x, transposed.T, bias, needs_input_grad
        )
    )


@caught_by(3)
def each_row_gets_its_own_gradient_of_the_weights(m):
    right = m.affine_back

    def back(grad, x, weight, bias, needs_input_grad):
        rows, inputs = m.as_rows(grad), m.as_rows(x)
        by_row = (rows[:, :, None] * inputs[:, None, :]).sum(axis=0) if needs_input_grad[1] else None
        first, _, last = right(grad, x, weight, bias, needs_input_grad)
        return first, by_row, last

    m.affine.gradient(back)


@caught_by(3)
def what_nobody_wants_is_computed(m):
    right = m.affine_back
    m.affine.gradient(lambda grad, x, weight, bias: right(grad, x, weight, bias, (True, True, True)))


@caught_by(3)
def what_nobody_wants_is_computed_and_thrown_away(m):
    right = m.affine_back

    def back(grad, x, weight, bias, needs_input_grad):
        every = right(grad, x, weight, bias, (True, True, True))
        return tuple(g if need else None for g, need in zip(every, needs_input_grad, strict=False))

    m.affine.gradient(back)


def _weights_by(m, product):
    right = m.affine_back

    def back(grad, x, weight, bias, needs_input_grad):
        first, _, last = right(grad, x, weight, bias, (needs_input_grad[0], False, *needs_input_grad[2:]))
        return first, product(grad, x) if needs_input_grad[1] else None, last

    m.affine.gradient(back)


@caught_by(4)
def outer_products_are_added_up_row_by_row(m):
    def product(grad, x):
        rows, inputs = m.as_rows(grad), m.as_rows(x)
        total = np.zeros((grad.shape[-1], x.shape[-1]), grad.dtype)
        for i in range(len(rows)):
            total += np.outer(rows[i], inputs[i])
        return total

    _weights_by(m, product)


@caught_by(4)
def einsum_adds_up_the_rows(m):
    _weights_by(m, lambda grad, x: np.einsum("no,ni->oi", m.as_rows(grad), m.as_rows(x)))


# Parameter.


@caught_by(1)
def a_parameter_copies_its_array(m):
    def init(self, data):
        m.Tensor.__init__(self, np.array(m.Tensor(data).data), requires_grad=True)

    m.Parameter.__init__ = init


@caught_by(1)
def a_parameter_is_float32(m):
    def init(self, data):
        m.Tensor.__init__(self, np.asarray(m.Tensor(data).data, np.float32), requires_grad=True)

    m.Parameter.__init__ = init


@caught_by(1)
def a_parameter_requires_no_gradient(m):
    m.Parameter.__init__ = lambda self, data: m.Tensor.__init__(self, data)


# Modules.


@caught_by(1)
def all_modules_share_their_hooks(m):
    hooks = {}

    def register_forward_hook(self, hook):
        self._forward_hooks, key = hooks, object()
        hooks[key] = hook
        return lambda: hooks.pop(key, None)

    m.Module.register_forward_hook = register_forward_hook
    m.Module._forward_hooks = hooks
    m.Module.__call__ = _call_with(lambda self: self._forward_hooks)


def _call_with(hooks_of):
    def call(self, *inputs, **options):
        out = self.forward(*inputs, **options)
        for hook in [*hooks_of(self).values()]:
            hook(self, inputs, out)
        return out

    return call


@caught_by(1)
def the_first_hook_that_is_equal_is_taken_away(m):
    def register_forward_hook(self, hook):
        hooks = vars(self).setdefault("_forward_hooks", {})
        hooks[len(hooks)] = hook

        def remove():
            del hooks[next(key for key, other in hooks.items() if other == hook)]

        return remove

    m.Module.register_forward_hook = register_forward_hook


@caught_by(1)
def the_same_function_is_the_same_hook(m):
    def register_forward_hook(self, hook):
        hooks = vars(self).setdefault("_forward_hooks", {})
        hooks[key := hook] = hook
        return lambda: hooks.pop(key, None)

    m.Module.register_forward_hook = register_forward_hook


@caught_by(1)
def a_new_hook_takes_the_number_of_one_taken_away(m):
    def register(self, hook):
        hooks = vars(self).setdefault("_forward_hooks", {})
        key = len(hooks)
        hooks[key] = hook
        return lambda: hooks.pop(key, None) and None

    m.Module.register_forward_hook = register


@caught_by(1)
def the_newest_hook_comes_first(m):
    right = m.Module.register_forward_hook

    def register_forward_hook(self, hook):
        remove = right(self, hook)
        hooks = vars(self)["_forward_hooks"]
        for key in [*hooks][:-1]:
            hooks[key] = hooks.pop(key)
        return remove

    m.Module.register_forward_hook = register_forward_hook


def _members_by(m, walk):
    m.Module.named_members = lambda self: walk(
        "", {name: value for name, value in vars(self).items() if name != "_forward_hooks"}
    )


def _is_member(m, value):
    return isinstance(value, (m.Parameter, m.Buffer, m.Module))


@caught_by(1)
def members_are_attributes_only(m):
    m.Module.named_members = lambda self: ((n, v) for n, v in vars(self).items() if _is_member(m, v))


@caught_by(1)
def a_hook_that_is_a_module_is_a_member(m):
    def walk(path, value):
        if _is_member(m, value):
            yield path, value
        elif isinstance(value, (list, tuple, dict)):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from walk(m.dotted(path, key), item)

    m.Module.named_members = lambda self: walk("", vars(self))


@caught_by(1)
def dicts_are_not_looked_into(m):
    def walk(path, value):
        if _is_member(m, value):
            yield path, value
        elif isinstance(value, (list, tuple)) or not path:
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from walk(m.dotted(path, key), item)

    _members_by(m, walk)


@caught_by(1)
def containers_are_looked_into_once(m):
    def members(self):
        for name, value in vars(self).items():
            if isinstance(value, (list, tuple, dict)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                yield from ((f"{name}.{key}", item) for key, item in items if _is_member(m, item))
            elif _is_member(m, value):
                yield name, value

    m.Module.named_members = members


@caught_by(1)
def every_tensor_is_a_member(m):
    def walk(path, value):
        if isinstance(value, (m.Tensor, m.Module)):
            yield path, value
        elif isinstance(value, (list, tuple, dict)):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from walk(m.dotted(path, key), item)

    _members_by(m, walk)


@caught_by(1)
def members_of_members_are_members(m):
    def walk(path, value):
        if _is_member(m, value):
            yield path, value
        inside = vars(value) if isinstance(value, m.Module) else value
        if isinstance(inside, (list, tuple, dict)):
            for key, item in inside.items() if isinstance(inside, dict) else enumerate(inside):
                yield from walk(m.dotted(path, key), item)

    _members_by(m, walk)


@caught_by(1)
def a_member_is_listed_under_its_first_name_only(m):
    right = m.Module.named_members

    def members(self):
        seen = set()
        for name, member in right(self):
            if id(member) not in seen:
                seen.add(id(member))
                yield name, member

    m.Module.named_members = members


@caught_by(1)
def private_attributes_are_no_members(m):
    right = m.Module.named_members
    m.Module.named_members = lambda self: ((n, k) for n, k in right(self) if not n.startswith("_"))


@caught_by(1)
def tuples_are_not_looked_into(m):
    rewritten(m, "Module.named_members", ("(list, tuple, dict)", "(list, dict)"))


@caught_by(1)
def members_are_sorted_by_name(m):
    right = m.Module.named_members
    m.Module.named_members = lambda self: iter(sorted(right(self), key=lambda pair: pair[0]))


@caught_by(1)
def modules_are_remembered(m):
    right = m.Module.named_modules

    def named_modules(self, prefix=""):
        if "_cache" not in vars(self):
            self.__dict__["_cache"] = tuple((n, id(k)) and (n, k) for n, k in right(self))
        return ((m.dotted(prefix, n) if n else prefix, k) for n, k in self.__dict__["_cache"])

    right_members = m.Module.named_members
    m.Module.named_members = lambda self: (
        (n, k) for n, k in right_members(self) if not n.startswith("_cache")
    )
    m.Module.named_modules = named_modules


@caught_by(1)
def a_shared_module_is_listed_each_time(m):
    def modules(self, prefix=""):
        yield prefix, self
        for name, member in self.named_members():
            if isinstance(member, m.Module):
                yield from member.named_modules(m.dotted(prefix, name))

    m.Module.named_modules = modules


@caught_by(1)
def children_come_before_their_parents(m):
    right = m.Module.named_modules

    def modules(self, prefix=""):
        found = list(right(self, prefix))
        return iter(found[1:] + found[:1])

    m.Module.named_modules = modules


@caught_by(1)
def modules_are_walked_in_breadth(m):
    def modules(self, prefix=""):
        queue, seen = [(prefix, self)], set()
        while queue:
            path, module = queue.pop(0)
            if module not in seen:
                seen.add(module)
                yield path, module
                members = module.named_members()
                queue += [(m.dotted(path, n), one) for n, one in members if isinstance(one, m.Module)]

    m.Module.named_modules = modules


@caught_by(1)
def the_prefix_is_forgotten(m):
    right = m.Module.named_modules
    m.Module.named_modules = lambda self, prefix="": right(self)


@caught_by(1)
def only_modules_below_are_modules(m):
    right = m.Module.named_modules
    m.Module.named_modules = lambda self, prefix="": iter(list(right(self, prefix))[1:])


@caught_by(1)
def a_shared_parameter_is_listed_each_time(m):
    def parameters(self):
        for path, module in self.named_modules():
            for name, member in module.named_members():
                if isinstance(member, m.Parameter):
                    yield m.dotted(path, name), member

    m.Module.named_parameters = parameters


@caught_by(1)
def parameters_with_equal_values_are_one(m):
    right = m.Module.named_parameters

    def parameters(self):
        seen = set()
        for name, parameter in right(self):
            if (key := (parameter.shape, parameter.data.tobytes())) not in seen:
                seen.add(key)
                yield name, parameter

    m.Module.named_parameters = parameters


@caught_by(1)
def a_parameter_is_what_requires_a_gradient(m):
    right = m.Module.named_parameters
    m.Module.named_parameters = lambda self: (pair for pair in right(self) if pair[1].requires_grad)


@caught_by(1)
def buffers_are_parameters(m):
    def parameters(self):
        seen = set()
        for path, module in self.named_modules():
            for name, member in module.named_members():
                if isinstance(member, m.Tensor) and member not in seen:
                    seen.add(member)
                    yield m.dotted(path, name), member

    m.Module.named_parameters = parameters


@caught_by(1)
def names_of_members_are_taken_from_the_attributes(m):
    def members(self):
        def walk(path, value):
            if _is_member(m, value):
                yield path, value
            elif isinstance(value, (list, tuple, dict)):
                for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                    yield from walk(m.dotted(path, key), item)

        return walk("", vars(self))

    def state_dict(self):
        state = {}
        for name, member in members(self):
            if isinstance(member, m.Module):
                state |= {f"{name}.{inner}": array for inner, array in state_dict(member).items()}
            else:
                state[name] = member.data
        return state

    m.Module.state_dict = state_dict


@caught_by(4)
def each_parameter_is_compared_with_all_before(m):
    def parameters(self):
        seen = []
        for path, module in self.named_modules():
            for name, member in module.named_members():
                if isinstance(member, m.Parameter) and not any(member is other for other in seen):
                    seen.append(member)
                    yield m.dotted(path, name), member

    m.Module.named_parameters = parameters


@caught_by(1)
def the_last_hook_takes_all_of_its_place_with_it(m):
    def register_forward_hook(self, hook):
        hooks, key = vars(self).setdefault("_forward_hooks", {}), object()
        hooks[key] = hook

        def remove():
            if self._forward_hooks.pop(key, None) and not self._forward_hooks:
                del self._forward_hooks

        return remove

    m.Module.register_forward_hook = register_forward_hook


@caught_by(1)
def a_new_hook_takes_the_number_after_the_highest(m):
    rewritten(m, "Module.register_forward_hook", ("object()", "max(hooks, default=-1) + 1"))


@caught_by(1)
def a_container_with_two_names_is_looked_into_once(m):
    seen = set()

    def walk(path, value):
        if _is_member(m, value):
            yield path, value
        elif isinstance(value, (list, tuple, dict)) and id(value) not in seen:
            seen.add(id(value))
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from walk(m.dotted(path, key), item)

    def start(path, value):
        seen.clear()
        return iter([*walk(path, value)])

    _members_by(m, start)


# State.


@caught_by(1)
def state_is_remembered(m):
    right = m.Module.state_dict

    def state_dict(self):
        if "_state" not in vars(self):
            self.__dict__["_state"] = right(self)
        return self.__dict__["_state"]

    m.Module.state_dict = state_dict


@caught_by(1)
def the_state_is_a_copy(m):
    right = m.Module.state_dict
    m.Module.state_dict = lambda self: {name: array.copy() for name, array in right(self).items()}


@caught_by(1)
def the_state_has_only_parameters(m):
    m.Module.state_dict = lambda self: {name: p.data for name, p in self.named_parameters()}


@caught_by(1)
def the_state_holds_tensors(m):
    def state_dict(self):
        state = {}
        for name, member in self.named_members():
            if isinstance(member, m.Module):
                state |= {f"{name}.{inner}": tensor for inner, tensor in member.state_dict().items()}
            else:
                state[name] = member
        return state

    m.Module.state_dict = state_dict


@caught_by(1)
def a_shared_array_is_in_the_state_once(m):
    right = m.Module.state_dict

    def state_dict(self):
        first = {id(array): name for name, array in reversed(right(self).items())}
        return {name: array for name, array in right(self).items() if first[id(array)] == name}

    m.Module.state_dict = state_dict


def _tensors(m, module, path=""):
    for name, member in module.named_members():
        if isinstance(member, m.Module):
            yield from _tensors(m, member, m.dotted(path, name))
        else:
            yield m.dotted(path, name), member


@caught_by(1)
def loading_replaces_the_arrays(m):
    right = m.Module.load_state_dict

    def load_state_dict(self, state, strict=True):
        tensors = dict(_tensors(m, self))
        old = {name: tensor.data for name, tensor in tensors.items()}
        for tensor in tensors.values():
            tensor.data = tensor.data.copy()
        try:
            right(self, state, strict)
        except ValueError:
            for name, tensor in tensors.items():
                tensor.data = old[name]
            raise

    m.Module.load_state_dict = load_state_dict


@caught_by(1)
def loading_ties_the_module_to_the_state(m):
    right = m.Module.load_state_dict

    def load_state_dict(self, state, strict=True):
        right(self, state, strict)
        for name, tensor in _tensors(m, self):
            if isinstance(state.get(name), np.ndarray):
                tensor.data = state[name]

    m.Module.load_state_dict = load_state_dict


def _loading(m, check=True, note=True, shapes=True, casting="same_kind", extra=True):
    def load_state_dict(self, state, strict=True):
        own = self.state_dict()
        if check and strict and (own.keys() - state.keys() or (extra and state.keys() - own.keys())):
            raise ValueError(f"{sorted(own.keys() ^ state.keys())} are missing or too much")
        for name, array in own.items():
            if name in state:
                new = np.asarray(state[name])
                if shapes and new.shape != array.shape:
                    raise ValueError(f"{name} has shape {new.shape}, not {array.shape}")
                if casting == "same_kind" and not np.can_cast(new.dtype, array.dtype, casting):
                    raise ValueError(f"{name} has dtype {new.dtype}, not {array.dtype}")
                np.copyto(array, new, casting=casting)
                if note:
                    m.increment_version(array)

    m.Module.load_state_dict = load_state_dict


@caught_by(1)
def loading_forgets_gradients(m):
    right = m.Module.load_state_dict

    def load(self, state, strict=True):
        right(self, state, strict)
        self.zero_grad()

    m.Module.load_state_dict = load


@caught_by(1)
def loading_uses_up_the_state(m):
    right = m.Module.load_state_dict

    def load(self, state, strict=True):
        right(self, state, strict)
        if isinstance(state, dict):
            for n in list(state):
                del state[n]

    m.Module.load_state_dict = load


@caught_by(1)
def what_fits_is_loaded_before_the_rest_is_looked_at(m):
    _loading(m)


@caught_by(1)
def what_is_too_much_is_passed_over(m):
    _loading(m, extra=False)


@caught_by(1)
def what_is_missing_is_passed_over(m):
    _loading(m, check=False)


@caught_by(1)
def what_broadcasts_is_loaded(m):
    _loading(m, shapes=False)


@caught_by(1)
def floats_are_loaded_into_integers(m):
    _loading(m, casting="unsafe")


@caught_by(1)
def strictness_is_forgotten(m):
    right = m.Module.load_state_dict
    m.Module.load_state_dict = lambda self, state, strict=True: right(self, state)


@caught_by(1)
def loading_is_not_noted(m):
    right = m.increment_version
    load = m.Module.load_state_dict

    def load_state_dict(self, state, strict=True):
        m.increment_version = lambda array: 0
        try:
            load(self, state, strict)
        finally:
            m.increment_version = right

    m.Module.load_state_dict = load_state_dict


@caught_by(3)
def a_state_is_copied_before_it_is_loaded(m):
    right = m.Module.load_state_dict

    def load_state_dict(self, state, strict=True):
        own = self.state_dict()
        ready = {}
        for name, new in state.items():
            array = np.asarray(new)
            fits = name in own and np.can_cast(array.dtype, own[name].dtype, "same_kind")
            ready[name] = array.astype(own[name].dtype) if fits else array
        right(self, ready, strict)

    m.Module.load_state_dict = load_state_dict


@caught_by(1)
def what_is_missing_hides_what_does_not_fit(m):
    rewritten(
        m,
        "Module.load_state_dict",
        ("    arrays = {", "    if problems:\n        raise ValueError(str(problems))\n    arrays = {"),
    )


@caught_by(1)
def only_a_dict_is_a_state(m):
    right = m.Module.load_state_dict
    m.Module.load_state_dict = lambda self, state, strict=True: right(self, state.copy(), strict)


@caught_by(1)
def numbers_without_axes_cannot_be_written_over(m):
    rewritten(m, "Module.load_state_dict", ("np.copyto(own[name], array)", "own[name][:] = array"))


FITS = 'np.can_cast(array.dtype, mine.dtype, "same_kind")'


@caught_by(1)
def signed_integers_fit_unsigned_ones(m):
    kinds = "'biuf'.find(array.dtype.kind.replace('i', 'u')) in range('biuf'.find(mine.dtype.kind) + 2)"
    rewritten(m, "Module.load_state_dict", (FITS, kinds))


@caught_by(1)
def bools_do_not_fit_integers(m):
    rewritten(m, "Module.load_state_dict", (FITS, f"({FITS} and array.dtype != bool)"))


@caught_by(1)
def whose_dtype_it_is_goes_unsaid(m):
    rewritten(
        m, "Module.load_state_dict", ("{array.dtype} {array.shape}, not {mine.dtype}", "{array.shape}, not")
    )


@caught_by(1)
def unless_strict_any_dtype_fits(m):
    rewritten(
        m,
        "Module.load_state_dict",
        (FITS, f"({FITS} or not strict)"),
        ("(own[name], array)", "(own[name], array, casting='unsafe')"),
    )


@caught_by(4)
def the_tree_is_walked_for_every_name_that_is_loaded(m):
    rewritten(m, "Module.load_state_dict", ("mine = own[name]", "mine = self.state_dict()[name]"))


# Modes.


@caught_by(1)
def only_the_module_itself_is_trained(m):
    def train(self, mode=True):
        self.training = mode
        return self

    m.Module.train = train


@caught_by(1)
def all_modules_of_a_class_are_trained(m):
    def train(self, mode=True):
        for module in self.modules():
            type(module).training = mode
        return self

    m.Module.train = train


@caught_by(1)
def train_forgets_its_mode(m):
    right = m.Module.train
    m.Module.train = lambda self, mode=True: right(self)
    m.Module.eval = lambda self: right(self, False)


@caught_by(1)
def zero_grad_fills_with_zeros(m):
    def zero_grad(self):
        for parameter in self.parameters():
            parameter.grad = np.zeros_like(parameter.data)

    m.Module.zero_grad = zero_grad


@caught_by(1)
def a_frozen_parameter_keeps_its_gradient(m):
    def zero_grad(self):
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.grad = None

    m.Module.zero_grad = zero_grad


@caught_by(1)
def freezing_forgets_gradients(m):
    right = m.Module.requires_grad_

    def rg(self, requires_grad=True):
        for p in self.parameters():
            p.grad = None
        return right(self, requires_grad)

    m.Module.requires_grad_ = rg


@caught_by(1)
def only_what_is_trained_forgets_its_gradient(m):
    def zero_grad(self):
        for p in self.parameters():
            if p.requires_grad:
                p.grad = None

    m.Module.zero_grad = zero_grad


@caught_by(1)
def buffers_are_unfrozen_too(m):
    def requires_grad_(self, requires_grad=True):
        for _, tensor in _tensors(m, self):
            tensor.requires_grad = requires_grad
        return self

    m.Module.requires_grad_ = requires_grad_


# Linear.


def _linear_of(m, draw):
    """A Linear whose parameters `draw(rng, bound, shape)` gives."""

    def init(self, in_features, out_features, bias=True, *, rng):
        bound = in_features**-0.5 if in_features else 0.0
        self.weight = m.Parameter(draw(rng, bound, (out_features, in_features)))
        self.bias = m.Parameter(draw(rng, bound, (out_features,))) if bias else None

    m.Linear.__init__ = init


@caught_by(3)
def a_layer_remembers_its_input(m):
    def forward(self, x):
        self.__dict__["_x"] = x
        return m.affine(x, self.weight, self.bias)

    m.Linear.forward = forward


@caught_by(1)
def weights_start_normal(m):
    _linear_of(m, lambda rng, bound, shape: rng.standard_normal(shape, np.float32) * bound)


@caught_by(1)
def weights_start_positive(m):
    _linear_of(m, lambda rng, bound, shape: rng.random(shape, np.float32) * bound)


@caught_by(1)
def weights_start_within_one_over_the_inputs(m):
    _linear_of(m, lambda rng, bound, shape: (rng.random(shape, np.float32) * 2 - 1) * bound**2)


@caught_by(1)
def weights_start_within_one_over_the_root_of_the_outputs(m):
    _linear_of(
        m, lambda rng, bound, shape: (rng.random(shape, np.float32) * 2 - 1) * max(shape[0], 1) ** -0.5
    )


@caught_by(1)
def weights_start_in_float64(m):
    _linear_of(m, lambda rng, bound, shape: rng.uniform(-bound, bound, shape))


@caught_by(1)
def weights_start_from_numpys_own_generator(m):
    _linear_of(m, lambda rng, bound, shape: np.random.uniform(-bound, bound, shape).astype(np.float32))


@caught_by(1)
def every_layer_starts_alike(m):
    def draw(rng, bound, shape):
        return (np.random.default_rng(0).random(shape, np.float32) * 2 - 1) * np.float32(bound)

    _linear_of(m, draw)


@caught_by(1)
def the_bias_starts_at_0(m):
    def draw(rng, bound, shape):
        values = (rng.random(shape, np.float32) * 2 - 1) * np.float32(bound)
        return values if len(shape) == 2 else np.zeros(shape, np.float32)

    _linear_of(m, draw)


@caught_by(1)
def the_bias_is_drawn_first(m):
    def init(self, in_features, out_features, bias=True, *, rng):
        bound = in_features**-0.5 if in_features else 0.0
        drawn = (rng.random(out_features if bias else 0, np.float32) * 2 - 1) * np.float32(bound)
        weight = (rng.random((out_features, in_features), np.float32) * 2 - 1) * np.float32(bound)
        self.weight, self.bias = m.Parameter(weight), m.Parameter(drawn) if bias else None

    m.Linear.__init__ = init


@caught_by(1)
def a_linear_layer_is_three_operations(m):
    def forward(self, x):
        out = x @ self.weight.T
        return out if self.bias is None else out + self.bias

    m.Linear.forward = forward


@caught_by(3)
def weights_are_drawn_in_float64_first(m):
    _linear_of(m, lambda rng, bound, shape: rng.uniform(-bound, bound, shape).astype(np.float32))


@caught_by(1)
def flops_are_multiplications_only(m):
    m.Linear.flops = lambda self, inputs, out: int(out.size * self.weight.shape[1])


@caught_by(1)
def flops_are_those_of_one_row(m):
    m.Linear.flops = lambda self, inputs, out: 2 * self.weight.size


@caught_by(1)
def flops_are_those_of_the_first_axis(m):
    m.Linear.flops = lambda self, inputs, out: 2 * self.weight.size * (out.shape[0] if out.ndim > 1 else 1)


@caught_by(1)
def flops_are_told_by_the_input(m):
    m.Linear.flops = lambda self, inputs, out: 2 * math.prod(inputs[0].shape[:-1]) * self.weight.size


# descend.


def _descend(
    m,
    scale=lambda off: 2 / off.size,
    move=None,
    error=lambda off: (off * off).mean(),
    frozen_too=False,
):
    def in_place(parameter, step):
        parameter.data -= step
        m.increment_version(parameter.data)

    def descend(layer, x, y, lr):
        out, back = m.affine.vjp(x, *(p.data for p in layer.parameters()))
        if out.shape != y.shape:
            raise ValueError(f"{y.shape} does not fit {out.shape}")
        off = out - y
        for parameter, grad in zip(layer.parameters(), back(scale(off) * off)[1:], strict=False):
            if frozen_too or parameter.requires_grad:
                (move or in_place)(parameter, lr * grad)
        return float(error(off))

    m.descend = descend


@caught_by(1)
def frozen_parameters_move(m):
    _descend(m, frozen_too=True)


@caught_by(1)
def the_2_of_the_square_is_forgotten(m):
    _descend(m, scale=lambda off: 1 / off.size)


@caught_by(1)
def the_gradient_is_that_of_the_sum(m):
    _descend(m, scale=lambda off: 2)


@caught_by(1)
def the_mean_is_over_rows_only(m):
    _descend(m, scale=lambda off: 2 / len(off), error=lambda off: (off * off).sum() / len(off))


@caught_by(1)
def the_step_goes_uphill(m):
    def move(parameter, step):
        parameter.data += step
        m.increment_version(parameter.data)

    _descend(m, move=move)


@caught_by(1)
def the_step_makes_new_arrays(m):
    def move(parameter, step):
        parameter.data = parameter.data - step
        m.increment_version(parameter.data)

    _descend(m, move=move)


@caught_by(1)
def the_step_is_not_noted(m):
    def move(parameter, step):
        parameter.data -= step

    _descend(m, move=move)


@caught_by(1)
def the_error_is_the_one_after_the_step(m):
    right = m.descend

    def descend(layer, x, y, lr):
        right(layer, x, y, lr)
        return right(layer, x, y, 0.0)

    m.descend = descend


@caught_by(1)
def targets_are_broadcast(m):
    right = m.descend

    def descend(layer, x, y, lr):
        out = m.affine.forward(x, *(p.data for p in layer.parameters()))
        return right(layer, x, np.broadcast_to(y, out.shape) if y.ndim < 2 else y, lr)

    m.descend = descend


@caught_by(1)
def a_step_wants_floats(m):
    right = m.descend

    def descend(layer, x, y, lr):
        if x.dtype.kind != "f":
            raise TypeError("floats")
        return right(layer, x, y, lr)

    m.descend = descend


@caught_by(1)
def a_step_wants_a_table(m):
    def descend(layer, x, y, lr):
        if x.ndim != 2:
            raise ValueError("rows")
        return right(layer, x, y, lr)

    right = m.descend
    m.descend = descend


@caught_by(4)
def a_step_goes_row_by_row(m):
    right = m.descend

    def descend(layer, x, y, lr):
        if x.ndim != 2 or x.dtype != np.float32 or len(x) < 65:
            return right(layer, x, y, lr)
        parameters = [p.data for p in layer.parameters()]
        moves, error = [np.zeros_like(p) for p in parameters], 0.0
        for row, target in zip(x, y, strict=True):
            out, back = m.affine.vjp(row, *parameters)
            off = out - target
            error += float((off * off).sum())
            for move, grad in zip(moves, back(2 / y.size * off)[1:], strict=False):
                move += grad
        for parameter, move in zip(parameters, moves, strict=True):
            parameter -= lr * move
        return error / y.size

    m.descend = descend


@caught_by(1)
def a_step_of_what_is_frozen_is_noted(m):
    rewritten(m, "descend", ("    increment_version(parameter", "increment_version(parameter"))


# Counting.


@caught_by(1)
def frozen_parameters_are_counted(m):
    m.count_parameters = lambda module: sum(p.size for p in module.parameters())


@caught_by(1)
def shared_parameters_are_counted_twice(m):
    m.count_parameters = lambda module: sum(
        t.size for _, t in _tensors(m, module) if isinstance(t, m.Parameter) and t.requires_grad
    )


@caught_by(1)
def tensors_are_counted_instead_of_numbers(m):
    m.count_parameters = lambda module: sum(p.requires_grad for p in module.parameters())


@caught_by(1)
def bytes_of_shared_arrays_are_counted_twice(m):
    m.parameter_bytes = lambda module: sum(array.nbytes for array in module.state_dict().values())


@caught_by(1)
def bytes_are_those_of_parameters(m):
    m.parameter_bytes = lambda module: sum(p.data.nbytes for p in module.parameters())


@caught_by(1)
def every_number_takes_four_bytes(m):
    right = m.parameter_bytes
    m.parameter_bytes = lambda module: (
        right(module) and 4 * sum({id(array): array.size for array in module.state_dict().values()}.values())
    )


# summary.


def _summary(m, parameters_of=None, order=lambda rows, module: rows, tidy=True, before=None):
    def summary(module, *inputs):
        rows, counted = [], set()

        def own(one):
            new = {p for _, p in one.named_members() if isinstance(p, m.Parameter)} - counted
            counted.update(new)
            return sum(p.size for p in new)

        def note(path, one, inputs, out):
            if before:
                before(one, out)
            count = parameters_of(one) if parameters_of else own(one)
            shape = getattr(out, "shape", ())
            rows.append((path, type(one).__name__, shape, count, one.flops(inputs, out)))

        removers = [
            one.register_forward_hook(functools.partial(note, path)) for path, one in module.named_modules()
        ]
        try:
            module(*inputs)
        except Exception:
            removers = removers if tidy else []
            raise
        finally:
            for remove in removers:
                remove()
        return order(rows, module)

    m.summary = summary


@caught_by(1)
def a_summary_counts_buffers(m):
    rewritten(m, "summary", ("isinstance(member, Parameter)", "isinstance(member, (Parameter, Buffer))"))


@caught_by(3)
def a_summary_remembers_its_inputs(m):
    right = m.summary

    def summary(module, *inputs):
        rows = right(module, *inputs)
        module.__dict__["_last_inputs"] = inputs
        return rows

    m.summary = summary


@caught_by(1)
def a_row_counts_what_is_below_it(m):
    _summary(m, parameters_of=m.count_parameters)


@caught_by(1)
def each_call_counts_the_parameters_again(m):
    def own(one):
        return sum(p.size for _, p in one.named_members() if isinstance(p, m.Parameter))

    _summary(m, parameters_of=own)


@caught_by(1)
def rows_are_in_the_order_of_the_modules(m):
    def order(rows, module):
        paths = [path for path, _ in module.named_modules()]
        return sorted(rows, key=lambda row: paths.index(row[0]))

    _summary(m, order=order)


@caught_by(1)
def a_module_has_one_row_however_often_it_is_called(m):
    _summary(m, order=lambda rows, module: list({row[0]: row for row in rows}.values()))


@caught_by(1)
def a_failure_leaves_hooks_behind(m):
    _summary(m, tidy=False)


@caught_by(3)
def a_module_remembers_its_last_output(m):
    _summary(m, before=lambda one, out: setattr(one, "last_output", out))


OWN = "{member for _, member in one.named_members() if isinstance(member, Parameter)} - counted"


@caught_by(1)
def a_parameter_with_two_names_counts_twice_in_its_row(m):
    rewritten(
        m,
        "summary",
        (OWN, "[k for _, k in one.named_members() if isinstance(k, Parameter) and k not in counted]"),
    )


@caught_by(1)
def a_row_counts_no_parameters_in_lists(m):
    rewritten(m, "summary", (OWN, "{k for k in vars(one).values() if isinstance(k, Parameter)} - counted"))


@caught_by(1)
def what_is_no_tensor_and_no_tuple_has_a_shape(m):
    rewritten(m, "summary", ('getattr(out, "shape", ())', "() if isinstance(out, tuple) else out.shape"))


@caught_by(1)
def an_interruption_leaves_hooks_behind(m):
    def summary(module, *inputs):
        try:
            return right(module, *inputs)
        except KeyboardInterrupt:
            for one in module.modules():
                one.register_forward_hook(lambda one, inputs, out: one.flops(inputs, out))
            raise

    right = m.summary
    m.summary = summary


@caught_by(4)
def a_summary_looks_for_each_path_anew(m):
    right = m.summary

    def summary(module, *inputs):
        def note(one, inputs, out):
            return {below: path for path, below in module.named_modules()}[one]

        removers = [one.register_forward_hook(note) for one in module.modules()]
        try:
            return right(module, *inputs)
        finally:
            for remove in removers:
                remove()

    m.summary = summary


EQUIVALENT: dict[str, str] = {}
