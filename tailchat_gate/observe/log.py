"""The gate's own log and the audit log: how lines look and where they go."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from traceback import format_exception_only, walk_tb
from typing import Final

from tailchat_gate.observe.sink import CLOSE_SECONDS, REPEAT_SECONDS, RotatedFile, Sink, SinkFile
from tailchat_gate.observe.text_lines import in_colour, is_journal, is_text, priority, text_line

_CAUSED = "\nThe above was the direct cause of:\n\n"
_MEANWHILE = "\nWhile that was handled:\n\n"

LOGGER_NAME: Final = "tailchat_gate"
AUDIT_LOGGER_NAME: Final = "tailchat_gate.audit"
_STANDARD_ERROR: Final = 2
_ODD_NAME: Final = "a TLS client asked for a name that is not ASCII; its connection was refused"

_log: Final = logging.getLogger(LOGGER_NAME)


def trace(error: BaseException) -> str:
    """Return the traceback of an error without source lines, after those of its causes.

    The module `traceback` reads source lines from files, so a disk that hangs would block the event
    loop that logs the error.
    """
    return "".join(_parts(error, set())).rstrip("\n")


def _parts(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before, link = error.__cause__, _CAUSED
    if before is None and not error.__suppress_context__:
        before, link = error.__context__, _MEANWHILE
    if before is not None and id(before) not in seen:
        yield from _parts(before, seen)
        yield link
    yield "Traceback (most recent call last):\n"
    for frame, line in walk_tb(error.__traceback__):
        code = frame.f_code
        yield f'  File "{code.co_filename}", line {line}, in {code.co_qualname}\n'
    if isinstance(error, BaseExceptionGroup):
        yield f"{type(error).__name__}: {error}\n"
        for inner in error.exceptions:
            yield from _parts(inner, seen)
        return
    yield from format_exception_only(error)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of ASCII JSON; a traceback is one of its members."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, without its line break."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        details = getattr(record, "details", None)
        if isinstance(details, dict):
            line.update(details)
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = trace(record.exc_info[1])
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as text for people, with `colour` or without."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, and below it those of its traceback."""
        details = getattr(record, "details", None)
        error = record.exc_info[1] if record.exc_info else None
        return text_line(
            record,
            details if isinstance(details, dict) else {},
            "" if error is None else trace(error),
            colour=self._colour,
        )


class SinkHandler(logging.Handler):
    """Hands each record to a sink, as a line; it never blocks and never raises.

    `in_journal`: the line begins with its priority, which systemd's journal removes.
    `least` is the lowest level of the gate's own records that is written; audit events always are.
    The loggers let lower levels pass, because messages in a panel of Tailchat depend on no level.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        in_journal: bool = False,
        formatter: logging.Formatter | None = None,
    ) -> None:
        super().__init__()
        self.sink: Final = sink
        self._in_journal = in_journal
        self.least = logging.NOTSET
        self.setFormatter(formatter or JsonFormatter())
        self.addFilter(self._is_written)

    def _is_written(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self.least or not _is_own(record.name)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line for `record`."""
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a fault in a line must not stop the caller
            place = f"{record.pathname}:{record.lineno}"
            message = f"the log line of {place} could not be made: {error!r}"
            line = json.dumps({"level": "error", "message": message})
        if self._in_journal:
            prefix = f"<{priority(record.levelno)}>"
            line = prefix + line.replace("\n", f"\n{prefix}")
        data = f"{line}\n".encode("utf-8", "replace")
        self.sink.put(data, data.count(b"\n"), stranger=not _names_somebody(record))


def set_up_logging(
    level: str,
    *,
    audit_file: str = "",
    descriptor: int = _STANDARD_ERROR,
    form: str = "json",
    formatter: logging.Formatter | None = None,
) -> None:
    """Send the log to `descriptor` (standard error) from `level` ("debug" to "error") upwards.

    `form` is "json", "text", or "auto" for text on a terminal; a `formatter` overrides it.
    Audit events are logged at every level, to `audit_file` as JSON if that is not "". The file can
    be rotated: it is opened again after it was moved away. Raises OSError if it cannot be opened.
    """
    file = RotatedFile(audit_file) if audit_file else None
    if file is not None:
        file.open()
    close_logging()
    root = logging.getLogger()
    in_journal = is_journal(descriptor, os.environ)
    if formatter is None and is_text(form, descriptor):
        formatter = TextFormatter(colour=in_colour(descriptor, os.environ))
    sink = Sink("gate", SinkFile(descriptor))
    root.handlers[:] = [SinkHandler(sink, in_journal=in_journal, formatter=formatter)]
    root.setLevel(logging.WARNING)
    set_level(level)
    audit = logging.getLogger(AUDIT_LOGGER_NAME)
    audit.setLevel(logging.INFO)
    audit.handlers[:] = [] if file is None else [SinkHandler(Sink("audit", file))]
    audit.propagate = file is None


