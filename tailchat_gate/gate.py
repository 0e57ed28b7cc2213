"""The story of a request: read, own paths, route, who, may, rewrite, forward, record."""

import logging
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.hdrs import HOST, USER_AGENT
from aiohttp.http import HttpProcessingError, HttpVersion10, HttpVersion11

from tailchat_gate.access.policy import decide
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.answers import Answers
from tailchat_gate.endpoints import Endpoints
from tailchat_gate.identity.authenticate import Visitor
from tailchat_gate.identity.site import SiteSessions
from tailchat_gate.observe.access_log import AccessLog
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.proxy.downstream import ClientConnection
from tailchat_gate.proxy.forward import Forwarder, Outcome, Relayed, wants_websocket
from tailchat_gate.proxy.headers import BadFieldError, RequestHeaders, request_head
from tailchat_gate.proxy.identity_headers import IdentityHeaders
from tailchat_gate.reasons import CLIENT_CLOSED_REQUEST, Reason
from tailchat_gate.request.client import Client, ClientResolver
from tailchat_gate.request.query import cookie_fields
from tailchat_gate.request.readings import TooManyReadingsError
from tailchat_gate.request.target import BadTargetError, HostReader, read_target
from tailchat_gate.request.visit import RequestIds, Visit

#: A proxy that is asked for a tunnel to elsewhere is not this one, and TRACE would show the
#: session cookie to a script (RFC 9110 sections 9.3.6 and 9.3.8).
_REFUSED_METHODS: Final = frozenset(("CONNECT", "TRACE"))
_ALLOWED: Final = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_VERSIONS: Final = frozenset((HttpVersion10, HttpVersion11))
_KEEP: Final = Relayed(keep_alive=True)
_CLOSE: Final = Relayed(keep_alive=False)
_RETRYABLE: Final = frozenset((Reason.UPSTREAM_DOWN, Reason.UPSTREAM_BROKEN, Reason.UPSTREAM_SLOW))
_BAD_REQUEST: Final = (BadTargetError, BadFieldError, TooManyReadingsError)

_log = logging.getLogger(LOGGER_NAME)


