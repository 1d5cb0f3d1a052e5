"""What a trusted grade asks of kata 14: each check on fresh shapes and numbers, its answers as one array."""

import numpy as np

from dojo.strict import Check


def flat(*arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


# Norms and their gradients.


def draw_norms(rng):
    shape = tuple(int(n) for n in (*rng.integers(1, 6, 2), rng.integers(2, 9)))
    weight, bias = rng.normal(size=(2, shape[-1]))
    return {
        "x": rng.normal(size=shape) * 3 + 10,
        "weight": weight * rng.integers(0, 3, shape[-1]),
        "bias": bias,
        "grad": rng.normal(size=shape),
        "eps": np.array(rng.uniform(0.01, 1.0)),
    }


def run_norms(student, x, weight, bias, grad, eps):
    out, back = student.layer_norm.vjp(x, weight, bias, eps=float(eps))
    other, other_back = student.rms_norm.vjp(x, weight, eps=float(eps))
    return np.concatenate([np.ravel(a) for a in (out, *back(grad), other, *other_back(grad))])


def expected_norms(x, weight, bias, grad, eps):
    answers = []
    for centred in (True, False):
        off = x - x.mean(-1, keepdims=True) if centred else x
        scale = 1 / np.sqrt((off**2).mean(-1, keepdims=True) + eps)
        normal, slope = off * scale, grad * weight
        back = slope - normal * (slope * normal).mean(-1, keepdims=True)
        if centred:
            back -= slope.mean(-1, keepdims=True)
        answers += [normal * weight + (bias if centred else 0), back * scale, (grad * normal).sum((0, 1))]
        answers += [grad.sum((0, 1))] if centred else []
    return flat(*answers)


# What all models here are made of, written out. Weights travel as one vector, cut up in the order of names.


def draw_model(rng):
    heads = int(rng.integers(1, 4))
    size, layers = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    dim, vocab, context, hidden = heads * size, int(rng.integers(3, 9)), int(rng.integers(3, 8)), 5
    each = 4 * dim + dim * 3 * dim + 3 * dim + dim * dim + dim + 2 * dim * hidden + dim + hidden
    count = (vocab + context) * dim + layers * each + 2 * dim
    return {
        "numbers": np.array([vocab, context, dim, layers, heads, hidden]),
        "weights": rng.normal(size=count) * 0.5,
        "ids": rng.integers(0, vocab, (2, context)),
    }


def cut(weights, numbers):
    """The weights by GPT-2's names."""
    vocab, context, dim, layers, _, hidden = numbers.tolist()
    shapes = {"wte.weight": (vocab, dim), "wpe.weight": (context, dim)}
    for i in range(layers):
        shapes |= {f"h.{i}.ln_1.weight": (dim,), f"h.{i}.ln_1.bias": (dim,)}
        shapes |= {f"h.{i}.attn.c_attn.weight": (dim, 3 * dim), f"h.{i}.attn.c_attn.bias": (3 * dim,)}
        shapes |= {f"h.{i}.attn.c_proj.weight": (dim, dim), f"h.{i}.attn.c_proj.bias": (dim,)}
        shapes |= {f"h.{i}.ln_2.weight": (dim,), f"h.{i}.ln_2.bias": (dim,)}
        shapes |= {f"h.{i}.mlp.c_fc.weight": (dim, hidden), f"h.{i}.mlp.c_fc.bias": (hidden,)}
        shapes |= {f"h.{i}.mlp.c_proj.weight": (hidden, dim), f"h.{i}.mlp.c_proj.bias": (dim,)}
    shapes |= {"ln_f.weight": (dim,), "ln_f.bias": (dim,)}
    state, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        state[name] = weights[start : start + size].reshape(shape)
        start += size
    return state


def norm(x, state, name):
    off = x - x.mean(-1, keepdims=True)
    scaled = off / np.sqrt((off**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def halves(state, i, heads, allowed):
    """Attention and feed-forward network of block i, for one text."""

    def linear(x, name):
        return x @ state[f"h.{i}.{name}.weight"] + state[f"h.{i}.{name}.bias"]

    def attend(x):
        found = []
        q, k, v = (np.split(part, heads, axis=1) for part in np.split(linear(x, "attn.c_attn"), 3, axis=1))
        for a, b, c in zip(q, k, v, strict=True):
            scores = np.exp(a @ b.T / np.sqrt(a.shape[1])) * allowed
            found.append(scores / scores.sum(1, keepdims=True) @ c)
        return linear(np.concatenate(found, axis=1), "attn.c_proj")

    def think(x):
        z = linear(x, "mlp.c_fc")
        return linear(z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))), "mlp.c_proj")

    return attend, think


