"""One connection to an upstream: sends a request head, relays the reply as it arrives."""

import asyncio
from enum import Enum, IntEnum
from http import HTTPStatus
from typing import Final, Protocol, cast

import httptools

from tailchat_gate.proxy.downstream import ClientConnection
from tailchat_gate.proxy.headers import CRLF, HOP_BY_HOP, without

#: Of a reply's head; nginx and Node allow 8 to 16 KiB.
MAX_HEAD_BYTES: Final = 65_536
#: Replies before the final one (100, 102, 103); an upstream has no use for more.
MAX_INTERIM: Final = 16
_MAX_KNOWN_NAMES: Final = 2048
_MAX_KNOWN_LENGTH: Final = 64


class End(Enum):
    """How an exchange ended."""

    COMPLETE = "complete"
    #: The connection was closed before any byte of the reply: it may have been stale.
    UNANSWERED = "unanswered"
    #: The reply was malformed or stopped before its head was whole.
    BROKEN = "broken"
    #: The head was relayed, the body stopped short.
    CUT_OFF = "cut-off"
    SLOW = "slow"
    #: The client broke the framing of its body, so the request was never finished.
    BAD_BODY = "bad-body"
    CLIENT_GONE = "client-gone"
    #: The upstream switched protocols, as the client asked.
    SWITCHED = "switched"


class _Phase(IntEnum):
    IDLE = 0
    HEAD = 1
    BODY = 2
    TUNNEL = 3
    CLOSED = 4


class _Action(IntEnum):
    KEEP = 0
    DROP = 1
    SET_COOKIE = 2
    CONTENT_LENGTH = 3
    TRANSFER_ENCODING = 4
    CONNECTION = 5
    UPGRADE = 6


#: Options of Connection that name no field, and the field that frames the body.
_NEVER_LISTED: Final = frozenset((b"", b"close", b"content-length", b"keep-alive", b"upgrade"))
#: Statuses whose replies have no body, whatever their fields say (RFC 9112 section 6.3).
_BODILESS: Final = frozenset((HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED))
_ACTIONS: Final = {
    b"set-cookie": _Action.SET_COOKIE,
    b"content-length": _Action.CONTENT_LENGTH,
    b"transfer-encoding": _Action.TRANSFER_ENCODING,
    b"connection": _Action.CONNECTION,
    b"upgrade": _Action.UPGRADE,
}


class BytesSink(Protocol):
    """Where the bytes of a switched connection go."""

    def from_upstream(self, data: bytes) -> None:
        """Take bytes that the upstream sent."""

    def upstream_lost(self) -> None:
        """Hear that the upstream closed."""

    def hold_client(self, *, hold: bool) -> None:
        """Hold the client's bytes back while the upstream takes no more."""


class CookieGuard(Protocol):
    """Knows the gate's own cookies."""

    def is_own(self, set_cookie: bytes) -> bool:
        """Tell whether a Set-Cookie value would replace a cookie of the gate."""


