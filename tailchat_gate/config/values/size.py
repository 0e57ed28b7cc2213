"""Sizes in bytes as an admin writes them ("1MiB"), read into bytes and written back."""

import re

_UNITS = (("MiB", 1 << 20), ("KiB", 1 << 10))
_SPELLING = re.compile("([0-9]{1,9})(KiB|MiB)")
SHAPE = 'a size in quotes, such as "512KiB" or "1MiB"'


def size(value: object) -> int:
    """Read `512KiB`, `1MiB` or `0` into bytes.

    A bare number other than 0 has no unit and is refused.
    Raises ValueError, whose text says what would be right.
    """
    if value == "0" or (type(value) is int and value == 0):
        return 0
    parts = _SPELLING.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise ValueError(SHAPE)
    return int(parts[1]) * dict(_UNITS)[parts[2]]


def spelled(count: int) -> str:
    """Write whole KiB in the largest unit that leaves no rest: 2097152 becomes "2MiB"."""
    if not count:
        return "0"
    return next(f"{count // unit}{name}" for name, unit in _UNITS if count % unit == 0)
