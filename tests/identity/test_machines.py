"""Machines, end to end: a token opens the routes that name it, and no token gets any further."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gatekit import (
    OK,
    SUB,
    Clock,
    RawClient,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    break_route,
    request_bytes,
    until,
)
from visitor import NAVIGATION
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.config.values.quantities import format_timestamp
from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.proxy.message.websocket_frames import close_frame

Start = Callable[..., Any]

#: Tokens by name; "lost" is in no configuration.
SECRETS = {
    name: make_token(bytes([number]) * 32)
    for number, name in enumerate(["ci", "wiki-bot", "old", "lost"])
}
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Yard:
    """One gate before three tools."""

    gate: RunningGate
    tool: RawUpstream
    wiki: RawUpstream
    site: RawUpstream
    clock: Clock

    @property
    def reached(self) -> int:
        """How many requests reached a tool."""
        return sum(len(tool.requests) for tool in (self.tool, self.wiki, self.site))

    async def ask(self, target: str = "/", *, method: str = "GET", **fields: str) -> Response:
        """Ask the gate on a connection of its own."""
        return await ask(
            self.gate.port,
            request_bytes(target, method=method, **fields),
            to_head=method == "HEAD",
        )


def bearer(name: str) -> str:
    """Return the Authorization value that presents a token."""
    return f"Bearer {SECRETS[name]}"


def tokens(clock: Clock) -> list[dict[str, object]]:
    """Return the [[token]] tables: one for all that names it, one confined, one that is over."""
    more: dict[str, dict[str, object]] = {
        "ci": {"expires": format_timestamp(clock() + DAY)},
        "wiki-bot": {"routes": ["wiki"]},
        "old": {"expires": format_timestamp(clock() - 1)},
    }
    return [{"name": name, "hash": hash_of(SECRETS[name]), **more[name]} for name in more]


@pytest.fixture
async def yard(start_gate: Start, clock: Clock) -> AsyncIterator[Yard]:
    """Return the gate and its tools."""
    async with AsyncExitStack() as stack:
        tool, wiki, site = [await stack.enter_async_context(RawUpstream()) for _ in range(3)]
        everyone = ["signed-in", "token:ci", "token:old"]
        gate = await start_gate(
            tool.url,
            token=tokens(clock),
            route=[
                {"name": "tool", "path": "/", "allow": everyone},
                {
                    "name": "wiki",
                    "path": "/wiki",
                    "upstream": wiki.url,
                    "allow": ["token:wiki-bot", "signed-in"],
                    "forward_authorization": True,
                    "headers": {"X-Key": "fixed {{1}}", "X-User": "{sub}", "X-Both": "a-{sub}"},
                },
                {"name": "people", "path": "/people", "allow": ["signed-in"]},
                {
                    "name": "one",
                    "path": "/one",
                    "allow": [f"sub:{SUB}", "token:ci"],
                    "forward_authorization": True,
                },
                # Names a token that is confined to another route.
                {"name": "both", "path": "/both", "allow": ["token:wiki-bot", "token:ci"]},
                {"name": "site", "path": "/site", "upstream": site.url, "allow": ["public"]},
                {
                    "name": "health",
                    "path": "/health",
                    "upstream": "static:204",
                    "allow": ["token:ci"],
                },
            ],
        )
        yield Yard(gate, tool, wiki, site, clock)


async def test_a_token_opens_a_route_that_names_it(yard: Yard) -> None:
    """The request arrives with the token's name, without the token and as nobody's."""
    response = await yard.ask("/a?b=c", Authorization=bearer("ci"), X_Tailchat_Token="admin")

    assert (response.status, response.body) == (200, b"ok")
    (received,) = yard.tool.requests
    assert received.line == b"GET /a?b=c HTTP/1.1"
    assert received.value("X-Tailchat-Token") == b"ci"
    assert received.values("Authorization") == []
    names = {name.lower() for name, _ in received.fields if name.lower().startswith(b"x-tailchat")}
    assert names == {b"x-tailchat-token"}
    (line,) = await yard.gate.log()
    assert (line["reason"], line["token"], line["sub"]) == ("token", "ci", "")
    metrics = yard.gate.generation.process_state.metrics.render().decode()
    assert 'gate_decisions_total{reason="token",route="tool"} 1.0' in metrics
    assert '"ci"' not in metrics


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer   "])
async def test_the_scheme_is_read_in_any_case(yard: Yard, scheme: str) -> None:
    """RFC 9110 section 11.1: a scheme has no case, and spaces behind it are one."""
    response = await yard.ask("/", Authorization=f"{scheme} {SECRETS['ci']}")

    assert response.status == 200
    assert yard.tool.requests[0].values("Authorization") == []


#: What is presented, and what it is answered: status, reason, error of RFC 6750, name in the log.
REFUSED: dict[str, tuple[str, str, int, str, str, str]] = {
    "unknown": ("/", bearer("lost"), 401, "token-unknown", "invalid_token", ""),
    "expired": ("/", bearer("old"), 401, "token-expired", "invalid_token", "old"),
    "cut": ("/", bearer("ci")[:-1], 401, "token-unknown", "invalid_token", ""),
    "longer": ("/", bearer("ci") + "A", 401, "token-unknown", "invalid_token", ""),
    "its hash": (
        *("/", f"Bearer tg_{hash_of(SECRETS['ci'])[7:]}"),
        *(401, "token-unknown", "invalid_token", ""),
    ),
    "malformed": ("/", "Bearer tg_a b", 401, "token-unknown", "invalid_token", ""),
    "quoted": ("/", f'Bearer "{SECRETS["ci"]}"', 401, "token-unknown", "invalid_token", ""),
    "tab": ("/", f"Bearer\t{SECRETS['ci']}", 401, "token-unknown", "invalid_token", ""),
    "empty": ("/", "Bearer tg_", 401, "token-unknown", "invalid_token", ""),
    "unknown on a public route": (
        *("/site", bearer("lost")),
        *(401, "token-unknown", "invalid_token", ""),
    ),
    "expired on a public route": (
        *("/site", bearer("old")),
        *(401, "token-expired", "invalid_token", "old"),
    ),
    "unknown where nothing is": (
        *("/site/../..//", bearer("lost")),
        *(401, "token-unknown", "invalid_token", ""),
    ),
    "for people alone": (
        *("/people", bearer("ci")),
        *(403, "token-elsewhere", "insufficient_scope", "ci"),
    ),
    "another's route": (
        *("/wiki", bearer("ci")),
        *(403, "token-elsewhere", "insufficient_scope", "ci"),
    ),
    "not its route": (
        *("/", bearer("wiki-bot")),
        *(403, "token-elsewhere", "insufficient_scope", "wiki-bot"),
    ),
    "confined to another route": (
        *("/both", bearer("wiki-bot")),
        *(403, "token-elsewhere", "insufficient_scope", "wiki-bot"),
    ),
    "one reading is another route": (
        *("/both/..%2fpeople", bearer("ci")),
        *(403, "token-elsewhere", "insufficient_scope", "ci"),
    ),
    "one reading is a route it is confined from": (
        *("/wiki/..%2fboth", bearer("wiki-bot")),
        *(403, "token-elsewhere", "insufficient_scope", "wiki-bot"),
    ),
}


@pytest.mark.parametrize("cookie", [False, True])
@pytest.mark.parametrize("case", REFUSED)
async def test_no_other_token_opens_it(yard: Yard, case: str, cookie: bool) -> None:
    """A token that is no good here reaches no tool, not even beside a good session cookie."""
    target, value, status, reason, error, name = REFUSED[case]
    fields = {"Cookie": yard.gate.cookie()} if cookie else {}
    response = await yard.ask(target, Authorization=value, **fields)

    assert (response.status, response.json["error"]) == (status, reason)
    assert response.json.get("token", "") == name
    assert response.value("WWW-Authenticate") == f'Bearer realm="tailchat", error="{error}"'
    assert response.values("Set-Cookie") == []
    assert yard.reached == 0
    (line,) = await yard.gate.log()
    assert (line["status"], line["reason"]) == (status, reason)
    assert (line["token"], line["sub"]) == (name, "")


@pytest.mark.parametrize("case", REFUSED)
async def test_a_machine_is_never_sent_to_the_login(yard: Yard, case: str) -> None:
    """A request that looks like a browser's navigation gets a page, and no redirect."""
    target, value, status, reason, _, _ = REFUSED[case]
    response = await ask(
        yard.gate.port,
        request_bytes(
            target, Authorization=value, **{k.replace("-", "_"): v for k, v in NAVIGATION.items()}
        ),
    )

    assert (response.status, response.value("Location")) == (status, "")
    assert response.value("Content-Type").startswith("text/html")
    assert reason.encode() in response.body
    assert SECRETS["ci"].encode() not in response.body


