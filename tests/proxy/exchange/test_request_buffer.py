"""`request_buffer`: a body is kept until it is whole, and sent to the tool with its length."""

import asyncio
import os
import resource
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from gatekit import (
    OK,
    RawClient,
    RawUpstream,
    Received,
    Response,
    RunningGate,
    ask,
    read_body,
    until,
)
from parts import missing
from process import free_port
from websocketkit import SWITCH, UPGRADE
from wirekit import CHUNKED, HOST, heard, reset

from tailchat_gate.proxy.exchange.stored_body import BodyStore, StoredBody, check_space
from tailchat_gate.proxy.sockets import Descriptors
from tailchat_gate.serving.wiring.build import build

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]

#: Bytes that fit into the memory of `_route`'s key, and bytes that do not.
SMALL: Final = b"some content"
LARGE: Final = bytes(range(256)) * 2048
END: Final = b"0\r\n\r\n"


def _route(upstream: RawUpstream | str, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - as in the file
    url = upstream if isinstance(upstream, str) else upstream.url
    usual = {"name": "tool", "upstream": url, "allow": ["public"], "request_buffer": "64KiB"}
    return {**usual, **keys}


def _head(fields: bytes = CHUNKED, *, method: bytes = b"POST") -> bytes:
    return b"%b / HTTP/1.1\r\n%b%b\r\n" % (method, HOST, fields)


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _whole(content: bytes, *, method: bytes = b"POST") -> bytes:
    return _head(method=method) + _chunk(content) + END


def _kept(gate: RunningGate) -> tuple[int, int]:
    """Return how many bytes are in memory, and how many files there are."""
    bodies = gate.generation.process_state.upstream_pools.bodies
    return bodies.memory, bodies.files


def _fault() -> Path:
    raise ZeroDivisionError


def _working() -> int:
    """Return how many bodies are being written to a file, or sent."""
    steps = [task.get_coro() for task in asyncio.all_tasks()]
    # Compiled ones have no name but that of their type.
    names = [getattr(one, "__qualname__", type(one).__name__) for one in steps]
    return sum("BufferedExchange" in name for name in names)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of the files."""
    found = tmp_path / "bodies"
    found.mkdir()
    monkeypatch.setenv("TMPDIR", str(found))
    return found


@pytest.fixture
async def kept(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate whose one route keeps bodies."""
    # A busy machine may take its time over a body that the stop waits for.
    found = await start_gate(route=[_route(upstream)], server={"shutdown_timeout": "30s"})
    assert isinstance(found, RunningGate)
    return found


# What the tool gets.


@pytest.mark.parametrize("content", [SMALL, LARGE, b""], ids=["memory", "file", "empty"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
async def test_the_tool_gets_a_length_and_the_same_bytes(
    kept: RunningGate, upstream: RawUpstream, content: bytes, chunked: bool
) -> None:
    """However a body comes, it goes with its length, and nothing that says how it came."""
    fields = b"Trailer: X-Sum\r\nX-Other: 1\r\n"
    if chunked:
        body = (_chunk(content) if content else b"") + b"0\r\nX-Sum: 1\r\n\r\n"
        data = _head(CHUNKED + fields) + body
    else:
        data = _head(b"Content-Length: %d\r\n" % len(content) + fields) + content
    for _ in range(2):
        assert (await ask(kept.port, data)).status == 200

    for request in upstream.requests:
        assert request.body == content
        assert request.value("Content-Length") == b"%d" % len(content)
        for name in ("Transfer-Encoding", "Expect"):
            assert request.value(name) is None
        # Of an empty body with a length nothing is kept, and nothing is to come.
        assert request.value("Trailer") in {None, None if content or chunked else b"X-Sum"}
        assert request.value("X-Other") == b"1"


@pytest.mark.usefixtures("_reuses_late")
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["memory", "file"])
async def test_the_tool_hears_of_a_request_once_it_is_whole(
    kept: RunningGate, upstream: RawUpstream, content: bytes, directory: Path
) -> None:
    """The gate answers Expect itself; no connection is taken, no file has a name, all is freed."""
    async with RawClient.connect(kept.port) as client:
        client.send(_head(CHUNKED + b"Expect: 100-continue\r\n"))
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        client.send(_chunk(content))
        # What does not fill a piece waits in memory.
        await until(lambda: sum(_kept(kept)) >= 1)
        if content is LARGE:
            await until(lambda: _kept(kept)[1] == 1)
            assert kept.generation.process_state.descriptors.upstreams == 1
        else:
            assert _kept(kept) == (len(SMALL), 0)
        assert upstream.connections == 0
        assert await asyncio.to_thread(os.listdir, directory) == []

        client.send(END)
        assert (await client.response()).body == b"ok"
        assert _kept(kept) == (0, 0)

        client.send(_whole(content))
        assert (await client.response()).body == b"ok", "the connection goes on"
    assert [request.body for request in upstream.requests] == [content, content]
    assert upstream.connections == 1


async def test_a_byte_at_a_time_is_one_body(kept: RunningGate, upstream: RawUpstream) -> None:
    """Chunks of one byte each, over what memory takes, arrive in order."""
    content = bytes(range(256)) * 300
    async with RawClient.connect(kept.port) as client:
        client.send(_head())
        for at in range(0, len(content), 997):
            client.send(b"".join(_chunk(bytes((one,))) for one in content[at : at + 997]))
            await client.writer.drain()
        client.send(END)
        assert (await client.response()).status == 200
    assert upstream.requests[0].body == content
    assert _kept(kept) == (0, 0)


async def test_websockets_and_other_routes_are_as_before(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A switch passes on such a route; where the key is not set a body streams in its chunks."""
    routes = [_route(upstream), _route(upstream, name="plain", path="/plain", request_buffer="0")]
    gate = await start_gate(route=routes)
    async with RawClient.connect(gate.port) as client:
        fields = b"".join(
            f"{name.replace('_', '-')}: {value}\r\n".encode() for name, value in UPGRADE.items()
        )
        upstream.answer = SWITCH
        client.send(_head(fields, method=b"GET"))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    upstream.answer = OK
    await ask(gate.port, _whole(SMALL).replace(b"POST / ", b"POST /plain "))

    assert upstream.requests[-1].value("Transfer-Encoding") == b"chunked"
    assert upstream.requests[-1].body == SMALL


# What ends it before it is whole.


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["memory", "file"])
async def test_a_client_that_leaves_frees_what_was_kept(
    kept: RunningGate, upstream: RawUpstream, content: bytes
) -> None:
    """Nothing of an upload that is broken off stays, and nothing reaches the tool."""
    async with RawClient.connect(kept.port) as client:
        client.send(_head() + _chunk(content))
        await until(lambda: sum(_kept(kept)) >= 1)
    await until(lambda: _kept(kept) == (0, 0))

    last = (await kept.log())[-1]
    assert (last["status"], last["reason"]) == (499, "client-gone")
    assert upstream.connections == kept.generation.process_state.descriptors.upstreams == 0


async def test_limits_hold_while_a_body_is_kept(start_gate: Start, upstream: RawUpstream) -> None:
    """Too large is 413, by default over 1 GiB; silence is 408; the tool is not asked."""
    routes = [
        _route(upstream, max_body_bytes=100_000),
        _route(upstream, name="open", path="/open"),
    ]
    gate = await start_gate(route=routes, server={"body_timeout": "1s"})
    most = 2**30
    cases = {
        _head() + _chunk(b"x" * 60_000) + _chunk(b"x" * 60_000): (413, "body-too-large"),
        _head(b"Content-Length: 100001\r\n"): (413, "body-too-large"),
        _head() + _chunk(SMALL): (408, "request-slow"),
        _head().replace(b" / ", b" /open ") + b"%x\r\n" % (most + 1): (413, "body-too-large"),
        _head(b"Content-Length: %d\r\n" % (most + 1)).replace(b" / ", b" /open "): (
            *(413, "body-too-large"),
        ),
        _head() + b"nonsense\r\n": (400, "bad-request"),
    }
    for data, expected in cases.items():
        response = await ask(gate.port, data)
        assert (response.status, response.json["error"]) == expected
    assert upstream.connections == 0
    assert _kept(gate) == (0, 0)


async def test_a_body_that_comes_has_a_place(start_gate: Start, upstream: RawUpstream) -> None:
    """Requests whose bodies come are counted with the tool's, and leave their places."""
    gate = await start_gate(route=[_route(upstream, max_connections=1)])
    async with RawClient.connect(gate.port) as client:
        client.send(_head() + _chunk(SMALL))
        await until(lambda: _kept(gate) == (len(SMALL), 0))
        assert (await ask(gate.port, _whole(b""))).json["error"] == "upstream-busy"
        client.send(END)
        assert (await client.response()).status == 200
    assert (await ask(gate.port, _whole(b""))).status == 200


async def test_a_body_ends_with_its_session(start_gate: Start, upstream: RawUpstream) -> None:
    """Where the session expires while its body comes, the tool hears nothing of the request."""
    gate = await start_gate(route=[_route(upstream, allow=["signed-in"])])
    async with RawClient.connect(gate.port) as client:
        cookie = f"Cookie: {gate.cookie()}\r\n".encode()
        client.send(_head(CHUNKED + cookie) + _chunk(LARGE))
        await until(lambda: _kept(gate)[1] == 1)
        gate.clock.now += 12 * 3600
        response = await client.response()
    assert (response.status, response.json["error"]) == (401, "not-signed-in")
    assert upstream.connections == 0
    await until(lambda: _kept(gate) == (0, 0))


async def test_a_body_that_comes_outlives_a_reload(
    kept: RunningGate, upstream: RawUpstream
) -> None:
    """A request keeps the configuration that it began with, as any request under way."""
    before = kept.generation
    (route,) = before.settings.route
    unbuffered = route.model_copy(update={"request_buffer": 0})
    settings = before.settings.model_copy(update={"route": (unbuffered,)})
    after = await asyncio.to_thread(build, settings, before.process_state)
    async with RawClient.connect(kept.port) as client:
        client.send(_head() + _chunk(LARGE))
        await until(lambda: _kept(kept)[1] == 1)
        await kept.server.swap(after)
        assert kept.server.generations.retired == 1
        client.send(END)
        assert (await client.response()).status == 200
    assert upstream.requests[0].body == LARGE
    await until(lambda: kept.server.generations.retired == 0)


async def test_a_stop_waits_for_a_body_that_comes(kept: RunningGate, upstream: RawUpstream) -> None:
    """A gate that stops takes the rest of a body, sends it to the tool, and answers."""
    async with RawClient.connect(kept.port) as client:
        client.send(_head() + _chunk(LARGE))
        await until(lambda: _kept(kept)[1] == 1)
        stopping = asyncio.create_task(kept.server.stop())
        (connection,) = kept.server._server.connections  # type: ignore[union-attr]
        await until(lambda: connection.leaving)
        client.send(END)
        response = await client.response()
    assert (response.status, response.value("Connection")) == (200, "close")
    assert upstream.requests[0].body == LARGE
    await stopping


# Where there is no room.


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_507(
    kept: RunningGate, upstream: RawUpstream, caplog: pytest.LogCaptureFixture, directory: Path
) -> None:
    """What cannot be stored is refused, told once, and not sent; what fits in memory passes."""
    with _full_disk():
        for _ in range(2):
            response = await ask(kept.port, _whole(LARGE))
            assert (response.status, response.json["error"]) == (507, "body-not-stored")
        assert (await ask(kept.port, _whole(SMALL))).status == 200

    assert [request.body for request in upstream.requests] == [SMALL]
    assert _kept(kept) == (0, 0)
    told = [record for record in caplog.records if "cannot be stored" in record.message]
    assert len(told) == 1
    assert str(directory) in told[0].details["error"]  # type: ignore[attr-defined]


async def test_without_a_directory_it_is_507(kept: RunningGate, directory: Path) -> None:
    """A directory that is not there is not made, and memory goes on without it."""
    await asyncio.to_thread(directory.rmdir)

    assert (await ask(kept.port, _whole(LARGE))).json["error"] == "body-not-stored"
    assert (await ask(kept.port, _whole(SMALL))).status == 200
    assert not await asyncio.to_thread(directory.exists)


async def test_a_fault_while_a_body_is_stored_ends_its_request(
    kept: RunningGate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault that nobody expects is a 500 and in the log; the client does not wait forever."""
    bodies = kept.generation.process_state.upstream_pools.bodies
    monkeypatch.setattr(bodies, "_directory", _fault)

    response = await ask(kept.port, _whole(LARGE))

    assert (response.status, response.json["error"]) == (500, "internal-error")
    assert [record.message for record in caplog.records] == ["a request failed inside the gate"]
    assert _kept(kept) == (0, 0)


async def test_without_a_thread_it_is_507(
    kept: RunningGate, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process may start no thread, an upload is refused, and its slot is free again."""

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    pools = kept.generation.process_state.upstream_pools
    monkeypatch.setattr(pools.bodies._threads, "submit", fail)

    response = await ask(kept.port, _whole(LARGE))

    assert (response.status, response.json["error"]) == (507, "body-not-stored")
    assert [pool.entered for pool in pools.pools] == [0]
    assert _kept(kept) == (0, 0)


async def test_without_a_descriptor_it_is_503(kept: RunningGate) -> None:
    """A file that cannot be opened for want of descriptors is no fault of the disk."""
    descriptors = kept.generation.process_state.descriptors
    async with RawClient.connect(kept.port) as client:
        client.send(_head() + _chunk(SMALL))
        await until(lambda: _kept(kept) == (len(SMALL), 0))
        descriptors.limit = 0
        client.send(_chunk(LARGE))
        assert (await client.response()).json["error"] == "gate-busy"
    assert _kept(kept) == (0, 0)


async def test_all_bodies_share_one_bound_of_memory(directory: Path) -> None:
    """What memory has no room for goes to a file, however small, and frees its room again."""
    store = BodyStore(lambda: directory, Descriptors(), memory_bytes=100)
    bodies = [StoredBody(store, 64) for _ in range(3)]

    assert [body.keep(b"x" * 50) for body in bodies] == [True, True, False]
    await bodies[2].save(b"y" * 50)
    assert (store.memory, store.files) == (100, 1)
    assert [bool(body.start) for body in bodies] == [True, True, False]
    assert await bodies[2].read(10) == b"y" * 40

    assert not bodies[0].keep(b"z" * 20), "over what one may have"
    await bodies[0].save(b"z" * 20)
    assert (store.memory, store.files) == (50, 2)
    assert await bodies[0].read(40) == b"x" * 10 + b"z" * 20
    for body in bodies:
        body.discard()
    assert (store.memory, store.files) == (0, 0)


@asynccontextmanager
async def _small_disk(directory: Path) -> AsyncIterator[None]:
    """Mount a file system of 1 MiB on a directory until the block ends."""
    command = ("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(directory))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    if await process.wait():
        missing("a file system of the test's own (root and mount)")
    try:
        yield
    finally:
        # A thread may be about to close a file there.
        process = await asyncio.create_subprocess_exec("umount", "--lazy", str(directory))
        await process.wait()


async def test_a_disk_keeps_room_for_others(kept: RunningGate, directory: Path) -> None:
    """However much strangers upload, locks and logs on the same disk can be written."""
    async with _small_disk(directory), RawClient.connect(kept.port) as client:
        assert (await ask(kept.port, _whole(b"w" * 600_000))).status == 200
        # A thread closes the file, a moment later.
        await until(lambda: os.statvfs(directory).f_bavail == 256)
        client.send(_head() + _chunk(b"x" * 880_000))
        # The last piece waits in memory until there is more, or all.
        await until(lambda: os.statvfs(directory).f_bavail < (1_048_576 - 810_000) // 4096)
        assert (await ask(kept.port, _whole(b"y" * 130_000))).json["error"] == "body-not-stored"

        await asyncio.to_thread((directory / "state").write_bytes, b"z" * 100_000)


async def test_a_disk_that_hangs_holds_its_own_uploads(
    kept: RunningGate, upstream: RawUpstream
) -> None:
    """Their clients are not read meanwhile, others are served, and who leaves frees the place."""
    bodies, go_on = kept.generation.process_state.upstream_pools.bodies, threading.Event()
    for _ in range(8):
        bodies._threads.submit(go_on.wait)
    async with RawClient.connect(kept.port) as client, RawClient.connect(kept.port) as leaver:
        client.send(_head() + _chunk(LARGE * 16) + END)
        leaver.send(_head() + _chunk(LARGE))
        server = kept.server._server
        assert server is not None
        await until(lambda: _kept(kept)[1] == 2)
        transports = [one.transport for one in server.connections if one.transport is not None]
        await until(lambda: not any(one.is_reading() for one in transports))
        assert (await ask(kept.port, _whole(SMALL))).status == 200
        reset(leaver.writer)
        await until(lambda: _kept(kept)[1] == 1 and _working() == 1)

        go_on.set()
        assert (await client.response()).status == 200
    assert [request.body for request in upstream.requests] == [SMALL, LARGE * 16]
    assert _kept(kept) == (0, 0)


async def test_space_is_looked_at(directory: Path) -> None:
    """What would take the last of a file system is refused."""
    descriptor = os.open(directory, os.O_RDONLY)
    found = os.fstatvfs(descriptor)

    check_space(descriptor, 0)
    with pytest.raises(OSError, match="No space"):
        check_space(descriptor, found.f_bavail * found.f_frsize)
    os.close(descriptor)


# With the tool.


@pytest.mark.usefixtures("_reuses_late")
@pytest.mark.parametrize(
    ("method", "content", "status"),
    [(b"PUT", b"x" * 65_000, 200), (b"PUT", LARGE, 200), (b"POST", SMALL, 502)],
    ids=["memory", "file", "post"],
)
async def test_a_kept_body_is_sent_again(
    start_gate: Start, fickle: RawUpstream, method: bytes, content: bytes, status: int
) -> None:
    """On a stale connection a PUT is sent again however large it is, and a POST is not."""
    gate = await start_gate(route=[_route(fickle)])
    await ask(gate.port, _whole(b"", method=b"PUT"))

    assert (await ask(gate.port, _whole(content, method=method))).status == status

    assert [one.body for one in fickle.requests[1:]] == [content] * (2 if status == 200 else 1)
    assert _kept(gate) == (0, 0)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["memory", "file"])
async def test_a_kept_body_waits_for_the_tool(start_gate: Start, content: bytes) -> None:
    """Where the tool refuses connections the request is kept for connect_retry, and sent once."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gate = await start_gate(route=[_route(url, connect_retry="20s")])
    failures = gate.generation.process_state.upstream_pools.failures
    async with RawClient.connect(gate.port) as client:
        client.send(_whole(content))
        await until(lambda: failures[url, "refused"] == 1)
        async with RawUpstream(port=port) as tool:
            assert (await client.response()).status == 200
    assert [request.body for request in tool.requests] == [content]
    assert _kept(gate) == (0, 0)


async def test_an_answer_that_comes_before_its_body_was_sent(start_gate: Start) -> None:
    """It is relayed, the client's connection goes on, and the tool's is not used again."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(OK)

    async with RawUpstream(answer) as tool:
        gate = await start_gate(route=[_route(tool, request_buffer="64MiB")])
        async with RawClient.connect(gate.port) as client:
            responses: list[Response] = []
            for _ in range(2):
                client.send(_whole(LARGE * 64))
                responses.append(await client.response())
        assert [response.status for response in responses] == [200, 200]
        assert tool.connections == 2
        await until(lambda: not _working())
    assert _kept(gate) == (0, 0)


async def test_a_tool_that_reads_nothing_costs_little(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """While the tool takes no more of a body, no more than a piece of it is read from the file."""
    go_on = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.line.startswith(b"POST"):
            await go_on.wait()
        request.body = await read_body(request, reader)
        writer.write(OK)

    upstream.answer = answer
    gate = await start_gate(route=[_route(upstream)])
    (pool,) = gate.generation.process_state.upstream_pools.pools
    async with RawClient.connect(gate.port) as client:
        client.send(_whole(LARGE * 64))
        await until(lambda: any(one.transport.get_write_buffer_size() for one in pool._busy))
        (busy,) = pool._busy
        for _ in range(50):
            assert (await ask(gate.port, _head(b"", method=b"GET"))).status == 200
        assert busy.transport is not None
        assert busy.transport.get_write_buffer_size() <= 65_536
        go_on.set()
        assert (await client.response()).status == 200
    assert upstream.requests[0].body == LARGE * 64


async def test_a_file_that_is_cut_short_never_looks_whole(
    kept: RunningGate, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk fails on the way back the tool's connection breaks, and it is 507."""

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    async def answer(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    upstream.answer = answer
    monkeypatch.setattr(os, "pread", fail)

    response = await ask(kept.port, _whole(LARGE))

    assert (response.status, response.json["error"]) == (507, "body-not-stored")
    await until(lambda: upstream.open_connections == 0)


async def test_a_half_closed_client_gets_its_answer(
    kept: RunningGate, upstream: RawUpstream
) -> None:
    """A client that ends its side after its body is answered; one that ends within it is not."""
    for data, statuses in ((_whole(LARGE), [200]), (_head() + _chunk(LARGE), [])):
        async with RawClient.connect(kept.port) as client:
            client.send(data)
            client.writer.write_eof()
            assert (await heard(client)).statuses == statuses
    assert len(upstream.requests) == 1
    await until(lambda: _kept(kept) == (0, 0))
