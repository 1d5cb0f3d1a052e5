"""Believable wrong solutions of kata 10.  Each takes the reference and spoils one thing in it."""
# ruff: noqa: E501 (what is changed is written as it stands in the reference)

import contextlib
import copy
import io
import json
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np

from dojo.mistakes import caught_by, rewritten

# Losses.


@caught_by(1)
def predictions_broadcast_against_targets(m):
    rewritten(m, "mse_loss", ("if predictions.shape != targets.shape:", "if False:"))


@caught_by(1)
def small_integers_are_subtracted_as_they_are(m):
    rewritten(m, "mse_loss", ("floating(predictions) - floating(targets)", "floating(predictions - targets)"))


@caught_by(1)
def squares_are_averaged_over_rows_only(m):
    rewritten(
        m,
        "mse_loss",
        (
            "reduced(difference * difference, reduction)",
            "reduced((difference * difference).reshape(len(difference) if difference.ndim else 1, -1).sum(1) "
            "if reduction == 'mean' else difference * difference, reduction)",
        ),
    )


@caught_by(1)
def differences_are_not_squared_but_made_positive(m):
    rewritten(m, "mse_loss", ("difference * difference", "abs(difference)"))


@caught_by(2)
def the_two_of_the_square_is_forgotten(m):
    rewritten(m, "mse_loss_back", ("2 / difference.size if", "1 / difference.size if"))


@caught_by(2)
def the_gradient_of_a_mean_is_divided_by_rows(m):
    rewritten(m, "mse_loss_back", ("2 / difference.size", "2 / max(len(np.atleast_1d(difference)), 1)"))


@caught_by(2)
def targets_get_the_gradient_of_predictions(m):
    rewritten(m, "mse_loss_back", ("-back if", "back if"))


@caught_by(2)
def a_rule_works_in_what_was_kept(m):
    rewritten(
        m, "mse_loss_back", ("back = difference * (grad * scale)", "back = difference; back *= grad * scale")
    )


@caught_by(3)
def both_inputs_are_kept_for_the_way_back(m):
    @m.op
    def mse_loss(predictions, targets, *, reduction="mean"):
        return right.forward(predictions, targets, reduction=reduction)[0]

    right = m.mse_loss

    @mse_loss.gradient
    def back(grad, predictions, targets, reduction, needs_input_grad):
        predictions = m.floating(m.as_array(predictions))
        return right.pull(grad, predictions - m.as_array(targets), reduction, needs_input_grad)

    kept = mse_loss.keep
    mse_loss.keep = lambda out, arrays, params: [
        np.array(x) if isinstance(x, np.ndarray) else x for x in kept(out, arrays, params)
    ]
    m.mse_loss = mse_loss


@caught_by(1)
def softmax_is_taken_of_a_softmax(m):
    right = m.below_largest
    m.below_largest = lambda x, axis: right(
        np.exp(right(x, axis)) / np.exp(right(x, axis)).sum(axis, keepdims=True), axis
    )


@caught_by(1)
def softmax_goes_down_the_columns(m):
    rewritten(
        m,
        "cross_entropy",
        ("below_largest(logits, axis=1)", "below_largest(logits, axis=0)"),
    )


@caught_by(1)
def the_largest_is_not_subtracted_first(m):
    m.below_largest = lambda x, axis: np.array(m.floating(x))


@caught_by(1)
def the_logarithm_is_taken_of_rounded_probabilities(m):
    rewritten(
        m,
        "cross_entropy",
        ("losses += np.log(sums)", "losses = -np.log((array / sums[:, None])[np.arange(n), labels])"),
        ("    if label_smoothing:\n", "    smooth = array.copy()\n    if label_smoothing:\n"),
    )


@caught_by(1)
def smoothing_is_spread_over_the_other_classes(m):
    rewritten(
        m,
        "cross_entropy",
        (
            "losses -= array.sum(axis=1) * (label_smoothing / classes)",
            "losses -= (array.sum(axis=1) - array[np.arange(n), labels]) * "
            "(label_smoothing / max(classes - 1, 1))",
        ),
    )


@caught_by(1)
def the_label_keeps_all_of_its_weight_when_smoothed(m):
    rewritten(m, "cross_entropy", ("* (label_smoothing - 1)", "* -1"))


@caught_by(1)
def the_mean_is_taken_over_all_elements(m):
    rewritten(
        m,
        "cross_entropy",
        (
            "return reduced(losses, reduction), array",
            "return (reduced(losses, reduction) / (classes if reduction == 'mean' else 1)), array",
        ),
    )


@caught_by(1)
def a_negative_label_counts_from_the_end(m):
    m.check_classes = lambda numbers, classes: None


@caught_by(1)
def labels_may_be_floats(m):
    rewritten(
        m, "check_labels", ('if labels.dtype.kind not in "iu":', "labels = labels.astype(int)\n    if False:")
    )


@caught_by(1)
def float32_logits_make_a_float64_loss(m):
    rewritten(
        m, "cross_entropy", ("below_largest(logits, axis=1)", "below_largest(logits, axis=1) + np.zeros(1)")
    )


@caught_by(2)
def the_gradient_of_cross_entropy_is_not_divided_by_the_batch(m):
    rewritten(m, "cross_entropy_back", ("grad = grad / n", "pass"))


