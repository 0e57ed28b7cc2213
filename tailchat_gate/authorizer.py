"""Who sent a request and whether it may pass: requests, upgrades and forward-auth alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tailchat_gate.access.browser_origin import changes_something, is_foreign
from tailchat_gate.access.claimed_paths import AS_SENT, ClaimingRequest, judge_claims
from tailchat_gate.access.policy import (
    AS_NOBODY,
    PREFLIGHT,
    Decision,
    decide,
    takes_preflights,
)
from tailchat_gate.access.rates import RequestRates
from tailchat_gate.access.routes import Match, Route, RouteTable
from tailchat_gate.config.values.identifier import TOKEN
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.host_sessions import HostSession, HostSessions
from tailchat_gate.identity.machine_tokens import Machine, TokenRefused, Tokens
from tailchat_gate.identity.revocation.state import Rejection, SessionHolder
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import Sites
from tailchat_gate.observe.audit import Audit, Person
from tailchat_gate.reasons import BLOCKED, Reason, RefusedError
from tailchat_gate.request.authorization import TokenWay
from tailchat_gate.request.claims import claimed_methods, claimed_paths
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.intent import is_frame, is_preflight
from tailchat_gate.request.target import Host, Target
from tailchat_gate.verdict import Verdict

#: Refusals that depend on who the person or machine is; only these go into the audit log.
_ABOUT_WHO: Final = frozenset(
    (
        *(Reason.CLAIM_REFUSED, Reason.DENIED, Reason.DENY_LISTED, Reason.LOCKED),
        *(Reason.TOKEN_ELSEWHERE, Reason.TOKEN_EXPIRED),
        *BLOCKED,
    )
)
_CLAIM_REFUSED: Final = Decision(allowed=False, reason=Reason.CLAIM_REFUSED)


@dataclass(frozen=True, slots=True)
class Authorizer:
    """Judges requests by the routes, sessions and tokens of one configuration."""

    routes: RouteTable
    sites: Sites
    sessions: HostSessions
    tokens: Tokens
    audit: Audit
    rates: RequestRates | None = None

    def judge(self, context: RequestContext, host: Host, method: str, target: Target) -> Verdict:
        """Decide whether a request may reach a target; note the person and reason on `context`.

        `host`, `method` and `target` are those of the request itself, or of the one that a proxy
        in front asks about; its method is "" if unknown. Raises RefusedError for a path with too
        many readings and for fields that name a path without a rule, after noting the person on
        the context. Raises UndecidedError where Tailchat has to be asked first.
        """
        try:
            verdict = self._judge(context, host, method, target)
        except RefusedError as refused:
            self._note_refused(context, host, refused.reason)
            raise
        if self.rates is None or not verdict.allowed or not (wait := self.rates.enter(context)):
            return verdict
        context.reason = Reason.RATE_LIMITED
        rejection = Rejection(context.reason, None, None, wait)
        return verdict.refused(rejection)

    def _judge(self, context: RequestContext, host: Host, method: str, target: Target) -> Verdict:
        self.routes.meter.asker = context
        match = match_request(self.routes, context.head.fields, host.name, method, target)
        host_session = self.sessions.at(host.name)
        context.route = match.route.name if match else ""
        fields = context.head.fields
        if fields.bearer is not None:
            verdict = self._judge_machine(context, match, host_session, method, target)
            elsewhere = fields.token_way is TokenWay.BASIC and fields.other_page
            if elsewhere and verdict.visitor is not None:
                # A browser sends Basic credentials by itself once it has them, as it does cookies.
                return self._unless_made_elsewhere(context, verdict, host, method, target)
            return verdict
        visitor = host_session.authenticator.visitor_of(fields)
        sub = visitor.record.sub if visitor else None
        decision, rewritten = decide(match.rules if match else (), sub), AS_SENT
        if match is not None and decision.allowed and claimed_paths(fields):
            decision, rewritten = self._decide_with_claims(context, match, method, target, sub)
        if not decision.allowed and is_preflight(method, fields):
            # A preflight is anonymous; fields that claim another method or path make it something
            # else for the tool.
            claims = claimed_methods(fields, target.query) or claimed_paths(fields)
            if not claims and takes_preflights(match.rules if match else ()):
                decision = PREFLIGHT
        context.sub = sub or ""
        context.reason = decision.reason
        if not decision.allowed:
            rejection = self._refused(context, visitor, host_session)
            return Verdict(decision.allowed, match, visitor, host_session, rejection, rewritten)
        if decision is AS_NOBODY or decision is PREFLIGHT:
            visitor = None
        # By position, because a keyword makes a dict for each request.
        verdict = Verdict(decision.allowed, match, visitor, host_session, None, rewritten)
        if visitor is not None and (fields.other_page or visitor.record.embedded):
            # The author of that page made the visitor's browser send the cookie.
            return self._unless_made_elsewhere(context, verdict, host, method, target)
        return verdict

    def _unless_made_elsewhere(
        self, context: RequestContext, verdict: Verdict, host: Host, method: str, target: Target
    ) -> Verdict:
        """Refuse an unsafe request that a page of a foreign origin made; else return `verdict`."""
        fields, match = context.head.fields, verdict.match
        claimed = claimed_methods(fields, target.query)
        has_origin = bool(fields.values(b"origin"))
        unsafe = changes_something(method, claimed, has_origin=has_origin)
        if not verdict.allowed or match is None:
            return verdict
        record = verdict.record
        if record is not None and record.embedded:
            # The page around the frame can make the browser send this cookie too, so only showing
            # the frame, and the frame's own requests, count as the visitor's.
            unsafe = unsafe or not is_frame(method, fields.headers)
            if not match.route.settings.embed:
                context.reason = Reason.CROSS_ORIGIN
                return verdict.refused(verdict.rejection)
        if unsafe and self._is_foreign(context, host, match.route):
            context.reason = Reason.CROSS_ORIGIN
            return verdict.refused(verdict.rejection)
        return verdict

    def _decide_with_claims(
        self,
        context: RequestContext,
        match: Match,
        method: str,
        target: Target,
        sub: str | None,
        token: str = "",
    ) -> tuple[Decision, Mapping[bytes, bytes]]:
        """Decide by the rules of the requested path and of the paths that request fields name.

        Return the decision and the fields to rewrite. Raises RefusedError for a path without a
        rule.
        """
        fields = context.head.fields
        original = context.original
        host = original.host if original else fields.host
        request = ClaimingRequest(
            host,
            target,
            claimed_methods(fields, target.query) | {method},
            forwarded=original is None,
            public_port=self.sites.port(host.name),
        )
        claimed = judge_claims(self.routes, match, fields, claimed_paths(fields), request)
        with_claims = decide((*match.rules, *claimed.rules), sub, token)
        return with_claims if with_claims.allowed else _CLAIM_REFUSED, claimed.values

    def _judge_machine(
        self,
        context: RequestContext,
        match: Match | None,
        host_session: HostSession,
        method: str,
        target: Target,
    ) -> Verdict:
        """Judge a request with a machine token, which counts even beside a session cookie."""
        machine: Machine | None = None
        rewritten: Mapping[bytes, bytes] = AS_SENT
        rejection: Rejection | None = None
        try:
            machine = self.tokens.machine_of(context.head.fields)
        except TokenRefused as refused:
            allowed, context.reason, context.token = False, refused.reason, refused.name
            rejection = Rejection(refused.reason, None, refused.lock) if refused.lock else None
        else:
            name, fields = machine.name, context.head.fields
            decision = decide(match.rules if match else (), None, name)
            if match is not None and decision.allowed and claimed_paths(fields):
                decided = self._decide_with_claims(context, match, method, target, None, name)
                decision, rewritten = decided
            allowed, context.reason, context.token = decision.allowed, decision.reason, name
            if decision is AS_NOBODY:
                machine = None
        if context.token and context.reason in _ABOUT_WHO:
            self.audit.refused(context, Person(f"{TOKEN}{context.token}", "", ""))
        return Verdict(allowed, match, machine, host_session, rejection, rewritten)

    def _refused(
        self, context: RequestContext, visitor: Visitor | None, host_session: HostSession
    ) -> Rejection | None:
        """Note who was refused; return the rejection if an invalid session is the cause."""
        person = visitor.record if visitor is not None else None
        rejection = None
        if context.reason is Reason.NOT_SIGNED_IN:
            rejection = host_session.authenticator.explain_rejection(context.head.fields)
        if rejection is not None:
            context.reason = rejection.reason
            if (person := rejection.record) is not None:
                context.sub = person.sub
        if person is not None and context.reason in _ABOUT_WHO:
            self.audit.refused(context, person_of(person))
        return rejection

    def judge_again(self, context: RequestContext, holder: SessionHolder | None) -> Reason | None:
        """Return why a request under way would be refused now, None where it may go on.

        `context` may be of an earlier configuration; `holder` is the session or token that let the
        request in. This checks only whether the current configuration still accepts it: expiry,
        sign-out and locks are checked elsewhere.
        """
        head, fields = context.head, context.head.fields
        sub: str | None = None
        token, refused = "", None
        self.routes.meter.asker = None
        try:
            match = match_request(self.routes, fields, fields.host.name, head.method, head.target)
        except RefusedError as error:
            return error.reason
        if match is not None and match.route.settings.outlive:
            return None
        if isinstance(holder, Machine):
            token, refused = holder.name, self.tokens.judge_again(holder)
        elif isinstance(holder, Visitor):
            sub, authenticator = holder.record.sub, self.sessions.at(fields.host.name).authenticator
            if not authenticator.opens(fields, holder.record):
                refused = Reason.NOT_SIGNED_IN
            elif holder.record.embedded and match is not None and not match.route.settings.embed:
                refused = Reason.CROSS_ORIGIN
        return refused or self._lost_right(context, match, sub, token)

    def _lost_right(
        self, context: RequestContext, match: Match | None, sub: str | None, token: str
    ) -> Reason | None:
        fields, method, target = context.head.fields, context.method, context.target
        if sub is None and not token and is_preflight(method, fields):
            return None
        decision = decide(match.rules if match else (), sub, token)
        if match is not None and decision.allowed and claimed_paths(fields):
            try:
                decision, _ = self._decide_with_claims(context, match, method, target, sub, token)
            except RefusedError as error:
                return error.reason
        if decision is AS_NOBODY and (sub is not None or token):
            # A new request would be anonymous, but this one has already identified the person.
            return Reason.DENY_LISTED
        return None if decision.allowed else decision.reason

    def _note_refused(self, context: RequestContext, host: Host, reason: Reason) -> None:
        """Note, also in the audit log, who sent a request refused before any rule applied."""
        context.reason, fields = reason, context.head.fields
        person: Person | None = None
        if fields.bearer is not None:
            try:
                context.token = self.tokens.machine_of(fields).name
            except TokenRefused as refused:
                context.token = refused.name
            if context.token:
                person = Person(f"{TOKEN}{context.token}", "", "")
        elif (visitor := self.sessions.at(host.name).authenticator.visitor_of(fields)) is not None:
            context.sub, person = visitor.record.sub, person_of(visitor.record)
        if person is not None and reason in _ABOUT_WHO:
            self.audit.refused(context, person)

    def check_origin(self, context: RequestContext, host: Host, route: Route) -> None:
        """Raise RefusedError if a page of a foreign origin opens a WebSocket on `host`.

        A machine's token is exempt, since no page can make a browser send one. Basic credentials
        are not: a browser sends them by itself once it has them.
        """
        no_page = context.token and context.head.fields.token_way is not TokenWay.BASIC
        if not no_page and self._is_foreign(context, host, route):
            raise RefusedError("a WebSocket for a page of another origin", Reason.ORIGIN_REFUSED)

    def _is_foreign(self, context: RequestContext, host: Host, route: Route) -> bool:
        """Whether the page that sent the request is neither on this host nor in `origins`.

        The host's own origin is taken from Host and, since a proxy in front may drop the port, from
        the configuration.
        """
        fields = context.head.fields
        sites, origins = (
            [value.decode("latin-1") for value in fields.values(name)]
            for name in (b"sec-fetch-site", b"origin")
        )
        scheme = f"{context.client_address.scheme}://"
        own = {f"{scheme}{host.raw.decode('ascii')}"}
        if host.name == self.sites.public_host or self.sites.is_tool(host.name):
            own.update(
                origin for origin in (self.sites.origin(host.name),) if origin.startswith(scheme)
            )
        return is_foreign(sites, origins, own, route.settings.origins)


def match_request(
    routes: RouteTable, fields: FieldSection, host: str, method: str, target: Target
) -> Match | None:
    """Match a request by its own method and those its fields claim; None if no route serves it."""
    match = routes.match(host, target.path, method)
    if match is not None and routes.names_methods:
        claimed = claimed_methods(fields, target.query)
        if claimed:
            return routes.match_each(match, host, target.path, claimed)
    return match


def person_of(record: SessionRecord) -> Person:
    """Return the person of a session, for the audit log."""
    return Person(record.sub, record.nickname, record.discriminator)
