"""The store in a SQLite file: the part in the event loop, which never waits for a disk."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.state.bookkeeping import (
    DatabaseStore,
    FaultKind,
    Health,
    Operation,
    StoreFault,
)
from tailchat_gate.state.sqlite.database import BUSY_SECONDS
from tailchat_gate.state.sqlite.engine import Engine, StoredState
from tailchat_gate.state.sqlite.files import Files
from tailchat_gate.state.sqlite.recovery import Salvage
from tailchat_gate.state.sqlite.reservations import MissedReservations, Reservations
from tailchat_gate.state.store import (
    Outcome,
    Record,
    Reservation,
    ReservationStatus,
    StoreError,
)

#: Seconds between a failure and the next attempt.
RETRY_SECONDS: Final = 5.0
_UNAVAILABLE: Final = Reservation(ReservationStatus.UNAVAILABLE)

_T = TypeVar("_T")
_log: Final = logging.getLogger(LOGGER_NAME)


class SqliteStore(DatabaseStore):
    """Stores state in `state.sqlite` in a directory; see Store.

    `clock` gives Unix seconds.
    """

    charge: None = None

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float],
        health: Health,
        *,
        busy: float = BUSY_SECONDS,
    ) -> None:
        super().__init__(health)
        self._files = Files(directory)
        self._clock = clock
        self._engine = Engine(self._files, clock, self._followers.kinds, busy=busy)
        # A thread of its own, so that a disk that hangs delays nothing else.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._missed = MissedReservations()

    @property
    def location(self) -> str:
        """The database's path."""
        return str(self._files.database)

    async def open(self) -> None:
        """Read everything. Raises StoreError."""
        async with self._using:
            loaded = await self._run(self._engine.open)
            self._take_in(loaded)
            if loaded.salvaged is not None:
                try:
                    await self._rebuild(loaded.salvaged)
                    self._wrote()
                except StoreFault as fault:
                    self._health.report(fault.fault, str(fault))
            self._behind = self._behind or not self._engine.is_open
        self._upkeep.uncopied = self._engine.is_open
        if await self._run(self._files.exposed):
            _log.warning(
                "every user of this machine can read %s; set its mode to 0600 or 0640",
                self._files.database,
            )

    def start(self) -> None:
        """Begin to follow changes."""
        self._retry_at = asyncio.get_running_loop().time() + RETRY_SECONDS
        super().start()

    async def close(self) -> None:
        """Stop following, and write what is left."""
        await super().close()
        self._thread.shutdown(wait=False)

    async def reserve(self, kind: str, key: str, *, until: float, room: int) -> Reservation:
        """Reserve a single-use key."""
        reservation = await self._single_use(
            lambda keys: keys.reserve(kind, key, until=until, room=room)
        )
        if reservation is None:
            self._missed.add(kind, key, until=until, now=self._clock())
            return _UNAVAILABLE
        return reservation

    async def find_reservation(self, kind: str, key: str) -> Reservation:
        """Return the stored outcome of a key that was reserved elsewhere."""
        found = await self._single_use(lambda keys: keys.find(kind, key), writes=False)
        return found or _UNAVAILABLE

    async def settle(self, kind: str, key: str, outcome: Outcome) -> None:
        """Store the outcome of a key."""
        if not await self._single_use(lambda keys: keys.settle(kind, key, outcome)):
            self._missed.settle(kind, key, outcome)

    async def release(self, kind: str, key: str) -> None:
        """Release a key, so that it can be reserved again."""
        self._missed.release(kind, key)
        await self._single_use(lambda keys: keys.release(kind, key))

    async def erase(self, keys: Iterable[tuple[str, str]], sub: str, notice: Record) -> None:
        """Delete records and all outcomes about a person. Raises StoreFault."""
        listed = list(keys)
        async with self._using:
            await self._run(lambda: self._engine.erase(listed, sub, notice))

    async def about(self, sub: str) -> tuple[list[Record], int]:
        """Return the records about a person, and the number of outcomes. Raises StoreFault."""
        async with self._using:
            if not self._engine.is_open:
                return [], 0
            return await self._run(lambda: self._engine.about(sub))

    async def _single_use(
        self, action: Callable[[Reservations], _T], *, writes: bool = True
    ) -> _T | None:
        """Run an action on the single-use keys; None if the store cannot do it now."""
        use = partial(self._engine.single_use, action)
        async with self._using:
            if self._behind and asyncio.get_running_loop().time() < self._retry_at:
                # Only one login waits for a locked database.
                return None
            # A key that the copy lacks could be used again once the database is damaged.
            self._upkeep.uncopied |= writes
            try:
                return await self._run(use, Operation.SINGLE_USE)
            except StoreFault as fault:
                if not await self._mend(fault):
                    return None
            with suppress(StoreFault):
                return await self._run(use, Operation.SINGLE_USE)
        return None

    async def _flush(self, records: Sequence[Record]) -> None:
        async with self._using:
            await self._write(records)

    async def _write(self, records: Sequence[Record]) -> None:
        """Write records, and everything that could not be written before."""
        extra = self._followers.known(lost=False) if self._behind else []
        try:
            await self._run(lambda: self._write_in_thread([*extra, *records]), Operation.WRITE)
        except StoreFault as fault:
            if await self._mend(fault) and records:
                # The new database does not have these records.
                self._followers.hand_out(records, complete=False, doubtful=True)
                await self._write_once_more(records)
        else:
            self._wrote()

    async def _write_once_more(self, records: Sequence[Record]) -> None:
        try:
            await self._run(lambda: self._write_in_thread(records), Operation.WRITE)
        except StoreFault as fault:
            self._behind = True
            self._health.report(fault.fault, str(fault))

    def _write_in_thread(self, records: Sequence[Record]) -> None:
        if not self._engine.is_open:
            self._engine.open_to_write()
        self._engine.write(records)
        if missed := self._missed.take():
            self._engine.single_use(lambda keys: keys.make_up(missed))
            self._missed.written(missed)

    def _wrote(self) -> None:
        self._behind = False
        self._upkeep.uncopied = True
        self._health.clear(
            FaultKind.UNWRITABLE, FaultKind.UNREADABLE, FaultKind.NEWER, FaultKind.DAMAGED
        )

    async def _mend(self, fault: StoreFault) -> bool:
        """Repair the fault if possible; return whether that succeeded."""
        loop = asyncio.get_running_loop()
        self._behind = True
        self._retry_at = loop.time() + RETRY_SECONDS
        if fault.fault not in {FaultKind.REPLACED, FaultKind.DAMAGED}:
            self._health.report(fault.fault, str(fault))
            return False
        self._health.happened(fault.fault, str(fault))
        try:
            await self._replace(fault.fault)
        except StoreFault as second:
            self._health.report(second.fault, str(second))
            return False
        except StoreError as error:
            self._health.report(FaultKind.UNREADABLE, str(error))
            return False
        self._wrote()
        return True

    async def _replace(self, fault: FaultKind) -> None:
        """Write what is known to the database again. Raises StoreFault, StoreError."""
        loaded = await self._run(self._engine.reopen) if fault is FaultKind.REPLACED else None
        if loaded is not None:
            # An empty file may have lost everything, as a missing one has.
            lost = not loaded.records
            self._take_in(loaded._replace(doubtful=loaded.doubtful or lost))
            known = self._followers.known(lost=lost)
            await self._run(lambda: self._write_in_thread(known))
            return
        await self._rebuild(await self._run(self._engine.salvage))

    async def _rebuild(self, salvaged: Salvage) -> None:
        """Write a new database from salvaged and known records. Raises StoreFault."""
        self._followers.hand_out(salvaged.records, complete=False, doubtful=True)
        known = self._followers.known(lost=True)
        followed = set(self._followers.kinds)
        read = await self._run(lambda: self._engine.rebuild(salvaged, known, followed))
        self._followers.hand_out([record for _, record in read.rows], complete=False, doubtful=True)
        # Another process may have written it, without what only this one knows.
        known = self._followers.known(lost=False)
        await self._run(lambda: self._write_in_thread(known))

    async def _look_once(self, now: float) -> None:
        try:
            if not self._engine.is_open or await self._read_new():
                await self._catch_up(now)
        except Exception:
            # The followers may not have got what was read, so read it again.
            self._engine.reread()
            raise

    async def _read_new(self) -> bool:
        """Read what other processes wrote; return whether the database could be read."""
        try:
            read = await self._run(self._engine.look, Operation.READ)
        except StoreFault as fault:
            await self._mend(fault)
            return False
        self._health.clear(FaultKind.UNREADABLE)
        if read is not None:
            self._upkeep.uncopied = True
            records, doubtful = [record for _, record in read.rows], bool(read.lost)
            if read.complete:
                self._hand_out_all(records, doubtful=doubtful)
            else:
                self._followers.hand_out(records, complete=False, doubtful=doubtful)
        return True

    async def _catch_up(self, now: float) -> None:
        """Write what could not be written before, or do what is due."""
        if self._behind and now >= self._retry_at:
            self._retry_at = now + RETRY_SECONDS
            await self._write(())
            if not self._engine.is_open:
                records = await self._run(self._engine.read_aside)
                self._followers.hand_out(records, complete=False, doubtful=True)
        elif self._engine.is_open and not self._behind:
            await self._keep_house(now)

    async def _keep_house(self, now: float) -> None:
        """Save, delete expired records and copy the database, as far as each is due."""
        upkeep = self._upkeep
        try:
            if upkeep.save_is_due(now) and (records := self._followers.unsaved(last=False)):
                await self._write(records)
            if upkeep.sweep_is_due(now):
                # The copy must be made again, without what was deleted.
                upkeep.uncopied = await self._run(self._engine.sweep) or upkeep.uncopied
            if upkeep.copy_is_due(now):
                await self._copy(now)
        except StoreFault as fault:
            await self._mend(fault)

    async def _copy(self, now: float) -> None:
        upkeep = self._upkeep
        upkeep.uncopied = False
        try:
            await self._run(self._engine.copy)
        except StoreFault as fault:
            if fault.fault is not FaultKind.UNCOPIED:
                raise
            upkeep.uncopied = True
            self._health.report(FaultKind.UNCOPIED, str(fault))
        else:
            self._health.clear(FaultKind.UNCOPIED)
        upkeep.copied(now, asyncio.get_running_loop().time())

    async def _write_last(self) -> None:
        await self._batches.written()
        async with self._using:
            records = self._followers.unsaved(last=True)
            if self._behind or records:
                await self._write(records)
            upkeep = self._upkeep
            if upkeep.uncopied and upkeep.copies_quickly and self._engine.is_open:
                with suppress(StoreFault):
                    await self._copy(asyncio.get_running_loop().time())
            await self._run(self._engine.close)

    def _take_in(self, loaded: StoredState) -> None:
        for fault, problem in loaded.faults.items():
            self._health.report(fault, problem)
        self._hand_out_all(loaded.records, doubtful=loaded.doubtful)

    async def _run(self, work: Callable[[], _T], operation: Operation = Operation.UPKEEP) -> _T:
        with self._health.timed(operation):
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
