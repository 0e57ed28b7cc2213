"""A client's connection as the event loop and the server see it: bytes, EOF, deadlines."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import Final, Protocol, cast

from tailchat_gate.config.certificates import ServerContext
from tailchat_gate.proxy.client.closing import (
    HalfClosed,
    Lingering,
    PeerEnd,
    peer_end,
    unread_bytes,
)
from tailchat_gate.proxy.client.connection import ClientConnection, CurrentService
from tailchat_gate.proxy.sockets import (
    READ_BYTES,
    ReadBuffers,
    peer_address,
    read_remaining,
    tell_of_rest,
)
from tailchat_gate.reasons import Reason, RefusedError


class ConnectionServer(Protocol):
    """The server that accepts and counts connections."""

    @property
    def service(self) -> CurrentService:
        """The service in force."""

    @property
    def buffers(self) -> ReadBuffers:
        """The read buffers of its event loop."""

    @property
    def time(self) -> Callable[[], float]:
        """The clock of its event loop."""

    def opened(self, connection: "ClientProtocol") -> Reason | None:
        """Count a new connection; return why it is rejected, None if it may stay."""

    def may_linger(self) -> bool:
        """Whether a rejected client may stay connected until it has read why."""

    def closed(self, connection: "ClientProtocol") -> None:
        """A connection is closed."""


class ClientProtocol(ClientConnection):
    """A connection from a client, with the callbacks of the event loop and the server."""

    __slots__ = ("_buffer", "_server", "_unsent", "counted_as", "named_peer", "trust")

    #: Never called. uvloop looks it up in each new protocol, and a missing one costs an exception.
    data_received: Final = None

    def __init__(self, server: ConnectionServer, service: CurrentService | None = None) -> None:
        """`service` answers requests in place of the server's."""
        super().__init__(service or server.service, server.buffers, server.time)
        self._server = server
        self._buffer = server.buffers.small
        #: The key under which the server counts this connection, "" for none.
        self.counted_as = ""
        self._unsent = 0
        #: The address in a PROXY header, "" to use that of the socket.
        self.named_peer = ""
        #: The value of ClientTrust when TLS began, None once that is out of date.
        self.trust: bytes | None = b""

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport and start the timeout for the first request."""
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        tell_of_rest(self.transport)
        self.peer = self.named_peer or peer_address(transport.get_extra_info("peername"))
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self._begin_tls(tls)
        self._deadline = self._time() + self._service.timeouts.header
        if (refused := self._server.opened(self)) is not None:
            self._turn_away(refused)

    def _begin_tls(self, tls: ssl.SSLObject) -> None:
        self.secure = True
        if isinstance(tls.context, ServerContext):
            self.trust = tls.context.clients
        if (certificate := tls.getpeercert(binary_form=True)) is not None:
            # RFC 9440 section 2.2: a byte sequence of structured fields.
            self.certificate = b"Client-Cert: :%b:\r\n" % b64encode(certificate)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - not what is wanted here
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the bytes of one read."""
        data = self.buffers.octets[:nbytes]
        self._moved = True
        if self._taker is None and not self._kept and self._lingering is None:
            self._take(data)
        else:
            self._take_other(data)
        if nbytes >= READ_BYTES and self._sink is not None:
            self._buffer = self.buffers.fitting(self._sink.upstream_transport)
        else:
            self._buffer = self.buffers.small

    def _take_other(self, data: bytes) -> None:
        """Handle bytes of a tunnel, of a closing connection, or after buffered ones."""
        if self._taker is not None:
            self._taker.from_client(data)
        elif self._lingering is not None:
            return
        elif self._active_request is None and not self._awaits_room and b"\n" not in data:
            # No head is complete without a line end, so parsing again would only cost time.
            self._keep_part(data)
        else:
            whole, self._kept = bytes(self._kept) + data, b""
            self._take(whole)

    def eof_received(self) -> bool:
        """The client sent EOF: pass it to a tunnel, finish a complete request, or close."""
        if self._taker is not None:
            self._unread = False
            self._taker.client_ended()
            return not self.secure
        transport = self.transport
        # The event loop closes a TLS connection at its EOF: it cannot be half closed there.
        if transport is None or self._lingering is not None or self.secure:
            return False
        # The event loop reports EOF again after reading was paused meanwhile.
        if self._half_closed is None and not self._waits_half_closed(transport):
            self.leaving = True
            self._close(linger=False)
        return True

    def _waits_half_closed(self, transport: asyncio.Transport) -> bool:
        """Return whether a half-closed client waits for a response; if so, watch it.

        Bytes after a request under way would pause reading, so at EOF all bytes were read.
        """
        timeout = self._service.timeouts.half_closed
        whole = self._body is None and not self._unread
        if self._active_request is None or not whole or not timeout:
            return False
        now = self._time()
        self._half_closed = HalfClosed(transport, now, timeout)
        # Makes every sweep check it.
        self._deadline = now
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection closed: end its request or tunnel."""
        try:
            taker = None if exc is None else self._taker
            if taker is not None and (words := read_remaining(self.transport)):
                taker.from_client(words)
        finally:
            self._lost(exc)

    def _lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.was_reset = exc is not None
        self._server.closed(self)
        if self.own is not None:
            self.own.close()
        # Last, because many parts of the gate take part in the end of a request.
        if self._active_request is not None:
            self._active_request.client_gone()

    def pause_writing(self) -> None:
        """The write buffer is full: stop what writes to this client."""
        self.full = True
        if self._active_request is not None:
            self._active_request.client_full(full=True)

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        self.full = False
        self._moved = True
        if self._active_request is not None:
            self._active_request.client_full(full=False)
        elif self._awaits_room:
            self._awaits_room = False
            self._go_on()

    # What the server calls.

    @property
    def idle_deadline(self) -> float:
        """When an idle connection closes; 0 during a request, and while it is closing."""
        return (
            0.0
            if self._active_request is not None or self._lingering is not None or self.leaving
            else self._deadline
        )

    def close_idle(self) -> None:
        """Close an idle connection to make room; no request is under way."""
        self._close(linger=False)

    def leave(self) -> None:
        """Make the next response the last one, which says so."""
        self.leaving = True
        if self._active_request is not None:
            self._active_request.close_after()

    def configuration_changed(self, now: float) -> None:
        """Adapt to another configuration, which is now in force; `now` is the loop's time."""
        self.address = None
        self.idle_at_most(self._service.timeouts.keepalive, now)

    def idle_at_most(self, seconds: float, now: float) -> None:
        """Limit the time for which it may be idle to `seconds`; `now` is the loop's time."""
        if self._active_request is None and not self._kept and self._lingering is None:
            self._deadline = min(self._deadline, now + seconds)

    def check(self, now: float) -> None:
        """End the connection if it is overdue or the client has left; `now` is the loop's time."""
        transport = self.transport
        if transport is None:
            return
        if self._holds and self._has_left_unread(now):
            transport.abort()
        elif self._lingering is not None:
            if self._lingering.is_over(transport, now):
                transport.abort()
        elif 0 < self._deadline <= now:
            self._end_overdue(transport, now)

    # The steps.

    def _end_overdue(self, transport: asyncio.Transport, now: float) -> None:
        """The deadline has passed: end what is overdue, or set the next deadline."""
        if self._active_request is None:
            self._end_waiting(now)
        elif self._half_closed is not None:
            quiet = self._active_request.quiet() and not self.full
            if self._half_closed.has_left(now, quiet=quiet):
                transport.abort()
        elif self._body is not None and self._body_timeout:
            if self._moved or self._holds:
                self._moved = False
                self._deadline = now + self._body_timeout
            else:
                slow = RefusedError("a body that stopped coming", Reason.REQUEST_SLOW)
                self._fail_body(slow)

    def _turn_away(self, reason: Reason) -> None:
        """Reject the connection: send the response for `reason` if there is room, and close."""
        if self._server.may_linger():
            self._refuse(RefusedError("too many connections", reason))
        else:
            self._lingering = Lingering(self._time())
            self.abort()

    def _has_left_unread(self, now: float) -> bool:
        """Whether a client has left while reading is paused, which the event loop does not see."""
        active_request, transport, body = self._active_request, self.transport, self._body
        if active_request is None or transport is None or transport.is_closing():
            return False
        end = peer_end(transport)
        if end is not PeerEnd.EOF or self._taker is not None or self._half_closed is not None:
            return end is PeerEnd.BROKEN
        if body is not None:
            # The unread bytes may be the rest of an upload whose client waits for the response.
            return body.needs_more_than(unread_bytes(transport))
        timeout = self._service.timeouts.half_closed
        if self._held_end is None:
            self._held_end = HalfClosed(transport, now, timeout)
        quiet = active_request.quiet() and not self.full
        return not timeout or self._held_end.has_left(now, quiet=quiet)

    def _end_waiting(self, now: float) -> None:
        if self._kept and not self._awaits_room:
            slow = RefusedError("a head that stopped coming", Reason.REQUEST_SLOW)
            self._refuse(slow, bytes(self._kept))
        elif not self._awaits_room:
            self._close_unasked()
        elif self._moved or self._takes_some():
            self._moved = False
            self._deadline = now + self._service.timeouts.keepalive
        else:
            self.abort()

    def _close_unasked(self) -> None:
        """Close an idle connection, unless a request has just arrived."""
        if self.transport is not None and not unread_bytes(self.transport):
            self._close(linger=False)

    def _takes_some(self) -> bool:
        """Whether the client has read some of its response since the last call."""
        before = self._unsent
        self._unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return self._unsent != before
