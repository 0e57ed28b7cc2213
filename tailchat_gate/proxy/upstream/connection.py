"""One connection to an upstream: sends a request head, relays the reply as it arrives."""

import asyncio
import select
import socket
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, Protocol, cast

from tailchat_gate.proxy.message.response_lines import BadResponseError
from tailchat_gate.proxy.message.response_reader import Expected, ResponseReader
from tailchat_gate.proxy.sockets import (
    READ_BYTES,
    ReadBuffers,
    end_writing,
    eof_is_authentic,
    read_remaining,
    tell_of_rest,
)

#: How long a tunnel's connection may take to send what was written, and to be closed by the
#: upstream: one that never reads would stay open for ever.
LINGER_SECONDS: Final = 2.0
#: Of SO_LINGER: on, for no time (socket(7)).
_RESET: Final = struct.pack("ii", 1, 0)


class End(Enum):
    """How an exchange ended."""

    COMPLETE = "complete"
    #: The connection was closed before any byte of the reply: it may have been stale.
    UNANSWERED = "unanswered"
    #: The reply was malformed or stopped before its head was whole.
    BROKEN = "broken"
    #: The head was relayed, the body stopped short.
    TRUNCATED = "cut-off"
    RESPONSE_TIMEOUT = "slow"
    #: The head was relayed, then nothing moved for as long as may be.
    IDLE_TIMEOUT = "silent"
    CLIENT_GONE = "client-gone"
    #: The upstream switched protocols, as the client asked.
    SWITCHED = "switched"


class _Phase(IntEnum):
    IDLE = 0
    BUSY = 1
    TUNNEL = 2
    LEAVING = 3
    CLOSED = 4


# Names of their own, because an enum's attribute costs ten times a global.
_IDLE, _BUSY, _TUNNEL, _LEAVING, _CLOSED = _Phase
_IN_USE: Final = (_BUSY, _TUNNEL)
_COMPLETE = End.COMPLETE


class ResponseTaker(Protocol):
    """What an exchange is to the connection that it uses."""

    @property
    def client_transport(self) -> asyncio.Transport | None:
        """That of the client, None where it is gone."""

    def write_client(self, data: bytes) -> bool:
        """Send bytes of the reply; return whether the client was still there."""

    def upstream_full(self, *, full: bool) -> None:
        """Hear that the upstream takes no more bytes for now, or takes them again."""

    def ended(self, end: End) -> None:
        """Hear that the exchange is over."""


class BytesSink(Protocol):
    """Where the bytes of a switched connection go."""

    def from_upstream(self, data: bytes) -> None:
        """Take bytes that the upstream sent."""

    def upstream_ended(self) -> None:
        """Hear that the upstream sends no more, though it may still read."""

    def upstream_lost(self, *, reset: bool) -> None:
        """Hear that the upstream closed, or that the connection broke."""

    def upstream_full(self, *, full: bool) -> None:
        """Hear that the upstream takes no more bytes for now, or takes them again."""


class ConnectionOwner(Protocol):
    """What counts the connections that are open."""

    def opened(self) -> None:
        """Hear that a connection is open."""

    def closed(self) -> None:
        """Hear that one is closed."""


@dataclass(frozen=True, slots=True)
class ResponseTimeouts:
    """Seconds to wait: for a reply's head, and for its next bytes (0 = no limit)."""

    response: float
    idle: float


_NO_TIMEOUTS = ResponseTimeouts(0.0, 0.0)


