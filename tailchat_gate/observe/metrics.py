"""The metrics of requests and of the process, for Prometheus."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from tailchat_gate import __version__
from tailchat_gate.observe.families import (
    BUCKETS,
    LIFETIMES,
    Collected,
    Family,
    Histogram,
    Labels,
    Merge,
    MetricKind,
    Source,
    by_label,
    by_one,
    gauge,
    text,
    with_zeros,
)
from tailchat_gate.observe.history import RouteFigures
from tailchat_gate.observe.request_counts import FAILED, LONG_SECONDS, RouteCounts, is_stream
from tailchat_gate.observe.sink import Sink
from tailchat_gate.reasons import BLOCKED, STATUS, Reason
from tailchat_gate.request.context import RequestContext

#: Reasons that are a fault of a tool, of Tailchat or of the gate; each is counted from 0.
FAULTS: Final = tuple(reason for reason, status in STATUS.items() if status >= FAILED)
#: How a login may end.
_LOGIN_ENDS: Final = (
    Reason.SIGNED_IN,
    *(reason for reason in Reason if reason.startswith(("login-", "tailchat-"))),
    *(Reason.GATE_NOT_ACCEPTED, Reason.SESSION_TOO_LARGE, Reason.COOKIES_BLOCKED),
    *(Reason.LOCKED, Reason.MAINTENANCE),
    *BLOCKED,
)
#: The steps of a login, in their order.
LOGIN_STAGES: Final = ("began", "returned", "redeemed", "identified", "signed-in")
_CALLS: Final = (
    *("discovery", "jwks", "token", "me", "recheck", "refresh", "client", "getUserInfoList"),
)
_CALL_OUTCOMES: Final = (
    "ok",
    *(Reason.TAILCHAT_DOWN, Reason.TAILCHAT_UNTRUSTED, Reason.TAILCHAT_SLOW),
    *(Reason.TAILCHAT_BUSY, Reason.TAILCHAT_BROKEN, Reason.GATE_NOT_ACCEPTED),
)
#: Statuses that are counted from 0: 200, and those that the gate itself sends for a fault.
_FAULT_STATUSES: Final = ("200", "500", "502", "503", "504")
_COUNTED_METHODS: Final = ("GET", "HEAD", "POST")

REQUESTS: Final = Family("gate_requests", "Requests answered.", ("route", "method", "code"))
DECISIONS: Final = Family("gate_decisions", "Why requests ended as they did.", ("route", "reason"))
SECONDS: Final = Family(
    "gate_request_seconds",
    "Time from a request to the end of its response, without WebSockets and streams.",
    ("route",),
    MetricKind.HISTOGRAM,
)
_STREAM_SECONDS: Final = Family(
    "gate_stream_seconds",
    "How long event streams and long polls that have ended took.",
    ("route",),
    MetricKind.HISTOGRAM,
    buckets=LIFETIMES,
)
_RECEIVED: Final = Family(
    "gate_request_body_bytes", "Bytes of bodies that went on to tools.", ("route",)
)
_SENT: Final = Family("gate_response_body_bytes", "Bytes of responses' bodies.", ("route",))
_WEBSOCKETS: Final = Family("gate_websockets", "WebSockets that were opened.", ("route",))
_LIFETIMES: Final = Family(
    "gate_websocket_seconds",
    "How long WebSockets that have ended were open.",
    ("route",),
    MetricKind.HISTOGRAM,
    buckets=LIFETIMES,
)
_TUNNEL_BYTES: Final = Family(
    "gate_websocket_sent_bytes", "Bytes to clients of WebSockets that have ended.", ("route",)
)
LOGINS: Final = Family("gate_logins", "Logins ended, by result.", ("result",))
_STAGES: Final = Family(
    "gate_login_stages", "Logins that came so far, by the stage they reached.", ("stage",)
)
_SESSIONS_ENDED: Final = Family(
    "gate_sessions_ended", "Sessions ended here before their time.", ("why",)
)
_LIVE_ENDED: Final = Family(
    "gate_live_ended", "Requests and WebSockets ended because their session is over.", ("why",)
)
_STATE_ERRORS: Final = Family("gate_state_errors", "Faults of the state store.", ("error",))
_STATE_SECONDS: Final = Family(
    "gate_state_seconds",
    "Time of the state store's work, and of waiting for it.",
    ("operation",),
    MetricKind.HISTOGRAM,
)
_RECHECKS: Final = Family(
    "gate_rechecks", "Sessions that Tailchat was asked about again, by outcome.", ("outcome",)
)
_TAILCHAT_CALLS: Final = Family("gate_tailchat_calls", "Calls to Tailchat.", ("call", "outcome"))
_TAILCHAT_SECONDS: Final = Family(
    "gate_tailchat_seconds", "Time of calls to Tailchat.", ("call",), MetricKind.HISTOGRAM
)
_LOG_LINES: Final = Family("gate_log_lines", "Lines of logs that were written.", ("sink",))
_LOG_LINES_LOST: Final = Family(
    "gate_log_lines_lost",
    "Lines of logs that were lost because they could not be written in time.",
    ("sink",),
)
_BUILD: Final = gauge("gate_build_info", "The running version.", ("version",), merge=Merge.MAX)
#: The gauges of the client library that are not added up over processes.
_MERGES: Final[Mapping[str, Merge]] = MappingProxyType(
    {
        "process_max_fds": Merge.MIN,
        "process_start_time_seconds": Merge.MIN,
        "python_info": Merge.MAX,
    }
)
_RECHECK_OUTCOMES: Final = ("ok", "revoked", "outage", "skipped")


class ProcessMetrics:
    """The client library's own collectors, which read /proc at each scrape."""

    def __init__(self) -> None:
        self._registry: CollectorRegistry | None = None

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return their text in a format that the field Accept allows, and its media type.

        Do not call it in the event loop: counting 50,000 open files takes 20 ms.
        """
        if self._registry is None:
            self._registry = _registry()
        encoder, media_type = choose_encoder(accept)
        return encoder(self._registry), media_type

    def collect(self) -> list[Collected]:
        """Return their values in the gate's own form; not in the event loop, as `render`."""
        if self._registry is None:
            self._registry = _registry()
        return list(map(_from_library, self._registry.collect()))


