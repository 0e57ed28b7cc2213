"""Checks that this machine can look up the host names in a configuration."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tailchat_gate.config.model import Settings
from tailchat_gate.config.tables.identity import Tailchat
from tailchat_gate.config.values.address import HttpAddress, upstream_address
from tailchat_gate.config.values.url import proxy_for
from tailchat_gate.diagnosis.statement import (
    CALL_SECONDS,
    NAME_SERVERS,
    Check,
    Statement,
    name_of,
    ok,
    warning,
    wrong,
)
from tailchat_gate.proxy.upstream.resolver import Names
from tailchat_gate.syntax import WILDCARD

DNS: Final = "dns"
#: How many addresses of one name a line shows.
_MOST_SHOWN: Final = 4
_REPAIR: Final = "correct the name, or repair the name servers of this machine"


class HostName(NamedTuple):
    """A host name in the configuration, and its key; `is_ours`: the gate itself connects to it."""

    name: str
    key: str
    is_ours: bool


def host_names(settings: Settings) -> tuple[HostName, ...]:
    """Return the host names without duplicates; IP addresses and wildcards are left out."""
    by_name: dict[str, HostName] = {}
    for host in _host_names(settings):
        known = by_name.get(host.name)
        if not _is_address(host.name) and (known is None or (host.is_ours and not known.is_ours)):
            by_name[host.name] = host
    return tuple(by_name.values())


def name_checks(settings: Settings, names: Names) -> Iterator[Check]:
    """Yield a check for each host, so that a slow lookup delays no other."""
    for host in host_names(settings):
        yield Check(DNS, partial(look_up, host, names))


async def look_up(
    host: HostName, names: Names, seconds: float = CALL_SECONDS
) -> AsyncIterator[Statement]:
    """Say which addresses a name has; the lookup may take `seconds`."""
    refusal = wrong if host.is_ours else warning
    remedy = _REPAIR if host.is_ours else "check that browsers can look it up"
    about = f"{host.key}: this machine cannot look up {host.name}"
    statement, is_general = None, True
    try:
        async with asyncio.timeout(seconds):
            infos = await names.addresses(host.name, 0)
    except TimeoutError:
        statement = refusal(DNS, f"{about}: no name server answers", _REPAIR)
    except OSError as error:
        statement = refusal(DNS, f"{about}: {error.strerror}", remedy)
        is_general = error.errno == socket.EAI_AGAIN
    if statement is not None:
        needs = NAME_SERVERS if is_general else ""
        yield statement._replace(needs=needs, lacks=name_of(host.name), about=host.name)
        return
    addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
    more = f" and {len(addresses) - _MOST_SHOWN} more" if len(addresses) > _MOST_SHOWN else ""
    yield ok(DNS, f"{host.key}: {host.name} is {', '.join(addresses[:_MOST_SHOWN])}{more}")


def _host_names(settings: Settings) -> Iterator[HostName]:
    tailchat = settings.tailchat
    back = tailchat.internal_url or tailchat.api_url
    proxy = proxy_for(tailchat.proxy, back)
    is_direct = not proxy and not tailchat.internal_url
    yield HostName(_host(tailchat.api_url), "tailchat.api_url", is_direct)
    if tailchat.internal_url:
        yield HostName(_host(tailchat.internal_url), "tailchat.internal_url", not proxy)
    if proxy:
        yield HostName(_host(proxy), "tailchat.proxy", is_ours=True)
    for route in settings.route:
        for upstream in map(upstream_address, route.backends):
            if isinstance(upstream, HttpAddress):
                yield HostName(upstream.host, f"route {route.name}: upstream", is_ours=True)
    yield HostName(_host(settings.server.public_url), "server.public_url", is_ours=False)
    for route in settings.route:
        if route.host and not route.host.startswith(WILDCARD):
            name = route.host.strip("[]")
            yield HostName(name, f"route {route.name}: host", is_ours=False)


def called_host(tailchat: Tailchat) -> str:
    """Return the host to look up for calls to Tailchat: Tailchat's, or that of the proxy."""
    back = tailchat.internal_url or tailchat.api_url
    return _host(proxy_for(tailchat.proxy, back) or back)


def _host(url: str) -> str:
    # Without user and password, which a proxy from the environment may have.
    return urlsplit(url).hostname or ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return name == "localhost"
    return True
