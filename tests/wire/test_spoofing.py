"""What a visitor sends under a name of the gate's never arrives, in no spelling and on no route."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gatekit import (
    ALICE,
    OK,
    SUB,
    RawClient,
    RawUpstream,
    Received,
    RunningGate,
    ask,
    read_body,
)

from tailchat_gate.identity.oauth.responses import Profile

# What a head says is read and written by code that knows of no event loop; what is left of one
# request for the next is another matter.

Start = Callable[..., Any]

HOST = b"Host: gate.test\r\n"
BOB = Profile("660000000000000000000002", "Bob", "0007", "https://chat.example/static/b.png")
#: Fields that only the gate may set, those of a route's own `headers` among them.
MANAGED = (
    "X-Tailchat-Sub",
    "X-Tailchat-Nickname",
    "X-Tailchat-Discriminator",
    "X-Tailchat-Avatar",
    "X-Tailchat-Groups",
    "X-Tailchat-Email",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Uri",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-User",
    "X-Forwarded-Access-Token",
    "X-Request-Id",
    "X-Real-Ip",
    "X-Original-Url",
    "X-Original-Uri",
    "X-Original-Host",
    "X-Rewrite-Url",
    "Forwarded",
    "Proxy",
    "X-WEBAUTH-USER",
    "X-WEBAUTH-ROLE",
    "X-Own-Role",
    "X-Any-Name_",
)
#: Fields of the connection and of the framing: those with "-" are never copied, however spelled.
FRAMING = ("Content-Length", "Transfer-Encoding", "Keep-Alive", "Proxy-Connection")
#: The characters of a token (RFC 9110 section 5.6.2) that some server may take for a "-".
ODD = "_.~+!#$%&'*^`|"

ROUTES = [
    {"name": "tool", "path": "/", "headers": {"X-WEBAUTH-USER": "{sub}"}},
    {"name": "open", "path": "/open", "allow": ["public"]},
    {
        "name": "named",
        "path": "/named",
        "allow": ["public"],
        "headers": {
            "X-WEBAUTH-USER": "{sub}",
            "X-WEBAUTH-ROLE": "role of {sub}",
            "X-Own-Role": "{sub}",
        },
    },
]
#: What else a request may be while its fields are judged.
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@pytest.fixture
async def tools(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with one signed-in and two public routes before one upstream."""
    found = await start_gate(upstream.url, route=ROUTES, groups={"ops": [SUB]})
    assert isinstance(found, RunningGate)
    return found


def _spellings(name: str) -> Iterator[str]:
    yield from (name, name.lower(), name.upper(), name.swapcase())
    for odd in ODD:
        yield name.replace("-", odd)
        yield name.replace("-", odd, 1)
    yield name.upper().replace("-", "_")
    first, _, last = name.rpartition("-")
    yield f"{first}_{last.lower()}" if first else last.title()


def _lines(cookie: str, path: bytes, version: bytes, fields: bytes) -> bytes:
    line = b"GET " + path + b" HTTP/" + version + b"\r\n" + HOST
    sent = b"Cookie: a=1; " + cookie.encode() + b"\r\n" if cookie else b""
    return line + sent + fields + b"\r\n"


def _identity(request: Received) -> dict[bytes, bytes]:
    """Return every field that tells an upstream who asks, as it arrived."""
    starts = (b"x-tailchat", b"x-webauth")
    found = [pair for pair in request.fields if pair[0].lower().startswith(starts)]
    assert len(dict(found)) == len(found), found
    return dict(found)


OF_ALICE = {
    b"X-Tailchat-Sub": SUB.encode(),
    b"X-Tailchat-Nickname": b"Alice",
    b"X-Tailchat-Discriminator": b"0042",
    b"X-Tailchat-Avatar": b"https://chat.example/static/a.png",
    b"X-Tailchat-Groups": b"ops",
}
ADDED: dict[bytes, dict[bytes, bytes]] = {
    b"/open": {},
    b"/named": {b"X-WEBAUTH-USER": SUB.encode(), b"X-WEBAUTH-ROLE": b"role of " + SUB.encode()},
    b"/x": {b"X-WEBAUTH-USER": SUB.encode()},
}


