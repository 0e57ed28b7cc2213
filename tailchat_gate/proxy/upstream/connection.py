"""One connection to an upstream: sends requests, relays each response as it arrives."""

import asyncio
from enum import IntEnum
from typing import Final

from tailchat_gate.proxy.message.response_lines import BadResponseError
from tailchat_gate.proxy.message.response_reader import ResponseReader
from tailchat_gate.proxy.sockets import (
    READ_BYTES,
    ReadBuffers,
    end_writing,
    eof_is_authentic,
    read_remaining,
    reset_on_close,
)
from tailchat_gate.proxy.upstream.interfaces import (
    BytesSink,
    ConnectionOwner,
    End,
    ResponseTaker,
    ResponseTimeouts,
)
from tailchat_gate.proxy.upstream.socket import UpstreamSocket

#: How long a closing tunnel waits until its bytes are sent and the upstream closes: an upstream
#: that never reads would keep the connection open forever.
LINGER_SECONDS = 2.0
_CUT_OFF: Final = "a response that is cut off"


class _Phase(IntEnum):
    IDLE = 0
    BUSY = 1
    TUNNEL = 2
    LEAVING = 3
    CLOSED = 4


# Globals: see reasons.py.
_IDLE, _BUSY, _TUNNEL, _LEAVING, _CLOSED = _Phase
_IN_USE: Final = (_BUSY, _TUNNEL)
_COMPLETE, _SWITCHED = End.COMPLETE, End.SWITCHED


