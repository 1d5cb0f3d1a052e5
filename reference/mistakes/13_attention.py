"""Believable wrong solutions of kata 13.  Each takes the reference and spoils one thing in it."""

import functools
import math

import numpy as np

from dojo.mistakes import caught_by, rewritten


def _forward(m, forward):
    """Give the fused operation another forward pass; its name and arguments stay."""
    m.fused_attention.forward = functools.wraps(m.fused_attention.forward)(forward)


def _inputs(m, change):
    """Call both attentions with q, k, v and their parameters changed."""
    right, composed = m.fused_attention.forward, m.scaled_dot_product_attention

    def forward(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
        q, k, v, mask, is_causal, scale = change(q, k, v, mask, is_causal, scale)
        return right(q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=chunk)

    _forward(m, forward)
    m.scaled_dot_product_attention = lambda q, k, v, mask=None, is_causal=False, scale=None: composed(
        *change(q, k, v, mask, is_causal, scale)
    )


def _gradients(m, change):
    """Change the three gradients that the fused operation's rule gives."""
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        gradients = right(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)
        return change(*gradients, q, k, v)

    m.fused_attention.gradient(pull)


def _whole(q, k, v, mask, is_causal, scale, m):
    """Scores of all pairs and their weights, in plain numpy."""
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, group, axis=1) for x in (k, v))
    scores = q @ k.swapaxes(2, 3) * q.dtype.type(q.shape[3] ** -0.5 if scale is None else scale)
    allowed = m.allowed_pairs(mask, is_causal, scores.shape)
    if allowed is not None:
        scores = np.where(allowed, scores, q.dtype.type(-np.inf))
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    shares = np.exp(scores - np.where(np.isneginf(top), 0, top).astype(q.dtype))
    total = shares.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        log = (top + np.log(total))[..., 0]
    return shares / np.where(total == 0, 1, total), v, log


# 13.1, 13.2, 13.3


@caught_by(1)
def a_causal_mask_hides_the_position_itself(m):
    m.causal_mask = lambda queries, keys=None: np.tri(
        queries, keys or queries, (keys or queries) - queries - 1, dtype=bool
    )


@caught_by(1)
def the_first_query_stands_at_the_first_key(m):
    right = m.causal_mask

    def mask(queries, keys=None):
        right(queries, keys)
        return np.tri(queries, keys, dtype=bool)

    m.causal_mask = mask


@caught_by(1)
def a_causal_mask_is_true_where_it_hides(m):
    right = m.causal_mask
    m.causal_mask = lambda queries, keys=None: ~right(queries, keys)


@caught_by(1)
def a_causal_mask_is_added_to_scores(m):
    right = m.causal_mask
    m.causal_mask = lambda queries, keys=None: np.where(right(queries, keys), 0, -np.inf)


@caught_by(1)
def more_queries_than_keys_make_rows_of_nothing(m):
    m.causal_mask = lambda queries, keys=None: np.tri(
        queries, queries if keys is None else keys, (queries if keys is None else keys) - queries, dtype=bool
    )


@caught_by(1)
def padding_is_where_the_mask_is_true(m):
    right = m.padding_mask
    m.padding_mask = lambda lengths, length, side="right": ~right(lengths, length, side)


@caught_by(1)
def padding_counts_one_token_too_many(m):
    right = m.padding_mask

    def mask(lengths, length, side="right"):
        right(lengths, length, side)
        return np.arange(length) <= np.asarray(lengths)[:, None, None, None]

    m.padding_mask = mask


@caught_by(1)
def padding_on_the_left_is_padding_on_the_right(m):
    right = m.padding_mask

    def mask(lengths, length, side="right"):
        right(lengths, length, side)
        return right(lengths, length)

    m.padding_mask = mask


@caught_by(1)
def a_padding_mask_has_no_axes_for_heads_and_queries(m):
    right = m.padding_mask
    m.padding_mask = lambda lengths, length, side="right": right(lengths, length, side)[:, 0, 0]


@caught_by(1)
def a_length_that_does_not_fit_is_clipped(m):
    right = m.padding_mask
    m.padding_mask = lambda lengths, length, side="right": right(np.clip(lengths, 0, length), length, side)


@caught_by(1)
def any_side_is_the_right(m):
    right = m.padding_mask
    m.padding_mask = lambda lengths, length, side="right": right(
        lengths, length, "left" if side == "left" else "right"
    )


@caught_by(1)
def what_one_of_two_masks_allows_is_allowed(m):
    right = m.allowed_pairs

    def allowed(mask, is_causal, shape):
        both = right(mask, is_causal, shape)
        if mask is None or not is_causal:
            return both
        return m.as_array(mask) | m.causal_mask(*shape[-2:])

    m.allowed_pairs = allowed


@caught_by(1)
def a_mask_makes_attention_forget_that_it_is_causal(m):
    right = m.allowed_pairs
    m.allowed_pairs = lambda mask, is_causal, shape: right(mask, is_causal and mask is None, shape)


@caught_by(1)
def masks_are_stretched_to_all_scores(m):
    right = m.allowed_pairs

    def allowed(mask, is_causal, shape):
        found = right(mask, is_causal, shape)
        return None if found is None else np.broadcast_to(found, shape)

    m.allowed_pairs = allowed


@caught_by(1)
def a_mask_is_changed_in_place(m):
    right = m.allowed_pairs

    def allowed(mask, is_causal, shape):
        found = right(mask, is_causal, shape)
        if isinstance(mask, np.ndarray) and is_causal:
            mask &= False
        return found

    m.allowed_pairs = allowed


@caught_by(1)
def numbers_are_taken_for_a_mask(m):
    right = m.allowed_pairs
    m.allowed_pairs = lambda mask, is_causal, shape: right(
        None if mask is None else m.as_array(mask).astype(bool), is_causal, shape
    )


@caught_by(1)
def a_mask_may_make_scores_larger(m):
    """`mask & causal` and `where` broadcast whatever can be broadcast."""

    def allowed(mask, is_causal, shape):
        causal = m.causal_mask(*shape[-2:]) if is_causal else None
        if mask is None:
            return causal
        mask = m.as_array(mask)
        if mask.dtype != bool:
            raise TypeError(f"bools, not {mask.dtype}")
        try:
            np.broadcast_shapes(mask.shape, shape)
        except ValueError:
            raise ValueError(f"{mask.shape} and {shape}") from None
        return mask if causal is None else mask & causal

    m.allowed_pairs = allowed


# 13.4, 13.5


@caught_by(1)
def heads_get_pieces_of_the_text(m):
    right = m.split_heads

    def split(x, heads):
        shape = right(x, heads).shape
        return m.reshape(x, shape=shape)

    m.split_heads = split


@caught_by(1)
def heads_get_every_nth_number(m):
    right = m.split_heads

    def split(x, heads):
        batch, heads, length, width = right(x, heads).shape
        return m.reshape(x, shape=(batch, length, width, heads)).permute(0, 3, 1, 2)

    m.split_heads = split


@caught_by(1)
def splitting_copies(m):
    right = m.split_heads
    m.split_heads = lambda x, heads: right(m.Tensor(m.as_array(x).copy()), heads)


@caught_by(1)
def heads_are_merged_without_a_transpose(m):
    def merge(x):
        batch, heads, length, width = x.shape
        return m.reshape(x, shape=(batch, length, heads * width))

    m.merge_heads = merge


