import asyncio
import base64
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, parse_qsl, urlsplit

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from pydantic import SecretStr

from tailchat_gate.identity.oauth.back_channel import MAX_ANSWER, BackChannel
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.login import LoginRefused, begin_login
from tailchat_gate.identity.oauth.login_state import LoginState, new_browser_cookie
from tailchat_gate.identity.oauth.responses import Profile, TokenSet
from tailchat_gate.identity.seal import KeyRing

NOW = 1_800_000_000.0
SUB = "660000000000000000000001"
ACCESS = "LUPWgMFJF8zZ_OFII13ZbNtgP5igTuF4B5bXZzDyCdV"
CODE = "liucAQdrxLyTLIJI_lcdggdAAforUPk7MUf6GuL_4G_"
SECRET = "the client's own secret"
VERIFIER = "v" * 43
REDIRECT = "https://gate.example.com/oauth2/callback"
# Verbatim API_URL: with its slash it is another text than the URL that the gate asks at.
ISSUER = "https://chat.example.com/"
HTML = "<!doctype html><title>Tailchat</title>"
STATE = LoginState("state-id", "/", VERIFIER, "n-0S6_Wz", int(NOW), "hash")
#: How long a client waits for a Tailchat that hangs: on a busy machine it has to get there first.
_SHORT = 2.0
KEYS = {kid: rsa.generate_private_key(65537, 2048) for kid in ("keystore-CHANGE-ME", "rotated")}

Response = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def says(
    data: object, status: int = 200, content_type: str = "application/json", **fields: str
) -> Response:
    """Return a reply with JSON, or with the text as it is."""

    async def response(_: web.BaseRequest) -> web.StreamResponse:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        return web.Response(
            body=body,
            status=status,
            headers={"Content-Type": f"{content_type}; charset=utf-8", **fields},
        )

    return response


def error(code: str, description: str = "", status: int = 400) -> Response:
    """Return a reply as oidc-provider words an error."""
    return says({"error": code, "error_description": description}, status)


async def hang(_: web.BaseRequest) -> web.StreamResponse:
    """Never answer, as Tailchat with a frozen Redis."""
    await asyncio.Event().wait()
    raise AssertionError


async def stall(request: web.BaseRequest) -> web.StreamResponse:
    """Begin an answer and never end it."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"access_token":')
    return await hang(request)


async def close(request: web.BaseRequest) -> web.StreamResponse:
    """Drop the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut(request: web.BaseRequest) -> web.StreamResponse:
    """Drop the connection in the middle of an answer."""
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": "100"}
    )
    await response.prepare(request)
    await response.write(b'{"access_token":')
    return await close(request)


async def redirect(_: web.BaseRequest) -> web.StreamResponse:
    """Send the request elsewhere, body and all."""
    return web.Response(status=307, headers={"Location": "/elsewhere"})


async def flood(request: web.BaseRequest) -> web.StreamResponse:
    """Send JSON without end."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * 16_384)


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    """Say the whole request in an error's description, as a debugging proxy might."""
    said = await request.text() + str(dict(request.headers))
    said += " ".join(value for _, value in parse_qsl(await request.text()))
    return await error("invalid_request", said)(request)


async def spell(request: web.BaseRequest) -> web.StreamResponse:
    """Say the whole request with a line break behind every character."""
    said = await request.text() + str(dict(request.headers))
    said += " ".join(value for _, value in parse_qsl(await request.text()))
    return await error("invalid_request", "\n".join(said))(request)


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: str
    peer: object


@dataclass
class Server:
    """A real HTTP server on loopback that answers as Tailchat would, or as a test says."""

    responses: dict[str, Response] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Record the request and answer it."""
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        self.seen.append(
            Seen(request.method, request.path, request.query_string, headers, body, peer)
        )
        handler = self.responses.get(request.path.removeprefix("/open"))
        if handler is None:
            return web.Response(status=404, text="no such path")
        response = await handler(request)
        if not response.prepared:
            response.headers["Set-Cookie"] = "_session=tailchats-own; path=/"
        return response

    def asked(self, path: str) -> list[Seen]:
        """Return the requests to a path."""
        return [one for one in self.seen if one.path == path]


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return the time set."""
        return self.now


def jwks(*kids: str) -> Response:
    """Return a reply with the public keys of these ids."""
    keys = [
        RSAAlgorithm.to_jwk(KEYS[kid].public_key(), as_dict=True) | {"kid": kid} for kid in kids
    ]
    return says({"keys": keys}, content_type="application/jwk-set+json")


