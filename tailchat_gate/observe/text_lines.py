"""Log lines for people and for systemd's journal (sd-daemon(3)): when to write them, and how."""

import logging
import os
import time
from collections.abc import Mapping
from json import dumps
from typing import Final

#: Priorities of syslog(3), by the lowest level that has one.
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
_DEBUG: Final = 7
_COLOURS: Final = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[31m",
}
_PLAIN: Final = "\x1b[0m"


def priority(level: int) -> int:
    """Return the syslog priority of a logging level."""
    return next((number for least, number in _PRIORITIES if level >= least), _DEBUG)


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether output to `descriptor` goes to the journal.

    JOURNAL_STREAM, which has the device and inode of the journal's stream, is compared, because
    output may be redirected, and other programs inherit the variable.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def is_text(chosen: str, descriptor: int) -> bool:
    """Whether lines to `descriptor` are text and not JSON.

    `chosen` is "text", "json", or "auto" for text on a terminal.
    """
    return chosen == "text" or (chosen == "auto" and os.isatty(descriptor))


def in_colour(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether text is coloured: on a terminal, unless NO_COLOR or TERM=dumb is set."""
    plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb"
    return not plain and os.isatty(descriptor)


def shown(text: str) -> str:
    """Return a text on one line; characters that control a terminal are escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else dumps(character)[1:-1] for character in text
    )


def text_line(
    record: logging.LogRecord, details: Mapping[str, object], trace: str, *, colour: bool
) -> str:
    """Return the line of a record, and below it the indented lines of its traceback."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
    level = record.levelname.lower()
    if colour:
        level = f"{_COLOURS.get(record.levelno, '')}{level}{_PLAIN}"
    members = "".join(f" {name}={_value(value)}" for name, value in details.items())
    lines = [f"{stamp} {level} {shown(record.getMessage())}{members}"]
    lines += (f"    {shown(line)}" for line in trace.splitlines())
    return "\n".join(lines)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else dumps(value, default=str, ensure_ascii=False)
    visible = shown(text)
    return (
        dumps(visible, ensure_ascii=False) if not visible or set(visible) & set(' "=') else visible
    )
