"""Believable wrong solutions of kata 16.  Each takes the reference and spoils one thing in it."""

import gc
import json
import os
import tracemalloc
from contextlib import contextmanager

import numpy as np

from dojo.mistakes import caught_by, rewritten


def rule(m, name, *changes):
    """As `rewritten`, for a cost rule."""
    before = getattr(m, name)
    after = rewritten(m, name, *changes)
    for op, attached in m._cost_rules.items():
        if attached is before:
            m._cost_rules[op] = after


# 16.1 Timing.


@caught_by(1)
def best_is_the_first_sample(m):
    m.Timing.best = property(lambda self: self.samples[0])


@caught_by(1)
def the_mean_is_called_median(m):
    m.Timing.median = m.Timing.mean


@caught_by(1)
def the_median_of_an_even_number_is_the_upper_one(m):
    m.Timing.median = property(lambda self: sorted(self.samples)[len(self.samples) // 2])


@caught_by(1)
def quantiles_are_not_interpolated(m):
    rewritten(m, "Timing.quantile", ("return below + (above - below) * (position - i)", "return below"))


@caught_by(1)
def a_quantile_is_at_q_times_n(m):
    rewritten(m, "Timing.quantile", ("q * (len(ordered) - 1)", "min(q * len(ordered), len(ordered) - 1)"))


@caught_by(1)
def the_last_quantile_runs_off_the_end(m):
    rewritten(m, "Timing.quantile", ("ordered[min(i + 1, len(ordered) - 1)]", "ordered[i + 1]"))


@caught_by(1)
def a_quantile_of_any_number_is_taken(m):
    rewritten(
        m,
        "Timing.quantile",
        ("if not 0 <= q <= 1:", "if False:"),
        (
            "i = int(position)",
            "i = 0 if position != position else min(max(int(position), 0), len(ordered) - 1)",
        ),
    )


@caught_by(1)
def samples_are_not_sorted(m):
    rewritten(m, "Timing.quantile", ("sorted(self.samples)", "list(self.samples)"))


@caught_by(1)
def samples_are_sorted_in_place(m):
    def quantile(self, q):
        if not 0 <= q <= 1:
            raise ValueError(f"{q}")
        samples = self.samples
        if isinstance(samples, list):
            samples.sort()
        return float(np.quantile(samples, q))

    m.Timing.quantile = quantile


@caught_by(1)
def spread_is_in_seconds(m):
    m.Timing.spread = property(lambda self: self.quantile(0.75) - self.quantile(0.25))


@caught_by(1)
def spread_is_from_end_to_end(m):
    m.Timing.spread = property(lambda self: (max(self.samples) - min(self.samples)) / (self.median or 1.0))


@caught_by(1)
def spread_divides_by_a_median_of_zero(m):
    m.Timing.spread = property(lambda self: (self.quantile(0.75) - self.quantile(0.25)) / self.median)


@caught_by(1)
def two_samples_have_no_spread(m):
    rewritten(m, "Timing.spread", ("if not width:", "if not width or len(self.samples) < 3:"))


# 16.2 time_turns.


@caught_by(1)
def samples_are_of_all_calls_together(m):
    rewritten(m, "time_turns", ("run(function, count) / count", "run(function, count)"))


@caught_by(1)
def nothing_warms_up(m):
    rewritten(m, "time_turns", ("            function()\n            count = ", "            count = "))


@caught_by(1)
def one_function_after_the_other(m):
    rewritten(
        m,
        "time_turns",
        (
            "for _ in range(repeat):\n            for function, count, taken in turn:\n                taken",
            "for function, count, taken in turn:\n            for _ in range(repeat):\n                taken",
        ),
    )


@caught_by(1)
def always_in_the_same_order(m):
    rewritten(m, "time_turns", ("            turn.reverse()\n", ""))


@caught_by(1)
def the_collector_is_not_paused(m):
    rewritten(m, "time_turns", ("with gc_paused():", "if True:"))


@caught_by(1)
def the_collector_is_on_afterwards_in_any_case(m):
    @contextmanager
    def gc_paused():
        gc.disable()
        yield
        gc.enable()

    m.gc_paused = gc_paused


@caught_by(1)
def the_collector_rests_while_samples_are_taken_only(m):
    rewritten(
        m,
        "time_turns",
        ("    with gc_paused():\n        calls = []", "    calls = []\n    if True:"),
        (
            "        samples: list[list[float]] = [[] for _ in functions]",
            "        samples = [[] for _ in functions]\n    with gc_paused():",
        ),
    )


@caught_by(1)
def a_sample_that_is_just_long_enough_is_too_short(m):
    rewritten(m, "time_turns", ("run(function, count) < shortest", "run(function, count) <= shortest"))


@caught_by(1)
def no_sample_is_shorter_than_a_thousandth(m):
    rewritten(m, "time_turns", ("< shortest", "< max(shortest, SHORTEST)"))


@caught_by(1)
def calls_are_added_one_by_one_only_up_to_eight(m):
    rewritten(m, "time_turns", ("count < MOST_CALLS", "count < 8"))


@caught_by(1)
def a_clock_that_stands_still_goes_on_for_ever(m):
    m.MOST_CALLS = 1 << 22
    rewritten(m, "time_turns", ("count < MOST_CALLS", "count < 4 * MOST_CALLS"))


@caught_by(1)
def all_functions_get_the_calls_of_the_first(m):
    rewritten(m, "time_turns", ("calls.append(count)", "calls.append(calls[0] if calls else count)"))


@caught_by(1)
def samples_are_filed_under_their_function(m):
    rewritten(
        m,
        "time_turns",
        (
            "samples: list[list[float]] = [[] for _ in functions]",
            "filed = {function: [] for function in functions}\n"
            "        samples = [filed[function] for function in functions]",
        ),
    )


@caught_by(1)
def the_clock_is_read_at_each_call(m):
    rewritten(
        m,
        "time_turns",
        (
            "            function()\n        return clock() - start",
            "            function()\n            clock()\n        return clock() - start",
        ),
    )


@caught_by(1)
def the_clock_that_was_handed_in_is_not_used(m):
    rewritten(
        m,
        "time_turns",
        ("start = clock()", "start = time.process_time()"),
        ("return clock() - start", "return time.process_time() - start"),
    )


@caught_by(1)
def results_are_collected(m):
    rewritten(
        m,
        "time_turns",
        (
            "        start = clock()\n        for _ in range(calls):\n            function()\n"
            "        return clock() - start",
            "        start = clock()\n        kept.append([function() for _ in range(calls)])\n"
            "        return clock() - start",
        ),
        ("    def run(", "    kept = []\n\n    def run("),
    )


@caught_by(1)
def zero_repeats_give_a_timing_without_samples(m):
    rewritten(m, "time_turns", ("repeat < 1 or", "repeat < -10 or"))


# 16.3 Peaks, MemoryProfiler.


@caught_by(1)
def a_reading_inside_resets_the_peak_of_the_one_around_it(m):
    rewritten(m, "Peaks._note", ("for reading in self.open:", "for reading in self.open[-1:]:"))


@caught_by(1)
def the_peak_is_never_reset(m):
    rewritten(m, "Peaks._note", ("    tracemalloc.reset_peak()\n", ""))


@caught_by(1)
def the_peak_is_reset_before_it_is_noted(m):
    rewritten(m, "Peaks._note", ("    held, peak =", "    tracemalloc.reset_peak()\n    held, peak ="))


@caught_by(1)
def the_peak_is_what_all_of_the_process_holds(m):
    rewritten(m, "Peaks.end", ("worst - begin, held", "worst, held"))


@caught_by(1)
def what_is_left_is_never_less_than_nothing(m):
    rewritten(m, "Peaks.end", ("held - begin", "max(0, held - begin)"))


@caught_by(1)
def the_peak_is_where_it_ends(m):
    rewritten(m, "Peaks.end", ("worst - begin", "held - begin"))


@caught_by(1)
def tracing_is_stopped_whoever_started_it(m):
    @contextmanager
    def tracing():
        tracemalloc.start()
        try:
            yield
        finally:
            tracemalloc.stop()

    m.tracing = tracing


@caught_by(1)
def tracing_goes_on_when_somebody_stops_it_all(m):
    @contextmanager
    def tracing():
        was_on = tracemalloc.is_tracing()
        if not was_on:
            tracemalloc.start()
        try:
            yield
        except Exception:
            if not was_on:
                tracemalloc.stop()
            raise
        if not was_on:
            tracemalloc.stop()

    m.tracing = tracing


@caught_by(1)
def tracing_goes_on_after_an_error(m):
    @contextmanager
    def tracing():
        was_on = tracemalloc.is_tracing()
        tracemalloc.start()
        yield
        if not was_on:
            tracemalloc.stop()

    m.tracing = tracing


@caught_by(1)
def phases_are_listed_as_they_end(m):
    rewritten(
        m,
        "MemoryProfiler.phase",
        ("    self.phases.append(Phase(name, depth, 0, 0, 0))\n", ""),
        ("self.phases[place] =", "self.phases.append("),
        ("peak, retained)", "peak, retained))"),
    )


@caught_by(1)
def all_phases_are_on_one_level(m):
    rewritten(m, "MemoryProfiler.phase", ("len(self.phases), len(peaks.open) - 1", "len(self.phases), 0"))


@caught_by(1)
def a_phase_begins_at_what_the_process_held(m):
    rewritten(m, "MemoryProfiler.phase", ("begin - self._start", "begin"))


@caught_by(1)
def garbage_counts_as_retained(m):
    rewritten(m, "MemoryProfiler.phase", ("        gc.collect()\n", ""))


@caught_by(1)
def garbage_from_before_is_freed_in_the_first_phase(m):
    rewritten(m, "MemoryProfiler.__enter__", ("    gc.collect()\n", ""))


@caught_by(1)
def only_young_garbage_from_before_is_collected(m):
    rewritten(m, "MemoryProfiler.__enter__", ("gc.collect()", "gc.collect(0)"))


@caught_by(1)
def a_phase_that_somebody_stops_is_lost(m):
    rewritten(
        m,
        "MemoryProfiler.phase",
        (
            "    finally:\n        gc.collect()\n",
            "    except Exception:\n        pass\n    if True:\n        gc.collect()\n",
        ),
    )


@caught_by(1)
def a_phase_that_raises_is_lost(m):
    rewritten(
        m, "MemoryProfiler.phase", ("    try:\n        yield\n    finally:\n", "    yield\n    if True:\n")
    )


@caught_by(1)
def a_memory_profiler_remembers_earlier_blocks(m):
    rewritten(m, "MemoryProfiler.__enter__", ("    self.phases = []\n", ""))


@caught_by(1)
def a_phase_outside_of_the_block_counts_nothing_and_says_so_to_nobody(m):
    rewritten(
        m,
        "MemoryProfiler.phase",
        (
            'raise RuntimeError(f"the phase {name!r} must be inside of `with` its MemoryProfiler")',
            "peaks = m_Peaks()",
        ),
    )
    m.m_Peaks = type("Silent", (), {"open": [0], "begin": lambda self: 0, "end": lambda self: (0, 0)})
    m.MemoryProfiler._start = 0


# 16.4 op_flops.


@caught_by(1)
def a_product_counts_only_multiplications(m):
    rule(m, "matmul_flops", ("2 * out.size", "out.size"))


@caught_by(1)
def a_product_takes_the_last_axis_of_the_second(m):
    rule(m, "matmul_flops", ("np.shape(arrays[0])[-1]", "np.shape(arrays[1])[-1]"))


@caught_by(1)
def a_product_forgets_the_batch(m):
    rule(m, "matmul_flops", ("2 * out.size", "2 * math.prod(out.shape[-2:])"))


@caught_by(1)
def affine_takes_outputs_for_inputs(m):
    rule(m, "affine_flops", ("np.shape(arrays[1])[1]", "np.shape(arrays[1])[0]"))


@caught_by(1)
def a_bias_costs_nothing(m):
    m.has_bias = lambda arrays: False


@caught_by(1)
def a_bias_of_none_costs(m):
    m.has_bias = lambda arrays: len(arrays) > 2


@caught_by(1)
def a_convolution_sees_all_channels(m):
    rule(
        m,
        "conv2d_flops",
        ("math.prod(np.shape(arrays[1])[1:])", "math.prod(arrays[1].shape[2:]) * arrays[0].shape[1]"),
    )


@caught_by(1)
def a_convolution_costs_by_its_input(m):
    rule(m, "conv2d_flops", ("out.size *", "arrays[0].size // arrays[0].shape[1] * out.shape[1] *"))


@caught_by(1)
def a_pool_costs_by_its_input(m):
    rule(m, "pool_flops", ("int(out.size * (kernel", "int(arrays[0].size + 0 * (kernel"))


@caught_by(1)
def a_pool_has_a_square_kernel(m):
    rule(m, "pool_flops", ("math.prod(kernel)", "kernel[0] ** 2"))


@caught_by(1)
def batch_norm_is_always_in_training(m):
    rule(m, "batch_norm_flops", ('7 if params["training"] else 3', "7"))


@caught_by(1)
def parameters_left_out_have_no_defaults(m):
    rewritten(m, "op_flops", ("{**op.params, **params}", "dict.fromkeys(op.params) | dict(params)"))


@caught_by(1)
def defaults_win_over_parameters(m):
    rewritten(m, "op_flops", ("{**op.params, **params}", "{**params, **op.params}"))


@caught_by(1)
def parameters_become_defaults(m):
    rewritten(m, "op_flops", ("{**op.params, **params}", "op.params.update(params) or op.params"))


@caught_by(1)
def attention_computes_what_it_may_not_see(m):
    rule(m, "attention_flops", ('if params["is_causal"]:', "if False:"))


@caught_by(1)
def a_query_sees_only_keys_up_to_its_own_number(m):
    rule(
        m,
        "attention_flops",
        (
            "pairs = last * (keys - last) + last * (last + 1) // 2",
            "pairs = sum(min(i + 1, keys) for i in range(queries))",
        ),
    )


@caught_by(1)
def values_are_as_wide_as_keys(m):
    rule(m, "attention_flops", ("2 * v.shape[3]", "2 * dim"))


@caught_by(1)
def attention_counts_heads_of_keys(m):
    rule(m, "attention_flops", ("batch * heads * pairs", "batch * k.shape[1] * pairs"))


@caught_by(1)
def what_a_mask_hides_is_free(m):
    counted = """    if params["mask"] is not None:
        pairs = int(np.sum(params["mask"]))
    return int(batch"""
    rule(m, "attention_flops", ("    return int(batch", counted))


@caught_by(1)
def softmax_is_free_in_attention(m):
    rule(m, "attention_flops", ("2 * dim + 5 +", "2 * dim +"))


@caught_by(1)
def reductions_cost_by_their_result(m):
    rewritten(m, "op_flops", ("np.size(arrays[0])", "np.size(out)"))


@caught_by(1)
def views_compute(m):
    m.PER_ELEMENT = {name: count for name, count in m.PER_ELEMENT.items() if count}


@caught_by(1)
def a_rule_of_your_own_comes_too_late(m):
    m._cost_rules = dict(m._cost_rules)
    names = frozenset(m._cost_rules)
    rewritten(m, "op_flops", ("if op.name in _cost_rules:", "if op.name in KNOWN:"))
    m.KNOWN = names


# 16.5 op_bytes.


@caught_by(1)
def results_are_not_written(m):
    rewritten(m, "op_bytes", ("*bare(params.values()), out)", "*bare(params.values()))"))


@caught_by(1)
def all_numbers_are_float32(m):
    rewritten(m, "stored_bytes", ("x.itemsize", "4"))


@caught_by(1)
def views_are_copied(m):
    m.VIEWS = ()


@caught_by(1)
def reshape_never_copies(m):
    rewritten(
        m,
        "op_bytes",
        (
            "and np.may_share_memory(out, arrays[0])",
            'and (op.name != "getitem" or np.may_share_memory(out, arrays[0]))',
        ),
    )


@caught_by(1)
def an_operation_in_place_is_a_view(m):
    rewritten(m, "op_bytes", ("op.name in VIEWS and ", "isinstance(arrays[0], np.ndarray) and "))


@caught_by(1)
def a_look_up_reads_the_whole_table(m):
    rewritten(m, "op_bytes", ('("embedding", "getitem")', "()"))


@caught_by(1)
def ids_take_no_bytes(m):
    rewritten(m, "op_bytes", ("arrays[0] = out\n", "arrays = [out]\n"))


@caught_by(1)
def arrays_among_parameters_take_no_bytes(m):
    rewritten(m, "op_bytes", ("*bare(params.values()), ", ""))


@caught_by(1)
def repeated_elements_are_read_again(m):
    m.stored_bytes = lambda x: x.nbytes if isinstance(x, np.ndarray) else 0


@caught_by(1)
def nothing_repeated_is_something(m):
    rewritten(m, "stored_bytes", (" or not x.size", ""))


@caught_by(1)
def numbers_of_numpy_take_bytes(m):
    rewritten(
        m, "stored_bytes", ("not isinstance(x, np.ndarray)", "not isinstance(x, (np.ndarray, np.generic))")
    )


@caught_by(1)
def steps_backwards_are_no_steps(m):
    rewritten(m, "stored_bytes", ("strict=True) if step)", "strict=True) if step > 0)"))


@caught_by(1)
def numbers_take_eight_bytes(m):
    right = m.stored_bytes
    m.stored_bytes = lambda x: 8 if isinstance(x, float) else right(x)


# 16.6 Stopwatch, OpProfiler.


@caught_by(1)
def own_time_is_all_time(m):
    rewritten(m, "Stopwatch.time", ("duration - inside", "duration"))


@caught_by(1)
def time_inside_is_taken_off_twice(m):
    rewritten(
        m,
        "Stopwatch.time",
        (
            "    if self.inside:\n        self.inside[-1] += duration\n",
            "    for i in range(len(self.inside)):\n        self.inside[i] += duration\n",
        ),
    )


@caught_by(1)
def a_call_that_raises_stays_open(m):
    rewritten(
        m,
        "Stopwatch.time",
        (
            "    finally:\n        inside = self.inside.pop()\n",
            "    finally:\n        inside = self.inside[-1]\n",
        ),
        ("    if self.inside:\n", "    self.inside.pop()\n    if self.inside:\n"),
    )


@caught_by(1)
def a_call_that_somebody_stops_stays_open(m):
    rewritten(
        m,
        "Stopwatch.time",
        (
            "    finally:\n        inside",
            "    except Exception:\n        self.inside.pop()\n        raise\n    if True:\n        inside",
        ),
    )


@caught_by(1)
def depth_counts_the_call_itself(m):
    rewritten(
        m,
        "Stopwatch.time",
        (
            "depth = len(self.inside)\n    self.inside.append(0)\n",
            "self.inside.append(0)\n    depth = len(self.inside)\n",
        ),
    )


@caught_by(1)
def peaks_of_a_call_that_raises_stay_open(m):
    rewritten(
        m,
        "Stopwatch.time",
        (
            "        inside = self.inside.pop()\n        if self.peaks is not None:\n"
            "            peak, _ = self.peaks.end()\n",
            "        inside = self.inside.pop()\n",
        ),
        ("    if self.inside:\n", "    if self.peaks is not None:\n        peak = 0\n    if self.inside:\n"),
    )


@caught_by(1)
def counting_is_in_the_time(m):
    rewritten(
        m,
        "OpProfiler._forward",
        (
            "self._watch.time(call, op, *inputs, **params)",
            "self._watch.time(self._slow, call, op, *inputs, **params)",
        ),
    )

    def slow(self, call, op, *inputs, **params):
        out = call(op, *inputs, **params)
        self.clock()
        return out

    m.OpProfiler._slow = slow


@caught_by(1)
def only_recorded_operations_are_seen(m):
    rewritten(
        m,
        "OpProfiler._forward",
        (
            "if threading.get_ident() != self._thread:",
            "if not any(getattr(x, 'requires_grad', False) for x in inputs):",
        ),
    )


@caught_by(1)
def operations_stay_watched_after_an_error(m):
    rewritten(
        m,
        "OpProfiler.__exit__",
        ("    self._undo.close()\n", "    if error[0] is None:\n        self._undo.close()\n"),
    )


@caught_by(1)
def operations_stay_watched(m):
    rewritten(
        m, "OpProfiler.__enter__", ('    self._undo.callback(setattr, Op, "__call__", Op.__call__)\n', "")
    )


@caught_by(1)
def errors_of_the_block_are_swallowed(m):
    right = m.OpProfiler.__exit__

    def exit(self, *error):
        right(self, *error)
        return True

    m.OpProfiler.__exit__ = exit


@caught_by(1)
def a_profiler_can_be_entered_twice(m):
    rewritten(m, "OpProfiler.__enter__", ("if self._thread is not None:", "if False:"))


@caught_by(1)
def events_are_forgotten_on_entering_again(m):
    rewritten(m, "OpProfiler.__enter__", ("    self._thread =", "    self.events = []\n    self._thread ="))


@caught_by(1)
def operations_stay_watched_when_somebody_stops_it_all(m):
    right = m.OpProfiler.__exit__

    def __exit__(self, kind=None, error=None, trace=None):
        if kind is None or issubclass(kind, Exception):
            right(self)

    m.OpProfiler.__exit__ = __exit__


@caught_by(1)
def only_the_main_thread_is_seen(m):
    elsewhere = "threading.current_thread() is not threading.main_thread()"
    rewritten(m, "OpProfiler._forward", ("threading.get_ident() != self._thread", elsewhere))


@caught_by(1)
def threads_are_mixed_up(m):
    rewritten(
        m, "OpProfiler._forward", ("if threading.get_ident() != self._thread:", "if self._thread is None:")
    )
    rewritten(
        m, "OpProfiler._watch_rule", ("if threading.get_ident() != self._thread:", "if self._thread is None:")
    )


@caught_by(1)
def the_result_is_a_new_tensor(m):
    rewritten(
        m,
        "OpProfiler._forward",
        (
            "    return out\n",
            "    copy = Tensor(out.data, out.requires_grad)\n    copy.node = out.node\n    return copy\n",
        ),
    )


@caught_by(1)
def shapes_are_of_tensors_only(m):
    rewritten(m, "OpProfiler._forward", ("isinstance(x, (Tensor, np.ndarray))", "isinstance(x, Tensor)"))


@caught_by(1)
def shapes_are_of_everything(m):
    rewritten(
        m,
        "OpProfiler._forward",
        (
            "tuple(x.shape for x in inputs if isinstance(x, (Tensor, np.ndarray)))",
            "tuple(getattr(x, 'shape', ()) for x in inputs)",
        ),
    )


@caught_by(1)
def the_dtype_is_that_of_the_first_input(m):
    rewritten(
        m, "OpProfiler._forward", ("shapes, out.dtype,", "shapes, getattr(inputs[0], 'dtype', out.dtype),")
    )


@caught_by(1)
def memory_is_counted_without_tracing(m):
    rewritten(
        m, "OpProfiler.__enter__", ("    if self.memory:\n        self._undo.enter_context(tracing())\n", "")
    )


@caught_by(1)
def memory_is_always_counted(m):
    rewritten(m, "OpProfiler.__enter__", ("    if self.memory:\n", "    if True:\n"))


# 16.7 The way back.


@caught_by(1)
def the_way_back_is_not_seen(m):
    m.OpProfiler._watch_rule = lambda self, op: None


@caught_by(1)
def the_way_back_has_a_watch_of_its_own(m):
    rewritten(
        m,
        "OpProfiler.__enter__",
        (
            "self._undo = contextlib.ExitStack()",
            "self._undo = contextlib.ExitStack()\n    self._back = Stopwatch(self.clock, self.memory)",
        ),
    )
    rewritten(m, "OpProfiler._watch_rule", ("self._watch.time(pull", "self._back.time(pull"))


@caught_by(1)
def the_way_back_is_never_inside_of_another_call(m):
    rewritten(m, "OpProfiler._watch_rule", ('"backward", span,', '"backward", span._replace(depth=0),'))


@caught_by(1)
def rules_stay_watched(m):
    rewritten(m, "OpProfiler._watch_rule", ("    self._undo.callback(put_back)\n", ""))


@caught_by(1)
def rules_are_watched_again_and_again(m):
    rewritten(m, "OpProfiler._watch_rule", ("if pull is None or op in self._seen:", "if pull is None:"))


@caught_by(1)
def one_rule_a_name_is_watched(m):
    rewritten(
        m,
        "OpProfiler._watch_rule",
        ("op in self._seen", "op.name in self._seen"),
        ("add(op)", "add(op.name)"),
    )


@caught_by(1)
def a_rule_is_recognised_by_who_watched_it_last(m):
    rewritten(
        m,
        "OpProfiler._watch_rule",
        ("op in self._seen", "getattr(pull, 'owner', None) is self"),
        ("    op.pull = watched\n", "    watched.owner = self\n    op.pull = watched\n"),
    )


@caught_by(1)
def a_rule_that_was_exchanged_is_put_back(m):
    rewritten(m, "OpProfiler._watch_rule", ("if op.pull is watched:", "if True:"))


@caught_by(1)
def a_rule_is_watched_before_the_call(m):
    rewritten(
        m,
        "OpProfiler._forward",
        ("    out: Tensor\n", "    self._watch_rule(op)\n    out: Tensor\n"),
        ("    self._watch_rule(op)\n    return out", "    return out"),
    )


@caught_by(1)
def the_way_back_is_recorded_after_the_block(m):
    rewritten(m, "OpProfiler._watch_rule", ("if threading.get_ident() != self._thread:", "if False:"))


@caught_by(1)
def the_way_back_breaks_after_the_block(m):
    rewritten(
        m,
        "OpProfiler._watch_rule",
        (
            "if threading.get_ident() != self._thread:\n            return pull(grad, *kept)",
            "if self._thread is None:\n            raise RuntimeError('the profiler is over')",
        ),
    )


@caught_by(1)
def the_way_back_costs_as_much_as_the_way_there(m):
    rewritten(m, "OpProfiler._forward", ("2 * flops, 2 * moved", "flops, moved"))


@caught_by(1)
def calls_are_known_by_op_and_shape(m):
    m.OpProfiler._key = staticmethod(lambda op, out, kept: (op, out.shape))


@caught_by(1)
def calls_are_known_by_the_first_thing_they_kept(m):
    m.OpProfiler._key = staticmethod(lambda op, out, kept: (op, out.shape, *map(id, kept[:1])))


@caught_by(1)
def calls_are_known_by_the_last_thing_they_kept(m):
    m.OpProfiler._key = staticmethod(lambda op, out, kept: (op, out.shape, *map(id, kept[-1:])))


@caught_by(1)
def calls_are_known_by_the_name_of_their_op(m):
    m.OpProfiler._key = staticmethod(lambda op, out, kept: (op.name, out.shape, *map(id, kept)))


@caught_by(1)
def calls_are_known_by_what_they_kept(m):
    m.OpProfiler._key = staticmethod(lambda op, out, kept: (op, *map(id, kept)))


@caught_by(1)
def a_call_is_found_once(m):
    rewritten(m, "OpProfiler._watch_rule", ("self._costs.get(", "self._costs.pop("))


@caught_by(1)
def only_graphs_are_known(m):
    rewritten(
        m,
        "OpProfiler._forward",
        ('getattr(out.node, "kept", None)', 'out.node.kept if type(out.node).__name__ == "Node" else None'),
    )


@caught_by(1)
def an_op_without_a_rule_gets_one(m):
    rewritten(
        m,
        "OpProfiler._watch_rule",
        ("if pull is None or op in self._seen:", "if op in self._seen:"),
        (
            "        if op.pull is watched:\n            op.pull = pull",
            "        if op.pull is watched and pull is not None:\n            op.pull = pull",
        ),
    )


@caught_by(1)
def shapes_of_the_way_back_are_of_what_was_kept(m):
    rewritten(m, "OpProfiler._watch_rule", ("(grad.shape,)", "tuple(np.shape(k) for k in kept)"))


# 16.8 by_op.


@caught_by(1)
def there_and_back_are_one_row(m):
    right = m.by_op
    m.by_op = lambda events: right([e._replace(phase="forward") for e in events])


@caught_by(1)
def rows_are_in_the_order_of_total_time(m):
    rewritten(m, "by_op", ("-row.self_ns", "-row.total_ns"))


@caught_by(1)
def the_cheapest_comes_first(m):
    rewritten(m, "by_op", ("-row.self_ns", "row.self_ns"))


@caught_by(1)
def equals_are_in_the_order_of_names(m):
    rewritten(m, "by_op", ("key=lambda row: -row.self_ns", "key=lambda row: (-row.self_ns, row.name)"))


@caught_by(1)
def shares_are_of_total_time(m):
    rewritten(m, "by_op", ("everything = sum(event.self_ns", "everything = sum(event.duration_ns"))


@caught_by(1)
def no_time_is_divided_by(m):
    rewritten(m, "by_op", ("own / everything if everything else 0.0", "own / everything"))


@caught_by(1)
def peaks_are_added_up(m):
    rewritten(m, "by_op", ("max(peaks, default=None)", "sum(peaks) if peaks else None"))


@caught_by(1)
def a_peak_of_nothing_is_none(m):
    rewritten(m, "by_op", ("if event.peak_bytes is not None", "if event.peak_bytes"))


@caught_by(1)
def rate_is_by_total_time(m):
    m.OpRow.rate = property(lambda self: self.flops / self.total_ns * 1e9 if self.total_ns else 0.0)


@caught_by(1)
def rate_is_in_gigaflops(m):
    m.OpRow.rate = property(lambda self: self.flops / self.self_ns if self.self_ns else 0.0)


@caught_by(1)
def events_are_gone_through_twice(m):
    rewritten(
        m,
        "by_op",
        (
            "everything = sum(event.self_ns for group in groups.values() for event in group)",
            "everything = sum(event.self_ns for event in events)",
        ),
    )


@caught_by(4)
def each_op_looks_through_all_events(m):
    right = m.by_op

    def by_op(events):
        events = list(events)
        keys = []
        for event in events:
            if [1 for key in keys if key == event[:2]] == []:
                keys.append(event[:2])
        return right(events)

    m.by_op = by_op


# 16.9 profile_modules.


@caught_by(1)
def modules_have_no_time_of_their_own(m):
    rewritten(m, "profile_modules", ("sum(span.own for span in some)", "sum(span.duration for span in some)"))


@caught_by(1)
def modules_stay_watched_after_an_error(m):
    rewritten(
        m,
        "profile_modules",
        (
            "        try:\n            model(*inputs)\n        finally:\n            setattr",
            "        if True:\n            model(*inputs)\n            setattr",
        ),
    )


@caught_by(1)
def modules_stay_watched_when_somebody_stops_it_all(m):
    put_back = 'setattr(Module, "__call__", call)  # noqa: B010'
    rewritten(
        m,
        "profile_modules",
        (
            f"        finally:\n            {put_back}",
            f"        except Exception:\n            {put_back}\n            raise\n        {put_back}",
        ),
    )


@caught_by(1)
def modules_are_called_as_they_were_at_the_import(m):
    m.at_the_import = m.Module.__call__
    rewritten(m, "profile_modules", ("memory), Module.__call__", "memory), at_the_import"))


@caught_by(1)
def modules_are_put_back_as_they_were_at_the_import(m):
    m.at_the_import = m.Module.__call__
    rewritten(
        m,
        "profile_modules",
        ('setattr(Module, "__call__", call)', 'setattr(Module, "__call__", at_the_import)'),
    )


@caught_by(1)
def tracing_is_off_when_modules_were_profiled(m):
    @contextmanager
    def tracing():
        tracemalloc.start()
        try:
            yield
        finally:
            tracemalloc.stop()

    m._tracing = tracing
    rewritten(m, "profile_modules", ("with tracing() if memory", "with _tracing() if memory"))


@caught_by(1)
def modules_of_others_have_a_row(m):
    rewritten(
        m,
        "profile_modules",
        (
            "        if module not in paths:\n            return call(module, *args, **options)\n",
            "        if module not in paths:\n            paths[module], spans[module] = '?', []\n",
        ),
    )


@caught_by(1)
def the_last_call_counts(m):
    rewritten(m, "profile_modules", ("spans[module].append(span)", "spans[module] = [span]"))


@caught_by(1)
def modules_are_in_the_order_in_which_they_end(m):
    rewritten(
        m,
        "profile_modules",
        (
            "spans: dict[Module, list[Span]] = {module: [] for module in paths}",
            "spans: dict[Module, list[Span]] = {}",
        ),
        ("spans[module].append(span)", "spans.setdefault(module, []).append(span)"),
    )


@caught_by(1)
def modules_that_were_not_called_have_a_row(m):
    rewritten(m, "profile_modules", ("        if some\n", ""))


@caught_by(1)
def options_get_lost(m):
    rewritten(
        m,
        "profile_modules",
        (
            "out, span = watch.time(call, module, *args, **options)",
            "out, span = watch.time(call, module, *args)",
        ),
    )


@caught_by(1)
def only_the_first_input_is_handed_on(m):
    rewritten(m, "profile_modules", ("            model(*inputs)", "            model(inputs[0])"))


@caught_by(1)
def the_model_runs_twice(m):
    rewritten(m, "profile_modules", ("    with tracing()", "    model(*inputs)\n    with tracing()"))


@caught_by(1)
def hooks_count_to_the_module_above(m):
    rewritten(
        m,
        "profile_modules",
        (
            "Stopwatch(clock, memory), Module.__call__",
            "Stopwatch(clock, memory), Module.__call__\n\n"
            "    def inside(module, *args, **options):\n"
            "        return module.forward(*args, **options)",
        ),
        (
            "out, span = watch.time(call, module, *args, **options)",
            "out, span = watch.time(inside, module, *args, **options)\n"
            "        for hook in [*vars(module).get('_forward_hooks', {}).values()]:\n"
            "            hook(module, args, out)",
        ),
    )


@caught_by(1)
def the_peak_is_that_of_the_last_call(m):
    rewritten(
        m,
        "profile_modules",
        ("max((span.peak for span in some if span.peak is not None), default=None)", "some[-1].peak"),
    )


@caught_by(3)
def results_of_modules_are_kept(m):
    rewritten(
        m,
        "profile_modules",
        (
            "        spans[module].append(span)\n",
            "        spans[module].append(span)\n        outs.append(out)\n",
        ),
        ("    watch, call =", "    outs = []\n    watch, call ="),
    )


# 16.10 Roofline.


@caught_by(1)
def the_ridge_is_upside_down(m):
    m.Roofline.ridge = property(lambda self: self.bandwidth / self.peak_flops)


@caught_by(1)
def more_intensity_is_always_faster(m):
    rewritten(
        m,
        "Roofline.attainable",
        ("min(self.peak_flops, intensity * self.bandwidth)", "intensity * self.bandwidth"),
    )


@caught_by(1)
def computing_waits_for_fetching(m):
    rewritten(
        m,
        "Roofline.roof_seconds",
        (
            "max(flops / self.peak_flops, bytes / self.bandwidth)",
            "flops / self.peak_flops + bytes / self.bandwidth",
        ),
    )


@caught_by(1)
def the_roof_is_the_shorter_time(m):
    rewritten(m, "Roofline.roof_seconds", ("max(", "min("))


@caught_by(1)
def overhead_is_asked_for_last(m):
    rewritten(
        m,
        "Roofline.bound",
        (
            "if self.roof_seconds(flops, bytes) < self.overhead:",
            "if not flops and not bytes and self.overhead:",
        ),
    )


@caught_by(1)
def a_roof_as_long_as_the_overhead_is_overhead(m):
    rewritten(m, "Roofline.bound", ("< self.overhead", "<= self.overhead"))


@caught_by(1)
def the_ridge_itself_is_memory(m):
    rewritten(m, "Roofline.bound", (">= bytes", "> bytes"))


@caught_by(1)
def a_copy_only_reads(m):
    rewritten(m, "measure_roofline", ("2 * source.nbytes / copying", "source.nbytes / copying"))


@caught_by(1)
def a_product_of_squares_is_side_cubed(m):
    rewritten(m, "measure_roofline", ("2 * side**3 / computing", "side**3 / computing"))


@caught_by(1)
def overhead_is_that_of_an_array(m):
    rewritten(m, "measure_roofline", ("lambda: neg(number)", "lambda: np.negative(number.data)"))


@caught_by(3)
def each_product_has_an_array_of_its_own(m):
    rewritten(m, "measure_roofline", ("np.matmul(a, b, out=product)", "a @ b"))


@caught_by(3)
def each_copy_has_an_array_of_its_own(m):
    rewritten(m, "measure_roofline", ("np.copyto(target, source)", "source.copy()"))


@caught_by(1)
def a_roofline_in_float64(m):
    rewritten(
        m,
        "measure_roofline",
        ("np.ones(length, np.float32), np.zeros(length, np.float32)", "np.ones(length), np.zeros(length)"),
    )


@caught_by(1)
def the_roofline_is_by_the_mean(m):
    rewritten(m, "measure_roofline", (".best for call", ".mean for call"))


# 16.11 bottlenecks.


@caught_by(1)
def the_roof_is_of_all_calls_together(m):
    right = m.bottlenecks

    def bottlenecks(events, roofline, top=5):
        merged, events = {}, list(events)
        for e in events:
            old = merged.get(e[:2])
            merged[e[:2]] = (
                e
                if old is None
                else old._replace(
                    self_ns=old.self_ns + e.self_ns, flops=old.flops + e.flops, bytes=old.bytes + e.bytes
                )
            )
        calls = {(r.name, r.phase): r.calls for r in m.by_op(events)}
        return [b._replace(calls=calls[b.name, b.phase]) for b in right(merged.values(), roofline, top)]

    m.bottlenecks = bottlenecks


@caught_by(1)
def overhead_is_not_in_the_roof(m):
    rewritten(
        m,
        "bottlenecks",
        (
            "roof = max(roofline.roof_seconds(event.flops, event.bytes), roofline.overhead)",
            "roof = roofline.roof_seconds(event.flops, event.bytes)",
        ),
    )


@caught_by(1)
def overhead_comes_on_top_of_the_roof(m):
    rewritten(
        m,
        "bottlenecks",
        (
            "max(roofline.roof_seconds(event.flops, event.bytes), roofline.overhead)",
            "roofline.roof_seconds(event.flops, event.bytes) + roofline.overhead",
        ),
    )


@caught_by(1)
def the_bound_is_that_of_most_calls(m):
    rewritten(m, "bottlenecks", ("[bound] += event.self_ns", "[bound] += 1"))


@caught_by(1)
def the_bound_is_that_of_the_first_call(m):
    rewritten(m, "bottlenecks", ("times[key].most_common(1)[0][0]", "next(iter(times[key]))"))


@caught_by(1)
def the_bound_goes_by_time_inside_other_calls_too(m):
    rewritten(m, "bottlenecks", ("[bound] += event.self_ns", "[bound] += event.duration_ns"))


@caught_by(1)
def shares_are_of_the_top_ones(m):
    rewritten(
        m,
        "bottlenecks",
        ("row.share, seconds", "row.self_ns / max(1, sum(r.self_ns for r in by_op(events)[:top])), seconds"),
    )


@caught_by(1)
def bottlenecks_are_by_total_time(m):
    rewritten(m, "bottlenecks", ("row.self_ns / 1e9", "row.total_ns / 1e9"))


@caught_by(1)
def all_ops_are_bottlenecks(m):
    rewritten(m, "bottlenecks", ("[:top]", ""))


@caught_by(1)
def half_of_the_roof_is_far(m):
    rewritten(m, "bottlenecks", ("of_roof >= NEAR", "of_roof > NEAR"))


@caught_by(1)
def overhead_far_below_its_roof_is_far(m):
    rewritten(m, "bottlenecks", ('bound == "overhead" or of_roof', "of_roof"))


@caught_by(1)
def nothing_is_above_its_roof(m):
    rewritten(
        m,
        "bottlenecks",
        (
            "of_roof = roof / seconds if seconds else math.inf if roof else 1.0",
            "of_roof = min(1.0, roof / seconds) if seconds else 1.0",
        ),
    )


@caught_by(1)
def events_of_a_generator_are_used_up(m):
    rewritten(m, "bottlenecks", ("    events = list(events)\n", ""))


# 16.12 fit_growth.


@caught_by(1)
def growth_is_fitted_to_the_costs_themselves(m):
    rewritten(
        m,
        "fit_growth",
        (
            "        off = y - np.log(growth(n))\n"
            "        factors[name] = float(np.exp(off.mean()))\n"
            "        residuals[name] = float(off.std())\n",
            "        g = growth(n)\n        factors[name] = float((g @ cost) / (g @ g))\n"
            "        residuals[name] = float((cost - factors[name] * g).std())\n",
        ),
    )


@caught_by(1)
def growth_has_no_factor(m):
    rewritten(m, "fit_growth", ("float(off.std())", "float(np.sqrt((off**2).mean()))"))


@caught_by(1)
def residuals_are_divided_by_n_minus_1(m):
    rewritten(m, "fit_growth", ("off.std()", "off.std(ddof=1)"))


@caught_by(1)
def the_factor_is_the_mean_of_the_ratios(m):
    rewritten(m, "fit_growth", ("float(np.exp(off.mean()))", "float(np.exp(off).mean())"))


@caught_by(1)
def logarithms_are_to_base_2(m):
    m.GROWTHS = {**m.GROWTHS, "log n": np.log2, "n log n": lambda n: n * np.log2(n)}


@caught_by(1)
def there_is_no_n_log_n(m):
    m.GROWTHS = {name: growth for name, growth in m.GROWTHS.items() if name != "n log n"}


@caught_by(1)
def the_exponent_is_from_first_to_last(m):
    rewritten(
        m,
        "fit_growth",
        ("exponent = float(slopes_of(x, y))", "exponent = float((y[-1] - y[0]) / (x[-1] - x[0]))"),
    )


@caught_by(1)
def draws_have_other_points_for_sizes_and_costs(m):
    rewritten(
        m,
        "fit_growth",
        ("slopes_of(x[draws], y[draws])", "slopes_of(x[draws], y[rng.permutation(draws.T).T])"),
    )


@caught_by(1)
def draws_of_one_size_spoil_the_interval(m):
    rewritten(m, "fit_growth", ("slopes[np.isfinite(slopes)]", "np.nan_to_num(slopes)"))


@caught_by(1)
def the_interval_is_a_standard_deviation(m):
    rewritten(
        m,
        "fit_growth",
        (
            "np.quantile(slopes[np.isfinite(slopes)], (0.025, 0.975))",
            "np.quantile(slopes[np.isfinite(slopes)], (0.16, 0.84))",
        ),
    )


@caught_by(1)
def the_interval_has_90_percent(m):
    rewritten(m, "fit_growth", ("(0.025, 0.975)", "(0.05, 0.95)"))


@caught_by(1)
def the_interval_has_99_percent(m):
    rewritten(m, "fit_growth", ("(0.025, 0.975)", "(0.005, 0.995)"))


@caught_by(1)
def what_is_off_is_drawn_and_not_points(m):
    rewritten(
        m,
        "fit_growth",
        (
            "slopes_of(x[draws], y[draws])",
            "slopes_of(np.broadcast_to(x, draws.shape), _line(x, y) + (y - _line(x, y))[draws])",
        ),
    )
    m._line = lambda x, y: y.mean() + m.slopes_of(x, y) * (x - x.mean())


@caught_by(1)
def a_thousand_draws_whatever_is_asked_for(m):
    rewritten(m, "fit_growth", ("(resamples, len(n))", "(1000, len(n))"))


@caught_by(1)
def costs_become_logarithms_where_they_are(m):
    rewritten(m, "fit_growth", ("np.log(cost)", "np.log(cost, out=cost)"))


@caught_by(1)
def sizes_are_sorted_where_they_are(m):
    rewritten(
        m,
        "fit_growth",
        (
            "x, y = np.log(n)",
            "order = np.argsort(n)\n    n[:], cost[:] = n[order], cost[order]\n    x, y = np.log(n)",
        ),
    )


@caught_by(1)
def the_draws_are_always_the_same(m):
    rewritten(m, "fit_growth", ("rng.integers(", "np.random.default_rng(0).integers("))


@caught_by(1)
def two_sizes_are_enough(m):
    rewritten(m, "fit_growth", ("len(np.unique(n)) < 3", "len(np.unique(n)) < 2"))


@caught_by(1)
def a_size_of_1_is_fine(m):
    rewritten(m, "fit_growth", ("(n >= 2).all()", "(n >= 1).all()"))


@caught_by(1)
def costs_of_nothing_are_fine(m):
    rewritten(
        m,
        "fit_growth",
        ("(cost > 0) & np.isfinite(cost)", "np.isfinite(cost) | True"),
        ("    x, y =", "    cost = np.abs(cost) + 1e-300\n    x, y ="),
    )


@caught_by(1)
def slopes_go_through_zero(m):
    rewritten(m, "slopes_of", ("    x = x - x.mean(axis=-1, keepdims=True)\n", ""))


@caught_by(1)
def sizes_are_the_same_if_they_are_their_mean(m):
    rewritten(m, "slopes_of", ("np.ptp(x, axis=-1) < 1e-9", "(x * x).sum(axis=-1) == 0"))


@caught_by(1)
def points_are_centred_in_place(m):
    rewritten(
        m,
        "slopes_of",
        ("    x = x - x.mean(axis=-1, keepdims=True)\n", "    x -= x.mean(axis=-1, keepdims=True)\n"),
    )


@caught_by(4)
def draws_are_fitted_one_by_one(m):
    rewritten(
        m,
        "fit_growth",
        (
            "slopes = slopes_of(x[draws], y[draws])",
            "slopes = np.array([slopes_of(x[draw], y[draw]) for draw in draws])",
        ),
    )


# 16.13 mann_whitney.


@caught_by(1)
def u_is_that_of_the_other_sample(m):
    right = m.mann_whitney
    m.mann_whitney = lambda a, b: (len(a) * len(b) - right(a, b)[0], right(a, b)[1])


@caught_by(1)
def u_is_the_smaller_one(m):
    right = m.mann_whitney
    m.mann_whitney = lambda a, b: (min(right(a, b)[0], len(a) * len(b) - right(a, b)[0]), right(a, b)[1])


@caught_by(1)
def equals_get_the_lowest_rank(m):
    rewritten(m, "mann_whitney", ("np.cumsum(counts) - (counts - 1) / 2", "np.cumsum(counts) - (counts - 1)"))


@caught_by(1)
def what_is_less_than_a_nanosecond_apart_is_equal(m):
    rewritten(
        m, "mann_whitney", ("np.concatenate((first, second))", "np.concatenate((first, second)).round(9)")
    )


@caught_by(1)
def u_is_a_sum_of_ranks(m):
    rewritten(m, "mann_whitney", (" - n * (n + 1) / 2\n", "\n"))


@caught_by(1)
def p_is_one_sided(m):
    right = m.mann_whitney
    m.mann_whitney = lambda a, b: (right(a, b)[0], right(a, b)[1] / 2)


@caught_by(1)
def p_is_always_normal(m):
    m.EXACT = 0


@caught_by(1)
def p_is_exact_with_equals_too(m):
    rewritten(m, "mann_whitney", ("len(counts) == total and max", "max"))


@caught_by(1)
def equals_on_one_side_do_not_matter(m):
    between = "not set(first.tolist()) & set(second.tolist())"
    rewritten(m, "mann_whitney", ("len(counts) == total and", f"{between} and"))


@caught_by(1)
def one_small_side_is_enough_to_count(m):
    rewritten(m, "mann_whitney", ("max(n, m) <= EXACT", "min(n, m) <= EXACT"))


@caught_by(1)
def ties_do_not_matter(m):
    rewritten(m, "mann_whitney", ("- ties / (total * (total - 1))", ""))


@caught_by(1)
def steps_are_not_evened_out(m):
    rewritten(m, "mann_whitney", ("away - 0.5", "away"))


@caught_by(1)
def p_can_be_more_than_1(m):
    rewritten(m, "mann_whitney", ("max(0.0, away - 0.5)", "(away - 0.5)"))


@caught_by(1)
def all_equal_divides_by_zero(m):
    rewritten(m, "mann_whitney", ("    if len(counts) == 1:\n        return u, 1.0\n", ""))


@caught_by(1)
def only_more_extreme_orders_count(m):
    rewritten(m, "mann_whitney", (">= away)", "> away)"))


@caught_by(1)
def counts_overflow(m):
    rewritten(m, "mann_whitney", ("counts.astype(np.float64) ** 3", "counts.astype(np.int8) ** 3"))


@caught_by(1)
def nan_is_a_number(m):
    m.check_samples = lambda samples: np.nan_to_num(np.atleast_1d(np.asarray(samples, np.float64)))


@caught_by(1)
def orders_begin_with_two(m):
    right = m.orders
    m.orders = lambda n, k: [2 * way for way in right(n, k)]


@caught_by(1)
def of_one_side_alone_there_are_no_orders(m):
    right = m.orders
    m.orders = lambda n, k: right(n, k) if n and k else []


@caught_by(1)
def orders_forget_the_last_b(m):
    rewritten(m, "orders", ("range(1, m + 1)", "range(1, m)"))


@caught_by(3)
def all_pairs_are_compared_at_once(m):
    right = m.mann_whitney

    def mann_whitney(a, b):
        a, b = np.asarray(a, float), np.asarray(b, float)
        pairs = (a[:, None] > b) + (a[:, None] == b) / 2
        u, p = right(a, b)
        assert pairs.sum() == u
        return u, p

    m.mann_whitney = mann_whitney


@caught_by(4)
def pairs_are_compared_one_by_one(m):
    right = m.mann_whitney

    def mann_whitney(a, b):
        _, p = right(a, b)
        first, second = np.asarray(a).tolist(), np.asarray(b).tolist()
        return sum((x > y) + (x == y) / 2 for x in first for y in second) * 1.0, p

    m.mann_whitney = mann_whitney


# 16.14 bootstrap_ratio.


@caught_by(1)
def the_ratio_is_upside_down(m):
    rewritten(m, "bootstrap_ratio", ("medians[1] / medians[0]", "medians[0] / medians[1]"))


@caught_by(1)
def the_ratio_is_of_means(m):
    rewritten(m, "bootstrap_ratio", ("np.median(side[", "np.mean(side["))


@caught_by(1)
def draws_are_without_repeats(m):
    rewritten(
        m,
        "bootstrap_ratio",
        (
            "side[rng.integers(0, len(side), (resamples, len(side)))]",
            "rng.permuted(np.tile(side, (resamples, 1)), axis=1)",
        ),
    )


@caught_by(1)
def two_thousand_draws_whatever_is_asked_for(m):
    rewritten(m, "bootstrap_ratio", ("(resamples, len(side))", "(2000, len(side))"))


@caught_by(1)
def both_sides_are_drawn_alike(m):
    rewritten(
        m,
        "bootstrap_ratio",
        ("    medians = []\n", "    medians = []\n    seed = int(rng.integers(1 << 30))\n"),
        ("rng.integers(0, len(side), (", "np.random.default_rng(seed).integers(0, len(side), ("),
    )


@caught_by(1)
def draws_are_of_ten(m):
    rewritten(m, "bootstrap_ratio", ("(resamples, len(side))", "(resamples, 10)"))


@caught_by(1)
def the_confidence_is_left_out_on_each_side(m):
    rewritten(m, "bootstrap_ratio", ("(1 - confidence) / 2", "min(0.5, 1 - confidence)"))


@caught_by(1)
def the_confidence_is_always_95_percent(m):
    rewritten(m, "bootstrap_ratio", ("tail = (1 - confidence) / 2", "tail = 0.025"))


@caught_by(1)
def samples_of_zero_have_a_ratio(m):
    rewritten(m, "bootstrap_ratio", ("(side > 0).all()", "(side >= 0).all()"))


@caught_by(1)
def the_draws_are_not_those_of_rng(m):
    rewritten(m, "bootstrap_ratio", ("rng.integers(0,", "np.random.default_rng().integers(0,"))


@caught_by(4)
def medians_are_taken_one_by_one(m):
    def medians(side, rng, resamples):
        n = len(side)
        for _ in range(resamples):
            draw = np.sort(side[rng.integers(0, n, n)])
            yield (draw[(n - 1) // 2] + draw[n // 2]) / 2

    m.one_by_one = medians
    rewritten(
        m,
        "bootstrap_ratio",
        (
            "np.median(side[rng.integers(0, len(side), (resamples, len(side)))], axis=1)",
            "np.fromiter(one_by_one(side, rng, resamples), np.float64)",
        ),
    )


# 16.15 detect_regression.


@caught_by(1)
def a_significant_change_is_a_regression(m):
    rewritten(
        m,
        "detect_regression",
        ("ratio >= threshold and ", "ratio > 1 and "),
        ("ratio <= 1 / threshold and ", "ratio < 1 and "),
    )


@caught_by(1)
def the_ratio_alone_decides(m):
    rewritten(m, "detect_regression", (" and low > 1 and p < alpha", ""), (" and high < 1 and p < alpha", ""))


@caught_by(1)
def the_interval_is_not_asked(m):
    rewritten(m, "detect_regression", (" and low > 1", ""), (" and high < 1", ""))


@caught_by(1)
def the_ranks_are_not_asked(m):
    rewritten(
        m,
        "detect_regression",
        (" and low > 1 and p < alpha", " and low > 1"),
        (" and high < 1 and p < alpha", " and high < 1"),
    )


@caught_by(1)
def faster_and_slower_are_exchanged(m):
    right = m.detect_regression
    m.detect_regression = lambda before, after, **options: right(after, before, **options)


@caught_by(1)
def nothing_is_ever_faster(m):
    rewritten(m, "detect_regression", ('verdict = "faster"', 'verdict = "same"'))


@caught_by(1)
def what_is_not_slower_is_the_same(m):
    rewritten(
        m,
        "detect_regression",
        ('"same" if 1 / threshold <= low and high <= threshold else "unsure"', '"same"'),
    )


@caught_by(1)
def an_interval_within_the_threshold_on_one_side_is_the_same(m):
    rewritten(m, "detect_regression", ("1 / threshold <= low and high <= threshold", "high <= threshold"))


@caught_by(1)
def the_threshold_is_as_far_below_1_as_above(m):
    rewritten(m, "detect_regression", ('"same" if 1 / threshold <= low', '"same" if 2 - threshold <= low'))


@caught_by(1)
def the_interval_always_has_95_percent(m):
    rewritten(m, "detect_regression", ("confidence=1 - alpha", "confidence=0.95"))


@caught_by(1)
def an_alpha_without_a_confidence_is_brought_to_one(m):
    rewritten(
        m, "detect_regression", ("confidence=1 - alpha", "confidence=min(max(1 - alpha, 0.001), 0.999)")
    )


@caught_by(1)
def the_ratio_is_that_of_the_means(m):
    rewritten(
        m, "detect_regression", ("np.median(after) / np.median(before)", "np.mean(after) / np.mean(before)")
    )


@caught_by(1)
def a_change_of_just_the_threshold_does_not_matter(m):
    rewritten(m, "detect_regression", ("ratio >= threshold", "ratio > threshold"))


@caught_by(1)
def a_threshold_of_1_is_fine(m):
    rewritten(m, "detect_regression", ("if not threshold > 1:", "if not threshold > 0:"))


# 16.16 chrome_trace, write_trace.


@caught_by(1)
def times_are_in_nanoseconds(m):
    rewritten(m, "chrome_trace", ("event.duration_ns / 1000", "event.duration_ns"))


@caught_by(1)
def times_are_cut_to_whole_microseconds(m):
    rewritten(m, "chrome_trace", ("event.duration_ns / 1000", "event.duration_ns // 1000"))


@caught_by(1)
def times_are_those_of_the_clock(m):
    rewritten(m, "chrome_trace", ("(event.start_ns - events[0].start_ns) / 1000", "event.start_ns / 1000"))


@caught_by(1)
def events_are_drawn_as_they_end(m):
    rewritten(
        m, "chrome_trace", ("sorted(events, key=lambda event: (event.start_ns, event.depth))", "list(events)")
    )


@caught_by(1)
def depth_is_not_asked(m):
    rewritten(m, "chrome_trace", ("(event.start_ns, event.depth)", "event.start_ns"))


@caught_by(1)
def the_events_are_sorted_themselves(m):
    def chrome_trace(events, name="tinytorch"):
        if isinstance(events, list):
            events.sort(key=lambda event: (event.start_ns, event.depth))
        return right(events, name)

    right = m.chrome_trace
    m.chrome_trace = chrome_trace


@caught_by(1)
def nobody_has_a_name(m):
    rewritten(m, "chrome_trace", ('"args": {"name": called}', '"args": {"name": what}'))


@caught_by(1)
def numbers_of_numpy_are_left_in(m):
    rewritten(m, "chrome_trace", ("int(event.flops)", "event.flops"))


@caught_by(1)
def shapes_of_numpy_are_left_in(m):
    rewritten(m, "chrome_trace", ("list(map(int, shape))", "list(shape)"))


@caught_by(1)
def peaks_are_left_out(m):
    rewritten(m, "chrome_trace", ("if event.peak_bytes is not None:", "if False:"))


@caught_by(1)
def a_peak_of_none_is_told(m):
    rewritten(
        m,
        "chrome_trace",
        ("    if event.peak_bytes is not None:\n            args", "    if True:\n            args"),
        ("int(event.peak_bytes)", "event.peak_bytes"),
    )


@caught_by(1)
def the_dtype_is_an_object(m):
    rewritten(m, "chrome_trace", ("str(event.dtype)", "event.dtype"))


@caught_by(1)
def a_trace_is_written_right_over_the_old_one(m):
    def write_trace(path, events, name="tinytorch"):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(m.chrome_trace(events, name), file)

    m.write_trace = write_trace


@caught_by(1)
def what_failed_is_left_beside_it(m):
    rewritten(
        m,
        "write_trace",
        (
            "        with contextlib.suppress(OSError):\n            os.unlink(temporary)\n        raise",
            "        raise",
        ),
    )


@caught_by(1)
def what_somebody_stopped_is_left_beside_it(m):
    rewritten(m, "write_trace", ("except BaseException:", "except Exception:"))


@caught_by(1)
def a_path_is_its_str(m):
    rewritten(m, "write_trace", ("os.fspath(path)", "str(path)"))


@caught_by(1)
def a_trace_is_written_in_the_current_folder_first(m):
    def write_trace(path, events, name="tinytorch"):
        temporary = f"trace.{os.getpid()}.tmp"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(m.chrome_trace(events), file)
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    m.write_trace = write_trace


@caught_by(4)
def each_event_looks_for_the_first(m):
    rewritten(
        m,
        "chrome_trace",
        ("event.start_ns - events[0].start_ns", "event.start_ns - min(one.start_ns for one in events)"),
    )


# What stays in memory.


@caught_by(3)
def events_hold_their_arrays(m):
    right = m.OpProfiler._forward

    def forward(self, call, op, inputs, params):
        out = right(self, call, op, inputs, params)
        self.__dict__.setdefault("seen", []).append(out)
        return out

    m.OpProfiler._forward = forward


@caught_by(3)
def what_an_op_got_is_held_until_the_end(m):
    right = m.OpProfiler._forward
    rewritten(
        m,
        "OpProfiler.__exit__",
        ("    self._costs.clear()\n", "    self._costs.clear()\n    self.__dict__.pop('held', None)\n"),
    )

    def forward(self, call, op, inputs, params):
        if self._thread is not None:
            self.__dict__.setdefault("held", []).append(inputs)
        return right(self, call, op, inputs, params)

    m.OpProfiler._forward = forward


@caught_by(3)
def bytes_are_counted_on_a_copy(m):
    right = m.stored_bytes
    m.stored_bytes = lambda x: (
        right(x) + 0 * (np.ascontiguousarray(x).nbytes if isinstance(x, np.ndarray) else 0)
    )


@caught_by(4)
def pairs_are_gone_through(m):
    rule(
        m,
        "attention_flops",
        (
            "pairs = last * (keys - last) + last * (last + 1) // 2",
            "pairs = sum(1 for i in range(queries) for j in range(keys) if j <= i + keys - queries)",
        ),
    )


@caught_by(4)
def each_event_is_written_in_words(m):
    right = m.OpProfiler._note

    def note(self, *args):
        right(self, *args)
        self.words = "; ".join(f"{event}" for event in self.events[-8:])

    m.OpProfiler._note = note


_FROZEN = "given; it protects from writes that nobody makes"
_DIGITS = "given; the table shows four digits"
_ENOUGH = "keeps a clock that stands still from hanging; tests ask for MOST_CALLS, however many that are"
_FACTORS = "what is multiplied does not matter for how long that takes"
_PLACE = "keeps the place in the list; what it says is written over when the phase ends"

EQUIVALENT: dict[str, str] = {
    "Timing: dataclass(frozen=True) -> dataclass(frozen=False)": _FROZEN,
    "Roofline: dataclass(frozen=True) -> dataclass(frozen=False)": _FROZEN,
    "time_turns: zip(functions, calls, samples, strict=True) -> zip(functions, calls, samples, stric"
    "t=False)": "the three are made of one another, and as long",
    "time_turns: zip(samples, calls, strict=True) -> zip(samples, calls, strict=False)": (
        "both are made of the functions, and as long"
    ),
    "stored_bytes: zip(x.shape, x.strides, strict=True) -> zip(x.shape, x.strides, strict=False)": (
        "an array has as many strides as axes"
    ),
    "module: max(0.001, 10 * time.get_clock_info('process_time').resolution) -> min(0.001, 10 * time.get"
    "_clock_info('process_time').resolution)": (
        "mutants are tried under a limit of processor time, and its clock ticks coarsely there"
    ),
    "module: 10 * time.get_clock_info('process_time').resolution -> 11 * time.get_clock_info('process_time')"
    ".resolution": "a thousandth of a second is more than either, where the clock says that it ticks finely",
    "module: 1 << 20 -> 2 << 20": _ENOUGH,
    "module: 1 << 20 -> 1 << 21": _ENOUGH,
    "tracing: if not was_on: -> if True:": "tracemalloc.start() does nothing while it is tracing",
    "MemoryProfiler.phase: Phase(name, depth, 0, 0, 0) -> Phase(depth, name, 0, 0, 0)": _PLACE,
    "MemoryProfiler.phase: Phase(name, depth, 0, 0, 0) -> Phase(name, depth, 1, 0, 0)": _PLACE,
    "MemoryProfiler.phase: Phase(name, depth, 0, 0, 0) -> Phase(name, depth, 0, 1, 0)": _PLACE,
    "MemoryProfiler.phase: Phase(name, depth, 0, 0, 0) -> Phase(name, depth, 0, 0, 1)": _PLACE,
    "pool_flops: cost_rule('max_pool2d', 'avg_pool2d') -> cost_rule('avg_pool2d', 'max_pool2d')": (
        "one rule for both, whichever is named first"
    ),
    "OpProfiler.__exit__: self._costs.clear() -> pass": (
        "a few numbers a call stay; only a call of a later block with the ids of an old one could meet them"
    ),
    "OpProfiler.table: row.total_ns / 1000000.0 -> row.total_ns / 1000001.0": _DIGITS,
    "OpProfiler.table: row.self_ns / 1000000.0 -> row.self_ns / 1000001.0": _DIGITS,
    "OpProfiler.table: row.flops / 1000000.0 -> row.flops / 1000001.0": _DIGITS,
    "OpProfiler.table: row.bytes / 1000000.0 -> row.bytes / 1000001.0": _DIGITS,
    "OpProfiler.table: row.rate / 1000000000.0 -> row.rate / 1000000001.0": _DIGITS,
    "measure_roofline: np.random.default_rng(0) -> np.random.default_rng(1)": _FACTORS,
    "measure_roofline: np.matmul(a, b, out=product) -> np.matmul(b, a, out=product)": _FACTORS,
    "measure_roofline: np.copyto(target, source) -> np.copyto(source, target)": (
        "as many bytes, whichever way they go"
    ),
    "bottlenecks: times[key].most_common(1) -> times[key].most_common(2)": "the first of two is that of one",
    "slopes_of: np.ptp(x, axis=-1) < 1e-09 -> np.ptp(x, axis=-1) <= 1e-09": (
        "sizes that differ, differ by more, and a mean's rounding is less"
    ),
    "mann_whitney: orders(n, m) -> orders(m, n)": "as many orders have this U, whoever is called a",
    "detect_regression: mann_whitney(before, after) -> mann_whitney(after, before)": (
        "p is the same, whoever is called a"
    ),
    "write_trace: open(temporary, 'w', encoding='utf-8') -> open(temporary, 'w')": (
        "json writes ASCII only, which is the same bytes in the encodings that systems have"
    ),
}
