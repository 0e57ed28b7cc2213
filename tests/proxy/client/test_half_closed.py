"""A client that ends its side after its request gets its response; one that left does not."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from gatekit import (
    OK,
    RawClient,
    RawUpstream,
    Received,
    RunningGate,
    read_body,
    request_bytes,
    until,
)
from wirekit import Heard, heard, post, reset

from tailchat_gate.proxy.client.protocol import ClientProtocol

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]

LARGE = b"f" * 3_000_000
PUBLIC = ["public"]


def _busy(gate: RunningGate) -> int:
    """Return how many requests are under way with the gate's tools."""
    return sum(len(pool._busy) for pool in gate.generation.process_state.upstream_pools.pools)


def _connections(gate: RunningGate) -> set[ClientProtocol]:
    server = gate.server._server
    assert server is not None
    return server.connections


def _half_closed(gate: RunningGate) -> bool:
    return any(one._half_closed is not None for one in _connections(gate))


def _stop_sweeping(gate: RunningGate) -> None:
    """Leave it to the test to look at deadlines."""
    server = gate.server._server
    assert server is not None
    assert server._sweeper is not None
    server._sweeper.cancel()


async def _start(start_gate: Start, upstream: RawUpstream, folder: Path) -> RunningGate:
    await asyncio.to_thread((folder / "a.txt").write_bytes, LARGE)
    routes = [
        {"name": "tool", "allow": PUBLIC},
        {"name": "members", "path": "/members"},
        {"name": "files", "path": "/files", "allow": PUBLIC, "upstream": f"file:{folder}"},
        {"name": "status", "path": "/status", "allow": PUBLIC, "upstream": "static:204"},
    ]
    gate = await start_gate(upstream.url, route=routes)
    assert isinstance(gate, RunningGate)
    return gate


async def _said(gate: RunningGate, data: bytes) -> Heard:
    """Send bytes, close that side, and return all that comes until the gate closes its own."""
    async with RawClient.connect(gate.port) as client:
        client.send(data)
        client.writer.write_eof()
        return await heard(client)


async def _behind_the_end(gate: RunningGate, writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    """Answer as a tool, once the gate has seen the end of what the client sends."""
    await until(lambda: _half_closed(gate))
    for piece in pieces:
        writer.write(piece)
        await writer.drain()


RESPONSES = {
    "a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"o", b"k"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n0\r\n\r\n"),
    "behind 103": (b"HTTP/1.1 103 Early Hints\r\n\r\n", OK),
    "large": (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE), LARGE),
}


@pytest.mark.parametrize("pieces", RESPONSES.values(), ids=RESPONSES.keys())
async def test_a_half_closed_client_gets_the_reply_of_a_tool(
    start_gate: Start, upstream: RawUpstream, tmp_path: Path, pieces: tuple[bytes, ...]
) -> None:
    """It comes whole, though it begins behind the client's end; then the connection closes."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await _behind_the_end(gate, writer, *pieces)

    upstream.answer = answer
    gate = await _start(start_gate, upstream, tmp_path)

    found = await _said(gate, request_bytes())

    assert not found.reset
    assert found.statuses[-1] == 200
    assert found.data.endswith(pieces[-1][-100_000:])
    assert found.data.count(b"f") >= pieces[-1].count(b"f")
    assert (await gate.log())[-1]["status"] == 200
    assert not _connections(gate)
    assert not _busy(gate)


PAGES = {
    "a file": ("/files/a.txt", {}, 200, LARGE),
    "no file": ("/files/none", {}, 404, b"404 Not Found\n"),
    "a status": ("/status", {}, 204, b"\r\n\r\n"),
    "ping": ("/ping", {}, 200, b""),
    "a page": ("/oauth2/sign_in", {"Accept": "text/html"}, 200, b"</html>"),
    "a sign-in": ("/oauth2/start?rd=%2F", {}, 302, b""),
    "a refusal": ("/members", {"Accept": "application/json"}, 401, b"}"),
    "a bad request": ("/%zz", {"Host": "b"}, 400, b""),
}


@pytest.mark.parametrize(("path", "fields", "status", "ends"), PAGES.values(), ids=PAGES.keys())
async def test_a_half_closed_client_gets_what_the_gate_answers(
    start_gate: Start,
    upstream: RawUpstream,
    tmp_path: Path,
    path: str,
    fields: dict[str, str],
    status: int,
    ends: bytes,
) -> None:
    """Files, own pages and refusals come whole; then the connection closes, unreset."""
    gate = await _start(start_gate, upstream, tmp_path)

    found = await _said(gate, request_bytes(path, **fields))

    assert not found.reset
    assert found.statuses == [status]
    assert found.data.rstrip().endswith(ends.rstrip())
    await until(lambda: not _connections(gate))


async def test_what_was_whole_before_the_end_is_answered(
    start_gate: Start, upstream: RawUpstream, tmp_path: Path
) -> None:
    """An upload, a refused upload and pipelined requests are; what the end cuts is not."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        bodies.append(await read_body(request, reader))
        writer.write(OK)

    bodies: list[bytes] = []
    upstream.answer = answer
    gate = await _start(start_gate, upstream, tmp_path)
    upload = post(b"Content-Length: 5\r\n", b"hello")
    chunks = post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")
    refused = request_bytes("/members", method="POST", Content_Length="5") + b"hello"

    assert (await _said(gate, upload)).statuses == [200]
    assert (await _said(gate, chunks)).statuses == [200]
    assert (await _said(gate, refused)).statuses == [401]
    row = request_bytes("/1") + upload + request_bytes("/ping") + request_bytes("/2")
    assert (await _said(gate, row)).statuses == [200] * 4
    assert (await _said(gate, request_bytes("/1") + request_bytes("/2")[:-4])).statuses == [200]
    whole = len(bodies)
    assert (await _said(gate, request_bytes()[:-2])).data == b""
    assert (await _said(gate, upload[:-1])).data == b""
    assert (await _said(gate, chunks[:-2])).data == b""
    assert bodies[:whole].count(b"hello") == 3
    await until(lambda: not _connections(gate) and not _busy(gate))


