"""The trace of a request, and the gate's part in it."""

from dataclasses import dataclass
from typing import Final, Literal

#: Whose fields say which trace a request belongs to, and which id it has.
Trusted = Literal["proxies", "anyone", "nobody"]


@dataclass(slots=True, eq=False)
class Trace:
    """The trace of a request.

    `parent_id` is the span that it came from, "" where the trace begins here. `lines` are the
    fields for the tool. `span_id` and `sent_id` are the gate's own spans, of the request and of
    what it sends to the tool: "" where none are recorded.
    """

    trace_id: Final[str]
    parent_id: Final[str]
    lines: Final[bytes]
    span_id: Final[str] = ""
    sent_id: Final[str] = ""
