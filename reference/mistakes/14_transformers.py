"""Believable wrong solutions of kata 14.  Each takes the reference and spoils one thing in it."""

import functools
import json
import math
import os

import numpy as np

from dojo.mistakes import caught_by, rewritten


def rule(op):
    """Attach `op`'s next rule in place of the one it has."""
    return op.gradient


# Norms.


def _norm(m, compute):
    """layer_norm from another formula: `compute(rows, eps)` gives (mean, inverse_std) of each row."""

    def forward(x, weight, bias, *, eps=1e-5):
        x = m.floating(x)
        m.check_norm(x, weight, bias)
        rows = m.as_rows(x)
        if not rows.size:
            return x, rows[:, :1], rows[:, :1]
        mean, inverse_std = compute(rows, eps)
        mean, inverse_std = mean.astype(x.dtype), inverse_std.astype(x.dtype)
        return (
            ((rows - mean) * inverse_std * weight + bias).astype(x.dtype).reshape(x.shape),
            mean,
            inverse_std,
        )

    m.layer_norm.forward = forward


@caught_by(1)
def the_variance_is_divided_by_one_less(m):
    def compute(rows, eps):
        mean = rows.mean(1, keepdims=True)
        squares = ((rows - mean) ** 2).sum(1, keepdims=True)
        return mean, 1 / np.sqrt(squares / max(rows.shape[1] - 1, 1) + eps)

    _norm(m, compute)


@caught_by(1)
def eps_is_added_to_the_deviation(m):
    _norm(m, lambda rows, eps: (rows.mean(1, keepdims=True), 1 / (rows.std(1, keepdims=True) + eps)))


@caught_by(1)
def there_is_no_eps(m):
    def compute(rows, eps):
        with np.errstate(divide="ignore", invalid="ignore"):
            return rows.mean(1, keepdims=True), 1 / rows.std(1, keepdims=True)

    _norm(m, compute)


@caught_by(1)
def the_variance_is_the_mean_of_squares_less_the_square_of_the_mean(m):
    def compute(rows, eps):
        mean = rows.mean(1, keepdims=True)
        return mean, 1 / np.sqrt(np.maximum((rows * rows).mean(1, keepdims=True) - mean * mean, 0) + eps)

    _norm(m, compute)


@caught_by(1)
def a_norm_goes_over_the_columns(m):
    def compute(rows, eps):
        shape = (len(rows), 1)
        return np.broadcast_to(rows.mean(), shape), np.broadcast_to(1 / np.sqrt(rows.var() + eps), shape)

    _norm(m, compute)


@caught_by(1)
def the_mean_stays_in(m):
    _norm(m, lambda rows, eps: (0 * rows[:, :1], 1 / np.sqrt(rows.var(1, keepdims=True) + eps)))


@caught_by(1)
def weights_may_be_stretched(m):
    m.check_norm = lambda x, *vectors: None


@caught_by(1)
def a_norm_s_result_is_in_the_dtype_of_its_weights(m):
    right = m.layer_norm.forward

    def forward(x, weight, bias, *, eps=1e-5):
        out, *saved = right(x, weight, bias, eps=eps)
        return out.astype(np.result_type(out, weight)), *saved

    m.layer_norm.forward = forward


@caught_by(1)
def a_norm_writes_over_its_input(m):
    right = m.layer_norm.forward

    def forward(x, weight, bias, *, eps=1e-5):
        out, *saved = right(x, weight, bias, eps=eps)
        if x.dtype.kind == "f":
            x[...] = out
        return out, *saved

    m.layer_norm.forward = forward


@caught_by(1)
def a_norm_works_in_float64(m):
    right = m.layer_norm.forward
    m.layer_norm.forward = lambda x, w, b, *, eps=1e-5: right(np.asarray(x, np.float64), w, b, eps=eps)


@caught_by(1)
def bias_starts_at_one(m):
    def __init__(self, dim, eps=1e-5):
        self.weight = m.Parameter(np.ones(dim, np.float32))
        self.bias = m.Parameter(np.ones(dim, np.float32))
        self.eps = eps

    m.LayerNorm.__init__ = __init__


@caught_by(1)
def a_layer_norm_forgets_its_eps(m):
    m.LayerNorm.forward = lambda self, x: m.layer_norm(x, self.weight, self.bias)


@caught_by(1)
def weights_of_a_norm_are_no_parameters(m):
    def __init__(self, dim, eps=1e-5):
        self.weight, self.bias = m.Tensor(np.ones(dim, np.float32)), m.Tensor(np.zeros(dim, np.float32))
        self.eps = eps

    m.LayerNorm.__init__ = __init__


@caught_by(1)
def rms_norm_subtracts_the_mean(m):
    right = m.rms_norm.forward
    m.rms_norm.forward = lambda x, w, *, eps=1e-6: right(
        m.floating(x) - (m.floating(x).mean(-1, keepdims=True) if np.size(x) else 0), w, eps=eps
    )


@caught_by(1)
def rms_norm_divides_by_the_length_of_the_row(m):
    m.mean_square = lambda rows: (rows * rows).sum(1, keepdims=True)


@caught_by(1)
def rms_norm_has_the_eps_of_layer_norm(m):
    def __init__(self, dim, eps=1e-5):
        self.weight, self.eps = m.Parameter(np.ones(dim, np.float32)), eps

    m.RMSNorm.__init__ = __init__


@caught_by(1)
def rms_norm_forgets_its_eps(m):
    m.RMSNorm.forward = lambda self, x: m.rms_norm(x, self.weight)


# Their rules.


def _parts(m, grad, x, weight, mean, inverse_std):
    rows, off = m.as_rows(grad), (m.as_rows(m.floating(x)) - mean) * inverse_std
    return rows, off, rows * weight


def _back(m, for_x):
    """layer_norm's rule with `for_x(slope, normal, inverse_std)` for the gradient of x."""

    def back(grad, x, weight, mean, inverse_std):
        rows, normal, slope = _parts(m, grad, x, weight, mean, inverse_std)
        if not rows.size:
            return grad, (rows * normal).sum(0), rows.sum(0)
        return for_x(slope, normal, inverse_std).reshape(grad.shape), (rows * normal).sum(0), rows.sum(0)

    rule(m.layer_norm)(back)


@caught_by(2)
def mean_and_deviation_are_taken_for_constants(m):
    _back(m, lambda slope, normal, scale: slope * scale)


@caught_by(2)
def only_the_deviation_is_taken_for_a_constant(m):
    _back(m, lambda slope, normal, scale: (slope - slope.mean(1, keepdims=True)) * scale)


@caught_by(2)
def only_the_mean_is_taken_for_a_constant(m):
    _back(m, lambda slope, normal, scale: (slope - normal * (slope * normal).mean(1, keepdims=True)) * scale)


@caught_by(2)
def sums_stand_for_means_in_the_rule(m):
    _back(
        m,
        lambda slope, normal, scale: (
            (slope - slope.sum(1, keepdims=True) - normal * (slope * normal).sum(1, keepdims=True)) * scale
        ),
    )


@caught_by(2)
def the_rule_means_over_the_batch_as_batch_norm_does(m):
    _back(
        m,
        lambda slope, normal, scale: (
            (slope - slope.mean(0, keepdims=True) - normal * (slope * normal).mean(0, keepdims=True)) * scale
        ),
    )


