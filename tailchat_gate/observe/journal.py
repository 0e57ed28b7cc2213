"""What systemd's journal wants of the lines that a service writes (sd-daemon(3))."""

import logging
import os
from collections.abc import Mapping
from typing import Final

#: Priorities of syslog(3), by the least level that has one.
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
_DEBUG: Final = 7


def priority(level: int) -> int:
    """Return the priority of a record's level."""
    return next((number for least, number in _PRIORITIES if level >= least), _DEBUG)


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether what is written to `descriptor` goes to the journal.

    JOURNAL_STREAM names the device and the inode of the journal's stream: a service's output can
    lead elsewhere, and other programs inherit the variable.
    """
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