@caught_by(2)
def smoothing_is_forgotten_on_the_way_back(m):
    rewritten(
        m,
        "cross_entropy_back",
        ("if label_smoothing:", "if False:"),
        ("scale * (1 - label_smoothing)", "scale"),
    )


@caught_by(2)
def the_label_gets_its_own_share_of_the_smoothing_no_more(m):
    rewritten(
        m, "cross_entropy_back", ("scale * (1 - label_smoothing)\n", "scale * (1 - label_smoothing * 1.1)\n")
    )


@caught_by(2)
def the_gradient_has_the_wrong_sign(m):
    rewritten(m, "cross_entropy_back", ("return back, None", "return -back, None"))


@caught_by(2)
def the_incoming_gradient_is_taken_for_one(m):
    rewritten(
        m,
        "cross_entropy_back",
        ('    if reduction == "mean":', '    grad = np.ones_like(grad)\n    if reduction == "mean":'),
    )


@caught_by(2)
def a_softmax_is_spoilt_on_the_way_back(m):
    rewritten(
        m,
        "cross_entropy_back",
        ("probabilities * scale[:, None]", "np.multiply(probabilities, scale[:, None], out=probabilities)"),
    )


@caught_by(1)
def one_hot_targets_are_kept(m):
    right = m.cross_entropy.forward

    def cross_entropy(logits, labels, *, label_smoothing=0.0, reduction="mean"):
        loss, array = right(logits, labels, label_smoothing=label_smoothing, reduction=reduction)
        hot = np.zeros_like(array)
        hot[np.arange(len(array)), np.asarray(labels)] = 1
        both = np.stack([array, hot])
        return loss, both[0]

    m.cross_entropy.forward = cross_entropy


@caught_by(3)
def targets_are_made_on_the_way_back(m):
    def back(grad, labels, probabilities, label_smoothing, reduction):
        n, classes = probabilities.shape
        targets = np.full_like(probabilities, label_smoothing / classes)
        targets[np.arange(n), np.asarray(labels)] += 1 - label_smoothing
        difference = probabilities - targets
        scale = np.broadcast_to(grad / n if reduction == "mean" else grad, n)
        return difference * scale[:, None], None

    m.cross_entropy.gradient(back)


@caught_by(4)
def losses_go_row_by_row(m):
    right = m.cross_entropy.forward

    def cross_entropy(logits, labels, *, label_smoothing=0.0, reduction="mean"):
        losses, kept = right(logits, labels, label_smoothing=label_smoothing, reduction="none")
        for i in range(len(logits)):
            row = slice(i, i + 1)
            losses[row], kept[row] = right(
                logits[row], np.asarray(labels)[row], label_smoothing=label_smoothing, reduction="none"
            )
        return m.reduced(losses, reduction), kept

    m.cross_entropy.forward = cross_entropy


# Answers.


@caught_by(1)
def accuracy_counts_rows_and_does_not_divide(m):
    rewritten(m, "accuracy", ("np.mean(", "np.sum("))


@caught_by(1)
def accuracy_looks_down_the_columns(m):
    rewritten(m, "accuracy", ("argmax(axis=1) == labels)", "argmax(axis=0)[0] == labels)"))


@caught_by(1)
def accuracy_is_an_array(m):
    rewritten(m, "accuracy", ("return float(", "return np.float64("))


@caught_by(4)
def accuracy_goes_row_by_row(m):
    right = m.accuracy

    def accuracy(logits, labels):
        right(logits, labels)
        logits, labels = m.as_array(logits), m.as_array(labels)
        return sum(
            int(np.argmax(row)) == int(label) for row, label in zip(logits, labels, strict=True)
        ) / len(labels)

    m.accuracy = accuracy


@caught_by(1)
def rows_are_answers_and_columns_labels(m):
    right = m.confusion_matrix
    m.confusion_matrix = lambda predictions, labels, classes: right(predictions, labels, classes).T


@caught_by(1)
def pairs_overflow_in_the_dtype_of_labels(m):
    rewritten(
        m, "confusion_matrix", ("labels.astype(np.intp) * classes", "labels * labels.dtype.type(classes)")
    )


@caught_by(1)
def a_table_ends_with_the_last_class_that_came(m):
    def confusion_matrix(predictions, labels, classes):
        predictions, labels = m.as_array(predictions), m.as_array(labels)
        if predictions.shape != labels.shape:
            raise ValueError(f"{predictions.shape} and {labels.shape}")
        m.check_classes(labels, classes)
        m.check_classes(predictions, classes)
        size = int(max(labels.max(initial=0), predictions.max(initial=0))) + 1
        pairs = labels.astype(int) * size + predictions.astype(int)
        return np.bincount(pairs, minlength=size * size).reshape(size, size)

    m.confusion_matrix = confusion_matrix


@caught_by(1)
def the_same_pair_is_counted_once(m):
    def confusion_matrix(predictions, labels, classes):
        predictions, labels = m.as_array(predictions), m.as_array(labels)
        if predictions.shape != labels.shape:
            raise ValueError(f"{predictions.shape} and {labels.shape}")
        m.check_classes(labels, classes)
        m.check_classes(predictions, classes)
        table = np.zeros((classes, classes), np.int64)
        table[labels, predictions] += 1
        return table

    m.confusion_matrix = confusion_matrix


