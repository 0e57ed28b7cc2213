"""What two parsers could read in two ways is refused, closed, logged once, and reaches no tool."""

# ruff: noqa: RUF005 - a table of many short entries reads best as rows added up

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from gatekit import RawClient, RawUpstream, Received, RunningGate, ask, request_bytes

# A head is read by code that knows of no event loop; how a connection ends is another matter, and
# a refused head's ends as that of a broken chunk does.

Start = Callable[..., Any]

HOST = b"Host: gate.test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n"
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Callable[[], None]:
    """Return a check that no logger of the gate, aiohttp or asyncio told of an error."""
    caplog.set_level(logging.INFO)

    def check() -> None:
        ours = ("tailchat_gate", "aiohttp", "asyncio")
        found = [record for record in caplog.records if record.name.split(".")[0] in ours]
        assert [r.getMessage() for r in found if r.exc_info or r.exc_text or r.stack_info] == []
        assert [r.getMessage() for r in found if r.levelno >= logging.WARNING] == []

    return check


@pytest.fixture
async def both(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a public and a signed-in route before one upstream."""
    found = await start_gate(
        upstream.url,
        route=[{"name": "tool"}, {"name": "open", "path": "/open", "allow": ["public"]}],
    )
    assert isinstance(found, RunningGate)
    return found


async def _until_closed(port: int, data: bytes) -> bytes:
    """Return all the gate says before it closes; fails where it leaves the connection open."""
    async with RawClient.connect(port) as client, asyncio.timeout(15):
        client.send(data)
        received = b""
        try:
            while more := await client.reader.read(65_536):
                received += more
        except ConnectionError:
            # Closed while what we send was still under way.
            pass
        return received


def _get(fields: bytes, *, path: bytes = b"/open") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n"


def _post(fields: bytes, body: bytes) -> bytes:
    return b"POST /open HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


FRAMING = {
    "CL and TE": _post(b"Content-Length: 5\r\n" + CHUNKED, HELLO + SMUGGLED),
    "TE and CL": _post(CHUNKED + b"Content-Length: 5\r\n", HELLO + SMUGGLED),
    "TE and CL 0": _post(CHUNKED + b"Content-Length: 0\r\n", HELLO + SMUGGLED),
    "TE and CL of the whole": _post(b"Content-Length: 15\r\n" + CHUNKED, HELLO),
    "CL and TE on 1.0": b"POST /open HTTP/1.0\r\n" + HOST + CHUNKED + b"Content-Length: 5\r\n\r\n"
    b"hello",
    "two CL alike": _post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
    "two CL differing": _post(b"Content-Length: 5\r\nContent-Length: 0\r\n", b"hello"),
    "two CL in odd case": _post(b"Content-Length: 5\r\ncontent-LENGTH: 6\r\n", b"hello"),
    "CL list": _post(b"Content-Length: 5, 5\r\n", b"hello"),
    "CL list differing": _post(b"Content-Length: 5,6\r\n", b"hello"),
    "CL +5": _post(b"Content-Length: +5\r\n", b"hello"),
    "CL -5": _post(b"Content-Length: -5\r\n", b"hello"),
    "CL -0": _post(b"Content-Length: -0\r\n", b""),
    "CL 0x5": _post(b"Content-Length: 0x5\r\n", b"hello"),
    "CL 0_5": _post(b"Content-Length: 0_5\r\n", b"hello"),
    "CL 5e0": _post(b"Content-Length: 5e0\r\n", b"hello"),
    "CL 5.0": _post(b"Content-Length: 5.0\r\n", b"hello"),
    "CL 5;x": _post(b"Content-Length: 5;x\r\n", b"hello"),
    'CL "5"': _post(b'Content-Length: "5"\r\n', b"hello"),
    "CL 0 5": _post(b"Content-Length: 0 5\r\n", b"hello"),
    "CL empty": _post(b"Content-Length: \r\n", b"hello"),
    "CL Arabic digit": _post("Content-Length: \u0665\r\n".encode(), b"hello"),
    "CL full-width digit": _post("Content-Length: \uff15\r\n".encode(), b"hello"),
    "CL superscript digit": _post(b"Content-Length: \xb2\r\n", b"hello"),
    "CL 2^64": _post(b"Content-Length: 18446744073709551616\r\n", b"hello"),
    "CL 2^64 + 5": _post(b"Content-Length: 18446744073709551621\r\n", b"hello"),
    "CL 2^64 - 1": _post(b"Content-Length: 18446744073709551615\r\n", b"hello"),
    "CL of 40 digits": _post(b"Content-Length: " + b"9" * 40 + b"\r\n", b"hello"),
    "CL with VT": _post(b"Content-Length: \x0b5\r\n", b"hello"),
    "CL with NBSP": _post(b"Content-Length: 5\xa0\r\n", b"hello"),
    "TE cow": _post(b"Transfer-Encoding: cow\r\n", HELLO),
    "TE chunked, cow": _post(b"Transfer-Encoding: chunked, cow\r\n", HELLO),
    "TE cow, chunked": _post(b"Transfer-Encoding: cow, chunked\r\n", HELLO),
    "TE gzip, chunked": _post(b"Transfer-Encoding: gzip, chunked\r\n", HELLO),
    "TE gzip": _post(b"Transfer-Encoding: gzip\r\n", HELLO),
    "TE identity": _post(b"Transfer-Encoding: identity\r\n", HELLO),
    "TE identity, chunked": _post(b"Transfer-Encoding: identity, chunked\r\n", HELLO),
    "TE chunked, identity": _post(b"Transfer-Encoding: chunked, identity\r\n", HELLO),
    "TE chunked, chunked": _post(b"Transfer-Encoding: chunked, chunked\r\n", HELLO),
    "TE twice": _post(CHUNKED + CHUNKED, HELLO),
    "TE twice, identity last": _post(CHUNKED + b"Transfer-Encoding: identity\r\n", HELLO),
    "TE twice, identity first": _post(b"Transfer-Encoding: identity\r\n" + CHUNKED, HELLO),
    "TE xchunked": _post(b"Transfer-Encoding: xchunked\r\n", HELLO),
    "TE chunkedx": _post(b"Transfer-Encoding: chunkedx\r\n", HELLO),
    "TE quoted": _post(b'Transfer-Encoding: "chunked"\r\n', HELLO),
    "TE with a parameter": _post(b"Transfer-Encoding: chunked;q=1\r\n", HELLO),
    "TE empty": _post(b"Transfer-Encoding: \r\n", HELLO),
    "TE empty and CL": _post(b"Transfer-Encoding: \r\nContent-Length: 5\r\n", b"hello"),
    "TE comma": _post(b"Transfer-Encoding: ,\r\n", HELLO),
    "TE ,chunked": _post(b"Transfer-Encoding: , chunked\r\n", HELLO),
    "TE chunked,": _post(b"Transfer-Encoding: chunked,\r\n", HELLO),
    "TE VT chunked": _post(b"Transfer-Encoding: \x0bchunked\r\n", HELLO),
    "TE NBSP chunked": _post(b"Transfer-Encoding: \xa0chunked\r\n", HELLO),
    "TE NUL": _post(b"Transfer-Encoding: chunked\x00\r\n", HELLO),
    "TE chun\\ked": _post(b"Transfer-Encoding: chun\\ked\r\n", HELLO),
    "TE Kelvin": _post("Transfer-Encoding: chun\u212aed\r\n".encode(), HELLO),
    "TE space before colon": _post(b"Transfer-Encoding : chunked\r\n", HELLO),
    "TE folded": _post(b"Transfer-Encoding:\r\n chunked\r\n", HELLO),
    "TE by VT as a fold": _post(b"X-A: b\r\n\x0bTransfer-Encoding: chunked\r\n", HELLO),
    "TE behind a bare LF": _post(b"X-A: b\nTransfer-Encoding: chunked\r\n", HELLO),
    "TE behind a bare CR": _post(b"X-A: b\rTransfer-Encoding: chunked\r\n", HELLO),
}
FIELDS = {
    "space before colon": _get(b"X-A : b\r\n"),
    "tab before colon": _get(b"X-A\t: b\r\n"),
    "space before Host's colon": b"GET /open HTTP/1.1\r\nHost : gate.test\r\n\r\n",
    "space before the first field": b"GET /open HTTP/1.1\r\n " + HOST + b"\r\n",
    "tab before the first field": b"GET /open HTTP/1.1\r\n\tX-A: b\r\n" + HOST + b"\r\n",
    "obs-fold": _get(b"X-A: b\r\n c\r\n"),
    "obs-fold on Host": b"GET /open HTTP/1.1\r\nHost: gate.test\r\n :80\r\n\r\n",
    "obs-fold twice": _get(b"X-A: b\r\n c\r\n\td\r\n"),
    "bare CR in a value": _get(b"X-A: b\rc\r\n"),
    "bare LF in a value": _get(b"X-A: b\nc: d\r\n"),
    "bare CR in a name": _get(b"X-\rA: b\r\n"),
    "bare LF as every end": b"GET /open HTTP/1.1\nHost: gate.test\n\n",
    "bare LF as the last end": b"GET /open HTTP/1.1\r\n" + HOST + b"\n",
    "bare CR as every end": b"GET /open HTTP/1.1\rHost: gate.test\r\r\r\n",
    "CR CR LF": b"GET /open HTTP/1.1\r\n" + HOST + b"X-A: b\r\r\n\r\n",
    "no colon": _get(b"X-A\r\n"),
    "empty name": _get(b": b\r\n"),
    "colon alone": _get(b":\r\n"),
    "brackets in a name": _get(b"X[A]: b\r\n"),
    "at in a name": _get(b"X@A: b\r\n"),
    "name in UTF-8": _get("X-\u00e4: b\r\n".encode()),
    "two Hosts alike": _get(HOST),
    "two Hosts differing": _get(b"Host: evil.test\r\n"),
    "two Hosts in odd case": _get(b"hOST: evil.test\r\n"),
    "no Host": b"GET /open HTTP/1.1\r\nX-A: b\r\n\r\n",
    "1 MiB of a field": _get(b"X-A: " + b"b" * 2**20 + b"\r\n"),
    "1 MiB of a name": _get(b"X" * 2**20 + b": b\r\n"),
    "1 MiB of Host": b"GET /open HTTP/1.1\r\nHost: " + b"b" * 2**20 + b"\r\n\r\n",
    "10,000 fields": _get(b"X-A: b\r\n" * 10_000),
    "10,000 fields of one byte": _get(b"a:\r\n" * 10_000),
    "10,000 Cookie fields": _get(b"Cookie: tailchat_gate=x\r\n" * 10_000),
    "endless request line": b"GET /open?" + b"a" * 2**20,
    "endless method": b"G" * 2**18,
    "endless version": b"GET /open HTTP/" + b"1" * 2**18,
    **{
        f"control {code:#04x} in a value": _get(b"X-A: b" + bytes((code,)) + b"c\r\n")
        for code in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x0E, 0x1B, 0x1F, 0x7F)
    },
    **{
        f"control {code:#04x} in a name": _get(b"X" + bytes((code,)) + b"A: b\r\n")
        for code in (0x00, 0x01, 0x09, 0x0B, 0x0C, 0x1B, 0x20, 0x7F, 0x85, 0xA0)
    },
    **{
        f"control {code:#04x} in the target": b"GET /open"
        + bytes((code,))
        + b" HTTP/1.1\r\n"
        + HOST
        + b"\r\n"
        for code in (0x00, 0x01, 0x09, 0x0B, 0x0C, 0x1B, 0x7F, 0x80, 0xFF)
    },
}
LINES = {
    name: line + b"\r\n" + HOST + b"\r\n"
    for name, line in {
        "no version": b"GET /open",
        "no version and a space": b"GET /open ",
        "HTTP/0.9": b"GET /open HTTP/0.9",
        "HTTP/2.0": b"GET /open HTTP/2.0",
        "HTTP/3.0": b"GET /open HTTP/3.0",
        "HTTP/1.2": b"GET /open HTTP/1.2",
        "HTTP/1.10": b"GET /open HTTP/1.10",
        "HTTP/01.1": b"GET /open HTTP/01.1",
        "HTTP/1": b"GET /open HTTP/1",
        "HTTP/1.": b"GET /open HTTP/1.",
        "HTTP/1.1x": b"GET /open HTTP/1.1x",
        "HTTP/1.1 and a space": b"GET /open HTTP/1.1 ",
        "HTTP/1.1 and a word": b"GET /open HTTP/1.1 x",
        "HTTP/1,1": b"GET /open HTTP/1,1",
        "HTTP 1.1": b"GET /open HTTP 1.1",
        "http/1.1": b"GET /open http/1.1",
        "Http/1.1": b"GET /open Http/1.1",
        "HTTPS/1.1": b"GET /open HTTPS/1.1",
        "full-width version": "GET /open HTTP/\uff11.1".encode(),
        "a space in the target": b"GET /op en HTTP/1.1",
        "tabs": b"GET\t/open\tHTTP/1.1",
        "a leading space": b" GET /open HTTP/1.1",
        "method with a control": b"GE\x01T /open HTTP/1.1",
        "method with a slash": b"GE/T /open HTTP/1.1",
        "5000 letters": b"G" * 5000 + b" /open HTTP/1.1",
        "no target": b"GET HTTP/1.1",
        "no slash": b"GET open HTTP/1.1",
        "bytes in UTF-8": "GET /open/\u00e4 HTTP/1.1".encode(),
    }.items()
}
GARBAGE = {
    "TLS hello": TLS_HELLO,
    "HTTP/2 preface": H2_PREFACE,
    "zeros": b"\x00" * 64,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMTP": b"EHLO gate.test\r\n",
    "SOCKS": b"\x05\x01\x00\r\n\r\n",
    "PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /open HTTP/1.1\r\n" + HOST + b"\r\n",
    "PROXY protocol 2": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
    "a reply": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "random": bytes(range(128, 256)) * 4,
}


@pytest.mark.parametrize(
    "data",
    [*FRAMING.values(), *FIELDS.values(), *LINES.values(), *GARBAGE.values()],
    ids=[*FRAMING, *FIELDS, *LINES, *GARBAGE],
)
async def test_what_can_be_read_in_two_ways_is_refused(
    both: RunningGate, upstream: RawUpstream, quiet: Callable[[], None], data: bytes
) -> None:
    """One 4xx or 5xx, then the connection is closed; one line is logged and nothing forwarded."""
    received = await _until_closed(both.port, data)

    assert received[:9] == b"HTTP/1.1 "
    assert int(received[9:12]) in {400, 414, 431, 501, 505}
    assert received.count(b"HTTP/1.") == 1
    assert upstream.requests == []
    lines = await both.log()
    assert [(line["status"] // 100 in {4, 5}, line["sub"]) for line in lines] == [(True, "")]
    quiet()


CHUNKS = {
    "0x5": b"0x5\r\nhello\r\n0\r\n\r\n",
    "+5": b"+5\r\nhello\r\n0\r\n\r\n",
    "-5": b"-5\r\nhello\r\n0\r\n\r\n",
    "0_5": b"0_5\r\nhello\r\n0\r\n\r\n",
    "5abcx": b"5g\r\nhello\r\n0\r\n\r\n",
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "a leading space": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "a tab behind": b"5\t\r\nhello\r\n0\r\n\r\n",
    "CR alone": b"5\rhello\r\n0\r\n\r\n",
    "LF alone": b"5\nhello\r\n0\r\n\r\n",
    "LF behind an extension": b"5;x\nhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;x\ry\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;\x00\r\nhello\r\n0\r\n\r\n",
    "NUL": b"5\x00\r\nhello\r\n0\r\n\r\n",
    "full-width digit": "\uff15\r\nhello\r\n0\r\n\r\n".encode(),
    "2^64 + 5": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "20 digits": b"ffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "too much data": b"5\r\nhello!\r\n0\r\n\r\n",
    "no line end behind the data": b"5\r\nhello0\r\n\r\n",
    "CR X behind the data": b"5\r\nhello\rX0\r\n\r\n",
    "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "LF behind the last size": b"5\r\nhello\r\n0\n\r\n",
    "LF as the very last": b"5\r\nhello\r\n0\r\n\n",
    "trailer Transfer-Encoding": b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer Content-Length": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "trailer without a colon": b"5\r\nhello\r\n0\r\nX-A\r\n\r\n",
    "trailer with a space": b"5\r\nhello\r\n0\r\nX-A : b\r\n\r\n",
    "trailer folded": b"5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n",
    "10,000 trailers": b"5\r\nhello\r\n0\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
    "1 MiB of a trailer": b"5\r\nhello\r\n0\r\nX-A: " + b"b" * 2**20 + b"\r\n\r\n",
}


@pytest.mark.both_loops
@pytest.mark.parametrize("garbage", CHUNKS.values(), ids=CHUNKS.keys())
async def test_broken_chunks_end_the_connection_and_the_request(
    both: RunningGate, upstream: RawUpstream, quiet: Callable[[], None], garbage: bytes
) -> None:
    """A broken chunked body gives 400 and the end; what follows is never another request."""
    upstream.answer = _swallow

    received = await _until_closed(both.port, _post(CHUNKED, garbage + SMUGGLED))

    assert received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert all(b"smuggled" not in request.head for request in upstream.requests)
    # What was begun with the upstream was never ended: read_body saw no last chunk.
    assert all(request.body == b"" for request in upstream.requests)
    statuses = [line["status"] for line in await both.log()]
    assert statuses
    assert set(statuses) <= {400, 431}
    quiet()


async def _swallow(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Read a body to its last chunk, and answer only then."""
    request.body = await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


HOSTS = (
    [b"", b" ", b"gate test", b"gate,test", b"gate.test,gate.test", b"user@gate.test"]
    + [
        b"gate.test/x",
        b"gate.test?x",
        b"gate.test#x",
        b"gate.test\\x",
        b"gate.test:",
        b"gate.test:x",
    ]
    + [b"gate.test:-1", b"gate.test:99999", b"gate.test:80:80", b"::1", b"[::1", b"[::1]x", b"*"]
    + [b"gate.test%00", b"gate%2etest", b"http://gate.test", b".", b"-", b"gate.test;x", b"\xff"]
    + ["g\u00e4te.test".encode(), b"gate.test\xa0", b"a" * 300, b"<gate>", b'"gate.test"', b"{}"]
)


async def test_a_bad_host_is_refused(
    both: RunningGate, upstream: RawUpstream, quiet: Callable[[], None]
) -> None:
    """What is no host with an optional port gives 400, on own, public and other paths."""
    for host in HOSTS:
        for path in (b"/open", b"/x", b"/ping", b"/oauth2/start"):
            data = b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
            response = await ask(both.port, data)
            assert (host, path, response.status) == (host, path, 400)

    assert upstream.requests == []
    assert len(await both.log()) == len(HOSTS) * 4
    quiet()


TARGETS = (
    [b"/open#x", b"/open\\x", b"/open%00", b"*", b"gate.test", b"gate.test:80", b"//", b"http://"]
    + [
        b"http:///open",
        b"http://evil.test/open",
        b"http://gate.test:81/open",
        b"ftp://gate.test/open",
    ]
    + [b"http://user@gate.test/open", b"http://gate.test#/open", b"http://gate.test\\open"]
    + [b"http:open", b"javascript:open", b"http://gate.test\\@evil.test/open", b"?", b"#"]
)


async def test_a_bad_target_is_refused(
    both: RunningGate, upstream: RawUpstream, quiet: Callable[[], None]
) -> None:
    """A target that is no path, or names another host than Host, reaches no tool."""
    for target in TARGETS:
        data = b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n"
        response = await ask(both.port, data)
        wanted = 401 if target == b"//" else 400
        assert (target, response.status) == (target, wanted)

    assert upstream.requests == []
    quiet()


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        (b"CONNECT gate.test:443 HTTP/1.1", {400, 405, 501}),
        (b"CONNECT /open HTTP/1.1", {400, 405, 501}),
        (b"CONNECT http://gate.test/open HTTP/1.1", {400, 405, 501}),
        (b"CONNECT evil.test:25 HTTP/1.0", {400, 405, 501}),
        (b"TRACE /open HTTP/1.1", {405, 501}),
        (b"TRACE /ping HTTP/1.1", {405, 501}),
        (b"TRACE http://gate.test/open HTTP/1.1", {405, 501}),
        (b"OPTIONS * HTTP/1.1", {200, 204, 400, 405, 501}),
        (b"GET * HTTP/1.1", {400}),
    ],
)
@pytest.mark.parametrize("signed_in", [False, True])
async def test_methods_that_are_not_for_a_tool_stay_here(
    both: RunningGate,
    upstream: RawUpstream,
    quiet: Callable[[], None],
    line: bytes,
    statuses: set[int],
    signed_in: bool,
) -> None:
    """CONNECT, TRACE and OPTIONS * are answered by the gate, and show no cookie."""
    cookie = both.cookie().encode() if signed_in else b"tailchat_gate=shown"
    fields = HOST + b"Cookie: " + cookie + b"\r\nMax-Forwards: 0\r\n\r\n"

    response = await ask(both.port, line + b"\r\n" + fields)

    assert response.status in statuses
    assert cookie not in response.head + response.body
    assert b"Max-Forwards" not in response.body
    assert upstream.requests == []
    assert len(await both.log()) == 1
    quiet()


