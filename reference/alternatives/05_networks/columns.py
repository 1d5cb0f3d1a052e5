"""Kata 05 with a tape in parallel lists, one formula for every draw, and files made in memory."""

import io
import os
import pathlib
import zipfile

import numpy as np

from tinytorch import activations, layers, tensor
from tinytorch.tensor import Tensor

__all__ = [
    "MLP", "Sequential", "Tape", "activation_stats", "calculate_gain", "fans", "gradient_norms",
    "initialise", "kaiming_normal_", "kaiming_uniform_", "load", "loss_and_gradient", "orthogonal_", "save",
    "train_classifier", "train_step", "xavier_normal_", "xavier_uniform_",
]  # fmt: skip


class Sequential(layers.Module):
    """A tuple of layers, and what else a subclass may have."""

    def __init__(self, *row):
        self.row = row

    def append(self, layer):
        self.row = (*self.row, layer)
        return self

    def __len__(self):
        return len(self.row)

    def __iter__(self):
        yield from self.row

    def __getitem__(self, index):
        picked = self.row[index]
        return Sequential(*picked) if type(picked) is tuple else picked

    def named_members(self):
        for i, layer in enumerate(self.row):
            yield str(i), layer
        for path, member in super().named_members():
            if not path.startswith("row."):
                yield path, member

    def forward(self, x):
        for layer in self.row:
            x = layer(x)
        return x


def MLP(sizes, activation=activations.ReLU, dropout=0.0, *, rng):
    first, *rest = sizes if len(sizes) > 1 else [None]
    if not rest:
        raise ValueError("a network needs two sizes")
    net = Sequential()
    for size in rest:
        if len(net):
            net.append(activation())
        if len(net) and dropout:
            net.append(activations.Dropout(dropout, rng=rng))
        net.append(layers.Linear(first, size, rng=rng))
        first = size
    return net


def fans(shape):
    if len(shape) < 2:
        raise ValueError(f"no fans in {shape}")
    kernel = 1
    for n in shape[2:]:
        kernel *= n
    return shape[1] * kernel, shape[0] * kernel


def calculate_gain(nonlinearity, param=None):
    """All but two gains are those of a leaky_relu: of slope 1, which is linear, or of slope 0."""
    special = {"tanh": 5 / 3, "selu": 3 / 4}
    slopes = {"linear": 1, "sigmoid": 1, "relu": 0, "leaky_relu": 0.01 if param is None else param}
    if nonlinearity in special:
        return special[nonlinearity]
    if nonlinearity not in slopes:
        raise ValueError(f"{nonlinearity!r} is none of {[*special, *slopes]}")
    return np.sqrt(2 / (1 + slopes[nonlinearity] ** 2)).item()


def _fill(x, kind, variance, rng):
    """Standard draws times a standard deviation, in float32 or wider."""
    dtype = np.promote_types(x.dtype, np.float32)
    if kind == "normal":
        numbers = rng.standard_normal(x.shape, dtype)
    else:
        numbers = rng.random(x.shape, dtype)
        numbers -= 0.5
        variance = 12 * variance  # that of numbers on [-1/2, 1/2) is 1/12
    x.data[:] = numbers * dtype.type(np.sqrt(variance))
    tensor.increment_version(x.data)
    return x


def _xavier(x, kind, gain, rng):
    return _fill(x, kind, 2 * gain**2 / max(sum(fans(x.shape)), 1), rng)


def _kaiming(x, kind, a, mode, nonlinearity, rng):
    fan_in, fan_out = fans(x.shape)
    if mode == "fan_in":
        fan = fan_in
    elif mode == "fan_out":
        fan = fan_out
    else:
        raise ValueError(f"mode {mode!r} is neither fan_in nor fan_out")
    return _fill(x, kind, calculate_gain(nonlinearity, a) ** 2 / max(fan, 1), rng)


def xavier_uniform_(tensor, gain=1.0, *, rng):
    return _xavier(tensor, "uniform", gain, rng)


def xavier_normal_(tensor, gain=1.0, *, rng):
    return _xavier(tensor, "normal", gain, rng)


def kaiming_uniform_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu", *, rng):
    return _kaiming(tensor, "uniform", a, mode, nonlinearity, rng)


def kaiming_normal_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu", *, rng):
    return _kaiming(tensor, "normal", a, mode, nonlinearity, rng)


def orthogonal_(x, gain=1.0, *, rng):
    """A wide matrix is the transpose of a tall one, whose columns come from QR with signs drawn anew."""
    inside, outputs = fans(x.shape)[0], x.shape[0]
    if outputs < inside:
        turned = Tensor(np.empty((inside, outputs)))
        x.data[:] = orthogonal_(turned, gain, rng=rng).data.T.reshape(x.shape)
    else:
        q = np.linalg.qr(rng.standard_normal((outputs, inside)))[0]
        x.data[:] = (gain * q * rng.choice([-1.0, 1.0], inside)).reshape(x.shape)
    tensor.increment_version(x.data)
    return x


def initialise(module, init, *, rng):
    named = dict(module.named_parameters())
    for name in named:
        kind = name.split(".")[-1]
        if kind.endswith("weight") and named[name].ndim > 1:
            init(named[name], rng=rng)
        elif kind.endswith("bias"):
            named[name].data.fill(0)
            tensor.increment_version(named[name].data)
    return module


def activation_stats(net, x):
    seen = []
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, out, path=path: seen.append((path, _moments(out)))
        )
        for path, module in net.named_modules()
        if sum(1 for _ in module.modules()) == 1
    ]
    try:
        net(x)
    finally:
        for unhook in hooks:
            unhook()
    return [(path, *moments) for path, moments in seen]


def _moments(out):
    mean = np.mean(out.data, dtype=np.float64)
    return float(mean), float(np.sqrt(np.mean((out.data - mean) ** 2)))


