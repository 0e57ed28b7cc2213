"""A client that leaves ends every wait of its request at once, and gives back what it held."""

import asyncio
import fcntl
import socket
import struct
import termios
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from gatekit import RawUpstream, Received, RunningGate, until
from process import free_port
from wirekit import CHUNKED, HOST

from tailchat_gate.proxy.upstream import resolver
from tailchat_gate.proxy.upstream.connection import UpstreamConnection

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]

#: Longer than any test: who is given back in one is not given back by a time limit.
LONG = "60s"
LARGE = 64 * 2**20
_INT = struct.Struct("i")
_RESET = struct.pack("ii", 1, 0)


async def _never(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Read nothing more, answer nothing."""
    await asyncio.Event().wait()


@pytest.fixture
async def silent() -> AsyncIterator[RawUpstream]:
    """Return a tool that reads a request's head, and nothing after it."""
    async with RawUpstream(_never) as found:
        yield found


@pytest.fixture
def no_answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have no look-up of a name end."""
    over = threading.Event()

    def ask(host: str) -> OSError:
        over.wait()
        return OSError(host)

    monkeypatch.setattr(resolver, "_getaddrinfo", ask)
    yield
    over.set()


def _request(path: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (
        b"PUT" if fields else b"GET",
        path,
        HOST,
        fields,
        body,
    )


LENGTH = b"Content-Length: 9\r\n"
#: By what is waited for and what the client sent: that, and whether its request is whole. Of a
#: whole one whose client closes its side nothing tells that it left but `half_closed_timeout`.
WAITS = {
    "a connection, no body": (_request(b"/down"), True),
    "a connection, half a body": (_request(b"/down", LENGTH, b"half"), False),
    "a connection, a whole body": (_request(b"/down", LENGTH, b"all of it"), True),
    "a connection, some chunks": (_request(b"/down", CHUNKED, b"4\r\nhalf\r\n"), False),
    "a connection, half a chunk": (_request(b"/down", CHUNKED, b"9\r\nhalf"), False),
    "a look-up, no body": (_request(b"/name"), True),
    "a look-up, half a body": (_request(b"/name", LENGTH, b"half"), False),
    "a response": (_request(b"/"), True),
    "a response, more behind": (_request(b"/") * 2, True),
    "a response, half a body": (_request(b"/", LENGTH, b"half"), False),
    "room for an upload": (_request(b"/", b"Content-Length: %d\r\n" % LARGE), False),
}


async def _start(start_gate: Start, silent: RawUpstream, *, whole: bool) -> RunningGate:
    usual = {"allow": ["public"], "connect_retry": LONG, "connect_timeout": LONG}
    down = f"http://127.0.0.1:{free_port()}"
    gate = await start_gate(
        server={"half_closed_timeout": "0" if whole else LONG},
        route=[
            {**usual, "name": "tool", "upstream": silent.url},
            {**usual, "name": "down", "path": "/down", "upstream": down},
            {**usual, "name": "name", "path": "/name", "upstream": "http://tool.example"},
        ],
    )
    assert isinstance(gate, RunningGate)
    return gate


def _places(gate: RunningGate) -> int:
    return sum(pool._entered for pool in gate.generation.process_state.upstream_pools.pools)


def _is_held(gate: RunningGate) -> bool:
    server = gate.server._server
    assert server is not None
    return any(one._holds for one in server.connections)


async def _send(gate: RunningGate, client: socket.socket, data: bytes) -> None:
    """Send a request; of a large body no more than the gate takes."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", gate.port))
    await loop.sock_sendall(client, data)
    await until(lambda: _places(gate) == 1)
    if b"%d" % LARGE in data:
        while not _is_held(gate):
            await loop.sock_sendall(client, b"x" * 16_384)
            # Behind bytes for which the gate's socket has no room, its FIN would not arrive.
            await until(lambda: not _unacknowledged(client))


def _unacknowledged(client: socket.socket) -> int:
    """Return how many bytes the peer's system has not taken yet (tcp(7), SIOCOUTQ)."""
    found = fcntl.ioctl(client.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
    return int(_INT.unpack(found)[0])


@pytest.mark.usefixtures("no_answer")
@pytest.mark.parametrize("leaves", ["close", "reset"])
@pytest.mark.parametrize(("data", "whole"), WAITS.values(), ids=WAITS)
async def test_a_client_that_leaves_ends_the_wait(
    start_gate: Start, silent: RawUpstream, data: bytes, *, whole: bool, leaves: str
) -> None:
    """Its place, its connections and its tasks are free again, whatever its request waited for."""
    gate = await _start(start_gate, silent, whole=whole and leaves == "close")
    process_state = gate.generation.process_state
    before = len(asyncio.all_tasks())
    client = socket.socket()
    client.setblocking(False)
    await _send(gate, client, data)
    if leaves == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()
    await until(lambda: not _places(gate))

    await until(lambda: not gate.server._server.connections)  # type: ignore[union-attr]
    assert process_state.descriptors.clients == 0
    await until(lambda: process_state.descriptors.upstreams == 0)
    await until(lambda: len(asyncio.all_tasks()) <= before + silent.open_connections)
    assert (await gate.log())[-1]["reason"] == "client-gone"


async def test_who_leaves_as_the_connection_opens_leaves_no_count(
    start_gate: Start, silent: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that nobody waits for any more when it opens is closed, and not counted."""
    gate = await _start(start_gate, silent, whole=False)
    process_state = gate.generation.process_state
    (pool,) = (
        pool for pool in process_state.upstream_pools.pools if pool.backend.url == silent.url
    )
    made = UpstreamConnection.connection_made

    def leave(connection: UpstreamConnection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        waiting.cancel()

    monkeypatch.setattr(UpstreamConnection, "connection_made", leave)
    waiting = asyncio.create_task(pool.connect(5.0, 0.0))
    await asyncio.wait((waiting,))
    assert waiting.cancelled()

    await until(lambda: silent.connections == 1 and not silent.open_connections)
    assert (pool.open, process_state.descriptors.upstreams) == (0, 0)


async def test_a_whole_upload_whose_client_sends_no_more_goes_on(
    start_gate: Start, silent: RawUpstream
) -> None:
    """What a client sent before it ended its side is not cut while the tool takes its time."""
    body = b"x" * 4 * 2**20
    go_on = asyncio.Event()

    async def slow(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await go_on.wait()
        request.body = await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    silent.answer = slow
    gate = await _start(start_gate, silent, whole=False)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(body))
        await loop.sock_connect(client, ("127.0.0.1", gate.port))
        sending = asyncio.create_task(
            loop.sock_sendall(client, _request(b"/", b"Content-Length: %d\r\n" % len(body), body))
        )
        await until(lambda: sending.done() or _is_held(gate))
        (connection,) = gate.server._server.connections  # type: ignore[union-attr]
        connection.check(loop.time())
        go_on.set()
        await sending
        client.shutdown(socket.SHUT_WR)
        connection.check(loop.time())
        said = b""
        while more := await loop.sock_recv(client, 65_536):
            said += more

    assert said.endswith(b"\r\n\r\nok")
    assert silent.requests[0].body == body
