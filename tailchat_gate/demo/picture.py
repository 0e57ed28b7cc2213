"""Draws the placeholder for an avatar."""

import struct
import zlib
from typing import Final

_SIDE: Final = 64
_RADIUS: Final = 20


def picture(sub: str) -> bytes:
    """Return a PNG of 64 x 64 pixels: a disc on a ground, in two shades taken from the sub."""
    mark = zlib.crc32(sub.encode()).to_bytes(4, "big")[:3]
    ground, disc = bytes(128 + value // 2 for value in mark), bytes(value // 2 for value in mark)
    rows = bytearray()
    for y in range(_SIDE):
        rows.append(0)  # this row is not filtered (PNG 9.2)
        for x in range(_SIDE):
            inside = (x - _SIDE // 2) ** 2 + (y - _SIDE // 2) ** 2 < _RADIUS**2
            rows += disc if inside else ground
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(rows))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
