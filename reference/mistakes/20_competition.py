"""Believable wrong solutions of kata 20.  Each takes the reference and spoils one thing in it."""

import copy
import functools
import io
import json
import math
import os
import statistics
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np

from dojo.mistakes import caught_by, rewritten

# 20.1 Metrics, 20.2 score.


@caught_by(1)
def nan_passes_for_a_metric(m):
    def post_init(self):
        if self.accuracy < 0 or self.accuracy > 1:
            raise ValueError(f"accuracy {self.accuracy}")
        for name in ("latency", "memory", "size"):
            if getattr(self, name) <= 0 or getattr(self, name) == math.inf:
                raise ValueError(f"{name} {getattr(self, name)}")

    m.Metrics.__post_init__ = post_init


@caught_by(1)
def a_perfect_accuracy_is_refused(m):
    right = m.Metrics.__post_init__

    def post_init(self):
        right(self)
        if self.accuracy == 1:
            raise ValueError(f"accuracy {self.accuracy}")

    m.Metrics.__post_init__ = post_init


@caught_by(1)
def infinite_latency_is_a_latency(m):
    def post_init(self):
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy {self.accuracy}")
        for name in ("latency", "memory", "size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)}")

    m.Metrics.__post_init__ = post_init


@caught_by(1)
def the_size_is_not_looked_at(m):
    def post_init(self):
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy {self.accuracy}")
        for name in ("latency", "memory"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}")

    m.Metrics.__post_init__ = post_init


@caught_by(1)
def all_gains_the_same_way_round(m):
    def gains(self, baseline):
        if not baseline.accuracy:
            raise ValueError("accuracy")
        names = ("accuracy", "latency", "memory", "size")
        return tuple(getattr(baseline, name) / getattr(self, name) for name in names)

    m.Metrics.gains = gains


@caught_by(1)
def gains_are_losses(m):
    right = m.Metrics.gains
    m.Metrics.gains = lambda self, baseline: tuple(1 / (gain or 1) for gain in right(self, baseline))


@caught_by(1)
def an_accuracy_of_0_divides(m):
    right = m.Metrics.gains

    def gains(self, baseline):
        if not baseline.accuracy:
            return (
                math.inf,
                *right(self, m.Metrics(1, baseline.latency, baseline.memory, baseline.size))[1:],
            )
        return right(self, baseline)

    m.Metrics.gains = gains


@caught_by(1)
def an_arithmetic_mean(m):
    def score(metrics, baseline, floor=0.0):
        gains = metrics.gains(baseline)
        return 0.0 if metrics.accuracy < floor else sum(gains) / 4

    m.score = score


@caught_by(1)
def a_product_without_a_root(m):
    def score(metrics, baseline, floor=0.0):
        gains = metrics.gains(baseline)
        return 0.0 if metrics.accuracy < floor else math.prod(gains)

    m.score = score


@caught_by(1)
def accuracy_does_not_count_above_the_floor(m):
    def score(metrics, baseline, floor=0.0):
        gains = metrics.gains(baseline)
        return 0.0 if metrics.accuracy < floor or not gains[0] else math.prod(gains[1:]) ** (1 / 3)

    m.score = score


@caught_by(1)
def the_floor_itself_is_too_low(m):
    right = m.score

    def score(metrics, baseline, floor=0.0):
        value = right(metrics, baseline, floor)
        return 0.0 if floor and metrics.accuracy <= floor else value

    m.score = score


@caught_by(1)
def no_floor(m):
    right = m.score
    m.score = lambda metrics, baseline, floor=0.0: right(metrics, baseline)


@caught_by(1)
def the_product_overflows(m):
    def score(metrics, baseline, floor=0.0):
        gains = metrics.gains(baseline)
        return 0.0 if metrics.accuracy < floor else math.prod(gains) ** 0.25

    m.score = score


@caught_by(1)
def the_floor_is_asked_first(m):
    right = m.score
    m.score = lambda metrics, baseline, floor=0.0: (
        0.0 if metrics.accuracy < floor else right(metrics, baseline, floor)
    )


# 20.3 answer.


@caught_by(1)
def an_answer_is_the_models_own_buffer(m):
    right = m.answer

    def answer(model, images):
        if isinstance(model, m.Module):
            return right(model, images)
        kept = []
        got = right(lambda x: (kept.append(model(x)), kept[0])[1], images)
        same = type(kept[0]) is np.ndarray and kept[0].dtype == got.dtype and kept[0].flags.c_contiguous
        return kept[0] if same else got

    m.answer = answer


@caught_by(1)
def a_model_stays_in_training(m):
    right = m.answer

    def answer(model, images):
        return (
            right(lambda x: model(m.Tensor(x)), images)
            if isinstance(model, m.Module)
            else right(model, images)
        )

    m.answer = answer


@caught_by(1)
def a_model_stays_in_evaluation(m):
    right = m.answer

    def answer(model, images):
        if isinstance(model, m.Module):
            model.eval()
        return right(model, images)

    m.answer = answer


@caught_by(1)
def all_modules_train_afterwards(m):
    right = m.answer

    def answer(model, images):
        try:
            return right(model, images)
        finally:
            if isinstance(model, m.Module):
                model.train(model.training)

    m.answer = answer


@caught_by(1)
def modes_are_not_put_back_after_an_error(m):
    right = m.answer

    def answer(model, images):
        try:
            return right(model, images)
        except Exception:
            if isinstance(model, m.Module):
                model.eval()
            raise

    m.answer = answer


@caught_by(1)
def answers_are_recorded(m):
    import contextlib

    m.no_grad = contextlib.nullcontext


@caught_by(1)
def everything_becomes_float32(m):
    right = m.answer
    m.answer = lambda model, images: right(model, images).astype(np.float32)


@caught_by(1)
def half_precision_stays(m):
    right = m.answer

    def answer(model, images):
        seen = []
        got = (
            right(lambda x: (seen.append(model(x)), seen[0])[1], images)
            if not isinstance(model, m.Module)
            else right(model, images)
        )
        return got.astype(np.float16) if seen and getattr(seen[0], "dtype", None) == np.float16 else got

    m.answer = answer


@caught_by(1)
def any_number_of_rows_is_an_answer(m):
    right = m.answer

    def answer(model, images):
        try:
            return right(model, images)
        except ValueError:
            out = np.asarray(model(images), np.float32)
            if out.ndim != 2 or not out.shape[1]:
                raise
            return out

    m.answer = answer


@caught_by(1)
def bools_are_logits(m):
    right = m.answer

    def answer(model, images):
        def cast(x):
            out = model(x)
            return out.astype(np.int8) if str(getattr(out, "dtype", "")) == "bool" else out

        return right(model if isinstance(model, m.Module) else cast, images)

    m.answer = answer


@caught_by(1)
def an_answer_keeps_its_layout(m):
    right = m.answer

    def answer(model, images):
        if isinstance(model, m.Module):
            return right(model, images)
        out = []
        got = right(lambda x: (out.append(model(x)), out[0])[1], images)
        return (
            np.asfortranarray(got)
            if isinstance(out[0], np.ndarray) and not out[0].flags.c_contiguous
            else got
        )

    m.answer = answer


# 20.4 accuracy.


@caught_by(1)
def a_nan_can_be_right(m):
    def share_right(logits, labels):
        labels = m.as_array(labels)
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.size:
            raise ValueError(f"{logits.shape} {labels.shape}")
        return float(np.mean(logits.argmax(axis=1) == labels))

    m.share_right = share_right


@caught_by(1)
def a_nan_is_not_looked_at(m):
    def share_right(logits, labels):
        labels = m.as_array(labels)
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.size:
            raise ValueError(f"{logits.shape} {labels.shape}")
        return float(np.mean(np.where(np.isnan(logits), -np.inf, logits).argmax(axis=1) == labels))

    m.share_right = share_right


@caught_by(1)
def equal_logits_are_all_right(m):
    def share_right(logits, labels):
        labels = m.as_array(labels)
        if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.size:
            raise ValueError(f"{logits.shape} {labels.shape}")
        best = logits[np.arange(len(labels)), labels] == logits.max(axis=1)
        return float(np.mean(best))

    m.share_right = share_right


@caught_by(1)
def infinite_logits_are_wrong(m):
    right = m.share_right
    m.share_right = lambda logits, labels: right(np.where(np.isinf(logits), np.nan, logits), labels)


@caught_by(1)
def labels_are_broadcast(m):
    def share_right(logits, labels):
        labels = m.as_array(labels)
        if not labels.size or not logits.size:
            raise ValueError(f"{logits.shape} {labels.shape}")
        return float(np.mean((logits.argmax(axis=-1) == labels) & ~np.isnan(logits).any(axis=-1)))

    m.share_right = share_right


@caught_by(1)
def nothing_is_all_right(m):
    right = m.share_right
    m.share_right = lambda logits, labels: (
        1.0 if not len(labels) and not len(logits) else right(logits, labels)
    )


@caught_by(1)
def a_mean_of_means(m):
    def accuracy_of(model, images, labels, batch=256):
        if batch < 1:
            raise ValueError(f"{batch}")
        labels = m.as_array(labels)
        if labels.shape != (len(images),) or not len(images):
            raise ValueError(f"{np.shape(images)} {labels.shape}")
        starts = range(0, len(images), batch)
        return float(
            np.mean(
                [m.share_right(m.answer(model, images[i : i + batch]), labels[i : i + batch]) for i in starts]
            )
        )

    m.accuracy_of = accuracy_of


@caught_by(1)
def the_last_images_are_left_out(m):
    right = m.accuracy_of

    def accuracy_of(model, images, labels, batch=256):
        whole = len(images) // batch * batch if batch > 0 and len(images) > batch else len(images)
        return right(model, images[:whole], labels[:whole], batch)

    m.accuracy_of = accuracy_of


@caught_by(1)
def all_images_at_once(m):
    right = m.accuracy_of

    def accuracy_of(model, images, labels, batch=256):
        if batch < 1:
            raise ValueError(f"{batch}")
        return right(model, images, labels, max(len(images), 1))

    m.accuracy_of = accuracy_of


