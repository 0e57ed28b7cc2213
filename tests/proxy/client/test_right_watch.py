"""What is under way ends when a change takes away the right to it; all else goes on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gatekit import (
    ALICE,
    SECRET,
    SUB,
    Clock,
    RawClient,
    RawUpstream,
    Received,
    request_bytes,
    until,
)
from reloadkit import FileGate, file_gate
from websocketkit import UPGRADE

from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.proxy.client import watches
from tailchat_gate.proxy.message.websocket_frames import close_frame

pytestmark = pytest.mark.both_loops

BOB = ALICE._replace(sub="660000000000000000000002", nickname="Bob")
OTHER_SECRET = "w7Tn3LqYv9HsKd2RmXc5JzBf8GpVe4UaNi6QoWtE"
TOKEN = make_token(b"\1" * 32)
OTHER_TOKEN = make_token(b"\2" * 32)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
PING = b"\x82\x04ping"
ONE_ROUTE = [{"name": "tool", "allow": [f"sub:{SUB}", "sub:660000000000000000000002"]}]


async def _tool(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Switch and echo, or stream without an end, until the client leaves."""
    if request.line.startswith(b"GET /ws"):
        writer.write(SWITCH)
    elif not request.line.startswith(b"GET /waits"):
        writer.write(STREAM + b"data: one\n\n")
    while data := await reader.read(2**16):
        writer.write(data)


@pytest.fixture
async def gate(tmp_path: Path, upstream: RawUpstream, clock: Clock) -> AsyncIterator[FileGate]:
    """Return a gate with one route, open to two people, before a tool that never ends."""
    upstream.answer = _tool
    async with file_gate(tmp_path, upstream.url, clock, route=ONE_ROUTE) as found:
        yield found


async def _open(client: RawClient, target: str = "/ws", **fields: str) -> None:
    client.send(request_bytes(target, **(UPGRADE if target == "/ws" else {}), **fields))
    assert b" 101 " in (head := await client.head()) or b" 200 " in head
    if target != "/ws":
        await client.reader.readuntil(b"one")


async def _closed(client: RawClient, code: int, text: str) -> bool:
    expected = close_frame(code, text)
    async with asyncio.timeout(15):
        return await client.reader.readexactly(len(expected)) == expected


async def _goes_on(client: RawClient) -> bool:
    client.send(PING)
    async with asyncio.timeout(15):
        return await client.reader.readexactly(len(PING)) == PING


async def _is_reset(client: RawClient) -> bool:
    async with asyncio.timeout(15):
        try:
            while await client.reader.read(2**20):
                pass
        except ConnectionResetError:
            return True
    return False


async def test_who_is_taken_from_a_list_loses_the_websocket(gate: FileGate) -> None:
    """A WebSocket ends with the reason of a new request; that of another person goes on."""
    async with RawClient.connect(gate.port) as mine, RawClient.connect(gate.port) as bobs:
        await _open(mine, Cookie=gate.gate.cookie())
        await _open(bobs, Cookie=gate.gate.cookie(BOB))
        await gate.change(route=[{"name": "tool", "allow": [f"sub:{BOB.sub}"]}])
        assert await _closed(mine, 3003, "denied")
        assert await _goes_on(bobs)
        await until(lambda: len(gate.gate.generation.process_state.upstream_pools.tunnels) == 1)

    line = next(x for x in await gate.gate.log() if x["reason"] == "denied")
    assert (line["status"], line["sub"], line["path"]) == (101, SUB, "/ws")
    metrics = gate.gate.generation.process_state.metrics.render().decode()
    assert 'gate_live_ended_total{why="denied"} 1.0' in metrics


async def test_a_frames_session_loses_the_tool_that_may_no_longer_be_framed(
    tmp_path: Path, upstream: RawUpstream, clock: Clock
) -> None:
    """A session of a frame counts on routes with `embed` alone; a session of a tab goes on."""
    upstream.answer = _tool
    server = {"public_url": "http://gate.localhost"}
    framed = {**ONE_ROUTE[0], "embed": ["https://chat.example.com"]}
    async with file_gate(tmp_path, upstream.url, clock, server=server, route=[framed]) as gate:
        record = SessionRecord.begin(ALICE, now=clock(), login="x")
        async with RawClient.connect(gate.port) as mine, RawClient.connect(gate.port) as tabs:
            await _open(mine, Cookie=gate.gate.seal(record._replace(embedded=True)))
            await _open(tabs, Cookie=gate.gate.seal(record))
            await gate.change(server=server, route=ONE_ROUTE)
            assert await _closed(mine, 3003, "cross-origin")
            assert await _goes_on(tabs)


@pytest.mark.parametrize(
    ("changed", "code", "text"),
    [
        ({"access": {"deny": [f"sub:{SUB}"]}}, 3003, "deny-listed"),
        ({"route": [{"name": "tool", "deny": [f"sub:{SUB}"]}]}, 3003, "deny-listed"),
        ({"route": [{"name": "t", "allow": ["public"], "deny": [f"sub:{SUB}"]}]}, 3003, ""),
        ({"route": [{"name": "t", "path": "/x", "upstream": "static:204"}]}, 3003, "no-route"),
        ({"route": [{"name": "tool", "methods": ["POST"]}]}, 3003, "method-refused"),
        ({"session": {"secrets": [OTHER_SECRET]}}, 3000, "the session is over"),
        ({"session": {"secrets": [SECRET], "cookie_name": "x"}}, 3000, "the session is over"),
    ],
)
async def test_every_change_that_refuses_a_new_request_ends_an_open_one(
    gate: FileGate, changed: dict[str, Any], code: int, text: str
) -> None:
    """Deny lists, routes, methods, the secrets of sessions and their cookie's name count alike.

    A person denied on a public route is anonymous for new requests; the open one has told the
    tool who it is, so it ends.
    """
    async with RawClient.connect(gate.port) as client:
        await _open(client, Cookie=gate.gate.cookie())
        await gate.change(**{"route": ONE_ROUTE, **changed})
        assert await _closed(client, code, text or "deny-listed")


