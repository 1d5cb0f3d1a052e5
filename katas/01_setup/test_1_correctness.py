"""Level 1: each tool gives the right answer, on examples that were worked out by hand."""

import functools
import gc
import importlib.metadata
import io
import math
import re
import sys
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from rich.console import Console

from dojo.expect import expect, expect_error
from tinytorch.setup import (
    Check,
    Mismatch,
    assert_close,
    best_time,
    check_python,
    check_requirement,
    environment_report,
    find_mismatch,
    gc_paused,
    in_virtual_env,
    memory_of,
    numerical_gradient,
    progress_bar,
    run_tests,
    scaling_exponent,
    table,
    track,
)

MIB = 1 << 20
NOISE = 64 << 10  # bytes that Python itself may need for its own small objects


class Clock:
    """A clock that moves only when somebody spends time."""

    def __init__(self):
        self.now, self.reads = 1000.0, 0

    def __call__(self):
        self.reads += 1
        return self.now

    def spend(self, seconds):
        self.now += seconds


class Terminal(io.StringIO):
    """What somebody at a terminal has seen: what was flushed, line by line."""

    flushed = ""

    def __repr__(self):
        waiting = self.getvalue()[len(self.flushed) :].count("\r")
        lost = f"{waiting} lines written but not flushed, and " if waiting else ""
        return f"a screen with {lost}the lines {self.lines}"

    def flush(self):
        self.flushed = self.getvalue()

    @property
    def lines(self):
        return self.flushed.split("\r")[1:]

    @property
    def last(self):
        return self.lines[-1] if self.lines else ""

    @property
    def counts(self):
        """How many were done, in each line."""
        return [int(done) for done in re.findall(r"(\d+)/\d+", self.flushed)]

    @property
    def rates(self):
        """The last word of each line."""
        return [word for line in self.lines for word in line.split()[-1:]]

    @property
    def screen(self):
        """What there is to read after each line: the line, and what it does not cover of the one before."""
        screen = [""]
        for line in self.flushed.replace("\n", "").split("\r")[1:]:
            screen.append(line + screen[-1][len(line) :])
        return [text.rstrip() for text in screen[1:]]


def printed(renderable):
    file = io.StringIO()
    Console(file=file, width=120, color_system=None).print(renderable)
    return file.getvalue()


def expect_line(text, *words):
    """Fail unless some line of `text` has all the words, from left to right."""
    __tracebackhide__ = True
    if not re.search(".*".join(map(re.escape, words)), text):
        raise AssertionError(f"no line shows {' and then '.join(map(repr, words))}:\n\n{text}")


def expect_bytes(what, found, expected):
    """Fail unless `found` is what was `expected`, give or take 64 KiB."""
    __tracebackhide__ = True
    if not expected - NOISE < found < expected + NOISE:
        raise AssertionError(
            f"{what} came back as {found:,} bytes\n"
            f"expected about {expected:,}: what the function itself takes, and little else"
        )


def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.fixture(autouse=True)
def collector_and_tracer_as_they_were():
    """What one test leaves switched, the next should not find."""
    yield
    gc.enable()
    tracemalloc.stop()


# 01.1 in_virtual_env


def test_a_python_apart_from_its_base_is_a_virtual_environment():
    expect(in_virtual_env("/home/ada/course/.venv", "/usr"), True)
    expect(in_virtual_env("/home/ada/tools/torch", "/usr"), True)
    expect(in_virtual_env("/opt/python/envs/course", "/opt/python"), True)  # inside its base


def test_a_python_in_its_base_is_no_virtual_environment():
    usr = "/us"
    expect(in_virtual_env(usr + "r", "/usr"), False)
    expect(in_virtual_env("/opt/venv", "/opt/venv"), False)


def test_without_arguments_this_very_python_is_judged(monkeypatch):
    monkeypatch.setattr(sys, "base_prefix", "/opt/python")
    monkeypatch.setattr(sys, "prefix", "/opt/python")
    expect(in_virtual_env(), False)
    monkeypatch.setattr(sys, "prefix", "/home/ada/.venv")
    expect(in_virtual_env(), True)


# 01.2 check_python


def test_a_recent_python_will_do():
    expect(check_python((3, 10), (3, 11, 4)), Check("python", True, "3.11.4", ">=3.10"))


def test_python_3_9_is_older_than_3_10():
    expect(check_python((3, 10), (3, 9, 18)), Check("python", False, "3.9.18", ">=3.10"))


def test_exactly_the_minimum_will_do():
    expect(check_python((3, 12, 1), (3, 12, 1)), Check("python", True, "3.12.1", ">=3.12.1"))


@pytest.mark.parametrize(("minimum", "version"), [((3, 10), (3, 9)), ((3, 10), (3,)), ((4,), (3, 11, 4))])
def test_versions_may_have_any_number_of_parts(minimum, version):
    found, wanted = ".".join(map(str, version)), ".".join(map(str, minimum))
    expect(check_python(minimum, version), Check("python", False, found, f">={wanted}"))


def test_a_new_major_version_is_newer_whatever_its_minor():
    expect(check_python((3, 10), (4, 0, 0)), Check("python", True, "4.0.0", ">=3.10"))


def test_without_arguments_the_running_python_must_be_3_10():
    found = "{}.{}.{}".format(*sys.version_info)
    expect(check_python(), Check("python", True, found, ">=3.10"))


# 01.3 check_requirement


def test_an_installed_version_that_is_new_enough_will_do():
    expect(check_requirement("numpy>=1.26", lambda name: "2.1.0"), Check("numpy", True, "2.1.0", ">=1.26"))


def test_an_installed_version_that_is_too_old_will_not_do():
    expect(check_requirement("numpy>=1.26", lambda name: "1.24.4"), Check("numpy", False, "1.24.4", ">=1.26"))


def test_versions_compare_as_numbers_not_as_text():
    expect(check_requirement("rich>=9.2", lambda name: "13.7.1").ok, True)
    expect(check_requirement("rich>=13.10", lambda name: "13.9").ok, False)


def test_every_part_of_a_specifier_counts():
    expect(check_requirement("numpy>=1.26,<3,!=2.0.1", lambda name: "2.0.0").ok, True)
    expect(check_requirement("numpy>=1.26,<3,!=2.0.1", lambda name: "2.0.1").ok, False)
    expect(check_requirement("numpy>=1.26,<3,!=2.0.1", lambda name: "3.0").ok, False)


@pytest.mark.parametrize(
    ("requirement", "found", "ok"),
    [
        ("rich~=13.7", "13.9", True),
        ("rich~=13.7", "14.0", False),
        ("rich==13.7.1", "13.7.1", True),
        ("rich==13.7.1", "13.7.2", False),
    ],
)
def test_a_specifier_may_be_of_any_kind(requirement, found, ok):
    expect(check_requirement(requirement, lambda name: found).ok, ok)


