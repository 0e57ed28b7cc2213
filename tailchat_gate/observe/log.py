"""The gate's own log: JSON lines on standard error, for whoever is on call."""

import json
import logging
import sys
import time
from typing import Final, TextIO

LOGGER_NAME: Final = "tailchat_gate"


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


def set_up_logging(level: str, stream: TextIO | None = None) -> None:
    """Send the log to `stream` (standard error) from `level` ("debug" to "error") upwards."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER_NAME).setLevel(level.upper())