class UpstreamConnection(asyncio.BufferedProtocol):
    """A connection to an upstream, good for one exchange at a time.

    Bytes go to the client as they come, without a task in between: what one read brought is
    handed on in one write. The exchange hears how it ended; the `reader` tells what the client got.
    """

    __slots__ = (
        "_buffer", "_deadline", "_done", "_exchange", "_loop", "_moved", "_owner", "_paused",
        "_phase", "_sent", "_timeouts", "_unread", "_wrote", "address", "buffers", "fault",
        "idle_since", "reader", "transport", "tunnel", "was_reset",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reader: ResponseReader,
        owner: ConnectionOwner,
        buffers: ReadBuffers,
    ) -> None:
        self.buffers: Final = buffers
        self._buffer = buffers.small
        self._loop = loop
        self._owner = owner
        #: Reads the reply; tells what the client got of it.
        self.reader: Final = reader
        self._phase = _IDLE
        self._exchange: ResponseTaker | None = None
        self.transport: asyncio.Transport | None = None
        #: The address of the upstream, "" for a Unix socket.
        self.address = ""
        self._unread = select.poll()
        self.tunnel: BytesSink | None = None
        self.idle_since = 0.0
        #: What is wrong with the reply, "" where nothing is.
        self.fault = ""
        #: Whether the connection broke, in place of being closed.
        self.was_reset = False
        self._timeouts = _NO_TIMEOUTS
        self._wrote = self._sent = self._moved = self._paused = False
        #: Whether the upstream has said that it sends no more.
        self._done = False
        self._deadline = 0.0

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self._phase.name}>"

    # What the forwarding side calls.

    def start(
        self, exchange: ResponseTaker, expected: Expected, timeouts: ResponseTimeouts
    ) -> None:
        """Begin an exchange, which takes the reply that is `expected`."""
        self.reader.begin(expected)
        self._exchange = exchange
        self._timeouts = timeouts
        self._deadline = 0.0
        self._phase = _BUSY
        self._wrote = self._sent = False
        self._moved = True

    def write(self, data: bytes) -> None:
        """Send bytes of the request; dropped where the connection is closing."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._moved = True
            transport.write(data)

    def request_sent(self) -> None:
        """Hear that the request is sent whole: from now on the reply is waited for."""
        self._sent = True
        if self._timeouts.response:
            self._deadline = self._loop.time() + self._timeouts.response

    def is_reusable(self) -> bool:
        """Tell whether the connection is provably clean: nothing half sent, nothing unread."""
        transport = self.transport
        return (
            self._phase is _IDLE
            and not self.reader.dirty
            and transport is not None
            and not transport.is_closing()
        )

    def is_quiet(self) -> bool:
        """Tell whether the socket holds neither unread bytes nor an end.

        The event loop may hear of a new request before it hears of a late answer, such as a 408,
        that came in the same instant; sent then, the request would be given that answer
        (RFC 9112 section 9.2).
        """
        return not self._unread.poll(0)

    def spoil(self) -> None:
        """Never use the connection again: a request was sent in part only."""
        self.reader.dirty = True

    def abort(self) -> None:
        """Close at once, throwing away what is not sent: an unfinished request stays unfinished."""
        self._phase = _CLOSED
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    def close(self) -> None:
        """Close a tunnel's connection behind what was written.

        What the upstream still sends is thrown away first: a connection closed upon unread bytes
        is reset, and the reset destroys what was written (RFC 9112 section 9.6). Whoever calls
        this goes on to call `check`.
        """
        self._phase = _LEAVING
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._done or not transport.can_write_eof():
            transport.close()
        elif end_writing(transport):
            self.resume_reading()
        self._deadline = self._loop.time() + LINGER_SECONDS

    def reset(self) -> None:
        """Reset the connection: the upstream must see that what it got is not whole."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            found = transport.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.abort()

    def finish_writing(self) -> bool:
        """Send the end of what is written, and go on reading; return whether that can be."""
        transport = self.transport
        if transport is None or transport.is_closing() or not transport.can_write_eof():
            return False
        return end_writing(transport)

    def check(self, now: float) -> None:
        """Give up on a reply that does not come or does not go on; `now` is the loop's time."""
        if self._phase is not _BUSY:
            if self._phase is _LEAVING and self._deadline <= now and self.transport is not None:
                self.transport.abort()
            return
        if self._sent and not self.reader.head_done:
            if 0 < self._deadline <= now:
                self._finish(End.RESPONSE_TIMEOUT)
        elif self._timeouts.idle:
            # Neither the request's body nor the reply's is moving.
            if self._moved:
                self._moved = False
                self._deadline = now + self._timeouts.idle
            elif self._deadline <= now:
                self._finish(End.IDLE_TIMEOUT if self._wrote else End.RESPONSE_TIMEOUT)

    def pause_reading(self) -> None:
        """Hold the upstream back while the client takes no more."""
        if not self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the upstream send again."""
        if self._paused:
            self._paused = False
            self._moved = True
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        tell_of_rest(self.transport)
        self._owner.opened()
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self._unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - not what is wanted here
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Relay what one read brought."""
        data = self._buffer[:nbytes].tobytes()
        self._moved = True
        if self._phase is _BUSY:
            self._relay(data)
        else:
            self._take(data)
        if nbytes >= READ_BYTES and self._exchange is not None:
            self._buffer = self.buffers.fitting(self._exchange.client_transport)
        else:
            self._buffer = self.buffers.small

    def _take(self, data: bytes) -> None:
        if self._phase is _BUSY:
            self._relay(data)
        elif self._phase is _LEAVING:
            return
        elif self._phase is not _TUNNEL:
            # Bytes that no request asked for must never become the next visitor's answer.
            self.abort()
        elif self.tunnel is None:
            self.reader.leftover += data
        else:
            self.tunnel.from_upstream(data)

    def eof_received(self) -> bool:
        """Close with the upstream; only a tunnel goes on one way."""
        self._done = eof_is_authentic(self.transport)
        transport = self.transport
        if self._phase is not _TUNNEL or self.tunnel is None or transport is None:
            return False
        if transport.can_write_eof():
            self.tunnel.upstream_ended()
            return True
        # TLS has no way to go on: it takes nothing more either.
        self.tunnel.upstream_lost(reset=not self._done)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what was going on when the upstream closed."""
        if exc is not None and self._phase in _IN_USE and (words := read_remaining(self.transport)):
            self._take(words)
        self._owner.closed()
        self.was_reset = exc is not None
        phase, self.transport = self._phase, None
        clean = exc is None and self._done
        if phase is _TUNNEL and self.tunnel is not None:
            self.tunnel.upstream_lost(reset=not clean)
        elif phase is _BUSY:
            self._end_with_connection(clean=clean)
        self._phase = _CLOSED

    def pause_writing(self) -> None:
        """Hold what the client sends: the upstream takes no more for now."""
        self._tell_full(full=True)

    def resume_writing(self) -> None:
        """Let it go on."""
        self._moved = True
        self._tell_full(full=False)

    def _tell_full(self, *, full: bool) -> None:
        listener = self.tunnel or self._exchange
        if listener is not None:
            listener.upstream_full(full=full)

    # The exchange.

    def _relay(self, data: bytes) -> None:
        reader = self.reader
        try:
            pieces = reader.feed(data)
        except BadResponseError as error:
            self.fault = str(error)
            if not self._wrote:
                # Of the head that it read with the fault nothing is relayed.
                reader.status = 0
            self._finish(End.TRUNCATED if self._wrote else End.BROKEN)
            return
        if pieces and not self._write_client(pieces):
            self._finish(End.CLIENT_GONE)
        elif reader.switched:
            self._phase = _TUNNEL
            self._settle(End.SWITCHED)
        elif reader.complete:
            self._finish(_COMPLETE)

    def _end_with_connection(self, *, clean: bool) -> None:
        reader = self.reader
        if not reader.started:
            self._finish(End.UNANSWERED)
            return
        try:
            pieces = reader.end() if clean else None
        except BadResponseError:
            pieces = None
        if pieces is None:
            self.fault = "a reply that is cut off"
            self._finish(End.TRUNCATED if self._wrote else End.BROKEN)
        elif pieces and not self._write_client(pieces):
            self._finish(End.CLIENT_GONE)
        else:
            self._finish(_COMPLETE)

    def _write_client(self, pieces: list[bytes]) -> bool:
        """Write to the client; return whether it is still there."""
        if self._exchange is None:
            return False
        self._wrote = True
        return self._exchange.write_client(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _finish(self, end: End) -> None:
        if self._phase is _CLOSED:
            return
        if end is _COMPLETE and self.reader.stays and not self.reader.dirty:
            self._phase = _IDLE
        else:
            self._phase = _CLOSED
            if self.transport is not None:
                self.transport.abort()
        self._settle(end)

    def _settle(self, end: End) -> None:
        exchange, self._exchange = self._exchange, None
        if self._paused and self._phase is _IDLE:
            self.resume_reading()
        if exchange is not None:
            # Last, because the next exchange may begin with it.
            exchange.ended(end)

    def take_leftover(self) -> bytes:
        """Return the bytes that came behind a switch before the tunnel was there."""
        leftover, self.reader.leftover = self.reader.leftover, b""
        # No reply comes any more, and an exchange holds its whole configuration.
        self.reader.forget()
        return leftover
