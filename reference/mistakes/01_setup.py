"""Believable wrong solutions of kata 01.  Each takes the reference and spoils one thing in it."""

import gc
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import sys
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
from rich.markup import escape
from rich.table import Table

from dojo.mistakes import caught_by

# Is this machine ready?


@caught_by(1)
def a_virtual_environment_is_told_by_its_name(m):
    m.in_virtual_env = lambda prefix=None, base_prefix=None: "venv" in (prefix or sys.prefix)


@caught_by(1)
def a_virtual_environment_lies_outside_its_base(m):
    def in_virtual_env(prefix=None, base_prefix=None):
        return not (prefix or sys.prefix).startswith(base_prefix or sys.base_prefix)

    m.in_virtual_env = in_virtual_env


@caught_by(1)
def one_folder_without_the_other_is_not_looked_at(m):
    right = m.in_virtual_env

    def in_virtual_env(prefix=None, base_prefix=None):
        return right() if prefix is None or base_prefix is None else right(prefix, base_prefix)

    m.in_virtual_env = in_virtual_env


@caught_by(1)
def versions_are_compared_as_text(m):
    def check_python(minimum=(3, 10), version=None):
        found, least = (".".join(map(str, v)) for v in (version or sys.version_info[:3], minimum))
        return m.Check("python", found >= least, found, f">={least}")

    m.check_python = check_python


@caught_by(1)
def each_part_of_a_version_must_be_at_least_its_minimum(m):
    right = m.check_python

    def check_python(minimum=(3, 10), version=None):
        check = right(minimum, version)
        parts = zip(version or sys.version_info, minimum)  # noqa: B905
        return m.Check("python", all(have >= need for have, need in parts), check.found, check.wanted)

    m.check_python = check_python


@caught_by(1)
def a_part_that_a_version_lacks_is_not_asked_for(m):
    right = m.check_python

    def check_python(minimum=(3, 10), version=None):
        check = right(minimum, version)
        have = tuple(version or sys.version_info[:3])
        return m.Check("python", have >= minimum[: len(have)], check.found, check.wanted)

    m.check_python = check_python


@caught_by(2)
def only_major_and_minor_count(m):
    right = m.check_python

    def check_python(minimum=(3, 10), version=None):
        version = version or sys.version_info[:3]
        check = right(minimum, version)
        return m.Check("python", version[:2] >= minimum[:2], check.found, check.wanted)

    m.check_python = check_python


def _check_requirement(m, ok, needed=lambda need: need.marker is None or need.marker.evaluate()):
    """The reference's check_requirement, with another verdict."""

    def check_requirement(requirement, installed=importlib.metadata.version):
        need = m.Requirement(requirement)
        wanted = str(need.specifier) or "any version"
        if not needed(need):
            return m.Check(need.name, True, "not needed", wanted)
        try:
            found = installed(need.name)
        except importlib.metadata.PackageNotFoundError:
            return m.Check(need.name, False, "missing", wanted)
        return m.Check(need.name, ok(need, found), found, wanted)

    m.check_requirement = check_requirement


@caught_by(1)
def release_candidates_are_turned_down(m):
    _check_requirement(m, lambda need, found: need.specifier.contains(found, prereleases=False))


@caught_by(1)
def every_release_candidate_counts_as_its_release(m):
    _check_requirement(m, lambda need, found: need.specifier.contains(found.partition("rc")[0]))


@caught_by(1)
def markers_are_ignored(m):
    _check_requirement(m, lambda need, found: found in need.specifier, needed=lambda need: True)


@caught_by(1)
def only_the_first_part_of_a_specifier_counts(m):
    def ok(need, found):
        return all(part.contains(found, prereleases=True) for part in list(need.specifier)[:1])

    _check_requirement(m, ok)


@caught_by(1)
def a_marker_counts_only_if_the_package_is_missing(m):
    right = m.check_requirement

    def check_requirement(requirement, installed=importlib.metadata.version):
        check = right(requirement.partition(";")[0], installed)
        return check if check.found != "missing" else right(requirement, installed)

    m.check_requirement = check_requirement