async def test_a_refused_machine_keeps_its_connection(yard: Yard) -> None:
    """A refusal is an answer like any: the next request on the connection has its own."""
    async with RawClient.connect(yard.gate.port) as client:
        statuses = []
        for name in ("lost", "ci", "old", "ci"):
            client.send(request_bytes("/", Authorization=bearer(name)))
            statuses.append((await client.response()).status)

    assert statuses == [401, 200, 401, 200]


async def test_two_authorizations_are_refused(yard: Yard) -> None:
    """A token beside another Authorization is refused, whichever comes first."""
    for first, second in (
        ("Basic YTpi", bearer("ci")),
        (bearer("ci"), "Basic YTpi"),
        (bearer("ci"), bearer("ci")),
        (bearer("ci"), bearer("wiki-bot")),
        (bearer("lost"), "Bearer x"),
    ):
        data = request_bytes("/", Authorization=first, authorization=second)
        response = await ask(yard.gate.port, data.replace(b"authorization", b"AUTHORIZATION"))
        assert (response.status, response.json["error"]) == (400, "bad-request")

    assert yard.reached == 0


async def test_other_authorizations_are_the_tools_business(yard: Yard) -> None:
    """What is no token of the gate passes with its bytes, and lets nobody in by itself."""
    values = ["Basic YTpi", "Bearer eyJhbGciOiJFUzI1NiJ9.e30.tg_", "Bearer TG_x", "Negotiate tg_x"]
    for value in values:
        assert (await yard.ask("/", Authorization=value)).status == 401
        assert yard.reached == 0
        response = await yard.ask("/", Authorization=value, Cookie=yard.gate.cookie())
        assert response.status == 200
        received = yard.tool.requests.pop()
        assert received.value("Authorization") == value.encode()
        assert received.value("X-Tailchat-Sub") == SUB.encode()