@caught_by(4)
def answers_are_counted_one_by_one(m):
    right = m.confusion_matrix

    def confusion_matrix(predictions, labels, classes):
        right(predictions, labels, classes)
        table = np.zeros((classes, classes), np.int64)
        for label, answer in zip(m.as_array(labels), m.as_array(predictions), strict=True):
            table[label, answer] += 1
        return table

    m.confusion_matrix = confusion_matrix


# Checkpoints.


@caught_by(1)
def names_are_joined_and_meet(m):
    rewritten(m, "pack", ('name = f"{len(arrays)}{path}"', "name = path"))


@caught_by(1)
def anything_odd_becomes_text(m):
    right = m.pack

    def pack(state, arrays, path=""):
        try:
            return right(state, arrays, path)
        except TypeError:
            return str(state)

    m.pack = pack


@caught_by(1)
def numbers_are_rounded_to_ten_digits(m):
    rewritten(
        m,
        "pack",
        (
            "    if state is None or",
            "    if isinstance(state, float) and np.isfinite(state):\n        return round(state, 10)\n    if state is None or",
        ),
    )


@caught_by(1)
def a_checkpoint_is_written_over_the_last_one(m):
    def save_checkpoint(path, state):
        arrays = {}
        text = json.dumps(m.pack(state, arrays))
        header = json.dumps({"state": text, "sha256": m.checksum(text, arrays)})
        with open(path, "wb") as stream:
            np.savez(stream, **arrays, header=np.frombuffer(header.encode(), np.uint8))

    m.save_checkpoint = save_checkpoint


@caught_by(1)
def a_checkpoint_is_a_pickle(m):
    def save_checkpoint(path, state):
        unfinished = Path(f"{path}.new")
        with open(unfinished, "wb") as stream:
            pickle.dump(state, stream)
            os.fsync(stream.fileno())
        if Path(path).exists():
            os.replace(path, m.previous(path))
        os.replace(unfinished, path)

    def read_checkpoint(path):
        with open(path, "rb") as stream:
            try:
                return pickle.load(stream)
            except Exception as error:
                raise ValueError(f"{path} is damaged") from error

    m.save_checkpoint, m.read_checkpoint = save_checkpoint, read_checkpoint


@caught_by(1)
def numpy_adds_npz_to_the_name(m):
    right = m.save_checkpoint
    m.save_checkpoint = lambda path, state: right(
        path if str(path).endswith(".npz") else f"{path}.npz", state
    )


@caught_by(1)
def the_one_before_is_not_kept(m):
    rewritten(m, "save_checkpoint", ("if zipfile.is_zipfile(path):", "if False:"))


@caught_by(1)
def a_torn_file_becomes_the_one_before(m):
    rewritten(m, "save_checkpoint", ("if zipfile.is_zipfile(path):", "if path.exists():"))


@caught_by(1)
def the_name_comes_before_the_numbers(m):
    rewritten(m, "save_checkpoint", ("os.fsync(stream.fileno())", "pass"))


@caught_by(1)
def what_could_not_be_written_is_left_behind(m):
    rewritten(m, "save_checkpoint", ("unfinished.unlink(missing_ok=True)", "pass"))


@caught_by(1)
def no_checksum_is_compared(m):
    rewritten(
        m, "read_checkpoint", ('if checksum(header["state"], arrays) != header["sha256"]:', "if False:")
    )


@caught_by(1)
def a_checksum_of_bytes_alone(m):
    rewritten(m, "checksum", ('digest.update(f"{name} {array.dtype.str} {array.shape}".encode())', "pass"))


@caught_by(1)
def a_checksum_of_arrays_alone(m):
    rewritten(m, "checksum", ("hashlib.sha256(text.encode())", "hashlib.sha256()"))


@caught_by(1)
def a_damaged_file_is_an_error_though_there_is_another(m):
    m.load_checkpoint = lambda path: m.read_checkpoint(Path(path))


@caught_by(1)
def nobody_is_told_that_the_one_before_is_used(m):
    rewritten(m, "load_checkpoint", ("warnings.warn(", "str("), (", RuntimeWarning, stacklevel=2", ""))


@caught_by(1)
def the_one_before_is_only_used_if_the_last_is_gone(m):
    rewritten(m, "load_checkpoint", ("except (OSError, ValueError) as error:", "except OSError as error:"))


@caught_by(1)
def the_error_of_the_one_before_hides_the_first(m):
    rewritten(m, "load_checkpoint", ("raise error from None", "raise"))


@caught_by(3)
def the_file_is_made_in_memory_first(m):
    right = m.np.savez

    class Numpy:
        def __getattr__(self, name):
            return getattr(np, name)

        def savez(self, stream, **arrays):
            file = io.BytesIO()
            right(file, **arrays)
            stream.write(file.getvalue())

    m.np = Numpy()


@caught_by(3)
def the_whole_file_is_read_first(m):
    rewritten(
        m,
        "read_checkpoint",
        ("np.load(stream, allow_pickle=False)", "np.load(io.BytesIO(stream.read()), allow_pickle=False)"),
        ("    with open(path", "    import io\n    with open(path"),
    )


