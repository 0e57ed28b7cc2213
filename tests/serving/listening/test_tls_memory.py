"""What connections by TLS cost in memory, and that there are not more than memory has room for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clikit import GATE
from gatekit import RawUpstream, request_bytes, until
from processkit import GateProcess, gate_process
from tlsgatekit import Certificates, https_port, tls_client

from tailchat_gate.serving.listening.tls import (
    ASYNCIO_BYTES,
    UVLOOP_BYTES,
    memory_limit,
    tls_connections,
)

StartGate = Callable[..., Any]

PUBLIC = [{"name": "tool", "allow": ["public"]}]
#: A gate on asyncio's loop, as where uvloop is not installed.
WITHOUT_UVLOOP = (
    *GATE[:-2],
    "-c",
    "import sys; sys.modules['uvloop'] = None; from tailchat_gate.cli import main; main()",
)
IDLE, BUSY = 100, 20


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates that no test replaces."""
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the process has ended")


@asynccontextmanager
async def _gate(
    folder: Path, certificates: Certificates, upstream: str, command: tuple[str, ...]
) -> AsyncIterator[tuple[GateProcess, int]]:
    """Serve by TLS in a process; yields the port, too."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port = listening.getsockname()[1]
        address = f"127.0.0.1:{port}"
        server = certificates.server(https_listen=[address], header_timeout="1h")
        del server["listen"]
        async with gate_process(
            folder,
            upstream,
            command=command,
            passed=[("", listening)],
            route=PUBLIC,
            server=server,
        ) as gate:
            yield gate, port


@pytest.mark.parametrize(
    ("command", "bytes_"), [(WITHOUT_UVLOOP, ASYNCIO_BYTES), (GATE, UVLOOP_BYTES)]
)
async def test_what_a_connection_costs(
    tmp_path: Path, certificates: Certificates, command: tuple[str, ...], bytes_: int
) -> None:
    """An idle one takes less than 160 kB, and one with a body that no tool reads what is counted.

    Beyond the latter 384 KiB are allowed: the allocator's, and those of a read that was large
    because the machine was busy.
    """
    body = request_bytes("/", method="POST", host="gate.test", Content_Length="1000000")
    with socket.create_server(("127.0.0.1", 0), backlog=BUSY) as tool:
        tool.setblocking(False)
        url = f"http://127.0.0.1:{tool.getsockname()[1]}"
        async with AsyncExitStack() as stack:
            gate, port = await stack.enter_async_context(
                _gate(tmp_path, certificates, url, command)
            )
            context, loop = certificates.trusting(), asyncio.get_running_loop()

            async def connect() -> Any:  # noqa: ANN401 - a client
                return await stack.enter_async_context(tls_client(port, context))

            async def measure() -> int:
                return await asyncio.to_thread(_resident, gate.process.pid)

            for _ in range(10):
                await connect()
            before = await measure()
            clients = [await connect() for _ in range(IDLE)]
            idle = (await measure() - before) // IDLE
            for client in clients[:BUSY]:
                client.send(body + b"x" * 1_000_000)
            for _ in range(BUSY):
                accepted, _ = await loop.sock_accept(tool)
                stack.callback(accepted.close)
                assert await loop.sock_recv(accepted, 65536)
            busy = (await measure() - before - idle * (IDLE - BUSY)) // BUSY

    assert idle < 160_000
    assert busy < bytes_ + (384 << 10)


def test_how_many_there_may_be() -> None:
    """By default all of them together take half of a container's memory at most."""
    assert tls_connections(512 << 20, uvloop=True) == 341
    assert tls_connections(512 << 20, uvloop=False) == 1024
    assert tls_connections(1, uvloop=True) == 1


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/a.slice/b\n", {"a.slice/b/memory.max": "max", "a.slice/memory.max": "4096"}, 4096),
        ("0::/../b\n", {"memory.max": "8192"}, 8192),
        ("3:cpu:/x\n4:memory:/y\n", {"memory/y/memory.limit_in_bytes": "12288"}, 12288),
        ("4:memory:/of/the/machine\n", {"memory/memory.limit_in_bytes": "16384"}, 16384),
        ("0::/\n", {"memory.max": "max"}, 0),
        ("", {}, 0),
    ],
)
def test_the_memory_of_a_process(
    tmp_path: Path, own: str, files: dict[str, str], limit: int
) -> None:
    """The least limit of its cgroups counts, of both versions, and else the machine's memory."""
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    machine = memory_limit(tmp_path / "none", tmp_path)
    assert memory_limit(tmp_path / "own", tmp_path) == (limit or machine)
    assert machine > 1 << 27


@pytest.mark.both_loops
async def test_idle_ones_make_room(start_gate: StartGate, certificates: Certificates) -> None:
    """Where as many are open as may be, the next one comes in once an idle one is closed."""
    gate = await start_gate(
        server=certificates.server(trusted_proxies=["127.0.0.1"]), limits={"tls_connections": 4}
    )
    port, context = https_port(gate), certificates.trusting()
    descriptors = gate.generation.process_state.descriptors
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(8):
            client = await stack.enter_async_context(tls_client(port, context))
            client.send(request_bytes("/ping", host="gate.test"))
            assert (await client.response()).status == 200
            clients.append(client)
            await until(lambda: descriptors.clients <= 4)
        assert await clients[0].reader.read() == b""


@pytest.mark.both_loops
async def test_busy_ones_make_none(
    start_gate: StartGate,
    upstream: RawUpstream,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A connection waits while all that may be are busy, and comes in when one has left."""
    gate = await start_gate(
        upstream.url,
        server=certificates.server(trusted_proxies=["127.0.0.1"]),
        limits={"tls_connections": 2},
        route=PUBLIC,
    )
    port, context = https_port(gate), certificates.trusting()
    begun = request_bytes("/", method="POST", host="gate.test", Content_Length="5")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(tls_client(port, context)) for _ in range(2)]
        for client in clients:
            client.send(begun)
        await until(lambda: upstream.open_connections == 2)
        waiting = asyncio.create_task(
            asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="gate.test")
        )
        try:
            await until(lambda: "a TLS connection has to wait" in caplog.text)
            assert not waiting.done()
            for client in clients:
                client.send(b"hello")
                assert (await client.response()).status == 200
            _, writer = await waiting
            writer.close()
        finally:
            waiting.cancel()


@pytest.mark.both_loops
async def test_one_client_has_half_of_them(
    start_gate: StartGate, certificates: Certificates
) -> None:
    """A client with half of those that may be loses its oldest idle one to its next."""
    gate = await start_gate(server=certificates.server(), limits={"tls_connections": 8})
    port, context = https_port(gate), certificates.trusting()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(tls_client(port, context)) for _ in range(5)]
        assert await clients[0].reader.read() == b""
        for client in clients[1:]:
            client.send(request_bytes("/ping", host="gate.test"))
            assert (await client.response()).status == 200
