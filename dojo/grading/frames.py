"""How a grader and a worker talk: a header of JSON, and arrays as their raw bytes.  Nothing is unpickled.

Each message is eight bytes (two little-endian lengths), the header, the body.  All that comes from the worker
is taken for hostile: lengths, types and shapes are checked before anything is made of them.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from dojo.grading.questions import TRAVELLING

if TYPE_CHECKING:
    import numpy as np

LENGTHS = struct.Struct("<II")
HEADER, BODY = 4096, 64 << 20  # bytes; the largest that are accepted
DIMENSIONS = 16


class Broken(Exception):
    """The worker did not answer as workers do."""


def question(name: str, arrays: dict[str, np.ndarray]) -> bytes:
    """The message that asks for `name(student, **arrays)`."""
    import numpy as np

    bodies = [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
    about = [[key, str(array.dtype), list(array.shape)] for key, array in arrays.items()]
    return message({"run": name, "arrays": about}, b"".join(bodies))


def message(header: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


def lengths(content: bytes) -> tuple[int, int]:
    """The lengths of a header and a body.

    Raises:
        Broken: they are more than is accepted.
    """
    header, body = LENGTHS.unpack(content)
    if header > HEADER or body > BODY:
        raise Broken(f"it sent {body:,} bytes with a header of {header:,}; {BODY:,} are accepted")
    return header, body


def header_of(content: bytes) -> dict[str, Any]:
    try:
        header = json.loads(content)
    except (ValueError, RecursionError):
        raise Broken("it sent what is no message") from None
    if not isinstance(header, dict):
        raise Broken("it sent what is no message")
    return header


def array_of(header: dict[str, Any], body: bytes) -> np.ndarray:
    """The array that a reply says it is.

    Raises:
        Broken: of a type that does not travel, or of another size than it says.
    """
    import numpy as np

    name, shape = header.get("dtype"), header.get("shape")
    if name not in TRAVELLING:
        raise Broken(f"only arrays of {', '.join(TRAVELLING)} travel")
    if not isinstance(shape, list) or len(shape) > DIMENSIONS or not all(_length(n) for n in shape):
        raise Broken("it sent an array without a shape")
    dtype = np.dtype(name)
    if math.prod(shape) * dtype.itemsize != len(body):
        raise Broken(f"it sent {len(body)} bytes for an array {name}{shape}")
    array = np.frombuffer(body, dtype).reshape(shape)
    if name == "bool" and np.frombuffer(body, np.uint8).max(initial=0) > 1:
        raise Broken("it sent bools that are neither true nor false")
    return array


def _length(value: object) -> bool:
    return type(value) is int and 0 <= value <= BODY