@caught_by(3)
def a_state_is_copied_before_it_is_saved(m):
    right = m.Trainer.state_dict
    m.Trainer.state_dict = lambda self: copy.deepcopy(right(self))


# EMA.


@caught_by(1)
def the_shadow_is_the_weights(m):
    right = m.EMA.__init__

    def __init__(self, model, decay=0.999):
        right(self, model, decay)
        self.shadow = {name: p.data for name, p in self.weights.items()}

    m.EMA.__init__ = __init__


@caught_by(1)
def decay_is_what_the_new_weights_get(m):
    rewritten(m, "EMA.update", ("way *= 1 - self.decay", "way *= self.decay"))


@caught_by(1)
def the_shadow_begins_at_zero(m):
    right = m.EMA.__init__

    def __init__(self, model, decay=0.999):
        right(self, model, decay)
        for shadow in self.shadow.values():
            shadow[...] = 0

    m.EMA.__init__ = __init__


@caught_by(1)
def buffers_are_averaged_too(m):
    right = m.EMA.__init__

    def __init__(self, model, decay=0.999):
        right(self, model, decay)
        self.shadow.update({n: a.copy() for n, a in model.state_dict().items() if n not in self.shadow})
        self.weights.update({n: m.Tensor(a) for n, a in model.state_dict().items() if n not in self.weights})

    m.EMA.__init__ = __init__


@caught_by(1)
def a_swap_exchanges_names_not_numbers(m):
    def swap(self):
        for name in self.shadow:
            p = self.weights[name]
            p.data, self.shadow[name] = self.shadow[name], p.data

    m.EMA.swap = swap


@caught_by(1)
def a_swap_copies_one_way(m):
    rewritten(m, "EMA.swap", ("np.copyto(shadow, room)", "pass"))


@caught_by(1)
def a_write_over_weights_is_not_noted(m):
    rewritten(m, "EMA.swap", ("increment_version(weight)", "pass"))


@caught_by(1)
def the_shadow_stays_applied_after_an_error(m):
    @contextlib.contextmanager
    def applied(self):
        self.swap()
        yield
        self.swap()

    m.EMA.applied = applied


@caught_by(1)
def a_loaded_shadow_is_somebody_else_s_array(m):
    def load_state_dict(self, saved):
        wrong = sorted(saved.keys() ^ self.shadow.keys())
        wrong += [n for n in saved if n in self.shadow and saved[n].shape != self.shadow[n].shape]
        if wrong:
            raise ValueError(f"{wrong}")
        self.shadow = dict(saved)

    m.EMA.load_state_dict = load_state_dict


@caught_by(3)
def a_running_mean_makes_its_products(m):
    def update(self):
        for name, shadow in self.shadow.items():
            shadow[...] = self.decay * shadow + (1 - self.decay) * self.weights[name].data

    m.EMA.update = update


@caught_by(3)
def each_parameter_has_scratch_of_its_own(m):
    def room(self, like):
        rooms = self.__dict__.setdefault("rooms", {})
        return rooms.setdefault(id(like), np.empty_like(like))

    m.EMA.room = room


@caught_by(4)
def a_running_mean_goes_row_by_row(m):
    right = m.EMA.update

    def update(self):
        if any(shadow.ndim < 2 and shadow.size > 1000 for shadow in self.shadow.values()):
            return right(self)
        for name, shadow in self.shadow.items():
            weight = self.weights[name].data
            for i in range(len(shadow)):
                shadow[i] += (1 - self.decay) * (weight[i] - shadow[i])
        return None

    m.EMA.update = update


# EarlyStopping.


def _stopping(m, *changes):
    rewritten(m, "EarlyStopping.on_epoch_end", *changes)


@caught_by(1)
def patience_is_off_by_one(m):
    _stopping(m, ("self.waited >= self.patience", "self.waited > self.patience"))


@caught_by(1)
def each_epoch_is_compared_with_the_one_before(m):
    _stopping(m, ("        self.waited += 1", "        self.best = now\n        self.waited += 1"))


@caught_by(1)
def waiting_is_never_forgotten(m):
    _stopping(m, ("self.best, self.waited = now, 0", "self.best = now"))


@caught_by(1)
def min_delta_is_added_the_wrong_way(m):
    _stopping(m, ("- self.min_delta", "+ self.min_delta"))


@caught_by(1)
def equal_is_better(m):
    _stopping(m, ("if sign * now < (", "if sign * now <= ("))


@caught_by(1)
def more_is_never_better(m):
    _stopping(m, ('sign = 1 if self.mode == "min" else -1', "sign = 1"))


@caught_by(1)
def nan_is_the_best_there_can_be(m):
    _stopping(m, ("if sign * now < (", "if not sign * now >= ("))


@caught_by(1)
def the_best_number_is_not_saved(m):
    m.EarlyStopping.state_dict = lambda self: {"best": None, "waited": self.waited}


# Progress.


@caught_by(1)
def a_bar_goes_on_after_an_error(m):
    m.Progress.on_fit_end = lambda self, trainer: None


@caught_by(1)
def a_bar_counts_batches_that_make_no_step(m):
    rewritten(
        m,
        "Progress.on_fit_begin",
        ("trainer.epochs * trainer.batches", "trainer.epochs * trainer.batches * trainer.accumulate"),
    )


