"""Counters and gauges for Prometheus, of requests and of the process."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from tailchat_gate import __version__
from tailchat_gate.observe.sink import Sink
from tailchat_gate.syntax import COMMON_METHODS

#: Upper bounds, in seconds, of the buckets for a request's duration.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: Families of counters: name, documentation, labels.
_COUNTERS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("gate_requests", "Requests answered.", ("route", "method", "code")),
    ("gate_decisions", "Why requests ended as they did.", ("route", "reason")),
    ("gate_logins", "Logins ended, by result.", ("result",)),
    ("gate_sessions_ended", "Sessions ended here before their time.", ("why",)),
    (
        "gate_live_ended",
        "Requests and WebSockets ended because their session is over.",
        ("why",),
    ),
    ("gate_state_errors", "Faults of the state store.", ("error",)),
    ("gate_rechecks", "Sessions that Tailchat was asked about again, by outcome.", ("outcome",)),
    ("gate_tailchat_calls", "Calls to Tailchat.", ("call", "outcome")),
    ("gate_log_lines", "Lines of logs that were written.", ("sink",)),
    (
        "gate_log_lines_lost",
        "Lines of logs that were lost because they could not be written in time.",
        ("sink",),
    ),
)


class ProcessMetrics:
    """The client library's own collectors; they read /proc only when a scrape asks."""

    def __init__(self) -> None:
        self._registry: CollectorRegistry | None = None

    def render(self) -> bytes:
        """Return them in Prometheus's text format.

        Do not call it in the event loop: counting 50,000 open files takes 20 ms.
        """
        if self._registry is None:
            self._registry = _registry()
        return generate_latest(self._registry)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class _Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        rows: list[tuple[str, float]] = []
        seen = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            seen += count
            rows.append((bound, seen))
        return rows


class Metrics(Collector):
    """Counts the gate's requests, logins, rechecks and faults.

    Labels come only from the configuration and closed lists, never from what a visitor sent, so
    their number is bounded. The counters are plain dicts because one `inc` of the client library
    costs more than the rest of the record step.
    """

    def __init__(
        self,
        gauges: Iterable[tuple[str, str, Callable[[], float]]] = (),
        sinks: Callable[[], Iterable[Sink]] = tuple,
        sources: Iterable[Callable[[], Iterable[Metric]]] = (),
    ) -> None:
        #: Requests by route, method, status and reason.
        self._requests: Counter[tuple[str, str, int, str]] = Counter()
        self._seconds: dict[str, _Histogram] = {}
        self._logins: Counter[str] = Counter()
        self._sessions_ended: Counter[str] = Counter()
        self._live_ended: Counter[str] = Counter()
        self._state_errors: Counter[str] = Counter()
        self._rechecks: Counter[str] = Counter()
        self._tailchat: Counter[tuple[str, str]] = Counter()
        self._tailchat_seconds: dict[str, _Histogram] = {}
        self._gauges = tuple(gauges)
        self._sinks = sinks
        self._sources = tuple(sources)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def request(self, route: str, method: str, status: int, reason: str, seconds: float) -> None:
        """Count a finished request; `route` is "" if none matched."""
        label = method if method in COMMON_METHODS else "other"
        # One count, and both families of it at a scrape.
        self._requests[route, label, status, reason] += 1
        histogram = self._seconds.get(route)
        if histogram is None:
            histogram = self._seconds[route] = _Histogram()
        histogram.counts[bisect_left(BUCKETS, seconds)] += 1
        histogram.total += seconds

    def forget_routes(self, but: Collection[str]) -> None:
        """Drop the counts of every route that is not in `but`; requests without a route stay."""
        for key in [key for key in self._requests if key[0] and key[0] not in but]:
            del self._requests[key]
        for route in [route for route in self._seconds if route and route not in but]:
            del self._seconds[route]

    def login(self, result: str) -> None:
        """Count a login that ended: "signed-in" or the reason it was refused."""
        self._logins[result] += 1

    def session_ended(self, why: str) -> None:
        """Count a sign-in that was ended here early, or all sign-ins of one person."""
        self._sessions_ended[why] += 1

    def live_ended(self, why: str) -> None:
        """Count a request or WebSocket that was ended because its session has ended."""
        self._live_ended[why] += 1

    def state_error(self, error: str) -> None:
        """Count a fault of the state store, by its kind."""
        self._state_errors[error] += 1

    def recheck(self, outcome: str) -> None:
        """Count a recheck of a session at Tailchat: ok, revoked, outage or skipped."""
        self._rechecks[outcome] += 1

    def tailchat_call(self, call: str, seconds: float, outcome: str) -> None:
        """Count a call to Tailchat: discovery, jwks, token, me, recheck or refresh."""
        self._tailchat[call, outcome] += 1
        histogram = self._tailchat_seconds.get(call)
        if histogram is None:
            histogram = self._tailchat_seconds[call] = _Histogram()
        histogram.counts[bisect_left(BUCKETS, seconds)] += 1
        histogram.total += seconds

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        counts = self._counts()
        for name, documentation, labels in _COUNTERS:
            yield _counter(name, documentation, labels, counts[name])
        yield _histogram(
            "gate_request_seconds",
            "Time from request to the end of its answer.",
            "route",
            self._seconds,
        )
        yield _histogram(
            "gate_tailchat_seconds", "Time of calls to Tailchat.", "call", self._tailchat_seconds
        )
        for name, documentation, read in self._gauges:
            yield GaugeMetricFamily(name, documentation, value=read())
        for source in self._sources:
            yield from source()
        build = GaugeMetricFamily("gate_build_info", "The running version.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build

    def _counts(self) -> dict[str, Mapping[tuple[str, ...], int]]:
        """Return the counts of each family of `_COUNTERS`, by the values of its labels."""
        sinks = tuple(self._sinks())
        requests: Counter[tuple[str, ...]] = Counter()
        decisions: Counter[tuple[str, ...]] = Counter()
        for (route, method, status, reason), count in self._requests.items():
            requests[route, method, str(status)] += count
            decisions[route, reason] += count
        return {
            "gate_requests": requests,
            "gate_decisions": decisions,
            "gate_logins": _by_one(self._logins),
            "gate_sessions_ended": _by_one(self._sessions_ended),
            "gate_live_ended": _by_one(self._live_ended),
            "gate_state_errors": _by_one(self._state_errors),
            "gate_rechecks": _by_one(self._rechecks),
            "gate_tailchat_calls": dict(self._tailchat.items()),
            "gate_log_lines": {(sink.name,): sink.written for sink in sinks},
            "gate_log_lines_lost": {(sink.name,): sink.lost for sink in sinks},
        }


def _by_one(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    """Return counts by the value of a family's only label."""
    return {(value,): count for value, count in counts.items()}


def _counter(
    name: str, documentation: str, labels: tuple[str, ...], counts: Mapping[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _histogram(
    name: str, documentation: str, label: str, histograms: dict[str, _Histogram]
) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=(label,))
    for value, histogram in histograms.items():
        family.add_metric((value,), histogram.buckets(), histogram.total)
    return family
