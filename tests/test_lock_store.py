"""How one process keeps step with the file: what it hears, what it says, and when it cannot."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from gatekit import ALICE, START, SUB, Clock, until

from tailchat_gate.identity import lock_store
from tailchat_gate.identity.lock_file import LockFile
from tailchat_gate.identity.lock_store import LockStore
from tailchat_gate.identity.locks import EndedSession, Entry, Lock, Standing, Unlock
from tailchat_gate.identity.session import SessionRecord
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.reasons import Reason

NOW = int(START)
RECORD = SessionRecord.begin(ALICE, now=START, login="l")
LOCK = Lock(f"sub:{SUB}", NOW, None, "no")

Make = Callable[..., Awaitable["Process"]]


class Process:
    """One process: its store, its metrics, and how often it was told of a change."""

    def __init__(self, file: str, clock: Clock) -> None:
        self.metrics = Metrics()
        self.store = LockStore(Standing(clock), self.metrics, clock)
        self.file = file
        self.changes = 0

    async def start(self) -> None:
        """Read the file and begin to look at it."""
        await self.store.open(self.file)
        self.store.start(self._changed)

    def check(self, record: SessionRecord = RECORD) -> Reason | None:
        """Return what stands against a session."""
        return self.store.standing.check(record)

    def counted(self, name: str) -> bool:
        """Tell whether a metric is above 0."""
        return name.encode() in self.metrics.render()

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is."""
    return tmp_path / "locks"


@pytest.fixture
async def make(path: Path, clock: Clock) -> AsyncIterator[Make]:
    """Return a function that starts a process on the file, or without one."""
    async with AsyncExitStack() as stack:

        async def make(file: str | None = None) -> Process:
            process = Process(str(path) if file is None else file, clock)
            await process.start()
            stack.push_async_callback(process.store.close)
            return process

        yield make


async def _write(path: Path, *entries: Entry) -> None:
    await asyncio.to_thread(LockFile(path, Clock()).append, entries)


async def _read(path: Path) -> list[Entry]:
    return (await asyncio.to_thread(LockFile(path, Clock()).open)).entries


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
    await until(lambda: process.check() is Reason.LOCKED, within=1)
    assert process.changes == 1
    await _write(path, Unlock(LOCK.target, NOW))
    await until(lambda: process.check() is None, within=1)

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
    await until(lambda: there.check() is Reason.SESSION_ENDED, within=1)
    assert here.counted('gate_sessions_ended_total{why="signed-out"} 1.0')
    assert not there.counted("gate_sessions_ended_total{")


async def test_what_tailchat_revoked_is_over_in_all(make: Make, path: Path) -> None:
    """A session that Tailchat does not stand by is over at once, and elsewhere with its reason."""
    here, there = await make(), await make()
    here.store.revoke(RECORD, lifetime=600)

    assert here.check() is Reason.SESSION_REVOKED
    await until(lambda: there.check() is Reason.SESSION_REVOKED, within=1)
    assert await _read(path) == [
        EndedSession(RECORD.sid, SUB, NOW, NOW + 600 + 60, revoked=True),
    ]
    assert here.counted('gate_sessions_ended_total{why="revoked"} 1.0')


async def test_signing_out_everywhere_is_over_in_all(make: Make) -> None:
    """All that a person had is over in both processes, and nobody else's."""
    here, there = await make(), await make()
    other = replace(RECORD, sid="other")
    await here.store.sign_out_everywhere(RECORD, lifetime=600)

    assert here.check(other) is Reason.SESSION_ENDED
    await until(lambda: there.check(other) is Reason.SESSION_ENDED, within=1)
    assert there.check(replace(other, sub="66b")) is None
    assert here.counted('gate_sessions_ended_total{why="signed-out-everywhere"} 1.0')


async def test_a_session_of_a_later_clock_is_over_too(make: Make) -> None:
    """A session that began in a second yet to come here is not left out."""
    process = await make()
    ahead = replace(RECORD, signed_in_at=NOW + 30)
    await process.store.sign_out_everywhere(ahead, lifetime=600)

    assert process.check(ahead) is Reason.SESSION_ENDED


async def test_without_a_file_it_is_kept_in_memory(make: Make, path: Path) -> None:
    """With "" a session is over in this process, and nothing is written."""
    process = await make("")
    await process.store.end_session(RECORD, lifetime=600)

    assert process.check() is Reason.SESSION_ENDED
    assert not await asyncio.to_thread(path.exists)


async def test_a_browser_that_leaves_does_not_stop_the_writing(make: Make, path: Path) -> None:
    """A sign-out whose request is cancelled is written all the same."""
    process = await make()
    ending = asyncio.create_task(process.store.end_session(RECORD, lifetime=600))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait((ending,))
    assert ending.cancelled()
    await process.store.close()

    assert len(await _read(path)) == 1


async def test_what_is_over_already_is_not_written_again(make: Make, path: Path) -> None:
    """Whoever ends one session any number of times has it written, and counted, once."""
    process = await make()
    await asyncio.gather(
        *(process.store.end_session(RECORD, lifetime=600) for _ in range(50)),
        *(process.store.sign_out_everywhere(RECORD, lifetime=600) for _ in range(50)),
    )

    assert len(await _read(path)) == 2
    assert process.counted('gate_sessions_ended_total{why="signed-out"} 1.0')


