"""Sends requests to the upstreams of one configuration."""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

from tailchat_gate.access.browser_origin import WorkerScopes
from tailchat_gate.access.routes import Route
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.address import OwnAddress, upstream_address
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.sessions.cookie_fields import CookieReader
from tailchat_gate.proxy.client.active_request import Admission
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.proxy.exchange.balanced import Backends, balanced_person
from tailchat_gate.proxy.exchange.buffered import MakeExchange, exchange_for
from tailchat_gate.proxy.exchange.exchange import Exchange
from tailchat_gate.proxy.exchange.forward_request import ForwardRequest, UpstreamSettings
from tailchat_gate.proxy.exchange.recorder import Recorder
from tailchat_gate.proxy.exchange.tunnel import GOING_AWAY, STOPPING, Tunnel, TunnelLimits
from tailchat_gate.proxy.exchange.upstream_pools import UpstreamPools
from tailchat_gate.proxy.message.request_headers import RequestHeaders
from tailchat_gate.proxy.message.response_fields import rewriter_of
from tailchat_gate.proxy.sockets import slots_of_one
from tailchat_gate.proxy.upstream.backends import Backend, shared_by
from tailchat_gate.proxy.upstream.balancer import Balancer, Member
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.proxy.upstream.health import HealthRules, health_rules
from tailchat_gate.proxy.upstream.interfaces import ResponseTimeouts
from tailchat_gate.proxy.upstream.pool import Pool
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.head import RequestHead

_WEBSOCKET: Final = b"websocket"


@dataclass(frozen=True, slots=True)
class _Switch:
    """A route's settings for switched connections: protocol names, and seconds (0 = no limit).

    `session_idle` is for connections that end with a session.
    """

    upgrades: frozenset[bytes]
    max_age: float
    idle: float
    session_idle: float


class _TunnelEnd:
    """Runs when a tunnel has ended; it holds no reference to the configuration."""

    __slots__ = (
        "_client",
        "_context",
        "_pool",
        "_recorder",
        "_tunnels",
        "_upstream",
        "_upstream_pools",
    )

    def __init__(
        self,
        tunnels: set[Tunnel],
        upstream_pools: UpstreamPools,
        exchange: Exchange,
        context: RequestContext,
        upstream: UpstreamConnection,
        client: ClientConnection,
        recorder: Recorder,
    ) -> None:
        self._tunnels = tunnels
        self._upstream_pools = upstream_pools
        self._pool = exchange.pool
        self._context = context
        self._upstream = upstream
        self._client = client
        self._recorder = recorder

    def __call__(self, tunnel: Tunnel) -> None:
        self._tunnels.discard(tunnel)
        self._upstream_pools.tunnel_over(tunnel, self._upstream)
        context = self._context
        self._pool.leave(context.client_address.network)
        context.sent_bytes = tunnel.bytes_to_client
        self._recorder.tunnel_over(self._client, context, tunnel.failure)


class _Shared(NamedTuple):
    """A backend, and the key of its pool."""

    key: tuple[object, ...]
    backend: Backend


