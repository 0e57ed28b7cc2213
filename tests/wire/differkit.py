"""The gate and nginx side by side: the same bytes to both, and what came of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgekit import program, serving
from gatekit import RunningGate, make_settings
from process import free_port
from strictkit import StrictUpstream, bounds_of, converse
from wirekit import Heard, say

from fuzz.reference import request as reference
from fuzz.reference import rewriting
from fuzz.reference.request import Request
from fuzz.reference.syntax import Pairs, elements

#: How many conversations go on at a time, each with upstreams of its own.
LANES: Final = 24
LIMITS: Final = bounds_of(make_settings())
#: So that a conversation that waits for nothing ends soon.
_TIMEOUTS: Final = (
    "client_header_timeout 1s; client_body_timeout 1s;\n"
    "keepalive_timeout 200ms; lingering_timeout 300ms; lingering_time 300ms;\n"
)


class Seen(NamedTuple):
    """A request as an upstream saw it: what both servers should agree on."""

    method: bytes
    target: bytes
    host: tuple[bytes, bytes]
    content: bytes
    fields: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a conversation: requests that arrived whole, and the answers' statuses.

    `garbled`: what arrived is no request to a strict reader.
    """

    arrived: tuple[Seen, ...]
    statuses: tuple[int, ...]
    garbled: bool = False


@dataclass(frozen=True)
class Difference:
    """One conversation in which the two differ."""

    name: str
    data: bytes
    gate: Outcome
    nginx: Outcome
    #: What a plain reader of the gate's rules makes of the bytes.
    read: tuple[Request, ...]
    #: Why it reads no further, "" where it reads all.
    fault: str


@dataclass
class _Lane:
    gate: RunningGate
    behind_gate: StrictUpstream
    nginx_port: int
    behind_nginx: StrictUpstream


@dataclass
class Pair:
    """Both servers, several times over."""

    lanes: list[_Lane]

    async def differences(
        self, cases: Mapping[str, bytes], is_known: Callable[[Difference], bool]
    ) -> list[Difference]:
        """Send each case to both; return those in which they differ, in order.

        One that is not known is sent again before it is believed: nginx gives up soon on a
        machine that is busy.
        """
        waiting = list(reversed(tuple(cases.items())))
        found: dict[str, Difference] = {}

        async def work(lane: _Lane) -> None:
            while waiting:
                name, data = waiting.pop()
                difference = await _compare(lane, name, data)
                if difference is not None and not is_known(difference):
                    difference = await _compare(lane, name, data)
                if difference is not None:
                    found[name] = difference

        await asyncio.gather(*map(work, self.lanes))
        return [found[name] for name in cases if name in found]


@asynccontextmanager
async def pair(start_gate: Callable[..., Any], directory: Path) -> AsyncIterator[Pair]:
    """Start both until the block ends, each before upstreams of its own."""
    async with AsyncExitStack() as stack:
        behind = [await stack.enter_async_context(StrictUpstream()) for _ in range(2 * LANES)]
        ports = [free_port() for _ in range(LANES)]
        command = _nginx(
            directory, dict(zip(ports, (one.port for one in behind[:LANES]), strict=True))
        )
        await stack.enter_async_context(serving(command, directory, ports[-1]))
        lanes = []
        for port, behind_nginx, behind_gate in zip(ports, behind, behind[LANES:], strict=False):
            route = [{"name": "tool", "allow": ["public"]}]
            gate = await start_gate(behind_gate.url, route=route)
            lanes.append(_Lane(gate, behind_gate, port, behind_nginx))
        yield Pair(lanes)


def _nginx(directory: Path, ports: Mapping[int, int]) -> list[str]:
    """Write a plain proxy's configuration: from each port to the upstream at another."""
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; location / {{"
        f" proxy_pass http://127.0.0.1:{upstream}; }} }}\n"
        for port, upstream in ports.items()
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; master_process off; worker_processes 1; pid {directory}/pid;\n"
        "error_log stderr crit;\nevents { worker_connections 1024; }\n"
        f"http {{ access_log off;\n{temporary}{_TIMEOUTS}"
        # As the gate does it: the visitor's Host, and one protocol on both sides.
        "proxy_http_version 1.1;\nproxy_set_header Host $http_host;\n"
        f"{servers}}}\n"
    )
    return [program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")]


async def _compare(lane: _Lane, name: str, data: bytes) -> Difference | None:
    read, fault = reference.stream(data, LIMITS)
    gate, nginx = await asyncio.gather(
        _through_gate(lane, data, read, wrong=bool(fault)), _through_nginx(lane, data)
    )
    if gate.arrived == nginx.arrived and not gate.garbled and not nginx.garbled:
        return None
    return Difference(name, data, gate, nginx, tuple(read), fault)


async def _through_gate(lane: _Lane, data: bytes, read: list[Request], *, wrong: bool) -> Outcome:
    await lane.behind_gate.forget()
    whole = [one for one in read if one.complete]
    to_end = wrong or bool(whole and not reference.stays(whole[-1]))
    methods = [one.method for one in whole]
    answered = await converse(lane.gate.port, [data], methods, to_end=to_end)
    return _outcome(lane.behind_gate, answered.statuses)


async def _through_nginx(lane: _Lane, data: bytes) -> Outcome:
    await lane.behind_nginx.forget()
    heard: Heard = await say(lane.nginx_port, data, seconds=20)
    return _outcome(lane.behind_nginx, heard.statuses)


def _outcome(upstream: StrictUpstream, statuses: Iterable[int]) -> Outcome:
    return Outcome(tuple(map(_seen, upstream.whole)), tuple(statuses), upstream.unreadable)


def _seen(request: Request) -> Seen:
    return Seen(
        request.method, request.target, request.host, request.content, _fields(request.fields)
    )


def _fields(pairs: Pairs) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields of the message itself: none that one of the two sets or takes away."""
    listed = set(elements(pairs, b"connection"))
    own = {b"via", b"host"} | listed
    return tuple(
        (name, value)
        for name, value in pairs
        if name.lower() not in own and not rewriting.is_the_gates(name)
    )
