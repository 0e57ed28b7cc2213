"""Without a session nothing reaches a tool that is not public, whatever is asked and however."""

# ruff: noqa: RUF005 - a table of many short entries reads best as rows added up

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from choices import Choices, chosen, pool
from gatekit import RawClient, RawUpstream, Response, RunningGate, ask
from hypothesis import HealthCheck, example, given, settings

from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.seal import KeyRing

Start = Callable[..., Any]

BOB = Profile("660000000000000000000002", "Bob", "0007", "")
OPS = "660000000000000000000003"
OTHER_SECRET = "Zz8Zr1XvK3mTn7PbY5wLd2HcJ9sGf4RtE6uAo0iQ"
#: The gate's own pages that answer 200 to a stranger.
OWN_PAGES = frozenset(("/ping", "/oauth2/sign_in", "/oauth2/sign_out"))


@dataclass(frozen=True, slots=True)
class Town:
    """One gate before three tools: one for all, one for the signed-in, one for a group."""

    gate: RunningGate
    public: RawUpstream
    tool: RawUpstream
    ops: RawUpstream
    #: Cookie fields by their names in the tables.
    cookies: dict[str, bytes]

    def forget(self) -> None:
        """Forget what the tools received."""
        for tool in (self.public, self.tool, self.ops):
            tool.requests.clear()


@pytest.fixture
async def town(start_gate: Start) -> AsyncIterator[Town]:
    """Return the gate and its three tools."""
    async with AsyncExitStack() as stack:
        public, tool, ops = [await stack.enter_async_context(RawUpstream()) for _ in range(3)]
        gate = await start_gate(
            tool.url,
            groups={"ops": [OPS]},
            route=[
                {"name": "public", "path": "/public", "upstream": public.url, "allow": ["public"]},
                {"name": "tool", "path": "/"},
                {"name": "ops", "path": "/ops", "upstream": ops.url, "allow": ["group:ops"]},
                # On a host of its own, with a folder that one of its neighbours may not have.
                {"name": "site", "host": "site.test", "upstream": public.url, "allow": ["public"]},
                {"name": "vault", "host": "site.test", "path": "/vault", "allow": ["signed-in"]},
            ],
        )
        assert isinstance(gate, RunningGate)
        yield Town(gate, public, tool, ops, _cookies(gate))


def _cookies(gate: RunningGate) -> dict[str, bytes]:
    good = gate.cookie().partition("=")[2]
    body = b'{"sub":"660000000000000000000003"}'
    foreign = KeyRing([OTHER_SECRET.encode()], "session").seal(body)
    secret = gate.generation.settings.session.secrets[0].get_secret_value().encode()
    state = KeyRing([secret], "state").seal(body)
    unfit = KeyRing([secret], "session").seal(body)
    found = {
        "none": "",
        "empty": "tailchat_gate=",
        "junk": "tailchat_gate=junk",
        "expired": gate.cookie(signed_in_at=gate.clock() - 43_200),
        "from the future": gate.cookie(signed_in_at=gate.clock() + 3_600),
        "cut": f"tailchat_gate={good[:-1]}",
        "longer": f"tailchat_gate={good}A",
        "doubled": f"tailchat_gate={good}{good}",
        "other key": f"tailchat_gate={foreign}",
        "other purpose": f"tailchat_gate={state}",
        "other shape": f"tailchat_gate={unfit}",
        "flipped": f"tailchat_gate={good[:40]}{'A' if good[40] != 'A' else 'B'}{good[41:]}",
        "other name": f"Tailchat_Gate={good}; tailchat_gate_login={good}; "
        f"__Host-tailchat_gate={good}",
        "quoted": f'tailchat_gate="{good}"',
        "in a value": f"a=tailchat_gate={good}",
        "many": "; ".join(["tailchat_gate=junk"] * 50),
        "plain claims": f'tailchat_gate={{"sub":"{OPS}"}}; X-Tailchat-Sub={OPS}; sub={OPS}',
    }
    return {name: f"Cookie: {value}\r\n".encode() for name, value in found.items() if value} | {
        "none": b""
    }


def _readings(path: str) -> set[str]:
    """Return how servers may read a path: written for this test, apart from the gate's own."""
    found = {path}
    for _ in range(3):
        found |= {unquote(reading) for reading in found}
        found |= {reading.replace("\\", "/") for reading in found}
        found |= {re.sub(r";[^/]*", "", reading) for reading in found}
        found |= {re.split(r"[?#\x00]", reading, maxsplit=1)[0] for reading in found}
        found |= {re.sub(r"//+", "/", reading) for reading in found}
    return found | {_resolved(reading) for reading in found}