@caught_by(1)
def a_batch_of_none(m):
    right = m.accuracy_of
    m.accuracy_of = lambda model, images, labels, batch=256: right(
        model, images, labels, batch if batch > 0 else 256
    )


# 20.5 latency_ratio.


def ratio_with(m, order=lambda turn: turn % 2, middle=statistics.median, copies=True, warm=1, listed=False):
    def latency_ratio(candidate, baseline, batches, clocks=(time.process_time, time.process_time)):
        ratios, answers = [], []
        for turn, images in enumerate(list(batches) if listed else batches):
            took = {}
            for side in (0, 1) if order(turn) else (1, 0):
                own = images.copy() if copies else images
                begin = clocks[side]()
                logits = m.answer((candidate, baseline)[side], own)
                took[side] = clocks[side]() - begin
                if side == 0:
                    answers.append(logits)
            if turn >= warm:
                if took[1] <= 0:
                    raise ValueError("clock")
                ratios.append(took[0] / took[1])
        if not ratios or len(answers) < 2:
            raise ValueError(f"{len(answers)}")
        return m.Latency(middle(ratios), ratios, answers)

    return latency_ratio


@caught_by(1)
def the_candidate_is_always_first(m):
    m.latency_ratio = ratio_with(m, order=lambda turn: True)


@caught_by(1)
def the_baseline_is_always_first(m):
    m.latency_ratio = ratio_with(m, order=lambda turn: False)


@caught_by(1)
def the_other_one_begins(m):
    m.latency_ratio = ratio_with(m, order=lambda turn: turn % 2 == 0)


@caught_by(1)
def a_mean_of_ratios(m):
    m.latency_ratio = ratio_with(m, middle=statistics.mean)


@caught_by(1)
def the_best_of_all_ratios(m):
    m.latency_ratio = ratio_with(m, middle=min)


@caught_by(1)
def the_lower_of_two_middles(m):
    m.latency_ratio = ratio_with(m, middle=statistics.median_low)


@caught_by(1)
def the_warm_up_counts(m):
    m.latency_ratio = ratio_with(m, warm=0)


@caught_by(1)
def both_get_the_same_array(m):
    m.latency_ratio = ratio_with(m, copies=False)


@caught_by(1)
def batches_are_made_before_the_race(m):
    m.latency_ratio = ratio_with(m, listed=True)


@caught_by(1)
def a_promise_is_kept_after_the_clock(m):
    def latency_ratio(candidate, baseline, batches, clocks=(time.process_time, time.process_time)):
        ratios, answers = [], []
        for turn, images in enumerate(batches):
            took = {}
            for side in (0, 1) if turn % 2 else (1, 0):
                own, said = images.copy(), []
                model = (candidate, baseline)[side]
                begin = clocks[side]()
                out = model(m.Tensor(own) if isinstance(model, m.Module) else own)
                took[side] = clocks[side]() - begin
                said.append(m.answer(lambda x, out=out: out, own))
                if side == 0:
                    answers += said
            if turn:
                if took[1] <= 0:
                    raise ValueError("clock")
                ratios.append(took[0] / took[1])
        if not ratios:
            raise ValueError(f"{len(answers)}")
        return m.Latency(statistics.median(ratios), ratios, answers)

    m.latency_ratio = latency_ratio


@caught_by(1)
def the_ratio_of_the_sums(m):
    def latency_ratio(candidate, baseline, batches, clocks=(time.process_time, time.process_time)):
        spent = [0.0, 0.0]

        def noted(side):
            def clock():
                return clocks[side]()

            return clock

        found = right(candidate, baseline, batches, (noted(0), noted(1)))
        for i, ratio in enumerate(found.ratios):
            spent[0] += ratio * (i + 1)
            spent[1] += i + 1
        return m.Latency(spent[0] / spent[1], found.ratios, found.answers)

    right = m.latency_ratio
    m.latency_ratio = latency_ratio


@caught_by(1)
def the_answers_of_the_warm_up_are_lost(m):
    right = m.latency_ratio

    def latency_ratio(*args, **options):
        found = right(*args, **options)
        return m.Latency(found.ratio, found.ratios, found.answers[1:])

    m.latency_ratio = latency_ratio


@caught_by(1)
def one_clock_for_both(m):
    right = m.latency_ratio

    def latency_ratio(candidate, baseline, batches, clocks=(time.process_time, time.process_time)):
        return right(candidate, baseline, batches, (clocks[0], clocks[0]))

    m.latency_ratio = latency_ratio


@caught_by(1)
def a_clock_that_stands_still_is_left_out(m):
    def latency_ratio(candidate, baseline, batches, clocks=(time.process_time, time.process_time)):
        try:
            return right(candidate, baseline, batches, clocks)
        except ValueError as error:
            if "clock" in str(error):
                return m.Latency(math.inf, [math.inf], [])
            raise

    right = m.latency_ratio
    m.latency_ratio = latency_ratio


# 20.6 peak_memory.


def peak_with(m, warm=True, reset=True, subtract=True, stop=True, own=False, built_before=False):
    def peak_memory(build, images):
        if warm:
            m.answer(build(), images)
        m.gc.collect()
        outer = tracemalloc.is_tracing()
        model = build() if built_before else None
        if not outer:
            tracemalloc.start()
        try:
            if reset:
                tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0] if subtract else 0
            m.answer(model or build(), images)
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            if stop and (own or not outer):
                tracemalloc.stop()

    return peak_memory


@caught_by(1)
def what_python_remembers_counts(m):
    m.peak_memory = peak_with(m, warm=False)


@caught_by(1)
def a_peak_of_before_counts(m):
    m.peak_memory = peak_with(m, reset=False)


@caught_by(1)
def what_was_held_before_counts(m):
    m.peak_memory = peak_with(m, subtract=False)


@caught_by(1)
def tracing_goes_on(m):
    m.peak_memory = peak_with(m, stop=False)


@caught_by(1)
def the_tracing_of_others_is_stopped(m):
    m.peak_memory = peak_with(m, own=True)


@caught_by(1)
def weights_do_not_count(m):
    m.peak_memory = peak_with(m, built_before=True)


@caught_by(1)
def what_is_left_is_taken_for_the_peak(m):
    def peak_memory(build, images):
        m.answer(build(), images)
        outer = tracemalloc.is_tracing()
        if not outer:
            tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            kept = build()
            kept = (kept, m.answer(kept, images))
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            if not outer:
                tracemalloc.stop()

    m.peak_memory = peak_memory


# 20.7 fronts.


@caught_by(1)
def equal_ones_dominate_each_other(m):
    m.dominates = lambda a, b: all(x <= y for x, y in zip(m.costs(a), m.costs(b), strict=True))


@caught_by(1)
def one_must_be_better_in_all(m):
    m.dominates = lambda a, b: all(x < y for x, y in zip(m.costs(a), m.costs(b), strict=True))


@caught_by(1)
def better_in_something_is_enough(m):
    m.dominates = lambda a, b: any(x < y for x, y in zip(m.costs(a), m.costs(b), strict=True))


@caught_by(1)
def less_accuracy_is_better(m):
    def costs(metrics):
        return metrics.accuracy, metrics.latency, metrics.memory, metrics.size

    m.dominates = lambda a, b: (
        all(x <= y for x, y in zip(costs(a), costs(b), strict=True)) and costs(a) != costs(b)
    )


@caught_by(1)
def a_front_without_doubles(m):
    right = m.pareto_front

    def pareto_front(entries, key=None):
        front, seen = [], set()
        for entry in right(entries, key):
            metrics = key(entry) if key else entry
            if metrics not in seen:
                seen.add(metrics)
                front.append(entry)
        return front

    m.pareto_front = pareto_front


@caught_by(1)
def a_front_in_order_of_accuracy(m):
    right = m.pareto_front
    m.pareto_front = lambda entries, key=None: sorted(
        right(entries, key), key=lambda entry: -(key(entry) if key else entry).accuracy
    )


@caught_by(1)
def equal_ones_drive_each_other_out(m):
    def pareto_front(entries, key=None):
        listed = list(entries)
        metrics = [key(entry) if key else entry for entry in listed]

        def beaten(i):
            mine = m.costs(metrics[i])
            return any(
                j != i and all(x <= y for x, y in zip(m.costs(other), mine, strict=True))
                for j, other in enumerate(metrics)
            )

        return [entry for i, entry in enumerate(listed) if not beaten(i)]

    m.pareto_front = pareto_front


@caught_by(1)
def a_front_of_neighbours(m):
    def pareto_front(entries, key=None):
        listed = list(entries)
        metrics = [key(entry) if key else entry for entry in listed]
        return [
            entry
            for i, entry in enumerate(listed)
            if not any(m.dominates(other, metrics[i]) for other in metrics[max(0, i - 1) : i + 2])
        ]

    m.pareto_front = pareto_front


@caught_by(1)
def the_key_is_asked_for_each_pair(m):
    right = m.pareto_front

    def pareto_front(entries, key=None):
        listed = list(entries)
        for entry in listed:
            if key:
                key(entry)
        return right(listed, key)

    m.pareto_front = pareto_front


@caught_by(3)
def a_front_from_one_large_table(m):
    def pareto_front(entries, key=None):
        listed = list(entries)
        metrics = map(key, listed) if key else listed
        table = np.array([m.costs(one) for one in metrics], float).reshape(-1, 4)
        no_worse = (table[:, None] <= table).all(axis=2)
        better = (table[:, None] < table).any(axis=2)
        return [
            entry for entry, lost in zip(listed, (no_worse & better).any(axis=0), strict=True) if not lost
        ]

    m.pareto_front = pareto_front


@caught_by(4)
def a_front_pair_by_pair(m):
    def pareto_front(entries, key=None):
        listed = list(entries)
        metrics = [key(entry) if key else entry for entry in listed]

        def ahead(a, b):
            pairs = list(zip(m.costs(a), m.costs(b), strict=True))
            return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

        return [
            entry
            for entry, one in zip(listed, metrics, strict=True)
            if not any(ahead(other, one) for other in metrics)
        ]

    m.pareto_front = pareto_front


