"""The part of a database store that runs in the event loop: writes, reads, upkeep, faults."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from typing import Final

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.state.store import Follower, Followers, Record

#: Seconds between two looks at the database for writes of other processes.
LOOK_SECONDS: Final = 0.25
#: Seconds between two copies of the database, or longer, so that copying takes at most a hundredth
#: of the time.
COPY_SECONDS: Final = 2.0
_COPY_SHARE: Final = 100
_QUICK_SECONDS: Final = 0.5
#: Seconds between two deletions of expired records.
SWEEP_SECONDS: Final = 60.0
#: Seconds between two calls of `Follower.unsaved`: a killed process loses the changes since.
SAVE_SECONDS: Final = 5.0
#: Seconds for which the end of the process waits for a disk or a server.
CLOSE_SECONDS: Final = 2.0

_log: Final = logging.getLogger(LOGGER_NAME)


class _Batch:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.done: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()


class Batches:
    """Writes records one batch after another; `write` must not raise an expected error."""

    def __init__(self, write: Callable[[Sequence[Record]], Awaitable[None]]) -> None:
        self._write = write
        self._current: _Batch | None = None
        self._next: _Batch | None = None
        self._writing: asyncio.Task[None] | None = None

    def put(self, records: Iterable[Record]) -> Awaitable[None]:
        """Add records to the next batch; the result is done once that batch is written."""
        if self._next is None:
            self._next = _Batch()
        batch = self._next
        batch.records.extend(records)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        # A caller that stops waiting must not cancel the write for the others.
        return asyncio.shield(batch.done)

    def unwritten(self) -> list[Record]:
        """Return the records that are being written, and those that wait for that."""
        return [
            record for batch in (self._current, self._next) if batch for record in batch.records
        ]

    async def written(self) -> None:
        """Wait until every batch has been written."""
        while self._writing is not None and not self._writing.done():
            await asyncio.wait((self._writing,))

    async def _write_all(self) -> None:
        while self._next is not None:
            self._current = batch = self._next
            self._next = None
            try:
                await self._write(batch.records)
            finally:
                self._current = None
                batch.done.set_result(None)


class Looks:
    """Looks at the store for changes, and the callers that wait for one; each holds `using`."""

    def __init__(self, using: asyncio.Lock) -> None:
        self._using = using
        self._next: asyncio.Future[None] | None = None

    def next(self) -> "asyncio.Future[None]":
        """Return a future that is done at the end of the first look that begins after this call."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Enclose a look; however it ends, the callers that wait for it are released."""
        async with self._using:
            waiting, self._next = self._next, None
            try:
                yield
            finally:
                if waiting is not None:
                    waiting.set_result(None)


class Upkeep:
    """Knows when copying, deleting and saving are due, in seconds of the event loop's clock."""

    def __init__(self) -> None:
        #: Whether the database holds something that its copy lacks.
        self.uncopied = False
        #: Whether a copy is so quick that the end of the process can wait for one.
        self.copies_quickly = True
        self._copy_at = self._sweep_at = self._save_at = 0.0

    def begin(self, now: float) -> None:
        """Start the intervals at the start of the process."""
        self._sweep_at, self._save_at = now + SWEEP_SECONDS, now + SAVE_SECONDS

    def copy_is_due(self, now: float) -> bool:
        """Whether to copy the database now."""
        return self.uncopied and now >= self._copy_at

    def copied(self, began: float, now: float) -> None:
        """Note that the database was copied."""
        taken = now - began
        self.copies_quickly = taken < _QUICK_SECONDS
        self._copy_at = now + max(COPY_SECONDS, _COPY_SHARE * taken)

    def sweep_is_due(self, now: float) -> bool:
        """Whether to delete expired records now; True once per interval."""
        if now < self._sweep_at:
            return False
        self._sweep_at = now + SWEEP_SECONDS
        return True

    def save_is_due(self, now: float) -> bool:
        """Whether to save the followers' changes now; True once per interval."""
        if now < self._save_at:
            return False
        self._save_at = now + SAVE_SECONDS
        return True


async def end(
    looking: asyncio.Task[None] | None, write_last: Callable[[], Coroutine[None, None, None]]
) -> None:
    """Cancel the task `looking`, then write what is left; each may take CLOSE_SECONDS."""
    if looking is not None:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait((looking,), timeout=CLOSE_SECONDS)
    last = asyncio.create_task(write_last())
    await asyncio.wait((last,), timeout=CLOSE_SECONDS)
    if not last.done():
        _log.error("the state store hangs, so the last changes may not be stored")
        last.cancel()
        await asyncio.wait((last,))


class FaultKind(StrEnum):
    """The kinds of faults; the values are labels of a metric."""

    UNWRITABLE = "unwritable"
    UNREADABLE = "unreadable"
    DAMAGED = "damaged"
    REPLACED = "replaced"
    NEWER = "newer"
    UNCOPIED = "uncopied"


