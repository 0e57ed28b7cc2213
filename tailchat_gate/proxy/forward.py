"""Sends requests to the upstreams of one configuration, and keeps what they have in common."""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from tailchat_gate.access.routes import Route
from tailchat_gate.config.address import FilesAddress, StaticAddress, upstream_address
from tailchat_gate.proxy.backends import Backend, shared_by
from tailchat_gate.proxy.connection import Patience
from tailchat_gate.proxy.downstream import ClientConnection
from tailchat_gate.proxy.exchange import Exchange, Passage, Upstream
from tailchat_gate.proxy.headers import RequestHeaders
from tailchat_gate.proxy.pool import SWEEP_SECONDS, Pool
from tailchat_gate.proxy.reply import CookieGuard, ReplyLines
from tailchat_gate.proxy.rewriting import rewriter_of
from tailchat_gate.proxy.tunnel import GOING_AWAY, STOPPING, Terms, Tunnel
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.visit import Visit

_WEBSOCKET: Final = b"websocket"


@dataclass(frozen=True, slots=True)
class _Switch:
    """What a route says about switched connections: protocol names, and seconds (0 = no limit)."""

    upgrades: frozenset[bytes]
    max_age: float
    idle: float


class Forwarder:
    """Sends requests to the upstreams of one configuration."""

    def __init__(
        self,
        routes: Iterable[Route],
        cookies: CookieGuard,
        headers: RequestHeaders,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._pools: dict[tuple[object, ...], Pool] = {}
        self._upstreams: dict[str, Upstream] = {}
        self._switches: dict[str, _Switch] = {}
        lines = ReplyLines()
        for route in routes:
            address = upstream_address(route.settings.upstream)
            if not isinstance(address, (StaticAddress, FilesAddress)):
                key = shared_by(route.settings)
                if key not in self._pools:
                    backend = Backend.of_route(route.settings, address)
                    self._pools[key] = Pool(backend, lines, cookies)
                self._upstreams[route.name] = _upstream(route, self._pools[key], headers)
                self._switches[route.name] = _switch(route)
        self._tunnels: set[Tunnel] = set()
        self._stopping = False
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def open_tunnels(self) -> int:
        """How many WebSockets are open."""
        return len(self._tunnels)

    def start(self) -> None:
        """Begin to watch the deadlines; needs a running loop."""
        loop = asyncio.get_running_loop()

        def sweep() -> None:
            now, clock = loop.time(), self._clock()
            for pool in self._pools.values():
                pool.sweep(now)
            for tunnel in tuple(self._tunnels):
                tunnel.check(now, clock)
            self._sweeper = loop.call_later(SWEEP_SECONDS, sweep)

        sweep()

    def end_tunnels(self) -> None:
        """End every WebSocket with 1001, going away."""
        self._stopping = True
        for tunnel in tuple(self._tunnels):
            tunnel.end(GOING_AWAY, STOPPING)

    def close(self) -> None:
        """Close every upstream connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pool in self._pools.values():
            pool.close()

    def upgrade_of(self, route: Route, request: RequestHead) -> bytes:
        """Return the protocol that a request asks to switch to, where its route offers that one.

        b"" otherwise: the Upgrade field is then ignored, as it is on HTTP/1.0 and on a request
        with a body (RFC 9110 section 7.8).
        """
        fields = request.fields
        if not fields.upgrade or request.http10 or fields.has_body:
            return b""
        if b"upgrade" not in fields.connection:
            return b""
        return fields.upgrade if fields.upgrade in self._switches[route.name].upgrades else b""

    def forward(
        self,
        client: ClientConnection,
        visit: Visit,
        passage: Passage,
        ended: Callable[[ClientConnection, Exchange], None],
    ) -> None:
        """Send a request to its route's upstream and relay the reply.

        `ended` hears how it went, once; where nothing was relayed it owes the client an answer.
        """
        after = partial(self._after_switch, ended) if passage.upgrade else ended
        exchange = Exchange(client, visit, passage, self._upstreams[visit.route], after)
        client.begin(exchange, passage.body)
        exchange.start(visit.started)

    def _after_switch(
        self,
        ended: Callable[[ClientConnection, Exchange], None],
        client: ClientConnection,
        exchange: Exchange,
    ) -> None:
        """Begin the tunnel after a switch; pass any other end on."""
        if exchange.switched is None:
            ended(client, exchange)
            return
        switch, passage = self._switches[exchange.visit.route], exchange.passage

        def over(tunnel: Tunnel) -> None:
            self._tunnels.discard(tunnel)
            exchange.body_bytes = tunnel.bytes_to_client
            ended(client, exchange)

        terms = Terms(
            passage.until,
            self._clock() + switch.max_age if switch.max_age else math.inf,
            switch.idle,
            websocket=passage.upgrade == _WEBSOCKET,
        )
        tunnel = Tunnel(client, exchange.switched, terms, over)
        self._tunnels.add(tunnel)
        tunnel.start()
        if self._stopping:
            # It was on its way when the others were ended.
            asyncio.get_running_loop().call_soon(tunnel.end, GOING_AWAY, STOPPING)


def _upstream(route: Route, pool: Pool, headers: RequestHeaders) -> Upstream:
    settings = route.settings
    return Upstream(
        pool,
        Patience(settings.response_timeout, settings.idle_timeout),
        settings.connect_timeout,
        headers.trailers,
        rewriter_of(settings),
    )


def _switch(route: Route) -> _Switch:
    settings = route.settings
    return _Switch(
        frozenset(name.encode("ascii") for name in settings.upgrades),
        settings.websocket_max_age,
        settings.idle_timeout,
    )
