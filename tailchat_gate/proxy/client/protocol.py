"""What the event loop and the server tell a client's connection: bytes, ends, deadlines."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from tailchat_gate.proxy.client.connection import ClientConnection, CurrentService
from tailchat_gate.proxy.client.half_closed import HalfClosed, PeerEnd, peer_end, unread_bytes
from tailchat_gate.proxy.client.lingering import Lingering
from tailchat_gate.proxy.sockets import READ_BYTES, ReadBuffers, read_remaining, tell_of_rest
from tailchat_gate.reasons import Reason, RefusedError


class Server(Protocol):
    """What a connection is made by: it counts its connections."""

    @property
    def service(self) -> CurrentService:
        """What answers requests."""

    @property
    def buffers(self) -> ReadBuffers:
        """Those of its loop."""

    @property
    def time(self) -> Callable[[], float]:
        """The clock of its loop."""

    def opened(self, connection: "ClientProtocol") -> Reason | None:
        """Count a new connection; return why it has to be turned away, None where it may stay."""

    def may_linger(self) -> bool:
        """Tell whether a client that is turned away may stay until it has read why."""

    def closed(self, connection: "ClientProtocol") -> None:
        """Hear that a connection is gone."""


class ClientProtocol(ClientConnection):
    """A connection from a client, as the event loop and the server see it."""

    __slots__ = ("_buffer", "_server", "_unsent", "counted_as")

    def __init__(self, server: Server) -> None:
        super().__init__(server.service, server.buffers, server.time)
        self._server = server
        self._buffer = server.buffers.small
        #: The client that has one connection less to open with it, "" for none.
        self.counted_as = ""
        self._unsent = 0

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and begin to wait for a request."""
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        tell_of_rest(self.transport)
        peer = transport.get_extra_info("peername")
        # A Unix socket has no address: whoever may open it is this machine.
        # Mapped where a listener takes IPv4 and IPv6 alike (RFC 4291 section 2.5.5.2).
        self.peer = (
            peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) and peer else "127.0.0.1"
        )
        self._deadline = self._time() + self._service.timeouts.header
        if (refused := self._server.opened(self)) is not None:
            self._turn_away(refused)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - not what is wanted here
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what one read brought."""
        data = self._buffer[:nbytes].tobytes()
        self._moved = True
        if self._taker is None and not self._kept and self._lingering is None:
            self._take(data)
        else:
            self._take_behind(data)
        if nbytes >= READ_BYTES and self._sink is not None:
            self._buffer = self.buffers.fitting(self._sink.upstream_transport)
        else:
            self._buffer = self.buffers.small

    def _take_behind(self, data: bytes) -> None:
        """Take bytes of a tunnel, of a client that is turned away, or behind what is kept."""
        if self._taker is not None:
            self._taker.from_client(data)
        elif self._lingering is not None:
            return
        elif self._active_request is None and not self._awaits_room and b"\n" not in data:
            # No head ends here: it is not searched for again, or a dripping client would cost.
            self._keep_part(data)
        else:
            whole, self._kept = bytes(self._kept) + data, b""
            self._take(whole)

    def eof_received(self) -> bool:
        """Pass the end on in a tunnel; a whole request is answered still, all else ends here."""
        if self._taker is not None:
            self._unread = False
            self._taker.client_ended()
            return True
        transport = self.transport
        if transport is None or self._lingering is not None:
            return False
        # It is told again where reading was held meanwhile.
        if self._half_closed is None and not self._waits_half_closed(transport):
            self.leaving = True
            self._close(linger=False)
        return True

    def _waits_half_closed(self, transport: asyncio.Transport) -> bool:
        """Let a client that sends no more have its response; return whether it waits for one.

        What lies behind a request under way holds the reading, so the end has come behind all.
        """
        patience = self._service.timeouts.half_closed
        whole = self._body is None and not self._unread
        if self._active_request is None or not whole or not patience:
            return False
        now = self._time()
        self._half_closed = HalfClosed(transport, now, patience)
        # Looked at on every sweep.
        self._deadline = now
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End what was going on."""
        if (
            exc is not None
            and self._taker is not None
            and (words := read_remaining(self.transport))
        ):
            self._taker.from_client(words)
        self.transport = None
        self.was_reset = exc is not None
        self._server.closed(self)
        if self._active_request is not None:
            self._active_request.client_gone()
        if self.own is not None:
            self.own.close()

    def pause_writing(self) -> None:
        """Hold what feeds this client: its socket and buffer are full."""
        self.full = True
        if self._active_request is not None:
            self._active_request.client_full(full=True)

    def resume_writing(self) -> None:
        """Let it be fed again."""
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
        """When it ends if no request comes, 0 while one is under way or while it is closing."""
        return (
            0.0
            if self._active_request is not None or self._lingering is not None or self.leaving
            else self._deadline
        )

    def close_idle(self) -> None:
        """Close it for want of room; no request is under way."""
        self._close(linger=False)

    def leave(self) -> None:
        """Take no further request: close at once where none is under way."""
        self.leaving = True
        if self._active_request is None and self.transport is not None and self._lingering is None:
            self.transport.close()

    def hear_of_change(self, now: float) -> None:
        """Hear that another configuration answers from now on; `now` is the loop's time."""
        self.client = None
        if self._active_request is None and not self._kept and self._lingering is None:
            self._deadline = min(self._deadline, now + self._service.timeouts.keepalive)

    def check(self, now: float) -> None:
        """End what has lasted too long, and what a client has left; `now` is the loop's time."""
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
        """Act on a deadline that is over: end what has waited too long, or set the next one."""
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
        """Answer that there is no room, and close."""
        if self._server.may_linger():
            self._refuse(RefusedError("too many connections", reason))
        else:
            self._lingering = Lingering(self._time())
            self.abort()

    def _has_left_unread(self, now: float) -> bool:
        """Tell whether a client has left that is not read from: the event loop does not."""
        active_request, transport, body = self._active_request, self.transport, self._body
        if active_request is None or transport is None or transport.is_closing():
            return False
        end = peer_end(transport)
        if end is not PeerEnd.SENT or self._taker is not None or self._half_closed is not None:
            return end is PeerEnd.BROKEN
        if body is not None:
            # What lies unread may be the rest of an upload, whose client waits for the response.
            return body.needs_more_than(unread_bytes(transport))
        patience = self._service.timeouts.half_closed
        if self._held_end is None:
            self._held_end = HalfClosed(transport, now, patience)
        quiet = active_request.quiet() and not self.full
        return not patience or self._held_end.has_left(now, quiet=quiet)

    def _end_waiting(self, now: float) -> None:
        if self._kept and not self._awaits_room:
            self._refuse(RefusedError("a head that stopped coming", Reason.REQUEST_SLOW))
        elif not self._awaits_room:
            self._close(linger=False)
        elif self._moved or self._takes_some():
            self._moved = False
            self._deadline = now + self._service.timeouts.keepalive
        else:
            self.abort()

    def _takes_some(self) -> bool:
        """Tell whether the client has taken some of its answer since this was asked last."""
        before = self._unsent
        self._unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return self._unsent != before