class StoreFault(Exception):  # noqa: N818 - it has a FaultKind; StoreError ends a start
    """The store could not do something; the text says why.

    `is_refusal`: a server answered at once that it will not, so that it does not hang. `may_pass`:
    nobody has to mend anything, as when a server starts or another one takes over.
    """

    def __init__(
        self, fault: FaultKind, problem: str, *, is_refusal: bool = False, may_pass: bool = False
    ) -> None:
        super().__init__(problem)
        self.fault: Final = fault
        self.is_refusal: Final = is_refusal
        self.may_pass: Final = may_pass


def _tell(fault: FaultKind, problem: str) -> None:
    details = {"error": str(fault), "problem": problem}
    _log.error("the state store has a fault", extra={"details": details})


class Operation(StrEnum):
    """The operations of the store; the values are labels of a metric."""

    READ = "read"
    WRITE = "write"
    #: The use of a key that only one process may use, once.
    SINGLE_USE = "single-use"
    UPKEEP = "upkeep"


class Health:
    """The faults of one store; calls `count` for each occurrence and `tell` for each new fault.

    `worked(operation, seconds)` is called after each operation.
    """

    def __init__(
        self,
        count: Callable[[str], None] = lambda _: None,
        tell: Callable[[FaultKind, str], None] = _tell,
        worked: Callable[[str, float], None] = lambda _operation, _seconds: None,
    ) -> None:
        self._count = count
        self._worked = worked
        self._tell = tell
        self._present: dict[FaultKind, str] = {}

    @property
    def faults(self) -> tuple[str, ...]:
        """The present faults, one sentence each."""
        return tuple(f"{fault}: {problem}" for fault, problem in self._present.items())

    @contextmanager
    def timed(self, operation: Operation) -> Iterator[None]:
        """Measure how long an operation takes, with its wait for the thread."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._worked(operation, time.monotonic() - began)

    def report(self, fault: FaultKind, problem: str) -> None:
        """Note a lasting fault; it is logged when it begins and when its text changes."""
        self._count(fault)
        if self._present.get(fault) != problem:
            self._present[fault] = problem
            self._tell(fault, problem)

    def happened(self, fault: FaultKind, problem: str) -> None:
        """Note a fault that does not last, because it is repaired at once."""
        self._count(fault)
        self._tell(fault, problem)

    def clear(self, *faults: FaultKind) -> None:
        """Note that faults have ended."""
        ended = [fault for fault in faults if self._present.pop(fault, None) is not None]
        if ended:
            _log.info("the state store works again", extra={"details": {"ended": ended}})


class DatabaseStore(ABC):
    """Base of the stores with a database: the part in the event loop; see Store."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._followers = Followers()
        #: Held while the database is used: by one call at a time, or for all steps of a repair.
        self._using = asyncio.Lock()
        self._batches = Batches(self._flush)
        self._looks = Looks(self._using)
        self.next_look: Final = self._looks.next
        self._looking: asyncio.Task[None] | None = None
        self._upkeep = Upkeep()
        #: Whether the database may lack something that this process knows.
        self._behind = False
        #: When to try again after a failure, in seconds of the event loop's clock.
        self._retry_at = 0.0

    @property
    def faults(self) -> Sequence[str]:
        """The present faults."""
        return self._health.faults

    def follow(self, follower: Follower) -> None:
        """Hand a follower every record of its kind."""
        self._followers.add(follower)

    def start(self) -> None:
        """Begin to follow changes."""
        self._upkeep.begin(asyncio.get_running_loop().time())
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Stop following; writes in progress have CLOSE_SECONDS to end."""
        await end(self._looking, self._write_last)

    def put(self, records: Iterable[Record]) -> Awaitable[None]:
        """Write records, in one batch with all others that arrive before the write."""
        return self._batches.put(records)

    def written(self) -> Awaitable[None]:
        """Wait for the writes in progress."""
        return self._batches.written()

    def _hand_out_all(self, records: Iterable[Record], *, doubtful: bool) -> None:
        """Give the followers all records of the database, then those that it does not have yet.

        A follower forgets what a database lacks; a lock or a sign-out whose write is under way must
        stay in force.
        """
        self._followers.hand_out(records, complete=True, doubtful=doubtful)
        self._followers.hand_out(self._batches.unwritten(), complete=False, doubtful=True)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            async with self._looks.one():
                try:
                    await self._look_once(asyncio.get_running_loop().time())
                except Exception:  # noqa: BLE001 - a fault here must not stop the looking
                    _log.exception("the state store could not be read")

    @abstractmethod
    async def _look_once(self, now: float) -> None:
        """Read changes of other processes, and do what is due; `now` is the event loop's time."""

    @abstractmethod
    async def _flush(self, records: Sequence[Record]) -> None:
        """Write one batch; a fault is reported."""

    @abstractmethod
    async def _write_last(self) -> None:
        """Write what is left at the end of the process."""
