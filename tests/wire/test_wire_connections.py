"""Connections on the wire: order, reuse, repeats, time limits, ends, pressure (RFC 9112 9)."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from gatekit import (
    OK,
    PausedAnswer,
    RawClient,
    RawUpstream,
    Received,
    RunningGate,
    ask,
    read_body,
    request_bytes,
    until,
)
from wirekit import CHUNKED, HOST, SMUGGLED, get, heard, post, reset, say

from tailchat_gate.proxy.client import closing
from tailchat_gate.proxy.sockets import READ_BYTES

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]
MIB = 2**20
#: What one read brings, and what the gate writes around it.
ONE_READ = READ_BYTES + 1024
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.fixture
async def public(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a public route."""
    found = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["public"]}])
    assert isinstance(found, RunningGate)
    return found


def _target(request: Received) -> bytes:
    return request.line.split(b" ")[1]


async def _echo_target(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer with the target and the body."""
    request.body = await read_body(request, reader)
    content = _target(request) + request.body
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
    if not request.line.startswith(b"HEAD "):
        writer.write(content)


def _unsent(gate: RunningGate) -> int:
    """Return how many bytes the gate holds for clients and upstreams that do not take them."""
    server = gate.server._server
    assert server is not None
    transports = [client.transport for client in server.connections]
    for pool in gate.generation.process_state.upstream_pools.pools:
        transports += [upstream.transport for upstream in pool._busy]
    return sum(one.get_write_buffer_size() for one in transports if one is not None)


async def _send_until_stalled(client: RawClient, block: bytes, most: int) -> int:
    """Send a block again and again until it is no longer taken; return how many bytes were."""
    sent = 0
    while sent < most:
        client.send(block)
        sent += len(block)
        try:
            await asyncio.wait_for(client.writer.drain(), 0.3)
        except TimeoutError:
            break
    return sent


# Requests one behind the other.

ROWS = {
    "GET thrice": [get(target=b"/1"), get(target=b"/2"), get(target=b"/3")],
    "POST, GET": [post(b"Content-Length: 3\r\n", b"abc"), get(target=b"/2")],
    "chunked, GET": [post(CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"), get(target=b"/2")],
    "chunked with trailers, GET": [
        post(CHUNKED, b"3;x=y\r\nabc\r\n0\r\nX-A: b\r\n\r\n"),
        get(target=b"/2"),
    ],
    "HEAD, GET": [b"HEAD /1 HTTP/1.1\r\n" + HOST + b"\r\n", get(target=b"/2")],
    "GET with a body, GET": [get(b"Content-Length: 3\r\n", b"/1") + b"abc", get(target=b"/2")],
    "an empty line between": [get(target=b"/1"), b"\r\n" + get(target=b"/2")],
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("at_once", [True, False])
async def test_each_answer_is_that_of_its_request(
    public: RunningGate, upstream: RawUpstream, row: list[bytes], at_once: bool
) -> None:
    """Pipelined requests, also in single bytes, are answered in order (RFC 9112 section 9.3.2)."""
    upstream.answer = _echo_target
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        data = b"".join(row)
        if at_once:
            client.send(data)
        else:
            for position in range(len(data)):
                client.send(data[position : position + 1])
                await asyncio.sleep(0)
        for request in row:
            response = await client.response(to_head=request.startswith(b"HEAD"))
            if not request.startswith(b"HEAD"):
                target = request.lstrip(b"\r\n").split(b" ")[1]
                assert response.body == target + (b"abc" if b"abc" in request else b"")

    assert len(upstream.requests) == len(row)


async def test_an_endless_row_of_requests_waits_with_the_client(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """While one request is under way, the rest stays in the client's socket (RFC 9112 9.3.2)."""
    upstream.answer = paused = PausedAnswer()
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        client.send(get())
        await paused.arrived.wait()
        sent = await _send_until_stalled(client, get() * 2000, 64 * MIB)
        assert sent < 32 * MIB
        assert public.server._server is not None
        (connection,) = public.server._server.connections
        assert len(connection._kept) < MIB
        assert len(upstream.requests) == 1
        paused.go_on.set()
        for _ in range(50):
            assert (await client.response()).body == b"ok"
        client.writer.transport.abort()


async def test_who_reads_no_answers_gets_no_more_of_them(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Answers nobody reads stop the next requests, and then end them (RFC 9112 section 9.3.2)."""
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"a" * 100_000
    gate = await start_gate(
        upstream.url,
        server={"keepalive_timeout": "1s"},
        route=[{"name": "tool", "allow": ["public"], "idle_timeout": "1s"}],
    )
    async with RawClient.connect(gate.port) as client, asyncio.timeout(60):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get() * 2000)
        await until(lambda: _unsent(gate) > 0)
        most = 0
        while gate.server._server is not None and gate.server._server.connections:
            most = max(most, _unsent(gate))
            await asyncio.sleep(0.05)

    assert most < MIB
    assert len(upstream.requests) < 500


@pytest.mark.parametrize(
    "data",
    [
        get(b"Connection: close\r\n") + SMUGGLED,
        get(b"Connection: x, CLOSE ,y\r\n") + SMUGGLED,
        get(b"Connection: keep-alive\r\nConnection: close\r\n") + SMUGGLED,
        post(b"Connection: close\r\nContent-Length: 3\r\n", b"abc" + SMUGGLED),
        post(b"Connection: close\r\n" + CHUNKED, b"3\r\nabc\r\n0\r\n\r\n" + SMUGGLED),
        get(version=b"1.0") + SMUGGLED,
    ],
)
async def test_no_request_is_read_behind_the_last(
    public: RunningGate, upstream: RawUpstream, data: bytes
) -> None:
    """After close, or on HTTP/1.0, one answer comes and the end (RFC 9112 section 9.6)."""
    found = await say(public.port, data)

    assert (found.statuses, found.reset) == ([200], False)
    assert b"Connection: close\r\n" in found.data
    assert len(upstream.requests) == 1


async def test_an_upstream_that_closes_does_not_close_the_client(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Connection: close is for one connection alone (RFC 9110 section 7.6.1)."""
    upstream.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        for _ in range(3):
            client.send(get())
            response = await client.response()
            assert response.values("Connection") == []

    assert upstream.connections == 3


# Which upstream connection is used again.

CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
LENGTH = b"Content-Length: 2\r\n\r\nok"
REUSED = {
    "length": OK,
    "chunks": CHUNKS + b"\r\n",
    "chunks with trailers": CHUNKS + b"X-A: b\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "behind 103": b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK,
    "1.0, kept alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH,
    "an odd option": b"HTTP/1.1 200 OK\r\nConnection: closed, keep-alive\r\n" + LENGTH,
}
NOT_REUSED = {
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + LENGTH,
    "close in odd case": b"HTTP/1.1 200 OK\r\ncOnnection: CLose\r\n" + LENGTH,
    "close in a list": b"HTTP/1.1 200 OK\r\nConnection: a, ,\tclose\r\n" + LENGTH,
    "close on a second line": b"HTTP/1.1 200 OK\r\nConnection: a\r\nConnection: close\r\n" + LENGTH,
    "close and keep-alive": b"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\n" + LENGTH,
    "close behind chunks": CHUNKS.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n") + b"\r\n",
    "1.0": b"HTTP/1.0 200 OK\r\n" + LENGTH,
    "a byte too many": OK + b"x",
    "an empty line too many": OK + b"\r\n",
    "a byte behind chunks": CHUNKS + b"\r\nx",
    "a byte behind 204": b"HTTP/1.1 204 No Content\r\n\r\nx",
    "a second answer": OK + OK,
}


@pytest.mark.parametrize(
    "data", [*REUSED.values(), *NOT_REUSED.values()], ids=[*REUSED, *NOT_REUSED]
)
async def test_only_a_clean_connection_is_used_again(
    public: RunningGate, upstream: RawUpstream, data: bytes
) -> None:
    """A connection stays where both sides agree and nothing is left on it (RFC 9112 9.2, 9.3)."""
    upstream.answer = data
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        for _ in range(2):
            client.send(get())
            if data.startswith(b"HTTP/1.1 103 "):
                await client.head()
            assert (await client.response()).body in {b"", b"ok"}
        stays = data in REUSED.values()
        assert upstream.connections == (1 if stays else 2)
        await until(lambda: upstream.open_connections == (1 if stays else 0))


async def _answered(client: RawClient, upstream: RawUpstream) -> list[asyncio.StreamWriter]:
    """Return the tool's ends of its connections, once the client has a first response."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writers.append(writer)
        writer.write(OK)

    upstream.answer = answer
    client.send(get())
    assert (await client.response()).body == b"ok"
    return writers


LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"


@pytest.mark.parametrize("late", [LATE, LATE[:20], b"\r\n", b"\x00"])
@pytest.mark.parametrize("close", [False, True])
async def test_what_an_idle_upstream_says_is_no_answer(
    public: RunningGate, upstream: RawUpstream, late: bytes, close: bool
) -> None:
    """A late 408 that was there before the next request is nobody's (RFC 9112 section 9.2)."""
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        writers = await _answered(client, upstream)
        # Past the loop, so that both wait in the gate's sockets when it looks next.
        os.write(writers[0].get_extra_info("socket").fileno(), late)
        if close:
            descriptor = os.dup(writers[0].get_extra_info("socket").fileno())
            with socket.socket(fileno=descriptor) as copy:
                copy.shutdown(socket.SHUT_WR)
        os.write(client.writer.get_extra_info("socket").fileno(), get())
        response = await client.response()

    assert (response.status, response.body) == (200, b"ok")
    assert upstream.connections == 2


async def test_a_408_that_comes_as_the_request_does_is_no_answer(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """A connection is known to be quiet before it is used again (RFC 9112 section 9.2)."""
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        writers = await _answered(client, upstream)
        # The request is first to be read, but the late answer is there by then.
        os.write(client.writer.get_extra_info("socket").fileno(), get())
        os.write(writers[0].get_extra_info("socket").fileno(), LATE)
        response = await client.response()

    assert (response.status, response.body) == (200, b"ok")


# Which request is sent again.

REPEATED = ("GET", "HEAD", "OPTIONS", "DELETE", "PUT", "GET with a body", "PUT with a body")
NOT_REPEATED = (
    *("POST", "PATCH", "LOCK", "get", "POST with a body", "PATCH with a body"),
    *("GET as POST", "PUT with a body as PATCH"),
)


@pytest.mark.usefixtures("_reuses_late")
@pytest.mark.parametrize("kind", [*REPEATED, *NOT_REPEATED])
@pytest.mark.parametrize("by_reset", [False, True])
async def test_only_what_may_be_repeated_is_sent_twice(
    public: RunningGate, upstream: RawUpstream, kind: str, by_reset: bool
) -> None:
    """A stale connection costs an idempotent request one repeat, others a 502 (RFC 9112 9.3.1)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        number = len(upstream.requests)
        request.body = await read_body(request, reader)
        if number == 2:
            if by_reset:
                reset(writer)
            else:
                writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    upstream.answer = answer
    method, _, rest = kind.partition(" ")
    with_body, other = "body" in rest, rest.partition("as ")[2]
    length = b"Content-Length: 1\r\n" if with_body else b"Content-Length: 0\r\n"
    if other:
        length += f"X-HTTP-Method-Override: {other}\r\n".encode()
    line = method.encode() + b" /x HTTP/1.1\r\n"
    data = line + HOST + length + b"\r\n" + (b"x" if with_body else b"")
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        client.send(get())
        assert (await client.response()).status == 200
        client.send(data)
        response = await client.response(to_head=method == "HEAD")

    assert response.status == (200 if kind in REPEATED else 502)
    assert len(upstream.requests) == (3 if kind in REPEATED else 2)
    assert upstream.connections == (2 if kind in REPEATED else 1)


@pytest.mark.parametrize("said", [b"", b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_nothing_is_sent_a_third_time_or_behind_an_answer(
    public: RunningGate, upstream: RawUpstream, said: bytes
) -> None:
    """One repeat, and none once a byte of the reply was there (RFC 9112 section 9.3.1)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(upstream.requests) == 1:
            writer.write(OK)
            return
        writer.write(said)
        await writer.drain()
        writer.close()

    upstream.answer = answer
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        client.send(get())
        assert (await client.response()).status == 200
        client.send(get())
        head = await client.head()
        if head.startswith(b"HTTP/1.1 103 "):
            head = await client.head()

    assert head.startswith(b"HTTP/1.1 502 ")
    assert len(upstream.requests) == (2 if said else 3)


# Time limits.


@asynccontextmanager
async def _deaf_upstream() -> AsyncIterator[str]:
    """Return the URL of an upstream whose queue of connections is full, so that none is made."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                with suppress(BlockingIOError):
                    filler.connect(listener.getsockname())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for filler in fillers:
                filler.close()


async def test_each_route_waits_as_long_as_it_says(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Connecting, the first byte and silence later each have the route's limit (RFC 9110 15.6.5).

    On the patient routes beside them the same upstreams are still waited for.
    """
    go_on = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        start = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
        if _target(request).endswith(b"/body"):
            writer.write(start)
        await go_on.wait()
        writer.write(b"world" if _target(request).endswith(b"/body") else OK)

    upstream.answer = answer
    async with _deaf_upstream() as deaf, asyncio.timeout(60):
        limits = {"allow": ["public"], "response_timeout": "1s", "idle_timeout": "1s"}
        patient = {"allow": ["public"], "response_timeout": "0", "idle_timeout": "0"}
        routes = [
            {"name": "deaf", "path": "/deaf", **limits, "connect_timeout": "1s", "upstream": deaf},
            {
                "name": "waits",
                "path": "/waits",
                **limits,
                "connect_timeout": "60s",
                "upstream": deaf,
            },
            {"name": "short", "path": "/short", **limits},
            {"name": "cut", "path": "/short/body", "allow": ["public"], "idle_timeout": "1s"},
            {"name": "long", "path": "/long", **patient},
        ]
        gate = await start_gate(upstream.url, route=routes)

        waits = asyncio.create_task(ask(gate.port, request_bytes("/waits")))
        long = [
            asyncio.create_task(ask(gate.port, request_bytes(path)))
            for path in ("/long", "/long/body")
        ]
        not_connected, no_head, cut = await asyncio.gather(
            ask(gate.port, request_bytes("/deaf")),
            ask(gate.port, request_bytes("/short")),
            say(gate.port, get(target=b"/short/body")),
        )
        assert not waits.done()
        assert not any(one.done() for one in long)
        waits.cancel()
        go_on.set()
        first, second = await asyncio.gather(*long)

    assert (not_connected.status, not_connected.json["error"]) == (504, "upstream-slow")
    assert (no_head.status, no_head.json["error"]) == (504, "upstream-slow")
    assert cut.reset
    assert (first.body, second.body) == (b"ok", b"helloworld")


async def test_slow_heads_and_bodies_are_cut_off_wherever_they_stand(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A slow head or a body that stops is a 408, behind other requests too (RFC 9110 15.5.9)."""
    gate = await start_gate(
        upstream.url,
        server={"header_timeout": "3s", "body_timeout": "1s"},
        route=[{"name": "t", "allow": ["public"]}],
    )
    upstream.answer = _echo_target
    cases = {
        "a first head": b"GET / HTTP/1.1\r\nHost: ga",
        "an empty line": b"\r\n",
        "a second head": get() + b"G",
        "a second head behind its line": get() + b"GET / HTTP/1.1\r\n",
        "no body": post(b"Content-Length: 5\r\n"),
        "half a body": post(b"Content-Length: 5\r\n", b"he"),
        "no chunk": post(CHUNKED),
        "half a size": post(CHUNKED, b"1"),
        "half a chunk": post(CHUNKED, b"5\r\nhe"),
        "no last chunk": post(CHUNKED, b"5\r\nhello\r\n"),
        "half the trailers": post(CHUNKED, b"5\r\nhello\r\n0\r\nX-A: b\r\n"),
        "a second body": get() + post(b"Content-Length: 5\r\n", b"he"),
    }

    found = await asyncio.gather(*(say(gate.port, data) for data in cases.values()))

    statuses = {name: one.statuses for name, one in zip(cases, found, strict=True)}
    assert statuses == {name: [200, 408] if "second" in name else [408] for name in cases}
    assert not any(one.reset for one in found)
    assert all(request.body == b"" for request in upstream.requests)


async def test_a_client_that_goes_on_is_not_slow(start_gate: Start, upstream: RawUpstream) -> None:
    """A body or a reply that comes byte by byte outlives the limit on silence (RFC 9110 15.5.9)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request.body = await read_body(request, reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for byte in b"hello" if not request.body else b"":
            await asyncio.sleep(pause)
            writer.write(bytes((byte,)))
        writer.write(request.body)

    async def upload() -> bytes:
        async with RawClient.connect(gate.port) as client:
            client.send(post(b"Content-Length: 5\r\n"))
            for byte in b"hello":
                await asyncio.sleep(pause)
                client.send(bytes((byte,)))
            return (await client.response()).body

    upstream.answer = answer
    # Together longer than the limit; each so much shorter that a busy machine does not reach it.
    pause = 1.4
    route = {"name": "t", "allow": ["public"], "idle_timeout": "6s", "response_timeout": "6s"}
    gate = await start_gate(upstream.url, server={"body_timeout": "6s"}, route=[route])

    async with asyncio.timeout(60):
        sent, taken = await asyncio.gather(upload(), ask(gate.port, get()))

    assert (sent, taken.body) == (b"hello", b"hello")


async def test_a_client_that_takes_nothing_is_let_go(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A reply that its client does not read ends after the route's silence (RFC 9112 9.5)."""
    ended = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        with suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"x" * MIB)
                await writer.drain()
        ended.set()

    upstream.answer = answer
    route = {"name": "t", "allow": ["public"], "idle_timeout": "1s"}
    gate = await start_gate(upstream.url, route=[route])
    async with RawClient.connect(gate.port) as client, asyncio.timeout(60):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        await ended.wait()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        found = await heard(client)

    assert found.reset
    line = (await gate.log())[-1]
    assert (line["status"], line["reason"]) == (200, "upstream-broken")


async def test_fifty_dribbling_peers_keep_nobody_waiting(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Fifty heads and fifty bodies byte by byte, and others are served (RFC 9112 section 9.5)."""
    gate = await start_gate(
        upstream.url, server={"header_timeout": "4s"}, route=[{"name": "t", "allow": ["public"]}]
    )
    started = asyncio.Semaphore(0)

    async def dribble(data: bytes) -> list[int]:
        async with RawClient.connect(gate.port) as client:
            ended = asyncio.ensure_future(heard(client, seconds=30))
            for count, byte in enumerate(data):
                client.send(bytes((byte,)))
                await asyncio.wait((ended,), timeout=0.05)
                # A busy machine may have cut it off before it got so far.
                if count == 10 or (ended.done() and count < 10):
                    started.release()
                if ended.done():
                    break
            return (await ended).statuses

    head = b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 1000
    fed = post(b"Content-Length: 40\r\nConnection: close\r\n")
    async with asyncio.timeout(60):
        slow = [asyncio.create_task(dribble(head)) for _ in range(50)]
        slow += [asyncio.create_task(_dribble_body(gate.port, fed, started)) for _ in range(50)]
        for _ in slow:
            await started.acquire()
        async with asyncio.timeout(60):
            responses = await asyncio.gather(*(ask(gate.port, get()) for _ in range(20)))
        assert {response.status for response in responses} == {200}
        found = await asyncio.gather(*slow)

    assert found == [[408]] * 50 + [[200]] * 50


async def _dribble_body(port: int, head: bytes, started: asyncio.Semaphore) -> list[int]:
    async with RawClient.connect(port) as client:
        client.send(head)
        for count in range(40):
            client.send(b"a")
            if count == 10:
                started.release()
            await asyncio.sleep(0.02)
        return (await heard(client)).statuses


# What is cut off stays cut off.

UNFINISHED = {
    "no body": (b"Content-Length: 10\r\n", b""),
    "half a body": (b"Content-Length: 10\r\n", b"hello"),
    "one byte less": (b"Content-Length: 10\r\n", b"helloworl"),
    "no chunk": (CHUNKED, b""),
    "half a size": (CHUNKED, b"5"),
    "a size without LF": (CHUNKED, b"5\r"),
    "half a chunk": (CHUNKED, b"5\r\nhel"),
    "no CRLF behind a chunk": (CHUNKED, b"5\r\nhello"),
    "no last chunk": (CHUNKED, b"5\r\nhello\r\n"),
    "no last CRLF": (CHUNKED, b"5\r\nhello\r\n0\r\n"),
    "half a trailer": (CHUNKED, b"5\r\nhello\r\n0\r\nX-A: b"),
}


@pytest.mark.parametrize("leave", ["close", "reset", "half-close"])
async def test_an_unfinished_request_stays_unfinished(
    public: RunningGate, upstream: RawUpstream, leave: str
) -> None:
    """A client that leaves within a body ends the upstream's request unread (RFC 9112 8)."""
    outcomes: list[str] = []
    arrived = {b"%d" % case: asyncio.Event() for case in range(len(UNFINISHED))}

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        case = request.value("X-Case")
        assert case is not None
        arrived[case].set()
        try:
            await read_body(request, reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            outcomes.append("incomplete")
        else:
            outcomes.append("complete")

    async def one(case: bytes, fields: bytes, body: bytes) -> None:
        async with RawClient.connect(public.port) as client:
            client.send(post(b"X-Case: %b\r\n" % case + fields, body))
            await arrived[case].wait()
            if leave == "reset":
                reset(client.writer)
            elif leave == "half-close":
                client.writer.write_eof()
                await heard(client)

    upstream.answer = answer
    async with asyncio.timeout(60):
        cases = zip(arrived, UNFINISHED.values(), strict=True)
        await asyncio.gather(*(one(case, *sent) for case, sent in cases))
        await until(lambda: len(outcomes) == len(UNFINISHED))

    assert set(outcomes) == {"incomplete"}
    await until(lambda: upstream.open_connections == 0)


PHASES = {
    "waiting": (get(), b""),
    "behind 103": (get(), b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "behind the head": (get(), b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
    "within a body": (get(), b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
    "within chunks": (get(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"),
    "until close": (get(), b"HTTP/1.1 200 OK\r\n\r\nhello"),
    "uploading": (post(b"Content-Length: 10\r\n", b"hello"), b""),
    "both ways": (post(CHUNKED, b"5\r\nhello\r\n"), b"HTTP/1.1 200 OK\r\n\r\nhello"),
}


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize(("asked", "said"), PHASES.values(), ids=PHASES.keys())
async def test_a_client_that_leaves_ends_its_exchange_at_once(
    start_gate: Start, upstream: RawUpstream, leave: str, asked: bytes, said: bytes
) -> None:
    """The upstream's connection is closed as soon as the client is gone (RFC 9112 section 9.6).

    A close is told from a half-close by nothing, so it is gone at once where none is waited for.
    """
    wait = {"half_closed_timeout": "0s" if leave == "close" else "30s"}
    route = {"name": "tool", "allow": ["public"]}
    gate = await start_gate(upstream.url, server=wait, route=[route])
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(said)
        arrived.set()
        with suppress(ConnectionError):
            while await reader.read(100):
                pass
        gone.set()

    upstream.answer = answer
    async with asyncio.timeout(60):
        async with RawClient.connect(gate.port) as client:
            client.send(asked)
            await arrived.wait()
            if said:
                await client.reader.readexactly(1)
            if leave == "reset":
                reset(client.writer)
        # Less than a half-closed client has.
        await gone.wait()

    line = (await gate.log())[-1]
    assert (line["status"], line["reason"]) == (499, "client-gone")


@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize("framing", [b"Content-Length: 100000000\r\n", CHUNKED])
async def test_an_upstream_that_leaves_ends_an_upload_at_once(
    public: RunningGate,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    by_reset: bool,
    framing: bytes,
) -> None:
    """A 502 comes although the body goes on, and is not lost for it (RFC 9112 9.3, 9.6)."""
    # As long as a busy machine may take over it.
    monkeypatch.setattr(closing, "LINGER_SECONDS", 60.0)

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(5)
        if by_reset:
            reset(writer)
        else:
            writer.close()

    upstream.answer = answer
    piece = b"10000\r\n" + b"a" * 65_536 + b"\r\n" if framing == CHUNKED else b"a" * 65_536
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        client.send(post(framing))
        found = asyncio.ensure_future(heard(client))
        sent = 0
        while not found.done() and sent < 16 * MIB and not client.writer.is_closing():
            client.send(piece)
            sent += len(piece)
            with suppress(ConnectionError):
                await client.writer.drain()
            await asyncio.sleep(0)
        answered = await found

    assert (answered.statuses, answered.reset) == ([502], False)


BIG = 8 * MIB


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("who", ["stranger", "too much", "no route", "tool"])
async def test_a_client_that_sends_all_before_it_reads_gets_its_answer(
    start_gate: Start,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    chunked: bool,
) -> None:
    """A body refused, or answered early, is drained behind the answer (RFC 9112 9.3, 9.6)."""
    # As long as a busy machine may take over it.
    monkeypatch.setattr(closing, "LINGER_SECONDS", 60.0)
    expected = {"stranger": 401, "too much": 413, "no route": 404, "tool": 403}[who]

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass

    upstream.answer = answer
    gate = await start_gate(
        upstream.url,
        route=[
            {"name": "stranger", "path": "/stranger"},
            {"name": "small", "path": "/too", "allow": ["public"], "max_body_bytes": 100},
            {"name": "tool", "path": "/tool", "allow": ["public"]},
        ],
    )
    path = {"stranger": b"/stranger", "too much": b"/too", "no route": b"/none", "tool": b"/tool"}
    line = b"POST " + path[who] + b" HTTP/1.1\r\n" + HOST
    whole = SMUGGLED * (BIG // len(SMUGGLED))
    if chunked:
        data = line + CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole)
    else:
        data = line + b"Content-Length: %d\r\n\r\n" % len(whole) + whole
    async with RawClient.connect(gate.port) as client, asyncio.timeout(60):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(data + SMUGGLED)
        await until(lambda: client.writer.transport.get_write_buffer_size() == 0)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        found = await heard(client)

    assert (found.statuses, found.reset) == ([expected], False)
    assert b"Connection: close\r\n" in found.data
    assert all(b"smuggled" not in request.line for request in upstream.requests)


# Pressure.


@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n" % (32 * MIB), CHUNKED])
async def test_a_slow_upstream_holds_its_client_back(
    public: RunningGate, upstream: RawUpstream, framing: bytes
) -> None:
    """What an upstream does not read stays with the client (RFC 9110 section 7.7, flow control)."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        arrived.set()
        await go_on.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        request.body = await read_body(request, reader)
        writer.write(OK)

    upstream.answer = answer
    block = b"a" * MIB
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        client.send(post(framing))
        await arrived.wait()
        if framing == CHUNKED:
            client.send(b"%x\r\n" % (32 * MIB))
        sent = await _send_until_stalled(client, block, 32 * MIB)
        assert sent < 24 * MIB
        assert _unsent(public) <= ONE_READ
        go_on.set()
        while sent < 32 * MIB:
            client.send(block)
            sent += MIB
            await client.writer.drain()
        if framing == CHUNKED:
            client.send(b"\r\n0\r\n\r\n")
        assert (await client.response()).body == b"ok"

    assert len(upstream.requests[0].body) == 32 * MIB


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: %d\r\n\r\n" % (64 * MIB), b"\r\n", UPGRADE],
    ids=["length", "until close", "WebSocket"],
)
async def test_a_slow_client_holds_its_upstream_back(
    public: RunningGate, upstream: RawUpstream, head: bytes
) -> None:
    """What a client does not read stays with the upstream, and then comes whole (as above)."""
    sent = 0
    stalled = asyncio.Event()
    switched = head == UPGRADE

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        writer.write(SWITCH if switched else b"HTTP/1.1 200 OK\r\n" + head)
        while sent < 64 * MIB:
            writer.write(b"\x82\x7e\xff\xfc" + b"x" * 65_532 if switched else b"x" * 65_536)
            sent += 65_536
            try:
                await asyncio.wait_for(writer.drain(), 0.3)
            except TimeoutError:
                stalled.set()
                await writer.drain()
        writer.close()

    upstream.answer = answer
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get(UPGRADE if switched else b""))
        await stalled.wait()
        assert sent < 48 * MIB
        assert _unsent(public) <= ONE_READ
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await client.head()
        received = 0
        while received < 64 * MIB and (data := await client.reader.read(MIB)):
            received += len(data)

    assert received >= 64 * MIB


async def test_two_mebibytes_in_small_pieces(public: RunningGate, upstream: RawUpstream) -> None:
    """512 pieces of 4 KiB arrive whole in both directions (RFC 9112 sections 6.3 and 7.1)."""
    piece = bytes(range(256)) * 16

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request.body = await read_body(request, reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (512 * 4096))
        for _ in range(512):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    upstream.answer = answer
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        for framing, around in ((b"Content-Length: 2097152\r\n", False), (CHUNKED, True)):
            client.send(post(framing))
            for _ in range(512):
                client.send(b"1000\r\n%b\r\n" % piece if around else piece)
                await asyncio.sleep(0)
            if around:
                client.send(b"0\r\n\r\n")
            assert (await client.response()).body == piece * 512

    assert [request.body == piece * 512 for request in upstream.requests] == [True, True]


async def test_a_reply_begins_before_its_request_is_whole(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Each part of a reply passes at once while the body is still coming (RFC 9112 section 9.3)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            writer.write(b"1\r\n%b\r\n" % await reader.readexactly(1))
        writer.write(b"0\r\n\r\n")

    upstream.answer = answer
    async with RawClient.connect(public.port) as client, asyncio.timeout(60):
        client.send(post(b"Content-Length: 5\r\n"))
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        for byte in (b"h", b"e", b"l", b"l", b"o"):
            client.send(byte)
            assert await client.reader.readuntil(b"1\r\n%b\r\n" % byte)
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_events_pass_one_by_one(public: RunningGate, upstream: RawUpstream) -> None:
    """An event reaches clients of 1.1 and 1.0 before the next is made (RFC 9110 section 7.7)."""
    taken = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await taken.wait()
            taken.clear()
        writer.write(b"0\r\n\r\n")

    upstream.answer = answer
    for version in (b"1.1", b"1.0"):
        async with RawClient.connect(public.port) as client, asyncio.timeout(60):
            client.send(get(version=version))
            await client.head()
            for number in range(3):
                await client.reader.readuntil(b"data: %d\n\n" % number)
                taken.set()
            rest = await client.reader.readuntil(b"0\r\n\r\n") if version == b"1.1" else b""
            assert rest in {b"\r\n0\r\n\r\n", b""}


async def test_who_has_closed_before_the_answer_is_no_fault_of_the_gate(
    start_gate: Start, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that send half a request and leave write nothing into the gate's log."""
    gate = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["signed-in"]}])
    half = b"POST /x HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 5\r\n\r\nab"

    def send_and_leave() -> None:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", gate.port)) as client:
                client.sendall(half)

    with caplog.at_level("WARNING"):
        await asyncio.to_thread(send_and_leave)
        # Behind all of them: it was accepted last.
        assert (await ask(gate.port, request_bytes("/y"))).status == 401
        await until(lambda: not gate.generation.process_state.upstream_pools.descriptors.clients)
    assert [one.message for one in caplog.records if one.exc_info] == []
