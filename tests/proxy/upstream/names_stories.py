"""What names lead to, in a network of its own: run by test_resolver.py, each story a process."""

import asyncio
import json
import os
import shutil
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import uvloop
from gatekit import RunningGate, ask, make_settings, request_bytes, running_gate
from netkit import Zone
from rediskit import redis_server

from tailchat_gate.proxy.upstream import resolver
from tailchat_gate.state.redis import store as redis_store
from tailchat_gate.state.store import ReservationStatus

_PORT: Final = 8000


@asynccontextmanager
async def _tool(host: str, word: str, *, keep: bool = True) -> AsyncIterator[asyncio.Server]:
    """Serve a tool that says one word; `keep`: its connections stay."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in {b"", b"\r\n"}:
            pass
        while not writer.is_closing():
            lines = "" if keep else "Connection: close\r\n"
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(word)}\r\n{lines}"
            writer.write(f"{head}Content-Type: application/json\r\n\r\n{word}".encode())
            if not keep:
                break
            while (line := await reader.readline()) not in {b"", b"\r\n"}:
                pass
            if not line:
                break
        writer.close()

    async with await asyncio.start_server(answer, host, _PORT) as server:
        yield server


@asynccontextmanager
async def _gate(
    directory: Path,
    *tools: str,
    state: dict[str, str] | None = None,
    **keys: Any,  # noqa: ANN401 - as in the file
) -> AsyncIterator[RunningGate]:
    """Serve a gate with a public route for each tool, by its name below .test."""
    routes = [
        {
            "name": tool,
            "path": f"/{tool}",
            "upstream": f"http://{tool}.test:{_PORT}",
            "allow": ["public"],
            **keys,
        }
        for tool in tools
    ]
    tailchat = {"api_url": f"http://tailchat.test:{_PORT}"}
    tables: Any = {"state": state} if state else {}
    settings = make_settings(route=routes, tailchat=tailchat, **tables)
    async with running_gate(settings, directory / "access.log") as gate:
        yield gate


async def _asked(gate: RunningGate, tool: str) -> tuple[int, bytes]:
    response = await ask(gate.port, request_bytes(f"/{tool}"))
    return response.status, response.body


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the test's time limit bounds it
        await asyncio.sleep(0.005)


async def silent(zone: Zone, directory: Path) -> None:
    """Eight requests wait for a name; other names, Tailchat's among them, are found meanwhile."""
    zone.silent.add("dead.test")
    zone.records |= {"tool.test": ["127.0.0.2"], "tailchat.test": ["127.0.0.3"]}
    issuer = json.dumps({"issuer": "https://issuer.test"})
    async with (
        _tool("127.0.0.2", "ok"),
        _tool("127.0.0.3", issuer),
        _gate(directory, "dead", "tool", connect_timeout="20s") as gate,
    ):
        lost = [asyncio.create_task(_asked(gate, "dead")) for _ in range(8)]
        await _until(lambda: "dead.test" in zone.asked)
        assert await _asked(gate, "tool") == (200, b"ok")
        assert await gate.generation.tailchat.issuer() == "https://issuer.test"
        assert not any(task.done() for task in lost)
        # A and AAAA, once.
        assert zone.asked.count("dead.test") == 2
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)


async def slow(zone: Zone, directory: Path) -> None:
    """Very many requests wait for a dead and a slow name; a healthy tool answers meanwhile."""
    zone.silent.add("dead.test")
    zone.held["slow.test"] = asyncio.Event()
    zone.records |= {"tool.test": ["127.0.0.2"], "slow.test": ["127.0.0.3"]}
    async with (
        _tool("127.0.0.2", "ok"),
        _tool("127.0.0.3", "slow"),
        _gate(directory, "dead", "slow", "tool", connect_timeout="20s") as gate,
    ):
        lost = [asyncio.create_task(_asked(gate, "dead")) for _ in range(150)]
        late = [asyncio.create_task(_asked(gate, "slow")) for _ in range(50)]
        await _until(lambda: {"dead.test", "slow.test"} <= set(zone.asked))
        for _ in range(20):
            assert await _asked(gate, "tool") == (200, b"ok")
        # What needs a thread of the loop has one.
        await asyncio.to_thread(os.getpid)
        assert not any(task.done() for task in (*lost, *late))
        zone.held["slow.test"].set()
        assert set(await asyncio.gather(*late)) == {(200, b"slow")}
        assert zone.asked.count("dead.test") == zone.asked.count("slow.test") == 2
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)


