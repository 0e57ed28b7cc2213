"""What a route asks for, on the wire: Via, TRACE, paths, hosts, limits, WebSockets, local files."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatekit import OK, Clock, RawClient, RawUpstream, Received, ask, request_bytes
from websocketkit import SWITCH, UPGRADE
from wirekit import get

from tailchat_gate.proxy.message.websocket_frames import close_frame

Start = Callable[..., Any]


def _public(**keys: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as in the file
    return [{"name": "tool", "allow": ["public"], **keys}]


async def _echo(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Switch protocols and send back what comes."""
    writer.write(SWITCH)
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def test_via_and_forwarded_as_configured(start_gate: Start, upstream: RawUpstream) -> None:
    """Via is sent unless turned off, Forwarded only where turned on (A 7.6.3, RFC 7239)."""
    default = await start_gate(upstream.url, route=_public())
    other = await start_gate(upstream.url, route=_public(), server={"via": "", "forwarded": True})

    await ask(default.port, request_bytes(Via="1.0 fred"))
    await ask(other.port, request_bytes(Via="1.0 fred", Forwarded="for=6.6.6.6"))

    first, second = upstream.requests
    assert first.values("Via") == [b"1.0 fred", b"1.1 tailchat-gate"]
    assert first.values("Forwarded") == []
    assert second.values("Via") == [b"1.0 fred"]
    assert second.values("Forwarded") == [b'for=127.0.0.1;host="gate.test";proto=http']


@pytest.mark.parametrize("via", ["Front", ""])
async def test_a_route_that_leads_to_the_gate_itself_is_found(start_gate: Start, via: str) -> None:
    """A request that comes back is answered 508, once and not by a sign-in (A 7.6.3)."""
    ports: list[int] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", ports[0])
        await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))

    edge = await asyncio.start_server(relay, "127.0.0.1", 0)
    tool = f"http://127.0.0.1:{edge.sockets[0].getsockname()[1]}"
    gate = await start_gate(tool, route=_public(), server={"via": via})
    ports.append(gate.port)

    async with edge:
        page = await ask(gate.port, request_bytes(Accept="text/html"))

    assert page.status == 508
    assert b"This address leads back to itself" in page.body
    assert [line["reason"] for line in await gate.log()] == ["loop-detected", "public"]


@pytest.mark.parametrize(
    ("name", "via", "status"),
    [
        ("gate", ["1.1 gate"], 508),
        ("gate", ["1.0 fred, HTTP/1.1 GATE (comment)", "2 other"], 508),
        ("gate", ["1.1 gate.example", "1.1 fred (gate)", "gate"], 200),
        ("", ["1.1 tailchat-gate", "1.1"], 200),
    ],
)
async def test_the_gate_knows_its_own_name_in_via(
    start_gate: Start, upstream: RawUpstream, name: str, via: list[str], status: int
) -> None:
    """The name is compared whole, in any case, in each element; without a name nothing is."""
    gate = await start_gate(upstream.url, route=_public(), server={"via": name})
    fields = "".join(f"Via: {value}\r\n" for value in via).encode()

    assert (await ask(gate.port, get(fields))).status == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("cloudflare, GATE.test:8080;v=1", 508),
        ("cloudflare; gate.test:8080", 200),
        ("gate.test", 200),
        ("x.gate.test:8080", 200),
    ],
)
async def test_without_via_the_gate_knows_its_own_address(
    start_gate: Start, upstream: RawUpstream, value: str, status: int
) -> None:
    """It is in CDN-Loop, behind what the visitor sent, and compared whole (RFC 8586)."""
    server = {"via": "", "public_url": "http://gate.test:8080"}
    gate = await start_gate(upstream.url, route=_public(), server=server)

    assert (await ask(gate.port, get(f"CDN-Loop: {value}\r\n".encode()))).status == status
    for sent in upstream.requests:
        assert sent.values("CDN-Loop") == [value.encode(), b"gate.test:8080"]


