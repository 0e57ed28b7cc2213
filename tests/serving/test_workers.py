"""Several processes serve as one gate: replaced, reloaded, asked, upgraded and stopped together."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clikit import run
from gatekit import RawUpstream, ask, request_bytes, until
from loadkit import load_behind_proxies
from processkit import END_SECONDS, GateProcess, gate_process

ROUTES = [{"name": "tool", "allow": ["public"]}]
_STATIC: dict[str, Any] = {"upstream": "static:204", "allow": ["public"]}
#: A gate that waits for a worker's build for a second.
HASTY = """
from tailchat_gate.serving.workers import parent
parent.PREPARE_SECONDS = 1.0
from tailchat_gate.cli import main
main()
"""


class Workers:
    """A gate with two workers, and its log."""

    def __init__(self, gate: GateProcess, errors: Path, config: Path) -> None:
        self.gate = gate
        self.config = config
        self._errors = errors

    def log(self, message: str) -> list[dict[str, Any]]:
        """Return the lines of the log with a message."""
        lines = [line for line in self._errors.read_text().splitlines() if line.startswith("{")]
        return [found for found in map(json.loads, lines) if found["message"] == message]

    async def page(self, path: str) -> str:
        """Return a page of the admin listener."""
        data = request_bytes(path, host="localhost", Connection="close")
        response = await ask(self.gate.admin_port, data)
        assert response.status == 200
        return response.body.decode()

    async def pids(self) -> list[int]:
        """Return the processes of the workers that serve."""
        return [one["pid"] for one in await self.workers() if not one["problem"]]

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

    async def change(self, old: str, new: str) -> tuple[int, str, str]:
        """Change the file and have it loaded."""

        def write() -> None:
            self.config.write_text(self.config.read_text().replace(old, new))

        await asyncio.to_thread(write)
        return await run("reload", "--config", str(self.config))


@asynccontextmanager
async def workers(
    folder: Path,
    upstream: RawUpstream,
    **given: Any,  # noqa: ANN401 - as in gate_process
) -> AsyncIterator[Workers]:
    """Serve with two workers until the block ends."""
    errors, state = folder / "errors", folder / "state"
    state.mkdir(0o700, exist_ok=True)
    given = {"server": {"workers": 2}, "state": {"path": str(state)}, "route": ROUTES, **given}
    with await asyncio.to_thread(errors.open, "ab") as file:
        async with gate_process(folder, upstream.url, stderr=file.fileno(), **given) as gate:
            found = Workers(gate, errors, folder / "config.toml")
            await until(lambda: bool(found.log("the gate is open")), within=60)
            yield found


async def _end(gate: GateProcess) -> None:
    gate.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(END_SECONDS):
        assert await gate.process.wait() == 0


async def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, upstream: RawUpstream) -> None:
    """The log and a metric say so; the sums of both workers are exact, and do not fall by it."""
    async with workers(tmp_path, upstream) as found:
        first, second = await found.pids()
        await found.ask(20)
        labels = {"code": "200", "method": "GET", "route": "tool"}
        before = await found.gate.metric("gate_requests_total", **labels)
        os.kill(first, signal.SIGKILL)
        message = "a worker serves in place of one that ended"
        await until(lambda: bool(found.log(message)), within=60)
        await found.ask(20)
        third, _ = pids = await found.pids()

        assert before == 20
        assert await found.gate.metric("gate_requests_total", **labels) == 40
        assert await found.gate.metric("gate_worker_restarts_total", worker="1") == 1
        assert await found.gate.metric("gate_worker_up", worker="1") == 1
        assert third not in {first, second}
        assert second in pids
        (line,) = found.log("a worker has ended; another one takes its place")
        assert (line["worker"], line["pid"], line["problem"]) == (1, first, "signal 9")
        await _end(found.gate)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_hangs_is_told_and_holds_nothing_up(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """The admin listener answers; a reload that one worker cannot take changes none of them."""
    routes = [{"name": "tool", "allow": ["public"]}, {"name": "no", "path": "/no", **_STATIC}]
    command = (sys.executable, "-W", "error", "-c", HASTY)
    async with workers(tmp_path, upstream, route=routes, command=command) as found:
        _, second = await found.pids()
        assert await found.ask(8, "/no") == {b""}
        os.kill(second, signal.SIGSTOP)
        try:
            assert await found.gate.metric("gate_worker_up", worker="2") == 0
            assert "worker 2: does not answer" in await found.page("/readyz")
            code, _, err = await found.change("static:204", "static:404")
            assert code == 2
            assert "worker 2" in err
        finally:
            os.kill(second, signal.SIGCONT)
        code, _, err = await _reloaded(found)
        assert (code, err) == (0, "")
        assert await _statuses(found, "/no") == {404}
        assert (await found.workers())[1]["pid"] == second
        assert await found.gate.metric("gate_generation") == 2


async def _reloaded(found: Workers) -> tuple[int, str, str]:
    """Reload as soon as every worker answers again."""
    async with asyncio.timeout(END_SECONDS):
        while "worker 2: does not answer" in await found.page("/readyz"):
            pass
    return await run("reload", "--config", str(found.config))


async def _statuses(found: Workers, path: str) -> set[int]:
    data = request_bytes(path, Connection="close")
    answers = await asyncio.gather(*(ask(found.gate.port, data) for _ in range(16)))
    return {answer.status for answer in answers}


async def test_reloads_open_and_close_addresses_in_all(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """A new address is bound once and served by all; a file with a mistake changes nothing."""
    unix = tmp_path / "gate.sock"
    async with workers(tmp_path, upstream) as found:
        listen = f'"127.0.0.1:{found.gate.port}"'
        code, _, err = await found.change(f"[{listen}]", f'[{listen}, "unix:{unix}"]')
        assert (code, err) == (0, "")
        for _ in range(8):
            reader, writer = await asyncio.open_unix_connection(unix)
            writer.write(request_bytes(Connection="close"))
            assert (await reader.read()).endswith(b"ok")
            writer.close()
            await writer.wait_closed()
        code, _, err = await found.change('"1s"', '"1x"')
        assert code == 2
        assert await found.ask(8) == {b"ok"}
        assert await found.gate.metric("gate_config_last_reload_success") == 0
        assert await found.gate.metric("gate_generation") == 2


async def test_no_request_fails_by_an_upgrade_or_a_stop(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """Behind HAProxy and nginx, while another parent takes over, and one is stopped and started."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        port = listening.getsockname()[1]
        async with load_behind_proxies(tmp_path, port) as load:
            async with workers(tmp_path, upstream, sockets=[listening]) as found:
                await load.more()
                await _end(found.gate)
            async with workers(tmp_path, upstream, sockets=[listening]) as found:
                await load.more()
                code, out, err = await run("upgrade", "--config", str(found.config))
                try:
                    assert (code, err) == (0, "")
                    async with asyncio.timeout(END_SECONDS):
                        assert await found.gate.process.wait() == 0
                    await load.more()
                    await load.end()
                finally:
                    if code == 0:
                        os.kill(int(out.split()[1]), signal.SIGTERM)

    assert load.answers.keys() == {"200"}
