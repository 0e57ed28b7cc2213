"""Proxies that serve a tool themselves and ask the gate: the configurations of deploy/."""

from asyncio import StreamReader, StreamWriter
from itertools import product

import pytest
from accounts import user_named
from edgekit import TOKEN, Edge, in_front
from gatekit import RawClient, Received, ask, request_bytes
from visitor import FETCH, Visitor
from websocketkit import MASK, SWITCH, UPGRADE

from tailchat_gate.identity.revocation.state import Lock, Unlock

HOSHINO = user_named("hoshino")
HOSTS = ("wiki.test", "gate.test")
pytestmark = [in_front, pytest.mark.parametrize("front", ["named"], indirect=True)]


async def signed_in(visitor: Visitor, front: Edge, path: str = "/page?a=b%2F") -> str:
    """Sign in by way of a tool's address; return what the browser ends at."""
    page = await visitor.sign_in(front.url("wiki.test") + path, HOSHINO.email, HOSHINO.password)
    return f"{page.status} {page.url}"


async def test_a_visitor_signs_in_and_reaches_the_tool(front: Edge) -> None:
    """From the tool's address to Tailchat and back; the tool hears from the proxy who it is."""
    async with Visitor() as visitor:
        assert await signed_in(visitor, front) == f"200 {front.url('wiki.test')}/page?a=b%2F"

    received = front.scene.tool.requests[-1]
    assert received.line.startswith(b"GET /page?a=b%2F HTTP/1.")
    assert received.value("X-Tailchat-Sub") == HOSHINO.sub.encode()
    assert received.value("X-Tailchat-Nickname") == b"%E6%98%9F%E9%87%8E Hoshino %E2%98%86"


async def test_what_a_visitor_says_of_himself_is_gone(front: Edge) -> None:
    """Identity headers of the visitor's making never arrive, where the gate says nothing too."""
    names = ("Sub", "Nickname", "Discriminator", "Avatar", "Groups", "Email", "Token", "Assertion")
    forged = {f"X-Tailchat-{name}": "forged" for name in names}
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        for path in ("/page", "/open"):
            await visitor.open(front.url("wiki.test") + path, headers={**FETCH, **forged})

    for received in front.scene.tool.requests[-2:]:
        assert b"forged" not in received.head
        # Caddy's name for a header that the answer does not have.
        assert b"{" not in received.head
    assert front.scene.tool.requests[-2].value("X-Tailchat-Sub") == HOSHINO.sub.encode()


@pytest.mark.parametrize("name", ["X_Tailchat_Sub", "X-Tailchat_Groups", "x.tailchat.token"])
async def test_another_spelling_of_a_name_is_gone(front: Edge, name: str) -> None:
    """A name that CGI, WSGI or PHP take for an identity header does not pass beside it either."""
    head = request_bytes("/open", host=f"wiki.test:{front.port}", Connection="close")
    response = await ask(front.port, head[:-2] + f"{name}: forged\r\n\r\n".encode())

    assert response.status == 200
    assert all(b"forged" not in received.head for received in front.scene.tool.requests)


async def test_a_machine_comes_with_its_token(front: Edge) -> None:
    """The tool hears which machine it is, and neither its token nor that it has one."""
    host = f"wiki.test:{front.port}"
    for scheme in ("Bearer", "bearer  "):
        response = await ask(
            front.port,
            request_bytes("/a", host=host, Connection="close", Authorization=f"{scheme} {TOKEN}"),
        )
        assert response.status == 200
        received = front.scene.tool.requests.pop()
        assert received.value("X-Tailchat-Token") == b"ci"
        assert received.values("X-Tailchat-Sub") == received.values("Authorization") == []


