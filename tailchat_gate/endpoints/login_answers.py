"""Parts of a login's responses: login cookies, return targets, and the pages of refusals."""

import json
import os
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from tailchat_gate.access.routes import RouteTable
from tailchat_gate.identity.host_sessions import HostSessions
from tailchat_gate.identity.oauth.login import MAX_RETURN_TO, LoginRefused, safe_return_to
from tailchat_gate.identity.oauth.login_state import (
    STATE_LIFETIME,
    LoginCookie,
    browser_hash,
    choose,
    is_bound_to,
    surplus,
)
from tailchat_gate.identity.oauth.return_targets import ReturnTargets
from tailchat_gate.identity.oauth.shared_redemptions import Codec
from tailchat_gate.identity.oauth.sign_in_check import Finding
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import set_cookie
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import Sites, read_handoff_target
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import FaultLog
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import opens_page, wants_html
from tailchat_gate.request.target import cookie_fields, query_pairs
from tailchat_gate.responses.answers import Answers
from tailchat_gate.responses.chosen_language import chosen_language, keep


@dataclass(frozen=True, slots=True)
class Bindings:
    """The login cookies of requests and responses."""

    sessions: HostSessions

    def of(self, request: web.BaseRequest) -> list[LoginCookie]:
        """Return the login cookies that a browser sent."""
        reader = self.sessions.reader
        return [
            cookie
            for field in cookie_fields(request.raw_headers)
            for cookie in reader.login_cookies(field)
        ]

    def values(self, request: web.BaseRequest) -> list[str]:
        """Return the values of the login cookies that a browser sent."""
        return [cookie.value for cookie in self.of(request)]

    def for_login(self, request: web.BaseRequest) -> LoginCookie:
        """Return the login cookie for a new login: an existing one or a new one."""
        return choose(
            self.of(request),
            prefix=self.sessions.names.login,
            now=self.sessions.clock(),
            random_bytes=os.urandom,
        )

    def set(
        self,
        request: web.BaseRequest,
        answer: web.StreamResponse,
        cookie: LoginCookie,
        *,
        embedded: bool = False,
    ) -> None:
        """Set a login cookie for as long as a login may take, and delete surplus ones.

        `embedded`: it is for a frame in a page of another site.
        """
        self._add(answer, cookie.name, cookie.value, STATE_LIFETIME, embedded=embedded)
        self.prune(request, answer, cookie.name, embedded=embedded)

    def prune(
        self,
        request: web.BaseRequest,
        answer: web.StreamResponse,
        keep: str = "",
        *,
        embedded: bool = False,
    ) -> None:
        """Delete a browser's surplus login cookies, but not the one named `keep`."""
        for name in surplus(self.of(request), keep):
            self._add(answer, name, "", 0, embedded=embedded)

    def _add(
        self,
        answer: web.StreamResponse,
        name: str,
        value: str,
        max_age: int,
        *,
        embedded: bool,
    ) -> None:
        secure = self.sessions.names.secure
        answer.headers.add(
            "Set-Cookie",
            set_cookie(name, value, max_age=max_age, secure=secure, embedded=embedded),
        )