def _resolved(path: str) -> str:
    kept: list[str] = []
    for segment in PurePosixPath(path).parts[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment.lower())
    return "/" + "/".join(kept)


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


async def _answer(port: int, data: bytes) -> Response | None:
    """Return the first answer; None where the gate says nothing, as to half a request."""
    async with RawClient.connect(port) as client:
        client.send(data)
        try:
            async with asyncio.timeout(0.5):
                return await client.response(to_head=data.startswith(b"HEAD"))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return None


def _asked_path(target: bytes) -> str:
    text = target.decode("latin-1")
    text = re.sub(r"^https?://[^/?#]*", "", text, flags=re.IGNORECASE) or "/"
    return text.partition("?")[0]


def _is_open(host: bytes, path: str) -> bool:
    """Whether every reading of a path leads to a public route."""
    if host.lower().startswith(b"site.test"):
        return not any(_is_inside(reading.lower(), "/vault") for reading in _readings(path))
    return all(_is_inside(reading, "/public") for reading in _readings(path))


def _check_nobody(town: Town, target: bytes, response: Response | None, data: bytes) -> None:
    """Check what a request without a session came to."""
    assert town.tool.requests == [], data
    assert town.ops.requests == [], data
    for received in town.public.requests:
        assert received.values("X-Tailchat-Sub") == [], data
        path = received.line.split(b" ")[1].decode("ascii").partition("?")[0]
        assert _is_open(received.value("Host") or b"", path), data
    if response is None or town.public.requests:
        return
    if _asked_path(target) in OWN_PAGES:
        return
    if response.status == 204:
        # An OPTIONS whose last hop is the gate, which answers in the place of a public tool.
        assert data.startswith(b"OPTIONS "), data
        assert b"\r\nMax-Forwards: 0\r\n" in data, data
        host = re.search(rb"(?i)\A\S+ https?://([^/?# ]*)|\r\nHost: ([^\r]*)", data)
        assert host is not None, data
        assert _is_open(host[1] or host[2], _asked_path(target)), data
        return
    assert response.status in {302, 303, 400, 401, 403, 404, 405, 501, 505}, (data, response.status)
    if response.status in {302, 303}:
        assert response.value("Location").startswith(
            ("http://gate.test/oauth2/start?", "http://127.0.0.1:9/open/auth?", "http://site.test/")
        ), data


METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND"] * 3 + [
    b"PURGE",
    b"SOURCE",
    b"SUBSCRIBE",
    b"TRACE",
    b"CONNECT",
    b"get",
    b"FOO",
    b"PRI",
    b"QUERY",
]
#: What paths are made of: names of routes and own paths, and what servers read in several ways.
PIECES = (
    [b"/", b"//", b"/./", b"/../", b"/.../", b"/..", b"/.", b"..;/", b"/..;/", b";", b";x=y", b"?"]
    + [b"%2f", b"%2F", b"%5c", b"%2e", b"%2e%2e", b"%252e%252e%252f", b"%252f", b"%00"]
    + [b"%c0%ae%c0%ae", b"%c0%af", b"%ef%bc%8e", b"%ef%bc%8f", b"%u002e", b"%3b", b"%3f", b"%23"]
    + [b"public", b"PUBLIC", b"%70ublic", b"publicx", b"oauth2", b"OAuth2", b"ping", b"PING"]
    + [b"start", b"auth", b"userinfo", b"sign_in", b"callback", b"ops", b"OPS", b"%6fps", b"vault"]
    + [b"admin", b"x", b"%zz", b"@", b":80", b"%0d%0a", b"index.html", b"%c5%bf", b"%e2%84%aa"]
)
#: What no honest client sends raw: each of these makes a target a 400.
RAW_PIECES = [b"#", b" ", b"\t", b"\x00", b"\x0b", b"\x7f", b"\xff", b"\xc3\xa9", b"\\", b"*"]
FIRST = (
    [b"/", b"/x", b"/public", b"/PUBLIC", b"/Public", b"/publicx", b"/ops", b"/OPS", b"/vault"]
    + [b"/oauth2", b"/OAUTH2", b"/oauth2x", b"/ping", b"/PING", b"http://gate.test", b"//", b"/."]
    + [b"HTTP://GATE.TEST", b"http://site.test", b"http://evil.test", b"gate.test", b"*", b""]
)
OCTETS = pool(range(256))


def path(choose: Choices) -> bytes:
    """Return a path of a few pieces."""
    return choose.of(FIRST) + b"".join(choose.several(PIECES, 5))


