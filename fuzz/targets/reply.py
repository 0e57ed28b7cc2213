"""Replies: what a client is sent is one strict reply, and says what the upstream said."""

from dataclasses import dataclass, field

from fuzz.cutting import cut, steered
from fuzz.reference import reply as reference
from fuzz.reference.syntax import BadError, Pairs, elements
from fuzz.target import Target
from tailchat_gate.proxy.message.field_rules import may_trail_response
from tailchat_gate.proxy.message.response_fields import FieldEditor
from tailchat_gate.proxy.message.response_lines import BadResponseError, ResponseLines
from tailchat_gate.proxy.message.response_reader import ResponseReader

_EXTRA = b"X-Gate: 1\r\n"
_OWN_COOKIE = b"tailchat_gate="
_UPGRADE = b"websocket"
_ADDED = frozenset((b"connection", b"content-length", b"transfer-encoding", b"x-gate"))
_SWITCHING = 101


@dataclass
class _Asked:
    """The request that is answered."""

    is_head: bool
    http10: bool
    keep_alive: bool
    upgrade: bytes
    takes_trailers: bool
    extra_fields: bytes
    editor: FieldEditor | None = None
    passed_fields: frozenset[bytes] = frozenset()
    origin: bytes = b""

    def keeps_out(self, set_cookie: bytes) -> bool:
        """Tell whether a cookie is of somebody else."""
        return set_cookie.startswith(_OWN_COOKIE)

    def may_widen(self, scope: bytes) -> bool:
        return not scope.startswith(b"/oauth2")

    def note_stream(self) -> None:
        """Nothing here counts streams."""

    @classmethod
    def of(cls, flags: int) -> "_Asked":
        http10 = bool(flags & 2)
        return cls(
            is_head=bool(flags & 1),
            http10=http10,
            keep_alive=bool(flags & 4),
            upgrade=_UPGRADE if flags & 8 and not http10 else b"",
            takes_trailers=bool(flags & 16) and not http10,
            extra_fields=_EXTRA if flags & 32 else b"",
        )


@dataclass
class _Relayed:
    """What came of a reply: the bytes for the client, and what the reader says of it."""

    sent: bytes = b""
    refused: bool = False
    state: tuple[object, ...] = ()
    reader: ResponseReader = field(default_factory=lambda: ResponseReader(ResponseLines()))


def check(data: bytes) -> None:
    """Relay a reply whole and in pieces; one byte says what was asked, three how it is cut."""
    steer, data = steered(data, 4)
    asked, closes = _Asked.of(steer[0]), bool(steer[0] & 64)
    lines = ResponseLines()
    whole = _relay(lines, asked, data, b"", closes=closes)
    pieces = _relay(lines, asked, data, steer[1:], closes=closes)
    assert whole.refused == pieces.refused, "how it is cut decides"
    found = _as_client(asked, whole)
    again = _as_client(asked, pieces)
    if whole.refused:
        assert not _looks_whole(again), "a broken reply looks whole"
    else:
        assert whole.state == pieces.state
        assert _summary(found) == _summary(again)
        _compare(asked, whole, found, data, closes=closes)
    _check_strict(asked, data, whole)


def _relay(
    lines: ResponseLines, asked: _Asked, data: bytes, sizes: bytes, *, closes: bool
) -> _Relayed:
    found = _Relayed(reader=ResponseReader(lines))
    reader = found.reader
    reader.begin(asked)
    try:
        for piece in cut(data, sizes):
            if reader.switched:
                reader.leftover += piece
            elif piece:
                found.sent += b"".join(reader.feed(piece))
        if closes and reader.started and not reader.switched:
            found.sent += b"".join(reader.end())
    except BadResponseError:
        found.refused = True
        return found
    found.state = (
        *(reader.complete, reader.dirty, reader.status, reader.stays, reader.keep_client),
        *(reader.switched, reader.leftover, reader.body_bytes, reader.until_close),
    )
    return found


def _as_client(asked: _Asked, relayed: _Relayed) -> reference.Response:
    """Read what the client was sent, strictly."""
    try:
        found = reference.read(relayed.sent, is_head=asked.is_head)
    except BadError as error:
        raise AssertionError(f"the client is sent no reply: {error}") from None
    if found.complete or found.head is None:
        assert not found.rest, "the client is sent more than a reply"
    return found


def _looks_whole(found: reference.Response) -> bool:
    return found.complete


def _summary(found: reference.Response) -> tuple[object, ...]:
    return found.interim, found.head, found.content, found.trailers, found.complete