@pytest.mark.parametrize(
    ("method", "hops", "status", "forwarded"),
    [
        ("OPTIONS", "0", 204, None),
        ("OPTIONS", "00", 204, None),
        ("OPTIONS", "3", 200, b"2"),
        ("TRACE", "0", 405, None),
        ("TRACE", "3", 405, None),
        ("GET", "0", 200, b"0"),
    ],
)
async def test_max_forwards(
    start_gate: Start,
    upstream: RawUpstream,
    method: str,
    hops: str,
    status: int,
    forwarded: bytes | None,
) -> None:
    """Max-Forwards ends here at 0 and is counted down, for OPTIONS and TRACE alone (A 7.6.2)."""
    gate = await start_gate(upstream.url, route=_public())

    response = await ask(gate.port, request_bytes(method=method, Max_Forwards=hops))

    assert response.status == status
    sent = [request.value("Max-Forwards") for request in upstream.requests]
    assert sent == ([] if forwarded is None else [forwarded])
    if status in {204, 405}:
        assert "OPTIONS" in response.value("Allow")


async def test_trace_where_a_route_wants_it(start_gate: Start, upstream: RawUpstream) -> None:
    """TRACE passes with `trace`, never with credentials where the gate answers it (A 9.3.8)."""
    gate = await start_gate(upstream.url, route=[{"name": "tool", "trace": True}])
    secrets = {"Cookie": gate.cookie(), "Authorization": "Basic x"}

    assert (await ask(gate.port, request_bytes("/t", method="TRACE", **secrets))).status == 200
    last = await ask(gate.port, request_bytes("/t", method="TRACE", Max_Forwards="0", **secrets))

    assert [request.line for request in upstream.requests] == [b"TRACE /t HTTP/1.1"]
    assert upstream.requests[0].value("Cookie") is None
    assert last.value("Content-Type") == "message/http"
    assert last.body.startswith(b"TRACE /t HTTP/1.1\r\nHost: gate.test\r\n")
    assert b"Basic" not in last.body
    assert b"tailchat_gate" not in last.body


@pytest.mark.parametrize(
    ("upstream_path", "asked", "sent"),
    [
        ("/", "/app/a%2Fb?c=/app", b"/a%2Fb?c=/app"),
        ("/", "/app", b"/"),
        ("/", "/app?x", b"/?x"),
        ("/", "/app/", b"/"),
        ("/tool/v2", "/app/a", b"/tool/v2/a"),
        ("/tool", "/app?x", b"/tool?x"),
        ("/tool", "/app/app/a", b"/tool/app/a"),
        ("/", "http://gate.test/app/a", b"/a"),
        ("/", "/app/a//b;c/d", b"/a//b;c/d"),
    ],
)
async def test_a_path_is_replaced(
    start_gate: Start, upstream: RawUpstream, upstream_path: str, asked: str, sent: bytes
) -> None:
    """The tool sees its own path in place of the route's, all other bytes as they were sent."""
    gate = await start_gate(upstream.url, route=_public(path="/app", upstream_path=upstream_path))

    assert (await ask(gate.port, request_bytes(asked))).status == 200

    assert upstream.requests[0].line == b"GET " + sent + b" HTTP/1.1"


@pytest.mark.parametrize(
    "asked",
    [
        *(
            "/app/../x",
            "/app/%2e%2e/x",
            "/app/..%2fx",
            "/app/..;/x",
            "/app/a/../../x",
            "/app/..%5cx",
        ),
        *("/app/%252e%252e/x", "/app//../../x", "/app/..", "/app/.%2e/app/x", "/app/..%5cx"),
    ],
)
async def test_no_path_leads_out_of_a_replaced_one(
    start_gate: Start, upstream: RawUpstream, asked: str
) -> None:
    """Where the prefix is replaced, no reading of a path may lead above the route."""
    route = [
        *_public(path="/app", upstream_path="/tool"),
        {"name": "rest", "path": "/", "allow": ["public"]},
    ]
    gate = await start_gate(upstream.url, route=route)

    response = await ask(gate.port, request_bytes(asked))

    assert response.status in {400, 404}
    assert upstream.requests == []


