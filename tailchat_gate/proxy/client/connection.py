"""A client's connection as the handlers see it: its requests, answered one after another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, cast

from tailchat_gate.proxy.client.active_request import (
    ActiveRequest,
    Admission,
    BodySink,
    BytesTaker,
)
from tailchat_gate.proxy.client.closing import HalfClosed, Lingering
from tailchat_gate.proxy.client.flow_control import PIPELINED, UPSTREAM_FULL, FlowControl
from tailchat_gate.proxy.client.own_connections import OwnConnections
from tailchat_gate.proxy.sockets import ReadBuffers, end_writing
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.body import Body
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.head import RequestHead, RequestReader


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a head, for silence within a body (0 = no limit), for an idle connection.

    `half_closed`: how long to serve a half-closed client while nothing is sent to it (0 = close it
    at once).
    """

    header: float
    body: float
    keepalive: float
    half_closed: float


class Handler(Protocol):
    """Answers requests."""

    def handle(self, client: "ClientConnection", head: RequestHead) -> None:
        """Begin to answer a request; the handler calls client.end when it is done."""

    def resume(self, client: "ClientConnection", context: RequestContext) -> None:
        """Begin to answer a request that was on hold, as `handle` does."""

    def judge_again(self, admission: Admission) -> Reason | None:
        """Return why a request under way would be refused now, None if it may go on."""

    def refuse_unread(self, client: "ClientConnection", error: RefusedError, sent: bytes) -> bytes:
        """Return the response to bytes that could not be read as a request."""

    def direct(self, peer: str) -> ClientAddress | None:
        """Return a peer as the client, None for a trusted proxy."""


class Service(NamedTuple):
    """The handler of requests, their reader and their limits, all of one configuration.

    `max_head_bytes` is the limit of a whole head, `client_connections` the limit of one client's
    connections, 0 for the default. `redirecting` redirects requests to HTTPS.
    """

    handler: Handler
    reader: RequestReader
    timeouts: Timeouts
    max_head_bytes: int
    client_connections: int
    redirecting: Handler

    def redirects(self) -> "Service":
        """Return the service of listeners that only redirect."""
        return self._replace(handler=self.redirecting)


class CurrentService:
    """The service in force; its parts are attributes, because every request reads them."""

    __slots__ = ("handler", "max_head_bytes", "reader", "timeouts")

    def __init__(self, service: Service) -> None:
        self.change(service)

    def change(self, service: Service) -> None:
        """Answer every request that is read from now on with `service`."""
        self.handler = service.handler
        self.reader = service.reader
        self.timeouts = service.timeouts
        self.max_head_bytes = service.max_head_bytes


