"""How many requests and connections a tool and a client may have, and what the others notice."""

import asyncio
import json
import logging
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from clikit import GATE, environ, run
from gatekit import OK, RawClient, RawUpstream, Received, ask, request_bytes, until
from process import free_port
from reloadkit import file_text, sections
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.request.client import ClientAddress
from tailchat_gate.serving.listening.acceptor import Acceptor, PlainTaker

Start = Callable[..., Any]
PUBLIC = ["public"]


async def _never(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer nothing, until the other end leaves."""
    await reader.read()


@pytest.fixture
async def hanging() -> AsyncIterator[RawUpstream]:
    """Return a tool that never answers."""
    async with RawUpstream(_never) as found:
        yield found


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Give the test's own process all the descriptors that it may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _from(client: str, path: str = "/hang") -> bytes:
    return request_bytes(path, **{"X-Forwarded-For": client})


async def test_a_tool_and_a_client_have_so_many_places(
    start_gate: Start, hanging: RawUpstream, upstream: RawUpstream
) -> None:
    """Behind its places a tool is refused with 503, one client behind its part; others go on."""
    gate = await start_gate(
        server={"trusted_proxies": ["127.0.0.1"], "half_closed_timeout": "1s"},
        limits={"client_requests": 2},
        route=[
            {
                "name": "hang",
                "path": "/hang",
                "upstream": hanging.url,
                "allow": PUBLIC,
                "max_connections": 3,
            },
            {"name": "tool", "upstream": upstream.url, "allow": PUBLIC},
        ],
    )
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient.connect(gate.port)) for _ in range(3)]
        for client, address in zip(clients, ("192.0.2.1", "192.0.2.1", "192.0.2.2"), strict=True):
            client.send(_from(address))
        await until(lambda: len(hanging.requests) == 3)

        refused = await ask(gate.port, _from("192.0.2.1"))
        full = await ask(gate.port, _from("192.0.2.3"))
        assert (refused.status, refused.json["error"]) == (503, "upstream-busy")
        assert (full.status, full.json["error"]) == (503, "upstream-busy")
        assert full.value("Retry-After") == "5"
        assert (await ask(gate.port, _from("192.0.2.1", "/"))).body == b"ok"

        # Who leaves frees the place; who has two already does not get it.
        clients[2].writer.close()
        await until(lambda: hanging.open_connections == 2)
        refused = await ask(gate.port, _from("192.0.2.1"))
        assert (refused.status, refused.json["error"]) == (503, "client-busy")
        assert refused.value("Retry-After") == "5"
        clients[2] = await stack.enter_async_context(RawClient.connect(gate.port))
        clients[2].send(_from("192.0.2.3"))
        await until(lambda: len(hanging.requests) == 4)


async def test_a_websocket_keeps_its_place_until_it_ends(start_gate: Start) -> None:
    """A tool's WebSockets count as its requests do."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(SWITCH if request.value("Upgrade") else OK)
        if request.value("Upgrade"):
            await reader.read()

    async with RawUpstream(answer) as tool:
        route = {"name": "tool", "upstream": tool.url, "allow": PUBLIC, "max_connections": 1}
        gate = await start_gate(route=[route])
        async with RawClient.connect(gate.port) as client:
            client.send(request_bytes("/", **UPGRADE))
            assert b" 101 " in await client.head()
            assert (await ask(gate.port, request_bytes("/"))).json["error"] == "upstream-busy"
        await until(lambda: not gate.generation.process_state.upstream_pools.tunnels)

        assert (await ask(gate.port, request_bytes("/"))).body == b"ok"


async def test_files_that_nobody_reads_have_so_many_places(
    start_gate: Start, tmp_path: Path
) -> None:
    """A download holds a file open: it has a place of its route until it ends, and leaves it."""
    site = tmp_path / "site"
    await asyncio.to_thread(site.mkdir)
    await asyncio.to_thread((site / "large").write_bytes, b"x" * 30_000_000)
    route = {"name": "files", "upstream": f"file:{site}", "allow": PUBLIC, "max_connections": 1}
    gate = await start_gate(route=[route])
    descriptors = gate.generation.process_state.descriptors
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/large"))
        assert b" 200 " in await client.head()
        refused = await ask(gate.port, request_bytes("/large"))
        assert (refused.status, refused.json["error"]) == (503, "upstream-busy")
        assert descriptors.upstreams == 1
    await until(lambda: descriptors.upstreams == 0)
    assert (await ask(gate.port, request_bytes("/large"))).body == b"x" * 30_000_000


async def test_a_client_has_so_many_connections(start_gate: Start, hanging: RawUpstream) -> None:
    """A further connection closes the client's oldest idle one, or is refused with 503."""
    gate = await start_gate(
        server={"half_closed_timeout": "1s"},
        limits={"client_connections": 2},
        route=[{"name": "hang", "upstream": hanging.url, "allow": PUBLIC}],
    )
    async with AsyncExitStack() as stack:
        idle, busy, other = [
            await stack.enter_async_context(RawClient.connect(gate.port)) for _ in range(3)
        ]
        assert await idle.reader.read() == b""
        for client in (busy, other):
            client.send(request_bytes("/"))
        await until(lambda: len(hanging.requests) == 2)

        refused = await ask(gate.port, request_bytes("/ping"))

        assert (refused.status, refused.json["error"]) == (503, "client-busy")
        assert refused.value("Retry-After") == "5"
        busy.writer.close()
        await until(lambda: hanging.open_connections == 1)
        assert (await ask(gate.port, request_bytes("/ping"))).status == 200


async def test_a_trusted_proxy_is_no_client(start_gate: Start, hanging: RawUpstream) -> None:
    """The connections of a proxy in front are those of many people, and are not bound as one."""
    gate = await start_gate(
        server={"trusted_proxies": ["127.0.0.1"]},
        limits={"client_connections": 1},
        route=[{"name": "hang", "upstream": hanging.url, "allow": PUBLIC}],
    )
    async with AsyncExitStack() as stack:
        for number in range(3):
            client = await stack.enter_async_context(RawClient.connect(gate.port))
            client.send(_from(f"192.0.2.{number}", "/"))
        await until(lambda: len(hanging.requests) == 3)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::2", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("not an address", "not an address"),
    ],
)
def test_what_counts_as_one_client(address: str, network: str) -> None:
    """A client is an IPv4 address, or the /64 of which a host has every IPv6 address."""
    assert ClientAddress(address, "http", address).network == network


