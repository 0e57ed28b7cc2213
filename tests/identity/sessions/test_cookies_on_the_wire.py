"""The gate's cookies as bytes: what is set, what is believed, and what an upstream sees."""

import asyncio
import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from gatekit import (
    ALICE,
    OK,
    SECRET,
    START,
    SUB,
    Clock,
    RawClient,
    RawUpstream,
    Received,
    Response,
    RunningGate,
    ask,
    cookie_value,
    login_cookie,
    read_body,
    request_bytes,
)
from storykit import story, until_callback

from tailchat_gate.demo.oauth import SigningKey

Start = Callable[..., Any]

SESSION = "tailchat_gate"
LOGIN = "tailchat_gate_login"
KEY = SigningKey()
NEW_SECRET = "n8Wn1XvK3mTn7PbY5wLd2HcJ9sGf4RtE6uAo0iQn"
HTTPS = {"public_url": "https://gate.test"}


def _cookies(response: Response) -> dict[str, dict[str, str]]:
    """Return the attributes of every cookie an answer sets, by its name; flags are ""."""
    found: dict[str, dict[str, str]] = {}
    for line in response.values("Set-Cookie"):
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        assert name not in found, name
        found[name] = {"value": value}
        for attribute in attributes:
            key, _, text = attribute.partition("=")
            found[name][key.lower()] = text
    return found


def _get(target: str, **fields: str) -> bytes:
    return request_bytes(target, Connection="close", **fields)


async def _tailchat(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer as Tailchat's back channel does; the code is the nonce of the login."""
    request.body = await read_body(request, reader)
    if request.line.startswith(b"GET /open/jwks "):
        said: dict[str, object] = dict(KEY.jwks)
    elif request.line.startswith(b"POST /open/token "):
        claims: dict[str, object] = {
            "iss": "http://iss.test",
            "aud": "tc_test",
            "sub": SUB,
            "nonce": parse_qs(request.body.decode())["code"][0],
            "iat": START,
            "exp": START + 3600,
        }
        said = {
            "access_token": "an-access-token",
            "id_token": KEY.sign(claims),
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "openid profile",
        }
    else:
        said = {"sub": SUB, "nickname": "Alice", "discriminator": "0042", "avatar": None}
    body = json.dumps(said).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body) + body)


async def _signed_in(gate: RunningGate) -> tuple[Response, Response]:
    """Go through a whole login; return the answers that set the login and session cookies."""
    start = await ask(gate.port, _get("/oauth2/start?rd=/x", Accept="text/html"))
    asked = parse_qs(urlsplit(start.value("Location")).query)
    code = asked["nonce"][0]
    target = f"/oauth2/callback?code={code}&state={asked['state'][0]}&iss=http%3A%2F%2Fiss.test"
    back = await ask(gate.port, _get(target, Cookie=login_cookie(start), Accept="text/html"))
    return start, back


@pytest.mark.parametrize(
    ("public_url", "prefix"), [("https://gate.test", "__Host-"), ("http://gate.test", "")]
)
async def test_the_attributes_of_every_cookie_that_is_set(
    start_gate: Start, upstream: RawUpstream, public_url: str, prefix: str
) -> None:
    """HttpOnly, SameSite=Lax, Path=/ and no Domain always; `__Host-` and Secure on https."""
    upstream.answer = _tailchat
    gate = await start_gate(
        upstream.url,
        server={"public_url": public_url},
        session={"idle": "10m"},
        tailchat={"api_url": upstream.url, "issuer": "http://iss.test"},
    )
    session = prefix + SESSION
    start, back = await _signed_in(gate)
    login = login_cookie(start).partition("=")[0]
    assert login.startswith(prefix + LOGIN + "_")
    assert back.status == 303
    assert back.value("Location") == "/x"
    cookie = f"{session}={cookie_value(back, session)}"
    page = await ask(gate.port, _get("/oauth2/sign_out", Cookie=cookie, Accept="text/html"))
    gate.clock.now += 200
    upstream.answer = OK
    renewed = await ask(gate.port, _get("/x", Cookie=cookie))
    out = await ask(
        gate.port,
        request_bytes(
            "/oauth2/sign_out", method="POST", Cookie=cookie, Sec_Fetch_Site="same-origin"
        ),
    )

    assert start.status == 302
    assert page.status == renewed.status == 200
    assert out.status == 303
    cases = ((start, login), (back, session), (out, session), (renewed, session))
    for response, name in cases:
        set_cookies = _cookies(response)
        assert session in set_cookies if name == session else set_cookies.keys() == {name}
        for flags in set_cookies.values():
            assert "httponly" in flags
            assert flags["samesite"] == "Lax"
            assert flags["path"] == "/"
            assert ("secure" in flags) is bool(prefix)
            assert flags.keys() <= {
                *("value", "httponly", "samesite", "path", "secure", "max-age", "expires")
            }
        assert all(found.startswith(prefix) for found in set_cookies)
    deleted = _cookies(out)[session]
    assert deleted["value"].strip('"') == ""
    assert deleted["max-age"] == "0"
    assert _cookies(page) == {}
    assert int(_cookies(back)[session]["max-age"]) == 600