def id_token(kid: str = "keystore-CHANGE-ME", alg: str = "RS256", **changes: object) -> str:
    """Return an id_token as Tailchat signs it, with changes; None removes a claim."""
    half = hashlib.sha256(ACCESS.encode()).digest()[:16]
    claims = {
        "sub": SUB,
        "nonce": "n-0S6_Wz",
        "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
        "aud": "tc_1",
        "exp": int(NOW) + 3600,
        "iat": int(NOW),
        "iss": ISSUER,
        **changes,
    }
    payload = json.dumps({name: value for name, value in claims.items() if value is not None})
    key = KEYS[kid] if alg == "RS256" else b"a shared secret that nobody has shared"
    return jwt.PyJWS().encode(payload.encode(), key, algorithm=alg, headers={"kid": kid})


def token_response(**changes: object) -> Response:
    """Return the reply of a good redemption, with changes; None removes a member."""
    good = {"access_token": ACCESS, "expires_in": 3600, "scope": "openid", "token_type": "Bearer"}
    answer = {**good, "id_token": id_token(), **changes}
    return says({name: value for name, value in answer.items() if value is not None})


#: What the answer above is worth.
GOOD = TokenSet(ACCESS, id_token(), expires_at=int(NOW) + 3600)


#: Clients of the test, which are closed with the server, whatever the test came to.
_MADE: list[TailchatClient] = []


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A stand-in for Tailchat's back channel, in good order."""
    server = Server()
    server.responses = {
        "/.well-known/openid-configuration": says(
            {"issuer": ISSUER, "token_endpoint": "https://evil.example/open/token"}
        ),
        "/token": token_response(),
        "/me": says({"sub": SUB, "nickname": "星野", "avatar": "{BACKEND}/a.png"}),
        "/jwks": jwks("keystore-CHANGE-ME"),
    }
    _MADE.clear()
    raw = web.Server(server.handle, handler_cancellation=True)
    runner = web.ServerRunner(raw, shutdown_timeout=0.1)
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        yield server
    finally:
        for client in _MADE:
            await client.close()
        await runner.cleanup()


@dataclass
class Calls:
    """What an observer was told."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, call: str, seconds: float, outcome: str) -> None:
        """Note a call and its outcome."""
        assert 0 <= seconds < 30
        self.told.append((call, outcome))


@pytest.fixture
def clock() -> Clock:
    """A clock at NOW."""
    return Clock()


@pytest.fixture
def calls() -> Calls:
    """An observer."""
    return Calls()


@pytest.fixture
async def client(server: Server, clock: Clock, calls: Calls) -> AsyncIterator[TailchatClient]:
    """The client under test, before the server."""
    client = client_of(server.url, clock, calls)
    yield client
    await client.close()


def client_of(
    url: str, clock: Clock, calls: Calls | None = None, timeout: float = 10, **more: object
) -> TailchatClient:
    """Return a client that asks at a URL."""
    settings: dict[str, object] = {
        "channel": BackChannel(url, timeout=timeout),
        "api_url": url,
        "client_id": "tc_1",
        "client_secret": SecretStr(SECRET),
        "redirect_uri": REDIRECT,
        "clock": clock,
        "observe": calls,
        **more,
    }
    _MADE.append(TailchatClient(**settings))  # type: ignore[arg-type] # each test names its own
    return _MADE[-1]


async def refusal(work: Awaitable[object]) -> LoginRefused:
    """Return the refusal that something awaited ends in."""
    with pytest.raises(LoginRefused) as caught:
        await work
    return caught.value


async def test_identity(client: TailchatClient, server: Server, calls: Calls) -> None:
    """A good login redeems, validates, asks who it is, and gives the profile of /open/me."""
    found = await client.identity(CODE, STATE)

    assert found.profile == Profile(sub=SUB, nickname="星野", avatar=f"{server.url}/a.png")
    assert [one.path for one in server.seen] == [
        "/open/token",
        "/open/.well-known/openid-configuration",
        "/open/jwks",
        "/open/me",
    ]
    assert calls.told == [("token", "ok"), ("discovery", "ok"), ("jwks", "ok"), ("me", "ok")]


async def test_token_request(client: TailchatClient, server: Server) -> None:
    """The code goes out once, in a form with one client authentication and no browser's fields."""
    assert await client.redeem(CODE, VERIFIER) == GOOD

    (request,) = server.asked("/open/token")
    assert (request.method, request.query) == ("POST", "")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["accept"] == "application/json"
    assert not {"origin", "cookie", "authorization", "referer"} & set(request.headers)
    assert parse_qs(request.body, strict_parsing=True) == {
        "grant_type": ["authorization_code"],
        "code": [CODE],
        "redirect_uri": [REDIRECT],
        "code_verifier": [VERIFIER],
        "client_id": ["tc_1"],
        "client_secret": [SECRET],
    }


