"""Level 1: windows of a text, what a model is told about them, and where the memory goes."""

import itertools
import math

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from dojo.measuring import load_probes
from tinytorch import autograd
from tinytorch.dataloader import DataLoader, SequentialSampler
from tinytorch.generation import (
    TokenDataset,
    bits_per_character,
    decay_groups,
    evaluate,
    generation_bytes,
    language_model_loss,
    perplexity,
    token_batches,
    train_language_model,
    training_bytes,
    warmup_cosine,
)
from tinytorch.layers import Buffer, Module, Parameter
from tinytorch.optimizers import SGD, AdamW
from tinytorch.tensor import Tensor
from tinytorch.training import Callback

probes = load_probes(__file__)
Toy, small_gpt = probes.Toy, probes.small_gpt


# 15.14 TokenDataset


def test_a_window_comes_with_the_ids_one_further_on():
    dataset = TokenDataset(np.arange(10, 17), 3)
    assert len(dataset) == 4
    expect(
        [(x.tolist(), y.tolist()) for x, y in dataset],
        [
            ([10, 11, 12], [11, 12, 13]),
            ([11, 12, 13], [12, 13, 14]),
            ([12, 13, 14], [13, 14, 15]),
            ([13, 14, 15], [14, 15, 16]),
        ],
    )


def test_a_row_of_one_more_than_the_context_has_one_window():
    dataset = TokenDataset([7, 8, 9], 2)
    assert len(dataset) == 1
    x, y = dataset[0]
    expect((x, y), (np.array([7, 8]), np.array([8, 9])))


def test_windows_are_views_and_keep_the_kind_of_integer():
    ids = np.arange(100, dtype=np.uint16)
    dataset = TokenDataset(ids, 8)
    for part in (*dataset[5], *dataset[91]):
        assert np.shares_memory(part, ids), "a window was copied"
        assert part.dtype == np.uint16


@pytest.mark.parametrize("index", [4, 5, 100, -1, -5])
def test_there_is_no_window_before_the_first_or_after_the_last(index):
    """At -1 a slice would be empty, at 4 too short; and an IndexError is what ends a loop."""
    with expect_error(IndexError, str(index)):
        TokenDataset(np.arange(7), 3)[index]


def test_a_batch_has_a_window_in_each_row(rng):
    ids = rng.integers(0, 99, 50)
    dataset = TokenDataset(ids, 6)
    for indices in ([3, 0, 43, 3], np.array([5])):
        x, y = dataset.__getitems__(indices)
        expect(x, np.array([ids[i : i + 6] for i in indices]))
        expect(y, np.array([ids[i + 1 : i + 7] for i in indices]))


@pytest.mark.parametrize("index", [4, 100, -1, -5])
def test_nor_is_there_one_in_a_batch(index):
    """numpy would count -1 from the end."""
    with expect_error(IndexError, str(index)):
        TokenDataset(np.arange(7), 3).__getitems__([0, index, 2])


def test_a_batch_of_nothing_has_no_rows():
    x, y = TokenDataset(np.arange(7, dtype=np.uint16), 3).__getitems__([])
    expect((x, y), (np.empty((0, 3), np.uint16),) * 2)


def test_a_loader_takes_batches_from_it():
    dataset = TokenDataset(np.arange(7), 2)
    batches = list(DataLoader(dataset, 3, sampler=SequentialSampler(dataset)))
    expect([len(x) for x, _ in batches], [3, 2])
    expect(batches[1][1], np.array([[4, 5], [5, 6]]))


def test_ids_may_lie_in_a_file(tmp_path, rng):
    ids = rng.integers(0, 99, 1000).astype(np.uint16)
    ids.tofile(tmp_path / "ids.bin")
    dataset = TokenDataset(np.memmap(tmp_path / "ids.bin", np.uint16, "r"), 10)
    x, y = dataset.__getitems__([17, 900])
    expect(x, np.stack([ids[17:27], ids[900:910]]))
    expect(y, np.stack([ids[18:28], ids[901:911]]))