@caught_by(1)
def packages_are_looked_for_under_the_names_of_modules(m):
    right = m.check_requirement

    def version(name):
        if importlib.util.find_spec(name) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.version(name)

    m.check_requirement = lambda requirement, installed=version: right(requirement, installed)


@caught_by(4)
def a_package_is_imported_to_see_whether_it_is_there(m):
    right = m.check_requirement

    def check_requirement(requirement, installed=None):
        if installed is not None:
            return right(requirement, installed)

        def version(name):
            try:
                importlib.import_module(name.replace("-", "_"))
            except ImportError:
                raise importlib.metadata.PackageNotFoundError(name) from None
            return importlib.metadata.version(name)

        return right(requirement, version)

    m.check_requirement = check_requirement


# How far are we?


def _table(m, text):
    """The reference's table, with another idea of how a text is shown."""

    def table(title, rows):
        columns = list(rows[0]) if rows else []
        out = Table(*map(text, columns), title=text(title))
        for row in rows:
            if odd := row.keys() ^ set(columns):
                raise ValueError(str(odd))
            out.add_row(*(text(m._cell(row[column])) for column in columns))
        return out

    m.table = table


@caught_by(1)
def rich_reads_the_brackets_as_markup(m):
    _table(m, str)


@caught_by(1)
def escaped_brackets_still_leave_emoji_codes(m):
    _table(m, escape)


@caught_by(1)
def one_and_nought_read_ok_and_fail(m):
    right = m._cell
    m._cell = lambda value: right(bool(value)) if value in (0, 1) else right(value)


@caught_by(1)
def rows_are_shown_in_the_order_of_their_own_keys(m):
    right = m.table

    def table(title, rows):
        right(title, rows)
        return right(title, [dict(zip(rows[0], row.values())) for row in rows])  # noqa: B905

    m.table = table


@caught_by(1)
def a_misspelt_column_is_only_called_missing(m):
    right = m.table

    def table(title, rows):
        for row in rows:
            if lacking := [key for key in rows[0] if key not in row]:
                raise ValueError(f"a row lacks {lacking}")
        return right(title, rows)

    m.table = table


@caught_by(1)
def when_there_is_nothing_to_do_anything_goes(m):
    right = m.progress_bar
    m.progress_bar = lambda done, total, width=20: right(done, total, width) if total else "#" * width


@caught_by(1)
def a_bar_is_rounded(m):
    right = m.progress_bar

    def progress_bar(done, total, width=20):
        filled = round(width * min(done / total, 1)) if total else width
        return right(filled, width, width) if min(done, total) >= 0 else right(done, total, width)

    m.progress_bar = progress_bar


@caught_by(1)
def a_share_of_floats_fills_a_character_too_few(m):
    right = m.progress_bar

    def progress_bar(done, total, width=20):
        if not 0 < done < total:
            return right(done, total, width)
        filled = int(done / total * width)
        return "#" * filled + "." * (width - filled)

    m.progress_bar = progress_bar


@caught_by(1)
def items_are_gathered_to_be_counted(m):
    right = m.track
    m.track = lambda items, label="", **options: right(list(items), label, **options)


@caught_by(1)
def only_sequences_have_a_length(m):
    right = m.track

    def track(items, label="", *, total=None, **options):
        known = total is not None or isinstance(items, Sequence)
        return right(items if known else iter(items), label, total=total, **options)

    m.track = track


@caught_by(1)
def none_is_taken_for_the_end(m):
    right = m.track
    m.track = lambda items, *args, **options: right(iter(iter(items).__next__, None), *args, **options)


@caught_by(1)
def whatever_has_a_length_is_gathered(m):
    right = m.track
    m.track = lambda items, label="", **options: right(
        list(items) if hasattr(items, "__len__") else items, label, **options
    )


@caught_by(4)
def every_item_is_flushed(m):
    right = m.track

    def track(items, label="", *, file=None, **options):
        out = sys.stderr if file is None else file
        for item in right(items, label, file=out, **options):
            yield item
            out.flush()

    m.track = track