async def test_a_machine_beside_a_session_is_the_machine(yard: Yard) -> None:
    """The cookie of a person adds nothing to a token: neither identity nor doors."""
    cookie = yard.gate.cookie()
    assert (await yard.ask("/", Cookie=cookie, Authorization=bearer("ci"))).status == 200
    assert (await yard.ask("/people", Cookie=cookie, Authorization=bearer("ci"))).status == 403
    assert (await yard.ask("/people", Cookie=cookie)).status == 200

    machine, person = yard.tool.requests
    assert machine.value("X-Tailchat-Token") == b"ci"
    assert machine.value("X-Tailchat-Sub") is None
    assert machine.value("Cookie") is None
    assert person.value("X-Tailchat-Sub") == SUB.encode()
    assert person.value("X-Tailchat-Token") is None


async def test_no_session_is_renewed_for_a_machine(start_gate: Start, clock: Clock) -> None:
    """An idle session does not live on by what a machine does."""
    async with RawUpstream() as tool:
        gate = await start_gate(
            tool.url,
            session={"idle": "1h"},
            token=tokens(clock)[:1],
            route=[{"name": "tool", "allow": ["signed-in", "token:ci"]}],
        )
        cookie = gate.cookie()
        clock.now += 1800
        both = request_bytes("/", Cookie=cookie, Authorization=bearer("ci"))
        assert (await ask(gate.port, both)).values("Set-Cookie") == []
        alone = request_bytes("/", Cookie=cookie)
        assert len((await ask(gate.port, alone)).values("Set-Cookie")) == 1


async def test_a_token_in_the_query_is_ignored(yard: Yard) -> None:
    """Addresses are logged, kept and passed on by everybody, so no token counts there."""
    for target in (
        f"/?access_token={SECRETS['ci']}",
        f"/?token={SECRETS['ci']}",
        f"/{SECRETS['ci']}",
        f"/?Authorization=Bearer%20{SECRETS['ci']}",
    ):
        assert (await yard.ask(target)).status == 401
    body = f"access_token={SECRETS['ci']}".encode()
    data = request_bytes(
        "/",
        method="POST",
        Content_Type="application/x-www-form-urlencoded",
        Content_Length=str(len(body)),
    )
    assert (await ask(yard.gate.port, data + body)).status == 401
    assert (await yard.ask("/", Cookie=f"Authorization=Bearer {SECRETS['ci']}")).status == 401
    assert (await yard.ask("/", Proxy_Authorization=bearer("ci"))).status == 401
    assert (await yard.ask("/", X_Authorization=bearer("ci"))).status == 401
    assert (await yard.ask("/", X_Tailchat_Token="ci")).status == 401

    assert yard.reached == 0


