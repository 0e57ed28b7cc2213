import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.identity.cookie import CookieNames, CookieReader
from tailchat_gate.proxy.headers import (
    _MAX_KNOWN_NAMES,
    BadFieldError,
    RequestHeaders,
    fold,
    request_head,
    without,
)
from tailchat_gate.request.client import Client
from tailchat_gate.request.target import read_host, read_target

COOKIES = CookieReader(CookieNames.for_origin("http://gate.test"))
CLIENT = Client("203.0.113.9", "https", "203.0.113.9, 10.0.0.1")
Fields = list[tuple[bytes, bytes]]


def make(*managed: str) -> RequestHeaders:
    """Return a rewriter for routes that set these headers."""
    return RequestHeaders(COOKIES, managed)


def rewrite(fields: Fields, *, chunked: bool = False, has_body: bool | None = None) -> Fields:
    """Return the fields that go on, taken apart again from the bytes.

    `has_body` is what a length or chunks among them announce, where it is not given.
    """
    announced = chunked or any(name.lower() == b"content-length" for name, _ in fields)
    data = b"".join(
        make("X-WEBAUTH-USER", "Remote.User").rewrite(
            fields, chunked=chunked, has_body=announced if has_body is None else has_body
        )
    )
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
        b"Trailer",
        b"transfer_encoding",
        b"Transfer.Encoding",
        b"Upgrade",
        b"Host",
        b"HOST",
        b"Content_Length",
        b"content.length",
    ],
)
def test_field_is_dropped(name: bytes) -> None:
    """No spelling of a managed, framing or hop-by-hop name gets through, first or repeated."""
    fields = [(name, b"one"), (b"Accept", b"*/*"), (name, b"two")]

    assert rewrite(fields) == [(b"Accept", b"*/*")]
    assert rewrite([(b"Content-Length", b"1"), *fields]) == [
        (b"Content-Length", b"1"),
        (b"Accept", b"*/*"),
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
        b"X-Custom_Name",
        b"Hostname",
        b"X-WEBAUTH-USERS",
        b"\xe2\x84\xaaeep-Alive",
        b"Ho\xc5\xbft",
        b"Tran\xc5\xbffer-Encoding",
        b"Coo\xe2\x84\xaaie",
        b"Expect",
        b"Via",
    ],
)
def test_field_is_kept(name: bytes) -> None:
    """Other names pass with their bytes; letters outside ASCII are no spelling of ours."""
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
        *framing,
        *(field for field in others if field[0] not in dropped),
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

    assert rewrite(fields) == fields[:2]


@pytest.mark.parametrize("named", [b"Transfer-Encoding", b"transfer-encoding, chunked"])
def test_connection_takes_no_chunking_away(named: bytes) -> None:
    """A body in chunks stays one although Connection names its framing."""
    fields = [(b"Connection", named), (b"transfer-encoding", b"chunked")]

    assert rewrite(fields, chunked=True) == [(b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize(
    ("sent", "plain"),
    [
        (b"0", b"0"),
        (b"5", b"5"),
        (b"05", b"5"),
        (b"0" * 30, b"0"),
        (b"0" * 30 + b"5", b"5"),
        (b"18446744073709551621", b"18446744073709551621"),
    ],
)
def test_content_length(sent: bytes, plain: bytes) -> None:
    """A length is sent on in its one plain spelling."""
    fields = [(b"content-LENGTH", sent)]

    assert rewrite(fields, has_body=plain != b"0") == [(b"Content-Length", plain)]


@pytest.mark.parametrize(("sent", "has_body"), [(b"0", True), (b"00", True), (b"5", False)])
def test_length_of_another_body_is_refused(sent: bytes, has_body: bool) -> None:
    """A length without a body, or none with one, is refused: what is sent must be announced."""
    with pytest.raises(BadFieldError, match="Content-Length"):
        rewrite([(b"Content-Length", sent)], has_body=has_body)


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b" ", b"+5", b"-5", b"0x5", b"5,6", b"5, 5", b"5e0", b"0_5", b"5.0", b"5 ", b" 5"),
        *(b"\xd9\xa5", b"\xb2", b"five", b"5\x00"),
    ],
)
def test_bad_content_length_is_refused(sent: bytes) -> None:
    """A length that is not digits alone is refused."""
    with pytest.raises(BadFieldError, match="Content-Length"):
        rewrite([(b"Content-Length", sent)])


@pytest.mark.parametrize("value", [b"chunked", b" Chunked ", b"CHUNKED"])
def test_chunked_body(value: bytes) -> None:
    """A body in chunks is announced in the one plain spelling, where the client did."""
    fields = [(b"X-A", b"1"), (b"transfer-encoding", value), (b"transfer_encoding", b"identity")]

    assert rewrite([*fields, (b"X-B", b"2")], chunked=True) == [
        (b"X-A", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"X-B", b"2"),
    ]


