"""What of a visitor's credentials a tool gets from a proxy that asks: as from the gate itself."""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from accounts import user_named
from edgekit import TOKEN, Edge, edge, in_front
from gatekit import Clock, RawClient, Received, Response, ask, request_bytes
from visitor import Visitor
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.identity.machine_tokens import make_token

pytestmark = in_front
HOSHINO: Final = user_named("hoshino")
LOST: Final = make_token(bytes([8]) * 32)
named: Final = pytest.mark.parametrize("front", ["named"], indirect=True)


def basic(user: str, password: str) -> str:
    """Return an Authorization value of RFC 7617."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


#: Fields with the machine's token, at each place of a group of base64 and in other spellings.
TOKENS: Final = (
    {"Authorization": f"Bearer {TOKEN}"},
    {"Authorization": f"bEARER   {TOKEN}"},
    {"Authorization": basic("", TOKEN)},
    {"Authorization": basic("a", TOKEN)},
    {"Authorization": basic("ab", TOKEN)},
    {"Authorization": basic("a", TOKEN).replace("Basic ", "bASIC   ")},
    {"Authorization": basic(TOKEN, "")},
    {"Authorization": basic(TOKEN, "x-oauth-basic")},
    {"X_Tailchat_Token": TOKEN},
    {"X_Tailchat_Token": TOKEN, "Authorization": basic("admin", "secret")},
    {"X_Tailchat_Token": TOKEN, "Authorization": "Bearer eyJhbGciOi"},
)
#: Fields with what was meant as a token, or only looks like one.
OTHERS: Final = (
    {"Authorization": f"Bearer {LOST}"},
    {"Authorization": f"Bearer\t{TOKEN}"},
    {"Authorization": f'Bearer "{TOKEN}"'},
    {"Authorization": basic("a", LOST)},
    {"Authorization": basic("a", TOKEN).rstrip("=")},
    {"Authorization": basic("a", TOKEN) + " "},
    {"Authorization": "Basic " + basic("a", TOKEN)[6:14] + " " + basic("a", TOKEN)[14:]},
    {"Authorization": basic(LOST, "x")},
    {"X_Tailchat_Token": LOST},
    {"X_Tailchat_Token": "ci"},
    {"X_Tailchat_Token": "admin", "Authorization": basic("admin", "secret")},
    {"X_Tailchat_Token": TOKEN, "Authorization": f"Bearer {TOKEN}"},
)
#: A token beside another field of its name: some proxies join the two.
REPEATED: Final = (
    {"Authorization": basic("a", TOKEN), "authorization": "Basic YTpi"},
    {"Authorization": "Basic YTpi", "authorization": basic("a", TOKEN)},
    {"X_Tailchat_Token": TOKEN, "x_tailchat_token": "admin"},
)
#: A tool's own credentials.
OWN: Final = (
    "Basic YTpi",
    "basic  YTpi",
    "Bearer abc.tg_.def",
    "Basic {env.PATH} {http.request.uri} %{+Q}o ${host} %REQ(:path)%",
    'Digest username="Mufasa", realm="a, b", uri="/dir"',
    f"Negotiate {'YII' * 2000}",
)


async def sent(
    front: Edge, path: str, fields: Mapping[str, str], port: int = 0
) -> tuple[Response, list[Received]]:
    """Ask for a path of the tool's; return the answer and what reached the tool of it."""
    tool = front.scene.tool
    tool.requests.clear()
    host = f"wiki.test:{front.port}"
    response = await ask(port or front.port, request_bytes(path, host=host, **fields))
    return response, list(tool.requests)


def told(received: list[Received]) -> list[tuple[list[bytes], list[bytes]]]:
    """Return what the tool heard of credentials."""
    return [(each.values("Authorization"), each.values("X-Tailchat-Token")) for each in received]


async def session(front: Edge) -> str:
    """Sign somebody in; return the cookies of the tool's host."""
    async with Visitor() as visitor:
        where = front.url("wiki.test")
        await visitor.sign_in(f"{where}/page", HOSHINO.email, HOSHINO.password)
        return visitor.cookie(where)


@named
async def test_a_machine_is_known_and_its_token_stays_here(front: Edge) -> None:
    """In whatever way a token comes, the tool hears a name, and credentials of its own alone."""
    for fields in TOKENS:
        response, received = await sent(front, "/page", fields)
        own = [fields["Authorization"].encode()] if "Authorization" in fields else []
        assert (fields, response.status) == (fields, 200)
        assert told(received) == [(own if "X_Tailchat_Token" in fields else [], [b"ci"])]


