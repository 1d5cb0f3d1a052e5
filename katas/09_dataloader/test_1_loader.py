"""Level 1: a loader gives the right batches in order, ends its thread, and goes on where it stopped."""

import json
import threading
import time
import traceback

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from tinytorch.dataloader import (
    Compose,
    Cutout,
    DataLoader,
    Dataset,
    RandomCrop,
    RandomHorizontalFlip,
    RandomSampler,
    Subset,
    TensorDataset,
    generators,
    prefetch,
)


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    expect([t.name for t in threading.enumerate() if t not in before], [])


def threads():
    return threading.active_count()


class Broken(Dataset):
    """Fails at one index."""

    def __init__(self, at, error=ZeroDivisionError):
        self.at, self.error = at, error

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.look_up(index)

    def look_up(self, index):
        if index == self.at:
            raise self.error(f"sample {index}")
        return index


# 09.16 prefetch


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_what_a_thread_makes_comes_in_order(depth):
    expect(list(prefetch(range(20), depth)), list(range(20)))
    expect(list(prefetch([], depth)), [])
    expect(list(prefetch([None, False], depth)), [None, False])
    error = ValueError("an item like any other")
    (item,) = prefetch([error], depth)
    assert item is error


def test_it_is_another_thread_that_works():
    def items():
        yield threading.get_ident()

    taken = prefetch(items(), 1)
    assert next(taken) != threading.get_ident()
    taken.close()


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_is_made_ahead_than_asked_for(depth):
    """Counted, not timed: the thread signals what it makes, and may not signal once more."""
    made = threading.Semaphore(0)

    def items():
        for i in range(20):
            made.release()
            yield i

    taken = prefetch(items(), depth)
    expect(next(taken), 0)
    for _ in range(depth + 1):  # the one taken, and `depth` more, come without anybody asking
        assert made.acquire(timeout=5), "the thread does not work ahead"
    assert not made.acquire(timeout=0.02), "the thread works too far ahead"
    expect(list(taken), list(range(1, 20)))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, IndexError])
def test_an_error_in_the_thread_arrives_after_the_items_before_it(error):
    def items():
        yield 1
        raise error("made up here")

    taken = prefetch(items(), 3)
    expect(next(taken), 1)
    with pytest.raises(error, match="made up here") as caught:
        next(taken)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "items" in names, f"the traceback is of {names}"


def test_an_error_of_what_cannot_be_iterated_arrives_too():
    with expect_error(TypeError, "int"):
        list(prefetch(5, 1))


@pytest.mark.parametrize("after", [0, 1, 3])
def test_whoever_stops_early_leaves_no_thread(after):
    before, made = threads(), threading.Semaphore(0)

    def items():
        for i in range(100):
            made.release()
            yield i

    taken = prefetch(items(), 2)
    for _ in range(after):
        next(taken)
    for _ in range(after + 2 if after else 0):
        assert made.acquire(timeout=5), "the thread does not work ahead"
    time.sleep(0.02)  # by now it waits until somebody takes an item, which nobody will
    taken.close()
    expect(threads(), before)


def test_whoever_waits_takes_no_time():
    """A loop that looks again and again would take all of a core, from the network as likely as not."""

    def slow():
        yield 0
        time.sleep(0.2)
        yield from range(1, 10)

    taken = prefetch(slow(), 2)
    expect(next(taken), 0)
    for wait in (lambda: next(taken), lambda: time.sleep(0.2)):  # here for the thread, then there for us
        before = time.process_time()
        wait()
        worked = time.process_time() - before
        assert worked < 0.02, f"{worked:.3f} s of work in 0.2 s of waiting"
    taken.close()


# 09.17 and 09.18 DataLoader

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10)
AHEAD = pytest.mark.parametrize("ahead", [0, 1, 3])


