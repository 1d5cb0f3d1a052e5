"""Believable wrong solutions of kata 15.  Each takes the reference and spoils one thing in it."""
# ruff: noqa: E501 (what is changed is written as it stands in the reference)

import codecs
import contextlib
import copy

import numpy as np

from dojo.mistakes import caught_by, rewritten

# 15.1, 15.2: choosing


@caught_by(1)
def greedy_takes_the_last_of_equals(m):
    m.greedy = lambda logits: m.as_array(logits).shape[1] - 1 - m.as_array(logits)[:, ::-1].argmax(axis=1)


@caught_by(1)
def greedy_over_the_batch(m):
    rewritten(m, "greedy", (".argmax(axis=1)", ".argmax(axis=0)"))


@caught_by(1)
def one_random_number_for_all_rows(m):
    rewritten(m, "sample", ("rng.random((len(line), 1))", "rng.random()"))


@caught_by(2)
def every_id_is_equally_likely(m):
    rewritten(m, "sample", ("np.exp(line, out=line)", "line[...] = line > -np.inf"))


@caught_by(1)
def a_generator_of_its_own(m):
    rewritten(m, "sample", ("rng.random(", "np.random.random("))


@caught_by(1)
def an_id_of_no_length_is_drawn_at_a_point_on_its_border(m):
    def sample(logits, *, rng):
        line = np.exp(logits - logits.max(axis=1, keepdims=True))
        return right(np.log(line + 1e-3 * line.max()), rng=rng)

    right = m.sample
    m.sample = sample


@caught_by(1)
def exp_without_the_largest_taken_off(m):
    rewritten(m, "sample", ("below_largest(logits.astype(np.float64), axis=1)", "logits.astype(np.float64)"))


@caught_by(2)
def sums_do_not_reach_the_point(m):
    rewritten(m, "sample", ("* line[:, -1:]", "* line[:, -1:] * 0.95"))


@caught_by(1)
def the_id_before_the_one_that_was_drawn(m):
    rewritten(m, "sample", ("(line <= points).sum(axis=1)", "((line <= points).sum(axis=1) - 1).clip(0)"))


@caught_by(1)
def nothing_to_draw_from_is_drawn_from(m):
    rewritten(m, "sample", ("if not largest > -np.inf:", "if False:"))


@caught_by(1)
def nan_is_drawn_from(m):
    rewritten(m, "sample", ("if not largest > -np.inf:", "if largest == -np.inf:"))


@caught_by(1)
def the_logit_is_named_instead_of_the_row(m):
    rewritten(m, "sample", ('f"row {row} has', 'f"a row has'))


@caught_by(4)
def ids_are_looked_at_one_by_one(m):
    right = m.sample

    def sample(logits, *, rng):
        for row in m.as_array(logits).tolist():
            total = 0.0
            for one in row:
                total += one if one > -1e9 else 0.0
        return right(logits, rng=rng)

    m.sample = sample


# 15.3 to 15.6: processors


@caught_by(1)
def temperature_multiplies(m):
    rewritten(m, "Temperature.__call__", ("logits / self.t", "logits * self.t"))


@caught_by(1)
def temperature_works_in_place(m):
    def call(self, logits, ids):
        logits /= self.t
        return logits

    m.Temperature.__call__ = call


@caught_by(1)
def temperature_makes_float64(m):
    rewritten(m, "Temperature.__call__", ("logits / self.t", "logits / np.float64(self.t)"))


@caught_by(1)
def temperature_of_zero_is_accepted(m):
    rewritten(m, "Temperature.__init__", ("if not t > 0:", "if t < 0:"))


@caught_by(1)
def temperature_of_nan_is_accepted(m):
    rewritten(m, "Temperature.__init__", ("if not t > 0:", "if t <= 0:"))


@caught_by(1)
def a_chain_begins_at_its_end(m):
    rewritten(m, "chain", ("in processors:", "in processors[::-1]:"))


@caught_by(1)
def a_chain_stops_after_one(m):
    rewritten(m, "chain", ("in processors:", "in processors[:1]:"))


@caught_by(1)
def penalty_divides_what_is_below_zero_too(m):
    rewritten(m, "RepetitionPenalty.__call__", ("seen * self.penalty", "seen / self.penalty"))


@caught_by(1)
def penalty_is_subtracted(m):
    rewritten(
        m,
        "RepetitionPenalty.__call__",
        ("np.where(seen > 0, seen / self.penalty, seen * self.penalty)", "seen - self.penalty"),
    )


@caught_by(1)
def penalty_for_each_time(m):
    def call(self, logits, ids):
        out = logits.copy()
        for row, said in zip(out, ids, strict=True):
            for one in said:
                row[one] = row[one] / self.penalty if row[one] > 0 else row[one] * self.penalty
        return out

    m.RepetitionPenalty.__call__ = call


@caught_by(1)
def penalty_changes_the_logits_it_was_given(m):
    rewritten(m, "RepetitionPenalty.__call__", ("logits.copy()", "logits"))


@caught_by(1)
def penalty_for_what_any_row_has_said(m):
    def call(self, logits, ids):
        out = logits.copy()
        said = np.unique(ids)
        out[:, said] = np.where(out[:, said] > 0, out[:, said] / self.penalty, out[:, said] * self.penalty)
        return out

    m.RepetitionPenalty.__call__ = call


@caught_by(1)
def penalty_for_the_last_id_only(m):
    right = m.RepetitionPenalty.__call__
    m.RepetitionPenalty.__call__ = lambda self, logits, ids: right(self, logits, ids[:, -1:])


@caught_by(4)
def penalty_by_a_loop(m):
    def call(self, logits, ids):
        out = logits.copy()
        for row, said in zip(out, ids, strict=True):
            for one in set(said.tolist()):
                row[one] = row[one] / self.penalty if row[one] > 0 else row[one] * self.penalty
        return out

    m.RepetitionPenalty.__call__ = call


@caught_by(1)
def top_k_of_equals_keeps_exactly_k(m):
    def call(self, logits, ids):
        order = np.argsort(-logits, axis=1, kind="stable")[:, : self.k]
        out = np.full_like(logits, -np.inf)
        np.put_along_axis(out, order, np.take_along_axis(logits, order, axis=1), axis=1)
        return out

    m.TopK.__call__ = call


@caught_by(1)
def top_k_keeps_one_more(m):
    rewritten(
        m,
        "TopK.__call__",
        ("logits.shape[1] - min(self.k, logits.shape[1])", "max(0, logits.shape[1] - self.k - 1)"),
    )


@caught_by(1)
def top_k_above_the_vocabulary_fails(m):
    rewritten(
        m, "TopK.__call__", ("logits.shape[1] - min(self.k, logits.shape[1])", "logits.shape[1] - self.k")
    )


