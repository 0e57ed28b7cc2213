"""Explains what the gate does with a request, and why."""

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from tailchat_gate.access.policy import (
    AS_NOBODY,
    NO_GRANTS,
    NO_MEMBERS,
    NO_ROUTE,
    Decision,
    decide,
)
from tailchat_gate.access.remedies import RefusedRequest, Remedy, remedies
from tailchat_gate.access.routes import ExplainedMatch, Match, Route, RouteTable, explain_match
from tailchat_gate.authorizer import match_request
from tailchat_gate.config.model import Settings
from tailchat_gate.config.values.address import OwnAddress, upstream_address
from tailchat_gate.config.values.identifier import TOKEN
from tailchat_gate.config.values.quantities import end_text
from tailchat_gate.endpoints.router import is_own
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.grants import GrantState
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.revocation.state import Lock, RevocationState
from tailchat_gate.identity.sessions.cookie_fields import CookieReader
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import Sites
from tailchat_gate.people.groups.memberships import Members
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders
from tailchat_gate.reasons import STATUS, Reason, RefusedError
from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.head import RequestHead
from tailchat_gate.serving.explain_request import TypedRequest, fates
from tailchat_gate.serving.wiring.config_parts import cookie_names, request_headers, route_table
from tailchat_gate.syntax import READ_METHODS

#: Placeholders for the client's address (RFC 5737) and other values of a real request.
_ADDRESS: Final = "192.0.2.1"
_REQUEST_ID: Final = "0" * 24

Lines = list[str]


class Asker(NamedTuple):
    """The sender of the request: the person `sub` or the machine `token`, else anonymous.

    `lock` is the one that applies to the sender. `names` are the fields to explain. `grants` are
    those in force. `members` knows who is in the groups that Tailchat defines; `about_groups` is a
    warning about them, or "".
    """

    sub: str | None = None
    token: str = ""
    lock: Lock | None = None
    names: Sequence[bytes] = ()
    grants: GrantState = NO_GRANTS
    members: Members = NO_MEMBERS
    about_groups: str = ""

    @property
    def admitted(self) -> str | None:
        """The person that the rules see: None if the person is locked."""
        return None if self.lock else self.sub


def explained(
    settings: Settings, request: TypedRequest, asker: Asker, table: RouteTable | None = None
) -> tuple[bool, Lines]:
    """Return whether a request is let through, and the lines that explain why.

    `table` is built from `settings` if it is not given.
    """
    if isinstance(request, RefusedError):
        return False, [
            _line("decision", _refusal(request.reason)),
            _line("because of", str(request)),
        ]
    lines = list(_request(settings, request, asker))
    if is_own(request.target.path, settings.server.prefix):
        return True, [*lines, _line("decision", f"{Reason.OWN_PATH}, answered by the gate itself")]
    table = table or route_table(settings, asker.members, asker.grants)
    try:
        match, decision = _decided(table, request, asker)
        lines += _rules(table, request, match)
        lines += _grants(asker)
        if settings.access.deny:
            lines.append(_line("on all", f"deny {', '.join(settings.access.deny)}"))
    except RefusedError as refused:
        refusal = _line("decision", _refusal(refused.reason))
        return False, [*lines, refusal, _line("because of", str(refused))]
    if match is not None:
        lines += _fates(settings, request, match.route, asker.names)
    if match is None and _is_front_door(settings, table, request, asker):
        lines.append(_line("decision", _at_front_door(settings, asker)))
        return False, lines
    if match is None or not decision.allowed:
        lines.append(_line("decision", _refusal(decision.reason)))
        if asker.lock is not None and decision.reason is asker.lock.reason:
            lines.append(_line("because of", _lock_line(asker.lock)))
        return False, lines
    nobody = ", as nobody" if decision is AS_NOBODY and (asker.sub or asker.token) else ""
    lines.append(_line("decision", f"let through: {decision.reason}{nobody}"))
    lines.append(_line("upstream", match.route.settings.upstream_text))
    lines += _rates(settings, match.route, asker)
    if _has_tool(match.route):
        who = None if decision is AS_NOBODY else _who(asker.sub, asker.token)
        lines += ["", *_sent(settings, request, match.route, who, asker.members)]
    return True, lines


