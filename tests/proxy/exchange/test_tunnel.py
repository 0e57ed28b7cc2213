"""WebSockets through the gate, over raw sockets and with a real client and server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from gatekit import (
    Clock,
    PausedAnswer,
    RawClient,
    RawUpstream,
    Received,
    RunningGate,
    ask,
    request_bytes,
    until,
)
from storykit import served
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.proxy.message.websocket_frames import close_frame

pytestmark = pytest.mark.both_loops


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
    async with served(app) as port:
        yield f"http://127.0.0.1:{port}", codes


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
    await until(lambda: not gate.generation.forwarder.tunnels)
    line = (await gate.log())[-1]
    assert (line["status"], line["reason"]) == (101, "signed-in")


async def test_an_upgrade_without_a_session_is_refused(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """No session, no tunnel: 401 and nothing reaches the upstream."""
    response = await ask(gate.port, request_bytes("/ws", **UPGRADE))

    assert (response.status, response.json["error"]) == (401, "not-signed-in")
    assert upstream.requests == []


@pytest.mark.parametrize("status", [200, 401, 426, 503])
async def test_an_upgrade_that_the_upstream_declines(
    gate: RunningGate, upstream: RawUpstream, status: int
) -> None:
    """A plain answer to an upgrade is relayed, and no socket stays open."""
    upstream.answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        response = await client.response()
        assert (response.status, response.body) == (status, b"no")
        client.send(request_bytes("/next", Cookie=gate.cookie()))
        assert (await client.response()).status == status

    assert len(gate.generation.forwarder.tunnels) == 0


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
        assert len(gate.generation.forwarder.tunnels) == 1
        client.send(b"x")
        if who == "upstream":
            assert await client.reader.read() == b""
    await ended.wait()
    await until(lambda: len(gate.generation.forwarder.tunnels) == 0)


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
        gate.generation.process_state.upstream_pools.end_tunnels()
        go_on.set()

        expected = b"frame" + close_frame(1001, "the gate is stopping")
        assert await client.reader.readexactly(len(expected)) == expected
        client.send(b"\x00\x00\x00\x89\x80not this one")
        sent = await client.reader.read()
        assert sent == b""

    ping, close = (await got)[:6], (await got)[6:]
    assert ping == b"\x89\x80\x00\x00\x00\x00"
    assert close == close_frame(1001, "the gate is stopping", mask=close[2:6])


async def test_a_websocket_that_opens_while_stopping_is_ended_too(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """An upgrade answered after the order to stop gets its close frame at once."""

    async def switch(
        _request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(SWITCH)
        await reader.read()

    upstream.answer = paused = PausedAnswer(switch)
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await paused.arrived.wait()
        stopping = asyncio.create_task(gate.server.stop())
        await asyncio.sleep(0)
        paused.go_on.set()

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
        gate.generation.process_state.upstream_pools.end_tunnels()
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


async def _switched(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    writer.write(SWITCH)
    await reader.read()


async def test_an_upgrade_of_somebody_who_may_not_is_refused(
    start_gate: Callable[..., Any], upstream: RawUpstream
) -> None:
    """The rules of the route are asked before anything is opened, for an upgrade as for a page."""
    gate = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["sub:somebody"]}])

    response = await ask(gate.port, request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))

    assert (response.status, response.json["error"]) == (403, "denied")
    assert upstream.connections == 0


async def test_an_upgrade_is_rewritten_as_any_request(
    start_gate: Callable[..., Any], upstream: RawUpstream
) -> None:
    """Identity is stripped and set, the session's cookie dropped, path and host are the route's."""
    upstream.answer = _switched
    route = {"name": "tool", "path": "/app", "upstream_path": "/v2", "upstream_host": "tool.lan"}
    gate = await start_gate(upstream.url, route=[route])
    fields = {
        **UPGRADE,
        "Connection": "keep-alive, Upgrade, X-Hop",
        "Cookie": f"a=b; {gate.cookie()}",
        "Origin": "http://gate.test",
        "Sec_WebSocket_Extensions": 'permessage-deflate; client_max_window_bits, x-a;b="c d"',
        "Sec_WebSocket_Protocol": "chat, other",
        "X_Tailchat_Sub": "somebody",
        "X_Forwarded_For": "6.6.6.6",
        "X_Hop": "1",
        "Keep_Alive": "timeout=5",
    }
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/app/ws?token=1", **fields))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")

    (received,) = upstream.requests
    assert received.line == b"GET /v2/ws?token=1 HTTP/1.1"
    assert received.value("Host") == b"tool.lan"
    assert received.value("Cookie") == b"a=b"
    assert received.value("X-Tailchat-Sub") == b"660000000000000000000001"
    assert received.value("X-Forwarded-For") == b"127.0.0.1"
    assert received.value("Connection") == b"Upgrade"
    assert (received.value("X-Hop"), received.value("Keep-Alive")) == (None, None)
    for name in ("Upgrade", "Sec_WebSocket_Key", "Sec_WebSocket_Version", "Origin"):
        assert received.value(name.replace("_", "-")) == fields[name].encode()
    for name in ("Sec_WebSocket_Extensions", "Sec_WebSocket_Protocol"):
        assert received.value(name.replace("_", "-")) == fields[name].encode()


async def test_a_switch_is_rewritten_as_any_reply(
    start_gate: Callable[..., Any], upstream: RawUpstream, clock: Clock
) -> None:
    """A renewed session rides on the 101, and the tool cannot set it there, as nowhere else."""
    upstream.answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Hop\r\nUpgrade: WebSocket\r\n"
        b"X-Hop: 1\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Set-Cookie: tailchat_gate=stolen\r\nSet-Cookie: mine=1\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n\r\n"
    )
    gate = await start_gate(upstream.url, session={"lifetime": "12h", "idle": "2h"})
    cookie = gate.cookie()
    clock.now += 5000
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=cookie, **UPGRADE))
        found = Received(await client.head())

    assert found.line == b"HTTP/1.1 101 Switching Protocols"
    assert found.values("Upgrade") == [b"WebSocket"]
    assert found.values("Connection") == [b"Upgrade"]
    assert found.values("X-Hop") == []
    assert found.values("Sec-WebSocket-Protocol") == [b"chat"]
    mine, renewed = found.values("Set-Cookie")
    assert mine == b"mine=1"
    assert renewed.startswith(b"tailchat_gate=")
    assert b"stolen" not in renewed


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 200, b"no"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", 204, b""),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (
            b"HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 2\r\n\r\nno",
            401,
            b"no",
        ),
        (
            b"HTTP/1.1 426 No\r\nSec-WebSocket-Version: 13, 8\r\nContent-Length: 0\r\n\r\n",
            426,
            b"",
        ),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 40000\r\n\r\n", 503, b""),
        (b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", 403, b"no"),
    ],
)
async def test_whatever_an_upgrade_is_answered_with_is_passed_on(
    gate: RunningGate, upstream: RawUpstream, answer: bytes, status: int, body: bytes
) -> None:
    """Any form of a plain answer passes with its fields, and HTTP goes on behind it."""
    body = body or (b"x" * 40_000 if status == 503 else b"")
    upstream.answer = answer + (body if status == 503 else b"")
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        for _ in range(2):
            client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
            if b" 103 " in answer:
                assert (await client.head()).startswith(b"HTTP/1.1 103 ")
            response = await client.response()
            assert (response.status, response.body) == (status, body)
            for name in ("Location", "WWW-Authenticate", "Retry-After", "Sec-WebSocket-Version"):
                sent = Received(answer).values(name)
                assert [value.encode() for value in response.values(name)] == sent

    await until(lambda: not gate.generation.forwarder.tunnels)


async def test_an_upgrade_that_nobody_answers(
    start_gate: Callable[..., Any], upstream: RawUpstream
) -> None:
    """An upstream that is silent, gone or hangs up is a 504 or 502, and the client may go on."""
    arrived = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.line.startswith(b"GET /silent"):
            arrived.set()
            await reader.read()
            return
        writer.close()

    upstream.answer = answer
    gate = await start_gate(
        upstream.url,
        route=[
            {"name": "silent", "path": "/silent", "response_timeout": "1s"},
            {"name": "tool"},
            {"name": "gone", "path": "/gone", "upstream": "http://127.0.0.1:9"},
        ],
    )
    found = []
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        for path in ("/silent", "/hangs-up", "/gone"):
            client.send(request_bytes(path, Cookie=gate.cookie(), **UPGRADE))
            response = await client.response()
            found.append((response.status, response.json["error"]))

    assert arrived.is_set()
    assert found == [(504, "upstream-slow"), (502, "upstream-broken"), (502, "upstream-down")]
    assert len(gate.generation.forwarder.tunnels) == 0


async def test_a_tunnel_is_recorded_when_it_ends(gate: RunningGate, upstream: RawUpstream) -> None:
    """One line in the access log tells the status, the bytes to the client and the time."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(SWITCH + b"\x82\x02ab")
        await reader.readexactly(1)
        writer.write(b"\x82\x01c")
        writer.close()

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await client.head()
        assert await client.reader.readexactly(4) == b"\x82\x02ab"
        assert len(gate.generation.forwarder.tunnels) == 1
        client.send(b"x")
        assert await client.reader.read() == b"\x82\x01c"
    await until(lambda: len(gate.generation.forwarder.tunnels) == 0)

    (line,) = await gate.log()
    assert (line["status"], line["reason"], line["bytes"]) == (101, "signed-in", 7)
