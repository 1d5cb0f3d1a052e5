"""Make a trained network fast, small and lean, and hand it in: `dojo milestone m4`."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from dojo.commands import leaderboard
from dojo.compose import load_file
from dojo.console.screen import Screen
from dojo.curriculum import ROOT
from tinytorch.competition import (
    DamagedLeaderboard,
    Leaderboard,
    Metrics,
    Refused,
    apply_recipe,
    read_submission,
    score,
)
from tinytorch.layers import Module

M4 = load_file(Path(__file__).with_name("contest.py"))

Array = np.ndarray[Any, Any]


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dojo milestone m4", description=(__doc__ or "").partition(":")[0])
    option = parser.add_argument
    option("model", nargs="?", choices=list(M4.MODELS), default="shapes", help="of milestone 1 (shapes)")
    option("--recipe", metavar="STEPS", help="hand in this, as in fold,int:8, instead of searching")
    option("--budget", type=int, default=12, metavar="N", help="models that a search may measure (12)")
    option("--name", default="", help="of the entry (its recipe)")
    option("--author", default="", help="who hands it in (you)")
    option("--rounds", type=int, default=15, metavar="N", help="batches by which the judge compares (15)")
    option("--seed", type=int, default=0, help="of training and of trying out; the judge has his own (0)")
    option("--to", type=Path, metavar="FOLDER", help="for the files (runs/m4_MODEL)")
    option("--board", type=Path, metavar="FILE", help="the leaderboard (runs/leaderboard.db)")
    option("--enter", type=Path, metavar="FILE", help="only judge this file, and enter it")
    option("--allow-code", action="store_true", help="also if it brings code, which is run with your rights")
    options = parser.parse_args(args)
    if min(options.budget, options.rounds) < 1:
        parser.error("--budget and --rounds are 1 or more")
    screen = Screen()
    folder: Path = options.to or ROOT / "runs" / f"m4_{options.model}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = options.enter or prepare(screen, folder, options)
        return hand_in(screen, file, folder, options)
    except (Refused, DamagedLeaderboard, FileNotFoundError) as error:
        screen.say(f"Refused: {error}" if isinstance(error, Refused) else str(error))
        return 1
    except ValueError as error:  # of --recipe
        screen.say(str(error))
        return 2


def prepare(screen: Screen, folder: Path, options: argparse.Namespace) -> Path:
    """Find a model, or follow the recipe that was given, and write it down with what the judge says of it."""
    base = M4.baseline(options.model)
    recipes = M4.recipes(options.model, options.seed)
    if options.recipe is not None:
        steps = tuple(filter(None, options.recipe.split(",")))
    else:
        steps = searched(screen, options)
    model = apply_recipe(base, steps, recipes)
    words = " ".join(steps) or "as it was"
    name, author = options.name or words, options.author or who()
    file = folder / f"{'_'.join(steps).replace(':', '-') or 'baseline'}.zip"
    M4.write(file, model, name, author, steps)
    screen.say()
    screen.say(f"{words}: the judge looks at it, to see what can be claimed.")
    first = M4.judge(file, folder / "baseline.zip", options.model, rounds=options.rounds)
    M4.write(file, model, name, author, steps, first.metrics)
    return file


def searched(screen: Screen, options: argparse.Namespace) -> tuple[str, ...]:
    """The steps to the best score that a search finds, which is told as it goes."""
    evaluate = M4.evaluator(options.model, seed=options.seed + 1)
    tried: list[Metrics] = []

    def told(model: Module) -> Metrics:
        metrics: Metrics = evaluate(model)
        tried.append(metrics)
        value = score(metrics, tried[0], tried[0].accuracy - M4.LOST)
        screen.say(line(M4.in_words(model), metrics, value))
        return metrics

    screen.say(f"{options.model}: a search among {', '.join(M4.STEPS)}, {options.budget} models at most.")
    found = M4.explore(options.model, options.budget, told, seed=options.seed)
    screen.say()
    screen.say(
        f"On the front are {len(found)} of {len(tried)}, as measured here; the judge will measure again:"
    )
    found.sort(key=lambda one: -score(one.metrics, tried[0]))
    for one in found:
        screen.say(line(" ".join(one.steps) or "as it was", one.metrics, score(one.metrics, tried[0])))
    return found[0].steps if found else ()


def line(words: str, metrics: Metrics, value: float) -> Text:
    parts = [
        f"  accuracy {metrics.accuracy:6.1%}",
        f"latency {metrics.latency:4.2f}",
        f"memory {leaderboard.size(metrics.memory):>7}",
        f"size {leaderboard.size(metrics.size):>7}",
        f"score {value:4.2f}" if value else "below the floor",
    ]
    return Text(f"{'  '.join(parts)}  {words}", "green" if value > 1.05 else "")


def hand_in(screen: Screen, file: Path, folder: Path, options: argparse.Namespace) -> int:
    """Verify a file on images that nobody has seen, and enter it."""
    submission = read_submission(file)
    base = folder / "baseline.zip"
    verdict = M4.judge(
        file,
        base,
        options.model,
        rounds=options.rounds,
        allow_code=options.allow_code,
        floor=M4.floor(options.model),
    )
    screen.say()
    screen.say(f"{file} holds what it claims, on {options.rounds + 1} batches drawn anew:")
    screen.say(line("the baseline", verdict.baseline, 1.0))
    screen.say(line(submission.name, verdict.metrics, verdict.score))
    if verdict.measure == "traced":
        screen.say("  (memory as traced by tracemalloc: this system does not tell what a process takes)")
    path: Path = options.board or leaderboard.usual_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    board = Leaderboard(path)
    new = M4.enter(board, verdict, submission)
    entries = board.entries()
    place = [entry.digest for entry in entries].index(verdict.digest) + 1
    screen.say()
    screen.say(f"{'Entered' if new else 'It is there already'}: place {place} of {len(entries)} in {path}.")
    usual = "" if path == leaderboard.usual_file() else f" {path}"
    screen.say(f"`dojo leaderboard{usual}` shows all; with --html PAGE as a page.")
    return 0


def who() -> str:
    """The name of who is logged in."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have no users
        return "somebody"
