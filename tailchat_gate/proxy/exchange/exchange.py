"""An exchange with an upstream: the request out, the response back; a state machine, no task."""

import asyncio
from collections.abc import Callable
from time import monotonic

from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.proxy.client.flow_control import UPSTREAM_FULL
from tailchat_gate.proxy.client.own_connections import OwnConnections, Person, person_of
from tailchat_gate.proxy.exchange.forward_request import (
    REPEATED_BYTES,
    Admitted,
    ForwardRequest,
    SentBody,
    UpstreamSettings,
    claims_no_other,
)
from tailchat_gate.proxy.exchange.steps import ended_before, run
from tailchat_gate.proxy.exchange.subclassed import mypyc_attr
from tailchat_gate.proxy.message.response_fields import FieldEditor
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.proxy.upstream.interfaces import REASONS, End, ExchangeResult, unreachable
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import RawFields
from tailchat_gate.syntax import IDEMPOTENT_METHODS

# Globals: see reasons.py.
_COMPLETE, _UNANSWERED, _SWITCHED = End.COMPLETE, End.UNANSWERED, End.SWITCHED


@mypyc_attr(allow_interpreted_subclasses=True)
class Exchange(Admitted):
    """The active request of a client's connection while an upstream answers it.

    When it has ended, `context` holds the status and size of the relayed response. A status of 0
    means that none was relayed, so the gate must still answer. `failure` is None if the whole
    response was relayed. `switched` is the upstream connection after a protocol switch.
    """

    __slots__ = (
        "_client", "_connecting", "_ended", "_repeatable", "_repeated", "_sent_body", "_sent_some",
        "_settings", "_timeouts", "_upstream", "_whole", "context", "extra_fields", "failure",
        "forward_request", "http10", "is_head", "keep_alive", "keep_client", "pool", "switched",
    )  # fmt: skip

    def __init__(
        self,
        client: ClientConnection,
        context: RequestContext,
        forward_request: ForwardRequest,
        settings: UpstreamSettings,
        ended: Callable[[ClientConnection, "Exchange"], None],
    ) -> None:
        request = forward_request.request
        person = isinstance(forward_request.session, Visitor)
        whole = forward_request.body is None
        self._client = client
        self._settings = settings
        self._timeouts = settings.session_timeouts if person else settings.timeouts
        #: The pool of its upstream, in which it holds a slot.
        self.pool = settings.pool
        self._ended = ended
        self._upstream: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        #: Whether sending the request twice has the same effect as sending it once.
        self._repeatable = request.method in IDEMPOTENT_METHODS
        #: The arrived part of the body, None if there is no body.
        self._sent_body = None if whole else SentBody()
        #: Whether bytes were sent since the last `quiet`; whether the request was sent again.
        self._sent_some = self._repeated = self.keep_client = False
        #: Whether the whole request has arrived, so that nothing is left to be sent.
        self._whole = whole
        self.context = context
        self.forward_request = forward_request
        self.is_head = request.method == "HEAD"
        self.http10 = request.http10
        #: True only when the whole body has arrived: after an early response the connection closes.
        self.keep_alive = whole and request.fields.keep_alive[request.http10] and not client.leaving
        self.extra_fields = forward_request.extra_fields
        self.failure: Reason | None = None
        self.switched: UpstreamConnection | None = None

    def start(self, now: float) -> None:
        """Send the request on a connection of the pool, or on a new one; `now` in seconds."""
        own, upstream = self._client.own, None
        if own is not None:
            upstream = own.take(self.pool, self._person)
        # A used connection may close at any moment, and a protocol switch cannot be repeated.
        if upstream is None and self._settings.keepalive and not self.forward_request.upgrade:
            length = self.forward_request.request.fields.length or 0
            is_kept = self._whole or 0 < length <= REPEATED_BYTES
            upstream = self.pool.take(now, repeatable=self._repeatable and is_kept)
        if upstream is None:
            self._connect()
        else:
            self._send(upstream)

    # What the client's connection calls.

    @property
    def upstream_transport(self) -> asyncio.Transport | None:
        """The transport of the upstream's connection, None if there is none yet."""
        return None if self._upstream is None else self._upstream.transport

    def body(self, content: bytes) -> None:
        """Send a part of the body's content to the upstream."""
        self.context.received_bytes += len(content)
        chunked = self.forward_request.request.fields.chunked
        self._write(b"%x\r\n%b\r\n" % (len(content), content) if chunked else content)

    def body_complete(self, trailers: RawFields) -> None:
        """Send the end of the body."""
        if self.forward_request.request.fields.chunked:
            lines = self._settings.trailers(trailers) if trailers else b""
            self._write(b"0\r\n" + lines + b"\r\n")
        self._whole = True
        self.keep_alive = self.forward_request.request.keep_alive and not self._client.leaving
        if self._upstream is not None:
            self._upstream.request_sent()

    def body_failed(self, error: RefusedError) -> None:
        """Leave the request unfinished: it must never look whole (RFC 9112 section 8)."""
        self._cut_off(error.reason)

    def quiet(self) -> bool:
        """Whether the client was sent nothing since the last call."""
        sent_some, self._sent_some = self._sent_some, False
        return not sent_some

    def close_after(self) -> None:
        """Let the response say `Connection: close`; the reader asks when it writes the head."""
        self.keep_alive = False

    def client_gone(self) -> None:
        """The client has left: cancel the exchange."""
        self._drop()
        self._finish(Reason.CLIENT_GONE)

    def session_over(self, reason: Reason) -> None:
        """The session has ended: cut off request and response; neither may look whole."""
        self._cut_off(reason)

    def client_full(self, *, full: bool) -> None:
        """Stop reading from the upstream while the client's write buffer is full."""
        if self._upstream is None:
            return
        if full:
            self._upstream.pause_reading()
        else:
            self._upstream.resume_reading()

    # What the upstream's connection calls.

    @property
    def upgrade(self) -> bytes:
        """The protocol to which the client asks to switch, b"" for none."""
        return self.forward_request.upgrade

    @property
    def editor(self) -> FieldEditor | None:
        """Rewrites fields of the response, None if none is rewritten."""
        return self._settings.editor

    @property
    def passed_fields(self) -> frozenset[bytes]:
        """Lower-case names of fields that pass although they affect more than the tool."""
        return self._settings.passed_fields

    def keeps_out(self, set_cookie: bytes) -> bool:
        """Whether a Set-Cookie value would replace another party's cookie."""
        return self._settings.keeps_out(set_cookie, self.context.host)

    @property
    def client_transport(self) -> asyncio.Transport | None:
        """The client's transport, None if its connection is closed."""
        return self._client.transport

    def write_client(self, data: bytes) -> bool:
        """Send bytes of the response; return False if the client's connection is closed."""
        transport = self._client.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        self._sent_some = True
        if not self.context.first_byte_at:
            self.context.first_byte_at = monotonic()
        return True

    def may_widen(self, scope: bytes) -> bool:
        """Whether the response may allow a service worker this scope."""
        return self._settings.workers.may_allow(scope)

    def upstream_full(self, *, full: bool) -> None:
        """Stop reading the client's body while the upstream's write buffer is full."""
        if full:
            self._client.hold(UPSTREAM_FULL)
        else:
            self._client.release(UPSTREAM_FULL)

    def ended(self, end: End, result: ExchangeResult) -> None:
        """The upstream's side has ended: release its connection and end the exchange."""
        upstream = self._upstream
        if upstream is None:
            return
        self._upstream = None
        context = self.context
        context.status = result.status
        context.sent_bytes = result.body_bytes
        if end is _COMPLETE and self._whole:
            if not self._settings.keepalive:
                upstream.spoil()
            if not result.personal or not self._keep(upstream):
                self.pool.release(upstream)
            self.keep_client = result.keep_client
            self._end()
        elif end is _SWITCHED:
            self.pool.forget(upstream)
            self.switched = upstream
            self._finish(None)
        else:
            self._end_unclean(end, upstream, result)

    # The steps.

    @property
    def _person(self) -> Person:
        forward_request, client = self.forward_request, self._client
        direct = client.address is not None
        return person_of(forward_request.visitor, forward_request.request.fields, direct=direct)

    def _keep(self, upstream: UpstreamConnection) -> bool:
        """Store a person's connection with the client's; return False if that is impossible."""
        person, client = self._person, self._client
        if person is None or client.transport is None or not upstream.is_reusable():
            return False
        if client.own is None:
            client.own = OwnConnections()
        client.own.keep(self.pool, person, upstream)
        return True

    def _end_unclean(self, end: End, upstream: UpstreamConnection, result: ExchangeResult) -> None:
        """End after a failure, or after a response that came before the whole request."""
        upstream.spoil()
        reused = self.pool.release(upstream)
        if end is _COMPLETE:
            self.keep_client = result.keep_client
            self._finish(None)
        elif self._is_repeated(end, upstream, reused=reused):
            if self._sent_body is not None:
                self._sent_body.repeat()
            self._connect()
        else:
            self.pool.exchange_failed(end, upstream.fault, self.context.route)
            if self.context.status:
                # Never a clean close: the client must see that the response is incomplete
                # (RFC 9112 section 8).
                self._client.abort()
            idled = end is End.IDLE_TIMEOUT and self._timeouts is not self._settings.timeouts
            self._finish(Reason.NOT_SIGNED_IN if idled else REASONS[end])

    def _is_repeated(self, end: End, upstream: UpstreamConnection, *, reused: bool) -> bool:
        """Whether to send the request again: the connection was stale (RFC 9112 9.3.1)."""
        return (
            end is _UNANSWERED
            and self._repeatable
            and (self._sent_body is None or self._sent_body.is_kept())
            and claims_no_other(self.forward_request.request)
            and (reused or self._may_repeat(upstream))
        )

    def _may_repeat(self, upstream: UpstreamConnection) -> bool:
        """Whether to send a request again after its new connection was reset: only once.

        An upstream that restarts resets the connections in its accept queue.
        """
        repeated, self._repeated = self._repeated, True
        return upstream.was_reset and not repeated and self._settings.connect_retry > 0

    def _send(self, upstream: UpstreamConnection) -> None:
        forward_request, client = self.forward_request, self._client
        self._upstream, self.context.upstream = upstream, upstream.peer
        if forward_request.request.fields.binds:
            upstream.reader.personal = True
        data = forward_request.data
        if self._sent_body is not None and (waiting := self._sent_body.take_waiting()):
            data = b"".join((data, *waiting))
            client.release(UPSTREAM_FULL)
        upstream.start(self, self._timeouts, data, whole=self._whole)
        if client.full:
            upstream.pause_reading()

    def _write(self, data: bytes) -> None:
        if self._sent_body is not None:
            self._sent_body.keep(data)
        if self._upstream is not None:
            self._upstream.write(data)
        elif self._connecting is not None and self._sent_body is not None:
            self._sent_body.wait(data)
            self._client.hold(UPSTREAM_FULL)

    def _connect(self) -> None:
        self._connecting = run(self._connected(), self.context, self._failed)

    async def _connected(self) -> None:
        try:
            settings = self._settings
            upstream = await self.pool.connect(settings.connect_timeout, settings.connect_retry)
        except OSError as error:
            self._finish(unreachable(error))
        else:
            self._connecting = None
            self.context.connected(monotonic())
            self._send(upstream)

    def _failed(self) -> None:
        if self._client.active_request is self:
            self._cut_off(Reason.INTERNAL_ERROR)

    def _cut_off(self, reason: Reason) -> None:
        self._drop()
        if self.context.status:
            self._client.abort()
        self._finish(reason)

    def _drop(self) -> None:
        """Abort the upstream's side; record what the client got of the response."""
        upstream, self._upstream = self._upstream, None
        if self._connecting is not None:
            self._connecting.cancel()
        if upstream is not None:
            upstream.abort()
            self.context.status = upstream.reader.status
            self.context.sent_bytes = upstream.reader.body_bytes
            self.pool.release(upstream)

    def _finish(self, failure: Reason | None) -> None:
        self._connecting = self._sent_body = None
        self.failure = failure
        self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, ended_before
        try:
            ended(self._client, self)
        except Exception:
            # Nobody else would end the connection: its client would wait forever.
            self._client.abort()
            raise