def target(choose: Choices) -> bytes:
    """Return a target: most often a path, one with raw octets, or any octets."""
    match choose.below(5):
        case 0:
            return path(choose) + choose.of(RAW_PIECES)
        case 1:
            return b"/" + choose.stretch(OCTETS, 24, 1).replace(b"\r\n\r\n", b"")
        case _:
            return path(choose)


VERSIONS = [b"HTTP/1.1"] * 9 + [b"HTTP/1.0", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9"]
HOSTS = (
    [b"Host: gate.test\r\n"] * 12
    + [b"Host: site.test\r\n", b"Host: SITE.test.\r\n", b"Host: 127.0.0.1\r\n", b""]
    + [b"Host: gate.test\r\nHost: site.test\r\n", b"Host: \r\n", b"Host: localhost:80\r\n"]
)
SUB_CLAIM = OPS.encode()
FIELDS = [
    b"Accept: text/html",
    b"Sec-Fetch-Mode: navigate",
    b"Sec-Fetch-Site: same-origin",
    b"Sec-Fetch-Mode: cors",
    b"X-Requested-With: XMLHttpRequest",
    b"Authorization: Bearer " + SUB_CLAIM,
    b"Authorization: Basic YWRtaW46YWRtaW4=",
    b"X-Tailchat-Sub: " + SUB_CLAIM,
    b"X_Tailchat_Sub: " + SUB_CLAIM,
    b"X-Tailchat-Groups: ops",
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-Host: site.test",
    b"X-Forwarded-Uri: /public",
    b"X-Forwarded-User: " + SUB_CLAIM,
    b"X-Original-URL: /public",
    b"X-Rewrite-URL: /ping",
    b"X-HTTP-Method-Override: OPTIONS",
    b"Access-Control-Request-Method: GET",
    b"Origin: http://gate.test",
    b"Connection: Upgrade\r\nUpgrade: websocket",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    b"Upgrade: websocket",
    b"Connection: close",
    b"Connection: Host, Cookie, X-Tailchat-Sub",
    b"Expect: 100-continue",
    b"Expect: nonsense",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: 5, 5",
    b"Content-Length: -1",
    b"Content-Length: 18446744073709551615",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer_Encoding: chunked",
    b"TE: trailers",
    b"User-Agent: kube-probe/1.29",
    b"Range: bytes=0-0",
    b"If-None-Match: *",
    b"Max-Forwards: 0",
    b"X-Folded: a\r\n b",
    b"X-Nul: a\x00b",
    b"bad name: x",
]
BODIES = (
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0\r\nX-Tailchat-Sub: x\r\n\r\n",
    b"0\r\n\r\nGET /x HTTP/1.1\r\nHost: gate.test\r\n\r\n",
    b"GET /ops HTTP/1.1\r\nHost: gate.test\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x81\x05hello",
)


class Asked(NamedTuple):
    """A request; its cookie is one of the bad ones."""

    method: bytes
    target: bytes
    fields: list[bytes]
    version: bytes = b"HTTP/1.1"
    host: bytes = b"Host: gate.test\r\n"
    cookie: int = 0
    body: bytes = b""


def asked(choose: Choices) -> Asked:
    """Return any request without a session."""
    return Asked(
        method=choose.of(METHODS),
        target=target(choose),
        fields=list(dict.fromkeys(choose.several(FIELDS, 3))),
        version=choose.of(VERSIONS),
        host=choose.of(HOSTS),
        cookie=choose.below(17),
        body=choose.of(BODIES),
    )


def asked_by_a_person(choose: Choices) -> Asked:
    """Return any request that somebody's session may come with."""
    return Asked(choose.of(METHODS), target(choose), choose.several(FIELDS, 4))


@settings(
    max_examples=600,
    deadline=None,
    database=None,
    # One gate serves all examples: each example forgets what the tools received before it.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(request=chosen(asked))
@example(request=Asked(b"OPTIONS", b"/", [b"Max-Forwards: 0"], host=b"Host: site.test\r\n"))
async def test_no_request_without_a_session_reaches_a_tool(town: Town, request: Asked) -> None:
    """Any method, target, version, fields and bad cookie: only what is public is reached."""
    town.forget()
    cookies = sorted(town.cookies)
    head = request.method + b" " + request.target + b" " + request.version + b"\r\n" + request.host
    head += town.cookies[cookies[request.cookie % len(cookies)]]
    data = head + b"".join(field + b"\r\n" for field in request.fields) + b"\r\n" + request.body

    response = await _answer(town.gate.port, data)

    _check_nobody(town, request.target, response, data)


OWN_LOOKALIKES = (
    [b"/oauth2/../x", b"/ping/../x", b"/oauth2/./../ops", b"/oauth2%2f..%2fadmin", b"//oauth2"]
    + [b"/oauth2;x", b"/oauth2;/auth", b"/PING", b"/Ping", b"/OAUTH2/auth", b"/ping/", b"/ping/x"]
    + [b"/ping%00", b"/ping;x", b"/ping%2f..%2fx", b"/ping?/../x", b"/%70ing", b"/%6fauth2/auth"]
    + [b"/oauth2/sign_in/../../x", b"/oauth2/callback/..;/..;/x", b"/oauth2/auth/", b"/oauth2x"]
    + [b"/oauth2\\..\\x", b"/oauth2/..%5cx", b"/oauth2/%2e%2e/x", b"/oauth2/%252e%252e/x"]
    + [b"/x/..//oauth2/sign_in", b"/.//oauth2/../x", b"//ping", b"/./ping", b"/ping/..;/x"]
    + [b"http://gate.test/oauth2/../x", b"http://gate.test//oauth2", b"http://gate.test/PING"]
    + [b"http://gate.test", b"http://gate.test?/ping", b"http://gate.test/x?/ping", b"/?/ping"]
    + [b"http://gate.test@evil.test/ping", b"https://gate.test/x", b"http://gate.test:80/x"]
)
PUBLIC_LOOKALIKES = (
    [
        b"/publicx",
        b"/public%78",
        b"/PUBLIC",
        b"/Public/a",
        b"/%70ublic",
        b"/publi%63/x",
        b"//public",
    ]
    + [b"/public/../x", b"/public/..", b"/public/../", b"/public/..;/x", b"/public;/../x"]
    + [b"/public/%2e%2e/x", b"/public/%2e./x", b"/public/.%2e/x", b"/public%2f..%2fx"]
    + [
        b"/public/..%2fx",
        b"/public/..%5cx",
        b"/public/..\\x",
        b"/public\\..\\x",
        b"/public%5c..%5cx",
    ]
    + [b"/public/%252e%252e/x", b"/public/%252e%252e%252fx", b"/public%252f..%252fx"]
    + [b"/public/%c0%ae%c0%ae/x", b"/public/..%c0%afx", b"/public/%e0%80%ae%e0%80%ae/x"]
    + [
        b"/public/%ef%bc%8e%ef%bc%8e/x",
        b"/public/..%ef%bc%8fx",
        b"/public/\xef\xbc\x8e\xef\xbc\x8e/x",
    ]
    + [b"/public/%00/../x", b"/public%00/../../x", b"/public/%09/../../x", b"/public/a/../../x"]
    + [b"/public//../x", b"/public//..//x", b"/public/.//../x"]
    + [b"/public/%2e%2e;/x", b"/public/..%3b/x", b"/public/;/../../x", b"/public/%3f/../../x"]
    + [b"/public/%23/../../x", b"/public#/../x", b"/public/#/../../x", b"/public/\x00/../../x"]
    + [b"/x/../public", b"/./public/../x", b"/x%2f..%2fpublic", b"/;/public/../x", b"/.;/public"]
    + [b"/public/%u002e%u002e/x", b"/public/%2%65%2%65/x", b"/public/..%2f..%2f..%2fops"]
)


@pytest.mark.parametrize("cookie", ["none", "expired", "flipped", "other purpose", "other name"])
async def test_lookalikes_of_open_paths_need_a_session(town: Town, cookie: str) -> None:
    """No other spelling of an own or public path is let through, by any version or method."""
    for target in (*OWN_LOOKALIKES, *PUBLIC_LOOKALIKES):
        for method, version in ((b"GET", b"1.1"), (b"POST", b"1.1"), (b"GET", b"1.0")):
            town.forget()
            line = method + b" " + target + b" HTTP/" + version + b"\r\nHost: gate.test\r\n"
            data = line + town.cookies[cookie] + b"Connection: close\r\n\r\n"

            response = await ask(town.gate.port, data)

            _check_nobody(town, target, response, data)
            assert town.public.requests == [], data


@pytest.mark.parametrize(
    ("target", "arrives"),
    [
        (b"/public", True),
        (b"/public/", True),
        (b"/public/a.b/c-d_e~f", True),
        (b"/public/a%20b?x=/../../x", True),
        (b"http://gate.test/public/a", True),
        (b"/public/.well-known/x", True),
        (b"/public/..x/...", True),
        (b"/x", False),
    ],
)
async def test_what_is_plainly_public_is_reached(town: Town, target: bytes, arrives: bool) -> None:
    """The tools do answer: what the other tests find closed is closed by its rule."""
    data = b"GET " + target + b" HTTP/1.1\r\nHost: gate.test\r\n\r\n"

    response = await ask(town.gate.port, data)

    assert (response.status == 200) is arrives
    assert (len(town.public.requests), len(town.tool.requests)) == (int(arrives), 0)


@pytest.mark.parametrize(
    "cookie",
    ["empty", "junk", "expired", "from the future", "cut", "longer", "doubled", "other key"]
    + [
        "other purpose",
        "other shape",
        "flipped",
        "other name",
        "in a value",
        "many",
        "plain claims",
    ],
)
@pytest.mark.parametrize(
    "fields",
    [b"", b"Accept: text/html\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"],
    ids=["call", "navigation", "upgrade"],
)
async def test_no_bad_cookie_is_a_session(town: Town, cookie: str, fields: bytes) -> None:
    """A forged, expired, cut or foreign cookie is no session, and no error either."""
    data = b"GET /x HTTP/1.1\r\nHost: gate.test\r\n" + town.cookies[cookie] + fields + b"\r\n"

    response = await ask(town.gate.port, data)

    assert response.status == (302 if b"html" in fields else 401)
    assert response.values("Set-Cookie") == []
    assert town.tool.requests == []


OPS_SPELLINGS = (
    [b"/ops", b"/ops/", b"/ops/x", b"/OPS", b"/Ops/x", b"/%6fps", b"/%6F%70%73/x", b"//ops"]
    + [
        b"/x/../ops",
        b"/x/%2e%2e/ops",
        b"/x%2f..%2fops",
        b"/./ops",
        b"/%2e/ops",
        b"/;/ops",
        b"/ops;x",
    ]
    + [b"/public/../ops", b"/public/..%2fops", b"/public%2f..%2fops", b"/public/..;/ops"]
    + [b"/x/..;/ops", b"/%252e/ops", b"/x/%252e%252e/ops", b"/%256fps", b"/x/..%5cops", b"/%5cops"]
    + [b"/%2fops", b"/op%c5%bf", b"/%ef%bd%8fps", b"/ops%3bx", b"/ops%3fx", b"/ops%23x"]
    + [b"http://gate.test/ops", b"http://gate.test//ops", b"http://gate.test/x/../ops", b"/ops?x"]
    + [
        b"/oauth2/../ops",
        b"/ping/../ops",
        b"/..%2fops",
        b"/%c0%afops",
        b"/x//../ops",
        b"/ops%20/../ops",
    ]
)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"PROPFIND"])
async def test_a_signed_in_stranger_to_a_group_is_denied(town: Town, method: bytes) -> None:
    """Who is signed in but not in the group reaches its tool by no spelling of its path."""
    bob = b"Cookie: " + town.gate.cookie(BOB).encode() + b"\r\n"
    for target in OPS_SPELLINGS:
        town.forget()
        data = method + b" " + target + b" HTTP/1.1\r\nHost: gate.test\r\n" + bob + b"\r\n"

        response = await ask(town.gate.port, data)

        assert response.status in {400, 403, 404, 405}, (target, response.status)
        assert town.ops.requests == town.tool.requests == town.public.requests == [], target


