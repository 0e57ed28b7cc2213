"""Warns of addresses that are valid but probably a mistake.

`beside_the_gate` and `of_examples` are for when you check a file, not for each start.
"""

import re
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
from tailchat_gate.config.values.identifier import SUB
from tailchat_gate.config.values.url import is_secure, parse_url
from tailchat_gate.syntax import WILDCARD

_WIDEST_IPV4 = 8
_WIDEST_IPV6 = 16
_UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193 section 3.1
#: Names reserved for examples (RFC 2606 section 3, RFC 6761 section 6.5).
_EXAMPLE_HOST = re.compile(r"(?:.*\.)?example(?:\.(?:com|net|org))?")
#: A sub of the documents' examples; real ones have five random bytes in the middle.
_EXAMPLE_SUB = re.compile(f"(?:{SUB})?[0-9a-f]{{8}}0{{10}}[0-9a-f]{{6}}")


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
            f"server.admin_listen: everybody who reaches {admin}, also by a published port of a "
            "container, can read who was refused and make the gate reload or upgrade, without a "
            "sign-in; keep others out by a firewall or the network"
        )
    if admin and settings.server.admin_orders and not admin.startswith("unix:"):
        yield (
            f"server.admin_orders: everybody who reaches {admin}, also every user of this machine, "
            "can lock people out, let themselves in and end connections, without a sign-in; a "
            'route with upstream = "admin:" requires one'
        )
    if travels_in_clear(settings.tailchat.api_url):
        yield (
            "tailchat.api_url: it is http, so the app's secret and the login can be read on the way"
        )
    internal = settings.tailchat.internal_url
    if internal and travels_in_clear(internal):
        yield "tailchat.internal_url: it is http, so the app's secret can be read on the way"
    if parse_url(settings.tailchat.api_url, "").origin == settings.server.public_url:
        yield (
            "tailchat.api_url: it is server.public_url, the address of the gate itself: people can "
            "sign in only where a proxy in front leads /open to Tailchat"
        )
    for network in settings.server.trusted_proxies:
        if _is_wide(network):
            yield (
                f"server.trusted_proxies: {network} is a large network, and the X-Forwarded-* "
                "headers of all its machines are believed; name the proxies alone"
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
        warning = "is server.admin_listen: everybody whom this route lets in can use it, since it"
        yield "upstream", f"{upstream} {warning} asks for no sign-in"
    if isinstance(upstream, HttpAddress) and _is_served_here(upstream, route, settings):
        warning = "is an address of the gate itself, so each request would loop"
        yield "upstream", f"{upstream} {warning}; give the address at which the tool listens"


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
    """Warn of two routes that may lead to one tool, where only one of them sets a header for it.

    The gate removes a header that `headers` of a route sets from visitors' requests on every route
    to the same tool. It compares tools by address, but a name and an IP address may be one machine.
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
                    f"visitors can send here the headers that route[{setter}].headers sets there; "
                    "write the same address in both"
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
            "tool share their origin; add a route for that host to keep the tool off it"
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
            "own pages are: scripts of a tool there can act on these pages as their visitor; give "
            "each tool that you trust less than the gate a host of its own"
        )


def of_examples(settings: Settings) -> Iterator[str]:
    """Warn of hosts and people of the documents' examples, when you check a file.

    Not at each start, because a private network may have such names.
    """
    for key, url, wanted in (
        ("server.public_url", settings.server.public_url, "the address at which people reach you"),
        ("tailchat.api_url", settings.tailchat.api_url, "the address of your Tailchat"),
    ):
        if _EXAMPLE_HOST.fullmatch(parse_url(url, "").host):
            yield f"{key}: {url} is the documents' example; write {wanted}"
    for index, route in enumerate(settings.route):
        if route.host and _EXAMPLE_HOST.fullmatch(route.host):
            yield (
                f"route[{index}].host: {route.host} is the documents' example; write the name at "
                "which people reach the tool"
            )
    listed = {f"groups.{name}": group.subs for name, group in settings.groups.items()}
    listed |= {f"route[{index}].allow": route.allow for index, route in enumerate(settings.route)}
    for key, entries in listed.items():
        for entry in filter(_EXAMPLE_SUB.fullmatch, entries):
            yield (
                f"{key}: {entry} is the documents' example, and nobody; each person's ID is on "
                f"their page {settings.server.prefix}/userinfo"
            )


def _is_wide(network: Network) -> bool:
    if isinstance(network, IPv4Network):
        return network.prefixlen < _WIDEST_IPV4
    return network.prefixlen < _WIDEST_IPV6 and not network.subnet_of(_UNIQUE_LOCAL)


def travels_in_clear(text: str) -> bool:
    """Whether requests to a URL travel unencrypted over a network."""
    return not is_secure(text)
