"""What an admin should know about settings that can be used and may not be meant."""

import re
import stat
from collections.abc import Container, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

from tailchat_gate.config.address import (
    FilesAddress,
    Network,
    StaticAddress,
    upstream_address,
)
from tailchat_gate.config.duration import spelled
from tailchat_gate.config.header import is_dropped, is_dropped_from_replies
from tailchat_gate.config.model import Route, Settings
from tailchat_gate.config.path import stripped
from tailchat_gate.config.upgrade import ANY_ORIGIN, NO_ORIGIN, WEBSOCKET
from tailchat_gate.config.url import WILDCARD, is_loopback, parse_url
from tailchat_gate.config.word import GROUP, PUBLIC, SIGNED_IN, SUB, TOKEN, TRACE

_OFFLINE = "offline_access"
_KNOWN_SCOPES = frozenset({"openid", "profile", _OFFLINE})
#: Tailchat: what a person consented to is forgotten after this, whatever happens in between.
_GRANT_SECONDS = 14 * 86400.0
_SUB = re.compile("[0-9a-f]{24}")
_NO_ID = "is not a Tailchat id, which has 24 hex digits"
_OWN_COOKIES = 4096  # a session of 3072 bytes, a login under way, and their names
_WIDEST_IPV4 = 8
_WIDEST_IPV6 = 16
_UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193 section 3.1


def cautions(settings: Settings) -> tuple[str, ...]:
    """List the warnings about usable settings, each one sentence that begins with its key."""
    return tuple(_cautions(settings))


def _cautions(settings: Settings) -> Iterator[str]:
    yield from _addresses(settings)
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
    for told in _denied(settings.access.deny, allowed):
        yield f"access.deny: {told}"
    for index, route in enumerate(settings.route):
        for key, told in (*_route(route), *_host(route, settings), *_passed(route, settings)):
            yield f"route[{index}].{key}: {told}"
    yield from _audiences(settings)
    yield from _people(settings)
    yield from _machines(settings)


def _addresses(settings: Settings) -> Iterator[str]:
    if _travels_in_clear(settings.server.public_url):
        yield (
            "server.public_url is http: cookies are sent without Secure and can be read on the way"
        )
    if int(settings.server.unix_mode, 8) & stat.S_IWOTH:
        yield (
            "server.unix_mode: every user of this machine can connect to the gate's sockets, with "
            "any X-Forwarded-* where 127.0.0.1 is in server.trusted_proxies"
        )
    if _travels_in_clear(settings.tailchat.api_url):
        yield "tailchat.api_url is http: the app's secret and the login can be read on the way"
    internal = settings.tailchat.internal_url
    if internal and _travels_in_clear(internal):
        yield "tailchat.internal_url is http: the app's secret can be read on the way"
    if settings.tailchat.api_url.endswith("/open"):
        yield "tailchat.api_url ends in /open: remove that, the gate adds it itself"
    for network in settings.server.trusted_proxies:
        if _is_wide(network):
            yield f"server.trusted_proxies: {network} is wide, all its X-Forwarded-* are believed"


def _rechecks(settings: Settings) -> Iterator[str]:
    """Warn of what asking Tailchat again amounts to, with what it is asked for."""
    session, offline = settings.session, _OFFLINE in settings.tailchat.scope.split(" ")
    if not session.recheck:
        if offline:
            yield (
                f"tailchat.scope: {_OFFLINE} brings a consent page at every sign-in, and nothing "
                "else while session.recheck is off"
            )
        if session.recheck_outage != "keep":
            yield "session.recheck_outage: session.recheck is off, so this changes nothing"
    elif not offline:
        yield (
            f"session.recheck: without {_OFFLINE} in tailchat.scope a session ends after an hour, "
            "or sooner with the person's sign-in at Tailchat; with it people see Tailchat's "
            "consent page at every sign-in"
        )
    elif session.lifetime > _GRANT_SECONDS:
        yield (
            f"session.recheck: Tailchat forgets a consent after {spelled(_GRANT_SECONDS)}, and "
            "sessions end with that, whatever session.lifetime allows"
        )