# The loop.


def _evaluating(m, *changes):
    rewritten(m, "evaluating", *changes)


@caught_by(1)
def validation_is_in_training_mode(m):
    _evaluating(m, ("model.eval()", "pass"))


@caught_by(1)
def the_model_stays_in_eval_mode(m):
    _evaluating(m, ("module.training = training", "pass"))


@caught_by(1)
def frozen_modules_are_woken_by_a_validation(m):
    _evaluating(m, ("module.training = training", "module.training = True"))


@caught_by(1)
def validation_records_a_graph(m):
    _evaluating(m, ("with no_grad():", "if True:"))


@caught_by(1)
def a_failing_validation_leaves_eval_mode_on(m):
    @contextlib.contextmanager
    def evaluating(model):
        before = [(module, module.training) for module in model.modules()]
        model.eval()
        with m.no_grad():
            yield
        for module, training in before:
            module.training = training

    m.evaluating = evaluating


@caught_by(1)
def validation_is_a_mean_of_means(m):
    rewritten(m, "Trainer.validate", ("tally.add(len(targets),", "tally.add(1,"))


def _batch(m, *changes):
    rewritten(m, "Trainer.train_batch", *changes)


@caught_by(1)
def gradients_of_earlier_steps_are_not_forgotten(m):
    _batch(m, ("self.optimizer.zero_grad()", "pass"))


@caught_by(1)
def gradients_are_forgotten_at_each_batch(m):
    _batch(m, ("if not rows:\n            self.optimizer", "if True:\n            self.optimizer"))


@caught_by(1)
def gradients_are_added_up_and_not_divided(m):
    _batch(m, ("grad /= rows", "pass"), ("1 if single else len(targets)", "1"))


@caught_by(1)
def gradients_are_a_mean_of_means(m):
    _batch(
        m,
        ("grad /= rows", "grad /= count"),
        ("1 if single else len(targets)", "1"),
        ("rows += len(targets)", "rows += len(targets); count += 1"),
        ("rows, single = 0,", "count = 0; rows, single = 0,"),
    )


@caught_by(1)
def gradients_are_always_divided_by_accumulate(m):
    _batch(m, ("grad /= rows", "grad /= self.accumulate"), ("1 if single else len(targets)", "1"))


@caught_by(1)
def the_last_batches_of_an_epoch_are_lost(m):
    right = m.Trainer.train_batch

    def train_batch(self, batches):
        batches = list(batches)
        return 0 if len(batches) < self.accumulate and self.step else right(self, batches)

    m.Trainer.train_batch = train_batch


@caught_by(1)
def gradients_are_clipped_after_the_step(m):
    _batch(
        m,
        ("    self.optimizer.step()\n", ""),
        ("    if self.max_norm", "    self.optimizer.step()\n    if self.max_norm"),
    )


@caught_by(1)
def gradients_are_clipped_before_they_are_divided(m):
    _batch(
        m,
        (
            "    for grad in [] if",
            "    if self.max_norm is not None:\n        clip_grad_norm_(parameters, self.max_norm)\n    for grad in [] if",
        ),
    )


@caught_by(1)
def a_schedule_is_moved_before_the_optimizer(m):
    _batch(
        m,
        ("    self.optimizer.step()\n", ""),
        ("    self.step += 1", "    self.optimizer.step()\n    self.step += 1"),
    )


@caught_by(3)
def batches_are_collected_before_the_first_is_used(m):
    right = m.Trainer.train_batch
    m.Trainer.train_batch = lambda self, batches: right(self, list(batches))


@caught_by(3)
def losses_are_kept_with_their_graphs(m):
    right = m.measured
    kept = []

    def measured(loss, outputs, targets):
        kept.append((loss, outputs))
        return right(loss, outputs, targets)

    m.measured = measured


@caught_by(4)
def each_batch_is_judged_three_times(m):
    right = m.measured

    def measured(loss, outputs, targets):
        for _ in range(40):
            right(loss, outputs, targets)
        return right(loss, outputs, targets)

    m.measured = measured


def _fit(m, *changes):
    rewritten(m, "Trainer.fit", *changes)


def _end(m, *changes):
    rewritten(m, "Trainer.end_epoch", *changes)


@caught_by(1)
def epochs_are_counted_anew_at_each_fit(m):
    _fit(m, ("while self.epoch < epochs", "end = self.epoch + epochs\n        while self.epoch < end"))


@caught_by(1)
def a_stopped_trainer_goes_on(m):
    _fit(m, (" and not self.stopped", ""))


@caught_by(1)
def a_trainer_that_was_stopped_never_starts_again(m):
    _fit(m, ("self.stopped, self.epochs = False, epochs", "self.epochs = epochs"))


@caught_by(1)
def nobody_hears_of_the_end_after_an_error(m):
    _fit(
        m,
        (
            "    finally:\n",
            "    except KeyError:\n        pass\n    if self.epoch >= epochs or self.stopped:\n",
        ),
    )


@caught_by(1)
def every_counts_epochs(m):
    _fit(m, ("self.step % every == 0", "self.epoch % every == 0"))


