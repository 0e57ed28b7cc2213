"""A gate with several workers, as a process, and what its log and its admin listener say."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from clikit import gate_after, run
from gatekit import RawClient, RawUpstream, Response, ask, request_bytes, until
from processkit import END_SECONDS, GateProcess, gate_process

ROUTES = [{"name": "tool", "allow": ["public"]}]
#: A gate that waits for a worker's answer longer than a busy machine may need.
UNHURRIED = """
from tailchat_gate.serving.workers import all_workers, parent, reports
all_workers.ASK_SECONDS = parent.ASK_SECONDS = reports.ASK_SECONDS = 6.0
"""


class Workers:
    """A gate with two workers, and its log."""

    def __init__(self, gate: GateProcess, errors: Path, config: Path) -> None:
        self.gate = gate
        self.config = config
        self.errors = errors

    def log(self, message: str) -> list[dict[str, Any]]:
        """Return the lines of the log with a message."""
        lines = [line for line in self.errors.read_text().splitlines() if line.startswith("{")]
        return [found for found in map(json.loads, lines) if found["message"] == message]

    async def logged(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines with a message, and return them."""
        await until(lambda: len(self.log(message)) >= count, within=60)
        return self.log(message)

    async def page(self, path: str, accept: str = "*/*") -> str:
        """Return a page of the admin listener."""
        data = request_bytes(path, host="localhost", Connection="close", Accept=accept)
        response = await ask(self.gate.admin_port, data)
        assert response.status == 200
        return response.body.decode()

    async def pids(self) -> list[int]:
        """Wait until all workers answer, and return their processes."""
        async with asyncio.timeout(60):
            while True:
                found = await self.workers()
                if not any(one["problem"] for one in found):
                    return [one["pid"] for one in found]

    async def workers(self) -> list[dict[str, Any]]:
        """Return what /status says of the workers."""
        found = json.loads(await self.page("/status"))["workers"]
        assert isinstance(found, list)
        return found

    async def ask(self, count: int, path: str = "/") -> set[bytes]:
        """Send requests on connections of their own, all at once; return the responses' bodies."""
        data = request_bytes(path, Connection="close")
        found = await asyncio.gather(*(ask(self.gate.port, data) for _ in range(count)))
        return {response.body for response in found}

    async def each(self, data: bytes) -> list[Response]:
        """Send a request to each worker; return the responses in the order of the workers.

        Connections that are opened at once do not show what each worker does: while one is busy,
        another accepts them all.
        """
        async with AsyncExitStack() as stack:
            pids = await self.pids()
            clients: dict[int, RawClient] = {}
            while len(clients) < len(pids):
                client = await stack.enter_async_context(RawClient.connect(self.gate.port))
                clients[await self._owner(client, pids)] = client
            for client in clients.values():
                client.send(data)
            return [await clients[pid].response() for pid in pids]

    async def each_status(self, data: bytes, status: int) -> None:
        """Wait until each worker answers a request so."""
        async with asyncio.timeout(60):
            while {response.status for response in await self.each(data)} != {status}:
                pass

    async def _owner(self, client: RawClient, pids: Collection[int]) -> int:
        """Wait until a process has accepted a connection, and return which one."""
        port = client.writer.get_extra_info("sockname")[1]
        async with asyncio.timeout(60):
            while True:
                if pid := await asyncio.to_thread(_owner, self.gate.port, port, pids):
                    return pid

    async def change(self, old: str, new: str) -> tuple[int, str, str]:
        """Change the file and have it loaded."""

        def write() -> None:
            self.config.write_text(self.config.read_text().replace(old, new))

        await asyncio.to_thread(write)
        return await run("reload", "--config", str(self.config))

    async def end(self) -> None:
        """Have it stop in order."""
        self.gate.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(END_SECONDS):
            assert await self.gate.process.wait() == 0


def _owner(gate_port: int, client_port: int, pids: Collection[int]) -> int:
    """Return the process that has accepted a connection on loopback, 0 if none has. Blocks."""
    addresses = f" 0100007F:{gate_port:04X} 0100007F:{client_port:04X} "
    lines = Path("/proc/net/tcp").read_text().splitlines()
    inode = next((line.split()[9] for line in lines if addresses in line), "")
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            # It may be closed meanwhile.
            with suppress(FileNotFoundError):
                if str(descriptor.readlink()) == f"socket:[{inode}]":
                    return pid
    return 0


@asynccontextmanager
async def workers(
    folder: Path,
    upstream: RawUpstream,
    **given: Any,  # noqa: ANN401 - as in gate_process
) -> AsyncIterator[Workers]:
    """Serve with two workers until the block ends."""
    errors, state = folder / "errors", folder / "state"
    state.mkdir(0o700, exist_ok=True)
    usual = {"server": {"workers": 2}, "state": {"path": str(state)}, "route": ROUTES}
    given = {"command": gate_after(UNHURRIED), **usual, **given}
    with await asyncio.to_thread(errors.open, "ab") as file:
        async with gate_process(folder, upstream.url, stderr=file.fileno(), **given) as gate:
            found = Workers(gate, errors, folder / "config.toml")
            await found.logged("the gate is open")
            yield found
