"""Level 1: what is installed, and what a terminal shows of work that goes on."""

import gc
import importlib.metadata
import io
import re
import sys
import tracemalloc

import numpy as np
import pytest
from rich.console import Console

from dojo.expect import expect, expect_error
from tinytorch.setup import (
    Check,
    check_python,
    check_requirement,
    environment_report,
    in_virtual_env,
    progress_bar,
    table,
    track,
)


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


def test_one_folder_is_judged_beside_the_other_of_this_python(monkeypatch):
    monkeypatch.setattr(sys, "base_prefix", "/opt/python")
    monkeypatch.setattr(sys, "prefix", "/opt/python")
    expect((in_virtual_env("/home/ada/.venv"), in_virtual_env("/opt/python")), (True, False))
    expect((in_virtual_env(base_prefix="/usr"), in_virtual_env(base_prefix="/opt/python")), (True, False))


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
    expect(list(track([1, None, 0, ""], file=Terminal())), [1, None, 0, ""])  # items, whatever they are


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
