"""The request that a proxy in front asks about: one that every dialect there names alike."""

from fuzz.reference import request as reference
from fuzz.reference.syntax import BadError, Pairs, is_token, values
from fuzz.target import Target
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.fields import HeadLimits
from tailchat_gate.request.forwarded_request import original_of
from tailchat_gate.request.head import RequestReader

_LIMITS = HeadLimits(8192, 32_768, 100, 8192)
_QUESTION = "/oauth2/auth"

Named = tuple[bytes, tuple[bytes, bytes], bytes]


def check(data: bytes) -> None:
    """Read the head of a question, and what it asks about, twice."""
    try:
        read = RequestReader(_LIMITS).read(data)
    except RefusedError:
        return
    if read is None:
        return
    head = read[0]
    sent = reference.head(data, reference.Bounds(*_LIMITS))
    assert sent is not None
    try:
        wanted = _named(sent)
    except BadError:
        for _ in range(2):
            try:
                original_of(head, _QUESTION)
            except RefusedError:
                continue
            raise AssertionError("what should be refused is not") from None
        return
    found = original_of(head, _QUESTION)
    assert original_of(head, _QUESTION) == found
    if found is None:
        assert wanted is None
        return
    host = found.host.name.encode("ascii"), found.host.port.encode("ascii")
    assert (found.method.encode("ascii"), host, found.target.raw) == wanted
    assert found.websocket == bool(values(sent.fields, b"sec-websocket-key"))


def _named(sent: reference.Request) -> Named | None:
    """Return method, host and target of the request that is asked about. Raises BadError."""
    start = _QUESTION.encode() + b"/"
    if sent.path.startswith(start):
        return sent.method, sent.host, reference.origin_form(sent.path[len(start) - 1 :], sent.host)
    pairs = sent.fields
    by_uri, by_url = _by_uri(pairs, sent.host), _by_url(pairs, sent.host)
    if by_uri is not None and by_url is not None and by_uri != by_url:
        raise BadError("two requests")
    return by_uri or by_url


def _by_uri(pairs: Pairs, host: tuple[bytes, bytes]) -> Named | None:
    uri = _one(pairs, b"x-forwarded-uri")
    if not uri:
        return None
    named = _one(pairs, b"x-forwarded-host")
    host = reference.read_host(named) if named else host
    return _method(pairs, b"x-forwarded-method"), host, reference.origin_form(uri, host)


def _by_url(pairs: Pairs, host: tuple[bytes, bytes]) -> Named | None:
    url, uri = _one(pairs, b"x-original-url"), _one(pairs, b"x-original-uri")
    if url and uri:
        raise BadError("an address twice")
    if not url and not uri:
        return None
    scheme, separator, rest = url.partition(b"://")
    if separator and scheme.lower() in {b"http", b"https"}:
        end = next((i for i, octet in enumerate(rest) if octet in b"/?#"), len(rest))
        host = reference.read_host(rest[:end])
    return _method(pairs, b"x-original-method"), host, reference.origin_form(url or uri, host)


def _one(pairs: Pairs, name: bytes) -> bytes:
    found = values(pairs, name)
    if len(found) > 1:
        raise BadError("a field twice")
    return found[0] if found else b""


def _method(pairs: Pairs, name: bytes) -> bytes:
    method = _one(pairs, name)
    if method and (not is_token(method) or len(method) > 32):
        raise BadError("a method")
    return method


_HEAD = b"GET /oauth2/auth HTTP/1.1\r\nHost: gate.test\r\n"
TARGET = Target(
    check,
    parsers=("request.forwarded_request", "request.head", "request.target"),
    seeds=(
        _HEAD + b"X-Forwarded-Method: POST\r\nX-Forwarded-Host: wiki.test\r\n"
        b"X-Forwarded-Uri: /a?b=%2F\r\n\r\n",
        _HEAD + b"X-Original-URL: https://wiki.test/a?b\r\nX-Original-Method: PUT\r\n\r\n",
        _HEAD + b"X-Original-URI: /a\r\nX-Forwarded-Uri: /b\r\n\r\n",
        b"PUT /oauth2/auth/a/..;x?y HTTP/1.1\r\nHost: wiki.test:80\r\nSec-WebSocket-Key: x\r\n\r\n",
        _HEAD + b"X-Forwarded-Uri: http://gate.test/a\r\n\r\n",
        _HEAD + b"X-Forwarded-Uri: /a\r\nX-Forwarded-Uri: /a\r\n\r\n",
        b"GET /oauth2/auth HTTP/1.0\r\nX-Original-URL: /a\xff\r\n\r\n",
    ),
    words=(
        *(b"X-Forwarded-Uri: /a\r\n", b"X-Forwarded-Host: h\r\n", b"X-Forwarded-Method: PUT\r\n"),
        *(b"X-Original-URL: ", b"https://wiki.test", b"X-Original-URI: /a\r\n", b"\r\n", b"\xe9"),
        *(
            b"X-Original-Method: PUT\r\n",
            b"/oauth2/auth/",
            b"http://",
            b"#",
            b"?",
            b"%00",
            b"\\",
            b" ",
        ),
        *(b":80", b"Sec-WebSocket-Key: x\r\n", b"HTTP/1.0", b"\xc5\xbf", b"@"),
    ),
)
