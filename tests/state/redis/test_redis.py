"""The store in a real Redis: what gates share, and what they do while it is away."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from rediskit import RedisServer, redis_server
from statekit import START, Clock, StoreProcess, check_that_one_follows, following, until

from tailchat_gate.state.bookkeeping import Health, StoreFault
from tailchat_gate.state.redis import database as redis_database
from tailchat_gate.state.redis import scripts
from tailchat_gate.state.redis import store as store_module
from tailchat_gate.state.redis.database import RowsRead
from tailchat_gate.state.redis.own_reservations import OwnReservations
from tailchat_gate.state.redis.servers import RedisPlace
from tailchat_gate.state.redis.store import RedisStore
from tailchat_gate.state.store import (
    EXPIRY_MARGIN,
    Charge,
    Outcome,
    Record,
    ReservationStatus,
    StoreError,
)

UNTIL = START + 7200
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Gate(StoreProcess[RedisStore]):
    """A process whose store is in a server; it has little room."""

    def __init__(self, place: RedisPlace, clock: Callable[[], float], timeout: float) -> None:
        super().__init__(lambda health: RedisStore(place, clock, health, timeout=timeout), 20)

    async def reserve(self, key: str) -> ReservationStatus:
        """Try to reserve a key."""
        return (await self.store.reserve("login", key, until=UNTIL, room=100)).status


@asynccontextmanager
async def gate(
    server: RedisServer, clock: Callable[[], float] | None = None, *, seconds: float = 40
) -> AsyncIterator[Gate]:
    """Give a process that follows the server; a call may take `seconds`."""
    async with following(Gate(server.place, clock or Clock(), seconds)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[RedisServer]:
    """One server for the tests that do not stop it."""
    async with redis_server() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def server(running: RedisServer) -> RedisServer:
    """The server, empty."""
    await running.empty()
    return running


async def test_others_follow(server: RedisServer) -> None:
    """A change of one process is known to the other, once, and in order."""
    async with gate(server) as here, gate(server) as there:
        await check_that_one_follows(here, there)
        async with gate(server) as third:
            assert third.keys == {"a", "b"}


async def test_writers_at_once_merge_what_the_other_wrote(server: RedisServer) -> None:
    """Of many writes of one key at once, by two processes, none replaces a later one."""

    async def count(one: Gate) -> None:
        for _ in range(20):
            await one.put("a", body="1")

    async with gate(server) as here, gate(server) as there:
        for one in (here, there):
            kind = one.notes.kind.__class__(
                "note",
                20,
                lambda records: records,
                lambda old, new: Record("note", "a", str(int(old.body) + int(new.body))),
            )
            one.notes.kind = kind
            one.store._followers.kinds["note"] = kind
        await asyncio.gather(count(here), count(there))
        async with gate(server) as third:
            assert third.notes.held["a"].body == "40"


async def test_one_of_two_processes_is_granted_a_key(server: RedisServer) -> None:
    """Each of forty keys that two processes reserve at once is granted to one of them."""
    async with gate(server) as here, gate(server) as there:
        keys = [str(number) for number in range(40)]
        found = await asyncio.gather(*(one.reserve(key) for key in keys for one in (here, there)))
        assert found.count(ReservationStatus.GRANTED) == 40
        assert found.count(ReservationStatus.TAKEN) == 40


async def test_another_process_reads_an_outcome_and_releases_nothing(server: RedisServer) -> None:
    """Only the process that reserved a key settles or releases it."""
    async with gate(server) as here, gate(server) as there:
        await here.reserve("a")
        await there.store.release("login", "a")
        await there.store.settle("login", "a", Outcome(b"wrong", UNTIL))
        await here.store.settle("login", "a", Outcome(b"sealed", UNTIL))

        assert (await there.store.find_reservation("login", "a")).outcome == b"sealed"
        assert await there.reserve("a") is ReservationStatus.TAKEN


async def test_a_repeated_call_knows_its_own_reservation(server: RedisServer) -> None:
    """A call that is made again because its answer was lost is granted, and no other is."""
    async with gate(server) as here:
        database = here.store._database
        found = [
            await database.reserve("login", "a", nonce, until=UNTIL, room=9, at=START)
            for nonce in ("mine", "mine", "another")
        ]
    assert [one.status for one in found] == [
        ReservationStatus.GRANTED,
        ReservationStatus.GRANTED,
        ReservationStatus.TAKEN,
    ]


async def test_an_emptied_server_lifts_nothing(server: RedisServer) -> None:
    """After FLUSHALL, processes write again what they know, single-use keys with their outcomes."""
    async with gate(server) as here, gate(server) as there:
        await here.put("a", "b")
        await until(lambda: there.keys == {"a", "b"})
        await here.reserve("used")
        await here.store.settle("login", "used", Outcome(b"sealed", UNTIL))
        await server.empty()
        await until(lambda: "replaced" in here.counted and "replaced" in there.counted)
        assert here.keys == there.keys == {"a", "b"}
        await until(lambda: not here.store._behind)

        async with gate(server) as third:
            assert third.keys == {"a", "b"}
            found = await third.store.reserve("login", "used", until=UNTIL, room=100)
            assert (found.status, found.outcome) == (ReservationStatus.TAKEN, b"sealed")


async def test_data_that_were_set_back_are_noticed(server: RedisServer) -> None:
    """An older copy of the data loses no write, although others have written since."""
    async with gate(server) as here:
        await here.put("old")
        async with server.client() as client:
            copies = {key: await client.dump(key) or b"" for key in await client.keys("*")}
            await here.put("lost")
            # Not between two looks, the first of which would write to the emptied server.
            async with here.store._using:
                await client.flushall()
                for key, copy in copies.items():
                    await client.restore(key, 0, copy)
        async with gate(server) as there:
            await there.put("newer", "and", "more")
            await until(lambda: there.keys == {"old", "lost", "newer", "and", "more"})


async def test_damaged_records_lift_nothing(server: RedisServer) -> None:
    """Documents that a server dropped, or that were changed, are noticed and written again."""
    async with gate(server) as here, gate(server) as there:
        await here.put("a", "b")
        await until(lambda: there.keys == {"a", "b"})
        async with server.client() as client:
            await client.hset(f"{redis_database.PREFIX}records:note", "a", "junk")
            await client.zadd(f"{redis_database.PREFIX}changes", {"note a": 9})
        await until(lambda: "damaged" in [*there.counted, *here.counted])
        await until(lambda: not there.store._behind and not here.store._behind)

        assert there.keys == {"a", "b"}
        async with gate(server) as third:
            assert third.notes.held["a"].intact


@pytest.mark.parametrize(
    ("member", "document"),
    [("", ""), ("junk", ""), ("note a", "x" * 1_000_000), ("note a", '["",true,"{}",1]')],
)
async def test_rubbish_hides_no_change(server: RedisServer, member: str, document: str) -> None:
    """What no gate has written is damage: others still follow, and a gate can start."""
    async with gate(server) as here, gate(server) as there:
        await here.put("a")
        await until(lambda: there.keys == {"a"})
        async with server.client() as client:
            await client.hset(f"{redis_database.PREFIX}records:note", "a", document)
            await client.zadd(f"{redis_database.PREFIX}changes", {member: 9})
        await until(lambda: "damaged" in [*here.counted, *there.counted])
        await here.put("b")
        await until(lambda: there.keys == {"a", "b"})

        async with gate(server) as third:
            assert third.keys == {"a", "b"}
            assert all(record.intact for record in third.notes.held.values())


async def test_numbers_that_cannot_be_counted_on_are_a_fault(server: RedisServer) -> None:
    """Running gates say so and go on with what they know, until the server is emptied."""
    async with gate(server) as here, gate(server) as there:
        await here.put("a")
        await until(lambda: there.keys == {"a"})
        async with server.client() as client:
            await client.zadd(f"{redis_database.PREFIX}log", {"junk": 2.0**70})
        await until(lambda: there.store.faults)
        assert there.keys == {"a"}
        with pytest.raises(StoreError, match="damaged"):
            await Gate(server.place, Clock(), 40).store.open()
        await server.empty()
        await until(lambda: not there.store.faults and not here.store.faults)
        await here.put("b")
        await until(lambda: there.keys == {"a", "b"})


async def _call_on(call: Callable[[], Awaitable[object]], expected: object) -> None:
    while True:
        assert await call() is expected
        await asyncio.sleep(0.001)


async def test_a_refused_charge_keeps_nothing_else_back(server: RedisServer) -> None:
    """Where the server refuses to count rates, at every request, locks still go both ways."""
    async with gate(server) as here, gate(server) as there:
        async with server.client() as client:
            await client.set(f"{redis_database.PREFIX}rates:known", "junk")

        call = partial(there.store.charge, [Charge("a", 1.0)])
        charging = asyncio.create_task(_call_on(call, None))
        await until(lambda: there.store.faults)
        await here.put("a")
        await there.put("b")
        await until(lambda: there.keys == here.keys == {"a", "b"})
        charging.cancel()


async def test_logins_that_fail_keep_no_change_back(server: RedisServer) -> None:
    """After a failed call it is a look at changes that tries again, and never a further login."""
    async with gate(server) as here, gate(server) as there:
        async with server.client() as client:
            await client.set(f"{redis_database.PREFIX}use:login:k", "junk")

        call = partial(there.reserve, "k")
        logging_in = asyncio.create_task(_call_on(call, ReservationStatus.UNAVAILABLE))
        await until(lambda: there.store.faults)
        await here.put("a")
        await until(lambda: there.keys == {"a"})
        logging_in.cancel()


async def test_a_fault_in_taking_a_change_is_told_and_the_change_read_again(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows among the faults of the store while it lasts, and nothing is missed after it."""

    def fail(_: object) -> None:
        raise ZeroDivisionError

    async with gate(server) as here, gate(server) as there:
        with monkeypatch.context() as patched:
            patched.setattr(there.notes, "take", fail)
            await here.put("a")
            await until(lambda: there.store.faults)
        await until(lambda: there.keys == {"a"} and not there.store.faults)


