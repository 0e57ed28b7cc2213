"""The admin page as the tool of a route: the operator, and what they may do there."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple, Protocol

from aiohttp import web

from tailchat_gate.access.policy import Rule, decide
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.identifier import TOKEN
from tailchat_gate.endpoints.access import is_fresh
from tailchat_gate.endpoints.form_outcome import SealedOutcomes
from tailchat_gate.endpoints.form_tokens import FormTokens
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import Sites
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.responses.answers import Answers


class Operator(NamedTuple):
    """The user of the admin page, and what they may do there.

    `base` is the path of the page, without a slash at its end. `by` names the operator in the audit
    log, `who` on the page; `sub` is the person's, "" for others. `csrf` is the token of forms.
    `is_known`: whether they may give orders; `changes_people`: also orders about people.
    `approves`: whether they may decide requests; `approvers_unknown`: whether that is unknown,
    because Tailchat has not answered lately. `fresh_url` is where to sign in with the password, ""
    if that is not needed; `password_known`: whether Tailchat said when they last gave it.
    """

    base: str
    by: str
    who: str
    sub: str
    csrf: str
    is_known: bool
    changes_people: bool
    approves: bool
    approvers_unknown: bool
    fresh_url: str
    password_known: bool = True


class AdminRequest(NamedTuple):
    """A request for the admin page: its path after the base, and its query with the "?".

    `switch` is the path at which visitors choose their language. `holds` checks the token of a
    form. `origins` are those of the page; if empty, its origin is that of the Host field. `notes`
    seals the outcomes of orders for `reader`, a session or the listener.
    """

    method: str
    path: str
    query: str
    accept_language: str
    switch: str
    operator: Operator
    holds: Callable[[str], bool]
    origins: frozenset[str]
    notes: SealedOutcomes
    reader: str


class AdminPage(Protocol):
    """Serves the admin page."""

    async def answer(
        self, request: web.BaseRequest, admin_request: AdminRequest
    ) -> web.StreamResponse:
        """Return a response to be sent, or that of an event stream that has ended."""


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """Passes a route's requests to the admin page; `page` returns None before the start."""

    page: Callable[[], AdminPage | None]
    forms: FormTokens
    sites: Sites
    answers: Answers
    approvers: Rule
    clock: Callable[[], float]

    async def answer(
        self,
        request: web.BaseRequest,
        context: RequestContext,
        record: SessionRecord | None,
        route: RouteSettings,
    ) -> web.StreamResponse:
        """Return the response to a request that the rules let in; `record` is None for machines."""
        page = self.page()
        if page is None:
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE)
        base = route.path.rstrip("/")
        context.stream = context.path == f"{base}/events"
        # The origin as configured, and as requested, maybe with another port.
        scheme, host = context.client_address.scheme, context.head.fields.host
        asked_for = f"{scheme}://{host.raw.decode('ascii')}"
        admin_request = AdminRequest(
            context.method,
            context.path[len(base) :],
            context.target.query,
            self.answers.language(context),
            self.answers.switch,
            self._operator(context, record, base),
            lambda text: record is not None and self.forms.holds(text, record, context.host),
            frozenset((self.sites.origin(context.host), asked_for)),
            self.forms.notes,
            record.sid if record is not None else "",
        )
        return await page.answer(request, admin_request)

    def _operator(
        self, context: RequestContext, record: SessionRecord | None, base: str
    ) -> Operator:
        if record is None:
            name = f"{TOKEN}{context.token}"
            return Operator(
                *(base, name, name, "", ""),
                is_known=False,
                changes_people=False,
                approves=False,
                approvers_unknown=False,
                fresh_url="",
            )
        decision = decide((self.approvers,), record.sub)
        back = f"{self.sites.origin(context.host)}{base}/people"
        again = self.answers.start_url(back, prompt="login")
        return Operator(
            base,
            by=record.sub,
            who=f"{record.nickname}#{record.discriminator}",
            sub=record.sub,
            csrf=self.forms.token(record, context.host),
            is_known=True,
            changes_people=True,
            approves=decision.allowed,
            approvers_unknown=decision.reason is Reason.GROUPS_UNKNOWN,
            fresh_url="" if is_fresh(record, self.clock()) else again,
            password_known=record.password_at > 0,
        )