@caught_by(1)
def top_k_sets_zero(m):
    rewritten(m, "TopK.__call__", ("-np.inf", "0"))


@caught_by(1)
def top_k_over_all_rows(m):
    def call(self, logits, ids):
        flat = np.sort(logits, axis=None)
        return np.where(logits < flat[-min(self.k, flat.size)], -np.inf, logits)

    m.TopK.__call__ = call


@caught_by(1)
def a_k_of_zero_is_accepted(m):
    rewritten(m, "TopK.__init__", ("k < 1", "k < 0"))


@caught_by(4)
def top_k_by_python_lists(m):
    def call(self, logits, ids):
        out = np.full_like(logits, -np.inf)
        for row, new in zip(logits.tolist(), out, strict=True):
            least = sorted(row, reverse=True)[: self.k][-1]
            for i, x in enumerate(row):
                if x >= least:
                    new[i] = x
        return out

    m.TopK.__call__ = call


@caught_by(1)
def top_p_drops_the_one_that_reaches_p(m):
    rewritten(
        m,
        "TopP.__call__",
        ("1 + (sums[:, :-1] < self.p * sums[:, -1:])", "np.maximum(1, (sums < self.p * sums[:, -1:])"),
        (".sum(axis=1, keepdims=True)\n", ".sum(axis=1, keepdims=True))\n"),
    )


@caught_by(1)
def top_p_keeps_one_more(m):
    rewritten(
        m,
        "TopP.__call__",
        ("count - 1, axis=1", "np.minimum(count, logits.shape[1] - 1), axis=1"),
    )


@caught_by(1)
def top_p_by_shares_of_logits(m):
    rewritten(
        m,
        "TopP.__call__",
        (
            "np.exp(below_largest(largest_first.astype(np.float64), axis=1))",
            "(largest_first - largest_first.min(axis=1, keepdims=True) + 1e-9)",
        ),
    )


@caught_by(1)
def top_p_sorts_the_smallest_first(m):
    rewritten(m, "TopP.__call__", ("-np.sort(-logits, axis=1)", "np.sort(logits, axis=1)"))


@caught_by(1)
def top_p_of_one_loses_the_tail(m):
    rewritten(m, "TopP.__call__", ("if self.p == 1:", "if False:"))


@caught_by(1)
def top_p_forgets_that_sums_are_not_one(m):
    rewritten(m, "TopP.__call__", ("self.p * sums[:, -1:]", "self.p"))


@caught_by(1)
def top_p_of_equals_keeps_as_few_as_it_can(m):
    def call(self, logits, ids):
        if self.p == 1:
            return logits
        order = np.argsort(-logits, axis=1, kind="stable")
        shares = np.exp(m.below_largest(np.take_along_axis(logits, order, axis=1), axis=1))
        shares /= shares.sum(axis=1, keepdims=True)
        gone = shares.cumsum(axis=1) - shares >= self.p
        out = logits.copy()
        np.put_along_axis(
            out, order, np.where(gone, -np.inf, np.take_along_axis(logits, order, axis=1)), axis=1
        )
        return out

    m.TopP.__call__ = call


@caught_by(1)
def a_p_above_one_is_accepted(m):
    rewritten(m, "TopP.__init__", ("0 < p <= 1", "0 < p"))


@caught_by(1)
def a_p_of_zero_is_accepted(m):
    rewritten(m, "TopP.__init__", ("0 < p <= 1", "0 <= p <= 1"))


@caught_by(3)
def top_p_keeps_tables_of_every_step(m):
    right = m.TopP.__call__

    def call(self, logits, ids):
        tables = [np.argsort(-logits, axis=1), *(logits.astype(np.float64) for _ in range(4))]
        return right(self, logits, ids) if tables else logits

    m.TopP.__call__ = call


# 15.7, 15.8: windows and padding


@caught_by(1)
def the_window_moves_by_one(m):
    rewritten(m, "window_start", ("hop = max(1, context // 2)", "hop = 1"))


@caught_by(1)
def the_window_moves_by_all_of_itself(m):
    rewritten(m, "window_start", ("context // 2", "context"))


@caught_by(1)
def the_window_moves_before_it_is_full(m):
    rewritten(m, "window_start", ("(context - length)", "(context - length - 1)"))


@caught_by(1)
def a_context_of_one_has_no_hop(m):
    rewritten(m, "window_start", ("max(1, context // 2)", "context // 2"))


@caught_by(1)
def the_window_begins_before_the_text(m):
    rewritten(
        m, "window_start", ("np.maximum(0, -((context - length) // hop))", "-((context - length) // hop)")
    )


@caught_by(1)
def padding_stays_on_the_right(m):
    rewritten(
        m,
        "left_padded",
        (
            "source = np.maximum(np.arange(columns) - padding[:, None], 0)",
            "source = np.arange(columns) + 0 * padding[:, None]",
        ),
    )


@caught_by(1)
def padding_is_the_end_of_the_row(m):
    rewritten(
        m,
        "left_padded",
        ("np.maximum(np.arange(columns) - padding[:, None], 0)", "(np.arange(columns) - padding[:, None])"),
    )


@caught_by(1)
def padding_is_zeros(m):
    rewritten(
        m,
        "left_padded",
        (
            "return np.take_along_axis(ids, source, axis=1).astype(np.int64, copy=False), padding",
            "out = np.take_along_axis(ids, source, axis=1).astype(np.int64)\n    out[np.arange(columns) < padding[:, None]] = 0\n    return out, padding",
        ),
    )


@caught_by(1)
def a_length_of_zero_is_accepted(m):
    rewritten(m, "left_padded", ("1 <= length <= columns", "0 <= length <= columns"))


@caught_by(1)
def a_length_beyond_the_columns_is_accepted(m):
    rewritten(m, "left_padded", ("1 <= length <= columns", "1 <= length"))


@caught_by(1)
def lengths_of_any_shape_are_accepted(m):
    rewritten(m, "left_padded", ("if lengths.shape != (rows,):", "if False:"))


@caught_by(1)
def floats_are_taken_for_ids(m):
    rewritten(m, "left_padded", ('if ids.dtype.kind not in "iu":', "if False:"))


@caught_by(1)
def ids_keep_their_small_type(m):
    rewritten(m, "left_padded", (".astype(np.int64, copy=False)", ""))


# 15.9 Reader


@caught_by(1)
def the_cache_is_kept_when_the_window_moves(m):
    rewritten(
        m,
        "Reader.read",
        (
            "self.caches = self.model.new_caches() if self.use_cache else None",
            "self.caches = self.caches or (self.model.new_caches() if self.use_cache else None)",
        ),
    )


@caught_by(1)
def all_is_read_again_into_the_cache(m):
    rewritten(m, "Reader.read", ("ids[:, self.read_until :]", "ids[:, self.begin :]"))