async def test_what_expired_long_ago_is_deleted(server: RedisServer) -> None:
    """A sweep deletes records and keys a day after they have expired."""
    clock = Clock()
    # Which it has by the server's clock, too.
    clock.now = now = time.time()
    async with gate(server, clock) as here:
        old = int(now) - EXPIRY_MARGIN - 1
        await here.store.put([Record("note", "old", "{}", "", old)])
        await here.put("good")
        await here.store.reserve("login", "a", until=old, room=9)
        await _swept(here)
        assert await here.reserve("a") is ReservationStatus.GRANTED
        async with gate(server, clock) as there:
            assert there.keys == {"good"}


async def _swept(gate: Gate) -> None:
    """Wait for the next sweep, which comes at once."""
    gate.store._upkeep._sweep_at = 0
    await until(lambda: gate.store._upkeep._sweep_at > 0)
    async with gate.store._using:
        pass


async def test_a_gate_whose_clock_is_ahead_changes_nothing_for_others(server: RedisServer) -> None:
    """Its sweep deletes nothing that is in force, and a reservation is as old as it is."""
    right, ahead = Clock(), Clock()
    right.now = now = time.time()
    ahead.now = now + 30 * EXPIRY_MARGIN
    async with gate(server, right) as here, gate(server, ahead) as there:
        await here.store.put([Record("note", "good", "{}", "", int(now) + 3600)])
        assert await here.reserve("a") is ReservationStatus.GRANTED
        await _swept(there)
        found = await there.store.find_reservation("login", "a")
        async with gate(server, right) as third:
            assert third.keys == {"good"}

    assert found.status is ReservationStatus.TAKEN
    assert 0 <= ahead.now - found.reserved_at < 60


