"""What progress.json means, whatever state it is in: a pure function from bytes to contents."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

SCHEMA = 1

# The kinds of trouble.  A file of the first two is set aside and replaced; one of the others is left alone.
DAMAGED, CONFLICT, NEWER, UNREADABLE = "damaged", "conflict", "newer", "unreadable"
REPLACED = (DAMAGED, CONFLICT)

# The type of each field of a record; a field may be missing, a field of another type is damage.
FIELDS: dict[str, type] = {
    "time": str,
    "stub": str,
    "code": str,
    "suite": str,
    "needs": dict,
    "versions": dict,
    "seed": int,
    "measured": list,
}
SECTIONS = ("katas", "milestones", "hints")
MARKER = re.compile(r"^(<{7}|\|{7}|={7}|>{7})(?= |\r?$)", re.MULTILINE)


@dataclass(frozen=True)
class Contents:
    """The file as a dictionary, every section in place and of the right types, and what is wrong with it."""

    data: dict[str, Any]
    kind: str | None = None
    trouble: str | None = None


def blank() -> dict[str, Any]:
    return {"schema": SCHEMA, "katas": {}, "milestones": {}, "hints": {}}


def parse(raw: bytes) -> Contents:
    """Read the bytes of progress.json.  Never raises."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _damaged(blank(), "it is not UTF-8 text")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if MARKER.search(text):
            return _conflicted(text)
        return _damaged(_scan(text), _nonsense(text, error))
    # The usual case is settled first: it is met several times at every import of tinytorch.
    fault = _fault(data)
    if fault is None and data["schema"] <= SCHEMA:
        return Contents({**blank(), **data})
    clean = _clean(data)
    return _newer(clean) if clean["schema"] > SCHEMA else _damaged(clean, fault or "")


def unreadable(error: OSError) -> Contents:
    reason = error.strerror or type(error).__name__
    return Contents(
        blank(), UNREADABLE, f"progress.json cannot be read ({reason}): check that it is a file you may open"
    )


def _damaged(data: dict[str, Any], why: str) -> Contents:
    advice = "run `dojo verify --all`, which sets it aside and proves your katas again"
    return Contents(_unproven(data), DAMAGED, f"progress.json is damaged ({why}): {advice}")


def _nonsense(text: str, error: Exception) -> str:
    if not text.strip():
        return "it is empty"
    if isinstance(error, json.JSONDecodeError):
        return f"it stops making sense at line {error.lineno}"
    return "its values make no sense"


def _newer(data: dict[str, Any]) -> Contents:
    return Contents(
        data,
        NEWER,
        f"progress.json was written by a newer dojo (schema {data['schema']}; this one knows {SCHEMA}), so "
        "it is read as well as may be and left unchanged: update this repository with `git pull`",
    )


def _conflicted(text: str) -> Contents:
    ours, theirs = (_salvage(side) for side in _sides(text))
    data = {**theirs, **ours, "schema": max(ours["schema"], theirs["schema"])}
    for section in ("katas", "milestones"):
        both = [*ours[section].items(), *theirs[section].items()]
        # Of two records of one kata the later one is kept.
        data[section] = dict(sorted(both, key=lambda item: item[1].get("time", "")))
    data["hints"] = {
        task: max(ours["hints"].get(task, 0), theirs["hints"].get(task, 0))
        for task in {**ours["hints"], **theirs["hints"]}
    }
    if data["schema"] > SCHEMA:
        return _newer(data)
    return Contents(
        _unproven(data),
        CONFLICT,
        "progress.json holds the marks of an unfinished git merge: run `dojo verify --all`, which keeps what "
        "both sides passed and proves it again",
    )


def _sides(text: str) -> tuple[str, str]:
    """The two texts between which a merge could not decide; a common ancestor (diff3) is left out."""
    ours: list[str] = []
    theirs: list[str] = []
    into = {"<": [ours], "|": [], "=": [theirs], ">": [ours, theirs]}
    sides = [ours, theirs]
    for line in text.splitlines(keepends=True):
        if MARKER.match(line):
            sides = into[line[0]]
        else:
            for side in sides:
                side.append(line)
    return "".join(ours), "".join(theirs)


def _salvage(text: str) -> dict[str, Any]:
    try:
        return _clean(json.loads(text))
    except (ValueError, RecursionError):
        return _scan(text)


def _scan(text: str) -> dict[str, Any]:
    """Every whole record and every count of hints in a text that is not JSON."""
    data = blank()
    decode = json.JSONDecoder().raw_decode
    for match in re.finditer(r'"(\d\d|m\d)"\s*:\s*(?=\{)', text):
        try:
            record, _ = decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        if "time" in record and not _record_fault(record):
            data["milestones" if match[1].startswith("m") else "katas"][match[1]] = record
    data["hints"] = {task: int(n) for task, n in re.findall(r'"(\d\d\.\d+)"\s*:\s*(\d{1,9})\b', text)}
    return data


def _unproven(data: dict[str, Any]) -> dict[str, Any]:
    for section in ("katas", "milestones"):
        data[section] = {number: {**record, "stub": ""} for number, record in data[section].items()}
    return data


def _fault(data: Any) -> str | None:
    """The first thing in `data` that has the wrong type, or None."""
    if not isinstance(data, dict):
        return "it does not hold an object"
    if not _is(data.get("schema"), int) or data["schema"] < 1:
        return "its schema is not a version number"
    for section in SECTIONS:
        entries = data.get(section, {})
        if not isinstance(entries, dict):
            return f"{section} is not an object"
        for key, value in entries.items():
            if fault := _hint_fault(value) if section == "hints" else _record_fault(value):
                return f"{section}.{key} {fault}"
    return None


def _record_fault(record: Any) -> str | None:
    if not isinstance(record, dict):
        return "is not an object"
    for name, kind in FIELDS.items():
        if name in record and not _is(record[name], kind):
            return f"has a wrong {name}"
    for name in ("needs", "versions"):
        if not all(isinstance(value, str) for value in record.get(name, {}).values()):
            return f"has a wrong {name}"
    if not all(isinstance(entry, dict) for entry in record.get("measured", [])):
        return "has a wrong measured"
    return None


def _hint_fault(count: Any) -> str | None:
    return None if _is(count, int) and count >= 0 else "is not a count"


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _clean(data: Any) -> dict[str, Any]:
    """`data` without the entries of the wrong type, and with every section in place."""
    source = data if isinstance(data, dict) else {}
    clean = {**source, "schema": source.get("schema")}
    if not _is(clean["schema"], int) or clean["schema"] < 1:
        clean["schema"] = SCHEMA
    for section in SECTIONS:
        entries = source.get(section)
        fault = _hint_fault if section == "hints" else _record_fault
        clean[section] = (
            {k: v for k, v in entries.items() if not fault(v)} if isinstance(entries, dict) else {}
        )
    return clean
