"""Chooses the response to a refused request: the sign-in, an explaining page or a challenge."""

from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote

from aiohttp import web

from tailchat_gate.access.browser_origin import Embedders
from tailchat_gate.access.policy import Rule
from tailchat_gate.identity.host_sessions import HostSession
from tailchat_gate.identity.oauth.return_targets import ReturnTargets
from tailchat_gate.identity.revocation.state import Lock, Rejection
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import Sites
from tailchat_gate.reasons import BLOCKED, BUSY, Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import Intent, is_form, is_sibling, read_intent, shown_in
from tailchat_gate.responses.answers import RETRY_LATER, Answers, is_unknown_elsewhere
from tailchat_gate.responses.details import lock_detail, person_detail
from tailchat_gate.responses.plain import BASIC, asks_for_password
from tailchat_gate.syntax import READ_METHODS

#: RFC 9110 section 15.5.2 requires a challenge; browsers ignore a scheme that they do not know.
_CHALLENGE: Final = {"WWW-Authenticate": 'TailchatGate realm="tailchat"'}
#: The error codes for a token (RFC 6750 section 3.1).
_BEARER: Final = MappingProxyType(
    {
        Reason.TOKEN_UNKNOWN: "invalid_token",
        Reason.TOKEN_EXPIRED: "invalid_token",
        Reason.TOKEN_ELSEWHERE: "insufficient_scope",
    }
)
#: The statuses of a refusal that signing in would mend.
_SIGNED_OUT: Final = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FOUND))
_SIGN_IN_PAGE: Final = "/sign_in"
_ASK_LATER: Final = frozenset((Reason.GROUPS_UNKNOWN, Reason.RATE_LIMITED))
#: Faults that may be gone when the page is requested again.
_RETRYABLE: Final = BUSY | {
    *(Reason.UPSTREAM_DOWN, Reason.UPSTREAM_BROKEN, Reason.UPSTREAM_SLOW, Reason.GROUPS_UNKNOWN)
}
#: Refusals about which a person may want to contact the operator.
_ABOUT_ACCOUNT: Final = frozenset((Reason.DENIED, Reason.DENY_LISTED))


class AccessForm(NamedTuple):
    """The form to ask for access: the routes that have it, and the maker of its token."""

    routes: Collection[str]
    csrf: Callable[[SessionRecord, str], str]


