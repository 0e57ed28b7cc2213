"""Forward-auth: tells a proxy in front whether a request may pass, and who sends it."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web

from tailchat_gate.access.browser_origin import WorkerScopes
from tailchat_gate.access.route import Route
from tailchat_gate.authorizer import Authorizer
from tailchat_gate.config.values.identifier import TRACE
from tailchat_gate.observe.log import FaultLog
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders, client_fields
from tailchat_gate.proxy.message.request_headers import RequestHeaders
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.authorization import TOKEN_FIELD, TokenWay
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.forwarded_request import QUESTION_FIELDS, original_of
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.target import Original
from tailchat_gate.responses.refusals import Refusals
from tailchat_gate.verdict import Verdict

# Globals: see reasons.py.
_OK, _ACCEPTED = HTTPStatus.OK, HTTPStatus.ACCEPTED
_CREDENTIALS: Final = (b"authorization", TOKEN_FIELD)
_WITH_TOKEN: Final = QUESTION_FIELDS | {TOKEN_FIELD}
#: Reasons of refusals that a sign-in overcomes.
_SIGN_IN: Final = frozenset(
    (Reason.NOT_SIGNED_IN, Reason.SESSION_ENDED, Reason.SESSION_REVOKED, Reason.RECHECK_FAILED)
)


class ForwardAuth:
    """The handler of /oauth2/auth.

    The proxy asks for every request that it gets, so these responses are made without aiohttp: 202
    with the identity headers (200 for Envoy, which requires it), 401 where signing in would help,
    429 over a rate limit and 503 during maintenance if the proxy passes them on, and 403 for every
    other refusal, because nginx takes any other status for a fault. Never a redirect.

    `public_host` is the host of server.public_url, under which a proxy may reach the gate.
    """

    def __init__(
        self,
        *,
        refusals: Refusals,
        authorizer: Authorizer,
        identity: IdentityHeaders,
        headers: RequestHeaders,
        workers: WorkerScopes,
        path: str,
        public_host: str,
        clock: Callable[[], float],
    ) -> None:
        self._answers = refusals.answers
        self._refusals = refusals
        self._authorizer = authorizer
        self._identity = identity
        self._headers = headers
        self._workers = workers
        self._path = path
        self._below = f"{path}/"
        self._faults = FaultLog(clock)
        #: The names that belong to one tool.
        self._tools = authorizer.routes.hosts - {public_host}

    def owns(self, path: str) -> bool:
        """Whether a path is the handler's own, or has the original path after it."""
        return path == self._path or path.startswith(self._below)

    def answer(self, context: RequestContext, *, keep: bool) -> bytes:
        """Return the whole response; `keep`: the connection stays open after it.

        Raises UndecidedError if Tailchat must be asked first.
        """
        try:
            original = self._original(context)
            context.original = original
            verdict = self._authorizer.judge(
                context, original.host, original.method, original.target
            )
            match = verdict.match if verdict.allowed else None
            if match is not None:
                self._check_forward_request(context, original, match.route)
        except RefusedError as error:
            context.reason = error.reason
            return self._refused(context, None, {"problem": str(error)}, keep=keep)
        if match is None:
            return self._refused(context, verdict, {}, keep=keep)
        lines = self._lines(context, verdict, match.route)
        status = _ACCEPTED
        if original.as_sent:
            status = _OK
            lines += _removals(context.head.fields, lines)
        context.status = status
        return self._answers.identity(status, lines, context.head, keep=keep)

    def _original(self, context: RequestContext) -> Original:
        """Return the original request that the proxy asks about. Raises RefusedError."""
        if not context.client_address.by_proxy:
            # A visitor, or a proxy that the configuration does not name, may make up the original
            # request.
            self._tell("server.trusted_proxies does not name the proxy that asks", context)
            raise RefusedError(
                "server.trusted_proxies does not name the client", Reason.PROXY_NOT_TRUSTED
            )
        original = original_of(context.head, self._path)
        if original is None:
            self._tell("a proxy asks without naming the original request", context)
            raise RefusedError(
                "X-Forwarded-Uri is missing: the proxy has to set it, X-Forwarded-Method and "
                "X-Forwarded-Host",
                Reason.ORIGINAL_MISSING,
            )
        fields = context.head.fields
        host = fields.host.name
        if host != original.host.name and host in self._tools:
            # One of them may be the visitor's, for instance if a proxy passes on the Host field but
            # routes an absolute-form target by its authority. Nobody knows which one it routes by.
            raise RefusedError("Host and the original request name different hosts")
        if fields.worker_script and self._workers.script_takes_in(original.target.path):
            raise RefusedError(
                "the service worker would control the gate's own paths", Reason.WORKER_REFUSED
            )
        return original

    def _check_forward_request(
        self, context: RequestContext, original: Original, route: Route
    ) -> None:
        """Raise RefusedError for a request that the gate itself would not forward to the tool."""
        if original.unstripped:
            fields = context.head.fields
            # A token in the gate's own field is meant for the gate, and no claim for the tool.
            asked_with = _WITH_TOKEN if fields.token_way is TokenWay.FIELD else QUESTION_FIELDS
            claim = self._headers.claim(fields, route.settings, asked_with)
            if claim:
                raise RefusedError(f"a visitor must not send {claim}, and the tool would get it")
        upgrade = context.head.fields.upgrade
        if upgrade and upgrade.decode("latin-1") not in route.settings.upgrades:
            # Nothing is checked on a connection after a switch that the proxy passes on.
            raise RefusedError("the route's upgrades do not list the requested protocol")
        if original.method == TRACE and not route.passes_on(TRACE):
            raise RefusedError("the route does not pass on TRACE", Reason.METHOD_REFUSED)
        if original.websocket:
            self._authorizer.check_origin(context, original.host, route)

    def _tell(self, message: str, context: RequestContext) -> None:
        """Log a fault of the set-up, at most once a minute."""
        self._faults.tell(message, {"peer": context.client}, level=logging.WARNING)

    def _lines(self, context: RequestContext, verdict: Verdict, route: Route) -> bytes:
        """Return the identity headers and the Authorization for the tool."""
        settings, visitor = route.settings, verdict.visitor
        lines = client_fields(settings, context.client_address.address)
        if context.head.fields.has_credentials:
            lines += self._headers.credentials(context.head.fields, settings)
        if visitor is None:
            return lines
        lines = self._identity.fields(visitor, route) + lines
        if renewal := verdict.renewal():
            lines += b"Set-Cookie: %b\r\n" % renewal.encode("ascii")
        return lines

    def _refused(
        self,
        context: RequestContext,
        verdict: Verdict | None,
        detail: dict[str, str],
        *,
        keep: bool,
    ) -> bytes:
        original = _original_context(context)
        original.reason = context.reason
        answer = self._refusal(original, verdict, detail)
        context.reason = original.reason
        answer = self._refusals.challenged(original, answer, verdict.rules if verdict else ())
        if answer.status != HTTPStatus.UNAUTHORIZED and not _passes_on(context):
            answer.set_status(HTTPStatus.FORBIDDEN)
        context.status = answer.status
        context.sent_bytes = answer.content_length or 0
        return self._answers.serialize(answer, context.head, keep=keep)

    def _refusal(
        self, original: RequestContext, verdict: Verdict | None, detail: dict[str, str]
    ) -> web.Response:
        if verdict is None:
            return self._answers.problem(original, original.reason, detail=detail)
        if original.reason in _SIGN_IN and not (
            verdict.rejection and verdict.rejection.retry_after
        ):
            return self._refusals.sign_in_first(original, verdict.rejection)
        return self._refusals.refusal(original, verdict.record, verdict.rejection)