@pytest.mark.parametrize(
    "asked",
    [
        *("/../admin/x", "/%2e%2e/admin/x", "//../admin/x", "/..;/admin/x", "/..%2fadmin/x"),
        *("/x/../../admin", "/%252e%252e/admin", "/..%5cadmin", "/.%2e/", "/x/..%c0%af../admin"),
    ],
)
@pytest.mark.parametrize("methods", [(), ("GET",)])
async def test_no_path_leads_out_of_the_only_route(
    start_gate: Start, upstream: RawUpstream, asked: str, methods: tuple[str, ...]
) -> None:
    """What takes the place of "/" is a wall too where the host has no other route."""
    route = _public(path="/", upstream_path="/public/", methods=methods)
    gate = await start_gate(upstream.url, route=route)

    assert (await ask(gate.port, request_bytes(asked))).status in {400, 404}
    assert upstream.requests == []
    assert (await ask(gate.port, request_bytes("/a/b;c//d"))).status == 200
    assert upstream.requests[0].line == b"GET /public/a/b;c//d HTTP/1.1"


async def test_the_host_that_a_tool_wants(start_gate: Start, upstream: RawUpstream) -> None:
    """The tool's own Host is sent where the route names one, the visitor's otherwise (B 3.2)."""
    own = await start_gate(upstream.url, route=_public(upstream_host="tool.lan:8080"))
    same = await start_gate(upstream.url, route=_public())

    await ask(own.port, request_bytes(host="Gate.test"))
    await ask(same.port, request_bytes(host="Gate.test"))

    assert [request.values("Host") for request in upstream.requests] == [
        [b"tool.lan:8080"],
        [b"Gate.test"],
    ]
    assert upstream.requests[0].value("X-Forwarded-Host") == b"Gate.test"


@pytest.mark.parametrize(
    ("seen", "target", "fields", "location"),
    [
        ("/", "/app?a=%2F&b", {"Accept": "text/html"}, "/app/?a=%2F&b"),
        ("/", "/app", {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}, "/app/"),
        ("/", "/app", {"Accept": "*/*"}, ""),
        ("/", "/app/", {"Accept": "text/html"}, ""),
        ("/", "/app", {"Accept": "text/html", "method": "POST"}, ""),
        ("/w", "/app", {"Accept": "text/html"}, ""),
    ],
)
async def test_a_page_at_a_bare_prefix_gets_its_slash(
    start_gate: Start,
    upstream: RawUpstream,
    seen: str,
    target: str,
    fields: dict[str, str],
    location: str,
) -> None:
    """A tool that sees "/" either way cannot send the browser to where relative links work."""
    gate = await start_gate(upstream.url, route=_public(path="/app", upstream_path=seen))

    response = await ask(gate.port, request_bytes(target, **fields))

    assert (response.status, response.value("Location")) == (308 if location else 200, location)
    assert len(upstream.requests) == (0 if location else 1)
    assert (await gate.log())[-1]["reason"] == "public"


async def test_replies_are_rewritten_where_asked(start_gate: Start, upstream: RawUpstream) -> None:
    """Location and cookies of the tool are rewritten on the route that asks, on no other."""
    upstream.answer = (
        b"HTTP/1.1 302 Found\r\nLocation: %b/in\r\nSet-Cookie: a=b; Path=/; Domain=tool.lan\r\n"
        b"Set-Cookie: tailchat_gate=stolen\r\nContent-Length: 0\r\n\r\n" % upstream.url.encode()
    )
    keys = {"rewrite_location": True, "rewrite_cookies": True}
    asked = await start_gate(upstream.url, route=_public(path="/app", upstream_path="/", **keys))
    plain = await start_gate(upstream.url, route=_public(path="/app", upstream_path="/"))

    rewritten = await ask(asked.port, request_bytes("/app/x"))
    untouched = await ask(plain.port, request_bytes("/app/x"))

    assert rewritten.value("Location") == "/app/in"
    assert rewritten.values("Set-Cookie") == ["a=b; Path=/app"]
    assert untouched.value("Location") == upstream.url + "/in"
    assert untouched.values("Set-Cookie") == ["a=b; Path=/; Domain=tool.lan"]


