"""What this milestone trains: a TinyGPT that writes, on the tinytorch that you built.

Tokenizer, model, optimizer, training and writing are yours; here they are put together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dojo import datasets
from tinytorch.generation import (
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    bits_per_character,
    evaluate,
    stream,
    text_stream,
    train_language_model,
)
from tinytorch.layers import Module
from tinytorch.tokenization import BPETokenizer, CharTokenizer, Tokenizer
from tinytorch.training import Callback, evaluating
from tinytorch.transformers import GPTConfig, TinyGPT

Array = np.ndarray[Any, Any]

LEARNT = 0.9  # of a text is learnt; the rest is kept for the trial


@dataclass(frozen=True)
class Recipe:
    """How a model is made and trained, and on what.

    `vocabulary` is the number of tokens of a byte-pair encoding; without it a token is a character. Every
    `every` steps the model is tried on the part of the text that it has not seen.
    """

    data: str
    vocabulary: int = 0
    steps: int = 400
    every: int = 100
    context: int = 64
    dim: int = 96
    layers: int = 3
    heads: int = 4
    batch: int = 16
    lr: float = 3e-3
    warmup: int = 40
    decay: float = 0.1
    positions: str = "rotary"


LONG = {"steps": 1000, "every": 200, "context": 128, "dim": 128, "layers": 4, "batch": 32, "warmup": 100}
RECIPES = {
    "pydoc": Recipe("pydoc"),
    "shakespeare": Recipe("shakespeare", **LONG),
}
# Where tokens are pieces of words, 64 of them see as far as 128 characters and more, and a step costs less.
BPE = {"pydoc": {"vocabulary": 512}, "shakespeare": {"vocabulary": 1024, "context": 64}}


# Text.


def text_of(data: str) -> str:
    """The documentation that every Python carries, or scenes of Shakespeare's from the data folder."""
    if data == "shakespeare":
        return datasets.tiny_shakespeare()
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def parts_of(text: str) -> tuple[str, str]:
    """What is to be learnt, and what the model is tried on."""
    border = int(len(text) * LEARNT)
    return text[:border], text[border:]


def tokenizer_of(recipe: Recipe, text: str) -> Tokenizer:
    """All characters of the text, or byte pairs that are frequent in the part that is learnt."""
    if recipe.vocabulary:
        return BPETokenizer.train(parts_of(text)[0], recipe.vocabulary)
    return CharTokenizer.train(text)


# The model.


def model_of(recipe: Recipe, tokens: int, *, rng: np.random.Generator) -> TinyGPT:
    config = GPTConfig(
        tokens,
        recipe.context,
        recipe.dim,
        recipe.layers,
        recipe.heads,
        positions=recipe.positions,
    )
    return TinyGPT(config, rng=rng)


class Story:
    """A tokenizer, a model at its start, and the ids of the text that it is to learn and to be tried on."""

    def __init__(self, recipe: Recipe, text: str | None = None, *, seed: int = 0) -> None:
        text = text_of(recipe.data) if text is None else text
        for_weights, self.for_windows = np.random.default_rng(seed).spawn(2)
        self.recipe = recipe
        self.tokenizer = tokenizer_of(recipe, text)
        self.model = model_of(recipe, self.tokenizer.vocab_size, rng=for_weights)
        learnt, self.unseen = parts_of(text)
        self.ids, self.unseen_ids = self.tokenizer.encode(learnt), self.tokenizer.encode(self.unseen)

    def train(self, callbacks: Sequence[Callback] = (), checkpoint: Any = None) -> dict[str, list[float]]:
        """Train the model by the recipe; the same call again goes on from a checkpoint."""
        recipe = self.recipe
        return train_language_model(
            self.model,
            self.ids,
            steps=recipe.steps,
            batch_size=recipe.batch,
            lr=recipe.lr,
            rng=self.for_windows,
            validation=self.unseen_ids,
            every=recipe.every,
            warmup=recipe.warmup,
            weight_decay=recipe.decay,
            callbacks=callbacks,
            checkpoint=checkpoint,
        )

    def loss(self) -> tuple[float, float]:
        """Nats and bits a character of the text that was not learnt."""
        tokens, characters = len(self.unseen_ids) - 1, len(self.unseen)
        nats = evaluate(self.model, self.unseen_ids)
        return nats * tokens / characters, bits_per_character(nats, tokens, characters)


# Writing.

# Name, and what makes of the likelihood of tokens what is drawn from.
MANNERS: dict[str, tuple[Any, ...]] = {
    "the likeliest": (),
    "temperature 0.8": (Temperature(0.8),),
    "the 10 likeliest": (TopK(10),),
    "the likeliest that make 90 %": (Temperature(0.8), TopP(0.9)),
    "without repeating itself": (RepetitionPenalty(1.3), Temperature(0.8)),
}


def written(story: Story, prompt: str, tokens: int, manner: str, seed: int = 0) -> Iterator[str]:
    """What the model writes after a prompt, piece by piece, each as soon as it is there."""
    processors = MANNERS[manner]
    rng = np.random.default_rng(seed) if processors else None
    ids = story.tokenizer.encode(prompt)[None]
    new = stream(story.model, ids, tokens, processors=processors, rng=rng)
    return text_stream(story.tokenizer, (int(column[0]) for column in new))


def pace(model: TinyGPT, prompt: Array, tokens: int, *, use_cache: bool) -> tuple[Array, float]:
    """The likeliest `tokens` ids after a prompt (T,), and how many come in a second of the processor."""
    begin = time.process_time()
    new = [column[0] for column in stream(model, prompt[None], tokens, use_cache=use_cache)]
    return np.array(new), tokens / max(time.process_time() - begin, 1e-9)


def attention_maps(model: TinyGPT, ids: Array) -> list[Array]:
    """How much each place of ids (T,) heeds each other one: (heads, T, T) for each layer."""
    maps: list[Array] = []

    def look(attention: Module, inputs: tuple[Any, ...], out: Any) -> None:
        maps.append(attention.attention_maps(inputs[0], is_causal=True)[0])

    removers = [block.attn.register_forward_hook(look) for block in model.blocks]
    try:
        with evaluating(model):
            model(ids[None])
    finally:
        for remove in removers:
            remove()
    return maps
