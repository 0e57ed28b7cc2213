"""The gate's own log: JSON lines on standard error, for whoever is on call."""

import atexit
import json
import logging
import sys
import time
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from queue import Queue
from typing import Final, TextIO

LOGGER_NAME: Final = "tailchat_gate"
AUDIT_LOGGER_NAME: Final = "tailchat_gate.audit"
#: Audit lines that may wait for a disk.
_MAX_WAITING: Final = 10_000


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of ASCII JSON; a traceback is a field of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, without its end."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        details = getattr(record, "details", None)
        if isinstance(details, dict):
            line.update(details)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logging(level: str, stream: TextIO | None = None, *, audit_file: str = "") -> None:
    """Send the log to `stream` (standard error) from `level` ("debug" to "error") upwards.

    Audit events are in it whatever the level, or in `audit_file` where that is not "". The file
    is opened anew when it was moved away, so that it can be rotated. Raises OSError where it
    cannot be opened.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)
    audit = logging.getLogger(AUDIT_LOGGER_NAME)
    audit.setLevel(logging.INFO)
    audit.handlers[:] = [_background_file(audit_file)] if audit_file else []
    audit.propagate = not audit_file


def set_level(level: str) -> None:
    """Log from `level` ("debug" to "error") upwards."""
    logging.getLogger(LOGGER_NAME).setLevel(level.upper())


def _background_file(path: str) -> logging.Handler:
    """Return a handler that writes from a thread, because a disk may make a request wait."""
    file = WatchedFileHandler(path, encoding="ascii")
    file.setFormatter(JsonFormatter())
    waiting: Queue[logging.LogRecord] = Queue(_MAX_WAITING)
    listener = QueueListener(waiting, file)
    listener.start()
    # What is still waiting is written before the process ends.
    atexit.register(listener.stop)
    return _Waiting(waiting)


class _Waiting(QueueHandler):
    """Hands records on as they are: the formatter wants their details, not their text."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return the record, unformatted."""
        return record
