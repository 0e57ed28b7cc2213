"""The client's side: its connection, its requests one after another, and its limits."""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, cast

from tailchat_gate.proxy.client.active_request import ActiveRequest, BodySink, BytesTaker
from tailchat_gate.proxy.client.own_connections import OwnConnections
from tailchat_gate.proxy.descriptors import Descriptors
from tailchat_gate.proxy.sockets import (
    READ_BYTES,
    ClientConnectionLimits,
    HalfClosed,
    PeerEnd,
    ReadBuffers,
    close_oldest,
    end_writing,
    peer_end,
    read_remaining,
    tell_of_rest,
    unread_bytes,
)
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.body import Body
from tailchat_gate.request.client import Client
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.head import RequestHead, RequestReader

#: How often deadlines are looked at; so a timeout is exact to this many seconds.
SWEEP_SECONDS: Final = 0.5
#: How long after a change of who is let in the work under way is looked at: many changes that
#: come together are one look.
PROMPT_SECONDS: Final = 0.05
#: How long what a client still sends is thrown away behind the last answer: a connection closed
#: upon unread bytes is reset, and the reset destroys the answer (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0

#: Of SO_LINGER: on, for no time (socket(7)).
_RESET: Final = struct.pack("ii", 1, 0)

# Why a client is not read from, as bits.
UPSTREAM_FULL: Final = 1
_PIPELINED: Final = 2


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a head, for silence within a body (0 = no limit), for an idle connection.

    `half_closed`: how long a client that sends no more waits while nothing is sent to it (0 = not
    at all).
    """

    header: float
    body: float
    keepalive: float
    half_closed: float


class SessionWatch(Protocol):
    """What looks whether the sessions of the work under way are over."""

    def check(self, active_requests: Iterable[ActiveRequest]) -> None:
        """End the work whose session is over."""


class Handler(Protocol):
    """What answers requests."""

    def handle(self, client: "ClientConnection", head: RequestHead) -> None:
        """Begin to answer a request; it ends with a call of client.end."""

    def resume(self, client: "ClientConnection", context: RequestContext) -> None:
        """Begin to answer a request that was held, as handle does."""

    def refuse_unread(self, client: "ClientConnection", error: RefusedError) -> bytes:
        """Return the answer to what could not be read as a request."""

    def counts_as(self, peer: str) -> str:
        """Return what the connections of a peer are counted as, "" for a trusted proxy."""


class Service(NamedTuple):
    """What answers requests, how they are read, and how long and large they may be.

    All of it is one configuration's. `max_head_bytes` are those that a whole head may have,
    `client_connections` how many connections one client may have, 0 for what is sensible.
    """

    handler: Handler
    reader: RequestReader
    timeouts: Timeouts
    max_head_bytes: int
    client_connections: int


class ClientConnection(asyncio.BufferedProtocol):
    """One connection from a client; it has one request under way at a time.

    What comes behind that request waits, unread, so that answers keep the order of the requests
    and a client that pipelines costs one read's memory (RFC 9112 section 9.3.2).
    """

    __slots__ = (
        "_active_request", "_awaits_room", "_body", "_body_timeout", "_buffer", "_deadline",
        "_half_closed", "_held_end", "_holds", "_in_head", "_kept", "_lingers", "_moved",
        "_reading", "_server", "_sink", "_taker", "_time", "_unread", "_unsent", "buffers",
        "client", "counted_as", "full", "leaving", "own", "peer", "transport", "was_reset",
    )  # fmt: skip

    def __init__(self, server: "ClientServer") -> None:
        self._server = server
        self.buffers: Final = server.buffers
        self._buffer = server.buffers.small
        self._time = server.time
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        #: The client that has one connection less to open with it, "" for none.
        self.counted_as = ""
        #: Whose connection it is, where no proxy in front is trusted to tell.
        self.client: Client | None = None
        #: Upstream connections that are this one's alone, None until there is one.
        self.own: OwnConnections | None = None
        self._kept: bytes | bytearray = b""
        self._active_request: ActiveRequest | None = None
        self._body: Body | None = None
        #: Where the body goes, None once it has come.
        self._sink: BodySink | None = None
        self._taker: BytesTaker | None = None
        self._deadline = self._body_timeout = 0.0
        self._holds = 0
        #: Whether the client takes no more bytes for now.
        self.full = False
        #: Whether the connection ends with the answer to its present request.
        self.leaving = False
        self._lingers = False
        self._moved = self._reading = self._unread = self._awaits_room = self._in_head = False
        self._unsent = 0
        #: Whether the client still waits, None until it sends no more.
        self._half_closed: HalfClosed | None = None
        #: The same, where the end was seen behind bytes that nobody reads for now.
        self._held_end: HalfClosed | None = None
        #: Whether the connection broke, in place of being closed.
        self.was_reset = False

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
        self._deadline = self._time() + self._server.timeouts.header
        if (refused := self._server.opened(self)) is not None:
            self._turn_away(refused)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - not what is wanted here
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what one read brought."""
        data = self._buffer[:nbytes].tobytes()
        self._moved = True
        if self._taker is None and not self._kept and not self._lingers:
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
        elif self._lingers:
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
        if transport is None or self._lingers:
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
        patience, whole = self._server.timeouts.half_closed, self._body is None and not self._unread
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

    # What the request under way calls.

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._active_request is not None

    @property
    def active_request(self) -> ActiveRequest | None:
        """What is done for the request under way, None where none is."""
        return self._active_request

    def begin(
        self,
        active_request: ActiveRequest,
        body: Body | None = None,
        sink: BodySink | None = None,
        *,
        unread: bool = False,
    ) -> None:
        """Let `active_request` do what the request asks; `sink` gets the body that `body` reads.

        `unread`: there is a body that nobody reads, so the connection ends with the answer.
        """
        self._active_request = active_request
        self._body = body
        self._unread = unread
        self._held_end = None
        self._deadline = 0.0
        if body is not None:
            self._sink = sink
            # Kept, because a reload changes nothing for a request under way.
            self._body_timeout = self._server.timeouts.body
            self._deadline = self._time() + self._body_timeout
        elif self._half_closed is not None:
            self._deadline = self._time()
            self._half_closed.wait(self._deadline)

    def keeps(self, head: RequestHead) -> bool:
        """Tell whether the connection stays behind an answer given now."""
        unread = head.fields.has_body if self._active_request is None else self._body is not None
        return head.keep_alive and not unread and not self._unread and not self.leaving

    def answer(self, data: bytes, head: RequestHead, *, keep: bool) -> None:
        """Answer the request with that head at once, with a whole response."""
        self._unread = self._unread or (self._active_request is None and head.fields.has_body)
        self.write(data)
        self.end(keep=keep)

    def resume(self, context: RequestContext) -> None:
        """Have the request under way answered, which was held since its head came.

        It is the configuration in force by now that answers it. What came behind the head has
        been waiting, unread.
        """
        self._active_request = None
        self._reading = True
        self._server.handler.resume(self, context)
        self._reading = False
        self._go_on()

    def switch(self, taker: BytesTaker) -> None:
        """Give all further bytes to `taker`: the protocol was switched."""
        self._taker = taker
        # What comes once the tunnel is over, nobody reads.
        self._unread = True
        kept, self._kept = bytes(self._kept), b""
        self.release(_PIPELINED)
        if kept:
            taker.from_client(kept)
        if self._half_closed is not None:
            self._half_closed, self._deadline = None, 0.0
            self._unread = False
            taker.client_ended()

    def write(self, data: bytes) -> bool:
        """Send bytes; return whether the client was still there."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        return True

    def abort(self) -> None:
        """Reset the connection: the client must see that its answer is not whole.

        A mere close would be a clean end to a client that takes it for the end of a body.
        """
        if self.transport is not None:
            found = self.transport.get_extra_info("socket")
            if found is not None and not self.transport.is_closing():
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def end(self, *, keep: bool) -> None:
        """End the request under way; `keep`: the client was told that its connection stays."""
        self._active_request = self._taker = None
        if self._holds:
            self.release(UPSTREAM_FULL)
        unread = self._unread or self._body is not None
        self._body = self._sink = None
        if unread or not keep or self.leaving or self._half_closed is not None:
            self._close(linger=unread or bool(self._kept))
            return
        self._deadline = self._time() + self._server.timeouts.keepalive
        if self.full:
            # Who does not read its answers is not given more of them.
            self._awaits_room = True
        elif self._kept and not self._reading:
            self._go_on()

    def hold(self, reason: int) -> None:
        """Stop reading from the client for a reason (one of the bits above)."""
        if not self._holds and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self._holds |= reason

    def release(self, reason: int) -> None:
        """Drop a reason; the client is read from where none is left."""
        if not self._holds & reason:
            return
        self._holds &= ~reason
        if not self._holds and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self._moved = True

    # What the server calls.

    @property
    def idle_deadline(self) -> float:
        """When it ends if no request comes, 0 while one is under way or while it is closing."""
        return (
            0.0
            if self._active_request is not None or self._lingers or self.leaving
            else self._deadline
        )

    def close_idle(self) -> None:
        """Close it for want of room; no request is under way."""
        self._close(linger=False)

    def _turn_away(self, reason: Reason) -> None:
        """Answer that there is no room, and close."""
        if self._server.descriptors.may_linger():
            self._refuse(RefusedError("too many connections", reason))
        else:
            self._lingers = True
            self.abort()

    def leave(self) -> None:
        """Take no further request: close at once where none is under way."""
        self.leaving = True
        if self._active_request is None and self.transport is not None and not self._lingers:
            self.transport.close()

    def hear_of_change(self, now: float) -> None:
        """Hear that another configuration answers from now on; `now` is the loop's time."""
        self.client = None
        if self._active_request is None and not self._kept and not self._lingers:
            self._deadline = min(self._deadline, now + self._server.timeouts.keepalive)

    def check(self, now: float) -> None:
        """Act on a deadline that is over, and on a client that left; `now` is the loop's time."""
        if self._holds and self._has_left_unread(now) and self.transport is not None:
            self.transport.abort()
            return
        if not 0 < self._deadline <= now or self.transport is None:
            return
        if self._lingers:
            self._end_lingering(self.transport, now)
        elif self._active_request is None:
            self._end_waiting(now)
        elif self._half_closed is not None:
            quiet = self._active_request.quiet() and not self.full
            if self._half_closed.has_left(now, quiet=quiet):
                self.transport.abort()
        elif self._body is not None and self._body_timeout:
            if self._moved or self._holds:
                self._moved = False
                self._deadline = now + self._body_timeout
            else:
                slow = RefusedError("a body that stopped coming", Reason.REQUEST_SLOW)
                self._fail_body(slow)

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
        patience = self._server.timeouts.half_closed
        if self._held_end is None:
            self._held_end = HalfClosed(transport, now, patience)
        quiet = active_request.quiet() and not self.full
        return not patience or self._held_end.has_left(now, quiet=quiet)

    # Requests.

    def _take(self, data: bytes) -> None:
        """Read requests and bodies out of `data`; keep what has to wait."""
        self._reading = True
        while data:
            if self._body is not None:
                data = self._feed_body(data)
            elif self._active_request is not None or self._awaits_room:
                self._kept = data
                self.hold(_PIPELINED)
                break
            elif self.transport is None or self._lingers:
                break
            else:
                data = self._read_head(data)
        self._reading = False

    def _go_on(self) -> None:
        data, self._kept = bytes(self._kept), b""
        self._take(data)
        if not self._kept or self._active_request is None:
            self.release(_PIPELINED)

    def _read_head(self, data: bytes) -> bytes:
        """Begin to answer the request whose head begins `data`; return what is behind it."""
        try:
            found = self._server.reader.read(data)
        except RefusedError as error:
            self._refuse(error)
            return b""
        if found is None:
            self._keep_part(data)
            return b""
        head, size = found
        self._deadline = 0.0
        self._in_head = False
        self._server.handler.handle(self, head)
        return data[size:]

    def _keep_part(self, data: bytes) -> None:
        if not self._in_head:
            self._in_head = True
            self._deadline = self._time() + self._server.timeouts.header
        if not self._kept:
            self._kept = bytearray(data)
            return
        kept = cast("bytearray", self._kept)
        kept += data
        if len(kept) > self._server.max_head_bytes:
            self._kept = b""
            self._take(bytes(kept))

    def _feed_body(self, data: bytes) -> bytes:
        """Give the body in `data` to its sink; return what is behind it."""
        body, sink = self._body, self._sink
        if body is None or sink is None:
            return b""
        try:
            content, rest = body.feed(data)
        except RefusedError as error:
            self._fail_body(error)
            return b""
        if content:
            sink.body(content)
        if body.complete and self._sink is sink:
            self._body = self._sink = None
            self._deadline = 0.0
            sink.body_complete(body.trailers)
        return rest

    def _fail_body(self, error: RefusedError) -> None:
        sink, self._body, self._sink = self._sink, None, None
        self._unread = True
        self._deadline = 0.0
        if sink is not None:
            sink.body_failed(error)

    def _refuse(self, error: RefusedError) -> None:
        self.write(self._server.handler.refuse_unread(self, error))
        self._close(linger=True)

    def _end_waiting(self, now: float) -> None:
        if self._kept and not self._awaits_room:
            self._refuse(RefusedError("a head that stopped coming", Reason.REQUEST_SLOW))
        elif not self._awaits_room:
            self._close(linger=False)
        elif self._moved or self._takes_some():
            self._moved = False
            self._deadline = now + self._server.timeouts.keepalive
        else:
            self.abort()

    def _takes_some(self) -> bool:
        """Tell whether the client has taken some of its answer since this was asked last."""
        before = self._unsent
        self._unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return self._unsent != before

    def _end_lingering(self, transport: asyncio.Transport, now: float) -> None:
        unsent = transport.get_write_buffer_size()
        if unsent and unsent != self._unsent:
            # A slow client that still takes its last answer is waited for.
            self._unsent, self._deadline = unsent, now + LINGER_SECONDS
        else:
            transport.abort()

    def _close(self, *, linger: bool) -> None:
        """Close behind what was written; `linger`: first throw away what the client still sends."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._lingers:
            return
        self._kept = b""
        self._lingers = True
        self._deadline = self._time() + LINGER_SECONDS
        if linger and transport.can_write_eof():
            if end_writing(transport) and self._holds:
                self._holds = 0
                transport.resume_reading()
        else:
            transport.close()


class ClientServer:
    """Makes the connections of a gate, and looks after their deadlines.

    Connections outlive configurations: each request is read and answered by the service that is
    in force when its head is whole. `watch` ends what is under way for sessions that are over,
    `descriptors` are those of the process.
    """

    def __init__(self, service: Service, watch: SessionWatch, descriptors: Descriptors) -> None:
        self.descriptors: Final = descriptors
        self.buffers: Final = ReadBuffers()
        self._peers = ClientConnectionLimits()
        #: Whether no connection was idle a moment ago.
        self._none_idle = False
        self.connections: Final[set[ClientConnection]] = set()
        self._loop = asyncio.get_running_loop()
        self.time: Final[Callable[[], float]] = self._loop.time
        self._watch = watch
        self._sweeper: asyncio.TimerHandle | None = None
        self._prompt: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self.change(service)
        descriptors.closers.append(self._close_oldest)
        self._sweep()

    def change(self, service: Service) -> None:
        """Let a service answer every request that is read from now on."""
        # Each in a name of its own, because all are read for every request.
        self.handler = service.handler
        self.reader = service.reader
        self.timeouts = service.timeouts
        self.max_head_bytes = service.max_head_bytes
        self._client_connections = service.client_connections or self.descriptors.client_connections
        now = self.time()
        for connection in self.connections:
            connection.hear_of_change(now)

    def __call__(self) -> ClientConnection:
        """Return the protocol for a new connection."""
        return ClientConnection(self)

    def _sweep(self) -> None:
        # First, because a fault below must not be the end of all deadlines.
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        now = self.time()
        self._none_idle = False
        self._peers.sweep()
        for connection in tuple(self.connections):
            connection.check(now)
        self._check_sessions()

    def _check_sessions(self) -> None:
        self._prompt = None
        self._watch.check(
            [found.active_request for found in self.connections if found.active_request is not None]
        )

    def hear_of_sessions(self) -> None:
        """Hear that sessions may be over: they are looked at soon, all that end now together."""
        if self._prompt is None:
            self._prompt = self._loop.call_later(PROMPT_SECONDS, self._check_sessions)

    def opened(self, connection: ClientConnection) -> Reason | None:
        """Count a new connection; return why it has to be turned away, None where it may stay."""
        descriptors = self.descriptors
        room = descriptors.make_room()
        self.connections.add(connection)
        descriptors.clients += 1
        if not room:
            return Reason.GATE_BUSY
        who = self.handler.counts_as(connection.peer)
        if who and not self._peers.enter(who, connection, self._client_connections):
            return Reason.CLIENT_BUSY
        connection.counted_as = who
        return None

    def out_of_descriptors(self) -> None:
        """Hear that a connection could not be accepted."""
        self.descriptors.note()
        self._close_oldest()

    def _close_oldest(self) -> bool:
        self._none_idle = self._none_idle or not close_oldest(self.connections)
        return not self._none_idle

    def closed(self, connection: ClientConnection) -> None:
        """Hear that a connection is gone."""
        self.connections.discard(connection)
        self.descriptors.clients -= 1
        self._peers.leave(connection.counted_as, connection)
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)

    def leave(self) -> "asyncio.Future[None]":
        """Let connections take no further request; the future is done when all are closed."""
        self._empty = self._loop.create_future()
        for connection in tuple(self.connections):
            connection.leave()
        if not self.connections:
            self._empty.set_result(None)
        return self._empty

    def close(self) -> None:
        """Reset every connection that is left."""
        for timer in (self._sweeper, self._prompt):
            if timer is not None:
                timer.cancel()
        for connection in tuple(self.connections):
            connection.abort()
