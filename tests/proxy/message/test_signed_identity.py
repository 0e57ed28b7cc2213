"""The signed identity, end to end: every tool gets its own, and the keys to check it by."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from gatekit import (
    SUB,
    Clock,
    RawClient,
    RawUpstream,
    Received,
    Response,
    RunningGate,
    ask,
    request_bytes,
)
from tlskit import write_key
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.config.files import KeyFileError, read_key
from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.oauth.responses import Profile

Start = Callable[..., Any]

NAME = "X-Tailchat-Assertion"
TOKEN = make_token(bytes(32))
BOB = Profile("660000000000000000000002", "Bob", "0007", "")
ROUTES = [
    {"name": "wiki", "allow": ["signed-in", "token:ci"]},
    {"name": "docs", "path": "/docs", "audience": "https://docs.test"},
    {"name": "off", "path": "/off", "assertion": False},
    {"name": "open", "path": "/open", "allow": ["public"]},
]


@dataclass(frozen=True, slots=True)
class Seal:
    """A gate that signs, before one tool."""

    gate: RunningGate
    tool: RawUpstream
    clock: Clock
    key_file: str

    async def received(self, target: str = "/", **fields: str) -> Received:
        """Return what the tool gets of a request."""
        response = await ask(self.gate.port, request_bytes(target, **fields))
        assert response.status == 200
        return self.tool.requests.pop()

    async def claims(self, received: Received, audience: str) -> dict[str, Any]:
        """Return what an assertion says, checked by the gate's own key set."""
        response = await ask(self.gate.port, request_bytes("/oauth2/jwks.json"))
        (token,) = received.values(NAME)
        return checked(token.decode(), response.json, audience)


def checked(token: str, key_set: dict[str, Any], audience: str) -> dict[str, Any]:
    """Return the claims of a token, checked by a key set; its times are those of the tests."""
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(key_set).keys}
    return jwt.decode(
        token,
        keys[jwt.get_unverified_header(token)["kid"]],
        algorithms=["ES256"],
        audience=audience,
        issuer="http://gate.test",
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )


@pytest.fixture
async def seal(start_gate: Start, clock: Clock, tmp_path: Path) -> AsyncIterator[Seal]:
    """Return the gate and its tool."""
    key_file = write_key(tmp_path / "key.pem")
    async with RawUpstream() as tool:
        gate = await start_gate(
            tool.url,
            assertion={"key_files": [key_file]},
            groups={"ops": [SUB], "dev": ["somebody"]},
            token=[{"name": "ci", "hash": hash_of(TOKEN)}],
            route=ROUTES,
        )
        yield Seal(gate, tool, clock, key_file)


async def test_a_tool_gets_who_it_is_signed(seal: Seal) -> None:
    """What is signed is what the plain headers say, for this tool and nobody else."""
    cookie = seal.gate.cookie()
    received = await seal.received("/page", Cookie=cookie)
    claims = await seal.claims(received, "wiki")

    assert claims["sub"].encode() == received.value("X-Tailchat-Sub")
    assert claims["nickname"].encode() == received.value("X-Tailchat-Nickname")
    assert ",".join(claims["groups"]).encode() == received.value("X-Tailchat-Groups") == b"ops"
    assert (claims["iat"], claims["exp"]) == (int(seal.clock()), int(seal.clock()) + 300)
    docs = await seal.received("/docs", Cookie=cookie)
    assert (await seal.claims(docs, "https://docs.test"))["sid"] == claims["sid"]
    with pytest.raises(jwt.InvalidAudienceError):
        await seal.claims(docs, "wiki")
    with pytest.raises(jwt.InvalidAudienceError):
        await seal.claims(received, "https://docs.test")


async def test_it_is_the_same_until_it_is_nearly_over(seal: Seal) -> None:
    """All requests of a session to a tool carry the same bytes, and never one that is over."""
    cookie, seen = seal.gate.cookie(), []
    for _ in range(10):
        received = await seal.received("/", Cookie=cookie)
        claims = await seal.claims(received, "wiki")
        assert claims["exp"] - seal.clock() > 60
        seen.append(claims["jti"])
        seal.clock.now += 61

    assert len(set(seen)) == 3
    assert seen[0:4] == [seen[0]] * 4