def _route(route: Route) -> Iterator[tuple[str, str]]:
    """Pair keys of a route with what is to be said of them."""
    for entry in filter(_is_nobodys, route.allow):
        yield "allow", f"{entry} {_NO_ID}, so it lets nobody in"
    if SIGNED_IN in route.allow and any(
        entry != SIGNED_IN and not entry.startswith(TOKEN) for entry in route.allow
    ):
        told = (
            '"signed-in" already lets every Tailchat user in, other entries for users add nothing'
        )
        yield "allow", told
    if PUBLIC in route.allow and route.deny:
        yield "deny", "the route is public, so these still enter, but as nobody"
    else:
        yield from (("deny", told) for told in _denied(route.deny, route.allow))
    if isinstance(upstream_address(route.upstream), StaticAddress | FilesAddress):
        if route.headers:
            yield "headers", f"{route.upstream} has no tool behind it that would get them"
    else:
        yield from _pages_elsewhere(route)
        yield from (
            ("pass_response_fields", f"{name} passes anyway, so this changes nothing")
            for name in route.pass_response_fields
            if not is_dropped_from_replies(name)
        )
    if route.trace:
        told = "a tool that answers TRACE shows pages the headers that the gate sets for it"
        if route.methods and TRACE not in route.methods:
            told = "methods does not name TRACE, so this changes nothing"
        yield "trace", told


def _denied(denied: Sequence[str], allowed: Container[str]) -> Iterator[str]:
    """Tell of entries of a deny list that stand in an allow list too, or keep nobody out."""
    for entry in denied:
        if entry in allowed:
            yield f"{entry} is in allow too, and deny wins"
        if _is_nobodys(entry):
            yield f"{entry} {_NO_ID}, so it keeps nobody out"


def _is_nobodys(entry: str) -> bool:
    """Tell whether an entry names a sub that no user of Tailchat can have."""
    return entry.startswith(SUB) and _SUB.fullmatch(entry.removeprefix(SUB)) is None


def _host(route: Route, settings: Settings) -> Iterator[tuple[str, str]]:
    """Tell of a wildcard that takes in the gate's own host, which no route names."""
    public = parse_url(settings.server.public_url, "").host
    covered = (route.host or "").startswith(WILDCARD) and public.endswith((route.host or "")[1:])
    if covered and not any(other.host == public for other in settings.route):
        told = (
            f"{route.host} covers {public} too, where the gate's own pages are: scripts of the "
            "tool share their origin; a route for that host keeps it away"
        )
        yield "host", told


def beside_the_gate(settings: Settings) -> Iterator[str]:
    """Tell of tools whose pages have the origin of the gate's own, for who checks a file.

    Not at each start, because with one tool that is trusted it is how things are meant.
    """
    public = parse_url(settings.server.public_url, "").host
    named = {route.path for route in settings.route if route.host == public}
    beside = [
        route.name
        for route in settings.route
        if (route.host == public or (route.host is None and route.path not in named))
        and not isinstance(upstream_address(route.upstream), StaticAddress)
    ]
    if beside:
        yield (
            f"server.public_url: {', '.join(beside)} can be reached at {public}, where the gate's "
            "own pages are: scripts of a tool there can do on those what their visitor can; give "
            "a tool that is not trusted as the gate is a host of its own"
        )


def _passed(route: Route, settings: Settings) -> Iterator[tuple[str, str]]:
    """Tell of headers that pass in any case, and of those that the gate sets in any case."""
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
        for origin in filter(_travels_in_clear, of_sites):
            told = f"{origin} is http, and whoever is on the way can write its pages"
            yield "origins", told


def _audiences(settings: Settings) -> Iterator[str]:
    """Warn of audiences that nobody is told, or that two tools share."""
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


def _machines(settings: Settings) -> Iterator[str]:
    """Warn of tokens that open nothing, or not all that names them."""
    for index, token in enumerate(settings.token):
        naming = [route.name for route in settings.route if TOKEN + token.name in route.allow]
        if not naming:
            yield f"token[{index}]: no route allows it, so it opens nothing"
        elsewhere = [name for name in naming if token.routes and name not in token.routes]
        if elsewhere:
            yield f"token[{index}].routes: {elsewhere[0]} names the token and stays closed to it"


def _people(settings: Settings) -> Iterator[str]:
    """Warn of people who are listed and will never be met, or never asked for."""
    entries = {entry for route in settings.route for entry in (*route.allow, *route.deny)}
    entries.update(settings.access.deny)
    for name, subs in settings.groups.items():
        if subs and GROUP + name not in entries:
            yield f"groups.{name}: no route allows or denies it, so it decides nothing"
        # Tailchat: a sub is a MongoDB id, 24 hex digits; a nickname never authorises anybody.
        odd = [sub for sub in subs if _SUB.fullmatch(sub) is None]
        if odd:
            yield f"groups.{name}: {odd[0]} {_NO_ID}"


def _is_wide(network: Network) -> bool:
    if isinstance(network, IPv4Network):
        return network.prefixlen < _WIDEST_IPV4
    return network.prefixlen < _WIDEST_IPV6 and not network.subnet_of(_UNIQUE_LOCAL)


def _travels_in_clear(text: str) -> bool:
    url = parse_url(text, "")
    return url.scheme == "http" and not is_loopback(url.host)
