"""All pools and tunnels, by upstream: swept, ended, and counted at each scrape."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
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
from tailchat_gate.proxy.exchange.stored_body import BodyStore
from tailchat_gate.proxy.exchange.tunnel import GOING_AWAY, STOPPING, Tunnel
from tailchat_gate.proxy.message.response_lines import ResponseLines
from tailchat_gate.proxy.sockets import Descriptors, check_each
from tailchat_gate.proxy.upstream.backends import Backend, Dialer
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.proxy.upstream.health import BackendHealth, HealthRules
from tailchat_gate.proxy.upstream.interfaces import CONNECT_KINDS, KINDS
from tailchat_gate.proxy.upstream.pool import SWEEP_SECONDS, Pool

_CLIENTS: Final = gauge("gate_client_connections", "Connections of clients open.", ("state",))
_UPSTREAMS: Final = gauge(
    "gate_upstream_connections", "Connections to upstreams open.", ("upstream", "state")
)
_FAILURES: Final = Family(
    "gate_upstream_failures",
    "Requests that an upstream failed, each once, by what failed first.",
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


class UpstreamPools:
    """The pools and tunnels of a process, under all of its configurations.

    A configuration takes a pool for each of its backends, and leaves it when its last request is
    done. Two configurations share a pool by its key, so that a reload keeps the connections of
    each backend that did not change. `dialer` opens connections, `descriptors` counts them.
    `bodies` stores bodies that must be complete before they are sent. `clock` returns Unix seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        dialer: Dialer,
        descriptors: Descriptors,
        bodies: BodyStore,
    ) -> None:
        self.bodies: Final = bodies
        self.descriptors: Final = descriptors
        descriptors.closers.append(self._close_oldest)
        #: Faults of upstreams, by URL and kind.
        self.failures: Final[Counter[tuple[str, str]]] = Counter()
        #: Requests and connections, by URL of an upstream.
        self.counts: Final[dict[str, UpstreamCounts]] = {}
        self._clock = clock
        self._dialer = dialer
        self._lines = ResponseLines()
        self._pools: dict[Hashable, Pool] = {}
        self._users: Counter[Hashable] = Counter()
        #: The health of backends that are one of several, by pool and rules.
        self._health: dict[tuple[Hashable, HealthRules], BackendHealth] = {}
        #: How often each backend was put out, by URL and cause.
        self.ejections: Final[Counter[tuple[str, str]]] = Counter()
        self._sweeper: asyncio.TimerHandle | None = None
        self.tunnels: Final[set[Tunnel]] = set()
        #: Upstream connections of ended tunnels that are not closed yet.
        self._leaving: list[UpstreamConnection] = []
        #: Whether the gate is stopping, so that new tunnels end at once.
        self.stopping = False

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools that a configuration uses."""
        return tuple(self._pools.values())

    @property
    def health(self) -> tuple[BackendHealth, ...]:
        """The states of backends that are one of several."""
        return tuple(self._health.values())

    def start(self) -> None:
        """Start checking deadlines; needs a running event loop. Further calls do nothing."""
        if self._sweeper is None:
            self._sweep()

    def take(self, key: Hashable, backend: Backend) -> Pool:
        """Return the pool of `key`; make it for `backend` if there is none.

        `key` contains all settings of the backend that matter to its connections.
        """
        pool = self._pools.get(key)
        if pool is None:
            counts = self.counts.setdefault(backend.url, UpstreamCounts())
            pool = self._pools[key] = Pool(
                backend, self._dialer, self.descriptors, self.failures, counts, self._lines
            )
        self._users[key] += 1
        return pool

    def judge(self, key: Hashable, rules: HealthRules) -> BackendHealth:
        """Return the health of a pool's backend by these rules, and start its checks.

        Like the pool, it outlives the configuration. A new one for other rules adopts the known
        state of the backend.
        """
        of_both = (key, rules)
        health = self._health.get(of_both)
        if health is None:
            backend = self._pools[key].backend
            health = BackendHealth(backend, rules, time.monotonic, self.ejections)
            for (other, _), known in self._health.items():
                if other == key:
                    health.adopt(known)
            self._health[of_both] = health
            health.start(self._dialer)
        self._users[of_both] += 1
        return health

    def leave_judgement(self, key: Hashable, rules: HealthRules) -> None:
        """Leave the health of a backend; end its checks if no configuration uses them."""
        of_both = (key, rules)
        self._users[of_both] -= 1
        if self._users[of_both] <= 0:
            del self._users[of_both]
            self._health.pop(of_both).close()
            urls = {health.backend.url for health in self.health}
            for gone in [labels for labels in self.ejections if labels[0] not in urls]:
                del self.ejections[gone]

    def leave(self, key: Hashable) -> None:
        """Leave a pool; close its connections if no configuration uses it."""
        self._users[key] -= 1
        if self._users[key] <= 0:
            del self._users[key]
            self._pools.pop(key).close()
            urls = {pool.backend.url for pool in self.pools}
            for gone in [labels for labels in self.failures if labels[0] not in urls]:
                del self.failures[gone]
            for url in self.counts.keys() - urls:
                del self.counts[url]

    def tunnel_over(self, tunnel: Tunnel, upstream: UpstreamConnection) -> None:
        """Forget an ended tunnel; check its upstream connection until it is closed."""
        self.tunnels.discard(tunnel)
        if upstream.transport is not None:
            self._leaving.append(upstream)

    def _close_oldest(self) -> bool:
        """Close the oldest idle connection of a pool; return whether there was one."""
        return any(pool.close_oldest() for pool in self.pools)

    def end_tunnels(self) -> None:
        """End every WebSocket with 1001, going away."""
        self.stopping = True
        for tunnel in tuple(self.tunnels):
            tunnel.end(GOING_AWAY, STOPPING)

    def close(self) -> None:
        """Close every upstream connection, and reset the remaining tunnels."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for tunnel in tuple(self.tunnels):
            tunnel.abort()
        for upstream in self._leaving:
            upstream.give_up()
        for pool in self.pools:
            pool.close()
        for health in self.health:
            health.close()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        # First, because an exception below must not stop all deadlines.
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        now, clock = loop.time(), self._clock()
        check_each(self.pools, lambda pool: pool.sweep(now))
        check_each(self.health, lambda health: health.sweep(now))
        check_each(
            tuple(self.tunnels),
            lambda tunnel: tunnel.check(now, clock),
            lambda tunnel: tunnel.abort(),
        )
        self._leaving = [
            connection for connection in self._leaving if connection.transport is not None
        ]
        check_each(self._leaving, lambda upstream: upstream.check(now), UpstreamConnection.give_up)


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
        states: Counter[Labels] = Counter()
        for pool in self._upstream_pools.pools:
            for state, count in pool.states.items():
                states[pool.backend.url, state] += count
        return tuple(states.items())


def _of_upstreams(counts: tuple[tuple[str, UpstreamCounts], ...]) -> Iterator[Collected]:
    yield (
        _REQUESTS,
        (
            ((url, code), count)
            for url, upstream in counts
            for code, count in upstream.by_class().items()
        ),
    )
    yield (
        _REUSE,
        (
            ((url, connection), count)
            for url, upstream in counts
            for connection, count in (("new", upstream.new), ("reused", upstream.reused))
        ),
    )
    yield _CONNECT, (((url,), upstream.connect) for url, upstream in counts)
    yield _FIRST_BYTE, (((url,), upstream.first_byte) for url, upstream in counts)
    yield _UP, (((url,), upstream.up) for url, upstream in counts if upstream.up is not None)
    yield (
        _CERTIFICATE,
        (
            ((url,), upstream.certificate_expires)
            for url, upstream in counts
            if upstream.certificate_expires
        ),
    )
