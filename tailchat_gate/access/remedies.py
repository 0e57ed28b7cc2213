"""Finds what would let a refused person or machine in: a line of the configuration or a command."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from tailchat_gate.access.policy import decide
from tailchat_gate.access.route import Route
from tailchat_gate.access.routes import RouteTable, explain_match
from tailchat_gate.config.model import Settings
from tailchat_gate.config.tables.admin_page import takes_grants
from tailchat_gate.config.values.group import Group
from tailchat_gate.config.values.identifier import GROUP, SUB, TOKEN
from tailchat_gate.identity.revocation.state import Lock
from tailchat_gate.reasons import BLOCKED, Reason, RefusedError


class Remedy(NamedTuple):
    """A line that lets a person or machine in: for the `table` of the file, "" for a command."""

    table: str
    line: str


class RefusedRequest(NamedTuple):
    """A refused person (`sub`) or machine (`token:NAME`), and the refused request."""

    who: str
    reason: str
    host: str
    path: str
    method: str = "GET"
    lock: Lock | None = None


#: Refusals that only depend on the rules, the locks and what Tailchat says about the account.
_EXPLAINED: Final = BLOCKED | {
    *(Reason.DENIED, Reason.DENY_LISTED, Reason.GROUPS_UNKNOWN, Reason.LOCKED),
    *(Reason.MAINTENANCE, Reason.TOKEN_ELSEWHERE, Reason.TOKEN_EXPIRED, Reason.TOKEN_UNKNOWN),
}


def reason_now(table: RouteTable, refused: RefusedRequest, blocked: str | None) -> str | None:
    """Return why the same request would be refused now, None if it would be let in.

    `blocked` is a reason that holds whatever the rules say, None if there is none.
    """
    if refused.reason not in _EXPLAINED:
        return refused.reason
    if refused.lock is not None:
        return refused.lock.reason
    if blocked is not None:
        return blocked
    try:
        match = table.match(refused.host, refused.path, refused.method)
    except RefusedError as error:
        return error.reason
    if match is None:
        return Reason.NO_ROUTE
    decision = decide(match.rules, *_sub_and_token(refused.who))
    return None if decision.allowed else decision.reason


def remedies(settings: Settings, table: RouteTable, refused: RefusedRequest) -> tuple[Remedy, ...]:
    """Return what would let them in, () if only Tailchat can."""
    return tuple(dict.fromkeys(_remedies(settings, table, refused)))


def _remedies(settings: Settings, table: RouteTable, refused: RefusedRequest) -> Iterator[Remedy]:
    match refused.reason:
        case Reason.LOCKED | Reason.MAINTENANCE if refused.lock is not None:
            yield Remedy("", f"tailchat-gate unlock {refused.lock.target}")
        case Reason.DENIED | Reason.TOKEN_ELSEWHERE:
            for route in _refusing(table, refused):
                yield from _allowing(settings, route, refused.who)
        case Reason.DENY_LISTED:
            for route in _met(table, refused):
                yield from _undenying(
                    settings, f"[[route]] {route.name}", route.settings.deny, refused.who
                )
            yield from _undenying(settings, "[access]", settings.access.deny, refused.who)
        case Reason.TOKEN_EXPIRED:
            name = refused.who.removeprefix(TOKEN)
            yield Remedy("", f"tailchat-gate token {name}")
        case Reason.GUEST_REFUSED | Reason.BOT_REFUSED:
            yield Remedy("[access]", "guests = true")


def _met(table: RouteTable, refused: RefusedRequest) -> Iterator[Route]:
    """Yield the routes whose rules apply to the request."""
    try:
        matches = explain_match(table, refused.host, refused.path, (refused.method,))
    except RefusedError:
        return
    for match in matches:
        yield from match.routes


def _refusing(table: RouteTable, refused: RefusedRequest) -> Iterator[Route]:
    """Yield the routes whose rules refuse the request."""
    sub, token = _sub_and_token(refused.who)
    for route in _met(table, refused):
        if not decide((route.rule,), sub, token).allowed:
            yield route


def _sub_and_token(who: str) -> tuple[str | None, str]:
    return (None, who.removeprefix(TOKEN)) if who.startswith(TOKEN) else (who, "")


def _allowing(settings: Settings, route: Route, who: str) -> Iterator[Remedy]:
    is_machine = who.startswith(TOKEN)
    entry = who if is_machine else SUB + who
    place = f"[[route]] {route.name}"
    if entry not in route.settings.allow:
        yield Remedy(place, f"allow = {_listed((*route.settings.allow, entry))}")
    if is_machine:
        for token in settings.token:
            confined = token.routes is not None and route.name not in token.routes
            if TOKEN + token.name == who and confined:
                line = f"routes = {_listed((*(token.routes or ()), route.name))}"
                yield Remedy(f"[[token]] {token.name}", line)
    elif takes_grants(route.settings):
        yield Remedy("", f"tailchat-gate grant {entry} {route.name} --for 8h")


def _undenying(settings: Settings, place: str, denied: Sequence[str], who: str) -> Iterator[Remedy]:
    """Yield the lists without the entries that deny `who`."""
    entry = who if who.startswith(TOKEN) else SUB + who
    if entry in denied:
        yield Remedy(place, f"deny = {_listed(other for other in denied if other != entry)}")
    for denial in denied:
        name = denial.removeprefix(GROUP)
        members = settings.groups.get(name) if denial.startswith(GROUP) else None
        if members is not None and who in Group(members).subs:
            rest = (each for each in members if each != who)
            yield Remedy("[groups]", f"{name} = {_listed(rest)}")


def _listed(entries: Iterable[str]) -> str:
    """Return a list as TOML writes it."""
    return json.dumps(list(entries))