async def test_a_clock_that_is_set_back_brings_a_new_one(seal: Seal) -> None:
    """No assertion is used that is of a second which is yet to come: who checks would refuse it."""
    cookie = seal.gate.cookie(signed_in_at=seal.clock() - 7200)
    seen = []
    for step in (0, -3600, 30):
        seal.clock.now += step
        received = await seal.received("/", Cookie=cookie)
        seen.append((await seal.claims(received, "wiki"))["iat"] - int(seal.clock()))

    assert seen == [0, 0, -30]


async def test_nobody_has_none(seal: Seal) -> None:
    """A stranger on a public route gets no assertion, his own neither."""
    forged = dict.fromkeys((NAME, NAME.lower(), NAME.replace("-", "_")), "forged")
    for fields in ({}, forged):
        data = request_bytes("/open") if not fields else _with(fields)
        assert (await ask(seal.gate.port, data)).status == 200
        received = seal.tool.requests.pop()
        assert b"assertion" not in received.head.lower()


def _with(fields: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET /open HTTP/1.1\r\nHost: gate.test\r\n{lines}\r\n".encode()


async def test_a_clients_own_is_replaced(seal: Seal) -> None:
    """What a visitor sends under the name, in any spelling, gives way to the gate's."""
    for name in ("X-Tailchat-Assertion", "x_tailchat_assertion", "X.Tailchat.Assertion"):
        data = (
            f"GET / HTTP/1.1\r\nHost: gate.test\r\nCookie: {seal.gate.cookie()}\r\n"
            f"{name}: forged\r\nConnection: {NAME}\r\n\r\n"
        )
        assert (await ask(seal.gate.port, data.encode())).status == 200
        received = seal.tool.requests.pop()
        assert b"forged" not in received.head
        assert (await seal.claims(received, "wiki"))["sub"] == SUB


async def test_off_for_a_route(seal: Seal) -> None:
    """Assertion = false keeps it from that tool."""
    received = await seal.received("/off", Cookie=seal.gate.cookie())

    assert received.values(NAME) == []
    assert received.value("X-Tailchat-Sub") == SUB.encode()


async def test_a_machine_is_signed_for(seal: Seal) -> None:
    """A tool can check which machine it is, too."""
    received = await seal.received("/", Authorization=f"Bearer {TOKEN}")
    claims = await seal.claims(received, "wiki")

    assert (claims["sub"], claims["token"], claims["groups"]) == ("token:ci", "ci", [])
    assert received.value("X-Tailchat-Token") == b"ci"


async def test_a_websocket_opens_with_it(seal: Seal) -> None:
    """The request that switches carries it as any other does."""
    seal.tool.answer = SWITCH
    for who in ({"Cookie": seal.gate.cookie()}, {"Authorization": f"Bearer {TOKEN}"}):
        async with RawClient.connect(seal.gate.port) as client:
            client.send(request_bytes("/ws", **UPGRADE, **who))
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        claims = await seal.claims(seal.tool.requests.pop(), "wiki")
        assert claims["sub"] in {SUB, "token:ci"}


async def test_requests_of_others_on_one_connection(seal: Seal) -> None:
    """On a pipelined connection each has its own sender's."""
    bob = seal.gate.cookie(BOB)
    who = [{"Cookie": seal.gate.cookie()}, {"Cookie": bob}, {"Authorization": f"Bearer {TOKEN}"}]
    async with RawClient.connect(seal.gate.port) as client:
        client.send(b"".join(request_bytes("/", **fields) for fields in who * 3))
        for _ in who * 3:
            assert (await client.response()).status == 200

    subs = [(await seal.claims(received, "wiki"))["sub"] for received in seal.tool.requests]
    assert subs == [SUB, "660000000000000000000002", "token:ci"] * 3


async def test_forward_auth_hands_it_on(start_gate: Start, tmp_path: Path) -> None:
    """The 202 carries it for the route that is asked about, or leaves it out as the route says."""
    gate = await start_gate(
        server={"trusted_proxies": ["127.0.0.1"]},
        assertion={"key_files": [write_key(tmp_path / "key.pem")]},
        token=[{"name": "ci", "hash": hash_of(TOKEN)}],
        route=ROUTES,
    )
    key_set = (await ask(gate.port, request_bytes("/oauth2/jwks.json"))).json
    person, machine = {"Cookie": gate.cookie()}, {"Authorization": f"Bearer {TOKEN}"}

    async def answer(path: str, who: dict[str, str]) -> Response:
        asked = {"X_Forwarded_Uri": path, "X_Forwarded_Method": "GET"}
        return await ask(gate.port, request_bytes("/oauth2/auth", **asked, **who))

    for path, who, audience, sub in (
        ("/", person, "wiki", SUB),
        ("/", machine, "wiki", "token:ci"),
        ("/docs", person, "https://docs.test", SUB),
    ):
        response = await answer(path, who)
        assert response.status == 202
        assert checked(response.value(NAME), key_set, audience)["sub"] == sub
    for path, who, status in (("/off", person, 202), ("/docs", machine, 403), ("/open", {}, 202)):
        response = await answer(path, who)
        assert (response.status, response.values(NAME)) == (status, [])


# The key set.


@pytest.mark.parametrize("cookie", [False, True])
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
async def test_the_key_set_is_for_everybody(seal: Seal, accept: str, cookie: bool) -> None:
    """Anybody gets the public keys, may keep them for five minutes, and gets no cookie."""
    fields = {"Cookie": seal.gate.cookie()} if cookie else {}
    response = await ask(
        seal.gate.port, request_bytes("/oauth2/jwks.json", Accept=accept, **fields)
    )

    assert response.status == 200
    assert response.value("Content-Type") == "application/jwk-set+json"
    assert response.value("Cache-Control") == "public, max-age=300"
    assert response.values("Set-Cookie") == []
    (key,) = response.json["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "use", "alg", "kid"}
    assert (await seal.gate.log())[-1]["reason"] == "own-path"


async def test_methods_of_the_key_set(seal: Seal) -> None:
    """It can be asked for with GET and HEAD, and with nothing else."""
    head = await ask(
        seal.gate.port, request_bytes("/oauth2/jwks.json", method="HEAD"), to_head=True
    )
    post = await ask(seal.gate.port, request_bytes("/oauth2/jwks.json", method="POST"))

    assert (head.status, head.body) == (200, b"")
    assert (post.status, post.value("Allow")) == (405, "GET, HEAD")


async def test_all_keys_are_published_and_the_first_signs(
    start_gate: Start, upstream: RawUpstream, tmp_path: Path
) -> None:
    """After a start the first key of the list signs, and the set has every one in order."""
    files = [write_key(tmp_path / name) for name in "ab"]
    gate = await start_gate(upstream.url, assertion={"key_files": files})
    key_set = (await ask(gate.port, request_bytes("/oauth2/jwks.json"))).json
    assert (await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))).status == 200

    token = upstream.requests[0].value(NAME)
    assert token is not None
    kids = [key["kid"] for key in key_set["keys"]]
    assert len(set(kids)) == 2
    assert jwt.get_unverified_header(token.decode())["kid"] == kids[0]