async def test_the_token_goes_on_only_where_the_route_says_so(yard: Yard) -> None:
    """forward_authorization passes the field on with its bytes; without it none arrives."""
    value = f"bearer  {SECRETS['wiki-bot']}"
    assert (await yard.ask("/wiki", Authorization=value)).status == 200

    (received,) = yard.wiki.requests
    assert received.value("Authorization") == value.encode()
    assert received.value("X-Tailchat-Token") == b"wiki-bot"


async def test_one_section_on_two_routes(yard: Yard) -> None:
    """What was kept of a header section for one route is not what the other's tool gets."""
    both = {"Authorization": bearer("ci"), "X_Same": "1"}
    for target in ("/one", "/site", "/one"):
        assert (await yard.ask(target, **both)).status == 200

    assert [received.value("Authorization") for received in yard.tool.requests] == [
        bearer("ci").encode()
    ] * 2
    assert yard.site.requests[0].values("Authorization") == []


async def test_headers_of_a_route_for_a_machine(yard: Yard) -> None:
    """A machine gets the fixed ones; those about a person stay away, also as a client's own."""
    assert (
        await yard.ask("/wiki", Authorization=bearer("wiki-bot"), X_User="root", X_Both="a-root")
    ).status == 200

    (received,) = yard.wiki.requests
    assert received.value("X-Key") == b"fixed {1}"
    assert received.values("X-User") == received.values("X-Both") == []


async def test_a_public_route_knows_the_machine(yard: Yard) -> None:
    """What is open to everybody is open to a machine, and it is told as one."""
    assert (await yard.ask("/site", Authorization=bearer("ci"))).status == 200

    (received,) = yard.site.requests
    assert received.value("X-Tailchat-Token") == b"ci"
    assert received.values("Authorization") == []
    assert (await yard.gate.log())[-1]["reason"] == "token"


async def test_a_route_without_a_tool(yard: Yard) -> None:
    """What the gate answers itself is for a machine too, where its token is named."""
    assert (await yard.ask("/health", Authorization=bearer("ci"))).status == 204
    assert (await yard.ask("/health", Authorization=bearer("wiki-bot"))).status == 403
    assert (await yard.ask("/health", Cookie=yard.gate.cookie())).status == 403


async def test_a_person_is_no_machine(yard: Yard) -> None:
    """A person whose sub is a token's name gets nothing that the token has."""
    for sub in ("ci", "token:ci"):
        cookie = yard.gate.cookie(Profile(sub, "ci", "", ""))
        assert (await yard.ask("/one", Cookie=cookie)).status == 403
    assert yard.reached == 0


async def test_a_token_ends_while_it_is_used(yard: Yard) -> None:
    """On one connection, with the same bytes, a token is good until its second and not after."""
    data = request_bytes("/", Authorization=bearer("ci"))
    async with RawClient.connect(yard.gate.port) as client:
        client.send(data)
        assert (await client.response()).status == 200
        yard.clock.now += DAY
        client.send(data)
        response = await client.response()

    assert (response.status, response.json["error"]) == (401, "token-expired")
    assert yard.reached == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_every_method_is_judged_alike(yard: Yard, method: str) -> None:
    """No method is let through without a good token, and every one with it."""
    yard.tool.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    for name in ("lost", "old"):
        assert (await yard.ask("/", method=method, Authorization=bearer(name))).status == 401
    assert (await yard.ask("/people", method=method, Authorization=bearer("ci"))).status == 403
    assert yard.reached == 0
    assert (await yard.ask("/", method=method, Authorization=bearer("ci"))).status == 204


async def test_http_1_0(yard: Yard) -> None:
    """The old version is judged alike, with and without Host."""
    for fields, target in ((b"Host: gate.test\r\n", b"/"), (b"", b"/")):
        for name, status in (("ci", 200), ("lost", 401), ("old", 401), ("wiki-bot", 403)):
            field = b"Authorization: " + bearer(name).encode() + b"\r\n"
            data = b"GET %b HTTP/1.0\r\n" % target + fields + field + b"\r\n"
            assert (await ask(yard.gate.port, data)).status == status

    assert [received.value("Authorization") for received in yard.tool.requests] == [None, None]


