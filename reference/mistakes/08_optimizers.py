"""Believable wrong solutions of kata 08.  Each takes the reference and spoils one thing in it."""

import math

import numpy as np

from dojo.mistakes import caught_by, rewritten

# Groups.


@caught_by(1)
def nan_is_within_all_limits(m):
    def check_options(options):
        for name in m.LIMITS.keys() & options.keys():
            value, (least, bound) = options[name], m.LIMITS[name]
            for number in value if isinstance(value, (tuple, list)) else [value]:
                if number < least or number >= bound:
                    raise ValueError(f"{name}={value} will not do")

    m.check_options = check_options


@caught_by(1)
def only_the_first_beta_is_looked_at(m):
    right = m.check_options

    def check_options(options):
        right({n: v[0] if isinstance(v, (tuple, list)) else v for n, v in options.items()})

    m.check_options = check_options


@caught_by(1)
def a_limit_belongs_to_what_is_allowed(m):
    m.LIMITS["betas"] = m.LIMITS["alpha"] = (0, math.nextafter(1, 2))


@caught_by(1)
def no_decay_and_no_momentum_are_refused(m):
    m.LIMITS["momentum"] = m.LIMITS["weight_decay"] = (1e-300, math.inf)


def _group(m, change):
    """add_param_group on another group; `change(self, group)`."""
    right = m.Optimizer.add_param_group
    m.Optimizer.add_param_group = lambda self, group: right(self, change(self, group))


@caught_by(1)
def the_caller_s_dict_becomes_the_group(m):
    def add_param_group(self, group):
        group["params"] = list(group["params"])
        for name, value in self.defaults.items():
            group.setdefault(name, value)
        if unknown := group.keys() - self.defaults.keys() - {"params"}:
            raise ValueError(f"no option {unknown}")
        self.check(group)
        known = set(self.parameters())
        for p in group["params"]:
            if not isinstance(p, m.Parameter):
                raise TypeError(f"a {type(p).__name__} is no Parameter")
            if p in known:
                raise ValueError(f"{p.shape} is there already")
            known.add(p)
        self.param_groups.append(group)

    m.Optimizer.add_param_group = add_param_group


@caught_by(1)
def an_unknown_option_is_dropped(m):
    def known(self, group):
        if not isinstance(group, dict):
            return group
        return {n: v for n, v in group.items() if n in self.defaults or n == "params"}

    _group(m, known)


@caught_by(1)
def a_parameter_may_be_there_twice(m):
    _group(m, lambda self, g: {**g, "params": list(dict.fromkeys(g["params"]))} if isinstance(g, dict) else g)


@caught_by(1)
def whatever_has_a_gradient_is_a_parameter(m):
    """Any tensor moves, a constant too."""
    m.Parameter = m.Parameter.__mro__[1]


@caught_by(1)
def a_group_is_added_before_it_is_looked_at(m):
    right = m.Optimizer.add_param_group

    def add_param_group(self, group):
        count = len(self.param_groups)
        try:
            right(self, group)
        except (TypeError, ValueError):
            self.param_groups[count:] = [{**self.defaults, "params": []}]
            raise

    m.Optimizer.add_param_group = add_param_group


@caught_by(1)
def equal_parameters_are_the_same(m):
    right = m.Optimizer.add_param_group

    def add_param_group(self, group):
        if isinstance(group, dict):
            group = {**group, "params": list(group["params"])}
            seen = [p for p in self.parameters() if hasattr(p, "data")]
            for p in group["params"]:
                for q in seen:
                    if isinstance(p, m.Parameter) and p.shape == q.shape and np.array_equal(p.data, q.data):
                        raise ValueError(f"{p.shape} is there already")
                if isinstance(p, m.Parameter):
                    seen.append(p)
        right(self, group)

    m.Optimizer.add_param_group = add_param_group


@caught_by(4)
def each_parameter_is_compared_with_all(m):
    right = m.Optimizer.add_param_group

    def add_param_group(self, group):
        right(self, group)
        seen = []
        for p in self.param_groups[-1]["params"]:
            if any(p is q for q in seen):
                raise ValueError(f"{p.shape} is there already")
            seen.append(p)

    m.Optimizer.add_param_group = add_param_group


# Steps.


@caught_by(1)
def gradients_become_zeros(m):
    def zero_grad(self):
        for p in self.parameters():
            p.grad = np.zeros_like(p.data)

    m.Optimizer.zero_grad = zero_grad


@caught_by(1)
def the_gradient_somebody_holds_is_zeroed(m):
    def zero_grad(self):
        for p in self.parameters():
            if p.grad is not None:
                p.grad.fill(0)
            p.grad = None

    m.Optimizer.zero_grad = zero_grad


@caught_by(1)
def only_the_first_group_is_forgotten(m):
    def zero_grad(self):
        for p in self.param_groups[0]["params"]:
            p.grad = None

    m.Optimizer.zero_grad = zero_grad


def _step(m, moves=lambda p: p.grad is not None and p.requires_grad, before=None, after=None, check=True):
    """step with other ideas of who moves, and of what happens before and after an update."""

    def step(self):
        for p in self.parameters():
            if check and moves(p) and p.grad is not None and p.grad.shape != p.data.shape:
                raise ValueError(f"{p.grad.shape} for {p.data.shape}")
        for group in self.param_groups:
            for p in group["params"]:
                if not moves(p):
                    continue
                if before:
                    before(self, p, group)
                self.update(p.data, p.grad, self.state.setdefault(p, {}), group)
                if after:
                    after(self, p)
                m.increment_version(p.data)

    m.Optimizer.step = step