@named
async def test_both_ways_are_one(front: Edge) -> None:
    """Whatever comes, the proxy sends on what the gate would, and refuses where it would."""
    cookie, gate = await session(front), front.scene.gate.port
    own = ({"Authorization": value} for value in OWN[:-1])
    differing = []
    for fields in (*TOKENS, *OTHERS, *own):
        for path in ("/page", "/open", "/keeps", "/closed"):
            for more in ({}, {"Cookie": cookie}):
                asked = {**fields, **more}
                response, received = await sent(front, path, asked)
                there, received_there = await sent(front, path, asked, gate)
                found = (response.status, told(received)), (there.status, told(received_there))
                if found[0] != found[1]:
                    differing.append((path, asked, *found))

    assert differing == []


@named
async def test_a_token_beside_another_field_is_refused(front: Edge) -> None:
    """Nobody can tell which of the two a tool would read: neither arrives, whatever the page."""
    cookie = await session(front)
    for fields in REPEATED:
        for path in ("/page", "/open", "/keeps"):
            response, received = await sent(front, path, {**fields, "Cookie": cookie})
            assert (fields, received) == (fields, [])
            assert response.status in {400, 401}


@named
async def test_a_tools_own_credentials_arrive(front: Edge) -> None:
    """With a session, and on a public page, what is not the gate's keeps its bytes."""
    cookie = await session(front)
    for value in OWN:
        for path, more in (("/page", {"Cookie": cookie}), ("/open", {})):
            response, received = await sent(front, path, {"Authorization": value, **more})
            assert (response.status, told(received)) == (200, [([value.encode()], [])])


@named
async def test_a_token_that_connection_names_reaches_no_tool(front: Edge) -> None:
    """Fields that Connection lists are dropped on the way to the gate by some: to the tool too."""
    cookie = await session(front)
    for fields in TOKENS:
        listed = {"Connection": "Authorization, X-Tailchat-Token", **fields}
        for path in ("/open", "/page"):
            _, received = await sent(front, path, {"Cookie": cookie, **listed})
            said = [value for each in told(received) for values in each for value in values]
            assert not any(TOKEN[3:].encode() in value for value in said)
            assert basic("a", TOKEN).encode() not in said


@named
async def test_a_visitor_gives_the_edge_no_orders(front: Edge) -> None:
    """What the answer says to the edge cannot be said in a request, nor can a machine's name."""
    cookie = await session(front)
    for fields in (
        {"X_Envoy_Auth_Headers_To_Remove": "x-tailchat-sub"},
        {"Kept_Token": TOKEN},
        {"Kept_Token": "ci"},
        {"X_Tailchat_Token": "ci"},
        {"X_Tailchat_Token": "admin, ci"},
    ):
        for path, more in (("/page", {"Cookie": cookie}), ("/open", {})):
            response, received = await sent(front, path, {**fields, **more})
            assert (fields, response.status, told(received)) == (fields, 200, [([], [])])
            subs = [HOSHINO.sub.encode()] if more else []
            assert received[0].values("X-Tailchat-Sub") == subs


@named
async def test_a_machine_opens_a_websocket(front: Edge) -> None:
    """A switch comes with a token as well as any other request."""
    front.scene.tool.answer = SWITCH
    for fields in TOKENS:
        front.scene.tool.requests.clear()
        async with RawClient.connect(front.port) as client:
            host = f"wiki.test:{front.port}"
            client.send(request_bytes("/socket", host=host, **UPGRADE, **fields))
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        (received,) = front.scene.tool.requests
        assert received.value("X-Tailchat-Token") == b"ci"
        assert TOKEN.encode() not in received.head


async def test_credentials_that_a_route_sets_are_the_tools(
    proxy: str, tmp_path: Path, clock: Clock
) -> None:
    """`headers` with Authorization takes the visitor's away, also where nobody is told of."""
    routes = (
        {
            "name": "wiki",
            "host": "wiki.test",
            "allow": ["signed-in", "token:ci"],
            "headers": {"Authorization": basic("gate", "secret")},
        },
        {"name": "open", "host": "wiki.test", "path": "/open", "allow": ["public"]},
    )
    async with edge(proxy, tmp_path, clock, routes=routes) as front:
        cookie = await session(front)
        for fields in ({"Cookie": cookie}, {"Authorization": basic("a", TOKEN)}):
            for more in ({}, {"Authorization": OWN[0]}):
                _, received = await sent(front, "/page", {**more, **fields})
                assert told(received)[0][0] == [basic("gate", "secret").encode()]
        _, received = await sent(front, "/open", {"Authorization": OWN[0]})
        assert told(received) == [([], [])]