# 20.8 hypervolume.


@caught_by(1)
def boxes_are_added_up(m):
    def hypervolume(points, reference):
        points, reference = np.asarray(points, float), np.asarray(reference, float)
        if points.ndim != 2 or reference.shape != points.shape[1:] or not reference.size:
            raise ValueError(f"{points.shape} {reference.shape}")
        return float(np.clip(points - reference, 0, None).prod(axis=1).sum())

    m.hypervolume = hypervolume


@caught_by(1)
def the_largest_box_is_the_volume(m):
    def hypervolume(points, reference):
        points, reference = np.asarray(points, float), np.asarray(reference, float)
        if points.ndim != 2 or reference.shape != points.shape[1:] or not reference.size:
            raise ValueError(f"{points.shape} {reference.shape}")
        return float(np.clip(points - reference, 0, None).prod(axis=1).max(initial=0))

    m.hypervolume = hypervolume


@caught_by(1)
def points_below_take_away(m):
    right = m.hypervolume

    def hypervolume(points, reference):
        points = np.asarray(points, float)
        above = (points > reference).any(axis=1) if points.ndim == 2 else True
        if not np.all(above) or (points.ndim == 2 and not (points > reference).all()):
            return right(np.abs(points), reference)
        return right(points, reference)

    m.hypervolume = hypervolume


@caught_by(1)
def the_reference_is_0(m):
    right = m.hypervolume
    m.hypervolume = lambda points, reference: right(points, np.zeros_like(np.asarray(reference, float)))


@caught_by(2)
def a_volume_of_two_numbers(m):
    right = m.hypervolume

    def hypervolume(points, reference):
        whole = right(points, reference)
        points, reference = np.asarray(points, float), np.asarray(reference, float)
        if len(reference) <= 2 or not len(points):
            return whole
        return right(points[:, :2], reference[:2]) * float(np.ptp(points[:, 2:]) or 1)

    m.hypervolume = hypervolume


@caught_by(4)
def a_volume_by_inclusion_and_exclusion(m):
    import itertools

    def hypervolume(points, reference):
        points, reference = np.asarray(points, float), np.asarray(reference, float)
        if points.ndim != 2 or reference.shape != points.shape[1:] or not reference.size:
            raise ValueError(f"{points.shape} {reference.shape}")
        boxes = points[(points > reference).all(axis=1)] - reference
        return (
            -sum(
                (-1) ** size * float(boxes[list(chosen)].min(axis=0).prod())
                for size in range(1, len(boxes) + 1)
                for chosen in itertools.combinations(range(len(boxes)), size)
            )
            or 0.0
        )

    m.hypervolume = hypervolume


# 20.9 apply_recipe.


@caught_by(1)
def the_model_given_is_changed(m):
    right = m.apply_recipe
    m.apply_recipe = lambda model, steps, recipes: _without_copy(m, right, model, steps, recipes)


def _without_copy(m, right, model, steps, recipes):
    m.copy = type("copy", (), {"deepcopy": staticmethod(lambda x: x)})
    try:
        return right(model, steps, recipes)
    finally:
        m.copy = copy


@caught_by(1)
def a_shallow_copy(m):
    m.copy = type("copy", (), {"deepcopy": staticmethod(copy.copy)})


@caught_by(1)
def steps_are_read_as_they_come(m):
    def apply_recipe(model, steps, recipes):
        model = copy.deepcopy(model)
        for step in steps:
            name, *numbers = step.split(":")
            if name not in recipes:
                raise ValueError(f"{step!r}: {', '.join(recipes)}")
            try:
                given = [float(number) for number in numbers]
            except ValueError:
                raise ValueError(f"{step!r}") from None
            model = recipes[name](model, *given)
        return model

    m.apply_recipe = apply_recipe


@caught_by(1)
def what_a_recipe_gives_is_thrown_away(m):
    def apply_recipe(model, steps, recipes):
        plan = list(steps)
        right(model, plan, recipes)
        model = copy.deepcopy(model)
        for step in plan:
            name, *numbers = step.split(":")
            recipes[name](model, *map(float, numbers))
        return model

    right = m.apply_recipe
    m.apply_recipe = apply_recipe


@caught_by(1)
def only_one_number(m):
    right = m.apply_recipe

    def apply_recipe(model, steps, recipes):
        return right(model, [":".join(step.split(":")[:2]) for step in steps], recipes)

    m.apply_recipe = apply_recipe


@caught_by(1)
def whole_numbers_are_ints(m):
    def apply_recipe(model, steps, recipes):
        def typed(recipe):
            return lambda model, *numbers: recipe(model, *(int(n) if n == int(n) else n for n in numbers))

        return right(model, steps, {name: typed(recipe) for name, recipe in recipes.items()})

    right = m.apply_recipe
    m.apply_recipe = apply_recipe


@caught_by(1)
def an_unknown_recipe_is_a_key_error(m):
    right = m.apply_recipe

    def apply_recipe(model, steps, recipes):
        steps = list(steps)
        for step in steps:
            recipes[step.split(":")[0]]
        return right(model, steps, recipes)

    m.apply_recipe = apply_recipe


@caught_by(1)
def a_copy_before_each_step(m):
    right = m.apply_recipe

    def apply_recipe(model, steps, recipes):
        steps = list(steps)
        for step in steps:
            if step.split(":")[0] not in recipes:
                return right(model, steps, recipes)
        if not steps:
            return right(model, steps, recipes)
        for name in {":".join(step.split(":")[1:]) for step in steps}:
            try:
                [float(number) for number in name.split(":") if name]
            except ValueError:
                return right(model, steps, recipes)
        for step in steps:
            model = right(model, [step], recipes)
        return model

    m.apply_recipe = apply_recipe


# 20.10 search.


def search_with(m, stable=True, skip_done=True, drop_zero=True, use_floor=True, first_counts=True, **other):
    def search(model, steps, recipes, evaluate, *, budget, beam=2, floor=0.0):
        for name, number in (("budget", budget), ("beam", beam)):
            if number < 1:
                raise ValueError(f"{name} {number}")
        first = m.Found((), evaluate(model))
        found, left = [first], [(first, model)]
        limit = budget if first_counts else budget + 1
        while left and len(found) < limit:
            tried = []
            for before, old in left:
                for step in steps:
                    if (
                        (skip_done and step in before.steps)
                        or len(before.steps) >= len(steps)
                        or len(found) >= limit
                    ):
                        continue
                    try:
                        made = m.apply_recipe(
                            model if other.get("again") else old,
                            [*before.steps, step] if other.get("again") else [step],
                            recipes,
                        )
                    except ValueError:
                        if other.get("counts_failures"):
                            limit -= 1
                        if other.get("stops_at_failures"):
                            break
                        continue
                    found.append(m.Found((*before.steps, step), evaluate(made)))
                    value = m.score(
                        found[-1].metrics, first.metrics if not other.get("parent") else before.metrics, floor
                    )
                    if other.get("by_latency"):
                        value = value and 1 / found[-1].metrics.latency
                    if value or not drop_zero:
                        tried.append((value, found[-1], made))
            if other.get("pool"):
                tried += [
                    (m.score(one.metrics, first.metrics, floor), one, old) for one, old in left if one.steps
                ]
            if not stable:
                tried.reverse()
            tried.sort(key=lambda one: -one[0])
            left = [(one, made) for _, one, made in tried[: beam if not other.get("greedy") else 1]]
            if (
                other.get("pool")
                and all(one.steps in {f.steps for f in found[:-1]} for one, _ in left)
                and len(found) >= 40
            ):
                break
        good = [one for one in found if not use_floor or one.metrics.accuracy >= floor]
        if other.get("everything"):
            return good
        return m.pareto_front(good, lambda one: one.metrics)

    return search


@caught_by(1)
def the_later_of_equal_ones_stays(m):
    m.search = search_with(m, stable=False)


@caught_by(1)
def a_step_may_be_done_twice(m):
    m.search = search_with(m, skip_done=False)


@caught_by(1)
def it_goes_on_from_what_scores_nothing(m):
    m.search = search_with(m, drop_zero=False)


@caught_by(1)
def what_is_below_the_floor_is_found_too(m):
    m.search = search_with(m, use_floor=False)


@caught_by(1)
def the_baseline_costs_nothing(m):
    m.search = search_with(m, first_counts=False)


@caught_by(1)
def steps_are_all_done_again(m):
    m.search = search_with(m, again=True)


@caught_by(1)
def a_failed_recipe_costs_an_evaluation(m):
    m.search = search_with(m, counts_failures=True)


@caught_by(1)
def a_failed_recipe_ends_the_round(m):
    m.search = search_with(m, stops_at_failures=True)


@caught_by(1)
def scores_against_the_model_before(m):
    m.search = search_with(m, parent=True)


@caught_by(1)
def the_fastest_go_on(m):
    m.search = search_with(m, by_latency=True)


@caught_by(1)
def a_beam_of_one(m):
    m.search = search_with(m, greedy=True)


@caught_by(1)
def everything_that_was_tried_is_found(m):
    m.search = search_with(m, everything=True)


@caught_by(1)
def a_wrong_evaluation_is_passed_over(m):
    right = m.search

    def search(model, steps, recipes, evaluate, **options):
        bad = m.Metrics(1e-9, 1e9, 1e9, 1e9)

        def careful(made):
            try:
                return evaluate(made)
            except ValueError:
                return bad

        return right(model, steps, recipes, careful, **options)

    m.search = search


@caught_by(3)
def all_models_of_a_search_are_kept(m):
    right = m.search

    def search(model, steps, recipes, evaluate, **options):
        kept = []
        return right(model, steps, recipes, lambda made: (kept.append(made), evaluate(made))[1], **options)

    m.search = search


# 20.11 describe, rebuild.


