"""Warns of settings that are valid but probably mistakes."""

from collections.abc import Iterator

from tailchat_gate.config.lint import addresses, people
from tailchat_gate.config.model import Route, Settings
from tailchat_gate.config.values.address import FilesAddress, StaticAddress, upstream_address
from tailchat_gate.config.values.header import is_dropped, is_dropped_from_responses
from tailchat_gate.config.values.identifier import PUBLIC, TRACE
from tailchat_gate.config.values.path import stripped
from tailchat_gate.config.values.quantities import format_duration
from tailchat_gate.config.values.upgrade import ANY_ORIGIN, NO_ORIGIN, WEBSOCKET
from tailchat_gate.syntax import OFFLINE_ACCESS, OPENID

_KNOWN_SCOPES = frozenset({OPENID, "profile", OFFLINE_ACCESS})
#: Tailchat: a person's consent ends this long after it was given, even if it is in use.
_GRANT_SECONDS = 14 * 86400.0
_OWN_COOKIES = 4096  # a session of 3072 bytes, a login cookie, and their names


def lint(settings: Settings) -> tuple[str, ...]:
    """List the warnings about valid settings; each is one sentence that begins with its key."""
    return tuple(_cautions(settings))


def _cautions(settings: Settings) -> Iterator[str]:
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
    allowed = {entry for route in settings.route for entry in route.allow}
    for told in people.of_deny(settings.access.deny, allowed):
        yield f"access.deny: {told}"
    for index, route in enumerate(settings.route):
        for key, told in _of_route(route, settings):
            yield f"route[{index}].{key}: {told}"
    yield from addresses.of_one_tool(settings.route)
    yield from _audiences(settings)
    yield from people.of_groups(settings)
    yield from people.of_tokens(settings)


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
            "and sessions end with that, whatever session.lifetime allows"
        )


def _of_route(route: Route, settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield keys of a route with a warning about each."""
    yield from people.of_route(route)
    yield from _route(route)
    yield from addresses.of_host(route, settings)
    yield from addresses.of_upstream(route, settings)
    yield from _passed(route, settings)


def _route(route: Route) -> Iterator[tuple[str, str]]:
    if isinstance(upstream_address(route.upstream), StaticAddress | FilesAddress):
        if route.headers:
            yield "headers", f"{route.upstream} has no tool behind it that would get them"
    else:
        yield from _pages_elsewhere(route)
        yield from (
            ("pass_response_fields", f"{name} passes anyway, so this changes nothing")
            for name in route.pass_response_fields
            if not is_dropped_from_responses(name)
        )
    if route.trace:
        told = "a tool that answers TRACE shows pages the headers that the gate sets for it"
        if route.methods and TRACE not in route.methods:
            told = "methods does not name TRACE, so this changes nothing"
        yield "trace", told


def _passed(route: Route, settings: Settings) -> Iterator[tuple[str, str]]:
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


def _pages_elsewhere(route: Route) -> Iterator[tuple[str, str]]:
    if WEBSOCKET not in route.upgrades and route.websocket_max_age:
        yield "websocket_max_age", "upgrades does not name websocket, so this changes nothing"
    if PUBLIC not in route.allow:
        told = "can send requests and open WebSockets here in the name of whoever visits it"
        if ANY_ORIGIN in route.origins:
            yield "origins", f"any site's page {told}"
        if NO_ORIGIN in route.origins:
            yield "origins", f"any page can pose as one without an origin, and then {told}"
    if ANY_ORIGIN not in route.origins:
        of_sites = [one for one in route.origins if one.startswith("http")]
        for origin in filter(addresses.travels_in_clear, of_sites):
            told = f"{origin} is http, and whoever is on the way can write its pages"
            yield "origins", told


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
                f"route[{index}].audience: route[{first}] has it too, so the tool of either can "
                "use at the other what it got"
            )