@caught_by(1)
def frozen_parameters_move(m):
    _step(m, moves=lambda p: p.grad is not None)


@caught_by(1)
def no_gradient_is_a_gradient_of_zero(m):
    right = m.Optimizer.step

    def step(self):
        for p in self.parameters():
            if p.grad is None and p.requires_grad:
                p.grad = np.zeros_like(p.data)
        right(self)

    m.Optimizer.step = step


@caught_by(1)
def a_gradient_is_stretched_to_its_parameter(m):
    _step(m, check=False)


@caught_by(1)
def the_first_group_s_options_are_for_all(m):
    def step(self):
        for p in self.parameters():
            if p.grad is not None and p.requires_grad:
                if p.grad.shape != p.data.shape:
                    raise ValueError(f"{p.grad.shape} for {p.data.shape}")
                self.update(p.data, p.grad, self.state.setdefault(p, {}), self.param_groups[0])
                m.increment_version(p.data)

    m.Optimizer.step = step


@caught_by(1)
def writes_go_unnoticed(m):
    m.increment_version = lambda array: 0


@caught_by(1)
def a_step_makes_a_new_array(m):
    def after(self, p):
        p.data = p.data.copy()

    _step(m, after=after)


@caught_by(1)
def all_parameters_share_one_state(m):
    def before(self, p, group):
        self.state[p] = self.state.setdefault("all", {})

    right = m.Optimizer.state_dict
    _step(m, before=before)
    m.Optimizer.state_dict = right


@caught_by(1)
def a_state_is_made_for_everybody(m):
    right = m.Optimizer.step

    def step(self):
        for p in self.parameters():
            if not p.requires_grad:
                self.state.setdefault(p, {"step": 0})
        right(self)

    m.Optimizer.step = step


@caught_by(3)
def every_gradient_is_kept_for_later(m):
    def after(self, p):
        self.__dict__.setdefault("history", []).append(p.grad.copy())

    _step(m, after=after)


@caught_by(3)
def what_was_there_before_the_step_is_kept(m):
    def before(self, p, group):
        self.__dict__.setdefault("previous", {})[p] = p.data.copy()

    _step(m, before=before)


@caught_by(4)
def the_number_of_each_parameter_is_looked_for_among_all(m):
    def before(self, p, group):
        self.number = [id(q) for q in self.parameters()].index(id(p))

    _step(m, before=before)


# Scratch and decay.


@caught_by(1)
def scratch_is_new_each_time(m):
    m.Optimizer.scratch = lambda self, like, number=0: np.empty_like(like)


@caught_by(1)
def there_is_one_scratch_for_all_numbers(m):
    right = m.Optimizer.scratch
    m.Optimizer.scratch = lambda self, like, number=0: right(self, like, 0)


@caught_by(1)
def scratch_is_kept_by_shape(m):
    def scratch(self, like, number=0):
        key = (like.shape, like.dtype, number)
        if key not in self._scratch:
            self._scratch[key] = np.empty(like.shape, like.dtype)
        return self._scratch[key]

    m.Optimizer.scratch = scratch


@caught_by(1)
def scratch_shrinks_to_what_is_asked_for(m):
    def scratch(self, like, number=0):
        flat = self._scratch.get((like.dtype, number))
        if flat is None or flat.size != like.size:
            flat = self._scratch[like.dtype, number] = np.empty(like.size, like.dtype)
        return flat.reshape(like.shape)

    m.Optimizer.scratch = scratch


@caught_by(1)
def scratch_is_in_float64(m):
    def scratch(self, like, number=0):
        flat = self._scratch.get((np.dtype(float), number))
        if flat is None or flat.size < like.size:
            flat = self._scratch[np.dtype(float), number] = np.empty(like.size)
        return flat[: like.size].reshape(like.shape)

    m.Optimizer.scratch = scratch


@caught_by(1)
def decay_is_added_to_the_gradient_in_place(m):
    def decay(self, data, grad, group):
        if group["weight_decay"]:
            grad += group["weight_decay"] * data
        return grad

    m.Optimizer.decay = decay


@caught_by(1)
def decay_has_the_wrong_sign(m):
    right = m.Optimizer.decay
    m.Optimizer.decay = lambda self, data, grad, group: right(
        self, data, grad, {**group, "weight_decay": -group["weight_decay"]}
    )


@caught_by(1)
def decay_counts_twice(m):
    right = m.Optimizer.decay
    m.Optimizer.decay = lambda self, data, grad, group: right(
        self, data, grad, {**group, "weight_decay": 2 * group["weight_decay"]}
    )


# States.


@caught_by(1)
def a_state_is_a_copy(m):
    right = m.Optimizer.state_dict
    m.Optimizer.state_dict = lambda self: {n: np.copy(v) for n, v in right(self).items()}


@caught_by(1)
def options_are_no_part_of_a_state(m):
    right = m.Optimizer.state_dict
    m.Optimizer.state_dict = lambda self: {n: v for n, v in right(self).items() if n.startswith("state")}


