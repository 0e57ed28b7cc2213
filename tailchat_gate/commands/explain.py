"""`explain`: what the gate does with a request, and by which rules."""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click

from tailchat_gate.access.policy import (
    AS_NOBODY,
    NO_GRANTS,
    NO_MEMBERS,
    NO_ROUTE,
    Decision,
    decide,
)
from tailchat_gate.access.routes import ExplainedMatch, Match, Route, RouteTable, explain_match
from tailchat_gate.authorizer import match_request
from tailchat_gate.commands.common import EXIT_FAILED, EXIT_USAGE, config_option, fail, loaded_from
from tailchat_gate.commands.explain_request import (
    Asked,
    NotAskedError,
    fates,
    field_lines,
    read_asked,
    read_field,
)
from tailchat_gate.commands.locks import end_text, locked
from tailchat_gate.commands.state import stored_of
from tailchat_gate.config.model import Settings
from tailchat_gate.config.values import identifier
from tailchat_gate.config.values.address import FilesAddress, StaticAddress, upstream_address
from tailchat_gate.config.values.identifier import no_tailchat_id
from tailchat_gate.endpoints.router import is_own
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.grants import GrantState
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.sessions.cookies import CookieReader
from tailchat_gate.identity.sessions.session import SessionRecord
from tailchat_gate.people.group_watch import fill_from
from tailchat_gate.people.members import Members
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders
from tailchat_gate.reasons import STATUS, Reason, RefusedError
from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.client import ClientResolver
from tailchat_gate.request.head import RequestHead
from tailchat_gate.serving.rooms import cookie_names, request_headers, route_table

#: Placeholders for the client's address (RFC 5737) and other values of a real request.
_ADDRESS: Final = "192.0.2.1"
_REQUEST_ID: Final = "0" * 24

_LOCKED: Final = Decision(allowed=False, reason=Reason.LOCKED)

Lines = list[str]


class Asker(NamedTuple):
    """The person `sub` or the machine `token` of the request; None and "" are anonymous.

    `lock` says that one of them is locked, "" if none is. `names` are the fields to explain.
    `grants` are those in force; `members` knows who is in groups by Tailchat's word.
    """

    sub: str | None = None
    token: str = ""
    lock: str = ""
    names: Sequence[bytes] = ()
    grants: GrantState = NO_GRANTS
    members: Members = NO_MEMBERS

    @property
    def admitted(self) -> str | None:
        """The person that the rules see: None if the person is locked."""
        return None if self.lock else self.sub


def explained(settings: Settings, asked: Asked, asker: Asker) -> tuple[bool, Lines]:
    """Return whether a request is let through, and the lines that explain why."""
    if isinstance(asked, RefusedError):
        return False, [_said("decision", _refusal(asked.reason)), _said("because of", str(asked))]
    lines = list(_request(settings, asked, asker))
    if is_own(asked.target.path, settings.server.prefix):
        return True, [*lines, _said("decision", f"{Reason.OWN_PATH}, answered by the gate itself")]
    table = route_table(settings, asker.members, asker.grants)
    try:
        match, decision = _decided(table, asked, asker)
        lines += _rules(table, asked, match)
        lines += _grants(asker)
        if settings.access.deny:
            lines.append(_said("on all", f"deny {', '.join(settings.access.deny)}"))
    except RefusedError as refused:
        refusal = _said("decision", _refusal(refused.reason))
        return False, [*lines, refusal, _said("because of", str(refused))]
    if match is not None:
        lines += _fates(settings, asked, match.route, asker.names)
    if match is None or not decision.allowed:
        lines.append(_said("decision", _refusal(decision.reason)))
        if decision is _LOCKED:
            lines.append(_said("because of", asker.lock))
        return False, lines
    nobody = ", as nobody" if decision is AS_NOBODY and (asker.sub or asker.token) else ""
    lines.append(_said("decision", f"let through: {decision.reason}{nobody}"))
    lines.append(_said("upstream", match.route.settings.upstream_text))
    lines += _rates(settings, match.route, asker)
    if _has_tool(match.route):
        who = None if decision is AS_NOBODY else _who(asker.sub, asker.token)
        lines += ["", *_sent(settings, asked, match.route, who, asker.members)]
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
    yield from (_said("rate", f"{rate} {whose}") for rate, whose in rates if rate)