@pytest.mark.parametrize("path", ["/page", "/open", "/closed"])
async def test_a_token_that_is_no_good_is_refused(front: Edge, path: str) -> None:
    """One that is unknown, or not for the path, reaches no tool; the gate's words come through."""
    host, good = f"wiki.test:{front.port}", path == "/closed"
    response = await ask(
        front.port,
        request_bytes(
            path,
            host=host,
            Connection="close",
            Authorization=f"Bearer {TOKEN if good else TOKEN[:-1]}",
        ),
    )

    assert response.status == (403 if good else 401)
    assert response.json["error"] == ("token-elsewhere" if good else "token-unknown")
    assert response.value("WWW-Authenticate").startswith("Bearer ")
    assert front.scene.tool.requests == []


async def test_a_tools_own_credentials_pass(front: Edge) -> None:
    """Basic and Bearer credentials that are not the gate's reach the tool as they are."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        for value in ("Basic YTpi", "Bearer abc.tg_.def"):
            headers = {**FETCH, "Authorization": value}
            page = await visitor.open(front.url("wiki.test") + "/page", headers=headers)
            assert page.status == 200
            assert front.scene.tool.requests[-1].value("Authorization") == value.encode()


async def test_a_program_without_a_session_gets_a_401(front: Edge) -> None:
    """JSON and no redirect; nothing reaches the tool."""
    async with Visitor() as visitor:
        response = await visitor.open(front.url("wiki.test") + "/api", headers=FETCH)

    assert (response.status, response.trail) == (401, [front.url("wiki.test") + "/api"])
    assert '"not-signed-in"' in response.text
    assert front.scene.tool.requests == []


async def test_who_may_not_sees_the_denied_page(front: Edge) -> None:
    """The gate's own page tells who is signed in and that this tool is not theirs."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        count = len(front.scene.tool.requests)
        page = await visitor.open(front.url("wiki.test") + "/closed/x")

    assert page.status == 403
    assert HOSHINO.sub in page.text
    assert len(front.scene.tool.requests) == count


@pytest.mark.parametrize("path", ["/open/../closed", "/open/%2e%2e/closed", "/open/..%2fclosed"])
async def test_no_spelling_gets_past_a_rule(front: Edge, path: str) -> None:
    """A path that the proxy and the gate could read differently does not pass as public."""
    response = await ask(
        front.port, request_bytes(path, host=f"wiki.test:{front.port}", Connection="close")
    )

    assert response.status in {400, 401}
    assert front.scene.tool.requests == []


async def test_another_account_of_the_request_opens_nothing(front: Edge) -> None:
    """Forwarding fields of a visitor's making do not have another path judged."""
    said = {
        "X_Forwarded_Uri": "/open",
        "X_Forwarded_Method": "GET",
        "X_Original_URL": f"http://wiki.test:{front.port}/open",
        "X_Original_URI": "/open",
        "X_Original_Method": "GET",
    }
    response = await ask(
        front.port,
        request_bytes("/page", host=f"wiki.test:{front.port}", Connection="close", **said),
    )

    assert response.status == 401
    assert front.scene.tool.requests == []


async def test_the_question_is_not_for_visitors(front: Edge) -> None:
    """A page cannot ask the question itself and read the identity headers of the answer."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        for host, path in product(HOSTS, ("/oauth2/auth", "/oauth2/auth/", "/oauth2/auth/page")):
            response = await visitor.open(front.url(host) + path, headers=FETCH)

            assert (host, path, response.status) == (host, path, 404)
            assert "X-Tailchat-Sub" not in response.headers


async def test_no_spelling_asks_the_question(front: Edge) -> None:
    """A path that the proxy reads as another page, and the gate as the question, tells nothing."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        cookies = {host: visitor.cookies(front.url(host)) for host in HOSTS}
    spellings = ("/..%2fuserinfo", "/a/..%2F..%2fuserinfo", "/%2e%2e/userinfo")
    for host, path in product(HOSTS, spellings):
        response = await ask(
            front.port,
            request_bytes(
                f"/oauth2/auth{path}",
                host=f"{host}:{front.port}",
                Cookie="; ".join(f"{name}={value}" for name, value in cookies[host].items()),
                Connection="close",
            ),
        )

        assert response.values("X-Tailchat-Sub") == []
        if response.status == 200:
            # Traefik resolves dot segments, and asks for the page by its own name then.
            assert response.json["sub"] == HOSHINO.sub
        else:
            assert response.status in {400, 403, 404}, (host, path)