@caught_by(1)
def dropout_takes_a_place(m):
    right = m.describe

    def describe(model):
        if type(model) is m.Sequential:
            layers, arrays = [], {}
            place = 0
            for layer in model:
                if type(layer) is m.Dropout:
                    place += 1
                    continue
                inner, own = right(layer)
                layers += inner
                for name, array in own.items():
                    number, _, rest = name.partition(".")
                    arrays[f"{place + int(number)}.{rest}"] = array
                place += len(inner)
            return layers, arrays
        return right(model)

    m.describe = describe


@caught_by(1)
def an_heir_of_linear_is_linear(m):
    right = m.describe

    def describe(model):
        for module in [model, *model.modules()]:
            if isinstance(module, m.Linear) and type(module) is not m.Linear:
                plain = copy.copy(module)
                plain.__class__ = m.Linear
                return right(plain)
        return right(model)

    m.describe = describe


@caught_by(1)
def chains_within_chains_are_not_opened(m):
    right = m.describe

    def describe(model):
        if type(model) is m.Sequential and any(type(layer) is m.Sequential for layer in model):
            raise ValueError("Sequential is not of the kinds linear, relu")
        return right(model)

    m.describe = describe


@caught_by(1)
def layer_1_gets_the_arrays_of_layer_10(m):
    def rebuild(layers, arrays):
        model, left = m.Sequential(), dict(arrays)
        for place, layer in enumerate(layers):
            settings = dict(layer)
            name = settings.pop("kind", None)
            if name not in m.KINDS:
                raise m.Refused(f"{name!r} {', '.join(m.KINDS)}")
            mine = {}
            for key in list(left):
                if key.startswith(str(place)):
                    mine[key.partition(".")[2]] = left.pop(key)
            try:
                model.append(m.KINDS[name].build(settings, mine))
            except Exception as error:
                raise m.Refused(f"{name} {error!r}") from error
        if left:
            raise m.Refused(", ".join(left))
        return model.eval()

    m.rebuild = rebuild


@caught_by(1)
def what_belongs_to_no_layer_is_passed_over(m):
    right = m.rebuild

    def rebuild(layers, arrays):
        known = {str(i) for i in range(len(layers))}
        return right(
            layers, {name: a for name, a in arrays.items() if name.partition(".")[0] in known and "." in name}
        )

    m.rebuild = rebuild


@caught_by(1)
def a_model_that_was_rebuilt_is_in_training(m):
    right = m.rebuild
    m.rebuild = lambda layers, arrays: right(layers, arrays).train()


@caught_by(1)
def an_unknown_kind_is_left_out(m):
    right = m.rebuild
    m.rebuild = lambda layers, arrays: right(
        [layer for layer in layers if layer.get("kind") in m.KINDS], arrays
    )


@caught_by(1)
def what_cannot_be_built_is_a_key_error(m):
    right = m.rebuild

    def rebuild(layers, arrays):
        try:
            return right(layers, arrays)
        except m.Refused as error:
            if isinstance(error.__cause__, KeyError):
                raise error.__cause__ from None
            raise

    m.rebuild = rebuild


@caught_by(3)
def arrays_are_copied_to_be_described(m):
    right = m.describe

    def describe(model):
        layers, arrays = right(model)
        return layers, {name: array.copy() for name, array in arrays.items()}

    m.describe = describe


# 20.12 write_submission.


@caught_by(1)
def a_file_is_compressed(m):
    right = m.write_submission

    def write_submission(path, submission):
        right(path, submission)
        with zipfile.ZipFile(path) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, raw in members:
                archive.writestr(zipfile.ZipInfo(name), raw, zipfile.ZIP_DEFLATED)
        return Path(path).stat().st_size

    m.write_submission = write_submission


@caught_by(1)
def a_file_holds_the_time(m):
    right = m.write_submission

    def write_submission(path, submission):
        right(path, submission)
        with zipfile.ZipFile(path) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        with zipfile.ZipFile(path, "w") as archive:
            for name, raw in members:
                archive.writestr(name, raw)
        return Path(path).stat().st_size

    m.write_submission = write_submission


@caught_by(1)
def arrays_in_the_order_given(m):
    def write(path, submission):
        real = sorted
        m.sorted = lambda names: list(names)
        try:
            return right(path, submission)
        finally:
            m.sorted = real

    right = m.write_submission
    m.write_submission = write


@caught_by(1)
def written_in_place(m):
    right = m.write_submission

    def write_submission(path, submission):
        Path(path).write_bytes(b"")
        return right(path, submission)

    m.write_submission = write_submission


@caught_by(1)
def what_is_unfinished_stays(m):
    right = m.write_submission

    def write_submission(path, submission):
        try:
            return right(path, submission)
        except OSError:
            Path(f"{path}.unfinished").write_bytes(b"")
            raise

    m.write_submission = write_submission


@caught_by(1)
def the_size_is_that_of_the_arrays(m):
    right = m.write_submission

    def write_submission(path, submission):
        right(path, submission)
        return sum(array.nbytes for array in submission.arrays.values())

    m.write_submission = write_submission


@caught_by(1)
def claims_are_not_written(m):
    import dataclasses

    right = m.write_submission
    m.write_submission = lambda path, submission: right(path, dataclasses.replace(submission, claims=None))


@caught_by(3)
def a_file_is_put_together_in_memory(m):
    right = m.write_submission

    def write_submission(path, submission):
        raws = [array.tobytes() for array in submission.arrays.values()]
        size = right(path, submission)
        del raws
        return size

    m.write_submission = write_submission


# 20.13 read_submission.


def reading_with(m, limit_first=True, names=True, doubles=True, packed=True, total=True, count=True, **other):
    def read_submission(path, limit=m.LIMIT):
        path = Path(path)
        if limit_first and path.stat().st_size > limit:
            raise m.Refused(f"{path}: {path.stat().st_size:,} bytes, and {limit:,}")
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                listed = [member.filename for member in members]
                if count and len(listed) > m.MEMBERS:
                    raise ValueError(f"{len(listed)}")
                if doubles and len(listed) != len(set(listed)):
                    raise ValueError("twice")
                for member in members:
                    name = member.filename
                    known = name in (m.ABOUT, m.CODE) or m.ARRAY.fullmatch(name)
                    if names and not known:
                        raise ValueError(f"{name!r}")
                    if names == "prefix" and not name.startswith(("arrays/", m.ABOUT, m.CODE)):
                        raise ValueError(f"{name!r}")
                    if packed and (member.compress_type or member.file_size != member.compress_size):
                        raise ValueError(f"{name} is compressed")
                if total and sum(member.file_size for member in members) > limit:
                    raise ValueError("overlap")
                about = json.loads(archive.read(m.ABOUT))
                if about["format"] != 1 and not other.get("any_format"):
                    raise ValueError("format")
                array_of = other.get("array", m._array)
                return m.Submission(
                    about["name"],
                    about["author"],
                    {
                        m.ARRAY.fullmatch(n)[1]: array_of(archive.read(n))
                        for n in listed
                        if m.ARRAY.fullmatch(n)
                    },
                    [dict(layer) for layer in about["layers"]],
                    archive.read(m.CODE).decode() if m.CODE in listed else "",
                    tuple(about["recipe"]),
                    m.Metrics(**about["claims"]) if about["claims"] else None,
                )
        except other.get("errors", Exception) as error:
            raise m.Refused(f"{path}: {error if isinstance(error, ValueError) else repr(error)}") from error

    return read_submission


@caught_by(1)
def the_size_is_not_limited(m):
    m.read_submission = reading_with(m, limit_first=False)


@caught_by(1)
def any_member_is_taken(m):
    m.read_submission = reading_with(m, names=False)


@caught_by(1)
def names_are_judged_by_their_beginning(m):
    m.ARRAY = m.re.compile(r"arrays/(.*)\.npy")


@caught_by(1)
def names_may_go_on(m):
    class Loose:
        def fullmatch(self, name):
            return right.match(name)

    right = m.ARRAY
    m.ARRAY = Loose()


@caught_by(1)
def a_member_may_be_there_twice(m):
    m.read_submission = reading_with(m, doubles=False)


@caught_by(1)
def any_number_of_members(m):
    m.read_submission = reading_with(m, count=False)


@caught_by(1)
def compressed_members_are_unpacked(m):
    m.read_submission = reading_with(m, packed=False)


@caught_by(1)
def any_format_is_read(m):
    m.read_submission = reading_with(m, any_format=True)


@caught_by(1)
def other_errors_pass_through(m):
    m.read_submission = reading_with(m, errors=(ValueError, KeyError))


@caught_by(1)
def a_header_is_believed(m):
    def array(raw):
        stream = io.BytesIO(raw)
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = header[version](stream)
        if dtype.kind not in "biuf":
            raise ValueError(f"{dtype}")
        flat = np.frombuffer(raw, dtype, math.prod(shape), stream.tell())
        return flat.reshape(shape, order="F" if fortran else "C")

    m._array = array


@caught_by(1)
def columns_first_is_not_noticed(m):
    right = m._array

    def array(raw):
        got = right(raw)
        return got.ravel(order="K").reshape(got.shape)

    m._array = array


@caught_by(1)
def pickles_are_opened(m):
    m._array = lambda raw: np.load(io.BytesIO(raw), allow_pickle=True)


@caught_by(1)
def any_dtype_is_an_array(m):
    def array(raw):
        got = np.load(io.BytesIO(raw), allow_pickle=False)
        if len(raw) < got.nbytes or got.nbytes + 64 > len(raw) + 64:
            raise ValueError("bytes")
        return got

    m._array = array
    m.Submission.__post_init__ = lambda self: None


@caught_by(1)
def code_is_run_to_see_whether_it_works(m):
    right = m.read_submission

    def read_submission(path, limit=m.LIMIT):
        submission = right(path, limit)
        if submission.code:
            exec(submission.code, {})
        return submission

    m.read_submission = read_submission


