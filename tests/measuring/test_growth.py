import dataclasses
import sys

import numpy as np
import pytest

from dojo.measuring import Probe, check_memory_growth, counted_growth, load_probes, memory_growth, time_growth
from dojo.measuring.growth import exponent, times


def vectors(n, rng):
    return (rng.normal(size=n),)


LINEAR = Probe("sines", (50_000, 100_000, 200_000), vectors, call=lambda x: np.sin(x))
OUTER = Probe("outer", (128, 256, 512), vectors, call=lambda x: np.sin(np.multiply.outer(x, x)))

# The same 8 KiB again and again: a larger piece of work that is not in another cache or on fresh pages.
PIECE = np.linspace(0, 1, 1024)


def pieces(count):
    for _ in range(count):
        np.sin(PIECE)


ONE_EACH = Probe("a piece for each", (20, 40, 80), lambda n, rng: (n,), call=pieces)
ALL_PAIRS = Probe("a piece for each pair", (4, 8, 16), lambda n, rng: (n,), call=lambda n: pieces(n * n))
VIEW = Probe("view", (1 << 18, 1 << 19), vectors, call=lambda x: x.reshape(2, -1))


@pytest.mark.parametrize(("power", "base"), [(0, 7.0), (1, 3.0), (2, 0.5), (3, 1e-6)])
def test_the_exponent_of_a_power_is_the_power(power, base):
    assert exponent([8, 16, 48], [base * n**power for n in (8, 16, 48)]) == pytest.approx(power)


def test_only_the_last_doubling_counts():
    assert exponent([1, 2, 4], [100, 100, 200]) == pytest.approx(1)


def test_memory_that_grows_faster_than_expected_is_told_in_bytes():
    """256² and 512² numbers of 8 bytes."""
    check_memory_growth(dataclasses.replace(OUTER, memory=2))
    with pytest.raises(AssertionError) as caught:
        check_memory_growth(dataclasses.replace(OUTER, memory=1))
    for word in ("outer", "n = 256", "n = 512", "2.0", "where 1 is expected"):
        assert word in str(caught.value)


def test_growth_that_a_probe_does_not_speak_of_cannot_be_checked():
    with pytest.raises(ValueError, match="outer"):
        check_memory_growth(OUTER)


def test_time_grows_as_the_work_does():
    """Half an order either way: between linear and quadratic is where budgets draw the line."""
    assert 0.5 < time_growth(ONE_EACH) < 1.5
    assert 1.5 < time_growth(ALL_PAIRS) < 2.5


def test_memory_grows_as_the_arrays_do():
    assert memory_growth(LINEAR) == pytest.approx(1, abs=0.02)
    assert memory_growth(OUTER) == pytest.approx(2, abs=0.02)
    assert memory_growth(VIEW) == pytest.approx(0, abs=0.1)


def test_counting_sees_the_order_that_overhead_hides():
    assert counted_growth(lambda n: n * (n - 1) / 2, (100, 200, 400)) == pytest.approx(2, abs=0.01)


def test_times_come_in_the_order_of_sizes():
    small, large = times(OUTER, (64, 512))
    assert small * 10 < large


def test_each_repeat_has_new_arguments():
    seen = []
    probe = Probe("sum", (200_000, 400_000), vectors, call=lambda x: seen.append(x[0]) or np.sin(x))
    times(probe, probe.sizes)
    assert len(set(seen)) >= 2 * 3


def test_under_a_profiler_growth_is_not_judged(monkeypatch):
    before = sys.getprofile()
    sys.setprofile(lambda *_: None)
    try:
        with pytest.raises(pytest.skip.Exception, match="outer: speed was not judged"):
            time_growth(OUTER)
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        with pytest.raises(RuntimeError, match="a profiler is running"):
            time_growth(OUTER)
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("sizes", [(8,), (), (8, 8), (16, 8)])
def test_sizes_must_grow(sizes):
    with pytest.raises(ValueError, match="sizes"):
        Probe("x", sizes, vectors, call=len)


def test_probes_are_loaded_from_beside_the_test(tmp_path):
    (tmp_path / "probes.py").write_text(
        "from dojo.measuring import Probe\n"
        "PROBES = (Probe('length', (1, 2), lambda n, rng: ([0] * n,), len, time=0),)\n"
    )
    probes = load_probes(str(tmp_path / "test_4_speed.py")).PROBES
    assert [p.name for p in probes] == ["length"]
    assert probes[0].call(*probes[0].prepare(3, None)) == 3
