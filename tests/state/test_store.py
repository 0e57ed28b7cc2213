"""What every store does: records, single-use keys, and what other processes change."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, closing
from pathlib import Path

import pytest
from rediskit import redis_server
from statekit import (
    START,
    Clock,
    Notes,
    Process,
    check_that_one_follows,
    keys_on_disk,
    running,
    until,
)

from tailchat_gate.state.bookkeeping import LOOK_SECONDS, Health, StoreFault
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.redis.store import RedisStore
from tailchat_gate.state.sqlite import database, engine, schema
from tailchat_gate.state.sqlite.files import NAME, Files
from tailchat_gate.state.sqlite.recovery import alone
from tailchat_gate.state.sqlite.store import SqliteStore
from tailchat_gate.state.store import (
    EXPIRY_MARGIN,
    Outcome,
    Record,
    ReservationStatus,
    Store,
    StoreError,
)

UNTIL = START + 7200


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[Store]:
    """Each kind of store, opened."""
    async with AsyncExitStack() as stack:
        made: Store = MemoryStore(clock)
        if request.param == "sqlite":
            made = SqliteStore(tmp_path, clock, Health())
        elif request.param == "redis":
            server = await stack.enter_async_context(redis_server())
            made = RedisStore(server.place, clock, Health(), timeout=40)
        made.follow(Notes())
        await made.open()
        made.start()
        stack.push_async_callback(made.close)
        yield made


async def _reserve(store: Store, key: str, *, room: int = 100) -> ReservationStatus:
    return (await store.reserve("login", key, until=UNTIL, room=room)).status


async def test_a_key_is_granted_once(store: Store) -> None:
    """The second reservation of a key is told when the first was, and nothing else yet."""
    assert await _reserve(store, "a") is ReservationStatus.GRANTED
    again = await store.reserve("login", "a", until=UNTIL, room=100)

    assert (again.status, again.outcome) == (ReservationStatus.TAKEN, None)
    # Redis counts by its own clock how long ago that was.
    passed = 60 if isinstance(store, RedisStore) else 0
    assert START - passed <= again.reserved_at <= START
    assert await _reserve(store, "b") is ReservationStatus.GRANTED
    assert (
        await store.reserve("pass", "a", until=UNTIL, room=100)
    ).status is ReservationStatus.GRANTED


async def test_many_at_once_are_granted_one_key_once(store: Store) -> None:
    """Of fifty reservations at the same time one is granted."""
    reservations = await asyncio.gather(*(_reserve(store, "a") for _ in range(50)))

    assert reservations.count(ReservationStatus.GRANTED) == 1
    assert reservations.count(ReservationStatus.TAKEN) == 49


async def test_an_outcome_is_returned_to_a_repeated_call(store: Store) -> None:
    """What became of a key is returned with the next reservation of it, and by looking it up."""
    await _reserve(store, "a")
    await store.settle("login", "a", Outcome(b"sealed", START + 60))

    assert (await store.reserve("login", "a", until=UNTIL, room=100)).outcome == b"sealed"
    assert (await store.find_reservation("login", "a")).outcome == b"sealed"


async def test_an_outcome_expires_and_its_key_does_not(store: Store, clock: Clock) -> None:
    """After its time an outcome is no longer returned; the key stays reserved."""
    await _reserve(store, "a")
    await store.settle("login", "a", Outcome(b"sealed", START + 60))
    clock.now += 60
    again = await store.reserve("login", "a", until=UNTIL, room=100)

    assert (again.status, again.outcome) == (ReservationStatus.TAKEN, None)


async def test_a_released_key_can_be_reserved_again(store: Store) -> None:
    """A key that was not used is granted to the next reservation."""
    await _reserve(store, "a")
    await store.release("login", "a")
    assert (await store.find_reservation("login", "a")).status is ReservationStatus.GRANTED

    assert await _reserve(store, "a") is ReservationStatus.GRANTED


async def test_a_full_store_drops_what_does_no_harm(store: Store, clock: Clock) -> None:
    """The oldest harmless key makes room; spent keys never do, until they have expired."""
    for key in ("spent-1", "harmless", "spent-2"):
        await _reserve(store, key, room=3)
        await store.settle("login", key, Outcome(spent=key != "harmless"))

    assert await _reserve(store, "more", room=3) is ReservationStatus.GRANTED
    assert await _reserve(store, "too many", room=3) is ReservationStatus.FULL
    assert await _reserve(store, "spent-1", room=3) is ReservationStatus.TAKEN
    clock.now = UNTIL + 61
    assert (await store.reserve("login", "x", until=UNTIL + 9000, room=3)).status is (
        ReservationStatus.GRANTED
    )


async def test_a_write_is_durable_when_it_is_done(tmp_path: Path) -> None:
    """What was written is there for the next process that starts."""
    async with running(tmp_path) as process:
        await process.put("a", "b")

        assert await keys_on_disk(tmp_path) == {"a", "b"}
    assert await keys_on_disk(tmp_path) == {"a", "b"}


async def test_a_write_that_nobody_waits_for_is_made(tmp_path: Path) -> None:
    """A caller that stops waiting for a write does not stop the write."""
    async with running(tmp_path) as process:
        writing = asyncio.create_task(process.put("a"))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait((writing,))
        assert writing.cancelled()

    assert await keys_on_disk(tmp_path) == {"a"}


async def test_other_processes_follow_within_half_a_second(tmp_path: Path) -> None:
    """A change of one process is known to the other at its next look, once, and in order."""
    assert LOOK_SECONDS < 0.5
    async with running(tmp_path) as here, running(tmp_path) as there:
        await check_that_one_follows(here, there)


class FilesOfTwo(Files):
    """Files that another process creates just before this one does."""

    def create(self, path: Path) -> None:
        """Create what another process has created meanwhile."""
        super().create(path)
        super().create(path)


class FilesUnderAttack(Files):
    """Files in whose place somebody puts a link just before they are created."""

    def create(self, path: Path) -> None:
        """Create what is a link by now."""
        path.symlink_to(path.with_name("elsewhere"))
        super().create(path)


def test_processes_that_start_at_once_create_one_database(tmp_path: Path) -> None:
    """The one that comes second uses the first one's, and no process fails to start."""
    assert FilesOfTwo(tmp_path).prepare() == ""
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_a_link_in_place_of_the_new_database_is_refused(tmp_path: Path) -> None:
    """Also one that was put there after the look."""
    with pytest.raises(StoreError, match="a symbolic link"):
        FilesUnderAttack(tmp_path).prepare()