# A GPT out of a file, whole and bit by bit.


def run_gpt(student, numbers, weights, ids):
    import os
    import tempfile

    vocab, context, dim, layers, heads, hidden = numbers.tolist()
    shapes = {"wte.weight": (vocab, dim), "wpe.weight": (context, dim)}
    for i in range(layers):
        shapes |= {f"h.{i}.ln_1.weight": (dim,), f"h.{i}.ln_1.bias": (dim,)}
        shapes |= {f"h.{i}.attn.c_attn.weight": (dim, 3 * dim), f"h.{i}.attn.c_attn.bias": (3 * dim,)}
        shapes |= {f"h.{i}.attn.c_proj.weight": (dim, dim), f"h.{i}.attn.c_proj.bias": (dim,)}
        shapes |= {f"h.{i}.ln_2.weight": (dim,), f"h.{i}.ln_2.bias": (dim,)}
        shapes |= {f"h.{i}.mlp.c_fc.weight": (dim, hidden), f"h.{i}.mlp.c_fc.bias": (hidden,)}
        shapes |= {f"h.{i}.mlp.c_proj.weight": (hidden, dim), f"h.{i}.mlp.c_proj.bias": (dim,)}
    shapes |= {"ln_f.weight": (dim,), "ln_f.bias": (dim,)}
    state, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        state["transformer." + name] = weights[start : start + size].reshape(shape).astype(np.float32)
        start += size
    logits = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("npz", "safetensors"):
            path = os.path.join(folder, f"gpt2.{kind}")
            if kind == "npz":
                np.savez(path, **state)
            else:
                student.write_safetensors(path, state)
            model = student.load_gpt2(path, heads)
            for p in model.parameters():
                p.requires_grad = False
            caches = model.new_caches()
            parts = [model(ids[:, i : i + 1], caches=caches).data for i in range(ids.shape[1])]
            logits += [model(ids).data, np.concatenate(parts, axis=1)]
            del model
    return np.array(logits)


def expected_gpt(numbers, weights, ids):
    state, heads = cut(weights, numbers), int(numbers[4])
    past, outs = np.tri(ids.shape[1]), []
    for text in ids:
        x = state["wte.weight"][text] + state["wpe.weight"][: len(text)]
        for i in range(int(numbers[3])):
            attend, think = halves(state, i, heads, past)
            x = x + attend(norm(x, state, f"h.{i}.ln_1"))
            x = x + think(norm(x, state, f"h.{i}.ln_2"))
        outs.append(norm(x, state, "ln_f") @ state["wte.weight"].T)
    return np.array([outs] * 4).astype(np.float32)


# An encoder, with padding.


def draw_encoder(rng):
    drawn = draw_model(rng)
    return {**drawn, "lengths": rng.integers(1, drawn["ids"].shape[1] + 1, 2)}


def run_encoder(student, numbers, weights, ids, lengths):
    vocab, context, dim, layers, heads, hidden = numbers.tolist()
    config = student.GPTConfig(vocab, context, dim, layers, heads, hidden=hidden)
    model = student.Encoder(config, rng=np.random.default_rng(0))
    linear = [("attn.qkv_proj", 3 * dim, dim), ("attn.out_proj", dim, dim)]
    order = [("tokens.weight", (vocab, dim)), ("positions.weight", (context, dim))]
    for i in range(layers):
        at = f"blocks.{i}."
        order += [(f"{at}ln1.weight", (dim,)), (f"{at}ln1.bias", (dim,))]
        for name, outputs, inputs in linear:
            order += [(f"{at}{name}.weight", (inputs, outputs)), (f"{at}{name}.bias", (outputs,))]
        order += [(f"{at}ln2.weight", (dim,)), (f"{at}ln2.bias", (dim,))]
        for name, outputs, inputs in [("mlp.fc", hidden, dim), ("mlp.proj", dim, hidden)]:
            order += [(f"{at}{name}.weight", (inputs, outputs)), (f"{at}{name}.bias", (outputs,))]
    order += [("norm.weight", (dim,)), ("norm.bias", (dim,))]
    state, start = {}, 0
    for name, shape in order:
        size = int(np.prod(shape))
        array = weights[start : start + size].reshape(shape)
        state[name] = array.T if len(shape) == 2 and name.startswith("blocks") else array
        start += size
    for p in model.parameters():
        p.data = p.data.astype(np.float64)
    model.load_state_dict(state)
    out = model(ids, lengths).data
    return out * (np.arange(ids.shape[1]) < lengths[:, None])[:, :, None]


