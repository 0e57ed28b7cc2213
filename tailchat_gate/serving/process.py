"""Runs a server in this process: memory settings, the event loop, signals."""

import asyncio
import ctypes
import gc
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from tailchat_gate.config.load import Source
from tailchat_gate.config.model import Settings
from tailchat_gate.proxy.sockets import raise_limit
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.listening.tls import read_less
from tailchat_gate.serving.reload import Reloader
from tailchat_gate.serving.server import GateServer
from tailchat_gate.serving.signals import Signals
from tailchat_gate.serving.surroundings import Surroundings
from tailchat_gate.serving.upgrade import Upgrader

#: Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
#: Freed memory that the process keeps, in bytes. A large body arrives in pieces of up to 250 kB;
#: returning each to the kernel and allocating it again took a quarter of a download's CPU time.
_KEPT_MEMORY: Final = 16 << 20
_LARGEST_PIECE: Final = 1 << 20


def prepare() -> None:
    """Tune the collector and the allocator of this process; call it once, before serving."""
    # Objects made at the start live until the end; unfrozen, the collector would scan them again
    # and again, 50 ms at a time.
    gc.collect()
    gc.freeze()
    # Requests leave no cycles; searching for some after every 700 objects only costs time. After
    # 20,000 it takes 4 ms, in which all requests wait.
    gc.set_threshold(5_000, 80, 20)
    _keep_freed_memory()
    read_less()


def _keep_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none, and does not need it
        mallopt(_M_TRIM_THRESHOLD, _KEPT_MEMORY)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_PIECE)


class Served(Protocol):
    """The server that `live` starts, controls by signals and stops."""

    @property
    def reloader(self) -> Reloader | None:
        """Reloads the configuration; None without a file."""

    @property
    def upgrader(self) -> Upgrader:
        """Lets another process take over."""

    @property
    def over(self) -> asyncio.Event:
        """Set when the process is to stop."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    async def start(self) -> None:
        """Begin to serve. Raises StartError."""

    async def stop(self) -> None:
        """Stop serving, and close everything."""

    def hurry(self) -> None:
        """Stop waiting for open requests."""


async def serve(
    generation: Generation,
    signals: Signals,
    source: Source | None = None,
    *,
    started: Callable[[GateServer], None] | None = None,
    surroundings: Surroundings | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until another process has taken over.

    A second signal ends the wait for open requests. With a `source`, SIGHUP and any change of its
    files reload the configuration. SIGUSR2 lets another process take over. `started` is called
    once the server serves. Raises StartError.
    """
    server = GateServer(generation, source, checks_sign_in=True, surroundings=surroundings)
    await live(server, signals, started=None if started is None else partial(started, server))


async def live(
    server: Served, signals: Signals, *, started: Callable[[], None] | None = None
) -> None:
    """Start the server, and stop it when a signal or the server itself asks for that."""
    loop = asyncio.get_running_loop()
    stops = 0

    def signalled(number: int) -> None:
        nonlocal stops
        if number == signal.SIGHUP:
            if server.reloader is not None:
                server.reloader.ask("SIGHUP")
        elif number == signal.SIGUSR2:
            server.upgrader.ask("SIGUSR2")
        else:
            stops += 1
            if stops > 1:
                server.hurry()
            server.over.set()

    signals.listen(
        lambda number: _tell(loop, signalled, number),
        lambda: server.settings.server.longest_stop,
    )
    try:
        await server.start()
        if started is not None:
            started()
        watching = loop.create_task(server.reloader.watch()) if server.reloader else None
        await server.over.wait()
        signals.ending()
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
    finally:
        await server.stop()
        signals.ended()


def _tell(loop: asyncio.AbstractEventLoop, signalled: Callable[[int], None], number: int) -> None:
    with suppress(RuntimeError):  # the loop is closed already
        loop.call_soon_threadsafe(signalled, number)


def run(
    generation: Generation, signals: Signals, source: Source, surroundings: Surroundings
) -> None:
    """Serve in this process alone."""
    run_loop(serve(generation, signals, source, surroundings=surroundings))


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in an event loop: uvloop's if it is installed, else asyncio's."""
    prepare()
    raise_limit()
    _runner()(work)


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    # Only returns inside the `except`: every traceback from there would begin with this error.
    try:
        import uvloop  # noqa: PLC0415 - optional: the `speed` extra
    except ImportError:
        return asyncio.run
    return uvloop.run