def test_what_is_installed_is_looked_up_every_time():
    versions = ["2.0", "1.0"]
    installed = lambda name: versions.pop()  # noqa: E731
    expect([check_requirement("rich>=2", installed).ok for _ in range(2)], [False, True])


def test_a_package_that_is_not_there_is_missing():
    expect(check_requirement("torch>=2", missing), Check("torch", False, "missing", ">=2"))


def test_a_bare_name_asks_for_any_version():
    expect(check_requirement("rich", lambda name: "0.1"), Check("rich", True, "0.1", "any version"))


@pytest.mark.parametrize("version", ["2.0.0rc1", "2.0.0b2", "2.0.0a1", "2.0.0.dev3"])
def test_an_installed_pre_release_is_compared_like_any_version(version):
    expect(check_requirement("numpy>=1.26", lambda name: version).ok, True)
    expect(check_requirement("numpy>=2.0", lambda name: version).ok, False)


def test_an_extra_is_not_part_of_the_name():
    asked = []
    check = check_requirement("coverage[toml]>=7.4", lambda name: asked.append(name) or "7.6")
    expect(check, Check("coverage", True, "7.6", ">=7.4"))
    expect(asked, ["coverage"])


def test_a_requirement_for_other_pythons_is_not_needed():
    for installed in (missing, lambda name: "1.0"):
        check = check_requirement('tomli>=2; python_version < "3"', installed)
        expect(check, Check("tomli", True, "not needed", ">=2"))


def test_a_requirement_for_other_systems_is_not_needed():
    check = check_requirement('tomli>=2; sys_platform == "no-such-system"', missing)
    expect(check.found, "not needed")


def test_a_requirement_for_this_python_is_needed():
    check = check_requirement('tomli>=2; python_version >= "3"', missing)
    expect(check, Check("tomli", False, "missing", ">=2"))


def test_a_line_that_is_no_requirement_is_an_error_that_shows_it():
    with expect_error(ValueError, "numpy=>1.26"):
        check_requirement("numpy=>1.26", lambda name: "2.1.0")


def test_by_default_it_asks_what_is_installed_here():
    for name in ("packaging", "pytest-timeout"):  # the module of the second is called pytest_timeout
        expect(check_requirement(f"{name}>=1").found, importlib.metadata.version(name))
    expect(check_requirement("there-is-no-such-package-as-this").found, "missing")


# 01.4 table


def test_a_table_has_a_title_and_a_line_for_each_row():
    text = printed(table("course", [{"kata": "01 setup", "tasks": 14}, {"kata": "02 tensor", "tasks": 18}]))
    expect_line(text, "course")
    expect_line(text, "kata", "tasks")
    expect_line(text, "01 setup", "14")
    expect_line(text, "02 tensor", "18")
    expect(re.findall("01 setup|02 tensor", text), ["01 setup", "02 tensor"])


def test_a_row_may_have_its_keys_in_another_order():
    text = printed(table("course", [{"kata": "01", "tasks": 14}, {"tasks": 18, "kata": "02"}]))
    expect_line(text, "02", "18")


def test_a_table_says_ok_and_fail_in_words():
    text = printed(table("tests", [{"name": "addition", "good": True}, {"name": "division", "good": False}]))
    expect_line(text, "addition", "ok")
    expect_line(text, "division", "FAIL")
    expect(re.findall("True|False", text), [])


def test_the_numbers_one_and_zero_stay_numbers():
    text = printed(table("counts", [{"name": "ones", "count": 1}, {"name": "noughts", "count": 0}]))
    expect_line(text, "ones", "1")
    expect_line(text, "noughts", "0")


def test_a_float_has_four_significant_digits():
    text = printed(table("losses", [{"loss": 2.302585, "step": 123456}, {"loss": 0.1 + 0.2, "step": 7}]))
    expect_line(text, "2.303", "123456")
    expect_line(text, "0.3", "7")
    expect(re.findall(r"\d\.\d+", text), ["2.303", "0.3"])


def test_large_and_small_floats_have_four_significant_digits_too():
    row = {"rate": 1.25e-05, "count": 123456.789, "zero": 0.0, "loss": np.float64(2.302585)}
    text = printed(table("losses", [dict.fromkeys(row, 1), row]))
    expect_line(text, "1.25e-05", "1.235e+05", "0", "2.303 ")


def test_anything_else_is_shown_by_its_str():
    expect_line(printed(table("", [{"nothing": None, "shape": (2, 3)}])), "None", "(2, 3)")


def test_square_brackets_and_colons_are_text_like_any_other():
    text = printed(table("[draft] :x:", [{"time [s]": "[bold]x[/bold]", ":o:": "coverage[toml] :x:"}]))
    expect_line(text, "[draft] :x:")
    expect_line(text, "time [s]", ":o:")
    expect_line(text, "[bold]x[/bold]", "coverage[toml] :x:")


def test_a_table_without_rows_is_still_a_table():
    expect(len(table("nothing yet", []).columns), 0)


def test_a_row_without_a_column_is_an_error_that_names_it():
    with expect_error(ValueError, "accuracy"):
        table("scores", [{"step": 1, "accuracy": 0.5}, {"step": 2}])


def test_a_row_with_another_column_is_an_error_that_names_it():
    with expect_error(ValueError, "accuracy"):
        table("losses", [{"step": 1}, {"step": 2, "accuracy": 0.5}])


def test_every_row_is_looked_at():
    with expect_error(ValueError, "accuracy"):
        table("scores", [{"step": 1}, {"step": 2}, {"step": 3}, {"step": 4, "accuracy": 0.5}])


def test_a_misspelt_column_is_an_error_that_names_it_both_ways():
    with expect_error(ValueError, "accuracy", "acuracy"):
        table("scores", [{"step": 1, "accuracy": 0.5}, {"step": 2, "acuracy": 0.75}])


def test_the_rows_of_a_table_are_left_alone():
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    table("losses", rows)
    expect(rows, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])


def test_the_environment_report_names_what_is_missing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    file = io.StringIO()
    expect(environment_report(["packaging>=1", "there-is-no-such-package>=2"], file), False)
    expect_line(file.getvalue(), "python", "ok")
    expect_line(file.getvalue(), "packaging", "ok")
    expect_line(file.getvalue(), "there-is-no-such-package", "FAIL", "missing", ">=2")


def test_the_environment_report_is_true_when_nothing_is_missing():
    expect(environment_report(["packaging>=1"], io.StringIO()), True)


# 01.5 progress_bar


@pytest.mark.parametrize(
    ("done", "total", "bar"),
    [(0, 4, "........"), (1, 4, "##......"), (3, 4, "######.."), (4, 4, "########"), (1, 3, "##......")],
)
def test_a_bar_is_filled_by_the_share_that_is_done(done, total, bar):
    expect(progress_bar(done, total, 8), bar)