async def test_a_renewed_session_reaches_the_browser(front: Edge) -> None:
    """The proxy hands on the cookie that renews an idle session, and the session goes on."""
    clock = front.scene.clock
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        for _ in range(3):
            clock.now += 5400
            page = await visitor.open(front.url("wiki.test") + "/page", headers=FETCH)
            assert page.status == 200
            assert page.headers["Set-Cookie"].startswith("tailchat_gate=")
        clock.now += 7300
        gone = await visitor.open(front.url("wiki.test") + "/page", headers=FETCH)

    assert gone.status == 401


async def test_a_session_that_is_not_renewed_sets_no_cookie(front: Edge) -> None:
    """Where the gate sets no cookie the proxy sets none, under no name."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        for path in ("/page", "/open"):
            response = await visitor.open(front.url("wiki.test") + path, headers=FETCH)
            assert (response.status, response.headers.get("Set-Cookie")) == (200, None)


async def test_signing_out_ends_it(front: Edge) -> None:
    """After the sign-out on the tool's host the tool is closed again."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        page = await visitor.open(front.url("wiki.test") + "/oauth2/sign_out")
        out = await visitor.submit(page, "/oauth2/sign_out")
        response = await visitor.open(front.url("wiki.test") + "/page", headers=FETCH)

    assert (out.status, response.status) == (200, 401)
    assert out.url.startswith(front.url("gate.test"))


async def test_an_upload_passes_with_its_body(front: Edge) -> None:
    """The question is asked without the body, and the tool gets it whole."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        response = await visitor.open(
            front.url("wiki.test") + "/form", method="POST", data={"a": "b" * 5000}, headers=FETCH
        )

    assert response.status == 200
    received = front.scene.tool.requests[-1]
    assert (received.line[:10], received.body) == (b"POST /form", b"a=" + b"b" * 5000)


async def test_a_path_that_a_field_names_is_judged(front: Edge) -> None:
    """The proxy passes the fields with paths to its question: no COPY goes where nobody may."""
    host = f"wiki.test:{front.port}"
    count = len(front.scene.tool.requests)
    for named, status in (
        (f"http://{host}/closed/x", 403),
        ("http://evil.test/open/x", 403),
        (f"http://{host}/open/x", 200),
    ):
        request = request_bytes("/open/a", method="COPY", host=host, Destination=named)
        assert (await ask(front.port, request)).status == status, named
    assert [one.line for one in front.scene.tool.requests[count:]] == [b"COPY /open/a HTTP/1.1"]


async def test_a_websocket_of_a_foreign_page_is_refused(front: Edge) -> None:
    """The gate's Origin check holds for a WebSocket that the proxy would open."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        cookies = visitor.cookies(front.url("wiki.test"))
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    count = len(front.scene.tool.requests)
    for origin, status in (("https://evil.test", 403), (front.url("wiki.test"), 200)):
        async with RawClient.connect(front.port) as client:
            client.send(
                request_bytes(
                    "/socket",
                    host=f"wiki.test:{front.port}",
                    Connection="Upgrade",
                    Upgrade="websocket",
                    Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
                    Sec_WebSocket_Version="13",
                    Origin=origin,
                    Cookie=cookie,
                )
            )
            assert (origin, (await client.response()).status) == (origin, status)

    assert len(front.scene.tool.requests) == count + 1
    assert front.scene.tool.requests[-1].value("Upgrade") == b"websocket"