def can_be_opened(path: str) -> None:
    """Check that the file of a log, "" for none, can be opened. Raises OSError if it cannot."""
    if path:
        file = RotatedFile(path)
        file.open()
        file.close()


def set_level(level: str) -> None:
    """Log from `level` ("debug" to "error") upwards."""
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger(LOGGER_NAME).setLevel(min(least, logging.INFO))
    for handler in logging.getLogger().handlers:
        if isinstance(handler, SinkHandler):
            handler.least = least


def log_python_faults() -> None:
    """Log what Python would write to standard error, on which it could block."""
    log = logging.getLogger(LOGGER_NAME)
    logging.captureWarnings(capture=True)
    faults = FaultLog(time.monotonic)

    def unraisable(hook_args: "sys.UnraisableHookArgs") -> None:
        error = hook_args.exc_value
        # Python decodes the name in a ClientHello before it calls the gate. Strangers can cause
        # this error at will, so it must not crowd out other lines.
        if isinstance(error, UnicodeDecodeError) and isinstance(hook_args.object, bytes):
            faults.tell(_ODD_NAME, {}, level=logging.WARNING)
            return
        log.error(
            "an error outside of any request: %s",
            hook_args.err_msg or "in a destructor",
            exc_info=error,
        )

    def in_thread(hook_args: threading.ExceptHookArgs) -> None:
        log.error("an error in a thread", exc_info=hook_args.exc_value)

    sys.unraisablehook = unraisable
    threading.excepthook = in_thread


def sinks() -> tuple[Sink, ...]:
    """Return the sinks of the audit log and of the gate's own log, if they are set up."""
    loggers = logging.getLogger(AUDIT_LOGGER_NAME), logging.getLogger()
    handlers = [handler for logger in loggers for handler in logger.handlers]
    return tuple(handler.sink for handler in handlers if isinstance(handler, SinkHandler))


def close_logging(within: float = CLOSE_SECONDS) -> None:
    """Write the waiting lines, for at most `within` seconds; later lines are still written."""
    end = time.monotonic() + within
    # The audit log first, because its faults go into the gate's own log.
    for sink in sinks():
        sink.close_and_log(max(0.0, end - time.monotonic()))


def _is_own(name: str) -> bool:
    """Whether a logger is one of the gate's own; that of audit events is not."""
    return name == LOGGER_NAME or (name.startswith(f"{LOGGER_NAME}.") and name != AUDIT_LOGGER_NAME)


def _names_somebody(record: logging.LogRecord) -> bool:
    """Whether a record is an audit event of a known person or machine."""
    details = getattr(record, "details", None)
    return (
        record.name == AUDIT_LOGGER_NAME and isinstance(details, dict) and bool(details.get("sub"))
    )


class Pace:
    """Limits repeated messages to one a minute for each kind; `clock` gives seconds.

    Kinds come from the code, so there are only a few to remember.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sent: dict[str, tuple[float, int]] = {}

    def due(self, kind: str) -> int | None:
        """Count one; return the count since the last message, None if that is too recent."""
        now = self._clock()
        sent_at, left_out = self._sent.get(kind, (-REPEAT_SECONDS, 0))
        if sent_at <= now < sent_at + REPEAT_SECONDS:
            self._sent[kind] = (sent_at, left_out + 1)
            return None
        self._sent[kind] = (now, 0)
        return left_out + 1

    @property
    def now(self) -> float:
        """The time by the same clock."""
        return self._clock()

    def leave_out(self, kind: str, count: int) -> None:
        """Count messages that were due but were not sent after all."""
        sent_at, left_out = self._sent.get(kind, (-REPEAT_SECONDS, 0))
        self._sent[kind] = (sent_at, left_out + count)


class FaultLog:
    """Writes faults to the gate's own log; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._pace = Pace(clock)

    def tell(
        self, message: str, details: Mapping[str, object], *, level: int = logging.ERROR
    ) -> None:
        """Log a fault, at most once a minute; `details` are without secrets.

        The line has a `count` of how often the fault occurred since it was last logged.
        """
        count = self._pace.due(message)
        if count is not None:
            _log.log(level, message, extra={"details": {**details, "count": count}})