@asynccontextmanager
async def _serving(
    directory: Path,
    descriptors: int,
    *,
    uvloop: bool,
    **given: Any,  # noqa: ANN401 - as in the file
) -> AsyncIterator[tuple[int, int, list[bytes]]]:
    """Serve in a process with so many descriptors: its ports, and the log that it writes."""
    port, admin = free_port(), free_port()
    server = {"listen": f"127.0.0.1:{port}", "admin_listen": f"127.0.0.1:{admin}"}
    text = file_text(sections("http://127.0.0.1:9", server=server, **given))
    config = directory / "config.toml"
    await asyncio.to_thread(config.write_text, text)
    await asyncio.to_thread(config.chmod, 0o600)
    env = environ()
    if not uvloop:
        hidden = directory / "hidden"
        await asyncio.to_thread(hidden.mkdir)
        await asyncio.to_thread((hidden / "uvloop.py").write_text, "raise ImportError\n")
        env["PYTHONPATH"] = str(hidden)
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'ulimit -n {descriptors} && ulimit -Sn 64 && exec "$@"', "sh"),
        *(*GATE, "serve", "-c", str(config)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    assert process.stderr is not None
    told: list[bytes] = []

    async def read(stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            told.append(line)

    reading = asyncio.create_task(read(process.stderr))
    try:
        await until(lambda: any(b'"the gate is open"' in line for line in told), within=90)
        yield port, admin, told
    except AssertionError:
        raise AssertionError(b"".join(told).decode()) from None
    finally:
        process.terminate()
        await process.wait()
        await reading


async def _get(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("uvloop", [True, False])
async def test_a_tool_that_hangs_closes_nothing_else(
    hanging: RawUpstream, upstream: RawUpstream, tmp_path: Path, uvloop: bool
) -> None:
    """520 requests to it with 1,024 descriptors: other tools, the gate's own and locks go on."""
    routes = [
        {"name": "hang", "path": "/hang", "upstream": hanging.url, "allow": PUBLIC},
        {"name": "tool", "upstream": upstream.url, "allow": PUBLIC},
    ]
    given = {"route": routes, "state": {"path": str(tmp_path)}}
    async with (
        _serving(tmp_path, 1024, uvloop=uvloop, **given) as (port, admin, told),
        AsyncExitStack() as stack,
    ):
        for number in range(520):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(f"127.0.1.{number % 4 + 1}", 0)
            )
            stack.callback(writer.close)
            writer.write(request_bytes("/hang"))
        # A quarter of what the gate has for visitors, half of it for one client.
        await until(lambda: len(hanging.requests) == 208)

        assert (await ask(port, request_bytes("/hang"))).json["error"] == "upstream-busy"
        assert (await ask(port, request_bytes("/"))).body == b"ok"
        for at, path in ((port, "/ping"), (admin, "/healthz"), (admin, "/metrics")):
            assert (await _get(at, path))[0] == 200
        config = str(tmp_path / "config.toml")
        assert (await run("lock", "all", "-c", config))[0] == 0
        while json.loads((await _get(admin, "/status"))[1])["locks"] != 1:
            pass
        assert not any(b"Traceback" in line for line in told)


@pytest.mark.parametrize("uvloop", [True, False])
async def test_without_descriptors_idle_connections_make_room(
    upstream: RawUpstream, tmp_path: Path, uvloop: bool
) -> None:
    """Strangers that only connect are closed, the oldest first; the log says so in one line."""
    routes = [{"name": "tool", "upstream": upstream.url, "allow": PUBLIC}]
    async with (
        _serving(tmp_path, 256, uvloop=uvloop, route=routes) as (port, admin, told),
        AsyncExitStack() as stack,
    ):
        readers: list[asyncio.StreamReader] = []
        for number in range(600):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(f"127.0.1.{number % 8 + 1}", 0)
            )
            stack.callback(writer.close)
            readers.append(reader)
        assert await readers[0].read() == b""

        assert (await ask(port, request_bytes("/"))).body == b"ok"
        assert (await _get(admin, "/healthz"))[0] == 200
        await until(lambda: any(b"file descriptors" in line for line in told))
        (line,) = [line for line in told if b"file descriptors" in line]
        assert b"all file descriptors are in use" in line
        assert sum(map(len, told)) < 16_384


async def test_accepting_waits_where_there_is_no_descriptor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop is told once, not once a turn, and accepts what waits when there is room."""
    made: list[asyncio.Protocol] = []
    failed = asyncio.Event()

    def make() -> asyncio.Protocol:
        made.append(asyncio.Protocol())
        return made[-1]

    listening = socket.create_server(("127.0.0.1", 0))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    acceptor = Acceptor(listening, PlainTaker(make), failed.set)
    with socket.create_connection(listening.getsockname()) as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, before[1]))
        # What is below the limit is in use.
        filled: list[socket.socket] = []
        with suppress(OSError):
            while True:
                filled.append(client.dup())
        with caplog.at_level(logging.WARNING):
            acceptor.start(16)
            await failed.wait()
            assert made == []
            for one in filled:
                one.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            await until(lambda: bool(made))
        await acceptor.close()
    assert caplog.records == []