class ClientConnection(FlowControl):
    """The requests of one connection from a client, of which one is under way at a time.

    Bytes after that request wait, unread, so that responses keep the order of the requests and a
    client that pipelines costs one read's memory (RFC 9112 section 9.3.2). ClientProtocol has the
    event loop's callbacks and the deadlines.
    """

    __slots__ = (
        "_active_request",
        "_awaits_room",
        "_body",
        "_body_timeout",
        "_deadline",
        "_half_closed",
        "_held_end",
        "_in_head",
        "_kept",
        "_lingering",
        "_reading",
        "_service",
        "_sink",
        "_taker",
        "_time",
        "_unread",
        "address",
        "buffers",
        "certificate",
        "leaving",
        "own",
        "peer",
        "secure",
        "was_reset",
    )  # fmt: skip

    def __init__(
        self, service: CurrentService, buffers: ReadBuffers, time: Callable[[], float]
    ) -> None:
        super().__init__()
        self._service = service
        self.buffers: Final = buffers
        self._time = time
        self.peer = ""
        #: Whether it is TLS, and the Client-Cert line with the client's certificate, b"" for none.
        self.secure = False
        self.certificate = b""
        #: The client, None until it is known or if a trusted proxy names one for each request.
        self.address: ClientAddress | None = None
        #: Upstream connections that only this connection uses, None until there is one.
        self.own: OwnConnections | None = None
        self._kept: bytes | bytearray = b""
        self._active_request: ActiveRequest | None = None
        self._body: Body | None = None
        #: The receiver of the body, None once it is complete.
        self._sink: BodySink | None = None
        self._taker: BytesTaker | None = None
        self._deadline = self._body_timeout = 0.0
        #: Whether the next response is the last, and says so.
        self.leaving = False
        #: Limits how long closing takes, None until the connection is closing.
        self._lingering: Lingering | None = None
        self._reading = self._unread = self._awaits_room = self._in_head = False
        #: Watches a half-closed client, None until it sent EOF.
        self._half_closed: HalfClosed | None = None
        #: The same for an EOF after bytes that the gate does not read for now.
        self._held_end: HalfClosed | None = None
        #: Whether the connection was reset rather than closed.
        self.was_reset = False

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._active_request is not None

    @property
    def active_request(self) -> ActiveRequest | None:
        """The request under way, None if there is none."""
        return self._active_request

    def begin(
        self,
        active_request: ActiveRequest,
        body: Body | None = None,
        sink: BodySink | None = None,
        *,
        unread: bool = False,
    ) -> None:
        """Start `active_request`; `sink` gets the content of the body that `body` reads.

        `unread`: the gate does not read the body, so the connection closes after the response.
        """
        self._active_request = active_request
        self._body = body
        self._unread = unread
        self._held_end = None
        self._deadline = 0.0
        if body is not None:
            self._sink = sink
            # A copy, because a reload must not change a request under way.
            self._body_timeout = self._service.timeouts.body
            self._deadline = self._time() + self._body_timeout
        elif self._half_closed is not None:
            self._deadline = self._time()
            self._half_closed.wait(self._deadline)

    def keeps(self, head: RequestHead) -> bool:
        """Whether the connection stays open after a response that is sent now."""
        unread = head.fields.has_body if self._active_request is None else self._body is not None
        return head.keep_alive and not unread and not self._unread and not self.leaving

    def answer(self, data: bytes, head: RequestHead, *, keep: bool) -> None:
        """Answer the request with `head` at once; `data` is a whole response."""
        self._unread = self._unread or (self._active_request is None and head.fields.has_body)
        self.write(data)
        self.end(keep=keep)

    def resume(self, context: RequestContext) -> None:
        """Answer the request that was on hold, by the configuration in force now."""
        self._active_request = None
        self._reading = True
        try:
            self._service.handler.resume(self, context)
        finally:
            self._reading = False
        self._go_on()

    def switch(self, taker: BytesTaker) -> None:
        """Give all further bytes to `taker`: the protocol was switched."""
        self._taker = taker
        # Bytes that come after the tunnel has ended are not read.
        self._unread = True
        waiting = self._take_waiting()
        self.release(PIPELINED)
        if waiting:
            taker.from_client(waiting)
        if self._half_closed is not None:
            self._half_closed, self._deadline = None, 0.0
            self._unread = False
            taker.client_ended()

    def end(self, *, keep: bool) -> None:
        """End the request under way; `keep`: the response let the connection stay open."""
        self._active_request = self._taker = None
        if self._holds:
            self.release(UPSTREAM_FULL)
        unread = self._unread or self._body is not None
        self._body = self._sink = None
        # After a response that lets the connection stay open, another request may come at any
        # moment, even if the gate has begun to stop meanwhile.
        if unread or not keep or self._half_closed is not None:
            self._close(linger=unread or bool(self._kept))
            return
        self._deadline = self._time() + self._service.timeouts.keepalive
        if self.full:
            # A client that does not read its responses gets no further ones.
            self._awaits_room = True
        elif self._kept and not self._reading:
            self._go_on()

    # Reading from the client.

    def _take(self, data: bytes) -> None:
        """Read requests and bodies from `data`; buffer the rest."""
        self._reading = True
        try:
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
        finally:
            self._reading = False

    def _go_on(self) -> None:
        self._take(self._take_waiting())
        if not self._kept or self._active_request is None:
            self.release(PIPELINED)

    def _take_waiting(self) -> bytes:
        waiting, self._kept = bytes(self._kept), b""
        return waiting

    def _read_head(self, data: bytes) -> bytes:
        """Read the head at the start of `data`, and begin to answer; return the bytes after it."""
        try:
            head_read = self._service.reader.read(data)
        except RefusedError as error:
            self._refuse(error, data)
            return b""
        if head_read is None:
            self._keep_part(data)
            return b""
        head, size = head_read
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
        buffer = cast("bytearray", self._kept)
        buffer += data
        if len(buffer) > self._service.max_head_bytes:
            self._kept = b""
            self._take(bytes(buffer))

    def _feed_body(self, data: bytes) -> bytes:
        """Give the body in `data` to its sink; return the bytes after it."""
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

    def _refuse(self, error: RefusedError, sent: bytes = b"") -> None:
        self.write(self._service.handler.refuse_unread(self, error, sent))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Close once all is sent; `linger`: first read and drop what the client still sends."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._lingering is not None:
            return
        self._kept = b""
        self._lingering = Lingering(self._time())
        if not linger:
            transport.close()
        # TLS has no EOF in one direction, so the client must know the end by the response's length.
        elif (self.secure or end_writing(transport)) and self._holds:
            self._holds = 0
            transport.resume_reading()
