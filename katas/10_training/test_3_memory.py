"""Level 3: what a loss keeps, where the memory of training goes, and that none is lost on the way.

Counted by tracemalloc in bytes, so the figures are the same on every machine. Each budget has a twin: a
naive version, written out here, that must not fit.
"""

import copy
import io

import numpy as np
import pytest

from dojo.expect import expect
from dojo.measuring import Budget, kept_bytes, load_probes, memory_growth, peak_bytes, retained_bytes
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.activations import ReLU
from tinytorch.layers import Linear, Module, Parameter
from tinytorch.networks import Sequential
from tinytorch.optimizers import SGD, Adam
from tinytorch.spatial import SmallVGG
from tinytorch.tensor import Tensor, mean, set_recorder, total
from tinytorch.training import (
    EMA,
    Trainer,
    accuracy,
    confusion_matrix,
    cross_entropy,
    load_checkpoint,
    memory_by_part,
    mse_loss,
    save_checkpoint,
)

probes = load_probes(__file__)
PROBES = {probe.name: probe for probe in probes.PROBES}
KIB, MIB = 1 << 10, 1 << 20

KEPT = Budget(
    "what a loss keeps of predictions of 1 MiB for its way back",
    limit=1.5,
    reference=1.0,
    naive=2.0,
    unit="MiB",
    naively="a version that keeps two arrays, as one with one-hot targets does",
)
FORWARD = Budget(
    "a loss of predictions of 1 MiB",
    limit=2.6,
    reference=2.0,
    naive=5.0,
    unit="MiB at the worst moment",
    naively="a version by single operations, with one-hot targets",
)
BACK = Budget(
    "the way back from a loss of 1 MiB",
    limit=2.5,  # the gradient, and one array on the way
    reference=1.04,
    naive=4.0,
    unit="MiB at the worst moment",
    naively="a version that makes smoothed targets and subtracts them",
)
MANY = Budget(
    "counting the answers to 64 thousand rows",
    limit=4.5,
    reference=2.0,
    naive=20.0,
    unit="times the memory of the labels, at the worst moment",
    naively="a version by a one-hot array of ten classes",
)
AVERAGE = Budget(
    "a step of a running mean of weights of 1 MiB",
    limit=0.5,
    reference=0.001,
    naive=2.0,
    unit="MiB at the worst moment",
    naively="a version that makes decay * shadow and (1 - decay) * weight",
)
SHADOW = Budget(
    "all that EMA keeps of weights of eight times 256 KiB",
    limit=1.6,
    reference=1.13,
    naive=2.0,
    unit="times their memory",
    naively="a version with a second copy to work in",
)
ACCUMULATED = Budget(
    "a step of eight batches",
    limit=2.0,
    reference=1.01,
    naive=7.8,
    unit="times the peak of a step of one",
    naively="a version that makes them one batch",
)
LOOP = Budget(
    "what is kept of 64 more steps",
    limit=24,
    reference=1.8,
    naive=210,
    unit="KiB",
    naively="a version that keeps each loss with its outputs",
)
SAVE = Budget(
    "saving eight arrays of 1 MiB",
    limit=10.0,  # whoever looks whether the last file is whole may read it
    reference=1.02,
    naive=18.0,
    unit="MiB at the worst moment",
    naively="a version that makes the file in memory first",
)
LOAD = Budget(
    "loading eight arrays of 1 MiB",
    limit=12.0,
    reference=8.5,
    naive=16.5,
    unit="MiB at the worst moment",
    naively="a version that reads the whole file first",
)
ACTIVATIONS = Budget(
    "activations of SmallVGG: memory over the number of images",
    limit=1.2,
    reference=1.0,
    naive=2.0,
    unit="as the power of n",
    naively="a version with all pairs of images",
)


def rows(rng, shape=(1024, 256)):
    """Predictions of 1 MiB in float32."""
    return rng.standard_normal(shape, np.float32)


# 10.1 to 10.4: losses


