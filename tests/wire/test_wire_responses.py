"""Replies on the wire: framing, interim ones, cut ones, malformed ones (RFC 9110, 9112)."""

import asyncio
import gzip
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from gatekit import Clock, RawClient, RawUpstream, Received, RunningGate, ask, request_bytes, until
from wirekit import CONTROLS, SMUGGLED, answers_by_path, get, paths, say

Start = Callable[..., Any]
FOLLOW_UP = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean"


@pytest.fixture
async def public(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a public route."""
    found = await start_gate(upstream.url, route=[{"name": "t", "allow": ["public"]}])
    assert isinstance(found, RunningGate)
    return found


def _says(data: bytes, *, close: bool = False, reset: bool = False) -> Callable[..., Any]:
    """Return an upstream that answers the first request with `data` and later ones cleanly."""
    first = True

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal first
        if not first:
            writer.write(FOLLOW_UP)
            return
        first = False
        writer.write(data)
        await writer.drain()
        if reset:
            found = writer.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif close:
            writer.close()

    return answer


async def _all(gate: RunningGate, data: bytes) -> bytes:
    """Send bytes and return all that comes before the connection ends."""
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(data)
        received = b""
        try:
            while more := await client.reader.read(65_536):
                received += more
        except ConnectionError:
            received += b"<reset>"
        return received


MALFORMED = {
    "no status line": b"hello\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 0": b"HTTP/1.1 000 OK\r\n\r\n",
    "CR in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    "CR in a value": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "LF in a value": b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    "empty name": b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n",
    "non-ASCII name": b"HTTP/1.1 200 OK\r\n\xe9: a\r\nContent-Length: 0\r\n\r\n",
    "fold first": b"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 0\r\n\r\n",
    "LF and CRLF": b"HTTP/1.1 200 OK\nX: a\r\nContent-Length: 0\n\n",
    "LF LF in a value": b"HTTP/1.1 200 OK\r\nX: a\n\nhello\r\n\r\n",
    "CL +5": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "CL -5": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "CL list": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
    "two CL": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "CL 2^64+5": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
    "CL and TE gzip": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\n\r\n"
    b"0\r\n\r\n",
    "TE gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"
    b"\r\n0\r\n\r\n",
    "TE gzip in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    "bad chunk at once": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_reply_is_a_502(
    public: RunningGate, upstream: RawUpstream, data: bytes
) -> None:
    """What is no reply, or could be read in two ways, never reaches a client (B 4, 5, 6.3)."""
    upstream.answer = _says(data)
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        response = await client.response()
        client.send(request_bytes())
        follow_up = await client.response()

    assert (response.status, response.json["error"]) == (502, "upstream-broken")
    assert follow_up.body == b"clean"
    assert upstream.connections == 2


CL = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
TE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BEFORE_THE_HEAD = [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: a\r\n"]
AFTER_THE_HEAD = {
    "CL without a body": CL,
    "CL cut": CL + b"hello",
    "chunked without a body": TE,
    "half a size": TE + b"5\r\nhello\r\n1",
    "a size without LF": TE + b"5\r\nhello\r\n5\r",
    "half a chunk": TE + b"5\r\nhello\r\n5\r\nwor",
    "no CRLF behind a chunk": TE + b"5\r\nhello",
    "no last chunk": TE + b"5\r\nhello\r\n",
    "no last CRLF": TE + b"5\r\nhello\r\n0\r\n",
    "half a trailer": TE + b"5\r\nhello\r\n0\r\nX: a",
    "a trailer without an end": TE + b"5\r\nhello\r\n0\r\nX: a\r\n",
}
BAD_CHUNKS = [
    *(b"0x5", b"+5", b"-5", b"", b" 5", b"5 5", b"g", b"10000000000000005", b"5\n", b"5\x00"),
    *(b"5;a\x00", b"5;" + b"a" * 1100),
]


@pytest.mark.both_loops
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("data", BEFORE_THE_HEAD)
async def test_a_reply_cut_in_its_head_is_a_502(
    public: RunningGate, upstream: RawUpstream, data: bytes, reset: bool
) -> None:
    """Before its head was whole nothing of a reply was relayed (B 8)."""
    upstream.answer = _says(data, close=True, reset=reset)

    response = await ask(public.port, request_bytes(method="POST", Content_Length="0"))

    assert (response.status, response.json["error"]) == (502, "upstream-broken")


@pytest.mark.both_loops
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("data", AFTER_THE_HEAD.values(), ids=AFTER_THE_HEAD.keys())
async def test_a_cut_reply_never_looks_whole(
    public: RunningGate, upstream: RawUpstream, data: bytes, reset: bool
) -> None:
    """A reply that stops in its body ends in a reset, never in a last chunk (B 8)."""
    upstream.answer = _says(data, close=True, reset=reset)

    received = await _all(public, request_bytes())

    assert received.endswith(b"<reset>") or received == b""
    assert b"\r\n0\r\n\r\n" not in received
    line = (await public.log())[-1]
    assert (line["reason"], line["status"]) in {("upstream-broken", 200), ("upstream-broken", 502)}


@pytest.mark.both_loops
async def test_a_reset_is_no_end_of_a_body(public: RunningGate, upstream: RawUpstream) -> None:
    """A body that runs until the upstream closes ends with its FIN alone (B 6.3, 8)."""
    upstream.answer = _says(b"HTTP/1.1 200 OK\r\n\r\nhello", reset=True)
    received = await _all(public, request_bytes())
    assert b"\r\n0\r\n\r\n" not in received
    upstream.answer = _says(b"HTTP/1.1 200 OK\r\n\r\nhello", reset=True)
    received = await _all(public, b"GET / HTTP/1.0\r\nHost: gate.test\r\n\r\n")
    assert received.endswith(b"<reset>") or b"502" in received

    upstream.answer = _says(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)
    response = await ask(public.port, request_bytes())
    assert response.body == b"hello"


@pytest.mark.both_loops
@pytest.mark.parametrize("size", BAD_CHUNKS)
async def test_a_broken_chunk_ends_in_a_reset(
    public: RunningGate, upstream: RawUpstream, size: bytes
) -> None:
    """A chunk line that is malformed never ends a body cleanly (B 7.1)."""
    gone = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(TE + b"5\r\nhello\r\n")
        await writer.drain()
        await gone.wait()
        writer.write(size + b"\r\nworld\r\n0\r\n\r\n")
        await reader.read()

    upstream.answer = answer
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        await client.reader.readuntil(b"hello\r\n")
        gone.set()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.reader.readuntil(b"0\r\n\r\n")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"200 OK"])
@pytest.mark.parametrize(
    "fields", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""]
)
async def test_where_no_body_may_be_none_is_read(
    public: RunningGate, upstream: RawUpstream, status: bytes, fields: bytes
) -> None:
    """HEAD, 204 and 304 have no body whatever the fields say, and nothing strays (B 6.3)."""
    upstream.answer = _says(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n")
    method = "HEAD" if status.startswith(b"200") else "GET"
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes(method=method))
        response = await client.response(to_head=True)
        client.send(request_bytes())
        follow_up = await client.response()

    assert response.status == int(status[:3])
    assert follow_up.body == b"clean"
    if status.startswith(b"204"):
        assert response.values("Content-Length") == []


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"200 OK"])
async def test_a_body_where_none_may_be_is_not_the_next_answer(
    public: RunningGate, upstream: RawUpstream, status: bytes
) -> None:
    """Bytes behind a reply without a body are nobody's answer (B 9.2)."""
    upstream.answer = _says(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nwrong")
    method = "HEAD" if status.startswith(b"200") else "GET"
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes(method=method))
        await client.response(to_head=True)
        client.send(request_bytes())
        follow_up = await client.response()

    assert follow_up.body == b"clean"
    assert upstream.connections == 2


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("fields", "connections"),
    [
        (b"Content-Length: 5\r\n", 2),
        (b"Transfer-Encoding: chunked\r\n", 2),
        (b"Content-Length: 0\r\n", 1),
        (b"", 1),
    ],
)
async def test_a_body_that_a_204_announces_may_be_on_its_way(
    public: RunningGate, upstream: RawUpstream, fields: bytes, connections: int
) -> None:
    """A 204 that announces a body is the last reply on its connection (RFC 9110 section 15.3.5)."""
    upstream.answer = b"HTTP/1.1 204 No Content\r\n" + fields + b"\r\n"
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        for _ in range(2):
            client.send(request_bytes())
            response = await client.response()
            assert (response.status, response.values("Content-Length")) == (204, [])
            assert response.values("Transfer-Encoding") == []

    assert upstream.connections == connections