@caught_by(1)
def parameters_are_numbered_within_their_group(m):
    def state_dict(self):
        saved = {}
        for i, group in enumerate(self.param_groups):
            for name, value in group.items():
                if name != "params":
                    saved[f"groups.{i}.{name}"] = np.array(value) if isinstance(value, tuple) else value
            for k, p in enumerate(group["params"]):
                saved.update({f"state.{k}.{name}": v for name, v in self.state.get(p, {}).items()})
        return saved

    m.Optimizer.state_dict = state_dict


def _load(m, change):
    """load_state_dict of something else; `change(self, saved, right)`."""
    right = m.Optimizer.load_state_dict
    m.Optimizer.load_state_dict = lambda self, saved: change(self, dict(saved), right)


@caught_by(1)
def a_state_that_is_loaded_is_shared(m):
    def load(self, saved, right):
        right(self, saved)
        for i, p in enumerate(self.parameters()):
            for name, value in self.state.get(p, {}).items():
                given = saved[f"state.{i}.{name}"]
                if isinstance(value, np.ndarray) and given.dtype == value.dtype:
                    self.state[p][name] = given

    _load(m, load)


@caught_by(1)
def what_is_not_in_a_state_stays(m):
    def load(self, saved, right):
        before = self.state
        right(self, saved)
        self.state = {**before, **self.state}

    _load(m, load)


@caught_by(1)
def the_count_of_steps_comes_back_as_an_array(m):
    def load(self, saved, right):
        right(self, saved)
        for state in self.state.values():
            if "step" in state:
                state["step"] = np.asarray(state["step"])

    _load(m, load)


@caught_by(1)
def betas_come_back_as_an_array(m):
    def load(self, saved, right):
        right(self, saved)
        for group in self.param_groups:
            if "betas" in group:
                group["betas"] = np.array(group["betas"])

    _load(m, load)


@caught_by(1)
def groups_are_made_anew(m):
    def load(self, saved, right):
        right(self, saved)
        self.param_groups = [dict(group) for group in self.param_groups]

    _load(m, load)


@caught_by(1)
def options_are_loaded_before_all_was_looked_at(m):
    def load(self, saved, right):
        for i, group in enumerate(self.param_groups):
            if f"groups.{i}.lr" in saved:
                group["lr"] = float(saved[f"groups.{i}.lr"])
        right(self, saved)

    _load(m, load)


@caught_by(1)
def what_belongs_to_nobody_is_ignored(m):
    def load(self, saved, right):
        owners = [f"groups.{i}" for i in range(len(self.param_groups))]
        owners += [f"state.{i}" for i in range(len(self.parameters()))]
        right(self, {n: v for n, v in saved.items() if n.rpartition(".")[0] in owners})

    _load(m, load)


@caught_by(1)
def a_state_keeps_the_dtype_that_it_has_in_the_file(m):
    def load(self, saved, right):
        right(self, saved)
        for i, p in enumerate(self.parameters()):
            for name, value in self.state.get(p, {}).items():
                if isinstance(value, np.ndarray):
                    self.state[p][name] = np.array(saved[f"state.{i}.{name}"])

    _load(m, load)


@caught_by(3)
def a_state_is_converted_on_the_way(m):
    def load(self, saved, right):
        right(
            self, {n: np.array(v, float) if np.asarray(v).dtype.kind == "f" else v for n, v in saved.items()}
        )

    _load(m, load)


# Rules.


def _update(m, rule, change):
    """`update` of a rule; `change(self, data, grad, state, group, right)`."""
    right = rule.update
    rule.update = lambda self, *arguments: change(self, *arguments, right)


@caught_by(1)
def the_first_momentum_is_the_gradient_itself(m):
    def update(self, data, grad, state, group, right):
        first = "momentum_buffer" not in state
        right(self, data, grad, state, group)
        if first and group["momentum"] and not group["weight_decay"]:
            state["momentum_buffer"] = grad

    _update(m, m.SGD, update)


@caught_by(1)
def the_first_gradient_is_dampened(m):
    def update(self, data, grad, state, group, right):
        if group["momentum"]:
            m.buffer(state, "momentum_buffer", data)
        right(self, data, grad, state, group)

    _update(m, m.SGD, update)


@caught_by(1)
def momentum_is_a_running_mean(m):
    def update(self, data, grad, state, group, right):
        later = "momentum_buffer" in state and not group["nesterov"]
        right(self, data, grad, state, {**group, "dampening": group["momentum"]} if later else group)

    _update(m, m.SGD, update)


@caught_by(1)
def nesterov_is_plain_momentum(m):
    def update(self, data, grad, state, group, right):
        right(self, data, grad, state, {**group, "nesterov": False})

    _update(m, m.SGD, update)


@caught_by(1)
def the_learning_rate_is_in_the_buffer(m):
    """As in some textbooks: v = momentum * v + lr * grad. It differs as soon as the rate changes."""

    def update(self, data, grad, state, group, right):
        if not group["momentum"] or group["nesterov"]:
            right(self, data, grad, state, group)
            return
        grad = self.decay(data, grad, group)
        share = 1 if "momentum_buffer" not in state else 1 - group["dampening"]
        buffer = m.buffer(state, "momentum_buffer", data)
        buffer *= group["momentum"]
        buffer += group["lr"] * share * grad
        data -= buffer

    _update(m, m.SGD, update)


