"""The process: listeners, signals, and an end that lets open requests finish."""

import asyncio
import logging
import signal
import socket
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tailchat_gate import __version__
from tailchat_gate.admin import admin_app
from tailchat_gate.build import Generation, redirect_uri
from tailchat_gate.config.address import UnixAddress, listen_address
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.process import prepare
from tailchat_gate.proxy.downstream import ClientServer, Timeouts
from tailchat_gate.request.fields import Limits
from tailchat_gate.request.head import RequestReader

_BACKLOG: Final = 1024
_log = logging.getLogger(LOGGER_NAME)


class StartError(RuntimeError):
    """The gate cannot start; the text says why and what to do."""


class GateServer:
    """Serves one generation on its listeners."""

    def __init__(self, generation: Generation, clock: Callable[[], float] = time.time) -> None:
        self._generation = generation
        self._clock = clock
        self._server: ClientServer | None = None
        self._listeners: list[asyncio.Server] = []
        self._admin: web.AppRunner | None = None
        self._ready = False
        self._hurry = asyncio.Event()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens on TCP: (host, port), the port that was given for port 0."""
        sockets = [found for server in self._listeners for found in server.sockets]
        inet = (socket.AF_INET, socket.AF_INET6)
        return [found.getsockname()[:2] for found in sockets if found.family in inet]

    @property
    def admin_addresses(self) -> list[Any]:
        """Where the admin listener is."""
        return list(self._admin.addresses) if self._admin else []

    async def start(self) -> None:
        """Open the listeners. Raises StartError for an address that cannot be had."""
        settings, limits = self._generation.settings.server, self._generation.settings.limits
        self._generation.start()
        self._server = ClientServer(
            self._generation.gate,
            RequestReader(
                Limits(
                    limits.target_bytes,
                    limits.header_bytes,
                    limits.header_count,
                    limits.cookie_bytes,
                )
            ),
            Timeouts(settings.header_timeout, settings.body_timeout, settings.keepalive_timeout),
            max_head_bytes=limits.target_bytes + limits.header_bytes,
        )
        for address in settings.listen:
            self._listeners.append(await _listen(self._server, address))
        if settings.admin_listen:
            await self._start_admin(settings.admin_listen)
        self._ready = True
        _log.info(
            "the gate is open",
            extra={
                "details": {
                    "version": __version__,
                    "listen": list(settings.listen),
                    "redirect_uri": redirect_uri(self._generation.settings),
                }
            },
        )

    async def stop(self) -> None:
        """Stop listening, let open requests finish within the limit, end WebSockets with 1001."""
        self._ready = False
        limit = self._generation.settings.server.shutdown_timeout
        for listener in self._listeners:
            listener.close()
        if self._server is not None:
            self._generation.forwarder.end_tunnels()
            await self._drain(self._server, limit)
            self._server.close()
        if self._admin is not None:
            await self._admin.cleanup()
        await self._generation.close()
        _log.info("the gate is closed")

    def hurry(self) -> None:
        """Wait no longer for open requests."""
        self._hurry.set()

    async def _drain(self, server: ClientServer, limit: float) -> None:
        """Wait for the requests under way; close idle connections at once."""
        closed = server.leave()
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((closed, hurried), timeout=limit, return_when=FIRST_COMPLETED)
        hurried.cancel()

    async def _start_admin(self, address: str) -> None:
        app = admin_app(self._generation, is_ready=lambda: self._ready, clock=self._clock)
        self._admin = web.AppRunner(app, access_log=None)
        await self._admin.setup()
        site: web.BaseSite
        where = listen_address(address)
        if isinstance(where, UnixAddress):
            site = web.UnixSite(self._admin, where.path)
        else:
            site = web.TCPSite(self._admin, where.host, where.port)
        try:
            await site.start()
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror}") from None


async def _listen(server: ClientServer, address: str) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        where = listen_address(address)
        if isinstance(where, UnixAddress):
            bound = await asyncio.to_thread(_bind_unix, Path(where.path))
            return await loop.create_unix_server(server, sock=bound, backlog=_BACKLOG)
        return await loop.create_server(server, where.host, where.port, backlog=_BACKLOG)
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {error.strerror}") from None


def _bind_unix(path: Path) -> socket.socket:
    """Return a socket bound to `path`; one that an earlier process left behind is removed."""
    if path.is_socket():
        path.unlink()
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)  # noqa: FBT003 - socket's own signature
    return bound


async def serve(generation: Generation, *, started: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for open requests."""
    server = GateServer(generation)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        if stop.is_set():
            server.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    try:
        await server.start()
        if started is not None:
            started()
        await stop.wait()
    finally:
        await server.stop()


def run(generation: Generation) -> None:
    """Run `serve` in an event loop: uvloop's where it is installed, asyncio's otherwise."""
    prepare()
    try:
        import uvloop  # noqa: PLC0415 - optional: the `speed` extra
    except ImportError:
        asyncio.run(serve(generation))
    else:
        uvloop.run(serve(generation))