async def test_userinfo_request(client: TailchatClient, server: Server) -> None:
    """The access token goes out in the header of a GET, and nowhere else."""
    await client.userinfo(ACCESS)

    (request,) = server.asked("/open/me")
    assert (request.method, request.query, request.body) == ("GET", "", "")
    assert request.headers["authorization"] == f"Bearer {ACCESS}"
    assert not {"origin", "cookie", "content-type"} & set(request.headers)


async def test_no_cookie_and_no_connection_twice(client: TailchatClient, server: Server) -> None:
    """Cookies that Tailchat sets are never sent back, and every call has its own connection."""
    for _ in range(3):
        await client.identity(CODE, STATE)

    assert len(server.seen) == 8
    assert not any("cookie" in one.headers for one in server.seen)
    assert len({one.peer for one in server.seen}) == 8


async def test_environment_proxy_is_ignored(
    client: TailchatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment gets neither the secret nor the code."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")

    assert await client.redeem(CODE, VERIFIER) == GOOD


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (error("invalid_grant", "grant request is invalid"), "login-code-refused"),
        (error("invalid_client", status=401), "gate-not-accepted"),
        (error("invalid_redirect_uri"), "gate-not-accepted"),
        (error("invalid_client_metadata", "logo_uri must be a web uri"), "gate-not-accepted"),
        (error("invalid_request", "origin x not allowed"), "gate-not-accepted"),
        (error("unsupported_grant_type"), "gate-not-accepted"),
        (error("server_error", status=500), "tailchat-broken"),
        (error("invalid_client", status=500), "tailchat-broken"),
        (error("no_such_error"), "tailchat-broken"),
        (error("invalid_grant", status=200), "login-code-refused"),
        (error("anything", status=200), "tailchat-broken"),
        (says({"error": ["invalid_client"]}, 400), "tailchat-broken"),
        (says({"error": None}, 400), "tailchat-broken"),
        (says({}, 400), "tailchat-broken"),
        (says({}), "tailchat-broken"),
        (token_response(token_type="mac"), "tailchat-broken"),
        (token_response(token_type=None), "tailchat-broken"),
        (token_response(token_type=["Bearer"]), "tailchat-broken"),
        (token_response(access_token=None), "tailchat-broken"),
        (token_response(access_token=""), "tailchat-broken"),
        (token_response(access_token=7), "tailchat-broken"),
        (token_response(access_token="a b"), "tailchat-broken"),
        (token_response(access_token="a\r\nX: y"), "tailchat-broken"),
        (token_response(access_token="星"), "tailchat-broken"),
        (token_response(access_token="a" * 4097), "tailchat-broken"),
        (token_response(id_token=7), "login-id-token"),
        (token_response(id_token=""), "login-id-token"),
        (says(HTML.encode(), content_type="text/html"), "tailchat-broken"),
        (says(HTML.encode()), "tailchat-broken"),
        (says(HTML.encode(), 500, "text/html"), "tailchat-broken"),
        (says({"access_token": ACCESS}, content_type="text/html"), "tailchat-broken"),
        (says({"access_token": ACCESS, "token_type": "Bearer"}, 201), "tailchat-broken"),
        (says(b""), "tailchat-broken"),
        (says(b"[]"), "tailchat-broken"),
        (says(b"null"), "tailchat-broken"),
        (says(b'{"access_token":'), "tailchat-broken"),
        (says(b'{"access_token":"\xff","token_type":"Bearer"}'), "tailchat-broken"),
        (says(b'{"token_type":"Bearer","access_token":"a","access_token":"b"}'), "tailchat-broken"),
        (says(b'{"a":' * 12_000), "tailchat-broken"),
        (says(b'{"x":"' + b"y" * MAX_ANSWER + b'"}'), "tailchat-broken"),
        (flood, "tailchat-broken"),
        (redirect, "tailchat-broken"),
        (close, "tailchat-broken"),
        (cut, "tailchat-broken"),
        (hang, "tailchat-slow"),
        (stall, "tailchat-slow"),
    ],
)
async def test_bad_token_answer(
    server: Server, clock: Clock, response: Response, reason: str
) -> None:
    """Each fault of the token endpoint has its reason, and the code went out exactly once."""
    server.responses["/token"] = response
    calls = Calls()
    client = client_of(
        server.url, clock, calls, timeout=_SHORT if reason == "tailchat-slow" else 10
    )
    refused = await refusal(client.identity(CODE, STATE))
    await client.close()

    assert refused.reason == reason
    assert [one.path for one in server.seen] == ["/open/token"]
    assert calls.told == [("token", "ok" if reason == "login-id-token" else reason)]