@pytest.mark.parametrize(
    ("path", "signed_in"),
    [
        (b"/x", True),
        (b"/open", True),
        (b"/open", False),
        (b"/named", True),
        (b"/named", False),
        (b"http://gate.test/open", False),
        (b"http://gate.test/x", True),
    ],
)
@pytest.mark.parametrize(
    ("version", "extra"),
    [(b"1.1", b""), (b"1.0", b""), (b"1.1", UPGRADE)],
    ids=["1.1", "1.0", "upgrade"],
)
async def test_no_spelling_of_a_managed_name_arrives(
    tools: RunningGate,
    upstream: RawUpstream,
    path: bytes,
    signed_in: bool,
    version: bytes,
    extra: bytes,
) -> None:
    """Every folding of every managed name is dropped; who asks is told by the gate alone."""
    cookie = tools.cookie() if signed_in else ""
    for name in (*MANAGED, *FRAMING):
        fields = b"".join(
            f"{spelling}: spoofed\r\n".encode()
            for spelling in dict.fromkeys(_spellings(name))
            if spelling.lower() != name.lower() or name not in FRAMING
        )
        response = await ask(tools.port, _lines(cookie, path, version, fields + extra))
        assert response.status == 200, name

    assert len(upstream.requests) == len(MANAGED) + len(FRAMING)
    wanted = {**OF_ALICE, **ADDED[path.removeprefix(b"http://gate.test")]} if signed_in else {}
    for received, name in zip(upstream.requests, (*MANAGED, *FRAMING), strict=True):
        assert b"spoofed" not in received.head, name
        assert _identity(received) == wanted, name
        assert received.value("X-Forwarded-For") == b"127.0.0.1"
        assert received.value("X-Forwarded-Proto") == b"http"
        assert received.value("X-Forwarded-Host") == received.value("Host") == b"gate.test"
        assert received.value("Cookie") == (b"a=1" if signed_in else None)


async def test_fields_that_only_look_alike_are_left_alone(
    tools: RunningGate, upstream: RawUpstream
) -> None:
    """A name that does not fold onto a managed one passes with its bytes."""
    names = (b"X-Tailchats", b"XTailchat-Sub", b"X-Forwar", b"My-X-Tailchat-Sub", b"X-Plain")
    fields = b"".join(name + b": kept\r\n" for name in names)

    await ask(tools.port, _lines(tools.cookie(), b"/x", b"1.1", fields))

    found = [name for name, value in upstream.requests[0].fields if value == b"kept"]
    assert found == list(names)


@pytest.mark.parametrize(
    "fields",
    [
        b"X-Tailchat-Sub: spoofed\r\nX-Tailchat-Sub: spoofed\r\nX-Tailchat-Sub: spoofed\r\n",
        b"X-Tailchat-Sub: spoofed, " + SUB.encode() + b"\r\n",
        b"X-Tailchat-Sub: " + SUB.encode() + b", spoofed\r\nx-tailchat-sub: spoofed\r\n",
        b"X-Tailchat-Nickname: spoofed\r\nX-Tailchat-Avatar: spoofed\r\n",
        b"X-Tailchat-Groups: ops,spoofed\r\nX-Tailchat-Groups:\r\n",
    ],
)
@pytest.mark.parametrize("path", [b"/x", b"/open"])
async def test_copies_and_lists_are_gone_where_the_gate_sets_nothing(
    start_gate: Start, upstream: RawUpstream, fields: bytes, path: bytes
) -> None:
    """A value that the session does not have is an absent field, not the visitor's own."""
    gate = await start_gate(upstream.url, route=ROUTES)
    bare = gate.cookie(Profile(SUB, "", "", ""))

    response = await ask(gate.port, _lines(bare, path, b"1.1", fields))

    assert response.status == 200
    received = upstream.requests[0]
    assert b"spoofed" not in received.head
    assert _identity(received) == {b"X-Tailchat-Sub": SUB.encode(), **ADDED[path]}


LISTED = (
    b"X-Tailchat-Sub",
    b"x-tailchat-nickname",
    b"X-TAILCHAT-AVATAR",
    b"X-WEBAUTH-USER",
    b"X-Forwarded-For",
    b"X-Forwarded-Host",
    b"X-Request-Id",
    b"Host",
    b"Content-Length",
    b"Cookie",
    b"Content-Length, Host, Cookie, X-Tailchat-Sub",
    b"close, ,X-Tailchat-Sub ,, x-webauth-user",
)


