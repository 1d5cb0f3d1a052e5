"""Train a TinyGPT on your tinytorch and let it write: `dojo milestone m3`."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from dojo import pictures
from dojo.compose import load_file
from dojo.console.screen import Screen
from dojo.plugin.real_data import why_missing
from tinytorch.layers import count_parameters
from tinytorch.training import Callback

HERE = Path(__file__).parent
M3 = load_file(HERE / "language.py")
REPORT = load_file(HERE / "report.py")
RUN = load_file(HERE.parent / "run.py")

Array = np.ndarray[Any, Any]

NEEDS = {"pydoc": None, "shakespeare": "tinyshakespeare"}  # the data set, if it is not in every Python
MAP = 32  # tokens of a text whose attention is shown
SAMPLE = 60  # tokens of the text that is shown after each epoch
PACED = 48  # tokens for the race of generation with and without a cache


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dojo milestone m3", description=(__doc__ or "").partition(":")[0])
    option = parser.add_argument
    option("data", nargs="?", choices=list(M3.RECIPES), default="pydoc", help="to learn (pydoc)")
    option("--bpe", action="store_true", help="tokens are byte pairs, not characters")
    option("--steps", type=int, metavar="N", help="how many batches are learnt from")
    option("--every", type=int, metavar="N", help="steps from one trial and checkpoint to the next")
    option("--seed", type=int, default=0, help="of weights, windows and writing (0)")
    option("--resume", action="store_true", help="go on with a training that was stopped")
    option("--to", type=Path, metavar="FOLDER", help="for checkpoint and report (runs/m3_DATA)")
    option("--prompt", default="The ", help='what the texts begin with ("The ")')
    option("--length", type=int, default=300, metavar="N", help="tokens of each text (300)")
    options = parser.parse_args(args)
    if min(options.length, options.steps or 1, options.every or 1) < 1:
        parser.error("--steps, --every and --length are 1 or more")
    if not options.prompt:
        parser.error("--prompt is one character or more")
    if options.resume and (options.steps or options.every or options.seed or options.bpe):
        parser.error("a training that is resumed keeps its --bpe, --steps, --every and --seed")
    screen = Screen()
    if (name := NEEDS[options.data]) and (missing := why_missing(name)):
        screen.say(missing)
        return 1
    run = RUN.Run(f"m3 {options.data}", M3.Recipe, options.to)
    if options.resume and not run.begun():
        screen.say(f"There is no checkpoint in {run.folder} to go on from.")
        return 1
    recipe, seed = run.recipe() if options.resume else (chosen(options), options.seed)
    story = M3.Story(recipe, seed=seed)
    try:
        story.tokenizer.encode(options.prompt)
    except ValueError as error:
        screen.say(f"The prompt cannot be read: {error}")
        return 1
    if not options.resume:
        run.begin(recipe, seed)
    return train(screen, run, story, seed, options.prompt, options.length)


def chosen(options: argparse.Namespace) -> Any:
    """The recipe that the options ask for."""
    recipe = M3.RECIPES[options.data]
    if options.bpe:
        recipe = replace(recipe, **M3.BPE[options.data])
    if options.steps:
        recipe = replace(recipe, steps=options.steps, warmup=max(1, options.steps // 10))
    every = options.every or recipe.every
    return replace(recipe, every=every if recipe.steps % every == 0 else recipe.steps)


class Curve(Callback):  # type: ignore[misc]
    """Remembers the loss of each step: what it adds to the mean over the epoch so far.

    Attributes:
        losses: nats a token.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seen, self.total = 0, 0.0  # steps of this epoch, and the sum of their losses

    def on_epoch_begin(self, trainer: Any) -> None:
        if trainer.step == len(self.losses):
            self.seen, self.total = 0, 0.0

    def on_batch_end(self, trainer: Any) -> None:
        self.seen += 1
        total = trainer.logs["loss"] * self.seen
        self.losses.append(total - self.total)
        self.total = total

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses)}

    def load_state_dict(self, saved: Any) -> None:
        self.losses = [float(loss) for loss in saved["losses"]]