async def test_a_body_goes_on_with_the_token(yard: Yard) -> None:
    """An upload of a machine arrives whole; one without a good token ends at the gate."""
    field = {"Content_Length": "5"}
    good = request_bytes("/", method="POST", Authorization=bearer("ci"), **field) + b"hello"
    bad = request_bytes("/", method="POST", Authorization=bearer("lost"), **field) + b"hello"

    assert (await ask(yard.gate.port, bad)).status == 401
    assert (await ask(yard.gate.port, good)).status == 200
    (received,) = yard.tool.requests
    assert received.body == b"hello"


async def test_a_trailer_is_no_token(yard: Yard) -> None:
    """An Authorization behind a body counts for nobody and goes no further."""
    data = request_bytes("/", method="POST", Transfer_Encoding="chunked", TE="trailers")
    body = b"2\r\nhi\r\n0\r\nAuthorization: " + bearer("ci").encode() + b"\r\n\r\n"

    assert (await ask(yard.gate.port, data + body)).status == 401
    public = request_bytes("/site", method="POST", Transfer_Encoding="chunked")
    assert (await ask(yard.gate.port, public + body)).status == 200
    (received,) = yard.site.requests
    assert received.trailers == []


async def test_connection_cannot_take_the_name_away(yard: Yard) -> None:
    """Connection drops what the client sent, never what the gate sets."""
    response = await yard.ask(
        "/", Authorization=bearer("ci"), Connection="Authorization, X-Tailchat-Token, Cookie"
    )

    assert response.status == 200
    (received,) = yard.tool.requests
    assert received.value("X-Tailchat-Token") == b"ci"
    assert received.values("Authorization") == []


async def test_requests_of_others_behind_one_another(yard: Yard) -> None:
    """On one pipelined connection each request is its own sender's, in order."""
    alice, machine = {"Cookie": yard.gate.cookie()}, {"Authorization": bearer("ci")}
    asked: list[tuple[dict[str, str], int, tuple[bytes | None, bytes | None]]] = [
        (alice, 200, (SUB.encode(), None)),
        (machine, 200, (None, b"ci")),
        ({}, 401, (None, None)),
        (alice, 200, (SUB.encode(), None)),
        ({"Authorization": bearer("lost")}, 401, (None, None)),
        ({**alice, **machine}, 200, (None, b"ci")),
        ({"Authorization": "Basic YTpi"}, 401, (None, None)),
        (machine, 200, (None, b"ci")),
    ]
    async with RawClient.connect(yard.gate.port) as client:
        client.send(
            b"".join(request_bytes(f"/{n}", **fields) for n, (fields, _, _) in enumerate(asked))
        )
        statuses = [(await client.response()).status for _ in asked]

    assert statuses == [status for _, status, _ in asked]
    assert [
        (received.line, received.value("X-Tailchat-Sub"), received.value("X-Tailchat-Token"))
        for received in yard.tool.requests
    ] == [
        (f"GET /{number} HTTP/1.1".encode(), *who)
        for number, (_, status, who) in enumerate(asked)
        if status == 200
    ]
    assert all(received.values("Authorization") == [] for received in yard.tool.requests)


# WebSockets.


async def test_a_machine_opens_a_websocket(yard: Yard) -> None:
    """It may from anywhere: no page can make a browser send a token, so no Origin is asked."""
    yard.tool.answer = SWITCH
    for origin in ({}, {"Origin": "https://elsewhere.example"}):
        async with RawClient.connect(yard.gate.port) as client:
            client.send(request_bytes("/ws", **UPGRADE, **origin, Authorization=bearer("ci")))
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")

    for received in yard.tool.requests:
        assert received.value("X-Tailchat-Token") == b"ci"
        assert received.value("Upgrade") == b"websocket"
        assert received.values("Authorization") == []
    response = await yard.ask(
        "/ws", **UPGRADE, Origin="https://elsewhere.example", Cookie=yard.gate.cookie()
    )
    assert (response.status, response.json["error"]) == (403, "origin-refused")


