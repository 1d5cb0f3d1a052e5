import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from dojo.commands import BadInput, Refused, measure
from dojo.curriculum import ROOT, Kata, find
from dojo.measuring import Probe, tables, worker
from dojo.measuring.comparing import Comparison, Report, Series
from dojo.measuring.roofline import Roofline


def dojo(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "dojo", *args],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module")
def report():
    done = dojo("measure", "01", "--json", TINYTORCH_IMPL="stubs")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_probe_is_measured_on_the_reference(report):
    assert report["kata"] == "01 setup"
    assert report["roofline"]["bandwidth"] > 1e8
    assert len(report["comparisons"]) >= 3
    for comparison in report["comparisons"]:
        series = next(s for s in comparison["series"] if s["source"] == "reference")
        assert series["trouble"] is None
        assert len(series["seconds"]) == len(series["peaks"]) == len(comparison["sizes"])
        assert series["time_exponent"] is not None  # what it is depends on what else this machine does
        assert series["memory_exponent"] == pytest.approx(comparison["memory"], abs=0.3)


def test_an_unwritten_task_is_a_remark_and_not_a_crash(report):
    if (ROOT / "stubs/tinytorch/setup.py").read_text("utf-8").count("NotImplementedError") < 5:
        pytest.skip("the stub of kata 01 is written here")
    for comparison in report["comparisons"]:
        yours = next(s for s in comparison["series"] if s["source"] == "yours")
        assert yours["trouble"].startswith("not written yet (kata 01.")


# The worker, in this process.


def vectors(n, rng):
    return (rng.normal(size=n).astype(np.float32),)


def test_sizes_after_a_call_that_took_too_long_are_left_out(monkeypatch):
    monkeypatch.setattr(worker, "TOO_SLOW", 0.0)
    found = worker._measure(Probe("sin", (1000, 2000, 4000), vectors, np.sin), True)
    assert found["sizes"] == [1000]
    assert len(found["seconds"]) == len(found["peaks"]) == 1
    assert found["dtype"] == "float32"


def test_troubles_are_told_in_one_line():
    def unwritten():
        raise NotImplementedError("kata 02.3: broadcast_shapes")

    def broken():
        raise TypeError("first\nsecond")

    assert worker._attempt(unwritten) == ("not written yet (kata 02.3: broadcast_shapes)", None)
    assert worker._attempt(broken) == ("TypeError: first", None)
    assert worker._attempt(lambda: 3) == (None, 3)


def test_a_worker_that_dies_says_so(monkeypatch):
    from dojo.measuring import comparing

    monkeypatch.setattr(comparing, "_sources", lambda impl: [("yours", "no/such/file.py")])
    report = comparing.compare(find("01"), "reference")
    assert report.comparisons == ()
    assert "no/such/file.py" in report.troubles["yours"]


def test_half_a_line_is_no_line(tmp_path):
    from dojo.measuring import comparing

    (tmp_path / "figures").write_text('{"probe": "a"}\n{"probe": "b", "sec')
    assert comparing._read(tmp_path / "figures") == [{"probe": "a"}]
    assert comparing._read(tmp_path / "none") == []


# Tables.

SIZES = (100, 200, 400)
YOURS = Series("yours", SIZES, (1e-6, 4e-6, 16e-6), (1000, 4000, 16000))
REFERENCE = Series("reference", SIZES, (1e-6, 2e-6, 4e-6), (1000, 2000, 4000))
TORCH = Series("PyTorch", SIZES, (1e-6, 2e-6, 4e-6))
ROOF = Roofline(bandwidth=10e9, float32=100e9, float64=50e9)


def comparison(*series, **changes):
    fields = {
        "name": "softmax",
        "sizes": SIZES,
        "time": 1.0,
        "memory": 1.0,
        "flops": (4e3, 8e3, 16e3),
        "moved": (8e3, 16e3, 32e3),
        "dtype": "float32",
    }
    return Comparison(**{**fields, **changes}, series=series)


def printed(capsys, *comparisons, troubles=None):
    tables.show(Report("04 activations", ROOF, comparisons, troubles or {}))
    return capsys.readouterr().out


def test_a_table_has_a_row_for_each_size_and_one_for_growth(capsys):
    head, body = tables.table(comparison(YOURS, REFERENCE, TORCH), Report("04", ROOF, ()))
    assert head[:6] == ["n", "time yours", "time reference", "time PyTorch", "peak yours", "peak reference"]
    assert body[0] == ["100", *["1 us"] * 3, *["0.977 KiB"] * 2, "4 G", "80 % memory"]
    assert body[-1] == ["growth", "n^2", "n^1", "n^1", "n^2", "n^1", "", ""]