@AHEAD
@pytest.mark.parametrize(("drop", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_batches_in_sequence(ahead, drop, sizes):
    loader = DataLoader(TensorDataset(X, Y), 4, drop_last=drop, prefetch=ahead)
    expect(len(loader), len(sizes))
    for _ in range(2):
        batches = list(loader)
        expect([len(x) for x, _ in batches], sizes)
        for i, batch in enumerate(batches):
            expect(batch, (X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]))


@pytest.mark.parametrize("given", [{}, {"rng": np.random.default_rng(0)}])
def test_by_default_a_batch_is_one_sample_and_the_order_is_that_of_the_dataset(given):
    batches = list(DataLoader(TensorDataset(X, Y), **given))
    expect(len(batches), 10)
    expect(batches[3], (X[3:4], Y[3:4]))


@AHEAD
def test_a_dataset_may_be_empty(ahead):
    loader = DataLoader(TensorDataset(X[:0]), 4, prefetch=ahead)
    expect((len(loader), list(loader)), (0, []))


@AHEAD
def test_shuffled_epochs_differ_and_have_every_sample(ahead):
    def epochs(seed):
        loader = DataLoader(
            TensorDataset(X, Y), 4, shuffle=True, prefetch=ahead, rng=np.random.default_rng(seed)
        )
        return [np.concatenate([y for x, y in loader]).tolist() for _ in range(3)]

    one = epochs(0)
    expect([sorted(epoch) for epoch in one], [list(range(10))] * 3)
    assert len(set(map(tuple, [*one, range(10)]))) == 4
    expect(epochs(0), one)
    assert epochs(1) != one


def test_the_order_is_drawn_when_an_epoch_begins_and_not_at_its_first_batch():
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    data = TensorDataset(X)
    batches = iter(DataLoader(data, 4, shuffle=True, rng=one))
    expect(len(list(DataLoader(data, 4, shuffle=True, rng=other))), 3)
    expect(one.random(), other.random())
    expect(len(list(batches)), 3)


def test_a_sampler_says_the_order():
    loader = DataLoader(TensorDataset(Y), 2, sampler=[7, 7, 1])
    expect([batch[0].tolist() for batch in loader], [[7, 7], [1]])
    expect(len(loader), 2)
    expect(list(DataLoader(TensorDataset(Y), 2, sampler=[])), [])  # an order, too, and not the dataset's


def test_a_sampler_is_asked_anew_for_each_epoch():
    data = TensorDataset(Y)
    loader = DataLoader(data, 10, sampler=RandomSampler(data, rng=np.random.default_rng(3)))
    shuffled = DataLoader(data, 10, shuffle=True, rng=np.random.default_rng(3))
    epochs = [[batch.tolist() for (batch,) in each] for each in (loader, loader, shuffled, shuffled)]
    expect(epochs[:2], epochs[2:])
    assert epochs[0] != epochs[1]


def test_what_cannot_be_is_refused(rng):
    data = TensorDataset(X)
    with expect_error(ValueError, "rng"):
        DataLoader(data, shuffle=True)
    with expect_error(ValueError, "sampler"):
        DataLoader(data, shuffle=True, sampler=RandomSampler(data, rng=rng), rng=rng)
    with expect_error(ValueError, "0"):
        DataLoader(data, 0)
    with expect_error(ValueError, "-1"):
        DataLoader(data, prefetch=-1)


def test_what_a_loader_was_given_is_kept_under_its_name(rng):
    given = {
        "dataset": TensorDataset(X),
        "batch_size": 3,
        "shuffle": True,
        "drop_last": True,
        "collate_fn": list,
        "prefetch": 2,
        "rng": rng,
        "transform": lambda x: x,
    }
    loader = DataLoader(**given)
    for name, value in given.items():
        assert getattr(loader, name) is value, name
    order = [2, 0]
    assert DataLoader(TensorDataset(X), sampler=order).sampler is order


def test_a_collate_function_gets_the_samples():
    loader = DataLoader(TensorDataset(X, Y), 4, collate_fn=lambda samples: [int(y) for x, y in samples])
    expect(list(loader), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])