def test_a_bar_is_20_wide_by_default():
    expect(progress_bar(11, 14), "###############.....")


def test_a_bar_is_full_only_when_everything_is_done():
    expect(progress_bar(199, 200), "###################.")
    expect(progress_bar(10**18 - 1, 10**18, 4), "###.")
    expect(progress_bar(5 * 10**17 - 1, 10**18, 4), "#...")


def test_a_bar_of_one_character_waits_for_the_end():
    expect(progress_bar(2, 3, 1), ".")
    expect(progress_bar(3, 3, 1), "#")


def test_29_of_100_fill_29_of_100_characters():
    expect(progress_bar(29, 100, 100).count("#"), 29)  # 29 / 100 * 100 is 28.999999999999996


def test_more_than_everything_is_a_full_bar():
    expect(progress_bar(7, 4, 8), "########")


def test_when_there_is_nothing_to_do_all_of_it_is_done():
    expect(progress_bar(0, 0, 8), "########")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("done", (-1, 4, 8)),
        ("done", (-1, 0, 8)),
        ("total", (0, -4, 8)),
        ("width", (1, 4, 0)),
        ("width", (1, 4, -2)),
        ("width", (0, 0, 0)),
    ],
)
def test_a_bar_of_impossible_numbers_is_an_error_that_says_which(name, numbers):
    with expect_error(ValueError, name, str(min(numbers))):
        progress_bar(*numbers)


# 01.6 track


def test_every_line_is_flushed():
    terminal, clock = Terminal(), Clock()
    for _ in track("abc", file=terminal, clock=clock, every=0):
        expect(terminal.flushed, terminal.getvalue())
    expect(terminal.flushed, terminal.getvalue())


def test_tracking_yields_every_item_in_order():
    expect(list(track("kata", file=Terminal())), ["k", "a", "t", "a"])
    expect(list(track((n * n for n in range(4)), file=Terminal())), [0, 1, 4, 9])


class Loader:
    """Like a loader of batches: it has a length and can be gone through, and it is no list."""

    def __init__(self):
        self.taken = []

    def __len__(self):
        return 3

    def __iter__(self):
        for n in range(3):
            self.taken.append(n)
            yield n


@pytest.mark.parametrize("items", [lambda loader: loader, iter], ids=["with a length", "without"])
def test_tracking_takes_an_item_only_when_it_is_asked_for_one(items):
    loader = Loader()
    tracked = track(items(loader), file=Terminal())
    expect(loader.taken, [])
    next(tracked)
    expect(loader.taken, [0])


@pytest.mark.parametrize(
    "items", [{1, 2, 3}, {1: 2, 3: 4, 5: 6}, np.zeros(3), Loader()], ids=["set", "dict", "array", "loader"]
)
def test_the_total_is_the_length_of_whatever_has_one(items):
    terminal = Terminal()
    list(track(items, file=terminal))
    expect_line(terminal.last, "3/3")


def test_the_last_line_says_that_all_are_done():
    terminal = Terminal()
    for _ in track(range(4), "images", file=terminal):
        pass
    expect_line(terminal.last, "images", "[####################]", "4/4", "/s")
    expect(terminal.last[-1:], "\n")


def test_every_line_says_how_many_of_how_many_are_done():
    terminal, clock = Terminal(), Clock()
    seen = []
    for _ in track("abcd", "letters", file=terminal, clock=clock, every=0):
        seen.append(terminal.last)
    expect(seen[0], "")
    for done, line in enumerate(seen[1:], 1):
        expect_line(line, "letters", f"[{progress_bar(done, 4)}]", f"{done}/4")
    expect([line.endswith("\n") for line in terminal.lines], [False] * (len(terminal.lines) - 1) + [True])


def test_the_rate_is_the_number_done_in_a_second():
    terminal, clock = Terminal(), Clock()
    for _ in track(range(8), file=terminal, clock=clock):
        clock.spend(0.4)
    expect(terminal.rates, ["2.5/s"] * 9)


def test_the_rate_is_nought_while_no_time_has_passed():
    terminal = Terminal()
    list(track(range(8), file=terminal, clock=Clock()))
    expect(terminal.rates, ["0.0/s"])


def test_the_rate_is_that_of_the_whole_time_since_the_first_item_was_asked_for():
    def items(clock):
        clock.spend(0.5)  # the first item takes its time
        yield from [0.5, 0.25, 0.75]

    terminal, clock = Terminal(), Clock()
    for seconds in track(items(clock), file=terminal, clock=clock):
        clock.spend(seconds)
    expect(terminal.rates, ["1.0/s", "1.6/s", "1.5/s", "1.5/s"])


def test_the_rate_of_a_short_time_is_a_rate_as_well():
    terminal, clock = Terminal(), Clock()
    for _ in track(range(8), file=terminal, clock=clock):
        clock.spend(2**-16)
    expect(terminal.rates, ["65536.0/s"])


@pytest.mark.parametrize(
    "durations",
    [(2**-10, 2.0, 2.0), (2**-10, 2**-10, 256.0), (2**-22, 2.0, 2.0)],
    ids=["then", "last", "fast"],
)
def test_a_line_covers_all_of_a_longer_one_before_it(durations):
    terminal, clock = Terminal(), Clock()
    for number, seconds in enumerate(track(durations, file=terminal, clock=clock, every=0), 1):
        clock.spend(seconds)
        if number == 3:
            break
    expect(terminal.screen, [line.rstrip() for line in terminal.lines])


def test_a_line_comes_with_the_first_item_that_is_done_late_enough():
    terminal, clock = Terminal(), Clock()
    for seconds in track([0.25, 0.25, 2.0, 0.25, 0.5, 0.25, 0.25], file=terminal, clock=clock, every=0.5):
        clock.spend(seconds)
    expect(terminal.counts, [2, 3, 5, 7, 7])


def test_by_default_a_line_comes_every_tenth_of_a_second():
    terminal, clock = Terminal(), Clock()
    for _ in track(range(32), file=terminal, clock=clock):
        clock.spend(1 / 64)
    expect(terminal.counts, [7, 14, 21, 28, 32])  # 7/64 is the first multiple of 1/64 above 0.1


def test_items_without_a_length_are_counted_without_a_bar():
    terminal = Terminal()
    list(track(iter("abcde"), "letters", file=terminal, clock=Clock()))
    expect(terminal.last.split(), ["letters", "5", "0.0/s"])


def test_a_total_can_be_told():
    terminal = Terminal()
    list(track(iter("abcde"), total=10, file=terminal))
    expect_line(terminal.last, "[##########..........]", "5/10")