def _track(
    m,
    *,
    late=lambda now, last, every: now - last >= every,
    finish=True,
    next_last=None,
    eager=False,
    early=0,
    pad=True,
    flush=True,
):
    """The reference's track, taken apart."""

    def track(items, label="", *, total=None, file=None, clock=time.monotonic, every=0.1):
        if total is None and hasattr(items, "__len__"):
            total = len(items)
        out = sys.stderr if file is None else file
        done, start = 0, clock()
        last, ended, width = start, False, 0

        def write(line, end=""):
            nonlocal width
            line = line.ljust(width)
            width = len(line) if pad else 0
            out.write(f"\r{line}{end}")
            if flush:
                out.flush()

        try:
            for item in items:
                done += early
                yield item
                done += 1 - early
                now = clock()
                line = m._progress_line(label, done, total, now - start) if eager else ""
                if late(now, last, every):
                    write(line or m._progress_line(label, done, total, now - start))
                    last = now if next_last is None else next_last(last, every)
            ended = True
        finally:
            if ended or finish:
                write(m._progress_line(label, done, total, clock() - start), "\n")

    m.track = track


@caught_by(1)
def leaving_early_leaves_no_line(m):
    _track(m, finish=False)


@caught_by(1)
def an_item_is_done_when_it_is_handed_out(m):
    _track(m, early=1)


@caught_by(1)
def late_lines_are_made_up_for(m):
    _track(m, next_last=lambda last, every: last + every)


@caught_by(1)
def exactly_late_enough_is_too_early(m):
    _track(m, late=lambda now, last, every: now - last > every)


@caught_by(1)
def a_shorter_line_leaves_the_end_of_a_longer_one(m):
    _track(m, pad=False)


@caught_by(1)
def lines_wait_in_the_buffer(m):
    _track(m, flush=False)


@caught_by(4)
def every_line_is_laid_out_and_few_are_shown(m):
    _track(m, eager=True)


@caught_by(3)
def tracking_keeps_what_went_by(m):
    right = m.track

    def track(items, label="", **options):
        seen = []
        for item in right(items, label, **options):
            seen.append(item)
            yield item

    m.track = track


# How long, and how many bytes?


@caught_by(1)
def the_collector_is_switched_on_whatever_it_was(m):
    @contextmanager
    def gc_paused():
        gc.disable()
        try:
            yield
        finally:
            gc.enable()

    m.gc_paused = gc_paused


@caught_by(1)
def a_collector_that_the_block_switched_on_stays_on(m):
    @contextmanager
    def gc_paused():
        was_on = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_on:
                gc.enable()

    m.gc_paused = gc_paused


@caught_by(1)
def the_collector_stays_off_after_ctrl_c(m):
    @contextmanager
    def gc_paused():
        switch = gc.enable if gc.isenabled() else gc.disable
        gc.disable()
        try:
            yield
        except Exception:
            switch()
            raise
        switch()

    m.gc_paused = gc_paused


@caught_by(1)
def the_collector_stays_off_after_an_error(m):
    @contextmanager
    def gc_paused():
        was_on = gc.isenabled()
        gc.disable()
        yield
        if was_on:
            gc.enable()

    m.gc_paused = gc_paused


def _best_time(m, *, ahead=1, summary=min, keep=None, per_call=True):
    """The reference's best_time, taken apart."""

    def best_time(function, *, repeats=5, calls=1, clock=time.perf_counter):
        if repeats < 1 or calls < 1:
            raise ValueError(f"{repeats=} {calls=}")
        for _ in range(ahead):
            function()
        times = []
        results = []
        with m.gc_paused():
            for _ in range(repeats):
                start = clock()
                for _ in range(calls):
                    if keep:
                        results.append(function())
                    else:
                        function()
                times.append(clock() - start)
        return summary(times) / (calls if per_call else 1)

    m.best_time = best_time


@caught_by(1)
def nothing_goes_ahead(m):
    _best_time(m, ahead=0)


@caught_by(1)
def the_mean_is_taken_for_the_best(m):
    _best_time(m, summary=lambda times: sum(times) / len(times))


@caught_by(1)
def a_run_that_took_no_time_is_no_run(m):
    _best_time(m, summary=lambda times: min(filter(None, times), default=0.0))


