"""Cuts a fuzzer's input: a few bytes that steer the check, and pieces as reads may bring them."""

from collections.abc import Iterator

#: How many bytes of an input say how the rest of it is cut.
SIZES = 3


def steered(data: bytes, count: int) -> tuple[bytes, bytes]:
    """Return the first `count` bytes, made up with zeros where there are fewer, and the rest."""
    return data[:count].ljust(count, b"\x00"), data[count:]


def cut(data: bytes, sizes: bytes) -> Iterator[bytes]:
    """Yield `data` in pieces whose sizes are those of `sizes`, over and over; some may be empty."""
    if not any(sizes):
        yield data
        return
    position = turn = 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        yield data[position : position + size]
        position += size
        turn += 1


def lines_of(data: bytes, count: int) -> list[str]:
    """Return `count` lines of an input as Latin-1 text, as the fields of a request are read.

    The last one is all that is left; a missing one is "".
    """
    lines = data.decode("latin-1").split("\n", count - 1)
    return lines + [""] * (count - len(lines))