@caught_by(2)
def the_weight_is_left_out_of_the_gradient_of_x(m):
    def back(grad, x, weight, mean, inverse_std):
        rows, normal, _ = _parts(m, grad, x, weight, mean, inverse_std)
        if not rows.size:
            return grad, (rows * normal).sum(0), rows.sum(0)
        along = normal * (rows * normal).mean(1, keepdims=True)
        for_x = (rows - rows.mean(1, keepdims=True) - along) * inverse_std
        return for_x.reshape(grad.shape), (rows * normal).sum(0), rows.sum(0)

    rule(m.layer_norm)(back)


@caught_by(2)
def the_gradient_of_the_weight_is_of_what_was_not_normalised(m):
    right = m.layer_norm_back

    def back(grad, x, weight, mean, inverse_std):
        for_x, _, for_bias = right(grad, x, weight, mean, inverse_std)
        return for_x, (m.as_rows(grad) * m.as_rows(m.floating(x))).sum(0), for_bias

    rule(m.layer_norm)(back)


@caught_by(2)
def the_normalised_rows_are_had_from_the_result_divided_by_the_weight(m):
    """As Apex does, and with its trouble where a weight is 0."""
    right = m.layer_norm_back

    def back(grad, out, weight, bias, inverse_std):
        with np.errstate(divide="ignore", invalid="ignore"):
            normal = np.nan_to_num((m.as_rows(out) - bias) / weight, posinf=0, neginf=0)
        return right(grad, (normal / inverse_std).reshape(grad.shape), weight, 0 * inverse_std, inverse_std)

    rule(m.layer_norm)(back)


@caught_by(2)
def gradients_of_float32_are_float64(m):
    right = m.layer_norm_back

    def back(grad, x, weight, mean, inverse_std):
        return tuple(a.astype(np.float64) for a in right(grad, x, weight, mean, inverse_std))

    rule(m.layer_norm)(back)


@caught_by(2)
def the_rule_of_rms_norm_subtracts_a_mean(m):
    right = m.rms_norm_back

    def back(grad, x, weight, inverse_rms):
        for_x, for_weight = right(grad, x, weight, inverse_rms)
        return for_x - (for_x.mean(-1, keepdims=True) if for_x.size else 0), for_weight

    rule(m.rms_norm)(back)


@caught_by(2)
def the_root_is_taken_for_a_constant(m):
    def back(grad, x, weight, inverse_rms):
        rows = m.as_rows(grad)
        for_weight = (rows * m.as_rows(m.floating(x)) * inverse_rms).sum(0)
        return (rows * weight * inverse_rms).reshape(grad.shape), for_weight

    rule(m.rms_norm)(back)


# Blocks.


@caught_by(1)
def relu_is_between_the_layers(m):
    from tinytorch.activations import relu

    m.gelu = relu


@caught_by(1)
def the_activation_is_not_the_one_of_the_module(m):
    m.FeedForward.forward = lambda self, x: self.drop(self.proj(m.gelu(self.fc(x))))


@caught_by(1)
def the_hidden_layer_is_as_wide_as_the_stream(m):
    right = m.FeedForward.__init__

    def __init__(self, dim, hidden=None, dropout=0.0, bias=True, *, rng):
        right(self, dim, dim if hidden is None else hidden, dropout, bias, rng=rng)

    m.FeedForward.__init__ = __init__


@caught_by(1)
def the_hidden_layer_is_what_is_dropped(m):
    m.FeedForward.forward = lambda self, x: self.proj(self.drop(self.activation(self.fc(x))))


@caught_by(1)
def a_feed_forward_always_has_biases(m):
    right = m.FeedForward.__init__

    def __init__(self, dim, hidden=None, dropout=0.0, bias=True, *, rng):
        right(self, dim, hidden, dropout, rng=rng)

    m.FeedForward.__init__ = __init__


@caught_by(1)
def dropout_of_nothing_draws_all_the_same(m):
    m.dropout_or_nothing = lambda p, rng: m.Dropout(p, rng=rng)


def _pre(m, pre_norm):
    m.TransformerBlock.pre_norm = pre_norm


@caught_by(1)
def the_stream_itself_is_normalised_first(m):
    def pre_norm(self, x, attend):
        x = self.ln1(x)
        x = x + self.drop(attend(x))
        x = self.ln2(x)
        return x + self.mlp(x)

    _pre(m, pre_norm)


@caught_by(1)
def there_are_no_residuals(m):
    _pre(m, lambda self, x, attend: self.mlp(self.ln2(self.drop(attend(self.ln1(x))))))


@caught_by(1)
def the_second_half_reads_what_the_first_read(m):
    """As GPT-J's blocks, which work side by side."""
    _pre(m, lambda self, x, attend: x + self.drop(attend(self.ln1(x))) + self.mlp(self.ln2(x)))


@caught_by(1)
def one_norm_serves_both_halves(m):
    def pre_norm(self, x, attend):
        x = x + self.drop(attend(self.ln1(x)))
        return x + self.mlp(self.ln1(x))

    _pre(m, pre_norm)


@caught_by(1)
def the_second_half_has_no_norm(m):
    def pre_norm(self, x, attend):
        x = x + self.drop(attend(self.ln1(x)))
        return x + self.mlp(x)

    _pre(m, pre_norm)


@caught_by(1)
def attention_is_not_dropped(m):
    def pre_norm(self, x, attend):
        x = x + attend(self.ln1(x))
        return x + self.mlp(self.ln2(x))

    _pre(m, pre_norm)


@caught_by(1)
def the_stream_is_dropped_with_what_is_added(m):
    def pre_norm(self, x, attend):
        x = self.drop(x + attend(self.ln1(x)))
        return x + self.mlp(self.ln2(x))

    _pre(m, pre_norm)


@caught_by(1)
def norms_last_come_before_the_sum(m):
    def post_norm(self, x, attend):
        x = x + self.ln1(self.drop(attend(x)))
        return x + self.ln2(self.mlp(x))

    m.TransformerBlock.post_norm = post_norm


@caught_by(1)
def a_block_that_norms_last_norms_once(m):
    def post_norm(self, x, attend):
        x = x + self.drop(attend(x))
        return self.ln2(x + self.mlp(x))

    m.TransformerBlock.post_norm = post_norm


def _block(m, change):
    """TransformerBlock whose arguments (by name) went through `change`."""
    right = m.TransformerBlock.__init__
    names = ("dim", "num_heads", "num_kv_heads", "hidden", "dropout", "norm_first", "rotary", "norm", "bias")

    def __init__(self, *args, rng, **options):
        options |= dict(zip(names, args, strict=False))
        change(options)
        right(self, **options, rng=rng)

    m.TransformerBlock.__init__ = __init__


@caught_by(1)
def every_block_has_layer_norms(m):
    _block(m, lambda options: options.pop("norm", None))


@caught_by(1)
def a_block_does_not_hand_on_the_rotary(m):
    _block(m, lambda options: options.pop("rotary", None))


@caught_by(1)
def queries_are_never_grouped(m):
    _block(m, lambda options: options.pop("num_kv_heads", None))


