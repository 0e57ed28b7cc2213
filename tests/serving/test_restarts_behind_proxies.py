"""The gate is restarted behind real proxies under load, and no request fails."""

import asyncio
import signal
import socket
from pathlib import Path

from gatekit import RawUpstream
from loadkit import load_behind_proxies
from processkit import END_SECONDS, gate_process

PUBLIC = [{"name": "tool", "allow": ["public"]}]


async def test_restarts_over_a_passed_socket(tmp_path: Path, upstream: RawUpstream) -> None:
    """HAProxy and nginx see no failed request while the gate is stopped and started again."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        async with load_behind_proxies(tmp_path, listening.getsockname()[1]) as load:
            for _ in range(3):
                async with gate_process(
                    tmp_path, upstream.url, sockets=[listening], route=PUBLIC
                ) as gate:
                    await load.more()
                    gate.process.send_signal(signal.SIGTERM)
                    async with asyncio.timeout(END_SECONDS):
                        assert await gate.process.wait() == 0
            async with gate_process(tmp_path, upstream.url, sockets=[listening], route=PUBLIC):
                await load.more()
                await load.end()

    assert load.answers.keys() == {"200"}