@pytest.mark.both_loops
async def test_bytes_behind_a_refused_connect_are_no_tunnel(
    both: RunningGate, upstream: RawUpstream, quiet: Callable[[], None]
) -> None:
    """What a client sends behind CONNECT reaches no tool but as a request of its own."""
    data = b"CONNECT gate.test:443 HTTP/1.1\r\n" + HOST + b"\r\n" + TLS_HELLO

    received = await _until_closed(both.port, data)

    assert received.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert b" 200 " not in received
    assert upstream.requests == []
    quiet()


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("fields", "version"),
    [
        (b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n", b"1.1"),
        (b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", b"1.1"),
        (b"Connection: Upgrade\r\nUpgrade: websocketx\r\n", b"1.1"),
        (b"Upgrade: websocket\r\n", b"1.1"),
        (b"Connection: Upgrade\r\n", b"1.1"),
        (b"Connection: close\r\nUpgrade: websocket\r\n", b"1.1"),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"1.0"),
    ],
)
async def test_only_a_websocket_is_asked_for_upstream(
    both: RunningGate,
    upstream: RawUpstream,
    quiet: Callable[[], None],
    fields: bytes,
    version: bytes,
) -> None:
    """Other protocols, 1.0 and a lone Upgrade are no upgrade (RFC 9110 section 7.8)."""
    line = b"GET /open HTTP/" + version + b"\r\n"

    response = await ask(both.port, line + HOST + fields + b"\r\n")

    assert response.status in {200, 400, 501}
    for request in upstream.requests:
        assert request.value("Upgrade") is None
        assert request.value("HTTP2-Settings") is None
        assert b"Upgrade" not in b"".join(request.values("Connection"))
    quiet()


