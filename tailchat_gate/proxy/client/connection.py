"""A client's connection, as those see it that answer its requests: one after another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, cast

from tailchat_gate.proxy.client.active_request import ActiveRequest, BodySink, BytesTaker
from tailchat_gate.proxy.client.flow_control import PIPELINED, UPSTREAM_FULL, FlowControl
from tailchat_gate.proxy.client.half_closed import HalfClosed
from tailchat_gate.proxy.client.lingering import Lingering
from tailchat_gate.proxy.client.own_connections import OwnConnections
from tailchat_gate.proxy.sockets import ReadBuffers, end_writing
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.body import Body
from tailchat_gate.request.client import Client
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.head import RequestHead, RequestReader


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


class CurrentService:
    """The service in force; each part has a name of its own, as all are read for every request."""

    __slots__ = ("handler", "max_head_bytes", "reader", "timeouts")

    def __init__(self, service: Service) -> None:
        self.change(service)

    def change(self, service: Service) -> None:
        """Let a service answer every request that is read from now on."""
        self.handler = service.handler
        self.reader = service.reader
        self.timeouts = service.timeouts
        self.max_head_bytes = service.max_head_bytes


class ClientConnection(FlowControl):
    """The requests of one connection from a client; it has one request under way at a time.

    What comes behind that request waits, unread, so that answers keep the order of the requests
    and a client that pipelines costs one read's memory (RFC 9112 section 9.3.2). What the event
    loop tells it, and when it has waited too long: ClientProtocol.
    """

    __slots__ = (
        "_active_request", "_awaits_room", "_body", "_body_timeout", "_deadline", "_half_closed",
        "_held_end", "_in_head", "_kept", "_lingering", "_reading", "_service", "_sink", "_taker",
        "_time", "_unread", "buffers", "client", "leaving", "own", "peer", "was_reset",
    )  # fmt: skip

    def __init__(
        self, service: CurrentService, buffers: ReadBuffers, time: Callable[[], float]
    ) -> None:
        super().__init__()
        self._service = service
        self.buffers: Final = buffers
        self._time = time
        self.peer = ""
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
        #: Whether the connection ends with the answer to its present request.
        self.leaving = False
        #: What bounds the end of the connection, None until it is closing.
        self._lingering: Lingering | None = None
        self._reading = self._unread = self._awaits_room = self._in_head = False
        #: Whether the client still waits, None until it sends no more.
        self._half_closed: HalfClosed | None = None
        #: The same, where the end was seen behind bytes that nobody reads for now.
        self._held_end: HalfClosed | None = None
        #: Whether the connection broke, in place of being closed.
        self.was_reset = False

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
            self._body_timeout = self._service.timeouts.body
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
        self._service.handler.resume(self, context)
        self._reading = False
        self._go_on()

    def switch(self, taker: BytesTaker) -> None:
        """Give all further bytes to `taker`: the protocol was switched."""
        self._taker = taker
        # What comes once the tunnel is over, nobody reads.
        self._unread = True
        kept, self._kept = bytes(self._kept), b""
        self.release(PIPELINED)
        if kept:
            taker.from_client(kept)
        if self._half_closed is not None:
            self._half_closed, self._deadline = None, 0.0
            self._unread = False
            taker.client_ended()

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
        self._deadline = self._time() + self._service.timeouts.keepalive
        if self.full:
            # Who does not read its answers is not given more of them.
            self._awaits_room = True
        elif self._kept and not self._reading:
            self._go_on()

    # What the client sends.

    def _take(self, data: bytes) -> None:
        """Read requests and bodies out of `data`; keep what has to wait."""
        self._reading = True
        while data:
            if self._body is not None:
                data = self._feed_body(data)
            elif self._active_request is not None or self._awaits_room:
                self._kept = data
                self.hold(PIPELINED)
                break
            elif self.transport is None or self._lingering is not None:
                break
            else:
                data = self._read_head(data)
        self._reading = False

    def _go_on(self) -> None:
        data, self._kept = bytes(self._kept), b""
        self._take(data)
        if not self._kept or self._active_request is None:
            self.release(PIPELINED)

    def _read_head(self, data: bytes) -> bytes:
        """Begin to answer the request whose head begins `data`; return what is behind it."""
        try:
            found = self._service.reader.read(data)
        except RefusedError as error:
            self._refuse(error)
            return b""
        if found is None:
            self._keep_part(data)
            return b""
        head, size = found
        self._deadline = 0.0
        self._in_head = False
        self._service.handler.handle(self, head)
        return data[size:]

    def _keep_part(self, data: bytes) -> None:
        if not self._in_head:
            self._in_head = True
            self._deadline = self._time() + self._service.timeouts.header
        if not self._kept:
            self._kept = bytearray(data)
            return
        kept = cast("bytearray", self._kept)
        kept += data
        if len(kept) > self._service.max_head_bytes:
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
        self.write(self._service.handler.refuse_unread(self, error))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Close behind what was written; `linger`: first throw away what the client still sends."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._lingering is not None:
            return
        self._kept = b""
        self._lingering = Lingering(self._time())
        if linger and transport.can_write_eof():
            if end_writing(transport) and self._holds:
                self._holds = 0
                transport.resume_reading()
        else:
            transport.close()
