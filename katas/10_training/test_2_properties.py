"""Level 2: many batches are one batch, a fit is the loop by hand, and a run that is killed ends as if nothing
had been."""

import itertools
import os
import signal
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dojo.expect import expect
from tinytorch import autograd  # noqa: F401  (recording is on)
from tinytorch.activations import Dropout, ReLU
from tinytorch.dataloader import DataLoader, RandomHorizontalFlip, TensorDataset
from tinytorch.layers import Linear
from tinytorch.networks import MLP, Sequential
from tinytorch.optimizers import AdamW, CosineAnnealingLR, OneCycleLR, clip_grad_norm_
from tinytorch.spatial import BatchNorm2d, Conv2d, Flatten
from tinytorch.tensor import Tensor
from tinytorch.training import (
    EMA,
    Callback,
    EarlyStopping,
    Trainer,
    cross_entropy,
    load_checkpoint,
    mse_loss,
    save_checkpoint,
)

try:
    import resource
except ImportError:  # Windows, where no process is killed here either
    resource = None

steady = settings(deadline=None, derandomize=True, max_examples=15)
SEEDS = st.integers(0, 2**32 - 1)


# 10.15 accumulation


@steady
@given(
    SEEDS,
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from(["cross-entropy", "smoothed", "squares"]),
    st.sampled_from([None, 0.1]),
)
def test_the_gradient_of_several_batches_is_that_of_one_large_batch(seed, sizes, kind, max_norm):
    rng = np.random.default_rng(seed)
    rows = sum(sizes)
    x, labels = rng.normal(size=(rows, 3)), rng.integers(0, 4, rows)
    targets = rng.normal(size=(rows, 4)) if kind == "squares" else labels
    loss = {
        "cross-entropy": cross_entropy,
        "smoothed": lambda o, t: cross_entropy(o, t, label_smoothing=0.2),
        "squares": mse_loss,
    }[kind]
    ends = np.cumsum([0, *sizes])
    pieces = [(x[a:b], targets[a:b]) for a, b in itertools.pairwise(ends)]
    nets = []
    for batches, accumulate in (([(x, targets)], 1), (pieces, len(pieces)), (pieces, 9)):
        net = MLP([3, 5, 4], rng=np.random.default_rng(0))
        for p in net.parameters():
            p.data = p.data.astype(np.float64)
        optimizer = AdamW(net.parameters(), lr=0.1)
        Trainer(net, optimizer, loss, accumulate=accumulate, max_norm=max_norm).train_batch(iter(batches))
        nets.append(net)
    for other in nets[1:]:
        for p, q in zip(nets[0].parameters(), other.parameters(), strict=True):
            expect(q.grad, p.grad, rtol=1e-9, atol=1e-12)
            expect(q.data, p.data, rtol=1e-6, atol=1e-9)


# 10.16 fit


def test_a_fit_is_the_loop_by_hand_to_the_last_bit(rng):
    x, labels = rng.normal(size=(10, 3)).astype(np.float32), rng.integers(0, 4, 10)
    by_hand, by_trainer = (MLP([3, 8, 4], rng=np.random.default_rng(0)) for _ in range(2))
    batches = [(x[i : i + 4], labels[i : i + 4]) for i in range(0, 10, 4)]

    optimizer = AdamW(by_hand.parameters(), lr=0.05)
    schedule = CosineAnnealingLR(optimizer, 3)
    for _ in range(3):
        for inputs, targets in batches:
            optimizer.zero_grad()
            cross_entropy(by_hand(Tensor(inputs)), targets).backward()
            clip_grad_norm_(by_hand.parameters(), 0.5)
            optimizer.step()
        schedule.step()

    optimizer = AdamW(by_trainer.parameters(), lr=0.05)
    trainer = Trainer(
        by_trainer, optimizer, cross_entropy, scheduler=CosineAnnealingLR(optimizer, 3), max_norm=0.5
    )
    trainer.fit(batches, 3)
    for p, q in zip(by_hand.parameters(), by_trainer.parameters(), strict=True):
        assert p.data.tobytes() == q.data.tobytes()


def test_a_network_learns_what_it_can_and_keeps_what_it_learned(rng):
    """Two moons of points: 95 % and more after 25 epochs."""
    angle, labels = rng.uniform(0, np.pi, 120), np.arange(120) % 2
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(labels, 1, -1)[:, None]
    x += np.where(labels, 0, 1)[:, None] * [1.0, 0.4] + 0.05 * rng.normal(size=x.shape)
    net = MLP([2, 16, 2], rng=rng)
    optimizer = AdamW(net.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(x.astype(np.float32), labels), 20, shuffle=True, rng=rng)
    ema = EMA(net, 0.8)
    trainer = Trainer(net, optimizer, cross_entropy, callbacks=[ema])
    history = trainer.fit(loader, 25, validation=loader)
    assert history["val_accuracy"][-1] >= 0.95, history["val_accuracy"]
    assert history["loss"][-1] < history["loss"][0] / 2
    with ema.applied():
        assert trainer.validate(loader)["accuracy"] >= 0.95