async def silent_store(zone: Zone, directory: Path) -> None:
    """A Redis whose name is dead takes no thread that others need, however often it is called."""
    if shutil.which("redis-server") is None and "CI" not in os.environ:
        return
    zone.records |= {"tool.test": ["127.0.0.2"], "redis.test": ["127.0.0.5"]}
    state = {"url": "redis://redis.test:6379", "path": ""}
    async with (
        redis_server("--port", "6379", "--bind", "127.0.0.5") as server,
        _tool("127.0.0.2", "ok"),
        _gate(directory, "tool", state=state) as gate,
    ):
        store = gate.generation.process_state.store
        assert isinstance(store, redis_store.RedisStore)
        redis_store.RETRY_SECONDS = resolver.FRESH_SECONDS = 0.0  # type: ignore[misc]
        zone.silent.add("redis.test")
        asked = zone.asked.count("redis.test")
        await server.stop()
        store._client._timeout = 0.05
        for number in range(40):
            found = await store.reserve("login", str(number), until=2e9, room=100)
            assert found.status is ReservationStatus.UNAVAILABLE
        async with asyncio.timeout(10):
            await asyncio.to_thread(os.getpid)
        assert zone.asked.count("redis.test") <= asked + 2
        assert await _asked(gate, "tool") == (200, b"ok")


async def silent_address(zone: Zone, directory: Path) -> None:
    """A tool is reached by the address that answers, whichever of its others are silent or dead."""
    zone.records["tool.test"] = ["fd00:dead::1", "fd00:dead::2", "127.0.0.2"]
    zone.records["other.test"] = ["::1", "127.0.0.2"]
    async with (
        _tool("127.0.0.2", "ok", keep=False),
        _gate(directory, "tool", "other", connect_timeout="5s") as gate,
    ):
        for _ in range(3):
            assert await _asked(gate, "tool") == (200, b"ok")
            # Nothing listens at ::1.
            assert await _asked(gate, "other") == (200, b"ok")


async def moved(zone: Zone, directory: Path) -> None:
    """A tool that moved is found while its old address still answers and is kept busy."""
    resolver.FRESH_SECONDS = 0.2  # type: ignore[misc]
    zone.records["tool.test"] = ["127.0.0.2"]
    async with (
        _tool("127.0.0.2", "old"),
        _tool("127.0.0.3", "new"),
        _gate(directory, "tool") as gate,
    ):
        assert await _asked(gate, "tool") == (200, b"old")
        zone.records["tool.test"] = ["127.0.0.3"]
        while await _asked(gate, "tool") != (200, b"new"):
            pass
        for _ in range(20):
            assert await _asked(gate, "tool") == (200, b"new")


async def last_good(zone: Zone, directory: Path) -> None:
    """The last good answer is used while the name server hangs or fails, and not behind a "no"."""
    resolver.FRESH_SECONDS = resolver.FAILED_SECONDS = 0.0  # type: ignore[misc]
    zone.records["tool.test"] = ["127.0.0.2"]
    async with (
        _tool("127.0.0.2", "ok", keep=False),
        _gate(directory, "tool", connect_timeout="20s") as gate,
    ):
        assert await _asked(gate, "tool") == (200, b"ok")
        zone.failing.add("tool.test")
        assert await _asked(gate, "tool") == (200, b"ok")
        zone.failing.clear()
        del zone.records["tool.test"]
        while (await _asked(gate, "tool"))[0] != 502:
            pass
        zone.records["tool.test"] = ["127.0.0.2"]
        assert await _asked(gate, "tool") == (200, b"ok")
        zone.silent.add("tool.test")
        for _ in range(3):
            assert await _asked(gate, "tool") == (200, b"ok")


STORIES: Final = MappingProxyType(
    {one.__name__: one for one in (silent, slow, silent_store, silent_address, moved, last_good)}
)


async def _run(story: Callable[[Zone, Path], Awaitable[None]], directory: Path) -> None:
    zone = Zone()
    await zone.serve()
    async with asyncio.timeout(30):
        await story(zone, directory)


def _tell(name: str, loop: str, folder: Path) -> int:
    """Run a story in a child, which has all modules already; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        folder.mkdir()
        run: Any = uvloop.run if loop == "uvloop" else asyncio.run
        run(_run(STORIES[name], folder))
        code = 0
    except BaseException:  # noqa: BLE001 - it is told, and the child ends
        (folder / "told").write_text(traceback.format_exc())
    finally:
        os._exit(code)


if __name__ == "__main__":
    _, *LOOPS, DIRECTORY = sys.argv
    for LOOP in LOOPS:
        for STORY in STORIES:
            FOLDER = Path(DIRECTORY, f"{STORY}-{LOOP}")
            if _tell(STORY, LOOP, FOLDER) == 0:
                (FOLDER / "done").touch()
