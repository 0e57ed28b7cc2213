"""What an admin should know about settings that can be used and may not be meant."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from tailchat_gate.config.address import Network, is_loopback, parse_url
from tailchat_gate.config.model import Settings
from tailchat_gate.config.word import GROUP, SIGNED_IN

_KNOWN_SCOPES = frozenset({"openid", "profile", "offline_access"})
_SUB = re.compile("[0-9a-f]{24}")
_WIDEST_IPV4 = 8
_WIDEST_IPV6 = 16
_UNIQUE_LOCAL = IPv6Network("fc00::/7")  # RFC 4193 section 3.1


def cautions(settings: Settings) -> tuple[str, ...]:
    """List the warnings about usable settings, each one sentence that begins with its key."""
    return tuple(_cautions(settings))


def _cautions(settings: Settings) -> Iterator[str]:
    if _travels_in_clear(settings.server.public_url):
        yield (
            "server.public_url is http: cookies are sent without Secure and can be read on the way"
        )
    if _travels_in_clear(settings.tailchat.api_url):
        yield "tailchat.api_url is http: the app's secret and the login can be read on the way"
    if settings.tailchat.api_url.endswith("/open"):
        yield "tailchat.api_url ends in /open: remove that, the gate adds it itself"
    for network in settings.server.trusted_proxies:
        if _is_wide(network):
            yield f"server.trusted_proxies: {network} is wide, all its X-Forwarded-* are believed"
    unknown = [word for word in settings.tailchat.scope.split(" ") if word not in _KNOWN_SCOPES]
    if unknown:
        yield f"tailchat.scope: Tailchat does not know {', '.join(unknown)} and will leave it out"
    for index, route in enumerate(settings.route):
        if SIGNED_IN in route.allow and len(route.allow) > 1:
            yield (
                f'route[{index}].allow: "signed-in" already lets every Tailchat user in, the other '
                "entries change nothing"
            )

    yield from _people(settings)


def _people(settings: Settings) -> Iterator[str]:
    """Warn of people who are listed and will never be met, or never asked for."""
    entries = {entry for route in settings.route for entry in route.allow}
    for name, subs in settings.groups.items():
        if subs and GROUP + name not in entries:
            yield f"groups.{name}: no route allows it, so it opens nothing"
        # Tailchat: a sub is a MongoDB id, 24 hex digits; a nickname never authorises anybody.
        odd = [sub for sub in subs if _SUB.fullmatch(sub) is None]
        if odd:
            yield f"groups.{name}: {odd[0]} is not a Tailchat id, which has 24 hex digits"


def _is_wide(network: Network) -> bool:
    if isinstance(network, IPv4Network):
        return network.prefixlen < _WIDEST_IPV4
    return network.prefixlen < _WIDEST_IPV6 and not network.subnet_of(_UNIQUE_LOCAL)


def _travels_in_clear(text: str) -> bool:
    url = parse_url(text, "")
    return url.scheme == "http" and not is_loopback(url.host)