@caught_by(1)
def logits_of_the_first_new_column(m):
    rewritten(m, "Reader.read", ("[:, -1]", "[:, 0]"))


@caught_by(3)
def all_logits_are_kept_by_a_view(m):
    rewritten(m, "Reader.read", ("[:, -1].copy()", "[:, -1]"))


@caught_by(1)
def padding_is_seen(m):
    rewritten(
        m,
        "Reader.read",
        ('mask = padding_mask(length - starts, length - self.begin, side="left")', "mask = None"),
    )


@caught_by(1)
def the_mask_is_that_of_padding_on_the_right(m):
    rewritten(m, "Reader.read", ('side="left"', 'side="right"'))


@caught_by(1)
def positions_count_from_the_padding(m):
    rewritten(
        m,
        "Reader.read",
        (
            "positions = np.maximum(np.arange(self.read_until, length) - starts[:, None], 0)",
            "positions = None",
        ),
    )


@caught_by(1)
def positions_go_on_beyond_the_window(m):
    rewritten(m, "Reader.read", ("- starts[:, None], 0)", "- self.padding[:, None], 0)"))


@caught_by(1)
def one_window_for_all_rows(m):
    rewritten(
        m,
        "Reader.read",
        (
            "self.padding + window_start(length - self.padding, context)",
            "np.maximum(self.padding, window_start(length, context))",
        ),
    )


@caught_by(1)
def the_context_is_forgotten(m):
    rewritten(m, "Reader.read", ("window_start(length - self.padding, context)", "0"))


@caught_by(1)
def only_new_columns_without_a_cache(m):
    rewritten(
        m,
        "Reader.read",
        (
            "if self.caches is None or length - self.begin > context:",
            "if (self.use_cache and self.caches is None) or length - self.begin > context:",
        ),
    )


@caught_by(1)
def a_cache_although_none_was_wanted(m):
    rewritten(
        m, "Reader.read", ("self.model.new_caches() if self.use_cache else None", "self.model.new_caches()")
    )


@caught_by(1)
def dropout_while_reading(m):
    rewritten(m, "used", ("module.training = False", "pass"))


@caught_by(1)
def the_model_is_left_in_evaluation(m):
    rewritten(m, "used", ("module.training = True", "pass"))


@caught_by(1)
def a_graph_is_recorded_while_reading(m):
    rewritten(m, "used", ("with no_grad():", "with contextlib.nullcontext():"))


@caught_by(1)
def selecting_forgets_the_caches(m):
    rewritten(m, "Reader.select", ("cache.select(rows)", "pass"))


@caught_by(1)
def selecting_forgets_the_padding(m):
    rewritten(
        m,
        "Reader.select",
        (
            "self.padding = self.padding[rows]",
            "pass",
        ),
    )


@caught_by(1)
def selecting_throws_the_caches_away(m):
    rewritten(m, "Reader.select", ("cache.select(rows)", "self.caches = None"))


@caught_by(1)
def the_window_never_moves_once_it_is_cached(m):
    rewritten(
        m,
        "Reader.read",
        ("if self.caches is None or length - self.begin > context:", "if self.caches is None:"),
    )


@caught_by(1)
def the_first_column_is_that_of_the_rows_that_are_left(m):
    rewritten(
        m,
        "Reader.read",
        (
            "    mask = positions = None\n",
            "    self.begin = int(starts.min())\n    mask = positions = None\n",
        ),
    )


# 15.10, 15.11: writing


@caught_by(1)
def tokens_come_when_all_are_there(m):
    right = m.stream

    def stream(*args, **how):
        yield from list(right(*args, **how))

    m.stream = stream


@caught_by(1)
def nothing_is_recorded_while_a_stream_is_open(m):
    right = m.stream

    def stream(*args, **how):
        with m.no_grad():
            yield from right(*args, **how)

    m.stream = stream


@caught_by(1)
def the_model_evaluates_while_a_stream_is_open(m):
    right = m.stream

    def stream(model, *args, **how):
        with m.evaluating(model):
            tokens = right(model, *args, **how)
            yield next(tokens)
        yield from tokens

    m.stream = stream


@caught_by(1)
def the_caller_gets_the_column_itself(m):
    rewritten(m, "stream", ("yield written[:, end].copy()", "yield written[:, end]"))


@caught_by(1)
def the_first_row_that_stops_ends_all(m):
    rewritten(m, "stream", ("if done.all():", "if done.any():"))


@caught_by(1)
def a_row_that_stopped_goes_on(m):
    rewritten(m, "stream", ("np.where(done, filler, chosen)", "chosen"))


@caught_by(1)
def the_token_that_stops_is_not_shown(m):
    rewritten(
        m,
        "stream",
        (
            "        written[:, end] = np.where(done, filler, chosen)\n        done |= np.isin(chosen, stops)\n",
            "        done |= np.isin(chosen, stops)\n        written[:, end] = np.where(done, filler, chosen)\n",
        ),
    )


@caught_by(1)
def only_the_last_token_says_who_is_done(m):
    rewritten(m, "stream", ("done |= np.isin(chosen, stops)", "done = np.isin(written[:, end], stops)"))


@caught_by(1)
def one_of_several_stops(m):
    rewritten(m, "stream", ("list(stop)", "list(stop)[:1]"))


@caught_by(1)
def a_stop_in_the_prompt_stops(m):
    rewritten(m, "stream", ("done = np.zeros(rows, bool)", "done = np.isin(prompt, stops).any(axis=1)"))


@caught_by(1)
def a_pad_id_of_zero_is_taken_for_none(m):
    rewritten(m, "stream", ("so_far[:, -1] if pad_id is None else pad_id", "pad_id or so_far[:, -1]"))


@caught_by(1)
def processors_see_the_new_token_only(m):
    rewritten(
        m, "stream", ("process(reader.read(so_far), so_far)", "process(reader.read(so_far), so_far[:, -1:])")
    )


@caught_by(1)
def processors_see_the_window_only(m):
    rewritten(
        m,
        "stream",
        (
            "process(reader.read(so_far), so_far)",
            "process(reader.read(so_far), so_far[:, -model.config.context:])",
        ),
    )


@caught_by(1)
def processors_are_forgotten(m):
    rewritten(m, "stream", ("chain(*processors)", "chain()"))


@caught_by(1)
def processors_only_where_tokens_are_drawn(m):
    rewritten(m, "stream", ("chain(*processors)", "chain(*(processors if rng else ()))"))


@caught_by(1)
def always_greedy(m):
    rewritten(m, "stream", ("greedy(logits) if rng is None else sample(logits, rng=rng)", "greedy(logits)"))


@caught_by(1)
def one_token_too_many(m):
    rewritten(
        m,
        "stream",
        ("range(length, length + max_new_tokens)", "range(length, length + max_new_tokens + 1)"),
        ("length + max_new_tokens), np.int64", "length + max_new_tokens + 1), np.int64"),
    )


