"""What is known about one request while it is answered, and is recorded at its end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tailchat_gate.reasons import Reason
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.head import NO_HEAD, RequestHead
from tailchat_gate.request.recorded import Trace
from tailchat_gate.request.target import Original, Target

#: The last two digits of an id, formatted in advance, which is ten times as fast.
_LAST_DIGITS: Final = tuple([f"{number:02x}" for number in range(256)])
_UNKNOWN_CLIENT: Final = ClientAddress("", "http", "")


@dataclass(slots=True, eq=False)
class RequestContext:
    """One request: filled in step by step, so that a refusal at any step can be recorded.

    `started` and `seconds` are seconds of a monotonic clock. `route`, `sub` and `token` (a machine
    token's name) are "" if there is none. `upstream_at` is when the request went to the upstream, 0
    for at once; `first_byte_at` is when the first bytes of the response came. `connect_seconds` is
    0 if no connection was opened. `upstream` is the address of the upstream's socket. `limit` is
    the key of the rate limit that refused the request. `stream`: the response lasts as long as the
    client reads it, so its duration says nothing about the tool.
    """

    request_id: str
    started: float
    head: RequestHead = NO_HEAD
    client_address: ClientAddress = _UNKNOWN_CLIENT
    reason: Reason = Reason.INTERNAL_ERROR
    route: str = ""
    sub: str = ""
    token: str = ""
    limit: str = ""
    status: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    seconds: float = 0.0
    upstream_at: float = 0.0
    first_byte_at: float = 0.0
    upstream: str = ""
    connect_seconds: float = 0.0
    original: Original | None = None
    trace: Trace | None = None
    stream: bool = False

    def apart(self) -> "RequestContext":
        """Return the context without what a configuration has cached on its header section."""
        return replace(self, head=self.head.apart())

    def connected(self, now: float) -> None:
        """Record that a connection to the upstream was opened for this request."""
        # Above 0, which stands for a connection that was already open.
        self.connect_seconds = max(now - (self.upstream_at or self.started), 1e-9)
        self.upstream_at = now

    @property
    def trace_id(self) -> str:
        """The id of the request's trace, "" for none."""
        return "" if self.trace is None else self.trace.trace_id

    @property
    def client(self) -> str:
        """The visitor's address."""
        return self.client_address.address

    @property
    def method(self) -> str:
        """The method, as sent."""
        return self.head.method

    @property
    def target(self) -> Target:
        """The request's target."""
        return self.head.target

    @property
    def host(self) -> str:
        """The requested host, lower-case."""
        return self.head.fields.host.name

    @property
    def path(self) -> str:
        """The requested path, as sent."""
        return self.head.target.path


class RequestIds:
    """Makes request ids: unique over restarts and workers, and cheap; not a secret."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._prefix = random_bytes(8).hex()
        self._count = 0
        self._most = f"{self._prefix}{0:06x}"

    def next(self) -> str:
        """Return the next id: 24 hex digits."""
        self._count += 1
        last = self._count & 0xFF
        if not last:
            self._most = f"{self._prefix}{self._count >> 8 & 0xFF_FFFF:06x}"
        return self._most + _LAST_DIGITS[last]


def log_extra(context: RequestContext) -> dict[str, object]:
    """Return what names a request in a line of the gate's own log, as `extra` of `logging`."""
    members = {"request_id": context.request_id, "route": context.route}
    if context.trace is not None:
        members["trace_id"] = context.trace_id
    return {"details": members}