async def test_error_detail(client: TailchatClient, server: Server) -> None:
    """What Tailchat said about a fault of the set-up is kept for the admin, short and printable."""
    server.responses["/token"] = error("invalid_client_metadata", "logo_uri\r\n must " + "x" * 999)
    detail = (await refusal(client.redeem(CODE, VERIFIER))).detail

    assert detail["call"] == "token"
    assert detail["status"] == "400"
    assert detail["error"] == "invalid_client_metadata"
    assert detail["description"].startswith("logo_uri must xxx")
    assert len(detail["description"]) == 200


@pytest.mark.parametrize(
    "response", [echo, spell, hang, close, cut, redirect, error("invalid_grant")]
)
async def test_no_secret_in_refusals(server: Server, clock: Clock, response: Response) -> None:
    """No refusal, and nothing chained to it, holds a secret, a code, a verifier or a token."""
    client = client_of(server.url, clock, timeout=_SHORT)
    for path, work in (
        ("/token", lambda: client.redeem(CODE, VERIFIER)),
        ("/me", lambda: client.userinfo(ACCESS)),
    ):
        server.responses[path] = response
        refused: BaseException | None = await refusal(work())
        while refused is not None:
            shown = f"{refused!r} {refused} {getattr(refused, 'detail', '')}"
            for secret in (SECRET, CODE, VERIFIER, ACCESS):
                assert secret not in shown
            refused = refused.__cause__ or refused.__context__
    await client.close()


async def test_reprs_show_no_secret(client: TailchatClient) -> None:
    """The reprs of the client and of tokens show no secret."""
    shown = repr(client) + repr(await client.redeem(CODE, VERIFIER)) + repr(client.registration)

    for secret in (SECRET, ACCESS, id_token()):
        assert secret not in shown


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (error("invalid_token", status=401), "tailchat-broken"),
        (error("insufficient_scope", status=403), "gate-not-accepted"),
        (error("invalid_redirect_uri"), "gate-not-accepted"),
        (error("invalid_client_metadata"), "gate-not-accepted"),
        (error("invalid_grant"), "tailchat-broken"),
        (error("server_error", status=500), "tailchat-broken"),
        (says({}), "tailchat-broken"),
        (says({"sub": ""}), "tailchat-broken"),
        (says({"sub": [SUB]}), "tailchat-broken"),
        (says({"sub": 66}), "tailchat-broken"),
        (says({"sub": None}), "tailchat-broken"),
        (says({"sub": "660000000000000000000002"}), "login-id-token"),
        (says({"sub": SUB.upper() + "x"}), "login-id-token"),
        (says(b'{"sub":"a","sub":"b"}'), "tailchat-broken"),
        (says(HTML.encode(), content_type="text/html"), "tailchat-broken"),
        (says(b"eyJ.eyJ.x", content_type="application/jwt"), "tailchat-broken"),
        (redirect, "tailchat-broken"),
        (close, "tailchat-broken"),
        (flood, "tailchat-broken"),
    ],
)
async def test_bad_userinfo(
    client: TailchatClient, server: Server, response: Response, reason: str
) -> None:
    """Each fault of /open/me refuses the login with its reason, and no code goes out again."""
    server.responses["/me"] = response

    assert (await refusal(client.identity(CODE, STATE))).reason == reason
    assert len(server.asked("/open/token")) == 1


async def test_slow_userinfo(server: Server, clock: Clock) -> None:
    """A user info endpoint that hangs is told apart from one that is down."""
    server.responses["/me"] = hang
    client = client_of(server.url, clock, timeout=_SHORT)

    assert (await refusal(client.userinfo(ACCESS))).reason == "tailchat-slow"
    await client.close()


