"""Heads of requests: what the gate reads is what a plain reader reads, or both refuse."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from fuzz.cutting import cut, steered
from fuzz.reference import request as reference
from fuzz.reference.syntax import BadError, elements
from fuzz.target import Target
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.fields import FieldSection, HeadLimits
from tailchat_gate.request.head import RequestHead, RequestReader
from tailchat_gate.request.sections import PlainSections, read_carefully
from tailchat_gate.request.shapes import TELLING, Shape

#: Small enough for a fuzzer to reach them, and the gate's own.
_LIMITS = (HeadLimits(40, 160, 6, 40), HeadLimits(8192, 32_768, 100, 8192))
#: What may come behind the start of a head; one that was refused is refused with each of them.
_TAILS = (
    b"\r\n\r\n",
    b"\n\r\n\r\n",
    b"\r\nHost: h\r\n\r\n",
    b" / HTTP/1.1\r\nHost: h\r\n\r\n",
    b" HTTP/1.1\r\nHost: h\r\n\r\n",
    b".1\r\nHost: h\r\n\r\n",
    b": x\r\nHost: h\r\n\r\n",
)


def check(data: bytes) -> None:
    """Read a head whole, in pieces and again; one byte chooses limits, three how it is cut."""
    steer, data = steered(data, 4)
    limits = _LIMITS[steer[0] % len(_LIMITS)]
    reader = RequestReader(limits)
    found = _read(reader, data)
    _compare(found, data, limits)
    assert _same(_read(reader, data), found), "what is kept reads differently"
    _check_plain(data, limits)
    _check_pieces(limits, data, steer[1:], found)


def _check_plain(data: bytes, limits: HeadLimits) -> None:
    """Read the section by a pattern that was made for its names: as with care, or not at all."""
    end, middle = data.find(b"\r\n\r\n"), data.find(b"\r\n", 2)
    raw = data[middle + 2 : end + 2]
    wanted = _tell(lambda: read_carefully(raw, limits, Shape))
    for known in (raw, _harmless(raw)):
        sections = PlainSections(limits, often=1)
        for _ in range(2):
            with suppress(RefusedError):
                sections.learn(read_carefully(known, limits, sections.shape))
        found = _tell(partial(sections.read, raw))
        assert found in (None, wanted), "a pattern reads differently"


def _tell(read: Callable[[], FieldSection | None]) -> object:
    """Return all that a section says, None where there is none, or the text of the refusal."""
    try:
        section = read()
    except RefusedError as error:
        return str(error)
    if section is None:
        return None
    told = {name: getattr(section, name) for name in FieldSection.__slots__ if name != "shape"}
    host = section.host
    return {**told, "names": section.shape.names, "host": (host.raw, host.name, host.port)}


def _harmless(raw: bytes) -> bytes:
    """Return lines of the same names, whose values are plain where they tell nothing."""
    lines = (line.partition(b":") for line in raw.split(b"\r\n")[:-1])
    return b"".join(
        b"%b:%b\r\n" % (name, value if name.lower() in TELLING else b" x")
        for name, _, value in lines
    )


def _read(reader: RequestReader, data: bytes) -> tuple[RequestHead, int] | str | None:
    """Return what the reader returns, or the text of its refusal."""
    try:
        return reader.read(data)
    except RefusedError as error:
        return str(error)


def _same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        head, size = one
        return bool(size == other[1] and head.fields.pairs == other[0].fields.pairs)
    return type(one) is type(other)


def _compare(found: tuple[RequestHead, int] | str | None, data: bytes, limits: HeadLimits) -> None:
    try:
        wanted = reference.head(data, reference.Bounds(*limits))
    except BadError:
        assert isinstance(found, str), "what should be refused is not"
        return
    if wanted is None:
        assert not isinstance(found, tuple), "a head that is not whole was read"
        return
    assert isinstance(found, tuple), found
    head, size = found
    assert size == wanted.size
    assert head.method.encode("ascii") == wanted.method
    assert head.http10 == (wanted.version == b"HTTP/1.0")
    assert list(head.fields.pairs) == wanted.fields
    assert head.target.raw == wanted.path
    assert (head.target.path + head.target.query).encode("ascii") == wanted.path
    assert "?" not in head.target.path
    assert head.keep_alive == reference.stays(wanted)
    _compare_sense(head, wanted)
    if head.line:
        assert head.line == wanted.method + b" " + wanted.target + b" HTTP/1.1\r\n"


def _compare_sense(head: RequestHead, wanted: reference.Request) -> None:
    """Compare what the fields are taken to say of the message."""
    fields = head.fields
    assert (fields.length, fields.chunked) == (wanted.length, wanted.is_chunked)
    assert (fields.host.name.encode("ascii"), fields.host.port.encode("ascii")) == wanted.host
    assert fields.connection == set(elements(wanted.fields, b"connection")) - {b""}
    assert list(fields.cookies) == [v for n, v in wanted.fields if n.lower() == b"cookie"]
    assert (
        fields.upgrade == b",".join(v for n, v in wanted.fields if n.lower() == b"upgrade").lower()
    )
    expected = [v.lower() for n, v in wanted.fields if n.lower() == b"expect"]
    assert fields.expects_continue == (expected == [b"100-continue"])


def _check_pieces(
    limits: HeadLimits, data: bytes, sizes: bytes, found: tuple[RequestHead, int] | str | None
) -> None:
    """What comes in pieces ends as what comes at once; only what is wrong is refused early."""
    reader = RequestReader(limits)
    come = b""
    for piece in cut(data, sizes):
        come += piece
        part = _read(reader, come)
        if isinstance(part, str):
            if found is None:
                for tail in _TAILS:
                    assert isinstance(_read(reader, data + tail), str), (part, tail)
            else:
                assert isinstance(found, str), f"refused on the way: {part}"
            return
        if part is not None:
            assert isinstance(found, tuple)
            assert _same(part, found)
            return
    assert found is None or not data


TARGET = Target(
    check,
    parsers=(
        *("request.head", "request.fields", "request.target"),
        *("request.sections", "request.shapes"),
    ),
    seeds=(
        b"\0\0\0\0GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\1\1\2\3\r\nPOST /a?b=c HTTP/1.1\r\nHost: h:80\r\nContent-Length: 05\r\n\r\nhello",
        b"\1\7\0\0PUT http://h/x HTTP/1.1\r\nHost: H.\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\1\5\0\0GET / HTTP/1.0\r\nConnection: keep-alive, close\r\nCookie: a=b\r\n\r\n",
        b"\1\0\0\0GET / HTTP/1.1\r\nHost: [::1]:8080\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nExpect: 100-continue\r\n\r\n",
        b"\1\0\0\0GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\1\0\0\0GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"\1\0\0\0GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n",
        b"\1\0\0\0GET / HTTP/1.1\nHost: h\n\n",
        b"\1\0\0\0GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\1\0\0\0PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"\1\0\0\0PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"\1\0\0\0PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\1\0\0\0PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n",
        b"\1\0\0\0GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        b"\1\0\0\0GET / HTTP/1.1\r\nHost: h\r\nX-A: b \r\nX-B:  c\r\nCookie: \xe9\r\n\r\n",
        b"\1\0\0\0PUT / HTTP/1.1\r\nHost: h\r\nX-A: b\r\nContent-Length: 07\r\n\r\n",
        b"\1\0\0\0GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\0\1\0\0AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA /bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb "
        b"HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    words=(
        *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b": ", b"Host: h\r\n"),
        *(b"GET / HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Content-Length: 5\r\n", b"Content-Length: "),
        *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: ", b"chunked", b"Connection: "),
        *(b"keep-alive", b"close", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n"),
        *(
            b"Cookie: ",
            b"http://h",
            b"https://H",
            b"/",
            b"?",
            b"#",
            b"%00",
            b"\\",
            b"[::1]",
            b":80",
        ),
    ),
)