def _rates(settings: Settings, route: Route, asker: Asker) -> Iterator[str]:
    """Yield a line about each rate that the request counts for."""
    limits, of_route = settings.limits, f"of route {route.settings.name}"
    rates = (
        (limits.requests_per_token if asker.token else "", f"of the machine {asker.token}"),
        (limits.requests_per_person if asker.sub else "", f"of {asker.sub}"),
        (route.settings.rate_per_client, f"{of_route}, for each client"),
        (route.settings.rate, f"{of_route}, for all together"),
    )
    yield from (_line("rate", f"{rate} {whose}") for rate, whose in rates if rate)


def _has_tool(route: Route) -> bool:
    address = upstream_address(route.settings.backends[0])
    return not isinstance(address, OwnAddress)


def _fates(
    settings: Settings, request: RequestHead, route: Route, names: Sequence[bytes]
) -> Iterator[str]:
    """Yield lines about what happens to the named fields."""
    if names and not _has_tool(route):
        yield _line("header", "none is passed on: the gate itself serves this route")
        return
    headers = request_headers(settings, CookieReader(cookie_names(settings)))
    for fate in fates(headers, names, request.fields, route.settings):
        yield _line("header", fate)


def _decided(
    table: RouteTable, request: RequestHead, asker: Asker
) -> tuple[Match | None, Decision]:
    match = match_request(
        table, request.fields, request.fields.host.name, request.method, request.target
    )
    if asker.token and asker.lock:
        return match, Decision(allowed=False, reason=asker.lock.reason)
    decision = decide(match.rules, asker.admitted, asker.token) if match else NO_ROUTE
    if asker.lock and decision.reason is Reason.NOT_SIGNED_IN:
        # The gate's reason for a session that a lock has closed, and for a lock on all.
        decision = Decision(allowed=False, reason=asker.lock.reason)
    if match and decision.allowed and not match.route.passes_on(request.method):
        decision = Decision(allowed=False, reason=Reason.METHOD_REFUSED)
    return match, decision


def lets_in(
    settings: Settings, request: TypedRequest, asker: Asker, table: RouteTable
) -> tuple[Remedy, ...]:
    """Return the changes that would let a refused person or machine in."""
    if isinstance(request, RefusedError) or not (asker.sub or asker.token):
        return ()
    try:
        reason = _decided(table, request, asker)[1].reason
    except RefusedError as error:
        reason = error.reason
    who = f"{TOKEN}{asker.token}" if asker.token else str(asker.sub)
    host, path = request.fields.host.name, request.target.path
    refused = RefusedRequest(who, reason, host, path, request.method, asker.lock)
    return remedies(settings, table, refused)


def remedy_line(remedy: Remedy) -> str:
    """Return the line of an explanation about a remedy."""
    return _line("lets in", f"{remedy.table}: {remedy.line}" if remedy.table else remedy.line)


def _request(settings: Settings, request: RequestHead, asker: Asker) -> Iterator[str]:
    host = request.fields.host.raw.decode("ascii")
    yield _line("request", f"{request.method} {request.target.raw.decode('ascii')} on {host}")
    who = f"the machine {asker.token}" if asker.token else "nobody"
    if asker.sub is not None:
        groups = IdentityHeaders(settings.groups, members=asker.members).groups_of(asker.sub)
        who = f"{asker.sub}, in {', '.join(groups) or 'no group'}"
        if unknown := ", ".join(sorted(asker.members.unknown.difference(groups))):
            who += f"; Tailchat has not said lately whether in {unknown}"
    yield _line("asked by", f"{who}; {_lock_line(asker.lock)}" if asker.lock else who)
    if asker.about_groups:
        yield _line("groups", asker.about_groups)


def _rules(table: RouteTable, request: RequestHead, match: Match | None) -> Iterator[str]:
    """Yield lines about the matching route and the rules of each reading of the path."""
    host, path = request.fields.host.name, request.target.path
    yield _line("route", _route_line(match.route) if match else "none")
    claimed = claimed_methods(request.fields, request.target.query) if table.names_methods else ()
    for explained_match in explain_match(table, host, path, (request.method, *sorted(claimed))):
        yield from _asks(explained_match, path, request.method)


