"""WebSockets through the gate, over raw sockets and with a real client and server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from gatekit import RawClient, RawUpstream, Received, RunningGate, ask, request_bytes
from websocketkit import SWITCH, UPGRADE
from wirekit import until

from tailchat_gate.proxy.frames import close_frame


@pytest.fixture
async def echo() -> AsyncIterator[tuple[str, list[int | None]]]:
    """Return the URL of a real WebSocket server that echoes, and the close codes it saw."""
    codes: list[int | None] = []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("chat", "other"), max_msg_size=2**25)
        await socket.prepare(request)
        await socket.send_str(request.headers.get("X-Tailchat-Sub", "nobody"))
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        codes.append(socket.close_code)
        return socket

    app = web.Application()
    app.router.add_get("/ws", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", codes
    await runner.cleanup()


async def _connect(
    session: aiohttp.ClientSession, gate: RunningGate
) -> "aiohttp.ClientWebSocketResponse[bool]":
    return await session.ws_connect(
        f"http://127.0.0.1:{gate.port}/ws",
        headers={"Cookie": gate.cookie(), "Host": "gate.test"},
        protocols=("other",),
        max_msg_size=2**25,
        compress=15,
    )


async def test_messages_pass_both_ways(
    start_gate: Callable[..., Any], echo: tuple[str, list[int | None]]
) -> None:
    """Text, binary and 16 MB messages, a subprotocol, compression and the close code pass."""
    url, codes = echo
    gate = await start_gate(url)
    async with aiohttp.ClientSession() as session:
        socket = await _connect(session, gate)
        assert socket.protocol == "other"
        assert socket.compress
        assert await socket.receive_str() == "660000000000000000000001"
        await socket.send_str("星野 ☆")
        assert await socket.receive_str() == "星野 ☆"
        large = bytes(range(256)) * 2**16
        await socket.send_bytes(large)
        assert await socket.receive_bytes() == large
        await socket.ping(b"here?")
        await socket.close(code=4123, message=b"done")

    assert codes == [4123]
    await until(lambda: not gate.generation.forwarder.open_tunnels)
    line = (await gate.log())[-1]
    assert (line["status"], line["reason"]) == (101, "signed-in")


async def test_an_upgrade_without_a_session_is_refused(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """No session, no tunnel: 401 and nothing reaches the upstream."""
    reply = await ask(gate.port, request_bytes("/ws", **UPGRADE))

    assert (reply.status, reply.json["error"]) == (401, "not-signed-in")
    assert upstream.requests == []


@pytest.mark.parametrize("status", [200, 401, 426, 503])
async def test_an_upgrade_that_the_upstream_declines(
    gate: RunningGate, upstream: RawUpstream, status: int
) -> None:
    """A plain answer to an upgrade is relayed, and no socket stays open."""
    upstream.answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        reply = await client.reply()
        assert (reply.status, reply.body) == (status, b"no")
        client.send(request_bytes("/next", Cookie=gate.cookie()))
        assert (await client.reply()).status == status

    assert gate.generation.forwarder.open_tunnels == 0


async def test_bytes_sent_with_the_switch_are_not_lost(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Frames in the same segment as the 101, and behind the upgrade request, arrive."""
    got: list[bytes] = []

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(SWITCH + b"\x81\x05early")
        got.append(await reader.readexactly(8))
        writer.close()

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE) + b"\x81\x82abcdef")
        head = await client.head()
        assert await client.reader.read() == b"\x81\x05early"

    assert head.startswith(b"HTTP/1.1 101 ")
    assert got == [b"\x81\x82abcdef"]
    received = upstream.requests[0]
    assert received.value("Connection") == b"Upgrade"
    assert received.value("Upgrade") == b"websocket"
    assert received.value("X-Tailchat-Sub") == b"660000000000000000000001"


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_either_end_that_leaves_ends_both(
    gate: RunningGate, upstream: RawUpstream, who: str
) -> None:
    """Whichever side closes, the other is closed and the tunnel is forgotten."""
    ended = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(SWITCH)
        if who == "upstream":
            await reader.readexactly(1)
            writer.close()
        else:
            await reader.read()
        ended.set()

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await client.head()
        assert gate.generation.forwarder.open_tunnels == 1
        client.send(b"x")
        if who == "upstream":
            assert await client.reader.read() == b""
    await ended.wait()
    await until(lambda: gate.generation.forwarder.open_tunnels == 0)