async def test_tailchat_down(clock: Clock, calls: Calls) -> None:
    """Where nobody listens, Tailchat is down."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = client_of(f"http://127.0.0.1:{unused.getsockname()[1]}", clock, calls)
        refused = await refusal(client.redeem(CODE, VERIFIER))
    await client.close()

    assert refused.reason == "tailchat-down"
    assert calls.told == [("token", "tailchat-down")]


async def test_tls_to_a_plain_server(server: Server, clock: Clock) -> None:
    """A server that does not speak TLS where TLS is wanted counts as down, not as an answer."""
    client = client_of(server.url.replace("http:", "https:"), clock)

    assert (await refusal(client.redeem(CODE, VERIFIER))).reason == "tailchat-down"
    assert server.seen == []
    await client.close()


async def test_cancelled_call_is_observed(
    client: TailchatClient, server: Server, calls: Calls
) -> None:
    """A call whose caller goes away is told as cancelled."""
    arrived = asyncio.Event()

    async def arrive(request: web.BaseRequest) -> web.StreamResponse:
        arrived.set()
        return await hang(request)

    server.responses["/token"] = arrive
    task = asyncio.create_task(client.redeem(CODE, VERIFIER))
    await arrived.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls.told == [("token", "cancelled")]


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"iss": "https://chat.example.com"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "tc_2"}, "aud"),
        ({"aud": ["tc_1", "tc_2"]}, "azp"),
        ({"azp": "tc_2"}, "azp"),
        ({"exp": int(NOW) - 61}, "exp"),
        ({"exp": None}, "exp"),
        ({"iat": int(NOW) + 3600}, "iat"),
        ({"nonce": "other"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "at_hash"),
        ({"sub": None}, "sub"),
        ({"alg": "HS256"}, "alg"),
        ({"kid": "rotated"}, "kid"),
    ],
)
async def test_bad_id_token(
    client: TailchatClient, server: Server, changes: dict[str, str], claim: str
) -> None:
    """One fault in the id_token refuses the login before anybody asks who it is."""
    server.responses["/token"] = token_response(id_token=id_token(**changes))
    refused = await refusal(client.identity(CODE, STATE))

    assert refused.reason == "login-id-token"
    assert refused.detail["claim"] == claim
    assert server.asked("/open/me") == []


async def test_unsigned_id_token(client: TailchatClient, server: Server) -> None:
    """An id_token whose signature is of other content, or missing, refuses the login."""
    head, body, signature = id_token().split(".")
    other = id_token(sub="x").split(".")[1]
    for forged in (f"{head}.{other}.{signature}", f"{head}.{body}.", f"{head}.{body}"):
        server.responses["/token"] = token_response(id_token=forged)
        assert (await refusal(client.identity(CODE, STATE))).reason == "login-id-token"


async def test_without_id_token(client: TailchatClient, server: Server) -> None:
    """Without an id_token, though openid was asked for, the login is refused (OIDC 3.1.3.3)."""
    server.responses["/token"] = token_response(id_token=None)
    refused = await refusal(client.identity(CODE, STATE))

    assert (refused.reason, refused.detail) == ("login-id-token", {"claim": "absent"})
    assert server.asked("/open/me") == []


async def test_keys_are_remembered(client: TailchatClient, server: Server, clock: Clock) -> None:
    """Keys are fetched once for ten minutes, not once for each login."""
    for _ in range(3):
        await client.identity(CODE, STATE)
    assert len(server.asked("/open/jwks")) == 1

    clock.now += 600
    await client.identity(CODE, STATE)
    assert len(server.asked("/open/jwks")) == 2


async def test_key_rotation(client: TailchatClient, server: Server, clock: Clock) -> None:
    """After a rotation the first token of the new key has the keys fetched once more."""
    await client.identity(CODE, STATE)
    server.responses["/jwks"] = jwks("keystore-CHANGE-ME", "rotated")
    server.responses["/token"] = token_response(id_token=id_token("rotated"))
    clock.now += 6

    assert (await client.identity(CODE, STATE)).profile.sub == SUB
    assert len(server.asked("/open/jwks")) == 2


async def test_a_new_key_under_the_old_id(
    client: TailchatClient, server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature that the remembered key did not make has the keys fetched once more."""
    await client.identity(CODE, STATE)
    monkeypatch.setitem(KEYS, "keystore-CHANGE-ME", KEYS["rotated"])
    server.responses["/jwks"] = jwks("keystore-CHANGE-ME")
    server.responses["/token"] = token_response(id_token=id_token())
    clock.now += 6

    assert (await client.identity(CODE, STATE)).profile.sub == SUB
    assert len(server.asked("/open/jwks")) == 2
    server.responses["/token"] = token_response(id_token=id_token()[:-8] + "AAAAAAAA")
    for _ in range(5):
        assert (await refusal(client.identity(CODE, STATE))).detail["claim"] == "signature"
    assert len(server.asked("/open/jwks")) == 2


