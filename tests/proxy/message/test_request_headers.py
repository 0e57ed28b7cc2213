import pytest
from gatekit import make_settings
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.config.model import RouteSettings
from tailchat_gate.identity.sessions.cookie_fields import CookieNames, CookieReader
from tailchat_gate.proxy.message.field_rules import _MAX_KNOWN_NAMES
from tailchat_gate.proxy.message.request_headers import RequestHeaders, without
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.field_names import fold
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.target import NO_TARGET, read_target

COOKIES = CookieReader(CookieNames.for_origin("http://gate.test"))
Fields = list[tuple[bytes, bytes]]


def routes(*names: str) -> tuple[RouteSettings, ...]:
    """Return two routes to one tool, of which the second sets these headers."""
    return make_settings(
        route=[
            {"name": "tool"},
            {"name": "b", "path": "/b", "headers": dict.fromkeys(names, "{sub}")},
        ]
    ).route


def make(*managed: str, via: str = "", forwarded: bool = False) -> RequestHeaders:
    """Return a rewriter for a tool that gets these headers on another route."""
    return RequestHeaders(COOKIES, routes(*managed), via=via, forwarded=forwarded)


TOOL = routes()[0]


def rewrite(fields: Fields) -> Fields:
    """Return the fields that go on, taken apart again from the bytes."""
    data = b"".join(make("X-Own-User", "X.Own~Role").rewrite(FieldSection(fields), TOOL))
    lines = data.split(b"\r\n")
    assert lines.pop() == b""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        (b"X-Tailchat-Sub", b"x-tailchat-sub"),
        (b"X_TAILCHAT.sub", b"x-tailchat-sub"),
        (b"x~tailchat+sub", b"x-tailchat-sub"),
        (b"\xc5\xbf", b"--"),
        (b"\xe2\x84\xaa", b"---"),
        (b"", b""),
    ],
)
def test_fold(name: bytes, folded: bytes) -> None:
    """A name is folded as the loosest server may do it, and only ASCII letters have a case."""
    assert fold(name) == folded


@pytest.mark.parametrize(
    "name",
    [
        b"X-Tailchat-Sub",
        b"x-tailchat-sub",
        b"X-TAILCHAT-SUB",
        b"X_Tailchat_Sub",
        b"x_tailchat-sub",
        b"X-Tailchat_Sub",
        b"X.Tailchat.Sub",
        b"X~Tailchat+Sub",
        b"X-Tailchat.Nickname",
        b"X_TAILCHAT_DISCRIMINATOR",
        b"X-Tailchat-Avatar",
        b"X-Tailchat-Groups",
        b"X-Tailchat-",
        b"X-Tailchat-Anything-Later",
        b"X-Tailchat-\xc5\xbfub",
        b"X-Forwarded-For",
        b"X_FORWARDED_FOR",
        b"X-Forwarded-Proto",
        b"X-Forwarded-Host",
        b"X-Forwarded-Port",
        b"X-Forwarded-Uri",
        b"X-Forwarded-Prefix",
        b"X-Forwarded-User",
        b"X-Forwarded_Email",
        b"Forwarded",
        b"FORWARDED",
        b"X-Real-IP",
        b"X_Real_Ip",
        b"X-Request-Id",
        b"X_REQUEST_ID",
        b"X-Original-URL",
        b"X-Rewrite-URL",
        b"X-Original-Uri",
        b"X-Original-Host",
        b"Proxy",
        b"X-WEBAUTH-USER",
        b"x-webauth-user",
        b"X_WebAuth_User",
        b"X.WebAuth~User",
        b"X-Own-User",
        b"X_Own~User",
        b"x-own-role",
        b"X_Custom",
        b"X.Custom",
        b"custom_",
        b"Remote-User",
        b"Remote_User",
        b"remote.user",
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"Proxy-Authorization",
        b"Proxy-Authenticate",
        b"TE",
        b"te",
        b"transfer_encoding",
        b"Transfer.Encoding",
        b"Upgrade",
        b"Content_Length",
        b"content.length",
    ],
)
def test_field_is_dropped(name: bytes) -> None:
    """No spelling of a managed, framing or hop-by-hop name gets through, first or repeated."""
    fields = [(name, b"one"), (b"Accept", b"*/*"), (name, b"two")]

    assert rewrite(fields) == [(b"Accept", b"*/*")]
    assert rewrite([(b"Content-Length", b"1"), *fields]) == [
        (b"Accept", b"*/*"),
        (b"Content-Length", b"1"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        b"Accept",
        b"Authorization",
        b"X-Tailchat",
        b"X-Tailchats-Sub",
        b"XTailchat-Sub",
        b"My-X-Tailchat-Sub",
        b"X--Tailchat-Sub",
        b"Hostname",
        b"X-Own-Users",
        b"X-User-Id",
        b"X-Auth-Token",
        b"X-HTTP-Method-Override",
        b"Expect",
        b"Trailer",
        b"Via",
    ],
)
def test_field_is_kept(name: bytes) -> None:
    """Other names pass with their bytes."""
    assert rewrite([(name, b"value")]) == [(name, b"value")]


