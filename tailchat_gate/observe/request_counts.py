"""The counts of requests and connections, by route and by upstream."""

from bisect import bisect_left
from typing import Final

from tailchat_gate.observe.families import BUCKETS, LIFETIMES, Histogram, Labels
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import is_long_poll
from tailchat_gate.syntax import COMMON_METHODS

#: Classes of an upstream's responses; "none": there was no response to relay.
STATUS_CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx", "other")
#: The lowest status of a failure that is not the client's.
FAILED: Final = 500
_OTHER: Final = len(STATUS_CLASSES) - 1


#: Seconds from which on a request may count as a long poll; quicker ones are not examined.
LONG_SECONDS: Final = 1.0


def is_stream(context: RequestContext, seconds: float) -> bool:
    """Whether a request that has taken `seconds` so far is an event stream or a long poll."""
    if context.stream or seconds < LONG_SECONDS:
        return context.stream
    return is_long_poll(context.head.fields.headers, context.target.query)


class RouteCounts:
    """The requests and WebSockets of one route, or of none."""

    __slots__ = (
        "lifetimes", "received", "rows", "seconds", "sent", "streams", "tunnel_bytes", "tunnels",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Requests by method, status and reason.
        self.rows: Final[dict[tuple[str, int, str], int]] = {}
        self.seconds: Final = Histogram()
        #: The times of event streams and long polls.
        self.streams: Final = Histogram(LIFETIMES)
        #: Bytes of bodies: of requests that went on to a tool, and of responses.
        self.received = self.sent = 0
        #: WebSockets that began, and the lifetimes and bytes to clients of those that ended.
        self.tunnels = self.tunnel_bytes = 0
        self.lifetimes: Final = Histogram(LIFETIMES)

    @property
    def open_tunnels(self) -> int:
        """How many WebSockets are open."""
        return self.tunnels - sum(self.lifetimes.counts)

    def tunnel_began(self, context: RequestContext) -> None:
        """Count a WebSocket when it is opened, and its request as answered."""
        self.add(context.head.method, context.status, context.reason)
        self.tunnels += 1

    def tunnel_ended(self, seconds: float, sent: int) -> None:
        """Count the lifetime of a WebSocket and the bytes that its client got."""
        self.lifetimes.observe(seconds)
        self.tunnel_bytes += sent

    def add(self, method: str, status: int, reason: str) -> None:
        """Count a request."""
        # Visitors can invent methods, so only the common ones have rows of their own.
        key = (method if method in COMMON_METHODS else "other", status, reason)
        self.rows[key] = self.rows.get(key, 0) + 1

    def totals(self) -> tuple[int, int]:
        """Return the number of requests, and of those that failed.

        A 5xx status during a maintenance, which an admin has ordered, is not a failure.
        """
        rows = tuple(self.rows.items())
        failed = sum(
            count
            for (_, status, reason), count in rows
            if status >= FAILED and reason != Reason.MAINTENANCE
        )
        return sum(count for _, count in rows), failed

    def requests(self) -> dict[Labels, float]:
        """Return the requests by method and status."""
        totals: dict[Labels, float] = {}
        for (method, status, _), count in self.rows.items():
            key = method, str(status)
            totals[key] = totals.get(key, 0) + count
        return totals

    def decisions(self) -> dict[Labels, float]:
        """Return the requests by reason."""
        totals: dict[Labels, float] = {}
        for (_, _, reason), count in self.rows.items():
            key = (str(reason),)
            totals[key] = totals.get(key, 0) + count
        return totals


class UpstreamCounts:
    """The requests to one upstream, and its connections.

    `up`: the last attempt to connect succeeded; None if there was none yet. `since` is the Unix
    second since which every attempt had that result. `certificate_expires` is the Unix second at
    which the certificate that it last showed expires, 0 without one.
    """

    __slots__ = (
        "certificate_expires",
        "connect",
        "first_byte",
        "new",
        "since",
        "statuses",
        "unconnected",
        "up",
    )

    def __init__(self) -> None:
        #: Requests by the first digit of their status.
        self.statuses: Final = [0] * 10
        #: How many of them opened a connection, and how many got none.
        self.new = self.unconnected = 0
        self.connect: Final = Histogram()
        self.first_byte: Final = Histogram()
        self.up: bool | None = None
        self.since: int | None = None
        self.certificate_expires = 0.0

    def request(self, context: RequestContext) -> None:
        """Count a request that the upstream answered, or failed to; every request calls this."""
        self.statuses[context.status // 100] += 1
        if context.connect_seconds:
            self.new += 1
        elif not context.upstream:
            self.unconnected += 1
        if context.first_byte_at:
            seconds = context.first_byte_at - (context.upstream_at or context.started)
            histogram = self.first_byte
            bucket = bisect_left(BUCKETS, seconds)
            histogram.counts[bucket] += 1
            histogram.total += seconds

    def tried(self, now: float, *, up: bool) -> None:
        """Note whether an attempt to connect, at a Unix second, succeeded."""
        if up is not self.up:
            self.up, self.since = up, int(now)

    @property
    def reused(self) -> int:
        """How many requests were sent over a connection that was already open."""
        return sum(self.statuses) - self.new - self.unconnected

    def by_class(self) -> dict[str, int]:
        """Return the requests by STATUS_CLASSES."""
        counts = (*self.statuses[:_OTHER], sum(self.statuses[_OTHER:]))
        return dict(zip(STATUS_CLASSES, counts, strict=True))