def test_a_total_that_is_told_counts_more_than_the_length():
    terminal = Terminal()
    list(track("abcde", total=10, file=terminal))
    expect_line(terminal.last, "5/10")
    terminal = Terminal()
    list(track("abcde", total=0, file=terminal))
    expect_line(terminal.last, "[####################]", "5/0")


def test_tracking_nothing_is_done_at_once():
    terminal = Terminal()
    expect(list(track([], file=terminal)), [])
    expect_line(terminal.last, "0/0")


def test_a_loop_that_is_left_early_says_how_far_it_came():
    terminal = Terminal()
    for n in track(range(4), file=terminal):
        if n == 1:
            break
    gc.collect()
    expect_line(terminal.last, "1/4")  # the second item was still being worked on
    expect(terminal.last[-1:], "\n")


def test_a_loop_that_is_left_at_the_first_item_has_done_nothing():
    terminal, clock = Terminal(), Clock()
    for _ in track(range(4), file=terminal, clock=clock):
        clock.spend(2.0)
        break
    expect(terminal.last.split()[-2:], ["0/4", "0.0/s"])


def test_an_error_while_an_item_is_made_passes_through_after_the_last_line():
    def items():
        yield 1
        raise OSError("disk on fire")

    terminal = Terminal()
    with expect_error(OSError, "disk on fire"):
        list(track(items(), file=terminal))
    expect(terminal.last.split()[:1], ["1"])


def test_progress_goes_to_stderr_so_that_output_stays_clean(capsys):
    list(track(range(3)))
    out, err = capsys.readouterr()
    expect(out, "")
    expect_line(err, "3/3")


# 01.7 gc_paused


def test_the_collector_rests_inside_and_works_again_afterwards():
    with gc_paused():
        expect(gc.isenabled(), False)
    expect(gc.isenabled(), True)


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with gc_paused():
        expect(gc.isenabled(), False)
    expect(gc.isenabled(), False)


def test_whatever_the_block_switches_the_collector_is_put_back():
    with gc_paused():
        gc.enable()
        gc.disable()
    expect(gc.isenabled(), True)
    gc.disable()
    with gc_paused():
        gc.enable()
    expect(gc.isenabled(), False)


def test_the_collector_works_again_after_an_error_which_passes_through():
    with expect_error(KeyError, "lost"), gc_paused():
        raise KeyError("lost")
    expect(gc.isenabled(), True)


def test_the_collector_works_again_after_ctrl_c():
    try:
        with gc_paused():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    expect(gc.isenabled(), True)


def test_pauses_can_be_nested():
    with gc_paused():
        with gc_paused():
            pass
        expect(gc.isenabled(), False)
        gc.enable()
        with gc_paused():
            expect(gc.isenabled(), False)
        expect(gc.isenabled(), True)
    expect(gc.isenabled(), True)


# 01.8 best_time


def spending(clock, *seconds):
    """A function whose calls take these seconds, one after the other."""
    durations = iter(seconds)
    return lambda: clock.spend(next(durations))


def test_the_best_of_the_runs_counts():
    clock = Clock()
    expect(best_time(spending(clock, 9, 5, 3, 4), repeats=3, clock=clock), 3.0)


def test_a_run_that_took_no_time_is_a_run_too():
    clock = Clock()
    expect(best_time(spending(clock, 9, 0, 3), repeats=2, clock=clock), 0.0)


def test_the_call_that_goes_ahead_does_not_count():
    clock = Clock()
    expect(best_time(spending(clock, 1, 5, 3, 4), repeats=3, clock=clock), 3.0)


def test_a_run_of_several_calls_gives_the_time_of_one():
    clock = Clock()
    expect(best_time(spending(clock, 9, 1, 3, 2, 4), repeats=2, calls=2, clock=clock), 2.0)


def test_by_default_one_call_goes_ahead_and_five_runs_of_one_call_follow():
    clock, left = Clock(), [9, 9, 9, 2, 7, 7, 7, 7, 1]
    expect(best_time(lambda: clock.spend(left.pop()), clock=clock), 2.0)
    expect(left, [9, 9, 9])


def test_the_clock_is_read_at_both_ends_of_a_run_and_not_in_between():
    clock = Clock()
    expect(best_time(lambda: None, repeats=3, calls=100, clock=clock), 0.0)
    expect(clock.reads, 6)


def test_the_collector_rests_while_the_clock_runs():
    seen = []
    best_time(lambda: seen.append(gc.isenabled()), repeats=2)
    expect(seen[1:], [False, False])
    expect(gc.isenabled(), True)


def test_the_collector_works_again_when_the_function_raises():
    calls = []

    def second_call_fails():
        calls.append(1)
        return 1 / (2 - len(calls))

    with expect_error(ZeroDivisionError):
        best_time(second_call_fails)
    expect(gc.isenabled(), True)


@pytest.mark.parametrize("name", ["repeats", "calls"])
@pytest.mark.parametrize("value", [0, -3])
def test_no_runs_or_no_calls_is_an_error_that_says_so(name, value):
    with expect_error(ValueError, name, str(value)):
        best_time(lambda: None, **{name: value})


def test_by_default_real_seconds_are_measured():
    start = time.perf_counter()
    best = best_time(lambda: sum(range(1000)), repeats=3, calls=100)
    whole = time.perf_counter() - start
    assert 0 < 3 * 100 * best <= whole  # no run was shorter than the best one


# 01.9 memory_of


def test_the_peak_includes_the_result_and_the_result_is_kept():
    memory = memory_of(lambda: bytearray(MIB))
    expect_bytes("the peak", memory.peak, MIB)
    expect_bytes("what is kept", memory.kept, MIB)


