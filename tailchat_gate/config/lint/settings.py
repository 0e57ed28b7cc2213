"""Warns of settings that are valid but probably mistakes, and of settings without effect."""

from collections.abc import Container, Iterator, Sequence

from tailchat_gate.config.lint import addresses
from tailchat_gate.config.model import RouteSettings, Settings
from tailchat_gate.config.tables.admin_page import is_admin_page
from tailchat_gate.config.values.address import OwnAddress, upstream_address
from tailchat_gate.config.values.header import (
    ANY_ORIGIN,
    NO_ORIGIN,
    WEBSOCKET,
    is_dropped,
    is_dropped_from_responses,
)
from tailchat_gate.config.values.identifier import (
    GROUP,
    PUBLIC,
    SIGNED_IN,
    TOKEN,
    TRACE,
)
from tailchat_gate.config.values.path import stripped
from tailchat_gate.config.values.quantities import format_duration, read_rate
from tailchat_gate.syntax import OFFLINE_ACCESS, OPENID

_KNOWN_SCOPES = frozenset({OPENID, "profile", OFFLINE_ACCESS})
#: Tailchat: a person's consent ends this long after it was given, even if it is in use.
_GRANT_SECONDS = 14 * 86400.0
#: How many sign-ins a few people with some tabs begin at once.
_LOGINS_OF_OFFICE = 60
#: How many requests one page of a dashboard sends at once.
_REQUESTS_OF_PAGE = 200
_OWN_COOKIES = 4096  # a session of 3072 bytes, a login cookie, and their names


def lint(settings: Settings) -> tuple[str, ...]:
    """List the warnings about valid settings; each is one sentence that begins with its key."""
    return tuple(_warnings(settings))


def _warnings(settings: Settings) -> Iterator[str]:
    yield from addresses.of_addresses(settings)
    unknown = [word for word in settings.tailchat.scope.split(" ") if word not in _KNOWN_SCOPES]
    if unknown:
        yield f"tailchat.scope: Tailchat does not know {', '.join(unknown)} and will leave it out"
    yield from _rechecks(settings)
    if settings.limits.cookie_bytes < _OWN_COOKIES:
        yield (
            f"limits.cookie_bytes: the gate's own cookies can take {_OWN_COOKIES} bytes, so "
            "visitors may be refused after they signed in"
        )
    yield from _rates(settings)
    allowed = {entry for route in settings.route for entry in route.allow}
    for warning in _of_deny(settings.access.deny, allowed):
        yield f"access.deny: {warning}"
    for index, route in enumerate(settings.route):
        for key, warning in _of_route(route, settings):
            yield f"route[{index}].{key}: {warning}"
    yield from addresses.of_one_tool(settings.route)
    yield from _audiences(settings)
    yield from _of_groups(settings)
    yield from _of_tokens(settings)
    yield from _of_emails(settings)


def _rates(settings: Settings) -> Iterator[str]:
    """Warn of rate limits that everyday use reaches."""
    logins, person = (
        read_rate(settings.limits.logins),
        read_rate(settings.limits.requests_per_person),
    )
    if logins is not None and logins.most < _LOGINS_OF_OFFICE:
        yield (
            f"limits.logins: all people behind one address share {settings.limits.logins}, and "
            "each tab that a person opens begins a sign-in; write a higher rate"
        )
    if person is not None and person.most < _REQUESTS_OF_PAGE:
        yield (
            f"limits.requests_per_person: one page of a tool can take more requests than "
            f"{settings.limits.requests_per_person} allows; write a higher rate"
        )


def _rechecks(settings: Settings) -> Iterator[str]:
    """Warn of recheck settings that have an unexpected effect with the requested scope."""
    session, offline = settings.session, OFFLINE_ACCESS in settings.tailchat.scope.split(" ")
    if not session.recheck:
        if offline:
            yield (
                f"tailchat.scope: {OFFLINE_ACCESS} brings a consent page at every sign-in, and "
                "nothing else while session.recheck is off"
            )
        if session.recheck_outage != "keep":
            yield "session.recheck_outage: session.recheck is off, so this changes nothing"
    elif not offline:
        yield (
            f"session.recheck: without {OFFLINE_ACCESS} in tailchat.scope a session ends after an "
            "hour, or sooner with the person's sign-in at Tailchat; with it people see Tailchat's "
            "consent page at every sign-in"
        )
    elif session.lifetime > _GRANT_SECONDS:
        yield (
            f"session.recheck: Tailchat forgets a consent after {format_duration(_GRANT_SECONDS)}, "
            "and sessions end then, even if session.lifetime is longer"
        )