# 10.17, 10.18 a run that is killed

EPOCHS, STEPS = 3, 9  # of six batches an epoch, two of which make a step


def run(shared=False, prefetch=0, accumulate=2):
    """A trainer that depends on everything that there is to depend on, and its loaders.

    Batch norm has buffers, dropout, order and flips draw numbers, AdamW and one-cycle count steps. If
    `shared`, all draw from one generator.
    """
    seeds = iter(range(10))
    one = np.random.default_rng(99)

    def rng():
        return one if shared else np.random.default_rng(next(seeds))

    data = np.random.default_rng(5)
    images, labels = data.normal(size=(22, 1, 4, 4)).astype(np.float32), data.integers(0, 3, 22)
    loader = DataLoader(
        TensorDataset(images, labels),
        4,
        shuffle=True,
        rng=rng(),
        transform=RandomHorizontalFlip(rng=rng()),
        prefetch=prefetch,
    )
    validation = DataLoader(TensorDataset(images, labels), 7, shuffle=True, rng=rng())
    net = Sequential(
        Conv2d(1, 2, 3, rng=rng()),
        BatchNorm2d(2),
        ReLU(),
        Flatten(),
        Dropout(0.3, rng=rng()),
        Linear(8, 3, rng=rng()),
    )
    optimizer = AdamW(net.parameters(), lr=0.01)
    trainer = Trainer(
        net,
        optimizer,
        lambda outputs, labels: cross_entropy(outputs, labels, label_smoothing=0.1),
        scheduler=OneCycleLR(optimizer, 0.05, STEPS),
        callbacks=[EMA(net, 0.8), EarlyStopping(50), Hook()],
        accumulate=accumulate,
        max_norm=1.0,
    )
    return trainer, loader, validation


class Hook(Callback):
    """Does something after a given step."""

    step, act = None, None

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            self.act()


class Killed(BaseException):
    """Stands for SIGKILL where there is none."""


def results(trainer):
    """All that a run ends with, to the last bit."""
    saved = {f"model {name}": a.tobytes() for name, a in trainer.model.state_dict().items()}
    saved.update({f"shadow {name}": a.tobytes() for name, a in trainer.callbacks[0].shadow.items()})
    for name, value in trainer.optimizer.state_dict().items():
        saved[f"optimizer {name}"] = np.asarray(value).tobytes()
    saved["history"] = repr(trainer.history)
    saved["counts"] = repr((trainer.epoch, trainer.step, trainer.rows, trainer.callbacks[1].state_dict()))
    saved["generators"] = repr([rng.bit_generator.state for rng in trainer.generators()])
    return saved


def same(got, expected):
    other = [name for name in expected if got.get(name) != expected[name]]
    assert not other, f"not as in the run that was not killed: {', '.join(other)}"


_whole = {}


def whole(**options):
    """The results of a run that nothing disturbs. It writes no checkpoint: that must change nothing."""
    key = repr(options)
    if key not in _whole:
        trainer, loader, validation = run(**options)
        trainer.fit(loader, EPOCHS, validation)
        _whole[key] = results(trainer)
    return _whole[key]


def fit(path, every=1, **options):
    trainer, loader, validation = run(**options)
    trainer.fit(loader, EPOCHS, validation, checkpoint=path, every=every)
    return trainer