def expected_encoder(numbers, weights, ids, lengths):
    state, heads = cut(weights, numbers), int(numbers[4])
    out = np.zeros((*ids.shape, int(numbers[2])))
    for row, text, length in zip(out, ids, lengths, strict=True):
        x = norm(state["wte.weight"][text[:length]] + state["wpe.weight"][:length], state, "ln_f")
        for i in range(int(numbers[3])):
            attend, think = halves(state, i, heads, 1.0)
            x = norm(x + attend(x), state, f"h.{i}.ln_1")
            x = norm(x + think(x), state, f"h.{i}.ln_2")
        row[:length] = x
    return out


# The gradient of a block's stream, by what the chain of two gives.


def draw_flow(rng):
    return {
        "x": rng.normal(size=(2, 3, 6)),
        "grad": rng.normal(size=(2, 3, 6)),
        "factors": rng.normal(size=(4, 6)),
    }


def run_flow(student, x, grad, factors):
    class Scaled(student.Module):
        def __init__(self, factor):
            self.factor = factor

        def forward(self, x):
            return x + x * self.factor

    return np.array(student.gradient_flow([Scaled(f) for f in factors], x, grad))


def expected_flow(x, grad, factors):
    norms = [np.linalg.norm(grad)]
    for factor in factors[::-1]:
        grad = grad * (1 + factor)
        norms.append(np.linalg.norm(grad))
    return np.array(norms[::-1])


# What models cost.


def draw_costs(rng):
    heads = int(rng.choice([2, 4, 8]))
    width, layers, kv_heads = heads * 2 * rng.integers(1, 6), rng.integers(1, 5), heads // rng.choice([1, 2])
    hidden, kind, bias, tied = rng.integers(3, 99), *rng.integers(0, (3, 2, 2))
    numbers = [*rng.integers((5, 4), (90, 40)), width, layers, heads, kv_heads, hidden, kind, bias, tied]
    return {"numbers": np.array(numbers), "sizes": rng.integers(1, 50, 2)}


def run_costs(student, numbers, sizes):
    vocab, context, dim, layers, heads, kv, hidden, kind, bias, tied = numbers.tolist()
    config = student.GPTConfig(
        vocab, context, dim, layers, heads, kv, hidden, 0.0, bool(bias),
        ("learned", "sinusoidal", "rotary")[kind], bool(tied),
    )  # fmt: skip
    parts = student.parameters_by_part(student.TinyGPT(config, rng=np.random.default_rng(0)))
    names = ("tokens", "positions", "attention", "feed-forward", "norms", "head")
    return np.array([*(parts[name] for name in names), student.activation_bytes(config, *sizes.tolist())])


def expected_costs(numbers, sizes):
    vocab, context, dim, layers, heads, kv, hidden, kind, bias, tied = numbers.tolist()
    both = dim // heads * kv
    qkv = dim + 2 * both
    block = 5 * dim + qkv + 2 * hidden + 4 + heads + (dim + both if kind == 2 else 0)
    return np.array([
        vocab * dim,
        context * dim if kind == 0 else 0,
        layers * (dim * qkv + dim * dim + bias * (qkv + dim)),
        layers * (2 * dim * hidden + bias * (hidden + dim)),
        (2 * layers + 1) * 2 * dim,
        0 if tied else vocab * dim,
        4 * sizes[0] * sizes[1] * (layers * block + 2 * dim + 2),
    ])  # fmt: skip


CHECKS = (
    Check("norms and their gradients", draw_norms, run_norms, expected_norms, rtol=1e-8, atol=1e-9),
    Check("a published GPT, whole and with caches", draw_model, run_gpt, expected_gpt, rtol=1e-3, atol=1e-3),
    Check("an encoder with padding", draw_encoder, run_encoder, expected_encoder, rtol=1e-7, atol=1e-7),
    Check("how gradients flow", draw_flow, run_flow, expected_flow, rtol=1e-8),
    Check("what models cost", draw_costs, run_costs, expected_costs),
)
