"""What is recorded about a request: the fields of its log line, and its trace.

Not in context.py, because the configuration needs it, which every command imports, and some
commands run every few seconds.
"""

from contextvars import ContextVar
from typing import Final, Literal, NamedTuple, get_args

#: Whose fields determine the trace and the ID of a request.
Trusted = Literal["proxies", "anyone", "nobody"]
#: The most calls that are recorded of a request; a sign-in makes three.
_MOST_CALLS: Final = 32
LogField = Literal[
    "time", "id", "client", "method", "host", "path", "query", "status", "reason", "limit", "route",
    "sub", "token", "bytes", "received", "ms", "upstream", "connect_ms", "first_byte_ms",
    "upstream_ms", "trace_id", "agent", "asked",
]  # fmt: skip
#: The default fields, without query strings, which may have secrets of tools.
DEFAULT_LOG_FIELDS: Final[tuple[LogField, ...]] = tuple(
    field for field in get_args(LogField) if field not in {"query", "received", "upstream_ms"}
)


class Call(NamedTuple):
    """A call to Tailchat that a request waited for; times are those of a monotonic clock.

    `status` is 0 if no whole response came.
    """

    name: str
    method: str
    host: str
    began: float
    ended: float
    status: int


class Trace:
    """The trace of a request.

    `parent_id` is the span from which it came, "" if the trace begins here. `lines` are the fields
    for the tool. `span_id` and `sent_id` are the gate's own spans of the request and of its
    forwarding, "" if they are not recorded. `calls` are those to Tailchat, None while they are not
    recorded: before the request waits for any, and after its end.
    """

    __slots__ = ("calls", "lines", "parent_id", "sent_id", "span_id", "trace_id")

    def __init__(
        self,
        trace_id: str,
        parent_id: str,
        lines: bytes,
        span_id: str = "",
        sent_id: str = "",
        calls: list[Call] | None = None,
    ) -> None:
        self.trace_id: Final = trace_id
        self.parent_id: Final = parent_id
        self.lines: Final = lines
        self.span_id: Final = span_id
        self.sent_id: Final = sent_id
        self.calls: list[Call] | None = calls

    def note(self, call: Call) -> None:
        """Record a call, unless the request has ended: its task may go on for long."""
        if self.calls is not None and len(self.calls) < _MOST_CALLS:
            self.calls.append(call)


#: The trace of the request whose task calls Tailchat, for one of the gate's own pages.
CURRENT_TRACE: Final[ContextVar[Trace | None]] = ContextVar("current trace", default=None)
