"""Milestone 3 beside PyTorch: the same TinyGPT on the same batches, in turns, step by step; then both write.

    python -m benchmarks.language                 all of it: half an hour on one core
    python -m benchmarks.language --steps 20      a short form
    python -m benchmarks.language --record        all of it, into the milestone's recorded.json

Both start with the same weights. Time is that of the whole step: windows, forward, backward, update. PyTorch
has its fused attention and runs eagerly, and writes with caches of the same kind: keys and values put into
memory that was laid out before, or added at the end of those there are.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.beside import pairs_of, pytorch, reference
from benchmarks.turns import command, peak_of, race

compose: Any = reference("dojo.compose")
curriculum: Any = reference("dojo.curriculum")
generation: Any = reference("tinytorch.generation")
optimizers: Any = reference("tinytorch.optimizers")
torch: Any = pytorch()
nn, functional = torch.nn, torch.nn.functional
FOLDER = curriculum.ROOT / "katas/milestones/m3_language"
SHORT = 10  # steps, to see how much memory is taken
BETAS = (0.9, 0.95)
ROUNDS = 7  # of writing, in turns


class Ours:
    """A story, its batches, and a training that can be halted between two steps."""

    def __init__(self, steps: int | None = None) -> None:
        self.m3 = compose.load_file(FOLDER / "language.py")
        self.story = self.m3.Story(self.m3.RECIPES["shakespeare"])
        self.recipe, self.model = self.story.recipe, self.story.model
        self.steps = steps or self.recipe.steps

    def batches(self) -> Any:
        recipe = self.recipe
        return generation.token_batches(
            self.story.ids, recipe.context, recipe.batch, batches=self.steps, rng=self.story.for_windows
        )

    def rates(self, optimizer: Any) -> Any:
        warmup = min(self.recipe.warmup, self.steps // 2 or 1)
        return generation.warmup_cosine(optimizer, max(self.steps, 2), warmup)

    def run(self) -> Iterator[float]:
        """The loss of each step."""
        optimizer = optimizers.AdamW(
            generation.decay_groups(self.model, self.recipe.decay), lr=self.recipe.lr, betas=BETAS
        )
        schedule, parameters = self.rates(optimizer), list(self.model.parameters())
        for ids, targets in self.batches():
            optimizer.zero_grad()
            loss = generation.language_model_loss(self.model(ids), targets)
            loss.backward()
            optimizers.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            yield loss.item()

    def unseen(self) -> float:
        """Nats a character of the text that was not learnt."""
        return float(self.story.loss()[0])

    def write(self, prompt: Any, tokens: int, use_cache: bool = True) -> list[int]:
        """The likeliest tokens after a prompt (1, T)."""
        columns = generation.stream(self.model, prompt, tokens, use_cache=use_cache)
        return [int(column[0]) for column in columns]


class Block(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.ModuleDict({"qkv_proj": nn.Linear(dim, 3 * dim), "out_proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc": nn.Linear(dim, 4 * dim), "proj": nn.Linear(4 * dim, dim)})

    def forward(self, x: Any, cos: Any, sin: Any, cache: Any = None) -> Any:
        batch, length, dim = x.shape
        parts = self.attn["qkv_proj"](self.ln1(x)).split(dim, 2)
        q, k, v = (p.view(batch, length, self.heads, -1).transpose(1, 2) for p in parts)
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        if cache is not None:
            k, v = cache.append(k, v)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        x = x + self.attn["out_proj"](found.transpose(1, 2).reshape(batch, length, dim))
        return x + self.mlp["proj"](functional.gelu(self.mlp["fc"](self.ln2(x)), approximate="tanh"))


def turned(x: Any, cos: Any, sin: Any) -> Any:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class GPT(nn.Module):  # type: ignore[misc, name-defined]
    """The same model, with the same names of weights."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config.dim, config.num_heads) for _ in range(config.num_layers))
        self.ln_f = nn.LayerNorm(config.dim)
        width = config.dim // config.num_heads
        angles = torch.outer(torch.arange(config.context), 10_000.0 ** (-torch.arange(0, width, 2) / width))
        self.cos, self.sin = angles.cos(), angles.sin()

    def forward(self, ids: Any, caches: Any = None, offset: int = 0) -> Any:
        rows = slice(offset, offset + ids.shape[1])
        x = self.tokens(ids)
        for i, block in enumerate(self.blocks):
            x = block(x, self.cos[rows], self.sin[rows], caches[i] if caches else None)
        return self.ln_f(x) @ self.tokens.weight.T


