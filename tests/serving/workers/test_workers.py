"""Several processes serve as one gate: replaced, reloaded, asked, upgraded and stopped together."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from clikit import gate_after, run
from gatekit import RawUpstream, request_bytes, until
from loadkit import load_behind_proxies
from processkit import END_SECONDS
from workerkit import Workers, workers

_STATIC: dict[str, Any] = {"upstream": "static:204", "allow": ["public"]}
#: A gate that waits for a worker's build for a second.
HASTY = """
from tailchat_gate.serving.workers import parent
parent.PREPARE_SECONDS = 1.0
"""


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
        assert '# {request_id="' in await found.page("/metrics", "application/openmetrics-text")
        assert third not in {first, second}
        assert second in pids
        (line,) = found.log("a worker has ended; another one takes its place")
        assert (line["worker"], line["pid"], line["problem"]) == (1, first, "signal 9")
        await found.end()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_hangs_is_told_and_holds_nothing_up(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """The admin listener answers; a reload that one worker cannot take changes none of them."""
    routes = [{"name": "tool", "allow": ["public"]}, {"name": "no", "path": "/no", **_STATIC}]
    command = gate_after(HASTY)
    async with workers(tmp_path, upstream, route=routes, command=command) as found:
        _, second = await found.pids()
        assert await found.ask(8, "/no") == {b""}
        os.kill(second, signal.SIGSTOP)
        try:
            assert await found.gate.metric("gate_worker_up", worker="2") == 0
            assert "worker 2: does not answer" in await found.page("/readyz")
            code, _, err = await found.change("static:204", "static:404")
            assert code == 2
            # A busy machine may let worker 1 be late as well, which is named first then.
            assert "found no answer in 1 seconds" in err
        finally:
            os.kill(second, signal.SIGCONT)
        code, _, err = await _reloaded(found)
        assert (code, err) == (0, "")
        assert [one.status for one in await found.each(request_bytes("/no"))] == [404, 404]
        assert (await found.workers())[1]["pid"] == second
        assert await found.gate.metric("gate_generation") == 2


async def _reloaded(found: Workers) -> tuple[int, str, str]:
    """Reload as soon as every worker answers again, within its second."""
    async with asyncio.timeout(END_SECONDS):
        while "worker 2: does not answer" in await found.page("/readyz"):
            pass
        while True:
            done = await run("reload", "--config", str(found.config))
            if "found no answer in 1 seconds" not in done[2]:
                return done


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
            server = {"workers": 2, "shutdown_timeout": "20s"}
            async with workers(tmp_path, upstream, sockets=[listening], server=server) as found:
                await load.more()
                await found.end()
            async with workers(tmp_path, upstream, sockets=[listening], server=server) as found:
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