@pytest.mark.parametrize("loss", ["squares", "cross-entropy", "smoothed"])
def test_a_loss_keeps_one_array(loss, rng):
    """The difference, or the softmax: the gradient can be read off it. Labels are small."""
    x, y, labels = Tensor(rows(rng), requires_grad=True), rows(rng), rng.integers(0, 256, 1024)
    work = {
        "squares": lambda: mse_loss(x, y),
        "cross-entropy": lambda: cross_entropy(x, labels),
        "smoothed": lambda: cross_entropy(x, labels, label_smoothing=0.1),
    }[loss]
    KEPT.check(kept_bytes(work) / MIB)


def test_the_twin_that_keeps_one_hot_targets_is_caught(rng):
    x, labels = rows(rng), rng.integers(0, 256, 1024)
    KEPT.catches(kept_bytes(lambda: (np.exp(x), np.eye(256, dtype=np.float32)[labels])) / MIB)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_works_in_one_array(smoothing, rng):
    x, labels = rows(rng), rng.integers(0, 256, 1024)
    FORWARD.check(peak_bytes(lambda: cross_entropy(x, labels, label_smoothing=smoothing)) / MIB)


def test_mse_loss_works_in_two_arrays(rng):
    x, y = rows(rng), rows(rng)
    FORWARD.check(peak_bytes(lambda: mse_loss(x, y)) / MIB)


def test_the_twin_by_single_operations_is_caught(rng):
    x, labels = Tensor(rows(rng), requires_grad=True), rng.integers(0, 256, 1024)
    FORWARD.catches(peak_bytes(lambda: probes.naive_cross_entropy(x, labels, 0.1)) / MIB)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_way_back_makes_its_gradient_and_no_targets(smoothing, reduction, rng):
    x, labels = rows(rng), rng.integers(0, 256, 1024)
    out, back = cross_entropy.vjp(x, labels, label_smoothing=smoothing, reduction=reduction)
    grad = np.ones_like(out)
    BACK.check(peak_bytes(lambda: back(grad)) / MIB)


def test_targets_that_want_no_gradient_get_none(rng):
    """The rule as the engine of kata 06 would call it: targets are data, and None takes no memory."""
    kept = []
    note = lambda op, inputs, arrays, params, out: kept.append(op.keep(out.data, arrays, params))  # noqa: E731
    for wanted in ((True, False), (True, True)):
        tensors = [Tensor(rng.normal(size=3), want) for want in wanted]
        before = set_recorder(note)
        try:
            mse_loss(*tensors)
        finally:
            set_recorder(before)
        gradients = mse_loss.pull(np.array(1.0), *kept.pop())
        expect([gradient is not None for gradient in gradients], list(wanted))


def test_the_twin_that_makes_targets_on_the_way_back_is_caught(rng):
    p, labels = rows(rng), rng.integers(0, 256, 1024)

    def back():
        hot = np.eye(256, dtype=np.float32)[labels]
        target = 0.9 * hot + np.float32(0.1 / 256)
        return (p - target) / 1024

    BACK.catches(peak_bytes(back) / MIB)


# 10.5, 10.6: answers


@pytest.mark.parametrize("what", ["accuracy", "confusion matrix"])
def test_answers_are_counted_without_a_table_of_all_classes(what, rng):
    logits, labels = rng.standard_normal((1 << 16, 10), np.float32), rng.integers(0, 10, 1 << 16)
    answers = rng.integers(0, 10, 1 << 16)
    work = {
        "accuracy": lambda: accuracy(logits, labels),
        "confusion matrix": lambda: confusion_matrix(answers, labels, 10),
    }[what]
    MANY.check(peak_bytes(work) / labels.nbytes)


def test_the_twin_with_one_hot_answers_is_caught(rng):
    labels, answers = rng.integers(0, 10, (2, 1 << 16))
    hot = np.eye(10)
    MANY.catches(peak_bytes(lambda: hot[labels].T @ hot[answers]) / labels.nbytes)


# 10.10, 10.11: EMA


class Weights(Module):
    def __init__(self, rng, count=1, size=1 << 18):
        self.parts = [Parameter(rng.standard_normal(size, np.float32)) for _ in range(count)]


@pytest.mark.parametrize("work", ["update", "swap"])
def test_a_running_mean_makes_no_array(work, rng):
    ema = EMA(Weights(rng))
    ema.update()
    ema.swap()
    AVERAGE.check(peak_bytes(getattr(ema, work)) / MIB)
    expect(retained_bytes(getattr(ema, work)) / KIB, 0.0, atol=4.0)