@caught_by(3)
def members_are_read_and_copied(m):
    right = m._array
    held = []

    def array(raw):
        held.append(raw)
        return np.array(right(raw))

    def read_submission(path, limit=m.LIMIT):
        held.clear()
        return reading(path, limit)

    reading = m.read_submission
    m._array, m.read_submission = array, read_submission


@caught_by(3)
def a_file_is_unpacked_before_it_is_judged(m):
    right = m.read_submission

    def read_submission(path, limit=m.LIMIT):
        try:
            with zipfile.ZipFile(path) as archive:
                members = [archive.read(name) for name in archive.namelist()[:1]]
        except Exception:
            members = []
        submission = right(path, limit)
        del members
        return submission

    m.read_submission = read_submission


# 20.14 frames.


@caught_by(1)
def the_byte_order_is_lost(m):
    right = m.write_frame

    def write_frame(stream, message):
        if isinstance(message, np.ndarray) and message.dtype.byteorder == ">":
            right(stream, message.view(message.dtype.newbyteorder("<")))
        else:
            right(stream, message)

    m.write_frame = write_frame


@caught_by(1)
def a_frame_in_the_arrays_own_order(m):
    def write_frame(stream, message):
        if isinstance(message, np.ndarray) and message.ndim > 1 and message.flags.f_contiguous:
            return right(stream, message.ravel(order="K").reshape(message.shape))
        return right(stream, message)

    right = m.write_frame
    m.write_frame = write_frame


@caught_by(1)
def a_frame_stays_in_the_buffer(m):
    right = m.write_frame

    class Still:
        def __init__(self, stream):
            self.write = stream.write

        def flush(self):
            pass

    m.write_frame = lambda stream, message: right(Still(stream), message)


@caught_by(1)
def texts_of_any_length(m):
    right = m.write_frame

    def write_frame(stream, message):
        if isinstance(message, str):
            stream.write(json.dumps({"text": message}).encode() + b"\n")
            stream.flush()
        else:
            right(stream, message)

    m.write_frame = write_frame


@caught_by(1)
def a_header_is_written_before_it_is_judged(m):
    right = m.write_frame

    def write_frame(stream, message):
        if isinstance(message, np.ndarray) and message.dtype.kind not in "biuf":
            stream.write(b'{"dtype": ')
        right(stream, message)

    m.write_frame = write_frame


@caught_by(1)
def what_has_come_is_all(m):
    def read_frame(stream, limit=m.LIMIT):
        class Once:
            def readline(self, size):
                return stream.readline(size)

            def readinto(self, view):
                got = stream.readinto(view)
                return len(view) if got else 0

        return right(Once(), limit)

    right = m.read_frame
    m.read_frame = read_frame


@caught_by(1)
def a_frame_can_only_be_read(m):
    right = m.read_frame

    def read_frame(stream, limit=m.LIMIT):
        got = right(stream, limit)
        if isinstance(got, np.ndarray):
            got.flags.writeable = False
        return got

    m.read_frame = read_frame


@caught_by(1)
def the_end_of_a_stream_is_refused(m):
    right = m.read_frame

    def read_frame(stream, limit=m.LIMIT):
        try:
            return right(stream, limit)
        except EOFError:
            raise m.Refused("the stream ended") from None

    m.read_frame = read_frame


@caught_by(1)
def a_torn_frame_is_the_end(m):
    right = m.read_frame

    def read_frame(stream, limit=m.LIMIT):
        try:
            return right(stream, limit)
        except m.Refused as error:
            if "too early" in str(error):
                raise EOFError from None
            raise

    m.read_frame = read_frame


@caught_by(1)
def frames_of_any_size(m):
    right = m.read_frame

    def read_frame(stream, limit=m.LIMIT):
        return right(stream, max(limit, 1 << 20))

    m.read_frame = read_frame


@caught_by(1)
def a_negative_axis_is_small(m):
    def read_frame(stream, limit=m.LIMIT):
        line = stream.readline(m.HEADER + 1)
        if not line:
            raise EOFError
        try:
            header = json.loads(line) if line.endswith(b"\n") else None
            if "text" in header:
                return str(header["text"])
            dtype, shape = np.dtype(header["dtype"]), tuple(map(int, header["shape"]))
        except (ValueError, TypeError, KeyError) as error:
            raise m.Refused("header") from error
        if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize > limit:
            raise m.Refused(f"{shape}")
        raw = stream.read(max(0, math.prod(shape) * dtype.itemsize))
        while len(raw) < math.prod(shape) * dtype.itemsize:
            more = stream.read(math.prod(shape) * dtype.itemsize - len(raw))
            if not more:
                raise m.Refused(f"{math.prod(shape) * dtype.itemsize - len(raw)}")
            raw += more
        return np.frombuffer(bytearray(raw), dtype).reshape(shape)

    m.read_frame = read_frame


@caught_by(1)
def objects_arrive(m):
    right = m.read_frame

    def read_frame(stream, limit=m.LIMIT):
        start = stream.tell() if stream.seekable() else None
        line = stream.readline(m.HEADER + 1)
        if b'"O"' in line:
            return np.empty(2, object)
        if start is not None:
            stream.seek(start)
            return right(stream, limit)
        whole = io.BytesIO(line + stream.read())
        return right(whole, limit)

    m.read_frame = read_frame


@caught_by(1)
def a_line_may_have_no_end(m):
    right = m.read_frame

    def read_frame(stream, limit=m.LIMIT):
        class Long:
            readinto = staticmethod(stream.readinto)

            def readline(self, size):
                return stream.readline()

        return right(Long(), limit)

    m.read_frame = read_frame


@caught_by(3)
def room_is_made_before_a_frame_is_judged(m):
    right = m.read_frame

    def read_frame(stream, limit=m.LIMIT):
        room = np.empty(min(limit, 32 << 20), np.uint8)
        got = right(stream, limit)
        del room
        return got

    m.read_frame = read_frame


@caught_by(3)
def a_frame_is_copied_twice(m):
    right = m.write_frame

    def write_frame(stream, message):
        copies = [message.copy(), message.copy()] if isinstance(message, np.ndarray) else []
        right(stream, message)
        del copies

    m.write_frame = write_frame


# 20.15 serve.


def serving_with(m, ready=True, catch=Exception, once=False, **other):
    def serve(build, reading, writing):
        images, kept = None, []
        try:
            model = build()
            if ready:
                m.write_frame(writing, "ready")
            while True:
                try:
                    message = m.read_frame(reading)
                except EOFError:
                    return
                if isinstance(message, str):
                    peak = 0 if images is None else m.peak_memory(build, images)
                    m.write_frame(writing, np.array([peak], np.int64))
                    continue
                images = message
                logits = model(images) if other.get("raw") else m.answer(model, images)
                if other.get("keep"):
                    kept.append(logits)
                if other.get("again"):
                    model = build()
                m.write_frame(writing, logits)
        except catch as error:
            text = str(error) if other.get("no_kind") else f"{type(error).__name__}: {error}"
            m.write_frame(writing, text)
            if other.get("goes_on"):
                serve(build, reading, writing)

    return serve


@caught_by(1)
def it_does_not_say_ready(m):
    m.serve = serving_with(m, ready=False)


@caught_by(1)
def only_value_errors_go_back(m):
    m.serve = serving_with(m, catch=ValueError)


@caught_by(1)
def the_kind_of_error_is_not_told(m):
    m.serve = serving_with(m, no_kind=True)


@caught_by(1)
def the_models_own_answer_goes_back(m):
    m.serve = serving_with(m, raw=True)


@caught_by(1)
def after_an_error_it_goes_on(m):
    m.serve = serving_with(m, goes_on=True)


@caught_by(1)
def the_model_is_built_for_each_batch(m):
    m.serve = serving_with(m, again=True)


@caught_by(3)
def answers_are_kept(m):
    m.serve = serving_with(m, keep=True)


@caught_by(1)
def an_eof_of_the_model_ends_it_silently(m):
    right = m.serve

    def serve(build, reading, writing):
        def careful():
            model = build()

            def ask(images):
                try:
                    return model(images)
                except EOFError:
                    raise SystemExit from None

            return ask if not isinstance(model, m.Module) else model

        try:
            right(careful, reading, writing)
        except SystemExit:
            return

    m.serve = serve


# 20.16, 20.17: claims and the judge.


@caught_by(1)
def better_than_claimed_is_a_fault(m):
    def broken_claims(claimed, measured, tolerance=m.ALLOWED):
        return [
            f"{name} {getattr(measured, name):.6g} {getattr(claimed, name):.6g}"
            for name in ("accuracy", "latency", "memory", "size")
            if abs(getattr(measured, name) - getattr(claimed, name)) > 0.35 * getattr(claimed, name)
        ]

    m.broken_claims = broken_claims


@caught_by(1)
def accuracy_has_a_factor_as_well(m):
    right = m.broken_claims

    def broken_claims(claimed, measured, tolerance=m.ALLOWED):
        faults = [fault for fault in right(claimed, measured, tolerance) if "accuracy" not in fault]
        if measured.accuracy < claimed.accuracy * tolerance.accuracy:
            faults.insert(0, f"accuracy {measured.accuracy} {claimed.accuracy}")
        return faults

    m.broken_claims = broken_claims


@caught_by(1)
def the_first_fault_is_told(m):
    right = m.broken_claims
    m.broken_claims = lambda claimed, measured, tolerance=m.ALLOWED: right(claimed, measured, tolerance)[:1]


@caught_by(1)
def the_tolerance_is_always_the_same(m):
    right = m.broken_claims
    m.broken_claims = lambda claimed, measured, tolerance=m.ALLOWED: right(claimed, measured)


@caught_by(1)
def nothing_is_tolerated(m):
    right = m.broken_claims

    def broken_claims(claimed, measured, tolerance=m.ALLOWED):
        return right(claimed, measured, m.Tolerance(0.0, 1.0, 1.0, 1.0))

    m.broken_claims = broken_claims