async def _abort(port: int, data: bytes) -> None:
    """Send bytes, then reset the connection."""
    async with RawClient.connect(port) as client:
        client.send(data)
        await client.writer.drain()
        raw = client.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


BROKEN_OFF: Sequence[bytes] = (
    b"",
    b"G",
    b"GET /open",
    b"GET /open HTTP/1.1\r\n",
    b"GET /open HTTP/1.1\r\nHost: ga",
    b"GET /open HTTP/1.1\r\nHost: gate.test\r\n",
    b"GET /open HTTP/1.1\r\nHost: gate.test\r\n\r",
    TLS_HELLO[:20],
    b"\r\n\r\n",
)


@pytest.mark.both_loops
@pytest.mark.parametrize("data", BROKEN_OFF)
@pytest.mark.parametrize("leave", ["close", "reset", "half-close"])
async def test_a_client_that_leaves_is_no_event(
    both: RunningGate, upstream: RawUpstream, quiet: Callable[[], None], data: bytes, leave: str
) -> None:
    """A connection closed or reset within a head costs one log line at most, and no traceback."""
    if leave == "reset":
        await _abort(both.port, data)
    else:
        async with RawClient.connect(both.port) as client, asyncio.timeout(15):
            client.send(data)
            if leave == "half-close":
                client.writer.write_eof()
                await client.reader.read()
    after = await ask(both.port, request_bytes("/open"))

    assert after.status == 200
    assert len(upstream.requests) == 1
    assert len(await both.log()) <= 2
    quiet()