async def test_what_is_noted_of_outcomes_is_bounded(server: RedisServer) -> None:
    """The list of a person's outcomes holds those that are stored, and lasts as long as they do."""
    clock = Clock()
    clock.now = time.time()
    async with gate(server, clock) as here, server.client() as client:
        about = f"{redis_database.PREFIX}about:66a"
        # As an outcome leaves it that has ended.
        await client.zadd(about, {"outcome:login:ended": clock.now - 1})
        for key, seconds in (("a", 3600), ("b", 60)):
            await here.reserve(key)
            outcome = Outcome(b"sealed", clock.now + seconds, sub="66a")
            await here.store.settle("login", key, outcome)
        left: Any = await client.zrange(about, 0, -1)
        lasts = await client.ttl(about)

    assert [key.rpartition(b":")[2] for key in left] == [b"b", b"a"]
    assert 3000 < lasts <= 3601


async def test_a_kind_that_grows_is_compacted(server: RedisServer) -> None:
    """When there are more records than room, the kind says which are enough."""
    async with gate(server) as here:
        kind = here.notes.kind.__class__("note", 10, lambda records: records[-3:])
        here.store._followers.kinds["note"] = kind
        for number in range(12):
            await here.put(str(number))
        async with gate(server) as there:
            assert there.keys == {"9", "10", "11"}