async def test_an_idle_connection_closes_with_its_client(
    start_gate: Start, upstream: RawUpstream, tmp_path: Path
) -> None:
    """A kept connection that gets an end behind its answer is closed at once."""
    gate = await _start(start_gate, upstream, tmp_path)
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes())
        assert (await client.response()).status == 200
        (connection,) = _connections(gate)
        assert connection.idle_deadline
        client.writer.write_eof()

        assert await heard(client) == Heard(b"", reset=False)
    await until(lambda: not _connections(gate))


@pytest.mark.parametrize("half", [True, False], ids=["half-closed", "left"])
async def test_silence_ends_a_request_whose_client_sends_no_more(
    start_gate: Start, upstream: RawUpstream, half: bool
) -> None:
    """While nothing is sent, one that waits and one that left look the same: both have a bound."""
    gone = asyncio.Event()

    async def silent(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read()
        gone.set()

    upstream.answer = silent
    gate = await start_gate(
        upstream.url,
        server={"half_closed_timeout": "1s"},
        route=[{"name": "tool", "allow": PUBLIC}],
    )
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        await until(lambda: len(upstream.requests) == 1)
        if half:
            client.writer.write_eof()
            assert (await heard(client)).data == b""
        else:
            client.writer.close()
        await gone.wait()

    line = (await gate.log())[-1]
    assert (line["status"], line["reason"]) == (499, "client-gone")
    assert not _connections(gate)
    assert not _busy(gate)


async def test_bytes_begin_the_wait_again(start_gate: Start, upstream: RawUpstream) -> None:
    """A reply may take as long as it likes, while no pause of it is as long as the bound."""
    go_on = asyncio.Semaphore(0)

    async def drips(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        for _ in range(9):
            await go_on.acquire()
            writer.write(b"x")

    upstream.answer = drips
    gate = await start_gate(upstream.url, route=[{"name": "tool", "allow": PUBLIC}])
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes())
        await client.head()
        client.writer.write_eof()
        await until(lambda: _half_closed(gate))
        _stop_sweeping(gate)
        (connection,) = _connections(gate)
        now = asyncio.get_running_loop().time()
        for turn in range(8):
            go_on.release()
            assert await client.reader.readexactly(1) == b"x"
            connection.check(now + 4 * turn)
        connection.check(now + 4 * 7 + 4.9)
        assert connection.transport is not None
        assert not connection.transport.is_closing()
        connection.check(now + 4 * 7 + 5.1)
        assert (await heard(client)).data == b""
    assert (await gate.log())[-1]["reason"] == "client-gone"


@pytest.mark.parametrize("how", ["one event", "many events", "reset"])
async def test_a_client_that_left_is_found_by_what_it_is_sent(
    start_gate: Start, upstream: RawUpstream, how: str
) -> None:
    """A reset, also one that answers a single event of a stream, ends the request long before."""
    gone = asyncio.Event()

    async def stream(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ended = asyncio.ensure_future(reader.read())
        if how != "reset":
            await _behind_the_end(
                gate, writer, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
            )
        while how == "many events" and not (ended.done() or writer.is_closing()):
            writer.write(b"data: 1\n\n")
            await asyncio.sleep(0)
        with suppress(ConnectionError):
            await ended
        gone.set()

    upstream.answer = stream
    gate = await start_gate(
        upstream.url,
        server={"half_closed_timeout": "1h"},
        route=[{"name": "tool", "allow": PUBLIC}],
    )
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        await until(lambda: len(upstream.requests) == 1)
        if how == "reset":
            reset(client.writer)
        else:
            client.writer.close()
        await gone.wait()

    await until(lambda: not _connections(gate))
    assert (await gate.log())[-1]["reason"] == "client-gone"
    assert not _busy(gate)


async def test_an_end_counts_as_leaving_where_that_is_configured(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """With a bound of 0 a half-closed client gets nothing, and its request is cancelled."""

    async def silent(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read()

    upstream.answer = silent
    gate = await start_gate(
        upstream.url,
        server={"half_closed_timeout": 0},
        route=[{"name": "tool", "allow": PUBLIC}],
    )
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes())
        await until(lambda: len(upstream.requests) == 1)
        _stop_sweeping(gate)
        client.writer.write_eof()
        assert await heard(client) == Heard(b"", reset=False)
    assert (await gate.log())[-1]["reason"] == "client-gone"


async def test_a_tunnel_is_told_of_an_end_that_came_before_it(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """An end before the switch is passed on, and the client gets the tunnel's bytes."""

    async def switch(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await _behind_the_end(
            gate,
            writer,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n1",
        )
        assert await reader.read() == b""
        writer.write(b"2")

    upstream.answer = switch
    gate = await start_gate(
        upstream.url, route=[{"name": "tool", "allow": PUBLIC, "upgrades": ["echo"]}]
    )

    found = await _said(gate, request_bytes(Connection="Upgrade", Upgrade="echo"))

    assert found.statuses == [101]
    assert found.data.endswith(b"\r\n\r\n12")
    assert len(gate.generation.forwarder.tunnels) == 0
