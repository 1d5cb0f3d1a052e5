"""What a trusted grade asks of kata 10: each check on fresh numbers, its answers as one array."""

import json

import numpy as np

from dojo.strict import Check

# Cross-entropy and its gradient.


def draw_losses(rng):
    rows, classes = int(rng.integers(1, 40)), int(rng.integers(2, 12))
    return {
        "logits": rng.normal(size=(rows, classes)) * rng.uniform(0.1, 20),
        "labels": rng.integers(0, classes, rows),
        "smoothing": np.array([rng.choice([0.0, rng.uniform(0, 1)])]),
        "weights": rng.normal(size=rows),
    }


def run_losses(student, logits, labels, smoothing, weights):
    how = {"label_smoothing": float(smoothing[0])}
    got = []
    for reduction in ("mean", "sum", "none"):
        out, back = student.cross_entropy.vjp(logits, labels, reduction=reduction, **how)
        share = back(weights if reduction == "none" else np.asarray(weights[0]))
        got += [np.ravel(out), np.ravel(share[0] if isinstance(share, tuple) else share)]
    return np.concatenate(got)


def expected_losses(logits, labels, smoothing, weights):
    rows, classes = logits.shape
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    target = np.eye(classes)[labels] * (1 - smoothing[0]) + smoothing[0] / classes
    losses, slope = -(target * log_p).sum(axis=1), np.exp(log_p) - target
    parts = [[losses.mean()], slope * weights[0] / rows, [losses.sum()], slope * weights[0]]
    return np.concatenate([np.ravel(p) for p in (*parts, losses, slope * weights[:, None])])


# Squares.


def draw_squares(rng):
    shape = tuple(rng.integers(1, 6, int(rng.integers(1, 4))))
    return {"x": rng.normal(size=shape), "y": rng.normal(size=shape), "grad": rng.normal(size=1)}


def run_squares(student, x, y, grad):
    from tinytorch.tensor import Tensor

    got = []
    for reduction in ("mean", "sum"):
        a, b = Tensor(x, requires_grad=True), Tensor(y, requires_grad=True)
        out = student.mse_loss(a, b, reduction=reduction)
        out.backward(np.asarray(grad[0]))
        got += [np.ravel(out.data), a.grad.ravel(), b.grad.ravel()]
    return np.concatenate(got)


def expected_squares(x, y, grad):
    d = (x - y).ravel()
    slope = 2 * d * grad[0]
    return np.concatenate([[(d * d).mean()], slope / d.size, -slope / d.size, [(d * d).sum()], slope, -slope])


# Counting.


def draw_counts(rng):
    rows, classes = int(rng.integers(1, 500)), int(rng.integers(2, 20))
    return {"logits": rng.normal(size=(rows, classes)), "labels": rng.integers(0, classes, rows)}


def run_counts(student, logits, labels):
    classes = logits.shape[1]
    table = student.confusion_matrix(logits.argmax(axis=1), labels, classes)
    return np.concatenate([np.ravel(table).astype(float), [student.accuracy(logits, labels)]])


def expected_counts(logits, labels):
    table = np.zeros((logits.shape[1],) * 2)
    np.add.at(table, (labels, logits.argmax(axis=1)), 1)
    return np.concatenate([table.ravel(), [np.trace(table) / len(labels)]])


# A fit of a linear model, in batches that make one step, with a running mean.


def draw_fit(rng):
    rows, inputs = int(rng.integers(4, 30)), int(rng.integers(1, 5))
    return {
        "x": rng.normal(size=(rows, inputs)),
        "y": rng.normal(size=(rows, 2)),
        "start": rng.normal(size=(2, inputs)),
        "numbers": np.array([rng.integers(1, 6), rng.integers(1, 5), rng.integers(1, 4)]),
        "shares": np.array([rng.uniform(0.01, 0.2), rng.uniform(0.1, 0.9), rng.uniform(0.1, 2)]),
    }