def test_the_twin_that_makes_both_products_is_caught(rng):
    weight, shadow = rows(rng), rows(rng)
    AVERAGE.catches(peak_bytes(lambda: 0.9 * shadow + 0.1 * weight) / MIB)


def test_a_running_mean_keeps_one_copy_and_a_little_scratch(rng):
    model = Weights(rng, 8, 1 << 16)

    def updated():
        ema = EMA(model)
        ema.update()
        return ema

    SHADOW.check(kept_bytes(updated) / (2 * MIB))


def test_the_twin_with_a_second_copy_is_caught(rng):
    weights = [p.data for p in Weights(rng, 8, 1 << 16).parts]
    SHADOW.catches(kept_bytes(lambda: [(w.copy(), np.empty_like(w)) for w in weights]) / (2 * MIB))


# 10.14, 10.15: steps


def wide(rng, pieces):
    """A network whose activations take far more than its weights, and batches of 256 rows."""
    net = Sequential(Linear(4, 512, rng=rng), ReLU(), Linear(512, 2, rng=rng))
    trainer = Trainer(net, SGD(net.parameters(), lr=0.01), cross_entropy, accumulate=max(2, pieces))
    batch = rng.standard_normal((256, 4), np.float32), rng.integers(0, 2, 256)
    return trainer, [batch] * pieces


def test_batches_that_make_one_step_take_the_memory_of_one(rng):
    one, eight = (
        peak_bytes(lambda trainer=trainer, batches=batches: trainer.train_batch(iter(batches)))
        for trainer, batches in (wide(rng, 1), wide(rng, 8))
    )
    ACCUMULATED.check(eight / one)


def test_the_twin_that_makes_them_one_batch_is_caught(rng):
    trainer, batches = wide(rng, 8)
    large = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
    one, eight = (
        peak_bytes(lambda batch=batch: trainer.train_batch(iter([batch]))) for batch in (batches[0], large)
    )
    ACCUMULATED.catches(eight / one)


def test_a_batch_is_let_go_before_the_next_is_made(rng):
    """Eight batches of 1 MiB each, for a model of hardly any memory: at most two are there at a time."""
    model = Weights(rng, 1, 256)

    class Picks(Module):
        def __init__(self):
            self.weight = model.parts[0]

        def forward(self, x):
            return mean(self.weight) * x[:, :2]

    net = Picks()
    trainer = Trainer(net, SGD(net.parameters(), lr=0.0), lambda o, t: total(o) / len(t), accumulate=8)

    def step():
        trainer.train_batch((np.ones((1024, 128)), np.zeros(1024)) for _ in range(8))

    assert peak_bytes(step) / MIB < 2.9, "batches pile up"


def short(rng):
    net = Linear(8, 4, rng=rng)
    batch = rng.standard_normal((64, 8), np.float32), rng.integers(0, 4, 64)
    trainer = Trainer(net, Adam(net.parameters()), cross_entropy, callbacks=[EMA(net)])
    trainer.fit([batch], 1)
    return trainer, batch


def test_nothing_is_kept_of_steps_that_are_done(rng):
    trainer, batch = short(rng)
    LOOP.check(retained_bytes(lambda: trainer.fit([batch] * 64, trainer.epoch + 1)) / KIB)


def test_nothing_is_kept_of_a_validation(rng):
    trainer, batch = short(rng)
    LOOP.check(retained_bytes(lambda: trainer.validate([batch] * 64)) / KIB)


def test_the_twin_that_keeps_each_loss_with_its_outputs_is_caught(rng):
    trainer, (x, labels) = short(rng)
    losses = []

    def fit():
        for _ in range(64):
            outputs = trainer.model(Tensor(x))
            losses.append((cross_entropy(outputs, labels), outputs))

    LOOP.catches(retained_bytes(fit) / KIB)


def test_a_validation_keeps_no_activations(rng):
    """Four layers of 1 MiB each, of which at most two are needed at a time."""
    net = Sequential(*(Linear(256, 256, rng=rng) for _ in range(8)))
    trainer = Trainer(net, SGD(net.parameters(), lr=0.1), cross_entropy)
    batch = rows(rng), rng.integers(0, 256, 1024)
    assert peak_bytes(lambda: trainer.validate([batch])) / MIB < 4.5, "activations are kept"