@dataclass(frozen=True, slots=True)
class Targets:
    """The return targets of one configuration; `longest` is their limit in characters."""

    answers: Answers
    sites: Sites
    returns: ReturnTargets
    prefix: str
    longest: int
    routes: RouteTable

    def return_to(self, context: RequestContext) -> str:
        """Return the return target in the query, short enough to travel with the login."""
        wanted = dict(query_pairs(context.target.query)).get("rd", "/")
        return_to = self.safe(wanted, context.host)
        if len(return_to) <= MAX_RETURN_TO and self.is_handoff(return_to):
            # The tool's host has already shortened it.
            return return_to
        origin = self.sites.origin(context.host)
        return self.returns.short(return_to, origin=origin, visitor=context.client_address.network)

    def safe(self, return_to: str, host: str = "") -> str:
        """Return a target that is certainly the gate's, "/" for any other."""
        return safe_return_to(
            return_to,
            longest=self.longest,
            public_origin=self.sites.origin(host),
            allowed_origins=self.sites,
            prefix=self.prefix,
        )

    def is_handoff(self, return_to: str) -> bool:
        """Whether a return target is the handoff to another host."""
        return read_handoff_target(return_to, self.sites, self.prefix) is not None

    def at_last(self, return_to: str) -> str:
        """Return the URL at which a login ends, after a handoff too."""
        target = read_handoff_target(return_to, self.sites, self.prefix)
        if target is None:
            return return_to
        return f"{self.sites.origin(target.host)}{self.safe(target.return_to, target.host)}"

    def shown(self, return_to: str) -> str:
        """Return a target as text for people."""
        return self.returns.shown(return_to)

    def chosen_language(self, context: RequestContext) -> str:
        """Return the language that the visitor chose on this host, "" for none."""
        return chosen_language(context.head.fields.cookies, secure=self._secure)

    def keep_language(self, answer: web.StreamResponse, language: str) -> None:
        """Store the language that was chosen on the public host for the response's host too."""
        if language:
            keep(answer, language, secure=self._secure)

    @property
    def _secure(self) -> bool:
        return self.sites.public_url.startswith("https:")

    def tool(self, context: RequestContext, return_to: str) -> str:
        """Return the name, for people, of the tool that a target leads to, "" for none."""
        host = context.host
        self.routes.meter.asker = context
        unnamed = host if self.sites.is_tool(host) else ""
        path = self.shown(return_to).partition("?")[0]
        try:
            match = self.routes.match(host, path, "GET") if path.startswith("/") else None
        except RefusedError:
            return unnamed
        return (match.route.settings.title if match else "") or unnamed

    async def back(self, _request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Redirect to a return target that was too long to travel with a login."""
        origin = self.sites.origin(context.host)
        target, instead = await self.returns.find(dict(query_pairs(context.target.query)), origin)
        if target is not None:
            return self.answers.onward(context, self.safe(target, context.host))
        path = self.safe(instead, context.host)
        url = f"{origin}{path if path.startswith('/') else '/'}"
        return self.answers.problem(context, Reason.LOGIN_TARGET_LOST, retry_url=url)


#: Details of a refusal that only the gate itself needs.
_NOT_SHOWN: Final = frozenset(("return_to", "retry_after"))
#: Refusals that all visitors get until the operator fixes something, and what that is. Faults of a
#: certificate are already in the log (identity/oauth/reachability.py).
_FOR_ALL: Final = {
    Reason.GATE_NOT_ACCEPTED: (
        "Tailchat does not accept the gate: compare tailchat.client_id and client_secret with the "
        "App ID and App Secret of the app, and check its callback"
    ),
    Reason.LOGIN_ISSUER_WRONG: (
        "sign-ins come back from another issuer than expected: check Tailchat's API_URL and "
        "tailchat.issuer"
    ),
    Reason.LOGIN_ID_TOKEN: "the id_token of a sign-in does not pass its checks",
    Reason.TAILCHAT_DOWN: "no connection to Tailchat: check tailchat.api_url",
    Reason.TAILCHAT_SLOW: "Tailchat does not answer in time",
    Reason.TAILCHAT_BROKEN: "Tailchat does not answer properly",
    Reason.TAILCHAT_BUSY: "Tailchat, or a proxy in front of it, wants fewer requests (429)",
}


@dataclass(frozen=True, slots=True)
class LoginRefusals:
    """The refusals of logins for one configuration; `notes` seals the text of their pages."""

    answers: Answers
    bindings: Bindings
    targets: Targets
    notes: KeyRing
    metrics: Metrics
    audit: Audit
    faults: FaultLog

    def refuse(
        self, request: web.BaseRequest, context: RequestContext, refused: LoginRefused
    ) -> web.StreamResponse:
        """Count and log the refusal of a login, and return its answer."""
        reason, detail = refused.reason, refused.detail
        self.metrics.login(reason)
        shown = {name: text for name, text in detail.items() if name not in _NOT_SHOWN}
        context.reason = reason
        self.audit.sign_in_refused(context, shown)
        if message := _FOR_ALL.get(reason):
            self.faults.tell(message, {"reason": reason, **shown})
        if wants_html(request.headers):
            # The page gets another URL: this one holds a code or token that may still be valid, and
            # a script of the same origin can read the URL of a window that it opened.
            browser = next(map(browser_hash, self.bindings.values(request)), "")
            note = json.dumps([reason, detail, browser], ensure_ascii=False)
            sealed = self.notes.seal(note.encode("utf-8", "replace"))
            location = f"{context.path}?refused={sealed}"
            return self.answers.redirect(location, status=303)
        return self.answers.problem(
            context, reason, detail=shown, headers=_retry_after(detail.get("retry_after", ""))
        )

    def too_many(self, context: RequestContext, wait: int) -> web.StreamResponse:
        """Return the response to a login that is refused because its network began too many."""
        return self.answers.problem(
            context,
            Reason.LOGIN_RATE_LIMITED,
            headers=_retry_after(str(wait)),
            retry_url=self.answers.same_again(context),
        )

    def broken(
        self, context: RequestContext, finding: Finding, return_to: str
    ) -> web.StreamResponse:
        """Return the response to a sign-in that would get stuck on a page of Tailchat.

        The finding is already in the log; the page shows its name, so that people can report it.
        """
        reason = finding.reason or Reason.TAILCHAT_BROKEN
        self.metrics.login(reason)
        return self.answers.problem(
            context,
            reason,
            detail={"problem": finding.name},
            retry_url=self.answers.start_url(return_to),
        )

    def before(self, request: web.BaseRequest, context: RequestContext) -> web.Response | None:
        """Return the page of the refusal in the query, None if there is none.

        Only the refused browser sees the details: an attacker could have made up some of them and
        then send others the link.
        """
        note = self.notes.open(dict(query_pairs(context.target.query)).get("refused", ""))
        if note is None:
            return None
        reason, detail, browser = json.loads(note)
        if browser and not is_bound_to(browser, self.bindings.values(request)):
            detail = {}
        return_to = self.targets.safe(detail.pop("return_to", "/"), context.host)
        return self.answers.problem(
            context,
            Reason(reason),
            headers=_retry_after(detail.pop("retry_after", "")),
            detail=detail,
            retry_url=self.answers.start_url(return_to),
        )


def _retry_after(seconds: str) -> dict[str, str]:
    return {"Retry-After": seconds} if seconds else {}


def outcome_codec(keys: KeyRing) -> Codec[SessionRecord]:
    """Return the stored form of a login's outcome, for a repeated last step."""
    return Codec(keys, SessionRecord.to_bytes, SessionRecord.from_bytes, lambda record: record.sub)


def check_page(context: RequestContext, *, framed: bool = False) -> None:
    """Raise LoginRefused unless a page is opened; for other requests, a script could read the URL.

    `framed`: it may also be a frame in a page of the same site.
    """
    if not opens_page(context.head.fields.headers, framed=framed):
        raise LoginRefused(Reason.LOGIN_NOT_A_PAGE)
