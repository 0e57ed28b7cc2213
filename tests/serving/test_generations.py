"""What is left of a configuration that is no longer in force: its last requests, then nothing."""

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from gatekit import (
    OK,
    SUB,
    PausedAnswer,
    RawClient,
    RawUpstream,
    Received,
    ask,
    request_bytes,
    until,
)
from reloadkit import FileGate, file_gate
from websocketkit import SWITCH
from wirekit import reset

from tailchat_gate.proxy.upstream.pool import Pool

#: Several times what it takes alone: other tests may want the same processors.
pytestmark = [pytest.mark.both_loops, pytest.mark.timeout(240)]

#: Each is looked for at the end, so that of what stays every time as many are left.
RELOADS = 200


@pytest.fixture
async def gate(tmp_path: Path, upstream: RawUpstream) -> AsyncIterator[FileGate]:
    """Return a gate before a file."""
    async with file_gate(tmp_path, upstream.url) as found:
        yield found


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for what is over without waiting in between."""
    monkeypatch.setattr("tailchat_gate.serving.generations.SWEEP_SECONDS", 0.001)


def _pools(gate: FileGate) -> tuple[Pool, ...]:
    return gate.gate.generation.process_state.upstream_pools.pools


def _retired(gate: FileGate) -> int:
    return gate.gate.server.generations.retired


async def _stays(gate: FileGate, retired: int) -> None:
    """See the number of earlier configurations fall to some, and no further."""
    await until(lambda: _retired(gate) <= retired)
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert _retired(gate) == retired


def _within(counts: tuple[int, ...], most: tuple[int, ...]) -> bool:
    return all(count <= limit for count, limit in zip(counts, most, strict=True))


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "local-files" in thread.name]


async def _open_tunnel(gate: FileGate, client: RawClient) -> None:
    client.send(request_bytes(Cookie=gate.gate.cookie(), Connection="Upgrade", Upgrade="websocket"))
    await client.head()


async def _switch(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer an upgrade and echo; answer anything else."""
    if request.value("Upgrade") is None:
        writer.write(OK)
        return
    writer.write(SWITCH)
    while data := await reader.read(100):
        writer.write(data)


