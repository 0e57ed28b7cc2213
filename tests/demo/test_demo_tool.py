import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer
from pytest_aiohttp import AiohttpClient, AiohttpServer
from storykit import served

from tailchat_gate.demo.tool import MAX_DOWNLOAD, SampleTool, identity
from tailchat_gate.demo.users import USERS, User

Client = TestClient[web.Request, None]


@pytest.fixture
async def server(aiohttp_server: AiohttpServer) -> TestServer:
    """Return the tool, started on a free port."""
    return await aiohttp_server(SampleTool(ticks=0.01).app(), shutdown_timeout=1)


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, server: TestServer) -> Client:
    """Return a client whose base is the tool."""
    return await aiohttp_client(server)


def _runner(server: TestServer) -> web.BaseRunner:
    assert server.runner is not None
    return server.runner


def gate_headers(user: User) -> dict[str, str]:
    """Return headers as a gate sends them: percent-encoded, absent where missing."""
    claims = {"sub": user.sub, **{name: text or "" for name, text in user.claims.items()}}
    return {
        f"X-Tailchat-{name.title()}": quote(text[:200], safe=" !#$&'()*+,/:;=?@[]~")
        for name, text in claims.items()
        if text
    }


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ({}, {}),
        ({"X-Tailchat-Sub": "66", "Host": "a"}, {"sub": "66"}),
        ({"x-tailchat-nickname": "%E6%98%9F%20%E2%98%86"}, {"nickname": "星 ☆"}),
        ({"X-TAILCHAT-GROUPS": "ops,dev"}, {"groups": "ops,dev"}),
        ({"X-Tailchat-Nickname": "100%25 %zz %ff"}, {"nickname": "100% %zz \ufffd"}),
        ({"X_Tailchat_Sub": "66"}, {}),
    ],
)
def test_identity_is_read_from_the_gates_headers(
    headers: dict[str, str], who: dict[str, str]
) -> None:
    """Every X-Tailchat-* header is decoded, nothing else counts, and junk raises nothing."""
    assert identity(headers) == who


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
async def test_the_page_shows_any_name_as_text(client: Client, user: User) -> None:
    """Whatever a name holds, the page shows it escaped and says what was not sent."""
    async with client.get("/?a=<b>", headers=gate_headers(user)) as response:
        page = await response.text()

    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert f'data-who="sub">{user.sub}<' in page
    assert page.count("<script") == 1
    assert "<b>" not in page
    assert "not sent" in page
    if user.name == "hoshino":
        assert "<h1>Hello, 星野 Hoshino ☆</h1>" in page
    if user.name == "eve":
        assert "Hello, Eve��X-Evil: 1" in page


async def test_the_page_shows_every_header_and_the_links(client: Client) -> None:
    """All received headers are listed escaped, and the gate's own pages are linked."""
    async with client.get("/", headers={"X-Odd": "<i>&\"'"}) as response:
        page = await response.text()

    assert "X-Odd" in page
    assert "&lt;i&gt;&amp;&#34;&#39;" in page
    assert "Nobody is signed in" in page
    assert 'href="/oauth2/sign_out"' in page
    assert 'href="/oauth2/userinfo"' in page


async def test_the_links_follow_the_gates_prefix() -> None:
    """Another prefix of the gate changes the links."""
    async with (
        served(SampleTool(gate_prefix="/gate").app()) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/") as response,
    ):
        page = await response.text()

    assert 'href="/gate/sign_out"' in page


async def test_whoami_is_json(client: Client) -> None:
    """/api/whoami says who, the target as it came, and the headers in order with repeats."""
    headers = [("X-Tailchat-Sub", "66"), ("X-L", "1"), ("X-L", "2")]
    async with client.get("/api/whoami?a=1&a=2", headers=headers) as response:
        found = await response.json()

    assert found["who"] == {"sub": "66"}
    assert found["target"] == "/api/whoami?a=1&a=2"
    assert found["method"] == "GET"
    assert [value for name, value in found["headers"] if name == "X-L"] == ["1", "2"]


async def test_the_websocket_echoes_text_and_bytes(client: Client) -> None:
    """What is sent comes back as the kind of message it was."""
    async with client.ws_connect("/ws") as socket:
        await socket.send_str("你好 ☆")
        text = await socket.receive()
        await socket.send_bytes(b"\x00\xff")
        data = await socket.receive()

    assert (text.type, text.data) == (WSMsgType.TEXT, "你好 ☆")
    assert (data.type, data.data) == (WSMsgType.BINARY, b"\x00\xff")


async def test_stopping_closes_websockets_and_events(server: TestServer, client: Client) -> None:
    """A tool that stops says so on every socket with 1001 and ends its event streams."""
    async with client.ws_connect("/ws") as socket, client.get("/events") as events:
        await socket.send_str("here")
        assert (await socket.receive()).data == "here"
        assert await events.content.readline() == b"id: 1\n"
        stopping = asyncio.create_task(_runner(server).cleanup())
        last = await socket.receive()
        await events.content.read()
        await stopping

    assert (last.type, last.data, last.extra) == (WSMsgType.CLOSE, 1001, "the tool is stopping")


async def test_events_arrive_one_by_one(client: Client) -> None:
    """/events sends numbered ticks as server-sent events, each as it happens."""
    async with client.get("/events") as response:
        lines = [await response.content.readline() for _ in range(6)]

    assert response.content_type == "text/event-stream"
    assert lines == [b"id: 1\n", b"data: tick 1\n", b"\n", b"id: 2\n", b"data: tick 2\n", b"\n"]


@pytest.mark.parametrize("path", ["/events", f"/download?bytes={MAX_DOWNLOAD}", "/upload", "/ws"])
async def test_who_leaves_in_the_middle_leaves_no_traceback(
    server: TestServer,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    """A client that resets its connection is no error of the tool's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    fields = {
        "/upload": "Content-Length: 100000\r\n",
        "/ws": "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    }
    head = f"GET {path} HTTP/1.1\r\nHost: tool\r\n{fields.get(path, '')}\r\n"
    writer.write(head.encode() + b"x" * (path == "/upload"))
    if path != "/upload":
        await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    # Long enough for the tool to have noticed, and to have sent into the void.
    async with client.get("/events") as events:
        assert await events.content.readuntil(b"tick 3\n")
    await _runner(server).cleanup()

    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_upload_counts_bytes(client: Client, method: str) -> None:
    """/upload counts a body of any size, with a length or in chunks."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 100_000

    async with client.request(method, "/upload", data=pieces()) as response:
        assert await response.json() == {"bytes": 4_000_000}
    async with client.request(method, "/upload", data=b"") as response:
        assert await response.json() == {"bytes": 0}


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
async def test_download_sends_just_as_many_bytes(client: Client, size: int) -> None:
    """/download announces and sends the bytes it was asked for."""
    async with client.get(f"/download?bytes={size}") as response:
        body = await response.read()

    assert response.headers["Content-Length"] == str(size)
    assert len(body) == size
    assert body[:300] == (bytes(range(256)) * 2)[:300][:size]


@pytest.mark.parametrize(
    "text", ["-1", "x", "1e3", "٣", str(MAX_DOWNLOAD + 1), "9" * 5000, "1.5", "+1"]
)
async def test_download_refuses_what_is_no_size(client: Client, text: str) -> None:
    """Anything but a plain number within the limit is a 400."""
    async with client.get("/download", params={"bytes": text}) as response:
        assert response.status == 400


async def test_what_is_not_there_is_404(client: Client) -> None:
    """Another path is 404."""
    async with client.get("/nothing") as response:
        assert response.status == 404