class ReplyNames:
    """What to do with each field name of a reply; remembered, because names repeat."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Action] = {}

    def action(self, name: bytes) -> _Action:
        """Return the action for a field name as the upstream wrote it."""
        action = self._known.get(name)
        if action is None:
            lower = name.lower()
            action = _ACTIONS.get(lower, _Action.DROP if lower in HOP_BY_HOP else _Action.KEEP)
            if len(self._known) < _MAX_KNOWN_NAMES and len(name) <= _MAX_KNOWN_LENGTH:
                self._known[name] = action
        return action


class UpstreamConnection(asyncio.Protocol):
    """A connection to an upstream, good for one exchange at a time.

    Bytes go to the client as they come, without a task in between: the parser's callbacks
    collect what one read brought and one write hands it on. `end` tells how the exchange went
    once the future that `start` returned is done.
    """

    __slots__ = (
        "_bytes_seen",
        "_chunk_to_client",
        "_chunked",
        "_client",
        "_complete",
        "_cookies",
        "_dirty",
        "_done",
        "_drained",
        "_extra_fields",
        "_has_length",
        "_http10",
        "_interim",
        "_is_head",
        "_keep_alive",
        "_listed",
        "_loop",
        "_names",
        "_out",
        "_parser",
        "_phase",
        "_pieces",
        "_reason",
        "_stays",
        "_until_close",
        "_upgrade",
        "body_bytes",
        "deadline",
        "end",
        "idle_since",
        "keep_client",
        "leftover",
        "status",
        "transport",
        "tunnel",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, names: ReplyNames, cookies: CookieGuard
    ) -> None:
        self._loop = loop
        self._names = names
        self._cookies = cookies
        self._parser = httptools.HttpResponseParser(self)
        self._phase = _Phase.IDLE
        self._drained: asyncio.Future[None] | None = None
        self._client: ClientConnection | None = None
        self._done: asyncio.Future[None] | None = None
        self._out: list[bytes] = []
        self._pieces: list[bytes] = []
        self._listed: list[bytes] = []
        self._reason = b""
        self._chunked = self._has_length = self._stays = False
        self._dirty = False
        self.transport: asyncio.Transport | None = None
        self.tunnel: BytesSink | None = None
        self.leftover = b""
        self.idle_since = 0.0
        self.deadline = 0.0
        self.end = End.COMPLETE
        self.status = 0
        self.body_bytes = 0
        self.keep_client = True

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self._phase.name} {self.end.value}>"

    # What the forwarding side calls.

    def start(
        self,
        client: ClientConnection,
        *,
        is_head: bool,
        http10: bool,
        keep_alive: bool,
        upgrade: bool,
        extra_fields: bytes,
        deadline: float,
    ) -> asyncio.Future[None]:
        """Begin an exchange for `client`; the future is done when it has ended.

        `is_head`: the request's method is HEAD. `http10`, `keep_alive`: the client's version and
        whether its connection stays. `upgrade`: the client asked to switch protocols.
        `extra_fields` are header lines to add to the reply. `deadline` is the loop time by which
        the reply's head must be there (0 = none).
        """
        self._client = client
        self._is_head = is_head
        self._http10 = http10
        self._keep_alive = keep_alive
        self._upgrade = upgrade
        self._extra_fields = extra_fields
        self.deadline = deadline
        self._phase = _Phase.HEAD
        self._bytes_seen = 0
        self._interim = 0
        self._complete = self._until_close = self._chunk_to_client = False
        self._reset_head()
        self.end = End.UNANSWERED
        self.status = self.body_bytes = 0
        self.keep_client = keep_alive
        client.flow = self
        self._done = self._loop.create_future()
        return self._done

    def write(self, data: bytes) -> None:
        """Send bytes of the request; dropped where the connection is closing."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    async def drain(self) -> None:
        """Wait until the upstream takes more bytes."""
        if self._drained is not None:
            await self._drained

    def request_ended(self, sending: asyncio.Task[None]) -> None:
        """Hear that the task that sends the body is done; end the exchange if it failed."""
        if not sending.cancelled() and sending.exception() is not None:
            self._finish(End.BAD_BODY)

    def is_reusable(self) -> bool:
        """Tell whether the connection is provably clean: nothing half sent, nothing unread."""
        transport = self.transport
        return (
            self._phase is _Phase.IDLE
            and not self._dirty
            and transport is not None
            and not transport.is_closing()
        )

    def detach(self, *, request_sent: bool) -> None:
        """End the exchange's hold on the client; a request half sent makes the connection unfit."""
        if self._client is not None:
            self._client.flow = None
            self._client = None
        self._done = None
        if not request_sent:
            self._dirty = True

    def abort(self) -> None:
        """Close at once, throwing away what is not sent: an unfinished request stays unfinished."""
        self._phase = _Phase.CLOSED
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    def close(self) -> None:
        """Close after what was written has been sent."""
        self._phase = _Phase.CLOSED
        if self.transport is not None:
            self.transport.close()

    def timed_out(self) -> None:
        """Give up on a reply whose head did not come in time."""
        self._finish(End.SLOW)

    def is_waiting_for_head(self) -> bool:
        """Tell whether the reply's head is still to come."""
        return self._phase is _Phase.HEAD

    def pause_reading(self) -> None:
        """Hold the upstream back while the client takes no more."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the upstream send again."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Relay what one read brought."""
        phase = self._phase
        if phase is _Phase.TUNNEL:
            if self.tunnel is None:
                self.leftover += data
            else:
                self.tunnel.from_upstream(data)
            return
        if phase is not _Phase.HEAD and phase is not _Phase.BODY:
            # Bytes that no request asked for must never become the next visitor's answer.
            self.abort()
            return
        self._bytes_seen += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._switch(data[switch.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._complete:
                # What this read brought is part of a reply that is not to be trusted.
                self._finish(End.BROKEN if self._phase is _Phase.HEAD else End.CUT_OFF)
                return
            self._dirty = True
        self._flush()
        if self._complete:
            self._finish(End.COMPLETE)
        elif self._phase is _Phase.HEAD and self._bytes_seen > MAX_HEAD_BYTES:
            self._finish(End.BROKEN)

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what was going on when the upstream closed."""
        phase, self.transport = self._phase, None
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if phase is _Phase.TUNNEL and self.tunnel is not None:
            self.tunnel.upstream_lost()
        elif phase is _Phase.HEAD:
            self._finish(End.BROKEN if self._bytes_seen else End.UNANSWERED)
        elif phase is _Phase.BODY:
            if self._until_close and exc is None:
                if self._chunk_to_client:
                    self._out.append(b"0\r\n\r\n")
                self._flush()
                self._finish(End.COMPLETE)
            else:
                self._finish(End.CUT_OFF)
        self._phase = _Phase.CLOSED

    def pause_writing(self) -> None:
        """Hold the request's body: the upstream takes no more for now."""
        self._drained = self._loop.create_future()
        if self.tunnel is not None:
            self.tunnel.hold_client(hold=True)

    def resume_writing(self) -> None:
        """Let the request's body go on."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None
        if self.tunnel is not None:
            self.tunnel.hold_client(hold=False)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Notice a second reply behind the first: nobody asked for it."""
        if self._complete:
            self._dirty = True

    def on_status(self, reason: bytes) -> None:
        """Collect the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field of the head; trailers are dropped (RFC 9110 section 6.5.1)."""
        if self._phase is not _Phase.HEAD:
            return
        action = self._names.action(name)
        if action is _Action.KEEP:
            self._pieces += (name, b": ", value, CRLF)
        elif action is _Action.CONTENT_LENGTH:
            self._has_length = True
            self._pieces += (name, b": ", value, CRLF)
        elif action is _Action.SET_COOKIE:
            if not self._cookies.is_own(value):
                self._pieces += (name, b": ", value, CRLF)
        elif action is _Action.TRANSFER_ENCODING:
            if value.strip().lower() != b"chunked" or self._chunked:
                raise ValueError("a transfer coding that the gate did not offer")
            self._chunked = True
        elif action is _Action.CONNECTION:
            self._listed += value.lower().split(b",")
        elif action is _Action.UPGRADE and self._upgrade:
            self._pieces += (name, b": ", value, CRLF)

    def on_headers_complete(self) -> None:
        """Write the head for the client."""
        if self._phase is not _Phase.HEAD:
            return
        status = self._parser.get_status_code()
        if status < HTTPStatus.OK:
            self._relay_interim(status)
            return
        self.status = status
        # Asked here, because the parser forgets it when the message is complete.
        self._stays = self._parser.should_keep_alive()
        self._frame_reply(status)
        self._phase = _Phase.BODY

    def on_body(self, body: bytes) -> None:
        """Relay a part of the body."""
        if self._complete:
            self._dirty = True
            return
        self.body_bytes += len(body)
        if self._chunk_to_client:
            self._out += (b"%x\r\n" % len(body), body, CRLF)
        else:
            self._out.append(body)

    def on_message_complete(self) -> None:
        """End the reply; an interim one is not the end."""
        if self._phase is _Phase.BODY and not self._complete:
            if self._chunk_to_client:
                self._out.append(b"0\r\n\r\n")
            self._complete = True

    # The reply's head.

    def _reset_head(self) -> None:
        self._pieces = []
        self._listed = []
        self._reason = b""
        self._chunked = self._has_length = False

    def _take_fields(self) -> list[bytes]:
        listed = {option.strip() for option in self._listed} - _NEVER_LISTED
        return without(self._pieces, listed) if listed else self._pieces

    def _relay_interim(self, status: int) -> None:
        self._interim += 1
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            if not self._upgrade or not self._parser.should_upgrade():
                raise ValueError("a protocol switch that nobody asked for")
            self.status = status
            return
        if self._interim > MAX_INTERIM:
            raise ValueError("too many interim replies")
        if not self._http10:
            line = b"HTTP/1.1 %d %b\r\n" % (status, self._reason)
            self._out += (line, *self._take_fields(), CRLF)
        self._bytes_seen = 0
        self._reset_head()

    def _frame_reply(self, status: int) -> None:
        """Write status line, fields and framing (RFC 9112 section 6.3) for the client."""
        out = self._out
        out.append(b"HTTP/1.1 %d %b\r\n" % (status, self._reason))
        out += self._take_fields()
        bodiless = self._is_head or status in _BODILESS
        if bodiless:
            self._complete = self._is_head
        elif not self._has_length:
            self._until_close = not self._chunked
            if self._http10:
                self.keep_client = False
            else:
                self._chunk_to_client = True
                out.append(b"Transfer-Encoding: chunked\r\n")
        if self._extra_fields:
            out.append(self._extra_fields)
        if not self.keep_client:
            out.append(b"Connection: close\r\n")
        elif self._http10:
            out.append(b"Connection: keep-alive\r\n")
        out.append(CRLF)

    def _switch(self, leftover: bytes) -> None:
        if self._phase is not _Phase.HEAD or self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            self._finish(End.BROKEN)
            return
        line = b"HTTP/1.1 101 %b\r\nConnection: Upgrade\r\n" % (
            self._reason or b"Switching Protocols"
        )
        self._out += (line, *self._take_fields(), self._extra_fields, CRLF)
        self._flush()
        self.leftover = leftover
        self._phase = _Phase.TUNNEL
        self._settle(End.SWITCHED)

    # The end.

    def _flush(self) -> None:
        out = self._out
        if not out:
            return
        self._out = []
        client = self._client
        transport = client.transport if client is not None else None
        if transport is None or transport.is_closing():
            self._finish(End.CLIENT_GONE)
            return
        transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _finish(self, end: End) -> None:
        if self._phase is _Phase.CLOSED:
            return
        if end is End.COMPLETE and self._stays and not self._dirty:
            if self._is_head:
                # The parser cannot know that a reply to HEAD has no body.
                self._parser = httptools.HttpResponseParser(self)
            self._phase = _Phase.IDLE
        else:
            self._phase = _Phase.CLOSED
            if self.transport is not None:
                self.transport.abort()
        self._out = []
        self._settle(end)

    def _settle(self, end: End) -> None:
        self.end = end
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
