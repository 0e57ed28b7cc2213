"""What is recorded of a request: the fields of its log line, and its trace.

It is apart from context.py because the configuration names these: every command imports it, and
some run every few seconds.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

#: Whose fields say which trace a request belongs to, and which id it has.
Trusted = Literal["proxies", "anyone", "nobody"]
#: Calls that are noted of a request; a sign-in makes three.
_MOST_CALLS: Final = 32
LogField = Literal[
    "time", "id", "client", "method", "host", "path", "query", "status", "reason", "limit", "route",
    "sub", "token", "bytes", "received", "ms", "upstream", "connect_ms", "first_byte_ms",
    "upstream_ms", "trace_id", "agent", "asked",
]  # fmt: skip
#: Those of a line unless the configuration chooses others: query strings carry secrets of tools.
DEFAULT_LOG_FIELDS: Final[tuple[LogField, ...]] = tuple(
    field for field in get_args(LogField) if field not in {"query", "received", "upstream_ms"}
)


class Call(NamedTuple):
    """A call to Tailchat that a request waited for; times are those of a monotonic clock.

    `status` is 0 where no whole response came.
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

    `parent_id` is the span that it came from, "" where the trace begins here. `lines` are the
    fields for the tool. `span_id` and `sent_id` are the gate's own spans, of the request and of
    what it sends to the tool: "" where none are recorded. `calls` are those to Tailchat, None
    where they are not noted: before the request waits for any, and after its end.
    """

    trace_id: Final[str]
    parent_id: Final[str]
    lines: Final[bytes]
    span_id: Final[str] = ""
    sent_id: Final[str] = ""
    calls: list[Call] | None = None

    def note(self, call: Call) -> None:
        """Note a call, unless the request has ended: what it began may go on for long."""
        if self.calls is not None and len(self.calls) < _MOST_CALLS:
            self.calls.append(call)


#: The trace for which calls to Tailchat are made, in the task of one of the gate's own pages.
CURRENT_TRACE: Final[ContextVar[Trace | None]] = ContextVar("current trace", default=None)