@pytest.mark.parametrize("case", REFUSED)
async def test_no_websocket_without_a_good_token(yard: Yard, case: str) -> None:
    """An upgrade is judged as any request is."""
    target, value, status, reason, _, _ = REFUSED[case]
    response = await yard.ask(target, **UPGRADE, Authorization=value)

    assert (response.status, response.json["error"]) == (status, reason)
    assert yard.reached == 0


async def test_a_websocket_ends_with_its_token(yard: Yard) -> None:
    """When the token is over, what was opened with it is closed with 3000."""
    yard.tool.answer = SWITCH
    async with RawClient.connect(yard.gate.port) as client:
        client.send(request_bytes("/ws", **UPGRADE, Authorization=bearer("ci")))
        await client.head()
        yard.clock.now += DAY
        frame = close_frame(3000, "the session is over")
        assert await client.reader.readexactly(len(frame)) == frame
        client.send(close_frame(3000, "", mask=b"abcd"))
        assert await client.reader.read() == b""
    await until(lambda: not yard.gate.generation.forwarder.tunnels)


# The gate's own addresses.


async def test_forward_auth_judges_machines(start_gate: Start, clock: Clock) -> None:
    """A proxy that asks gets what the routes say of the token, by the original request."""
    gate = await start_gate(
        server={"trusted_proxies": ["127.0.0.1"]},
        token=tokens(clock),
        route=[
            {"name": "tool", "host": "tool.test", "allow": ["token:ci", "token:old"]},
            {"name": "wiki", "host": "wiki.test", "allow": ["token:wiki-bot"]},
        ],
    )
    asked = {
        ("ci", "tool.test"): (202, "own-path"),
        ("ci", "wiki.test"): (403, "token-elsewhere"),
        ("wiki-bot", "wiki.test"): (202, "own-path"),
        ("wiki-bot", "tool.test"): (403, "token-elsewhere"),
        ("old", "tool.test"): (401, "token-expired"),
        ("lost", "tool.test"): (401, "token-unknown"),
        ("lost", "nowhere.test"): (401, "token-unknown"),
        ("ci", "nowhere.test"): (403, "no-route"),
    }
    for (name, host), (status, reason) in asked.items():
        for more in ({}, {"Cookie": gate.cookie_for(host)}, {"Accept": "text/html"}):
            question = {
                "X_Forwarded_Method": "GET",
                "X_Forwarded_Host": host,
                "X_Forwarded_Uri": "/page",
                "Authorization": bearer(name),
            }
            response = await ask(gate.port, request_bytes("/oauth2/auth", **question, **more))
            assert response.status == status, (name, host)
            assert response.values("Location") == response.values("Set-Cookie") == []
            assert response.values("X-Tailchat-Sub") == response.values("Authorization") == []
            assert response.value("X-Tailchat-Token") == (name if status == 202 else "")
            if status != 202:
                assert reason.encode() in response.body
            if reason in {"token-elsewhere", "token-expired"}:
                # Named to the owner of the token, who can tell an admin.
                assert name.encode() in response.body


async def test_forward_auth_asks_no_origin_of_a_machine(start_gate: Start, clock: Clock) -> None:
    """A WebSocket with a token may come from anywhere, by way of a proxy too."""
    gate = await start_gate(
        server={"trusted_proxies": ["127.0.0.1"]},
        token=tokens(clock)[:1],
        route=[{"name": "tool", "host": "tool.test", "allow": ["token:ci", "signed-in"]}],
    )
    question = {
        "X_Forwarded_Method": "GET",
        "X_Forwarded_Host": "tool.test",
        "X_Forwarded_Uri": "/ws",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "https://elsewhere.example",
    }
    statuses = [
        (await ask(gate.port, request_bytes("/oauth2/auth", **question, **who))).status
        for who in ({"Authorization": bearer("ci")}, {"Cookie": gate.cookie_for("tool.test")})
    ]

    assert statuses == [202, 403]


