"""Requests on the wire: limits and their statuses, versions, methods, framing (RFC 9110, 9112)."""

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

import pytest
from bothways import BothWays
from gatekit import RawClient, RawUpstream, Received, RunningGate, ask, read_body, request_bytes
from wirekit import CONTROLS, SMUGGLED, get, post, say, say_each

Start = Callable[..., Any]
HOST = b"Host: gate.test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GZIPPED = gzip.compress(b"hello " * 100)
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


@pytest.fixture
def _drains_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate read what follows its answer for as long as a busy machine takes to send it."""
    monkeypatch.setattr("tailchat_gate.proxy.client.closing.LINGER_SECONDS", 60.0)


@pytest.mark.parametrize(("status", "reason", "data"), OVER.values(), ids=OVER.keys())
async def test_each_refusal_says_what_was_wrong(
    small: RunningGate, upstream: RawUpstream, status: int, reason: str, data: bytes
) -> None:
    """A refusal has its own status, comes before the end of what is refused, and ends all.

    RFC 9110 sections 15.5.14, 15.5.15, 15.6.2 and 15.6.6; RFC 6585 section 5; RFC 9112 section 3.
    """
    async with RawClient.connect(small.port) as client, asyncio.timeout(15):
        client.send(data)
        response = await client.response()
        rest = await client.reader.read()

    assert (response.status, response.json["error"]) == (status, reason)
    assert response.value("Connection") == "close"
    assert rest == b""
    assert all(request.body == b"" for request in upstream.requests)
    line = (await small.log())[-1]
    assert (line["status"], line["reason"]) == (status, reason)


@pytest.mark.both_loops
@pytest.mark.parametrize("piece", [1, 7, 100])
async def test_limits_hold_for_a_head_in_pieces(
    small: RunningGate, upstream: RawUpstream, piece: int
) -> None:
    """A head that comes in pieces is read, or refused, as one that comes at once (B 3)."""
    good = _get(b"X: " + b"a" * 1000 + b"\r\n")
    long = _get(b"X: " + b"a" * 3000 + b"\r\n")

    async def drip(data: bytes) -> int:
        async with RawClient.connect(small.port) as client, asyncio.timeout(15):
            for start in range(0, len(data), piece):
                client.send(data[start : start + piece])
                await asyncio.sleep(0)
            return (await client.response()).status

    assert list(await asyncio.gather(drip(good), drip(long))) == [200, 431]
    assert len(upstream.requests) == 1


@pytest.mark.both_loops
@pytest.mark.parametrize("start", [b"", b"\r\n"])
async def test_a_line_as_long_as_may_be_comes_in_pieces(
    small: RunningGate, upstream: RawUpstream, start: bytes
) -> None:
    """The longest method with the longest target passes wherever its line is cut (B 3)."""
    line = b"A" * 32 + b" /" + b"b" * 255 + b" HTTP/1.1\r\n"
    cuts = (len(start) + len(line) - 2, len(start) + len(line) - 1, len(start) + len(line))
    for cut in cuts:
        data = start + line + HOST + b"\r\n"
        async with RawClient.connect(small.port) as client, asyncio.timeout(15):
            client.send(data[:cut])
            for _ in range(3):
                await asyncio.sleep(0)
            client.send(data[cut:])
            assert (cut, (await client.response()).status) == (cut, 200)

    assert len(upstream.requests) == len(cuts)


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
    response = await ask(small.port, request_bytes("/x", method=method))

    assert response.status == 200
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
            assert (await client.response()).status == 200

    for request in upstream.requests:
        assert (request.body, request.trailers) == (b"hello", [b"X-Sum: 1"])
        assert request.value("Trailer") == b"X-Sum"
        assert request.value("X-Sum") is None


@pytest.mark.both_loops
async def test_many_tiny_chunks_are_one_body(start_gate: Start, upstream: RawUpstream) -> None:
    """20,000 chunks of one byte arrive whole, and the connection goes on (B 7.1)."""
    gate = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["public"]}])
    async with RawClient.connect(gate.port) as client, asyncio.timeout(20):
        client.send(_post(CHUNKED, b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n"))
        assert (await client.response()).status == 200
        client.send(_get())
        assert (await client.response()).status == 200

    assert upstream.requests[0].body == b"a" * 20_000


@pytest.mark.both_loops
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
        bodies = [(await client.response()).body for _ in range(500)]

    assert bodies == [b"/%d" % number for number in range(500)]


@pytest.mark.both_loops
async def test_nothing_is_answered_behind_connection_close(
    small: RunningGate, upstream: RawUpstream
) -> None:
    """A request behind one with Connection: close is never read (B 9.6)."""
    async with RawClient.connect(small.port) as client, asyncio.timeout(15):
        client.send(_get(b"Connection: close\r\n") + _get(target=b"/second"))
        first = await client.response()
        rest = await client.reader.read()

    assert (first.status, first.value("Connection"), rest) == (200, "close", b"")
    assert len(upstream.requests) == 1


@pytest.mark.both_loops
async def test_a_slow_head_is_cut_off(start_gate: Start, upstream: RawUpstream) -> None:
    """A head that does not come in time gets 408, though bytes keep coming; so do 50 at once."""
    gate = await start_gate(upstream.url, server={"header_timeout": "3s"})

    async def drip() -> tuple[int, str]:
        async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
            client.send(b"GET / HTTP/1.1\r\n")
            response = asyncio.ensure_future(client.response())
            while not response.done():
                client.send(b"X: a\r\n")
                await asyncio.wait((response,), timeout=0.2)
            found = await response
            return found.status, found.json["error"]

    assert set(await asyncio.gather(*[drip() for _ in range(50)])) == {(408, "request-slow")}
    assert upstream.requests == []


@pytest.mark.both_loops
async def test_a_connection_that_says_nothing_is_closed(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A new connection without a byte is closed in silence, and so is one idle for too long."""
    gate = await start_gate(
        upstream.url, server={"header_timeout": "3s", "keepalive_timeout": "1s"}
    )
    async with RawClient.connect(gate.port) as silent, RawClient.connect(gate.port) as idle:
        idle.send(request_bytes("/ping"))
        assert (await idle.response()).status == 200
        async with asyncio.timeout(15):
            assert {*await asyncio.gather(silent.reader.read(), idle.reader.read())} == {b""}