async def test_without_a_key(gate: RunningGate, upstream: RawUpstream) -> None:
    """Nothing is signed, and there is no key set that somebody could keep."""
    response = await ask(gate.port, request_bytes("/oauth2/jwks.json"))
    assert (response.status, response.json["error"]) == (404, "no-route")
    assert response.value("Cache-Control") == "no-store"
    assert (await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))).status == 200
    assert upstream.requests[0].values(NAME) == []


async def test_a_key_that_cannot_be_read_stops_the_start(start_gate: Start, tmp_path: Path) -> None:
    """A gate that was told to sign does not serve without."""
    with pytest.raises(KeyFileError, match="No such file"):
        await start_gate(assertion={"key_files": [str(tmp_path / "none.pem")]})


async def test_no_key_shows(seal: Seal, caplog: pytest.LogCaptureFixture) -> None:
    """The private key is in no text of an object, no log and no answer."""
    responses = [
        await ask(seal.gate.port, request_bytes(path, Cookie=seal.gate.cookie()))
        for path in ("/oauth2/jwks.json", "/oauth2/userinfo", "/", "/nothing")
    ]

    key = await asyncio.to_thread(read_key, seal.key_file)
    secret = key.private_numbers().private_value
    answers = "".join(f"{response.head!r}{response.body!r}" for response in responses)
    said = repr(seal.gate.generation) + caplog.text + answers

    assert str(secret) not in said
    assert f"{secret:x}" not in said.lower()
    assert "PRIVATE KEY" not in said