@caught_by(1)
def heads_that_do_not_divide_lose_numbers(m):
    right = m.split_heads

    def split(x, heads):
        width = x.shape[-1] // max(heads, 1)
        return right(x[..., : width * heads], heads)

    m.split_heads = split


# 13.6, 13.7


@caught_by(1)
def scores_are_divided_by_the_width_not_its_root(m):
    _inputs(
        m,
        lambda q, k, v, mask, causal, scale: (
            q, k, v, mask, causal, 1 / max(q.shape[3], 1) if scale is None else scale,
        ),
    )  # fmt: skip


@caught_by(1)
def scores_are_not_scaled(m):
    right = m.attention_weights
    m.attention_weights = lambda q, k, mask=None, is_causal=False, scale=None: right(
        q, k, mask, is_causal, 1.0 if scale is None else scale
    )


@caught_by(1)
def a_scale_of_zero_is_no_scale(m):
    right = m.attention_weights
    m.attention_weights = lambda q, k, mask=None, is_causal=False, scale=None: right(
        q, k, mask, is_causal, scale or None
    )


@caught_by(1)
def the_scale_divides(m):
    right = m.attention_weights
    m.attention_weights = lambda q, k, mask=None, is_causal=False, scale=None: right(
        q, k, mask, is_causal, None if scale is None else 1 / scale if scale else 0.0
    )


@caught_by(1)
def softmax_goes_over_the_queries(m):
    right = m.softmax
    m.softmax = lambda x, axis=-1: right(x, axis=-2)


