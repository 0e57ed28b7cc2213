"""Event streams that tell open admin pages about a change; they never delay a stop."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp import web

#: Streams that may be open at once; each takes a connection.
MOST_STREAMS: Final = 32
#: Seconds between two looks for changes, while a page is open.
LOOK_SECONDS: Final = 1.0
#: Seconds after which a quiet stream sends a comment, which fails if the client has left.
_HEARTBEAT_SECONDS: Final = 15.0
_FIELDS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # Keeps nginx from buffering events until it has some kilobytes.
    "X-Accel-Buffering": "no",
}


class Events:
    """The open streams; a change is when `state` returns another value than before."""

    def __init__(self, state: Callable[[], Awaitable[object]]) -> None:
        self._state = state
        self._streams: set[asyncio.Event] = set()
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._streams)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send an event for each change until the client leaves or the gate stops."""
        if request.method != "GET":
            return web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"})
        if self._closed or len(self._streams) >= MOST_STREAMS:
            return web.Response(
                status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "10"}
            )
        response = web.StreamResponse(headers=_FIELDS)
        response.force_close()
        changed = asyncio.Event()
        self._streams.add(changed)
        try:
            self._watch()
            # aiohttp would log an error because the client has left.
            with suppress(ConnectionError):
                await self._send(request, response, changed)
        finally:
            self._streams.discard(changed)
        return response

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, changed: asyncio.Event
    ) -> None:
        await response.prepare(request)
        await response.write(b"retry: 5000\n\n")
        while not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    await changed.wait()
            news = changed.is_set() and not self._closed
            changed.clear()
            await response.write(b"event: changed\ndata: 1\n\n" if news else b":\n\n")

    def close(self) -> None:
        """End every stream, and accept no new ones."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        for changed in self._streams:
            changed.set()

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        last = await self._state()
        while self._streams:
            await asyncio.sleep(LOOK_SECONDS)
            state = await self._state()
            if state != last:
                last = state
                for changed in self._streams:
                    changed.set()