def test_bytes_order_and_repeats_are_kept() -> None:
    """What passes keeps its case, its bytes, its place and its repeats."""
    fields = [
        (b"X-L", b"1"),
        (b"aCCept", b"  spaced \t"),
        (b"X-L", b"2, 3"),
        (b"X-Latin", b"\xe9\xff"),
        (b"X-Empty", b""),
        (b"x-l", b"4"),
    ]

    assert rewrite(fields) == fields


@pytest.mark.parametrize(
    ("connection", "dropped"),
    [
        ([b"close"], []),
        ([b"keep-alive"], []),
        ([b"X-A"], [b"X-A"]),
        ([b"x-a"], [b"X-A"]),
        ([b"X-A, X-B"], [b"X-A", b"X-B"]),
        ([b"keep-alive, X-A"], [b"X-A"]),
        ([b" ,,X-A ,\t,"], [b"X-A"]),
        ([b"close", b"X-A"], [b"X-A"]),
        ([b"X-A", b"X-B"], [b"X-A", b"X-B"]),
        ([b"X-A", b"close"], [b"X-A"]),
        ([b"X_A"], []),
        ([b'"X-A"'], []),
        ([b""], []),
        ([b","], []),
        ([b"Upgrade"], []),
        ([b"upgrade, X-B"], [b"X-B"]),
    ],
)
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_fields_that_connection_names(
    connection: list[bytes], dropped: list[bytes], before: bool, length: bool
) -> None:
    """A field that Connection names ends here, wherever it stands (RFC 9110 section 7.6.1)."""
    named = [(b"Connection", value) for value in connection]
    others = [(b"X-A", b"1"), (b"X-B", b"2"), (b"X-A", b"3"), (b"X-C", b"X-A")]
    framing = [(b"Content-Length", b"5")] if length else []
    fields = [*framing, *named, *others] if before else [*framing, *others, *named]

    assert rewrite(fields) == [
        *(field for field in others if field[0] not in dropped),
        *framing,
    ]


@pytest.mark.parametrize(
    "named", [b"Content-Length", b"content-length, x", b"CONTENT-LENGTH", b"Cookie", b"Host"]
)
def test_connection_takes_no_framing_away(named: bytes) -> None:
    """A client cannot have the length or its other cookies removed by naming them."""
    fields = [
        (b"Content-Length", b"5"),
        (b"Cookie", b"a=b"),
        (b"Connection", named),
    ]

    assert rewrite(fields) == [fields[1], fields[0]]


@pytest.mark.parametrize("named", [b"Transfer-Encoding", b"transfer-encoding, chunked"])
def test_connection_takes_no_chunking_away(named: bytes) -> None:
    """A body in chunks stays one although Connection names its framing."""
    fields = [(b"Connection", named), (b"transfer-encoding", b"chunked")]

    assert rewrite(fields) == [(b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize(
    ("sent", "plain"),
    [
        (b"0", b"0"),
        (b"5", b"5"),
        (b"05", b"5"),
        (b"0" * 30, b"0"),
        (b"0" * 30 + b"5", b"5"),
        (b"999999999999999", b"999999999999999"),
    ],
)
def test_content_length(sent: bytes, plain: bytes) -> None:
    """A length is sent on in its one plain spelling."""
    fields = [(b"content-LENGTH", sent)]

    assert rewrite(fields) == [(b"Content-Length", plain)]


@pytest.mark.parametrize("value", [b"chunked", b" Chunked ", b"CHUNKED"])
def test_chunked_body(value: bytes) -> None:
    """A body in chunks is announced in the one plain spelling, where the client did."""
    fields = [(b"X-A", b"1"), (b"transfer-encoding", value), (b"transfer_encoding", b"identity")]

    assert rewrite([*fields, (b"X-B", b"2")]) == [
        (b"X-A", b"1"),
        (b"X-B", b"2"),
        (b"Transfer-Encoding", b"chunked"),
    ]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ([(b"Cookie", b"a=b; c=d")], [(b"Cookie", b"a=b; c=d")]),
        ([(b"cookie", b"tailchat_gate=x; a=b")], [(b"cookie", b"a=b")]),
        ([(b"COOKIE", b"tailchat_gate=x")], []),
        ([(b"Cookie", b"tailchat_gate_login=x; _session=1; _interaction.sig=2")], []),
        (
            [(b"Cookie", b"a=b"), (b"Cookie", b"tailchat_gate=x"), (b"Cookie", b"c=\xff;d=e ")],
            [(b"Cookie", b"a=b"), (b"Cookie", b"c=\xff;d=e ")],
        ),
    ],
)
def test_cookies(fields: Fields, kept: Fields) -> None:
    """The gate's and Tailchat's cookies go from every Cookie field, the rest keeps its bytes."""
    assert rewrite(fields) == kept


