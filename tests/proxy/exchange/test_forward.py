"""The exchange with an upstream, over raw sockets."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from gatekit import (
    OK,
    Answer,
    RawClient,
    RawUpstream,
    Received,
    RunningGate,
    ask,
    read_body,
    request_bytes,
)
from wirekit import reset

from tailchat_gate.proxy.upstream.backends import Dialer

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]


async def test_the_request_arrives_as_it_was_sent(gate: RunningGate, upstream: RawUpstream) -> None:
    """Target, field order, repeats and bytes of values reach the upstream unchanged."""
    target = rb"/a%3Ab%27c//d;e=%2F?x=%2f&y=%3B&&z=" + b"\\q"
    data = (
        b"GET " + target + b" HTTP/1.1\r\nHost: gate.test:8080\r\n"
        b"X-L: one\r\naccept: */*\r\nX-L: two, three\r\nX-Bytes: caf\xc3\xa9 \xff\r\n"
        b"Cookie: a=1; " + gate.cookie().encode() + b"; b=2\r\n\r\n"
    )

    response = await ask(gate.port, data)

    assert response.status == 200
    received = upstream.requests[0]
    assert received.line == b"GET " + target + b" HTTP/1.1"
    assert received.value("Host") == b"gate.test:8080"
    kept = [pair for pair in received.fields if pair[0] in {b"X-L", b"accept", b"X-Bytes"}]
    assert kept == [
        (b"X-L", b"one"),
        (b"accept", b"*/*"),
        (b"X-L", b"two, three"),
        (b"X-Bytes", b"caf\xc3\xa9 \xff"),
    ]
    assert received.value("Cookie") == b"a=1; b=2"


async def test_the_upstream_is_told_who_asks_and_from_where(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Identity and forwarding fields are the gate's own."""
    await ask(gate.port, request_bytes("/", host="gate.test:8443", Cookie=gate.cookie()))

    received = upstream.requests[0]
    assert received.value("X-Tailchat-Sub") == b"660000000000000000000001"
    assert received.value("X-Tailchat-Nickname") == b"Alice"
    assert received.value("X-Tailchat-Discriminator") == b"0042"
    assert received.value("X-Tailchat-Avatar") == b"https://chat.example/static/a.png"
    assert received.value("X-Tailchat-Groups") is None
    assert received.value("X-Forwarded-For") == b"127.0.0.1"
    assert received.value("X-Forwarded-Proto") == b"http"
    assert received.value("X-Forwarded-Host") == b"gate.test:8443"
    assert received.value("X-Forwarded-Port") == b"8443"
    assert len(received.value("X-Request-Id") or b"") == 24


@pytest.mark.parametrize(
    ("fields", "body", "sent"),
    [
        (b"Content-Length: 5\r\n", b"hello", b"hello"),
        (b"Content-Length: 0\r\n", b"", b""),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b""),
    ],
)
async def test_bodies_arrive_whole(
    gate: RunningGate, upstream: RawUpstream, fields: bytes, body: bytes, sent: bytes
) -> None:
    """A body arrives with the framing it came with (RFC 9112 section 6)."""
    head = b"POST /p HTTP/1.1\r\nHost: gate.test\r\nCookie: %b\r\n" % gate.cookie().encode()

    response = await ask(gate.port, head + fields + b"\r\n" + body)

    assert response.body == b"ok"
    assert upstream.requests[0].body == sent
    framing = fields.partition(b":")[0].decode()
    assert upstream.requests[0].value(framing) == fields.partition(b": ")[2].strip()