def _passes_on(context: RequestContext) -> bool:
    """Whether the proxy passes on the status of this refusal.

    Envoy takes 5xx for a failed check, and then lets the request pass with `failure_mode_allow`.
    """
    original = context.original
    if original is None or original.by_nginx:
        return False
    if context.reason is Reason.MAINTENANCE:
        return not original.as_sent
    return context.reason is Reason.RATE_LIMITED


def _removals(fields: FieldSection, lines: bytes) -> bytes:
    """Return the line that makes Envoy remove the credentials that the tool must not get.

    Envoy forwards the visitor's credentials unless the response replaces or removes them.
    """
    if not fields.has_credentials:
        return b""
    replaced = {line.partition(b":")[0].lower() for line in lines.split(b"\r\n")}
    removed = [name for name in _CREDENTIALS if name not in replaced and fields.values(name)]
    return b"X-Envoy-Auth-Headers-To-Remove: %b\r\n" % b", ".join(removed) if removed else b""


def _original_context(context: RequestContext) -> RequestContext:
    """Return the context of the original request, for pages about that request."""
    original, head = context.original, context.head
    if original is None:
        return context
    fields = head.fields.apart()
    fields.host, fields.visitor = original.host, head.fields.visitor
    judged = RequestContext(
        context.request_id,
        context.started,
        RequestHead(original.method or "GET", head.http10, original.target, fields),
        context.client_address,
    )
    judged.route, judged.sub, judged.token = context.route, context.sub, context.token
    judged.trace = context.trace
    return judged