def _grants(asker: Asker) -> Iterator[str]:
    for grant in asker.grants.of(asker.sub) if asker.sub else ():
        reason = f": {grant.reason}" if grant.reason else ""
        yield _line("grant", f"{grant.route}, {end_text(grant.until)}{reason}")


def _asks(match: ExplainedMatch, path: str, method: str) -> Iterator[str]:
    # A reading is decoded from typed text and may contain control characters of terminals.
    reading = match.reading.encode("unicode_escape").decode("ascii")
    seen = f", read as {reading}" if match.reading != path else ""
    if match.method != method:
        seen += f", taken for {match.method}"
    if not match.routes:
        why = "that leads to no route, or out of its own" if seen else "no route is there"
        yield _line("rule", f"nobody{seen}: {why}")
    for route in match.routes:
        settings = route.settings
        if not match.taken:
            yield _line("rule", f"{route.name}{seen}: takes {', '.join(settings.methods)} alone")
            continue
        denied = f"; deny {', '.join(settings.deny)}" if settings.deny else ""
        yield _line("rule", f"{route.name}{seen}: allow {', '.join(settings.allow)}{denied}")


def _route_line(route: Route) -> str:
    settings = route.settings
    methods = ", ".join(settings.methods) or "any method"
    return f"{route.name}: {settings.host or 'any host'}, {settings.path}, {methods}"


def _who(sub: str | None, token: str) -> Visitor | Machine | None:
    """Return the visitor, with placeholders for values that only a sign-in provides."""
    if token:
        return Machine(token, math.inf)
    if sub is None:
        return None
    profile = Profile(sub, "<nickname>", "<discriminator>", "<avatar>")
    return Visitor(SessionRecord.begin(profile, now=0, login=""), 0, 0, email="<email>")


def _sent(
    settings: Settings,
    request: RequestHead,
    route: Route,
    who: Visitor | Machine | None,
    members: Members,
) -> Lines:
    """Return the request head that the tool gets, if a client sends Host and the named fields."""
    server = settings.server
    client = ClientResolver((), default_scheme=server.public_url.partition(":")[0])
    identity = b""
    if who is not None:
        identity = IdentityHeaders(settings.groups, members=members).fields(who, route)
        if settings.assertion.key_files and route.settings.assertion:
            identity += b"X-Tailchat-Assertion: <signed>\r\n"
    reader = CookieReader(cookie_names(settings))
    head = request_headers(settings, reader).head(
        request,
        route.upstream_target(request.target.raw),
        address=client.direct(_ADDRESS),
        settings=route.settings,
        request_id=_REQUEST_ID,
        identity=identity,
        upgrade=False,
    )
    return head.decode("utf-8", "backslashreplace").rstrip().split("\r\n")


def _refusal(reason: Reason, page: str = "") -> str:
    page = page or (", or the sign-in for a page" if reason is Reason.NOT_SIGNED_IN else "")
    return f"refused: {reason}, {STATUS[reason].value}{page}"


def _is_front_door(
    settings: Settings, table: RouteTable, request: RequestHead, asker: Asker
) -> bool:
    """Whether browsers get the launcher where no route is, as `Refusals.at_front_door` says."""
    sites = Sites(settings.server.public_url, table.hosts)
    known = sites.is_known(request.fields.host.name)
    is_read = request.method in READ_METHODS
    return request.target.path == "/" and known and is_read and not asker.token


def _at_front_door(settings: Settings, asker: Asker) -> str:
    reason = Reason.NO_ROUTE if asker.admitted else Reason.NOT_SIGNED_IN
    if asker.lock is not None:
        reason = asker.lock.reason
    return _refusal(reason, f", or the launcher, {settings.server.prefix}/, for a page")


def _line(what: str, text: str) -> str:
    return f"{what + ':':<11} {text}"


def _lock_line(lock: Lock) -> str:
    return f"{lock.target} is locked {end_text(lock.until)}"


def lock_on(in_force: RevocationState, sub: str | None, token: str) -> Lock | None:
    """Return the lock on a person, a machine or everybody, None if there is none."""
    return in_force.lock_on_token(token) if token else in_force.lock_on(sub or "")