@pytest.mark.parametrize(
    ("took", "shown"),
    [(1e-6, "80 % memory"), (0.801e-6, "100 % memory"), (0.5e-6, "in cache"), (40e-6, "2 % memory")],
)
def test_what_is_faster_than_memory_is_in_cache(took, shown):
    """8000 bytes at 10 GB/s take 0.8 us."""
    fast = Series("yours", SIZES, (took,) * 3, (1000,) * 3)
    _, body = tables.table(comparison(fast), Report("04", ROOF, ()))
    assert body[0][-1] == shown


def test_no_share_of_the_computing_is_above_the_whole():
    """4e9 operations at 100 GFLOP/s take 40 ms."""
    fast = Series("yours", SIZES, (0.03,) * 3, (1000,) * 3)
    _, body = tables.table(comparison(fast, flops=(4e9,) * 3, moved=None), Report("04", ROOF, ()))
    assert body[0][-1] == "100 % compute"


def test_what_grows_as_fast_in_the_reference_is_no_fault(capsys):
    assert "faster than expected" not in printed(
        capsys, comparison(YOURS, replace(YOURS, source="reference"))
    )


def test_what_grows_too_fast_is_said_in_words(capsys):
    out = printed(capsys, comparison(YOURS, REFERENCE))
    assert "softmax  (expected: time n^1, memory n^1)" in out
    assert "yours grows faster than expected: time as n^2, not n^1" in out
    assert "memory as n^2, not n^1" in out
    assert "at n = 400 yours takes 4.0 times the reference's time" in out
    assert "faster than expected" not in printed(capsys, comparison(REFERENCE))


def test_troubles_are_shown_and_shorter_series_have_gaps(capsys):
    short = Series("yours", SIZES[:1], (5.0,), (10,), "stopped at n = 100, which took 5.0 s a call")
    out = printed(capsys, comparison(short, REFERENCE), troubles={"PyTorch": "ImportError: no torch"})
    assert "yours: stopped at n = 100" in out
    assert "PyTorch: ImportError: no torch" in out
    missing = Series("yours", trouble="not written yet (kata 04.1: relu)")
    assert "yours: not written yet (kata 04.1: relu)" in printed(capsys, comparison(missing, REFERENCE))


def test_a_narrow_terminal_gets_a_list(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    out = printed(capsys, comparison(YOURS, REFERENCE))
    assert "  n 100\n    time yours: 1 us\n" in out
    assert all(len(line) < 120 for line in out.splitlines())


def test_a_terminal_gets_a_drawn_table(capsys, monkeypatch):
    monkeypatch.setattr(tables.terminal, "is_plain", lambda: False)
    out = printed(capsys, comparison(YOURS, REFERENCE))
    assert "softmax" in out
    assert "n^2" in out


def test_the_output_can_be_printed_everywhere(capsys):
    printed(capsys, comparison(YOURS, REFERENCE, TORCH)).encode("cp1252")


@pytest.mark.parametrize(
    ("value", "shown"), [(1.5, "1.5 s"), (0.0012345, "1.23 ms"), (45e-6, "45 us"), (2e-9, "2 ns")]
)
def test_times_have_three_figures(value, shown):
    assert tables.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0 B"), (12, "12 B"), (1536, "1.5 KiB"), (5 << 20, "5 MiB"), (3 << 30, "3 GiB")]
)
def test_sizes_have_binary_units(value, shown):
    assert tables.size(value) == shown


# Refusals.


def test_a_kata_that_is_not_written_is_refused(monkeypatch):
    monkeypatch.setattr(Kata, "written", False)
    with pytest.raises(Refused, match="not written yet"):
        measure.measure(find("20"))


def test_an_impl_that_does_not_exist_is_bad_input():
    with pytest.raises(BadInput, match="--impl"):
        measure.measure(find("01"), "no/such/folder")


def test_a_source_in_the_environment_that_does_not_exist_is_bad_input(monkeypatch):
    monkeypatch.setenv("TINYTORCH_IMPL", "no/such/folder")
    with pytest.raises(BadInput, match="TINYTORCH_IMPL"):
        measure.measure(find("01"))


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(measure.importlib.util, "find_spec", lambda name: None)
    args = type("Args", (), {"kata": find("01"), "impl": None, "plot": tmp_path / "x.png", "json": False})
    with pytest.raises(Refused, match="pip install matplotlib"):
        measure.run(args)


def test_a_plot_into_no_folder_is_bad_input(monkeypatch, tmp_path):
    monkeypatch.setattr(measure.importlib.util, "find_spec", lambda name: object())
    args = type(
        "Args", (), {"kata": find("01"), "impl": None, "plot": tmp_path / "a" / "x.png", "json": False}
    )
    with pytest.raises(BadInput, match="no folder"):
        measure.run(args)


def test_a_plot_is_saved(tmp_path):
    pytest.importorskip("matplotlib")
    from dojo.measuring import plots

    plots.save(Report("04", ROOF, (comparison(YOURS, REFERENCE, TORCH),)), tmp_path / "plot.svg")
    assert "softmax" in (tmp_path / "plot.svg").read_text() or (tmp_path / "plot.svg").stat().st_size > 5000