def _compare(
    asked: _Asked, relayed: _Relayed, found: reference.Response, data: bytes, *, closes: bool
) -> None:
    """Compare what the client read with what the upstream meant."""
    reader = relayed.reader
    try:
        meant = reference.read(data, is_head=asked.is_head, obsolete=True)
    except BadError as error:
        # Only behind a whole reply may there be anything: it is thrown away.
        raise AssertionError(f"what should be refused is not: {error}") from None
    interim = [] if asked.http10 else meant.interim
    assert [h.status for h in found.interim] == [h.status for h in interim]
    for told, said in zip(found.interim, interim, strict=True):
        assert _without_cookies(reference.passed_on(said)) == told.fields
    if meant.head is None:
        assert found.head is None
        assert not reader.head_done
        return
    assert found.head is not None
    _compare_head(asked, reader, meant.head, found.head)
    assert found.content == meant.content
    assert reader.body_bytes == len(meant.content) or reader.switched
    ended = meant.complete or (meant.until_close and closes)
    assert (reader.complete or reader.switched) == ended
    if meant.head.status == _SWITCHING:
        assert reader.leftover == meant.rest
    else:
        assert reader.dirty == (meant.complete and bool(meant.rest))
        # What had to be mended is the last on its connection.
        assert not reader.stays or reference.stays(meant.head)
        if _is_strict(data, asked):
            assert reader.stays == reference.stays(meant.head)
    if not found.until_close:
        assert found.complete == ended
    wanted = (
        [(n, v) for n, v in meant.trailers if may_trail_response(n) and not reference.is_order(n)]
        if asked.takes_trailers
        else []
    )
    assert found.trailers == wanted


def _is_strict(data: bytes, asked: _Asked) -> bool:
    try:
        return reference.read(data, is_head=asked.is_head).head is not None
    except BadError:
        return False


def _without_cookies(pairs: Pairs) -> Pairs:
    return [(n, v) for n, v in pairs if n.lower() != b"set-cookie" or not v.startswith(_OWN_COOKIE)]


def _compare_head(
    asked: _Asked, reader: ResponseReader, meant: reference.Head, found: reference.Head
) -> None:
    assert (found.version, found.status, found.reason) == (
        b"HTTP/1.1",
        meant.status,
        meant.reason,
    )
    added = _ADDED | {b"upgrade"} if meant.status == _SWITCHING else _ADDED
    kept = [pair for pair in found.fields if pair[0].lower() not in added]
    wanted = [pair for pair in reference.passed_on(meant) if pair[0].lower() not in added]
    assert kept == _without_cookies(wanted)
    extra = [pair for pair in found.fields if pair == (b"X-Gate", b"1")]
    assert len(extra) >= bool(asked.extra_fields)
    options = elements(found.fields, b"connection")
    if meant.status == _SWITCHING:
        assert options == [b"upgrade"]
        assert elements(found.fields, b"upgrade") == [asked.upgrade]
        return
    assert options == ([] if reader.keep_client and not asked.http10 else options[:1])
    assert (b"close" in options) == (not reader.keep_client)
    assert asked.keep_alive or not reader.keep_client
    lengths, codings = reference.framings(found)
    assert not (lengths and codings)
    assert not (asked.http10 and codings), "HTTP/1.0 has no chunks"


def _check_strict(asked: _Asked, data: bytes, whole: _Relayed) -> None:
    """A reply that is beyond reproach is relayed."""
    if not whole.refused:
        return
    try:
        meant = reference.read(data, is_head=asked.is_head)
    except BadError:
        return
    switches = meant.head is not None and meant.head.status == _SWITCHING
    assert not meant.complete or switches, "a good reply is refused"


TARGET = Target(
    check,
    parsers=(
        "proxy.message.response_reader",
        "proxy.message.response_fields",
        "proxy.message.response_lines",
        "request.body",
    ),
    seeds=(
        b"\4\0\0\0HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"\x14\3\1\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX: 1\r\nHost: h\r\n\r\n",
        b"\x64\7\0\0HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nuntil the end",
        b"\x24\1\0\0HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n"
        b"Content-Length: 5\r\nSet-Cookie: tailchat_gate=x\r\nSet-Cookie: a=b\r\n\r\n",
        b"\x0c\0\0\0HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n\x81",
        b"\5\0\0\0HTTP/1.1 200\r\nContent-Length: 05\r\nConnection: close, X-A\r\nX-A: 1\r\n\r\n",
        b"\2\0\0\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP",
        b"\4\0\0\0HTTP/1.1 304 Not\r\nX : a\r\n b\r\nLocation: /\r\n\r\n",
        b"\4\0\0\0HTTP/1.1 204 No\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\n\r\n",
        b"\x44\5\0\0HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
    ),
    words=(
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"\r\n ",
            b"\n",
            b"\r",
            b"\0",
            b" :",
            b": ",
            b"HTTP/1.1 200 OK\r\n",
        ),
        *(b"HTTP/1.1 101 S\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.0 ", b"204", b"304", b"103"),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
        *(
            b"Connection: ",
            b"keep-alive",
            b"Upgrade: websocket\r\n",
            b"Set-Cookie: tailchat_gate=\r\n",
        ),
        *(
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"0\r\n",
            b"Location: /\r\n",
            b"Alt-Svc: clear\r\n",
            b"X_Accel.Redirect: /\r\n",
            b"Clear-Site-Data",
            b"Keep-Alive: x\r\n",
            b"close, x",
            b"HTTP/1.1  200 OK\n",
            b"\n\n",
            b"5 \r\n",
            b"5, 5",
        ),
    ),
)