@caught_by(1)
def the_prompt_is_left_out(m):
    rewritten(m, "generate", ("[prompt, *(column", "[prompt[:, :0], *(column"))


@caught_by(1)
def pad_id_is_not_shown_before_the_prompt(m):
    rewritten(m, "generate", ("if pad_id is not None:", "if False:"))


@caught_by(1)
def padding_is_forgotten_by_generate(m):
    rewritten(m, "generate", ('"lengths": lengths', '"lengths": None'))


@caught_by(1)
def generate_always_uses_a_cache(m):
    rewritten(m, "generate", ('"use_cache": use_cache', '"use_cache": True'))


@caught_by(3)
def the_caches_are_left_at_the_model(m):
    right = m.Reader.read

    def read(self, ids):
        self.model.__dict__.setdefault("left", []).append((self.caches, ids.repeat(40)))
        return right(self, ids)

    m.Reader.read = read


# 15.12 beam_search


@caught_by(1)
def every_row_keeps_its_own_best(m):
    rewritten(
        m,
        "beam_search",
        (
            'best = np.argsort(-table, axis=None, kind="stable")[: beams - len(found)]',
            "best = np.argsort(-table, axis=1)[:, :1].ravel() + np.arange(len(table)) * table.shape[1] if len(table) == beams - len(found) else np.argsort(-table, axis=None)[: beams - len(found)]",
        ),
    )


@caught_by(1)
def scores_are_of_the_last_token_only(m):
    rewritten(m, "beam_search", (" + scores[:, None]", ""))


@caught_by(1)
def logits_are_added_up(m):
    rewritten(
        m,
        "beam_search",
        (
            "log_softmax.forward(reader.read(rows).astype(np.float64), axis=1)",
            "reader.read(rows).astype(np.float64)",
        ),
    )


@caught_by(1)
def caches_do_not_follow_their_beams(m):
    rewritten(m, "beam_search", ("reader.select(source[~done])", "reader.select(np.sort(source[~done]))"))


@caught_by(1)
def a_beam_that_stopped_is_read_on(m):
    rewritten(m, "beam_search", ("rows, scores = rows[~done], scores[~done]", "done[:] = False"))


@caught_by(1)
def a_beam_that_stopped_leaves_its_place(m):
    rewritten(m, "beam_search", ("[: beams - len(found)]", "[:beams]"))


@caught_by(1)
def beams_that_did_not_stop_are_lost(m):
    rewritten(
        m,
        "beam_search",
        (
            "    found += zip(rows, scores.tolist(), strict=True)\n",
            "    if not found:\n        found += zip(rows, scores.tolist(), strict=True)\n",
        ),
    )


@caught_by(1)
def the_length_is_not_looked_at(m):
    rewritten(m, "beam_search", ("** length_penalty", "** 0"))


@caught_by(1)
def the_length_counts_the_prompt(m):
    rewritten(m, "beam_search", ("max(1, len(one[0]) - length)", "max(1, len(one[0]))"))


@caught_by(1)
def the_score_is_divided_before_it_is_told(m):
    rewritten(
        m,
        "beam_search",
        (
            "return sorted(found, key=value, reverse=True)",
            "return [(one[0], value(one)) for one in sorted(found, key=value, reverse=True)]",
        ),
    )


@caught_by(1)
def the_worst_comes_first(m):
    rewritten(m, "beam_search", ("key=value, reverse=True", "key=value"))


@caught_by(1)
def the_impossible_is_a_beam(m):
    rewritten(m, "beam_search", ("best = best[table.ravel()[best] > -np.inf]", "pass"))


@caught_by(1)
def the_prompt_is_not_part_of_what_is_found(m):
    rewritten(
        m,
        "beam_search",
        (
            "return sorted(found, key=value, reverse=True)",
            "return [(ids[length:], score) for ids, score in sorted(found, key=value, reverse=True)]",
        ),
    )


@caught_by(1)
def a_search_goes_on_when_all_have_stopped(m):
    rewritten(
        m,
        "beam_search",
        (
            "        if not len(rows):\n            break\n",
            "        if not len(rows):\n            reader.read(found[0][0][None])\n            break\n",
        ),
    )


@caught_by(1)
def several_rows_are_searched_as_one(m):
    rewritten(m, "beam_search", ("if beams < 1 or len(prompt) != 1:", "if beams < 1:"))


@caught_by(1)
def no_beams_are_one(m):
    rewritten(
        m,
        "beam_search",
        ("if beams < 1 or len(prompt) != 1:", "beams = max(1, beams)\n    if len(prompt) != 1:"),
    )


@caught_by(3)
def a_search_keeps_every_step(m):
    right = m.Reader.select
    kept = []

    def select(self, rows):
        kept.append(copy.deepcopy(self.caches))
        right(self, rows)

    m.Reader.select = select


@caught_by(4)
def a_search_reads_all_rows_again(m):
    rewritten(
        m,
        "beam_search",
        ("reader.read(rows)", "Reader(model, np.zeros(len(rows), np.int64), use_cache).read(rows)"),
    )


# 15.13 text_stream


@caught_by(1)
def every_id_is_decoded_by_itself(m):
    def text_stream(tokenizer, ids):
        for one in ids:
            yield tokenizer.decode([int(np.reshape(one, ()))])

    m.text_stream = text_stream


@caught_by(1)
def all_text_comes_at_the_end(m):
    def text_stream(tokenizer, ids):
        if text := tokenizer.decode([int(np.reshape(one, ())) for one in ids]):
            yield text

    m.text_stream = text_stream


@caught_by(1)
def half_a_character_at_the_end_is_lost(m):
    rewritten(m, "text_stream", ('if rest := decoder.decode(b"", True):', "if rest := '':"))


@caught_by(1)
def half_a_character_before_a_special_token_is_told_later(m):
    rewritten(m, "text_stream", ('decoder.decode(b"", True) + token', "token"))


@caught_by(1)
def empty_pieces_are_told(m):
    rewritten(m, "text_stream", ("        if text:\n", "        if True:\n"))


@caught_by(1)
def what_is_no_character_is_an_error(m):
    rewritten(m, "text_stream", ('("replace")', '("strict")'))


@caught_by(1)
def what_is_no_character_is_dropped(m):
    rewritten(m, "text_stream", ('("replace")', '("ignore")'))


@caught_by(1)
def text_waits_for_a_replacement_character_to_go(m):
    def text_stream(tokenizer, ids):
        held = []
        for one in ids:
            held.append(int(np.reshape(one, ())))
            text = tokenizer.decode(held)
            if not text.endswith("\ufffd"):
                held = []
                yield text
        if held:
            yield tokenizer.decode(held[:-1])

    m.text_stream = text_stream