async def test_a_mended_issuer_in_an_id_token(
    client: TailchatClient, server: Server, clock: Clock
) -> None:
    """An id_token of another issuer has it asked for once more, at most once in five seconds."""
    await client.identity(CODE, STATE)
    server.responses["/token"] = token_response(id_token=id_token(iss="https://mended.example"))
    assert (await refusal(client.identity(CODE, STATE))).detail["claim"] == "iss"
    clock.now += 6
    server.responses["/.well-known/openid-configuration"] = says(
        {"issuer": "https://mended.example"}
    )

    assert (await client.identity(CODE, STATE)).profile.sub == SUB
    server.responses["/token"] = token_response(id_token=id_token(iss="https://evil.example"))
    for _ in range(5):
        assert (await refusal(client.identity(CODE, STATE))).detail["claim"] == "iss"
    assert len(server.asked("/open/.well-known/openid-configuration")) == 2


@pytest.mark.parametrize(
    ("waits", "seconds"),
    [("7", 7), ("", 30), ("soon", 30), ("0", 1), ("99999", 300), ("9" * 40, 30)],
)
async def test_too_many_requests(
    client: TailchatClient, server: Server, clock: Clock, waits: str, seconds: int
) -> None:
    """A 429 has its reason, and Tailchat is left alone for as long as it asks, within bounds."""
    found = dict(server.responses)
    server.responses["/me"] = says(b"slow down", 429, "text/plain", **{"Retry-After": waits})
    refused = await refusal(client.userinfo(ACCESS))
    assert (refused.reason, refused.detail["retry_after"]) == ("tailchat-busy", str(seconds))
    server.responses.clear()
    server.responses.update(found)
    asked = len(server.seen)
    clock.now += seconds - 0.5
    again = await refusal(client.redeem(CODE, VERIFIER))
    assert (again.reason, again.detail["retry_after"]) == ("tailchat-busy", "1")
    assert len(server.seen) == asked
    clock.now += 0.5

    assert (await client.userinfo(ACCESS))["sub"] == SUB


async def test_unknown_keys_do_not_drive_requests(
    client: TailchatClient, server: Server, clock: Clock
) -> None:
    """Many tokens with unknown keys cause one fetch in five seconds, each is refused."""
    server.responses["/token"] = token_response(id_token=id_token("rotated"))
    for _ in range(5):
        assert (await refusal(client.identity(CODE, STATE))).detail["claim"] == "kid"
    assert len(server.asked("/open/jwks")) == 1

    clock.now += 6
    for _ in range(5):
        assert (await refusal(client.identity(CODE, STATE))).detail["claim"] == "kid"
    assert len(server.asked("/open/jwks")) == 2


@pytest.mark.parametrize(
    "response", [says({}), says({"keys": None}), says({"keys": "x"}), close, error("server_error")]
)
async def test_no_keys(client: TailchatClient, server: Server, response: Response) -> None:
    """Without a JWK Set an id_token cannot be validated and the login is refused."""
    server.responses["/jwks"] = response
    refused = await refusal(client.identity(CODE, STATE))

    assert refused.reason == "tailchat-broken"
    assert refused.detail["call"] == "jwks"
    assert server.asked("/open/me") == []


async def test_odd_members_of_a_key_set(client: TailchatClient, server: Server) -> None:
    """Members of the set that are no keys do not spoil the one that is."""
    good = RSAAlgorithm.to_jwk(KEYS["keystore-CHANGE-ME"].public_key(), as_dict=True)
    odd: list[object] = [None, 7, "x", [], {}, {"kty": "oct", "k": "AAAA"}]
    server.responses["/jwks"] = says({"keys": [*odd, good | {"kid": "keystore-CHANGE-ME"}]})

    assert (await client.identity(CODE, STATE)).profile.sub == SUB


async def test_issuer_is_learnt_once(client: TailchatClient, server: Server, clock: Clock) -> None:
    """The issuer is Tailchat's own word, asked for by one of many at a time, for ten minutes."""
    issuers = await asyncio.gather(*(client.issuer() for _ in range(10)))
    assert set(issuers) == {ISSUER}
    assert len(server.seen) == 1

    clock.now += 599
    await client.issuer()
    assert len(server.seen) == 1
    clock.now += 2
    await client.issuer()
    assert len(server.seen) == 2