def test_a_dataset_may_be_a_plain_list():
    expect([batch.tolist() for batch in DataLoader([5, 6, 7], 2)], [[5, 6], [7]])


def test_a_batch_is_fetched_at_once_where_the_dataset_can():
    class Counting(TensorDataset):
        calls = 0

        def __getitems__(self, indices):
            Counting.calls += 1
            return super().__getitems__(indices)

    list(DataLoader(Subset(Counting(X), range(9)), 4))
    expect(Counting.calls, 3)


@AHEAD
def test_a_transform_is_for_the_images(ahead):
    double = lambda x: 2 * x  # noqa: E731
    pairs = DataLoader(TensorDataset(X, Y), 5, prefetch=ahead, transform=double)
    expect(list(pairs), [(2 * X[:5], Y[:5]), (2 * X[5:], Y[5:])])
    bare = DataLoader([1, 2, 3], 3, prefetch=ahead, transform=double)
    expect([batch.tolist() for batch in bare], [[2, 4, 6]])


@AHEAD
def test_with_prefetch_a_thread_makes_the_batches(ahead):
    class Where(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return threading.get_ident() == threading.main_thread().ident

    batches = [batch.tolist() for batch in DataLoader(Where(), 2, prefetch=ahead)]
    expect(batches, [[ahead == 0] * 2] * 3)


@AHEAD
def test_an_error_in_the_dataset_reaches_the_loop(ahead):
    seen, before = [], threads()
    with pytest.raises(ZeroDivisionError, match="sample 5") as caught:  # noqa: PT012
        for batch in DataLoader(Broken(5), 2, prefetch=ahead):
            seen.append(batch.tolist())
    expect(seen, [[0, 1], [2, 3]])
    assert "look_up" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    expect(threads(), before)


@AHEAD
def test_a_dataset_that_raises_stop_iteration_does_not_end_the_epoch_quietly(ahead):
    loader = DataLoader(Broken(3, StopIteration), 2, prefetch=ahead)
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(loader)


@AHEAD
def test_no_thread_outlives_an_error_in_the_loop_or_a_break(ahead):
    loader, before = DataLoader(TensorDataset(X), 2, prefetch=ahead), threads()
    with pytest.raises(KeyError):  # noqa: PT012
        for _ in loader:
            raise KeyError("in the loop")
    expect(threads(), before)
    for _ in loader:
        break
    expect(threads(), before)
    iter(loader)
    expect(threads(), before)
    expect(len(list(loader)), 5)  # and the loader still works


# 09.19 state_dict, load_state_dict

IMAGES = np.random.default_rng(0).integers(1, 255, (23, 2, 6, 6), np.uint8)


def make(ahead=0, shared=False, seed=5, size=4):
    """A loader that draws an order and three augmentations, from generators of its own."""
    rngs = [np.random.default_rng(seed)] * 4 if shared else np.random.default_rng(seed).spawn(4)
    if shared == "one":
        rngs = np.random.default_rng(seed).spawn(3)
        rngs.insert(2, rngs[0])
    transform = Compose([
        RandomHorizontalFlip(rng=rngs[1]),
        Compose([RandomCrop(6, padding=2, rng=rngs[2]), Cutout(3, rng=rngs[3])]),
    ])  # fmt: skip
    data = TensorDataset(IMAGES, np.arange(23))
    return DataLoader(data, size, shuffle=True, prefetch=ahead, rng=rngs[0], transform=transform)


def run(loader, count=None):
    """The batches of one epoch, or its first `count`."""
    batches = []
    if count == 0:
        return batches
    for batch in loader:
        batches.append(batch)
        if len(batches) == count:
            break
    return batches


@pytest.mark.parametrize("shared", [False, True, "one"])
@pytest.mark.parametrize("stop", [1, 3, 5, 6])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 0), (0, 3), (2, 2)])
def test_a_loader_goes_on_where_another_stopped(stop, before, after, shared):
    straight = make(shared=shared)
    epochs = [run(straight) for _ in range(4)]  # of 6 batches
    stopped = make(before, shared)
    expect(run(stopped), epochs[0])
    expect(run(stopped, stop), epochs[1][:stop])
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = make(after, shared, seed=99)
    resumed.load_state_dict(state)
    expect(run(resumed), epochs[1][stop:])
    expect(run(resumed), epochs[2])
    expect(run(resumed), epochs[3])


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_between_two_epochs_there_is_nothing_left(ahead, shared):
    straight = make(ahead, shared)
    run(straight)
    state, fresh = straight.state_dict(), make(ahead, shared).state_dict()
    second = run(straight)
    resumed = make(ahead, shared, seed=99)
    resumed.load_state_dict(state)
    expect(resumed.state_dict() == state, True)
    expect(run(resumed), second)
    resumed.load_state_dict(fresh)
    expect(run(resumed), run(make(ahead, shared)))