def test_numpy_arrays_count_too():
    expect_bytes("what is kept", memory_of(lambda: np.ones(MIB // 8)).kept, MIB)


def test_what_is_dropped_on_the_way_counts_for_the_peak_alone():
    memory = memory_of(lambda: len(bytearray(MIB)))
    expect_bytes("the peak", memory.peak, MIB)
    expect_bytes("what is kept", memory.kept, 0)


def test_the_peak_is_the_worst_moment_not_the_sum():
    def one_after_the_other():
        for _ in range(4):
            len(bytearray(MIB))

    expect_bytes("the peak", memory_of(one_after_the_other).peak, MIB)


def test_one_call_goes_ahead_so_that_caches_are_warm():
    cache = []
    memory = memory_of(lambda: cache or cache.append(bytearray(MIB)))
    expect_bytes("the peak of a call that finds its cache filled", memory.peak, 0)
    calls = []
    function = lambda: calls.append(1)  # noqa: E731
    memory_of(function)
    expect(len(calls), 2)
    memory_of(function)
    expect(len(calls), 4)


def cycle():
    """A MiB that only the garbage collector can free."""
    loop = [bytearray(MIB)]
    loop.append(loop)


def test_garbage_in_a_cycle_is_not_kept():
    memory = memory_of(cycle)
    expect_bytes("the peak", memory.peak, MIB)
    expect_bytes("what is kept", memory.kept, 0)


def test_the_collector_rests_during_the_call():
    seen = []
    memory_of(lambda: seen.append(gc.isenabled()))
    expect(seen[1], False)
    expect(gc.isenabled(), True)


def test_garbage_from_before_is_not_credited():
    gc.disable()
    tracemalloc.start()
    cycle()
    gc.enable()
    expect_bytes("what is kept", memory_of(lambda: bytearray(MIB)).kept, MIB)


def test_what_was_there_before_does_not_count():
    tracemalloc.start()
    before = bytearray(4 * MIB)
    memory = memory_of(lambda: bytearray(MIB))
    expect_bytes("the peak", memory.peak, MIB)
    expect_bytes("what is kept", memory.kept, MIB)
    expect(len(before), 4 * MIB)


def test_an_earlier_peak_does_not_count():
    tracemalloc.start()
    len(bytearray(4 * MIB))
    expect_bytes("the peak", memory_of(lambda: bytearray(MIB)).peak, MIB)


def test_tracing_stays_as_it_was():
    memory_of(lambda: None)
    expect(tracemalloc.is_tracing(), False)
    tracemalloc.start()
    memory_of(lambda: None)
    expect(tracemalloc.is_tracing(), True)


@pytest.mark.parametrize("traced", [False, True])
def test_tracing_and_the_collector_stay_as_they_were_when_the_function_raises(traced):
    calls = []

    def second_call_fails():
        calls.append(1)
        return 1 / (2 - len(calls))

    if traced:
        tracemalloc.start()
    with expect_error(ZeroDivisionError):
        memory_of(second_call_fails)
    expect(tracemalloc.is_tracing(), traced)
    expect(gc.isenabled(), True)


@pytest.mark.parametrize("tool", [best_time, memory_of])
def test_a_meter_leaves_a_collector_that_was_off_as_it_was(tool):
    gc.disable()
    tool(lambda: None)
    expect(gc.isenabled(), False)


@pytest.mark.parametrize("tool", [best_time, memory_of])
def test_a_meter_leaves_all_as_it_was_when_the_first_call_raises(tool):
    def fails():
        raise OSError("disk on fire")

    with expect_error(OSError, "disk on fire"):
        tool(fails)
    expect((gc.isenabled(), tracemalloc.is_tracing()), (True, False))


def test_what_somebody_else_has_traced_stays_traced():
    tracemalloc.start()
    held = bytearray(MIB)
    memory_of(lambda: None)
    assert tracemalloc.get_object_traceback(held) is not None, "the traces from before the call are gone"
    expect(len(held), MIB)


def test_the_peak_is_that_of_the_call_and_not_of_the_collection_after_it():
    class Loud:
        """A cycle that takes 4 MiB when it is collected."""

        def __init__(self):
            self.me = self

        def __del__(self):
            len(bytearray(4 * MIB))

    expect_bytes("the peak", memory_of(lambda: Loud() and None).peak, 0)


def test_what_the_result_holds_is_kept_and_so_is_what_the_call_leaves_elsewhere():
    expect_bytes("what is kept", memory_of(lambda: [bytearray(MIB) for _ in range(3)]).kept, 3 * MIB)
    left = []
    expect_bytes("what is kept", memory_of(lambda: left.append(bytearray(MIB))).kept, MIB)


# 01.10 find_mismatch


def test_close_arrays_have_no_mismatch():
    expect(find_mismatch([1.0, 2.0, 3.0], [1.0, 2.000001, 3.0]), None)


def test_the_worst_element_is_found_and_the_wrong_ones_are_counted():
    got = np.array([[1.0, 2.0, 3.5], [4.0, 5.0, 6.0]])
    expected = np.array([[1.0, 2.0, 7.25], [4.0, 5.5, 6.0]])
    expect(find_mismatch(got, expected), Mismatch((0, 2), 3.5, 7.25, 2, 6))


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_a_mismatch_is_made_of_plain_ints_and_floats(dtype):
    mismatch = find_mismatch(np.zeros((2, 2), dtype), np.eye(2, dtype=dtype))
    expect(repr(mismatch), "Mismatch(index=(0, 0), got=0.0, expected=1.0, count=2, total=4)")


def test_farthest_means_the_largest_difference_on_either_side():
    expect(find_mismatch([1.0, 2.0], [3.0, -1.0]).index, (1,))
    expect(find_mismatch([1.0, -2.0], [3.0, 1.0]).index, (1,))


def test_a_larger_difference_that_is_allowed_is_not_the_worst():
    expect(find_mismatch([1_000_001.0, 1.5], [1_000_000.0, 1.0]), Mismatch((1,), 1.5, 1.0, 1, 2))


def test_of_equally_bad_elements_the_first_counts():
    expect(find_mismatch([5.0, 1.0, 1.0], [5.0, 2.0, 0.0]).index, (1,))


def test_the_tolerance_is_relative_to_what_was_expected():
    expect(find_mismatch([90.0], [100.0], rtol=0.1, atol=0.0), None)  # |90 - 100| <= 0.1 * 100
    expect(find_mismatch([100.0], [90.0], rtol=0.1, atol=0.0), Mismatch((0,), 100.0, 90.0, 1, 1))
    expect(find_mismatch([-90.0], [-100.0], rtol=0.1, atol=0.0), None)


def test_the_absolute_and_the_relative_tolerance_add_up():
    expect(find_mismatch([14.0], [10.0], rtol=0.25, atol=1.5), None)  # 4 <= 1.5 + 2.5
    expect(find_mismatch([14.5], [10.0], rtol=0.25, atol=1.5).got, 14.5)


def test_the_default_tolerances_are_one_in_a_hundred_thousand_and_1e_8():
    expect(find_mismatch([1.000009, 0.9e-8], [1.0, 0.0]), None)
    expect(find_mismatch([1.000012, 0.0], [1.0, 0.0]).index, (0,))
    expect(find_mismatch([1.0, 1.2e-8], [1.0, 0.0]).index, (1,))


def test_nan_is_close_to_nan_alone():
    expect(find_mismatch([math.nan, 1.0], [math.nan, 1.0]), None)
    expect(find_mismatch([math.nan, 2.0], [0.0, 1.0]).index, (0,))
    expect(find_mismatch([2.0, 0.0], [1.0, math.nan]).index, (1,))


def test_infinity_is_close_to_the_same_infinity_alone():
    expect(find_mismatch([math.inf, -math.inf], [math.inf, -math.inf]), None)
    expect(find_mismatch([math.inf], [-math.inf]), Mismatch((0,), math.inf, -math.inf, 1, 1))
    expect(find_mismatch([1.0], [math.inf]), Mismatch((0,), 1.0, math.inf, 1, 1))
    expect(find_mismatch([-math.inf], [1.0]), Mismatch((0,), -math.inf, 1.0, 1, 1))


def test_infinity_is_not_close_to_a_number_even_where_the_tolerance_is_infinite():
    expect(find_mismatch([math.inf], [1.0], atol=math.inf), Mismatch((0,), math.inf, 1.0, 1, 1))
    expect(find_mismatch([math.inf], [1.0], rtol=math.inf), Mismatch((0,), math.inf, 1.0, 1, 1))
    expect(find_mismatch([math.inf], [1e308], rtol=10.0), Mismatch((0,), math.inf, 1e308, 1, 1))


def test_nan_and_infinity_are_farther_off_than_any_number():
    expect(find_mismatch([1e300, math.nan, 0.0], [0.0, 0.0, 0.0]).index, (1,))
    expect(find_mismatch([1e300, 0.0, 0.0], [0.0, 0.0, math.inf]).index, (2,))


def test_nan_is_close_enough_to_nan_even_beside_a_wrong_element():
    expect(
        find_mismatch([math.nan, math.inf, 1.0], [math.nan, math.inf, 2.0]), Mismatch((2,), 1.0, 2.0, 1, 3)
    )


def test_shapes_must_be_equal_even_where_numpy_would_broadcast():
    with expect_error(ValueError, "(3,)", "(3, 1)"):
        find_mismatch(np.zeros(3), np.zeros((3, 1)))
    with expect_error(ValueError, "()", "(1,)"):
        find_mismatch(0.0, [0.0])


def test_a_single_number_has_an_empty_index():
    expect(find_mismatch(2.5, 2.5), None)
    expect(find_mismatch(2.5, 3.0), Mismatch((), 2.5, 3.0, 1, 1))


def test_empty_arrays_are_close():
    expect(find_mismatch(np.zeros((0, 3)), np.zeros((0, 3))), None)


def test_small_unsigned_integers_do_not_wrap_around():
    got, expected = np.array([3, 250], np.uint8), np.array([5, 100], np.uint8)
    expect(find_mismatch(got, expected), Mismatch((1,), 250, 100, 2, 2))  # in uint8, 3 - 5 is 254
    got, expected = np.array([0], np.uint8), np.array([255], np.uint8)
    expect(find_mismatch(got, expected, atol=2.0), Mismatch((0,), 0, 255, 1, 1))  # and 0 - 255 is 1


def test_the_size_of_the_smallest_integer_does_not_wrap_around_either():
    got, expected = np.array([-100], np.int8), np.array([-128], np.int8)
    expect(find_mismatch(got, expected, rtol=0.25), None)  # in int8, abs(-128) is -128
    got, expected = np.array([-(2**63) + 2**60]), np.array([-(2**63)])
    expect(find_mismatch(got, expected, rtol=0.25), None)


@pytest.mark.parametrize("dtype", ["uint32", "int64", "uint64"])
def test_large_integers_do_not_wrap_around(dtype):
    ends = np.iinfo(dtype).min, np.iinfo(dtype).max
    low, high = (np.array([end], dtype) for end in ends)
    expect(find_mismatch(low, high), Mismatch((0,), *map(float, ends), 1, 1))
    expect(find_mismatch(high, low, rtol=0.25), Mismatch((0,), *map(float, ends[::-1]), 1, 1))
    expect(find_mismatch(np.array([2**32]), np.array([0])).count, 1)  # in 32 bits, 2**32 is 0


def test_booleans_and_integers_compare_by_value():
    expect(find_mismatch([True, False], [1, 0]), None)
    expect(find_mismatch([True, False], [True, True]), Mismatch((1,), 0, 1, 1, 2))


def test_float32_is_compared_in_float64():
    got = np.array([2e38, 3e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expect(find_mismatch(got, -got).index, (1,))  # in float32, both are infinitely far off
    half = np.array([60000.0], np.float16)
    expect(find_mismatch(-half, half, rtol=1.5).count, 1)  # in float16, 1.5 * 60000 is infinite
    expect(find_mismatch(np.float32(0.1), 0.1, rtol=1e-9, atol=0.0).total, 1)  # 0.100000001490116


def test_layout_does_not_matter():
    a = np.arange(12.0).reshape(3, 4)
    b = np.arange(12.0).reshape(3, 4)
    b[2, 1] = 0.0
    expect(find_mismatch(a.T, b.T).index, (1, 2))
    expect(find_mismatch(a[::-1, ::2], b[::-1, ::2]), None)


def test_no_warning_is_printed_and_the_arrays_are_left_alone():
    got, expected = np.array([math.inf, math.nan, 1e308, 2.0]), np.array([math.inf, 1.0, -1e308, 1.0])
    for array in (got, expected):
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expect(find_mismatch(got, expected).count, 3)
        expect(find_mismatch(got, expected, rtol=0.0, atol=0.0).count, 3)


def test_later_warnings_of_numpy_are_not_silenced():
    with np.errstate(all="warn"):
        before = np.geterr()
        find_mismatch([math.inf, 1e308], [math.inf, -1e308])
        expect(np.geterr(), before)


# 01.11 assert_close


def test_close_arrays_raise_nothing():
    assert_close([1.0, math.nan], [1.000001, math.nan])
    with expect_error(AssertionError):  # and it does look
        assert_close([1.0, math.nan], [1.1, math.nan])


def test_the_message_names_the_worst_element_and_counts_the_wrong_ones():
    got = np.array([[1.0, 2.0, 3.5], [4.0, 5.0, 6.0]])
    expected = np.array([[1.0, 2.0, 7.25], [4.0, 5.5, 6.0]])
    with expect_error(AssertionError, "(0, 2)", "3.5", "7.25", "2 of 6"):
        assert_close(got, expected)


@pytest.mark.parametrize(("got", "expected"), [(1.0000000001, 1.0), (3e-12, 0.0)])
def test_the_message_shows_the_digits_in_which_two_numbers_differ(got, expected):
    message = ""
    try:
        assert_close([got], [expected], rtol=0.0, atol=0.0)
    except AssertionError as error:
        message = str(error)
    numbers = [float(text) for text in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", message)]
    assert got in numbers, f"{got!r} is not in the message: {message!r}"


def test_the_message_does_not_mix_up_got_and_expected():
    message = ""
    try:
        assert_close([3.5], [7.25])
    except AssertionError as error:
        message = str(error)
    expect([number for number in ("3.5", "7.25") if number in message], ["3.5", "7.25"])
    expect(re.findall(r"got[ :=]+7\.25|expected[ :=]+3\.5", message), [])


def test_the_message_names_both_shapes():
    with expect_error(AssertionError, "(2, 3)", "(3, 2)"):
        assert_close(np.zeros((2, 3)), np.zeros((3, 2)))


@pytest.mark.parametrize("got", [[1.0, 1.0], [1.0]], ids=["two", "one"])
def test_a_number_is_not_stretched_to_an_array(got):
    with expect_error(AssertionError, str(np.shape(got)), "()"):
        assert_close(got, 1.0)


def test_the_relative_tolerance_is_a_share_of_what_was_expected():
    assert_close([90.0], [100.0], rtol=0.1, atol=0.0)
    with expect_error(AssertionError, "100", "90"):
        assert_close([100.0], [90.0], rtol=0.1, atol=0.0)


def test_the_tolerances_can_be_chosen():
    assert_close([1.4], [1.0], rtol=0.5)
    assert_close([0.4], [0.0], atol=0.5)
    with expect_error(AssertionError, "1.00001"):
        assert_close([1.00001], [1.0], rtol=1e-6)
    with expect_error(AssertionError, "(1,)"):
        assert_close([1.0, 1e-8], [1.0, 0.0], atol=0.0)
    with expect_error(AssertionError, "(0,)"):
        assert_close([1.000001], [1.0], rtol=0.0, atol=0.0)


def test_the_default_tolerances_are_those_of_find_mismatch():
    assert_close([1.000009, 0.9e-8], [1.0, 0.0])
    with expect_error(AssertionError, "(0,)"):
        assert_close([1.000012, 0.0], [1.0, 0.0])
    with expect_error(AssertionError, "(1,)"):
        assert_close([1.0, 1.2e-8], [1.0, 0.0])


# 01.12 numerical_gradient


def test_the_gradient_of_a_sum_of_cubes_is_three_squares():
    expect(numerical_gradient(lambda v: (v**3).sum(), [1.0, 2.0, -3.0]), [3.0, 12.0, 27.0], rtol=1e-8)


def test_each_element_gets_its_own_slope():
    x = np.array([[2.0, 3.0], [5.0, 7.0]])
    expect(
        numerical_gradient(lambda v: v[0, 0] * v[0, 1] + 10 * v[1, 0], x),
        np.array([[3.0, 2.0], [10.0, 0.0]]),
        rtol=1e-8,
    )


def test_the_step_is_taken_both_ways():
    expect(numerical_gradient(lambda v: (v**3).sum(), [1.0], step=0.5), [3.25])  # 3x^2 + h^2


def test_the_step_grows_with_elements_beyond_1_and_does_not_shrink_below():
    # h = 0.5 * max(1, |v|), and for a cube the answer is 3v^2 + h^2
    expect(numerical_gradient(lambda v: (v**3).sum(), [4.0, -4.0, 0.25], step=0.5), [52.0, 52.0, 0.4375])


def test_the_default_step_suits_large_elements():
    expect(numerical_gradient(lambda v: (v**2).sum(), [1e9, 3.0]), [2e9, 6.0], rtol=1e-3)


def test_the_default_step_is_one_in_a_hundred_thousand():
    seen = []
    numerical_gradient(lambda v: seen.append(float(v[0])) or 0.0, [0.0])
    expect(sorted(seen), [-1e-5, 1e-5])


def test_other_elements_stay_exactly_where_they_are():
    x = np.array([0.1, 0.7, 1e-9, 3.3, 1e6])
    moved = []
    numerical_gradient(lambda v: moved.append(np.flatnonzero(v != x).tolist()) or 0.0, x)
    expect(moved, [[0], [0], [1], [1], [2], [2], [3], [3], [4], [4]])


def test_the_input_is_left_alone():
    x = np.array([0.1, 0.2, 0.3])
    before = x.copy()
    x.flags.writeable = False
    expect(numerical_gradient(lambda v: v.sum(), x), [1.0, 1.0, 1.0], rtol=1e-8)
    expect(x, before)


def test_a_float_array_is_not_nudged_even_during_the_call():
    x = np.array([0.1, 0.2, 0.3])
    numerical_gradient(lambda v: expect(x, np.array([0.1, 0.2, 0.3])) or v.sum(), x)


@pytest.mark.parametrize("dtype", ["int64", "int8", "float32", "float64"])
def test_everything_happens_in_float64(dtype):
    kinds = set()
    x = np.array([[1, 2], [3, 4]], dtype)
    slopes = numerical_gradient(lambda v: kinds.add((str(v.dtype), v.shape)) or (v**2).sum(), x)
    expect(slopes, np.array([[2.0, 4.0], [6.0, 8.0]]), rtol=1e-8)
    expect(kinds, {("float64", (2, 2))})


def test_a_single_number_has_a_single_slope():
    expect(numerical_gradient(lambda v: v * v, 3.0), np.array(6.0), rtol=1e-8)


def test_an_empty_array_has_an_empty_gradient():
    expect(numerical_gradient(lambda v: 1 / 0, np.zeros((0, 3))), np.zeros((0, 3)))


def layouts():
    a = np.arange(12.0).reshape(3, 4)
    return {
        "columns first": np.asfortranarray(a),
        "transposed": a.T,
        "every other": a[:, ::2],
        "backwards": a[::-1, ::-1],
        "one number stretched": np.broadcast_to(np.float64(2.0), (2, 3)),
    }


@pytest.mark.parametrize(
    "layout", ["columns first", "transposed", "every other", "backwards", "one number stretched"]
)
def test_layout_makes_no_difference_to_the_gradient(layout):
    x = layouts()[layout]
    expect(
        numerical_gradient(lambda v: (v * v * v).sum(), x),
        np.array(3 * x * x, order="C"),
        rtol=1e-7,
        atol=1e-7,
    )


@pytest.mark.parametrize(
    "one",
    [float, np.float32, np.array, lambda v: np.array([v]), lambda v: np.array([[v]])],
    ids=["float", "float32", "array", "one in a row", "one in a table"],
)
def test_one_number_may_come_in_many_forms(one):
    expect(numerical_gradient(lambda v: one(4.0 * v[0]), [2.0]), [4.0], rtol=0.01)


def test_small_integers_that_come_back_do_not_wrap_around():
    slopes = numerical_gradient(lambda v: np.uint8(3 if v[0] < 0 else 1), [0.0], step=0.5)
    expect(slopes, [-2.0])  # in uint8, 1 - 3 is 254


def test_a_function_of_several_numbers_is_an_error_that_names_their_shape():
    with expect_error(ValueError, "(3,)"):
        numerical_gradient(lambda v: v * v, [1.0, 2.0, 3.0])


# 01.13 run_tests


def passes():
    pass


def fails():
    raise AssertionError("2 is not 3")


def breaks():
    return 1 / 0


def is_to_do():
    raise NotImplementedError("kata 02.1: add")


def test_outcomes_come_in_order_with_status_and_message():
    outcomes = run_tests({"test_d": passes, "test_b": fails, "test_c": breaks, "test_a": is_to_do})
    expect(
        [(o.name, o.status, o.message) for o in outcomes],
        [
            ("test_d", "passed", ""),
            ("test_b", "failed", "2 is not 3"),
            ("test_c", "error", "ZeroDivisionError: division by zero"),
            ("test_a", "to do", "kata 02.1: add"),
        ],
    )


def test_only_functions_called_test_something_are_tests():
    namespace = {
        "test_size": 3,
        "helper": breaks,
        "a_test_": breaks,
        "Test_x": breaks,
        "test": breaks,
        "test_": passes,
    }
    expect([outcome.name for outcome in run_tests(namespace)], ["test_"])


def test_whatever_can_be_called_can_be_a_test():
    class Case:
        def __call__(self):
            raise AssertionError("called")

        def method(self):
            return 3

    tests = {"test_a": Case(), "test_b": Case().method, "test_c": functools.partial(int, "3"), "test_d": Case}
    expect([outcome.status for outcome in run_tests(tests)], ["failed", "passed", "passed", "passed"])


def test_no_tests_have_no_outcomes():
    expect(run_tests({}), [])


def test_every_test_runs_once():
    calls = []
    run_tests({f"test_{n}": lambda n=n: calls.append(n) for n in range(3)})
    expect(calls, [0, 1, 2])


def test_what_a_test_returns_does_not_matter():
    expect(run_tests({"test_zero": lambda: False})[0].status, "passed")


class NotClose(AssertionError):
    pass


class NotYet(NotImplementedError):
    pass


LONG = "shapes differ:\n  got (2,)\n" + 100 * "0.125 "


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (NotClose("off by one"), "failed", "off by one"),
        (NotYet("kata 20"), "to do", "kata 20"),
        (AssertionError(LONG + "."), "failed", LONG + "."),
        (ValueError("two\nlines"), "error", "ValueError: two\nlines"),
        (TypeError("no number"), "error", "TypeError: no number"),
        (RuntimeError("no luck"), "error", "RuntimeError: no luck"),
        (RecursionError("too deep"), "error", "RecursionError: too deep"),
        (FileNotFoundError(2, "No such file"), "error", "FileNotFoundError: [Errno 2] No such file"),
    ],
    ids=["NotClose", "NotYet", "long", "lines", "TypeError", "RuntimeError", "RecursionError", "OSError"],
)
def test_the_kind_of_an_error_decides_and_its_words_are_kept_whole(error, status, message):
    def test():
        raise error

    expect([(o.status, o.message) for o in run_tests({"test_x": test})], [(status, message)])


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit])
def test_somebody_who_wants_to_leave_may_leave(leaving):
    def leave():
        raise leaving

    try:
        outcomes = run_tests({"test_a": passes, "test_b": leave})
    except leaving:
        return
    raise AssertionError(f"{leaving.__name__} was caught, and must pass through: {outcomes[-1:]}")


def test_each_outcome_says_how_long_its_test_took():
    clock = Clock()

    def slow_failure():
        clock.spend(5.0)
        raise AssertionError

    outcomes = run_tests({"test_a": lambda: clock.spend(0.25), "test_b": slow_failure}, clock=clock)
    expect([outcome.seconds for outcome in outcomes], [0.25, 5.0])


def test_by_default_real_seconds_are_told():
    start = time.perf_counter()
    outcome = run_tests({"test_sum": lambda: sum(range(10_000))})[0]
    whole = time.perf_counter() - start
    assert 0 < outcome.seconds <= whole


def test_a_test_may_add_to_the_names_around_it():
    namespace = {}
    namespace["test_a"] = lambda: namespace.update(answer=42)
    namespace["test_b"] = passes
    expect([outcome.name for outcome in run_tests(namespace)], ["test_a", "test_b"])


# 01.14 scaling_exponent


def spent(call):
    """A cost that a call tells itself."""
    return call()


@pytest.mark.parametrize("power", [0, 1, 2, 3, 0.5, -1])
def test_a_power_of_n_has_that_exponent(power):
    expect(
        scaling_exponent(lambda n: lambda: 7.0 * n**power, [10, 20, 50, 100], spent), float(power), atol=1e-9
    )


def test_all_the_points_count_not_only_two_of_them():
    # In powers of 2, costs 0, 2, 4 at sizes 0, 1, 4: the line of least squares has slope 8 / (78 / 9).
    costs = {1: 1, 2: 4, 16: 16}
    expect(scaling_exponent(lambda n: lambda: costs[n], [1, 2, 16], spent), 72 / 78)


def test_sizes_may_come_in_any_order_and_more_than_once():
    expect(scaling_exponent(lambda n: lambda: n * n, [100, 10, 10, 30], spent), 2.0)
    # In powers of 2, costs 0, 3, 2, 2 at sizes 0, 1, 2, 2: the line of least squares has slope 2.25 / 2.75.
    costs = {1: 1, 2: 8, 4: 4}
    expect(scaling_exponent(lambda n: lambda: costs[n], [1, 2, 4, 4], spent), 9 / 11)


def test_each_size_is_made_and_measured_once():
    made, measured = [], []
    scaling_exponent(
        lambda n: made.append(n) or (lambda: n), [2, 4, 8], lambda call: measured.append(call()) or 1.0
    )
    expect((sorted(made), sorted(measured)), ([2, 4, 8], [2, 4, 8]))


def test_by_default_the_cost_is_the_best_time():
    made, calls = [], []

    def make(n):
        made.append(n)
        return lambda: calls.append(n) or sum(range(1000 * n))

    p = scaling_exponent(make, [1, 2])
    expect(sorted(made), [1, 2])  # preparing is not measured
    expect(sorted(calls), [1] * 6 + [2] * 6)  # one ahead, five runs
    assert math.isfinite(p)


def test_it_measures_bytes_as_well():
    make = lambda n: lambda: bytearray(n * MIB)  # noqa: E731
    expect(scaling_exponent(make, [1, 2, 4], lambda call: memory_of(call).peak), 1.0, atol=0.05)


@pytest.mark.parametrize("sizes", [[], [8], [8, 8, 8], [0, 8], [-2, 8], [8, 0]])
def test_fewer_than_two_sizes_or_impossible_ones_are_an_error_that_shows_them(sizes):
    with expect_error(ValueError, *map(str, sizes)):
        scaling_exponent(lambda n: lambda: 1.0, sizes, spent)


@pytest.mark.parametrize("cost", [0, -1.5, math.nan, math.inf])
def test_a_cost_without_a_finite_logarithm_is_an_error_that_names_it_and_its_size(cost):
    with expect_error(ValueError, str(cost), "400"):
        scaling_exponent(lambda n: lambda: cost if n == 400 else 1.0, [100, 400], spent)
