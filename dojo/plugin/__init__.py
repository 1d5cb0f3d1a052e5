"""The pytest plugin: `pytest katas/06_autograd` is the whole interface of a student.

reach      which katas a run is about, and where tinytorch comes from
gate       levels that wait for the ones before them
explain    how failures read
about      which task a test, or a failure, is about
alike      one cause, many failures
limits     endless loops and stubs that leave the process
twins      naive versions that a budget lets through
real_data  tests that need a downloaded set
measured   what budgets measured, for the record
outcomes   what passed, and what that unlocks
panel      the last words
units      where a test stands in the course
"""

from __future__ import annotations

import functools
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dojo import compose, progress
from dojo.plugin.alike import Alike
from dojo.plugin.explain import Explain, KataModule
from dojo.plugin.gate import Gate
from dojo.plugin.limits import Limits
from dojo.plugin.measured import Measured
from dojo.plugin.outcomes import SEED, Outcomes
from dojo.plugin.panel import Panel
from dojo.plugin.reach import Reach, choose_sources, forget_bytecode, keep_katas_whole, restore_environment
from dojo.plugin.real_data import RealData
from dojo.plugin.twins import Twins
from dojo.plugin.units import MEASURED_FROM, level_of, unit_of

if TYPE_CHECKING:
    import numpy as np

BEFORE = pytest.StashKey[str | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("katas")
    group.addoption(
        "--impl",
        metavar="SPEC",
        help="where tinytorch comes from: stubs (yours), reference, or e.g. reference,06=stubs",
    )
    group.addoption(
        "--borrow",
        action="store_true",
        help="take every kata before the one under test from reference/; such a run unlocks nothing",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[BEFORE] = os.environ.get(compose.VARIABLE)
    choose_sources(config)
    keep_katas_whole(config)
    for part in (Twins(), Reach(config), Gate(), RealData(config), Explain(), Measured(), Limits(config)):
        config.pluginmanager.register(part, f"dojo-{type(part).__name__.lower()}")
    if not hasattr(config, "workerinput"):  # under xdist, only the controller keeps records and speaks
        forget_bytecode()
        config.pluginmanager.register(Alike(), "dojo-alike")
        outcomes = Outcomes(config)
        config.pluginmanager.register(outcomes, "dojo-outcomes")
        config.pluginmanager.register(Panel(outcomes), "dojo-panel")


def pytest_unconfigure(config: pytest.Config) -> None:
    restore_environment(config.stash[BEFORE])


def pytest_report_header() -> str:
    composition = compose.current()
    if composition.ordinary:
        return f"tinytorch: yours; you are at {progress.load().frontier()}"
    return f"tinytorch: {composition}; nothing is recorded"


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    if unit_of(module_path) is None:
        return None
    if b"hypothesis" in module_path.read_bytes():
        take_time_to_draw()
    return KataModule.from_parent(parent, path=module_path)


@functools.cache
def take_time_to_draw() -> None:
    """Let hypothesis be slow in a kata's tests, as on a busy machine; their own `@settings` add to this.

    But when one fails, it need not run it 200 times more to explain it by lines that are not the student's.
    """
    from hypothesis import HealthCheck, Phase, settings

    now = settings()
    unhurried = {HealthCheck.too_slow, *now.suppress_health_check}
    phases = [phase for phase in now.phases if phase is not Phase.explain]
    settings.register_profile(
        "dojo", now, deadline=None, suppress_health_check=list(unhurried), phases=phases
    )
    settings.load_profile("dojo")


@pytest.fixture(autouse=True, scope="module")
def only_new_objects_are_collected(request: pytest.FixtureRequest) -> None:
    """Spare collections during a kata's tests, also a student's own, the 100,000 objects of pytest itself."""
    if unit_of(request.path) is None:
        return
    if level_of(request.path) >= MEASURED_FROM:  # below, it would only delay the first result
        gc.collect()
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers for every test, in every run."""
    import numpy as np

    return np.random.default_rng(SEED)


@pytest.fixture
def check_gradient() -> Any:
    """`check_gradient(op, *arrays, **params)`: the op's rule against central differences."""
    from dojo.measuring.gradients import check_gradient

    return check_gradient