@caught_by(1)
def a_row_of_nothing_shares_evenly(m):
    def weights(q, k, mask=None, is_causal=False, scale=None):
        m.check_heads(q, k)
        k = np.repeat(m.as_array(k), q.shape[1] // k.shape[1], axis=1)
        scores = m.matmul(m.mul(q, q.shape[3] ** -0.5 if scale is None else scale), k.swapaxes(2, 3))
        allowed = m.allowed_pairs(mask, is_causal, scores.shape)
        return m.softmax(scores if allowed is None else m.where(allowed, scores, -1e9))

    m.attention_weights = weights


@caught_by(1)
def a_row_of_nothing_is_nan(m):
    right = m.attention_weights

    def weights(q, k, mask=None, is_causal=False, scale=None):
        found = right(q, k, mask, is_causal, scale)
        return m.where(m.as_array(found).sum(axis=-1, keepdims=True) == 0, np.nan, found) + 0.0

    m.attention_weights = weights


@caught_by(1)
def what_is_hidden_is_taken_out_after_the_softmax(m):
    right = m.attention_weights

    def weights(q, k, mask=None, is_causal=False, scale=None):
        found = right(q, k, None, False, scale)
        allowed = m.allowed_pairs(mask, is_causal, found.shape)
        return found if allowed is None else m.where(allowed, found, 0.0)

    m.attention_weights = weights


@caught_by(1)
def heads_share_keys_in_turns_not_with_neighbours(m):
    def change(q, k, v, mask, causal, scale):
        group = q.shape[1] // k.shape[1] if k.ndim == 4 and k.shape[1] else 1
        if group < 2 or q.shape[1] % k.shape[1]:
            return q, k, v, mask, causal, scale
        order = [h % k.shape[1] for h in range(q.shape[1])]
        return q, k[:, order], v[:, order], mask, causal, scale

    _inputs(m, change)


@caught_by(1)
def values_must_be_as_wide_as_keys(m):
    right = m.scaled_dot_product_attention

    def attend(q, k, v, *rest, **params):
        if v.shape[-1:] != k.shape[-1:]:
            raise ValueError(f"{k.shape} and {v.shape}")
        return right(q, k, v, *rest, **params)

    m.scaled_dot_product_attention = attend


@caught_by(1)
def attention_works_in_float64(m):
    right = m.attention_weights
    m.attention_weights = lambda q, k, *rest, **params: m.mul(
        right(q, k, *rest, **params), np.ones((1, 1), np.float64)
    )


@caught_by(1)
def shapes_are_left_to_numpy(m):
    m.check_heads = lambda q, k, v=None: None


@caught_by(1)
def queries_are_scaled_in_place(m):
    right = m.attention_weights

    def weights(q, k, mask=None, is_causal=False, scale=None):
        found = right(q, k, mask, is_causal, scale)
        m.as_array(q)[...] *= 0.5
        return found

    m.attention_weights = weights


@caught_by(3)
def the_scores_are_scaled_not_the_queries(m):
    right = m.attention_weights

    def weights(q, k, mask=None, is_causal=False, scale=None):
        m.check_heads(q, k)
        batch, heads, queries, width = q.shape
        kv, keys = k.shape[1:3]
        rows = m.reshape(q, shape=(batch, kv, heads // kv * queries, width))
        scores = m.matmul(rows, m.transpose(k, axis0=-1, axis1=-2))
        scores = m.mul(m.reshape(scores, shape=(batch, heads, queries, keys)), scale or width**-0.5)
        allowed = m.allowed_pairs(mask, is_causal, scores.shape)
        if scale == 0 or (allowed is not None and not allowed.any(axis=-1).all()):
            return right(q, k, mask, is_causal, scale)
        return m.softmax(scores if allowed is None else m.where(allowed, scores, -np.inf))

    m.attention_weights = weights


@caught_by(3)
def keys_are_repeated_for_each_head(m):
    right = m.scaled_dot_product_attention

    def repeat(x, group):
        order = np.repeat(np.arange(x.shape[1]), group)
        return (x if isinstance(x, m.Tensor) else m.Tensor(x))[:, order]

    def attend_repeated(q, k, v, *rest, **params):
        m.check_heads(q, k, v)
        group = q.shape[1] // k.shape[1]
        return right(q, repeat(k, group), repeat(v, group), *rest, **params)

    m.scaled_dot_product_attention = attend_repeated


@caught_by(4)
def heads_are_gone_through_one_by_one(m):
    right = m.scaled_dot_product_attention
    from tinytorch.tensor import concatenate

    def attend(q, k, v, mask=None, is_causal=False, scale=None):
        m.check_heads(q, k, v)
        if mask is not None or q.shape[1] != k.shape[1] or 0 in q.shape:
            return right(q, k, v, mask, is_causal, scale)
        q, k, v = (x if isinstance(x, m.Tensor) else m.Tensor(x) for x in (q, k, v))
        texts = []
        for b in range(q.shape[0]):
            heads = [
                right(*(x[b : b + 1, h : h + 1] for x in (q, k, v)), None, is_causal, scale)
                for h in range(q.shape[1])
            ]
            texts.append(concatenate(heads, axis=1))
        return concatenate(texts, axis=0)

    m.scaled_dot_product_attention = attend


# 13.8 absorb


def _absorb(
    m, higher_of=None, shrink_of=None, ground_of=None, total_shrinks=True, mix_shrinks=True, copies=False
):
    def absorb(scores, values, top, total, mix):
        higher = np.maximum(top, scores.max(axis=-1, keepdims=True, initial=-np.inf))
        if higher_of is not None:
            higher = higher_of(top, scores, higher)
        ground = np.where(np.isneginf(higher), 0, higher) if ground_of is None else ground_of(higher)
        shrink = np.exp(top - ground) if shrink_of is None else shrink_of(top, ground)
        if copies:
            shares = np.exp(scores - ground)
            scores[...] = shares
        else:
            scores -= ground
            shares = np.exp(scores, out=scores)
        if total_shrinks:
            total *= shrink
        total += shares.sum(axis=-1, keepdims=True)
        if mix_shrinks:
            mix *= shrink
        mix += shares @ values
        top[...] = higher

    m.absorb = absorb


@caught_by(1)
def the_running_maximum_starts_at_zero(m):
    _absorb(m, higher_of=lambda top, scores, higher: np.maximum(higher, 0))


@caught_by(1)
def the_top_is_that_of_the_last_block(m):
    _absorb(m, higher_of=lambda top, scores, higher: scores.max(axis=-1, keepdims=True, initial=-np.inf))


@caught_by(1)
def what_was_summed_does_not_shrink(m):
    _absorb(m, total_shrinks=False, mix_shrinks=False)


@caught_by(1)
def only_the_sum_of_weights_shrinks(m):
    _absorb(m, mix_shrinks=False)


@caught_by(1)
def what_was_summed_grows(m):
    _absorb(m, shrink_of=lambda top, ground: np.exp(np.where(np.isneginf(top), -np.inf, ground - top)))


@caught_by(1)
def nothing_seen_yet_makes_nan(m):
    _absorb(m, ground_of=lambda higher: higher)


@caught_by(1)
def the_top_of_one_row_is_that_of_all(m):
    _absorb(m, higher_of=lambda top, scores, higher: np.full_like(higher, higher.max(initial=-np.inf)))


@caught_by(1)
def absorb_returns_what_it_should_have_written(m):
    right = m.absorb

    def absorb(scores, values, top, total, mix):
        top, total, mix = top.copy(), total.copy(), mix.copy()
        right(scores, values, top, total, mix)
        return top, total, mix

    m.absorb = absorb


@caught_by(1)
def scores_are_not_subtracted_from(m):
    """Right for small scores."""

    def absorb(scores, values, top, total, mix):
        with np.errstate(over="ignore", invalid="ignore"):
            np.exp(scores, out=scores)
            total += scores.sum(axis=-1, keepdims=True)
            mix += scores @ values
            top[...] = 0

    m.absorb = absorb


@caught_by(3)
def weights_are_another_array(m):
    _absorb(m, copies=True)


@caught_by(4)
def rows_are_absorbed_one_by_one(m):
    right = m.absorb

    def absorb(scores, values, top, total, mix):
        if scores.ndim != 2 or scores.shape[0] < 8:
            return right(scores, values, top, total, mix)
        for i in range(len(scores)):
            right(*(x[i : i + 1] if x is not values else x for x in (scores, values, top, total, mix)))
        return None

    m.absorb = absorb


# 13.9 tiles


@caught_by(1)
def the_last_block_is_left_out(m):
    def tiles(queries, keys, rows, columns, is_causal=False):
        if min(rows, columns) < 1 or (is_causal and keys < queries):
            raise ValueError(f"{rows} {columns} {queries} {keys}")
        for start in range(0, queries, rows):
            stop = min(start + rows, queries)
            end = keys - queries + stop if is_causal else keys
            yield (
                slice(start, stop),
                [slice(i, i + columns) for i in range(0, end - columns + 1, columns)]
                or [slice(0, end)] * bool(end),
            )

    m.tiles = tiles


@caught_by(1)
def blocks_reach_over_the_end(m):
    right = m.tiles

    def tiles(queries, keys, rows, columns, is_causal=False):
        for some, ranges in right(queries, keys, rows, columns, is_causal):
            yield slice(some.start, some.start + rows), ranges

    m.tiles = tiles


@caught_by(1)
def the_future_ends_at_the_first_query_of_a_block(m):
    right = m.tiles

    def tiles(queries, keys, rows, columns, is_causal=False):
        for some, ranges in right(queries, keys, rows, columns, is_causal):
            end = keys - queries + some.start + 1 if is_causal else keys
            yield some, [slice(r.start, min(r.stop, end)) for r in ranges if r.start < end]

    m.tiles = tiles


@caught_by(1)
def queries_before_a_cache_are_forgotten(m):
    right = m.tiles

    def tiles(queries, keys, rows, columns, is_causal=False):
        for some, ranges in right(queries, keys, rows, columns, is_causal):
            end = some.stop if is_causal else keys
            yield some, [slice(r.start, min(r.stop, end)) for r in ranges if r.start < end]

    m.tiles = tiles


@caught_by(1)
def blocks_of_the_future_are_handed_out_too(m):
    right = m.tiles

    def tiles(queries, keys, rows, columns, is_causal=False):
        list(right(0, 0, rows, columns)) if not is_causal else list(right(queries, keys, rows, columns, True))
        yield from right(queries, keys, rows, columns)

    m.tiles = tiles


@caught_by(1)
def empty_blocks_go_on_without_a_word(m):
    right = m.tiles
    m.tiles = lambda queries, keys, rows, columns, is_causal=False: right(
        queries, keys, max(rows, 1), max(columns, 1), is_causal
    )


# 13.10 fused_attention


@caught_by(3)
def the_fused_operation_has_all_scores_in_memory(m):
    right = m.fused_attention.forward

    def forward(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
        out, log = right(q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=chunk)
        _whole(q, k, v, mask, is_causal, scale, m)
        return out, log

    _forward(m, forward)


@caught_by(3)
def a_causal_mask_of_all_pairs_is_made(m):
    right = m.fused_attention.forward

    def forward(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
        if is_causal:
            m.check_heads(q, k, v)
            mask = m.allowed_pairs(mask, True, (*q.shape[:3], k.shape[2]))
        return right(q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=chunk)

    _forward(m, forward)


@caught_by(3)
def a_mask_is_copied_for_all_pairs(m):
    right = m.prepare

    def prepare(q, k, mask, is_causal, scale):
        scale, mask, ahead = right(q, k, mask, is_causal, scale)
        return scale, None if mask is None else np.ascontiguousarray(mask), ahead

    m.prepare = prepare


@caught_by(3)
def a_chunk_is_not_heeded(m):
    right = m.fused_attention.forward

    def forward(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
        if chunk is not None and chunk < 1:
            raise ValueError(f"{chunk}")
        return right(q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=chunk and 1 << 20)

    _forward(m, forward)


@caught_by(1)
def a_chunk_of_nothing_is_everything(m):
    right = m.fused_attention.forward

    def forward(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
        chunk = chunk if chunk and chunk > 0 else None
        return right(q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=chunk)

    _forward(m, forward)


@caught_by(1)
def the_sum_is_saved_not_its_logarithm(m):
    right = m.fused_attention.forward
    back = m.fused_attention.pull

    def forward(q, k, v, **params):
        out, log = right(q, k, v, **params)
        return out, np.exp(log)

    def pull(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        with np.errstate(divide="ignore"):
            return back(grad, q, k, v, out, np.log(logsumexp), mask, is_causal, scale, chunk)

    _forward(m, forward)
    m.fused_attention.gradient(pull)


@caught_by(1)
def rows_of_nothing_divide_by_zero(m):
    right = m.fused_attention.forward

    def forward(q, k, v, **params):
        out, log = right(q, k, v, **params)
        out[np.isneginf(log)] = np.nan
        return out, log

    _forward(m, forward)


@caught_by(1)
def the_result_lies_head_by_head(m):
    right = m.fused_attention.forward

    def forward(q, k, v, **params):
        out, log = right(q, k, v, **params)
        return np.ascontiguousarray(out), log

    _forward(m, forward)


@caught_by(1)
def a_fused_scale_of_zero_is_no_scale(m):
    right = m.prepare
    m.prepare = lambda q, k, mask, is_causal, scale: right(q, k, mask, is_causal, scale or None)


@caught_by(1)
def a_numpy_scale_makes_it_float64(m):
    right = m.fused_attention.forward

    def forward(q, k, v, *, scale=None, **params):
        out, log = right(q, k, v, scale=scale, **params)
        return (out.astype(np.float64) if isinstance(scale, np.floating) else out), log

    _forward(m, forward)


@caught_by(4)
def the_future_is_computed_and_hidden(m):
    right = m.tiles

    def whole(queries, keys, rows, columns, is_causal=False):
        list(right(queries if is_causal else 0, keys, rows, columns, is_causal))
        return right(queries, keys, rows, columns)

    walk = m.walk

    def wander(q, k, is_causal, chunk):
        m.tiles = whole
        try:
            yield from walk(q, k, is_causal, chunk)
        finally:
            m.tiles = right

    m.walk = wander


@caught_by(4)
def queries_are_gone_through_one_by_one(m):
    right = m.walk

    def walk(q, k, is_causal, chunk):
        if q.shape[3] > 256:  # memory is not what is wrong with it, and long texts would take minutes
            yield from right(q, k, is_causal, chunk)
            return
        for here, some in right(q, k, is_causal, chunk):
            for i in range(here[-1].start, here[-1].stop):
                end = k.shape[2] - q.shape[3] + i + 1 if is_causal else k.shape[2]
                row = [(*part, slice(t.start, min(t.stop, end))) for *part, t in some if t.start < end]
                yield (*here[:-1], slice(i, i + 1)), row

    m.walk = walk


@caught_by(4)
def small_heads_go_one_by_one(m):
    right = m.walk

    def walk(q, k, is_causal, chunk):
        for here, some in right(q, k, is_causal, chunk):
            texts = range(*here[0].indices(q.shape[0]))
            heads = range(*here[1].indices(q.shape[1]))
            for b in texts:
                for h in heads:
                    part = slice(b, b + 1), slice(h, h + 1)
                    yield (*part, *here[2:]), [(*part, t[-1]) for t in some]

    m.walk = walk


# 13.11 fused_attention_back


@caught_by(2)
def the_gradient_of_the_queries_is_not_scaled(m):
    _gradients(m, lambda dq, dk, dv, q, k, v: (dq * q.shape[3] ** 0.5, dk, dv))


@caught_by(2)
def the_gradient_of_the_keys_is_scaled_twice(m):
    _gradients(m, lambda dq, dk, dv, q, k, v: (dq, dk * q.shape[3] ** -0.5, dv))


@caught_by(2)
def only_one_head_teaches_the_keys_that_several_share(m):
    _gradients(m, lambda dq, dk, dv, q, k, v: (dq, dk * (k.shape[1] / q.shape[1]), dv))


@caught_by(2)
def the_gradients_come_in_another_order(m):
    _gradients(
        m,
        lambda dq, dk, dv, q, k, v: (
            dq,
            dk if dk.shape != dv.shape else dv,
            dk if dk.shape == dv.shape else dv,
        ),
    )


@caught_by(2)
def gradients_are_float64(m):
    _gradients(m, lambda dq, dk, dv, q, k, v: tuple(x.astype(np.float64) for x in (dq, dk, dv)))


@caught_by(2)
def softmaxs_rule_forgets_the_other_weights(m):
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        return right(grad, q, k, v, np.zeros_like(out), logsumexp, mask, is_causal, scale, chunk)

    m.fused_attention.gradient(pull)


@caught_by(2)
def the_way_back_forgets_the_mask(m):
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, is_causal, scale, chunk):
        return right(grad, q, k, v, out, logsumexp, None, is_causal, scale, chunk)

    m.fused_attention.gradient(pull)


@caught_by(2)
def the_way_back_sees_the_future(m):
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, mask, scale, chunk):
        with np.errstate(over="ignore"):
            return right(grad, q, k, v, out, logsumexp, mask, False, scale, chunk)

    m.fused_attention.gradient(pull)


@caught_by(2)
def the_way_back_forgets_the_scale(m):
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, mask, is_causal, chunk):
        return right(grad, q, k, v, out, logsumexp, mask, is_causal, None, chunk)

    m.fused_attention.gradient(pull)


@caught_by(2)
def rows_of_nothing_have_gradients_of_nan(m):
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        dq, dk, dv = right(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)
        dq[np.isneginf(logsumexp)] = np.nan
        return dq, dk, dv

    m.fused_attention.gradient(pull)


@caught_by(2)
def the_gradient_that_comes_in_is_changed(m):
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        gradients = right(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)
        if grad.flags.writeable:
            grad *= 2
        return gradients

    m.fused_attention.gradient(pull)


@caught_by(2)
def the_last_block_of_keys_alone_teaches_the_queries(m):
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        dq, dk, dv = right(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)
        if chunk is not None and k.shape[2] > chunk:
            start = (k.shape[2] - 1) // chunk * chunk
            hidden = np.zeros(k.shape[2], bool)
            hidden[start:] = True
            both = m.allowed_pairs(mask, is_causal, (*q.shape[:3], k.shape[2]))
            both = hidden if both is None else both & hidden
            dq = right(grad, q, k, v, out, logsumexp, both, False, scale, chunk)[0]
        return dq, dk, dv

    m.fused_attention.gradient(pull)


@caught_by(3)
def the_weights_are_kept(m):
    right, back = m.fused_attention.forward, m.fused_attention.pull

    def fused_attention(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
        out, log = right(q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=chunk)
        return out, log, np.concatenate([log] * 64)

    def pull(grad, q, k, v, out, logsumexp, weights, mask, is_causal, scale, chunk):
        return back(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)

    fused_attention.__name__ = "fused_attention"
    m.fused_attention = m.op(saves=["logsumexp", "weights"])(fused_attention)
    m.fused_attention.gradient(pull)


@caught_by(3)
def the_way_back_has_all_weights_in_memory(m):
    right = m.fused_attention.pull

    def pull(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        gradients = right(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)
        _whole(q, k, v, mask, is_causal, scale, m)
        return gradients

    m.fused_attention.gradient(pull)


# 13.12, 13.13


def _append(m, change):
    right = m.KVCache.append
    m.KVCache.append = lambda self, k, v: change(right, self, k, v)


@caught_by(1)
def a_cache_hands_out_its_spare_memory_too(m):
    def append(right, self, k, v):
        right(self, k, v)
        return tuple(self._buffers)

    _append(m, append)


@caught_by(1)
def a_cache_keeps_the_array_it_was_given(m):
    def append(right, self, k, v):
        first = not self.length
        views = right(self, k, v)
        if first:
            self._buffers = [np.asarray(m.as_array(x)) for x in (k, v)]
            return tuple(self._buffers)
        return views

    _append(m, append)


@caught_by(1)
def keys_and_values_are_exchanged(m):
    _append(m, lambda right, self, k, v: right(self, k, v)[::-1])


@caught_by(1)
def a_cache_hands_out_only_what_is_new(m):
    def append(right, self, k, v):
        views = right(self, k, v)
        return tuple(x[:, :, self.length - k.shape[2] :] for x in views)

    _append(m, append)


@caught_by(1)
def a_cache_drops_gradients_in_silence(m):
    _append(m, lambda right, self, k, v: right(self, m.as_array(k), m.as_array(v)))


@caught_by(1)
def a_cache_takes_any_dtype(m):
    def append(right, self, k, v):
        if any(isinstance(x, m.Tensor) for x in (k, v)):
            return right(self, k, v)
        dtype = self._buffers[0].dtype if self._buffers else k.dtype
        return right(self, k.astype(dtype), v.astype(dtype))

    _append(m, append)


@caught_by(1)
def a_cache_is_half_changed_when_it_refuses(m):
    def append(right, self, k, v):
        self.length += k.shape[2]
        self.length -= k.shape[2]
        try:
            return right(self, k, v)
        except ValueError:
            self.length += 1
            raise

    _append(m, append)


@caught_by(1)
def one_row_of_another_batch_is_broadcast(m):
    """numpy writes (1, ...) into (3, ...) without a word; here the check is only of the widths."""
    right = m.KVCache.append

    def append(self, k, v):
        if self._buffers and m.as_array(k).ndim == 4 and k.shape[0] != self._buffers[0].shape[0]:
            k, v = (np.resize(m.as_array(x), (self._buffers[0].shape[0], *x.shape[1:])) for x in (k, v))
        return right(self, k, v)

    m.KVCache.append = append


@caught_by(1)
def selected_rows_share_memory(m):
    def select(self, rows):
        self._buffers = [
            np.broadcast_to(x[rows[0]], (len(rows), *x.shape[1:])) if len(set(rows)) == 1 else x[rows]
            for x in self._buffers
        ]
        for x in self._buffers:
            x.flags.writeable = True

    m.KVCache.select = select


@caught_by(1)
def only_the_keys_are_selected(m):
    def select(self, rows):
        k, v = self._buffers
        self._buffers = [k[np.asarray(rows, int)], v[: len(rows)]]

    m.KVCache.select = select


@caught_by(1)
def rows_are_selected_in_their_old_order(m):
    right = m.KVCache.select
    m.KVCache.select = lambda self, rows: right(self, sorted(np.asarray(rows, int).tolist()))


@caught_by(1)
def a_reset_cache_keeps_its_shape(m):
    def reset(self):
        self.length = 0

    m.KVCache.reset = reset


@caught_by(1)
def the_memory_of_keys_alone_is_counted(m):
    m.KVCache.nbytes = property(lambda self: self._buffers[0].nbytes if self._buffers else 0)


@caught_by(3)
def a_cache_joins_old_and_new(m):
    """After the eighth token, so that two views of one memory are there to be seen."""
    right = m.KVCache.append

    def append(self, k, v):
        views = right(self, k, v)
        if self.length <= 8:
            return views
        self._buffers = [x.copy() for x in views]
        return tuple(self._buffers)

    m.KVCache.append = append


@caught_by(3)
def a_cache_keeps_what_it_has_grown_out_of(m):
    right = m.KVCache.append

    def append(self, k, v):
        before = self._buffers
        views = right(self, k, v)
        if before is not self._buffers:
            self.outgrown = [*getattr(self, "outgrown", ()), before]
        return views

    m.KVCache.append = append
    reset = m.KVCache.reset

    def forget(self):
        self.outgrown = []
        reset(self)

    m.KVCache.reset = forget


@caught_by(3)
def a_reset_cache_holds_its_memory(m):
    def reset(self):
        self.spare, self._buffers, self.length = self._buffers, [], 0

    m.KVCache.reset = reset


@caught_by(3)
def a_cache_grows_eightfold(m):
    right = m.KVCache.append

    def append(self, k, v):
        room = self._buffers[0].shape[2] if self._buffers else 0
        views = right(self, k, v)
        now = self._buffers[0].shape[2]
        if room and now > room > 64 and now < 8 * room:
            larger = [np.empty((*x.shape[:2], 8 * room, x.shape[3]), x.dtype) for x in self._buffers]
            for x, y in zip(larger, self._buffers, strict=True):
                x[:, :, :now] = y
            self._buffers = larger
            return tuple(x[:, :, : self.length] for x in larger)
        return views

    m.KVCache.append = append


# 13.14 to 13.17


@caught_by(1)
def keys_have_as_many_heads_as_queries(m):
    right = m.MultiHeadAttention.__init__

    def init(self, embed_dim, num_heads, num_kv_heads=None, bias=True, rotary=None, *, rng):
        right(self, embed_dim, num_heads, num_kv_heads, bias, rotary, rng=rng)
        self.qkv_proj = m.Linear(embed_dim, 3 * embed_dim, bias, rng=rng)

    m.MultiHeadAttention.__init__ = init


@caught_by(1)
def a_bias_is_always_there(m):
    right = m.MultiHeadAttention.__init__
    m.MultiHeadAttention.__init__ = lambda self, dim, heads, kv=None, bias=True, rotary=None, *, rng: right(
        self, dim, heads, kv, True, rotary, rng=rng
    )


@caught_by(1)
def keys_come_first(m):
    right = m.MultiHeadAttention.heads

    def heads(self, x, offset=0):
        h, kv = self.num_heads, self.num_kv_heads
        right(self, x, offset)
        every = m.split_heads(self.qkv_proj(x), h + 2 * kv)
        k, v, q = every[:, :kv], every[:, kv : 2 * kv], every[:, 2 * kv :]
        if self.rotary is not None:
            q, k = self.rotary(q, offset=offset), self.rotary(k, offset=offset)
        return q, k, v

    m.MultiHeadAttention.heads = heads


@caught_by(1)
def values_are_turned_too(m):
    right = m.MultiHeadAttention.heads

    def heads(self, x, offset=0):
        q, k, v = right(self, x, offset)
        return q, k, v if self.rotary is None else self.rotary(v, offset=offset)

    m.MultiHeadAttention.heads = heads


@caught_by(1)
def only_queries_are_turned(m):
    right = m.MultiHeadAttention.heads

    def heads(self, x, offset=0):
        q, _, v = right(self, x, offset)
        rotary, self.rotary = self.rotary, None
        try:
            return q, right(self, x)[1], v
        finally:
            self.rotary = rotary

    m.MultiHeadAttention.heads = heads


@caught_by(1)
def each_piece_is_turned_from_position_zero(m):
    right = m.MultiHeadAttention.heads
    m.MultiHeadAttention.heads = lambda self, x, offset=0: right(self, x)


def _layer(m, change):
    right = m.MultiHeadAttention.forward

    def forward(self, x, mask=None, is_causal=False, cache=None):
        return change(right, self, x, mask, is_causal, cache)

    m.MultiHeadAttention.forward = forward


@caught_by(1)
def the_offset_is_the_length_after_the_append(m):
    right = m.MultiHeadAttention.heads

    def heads(self, x, offset=0):
        return right(self, x, offset + x.shape[1] if offset else 0)

    m.MultiHeadAttention.heads = heads


@caught_by(1)
def a_layer_attends_to_new_keys_only(m):
    def forward(right, self, x, mask, causal, cache):
        if cache is None:
            return right(self, x, mask, causal, None)
        q, k, v = self.heads(x, cache.length)
        cache.append(k, v)
        found = m.fused_attention(q, k, v, is_causal=causal)
        return self.out_proj(m.merge_heads(found))

    _layer(m, forward)


@caught_by(1)
def a_layer_forgets_its_mask(m):
    _layer(m, lambda right, self, x, mask, causal, cache: right(self, x, None, causal, cache))


@caught_by(1)
def a_layer_is_always_causal(m):
    _layer(m, lambda right, self, x, mask, causal, cache: right(self, x, mask, True, cache))


@caught_by(1)
def what_heads_found_is_not_mixed(m):
    def forward(right, self, x, mask, causal, cache):
        right(self, x, mask, causal, cache)
        q, k, v = self.heads(x)
        return m.merge_heads(m.fused_attention(q, k, v, mask=mask, is_causal=causal))

    _layer(m, forward)


@caught_by(1)
def a_layer_is_slow_unless_told(m):
    m.MultiHeadAttention.fused = False


@caught_by(1)
def maps_forget_the_mask(m):
    m.MultiHeadAttention.attention_maps = lambda self, x, mask=None, is_causal=False: (
        m.attention_weights(*self.heads(x)[:2], None, is_causal).data
    )


@caught_by(1)
def maps_are_averaged_over_heads(m):
    right = m.MultiHeadAttention.attention_maps
    m.MultiHeadAttention.attention_maps = lambda self, *args, **params: right(self, *args, **params).mean(
        axis=1, keepdims=True
    )


@caught_by(3)
def a_layer_keeps_the_weights_although_it_is_fused(m):
    def forward(right, self, x, mask, causal, cache):
        fused, self.fused = self.fused, False
        try:
            return right(self, x, mask, causal, cache)
        finally:
            self.fused = fused

    _layer(m, forward)


@caught_by(1)
def operations_are_those_of_one_product(m):
    right = m.MultiHeadAttention.flops
    m.MultiHeadAttention.flops = lambda self, inputs, out: right(self, inputs, out) // 2


@caught_by(1)
def a_multiplication_with_an_addition_counts_once(m):
    m.MultiHeadAttention.flops = lambda self, inputs, out: 2 * out.size * out.shape[1] * self.num_kv_heads


@caught_by(1)
def a_cache_is_of_keys_alone(m):
    right = m.cache_bytes
    m.cache_bytes = lambda *args, **params: right(*args, **params) // 2


@caught_by(1)
def scores_are_counted_for_one_head(m):
    m.score_bytes = lambda batch, heads, queries, keys, itemsize=4: math.prod(
        (batch, queries, keys, itemsize)
    )


# Found by looking for ways past the suite


@caught_by(1)
def causal_masks_are_cached_and_shared(m):
    m.causal_mask = functools.lru_cache(m.causal_mask)


@caught_by(1)
def padding_counts_in_the_dtype_of_lengths(m):
    np = m.np
    right = m.padding_mask

    def padding_mask(lengths, length, side="right"):
        right(lengths, length, side)
        lengths = np.asarray(lengths)
        if lengths.size == 0:
            return right(lengths, length, side)
        places = np.arange(length).astype(lengths.dtype)
        n = lengths[:, None, None, None]
        return places < n if side == "right" else places >= (np.asarray(length).astype(lengths.dtype) - n)

    m.padding_mask = padding_mask


@caught_by(1)
def a_padding_mask_of_equal_rows_is_one_row(m):
    right = m.padding_mask

    def padding_mask(lengths, length, side="right"):
        out = right(lengths, length, side)
        if len(out) and (out == out[:1]).all():
            return m.np.broadcast_to(out[:1], out.shape)
        return out

    m.padding_mask = padding_mask


@caught_by(1)
def masks_are_remembered_by_their_id(m):
    right = m.allowed_pairs
    kept = {}

    def allowed_pairs(mask, is_causal, shape):
        key = (id(mask), is_causal, shape)
        if key not in kept:
            out = right(mask, is_causal, shape)
            kept[key] = (mask, None if out is None else out.copy())
        return kept[key][1]

    m.allowed_pairs = allowed_pairs


@caught_by(1)
def a_mask_of_one_bool_is_none(m):
    right = m.allowed_pairs

    def allowed_pairs(mask, is_causal, shape):
        if mask is not None and m.as_array(mask).ndim == 0:
            mask = None
        return right(mask, is_causal, shape)

    m.allowed_pairs = allowed_pairs


@caught_by(1)
def a_mask_of_one_axis_is_of_queries(m):
    right = m.allowed_pairs

    def allowed_pairs(mask, is_causal, shape):
        if mask is not None and m.as_array(mask).ndim == 1 and shape[2] == shape[3] == m.as_array(mask).size:
            mask = m.as_array(mask)[:, None]
        return right(mask, is_causal, shape)

    m.allowed_pairs = allowed_pairs


@caught_by(1)
def a_mask_of_three_axes_is_of_texts(m):
    right = m.allowed_pairs

    def allowed_pairs(mask, is_causal, shape):
        if mask is not None and m.as_array(mask).ndim == 3 and len(m.as_array(mask)) == shape[0]:
            mask = m.as_array(mask)[:, None]
        return right(mask, is_causal, shape)

    m.allowed_pairs = allowed_pairs


@caught_by(1)
def what_is_hidden_is_minus_1e9(m):
    rewritten(m, "attention_weights", ("where(allowed, scores, -np.inf)", "where(allowed, scores, -1e9)"))


@caught_by(1)
def what_is_hidden_in_blocks_is_minus_1e9(m):
    rewritten(m, "hide", ("-np.inf", "-1e9"))
    right = m.fused_attention.forward

    def forward(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
        out, sums = right(q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=chunk)
        a = m.allowed_pairs(mask, is_causal, (*q.shape[:3], k.shape[2]))
        if a is not None:
            none = ~m.np.broadcast_to(a, (*q.shape[:3], k.shape[2])).any(axis=-1)
            out[none] = 0
            sums[none] = -m.np.inf
        return out, sums

    m.fused_attention.forward = forward


@caught_by(1)
def what_is_hidden_gets_1e9_less(m):
    rewritten(
        m,
        "attention_weights",
        ("where(allowed, scores, -np.inf)", "scores + np.where(allowed, 0.0, -1e9).astype(scores.dtype)"),
    )


@caught_by(1)
def what_lies_apart_is_absorbed_in_a_copy(m):
    right = m.absorb
    np = m.np

    def absorb(scores, values, top, total, mix):
        s = np.ascontiguousarray(scores)
        t = np.ascontiguousarray(top)
        u = np.ascontiguousarray(total)
        w = np.ascontiguousarray(mix)
        right(s, values, t, u, w)
        if scores.flags.c_contiguous:
            return
        top[...] = t
        total[...] = u
        mix[...] = w

    m.absorb = absorb


@caught_by(1)
def results_share_a_buffer(m):
    right = m.fused_attention.forward
    kept = {}

    def forward(q, k, v, **p):
        out, s = right(q, k, v, **p)
        key = (out.shape, out.dtype, out.strides)
        if out.nbytes > 30000:
            return out, s
        if key in kept:
            kept[key][...] = out
        else:
            kept[key] = out
        return kept[key], s

    m.fused_attention.forward = forward


@caught_by(2)
def sums_share_a_buffer(m):
    right = m.fused_attention.forward
    kept = {}

    def forward(q, k, v, **p):
        out, s = right(q, k, v, **p)
        key = (s.shape, s.dtype)
        if s.nbytes > 30000:
            return out, s
        if key in kept:
            kept[key][...] = s
        else:
            kept[key] = s
        return out, kept[key]

    m.fused_attention.forward = forward


@caught_by(2)
def gradients_share_a_buffer(m):
    right = m.fused_attention_back
    kept = {}

    def fused_attention_back(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        gs = right(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)
        res = []
        for i, g in enumerate(gs):
            if g.nbytes > 20000:
                res.append(g)
                continue
            key = (i, g.shape, g.dtype)
            if key in kept:
                kept[key][...] = g
            else:
                kept[key] = g
            res.append(kept[key])
        return tuple(res)

    m.fused_attention.gradient(fused_attention_back)


@caught_by(2)
def keys_and_values_that_are_one_share_a_gradient(m):
    right = m.fused_attention_back

    def fused_attention_back(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        a, b, c = right(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)
        if k is v:
            b += c
            return a, b, b
        return a, b, c

    m.fused_attention.gradient(fused_attention_back)


@caught_by(4)
def the_way_back_computes_the_future_and_hides_it(m):
    rewritten(
        m, "fused_attention_back", ("walk(queries, k, is_causal, chunk)", "walk(queries, k, False, chunk)")
    )


@caught_by(4)
def one_query_asks_sixteen_keys_at_a_time(m):
    """decode path: T=1 with blocks of 16 keys"""
    right = m.fused_attention.forward

    def forward(q, k, v, *, mask=None, is_causal=False, scale=None, chunk=None):
        if chunk is None and q.shape[2] == 1:
            chunk = 16
        return right(q, k, v, mask=mask, is_causal=is_causal, scale=scale, chunk=chunk)

    m.fused_attention.forward = forward


@caught_by(1)
def all_caches_share_their_buffers(m):
    def __init__(self):
        self.length = 0

    m.KVCache._buffers = []
    m.KVCache.__init__ = __init__
    rewritten(
        m,
        "KVCache.append",
        ("self._buffers, self.length = held, end", "self._buffers[:] = held; self.length = end"),
        ("held = self._buffers or", "held = (self.length and list(self._buffers)) or"),
    )

    def reset(self):
        self.length = 0
        self._buffers.clear()

    m.KVCache.reset = reset


@caught_by(1)
def negative_rows_count_from_the_end(m):
    m.KVCache.select = lambda self, rows: setattr(
        self, "_buffers", [x[m.np.asarray(rows, m.np.intp)] for x in self._buffers]
    )


@caught_by(1)
def a_mask_is_looked_at_after_the_cache(m):
    rewritten(
        m,
        "MultiHeadAttention.forward",
        ("allowed_pairs(mask, False, (*q.shape[:3], len(cache.positions(q.shape[2]))))", "pass"),
    )


@caught_by(1)
def a_mask_is_about_what_the_cache_has_forgotten_too(m):
    rewritten(
        m, "MultiHeadAttention.forward", ("len(cache.positions(q.shape[2]))", "cache.length + q.shape[2]")
    )


@caught_by(1)
def a_cache_is_always_causal(m):
    right = m.MultiHeadAttention.forward

    def forward(self, x, mask=None, is_causal=False, cache=None):
        return right(self, x, mask, is_causal or cache is not None, cache)

    m.MultiHeadAttention.forward = forward


@caught_by(1)
def out_proj_has_a_stream_of_its_own(m):
    right = m.MultiHeadAttention.__init__

    def __init__(self, embed_dim, num_heads, num_kv_heads=None, bias=True, rotary=None, *, rng):
        right(self, embed_dim, num_heads, num_kv_heads, bias, rotary, rng=rng)
        self.out_proj = m.Linear(embed_dim, embed_dim, bias, rng=m.np.random.default_rng(0))

    m.MultiHeadAttention.__init__ = __init__


@caught_by(1)
def both_projections_start_alike(m):
    right = m.MultiHeadAttention.__init__

    def __init__(self, embed_dim, num_heads, num_kv_heads=None, bias=True, rotary=None, *, rng):
        import copy

        same = copy.deepcopy(rng)
        right(self, embed_dim, num_heads, num_kv_heads, bias, rotary, rng=rng)
        self.out_proj = m.Linear(embed_dim, embed_dim, bias, rng=same)

    m.MultiHeadAttention.__init__ = __init__


@caught_by(1)
def fused_is_the_same_for_all_layers(m):
    def setit(self, v):
        type(self)._f = v

    m.MultiHeadAttention._f = True
    m.MultiHeadAttention.fused = property(lambda self: type(self)._f, setit)


@caught_by(1)
def maps_are_remembered_by_the_id_of_their_input(m):
    right = m.MultiHeadAttention.attention_maps

    def attention_maps(self, x, mask=None, is_causal=False):
        key = id(x)
        kept = self.__dict__.setdefault("_maps", {})
        if (key, is_causal, id(mask)) not in kept:
            kept[key, is_causal, id(mask)] = right(self, x, mask, is_causal)
        return kept[key, is_causal, id(mask)]

    m.MultiHeadAttention.attention_maps = attention_maps


TUNING = (
    "Blocks of another size or grouping: the same numbers, with memory and time within the limits; given."
)
SCRATCH = "Where a block of scores lies: the same numbers, and one block at a time; given."
PAIRS = "Both always have two arrays."
HIDE = "Looks at keys that all rows may see, too, or at none: `seen` says the same of them; given."
AXES = "Of four axes, axis 2 is the last but one."
NOTHING = "A row that has seen nothing: exp(-inf) is 0 less any number, and 0 is 0 by any number."
GROWTH = "Grows by another factor, or one token earlier: held memory and copies stay within the limits."
SAME = "The same answer: the operation is symmetric, the lengths are equal, or only a message changes."


@caught_by(1)
def no_keys_are_as_many_as_queries(m):
    right = m.causal_mask
    m.causal_mask = lambda queries, keys=None: right(queries, keys or queries)


@caught_by(1)
def nothing_has_no_heads_to_merge(m):
    rewritten(m, "merge_heads", ("heads * width", "-1"))


@caught_by(1)
def the_result_lies_position_by_position(m):
    rewritten(
        m,
        "fused_attention",
        (
            "np.empty_like(q, shape=(*q.shape[:3], v.shape[3]))",
            "np.empty((len(q), q.shape[2], q.shape[1], v.shape[3]), q.dtype).swapaxes(1, 2)",
        ),
    )


@caught_by(3)
def the_way_back_heeds_no_chunk(m):
    rewritten(m, "fused_attention_back", ("is_causal, chunk)", "is_causal, None)"))


@caught_by(1)
def rows_change_places_under_the_views(m):
    right = m.KVCache.select

    def select(self, rows):
        before = self._buffers
        right(self, rows)
        if before and before[0].shape == self._buffers[0].shape:
            for x, new in zip(before, self._buffers, strict=True):
                x[...] = new
            self._buffers = before

    m.KVCache.select = select


@caught_by(1)
def fewer_heads_than_none_divide(m):
    rewritten(
        m,
        "MultiHeadAttention.__init__",
        ("num_heads < 1", "num_heads == 0"),
        ("num_kv_heads < 1", "num_kv_heads == 0"),
    )


@caught_by(1)
def maps_are_of_what_was_not_turned(m):
    right = m.MultiHeadAttention.attention_maps

    def attention_maps(self, x, mask=None, is_causal=False):
        turn, self.rotary = self.rotary, None
        try:
            return right(self, x, mask, is_causal)
        finally:
            self.rotary = turn

    m.MultiHeadAttention.attention_maps = attention_maps


@caught_by(3)
def maps_are_kept_with_their_graph(m):
    def attention_maps(self, x, mask=None, is_causal=False):
        q, k, _ = self.heads(x)
        self.maps = m.attention_weights(q, k, mask, is_causal)
        return self.maps.data

    m.MultiHeadAttention.attention_maps = attention_maps


@caught_by(1)
def a_mask_stays_for_the_next_pass(m):
    right = m.MultiHeadAttention.forward

    def forward(self, x, mask=None, is_causal=False, cache=None):
        if mask is not None:
            self.mask = mask
        elif cache is None and getattr(self, "mask", np.zeros(0)).shape[-1] == x.shape[1]:
            mask = self.mask
        return right(self, x, mask, is_causal, cache)

    m.MultiHeadAttention.forward = forward


@caught_by(1)
def a_cache_counts_tokens_that_cannot_be_turned(m):
    right = m.MultiHeadAttention.forward

    def forward(self, x, mask=None, is_causal=False, cache=None):
        try:
            return right(self, x, mask, is_causal, cache)
        except ValueError:
            if mask is None and cache is not None:
                cache.length += x.shape[1]
            raise

    m.MultiHeadAttention.forward = forward


@caught_by(3)
def a_layer_is_fused_in_training_only(m):
    rewritten(m, "MultiHeadAttention.forward", ("if self.fused:", "if self.fused and self.training:"))


@caught_by(3)
def a_layer_with_a_mask_is_not_fused(m):
    rewritten(m, "MultiHeadAttention.forward", ("if self.fused:", "if self.fused and mask is None:"))


@caught_by(3)
def a_layer_with_a_cache_is_not_fused(m):
    rewritten(m, "MultiHeadAttention.forward", ("if self.fused:", "if self.fused and cache is None:"))


@caught_by(3)
def memory_that_is_not_used_is_not_counted(m):
    rewritten(m, "KVCache.nbytes", ("x.nbytes for", "x[:, :, : self.length].nbytes for"))


@caught_by(1)
def of_no_keys_the_sum_is_one(m):
    right = m.fused_attention.forward

    def forward(q, k, v, **params):
        if k.ndim == 4 and k.shape[2] == 0:
            return np.zeros((*q.shape[:3], v.shape[3]), q.dtype), np.zeros(q.shape[:3], q.dtype)
        return right(q, k, v, **params)

    _forward(m, forward)


@caught_by(3)
def one_product_is_computed_three_times(m):
    right = m.MultiHeadAttention.heads
    m.MultiHeadAttention.heads = lambda self, x, offset=0: tuple(right(self, x, offset)[i] for i in range(3))


EQUIVALENT: dict[str, str] = {
    "KVCache.positions: new=0 -> new=1": "without a number only other caches are asked, in kata 19",
    "check_heads: dtypes[0] -> dtypes[1]": SAME,
    "allowed_pairs: np.broadcast_shapes(mask.shape, shape) -> np.broadcast_shapes(shape, mask.shape)": SAME,
    "attention_weights: mul(q, width ** (-0.5) if scale is None else scale) -> mul(width ** (-0.5) if scale is None else scale, q)": SAME,  # noqa: E501
    "attention_weights: transpose(k, axis0=-1, axis1=-2) -> transpose(k, axis0=-1, axis1=2)": AXES,
    "absorb: np.where(higher == -np.inf, 0, higher) -> np.where(higher == -np.inf, 1, higher)": NOTHING,
    "walk: max(1, min(queries, BLOCK_ROWS // group)) -> max(2, min(queries, BLOCK_ROWS // group))": TUNING,
    "walk: BLOCK_SCORES // (group * rows) -> BLOCK_SCORES * (group * rows)": TUNING,
    "walk: max(1, BLOCK_SCORES // size) -> max(2, BLOCK_SCORES // size)": TUNING,
    "walk: BLOCK_SCORES // size -> BLOCK_SCORES * size": TUNING,
    "walk: max(1, BLOCK_SCORES // (size * kv_heads)) -> max(2, BLOCK_SCORES // (size * kv_heads))": TUNING,
    "Scratch.__init__: np.empty(0, dtype) -> np.empty(1, dtype)": SCRATCH,
    "Scratch.product: b.shape[-2] -> b.shape[2]": SCRATCH,
    "Scratch.product: size > self.memory.size -> size >= self.memory.size": SCRATCH,
    "Scratch.product: if size > self.memory.size: -> if True:": SCRATCH,
    "Scratch.product: np.swapaxes(b, -1, -2) -> np.swapaxes(b, -1, 2)": SCRATCH,
    "Scratch.product: np.matmul(a, np.swapaxes(b, -1, -2), out=self.memory[:size].reshape(shape)) -> np.matmul(a, np.swapaxes(b, -1, -2))": SCRATCH,  # noqa: E501
    "hide: rows.start + ahead + 1 -> rows.start + ahead - 1": HIDE,
    "hide: rows.start + ahead -> rows.start - ahead": HIDE,
    "hide: if first < columns.stop: -> if True:": HIDE,
    "hide: first < columns.stop -> first <= columns.stop": HIDE,
    "fused_attention: np.where(total == 0, 1, total) -> np.where(total == 0, 2, total)": NOTHING,
    "fused_attention_back: np.where(np.isneginf(base), 0, base) -> np.where(np.isneginf(base), 1, base)": NOTHING,  # noqa: E501
    "fused_attention_back: np.swapaxes(weights, -1, -2) -> np.swapaxes(weights, -1, 2)": AXES,
    "KVCache.append: np.empty_like(x, order='C') -> np.empty_like(x)": SAME,
    "fused_attention_back: np.swapaxes(slopes, -1, -2) -> np.swapaxes(slopes, -1, 2)": AXES,
    "KVCache.append: zip(new, held, strict=True) -> zip(new, held, strict=False)": PAIRS,
    "KVCache.append: buffer.shape[:2] -> buffer.shape[:]": SAME,
    "KVCache.append: new[0] -> new[1] #2": SAME,
    "KVCache.append: held[0] -> held[1]": SAME,
    "KVCache.append: end > room -> end >= room": GROWTH,
    "KVCache.append: zip(full, held, strict=True) -> zip(full, held, strict=False)": PAIRS,
    "KVCache.append: zip(new, held, strict=True) -> zip(new, held, strict=False) #2": PAIRS,
    "module: 1 << 17 -> 2 << 17": TUNING,
    "module: BLOCK_ROWS = 128 -> BLOCK_ROWS = 129": TUNING,
    "module: 1 << 17 -> 1 << 18": TUNING,
    "MultiHeadAttention.forward: allowed_pairs(mask, False, (*q.shape[:3], "
    "len(cache.positions(q.shape[2])))) -> allowed_pairs(mask, True, (*q.shape[:3], "
    "len(cache.positions(q.shape[2]))))": ("what it refuses counts, and what it answers is dropped"),
    "walk: max(1, group * rows * min(columns, keys)) -> max(2, group * rows * min(columns, keys))": TUNING,
}
