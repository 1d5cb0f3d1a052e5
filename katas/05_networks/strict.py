"""What a trusted grade asks of kata 05: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# A network with given weights: forwards, and back along the tape.


def draw_network(rng):
    a, b, c = rng.integers(2, 9, 3)
    rows = rng.integers(1, 9)
    return {
        "x": rng.normal(size=(rows, a)),
        "w1": rng.normal(size=(b, a)),
        "b1": rng.normal(size=b),
        "w2": rng.normal(size=(c, b)),
        "b2": rng.normal(size=c),
        "grad": rng.normal(size=(rows, c)),
    }


def run_build(student, sizes, arrays):
    net = student.MLP(sizes, rng=np.random.default_rng(0))
    names = [f"{2 * i}.{kind}" for i in range(len(sizes) - 1) for kind in ("weight", "bias")]
    for (name, parameter), expected, array in zip(net.named_parameters(), names, arrays, strict=True):
        parameter.data = array if name == expected else np.zeros_like(array)
    return net


def run_forward(student, x, w1, b1, w2, b2, grad):
    net = run_build(student, [w1.shape[1], *b1.shape, *b2.shape], [w1, b1, w2, b2])
    return net(student.Tensor(x)).data


def expected_forward(x, w1, b1, w2, b2, grad):
    return np.maximum(x @ w1.T + b1, 0) @ w2.T + b2


def run_backward(student, x, w1, b1, w2, b2, grad):
    net = run_build(student, [w1.shape[1], *b1.shape, *b2.shape], [w1, b1, w2, b2])
    start = student.Tensor(x, requires_grad=True)
    for _ in range(2):  # gradients add up
        with student.Tape() as tape:
            net(start)
        first = tape.walk_back(grad)
    norms = [norm for _, norm in sorted(student.gradient_norms(net).items())]
    return np.concatenate([first.ravel(), *(p.grad.ravel() for p in net.parameters()), norms])


def expected_backward(x, w1, b1, w2, b2, grad):
    r = np.maximum(x @ w1.T + b1, 0)
    inner = (grad @ w2) * (r > 0)
    grads = [2 * g for g in (inner.T @ x, inner.sum(0), grad.T @ r, grad.sum(0))]
    norms = [np.linalg.norm(grads[i]) for i in (1, 0, 3, 2)]  # sorted by name: bias, then weight
    return np.concatenate([(inner @ w1).ravel(), *(g.ravel() for g in grads), norms])


# What leaves the line: 1 where it is refused.


def draw_lines(rng):
    return {"kinds": rng.integers(0, 5, 40), "x": rng.normal(size=3)}


def run_lines(student, kinds, x):
    import sys

    op = sys.modules["tinytorch.tensor"].op

    @op
    def plus(a, b):
        return a + b

    @plus.gradient
    def plus_back(grad):
        return grad, grad

    @op
    def triple(a):
        return 3 * a

    @triple.gradient
    def triple_back(grad):
        return 3 * grad

    programs = [
        lambda t: plus(triple(t), t.data),
        lambda t: plus(triple(h := triple(t)), h),
        lambda t: plus(triple(t), t),
        lambda t: triple(plus(t, student.Tensor(x, requires_grad=True))),
        lambda t: (triple(t), triple(t))[1],
    ]
    answers = []
    for kind in kinds.tolist():
        try:
            with student.Tape() as tape:
                programs[kind](student.Tensor(x, requires_grad=True))
            answers.append(float(tape.walk_back(np.ones(3))[0]))
        except ValueError:
            answers.append(-1.0)
    return np.array(answers)


def expected_lines(kinds, x):
    return np.array([3.0, -1.0, -1.0, 3.0, -1.0])[kinds]


# The loss, and a few steps of training.


def draw_loss(rng):
    n, classes = rng.integers(1, 30), rng.integers(2, 9)
    return {"logits": rng.normal(scale=50, size=(n, classes)), "labels": rng.integers(0, classes, n)}


def run_loss(student, logits, labels):
    loss, grad = student.loss_and_gradient(logits, labels)
    return np.append(grad.ravel(), loss)


def expected_loss(logits, labels):
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    grad = np.exp(log_p)
    grad[rows, labels] -= 1
    return np.append((grad / len(labels)).ravel(), -log_p[rows, labels].mean())


def draw_training(rng):
    a, b, c = rng.integers(2, 7, 3)
    return {
        "x": rng.normal(size=(12, a)),
        "w1": rng.normal(size=(b, a)),
        "b1": rng.normal(size=b),
        "w2": rng.normal(size=(c, b)),
        "b2": rng.normal(size=c),
        "labels": rng.integers(0, c, 12),
    }


def run_training(student, x, w1, b1, w2, b2, labels):
    net = run_build(student, [w1.shape[1], *b1.shape, *b2.shape], [w1, b1, w2, b2])
    losses = [student.train_step(net, student.Tensor(x), labels, 0.1) for _ in range(6)]
    return np.concatenate([losses, *(p.data.ravel() for p in net.parameters())])


def expected_training(x, w1, b1, w2, b2, labels):
    losses, rows = [], np.arange(len(labels))
    for _ in range(6):
        r = np.maximum(x @ w1.T + b1, 0)
        odds = np.exp(r @ w2.T + b2)
        shares = odds / odds.sum(1, keepdims=True)
        losses.append(-np.log(shares[rows, labels]).mean())
        shares[rows, labels] -= 1
        grad = shares / len(labels)
        inner = (grad @ w2) * (r > 0)
        w2, b2 = w2 - 0.1 * grad.T @ r, b2 - 0.1 * grad.sum(0)
        w1, b1 = w1 - 0.1 * inner.T @ x, b1 - 0.1 * inner.sum(0)
    return np.concatenate([losses, *(a.ravel() for a in (w1, b1, w2, b2))])


# Initialisation: fans and gains exactly, draws by what they spread, orthogonal ones by their products.


def draw_shapes(rng):
    return {"shapes": rng.integers(1, 9, (30, 4)), "slopes": rng.random(5) * 2}


def run_shapes(student, shapes, slopes):
    fans = [student.fans(tuple(shape[: 2 + i % 3])) for i, shape in enumerate(shapes.tolist())]
    gains = [student.calculate_gain(name) for name in ("linear", "sigmoid", "tanh", "relu", "selu")]
    gains += [student.calculate_gain("leaky_relu", slope) for slope in slopes.tolist()]
    return np.concatenate([np.ravel(fans), gains])


def expected_shapes(shapes, slopes):
    fans = []
    for i, shape in enumerate(shapes.tolist()):
        kernel = int(np.prod(shape[2 : 2 + i % 3]))
        fans += [shape[1] * kernel, shape[0] * kernel]
    gains = [1, 1, 5 / 3, 2**0.5, 0.75, *np.sqrt(2 / (1 + slopes**2))]
    return np.concatenate([fans, gains])


def draw_spreads(rng):
    return {"sides": rng.integers(250, 500, 2), "seed": rng.integers(0, 1 << 30, 1)}


def run_spreads(student, sides, seed):
    """Standard deviations, and the mean of the fourth power, in units of what they should be."""
    out, inside = sides.tolist()
    rng = np.random.default_rng(seed)
    xavier, kaiming = (2 / (out + inside)) ** 0.5, (2 / out) ** 0.5
    draws = [
        (student.xavier_uniform_, {}, xavier, 1.8),
        (student.xavier_normal_, {"gain": 3.0}, 3 * xavier, 3.0),
        (student.kaiming_uniform_, {"mode": "fan_out"}, kaiming, 1.8),
        (student.kaiming_normal_, {"a": 1.0}, (1 / inside) ** 0.5, 3.0),
    ]
    answers = []
    for init, options, std, fourth in draws:
        y = init(student.Tensor(np.zeros((out, inside))), **options, rng=rng).data / std
        answers += [y.std(), (y**4).mean() / fourth]
    return np.array(answers)


def expected_spreads(sides, seed):
    return np.ones(8)


def draw_orthogonal(rng):
    return {"sides": rng.integers(1, 30, 2), "seed": rng.integers(0, 1 << 30, 1)}


def run_orthogonal(student, sides, seed):
    rows, columns = sides.tolist()
    rng = np.random.default_rng(seed)
    q = student.orthogonal_(student.Tensor(np.zeros((rows, columns))), 2.0, rng=rng).data
    return q @ q.T if rows <= columns else q.T @ q


def expected_orthogonal(sides, seed):
    return 4.0 * np.eye(int(sides.min()))


CHECKS = (
    Check("a network, forwards", draw_network, run_forward, expected_forward),
    Check("a network, back along the tape", draw_network, run_backward, expected_backward),
    Check("straight lines, and what is none", draw_lines, run_lines, expected_lines),
    Check("the loss and its gradient", draw_loss, run_loss, expected_loss),
    Check("six steps of training", draw_training, run_training, expected_training),
    Check("fans and gains", draw_shapes, run_shapes, expected_shapes),
    # 62,500 draws at least: the fourth power of a normal one is good to 6 * sqrt(96 / 9 / 62,500), 8 %.
    Check("the spread of weights", draw_spreads, run_spreads, expected_spreads, rtol=0.08),
    Check("orthogonal weights", draw_orthogonal, run_orthogonal, expected_orthogonal),
)
