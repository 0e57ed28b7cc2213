"""Requests for access to a tool, and their approval: pages with forms, without scripts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote

from aiohttp import web

from tailchat_gate.access.policy import Rule, decide
from tailchat_gate.access.routes import RouteTable
from tailchat_gate.endpoints.form_outcome import FormOutcome
from tailchat_gate.endpoints.form_tokens import FormTokens, form_fields
from tailchat_gate.endpoints.login_answers import Targets
from tailchat_gate.identity.access_requests import (
    APPROVED,
    OPEN,
    AccessRequest,
    AccessRequests,
    TooManyRequestsError,
)
from tailchat_gate.identity.grants import Grant, Grants
from tailchat_gate.identity.host_sessions import HostSessions
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import Sites
from tailchat_gate.people.panel import Panel, plain
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import Intent, read_intent
from tailchat_gate.request.target import cookie_fields, query_pairs
from tailchat_gate.responses.refusals import Refusals
from tailchat_gate.syntax import CLOCK_SKEW, UNFIT_FOR_A_LINE

#: The most seconds since an approver gave Tailchat the password: neither a stolen cookie nor an
#: unattended browser is enough.
FRESH_SECONDS: Final = 3_600
#: The approver's choices, in seconds; "no" declines.
CHOICES: Final[Mapping[str, int]] = MappingProxyType(
    {"1h": 3_600, "8h": 28_800, "7d": 604_800, "no": 0}
)
_WAITING_FIELDS: Final = MappingProxyType({"Refresh": "15"})


class ApprovalDesk(NamedTuple):
    """The requests for access, and the rules about them.

    `approvers` lets approvers in; `askable` has the names of routes that people may ask for.
    """

    requests: AccessRequests
    approvers: Rule
    askable: frozenset[str]

    @property
    def open(self) -> list[AccessRequest]:
        """The open requests for routes that people may still ask for, the oldest first."""
        return [request for request in self.requests.open if request.route in self.askable]

    def waiting_for(self, sub: str) -> int:
        """Return the number of requests that a person can decide now."""
        if not decide((self.approvers,), sub).allowed:
            return 0
        return sum(request.sub != sub for request in self.open)


@dataclass(frozen=True, slots=True)
class AccessEndpoints:
    """The handlers of /oauth2/request and /oauth2/approvals for one configuration.

    `is_stored` returns whether the state store can store a decision.
    """

    refusals: Refusals
    sessions: HostSessions
    sites: Sites
    targets: Targets
    forms: FormTokens
    routes: RouteTable
    desk: ApprovalDesk
    grants: Grants
    is_stored: Callable[[], bool]
    panel: Panel
    prefix: str

    async def request(
        self, request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Take a request on POST; show its state on GET, and redirect to the tool once granted."""
        record = await self._record(request, context)
        if record is None:
            return self._not_signed_in(context)
        context.sub = record.sub
        fields = dict(query_pairs(context.target.query))
        if context.method == "POST":
            if not await self.forms.is_own(request, record, context.host):
                return self.refusals.failure(context, Reason.CROSS_ORIGIN)
            fields = await form_fields(request)
        route = fields.get("route", "")
        if route not in self.desk.askable:
            return self.refusals.failure(context, Reason.NO_ROUTE)
        back = self.targets.safe(fields.get("rd", "/"), context.host)
        if context.method == "POST":
            return await self._ask(context, record, route, back, _line(fields.get("reason", "")))
        return self._status(context, record, route, back)

    async def approvals(
        self, request: web.BaseRequest, context: RequestContext
    ) -> web.StreamResponse:
        """Show the open requests to an approver; decide one on POST."""
        record = await self._record(request, context)
        if record is None or self.sites.is_tool(context.host):
            return self._elsewhere(context)
        context.sub = record.sub
        refusal = self._no_approver(context, record)
        if refusal is not None:
            return refusal
        if context.method != "POST":
            return self._list(context, record)
        if not await self.forms.is_own(request, record, context.host):
            return self.refusals.failure(context, Reason.CROSS_ORIGIN)
        outcome = await self._decide(record, await form_fields(request))
        # A redirect, so that reloading the page does not decide again.
        query = self.forms.notes.query(record.sid, outcome)
        return self.refusals.answers.redirect(f"{self.prefix}/approvals?{query}", status=303)

    def _no_approver(
        self, context: RequestContext, record: SessionRecord
    ) -> web.StreamResponse | None:
        """Return the response to a person who may not approve, or not with this session."""
        if record.embedded:
            # Browsers also send its cookie with forms of the page around the frame.
            return self.refusals.failure(context, Reason.CROSS_ORIGIN)
        decision = decide((self.desk.approvers,), record.sub)
        if not decision.allowed:
            context.reason = decision.reason
            return self.refusals.refusal(context, record)
        if not is_fresh(record, self.sessions.clock()):
            return self._sign_in_again(context, dated=record.password_at > 0)
        return None

    async def _ask(
        self, context: RequestContext, record: SessionRecord, route: str, back: str, reason: str
    ) -> web.StreamResponse:
        rule = next(candidate.rule for candidate in self.routes.routes if candidate.name == route)
        if record.sub in rule.denied_subs:
            return self.refusals.denied(context, Reason.DENY_LISTED, record)
        known = self.desk.requests.of(record.sub, route)
        try:
            request = await self.desk.requests.ask(
                record, route, reason, partial(self._tell_full, route)
            )
        except TooManyRequestsError:
            return self._page(context, record, route, back, "too_many")
        if request is not known:
            self.panel.say("access-request", self._message(request), for_all=True)
        return self.refusals.answers.redirect(self._status_url(route, back), status=303)

    def _tell_full(self, route: str) -> None:
        url = f"{self.sites.public_url}{self.prefix}/approvals"
        tool = plain(self.refusals.answers.title(route))
        text = f"The list of requests for access is full, the last one is for {tool}"
        self.panel.say("access-requests-full", f"{text}\n{url}", for_all=True)

    def _message(self, request: AccessRequest) -> str:
        """Return the bot's message about a request; nothing in it is markup or a secret."""
        who = f"{plain(request.nickname)}#{plain(request.discriminator)}"
        why = f": {plain(request.reason)}" if request.reason else ""
        url = f"{self.sites.public_url}{self.prefix}/approvals"
        tool = plain(self.refusals.answers.title(request.route))
        return f"{who} asks for access to {tool}{why}\n{url}"

    def _status(
        self, context: RequestContext, record: SessionRecord, route: str, back: str
    ) -> web.StreamResponse:
        request = self.desk.requests.of(record.sub, route)
        granted = self.grants.state.has(record.sub, route)
        if granted or request is None or request.state == APPROVED:
            return self.refusals.answers.redirect(back, status=303)
        return self._page(context, record, route, back, request.state)

    def _page(
        self, context: RequestContext, record: SessionRecord, route: str, back: str, state: str
    ) -> web.StreamResponse:
        waits = state == OPEN
        return self.refusals.answers.page(
            context,
            "request",
            code=HTTPStatus.TOO_MANY_REQUESTS if state == "too_many" else HTTPStatus.OK,
            headers=_WAITING_FIELDS if waits else None,
            state=state,
            tool=self.refusals.answers.title(route),
            sub=record.sub,
            nickname=record.nickname,
            discriminator=record.discriminator,
            back_url=self._status_url(route, back) if waits else back,
        )

    def _status_url(self, route: str, back: str) -> str:
        """Return the URL of the page with a request's state."""
        return f"{self.prefix}/request?route={quote(route)}&rd={quote(back, safe='/')}"

    async def _decide(self, record: SessionRecord, fields: Mapping[str, str]) -> FormOutcome:
        """Decide a request, unless it is the approver's own or no longer open.

        It cannot be approved if a reload has closed its route to grants meanwhile.
        """
        request = self.desk.requests.find(fields.get("id", ""))
        seconds = CHOICES.get(fields.get("for", ""))
        if request is None or seconds is None:
            return FormOutcome("gone", {})
        if request.sub == record.sub:
            return FormOutcome("own", {})
        values = self._values(request)
        if seconds and request.route not in self.desk.askable:
            return FormOutcome("closed", values)
        now = self.sessions.clock()
        decision = Decided(request, seconds, record.sub)
        if not await decision.carry_out(self.desk.requests, self.grants, now):
            return FormOutcome("gone", {})
        stored = "" if self.is_stored() else "_unsaved"
        if not seconds:
            return FormOutcome(f"declined{stored}", values)
        return FormOutcome(f"approved{stored}", {**values, "until": int(now) + seconds})

    def _values(self, request: AccessRequest) -> dict[str, str | int]:
        who = f"{request.nickname}#{request.discriminator}" if request.nickname else request.sub
        return {"who": who, "tool": self.refusals.answers.title(request.route)}

    def _list(self, context: RequestContext, record: SessionRecord) -> web.StreamResponse:
        answers = self.refusals.answers
        outcome = self.forms.notes.read(record.sid, dict(query_pairs(context.target.query)))
        shown = [
            {
                **request.shown(),
                "tool": answers.title(request.route),
                "own": request.sub == record.sub,
            }
            for request in self.desk.open
        ]
        return answers.page(
            context,
            "approvals",
            requests=shown,
            csrf=self.forms.token(record, context.host),
            said=outcome.shown() if outcome else {},
        )

    def _sign_in_again(self, context: RequestContext, *, dated: bool) -> web.StreamResponse:
        """Ask an approver to sign in again with the password.

        `dated`: whether Tailchat said when they last gave it.
        """
        return self.refusals.answers.page(
            context, "sign_in_again", start_url=self._password_url(), dated=dated
        )

    def _password_url(self) -> str:
        """Return the URL of a login for which Tailchat asks for the password."""
        return self.refusals.answers.start_url(f"{self.prefix}/approvals", prompt="login")

    def _elsewhere(self, context: RequestContext) -> web.StreamResponse:
        """Redirect to the approvals page on the public host, or there to its sign-in."""
        if self.sites.is_tool(context.host):
            url = f"{self.sites.public_url}{self.prefix}/approvals"
            return self.refusals.answers.redirect(url, status=303)
        fields, authenticator = context.head.fields, self.sessions.at(context.host).authenticator
        rejection = authenticator.explain_rejection(fields)
        intent = read_intent(context.method, fields.headers)
        if rejection is None and intent is Intent.NAVIGATION:
            context.reason = Reason.NOT_SIGNED_IN
            return self.refusals.answers.redirect(self._password_url())
        return self.refusals.not_let_in(context, rejection)

    def _not_signed_in(self, context: RequestContext) -> web.StreamResponse:
        authenticator = self.sessions.at(context.host).authenticator
        return self.refusals.not_let_in(
            context, authenticator.explain_rejection(context.head.fields)
        )

    async def _record(
        self, request: web.BaseRequest, context: RequestContext
    ) -> SessionRecord | None:
        host_session = self.sessions.at(context.host)
        return await host_session.settled_record(cookie_fields(request.raw_headers))