@caught_by(1)
def one_norm_is_made_for_both_places(m):
    right = m.TransformerBlock.__init__

    def __init__(self, *args, rng, **options):
        right(self, *args, rng=rng, **options)
        self.ln2 = self.ln1

    m.TransformerBlock.__init__ = __init__


def _flow(m, backward):
    """gradient_flow that collects (leaf, out) of each block, and goes back by `backward`."""

    def gradient_flow(blocks, x, grad):
        steps = []
        for block in blocks:
            leaf = m.Tensor(x, requires_grad=True)
            out = block(leaf)
            steps.append((leaf, out))
            x = out.data
        return backward(steps, grad)

    m.gradient_flow = gradient_flow


@caught_by(1)
def following_a_gradient_fills_those_of_the_parameters(m):
    def backward(steps, grad):
        norms = [float(np.linalg.norm(grad.astype(np.float64)))]
        for leaf, out in reversed(steps):
            out.backward(grad)
            grad = leaf.grad
            norms.append(float(np.linalg.norm(grad.astype(np.float64))))
        return norms[::-1]

    _flow(m, backward)


@caught_by(1)
def gradients_are_listed_from_the_end(m):
    right = m.gradient_flow
    m.gradient_flow = lambda blocks, x, grad: right(blocks, x, grad)[::-1]


@caught_by(1)
def every_block_gets_the_last_gradient(m):
    def backward(steps, grad):
        norms = [float(np.linalg.norm(dict(m.flow(out.node or out, grad))[leaf])) for leaf, out in steps]
        return [*norms, float(np.linalg.norm(grad))]

    _flow(m, backward)


@caught_by(1)
def norms_are_taken_in_float32(m):
    def backward(steps, grad):
        norms = [float(np.sqrt((grad * grad).sum()))]
        for leaf, out in reversed(steps):
            grad = dict(m.flow(out.node or out, grad))[leaf]
            with np.errstate(over="ignore"):
                norms.append(float(np.sqrt((grad * grad).sum())))
        return norms[::-1]

    _flow(m, backward)


# Models.


@caught_by(1)
def a_rotary_is_made_for_the_whole_width(m):
    right = m.Rotary
    m.Rotary = type(
        "Rotary", (right,), {"__init__": lambda self, size, length: right.__init__(self, 2 * size, length)}
    )


@caught_by(1)
def each_position_is_the_next_one_s(m):
    right = m.Transformer.embed
    m.Transformer.embed = lambda self, ids, offset=0, positions=None: right(
        self, ids, offset + (offset + ids.shape[1] < self.config.context), positions
    )


@caught_by(1)
def positions_start_again_for_each_token(m):
    right = m.Transformer.embed

    def embed(self, ids, offset=0, positions=None):
        if positions is None and offset + ids.shape[1] <= self.config.context:
            offset = 0
        return right(self, ids, offset, positions)

    m.Transformer.embed = embed


@caught_by(1)
def positions_that_are_given_are_not_looked_at(m):
    right = m.Transformer.embed
    m.Transformer.embed = lambda self, ids, offset=0, positions=None: right(self, ids, offset)


@caught_by(1)
def the_context_has_a_place_too_many_in_rotary_models(m):
    def embed(self, ids, offset=0, positions=None):
        if ids.ndim != 2:
            raise ValueError(f"{ids.shape}")
        x = self.tokens(ids)
        if not isinstance(self.positions, m.Rotary):
            x = self.positions(x, offset, positions)
        return self.drop(x)

    m.Transformer.embed = embed


@caught_by(1)
def the_stream_starts_undropped(m):
    right = m.Transformer.__init__

    def __init__(self, config, norm_first, *, rng):
        right(self, config, norm_first, rng=rng)
        self.drop = m.Sequential()

    m.Transformer.__init__ = __init__


def _model(m, change):
    right = m.Transformer.__init__

    def __init__(self, config, norm_first, *, rng):
        right(self, change(config), norm_first, rng=rng)
        self.config = config

    m.Transformer.__init__ = __init__


@caught_by(1)
def all_blocks_have_biases(m):
    import dataclasses

    _model(m, lambda config: dataclasses.replace(config, bias=True))


@caught_by(1)
def the_hidden_width_is_not_handed_on(m):
    import dataclasses

    _model(m, lambda config: dataclasses.replace(config, hidden=None))


@caught_by(1)
def all_blocks_are_one(m):
    right = m.Transformer.__init__

    def __init__(self, config, norm_first, *, rng):
        right(self, config, norm_first, rng=rng)
        self.blocks = self.blocks[:1] * config.num_layers

    m.Transformer.__init__ = __init__


def _draw(m, draw):
    m.Transformer.draw = draw


def _drawn(m, self, rng, std=0.02):
    for name, p in self.named_parameters():
        if p.ndim == 2:
            m.normal_(p, std, rng=rng)
        elif name.endswith("bias"):
            p.data[:] = 0


@caught_by(1)
def projections_onto_the_stream_are_drawn_like_others(m):
    _draw(m, lambda self, rng: _drawn(m, self, rng))


@caught_by(1)
def projections_are_smaller_by_the_number_of_blocks(m):
    def draw(self, rng):
        _drawn(m, self, rng)
        for block in self.blocks:
            for last in (block.attn.out_proj, block.mlp.proj):
                last.weight.data /= math.sqrt(self.config.num_layers)

    _draw(m, draw)


@caught_by(1)
def only_attention_s_projection_is_smaller(m):
    def draw(self, rng):
        _drawn(m, self, rng)
        for block in self.blocks:
            block.attn.out_proj.weight.data /= math.sqrt(2 * self.config.num_layers)

    _draw(m, draw)


@caught_by(1)
def weights_stay_as_their_layers_drew_them(m):
    _draw(m, lambda self, rng: None)


@caught_by(1)
def biases_stay_as_they_were_drawn(m):
    right = m.Transformer.draw

    def draw(self, rng):
        before = {n: p.data.copy() for n, p in self.named_parameters() if n.endswith("bias")}
        right(self, rng)
        for name, p in self.named_parameters():
            if name in before:
                p.data[:] = before[name]

    _draw(m, draw)


@caught_by(1)
def each_model_has_a_generator_of_its_own(m):
    right = m.Transformer.draw
    _draw(m, lambda self, rng: right(self, np.random.default_rng(0)))


@caught_by(1)
def the_table_is_copied_for_the_head(m):
    right = m.TinyGPT.__init__

    def __init__(self, config, *, rng):
        right(self, config, rng=rng)
        if config.tied:
            self.head.weight = m.Parameter(self.tokens.weight.data.copy())

    m.TinyGPT.__init__ = __init__


@caught_by(1)
def a_head_of_its_own_has_a_bias(m):
    right = m.TinyGPT.__init__

    def __init__(self, config, *, rng):
        right(self, config, rng=rng)
        if not config.tied:
            self.head = m.Linear(config.dim, config.vocab_size, rng=rng)

    m.TinyGPT.__init__ = __init__