async def test_refusals_of_machines_are_noted(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """The audit log and the last refusals name the token; of what is not known nothing is kept."""
    caplog.set_level(logging.INFO)
    for name in ("ci", "old", "lost", "ci"):
        await yard.ask("/people", Authorization=bearer(name))
    await yard.ask("/oauth2/userinfo", Authorization=bearer("old"))

    found = yard.gate.generation.process_state.audit.refusals
    assert [(one.person.sub, one.route, one.reason, one.count) for one in found] == [
        ("token:ci", "people", "token-elsewhere", 2),
        ("token:old", "people", "token-expired", 1),
    ]
    told = [record.__dict__["details"] for record in caplog.records if record.message == "audit"]
    assert [(one["event"], one["sub"], one["reason"]) for one in told] == [
        ("refused", "token:ci", "token-elsewhere"),
        ("refused", "token:old", "token-expired"),
    ]


async def test_who_am_i_for_a_machine(yard: Yard) -> None:
    """It is told the name of its token and when it is over, never by a page or a redirect."""
    navigation = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
    for more in ({}, navigation, {"Cookie": yard.gate.cookie()}):
        response = await yard.ask("/oauth2/userinfo", Authorization=bearer("ci"), **more)
        assert response.status == 200
        assert response.json == {"token": "ci", "expires_at": int(yard.clock()) + DAY}
    confined = await yard.ask("/oauth2/userinfo", Authorization=bearer("wiki-bot"))
    assert confined.json == {"token": "wiki-bot", "expires_at": None}
    for name, reason in (("lost", "token-unknown"), ("old", "token-expired")):
        response = await yard.ask("/oauth2/userinfo", Authorization=bearer(name))
        assert (response.status, response.json["error"]) == (401, reason)
    line = (await yard.gate.log())[0]
    assert (line["token"], line["sub"], line["reason"]) == ("ci", "", "own-path")


async def test_a_machine_where_nothing_is(start_gate: Start, clock: Clock) -> None:
    """A good token at an address of no route gets 404, also where a person would be led on."""
    navigation = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
    async with RawUpstream() as tool:
        gate = await start_gate(
            tool.url,
            token=tokens(clock)[:1],
            route=[{"name": "tool", "path": "/tool", "allow": ["token:ci"]}],
        )
        data = request_bytes("/", Authorization=bearer("ci"), **navigation)
        response = await ask(gate.port, data)

    assert (response.status, response.value("Location")) == (404, "")


async def test_without_tokens_in_the_configuration(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """A client that still sends the last token, which was removed, gets 401; no tool gets it."""
    response = await ask(
        gate.port, request_bytes("/", Authorization=bearer("ci"), Cookie=gate.cookie())
    )

    assert (response.status, response.json["error"]) == (401, "token-unknown")
    assert upstream.requests == []


# What a token is never in.


@pytest.mark.parametrize("fault", ["", "upstream", "gate"])
async def test_no_token_gets_into_a_log(
    yard: Yard,
    fault: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Neither log has a token in it, whatever comes of the requests, and no answer repeats one."""
    caplog.set_level(logging.DEBUG)
    if fault == "upstream":
        yard.tool.answer = b"no HTTP at all\r\n\r\n"
    elif fault == "gate":
        break_route(yard.gate, "tool")
    responses = [
        await yard.ask(target, Authorization=value)
        for target, value in [
            ("/", bearer("ci")),
            ("/oauth2/userinfo", bearer("ci")),
            *((target, value) for target, value, *_ in REFUSED.values()),
        ]
    ]
    log = (
        await asyncio.to_thread(yard.gate.log_file.read_bytes)
        + json.dumps(await yard.gate.log()).encode()
    )
    heard = (
        log
        + caplog.text.encode()
        + b"".join(response.head + response.body for response in responses)
    )
    errors = caplog.text.encode() + repr(yard.gate.generation).encode()

    for token in SECRETS.values():
        raw = base64.urlsafe_b64decode(token[3:] + "=")
        for form in (token[3:].encode(), raw, raw.hex().encode(), base64.b64encode(raw)):
            assert form not in heard
            assert form not in errors
    assert (fault == "gate") == ("failed inside the gate" in caplog.text)


async def test_the_answer_to_trace_has_no_token(start_gate: Start, clock: Clock) -> None:
    """A TRACE whose last hop is the gate shows no credentials (RFC 9110 section 9.3.8)."""
    async with RawUpstream(OK) as tool:
        gate = await start_gate(
            tool.url,
            token=tokens(clock)[:1],
            route=[{"name": "tool", "allow": ["token:ci"], "trace": True}],
        )
        data = request_bytes(
            "/", method="TRACE", Authorization=bearer("ci"), Max_Forwards="0", X_A="b"
        )
        response = await ask(gate.port, data)

    assert response.status == 200
    assert b"X-A: b" in response.body
    assert b"tg_" not in response.body