@caught_by(1)
def a_run_is_taken_for_a_call(m):
    _best_time(m, per_call=False)


@caught_by(3)
def timed_results_are_collected(m):
    _best_time(m, keep=True)


@caught_by(3)
def the_results_of_a_run_are_listed(m):
    right = m.best_time

    def best_time(function, *, repeats=5, calls=1, clock=time.perf_counter):
        if repeats < 1 or calls < 1:
            return right(function, repeats=repeats, calls=calls)
        function()
        best = math.inf
        with m.gc_paused():
            for _ in range(repeats):
                start = clock()
                [function() for _ in range(calls)]
                best = min(best, clock() - start)
        return best / calls

    m.best_time = best_time


def _memory_of(
    m,
    *,
    ahead=True,
    reset=True,
    baseline=True,
    stop_own=True,
    keep=False,
    collect=True,
    restart=False,
    late=False,
):
    """The reference's memory_of, taken apart."""
    kept = []

    def memory_of(function):
        if ahead:
            function()
        was_on = tracemalloc.is_tracing()
        if not was_on:
            tracemalloc.start()
        try:
            with m.gc_paused():
                gc.collect()
                if restart:
                    tracemalloc.clear_traces()
                before = tracemalloc.get_traced_memory()[0] if baseline else 0
                if reset:
                    tracemalloc.reset_peak()
                result = function()
                peak = tracemalloc.get_traced_memory()[1]
                if collect:
                    gc.collect()
                if late:
                    peak = tracemalloc.get_traced_memory()[1]
                after = tracemalloc.get_traced_memory()[0]
                if keep:
                    kept.append(result)
                del result
        finally:
            if not (was_on and stop_own):
                tracemalloc.stop()
        return m.Memory(peak - before, after - before)

    m.memory_of = memory_of


@caught_by(1)
def a_cold_cache_counts(m):
    _memory_of(m, ahead=False)


@caught_by(1)
def an_old_peak_counts(m):
    _memory_of(m, reset=False)


@caught_by(1)
def what_was_there_before_counts(m):
    _memory_of(m, baseline=False)


@caught_by(1)
def somebody_elses_tracer_is_stopped(m):
    _memory_of(m, stop_own=False)


@caught_by(1)
def garbage_in_cycles_counts_as_kept(m):
    _memory_of(m, collect=False)


@caught_by(1)
def somebody_elses_traces_are_cleared(m):
    _memory_of(m, restart=True)


@caught_by(1)
def the_peak_is_read_after_the_collection(m):
    _memory_of(m, late=True)


@caught_by(1)
def what_is_kept_is_the_size_of_the_result(m):
    right = m.memory_of

    def memory_of(function):
        results = []
        memory = right(lambda: results.append(function()))
        return m.Memory(memory.peak, sys.getsizeof(results[-1]))

    m.memory_of = memory_of


@caught_by(1)
def bytes_are_floats(m):
    right = m.memory_of

    def memory_of(function):
        memory = right(function)
        return m.Memory(float(memory.peak), float(memory.kept))

    m.memory_of = memory_of


@caught_by(3)
def the_meter_remembers_results(m):
    _memory_of(m, keep=True)


# Is the answer right?


def _find_mismatch(m, close, distance=lambda a, b: np.abs(np.subtract(a, b, dtype=np.float64))):
    """The reference's find_mismatch, with another idea of what is close."""

    def find_mismatch(got, expected, *, rtol=1e-5, atol=1e-8):
        a, b = np.asarray(got), np.asarray(expected)
        if a.shape != b.shape:
            raise ValueError(f"{a.shape} {b.shape}")
        with np.errstate(all="ignore"):
            far = distance(a, b)
            fine = close(a, b, far, rtol, atol)
        if np.all(fine):
            return None
        rank = np.where(fine, -1.0, np.where(np.isnan(far), np.inf, far))
        index = tuple(int(i) for i in np.unravel_index(np.argmax(rank), a.shape))
        return m.Mismatch(index, float(a[index]), float(b[index]), int(np.sum(~fine)), a.size)

    m.find_mismatch = find_mismatch