@pytest.mark.parametrize("listed", LISTED)
async def test_connection_cannot_take_a_field_of_the_gate_away(
    tools: RunningGate, upstream: RawUpstream, listed: bytes
) -> None:
    """What Connection lists is the visitor's to drop, never the gate's, nor the framing."""
    data = (
        b"POST /x HTTP/1.1\r\n" + HOST + b"Connection: " + listed + b"\r\n"
        b"Cookie: a=1; " + tools.cookie().encode() + b"\r\n"
        b"X-Tailchat-Sub: spoofed\r\nContent-Length: 4\r\n\r\nbody"
    )

    response = await ask(tools.port, data)

    assert response.status == 200
    received = upstream.requests[0]
    assert _identity(received) == {**OF_ALICE, **ADDED[b"/x"]}
    assert received.value("Host") == received.value("X-Forwarded-Host") == b"gate.test"
    assert received.value("X-Forwarded-For") == b"127.0.0.1"
    assert len(received.value("X-Request-Id") or b"") == 24
    assert received.value("Content-Length") == b"4"
    assert received.value("Cookie") == b"a=1"
    assert received.body == b"body"


async def test_connection_cannot_take_the_chunked_coding_away(
    tools: RunningGate, upstream: RawUpstream
) -> None:
    """A chunked body stays framed although Connection lists Transfer-Encoding."""
    data = (
        b"POST /x HTTP/1.1\r\n" + HOST + b"Connection: Transfer-Encoding, TE\r\n"
        b"Cookie: " + tools.cookie().encode() + b"\r\nTE: trailers\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    )

    await ask(tools.port, data)

    assert upstream.requests[0].value("Transfer-Encoding") == b"chunked"
    assert upstream.requests[0].value("TE") == b"trailers"
    assert upstream.requests[0].body == b"body"


@pytest.mark.parametrize(
    "fields",
    [
        b"X-Gone: 1\r\nX-Kept: 2\r\nContent-Length: 4\r\nConnection: x-gone\r\n",
        b"Content-Length: 4\r\nX-Kept: 2\r\nX-Gone: 1\r\nConnection: x-gone\r\n",
        b"Connection: x-gone\r\nContent-Length: 4\r\nX-Gone: 1\r\nX-Gone: 2\r\nX-Kept: 2\r\n",
        b"Connection: a\r\nConnection: ,X-GONE,\r\nX-Kept: 2\r\nContent-Length: 4\r\nX-Gone: 3\r\n",
    ],
)
async def test_what_connection_lists_is_dropped(
    tools: RunningGate, upstream: RawUpstream, fields: bytes
) -> None:
    """A listed field goes wherever it stands beside Content-Length (RFC 9110 section 7.6.1)."""
    head = b"POST /x HTTP/1.1\r\n" + HOST + b"Cookie: " + tools.cookie().encode() + b"\r\n"

    await ask(tools.port, head + fields + b"\r\nbody")

    received = upstream.requests[0]
    assert received.value("X-Gone") is None
    assert received.value("X-Kept") == b"2"
    assert received.body == b"body"


HIDDEN = {
    "space before the colon": b"X-Tailchat-Sub : spoofed",
    "tab before the colon": b"X-Tailchat-Sub\t: spoofed",
    "VT before the colon": b"X-Tailchat-Sub\x0b: spoofed",
    "FF before the colon": b"X-Tailchat-Sub\x0c: spoofed",
    "NUL before the colon": b"X-Tailchat-Sub\x00: spoofed",
    "NUL within": b"X-Tailchat\x00-Sub: spoofed",
    "NBSP before the colon": b"X-Tailchat-Sub\xa0: spoofed",
    "NBSP in UTF-8": b"X-Tailchat-Sub\xc2\xa0: spoofed",
    "NEL before the colon": b"X-Tailchat-Sub\x85: spoofed",
    "NEL in UTF-8": b"X-Tailchat-Sub\xc2\x85: spoofed",
    "NUL first": b"\x00X-Tailchat-Sub: spoofed",
    "VT first": b"\x0bX-Tailchat-Sub: spoofed",
    "NBSP first": b"\xa0X-Tailchat-Sub: spoofed",
    "DEL first": b"\x7fX-Tailchat-Sub: spoofed",
    "byte order mark first": b"\xef\xbb\xbfX-Tailchat-Sub: spoofed",
    "long s": "X-Tailchat-\u017fub: spoofed".encode(),
    "long s in Latin clothes": b"X-Tailchat-\x9fub: spoofed",
    "Kelvin sign": "X-Tailchat-Nic\u212aname: spoofed".encode(),
    "dotless i": "X-Ta\u0131lchat-Sub: spoofed".encode(),
    "full-width hyphen": "X\uff0dTailchat\uff0dSub: spoofed".encode(),
    "brackets": b"X[Tailchat]Sub: spoofed",
    "slash": b"X/Tailchat/Sub: spoofed",
    "space within": b"X Tailchat Sub: spoofed",
    "quoted": b'"X-Tailchat-Sub": spoofed',
    "no colon": b"X-Tailchat-Sub",
    "empty name": b": spoofed",
    "obs-fold": b"X-Plain: a\r\n X-Tailchat-Sub: spoofed",
    "obs-fold by tab": b"X-Plain: a\r\n\tX-Tailchat-Sub: spoofed",
    "obs-fold of nothing": b"X-Plain:\r\n X-Tailchat-Sub: spoofed",
    "bare CR in a value": b"X-Plain: a\rX-Tailchat-Sub: spoofed",
    "bare LF in a value": b"X-Plain: a\nX-Tailchat-Sub: spoofed",
    "LF CR in a value": b"X-Plain: a\n\rX-Tailchat-Sub: spoofed",
    "CR CR LF": b"X-Plain: a\r\r\nX-Tailchat-Sub: spoofed",
    "bare CR before the colon": b"X-Tailchat-Sub\r: spoofed",
    "NUL in a value": b"X-Plain: a\x00X-Tailchat-Sub: spoofed",
    "VT in a value": b"X-Plain: a\x0bX-Tailchat-Sub: spoofed",
}


@pytest.mark.parametrize("field", HIDDEN.values(), ids=HIDDEN.keys())
@pytest.mark.parametrize(("path", "signed_in"), [(b"/x", True), (b"/open", False)])
async def test_a_name_hidden_from_one_parser_is_refused(
    tools: RunningGate, upstream: RawUpstream, field: bytes, path: bytes, signed_in: bool
) -> None:
    """What another parser might read as a field of the gate's makes the request a 400."""
    cookie = tools.cookie() if signed_in else ""

    response = await ask(tools.port, _lines(cookie, path, b"1.1", field + b"\r\n"))

    assert response.status == 400
    assert upstream.requests == []


TRAILERS = (
    b"X-Tailchat-Sub: spoofed",
    b"X_Tailchat_Sub: spoofed",
    b"X-WEBAUTH-USER: spoofed",
    b"X-Forwarded-For: 6.6.6.6, spoofed",
    b"X-Plain: spoofed",
    b"Authorization: spoofed",
    b"X-Plain: spoofed\r\nX-Tailchat-Sub: spoofed",
)


def _trailed(path: bytes, cookie: bytes, trailers: bytes) -> bytes:
    return (
        (b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Trailer: X-Tailchat-Sub\r\n" + cookie)
        + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n"
        + trailers
        + b"\r\n\r\n"
    )


async def _until_closed(port: int, data: bytes) -> bytes:
    async with RawClient.connect(port) as client:
        client.send(data)
        async with asyncio.timeout(15):
            return await client.reader.read()


@pytest.mark.parametrize("trailers", TRAILERS)
@pytest.mark.parametrize(("path", "signed_in"), [(b"/x", True), (b"/open", False)])
async def test_trailers_never_become_fields(
    tools: RunningGate, upstream: RawUpstream, trailers: bytes, path: bytes, signed_in: bool
) -> None:
    """A trailer reaches neither its own request nor the next on the connection as a field."""
    cookie = b"Cookie: " + tools.cookie().encode() + b"\r\n" if signed_in else b""
    follow_up = b"GET " + path + b" HTTP/1.1\r\n" + HOST + cookie + b"Connection: close\r\n\r\n"

    await _until_closed(tools.port, _trailed(path, cookie, trailers) + follow_up)

    assert upstream.requests
    wanted = {**OF_ALICE, **ADDED[path]} if signed_in else {}
    for received in upstream.requests:
        assert b"spoofed" not in received.head
        assert b"6.6.6.6" not in received.head
        assert set(received.trailers) <= {b"X-Plain: spoofed"}
        assert _identity(received) == wanted


@pytest.mark.parametrize("path", [b"/x", b"/open"])
async def test_a_session_in_a_trailer_signs_nobody_in(
    tools: RunningGate, upstream: RawUpstream, path: bytes
) -> None:
    """A Cookie among the trailers of one request is no session for the next one either."""
    trailer = b"Cookie: " + tools.cookie().encode()
    first = _trailed(b"/open", b"", trailer)
    follow_up = b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"

    await _until_closed(tools.port, first + follow_up)

    assert upstream.requests[0].body == b"body"
    assert [_identity(received) for received in upstream.requests if _identity(received)] == []
    assert all(b"/x" not in received.line for received in upstream.requests)
    assert {line["sub"] for line in await tools.log()} == {""}


@pytest.mark.parametrize(
    "host", ["\u212aiosk.test", "kio\u017fk.test", "kiosk.test\u3002", "k\u0131osk.test"]
)
async def test_a_host_in_other_letters_meets_no_route(
    start_gate: Start, upstream: RawUpstream, host: str
) -> None:
    """Letters that Python's `lower` or NFKC would turn into ASCII do not make a host's name."""
    gate = await start_gate(
        upstream.url,
        route=[{"name": "kiosk", "host": "kiosk.test", "allow": ["public"]}],
    )
    own = await ask(gate.port, b"GET / HTTP/1.1\r\nHost: KIOSK.test\r\n\r\n")

    response = await ask(gate.port, b"GET / HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n")

    assert own.status == 200
    assert response.status in {400, 404}
    assert len(upstream.requests) == 1


CLAIMS = (
    b"X-Forwarded-Uri: /open",
    b"X-Forwarded-Path: /open",
    b"X-Original-URL: /open",
    b"X-Original-URI: /open",
    b"X-Rewrite-URL: /open",
    b"X-Envoy-Original-Path: /open",
    b"X-Forwarded-Prefix: /open",
    b"X-Forwarded-Host: open.test",
    b"X-Original-Host: open.test",
    b"X-Host: open.test",
    b"Forwarded: for=127.0.0.1;host=open.test;proto=https",
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-For: ::1, 127.0.0.1, 10.0.0.1",
    b"X-Real-IP: 127.0.0.1",
    b"X-Client-IP: 127.0.0.1",
    b"True-Client-IP: 127.0.0.1",
    b"X-Forwarded-Method: OPTIONS",
    b"X-HTTP-Method-Override: OPTIONS",
    b"X-HTTP-Method: HEAD",
    b"X-Method-Override: GET",
    b"User-Agent: kube-probe/1.29",
    b"User-Agent: GoogleHC/1.0",
    b"User-Agent: ELB-HealthChecker/2.0",
    b"X-Forwarded-User: " + SUB.encode(),
    b"X-Tailchat-Sub: " + SUB.encode(),
    b"X-Tailchat-Groups: ops",
    b"X-Auth-Request-User: " + SUB.encode(),
    b"Remote-User: " + SUB.encode(),
    b"Authorization: Bearer " + SUB.encode(),
    b"Authorization: Basic YWRtaW46YWRtaW4=",
    b"Proxy-Authorization: Basic YWRtaW46YWRtaW4=",
    b"Access-Control-Request-Method: GET\r\nOrigin: http://gate.test",
    b"Sec-Fetch-Site: same-origin",
    b"Purpose: prefetch",
    b"Upgrade-Insecure-Requests: 1",
)
DECIDING = [
    *ROUTES,
    {"name": "ops", "path": "/ops", "allow": ["group:ops"]},
    {"name": "host", "host": "open.test", "allow": ["public"]},
]


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]], ids=["direct", "behind a proxy"])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"HEAD"])
async def test_no_field_is_input_to_a_decision(
    start_gate: Start, upstream: RawUpstream, trusted: list[str], method: bytes
) -> None:
    """Target, Host and session decide; no header field opens a route, in front of no proxy."""
    gate = await start_gate(
        upstream.url,
        route=DECIDING,
        groups={"ops": [SUB]},
        server={"trusted_proxies": trusted},
    )
    bob = b"Cookie: " + gate.cookie(BOB).encode() + b"\r\n"
    for claim in CLAIMS:
        for path, cookie, status in ((b"/x", b"", 401), (b"/ops", b"", 401), (b"/ops", bob, 403)):
            line = method + b" " + path + b" HTTP/1.1\r\n" + HOST
            response = await ask(
                gate.port, line + cookie + claim + b"\r\n\r\n", to_head=method == b"HEAD"
            )
            assert (claim, path, response.status) == (claim, path, status)
        assert upstream.requests == []


