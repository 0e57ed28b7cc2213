"""A request on its way to an upstream and its reply on the way back: a machine, not a task."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from tailchat_gate.access.browser_origin import WorkerScopes
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.identity.revocation.state import SessionHolder
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.proxy.client.flow_control import UPSTREAM_FULL
from tailchat_gate.proxy.client.own_connections import OwnConnections, Person, person_of
from tailchat_gate.proxy.message.request_headers import takes_trailers
from tailchat_gate.proxy.message.response_reader import FieldEditor
from tailchat_gate.proxy.upstream.connection import End, ResponseTimeouts, UpstreamConnection
from tailchat_gate.proxy.upstream.failures import KINDS, NO_DESCRIPTOR
from tailchat_gate.proxy.upstream.pool import Pool
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.body import Body
from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import RawFields
from tailchat_gate.request.head import RequestHead

# Names of their own, because an enum's attribute costs ten times a global.
_COMPLETE, _UNANSWERED, _SWITCHED = End.COMPLETE, End.UNANSWERED, End.SWITCHED
_LAST_CHUNK: Final = b"0\r\n"
#: How much of a body is kept, to be sent again where a connection was stale.
REPEATED_BYTES: Final = 65_536
#: Sending these again has the effect of sending them once (RFC 9110 section 9.2.2).
_IDEMPOTENT: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))

_FAILURES: Final[Mapping[End, Reason]] = MappingProxyType(
    {
        End.UNANSWERED: Reason.UPSTREAM_BROKEN,
        End.BROKEN: Reason.UPSTREAM_BROKEN,
        End.TRUNCATED: Reason.UPSTREAM_BROKEN,
        End.RESPONSE_TIMEOUT: Reason.UPSTREAM_SLOW,
        End.IDLE_TIMEOUT: Reason.UPSTREAM_BROKEN,
        End.CLIENT_GONE: Reason.CLIENT_GONE,
    }
)


class MakeExchange(Protocol):
    """Makes an exchange of a client's connection, as Exchange does."""

    def __call__(
        self,
        client: ClientConnection,
        context: RequestContext,
        forward_request: "ForwardRequest",
        settings: "UpstreamSettings",
        ended: Callable[[ClientConnection, "Exchange"], None],
        /,
    ) -> "Exchange":
        """Make one."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """What is known beforehand of a route's upstream.

    `session_patience` is for exchanges that end with a session, which may itself not be idle for
    long. `connect_timeout` is in seconds. `trailers` makes the lines of a request's trailers.
    `keeps_out` tells whether a Set-Cookie for a host would replace a cookie of somebody else's.
    `workers` judges the scopes that replies allow.
    `passed_fields` are names of a reply's fields that pass although they reach beyond the tool.
    """

    pool: Pool
    timeouts: ResponseTimeouts
    session_patience: ResponseTimeouts
    connect_timeout: float
    trailers: Callable[[RawFields], bytes]
    editor: FieldEditor | None
    keeps_out: Callable[[bytes, str], bool]
    workers: WorkerScopes
    passed_fields: frozenset[bytes]
    #: How many requests and WebSockets the upstream may have at once, and one client of them.
    most: int
    most_of_one: int
    #: For how many seconds a refused connection is tried again.
    connect_retry: float
    #: Whether connections are used for more than one exchange.
    keepalive: bool
    #: Makes its exchanges: Exchange itself, where bodies are sent as they come.
    exchange: MakeExchange


@dataclass(slots=True, eq=False)
class ForwardRequest:
    """A request that may pass: its bytes for the upstream, and what goes with them.

    `data` is the whole request head, `body` what reads its body, None where there is none.
    `extra_fields` are header lines for the reply. `upgrade` is the protocol to switch to, b""
    for none; `session` whose session or token the exchange ends with, None for nobody's; `visitor`
    who asks, None for nobody.
    """

    request: Final[RequestHead]
    data: Final[bytes]
    body: Final[Body | None]
    extra_fields: Final[bytes]
    upgrade: Final[bytes]
    session: Final[SessionHolder | None]
    visitor: Final[Visitor | Machine | None]


class Exchange:
    """The work of a client's connection while its request is with an upstream.

    Once it has ended: `status` is that of the reply that was relayed, 0 where none was, so that
    the gate still owes an answer; `failure` is None for a reply relayed whole; `body_bytes` went
    to the client; `switched` is the connection whose protocol was switched. Before that it tells
    what reply is expected.
    """

    __slots__ = (
        "_client", "_connecting", "_copied", "_copy", "_ended", "_pending", "_repeated",
        "_settings", "_told", "_upstream", "_whole", "body_bytes", "context", "editor",
        "extra_fields", "failure", "forward_request", "http10", "is_head", "keep_alive",
        "keep_client", "pool", "status", "switched", "takes_trailers", "upgrade",
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
        fields = request.fields
        self._client = client
        self._settings = settings
        #: The connections to its upstream, where it has a place.
        self.pool: Final = settings.pool
        self._ended = ended
        self._upstream: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        #: What of the body came before there was a connection to send it on.
        self._pending: list[bytes] | None = None
        #: What of the body has come, to be sent again; None once it is too much to keep, and where
        #: sending the request twice has another effect than sending it once.
        self._copy: list[bytes] | None = [] if request.method in _IDEMPOTENT else None
        self._copied = 0
        #: Whether the request was sent again on a connection of its own.
        self._repeated = False
        #: Whether the client was sent something lately.
        self._told = False
        #: Whether the request is whole, so that nothing of it is still to be sent.
        self._whole = forward_request.body is None
        self.context: Final = context
        self.forward_request = forward_request
        self.is_head = request.method == "HEAD"
        self.http10 = request.http10
        #: Only once the body has come whole: after an early reply the connection ends.
        self.keep_alive = self._whole and fields.keep_alive[request.http10] and not client.leaving
        self.upgrade = forward_request.upgrade
        self.takes_trailers = b"te" in fields.connection and takes_trailers(fields)
        self.extra_fields = forward_request.extra_fields
        self.editor = settings.editor
        self.status = self.body_bytes = 0
        self.failure: Reason | None = None
        self.keep_client = False
        self.switched: UpstreamConnection | None = None

    @property
    def session(self) -> SessionHolder | None:
        """Whose session it ends with."""
        return self.forward_request.session

    def _timeouts(self) -> ResponseTimeouts:
        settings, person = self._settings, isinstance(self.forward_request.session, Visitor)
        return settings.session_patience if person else settings.timeouts

    def start(self, now: float) -> None:
        """Send the request on a connection of the pool, or on a new one; `now` in seconds."""
        settings, own = self._settings, self._client.own
        if own is not None and (mine := own.take(self.pool, self._person)) is not None:
            self._send(mine)
            return
        if self.upgrade or not settings.keepalive:
            # A connection that was used before may be closed at any moment, and a switch is not
            # repeated.
            self._connect()
            return
        whole = (
            self._whole or 0 < (self.forward_request.request.fields.length or 0) <= REPEATED_BYTES
        )
        upstream = self.pool.take(now, repeatable=whole and self._copy is not None)
        if upstream is None:
            self._connect()
        else:
            self._send(upstream)

    # What the client's connection calls.

    @property
    def upstream_transport(self) -> asyncio.Transport | None:
        """That of the upstream's connection, None where there is none yet."""
        return None if self._upstream is None else self._upstream.transport

    def body(self, content: bytes) -> None:
        """Send content of the body on."""
        chunked = self.forward_request.request.fields.chunked
        self._write(b"%x\r\n%b\r\n" % (len(content), content) if chunked else content)

    def body_complete(self, trailers: RawFields) -> None:
        """Send the end of the body."""
        if self.forward_request.request.fields.chunked:
            lines = self._settings.trailers(trailers) if trailers else b""
            self._write(_LAST_CHUNK + lines + b"\r\n")
        self._whole = True
        self.keep_alive = self.forward_request.request.keep_alive and not self._client.leaving
        if self._upstream is not None:
            self._upstream.request_sent()

    def body_failed(self, error: RefusedError) -> None:
        """Leave the request unfinished: it must never look whole (RFC 9112 section 8)."""
        self._drop()
        if self.status:
            self._client.abort()
        self._finish(error.reason)

    def quiet(self) -> bool:
        """Tell whether the client was sent nothing since this was asked before."""
        told, self._told = self._told, False
        return not told

    def client_gone(self) -> None:
        """Cancel: nobody waits for the reply."""
        self._drop()
        self._finish(Reason.CLIENT_GONE)

    def session_over(self, reason: Reason) -> None:
        """Cut off: neither the request nor its reply may go on, or look whole."""
        self._drop()
        if self.status:
            self._client.abort()
        self._finish(reason)

    def client_full(self, *, full: bool) -> None:
        """Hold the upstream back while the client takes no more."""
        if self._upstream is None:
            return
        if full:
            self._upstream.pause_reading()
        else:
            self._upstream.resume_reading()

    # What the upstream's connection calls.

    @property
    def origin(self) -> bytes:
        """The origin that the visitor sees, b"" where the request names no host."""
        host = self.forward_request.request.fields.host.raw
        scheme = self.context.client_address.scheme
        return scheme.encode("ascii") + b"://" + host if host else b""

    @property
    def passed_fields(self) -> frozenset[bytes]:
        """Names of fields that pass although they reach beyond the tool."""
        return self._settings.passed_fields

    def keeps_out(self, set_cookie: bytes) -> bool:
        """Tell whether a Set-Cookie value would replace a cookie that is not the tool's."""
        return self._settings.keeps_out(set_cookie, self.context.host)

    @property
    def client_transport(self) -> asyncio.Transport | None:
        """That of the client, None where it is gone."""
        return self._client.transport

    def write_client(self, data: bytes) -> bool:
        """Send bytes of the reply to the client; return whether it is still there."""
        transport = self._client.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        self._told = True
        return True

    def may_widen(self, scope: bytes) -> bool:
        """Tell whether the reply may allow a service worker this scope."""
        return self._settings.workers.may_allow(scope)

    def upstream_full(self, *, full: bool) -> None:
        """Hold the client's body back while the upstream takes no more."""
        if full:
            self._client.hold(UPSTREAM_FULL)
        else:
            self._client.release(UPSTREAM_FULL)

    def ended(self, end: End) -> None:
        """Pass the upstream's connection on, and tell how the exchange went."""
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        reader, pool = upstream.reader, self.pool
        self.status, self.body_bytes = reader.status, reader.body_bytes
        if end is _COMPLETE and self._whole:
            if not self._settings.keepalive:
                upstream.spoil()
            if not reader.personal or not self._keep(upstream):
                pool.release(upstream)
            self.keep_client = reader.keep_client
            self._ended(self._client, self)
        elif end is _SWITCHED:
            pool.forget(upstream)
            self.switched = upstream
            self._finish(None)
        else:
            self._end_unclean(end, upstream)

    # The steps.

    @property
    def _person(self) -> Person:
        forward_request, client = self.forward_request, self._client
        direct = client.client is not None
        return person_of(forward_request.visitor, forward_request.request.fields, direct=direct)

    def _keep(self, upstream: UpstreamConnection) -> bool:
        """Keep a connection that is one person's for this client; return whether that can be."""
        person, client = self._person, self._client
        if person is None or client.transport is None or not upstream.is_reusable():
            return False
        if client.own is None:
            client.own = OwnConnections()
        client.own.keep(self.pool, person, upstream)
        return True

    def _end_unclean(self, end: End, upstream: UpstreamConnection) -> None:
        """End with a failure, or with a reply that came before the request was whole."""
        upstream.spoil()
        reused = self.pool.release(upstream)
        if end is _COMPLETE:
            self.keep_client = upstream.reader.keep_client
            self._finish(None)
        elif (
            end is _UNANSWERED
            and self._copy is not None
            and self._claims_no_other()
            and (reused or self._may_repeat(upstream))
        ):
            # The connection was stale: nothing of the reply came (RFC 9112 section 9.3.1).
            self._pending = list(self._copy) or None
            self._connect()
        else:
            if upstream.fault:
                self.pool.tell_fault(upstream.fault, self.context.route)
            if end in KINDS:
                self.pool.failed(KINDS[end])
            if self.status:
                # Never a clean end: the client must see that the reply is not whole
                # (RFC 9112 section 8).
                self._client.abort()
            idled = end is End.IDLE_TIMEOUT and self._timeouts() is not self._settings.timeouts
            self._finish(Reason.NOT_SIGNED_IN if idled else _FAILURES[end])

    def _claims_no_other(self) -> bool:
        """Tell whether the tool cannot take the request for one that must not be sent twice."""
        request = self.forward_request.request
        return claimed_methods(request.fields, request.target.query) <= _IDEMPOTENT

    def _may_repeat(self, upstream: UpstreamConnection) -> bool:
        """Tell whether a request is sent again whose new connection broke: once.

        An upstream that is restarted resets what waits for it to accept.
        """
        repeated, self._repeated = self._repeated, True
        return upstream.was_reset and not repeated and self._settings.connect_retry > 0

    def _send(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        if self.forward_request.request.fields.binds:
            upstream.reader.personal = True
        upstream.start(self, self, self._timeouts())
        if self._pending:
            upstream.write(b"".join((self.forward_request.data, *self._pending)))
            self._pending = None
            self._client.release(UPSTREAM_FULL)
        else:
            upstream.write(self.forward_request.data)
        if self._client.full:
            upstream.pause_reading()
        if self._whole:
            upstream.request_sent()

    def _write(self, data: bytes) -> None:
        if self._copy is not None:
            self._copied += len(data)
            if self._copied > REPEATED_BYTES:
                self._copy = None
            else:
                self._copy.append(data)
        if self._upstream is not None:
            self._upstream.write(data)
        elif self._connecting is not None:
            self._pending = [*(self._pending or ()), data]
            self._client.hold(UPSTREAM_FULL)

    def _connect(self) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connected())

    async def _connected(self) -> None:
        try:
            upstream = await self.pool.connect(
                self._settings.connect_timeout, self._settings.connect_retry
            )
        except TimeoutError:
            self._fail(Reason.UPSTREAM_SLOW)
        except OSError as error:
            out = error.errno in NO_DESCRIPTOR
            self._fail(Reason.GATE_BUSY if out else Reason.UPSTREAM_DOWN)
        else:
            self._connecting = None
            self._send(upstream)

    def _fail(self, reason: Reason) -> None:
        self._connecting = None
        self._finish(reason)

    def _drop(self) -> None:
        """Close what was begun upstream, and note what the client got of it."""
        upstream, self._upstream = self._upstream, None
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if upstream is not None:
            upstream.abort()
            self.status, self.body_bytes = upstream.reader.status, upstream.reader.body_bytes
            self.pool.release(upstream)

    def _finish(self, failure: Reason | None) -> None:
        self._pending = None
        self.failure = failure
        self._ended(self._client, self)
