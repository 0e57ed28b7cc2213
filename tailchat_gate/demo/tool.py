"""The sample tool behind the gate: it shows what it received, and behaves as tools do."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from aiohttp import WSMsgType, web

from tailchat_gate.demo.wire import render

#: The most bytes that one /download sends.
MAX_DOWNLOAD: Final = 2**40
#: The largest WebSocket message, in bytes.
MAX_MESSAGE: Final = 2**20
EVENTS_SECONDS: Final = 1.0
_CHUNK: Final = bytes(range(256)) * 256
_PREFIX: Final = "x-tailchat-"


def identity(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the identity that the gate sent: the `X-Tailchat-*` headers, percent-decoded.

    Keys are lower-case and without that prefix. Invalid UTF-8 is replaced.
    """
    return {
        name.lower().removeprefix(_PREFIX): unquote(value)
        for name, value in headers.items()
        if name.lower().startswith(_PREFIX)
    }


class SampleTool:
    """The tool.

    `gate_prefix` is the prefix of the gate's own paths, for links to them, `ticks` the seconds
    between two events of /events, and `title` the heading of the page.
    """

    def __init__(
        self,
        *,
        gate_prefix: str = "/oauth2",
        ticks: float = EVENTS_SECONDS,
        title: str = "Sample tool",
    ) -> None:
        self._title = title
        self._prefix = gate_prefix
        self._ticks = ticks
        self._stopping = web.AppKey("stopping", asyncio.Event)

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.cleanup_ctx.append(self._lifetime)
        app.router.add_get("/", self._page)
        app.router.add_get("/api/whoami", _whoami)
        app.router.add_get("/ws", self._echo)
        app.router.add_get("/events", self._events)
        app.router.add_route("*", "/upload", _upload)
        app.router.add_get("/download", _download)
        return app

    async def _lifetime(self, app: web.Application) -> AsyncIterator[None]:
        app[self._stopping] = asyncio.Event()

        async def stop(app: web.Application) -> None:
            app[self._stopping].set()

        app.on_shutdown.append(stop)
        yield

    async def _page(self, request: web.Request) -> web.Response:
        html = render(
            "tool.html",
            who=identity(request.headers),
            headers=list(request.headers.items()),
            target=request.path_qs,
            prefix=self._prefix,
            title=self._title,
        )
        return web.Response(
            text=html, content_type="text/html", headers={"Cache-Control": "no-store"}
        )

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE)
        await socket.prepare(request)
        stopping = asyncio.create_task(self._close_when_stopping(request.app, socket))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
        except ConnectionError:
            pass  # the peer has closed between a message and its echo
        finally:
            stopping.cancel()
        return socket

    async def _close_when_stopping(
        self, app: web.Application, socket: web.WebSocketResponse
    ) -> None:
        await app[self._stopping].wait()
        await socket.close(code=1001, message=b"the tool is stopping")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        stopping, number = request.app[self._stopping], 0
        with suppress(ConnectionError):  # the client has disconnected
            while not stopping.is_set():
                number += 1
                await response.write(f"id: {number}\ndata: tick {number}\n\n".encode())
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), self._ticks)
        return response


async def _whoami(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "target": request.path_qs,
            "who": identity(request.headers),
            "headers": [list(field) for field in request.headers.items()],
        },
        headers={"Cache-Control": "no-store"},
        dumps=lambda value: json.dumps(value, ensure_ascii=True),
    )


async def _upload(request: web.Request) -> web.Response:
    count = 0
    with suppress(ConnectionError):  # the client has disconnected
        async for chunk in request.content.iter_any():
            count += len(chunk)
    return web.json_response({"bytes": count})


async def _download(request: web.Request) -> web.StreamResponse:
    text = request.query.get("bytes", "0")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 15 else -1  # noqa: PLR2004 - digits of MAX_DOWNLOAD and more
    if not 0 <= size <= MAX_DOWNLOAD:
        return web.Response(
            status=HTTPStatus.BAD_REQUEST, text=f"bytes is a number from 0 to {MAX_DOWNLOAD}\n"
        )
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = size
    await response.prepare(request)
    with suppress(ConnectionError):  # the client has disconnected
        while size > 0:
            await response.write(_CHUNK[:size])
            size -= min(size, len(_CHUNK))
    return response