@pytest.mark.parametrize(("shape", "context"), [((3,), 3), ((0,), 1), ((4, 4), 2), ((9,), 0)], ids=str)
def test_a_row_without_a_window_is_an_error_that_names_both(shape, context):
    assert len(TokenDataset([1, 2], 1)) == 1
    with expect_error(ValueError, str(shape), str(context)):
        TokenDataset(np.zeros(shape, np.int64), context)


def test_batches_of_an_epoch_are_as_many_as_were_asked_for_and_from_everywhere(rng):
    loader = token_batches(np.arange(101), 10, 16, batches=20, rng=rng)
    first, second = ([x for x, _ in loader] for _ in range(2))
    assert [x.shape for x in first] == [(16, 10)] * 20
    starts = {int(x) for batch in first + second for x in batch[:, 0]}
    assert {0, 90} <= starts <= set(range(91)), "640 draws of 91 places miss one of two once in 500 times"
    assert any((x != y).any() for x, y in zip(first, second, strict=True)), "each epoch is the same"


# 15.15 language_model_loss


def test_the_loss_is_the_mean_over_all_tokens():
    """Shares of 1/2, 1/4 and 1/4: -log of them is 1, 2 and 2 bits."""
    logits = Tensor(np.log(np.array([[[2, 1, 1], [1, 2, 1]], [[1, 1, 2], [2, 1, 1]]]) / 4))
    bits = language_model_loss(logits, np.array([[0, 1], [2, 1]])).data / math.log(2)
    expect(bits, np.array((1 + 1 + 1 + 2) / 4))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 3)], ids=str)
def test_equal_logits_cost_the_logarithm_of_the_vocabulary_in_any_shape(shape):
    if shape:
        loss = language_model_loss(Tensor(np.zeros((*shape, 8))), np.ones(shape, np.uint16))
        expect(loss.data, np.array(math.log(8)))
    else:
        with expect_error(ValueError, "(2, 4, 8)", "(2, 3)"):
            language_model_loss(Tensor(np.zeros((2, 4, 8))), np.ones((2, 3), np.int64))


def test_targets_may_be_lists_or_a_tensor():
    logits = Tensor(np.zeros((1, 2, 4)))
    for targets in ([[0, 3]], Tensor(np.array([[0, 3]]))):
        expect(language_model_loss(logits, targets).data, np.array(math.log(4)))


def test_the_loss_keeps_the_kind_of_number():
    for dtype in (np.float32, np.float64):
        assert language_model_loss(Tensor(np.zeros((1, 2, 3), dtype)), np.zeros((1, 2), int)).dtype == dtype


def test_a_transposed_batch_of_targets_is_an_error_that_names_the_shapes():
    with expect_error(ValueError, "(2, 3, 5)", "(3, 2)"):
        language_model_loss(Tensor(np.zeros((2, 3, 5))), np.zeros((3, 2), np.int64))


# 15.16 evaluate


def nats_by_hand(toy, ids, context):
    """Each token but the first, from those before it in its window."""
    total = 0.0
    for i in range(1, len(ids)):
        start = (i - 1) // context * context
        logits = toy.after(ids[start:i])
        total += np.log(np.exp(logits).sum()) - logits[ids[i]]
    return total / (len(ids) - 1)


@pytest.mark.parametrize("length", [2, 3, 5, 6, 9, 21, 22, 40])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_each_token_is_predicted_once(length, batch_size, rng):
    """Whether they fill whole windows of 4, and whole batches, or not."""
    toy, ids = Toy(context=4), rng.integers(0, 7, length)
    expect(evaluate(toy, ids, batch_size), nats_by_hand(toy, ids.tolist(), 4))
    assert max(rows for rows, _ in toy.fed) <= batch_size
    assert sum(rows * columns for rows, columns in toy.fed) == length - 1


def test_an_evaluation_is_a_plain_number():
    assert type(evaluate(Toy(), [1, 2, 3])) is float


def test_while_evaluating_nothing_trains_and_nothing_is_recorded(rng):
    toy = Toy()
    toy.train()
    evaluate(toy, rng.integers(0, 7, 40))
    expect(set(toy.states), {(False, False)})
    assert toy.training
    assert autograd.is_grad_enabled()