async def test_a_member_of_the_group_is_let_in(town: Town) -> None:
    """The group's own member reaches its tool, also by a spelling that needs the group."""
    member = town.gate.cookie(Profile(OPS, "Olga", "0001", "")).encode()
    for target in (b"/ops", b"/ops/x", b"/OPS", b"/x/../ops", b"/ops%2fx"):
        data = b"GET " + target + b" HTTP/1.1\r\nHost: gate.test\r\nCookie: " + member + b"\r\n\r\n"

        response = await ask(town.gate.port, data)

        assert (target, response.status) == (target, 200)


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(request=chosen(asked_by_a_person))
async def test_no_request_of_a_stranger_reaches_the_group(town: Town, request: Asked) -> None:
    """Any request of a person outside the group stays outside, by every reading of its path."""
    town.forget()
    head = request.method + b" " + request.target + b" HTTP/1.1\r\nHost: gate.test\r\n"
    head += b"Cookie: " + town.gate.cookie(BOB).encode() + b"\r\n"
    data = head + b"".join(field + b"\r\n" for field in request.fields) + b"\r\n"

    await _answer(town.gate.port, data)

    assert town.ops.requests == []
    for received in (*town.tool.requests, *town.public.requests):
        assert received.value("X-Tailchat-Sub") == BOB.sub.encode()
        path = received.line.split(b" ")[1].decode("ascii").partition("?")[0]
        for reading in _readings(path):
            assert not _is_inside(reading.lower(), "/ops"), (data, reading)