@caught_by(1)
def one_cycle_moves_with_epochs(m):
    m.OneCycleLR = type("Nobody", (), {})


@caught_by(1)
def every_schedule_moves_with_steps(m):
    m.OneCycleLR = m.LRScheduler


@caught_by(1)
def a_schedule_by_epochs_moves_before_its_rate_is_noted(m):
    _end(
        m,
        (
            "    numbers = {**self.logs",
            '    if self.scheduler is not None and self.scheduler_per == "epoch":\n        self.scheduler.step()\n    numbers = {**self.logs',
        ),
        (
            '    if self.scheduler is not None and self.scheduler_per == "epoch":\n        self.scheduler.step()\n    self.epoch',
            "    self.epoch",
        ),
    )


@caught_by(1)
def means_go_on_into_the_next_epoch(m):
    _end(m, ("self._tally = Tally()", "pass"))


@caught_by(1)
def callbacks_hear_of_an_epoch_before_it_is_in_the_history(m):
    _end(
        m,
        ('    self.call("on_epoch_end")\n', ""),
        ("    numbers = {**self.logs", '    self.call("on_epoch_end")\n    numbers = {**self.logs'),
    )


# What a run goes on with.


def _state(m, change):
    right = m.Trainer.state_dict

    def state_dict(self):
        saved = right(self)
        change(self, saved)
        return saved

    m.Trainer.state_dict = state_dict


def _load(m, *changes):
    rewritten(m, "Trainer.load_state_dict", *changes)


@caught_by(2)
def a_checkpoint_has_no_buffers(m):
    right = m.Trainer.load_state_dict

    def load_state_dict(self, saved):
        names = {name for name, _ in self.model.named_parameters()}
        own = self.model.state_dict()
        model = {n: a if n in names else own[n].copy() for n, a in saved["model"].items()}
        right(self, {**saved, "model": model})

    m.Trainer.load_state_dict = load_state_dict


@caught_by(1)
def the_optimizer_begins_anew(m):
    _load(m, ('self.optimizer.load_state_dict(saved["optimizer"])', "pass"))


@caught_by(2)
def the_optimizer_s_count_of_steps_is_lost(m):
    def change(self, saved):
        saved["optimizer"] = {
            name: 1 if name.endswith(".step") else value for name, value in saved["optimizer"].items()
        }

    right = m.Trainer.load_state_dict

    def load_state_dict(self, saved):
        saved = dict(saved)
        if self.max_norm is not None:
            change(self, saved)
        right(self, saved)

    m.Trainer.load_state_dict = load_state_dict


@caught_by(1)
def a_schedule_begins_anew(m):
    _load(m, ('self.scheduler.load_state_dict(saved["scheduler"])', "pass"))


@caught_by(2)
def callbacks_begin_anew(m):
    _load(m, ("callback.load_state_dict(state)", "pass"))


@caught_by(1)
def generators_begin_anew(m):
    _load(m, ("rng.bit_generator.state = state", "pass"))


@caught_by(1)
def only_the_generators_of_the_model_itself_are_found(m):
    rewritten(m, "Trainer.generators", ("for module in self.model.modules()", "for module in [self.model]"))


@caught_by(2)
def the_means_of_half_an_epoch_are_lost(m):
    _load(m, ('Tally(saved["tally"])', "Tally()"))


@caught_by(1)
def a_history_is_shared(m):
    _load(m, ('{name: list(numbers) for name, numbers in saved["history"].items()}', 'saved["history"]'))


@caught_by(2)
def a_fit_that_was_stopped_is_gone_on_with_after_a_kill(m):
    _load(m, ('self.stopped = counts["stopped"]', "pass"))


def _resume(m, *changes):
    rewritten(m, "Trainer.resume", *changes)


@caught_by(2)
def an_epoch_begins_anew_in_another_order(m):
    _resume(m, ('loader.load_state_dict(saved["loaders"][name])', "pass"))


@caught_by(1)
def what_is_left_of_an_epoch_is_skipped(m):
    _fit(m, ("batches_of(loader)", 'batches_of(() if self._tally.sums["rows"] else loader)'))


# Memory.


@caught_by(1)
def a_view_counts_as_memory_of_its_own(m):
    m.owner = lambda array: array


@caught_by(1)
def what_is_kept_twice_counts_twice(m):
    rewritten(
        m, "memory_by_part", ("kept[id(owner(array))] = owner(array)", "kept[len(kept)] = owner(array)")
    )


@caught_by(1)
def weights_and_inputs_count_as_activations(m):
    rewritten(m, "memory_by_part", ("and id(owner(array)) not in own", ""))


@caught_by(1)
def frozen_weights_have_gradients(m):
    rewritten(m, "memory_by_part", (" if p.requires_grad)", ")"))


@caught_by(1)
def the_second_name_of_a_weight_counts_as_a_buffer(m):
    m.parameter_bytes = lambda model: sum(array.nbytes for array in model.state_dict().values())


@caught_by(1)
def buffers_count_as_weights(m):
    right = m.memory_by_part

    def memory_by_part(*args):
        parts = right(*args)
        return {**parts, "weights": parts["weights"] + parts["buffers"]}

    m.memory_by_part = memory_by_part


# What got past the suite once.