async def test_a_file_that_takes_nothing_is_made_up_for(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the disk is full sessions end in this process; when it is not, the file has them."""
    monkeypatch.setattr(lock_store, "RETRY_SECONDS", 0.05)
    full = True
    append = LockFile.append

    def try_to(file: LockFile, entries: object, anew: object = ()) -> None:
        if full:
            raise OSError(28, "No space left on device")
        append(file, entries, anew)  # type: ignore[arg-type] # as it was given

    process = await make()
    monkeypatch.setattr(LockFile, "append", try_to)
    await process.store.end_session(RECORD, lifetime=600)
    await process.store.end_session(replace(RECORD, sid="two"), lifetime=600)
    assert process.check() is Reason.SESSION_ENDED
    assert process.counted('gate_lock_file_errors_total{error="unwritable"} ')
    assert await _read(path) == []
    full = False
    there = await make()

    await until(lambda: there.check() is Reason.SESSION_ENDED)
    await until(lambda: there.check(replace(RECORD, sid="two")) is Reason.SESSION_ENDED)
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.message for record in told] == ["locks.file cannot be used"]


async def test_what_was_lifted_meanwhile_is_not_locked_again(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that makes up for what it could not write repeats no lock."""
    monkeypatch.setattr(lock_store, "LOOK_SECONDS", 60.0)
    await _write(path, LOCK)
    process = await make()
    await _write(path, Unlock(LOCK.target, NOW))
    process.store._lost = 1
    await process.store.end_session(RECORD, lifetime=600)

    assert [type(entry) for entry in await _read(path)] == [
        Lock,
        Unlock,
        EndedSession,
        EndedSession,
    ]


async def test_a_file_that_disappears_changes_nothing(
    make: Make, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was known stays in force, the loss is told once, and the file is made anew."""
    await _write(path, LOCK)
    process = await make()
    await asyncio.to_thread(path.unlink)
    await until(path.exists)

    assert process.check() is Reason.LOCKED
    await until(lambda: LOCK.target in path.read_text())
    assert await _read(path) == [LOCK]
    assert process.counted('gate_lock_file_errors_total{error="unreadable"} 1.0')
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_file_that_cannot_be_read_leaves_what_is_known(
    make: Make, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In place of an unreadable file the last known state holds; later changes are heard again."""
    await _write(path, LOCK)
    process = await make()
    kept = path.with_name("kept")

    def exchange() -> None:
        path.rename(kept)
        path.mkdir()

    def restore() -> None:
        path.rmdir()
        kept.rename(path)

    await asyncio.to_thread(exchange)
    await until(lambda: process.counted('gate_lock_file_errors_total{error="unreadable"} 2.0'))
    assert process.check() is Reason.LOCKED
    await asyncio.to_thread(restore)
    await _write(path, Unlock(LOCK.target, NOW))

    await until(lambda: process.check() is None)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_damaged_lines_are_told_and_counted(
    make: Make, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that cannot be read is passed over with an error, and the next one counts."""
    process = await make()

    def damage() -> None:
        with path.open("ab") as file:
            file.write(b"00000000 {}\n")

    await asyncio.to_thread(damage)
    await _write(path, LOCK)
    await until(lambda: process.check() is Reason.LOCKED, within=1)

    assert process.counted('gate_lock_file_errors_total{error="damaged"} 1.0')
    assert "locks.file has lines that are damaged" in caplog.messages


async def test_damage_lifts_no_lock(make: Make, path: Path) -> None:
    """A lock whose line is damaged while the gate runs holds; the lines behind it are heard."""
    other = Lock("sub:other", NOW)
    await _write(path, LOCK, other)
    process = await make()

    def damage() -> None:
        text = path.read_bytes()
        path.write_bytes(text.replace(b'"kind":"lock"', b'"kind":"l\x00ck"', 1))

    await asyncio.to_thread(damage)
    await until(lambda: process.counted('gate_lock_file_errors_total{error="damaged"}'))
    assert process.check() is Reason.LOCKED
    await _write(path, Unlock(other.target, NOW))
    await until(lambda: process.store.standing.lock_on("other") is None)

    assert process.check() is Reason.LOCKED


async def test_an_emptied_file_lifts_no_lock(make: Make, path: Path) -> None:
    """A file of which nothing is left is one that was lost: what is known is written again."""
    await _write(path, LOCK)
    process = await make()
    await asyncio.to_thread(os.truncate, path, 0)
    await until(lambda: LOCK.target in path.read_text())

    assert process.check() is Reason.LOCKED
    assert process.changes == 0
    assert await _read(path) == [LOCK]


async def test_a_fault_does_not_stop_the_looking(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A change that something went wrong with is taken in the next time."""
    process = await make()
    apply = Standing.apply
    faults = iter((True,))

    def once(standing: Standing, entry: Entry) -> bool:
        if next(faults, False):
            raise RuntimeError("a fault")
        return apply(standing, entry)

    monkeypatch.setattr(Standing, "apply", once)
    await _write(path, LOCK)

    await until(lambda: process.check() is Reason.LOCKED)
    assert "locks.file could not be read" in caplog.messages


async def test_a_file_that_everybody_reads_gives_a_warning(
    make: Make, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The admin is told which mode keeps it."""
    await _write(path, LOCK)
    await asyncio.to_thread(os.chmod, path, 0o644)
    await make()

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "0600" in caplog.text
