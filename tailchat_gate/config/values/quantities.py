"""Durations ("1h30m"), timestamps, sizes ("1MiB"), shares, rates ("600/minute"), counts."""

import re
from datetime import UTC, date, datetime, time
from typing import Final, NamedTuple

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_SPELLING = re.compile("".join(f"(?:([0-9]{{1,9}}){unit})?" for unit, _ in _UNITS))
_LONGEST = 365 * 86400
DURATION = 'a duration in quotes, such as "90s", "15m", "12h", "2d" or "1h30m"'

_SIZE_UNITS = (("MiB", 1 << 20), ("KiB", 1 << 10))
_SIZE_SPELLING = re.compile("([0-9]{1,9})(KiB|MiB)")
SIZE = 'a size in quotes, such as "512KiB" or "1MiB"'

_PERIODS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
#: A pattern of rates; the empty text, for no limit, is not among them.
RATE_PATTERN: Final = f"[1-9][0-9]{{0,8}}/({'|'.join(_PERIODS)})"
_RATE_SPELLING = re.compile(RATE_PATTERN)
RATE: Final = (
    'a number for each second, minute, hour or day, such as "10/second" or "600/minute", or "" for '
    "no limit"
)

TIMESTAMP = (
    "a date such as 2027-01-01, which begins at 00:00 UTC, or a date and time with its zone such "
    "as 2027-01-01T12:00:00Z"
)

_TEXT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)


def read_duration(value: object) -> float:
    """Read `1d2h3m4s` (each part is optional, the order is fixed) or `0` into seconds.

    A bare number other than 0 has no unit and is refused.
    Raises ValueError, whose text says what is accepted.
    """
    if value == "0" or (type(value) is int and value == 0):
        return 0.0
    parts = _SPELLING.fullmatch(value) if isinstance(value, str) and value else None
    if parts is None:
        raise ValueError(DURATION)
    counts = zip(parts.groups(default="0"), _UNITS, strict=True)
    total = sum(int(count) * size for count, (_, size) in counts)
    if total > _LONGEST:
        raise ValueError(f"{DURATION}, of at most 365d")
    return float(total)


def format_duration(duration: float) -> str:
    """Write whole seconds in the largest unit without a remainder: 5400.0 becomes "90m"."""
    whole = int(duration)
    if not whole:
        return "0"
    return next(f"{whole // size}{unit}" for unit, size in _UNITS if whole % size == 0)


def read_timestamp(value: object) -> float:
    """Read a moment: a TOML date or date and time, or the same as text (JSON has no dates).

    A time without a zone is refused: it would be a different moment on another machine.
    Raises ValueError, whose text says what is accepted.
    """
    if isinstance(value, str):
        value = _read(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC).timestamp()
    raise ValueError(TIMESTAMP)


def format_timestamp(moment: float) -> str:
    """Write a moment as a date and time in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def end_text(until: int | None) -> str:
    """Say when a lock or a grant ends, at a Unix second or never (None)."""
    if until is None:
        return "until unlocked"
    return f"until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S} UTC"


def read_size(value: object) -> int:
    """Read `512KiB`, `1MiB` or `0` into bytes.

    A bare number other than 0 has no unit and is refused.
    Raises ValueError, whose text says what is accepted.
    """
    if value == "0" or (type(value) is int and value == 0):
        return 0
    parts = _SIZE_SPELLING.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise ValueError(SIZE)
    return int(parts[1]) * dict(_SIZE_UNITS)[parts[2]]


def format_size(count: int) -> str:
    """Write whole KiB in the largest unit without a remainder: 2097152 becomes "2MiB"."""
    if not count:
        return "0"
    return next(f"{count // unit}{name}" for name, unit in _SIZE_UNITS if count % unit == 0)


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, whose plural is formed with an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def read_share(value: object) -> float:
    """Read a share from 0 to 1. Raises ValueError, whose text says what is accepted."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1, such as 0.05")
    return float(value)


class Rate(NamedTuple):
    """A limit of `most` events within `seconds`."""

    most: int
    seconds: float


def rate(text: str) -> str:
    """Check a rate, "" for none. Raises ValueError, whose text says what is accepted."""
    if text and _RATE_SPELLING.fullmatch(text) is None:
        raise ValueError(RATE)
    return text


def read_rate(text: str) -> Rate | None:
    """Read a rate that was checked; None for no limit."""
    if not text:
        return None
    count, _, period = text.partition("/")
    return Rate(int(count), _PERIODS[period])


def _read(text: str) -> date | None:
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(text.upper()) if match[1] else date.fromisoformat(text)
    except ValueError:
        return None