def in_a_process(work):
    """Call `work` in a process of its own, to which anything may happen; whether it was killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads
        child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            work()
        finally:
            os._exit(0)
    for _ in range(4000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.WIFSIGNALED(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the process did not end")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at_step(path, step, **options):
    """Run until after a step, whose checkpoint is not written yet, and then no further."""
    trainer, loader, validation = run(**options)
    hook = trainer.callbacks[2]
    hook.step, hook.act = step, die if hasattr(os, "fork") else throw

    def work():
        trainer.fit(loader, EPOCHS, validation, checkpoint=path, every=1)

    if hasattr(os, "fork"):
        assert in_a_process(work)
    else:
        with pytest.raises(Killed):
            work()


def throw():
    raise Killed


@pytest.mark.parametrize("step", [1, 2, 3, 4, 9])
def test_killed_between_two_steps_it_ends_with_the_same_weights(step, tmp_path):
    dies_at_step(tmp_path / "run.npz", step)
    same(results(fit(tmp_path / "run.npz")), whole())


def test_killed_again_and_again_it_ends_with_the_same_weights(tmp_path):
    for step in (2, 6, 6, 8):
        dies_at_step(tmp_path / "run.npz", step)
    same(results(fit(tmp_path / "run.npz")), whole())


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("accumulate", [2, 4])
def test_killed_after_the_last_step_of_an_epoch_it_makes_none_again(accumulate, prefetch, tmp_path):
    """The last of two steps, of four batches and of two, asks for more batches than there are."""
    options = {"accumulate": accumulate, "prefetch": prefetch}
    trainer, loader, validation = run(**options)
    trainer.callbacks[2].on_epoch_end = lambda trainer: throw()
    with pytest.raises(Killed):
        trainer.fit(loader, EPOCHS, validation, checkpoint=tmp_path / "run.npz", every=1)
    same(results(fit(tmp_path / "run.npz", **options)), whole(accumulate=accumulate))


@pytest.mark.parametrize("step", [4, 5])
def test_all_may_draw_from_one_generator(step, tmp_path):
    dies_at_step(tmp_path / "run.npz", step, shared=True)
    same(results(fit(tmp_path / "run.npz", shared=True)), whole(shared=True))


def test_batches_made_ahead_are_not_lost(tmp_path):
    dies_at_step(tmp_path / "run.npz", 5, prefetch=3)
    same(results(fit(tmp_path / "run.npz", prefetch=2)), whole())


@pytest.mark.parametrize("every", [2, 5, None])
def test_fewer_checkpoints_lose_time_and_nothing_else(every, tmp_path):
    trainer, loader, validation = run()
    trainer.callbacks[2].step, trainer.callbacks[2].act = 8, throw
    with pytest.raises(Killed):
        trainer.fit(loader, EPOCHS, validation, checkpoint=tmp_path / "run.npz", every=every)
    same(results(fit(tmp_path / "run.npz", every)), whole())


def test_checkpoints_change_nothing(tmp_path):
    same(results(fit(tmp_path / "run.npz")), whole())


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_torn_checkpoint_costs_a_step_and_nothing_else(how, tmp_path):
    path = tmp_path / "run.npz"
    dies_at_step(path, 5)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    with pytest.warns(RuntimeWarning, match=r"run\.npz"):
        trainer = fit(path)
    same(results(trainer), whole())


def test_a_training_that_was_stopped_early_stays_stopped(tmp_path):
    histories = []
    for _ in range(2):
        trainer, loader, validation = run()
        trainer.callbacks[1].min_delta, trainer.callbacks[1].patience = 100.0, 1
        trainer.fit(loader, 9, validation, checkpoint=tmp_path / "run.npz")
        histories.append(trainer.history["loss"])
    expect(len(histories[0]), 2)
    expect(histories[1], histories[0])


# While a file is being written. Python tells an audit hook of each file that is opened, renamed or removed.

MOMENTS = ("open", "os.rename", "os.remove", "os.link", "shutil.move", "shutil.copyfile")


def dies_at_event(path, number):
    """Save once; then again, and die before the file is touched for the `number`-th time."""
    save_checkpoint(path, {"step": 1, "w": np.full(1000, 1.0)})
    save_checkpoint(path, {"step": 2, "w": np.full(1000, 2.0)})
    seen = [0]

    def hook(event, args):
        if event in MOMENTS and str(path.parent) in str(args[0]):
            seen[0] += 1
            if seen[0] == number:
                die()

    def work():
        sys.addaudithook(hook)
        save_checkpoint(path, {"step": 3, "w": np.full(1000, 3.0)})

    return in_a_process(work)


def whole_state(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = load_checkpoint(path)
    expect(state["w"], np.full(1000, float(state["step"])))
    return state["step"]


@pytest.mark.parametrize("number", range(1, 8))
def test_killed_while_it_saves_there_is_a_checkpoint_all_the_same(number, tmp_path):
    path = tmp_path / "run.npz"
    if not hasattr(os, "fork"):
        save_checkpoint(path, {"step": 2, "w": np.full(1000, 2.0)})
        killed = False
    else:
        killed = dies_at_event(path, number)
    step = whole_state(path)
    assert step == 2 or (step == 3 and hasattr(os, "fork")), step
    if hasattr(os, "fork") and not killed:
        expect(step, 3)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_killed_in_the_midst_of_a_file_there_is_the_one_before(part, tmp_path):
    """The system kills a process that writes past a limit: here at a part of what the file is long."""
    path = tmp_path / "run.npz"
    for step in (1, 2):
        save_checkpoint(path, {"step": step, "w": np.full(1000, float(step))})
    limit = int(path.stat().st_size * part)

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        save_checkpoint(path, {"step": 3, "w": np.full(1000, 3.0)})

    if hasattr(os, "fork"):
        assert in_a_process(work)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expect(whole_state(path), 2)