def _gpt(m, read):
    """TinyGPT.forward, whose blocks are read through by `read(self, x, mask, caches)`."""

    def forward(self, ids, mask=None, caches=None, positions=None):
        if caches is not None and len(caches) != len(self.blocks):
            raise ValueError(f"{len(caches)} caches for {len(self.blocks)} blocks")
        x = self.embed(m.as_array(ids), caches[0].length if caches else 0, positions)
        return self.head(read(self, x, mask, caches or [None] * len(self.blocks)))

    m.TinyGPT.forward = forward


def _through(self, x, mask, caches, is_causal=True):
    for block, cache in zip(self.blocks, caches, strict=True):
        x = block(x, mask, is_causal=is_causal, cache=cache)
    return x


@caught_by(1)
def there_is_no_norm_after_the_last_block(m):
    _gpt(m, lambda self, x, mask, caches: _through(self, x, mask, caches))


@caught_by(1)
def a_gpt_sees_the_future(m):
    _gpt(m, lambda self, x, mask, caches: self.ln_f(_through(self, x, mask, caches, is_causal=False)))


@caught_by(1)
def a_gpt_drops_its_mask(m):
    _gpt(m, lambda self, x, mask, caches: self.ln_f(_through(self, x, None, caches)))


@caught_by(1)
def one_cache_serves_all_blocks(m):
    _gpt(m, lambda self, x, mask, caches: self.ln_f(_through(self, x, mask, caches[:1] * len(caches))))


@caught_by(1)
def new_caches_are_one_cache_many_times(m):
    m.TinyGPT.new_caches = lambda self: [m.KVCache()] * len(self.blocks)


@caught_by(1)
def caches_are_not_counted(m):
    right = m.TinyGPT.forward

    def forward(self, ids, mask=None, caches=None, positions=None):
        some = caches
        if caches is not None:
            some = [*caches[: len(self.blocks)], *(m.KVCache() for _ in self.blocks[len(caches) :])]
        return right(self, ids, mask, some, positions)

    m.TinyGPT.forward = forward


@caught_by(1)
def no_caches_are_taken_for_none(m):
    right = m.TinyGPT.forward
    m.TinyGPT.forward = lambda self, ids, mask=None, caches=None, positions=None: right(
        self, ids, mask, caches or None, positions
    )


@caught_by(1)
def an_encoder_is_causal(m):
    right = m.TransformerBlock.forward

    def forward(self, x, mask=None, is_causal=False, cache=None):
        return right(self, x, mask, is_causal or not self.norm_first, cache)

    m.TransformerBlock.forward = forward


@caught_by(1)
def an_encoder_sees_its_padding(m):
    right = m.Encoder.forward

    def forward(self, ids, lengths=None):
        if lengths is not None and np.shape(lengths) != np.shape(ids)[:1]:
            raise ValueError(f"{np.shape(ids)} {np.shape(lengths)}")
        return right(self, ids)

    m.Encoder.forward = forward


@caught_by(1)
def padding_stands_on_the_left(m):
    right = m.padding_mask
    m.padding_mask = lambda lengths, length: right(lengths, length, "left")


def _encoder(m, order):
    def forward(self, ids, lengths=None):
        ids = m.as_array(ids)
        if lengths is not None and np.shape(lengths) != ids.shape[:1]:
            raise ValueError(f"{ids.shape} {np.shape(lengths)}")
        mask = None if lengths is None else m.padding_mask(lengths, ids.shape[1])
        x = self.embed(ids)
        for step in order(self):
            x = step(x, mask) if isinstance(step, m.TransformerBlock) else step(x)
        return x

    m.Encoder.forward = forward


@caught_by(1)
def an_encoder_always_norms_at_the_end(m):
    _encoder(m, lambda self: [*self.blocks, self.norm])


@caught_by(1)
def an_encoder_always_norms_at_the_start(m):
    _encoder(m, lambda self: [self.norm, *self.blocks])


@caught_by(1)
def an_encoder_norms_first_unless_told(m):
    right = m.Encoder.__init__

    def __init__(self, config, norm_first=True, *, rng):
        right(self, config, norm_first, rng=rng)

    m.Encoder.__init__ = __init__


# What it costs.


@caught_by(1)
def a_tied_head_counts_again(m):
    right = m.parameters_by_part

    def parameters_by_part(model):
        parts = right(model)
        head = getattr(model, "head", None)
        return {**parts, "head": head.weight.size if head is not None else 0}

    m.parameters_by_part = parameters_by_part


@caught_by(1)
def frozen_parameters_are_no_parameters(m):
    def parameters_by_part(model):
        frozen = [p for p in model.parameters() if not p.requires_grad]
        for p in frozen:
            p.grad = None
        return {name: 0 if frozen else n for name, n in right(model).items()}

    right, m.parameters_by_part = m.parameters_by_part, parameters_by_part


@caught_by(1)
def the_last_norm_belongs_to_no_part(m):
    right = m.parameters_by_part

    def parameters_by_part(model):
        parts = right(model)
        for name in ("ln_f", "norm"):
            parts["norms"] -= (
                sum(p.size for p in getattr(model, name).parameters()) if hasattr(model, name) else 0
            )
        return parts

    m.parameters_by_part = parameters_by_part


def _bytes(m, change):
    right = m.activation_bytes
    m.activation_bytes = lambda config, batch, length: (
        right(config, batch, length) + change(config) * batch * length
    )


@caught_by(1)
def the_sums_that_attention_keeps_are_forgotten(m):
    _bytes(m, lambda c: -4 * c.num_layers * c.num_heads)


@caught_by(1)
def logits_are_counted_too(m):
    _bytes(m, lambda c: 4 * c.vocab_size)


@caught_by(1)
def keys_are_as_wide_as_queries(m):
    _bytes(m, lambda c: 4 * c.num_layers * 2 * (c.dim - c.kv_dim))


@caught_by(1)
def dropout_keeps_floats(m):
    _bytes(m, lambda c: 3 * (1 + 2 * c.num_layers) * c.dim if c.dropout else 0)


@caught_by(1)
def what_was_turned_is_gone(m):
    _bytes(m, lambda c: -4 * c.num_layers * (c.dim + c.kv_dim) if c.positions == "rotary" else 0)


@caught_by(1)
def hidden_is_always_four_times_as_wide(m):
    _bytes(m, lambda c: 4 * c.num_layers * 2 * (4 * c.dim - c.hidden) if c.hidden else 0)


# Files.


def _write(m, put):
    """write_safetensors by `put(file, header, arrays)`, straight to the path."""

    def write_safetensors(path, arrays, metadata=None):
        plain = {name: m.as_plain(a) for name, a in arrays.items()}
        if "__metadata__" in plain:
            raise ValueError("__metadata__ is no name of an array")
        names = {dtype: name for name, dtype in m.DTYPES.items()}
        header = {"__metadata__": dict(metadata)} if metadata else {}
        end, order = 0, sorted(plain, key=lambda name: -plain[name].itemsize)
        for name in order:
            dtype = names.get(plain[name].dtype.newbyteorder("<"))
            if dtype is None:
                raise TypeError(f"{name} {plain[name].dtype}")
            span = [end, end + plain[name].nbytes]
            header[name] = {"dtype": dtype, "shape": list(plain[name].shape), "data_offsets": span}
            end += plain[name].nbytes
        put(path, header, [plain[name] for name in order])

    m.write_safetensors = write_safetensors