async def test_a_body_streams_before_it_is_complete(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """The first part of a body reaches the upstream while the rest is still to come."""
    first_part = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request.body = await reader.readexactly(5)
        first_part.set()
        request.body += await reader.readexactly(5)
        writer.write(OK)

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/", method="PUT", Cookie=gate.cookie(), Content_Length="10"))
        client.send(b"first")
        await first_part.wait()
        client.send(b"then.")

        assert (await client.response()).status == 200
    assert upstream.requests[0].body == b"firstthen."


async def test_expect_100_continue_is_decided_by_the_upstream(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """The upstream's 100 reaches a client that waits for it (RFC 9110 section 10.1.1)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.body = await read_body(request, reader)
        writer.write(OK)

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(
            request_bytes(
                "/", method="POST", Cookie=gate.cookie(), Content_Length="4", Expect="100-continue"
            )
        )
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        client.send(b"body")

        assert (await client.response()).body == b"ok"
    assert upstream.requests[0].body == b"body"


async def test_early_hints_pass_and_the_answer_follows(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """An interim 103 is passed on and the final answer is not lost (RFC 9110 section 15.2)."""
    upstream.answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))

        hints = await client.head()
        response = await client.response()

    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n"
    assert (response.status, response.body) == (200, b"ok")


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"hello",
        ),
        (b"HTTP/1.1 404 Nope\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n', b""),
    ],
)
async def test_replies_arrive_whole_and_the_connections_are_reused(
    gate: RunningGate, upstream: RawUpstream, answer: bytes, body: bytes
) -> None:
    """Every framing of a reply is relayed, and both connections serve the next request."""
    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        for _ in range(3):
            client.send(request_bytes(Cookie=gate.cookie()))
            response = await client.response()

            assert response.status == int(answer.split(b" ")[1])
            assert response.body == body
            assert response.head.split(b"\r\n")[0] == answer.split(b"\r\n")[0]
    assert upstream.connections == 1


async def test_the_reply_fields_keep_their_order_and_bytes(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Repeats, order and odd bytes of reply fields stay; hop-by-hop fields go."""
    upstream.answer = (
        b"HTTP/1.1 200 Fine By Me\r\nX-L: 1\r\nSet-Cookie: a=1, x\r\nX-L: 2\r\n"
        b"Set-Cookie: b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\nX-O: caf\xe9\r\n"
        b"Keep-Alive: timeout=5\r\nConnection: keep-alive, X-Private\r\nX-Private: p\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))

    assert response.head == (
        b"HTTP/1.1 200 Fine By Me\r\nX-L: 1\r\nSet-Cookie: a=1, x\r\nX-L: 2\r\n"
        b"Set-Cookie: b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\nX-O: caf\xe9\r\n"
        b"Content-Length: 2\r\n"
    )


async def test_an_upstream_cannot_touch_the_gates_cookies(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """A tool's Set-Cookie under the gate's names is dropped, its others stay."""
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: tailchat_gate=evil; Path=/\r\n"
        b"Set-Cookie: tailchat_gate_login=evil\r\nSet-Cookie: own=1\r\nContent-Length: 0\r\n\r\n"
    )

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))

    assert response.values("Set-Cookie") == ["own=1"]


async def test_a_head_reply_has_no_body_and_the_connection_goes_on(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """HEAD keeps the Content-Length and sends no body (RFC 9110 section 9.3.2)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        if request.line.startswith(b"GET"):
            writer.write(b"hello")

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        for _ in range(2):
            client.send(request_bytes(method="HEAD", Cookie=gate.cookie()))
            response = await client.response(to_head=True)
            assert response.value("Content-Length") == "5"
            client.send(request_bytes(Cookie=gate.cookie()))
            assert (await client.response()).body == b"hello"
    assert upstream.connections == 1


async def test_a_reply_that_ends_with_its_connection(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """A close-delimited reply is chunked for HTTP/1.1 and close-delimited for HTTP/1.0."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        writer.close()

    upstream.answer = answer

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))
    old = await ask(
        gate.port,
        b"GET / HTTP/1.0\r\nHost: gate.test\r\nCookie: %b\r\n\r\n" % gate.cookie().encode(),
    )

    assert response.value("Transfer-Encoding") == "chunked"
    assert response.body == old.body == b"until the end"
    assert old.value("Transfer-Encoding") == ""
    assert old.value("Connection") == "close"


def _writing(data: bytes, *, closes: bool) -> Answer:
    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(data)
        await writer.drain()
        if closes:
            writer.close()

    return answer


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
async def test_a_reply_cut_off_is_cut_off_for_the_client(
    gate: RunningGate, upstream: RawUpstream, cut: bytes
) -> None:
    """An incomplete reply never looks whole (RFC 9112 section 8)."""
    upstream.answer = _writing(cut, closes=True)

    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await ask(gate.port, request_bytes(Cookie=gate.cookie()))

    assert (await gate.log())[-1]["reason"] == "upstream-broken"