@pytest.mark.parametrize("training", [(True, False), (False, True)], ids=["all but a part", "a part alone"])
def test_each_part_of_a_model_is_left_in_its_own_mode(training, rng):
    toy = Toy().with_part()
    toy.training, toy.part.training = training
    evaluate(toy, rng.integers(0, 7, 40))
    expect(set(toy.states), {(False, False)})
    expect((toy.training, toy.part.training), training)


def test_a_model_that_fails_is_left_in_its_own_mode():
    toy = Toy().train()
    with pytest.raises(IndexError):  # the toy has seven ids
        evaluate(toy, [1, 99, 1])
    assert toy.training
    assert autograd.is_grad_enabled()


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 2)], ids=str)
def test_ids_that_predict_nothing_are_an_error_that_names_their_shape(shape):
    with expect_error(ValueError, str(shape)):
        evaluate(Toy(), np.zeros(shape, np.int64))


# 15.17 perplexity, bits_per_character


def test_perplexity_is_the_number_of_equally_likely_tokens():
    expect(perplexity(math.log(50)), 50.0)
    expect(perplexity(0.0), 1.0)


def test_bits_per_character_do_not_depend_on_the_tokens():
    """100 characters in 25 tokens of 4 bits, or in 100 of 1."""
    expect(bits_per_character(4 * math.log(2), 25, 100), 1.0)
    expect(bits_per_character(math.log(2), 100, 100), 1.0)
    expect(bits_per_character(1.0, 10, 10), 1.4426950408889634)


# 15.18 decay_groups, warmup_cosine


class Parts(Module):
    def __init__(self, *shapes):
        self.parts = [Parameter(np.ones(shape, np.float32)) for shape in shapes]


def test_matrices_decay_and_vectors_do_not():
    model = Parts((2, 3), (3,), (2, 2, 2), (1,))
    matrices, vectors = decay_groups(model, 0.25)
    assert [p.shape for p in matrices["params"]] == [(2, 3), (2, 2, 2)]
    assert [p.shape for p in vectors["params"]] == [(3,), (1,)]
    expect((matrices["weight_decay"], vectors["weight_decay"]), (0.25, 0.0))


def test_groups_are_what_an_optimizer_takes():
    model = Parts((2, 3), (3,))
    optimizer = AdamW(decay_groups(model, 0.5), lr=0.5)
    for p in model.parameters():
        p.grad = np.zeros_like(p.data)
    optimizer.step()
    expect(model.parts[0].data, np.full((2, 3), 0.75, np.float32))
    expect(model.parts[1].data, np.ones(3, np.float32))


@pytest.mark.parametrize("shape", [(2, 3), (3,)], ids=str)
def test_a_group_that_would_be_empty_is_left_out(shape):
    [group] = decay_groups(Parts(shape, shape), 0.25)
    assert len(group["params"]) == 2
    expect(group["weight_decay"], 0.25 if len(shape) == 2 else 0.0)


def test_groups_are_two_also_where_nothing_decays():
    expect(
        [(len(g["params"]), g["weight_decay"]) for g in decay_groups(Parts((2, 3), (3,)), 0.0)],
        [(1, 0.0)] * 2,
    )


def test_a_shared_matrix_is_there_once(rng):
    """The head of a TinyGPT is its embedding."""
    model = small_gpt(rng)
    found = [p for group in decay_groups(model, 0.1) for p in group["params"]]
    assert len(set(map(id, found))) == len(found) == len(list(model.parameters()))


