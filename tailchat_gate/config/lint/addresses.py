"""Warns of addresses that are valid but probably a mistake."""

import stat
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from tailchat_gate.config.model import RouteSettings, Settings
from tailchat_gate.config.values.address import (
    AdminPageAddress,
    HttpAddress,
    Network,
    StaticAddress,
    Upstream,
    leads_to,
    listen_address,
    stays_here,
    tool_of,
    upstream_address,
)
from tailchat_gate.config.values.header import folded
from tailchat_gate.config.values.url import is_secure, parse_url
from tailchat_gate.syntax import WILDCARD

_WIDEST_IPV4 = 8
_WIDEST_IPV6 = 16
_UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193 section 3.1


def of_addresses(settings: Settings) -> Iterator[str]:
    """Warn of addresses of the gate and of Tailchat."""
    if travels_in_clear(settings.server.public_url):
        yield (
            "server.public_url: it is http, so cookies are sent without Secure and can be read on "
            "the way"
        )
    if int(settings.server.unix_mode, 8) & stat.S_IWOTH:
        yield (
            "server.unix_mode: every user of this machine can connect to the gate's sockets, with "
            "any X-Forwarded-* where 127.0.0.1 is in server.trusted_proxies"
        )
    admin = settings.server.admin_listen
    if admin and not stays_here(admin):
        yield (
            f"server.admin_listen: all who reach {admin} can read who was refused, and have the "
            "gate reload or upgrade, without a sign-in; a published port of a container is the "
            "same. Let a firewall or the network keep others out"
        )
    if admin and settings.server.admin_orders and not admin.startswith("unix:"):
        yield (
            f"server.admin_orders: all who reach {admin}, every user of this machine too, can lock "
            "people out, let themselves in and end connections, without a sign-in; a route with "
            'upstream = "admin:" asks who it is'
        )
    if travels_in_clear(settings.tailchat.api_url):
        yield (
            "tailchat.api_url: it is http, so the app's secret and the login can be read on the way"
        )
    internal = settings.tailchat.internal_url
    if internal and travels_in_clear(internal):
        yield "tailchat.internal_url: it is http, so the app's secret can be read on the way"
    yield from _tailchat_here(settings)
    for network in settings.server.trusted_proxies:
        if _is_wide(network):
            yield f"server.trusted_proxies: {network} is wide, all its X-Forwarded-* are believed"


def _tailchat_here(settings: Settings) -> Iterator[str]:
    """Warn of addresses of Tailchat that are the gate itself."""
    public, tailchat = settings.server.public_url, settings.tailchat
    if parse_url(tailchat.api_url, "").origin == public:
        yield (
            "tailchat.api_url: it is server.public_url, the address of the gate itself: people can "
            "sign in only where a proxy in front leads /open to Tailchat"
        )


def of_upstream(route: RouteSettings, settings: Settings) -> Iterator[tuple[str, str]]:
    """Warn of an upstream that is an address of the gate itself."""
    for backend in route.backends:
        yield from _of_backend(upstream_address(backend), route, settings)


def _of_backend(
    upstream: Upstream, route: RouteSettings, settings: Settings
) -> Iterator[tuple[str, str]]:
    server = settings.server
    if server.admin_listen and leads_to(upstream, listen_address(server.admin_listen)):
        warning = (
            "is server.admin_listen: everyone who passes this route can use the admin listener"
        )
        yield "upstream", f"{upstream} {warning}, which knows no sessions"
    if isinstance(upstream, HttpAddress) and _is_served_here(upstream, route, settings):
        warning = "is an address of the gate itself, so each request would come back"
        yield "upstream", f"{upstream} {warning}; the tool needs an address of its own"


def _is_served_here(upstream: HttpAddress, route: RouteSettings, settings: Settings) -> bool:
    """Whether an upstream is server.public_url or the public host of its own route."""
    public = parse_url(settings.server.public_url, "")
    if upstream.url.host not in {public.host, route.host}:
        return False
    # A proxy in front of the gate serves both http and https.
    usual = {80, 443}
    ports = {upstream.port, public.port or public.default_port}
    return len(ports) == 1 or ports <= usual


def of_one_tool(routes: Sequence[RouteSettings]) -> Iterator[str]:
    """Warn of two routes that may share a tool, where only one of them sets a header for it.

    A header that `headers` of a route sets is removed from requests on every route to the same
    tool. The gate compares tools by address, but a name and an IP address may be one machine.
    """
    tools = [
        (index, backend, tool)
        for index, route in enumerate(routes)
        for backend in route.backends
        if (tool := tool_of(upstream_address(backend))) is not None
    ]
    guarded: dict[tuple[str, int], set[bytes]] = {}
    setters: dict[int, dict[str, int]] = {}
    for index, _, tool in tools:
        if routes[index].headers:
            guarded.setdefault(tool, set()).update(map(folded, routes[index].headers))
            setters.setdefault(tool[1], {}).setdefault(tool[0], index)
    for index, backend, tool in tools:
        for name, setter in setters.get(tool[1], {}).items():
            open_ones = guarded[name, tool[1]] - guarded.get(tool, set())
            if _is_address(name) != _is_address(tool[0]) and open_ones:
                yield (
                    f"route[{index}].upstream: {backend} and "
                    f"{routes[setter].upstream_text} of route[{setter}] may be one tool, and "
                    f"visitors can send here what route[{setter}].headers sets there; one address "
                    "for both keeps that out"
                )


def _is_address(name: str) -> bool:
    """Whether a host of `tool_of` is an IP address or "", not a name."""
    try:
        ip_address(name or "127.0.0.1")
    except ValueError:
        return False
    return True


def of_host(route: RouteSettings, settings: Settings) -> Iterator[tuple[str, str]]:
    """Warn of a wildcard that matches the gate's own host, which no route names."""
    public = parse_url(settings.server.public_url, "").host
    covered = (route.host or "").startswith(WILDCARD) and public.endswith((route.host or "")[1:])
    if covered and not any(other.host == public for other in settings.route):
        warning = (
            f"{route.host} covers {public} too, where the gate's own pages are: scripts of the "
            "tool share their origin; a route for that host keeps it away"
        )
        yield "host", warning


def beside_the_gate(settings: Settings) -> Iterator[str]:
    """Warn of tools whose pages share the gate's origin, when you check a file.

    Not at each start, because this is normal with a single trusted tool.
    """
    public = parse_url(settings.server.public_url, "").host
    named = {route.path for route in settings.route if route.host == public}
    beside = [
        route.name
        for route in settings.route
        if (route.host == public or (route.host is None and route.path not in named))
        and not isinstance(upstream_address(route.backends[0]), StaticAddress | AdminPageAddress)
    ]
    if beside:
        yield (
            f"server.public_url: {', '.join(beside)} can be reached at {public}, where the gate's "
            "own pages are: scripts of a tool there can do on those what their visitor can; give "
            "a tool that is not trusted as the gate is a host of its own"
        )


def _is_wide(network: Network) -> bool:
    if isinstance(network, IPv4Network):
        return network.prefixlen < _WIDEST_IPV4
    return network.prefixlen < _WIDEST_IPV6 and not network.subnet_of(_UNIQUE_LOCAL)


def travels_in_clear(text: str) -> bool:
    """Whether requests to a URL travel unencrypted over a network."""
    return not is_secure(text)