def _same(a, b):
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _within(b, far, rtol, atol):
    return (far <= atol + rtol * np.abs(b, dtype=np.float64)) & np.isfinite(far)


@caught_by(1)
def every_distance_to_infinity_is_allowed(m):
    _find_mismatch(
        m, lambda a, b, far, rtol, atol: _same(a, b) | (far <= atol + rtol * np.abs(b, dtype=np.float64))
    )


@caught_by(1)
def an_infinite_tolerance_allows_infinity(m):
    def close(a, b, far, rtol, atol):
        return _same(a, b) | ((far <= atol + rtol * np.abs(b, dtype=np.float64)) & np.isfinite(b))

    _find_mismatch(m, close)


@caught_by(1)
def only_integers_are_compared_in_float64(m):
    right = m.find_mismatch

    def find_mismatch(got, expected, *, rtol=1e-5, atol=1e-8):
        a, b = np.asarray(got), np.asarray(expected)
        if not (a.dtype == b.dtype == np.float32 and a.shape == b.shape):
            return right(a, b, rtol=rtol, atol=atol)
        with np.errstate(all="ignore"):
            far = np.where(_same(a, b), 0, np.abs(a - b))
            wrong = ~(_same(a, b) | (np.isfinite(a) & np.isfinite(b) & (far <= atol + rtol * np.abs(b))))
        if not wrong.any():
            return None
        rank = np.where(wrong, np.where(np.isnan(far), np.inf, far), -1.0)
        index = tuple(int(i) for i in np.unravel_index(np.argmax(rank), a.shape))
        return m.Mismatch(index, float(a[index]), float(b[index]), int(wrong.sum()), a.size)

    m.find_mismatch = find_mismatch


@caught_by(1)
def large_integers_are_taken_for_int64(m):
    right = m.find_mismatch

    def find_mismatch(got, expected, **tolerances):
        arrays = [np.asarray(got), np.asarray(expected)]
        if all(array.dtype.kind == "u" for array in arrays):
            arrays = [array.astype(np.int64) for array in arrays]
        return right(*arrays, **tolerances)

    m.find_mismatch = find_mismatch


@caught_by(1)
def nan_is_close_to_anything(m):
    _find_mismatch(
        m,
        lambda a, b, far, rtol, atol: (
            ~(far > atol + rtol * np.abs(b, dtype=np.float64)) & (np.isfinite(b) | _same(a, b))
        ),
    )


@caught_by(1)
def nan_is_not_close_to_nan(m):
    _find_mismatch(m, lambda a, b, far, rtol, atol: (a == b) | _within(b, far, rtol, atol))


@caught_by(1)
def small_integers_wrap_around(m):
    _find_mismatch(
        m,
        lambda a, b, far, rtol, atol: _same(a, b) | _within(b, far, rtol, atol),
        distance=lambda a, b: np.abs(np.subtract(a, b, dtype=np.int8 if a.dtype == bool else None)),
    )


@caught_by(1)
def got_and_expected_change_places(m):
    right = m.find_mismatch

    def assert_close(got, expected, *, rtol=1e-5, atol=1e-8):
        if np.shape(got) != np.shape(expected):
            raise AssertionError(f"{np.shape(got)} {np.shape(expected)}")
        if worst := right(expected, got, rtol=rtol, atol=atol):
            raise AssertionError(
                f"{worst.count} of {worst.total}, {worst.index}: {worst.expected} {worst.got}"
            )

    m.assert_close = assert_close


@caught_by(1)
def the_tolerance_follows_the_larger_of_the_two(m):
    _find_mismatch(
        m, lambda a, b, far, rtol, atol: _same(a, b) | _within(np.maximum(abs(a), abs(b)), far, rtol, atol)
    )


@caught_by(1)
def the_larger_tolerance_alone_counts(m):
    def close(a, b, far, rtol, atol):
        return _same(a, b) | ((far <= np.maximum(atol, rtol * np.abs(b, dtype=np.float64))) & np.isfinite(b))

    _find_mismatch(m, close)


@caught_by(1)
def other_shapes_are_broadcast(m):
    right = m.find_mismatch

    def find_mismatch(got, expected, **tolerances):
        return right(*np.broadcast_arrays(got, expected), **tolerances)

    m.find_mismatch = find_mismatch


