"""One exchange with an upstream: connect or reuse, send, relay, and say how it went."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final, NamedTuple

from aiohttp import StreamReader, web
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage

from tailchat_gate.access.routes import Route
from tailchat_gate.proxy.backends import Backend
from tailchat_gate.proxy.connection import End, UpstreamConnection
from tailchat_gate.proxy.downstream import ClientConnection
from tailchat_gate.proxy.pool import SWEEP_SECONDS, Pool
from tailchat_gate.proxy.reply import CookieGuard, ReplyNames
from tailchat_gate.proxy.tunnel import GOING_AWAY, STOPPING, Tunnel
from tailchat_gate.reasons import Reason

#: Sending these again has the effect of sending them once (RFC 9110 section 9.2.2).
_IDEMPOTENT: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT"))
# Names of their own, because an enum's attribute costs ten times a global.
_COMPLETE, _UNANSWERED, _SWITCHED = End.COMPLETE, End.UNANSWERED, End.SWITCHED
_END_OF_CHUNKS: Final = b"0\r\n\r\n"

_FAILURES: Final[Mapping[End, Reason]] = MappingProxyType(
    {
        End.UNANSWERED: Reason.UPSTREAM_BROKEN,
        End.BROKEN: Reason.UPSTREAM_BROKEN,
        End.CUT_OFF: Reason.UPSTREAM_BROKEN,
        End.SLOW: Reason.UPSTREAM_SLOW,
        End.BAD_BODY: Reason.BAD_REQUEST,
        End.CLIENT_GONE: Reason.CLIENT_GONE,
    }
)


class Outcome(NamedTuple):
    """How an exchange went.

    `status` is that of the reply that was relayed, 0 where none was, so that the gate still owes
    an answer. `failure` is None for a reply relayed whole. `body_bytes` went to the client.
    """

    status: int
    body_bytes: int
    failure: Reason | None
    keep_client: bool


class Relayed(web.StreamResponse):
    """The answer to give aiohttp when the bytes have already gone to the client.

    Holds nothing of one request: there are two of them, made once.
    """

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write nothing: the head has been relayed."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing: the body has been relayed."""