@caught_by(4)
def all_ids_are_decoded_for_each(m):
    right = m.text_stream

    def text_stream(tokenizer, ids):
        seen, told = [], 0
        for one in ids:
            seen.append(int(np.reshape(one, ())))
            decoder, text = m.codecs.getincrementaldecoder("utf-8")("replace"), ""
            for i in seen:
                token = tokenizer.vocabulary.id_to_token(i)
                text += decoder.decode(b"", True) + token if isinstance(token, str) else decoder.decode(token)
            if text[told:]:
                yield text[told:]
            told = len(text)
        if rest := "".join(right(tokenizer, seen))[told:]:
            yield rest

    m.text_stream = text_stream


# 15.14 TokenDataset


@caught_by(1)
def the_last_window_has_nothing_after_it(m):
    rewritten(m, "TokenDataset.__len__", ("- self.context", "- self.context + 1"))


@caught_by(1)
def the_last_window_is_lost(m):
    rewritten(m, "TokenDataset.__len__", ("- self.context", "- self.context - 1"))


@caught_by(1)
def windows_do_not_overlap(m):
    m.TokenDataset.__len__ = lambda self: (len(self.ids) - 1) // self.context


@caught_by(1)
def targets_are_the_inputs(m):
    rewritten(m, "TokenDataset.__getitem__", ("window[1:]", "window[:-1]"))


@caught_by(1)
def targets_of_a_batch_are_the_inputs(m):
    rewritten(m, "TokenDataset.__getitems__", ("windows[:, 1:]", "windows[:, :-1]"))


@caught_by(1)
def windows_are_copies(m):
    rewritten(
        m,
        "TokenDataset.__getitem__",
        ("return window[:-1], window[1:]", "return window[:-1].copy(), window[1:].copy()"),
    )


@caught_by(1)
def windows_are_of_int64(m):
    rewritten(m, "TokenDataset.__init__", ("as_array(ids)", "as_array(ids).astype(np.int64)"))


@caught_by(1)
def a_negative_index_is_a_window(m):
    rewritten(m, "TokenDataset.__getitem__", ("if not 0 <= index < len(self):", "if index >= len(self):"))


@caught_by(1)
def an_index_beyond_the_end_is_a_short_window(m):
    rewritten(m, "TokenDataset.__getitem__", ("if not 0 <= index < len(self):", "if index < 0:"))


@caught_by(1)
def a_row_as_long_as_the_context_has_windows(m):
    rewritten(m, "TokenDataset.__init__", ("len(self.ids) <= context", "len(self.ids) < context"))


@caught_by(3)
def all_windows_are_made_at_once(m):
    right = m.TokenDataset.__init__

    def init(self, ids, context):
        right(self, ids, context)
        self.windows = np.lib.stride_tricks.sliding_window_view(self.ids, context + 1).copy()

    m.TokenDataset.__init__ = init


@caught_by(4)
def a_batch_id_by_id(m):
    def getitems(self, indices):
        for i in indices:
            if not 0 <= i < len(self):
                raise IndexError(f"no window {i}")
        rows = [[self.ids[int(i) + j] for j in range(self.context + 1)] for i in indices]
        rows = np.array(rows, self.ids.dtype).reshape(-1, self.context + 1)
        return rows[:, :-1], rows[:, 1:]

    m.TokenDataset.__getitems__ = getitems


# 15.15 to 15.17: loss and measures


@caught_by(1)
def the_loss_is_a_sum(m):
    right = m.language_model_loss
    m.language_model_loss = lambda logits, targets: right(logits, targets) * m.as_array(targets).size


@caught_by(1)
def the_loss_is_of_the_last_token(m):
    right = m.language_model_loss
    m.language_model_loss = lambda logits, targets: right(logits[..., -1:, :], m.as_array(targets)[..., -1:])


@caught_by(1)
def shapes_are_not_compared(m):
    rewritten(m, "language_model_loss", ("if logits.shape[:-1] != targets.shape:", "if False:"))


@caught_by(1)
def the_loss_has_no_gradient(m):
    right = m.language_model_loss
    m.language_model_loss = lambda logits, targets: right(m.Tensor(m.as_array(logits)), targets)


@caught_by(1)
def the_last_window_is_not_evaluated(m):
    rewritten(m, "evaluate", ("if whole < count:", "if False:"))


@caught_by(1)
def windows_count_alike_whatever_their_length(m):
    rewritten(
        m,
        "evaluate",
        (
            "return sum(nats) / count",
            "return sum(n / y.size for n, (x, y) in zip(nats, batches, strict=True)) / len(nats)",
        ),
    )


@caught_by(1)
def the_mean_counts_the_first_token(m):
    rewritten(m, "evaluate", ("return sum(nats) / count", "return sum(nats) / len(ids)"))


@caught_by(1)
def each_window_loses_its_first_prediction(m):
    rewritten(m, "evaluate", ("ids[1 : whole + 1].reshape", "ids[:whole].reshape"))


@caught_by(1)
def an_evaluation_in_training(m):
    rewritten(m, "evaluate", ("with evaluating(model):", "with no_grad():"))


@caught_by(1)
def an_evaluation_that_records(m):
    rewritten(m, "evaluate", ("with evaluating(model):", "with contextlib.nullcontext():"))


@caught_by(1)
def a_batch_of_all_windows(m):
    rewritten(
        m,
        "evaluate",
        (
            "for i in range(0, len(x), batch_size)]",
            "for i in range(0, len(x), batch_size)] if len(x) < batch_size else [(x, y)]",
        ),
    )


@caught_by(1)
def one_id_is_enough_to_evaluate(m):
    rewritten(
        m,
        "evaluate",
        ("len(ids) < 2", "len(ids) < 1"),
        ("count = model.config.context, len(ids) - 1", "count = model.config.context, max(1, len(ids) - 1)"),
    )


@caught_by(3)
def all_logits_of_an_evaluation_are_kept(m):
    rewritten(
        m,
        "evaluate",
        (
            "nats: list[float] = [float(language_model_loss(model(x), y).data) * y.size for x, y in batches]",
            "answers = [(model(x), y) for x, y in batches]\n        nats = [float(language_model_loss(out, y).data) * y.size for out, y in answers]",
        ),
    )


@caught_by(4)
def an_evaluation_window_by_window(m):
    right = m.evaluate

    def evaluate(model, ids, batch_size=16):
        return right(model, ids, 1 if not hasattr(model, "fed") else batch_size)

    m.evaluate = evaluate


@caught_by(1)
def perplexity_in_base_two(m):
    m.perplexity = lambda nats: 2**nats


@caught_by(1)
def bits_are_nats(m):
    rewritten(m, "bits_per_character", (" / math.log(2)", ""))