@caught_by(1)
def decay_of_sgd_goes_past_the_momentum(m):
    def update(self, data, grad, state, group, right):
        data *= 1 - group["lr"] * group["weight_decay"]
        right(self, data, grad, state, {**group, "weight_decay": 0})

    _update(m, m.SGD, update)


@caught_by(1)
def without_momentum_a_buffer_is_kept_all_the_same(m):
    def update(self, data, grad, state, group, right):
        right(self, data, grad, state, group)
        m.buffer(state, "momentum_buffer", data)

    _update(m, m.SGD, update)


@caught_by(3)
def sgd_makes_an_array_of_the_step(m):
    def update(self, data, grad, state, group, right):
        if group["momentum"]:
            right(self, data, grad, state, group)
        else:
            data -= group["lr"] * self.decay(data, grad, group)

    _update(m, m.SGD, update)


def _by_rows(m, rule):
    """A rule row by row, for arrays that have any."""

    def update(self, data, grad, state, group, right):
        if data.ndim < 2 or not state:
            right(self, data, grad, state, group)
            return
        after = state
        for i in range(len(data)):
            after = {
                name: value[i] if isinstance(value, np.ndarray) else value for name, value in state.items()
            }
            right(self, data[i], grad[i], after, group)
        if "step" in after:
            state["step"] = after["step"]

    _update(m, rule, update)


@caught_by(4)
def adam_goes_row_by_row(m):
    _by_rows(m, m.Adam)


@caught_by(4)
def sgd_goes_row_by_row(m):
    def update(self, data, grad, state, group, right):
        if data.ndim < 2 or group["momentum"]:
            right(self, data, grad, state, group)
            return
        for row, slope in zip(data, grad, strict=True):
            right(self, row, slope, state, group)

    _update(m, m.SGD, update)


@caught_by(1)
def a_running_mean_writes_over_what_comes_in(m):
    def running_mean(mean, value, keep, scratch):
        value *= 1 - keep
        mean *= keep
        mean += value

    m.running_mean = running_mean


@caught_by(1)
def a_running_mean_takes_what_it_should_keep(m):
    right = m.running_mean
    m.running_mean = lambda mean, value, keep, scratch: right(mean, value, 1 - keep, scratch)


@caught_by(3)
def a_running_mean_makes_arrays(m):
    def running_mean(mean, value, keep, scratch):
        mean[...] = keep * mean + (1 - keep) * value

    m.running_mean = running_mean


@caught_by(1)
def a_running_mean_needs_scratch_of_its_own(m):
    """`mean` times keep goes into scratch, which may be the value."""

    def running_mean(mean, value, keep, scratch):
        np.multiply(mean, keep, out=scratch)
        mean[...] = value
        mean *= 1 - keep
        mean += scratch

    m.running_mean = running_mean


@caught_by(3)
def squares_are_made_by_a_power(m):
    right = m.running_mean
    m.running_square = lambda mean, value, keep, scratch: right(mean, value**2, keep, scratch)


@caught_by(1)
def eps_is_inside_of_rmsprops_root(m):
    def update(self, data, grad, state, group, right):
        if group["centered"] or group["momentum"]:
            right(self, data, grad, state, group)
            return
        grad, scratch = self.decay(data, grad, group), self.scratch(data)
        square = m.buffer(state, "square_avg", data)
        m.running_square(square, grad, group["alpha"], scratch)
        np.add(square, group["eps"], out=scratch)
        np.sqrt(scratch, out=scratch)
        np.divide(grad, scratch, out=scratch)
        scratch *= group["lr"]
        data -= scratch

    _update(m, m.RMSprop, update)


@caught_by(1)
def a_variance_may_be_negative(m):
    class Numpy:
        def __getattr__(self, name):
            return getattr(np, name) if name != "maximum" else lambda a, b, out: out

    m.np = Numpy()


@caught_by(1)
def centered_makes_no_difference(m):
    def update(self, data, grad, state, group, right):
        right(self, data, grad, state, {**group, "centered": False})

    _update(m, m.RMSprop, update)


def _adam(m, correct=lambda beta, step: 1 - beta**step, inside=False, early=False, count=None, start=0):
    """Adam by the book, with other ideas of the correction, of eps and of the count."""

    def update(self, data, grad, state, group):
        (beta1, beta2), scratch = group["betas"], self.scratch(data)
        grad = self.decay(data, grad, group)
        state["step"] = step = state.get("step", start) + 1
        if count:
            step = count(self, step)
        mean, square = m.buffer(state, "exp_avg", data), m.buffer(state, "exp_avg_sq", data)
        m.running_mean(mean, grad, beta1, scratch)
        m.running_square(square, grad, beta2, scratch)
        root, eps = math.sqrt(correct(beta2, step)), group["eps"]
        if inside:
            np.add(square, eps * root**2, out=scratch)
            np.sqrt(scratch, out=scratch)
        else:
            np.sqrt(square, out=scratch)
            scratch += eps if early else eps * root
        np.divide(mean, scratch, out=scratch)
        scratch *= group["lr"] * root / correct(beta1, step)
        data -= scratch

    m.Adam.update = update


@caught_by(1)
def adam_is_not_corrected(m):
    _adam(m, correct=lambda beta, step: 1.0)


@caught_by(1)
def the_correction_is_a_power_of_the_rest(m):
    _adam(m, correct=lambda beta, step: (1 - beta) ** step)