async def test_no_field_closes_a_public_route_either(
    tools: RunningGate, upstream: RawUpstream
) -> None:
    """What such fields say about another path does not change the route that is met."""
    for claim in (b"X-Original-URL: /x", b"X-Forwarded-Uri: /x", b"X-Rewrite-URL: /oauth2/start"):
        response = await ask(tools.port, _lines("", b"/open/a", b"1.1", claim + b"\r\n"))
        assert response.status == 200

    assert [r.line for r in upstream.requests] == [b"GET /open/a HTTP/1.1"] * 3


@pytest.mark.both_loops
async def test_identity_never_moves_to_the_next_pipelined_request(
    tools: RunningGate, upstream: RawUpstream
) -> None:
    """Of pipelined requests each is its own visitor's, also right behind a signed-in one."""
    alice, bob = tools.cookie(ALICE), tools.cookie(BOB)
    order = [alice, "", bob, "", "", alice, bob, "tailchat_gate=junk", alice]
    data = b"".join(_lines(cookie, b"/open", b"1.1", b"") for cookie in order)
    async with RawClient.connect(tools.port) as client:
        client.send(data)
        statuses = [(await client.response()).status for _ in order]

    assert statuses == [200] * len(order)
    subs = {alice: SUB.encode(), bob: BOB.sub.encode()}
    found = [received.value("X-Tailchat-Sub") for received in upstream.requests]
    assert found == [subs.get(cookie) for cookie in order]


