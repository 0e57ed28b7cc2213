"""How one process keeps step with the store: what it follows, what it writes, and faults."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from gatekit import ALICE, START, SUB, Clock, until
from storekit import StoredEntries

from tailchat_gate.identity.revocation.state import (
    EndedSession,
    Entry,
    Lock,
    RevocationState,
    Unlock,
)
from tailchat_gate.identity.revocation.store import Revocations
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.reasons import Reason
from tailchat_gate.state.bookkeeping import Health
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.sqlite import store as sqlite_store
from tailchat_gate.state.sqlite.files import NAME
from tailchat_gate.state.sqlite.store import SqliteStore
from tailchat_gate.state.store import Store

NOW = int(START)
RECORD = SessionRecord.begin(ALICE, now=START, login="l")
LOCK = Lock(f"sub:{SUB}", NOW, None, "no")

Make = Callable[..., Awaitable["Process"]]


class Process:
    """One process: its store, its metrics, and how often it was told of a change."""

    def __init__(self, directory: str, clock: Clock) -> None:
        self.metrics = Metrics()
        self.shared: Store = (
            SqliteStore(Path(directory), clock, Health(self.metrics.state_error), busy=0.2)
            if directory
            else MemoryStore(clock)
        )
        self.store = Revocations(RevocationState(clock), self.shared, self.metrics, clock)
        self.changes = 0

    async def start(self) -> None:
        """Read the store and begin to follow it."""
        await self.shared.open()
        self.store.start(self._changed)
        self.shared.start()

    def check(self, record: SessionRecord = RECORD) -> Reason | None:
        """Return what stands against a session."""
        return self.store.revocation.check(record)

    def counted(self, name: str) -> bool:
        """Tell whether a metric is above 0."""
        return name.encode() in self.metrics.render()

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store is."""
    return tmp_path


@pytest.fixture
async def make(path: Path, clock: Clock) -> AsyncIterator[Make]:
    """Return a function that starts a process on the store, or with memory alone."""
    async with AsyncExitStack() as stack:

        async def make(directory: str | None = None) -> Process:
            process = Process(str(path) if directory is None else directory, clock)
            await process.start()
            stack.push_async_callback(process.shared.close)
            return process

        yield make


async def _write(path: Path, *entries: Entry) -> None:
    await asyncio.to_thread(StoredEntries(path).append, entries)


async def _read(path: Path) -> list[Entry]:
    return await asyncio.to_thread(StoredEntries(path).read)


async def test_a_lock_is_known_at_the_start(make: Make, path: Path) -> None:
    """What was locked while nobody served is in force before anybody is let in."""
    await _write(path, LOCK)

    assert (await make()).check() is Reason.LOCKED