def _from_library(metric: Metric) -> Collected:
    labels = tuple(sorted({label for sample in metric.samples for label in sample.labels}))
    family = Family(
        metric.name,
        metric.documentation,
        labels,
        MetricKind.COUNTER if metric.type == MetricKind.COUNTER else MetricKind.GAUGE,
        _MERGES.get(metric.name, Merge.SUM),
    )
    samples = [
        (tuple(sample.labels[label] for label in labels), sample.value) for sample in metric.samples
    ]
    return family, samples


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class Metrics:
    """Counts the gate's requests, logins, rechecks and faults.

    Labels come only from the configuration and closed lists, never from a visitor, so their number
    is bounded. The counts are plain numbers, because one `inc` of the client library costs more
    than all else that is recorded of a request. `live_ends`, `session_ends` and `state_errors` are
    label values that other packages define; each is counted from 0.
    """

    def __init__(
        self,
        sinks: Callable[[], Iterable[Sink]] = tuple,
        sources: Iterable[Source] = (),
        *,
        live_ends: Collection[str] = (),
        session_ends: Collection[str] = (),
        state_errors: Collection[str] = (),
    ) -> None:
        self._routes: dict[str, RouteCounts] = {"": RouteCounts()}
        self._logins: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._sessions_ended: Counter[str] = Counter()
        self._live_ended: Counter[str] = Counter()
        self._state_errors: Counter[str] = Counter()
        self._state_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._rechecks: Counter[str] = Counter()
        self._tailchat: Counter[Labels] = Counter()
        self._tailchat_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._sinks = sinks
        self._sources = tuple(sources)
        self._live_ends = tuple(live_ends)
        self._session_ends = tuple(session_ends)
        self._known_state_errors = tuple(state_errors)

    def request(self, context: RequestContext, now: float) -> None:
        """Count a finished request; `now` is in seconds of the monotonic clock."""
        counts = self._routes.get(context.route)
        if counts is None:
            counts = self._routes[context.route] = RouteCounts()
        # Inlined, because every request comes here, and a call costs as much as the counting.
        key = context.head.method, context.status, context.reason
        rows = counts.rows
        if key in rows:
            rows[key] += 1
        else:
            counts.add(*key)
        counts.sent += context.sent_bytes
        if context.received_bytes:
            counts.received += context.received_bytes
        seconds, histogram = context.seconds, counts.seconds
        if context.stream or (seconds >= LONG_SECONDS and is_stream(context, seconds)):
            counts.streams.observe(seconds)
            return
        bucket = bisect_left(BUCKETS, seconds)
        histogram.counts[bucket] += 1
        histogram.total += seconds
        histogram.exemplars[bucket] = context.request_id, context.trace, seconds, now

    def route(self, name: str) -> RouteCounts:
        """Return the counts of a route, "" for requests without one."""
        return self._routes.setdefault(name, RouteCounts())

    def know_routes(self, names: Collection[str]) -> None:
        """Count every route in `names` from 0, and drop the counts of all others."""
        for name in names:
            self.route(name)
        for name in [name for name in self._routes if name and name not in names]:
            del self._routes[name]

    def login(self, result: str) -> None:
        """Count a login that ended: "signed-in" or the reason it was refused."""
        self._logins[result] += 1

    def login_stage(self, stage: str) -> None:
        """Count a login that "began", or "returned" from Tailchat."""
        self._stages[stage] += 1

    def session_ended(self, why: str) -> None:
        """Count a sign-in that was ended here early, or all sign-ins of one person."""
        self._sessions_ended[why] += 1

    def live_ended(self, why: str) -> None:
        """Count a request or WebSocket that was ended because its session has ended."""
        self._live_ended[why] += 1

    def state_error(self, error: str) -> None:
        """Count a fault of the state store, by its kind."""
        self._state_errors[error] += 1

    def state_worked(self, operation: str, seconds: float) -> None:
        """Count an operation of the state store and its time."""
        self._state_seconds[operation].observe(seconds)

    def recheck(self, outcome: str) -> None:
        """Count a recheck of a session at Tailchat: ok, revoked, outage or skipped."""
        self._rechecks[outcome] += 1

    def tailchat_call(self, call: str, seconds: float, outcome: str) -> None:
        """Count a call to Tailchat (one of _CALLS), its time and its outcome."""
        self._tailchat[call, str(outcome)] += 1
        self._tailchat_seconds[call].observe(seconds)

    def of_routes(self) -> Iterator[RouteFigures]:
        """Yield the figures of each route, as Figures does."""
        for name, counts in tuple(self._routes.items()):
            yield RouteFigures(name, *counts.totals(), counts.seconds.counts)

    def of_sign_ins(self) -> dict[str, int]:
        """Return the number of sign-ins by result, as Figures does."""
        return dict(self._logins)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format, at once."""
        return b"".join(text(self.collect()))

    def collect(self) -> Iterator[Collected]:
        """Yield every family; its samples are read lazily, one after another."""
        yield from self._of_routes()
        yield LOGINS, by_one(self._logins, _LOGIN_ENDS)
        yield _STAGES, self._login_stages()
        yield _SESSIONS_ENDED, by_one(self._sessions_ended, self._session_ends)
        yield _LIVE_ENDED, by_one(self._live_ended, self._live_ends)
        yield _STATE_ERRORS, by_one(self._state_errors, self._known_state_errors)
        yield _STATE_SECONDS, by_label(self._state_seconds)
        yield _RECHECKS, by_one(self._rechecks, _RECHECK_OUTCOMES)
        yield _TAILCHAT_CALLS, with_zeros(self._tailchat, product(_CALLS, _CALL_OUTCOMES))
        yield _TAILCHAT_SECONDS, by_label(self._tailchat_seconds)
        yield _LOG_LINES, (((sink.name,), sink.written) for sink in self._sinks())
        yield _LOG_LINES_LOST, (((sink.name,), sink.lost) for sink in self._sinks())
        for source in self._sources:
            yield from source()
        yield _BUILD, (((__version__,), 1),)

    def _login_stages(self) -> Iterator[tuple[Labels, float]]:
        reached = (
            *(self._stages["began"], self._stages["returned"]),
            *(self._tailchat["token", "ok"], self._tailchat["me", "ok"]),
            self._logins[Reason.SIGNED_IN],
        )
        yield from (((stage,), n) for stage, n in zip(LOGIN_STAGES, reached, strict=True))

    def _of_routes(self) -> Iterator[Collected]:
        routes = tuple(self._routes.items())
        yield (
            REQUESTS,
            (
                ((name, *labels), count)
                for name, counts in routes
                for labels, count in with_zeros(counts.requests(), _zero_requests(name))
            ),
        )
        faults = [(str(reason),) for reason in FAULTS]
        yield (
            DECISIONS,
            (
                ((name, *labels), count)
                for name, counts in routes
                for labels, count in with_zeros(counts.decisions(), faults)
            ),
        )
        yield SECONDS, (((name,), counts.seconds) for name, counts in routes)
        yield _STREAM_SECONDS, (((name,), counts.streams) for name, counts in routes if name)
        yield _RECEIVED, (((name,), counts.received) for name, counts in routes)
        yield _SENT, (((name,), counts.sent) for name, counts in routes)
        yield _WEBSOCKETS, (((name,), counts.tunnels) for name, counts in routes if name)
        yield _LIFETIMES, (((name,), counts.lifetimes) for name, counts in routes if name)
        yield _TUNNEL_BYTES, (((name,), counts.tunnel_bytes) for name, counts in routes if name)


def _zero_requests(route: str) -> Iterator[Labels]:
    if route:
        yield from ((method, code) for method in _COUNTED_METHODS for code in _FAULT_STATUSES)