@caught_by(1)
def the_correction_counts_from_two(m):
    _adam(m, correct=lambda beta, step: 1 - beta ** (step + 1))


@caught_by(1)
def steps_are_counted_from_one_too_many(m):
    _adam(m, start=1)


@caught_by(1)
def eps_is_inside_of_adams_root(m):
    _adam(m, inside=True)


@caught_by(1)
def eps_is_added_before_the_correction(m):
    _adam(m, early=True)


@caught_by(1)
def one_count_of_steps_is_for_all_parameters(m):
    def count(self, step):
        self.most = max(getattr(self, "most", 0), step)
        return self.most

    _adam(m, count=count)


@caught_by(1)
def the_betas_are_swapped(m):
    def update(self, data, grad, state, group, right):
        right(self, data, grad, state, {**group, "betas": group["betas"][::-1]})

    _update(m, m.Adam, update)


@caught_by(3)
def zeros_are_made_at_each_step(m):
    def buffer(state, name, like):
        return state.setdefault(name, np.zeros(like.shape, like.dtype))

    m.buffer = buffer


@caught_by(1)
def means_are_kept_in_float64(m):
    def buffer(state, name, like):
        if name not in state:
            state[name] = np.zeros(like.shape)
        return state[name]

    m.buffer = buffer


@caught_by(1)
def adamw_is_adam_with_decay(m):
    m.AdamW.decay = m.Optimizer.decay


@caught_by(1)
def decoupled_decay_forgets_the_learning_rate(m):
    def decay(self, data, grad, group):
        data *= 1 - group["weight_decay"]
        return grad

    m.AdamW.decay = decay


@caught_by(3)
def decoupled_decay_makes_an_array(m):
    def decay(self, data, grad, group):
        data -= group["lr"] * group["weight_decay"] * data
        return grad

    m.AdamW.decay = decay


# Clipping.


def _clip(m, norm_of=None, factor_of=lambda limit, norm: min(1.0, limit / (norm + 1e-6)), each=False):
    """clip_grad_norm_ with another norm, another factor, or gradient by gradient."""
    norm_of = norm_of or (lambda grads: math.sqrt(sum(float(np.vdot(g, g)) for g in grads)))

    def clip_grad_norm_(params, max_norm):
        if not max_norm >= 0:
            raise ValueError(f"max_norm={max_norm}")
        grads = [p.grad for p in params if p.grad is not None]
        norm = norm_of(grads)
        for grad in grads:
            factor = factor_of(max_norm, norm_of([grad]) if each else norm)
            if factor != 1 and math.isfinite(norm):
                grad *= factor
        return norm

    m.clip_grad_norm_ = clip_grad_norm_


@caught_by(1)
def each_gradient_is_clipped_by_its_own_norm(m):
    _clip(m, each=True)


@caught_by(1)
def small_gradients_are_blown_up(m):
    _clip(m, factor_of=lambda limit, norm: limit / (norm + 1e-6) if norm else 1)


@caught_by(1)
def the_norm_is_the_sum_of_norms(m):
    _clip(m, norm_of=lambda grads: sum(float(np.linalg.norm(g)) for g in grads))


@caught_by(1)
def the_norm_is_that_of_what_comes_out(m):
    right = m.clip_grad_norm_

    def clip_grad_norm_(params, max_norm):
        params = list(params)
        right(params, max_norm)
        return right(params, math.inf)

    m.clip_grad_norm_ = clip_grad_norm_


@caught_by(1)
def nothing_is_added_to_the_norm(m):
    _clip(m, factor_of=lambda limit, norm: min(1.0, limit / norm) if norm else 1.0)


@caught_by(1)
def a_generator_is_gone_through_twice(m):
    def clip_grad_norm_(params, max_norm):
        if not max_norm >= 0:
            raise ValueError(f"max_norm={max_norm}")
        norm = math.sqrt(sum(float(np.vdot(p.grad, p.grad)) for p in params if p.grad is not None))
        factor = max_norm / (norm + 1e-6)
        for p in params:
            if p.grad is not None and factor < 1 and math.isfinite(norm):
                p.grad *= factor
        return norm

    m.clip_grad_norm_ = clip_grad_norm_


@caught_by(3)
def clipping_makes_an_array_of_squares(m):
    _clip(m, norm_of=lambda grads: math.sqrt(sum(float((g**2).sum()) for g in grads)))


@caught_by(4)
def the_norm_is_added_up_row_by_row(m):
    _clip(m, norm_of=lambda gs: math.sqrt(sum(float(np.vdot(r, r)) for g in gs for r in np.atleast_1d(g))))


@caught_by(1)
def values_are_clipped_from_above_only(m):
    def clip_grad_value_(params, clip_value):
        if not clip_value >= 0:
            raise ValueError(f"clip_value={clip_value}")
        for p in params:
            if p.grad is not None:
                np.minimum(p.grad, clip_value, out=p.grad)

    m.clip_grad_value_ = clip_grad_value_


@caught_by(1)
def clipped_values_are_a_new_array(m):
    def clip_grad_value_(params, clip_value):
        if not clip_value >= 0:
            raise ValueError(f"clip_value={clip_value}")
        for p in params:
            if p.grad is not None:
                p.grad = np.clip(p.grad, -clip_value, clip_value)

    m.clip_grad_value_ = clip_grad_value_


