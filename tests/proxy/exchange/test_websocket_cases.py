"""WebSockets through the gate beside WebSockets without it, case by case, with two servers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from gatekit import RawClient, until
from tlskit import Authority
from websocket_cases import CHAPTERS, LIMIT, Case
from websocketkit import Heard, WebSocketClient
from websockets.asyncio.server import ServerConnection, serve, unix_serve
from websockets.typing import Subprotocol

PROTOCOLS = ("chat", "other")
#: Each broken case would be told with a traceback.
_quiet = logging.getLogger("test_websocket_cases")
_quiet.disabled = True
#: How many cases are under way at a time.
_AT_ONCE = 8


def _asked_to_close(text: str) -> tuple[int, str] | None:
    word, _, rest = text[:40].partition(" ")
    code, _, reason = rest.partition(" ")
    return (int(code), reason) if word == "close" else None


async def _echo_of_aiohttp(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=LIMIT)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            asked = _asked_to_close(message.data)
            if asked:
                await socket.close(code=asked[0], message=asked[1].encode())
            else:
                await socket.send_str(message.data)
    return socket


async def _echo_of_websockets(connection: ServerConnection) -> None:
    async for message in connection:
        asked = _asked_to_close(message) if isinstance(message, str) else None
        if asked:
            await connection.close(*asked)
        else:
            await connection.send(message)


def _agreed_with_websockets(
    connection: ServerConnection,
    offered: Sequence[Subprotocol],
) -> Subprotocol | None:
    return next((one for one in offered if one in PROTOCOLS), None)


class Where(NamedTuple):
    """Where a server listens: a port, one that speaks TLS, and a Unix socket."""

    ports: tuple[int, ...]
    path: str


@asynccontextmanager
async def _server(name: str, directory: Path) -> AsyncIterator[Where]:
    """Serve WebSockets that echo, the same three times."""
    path = str(directory / "tool.sock")
    authority = await asyncio.to_thread(Authority.create, directory)
    issued = await asyncio.to_thread(authority.issue, "localhost")
    tls = await asyncio.to_thread(issued.server_context)
    async with AsyncExitStack() as stack:
        if name == "aiohttp":
            app = web.Application()
            app.router.add_get("/ws", _echo_of_aiohttp)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            await web.UnixSite(runner, path).start()
            yield Where(tuple(found[1] for found in runner.addresses[:2]), path)
            return
        keys: dict[str, Any] = {
            "max_size": LIMIT,
            "ping_interval": None,
            "select_subprotocol": _agreed_with_websockets,
            "logger": _quiet,
        }
        handle = _echo_of_websockets
        ports = []
        for context in (None, tls):
            server = await stack.enter_async_context(
                serve(handle, "127.0.0.1", 0, ssl=context, **keys)
            )
            ports.append(next(iter(server.sockets)).getsockname()[1])
        await stack.enter_async_context(unix_serve(handle, path, **keys))
        yield Where(tuple(ports), path)


async def _heard(cases: Mapping[str, Case], port: int, cookie: str) -> dict[str, Heard]:
    """Return what the client of each case got at a port."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(case: Case) -> Heard:
        fields = {"Sec_WebSocket_Extensions": case.extensions} if case.extensions else {}
        fields |= {"Sec_WebSocket_Protocol": case.protocols} if case.protocols else {}
        fields |= {"Cookie": cookie} if cookie else {}
        async with room, asyncio.timeout(20), RawClient.connect(port) as client:
            heard = await WebSocketClient(client).run(case.steps, fields)
        return heard._replace(end="") if case.end_by_chance else heard

    found = await asyncio.gather(*(one(case) for case in cases.values()))
    return dict(zip(cases, found, strict=True))


#: What is looked at by every way to a tool: TLS has ends of its own.
_BY_OTHER_WAYS = ("1 framing", "7 close handling", "9 limits", "12 compression")


async def _compare(
    start_gate: Callable[..., Any], directory: Path, name: str, chapter: str
) -> dict[str, Heard]:
    """Compare what clients get of a server with what they get through a gate; return the first."""
    cases = CHAPTERS[chapter]
    async with _server(name, directory) as where:
        port, tls_port = where.ports
        direct = await _heard(cases, port, "")
        urls = {"http": f"http://127.0.0.1:{port}"}
        if chapter in _BY_OTHER_WAYS:
            urls |= {"https": f"https://localhost:{tls_port}", "unix": f"unix:{where.path}"}
        for way, url in urls.items():
            # What lies unread in TLS when it breaks cannot be read any more.
            same = {
                one: case for one, case in cases.items() if way != "https" or not case.end_by_chance
            }
            tls = {"tls_ca": str(directory / "authority.pem")} if way == "https" else {}
            gate = await start_gate(url, route=[{"name": "tool", **tls}])
            through = await _heard(same, gate.port, gate.cookie())
            await until(lambda: not gate.generation.forwarder.tunnels)  # noqa: B023 - called before the next
            differing = {case: heard for case, heard in through.items() if heard != direct[case]}
            assert (way, differing) == (way, {})
            assert {heard.status for heard in through.values()} == {101}
    return direct


@pytest.mark.both_loops
@pytest.mark.parametrize("chapter", CHAPTERS)
async def test_a_websocket_is_the_same_through_the_gate(
    start_gate: Callable[..., Any], tmp_path: Path, chapter: str
) -> None:
    """Whatever a client sends, it gets the same: handshake, frames, close code, reason and end."""
    direct = await _compare(start_gate, tmp_path, "websockets", chapter)

    # The strict one of the two; aiohttp lets a missing mask and some close codes pass.
    cases = CHAPTERS[chapter]
    found = {case: heard.code for case, heard in direct.items()}
    assert {case: code for case, code in found.items() if code not in cases[case].codes} == {}


@pytest.mark.parametrize("chapter", CHAPTERS)
async def test_a_websocket_of_another_server_is_the_same_too(
    start_gate: Callable[..., Any], tmp_path: Path, chapter: str
) -> None:
    """So it is with a server that takes more, whose frames and ends are other ones."""
    await _compare(start_gate, tmp_path, "aiohttp", chapter)
