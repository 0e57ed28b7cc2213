"""What a client can send on a WebSocket, by the chapters of the Autobahn test suite.

Each case ends with a close frame, or with what makes a strict server end it. What a server must
not take is in one write with all that is behind it, so that the server leaves nothing unread:
whether the kernel makes an end or a reset of unread bytes is chance.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from websocketkit import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    HalfClose,
    Pieces,
    Step,
    Until,
    close,
    fragments,
    frame,
)

DEFLATE = "permessage-deflate"
#: What both servers take in one message.
LIMIT = 2**23
#: Of frames that are no part of a message.
_RSV1 = 4

NORMAL, PROTOCOL, NO_CODE, GONE, NOT_UTF8, TOO_BIG = 1000, 1002, 1005, 1006, 1007, 1009


class Case(NamedTuple):
    """What a client does, and the codes that RFC 6455 lets a server close with.

    `extensions` and `protocols` are offered in the handshake. `end_by_chance`: the server leaves
    bytes unread, so that its connection ends in an end or in a reset.
    """

    steps: tuple[Step, ...]
    codes: tuple[int, ...] = (NORMAL,)
    extensions: str = ""
    protocols: str = ""
    end_by_chance: bool = False


Cases = Iterator[tuple[str, Case]]


def _echoed(*sent: Step, frames: int = 1, offer: str = "") -> Case:
    """A message whose echo is waited for before the close."""
    return Case((*sent, Until(frames), close()), extensions=offer)


def _at_once(*sent: bytes, codes: tuple[int, ...] = (NORMAL,), offer: str = "") -> Case:
    """Frames in one write, the close behind them."""
    return Case((b"".join(sent) + close(),), codes, extensions=offer)


def _failed(*sent: Step, code: int = PROTOCOL, offer: str = "") -> Case:
    """Something that a server must not take; behind it a close, for one that takes it.

    None behind text that is no UTF-8: a server may look at it later than at the frames.
    """
    last = sent[-1]
    assert isinstance(last, bytes)
    behind = b"" if code == NOT_UTF8 else close()
    return Case((*sent[:-1], last + behind), (code,), extensions=offer)


def framing() -> Cases:
    """Chapter 1: messages of every form of the length."""
    for name, opcode, letter in (("text", TEXT, b"*"), ("binary", BINARY, b"\xfe")):
        for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536):
            yield f"{name} of {size}", _echoed(frame(opcode, letter * size))
        large = frame(opcode, letter * 65_536)
        yield f"{name} of 65536 in pieces of 997", _echoed(Pieces(large, 997))
        yield f"{name}, octet by octet", _echoed(Pieces(frame(opcode, letter * 300), 1))
        yield (
            f"{name}, a longer form than needed",
            Case((frame(opcode, letter * 5, form=2) + close(),), (NORMAL, PROTOCOL)),
        )
        yield (
            f"{name}, the longest form",
            Case((frame(opcode, letter * 5, form=8) + close(),), (NORMAL, PROTOCOL)),
        )
        yield f"{name} without a mask", _failed(frame(opcode, letter * 5, mask=b""))
        yield f"{name} with a mask of zeros", _echoed(frame(opcode, letter * 5, mask=bytes(4)))
    yield "two messages in one write", _at_once(frame(TEXT, "one"), frame(BINARY, b"two"))
    yield (
        "a message and half of the next",
        _echoed(
            frame(TEXT, "one") + frame(TEXT, "second")[:9],
            Until(1),
            frame(TEXT, "second")[9:],
            frames=2,
        ),
    )
    yield (
        "a length with the top bit",
        Case((b"\x82\xff\x80" + bytes(7) + MASK,), (PROTOCOL, TOO_BIG)),
    )


def pings() -> Cases:
    """Chapter 2: pings and pongs."""
    for name, payload in (
        ("nothing", b""),
        ("text", b"Hello, world!"),
        ("octets", bytes((0x00, 0xFF, 0xFE, 0xFD, 0x00, 0xFF))),
        ("125 octets", b"\xfe" * 125),
    ):
        yield f"ping with {name}", _echoed(frame(PING, payload))
        yield f"pong with {name}, unasked", _at_once(frame(PONG, payload))
    yield "ping with 126 octets", _failed(frame(PING, b"\xfe" * 126))
    yield "ping octet by octet", _echoed(Pieces(frame(PING, b"\xfe" * 125), 1))
    yield "pong and ping", _echoed(frame(PONG, b"unasked") + frame(PING, b"asked"))
    ten = b"".join(frame(PING, b"payload-%d" % number) for number in range(10))
    yield "ten pings", _echoed(ten, frames=10)
    yield "ten pings, octet by octet", _echoed(Pieces(ten, 1), frames=10)
    yield "ping without a mask", _failed(frame(PING, b"x", mask=b""))


def reserved_bits() -> Cases:
    """Chapter 3: bits that no extension gives a meaning."""
    for rsv in range(1, 8):
        bad = frame(TEXT, "Hello", rsv=rsv)
        yield f"rsv {rsv} on text", _failed(bad)
        yield f"rsv {rsv} behind a message", _failed(frame(TEXT, "good"), Until(1), bad)
        yield f"rsv {rsv} on a ping", _failed(frame(PING, b"x", rsv=rsv))
        yield f"rsv {rsv} on a close", _failed(frame(CLOSE, b"\x03\xe8", rsv=rsv))
        yield (
            f"rsv {rsv} on a continuation",
            _failed(frame(TEXT, "a", fin=False) + frame(CONTINUATION, "b", rsv=rsv)),
        )


def opcodes() -> Cases:
    """Chapter 4: opcodes that are reserved."""
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", _failed(frame(opcode))
        yield f"opcode {opcode} with a payload", _failed(frame(opcode, "reserved"))
        yield (
            f"opcode {opcode} behind a message",
            _failed(frame(TEXT, "good"), Until(1), frame(opcode, "bad")),
        )
        yield (
            f"opcode {opcode} in a message",
            _failed(frame(TEXT, "good", fin=False) + frame(opcode, "bad")),
        )


def fragmentation() -> Cases:
    """Chapter 5: messages in frames, control frames between them."""
    first, last = frame(TEXT, "fragment1", fin=False), frame(CONTINUATION, "fragment2")
    middle = frame(CONTINUATION, "middle", fin=False)
    ping = frame(PING, b"between")
    yield "fragmented ping", _failed(frame(PING, b"a", fin=False) + frame(CONTINUATION, b"b"))
    yield "fragmented pong", _failed(frame(PONG, b"a", fin=False))
    yield "fragmented close", _failed(frame(CLOSE, b"\x03\xe8", fin=False))
    yield "two fragments in one write", _echoed(first + last)
    yield "two fragments in two writes", _echoed(first, last)
    yield "two fragments, octet by octet", _echoed(Pieces(first + last, 1))
    yield "a ping between fragments", _echoed(first, ping, Until(1), last, frames=2)
    yield "a ping between, in one write", _echoed(first + ping + last, frames=2)
    yield "a ping between, octet by octet", _echoed(Pieces(first + ping + last, 1), frames=2)
    yield (
        "pings between many fragments",
        _echoed(*(first, ping, Until(1), middle, middle, ping, Until(2), middle, last), frames=3),
    )
    yield "a pong between fragments", _echoed(first + frame(PONG, b"x") + last)
    yield "a continuation of nothing", _failed(frame(CONTINUATION, "x"))
    yield "an open continuation of nothing", _failed(frame(CONTINUATION, "x", fin=False))
    yield (
        "a continuation behind a message",
        _failed(frame(TEXT, "whole"), Until(1), frame(CONTINUATION, "x")),
    )
    yield "text inside of a message", _failed(first + frame(TEXT, "new"))
    yield "binary inside of a message", _failed(first + frame(BINARY, b"new"))
    yield "text inside, behind a ping", _failed(first, ping, Until(1), frame(TEXT, "new"))
    yield (
        "empty fragments",
        _echoed(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION)),
    )
    yield (
        "empty fragments around text",
        _echoed(frame(TEXT, fin=False) + frame(CONTINUATION, "x", fin=False) + frame(CONTINUATION)),
    )
    yield "a close inside of a message", Case((first + close(1000, "enough"),), (NORMAL, PROTOCOL))
    yield "1000 fragments of one octet", _echoed(b"".join(fragments(BINARY, b"x" * 1000, 1)))


_GOOD_UTF8 = {
    "letters": "Hello-µ@ßöäüàá-UTF-8!!",
    "Greek": "κόσμε",
    "Chinese": "星野 你好",
    "the last of one octet": "\x7f",
    "the last of two": "\u07ff",
    "the last of three": "\uffff",
    "the last of four": "\U0010ffff",
    "around the surrogates": "\ud7ff\ue000",
    "what is no character": "\ufdd0\ufffe\U0001fffe",
    "NUL": "\x00",
}
_BAD_UTF8 = {
    "a surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "beyond the last": b"\xf4\x90\x80\x80",
    "five octets": b"\xf8\x88\x80\x80\x80",
    "overlong slash": b"\xc0\xaf",
    "overlong NUL": b"\xe0\x80\x80",
    "a lone continuation": b"\x80",
    "a lone start": b"\xce",
    "cut in the last": b"\xf0\x9f\x98",
    "FE and FF": b"\xfe\xff",
    "Latin-1": b"caf\xe9 au lait",
}


def utf8() -> Cases:
    """Chapter 6: the UTF-8 of text."""
    for name, text in _GOOD_UTF8.items():
        octets = text.encode()
        yield f"{name}", _echoed(frame(TEXT, octets))
        yield f"{name} in fragments of one octet", _echoed(*fragments(TEXT, octets, 1))
        yield f"{name}, octet by octet", _echoed(Pieces(frame(TEXT, octets), 1))
    for name, bad in _BAD_UTF8.items():
        yield f"{name}", _failed(frame(TEXT, bad), code=NOT_UTF8)
        yield (
            f"{name} behind good text",
            _failed(frame(TEXT, "κόσμε".encode() + bad), code=NOT_UTF8),
        )
        yield (
            f"{name} in the last fragment",
            _failed(frame(TEXT, "κόσμε", fin=False) + frame(CONTINUATION, bad), code=NOT_UTF8),
        )
        yield f"{name} in binary", _echoed(frame(BINARY, bad))


#: RFC 6455 section 7.4 and its registry.
_GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
_BAD_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)


def closing() -> Cases:
    """Chapter 7: the ways of a close."""
    yield "a message and a close", _at_once(frame(TEXT, "Hello"))
    yield "a close at once", Case((close(),))
    yield "two closes", Case((close() + close(),))
    yield "a ping behind the close", Case((close() + frame(PING, b"late"),))
    yield "a message behind the close", Case((close() + frame(TEXT, "late"),))
    yield "a close without a code", Case((close(None),), (NORMAL, NO_CODE))
    yield "a close of one octet", _failed(frame(CLOSE, b"\x03"))
    yield "a close with a reason", Case((close(1000, "Hello, 星野!"),))
    yield "a close with the longest reason", Case((close(1000, "x" * 123),))
    yield "a close with too long a reason", _failed(close(1000, "x" * 124))
    yield (
        "a close with a reason in Latin-1",
        Case((close(1000, b"\xe9\xe9"),), (NOT_UTF8, PROTOCOL)),
    )
    yield "a close octet by octet", Case((Pieces(close(1000, "slowly"), 1),))
    yield "a close without a mask", _failed(frame(CLOSE, b"\x03\xe8", mask=b""))
    yield "a large message and a close", _at_once(frame(BINARY, b"x" * 262_144))
    for code in _GOOD_CODES:
        yield f"code {code}", Case((close(code),), (NORMAL, code))
        yield f"code {code} with a reason", Case((close(code, "why"),), (NORMAL, code))
    for code in _BAD_CODES:
        yield f"code {code}", _failed(close(code))
    for code in (1000, 1001, 1008, 1011, 3000, 4001):
        asked = frame(TEXT, f"close {code} because 星")
        yield f"the server closes with {code}", Case((asked, Until(1), close(code)), (code,))
    yield "an end without a close", Case((HalfClose(),), (GONE, NORMAL))
    yield (
        "an end behind a message",
        Case((frame(TEXT, "Hello"), Until(1), HalfClose()), (GONE, NORMAL)),
    )
    yield (
        "an end inside of a frame",
        Case((frame(TEXT, "Hello")[:7], HalfClose()), (GONE, NORMAL, PROTOCOL)),
    )
    yield "an end behind the close", Case((close(), HalfClose()))
    yield "an end behind the answered close", Case((close(), Until(1), HalfClose()))


def limits() -> Cases:
    """Chapter 9: what is large, in every cut, and what is too large."""
    megabyte = 2**20
    yield "text of 4 MB", _echoed(frame(TEXT, b"*" * (4 * megabyte)))
    whole = bytes(range(256)) * (megabyte * 4 // 256)
    yield "binary of 4 MB", _echoed(frame(BINARY, whole))
    yield "binary of 4 MB in fragments of 1 MB", _echoed(*fragments(BINARY, whole, megabyte))
    yield "binary of 4 MB in fragments of 64 kB", _echoed(*fragments(BINARY, whole, 65_536))
    yield "binary of 1 MB in fragments of 4 kB", _echoed(*fragments(BINARY, whole[:megabyte], 4096))
    yield "text of 64 kB in fragments of 64", _echoed(*fragments(TEXT, b"*" * 65_536, 64))
    for size in (64, 512):
        yield (
            f"binary of 128 kB in pieces of {size}",
            _echoed(Pieces(frame(BINARY, whole[:131_072]), size)),
        )
    yield (
        "binary of 4 MB in pieces of 16 kB",
        _echoed(Pieces(frame(BINARY, whole), 16_384)),
    )
    for size in (0, 64, 4096):
        sent: list[Step] = []
        for number in range(1, 101):
            sent += (frame(BINARY, whole[:size]), Until(number))
        yield f"100 messages of {size} there and back", _echoed(*sent, frames=100)
    burst = b"".join(frame(TEXT, f"{number}") for number in range(2000))
    yield "2000 messages in one write", _echoed(burst, frames=2000)
    yield "as much as there may be", _echoed(frame(BINARY, (whole + whole)[:-1]))
    length = (LIMIT + 1).to_bytes(8, "big")
    yield "a frame that is too big", _failed(b"\x82\xff" + length + MASK, code=TOO_BIG)
    yield (
        "fragments that are too big",
        Case(
            (b"".join(fragments(BINARY, whole * 2 + b"xy", len(whole))),),
            (TOO_BIG,),
            end_by_chance=True,
        ),
    )


def cuts() -> Cases:
    """Chapter 10: one message in frames of a packet's size, and one stream in every cut."""
    yield "65536 octets in frames of 1300", _echoed(*fragments(TEXT, b"*" * 65_536, 1300))
    stream = (
        frame(TEXT, "one", fin=False)
        + frame(PING, b"p")
        + frame(CONTINUATION, "x" * 126)
        + frame(BINARY, b"three")
    )
    for size in (1, 2, 3, 5, 7, 11, 13, 64):
        yield f"a stream in pieces of {size}", _echoed(Pieces(stream, size), frames=3)
    for place in range(1, 15):
        yield f"a cut behind octet {place}", _echoed(stream[:place], stream[place:], frames=3)


