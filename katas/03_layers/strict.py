"""What a trusted grade asks of kata 03: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check

# An affine map and its three gradients, with leading axes.


def draw_affine(rng):
    leading, inputs, outputs = rng.integers(1, 6, 2), rng.integers(1, 12), rng.integers(1, 12)
    return {
        "x": rng.normal(size=(*leading, inputs)),
        "weight": rng.normal(size=(outputs, inputs)),
        "bias": rng.normal(size=outputs),
        "grad": rng.normal(size=(*leading, outputs)),
    }


def run_affine(student, x, weight, bias, grad):
    out, back = student.affine.vjp(x, weight, bias)
    return np.concatenate([np.ravel(a) for a in (out, *back(grad))])


def expected_affine(x, weight, bias, grad):
    return np.concatenate(
        [
            np.ravel(np.einsum("abi,oi->abo", x, weight) + bias),
            np.ravel(np.einsum("abo,oi->abi", grad, weight)),
            np.ravel(np.einsum("abo,abi->oi", grad, x)),
            np.einsum("abo->o", grad),
        ]
    )


# Two layers in float32, called on pixels and on floats.


def draw_pixels(rng):
    n, inputs, hidden = rng.integers(2, 30, 3)
    return {
        "pixels": rng.integers(0, 256, (n, inputs)),
        "first": rng.normal(size=(hidden, inputs)).astype(np.float32),
        "bias": rng.normal(size=hidden).astype(np.float32),
        "second": rng.normal(size=(3, hidden)).astype(np.float32),
    }


def run_pixels(student, pixels, first, bias, second):
    rng = np.random.default_rng(0)
    one = student.Linear(first.shape[1], len(first), rng=rng)
    other = student.Linear(second.shape[1], len(second), bias=False, rng=rng)
    net = student.Module()
    net.layers = [one, {"last": other}]
    net.load_state_dict({"layers.0.weight": first, "layers.0.bias": bias, "layers.1.last.weight": second})
    return other(one(student.Tensor(pixels.astype(np.uint8)))).data


def expected_pixels(pixels, first, bias, second):
    hidden = pixels.astype(np.float32) @ first.T + bias
    return hidden @ second.T


# Gradient descent from a given start.


def draw_descent(rng):
    n, inputs, outputs = rng.integers(5, 30), rng.integers(1, 6), rng.integers(1, 6)
    return {
        "x": rng.normal(size=(n, inputs)),
        "y": rng.normal(size=(n, outputs)),
        "weight": rng.normal(size=(outputs, inputs)),
        "bias": rng.normal(size=outputs),
        "steps": rng.integers(1, 20, 1),
    }


def run_descent(student, x, y, weight, bias, steps):
    layer = student.Linear(x.shape[1], y.shape[1], rng=np.random.default_rng(0))
    layer.weight, layer.bias = student.Parameter(weight), student.Parameter(bias)
    errors = [student.descend(layer, x, y, 0.05) for _ in range(int(steps[0]))]
    return np.concatenate([errors, np.ravel(layer.weight.data), layer.bias.data])


def expected_descent(x, y, weight, bias, steps):
    errors = []
    for _ in range(int(steps[0])):
        off = x @ weight.T + bias - y
        errors.append(np.mean(off**2))
        weight = weight - 0.05 * 2 / off.size * off.T @ x
        bias = bias - 0.05 * 2 / off.size * off.sum(axis=0)
    return np.concatenate([errors, np.ravel(weight), bias])


# Trees of modules: who is found, in which order, under which name.


def draw_trees(rng):
    """Rows of (parent, kind: 0 in a list, 1 in a dict, 2 as an attribute; parameters of its own)."""
    count = int(rng.integers(3, 12))
    parents = [int(rng.integers(0, i)) for i in range(1, count)]
    kinds, own = rng.integers(0, 3, count - 1), rng.integers(0, 3, count - 1)
    return {"rows": np.array(list(zip(parents, kinds, own, strict=True)), np.int64)}


def run_trees(student, rows):
    modules = [student.Module()]
    for i, (parent, kind, own) in enumerate(rows.tolist(), 1):
        module, holder = student.Module(), modules[parent]
        module.values = tuple(student.Parameter(np.full(i, float(i))) for _ in range(own))
        if kind == 0:
            holder.listed = [*getattr(holder, "listed", ()), module]
        elif kind == 1:
            holder.filed = {**getattr(holder, "filed", {}), i: module}
        else:
            setattr(holder, f"child{i}", module)
        modules.append(module)
    modules[0].again = modules[-1]
    root = modules[0]
    order = [float(p.data[0]) for p in root.parameters()]
    names = [sum(map(ord, name)) for name, _ in root.named_parameters()]
    state = sorted(sum(map(ord, name)) for name in root.state_dict())
    sizes = [student.count_parameters(root), student.parameter_bytes(root), len(list(root.modules()))]
    return np.array([*order, *names, *state, *sizes], np.float64)


def expected_trees(rows):
    held = {0: []}  # of each module: (where it is held, as first set; name; number)
    places = {0: {}}
    for i, (parent, kind, _) in enumerate(rows.tolist(), 1):
        held[i], places[i] = [], {}
        place = ("listed", "filed", f"child{i}")[kind]
        items = places[parent].setdefault(place, [])
        name = (f"listed.{len(items)}", f"filed.{i}", place)[kind]
        items.append((name, i))
    places[0]["again"] = [("again", len(rows))]

    def below(number):
        # `values` is set before any child, as an empty or a full tuple.
        return [item for items in places[number].values() for item in items]

    def walk(path, number, seen):
        if seen is not None:
            if number in seen:
                return
            seen.add(number)
        if number:
            for k in range(int(rows[number - 1, 2])):
                found.append((f"{path}.values.{k}", number))
        for name, child in below(number):
            walk(f"{path}.{name}" if path else name, child, seen)

    found, seen = [], set()
    walk("", 0, seen)
    order = [float(number) for _, number in found]
    names = [sum(map(ord, name)) for name, _ in found]
    numbers = sum(number for _, number in found)
    found = []
    walk("", 0, None)
    state = sorted(sum(map(ord, name)) for name, _ in found)
    return np.array([*order, *names, *state, numbers, 8 * numbers, len(seen)], np.float64)


# Weights as they are drawn: bounds, spread, and nothing but the generator given.


def draw_weights(rng):
    return {"numbers": np.array([rng.integers(20, 60), rng.integers(200, 300), rng.integers(2**31)])}


def run_weights(student, numbers):
    inputs, outputs, seed = numbers.tolist()
    layer = student.Linear(inputs, outputs, rng=np.random.default_rng(seed))
    again = student.Linear(inputs, outputs, rng=np.random.default_rng(seed))
    bare = student.Linear(inputs, outputs, bias=False, rng=np.random.default_rng(seed))
    weight, bound = layer.weight.data, inputs**-0.5
    quarters = np.histogram(weight / bound, 4, (-1, 1))[0] / weight.size
    return np.array(
        [
            np.abs(weight).max() <= bound * (1 + 1e-6),
            np.abs(layer.bias.data).max() <= bound * (1 + 1e-6),
            np.abs(quarters - 0.25).max() < 0.03,  # of 4,000 numbers or more; three deviations are 0.02
            np.unique(layer.bias.data).size > outputs // 2,
            np.array_equal(weight, again.weight.data) and np.array_equal(layer.bias.data, again.bias.data),
            np.array_equal(weight, bare.weight.data) and bare.bias is None,
            str(weight.dtype) == str(layer.bias.data.dtype) == "float32",
            weight.shape == (outputs, inputs),
        ]
    )


def expected_weights(numbers):
    return np.ones(8, bool)


# What a network costs, module by module.


def draw_costs(rng):
    return {"widths": rng.integers(1, 20, rng.integers(2, 7)), "rows": rng.integers(1, 9, 1)}


def run_costs(student, widths, rows):
    rng, module = np.random.default_rng(0), student.Module()
    module.layers = [
        student.Linear(a, b, bias=bool(a % 2), rng=rng)
        for a, b in zip(widths.tolist(), widths[1:].tolist(), strict=False)
    ]

    def forward(x):
        for layer in module.layers:
            x = layer(x)
        return x

    module.forward = forward
    x = student.Tensor(np.ones((int(rows[0]), int(widths[0])), np.float32))
    table = student.summary(module, x)
    student.summary(module, x)
    return np.array([(shape[0], shape[1], count, flops) for _, _, shape, count, flops in table], np.int64)


def expected_costs(widths, rows):
    n, table = int(rows[0]), []
    for a, b in zip(widths.tolist(), widths[1:].tolist(), strict=False):
        table.append((n, b, a * b + b * (a % 2), 2 * n * a * b))
    return np.array([*table, (n, int(widths[-1]), 0, 0)], np.int64)


CHECKS = (
    Check("an affine map and its gradients", draw_affine, run_affine, expected_affine, rtol=1e-9),
    Check("loaded layers on pixels", draw_pixels, run_pixels, expected_pixels, rtol=1e-3, atol=0.1),
    Check("steps of gradient descent", draw_descent, run_descent, expected_descent, rtol=1e-8, atol=1e-9),
    Check("members of trees of modules", draw_trees, run_trees, expected_trees),
    Check("weights as they are drawn", draw_weights, run_weights, expected_weights),
    Check("what each module costs", draw_costs, run_costs, expected_costs),
)