@caught_by(1)
def bits_of_a_token_not_of_a_character(m):
    rewritten(m, "bits_per_character", ("nats * tokens / characters", "nats"))


@caught_by(1)
def characters_and_tokens_change_places(m):
    rewritten(m, "bits_per_character", ("nats * tokens / characters", "nats * characters / tokens"))


# 15.18, 15.19: training


@caught_by(1)
def biases_decay_too(m):
    rewritten(m, "decay_groups", ("(p.ndim >= 2) == matrices", "(p.ndim >= 1) == matrices"))


@caught_by(1)
def only_what_has_two_axes_decays(m):
    rewritten(m, "decay_groups", ("(p.ndim >= 2) == matrices", "(p.ndim == 2) == matrices"))


@caught_by(1)
def an_empty_group_is_a_group(m):
    rewritten(m, "decay_groups", ("if chosen:", "if True:"))


@caught_by(1)
def vectors_decay_and_matrices_do_not(m):
    rewritten(
        m, "decay_groups", ("((True, weight_decay), (False, 0.0))", "((False, weight_decay), (True, 0.0))")
    )


@caught_by(1)
def the_rate_begins_at_zero(m):
    rewritten(m, "warmup_cosine", ("start_factor=1 / warmup", "start_factor=0.0"))


@caught_by(1)
def the_wave_goes_over_all_steps(m):
    rewritten(m, "warmup_cosine", ("steps - warmup, eta_min", "steps, eta_min"))


@caught_by(1)
def the_rate_falls_to_zero(m):
    rewritten(m, "warmup_cosine", ("eta_min=least * lr", "eta_min=0.0"))


@caught_by(1)
def the_least_rate_is_no_part_of_the_rate(m):
    rewritten(m, "warmup_cosine", ("eta_min=least * lr", "eta_min=least"))


@caught_by(1)
def a_warm_up_may_take_all_steps(m):
    rewritten(
        m,
        "warmup_cosine",
        ("1 <= warmup < steps", "1 <= warmup <= steps"),
        ("steps - warmup, eta_min", "max(1, steps - warmup), eta_min"),
    )


@caught_by(1)
def the_schedule_goes_by_epochs(m):
    rewritten(m, "train_language_model", ('scheduler_per="step"', 'scheduler_per="epoch"'))


@caught_by(1)
def gradients_are_not_clipped(m):
    rewritten(m, "train_language_model", ("max_norm=1.0", "max_norm=None"))


@caught_by(1)
def the_usual_betas(m):
    rewritten(m, "train_language_model", (", betas=(0.9, 0.95)", ""))


@caught_by(1)
def everything_decays(m):
    rewritten(
        m,
        "train_language_model",
        (
            "AdamW(decay_groups(model, weight_decay), lr=lr",
            "AdamW(model.parameters(), weight_decay=weight_decay, lr=lr",
        ),
    )


@caught_by(1)
def the_validation_comes_last(m):
    rewritten(
        m,
        "train_language_model",
        (
            "[*([] if validation is None else [Validation(validation)]), *callbacks]",
            "[*callbacks, *([] if validation is None else [Validation(validation)])]",
        ),
    )


@caught_by(1)
def other_callbacks_are_forgotten(m):
    rewritten(m, "train_language_model", (", *callbacks]", "]"))


@caught_by(1)
def the_checkpoint_is_forgotten(m):
    rewritten(m, "train_language_model", (", checkpoint=checkpoint)", ")"))


@caught_by(1)
def steps_that_make_no_epoch_are_dropped(m):
    rewritten(m, "train_language_model", ("if steps % every:", "if False:"))


@caught_by(1)
def always_the_same_warm_up(m):
    rewritten(m, "train_language_model", ("max(1, steps // 20) if warmup is None else warmup", "1"))


@caught_by(1)
def batches_from_a_generator_of_its_own(m):
    rewritten(m, "train_language_model", ("rng=rng)", "rng=np.random.default_rng(0))"))


@caught_by(1)
def the_same_windows_each_epoch(m):
    def iterate(self):
        return iter(np.random.default_rng(0).integers(self.length, size=self.count).tolist())

    m.RandomWindows.__iter__ = iterate


# 15.20 memory


@caught_by(1)
def an_optimizer_that_has_not_begun(m):
    rewritten(m, "training_bytes", ('return {**parts, "optimizer": 2 * parts["weights"]}', "return parts"))


@caught_by(1)
def one_moment_of_two(m):
    rewritten(m, "training_bytes", ('2 * parts["weights"]', 'parts["weights"]'))


@caught_by(1)
def activations_of_one_row(m):
    rewritten(m, "training_bytes", ("np.zeros((batch, length), np.int64)", "np.zeros((1, length), np.int64)"))


@caught_by(3)
def activations_by_a_rule_of_thumb(m):
    rewritten(
        m,
        "training_bytes",
        (
            'return {**parts, "optimizer"',
            'parts["activations"] = 12 * batch * length * model.config.dim * model.config.num_layers * 4\n    return {**parts, "optimizer"',
        ),
    )


@caught_by(1)
def a_cache_of_all_heads(m):
    rewritten(m, "generation_bytes", ("config.num_kv_heads or config.num_heads", "config.num_heads"))


@caught_by(1)
def a_cache_of_one_layer(m):
    rewritten(m, "generation_bytes", ("        config.num_layers,\n", "        1,\n"))


@caught_by(1)
def a_cache_always_of_float32(m):
    rewritten(m, "generation_bytes", ("weights[0].itemsize", "4"))


@caught_by(1)
def a_cache_that_grows_beyond_the_context(m):
    rewritten(m, "generation_bytes", ("min(length, config.context)", "length"))


@caught_by(1)
def buffers_are_counted_as_weights(m):
    rewritten(m, "generation_bytes", ('"weights": total,', '"weights": parameter_bytes(model),'))


@caught_by(1)
def the_second_name_of_a_table_is_a_buffer(m):
    m.parameter_bytes = lambda model: sum(array.nbytes for array in model.state_dict().values())


# What is kept from call to call, and what others find changed.


@caught_by(1)
def a_penalty_remembers_what_another_text_has_said(m):
    def __call__(self, logits, ids):
        kept = self.__dict__.setdefault("said", np.zeros(logits.shape, bool))
        if kept.shape != logits.shape:
            kept = self.said = np.zeros(logits.shape, bool)
        np.put_along_axis(kept, ids, True, axis=1)
        out = logits.copy()
        out[kept] = np.where(logits > 0, logits / self.penalty, logits * self.penalty)[kept]
        return out

    m.RepetitionPenalty.__call__ = __call__


@caught_by(1)
def top_k_has_one_array_for_all_results(m):
    right, known = m.TopK.__call__, {}

    def __call__(self, logits, ids):
        out = right(self, logits, ids)
        mine = known.setdefault((out.shape, out.dtype), out)
        mine[...] = out
        return mine

    m.TopK.__call__ = __call__


