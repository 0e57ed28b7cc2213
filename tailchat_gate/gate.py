"""The story of a request: read, own paths, route, who, may, rewrite, forward, record."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from tailchat_gate.access.browser_origin import WorkerScopes
from tailchat_gate.access.routes import Route
from tailchat_gate.authorizer import Authorizer
from tailchat_gate.endpoints.admin import AdminRoute
from tailchat_gate.endpoints.router import MAX_FORM_BYTES, Endpoints
from tailchat_gate.identity.recheck import UndecidedError
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.client.active_request import Admission
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.proxy.client.pending_request import PendingRequest
from tailchat_gate.proxy.exchange.exchange import Exchange
from tailchat_gate.proxy.exchange.forward_request import ForwardRequest
from tailchat_gate.proxy.exchange.forwarder import Forwarder
from tailchat_gate.proxy.exchange.recorder import SESSION_OVER, Recorder
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders
from tailchat_gate.proxy.message.request_headers import RequestHeaders
from tailchat_gate.proxy.static.handler import LocalBackend, StaticSlots
from tailchat_gate.reasons import CLIENT_CLOSED_REQUEST, Reason, RefusedError
from tailchat_gate.request.body import Body, body_of
from tailchat_gate.request.client import ClientAddress, ClientResolver
from tailchat_gate.request.context import RequestContext, RequestIds, log_extra
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.intent import is_page
from tailchat_gate.request.trace_context import TraceContexts
from tailchat_gate.responses.refusals import Refusals
from tailchat_gate.responses.writer import ResponseWriter
from tailchat_gate.verdict import Verdict

#: Methods that a proxy may have to answer itself (RFC 9110 sections 7.6.2 and 9.3.6).
_METHODS_FOR_PROXIES: Final = frozenset(("CONNECT", "OPTIONS", "TRACE"))
# A global: see reasons.py.
_CLIENT_GONE: Final = Reason.CLIENT_GONE

_log = logging.getLogger(LOGGER_NAME)


@dataclass(frozen=True, slots=True)
class Gate:
    """The parts that one configuration built, and the order in which a request meets them."""

    clients: ClientResolver
    endpoints: Endpoints
    authorizer: Authorizer
    workers: WorkerScopes
    headers: RequestHeaders
    identity: IdentityHeaders
    forwarder: Forwarder
    local: Mapping[str, LocalBackend | AdminRoute]
    static_slots: Mapping[str, StaticSlots]
    refusals: Refusals
    writer: ResponseWriter
    recorder: Recorder
    request_ids: RequestIds
    traces: TraceContexts
    monotonic: Callable[[], float]
    passes_certificate: bool

    def handle(self, client: ClientConnection, head: RequestHead) -> None:
        """Begin to answer one request; every failure on the way ends in a refusal."""
        self._begin(client, RequestContext(self.request_ids.next(), self.monotonic(), head))

    def resume(self, client: ClientConnection, context: RequestContext) -> None:
        """Begin to answer a held request; the configuration may have changed since it came."""
        # The trusted proxies may have changed; other values cached on a head name their owner.
        context.head.fields.forwarded = None
        self._begin(client, context)

    def _begin(self, client: ClientConnection, context: RequestContext) -> None:
        try:
            try:
                self._answer(client, context)
            except UndecidedError as undecided:
                self._hold(client, context, undecided.record)
            except RefusedError as error:
                self._refuse(client, context, error.reason, problem=str(error))
        except Exception:  # noqa: BLE001 - a fault of any kind must deny, not pass
            _log.exception("a request failed inside the gate", extra=log_extra(context))
            self._give_up(client, context)

    def _give_up(self, client: ClientConnection, context: RequestContext) -> None:
        """Refuse a request after a fault inside the gate, or else end its connection."""
        try:
            if not client.busy:
                self._refuse(client, context, Reason.INTERNAL_ERROR)
                return
        except Exception:  # noqa: BLE001 - the fault may be in what makes the refusals
            _log.exception("a refusal failed inside the gate", extra=log_extra(context))
        # The upstream may be answering it already: two responses would mix.
        client.abort()

    def _answer(self, client: ClientConnection, context: RequestContext) -> None:
        head, fields = context.head, context.head.fields
        context.client_address = client.address or self.address_of(client, fields)
        if fields.shape.identifies is not None or self.traces.begins:
            self.traces.identify(context)

        if self.endpoints.owns(head.target.path):
            self._own_path(client, context)
            return
        if fields.worker_script and self.workers.script_takes_in(head.target.path):
            # Before anything else, so that it ends an older worker for signed-out people too.
            self.writer.say(client, context, self.refusals.answers.worker_refused(context))
            return

        if fields.via and self.headers.passed_here(fields.via):
            self._refuse(client, context, Reason.LOOP_DETECTED)
            return

        verdict = self.authorizer.judge(context, fields.host, head.method, head.target)
        match = verdict.match
        if match is None or not verdict.allowed:
            self._deny(client, context, verdict)
            return

        route = match.route
        if head.method in _METHODS_FOR_PROXIES and not self._may_pass_on(client, context, route):
            return
        if head.target.path == route.folder and is_page(head.method, fields.headers):
            self.writer.say(client, context, self.refusals.answers.with_slash(context))
            return
        body = body_of(fields, route.settings.body_limit) if fields.has_body else None
        if route.name in self.local:
            self._serve_local(client, context, route, verdict)
        else:
            forward_request = self._forward_request(client, context, route, verdict, body)
            busy = self.forwarder.forward(
                client, context, forward_request, self._forwarded, self.recorder
            )
            if busy is not None:
                self._refuse(client, context, busy)

    def _hold(
        self, client: ClientConnection, context: RequestContext, record: SessionRecord
    ) -> None:
        """Hold the request until the recheck of its session is done, then answer it."""
        # For the log, should the client leave now; after the recheck the session is read again.
        context.sub = record.sub
        settled = self.authorizer.sessions.rechecker.settled(record)
        PendingRequest(client, context, settled, self._left)

    def _left(self, context: RequestContext) -> None:
        context.reason, context.status = _CLIENT_GONE, CLIENT_CLOSED_REQUEST
        self.recorder.record(context)

    def refuse_unread(self, client: ClientConnection, error: RefusedError, sent: bytes) -> bytes:
        """Record that `sent` cannot be parsed as a request; return the bytes of the response."""
        context = RequestContext(self.request_ids.next(), self.monotonic())
        context.client_address = self.clients.direct(client.peer)
        context.reason = error.reason
        return self.writer.unreadable(context, str(error), sent)

    def direct(self, peer: str) -> ClientAddress | None:
        """Return the client where a peer is one itself, None for a trusted proxy."""
        return None if self.clients.trusts(peer) else self.clients.direct(peer)

    def judge_again(self, admission: Admission) -> Reason | None:
        """Return why a request under way would be refused now, None where it may go on."""
        return self.authorizer.judge_again(admission.context, admission.holder)

    # Own paths and refusals.

    def _own_path(self, client: ClientConnection, context: RequestContext) -> None:
        head = context.head
        keep = client.keeps(head)
        ready = self.endpoints.ready_answer(context, keep=keep)
        if ready is not None:
            self.recorder.record(context)
            client.answer(ready, head, keep=keep)
            return
        body = body_of(head.fields, MAX_FORM_BYTES) if self.endpoints.reads_body(context) else None
        self.writer.page(
            client, context, lambda request: self.endpoints.answer(request, context), body=body
        )

    def _deny(self, client: ClientConnection, context: RequestContext, verdict: Verdict) -> None:
        if context.reason is Reason.NO_ROUTE and context.path == "/" and not context.token:
            answer = self.refusals.at_front_door(context, verdict.record, verdict.host_session)
            self.writer.say(client, context, answer)
        elif context.reason is Reason.METHOD_REFUSED:
            self._refuse(client, context, context.reason)
        else:
            answer = self.refusals.refusal(context, verdict.record, verdict.rejection)
            answer = self.refusals.challenged(context, answer, verdict.rules)
            self.writer.say(client, context, answer)

    def _refuse(
        self,
        client: ClientConnection,
        context: RequestContext,
        reason: Reason,
        *,
        problem: str = "",
    ) -> None:
        """Answer with an error; a malformed request (with a `problem`) ends its connection."""
        refused = reason is Reason.METHOD_REFUSED
        allowed = self.authorizer.routes.allow(context.host, context.path) if refused else ""
        answer = self.refusals.failure(context, reason, problem=problem, allowed=allowed)
        self.writer.say(client, context, answer, last=bool(problem))

    # Forwarding.

    def _may_pass_on(self, client: ClientConnection, context: RequestContext, route: Route) -> bool:
        """Whether a CONNECT, OPTIONS or TRACE request goes to the upstream; answer it if not."""
        head = context.head
        if not route.passes_on(head.method):
            self._refuse(client, context, Reason.METHOD_REFUSED)
            return False
        hops = head.fields.values(b"max-forwards")
        if hops and not hops[0].strip(b"0"):
            # Max-Forwards is 0: the gate answers in the tool's place (RFC 9110 section 7.6.2).
            allowed = self.authorizer.routes.allow(context.host, context.path)
            self.writer.say(client, context, self.refusals.answers.final_hop(context, allowed))
            return False
        return True

    def _serve_local(
        self, client: ClientConnection, context: RequestContext, route: Route, verdict: Verdict
    ) -> None:
        backend, slots = self.local[route.name], self.static_slots[route.name]
        is_page, fields = isinstance(backend, AdminRoute), context.head.fields
        body = body_of(fields, MAX_FORM_BYTES) if is_page and fields.has_body else None
        if (busy := slots.enter(context.client_address.network)) is not None:
            self._refuse(client, context, busy)
            return
        raw = context.target.path
        path = raw if route.settings.path == "/" else raw[len(route.settings.path) :]
        renewal = verdict.renewal()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            if isinstance(backend, AdminRoute):
                response = await backend.answer(request, context, verdict.record, route.settings)
            else:
                response = await backend.answer(request, path)
            if renewal is not None and not response.prepared:
                response.headers.add("Set-Cookie", renewal)
            return response

        self.writer.page(
            client,
            context,
            answer,
            body=body,
            target=context.target.raw,
            admission=None if route.settings.outlive else Admission(context, verdict.visitor),
            slots=slots,
        )

    def _forward_request(
        self,
        client: ClientConnection,
        context: RequestContext,
        route: Route,
        verdict: Verdict,
        body: Body | None,
    ) -> ForwardRequest:
        head, visitor = context.head, verdict.visitor
        upgrade = self.forwarder.upgrade_of(route, head) if head.fields.upgrade else b""
        if upgrade:
            self.authorizer.check_origin(context, head.fields.host, route)
        extra = route.added_fields
        if renewal := verdict.renewal():
            # Private, because a cache in between must not give the cookie to another person.
            extra += b"Set-Cookie: %b\r\nCache-Control: private\r\n" % renewal.encode("ascii")
        identity = self.identity.fields(visitor, route) if visitor else b""
        if self.passes_certificate:
            identity += client.certificate
        if context.trace is not None:
            identity += context.trace.lines
        sent = self.headers.head(
            head,
            route.upstream_target(head.target.raw),
            address=context.client_address,
            settings=route.settings,
            request_id=context.request_id,
            identity=identity,
            upgrade=bool(upgrade),
            rewritten=verdict.rewritten,
        )
        session = None if route.settings.outlive else visitor
        return ForwardRequest(head, sent, body, extra, upgrade, session, visitor)

    def _forwarded(self, client: ClientConnection, exchange: Exchange) -> None:
        """Record the outcome of an exchange; if no response was relayed, answer with a refusal."""
        context = exchange.context
        exchange.pool.leave(context.client_address.network)
        exchange.pool.counts.request(context)
        failure = exchange.failure
        if failure is not None:
            context.reason = failure
            self.recorder.live_ended(failure)
            if failure is _CLIENT_GONE:
                context.status = CLIENT_CLOSED_REQUEST
            elif not context.status:
                self._refuse_unanswered(client, context, failure)
                return
        self.recorder.record(context)
        client.end(keep=exchange.keep_client)

    def _refuse_unanswered(
        self, client: ClientConnection, context: RequestContext, failure: Reason
    ) -> None:
        """Answer a request whose exchange failed before any byte of a response was relayed.

        If its session has ended meanwhile, the answer is the one that a new request would get.
        """
        verdict = self._judge_again(context) if failure in SESSION_OVER else None
        if verdict is None or verdict.allowed:
            self._refuse(client, context, failure)
        else:
            self._deny(client, context, verdict)

    def _judge_again(self, context: RequestContext) -> Verdict | None:
        try:
            host = context.head.fields.host
            return self.authorizer.judge(context, host, context.method, context.target)
        except (UndecidedError, RefusedError):
            # A request under way cannot be held for a recheck.
            return None

    # The steps.

    def address_of(self, client: ClientConnection, fields: FieldSection) -> ClientAddress:
        """Return the client's address.

        It is cached: on the connection, or behind a trusted proxy on the request's fields.
        """
        peer = client.peer
        if (direct := self.direct(peer)) is not None:
            client.address = direct
            return direct
        known = fields.forwarded
        if known is not None and known[0] == peer:
            return known[1]
        address = self.clients.forwarded(
            peer, fields.text(b"x-forwarded-for"), fields.text(b"x-forwarded-proto")
        )
        fields.forwarded = (peer, address)
        return address