def rates(steps, warmup, lr=1.0, **options):
    optimizer = SGD([Parameter(np.ones(1, np.float32))], lr=lr)
    schedule = warmup_cosine(optimizer, steps, warmup, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_the_rate_rises_in_a_line_and_falls_along_half_a_wave():
    """Four steps up to 2, and eight down to a tenth of it: half way, at step 8, the middle of 2 and 0.2."""
    found = rates(12, 4, lr=2.0)
    expect(found[:5], [0.5, 0.875, 1.25, 1.625, 2.0], rtol=1e-12)
    expect(found[8], 1.1)
    expect(found[6], 1.1 + 0.9 * math.sqrt(0.5))
    expect(found[12], 0.2)
    assert all(a > b for a, b in itertools.pairwise(found[4:]))


def test_the_least_rate_can_be_chosen():
    expect(rates(10, 1, least=0.0)[-1], 0.0, atol=1e-12)
    expect(rates(10, 1, least=1.0), [1.0] * 11)


def test_all_groups_follow_the_schedule():
    optimizer = AdamW(decay_groups(Parts((2, 3), (3,)), 0.5), lr=1.0)
    schedule = warmup_cosine(optimizer, 6, 2)
    schedule.step()
    expect([group["lr"] for group in optimizer.param_groups], [0.75, 0.75])


def test_groups_with_rates_of_their_own_end_at_a_part_of_the_first():
    """They rise to 1 and to 0.5, and fall to a fifth of 1."""
    first, second = (Parameter(np.ones(1, np.float32)) for _ in range(2))
    optimizer = SGD([{"params": [first]}, {"params": [second], "lr": 0.5}], lr=1.0)
    schedule, found = warmup_cosine(optimizer, 6, 2, least=0.2), []
    for _ in range(7):
        found.append([group["lr"] for group in optimizer.param_groups])
        schedule.step()
    expect([found[0], found[2], found[4], found[6]], [[0.5, 0.25], [1.0, 0.5], [0.6, 0.35], [0.2, 0.2]])


@pytest.mark.parametrize(("steps", "warmup"), [(4, 0), (4, 4), (4, 5), (1, 1)])
def test_a_warm_up_that_does_not_fit_is_an_error_that_names_it(steps, warmup):
    with expect_error(ValueError, str(warmup), str(steps)):
        rates(steps, warmup)


# 15.19 train_language_model


def parrot(rng, **options):
    """A tiny model, and ids that go round and round."""
    model = probes.TinyGPT(probes.GPTConfig(5, 8, 16, 1, 2, **options), rng=rng)
    return model, np.tile([0, 1, 2, 3, 4], 40)


def test_a_model_learns_what_comes_next(rng):
    model, ids = parrot(rng)
    before = evaluate(model, ids)
    history = train_language_model(model, ids, steps=60, batch_size=8, lr=0.02, rng=rng, every=20)
    assert before > 1.4, "five equally likely ids are 1.6 nats"
    assert evaluate(model, ids) < 0.1
    assert history["loss"][0] > history["loss"][-1]
    assert history["loss"][-1] < 0.5


def test_each_epoch_is_a_line_of_the_history(rng):
    model, ids = parrot(rng)
    history = train_language_model(
        model, ids, steps=12, batch_size=2, lr=0.5, rng=rng, validation=ids[:41], every=4, warmup=2
    )
    assert {name: len(numbers) for name, numbers in history.items()} == {"loss": 3, "lr": 3, "val_loss": 3}
    expect(history["val_loss"][-1], evaluate(model, ids[:41]), rtol=1e-6)
    expect(history["lr"][-1], 0.05)
    expect(history["lr"][1], 0.05 + 0.45 * (1 + math.cos(math.pi * 6 / 10)) / 2)


def test_without_more_to_say_all_steps_are_one_epoch_and_a_twentieth_warms_up(rng):
    seen = []

    class Spy(Callback):
        def on_batch_end(self, trainer):
            seen.append(trainer.optimizer.param_groups[0]["lr"])
            decays.append([group["weight_decay"] for group in trainer.optimizer.param_groups])

    decays = []
    model, ids = parrot(rng)
    history = train_language_model(model, ids, steps=40, batch_size=2, lr=1e-3, rng=rng, callbacks=[Spy()])
    assert {name: len(numbers) for name, numbers in history.items()} == {"loss": 1, "lr": 1}
    assert len(seen) == 40
    expect(seen[1], 1e-3, rtol=1e-9)  # what the third step has; two warm up
    assert seen[0] < seen[1] > seen[2]
    expect(decays[0], [0.1, 0.0])


def test_batches_are_as_large_as_was_asked_and_windows_as_long_as_the_context(rng):
    model, ids = parrot(rng)
    shapes, forward = [], model.forward

    def seen(ids, **how):
        shapes.append(ids.shape)
        return forward(ids, **how)

    model.forward = seen
    train_language_model(model, ids, steps=4, batch_size=3, lr=1e-3, rng=rng, every=2)
    expect(shapes, [(3, 8)] * 4)


def test_of_few_steps_one_warms_up(rng):
    model, ids = parrot(rng)
    history = train_language_model(model, ids, steps=2, batch_size=2, lr=0.5, rng=rng)
    expect(history["lr"], [0.05])


def test_batches_are_drawn_from_the_generator(rng):
    weights = []
    for seed in (1, 1, 2):
        model, ids = parrot(np.random.default_rng(0))
        draws = np.random.default_rng(seed)
        train_language_model(model, ids, steps=3, batch_size=2, lr=1e-2, rng=draws)
        weights.append(model.tokens.weight.data.copy())
    expect(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_only_matrices_are_pulled_towards_zero_and_gradients_are_clipped(rng):
    """Seen by a callback: two groups, betas, and a norm of the gradients of 1 at most."""
    seen = {}

    class Spy(Callback):
        def on_batch_end(self, trainer):
            groups = trainer.optimizer.param_groups
            seen["decay"] = sorted(group["weight_decay"] for group in groups)
            seen["betas"] = groups[0]["betas"]
            seen["kind"] = type(trainer.optimizer)
            squares = sum(float((p.grad**2).sum()) for p in trainer.model.parameters())
            seen["norm"] = max(seen.get("norm", 0.0), math.sqrt(squares))

    model, ids = parrot(rng, positions="rotary")
    for p in model.parameters():
        p.data *= 20  # so that gradients are large
    train_language_model(
        model, ids, steps=4, batch_size=4, lr=1e-3, rng=rng, callbacks=[Spy()], weight_decay=0.3
    )
    assert seen["kind"] is AdamW
    expect(seen["decay"], [0.0, 0.3])
    expect(tuple(seen["betas"]), (0.9, 0.95))
    expect(seen["norm"], 1.0, rtol=1e-3)


def test_a_validation_comes_before_other_callbacks_hear_of_the_epoch(rng):
    heard = []

    class Spy(Callback):
        def on_epoch_end(self, trainer):
            heard.append(len(trainer.history["val_loss"]))

    model, ids = parrot(rng)
    train_language_model(
        model, ids, steps=4, batch_size=2, lr=1e-3, rng=rng, validation=ids, every=2, callbacks=[Spy()]
    )
    expect(heard, [1, 2])


def test_what_the_caller_gave_is_not_changed(rng):
    model, ids = parrot(rng)
    before, callbacks = ids.copy(), [Callback()]
    how = {"steps": 2, "batch_size": 2, "lr": 1e-3, "rng": rng, "validation": ids[:20]}
    train_language_model(model, ids, **how, callbacks=callbacks)
    expect((ids, len(callbacks)), (before, 1))


def test_a_warm_up_of_no_steps_is_an_error_and_not_the_usual_one(rng):
    model, ids = parrot(rng)
    with expect_error(ValueError, "0", "4"):
        train_language_model(model, ids, steps=4, batch_size=2, lr=1e-3, rng=rng, warmup=0)


def test_without_decay_nothing_decays(rng):
    class Spy(Callback):
        def on_batch_end(self, trainer):
            seen.extend(group["weight_decay"] for group in trainer.optimizer.param_groups)

    seen = []
    model, ids = parrot(rng)
    how = {"steps": 2, "batch_size": 2, "lr": 1e-3, "rng": rng, "weight_decay": 0.0}
    train_language_model(model, ids, **how, callbacks=[Spy()])
    expect(set(seen), {0.0})


def test_steps_that_make_no_whole_epochs_are_an_error_that_names_both(rng):
    model, ids = parrot(rng)
    with expect_error(ValueError, "10", "4"):
        train_language_model(model, ids, steps=10, batch_size=2, lr=1e-3, rng=rng, every=4)


class Killed(Exception):
    """What ends a run at its fifth step."""


class Killer(Callback):
    def on_batch_end(self, trainer):
        if trainer.step == 5:
            raise Killed


def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path):
    """Two steps are an epoch, so the checkpoint that it goes on from is of step 4."""

    def run(name, callback):
        model, ids = parrot(np.random.default_rng(0), dropout=0.2)
        how = {"steps": 8, "every": 2, "batch_size": 2, "lr": 1e-2, "rng": np.random.default_rng(1)}
        history = train_language_model(model, ids, **how, checkpoint=tmp_path / name, callbacks=[callback])
        return b"".join(p.data.tobytes() for p in model.parameters()), history

    class Counter(Callback):
        steps = 0

        def on_batch_end(self, trainer):
            self.steps += 1

    with pytest.raises(Killed):
        run("killed.npz", Killer())
    rest, whole = Counter(), Counter()
    assert run("killed.npz", rest) == run("whole.npz", whole)
    expect((rest.steps, whole.steps), (4, 8))


# 15.20 training_bytes, generation_bytes. What is compared has names: a number of bytes alone says nothing.


def some(parts, *names):
    return {f"bytes of {name}": parts[name] for name in names}


def expect_bytes(parts, **wanted):
    expect(some(parts, *wanted), some(wanted, *wanted))


def test_training_takes_four_times_the_weights_and_the_activations(rng):
    model = small_gpt(rng)
    weights = sum(p.data.nbytes for p in model.parameters())
    parts = training_bytes(model, 3, 10)
    expect_bytes(parts, weights=weights, gradients=weights, optimizer=2 * weights)
    few = 10 * 3 * 10 * 16 * 4
    assert parts["activations"] > few, (
        f"activations are {parts['activations']} bytes, less than ten arrays of (3, 10, 16), which are {few}"
    )


def test_activations_grow_with_the_batch(rng):
    model = small_gpt(rng)
    one, two = (training_bytes(model, batch, 10) for batch in (2, 4))
    grown = {"activations of 4 texts to those of 2": two["activations"] / one["activations"]}
    expect(grown, dict.fromkeys(grown, 2.0), atol=0.05)
    expect_bytes(two, weights=one["weights"])


@pytest.mark.parametrize("training", [True, False])
def test_counting_changes_no_weight_no_gradient_and_no_mode(training, rng):
    model = small_gpt(rng).train(training)
    before = [p.data.copy() for p in model.parameters()]
    model.tokens.weight.grad = np.ones_like(before[0])
    training_bytes(model, 2, 4)
    generation_bytes(model, 2, 4)
    for p, old in zip(model.parameters(), before, strict=True):
        expect(p.data, old)
        expect(None if p.grad is None else p.grad, np.ones_like(old) if p is model.tokens.weight else None)
    assert {m.training for m in model.modules()} == {training}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kv_heads", [None, 1, 2])
def test_a_cache_is_two_arrays_a_layer(kv_heads, dtype, rng):
    """Of 3 rows, 10 tokens, and 4 numbers for each of the heads that have keys of their own."""
    model = small_gpt(rng, dtype, layers=3, heads=4, num_kv_heads=kv_heads)
    parts = generation_bytes(model, 3, 10)
    numbers = 2 * 3 * 3 * 10 * (kv_heads or 4) * 4
    weights = sum(p.data.nbytes for p in model.parameters())
    expect_bytes(parts, cache=numbers * np.dtype(dtype).itemsize, weights=weights)
    caches = model.new_caches()
    with autograd.no_grad():
        model(np.zeros((3, 10), np.int64), caches=caches)
    made = sum(cache.nbytes for cache in caches)
    assert parts["cache"] <= made <= 2 * parts["cache"], (
        f"a cache of {parts['cache']} bytes was counted, and the model's own caches have {made}"
    )


def test_a_cache_is_no_longer_than_the_context(rng):
    model = small_gpt(rng, context=16)
    full, more = (generation_bytes(model, 1, length) for length in (16, 1000))
    expect_bytes(more, cache=full["cache"])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_tied_table_is_a_weight_with_two_names_and_no_buffer(positions, tied, rng):
    model = small_gpt(rng, positions=positions, tied=tied)
    weights = sum(p.data.nbytes for p in model.parameters())
    for extra in (0, 24):
        for of in (generation_bytes, training_bytes):
            parts = of(model, 1, 4)
            expect_bytes(parts, weights=weights, buffers=extra)
        model.seen = Buffer(np.zeros(6, np.float32))