@caught_by(1)
def a_temperature_has_one_array_for_all_results(m):
    known = {}

    def __call__(self, logits, ids):
        mine = known.setdefault((logits.shape, logits.dtype), np.empty_like(logits))
        return np.divide(logits, self.t, out=mine)

    m.Temperature.__call__ = __call__


@caught_by(1)
def a_temperature_of_numpys_makes_float64(m):
    rewritten(m, "Temperature.__call__", ("logits / self.t", "logits / np.float64(self.t)"))


def modes(m, before, after):
    """`used` as a student may write it: `before` tells what `after` needs."""

    @contextlib.contextmanager
    def used(modules):
        kept = before(modules[0])
        try:
            with m.no_grad():
                yield
        finally:
            after(modules[0], kept)

    m.used = used


def put_to_evaluation(model):
    training = model.training
    model.eval()
    return training


@caught_by(1)
def all_parts_train_after_reading_if_the_model_does(m):
    modes(m, put_to_evaluation, lambda model, training: model.train(training))


@caught_by(1)
def parts_of_a_model_that_does_not_train_go_on_training(m):
    right = m.used

    @contextlib.contextmanager
    def used(modules):
        with right(modules if modules[0].training else []):
            yield

    m.used = used


@caught_by(1)
def a_model_that_fails_while_reading_is_left_in_evaluation(m):
    @contextlib.contextmanager
    def used(modules):
        training = put_to_evaluation(modules[0])
        with m.no_grad():
            yield
        modules[0].train(training)

    m.used = used


@caught_by(1)
def all_parts_train_after_an_evaluation_if_the_model_does(m):
    @contextlib.contextmanager
    def evaluating(model):
        training = put_to_evaluation(model)
        try:
            with m.no_grad():
                yield
        finally:
            model.train(training)

    m.evaluating = evaluating


@caught_by(1)
def a_model_that_fails_in_an_evaluation_is_left_in_it(m):
    @contextlib.contextmanager
    def evaluating(model):
        training = [part for part in model.modules() if part.training]
        model.eval()
        with m.no_grad():
            yield
        for part in training:
            part.training = True

    m.evaluating = evaluating


@caught_by(1)
def readers_share_their_caches(m):
    right = m.Reader.read

    def read(self, ids):
        if self.read_until:
            self.caches = m.Reader.kept
        logits = right(self, ids)
        m.Reader.kept = self.caches
        return logits

    m.Reader.read = read


@caught_by(1)
def tokens_that_stop_are_used_up_by_the_first_step(m):
    rewritten(m, "stream", ("list(stop)", "stop"), ("np.isin(chosen, stops)", "np.isin(chosen, list(stops))"))


@caught_by(1)
def tokens_that_stop_a_search_are_used_up_by_the_first_step(m):
    rewritten(m, "beam_search", ("list(stop)", "stop"), ("(tokens, stops)", "(tokens, list(stops))"))


@caught_by(1)
def a_set_of_tokens_stops_nothing(m):
    rewritten(m, "stream", ("list(stop)", "stop"))


@caught_by(1)
def a_set_of_tokens_stops_no_search(m):
    rewritten(m, "beam_search", ("list(stop)", "stop"))


@caught_by(1)
def one_decoder_serves_all_texts(m):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rewritten(m, "text_stream", ('codecs.getincrementaldecoder("utf-8")("replace")', "the_decoder"))
    m.the_decoder = decoder


@caught_by(1)
def an_id_below_zero_counts_from_the_end(m):
    rewritten(
        m,
        "text_stream",
        (
            "tokenizer.vocabulary.id_to_token(int(np.reshape(one, ())))",
            "tokenizer.vocabulary.tokens[-1] if one == -1 else tokenizer.vocabulary.id_to_token(int(np.reshape(one, ())))",
        ),
    )


@caught_by(1)
def an_index_below_zero_is_a_window_of_a_batch(m):
    rewritten(m, "TokenDataset.__getitems__", ("(places < 0)", "(places < -len(self))"))


@caught_by(1)
def a_batch_of_nothing_has_no_type_of_index(m):
    rewritten(m, "TokenDataset.__getitems__", ("np.asarray(indices, np.int64)", "np.asarray(indices)"))


@caught_by(1)
def callers_find_a_validation_among_their_callbacks(m):
    right = m.train_language_model

    def train_language_model(model, ids, *, validation=None, callbacks=(), **how):
        if validation is not None and isinstance(callbacks, list):
            callbacks.insert(0, m.Validation(validation))
            validation = None
        return right(model, ids, validation=validation, callbacks=callbacks, **how)

    m.train_language_model = train_language_model


@caught_by(1)
def a_warm_up_of_no_steps_is_the_usual_one(m):
    rewritten(
        m,
        "train_language_model",
        ("max(1, steps // 20) if warmup is None else warmup", "warmup or max(1, steps // 20)"),
    )


@caught_by(1)
def no_decay_is_the_usual_decay(m):
    rewritten(m, "train_language_model", ("(model, weight_decay)", "(model, weight_decay or 0.1)"))


@caught_by(1)
def groups_that_decay_alike_are_one(m):
    right = m.decay_groups

    def decay_groups(model, weight_decay):
        groups = right(model, weight_decay)
        if weight_decay or len(groups) < 2:
            return groups
        return [{"params": groups[0]["params"] + groups[1]["params"], "weight_decay": 0.0}]

    m.decay_groups = decay_groups


@caught_by(1)
def the_least_rate_is_that_of_the_last_group(m):
    rewritten(m, "warmup_cosine", ("param_groups[0]", "param_groups[-1]"))


@caught_by(1)
def greedy_looks_at_float32(m):
    rewritten(m, "greedy", ("as_array(logits)", "as_array(logits).astype(np.float32)"))


@caught_by(1)
def a_p_of_nearly_one_is_one(m):
    rewritten(m, "TopP.__call__", ("self.p == 1", "self.p > 0.999"))


@caught_by(1)
def ids_that_need_no_padding_are_given_back_themselves(m):
    right = m.left_padded

    def left_padded(ids, lengths=None):
        moved, padding = right(ids, lengths)
        ids = m.as_array(ids)
        return (moved if padding.any() or ids.dtype != np.int64 else ids), padding

    m.left_padded = left_padded


@caught_by(1)
def ids_are_cut_to_32_bits(m):
    rewritten(m, "left_padded", (".astype(np.int64, copy=False)", ".astype(np.int32).astype(np.int64)"))


@caught_by(1)
def the_model_is_asked_once_more_when_all_have_stopped(m):
    rewritten(
        m,
        "stream",
        ("        if done.all():\n            return\n", ""),
        ("        chosen =", "        if done.all():\n            return\n        chosen ="),
    )


