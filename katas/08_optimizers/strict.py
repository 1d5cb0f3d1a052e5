"""What a trusted grade asks of kata 08: each check on fresh numbers, its answers as one array."""

import io
import math

import numpy as np

from dojo.strict import Check

# SGD in all its forms: rows of momentum, dampening, decay, nesterov.


def draw_sgd(rng):
    count, size = int(rng.integers(5, 20)), int(rng.integers(1, 9))
    momentum = float(rng.choice([0.0, rng.uniform(0.1, 0.95)]))
    nesterov = float(momentum > 0 and rng.random() < 0.5)
    dampening = 0.0 if nesterov else float(rng.uniform(0, 1))
    decay = float(rng.choice([0.0, rng.uniform(0, 0.5)]))
    return {
        "start": rng.normal(size=size),
        "grads": rng.normal(size=(count, size)),
        "options": np.array([rng.uniform(0.01, 0.5), momentum, dampening, decay, nesterov]),
    }


def run_sgd(student, start, grads, options):
    lr, momentum, dampening, decay, nesterov = options.tolist()
    p = student.Parameter(start)
    optimizer = student.SGD([p], lr, momentum, dampening, decay, bool(nesterov))
    places = []
    for grad in grads:
        p.grad = grad
        optimizer.step()
        places.append(p.data.copy())
    return np.stack(places)


def expected_sgd(start, grads, options):
    lr, momentum, dampening, decay, nesterov = options.tolist()
    x, buffer, places = start, None, []
    for grad in grads:
        grad = grad + decay * x
        if momentum:
            buffer = grad if buffer is None else momentum * buffer + (1 - dampening) * grad
            grad = grad + momentum * buffer if nesterov else buffer
        x = x - lr * grad
        places.append(x)
    return np.stack(places)


# RMSprop.


def draw_rmsprop(rng):
    count, size = int(rng.integers(5, 20)), int(rng.integers(1, 9))
    return {
        "start": rng.normal(size=size),
        "grads": rng.normal(size=(count, size)),
        "options": np.array(
            [
                rng.uniform(0.01, 0.5),
                rng.uniform(0.1, 0.95),
                rng.uniform(1e-3, 0.5),
                rng.choice([0.0, 0.2]),
                rng.choice([0.0, rng.uniform(0.1, 0.9)]),
                rng.integers(0, 2),
            ]
        ),
    }


def run_rmsprop(student, start, grads, options):
    *numbers, centered = options.tolist()
    p = student.Parameter(start)
    optimizer = student.RMSprop([p], *numbers, bool(centered))
    places = []
    for grad in grads:
        p.grad = grad
        optimizer.step()
        places.append(p.data.copy())
    return np.stack(places)


def expected_rmsprop(start, grads, options):
    lr, alpha, eps, decay, momentum, centered = options.tolist()
    x, square, mean, moving, places = start, 0.0, 0.0, 0.0, []
    for grad in grads:
        grad = grad + decay * x
        square = alpha * square + (1 - alpha) * grad**2
        mean = alpha * mean + (1 - alpha) * grad
        spread = np.maximum(square - mean**2, 0) if centered else square
        moving = momentum * moving + grad / (np.sqrt(spread) + eps)
        x = x - lr * moving
        places.append(x)
    return np.stack(places)


# Adam and AdamW, in two groups, of which parameters have no gradient now and then.


def draw_adam(rng):
    count, tensors, size = int(rng.integers(8, 20)), int(rng.integers(2, 6)), int(rng.integers(1, 5))
    return {
        "start": rng.normal(size=(tensors, size)),
        "grads": rng.normal(size=(count, tensors, size)),
        "there": rng.random((count, tensors)) < 0.8,
        "options": np.array(
            [
                rng.uniform(0.01, 0.5),
                rng.uniform(0.01, 0.5),
                rng.uniform(0, 0.95),
                rng.uniform(0, 0.999),
                10 ** rng.uniform(-8, 0),
                rng.choice([0.0, rng.uniform(0, 0.5)]),
                rng.integers(0, 2),
                rng.integers(0, tensors + 1),
            ]
        ),
    }