class Concatenated:
    """Keys and values, each new one put to the end of all others."""

    def __init__(self, config: Any) -> None:
        self.held: tuple[Any, ...] = ()

    def append(self, *new: Any) -> tuple[Any, ...]:
        self.held = (
            tuple(torch.cat(pair, dim=2) for pair in zip(self.held, new, strict=True)) if self.held else new
        )
        return self.held


class LaidOut:
    """Keys and values in memory for all of the context."""

    def __init__(self, config: Any) -> None:
        shape = (1, config.num_heads, config.context, config.dim // config.num_heads)
        self.memory, self.length = (torch.empty(shape), torch.empty(shape)), 0

    def append(self, *new: Any) -> tuple[Any, ...]:
        start, self.length = self.length, self.length + new[0].shape[2]
        for held, x in zip(self.memory, new, strict=True):
            held[:, :, start : self.length] = x
        return tuple(held[:, :, : self.length] for held in self.memory)


class Theirs:
    """The same in PyTorch, on batches of the same seed."""

    def __init__(self, steps: int | None = None) -> None:
        self.ours = Ours(steps)
        self.config = self.ours.model.config
        self.model = GPT(self.config)
        state = {name: torch.tensor(p.data) for name, p in self.ours.model.named_parameters()}
        self.model.load_state_dict(state)

    def run(self) -> Iterator[float]:
        recipe, parameters = self.ours.recipe, list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.decay},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=BETAS)
        shadow = optimizers.SGD(self.ours.model.parameters(), lr=recipe.lr)  # for the schedule alone
        schedule = self.ours.rates(shadow)
        for ids, targets in self.ours.batches():
            for group in optimizer.param_groups:
                group["lr"] = shadow.param_groups[0]["lr"]
            optimizer.zero_grad()
            logits = self.model(torch.tensor(ids))
            loss = functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            yield loss.item()

    def unseen(self) -> float:
        """By the weights that were learnt, put back into ours: both are tried in the same way."""
        arrays = {name: p.detach().numpy() for name, p in self.model.named_parameters()}
        self.ours.model.load_state_dict(arrays, strict=False)
        return self.ours.unseen()

    def write(self, prompt: Any, tokens: int, kind: Callable[[Any], Any] | None) -> list[int]:
        ids, new = torch.tensor(prompt), []
        caches = [kind(self.config) for _ in self.model.blocks] if kind else None
        with torch.no_grad():
            for _ in range(tokens):
                seen = ids if not (caches and new) else ids[:, -1:]
                offset = ids.shape[1] - seen.shape[1]
                chosen = self.model(seen, caches, offset)[:, -1].argmax(dim=-1, keepdim=True)
                new.append(int(chosen))
                ids = torch.cat((ids, chosen), dim=1)
        return new


SIDES: dict[str, Callable[[int | None], Any]] = {"tinytorch": Ours, "pytorch": Theirs}


def writing() -> dict[str, Any]:
    """Tokens a second of CPU time, of both at the same weights, over all of the context but a prompt of 8."""
    theirs = Theirs(1)
    ours = theirs.ours
    prompt, tokens = ours.story.ids[None, :8], theirs.config.context - 8
    result: dict[str, Any] = {"tokens": tokens}
    for name, mine, kind in (
        ("laid out", True, LaidOut),
        ("concatenated", True, Concatenated),
        ("no cache", False, None),
    ):
        if ours.write(prompt, tokens, mine) != theirs.write(prompt, tokens, kind):
            print(f"{name}: the two do not write the same")
        _, fast, other = pairs_of(
            lambda mine=mine: ours.write(prompt, tokens, mine),
            lambda kind=kind: theirs.write(prompt, tokens, kind),
            ROUNDS,
        )
        result[name] = {
            "times as many as pytorch": statistics.median(other) / statistics.median(fast),
            "tinytorch": tokens / statistics.median(fast),
            "pytorch": tokens / statistics.median(other),
        }
    return result


def compared(steps: int | None) -> dict[str, Any]:
    """Train both in turns, try both on unseen text, and let both write."""
    sides = {name: make(steps) for name, make in SIDES.items()}
    one = sides["tinytorch"]
    rows = one.recipe.batch * one.recipe.context
    result = race({name: side.run() for name, side in sides.items()}, one.steps, rows, "tokens")
    result |= {"steps": one.steps, "torch": torch.__version__, "tokens per cpu second, writing": writing()}
    for name, side in sides.items():
        result[name]["unseen nats"] = side.unseen()
        result[name]["peak MiB"] = peak_of(
            f"from benchmarks import language\n[*language.SIDES[{name!r}]({SHORT}).run()]"
        )
    return result


if __name__ == "__main__":
    command(__doc__, compared, FOLDER)
