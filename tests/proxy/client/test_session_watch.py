"""What is under way ends with its session: when it expires, is signed out or is locked."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from gatekit import (
    ALICE,
    START,
    SUB,
    RawClient,
    RawUpstream,
    Received,
    RunningGate,
    ask,
    make_settings,
    request_bytes,
    running_gate,
    until,
)
from interpreted import counts_pythons_steps
from storekit import StoredEntries
from storykit import served

from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.revocation.state import Entry, Lock, RevocationState, SignedOut
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.proxy.client import server
from tailchat_gate.proxy.client.active_request import ActiveRequest
from tailchat_gate.proxy.client.watches import SessionWatch
from tailchat_gate.proxy.message.websocket_frames import close_frame
from tailchat_gate.reasons import Reason
from tailchat_gate.serving.wiring.build import build
from tailchat_gate.state import bookkeeping

pytestmark = pytest.mark.both_loops

NOW = int(START)
NOW_IS = datetime.fromtimestamp(START, UTC)
HOUR = 3600
LOCK = Lock(f"sub:{SUB}", NOW, None, "enough")
OUT = SignedOut(f"sub:{SUB}", NOW, NOW + 13 * HOUR)
BOB = ALICE._replace(sub="660000000000000000000002", nickname="Bob")
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: %b\r\nConnection: Upgrade\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
EVENT = b"a\r\ndata: one\n\r\n"
PAGE = {"Accept": "text/html", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}

Start = Callable[..., Any]


class Tool:
    """An upstream that begins to answer, keeps on until its connection ends, and says how."""

    def __init__(self, begin: bytes) -> None:
        self.begin = begin
        self.got = b""
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()

    async def answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer a request in part."""
        if request.line.endswith(b" /short HTTP/1.1"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        writer.write(self.begin)
        self.asked.set()
        try:
            while data := await reader.read(2**16):
                self.got += data
        finally:
            self.ended.set()


def _live_ended(gate: RunningGate) -> float:
    """Return how many requests under way were ended, for any reason."""
    lines = gate.generation.process_state.metrics.render().decode().splitlines()
    return sum(float(one.split()[1]) for one in lines if one.startswith("gate_live_ended_total{"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the gate's state is."""
    return tmp_path


@pytest.fixture
def start(start_gate: Start, upstream: RawUpstream, path: Path) -> Start:
    """Return a function that starts a gate with a store."""

    async def start(url: str = "", **sections: object) -> RunningGate:
        found = await start_gate(url or upstream.url, state={"path": str(path)}, **sections)
        assert isinstance(found, RunningGate)
        return found

    return start


@pytest.fixture(autouse=True)
def _looked_at_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is under way, and the store, looked at more often than each half second."""
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(bookkeeping, "LOOK_SECONDS", 0.05)


async def _put(path: Path, *entries: Entry) -> None:
    await asyncio.to_thread(StoredEntries(path).append, entries)


async def _expire(gate: RunningGate) -> None:
    gate.clock.now += 12 * HOUR


async def _lock(gate: RunningGate) -> None:
    await _put(Path(gate.generation.settings.state.path), LOCK)


async def _sign_out_everywhere(gate: RunningGate) -> None:
    await _put(Path(gate.generation.settings.state.path), OUT)


#: What ends a session, the reason in the log, and what the metrics call it.
ENDS = [
    pytest.param(_lock, "locked", "locked", id="locked"),
    pytest.param(_sign_out_everywhere, "session-ended", "session-ended", id="signed-out"),
    pytest.param(_expire, "not-signed-in", "expired", id="expired"),
]


async def _cut_off(reader: asyncio.StreamReader, *, within: float = 15.0) -> bytes:
    """Return what came before the connection was reset, within so many seconds."""
    got = b""
    async with asyncio.timeout(within):
        try:
            while data := await reader.read(2**16):
                got += data
        except ConnectionResetError:
            return got
    raise AssertionError("a clean end")


async def _silent(*clients: RawClient, seconds: float = 0.8) -> bool:
    """Tell whether clients hear nothing for longer than the gate takes to look at them again."""
    reads = [asyncio.create_task(client.reader.read(1)) for client in clients]
    done, waiting = await asyncio.wait(reads, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for read in waiting:
        read.cancel()
    await asyncio.wait(reads)
    return not done


async def _logged(gate: RunningGate, reason: str) -> dict[str, Any]:
    """Return the line of what was ended for a reason."""
    return next(line for line in await gate.log() if line["reason"] == reason)


@pytest.fixture
async def real_socket(start: Start) -> AsyncIterator[tuple[RunningGate, Any, list[int | None]]]:
    """Return a gate, a real client's WebSocket through it, and the close codes the server saw."""
    codes: list[int | None] = []

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        codes.append(socket.close_code)
        return socket

    app = web.Application()
    app.router.add_get("/ws", handle)
    async with served(app) as port, aiohttp.ClientSession() as session:
        gate = await start(f"http://127.0.0.1:{port}")
        headers = {"Cookie": gate.cookie(), "Host": "gate.test"}
        async with session.ws_connect(
            f"http://127.0.0.1:{gate.port}/ws", headers=headers
        ) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            yield gate, socket, codes


@pytest.mark.parametrize(("end", "reason", "why"), ENDS)
async def test_a_websocket_ends_within_a_second(
    real_socket: tuple[RunningGate, Any, list[int | None]],
    end: Callable[[RunningGate], Any],
    reason: str,
    why: str,
) -> None:
    """A lock, a sign-out and the lifetime end an open WebSocket with 3000, on both sides."""
    gate, socket, codes = real_socket
    await end(gate)
    async with asyncio.timeout(15):
        message = await socket.receive()

    text = "locked" if reason == "locked" else "the session is over"
    assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 3000, text)
    await until(lambda: codes == [3000])
    await until(lambda: len(gate.generation.forwarder.tunnels) == 0)
    line = await _logged(gate, reason)
    assert (line["status"], line["sub"]) == (101, SUB)
    metrics = gate.generation.process_state.metrics.render().decode()
    assert f'gate_live_ended_total{{why="{why}"}} 1.0' in metrics


async def test_signing_out_ends_the_websockets_of_that_session_alone(
    start: Start, upstream: RawUpstream
) -> None:
    """The sign-out of one session closes its WebSocket, and nobody else's, nor another one's."""
    upstream.answer = Tool(SWITCH % b"websocket").answer
    gate = await start()
    cookies = [gate.cookie(), gate.cookie(), gate.cookie(BOB)]
    async with (
        RawClient.connect(gate.port) as mine,
        RawClient.connect(gate.port) as other,
        RawClient.connect(gate.port) as bobs,
    ):
        for client, cookie in zip((mine, other, bobs), cookies, strict=True):
            client.send(request_bytes("/ws", Cookie=cookie, **UPGRADE))
            await client.head()
        form = {"Sec_Fetch_Site": "same-origin", "Content_Length": "0"}
        out = request_bytes("/oauth2/sign_out", method="POST", Cookie=cookies[0], **form)
        assert (await ask(gate.port, out)).status == 303

        expected = close_frame(3000, "the session is over")
        async with asyncio.timeout(15):
            assert await mine.reader.readexactly(len(expected)) == expected
        await until(lambda: len(gate.generation.forwarder.tunnels) == 2)
        assert await _silent(other, bobs)


@pytest.mark.parametrize("begun", [True, False])
async def test_what_a_revoked_session_has_under_way_ends(
    start: Start, upstream: RawUpstream, begun: bool
) -> None:
    """A session that Tailchat no longer confirms ends like one that was signed out."""
    tool = Tool(STREAM + EVENT if begun else b"")
    upstream.answer = tool.answer
    gate = await start()
    record = SessionRecord.begin(ALICE, now=START, login="l")
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/events", Cookie=gate.seal(record)))
        await tool.asked.wait()
        if begun:
            await client.head()
        gate.generation.process_state.locks.revoke(record, lifetime=HOUR)
        if begun:
            await _cut_off(client.reader)
        else:
            async with asyncio.timeout(15):
                response = await client.response()
            assert (response.status, response.json["error"]) == (401, "session-revoked")

    metrics = gate.generation.process_state.metrics.render()
    assert b'gate_live_ended_total{why="session-revoked"} 1.0' in metrics


async def test_a_change_is_looked_at_without_delay(
    start: Start, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who signs out does not wait for the next round: what is under way ends at once."""
    monkeypatch.setattr(server, "SWEEP_SECONDS", 60.0)
    upstream.answer = Tool(STREAM + EVENT).answer
    gate = await start()
    cookie = gate.cookie()
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/events", Cookie=cookie))
        await client.head()
        form = {"Sec_Fetch_Site": "same-origin", "Content_Length": "0"}
        await ask(
            gate.port, request_bytes("/oauth2/sign_out", method="POST", Cookie=cookie, **form)
        )
        await _cut_off(client.reader)


@pytest.mark.parametrize(("end", "reason", "why"), ENDS)
@pytest.mark.parametrize("begin", [STREAM + EVENT, ENDLESS + EVENT])
async def test_a_stream_is_cut_off(
    start: Start,
    upstream: RawUpstream,
    begin: bytes,
    end: Callable[[RunningGate], Any],
    reason: str,
    why: str,
) -> None:
    """An event stream ends with a reset, never as if it were whole, and so does the tool's side."""
    tool = Tool(begin)
    upstream.answer = tool.answer
    gate = await start()
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/events", Cookie=gate.cookie()))
        assert b" 200 " in await client.head()
        assert b"data: one" in await client.reader.readuntil(b"one")
        await end(gate)
        await _cut_off(client.reader)
    async with asyncio.timeout(15):
        await tool.ended.wait()

    line = await _logged(gate, reason)
    assert (line["status"], line["sub"]) == (200, SUB)
    metrics = gate.generation.process_state.metrics.render().decode()
    assert f'gate_live_ended_total{{why="{why}"}} 1.0' in metrics
    await until(lambda: upstream.open_connections == 0)


@pytest.mark.parametrize(
    ("end", "status", "word"),
    [
        (_lock, 403, "locked"),
        (_sign_out_everywhere, 401, "session-ended"),
        (_expire, 401, "not-signed-in"),
    ],
)
async def test_a_request_that_waits_is_answered(
    start: Start, upstream: RawUpstream, end: Callable[[RunningGate], Any], status: int, word: str
) -> None:
    """Where nothing of the reply has come the client is told why, and the tool is left alone."""
    tool = Tool(b"")
    upstream.answer = tool.answer
    gate = await start()
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/slow", Cookie=gate.cookie()))
        await tool.asked.wait()
        await end(gate)
        async with asyncio.timeout(15):
            response = await client.response()
            await tool.ended.wait()

    assert (response.status, response.json["error"]) == (status, word)
    assert response.json.get("notice") == (LOCK.message if word == "locked" else None)


@pytest.mark.parametrize(
    ("end", "status"), [(_lock, 403), (_expire, 302), (_sign_out_everywhere, 302)]
)
async def test_a_navigation_that_waits_gets_its_page(
    start: Start, upstream: RawUpstream, end: Callable[[RunningGate], Any], status: int
) -> None:
    """A person who waits for a page goes to the login, or sees why there is none."""
    tool = Tool(b"")
    upstream.answer = tool.answer
    gate = await start()
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/slow", Cookie=gate.cookie(), **PAGE))
        await tool.asked.wait()
        await end(gate)
        async with asyncio.timeout(15):
            response = await client.response()

    assert response.status == status
    if status == 302:
        assert response.value("Location") == "http://gate.test/oauth2/start?rd=/slow"


async def test_an_upload_is_stopped(start: Start, upstream: RawUpstream) -> None:
    """The tool gets no whole body, and the client is told why."""
    tool = Tool(b"")
    upstream.answer = tool.answer
    gate = await start()
    async with RawClient.connect(gate.port) as client:
        head = request_bytes("/up", method="POST", Cookie=gate.cookie(), Content_Length="1000000")
        client.send(head + b"x" * 1000)
        await until(lambda: len(tool.got) == 1000)
        await _lock(gate)
        async with asyncio.timeout(15):
            response = await client.response()
            await tool.ended.wait()

    assert (response.status, response.json["error"]) == (403, "locked")
    assert response.value("Connection") == "close"
    assert len(tool.got) == 1000


async def test_an_upload_whose_reply_has_begun_is_cut_off(
    start: Start, upstream: RawUpstream
) -> None:
    """With a reply under way the connection is reset, not answered a second time."""
    tool = Tool(STREAM + EVENT)
    upstream.answer = tool.answer
    gate = await start()
    async with RawClient.connect(gate.port) as client:
        head = request_bytes("/up", method="POST", Cookie=gate.cookie(), Content_Length="1000000")
        client.send(head + b"x" * 1000)
        await client.head()
        await _lock(gate)
        assert b"HTTP/1.1" not in await _cut_off(client.reader)


async def test_a_download_of_a_file_is_cut_off(start: Start, tmp_path: Path) -> None:
    """What the gate serves itself ends as well, with a reset, though the client reads slowly."""
    size = 64 << 20
    folder = tmp_path / "docs"
    await asyncio.to_thread(folder.mkdir)

    def make() -> None:
        with (folder / "large").open("wb") as file:
            file.truncate(size)

    await asyncio.to_thread(make)
    gate = await start(f"file:{folder}")
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/large", Cookie=gate.cookie()))
        await client.head()
        await _lock(gate)
        await until(lambda: _live_ended(gate) == 1)
        assert len(await _cut_off(client.reader)) < size

    line = await _logged(gate, "locked")
    assert (line["sub"], line["status"]) == (SUB, 499)


async def test_a_protocol_without_a_clean_end_is_cut_off(
    start: Start, upstream: RawUpstream
) -> None:
    """What is no WebSocket is reset: its end could look like one that the tool meant."""
    tool = Tool(SWITCH % b"tus" + b"hello")
    upstream.answer = tool.answer
    gate = await start(route=[{"name": "tool", "upgrades": ["tus"]}])
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/x", Cookie=gate.cookie(), **{**UPGRADE, "Upgrade": "tus"}))
        await client.head()
        assert await client.reader.readexactly(5) == b"hello"
        await _lock(gate)
        await _cut_off(client.reader)
    async with asyncio.timeout(15):
        await tool.ended.wait()


async def test_a_frame_without_end_is_cut_off(start: Start, upstream: RawUpstream) -> None:
    """A frame that never ends does not keep a WebSocket open, nor one that does not answer."""
    tool = Tool(SWITCH % b"websocket" + b"\x82\x7f" + (2**40).to_bytes(8, "big"))
    upstream.answer = tool.answer
    gate = await start()
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await client.head()
        await _lock(gate)
        async with asyncio.timeout(15):
            await client.reader.read()
            await tool.ended.wait()


async def test_a_route_may_let_it_live_on(start: Start, upstream: RawUpstream) -> None:
    """With `outlive` a stream goes on through a lock and its session's end; requests do not."""
    tool = Tool(STREAM + EVENT)
    upstream.answer = tool.answer
    gate = await start(route=[{"name": "tool", "outlive": True}])
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/events", Cookie=gate.cookie()))
        await client.head()
        await client.reader.readuntil(EVENT)
        refused = request_bytes("/short", Cookie=gate.cookie())
        await _lock(gate)
        await until(lambda: gate.generation.process_state.revocation.lock_on(SUB) is not None)
        await _expire(gate)
        assert (await ask(gate.port, refused)).status in {401, 403}
        assert await _silent(client)

    assert _live_ended(gate) == 0


async def test_what_an_earlier_configuration_began_ends_too(
    start: Start, upstream: RawUpstream, path: Path
) -> None:
    """Locks outlive a reload, and so does it that what is under way ends with its session."""
    upstream.answer = Tool(STREAM + EVENT).answer
    gate = await start()
    async with RawClient.connect(gate.port) as mine, RawClient.connect(gate.port) as bobs:
        for client, cookie in ((mine, gate.cookie()), (bobs, gate.cookie(BOB))):
            client.send(request_bytes("/events", Cookie=cookie))
            await client.head()
            await client.reader.readuntil(EVENT)
        await _put(path, Lock(f"sub:{BOB.sub}", NOW))
        await _cut_off(bobs.reader)
        before = gate.generation
        await gate.server.swap(
            await asyncio.to_thread(build, before.settings, before.process_state)
        )
        assert gate.generation is not before
        refused = await ask(gate.port, request_bytes("/short", Cookie=gate.cookie(BOB)))
        assert refused.json["error"] == "locked"
        assert await _silent(mine)
        await _put(path, LOCK)
        await _cut_off(mine.reader)


@pytest.mark.parametrize("how", ["locked", "expired"])
async def test_a_machines_stream_ends_with_its_token(
    start: Start, upstream: RawUpstream, path: Path, how: str
) -> None:
    """What a machine has under way is cut off when its token expires or is locked."""
    upstream.answer = Tool(STREAM + EVENT).answer
    token = make_token(bytes(32))
    gate = await start(
        route=[{"name": "tool", "allow": ["token:backup"]}],
        token=[{"name": "backup", "hash": hash_of(token), "expires": NOW_IS + timedelta(hours=1)}],
    )
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/events", Authorization=f"Bearer {token}"))
        await client.head()
        await client.reader.readuntil(EVENT)
        if how == "locked":
            await _put(path, Lock("token:backup", NOW))
        else:
            gate.clock.now += HOUR
        await _cut_off(client.reader)

    line = await _logged(gate, "locked" if how == "locked" else "token-expired")
    assert (line["status"], line["token"]) == (200, "backup")
    assert f'why="{how}"'.encode() in gate.generation.process_state.metrics.render()


async def test_a_machine_that_waits_is_answered(
    start: Start, upstream: RawUpstream, path: Path
) -> None:
    """A machine whose token is locked before anything came gets the reason, as a new request."""
    tool = Tool(b"")
    upstream.answer = tool.answer
    token = make_token(bytes(32))
    gate = await start(
        route=[{"name": "tool", "allow": ["token:backup"]}],
        token=[{"name": "backup", "hash": hash_of(token)}],
    )
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/slow", Authorization=f"Bearer {token}"))
        await tool.asked.wait()
        await _put(path, Lock("token:backup", NOW, None, "rotated"))
        async with asyncio.timeout(15):
            response = await client.response()

    assert (response.status, response.json["error"]) == (403, "locked")
    assert (response.json["notice"], response.json["token"]) == ("rotated", "backup")


async def test_what_is_nobodys_goes_on(start: Start, upstream: RawUpstream) -> None:
    """A stream of somebody else, and one of a public tool without a session, are left alone."""
    tool = Tool(STREAM + EVENT)
    upstream.answer = tool.answer
    gate = await start(route=[{"name": "tool"}, {"name": "o", "path": "/o", "allow": ["public"]}])
    async with RawClient.connect(gate.port) as bobs, RawClient.connect(gate.port) as nobodys:
        bobs.send(request_bytes("/events", Cookie=gate.cookie(BOB)))
        nobodys.send(request_bytes("/o/events"))
        for client in (bobs, nobodys):
            await client.head()
            await client.reader.readuntil(EVENT)
        await _lock(gate)
        await until(lambda: gate.generation.process_state.revocation.lock_on(SUB) is not None)
        assert await _silent(bobs, nobodys)


@asynccontextmanager
async def _with_idle(
    tmp_path: Path, upstream: RawUpstream, idle: float, **route: object
) -> AsyncIterator[RunningGate]:
    """Serve with an idle lifetime shorter than an admin may set."""
    settings = make_settings(upstream.url, route=[{"name": "tool", **route}])
    session = settings.session.model_copy(update={"idle": idle})
    shortened = settings.model_copy(update={"session": session})
    async with running_gate(shortened, tmp_path / "idle.log") as gate:
        yield gate


async def test_a_silent_websocket_ends_with_an_idle_session(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """Silence for the session's idle time ends it as the session, not as the route's silence."""
    tool = Tool(SWITCH % b"websocket")
    upstream.answer = tool.answer
    async with _with_idle(tmp_path, upstream, 0.6) as gate:
        async with RawClient.connect(gate.port) as client:
            client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
            await client.head()
            expected = close_frame(3000, "the session is over")
            async with asyncio.timeout(15):
                assert await client.reader.readexactly(len(expected)) == expected
        await until(lambda: len(gate.generation.forwarder.tunnels) == 0)
        line = await _logged(gate, "not-signed-in")
        assert line["status"] == 101


async def test_a_silent_stream_ends_with_an_idle_session(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """A reply that is silent for the session's idle time is cut off, and logged as that."""
    upstream.answer = Tool(STREAM + EVENT).answer
    async with _with_idle(tmp_path, upstream, 0.6) as gate:
        async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
            client.send(request_bytes("/events", Cookie=gate.cookie()))
            await client.head()
            await _cut_off(client.reader)
        assert (await _logged(gate, "not-signed-in"))["status"] == 200


@pytest.mark.parametrize("keys", [{"outlive": True}, {"allow": ["public"]}])
async def test_the_idle_time_is_that_of_sessions(
    tmp_path: Path, upstream: RawUpstream, keys: dict[str, object]
) -> None:
    """A route that outlives sessions, and a visitor without one, have the route's silence alone."""
    upstream.answer = Tool(SWITCH % b"websocket").answer
    async with _with_idle(tmp_path, upstream, 0.6, **keys) as gate:
        cookie = {} if "allow" in keys else {"Cookie": gate.cookie()}
        async with RawClient.connect(gate.port) as client:
            client.send(request_bytes("/ws", **cookie, **UPGRADE))
            await client.head()
            assert await _silent(client, seconds=2)


def _has_got(tool: Tool, count: int) -> bool:
    return len(tool.got) >= count


async def test_a_moving_websocket_is_use_of_its_session(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """Bytes either way keep an idle session's WebSocket open for longer than the idle time."""
    tool = Tool(SWITCH % b"websocket")
    upstream.answer = tool.answer
    async with (
        _with_idle(tmp_path, upstream, 2) as gate,
        RawClient.connect(gate.port) as client,
    ):
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await client.head()
        pools = gate.generation.process_state.upstream_pools
        # The test looks itself, because a busy machine may let two looks follow each other.
        assert pools._sweeper is not None
        pools._sweeper.cancel()
        (tunnel,) = pools.tunnels
        began, text = asyncio.get_running_loop().time(), b"\x81\x81abcd\x00"
        for turn in range(10):
            client.send(text)
            await until(partial(_has_got, tool, (turn + 1) * len(text)))
            tunnel.check(began + 1.9 * turn, gate.clock())
        assert pools.tunnels

    assert tool.got.startswith(text * 10)


@counts_pythons_steps
async def test_short_requests_are_never_looked_at(
    start: Start, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand requests that are answered at once cost no look-up in what is locked."""
    gate = await start()
    revocation = gate.generation.process_state.revocation
    checks = 0
    check = type(revocation).check

    def counted(*arguments: Any) -> Any:  # noqa: ANN401 - as check
        nonlocal checks
        checks += 1
        return check(*arguments)

    monkeypatch.setattr(type(revocation), "check", counted)
    async with RawClient.connect(gate.port) as client:
        request = request_bytes("/short", Cookie=gate.cookie())
        for _ in range(1000):
            client.send(request)
            await client.response()

    assert checks == 1


class _Holder:
    """A session whose check has a fault, or says why it has ended."""

    def __init__(self, reason: Reason | None) -> None:
        self.reason = reason

    def ended_because(self, revocation: RevocationState, now: float) -> Reason:
        """Return the reason."""
        del revocation, now
        if self.reason is None:
            raise ZeroDivisionError
        return self.reason


class _Active:
    """A request under way that notes why it was ended."""

    def __init__(self, reason: Reason | None) -> None:
        self.session = _Holder(reason)
        self.ended_by: list[Reason] = []

    def session_over(self, reason: Reason) -> None:
        """Note the reason."""
        self.ended_by.append(reason)


def test_a_session_that_cannot_be_checked_ends_and_hides_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault in the check of one session ends its request, and the locked ones behind it end."""
    watch = SessionWatch(RevocationState(time.time), time.time)
    faulty, locked = _Active(None), _Active(Reason.LOCKED)
    watch.check(cast("list[ActiveRequest]", [faulty, locked]))

    assert (faulty.ended_by, locked.ended_by) == ([Reason.INTERNAL_ERROR], [Reason.LOCKED])
    assert "could not be checked" in caplog.text
