"""Write stubs/ from reference/, so that there is one source for both.

In a reference file, a comment that stands alone on its line starts a solution that runs to the end of its
block; comment lines that follow at once belong to the hint:

    def unbroadcast(grad, shape):
        # kata 06.3: extra axes are on the left;
        # stretched ones have length 1 in `shape`.
        extra = grad.ndim - len(shape)
        ...

The stub keeps the hint, as `# TODO 06.3: ...`, and has `raise NotImplementedError("kata 06.3: unbroadcast")`
in place of the solution.  A def line that ends in `# stub: (grad)` gets these arguments instead of its own,
for when the signature would give the answer away.  Everything else stays, byte for byte.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dojo import curriculum
from dojo.curriculum import BY_NUMBER, KATAS, Kata, from_root
from dojo.progress.storing import write_new

MARK = re.compile(r"#\s*kata (?P<number>(?P<kata>\d\d)\.[1-9]\d*)(?::\s*(?P<hint>.*?))?\s*$")
NEARLY_A_MARK = re.compile(r"#\s*kata\s*\d+\.\d+", re.IGNORECASE)
SIGNATURE = re.compile(r"#\s*stub:\s*(?P<arguments>\(.*\))\s*$")
NEARLY_A_SIGNATURE = re.compile(r"#\s*stub\s*:", re.IGNORECASE)
CLAUSES = ("else", "elif", "except", "finally")  # they continue a statement, so no block starts at them


@dataclass(frozen=True)
class Task:
    """One thing to write: number `06.3`, name `unbroadcast` or `Tensor.view`, its line in the reference."""

    number: str
    name: str
    hint: str
    line: int


@dataclass(frozen=True)
class _Line:
    """A logical line of Python: everything up to the newline that ends a statement or opens a block."""

    tokens: tuple[tokenize.TokenInfo, ...]

    @property
    def first(self) -> int:
        return self.tokens[0].start[0]

    @property
    def last(self) -> int:
        return self.tokens[-1].end[0]

    @property
    def column(self) -> int:
        return self.tokens[0].start[1]

    @property
    def words(self) -> list[str]:
        return [token.string for token in self.tokens[:3] if token.string != "async"]


@dataclass(frozen=True)
class _Solution:
    """A task and the lines of the reference that solve it, counted from 1, both ends included."""

    task: Task
    first: int
    last: int


class _Source:
    """A reference file, cut into physical lines, logical lines and comments."""

    def __init__(self, source: str, filename: str) -> None:
        compile(source, filename, "exec", dont_inherit=True)  # says what is wrong better than tokenize does
        self.filename = filename
        self.text = list(io.StringIO(source))  # str.splitlines would also split at a form feed
        self.comments: list[tokenize.TokenInfo] = []
        self.lines: list[_Line] = []
        gathered: list[tokenize.TokenInfo] = []
        layout = (tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                self.comments.append(token)
            elif token.type == tokenize.NEWLINE:
                self.lines.append(_Line(tuple(gathered)))
                gathered = []
            elif token.type not in layout:
                gathered.append(token)

    def error(self, line: int, message: str) -> SyntaxError:
        return SyntaxError(message, (self.filename, line, None, self.text[line - 1].rstrip("\r\n")))

    def alone(self, comment: tokenize.TokenInfo) -> bool:
        """Whether nothing else is on the comment's line."""
        return self.text[comment.start[0] - 1].lstrip().startswith("#")

    def around(self, line: int) -> _Line | None:
        """The logical line that physical line `line` is part of; a comment between statements is of none."""
        return next((found for found in self.lines if found.first <= line <= found.last), None)

    def solutions(self) -> list[_Solution]:
        """The marked solutions, in order of appearance."""
        found: list[_Solution] = []
        for comment in self.comments:
            line = comment.start[0]
            mark = MARK.match(comment.string)
            if mark is None:
                if self.alone(comment) and NEARLY_A_MARK.match(comment.string):
                    raise self.error(line, "this is nearly a mark; a mark looks like `# kata 06.3: hint`")
                continue
            if not self.alone(comment) or self.around(line):
                raise self.error(line, "a mark stands alone on its line, before a statement")
            if found and line <= found[-1].last:
                outer = found[-1].task.line
                raise self.error(line, f"this mark is inside the solution that begins at line {outer}")
            self._check_kata(line, mark["kata"])
            found.append(self._solution(comment, mark))
        return found

    def _check_kata(self, line: int, number: str) -> None:
        if number not in BY_NUMBER:
            raise self.error(line, f"there is no kata {number}")
        here = next((kata for kata in KATAS if kata.name == Path(self.filename).stem), None)
        if here is not None and here.number != number:
            raise self.error(line, f"this is a task of kata {number}, in the file of kata {here.number}")

    def _solution(self, comment: tokenize.TokenInfo, mark: re.Match[str]) -> _Solution:
        line, column = comment.start
        after = [logical for logical in self.lines if logical.first > line]
        if not after or after[0].column < column or after[0].words[0] in CLAUSES:
            raise self.error(line, "there is no solution after this mark, in its block")
        if after[0].column > column:
            raise self.error(line, "this mark is not indented like the solution after it")
        first, hint = line + 1, [mark["hint"] or ""]
        for more in self.comments:
            if more.start == (first, column) and self.alone(more):
                hint.append(more.string.lstrip("#").strip())
                first += 1
        last = after[0].last
        for logical in after:
            if logical.column < column:
                break
            last = logical.last
        # Comments at the end of the block are part of the solution too.
        for more in filter(self.alone, self.comments):
            between = self.text[last : more.start[0] - 1]
            if more.start[0] > last and more.start[1] >= column and not "".join(between).strip():
                last = more.start[0]
        name = self._name_around(after[0])
        if name is None:
            raise self.error(line, "a mark belongs in a function: elsewhere its stub could not be imported")
        return _Solution(Task(mark["number"], name, " ".join(filter(None, hint)), line), first, last)

    def _name_around(self, inner: _Line) -> str | None:
        """The dotted name of the function around a logical line; None when a class or nothing is nearer."""
        names: list[str] = []
        column, nearest = inner.column, ""
        for outer in reversed(self.lines[: self.lines.index(inner)]):
            if outer.column < column:
                column = outer.column
                if outer.words[0] in ("def", "class"):
                    nearest = nearest or outer.words[0]
                    names.append(outer.words[1])
        return ".".join(reversed(names)) if nearest == "def" else None

    def signatures(self) -> Iterator[tuple[int, int, str]]:
        """Each def line with a `# stub:` comment: its first and last physical line, and its stub."""
        for comment in self.comments:
            if not NEARLY_A_SIGNATURE.match(comment.string):
                continue
            line, match = comment.start[0], SIGNATURE.match(comment.string)
            logical = self.around(line)
            advice = "this should stand at the end of a def line and look like `# stub: (grad)`"
            if match is None or logical is None or logical.words[0] != "def":
                raise self.error(line, advice)
            opening, closing = _parentheses(logical)
            if comment.start < closing.end:
                raise self.error(line, f"{advice}; here the arguments go on after it")
            head = self._between((logical.first, 0), opening.start)
            tail = self._between(closing.end, comment.start).rstrip()
            rest = self._between(comment.end, (logical.last + 1, 0))
            yield logical.first, logical.last, head + match["arguments"] + tail + rest

    def _between(self, start: tuple[int, int], end: tuple[int, int]) -> str:
        """The text from one (line, column) up to another."""
        lines = [*self.text[start[0] - 1 : end[0] - 1], self.text[end[0] - 1][: end[1]] if end[1] else ""]
        lines[0] = lines[0][start[1] :]
        return "".join(lines)


