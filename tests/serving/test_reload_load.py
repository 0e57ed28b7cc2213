"""Reloads with thousands of requests in flight: none is lost, none is of two configurations."""

import asyncio
import re
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from gatekit import RawClient, RawUpstream, Received, Response, request_bytes, until
from parts import missing
from reloadkit import FileGate, Sections, file_gate

#: Several times what it takes alone: other tests may want the same processors.
pytestmark = [pytest.mark.both_loops, pytest.mark.timeout(240)]

CONNECTIONS = 500
#: Requests sent on each at once: the first waits at the tool, the others behind it.
PIPELINED = 5
VISITORS = 40
RELOADS = 6


def _settings(number: int) -> Sections:
    """Return tables by which four fields of a request tell the configuration's number."""
    return {
        "server": {"via": f"gate-{number}", "header_timeout": "10m"},
        "route": [
            {
                "name": "tool",
                "headers": {"X-One": f"one-{number}", "X-Two": f"two-{number} {{sub}}"},
                "upstream_host": f"host-{number}.test",
                # Thousands come at once, and other tests may want the same processors.
                "connect_timeout": "2m",
                "response_timeout": "4m",
            }
        ],
    }


class Tool:
    """A tool that tells each request's fields; it holds those for /held until it is let go."""

    def __init__(self, upstream: RawUpstream) -> None:
        self.held = 0
        self.go_on = asyncio.Event()
        upstream.answer = self._answer

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.line.startswith(b"GET /held"):
            self.held += 1
            await self.go_on.wait()
        names = ("X-One", "X-Two", "Host", "Via")
        path = request.line.split(b" ")[1]
        body = b"\n".join((path, *(request.value(name) or b"none" for name in names)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def _told(response: Response, path: str) -> int:
    """Return the one configuration that made the request of a reply."""
    assert response.status == 200
    first, *fields = response.body.decode().split("\n")
    assert first == path
    numbers = {int(match) for field in fields for match in re.findall(r"-(\d+)", field)[:1]}
    assert len(fields) == 4
    assert len(numbers) == 1, fields
    return numbers.pop()


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    """Let the process have the descriptors of all clients, connections and tools."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 10_000
    if hard < wanted:
        missing(f"leave to have {wanted} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def gate(tmp_path: Path, upstream: RawUpstream) -> AsyncIterator[FileGate]:
    """Return a gate whose configuration has the number 0."""
    async with file_gate(tmp_path, upstream.url, **_settings(0)) as found:
        yield found


async def test_thousands_in_flight_lose_nothing(gate: FileGate, upstream: RawUpstream) -> None:
    """2,500 requests wait on 500 connections and 40 visitors go on asking while six loads happen.

    Every request is answered once, in order, by exactly one configuration: those that were with
    the tool by the first, those that waited behind them by the last.
    """
    tool, cookie = Tool(upstream), gate.gate.cookie()
    seen: Counter[int] = Counter()
    done = asyncio.Event()

    async def all_ask_again() -> None:
        least = sum(seen.values()) + 2 * VISITORS
        await until(lambda: sum(seen.values()) >= least)

    async def context(number: int) -> int:
        count = last = 0
        async with RawClient.connect(gate.port) as client:
            while not done.is_set():
                path = f"/visit/{number}/{count}"
                client.send(request_bytes(path, Cookie=cookie))
                told = _told(await client.response(), path)
                assert told >= last, "a request was answered by a configuration that had gone"
                seen[told] += 1
                count, last = count + 1, told
        return count

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(RawClient.connect(gate.port))
            for _ in range(CONNECTIONS)
        ]
        for number, client in enumerate(clients):
            for place in range(PIPELINED):
                client.send(request_bytes(f"/held/{number}/{place}", Cookie=cookie))
        await until(lambda: tool.held == CONNECTIONS)
        visitors = [asyncio.create_task(context(number)) for number in range(VISITORS)]
        for number in range(1, RELOADS + 1):
            await gate.change(**_settings(number))
            await all_ask_again()
        assert tool.held == CONNECTIONS
        tool.go_on.set()
        for number, client in enumerate(clients):
            for place in range(PIPELINED):
                told = _told(await client.response(), f"/held/{number}/{place}")
                assert told == (0 if place == 0 else RELOADS)
        done.set()
        counts = await asyncio.gather(*visitors)

    assert sum(counts) == sum(seen.values())
    assert seen.keys() >= set(range(1, RELOADS + 1))
    lines = await gate.gate.log()
    assert Counter(line["status"] for line in lines) == {200: CONNECTIONS * PIPELINED + sum(counts)}
    assert await gate.metric("gate_generation") == RELOADS + 1


async def test_requests_in_flight_with_the_tool_survive_together(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """2,000 requests that are all with the tool keep their configuration, and then let it go."""
    tool, cookie = Tool(upstream), gate.gate.cookie()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(RawClient.connect(gate.port)) for _ in range(2000)
        ]
        for number, client in enumerate(clients):
            client.send(request_bytes(f"/held/{number}", Cookie=cookie))
        await until(lambda: tool.held == len(clients), within=120)
        for number in (1, 2, 3):
            await gate.change(**_settings(number))
        tool.go_on.set()
        for number, client in enumerate(clients):
            assert _told(await client.response(), f"/held/{number}") == 0
    await until(lambda: not gate.gate.server.generations.retired)