@pytest.mark.parametrize(
    "answer",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Evil: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Evil: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        b"",
    ],
)
async def test_a_broken_reply_is_a_502_with_the_request_id(
    gate: RunningGate, upstream: RawUpstream, answer: bytes
) -> None:
    """What is not a reply becomes the gate's own 502, and nothing of it reaches the client."""
    upstream.answer = _writing(answer, closes=len(answer) < 1000)

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))

    assert response.status == 502
    assert response.json["error"] == "upstream-broken"
    assert response.json["request_id"] == (await gate.log())[-1]["id"]
    assert b"Evil" not in response.head


async def test_a_body_that_breaks_later_is_cut_off(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Once a part of a reply was relayed, a fault in its framing cuts the client off."""
    seen = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await seen.wait()
        writer.write(b"zz\r\n")
        await reader.read()

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        assert (await client.head()).startswith(b"HTTP/1.1 200 OK")
        assert await client.reader.readexactly(10) == b"5\r\nhello\r\n"
        seen.set()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.reader.readexactly(1)


async def test_an_upstream_that_is_down_is_a_502(start_gate: Start) -> None:
    """A refused connection is 502 upstream-down: a page for a browser, JSON for others."""
    gate = await start_gate("http://127.0.0.1:1")

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))
    page = await ask(gate.port, request_bytes(Cookie=gate.cookie(), Accept="text/html"))

    assert (response.status, response.json["error"]) == (502, "upstream-down")
    assert page.status == 502
    assert page.value("Content-Type") == "text/html; charset=utf-8"
    assert response.json["request_id"][:16].encode() in page.body


async def test_an_upstream_that_is_slow_is_a_504(start_gate: Start, upstream: RawUpstream) -> None:
    """No head within response_timeout is 504, and the upstream connection is closed."""
    closed = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read()
        closed.set()

    upstream.answer = answer
    route = {"name": "tool", "response_timeout": "1s"}
    gate = await start_gate(upstream.url, route=[route])

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))
    await closed.wait()

    assert (response.status, response.json["error"]) == (504, "upstream-slow")


async def test_a_slow_upload_is_not_a_slow_upstream(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """The time for the reply's head counts from the end of the request's body."""
    route = {"name": "tool", "response_timeout": "3s"}
    gate = await start_gate(upstream.url, route=[route])
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(method="PUT", Cookie=gate.cookie(), Content_Length="4"))
        for byte in (b"s", b"l", b"o", b"w"):
            await asyncio.sleep(1)
            client.send(byte)

        assert (await client.response()).status == 200


async def test_a_client_that_leaves_cancels_its_request(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """The upstream connection is closed as soon as the client is gone."""
    gate = await start_gate(upstream.url, server={"half_closed_timeout": "0s"})
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        arrived.set()
        with suppress(ConnectionError):
            await reader.read()
        closed.set()

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        await arrived.wait()
    await closed.wait()

    line = (await gate.log())[-1]
    assert (line["status"], line["reason"]) == (499, "client-gone")


async def test_an_unfinished_request_is_never_finished_for_the_upstream(
    gate: RunningGate, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that breaks off or breaks its framing leaves the upstream's request incomplete."""
    outcomes: list[str] = []
    arrived, done = asyncio.Event(), asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        arrived.set()
        try:
            await read_body(request, reader)
            outcomes.append("complete")
        except (asyncio.IncompleteReadError, ConnectionError):
            outcomes.append("incomplete")
        done.set()

    upstream.answer = answer
    chunked = request_bytes(method="POST", Cookie=gate.cookie(), Transfer_Encoding="chunked")
    for sent, leaves in ((b"5\r\nhel", True), (b"5\r\nhello\r\nzz\r\n", False)):
        arrived.clear()
        done.clear()
        async with RawClient.connect(gate.port) as client:
            client.send(chunked)
            await arrived.wait()
            client.send(sent)
            if leaves:
                client.writer.close()
            else:
                assert (await client.response()).status == 400
            await done.wait()

    assert outcomes == ["incomplete", "incomplete"]
    assert caplog.records == []


@pytest.mark.parametrize("more", [(), ("http://127.0.0.1:1",)])
async def test_a_fault_while_connecting_ends_its_request(
    start_gate: Start,
    upstream: RawUpstream,
    more: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault that nobody expects is a 500 and in the log, with one backend and with several."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Dialer, "connect", fail)
    route = {"name": "tool", "upstream": [upstream.url, *more], "allow": ["public"]}
    gate = await start_gate(route=[route])
    response = await ask(gate.port, request_bytes())

    assert (response.status, response.json["error"]) == (500, "internal-error")
    assert [record.message for record in caplog.records] == ["a request failed inside the gate"]
    assert upstream.requests == []


async def test_a_stale_connection_is_replaced_for_an_idempotent_request(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """A GET on a pooled connection that the upstream closes unanswered is sent once more."""
    served = 0

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal served
        served += 1
        if served == 2:
            writer.close()
            return
        writer.write(OK)

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        for _ in range(2):
            client.send(request_bytes(Cookie=gate.cookie()))
            assert (await client.response()).status == 200

    assert upstream.connections == 2


async def test_a_post_is_never_sent_twice(gate: RunningGate, upstream: RawUpstream) -> None:
    """A POST whose connection closes unanswered is a 502, not a second POST."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request.body = await read_body(request, reader)
        if request.line.startswith(b"POST"):
            writer.close()
        else:
            writer.write(OK)

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        assert (await client.response()).status == 200
        client.send(request_bytes(method="POST", Cookie=gate.cookie(), Content_Length="1") + b"x")
        assert (await client.response()).status == 502

    assert [r.line.split(b" ")[0] for r in upstream.requests] == [b"GET", b"POST"]


async def test_stray_bytes_never_answer_the_next_request(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Bytes behind an answer make its connection unfit for use (RFC 9112 section 9.2)."""
    upstream.answer = OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with RawClient.connect(gate.port) as client:
        for _ in range(3):
            client.send(request_bytes(Cookie=gate.cookie()))
            assert (await client.response()).body == b"ok"

    assert upstream.connections == 3


async def test_pipelined_requests_are_answered_in_order(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Three requests in one write get three answers in their order (RFC 9112 section 9.3.2)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        name = request.line.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(b"".join(request_bytes(f"/{n}", Cookie=gate.cookie()) for n in range(3)))

        assert [(await client.response()).body for _ in range(3)] == [b"/0", b"/1", b"/2"]


async def test_events_arrive_as_they_are_sent(gate: RunningGate, upstream: RawUpstream) -> None:
    """Each server-sent event passes at once, while the reply is still open."""
    seen = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
        )
        await seen.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        await client.head()
        assert await client.reader.readuntil(b"data: 1\n\n\r\n")
        seen.set()
        assert b"data: 2" in await client.reader.readuntil(b"0\r\n\r\n")


async def test_a_slow_reader_holds_the_upstream_back(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """What the client does not read stays with the upstream; memory does not take it in."""
    # More than the kernel's buffers of two connections grow to: 32 MiB to read and 4 to write each.
    sent, total = 0, 128 * 2**20
    stalled = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        block = b"x" * 2**16
        while sent < total:
            writer.write(block)
            sent += len(block)
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                stalled.set()
                await writer.drain()

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        await stalled.wait()
        assert sent < 96 * 2**20
        head = await client.head()
        assert b"%d" % total in head
        received = 0
        while received < total:
            received += len(await client.reader.read(2**20))

    assert received == total


@pytest.mark.parametrize("times", range(5))
async def test_a_refusal_arrives_although_the_upload_breaks(
    gate: RunningGate, upstream: RawUpstream, times: int
) -> None:
    """An answer behind which the upstream closes is not lost to a write that fails first."""
    arrived: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        arrived.set_result(writer)
        await asyncio.Event().wait()

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client, asyncio.timeout(15):
        client.send(request_bytes(method="POST", Cookie=gate.cookie(), Content_Length="1000000"))
        writer = await arrived
        # In one turn: the gate hears of the body first, and of the answer from a broken write.
        client.send(b"x" * 1000)
        writer.write(b"HTTP/1.1 413 Too large\r\nContent-Length: 2\r\n\r\nno")
        reset(writer)
        response = await client.response()

    assert (response.status, response.body) == (413, b"no")
