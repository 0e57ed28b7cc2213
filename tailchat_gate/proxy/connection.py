"""One connection to an upstream: sends a request head, relays the reply as it arrives."""

import asyncio
from enum import Enum, IntEnum
from typing import Protocol, cast

from tailchat_gate.proxy.downstream import ClientConnection
from tailchat_gate.proxy.reply import BadReplyError, ReplyReader


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
    BUSY = 1
    TUNNEL = 2
    CLOSED = 3


# Names of their own, because an enum's attribute costs ten times a global.
_IDLE, _BUSY, _TUNNEL, _CLOSED = _Phase


class BytesSink(Protocol):
    """Where the bytes of a switched connection go."""

    def from_upstream(self, data: bytes) -> None:
        """Take bytes that the upstream sent."""

    def upstream_lost(self) -> None:
        """Hear that the upstream closed."""

    def hold_client(self, *, hold: bool) -> None:
        """Hold the client's bytes back while the upstream takes no more."""


class UpstreamConnection(asyncio.Protocol):
    """A connection to an upstream, good for one exchange at a time.

    Bytes go to the client as they come, without a task in between: what one read brought is
    handed on in one write. `end` tells how the exchange went once the future that `start`
    returned is done; `status`, `body_bytes` and `keep_client` tell what the client got.
    """

    __slots__ = (
        "_client",
        "_done",
        "_drained",
        "_loop",
        "_phase",
        "_reader",
        "_response_timeout",
        "_wrote",
        "deadline",
        "end",
        "idle_since",
        "transport",
        "tunnel",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, reader: ReplyReader) -> None:
        self._loop = loop
        self._reader = reader
        self._phase = _IDLE
        self._drained: asyncio.Future[None] | None = None
        self._client: ClientConnection | None = None
        self._done: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.tunnel: BytesSink | None = None
        self.idle_since = 0.0
        self._response_timeout = 0.0
        self._wrote = False
        self.deadline = 0.0
        self.end = End.COMPLETE

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self._phase.name} {self.end.value}>"

    @property
    def status(self) -> int:
        """The status of the reply whose head was relayed, 0 where none was."""
        return self._reader.status if self._wrote else 0

    @property
    def body_bytes(self) -> int:
        """How many bytes of body the reply had so far."""
        return self._reader.body_bytes

    @property
    def keep_client(self) -> bool:
        """Whether the client was told that its connection stays."""
        return self._reader.keep_client

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
        response_timeout: float,
    ) -> asyncio.Future[None]:
        """Begin an exchange for `client`; the future is done when it has ended.

        `response_timeout` is how long the reply's head may take once the request is sent, in
        seconds (0 = no limit); the other arguments are those of ReplyReader.begin.
        """
        self._reader.begin(
            is_head=is_head,
            http10=http10,
            keep_alive=keep_alive,
            upgrade=upgrade,
            extra_fields=extra_fields,
        )
        self._client = client
        self._response_timeout = response_timeout
        self.deadline = 0.0
        self._phase = _BUSY
        self._wrote = False
        self.end = End.UNANSWERED
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

    def request_sent(self) -> None:
        """Hear that the request is sent whole: from now on the reply is waited for."""
        if self._response_timeout:
            self.deadline = self._loop.time() + self._response_timeout

    def request_ended(self, sending: asyncio.Task[None]) -> None:
        """Hear that the task that sends a body is done; end the exchange if it failed."""
        if sending.cancelled():
            return
        if sending.exception() is None:
            self.request_sent()
        else:
            self._finish(End.BAD_BODY)

    def is_reusable(self) -> bool:
        """Tell whether the connection is provably clean: nothing half sent, nothing unread."""
        transport = self.transport
        return (
            self._phase is _IDLE
            and not self._reader.dirty
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
            self._reader.dirty = True

    def abort(self) -> None:
        """Close at once, throwing away what is not sent: an unfinished request stays unfinished."""
        self._phase = _CLOSED
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    def close(self) -> None:
        """Close after what was written has been sent."""
        self._phase = _CLOSED
        if self.transport is not None:
            self.transport.close()

    def timed_out(self) -> None:
        """Give up on a reply whose head did not come in time."""
        self._finish(End.SLOW)

    def is_waiting_for_head(self) -> bool:
        """Tell whether the reply's head is still to come."""
        return self._phase is _BUSY and not self._reader.head_done

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
        if self._phase is _BUSY:
            self._relay(data)
        elif self._phase is not _TUNNEL:
            # Bytes that no request asked for must never become the next visitor's answer.
            self.abort()
        elif self.tunnel is None:
            self._reader.leftover += data
        else:
            self.tunnel.from_upstream(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what was going on when the upstream closed."""
        phase, self.transport = self._phase, None
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if phase is _TUNNEL and self.tunnel is not None:
            self.tunnel.upstream_lost()
        elif phase is _BUSY:
            self._end_with_connection(clean=exc is None)
        self._phase = _CLOSED

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

    # The exchange.

    def _relay(self, data: bytes) -> None:
        reader = self._reader
        try:
            pieces = reader.feed(data)
        except BadReplyError:
            self._finish(End.CUT_OFF if self._wrote else End.BROKEN)
            return
        if pieces and not self._write_client(pieces):
            self._finish(End.CLIENT_GONE)
        elif reader.switched:
            self._phase = _TUNNEL
            self._settle(End.SWITCHED)
        elif reader.complete:
            self._finish(End.COMPLETE)

    def _end_with_connection(self, *, clean: bool) -> None:
        reader = self._reader
        if not reader.started:
            self._finish(End.UNANSWERED)
            return
        try:
            pieces = reader.end() if clean else None
        except BadReplyError:
            pieces = None
        if pieces is None:
            self._finish(End.CUT_OFF if self._wrote else End.BROKEN)
        elif pieces and not self._write_client(pieces):
            self._finish(End.CLIENT_GONE)
        else:
            self._finish(End.COMPLETE)

    def _write_client(self, pieces: list[bytes]) -> bool:
        """Write to the client; return whether it is still there."""
        transport = self._client.transport if self._client is not None else None
        if transport is None or transport.is_closing():
            return False
        self._wrote = True
        transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return True

    def _finish(self, end: End) -> None:
        if self._phase is _CLOSED:
            return
        if end is End.COMPLETE and self._reader.stays and not self._reader.dirty:
            self._phase = _IDLE
        else:
            self._phase = _CLOSED
            if self.transport is not None:
                self.transport.abort()
        self._settle(end)

    def _settle(self, end: End) -> None:
        self.end = end
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def take_leftover(self) -> bytes:
        """Return the bytes that came behind a switch before the tunnel was there."""
        leftover, self._reader.leftover = self._reader.leftover, b""
        return leftover