async def test_a_stopping_gate_closes_websockets_with_1001(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """A close frame goes to both sides, behind the frame that is under way, not inside it."""
    half, go_on = asyncio.Event(), asyncio.Event()
    got = asyncio.get_running_loop().create_future()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(SWITCH + b"\x81\x0ahalf ")
        first = await reader.readexactly(3)
        half.set()
        await go_on.wait()
        writer.write(b"frame\x81\x03not")
        got.set_result(first + await reader.read())

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await client.head()
        assert await client.reader.readexactly(7) == b"\x81\x0ahalf "
        client.send(b"\x89\x80\x00")
        await half.wait()
        gate.generation.lasting.traffic.end_tunnels()
        go_on.set()

        expected = b"frame" + close_frame(1001, "the gate is stopping")
        assert await client.reader.readexactly(len(expected)) == expected
        client.send(b"\x00\x00\x00\x89\x80not this one")
        sent = await asyncio.wait_for(client.reader.read(), 5)
        assert sent == b""

    ping, close = (await got)[:6], (await got)[6:]
    assert ping == b"\x89\x80\x00\x00\x00\x00"
    assert close == close_frame(1001, "the gate is stopping", mask=close[2:6])


async def test_a_websocket_that_opens_while_stopping_is_ended_too(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """An upgrade answered after the order to stop gets its close frame at once."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        arrived.set()
        await go_on.wait()
        writer.write(SWITCH)
        await reader.read()

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await arrived.wait()
        stopping = asyncio.create_task(gate.server.stop())
        await asyncio.sleep(0)
        go_on.set()

        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        expected = close_frame(1001, "the gate is stopping")
        assert await client.reader.readexactly(len(expected)) == expected
        client.send(close_frame(1001, "", mask=b"\x00\x00\x00\x00"))
        assert await client.reader.read() == b""
    await stopping


async def test_an_idle_tunnel_is_closed_cleanly(gate: RunningGate, upstream: RawUpstream) -> None:
    """Between frames the close frame goes out at once, masked for the upstream."""
    got = asyncio.get_running_loop().create_future()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(SWITCH)
        got.set_result(await reader.read())

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await client.head()
        gate.generation.lasting.traffic.end_tunnels()
        expected = close_frame(1001, "the gate is stopping")
        assert await client.reader.readexactly(len(expected)) == expected
        client.send(close_frame(1001, "", mask=b"\x00\x00\x00\x00"))
        assert await client.reader.read() == b""

    frame = await got
    assert frame[0] == 0x88
    assert frame == close_frame(1001, "the gate is stopping", mask=frame[2:6])


async def test_a_stalled_upstream_holds_the_client_back(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """What the upstream does not read is not taken from the client without bound."""
    go_on = asyncio.Event()
    total = 0

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal total
        writer.write(SWITCH)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go_on.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        while data := await reader.read(2**20):
            total += len(data)

    upstream.answer = answer
    frame = b"\x82\xff" + (2**26).to_bytes(8, "big") + b"\x00\x00\x00\x00"
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await client.head()
        client.send(frame)
        sent = 0
        stalled = False
        while not stalled and sent < 2**26:
            client.send(b"x" * 2**16)
            sent += 2**16
            try:
                await asyncio.wait_for(client.writer.drain(), 0.5)
            except TimeoutError:
                stalled = True
        assert sent < 48 * 2**20
        go_on.set()
        await client.writer.drain()
    await until(lambda: total == sent + len(frame))