@pytest.mark.both_loops
async def test_identity_never_moves_past_a_refused_pipelined_request(
    tools: RunningGate, upstream: RawUpstream
) -> None:
    """A body of one request is not read as another, and a refusal changes nobody's identity."""
    inner = _lines(tools.cookie(), b"/x", b"1.1", b"")
    posted = b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(inner) + inner
    data = posted + _lines("", b"/x", b"1.1", b"") + _lines(tools.cookie(), b"/x", b"1.1", b"")
    async with RawClient.connect(tools.port) as client:
        client.send(data)
        first = await client.response()
        rest = await client.reader.read()

    assert (first.status, first.value("Connection")) == (401, "close")
    assert rest == b""
    assert upstream.requests == []


@pytest.mark.both_loops
async def test_a_length_that_no_body_has_is_not_left_open_for_the_next_visitor(
    tools: RunningGate, upstream: RawUpstream
) -> None:
    """No request follows an unfinished one on its upstream connection, answered early or not."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        length = int(request.value("Content-Length") or 0)
        writer.write(OK)
        if length:
            request.body = await reader.read(length)
        else:
            request.body = await read_body(request, reader)

    upstream.answer = answer
    for length in (2**64 - 1, 2**64 - 2, 2**63, 2**63 - 1):
        head = b"POST /open HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % length
        async with RawClient.connect(tools.port) as client, asyncio.timeout(15):
            client.send(head)
            assert (await client.response()).status in {200, 400}
        async with asyncio.timeout(15):
            response = await ask(tools.port, _lines(tools.cookie(), b"/x", b"1.1", b""))
        assert (length, response.status) == (length, 200)

    assert all(tools.cookie().encode() not in r.body for r in upstream.requests)
    assert [r.body for r in upstream.requests if b"GET /x" in r.body] == []
    assert [r.line for r in upstream.requests].count(b"GET /x HTTP/1.1") == 4


@pytest.mark.both_loops
async def test_an_upgrade_carries_the_visitors_identity_and_no_other(
    tools: RunningGate, upstream: RawUpstream
) -> None:
    """On a switched connection too, a public route tells nobody and a session its own."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(switch + b"\r\n")
        request.body = await reader.readexactly(2)
        writer.write(b"\x88\x00")
        writer.close()

    upstream.answer = answer
    spoofed = b"X_Tailchat_Sub: spoofed\r\nX-WEBAUTH-USER: spoofed\r\n" + UPGRADE
    for cookie in ("", tools.cookie()):
        async with RawClient.connect(tools.port) as client:
            client.send(_lines(cookie, b"/open", b"1.1", spoofed))
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            client.send(b"\x88\x00")
            assert await client.reader.read() == b"\x88\x00"

    assert [_identity(received) for received in upstream.requests] == [{}, OF_ALICE]
    assert all(b"spoofed" not in received.head for received in upstream.requests)