async def test_configured_issuer(server: Server, clock: Clock) -> None:
    """A configured issuer wins, and discovery is not asked at all."""
    client = client_of(server.url, clock, issuer="https://other.example")
    server.responses["/token"] = token_response(id_token=id_token(iss="https://other.example"))

    assert await client.issuer() == "https://other.example"
    assert (await client.identity(CODE, STATE)).profile.sub == SUB
    assert server.asked("/open/.well-known/openid-configuration") == []
    await client.close()


@pytest.mark.parametrize(
    "response",
    [
        says(HTML.encode(), content_type="text/html"),
        says({}),
        says({"issuer": ""}),
        says({"issuer": ["x"]}),
        says({"issuer": "a b"}),
        says({"issuer": "https://x/" + "y" * 1024}),
        error("server_error", status=500),
    ],
)
async def test_no_issuer(client: TailchatClient, server: Server, response: Response) -> None:
    """A discovery document without a usable issuer gives none."""
    server.responses["/.well-known/openid-configuration"] = response
    refused = await refusal(client.issuer())

    assert refused.reason == "tailchat-broken"
    assert refused.detail["call"] == "discovery"


async def test_failed_discovery_is_not_repeated_at_once(
    client: TailchatClient, server: Server, clock: Clock
) -> None:
    """After a failure all who ask get the same refusal for five seconds, then one asks again."""
    good = server.responses["/.well-known/openid-configuration"]
    server.responses["/.well-known/openid-configuration"] = error("server_error", status=500)
    refusals = await asyncio.gather(*(refusal(client.issuer()) for _ in range(10)))
    assert {one.reason for one in refusals} == {"tailchat-broken"}
    assert len(server.seen) == 1

    server.responses["/.well-known/openid-configuration"] = good
    assert (await refusal(client.issuer())).reason == "tailchat-broken"
    clock.now += 5
    assert await client.issuer() == ISSUER
    assert len(server.seen) == 2


def test_authorization_url(clock: Clock) -> None:
    """The authorization URL is at the configured server and has each parameter once, encoded."""
    client = client_of("https://chat.example.com/base/", clock)
    login = begin_login(
        client.registration,
        return_to="/" + "a" * 2047,
        browser_cookie=new_browser_cookie(bytes),
        keyring=KeyRing([b"a secret of at least 32 bytes ok"], "login-state"),
        now=NOW,
        random_bytes=bytes,
    )
    url = client.authorization_url(login.params)
    parts = urlsplit(url)

    assert url.startswith("https://chat.example.com/base/open/auth?client_id=tc_1&redirect_uri=")
    assert "scope=openid%20profile&" in url
    assert parse_qsl(parts.query, strict_parsing=True) == list(login.params)
    assert len(url) < 8192
    with pytest.raises(ValueError, match="came twice"):
        client.authorization_url([("state", "a"), ("state", "b")])


async def test_close(server: Server, clock: Clock) -> None:
    """A client closes what it opened, may be closed twice, and leaves nothing after a late call."""
    client = client_of(server.url, clock)
    await client.userinfo(ACCESS)
    session = client._channel._session
    await client.close()
    await client.close()

    assert session is not None
    assert session.closed
    await client.userinfo(ACCESS)
    assert client._channel._session is None


async def test_a_call_under_way_is_not_closed(server: Server, clock: Clock) -> None:
    """A client that is closed lets a call that was begun come to its end, and closes behind it."""
    client = client_of(server.url, clock)
    call = asyncio.create_task(client.userinfo(ACCESS))
    await asyncio.sleep(0)  # it has begun, and waits for the server
    session = client._channel._session
    await client.close()

    assert session is not None
    assert not session.closed
    assert (await call)["sub"]
    assert session.closed


# Asking again.


REFRESH = "naO52RU951LXx2qjDDDueAX9DZ2PyTZgJnwnkhQLeIU"


async def test_tokens_of_a_login(client: TailchatClient, server: Server) -> None:
    """What came with the access token is there beside the profile, and in no repr."""
    server.responses["/token"] = token_response(refresh_token=REFRESH)
    found = await client.identity(CODE, STATE)

    assert found.tokens == TokenSet(ACCESS, id_token(), REFRESH, int(NOW) + 3600)
    assert REFRESH not in repr(found) + repr(found.tokens)
    assert ACCESS not in repr(found) + repr(found.tokens)