class Bar(Callback):  # type: ignore[misc]
    """A bar with the loss so far, tokens a second and the time left, on a terminal; else nothing."""

    def __init__(self, screen: Screen, tokens: int) -> None:
        columns = (
            TextColumn("step {task.completed} of {task.total}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
            TimeRemainingColumn(),
        )
        self.progress = None if screen.plain else Progress(*columns, console=screen.console)
        self.tokens = tokens  # of a batch

    def on_fit_begin(self, trainer: Any) -> None:
        self.start = time.perf_counter(), trainer.step
        if self.progress:
            total = trainer.epochs * trainer.batches
            self.task = self.progress.add_task("", total=total, completed=trainer.step, loss=0.0, speed=0.0)
            self.progress.start()

    def on_batch_end(self, trainer: Any) -> None:
        if self.progress:
            since, steps = self.start
            speed = self.tokens * (trainer.step - steps) / max(time.perf_counter() - since, 1e-9)
            self.progress.update(self.task, completed=trainer.step, loss=trainer.logs["loss"], speed=speed)

    def on_fit_end(self, trainer: Any) -> None:
        if self.progress:
            self.progress.stop()


class Sample(Callback):  # type: ignore[misc]
    """After each epoch a line: the losses, and what the model writes by now."""

    def __init__(self, screen: Screen, story: Any, prompt: str) -> None:
        self.screen, self.story, self.prompt = screen, story, prompt

    def on_epoch_end(self, trainer: Any) -> None:
        text = self.prompt + "".join(M3.written(self.story, self.prompt, SAMPLE, "temperature 0.8"))
        losses = f"loss {trainer.history['loss'][-1]:.3f}, unseen {trainer.history['val_loss'][-1]:.3f}"
        self.screen.say(f"step {trainer.step}: {losses}: {' '.join(text.split())}")


def train(screen: Screen, run: Any, story: Any, seed: int, prompt: str, length: int) -> int:
    recipe, watch, curve = story.recipe, RUN.Stopwatch(), Curve()
    screen.say(
        f"{recipe.data}: {len(story.ids):,} tokens to learn from, {len(story.unseen_ids):,} to be tried on, "
        f"of {story.tokenizer.vocab_size} kinds; {count_parameters(story.model):,} parameters, "
        f"{recipe.steps} steps. Ctrl-C stops; --resume goes on."
    )
    bar = Bar(screen, recipe.batch * recipe.context)
    try:
        history = story.train([watch, curve, bar, Sample(screen, story, prompt)], run.checkpoint)
    except KeyboardInterrupt:
        screen.say(f"Stopped. To go on from the last of every {recipe.every} steps: {run.again()}")
        return RUN.STOPPED
    nats, bits = story.loss()
    trained = recipe.steps * recipe.batch * recipe.context
    facts = {
        "of the unseen text": f"{bits:.3f} bits a character ({nats:.3f} nats a character)",
        "trained on": f"{trained:,} tokens in {watch.wall:.0f} s ({watch.cpu:.0f} s of the processor), "
        f"{trained / max(watch.wall, 1e-9):,.0f} tokens a second",
        "model": f"{count_parameters(story.model):,} parameters",
        "recipe": ", ".join(f"{name} {value}" for name, value in asdict(recipe).items()),
        "seed": str(seed),
    }
    if peak := RUN.peak_memory():
        facts["memory at most"] = f"{peak / 2**20:.0f} MiB"
    for name in ("of the unseen text", "trained on", "memory at most"):
        if name in facts:
            screen.say(f"{name}: {facts[name]}")
    screen.say(
        f"loss: {curve.losses[0]:.2f} {pictures.sparkline(curve.losses, 50, plain=screen.plain)} "
        f"{np.mean(curve.losses[-20:]):.2f}"
    )
    texts = {manner: say_text(screen, story, prompt, length, manner, seed) for manner in M3.MANNERS}
    facts |= race(screen, story, prompt)
    maps = show_maps(screen, story)
    run.report.write_text(
        REPORT.page(f"Milestone 3: {recipe.data}", facts, curve.losses, history, texts, maps),
        encoding="utf-8",
    )
    screen.say(f"The report: {run.report}")
    if recipe.data == "pydoc" and not why_missing("tinyshakespeare"):
        screen.say(
            "Shakespeare is on this computer, too: `dojo milestone m3 shakespeare` takes some minutes."
        )
    return 0


def say_text(screen: Screen, story: Any, prompt: str, length: int, manner: str, seed: int) -> str:
    """Show what the model writes, as it comes."""
    screen.say()
    screen.say(Text(manner, "bold"))
    text = prompt
    screen.console.print(Text(prompt), end="", soft_wrap=True)
    for piece in M3.written(story, prompt, length, manner, seed):
        screen.console.print(Text(piece), end="", soft_wrap=True)
        text += piece
    screen.say()
    return text


def race(screen: Screen, story: Any, prompt: str) -> dict[str, str]:
    """The same tokens with the cache and without, and how many come in a second."""
    ids = story.tokenizer.encode(prompt)
    tokens = max(1, min(PACED, story.recipe.context - len(ids)))
    cached, fast = M3.pace(story.model, ids, tokens, use_cache=True)
    plain, slow = M3.pace(story.model, ids, tokens, use_cache=False)
    same = "the same tokens" if np.array_equal(cached, plain) else "NOT the same tokens"
    words = f"{fast:,.0f} with a cache, {slow:,.0f} without ({fast / slow:.1f} times as many; {same})"
    screen.say()
    screen.say(f"tokens a second, {tokens} after the prompt: {words}")
    return {"tokens a second": words}


def show_maps(screen: Screen, story: Any) -> list[tuple[Array, str]]:
    """Attention of each head over the first tokens of the unseen text: shown, and for the page."""
    ids = story.unseen_ids[:MAP]
    maps = M3.attention_maps(story.model, ids)
    screen.say()
    screen.say(f"what each token heeds (a row for a token, in {story.tokenizer.decode(ids)!r}):")
    for number, layer in enumerate(maps, 1):
        drawn = [pictures.heat_map(head**0.5, plain=screen.plain) for head in layer]
        captions = [f"layer {number}, head {i}" for i in range(1, len(layer) + 1)]
        for line in pictures.gallery(drawn, captions, width=screen.width):
            screen.say(line)
        screen.say()
    return [
        (head, f"layer {number}, head {i}")
        for number, layer in enumerate(maps, 1)
        for i, head in enumerate(layer, 1)
    ]