async def test_a_lock_is_heard_of_within_a_second(
    make: Make, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What another process writes is in force, told and logged; so is that it is lifted."""
    caplog.set_level(logging.INFO, "tailchat_gate")
    process = await make()
    await _write(path, LOCK)
    await until(lambda: process.check() is Reason.LOCKED)
    assert process.changes == 1
    await _write(path, Unlock(LOCK.target, NOW))
    await until(lambda: process.check() is None)

    assert [record.message for record in caplog.records] == [
        "a lock is in force",
        "a lock is lifted",
    ]
    assert vars(caplog.records[0])["details"] == {
        "target": LOCK.target,
        "until": None,
        "notice": "no",
    }


async def test_what_one_process_ends_is_over_in_all(make: Make, path: Path) -> None:
    """A session that is ended is over here at once, in the file, and soon everywhere."""
    here, there = await make(), await make()
    await here.store.end_session(RECORD, lifetime=600)

    assert here.check() is Reason.SESSION_ENDED
    assert await _read(path) == [EndedSession(RECORD.sid, SUB, NOW, NOW + 600 + 60)]
    await until(lambda: there.check() is Reason.SESSION_ENDED)
    assert here.counted('gate_sessions_ended_total{why="signed-out"} 1.0')
    assert not there.counted("gate_sessions_ended_total{")


async def test_what_tailchat_revoked_is_over_in_all(make: Make, path: Path) -> None:
    """A session that Tailchat does not confirm is over at once. All processes know the reason."""
    here, there = await make(), await make()
    here.store.revoke(RECORD, lifetime=600)

    assert here.check() is Reason.SESSION_REVOKED
    await until(lambda: there.check() is Reason.SESSION_REVOKED)
    assert await _read(path) == [
        EndedSession(RECORD.sid, SUB, NOW, NOW + 600 + 60, revoked=True),
    ]
    assert here.counted('gate_sessions_ended_total{why="revoked"} 1.0')


async def test_signing_out_everywhere_is_over_in_all(make: Make) -> None:
    """All that a person had is over in both processes, and nobody else's."""
    here, there = await make(), await make()
    other = RECORD._replace(sid="other")
    await here.store.sign_out_everywhere(RECORD, lifetime=600)

    assert here.check(other) is Reason.SESSION_ENDED
    await until(lambda: there.check(other) is Reason.SESSION_ENDED)
    assert there.check(other._replace(sub="66b")) is None
    assert here.counted('gate_sessions_ended_total{why="signed-out-everywhere"} 1.0')


async def test_a_session_of_a_later_clock_is_over_too(make: Make) -> None:
    """A session that began in a second yet to come here is not left out."""
    process = await make()
    ahead = RECORD._replace(signed_in_at=NOW + 30)
    await process.store.sign_out_everywhere(ahead, lifetime=600)

    assert process.check(ahead) is Reason.SESSION_ENDED


async def test_without_a_directory_it_is_kept_in_memory(make: Make, path: Path) -> None:
    """With "" a session is over in this process, and nothing is written."""
    process = await make("")
    await process.store.end_session(RECORD, lifetime=600)

    assert process.check() is Reason.SESSION_ENDED
    assert not await asyncio.to_thread((path / NAME).exists)


async def test_a_browser_that_leaves_does_not_stop_the_writing(make: Make, path: Path) -> None:
    """A sign-out whose request is cancelled is written all the same."""
    process = await make()
    ending = asyncio.create_task(process.store.end_session(RECORD, lifetime=600))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait((ending,))
    assert ending.cancelled()
    await process.shared.close()

    assert len(await _read(path)) == 1


async def test_what_is_over_already_is_not_written_again(make: Make, path: Path) -> None:
    """A session that is ended any number of times is written, and counted, once."""
    process = await make()
    await asyncio.gather(
        *(process.store.end_session(RECORD, lifetime=600) for _ in range(50)),
        *(process.store.sign_out_everywhere(RECORD, lifetime=600) for _ in range(50)),
    )

    assert len(await _read(path)) == 2
    assert process.counted('gate_sessions_ended_total{why="signed-out"} 1.0')


async def test_a_full_disk_is_made_up_for(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the store cannot be written sessions end in this process; later it has them."""
    monkeypatch.setattr(sqlite_store, "RETRY_SECONDS", 0.05)
    process = await make()
    with closing(sqlite3.connect(path / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await process.store.end_session(RECORD, lifetime=600)
        await process.store.end_session(RECORD._replace(sid="two"), lifetime=600)
        assert process.check() is Reason.SESSION_ENDED
        assert process.counted('gate_state_errors_total{error="unwritable"} ')
        there = await make()
        assert there.check() is None

    await until(lambda: there.check() is Reason.SESSION_ENDED)
    await until(lambda: there.check(RECORD._replace(sid="two")) is Reason.SESSION_ENDED)
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert {record.message for record in told} == {"the state store has a fault"}


async def test_what_was_lifted_meanwhile_is_not_locked_again(make: Make, path: Path) -> None:
    """A process that makes up for what it could not write repeats no lock."""
    await _write(path, LOCK)
    process = await make()
    assert isinstance(process.shared, SqliteStore)
    async with process.shared._using:
        # The process does not look meanwhile, and has something to make up for.
        await _write(path, Unlock(LOCK.target, NOW))
        process.shared._behind = True
        await process.shared._write(())
    await until(lambda: process.check() is None)

    assert [type(entry) for entry in await _read(path)] == [Unlock]


async def test_a_store_that_disappears_changes_nothing(make: Make, path: Path) -> None:
    """What was known stays in force, and is written to a new file."""
    await _write(path, LOCK)
    process = await make()
    await asyncio.to_thread((path / NAME).unlink)
    await until(lambda: process.counted('gate_state_errors_total{error="replaced"} 1.0'))
    await until((path / NAME).exists)
    await process.shared.put(())

    assert process.check() is Reason.LOCKED
    assert process.changes == 0
    assert await _read(path) == [LOCK]


async def test_a_store_that_cannot_be_read_leaves_what_is_known(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of an unreadable file the last known state holds; later changes are read again."""
    monkeypatch.setattr(sqlite_store, "RETRY_SECONDS", 0.05)
    await _write(path, LOCK)
    process = await make()
    kept = path / "kept"

    def exchange() -> None:
        (path / NAME).rename(kept)
        (path / NAME).mkdir()

    def restore() -> None:
        (path / NAME).rmdir()
        kept.rename(path / NAME)

    await asyncio.to_thread(exchange)
    await until(lambda: process.counted('gate_state_errors_total{error="unreadable"} 2.0'))
    assert process.check() is Reason.LOCKED
    await asyncio.to_thread(restore)
    await until(lambda: not process.shared.faults)
    await _write(path, Unlock(LOCK.target, NOW))

    await until(lambda: process.check() is None)


def _damage(path: Path, was: str, becomes: str) -> None:
    with closing(sqlite3.connect(path / NAME)) as connection:
        connection.execute("UPDATE record SET body = replace(body, ?, ?)", (was, becomes))
        connection.commit()


async def test_damage_lifts_no_lock(make: Make, path: Path) -> None:
    """A lock whose record is damaged holds, at the start and while the gate runs."""
    await _write(path, LOCK, Lock("sub:other", NOW))
    await asyncio.to_thread(_damage, path, '"kind":"lock","target":"sub:other"', '"kind":"l')
    process = await make()
    assert process.check() is Reason.LOCKED
    assert process.counted('gate_state_errors_total{error="damaged"} 1.0')
    await asyncio.to_thread(_damage, path, '"kind":"lock"', '"kind":"unlock"')
    await process.shared.put(())
    await _write(path, Lock("sub:third", NOW))
    await until(lambda: process.store.revocation.lock_on("third") is not None)

    assert process.check() is Reason.LOCKED


async def test_a_fault_does_not_stop_the_looking(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A change that something went wrong with is taken in the next time."""
    monkeypatch.setattr(sqlite_store, "RETRY_SECONDS", 0.05)
    process = await make()
    apply = RevocationState.apply
    faults = iter((True,))

    def once(revocation: RevocationState, entry: Entry) -> bool:
        if next(faults, False):
            raise RuntimeError("a fault")
        return apply(revocation, entry)

    monkeypatch.setattr(RevocationState, "apply", once)
    await _write(path, LOCK)

    await until(lambda: process.check() is Reason.LOCKED)
    assert "the state store could not be read" in caplog.messages


async def test_a_store_that_everybody_reads_gives_a_warning(
    make: Make, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The admin is told which mode keeps it."""
    await _write(path, LOCK)
    await asyncio.to_thread(os.chmod, path / NAME, 0o644)
    await asyncio.to_thread(os.chmod, path, 0o755)
    await make()

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "0600" in caplog.text


async def test_a_person_is_forgotten(make: Make, path: Path) -> None:
    """What was erased is not known here any more either; what keeps them out is, where it stays."""
    process = await make()
    await process.store.end_session(RECORD, lifetime=600)
    process.store.erase(SUB, in_force=False)
    assert process.check() is Reason.SESSION_ENDED
    process.store.erase(SUB, in_force=True)

    assert process.check() is None
    assert list(process.store.known(lost=True)) == []