@pytest.mark.parametrize(
    ("origin", "allowed", "status"),
    [
        (None, [], 101),
        ("http://gate.test", [], 101),
        ("http://GATE.test", [], 101),
        ("https://gate.test", [], 403),
        ("https://gate.test", ["https://gate.test"], 101),
        ("http://gate.test:80", [], 101),
        ("http://gate.test:8080", [], 403),
        ("https://evil.test", [], 403),
        ("https://gate.test.evil.test", [], 403),
        ("https://evil.test/gate.test", [], 403),
        ("https://gate.test@evil.test", [], 403),
        ("null", [], 403),
        ("", [], 403),
        ("https://app.test", ["https://app.test"], 101),
        ("http://app.test", ["https://app.test"], 403),
        ("null", ["*"], 101),
        ("null", ["null"], 101),
        ("capacitor://localhost", ["capacitor://localhost"], 101),
        ("capacitor://localhost.evil", ["capacitor://localhost"], 403),
        ("file://", ["file://"], 101),
        ("file://", [], 403),
        ("vscode-webview://0a1b", ["vscode-webview://*"], 101),
        ("vscode-webview2://0a1b", ["vscode-webview://*"], 403),
        ("https://vscode-webview://0a1b", ["vscode-webview://*"], 403),
    ],
)
async def test_pages_of_other_origins_open_no_websocket(
    start_gate: Start, upstream: RawUpstream, origin: str | None, allowed: list[str], status: int
) -> None:
    """A WebSocket is for pages of its own host and of the route's list (RFC 6455 section 10.2)."""
    upstream.answer = _echo
    gate = await start_gate(upstream.url, route=[{"name": "tool", "origins": allowed}])
    fields = {**UPGRADE, "Cookie": gate.cookie(), **({} if origin is None else {"Origin": origin})}
    async with RawClient.connect(gate.port) as client, asyncio.timeout(60):
        client.send(request_bytes("/ws", **fields))
        head = await client.head()

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert len(upstream.requests) == (1 if status == 101 else 0)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("fields", "switched"),
    [
        ({"Upgrade": "tus", "Connection": "Upgrade"}, True),
        ({"Upgrade": "websocket", "Connection": "Upgrade"}, False),
        ({"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}, False),
        ({"Upgrade": "tus, websocket", "Connection": "Upgrade"}, False),
        ({"Upgrade": "tus"}, False),
        ({"Upgrade": "tus", "Connection": "close"}, False),
    ],
)
async def test_only_offered_protocols_are_switched_to(
    start_gate: Start, upstream: RawUpstream, fields: dict[str, str], switched: bool
) -> None:
    """Upgrade passes for a protocol of the route's list, asked for by the rules (A 7.8)."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.value("Upgrade") is None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: tus\r\n\r\nfirst")
        writer.write(await reader.readexactly(4))
        assert await reader.read() == b""
        writer.write(b"last")
        writer.close()

    upstream.answer = answer
    gate = await start_gate(upstream.url, route=_public(upgrades=["tus"]))
    async with RawClient.connect(gate.port) as client, asyncio.timeout(60):
        client.send(request_bytes(**fields))
        head = await client.head()
        if not switched:
            assert head.startswith(b"HTTP/1.1 200 ")
            return
        client.send(b"ping")
        assert await client.reader.readexactly(9) == b"firstping"
        # A half-closed end goes on to be read from.
        client.writer.write_eof()
        assert await client.reader.read() == b"last"

    assert (await gate.log())[-1]["status"] == 101


@pytest.mark.both_loops
@pytest.mark.parametrize(("keys", "ends"), [({"websocket_max_age": "1h"}, 3600), ({}, 43_200)])
async def test_a_websocket_ends_with_its_session_and_its_age(
    start_gate: Start, upstream: RawUpstream, clock: Clock, keys: dict[str, str], ends: int
) -> None:
    """At the end of the session, or of the age that a route allows, both sides get close 3000."""
    seen: list[bytes] = []

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(SWITCH)
        while data := await reader.read(65_536):
            seen.append(data)
        writer.close()

    upstream.answer = answer
    gate = await start_gate(upstream.url, route=[{"name": "tool", **keys}])
    async with RawClient.connect(gate.port) as client, asyncio.timeout(60):
        client.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        clock.now += ends - 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readexactly(1), 1.1)
        clock.now += 1
        frame = await client.reader.readexactly(4)
        client.send(close_frame(3000, "", mask=b"abcd"))
        await client.reader.read()

    assert frame[0] == 0x88
    assert int.from_bytes(frame[2:4], "big") == 3000
    assert seen[0][0] == 0x88


@pytest.mark.both_loops
async def test_a_silent_websocket_ends(start_gate: Start, upstream: RawUpstream) -> None:
    """A WebSocket whose both ends are silent for the route's idle_timeout gets close 3008."""
    upstream.answer = _echo
    # Longer than a busy machine takes for the echo.
    gate = await start_gate(upstream.url, route=_public(idle_timeout="3s"))
    async with RawClient.connect(gate.port) as client, asyncio.timeout(60):
        client.send(request_bytes("/ws", **UPGRADE))
        await client.head()
        client.send(b"\x81\x81abcd\x00")
        assert await client.reader.readexactly(7) == b"\x81\x81abcd\x00"
        frame = await client.reader.readexactly(4)

    assert (frame[0], int.from_bytes(frame[2:4], "big")) == (0x88, 3008)


async def test_a_route_that_the_gate_answers_itself(start_gate: Start) -> None:
    """static: answers people who may enter with its status, and others with a sign-in."""
    gate = await start_gate("static:204")

    assert (await ask(gate.port, request_bytes())).status == 401
    let_in = await ask(gate.port, request_bytes(Cookie=gate.cookie()))

    assert (let_in.status, let_in.body) == (204, b"")
    line = (await gate.log())[-1]
    assert (line["status"], line["reason"], line["route"]) == (204, "signed-in", "tool")


@pytest.mark.both_loops
async def test_a_route_of_files(start_gate: Start, tmp_path: Path) -> None:
    """file: serves people who may enter a directory under the route's path, and nothing above."""
    folder = tmp_path / "docs"
    await asyncio.to_thread((folder / "sub").mkdir, parents=True)
    await asyncio.to_thread((folder / "index.html").write_text, "<p>start")
    await asyncio.to_thread((folder / "sub" / "a b.txt").write_text, "hello")
    await asyncio.to_thread((tmp_path / "secret").write_text, "secret")
    gate = await start_gate(f"file:{folder}", route=[{"name": "docs", "path": "/docs"}])
    cookie = {"Cookie": gate.cookie()}

    async def status(path: str) -> int:
        return (await ask(gate.port, request_bytes(path, **cookie))).status

    assert (await ask(gate.port, request_bytes("/docs/"))).status == 401
    assert (await ask(gate.port, request_bytes("/docs/", **cookie))).body == b"<p>start"
    found = await ask(gate.port, request_bytes("/docs/sub/a%20b.txt", Range="bytes=1-3", **cookie))
    assert (found.status, found.body) == (206, b"ell")
    moved = await ask(gate.port, request_bytes("/docs?x=1", **cookie))
    assert (moved.status, moved.value("Location")) == (308, "/docs/?x=1")
    outside = [
        "/docs/../secret",
        "/docs/%2e%2e/secret",
        "/docs/..%2fsecret",
        "/docs/sub/../../secret",
    ]
    assert {await status(path) for path in outside} <= {400, 404}
    again = await ask(
        gate.port, request_bytes("/docs/sub/a%20b.txt", If_None_Match=found.value("ETag"), **cookie)
    )
    assert again.status == 304
    assert (await ask(gate.port, request_bytes("/docs/", method="POST", **cookie))).status == 405
    line = next(line for line in await gate.log() if line["status"] == 206)
    assert (line["bytes"], line["route"]) == (3, "docs")


async def test_addresses_by_the_visitors_host_are_rewritten(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A tool that builds addresses of Host leads back through its route, by Refresh too."""
    fields = b"Location: http://gate.test/x\r\nRefresh: 0; url=//gate.test/y\r\n\r\n"
    upstream.answer = OK.replace(b"\r\n\r\n", b"\r\n" + fields)
    route = {"name": "t", "path": "/app", "upstream_path": "/", "rewrite_location": True}
    gate = await start_gate(upstream.url, route=[{**route, "allow": ["public"]}])

    response = await ask(gate.port, request_bytes("/app/"))

    assert (response.value("Location"), response.value("Refresh")) == ("/app/x", "0; url=/app/y")