@AHEAD
def test_a_state_can_be_taken_inside_of_the_loop_and_does_not_change_later(ahead):
    states, batches, loader = [], [], make(ahead)
    for batch in loader:
        states.append(loader.state_dict())
        batches.append(batch)
    for done, state in enumerate(states, 1):
        loader.load_state_dict(state)
        expect(run(loader), batches[done:])


@AHEAD
def test_a_state_loaded_is_the_state_that_is_saved(ahead):
    loader = make(ahead)
    run(loader, 2)
    state, other = loader.state_dict(), make(ahead, seed=99)
    other.load_state_dict(state)
    expect(other.state_dict() == state, True)


@AHEAD
def test_a_state_can_be_loaded_twice(ahead):
    loader = make(ahead)
    run(loader, 2)
    state = loader.state_dict()
    before = json.dumps(state)
    rests = []
    for _ in range(2):
        resumed = make(ahead, seed=99)
        resumed.load_state_dict(state)
        rests.append(run(resumed))
    expect(rests[1], rests[0])
    expect(json.dumps(state), before)


class Raising:
    """A transform that adds random numbers."""

    def __init__(self):
        self.rng = np.random.default_rng(3)

    def __call__(self, batch):
        return batch + self.rng.integers(10, 1000, len(batch))


@AHEAD
def test_after_an_error_there_is_the_rest_of_an_epoch_to_finish(ahead):
    """The first two batches were handed out; what was drawn for others does not count."""
    whole = run(DataLoader(Broken(None), 2, prefetch=ahead, transform=Raising()))
    data = Broken(5)
    loader = DataLoader(data, 2, prefetch=ahead, transform=Raising())
    with pytest.raises(ZeroDivisionError):
        run(loader)
    state, data.at = loader.state_dict(), None
    loader.load_state_dict(state)
    expect(run(loader), whole[2:])


def test_a_resumed_epoch_can_stop_again():
    epoch, loader = run(make()), make()
    done = []
    for count in (2, 1, 2, 1):
        done += run(loader, count)
        state, loader = loader.state_dict(), make(seed=99)
        loader.load_state_dict(state)
    expect(done, epoch)
    expect(run(loader), [])


def test_whoever_stops_a_resumed_epoch_begins_a_new_one():
    straight, loader = make(), make(seed=99)
    state = (run(straight, 2), straight.state_dict())[1]
    loader.load_state_dict(state)
    run(loader, 1)
    expect([len(labels) for _, labels in run(loader)], [4, 4, 4, 4, 4, 3])


@AHEAD
def test_an_epoch_that_ends_late_is_not_taken_for_the_newer_one(ahead):
    """Somebody held on to the iterator that was left, as a traceback does."""
    start = lambda: DataLoader(TensorDataset(Y), 3, True, prefetch=ahead, rng=np.random.default_rng(1))  # noqa: E731
    straight = start()
    rest = [run(straight), run(straight)][1][1:]
    for end in (list, lambda old: old.close()):
        loader = start()
        old = iter(loader)
        next(old)
        new = iter(loader)
        next(new)
        end(old)
        state, resumed = json.loads(json.dumps(loader.state_dict())), start()
        expect(list(new), rest)
        resumed.load_state_dict(state)
        expect(run(resumed), rest)