async def test_nothing_of_what_was_swept_stays_in_a_file(tmp_path: Path, clock: Clock) -> None:
    """What was deleted is soon in neither the copy nor SQLite's log, without a further write."""
    person = "somebody-long-gone"
    async with running(tmp_path, clock) as process:
        await process.store.put([Record("note", "old", person, "", int(START))])
        await until(lambda: person in _content(tmp_path, ".copy"))
        clock.now += EXPIRY_MARGIN
        await process.swept()
        # The time of a copy keeps the next one off, which would make this slow on a busy disk.
        process.store._upkeep._copy_at = 0.0
        await until(lambda: person not in _content(tmp_path, "", "-wal", ".copy"))


def _content(directory: Path, *endings: str) -> str:
    paths = [directory / f"{NAME}{ending}" for ending in endings]
    return "".join(path.read_bytes().decode("latin-1") for path in paths if path.exists())


async def test_what_expired_long_ago_is_deleted(tmp_path: Path, clock: Clock) -> None:
    """A sweep deletes records and keys a day after they have expired, and gives the room back."""
    expired = [Record("note", f"old-{n}", "x" * 500, "", int(START) - 1) for n in range(2000)]
    async with running(tmp_path, clock) as process:
        await process.store.put([*expired, Record("note", "good", "{}")])
        await process.store.reserve("login", "a", until=START, room=9)
        await process.store.reserve("login", "b", until=START + 9, room=9)
        await process.swept()
        assert len(await keys_on_disk(tmp_path)) == 2001
        clock.now += EXPIRY_MARGIN
        await process.swept()

        found = [await process.store.find_reservation("login", key) for key in "ab"]
        assert [one.status for one in found] == [ReservationStatus.GRANTED, ReservationStatus.TAKEN]
        assert await keys_on_disk(tmp_path) == {"good"}
    size = (await asyncio.to_thread((tmp_path / NAME).stat)).st_size
    assert size < 100_000