# Schedules.


@caught_by(1)
def the_rate_is_scaled_from_where_it_is(m):
    """Rates by rates: what was set by hand stays in it, and so does what was there before loading."""

    def apply(self):
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            if self.last_epoch:
                before = self.lr_at(self.last_epoch - 1, base_lr) or 1.0
                group["lr"] *= self.lr_at(self.last_epoch, base_lr) / before
            else:
                group["lr"] = self.lr_at(0, base_lr)

    m.LRScheduler.apply = apply


@caught_by(1)
def all_groups_go_by_the_first_base(m):
    def apply(self):
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(self.last_epoch, self.base_lrs[0])

    m.LRScheduler.apply = apply


@caught_by(1)
def a_step_sets_the_rate_before_it_counts(m):
    def step(self):
        self.apply()
        self.last_epoch += 1

    m.LRScheduler.step = step


@caught_by(1)
def what_was_loaded_is_set_at_the_next_step_only(m):
    def load_state_dict(self, saved):
        base_lrs = np.asarray(saved["base_lrs"]).tolist()
        if len(base_lrs) != len(self.base_lrs):
            raise ValueError(f"{len(base_lrs)} groups, not {len(self.base_lrs)}")
        self.last_epoch, self.base_lrs = int(saved["last_epoch"]), base_lrs

    m.LRScheduler.load_state_dict = load_state_dict


@caught_by(1)
def the_bases_are_not_loaded(m):
    def load_state_dict(self, saved):
        if len(saved["base_lrs"]) != len(self.base_lrs):
            raise ValueError(f"{len(saved['base_lrs'])} groups, not {len(self.base_lrs)}")
        self.last_epoch = int(saved["last_epoch"])
        self.apply()

    m.LRScheduler.load_state_dict = load_state_dict


@caught_by(1)
def steps_come_one_too_early(m):
    m.StepLR.lr_at = lambda self, epoch, base_lr: base_lr * self.gamma ** ((epoch + 1) // self.step_size)


@caught_by(4)
def a_staircase_is_climbed_from_the_ground_each_time(m):
    def lr_at(self, epoch, base_lr):
        for step in range(1, epoch + 1):
            if step % self.step_size == 0:
                base_lr *= self.gamma
        return base_lr

    m.StepLR.lr_at = lr_at


@caught_by(1)
def a_warm_up_goes_on(m):
    def lr_at(self, epoch, base_lr):
        done = epoch / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)

    m.LinearLR.lr_at = lr_at


@caught_by(1)
def a_wave_is_a_line(m):
    m.cosine = lambda start, end, done: start + (end - start) * done


@caught_by(1)
def a_quarter_of_a_wave(m):
    m.cosine = lambda start, end, done: end + (start - end) * math.cos(math.pi / 2 * done)


@caught_by(1)
def annealing_stays_at_its_end(m):
    m.CosineAnnealingLR.lr_at = lambda self, epoch, base_lr: m.cosine(
        base_lr, self.eta_min, min(epoch / self.T_max, 1)
    )


def _between(m, top_of, last_of=lambda self: self.total_steps - 1, most=1.0):
    def between(self, epoch, start, peak, end):
        top, last = top_of(self), last_of(self)
        if epoch < top:
            start, end, done = start, peak, epoch / top
        else:
            start, end, done = peak, end, min((epoch - top) / (last - top), most)
        return m.cosine(start, end, done) if self.anneal_strategy == "cos" else start + (end - start) * done

    m.OneCycleLR.between = between


@caught_by(1)
def the_peak_is_one_step_late(m):
    _between(m, lambda self: self.pct_start * self.total_steps)


@caught_by(1)
def the_peak_is_at_a_whole_step(m):
    _between(m, lambda self: int(self.pct_start * self.total_steps) - 1)


@caught_by(1)
def a_cycle_ends_a_step_after_the_last(m):
    _between(m, lambda self: self.pct_start * self.total_steps - 1, lambda self: self.total_steps)


@caught_by(1)
def a_cycle_goes_past_its_end(m):
    _between(m, lambda self: self.pct_start * self.total_steps - 1, most=math.inf)


@caught_by(1)
def momentum_goes_with_the_rate(m):
    right = m.OneCycleLR.between

    def between(self, epoch, start, peak, end):
        if self.momenta and (start, peak, end) == self.momenta:
            start, peak, end = peak, start, peak
        return right(self, epoch, start, peak, end)

    m.OneCycleLR.between = between


@caught_by(1)
def adams_momentum_stays(m):
    right = m.OneCycleLR.apply

    def apply(self):
        before = [group.get("betas") for group in self.optimizer.param_groups]
        right(self)
        for group, betas in zip(self.optimizer.param_groups, before, strict=True):
            if betas:
                group["betas"] = betas

    m.OneCycleLR.apply = apply


@caught_by(1)
def both_betas_are_momentum(m):
    right = m.OneCycleLR.apply

    def apply(self):
        right(self)
        for group in self.optimizer.param_groups:
            if "betas" in group and self.momenta:
                group["betas"] = (group["betas"][0],) * 2

    m.OneCycleLR.apply = apply


@caught_by(1)
def a_cycle_is_never_over(m):
    right = m.OneCycleLR.apply

    def apply(self):
        count, self.last_epoch = self.last_epoch, min(self.last_epoch, self.total_steps)
        right(self)
        self.last_epoch = count

    m.OneCycleLR.apply = apply


