"""Finds the handler of each of the gate's own paths; also the smallest of these handlers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from aiohttp import web

from tailchat_gate.endpoints.access import AccessEndpoints
from tailchat_gate.endpoints.account import SignOut, UserInfo
from tailchat_gate.endpoints.forward_auth import ForwardAuth
from tailchat_gate.endpoints.frame import FrameSignIn
from tailchat_gate.endpoints.launcher import Launcher
from tailchat_gate.endpoints.login import LoginEndpoints
from tailchat_gate.endpoints.login_answers import Targets
from tailchat_gate.endpoints.login_rates import LoginRates
from tailchat_gate.identity.revocation.state import Rejection
from tailchat_gate.identity.sites import Sites
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import is_own_form
from tailchat_gate.responses.answers import Answers
from tailchat_gate.responses.refusals import Refusals
from tailchat_gate.syntax import PING, READ_METHODS

#: The steps of a login do not allow HEAD, so that a preview of a link does not spend its code.
_STEP: Final = frozenset(("GET",))
MAX_FORM_BYTES: Final = 16_384

Handler = Callable[[web.BaseRequest, RequestContext], Awaitable[web.StreamResponse]]


def is_own(path: str, prefix: str) -> bool:
    """Whether a raw path is one of the gate's own: PING, `prefix`, or below it."""
    return path == PING or (
        path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/")
    )


class KeySet:
    """The handler of /oauth2/jwks.json."""

    def __init__(self, *, answers: Answers, key_set: bytes | None) -> None:
        """`key_set` is JSON (RFC 7517 section 5), None if the gate signs nothing."""
        self._answers = answers
        self._key_set = key_set

    async def answer(
        self, _request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Return the key set; 404 if there is none, so that no tool caches an empty one."""
        if self._key_set is None:
            return self._answers.problem(context, Reason.NO_ROUTE)
        return self._answers.key_set(self._key_set)


@dataclass(frozen=True, slots=True)
class ClearCookies:
    """The handler of /oauth2/clear_cookies, for a browser that sends too many cookies.

    Requests that the gate cannot even read are answered by `Answers.unreadable`. No session in the
    store ends, because this needs no sign-in.
    """

    answers: Answers
    sites: Sites

    async def answer(
        self, _request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Show the form on GET, clear the cookies on POST: no link or other site can do it."""
        headers = context.head.fields.headers
        if not self.answers.may_clear(context.host):
            return self.answers.problem(context, Reason.NO_ROUTE)
        if context.method != "POST":
            return self.answers.page(context, "clear_cookies")
        if not is_own_form(headers, self.sites.origin(context.host)):
            return self.answers.problem(context, Reason.CROSS_ORIGIN)
        return self.answers.cookies_cleared(self.answers.language(context))


class Endpoints:
    """Handlers of the gate's own paths for one configuration."""

    def __init__(  # noqa: PLR0913 - one argument for each handler, all by name
        self,
        *,
        login: LoginEndpoints,
        rates: LoginRates,
        frame: FrameSignIn,
        access: AccessEndpoints,
        targets: Targets,
        sign_out: SignOut,
        userinfo: UserInfo,
        clear_cookies: ClearCookies,
        launcher: Launcher,
        forward_auth: ForwardAuth,
        key_set: KeySet,
        refusals: Refusals,
        maintenance: Callable[[], Rejection | None],
        prefix: str,
    ) -> None:
        self._answers = refusals.answers
        self._refusals = refusals
        self._maintenance = maintenance
        self._prefix = prefix
        self._forward_auth = forward_auth
        #: Paths that sign in or need it, which are closed during maintenance.
        self._into = frozenset(
            f"{prefix}/{page}" for page in ("start", "sign_in", "frame", "request", "approvals")
        )
        #: Paths with a form, whose POST is read.
        self._forms = frozenset(f"{prefix}/{page}" for page in ("sign_out", "request", "approvals"))
        self._handlers: Mapping[str, tuple[frozenset[str], Handler]] = MappingProxyType(
            {
                PING: (READ_METHODS, self._ping),
                prefix: (READ_METHODS, launcher.answer),
                f"{prefix}/": (READ_METHODS, launcher.answer),
                f"{prefix}/start": (_STEP, rates.start),
                f"{prefix}/callback": (_STEP, rates.callback),
                f"{prefix}/arrive": (_STEP, login.arrive),
                f"{prefix}/request": (READ_METHODS | {"POST"}, access.request),
                f"{prefix}/approvals": (READ_METHODS | {"POST"}, access.approvals),
                f"{prefix}/frame": (_STEP, frame.offer),
                f"{prefix}/handed_over": (_STEP, frame.hand_over),
                f"{prefix}/back": (READ_METHODS, targets.back),
                f"{prefix}/sign_in": (READ_METHODS, login.sign_in),
                f"{prefix}/sign_out": (READ_METHODS | {"POST"}, sign_out.answer),
                f"{prefix}/clear_cookies": (READ_METHODS | {"POST"}, clear_cookies.answer),
                f"{prefix}/auth": (READ_METHODS, self._not_ready),
                f"{prefix}/language": (_STEP, self._language),
                f"{prefix}/userinfo": (READ_METHODS, userinfo.answer),
                f"{prefix}/jwks.json": (READ_METHODS, key_set.answer),
            }
        )

    def owns(self, path: str) -> bool:
        """Whether a path is the gate's own, which no route gets."""
        return is_own(path, self._prefix)

    def reads_body(self, context: RequestContext) -> bool:
        """Whether a request's body must be read for its answer."""
        return context.method == "POST" and context.path in self._forms

    def ready_answer(self, context: RequestContext, *, keep: bool) -> bytes | None:
        """Return the whole response if it needs no page, else None.

        `keep`: the client's connection stays open after it.
        """
        path = context.path
        if not self._forward_auth.owns(path):
            return None
        # The proxy asks with GET; the original method is in fields.
        if path in self._handlers and context.method not in READ_METHODS:
            return None
        return self._forward_auth.answer(context, keep=keep)

    async def answer(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Answer a request for one of the gate's own paths."""
        entry = self._handlers.get(context.target.path)
        if entry is None:
            return self._answers.problem(context, Reason.NO_ROUTE)
        methods, handler = entry
        if context.method not in methods:
            return self._answers.problem(
                context,
                Reason.METHOD_REFUSED,
                headers={"Allow": ", ".join(sorted(methods))},
            )
        if context.path in self._into and (closed := self._maintenance()):
            return self._refusals.not_let_in(context, closed)
        context.reason = Reason.OWN_PATH
        return await handler(request, context)

    async def _ping(
        self, _request: web.BaseRequest, _context: RequestContext
    ) -> web.StreamResponse:
        return self._answers.text("OK\n")

    async def _language(
        self, _request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        return self._answers.language_switched(context)

    async def _not_ready(
        self, _request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Deny the request, because `ready_answer` should have answered it."""
        return self._answers.problem(context, Reason.INTERNAL_ERROR)
