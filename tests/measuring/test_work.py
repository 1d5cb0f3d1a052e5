import numpy as np
import pytest

from dojo.measuring import CountingElement, Looks, WorkMeter, counted_growth

A = np.arange(12.0).reshape(3, 4)
B = np.arange(20.0).reshape(4, 5)
V = np.arange(4.0)


def count(function, *arrays):
    with WorkMeter() as work:
        tracked = [work.track(a) for a in arrays]
        before = work.flops, work.bytes, work.calls
        result = function(*tracked)
    assert before == (0, 0, 0)
    return work, result


# flops, bytes, calls: each worked out by hand.
EXACT = {
    "add": (lambda a: a + a, (A,), 12, 3 * 96, 1),
    "add a scalar": (lambda a: a + 1.0, (A,), 12, 2 * 96, 1),
    "add a row, read once": (lambda a, v: a + v, (A, V), 12, 2 * 96 + 32, 1),
    "add in place": (lambda a: a.__iadd__(a), (A,), 12, 3 * 96, 1),
    "a chain": (lambda a: np.exp(-a * 2.0), (A,), 36, 6 * 96, 3),
    "sum, method": (lambda a: a.sum(), (A,), 12, 96 + 8, 1),
    "sum, function": (lambda a: np.sum(a, axis=1), (A,), 12, 96 + 24, 1),
    "max": (lambda a: a.max(axis=0), (A,), 12, 96 + 32, 1),
    "mean": (lambda a: a.mean(axis=0), (A,), 12 + 4, 96 + 32 + 32 + 32, 2),
    "cumsum": (lambda a: np.cumsum(a, axis=1), (A,), 12, 2 * 96, 1),
    "matmul": (lambda a, b: a @ b, (A, B), 2 * 3 * 4 * 5, 96 + 160 + 120, 1),
    "matmul with a vector": (lambda a, v: a @ v, (A, V), 2 * 3 * 4, 96 + 32 + 24, 1),
    "matmul, batched": (lambda a, b: np.stack([a, a]) @ b, (A, B), 2 * 2 * 3 * 4 * 5, 192 * 3 + 160 + 240, 2),
    "dot": (lambda a, b: np.dot(a, b), (A, B), 2 * 3 * 4 * 5, 96 + 160 + 120, 1),
    "dot, method": (lambda a, b: a.dot(b), (A, B), 2 * 3 * 4 * 5, 96 + 160 + 120, 1),
    "inner": (lambda a: np.inner(a, a), (A,), 2 * 3 * 3 * 4, 96 + 96 + 72, 1),
    "vdot": (lambda v: np.vdot(v, v), (V,), 8, 32 + 32 + 8, 1),
    "tensordot": (lambda a, b: np.tensordot(a, b, axes=1), (A, B), 2 * 3 * 4 * 5, 96 + 160 + 120, 1),
    "einsum": (lambda a, b: np.einsum("ij,jk->ik", a, b), (A, B), 2 * 3 * 4 * 5, 96 + 160 + 120, 1),
    "einsum, implicit output": (lambda a, b: np.einsum("ij,jk", a, b), (A, B), 120, 96 + 160 + 120, 1),
    "einsum, by lists": (lambda a, b: np.einsum(a, [0, 1], b, [1, 2]), (A, B), 120, 96 + 160 + 120, 1),
    "einsum, ellipsis": (lambda a, v: np.einsum("...j,j->...", a, v), (A, V), 24, 96 + 32 + 24, 1),
    "einsum, one operand": (lambda a: np.einsum("ij->i", a), (A,), 12, 96 + 24, 1),
    "einsum, one by lists": (lambda a: np.einsum(a, [0, 1], [0]), (A,), 12, 96 + 24, 1),
    "einsum, a trace": (lambda a: np.einsum("ii", a[:, :3]), (A,), 3, 72 + 8, 1),
    "einsum, transposed": (lambda a: np.einsum("...ij->...ji", a), (A,), 0, 0, 0),
    "convolve": (lambda v: np.convolve(v, v), (V,), 32, 32 + 32 + 56, 1),
    "where": (lambda a: np.where(a > 3, a, 0.0), (A,), 12 + 12, 96 + 12 + 12 + 96 + 96, 2),
    "copy": (lambda a: a.copy(), (A,), 0, 2 * 96, 1),
    "astype": (lambda a: a.astype(np.float32), (A,), 0, 96 + 48, 1),
    "concatenate": (lambda a: np.concatenate([a, a]), (A,), 0, 4 * 96, 1),
    "pad": (lambda v: np.pad(v, 1), (V,), 0, 32 + 48, 1),
    "fancy indexing": (lambda a: a[[0, 0, 1]], (A,), 0, 2 * 96, 1),
    "assignment": (lambda a: a.__setitem__(0, a[1]), (A,), 0, 2 * 32, 1),
    "add.at": (lambda v: np.add.at(v, [0, 0, 1], 1.0), (V,), 3, 32, 1),
    "views": (lambda a: a.T.reshape(2, 6)[:, ::2], (A.T.copy().T,), 0, 0, 0),
    "broadcast view": (lambda v: np.broadcast_to(v, (1000, 4)), (V,), 0, 0, 0),
    "sliding window": (lambda v: np.lib.stride_tricks.sliding_window_view(v, 2), (V,), 0, 0, 0),
    "a view by strides": (lambda v: np.lib.stride_tricks.as_strided(v, (9, 4), (0, 8)), (V,), 0, 0, 0),
    "questions": (lambda a: (a.shape, np.shape(a), np.ndim(a), a.dtype, np.result_type(a)), (A,), 0, 0, 0),
    "sort": (lambda v: np.sort(v), (V,), 8, 64, 1),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_counts_are_exact(name):
    function, arrays, flops, moved, calls = EXACT[name]
    work, result = count(function, *arrays)
    assert (work.flops, work.bytes, work.calls) == (flops, moved, calls), work.by_name
    if isinstance(result, np.ndarray):
        assert work.saw(result)


@pytest.mark.parametrize("name", EXACT)
def test_being_counted_changes_no_answer(name):
    function, arrays, *_ = EXACT[name]
    _, result = count(function, *arrays)
    expected = function(*[a.copy() for a in arrays])
    if isinstance(result, np.ndarray):
        np.testing.assert_array_equal(np.asarray(result), expected)
        assert result.dtype == expected.dtype
    else:
        assert repr(result) == repr(expected)


@pytest.mark.parametrize("convert", ["asarray", "array", "ascontiguousarray", "asanyarray"])
def test_a_conversion_does_not_shake_off_the_meter(convert):
    work, result = count(lambda a: getattr(np, convert)(a) @ B, A)
    assert work.flops == 120
    assert work.saw(result)


def test_arrays_made_inside_are_tracked_too():
    def outer():
        return np.arange(10.0)[:, None] * np.ones(7)

    work, result = count(outer)
    assert work.flops == 70
    assert work.saw(result)


def test_python_loops_show_as_items():
    work, _ = count(lambda a: [float(x) for row in a for x in row], A)
    assert work.items >= 12
    work, _ = count(lambda a: sum(a[i, j] for i in range(3) for j in range(4)), A)
    assert work.items == 12
    work, _ = count(lambda a: a.tolist(), A)
    assert work.items == 12


def test_an_escape_is_noticed():
    def through_a_view(a):
        return a.view(np.ndarray) @ B

    work, result = count(through_a_view, A)
    assert work.flops == 0
    assert work.escapes
    assert not work.saw(result)
    work, result = count(lambda a: np.random.default_rng(0).permutation(a) @ B, A)
    assert not work.saw(np.frombuffer(A.tobytes()))


def test_a_result_of_uncounted_work_is_not_seen():
    plain = A.copy()
    work, result = count(lambda a: plain @ B, A)
    assert not work.saw(result)


class Tensor:
    __array_ufunc__ = None

    def __init__(self, data):
        self.data = data if data.__class__ is np.ndarray else np.asarray(data)

    def __radd__(self, other):
        return "reflected"


def test_the_meter_follows_arrays_into_a_tensor():
    work, result = count(lambda a: Tensor(Tensor(a).data @ B), A)
    assert work.flops == 120
    assert work.saw(result)
    assert count(lambda a: a + Tensor(A), A)[1] == "reflected"


def test_numpy_is_as_it_was_afterwards():
    plain = np.asarray, np.zeros
    with pytest.raises(ZeroDivisionError), WorkMeter():
        1 / 0  # noqa: B018
    assert (np.asarray, np.zeros) == plain
    assert type(np.zeros(3)) is np.ndarray
    work, result = count(lambda a: a + a, A)
    result + result
    assert work.flops == 12


def test_one_meter_inside_another_is_refused():
    with WorkMeter(), pytest.raises(RuntimeError, match="already"), WorkMeter():
        pass


def test_a_cached_look_up_is_linear_where_time_would_not_show_it():
    def flops(n, cached):
        keys = np.ones((n, 8))
        with WorkMeter() as work:
            k = work.track(keys)
            for t in range(1, n + 1):
                rows = k[t - 1 : t] if cached else k[:t]
                rows @ np.ones((8, 8))
        return work.flops

    assert counted_growth(lambda n: flops(n, True), (16, 32, 64)) == pytest.approx(1, abs=0.05)
    assert counted_growth(lambda n: flops(n, False), (16, 32, 64)) == pytest.approx(2, abs=0.05)


def unique_by_list(items):
    kept = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return kept


def looks(function, n):
    looks = Looks()
    function(looks.elements((i * 7919) % n for i in range(n)))
    return looks.total


def test_loops_inside_c_code_are_counted():
    assert counted_growth(lambda n: looks(unique_by_list, n), (200, 400)) == pytest.approx(2, abs=0.05)
    assert counted_growth(lambda n: looks(dict.fromkeys, n), (200, 400)) == pytest.approx(1, abs=0.05)
    assert 1.05 < counted_growth(lambda n: looks(sorted, n), (200, 400)) < 1.3


def test_an_element_behaves_as_its_value():
    looks = Looks()
    three, four, also_three = looks.elements([3, 4, 3])
    assert three == also_three == 3
    assert three < four <= 4
    assert {three: "found"}[also_three] == "found"
    assert isinstance(three, CountingElement)
    assert looks.comparisons == 5
    assert looks.hashes == 2