@caught_by(1)
def all_that_is_empty_is_close(m):
    right = m.find_mismatch

    def find_mismatch(got, expected, *, rtol=1e-5, atol=1e-8):
        return right(got, expected, rtol=rtol, atol=atol) if np.size(got) or np.size(expected) else None

    m.find_mismatch = find_mismatch


@caught_by(1)
def the_last_of_equally_bad_elements_is_named(m):
    right = m.find_mismatch

    def find_mismatch(got, expected, **tolerances):
        a, b = np.asarray(got), np.asarray(expected)
        turned = tuple(slice(None, None, -1) for _ in a.shape)
        worst = right(a[turned], b[turned] if a.shape == b.shape else b, **tolerances)
        if worst is None:
            return None
        index = tuple(n - 1 - i for n, i in zip(a.shape, worst.index, strict=True))
        return m.Mismatch(index, float(a[index]), float(b[index]), worst.count, worst.total)

    m.find_mismatch = find_mismatch


def _close(one, other, rtol, atol):
    if one == other or (math.isnan(one) and math.isnan(other)):
        return True
    return math.isfinite(one) and math.isfinite(other) and abs(one - other) <= atol + rtol * abs(other)


@caught_by(3)
def numbers_are_listed_to_be_compared(m):
    right = m.find_mismatch

    def find_mismatch(got, expected, *, rtol=1e-5, atol=1e-8):
        a, b = np.asarray(got), np.asarray(expected)
        if a.shape == b.shape:
            pairs = list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
            if all(_close(one, other, rtol, atol) for one, other in pairs):
                return None
        return right(got, expected, rtol=rtol, atol=atol)

    m.find_mismatch = find_mismatch


@caught_by(4)
def numbers_are_compared_one_by_one(m):
    right = m.find_mismatch

    def find_mismatch(got, expected, *, rtol=1e-5, atol=1e-8):
        a, b = np.asarray(got), np.asarray(expected)
        if a.shape == b.shape and all(
            _close(float(one), float(other), rtol, atol) for one, other in zip(a.flat, b.flat, strict=True)
        ):
            return None
        return right(got, expected, rtol=rtol, atol=atol)

    m.find_mismatch = find_mismatch


@caught_by(1)
def the_message_names_no_place(m):
    def assert_close(got, expected, *, rtol=1e-5, atol=1e-8):
        if worst := m.find_mismatch(got, expected, rtol=rtol, atol=atol):
            raise AssertionError(f"{worst.count} of {worst.total} differ: {worst.got} and {worst.expected}")

    m.assert_close = assert_close


def _assert_close(m, text, prepare=lambda got, expected: (got, expected)):
    """The reference's assert_close, with another way to write a number."""

    def assert_close(got, expected, *, rtol=1e-5, atol=1e-8):
        try:
            worst = m.find_mismatch(*prepare(got, expected), rtol=rtol, atol=atol)
        except ValueError as shapes:
            raise AssertionError(str(shapes)) from None
        if worst is not None:
            raise AssertionError(
                f"{worst.count} of {worst.total}, worst {worst.index}: "
                f"got {text(worst.got)}, expected {text(worst.expected)}"
            )

    m.assert_close = assert_close


@caught_by(1)
def the_message_rounds_to_six_digits(m):
    _assert_close(m, lambda number: f"{number:g}")


@caught_by(1)
def a_number_is_stretched_to_an_array(m):
    def stretch(got, expected):
        return got, np.full(np.shape(got), expected) if np.ndim(expected) == 0 else expected

    _assert_close(m, repr, stretch)


@caught_by(1)
def a_tolerance_of_0_is_taken_for_none(m):
    right = m.assert_close

    def assert_close(got, expected, *, rtol=1e-5, atol=1e-8):
        right(got, expected, rtol=rtol or 1e-5, atol=atol or 1e-8)

    m.assert_close = assert_close


@caught_by(1)
def tolerances_are_not_passed_on(m):
    right = m.assert_close
    m.assert_close = lambda got, expected, *, rtol=1e-5, atol=1e-8: right(got, expected)


