"""A follower that remembers its changes, and stores that share one real file."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from tailchat_gate.state.bookkeeping import Health
from tailchat_gate.state.sqlite.store import SqliteStore
from tailchat_gate.state.store import Changes, Kind, Record, Store

START = 1_800_000_000.0
StoreT = TypeVar("StoreT", bound=Store)
ProcessT = TypeVar("ProcessT", bound="StoreProcess[Any]")


class Clock:
    """A clock that a test sets; Unix seconds."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """Return the time that was set."""
        return self.now


def same(records: Sequence[Record]) -> Sequence[Record]:
    """Compact nothing."""
    return records


class Notes:
    """Keeps records of one kind by key, as a process does; a record stays until it is changed."""

    def __init__(self, kind: str = "note", room: int = 1024) -> None:
        self.kind = Kind(kind, room, same)
        self.held: dict[str, Record] = {}
        self.seen: list[Changes] = []

    def take(self, changes: Changes) -> None:
        """Store the changes that were read."""
        self.seen.append(changes)
        if changes.complete and not changes.doubtful:
            self.held.clear()
        for record in changes.records:
            self.held[record.key] = record

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return everything."""
        del lost
        return list(self.held.values())

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return nothing: tests put what they change."""
        del last
        return ()

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget a person."""
        del in_force
        self.held = {key: record for key, record in self.held.items() if record.sub != sub}


class StoreProcess(Generic[StoreT]):
    """The state of one process: its store, its follower, and its counted faults."""

    def __init__(self, make: Callable[[Health], StoreT], room: int = 1024) -> None:
        self.counted: list[str] = []
        self.health = Health(self.counted.append)
        self.store = make(self.health)
        self.notes = Notes(room=room)
        self.store.follow(self.notes)

    async def put(self, *keys: str, body: str = "{}", sub: str = "") -> None:
        """Store records with these keys, in memory first."""
        records = [Record("note", key, body, sub) for key in keys]
        self.notes.held.update((record.key, record) for record in records)
        await self.store.put(records)

    @property
    def keys(self) -> set[str]:
        """The keys that this process knows."""
        return set(self.notes.held)


class Process(StoreProcess[SqliteStore]):
    """A process whose store is in a directory."""

    def __init__(self, directory: Path, clock: Callable[[], float], *, busy: float = 0.2) -> None:
        super().__init__(lambda health: SqliteStore(directory, clock, health, busy=busy))

    async def copied(self) -> None:
        """Wait until the copy has everything that is stored now.

        The first look makes a copy, whatever has been stored by then; the next one takes long.
        """
        upkeep = self.store._upkeep
        async with self.store._using:
            upkeep.uncopied, upkeep._copy_at = True, 0.0
        await until(lambda: upkeep._copy_at > 0)

    async def swept(self) -> None:
        """Wait until the store has deleted expired records."""
        self.store._upkeep._sweep_at = 0
        await until(lambda: self.store._upkeep._sweep_at > 0)
        async with self.store._using:
            pass


@asynccontextmanager
async def following(process: ProcessT) -> AsyncIterator[ProcessT]:
    """Have a process open its store and follow it until the block ends."""
    await process.store.open()
    process.store.start()
    try:
        yield process
    finally:
        await process.store.close()


async def check_that_one_follows(here: StoreProcess[StoreT], there: StoreProcess[StoreT]) -> None:
    """Check that one process learns of each change by the other, once and in order."""
    await here.put("a", "b")
    await until(lambda: there.keys == {"a", "b"})
    await here.put("a", body='{"n":2}')
    await until(lambda: there.notes.held["a"].body == '{"n":2}')
    changes = [[record.key for record in seen.records] for seen in there.notes.seen]
    assert changes == [[], ["a", "b"], ["a"]]


@asynccontextmanager
async def running(
    directory: Path, clock: Callable[[], float] | None = None, *, busy: float = 0.2
) -> AsyncIterator[Process]:
    """Give a process that has opened its store and follows it."""
    async with following(Process(directory, clock or Clock(), busy=busy)) as process:
        yield process


async def keys_on_disk(directory: Path) -> set[str]:
    """Return the keys that a process knows if it starts now."""
    async with running(directory) as process:
        return process.keys


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; the limit is so long that only a hang reaches it."""
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110 - what is waited for may be a file
            await asyncio.sleep(0.01)
