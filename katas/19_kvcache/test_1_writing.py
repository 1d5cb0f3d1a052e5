"""Level 1: reading in chunks, writing with caches that outlive a call, guesses that are checked, costs."""

import numpy as np
import pytest

from dojo.expect import expect, expect_error
from dojo.measuring import load_probes
from tinytorch.attention import KVCache, cache_bytes
from tinytorch.autograd import is_grad_enabled, no_grad
from tinytorch.generation import RepetitionPenalty, Temperature, TopK, generate
from tinytorch.kvcache import (
    BlockPool,
    PagedCache,
    Speculation,
    StaticCache,
    WindowCache,
    accept,
    bytes_per_token,
    cache_report,
    generate_cached,
    generation_cost,
    prefill,
    read_rest,
    speculative_gain,
    speculative_generate,
    with_caches,
)
from tinytorch.tensor import Tensor
from tinytorch.transformers import GPTConfig, TinyGPT

probes = load_probes(__file__)
Toy, by_hand = probes.Toy, probes.by_hand
ROW = [3, 1, 4, 1, 5, 2, 6]


def new(seed=0):
    return np.random.default_rng(seed)


def static(toy, length=64):
    return [StaticCache(length) for _ in range(toy.layers)]


# 19.13 read_rest


@pytest.mark.parametrize(
    ("chunk", "calls"),
    [(None, [7]), (1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (50, [7])],
)
def test_a_prompt_is_read_in_chunks(chunk, calls):
    toy, rows = Toy(), np.array([ROW, ROW[::-1]])
    caches = static(toy)
    with no_grad():
        got = read_rest(toy, rows, caches, chunk)
    expect(toy.fed, [(2, columns) for columns in calls])
    expect([cache.length for cache in caches], [7, 7])
    expect(got, np.array([toy.after(row) for row in rows]))


@pytest.mark.parametrize("chunk", [None, 2])
def test_what_the_caches_hold_is_not_read_again(chunk):
    toy, caches = Toy(), [KVCache(), KVCache()]
    prefill(toy, [ROW[:4]], caches)
    expect(prefill(toy, np.array([ROW]), caches, chunk), toy.after(ROW)[None])
    expect(toy.fed, [(1, 4), (1, 3)] if chunk is None else [(1, 4), (1, 2), (1, 1)])


def test_while_a_prompt_is_read_nothing_trains_or_is_recorded():
    toy = Toy()
    prefill(toy, Tensor(np.array([ROW])), static(toy), 3)
    expect(toy.states, [(False, False)] * 3)
    assert toy.training


def test_nothing_to_read_is_an_error_that_counts():
    toy, caches = Toy(), static(Toy())
    prefill(toy, [ROW], caches)
    for row in (ROW, ROW[:5]):
        with expect_error(ValueError, "7", str(len(row))):
            prefill(toy, [row], caches)
    for chunk in (0, -2):
        with expect_error(ValueError, str(chunk)):
            prefill(toy, [[*ROW, 1]], caches, chunk)
    expect(caches[0].length, 7)


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_a_real_model_reads_chunks_as_it_reads_the_whole(chunk, rng):
    model, ids = probes.small_gpt(rng), rng.integers(0, 31, (2, 17))
    with no_grad():
        whole = model(ids).data[:, -1]
    pool = BlockPool(30, 4)
    for make in (lambda: StaticCache(17), lambda: PagedCache(pool), lambda: WindowCache(17)):
        cached = with_caches(model, make)
        expect(prefill(cached, ids, cached.new_caches(), chunk), whole, rtol=1e-3)


@pytest.mark.parametrize("chunk", [1, 2, 5, None])
def test_a_window_reads_chunks_of_any_size_alike(chunk):
    """Also chunks that are larger than it."""
    toy = Toy()
    model, row = with_caches(toy, lambda: WindowCache(3, 1)), [*ROW, *ROW]
    expect(prefill(model, [row], model.new_caches(), chunk), toy.after(row, 3, 1)[None])


# 19.14 generate_cached


@pytest.mark.parametrize("chunk", [None, 2])
def test_what_is_written_is_what_kata_15_writes(chunk, rng):
    model, ids = probes.small_gpt(rng), rng.integers(0, 31, (3, 9))
    wanted = generate(model, ids, 40, use_cache=False)
    expect(generate_cached(model, ids, 40, chunk=chunk), wanted)
    expect(generate_cached(with_caches(model, lambda: StaticCache(48)), ids, 40, chunk=chunk), wanted)
    expect(generate_cached(model, Tensor(ids.astype(np.uint8)), 40, chunk=chunk), wanted)


@pytest.mark.parametrize("chunk", [None, 3])
def test_caches_outlive_a_call(chunk):
    toy = Toy()
    caches = static(toy)
    text = generate_cached(toy, [ROW], 5, caches, chunk=chunk)
    expect((text[0].tolist(), caches[0].length), (by_hand(toy, ROW, 5), 11))
    before = len(toy.fed)
    text = generate_cached(toy, text, 4, caches, chunk=chunk)
    expect((text[0].tolist(), caches[0].length), (by_hand(toy, ROW, 9), 15))
    expect(toy.fed[before:], [(1, 1)] * 4)
    more = np.concatenate([text, [[1, 2, 3, 4]]], axis=1)
    before = len(toy.fed)
    expect(generate_cached(toy, more, 1, caches, chunk=chunk)[0].tolist(), by_hand(toy, more[0], 1))
    expect(toy.fed[before:], [(1, 5)] if chunk is None else [(1, 3), (1, 2)])


def test_writing_nothing_reads_nothing():
    toy, caches = Toy(), static(Toy())
    got = generate_cached(toy, [ROW], 0, caches)
    expect((got, toy.fed, caches[0].length), (np.array([ROW]), [], 0))


def test_draws_and_processors_are_as_in_kata_15(rng):
    """The same generator gives the same tokens, and processors see all ids so far."""
    model, ids, seen = probes.small_gpt(rng), rng.integers(0, 31, (2, 6)), []

    def note(logits, ids):
        seen.append((logits.shape, ids.copy()))
        return logits

    chosen = [Temperature(3.0), note, RepetitionPenalty(1.5), TopK(9)]
    got = generate_cached(model, ids, 12, rng=new(4), processors=chosen, caches=model.new_caches())
    expect([shape for shape, _ in seen], [(2, 31)] * 12)
    for i, (_, so_far) in enumerate(seen):
        expect(so_far, got[:, : 6 + i])
    expect(got, generate(model, ids, 12, rng=new(4), processors=chosen))


@pytest.mark.parametrize("trains", [True, False])
def test_the_ids_that_were_given_stay_as_they_are_and_the_model_is_left_as_it_was(trains):
    toy, ids = Toy().train(trains), np.array([ROW])
    got = generate_cached(toy, ids, 3)
    expect((got.dtype, got.shape, ids[0].tolist()), (np.dtype(np.int64), (1, 10), ROW))
    expect(set(toy.states), {(False, False)})
    expect(toy.training, trains)
    got[...] = 0
    expect(ids[0].tolist(), ROW)


def test_what_read_rest_refuses_is_refused():
    toy, caches = Toy(), static(Toy())
    for chunk in (0, -2):
        with expect_error(ValueError, str(chunk)):
            generate_cached(toy, [ROW], 3, caches, chunk=chunk)
    prefill(toy, [ROW], caches)
    for row in (ROW, ROW[:5]):
        with expect_error(ValueError, "7", str(len(row))):
            generate_cached(toy, [row], 3, caches)
    expect([cache.length for cache in caches], [7, 7])


def test_ids_that_kata_15_refuses_are_refused():
    for wrong, error in (([3], ValueError), (np.zeros((1, 0), int), ValueError), ([[0.5]], TypeError)):
        with expect_error(error):
            generate_cached(Toy(), wrong, 2)
    toy = Toy(context=8)
    with expect_error(ValueError, "8"):
        generate_cached(toy, [ROW], 3)
    assert toy.training
    assert is_grad_enabled()


# 19.17 accept


def one_hot(*ids, size=4):
    return np.eye(size)[list(ids)]


@pytest.mark.parametrize(
    ("drafted", "wanted", "got"),
    [
        ([2, 0, 3], [2, 0, 3, 1], [2, 0, 3, 1]),
        ([2, 0, 3], [2, 0, 1, 1], [2, 0, 1]),
        ([2, 0, 3], [2, 1, 3, 1], [2, 1]),
        ([2, 0, 3], [0, 0, 3, 1], [0]),
        ([1], [1, 1], [1, 1]),
        ([], [3], [3]),
    ],
    ids=str,
)
def test_without_chance_a_guess_stands_if_it_is_the_targets_own(drafted, wanted, got):
    q = one_hot(*drafted) if drafted else np.zeros((0, 4))
    expect(accept(q, one_hot(*wanted), np.array(drafted, int), rng=new()), np.array(got))


def test_a_guess_that_the_target_likes_better_always_stands():
    q, p = np.array([[0.3, 0.7]]), np.array([[0.3, 0.7], [0.0, 1.0]])
    for seed in range(300):
        expect(accept(q, p, [seed % 2], rng=new(seed)), np.array([seed % 2, 1]))
        expect(accept([[0.9, 0.1]], p, [1], rng=new(seed)), np.array([1, 1]))


def test_a_guess_that_the_target_would_never_make_always_falls():
    q, p = np.array([[0.5, 0.5, 0.0]]), np.array([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    for seed in range(100):
        expect(accept(q, p, [0], rng=new(seed)), np.array([2]))  # which p has more of than q: 2 alone
    near = np.array([[1.0, 1e-6, 0.0]]), np.array([[1.0, 0.0, 1e-6], [1.0, 0.0, 0.0]])
    for seed in range(20):
        expect(accept(*near, [1], rng=new(seed)), np.array([2]))  # however little more that is


def test_a_guess_stands_as_often_as_it_may():
    """With 0.2 / 0.8, a quarter: of 4,000, 1,000 with a deviation of 27."""
    rng, q, p = new(1), np.array([[0.8, 0.2, 0.0]]), np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    got = [accept(q, p, [0], rng=rng) for _ in range(4000)]
    stood = [ids for ids in got if len(ids) == 2]
    assert abs(len(stood) - 1000) < 130, len(stood)
    expect({tuple(ids.tolist()) for ids in stood}, {(0, 2)})
    fell = np.array([ids[0] for ids in got if len(ids) == 1])
    assert abs((fell == 1).sum() - len(fell) / 2) < 160  # 0.3 to 0.3 of what p has more of
    expect(set(fell.tolist()), {1, 2})


def test_after_one_that_falls_the_rest_is_not_looked_at():
    q, p = one_hot(0, 1), np.array([[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    expect(accept(q, p, [0, 1], rng=new()), np.array([3]))


def test_inputs_of_any_kind_stay_as_they_are():
    q, p, drafted = one_hot(2, 0), one_hot(2, 1, 3), np.array([2, 0], np.int32)
    for some in ((q, p, drafted), (Tensor(q), Tensor(p), Tensor(drafted)), (q.tolist(), p.tolist(), [2, 0])):
        expect(accept(*some, rng=new()), np.array([2, 1]))
    expect(accept(q, one_hot(2, 0, 3), drafted, rng=new()), np.array([2, 0, 3], np.int64))
    expect((q, p, drafted), (one_hot(2, 0), one_hot(2, 1, 3), np.array([2, 0], np.int32)))


def test_where_rounding_leaves_nothing_the_target_itself_is_drawn_from():
    """Half of the guesses fall, and there is no id of which the target has more."""
    q, p = np.array([[1.0, 0.0]]), np.array([[0.5, 0.0], [0.0, 1.0]])
    got = {tuple(accept(q, p, [0], rng=new(seed)).tolist()) for seed in range(40)}
    expect(got, {(0,), (0, 1)})


def test_one_generator_gives_one_answer():
    q, p = new(0).dirichlet(np.ones(6), size=3), new(1).dirichlet(np.ones(6), size=4)
    once = [accept(q, p, [1, 2, 3], rng=new(seed)).tolist() for seed in range(40)]
    expect([accept(q, p, [1, 2, 3], rng=new(seed)).tolist() for seed in range(40)], once)
    assert len({tuple(ids) for ids in once}) > 3


@pytest.mark.parametrize(
    ("q", "p", "drafted"),
    [((2, 4), (2, 4), (2,)), ((2, 4), (3, 5), (2,)), ((1, 4), (3, 4), (2,)), ((4,), (2, 4), (1,))],
    ids=str,
)
def test_probabilities_that_do_not_fit_are_refused_by_their_shapes(q, p, drafted):
    with expect_error(ValueError, str(q), str(p), str(drafted)):
        accept(np.ones(q) / 4, np.ones(p) / 4, np.zeros(drafted, int), rng=new())


# 19.18 speculative_generate


@pytest.mark.parametrize("k", [1, 2, 4, 30])
@pytest.mark.parametrize("draft", ["itself", "another", "a lucky one"])
def test_without_chance_the_ids_are_those_of_the_target(draft, k):
    """Whoever guesses."""
    toy = Toy(seed=0)
    guesser = {"itself": Toy(seed=0), "another": Toy(seed=5), "a lucky one": Toy(seed=0)}[draft]
    if draft == "a lucky one":
        guesser.table = guesser.table + new(3).normal(size=(7, 7)) * 0.02
    got = speculative_generate(toy, guesser, [ROW], 40, k)
    assert isinstance(got, Speculation)
    expect((got.ids, got.ids.dtype), (np.array([by_hand(toy, ROW, 40)]), np.dtype(np.int64)))
    expect(got.calls, len(toy.fed))
    assert got.calls + got.accepted == 40  # each call gives one id of its own


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_real_models_with_any_caches_write_what_the_target_writes(positions, rng):
    target = probes.small_gpt(rng, positions=positions)
    small = probes.small_gpt(rng, layers=1, dim=8, positions=positions)
    near = probes.small_gpt(rng, positions=positions)
    for mine, theirs in zip(near.parameters(), target.parameters(), strict=True):
        mine.data = theirs.data + 0.01 * rng.normal(size=theirs.shape).astype(np.float32)
    ids, pool = rng.integers(0, 31, (1, 9)), BlockPool(100, 4)
    wanted = generate(target, ids, 50, use_cache=False)
    for draft in (small, near):
        expect(speculative_generate(target, draft, ids, 50, 3).ids, wanted)
        for make in (lambda: StaticCache(58), lambda: PagedCache(pool), lambda: WindowCache(58)):
            expect(speculative_generate(with_caches(target, make), draft, ids, 50, 3).ids, wanted)
    pages = with_caches(near, lambda: PagedCache(pool))
    expect(speculative_generate(with_caches(target, lambda: PagedCache(pool)), pages, ids, 50, 3).ids, wanted)
    expect(pool.free, 100)
    assert speculative_generate(target, near, ids, 50, 3).calls < 40


@pytest.mark.parametrize(
    ("count", "k", "calls", "drafted"),
    [(20, 4, 4, 16), (21, 4, 5, 16), (1, 4, 1, 0), (3, 9, 1, 2), (0, 3, 0, 0)],
)
def test_a_draft_that_is_always_right_gives_k_more_tokens_a_call(count, k, calls, drafted):
    """And it guesses no more than all but one of those that are wanted."""
    toy, draft = Toy(), Toy()
    got = speculative_generate(toy, draft, [ROW], count, k)
    expect((got.calls, got.drafted, got.accepted, len(draft.fed)), (calls, drafted, drafted, drafted))
    expect(got.ids, np.array([by_hand(toy, ROW, count)]))


def test_four_tokens_are_guessed_unless_told():
    got = speculative_generate(Toy(), Toy(), [ROW], 20)
    expect((got.calls, got.drafted), (4, 16))


def test_each_model_reads_a_token_once_or_again_if_it_was_cut():
    """The target reads what it checks, and the draft what it has not written itself."""
    toy, draft = Toy(), Toy()
    speculative_generate(toy, draft, [ROW], 15, 4)
    expect(toy.fed, [(1, 11), (1, 5), (1, 5)])
    expect(draft.fed, [(1, 7), (1, 1), (1, 1), (1, 1)] + 2 * [(1, 2), (1, 1), (1, 1), (1, 1)])


def test_a_draft_that_is_always_wrong_costs_one_call_a_token():
    class Wrong(Toy):
        def forward(self, *args, **kwargs):
            return Tensor(-super().forward(*args, **kwargs).data)

    toy, draft = Toy(), Wrong()
    got = speculative_generate(toy, draft, [ROW], 10, 3)
    expect((got.calls, got.drafted, got.accepted), (10, 3 * 7 + 2 + 1, 0))
    expect(got.ids, np.array([by_hand(toy, ROW, 10)]))
    expect(toy.fed, [(1, 10)] + 6 * [(1, 4)] + [(1, 3), (1, 2), (1, 1)])
    expect(draft.fed[:6], [(1, 7), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1)])


def test_each_model_reads_with_its_own_caches_if_they_can_be_cut():
    made = []

    def make():
        made.append(StaticCache(11))  # 12 ids, and the last is not read
        return made[-1]

    got = speculative_generate(with_caches(Toy(layers=3), make), Toy(layers=1), [ROW], 5, 2)
    expect(got.ids, np.array([by_hand(Toy(), ROW, 5)]))
    expect([cache.length for cache in made], [11] * 3)
    speculative_generate(Toy(), with_caches(Toy(layers=1), make), [ROW], 5, 2)
    expect(len(made), 4)


class Own:
    """A cache of another make, which can be cut."""

    def __init__(self):
        self.inside = StaticCache(64)

    @property
    def length(self):
        return self.inside.length

    def append(self, k, v):
        return self.inside.append(k, v)

    def positions(self, new=0):
        return self.inside.positions(new)

    def fit(self, mask, new):
        return self.inside.fit(mask, new)

    def select(self, rows):
        self.inside.select(rows)

    def truncate(self, length):
        self.inside.truncate(length)

    def reset(self):
        self.inside.reset()


def test_a_cache_that_can_be_cut_may_be_of_any_make():
    made = []

    def make():
        made.append(Own())
        return made[-1]

    got = speculative_generate(with_caches(Toy(), make), Toy(seed=3), [ROW], 5, 2)
    expect((got.ids, [cache.length for cache in made]), (np.array([by_hand(Toy(), ROW, 5)]), [11] * 2))


def test_processors_see_the_ids_before_each_token():
    """Of a draft, too: logits are those after the ids that come with them."""
    toy, near = Toy(), Toy()
    near.table = near.table + new(3).normal(size=(7, 7)) * 0.05
    chosen = [RepetitionPenalty(1.3), Temperature(0.7)]
    wanted = generate(toy, [ROW[:2]], 40, processors=chosen)
    for draft in (Toy(), near, Toy(seed=4)):
        seen = []

        def note(logits, ids, seen=seen, draft=draft):
            row = ids[0].tolist()
            assert any(abs(logits[0] - one.after(row)).max() < 1e-9 for one in (toy, draft)), row
            seen.append((logits.shape, row))
            return logits

        got = speculative_generate(toy, draft, [ROW[:2]], 40, 3, processors=[note, *chosen])
        expect(got.ids, wanted)
        assert {shape for shape, _ in seen} == {(1, 7)}
        assert all(2 <= len(ids) < 42 for _, ids in seen)
    perfect = speculative_generate(toy, Toy(), [ROW[:2]], 40, 3, processors=chosen)
    expect(perfect.accepted, perfect.drafted)


def test_with_chance_a_draft_like_the_target_always_stands():
    for seed in range(20):
        got = speculative_generate(Toy(), Toy(), [ROW], 16, 3, rng=new(seed), processors=[Temperature(4.0)])
        expect((got.calls, got.accepted, got.drafted), (4, 12, 12))


def test_one_generator_writes_one_text():
    def write(seed):
        options = {"rng": new(seed), "processors": [Temperature(5.0)]}
        return speculative_generate(Toy(), Toy(seed=3), [ROW], 20, 3, **options).ids[0].tolist()

    texts = [write(seed) for seed in range(5)]
    expect([write(seed) for seed in range(5)], texts)
    assert len({tuple(text) for text in texts}) == 5
    expect([text[:7] for text in texts], [ROW] * 5)


def test_neither_model_trains_or_records_and_both_are_left_as_they_were():
    ids = np.array([ROW])
    for trains in (True, False):
        toy, draft = Toy().train(trains), Toy(seed=2).train(not trains)
        speculative_generate(toy, draft, ids, 10, 3)
        expect(set(toy.states + draft.states), {(False, False)})
        expect((toy.training, draft.training), (trains, not trains))
    expect(ids[0].tolist(), ROW)


def test_rows_and_drafts_that_cannot_be_are_refused():
    for ids, k, words in (([ROW, ROW], 4, "(2, 7)"), ([ROW], 0, "0"), ([ROW], -1, "-1"), (ROW, 4, "(7,)")):
        with expect_error(ValueError, words):
            speculative_generate(Toy(), Toy(), ids, 4, k)
    with expect_error(TypeError, "float64"):
        speculative_generate(Toy(), Toy(), np.zeros((1, 2)), 4)


# 19.19 generation_cost, bytes_per_token, cache_report, speculative_gain


def test_costs_by_hand():
    """A prompt of 2 and 3 new: texts of 2, 3 and 4 tokens are read, or 4 tokens once."""
    expect(generation_cost(2, 3), {"tokens": 4, "pairs": 1 + 2 + 3 + 4})
    expect(generation_cost(2, 3, cached=False), {"tokens": 2 + 3 + 4, "pairs": 3 + 6 + 10})
    expect(generation_cost(2, 3, window=2), {"tokens": 4, "pairs": 1 + 2 + 2 + 2})
    expect(generation_cost(2, 3, False, 2), {"tokens": 9, "pairs": 3 + 5 + 7})
    expect(generation_cost(5, 1), generation_cost(5, 1, cached=False))
    for cached in (True, False):
        expect(generation_cost(9, 0, cached), {"tokens": 0, "pairs": 0})
        for count in generation_cost(2, 3, cached).values():
            assert isinstance(count, (int, np.integer)), count


@pytest.mark.parametrize("window", [None, 1, 4, 50])
@pytest.mark.parametrize(("prompt", "count"), [(1, 1), (1, 9), (7, 5), (3, 20)])
def test_costs_are_what_a_model_is_asked(prompt, count, window):
    row = (ROW * 2)[:prompt]
    make = (lambda: StaticCache(40)) if window is None else (lambda: WindowCache(window))
    toy = Toy()
    generate_cached(with_caches(toy, make), [row], count)
    cost = {"tokens": sum(columns for _, columns in toy.fed), "pairs": toy.pairs}
    expect(generation_cost(prompt, count, window=window), cost)
    if window is None:
        toy = Toy()
        generate(toy, [row], count, use_cache=False)
        cost = {"tokens": sum(columns for _, columns in toy.fed), "pairs": toy.pairs}
        expect(generation_cost(prompt, count, cached=False), cost)


@pytest.mark.parametrize(("prompt", "count"), [(0, 5), (-1, 2), (3, -1)])
def test_costs_of_nothing_are_refused(prompt, count):
    with expect_error(ValueError, str(prompt), str(count)):
        generation_cost(prompt, count)


def test_bytes_of_a_token_by_hand():
    """Two of each, in each layer: GPT-2's 12 layers of 768, and heads that share keys."""
    expect(bytes_per_token(GPTConfig(50257, 1024, 768, 12, 12)), 73_728)
    expect(bytes_per_token(GPTConfig(50257, 1024, 768, 12, 12), 2), 36_864)
    config = GPTConfig(9, 16, 24, 3, 4, 2)
    expect(bytes_per_token(config, 8), 2 * 3 * 12 * 8)
    assert isinstance(bytes_per_token(config, 8), (int, np.integer))
    expect(bytes_per_token(config, 8), cache_bytes(1, 2, 1, 6, layers=3, itemsize=8))


def test_bytes_of_a_token_are_what_a_model_leaves(rng):
    for kv_heads in (1, 2, 4):
        model = probes.small_gpt(rng, layers=3, kv_heads=kv_heads)
        cached = with_caches(model, lambda: StaticCache(10))
        caches = cached.new_caches()
        prefill(cached, rng.integers(0, 31, (2, 7)), caches)
        each = bytes_per_token(model.config)
        expect(cache_report(caches), {"used": 2 * 7 * each, "reserved": 2 * 10 * each})


def test_a_report_of_each_kind(rng):
    """13 positions of 2 rows, of 3 heads with 4 + 5 numbers of 8 bytes."""
    k, v = rng.normal(size=(2, 3, 13, 4)), rng.normal(size=(2, 3, 13, 5))
    each = 3 * (4 + 5) * 8
    for cache, used, reserved in (
        (StaticCache(20), 26, 40),
        (PagedCache(BlockPool(20, 4)), 26, 32),
        (PagedCache(BlockPool(60, 13)), 26, 26),
    ):
        expect(cache_report([cache]), {"used": 0, "reserved": 0})
        cache.append(k, v)
        expect(cache_report([cache]), {"used": used * each, "reserved": reserved * each})
        expect(cache_report(iter([cache, cache])), {"used": 2 * used * each, "reserved": 2 * reserved * each})
    pool = BlockPool(20, 4)
    first = PagedCache(pool)
    first.append(k, v)
    expect(cache_report([first, PagedCache(pool)]), {"used": 26 * each, "reserved": 32 * each})
    window = WindowCache(6, 2)
    window.append(k, v)
    expect(cache_report([window])["used"], 16 * each)
    expect(cache_report([window])["reserved"], window.nbytes)


def test_rows_that_share_reserve_less_than_they_use(rng):
    k = rng.normal(size=(1, 1, 8, 2))
    cache = PagedCache(BlockPool(20, 4))
    cache.write(k, k)
    cache.select([0] * 5)
    expect(cache_report([cache]), {"used": 5 * 8 * 32, "reserved": 8 * 32})
    cache.select([])
    expect(cache_report([cache, StaticCache(3)]), {"used": 0, "reserved": 0})
    expect(cache_report([]), {"used": 0, "reserved": 0})


def test_gains_by_hand():
    expect(speculative_gain(0.5, 2), 1.75)
    expect(speculative_gain(0.5, 2, cost=0.25), 1.75 / 1.5)
    expect(speculative_gain(1.0, 4), 5.0)
    expect(speculative_gain(1.0, 4, 1.0), 1.0)
    expect(speculative_gain(0.0, 4), 1.0)
    expect(speculative_gain(0.8, 5), (1 - 0.8**6) / (1 - 0.8))
    expect(speculative_gain(0.7, 0), 1.0)
    for wrong in (-0.1, 1.5, float("nan")):
        with expect_error(ValueError, str(wrong)):
            speculative_gain(wrong, 3)


def test_a_cache_turns_a_square_into_a_line():
    """Ten times the text: ten times the tokens, or a hundred times."""
    small, large = (generation_cost(1, n)["tokens"] for n in (100, 1000))
    expect(large / small, 10.0)
    small, large = (generation_cost(1, n, cached=False)["tokens"] for n in (100, 1000))
    expect(large / small, 1000 * 1001 / (100 * 101))


def test_a_model_of_one_layer_and_a_text_of_one_token(rng):
    model = TinyGPT(GPTConfig(5, 4, 4, 1, 1), rng=rng)
    wanted = generate(model, [[2]], 3, use_cache=False)
    for make in (lambda: StaticCache(3), lambda: WindowCache(3), lambda: PagedCache(BlockPool(3, 1))):
        expect(generate_cached(with_caches(model, make), [[2]], 3), wanted)
    expect(speculative_generate(model, model, [[2]], 3, 1).ids, wanted)
