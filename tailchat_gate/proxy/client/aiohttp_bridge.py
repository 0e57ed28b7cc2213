"""Serves the gate's own pages on a client's connection with aiohttp's low-level server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import StreamReader, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from tailchat_gate.identity.revocation.state import SessionHolder
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.client.active_request import Admission
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.body import Body
from tailchat_gate.request.fields import RawFields
from tailchat_gate.request.head import RequestHead
from tailchat_gate.syntax import OWN_AGENT, READ_METHODS

#: Seconds that a client may read nothing of a page.
STALL_SECONDS: Final = 60.0
#: Fields that the gate itself has read.
_NOT_FOR_PAGES: Final = frozenset(
    (b"connection", b"content-length", b"expect", b"transfer-encoding")
)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_log: Final = logging.getLogger(LOGGER_NAME)

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
#: Called with the response, or with the reason why it was not sent completely.
Ended = Callable[[web.StreamResponse | Reason], None]


class AiohttpBridge:
    """aiohttp's server, for one request at a time on a client's connection of the gate.

    Only the gate reads the connection. For a page it gives aiohttp a head made from the request,
    and the client's transport; aiohttp releases the transport after its response.
    """

    def __init__(self) -> None:
        self._server: web.Server | None = None
        self._log = logging.getLogger(f"{LOGGER_NAME}.http")

    def start(self) -> None:
        """Start aiohttp's server; needs a running event loop."""
        self._server = web.Server(_answer, request_factory=_request, handler_cancellation=True)

    def serve(
        self,
        client: ClientConnection,
        head: RequestHead,
        answer: Answer,
        ended: Ended,
        *,
        body: Body | None = None,
        target: bytes = b"/",
        admission: Admission | None = None,
    ) -> None:
        """Answer a request with a page.

        `body` reads a small body for a page that needs it. `target` is the target that the page
        sees, the client's own only if the page needs it. With an `admission`, the response is cut
        off when its session or token ends, or when the request would be refused.
        """
        active_request = _BridgedRequest(self, client, head, target, answer, ended, admission)
        unread = head.fields.has_body and body is None
        client.begin(active_request, body, active_request, unread=unread)
        if body is None:
            active_request.start(b"")
        elif head.fields.expects_continue and not head.http10:
            client.write(_CONTINUE)

    def connection(
        self,
        answer: Answer,
        let_go: Callable[[web.StreamResponse], None],
        head: RequestHead,
        target: bytes,
    ) -> "_Handler":
        """Return the protocol for one response."""
        assert self._server is not None  # noqa: S101 - narrows for the checker
        return _Handler(
            self._server,
            answer,
            let_go,
            head,
            target,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            logger=self._log,
            tcp_keepalive=False,
        )


