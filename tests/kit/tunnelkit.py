"""Both ends of a tunnel in a test's hands, and the gate's two sockets between them."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from gatekit import RawClient, RawUpstream, Received, RunningGate, request_bytes
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.proxy.client import closing, server
from tailchat_gate.proxy.exchange import tunnel, upstream_pools
from tailchat_gate.proxy.upstream import connection as upstream_connection

#: The gate's time limits in these tests.
CLOSE_SECONDS, LINGER_SECONDS, SWEEP_SECONDS = 0.4, 0.3, 0.05


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate wait for a shorter time for ends that do not answer."""
    monkeypatch.setattr(tunnel, "CLOSE_SECONDS", CLOSE_SECONDS)
    monkeypatch.setattr(tunnel, "OVER_SECONDS", CLOSE_SECONDS)
    monkeypatch.setattr(tunnel, "LEFT_SECONDS", LINGER_SECONDS)
    monkeypatch.setattr(upstream_connection, "LINGER_SECONDS", LINGER_SECONDS)
    monkeypatch.setattr(closing, "LINGER_SECONDS", LINGER_SECONDS)
    monkeypatch.setattr(server, "SWEEP_SECONDS", SWEEP_SECONDS)
    monkeypatch.setattr(upstream_pools, "SWEEP_SECONDS", SWEEP_SECONDS)


@dataclass
class Tunnel:
    """A tunnel as its two ends see it; `upstream` is the tool's side."""

    gate: RunningGate
    client: RawClient
    upstream: RawClient
    sockets: set[int]

    def is_over(self) -> bool:
        """Tell whether the gate has closed both of its sockets."""
        return not self.sockets & open_sockets()


def open_sockets() -> set[int]:
    """Return the inode numbers of this process's sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - only the names are needed
        try:
            # Not readlink: the hook that finds blocking calls would examine each of hundreds.
            one = os.fstat(int(name))
        except OSError:
            continue
        if stat.S_ISSOCK(one.st_mode):
            found.add(one.st_ino)
    return found


@asynccontextmanager
async def opened(
    gate: RunningGate,
    tool: RawUpstream,
    *,
    fields: dict[str, str] = UPGRADE,
    switch: bytes = SWITCH,
    behind: bytes = b"",
    host: str = "gate.test",
) -> AsyncIterator[Tunnel]:
    """Open a tunnel through a gate to `tool`, which serves one tunnel at a time.

    The client sends `behind` in one write after the request, and reads the head of the response.
    """
    arrived: asyncio.Future[RawClient] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(switch)
        arrived.set_result(RawClient(reader, writer))
        await over.wait()
        writer.close()
        raise ConnectionError

    tool.answer = answer
    async with RawClient.connect(gate.port) as client:
        before = _of_gate(gate)
        client.send(request_bytes("/ws", host=host, **{"Cookie": gate.cookie(), **fields}) + behind)
        upstream = await arrived
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        try:
            yield Tunnel(gate, client, upstream, _of_gate(gate) - before)
        finally:
            over.set()
            _abort(upstream)
            _abort(client)


def _abort(end: RawClient) -> None:
    """Close an end, and drop the bytes that it has left to send: nothing reads them."""
    transport = end.writer.transport
    # asyncio's transport cannot be aborted once it is closing and has sent its last bytes.
    if transport.get_write_buffer_size() or not transport.can_write_eof():
        transport.abort()
    else:
        transport.close()


def _of_gate(gate: RunningGate) -> set[int]:
    """Return the inode numbers of the sockets of a gate's tunnels."""
    tunnels = gate.generation.process_state.upstream_pools.tunnels
    ends = [end for one in tunnels for end in (one._client, one._upstream)]
    found = [end.transport.get_extra_info("socket") for end in ends if end.transport is not None]
    numbers = [one.fileno() for one in found if one is not None]
    return {os.fstat(number).st_ino for number in numbers}