TOLD = [
    (b"", b"127.0.0.1", b"http", b"80"),
    (b"X-Forwarded-For: 9.9.9.9\r\n", b"9.9.9.9, 127.0.0.1", b"http", b"80"),
    (b"X-Forwarded-For: 6.6.6.6, 9.9.9.9\r\n", b"9.9.9.9, 127.0.0.1", b"http", b"80"),
    (
        b"X-Forwarded-For: 6.6.6.6, 9.9.9.9, 127.0.0.1\r\n",
        b"9.9.9.9, 127.0.0.1, 127.0.0.1",
        b"http",
        b"80",
    ),
    (
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 9.9.9.9\r\n",
        b"9.9.9.9, 127.0.0.1",
        b"http",
        b"80",
    ),
    (b"X-Forwarded-For: 9.9.9.9, spoofed\r\n", b"127.0.0.1", b"http", b"80"),
    (b"X-Forwarded-For: spoofed, 9.9.9.9\r\n", b"9.9.9.9, 127.0.0.1", b"http", b"80"),
    (b"X-Forwarded-For: ,,\r\n", b"127.0.0.1", b"http", b"80"),
    (b"X_Forwarded_For: 9.9.9.9\r\n", b"127.0.0.1", b"http", b"80"),
    (b"X-Forwarded-Proto: https\r\n", b"127.0.0.1", b"https", b"443"),
    (b"X-Forwarded-Proto: HTTPS\r\n", b"127.0.0.1", b"https", b"443"),
    (b"X-Forwarded-Proto: spoofed\r\n", b"127.0.0.1", b"http", b"80"),
    (b"X-Forwarded-Proto: http, https\r\n", b"127.0.0.1", b"https", b"443"),
    (
        b"X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n",
        b"127.0.0.1",
        b"https",
        b"443",
    ),
    (b"X-Forwarded-Host: spoofed\r\nX-Forwarded-Port: 1\r\n", b"127.0.0.1", b"http", b"80"),
]


