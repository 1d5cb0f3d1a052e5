"""What `dojo grade` does with a class of 200, what it costs, and whether strict and plain grades agree.

    python -m benchmarks.grading class FOLDER [whole killed dask strict] [--katas 01 02 ...]
    python -m benchmarks.grading agree FOLDER

The first grades 200 made-up submissions, again killed in the middle and resumed, and again by two dask
workers of which one is killed: the same scores each time. The second grades 100 honest submissions of one
kata each, right and wrong, in both modes.

The class hands in what it is graded for, and what comes before; 03 and 04, unless other katas are named,
which must be two at least, with 04 among them. One in five hands in what nobody else does, the others copy.
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dojo import stubs
from dojo.authoring.mutants import mutants_of
from dojo.curriculum import BY_NUMBER, KATAS, REFERENCE, ROOT, Kata
from dojo.grading import sandbox
from dojo.grading.keys import How
from dojo.grading.leash import Leash
from dojo.grading.one import grade_one
from dojo.grading.results import PASSED
from dojo.grading.submissions import Submission
from tests.grading.cheats import cheat

Graded = Sequence[str]  # numbers of katas
COUNT = 200
DISTINCT = 40
# Cheats that plain mode survives, if not unfooled: others end the grader, or change its files.
HOSTILE = (
    "patch_pytest",
    "forge_at_exit",
    "hidden_subprocess",
    "output_flood",
    "crash_in_c",
    "endless_at_import",
)
Files = dict[str, str]


def reference(*numbers: str) -> Files:
    return {BY_NUMBER[n].name: BY_NUMBER[n].reference.read_text("utf-8") for n in numbers}


THIRTY_TIMES = """

def again(forward):
    return lambda x, **params: [forward(x, **params) for _ in range(30)][-1]


