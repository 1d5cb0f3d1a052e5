"""Parts of the pages that open from disk."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from dojo import pages


def test_an_image_of_the_page_is_a_png_of_the_same_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    png = base64.b64decode(pages.data_uri(image).partition(",")[2])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + content)
        parts[kind], at = content, at + 12 + size
    assert struct.unpack(">IIBB", parts[b"IHDR"][:10]) == (5, 4, 8, 2)
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(4, 1 + 5 * 3)
    assert not rows[:, 0].any()
    assert np.array_equal(rows[:, 1:].reshape(4, 5, 3), np.moveaxis(image, 0, -1))
