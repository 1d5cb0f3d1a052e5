import json

import pytest

from dojo.measuring import Roofline, measure_roofline

ROOF = Roofline(bandwidth=10e9, float32=100e9, float64=50e9)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    cache = tmp_path_factory.mktemp("roof") / "new" / "roofline.json"
    return measure_roofline(cache), cache


def test_it_is_measured(measured):
    roof, _ = measured
    assert 1e8 < roof.bandwidth < 1e12
    assert roof.float64 > 1e8
    assert roof.float32 > roof.float64  # twice as many fit into a register


def test_it_is_remembered(measured, monkeypatch):
    def again(*_):
        raise AssertionError("it was measured again")

    monkeypatch.setattr("dojo.measuring.roofline._bandwidth", again)
    monkeypatch.setattr("dojo.measuring.roofline._peak", again)
    roof, cache = measured
    assert measure_roofline(cache) == roof
    assert len(json.loads(cache.read_text())) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"numpy": 3}', '{"numpy": {"speed": 1}}'])
def test_a_cache_that_says_nothing_is_measured_anew(text, tmp_path, monkeypatch):
    monkeypatch.setattr("dojo.measuring.roofline._bandwidth", lambda: 1.0)
    monkeypatch.setattr("dojo.measuring.roofline._peak", lambda dtype: 2.0)
    cache = tmp_path / "roofline.json"
    cache.write_text(text)
    assert measure_roofline(cache) == Roofline(1.0, 2.0, 2.0)
    monkeypatch.setattr("dojo.measuring.roofline._bandwidth", lambda: 5.0)
    assert measure_roofline(cache) == Roofline(1.0, 2.0, 2.0)


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr("dojo.measuring.roofline._bandwidth", lambda: 1.0)
    monkeypatch.setattr("dojo.measuring.roofline._peak", lambda dtype: 2.0)
    (tmp_path / "file").write_text("not a folder")
    assert measure_roofline(tmp_path / "file" / "roofline.json").bandwidth == 1.0


def test_the_roof_is_the_slower_of_computing_and_fetching():
    assert ROOF.seconds(100e9, 1e9, "float32") == (1.0, "compute")
    assert ROOF.seconds(100e9, 1e9, "float64") == (2.0, "compute")
    assert ROOF.seconds(1e9, 20e9, "float32") == (2.0, "memory")
    assert ROOF.seconds(None, 10e9, "float32") == (1.0, "memory")
    assert ROOF.ridge("float32") == 10