def _has_tool(route: Route) -> bool:
    address = upstream_address(route.settings.backends[0])
    return not isinstance(address, StaticAddress | FilesAddress)


def _fates(
    settings: Settings, asked: RequestHead, route: Route, names: Sequence[bytes]
) -> Iterator[str]:
    """Yield lines about what happens to the named fields."""
    if names and not _has_tool(route):
        yield _said("header", "none is passed on: the gate itself serves this route")
        return
    headers = request_headers(settings, CookieReader(cookie_names(settings)))
    for fate in fates(headers, names, asked.fields, route.settings):
        yield _said("header", fate)


def _decided(table: RouteTable, asked: RequestHead, asker: Asker) -> tuple[Match | None, Decision]:
    match = match_request(table, asked.fields, asked.fields.host.name, asked.method, asked.target)
    if asker.token and asker.lock:
        return match, _LOCKED
    decision = decide(match.rules, asker.admitted, asker.token) if match else NO_ROUTE
    if asker.lock and decision.reason is Reason.NOT_SIGNED_IN:
        # The gate's reason for a session that a lock has closed.
        decision = _LOCKED
    if match and decision.allowed and not match.route.passes_on(asked.method):
        decision = Decision(allowed=False, reason=Reason.METHOD_REFUSED)
    return match, decision


def _request(settings: Settings, asked: RequestHead, asker: Asker) -> Iterator[str]:
    host = asked.fields.host.raw.decode("ascii")
    yield _said("request", f"{asked.method} {asked.target.raw.decode('ascii')} on {host}")
    who = f"the machine {asker.token}" if asker.token else "nobody"
    if asker.sub is not None:
        groups = IdentityHeaders(settings.groups, members=asker.members).groups_of(asker.sub)
        who = f"{asker.sub}, in {', '.join(groups) or 'no group'}"
        if unknown := ", ".join(sorted(asker.members.unknown.difference(groups))):
            who += f"; Tailchat has not said lately whether in {unknown}"
    yield _said("asked by", f"{who}; {asker.lock}" if asker.lock else who)


def _rules(table: RouteTable, asked: RequestHead, match: Match | None) -> Iterator[str]:
    """Yield lines about the matching route and the rules of each reading of the path."""
    host, path = asked.fields.host.name, asked.target.path
    yield _said("route", _route_line(match.route) if match else "none")
    claimed = claimed_methods(asked.fields, asked.target.query) if table.names_methods else ()
    for found in explain_match(table, host, path, (asked.method, *sorted(claimed))):
        yield from _asks(found, path, asked.method)


def _grants(asker: Asker) -> Iterator[str]:
    for grant in asker.grants.of(asker.sub) if asker.sub else ():
        reason = f": {grant.reason}" if grant.reason else ""
        yield _said("grant", f"{grant.route}, {end_text(grant.until)}{reason}")


def _asks(found: ExplainedMatch, path: str, method: str) -> Iterator[str]:
    # A reading is decoded from typed text and may contain terminal controls.
    reading = found.reading.encode("unicode_escape").decode("ascii")
    seen = f", read as {reading}" if found.reading != path else ""
    if found.method != method:
        seen += f", taken for {found.method}"
    if not found.routes:
        why = "that leads to no route, or out of its own" if seen else "no route is there"
        yield _said("rule", f"nobody{seen}: {why}")
    for route in found.routes:
        settings = route.settings
        if not found.taken:
            yield _said("rule", f"{route.name}{seen}: takes {', '.join(settings.methods)} alone")
            continue
        denied = f"; deny {', '.join(settings.deny)}" if settings.deny else ""
        yield _said("rule", f"{route.name}{seen}: allow {', '.join(settings.allow)}{denied}")


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
    asked: RequestHead,
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
        asked,
        route.upstream_target(asked.target.raw),
        client=client.direct(_ADDRESS),
        settings=route.settings,
        request_id=_REQUEST_ID,
        identity=identity,
        upgrade=False,
    )
    return head.decode("utf-8", "backslashreplace").rstrip().split("\r\n")