@pytest.mark.parametrize(
    "changed",
    [
        {"server": {"via": "another"}},
        {"route": [{"name": "other", "upstream": "static:204"}]},
        {"session": {"secrets": [OTHER_SECRET, SECRET]}},
        {"route": [{"name": "tool", "allow": ["group:ops"]}], "groups": {"ops": [SUB]}},
    ],
)
async def test_a_change_that_lets_a_new_request_in_ends_nothing(
    gate: FileGate, changed: dict[str, Any]
) -> None:
    """What goes on being allowed, by another route, group or secret too, is not interrupted."""
    async with RawClient.connect(gate.port) as client:
        await _open(client, Cookie=gate.gate.cookie())
        await gate.change(**{"route": ONE_ROUTE, **changed})
        assert await _goes_on(client)


async def test_a_stream_and_a_download_are_cut_off(
    gate: FileGate, tmp_path: Path, upstream: RawUpstream
) -> None:
    """An event stream and a file end with a reset, never as if they were whole."""
    folder = tmp_path / "docs"
    await asyncio.to_thread(folder.mkdir)
    await asyncio.to_thread((folder / "large").write_bytes, bytes(64 << 20))
    files = {"name": "files", "path": "/files", "upstream": f"file:{folder}"}
    tool = {"name": "tool", "upstream": upstream.url}
    await gate.change(route=[tool, files])
    async with RawClient.connect(gate.port) as stream, RawClient.connect(gate.port) as download:
        await _open(stream, "/events", Cookie=gate.gate.cookie())
        download.send(request_bytes("/files/large", Cookie=gate.gate.cookie()))
        await download.head()
        nobody = {"allow": [f"sub:{BOB.sub}"]}
        await gate.change(route=[{**tool, **nobody}, {**files, **nobody}])
        for client in (stream, download):
            assert await _is_reset(client)


async def test_a_request_that_waits_is_told_why(gate: FileGate, upstream: RawUpstream) -> None:
    """Where nothing of the response has come the client gets the refusal itself."""
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/waits", Cookie=gate.gate.cookie()))
        await until(lambda: len(upstream.requests) == 1)
        await gate.change(route=[{"name": "tool", "allow": [f"sub:{BOB.sub}"]}])
        async with asyncio.timeout(15):
            response = await client.response()
    assert (response.status, response.json["error"]) == (403, "denied")


@pytest.mark.parametrize(
    ("tokens", "allow", "text"),
    [
        ([], ["signed-in"], "token-unknown"),
        ([{"name": "bot", "hash": hash_of(OTHER_TOKEN)}], ["token:bot"], "token-unknown"),
        ([{"name": "bot", "hash": hash_of(TOKEN)}], ["signed-in"], "token-elsewhere"),
    ],
)
async def test_a_machine_ends_with_its_token(
    gate: FileGate, tokens: list[dict[str, str]], allow: list[str], text: str
) -> None:
    """A token that is removed, replaced, or no longer named by the route ends what it began."""
    token = [{"name": "bot", "hash": hash_of(TOKEN)}]
    route = [{"name": "tool", "allow": ["token:bot"]}]
    await gate.change(route=route, token=token)
    async with RawClient.connect(gate.port) as client:
        await _open(client, Authorization=f"Bearer {TOKEN}")
        await gate.change(route=route, token=token, server={"via": "another"})
        assert await _goes_on(client)
        await gate.change(route=[{"name": "tool", "allow": allow}], token=tokens)
        assert await _closed(client, 3003, text)


async def test_nobody_keeps_what_is_no_longer_public(gate: FileGate) -> None:
    """An anonymous WebSocket ends when its route asks for a sign-in, and not before."""
    await gate.change(route=[{"name": "tool", "allow": ["public"]}])
    async with RawClient.connect(gate.port) as client:
        await _open(client)
        await gate.change(route=[{"name": "other", "allow": ["public"]}])
        assert await _goes_on(client)
        await gate.change(route=ONE_ROUTE)
        assert await _closed(client, 3000, "the session is over")


async def test_what_may_outlive_its_session_outlives_its_right(gate: FileGate) -> None:
    """A route with `outlive` keeps what it has begun, whatever changes."""
    await gate.change(route=[{"name": "tool", "outlive": True}])
    async with RawClient.connect(gate.port) as client:
        await _open(client, Cookie=gate.gate.cookie())
        await gate.change(route=[{"name": "tool", "allow": [f"sub:{BOB.sub}"]}])
        await gate.change(session={"secrets": [OTHER_SECRET]})
        assert await _goes_on(client)


async def test_many_are_judged_in_slices_and_a_fault_ends_them(
    gate: FileGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn of the loop judges some of them; what cannot be judged is ended, not kept."""
    monkeypatch.setattr(watches, "SLICE_SECONDS", 0.0)
    clients: list[RawClient] = []
    async with RawClient.connect(gate.port) as one, RawClient.connect(gate.port) as two:
        clients = [one, two]
        for client in clients:
            await _open(client, Cookie=gate.gate.cookie())
        await gate.change(route=ONE_ROUTE, server={"via": "another"})
        for client in clients:
            assert await _goes_on(client)

        def fail(*_: object) -> None:
            raise RuntimeError

        handler = type(gate.gate.generation.gate)
        monkeypatch.setattr(handler, "judge_again", fail)
        await gate.change(route=ONE_ROUTE)
        for client in clients:
            assert await _closed(client, 3003, "internal-error")