def _parentheses(line: _Line) -> tuple[tokenize.TokenInfo, tokenize.TokenInfo]:
    """The tokens around the arguments of a def line."""
    brackets = [token for token in line.tokens if token.string in ("(", "[", "{", ")", "]", "}")]
    depth = 0
    for token in brackets:
        depth += 1 if token.string in ("(", "[", "{") else -1
        if depth == 0:
            return brackets[0], token
    raise AssertionError("Python has compiled this line, so its brackets match")


def stub_text(source: str, filename: str) -> str:
    """The stub that the text of a reference file implies.

    Raises:
        SyntaxError: the file is not Python, a mark is misplaced, or what would remain is not Python.
    """
    reference = _Source(source, filename)
    lines = reference.text
    edits: list[tuple[int, int, str]] = []  # first line, last line, what stands there in the stub
    for solution in reference.solutions():
        task = solution.task
        mark, end = lines[task.line - 1], lines[solution.last - 1]
        indent, newline = mark[: len(mark) - len(mark.lstrip())], end[len(end.rstrip("\r\n")) :]
        edits.append((task.line, task.line, re.sub(r"#\s*kata ", "# TODO ", mark, count=1)))
        todo = f'raise NotImplementedError("kata {task.number}: {task.name}")'
        edits.append((solution.first, solution.last, indent + todo + newline))
    taken = list(edits)
    for first, last, text in reference.signatures():
        if not any(begin <= first <= end for begin, end, _ in taken):
            edits.append((first, last, text))
    result = list(lines)
    for first, last, text in sorted(edits, reverse=True):
        result[first - 1 : last] = [text]
    stub = "".join(result)
    try:
        compile(stub, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"{error.msg}, at line {error.lineno} of the stub"
        raise reference.error(1, f"without its solutions this is not Python: {where}") from error
    return stub


def tasks(kata: Kata) -> list[Task]:
    """What there is to write in `kata`, in order of appearance; a number may stand for several functions.

    Empty for a kata that the course does not have yet.

    Raises:
        SyntaxError: a mark in the reference is misplaced.
    """
    if not kata.reference.is_file():
        return []
    distinct: dict[tuple[str, str], Task] = {}
    for solution in _Source(kata.reference.read_text("utf-8"), str(kata.reference)).solutions():
        distinct.setdefault((solution.task.number, solution.task.name), solution.task)
    return list(distinct.values())


def implied(reference: Path) -> str:
    """What the stub of a reference file should say, with git's line endings; the package is a copy.

    Raises:
        SyntaxError: a mark in the reference is misplaced.
    """
    text = reference.read_text("utf-8")
    return text if reference.name == "__init__.py" else stub_text(text, str(reference))


def references() -> list[Path]:
    """Every file of the reference, the package's own too."""
    return sorted(curriculum.REFERENCE.glob("*.py"))


def stale() -> list[str]:
    """What differs between stubs/ and what reference/ implies, one line a file; empty when nothing does."""
    found = []
    for file in references():
        target = curriculum.STUBS / file.name
        try:
            text = implied(file)
        except SyntaxError as error:
            found.append(f"{from_root(file)}:{error.lineno}: {error.msg}")
            continue
        if not target.is_file():
            found.append(f"{from_root(target)} is missing: run `dojo stubs`")
        elif normal(target.read_bytes()) != text.encode("utf-8"):
            found.append(f"{from_root(target)} is not what {from_root(file)} implies: run `dojo stubs`")
    known = {file.name for file in references()}
    for target in sorted(curriculum.STUBS.glob("*.py")):
        if target.name not in known:
            twin = curriculum.REFERENCE / target.name
            found.append(f"{from_root(target)} has no reference: delete it, or write {from_root(twin)}")
    return found


def save_aside(path: Path) -> Path:
    """Copy a student's file to .dojo/saved/ under a name that nothing has yet, and return where it is."""
    folder = curriculum.ROOT / ".dojo" / "saved"
    folder.mkdir(parents=True, exist_ok=True)
    return write_new(folder / path.stem, path.suffix, path.read_bytes())


def normal(raw: bytes) -> bytes:
    """`raw` with the line endings of git's normal form: a checkout on Windows may have others."""
    return raw.replace(b"\r\n", b"\n")
