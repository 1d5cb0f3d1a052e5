"""Which katas a run is about: those named, or those reached; and where tinytorch comes from."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from pathlib import Path

import pytest

from dojo import compose, progress
from dojo.compose import Composition
from dojo.curriculum import BY_NUMBER, KATAS, UNITS, Kata, Unit
from dojo.plugin.units import order_of, place_of, unit_of

TASK_NUMBER = re.compile(r"(?<![\w.-])(\d\d\.\d+)(?![\w.-])")


def named_units(config: pytest.Config) -> list[Unit]:
    """The katas and milestones that the command line names, by path or node id."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return []
    paths = (config.invocation_params.dir / arg.partition("::")[0] for arg in config.args)
    return [unit for path in paths if (unit := unit_of(path))]


def choose_sources(config: pytest.Config) -> None:
    """Follow --impl, --borrow and TINYTORCH_IMPL.

    Raises:
        pytest.UsageError: they contradict each other or name what does not exist.
    """
    spec, borrow, named = config.getoption("impl"), config.getoption("borrow"), named_units(config)
    if spec and borrow:
        raise pytest.UsageError("--impl and --borrow both choose sources; use one of them")
    if borrow and not named:
        raise pytest.UsageError("--borrow needs to know the kata: pytest katas/03_layers --borrow")
    try:
        if borrow:
            katas = [unit for unit in named if isinstance(unit, Kata)]
            compose.choose(Composition.borrowing(katas) if katas else Composition("reference"))
        elif spec:
            compose.choose(Composition.parse(spec))
        else:
            compose.current()
    except (ValueError, RuntimeError) as error:
        raise pytest.UsageError(str(error)) from error


def forget_bytecode() -> None:
    """Have stubs compiled anew: Python tells bytecode from its source by size and second only.

    Of two saves within one second that leave the file as long as it was, the first would be run for ever.
    """
    for kata in KATAS:
        with contextlib.suppress(OSError):
            Path(importlib.util.cache_from_source(str(kata.stub))).unlink(missing_ok=True)


def is_locked(unit: Unit) -> bool:
    composition = compose.current()
    if isinstance(unit, Kata):
        return composition.locks(unit)
    # A milestone runs on everything up to `after`, and is open when that has passed.
    return composition.default == "stubs" and unit.after not in progress.load().passed


class Reach:
    """Collects what is reached, and refuses what is not."""

    def __init__(self, config: pytest.Config) -> None:
        named = named_units(config)
        # The author of a new suite runs it on the reference before it is sealed.
        drafts = named if compose.current().default == "reference" else []
        self.closed = {unit for unit in UNITS if not unit.written or is_locked(unit)}.difference(drafts)
        for unit in named:
            if not unit.written and unit not in drafts:
                raise pytest.UsageError(f"{unit.shown} is not written yet. {_elsewhere()}")
            if unit in self.closed:
                raise pytest.UsageError(_refusal(unit))

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        unit = unit_of(collection_path)
        return True if unit in self.closed else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Run katas in the course's order and their levels in theirs, a kata in one process."""
        places = {item: place_of(item) for item in items}
        if config.pluginmanager.hasplugin("xdist"):
            for item, place in places.items():
                if place:
                    item.add_marker(pytest.mark.xdist_group(place.unit.folder))

        if config.getoption("keyword"):
            name_tasks(config, items)

        def key(item: pytest.Item) -> tuple[tuple[str, int], int]:
            place = places[item]
            return (order_of(place.unit), place.level) if place else (("", 0), 0)

        items.sort(key=key)


def name_tasks(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let `-k 01.1` and `-k find_mismatch` choose the tests of a task.

    pytest looks for parts of words, and so would take 01.10 for 01.1; hence the frame around a number.
    """
    from dojo.plugin.about import tasks_of

    config.option.keyword = TASK_NUMBER.sub(r"task-\1-", config.option.keyword)
    for item in items:
        for task in tasks_of(item, unit_of(item.path)):
            item.extra_keyword_matches.update([f"task-{task.number}-", task.name])


def keep_katas_whole(config: pytest.Config) -> None:
    """Under xdist, keep a kata's levels on one worker, where they can wait for each other."""
    if getattr(config.option, "numprocesses", None) and config.option.dist in ("no", "load"):
        config.option.dist = "loadgroup"
        config.option.maxworkerrestart = "0"


def _refusal(unit: Unit) -> str:
    borrow = f"To look ahead with the earlier katas borrowed from reference/: {unit.command} --borrow"
    return "\n".join(filter(None, [compose.locked_message(unit.shown), borrow, progress.load().trouble]))


def _elsewhere() -> str:
    written = [kata for kata in KATAS if kata.written]
    here = progress.load().frontier()
    where = here if here.written else (written[-1] if written else BY_NUMBER["01"])
    return (
        f"The course has katas {', '.join(k.number for k in written) or 'none'} so far. Next: {where.command}"
    )


def restore_environment(before: str | None) -> None:
    """Undo what `choose_sources` put into the environment."""
    if before is None:
        os.environ.pop(compose.VARIABLE, None)
    else:
        os.environ[compose.VARIABLE] = before
