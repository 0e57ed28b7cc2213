"""The process ends when it is told to, whatever hangs."""

import asyncio
import os
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from clikit import GATE, environ, gate_after
from gatekit import RawClient, RawUpstream, Received, listening, request_bytes, until
from processkit import GateProcess, gate_process
from storekit import StoredEntries

from tailchat_gate.identity.revocation.state import Lock
from tailchat_gate.serving.signals import EXIT_HUNG
from tailchat_gate.state.sqlite.files import NAME

#: What an end may take beyond a `shutdown_timeout` of one second, on a busy machine.
END_SECONDS = 25.0


def _short(*, grace: float = END_SECONDS, hurry: float = END_SECONDS, close: float = 0.5) -> str:
    """Change the gate: little time for a disk that hangs, and as much as it needs for all else."""
    return f"""
from functools import partial
from tailchat_gate.commands import serve
from tailchat_gate.serving import reload, signals
from tailchat_gate.state import bookkeeping
serve.Signals = partial(signals.Signals, grace={grace}, hurry={hurry}, leave=0.5)
reload.CLOSE_SECONDS = bookkeeping.CLOSE_SECONDS = {close}
"""


#: Then its event loop is blocked, soon after its start.
BLOCKS = """
import asyncio, time
from tailchat_gate.serving import server
start = server.GateServer.start
def block():
    print("blocked", flush=True)
    time.sleep(3600)
async def then_block(self):
    await start(self)
    asyncio.get_running_loop().call_later(0.5, block)
server.GateServer.start = then_block
"""


def _waits(gate: GateProcess, number: signal.Signals) -> bool:
    """Tell whether a signal was not taken yet, by a process that is still there."""
    try:
        status = Path(f"/proc/{gate.process.pid}/status").read_text()
    except OSError:
        return False
    waiting = re.search(r"^ShdPnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    assert waiting is not None
    return bool(int(waiting[1], 16) & 1 << (number - 1))


async def _ended(gate: GateProcess, *signals: signal.Signals) -> int:
    """Send signals, and return the exit code."""
    for number in signals or (signal.SIGTERM,):
        gate.process.send_signal(number)
        # Two of a kind at the same time are one.
        await until(lambda number=number: not _waits(gate, number))  # type: ignore[misc]
    async with asyncio.timeout(END_SECONDS):
        return await gate.process.wait()


@asynccontextmanager
async def _mute() -> AsyncIterator[int]:
    """Listen on a port, take every connection and say nothing."""
    held = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with listening(hold) as port:
        try:
            yield port
        finally:
            for writer in held:
                writer.close()


async def test_a_tool_that_hangs(tmp_path: Path, upstream: RawUpstream) -> None:
    """A request that a tool never answers is waited for as long as `shutdown_timeout` says."""
    asked = asyncio.Event()

    async def hang(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    upstream.answer = hang
    route = [{"name": "tool", "allow": ["public"]}]
    async with (
        gate_process(tmp_path, upstream.url, command=gate_after(_short()), route=route) as gate,
        RawClient.connect(gate.port) as client,
    ):
        client.send(request_bytes(host=f"127.0.0.1:{gate.port}"))
        await asked.wait()
        began = time.monotonic()
        assert await _ended(gate) == 0
        assert time.monotonic() >= began + 1


async def test_a_second_signal_waits_for_no_tool(tmp_path: Path, upstream: RawUpstream) -> None:
    """With an hour for open requests, a second SIGTERM ends the process all the same."""
    asked = asyncio.Event()

    async def hang(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    upstream.answer = hang
    route, server = [{"name": "tool", "allow": ["public"]}], {"shutdown_timeout": "1h"}
    async with (
        gate_process(
            tmp_path, upstream.url, command=gate_after(_short()), route=route, server=server
        ) as gate,
        RawClient.connect(gate.port) as client,
    ):
        client.send(request_bytes(host=f"127.0.0.1:{gate.port}"))
        await asked.wait()
        assert await _ended(gate, signal.SIGTERM, signal.SIGINT) == 0


async def test_a_tailchat_that_hangs(tmp_path: Path) -> None:
    """A login that waits for Tailchat is cut off."""
    async with (
        _mute() as port,
        gate_process(tmp_path, tailchat={"api_url": f"http://127.0.0.1:{port}"}) as gate,
        RawClient.connect(gate.port) as client,
    ):
        client.send(request_bytes("/oauth2/start", host=f"127.0.0.1:{gate.port}"))
        assert await _ended(gate) == 0


@pytest.mark.parametrize("orders", [1, 2])
async def test_a_disk_that_hangs_in_a_reload(tmp_path: Path, orders: int) -> None:
    """A secret file that nobody writes keeps a thread waiting forever, but not the process."""
    secret = tmp_path / "secret"
    await asyncio.to_thread(secret.write_text, "an-app-secret-of-the-test\n")
    secret.chmod(0o600)
    tailchat = {"client_secret_file": str(secret), "client_secret": None}
    # The second signal needs a process that the first one has not ended yet.
    command = gate_after(_short(close=0.5 if orders == 1 else 5))
    async with gate_process(tmp_path, command=command, tailchat=tailchat) as gate:
        secret.unlink()
        os.mkfifo(secret)
        assert (await gate.ping()).status == 200
        assert await _ended(gate, signal.SIGHUP, *[signal.SIGTERM] * orders) == 0


@pytest.mark.parametrize("orders", [1, 2, 3])
async def test_a_blocked_event_loop(tmp_path: Path, orders: int) -> None:
    """A gate that answers nothing any more ends too, with a code of its own that is told."""
    errors = tmp_path / "errors"
    # The third signal needs a process that the second one has not ended yet.
    changed = _short(grace=1.5, hurry=END_SECONDS if orders == 3 else 1.5)
    with await asyncio.to_thread(errors.open, "wb") as file:
        async with gate_process(
            tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=file.fileno(),
            command=gate_after(changed + BLOCKS),
            server={"shutdown_timeout": "1s" if orders == 1 else "1h"},
        ) as gate:
            assert gate.process.stdout is not None
            await gate.process.stdout.readuntil(b"blocked")
            assert await _ended(gate, *[signal.SIGTERM] * orders) == EXIT_HUNG

    assert "the shutdown takes too long" in await asyncio.to_thread(errors.read_text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_start_that_hangs(tmp_path: Path, number: signal.Signals) -> None:
    """Before the gate is open the signals end it as they end any program."""
    config = tmp_path / "config.toml"
    os.mkfifo(config, 0o600)
    process = await asyncio.create_subprocess_exec(
        *GATE, "serve", "-c", str(config), env=environ(), stderr=asyncio.subprocess.DEVNULL
    )
    # It is there once it waits for somebody to write.
    writer = await asyncio.to_thread(os.open, config, os.O_WRONLY)
    process.send_signal(number)
    async with asyncio.timeout(END_SECONDS):
        code = await process.wait()
    os.close(writer)

    assert code == -number


async def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    """A store that another process keeps to itself holds nothing up, and is told of."""
    errors = tmp_path / "errors"
    await asyncio.to_thread(StoredEntries(tmp_path).append, (Lock("sub:66a", 1),))
    with (
        closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other,
        await asyncio.to_thread(errors.open, "wb") as file,
    ):
        other.execute("BEGIN IMMEDIATE")
        async with gate_process(
            tmp_path,
            stderr=file.fileno(),
            command=gate_after(_short()),
            state={"path": str(tmp_path)},
        ) as gate:
            assert await _ended(gate) == 0

    assert "the state store has a fault" in await asyncio.to_thread(errors.read_text)