def _sequence(m, turn, own):
    def apply(self):
        i = turn(self)
        current = self.schedulers[i]
        current.last_epoch = own(self, i)
        current.apply()

    m.SequentialLR.apply = apply


def _since(self, i):
    return self.last_epoch - (self.milestones[i - 1] if i else 0)


def _reached(self):
    return sum(one <= self.last_epoch for one in self.milestones)


@caught_by(1)
def the_next_schedule_goes_on_from_the_count_of_all(m):
    _sequence(m, _reached, lambda self, i: self.last_epoch)


@caught_by(1)
def a_milestone_belongs_to_the_schedule_before(m):
    _sequence(m, lambda self: sum(one < self.last_epoch for one in self.milestones), _since)


@caught_by(1)
def milestones_are_counted_from_the_one_before(m):
    _sequence(m, _reached, lambda self, i: self.last_epoch - sum(self.milestones[:i]))


@caught_by(1)
def a_sequence_forgets_the_states_of_its_parts(m):
    m.SequentialLR.state_dict = m.LRScheduler.state_dict
    m.SequentialLR.load_state_dict = m.LRScheduler.load_state_dict


@caught_by(1)
def the_parts_have_the_last_word(m):
    def load_state_dict(self, saved):
        m.LRScheduler.load_state_dict(self, saved)
        for i, one in enumerate(self.schedulers):
            own = {name[2:]: v for name, v in saved.items() if name.startswith(f"{i}.")}
            one.load_state_dict(own)

    m.SequentialLR.load_state_dict = load_state_dict


# What got past the suite once.


@caught_by(1)
def some_have_moved_when_a_later_one_is_refused(m):
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.requires_grad:
                    if p.grad.shape != p.data.shape:
                        raise ValueError(f"{p.grad.shape} for {p.data.shape}")
                    self.update(p.data, p.grad, self.state.setdefault(p, {}), group)
                    m.increment_version(p.data)

    m.Optimizer.step = step


@caught_by(1)
def one_that_is_refused_has_an_empty_state(m):
    rewritten(
        m,
        "Optimizer.step",
        ("    for p, _ in moving:\n", "    for p, _ in moving:\n        self.state.setdefault(p, {})\n"),
    )


@caught_by(1)
def scratch_is_the_same_bytes_for_every_dtype(m):
    def scratch(self, like, number=0):
        flat = self._scratch.get(number)
        if flat is None or flat.nbytes < like.nbytes:
            flat = self._scratch[number] = np.empty(like.nbytes, np.uint8)
        return flat[: like.nbytes].view(like.dtype).reshape(like.shape)

    m.Optimizer.scratch = scratch


@caught_by(1)
def numbers_have_one_digit(m):
    right = m.Optimizer.load_state_dict

    def load(self, saved):
        right(self, {name: v for name, v in saved.items() if "." not in name or name.split(".")[1] < "9"})

    m.Optimizer.load_state_dict = load


@caught_by(1)
def a_single_number_is_not_copied(m):
    rewritten(m, "Optimizer.load_state_dict", ("v.astype(p.dtype)", "v.astype(p.dtype, copy=v.ndim > 0)"))


@caught_by(1)
def options_that_are_no_defaults_are_thrown_out(m):
    rewritten(
        m,
        "Optimizer.load_state_dict",
        (
            "group.update(options)",
            "kept = group['params']; group.clear(); group.update(options, params=kept)",
        ),
    )


@caught_by(4)
def each_parameter_looks_through_the_whole_state(m):
    right = m.Optimizer.load_state_dict

    def load(self, saved):
        right(self, saved)
        for i in range(len(self.parameters())):
            [name for name in saved if name.startswith(f"state.{i}.")]

    m.Optimizer.load_state_dict = load


@caught_by(1)
def momentum_is_that_of_the_first_group(m):
    rewritten(m, "SGD.update", ('group["momentum"]', 'self.param_groups[0]["momentum"]'))


@caught_by(1)
def alpha_is_that_of_the_first_group(m):
    rewritten(m, "RMSprop.update", ('group["alpha"]', 'self.param_groups[0]["alpha"]'))


@caught_by(1)
def betas_are_those_of_the_first_group(m):
    rewritten(m, "Adam.update", ('group["betas"]', 'self.param_groups[0]["betas"]'))


@caught_by(1)
def eps_is_the_default(m):
    rewritten(m, "Adam.update", ('group["eps"]', 'self.defaults["eps"]'))


@caught_by(1)
def frozen_gradients_do_not_count(m):
    rewritten(
        m,
        "clip_grad_norm_",
        (
            "for p in params if p.grad is not None",
            "for p in params if p.grad is not None and p.requires_grad",
        ),
    )


@caught_by(1)
def momentum_goes_round_in_the_first_group_only(m):
    rewritten(m, "OneCycleLR.apply", ("self.optimizer.param_groups", "self.optimizer.param_groups[:1]"))