def _deflated(payload: bytes, *, bits: int = 9, level: int = 6) -> bytes:
    """Return a payload compressed by itself (RFC 7692 section 7.2.1)."""
    press = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (press.compress(payload) + press.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


_OFFERS = (
    *(DEFLATE, f"{DEFLATE}; client_no_context_takeover", f"{DEFLATE}; server_no_context_takeover"),
    f"{DEFLATE}; client_no_context_takeover; server_no_context_takeover",
    *(f"{DEFLATE}; client_max_window_bits", f"{DEFLATE}; client_max_window_bits=9"),
    *(f"{DEFLATE}; server_max_window_bits=9", f"{DEFLATE}; server_max_window_bits=15"),
    f'{DEFLATE}; server_max_window_bits="10"; client_max_window_bits="10"',
    f"{DEFLATE}; server_max_window_bits=9; server_no_context_takeover, {DEFLATE}",
    f"x-unknown; a=b, {DEFLATE}; client_max_window_bits",
)
_ODD_OFFERS = (
    *(f"{DEFLATE}; client_max_window_bits=16", f"{DEFLATE}; server_max_window_bits=7"),
    *(f"{DEFLATE}; server_max_window_bits", f"{DEFLATE}; unknown=1"),
    f"{DEFLATE}; server_no_context_takeover=1",
    f"{DEFLATE}; client_no_context_takeover; client_no_context_takeover",
    *("x-webkit-deflate-frame", "permessage-bzip2", "mux; max-channels=4"),
    f"{DEFLATE}; server_max_window_bits=17, {DEFLATE}",
)


def compression() -> Cases:
    """Chapter 12: messages of every size, compressed."""
    text = b"".join(b"line %d of a text that repeats itself\n" % line for line in range(4000))
    for size in (0, 16, 64, 256, 1024, 4096, 16_384, 65_536, 131_072):
        small = _deflated(text[:size])
        yield f"text of {size}", _echoed(frame(TEXT, small, rsv=_RSV1), offer=DEFLATE)
        yield (
            f"ten texts of {size}",
            _echoed(*(frame(TEXT, small, rsv=_RSV1) for _ in range(10)), frames=10, offer=DEFLATE),
        )
    small = _deflated(text)
    yield "in fragments", _echoed(*fragments(TEXT, small, 50, rsv=_RSV1), offer=DEFLATE)
    yield "in pieces", _echoed(Pieces(frame(TEXT, small, rsv=_RSV1), 7), offer=DEFLATE)
    yield (
        "stored, not compressed",
        _echoed(frame(TEXT, _deflated(text, level=0), rsv=_RSV1), offer=DEFLATE),
    )
    yield (
        "a plain message among them",
        _echoed(
            frame(TEXT, small, rsv=_RSV1) + frame(TEXT, "plain") + frame(TEXT, small, rsv=_RSV1),
            frames=3,
            offer=DEFLATE,
        ),
    )
    yield (
        "a ping between compressed fragments",
        _echoed(
            frame(TEXT, small[:40], rsv=_RSV1, fin=False)
            + frame(PING, b"p")
            + frame(CONTINUATION, small[40:]),
            frames=2,
            offer=DEFLATE,
        ),
    )
    yield (
        "with the context of the message before",
        _echoed(
            *_with_takeover([text[:2000], text[:2000], text[1000:3000]]), frames=3, offer=DEFLATE
        ),
    )


def _with_takeover(messages: list[bytes]) -> list[bytes]:
    """Return messages compressed one upon another."""
    press = zlib.compressobj(6, zlib.DEFLATED, -15)
    found = []
    for message in messages:
        data = press.compress(message) + press.flush(zlib.Z_SYNC_FLUSH)
        found.append(frame(TEXT, data.removesuffix(b"\0\0\xff\xff"), rsv=_RSV1))
    return found


def negotiation() -> Cases:
    """Chapter 13: what of compression is agreed upon, and what breaks it."""
    small = frame(TEXT, _deflated(b"Hello, " * 200), rsv=_RSV1)
    for offer in _OFFERS:
        yield offer, _echoed(small, small, frames=2, offer=offer)
    for offer in _ODD_OFFERS:
        yield offer, _echoed(frame(TEXT, "plain"), offer=offer)
    yield "compressed, not agreed upon", _failed(small)
    yield (
        "no deflate at all",
        Case((frame(TEXT, b"\xff" * 20, rsv=_RSV1),), (PROTOCOL, NOT_UTF8), DEFLATE),
    )
    yield (
        "another reserved bit beside it",
        _failed(frame(TEXT, _deflated(b"x"), rsv=_RSV1 | 2), offer=DEFLATE),
    )
    yield "a compressed ping", _failed(frame(PING, _deflated(b"x"), rsv=_RSV1), offer=DEFLATE)
    yield (
        "the bit on a continuation",
        _failed(
            frame(TEXT, _deflated(b"x"), rsv=_RSV1, fin=False)
            + frame(CONTINUATION, b"", rsv=_RSV1),
            offer=DEFLATE,
        ),
    )
    yield (
        "text that is no UTF-8 inside",
        _failed(frame(TEXT, _deflated(b"\xff\xfe"), rsv=_RSV1), code=NOT_UTF8, offer=DEFLATE),
    )
    yield (
        "a bomb",
        _failed(
            frame(BINARY, _deflated(bytes(LIMIT + 2**20), bits=15), rsv=_RSV1),
            code=TOO_BIG,
            offer=DEFLATE,
        ),
    )


def subprotocols() -> Cases:
    """Chapter 14, of this table's own: what is agreed upon beside extensions."""
    for offer in ("chat", "other, chat", "unknown", "unknown, other"):
        yield offer, Case((close(),), protocols=offer)


CHAPTERS = {
    "1 framing": dict(framing()),
    "2 pings and pongs": dict(pings()),
    "3 reserved bits": dict(reserved_bits()),
    "4 opcodes": dict(opcodes()),
    "5 fragmentation": dict(fragmentation()),
    "6 UTF-8": dict(utf8()),
    "7 close handling": dict(closing()),
    "9 limits": dict(limits()),
    "10 cuts": dict(cuts()),
    "12 compression": dict(compression()),
    "13 negotiation": dict(negotiation()),
    "subprotocols": dict(subprotocols()),
}