@pytest.mark.both_loops
async def test_a_body_that_stops_is_cut_off(start_gate: Start, upstream: RawUpstream) -> None:
    """Silence within a body gets 408, and the tool never sees the request as whole (B 8)."""
    gate = await start_gate(
        upstream.url, server={"body_timeout": "1s"}, route=[{"name": "t", "allow": ["public"]}]
    )
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(_post(b"Content-Length: 10\r\n", b"hello"))
        response = await client.response()

    assert (response.status, response.json["error"]) == (408, "request-slow")
    assert [request.body for request in upstream.requests] == [b""]


@pytest.mark.both_loops
@pytest.mark.usefixtures("_drains_long")
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
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(_post(b"Content-Length: 50000000\r\n", b"a" * 200_000))
        response = await client.response()
        client.send(b"a" * 100_000)
        rest = await client.reader.read()

    assert (response.status, response.body) == (413, b"stop")
    assert response.value("Connection") == "close"
    assert rest == b""


@pytest.mark.both_loops
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
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(_post(b"Content-Length: 5\r\nExpect: 100-continue\r\n"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 " + decision)
        if decision.startswith(b"100"):
            client.send(b"hello")
            assert (await client.response()).status == 200
            assert upstream.requests[0].body == b"hello"
        else:
            assert b"Connection: close" in head


@pytest.mark.both_loops
async def test_a_body_for_an_own_page_is_asked_for(gate: RunningGate) -> None:
    """The gate itself says 100 Continue where one of its own forms waits for its body."""
    body = b"csrf=x"
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(
            b"POST /oauth2/sign_out HTTP/1.1\r\nHost: gate.test\r\nExpect: 100-continue\r\n"
            b"Content-Length: 6\r\nCookie: " + gate.cookie().encode() + b"\r\n\r\n"
        )
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        client.send(body)
        response = await client.response()

    assert response.status == 200
    assert b"csrf" in response.body


@pytest.fixture
async def public(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate of default limits with a public route."""
    found = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["public"]}])
    assert isinstance(found, RunningGate)
    return found


async def test_the_gates_of_these_tests_read_in_both_ways(
    public: RunningGate, both_ways: BothWays
) -> None:
    """Each section is read by a pattern too, and compared; else these tests show half of it."""
    before = both_ways.plain_sections
    response = await ask(public.port, get())

    assert response.status == 200
    assert both_ways.plain_sections == before + 1


LISTINGS = {
    "one field": b"Connection: X-Hop\r\n",
    "among other options": b"Connection: keep-alive, X-Hop, TE\r\n",
    "on the second line": b"Connection: keep-alive\r\nConnection: X-Hop\r\n",
    "in odd case": b"cOnNeCtIoN: x-hOP\r\n",
    "among empty elements": b"Connection: ,, \t,X-Hop, ,\r\n",
    "between tabs": b"Connection:\tkeep-alive\t,\tX-Hop\t\r\n",
}
HOPS = (
    b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: foo\r\n"
    b"Proxy-Authorization: Basic x\r\n"
)


async def test_fields_of_the_connection_end_here(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """What Connection lists, and what is hop-by-hop anyway, goes (RFC 9110 section 7.6.1)."""
    for listing in LISTINGS.values():
        around = b"X-Hop: 1\r\n" + listing + b"x-hop: 2\r\nX-Stays: 3\r\n"
        assert (await ask(public.port, get(around + HOPS))).status == 200

    for name, request in zip(LISTINGS, upstream.requests, strict=True):
        names = {field.lower() for field, _ in request.fields}
        gone = {b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection"}
        assert (name, names & (gone | {b"te", b"upgrade", b"x-hop"})) == (name, set())
        assert request.value("X-Stays") == b"3"


FRAMING = {
    "cow": (501, b"Transfer-Encoding: cow\r\n"),
    "cow, chunked": (501, b"Transfer-Encoding: cow, chunked\r\n"),
    "chunked, cow": (400, b"Transfer-Encoding: chunked, cow\r\n"),
    "chunked, chunked": (400, b"Transfer-Encoding: chunked, chunked\r\n"),
    "identity": (501, b"Transfer-Encoding: identity\r\n"),
    "xchunked": (501, b"Transfer-Encoding: xchunked\r\n"),
    "empty": (400, b"Transfer-Encoding:\r\n"),
    "quoted": (400, b'Transfer-Encoding: "chunked"\r\n'),
    "with a parameter": (400, b"Transfer-Encoding: chunked;q=1\r\n"),
    "with a length": (400, CHUNKED + b"Content-Length: 5\r\n"),
    "behind a length": (400, b"Content-Length: 5\r\n" + CHUNKED),
    "with a length of 0": (400, CHUNKED + b"Content-Length: 0\r\n"),
}


@pytest.mark.both_loops
async def test_a_body_framed_in_doubt_ends_the_connection(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """A coding other than chunked is 501, a broken one or a length beside it 400, and the end.

    RFC 9112 sections 6.1, 6.3 and 7; RFC 9110 section 15.6.2.
    """
    body = b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED
    cases = {name: post(fields, body) for name, (_, fields) in FRAMING.items()}

    found = await say_each(public.port, cases)

    assert found == {name: [status] for name, (status, _) in FRAMING.items()}
    assert upstream.requests == []


async def test_no_transfer_coding_in_http_1_0(public: RunningGate, upstream: RawUpstream) -> None:
    """HTTP/1.0 has no codings: a request with one is refused (RFC 9112 section 6.1)."""
    body = b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED
    cases = {
        "alone": post(CHUNKED, body, version=b"1.0"),
        "kept alive": post(CHUNKED + b"Connection: keep-alive\r\n", body, version=b"1.0"),
        "with a length": post(CHUNKED + b"Content-Length: 5\r\n", body, version=b"1.0"),
        "behind a length": post(b"Content-Length: 5\r\n" + CHUNKED, body, version=b"1.0"),
        "identity": post(b"Transfer-Encoding: identity\r\n", body, version=b"1.0"),
    }

    found = await say_each(public.port, cases)

    assert found == {name: [501 if name == "identity" else 400] for name in cases}
    assert upstream.requests == []


LINES_IN_DOUBT = {
    "a fold on Content-Length": post(b"Content-Length:\r\n 5\r\n", b"hello"),
    "a fold within Content-Length": post(b"Content-Length: 5\r\n 0\r\n", b"hello"),
    "a fold on Transfer-Encoding": post(b"Transfer-Encoding:\r\n\tchunked\r\n", b"0\r\n\r\n"),
    "a fold of white space alone": get(b"X: a\r\n \r\n"),
    "a fold on the first line": b"GET / HTTP/1.1\r\n Host: gate.test\r\n\r\n",
    "CR in the method": b"G\rET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "CR in the target": get(target=b"/a\rb"),
    "CR before the version": b"GET / \rHTTP/1.1\r\n" + HOST + b"\r\n",
    "CR CR LF behind the version": b"GET / HTTP/1.1\r\r\n" + HOST + b"\r\n",
    "LF in the target": get(target=b"/a\nX: b"),
    "LF behind the version": b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    "LF in a name": get(b"X\n-A: b\r\n"),
    "LF in a value": get(b"X: a\nb\r\n"),
    "LF CR in a value": get(b"X: a\n\rb: c\r\n"),
    "LF behind the first empty line": b"\n" + get(),
    "NUL in Host": b"GET / HTTP/1.1\r\nHost: gate\x00.test\r\n\r\n",
    "CR in Host": b"GET / HTTP/1.1\r\nHost: gate\r.test\r\n\r\n",
    "an empty second Host": get(b"Host:\r\n"),
    **{f"{code:#04x} in a value": get(b"X: a%bb\r\n" % bytes((code,))) for code in CONTROLS},
    **{f"{code:#04x} in a name": get(b"X%bA: b\r\n" % bytes((code,))) for code in CONTROLS},
    **{f"{code:#04x} in the target": get(target=b"/a%bb" % bytes((code,))) for code in CONTROLS},
    **{f"{code:#04x} in the method": bytes((code,)) + get() for code in CONTROLS},
}


async def test_lines_that_end_in_two_ways_are_refused(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Folds, bare CR and LF and control bytes are a 400 (RFC 9112 2.2, 5.2; RFC 9110 5.5)."""
    found = await say_each(public.port, LINES_IN_DOUBT)

    assert found == {key: [400] for key in LINES_IN_DOUBT}
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (b"http://gate.test/a?b=c", b"/a?b=c"),
        (b"HTTP://GATE.Test/a", b"/a"),
        (b"http://gate.test", b"/"),
        (b"http://gate.test?x=1", b"/?x=1"),
        (b"http://gate.test/a/../b/./c", b"/a/../b/./c"),
        (b"http://gate.test/%2e%2e/a", b"/%2e%2e/a"),
        (b"http://gate.test//a", b"//a"),
    ],
)
async def test_an_absolute_target_is_sent_on_as_a_path(
    public: RunningGate, upstream: RawUpstream, asked: bytes, sent: bytes
) -> None:
    """absolute-form is taken and becomes origin-form, dots as they are (RFC 9112 section 3.2)."""
    assert (await ask(public.port, get(target=asked))).status == 200

    assert upstream.requests[0].line == b"GET " + sent + b" HTTP/1.1"
    assert upstream.requests[0].values("Host") == [b"gate.test"]


async def test_an_absolute_target_of_another_host_is_refused(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Where it would replace Host, nobody decides between the two (RFC 9112 section 3.2.2)."""
    cases = {
        target: get(target=target.encode())
        for target in ("http://evil.test/", "http://gate.test:81/", "http://gate.test@evil.test/")
    }

    assert await say_each(public.port, cases) == {key: [400] for key in cases}
    assert upstream.requests == []


async def test_a_target_passes_byte_for_byte(public: RunningGate, upstream: RawUpstream) -> None:
    """No escape is decoded, mended or sorted on the way (RFC 9112 3.2, RFC 9110 4.2.3)."""
    targets = [
        *(b"/%2F", b"/a%2fb", b"/a%3Fb", b"/a%20b", b"/a+b", b"/%zz", b"/%", b"/%2", b"/%C3%A4"),
        *(b"/?%00", b"/?b=2&a=1&b=1", b"/?", b"/??", b"/?a=%2F/%23", b"/a;b=c;d", b"/~a"),
        *(b"/:@!$&'()*+,;=", b"//a//", b"/a/../b/.", b"/%2e%2e/%252e", b"/?a?b/c:d@e"),
    ]
    for target in targets:
        assert (target, (await ask(public.port, get(target=target))).status) == (target, 200)

    assert [r.line for r in upstream.requests] == [b"GET %b HTTP/1.1" % t for t in targets]


async def test_what_no_target_may_have_is_refused(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """A fragment, a space and an encoded NUL in the path are a 400 (RFC 9112 section 3.2)."""
    cases = {
        target: get(target=target.encode())
        for target in ("/#", "/a#b", "/?a#b", "/a b", "/a\tb", "/%00", "/a%00b?c", "/a\\b")
    }

    assert await say_each(public.port, cases) == {key: [400] for key in cases}
    assert upstream.requests == []


async def test_the_version_is_the_gates_own(public: RunningGate, upstream: RawUpstream) -> None:
    """An HTTP/1.0 request goes on, and is answered, as HTTP/1.1 (RFC 9110 section 2.5, 6.2)."""
    response = await ask(public.port, get(version=b"1.0"))
    bare = await ask(public.port, b"GET /bare HTTP/1.0\r\n\r\n")

    assert response.head.startswith(b"HTTP/1.1 200 ")
    assert bare.status == 200
    assert [r.line for r in upstream.requests] == [b"GET / HTTP/1.1", b"GET /bare HTTP/1.1"]
    assert [r.values("Host") for r in upstream.requests] == [[b"gate.test"], [b""]]


@pytest.mark.parametrize(
    "expect",
    [
        *(b"Expect: 100-Continue\r\n", b"Expect: 100-continue, x\r\n", b"Expect: x=y\r\n"),
        *(b"Expect:\r\n", b"Expect: 100-continue\r\nExpect: 100-continue\r\n", b"Expect: 100\r\n"),
    ],
)
async def test_an_odd_expectation_is_no_obstacle(
    public: RunningGate, upstream: RawUpstream, expect: bytes
) -> None:
    """With any Expect a body that comes at once passes whole (RFC 9110 section 10.1.1)."""
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(post(expect + b"Content-Length: 5\r\n", b"hello"))
        assert (await client.response()).status == 200
        client.send(get(expect))
        assert (await client.response()).status == 200

    assert [request.body for request in upstream.requests] == [b"hello", b""]


@pytest.mark.both_loops
@pytest.mark.usefixtures("_drains_long")
async def test_a_stranger_is_refused_before_the_body(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Who waits for 100 without a session gets 401 at once (RFC 9110 section 10.1.1)."""
    fields = b"Content-Length: %d\r\nExpect: 100-continue\r\n" % len(SMUGGLED)
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(post(fields))
        response = await client.response()
        client.send(SMUGGLED)
        rest = await client.reader.read()

    assert (response.status, response.value("Connection"), rest) == (401, "close", b"")
    assert upstream.requests == []


@pytest.mark.both_loops
async def test_a_body_over_the_limit_is_refused_before_it_is_sent(
    small: RunningGate, upstream: RawUpstream
) -> None:
    """Who waits for 100 with too long a body gets 413 at once (RFC 9110 section 15.5.14)."""
    async with RawClient.connect(small.port) as client, asyncio.timeout(15):
        client.send(post(b"Content-Length: 1001\r\nExpect: 100-continue\r\n"))
        response = await client.response()

    assert (response.status, response.value("Connection")) == (413, "close")
    assert upstream.requests == []


@pytest.mark.both_loops
@pytest.mark.usefixtures("_drains_long")
async def test_a_refused_body_that_comes_all_the_same_is_no_request(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """What a client sends behind the tool's 413 is thrown away (RFC 9110 section 10.1.1)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    upstream.answer = answer
    fields = b"Content-Length: %d\r\nExpect: 100-continue\r\n" % len(SMUGGLED)
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(post(fields))
        response = await client.response()
        client.send(SMUGGLED + SMUGGLED)
        rest = await client.reader.read()

    assert (response.status, response.value("Connection"), rest) == (413, "close", b"")
    assert len(upstream.requests) == 1


async def test_http_1_0_never_hears_100(public: RunningGate, upstream: RawUpstream) -> None:
    """A 100 of the tool is not for an HTTP/1.0 client (RFC 9110 sections 10.1.1 and 15.2)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.body = await read_body(request, reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream.answer = answer
    fields = b"Content-Length: 5\r\nExpect: 100-continue\r\n"

    answer_10 = await say(public.port, post(fields, b"hello", version=b"1.0"))

    assert answer_10.statuses == [200]
    assert upstream.requests[0].body == b"hello"


async def test_an_endless_chunk_extension_is_refused(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Extensions are dropped, and one of 1 MiB is a 400 (RFC 9112 section 7.1.1)."""
    fine = b'5;a;b=c;d="e;f" \t;g\r\nhello\r\n0;h=i\r\n\r\n'
    long = b"5;a=" + b"b" * 2**20 + b"\r\nhello\r\n0\r\n\r\n"
    close = CHUNKED + b"Connection: close\r\n"

    found = await say_each(public.port, {"fine": post(close, fine), "long": post(close, long)})

    assert found == {"fine": [200], "long": [400]}
    assert sorted(request.body for request in upstream.requests) in [[b"", b"hello"], [b"hello"]]


TRAILERS = (
    *(b"Authorization: a", b"Cookie: a=b", b"Content-Type: a/b", b"Expect: 100-continue"),
    *(b"Set-Cookie: a=b", b"Trailer: X", b"X-Forwarded-For: 6.6.6.6", b"X-Tailchat-Sub: a"),
    *(b"x_tailchat_sub: a", b"Connection: close", b"TE: trailers", b"Range: bytes=0-0"),
)


async def test_no_trailer_says_what_only_a_head_may(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Trailers that authorize, route or identify are dropped (RFC 9110 section 6.5.1)."""
    for trailer in TRAILERS:
        body = b"5\r\nhello\r\n0\r\nX-A: 1\r\n" + trailer + b"\r\nX-B: 2\r\n\r\n"
        assert (await ask(public.port, post(CHUNKED, body))).status == 200

    assert [request.trailers for request in upstream.requests] == [
        [b"X-A: 1", b"X-B: 2"] for _ in TRAILERS
    ]


async def test_a_trailer_that_frames_or_routes_is_refused(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Content-Length, Transfer-Encoding and Host as trailers are a 400 (RFC 9110 6.5.1)."""
    names = ("Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil.test")
    cases = {
        name: post(CHUNKED, b"5\r\nhello\r\n0\r\n" + name.encode() + b"\r\n\r\n" + SMUGGLED)
        for name in names
    }

    assert await say_each(public.port, cases) == {key: [400] for key in cases}
    assert all(request.body == b"" for request in upstream.requests)


@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n" % len(GZIPPED), CHUNKED])
async def test_an_encoded_body_is_not_decoded(
    public: RunningGate, upstream: RawUpstream, framing: bytes
) -> None:
    """A compressed body and its length arrive as they were sent (RFC 9110 section 7.7)."""
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GZIPPED), GZIPPED)
    fields = b"Content-Encoding: gzip\r\nAccept-Encoding: br, gzip;q=0\r\n" + framing

    await ask(public.port, post(fields, chunked if framing == CHUNKED else GZIPPED))

    received = upstream.requests[0]
    assert received.body == GZIPPED
    assert received.value("Content-Encoding") == b"gzip"
    assert received.value("Accept-Encoding") == b"br, gzip;q=0"
    if framing != CHUNKED:
        assert received.value("Content-Length") == b"%d" % len(GZIPPED)


@pytest.mark.both_loops
@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\n" + HOST + b"X: "])
async def test_an_endless_head_is_refused_on_the_way(
    public: RunningGate, upstream: RawUpstream, start: bytes
) -> None:
    """2 MiB of a head in pieces of 4 KiB are refused long before they are sent (RFC 9110 5.4)."""
    sent = 0
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        response = asyncio.ensure_future(client.response())
        client.send(start)
        while not response.done() and sent < 2**21:
            client.send(b"a" * 4096)
            sent += 4096
            await asyncio.sleep(0)
        status = (await response).status

    assert status == (414 if start == b"GET /" else 431)
    assert sent < 2**19
    assert upstream.requests == []


@pytest.mark.parametrize("target", ["/\u661f", "/x?q=\u661f", "/caf\u00e9"])
async def test_raw_utf_8_in_a_target_is_refused_with_a_hint(
    start_gate: Any,  # noqa: ANN401 - a fixture's function
    upstream: RawUpstream,
    target: str,
) -> None:
    """Bytes above 0x7e in a target are refused, and the answer says what to do (B 3.2)."""
    gate = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["public"]}])

    response = await ask(gate.port, f"GET {target} HTTP/1.1\r\nHost: gate.test\r\n\r\n".encode())

    assert response.status == 400
    assert b"percent-encoded" in response.body
    assert upstream.requests == []