@pytest.mark.parametrize("public_url", ["https://gate.test", "http://gate.test"])
async def test_no_answer_without_need_sets_a_cookie(
    start_gate: Start, upstream: RawUpstream, public_url: str
) -> None:
    """Refusals, redirects to the login, pages and relayed answers leave no cookie behind."""
    gate = await start_gate(upstream.url, server={"public_url": public_url})
    asked = [
        _get("/x"),
        _get("/x", Accept="text/html"),
        _get("/x", Cookie=gate.cookie()),
        _get("/x", Cookie=f"{SESSION}=junk; __Host-{SESSION}=junk", Accept="text/html"),
        _get("/oauth2/sign_in", Accept="text/html"),
        _get("/oauth2/sign_out", Accept="text/html"),
        _get("/oauth2/callback?code=x&state=y&iss=z", Accept="text/html"),
        _get("/oauth2/start?rd=/x", Sec_Fetch_Mode="cors"),
        _get("/oauth2/auth"),
        _get("/oauth2/userinfo"),
        _get("/ping"),
    ]
    for data in asked:
        assert (await ask(gate.port, data)).values("Set-Cookie") == [], data


def _tossed(good: str) -> dict[str, bytes]:
    name, _, value = good.partition("=")
    lines = {
        "junk first": f"Cookie: {name}=junk; {good}",
        "junk last": f"Cookie: {good}; {name}=junk",
        "junk around": f"Cookie: {name}=; {good}; {name}=junk; {name}",
        "two lines, junk first": f"Cookie: {name}=junk\r\nCookie: {good}",
        "two lines, junk last": f"Cookie: {good}\r\ncookie: {name}=junk",
        "four lines": f"Cookie: a=1\r\nCOOKIE: {name}=x\r\nCookie: {good}\r\nCookie: b=2",
        "odd case of the name": f"Cookie: {name.upper()}={value[::-1]}; {good}",
        "odd case of the prefix": f"Cookie: __HOST-{SESSION}=junk; {good}",
        "three of the name": f"Cookie: {name}=a; {name}=b; {name}=c; {good}",
        "no space": f"Cookie: {name}=junk;{good};x=y",
        "tabs": f"Cookie: {name}=junk;\t{good}\t;\tx=y",
        "name without value": f"Cookie: {name}; {good}",
        "a prefix of the name": f"Cookie: {name}_=junk; x{name}=junk; {good}",
        "bytes": f"Cookie: {name}=\xff\xfe; {good}",
    }
    return {title: line.encode("latin-1") + b"\r\n" for title, line in lines.items()}


@pytest.mark.parametrize("title", _tossed("a=b"))
@pytest.mark.parametrize("server", [{}, HTTPS], ids=["http", "https"])
async def test_a_planted_cookie_costs_the_visitor_nothing(
    start_gate: Start, upstream: RawUpstream, server: dict[str, str], title: str
) -> None:
    """Beside junk of the same name the good cookie counts, and no junk goes upstream."""
    gate = await start_gate(upstream.url, server=server)
    good = gate.cookie()
    field = _tossed(good)[title]

    response = await ask(gate.port, b"GET /x HTTP/1.1\r\nHost: gate.test\r\n" + field + b"\r\n")

    assert response.status == 200
    received = upstream.requests[0]
    assert received.value("X-Tailchat-Sub") == SUB.encode()
    name = good.partition("=")[0]
    for sent in received.values("Cookie"):
        names = [pair.partition(b"=")[0].strip() for pair in sent.split(b";")]
        assert name.encode() not in names
        assert good.partition("=")[2].encode() not in sent