@pytest.mark.parametrize("length", [b"5", b"0", b"junk"])
@pytest.mark.parametrize("first", [True, False])
def test_two_framings_are_refused(length: bytes, first: bool) -> None:
    """A length beside chunks is refused, whichever comes first (RFC 9112 section 6.3)."""
    fields = [(b"Content-Length", length), (b"Transfer-Encoding", b"chunked")]
    with pytest.raises(BadFieldError, match="Content-Length"):
        rewrite(fields if first else fields[::-1], chunked=True)


@pytest.mark.parametrize(
    ("value", "chunked"),
    [
        *[(b"cow", True), (b"cow, chunked", True), (b"chunked, cow", True), (b"identity", True)],
        *[(b"xchunked", True), (b"", True), (b'"chunked"', True), (b"chunked;q=1", True)],
        *[(b"chunked, chunked", True), (b"chunked", False), (b"identity", False)],
    ],
)
def test_other_transfer_codings_are_refused(value: bytes, chunked: bool) -> None:
    """A transfer coding that is not the chunks of the body is refused (RFC 9112 section 6.1)."""
    with pytest.raises(BadFieldError, match="transfer coding"):
        rewrite([(b"Transfer-Encoding", value)], chunked=chunked)


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
    headers.rewrite(
        [(b"X-%d" % index, b"") for index in range(3 * _MAX_KNOWN_NAMES)],
        chunked=False,
        has_body=False,
    )
    assert len(headers._known) == _MAX_KNOWN_NAMES

    fresh = make()
    pieces = fresh.rewrite(
        [(b"X" * 5000, b"1"), (b"X-Tailchat-" + b"s" * 90, b"2")], chunked=False, has_body=False
    )
    assert fresh._known == {}
    assert pieces == [b"X" * 5000, b": ", b"1", b"\r\n"]
    again = [(b"X_Tailchat_Sub", b"x"), (b"X-Other", b"y")] * 2
    assert (
        headers.rewrite(again, chunked=False, has_body=False)
        == [b"X-Other", b": ", b"y", b"\r\n"] * 2
    )


def test_without() -> None:
    """Pieces of fields are taken out four at a time, by their names in lower case."""
    pieces = [b"X-A", b": ", b"x-b", b"\r\n", b"X-B", b": ", b"1", b"\r\n"]

    assert without(pieces, {b"x-b"}) == pieces[:4]
    assert without(pieces, {b": ", b"1", b"\r\n", b""}) == pieces


NAMES = st.sampled_from(
    [b"X-A", b"x-b", b"Connection", b"Cookie", b"X_Tailchat_Sub", b"Host", b"TE"]
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
        or (name, value) == framing
    ]
    chunked = framing is not None and framing[0] == b"Transfer-Encoding"

    assert rewrite(fields, chunked=chunked) == expected


# The whole head.


def head(
    *,
    target: str = "/a?b",
    host: str | None = "Gate.test:8080",
    fields: list[bytes] | None = None,
    upgrade: bool = False,
    identity: bytes = b"",
    scheme: str = "https",
) -> bytes:
    """Return a request head."""
    found = read_host([] if host is None else [host])
    return request_head(
        "GET",
        read_target(target, found),
        fields or [],
        client=Client("203.0.113.9", scheme, "203.0.113.9, 10.0.0.1"),
        request_id="abc",
        upgrade=upgrade,
        identity=identity,
    )


def test_head() -> None:
    """The head has the target as sent, the gate's fields, the client's, then the identity."""
    found = head(fields=[b"X-A", b": ", b"1", b"\r\n"], identity=b"X-Tailchat-Sub: s\r\n")

    assert found == (
        b"GET /a?b HTTP/1.1\r\nHost: Gate.test:8080\r\nX-Forwarded-Host: Gate.test:8080\r\n"
        b"X-Forwarded-For: 203.0.113.9, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Port: 8080\r\nX-Request-Id: abc\r\n"
        b"X-A: 1\r\nX-Tailchat-Sub: s\r\n\r\n"
    )


def test_upgrade() -> None:
    """An upgrade is asked for anew behind everything else."""
    assert head(upgrade=True, identity=b"X-Tailchat-Sub: s\r\n").endswith(
        b"X-Tailchat-Sub: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )


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
    named = b"X-Tailchat-Sub, X-Forwarded-For, X-Request-Id, Host, X-WEBAUTH-USER"
    fields = make("X-WEBAUTH-USER").rewrite(
        [(b"Connection", named), (b"X-Tailchat-Sub", b"admin"), (b"X_Forwarded_For", b"127.0.0.1")],
        chunked=False,
        has_body=False,
    )
    found = head(fields=fields, identity=b"X-Tailchat-Sub: s\r\nX-WEBAUTH-USER: s\r\n")

    for line in (b"X-Tailchat-Sub: s", b"X-WEBAUTH-USER: s", b"Host: Gate.test:8080"):
        assert found.split(b"\r\n").count(line) == 1
    assert b"admin" not in found
    assert b"127.0.0.1" not in found
    assert b"X-Forwarded-For: 203.0.113.9, 10.0.0.1\r\n" in found