def is_fresh(record: SessionRecord, now: float) -> bool:
    """Whether a person gave Tailchat their password shortly before the Unix second `now`."""
    return -CLOCK_SKEW <= now - record.password_at < FRESH_SECONDS


class Decided(NamedTuple):
    """A decision of the person `by` on a request: a grant for `seconds`, 0 declines."""

    request: AccessRequest
    seconds: int
    by: str

    async def carry_out(self, requests: AccessRequests, grants: Grants, now: float) -> bool:
        """Apply the decision and store it; return False if another approver has decided already.

        Shielded: a browser that disconnects must not cancel a decision that already applies.
        """
        return await asyncio.shield(asyncio.ensure_future(self._carry_out(requests, grants, now)))

    async def _carry_out(self, requests: AccessRequests, grants: Grants, now: float) -> bool:
        if not await requests.claim(self.request):
            return False
        request, writes = self.request, list[Awaitable[None]]()
        if self.seconds:
            end = int(now) + self.seconds
            grant = Grant(request.sub, request.route, int(now), end, request.reason, self.by)
            writes.append(grants.put(grant))
        writes.append(requests.decide(request, self.by, approved=self.seconds > 0))
        for write in writes:
            await write
        return True


def _line(text: str) -> str:
    """Return a typed text as one line without control characters."""
    return " ".join(UNFIT_FOR_A_LINE.sub(" ", text).split())
