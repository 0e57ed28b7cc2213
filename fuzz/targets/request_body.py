"""Bodies of requests: cut in any way they have the content that a plain reader finds."""

from fuzz.cutting import cut, steered
from fuzz.reference.body import chunked
from fuzz.reference.syntax import BadError
from fuzz.target import Target
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.body import Body, ChunkedBody, LengthBody
from tailchat_gate.request.fields import RawFields

_LIMITS = (0, 0, 16, 300)


def check(data: bytes) -> None:
    """Read a chunked body, or one of a length; one byte chooses, three say how it is cut."""
    steer, data = steered(data, 4)
    if steer[0] & 1:
        _check_length(data, steer[1:], steer[0] >> 1)
    else:
        _check_chunks(data, steer[1:], _LIMITS[steer[0] >> 1 & 3])


def _feed(body: Body, data: bytes, sizes: bytes) -> tuple[bytes, bytes, RawFields]:
    """Return content, what lies behind the body, and trailers. Raises RefusedError."""
    content, rest = b"", b""
    for piece in cut(data, sizes):
        if body.complete:
            rest += piece
            continue
        taken, behind = body.feed(piece)
        content += taken
        rest += behind
        assert not behind or body.complete, "bytes behind a body that is not over"
    return content, rest, body.trailers


def _check_length(data: bytes, sizes: bytes, length: int) -> None:
    body = LengthBody(length)
    content, rest, trailers = _feed(body, data, sizes)
    assert (content, rest, trailers) == (data[:length], data[length:], ())
    assert body.complete == (len(data) >= length)
    assert body.remaining == max(0, length - len(data))


def _check_chunks(data: bytes, sizes: bytes, limit: int) -> None:
    body = ChunkedBody(limit)
    try:
        wanted = chunked(data, limit)
    except BadError:
        try:
            _feed(body, data, sizes)
        except RefusedError:
            return
        raise AssertionError("what should be refused is not") from None
    content, rest, trailers = _feed(body, data, sizes)
    assert (content, rest, list(trailers)) == (wanted.content, wanted.rest, wanted.trailers)
    assert body.complete == wanted.complete
    assert not limit or len(content) <= limit


TARGET = Target(
    check,
    parsers=("request.body", "request.fields"),
    seeds=(
        b"\1\2\3\0hello world",
        b"\x0b\1\0\0hello world",
        b"\0\1\0\0005\r\nhello\r\n0\r\n\r\nGET /",
        b"\0\0\0\0005;a=b\r\nhello\r\n0a \t;x\r\n0123456789\r\n0\r\nX: 1\r\nY: 2\r\n\r\n",
        b"\4\3\0\00010\r\n0123456789abcdef\r\n1\r\nx\r\n0\r\n\r\n",
        b"\0\3\1\0000\r\nHost: h\r\n\r\n",
        b"\0\3\1\000ffffffffffffffff\r\n",
        b"\0\1\0\0005 \r\nhello\r\n0\r\n\r\n",
        b"\0\0\0\0005\r\nhello!\r\n0\r\n\r\n",
    ),
    words=(
        *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b";", b" ", b"\t", b"0\r\n", b"0\r\n\r\n", b"1\r\na"),
        *(
            b"a\r\n",
            b"00",
            b"+",
            b"0x",
            b"X: y\r\n",
            b"Host: h\r\n",
            b"content-length: 5\r\n",
            b"\0",
        ),
    ),
)