class UpstreamConnection(UpstreamSocket):
    """A connection to an upstream, for one exchange at a time.

    Each read is relayed to the client in one write, without a task. The exchange's `ended` gets
    the result; the `reader` counts what the client got.
    """

    __slots__ = (
        "_deadline", "_done", "_exchange", "_owner", "_phase", "_sent", "_time", "_timeouts",
        "_wrote", "fault", "idle_since", "reader", "tunnel", "was_reset",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reader: ResponseReader,
        owner: ConnectionOwner,
        buffers: ReadBuffers,
    ) -> None:
        super().__init__(buffers)
        self._time = loop.time
        self._owner = owner
        #: Reads the response; counts what the client got.
        self.reader: Final = reader
        self._phase = _IDLE
        self._exchange: ResponseTaker | None = None
        self.tunnel: BytesSink | None = None
        self.idle_since = 0.0
        #: How the response is malformed, "" if it is not.
        self.fault = ""
        #: Whether the connection was reset rather than closed.
        self.was_reset = False
        self._timeouts = ResponseTimeouts(0.0, 0.0)
        self._wrote = self._sent = False
        #: Whether an authentic EOF came from the upstream (sockets.eof_is_authentic).
        self._done = False
        self._deadline = 0.0

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self._phase.name}>"

    # What the forwarding side calls.

    def start(
        self, exchange: ResponseTaker, timeouts: ResponseTimeouts, data: bytes, *, whole: bool
    ) -> None:
        """Begin an exchange: send `data`, the `whole` request or its first part."""
        self.reader.begin(exchange)
        self._exchange = exchange
        self._timeouts = timeouts
        self._phase = _BUSY
        self._wrote = False
        self.moved = True
        self._sent = whole
        self._deadline = self._time() + timeouts.response if whole and timeouts.response else 0.0
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def request_sent(self) -> None:
        """The whole request is sent: start the timeout for the response."""
        self._sent = True
        if self._timeouts.response:
            self._deadline = self._time() + self._timeouts.response

    def is_reusable(self) -> bool:
        """Whether the connection is clean: no request half sent, no response half read."""
        transport = self.transport
        return (
            self._phase is _IDLE
            and not self.reader.dirty
            and transport is not None
            and not transport.is_closing()
        )

    def is_ready(self) -> bool:
        """Whether it is reusable and its socket holds neither unread bytes nor EOF.

        The event loop may report a new request before a late response, such as a 408, that came at
        the same time. That response would then answer the new request (RFC 9112 section 9.2).
        """
        return self.is_reusable() and not self.unread.poll(0)

    def spoil(self) -> None:
        """Never use the connection again, for example because a request was sent only in part."""
        self.reader.dirty = True

    def abort(self) -> None:
        """Close at once and drop unsent bytes, so that an unfinished request stays unfinished."""
        self._phase = _CLOSED
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort()

    def give_up(self) -> None:
        """Close at once; an exchange or tunnel ends as if the upstream had left."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close a tunnel's connection once its written bytes are sent.

        First read and drop what the upstream still sends: closing with unread bytes resets the
        connection, and the reset destroys what was written (RFC 9112 section 9.6). The caller
        keeps calling `check`.
        """
        self._phase = _LEAVING
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._done or not transport.can_write_eof():
            transport.close()
        elif end_writing(transport):
            self.resume_reading()
        self._deadline = self._time() + LINGER_SECONDS

    def reset(self) -> None:
        """Reset the connection, so that the upstream sees that its request is incomplete."""
        if self.transport is not None:
            reset_on_close(self.transport)
        self.abort()

    def check(self, now: float) -> None:
        """End an exchange whose response is overdue or has stopped; `now` is the loop's time."""
        if self._phase is not _BUSY:
            if self._phase is _LEAVING and self._deadline <= now:
                self.give_up()
            return
        if self._sent and not self.reader.head_done:
            if 0 < self._deadline <= now:
                self._finish(End.RESPONSE_TIMEOUT)
        elif self._timeouts.idle:
            # Neither the request's body nor the response's is moving.
            if self.moved:
                self.moved = False
                self._deadline = now + self._timeouts.idle
            elif self._deadline <= now:
                self._finish(End.IDLE_TIMEOUT if self._wrote else End.RESPONSE_TIMEOUT)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        super().connection_made(transport)
        self._owner.opened()

    def buffer_updated(self, nbytes: int) -> None:
        """Relay the bytes of one read."""
        data = self.buffers.octets[:nbytes]
        self.moved = True
        if self._phase is _BUSY:
            self._relay(data)
        else:
            self._take(data)
        if nbytes >= READ_BYTES and self._exchange is not None:
            self.buffer = self.buffers.fitting(self._exchange.client_transport)
        else:
            self.buffer = self.buffers.small

    def _take(self, data: bytes) -> None:
        if self._phase is _BUSY:
            self._relay(data)
        elif self._phase is _LEAVING:
            return
        elif self._phase is not _TUNNEL:
            # Bytes that no request asked for must never become the next visitor's response.
            self.abort()
        elif self.tunnel is None:
            self.reader.leftover += data
        else:
            self.tunnel.from_upstream(data)

    def eof_received(self) -> bool:
        """The upstream sent EOF: close, except for a tunnel, which may go on in one direction."""
        self._done = eof_is_authentic(self.transport)
        transport = self.transport
        if self._phase is not _TUNNEL or self.tunnel is None or transport is None:
            return False
        if transport.can_write_eof():
            self.tunnel.upstream_ended()
            return True
        # A TLS transport cannot be half closed: it closes both directions.
        self.tunnel.upstream_lost(reset=not self._done)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection closed: end its exchange or tunnel. Idempotent."""
        if self.transport is None:
            return
        try:
            in_use = exc is not None and self._phase in _IN_USE
            if in_use and (words := read_remaining(self.transport)):
                self._take(words)
        finally:
            self._lost(exc)

    def _lost(self, exc: Exception | None) -> None:
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
        """The write buffer is full: stop reading from the client."""
        self._tell_full(full=True)

    def resume_writing(self) -> None:
        """The write buffer has room: read from the client again."""
        self.moved = True
        self._tell_full(full=False)

    def _tell_full(self, *, full: bool) -> None:
        listener = self.tunnel or self._exchange
        if listener is not None:
            listener.upstream_full(full=full)

    # The exchange.

    def _relay(self, data: bytes) -> None:
        try:
            pieces = self.reader.feed(data)
        except BadResponseError as error:
            self._fail(str(error))
        else:
            self._pass_on(pieces)

    def _end_with_connection(self, *, clean: bool) -> None:
        if not self.reader.started:
            self._finish(End.UNANSWERED)
        elif not clean:
            self._fail(_CUT_OFF)
        else:
            try:
                pieces = self.reader.end()
            except BadResponseError:
                self._fail(_CUT_OFF)
            else:
                self._pass_on(pieces)

    def _fail(self, fault: str) -> None:
        self.fault = fault
        if not self._wrote:
            # No status was relayed: the head was in the same read as the fault.
            self.reader.status = 0
        self._finish(End.TRUNCATED if self._wrote else End.BROKEN)

    def _pass_on(self, pieces: list[bytes]) -> None:
        """Write to the client; end the exchange if the response is complete."""
        if pieces:
            self._wrote = True
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._exchange is None or not self._exchange.write_client(data):
                self._finish(End.CLIENT_GONE)
                return
        if self.reader.complete:
            self._finish(_COMPLETE)
        elif self.reader.switched:
            self._finish(_SWITCHED)

    def _finish(self, end: End) -> None:
        if self._phase is _CLOSED:
            return
        reader = self.reader
        if end is _COMPLETE and reader.stays and not reader.dirty:
            self._phase = _IDLE
            if self.paused:
                self.resume_reading()
        elif end is _SWITCHED:
            self._phase = _TUNNEL
        else:
            self._phase = _CLOSED
            if self.transport is not None:
                self.transport.abort()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            # Last, because the next exchange may begin inside this call.
            exchange.ended(end, reader)

    def take_leftover(self) -> bytes:
        """Return the bytes that came after the 101 response, before the tunnel started."""
        leftover, self.reader.leftover = self.reader.leftover, b""
        # No further response will come, and an exchange keeps its whole configuration in memory.
        self.reader.forget()
        return leftover