def _little(a):
    return a.astype(a.dtype.newbyteorder("<")).tobytes()


def _whole(path, words, blocks):
    unfinished = f"{path}.part"
    try:
        with open(unfinished, "wb") as file:
            file.write(len(words).to_bytes(8, "little") + words)
            for block in blocks:
                file.write(block)
        os.replace(unfinished, path)
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)


def _padded(header):
    words = json.dumps(header).encode()
    return words + b" " * (-len(words) % 8)


@caught_by(1)
def a_file_is_written_in_place(m):
    def put(path, header, arrays):
        words = _padded(header)
        with open(path, "wb") as file:
            file.write(len(words).to_bytes(8, "little") + words + b"".join(map(_little, arrays)))

    _write(m, put)


@caught_by(1)
def the_length_is_written_big_endian(m):
    def put(path, header, arrays):
        words = _padded(header)
        swapped = int.from_bytes(len(words).to_bytes(8, "little"), "big").to_bytes(8, "little")
        _whole(path, words, map(_little, arrays))
        with open(path, "r+b") as file:
            file.write(swapped)

    _write(m, put)


@caught_by(1)
def numbers_are_written_in_the_order_of_bytes_they_have(m):
    _write(m, lambda path, header, arrays: _whole(path, _padded(header), (a.tobytes() for a in arrays)))


@caught_by(1)
def numbers_are_written_as_they_lie_in_memory(m):
    def put(path, header, arrays):
        _whole(path, _padded(header), (_little(np.ravel(a, order="K")) for a in arrays))

    _write(m, put)


@caught_by(1)
def a_header_has_any_length(m):
    def put(path, header, arrays):
        words = json.dumps(header).encode()
        _whole(path, words + b" " * (-len(words) % 8 or 8) + b" " * 3, map(_little, arrays))

    _write(m, put)


@caught_by(1)
def arrays_come_in_the_order_they_were_given(m):
    right = sorted
    m.sorted = lambda items, key=None: list(items) if key is not None else right(items)


@caught_by(3)
def all_bytes_are_put_together_first(m):
    def put(path, header, arrays):
        _whole(path, _padded(header), [b"".join(map(_little, arrays))])

    _write(m, put)


def _read(m, array_of, check):
    """read_safetensors by `array_of(data, entry)`, with `check(spans, size)` in the end."""

    def read_safetensors(path):
        try:
            header, start = m._header(path)
            header.pop("__metadata__", None)
            data = np.asarray(np.memmap(path, np.uint8, "r"))[start:]
            arrays = {name: array_of(data, entry) for name, entry in header.items()}
            check(sorted(entry["data_offsets"] for entry in header.values()), len(data))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IndexError) as error:
            raise ValueError(f"{path}: {error!r}") from error
        return arrays

    m.read_safetensors = read_safetensors


def _array(m, data, entry, shape=True):
    first, last = entry["data_offsets"]
    narrow = entry["dtype"] == "BF16"
    dtype = np.dtype("<u2") if narrow else m.DTYPES[entry["dtype"]]
    if shape and last - first != math.prod(entry["shape"]) * dtype.itemsize:
        raise ValueError("wrong size")
    array = data[first:last].view(dtype).reshape(entry["shape"])
    return (array.astype("<u4") << 16).view("<f4") if narrow else array


def _exact(spans, size):
    end = 0
    for first, last in spans:
        if first != end:
            raise ValueError("hole or overlap")
        end = last
    if end != size:
        raise ValueError("wrong end")


@caught_by(1)
def arrays_may_overlap(m):
    _read(m, lambda data, entry: _array(m, data, entry), lambda spans, size: None)


@caught_by(1)
def what_follows_the_last_array_is_nobody_s_business(m):
    def check(spans, size):
        _exact(spans, max((last for _, last in spans), default=0))

    _read(m, lambda data, entry: _array(m, data, entry), check)


@caught_by(1)
def the_first_array_may_start_anywhere(m):
    def check(spans, size):
        start = spans[0][0] if spans else 0
        _exact([[a - start, b - start] for a, b in spans], size - start)

    _read(m, lambda data, entry: _array(m, data, entry), check)


@caught_by(1)
def a_shape_may_be_what_reshape_finds(m):
    _read(m, lambda data, entry: _array(m, data, entry, shape=False), _exact)


@caught_by(1)
def bfloat16_is_read_as_float16(m):
    def array_of(data, entry):
        if entry["dtype"] != "BF16":
            return _array(m, data, entry)
        first, last = entry["data_offsets"]
        return data[first:last].view(np.float16).reshape(entry["shape"]).astype(np.float32)

    _read(m, array_of, _exact)


@caught_by(1)
def bfloat16_is_the_lower_half(m):
    def array_of(data, entry):
        array = _array(m, data, entry)
        return (array.view("<u4") >> 16).view("<f4") if entry["dtype"] == "BF16" else array

    _read(m, array_of, _exact)


@caught_by(1)
def offsets_count_from_the_start_of_the_file(m):
    def read_safetensors(path):
        header, _ = m._header(path)
        data = np.asarray(np.memmap(path, np.uint8, "r"))
        return {n: _array(m, data, e) for n, e in header.items() if n != "__metadata__"}

    m.read_safetensors = read_safetensors


@caught_by(1)
def metadata_are_an_array(m):
    right = m._header

    def header(path):
        entries, start = right(path)
        if isinstance(entries, dict) and "__metadata__" in entries:
            entries["metadata"] = entries.pop("__metadata__")
        return entries, start

    m._header = header


@caught_by(1)
def arrays_of_a_file_can_be_written_to(m):
    right = m.read_safetensors
    m.read_safetensors = lambda path: {name: a.copy() for name, a in right(path).items()}


@caught_by(3)
def a_file_is_read_at_once(m):
    right = m.read_safetensors

    def read_safetensors(path):
        arrays = {name: a.copy() for name, a in right(path).items()}
        for a in arrays.values():
            a.flags.writeable = False
        return arrays

    m.read_safetensors = read_safetensors


# GPT-2's names.


def _renamed(m, change):
    right = m.gpt2_state
    m.gpt2_state = lambda state: change(right(state), state)


@caught_by(1)
def weights_are_not_turned(m):
    _renamed(
        m,
        lambda result, state: {
            n: a.T if n.startswith("blocks") and a.ndim == 2 else a for n, a in result.items()
        },
    )


@caught_by(1)
def square_weights_are_not_turned(m):
    def change(result, state):
        return {
            n: a.T if n.startswith("blocks") and a.ndim == 2 and len(a) == a.shape[1] else a
            for n, a in result.items()
        }

    _renamed(m, change)


@caught_by(1)
def every_matrix_is_turned(m):
    _renamed(
        m,
        lambda result, state: {
            n: a.T if n in ("tokens.weight", "positions.weight") else a for n, a in result.items()
        },
    )


@caught_by(1)
def what_is_turned_is_copied(m):
    _renamed(m, lambda result, state: {n: a.copy() for n, a in result.items()})


@caught_by(1)
def only_files_without_a_prefix_are_read(m):
    right = m.gpt2_state

    def gpt2_state(state):
        for name in state:
            if name.startswith("transformer."):
                raise ValueError(f"{name} is no name of GPT-2's")
        return right(state)

    m.gpt2_state = gpt2_state