softmax.forward = again(softmax.forward)
"""

# Kinds of submissions, each made differently for each number.


def right(n: int, graded: Graded) -> Files:
    handed_in = (kata.number for kata in KATAS if kata.number <= max(graded))
    return {name: f"{text}\n# {n}\n" for name, text in reference(*handed_in).items()}


def wrong_in_one(n: int, graded: Graded) -> Files:
    kata = BY_NUMBER[graded[n % len(graded)]]
    return {**right(n, graded), kata.name: mutant(kata, random.Random(n))}


def slow(n: int, graded: Graded) -> Files:
    """Computes each softmax thirty times."""
    text = f"{reference('04')['activations']}\n\n{THIRTY_TIMES}# {n}\n"
    return {**right(n, graded), "activations": text}


def unfinished(n: int, graded: Graded) -> Files:
    kata = BY_NUMBER[graded[n % len(graded)]]
    return {
        **right(n, graded),
        kata.name: stubs.stub_text(kata.reference.read_text("utf-8"), kata.name) + f"\n# {n}\n",
    }


def empty(n: int, graded: Graded) -> Files:
    return {**dict.fromkeys(right(n, graded), ""), "tensor": f"# {n}\n"}


def hanging(n: int, graded: Graded) -> Files:
    loop = "\n\n\ndef forever(x, **params):\n    while True:\n        pass\n\n\nrelu.forward = forever\n"
    return {**right(n, graded), "activations": f"{reference('04')['activations']}{loop}# {n}\n"}


def crashing(n: int, graded: Graded) -> Files:
    return {
        **right(n, graded),
        "layers": ("import os\n\nos._exit(0)\n", "def f(:\n", "1 / 0\n")[n % 3] + f"# {n}\n",
    }


def hostile(n: int, graded: Graded) -> Files:
    text = cheat(HOSTILE[n % len(HOSTILE)]).files["activations"].decode()
    return {**right(n, graded), "activations": f"{text}\n# {n}\n"}


KINDS: dict[Callable[[int, Graded], Files], int] = {
    right: 10,
    wrong_in_one: 10,
    slow: 3,
    unfinished: 5,
    empty: 2,
    hanging: 2,
    crashing: 3,
    hostile: 5,
}


def mutant(kata: Kata, chance: random.Random) -> str:
    """The reference with one small change."""
    found = mutants_of(kata.reference.read_text("utf-8"))
    chosen = chance.choice(found.all)
    chosen.plant()
    return ast.unparse(found.tree) + "\n"


def make(folder: Path, graded: Graded) -> None:
    kinds = [kind for kind, count in KINDS.items() for _ in range(count)]
    assert len(kinds) == DISTINCT
    for number in range(COUNT):
        kind = kinds[number % DISTINCT]
        path = folder / f"{number:03}-{kind.__name__}" / "stubs" / "tinytorch"
        path.mkdir(parents=True)
        for name, text in kind(number % DISTINCT, graded).items():
            (path / f"{name}.py").write_text(text, encoding="utf-8")


# Running it.


def command(folder: Path, results: Path, *options: str) -> list[str]:
    graded = (folder.parent / "katas.txt").read_text().split()
    return [sys.executable, "-m", "dojo", "grade", str(folder), "-o", str(results), *options, *graded]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "stubs")])}


def scores(results: Path) -> dict[str, list[str]]:
    with (results / "scores.csv").open(newline="") as file:
        return {row[0]: row[1:] for row in csv.reader(file)}


def whole(folder: Path, results: Path, *options: str) -> None:
    """One run to its end; its last lines."""
    done = subprocess.run(
        command(folder, results, *options),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if " an hour)" in line or "processor" in line:
            say(f"  {line}")


def killed(folder: Path, results: Path) -> None:
    """Runs that are killed (-9) with a third, and then two thirds, of the verdicts there; and one more."""
    verdicts = len((results.parent / "whole" / "ledger.jsonl").read_text().splitlines())
    for share in (1 / 3, 2 / 3):
        child = subprocess.Popen(
            command(folder, results),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ledger = results / "ledger.jsonl"
        while not ledger.exists() or ledger.read_bytes().count(b"\n") < share * verdicts:
            time.sleep(0.2)
        child.send_signal(signal.SIGKILL)
        child.wait()
        count = ledger.read_bytes().count(b"\n")
        say(f"  killed with {count} of {verdicts} verdicts")
    whole(folder, results)


def over_dask(folder: Path, results: Path) -> None:
    """Two workers, one of which is killed as soon as it has graded something."""
    os.environ["DASK_DISTRIBUTED__WORKER__DAEMON"] = "False"
    from distributed import LocalCluster

    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        child = subprocess.Popen(command(folder, results, "--dask", address), cwd=ROOT, env=environment())
        while not (results / "ledger.jsonl").exists():
            time.sleep(0.2)
        worker = next(iter(cluster.workers.values()))
        os.kill(worker.pid, signal.SIGKILL)
        say(f"  killed a dask worker ({worker.pid})")
        assert child.wait() == 0


def the_class(top: Path, phases: Sequence[str], graded: Graded) -> int:
    """Grade the class in each of the ways; ones after `whole` compare with what that left in `top`."""
    folder = top / "class"
    for phase in phases or PHASES:
        if phase == "whole":
            shutil.rmtree(top, ignore_errors=True)
            make(folder, graded)
            (top / "katas.txt").write_text(" ".join(graded))
            say(f"{COUNT} submissions, {DISTINCT} different ones, katas {', '.join(graded)}")
        say(f"{phase}:")
        shutil.rmtree(top / phase, ignore_errors=True)
        PHASES[phase](folder, top / phase)
        if phase == "strict":
            continue
        say(f"  the same scores: {scores(top / phase) == scores(top / 'whole')}")
    say("passed, of all katas graded:")
    for kind in KINDS:
        shares = (f"{mode} {passed(top / mode, kind.__name__)}" for mode in PHASES if (top / mode).exists())
        say(f"  {kind.__name__}: {', '.join(shares)}")
    return 0


def passed(results: Path, kind: str) -> str:
    points = [
        float(n) for name, row in scores(results).items() if name.endswith(f"-{kind}") for n in row[2:-1]
    ]
    return f"{points.count(10.0)} of {len(points)}"


PHASES: dict[str, Callable[[Path, Path], None]] = {
    "whole": whole,
    "killed": killed,
    "dask": over_dask,
    "strict": lambda folder, results: whole(folder, results, "--strict"),
}


# Agreement.


def honest() -> Iterator[tuple[str, Kata, str]]:
    """Forty right files (references, alternatives), and sixty wrong: unfinished ones and small mistakes."""
    chance, katas = random.Random(0), [kata for kata in KATAS if kata.written]
    folder = REFERENCE.parent / "alternatives"
    others = [(kata, path) for kata in katas for path in sorted((folder / kata.folder).glob("*.py"))]
    references = [(kata, kata.reference) for kata in chance.sample(katas, 10)]
    for kata, path in [*references, *chance.sample(others, 30)]:
        yield "right", kata, path.read_text("utf-8")
    for number in range(30):
        kata = katas[number % len(katas)]
        yield "unfinished", kata, without_a_task(kata, chance)
    for number in range(30):
        kata = katas[number % len(katas)]
        yield "mistaken", kata, mutant(kata, chance)


def without_a_task(kata: Kata, chance: random.Random) -> str:
    """The reference without one solution, as a stub has it."""
    lines, mark = kata.reference.read_text("utf-8").splitlines(), f"# kata {kata.number}."
    left = chance.choice([n for n, line in enumerate(lines) if line.strip().startswith(mark)])
    text = "\n".join(line if n == left else line.replace(mark, "# solved ") for n, line in enumerate(lines))
    return stubs.stub_text(text + "\n", kata.name)


MODES = {
    "plain": How(),
    "strict": How(strict=True, secret=b"agree"),
    "strict with suites": How(strict=True, suites=True, secret=b"agree"),
}


def agree(top: Path) -> int:
    assert sandbox.walls().hidden
    top.mkdir(parents=True, exist_ok=True)
    counts: Counter[tuple[str, bool, bool, bool]] = Counter()
    spent = dict.fromkeys(MODES, 0.0)
    for number, (kind, kata, text) in enumerate(honest()):
        files = {k.name: k.reference.read_bytes() for k in KATAS[: KATAS.index(kata) + 1]}
        submission = Submission(f"{number:03}", {**files, kata.name: text.encode()})
        passed = {}
        for mode, how in MODES.items():
            before = os.times()
            outcome = grade_one(submission, [kata], how, leash=Leash()).outcomes[0]
            after = os.times()
            spent[mode] += sum(after[:4]) - sum(before[:4])
            passed[mode] = outcome.state == PASSED
        counts[(kind, *passed.values())] += 1
        if passed["plain"] != passed["strict"]:
            (top / f"{number:03}-{kind}-{kata.name}.py").write_text(text, encoding="utf-8")
        shown = "  ".join(f"{mode}: {ok}" for mode, ok in passed.items())
        say(f"{number:03} {kind:<10} {kata!s:<16} {shown}")
    words = {True: "passed", False: "failed"}
    for (kind, *verdicts), count in sorted(counts.items()):
        shown = (f"{mode} {words[bool(ok)]}" for mode, ok in zip(MODES, verdicts, strict=True))
        say(f"{kind}: {', '.join(shown)}: {count}")
    total = sum(counts.values())
    for place, mode in enumerate(MODES):
        same = sum(count for (_, *verdicts), count in counts.items() if verdicts[place] == verdicts[0])
        say(f"{mode}: as plain mode on {same} of {total}; {spent[mode] / total:.2f} s of processor time each")
    return 0


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What grading costs; see the docstring.")
    parser.add_argument("what", choices=("class", "agree"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("phases", nargs="*", help=f"of {', '.join(PHASES)}; all, unless named")
    parser.add_argument("--katas", nargs="+", default=["03", "04"], metavar="NN")
    asked = parser.parse_args()
    where = asked.folder.resolve()
    sys.exit(the_class(where, asked.phases, asked.katas) if asked.what == "class" else agree(where))
