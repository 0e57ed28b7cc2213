"""Durations as an admin writes them ("1h30m"), read into seconds and written back."""

import re

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_SPELLING = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit, _ in _UNITS))
_LONGEST = 365 * 86400
SHAPE = 'a duration in quotes, such as "90s", "15m", "12h", "2d" or "1h30m"'


def seconds(value: object) -> float:
    """Read `1d2h3m4s` (any part may be left out, the order stays) or `0` into seconds.

    A bare number other than 0 has no unit and is refused.
    Raises ValueError, whose text says what would be right.
    """
    if value == "0" or (type(value) is int and value == 0):
        return 0.0
    parts = _SPELLING.fullmatch(value) if isinstance(value, str) and value else None
    if parts is None:
        raise ValueError(SHAPE)
    counts = zip(parts.groups(default="0"), _UNITS, strict=True)
    total = sum(int(count) * size for count, (_, size) in counts)
    if total > _LONGEST:
        raise ValueError(f"{SHAPE}, of at most 365d")
    return float(total)


def spelled(duration: float) -> str:
    """Write whole seconds in the largest unit that leaves no rest: 5400.0 becomes "90m"."""
    whole = int(duration)
    if not whole:
        return "0"
    return next(f"{whole // size}{unit}" for unit, size in _UNITS if whole % size == 0)