class Refusals:
    """Chooses the responses to refused requests, for one configuration."""

    def __init__(
        self,
        answers: Answers,
        *,
        sites: Sites,
        returns: ReturnTargets,
        prefix: str,
        sign_in_page: bool,
        embedders: Embedders,
        access_form: AccessForm,
        groups_of: Callable[[str], Sequence[str]],
    ) -> None:
        self.answers: Final = answers
        #: Returns the names of a person's groups.
        self._groups_of = groups_of
        self._sites = sites
        self._returns = returns
        self._prefix = prefix
        self._embedders = embedders
        self._access_form = access_form
        self._entry = _SIGN_IN_PAGE if sign_in_page else "/start"

    def refusal(
        self,
        context: RequestContext,
        record: SessionRecord | None,
        rejection: Rejection | None = None,
    ) -> web.Response:
        """Return the response to a refused request, by the reason in its context.

        `record` is the person's, None for an anonymous request; `rejection` is why the session was
        rejected, None if it was not.
        """
        if rejection is not None or context.reason is Reason.NOT_SIGNED_IN:
            return self.not_let_in(context, rejection)
        if context.reason in _ABOUT_ACCOUNT and record is not None:
            return self.denied(context, context.reason, record)
        if context.reason in _BEARER:
            return self.token_refused(context, context.reason)
        if context.reason is Reason.CROSS_ORIGIN:
            return self._cross_origin(context)
        if context.reason is Reason.GROUPS_UNKNOWN:
            return self.failure(context, context.reason)
        return self.answers.problem(context, context.reason)

    def failure(
        self, context: RequestContext, reason: Reason, *, problem: str = "", allowed: str = ""
    ) -> web.Response:
        """Return the response to a request that fails for `reason`.

        `problem` says what is malformed; `allowed` is the value of Allow, for METHOD_REFUSED.
        """
        detail = {"problem": problem} if problem else {}
        if context.route:
            detail["tool"] = context.route
        retry_url = ""
        if reason in _RETRYABLE and context.method == "GET":
            retry_url = self.answers.same_again(context)
        headers: Mapping[str, str] | None = (
            RETRY_LATER if reason in BUSY or reason in _ASK_LATER else None
        )
        if reason is Reason.METHOD_REFUSED:
            headers = {"Allow": allowed}
        return self.answers.problem(
            context, reason, detail=detail, retry_url=retry_url, headers=headers
        )

    def not_let_in(self, context: RequestContext, rejection: Rejection | None) -> web.Response:
        """Answer a request without a session, or with a rejected session or token."""
        if rejection is None:
            return self.not_signed_in(context)
        if rejection.record is not None:
            context.sub = rejection.record.sub
        if rejection.lock is not None:
            return self.locked(context, rejection.lock, rejection.record)
        if rejection.reason in BLOCKED and rejection.record is not None:
            return self._blocked(context, rejection.reason, rejection.record)
        if rejection.retry_after:
            return self._later(context, rejection)
        return self.not_signed_in(context, rejection.reason)

    def not_signed_in(
        self, context: RequestContext, reason: Reason = Reason.NOT_SIGNED_IN
    ) -> web.Response:
        """Redirect a page navigation to the login; refuse everything else with 401 and no cookie.

        `reason` is why there is no session, or why it was rejected. After a form, a page says that
        the form was not accepted, and leads to the sign-in. In a frame or form of another site's
        page browsers send no session, so signing in would not help; the page says that.
        """
        context.reason = reason
        headers = context.head.fields.headers
        intent = read_intent(context.method, headers)
        if intent is Intent.NAVIGATION:
            return self.answers.redirect(self.sign_in_url(context))
        if intent is Intent.FRAME and (entry := self._frame_entry(context)):
            return self.answers.redirect(self.sign_in_url(context, entry))
        if shown_in(context.method, headers) is Intent.FRAME:
            return self.answers.in_frame(
                context, reason, self.answers.in_a_tab(context), headers=_CHALLENGE
            )
        if is_form(context.method, headers) and is_unknown_elsewhere(reason, headers):
            return self.answers.problem(
                context, reason, retry_url=self.answers.in_a_tab(context), headers=_CHALLENGE
            )
        if is_form(context.method, headers):
            # To the tool's first page: what takes a form need not be a page.
            url = f"{self._sites.origin(context.host)}{self._prefix}{self._entry}?rd=/"
            return self.answers.problem(context, reason, retry_url=url, headers=_CHALLENGE)
        return self._unauthorized(context, reason)

    def _unauthorized(self, context: RequestContext, reason: Reason) -> web.Response:
        """Return the response to a program without a valid session."""
        detail = {"sign_in": f"{self._sites.origin(context.host)}{self._prefix}/sign_in"}
        answer = self.answers.problem_json(context, reason, detail, _CHALLENGE)
        # 401 for every reason, because signing in helps.
        answer.set_status(HTTPStatus.UNAUTHORIZED)
        return answer

    def _frame_entry(self, context: RequestContext) -> str:
        """Return the gate's path that can sign in within a frame, "" for none."""
        if is_sibling(context.head.fields.headers) and self._sites.is_tool(context.host):
            # A session on the public host is handed over without any page.
            return "/start"
        return "/frame" if self._embedders.of_route(context.route) else ""

    def sign_in_first(
        self, context: RequestContext, rejection: Rejection | None = None
    ) -> web.Response:
        """Return the 401 for a proxy to pass on, without a redirect.

        People get a page that continues to the sign-in by itself. A field has the sign-in's URL, so
        that the proxy can redirect instead. `rejection` is as in `refusal`.
        """
        if read_intent(context.method, context.head.fields.headers) is not Intent.NAVIGATION:
            return self.not_let_in(context, rejection)
        url = self.sign_in_url(context)
        headers = {**_CHALLENGE, "X-Tailchat-Sign-In": url}
        if self._entry != _SIGN_IN_PAGE:
            headers["Refresh"] = f"0; url={url}"
        if rejection is not None:
            context.reason = rejection.reason
        return self.answers.page(
            context,
            "sign_in",
            code=HTTPStatus.UNAUTHORIZED,
            headers=headers,
            start_url=url,
        )

    def challenged(
        self, context: RequestContext, answer: web.Response, rules: Sequence[Rule]
    ) -> web.Response:
        """Add a challenge for a password to a refusal by `rules`, if a password may help.

        It takes the place of a redirect to the sign-in: some programs prefer HTML, as Java's
        HttpURLConnection does, or could not use the page.
        """
        if answer.status not in _SIGNED_OUT or not asks_for_password(
            context.method, context.head.fields, rules
        ):
            return answer
        if answer.status == HTTPStatus.FOUND:
            answer = self._unauthorized(context, context.reason)
        answer.headers["WWW-Authenticate"] = BASIC
        return answer

    def locked(
        self, context: RequestContext, lock: Lock, record: SessionRecord | None
    ) -> web.Response:
        """Return the response to a locked-out person or machine, with the operator's message.

        `record` is the person's, None for a machine. A lock on all is shown as maintenance.
        """
        if lock.reason is Reason.MAINTENANCE:
            return self.answers.maintenance(context, lock)
        who = {"token": context.token} if record is None else person_detail(record)
        return self.answers.problem(
            context,
            Reason.LOCKED,
            detail={**who, **lock_detail(lock)},
            retry_url=self.answers.same_again(context),
        )

    def _blocked(
        self, context: RequestContext, reason: Reason, record: SessionRecord
    ) -> web.Response:
        """Answer a person whose account Tailchat reports as banned, deleted, a guest or a bot."""
        return self.answers.problem(
            context,
            reason,
            detail=person_detail(record),
            retry_url=self.answers.same_again(context),
        )

    def _later(self, context: RequestContext, rejection: Rejection) -> web.Response:
        """Return 503, because the gate does not know now whether the session is still valid."""
        return self.answers.problem(
            context,
            rejection.reason,
            retry_url=self.answers.same_again(context) if context.method == "GET" else "",
            headers={"Retry-After": str(rejection.retry_after)},
        )

    def token_refused(
        self, context: RequestContext, reason: Reason, lock: Lock | None = None
    ) -> web.Response:
        """Return the response to a machine whose token is refused, never a redirect to the login.

        `lock` is the lock in force, for LOCKED and MAINTENANCE.
        """
        if lock is not None:
            return self.locked(context, lock, None)
        challenge = f'Bearer realm="tailchat", error="{_BEARER[reason]}"'
        return self.answers.problem(
            context,
            reason,
            detail={"tool": context.route, "token": context.token},
            headers={"WWW-Authenticate": challenge},
        )

    def denied(
        self, context: RequestContext, reason: Reason, record: SessionRecord
    ) -> web.Response:
        """Return the response to a person who may not use this tool, with details to report."""
        return self.answers.problem(
            context,
            reason,
            detail={"tool": context.route, **person_detail(record), **self._groups(record)},
            retry_url=self.answers.start_url(self._way_back(context)),
            ask=self._ask(context, reason, record),
        )

    def _ask(
        self, context: RequestContext, reason: Reason, record: SessionRecord
    ) -> Mapping[str, str]:
        """Return the values of the form to ask for access, {} if the person may not ask."""
        if reason is not Reason.DENIED or context.route not in self._access_form.routes:
            return {}
        back = self._way_back(context)
        csrf = self._access_form.csrf(record, context.host)
        return {"tool": context.route, "csrf": csrf, "back": back}

    def _groups(self, record: SessionRecord) -> dict[str, str]:
        groups = ", ".join(self._groups_of(record.sub))
        return {"groups": groups} if groups else {}

    def _cross_origin(self, context: RequestContext) -> web.Response:
        """Return the response to a request from another origin's page, with a link to the tool."""
        origin = context.head.fields.headers.get("Origin", "")
        return self.answers.problem(
            context,
            Reason.CROSS_ORIGIN,
            detail={"tool": context.route, "origin": origin},
            retry_url=f"{self._sites.origin(context.host)}/",
        )

    def at_front_door(
        self, context: RequestContext, record: SessionRecord | None, host_session: HostSession
    ) -> web.Response:
        """Answer a request for "/" where no route is: people and programs look there first.

        Page navigations go to the launcher; a program without a session learns where to sign in.
        On a host that is not the gate's, which is probably mistyped, visitors get a page instead.
        """
        fields, method = context.head.fields, context.method
        if not self._sites.is_known(context.host):
            return self.answers.problem(context, Reason.NO_ROUTE)
        intent = read_intent(method, fields.headers)
        if intent is Intent.NAVIGATION:
            return self.answers.redirect(f"{self._sites.origin(context.host)}{self._prefix}/")
        if intent is Intent.CALL and method in READ_METHODS and record is None:
            return self.not_let_in(context, host_session.authenticator.explain_rejection(fields))
        return self.answers.problem(context, Reason.NO_ROUTE)

    def sign_in_url(self, context: RequestContext, entry: str = "") -> str:
        """Return the URL of the sign-in, with the requested URL as its return target.

        `entry` is the gate's path that begins the sign-in, "" for the configured one.
        """
        origin = self._sites.origin(context.host)
        back = self._way_back(context)
        return f"{origin}{self._prefix}{entry or self._entry}?rd={quote(back, safe='/')}"

    def _way_back(self, context: RequestContext) -> str:
        """Return the requested URL as a return target, short enough for a query."""
        target = f"{context.target.path}{context.target.query}"
        origin = self._sites.origin(context.host)
        return self._returns.short(target, origin=origin, visitor=context.client_address.network)
