"""Generated requests arrive as they were sent; mutated ones too, or not at all."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import pytest
from choices import Choices, choices, pool
from gatekit import ALICE, RunningGate, make_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from strictkit import Answered, StrictUpstream, bounds_of, converse

from fuzz.reference import request as reference
from fuzz.reference import rewriting
from fuzz.reference.request import Request
from fuzz.reference.syntax import TOKEN, Pairs, values

Start = Callable[..., Any]
LIMITS = bounds_of(make_settings())
TOKENS = pool(sorted(TOKEN))
OWN_COOKIES = frozenset((b"tailchat_gate", b"tailchat_gate_login"))
IDENTITY: Pairs = [
    (b"X-Tailchat-Sub", ALICE.sub.encode()),
    (b"X-Tailchat-Nickname", b"Alice"),
    (b"X-Tailchat-Discriminator", b"0042"),
    (b"X-Tailchat-Avatar", b"https://chat.example/static/a.png"),
]
#: Where a session stands in a request, if there is one.
SESSION = b"e=f; the-session; g=h"
#: Methods that the gate may answer itself.
ODD_METHODS = frozenset((b"CONNECT", b"TRACE", b"OPTIONS"))


class Message(NamedTuple):
    """A request to send, in parts."""

    method: bytes
    target: bytes
    version: bytes
    lines: tuple[bytes, ...]
    body: bytes

    @property
    def data(self) -> bytes:
        """Its bytes."""
        line = b" ".join((self.method, self.target, self.version))
        return b"\r\n".join((line, *self.lines, b"", self.body))


QUERY = [octet for octet in range(0x21, 0x7F) if octet != ord("#")]
QUERIES = pool(QUERY)
PATHS = pool(octet for octet in QUERY if octet not in b"?\\")
VALUES = pool((9, *range(0x20, 0x7F), *range(0x80, 0x100)))
OCTETS = pool(range(256))
SPACE = (b"", b" ", b"\t", b"  \t ")
HOSTS = (b"gate.test", b"GATE.Test", b"gate.test:8080", b"gate.test.")
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"get", b"PROPFIND")
NAMES = (
    *(b"Accept", b"Via", b"Range", b"Authorization", b"Content-Type", b"TE", b"Trailer"),
    *(b"X-Hop", b"X-Tailchat-Sub", b"X_Tailchat_Nickname", b"x.tailchat.sub", b"Proxy"),
    *(b"X-Forwarded-For", b"X_Forwarded-Host", b"Forwarded", b"X-Real-IP", b"Keep-Alive"),
    *(b"Proxy-Connection", b"Proxy-Authorization", b"X-Request-Id", b"X-Original-URL"),
    *(b"Content_Length", b"Transfer.Encoding", b"Expect", b"Upgrade", b"Cookie2"),
)
OPTIONS = (
    *(b"keep-alive", b"X-Hop", b"x-HOP", b"te", b"", b"cookie", b"content-length", b"via"),
    *(b"host", b"x-tailchat-sub", b"transfer-encoding", b"x-forwarded-for", b"accept"),
)
COOKIES = (b"a=b", b"c", b"_session=x", b" tailchat_gate_login=y", b"", b"d=e=f", b"\xff")
EXTENSIONS = (b"", b"", b";a", b" ;a=b", b'\t; a="\xff;"', b";" + b"x" * 900)


def in_odd_case(choose: Choices, name: bytes) -> bytes:
    """Return a name with some letters in the other case."""
    flips = choose.below(256)
    return bytes(
        other if flips >> place % 8 & 1 else octet
        for place, (octet, other) in enumerate(zip(name, name.swapcase(), strict=True))
    )


def field(choose: Choices) -> tuple[bytes, bytes]:
    """Return the name and the value of a field."""
    match choose.below(5):
        case 0:
            return b"X-" + choose.stretch(TOKENS, 12, 1), choose.stretch(VALUES, 24)
        case 1:
            return in_odd_case(choose, choose.of(NAMES)), choose.stretch(VALUES, 24)
        case 2:
            listed = b" ,\t".join(choose.several(OPTIONS, 4, 1))
            return in_odd_case(choose, b"Connection"), listed
        case 3:
            return in_odd_case(choose, b"Cookie"), b"; ".join(choose.several(COOKIES, 4))
        case _:
            return b"TE", choose.of((b"trailers", b"gzip, trailers;q=1", b"Trailers"))


def lines(choose: Choices, more: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    """Return field lines with white space around their values; `more` are among them."""
    pairs = choose.shuffled([*(field(choose) for _ in range(choose.below(7))), *more])
    return tuple(
        b"".join((name, b":", choose.of(SPACE), value, choose.of(SPACE))) for name, value in pairs
    )


def chunked(choose: Choices) -> bytes:
    """Return a chunked body: chunks of any size, extensions, trailers."""
    data = b""
    for _ in range(choose.below(5)):
        content = choose.stretch(OCTETS, 40, 1)
        size = choose.of((b"%x", b"%X", b"00%x")) % len(content)
        data += size + choose.of(EXTENSIONS) + b"\r\n" + content + b"\r\n"
    trailers = lines(choose, ()) if choose.below(2) else ()
    trailers = tuple(line for line in trailers if not line.lower().startswith(b"host"))
    last = choose.of((b"0", b"000")) + choose.of(EXTENSIONS)
    return b"\r\n".join((data + last, *trailers, b"", b""))


def message(choose: Choices) -> Message:
    """Return a good request."""
    method = choose.of(METHODS) if choose.below(2) else choose.stretch(TOKENS, 12, 1)
    host = choose.of(HOSTS)
    path = b"/t" + choose.stretch(PATHS, 24).replace(b"%0", b"%1")
    query = b"?" + choose.stretch(QUERIES, 24) if choose.below(2) else b""
    origin = choose.of((b"", b"", b"", b"http://" + host, b"HTTPS://" + host.upper()))
    version = choose.of((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"))
    own = [(in_odd_case(choose, b"Host"), host), (in_odd_case(choose, b"Cookie"), SESSION)]
    body = b""
    kind = choose.of(("none", "length", "chunks"))
    if kind == "chunks" and version == b"HTTP/1.1":
        own.append((in_odd_case(choose, b"Transfer-Encoding"), in_odd_case(choose, b"chunked")))
        body = chunked(choose)
    elif kind == "length":
        body = choose.stretch(OCTETS, 60)
        zeros = choose.of((b"", b"", b"00"))
        own.append((in_odd_case(choose, b"Content-Length"), zeros + b"%d" % len(body)))
    if choose.below(2):
        own += [
            (in_odd_case(choose, b"X-Hop"), b"1"),
            (in_odd_case(choose, b"Connection"), b"X-Hop"),
        ]
    method = b"M" + method if method in ODD_METHODS else method
    return Message(method, origin + path + query, version, lines(choose, own), body)


def conversation(choose: Choices) -> bytes:
    """Return requests of one connection."""
    return b"".join(
        choose.of((b"", b"", b"\r\n")) + message(choose).data for _ in range(choose.between(1, 3))
    )


def in_pieces(choose: Choices, data: bytes) -> list[bytes]:
    """Return bytes in pieces, few or single ones among them."""
    places = [choose.between(0, len(data)) for _ in range(choose.below(7))]
    if choose.below(2):
        start = choose.between(0, len(data))
        places += range(start, min(start + 12, len(data)))
    ends = [0, *sorted(set(places)), len(data)]
    return [data[start:end] for start, end in pairwise(ends) if start < end]


def good(said: Choices, cut: Choices) -> list[bytes]:
    """Return requests of one connection in pieces."""
    return in_pieces(cut, conversation(said))


#: What ends a line, a word or a number; the start of a line, a number, and of a target.
ENDS = re.compile(rb"\r\n|[ :;,]|(?<=[0-9])\b")
STARTS, NUMBERS, TARGETS = re.compile(rb"(?<=\r\n)"), re.compile(rb"[0-9]+"), re.compile(rb" /t")
#: What is put into a request to see it refused, or read as it stands.
SPLINTERS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b":", b"\x0b", b"\r\n\r\n", b"\r\n ", b",", b";", b"x", b"0"),
    *(b"-", b"+", b"0x", b"HTTP/1.0", b"#", b"\xff", b"%00", b"\\", b"\x7f", b"0\r\n\r\n"),
)
LINES = (
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding : chunked\r\n", b"X : y\r\n"),
    *(b"Host: evil.test\r\n", b"X: y\r\n z\r\n", b"X\r\n", b"\r\n", b"5\r\nhello\r\n"),
    *(b"Connection: close\r\n", b"GET /t-smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n"),
)


def changed(said: Choices, choose: Choices) -> list[bytes]:
    """Return the bytes of a connection whose requests were changed, in pieces."""
    data = conversation(said)
    for _ in range(choose.between(1, 3)):
        data = choose.of(CHANGES)(choose, data)
    return in_pieces(choose, data)


def _one_of(choose: Choices, places: re.Pattern[bytes], data: bytes) -> tuple[int, int]:
    """Return the span of one of the matches, the end of all where there is none."""
    spans = [found.span() for found in places.finditer(data)]
    return choose.of(spans) if spans else (len(data), len(data))


def _line(choose: Choices, data: bytes) -> bytes:
    start = _one_of(choose, STARTS, data)[0]
    return data[:start] + choose.of(LINES) + data[start:]


def _space(choose: Choices, data: bytes) -> bytes:
    place = choose.of(_one_of(choose, ENDS, data))
    return data[:place] + choose.of((b" ", b"\t", b"\n", b"\r")) + data[place:]


def _number(choose: Choices, data: bytes) -> bytes:
    start, end = _one_of(choose, NUMBERS, data)
    number = choose.of((b"0", b"1", b"5", b"+1", b"-0", b"0x1", b"f" * 17, b"", b"2.0"))
    return data[:start] + number + data[end:]


def _host(choose: Choices, data: bytes) -> bytes:
    start, end = _one_of(choose, TARGETS, data)
    host = choose.of((b"http://evil.test", b"ftp://gate.test", b"//evil.test", b""))
    return data[:start] + b" " + host + b"/t" + data[end:]


def _splinter(choose: Choices, data: bytes) -> bytes:
    place = choose.between(0, len(data))
    return data[:place] + choose.of(SPLINTERS) + data[place:]


def _cut_out(choose: Choices, data: bytes) -> bytes:
    place = choose.between(0, len(data))
    return data[:place] + data[place + choose.between(1, 12) :]


def _double(choose: Choices, data: bytes) -> bytes:
    place = choose.between(0, len(data))
    return data[: place + choose.between(1, 12)] + data[place:]


def _change(choose: Choices, data: bytes) -> bytes:
    place = choose.between(0, len(data))
    return data[:place] + bytes((choose.below(256),)) + data[place + 1 :]


CHANGES = (_line, _line, _space, _space, _number, _host, _splinter, _cut_out, _double, _change)


@pytest.fixture
async def strict() -> AsyncIterator[StrictUpstream]:
    """Return an upstream that reads strictly."""
    async with StrictUpstream() as found:
        yield found


def expected(sent: Request, got: Request, *, signed_in: bool) -> tuple[object, ...]:
    """Return what the upstream should have got for a request; its id is the one it got."""
    ids = values(got.fields, b"x-request-id")
    assert len(ids) == 1
    assert len(ids[0]) == 24
    setting = rewriting.Setting(
        OWN_COOKIES,
        identity=IDENTITY if signed_in else (),
        # A request that names no host may be for any, Tailchat's too.
        beside_tailchat=not sent.host[0],
        request_id=ids[0],
    )
    return (
        *(sent.method, sent.path, b"HTTP/1.1", sent.length, sent.is_chunked, sent.content),
        rewriting.passed_trailers(sent.trailers),
        rewriting.to_upstream(sent, setting),
    )


def received(got: Request) -> tuple[object, ...]:
    """Return what the upstream got."""
    return (
        *(got.method, got.target, got.version, got.length, got.is_chunked, got.content),
        got.trailers,
        rewriting.without_framing(got.fields),
    )


class Ends:
    """A gate, the upstream behind it, and conversations through both from another thread."""

    def __init__(self, gate: RunningGate, upstream: StrictUpstream, *, cookie: bytes) -> None:
        self.gate = gate
        self.upstream = upstream
        #: What signs in, b"" where nobody has to.
        self.cookie = cookie
        self._loop = asyncio.get_running_loop()

    def converse(self, pieces: list[bytes], sent: list[Request], *, to_end: bool) -> Answered:
        """Send pieces and wait for the answers."""
        methods = [one.method for one in sent]

        async def talk() -> Answered:
            async with asyncio.timeout(15):
                await self.upstream.forget()
            return await converse(self.gate.port, pieces, methods, to_end=to_end)

        return asyncio.run_coroutine_threadsafe(talk(), self._loop).result()


def check_arrival(ends: Ends, pieces: list[bytes], data: bytes) -> None:
    """Send good requests; each arrives as it should, and its answer comes in its turn."""
    sent, wrong = reference.stream(data, LIMITS)
    assert not wrong
    assert sent[-1].complete
    to_end = not reference.stays(sent[-1])

    answered = ends.converse(pieces, sent, to_end=to_end)

    assert answered.statuses == [200] * len(sent)
    assert [one.content for one in answered.responses if one.content] == [
        one.path for one in sent if one.method != b"HEAD"
    ]
    assert answered.ended == to_end
    assert not ends.upstream.unreadable
    assert not ends.upstream.begun
    for one, got in zip(sent, ends.upstream.whole, strict=True):
        assert received(got) == expected(one, got, signed_in=bool(ends.cookie))


def check_no_doubt(ends: Ends, pieces: list[bytes], data: bytes) -> None:
    """Send what may be no request; what arrives is exactly what a plain reader reads."""
    sent, wrong = reference.stream(data, LIMITS)
    whole = [one for one in sent if one.complete]
    to_end = bool(wrong or (whole and not reference.stays(whole[-1])))

    answered = ends.converse(pieces, whole, to_end=to_end)

    assert not ends.upstream.unreadable
    # One answer at most to what is no request, and perhaps before that is known for certain.
    assert all(status >= 400 for status in answered.statuses[len(whole) :])
    assert answered.ended or (not to_end and len(answered.statuses) >= len(whole))
    assert answered.statuses.count(200) <= len(ends.upstream.whole)
    waiting = list(sent)
    for got in ends.upstream.whole:
        matching = [one for one in waiting if one.complete and _is_of(one, got, ends)]
        assert matching, f"nobody sent {got}"
        # Those before it were answered by the gate, or the order is not the client's.
        waiting = waiting[waiting.index(matching[0]) + 1 :]
    for got in ends.upstream.begun:
        assert any(one.method == got.method and one.path == got.target for one in waiting)


def _is_of(sent: Request, got: Request, ends: Ends) -> bool:
    """Tell whether this is what the upstream should get for a request, signed in or not."""
    return any(
        received(got) == expected(sent, got, signed_in=signed_in)
        for signed_in in {False, bool(ends.cookie)}
    )


def rewritten(ends: Ends, pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """Return pieces of requests with the session in them, cut where they were cut."""
    data = b"".join(pieces)
    if ends.cookie:
        data = data.replace(SESSION, ends.cookie)
    ends_at = [*accumulate(map(len, pieces[:-1])), len(data)]
    return [data[start:end] for start, end in pairwise([0, *ends_at]) if start < end], data


async def _run(
    check: Callable[[Ends, list[bytes], bytes], None],
    ends: Ends,
    what: Callable[[Choices, Choices], list[bytes]],
    examples: int,
) -> None:
    """Check generated conversations from another thread, which may wait for this loop."""

    @settings(max_examples=examples, deadline=None)
    @given(pieces=st.builds(what, choices(512), choices(64)))
    def each(pieces: list[bytes]) -> None:
        check(ends, *rewritten(ends, pieces))

    await asyncio.to_thread(each)


@pytest.mark.parametrize("signed_in", [False, True])
async def test_generated_requests_arrive_as_they_were_sent(
    start_gate: Start, strict: StrictUpstream, signed_in: bool
) -> None:
    """Whatever is good passes with its bytes, rewritten by the documents alone (A 7.6, B 3-7)."""
    allow = ["signed-in" if signed_in else "public"]
    gate = await start_gate(strict.url, route=[{"name": "tool", "allow": allow}])
    ends = Ends(gate, strict, cookie=gate.cookie().encode() if signed_in else b"")

    await _run(check_arrival, ends, good, 120)


async def test_mutated_requests_arrive_in_one_reading_or_not_at_all(
    start_gate: Start, strict: StrictUpstream
) -> None:
    """What is broken ends its connection, and nothing of it is whole upstream (B 2.2, 5, 6, 8)."""
    gate = await start_gate(strict.url, route=[{"name": "tool", "allow": ["public"]}])

    await _run(check_no_doubt, Ends(gate, strict, cookie=b""), changed, 350)
