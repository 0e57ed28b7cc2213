"""The gate's own answers: a page for a person, JSON for a program, a way to the sign-in."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from aiohttp import web

from tailchat_gate.access.policy import Rule
from tailchat_gate.identity.host_sessions import Sites
from tailchat_gate.identity.oauth.return_targets import ReturnTargets
from tailchat_gate.identity.revocation.state import Lock, Rejection
from tailchat_gate.identity.sessions.session import SessionRecord
from tailchat_gate.pages.language import choose_language
from tailchat_gate.pages.render import Pages
from tailchat_gate.reasons import BUSY, STATUS, Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import (
    Intent,
    is_form,
    is_from_elsewhere,
    is_sibling,
    read_intent,
    shown_in,
    wants_html,
)
from tailchat_gate.responses.plain import BASIC, JSON, SERVER, PlainAnswers, asks_for_password

#: How long to stay away where there is no room for a request (RFC 9110 section 10.2.3).
RETRY_LATER: Final = MappingProxyType({"Retry-After": "5"})
#: RFC 9110 section 15.5.2 asks for a challenge; browsers ignore a scheme they do not know.
_CHALLENGE: Final = {"WWW-Authenticate": 'TailchatGate realm="tailchat"'}
#: RFC 6750 section 3.1: what is wrong with a token.
_BEARER: Final = MappingProxyType(
    {
        Reason.TOKEN_UNKNOWN: "invalid_token",
        Reason.TOKEN_EXPIRED: "invalid_token",
        Reason.TOKEN_ELSEWHERE: "insufficient_scope",
    }
)
#: The longest Location, in characters.
_LONGEST_LOCATION: Final = 2048
_SIGN_IN_PAGE: Final = "/sign_in"
#: What of an answer is about the visitor.
_PERSONAL: Final = frozenset(("discriminator", "nickname", "notice", "sub"))
#: What the person who is refused may want to talk to an admin about.
_ABOUT_ACCOUNT: Final = frozenset((Reason.DENIED, Reason.DENY_LISTED))


class Answers(PlainAnswers):
    """Makes the answers of one configuration."""

    def __init__(
        self,
        pages: Pages,
        *,
        sites: Sites,
        returns: ReturnTargets,
        prefix: str,
        sign_in_page: bool,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(clock)
        self._pages = pages
        self._sites = sites
        self._returns = returns
        self._prefix = prefix
        self._entry = _SIGN_IN_PAGE if sign_in_page else "/start"

    def page(
        self,
        context: RequestContext,
        name: str,
        *,
        code: int = 200,
        headers: Mapping[str, str] | None = None,
        framed: bool = False,
        **values: object,
    ) -> web.Response:
        """Return a page of the pages room, in the visitor's language.

        `code` is its status; `framed`: any page may show it in a frame.
        """
        accept_language = context.head.fields.headers.get("Accept-Language", "")
        language = choose_language(accept_language)
        return web.Response(
            status=code,
            text=self._pages.render(name, accept_language=accept_language, **values),
            headers={**SERVER, **self._pages.headers(language, framed=framed), **(headers or {})},
        )

    def problem(
        self,
        context: RequestContext,
        reason: Reason,
        *,
        detail: Mapping[str, str] | None = None,
        retry_url: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """Return the answer that tells why a request is refused, and note it on the visit."""
        context.reason = reason
        status = STATUS[reason]
        if shown_in(context.method, context.head.fields.headers) is Intent.FRAME:
            # In a tab a tool's address tells more; a step of a login that failed is over.
            again = "" if context.route else retry_url
            return self.in_frame(context, reason, again or self._in_a_tab(context))
        if wants_html(context.head.fields.headers):
            return self.page(
                context,
                "problem",
                code=status,
                headers=headers,
                reason=reason.value,
                request_id=context.request_id,
                time=self._clock(),
                status=status.value,
                retry_url=retry_url,
                detail=dict(detail or {}),
                elsewhere=_elsewhere(context, reason),
            )
        return self._problem_json(context, reason, detail or {}, headers or {})

    def in_frame(
        self,
        context: RequestContext,
        reason: Reason,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """Return the small page that a frame shows, with a link that opens `url` in a new tab.

        It may be framed by any page, because it says nothing about the visitor and does nothing.
        """
        context.reason = reason
        return self.page(
            context,
            "frame",
            code=STATUS[reason],
            headers=headers,
            framed=True,
            reason=reason.value,
            open_url=url,
            elsewhere=_elsewhere(context, reason),
        )

    def _problem_json(
        self,
        context: RequestContext,
        reason: Reason,
        detail: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> web.Response:
        """Return what a program reads of a problem, and a page of another of the site's tools.

        Who the visitor is, is not for that page.
        """
        shared = {"Vary": "Origin"}
        origin = context.head.fields.headers.get("Origin", "")
        if origin and (origin == self._sites.public_url or origin in self._sites):
            shared["Access-Control-Allow-Origin"] = origin
            shared["Access-Control-Allow-Credentials"] = "true"
            if origin != self._sites.origin(context.host):
                detail = {name: text for name, text in detail.items() if name not in _PERSONAL}
        body = self._pages.problem_json(reason.value, context.request_id, **detail)
        return web.Response(status=STATUS[reason], body=body, headers={**JSON, **shared, **headers})

    def unreadable(self, context: RequestContext, problem: str) -> web.Response:
        """Return the answer to what could not be read as a request; the connection ends."""
        body = self._pages.problem_json(context.reason.value, context.request_id, problem=problem)
        headers = {**JSON, **RETRY_LATER} if context.reason in BUSY else JSON
        return web.Response(status=STATUS[context.reason], body=body, headers=headers)

    def onward(self, context: RequestContext, location: str) -> web.Response:
        """Lead to an address that may be long: a proxy in front may take no such header.

        nginx answers 502 to a reply whose head is over 4 KiB, unless it was told otherwise.
        """
        if len(location) <= _LONGEST_LOCATION:
            return self.redirect(location, status=303)
        framed = read_intent(context.method, context.head.fields.headers) is Intent.FRAME
        return self.page(context, "onward", framed=framed, next_url=location)

    def redirect_to_userinfo(self, context: RequestContext) -> web.Response:
        """Lead a page navigation that found no tool to the page that tells who is signed in."""
        if read_intent(context.method, context.head.fields.headers) is Intent.NAVIGATION:
            return self.redirect(f"{self._sites.origin(context.host)}{self._prefix}/userinfo")
        return self.problem(context, Reason.NO_ROUTE)

    def refusal(
        self,
        context: RequestContext,
        record: SessionRecord | None,
        rejection: Rejection | None = None,
    ) -> web.Response:
        """Return the answer to a request that may not pass, by the reason on its visit.

        `record` is that of the person who asks, None for nobody; `rejection` is why their session
        is no good, None where it is or where there is none.
        """
        if rejection is not None or context.reason is Reason.NOT_SIGNED_IN:
            return self.not_let_in(context, rejection)
        if context.reason in _ABOUT_ACCOUNT and record is not None:
            return self.denied(context, context.reason, record)
        if context.reason in _BEARER:
            return self.token_refused(context, context.reason)
        if context.reason is Reason.CROSS_ORIGIN:
            return self._cross_origin(context)
        return self.problem(context, context.reason)

    def _cross_origin(self, context: RequestContext) -> web.Response:
        """Tell that a page elsewhere sent the request, and where to do what it wanted."""
        origin = context.head.fields.headers.get("Origin", "")
        return self.problem(
            context,
            Reason.CROSS_ORIGIN,
            detail={"tool": context.route, "origin": origin},
            retry_url=f"{self._sites.origin(context.host)}/",
        )

    def challenged(
        self, context: RequestContext, answer: web.Response, rules: Sequence[Rule]
    ) -> web.Response:
        """Return a refusal by `rules`, which asks a program for a password where one may help."""
        if answer.status == HTTPStatus.UNAUTHORIZED and asks_for_password(
            context.method, context.head.fields, rules
        ):
            answer.headers["WWW-Authenticate"] = BASIC
        return answer

    def sign_in_first(
        self, context: RequestContext, rejection: Rejection | None = None
    ) -> web.Response:
        """Return the answer of who is not signed in for a proxy to hand on: never a redirect.

        A person gets a page that goes on to the sign-in by itself, and the proxy the address in
        a field of its own, so that it may redirect instead. `rejection` as in `refusal`.
        """
        if read_intent(context.method, context.head.fields.headers) is not Intent.NAVIGATION:
            return self.not_let_in(context, rejection)
        url = self.sign_in_url(context)
        headers = {**_CHALLENGE, "X-Tailchat-Sign-In": url}
        if self._entry != _SIGN_IN_PAGE:
            headers["Refresh"] = f"0; url={url}"
        if rejection is not None:
            context.reason = rejection.reason
        return self.page(
            context,
            "sign_in",
            code=HTTPStatus.UNAUTHORIZED,
            headers=headers,
            start_url=url,
        )

    def not_let_in(self, context: RequestContext, rejection: Rejection | None) -> web.Response:
        """Answer who is not signed in, or whose session or token is no good, now or for ever."""
        if rejection is None:
            return self.not_signed_in(context)
        if rejection.record is not None:
            context.sub = rejection.record.sub
        if rejection.lock is not None:
            return self.locked(context, rejection.lock, rejection.record)
        if rejection.retry_after:
            return self._later(context, rejection)
        return self.not_signed_in(context, rejection.reason)

    def locked(
        self, context: RequestContext, lock: Lock, record: SessionRecord | None
    ) -> web.Response:
        """Tell who is kept out so, what the admin says to it, and until when.

        `record` is a person's, None for a machine.
        """
        machine = {"token": context.token} if record is None else {}
        return self.problem(
            context,
            Reason.LOCKED,
            detail={**machine, **locked_detail(record, lock)},
            retry_url=self.same_again(context),
        )

    def same_again(self, context: RequestContext) -> str:
        """Return the address that was asked for, for a link."""
        # Absolute, because a path that begins with "//" would lead to another host.
        return f"{self._sites.origin(context.host)}{context.target.path}{context.target.query}"

    def _in_a_tab(self, context: RequestContext) -> str:
        """Return what a tab may open in place of a frame; what takes a form need not be a page."""
        if context.method == "POST":
            return f"{self._sites.origin(context.host)}/"
        return self.same_again(context)

    def not_signed_in(
        self, context: RequestContext, reason: Reason = Reason.NOT_SIGNED_IN
    ) -> web.Response:
        """Send a page navigation to the login; refuse everything else with 401 and no cookie.

        `reason` tells why nobody is: that of a session that was, where there was one. Who sent a
        form reads on a page that it has not arrived, and signs in from there. With a frame or form
        in a page of another site no session of the visitor's comes, whether there is one or not:
        to sign in would not help, and that is what the visitor reads.
        """
        context.reason = reason
        headers = context.head.fields.headers
        intent = read_intent(context.method, headers)
        if intent is Intent.NAVIGATION:
            return self.redirect(self.sign_in_url(context))
        if intent is Intent.FRAME and is_sibling(headers) and self._sites.is_tool(context.host):
            # Where public_url has a session, it is carried over without anybody's help.
            return self.redirect(self.sign_in_url(context, "/start"))
        if shown_in(context.method, headers) is Intent.FRAME:
            return self.in_frame(context, reason, self._in_a_tab(context), headers=_CHALLENGE)
        if is_form(context.method, headers) and _is_unknown_elsewhere(reason, headers):
            return self.problem(
                context, reason, retry_url=self._in_a_tab(context), headers=_CHALLENGE
            )
        if is_form(context.method, headers):
            # To the tool's first page: what takes a form need not be a page.
            url = f"{self._sites.origin(context.host)}{self._prefix}{self._entry}?rd=/"
            return self.problem(context, reason, retry_url=url, headers=_CHALLENGE)
        detail = {"sign_in": f"{self._sites.origin(context.host)}{self._prefix}/sign_in"}
        answer = self._problem_json(context, reason, detail, _CHALLENGE)
        # Whatever the reason, to sign in is what helps.
        answer.set_status(HTTPStatus.UNAUTHORIZED)
        return answer

    def _later(self, context: RequestContext, rejection: Rejection) -> web.Response:
        """Ask for patience: whether the session goes on is not known for now."""
        return self.problem(
            context,
            rejection.reason,
            retry_url=self.same_again(context) if context.method == "GET" else "",
            headers={"Retry-After": str(rejection.retry_after)},
        )

    def token_refused(
        self, context: RequestContext, reason: Reason, lock: Lock | None = None
    ) -> web.Response:
        """Tell a machine that its token is no good here; it is never sent to the login.

        `lock` is what keeps it out, for LOCKED.
        """
        if lock is not None:
            return self.locked(context, lock, None)
        challenge = f'Bearer realm="tailchat", error="{_BEARER[reason]}"'
        return self.problem(
            context,
            reason,
            detail={"tool": context.route, "token": context.token},
            headers={"WWW-Authenticate": challenge},
        )

    def sign_in_url(self, context: RequestContext, entry: str = "") -> str:
        """Return where a visitor is sent to sign in, with the way back to what was asked for.

        `entry` is the path of the gate's that begins it, "" for the configured one.
        """
        origin = self._sites.origin(context.host)
        back = self._way_back(context)
        return f"{origin}{self._prefix}{entry or self._entry}?rd={quote(back, safe='/')}"

    def _way_back(self, context: RequestContext) -> str:
        """Return what leads to the address that was asked for, short enough for another one."""
        target = f"{context.target.path}{context.target.query}"
        origin = self._sites.origin(context.host)
        return self._returns.short(target, origin=origin, visitor=context.client)

    def start_url(self, return_to: str, *, prompt: str = "", again: bool = False) -> str:
        """Return the link that begins a login which comes back to `return_to`.

        `again`: in the place of one that this browser could not end.
        """
        asked = f"&prompt={prompt}" if prompt else ""
        once_more = "&again=1" if again else ""
        return f"{self._prefix}/start?rd={quote(return_to, safe='/')}{asked}{once_more}"

    def denied(
        self, context: RequestContext, reason: Reason, record: SessionRecord
    ) -> web.Response:
        """Tell a signed-in person that this tool is not theirs, and what an admin needs to know."""
        return self.problem(
            context,
            reason,
            detail={
                "tool": context.route,
                "nickname": record.nickname,
                "discriminator": record.discriminator,
                "sub": record.sub,
            },
            retry_url=self.start_url(self._way_back(context)),
        )


def _is_unknown_elsewhere(reason: Reason, headers: Mapping[str, str]) -> bool:
    """Tell whether nobody is signed in to a request of another site's page, whoever sends it."""
    return reason is Reason.NOT_SIGNED_IN and is_from_elsewhere(headers)


def _elsewhere(context: RequestContext, reason: Reason) -> str:
    """Return what of another site's page a visitor reads about, "" for nothing."""
    headers = context.head.fields.headers
    if not _is_unknown_elsewhere(reason, headers):
        return ""
    if context.method == "POST":
        return "form"
    return "frame" if read_intent(context.method, headers) is Intent.FRAME else ""


def locked_detail(record: SessionRecord | None, lock: Lock) -> dict[str, str]:
    """Return what who is kept out is told; `until` is a time of RFC 3339, or absent."""
    detail: dict[str, str] = {}
    if record is not None:
        detail = {
            "nickname": record.nickname,
            "discriminator": record.discriminator,
            "sub": record.sub,
        }
    if lock.message:
        detail["notice"] = lock.message
    if lock.until is not None:
        detail["until"] = datetime.fromtimestamp(lock.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return detail
