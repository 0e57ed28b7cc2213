"""Clients that leave at every moment of an exchange, and what is left of them: nothing."""

import asyncio

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

pytestmark = pytest.mark.both_loops


async def _settled(gate: RunningGate, upstream: RawUpstream) -> None:
    """Wait until the gate holds nothing of any exchange; the test's time limit bounds it."""
    (pool,) = gate.generation.process_state.upstream_pools.pools
    server = gate.server._server
    assert server is not None
    while (  # noqa: ASYNC110 - these are numbers of the gate's, which set no event
        pool._busy
        or server.connections
        or len(gate.generation.forwarder.tunnels)
        or upstream.open_connections > len(pool._idle)
    ):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("kind", ["get", "upload", "upgrade"])
async def test_a_client_that_leaves_leaves_nothing_behind(
    gate: RunningGate, upstream: RawUpstream, kind: str, turns: int
) -> None:
    """After `turns` turns of the event loop the client is gone, and so is all it used."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.line.startswith(b"POST"):
            request.body = await read_body(request, reader)
        if request.value("Upgrade"):
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\n\r\n"
            )
            await reader.read()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        for _ in range(9):
            writer.write(b"x")
            await asyncio.sleep(0)

    upstream.answer = answer
    data = {
        "get": request_bytes(Cookie=gate.cookie()),
        "upload": request_bytes(method="POST", Cookie=gate.cookie(), Content_Length="9") + b"x",
        "upgrade": request_bytes(
            Cookie=gate.cookie(),
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        ),
    }[kind]
    before = len(asyncio.all_tasks())
    for _ in range(3):
        async with RawClient.connect(gate.port) as client:
            client.send(data)
            for _ in range(turns):
                await asyncio.sleep(0)
            client.writer.transport.abort()
    await _settled(gate, upstream)

    # One task is left for each kept connection of the upstream that the test itself serves; one
    # that was cancelled ends a turn later.
    await until(lambda: len(asyncio.all_tasks()) <= before + upstream.open_connections)
    upstream.answer = OK
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        assert (await client.response()).status == 200