# Is the gradient right?


def _numerical_gradient(
    m, start, *, central=True, restore=True, step_of=lambda v, step: step * max(1.0, abs(v))
):
    """The reference's numerical_gradient, taken apart."""

    def numerical_gradient(f, x, step=1e-5):
        point = start(x)
        flat = point.reshape(-1)
        slopes = np.empty_like(flat)
        for i in range(flat.size):
            value = float(flat[i])
            h = step_of(value, step)
            flat[i] += h
            above = m._one_number(f(point))
            flat[i] -= 2 * h if central else h
            below = m._one_number(f(point))
            if restore:
                flat[i] = value
            elif central:
                flat[i] += h
            slopes[i] = (above - below) / (2 * h if central else h)
        return slopes.reshape(point.shape)

    m.numerical_gradient = numerical_gradient


def _own_copy(x):
    return np.array(x, dtype=np.float64, order="C")


@caught_by(1)
def the_input_itself_is_nudged(m):
    _numerical_gradient(m, lambda x: np.ascontiguousarray(x, np.float64).reshape(np.shape(x)))


@caught_by(1)
def a_copy_keeps_the_order_of_columns_and_reshape_copies_again(m):
    _numerical_gradient(m, lambda x: np.array(x, dtype=np.float64))


@caught_by(1)
def integers_stay_integers(m):
    _numerical_gradient(m, lambda x: np.array(x, order="C"))


@caught_by(1)
def only_the_forward_step_is_taken(m):
    _numerical_gradient(m, _own_copy, central=False)


@caught_by(1)
def elements_are_put_back_by_adding(m):
    _numerical_gradient(m, _own_copy, restore=False)


@caught_by(1)
def the_step_is_the_same_for_all_elements(m):
    _numerical_gradient(m, _own_copy, step_of=lambda v, step: step)


@caught_by(1)
def the_step_shrinks_with_small_elements(m):
    _numerical_gradient(m, _own_copy, step_of=lambda v, step: step * (abs(v) or 1.0))


@caught_by(3)
def all_steps_are_laid_out_at_once(m):
    def numerical_gradient(f, x, step=1e-5):
        point = _own_copy(x)
        h = step * np.maximum(1.0, np.abs(point)).ravel()
        steps = np.diag(h).reshape(point.size, *point.shape)
        slopes = [
            (m._one_number(f(point + s)) - m._one_number(f(point - s))) / (2 * d)
            for s, d in zip(steps, h, strict=True)
        ]
        return np.array(slopes, np.float64).reshape(point.shape)

    m.numerical_gradient = numerical_gradient


# Do the tests pass?


def _run_tests(m, *, caught=Exception, stop=False, message=lambda error: str(error)):
    """The reference's run_tests, taken apart."""

    def run_tests(namespace, *, clock=time.perf_counter):
        outcomes = []
        for name, test in list(namespace.items()):
            if not name.startswith("test_") or not callable(test):
                continue
            status, words, start = "passed", "", clock()
            try:
                test()
            except AssertionError as error:
                status, words = "failed", message(error)
            except NotImplementedError as error:
                status, words = "to do", message(error)
            except caught as error:
                status, words = "error", f"{type(error).__name__}: {error}"
            outcomes.append(m.Outcome(name, status, words, clock() - start))
            if stop and status != "passed":
                break
        return outcomes

    m.run_tests = run_tests


@caught_by(1)
def the_first_failure_ends_the_run(m):
    _run_tests(m, stop=True)


@caught_by(1)
def tests_run_in_alphabetical_order(m):
    right = m.run_tests
    m.run_tests = lambda namespace, **options: right(dict(sorted(namespace.items())), **options)


@caught_by(1)
def only_functions_are_tests(m):
    right = m.run_tests

    def run_tests(namespace, **options):
        return right({name: test for name, test in namespace.items() if inspect.isfunction(test)}, **options)

    m.run_tests = run_tests


@caught_by(1)
def only_the_first_line_of_a_message_is_kept(m):
    _run_tests(m, message=lambda error: str(error).split("\n")[0])