@pytest.mark.parametrize(("fields", "chain", "scheme", "port"), TOLD)
async def test_a_trusted_proxy_is_believed_from_the_right(
    start_gate: Start,
    upstream: RawUpstream,
    fields: bytes,
    chain: bytes,
    scheme: bytes,
    port: bytes,
) -> None:
    """Its own word counts, what the visitor wrote to the left does not, and all is rewritten."""
    gate = await start_gate(upstream.url, route=ROUTES, server={"trusted_proxies": ["127.0.0.1"]})

    await ask(gate.port, _lines("", b"/open", b"1.1", fields))

    received = upstream.requests[0]
    assert received.value("X-Forwarded-For") == chain
    assert received.value("X-Forwarded-Proto") == scheme
    assert received.value("X-Forwarded-Port") == port
    assert received.value("X-Forwarded-Host") == b"gate.test"
    assert b"spoofed" not in received.head
    assert (await gate.log())[0]["client"] == chain.split(b",")[0].decode()


@pytest.mark.parametrize("fields", [told[0] for told in TOLD])
async def test_an_untrusted_peer_is_not_believed(
    tools: RunningGate, upstream: RawUpstream, fields: bytes
) -> None:
    """With no trusted proxy the socket's peer is the visitor, whatever it writes."""
    await ask(tools.port, _lines("", b"/open", b"1.1", fields))

    received = upstream.requests[0]
    assert received.value("X-Forwarded-For") == b"127.0.0.1"
    assert received.value("X-Forwarded-Proto") == b"http"
    assert received.value("X-Forwarded-Port") == b"80"
    assert b"spoofed" not in received.head
    assert (await tools.log())[0]["client"] == "127.0.0.1"
