"""What is under way with the upstreams: connections by backend and tunnels, swept and ended."""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Final

from tailchat_gate.proxy.backends import Backend
from tailchat_gate.proxy.connection import UpstreamConnection
from tailchat_gate.proxy.descriptors import Descriptors
from tailchat_gate.proxy.dial import Dialer
from tailchat_gate.proxy.pool import SWEEP_SECONDS, Pool
from tailchat_gate.proxy.reply_lines import ReplyLines
from tailchat_gate.proxy.stored_body import BodyStore
from tailchat_gate.proxy.tunnel import GOING_AWAY, STOPPING, Tunnel


class Traffic:
    """The pools and tunnels of a process, whichever configuration they were opened under.

    A configuration takes a pool for each of its backends and leaves it when its last request is
    done. What two configurations call by the same key is one pool, so that a reload keeps the
    connections of every backend that it does not change. `dialer` opens them, `descriptors` counts
    them; `bodies` keeps what is to be whole before it is sent. `clock` gives Unix seconds.
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
        self._clock = clock
        self._dialer = dialer
        self._lines = ReplyLines()
        self._pools: dict[Hashable, Pool] = {}
        self._users: Counter[Hashable] = Counter()
        self._sweeper: asyncio.TimerHandle | None = None
        self.tunnels: Final[set[Tunnel]] = set()
        #: Upstreams of tunnels that are over, which have yet to close.
        self._leaving: list[UpstreamConnection] = []
        #: Whether tunnels are ended as they open, because the gate stops.
        self.stopping = False

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools that a configuration uses."""
        return tuple(self._pools.values())

    def start(self) -> None:
        """Begin to watch the deadlines; needs a running loop. More than once is once."""
        if self._sweeper is None:
            self._sweep()

    def take(self, key: Hashable, backend: Backend) -> Pool:
        """Return the pool of a key, which is made for `backend` where there is none.

        `key` tells everything about the backend that makes a difference.
        """
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(
                backend, self._dialer, self.descriptors, self.failures, self._lines
            )
        self._users[key] += 1
        return pool

    def leave(self, key: Hashable) -> None:
        """Let go of a pool; when nobody uses it any more its connections are closed."""
        self._users[key] -= 1
        if self._users[key] <= 0:
            del self._users[key]
            self._pools.pop(key).close()
            urls = {pool.backend.url for pool in self.pools}
            for found in [found for found in self.failures if found[0] not in urls]:
                del self.failures[found]

    def tunnel_over(self, tunnel: Tunnel, upstream: UpstreamConnection) -> None:
        """Let go of a tunnel that has ended, and see its upstream off."""
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
        """Close every upstream connection, and reset what is left of the tunnels."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for tunnel in tuple(self.tunnels):
            tunnel.abort()
        for upstream in self._leaving:
            if upstream.transport is not None:
                upstream.transport.abort()
        for pool in self.pools:
            pool.close()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        # First, because a fault below must not be the end of all deadlines.
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        now, clock = loop.time(), self._clock()
        for pool in self.pools:
            pool.sweep(now)
        for tunnel in tuple(self.tunnels):
            tunnel.check(now, clock)
        self._leaving = [one for one in self._leaving if one.transport is not None]
        for upstream in self._leaving:
            upstream.check(now)