# 10.7 to 10.9: checkpoints


def large(rng):
    return {"weights": {str(i): rows(rng) for i in range(8)}}


def test_a_checkpoint_is_written_array_by_array(rng, tmp_path):
    state = large(rng)
    SAVE.check(peak_bytes(lambda: save_checkpoint(tmp_path / "run.npz", state)) / MIB)


def test_the_twin_that_makes_the_file_in_memory_is_caught(rng, tmp_path):
    state = large(rng)

    def save():
        file = io.BytesIO()
        np.savez(file, **copy.deepcopy(state["weights"]))
        (tmp_path / "run.npz").write_bytes(file.getbuffer())

    SAVE.catches(peak_bytes(save) / MIB)


def test_a_checkpoint_is_read_array_by_array(rng, tmp_path):
    save_checkpoint(tmp_path / "run.npz", large(rng))
    LOAD.check(peak_bytes(lambda: load_checkpoint(tmp_path / "run.npz")) / MIB)


def test_the_twin_that_reads_the_whole_file_first_is_caught(rng, tmp_path):
    path = tmp_path / "run.npz"
    with open(path, "wb") as stream:
        np.savez(stream, **large(rng)["weights"])

    def load():
        archive = np.load(io.BytesIO(path.read_bytes()))
        return [archive[name] for name in archive.files]

    LOAD.catches(peak_bytes(load) / MIB)


def test_a_checkpoint_is_hardly_larger_than_what_is_in_it(rng, tmp_path):
    save_checkpoint(tmp_path / "run.npz", large(rng))
    expect((tmp_path / "run.npz").stat().st_size / MIB, 8.0, atol=0.01)


def test_a_state_of_a_trainer_is_shown_not_copied(rng):
    model = Weights(rng)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), mse_loss, callbacks=[EMA(model)])
    assert peak_bytes(trainer.state_dict) < 64 * KIB, "a state is written at once, so it need not be a copy"


# 10.19: where it goes


def test_memory_by_part_agrees_with_what_is_allocated(rng):
    """Of a network for images: what a forward pass keeps is what tracemalloc finds, to a tenth."""
    net = SmallVGG(width=16, rng=rng)
    optimizer = Adam(net.parameters())
    images, labels = rng.standard_normal((16, 3, 16, 16), np.float32), rng.integers(0, 10, 16)
    Trainer(net, optimizer, cross_entropy).fit([(images, labels)], 1)
    parts = memory_by_part(net, optimizer, cross_entropy, images, labels)
    kept = kept_bytes(lambda: cross_entropy(net(Tensor(images)), labels))
    expect(parts["activations"] / kept, 1.0, atol=0.1)
    expect(parts["optimizer"], 2 * parts["weights"])
    assert parts["activations"] > sum(parts.values()) / 2, "most of it is activations"


def test_activations_grow_with_the_batch_and_nothing_else_does(rng):
    def parts(n):
        net, optimizer, images, labels = probes.vgg(n, np.random.default_rng(0))
        return memory_by_part(net, optimizer, cross_entropy, images, labels)

    small, double = parts(8), parts(16)
    ACTIVATIONS.check(np.log2(double["activations"] / small["activations"]))
    for name in ("weights", "gradients", "optimizer", "buffers"):
        expect(double[name], small[name])


def test_the_twin_with_all_pairs_is_caught():
    ACTIVATIONS.catches(np.log2(np.zeros((16, 16)).nbytes / np.zeros((8, 8)).nbytes))


def test_counting_memory_leaves_none_behind(rng):
    net, optimizer, images, labels = probes.vgg(8, rng)
    expect(
        retained_bytes(lambda: memory_by_part(net, optimizer, cross_entropy, images, labels)) / KIB,
        0.0,
        atol=48.0,  # bookkeeping of writes in place; the activations are 480
    )


def test_a_loss_takes_memory_as_there_are_rows():
    growth = memory_growth(PROBES["cross_entropy of n rows of 10, there and back"])
    assert growth < 1.2, f"rows to the power of {growth:.2f}"