@caught_by(1)
def control_c_is_just_another_error(m):
    _run_tests(m, caught=BaseException)


@caught_by(3)
def outcomes_keep_the_exception(m):
    class Words(str):
        pass

    def message(error):
        words = Words(error)
        words.error = error
        return words

    _run_tests(m, message=message)


# And at ten times the size?


def _scaling_exponent(m, slope, all_first=False, impossible=lambda cost: not 0 < cost < math.inf):
    """The reference's scaling_exponent, with another fit."""

    def scaling_exponent(make, sizes, cost=m.best_time):
        if len(set(sizes)) < 2 or min(sizes) < 1:
            raise ValueError(str(list(sizes)))
        calls = [make(n) for n in sizes] if all_first else map(make, sizes)
        costs = []
        for n, call in zip(sizes, calls, strict=True):
            costs.append(cost(call))
            if impossible(costs[-1]):
                raise ValueError(f"{n} {costs[-1]}")
        return float(slope(np.log(np.asarray(sizes, np.float64)), np.log(costs)))

    m.scaling_exponent = scaling_exponent


def _least_squares(x, y):
    return np.polyfit(x, y, 1)[0]


@caught_by(1)
def a_size_that_comes_twice_counts_once(m):
    right = m.scaling_exponent

    def scaling_exponent(make, sizes, cost=m.best_time):
        different = list(dict.fromkeys(sizes))
        return right(make, different if len(different) > 1 else sizes, cost)

    m.scaling_exponent = scaling_exponent


@caught_by(1)
def only_the_ends_of_the_line_count(m):
    _scaling_exponent(m, lambda x, y: (y[-1] - y[0]) / (x[-1] - x[0]))


@caught_by(1)
def only_the_last_two_sizes_count(m):
    _scaling_exponent(m, lambda x, y: (y[-1] - y[-2]) / (x[-1] - x[-2]))


@caught_by(1)
def the_line_goes_through_the_origin(m):
    _scaling_exponent(m, lambda x, y: x @ y / (x @ x))


@caught_by(1)
def the_line_is_fitted_the_other_way_round(m):
    _scaling_exponent(m, lambda x, y: 1 / np.polyfit(y, x, 1)[0] if np.ptp(y) > 1e-9 else 0.0)


@caught_by(1)
def a_cost_of_nan_gives_an_exponent_of_nan(m):
    _scaling_exponent(m, _least_squares, impossible=lambda cost: cost <= 0 or cost == math.inf)


@caught_by(1)
def an_infinite_cost_is_taken_for_a_number(m):
    _scaling_exponent(m, _least_squares, impossible=lambda cost: not cost > 0)


@caught_by(1)
def preparing_is_measured_too(m):
    right = m.scaling_exponent
    m.scaling_exponent = lambda make, sizes, cost=m.best_time: right(lambda n: lambda: make(n)(), sizes, cost)


@caught_by(3)
def every_problem_is_made_first(m):
    _scaling_exponent(m, _least_squares, all_first=True)


_GIVEN = "the class is given, and nothing changes its objects; frozen says so to the reader"

EQUIVALENT = {
    "memory_of: if not was_on: -> if True:": "tracemalloc.start() does nothing while it is tracing",
    "memory_of: del result -> pass": "the result lives until the function returns, after the last reading",
    "find_mismatch: np.subtract(a, b, dtype=np.float64) -> np.subtract(b, a, dtype=np.float64)": (
        "only the absolute value of the difference is used"
    ),
    "find_mismatch: np.where(close, -1.0, np.where(np.isnan(distance), np.inf, distance)) -> "
    "np.where(close, 0.0, np.where(np.isnan(distance), np.inf, distance))": (
        "an element that is not close is more than 0 off, so it still beats those that are"
    ),
    "Check: dataclass(frozen=True) -> dataclass(frozen=False)": _GIVEN,
    "Memory: dataclass(frozen=True) -> dataclass(frozen=False)": _GIVEN,
    "Mismatch: dataclass(frozen=True) -> dataclass(frozen=False)": _GIVEN,
    "Outcome: dataclass(frozen=True) -> dataclass(frozen=False)": _GIVEN,
}