def run_adam(student, start, grads, there, options):
    lr, other, beta1, beta2, eps, decay, decoupled, cut = options.tolist()
    made = [student.Parameter(row.copy()) for row in start]
    rule = student.AdamW if decoupled else student.Adam
    groups = [{"params": made[: int(cut)]}, {"params": made[int(cut) :], "lr": other}]
    optimizer = rule(groups, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    for rows, now in zip(grads, there, strict=True):
        optimizer.zero_grad()
        for p, row, has in zip(made, rows, now, strict=True):
            if has:
                p.grad = row
        optimizer.step()
    return np.stack([p.data for p in made])


def expected_adam(start, grads, there, options):
    lr, other, beta1, beta2, eps, decay, decoupled, cut = options.tolist()
    places = []
    for i, x in enumerate(start):
        mean, square, rate = 0.0, 0.0, lr if i < cut else other
        for t, grad in enumerate(grads[there[:, i], i], 1):
            if decoupled:
                x = x * (1 - rate * decay)
            else:
                grad = grad + decay * x
            mean = beta1 * mean + (1 - beta1) * grad
            square = beta2 * square + (1 - beta2) * grad**2
            x = x - rate * (mean / (1 - beta1**t)) / (np.sqrt(square / (1 - beta2**t)) + eps)
        places.append(x)
    return np.stack(places)


# A state that goes through a file, in float32, to the last bit; under a schedule that goes through it too.


def draw_resumed(rng):
    count, size = int(rng.integers(6, 20)), int(rng.integers(1, 9))
    return {
        "start": rng.normal(size=size).astype(np.float32),
        "grads": rng.normal(size=(count, size)).astype(np.float32),
        "stop": rng.integers(0, count, 1),
    }


def run_resumed(student, start, grads, stop):
    ends = []
    for rule in (student.SGD, student.RMSprop, student.Adam, student.AdamW):
        for interrupted in (False, True):
            p = student.Parameter(start.copy())
            optimizer = rule([p], lr=0.1)
            optimizer.param_groups[0].update({"momentum": 0.9} if "momentum" in optimizer.defaults else {})
            schedule = student.CosineAnnealingLR(optimizer, len(grads))
            for step, grad in enumerate(grads):
                if interrupted and step == int(stop[0]):
                    file = io.BytesIO()
                    names = {f"o.{name}": value for name, value in optimizer.state_dict().items()}
                    names.update({f"s.{name}": value for name, value in schedule.state_dict().items()})
                    np.savez(file, **names)
                    file.seek(0)
                    saved = dict(np.load(file, allow_pickle=False))
                    p = student.Parameter(p.data.copy())
                    optimizer = rule([p], lr=0.7)
                    schedule = student.CosineAnnealingLR(optimizer, len(grads))
                    optimizer.load_state_dict({n[2:]: v for n, v in saved.items() if n[0] == "o"})
                    schedule.load_state_dict({n[2:]: v for n, v in saved.items() if n[0] == "s"})
                p.grad = grad
                optimizer.step()
                schedule.step()
            ends.append(p.data)
        ends[-2:] = [np.array([np.array_equal(ends[-2], ends[-1]), ends[-1].dtype == np.float32])]
    return np.concatenate(ends)


def expected_resumed(start, grads, stop):
    return np.ones(8, bool)


# Clipping.


def draw_clipping(rng):
    size = int(rng.integers(1, 9))
    return {
        "grads": rng.normal(size=(int(rng.integers(1, 5)), size)),
        "limits": np.array([rng.uniform(0, 3), rng.uniform(0, 1)]),
    }


def run_clipping(student, grads, limits):
    made = [student.Parameter(np.zeros(grads.shape[1])) for _ in range(len(grads) + 1)]
    for p, grad in zip(made, grads, strict=False):
        p.grad = grad.copy()
    norm = student.clip_grad_norm_((p for p in made), float(limits[0]))
    scaled = [p.grad.copy() for p in made[:-1]]
    student.clip_grad_value_(made, float(limits[1]))
    return np.concatenate([[norm], np.ravel(scaled), np.ravel([p.grad for p in made[:-1]])])


def expected_clipping(grads, limits):
    norm = math.sqrt(float(np.sum(grads**2)))
    scaled = grads * min(1.0, limits[0] / (norm + 1e-6))
    return np.concatenate([[norm], np.ravel(scaled), np.ravel(np.clip(scaled, -limits[1], limits[1]))])


# Schedules.


def draw_schedules(rng):
    return {
        "lr": rng.uniform(0.1, 2, 1),
        "steps": rng.integers(12, 60, 1),
        "numbers": np.array([rng.integers(1, 6), rng.integers(2, 9), rng.integers(2, 30)]),
        "shares": np.array([rng.uniform(0.2, 0.95), rng.uniform(0.05, 0.9), rng.uniform(0.15, 0.6)]),
    }


def run_schedules(student, lr, steps, numbers, shares):
    base, count = float(lr[0]), int(steps[0])
    every, rise, fall = numbers.tolist()
    gamma, factor, share = shares.tolist()
    makers = (
        lambda o: student.StepLR(o, every, gamma),
        lambda o: student.LinearLR(o, factor, total_iters=rise),
        lambda o: student.CosineAnnealingLR(o, fall, base / 10),
        lambda o: student.OneCycleLR(o, base, count, share),
        lambda o: student.OneCycleLR(o, base, count, share, "linear"),
        lambda o: student.SequentialLR(
            o,
            [student.LinearLR(o, factor, total_iters=rise), student.CosineAnnealingLR(o, fall)],
            [rise],
        ),
    )
    rows = []
    for make in makers:
        optimizer = student.SGD([student.Parameter(np.zeros(1))], lr=base, momentum=0.5)
        schedule, (group,) = make(optimizer), optimizer.param_groups
        for _ in range(count):
            rows.append([group["lr"], group["momentum"]])
            schedule.step()
    return np.array(rows)


def expected_schedules(lr, steps, numbers, shares):
    base, count = float(lr[0]), int(steps[0])
    every, rise, fall = numbers.tolist()
    gamma, factor, share = shares.tolist()

    def wave(start, end, done):
        return end + (start - end) * (1 + math.cos(math.pi * done)) / 2

    def line(start, end, done):
        return start + (end - start) * done

    def warm(t):
        return base * line(factor, 1, min(1, t / rise))

    def cycle(t, ease):
        top = share * count - 1
        if t < top:
            return ease(base / 25, base, t / top), ease(0.95, 0.85, t / top)
        done = (t - top) / (count - 1 - top)
        return ease(base, base / 250_000, done), ease(0.85, 0.95, done)

    rules = (
        lambda t: (base * gamma ** (t // every), 0.5),
        lambda t: (warm(t), 0.5),
        lambda t: (wave(base, base / 10, t / fall), 0.5),
        lambda t: cycle(t, wave),
        lambda t: cycle(t, line),
        lambda t: (warm(t) if t < rise else wave(base, 0, (t - rise) / fall), 0.5),
    )
    return np.array([rule(t) for rule in rules for t in range(count)])


CHECKS = (
    Check("steps of SGD", draw_sgd, run_sgd, expected_sgd, rtol=1e-8),
    Check("steps of RMSprop", draw_rmsprop, run_rmsprop, expected_rmsprop, rtol=1e-7),
    Check("steps of Adam and AdamW", draw_adam, run_adam, expected_adam, rtol=1e-7),
    Check("states that go through a file", draw_resumed, run_resumed, expected_resumed),
    Check("clipping", draw_clipping, run_clipping, expected_clipping, rtol=1e-8),
    Check("schedules", draw_schedules, run_schedules, expected_schedules, rtol=1e-8, atol=1e-12),
)