async def test_interim_replies_pass_and_the_final_one_is_never_lost(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """103 and its fields pass to 1.1, 300 of them too, none to 1.0 (A 15.2)."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    upstream.answer = _says(hints * 300 + FOLLOW_UP)
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        heads = [await client.head() for _ in range(300)]
        response = await client.response()

    assert set(heads) == {hints[:-2]}
    assert response.body == b"clean"

    upstream.answer = _says(hints + FOLLOW_UP)
    received = await _all(public, b"GET / HTTP/1.0\r\nHost: gate.test\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert received.endswith(b"clean")


async def test_a_client_of_http_1_0_gets_no_chunks(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """HTTP/1.0 gets the content alone, and the end of the connection as its end (B 6.1, 9.3)."""
    upstream.answer = _says(TE + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    received = await _all(
        public, b"GET / HTTP/1.0\r\nHost: gate.test\r\nConnection: keep-alive\r\n\r\n"
    )
    head, _, body = received.partition(b"\r\n\r\n")

    assert body == b"hello world"
    assert b"Transfer-Encoding" not in head
    assert b"Connection: close" in head


@pytest.mark.parametrize(("te", "passed"), [("trailers", True), ("", False)])
async def test_trailers_of_a_reply(
    public: RunningGate, upstream: RawUpstream, te: str, passed: bool
) -> None:
    """Trailers go to a client that reads them, never as fields, never ours (A 6.5.1)."""
    trailers = b"X-Sum: 1\r\nSet-Cookie: a=b\r\nX-Tailchat-Sub: a\r\n"
    upstream.answer = _says(TE + b"5;a=b\r\nhello\r\n0\r\n" + trailers + b"\r\n")
    fields = {"TE": te, "Connection": "TE"} if te else {}
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes(**fields))
        head = await client.head()
        rest = await client.reader.readuntil(b"\r\n\r\n")
        client.send(request_bytes())
        follow_up = await client.response()

    assert b"X-Sum" not in head
    assert rest == b"5\r\nhello\r\n0\r\n" + (b"X-Sum: 1\r\n" if passed else b"") + b"\r\n"
    assert follow_up.body == b"clean"


async def test_fields_pass_with_their_bytes(public: RunningGate, upstream: RawUpstream) -> None:
    """Order, case, repeats, obs-text and commas of fields are the upstream's (A 5.3, 5.5)."""
    fields = (
        b"x-L: 1\r\nSet-Cookie: a=b; Expires=Wed, 09 Jun 2027 10:18:14 GMT\r\nX-Text: \xe9\xff\r\n"
        b"X-l:2, 3\r\nSet-Cookie: c=d\r\nX-Empty:\r\nContent-Length: 0\r\n"
    )
    upstream.answer = _says(b"HTTP/1.1 299 Wh\xe9t is this\r\n" + fields + b"\r\n")

    response = await ask(public.port, request_bytes())

    assert response.head == b"HTTP/1.1 299 Wh\xe9t is this\r\n" + fields


async def test_obsolete_forms_are_repaired(public: RunningGate, upstream: RawUpstream) -> None:
    """Folding becomes a space and white space before a colon goes (B 5.1, 5.2)."""
    upstream.answer = _says(
        b"HTTP/1.1 200\r\nX-A : 1\r\nX-B: 2\r\n\t3\r\n  4\r\nContent-Length: 02\r\n\r\nok"
    )

    response = await ask(public.port, request_bytes())

    assert (response.value("X-A"), response.value("X-B"), response.body) == ("1", "2 3 4", b"ok")
    assert response.values("Content-Length") == ["2"]


async def test_connection_fields_of_a_reply_end_here(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Hop-by-hop fields of a reply and those that its Connection lists are dropped (A 7.6.1)."""
    upstream.answer = _says(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, content-length, keep-alive\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Connection: a\r\nUpgrade: h2c\r\nx-hop: 2\r\n"
        b"X-Stays: 3\r\nContent-Length: 2\r\n\r\nok"
    )

    response = await ask(public.port, request_bytes())

    assert response.head == b"HTTP/1.1 200 OK\r\nX-Stays: 3\r\nContent-Length: 2\r\n"


@pytest.mark.both_loops
async def test_stray_bytes_end_the_connection_they_came_on(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """A late 408 on an idle connection, or two answers at once, is nobody's answer (B 9.2)."""
    upstream.answer = _says(FOLLOW_UP + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
    for _ in range(3):
        assert (await ask(public.port, request_bytes())).body == b"clean"
    assert upstream.connections == 2


@pytest.mark.both_loops
async def test_each_chunk_passes_as_it_comes(public: RunningGate, upstream: RawUpstream) -> None:
    """Events are not gathered: each reaches the client before the next is made."""
    seen = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(5):
            seen.clear()
            writer.write(b"data: %d\n\n" % number)
            await seen.wait()
        writer.close()

    upstream.answer = answer
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        for number in range(5):
            await client.reader.readuntil(b"data: %d\n\n\r\n" % number)
            seen.set()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"


@pytest.mark.both_loops
async def test_an_upstream_that_falls_silent_is_given_up(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Silence before the head is a 504, within the body a reset, each by its own timeout."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.line.startswith(b"GET /body"):
            writer.write(CL + b"hello")
        await reader.read()

    upstream.answer = answer
    routes = [
        {"name": "head", "path": "/head", "allow": ["public"], "response_timeout": "1s"},
        {"name": "body", "path": "/body", "allow": ["public"], "idle_timeout": "1s"},
    ]
    gate = await start_gate(upstream.url, route=routes)
    head, body = await asyncio.gather(
        ask(gate.port, request_bytes("/head")), _all(gate, request_bytes("/body"))
    )

    assert (head.status, head.json["error"]) == (504, "upstream-slow")
    assert body.endswith((b"hello<reset>", b"hello"))
    await until(lambda: not upstream.open_connections)


@pytest.mark.usefixtures("_reuses_late")
@pytest.mark.both_loops
async def test_a_stale_connection_is_replaced_for_what_may_be_repeated(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """GET is sent again when a reused connection closes unanswered, POST never (B 9.3.1)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(FOLLOW_UP)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    upstream.answer = answer
    for method, status in (("GET", 200), ("POST", 502)):
        assert (await ask(public.port, request_bytes())).status == 200
        length = {"Content_Length": "0"} if method == "POST" else {}
        assert (await ask(public.port, request_bytes(method=method, **length))).status == status


def _response(fields: bytes, body: bytes = b"", *, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Return a reply with these field lines and this body."""
    return line + b"\r\n" + fields + b"\r\n" + body


async def _statuses(
    gate: RunningGate, upstream: RawUpstream, cases: dict[str, bytes], *, close: bool = False
) -> dict[str, int]:
    """Let the upstream answer with each case; return what the client is answered."""
    upstream.answer = answers_by_path(cases, close=close)
    async with asyncio.timeout(15):
        found = await asyncio.gather(
            *(ask(gate.port, request_bytes(path)) for path in paths(cases))
        )
    return {name: response.status for name, response in zip(cases, found, strict=True)}


LISTINGS = {
    "one field": b"Connection: X-Hop\r\n",
    "among other options": b"Connection: keep-alive, X-Hop, close\r\n",
    "on the second line": b"Connection: keep-alive\r\nConnection: X-Hop\r\n",
    "in odd case": b"cOnNeCtIoN: x-hOP\r\n",
    "among empty elements": b"Connection: ,, \t,X-Hop, ,\r\n",
    "between tabs": b"Connection:\tkeep-alive\t,\tX-Hop\t\r\n",
}


async def test_fields_of_the_upstreams_connection_end_here(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Each form of a Connection list is read in replies too (RFC 9110 section 7.6.1)."""
    hops = b"Keep-Alive: a\r\nProxy-Connection: a\r\nUpgrade: a\r\nTE: a\r\n"
    end = b"X-Stays: 3\r\nContent-Length: 2\r\n"
    cases = {
        name: _response(b"X-Hop: 1\r\n" + listing + b"x-hop: 2\r\n" + hops + end, b"ok")
        for name, listing in LISTINGS.items()
    }
    upstream.answer = answers_by_path(cases)

    for name, path in zip(cases, paths(cases), strict=True):
        response = await ask(public.port, request_bytes(path))
        assert (name, response.head) == (name, b"HTTP/1.1 200 OK\r\n" + end)
        assert response.body == b"ok"


async def test_connection_cannot_take_away_what_the_gate_adds(
    start_gate: Start, upstream: RawUpstream, clock: Clock
) -> None:
    """A reply's Connection takes neither the renewed session nor the framing (RFC 9110 7.6.1)."""
    gate = await start_gate(upstream.url, session={"idle": "1h"})
    cookie = gate.cookie()
    clock.now += 1800
    listed = b"Connection: Set-Cookie, Cache-Control, Content-Length, Transfer-Encoding\r\n"
    for framing, body in (
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ):
        upstream.answer = _response(b"Set-Cookie: a=b\r\n" + listed + framing, body)
        response = await ask(gate.port, request_bytes(Cookie=cookie))

        assert response.body == b"hello"
        (renewed,) = response.values("Set-Cookie")
        assert renewed.startswith("tailchat_gate=")


LENGTHS = (
    *(b"+5", b"-5", b"0x5", b"5,6", b"5, 5x", b"5e0", b"0_5", b"", b"5 5", b"5;x", b"five", b'"5"'),
    *("\u0665".encode(), b"\xb2", b"5\xa0", b"18446744073709551616", b"18446744073709551621"),
    *(b"9" * 40, b"5\r\nContent-Length: +5", b"5\r\ncontent-length: 6", b"5.0", b"\xef\xbc\x95"),
)


async def test_a_length_in_doubt_is_a_502(public: RunningGate, upstream: RawUpstream) -> None:
    """A Content-Length that is not one number makes no reply (RFC 9112 section 6.3)."""
    cases = {
        str(value): _response(b"Content-Length: " + value + b"\r\n", b"hello") for value in LENGTHS
    }

    assert await _statuses(public, upstream, cases) == dict.fromkeys(cases, 502)
    await until(lambda: not upstream.open_connections)


@pytest.mark.parametrize("zeros", [b"05", b"0" * 30 + b"5"])
async def test_a_length_of_a_reply_is_sent_on_as_plain_decimal(
    public: RunningGate, upstream: RawUpstream, zeros: bytes
) -> None:
    """Leading zeros of a length are gone for the client (RFC 9112 section 6.2)."""
    upstream.answer = _says(_response(b"Content-Length: " + zeros + b"\r\n", b"hello"))

    response = await ask(public.port, request_bytes())

    assert (response.values("Content-Length"), response.body) == (["5"], b"hello")


ODD_NAMES = {
    "a colon alone": b":\r\n",
    "brackets": b"X[A]: b\r\n",
    "a space within": b"X A: b\r\n",
    "VT before the colon": b"X-A\x0b: b\r\n",
    "NBSP before the colon": b"X-A\xa0: b\r\n",
    "NEL before the colon": b"X-A\x85: b\r\n",
    "NEL in UTF-8 before the colon": "X-A\u0085: b\r\n".encode(),
    "a name in UTF-8": "X-\u00e4: b\r\n".encode(),
    "CR CR LF": b"X-A: b\r\r\n",
    "LF and a space": b"X-A: b\n c\r\n",
}


async def test_nothing_splits_a_reply(public: RunningGate, upstream: RawUpstream) -> None:
    """CR, LF and control bytes in a name, value or reason are a 502 (RFC 9110 section 5.5)."""
    cases = {name: _response(field + b"Content-Length: 0\r\n") for name, field in ODD_NAMES.items()}
    for code in (*CONTROLS, 0x0A, 0x0D):
        byte = bytes((code,))
        split = byte + b"Set-Cookie: a=b"
        cases |= {
            f"{code:#04x} in a name": _response(b"X" + byte + b"A: b\r\nContent-Length: 0\r\n"),
            f"{code:#04x} in a value": _response(b"X: a" + split + b"\r\nContent-Length: 0\r\n"),
            f"{code:#04x} first in a value": _response(
                b"X:" + split + b"\r\nContent-Length: 0\r\n"
            ),
            f"{code:#04x} in the reason": _response(
                b"Content-Length: 0\r\n", line=b"HTTP/1.1 200 O" + split
            ),
            f"{code:#04x} in the reason of 103": _response(b"", line=b"HTTP/1.1 103 a" + split)
            + FOLLOW_UP,
            f"{code:#04x} in a field of 103": _response(
                b"X: a" + split + b"\r\n", line=b"HTTP/1.1 103 a"
            )
            + FOLLOW_UP,
        }

    assert await _statuses(public, upstream, cases) == dict.fromkeys(cases, 502)


async def test_obsolete_forms_of_the_framing_are_repaired(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """A fold or a space before the colon hides no framing field (RFC 9112 sections 5.1, 5.2)."""
    cases = {
        "a fold on Content-Length": _response(b"Content-Length:\r\n 5\r\n", b"hello"),
        "a tab on Content-Length": _response(b"Content-Length\t: 5\r\n", b"hello"),
        "two folds": _response(b"Content-Length:\r\n\t\r\n 5\r\n", b"hello"),
        "a fold on Transfer-Encoding": _response(
            b"Transfer-Encoding:\r\n chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"
        ),
        "a space on Transfer-Encoding": _response(
            b"Transfer-Encoding : chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"
        ),
    }
    upstream.answer = answers_by_path(cases)

    for name, path in zip(cases, paths(cases), strict=True):
        async with asyncio.timeout(15):
            response = await ask(public.port, request_bytes(path))
        assert (name, response.status, response.body) == (name, 200, b"hello")
        assert not any(line[:1] in b" \t" for line in response.head.split(b"\r\n") if line)
        assert b" :" not in response.head

    both = b"Content-Length : 5\r\nTransfer-Encoding:\r\n gzip\r\n"
    upstream.answer = _says(_response(both, b"0\r\n\r\n"))
    assert (await ask(public.port, request_bytes())).status == 502


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early", b"199 Odd"])
async def test_an_interim_reply_says_nothing_of_the_final_one(
    public: RunningGate, upstream: RawUpstream, status: bytes
) -> None:
    """An interim reply passes, unasked too, and without a length (RFC 9110 8.6, 15.2)."""
    fields = b"X-A: 1\r\nContent-Length: 5\r\nConnection: close\r\n"
    upstream.answer = _says(_response(fields, line=b"HTTP/1.1 " + status) + FOLLOW_UP)
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        interim = await client.head()
        response = await client.response()
        client.send(request_bytes())
        follow_up = await client.response()

    assert interim == b"HTTP/1.1 " + status + b"\r\nX-A: 1\r\n"
    assert (response.body, follow_up.body) == (b"clean", b"clean")


async def test_an_interim_reply_with_chunks_is_never_a_body(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """No interim reply has a body: what comes behind it is the next reply (RFC 9112 6.3)."""
    upstream.answer = _says(
        _response(b"Transfer-Encoding: chunked\r\n", line=b"HTTP/1.1 103 Early Hints") + FOLLOW_UP
    )
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        interim = await client.head()
        response = await client.response()

    assert interim == b"HTTP/1.1 103 Early Hints\r\n"
    assert (response.status, response.body) == (200, b"clean")


@pytest.mark.parametrize(
    "behind", [b"", b"hello", b"HTTP/1.1 2", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nX\r\n\r\n"]
)
async def test_behind_an_interim_reply_a_fault_is_a_502(
    public: RunningGate, upstream: RawUpstream, behind: bytes
) -> None:
    """Where only a 103 was relayed, the gate's 502 is the final reply (RFC 9110 section 15.2)."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    upstream.answer = _says(hints + behind, close=True)
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes(method="POST", Content_Length="0"))
        head = await client.head()
        response = await client.response() if head.startswith(b"HTTP/1.1 103 ") else None

    assert (response.status if response else int(head[9:12])) == 502


async def test_an_endless_row_of_interim_replies_is_ended(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """More interim replies than anybody sends are a 502 (RFC 9110 section 15.2)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
            await writer.drain()
            await asyncio.sleep(0)

    upstream.answer = answer
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes())
        while (head := await client.head()).startswith(b"HTTP/1.1 102 "):
            pass

    assert head.startswith(b"HTTP/1.1 502 ")


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n"
ASKED = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
SWITCHES = {
    "unasked": (b"", SWITCH + ASKED + b"\r\n"),
    "to another protocol": (ASKED, SWITCH + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    "to two protocols": (
        ASKED,
        SWITCH + b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    ),
    "to two protocols on two lines": (ASKED, SWITCH + b"Upgrade: h2c\r\n" + ASKED + b"\r\n"),
    "to one protocol twice": (ASKED, SWITCH + b"Upgrade: websocket\r\n" + ASKED + b"\r\n"),
    "to none": (ASKED, SWITCH + b"Connection: Upgrade\r\n\r\n"),
    "behind 103": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" + SWITCH + ASKED + b"\r\n"),
    "asked without Connection": (b"Upgrade: websocket\r\n", SWITCH + ASKED + b"\r\n"),
    "asked with a body": (
        ASKED + b"Content-Length: 1\r\n",
        SWITCH + ASKED + b"\r\n",
    ),
    "asked for h2c": (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        SWITCH + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ),
}


@pytest.mark.parametrize(("fields", "data"), SWITCHES.values(), ids=SWITCHES.keys())
async def test_no_switch_that_was_not_asked_for(
    public: RunningGate, upstream: RawUpstream, fields: bytes, data: bytes
) -> None:
    """A 101 that the request did not ask for is a 502, and no tunnel (RFC 9110 section 15.2.2)."""
    upstream.answer = _says(data + b"raw bytes")
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(get(fields) + (b"x" if b"Content-Length" in fields else b""))
        head = await client.head()
        if head.startswith(b"HTTP/1.1 103 "):
            head = await client.head()

    assert head.startswith(b"HTTP/1.1 502 ")
    assert len(public.generation.forwarder.tunnels) == 0


async def test_what_switches_nothing_has_no_upgrade(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Upgrade is for one connection, and only a 101 takes it to the next (RFC 9110 section 7.8)."""
    final = b"HTTP/1.1 426 Upgrade Required\r\n" + ASKED + b"Content-Length: 2\r\n\r\nno"
    upstream.answer = _says(b"HTTP/1.1 103 Early Hints\r\nUpgrade: websocket\r\n\r\n" + final)
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(get(ASKED))
        interim = await client.head()
        response = await client.response()

    assert interim == b"HTTP/1.1 103 Early Hints\r\n"
    assert (response.status, response.body, response.values("Upgrade")) == (426, b"no", [])
    assert response.values("Connection") == []


@pytest.mark.both_loops
@pytest.mark.parametrize("status", [b"200 OK", b"426 Upgrade Required"])
async def test_raw_bytes_behind_a_declined_switch_are_no_tunnel(
    public: RunningGate, upstream: RawUpstream, status: bytes
) -> None:
    """Without a 101 both sides still speak HTTP, whatever they send (RFC 9110 section 7.8)."""
    frame = b"\x81\x85mask\x05\x04\x1f\x07\x02"
    declined = _response(b"Content-Length: 2\r\n", b"no", line=b"HTTP/1.1 " + status)
    upstream.answer = _says(declined + b"\x81\x05hello")
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(get(ASKED))
        first = await client.response()
        client.send(frame + SMUGGLED)
        second = await client.response()
        rest = await client.reader.read()

    assert (first.status, first.body) == (int(status[:3]), b"no")
    assert (second.status, second.value("Connection"), rest) == (400, "close", b"")
    assert len(upstream.requests) == 1
    await until(lambda: not upstream.open_connections)
    assert len(public.generation.forwarder.tunnels) == 0


GZIPPED = gzip.compress(b"hello " * 100)


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"deflate, gzip"])
async def test_an_encoded_reply_is_not_decoded(
    public: RunningGate, upstream: RawUpstream, coding: bytes
) -> None:
    """Content passes in its coding, its length with it (RFC 9110 section 7.7)."""
    fields = b"Content-Encoding: %b\r\n" % coding
    upstream.answer = _says(_response(fields + b"Content-Length: %d\r\n" % len(GZIPPED), GZIPPED))
    response = await ask(public.port, request_bytes(Accept_Encoding="identity"))

    assert (response.value("Content-Encoding"), response.body) == (coding.decode(), GZIPPED)
    assert response.value("Content-Length") == str(len(GZIPPED))

    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GZIPPED), GZIPPED)
    upstream.answer = _says(_response(fields + b"Transfer-Encoding: chunked\r\n", chunked))
    assert (await ask(public.port, request_bytes())).body == GZIPPED


@pytest.mark.parametrize(
    ("fields", "body", "connections"),
    [
        (b"Connection: keep-alive\r\nContent-Length: 5\r\n", b"hello", 1),
        (b"Content-Length: 5\r\n", b"hello", 2),
        (b"", b"hello", 2),
        (b"Connection: keep-alive\r\n", b"hello", 2),
    ],
)
async def test_an_upstream_of_http_1_0(
    public: RunningGate, upstream: RawUpstream, fields: bytes, body: bytes, connections: int
) -> None:
    """Its reply goes on as HTTP/1.1, its connection stays only if it says so (RFC 9112 9.3)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(_response(fields, body, line=b"HTTP/1.0 200 OK"))
        if b"keep-alive" not in fields or b"Content-Length" not in fields:
            writer.close()

    upstream.answer = answer
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        for _ in range(2):
            client.send(request_bytes())
            response = await client.response()
            assert response.head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert response.body == b"hello"

    assert upstream.connections == connections


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"200 OK"])
async def test_chunks_where_no_body_may_be_are_not_the_next_answer(
    public: RunningGate, upstream: RawUpstream, method: str, status: bytes
) -> None:
    """A chunked body behind HEAD, 204 or 304 reaches nobody (RFC 9112 sections 6.3 and 9.2)."""
    if (method, status) == ("GET", b"200 OK"):
        return
    upstream.answer = _says(
        _response(
            b"Transfer-Encoding: chunked\r\n",
            b"5\r\nwrong\r\n0\r\n\r\n",
            line=b"HTTP/1.1 " + status,
        )
    )
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes(method=method))
        response = await client.response(to_head=True)
        client.send(request_bytes())
        follow_up = await client.response()

    assert (response.status, follow_up.body) == (int(status[:3]), b"clean")
    assert upstream.connections == 2


AFTER_A_CHUNK = {
    "more data than the size": b"5\r\nworld!\r\n0\r\n\r\n",
    "no line end behind the data": b"5\r\nworld0\r\n\r\n",
    "CR X behind the data": b"5\r\nworld\rX0\r\n\r\n",
    "LF behind the data": b"5\r\nworld\n0\r\n\r\n",
    "LF behind the last size": b"0\n\r\n",
    "LF as the last line": b"0\r\n\n\r\n\r\n",
    "CR behind a size": b"5\rworld\r\n0\r\n\r\n",
    "a size with an underscore": b"0_5\r\nworld\r\n0\r\n\r\n",
    "a size with a letter behind": b"5abcx\r\nworld\r\n0\r\n\r\n",
    "a full-width size": "\uff15\r\nworld\r\n0\r\n\r\n".encode(),
    "an extension of 1 MiB": b"5;" + b"a" * 2**20 + b"\r\nworld\r\n0\r\n\r\n",
    "10,000 trailers": b"0\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
    "a trailer of 1 MiB": b"0\r\nX-A: " + b"b" * 2**20 + b"\r\n\r\n",
    "a trailer without a colon": b"0\r\nX-A\r\n\r\n",
    "a trailer with a space": b"0\r\nX-A : b\r\n\r\n",
    "a trailer folded": b"0\r\nX-A: b\r\n c\r\n\r\n",
    "a trailer with NUL": b"0\r\nX-A: b\x00c\r\n\r\n",
    "a length as a trailer": b"0\r\nContent-Length: 5\r\n\r\n",
    "a coding as a trailer": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.both_loops
async def test_a_fault_behind_a_chunk_is_no_clean_end(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Broken chunks and trailers end in a reset, for 1.0 clients too (RFC 9112 sections 7.1, 8)."""
    cases = list(AFTER_A_CHUNK.values())
    seen = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(TE + b"5\r\nhello\r\n")
        await seen.wait()
        writer.write(cases[int(request.line.split(b" ")[1].strip(b"/"))])
        await reader.read()

    async def one(path: str, version: bytes) -> bool:
        async with RawClient.connect(public.port) as client:
            client.send(get(target=path.encode(), version=version))
            await client.reader.readuntil(b"hello")
            arrived.release()
            # A reset, because the end of the connection is a clean end to an HTTP/1.0 client.
            with pytest.raises(ConnectionError):  # noqa: PT012 - whichever read meets it
                while await client.reader.read(65_536):
                    pass
            return True

    upstream.answer = answer
    arrived = asyncio.Semaphore(0)
    async with asyncio.timeout(20):
        running = [
            asyncio.create_task(one(path, version))
            for path in paths(cases)
            for version in (b"1.1", b"1.0")
        ]
        for _ in running:
            await arrived.acquire()
        seen.set()
        assert all(await asyncio.gather(*running))


@pytest.mark.parametrize(
    "trailer",
    [
        *(b"Set-Cookie: a=b", b"Content-Type: a/b", b"X-Tailchat-Sub: a", b"X-Forwarded-For: a"),
        *(b"Connection: close", b"Trailer: X", b"Cache-Control: public", b"Content-Encoding: a"),
    ],
)
async def test_no_trailer_of_a_reply_is_a_field(
    public: RunningGate, upstream: RawUpstream, trailer: bytes
) -> None:
    """Trailers that belong in a head are dropped on the way back too (RFC 9110 section 6.5.1)."""
    upstream.answer = _says(TE + b"5\r\nhello\r\n0\r\nX-A: 1\r\n" + trailer + b"\r\n\r\n")
    async with RawClient.connect(public.port) as client, asyncio.timeout(15):
        client.send(request_bytes(TE="trailers", Connection="TE"))
        await client.head()
        rest = await client.reader.readuntil(b"\r\n\r\n")

    assert rest == b"5\r\nhello\r\n0\r\nX-A: 1\r\n\r\n"


@pytest.mark.both_loops
@pytest.mark.parametrize(("fields", "stays"), [(b"", False), (b"Connection: keep-alive\r\n", True)])
async def test_the_connection_of_a_client_of_http_1_0(
    public: RunningGate, upstream: RawUpstream, fields: bytes, stays: bool
) -> None:
    """It is closed unless the client asks and the length is known (RFC 9112 section 9.3)."""
    close = b"Connection: close\r\n"
    first, second = get(fields, version=b"1.0"), get(close, version=b"1.0")

    found = await say(public.port, first + second)

    assert found.statuses == [200] * (1 + stays)
    assert (b"Connection: keep-alive" in found.data) is stays
    assert not found.reset


@pytest.mark.both_loops
async def test_many_tiny_chunks_of_a_reply(public: RunningGate, upstream: RawUpstream) -> None:
    """20,000 chunks of one byte arrive whole, and both connections go on (RFC 9112 7.1)."""
    upstream.answer = _says(TE + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")
    async with RawClient.connect(public.port) as client, asyncio.timeout(20):
        client.send(request_bytes())
        assert (await client.response()).body == b"a" * 20_000
        client.send(request_bytes())
        assert (await client.response()).body == b"clean"

    assert upstream.connections == 1
