"""The store on a Redis or Valkey server, which gates on several machines share."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from tailchat_gate.state.bookkeeping import (
    DatabaseStore,
    FaultKind,
    Health,
    Operation,
    StoreFault,
)
from tailchat_gate.state.redis.client import CALL_SECONDS, RedisClient
from tailchat_gate.state.redis.database import RedisDatabase, RowsRead
from tailchat_gate.state.redis.own_reservations import OwnReservation, OwnReservations
from tailchat_gate.state.redis.servers import RedisPlace
from tailchat_gate.state.store import (
    Charge,
    Outcome,
    Record,
    Reservation,
    ReservationStatus,
    StoreError,
)

#: Seconds between a failure and the next attempt; calls in between do not wait.
RETRY_SECONDS: Final = 1.0
#: Seconds for which a start waits for a server that starts too, or that another one replaces.
START_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.25
_NO_ROOM_LIMIT: Final = 1 << 31
_UNAVAILABLE: Final = Reservation(ReservationStatus.UNAVAILABLE)
_REPLACED: Final = (
    "the data in Redis were emptied, replaced or set back: what this process knows is written again"
)
_DAMAGED: Final = "records in Redis are missing or damaged"

_T = TypeVar("_T")


class RedisStore(DatabaseStore):
    """Stores state in one Redis or Valkey server; see Store.

    `clock` gives Unix seconds; `timeout` is how many seconds one call may take. The store looks
    for changes as often as with a file and does not use Redis's publish and subscribe: a subscriber
    does not notice a server that hangs, so it would have to look all the same.
    """

    def __init__(
        self,
        place: RedisPlace,
        clock: Callable[[], float],
        health: Health,
        *,
        timeout: float = CALL_SECONDS,
    ) -> None:
        super().__init__(health)
        self._place = place
        self._client = RedisClient(place, timeout=timeout)
        self._database = RedisDatabase(self._client, clock, self._followers.kinds)
        self._own = OwnReservations(clock)
        #: Whether the last call failed, and no further one is made before `_retry_at`.
        self._away = False
        #: Whether the server may lack everything that this process knows.
        self._lost = False

    @property
    def location(self) -> str:
        """The server's URL."""
        return str(self._place)

    async def open(self) -> None:
        """Read everything. Raises StoreError, because without it no lock would be known."""
        # In a thread, because it imports the client library from the disk.
        await asyncio.to_thread(self._client.connect)
        async with self._using:
            try:
                read = await self._read_at_start()
            except StoreFault as fault:
                await self._client.close()
                raise StoreError(str(fault)) from None
        if read.lost:
            self._health.happened(FaultKind.DAMAGED, _DAMAGED)
        self._hand_out_all(_records(read), doubtful=bool(read.lost))

    async def _read_at_start(self) -> RowsRead:
        """Read everything; ask again for START_SECONDS, because no request waits yet.

        Raises StoreFault.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + START_SECONDS
        while True:
            try:
                return await self._database.read_all()
            except StoreFault as fault:
                if not fault.may_pass or loop.time() >= end:
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)

    async def close(self) -> None:
        """Stop following, and write what is left."""
        await super().close()
        await self._client.close()

    async def reserve(self, kind: str, key: str, *, until: float, room: int) -> Reservation:
        """Reserve a single-use key.

        Without an answer it may have been reserved all the same; the nonce shows later by whom.
        """
        own = self._own.begin(kind, key, until)

        async def reserve() -> Reservation:
            return await self._database.reserve(
                kind, key, own.nonce, until=until, room=room, at=own.at
            )

        reservation = await self._single_use(reserve)
        if reservation is None or reservation.status is ReservationStatus.GRANTED:
            own.behind = reservation is None
            self._behind = self._behind or own.behind
            self._own.keep(own)
        return reservation or _UNAVAILABLE

    async def find_reservation(self, kind: str, key: str) -> Reservation:
        """Return the stored outcome of a key that was reserved elsewhere."""

        async def find() -> Reservation:
            return await self._database.reserve(kind, key, "", until=0.0, room=0, at=0.0)

        return await self._single_use(find) or _UNAVAILABLE

    async def settle(self, kind: str, key: str, outcome: Outcome) -> None:
        """Store the outcome of a key."""
        if (own := self._own.find(kind, key)) is not None:
            own.outcome = outcome
            await self._bring_up(own)

    async def release(self, kind: str, key: str) -> None:
        """Release a key, so that it can be reserved again."""
        if (own := self._own.find(kind, key)) is not None:
            own.released = True
            await self._bring_up(own)

    async def charge(self, charges: Sequence[Charge]) -> Sequence[float] | None:
        """Add charges to the buckets of all gates."""
        return await self._try(Operation.WRITE, lambda: self._database.charge(charges))

    async def erase(self, keys: Iterable[tuple[str, str]], sub: str, notice: Record) -> None:
        """Delete records, and all outcomes and rates about a person. Raises StoreFault."""
        self._own.forget_person(sub)
        async with self._using:
            await self._database.delete(keys, notice)
            await self._database.outcomes(sub, erase=True)
            await self._database.forget_rates(sub)

    async def about(self, sub: str) -> tuple[list[Record], int]:
        """Return the records about a person, and the number of outcomes. Raises StoreFault."""
        async with self._using:
            read = await self._database.peek()
            count = await self._database.outcomes(sub, erase=False)
        return [record for record in _records(read) if record.sub == sub], count

    async def _bring_up(self, own: OwnReservation) -> None:
        own.behind = True
        if await self._single_use(lambda: self._write_own(own)) is None:
            self._behind = True

    async def _write_own(self, own: OwnReservation) -> bool:
        """Bring the server to the state of a reservation. Raises StoreFault."""
        if own.released:
            await self._database.release(own.kind, own.key, own.nonce)
            self._own.forget(own)
            return True
        outcome = own.outcome
        # This does nothing if the key is reserved already, by this process or by another one.
        await self._database.reserve(
            own.kind, own.key, own.nonce, until=own.until, room=_NO_ROOM_LIMIT, at=own.at
        )
        if outcome is not None:
            await self._database.settle(own.kind, own.key, own.nonce, outcome)
        own.behind = own.outcome is not outcome or own.released
        return True

    async def _single_use(self, call: Callable[[], Awaitable[_T]]) -> _T | None:
        return await self._try(Operation.SINGLE_USE, call)

    async def _try(self, operation: Operation, call: Callable[[], Awaitable[_T]]) -> _T | None:
        """Make a call; None if the server cannot be used now."""
        async with self._using:
            if self._away:
                # Only one login waits for a server that hangs. It is a look that tries again, so
                # that logins leave the looks their turn.
                return None
            try:
                with self._health.timed(operation):
                    return await call()
            except StoreFault as fault:
                if operation is Operation.WRITE and fault.is_refusal:
                    # Each request may be charged: a pause after each would leave locks no turn.
                    self._health.report(fault.fault, str(fault))
                else:
                    self._failed(fault)
        return None

    def _waits(self) -> bool:
        return self._away and asyncio.get_running_loop().time() < self._retry_at

    def _failed(self, fault: StoreFault) -> None:
        self._away = self._behind = True
        self._retry_at = asyncio.get_running_loop().time() + RETRY_SECONDS
        self._health.report(fault.fault, str(fault))

    async def _flush(self, records: Sequence[Record]) -> None:
        async with self._using:
            if self._waits():
                self._behind = True
                return
            try:
                await self._write(records)
            except StoreFault as fault:
                self._failed(fault)

    async def _write(self, records: Sequence[Record]) -> None:
        """Write records, and everything that could not be written before. Raises StoreFault."""
        if self._behind:
            await self._catch_up()
        with self._health.timed(Operation.WRITE):
            await self._database.write(records)
        self._worked()

    async def _catch_up(self) -> None:
        """Read what is new, and write what the server may lack. Raises StoreFault."""
        if not self._lost:
            await self._read()
        if self._lost:
            # Before writing, because others may have written what this process does not know.
            read = await self._database.read_all()
            self._followers.hand_out(_records(read), complete=False, doubtful=True)
        with self._health.timed(Operation.WRITE):
            await self._database.write(self._followers.known(lost=self._lost))
        for own in self._own.behind():
            await self._write_own(own)
        self._behind = self._lost = False

    def _worked(self) -> None:
        self._away = False
        self._health.clear(FaultKind.UNWRITABLE, FaultKind.UNREADABLE)

    async def _look_once(self, now: float) -> None:
        if self._waits():
            return
        try:
            await self._read_and_write(now)
        except StoreFault as fault:
            self._failed(fault)
        except Exception as error:
            # The followers may not have got what was read, so read everything again.
            self._lost = True
            problem = f"a fault inside the gate: {type(error).__name__}"
            self._failed(StoreFault(FaultKind.UNREADABLE, problem))
            raise

    async def _read_and_write(self, now: float) -> None:
        """Read what is new, and do what is due. Raises StoreFault."""
        if not self._behind:
            await self._read()
        if self._behind:
            await self._catch_up()
            self._worked()
        upkeep = self._upkeep
        if upkeep.save_is_due(now) and (records := self._followers.unsaved(last=False)):
            await self._write(records)
        if upkeep.sweep_is_due(now):
            with self._health.timed(Operation.UPKEEP):
                await self._database.sweep()

    async def _read(self) -> None:
        """Read what is new. Raises StoreFault."""
        with self._health.timed(Operation.READ):
            read = await self._database.read_new()
        if read.replaced or read.lost:
            self._behind = self._lost = True
            self._own.lost()
            fault = FaultKind.REPLACED if read.replaced else FaultKind.DAMAGED
            self._health.happened(fault, _REPLACED if read.replaced else _DAMAGED)
        if read.rows:
            self._followers.hand_out(_records(read), complete=False, doubtful=bool(read.lost))

    async def _write_last(self) -> None:
        await self._batches.written()
        async with self._using:
            records = self._followers.unsaved(last=True)
            if (self._behind or records) and not self._waits():
                try:
                    await self._write(records)
                except StoreFault as fault:
                    self._failed(fault)


def _records(read: RowsRead) -> list[Record]:
    return [record for _, record in read.rows]
