"""Mistakes in a framework that milestone 3 must notice, whatever the katas' own suites let through."""

import numpy as np

from dojo.mistakes import caught_by


@caught_by(1, kata="11")
def equally_frequent_pairs_are_joined_in_the_order_of_their_sight(m):
    right = m.train_merges

    def train_merges(words, count, min_frequency=2):
        merges = right(words, count, min_frequency)
        return merges[:40] + merges[41:42] + merges[40:41] + merges[42:] if len(merges) > 42 else merges

    m.train_merges = train_merges


@caught_by(1, kata="11")
def characters_that_are_not_ascii_get_lost(m):
    right = m.BPETokenizer.encode_ordinary

    def encode_ordinary(self, text):
        return right(self, text.encode("ascii", "replace").decode())

    m.BPETokenizer.encode_ordinary = encode_ordinary


@caught_by(1, kata="12")
def rotations_go_the_other_way(m):
    right = m.rotary.forward
    m.rotary.forward = lambda x, *, cos, sin: right(x, cos=cos, sin=-sin)


@caught_by(1, kata="12")
def the_offset_of_positions_is_forgotten(m):
    right = m.Rotary.forward
    m.Rotary.forward = lambda self, x, offset=0: right(self, x)


@caught_by(1, kata="12")
def rows_that_are_looked_up_twice_get_one_gradient(m):

    needs = m.embedding.needs
    right = m.embedding.pull

    def pull(grad, *kept):
        told = dict(zip(needs, kept, strict=True))
        ids = np.asarray(told["ids"])
        first = np.zeros(ids.size, bool)
        first[np.unique(ids, return_index=True)[1]] = True
        return right(grad * first.reshape(*ids.shape, 1), *kept)

    m.embedding.pull = pull


@caught_by(1, kata="13")
def scores_are_not_scaled(m):
    right = m.fused_attention.forward

    def fused_attention(q, k, v, *, scale=None, **options):
        return right(q, k, v, scale=1.0, **options)

    m.fused_attention.forward = fused_attention


@caught_by(1, kata="13")
def every_token_sees_the_next_one(m):
    right = m.hide

    def hide(scores, mask, here, there, ahead):
        right(scores, mask, here, there, None if ahead is None else ahead + 1)

    m.hide = hide


@caught_by(1, kata="13")
def heads_are_joined_in_the_wrong_order(m):
    right = m.merge_heads
    m.merge_heads = lambda x: right(x[:, ::-1])


@caught_by(1, kata="13")
def the_cache_forgets_its_oldest_token(m):
    right = m.KVCache.append

    def append(self, k, v):
        keys, values = right(self, k, v)
        return (keys[:, :, 1:], values[:, :, 1:]) if keys.shape[2] > 4 else (keys, values)

    m.KVCache.append = append


@caught_by(1, kata="13")
def keys_get_the_gradient_of_values(m):
    right = m.fused_attention.pull

    def back(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk):
        for_q, for_k, for_v = right(grad, q, k, v, out, logsumexp, mask, is_causal, scale, chunk)
        return for_q, for_v, for_k

    m.fused_attention.gradient(back)


@caught_by(1, kata="14")
def norms_divide_by_one_less(m):
    right = m.layer_norm.forward

    def layer_norm(x, weight, bias, *, eps=1e-5):
        out, mean, inverse_std = right(x, weight, bias, eps=eps)
        shrink = np.sqrt(1 - 1 / x.shape[-1]).astype(out.dtype)
        return (out - bias) * shrink + bias, mean, inverse_std * shrink

    m.layer_norm.forward = layer_norm


@caught_by(1, kata="14")
def the_stream_is_replaced_and_not_added_to(m):
    def pre_norm(self, x, attend):
        x = self.drop(attend(self.ln1(x)))
        return x + self.mlp(self.ln2(x))

    m.TransformerBlock.pre_norm = pre_norm


@caught_by(1, kata="14")
def the_last_norm_is_left_out(m):
    right = m.TinyGPT.__init__

    def init(self, config, *, rng):
        right(self, config, rng=rng)
        self.ln_f.forward = lambda x: x

    m.TinyGPT.__init__ = init


@caught_by(1, kata="15")
def targets_are_the_tokens_themselves(m):
    right = m.TokenDataset.__getitems__

    def items(self, indices):
        ids, _ = right(self, indices)
        return ids, ids

    m.TokenDataset.__getitems__ = items


@caught_by(1, kata="15")
def norms_and_biases_decay_too(m):
    def decay_groups(model, weight_decay):
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]

    m.decay_groups = decay_groups


@caught_by(1, kata="15")
def the_rate_does_not_fall(m):
    right = m.warmup_cosine
    m.warmup_cosine = lambda optimizer, steps, warmup, least=0.1: right(optimizer, steps, warmup, 1.0)


@caught_by(1, kata="15")
def bits_are_counted_for_tokens(m):
    right = m.bits_per_character
    m.bits_per_character = lambda nats, tokens, characters: right(nats, 1, 1)


@caught_by(1, kata="10")
def gradients_are_not_cut(m):
    m.clip_grad_norm_ = lambda parameters, max_norm: 0.0


@caught_by(3, kata="10")
def a_checkpoint_leaves_the_optimizer_out(m):
    right = m.Trainer.load_state_dict

    def load_state_dict(self, saved):
        right(self, {**saved, "optimizer": self.optimizer.state_dict()})

    m.Trainer.load_state_dict = load_state_dict


@caught_by(1, kata="15")
def a_penalty_is_forgotten(m):
    m.RepetitionPenalty.__call__ = lambda self, logits, ids: logits


@caught_by(1, kata="15")
def a_penalty_is_for_the_last_token_alone(m):
    right = m.RepetitionPenalty.__call__
    m.RepetitionPenalty.__call__ = lambda self, logits, ids: right(self, logits, ids[:, -1:])


@caught_by(1, kata="15")
def more_than_the_likeliest_ten_stay(m):
    m.TopK.__call__ = lambda self, logits, ids: logits


@caught_by(1, kata="15")
def more_than_the_likeliest_that_make_a_share_stay(m):
    m.TopP.__call__ = lambda self, logits, ids: logits


@caught_by(1, kata="15")
def a_temperature_multiplies(m):
    m.Temperature.__call__ = lambda self, logits, ids: logits * self.t


@caught_by(1, kata="15")
def the_likeliest_is_drawn_always(m):
    m.sample = lambda logits, *, rng: m.greedy(logits)


@caught_by(1, kata="15")
def the_window_moves_by_one(m):
    m.window_start = lambda length, context: np.maximum(0, length - context)


@caught_by(1, kata="15")
def a_text_comes_when_all_of_it_is_there(m):
    right = m.text_stream

    def text_stream(tokenizer, ids):
        yield from right(tokenizer, list(ids))

    m.text_stream = text_stream


@caught_by(2, kata="15")
def the_loss_is_that_of_what_was_learnt(m):
    right = m.train_language_model

    def train_language_model(model, ids, *, validation=None, **how):
        return right(model, ids, validation=None if validation is None else ids[: len(validation)], **how)

    m.train_language_model = train_language_model
