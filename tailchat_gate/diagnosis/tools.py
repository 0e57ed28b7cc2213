"""Whether tools answer, how long their certificates last, and who reaches them beside the gate."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
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
from tailchat_gate.diagnosis.around import who_else
from tailchat_gate.diagnosis.statement import (
    CALL_SECONDS,
    Check,
    Statement,
    in_thread,
    ok,
    warning,
    wrong,
)
from tailchat_gate.proxy.upstream.backends import Backend, Dialer
from tailchat_gate.proxy.upstream.interfaces import kind_of
from tailchat_gate.proxy.upstream.probe import Probe, probe_request, status_of

TOOL: Final = "tool"
_FAULT: Final = 500
#: Listens at every address.
_UNSPECIFIED: Final = ("0.0.0.0", "::")  # noqa: S104 - compared only

_PROBLEMS: Final = {
    "timeout": "does not answer",
    "dns": "has a name that this machine cannot look up",
    "refused": "refuses connections",
    "reset": "closes the connection",
    "unreachable": "cannot be reached",
    "descriptors": "could not be asked: this process has too many open files",
}


class Tool(NamedTuple):
    """A tool of the configuration, with the first of its routes."""

    address: HttpAddress | UnixAddress
    route: RouteSettings

    @property
    def label(self) -> str:
        """What statements call it."""
        return f"{self.route.name}: {self.address}"


def tools(settings: Settings) -> tuple[Tool, ...]:
    """Return each tool once."""
    found: dict[str, Tool] = {}
    for route in settings.route:
        for address in map(upstream_address, route.backends):
            if isinstance(address, HttpAddress | UnixAddress):
                found.setdefault(str(address), Tool(address, route))
    return tuple(found.values())


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
    """Say whether a tool answers a request without identity, and about its certificate.

    `listeners` are the gate's own addresses: a name may lead to one of them.
    """
    loop = asyncio.get_running_loop()
    # Reads files.
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
        said = _PROBLEMS.get(kind_of(error), "cannot be reached")
        yield wrong(TOOL, f"{tool.label} {said}", "start the tool, or correct the route's upstream")
        return
    itself = next((one for one in listeners if _leads_to(probe, one)), None)
    if itself is not None:
        text = f"{tool.label} leads to {itself}, where the gate itself listens: requests loop"
        yield wrong(TOOL, text, "correct the route's upstream, or the name that it has")
        return
    for statement in certificates.dates_of(tool.label, probe.certificate, now):
        yield statement
    yield _of_start(tool, start, loop.time() - began)


def _leads_to(probe: Probe, listener: TcpAddress | UnixAddress) -> bool:
    """Whether a connection within this machine has reached an address of the gate."""
    here, there = probe.ends
    if not isinstance(listener, TcpAddress) or here[:1] != there[:1] or not there:
        return False
    host, port = there[:2]
    return port == listener.port and listener.host in {host, *_UNSPECIFIED}


def _of_start(tool: Tool, start: bytes, seconds: float) -> Statement:
    status = status_of(start)
    if not status:
        remedy = "correct the route's upstream: it may be another port, or speak https"
        return wrong(TOOL, f"{tool.label} does not answer with HTTP/1.1", remedy)
    text = f"{tool.label} answers with {status}, after {1000 * seconds:.0f} ms"
    if status >= _FAULT:
        return warning(TOOL, text, "look at the tool's log")
    return ok(TOOL, text)


def _request(tool: Tool) -> bytes:
    route = tool.route
    path = route.path if route.upstream_path is None else route.upstream_path
    return probe_request(tool.address, route.upstream_host or route.host or "", path)
