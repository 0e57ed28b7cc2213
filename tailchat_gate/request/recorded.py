"""What is recorded about a request: the fields of its log line, and its trace.

Not in context.py, because the configuration needs it, which every command imports, and some
commands run every few seconds.
"""

from contextvars import ContextVar
from dataclasses import dataclass
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


@dataclass(slots=True, eq=False)
class Trace:
    """The trace of a request.

    `parent_id` is the span from which it came, "" if the trace begins here. `lines` are the fields
    for the tool. `span_id` and `sent_id` are the gate's own spans of the request and of its
    forwarding, "" if they are not recorded. `calls` are those to Tailchat, None while they are not
    recorded: before the request waits for any, and after its end.
    """

    trace_id: Final[str]
    parent_id: Final[str]
    lines: Final[bytes]
    span_id: Final[str] = ""
    sent_id: Final[str] = ""
    calls: list[Call] | None = None

    def note(self, call: Call) -> None:
        """Record a call, unless the request has ended: its task may go on for long."""
        if self.calls is not None and len(self.calls) < _MOST_CALLS:
            self.calls.append(call)


#: The trace of the request whose task calls Tailchat, for one of the gate's own pages.
CURRENT_TRACE: Final[ContextVar[Trace | None]] = ContextVar("current trace", default=None)
