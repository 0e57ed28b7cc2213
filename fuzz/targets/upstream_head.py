"""Request heads for the upstream: strictly written, the client's fields and the gate's in them."""

from fuzz.cutting import steered
from fuzz.reference import request as reference
from fuzz.reference import rewriting
from fuzz.reference.syntax import BadError, field_lines, values
from fuzz.target import Target
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.identity.sessions.cookie_fields import CookieNames, CookieReader
from tailchat_gate.proxy.message.request_headers import RequestHeaders
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.fields import HeadLimits, split_fields
from tailchat_gate.request.head import RequestHead, RequestReader

_LIMITS = HeadLimits(8192, 32_768, 100, 8192)
_NO_BOUNDS = reference.Bounds(1 << 20, 1 << 20, 1 << 10, 1 << 20)
_UPSTREAM = reference.Bounds(1 << 20, 1 << 20, 1 << 10, 1 << 20, empty_host=True)
_NAMES = CookieNames.for_origin("https://gate.test")
_OWN_COOKIES = frozenset((_NAMES.session.encode(), _NAMES.login.encode()))
_IDENTITY = b"X-Tailchat-Sub: s\r\nX-Tailchat-Nickname: Alice\r\nX-WebAuth-User: s\r\n"
_CLIENT = ClientAddress("2001:db8::1", "https", "2001:db8::1, 10.0.0.1")
_ROUTES = tuple(
    RouteSettings(
        name=f"t{number}",
        upstream="http://127.0.0.1:9",
        upstream_host=host,
        headers={"X-WebAuth-User": "{sub}", "X-Own": "{sub}"},
        pass_fields=("X-Real-IP", "x_odd"),
    )
    for number, host in enumerate((None, "own.lan:3000"))
)
_FORWARDED = b'for="[2001:db8::1]";host="%b";proto=https, for=10.0.0.1'  # RFC 7239 section 4


def check(data: bytes) -> None:
    """Rewrite a head; one byte chooses what the gate adds. Trailers are what is behind it."""
    steer, data = steered(data, 1)
    try:
        read = RequestReader(_LIMITS).read(data)
    except RefusedError:
        return
    if read is None:
        return
    head, size = read
    sent = reference.head(data, _NO_BOUNDS)
    assert sent is not None
    headers = RequestHeaders(
        CookieReader(_NAMES),
        _ROUTES,
        via="gate" if steer[0] & 1 else "",
        forwarded=bool(steer[0] & 2),
    )
    _check_head(headers, head, sent, steer[0])
    _check_trailers(headers, data[size:])


def _check_head(
    headers: RequestHeaders, head: RequestHead, sent: reference.Request, flags: int
) -> None:
    settings = _ROUTES[flags >> 2 & 1]
    target = b"/tool" + head.target.raw if flags & 8 else head.target.raw
    upgrade = bool(flags & 16 and head.fields.upgrade.isalpha())
    identity = _IDENTITY if flags & 32 else b""

    def write() -> bytes:
        return headers.head(
            head,
            target,
            address=_CLIENT,
            settings=settings,
            request_id="id",
            identity=identity,
            upgrade=upgrade,
        )

    made = write()
    assert write() == made, "written again it is another"
    try:
        got = reference.head(made, _UPSTREAM)
    except BadError as error:
        raise AssertionError(f"the upstream is sent no request: {error}") from None
    assert got is not None
    assert got.size == len(made)
    assert (got.method, got.target) == (sent.method, target)
    assert (got.length, got.is_chunked) == (sent.length, sent.is_chunked)
    wanted = rewriting.to_upstream(sent, _setting(sent, flags), upgrade=upgrade)
    assert rewriting.without_framing(got.fields) == wanted, (got.fields, wanted)


def _setting(sent: reference.Request, flags: int) -> rewriting.Setting:
    host = values(sent.fields, b"host")[0] if sent.host[0] else b""
    return rewriting.Setting(
        _OWN_COOKIES,
        frozenset((b"x-webauth-user", b"x-own")),
        passed_names=frozenset((b"x-real-ip", b"x_odd")),
        hops=b"2001:db8::1, 10.0.0.1",
        scheme=b"https",
        identity=field_lines(_IDENTITY) if flags & 32 else (),
        host=b"own.lan:3000" if flags & 4 else b"",
        forwarded=_FORWARDED % host if flags & 2 else b"",
        via=b"gate" if flags & 1 else b"",
        request_id=b"id",
    )


def _check_trailers(headers: RequestHeaders, raw: bytes) -> None:
    try:
        trailers = split_fields(raw)
    except RefusedError:
        return
    kept = [
        (n, v)
        for n, v in rewriting.passed_trailers(trailers)
        if rewriting.folded(n) not in {b"x-webauth-user", b"x-own"}
    ]
    assert field_lines(headers.trailers(_ROUTES[0], trailers)) == kept


_HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n"
TARGET = Target(
    check,
    parsers=(
        "proxy.message.request_headers",
        "proxy.message.field_rules",
        "request.head",
        "request.fields",
    ),
    seeds=(
        b"\x23GET /a?b HTTP/1.1\r\nHost: H:80\r\nX_Tailchat_Sub: me\r\nAccept: */*\r\n\r\n",
        b"\1"
        + _HEAD
        + b"X_Odd: 1\r\nx.odd: 2\r\nX-Real-IP: 3\r\nSCRIPT_NAME: 4\r\n\r\nRemote-User: 5\r\n",
        b"\x0d" + _HEAD + b"Connection: close, X-Hop\r\nx-hop: 1\r\nX-WEBAUTH.user: x\r\n\r\n",
        b"\1" + _HEAD + b"Cookie: a=b; __Host-tailchat_gate=x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"X-Sum: 1\r\nX-Forwarded-For: x\r\nAuthorization: y\r\n",
        b"\0" + _HEAD + b"TE: trailers, deflate\r\nConnection: TE\r\nContent-Length: 005\r\n\r\n",
        b"\x11" + _HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\1OPTIONS http://h/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 007\r\n\r\n",
        b"\3GET / HTTP/1.0\r\nVia: 1.0 a\r\nForwarded: for=x\r\n\r\n",
        b"\7GET / HTTP/1.0\r\nProxy-Authorization: x\r\nHost: [::1]\r\n\r\n",
    ),
    words=(
        *(
            b"\r\n",
            b"\r\n\r\n",
            b": ",
            b"Connection: ",
            b"close, ",
            b"Host: h\r\n",
            b"X-Hop: 1\r\n",
        ),
        *(
            b"x-hop",
            b"X-Tailchat-Sub: a\r\n",
            b"X.Forwarded_For: a\r\n",
            b"Cookie: ",
            b"_session=a",
        ),
        *(b"__Host-tailchat_gate=a", b"; ", b"TE: trailers\r\n", b"te", b"Upgrade: websocket\r\n"),
        *(
            b"Max-Forwards: 1\r\n",
            b"OPTIONS",
            b"TRACE",
            b"Content-Length: 1\r\n",
            b"X-WebAuth-User",
        ),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Keep-Alive: a\r\n",
            b"Via: a\r\n",
            b"HTTP/1.0",
            b"\t",
        ),
        *(b"trailers", b"content-length", b"transfer-encoding", b"host", b"cookie", b"via"),
    ),
)