async def test_a_person_is_erased(server: RedisServer) -> None:
    """A person's records and outcomes are gone from the server, and from other processes."""
    async with gate(server) as here, gate(server) as there:
        await here.put("k1", sub="66a")
        await here.put("k2", sub="66b")
        await here.reserve("used")
        await here.store.settle("login", "used", Outcome(b"sealed", UNTIL, sub="66a"))
        await until(lambda: there.keys == {"k1", "k2"})
        records, outcomes = await here.store.about("66a")
        assert ([record.key for record in records], outcomes) == (["k1"], 1)
        notice = Record("erasure", "66a", "all", "", int(START) + 60)
        await here.store.erase([("note", "k1")], "66a", notice)
        await until(lambda: there.keys == {"k2"})

        assert await here.store.about("66a") == ([], 0)
        assert (await there.store.find_reservation("login", "used")).outcome is None


async def test_an_erasure_that_others_overtake_each_time_fails(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be deleted is not reported as erased."""
    async with gate(server) as here, gate(server) as there:
        await there.put("k", body="0", sub="66a")
        run, bodies = here.store._client.run, itertools.count(1)

        async def overtaken(
            script: str, keys: Sequence[str], arguments: Sequence[object]
        ) -> object:
            if script is scripts.WRITE:
                await there.put("k", body=str(next(bodies)), sub="66a")
            return await run(script, keys, arguments)

        notice = Record("erasure", "66a", "all", "", int(START) + 60)
        with monkeypatch.context() as patch:
            patch.setattr(here.store._client, "run", overtaken)
            with pytest.raises(StoreFault, match="other processes write the same records"):
                await here.store.erase([("note", "k")], "66a", notice)


async def test_outcomes_that_have_expired_are_forgotten() -> None:
    """A process keeps its reservations for long, and their outcomes while they are given out."""
    clock = Clock()
    own = OwnReservations(clock)
    kept = []
    for key, seconds in (("brief", 60), ("long", 3600)):
        kept.append(own.begin("login", key, UNTIL))
        kept[-1].outcome = Outcome(b"sealed", clock.now + seconds, sub="66a")
        own.keep(kept[-1])
    clock.now += 61
    own.keep(own.begin("login", "next", UNTIL))

    assert [one.outcome and one.outcome.data for one in kept] == [None, b"sealed"]
    assert own.find("login", "brief") is kept[0]


async def test_a_frozen_server_costs_one_call_a_second() -> None:
    """What is known stays, calls end without an answer, and both are made up for later."""
    async with redis_server() as server, gate(server, seconds=0.3) as here:
        await here.put("known")
        server.freeze()
        try:
            async with asyncio.timeout(30):
                first = await here.reserve("a")
                others = [await here.reserve(str(number)) for number in range(200)]
            await here.put("meanwhile")
            assert {first, *others} == {ReservationStatus.UNAVAILABLE}
            assert here.keys == {"known", "meanwhile"}
            assert "no answer" in here.store.faults[0]
        finally:
            server.thaw()
        await until(lambda: not here.store.faults and not here.store._behind)
        async with gate(server) as there:
            assert there.keys == {"known", "meanwhile"}
            assert await there.reserve("a") is ReservationStatus.TAKEN
            assert await there.reserve("199") is ReservationStatus.TAKEN


async def test_a_server_that_is_slow_at_the_start_is_asked_again() -> None:
    """No request waits then; without an answer the gate would not start at all."""
    async with redis_server() as server:
        server.freeze()
        asyncio.get_running_loop().call_later(1.0, server.thaw)
        async with gate(server, seconds=0.3) as here:
            await here.put("a")
            # A machine that is busy may have the calls of that gate fail later, too.
            await until(lambda: not here.store.faults)


async def test_a_reservation_that_was_made_without_an_answer_is_its_own() -> None:
    """A key that was reserved although its answer was late is settled under the same nonce."""
    async with redis_server() as server, gate(server, seconds=0.3) as here:
        await here.put("known")
        # The server knows the script: a call of it waits in the socket, and is run later.
        await here.reserve("before")
        server.freeze()
        try:
            assert await here.reserve("a") is ReservationStatus.UNAVAILABLE
            await here.store.settle("login", "a", Outcome(b"sealed", UNTIL))
            assert await here.reserve("b") is ReservationStatus.UNAVAILABLE
            await here.store.release("login", "b")
        finally:
            server.thaw()
        await until(lambda: not here.store.faults and not here.store._behind)
        async with gate(server) as there:
            assert (await there.store.find_reservation("login", "a")).outcome == b"sealed"
            assert await there.reserve("b") is ReservationStatus.GRANTED


async def test_a_server_that_was_started_again_is_filled_again() -> None:
    """While it is stopped everything known stays; an empty one that starts gets it back."""
    async with redis_server() as server, gate(server) as here:
        await here.put("known")
        await server.stop()
        await until(lambda: here.store.faults)
        await here.put("meanwhile")
        assert await here.reserve("a") is ReservationStatus.UNAVAILABLE
        await server.start()
        await until(lambda: not here.store.faults and not here.store._behind)

        assert here.keys == {"known", "meanwhile"}
        async with gate(server) as there:
            assert there.keys == {"known", "meanwhile"}
            assert await there.reserve("a") is ReservationStatus.TAKEN


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("CONFIG SET maxmemory 1mb", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ],
    ids=["full", "a replica", "without replicas"],
)
async def test_a_server_that_only_reads(server: RedisServer, begin: str, end: str) -> None:
    """Its fault is that it cannot be written; what it has is read, and the rest written later."""
    async with gate(server) as here, gate(server) as there, server.client() as client:
        await here.put("known")
        await until(lambda: there.keys == {"known"})
        try:
            await client.execute_command(*begin.split())  # type: ignore[no-untyped-call]
            await here.put("meanwhile")
            assert await here.reserve("a") is ReservationStatus.UNAVAILABLE
            assert here.store.faults[0].startswith("unwritable")
            assert (await there.store.find_reservation("login", "b")).outcome is None
            assert not there.store.faults
        finally:
            await client.execute_command(*end.split())  # type: ignore[no-untyped-call]
        await until(lambda: not here.store.faults and there.keys == {"known", "meanwhile"})
        assert await there.reserve("a") is ReservationStatus.TAKEN


async def test_a_start_without_the_server_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the server no lock would be known."""
    monkeypatch.setattr(store_module, "START_SECONDS", 0.1)
    async with redis_server() as server:
        await server.stop()
        made = Gate(server.place, time.time, 40)
        with pytest.raises(StoreError, match="cannot be reached"):
            await made.store.open()


async def test_a_server_that_starts_after_the_gate_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both can be started together, in whatever order."""
    monkeypatch.setattr(store_module, "START_SECONDS", 60.0)
    async with redis_server() as server:
        await server.stop()
        made, failed = Gate(server.place, time.time, 40), asyncio.Event()
        read_all = made.store._database.read_all

        async def read() -> RowsRead:
            try:
                return await read_all()
            except StoreFault:
                failed.set()
                raise

        monkeypatch.setattr(made.store._database, "read_all", read)
        opening = asyncio.create_task(made.store.open())
        await failed.wait()
        await server.start()
        await opening
        assert not made.store.faults
        await made.store.close()


async def test_a_start_waits_for_no_server_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has to mend what it says, so it is said at once."""
    monkeypatch.setattr(store_module, "START_SECONDS", 1e9)
    async with redis_server("--requirepass", "word") as server:
        for password in (None, SecretStr("another")):
            with pytest.raises(StoreError, match="refuses the user or the password"):
                await RedisStore(RedisPlace(server.place.url, password), time.time, Health()).open()
    async with redis_server() as server, server.client() as client:
        await client.acl_setuser(
            "default", enabled=True, nopass=True, commands=["-eval", "-evalsha"]
        )
        with pytest.raises(StoreError, match="refuses a command"):
            await RedisStore(server.place, time.time, Health()).open()


async def test_the_password_is_shown_nowhere() -> None:
    """A wrong password is refused by name of the server alone, and a right one is used."""
    right, wrong = SecretStr("right-word"), SecretStr("wrong-word")
    async with redis_server("--requirepass", right.get_secret_value()) as server:
        url = server.place.url
        good = RedisStore(RedisPlace(url, right), time.time, Health(), timeout=40)
        await good.open()
        try:
            texts = [
                repr(vars(good._client._servers)),
                repr(good),
                repr(good._place),
                good.location,
            ]
        finally:
            await good.close()
        bad = RedisStore(RedisPlace(url, wrong), time.time, Health(), timeout=40)
        with pytest.raises(StoreError, match="refuses the user or the password") as refused:
            await bad.open()
        none = RedisStore(RedisPlace(url), time.time, Health(), timeout=40)
        with pytest.raises(StoreError, match="refuses the user or the password"):
            await none.open()

    assert "-word" not in "".join([*texts, str(refused.value), repr(refused.value.__context__)])