def test_memory_of_names_is_bounded() -> None:
    """Made-up names fill the memory of names up to its bound, long ones not at all."""
    headers = make()
    many = FieldSection([(b"X-%d" % n, b"") for n in range(3 * _MAX_KNOWN_NAMES)])
    headers.rewrite(many, TOOL)
    assert len(headers._rules.known) == _MAX_KNOWN_NAMES

    fresh = make()
    long = [(b"X" * 5000, b"1"), (b"X-Tailchat-" + b"s" * 90, b"2")]
    pieces = fresh.rewrite(FieldSection(long), TOOL)
    assert fresh._rules.known == {}
    assert pieces == [b"X" * 5000, b": ", b"1", b"\r\n"]
    again = [(b"X_Tailchat_Sub", b"x"), (b"X-Other", b"y")] * 2
    assert headers.rewrite(FieldSection(again), TOOL) == [b"X-Other", b": ", b"y", b"\r\n"] * 2


def test_without() -> None:
    """Pieces of fields are taken out four at a time, by their names in lower case."""
    pieces = [b"X-A", b": ", b"x-b", b"\r\n", b"X-B", b": ", b"1", b"\r\n"]

    assert without(pieces, {b"x-b"}) == pieces[:4]
    assert without(pieces, {b": ", b"1", b"\r\n", b""}) == pieces