async def test_a_kind_that_grows_is_compacted(tmp_path: Path, clock: Clock) -> None:
    """When there are more records than room, the kind says which are enough."""
    store = SqliteStore(tmp_path, clock, Health())
    notes = Notes(room=10)
    notes.kind = notes.kind.__class__("note", 10, lambda records: records[-3:])
    store.follow(notes)
    await store.open()
    for number in range(12):
        await store.put([Record("note", str(number), "{}")])
    await store.close()

    assert await keys_on_disk(tmp_path) == {"9", "10", "11"}


async def test_an_older_database_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is taken once, by whichever process is first, and what was stored is kept."""
    async with running(tmp_path) as process:
        await process.put("a")
    step = ("ALTER TABLE record ADD COLUMN more TEXT", "CREATE TABLE another (key TEXT)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    for module in (database, schema):
        monkeypatch.setattr(module, "VERSION", len(schema.MIGRATIONS))
    async with running(tmp_path) as here, running(tmp_path) as there:
        await here.put("b")
        await until(lambda: there.keys == {"a", "b"})
        assert not here.store.faults

    def columns() -> list[str]:
        with closing(sqlite3.connect(tmp_path / NAME)) as connection:
            found = connection.execute("SELECT name FROM pragma_table_info('record')").fetchall()
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        return [*(name for (name,) in found), str(version)]

    assert (await asyncio.to_thread(columns))[-2:] == ["more", str(schema.VERSION)]


async def test_nothing_but_the_owner_reads_it(tmp_path: Path) -> None:
    """The database, its log and its copy have mode 0600."""
    async with running(tmp_path) as process:
        await process.put("a")
        await until((tmp_path / f"{NAME}.copy").exists)
        modes = await asyncio.to_thread(
            lambda: {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        )

    names = (NAME, f"{NAME}-wal", f"{NAME}-shm", f"{NAME}.copy")
    assert modes == dict.fromkeys(names, 0o600)


async def test_erased_data_is_nowhere_in_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's records are gone from every file, and from the memory of other processes."""
    monkeypatch.setattr(engine, "BUSY_SECONDS", 60.0)
    async with running(tmp_path) as here, running(tmp_path) as there:
        await here.put("k1", body='{"name":"Hoshino"}', sub="66a")
        await here.put("k2", body='{"name":"Other"}', sub="66b")
        await until(lambda: there.keys == {"k1", "k2"})
        records, _ = await here.store.about("66a")
        assert [record.key for record in records] == ["k1"]
        notice = Record("erasure", "66a", "all", "", int(START) + 60)
        await here.store.erase([("note", "k1")], "66a", notice)
        await until(lambda: there.keys == {"k2"})

    def everything() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert b"Hoshino" not in await asyncio.to_thread(everything)
    assert b"Other" in await asyncio.to_thread(everything)


async def test_erased_data_is_not_in_a_copy_that_another_process_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure waits until that one is ready, or says that it is not finished."""
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.1)
    notice = Record("erasure", "66a", "all", "", int(START) + 60)
    async with running(tmp_path) as process:
        await process.put("k1", body='{"name":"Hoshino"}', sub="66a")
        await process.copied()
        with ExitStack() as stack:
            assert await asyncio.to_thread(stack.enter_context, alone(Files(tmp_path)))
            with pytest.raises(StoreFault, match="another process is copying"):
                await process.store.erase([("note", "k1")], "66a", notice)
            monkeypatch.setattr(engine, "BUSY_SECONDS", 60.0)
            erasing = asyncio.create_task(process.store.erase([("note", "k1")], "66a", notice))
            await asyncio.wait((erasing,), timeout=0.05)
            await asyncio.to_thread(stack.close)
        await erasing

        assert "Hoshino" not in await asyncio.to_thread(_content, tmp_path, ".copy")


def test_a_process_is_told_apart(tmp_path: Path) -> None:
    """The repr of a store shows no content."""
    assert "note" not in repr(Process(tmp_path, Clock()).store)