@caught_by(1)
def the_bias_of_c_attn_is_taken_for_a_mask(m):
    right = m.gpt2_state
    m.gpt2_state = lambda state: right({n: a for n, a in state.items() if not n.endswith("attn.bias")})


@caught_by(1)
def masks_are_unknown_names(m):
    right = m.gpt2_state

    def gpt2_state(state):
        for name in state:
            if name.endswith(".attn.masked_bias"):
                raise ValueError(name)
        return right(state)

    m.gpt2_state = gpt2_state


@caught_by(1)
def unknown_names_are_passed_over(m):
    right = m.gpt2_state

    def gpt2_state(state):
        known = {}
        for name, array in state.items():
            try:
                right({name: array})
            except ValueError:
                continue
            known[name] = array
        return right(known)

    m.gpt2_state = gpt2_state


@caught_by(1)
def the_head_is_always_that_of_the_tokens(m):
    def change(result, state):
        return {**result, "head.weight": result["tokens.weight"]} if "tokens.weight" in result else result

    _renamed(m, change)


@caught_by(1)
def every_loaded_model_is_tied(m):
    right = m.np.array_equal

    class Numpy:
        def __getattr__(self, name):
            return (lambda a, b: True) if name == "array_equal" else getattr(np, name)

    assert right
    m.np = Numpy()


@caught_by(1)
def files_are_told_by_their_names(m):
    right = m.load_gpt2

    def load_gpt2(path, num_heads):
        if not os.fspath(path).endswith((".npz", ".safetensors", "torn", "nowhere")):
            raise ValueError(f"{path} is of no known kind")
        return right(path, num_heads)

    m.load_gpt2 = load_gpt2


@caught_by(1)
def a_loaded_model_is_as_wide_inside_as_usual(m):
    right, config = m.load_gpt2, m.GPTConfig

    def load_gpt2(path, num_heads):
        m.GPTConfig = lambda *args, hidden=None, **options: config(*args, **options)
        try:
            return right(path, num_heads)
        finally:
            m.GPTConfig = config

    m.load_gpt2 = load_gpt2


@caught_by(1)
def pickles_are_read(m):
    def read(path):
        try:
            with np.load(path, allow_pickle=True) as archive:
                return {name: archive[name] for name in archive.files}
        except Exception as error:
            raise ValueError("no whole .npz file") from error

    m._read_npz = read
    right = m.load_gpt2

    def load_gpt2(path, num_heads):
        with open(path, "rb") as file:
            zipped = file.read(2) == b"PK"
        state = read(path) if zipped else None
        if state and any(a.dtype == object for a in state.values()):
            return state
        return right(path, num_heads)

    m.load_gpt2 = load_gpt2


@caught_by(1)
def a_wrong_file_is_a_missing_key(m):
    right = m.load_gpt2

    def load_gpt2(path, num_heads):
        try:
            return right(path, num_heads)
        except ValueError as error:
            if isinstance(error.__cause__, KeyError):
                raise error.__cause__ from None
            raise

    m.load_gpt2 = load_gpt2


# Memory and time.


@caught_by(3)
def a_norm_keeps_its_input_and_what_became_of_it(m):
    right, back = m.layer_norm.forward, m.layer_norm_back

    def forward(x, weight, bias, *, eps=1e-5):
        out, mean, inverse_std = right(x, weight, bias, eps=eps)
        return out, mean, (inverse_std, (m.as_rows(m.floating(x)) - mean) * inverse_std)

    m.layer_norm.forward = forward
    rule(m.layer_norm)(lambda grad, x, weight, mean, inverse_std: back(grad, x, weight, mean, inverse_std[0]))


@caught_by(3)
def a_norm_goes_there_in_float64(m):
    right = m.layer_norm.forward

    def forward(x, weight, bias, *, eps=1e-5):
        x = m.floating(x)
        exact = x.astype(np.float64)
        squares = exact**2 * 2
        out, *saved = right(exact + 0 * squares, weight, bias, eps=eps)
        return (out.astype(x.dtype), *(a.astype(x.dtype) for a in saved))

    m.layer_norm.forward = forward


@caught_by(3)
def a_block_remembers_what_it_read(m):
    right = m.TransformerBlock.forward

    def forward(self, x, mask=None, is_causal=False, cache=None):
        vars(self)["last"] = x
        return right(self, x, mask, is_causal, cache)

    m.TransformerBlock.forward = forward


@caught_by(3)
def a_feed_forward_remembers_its_hidden_layer(m):
    def forward(self, x):
        vars(self)["hidden"] = self.activation(self.fc(x))
        return self.drop(self.proj(self.hidden))

    m.FeedForward.forward = forward


