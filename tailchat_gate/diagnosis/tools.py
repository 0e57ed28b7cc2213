"""Checks that tools answer, that their certificates last, and that nobody gets around the gate."""

import asyncio
import ssl
import stat
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

from tailchat_gate.config.model import RouteSettings, Settings
from tailchat_gate.config.values.address import (
    HttpAddress,
    TcpAddress,
    UnixAddress,
    listen_address,
    upstream_address,
)
from tailchat_gate.diagnosis import certificates
from tailchat_gate.diagnosis.statement import (
    CALL_SECONDS,
    Check,
    Statement,
    name_of,
    ok,
    unknown,
    warning,
    wrong,
)
from tailchat_gate.observe.threads import in_thread
from tailchat_gate.proxy.upstream.backends import Backend, Dialer
from tailchat_gate.proxy.upstream.health import Probe, probe_request, status_of
from tailchat_gate.proxy.upstream.interfaces import kind_of
from tailchat_gate.proxy.upstream.resolver import Names

AROUND: Final = "around"
_Address = IPv4Address | IPv6Address
#: Tables of proc(5), with addresses in hexadecimal, as 32-bit words in this machine's byte order.
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN: Final = "0A"
_WORD: Final = 8
_REMEDY: Final = (
    "let the tool listen where only the gate reaches it, keep others out by a firewall, or let the "
    "tool check X-Tailchat-Assertion"
)
TOOL: Final = "tool"
_FAULT: Final = 500
#: Addresses that listen on every address of the machine.
_UNSPECIFIED: Final = ("0.0.0.0", "::")  # noqa: S104 - compared only

_PROBLEMS: Final = {
    "timeout": "does not answer",
    "dns": "has a name that this machine cannot look up",
    "refused": "refuses connections",
    "reset": "closes the connection",
    "unreachable": "cannot be reached",
    "descriptors": "could not be asked: this process has too many open files",
}


class Listener(NamedTuple):
    """A listening TCP socket of this machine or container."""

    address: _Address
    port: int

    def __str__(self) -> str:
        """The address as people write it."""
        return str(TcpAddress(str(self.address), self.port))


async def who_else(
    label: str, address: HttpAddress | UnixAddress, names: Names
) -> AsyncIterator[Statement]:
    """Say who else can connect to a tool, around the gate."""
    if isinstance(address, UnixAddress):
        statement = await in_thread(lambda: of_socket(label, Path(address.path)))
        if statement is not None:
            yield statement
        return
    try:
        async with asyncio.timeout(CALL_SECONDS):
            infos = await names.addresses(address.host, address.port)
    except OSError:
        return  # the check whether the tool answers reports it
    addresses = [ip_address(info[4][0].partition("%")[0]) for info in infos]
    if all(address.is_loopback for address in addresses):
        listeners = await in_thread(lambda: tuple(read_listeners()))
        yield of_loopback(label, address.port, listeners)
    else:
        yield of_network(label, [address for address in addresses if not address.is_loopback])


def of_socket(label: str, path: Path) -> Statement | None:
    """Say whether every user of this machine can connect to a Unix socket."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if mode & stat.S_IWOTH:
        text = f"{label}: every user of this machine can connect to the socket"
        remedy = f"run `chmod o-w {path}`, or move it to a directory that others cannot enter"
        return warning(AROUND, text, remedy)
    return ok(AROUND, f"{label}: other users of this machine cannot connect to the socket")


def of_loopback(label: str, port: int, listeners: tuple[Listener, ...]) -> Statement:
    """Say whether a tool on this machine also listens on addresses other than loopback."""
    there = [listener for listener in listeners if listener.port == port]
    outside = sorted({str(listener) for listener in there if not listener.address.is_loopback})
    if outside:
        where = ", ".join(outside)
        text = f"{label}: port {port} is open beyond this machine, at {where}"
        return warning(AROUND, text, _REMEDY)
    if not there:
        text = f"{label}: this machine does not show where the tool listens"
        return unknown(AROUND, text)._replace(needs=label, about=label.partition(":")[0])
    return ok(AROUND, f"{label}: it listens on this machine alone")


def of_network(label: str, addresses: list[_Address]) -> Statement:
    """Say whether a tool's addresses are public or in a private network."""
    public = [str(address) for address in addresses if address.is_global]
    if public:
        text = f"{label}: {public[0]} is a public address, so anybody may reach it around the gate"
        return warning(AROUND, text, _REMEDY)
    return ok(
        AROUND,
        f"{label}: {addresses[0]} is in a private network, whose machines may reach it around the "
        "gate",
    )