class Tape:
    """Parallel lists, one entry a step; `node` of a result is the tape and the number of its step."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.ops, self.kept, self.shapes, self.writes = [], [], [], []
        self.sources = []  # for each step, (its entry, its leaves)
        self.line = object()
        self.dtype = None

    def __enter__(self):
        self.other = tensor.set_recorder(self.note)
        return self

    def __exit__(self, *error):
        tensor.set_recorder(self.other)
        return False

    def note(self, op, inputs, arrays, params, out):
        here = (self.line, len(self.ops) - 1)
        wanted = [(i, x) for i, x in enumerate(inputs) if getattr(x, "requires_grad", False)]
        wanted = [(i, x) for i, x in wanted if isinstance(x, Tensor) and not (x is out and x.node is None)]
        if self.ops:
            entries = [i for i, x in wanted if x.node == here]
            first = self.sources[0][1].get(0)
        else:
            entries = [i for i, x in wanted if i == 0]
            first = inputs[0]
        leaves = {i: x for i, x in wanted if x.node is None}
        stray = [x for i, x in wanted if i not in entries[:1] and (x.node is not None or x is first)]
        if stray or (self.ops and not entries) or op.pull is None:
            raise ValueError(f"{op.name} is not the next step of a straight line; kata 06 can follow it")
        self.ops.append(op)
        self.kept.append(op.keep(out.data, arrays, params))
        self.shapes.append((inputs[entries[0]].shape if entries else None, out.shape))
        self.sources.append((entries[0] if entries else None, leaves))
        self.writes.append(tensor.version())
        self.dtype = out.dtype
        out.node = (self.line, len(self.ops) - 1)

    def walk_back(self, grad):
        if not self.ops:
            raise ValueError("the tape is empty")
        grad = np.asarray(grad).astype(self.dtype)
        if grad.shape != self.shapes[-1][1]:
            raise ValueError(f"gradient of shape {grad.shape}, result of shape {self.shapes[-1][1]}")
        try:
            while self.ops:
                grad = self.one_back(grad)
        finally:
            self.clear()
        return grad

    def one_back(self, grad):
        op, kept, made = self.ops.pop(), self.kept.pop(), self.writes.pop()
        (entry, leaves), (shape, _) = self.sources.pop(), self.shapes.pop()
        stale = [a for a in kept if isinstance(a, np.ndarray) and tensor.version(a) > made]
        if stale:
            raise RuntimeError(f"{op.name} needs an array of shape {stale[0].shape} that was written over")
        found = op.pull(grad, *kept)
        if type(found) not in (tuple, list):
            found = (found,)
        for i, shaped in [*((i, leaf.shape) for i, leaf in leaves.items()), (entry, shape)]:
            if i is not None and (found[i] is None or np.shape(found[i]) != shaped):
                got = None if found[i] is None else np.shape(found[i])
                raise ValueError(f"the rule of {op.name} gave {got}, and its input has shape {shaped}")
        for i, leaf in leaves.items():
            before = 0 if leaf.grad is None else leaf.grad
            leaf.grad = np.array(before + found[i], leaf.dtype)
        return None if entry is None else np.asarray(found[entry])


def gradient_norms(module):
    return {
        name: float(np.sqrt(np.einsum("i,i", flat, flat)))
        for name, flat in (
            (name, p.grad.astype(np.float64).reshape(-1))
            for name, p in module.named_parameters()
            if p.grad is not None
        )
    }


def loss_and_gradient(logits, labels):
    labels = np.asarray(labels)
    if labels.ndim != 1 or logits.ndim != 2 or len(labels) != len(logits) or not len(labels):
        raise ValueError(f"{logits.shape} against {labels.shape}")
    outside = labels[(labels < 0) | (labels >= logits.shape[1])]
    if outside.size:
        raise ValueError(f"no such class: {outside[0]}")
    log_p = activations.log_softmax.forward(logits)
    index = labels[:, None]
    loss = -np.take_along_axis(log_p, index, axis=1).mean()
    grad = np.exp(log_p)
    np.put_along_axis(grad, index, np.take_along_axis(grad, index, axis=1) - 1, axis=1)
    return float(loss), grad / len(labels)


def train_step(net, x, labels, lr):
    with Tape() as tape:
        logits = net(x)
    net.zero_grad()
    loss, grad = loss_and_gradient(logits.data, labels)
    tape.walk_back(grad)
    for p in filter(lambda p: p.grad is not None, net.parameters()):
        p.data += -lr * p.grad
        tensor.increment_version(p.data)
    return loss


def train_classifier(net, x, labels, *, lr, epochs, batch_size, rng):
    def epoch():
        order = np.argsort(rng.random(len(x)))
        cuts = range(batch_size, len(x), batch_size)
        losses = [train_step(net, Tensor(x[i]), labels[i], lr) for i in np.split(order, cuts)]
        return sum(losses) / len(losses)

    return [epoch() for _ in range(epochs)]


def save(module, path):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, array in module.state_dict().items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            archive.writestr(name + ".npy", member.getvalue())
    path = pathlib.Path(path)
    beside = path.parent / (path.name + ".part")
    try:
        beside.write_bytes(whole.getbuffer())
        os.replace(beside, path)
    finally:
        if beside.exists():
            beside.unlink()


def load(module, path):
    data = io.BytesIO(pathlib.Path(path).read_bytes())
    try:
        with np.load(data, allow_pickle=False) as archive:
            state = dict(archive.items())
        if any(not hasattr(array, "shape") for array in state.values()):
            raise TypeError("something in it is no array")
    except Exception as error:
        raise ValueError(f"{path}: no file of weights ({type(error).__name__})") from error
    try:
        module.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