@pytest.mark.both_loops
@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize(
    "data",
    [
        _post(b"Content-Length: 10\r\n", b"hello"),
        _post(CHUNKED, b"5\r\nhel"),
        _post(CHUNKED, b"5\r\nhello\r\n"),
        _post(CHUNKED, b"5\r\nhello\r\n0\r\n"),
        b"GET /open HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_a_client_that_leaves_within_a_body_is_one_line(
    both: RunningGate, upstream: RawUpstream, quiet: Callable[[], None], data: bytes, leave: str
) -> None:
    """The upstream's request is cut off too, the log has one line, and no traceback."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def answer(
        _request: object, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
    ) -> None:
        arrived.set()
        try:
            while await reader.read(100):
                pass
        finally:
            gone.set()

    upstream.answer = answer
    async with RawClient.connect(both.port) as client:
        client.send(data)
        await arrived.wait()
        if leave == "reset":
            raw = client.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await gone.wait()

    lines = await both.log()
    assert [line["status"] // 100 for line in lines] == [4]
    quiet()


@pytest.mark.both_loops
async def test_the_rest_of_the_gate_goes_on(
    both: RunningGate, upstream: RawUpstream, quiet: Callable[[], None]
) -> None:
    """Sixty broken connections leave the gate as it was for the next visitor."""
    broken = [*GARBAGE.values(), *(data for data in FRAMING.values() if len(data) < 1000)]
    for data in broken[:60]:
        await _abort(both.port, data)

    response = await ask(both.port, request_bytes("/x", Cookie=both.cookie()))

    assert response.status == 200
    assert upstream.requests[-1].value("X-Tailchat-Nickname") == b"Alice"
    assert len(both.server._server.connections if both.server._server else ()) <= 1
    quiet()