@caught_by(1)
def claims_are_believed(m):
    m.broken_claims = functools.partial(_no_faults, m.broken_claims)
    right = m.verify
    plain = m.broken_claims.args[0]

    def verify(*args, **options):
        m.broken_claims = lambda *rest: []
        try:
            return right(*args, **options)
        finally:
            m.broken_claims = plain

    m.broken_claims, m.verify = plain, verify


def _no_faults(right, *args):
    return right(*args)


@caught_by(1)
def always_the_same_inputs(m):
    right = m.verify
    m.verify = lambda *args, seed=None, **options: right(*args, seed=0 if seed is None else seed, **options)


@caught_by(1)
def one_batch_for_all_rounds(m):
    right = m.verify

    def verify(path, baseline, draw, **options):
        drawn = []

        def once(rng):
            if not drawn:
                drawn.append(draw(rng))
            return drawn[0]

        return right(path, baseline, once, **options)

    m.verify = verify


@caught_by(1)
def code_is_run_unasked(m):
    right = m.verify
    m.verify = lambda *args, allow_code=False, **options: right(*args, allow_code=True, **options)


@caught_by(1)
def the_floor_is_for_the_score_only(m):
    right = m.verify

    def verify(*args, floor=0.0, **options):
        return right(*args, **options)

    m.verify = verify


@caught_by(1)
def the_limit_is_not_handed_on(m):
    right = m.verify
    m.verify = lambda *args, limit=0, **options: right(*args, **options)


@caught_by(1)
def kinds_are_not_set_up(m):
    right = m.verify
    m.verify = lambda *args, setup="", **options: right(*args, **options)


@caught_by(1)
def nobody_is_too_late(m):
    right = m.verify
    m.verify = lambda *args, seconds=20.0, **options: right(*args, seconds=120.0, **options)


@caught_by(1)
def the_judge_measures_in_his_own_process(m):
    class Here:
        before = None

        def __init__(self, path, setup="", seconds=20.0):
            if setup:
                m.runpy.run_path(setup)
            self.build = m.read_submission(path).build
            self.model = self.build()
            self.clock = time.process_time

        def __call__(self, images):
            self.images = images
            return m.answer(self.model, images)

        def memory(self, measure):
            return m.peak_memory(self.build, self.images)

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            pass

    m.Worker = Here


@caught_by(1)
def processes_are_left_behind(m):
    m.Worker.close = lambda self: None


@caught_by(1)
def the_baselines_size_is_the_entrys(m):
    right = m.verify

    def verify(path, baseline, *args, **options):
        found = right(path, baseline, *args, **options)
        size = found.metrics.size
        base = m.Metrics(found.baseline.accuracy, 1.0, found.baseline.memory, size)
        return m.Verdict(found.digest, found.metrics, base, found.score, found.measure)

    m.verify = verify


@caught_by(1)
def the_accuracy_of_the_last_batch(m):
    rewritten(
        m,
        "verify",
        (
            "share_right(np.concatenate(latency.answers), right)",
            "share_right(latency.answers[-1], labels[-1])",
        ),
    )


@caught_by(1)
def the_baselines_accuracy_of_the_last_batch(m):
    rewritten(
        m,
        "verify",
        ("share_right(np.concatenate(known), right)", "share_right(known[-1], labels[-1])"),
    )


# 20.18, 20.19: the leaderboard.


@caught_by(1)
def a_second_entry_replaces_the_first(m):
    right = m.Leaderboard.add

    def add(self, entry):
        with self.connected() as database:
            there = database.execute("DELETE FROM entries WHERE digest = ?", (entry.digest,)).rowcount
        right(self, entry)
        return not there

    m.Leaderboard.add = add


@caught_by(1)
def an_entry_that_is_there_is_an_error(m):
    right = m.Leaderboard.add

    def add(self, entry):
        if not right(self, entry):
            raise ValueError(f"{entry.digest} is there")
        return True

    m.Leaderboard.add = add


@caught_by(1)
def every_entry_is_new(m):
    right = m.Leaderboard.add
    m.Leaderboard.add = lambda self, entry: right(self, entry) or True


@caught_by(1)
def values_go_into_the_text(m):
    def add(self, entry):
        values = [entry.digest, entry.name, entry.author, json.dumps(entry.recipe)]
        numbers = [*m.asdict(entry.metrics).values(), entry.score, entry.time]
        listed = ", ".join([*(f"'{value}'" for value in values), *map(str, numbers)])
        with self.connected() as database:
            sql = f"INSERT OR IGNORE INTO entries ({m.COLUMNS}) VALUES ({listed})"
            return database.execute(sql).rowcount == 1

    m.Leaderboard.add = add


@caught_by(1)
def look_first_and_enter_then(m):
    right = m.Leaderboard.add

    def add(self, entry):
        with self.connected() as database:
            there = database.execute("SELECT 1 FROM entries WHERE digest = ?", (entry.digest,)).fetchone()
            time.sleep(0.01)
        if there:
            return False
        right(self, entry)
        return True

    m.Leaderboard.add = add


@caught_by(1)
def the_lowest_score_is_first(m):
    right = m.Leaderboard.entries
    m.Leaderboard.entries = lambda self: sorted(right(self), key=lambda entry: entry.score)


@caught_by(1)
def the_latest_of_equal_ones_is_first(m):
    right = m.Leaderboard.entries
    m.Leaderboard.entries = lambda self: sorted(right(self), key=lambda entry: (-entry.score, -entry.time))


@caught_by(1)
def scores_are_sorted_as_texts(m):
    right = m.Leaderboard.entries
    m.Leaderboard.entries = lambda self: sorted(right(self), key=lambda entry: str(entry.score), reverse=True)


@caught_by(1)
def the_front_is_the_best_three(m):
    m.Leaderboard.front = lambda self: self.entries()[:3]


@caught_by(1)
def one_journal_for_all(m):
    right = m.Leaderboard.__init__

    def init(self, path):
        right(self, path)
        with self.connected() as database:
            database.execute("PRAGMA journal_mode = DELETE")

    m.Leaderboard.__init__ = init


@caught_by(1)
def nobody_waits(m):
    m.PATIENCE = 0.0


@caught_by(1)
def somebody_elses_table_is_taken(m):
    def init(self, path):
        self.path = Path(path)
        with self.connected() as database:
            m.in_wal(database)
            database.execute("DROP TABLE IF EXISTS entries") if not _ours(m, database) else None
            database.execute(m.SCHEMA)

    m.Leaderboard.__init__ = init


def _ours(m, database):
    columns = {row[1] for row in database.execute("PRAGMA table_info(entries)")}
    return not columns or columns == set(m.COLUMNS.split(", "))


@caught_by(1)
def a_damaged_file_is_made_anew(m):
    right = m.Leaderboard.__init__

    def init(self, path):
        try:
            right(self, path)
        except m.DamagedLeaderboard:
            Path(path).unlink()
            right(self, path)

    m.Leaderboard.__init__ = init


@caught_by(1)
def a_connection_stays_open(m):
    right = m.Leaderboard.__init__

    def init(self, path):
        right(self, path)
        self.held = m.sqlite3.connect(path)
        self.held.execute("BEGIN")
        self.held.execute("SELECT * FROM entries").fetchall()

    def entries(self):
        names = "digest, name, author, recipe, accuracy, latency, memory, size, score, time"
        rows = self.held.execute(f"SELECT {names} FROM entries ORDER BY score DESC, time, digest").fetchall()
        return [
            m.Entry(row[0], row[1], row[2], m.Metrics(*row[4:8]), row[8], tuple(json.loads(row[3])), row[9])
            for row in rows
        ]

    m.Leaderboard.__init__, m.Leaderboard.entries = init, entries


@caught_by(1)
def every_file_is_whole(m):
    def check(self):
        with self.connected() as database:
            database.execute("SELECT count(*) FROM sqlite_master")

    m.Leaderboard.check = check


@caught_by(1)
def pages_are_checked_and_entries_are_not(m):
    def check(self):
        with self.connected() as database:
            found = database.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                raise m.sqlite3.DatabaseError(found)

    m.Leaderboard.check = check


@caught_by(1)
def what_the_check_says_is_not_read(m):
    def check(self):
        with self.connected() as database:
            database.execute("PRAGMA integrity_check").fetchone()
        self.entries()

    m.Leaderboard.check = check


@caught_by(1)
def a_backup_without_the_journal(m):
    def backup(self, path):
        self.check()
        holder = m.sqlite3.connect(self.path)  # as long as one is open, the journal is not emptied
        holder.execute("BEGIN IMMEDIATE")
        holder.execute("COMMIT")
        Path(path).write_bytes(
            self.path.read_bytes()[:-1] if not self.path.stat().st_size else self.path.read_bytes()
        )
        holder.close()
        with m.closing(m.sqlite3.connect(path)) as database:
            database.execute("DELETE FROM entries WHERE rowid = (SELECT max(rowid) FROM entries)")
            database.commit()

    m.Leaderboard.backup = backup