def _refusal(reason: Reason) -> str:
    page = ", or the sign-in for a page" if reason is Reason.NOT_SIGNED_IN else ""
    return f"refused: {reason}, {STATUS[reason].value}{page}"


def _said(what: str, text: str) -> str:
    return f"{what + ':':<11} {text}"


def _sub(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is None or identifier.is_person_name(value):
        return value
    # As `lock` and allow lists write it; the page shows only the id.
    sub = value.removeprefix(identifier.SUB)
    _entry(identifier.SUB + sub, identifier.SUBS)
    return sub


def _token(_context: click.Context, _option: click.Parameter, value: str) -> str:
    name = value.removeprefix(identifier.TOKEN)
    if value:
        _entry(identifier.TOKEN + name, "the name of a token, as in token:NAME")
    return name


def _fields(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> list[tuple[bytes, bytes | None]]:
    try:
        return [read_field(value) for value in values]
    except ValueError as wrong:
        raise click.BadParameter(str(wrong)) from None


def _entry(entry: str, expected: str) -> None:
    try:
        identifier.deny_entry(entry)
    except ValueError:
        raise click.BadParameter(f"expected {expected}") from None


@click.command()
@config_option
@click.argument("url")
@click.option(
    "--as",
    "sub",
    metavar="SUB",
    callback=_sub,
    help="Who asks: an ID, or a name such as Name#2114; left out, nobody.",
)
@click.option("--token", metavar="NAME", default="", callback=_token, help="The machine that asks.")
@click.option("--method", "-X", metavar="METHOD", default="GET", show_default=True)
@click.option(
    "--header",
    "typed",
    metavar="NAME[=VALUE]",
    multiple=True,
    callback=_fields,
    help="A header of the request; the output says whether the tool gets it. Can be repeated.",
)
def explain(
    config: Path,
    url: str,
    sub: str | None,
    token: str,
    method: str,
    typed: list[tuple[bytes, bytes | None]],
) -> None:
    """Explain a request for URL: its route, rules and decision, and what the tool gets.

    This looks up locks, grants and the members of Tailchat's groups in the stored state, but not
    ended sessions.

    Exit codes: 0 it is let through, 1 it is refused, 2 wrong configuration or usage.
    """
    if sub is not None and token:
        fail("--as or --token: who shows a token is a machine, signed in or not", EXIT_USAGE)
    settings = loaded_from(config).settings
    if sub is not None and identifier.is_person_name(sub):
        from tailchat_gate.commands.people import known_person  # noqa: PLC0415 - for names alone

        sub = known_person(settings, sub)
    if token and token not in {known.name for known in settings.token}:
        warning = f"no [[token]] has the name {token}: such a token is refused as token-unknown"
        click.echo(f"warning: {warning}", err=True)
    if sub is not None and (odd := no_tailchat_id(sub)):
        click.echo(f"warning: {odd}: nobody signs in as that", err=True)
    try:
        asked: Asked = read_asked(url, method, settings, field_lines(typed))
    except NotAskedError as error:
        fail(str(error), EXIT_USAGE)
    stored = stored_of(settings)
    lock = locked(stored.revocation, sub, token)
    names = [name for name, _ in typed]
    members = Members(settings.groups)
    when = time.time(), settings.tailchat.groups_max_age
    fill_from(members, settings.groups, stored.memberships, when)
    asker = Asker(sub, token, lock, names, stored.grants, members)
    allowed, lines = explained(settings, asked, asker)
    for line in lines:
        click.echo(line)
    if not allowed:
        raise SystemExit(EXIT_FAILED)