@caught_by(1)
def momentum_goes_in_lines_whatever_the_rate_does(m):
    right = m.OneCycleLR.apply

    def apply(self):
        right(self)
        strategy, self.anneal_strategy = self.anneal_strategy, "linear"
        if self.momenta is not None:
            for group in self.optimizer.param_groups:
                momentum = self.between(self.last_epoch, *self.momenta)
                group.update(
                    {"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum}
                )
        self.anneal_strategy = strategy

    m.OneCycleLR.apply = apply


@caught_by(1)
def a_cycle_is_over_once_only(m):
    rewritten(
        m,
        "OneCycleLR.apply",
        ("self.last_epoch > self.total_steps", "self.last_epoch == self.total_steps + 1"),
    )


@caught_by(1)
def a_later_group_is_noticed_by_the_next_step_only(m):
    right = m.LRScheduler.step

    def step(self):
        if len(self.optimizer.param_groups) != len(self.base_lrs):
            raise ValueError("a group came later")
        right(self)

    rewritten(m, "LRScheduler.apply", ("strict=True", "strict=False"))
    m.LRScheduler.step = step


@caught_by(1)
def the_states_of_nested_parts_lose_their_path(m):
    def load(self, saved):
        for i, one in enumerate(self.schedulers):
            own = {name.split(".")[-1]: v for name, v in saved.items() if name.startswith(f"{i}.")}
            one.load_state_dict(own)
        m.LRScheduler.load_state_dict(self, saved)

    m.SequentialLR.load_state_dict = load


@caught_by(1)
def those_that_wait_have_an_empty_state(m):
    each = "    for p, group in moving:\n        self.update"
    empty = "    for p in self.parameters():\n        self.state.setdefault(p, {})\n"
    rewritten(m, "Optimizer.step", (each, empty + each))


@caught_by(1)
def a_look_at_the_state_notes_an_empty_one(m):
    rewritten(m, "Optimizer.state_dict", ("self.state.get(p, {})", "self.state.setdefault(p, {})"))


@caught_by(1)
def arrays_are_those_from_when_the_group_was_added(m):
    add = "    self.param_groups.append(options)"
    note = "\n    self.arrays = {p: p.data for p in self.parameters()}"
    rewritten(m, "Optimizer.add_param_group", (add, add + note))
    rewritten(m, "Optimizer.step", ("self.update(p.data,", "self.update(self.arrays[p],"))


@caught_by(1)
def a_list_of_betas_is_no_array_in_a_state(m):
    rewritten(m, "Optimizer.state_dict", ("(tuple, list)", "tuple"))


@caught_by(1)
def options_come_back_as_floats(m):
    options = "value.tolist()"
    rewritten(m, "Optimizer.load_state_dict", (options, f"{options} if value.ndim else float(value)"))


@caught_by(1)
def a_state_of_integers_does_not_fit(m):
    fits = 'np.can_cast(value.dtype, p.dtype, "same_kind")'
    rewritten(m, "Optimizer.load_state_dict", (fits, 'value.dtype.kind == "f"'))


@caught_by(1)
def a_running_square_needs_scratch_of_its_own(m):
    def running_square(mean, value, keep, scratch):
        np.multiply(value, 1 - keep, out=scratch)
        scratch *= value
        mean *= keep
        mean += scratch

    m.running_square = running_square


@caught_by(1)
def the_learning_rate_is_in_the_buffer_of_rmsprop(m):
    """As in TensorFlow's. It differs as soon as the rate changes."""
    adds = 'moving += scratch\n        np.multiply(moving, group["lr"], out=scratch)'
    scaled = 'scratch *= group["lr"]\n        moving += scratch\n        np.copyto(scratch, moving)'
    rewritten(m, "RMSprop.update", (adds, scaled))


@caught_by(1)
def decoupled_decay_goes_by_the_first_rate(m):
    rewritten(m, "AdamW.decay", ('group["lr"]', 'group.get("initial_lr", group["lr"])'))


@caught_by(1)
def a_flat_copy_is_scaled(m):
    scaled = "            flat = grad.reshape(-1)\n            flat *= factor"
    rewritten(m, "clip_grad_norm_", ("            grad *= factor", scaled))


@caught_by(1)
def values_of_a_flat_copy_are_clipped(m):
    clip = "np.clip(p.grad, -clip_value, clip_value, out=p.grad)"
    flat = "flat = p.grad.reshape(-1)\n            np.clip(flat, -clip_value, clip_value, out=flat)"
    rewritten(m, "clip_grad_value_", (clip, flat))


@caught_by(1)
def values_that_are_not_finite_clip_nothing(m):
    there = "if p.grad is not None"
    rewritten(m, "clip_grad_value_", (there, f"{there} and np.isfinite(p.grad).all()"))


@caught_by(1)
def schedules_have_one_digit(m):
    rewritten(m, "SequentialLR.load_state_dict", ("name.removeprefix(prefix)", "name[2:]"))


EQUIVALENT: dict[str, str] = {
    "Optimizer.load_state_dict: {p: {name: v if name == 'step' else v.astype(p.dtype) for name, v in "
    "new.items()} for p, new in states.values() if new} -> {p: {name: v if name == 'step' else "
    "v.astype(p.dtype) for name, v in new.items()} for p, new in states.values()}": (
        "an empty state is what a parameter's first step makes"
    ),
    "clip_grad_norm_: factor < 1 -> factor <= 1": "a factor of 1 changes nothing",
    "clip_grad_value_: np.clip(p.grad, -clip_value, clip_value, out=p.grad) -> np.clip(-clip_value, p.grad, "
    "clip_value, out=p.grad)": "the larger of two numbers, whichever comes first",
}
