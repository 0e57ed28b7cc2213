"""Requests on the wire: limits and their statuses, versions, methods, framing (RFC 9110, 9112)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from gatekit import RawClient, RawUpstream, Received, RunningGate, ask, read_body, request_bytes

Start = Callable[..., Any]
HOST = b"Host: gate.test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LIMITS = {"target_bytes": 256, "header_bytes": 2048, "header_count": 16, "cookie_bytes": 512}


@pytest.fixture
async def small(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate of low limits with a public route whose bodies have at most 1000 bytes."""
    route = {"name": "tool", "allow": ["public"], "max_body_bytes": 1000}
    found = await start_gate(upstream.url, limits=LIMITS, route=[route])
    assert isinstance(found, RunningGate)
    return found


def _get(fields: bytes = b"", target: bytes = b"/") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n"


def _post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


OVER = {
    "target": (414, "target-too-long", _get(target=b"/" + b"a" * 256)),
    "target without an end": (414, "target-too-long", b"GET /" + b"a" * 400),
    "query": (414, "target-too-long", _get(target=b"/?" + b"a" * 255)),
    "field": (431, "head-too-large", _get(b"X: " + b"a" * 2048 + b"\r\n")),
    "field without an end": (431, "head-too-large", _get()[:-2] + b"X: " + b"a" * 2400),
    "name": (431, "head-too-large", _get(b"X" * 2048 + b": a\r\n")),
    "many fields": (431, "head-too-large", _get(b"X: a\r\n" * 16)),
    "many fields without an end": (431, "head-too-large", _get()[:-2] + b"X: a\r\n" * 20),
    "cookie": (431, "head-too-large", _get(b"Cookie: a=" + b"b" * 511 + b"\r\n")),
    "cookies": (431, "head-too-large", _get(b"Cookie: a=" + b"b" * 254 + b"\r\n" * 1 * 1)[:-2]
                + b"Cookie: c=" + b"d" * 300 + b"\r\n\r\n"),
    "body": (413, "body-too-large", _post(b"Content-Length: 1001\r\n")),
    "chunks": (413, "body-too-large", _post(CHUNKED, b"3e9\r\n")),
    "two chunks": (413, "body-too-large", _post(CHUNKED, b"1\r\na\r\n3e8\r\n")),
    "trailers": (431, "head-too-large", _post(CHUNKED, b"0\r\n" + b"X: a\r\n" * 65 + b"\r\n")),
    "a trailer": (431, "head-too-large", _post(CHUNKED, b"0\r\nX: " + b"a" * 9000)),
    "coding": (501, "coding-refused", _post(b"Transfer-Encoding: gzip, chunked\r\n")),
    "unknown coding": (501, "coding-refused", _post(b"Transfer-Encoding: cow\r\n")),
    "malformed coding": (400, "bad-request", _post(b"Transfer-Encoding: chunked, cow\r\n")),
    "quoted coding": (400, "bad-request", _post(b'Transfer-Encoding: "chunked"\r\n')),
    "version 2": (505, "version-refused", b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    "version 1.2": (505, "version-refused", b"GET / HTTP/1.2\r\n" + HOST + b"\r\n"),
    "version 0.9": (505, "version-refused", b"GET / HTTP/0.9\r\n\r\n"),
    "HTTP/2 preface": (505, "version-refused", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "lower-case version": (400, "bad-request", b"GET / http/1.1\r\n" + HOST + b"\r\n"),
    "no version": (400, "bad-request", b"GET /\r\n"),
    "asterisk": (400, "bad-request", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"),
    "authority": (400, "bad-request", b"CONNECT gate.test:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "fragment": (400, "bad-request", _get(target=b"/#a")),
    "non-ASCII": (400, "bad-request", _get(target="/é".encode())),
    "long method": (400, "bad-request", b"G" * 40 + b" / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "LF line ends": (400, "bad-request", b"GET / HTTP/1.1\nHost: gate.test\n\n"),
    "two empty lines": (400, "bad-request", b"\r\n\r\n" + _get()),
}  # fmt: skip


@pytest.mark.parametrize(("status", "reason", "data"), OVER.values(), ids=OVER.keys())
async def test_each_refusal_says_what_was_wrong(
    small: RunningGate, upstream: RawUpstream, status: int, reason: str, data: bytes
) -> None:
    """A refusal has its own status, comes before the end of what is refused, and ends all.

    RFC 9110 sections 15.5.14, 15.5.15, 15.6.2 and 15.6.6; RFC 6585 section 5; RFC 9112 section 3.
    """
    async with RawClient.connect(small.port) as client, asyncio.timeout(5):
        client.send(data)
        reply = await client.reply()
        rest = await client.reader.read()

    assert (reply.status, reply.json["error"]) == (status, reason)
    assert reply.value("Connection") == "close"
    assert rest == b""
    assert all(request.body == b"" for request in upstream.requests)
    line = (await small.log())[-1]
    assert (line["status"], line["reason"]) == (status, reason)


@pytest.mark.parametrize("piece", [1, 7, 100])
async def test_limits_hold_for_a_head_in_pieces(
    small: RunningGate, upstream: RawUpstream, piece: int
) -> None:
    """A head that comes in pieces is read, or refused, as one that comes at once (B 3)."""
    good = _get(b"X: " + b"a" * 1000 + b"\r\n")
    long = _get(b"X: " + b"a" * 3000 + b"\r\n")

    async def drip(data: bytes) -> int:
        async with RawClient.connect(small.port) as client, asyncio.timeout(10):
            for start in range(0, len(data), piece):
                client.send(data[start : start + piece])
                await asyncio.sleep(0)
            return (await client.reply()).status

    assert list(await asyncio.gather(drip(good), drip(long))) == [200, 431]
    assert len(upstream.requests) == 1


async def test_as_much_as_the_limits_allow_passes(small: RunningGate) -> None:
    """What is exactly as long as a limit passes."""
    for data in (
        _get(target=b"/" + b"a" * 255),
        _get(b"X: a\r\n" * 15),
        _get(b"Cookie: " + b"a" * 512 + b"\r\n"),
        _post(b"Content-Length: 1000\r\n", b"a" * 1000),
        _post(CHUNKED, b"3e8\r\n" + b"a" * 1000 + b"\r\n0\r\n\r\n"),
        b"\r\n" + _get(),
    ):
        assert (await ask(small.port, data)).status == 200


@pytest.mark.parametrize(
    "method", ["get", "PROPFIND", "FOO", "M-SEARCH", "PRI", "A!#$%&'*+.^_`|~9"]
)
async def test_unknown_methods_pass_as_they_are(
    small: RunningGate, upstream: RawUpstream, method: str
) -> None:
    """A method is case-sensitive, and one that the gate does not know is the tool's (A 9.1)."""
    reply = await ask(small.port, request_bytes("/x", method=method))

    assert reply.status == 200
    assert upstream.requests[0].line == f"{method} /x HTTP/1.1".encode()


async def test_a_length_is_sent_on_as_plain_decimal(
    small: RunningGate, upstream: RawUpstream
) -> None:
    """Leading zeros of a length are gone upstream (B 6.2)."""
    for zeros in (b"05", b"0" * 30 + b"5"):
        assert (await ask(small.port, _post(b"Content-Length: " + zeros + b"\r\n", b"hello"))).body

    assert [r.value("Content-Length") for r in upstream.requests] == [b"5", b"5"]
    assert [r.body for r in upstream.requests] == [b"hello", b"hello"]


async def test_trailers_reach_the_tool_as_trailers(
    small: RunningGate, upstream: RawUpstream
) -> None:
    """Trailers stay behind the body and announced (A 6.5.1); the connection goes on."""
    body = b"5;ext=1\r\nhello\r\n0\r\nX-Sum: 1\r\nAuthorization: no\r\nX-Tailchat-Sub: no\r\n\r\n"
    async with RawClient.connect(small.port) as client:
        for _ in range(2):
            client.send(_post(CHUNKED + b"Trailer: X-Sum\r\n", body))
            assert (await client.reply()).status == 200

    for request in upstream.requests:
        assert (request.body, request.trailers) == (b"hello", [b"X-Sum: 1"])
        assert request.value("Trailer") == b"X-Sum"
        assert request.value("X-Sum") is None


async def test_many_tiny_chunks_are_one_body(start_gate: Start, upstream: RawUpstream) -> None:
    """20,000 chunks of one byte arrive whole, and the connection goes on (B 7.1)."""
    gate = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["public"]}])
    async with RawClient.connect(gate.port) as client, asyncio.timeout(20):
        client.send(_post(CHUNKED, b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n"))
        assert (await client.reply()).status == 200
        client.send(_get())
        assert (await client.reply()).status == 200

    assert upstream.requests[0].body == b"a" * 20_000


async def test_pipelined_requests_are_answered_in_order(
    small: RunningGate, upstream: RawUpstream
) -> None:
    """500 requests sent at once get their answers in their order, bodies between them (B 9.3.2)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request.body = await read_body(request, reader)
        target = request.line.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    upstream.answer = answer
    data = b""
    for number in range(500):
        target = b"/%d" % number
        if number % 5 == 1:
            data += b"POST " + target + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"
        elif number % 5 == 2:
            data += (
                b"PUT " + target + b" HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n1\r\na\r\n0\r\n\r\n"
            )
        else:
            data += _get(target=target)
    async with RawClient.connect(small.port) as client, asyncio.timeout(20):
        client.send(data)
        bodies = [(await client.reply()).body for _ in range(500)]

    assert bodies == [b"/%d" % number for number in range(500)]


async def test_nothing_is_answered_behind_connection_close(
    small: RunningGate, upstream: RawUpstream
) -> None:
    """A request behind one with Connection: close is never read (B 9.6)."""
    async with RawClient.connect(small.port) as client, asyncio.timeout(5):
        client.send(_get(b"Connection: close\r\n") + _get(target=b"/second"))
        first = await client.reply()
        rest = await client.reader.read()

    assert (first.status, first.value("Connection"), rest) == (200, "close", b"")
    assert len(upstream.requests) == 1


async def test_a_slow_head_is_cut_off(start_gate: Start, upstream: RawUpstream) -> None:
    """A head that does not come in time gets 408, though bytes keep coming; so do 50 at once."""
    gate = await start_gate(upstream.url, server={"header_timeout": "1s"})

    async def drip() -> tuple[int, str]:
        async with RawClient.connect(gate.port) as client, asyncio.timeout(8):
            client.send(b"GET / HTTP/1.1\r\n")
            reply = asyncio.ensure_future(client.reply())
            while not reply.done():
                client.send(b"X: a\r\n")
                await asyncio.wait((reply,), timeout=0.2)
            found = await reply
            return found.status, found.json["error"]

    assert set(await asyncio.gather(*[drip() for _ in range(50)])) == {(408, "request-slow")}
    assert upstream.requests == []


async def test_a_connection_that_says_nothing_is_closed(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A new connection without a byte is closed in silence, and so is one idle for too long."""
    gate = await start_gate(
        upstream.url, server={"header_timeout": "1s", "keepalive_timeout": "1s"}
    )
    async with RawClient.connect(gate.port) as silent, RawClient.connect(gate.port) as idle:
        idle.send(request_bytes("/ping"))
        assert (await idle.reply()).status == 200
        async with asyncio.timeout(5):
            assert {*await asyncio.gather(silent.reader.read(), idle.reader.read())} == {b""}


async def test_a_body_that_stops_is_cut_off(start_gate: Start, upstream: RawUpstream) -> None:
    """Silence within a body gets 408, and the tool never sees the request as whole (B 8)."""
    gate = await start_gate(
        upstream.url, server={"body_timeout": "1s"}, route=[{"name": "t", "allow": ["public"]}]
    )
    async with RawClient.connect(gate.port) as client, asyncio.timeout(8):
        client.send(_post(b"Content-Length: 10\r\n", b"hello"))
        reply = await client.reply()

    assert (reply.status, reply.json["error"]) == (408, "request-slow")
    assert [request.body for request in upstream.requests] == [b""]


async def test_an_early_answer_is_not_lost(start_gate: Start, upstream: RawUpstream) -> None:
    """An answer amid an upload arrives whole, and says that the end follows (B 9.3)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(10)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nstop")
        await writer.drain()

    upstream.answer = answer
    gate = await start_gate(upstream.url, route=[{"name": "t", "allow": ["public"]}])
    async with RawClient.connect(gate.port) as client, asyncio.timeout(8):
        client.send(_post(b"Content-Length: 50000000\r\n", b"a" * 200_000))
        reply = await client.reply()
        client.send(b"a" * 100_000)
        rest = await client.reader.read()

    assert (reply.status, reply.body) == (413, b"stop")
    assert reply.value("Connection") == "close"
    assert rest == b""


@pytest.mark.parametrize("decision", [b"100 Continue", b"413 Too Large"])
async def test_expect_is_decided_by_the_tool(
    start_gate: Start, upstream: RawUpstream, decision: bytes
) -> None:
    """100-continue goes to the tool, and its 100 or its refusal comes back at once (A 10.1.1)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        assert request.value("Expect") == b"100-continue"
        if decision.startswith(b"100"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.body = await reader.readexactly(5)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    upstream.answer = answer
    gate = await start_gate(upstream.url, route=[{"name": "t", "allow": ["public"]}])
    async with RawClient.connect(gate.port) as client, asyncio.timeout(5):
        client.send(_post(b"Content-Length: 5\r\nExpect: 100-continue\r\n"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 " + decision)
        if decision.startswith(b"100"):
            client.send(b"hello")
            assert (await client.reply()).status == 200
            assert upstream.requests[0].body == b"hello"
        else:
            assert b"Connection: close" in head


async def test_a_body_for_an_own_page_is_asked_for(gate: RunningGate) -> None:
    """The gate itself says 100 Continue where one of its own forms waits for its body."""
    body = b"csrf=x"
    async with RawClient.connect(gate.port) as client, asyncio.timeout(5):
        client.send(
            b"POST /oauth2/sign_out HTTP/1.1\r\nHost: gate.test\r\nExpect: 100-continue\r\n"
            b"Content-Length: 6\r\nCookie: " + gate.cookie().encode() + b"\r\n\r\n"
        )
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        client.send(body)
        reply = await client.reply()

    assert reply.status == 200
    assert b"csrf" in reply.body
