"""One module for each command of `dojo`: `add_arguments(parser)`, and `run(args) -> int`, the exit status."""

from __future__ import annotations

import argparse
import math

from dojo import compose, manifest
from dojo.compose import Composition
from dojo.curriculum import KATAS, MILESTONES, Kata, Unit, find


class BadInput(Exception):
    """What was typed makes no sense.  The message is one line that says what would."""

    status = 2


class Refused(Exception):
    """What was asked cannot be done as things are.  The message says what to do first."""

    status = 1


def kata_named(text: str) -> Kata:
    """An argument that names a kata, for `add_argument(type=kata_named)`."""
    try:
        return find(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def unit_named(text: str) -> Unit:
    """An argument that names a kata or a milestone (`m2`, `m2_vision`)."""
    word = text.replace("\\", "/").rstrip("/").rpartition("/")[2]
    for milestone in MILESTONES:
        if word in (milestone.number, milestone.folder):
            return milestone
    try:
        return find(text)
    except ValueError as error:
        also = f"{error}; the milestones {', '.join(map(str, MILESTONES))}"
        raise argparse.ArgumentTypeError(also) from error


def seconds(text: str) -> float:
    """An argument that is a time limit, for `add_argument(type=seconds)`."""
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return limit


def shard(text: str) -> tuple[int, int]:
    """An argument such as 1/4: the first of four parts."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 1/2")
    return int(part), int(parts)


def composition(impl: str | None) -> Composition:
    """Where tinytorch comes from: what `--impl` says, or else the environment.

    Raises:
        BadInput: there is no such source.
    """
    try:
        return Composition.parse(impl) if impl else compose.current()
    except ValueError as error:
        raise BadInput(f"{'--impl' if impl else compose.VARIABLE}: {error}") from error


def written(katas: list[Kata]) -> list[Kata]:
    """`katas` as they are, or all that the course has when none was named.

    Raises:
        Refused: one of them is not written yet.
    """
    for missing in (k for k in katas if not k.written):
        raise Refused(f"kata {missing} is not written yet; {so_far()}")
    return katas or [k for k in KATAS if k.written]


def sealed(katas: list[Kata]) -> list[Kata]:
    """`katas` as they are: a test that its manifest does not have would count for nothing.

    Raises:
        Refused: a suite is not the one that was sealed, or its manifest cannot be read.
    """
    for kata in katas:
        try:
            as_sealed = manifest.is_as_sealed(kata)
        except (OSError, ValueError) as error:
            raise Refused(str(error)) from error
        if not as_sealed:
            raise Refused(
                f"{kata.shown} is not as it was sealed: `dojo manifest {kata.number}` seals it as it is now, "
                f"`git checkout {kata.shown}` restores it"
            )
    return katas


def so_far() -> str:
    """Which katas the course has."""
    numbers = [k.number for k in KATAS if k.written]
    if not numbers:
        return "the course has none so far"
    return (
        f"the course has {numbers[0]} to {numbers[-1]} so far"
        if len(numbers) > 1
        else f"only {numbers[0]} is"
    )