async def test_a_websocket_passes(front: Edge) -> None:
    """Its frames go both ways, between a person who is signed in and the tool."""
    frame = b"\x82\x84" + MASK + b"abcd"

    async def echo(_: Received, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(SWITCH)
        writer.write(await reader.readexactly(len(frame)))

    async with Visitor() as visitor:
        await signed_in(visitor, front)
        cookies = visitor.cookies(front.url("wiki.test"))
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    front.scene.tool.answer = echo
    async with RawClient.connect(front.port) as client:
        client.send(
            request_bytes(
                "/socket",
                host=f"wiki.test:{front.port}",
                Origin=front.url("wiki.test"),
                Cookie=cookie,
                **UPGRADE,
            )
        )
        assert b" 101 " in await client.head()
        client.send(frame)
        assert await client.reader.readexactly(len(frame)) == frame
    assert front.scene.tool.requests[-1].value("X-Tailchat-Sub") == HOSHINO.sub.encode()


async def test_a_form_of_another_page_is_refused(front: Edge) -> None:
    """The proxy passes what the browser says of the page that sends a request to its question."""
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        count = len(front.scene.tool.requests)
        for fields, status in (
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Origin": "http://evil.test"}, 403),
            ({"Origin": front.url("wiki.test")}, 200),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
        ):
            response = await visitor.open(
                front.url("wiki.test") + "/form",
                method="POST",
                data={"a": "b"},
                headers={"Accept": "*/*", **fields},
            )
            assert (fields, response.status) == (fields, status)
    assert len(front.scene.tool.requests) == count + 2


async def test_no_service_worker_sees_a_sign_in(front: Edge) -> None:
    """The script of one over the whole site is not the tool's, nor does a reply widen a scope."""
    front.scene.tool.answer = (
        b"HTTP/1.1 200 OK\r\nService-Worker-Allowed: /\r\nNEL: {}\r\nX-Kept: 1\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    async with Visitor() as visitor:
        await signed_in(visitor, front)
        count = len(front.scene.tool.requests)
        asked = {"Accept": "*/*", "Service-Worker": "script", "Sec-Fetch-Dest": "serviceworker"}
        wide = await visitor.open(front.url("wiki.test") + "/sw.js", headers=asked)
        narrow = await visitor.open(front.url("wiki.test") + "/app/sw.js", headers=asked)

    assert wide.status == 403 or "registration.unregister()" in wide.text
    assert len(front.scene.tool.requests) == count + 1
    assert (narrow.status, narrow.headers.get("X-Kept")) == (200, "1")
    assert not {"Service-Worker-Allowed", "NEL"} & set(narrow.headers)


async def test_a_rate_holds_and_says_when_to_come_again(front: Edge) -> None:
    """The visitor gets 429 with Retry-After by way of every proxy; nothing reaches the tool."""
    sent = request_bytes("/limited", host=f"wiki.test:{front.port}", Connection="close")
    # The proxy is shared: another test may have been here.
    for _ in range(2):
        await ask(front.port, sent)
    before = len(front.scene.tool.requests)
    refused = await ask(front.port, sent)

    assert (refused.status, refused.json["error"]) == (429, "rate-limited")
    assert 0 < int(refused.value("Retry-After")) <= 43_200
    assert len(front.scene.tool.requests) == before <= 2


async def test_maintenance_is_told_and_not_a_sign_in(front: Edge) -> None:
    """The visitor gets 503 with Retry-After, by Envoy 403, from no tool and no sign-in."""
    process_state, now = front.scene.gate.generation.process_state, int(front.scene.clock())
    before = len(front.scene.tool.requests)
    await process_state.locks.order(Lock("all", now, now + 900, "New disks"))
    try:
        async with Visitor() as visitor:
            page = await visitor.open(front.url("wiki.test") + "/d", follow=False)
    finally:
        await process_state.locks.order(Unlock("all", now))

    assert page.status == (403 if front.name == "envoy" else 503)
    assert page.headers.get("Retry-After") == "900"
    assert "New disks" in page.text
    assert len(front.scene.tool.requests) == before
