"""The rules of routes end to end: who gets through, who does not and why, what the tool sees."""

from collections.abc import Callable
from typing import Any

import pytest
from gatekit import ALICE, RawClient, RawUpstream, Response, RunningGate, ask, request_bytes

from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.oauth.responses import Profile

Start = Callable[..., Any]
BOB = Profile("660000000000000000000002", "Bob", "0007", "")
MALLORY = Profile("660000000000000000000009", "Mallory", "0666", "")
GROUPS = {"ops": [BOB.sub], "former": [MALLORY.sub]}
SECRETS = {name: make_token(name.encode().ljust(32)) for name in ("backup", "stolen")}
TOKENS = [{"name": name, "hash": hash_of(secret)} for name, secret in SECRETS.items()]


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate whose routes differ in method, host and lists."""
    found = await start_gate(
        upstream.url,
        groups=GROUPS,
        access={"deny": ["group:former", "token:stolen"]},
        token=TOKENS,
        route=[
            {"name": "home", "deny": [f"sub:{ALICE.sub}"]},
            {"name": "site", "path": "/site", "allow": ["public"]},
            {"name": "read", "path": "/api", "methods": ["GET"], "allow": ["signed-in"]},
            {"name": "write", "path": "/api", "allow": ["group:ops"]},
            {"name": "feed", "path": "/feed", "methods": ["GET"], "allow": ["public"]},
            {"name": "lab", "host": "*.lab.test", "allow": ["public"]},
            {"name": "vault", "host": "vault.lab.test", "allow": ["group:ops"]},
            {"name": "token", "path": "/token", "allow": ["token:backup", "token:stolen"]},
        ],
    )
    assert isinstance(found, RunningGate)
    return found


async def _ask(gate: RunningGate, path: str, who: Profile | None = None, **keys: str) -> Response:
    cookie = {"Cookie": gate.cookie(who)} if who else {}
    return await ask(gate.port, request_bytes(path, **cookie, **keys))


async def _reasons(gate: RunningGate) -> list[tuple[int, str, str, str]]:
    lines = await gate.log()
    return [(line["status"], line["reason"], line["route"], line["sub"]) for line in lines]


@pytest.mark.parametrize(
    ("path", "who", "method", "status", "reason"),
    [
        ("/", ALICE, "GET", 403, "deny-listed"),
        ("/", BOB, "GET", 200, "signed-in"),
        ("/", MALLORY, "GET", 403, "deny-listed"),
        ("/api/x", ALICE, "GET", 200, "signed-in"),
        ("/api/x", ALICE, "POST", 403, "denied"),
        ("/api/x", ALICE, "get", 403, "denied"),
        ("/api/x", BOB, "POST", 200, "signed-in"),
        ("/api/x", MALLORY, "GET", 403, "deny-listed"),
        ("/api/x", None, "POST", 401, "not-signed-in"),
        ("/feed", None, "GET", 200, "public"),
        ("/feed", None, "POST", 405, "method-refused"),
        ("/feed", BOB, "DELETE", 405, "method-refused"),
        ("/feed/../api", ALICE, "POST", 405, "method-refused"),
        ("/site/../api", ALICE, "DELETE", 403, "denied"),
        ("/token", BOB, "GET", 403, "denied"),
        ("/token", None, "GET", 401, "not-signed-in"),
    ],
)
async def test_who_gets_through(
    gate: RunningGate,
    upstream: RawUpstream,
    path: str,
    who: Profile | None,
    method: str,
    status: int,
    reason: str,
) -> None:
    """A request reaches the tool or is refused with its reason, the same in answer and log."""
    response = await _ask(gate, path, who, method=method)

    assert response.status == status
    assert len(upstream.requests) == (1 if status == 200 else 0)
    if status != 200:
        assert response.json["error"] == reason
    assert [line[1] for line in await _reasons(gate)] == [reason]


@pytest.mark.parametrize(
    ("path", "token", "status", "reason"),
    [
        ("/token", "backup", 200, "token"),
        ("/token", "stolen", 403, "deny-listed"),
        ("/api", "backup", 403, "token-elsewhere"),
        ("/site", "backup", 200, "token"),
        ("/site", "stolen", 200, "public"),
    ],
)
async def test_which_machine_gets_through(
    gate: RunningGate, upstream: RawUpstream, path: str, token: str, status: int, reason: str
) -> None:
    """A machine is met by the same lists; on a public route one that is denied is nobody."""
    response = await _ask(gate, path, Authorization=f"Bearer {SECRETS[token]}")

    assert response.status == status
    assert [line[1] for line in await _reasons(gate)] == [reason]
    named = [value for sent in upstream.requests for value in sent.values("X-Tailchat-Token")]
    assert named == ([token.encode()] if reason == "token" else [])


async def test_a_head_is_taken_with_its_get(gate: RunningGate, upstream: RawUpstream) -> None:
    """HEAD goes where GET goes, by GET's rule."""
    data = request_bytes("/api", method="HEAD", Cookie=gate.cookie(ALICE))

    assert (await ask(gate.port, data, to_head=True)).status == 200
    assert [line[2] for line in await _reasons(gate)] == ["read"]