NAMES = st.sampled_from(
    [b"X-A", b"x-b", b"Connection", b"Cookie", b"X_Tailchat_Sub", b"X-Real-Ip", b"TE"]
)
VALUES = st.sampled_from(
    [b"x-a", b"x-b, X-A", b"close", b"a=b", b"tailchat_gate=x", b"cookie, content-length"]
)
others = st.lists(st.tuples(NAMES, VALUES), max_size=5)
framings = st.sampled_from(
    [None, (b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
)


@given(before=others, framing=framings, after=others)
def test_any_fields(before: Fields, framing: tuple[bytes, bytes] | None, after: Fields) -> None:
    """Of any mix of fields exactly those go on that nothing speaks against, in order."""
    fields = [*before, *([framing] if framing else []), *after]
    options = {
        option.strip().lower()
        for name, value in fields
        if name == b"Connection"
        for option in value.split(b",")
    }
    expected = [
        (name, value)
        for name, value in fields
        if (name in {b"X-A", b"x-b"} and name.lower() not in options)
        or (name == b"Cookie" and value != b"tailchat_gate=x")
    ]

    assert rewrite(fields) == [*expected, *([framing] if framing else [])]


@given(before=others, framing=framings, after=others, host=st.sampled_from([b"h", b"chat.test"]))
def test_the_head_has_what_rewriting_keeps(
    before: Fields, framing: tuple[bytes, bytes] | None, after: Fields, host: bytes
) -> None:
    """The lines that a head takes by the names of its section are those of each field alone."""
    fields = [(b"Host", host), *before, *([framing] if framing else []), *after]
    headers = make("X-A")
    pieces = headers.rewrite(FieldSection(fields), TOOL)
    sent = headers.head(
        RequestHead("GET", False, NO_TARGET, FieldSection(fields)),
        b"/",
        address=ClientAddress("203.0.113.9", "https", "203.0.113.9"),
        settings=TOOL,
        request_id="abc",
        upgrade=False,
        identity=b"",
    )

    assert sent.startswith(
        b"GET / HTTP/1.1\r\nHost: %b\r\n%bX-Forwarded-Host: " % (host, b"".join(pieces))
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([(b"X-A", b"1"), (b"Cookie", b"a=b")], [(b"X-A", b"2"), (b"Cookie", b"tailchat_gate=x")]),
        ([(b"Cookie", b"tailchat_gate=x")], [(b"Cookie", b"_session=x; c=d")]),
        ([(b"Content-Length", b"5")], [(b"Content-Length", b"06")]),
        ([(b"X-100%b", b"%s")], [(b"X-100%b", b"%d%b")]),
    ],
)
def test_what_is_known_of_names_is_of_no_value(first: Fields, second: Fields) -> None:
    """Two sections of the same names, of one shape, each get their own lines."""
    shape = FieldSection([(b"Host", b"h"), *first]).shape
    headers = make()
    route = make_settings(route=[{"name": "tool", "pass_fields": ["X-100%b"]}]).route[0]
    for fields in (first, second, first):
        section = FieldSection([(b"Host", b"h"), *fields], shape)
        pieces = headers.rewrite(section, route)
        lines = headers.head(
            RequestHead("GET", False, NO_TARGET, section),
            b"/",
            address=ClientAddress("203.0.113.9", "https", "203.0.113.9"),
            settings=route,
            request_id="abc",
            upgrade=False,
            identity=b"",
        )
        assert b"\r\n%bX-Forwarded-Host" % b"".join(pieces) in lines


# The whole head.


def head(
    *,
    target: str = "/a?b",
    host: str | None = "Gate.test:8080",
    fields: Fields | None = None,
    headers: RequestHeaders | None = None,
    identity: bytes = b"",
    scheme: str = "https",
    http10: bool = False,
    method: str = "GET",
    **route: str,
) -> bytes:
    """Return a request head."""
    named = [] if host is None else [(b"Host", host.encode())]
    section = FieldSection([*named, *(fields or [])])
    found = read_target(target, section.host)
    return (headers or make()).head(
        RequestHead(method, http10, found, section),
        found.raw,
        address=ClientAddress("203.0.113.9", scheme, "203.0.113.9, 2001:db8::1"),
        settings=make_settings(route=[{"name": "tool", **route}]).route[0],
        request_id="abc",
        upgrade=b"upgrade" in section.connection,
        identity=identity,
    )


def test_head() -> None:
    """The head has the target as sent, the client's fields, the gate's, then the identity."""
    found = head(fields=[(b"X-A", b"1")], identity=b"X-Tailchat-Sub: s\r\n")

    assert found == (
        b"GET /a?b HTTP/1.1\r\nHost: Gate.test:8080\r\nX-A: 1\r\n"
        b"X-Forwarded-Host: Gate.test:8080\r\n"
        b"X-Forwarded-For: 203.0.113.9, 2001:db8::1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Port: 8080\r\nX-Request-Id: abc\r\n"
        b"X-Tailchat-Sub: s\r\n\r\n"
    )


def test_upgrade() -> None:
    """The gate writes an upgrade itself, after all other fields, by its lower-case name."""
    fields = [(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"WebSocket")]

    assert head(fields=fields, identity=b"X-Tailchat-Sub: s\r\n").endswith(
        b"X-Tailchat-Sub: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )


@pytest.mark.parametrize(("http10", "version"), [(False, b"1.1"), (True, b"1.0")])
def test_via(http10: bool, version: bytes) -> None:
    """Via names the version received and the gate, behind what the client sent (A 7.6.3)."""
    found = head(headers=make(via="gate"), http10=http10, fields=[(b"Via", b"1.1 edge")])

    assert found.count(b"Via: ") == 2
    assert found.endswith(b"Via: " + version + b" gate\r\n\r\n")
    assert found.index(b"Via: 1.1 edge") < found.index(b" gate")


def test_forwarded() -> None:
    """Forwarded tells the chain, the host and the scheme (RFC 7239), IPv6 in quotes."""
    found = head(headers=make(forwarded=True), fields=[(b"Forwarded", b"for=6.6.6.6")])

    assert (
        b'\r\nForwarded: for=203.0.113.9;host="Gate.test:8080";proto=https, for="[2001:db8::1]"\r\n'
        in found
    )
    assert b"6.6.6.6" not in found
    assert b"Forwarded: for" not in head()


def test_own_host_of_the_tool() -> None:
    """A tool that wants its own Host gets it; the visitor's stays in X-Forwarded-Host."""
    found = head(upstream_host="tool.lan:3000")

    assert b"\r\nHost: tool.lan:3000\r\n" in found
    assert b"\r\nX-Forwarded-Host: Gate.test:8080\r\n" in found


@pytest.mark.parametrize(
    ("connection", "te", "sent"),
    [
        (b"TE", b"trailers", True),
        (b"te, close", b"gzip, Trailers", True),
        (b"TE", b"gzip", False),
        (b"close", b"trailers", False),
        (b"TE", b"trailers;q=0", False),
        (b"TE", b"trail ers", False),
        (b"TE", b"gzip,\ttrailers\t,", True),
    ],
)
def test_trailers_are_asked_for_again(connection: bytes, te: bytes, sent: bool) -> None:
    """TE: trailers goes on where the client sent it by the rules (A 10.1.4), nothing else of TE."""
    found = head(fields=[(b"Connection", connection), (b"TE", te)])

    assert (b"\r\nTE: trailers\r\nConnection: TE\r\n" in found) is sent
    assert found.count(b"TE: ") == int(sent)


@pytest.mark.parametrize(
    ("method", "value", "sent"),
    [
        ("OPTIONS", b"5", b"4"),
        ("TRACE", b"010", b"9"),
        ("GET", b"5", b"5"),
        ("OPTIONS", b"x", b"x"),
    ],
)
def test_max_forwards(method: str, value: bytes, sent: bytes) -> None:
    """Max-Forwards is counted down for OPTIONS and TRACE alone (A 7.6.2)."""
    found = head(method=method, fields=[(b"max-forwards", value)])

    assert b"\r\nmax-forwards: " + sent + b"\r\n" in found


def test_trailers_for_the_tool() -> None:
    """Of trailers only those go on that mean the same behind a body (A 6.5.1)."""
    fields = [(b"X-Checksum", b"1"), (b"x_tailchat_sub", b"a"), (b"Cookie", b"a=b")]
    fields += [(b"Authorization", b"a"), (b"Content-Type", b"a"), (b"Host", b"a"), (b"TE", b"a")]
    fields += [(b"X-Forwarded-For", b"a"), (b"X-Own-User", b"a"), (b"Connection", b"a")]
    fields += [(b"SCRIPT_NAME", b"a"), (b"Remote-User", b"a"), (b"X-Real-IP", b"a"), (b"x_a", b"a")]

    assert make("X-Own-User").trailers(TOOL, fields) == b"X-Checksum: 1\r\n"


def test_lines_are_made_once_and_for_each_client_and_route() -> None:
    """Fields that repeat are rewritten once; another client or route never gets another's lines."""
    section = FieldSection([(b"Host", b"gate.test")])
    request = RequestHead("GET", False, read_target("/", section.host), section)
    headers, two = make(), routes()
    clients = [
        ClientAddress("203.0.113.9", "https", "203.0.113.9"),
        ClientAddress("10.0.0.1", "http", "10.0.0.1"),
    ]

    def sent(client: ClientAddress, route: RouteSettings) -> bytes:
        return headers.head(
            request,
            b"/",
            address=client,
            settings=route,
            request_id="i",
            identity=b"",
            upgrade=False,
        )

    first = sent(clients[0], two[0])
    made = section.sent
    again = sent(clients[0], two[0])

    assert again == first
    assert section.sent is made
    assert b"X-Forwarded-For: 10.0.0.1\r\n" in sent(clients[1], two[0])
    assert b"X-Forwarded-For: 203.0.113.9\r\n" in sent(clients[0], two[1])


@pytest.mark.parametrize(
    ("host", "scheme", "port"),
    [
        ("gate.test:8080", "https", b"8080"),
        ("gate.test", "https", b"443"),
        ("gate.test", "http", b"80"),
        (None, "http", b"80"),
    ],
)
def test_forwarded_port(host: str | None, scheme: str, port: bytes) -> None:
    """The forwarded port is the Host's, or the usual one of the scheme."""
    assert b"\r\nX-Forwarded-Port: " + port + b"\r\n" in head(host=host, scheme=scheme)


def test_connection_cannot_remove_what_the_gate_sets() -> None:
    """The gate's own fields come behind the stripping, so that no client can name them away."""
    named = b"X-Tailchat-Sub, X-Forwarded-For, X-Request-Id, Host, X-WEBAUTH-USER, Via"
    fields = [
        *((b"Connection", named), (b"X-Tailchat-Sub", b"admin"), (b"X_Forwarded_For", b"127.0.0.1"))
    ]
    found = head(
        headers=make("X-WEBAUTH-USER", via="gate"),
        fields=fields,
        identity=b"X-Tailchat-Sub: s\r\nX-WEBAUTH-USER: s\r\n",
    )

    for line in (b"X-Tailchat-Sub: s", b"X-WEBAUTH-USER: s", b"Host: Gate.test:8080"):
        assert found.split(b"\r\n").count(line) == 1
    assert b"admin" not in found
    assert b"127.0.0.1" not in found
    assert b"X-Forwarded-For: 203.0.113.9, 2001:db8::1\r\n" in found
    assert b"Via: 1.1 gate\r\n" in found