@pytest.mark.parametrize(
    ("changes", "refresh", "expires_at"),
    [
        ({"expires_in": None}, "", 0),
        ({"expires_in": "3600"}, "", 0),
        ({"expires_in": True}, "", 0),
        ({"expires_in": -1}, "", 0),
        ({"expires_in": 10**12}, "", 0),
        ({"refresh_token": ["x"]}, "", int(NOW) + 3600),
        ({"refresh_token": "a\r\nX: y"}, "", int(NOW) + 3600),
        ({"refresh_token": "r" * 4097}, "", int(NOW) + 3600),
    ],
)
async def test_what_is_of_no_use_counts_as_missing(
    client: TailchatClient,
    server: Server,
    changes: dict[str, object],
    refresh: str,
    expires_at: int,
) -> None:
    """A login does not fail for a lifetime or a refresh token that cannot be used."""
    server.responses["/token"] = token_response(**changes)
    tokens = await client.redeem(CODE, VERIFIER)

    assert (tokens.refresh_token, tokens.expires_at) == (refresh, expires_at)


async def test_profile_of_a_session(client: TailchatClient, server: Server, calls: Calls) -> None:
    """A session's access token is asked about with the same request as at the login."""
    assert (await client.profile(ACCESS)).nickname == "星野"

    (request,) = server.seen
    assert (request.method, request.path, request.query) == ("GET", "/open/me", "")
    assert request.headers["authorization"] == f"Bearer {ACCESS}"
    assert calls.told == [("recheck", "ok")]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (error("invalid_token", status=401), "session-revoked"),
        (error("invalid_token", status=200), "tailchat-broken"),
        (error("invalid_token", status=403), "tailchat-broken"),
        (error("invalid_token", status=500), "tailchat-broken"),
        (error("invalid_grant", status=401), "tailchat-broken"),
        (says(HTML.encode(), 401, "text/html"), "tailchat-broken"),
        (error("invalid_client", status=401), "gate-not-accepted"),
        (error("insufficient_scope", status=403), "gate-not-accepted"),
        (error("server_error", status=500), "tailchat-broken"),
        (says({"sub": ""}), "tailchat-broken"),
        (close, "tailchat-broken"),
    ],
)
async def test_only_a_clear_word_revokes(
    client: TailchatClient, server: Server, response: Response, reason: str
) -> None:
    """A token is over where Tailchat says just that; every other fault says nothing of it."""
    server.responses["/me"] = response
    refused = await refusal(client.profile(ACCESS))

    assert refused.reason == reason
    assert refused.detail["call"] == "recheck"


async def test_refresh_request(client: TailchatClient, server: Server, calls: Calls) -> None:
    """A refresh token goes out once, in a form; its answer's id_token is not looked at."""
    server.responses["/token"] = token_response(access_token="new", refresh_token="r2", id_token=7)

    assert await client.refresh(REFRESH) == TokenSet("new", "", "r2", int(NOW) + 3600)
    (request,) = server.seen
    assert (request.method, request.path, request.query) == ("POST", "/open/token", "")
    assert parse_qs(request.body, strict_parsing=True) == {
        "grant_type": ["refresh_token"],
        "refresh_token": [REFRESH],
        "client_id": ["tc_1"],
        "client_secret": [SECRET],
    }
    assert calls.told == [("refresh", "ok")]


async def test_refresh_without_a_new_refresh_token(client: TailchatClient, server: Server) -> None:
    """Where no refresh token comes back the old one stays (RFC 6749 section 6)."""
    assert (await client.refresh(REFRESH)).refresh_token == REFRESH
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (error("invalid_grant", "grant request is invalid"), "session-revoked"),
        (error("invalid_grant", status=500), "tailchat-broken"),
        (error("invalid_client", status=401), "gate-not-accepted"),
        (error("server_error", status=500), "tailchat-broken"),
        (echo, "gate-not-accepted"),
        (token_response(access_token=""), "tailchat-broken"),
        (redirect, "tailchat-broken"),
        (close, "tailchat-broken"),
        (cut, "tailchat-broken"),
        (hang, "tailchat-slow"),
    ],
)
async def test_bad_refresh(server: Server, clock: Clock, response: Response, reason: str) -> None:
    """Each fault of a refresh has its reason, holds no token, and is not tried again."""
    server.responses["/token"] = response
    client = client_of(server.url, clock, timeout=_SHORT if reason == "tailchat-slow" else 10)
    refused = await refusal(client.refresh(REFRESH))
    await client.close()

    assert refused.reason == reason
    assert len(server.seen) == 1
    assert REFRESH not in f"{refused!r} {refused.detail}"