def read_listeners() -> Iterator[Listener]:
    """Yield the listening TCP sockets in /proc; none on a system without it."""
    for table in _TABLES:
        try:
            lines = table.read_text("ascii").splitlines()[1:]
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            parts = line.split()
            if len(parts) > 3 and parts[3] == _LISTEN:  # noqa: PLR2004 - sl, local, remote, st
                host, _, port = parts[1].partition(":")
                yield Listener(_address(host), int(port, 16))


def _address(text: str) -> _Address:
    words = [text[start : start + _WORD] for start in range(0, len(text), _WORD)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class Tool(NamedTuple):
    """An address of a tool in the configuration, with the first route that leads there."""

    address: HttpAddress | UnixAddress
    route: RouteSettings

    @property
    def label(self) -> str:
        """How statements name it."""
        return f"{self.route.name}: {self.address}"


def tools(settings: Settings) -> tuple[Tool, ...]:
    """Return the tools of all routes without duplicates."""
    by_address: dict[str, Tool] = {}
    for route in settings.route:
        for address in map(upstream_address, route.backends):
            if isinstance(address, HttpAddress | UnixAddress):
                by_address.setdefault(str(address), Tool(address, route))
    return tuple(by_address.values())


def tool_checks(settings: Settings, dialer: Dialer, now: float) -> Iterator[Check]:
    """Yield the checks of each tool."""
    listeners = tuple(map(listen_address, settings.server.public_addresses))
    for tool in tools(settings):
        yield Check(TOOL, partial(answers, tool, dialer, now, listeners))
        yield Check(TOOL, partial(who_else, tool.label, tool.address, dialer.names))


async def answers(
    tool: Tool,
    dialer: Dialer,
    now: float,
    listeners: Iterable[TcpAddress | UnixAddress] = (),
) -> AsyncIterator[Statement]:
    """Say whether a tool answers an anonymous request, and how long its certificate is valid.

    `listeners` are the gate's own addresses, to which the tool's name may lead by mistake.
    """
    loop = asyncio.get_running_loop()
    # In a thread, because it reads files.
    backend = await in_thread(partial(Backend.of_route, tool.route, tool.address))
    began = loop.time()
    try:
        async with asyncio.timeout(CALL_SECONDS):
            probe = await dialer.connect(backend, partial(Probe, _request(tool)))
            try:
                start = await probe.start
            finally:
                probe.close()
    except ssl.SSLError as error:
        yield certificates.refused(tool.label, error)
        return
    except OSError as error:
        kind = kind_of(error)
        text = f"{tool.label} {_PROBLEMS.get(kind, 'cannot be reached')}"
        finding = wrong(TOOL, text, "start the tool, or correct the route's upstream")
        host = tool.address.host if isinstance(tool.address, HttpAddress) else ""
        needs = name_of(host) if kind == "dns" or dialer.names.waits(host) else ""
        yield finding._replace(needs=needs, lacks=tool.label, about=tool.route.name)
        return
    itself = next((listener for listener in listeners if _leads_to(probe, listener)), None)
    if itself is not None:
        text = f"{tool.label} leads to {itself}, where the gate itself listens: requests loop"
        yield wrong(TOOL, text, "correct the route's upstream, or where its name leads")
        return
    for statement in certificates.dates_of(tool.label, probe.certificate, now):
        yield statement
    yield _of_start(tool, start, loop.time() - began)


def _leads_to(probe: Probe, listener: TcpAddress | UnixAddress) -> bool:
    """Whether a probe, from an address of this machine to the same one, reached a gate listener."""
    here, there = probe.ends
    if not isinstance(listener, TcpAddress) or here[:1] != there[:1] or not there:
        return False
    host, port = there[:2]
    return port == listener.port and listener.host in {host, *_UNSPECIFIED}


def _of_start(tool: Tool, start: bytes, seconds: float) -> Statement:
    status = status_of(start)
    if not status:
        remedy = "correct the route's upstream: the tool may use another port, or https"
        return wrong(TOOL, f"{tool.label} does not answer with HTTP/1.1", remedy)
    text = f"{tool.label} answers with {status}, after {1000 * seconds:.0f} ms"
    if status >= _FAULT:
        return warning(TOOL, text, "look at the tool's log")
    return ok(TOOL, text)


def _request(tool: Tool) -> bytes:
    route = tool.route
    path = route.path if route.upstream_path is None else route.upstream_path
    return probe_request(tool.address, route.upstream_host or route.host or "", path)