class Forwarder:
    """Sends requests to the upstreams of one configuration.

    `cookies` knows the cookies that no response may set. `upstream_pools` has the connections,
    which outlive the configuration. `workers` judges the scopes of service workers. `session_idle`
    is how many seconds a session lasts without use, 0 for no limit; bytes that move in a request
    or tunnel count as use. `client_requests` limits one client's requests to one tool, 0 for half
    of the tool's. Reads the PEM files that routes name.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        cookies: CookieReader,
        headers: RequestHeaders,
        upstream_pools: UpstreamPools,
        workers: WorkerScopes,
        clock: Callable[[], float],
        session_idle: float = 0.0,
        client_requests: int = 0,
    ) -> None:
        self._cookies = cookies
        self._headers = headers
        self._upstream_pools = upstream_pools
        self._workers = workers
        self._clock = clock
        self._backends: dict[Route, tuple[_Shared, ...]] = {}
        for route in routes:
            if shared := tuple(_shared(route.settings)):
                self._backends[route] = shared
        self._session_idle = session_idle
        self._client_requests = client_requests
        self._taken: list[tuple[object, ...]] = []
        self._judged: list[tuple[tuple[object, ...], HealthRules]] = []
        #: By route; the settings are None if it has several backends.
        self._upstreams: dict[str, tuple[UpstreamSettings | None, MakeExchange]] = {}
        self._several: dict[str, Backends] = {}
        self._switches = {route.name: _switch(route, session_idle) for route in self._backends}
        self._tunnels: set[Tunnel] = set()

    @property
    def tunnels(self) -> Collection[Tunnel]:
        """The open tunnels of this configuration; a live view."""
        return self._tunnels

    def start(self) -> None:
        """Take the pools of connections; needs a running event loop."""
        self._upstream_pools.start()
        for route, backends in self._backends.items():
            pools = [self._upstream_pools.take(key, backend) for key, backend in backends]
            self._taken += [key for key, _ in backends]
            if len(backends) > 1:
                several = self._of_several(route, pools)
                self._several[route.name] = several
                self._upstreams[route.name] = None, several.exchange
                continue
            buffer = route.settings.request_buffer
            make = (
                partial(exchange_for, self._upstream_pools.bodies, buffer) if buffer else Exchange
            )
            self._upstreams[route.name] = self._upstream(route, pools[0]), make

    def _of_several(self, route: Route, pools: Iterable[Pool]) -> Backends:
        settings, members = route.settings, []
        for (key, _), address, pool in zip(
            self._backends[route], settings.backends, pools, strict=True
        ):
            rules = health_rules(settings, address)
            members.append(Member(pool, self._upstream_pools.judge(key, rules)))
            self._judged.append((key, rules))
        balancer = Balancer(
            members,
            time.monotonic,
            in_turn=settings.balance == "round-robin",
            sticky=settings.sticky,
            panic_threshold=settings.panic_threshold,
        )
        of_each = {
            member: replace(self._upstream(route, member.pool), member=member) for member in members
        }
        return Backends(balancer, of_each, self._upstream_pools.bodies, settings.request_buffer)

    def _upstream(self, route: Route, pool: Pool) -> UpstreamSettings:
        settings = route.settings
        timeouts = ResponseTimeouts(settings.response_timeout, settings.idle_timeout)
        idle = _shorter(settings.idle_timeout, self._session_idle)
        most = settings.max_connections or self._upstream_pools.descriptors.tool_requests
        return UpstreamSettings(
            pool,
            timeouts,
            replace(timeouts, idle=idle) if idle != settings.idle_timeout else timeouts,
            settings.connect_timeout,
            partial(self._headers.trailers, settings),
            rewriter_of(settings),
            self._cookies.is_reserved,
            self._workers,
            frozenset(name.lower().encode("ascii") for name in settings.pass_response_fields),
            most,
            slots_of_one(most, self._client_requests),
            settings.connect_retry,
            settings.upstream_keepalive,
        )

    def close(self) -> None:
        """Leave the pools; pools that no other configuration uses close their connections."""
        while self._judged:
            self._upstream_pools.leave_judgement(*self._judged.pop())
        while self._taken:
            self._upstream_pools.leave(self._taken.pop())

    def upgrade_of(self, route: Route, request: RequestHead) -> bytes:
        """Return the protocol to which a request asks to switch, if its route offers it.

        Otherwise returns b"", and the gate ignores the Upgrade field, as in HTTP/1.0 and in a
        request with a body (RFC 9110 section 7.8).
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
        context: RequestContext,
        forward_request: ForwardRequest,
        ended: Callable[[ClientConnection, Exchange], None],
        recorder: Recorder,
    ) -> Reason | None:
        """Send a request to its route's upstream and relay the response.

        `ended` is called once, at the end; it must free the slot in the pool and, if nothing was
        relayed, answer the client. Without a free slot nothing starts, and the reason is returned.
        A tunnel uses `recorder` instead of `ended`, because it may outlast this configuration by
        weeks and must not hold a reference to it.
        """
        after = partial(self._after_switch, ended, recorder) if forward_request.upgrade else ended
        upstream, make = self._upstreams[context.route]
        if upstream is None:
            person = balanced_person(forward_request.visitor)
            chosen = self._several[context.route].enter(client, context, person)
            if isinstance(chosen, Reason):
                return chosen
            upstream = chosen
        elif (busy := upstream.enter(context.client_address.network)) is not None:
            return busy
        exchange = make(client, context, forward_request, upstream, after)
        client.begin(exchange, forward_request.body, exchange)
        exchange.start(context.started)
        return None

    def _after_switch(
        self,
        ended: Callable[[ClientConnection, Exchange], None],
        recorder: Recorder,
        client: ClientConnection,
        exchange: Exchange,
    ) -> None:
        """Start the tunnel after a switch; call `ended` after anything else."""
        upstream, tunnel = exchange.switched, None
        if upstream is None:
            ended(client, exchange)
            return
        try:
            tunnel = self._tunnel(recorder, client, exchange, upstream)
            tunnel.start()
        except Exception:
            # Nobody else would: the exchange has ended, and a tunnel may not have begun.
            if tunnel is None:
                exchange.pool.leave(exchange.context.client_address.network)
                upstream.reset()
            else:
                tunnel.abort()
            raise
        if self._upstream_pools.stopping:
            # The switch came after the gate had ended the other tunnels.
            asyncio.get_running_loop().call_soon(tunnel.end, GOING_AWAY, STOPPING)

    def _tunnel(
        self,
        recorder: Recorder,
        client: ClientConnection,
        exchange: Exchange,
        upstream: UpstreamConnection,
    ) -> Tunnel:
        """Return the tunnel of a switched exchange, which frees its slot when it ends."""
        switch, forward_request = self._switches[exchange.context.route], exchange.forward_request
        session = forward_request.session
        person = isinstance(session, Visitor)
        limits = TunnelLimits(
            self._clock() + switch.max_age if switch.max_age else math.inf,
            switch.session_idle if person else switch.idle,
            idle_session=person and switch.session_idle != switch.idle,
            websocket=forward_request.upgrade == _WEBSOCKET,
        )
        # The tunnel must not refer to anything of this configuration, which it may outlast.
        context, admission = exchange.context.apart(), exchange.admission
        exchange.pool.counts.request(context)
        recorder.tunnel_began(context)
        over = _TunnelEnd(
            self._tunnels, self._upstream_pools, exchange, context, upstream, client, recorder
        )
        if admission is not None:
            admission = Admission(context, session)
        tunnel = Tunnel(client, upstream, limits, admission, over)
        self._tunnels.add(tunnel)
        self._upstream_pools.tunnels.add(tunnel)
        return tunnel


def _shared(settings: RouteSettings) -> Iterator[_Shared]:
    """Yield the backends of a route; reads its PEM files."""
    for address in map(upstream_address, settings.backends):
        if not isinstance(address, OwnAddress):
            yield _Shared(shared_by(settings, address), Backend.of_route(settings, address))


def _shorter(first: float, second: float) -> float:
    """Return the shorter of two limits in seconds; 0 means no limit."""
    return min(first, second) if first and second else first or second


def _switch(route: Route, session_idle: float) -> _Switch:
    settings = route.settings
    return _Switch(
        frozenset(name.encode("ascii") for name in settings.upgrades),
        settings.websocket_max_age,
        settings.idle_timeout,
        _shorter(settings.idle_timeout, session_idle),
    )