async def test_no_number_of_planted_cookies_is_an_error(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A crowd of junk gives the sign-in or the visitor, never an error page."""
    gate = await start_gate(upstream.url)
    for count in (5, 50, 500):
        junk = "; ".join(f"{SESSION}=junk{n}" for n in range(count))
        for value in (f"{junk}; {gate.cookie()}", f"{gate.cookie()}; {junk}"):
            response = await ask(gate.port, _get("/x", Cookie=value, Accept="text/html"))
            assert response.status in {200, 302}, (count, response.status)


@pytest.mark.parametrize("server", [{}, HTTPS], ids=["http", "https"])
async def test_a_cookie_of_another_name_is_no_session(
    start_gate: Start, upstream: RawUpstream, server: dict[str, str]
) -> None:
    """Names are compared exactly; on https a name that a sibling could set is not read."""
    gate = await start_gate(upstream.url, server=server)
    name, _, value = gate.cookie().partition("=")
    other = SESSION if server else f"__Host-{SESSION}"
    for wrong in (name.upper(), name.title(), name.swapcase(), other, f"{name} x", f"_{name}"):
        response = await ask(gate.port, _get("/x", Cookie=f"{wrong}={value}"))
        assert (wrong, response.status) == (wrong, 401)

    assert upstream.requests == []


async def test_the_cookies_are_opaque(start_gate: Start, upstream: RawUpstream) -> None:
    """Neither cookie, nor the state in the address, shows a claim, a token or a secret."""
    upstream.answer = _tailchat
    gate = await start_gate(
        upstream.url, tailchat={"api_url": upstream.url, "issuer": "http://iss.test"}
    )
    start, back = await _signed_in(gate)
    state = parse_qs(urlsplit(start.value("Location")).query)["state"][0]
    texts = [cookie_value(back, SESSION), login_cookie(start).partition("=")[2], state]

    assert all(len(text) > 40 for text in texts)
    hidden = [SUB, "Alice", "0042", "an-access-token", "a-code", "sub", "nickname", "/x", SECRET]
    for text in texts:
        for reading in _base64_readings(text):
            for claim in hidden:
                if len(claim) > 3:
                    assert claim.encode() not in reading


def _base64_readings(text: str) -> list[bytes]:
    """Return a text as it stands, and what base64 makes of it from each of four offsets."""
    readings = [text.encode()]
    for offset in range(4):
        part = text[offset:].replace("-", "+").replace("_", "/")
        part = re.sub(r"[^A-Za-z0-9+/]", "", part)
        readings.append(base64.b64decode(part[: len(part) // 4 * 4]))
    return readings


async def test_two_sessions_of_one_person_share_nothing(gate: RunningGate) -> None:
    """The same record sealed twice gives two cookies without a common middle."""
    first, second = (gate.cookie().partition("=")[2] for _ in range(2))

    assert first != second
    assert not any(first[n : n + 12] in second for n in range(10, len(first) - 12))


def _tampered(value: str) -> list[bytes]:
    flipped = [
        value[:n] + ("A" if value[n] != "A" else "B") + value[n + 1 :]
        for n in range(0, len(value), 7)
    ]
    half = len(value) // 2
    texts = [
        *flipped,
        *(value[:n] for n in (0, 1, 5, 6, 23, 24, half, len(value) - 1)),
        *(value[n:] for n in (1, 6, half)),
        value + value,
        value[half:] + value[:half],
        value[::-1],
        value.swapcase(),
        value + "=",
        value + "==",
        value + "A",
        value.replace("-", "+").replace("_", "/") + "=",
        f'"{value}"',
        f"{value}%00",
        f"{value} {value}",
        f"{value},{SESSION}={value}",
        "." * 100,
        "AAAA" * 50,
        "null",
        "{}",
        "%7B%22sub%22%3A1%7D",
        "0",
        "-1",
    ]
    return [text.encode() for text in texts] + [
        value.encode() + b"\xff",
        "é".encode() + value.encode(),
        b"\xed\xa0\x80",
        value.encode() + b"\t" + value.encode(),
    ]


async def test_tampering_is_a_plain_sign_in(gate: RunningGate, upstream: RawUpstream) -> None:
    """A changed cookie sends a page to the sign-in and a call to 401; it is never an error."""
    value = gate.cookie().partition("=")[2]
    line = b"GET /x HTTP/1.1\r\nHost: gate.test\r\nCookie: " + SESSION.encode() + b"="
    for tampered in _tampered(value):
        if tampered == value.encode():
            continue
        page = await ask(gate.port, line + tampered + b"\r\nAccept: text/html\r\n\r\n")
        call = await ask(gate.port, line + tampered + b"\r\n\r\n")
        assert (tampered, page.status, call.status) == (tampered, 302, 401)
        assert page.value("Location").startswith("http://gate.test/oauth2/start?")

    assert upstream.requests == []
    assert {entry["reason"] for entry in await gate.log()} == {"not-signed-in"}


async def test_a_nul_in_a_cookie_is_refused(gate: RunningGate, upstream: RawUpstream) -> None:
    """NUL is in no field value (RFC 9110 section 5.5)."""
    line = b"GET /x HTTP/1.1\r\nHost: gate.test\r\nCookie: "

    response = await ask(gate.port, line + gate.cookie().encode() + b"\x00\r\n\r\n")

    assert response.status == 400
    assert upstream.requests == []


CHUNKY = (
    "{0}_chunks=99999999; {0}_0={1}",
    "{0}_chunks=-1; {0}_1={1}",
    "{0}=chunks:99999999; {0}_0={1}",
    "{0}=chunks-99999999",
    "{0}C99999999={1}; {0}={1}C99999999",
    "{0}.0={1}; {0}.1={1}; {0}.99999999={1}",
    "{0}0={1}; {0}1={1}",
    "{0}_0={1}; {0}_1={1}",
    "{0}=99999999.{1}",
)


@pytest.mark.parametrize("pattern", CHUNKY)
async def test_a_count_of_chunks_is_nothing_to_the_gate(
    gate: RunningGate, upstream: RawUpstream, pattern: str
) -> None:
    """A session is in one cookie: counts and parts of others are no session and cost no work."""
    half = gate.cookie().partition("=")[2][:80]

    response = await ask(gate.port, _get("/x", Cookie=pattern.format(SESSION, half)))

    assert response.status == 401
    assert upstream.requests == []


@pytest.mark.parametrize("size", [3_000, 3_073, 8_000, 16_000])
async def test_a_huge_cookie_is_no_session(
    gate: RunningGate, upstream: RawUpstream, size: int
) -> None:
    """Junk of any size that the parser takes is a plain 401, alone and beside the good cookie."""
    junk = f"{SESSION}={'A' * size}"

    alone = await ask(gate.port, _get("/x", Cookie=junk))
    beside = await ask(
        gate.port,
        b"GET /x HTTP/1.1\r\nHost: gate.test\r\nCookie: "
        + junk.encode()
        + b"\r\nCookie: "
        + gate.cookie().encode()
        + b"\r\n\r\n",
    )

    assert (alone.status, beside.status) == (401, 200)
    assert upstream.requests[0].value("Cookie") is None


async def test_an_endless_cookie_is_refused(gate: RunningGate, upstream: RawUpstream) -> None:
    """A cookie over the limit of a field is a 431, and the connection is closed."""
    async with RawClient.connect(gate.port) as client:
        client.send(_get("/x", Cookie=f"{SESSION}={'A' * 20_000}"))
        assert (await client.response()).status == 431
        assert await client.reader.read() == b""

    assert upstream.requests == []


async def test_a_session_ends_on_the_second(
    gate: RunningGate, upstream: RawUpstream, clock: Clock
) -> None:
    """The absolute lifetime holds although the cookie was opened before and is still sent."""
    cookie = gate.cookie()
    for passed, status in ((0, 200), (43_199, 200), (43_200, 401), (86_400, 401), (0, 200)):
        clock.now = 1_800_000_000.0 + passed
        response = await ask(gate.port, _get("/x", Cookie=cookie))
        assert (passed, response.status) == (passed, status)

    assert len(upstream.requests) == 3


STREAM = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: own=1; Path=/\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        STREAM,
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["length", "chunked", "304", "204", "404"],
)
async def test_an_idle_session_is_renewed_on_the_relayed_answer(
    start_gate: Start, upstream: RawUpstream, clock: Clock, answer: bytes
) -> None:
    """The renewed cookie is on the answer's head; the one before it stays valid to its end."""
    upstream.answer = answer
    gate = await start_gate(upstream.url, session={"idle": "10m"})
    status = int(answer.split(b" ")[1])
    old = gate.cookie()
    early = await ask(gate.port, _get("/x", Cookie=old))
    assert [line for line in early.values("Set-Cookie") if not line.startswith("own=")] == []

    clock.now += 300
    response = await ask(gate.port, _get("/x", Cookie=old))

    assert response.status == status
    assert response.body == (b"hello" if answer is STREAM else response.body)
    new = cookie_value(response, SESSION)
    assert new
    assert f"{SESSION}={new}" != old
    assert ("own" in _cookies(response)) is (answer is STREAM)
    assert response.values("Cache-Control")[-1] == "private"
    clock.now += 299
    for cookie in (old, f"{SESSION}={new}"):
        assert (await ask(gate.port, _get("/x", Cookie=cookie))).status == status
    clock.now += 2
    assert (await ask(gate.port, _get("/x", Cookie=old))).status == 401
    assert (await ask(gate.port, _get("/x", Cookie=f"{SESSION}={new}"))).status == status


async def test_a_renewed_session_still_ends_with_its_lifetime(
    start_gate: Start, upstream: RawUpstream, clock: Clock
) -> None:
    """Renewals move the idle end alone: twelve hours after the sign-in the session is over."""
    gate = await start_gate(upstream.url, session={"idle": "1h"})
    cookie = gate.cookie()
    for _ in range(23):
        clock.now += 1_800
        response = await ask(gate.port, _get("/x", Cookie=cookie))
        assert response.status == 200
        cookie = f"{SESSION}={cookie_value(response, SESSION)}"
    assert int(_cookies(response)[SESSION]["max-age"]) == 1_800
    clock.now += 1_800

    assert (await ask(gate.port, _get("/x", Cookie=cookie))).status == 401


async def test_a_renewal_is_on_the_answer_to_an_upgrade(
    start_gate: Start, upstream: RawUpstream, clock: Clock
) -> None:
    """A 101 carries the renewed cookie, since a page on a WebSocket sends no further request."""
    upstream.answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    gate = await start_gate(upstream.url, session={"idle": "10m"})
    cookie = gate.cookie()
    clock.now += 300
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/ws", Cookie=cookie, Connection="Upgrade", Upgrade="websocket"))
        head = await client.head()

    assert head.startswith(b"HTTP/1.1 101 ")
    assert head.count(b"Set-Cookie: " + SESSION.encode() + b"=") == 1


async def test_the_keys_rotate_from_one_gate_to_the_next(
    start_gate: Start, upstream: RawUpstream, clock: Clock
) -> None:
    """A gate with [new, old] opens both and seals with new; one with new alone is the end."""
    idle = {"idle": "10m"}
    before = await start_gate(upstream.url, session=idle)
    between = await start_gate(upstream.url, session={**idle, "secrets": [NEW_SECRET, SECRET]})
    after = await start_gate(upstream.url, session={**idle, "secrets": [NEW_SECRET]})
    old = before.cookie()

    clock.now += 300
    response = await ask(between.port, _get("/x", Cookie=old))
    new = f"{SESSION}={cookie_value(response, SESSION)}"

    async def statuses(cookie: str) -> list[int]:
        gates = (before, between, after)
        return [(await ask(gate.port, _get("/x", Cookie=cookie))).status for gate in gates]

    assert response.status == 200
    assert await statuses(old) == [200, 200, 401]
    assert await statuses(new) == [401, 200, 200]


AROUND = [
    ("a=1; {0}; b=2; c=3", "a=1; b=2; c=3"),
    ("{0}; a=1; b=2; c=3", "a=1; b=2; c=3"),
    ("a=1; b=2; c=3; {0}", "a=1; b=2; c=3"),
    ("a=1;{0};b=2;c=3", "a=1;b=2;c=3"),
    ('a="q u,o"; {0}; b=%20%; c===x=', 'a="q u,o"; b=%20%; c===x='),
    ("a=1;  {0};   b=2; c=\xe9\xff", "a=1;   b=2; c=\xe9\xff"),
    ("a=1; {0}; a=1; a=2", "a=1; a=1; a=2"),
    ("a=; {0}; b; =c", "a=; b; =c"),
    ("A=1; {0}; tailchat_gates=2; xtailchat_gate=3", "A=1; tailchat_gates=2; xtailchat_gate=3"),
    (
        "a=1; {0}; tailchat_gate_login_Ab-_01=x; _session=y; _session.sig=z; b=2; c=3",
        "a=1; b=2; c=3",
    ),
    (
        "a=1; _interaction_resume=v; b=2; _session.legacy=w; _session.legacy.sig=x; {0}; c=3",
        "a=1; b=2; c=3",
    ),
]


@pytest.mark.parametrize(("sent", "arrives"), AROUND)
async def test_the_other_cookies_arrive_byte_for_byte(
    gate: RunningGate, upstream: RawUpstream, sent: str, arrives: str
) -> None:
    """The gate's and Tailchat's cookies are taken out; what is around them keeps its bytes."""
    field = sent.format(gate.cookie()).encode("latin-1")

    await ask(gate.port, b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: " + field + b"\r\n\r\n")

    assert upstream.requests[0].values("Cookie") == [arrives.encode("latin-1")]


@pytest.mark.parametrize("path", ["/x", "/open"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("extra", ["", "Connection: Upgrade\r\nUpgrade: websocket\r\n"])
async def test_no_tool_ever_sees_the_session_cookie(
    start_gate: Start, upstream: RawUpstream, path: str, version: str, extra: str
) -> None:
    """On public routes, upgrades, HTTP/1.0 and several lines too, good or expired or junk."""
    gate = await start_gate(
        upstream.url,
        route=[{"name": "tool"}, {"name": "open", "path": "/open", "allow": ["public"]}],
    )
    good, expired = gate.cookie(), gate.cookie(signed_in_at=1.0)
    head = f"GET {path} HTTP/{version}\r\nHost: gate.test\r\nCookie: a=1; {expired}\r\n"
    head += f"cookie: {good}\r\nCOOKIE: b=2; {SESSION}=junk;{good}; {LOGIN}_abcdef=login\r\n"

    response = await ask(gate.port, (head + extra + "\r\n").encode())

    assert response.status == 200
    received = upstream.requests[0]
    assert received.values("Cookie") == [b"a=1", b"b=2"]
    assert SESSION.encode() not in received.head
    assert received.value("X-Tailchat-Nickname") == ALICE.nickname.encode()


async def test_two_gates_on_one_host_name(tmp_path: Path) -> None:
    """With a cookie name each both stay signed in in one browser, and no tool sees either."""
    session = {"cookie_name": "tailchat_gate_two", "idle": "30m"}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    async with (
        story(tmp_path / "one" / "log", Clock()) as one,
        story(tmp_path / "two" / "log", Clock(), session=session) as two,
        one.visitor() as visitor,
    ):
        for scene in (one, two):
            page = await visitor.open(await until_callback(visitor, scene))
            assert page.status == 200
        for scene in (one, two, one):
            page = await visitor.open(scene.url + "/")
            assert (page.status, page.trail) == (200, [f"{scene.url}/"])
            assert scene.tool.requests[-1].values("Cookie") == []
            assert scene.tool.requests[-1].value("X-Tailchat-Sub")


async def test_a_rails_tool_keeps_its_session_cookie(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """`_session_id` is a tool's, and so is `_session` on a host that is not Tailchat's."""
    sent = "_session_id=1; _session=2; _interaction=3"

    await ask(gate.port, request_bytes(Cookie=f"{gate.cookie()}; {sent}"))
    await ask(gate.port, request_bytes(host="127.0.0.1", Cookie=f"{gate.cookie()}; {sent}"))

    assert [one.value("Cookie") for one in upstream.requests] == [sent.encode(), b"_session_id=1"]


@pytest.mark.parametrize(
    "cookie",
    ["tailchat_gate; Path=/", "=tailchat_gate=x", " = tailchat_gate=x", "tailchat_gate\t=x"],
)
async def test_a_tool_sets_no_cookie_that_poses_as_the_gates(
    gate: RunningGate, upstream: RawUpstream, cookie: str
) -> None:
    """Without a name, or with white space around one, a cookie may come back as the gate's."""
    fields = f"Set-Cookie: {cookie}\r\nSet-Cookie: a=b; Path=/\r\n\r\n".encode()
    upstream.answer = OK.replace(b"\r\n\r\n", b"\r\n" + fields)

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))

    assert response.values("Set-Cookie") == ["a=b; Path=/"]