class Forwarder:
    """Sends requests to the upstreams of one configuration."""

    def __init__(self, routes: Iterable[Route], cookies: CookieGuard) -> None:
        names = ReplyNames()
        self._pools = {
            url: Pool(Backend.from_url(url), names, cookies)
            for url in {route.settings.upstream for route in routes}
        }
        self._tunnels: set[Tunnel] = set()
        self._stopping = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._now: Callable[[], float] = time.monotonic

    @property
    def open_tunnels(self) -> int:
        """How many WebSockets are open."""
        return len(self._tunnels)

    def start(self) -> None:
        """Begin to watch the deadlines; needs a running loop."""
        loop = asyncio.get_running_loop()
        self._now = loop.time

        def sweep() -> None:
            for pool in self._pools.values():
                pool.sweep(loop.time())
            self._sweeper = loop.call_later(SWEEP_SECONDS, sweep)

        sweep()

    def end_tunnels(self) -> None:
        """End every WebSocket with 1001, going away."""
        self._stopping = True
        for tunnel in list(self._tunnels):
            tunnel.end(GOING_AWAY, STOPPING)

    def close(self) -> None:
        """Close every upstream connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pool in self._pools.values():
            pool.close()

    async def forward(
        self,
        request: web.BaseRequest,
        route: Route,
        head: bytes,
        *,
        extra_fields: bytes,
        upgrade: bool,
    ) -> Outcome:
        """Send `head` and the body of `request` to the route's upstream and relay the reply.

        `head` is the whole request head in bytes. `extra_fields` are header lines for the
        reply. `upgrade`: the request asks for a WebSocket. A cancelled call (the client left)
        closes the upstream connection.
        """
        pool = self._pools[route.settings.upstream]
        repeatable = not request.body_exists and request.method in _IDEMPOTENT
        now = self._now
        connection = None
        if not upgrade:
            connection = pool.take(now(), repeatable=repeatable)
        fresh = connection is None
        while True:
            if connection is None:
                try:
                    connection = await pool.connect(route.settings.connect_timeout)
                except TimeoutError:
                    return Outcome(0, 0, Reason.UPSTREAM_SLOW, keep_client=True)
                except OSError:
                    return Outcome(0, 0, Reason.UPSTREAM_DOWN, keep_client=True)
            try:
                outcome = await self._exchange(
                    connection,
                    request,
                    route,
                    head,
                    extra_fields=extra_fields,
                    upgrade=upgrade,
                )
            finally:
                pool.release(connection, now())
            if connection.end is not _UNANSWERED or fresh or not repeatable:
                return outcome
            # The upstream closed a reused connection before it answered (RFC 9112 section 9.3.1).
            connection, fresh = None, True

    async def _exchange(
        self,
        connection: UpstreamConnection,
        request: web.BaseRequest,
        route: Route,
        head: bytes,
        *,
        extra_fields: bytes,
        upgrade: bool,
    ) -> Outcome:
        client = request.protocol
        assert isinstance(client, ClientConnection)  # noqa: S101 - narrows for the checker
        message = request._message  # noqa: SLF001 - aiohttp offers no other way to the raw fields
        done = connection.start(
            client,
            is_head=message.method == "HEAD",
            http10=message.version == HttpVersion10,
            # The connection of a chunked request is not used again: see Gate.handle.
            keep_alive=not message.should_close and not message.chunked,
            upgrade=upgrade,
            extra_fields=extra_fields,
            response_timeout=route.settings.response_timeout,
        )
        content = request.content
        sending: asyncio.Task[None] | None = None
        sent = False
        try:
            if not request.body_exists:
                connection.write(head)
                connection.request_sent()
                sent = True
            else:
                sending = asyncio.create_task(
                    _send(connection, head, content, chunked=message.chunked)
                )
                sending.add_done_callback(connection.request_ended)
            await done
            if sending is not None:
                sent = await _stop(sending)
            if connection.end is _SWITCHED:
                return await self._tunnel(connection, client)
        except asyncio.CancelledError:
            connection.abort()
            raise
        finally:
            if sending is not None:
                sending.cancel()
            connection.detach(request_sent=sent)
        if client.writing_paused and connection.end is _COMPLETE:
            await request.writer.drain()
        return _outcome(connection, client)

    async def _tunnel(self, connection: UpstreamConnection, client: ClientConnection) -> Outcome:
        tunnel = Tunnel(client, connection)
        self._tunnels.add(tunnel)
        if self._stopping:
            # It was on its way when the others were ended.
            asyncio.get_running_loop().call_soon(tunnel.end, GOING_AWAY, STOPPING)
        try:
            await tunnel.run()
        finally:
            self._tunnels.discard(tunnel)
        return Outcome(connection.status, tunnel.bytes_to_client, None, keep_client=False)


def _outcome(connection: UpstreamConnection, client: ClientConnection) -> Outcome:
    status, end = connection.status, connection.end
    if end is _COMPLETE:
        return Outcome(status, connection.body_bytes, None, connection.keep_client)
    if status and client.transport is not None:
        # Never a clean end: the client must see that the reply is not whole
        # (RFC 9112 section 8).
        client.transport.abort()
    return Outcome(status, connection.body_bytes, _FAILURES[end], keep_client=False)


async def _send(
    connection: UpstreamConnection, head: bytes, content: StreamReader, *, chunked: bool
) -> None:
    """Send a request head and its body as it arrives, no faster than the upstream takes it."""
    # The head never waits for the body: with Expect: 100-continue the body waits for a reply.
    connection.write(head + _frame(content.read_nowait(), chunked=chunked))
    while data := await content.readany():
        connection.write(_frame(data, chunked=chunked))
        await connection.drain()
    if chunked:
        connection.write(_END_OF_CHUNKS)


def wants_websocket(message: RawRequestMessage) -> bool:
    """Tell whether a request asks for a WebSocket; on HTTP/1.0 it cannot (RFC 9110 section 7.8)."""
    return bool(
        message.upgrade
        and message.version == HttpVersion11
        and message.headers.get("Upgrade", "").strip().lower() == "websocket"
    )


def _frame(data: bytes, *, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if chunked and data else data


async def _stop(sending: asyncio.Task[None]) -> bool:
    """Stop sending a body whose exchange has ended; return whether it was sent whole."""
    if sending.done():
        return not sending.cancelled() and sending.exception() is None
    sending.cancel()
    with suppress(asyncio.CancelledError):
        await sending
    return False