class _Handler(web.RequestHandler):
    """aiohttp's protocol for one response."""

    __slots__ = ("answer", "begun", "head", "leaving", "let_go", "target")

    def __init__(
        self,
        server: web.Server,
        answer: Answer,
        let_go: Callable[[web.StreamResponse], None],
        head: RequestHead,
        target: bytes,
        **options: Any,  # noqa: ANN401 - aiohttp's own
    ) -> None:
        super().__init__(server, **options)
        self.answer: Final = answer
        self.let_go: Callable[[web.StreamResponse], None] | None = let_go
        self.head: Final = head
        self.target: Final = target
        #: Whether aiohttp has begun to send the response.
        self.begun = False
        #: Whether the connection ends with the response.
        self.leaving = False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response, then release the client's transport."""
        self.begun = True
        response, reset = await super().finish_response(request, resp, start_time)
        if self.transport is not None and not reset:
            self.transport = None
            self.force_close()
            if self._task_handler is not None:
                self._task_handler.add_done_callback(lambda _: self.connection_lost(None))
            if self.let_go is not None:
                self.let_go(response)
        return response, reset

    def connection_lost(self, exc: BaseException | None) -> None:
        """Break the reference cycle with the request, for which the collector would be needed."""
        super().connection_lost(exc)
        self.let_go = None

    def log_exception(self, *args: Any, **details: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Log an exception, unless the client has left."""
        if self.transport is not None and not isinstance(details.get("exc_info"), ConnectionError):
            super().log_exception(*args, **details)


class _Request(web.BaseRequest):
    """A request whose response has the gate's Server field, not aiohttp's with its version."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Called before the head is sent."""
        response.headers[hdrs.SERVER] = OWN_AGENT


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    """Return the request that a page sees, with the fields that the client sent.

    The fields bypass aiohttp's parser, because it rejects some requests itself: a repeated ETag,
    Content-Type or User-Agent, or a target that it cannot parse.
    """
    assert isinstance(protocol, _Handler)  # noqa: S101 - narrows for the checker
    raw = tuple(
        pair for pair in protocol.head.fields.pairs if pair[0].lower() not in _NOT_FOR_PAGES
    )
    fields = CIMultiDict(
        (name.decode("ascii"), value.decode("utf-8", "surrogateescape")) for name, value in raw
    )
    message = message._replace(
        path=protocol.target.decode("ascii"), headers=CIMultiDictProxy(fields), raw_headers=raw
    )
    loop = asyncio.get_running_loop()
    return _Request(message, payload, protocol, writer, task, loop)


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    page = request.protocol
    assert isinstance(page, _Handler)  # noqa: S101 - narrows for the checker
    answer = await page.answer(request)
    if page.leaving and not answer.prepared:
        answer.force_close()
    return answer


class _BridgedRequest:
    """The active request for a page."""

    def __init__(
        self,
        server: AiohttpBridge,
        client: ClientConnection,
        head: RequestHead,
        target: bytes,
        answer: Answer,
        ended: Ended,
        admission: Admission | None,
    ) -> None:
        self.admission = admission
        self._client = client
        self._head = head
        self._ended = ended
        self._body = b""
        self._page = server.connection(answer, self._let_go, head, target)
        self._stalled: asyncio.TimerHandle | None = None
        self._started = self._over = False
        #: The reason if the client does not get the whole response.
        self._failure = Reason.CLIENT_GONE

    def start(self, body: bytes) -> None:
        """Hand the request to aiohttp."""
        transport = self._client.transport
        if transport is None or transport.is_closing():
            self.client_gone()
            return
        self._started = True
        keep = self._head.keep_alive and not self._client.leaving and not self._unread
        self._page.connection_made(transport)
        self._page.data_received(page_request(self._head, body, keep=keep))

    @property
    def _unread(self) -> bool:
        return self._head.fields.has_body and not self._body

    # What the client's connection calls.

    @property
    def session(self) -> SessionHolder | None:
        """The session or token with which it ends, None for an anonymous request."""
        return None if self.admission is None else self.admission.holder

    @property
    def upstream_transport(self) -> None:
        """None: no body goes to an upstream."""
        return

    def body(self, content: bytes) -> None:
        """Collect the body; its reader limits the size."""
        self._body += content

    def body_complete(self, trailers: RawFields) -> None:  # noqa: ARG002 - of no use to a page
        """The body is complete: answer."""
        self.start(self._body)

    def body_failed(self, error: RefusedError) -> None:  # noqa: ARG002 - the page tells it
        """Answer without the body."""
        self._body = b""
        self.start(b"")

    def client_full(self, *, full: bool) -> None:
        """Pause the page while the client's write buffer is full, for a limited time."""
        if full:
            self._page.pause_writing()
            self._wait_for_client(-1)
        else:
            self._page.resume_writing()
            self._forget_stall()

    def quiet(self) -> bool:
        """Whether the response has not begun; after that, its own time limits apply."""
        return not self._page.begun

    def close_after(self) -> None:
        """Let the response say `Connection: close`."""
        self._page.leaving = True

    def client_gone(self) -> None:
        """Cancel the page."""
        self._forget_stall()
        if self._over:
            return
        self._over = True
        if self._started:
            self._page.connection_lost(None)
        self._ended(self._failure)

    def session_over(self, reason: Reason) -> None:
        """The session has ended: cut off the response, which must not look complete."""
        self.admission, self._failure = None, reason
        self._client.abort()
        self.client_gone()

    def _let_go(self, answer: web.StreamResponse) -> None:
        self._forget_stall()
        self._over = True
        try:
            self._ended(answer)
        except Exception:  # noqa: BLE001 - aiohttp would hide it, and the client would wait
            _log.exception("a request failed inside the gate")
            self._client.abort()
        else:
            self._client.end(keep=bool(answer.keep_alive))

    def _wait_for_client(self, before: int) -> None:
        """Abort if still `before` bytes are unsent, because the client has read none meanwhile."""
        transport = self._client.transport
        unsent = 0 if transport is None else transport.get_write_buffer_size()
        if unsent == before:
            self._client.abort()
            return
        loop = asyncio.get_running_loop()
        self._stalled = loop.call_later(STALL_SECONDS, self._wait_for_client, unsent)

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def page_request(head: RequestHead, body: bytes, *, keep: bool) -> bytes:
    """Return a request for aiohttp, of which only the body is the client's.

    Every method but a reading one becomes POST, which has a body.
    """
    method = head.method if head.method in READ_METHODS else "POST"
    version = b"1.0" if head.http10 else b"1.1"
    lines = [b"%b / HTTP/%b\r\nHost: gate\r\n" % (method.encode("ascii"), version)]
    lines.append(b"Connection: keep-alive\r\n" if keep else b"Connection: close\r\n")
    if method == "POST":
        lines.append(b"Content-Length: %d\r\n" % len(body))
    return b"".join((*lines, b"\r\n", body))