@dataclass(frozen=True, slots=True)
class Gate:
    """Everything that one configuration made, and the order in which it meets a request."""

    clients: ClientResolver
    hosts: HostReader
    endpoints: Endpoints
    routes: RouteTable
    sessions: SiteSessions
    headers: RequestHeaders
    identity: IdentityHeaders
    forwarder: Forwarder
    answers: Answers
    metrics: Metrics
    access_log: AccessLog | None
    request_ids: RequestIds
    monotonic: Callable[[], float]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever goes wrong on the way ends in a refusal."""
        visit = self._begin(request)
        try:
            answer = await self._answer(request, visit)
        except _BAD_REQUEST as error:
            answer = self._problem(request, visit, Reason.BAD_REQUEST, str(error))
        except (CancelledError, ConnectionError):
            visit.reason, visit.status = Reason.CLIENT_GONE, CLIENT_CLOSED_REQUEST
            raise
        except Exception:  # noqa: BLE001 - a fault of any kind must deny, not pass
            _log.exception("a request failed inside the gate", extra=_details(visit))
            answer = self._problem(request, visit, Reason.INTERNAL_ERROR)
        finally:
            self._record(visit)
        if visit.reason is Reason.BAD_REQUEST or request._message.chunked:  # noqa: SLF001 - as below
            # Its framing may be in doubt; and aiohttp lets the trailer of a chunked body become
            # a field of the next request on the connection.
            return _last(answer)
        return _last(answer) if getattr(request.protocol, "leaving", False) else answer

    async def _answer(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        message = request._message  # noqa: SLF001 - the raw fields and target have no public name
        visit.client_address = self._client(request)
        if message.version not in _VERSIONS:
            # Answered in the gate's own version (RFC 9110 section 2.5).
            request._version = HttpVersion11  # noqa: SLF001 - as above
            raise BadTargetError("a version of the protocol that is not spoken here")
        target = visit.target = read_target(
            message.path, self.hosts.read(message.headers.getall(HOST, ()))
        )
        if message.method in _REFUSED_METHODS:
            refusal = self.answers.problem(
                request, visit, Reason.METHOD_REFUSED, headers={"Allow": _ALLOWED}
            )
            return self._own(refusal, visit)

        if self.endpoints.owns(target.path):
            return self._own(await self.endpoints.answer(request, visit), visit)

        match = self.routes.match(target)
        authenticator = self.sessions.at(target.host.name).authenticator
        visitor = authenticator.authenticate(cookie_fields(message.raw_headers))
        visit.route = match.route.name if match else ""
        visit.sub = visitor.record.sub if visitor else ""

        decision = decide(match.rules if match else (), visitor.record.sub if visitor else None)
        visit.reason = decision.reason
        if match is None or not decision.allowed:
            return self._own(self._refuse(request, visit, visitor), visit)

        upgrade = wants_websocket(message)
        head = request_head(
            message.method,
            target,
            self.headers.rewrite(
                message.raw_headers, chunked=bool(message.chunked), has_body=request.body_exists
            ),
            client=visit.client_address,
            request_id=visit.request_id,
            upgrade=upgrade,
            identity=self.identity.fields(visitor, match.route) if visitor else b"",
        )
        extra = b""
        if visitor is not None and (renewal := authenticator.renewal(visitor)):
            # Private, because a cache between must not hand the cookie to somebody else.
            extra = b"Set-Cookie: %b\r\nCache-Control: private\r\n" % renewal.encode("ascii")
        outcome = await self.forwarder.forward(
            request, match.route, head, extra_fields=extra, upgrade=upgrade
        )
        return self._relayed(request, visit, outcome)

    def refuse_unparsed(
        self,
        connection: ClientConnection,
        request: web.BaseRequest,
        error: BaseException | None,
    ) -> web.StreamResponse:
        """Answer what could not be read as a request at all, and close the connection."""
        visit = self._begin(request)
        visit.client_address = self.clients.direct(_peer(connection))
        if not isinstance(error, HttpProcessingError):
            _log.error("a connection failed inside the gate", exc_info=error)
        if request.writer.output_size:
            raise ConnectionError("the answer was begun")
        answer = self._problem(request, visit, Reason.BAD_REQUEST)
        answer.force_close()
        self._record(visit)
        return answer

    # The steps.

    def _begin(self, request: web.BaseRequest) -> Visit:
        message = request._message  # noqa: SLF001 - as below
        return Visit(
            self.request_ids.next(),
            self.monotonic(),
            message.method,
            message.headers.get(USER_AGENT, ""),
        )

    def _client(self, request: web.BaseRequest) -> Client:
        connection = request.protocol
        assert isinstance(connection, ClientConnection)  # noqa: S101 - narrows for the checker
        if connection.client is not None:
            return connection.client
        peer = _peer(connection)
        if not self.clients.trusts(peer):
            connection.client = self.clients.direct(peer)
            return connection.client
        fields = request.headers
        return self.clients.forwarded(
            peer,
            ",".join(fields.getall("X-Forwarded-For", ())),
            ",".join(fields.getall("X-Forwarded-Proto", ())),
        )

    def _refuse(
        self, request: web.BaseRequest, visit: Visit, visitor: Visitor | None
    ) -> web.StreamResponse:
        if visit.reason is Reason.NO_ROUTE and visit.path == "/":
            # Nothing is configured there, but it is where people look first.
            return self.answers.who_am_i(request, visit)
        if visit.reason is Reason.NOT_SIGNED_IN:
            return self.answers.not_signed_in(request, visit)
        if visit.reason is Reason.DENIED and visitor is not None:
            return self.answers.denied(request, visit, visitor.record)
        return self.answers.problem(request, visit, visit.reason)

    def _relayed(
        self, request: web.BaseRequest, visit: Visit, outcome: Outcome
    ) -> web.StreamResponse:
        visit.status, visit.sent_bytes = outcome.status, outcome.body_bytes
        if outcome.failure is Reason.CLIENT_GONE:
            visit.reason, visit.status = outcome.failure, CLIENT_CLOSED_REQUEST
        elif outcome.failure is not None:
            visit.reason = outcome.failure
            if not outcome.status:
                return self._problem(request, visit, outcome.failure)
        return _KEEP if outcome.keep_client else _CLOSE

    def _problem(
        self, request: web.BaseRequest, visit: Visit, reason: Reason, text: str = ""
    ) -> web.StreamResponse:
        detail = {"problem": text} if text else {}
        if visit.route:
            detail["tool"] = visit.route
        retry_url = ""
        if reason in _RETRYABLE and visit.method == "GET":
            target = visit.target
            # Absolute, because a path that begins with "//" would lead to another host.
            retry_url = f"{self.answers.origin(visit.host)}{target.path}{target.query}"
        answer = self.answers.problem(request, visit, reason, detail=detail, retry_url=retry_url)
        return self._own(answer, visit)

    def _own(self, answer: web.StreamResponse, visit: Visit) -> web.StreamResponse:
        visit.status = answer.status
        visit.sent_bytes = answer.content_length or 0
        return answer

    def _record(self, visit: Visit) -> None:
        visit.seconds = self.monotonic() - visit.started
        self.metrics.request(visit.route, visit.method, visit.status, visit.reason, visit.seconds)
        if self.access_log is not None:
            self.access_log.write(visit)


def _last(answer: web.StreamResponse) -> web.StreamResponse:
    """Return the answer, as the last on its connection."""
    if answer is _KEEP:
        return _CLOSE
    answer.force_close()
    return answer


def _peer(connection: ClientConnection) -> str:
    peer = connection.peername
    # A Unix socket has no address: whoever may open it is this machine.
    return peer[0] if isinstance(peer, tuple) else "127.0.0.1"


def _details(visit: Visit) -> dict[str, object]:
    return {"details": {"request_id": visit.request_id, "route": visit.route}}