@pytest.mark.usefixtures("_at_once")
async def test_hundreds_of_reloads_leave_nothing_behind(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """No configuration, connection, task, thread or descriptor stays, with requests in between.

    Each one has another name for its route and another directory of files, so that nothing of it
    is the next one's too.
    """
    files = {"name": "files", "path": "/files", "upstream": f"file:{tmp_path}"}
    await asyncio.to_thread((tmp_path / "x").write_text, "x")
    async with file_gate(tmp_path, upstream.url) as gate, RawClient.connect(gate.port) as client:
        cookie = gate.gate.cookie()

        async def round_trip(number: int) -> None:
            await gate.change(route=[{"name": f"tool-{number}"}, files])
            for path in ("/", "/files/x"):
                client.send(request_bytes(path, Cookie=cookie))
                assert (await client.response()).status == 200

        async def counts(tasks: int) -> tuple[int, ...]:
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            await until(lambda: not _retired(gate) and len(_pools(gate)) == 1)
            await until(lambda: len(_threads()) == 1)
            # One that waited too long under load is replaced; the old one may be on its way out.
            await until(lambda: upstream.open_connections <= 1)
            gc.collect()
            return (
                _count(gate),
                len(asyncio.all_tasks()),
                len(list(await asyncio.to_thread(os.listdir, "/proc/self/fd"))),
                len(_pools(gate)),
                upstream.open_connections,
                gate.gate.generation.process_state.metrics.render().count(b'route="tool-'),
            )

        await round_trip(0)
        first = await counts(10)
        for number in range(1, 10):
            await round_trip(number)
        before = await counts(10)
        for number in range(10, RELOADS):
            await round_trip(number)

        # What was about to end at the first count is not missed at the second; and what has only
        # begun by then, a call to Tailchat or a thread's file, is over at the next.
        async with asyncio.timeout(60):
            while not _within(after := await counts(before[1]), before):
                pass
        assert first[0] == before[0] == after[0]


@pytest.mark.usefixtures("_at_once")
async def test_the_collector_is_called_for_what_is_closed(
    gate: FileGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed configuration is freed without waiting for the collector's own thresholds."""
    monkeypatch.setattr("tailchat_gate.serving.generations.COLLECT_SECONDS", 0.001)
    gc.disable()
    try:
        before = _count(gate)
        await gate.change(server={"via": "other"})
        await until(lambda: _count(gate) <= before)
    finally:
        gc.enable()


@pytest.mark.usefixtures("_at_once")
async def test_a_tunnel_keeps_its_configuration_and_no_other(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """Over a hundred reloads a WebSocket holds the configuration it began with, and that alone."""
    upstream.answer = _switch
    async with RawClient.connect(gate.port) as client:
        await _open_tunnel(gate, client)
        first = gate.gate.generation
        for number in range(100):
            await gate.change(server={"via": f"v{number}"})
        await _stays(gate, 1)
        assert len(first.forwarder.tunnels) == 1
        client.send(b"ping")
        assert await client.reader.readexactly(4) == b"ping"
    await until(lambda: not _retired(gate))


def _count(gate: FileGate) -> int:
    """Return how many parts of configurations are in memory, of the gate and of other tests' gates.

    By their types, because a compiled object takes no weak reference.
    """
    found = gate.gate.generation
    authorizer, headers = found.gate.authorizer, found.gate.headers
    parts = (found.forwarder, authorizer.routes, authorizer.sessions, headers)
    kinds = frozenset(map(type, parts))
    return sum(type(thing) in kinds for thing in gc.get_objects())


@pytest.mark.usefixtures("_at_once")
async def test_open_websockets_keep_no_configuration(gate: FileGate, upstream: RawUpstream) -> None:
    """Of sixty configurations with a WebSocket each, the one in force alone is in memory."""
    upstream.answer = _switch
    gc.collect()
    before = _count(gate)
    async with AsyncExitStack() as stack:
        clients: list[RawClient] = []
        for number in range(60):
            client = await stack.enter_async_context(RawClient.connect(gate.port))
            await _open_tunnel(gate, client)
            clients.append(client)
            await gate.change(server={"via": f"v{number}"})
        await _stays(gate, 60)

        def gone() -> bool:
            gc.collect()
            return _count(gate) <= before

        await until(gone)

        # They are the WebSockets of their configurations still, in the log and in the end.
        for client in clients:
            client.send(b"ping")
            assert await client.reader.readexactly(4) == b"ping"
    await until(lambda: not _retired(gate))
    lines = [line for line in await gate.gate.log() if line["status"] == 101]
    assert len(lines) == 60
    assert {(line["route"], line["sub"], line["bytes"]) for line in lines} == {("tool", SUB, 4)}


@pytest.mark.usefixtures("_at_once")
async def test_an_idle_client_that_sent_a_body_keeps_no_configuration(gate: FileGate) -> None:
    """What took the body of the last request goes with that request, though the client stays."""
    async with RawClient.connect(gate.port) as client:
        fields = {"Cookie": gate.gate.cookie(), "Content_Length": "4"}
        client.send(request_bytes(method="POST", **fields) + b"body")
        assert (await client.response()).status == 200
        gc.collect()
        before = _count(gate)
        await gate.change(server={"via": "other"})
        await until(lambda: not _retired(gate))

        def gone() -> bool:
            gc.collect()
            return _count(gate) <= before

        # Less than the 75 s of an idle client, whose end must not free them. It takes seconds,
        # and each look has the collector go through everything.
        await until(gone, within=60, longest=0.3)


@pytest.mark.usefixtures("_at_once")
async def test_a_long_request_keeps_its_configuration_and_no_other(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """So does a request that the tool takes long for, though it is seen at every reload."""
    upstream.answer = paused = PausedAnswer()
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.gate.cookie()))
        await paused.arrived.wait()
        for number in range(30):
            await gate.change(server={"via": f"v{number}"})
        await _stays(gate, 1)
        paused.go_on.set()
        assert (await client.response()).status == 200
    await until(lambda: not _retired(gate))


@pytest.mark.usefixtures("_at_once")
async def test_a_switch_under_way_is_the_tunnel_of_its_configuration(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """An upgrade that is asked for before a reload and granted after it belongs to the old one."""
    upstream.answer = paused = PausedAnswer(_switch)
    async with RawClient.connect(gate.port) as client:
        client.send(
            request_bytes(Cookie=gate.gate.cookie(), Connection="Upgrade", Upgrade="websocket")
        )
        await paused.arrived.wait()
        first = gate.gate.generation
        await gate.change(server={"via": "one"})
        await gate.change(server={"via": "two"})
        paused.go_on.set()
        await client.head()
        assert len(first.forwarder.tunnels) == 1
        await gate.change(server={"via": "three"})
        await _stays(gate, 1)
        client.send(b"ping")
        assert await client.reader.readexactly(4) == b"ping"
    await until(lambda: not _retired(gate))


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("leaves", [True, False], ids=["client leaves", "tool answers"])
async def test_a_configuration_is_closed_with_its_last_request(
    gate: FileGate, upstream: RawUpstream, leaves: bool
) -> None:
    """It stays while a request is under way, whichever way that ends."""
    upstream.answer = paused = PausedAnswer()
    async with RawUpstream() as other, RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.gate.cookie()))
        await paused.arrived.wait()
        old = _pools(gate)
        await gate.change(route=[{"name": "tool", "upstream": other.url}])
        assert len(_pools(gate)) == 2
        await _stays(gate, 1)
        if leaves:
            reset(client.writer)
        else:
            paused.go_on.set()
            assert (await client.response()).status == 200
        # Closed a moment after it is no longer counted.
        await until(lambda: not _retired(gate) and len(_pools(gate)) == 1)
        assert not set(_pools(gate)) & set(old)
        await until(lambda: leaves or not upstream.open_connections)


@pytest.mark.usefixtures("_at_once")
async def test_a_page_under_way_keeps_its_configuration(gate: FileGate, tmp_path: Path) -> None:
    """A file that is being sent keeps its threads; they end when it has been sent."""
    path = tmp_path / "large"
    await asyncio.to_thread(path.write_bytes, bytes(2**24))
    await gate.change(route=[{"name": "files", "upstream": f"file:{tmp_path}"}])
    old = gate.gate.generation
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/large", Cookie=gate.gate.cookie()))
        await client.head()
        await gate.change(route=[{"name": "tool"}])
        await _stays(gate, 1)
        body = await client.reader.readexactly(2**24)

    assert body == bytes(2**24)
    await until(lambda: not _retired(gate))
    await until(lambda: not _threads())
    assert old.gate.local


async def test_a_retired_configuration_forgets_what_it_kept_for_requests(gate: FileGate) -> None:
    """Opened sessions and read heads go at once, though the configuration may stay for weeks."""
    await ask(gate.port, request_bytes(Cookie=gate.gate.cookie()))
    old = gate.gate.generation
    authenticator = old.gate.authorizer.sessions.at("gate.test").authenticator
    assert authenticator._opened
    await gate.change(server={"via": "other"})

    assert not authenticator._opened
    assert not old.gate.authorizer.sessions.reader._recent
    assert not len(old.gate.authorizer.sessions.reader._kept)
    assert not len(old.service.reader._sections._sections)
    assert not len(old.service.reader._sections.plain._known)
    assert not len(old.service.reader._lines)
