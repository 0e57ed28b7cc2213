"""The gate is restarted behind real proxies under load, and no request fails."""

import asyncio
import csv
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit import DEPLOY, program, serving
from gatekit import RawUpstream, ask, request_bytes
from loadkit import load_behind_proxies
from process import free_port
from processkit import END_SECONDS, gate_process

PUBLIC = [{"name": "tool", "allow": ["public"]}]


async def test_restarts_over_a_passed_socket(tmp_path: Path, upstream: RawUpstream) -> None:
    """HAProxy and nginx see no failed request while the gate is stopped and started again."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        async with load_behind_proxies(tmp_path, listening.getsockname()[1]) as load:
            given: dict[str, Any] = {"route": PUBLIC, "server": {"shutdown_timeout": "20s"}}
            for _ in range(3):
                async with gate_process(
                    tmp_path, upstream.url, sockets=[listening], **given
                ) as gate:
                    await load.more()
                    gate.process.send_signal(signal.SIGTERM)
                    async with asyncio.timeout(END_SECONDS):
                        assert await gate.process.wait() == 0
            async with gate_process(tmp_path, upstream.url, sockets=[listening], **given):
                await load.more()
                await load.end()

    assert load.answers.keys() == {"200"}


async def test_gates_whose_checks_all_fail_are_used(
    start_gate: Callable[..., Any], upstream: RawUpstream, tmp_path: Path
) -> None:
    """HAProxy with the settings of deploy/: checks without an answer cost nobody a request.

    One of the two gates is gone, so that requests also go on from it to the other.
    """
    gate = await start_gate(upstream.url, route=PUBLIC)
    port, stats, config = free_port(), tmp_path / "stats", tmp_path / "conf"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = (DEPLOY / "haproxy/several-gates.cfg").read_text()
        for old, new in (
            ("bind :443 ssl crt /etc/haproxy/certs/", f"bind 127.0.0.1:{port}"),
            ("10.0.0.1:4180", f"127.0.0.1:{gate.port}"),
            ("10.0.0.2:4180", f"127.0.0.1:{free_port()}"),
            ("check port 4181", f"check port {silent.getsockname()[1]}"),
            ("timeout check 15s", "timeout check 50ms"),
        ):
            assert old in text
            text = text.replace(old, new)
        config.write_text(f"global\n    stats socket {stats} level admin\n{text}")
        command = [program("haproxy"), "-db", "-f", str(config)]
        async with serving(command, tmp_path, port):
            async with asyncio.timeout(60):
                while await asyncio.to_thread(_checked, stats) != {"DOWN"}:
                    pass
            data = request_bytes("/", host="gate.test", Connection="close")
            found = await asyncio.gather(*(ask(port, data) for _ in range(8)))
    assert [response.status for response in found] == [200] * 8


def _checked(stats: Path) -> set[str]:
    """Return the states of the servers that HAProxy checks (management guide, "show stat")."""
    with socket.socket(socket.AF_UNIX) as asked:
        # It may open this socket after its port.
        if asked.connect_ex(str(stats)):
            return set()
        asked.sendall(b"show stat\n")
        told = b"".join(iter(lambda: asked.recv(65_536), b""))
    rows = csv.DictReader(told.decode().removeprefix("# ").splitlines())
    return {row["status"].split()[0] for row in rows if row["svname"] in {"one", "two"}}