@caught_by(1)
def numpy_s_doubles_are_python_s_floats(m):
    rewritten(
        m,
        "pack",
        (
            "if isinstance(state, Mapping):",
            "if isinstance(state, float):\n        return float(state)\n    if isinstance(state, Mapping):",
        ),
    )


UNFINISHED = 'path.with_name(f".{path.name}.{os.getpid()}.unfinished")'


@caught_by(1)
def what_is_unfinished_lies_where_such_files_lie(m):
    m.tempfile = tempfile
    rewritten(m, "save_checkpoint", (UNFINISHED, "Path(tempfile.mkstemp()[1])"))


@caught_by(1)
def a_name_without_a_folder_has_none_to_be_brought_to_the_disk(m):
    rewritten(
        m,
        "save_checkpoint",
        (
            "os.replace(unfinished, path)\n",
            "os.replace(unfinished, path)\n"
            "        folder = os.open(os.path.dirname(path), os.O_RDONLY)\n"
            "        os.fsync(folder)\n"
            "        os.close(folder)\n",
        ),
    )


@caught_by(1)
def what_has_no_name_takes_the_one_before_with_it(m):
    rewritten(
        m,
        "save_checkpoint",
        (
            "    finally:\n",
            "    except OSError:\n        if not path.exists():\n            previous(path).unlink()\n        raise\n    finally:\n",
        ),
    )


@caught_by(1)
def gradients_are_forgotten_without_a_batch(m):
    rewritten(
        m,
        "Trainer.train_batch",
        ("rows, single =", "self.optimizer.zero_grad()\n    rows, single ="),
        ("if not rows:\n            self.optimizer.zero_grad()", "if not rows:\n            pass"),
    )


@caught_by(1)
def a_step_returns_how_many_batches_there_were(m):
    rewritten(
        m,
        "Trainer.train_batch",
        ("rows, single =", "count = 0\n    rows, single ="),
        ("rows += len(targets)", "rows += len(targets); count += 1"),
        ("return rows", "return count"),
    )


@caught_by(3)
def targets_get_a_gradient_that_nobody_wants(m):
    rewritten(m, "mse_loss_back", ("-back if needs_input_grad[1] else None", "-back"))


@caught_by(1)
def a_shadow_of_another_shape_is_stretched(m):
    rewritten(m, "EMA.load_state_dict", ("np.shape(saved[n]) != a.shape", "np.size(saved[n]) != a.size"))


@caught_by(1)
def an_error_leaves_the_loader_s_iterator_open(m):
    rewritten(m, "Trainer.fit", ("batches_of(loader)", "contextlib.nullcontext(iter(loader))"))


@caught_by(1)
def a_stop_ends_the_epoch_at_once(m):
    rewritten(m, "Trainer.fit", ("while self.train_batch(", "while not self.stopped and self.train_batch("))


@caught_by(1)
def the_rate_is_that_of_the_last_group(m):
    rewritten(m, "Trainer.end_epoch", ('param_groups[0]["lr"]', 'param_groups[-1]["lr"]'))


@caught_by(1)
def labels_are_activations(m):
    rewritten(m, "memory_by_part", ("*given)", "x.data)"))


@caught_by(1)
def the_model_is_called_twice_to_count(m):
    rewritten(m, "memory_by_part", ("loss = loss_fn(", "model(x)\n    loss = loss_fn("))


@caught_by(1)
def answers_stand_in_one_row(m):
    rewritten(m, "confusion_matrix", ("pairs.ravel()", "pairs"))


@caught_by(1)
def who_interrupts_a_save_finds_half_of_it(m):
    rewritten(
        m,
        "save_checkpoint",
        ("    finally:\n        unfinished", "    except Exception:\n        unfinished"),
        ("missing_ok=True)", "missing_ok=True)\n        raise"),
    )


@caught_by(1)
def patience_takes_back_a_stop(m):
    rewritten(
        m,
        "EarlyStopping.on_epoch_end",
        (
            "    if self.waited >= self.patience:\n        trainer.stopped = True",
            "    trainer.stopped = self.waited >= self.patience",
        ),
    )


@caught_by(1)
def a_bar_always_begins_at_the_beginning(m):
    rewritten(m, "Progress.on_fit_begin", ("completed=trainer.step", "completed=0"))
    rewritten(m, "Progress.on_batch_end", ("completed=trainer.step", "advance=1"))


@caught_by(1)
def a_bar_is_over_what_is_left(m):
    rewritten(m, "Progress.on_fit_begin", ("trainer.epochs *", "(trainer.epochs - trainer.epoch) *"))


@caught_by(1)
def validation_hands_inputs_over_as_they_are(m):
    rewritten(m, "Trainer.validate", ("Tensor(inputs)", "inputs"))


@caught_by(1)
def validation_makes_tensors_of_targets(m):
    rewritten(m, "Trainer.validate", ("loss_fn(outputs, targets)", "loss_fn(outputs, Tensor(targets))"))


@caught_by(1)
def only_the_gradients_of_the_model_are_forgotten(m):
    _batch(m, ("self.optimizer.zero_grad()", "self.model.zero_grad()"))


@caught_by(1)
def only_the_gradients_of_the_model_are_divided(m):
    _batch(m, ("self.optimizer.parameters()", "list(self.model.parameters())"))


