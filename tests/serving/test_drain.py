"""A gate that stops says so before it closes a connection: no request is lost by it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from gatekit import (
    PausedAnswer,
    RawClient,
    RawUpstream,
    Received,
    Response,
    RunningGate,
    login_cookie,
    request_bytes,
    until,
)
from websocketkit import SWITCH, UPGRADE

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]
PUBLIC = [{"name": "tool", "allow": ["public"]}]


@asynccontextmanager
async def _stopping(gate: RunningGate) -> AsyncIterator["asyncio.Task[None]"]:
    """Order a gate to stop for the block; then it waits for nobody."""
    stopping = asyncio.create_task(gate.server.stop())
    await asyncio.sleep(0)
    try:
        yield stopping
    finally:
        gate.server.hurry()
        await stopping


async def _readyz(gate: RunningGate) -> int:
    host, port = gate.admin_address
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}/readyz") as response,
    ):
        return response.status


async def _last(client: RawClient) -> Response:
    """Return a response that says it is the last, and is."""
    response = await client.response()
    assert response.value("Connection") == "close"
    assert await client.reader.read() == b""
    return response


@pytest.fixture
def _graceful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stopping gate keep idle connections for as long as a busy machine may need."""
    monkeypatch.setattr("tailchat_gate.proxy.client.server.GRACE_SECONDS", 30.0)


@pytest.mark.usefixtures("_graceful")
async def test_busy_clients_are_told_before_they_are_left(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Of clients that send one request after another each is answered and told; none is cut off."""
    server = {"shutdown_timeout": "1m"}
    gate = await start_gate(upstream.url, route=PUBLIC, server=server)
    told: list[bool] = []

    async def busy() -> None:
        async with RawClient.connect(gate.port) as client:
            while not told or not told[-1]:
                client.send(request_bytes())
                response = await client.response()
                if response.value("Connection") == "close":
                    told.append(await client.reader.read() == b"")
                    return

    clients = [asyncio.create_task(busy()) for _ in range(32)]
    await until(lambda: len(upstream.requests) > 100)
    await gate.server.stop()
    await asyncio.gather(*clients)

    assert told == [True] * 32


@pytest.mark.usefixtures("_graceful")
async def test_a_connection_that_was_not_told_takes_one_more_request(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A response that had let its connection stay open before the stop keeps its word."""
    go_on = asyncio.Event()

    async def halves(
        _: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await go_on.wait()
        writer.write(b"k")

    upstream.answer = halves
    gate = await start_gate(upstream.url, route=PUBLIC)
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes())
        head = await client.head()
        async with _stopping(gate):
            go_on.set()
            assert await client.reader.readexactly(2) == b"ok"
            assert b"Connection" not in head
            client.send(request_bytes())
            assert (await _last(client)).body == b"ok"


@pytest.mark.parametrize("keys", [{}, {"request_buffer": "1MiB"}])
async def test_a_request_under_way_is_told(
    start_gate: Start, upstream: RawUpstream, keys: dict[str, Any]
) -> None:
    """The response of a request that came before the stop says that it is the last."""
    upstream.answer = paused = PausedAnswer()
    gate = await start_gate(upstream.url, route=[{**PUBLIC[0], **keys}])
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(method="PUT", Content_Length="2") + b"ab")
        await paused.arrived.wait()
        async with _stopping(gate):
            paused.go_on.set()
            assert (await _last(client)).status == 200


async def test_an_own_page_under_way_is_told(start_gate: Start) -> None:
    """So does a page of the gate's own that waits for Tailchat meanwhile."""
    paused = PausedAnswer()
    async with RawUpstream(paused) as tailchat:
        gate = await start_gate(tailchat={"api_url": tailchat.url})
        async with RawClient.connect(gate.port) as client:
            client.send(request_bytes("/oauth2/start", Accept="text/html"))
            begun = await client.response()
            state = parse_qs(urlsplit(begun.value("Location")).query)["state"][0]
            cookie = login_cookie(begun)
            paused.arrived.clear()
            client.send(request_bytes(f"/oauth2/callback?code=x&state={state}", Cookie=cookie))
            await paused.arrived.wait()
            async with _stopping(gate):
                paused.go_on.set()
                assert (await _last(client)).status == 502


@pytest.mark.usefixtures("_graceful")
async def test_fresh_and_half_read_connections_are_answered(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A request that begins or ends after the order to stop is answered."""
    gate = await start_gate(upstream.url, route=PUBLIC)
    data = request_bytes()
    async with RawClient.connect(gate.port) as fresh, RawClient.connect(gate.port) as half:
        half.send(data[:20])
        await until(lambda: sum(bool(c._kept) for c in gate.server._server.connections) == 1)
        async with _stopping(gate):
            fresh.send(data)
            assert (await _last(fresh)).body == b"ok"
            half.send(data[20:])
            assert (await _last(half)).body == b"ok"


async def test_those_who_wait_in_the_kernel_are_answered(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A connection that the gate has not accepted when it closes its listener is not reset."""
    gate = await start_gate(upstream.url, route=PUBLIC)
    # No turn of the event loop from the connection to the order to stop.
    with socket.create_connection(("127.0.0.1", gate.port)) as connected:
        connected.sendall(request_bytes())
        stopping = asyncio.create_task(gate.server.stop())
        reader, writer = await asyncio.open_connection(sock=connected.dup())
        client = RawClient(reader, writer)
        try:
            assert (await _last(client)).body == b"ok"
        finally:
            writer.close()
        await stopping


async def test_the_delay_before_the_listeners_close(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """For `drain_delay` new connections are served, /readyz says no and WebSockets stay open."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.value("Upgrade"):
            writer.write(SWITCH)
            writer.write(await reader.readexactly(6))
        else:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    upstream.answer = answer
    server = {"drain_delay": "1h", "admin_listen": "127.0.0.1:0"}
    gate = await start_gate(upstream.url, route=PUBLIC, server=server)
    async with RawClient.connect(gate.port) as websocket, RawClient.connect(gate.port) as idle:
        websocket.send(request_bytes(**UPGRADE))
        assert (await websocket.head()).startswith(b"HTTP/1.1 101 ")
        async with _stopping(gate):
            assert await _readyz(gate) == 503
            async with RawClient.connect(gate.port) as client:
                client.send(request_bytes())
                assert (await _last(client)).status == 204
            websocket.send(b"\x81\x80abcd")
            assert await websocket.reader.readexactly(6) == b"\x81\x80abcd"
            idle.send(request_bytes())
            assert (await _last(idle)).status == 204
            gate.server.hurry()
            # 1001, going away.
            frame = await websocket.reader.readexactly(4)
            assert (frame[0], frame[2:]) == (0x88, b"\x03\xe9")


async def test_a_gate_that_stops_leaves_idle_connections(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A client that sends nothing does not keep the gate until its limit."""
    gate = await start_gate(upstream.url, route=PUBLIC, server={"shutdown_timeout": "1h"})
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes())
        await client.response()
        await gate.server.stop()
        assert await client.reader.read() == b""


async def test_a_request_that_has_just_come_keeps_its_connection(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """An idle connection whose time is up is not closed upon a request that is not read yet."""
    gate = await start_gate(upstream.url, route=PUBLIC)
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes())
        await client.response()
        (connection,) = gate.server._server.connections
        # No turn of the event loop from the request to the check of the deadlines.
        os.write(client.writer.get_extra_info("socket").fileno(), request_bytes())
        connection.check(connection._deadline + 1)

        assert (await client.response()).body == b"ok"
