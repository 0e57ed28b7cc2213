"""Rate limits over several gates with one real Redis, and what holds while it is away."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from gatekit import (
    SUB,
    Clock,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    make_settings,
    request_bytes,
    until,
)
from gatekit import running_gate as running
from rediskit import RedisServer, redis_server

from tailchat_gate.identity.oauth.responses import Profile

BOB = Profile("660000000000000000000002", "Bob", "0001", "")


@asynccontextmanager
async def _two_gates(
    server: RedisServer, tool: RawUpstream, folder: Path, rate: str
) -> AsyncIterator[tuple[RunningGate, RunningGate]]:
    state = {"url": server.place.url, "path": ""}
    settings = make_settings(tool.url, state=state, limits={"requests_per_person": rate})
    async with (
        running(settings, folder / "1.log", Clock()) as first,
        running(settings, folder / "2.log", Clock()) as second,
    ):
        yield first, second


async def _get(gate: RunningGate, cookie: str = "") -> Response:
    return await ask(gate.port, request_bytes("/", Cookie=cookie or gate.cookie()))


def _ahead(gate: RunningGate, sub: str = SUB) -> float:
    """Return how many seconds a person's bucket is from full, as a gate knows it."""
    rates = gate.generation.gate.authorizer.rates
    assert rates is not None
    assert rates._person is not None
    return rates._person.bucket(sub).due - gate.generation.process_state.monotonic()


async def _told(server: RedisServer, seconds: float, sub: str = SUB) -> None:
    """Wait until the server has heard of so many seconds' requests of a person."""
    async with asyncio.timeout(30), server.client() as client:
        while True:
            keys = await client.keys(f"*:rate:*:{sub}")
            if keys and await client.pttl(keys[0]) > seconds * 1000:
                return
            await asyncio.sleep(0.01)


def _is_shared(gate: RunningGate) -> bool:
    return b"gate_rates_shared 1.0" in gate.generation.process_state.metrics.render()


async def test_a_limit_holds_over_two_gates(upstream: RawUpstream, tmp_path: Path) -> None:
    """What passed at one gate counts at the other; together no more pass than at one."""
    async with redis_server() as server, _two_gates(server, upstream, tmp_path, "4/day") as gates:
        first, second = gates
        passed = [(await _get(first)).status for _ in range(3)]
        await _told(server, 2.9 * 21_600)
        # The second hears of them with its own first exchange.
        passed.append((await _get(second)).status)
        await until(lambda: _ahead(second) > 3.9 * 21_600)
        refused = await _get(second)
        passed += [(await _get(second)).status for _ in range(2)]
        async with server.client() as client:
            keys = await client.keys("*:rate:*")
            kept = await client.pttl(keys[0])

    assert passed == [200] * 4 + [429] * 2
    assert (refused.status, refused.json["error"]) == (429, "rate-limited")
    assert 10_000 < int(refused.value("Retry-After")) <= 21_600
    assert len(keys) == 1
    # So long, and no longer, does it say anything.
    assert 3 * 21_600_000 < kept <= 4 * 21_600_000


async def test_without_redis_each_gate_counts_for_itself(
    upstream: RawUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No request waits for a server that hangs; log and metric say which rule holds."""
    caplog.set_level(logging.INFO)
    async with redis_server() as server, _two_gates(server, upstream, tmp_path, "3/day") as gates:
        first, second = gates
        assert _is_shared(first)
        server.freeze()
        passed = [(await _get(first)).status for _ in range(4)]
        await until(lambda: not _is_shared(first))
        other = [(await _get(second)).status for _ in range(4)]
        server.thaw()
        await until(lambda: _is_shared(first) and _is_shared(second))
        bob = first.cookie(BOB)
        back = [(await _get(first, bob)).status for _ in range(3)]
        await _told(server, 2.9 * 28_800, BOB.sub)
        back.append((await _get(second, bob)).status)
        await until(lambda: _ahead(second, BOB.sub) > 3.9 * 28_800)
        back.append((await _get(second, bob)).status)

    assert back == [200] * 4 + [429]
    assert passed == other == [200, 200, 200, 429]
    said = [record.getMessage() for record in caplog.records]
    assert any("count the requests of this gate alone" in text for text in said)
    assert any("count the requests of all gates again" in text for text in said)