@pytest.mark.parametrize("then", ["another epoch", "a state"])
def test_an_epoch_that_is_closed_late_takes_no_numbers_back(then):
    """Its thread waits, two batches ahead, and would set the generators to where they were before these."""
    made = threading.Semaphore(0)
    flip = RandomHorizontalFlip(rng=np.random.default_rng(2))

    def transform(images):
        made.release()
        return flip(images)

    transform.rng = flip.rng
    loader = DataLoader(TensorDataset(IMAGES), 4, prefetch=2, transform=transform)
    old = iter(loader)
    next(old)
    for _ in range(3):
        assert made.acquire(timeout=5), "the thread does not work ahead"
    if then == "a state":
        loader.load_state_dict(json.loads(json.dumps(loader.state_dict())))
        flip.rng.random(100)
    else:
        expect(len(list(loader)), 6)
    before = flip.rng.bit_generator.state
    old.close()
    expect(flip.rng.bit_generator.state == before, True)


def test_a_stop_makes_no_difference_to_the_next_epoch():
    """Whatever a thread has drawn ahead by then."""
    nexts = []
    for ahead in (0, 1, 5):
        loader = make(ahead)
        run(loader, 2)
        nexts.append(run(loader))
    expect(len(nexts[0]), 6)
    expect(nexts[1], nexts[0])
    expect(nexts[2], nexts[0])


def test_without_a_thread_a_generator_may_be_shared_with_the_network():
    """Here a network draws from it after each batch: a loader puts back what it drew itself, and no more."""

    def start(seed):
        rng = np.random.default_rng(seed)
        transform = RandomHorizontalFlip(rng=rng)
        return DataLoader(TensorDataset(IMAGES), 4, shuffle=True, rng=rng, transform=transform), rng

    def train(loader, rng, count=None):
        batches = []
        for (images,) in loader:
            batches.append((images, rng.random()))
            if len(batches) == count:
                break
        return batches

    straight = start(1)
    epochs = [train(*straight), train(*straight)]
    assert len({number for epoch in epochs for _, number in epoch}) == 12
    loader, rng = start(1)
    expect(train(loader, rng, 4), epochs[0][:4])
    state, stands = json.dumps(loader.state_dict()), rng.bit_generator.state
    resumed, rng = start(99)
    resumed.load_state_dict(json.loads(state))
    rng.bit_generator.state = stands  # whoever restores the network may do so afterwards
    expect(train(resumed, rng), epochs[0][4:])
    expect(train(resumed, rng), epochs[1])


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_states_of_every_kind_of_generator_can_be_written(kind):
    def start(seed):
        rng = np.random.Generator(getattr(np.random, kind)(seed))
        return DataLoader(TensorDataset(Y), 4, shuffle=True, prefetch=2, rng=rng)

    loader, resumed = start(1), start(2)
    run(loader, 1)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    epoch = run(start(1))
    expect(run(resumed), epoch[1:])


def test_a_state_of_other_generators_is_refused():
    """The order's, the flips', the crops' and the squares' here, there the order's only."""
    loader = DataLoader(TensorDataset(IMAGES), shuffle=True, rng=np.random.default_rng(1))
    expect((len(generators(make())), len(generators(loader))), (4, 1))
    with expect_error(ValueError):
        loader.load_state_dict(make().state_dict())


def test_samples_before_the_stop_are_not_read_again():
    read = []

    class Noting(Dataset):
        def __len__(self):
            return 9

        def __getitem__(self, index):
            read.append(index)
            return index

    loader = DataLoader(Noting(), 2)
    run(loader, 3)
    state = loader.state_dict()
    resumed = DataLoader(Noting(), 2)
    resumed.load_state_dict(state)
    read.clear()
    expect([batch.tolist() for batch in resumed], [[6, 7], [8]])
    expect(read, [6, 7, 8])