@caught_by(3)
def a_cache_is_made_to_be_counted(m):
    right = m.generation_bytes

    def generation_bytes(model, batch, length):
        parts = right(model, batch, length)
        return {**parts, "cache": np.zeros(parts["cache"], np.uint8).nbytes}

    m.generation_bytes = generation_bytes


@caught_by(1)
def counting_throws_gradients_away(m):
    right = m.training_bytes

    def training_bytes(model, batch, length):
        model.zero_grad()
        return right(model, batch, length)

    m.training_bytes = training_bytes


@caught_by(1)
def counting_leaves_gradients(m):
    right = m.training_bytes

    def training_bytes(model, batch, length):
        ids = np.zeros((batch, length), np.int64)
        m.language_model_loss(model(ids), ids).backward()
        return right(model, batch, length)

    m.training_bytes = training_bytes


@caught_by(1)
def counting_makes_a_model_train(m):
    right = m.training_bytes
    m.training_bytes = lambda model, batch, length: right(model.train(), batch, length)


@caught_by(1)
def a_penalty_of_nan_is_accepted(m):
    rewritten(m, "RepetitionPenalty.__init__", ("if not penalty > 0:", "if penalty <= 0:"))


@caught_by(1)
def a_penalty_of_numpys_makes_float64(m):
    def bend(self, logits, ids):
        seen = np.zeros(logits.shape, bool)
        np.put_along_axis(seen, ids, True, axis=1)
        penalised = np.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return np.where(seen, penalised, logits)

    m.RepetitionPenalty.__call__ = bend


@caught_by(1)
def a_stream_draws_from_a_copy_of_the_generator(m):
    m.copy = copy
    rewritten(
        m, "stream", ("done = np.zeros(rows, bool)", "done, rng = np.zeros(rows, bool), copy.deepcopy(rng)")
    )


@caught_by(1)
def a_search_leaves_the_model_in_evaluation(m):
    rewritten(m, "beam_search", ("rows, scores = prompt,", "model.eval(); rows, scores = prompt,"))


@caught_by(1)
def a_text_leaves_the_model_in_evaluation(m):
    rewritten(m, "generate", ("how = {", "model.eval(); how = {"))


@caught_by(1)
def a_row_is_filled_up_with_the_first_token_that_stops(m):
    rewritten(m, "stream", ("filler = so_far[:, -1] if", "filler = (stops or [0])[0] if"))


@caught_by(1)
def a_row_is_filled_up_with_the_last_token_that_stops(m):
    rewritten(m, "stream", ("filler = so_far[:, -1] if", "filler = (stops or [0])[-1] if"))


@caught_by(1)
def padding_is_counted_in_the_dtype_of_lengths(m):
    rewritten(m, "left_padded", ("lengths.astype(np.int64)", "lengths"))


@caught_by(1)
def windows_of_training_are_half_as_long(m):
    rewritten(
        m,
        "train_language_model",
        ("model.config.context, batch_size", "model.config.context // 2, batch_size"),
    )


@caught_by(1)
def batches_of_training_have_two_windows(m):
    rewritten(m, "train_language_model", ("model.config.context, batch_size", "model.config.context, 2"))


LAST = "of two axes the last is axis 1, and the last is what numpy, or kata 04, takes without a word"
EQUIVALENT: dict[str, str] = {
    "TokenDataset.__getitems__: places >= len(self) -> places > len(self)": (
        "numpy refuses that index by itself, with the same kind of error, and names it"
    ),
    "sample: line <= points -> line < points": (
        "a point that is one of the sums to the last bit comes once in 2**53 draws"
    ),
    "RepetitionPenalty.__call__: np.take_along_axis(logits, ids, axis=1) -> np.take_along_axis(logits, ids)": LAST,
    "RepetitionPenalty.__call__: seen > 0 -> seen >= 0": "0 divided by the penalty is 0 times the penalty",
    "TopK.__call__: np.partition(logits, place, axis=1) -> np.partition(logits, place)": LAST,
    "TopP.__call__: np.take_along_axis(largest_first, count - 1, axis=1) -> "
    "np.take_along_axis(largest_first, count - 1)": LAST,
    "TopP.__call__: np.sort(-logits, axis=1) -> np.sort(-logits)": LAST,
    "TopP.__call__: sums[:, :-1] < self.p * sums[:, -1:] -> sums[:, :-1] <= self.p * sums[:, -1:]": (
        "a sum that is p to the last bit is a matter of rounding, which differs between right ways to add up"
    ),
    "TopP.__call__: sums[:, :-1] -> sums[:, :]": "the whole sum is not below its pth part",
    "left_padded: np.take_along_axis(ids, source, axis=1) -> np.take_along_axis(ids, source)": LAST,
    "left_padded: np.take_along_axis(ids, source, axis=1).astype(np.int64, copy=False) -> "
    "np.take_along_axis(ids, source, axis=1).astype(np.int64, copy=True)": "one copy more, of a prompt",
    "Reader.read: if (starts > self.begin).any(): -> if True:": (
        "a mask that hides nothing, and the positions that the model counts by itself"
    ),
    "evaluate: batch_size=16 -> batch_size=17": "how much is read at once, which changes nothing",
    "beam_search: np.argsort(-table, axis=None, kind='stable') -> np.argsort(-table, axis=None)": (
        "which of equally likely rows comes first is not promised"
    ),
    "generation_bytes: cache_bytes(batch, config.num_kv_heads or config.num_heads, min(length, config.context), "
    "config.dim // config.num_heads, config.num_layers, weights[0].itemsize) -> "
    "cache_bytes(config.num_kv_heads or config.num_heads, batch, min(length, config.context), "
    "config.dim // config.num_heads, config.num_layers, weights[0].itemsize)": "factors in another order",
    "Reader.__init__: self.begin = self.read_until = 0 -> self.begin = self.read_until = 1": (
        "the first call, which finds no caches, sets both"
    ),
    "beam_search: log_softmax.forward(reader.read(rows).astype(np.float64), axis=1) -> "
    "log_softmax.forward(reader.read(rows).astype(np.float64))": LAST,
    "beam_search: zip(rows, scores.tolist(), strict=True) -> zip(rows, scores.tolist(), strict=False)": (
        "each row has a score"
    ),
    "beam_search: zip(rows[done], scores[done].tolist(), strict=True) -> "
    "zip(rows[done], scores[done].tolist(), strict=False)": "each row has a score",
    "Reader.__init__: self.begin = self.read_until = 0 -> pass": (
        "the first call, which finds no caches, sets both before it looks at them"
    ),
    "Reader.read: starts > self.begin -> starts >= self.begin": (
        "a mask that hides nothing, and the positions that the model counts by itself"
    ),
    "generation_bytes: weights[0] -> weights[1]": "the weights of a model are of one dtype",
}
