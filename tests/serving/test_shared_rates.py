"""Rate limits over several gates with one real Redis, and what holds while it is away."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gatekit import (
    ALICE,
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
from redis.asyncio import Redis
from rediskit import RedisServer, let_calls_last, redis_server
from reloadkit import file_text, sections

from tailchat_gate.cli import main
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.state.bookkeeping import Health
from tailchat_gate.state.redis import database
from tailchat_gate.state.redis.database import PREFIX
from tailchat_gate.state.redis.store import RedisStore
from tailchat_gate.state.store import Charge

BOB = Profile("660000000000000000000002", "Bob", "0001", "")


@pytest.fixture(autouse=True)
def _long_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    let_calls_last(monkeypatch)


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


async def _buckets(client: Redis, kind: str = "known") -> dict[str, float]:
    """Return when the buckets of one kind are full again."""
    found: Any = await client.zrange(f"{PREFIX}rates:{kind}", 0, -1, withscores=True)
    return {key.decode(): due for key, due in found}


async def _told(server: RedisServer, seconds: float, sub: str = SUB) -> None:
    """Wait until the server has heard of so many seconds' requests of a person."""
    async with asyncio.timeout(30), server.client() as client:
        while True:
            now = time.time()
            kept = await _buckets(client)
            if any(key.endswith(f":{sub}") and due - now > seconds for key, due in kept.items()):
                return
            await asyncio.sleep(0.01)


def _is_shared(gate: RunningGate) -> bool:
    return b"gate_rates_shared 1.0" in gate.generation.process_state.metrics.render()


async def test_a_limit_holds_over_two_gates(upstream: RawUpstream, tmp_path: Path) -> None:
    """What passed at one gate counts at the other; together they let pass as many as one."""
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
            keys = await _buckets(client)
            kept = await client.pttl(f"{PREFIX}rates:known")

    assert passed == [200] * 4 + [429] * 2
    assert (refused.status, refused.json["error"]) == (429, "rate-limited")
    assert 10_000 < int(refused.value("Retry-After")) <= 21_600
    assert len(keys) == 1
    # So long, and no longer, does it say anything.
    assert 3 * 21_600_000 < kept <= 4 * 21_600_000 + 1000


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


@asynccontextmanager
async def _store(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(server.place, time.time, Health(), timeout=40)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_strangers_fill_so_much_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many networks come, so many buckets are kept, those that are full last."""
    monkeypatch.setattr(database, "_MOST_RATES", 3)
    async with redis_server() as server, _store(server) as store:
        await store.charge([Charge("known", 60.0)])
        busy = await store.charge([Charge("busy", 600.0, strangers=True)])
        for number in range(10):
            await store.charge([Charge(f"n{number}", 60.0 + number, strangers=True)])
        again = await store.charge([Charge("busy", 1.0, strangers=True), Charge("known", 1.0)])
        async with server.client() as client:
            left = list(await _buckets(client, "strangers"))

    assert busy
    assert again
    assert left == ["n8", "n9", "busy"]
    assert again[0] > 500
    assert again[1] > 10


async def test_a_clock_that_is_set_back_lets_nobody_wait() -> None:
    """Where the server's clock is set back by a day, nobody has to wait for a day."""
    async with redis_server() as server, _store(server) as store:
        await store.charge([Charge("a", 60.0)])
        async with server.client() as client:
            # As it is when the clock was a day ahead until now.
            day = time.time() + 86_400
            await client.zadd(f"{PREFIX}rates:known", {"a": day})
            await client.set(f"{PREFIX}rates:at", str(day))
        found = await store.charge([Charge("a", 60.0)])

    assert found == [60.0]


async def test_forgetting_a_person_deletes_their_buckets(
    upstream: RawUpstream, tmp_path: Path
) -> None:
    """`tailchat-gate forget` deletes them in Redis and in the memory of every gate."""
    async with redis_server() as server, _two_gates(server, upstream, tmp_path, "4/day") as gates:
        for gate in gates:
            for one in (ALICE, BOB):
                assert (await _get(gate, gate.cookie(one))).status == 200
        for one in (ALICE, BOB):
            await _told(server, 1.9 * 21_600, one.sub)
        config = tmp_path / "gate.toml"
        text = file_text(sections("http://127.0.0.1:9", state={"url": server.place.url}))
        await asyncio.to_thread(config.write_text, text, "utf-8")
        await asyncio.to_thread(config.chmod, 0o600)
        arguments = ["forget", f"sub:{SUB}", "-c", str(config)]
        done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        await until(lambda: max(map(_ahead, gates)) < 0)
        async with server.client() as client:
            left = [key.rpartition(":")[2] for key in await _buckets(client)]

    assert done.exit_code == 0, done.output
    assert left == [BOB.sub]
    assert min(_ahead(gate, BOB.sub) for gate in gates) > 0
