"""Kata 05 with a tape of closures, layers as attributes, and files taken apart by hand."""

import math
import os
import tempfile
import zipfile
from collections import OrderedDict

import numpy as np

from tinytorch.activations import Dropout, ReLU, log_softmax
from tinytorch.layers import Linear, Module
from tinytorch.tensor import Tensor, increment_version, set_recorder, version

__all__ = [
    "MLP", "Sequential", "Tape", "activation_stats", "calculate_gain", "fans", "gradient_norms",
    "initialise", "kaiming_normal_", "kaiming_uniform_", "load", "loss_and_gradient", "orthogonal_", "save",
    "train_classifier", "train_step", "xavier_normal_", "xavier_uniform_",
]  # fmt: skip


class Sequential(Module):
    """Layers are attributes called "0", "1", ..., so that Module finds them under these names."""

    def __init__(self, *layers):
        self._count = 0
        for layer in layers:
            self.append(layer)

    def append(self, layer):
        setattr(self, str(self._count), layer)
        self._count += 1
        return self

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Sequential(*(self[i] for i in range(*index.indices(self._count))))
        if not -self._count <= index < self._count:
            raise IndexError(f"there are {self._count} layers, and none at {index}")
        return getattr(self, str(index % self._count))

    def __iter__(self):
        for i in range(self._count):
            yield self[i]

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return x


def MLP(sizes, activation=ReLU, dropout=0.0, *, rng):
    if len(sizes) <= 1:
        raise ValueError(f"too few sizes: {sizes}")
    layers = []
    last = len(sizes) - 2
    for i in range(last + 1):
        layers.append(Linear(sizes[i], sizes[i + 1], rng=rng))
        if i < last:
            layers.append(activation())
            if dropout > 0:
                layers.append(Dropout(dropout, rng=rng))
    return Sequential(*layers)


def fans(shape):
    if len(shape) < 2:
        raise ValueError(f"shape {shape} has fewer than two axes")
    outputs, inputs, *kernel = shape
    size = int(np.prod(kernel, dtype=np.int64))
    return inputs * size, outputs * size


def calculate_gain(nonlinearity, param=None):
    if nonlinearity in ("linear", "sigmoid"):
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3.0
    if nonlinearity == "relu":
        return 2.0**0.5
    if nonlinearity == "selu":
        return 0.75
    if nonlinearity == "leaky_relu":
        if param is None:
            param = 0.01
        return (2.0 / (1.0 + param * param)) ** 0.5
    raise ValueError(f"unknown nonlinearity: {nonlinearity}")


def put(tensor, values):
    np.copyto(tensor.data, values, casting="same_kind")
    increment_version(tensor.data)
    return tensor


def xavier_std(tensor, gain):
    fan_in, fan_out = fans(tensor.shape)
    return gain * math.sqrt(2.0 / (fan_in + fan_out)) if fan_in + fan_out else 0.0


def xavier_uniform_(tensor, gain=1.0, *, rng):
    bound = xavier_std(tensor, gain) * math.sqrt(3.0)
    return put(tensor, rng.uniform(-bound, bound, tensor.shape))


def xavier_normal_(tensor, gain=1.0, *, rng):
    return put(tensor, rng.normal(0.0, xavier_std(tensor, gain), tensor.shape))


def kaiming_std(tensor, a, mode, nonlinearity):
    gain = calculate_gain(nonlinearity, a)
    fan = dict(zip(("fan_in", "fan_out"), fans(tensor.shape), strict=True))
    if mode not in fan:
        raise ValueError(f"unknown mode: {mode}")
    return gain / math.sqrt(fan[mode]) if fan[mode] else 0.0


def kaiming_uniform_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu", *, rng):
    bound = kaiming_std(tensor, a, mode, nonlinearity) * math.sqrt(3.0)
    return put(tensor, rng.uniform(-bound, bound, tensor.shape))


def kaiming_normal_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu", *, rng):
    return put(tensor, rng.normal(0.0, kaiming_std(tensor, a, mode, nonlinearity), tensor.shape))


def orthogonal_(tensor, gain=1.0, *, rng):
    """The orthogonal part of a random matrix by its singular values: u @ vt is as random as can be."""
    fans(tensor.shape)
    flat = (tensor.shape[0], int(np.prod(tensor.shape[1:])))
    u, _, vt = np.linalg.svd(rng.normal(size=flat), full_matrices=False)
    return put(tensor, (gain * (u @ vt)).reshape(tensor.shape))


def initialise(module, init, *, rng):
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            put(parameter, np.zeros((), parameter.dtype))
        if name.endswith("weight") and len(parameter.shape) > 1:
            init(parameter, rng=rng)
    return module


def activation_stats(net, x):
    rows, removers = [], []

    def watch(path):
        def hook(module, inputs, out):
            wide = out.data.astype(np.float64)
            rows.append((path, float(wide.mean()), float(wide.std())))

        return hook

    for path, module in net.named_modules():
        below = [path for path, _ in module.named_modules()]
        if len(below) == 1:
            removers.append(module.register_forward_hook(watch(path)))
    try:
        net(x)
    finally:
        while removers:
            removers.pop()()
    return rows


