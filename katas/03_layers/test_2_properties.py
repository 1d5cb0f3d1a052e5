"""Level 2: what must hold for every tree of modules, however its members are kept."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch.layers import Buffer, Module, Parameter, count_parameters, parameter_bytes
from tinytorch.tensor import Tensor

steady = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
many = settings(steady, max_examples=50)

SEEDS = st.integers(0, 2**32 - 1)


class Tree:
    """A module drawn at random, and what is in it, noted while it was built.

    Attributes:
        root: the module.
        modules: (path, module), parents first.
        tensors: (path, Parameter or Buffer), each under every name.
    """

    def __init__(self, seed, shared=True):
        self.rng = np.random.default_rng(seed)
        self.shared = shared
        self.pool = []  # what may be met a second time
        self.modules, self.tensors = [], []
        self.root = self.module("", 3)

    def module(self, path, depth):
        module = Module()
        self.modules.append((path, module))
        for i in range(self.rng.integers(0, 4)):
            name = f"{'abcd'[i]}{self.rng.integers(10)}"
            setattr(module, name, self.value(f"{path}.{name}" if path else name, depth))
        return module

    def value(self, path, depth):
        kind = self.rng.choice(
            ["module", "list", "tuple", "dict", "parameter", "buffer", "again", "tensor", "number"],
            p=[0.25, 0.1, 0.05, 0.1, 0.2, 0.1, 0.1, 0.05, 0.05],
        )
        if kind == "module" and depth:
            return self.module(path, depth - 1)
        if kind in ("list", "tuple") and depth:
            items = [self.value(f"{path}.{i}", depth - 1) for i in range(self.rng.integers(0, 4))]
            return items if kind == "list" else tuple(items)
        if kind == "dict" and depth:
            return {key: self.value(f"{path}.{key}", depth - 1) for key in ("left", 7)}
        if kind in ("parameter", "buffer"):
            data = self.rng.normal(size=self.rng.integers(0, 3, 2)).astype(self.rng.choice(["f4", "f8"]))
            tensor = Parameter(data) if kind == "parameter" else Buffer(data)
            self.pool.append(tensor)
            self.tensors.append((path, tensor))
            return tensor
        if kind == "again" and self.pool and self.shared:
            tensor = self.pool[self.rng.integers(len(self.pool))]
            self.tensors.append((path, tensor))
            return tensor
        return Tensor([1.0]) if kind == "tensor" else 1.5


def names_and_ids(pairs):
    return [(name, id(member)) for name, member in pairs]


@many
@given(SEEDS)
def test_every_module_is_found_once_parents_first(seed):
    tree = Tree(seed)
    expect(names_and_ids(tree.root.named_modules()), names_and_ids(tree.modules))


@many
@given(SEEDS)
def test_every_tensor_is_in_the_state_under_every_name(seed):
    tree = Tree(seed)
    state = tree.root.state_dict()
    expect({name: id(array) for name, array in state.items()}, {n: id(t.data) for n, t in tree.tensors})


@many
@given(SEEDS)
def test_every_parameter_is_found_once_in_the_module_that_comes_first(seed):
    tree = Tree(seed)
    owner = {}  # of each name, the module that holds it: the one with the longest path that begins it
    for name, _ in tree.tensors:
        holders = [path for path, _ in tree.modules if not path or name.startswith(f"{path}.")]
        owner[name] = max(holders, key=len)
    order = [path for path, _ in tree.modules]
    expected, seen = [], set()
    for name, tensor in sorted(tree.tensors, key=lambda pair: order.index(owner[pair[0]])):
        if isinstance(tensor, Parameter) and id(tensor) not in seen:
            seen.add(id(tensor))
            expected.append((name, id(tensor)))
    expect(names_and_ids(tree.root.named_parameters()), expected)


@many
@given(SEEDS)
def test_counts_and_bytes_are_those_of_different_tensors(seed):
    tree = Tree(seed)
    different = {id(tensor): tensor for _, tensor in tree.tensors}.values()
    expect(count_parameters(tree.root), sum(t.size for t in different if isinstance(t, Parameter)))
    expect(parameter_bytes(tree.root), sum(t.data.nbytes for t in different))


@many
@given(SEEDS)
def test_a_state_makes_one_module_equal_to_another(seed):
    one, other = Tree(seed), Tree(seed)
    for array in other.root.state_dict().values():
        array += 1.0
    arrays = one.root.state_dict()
    one.root.load_state_dict(other.root.state_dict())
    expect(list(one.root.state_dict()), list(arrays))
    for name, array in one.root.state_dict().items():
        assert array is arrays[name]
        expect(array, other.root.state_dict()[name])


@many
@given(SEEDS)
def test_switches_reach_every_module_and_every_parameter(seed):
    tree = Tree(seed)
    tree.root.eval()
    assert not any(module.training for _, module in tree.modules)
    for tensor in tree.root.requires_grad_(False).parameters():
        tensor.grad = tensor.data
    assert not any(t.requires_grad for _, t in tree.tensors)
    tree.root.zero_grad()
    assert all(t.grad is None for _, t in tree.tensors)
    expect(count_parameters(tree.root), 0)