@caught_by(3)
def gelu_is_made_of_single_operations(m):
    from tinytorch.tensor import tanh

    m.gelu = lambda x: x * 0.5 * (1.0 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


@caught_by(3)
def weights_are_copied_on_their_way_into_a_model(m):
    right = m.gpt2_state

    def gpt2_state(state):
        gpt2_state.held = {n: a.copy() for n, a in state.items()}
        return right(state)

    m.gpt2_state = gpt2_state


@caught_by(4)
def a_norm_goes_row_by_row(m):
    right = m.layer_norm.forward

    def forward(x, weight, bias, *, eps=1e-5):
        x = m.floating(x)
        m.check_norm(x, weight, bias)
        rows = m.as_rows(x)
        if not len(rows):
            return right(x, weight, bias, eps=eps)
        parts = [right(row[None], weight, bias, eps=eps) for row in rows]
        out, mean, inverse_std = (np.concatenate(some) for some in zip(*parts, strict=True))
        return out.reshape(x.shape), mean, inverse_std

    m.layer_norm.forward = forward


@caught_by(4)
def a_gradient_is_followed_from_the_end_for_each_block(m):
    right = m.gradient_flow

    def gradient_flow(blocks, x, grad):
        norms = []
        for i in range(len(blocks) + 1):
            norms.append(right(blocks[i:], x, grad)[0])
            if i < len(blocks):
                x = blocks[i](m.Tensor(x)).data
        return norms

    m.gradient_flow = gradient_flow


@caught_by(4)
def an_encoder_reads_text_by_text(m):
    right = m.Encoder.forward
    from tinytorch.tensor import concatenate

    def forward(self, ids, lengths=None):
        ids = m.as_array(ids)
        if ids.ndim != 2 or lengths is None or np.shape(lengths) != ids.shape[:1]:
            return right(self, ids, lengths)
        return concatenate([right(self, ids[i : i + 1], [n]) for i, n in enumerate(lengths)], axis=0)

    m.Encoder.forward = forward


# Norms whose numbers, blocks whose modes and files whose bytes are others' too.


@caught_by(2)
def a_rule_forgets_that_x_may_be_integers(m):
    rewritten(m, "layer_norm_back", ("floating(x)", "x"))


@caught_by(2)
def the_rule_of_rms_norm_forgets_that_x_may_be_integers(m):
    rewritten(m, "rms_norm_back", ("floating(x)", "x"))


@caught_by(2)
def a_norm_in_use_records_nothing(m):
    right = m.LayerNorm.forward

    def forward(self, x):
        if self.training:
            return right(self, x)
        return m.Tensor(m.layer_norm.forward(x.data, self.weight.data, self.bias.data, eps=self.eps)[0])

    m.LayerNorm.forward = forward


@caught_by(1)
def norms_of_one_width_share_their_numbers(m):
    ones = functools.cache(lambda dim: np.ones(dim, np.float32))

    def __init__(self, dim, eps=1e-5):
        self.weight, self.bias = m.Parameter(ones(dim)), m.Parameter(np.zeros(dim, np.float32))
        self.eps = eps

    m.LayerNorm.__init__ = __init__


@caught_by(1)
def rms_norms_of_one_width_share_their_numbers(m):
    ones = functools.cache(lambda dim: np.ones(dim, np.float32))

    def __init__(self, dim, eps=1e-6):
        self.weight, self.eps = m.Parameter(ones(dim)), eps

    m.RMSNorm.__init__ = __init__


@caught_by(1)
def a_feed_forward_drops_by_a_generator_of_its_own(m):
    rewritten(
        m, "FeedForward.__init__", ("nothing(dropout, rng)", "nothing(dropout, np.random.default_rng())")
    )


@caught_by(1)
def a_block_drops_by_a_generator_of_its_own(m):
    rewritten(
        m, "TransformerBlock.__init__", ("nothing(dropout, rng)", "nothing(dropout, np.random.default_rng())")
    )


@caught_by(1)
def the_stream_is_dropped_by_a_generator_of_its_own(m):
    rewritten(
        m, "Transformer.__init__", ("nothing(c.dropout, rng)", "nothing(c.dropout, np.random.default_rng())")
    )


@caught_by(1)
def a_feed_forward_drops_half_whatever_it_is_told(m):
    rewritten(m, "FeedForward.__init__", ("nothing(dropout, rng)", "nothing(dropout and 0.5, rng)"))


@caught_by(1)
def following_a_gradient_freezes_the_parameters(m):
    right = m.gradient_flow

    def gradient_flow(blocks, x, grad):
        for block in blocks:
            block.requires_grad_(False)
        return right(blocks, x, grad)

    m.gradient_flow = gradient_flow


@caught_by(1)
def following_a_gradient_thaws_what_was_frozen(m):
    right = m.gradient_flow

    def gradient_flow(blocks, x, grad):
        for block in blocks:
            block.requires_grad_(False)
        norms = right(blocks, x, grad)
        for block in blocks:
            block.requires_grad_(True)
        return norms

    m.gradient_flow = gradient_flow


@caught_by(1)
def following_a_gradient_ends_training(m):
    right = m.gradient_flow

    def gradient_flow(blocks, x, grad):
        return right([block.eval() for block in blocks], x, grad)

    m.gradient_flow = gradient_flow


@caught_by(1)
def all_parts_train_after_a_gradient_was_followed(m):
    right = m.gradient_flow

    def gradient_flow(blocks, x, grad):
        norms = right([block.eval() for block in blocks], x, grad)
        for block in blocks:
            block.train()
        return norms

    m.gradient_flow = gradient_flow


@caught_by(1)
def caches_are_counted_when_they_have_grown(m):
    rewritten(
        m,
        "TinyGPT.forward",
        (
            "if caches is not None and len(caches) != len(self.blocks):",
            "if caches is not None and not caches:",
        ),
        (
            "x = block(x, mask",
            "if caches is not None and (i >= len(caches) or i + 1 == len(self.blocks) < len(caches)):\n"
            "            raise ValueError(f'{len(caches)} caches, {len(self.blocks)} blocks')\n"
            "        x = block(x, mask",
        ),
    )


@caught_by(1)
def a_model_counts_where_its_ids_stand(m):
    right = m.TinyGPT.new_caches

    def new_caches(self):
        self.stands = 0
        return right(self)

    m.TinyGPT.new_caches = new_caches
    rewritten(
        m,
        "TinyGPT.forward",
        ("caches[0].length if caches else 0", "self.stands if caches else 0"),
        ("logits: Tensor", "self.stands = offset + x.shape[1]\n    logits: Tensor"),
    )


@caught_by(1)
def logits_are_remembered_by_their_ids(m):
    right = m.TinyGPT.forward

    def forward(self, ids, mask=None, caches=None, positions=None):
        if (
            m.Tensor(np.ones(1), requires_grad=True).exp().requires_grad
            or caches is not None
            or mask is not None
        ):
            return right(self, ids, mask, caches, positions)
        known = self.__dict__.setdefault("known", {})
        key = m.as_array(ids).tobytes()
        if key not in known:
            known[key] = right(self, ids, None, None, positions)
        return known[key]

    m.TinyGPT.forward = forward


@caught_by(3)
def a_gpt_makes_a_table_of_what_is_seen(m):
    def forward(self, ids, mask=None, caches=None, positions=None):
        if caches is not None and len(caches) != len(self.blocks):
            raise ValueError(f"{len(caches)} caches for {len(self.blocks)} blocks")
        offset = caches[0].length if caches else 0
        x = self.embed(m.as_array(ids), offset, positions)
        sees = np.tri(x.shape[1], offset + x.shape[1], offset, dtype=bool)
        if mask is not None:
            sees = sees & m.as_array(mask)
        for i, block in enumerate(self.blocks):
            x = block(x, sees, cache=None if caches is None else caches[i])
        return self.head(self.ln_f(x))

    m.TinyGPT.forward = forward


@caught_by(1)
def drawing_makes_new_parameters(m):
    rewritten(
        m,
        "Transformer.draw",
        ("last.weight.data /= math.sqrt(", "last.weight = Parameter(last.weight.data / math.sqrt("),
        ("num_layers)", "num_layers))"),
    )


@caught_by(1)
def an_encoder_draws_no_smaller_projections(m):
    def draw(self, rng):
        m.initialise(self, functools.partial(m.normal_, std=0.02), rng=rng)

    m.Encoder.draw = draw


@caught_by(1)
def padding_that_all_texts_have_is_cut_off(m):
    right = m.Encoder.forward

    def forward(self, ids, lengths=None):
        ids = m.as_array(ids)
        if np.shape(lengths) == ids.shape[:1]:
            ids = ids[:, : max(lengths)]
        return right(self, ids, lengths)

    m.Encoder.forward = forward


@caught_by(1)
def masks_are_remembered_by_the_id_of_their_lengths(m):
    right, known = m.padding_mask, {}

    def padding_mask(lengths, size):
        if id(lengths) not in known:
            known[id(lengths)] = lengths, right(lengths, size)
        return known[id(lengths)][1]

    m.padding_mask = padding_mask


@caught_by(1)
def padding_is_written_over_in_the_ids_of_the_caller(m):
    right = m.Encoder.forward

    def forward(self, ids, lengths=None):
        ids = m.as_array(ids)
        if np.shape(lengths) == ids.shape[:1]:
            ids[np.arange(ids.shape[1]) >= np.asarray(lengths)[:, None]] = 0
        return right(self, ids, lengths)

    m.Encoder.forward = forward


@caught_by(1)
def counting_parameters_thaws_them(m):
    right = m.parameters_by_part
    m.parameters_by_part = lambda model: right(model.requires_grad_())


@caught_by(1)
def activations_are_a_float(m):
    rewritten(m, "activation_bytes", ("4 * c.dim if", "4.0 * c.dim if"))


@caught_by(3)
def bytes_are_made_of_each_array(m):
    rewritten(m, "write_safetensors", ("array.reshape(-1).view(np.uint8).data", "array.tobytes()"))


@caught_by(1)
def an_array_may_have_the_name_of_the_words(m):
    rewritten(m, "write_safetensors", ('if "__metadata__" in plain', "if False"))


@caught_by(4)
def bfloat16_is_widened_number_by_number(m):
    rewritten(
        m,
        "read_safetensors",
        (
            '(array.astype("<u4") << 16).view("<f4") if',
            'np.array([n << 16 for n in array.ravel().tolist()], "<u4").view("<f4").reshape(array.shape) if',
        ),
    )


@caught_by(4)
def each_array_is_compared_with_each_other(m):
    right = m.read_safetensors

    def read_safetensors(path):
        arrays = right(path)
        spans = [(entry.ctypes.data, entry.ctypes.data + entry.nbytes) for entry in arrays.values()]
        for i, (a, b) in enumerate(spans):
            for j, (c, d) in enumerate(spans):
                if i != j and a < d and c < b:
                    raise ValueError(f"{path}: two arrays overlap")
        return arrays

    m.read_safetensors = read_safetensors


@caught_by(1)
def blocks_have_one_digit(m):
    rewritten(m, "gpt2_state", ('where.split(".", 2)', 'where.split(".", 2)\n            number = number[0]'))


@caught_by(1)
def blocks_are_as_many_as_the_last_name_in_the_alphabet_says(m):
    rewritten(
        m,
        "load_gpt2",
        (
            'len({name.split(".")[1] for name in state if name.startswith("blocks.")})',
            'int(max(name.split(".")[1] for name in state if name.startswith("blocks."))) + 1',
        ),
    )


@caught_by(1)
def names_are_taken_out_of_the_state_that_is_given(m):
    right = m.gpt2_state

    def gpt2_state(state):
        found = right(state)
        state.clear()
        return found

    m.gpt2_state = gpt2_state


@caught_by(1)
def weights_of_a_model_are_the_memory_of_their_file(m):
    right = m.load_gpt2

    def load_gpt2(path, num_heads):
        model = right(path, num_heads)
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                return model
        state = m.gpt2_state(m.read_safetensors(path))
        for name, parameter in model.named_parameters():
            parameter.data = np.asarray(state[name], np.float32)
        return model

    m.load_gpt2 = load_gpt2


@caught_by(1)
def floats_are_cut_off_to_ids(m):
    rewritten(m, "Encoder.forward", ("as_array(ids)", "as_array(ids).astype(int)"))


@caught_by(1)
def lengths_beyond_the_end_are_cut_off(m):
    rewritten(
        m, "Encoder.forward", ("padding_mask(lengths,", "padding_mask(np.minimum(lengths, ids.shape[1]),")
    )


@caught_by(1)
def a_mask_is_forgotten_where_there_is_a_cache(m):
    rewritten(m, "TransformerBlock.forward", ("mask=mask", "mask=mask if cache is None else None"))


@caught_by(1)
def a_feed_forward_in_use_always_has_a_gelu(m):
    rewritten(m, "FeedForward.forward", ("self.activation(", "(self.activation if self.training else gelu)("))


@caught_by(1)
def rms_norm_squares_small_integers_as_they_are(m):
    rewritten(
        m,
        "rms_norm",
        ("x = floating(x)", "given = as_rows(np.asarray(x)); x = floating(x)"),
        ("mean_square(rows)", "mean_square(given).astype(x.dtype)"),
    )


@caught_by(1)
def a_feed_forward_is_drawn_before_its_attention(m):
    made = "self.mlp = FeedForward(dim, hidden, dropout, bias, rng=rng)"
    rewritten(
        m,
        "TransformerBlock.__init__",
        (made, "pass"),
        ("self.ln1 = norm(dim)", f"self.ln1 = norm(dim); {made}"),
    )


def _following_in_mode(m, training):
    follow = m.gradient_flow

    def gradient_flow(blocks, x, grad):
        before = [(module, module.training) for block in blocks for module in block.modules()]
        for block in blocks:
            block.train(training)
        norms = follow(blocks, x, grad)
        for module, was in before:
            module.training = was
        return norms

    m.gradient_flow = gradient_flow


@caught_by(1)
def a_gradient_is_followed_through_blocks_in_use(m):
    _following_in_mode(m, False)


@caught_by(1)
def a_gradient_is_followed_through_blocks_in_training(m):
    _following_in_mode(m, True)


@caught_by(1)
def weights_are_drawn_evenly(m):
    def uniform(array, *, std, rng):
        data = m.as_plain(array)
        data[...] = rng.uniform(-std * math.sqrt(3), std * math.sqrt(3), data.shape)
        return array

    m.normal_ = uniform


@caught_by(1)
def an_encoder_makes_its_mask_before_it_looks_at_its_ids(m):
    rewritten(
        m,
        "Encoder.forward",
        ("x = self.embed(ids)\n", "pass\n"),
        ("if not self.norm_first:", "x = self.embed(ids)\n    if not self.norm_first:"),
    )


@caught_by(1)
def names_of_dtypes_are_made_of_their_kind_and_size(m):
    class Names(dict):
        def get(self, dtype):
            if dtype.kind == "b":
                return "BOOL"
            return f"{dtype.kind.upper()}{8 * dtype.itemsize}" if dtype.kind in "iufc" else None

    m.Names = Names
    rewritten(m, "write_safetensors", ("{dtype: name for name, dtype in DTYPES.items()}", "Names()"))


@caught_by(1)
def arrays_are_sorted_by_their_start_alone(m):
    rewritten(
        m,
        "read_safetensors",
        (
            'sorted(entry["data_offsets"] for entry in header.values())',
            'sorted((entry["data_offsets"] for entry in header.values()), key=lambda span: span[0])',
        ),
    )


@caught_by(3)
def an_rms_norm_is_made_of_single_operations(m):
    def forward(self, x):
        return x / sqrt(mean(x * x, axis=-1, keepdims=True) + self.eps) * self.weight

    from tinytorch.tensor import mean, sqrt

    m.RMSNorm.forward = forward


EQUIVALENT: dict[str, str] = {
    "as_plain: array.data if isinstance(array, Tensor) else np.asarray(array) -> np.asarray(array)": (
        "numpy makes the same array of a Tensor, number by number"
    ),
    "Transformer.draw: increment_version(last.weight.data) -> pass": (
        "normal_ noted a write over the same weights a moment ago"
    ),
    "_header: if not isinstance(header, dict): -> if False:": (
        "what is no dict has no pop that takes two arguments: the same ValueError"
    ),
    "_header: raise ValueError(...) -> pass #2": (
        "what is no dict has no pop that takes two arguments: the same ValueError"
    ),
    "load_gpt2: np.random.default_rng(0) -> np.random.default_rng(1)": "all that is drawn is written over",
}
