"""The metrics of connections and upstreams, read from the pools and descriptors at each scrape."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final

from tailchat_gate.observe.families import (
    Collected,
    Family,
    Labels,
    Merge,
    MetricKind,
    Value,
    gauge,
    with_zeros,
)
from tailchat_gate.observe.request_counts import UpstreamCounts
from tailchat_gate.proxy.exchange.upstream_pools import UpstreamPools
from tailchat_gate.proxy.upstream.interfaces import CONNECT_KINDS, KINDS

_CLIENTS: Final = gauge("gate_client_connections", "Connections of clients open.", ("state",))
_UPSTREAMS: Final = gauge(
    "gate_upstream_connections", "Connections to upstreams open.", ("upstream", "state")
)
_FAILURES: Final = Family(
    "gate_upstream_failures",
    "Connections and exchanges that an upstream failed.",
    ("upstream", "kind"),
)
_REQUESTS: Final = Family(
    "gate_upstream_requests",
    "Requests sent to upstreams, by class of status.",
    ("upstream", "code"),
)
_REUSE: Final = Family(
    "gate_upstream_request_connections",
    "Requests sent to upstreams, by whether they opened a connection.",
    ("upstream", "connection"),
)
_CONNECT: Final = Family(
    "gate_upstream_connect_seconds",
    "Time until a connection to an upstream was open, with TLS.",
    ("upstream",),
    MetricKind.HISTOGRAM,
)
_FIRST_BYTE: Final = Family(
    "gate_upstream_first_byte_seconds",
    "Time from a request's start at an upstream to its response's first bytes.",
    ("upstream",),
    MetricKind.HISTOGRAM,
)
_UP: Final = gauge(
    "gate_upstream_up",
    "Whether an upstream could be reached when that was last tried.",
    ("upstream",),
    merge=Merge.MIN,
)
_CERTIFICATE: Final = gauge(
    "gate_upstream_certificate_expiry_timestamp_seconds",
    "When the certificate that an upstream last showed expires, in Unix seconds.",
    ("upstream",),
    merge=Merge.MIN,
)
_BACKEND_UP: Final = gauge(
    "gate_backend_up",
    "Whether a backend, one of several of a route, is up and gets requests.",
    ("upstream",),
    merge=Merge.MIN,
)
_EJECTIONS: Final = Family(
    "gate_backend_ejections",
    "How often a backend was put out, by checks or by failed requests.",
    ("upstream", "by"),
)
_EXHAUSTED: Final = Family(
    "gate_descriptors_exhausted", "How often a connection found all file descriptors in use."
)


class ConnectionMetrics:
    """Collects the metrics of connections from the pools and descriptors."""

    def __init__(self, upstream_pools: UpstreamPools) -> None:
        self._upstream_pools: Final = upstream_pools

    def __call__(self) -> Iterator[Collected]:
        """Yield the metric families."""
        upstream_pools, descriptors = self._upstream_pools, self._upstream_pools.descriptors
        tunnels = len(upstream_pools.tunnels)
        active = max(0, descriptors.busy_clients() - tunnels)
        idle = max(0, descriptors.clients - active - tunnels)
        states = {("idle",): idle, ("active",): active, ("websocket",): tunnels}
        yield _CLIENTS, tuple(states.items())
        yield _UPSTREAMS, self._states()
        counts = tuple(upstream_pools.counts.items())
        kinds = (*CONNECT_KINDS, *KINDS.values())
        failures = with_zeros(upstream_pools.failures, product(upstream_pools.counts, kinds))
        yield _FAILURES, failures
        yield from _of_upstreams(counts)
        up: dict[Labels, bool] = {}
        for health in upstream_pools.health:
            url = (health.backend.url,)
            up[url] = up.get(url, True) and health.up
        yield _BACKEND_UP, tuple(up.items())
        yield _EJECTIONS, tuple(upstream_pools.ejections.items())
        yield _EXHAUSTED, (((), descriptors.exhausted),)

    def _states(self) -> Iterable[tuple[Labels, Value]]:
        found: Counter[Labels] = Counter()
        for pool in self._upstream_pools.pools:
            for state, count in pool.states.items():
                found[pool.backend.url, state] += count
        return tuple(found.items())


def _of_upstreams(counts: tuple[tuple[str, UpstreamCounts], ...]) -> Iterator[Collected]:
    yield (
        _REQUESTS,
        (((url, code), count) for url, one in counts for code, count in one.by_class().items()),
    )
    yield (
        _REUSE,
        (
            ((url, connection), count)
            for url, one in counts
            for connection, count in (("new", one.new), ("reused", sum(one.statuses) - one.new))
        ),
    )
    yield _CONNECT, (((url,), one.connect) for url, one in counts)
    yield _FIRST_BYTE, (((url,), one.first_byte) for url, one in counts)
    yield _UP, (((url,), one.up) for url, one in counts if one.up is not None)
    yield (
        _CERTIFICATE,
        (((url,), one.certificate_expires) for url, one in counts if one.certificate_expires),
    )