@caught_by(1)
def an_epochs_means_go_after_its_callbacks(m):
    _end(
        m,
        (
            '    self._tally = Tally()\n    self.call("on_epoch_end")',
            '    self.call("on_epoch_end")\n    self._tally = Tally()',
        ),
    )


@caught_by(1)
def steps_are_saved_although_nobody_asked(m):
    rewritten(
        m, "Trainer.fit", ("    if checkpoint is not None:\n", "    if checkpoint is not None or every:\n")
    )


@caught_by(1)
def the_means_of_half_an_epoch_are_shared(m):
    _load(m, ('Tally(saved["tally"])', 'Tally()\n    self._tally.sums = saved["tally"]'))


@caught_by(1)
def memory_is_counted_in_training_mode(m):
    rewritten(m, "memory_by_part", ("loss = loss_fn(", "model.train()\n    loss = loss_fn("))


@caught_by(1)
def the_error_of_the_one_before_counts_if_it_is_there(m):
    rewritten(
        m,
        "load_checkpoint",
        ("(OSError, ValueError):\n            raise error", "FileNotFoundError:\n            raise error"),
    )


@caught_by(1)
def the_best_of_the_largest_is_kept_with_a_sign(m):
    rewritten(
        m,
        "EarlyStopping.on_epoch_end",
        ("self.best, self.waited = now, 0", "self.best, self.waited = sign * now, 0"),
        ("sign * self.best", "self.best"),
    )


@caught_by(1)
def who_has_stopped_has_not_waited(m):
    rewritten(
        m,
        "EarlyStopping.on_epoch_end",
        ("    trainer.stopped = True", "    trainer.stopped, self.waited = True, 0"),
    )


@caught_by(1)
def a_validation_takes_the_place_of_the_epochs_means(m):
    rewritten(m, "Trainer.validate", ("tally = Tally()", "tally = self._tally = Tally()"))


EQUIVALENT: dict[str, str] = {
    "Callback.state_dict: return {} -> return None": "a state of nothing, which nobody loads",
    "mse_loss: predictions, targets = promote(predictions, targets) -> pass": (
        "numpy brings arrays of one shape to one dtype by itself"
    ),
    "cross_entropy_back: if label_smoothing: -> if True:": "without smoothing it takes 0 away",
    "save_checkpoint: stream.flush() -> pass": "zipfile flushes when it writes its end",
    "Progress.on_fit_begin: columns.Progress(text('epoch {task.fields[epoch]}'), columns.BarColumn(), "
    "text('{task.fields[numbers]}'), text('{task.fields[speed]:.0f} images/s'), columns.TimeRemainingColumn(), "
    "console=self.console) -> columns.Progress(columns.BarColumn(), text('epoch {task.fields[epoch]}'), "
    "text('{task.fields[numbers]}'), text('{task.fields[speed]:.0f} images/s'), columns.TimeRemainingColumn(), "
    "console=self.console)": "the parts of a line may stand in any order",
    "Progress.on_fit_begin: self.bar.add_task('', total=trainer.epochs * trainer.batches, "
    "completed=trainer.step, epoch=f'{trainer.epoch + 1}/{trainer.epochs}', numbers='', speed=0) -> "
    "self.bar.add_task('', total=trainer.epochs * trainer.batches, "
    "epoch=f'{trainer.epoch + 1}/{trainer.epochs}', numbers='', speed=0)": (
        "the first batch says how many steps are done"
    ),
    "Progress.on_batch_end: assert self.bar is not None -> pass": "for the type checker: a fit has begun",
    "Progress.on_epoch_end: assert self.bar is not None -> pass": "for the type checker: a fit has begun",
    "Progress.on_batch_end: max(seconds, 1e-09) -> max(seconds, 1.000000001)": (
        "slower than it is in the first second of an epoch, which a busy machine may be, too"
    ),
    "Trainer.load_state_dict: zip(self.callbacks, saved['callbacks'], strict=True) -> "
    "zip(self.callbacks, saved['callbacks'], strict=False)": "how many there are was compared before",
    "Trainer.load_state_dict: zip(generators, saved['generators'], strict=True) -> "
    "zip(generators, saved['generators'], strict=False)": "how many there are was compared before",
    "memory_by_part: item if isinstance(item, (list, tuple)) else [item] -> [item]": "of arrays only the parts of an index are kept in a tuple, and no layer up to here picks by one",
    "Progress.on_fit_begin: self.bar.add_task('', total=trainer.epochs * trainer.batches, "
    "completed=trainer.step, epoch=f'{trainer.epoch + 1}/{trainer.epochs}', numbers='', speed=0) -> "
    "self.bar.add_task('', total=trainer.epochs * trainer.batches, completed=trainer.step, "
    "epoch=f'{trainer.epoch + 1}/{trainer.epochs}', numbers='', speed=1)": (
        "what is shown as speed before there is any"
    ),
    "Trainer.train_batch: del inputs, targets, outputs, loss -> pass": (
        "two batches at a time where one would do; the suite allows two"
    ),
    "memory_by_part: topological(root) if root is not None else () -> topological(root)": (
        "of nothing it makes a list of nothing, in which there is no node"
    ),
}
