"""Moments as an admin writes them (2027-01-01, or with a time and its zone), in Unix seconds."""

import re
from datetime import UTC, date, datetime, time

SHAPE = (
    "a date such as 2027-01-01, which begins at 00:00 UTC, or a date and time with its zone such "
    "as 2027-01-01T12:00:00Z"
)

_TEXT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)


def seconds(value: object) -> float:
    """Read a moment: one of TOML's dates and times, or the same as text (JSON has no others).

    A time without its zone would be another moment on another machine, and is refused.
    Raises ValueError, whose text says what would be right.
    """
    if isinstance(value, str):
        value = _read(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC).timestamp()
    raise ValueError(SHAPE)


def spelled(moment: float) -> str:
    """Write a moment as a date and time in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def _read(text: str) -> date | None:
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(text.upper()) if match[1] else date.fromisoformat(text)
    except ValueError:
        return None