class Mark:
    """Stands in a result's `node`."""


class Tape:
    """A stack of functions, from the gradient of a result to that of the input on the line."""

    def __init__(self):
        self.stack = []
        self.end = None  # the mark of the last result, its shape and dtype
        self.start = None
        self.replaced = []

    def __enter__(self):
        self.replaced.append(set_recorder(self.note))
        return self

    def __exit__(self, kind, error, traceback):
        set_recorder(self.replaced.pop())

    def note(self, op, inputs, arrays, params, out):
        def refuse():
            raise ValueError(f"{op.name}: no straight line, or no rule; wait for the graph of kata 06")

        if op.pull is None:
            refuse()
        place, leaves = None, []
        for i, x in enumerate(inputs):
            if not (isinstance(x, Tensor) and x.requires_grad):
                continue
            if op.in_place and i == 0 and x.node is None:
                continue
            fits = x.node is self.end[0] if self.stack else i == 0
            if place is None and fits:
                place = i
                if not self.stack:
                    self.start = x if x.node is None else None
                    if self.start is not None:
                        leaves.append((i, x))
            elif x.node is not None or x is self.start:
                refuse()
            else:
                leaves.append((i, x))
        if self.stack and place is None:
            refuse()
        mark = Mark()
        shape = inputs[place].shape if place is not None else None
        kept = op.keep(out.data, arrays, params)
        self.stack.append(closure(op, kept, place, shape, leaves, version()))
        self.end = mark, out.shape, out.dtype
        out.node = mark

    def walk_back(self, grad):
        if not self.stack:
            raise ValueError("no steps")
        _, shape, dtype = self.end
        grad = np.array(grad, dtype)
        if grad.shape != shape:
            raise ValueError(f"the result has shape {shape}, its gradient {grad.shape}")
        stack, self.stack, self.start, self.end = self.stack, [], None, None
        while stack:
            grad = stack.pop()(grad)
        return grad


def closure(op, kept, place, shape, leaves, written):
    def back(grad):
        for array in kept:
            if isinstance(array, np.ndarray) and version(array) > written:
                raise RuntimeError(f"something that {op.name} kept was changed")
        grads = op.pull(grad, *kept)
        grads = grads if isinstance(grads, (tuple, list)) else (grads,)

        def share(i, wanted):
            if grads[i] is None or np.shape(grads[i]) != wanted:
                raise ValueError(f"{op.name}: a gradient of {np.shape(grads[i])} for an input of {wanted}")
            return np.asarray(grads[i])

        for i, leaf in leaves:
            total = np.zeros(leaf.shape, leaf.dtype) if leaf.grad is None else leaf.grad.copy()
            total += share(i, leaf.shape).astype(leaf.dtype)
            leaf.grad = total
        return None if place is None else share(place, shape)

    return back


def gradient_norms(module):
    norms = OrderedDict()
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            norms[name] = float(np.sqrt(np.square(parameter.grad, dtype=np.float64).sum()))
    return norms


def loss_and_gradient(logits, labels):
    labels = np.array(labels)
    if logits.ndim != 2 or labels.shape != (len(logits),) or len(logits) == 0:
        raise ValueError(f"shapes {logits.shape} and {labels.shape} do not fit")
    classes = logits.shape[1]
    for label in labels.tolist():
        if label not in range(classes):
            raise ValueError(f"label {label} of {classes} classes")
    log_p, back = log_softmax.vjp(logits)
    one_hot = (labels[:, None] == np.arange(classes)).astype(log_p.dtype)
    loss = -float(np.where(one_hot > 0, log_p, 0).sum()) / len(labels)
    return loss, back(-one_hot / len(labels))


def train_step(net, x, labels, lr):
    net.zero_grad()
    tape = Tape()
    with tape:
        out = net(x)
    loss, grad = loss_and_gradient(out.data, labels)
    tape.walk_back(grad)
    for parameter in net.parameters():
        if parameter.grad is not None:
            np.subtract(parameter.data, lr * parameter.grad, out=parameter.data)
            increment_version(parameter.data)
    return loss


def train_classifier(net, x, labels, *, lr, epochs, batch_size, rng):
    history = []
    for _ in range(epochs):
        left = list(range(len(x)))
        rng.shuffle(left)
        losses = []
        while left:
            batch, left = left[:batch_size], left[batch_size:]
            losses.append(train_step(net, Tensor(x[batch]), labels[batch], lr))
        history.append(float(np.mean(losses)))
    return history


def save(module, path):
    path = os.path.abspath(path)
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with open(handle, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            for name, array in module.state_dict().items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def load(module, path):
    with open(path, "rb") as stream:
        state = {}
        try:
            with zipfile.ZipFile(stream) as archive:
                for name in archive.namelist():
                    with archive.open(name) as member:
                        array = np.lib.format.read_array(member, allow_pickle=False)
                        if member.read(1):
                            raise ValueError("there is more than an array")
                        state[name.removesuffix(".npy")] = array
            module.load_state_dict(state)
        except Exception as error:
            raise ValueError(f"cannot use {path}: {error}") from error