@caught_by(1)
def a_backup_that_is_two_files(m):
    def backup(self, path):
        self.check()
        for end in ("", "-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        target = m.sqlite3.connect(path)
        target.execute("PRAGMA journal_mode = WAL")
        with self.connected() as database:
            database.backup(target)
        raw = {
            end: Path(f"{path}{end}").read_bytes() for end in ("", "-wal") if Path(f"{path}{end}").exists()
        }
        target.close()
        for end, content in raw.items():
            Path(f"{path}{end}").write_bytes(content)

    m.Leaderboard.backup = backup


@caught_by(1)
def a_damaged_board_is_backed_up(m):
    right = m.Leaderboard.check
    backing = m.Leaderboard.backup

    def backup(self, path):
        m.Leaderboard.check = lambda self: None
        try:
            Path(path).unlink(missing_ok=True)
            backing(self, path)
        finally:
            m.Leaderboard.check = right

    m.Leaderboard.backup = backup


@caught_by(1)
def what_was_there_is_deleted(m):
    def restore(cls, backup, path):
        if not Path(backup).exists():
            raise FileNotFoundError(f"{backup}")
        good = cls(backup)
        good.check()
        for end in ("", "-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        good.backup(path)
        return cls(path)

    m.Leaderboard.restore = classmethod(restore)


@caught_by(1)
def what_was_set_aside_is_written_over(m):
    right = m.Leaderboard.restore.__func__

    def restore(cls, backup, path):
        Path(f"{path}.damaged").unlink(missing_ok=True)
        return right(cls, backup, path)

    m.Leaderboard.restore = classmethod(restore)


@caught_by(1)
def the_old_journal_stays(m):
    def restore(cls, backup, path):
        if not Path(backup).exists():
            raise FileNotFoundError(f"{backup}")
        good = cls(backup)
        good.check()
        if os.path.exists(path):
            aside, i = f"{path}.damaged", 0
            while os.path.exists(aside):
                i += 1
                aside = f"{path}.damaged.{i}"
            os.replace(path, aside)
        good.backup(path)
        return cls(path)

    m.Leaderboard.restore = classmethod(restore)


@caught_by(1)
def the_board_is_moved_before_the_backup_is_looked_at(m):
    right = m.Leaderboard.restore.__func__

    def restore(cls, backup, path):
        if os.path.exists(path):
            os.replace(path, f"{path}.damaged")
        return right(cls, backup, path)

    m.Leaderboard.restore = classmethod(restore)


@caught_by(1)
def a_missing_backup_is_made(m):
    right = m.Leaderboard.restore.__func__

    def restore(cls, backup, path):
        cls(backup)
        return right(cls, backup, path)

    m.Leaderboard.restore = classmethod(restore)


# What came through an earlier suite.


@caught_by(1)
def right_ones_are_whole_numbers_rounded_down(m):
    right = m.accuracy_of

    def accuracy_of(model, images, labels, batch=256):
        labels = m.as_array(labels)
        if batch < 1 or not len(images) or len(labels) != len(images):
            return right(model, images, labels, batch)
        count = 0
        for i in range(0, len(images), batch):
            part = labels[i : i + batch]
            count += int(m.share_right(m.answer(model, images[i : i + batch]), part) * len(part))
        return count / len(images)

    m.accuracy_of = accuracy_of


@caught_by(1)
def the_baseline_may_give_a_promise(m):
    rewritten(
        m,
        "latency_ratio",
        ("= answer(model, images)", "= answer(model, images) if model is candidate else model(images)"),
    )


@caught_by(1)
def garbage_is_taken_for_room(m):
    rewritten(m, "peak_memory", ("gc.collect()", "pass"))


@caught_by(1)
def the_first_answer_is_traced(m):
    rewritten(m, "peak_memory", ("answer(build(), images)\n    gc", "build()\n    gc"))


@caught_by(1)
def a_front_in_single_precision(m):
    rewritten(m, "pareto_front", ("for each in metrics], float)", "for each in metrics], np.float32)"))


@caught_by(1)
def a_broken_recipe_is_passed_over(m):
    rewritten(m, "search", ("except ValueError:", "except Exception:"))


@caught_by(1)
def some_errors_of_building_pass_through(m):
    rewritten(
        m, "rebuild", ("except Exception as error:", "except (KeyError, ValueError, TypeError) as error:")
    )


@caught_by(1)
def a_kind_is_looked_up_whatever_it_is(m):
    rewritten(m, "rebuild", ("not isinstance(name, str) or ", ""))


@caught_by(1)
def some_errors_of_reading_pass_through(m):
    kinds = "zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, NotImplementedError, OSError"
    rewritten(m, "read_submission", ("except Exception as error:", f"except ({kinds}) as error:"))


@caught_by(1)
def some_errors_of_a_header_pass_through(m):
    rewritten(
        m, "read_frame", ("except Exception as error:", "except (ValueError, TypeError, KeyError) as error:")
    )


@caught_by(1)
def an_array_of_any_shape_is_made(m):
    rewritten(m, "read_frame", ("except ValueError as error:", "except ZeroDivisionError as error:"))


@caught_by(1)
def a_seed_of_0_is_none(m):
    rewritten(m, "verify", ("default_rng(seed)", "default_rng(seed or None)"))


@caught_by(1)
def the_clock_on_the_wall(m):
    rewritten(m, "verify", ("(mine.clock, theirs.clock)", "(time.perf_counter, time.perf_counter)"))


@caught_by(1)
def the_first_batch_counts_for_the_baseline_alone(m):
    rewritten(
        m,
        "verify",
        (
            "share_right(np.concatenate(latency.answers), right)",
            "share_right(np.concatenate(latency.answers[1:]), np.concatenate(labels[1:]))",
        ),
    )


@caught_by(1)
def a_judge_knows_one_tolerance(m):
    rewritten(m, "verify", ("found, tolerance)", "found)"))


@caught_by(1)
def indices_are_not_compared_with_their_table(m):
    rewritten(m, "Leaderboard.check", ("integrity_check", "quick_check"))


@caught_by(1)
def who_is_in_use_is_so_in_all_its_parts(m):
    rewritten(m, "answer", ("model.eval()", "if model.training:\n            model.eval()"))


@caught_by(1)
def all_arrays_are_float32(m):
    rewritten(m, "describe", ('f"{place}.{name}": array', 'f"{place}.{name}": np.asarray(array, np.float32)'))


@caught_by(1)
def memory_is_that_of_the_first_images(m):
    rewritten(
        m,
        "serve",
        ("images = message", "images = message if images is None else images"),
        ("answer(model, images)", "answer(model, message)"),
    )


@caught_by(1)
def the_front_is_in_the_order_of_time(m):
    rewritten(
        m,
        "Leaderboard.front",
        ("pareto_front(self.entries()", "pareto_front(sorted(self.entries(), key=lambda entry: entry.time)"),
    )


@caught_by(1)
def a_backup_is_opened_and_not_checked(m):
    rewritten(m, "Leaderboard.restore", ("good.check()", "pass"))


@caught_by(1)
def one_file_of_the_damaged_stays(m):
    rewritten(m, "Leaderboard.restore", ('("", "-wal", "-shm")', '("", "-wal")'))


@caught_by(1)
def a_modules_answer_goes_back_as_it_is(m):
    right = m.answer

    def answer(model, images):
        if not isinstance(model, m.Module):
            return right(model, images)
        before = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with m.no_grad():
                return model(m.Tensor(images)).data
        finally:
            for module, training in before:
                module.training = training

    m.answer = answer


@caught_by(1)
def a_modules_answer_is_looked_at_and_not_copied(m):
    rewritten(
        m,
        "answer",
        ("return np.array(", "return logits if isinstance(model, Module) else np.array("),
    )


def right_ones_counted(m, longest):
    def accuracy_of(model, images, labels, batch=256):
        labels = m.as_array(labels)
        if batch < 1 or not len(images):
            raise ValueError(f"{batch} {np.shape(images)} {labels.shape}")
        right = count = 0
        for i in range(0, longest(len(images), len(labels)), batch):
            logits = m.answer(model, images[i : i + batch])
            right += round(m.share_right(logits, labels[i : i + batch]) * len(logits))
            count += len(logits)
        return right / count

    return accuracy_of


@caught_by(1)
def labels_that_are_left_over_are_passed_over(m):
    m.accuracy_of = right_ones_counted(m, lambda images, labels: images)


@caught_by(1)
def images_that_are_left_over_are_passed_over(m):
    m.accuracy_of = right_ones_counted(m, lambda images, labels: labels)


@caught_by(1)
def labels_of_many_images_are_an_array(m):
    right = m.accuracy_of

    def accuracy_of(model, images, labels, batch=256):
        if labels.shape != (len(images),):
            raise ValueError(f"{np.shape(images)} {labels.shape}")
        return right(model, images, labels, batch)

    m.accuracy_of = accuracy_of


@caught_by(1)
def a_batch_is_copied_while_the_clock_runs(m):
    rewritten(
        m,
        "latency_ratio",
        ("images = images.copy()", "pass"),
        ("answer(model, images)", "answer(model, images.copy())"),
    )


@caught_by(1)
def an_error_stops_the_tracing_of_others(m):
    rewritten(
        m,
        "peak_memory",
        ("    finally:", "    except Exception:\n        tracemalloc.stop()\n        raise\n    finally:"),
    )


@caught_by(1)
def what_is_dominated_is_taken_out_of_the_list(m):
    right = m.pareto_front

    def pareto_front(entries, key=None):
        front = right(entries, key)
        if isinstance(entries, list):
            entries[:] = front
            return entries
        return front

    m.pareto_front = pareto_front


@caught_by(1)
def entries_without_a_key_are_a_list(m):
    rewritten(
        m, "pareto_front", ("map(key, listed) if key else listed", "map(key, listed) if key else entries")
    )


@caught_by(1)
def a_volume_of_whole_numbers_is_one(m):
    def volume(boxes):
        if boxes.shape[1] == 1:
            return boxes.max()
        total = below = 0
        for height in np.unique(boxes[:, -1]):
            total += (height - below) * volume(boxes[boxes[:, -1] >= height, :-1])
            below = height
        return total

    def hypervolume(points, reference):
        points, reference = np.asarray(points), np.asarray(reference)
        if points.ndim != 2 or reference.shape != points.shape[1:] or not reference.size:
            raise ValueError(f"{points.shape} {reference.shape}")
        boxes = points[(points > reference).all(axis=1)] - reference
        return float(volume(boxes)) if len(boxes) else 0.0

    m.hypervolume = hypervolume


@caught_by(1)
def the_baseline_is_measured_whatever_the_budget(m):
    first = "    first = Found((), evaluate(model))\n"
    rewritten(
        m,
        "search",
        (first, ""),
        ('    for name, number in (("budget"', first + '    for name, number in (("budget"'),
    )


@caught_by(1)
def recipes_go_on_when_the_budget_is_spent(m):
    rewritten(
        m,
        "search",
        (" or len(found) == budget:", ":"),
        (
            "found.append(Found(",
            "if len(found) == budget:\n                continue\n            found.append(Found(",
        ),
    )


@caught_by(1)
def an_heir_of_a_chain_is_a_chain(m):
    rewritten(m, "describe", ("type(module) is Sequential", "isinstance(module, Sequential)"))


@caught_by(1)
def an_heir_of_dropout_does_nothing(m):
    rewritten(m, "describe", ("type(module) is not Dropout", "not isinstance(module, Dropout)"))


@caught_by(1)
def a_layer_that_is_there_twice_is_written_down_once(m):
    rewritten(m, "describe", ("enumerate(opened(model))", "enumerate(dict.fromkeys(opened(model)))"))


@caught_by(1)
def whatever_has_parts_is_opened(m):
    rewritten(
        m,
        "describe",
        ("type(module) is Sequential", "len(list(module.modules())) > 1 or type(module) is Sequential"),
        ("for inner in module:", "for inner in [part for _, part in module.named_members()]:"),
    )


@caught_by(1)
def only_after_an_error_of_the_disk_is_it_cleaned_up(m):
    rewritten(
        m,
        "write_submission",
        (
            "    finally:\n        unfinished.unlink(missing_ok=True)",
            "    except OSError:\n        unfinished.unlink(missing_ok=True)\n        raise",
        ),
    )


@caught_by(3)
def a_file_is_read_to_be_weighed(m):
    rewritten(
        m,
        "read_submission",
        ("    if path.stat().st_size > limit:", "    raw = path.read_bytes()\n    if len(raw) > limit:"),
        ("zipfile.ZipFile(path)", "zipfile.ZipFile(io.BytesIO(raw))"),
    )


@caught_by(1)
def members_may_share_bytes_up_to_the_limit(m):
    rewritten(
        m,
        "read_submission",
        ("for member in members) > path.stat().st_size", "for member in members) > limit"),
    )


@caught_by(1)
def whatever_is_called_a_text_is_one(m):
    rewritten(m, "read_frame", ('str(header["text"])', 'header["text"]'))


@caught_by(1)
def a_negative_axis_is_not_named(m):
    rewritten(
        m, "read_frame", ('f"there is no array of shape {shape}"', 'f"there is no such array: {error}"')
    )


@caught_by(1)
def a_judge_closes_when_all_went_well_or_was_refused(m):
    workers = "Worker(path, setup, seconds) as mine, Worker(baseline, setup, seconds) as theirs:"
    rewritten(
        m,
        "verify",
        (
            f"    with {workers}",
            "    mine, theirs = Worker(path, setup, seconds), Worker(baseline, setup, seconds)\n    try:",
        ),
        (
            "    right = np.concatenate(labels)",
            "    except Refused:\n        mine.close(), theirs.close()\n        raise\n"
            "    mine.close(), theirs.close()\n    right = np.concatenate(labels)",
        ),
    )


@caught_by(1)
def entries_are_read_past_connected(m):
    rewritten(
        m,
        "Leaderboard.entries",
        ("self.connected()", "closing(sqlite3.connect(self.path, timeout=PATIENCE))"),
    )


@caught_by(1)
def an_entry_is_added_past_connected(m):
    rewritten(
        m,
        "Leaderboard.add",
        ("self.connected()", "closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None))"),
    )


@caught_by(1)
def a_journal_stays_where_its_file_is_gone(m):
    rewritten(
        m,
        "Leaderboard.restore",
        ('("", "-wal", "-shm"):', '("", "-wal", "-shm") if os.path.exists(path) else ():'),
    )


@caught_by(1)
def the_backup_is_the_leaderboard_from_now_on(m):
    rewritten(m, "Leaderboard.restore", ("return cls(path)", "return good"))


EQUIVALENT: dict[str, str] = {
    "Worker.__init__: subprocess.Popen([sys.executable, '-c', started, os.fspath(path), os.fspath(set"
    "up)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env={**os.environ, **on"
    "e_thread, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}) -> subprocess.Popen([sys.execu"
    "table, '-c', started, os.fspath(path), os.fspath(setup)], stdin=subprocess.PIPE, stdout=subproce"
    "ss.PIPE, stderr=self.errors)": (
        "given; tests have one thread and these paths in their environment, too"
    ),
    "Worker.clock: return time.perf_counter() -> return None": (
        "given; for systems that tell no processor time"
    ),
    "build_linear: Linear(inputs, outputs, bias=False, rng=np.random.default_rng(0)) -> Linear(output"
    "s, inputs, bias=False, rng=np.random.default_rng(0))": (
        "given; its weight is replaced, whatever its shape"
    ),
    "write_submission: np.lib.format.write_array(member, submission.arrays[name], allow_pickle=False)"
    " -> np.lib.format.write_array(member, submission.arrays[name], allow_pickle=True)": (
        "a Submission holds no objects that could be pickled"
    ),
    "read_submission: sum((member.file_size for member in members)) > path.stat().st_size -> sum((mem"
    "ber.file_size for member in members)) >= path.stat().st_size": (
        "headers and directory make a file longer than its members together, so they are not equal"
    ),
    "Worker.close: for stream in (self.process.stdin, self.process.stdout, self.errors): -> for strea"
    "m in ():": ("given; what is not closed by hand is closed with the object"),
    "Metrics: dataclass(frozen=True) -> dataclass(frozen=False)": (
        "given; it protects from writes that nobody makes"
    ),
    "Submission: dataclass(frozen=True, eq=False) -> dataclass(frozen=True, eq=True)": (
        "given; nobody compares two of them"
    ),
    "Worker.resident: return None -> pass": ("given; for systems that tell nothing of memory"),
    "accuracy_of: np.concatenate(parts) if parts else np.empty((0, 1)) -> np.concatenate(parts)": (
        "without images both raise a ValueError, in other words"
    ),
    "accuracy_of: np.empty((0, 1)) -> np.empty((0, 2))": ("it is in the words of a ValueError only"),
    "peak_memory: if not outer: -> if True:": ("tracemalloc.start does nothing where somebody is tracing"),
    "peak_memory: tracemalloc.get_traced_memory()[0] -> tracemalloc.get_traced_memory()[1]": (
        "after reset_peak both are the same"
    ),
    "dominates: zip(costs(a), costs(b), strict=True) -> zip(costs(a), costs(b), strict=False)": (
        "there are always four of each"
    ),
    "hypervolume: points > reference -> points >= reference": ("a box without thickness has no volume"),
    "_volume: if boxes.shape[1] == 2: -> if False:": (
        "a shortcut: slices of one axis give the same number, later"
    ),
    "build_linear: Linear(inputs, outputs, bias=False, rng=np.random.default_rng(0)) -> Linear(inputs"
    ", outputs, bias=True, rng=np.random.default_rng(0))": ("given; its bias is replaced, or taken away"),
    "build_linear: np.random.default_rng(0) -> np.random.default_rng(1)": (
        "given; what is drawn is replaced"
    ),
    "write_submission: archive.open(zipfile.ZipInfo(f'arrays/{name}.npy'), 'w', force_zip64=True) -> "
    "archive.open(zipfile.ZipInfo(f'arrays/{name}.npy'), 'w', force_zip64=False)": (
        "for arrays of more than two gigabytes, which no test writes"
    ),
    "Worker.__init__: self.before: int | None = None -> pass": (
        "given; it is set when the process is asked, and read after that"
    ),
    "Worker.__call__: assert isinstance(got, np.ndarray) -> pass": ("given; for mypy"),
    "Worker.ask: assert self.process.stdout -> pass": ("given; for mypy"),
    "Worker.ask: assert self.process.stdin -> pass": ("given; for mypy"),
    "Worker.ask: late.join() -> pass": ("given; a timer that was cancelled ends by itself"),
    "Worker.clock: if sys.platform == 'linux': -> if True:": (
        "given; for systems that tell no processor time"
    ),
    "Worker.resident: int(found[1]) << 10 if found else None -> int(found[1]) << 10": (
        "given; a process that has ended has no such line"
    ),
    "Worker.memory: max(1, now - self.before) -> max(2, now - self.before)": (
        "given; no model takes one byte of pages"
    ),
    "Worker.memory: assert isinstance(got, np.ndarray) -> pass": ("given; for mypy"),
    "Worker.memory: max(1, int(got[0])) -> max(2, int(got[0]))": ("given; no model takes one byte"),
    "Worker.close: stream.close() -> pass": ("given; what is not closed by hand is closed with the object"),
    "broken_claims: broken.insert(0, 'accuracy') -> broken.insert(1, 'accuracy')": (
        "no order of the sentences is promised"
    ),
    "in_wal: time.monotonic() > end -> time.monotonic() >= end": (
        "given; the clock does not stand still at just that moment"
    ),
    "in_wal: time.sleep(0.01) -> pass": ("given; it tries more often"),
    "in_wal: time.sleep(0.01) -> time.sleep(1.01)": ("given; it tries less often"),
    "Leaderboard.backup: copy_of_it.execute('PRAGMA journal_mode = DELETE') -> pass": (
        "a file in WAL mode that nobody has open is one file, too"
    ),
    "Found: dataclass(frozen=True) -> dataclass(frozen=False)": (
        "given; it protects from writes that nobody makes"
    ),
    "Kind: dataclass(frozen=True) -> dataclass(frozen=False)": (
        "given; it protects from writes that nobody makes"
    ),
    "Submission: dataclass(frozen=True, eq=False) -> dataclass(frozen=False, eq=False)": (
        "given; it protects from writes that nobody makes"
    ),
    "Worker.__init__: seconds=20.0 -> seconds=21.0": ("given; a test would have to wait for as long"),
    "Verdict: dataclass(frozen=True) -> dataclass(frozen=False)": (
        "given; it protects from writes that nobody makes"
    ),
    "verify: seconds=20.0 -> seconds=21.0": ("a test would have to wait for as long"),
    "module: PATIENCE = 30.0 -> PATIENCE = 31.0": ("given; a test would have to wait for as long"),
    "Entry: dataclass(frozen=True) -> dataclass(frozen=False)": (
        "given; it protects from writes that nobody makes"
    ),
}