def _of_route(route: RouteSettings, settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield keys of a route with a warning about each."""
    yield from _people_of(route)
    yield from _route(route)
    yield from addresses.of_host(route, settings)
    yield from addresses.of_upstream(route, settings)
    yield from _passed(route, settings)


def _route(route: RouteSettings) -> Iterator[tuple[str, str]]:
    if is_admin_page(route) and SIGNED_IN in route.allow:
        warning = "everybody with an account can use the admin page; name a group of admins"
        yield "allow", warning
    if isinstance(upstream_address(route.backends[0]), OwnAddress):
        if route.headers:
            yield "headers", f"{route.upstream_text} has no tool that could get them"
    else:
        yield from _other_origins(route)
        yield from (
            ("pass_response_fields", f"{name} passes anyway, so this changes nothing")
            for name in route.pass_response_fields
            if not is_dropped_from_responses(name)
        )
    if route.trace:
        warning = "a tool that answers TRACE shows pages the headers that the gate sets for it"
        if route.methods and TRACE not in route.methods:
            warning = "methods does not name TRACE, so this changes nothing"
        yield "trace", warning


def _passed(route: RouteSettings, settings: Settings) -> Iterator[tuple[str, str]]:
    """Warn of listed headers that always pass, and of those that the gate always sets."""
    prefixed = stripped(route.path, route.upstream_path)
    for name in route.pass_fields:
        plain = name.lower()
        if (plain == "x-forwarded-prefix" and prefixed) or (
            plain == "x-real-ip" and settings.server.real_ip
        ):
            yield "pass_fields", f"the gate sets {name} itself, so the visitor's does not pass"
        elif not is_dropped(name):
            yield "pass_fields", f"{name} passes anyway, so this changes nothing"


def _other_origins(route: RouteSettings) -> Iterator[tuple[str, str]]:
    """Warn of origins whose pages can act as the visitor, and of a WebSocket key without use."""
    if WEBSOCKET not in route.upgrades and route.websocket_max_age:
        yield "websocket_max_age", "upgrades does not name websocket, so this changes nothing"
    if PUBLIC not in route.allow:
        warning = "can send requests and open WebSockets here in the name of its visitors"
        if ANY_ORIGIN in route.origins:
            yield "origins", f"any site's page {warning}"
        if NO_ORIGIN in route.origins:
            yield "origins", f"any page can make itself one without an origin, and then {warning}"
    if ANY_ORIGIN not in route.origins:
        of_sites = [origin for origin in route.origins if origin.startswith("http")]
        for origin in filter(addresses.travels_in_clear, of_sites):
            warning = f"{origin} is http, so anyone on its network path can change its pages"
            yield "origins", warning


def _audiences(settings: Settings) -> Iterator[str]:
    """Warn of audiences that no tool receives, or that two tools share."""
    first_with: dict[str, int] = {}
    for index, route in enumerate(settings.route):
        if not route.assertion:
            if route.audience:
                yield f"route[{index}].audience: no assertion is sent, so this changes nothing"
            continue
        audience = route.audience or route.name
        first = first_with.setdefault(audience, index)
        if settings.assertion.key_files and settings.route[first].upstream != route.upstream:
            yield (
                f"route[{index}].audience: route[{first}] has it too, so each of the two tools can "
                "use an assertion it got at the other; write another audience"
            )


def _of_groups(settings: Settings) -> Iterator[str]:
    """Warn of people in groups who can never match, and of groups that nothing uses."""
    entries = {entry for route in settings.route for entry in (*route.allow, *route.deny)}
    entries.update(settings.access.deny)
    for name, members in settings.groups.items():
        if members and GROUP + name not in entries:
            yield f"groups.{name}: no route allows or denies it, so it decides nothing"


def _of_tokens(settings: Settings) -> Iterator[str]:
    """Warn of tokens that open no route, or not every route that names them."""
    for index, token in enumerate(settings.token):
        naming = [route.name for route in settings.route if TOKEN + token.name in route.allow]
        if not naming:
            yield f"token[{index}]: no route allows it, so it opens nothing"
        elsewhere = [name for name in naming if token.routes and name not in token.routes]
        if elsewhere:
            yield (
                f"token[{index}].routes: it leaves out {elsewhere[0]}, whose allow names the "
                "token, so the token does not open that route"
            )


def _of_emails(settings: Settings) -> Iterator[str]:
    """Warn of addresses that nobody verified, and of settings about addresses without effect."""
    tailchat = settings.tailchat
    routes = [route.name for route in settings.route if route.uses_email]
    if tailchat.unverified_email and routes:
        yield (
            "tailchat.unverified_email: anybody can register in Tailchat with anybody's address, "
            f"and {', '.join(routes)} get it: a tool that makes or finds accounts by e-mail, as "
            "Grafana, Gitea and Mattermost do, lets them into the account of its owner"
        )
    elif tailchat.unverified_email:
        yield "tailchat.unverified_email: no route uses e-mail addresses, so this changes nothing"
    if routes and not tailchat.people_refresh:
        yield f"tailchat.people_refresh: it is off, so {', '.join(routes)} get no e-mail address"


def _people_of(route: RouteSettings) -> Iterator[tuple[str, str]]:
    """Yield warnings about entries of a route's `allow` and `deny`, with the key's name."""
    if SIGNED_IN in route.allow and any(
        entry != SIGNED_IN and not entry.startswith(TOKEN) for entry in route.allow
    ):
        warning = (
            '"signed-in" already lets every Tailchat user in, other entries for users add nothing'
        )
        yield "allow", warning
    if PUBLIC in route.allow and route.deny:
        yield "deny", "the route is public, so these people still enter, but anonymously"
    else:
        yield from (("deny", warning) for warning in _of_deny(route.deny, route.allow))


def _of_deny(denied: Sequence[str], allowed: Container[str]) -> Iterator[str]:
    """Warn of entries of a deny list that are also in an allow list, or have no effect."""
    for entry in denied:
        if entry in allowed:
            yield f"{entry} is in allow too; deny wins"
