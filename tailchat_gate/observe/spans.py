"""Spans of sampled requests: noted in the event loop, made and sent in a thread of its own.

Nothing here blocks the caller: if the collector is slow or away, spans are lost and counted.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Condition, Thread
from typing import Final, NamedTuple, Protocol

from tailchat_gate.observe.families import Collected, Family
from tailchat_gate.observe.log import FaultLog
from tailchat_gate.observe.sink import CLOSE_SECONDS
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.recorded import Trace

#: How many requests may wait to be sent, and how many are sent together.
CAPACITY: Final = 4096
_BATCH: Final = 512
#: For how many seconds requests are collected.
_GATHER_SECONDS: Final = 1.0
_LONGEST_PATH: Final = 1024
_NANOSECONDS: Final = 1_000_000_000

#: Reasons of requests that were to go to a tool and got no response.
_UNREACHED: Final = (Reason.UPSTREAM_DOWN, Reason.UPSTREAM_SLOW, Reason.UPSTREAM_BROKEN)

_EXPORTED: Final = Family("gate_spans_exported", "Spans of requests that a collector took.")
_LOST: Final = Family(
    "gate_spans_lost", "Spans of requests that were lost because no collector took them in time."
)


class SentSpan(NamedTuple):
    """The request to a tool; times are in Unix nanoseconds, 0 for what did not happen."""

    began: int
    connected: int
    first_byte: int
    peer: str


class CallSpan(NamedTuple):
    """A call to Tailchat that the request waited for; times are in Unix nanoseconds."""

    name: str
    method: str
    host: str
    status: int
    began: int
    ended: int


class RequestSpans(NamedTuple):
    """A finished request of a sampled trace; times are in Unix nanoseconds.

    `sent` is None if nothing was sent to a tool. `sub` and `client` are "" unless
    `tracing.identity` is set.
    """

    trace: Trace
    request_id: str
    method: str
    scheme: str
    host: str
    path: str
    route: str
    status: int
    reason: str
    version: str
    began: int
    ended: int
    sent: SentSpan | None
    calls: tuple[CallSpan, ...]
    sub: str
    client: str

    @property
    def spans(self) -> int:
        """The number of its spans."""
        return 1 + (self.sent is not None) + len(self.calls)


class Exporter(Protocol):
    """Makes spans of requests and sends them; `send` is called in one thread only."""

    def send(self, requests: Sequence[RequestSpans]) -> str:
        """Send the spans of requests; return why the collector refused them, "" if it did not."""

    def close(self) -> None:
        """Stop sending; may be called in any thread."""


class Spans:
    """Collects the spans of requests, and sends them by the exporter that `make` returns.

    `make` is called once, in the thread; with None no spans are recorded. `clock` gives Unix
    seconds.
    """

    def __init__(
        self,
        make: Callable[[], Exporter] | None = None,
        clock: Callable[[], float] = time.time,
        *,
        capacity: int = CAPACITY,
    ) -> None:
        self._make = make
        self._clock = clock
        self._capacity = capacity
        self.exported = self.lost = 0
        self._waiting: deque[RequestSpans] = deque()
        self._changed = Condition()
        self._closing = False
        self._thread: Thread | None = None
        self._exporter: Exporter | None = None
        self._faults = FaultLog(time.monotonic)

    @property
    def are_recorded(self) -> bool:
        """Whether spans are recorded."""
        return self._make is not None

    def record(self, context: RequestContext, now: float, *, identity: bool) -> None:
        """Queue the spans of a request of a sampled trace that ended at `now`, monotonic.

        `identity`: the spans have the sub and the client's address.
        """
        assert context.trace is not None  # noqa: S101 - only such a request has spans
        request_spans = _spans(context, context.trace, now, self._clock(), identity=identity)
        with self._changed:
            is_full = self._closing or len(self._waiting) >= self._capacity
            if is_full:
                self.lost += request_spans.spans
            else:
                self._waiting.append(request_spans)
                if self._thread is None:
                    self._start()
                elif len(self._waiting) in {1, _BATCH}:
                    self._changed.notify()
        if is_full:
            self._tell("others still wait to be taken", request_spans.spans)

    def close(self, within: float = CLOSE_SECONDS) -> None:
        """Send the waiting spans, for at most `within` seconds; blocks meanwhile."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        thread = self._thread
        if thread is None:
            return
        thread.join(within)
        if thread.is_alive() and self._exporter is not None:
            self._exporter.close()
        with self._changed:
            self.lost += sum(request.spans for request in self._waiting)
            self._waiting.clear()

    def collect(self) -> Iterator[Collected]:
        """Yield the metric families."""
        yield _EXPORTED, (((), self.exported),)
        yield _LOST, (((), self.lost),)

    def _start(self) -> None:
        self._thread = Thread(target=self._run, name="spans", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread is available now; the next request tries again
            self._thread = None

    def _run(self) -> None:
        while batch := self._next_batch():
            count = sum(request.spans for request in batch)
            try:
                problem = self._send(batch)
            except Exception as error:  # noqa: BLE001 - any error costs these spans only
                problem = type(error).__name__
            with self._changed:
                if problem:
                    self.lost += count
                else:
                    self.exported += count
            if problem:
                self._tell(problem, count)

    def _tell(self, problem: str, spans: int) -> None:
        """Log that spans were lost."""
        message = "spans were lost: tracing.endpoint does not take them"
        details = {"problem": problem, "spans": spans}
        self._faults.tell(message, details, level=logging.WARNING)

    def _send(self, batch: Sequence[RequestSpans]) -> str:
        if self._exporter is None:
            assert self._make is not None  # noqa: S101 - else nothing is recorded
            self._exporter = self._make()
        return self._exporter.send(batch)

    def _next_batch(self) -> list[RequestSpans]:
        """Wait for requests; return some of them, [] once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(
                lambda: len(self._waiting) >= _BATCH or self._closing, _GATHER_SECONDS
            )
            return [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]


def _spans(
    context: RequestContext, trace: Trace, now: float, clock: float, *, identity: bool
) -> RequestSpans:
    head, offset = context.head, clock - now

    def at(moment: float) -> int:
        return int((moment + offset) * _NANOSECONDS) if moment else 0

    calls, trace.calls = trace.calls or (), None
    sent = None
    if context.upstream or context.reason in _UNREACHED:
        went = context.upstream_at or context.started
        opened = context.connect_seconds
        sent = SentSpan(
            at(went - opened),
            at(went) if opened else 0,
            at(context.first_byte_at),
            context.upstream,
        )
    return RequestSpans(
        trace=trace,
        request_id=context.request_id,
        method=head.method,
        scheme=context.client_address.scheme,
        host=head.fields.host.name,
        path=head.target.path[:_LONGEST_PATH],
        route=context.route,
        status=context.status,
        reason=str(context.reason),
        version="1.0" if head.http10 else "1.1",
        began=at(context.started),
        ended=at(now),
        sent=sent,
        calls=tuple(
            CallSpan(call.name, call.method, call.host, call.status, at(call.began), at(call.ended))
            for call in calls
        ),
        sub=context.sub if identity else "",
        client=context.client if identity else "",
    )