async def test_a_refused_method_is_told_which_are_not(gate: RunningGate) -> None:
    """A 405 says what the address takes (RFC 9110 section 15.5.6) and keeps the connection."""
    async with RawClient.connect(gate.port) as client:
        for path in ("/feed", "/feed/x"):
            client.send(request_bytes(path, method="PUT"))
            response = await client.response()
            assert (response.status, response.value("Allow")) == (405, "GET, HEAD")
        client.send(request_bytes("/api", method="CONNECT", Cookie=gate.cookie(BOB)))
        response = await client.response()

    assert response.value("Allow") == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert [line[1:3] for line in await _reasons(gate)] == [
        ("method-refused", "feed"),
        ("method-refused", "feed"),
        ("method-refused", "write"),
    ]


@pytest.mark.parametrize(
    ("path", "fields", "method"),
    [
        ("/api", {"X_HTTP_Method_Override": "DELETE"}, "GET"),
        ("/api", {"X_Method_Override": "put"}, "GET"),
        ("/api", {"X_HTTP_Method": "BREW"}, "HEAD"),
        ("/api?a=b&_method=PATCH", {}, "GET"),
        ("/api?%5Fmethod=DELETE", {}, "GET"),
    ],
)
async def test_a_claimed_method_opens_nothing(
    gate: RunningGate, upstream: RawUpstream, path: str, fields: dict[str, str], method: str
) -> None:
    """Who claims another method than the request line's needs the leave for both."""
    plain = {"Cookie": gate.cookie(ALICE), "method": method, **fields}
    wire = request_bytes(path, **plain).replace(
        b"X-HTTP-Method-Override", b"X_HTTP_method-override"
    )

    refused = await ask(gate.port, wire, to_head=method == "HEAD")
    let_in = await _ask(gate, path, BOB, method="POST", **fields)

    assert (refused.status, let_in.status) == (403, 200)
    assert len(upstream.requests) == 1
    assert [line[1] for line in await _reasons(gate)] == ["denied", "signed-in"]


