"""A real redis-server for tests, on a Unix socket or on a port of its own choice."""

import asyncio
import os
import shutil
import signal
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from parts import missing
from redis.asyncio import Redis

from tailchat_gate.serving import process_state
from tailchat_gate.state.places import shared_store
from tailchat_gate.state.redis.servers import RedisPlace

_BEGIN_SECONDS: Final = 40


def own_addresses() -> tuple[str, str]:
    """Return loopback addresses of this process's own, on which no other server has a port."""
    number = os.getpid()
    rest = f"{number >> 8 & 255}.{number & 255}"
    return f"127.{100 + (number >> 16)}.{rest}", f"127.200.{rest}"


class RedisServer:
    """One server that keeps nothing on disk; it can be frozen, stopped and started again."""

    def __init__(self, directory: Path, *arguments: str, config: str = 'save ""\n') -> None:
        self.socket: Final = directory / "redis.sock"
        self.place: Final = RedisPlace(f"unix://{self.socket}")
        self._directory = directory
        self._arguments = arguments
        self._config = config
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        path = await asyncio.to_thread(shutil.which, "redis-server")
        if path is None:
            missing("redis-server")
        await asyncio.to_thread(self.socket.unlink, missing_ok=True)
        # A Sentinel starts with a file alone.
        file = self._directory / "redis.conf"
        await asyncio.to_thread(file.write_text, self._config)
        self._process = await asyncio.create_subprocess_exec(
            *(path, str(file), "--port", "0", "--unixsocket", str(self.socket)),
            *("--dir", str(self._directory), *self._arguments),
            stdin=DEVNULL,
            stdout=DEVNULL,
        )
        async with asyncio.timeout(_BEGIN_SECONDS):
            while not await self._listens():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    def freeze(self) -> None:
        """Stop its process from doing anything, as a machine that hangs."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Kill it; nothing of its data is left."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def empty(self) -> None:
        """Delete everything in it."""
        async with self.client() as client:
            await client.flushall()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """Give a client of its own."""
        client = Redis(unix_socket_path=str(self.socket))
        try:
            yield client
        finally:
            await client.aclose()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@asynccontextmanager
async def redis_server(*arguments: str, config: str = 'save ""\n') -> AsyncIterator[RedisServer]:
    """Run a server until the block ends; `config` is its file."""
    # A short name: the path of a socket has 107 bytes at most.
    directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="redis-"))
    server = RedisServer(directory, *arguments, config=config)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        await asyncio.to_thread(shutil.rmtree, directory)


def let_calls_last(monkeypatch: pytest.MonkeyPatch, seconds: float = 5) -> None:
    """Let a gate's call of a shared store last for longer, as it does on a busy machine."""
    unhurried = partial(shared_store, timeout=seconds)
    monkeypatch.setattr(process_state, "shared_store", unhurried)
