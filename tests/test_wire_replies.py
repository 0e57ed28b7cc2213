"""Replies on the wire: framing, interim ones, cut ones, malformed ones (RFC 9110, 9112)."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from gatekit import RawClient, RawUpstream, Received, RunningGate, ask, request_bytes

Start = Callable[..., Any]
FOLLOW_UP = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean"


@pytest.fixture
async def public(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a public route whose silence is bounded."""
    found = await start_gate(
        upstream.url, route=[{"name": "t", "allow": ["public"], "response_timeout": "2s"}]
    )
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
    async with RawClient.connect(gate.port) as client, asyncio.timeout(8):
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
    "LF line ends": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "CL +5": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "CL -5": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "CL list": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    "two CL": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "CL 2^64+5": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "TE gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"
    b"\r\n0\r\n\r\n",
    "TE in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
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
    async with RawClient.connect(public.port) as client, asyncio.timeout(5):
        client.send(request_bytes())
        reply = await client.reply()
        client.send(request_bytes())
        follow_up = await client.reply()

    assert (reply.status, reply.json["error"]) == (502, "upstream-broken")
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


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("data", BEFORE_THE_HEAD)
async def test_a_reply_cut_in_its_head_is_a_502(
    public: RunningGate, upstream: RawUpstream, data: bytes, reset: bool
) -> None:
    """Before its head was whole nothing of a reply was relayed (B 8)."""
    upstream.answer = _says(data, close=True, reset=reset)

    reply = await ask(public.port, request_bytes(method="POST", Content_Length="0"))

    assert (reply.status, reply.json["error"]) == (502, "upstream-broken")


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


async def test_a_reset_is_no_end_of_a_body(public: RunningGate, upstream: RawUpstream) -> None:
    """A body that runs until the upstream closes ends with its FIN alone (B 6.3, 8)."""
    upstream.answer = _says(b"HTTP/1.1 200 OK\r\n\r\nhello", reset=True)
    received = await _all(public, request_bytes())
    assert b"\r\n0\r\n\r\n" not in received
    upstream.answer = _says(b"HTTP/1.1 200 OK\r\n\r\nhello", reset=True)
    received = await _all(public, b"GET / HTTP/1.0\r\nHost: gate.test\r\n\r\n")
    assert received.endswith(b"<reset>") or b"502" in received

    upstream.answer = _says(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)
    reply = await ask(public.port, request_bytes())
    assert reply.body == b"hello"


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
    async with RawClient.connect(public.port) as client, asyncio.timeout(5):
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
    async with RawClient.connect(public.port) as client, asyncio.timeout(5):
        client.send(request_bytes(method=method))
        reply = await client.reply(to_head=True)
        client.send(request_bytes())
        follow_up = await client.reply()

    assert reply.status == int(status[:3])
    assert follow_up.body == b"clean"
    if status.startswith(b"204"):
        assert reply.values("Content-Length") == []


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"200 OK"])
async def test_a_body_where_none_may_be_is_not_the_next_answer(
    public: RunningGate, upstream: RawUpstream, status: bytes
) -> None:
    """Bytes behind a reply without a body are nobody's answer (B 9.2)."""
    upstream.answer = _says(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nwrong")
    method = "HEAD" if status.startswith(b"200") else "GET"
    async with RawClient.connect(public.port) as client, asyncio.timeout(5):
        client.send(request_bytes(method=method))
        await client.reply(to_head=True)
        client.send(request_bytes())
        follow_up = await client.reply()

    assert follow_up.body == b"clean"
    assert upstream.connections == 2


async def test_interim_replies_pass_and_the_final_one_is_never_lost(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """103 and its fields pass to 1.1, 300 of them too, none to 1.0 (A 15.2)."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    upstream.answer = _says(hints * 300 + FOLLOW_UP)
    async with RawClient.connect(public.port) as client, asyncio.timeout(5):
        client.send(request_bytes())
        heads = [await client.head() for _ in range(300)]
        reply = await client.reply()

    assert set(heads) == {hints[:-2]}
    assert reply.body == b"clean"

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
    async with RawClient.connect(public.port) as client, asyncio.timeout(5):
        client.send(request_bytes(**fields))
        head = await client.head()
        rest = await client.reader.readuntil(b"\r\n\r\n")
        client.send(request_bytes())
        follow_up = await client.reply()

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

    reply = await ask(public.port, request_bytes())

    assert reply.head == b"HTTP/1.1 299 Wh\xe9t is this\r\n" + fields


async def test_obsolete_forms_are_repaired(public: RunningGate, upstream: RawUpstream) -> None:
    """Folding becomes a space and white space before a colon goes (B 5.1, 5.2)."""
    upstream.answer = _says(
        b"HTTP/1.1 200\r\nX-A : 1\r\nX-B: 2\r\n\t3\r\n  4\r\nContent-Length: 02\r\n\r\nok"
    )

    reply = await ask(public.port, request_bytes())

    assert (reply.value("X-A"), reply.value("X-B"), reply.body) == ("1", "2 3 4", b"ok")
    assert reply.values("Content-Length") == ["2"]


async def test_connection_fields_of_a_reply_end_here(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """Hop-by-hop fields of a reply and those that its Connection lists are dropped (A 7.6.1)."""
    upstream.answer = _says(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, content-length, keep-alive\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Connection: a\r\nUpgrade: h2c\r\nx-hop: 2\r\n"
        b"X-Stays: 3\r\nContent-Length: 2\r\n\r\nok"
    )

    reply = await ask(public.port, request_bytes())

    assert reply.head == b"HTTP/1.1 200 OK\r\nX-Stays: 3\r\nContent-Length: 2\r\n"


async def test_stray_bytes_end_the_connection_they_came_on(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """A late 408 on an idle connection, or two answers at once, is nobody's answer (B 9.2)."""
    upstream.answer = _says(FOLLOW_UP + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
    for _ in range(3):
        assert (await ask(public.port, request_bytes())).body == b"clean"
    assert upstream.connections == 2


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
    async with RawClient.connect(public.port) as client, asyncio.timeout(5):
        client.send(request_bytes())
        for number in range(5):
            await client.reader.readuntil(b"data: %d\n\n\r\n" % number)
            seen.set()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"


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
    route = {"name": "t", "allow": ["public"], "response_timeout": "1s", "idle_timeout": "1s"}
    gate = await start_gate(upstream.url, route=[route])
    head, body = await asyncio.gather(
        ask(gate.port, request_bytes("/head")), _all(gate, request_bytes("/body"))
    )

    assert (head.status, head.json["error"]) == (504, "upstream-slow")
    assert body.endswith((b"hello<reset>", b"hello"))
    assert upstream.open_connections == 0


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