async def test_a_claimed_method_that_nobody_takes_is_refused(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """A GET that may count as a DELETE is none where DELETE is not taken."""
    response = await _ask(gate, "/feed", X_HTTP_Method_Override="DELETE")

    assert (response.status, response.value("Allow")) == (405, "GET, HEAD")
    assert (await _ask(gate, "/feed", X_HTTP_Method_Override="GET")).status == 200
    assert len(upstream.requests) == 1


async def test_methods_mean_nothing_where_no_route_names_any(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A tool's own method override is its own business where the gate has no rule by method."""
    gate = await start_gate(upstream.url)
    fields = {"Cookie": gate.cookie(), "X_HTTP_Method_Override": "DELETE"}

    response = await ask(gate.port, request_bytes("/?_method=PUT", method="brew", **fields))

    assert response.status == 200
    assert upstream.requests[0].value("X-HTTP-Method-Override") == b"DELETE"


@pytest.mark.parametrize(("who", "name"), [(None, None), (MALLORY, None), (ALICE, ALICE.sub)])
async def test_who_is_denied_is_nobody_where_everybody_may(
    gate: RunningGate, upstream: RawUpstream, who: Profile | None, name: str | None
) -> None:
    """A public route lets a denied person in without a name; who is not denied keeps theirs."""
    response = await _ask(gate, "/site/x", who)

    assert response.status == 200
    assert upstream.requests[0].value("X-Tailchat-Sub") == (name.encode() if name else None)
    assert upstream.requests[0].value("X-Tailchat-Nickname") == (b"Alice" if name else None)
    assert upstream.requests[0].value("Cookie") is None
    sub = who.sub if who else ""
    assert await _reasons(gate) == [(200, "signed-in" if name else "public", "site", sub)]


async def test_who_is_nobody_has_no_session_renewed(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A person who is denied gets no longer session from a route that takes them for nobody."""
    gate = await start_gate(
        upstream.url,
        session={"idle": "1h"},
        route=[{"name": "site", "allow": ["public"], "deny": [f"sub:{MALLORY.sub}"]}],
    )
    cookies = {who: gate.cookie(who) for who in (ALICE, MALLORY)}
    gate.clock.now += 1800

    alice, mallory = [
        await ask(gate.port, request_bytes(Cookie=cookies[who])) for who in (ALICE, MALLORY)
    ]

    assert alice.value("Set-Cookie") != ""
    assert mallory.value("Set-Cookie") == ""


async def test_a_nickname_opens_nothing(start_gate: Start, upstream: RawUpstream) -> None:
    """Who calls himself by a sub, a group, a token or a word of the rules is let in by none."""
    gate = await start_gate(
        upstream.url,
        groups={"ops": [BOB.sub]},
        token=TOKENS,
        route=[{"name": "vault", "allow": ["group:ops", "sub:hoshino", "token:backup"]}],
    )
    for name in ("ops", "group:ops", "hoshino", "sub:hoshino", "backup", BOB.sub, "public"):
        liar = Profile("660000000000000000000005", name, name, name)
        response = await _ask(gate, "/", liar)
        assert (response.status, response.json["error"]) == (403, "denied")

    assert upstream.requests == []


@pytest.mark.parametrize(
    ("host", "status", "route"),
    [
        ("a.lab.test", 200, "lab"),
        ("x.y.lab.test:8080", 200, "lab"),
        ("vault.lab.test", 401, "vault"),
        ("VAULT.Lab.Test.:443", 401, "vault"),
        ("x.vault.lab.test", 200, "lab"),
        ("lab.test", 401, "home"),
        ("badlab.test", 401, "home"),
    ],
)
async def test_hosts(
    gate: RunningGate, upstream: RawUpstream, host: str, status: int, route: str
) -> None:
    """A host is met in any spelling, a whole name before a wildcard, never by a part of a label."""
    response = await _ask(gate, "/", host=host)

    assert response.status == status
    assert [line[2] for line in await _reasons(gate)] == [route]
    assert [request.value("Host") for request in upstream.requests] == (
        [host.encode()] if status == 200 else []
    )


async def test_an_absolute_target_names_no_other_host(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """The host that was judged is the one that is asked for (RFC 9112 section 3.2.2)."""
    other = await _ask(gate, "http://a.lab.test/", host="vault.lab.test")
    same = await _ask(gate, "http://vault.lab.test/", host="vault.lab.test")

    assert (other.status, same.status) == (400, 401)
    assert upstream.requests == []


async def test_own_paths_come_before_any_route(start_gate: Start, upstream: RawUpstream) -> None:
    """No route takes what is the gate's own, on no host and with no method."""
    route = [
        {"name": "all", "allow": ["public"]},
        {"name": "lab", "host": "*.lab.test", "allow": ["public"], "methods": ["POST"]},
    ]
    gate = await start_gate(upstream.url, route=route)
    for host in ("gate.test", "a.lab.test"):
        for path in ("/oauth2/auth", "/oauth2", "/oauth2/x", "/ping"):
            for method in ("GET", "POST", "PROPFIND"):
                await _ask(gate, path, method=method, host=host)

    assert upstream.requests == []
    assert {line[2] for line in await _reasons(gate)} == {""}


async def test_a_path_without_end_is_a_bad_request(
    start_gate: Start, upstream: RawUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A path made to be read in many ways is the client's fault, and no fault of the gate."""
    route = [{"name": "all", "allow": ["public"]}, {"name": "vault", "path": "/vault"}]
    gate = await start_gate(upstream.url, route=route)

    response = await ask(gate.port, request_bytes("/" + "%252e%252e%252f;%255c//" * 300))

    assert (response.status, response.json["error"]) == (400, "bad-request")
    assert upstream.requests == []
    assert caplog.records == []


async def test_a_denied_person_sees_why(gate: RunningGate) -> None:
    """The page for who is on a deny list shows what to pass on, as the one for denied does."""
    for path, who, reason in (("/", MALLORY, "deny-listed"), ("/token", ALICE, "denied")):
        page = await _ask(gate, path, who, Accept="text/html")
        text = page.body.decode()

        assert page.status == 403
        for shown in (
            who.sub,
            who.nickname,
            reason,
            "/oauth2/sign_out",
            f"/oauth2/start?rd={path}",
        ):
            assert shown in text