def run_fit(student, x, y, start, numbers, shares):
    from tinytorch.layers import Module, Parameter
    from tinytorch.optimizers import Adam, StepLR

    size, accumulate, epochs = numbers.tolist()
    batches = [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]

    class Model(Module):
        def __init__(self):
            self.weight = Parameter(start.copy())

        def forward(self, x):
            return x @ self.weight.T

    model = Model()
    optimizer = Adam(model.parameters(), lr=float(shares[0]))
    ema = student.EMA(model, float(shares[1]))
    trainer = student.Trainer(
        model,
        optimizer,
        student.mse_loss,
        scheduler=StepLR(optimizer, 1, 0.5),
        callbacks=[ema],
        accumulate=accumulate,
        max_norm=float(shares[2]),
    )
    trainer.fit(batches, epochs)
    loss = trainer.validate([(x[:1], y[:1]), (x[1:], y[1:])])["loss"]
    weights = [model.weight.data.ravel(), ema.shadow["weight"].ravel()]
    return np.concatenate([*weights, trainer.history["loss"], [loss]])


def expected_fit(x, y, start, numbers, shares):
    size, accumulate, epochs = numbers.tolist()
    rate, decay, limit = shares.tolist()
    w, shadow, m, v, t, losses = start, start, 0.0, 0.0, 0, []
    for _ in range(epochs):
        total = 0.0
        for i in range(0, len(x), size * accumulate):
            a, b = x[i : i + size * accumulate], y[i : i + size * accumulate]
            difference = a @ w.T - b
            total += (difference**2).mean() * len(a)
            grad = 2 * difference.T @ a / difference.size
            grad = grad * min(1.0, limit / (np.sqrt((grad**2).sum()) + 1e-6))
            t, m, v = t + 1, 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
            w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            shadow = decay * shadow + (1 - decay) * w
        losses.append(total / len(x))
        rate *= 0.5
    return np.concatenate([w.ravel(), shadow.ravel(), losses, [((x @ w.T - y) ** 2).mean()]])


# A run that is handed over ends as one that is not, to the last bit.


def draw_resumed(rng):
    return {**draw_fit(rng), "stop": rng.integers(0, 3, 1)}


def run_resumed(student, x, y, start, numbers, shares, stop):
    from tinytorch.layers import Module, Parameter
    from tinytorch.optimizers import Adam, StepLR

    size, accumulate = numbers.tolist()[:2]
    batches = [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]

    class Model(Module):
        def __init__(self):
            self.weight = Parameter(start.copy())

        def forward(self, x):
            return x @ self.weight.T

    ends = []
    for parts in ((3,), (int(stop[0]), 3)):
        state, arrays = None, {}
        for end in parts:
            model = Model()
            optimizer = Adam(model.parameters(), lr=float(shares[0]))
            trainer = student.Trainer(
                model,
                optimizer,
                student.mse_loss,
                scheduler=StepLR(optimizer, 1, 0.5),
                callbacks=[student.EMA(model, float(shares[1]))],
                accumulate=accumulate,
                max_norm=float(shares[2]),
            )
            if state is not None:
                trainer.load_state_dict(student.unpack(json.loads(state), arrays))
            trainer.fit(batches, end)
            arrays = {}
            state = json.dumps(student.pack(trainer.state_dict(), arrays))
            arrays = {name: array.copy() for name, array in arrays.items()}
        ends.append(trainer)
    whole, parts = ends
    return np.array(
        [
            np.array_equal(whole.model.weight.data, parts.model.weight.data),
            np.array_equal(whole.callbacks[0].shadow["weight"], parts.callbacks[0].shadow["weight"]),
            whole.history == parts.history,
            whole.step == parts.step and whole.epoch == parts.epoch,
        ]
    )


def expected_resumed(x, y, start, numbers, shares, stop):
    return np.ones(4, bool)


CHECKS = (
    Check("cross-entropy, there and back", draw_losses, run_losses, expected_losses, rtol=1e-8, atol=1e-10),
    Check("squares, there and back", draw_squares, run_squares, expected_squares, rtol=1e-8, atol=1e-10),
    Check("counting answers", draw_counts, run_counts, expected_counts),
    Check("a fit", draw_fit, run_fit, expected_fit, rtol=1e-6, atol=1e-9),
    Check("a fit that is handed over", draw_resumed, run_resumed, expected_resumed),
)
