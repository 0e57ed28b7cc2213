"""The interface of all stores, the data they store, and the followers that hold it in memory."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol, TypeGuard, TypeVar

_T = TypeVar("_T")

#: Seconds for which records are kept after they expire: if a clock that ran ahead is set back, a
#: lock or a used key that was deleted too early would count again as never made.
EXPIRY_MARGIN: Final = 86_400
#: Seconds that may pass between the check of a single-use key's age and its use.
USE_MARGIN: Final = 60
#: The last second of the year 9999.
LAST_SECOND: Final = 253_402_300_799
#: The longest key and body of a record together, in characters; the gate writes no longer ones.
MAX_TEXT: Final = 16_384
#: Records of this kind tell every process that a person's data was erased. The key is the sub;
#: the body says whether that includes locks and ended sessions in force.
ERASURE: Final = "erasure"
ALL_OF_IT: Final = "all"
ALL_BUT_IN_FORCE: Final = "all but what is in force"
#: Seconds for which an erasure is stored, enough for every running process to read it.
ERASURE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Record:
    """The latest document of a kind and key.

    `sub` is the person it is about, "" for nobody. It expires at the Unix second `until`;
    None: never. `intact` is False if its checksum is wrong.
    """

    kind: str
    key: str
    body: str
    sub: str = ""
    until: int | None = None
    intact: bool = True


def is_second(value: object) -> TypeGuard[int]:
    """Whether a value is a Unix second that every calendar can represent."""
    return type(value) is int and 0 <= value <= LAST_SECOND


def read_document(record: Record, make: Callable[..., _T]) -> _T | None:
    """Build a value with `make` from the members of an intact record's body; None if it cannot."""
    try:
        return make(**json.loads(record.body)) if record.intact else None
    except (ValueError, TypeError, RecursionError):
        return None


def newer(_old: Record, new: Record) -> Record:
    """Merge two records of one key: the last write wins."""
    return new


@dataclass(frozen=True, slots=True)
class Kind:
    """How records of one kind are stored.

    `merge` returns the record of a key after a second write. `compact` returns the shortest list
    with the same meaning; it is called when there are twice as many records as it last left,
    and more than `room`. Both are pure, because the store calls them in its own thread.
    """

    name: str
    room: int
    compact: Callable[[Sequence[Record]], Sequence[Record]]
    merge: Callable[[Record, Record], Record] = newer


class Changes(NamedTuple):
    """The records read of one kind, the oldest change first.

    `complete`: these are all records. `doubtful`: some may have been lost to damage, so a missing
    record proves nothing.
    """

    records: Sequence[Record]
    complete: bool
    doubtful: bool = False


class Follower(Protocol):
    """Holds the records of one kind in memory; it is called in the event loop only."""

    @property
    def kind(self) -> Kind:
        """The kind that it follows."""

    def take(self, changes: Changes) -> None:
        """Apply what was read."""

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return records to write again, because the store may lack them.

        `lost`: it may lack all records. Otherwise it may lack those that this process failed to
        write.
        """

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return the changes since the last call that were not put; called every few seconds.

        `last`: the process ends, and this is the last call.
        """

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget what is known about a person, because it was erased from the store.

        Without `in_force`, locks and ended sessions that still count are not forgotten.
        """


class ReservationStatus(Enum):
    """How an attempt to reserve a single-use key ended."""

    #: Only the caller may use the key.
    GRANTED = 1
    #: It was reserved before.
    TAKEN = 2
    #: The store is full, and no key in it can be dropped.
    FULL = 3
    #: The store cannot be written; nothing is known about other processes.
    UNAVAILABLE = 4


class Reservation(NamedTuple):
    """The result of reserving a key.

    For a key that is TAKEN, `reserved_at` is the Unix second of its reservation. `outcome` is
    stored for repeated requests, None if there is none yet or it has expired.
    """

    status: ReservationStatus
    reserved_at: float = 0.0
    outcome: bytes | None = None


class Outcome(NamedTuple):
    """The outcome of a reserved key.

    `data`, which the caller has sealed, is returned to repeated requests until the Unix second
    `until`; None if only the use of the key is to be stored. `spent`: a second use would do harm,
    so the key is never dropped early. `sub` is the person whom `data` is about.
    """

    data: bytes | None = None
    until: float = 0.0
    spent: bool = True
    sub: str = ""


class Charge(NamedTuple):
    """A charge on the bucket `key` of a rate limit, in the seconds that it takes to refill.

    `strangers`: anybody can invent such keys.
    """

    key: str
    seconds: float
    strangers: bool = False


#: Adds charges to buckets that several gates share. Returns, for each, in how many seconds the
#: bucket is full again; None where the store cannot be used now.
ChargeAll = Callable[[Sequence[Charge]], Awaitable[Sequence[float] | None]]


class Store(Protocol):
    """Stores state. All methods are called in one event loop.

    Followers hold their records in the process's memory; changes by other processes reach them
    within half a second. If the store fails, they keep their records, and `faults` says what is
    wrong.
    """

    @property
    def location(self) -> str:
        """Where the store is, for people; "" for memory alone."""

    @property
    def faults(self) -> Sequence[str]:
        """The present faults, one sentence each."""

    @property
    def charge(self) -> ChargeAll | None:
        """Shares buckets of rate limits; None in a store of one machine."""

    def follow(self, follower: Follower) -> None:
        """Hand a follower every record of its kind, now and later; to be called before `open`."""

    async def open(self) -> None:
        """Read everything and hand it to the followers. Raises StoreError."""

    def start(self) -> None:
        """Begin to follow changes."""

    async def close(self) -> None:
        """Write what is left, within a bounded time, and release all resources."""

    def put(self, records: Iterable[Record]) -> Awaitable[None]:
        """Write records; the result is done once they are durable, or could not be written.

        The write is completed even if nobody waits for it.
        """

    def next_look(self) -> "asyncio.Future[None]":
        """Return a future that is done once everything written by now was read, or could not be."""

    def written(self) -> Awaitable[None]:
        """Return an awaitable that is done once everything put so far was written."""

    async def reserve(self, kind: str, key: str, *, until: float, room: int) -> Reservation:
        """Reserve a single-use key, which is granted to only one process, once.

        The key is stored until the Unix second `until`, and for EXPIRY_MARGIN after it; `room` is
        the largest number of keys of this kind.
        """

    async def find_reservation(self, kind: str, key: str) -> Reservation:
        """Return the stored value of a key, GRANTED if there is none; reserves nothing."""

    async def settle(self, kind: str, key: str, outcome: Outcome) -> None:
        """Store the outcome of a key that was reserved here."""

    async def release(self, kind: str, key: str) -> None:
        """Release a key that was not used, so that it can be reserved again."""


class StoreError(Exception):
    """The store cannot be used at all; the text says where it is and why.

    `says_remedy`: the text also says what to do.
    """

    def __init__(self, problem: str, *, says_remedy: bool = False) -> None:
        super().__init__(problem)
        self.says_remedy: Final = says_remedy


class Followers:
    """The followers of one store, by the kind that each follows."""

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}
        #: Their kinds, by name.
        self.kinds: Final[dict[str, Kind]] = {}

    def add(self, follower: Follower) -> None:
        """Add a follower, the only one of its kind."""
        self.kinds[follower.kind.name] = follower.kind
        self._followers[follower.kind.name] = follower

    def hand_out(self, records: Iterable[Record], *, complete: bool, doubtful: bool) -> None:
        """Give each follower the records of its kind."""
        by_kind: dict[str, list[Record]] = {name: [] for name in self._followers}
        for record in records:
            doubtful = doubtful or not record.intact
            if record.kind in by_kind:
                by_kind[record.kind].append(record)
            elif record.kind == ERASURE and record.intact and not complete:
                self._erase(record.key, in_force=record.body == ALL_OF_IT)
        faults: list[Exception] = []
        for name, follower in self._followers.items():
            if complete or by_kind[name]:
                try:
                    follower.take(Changes(by_kind[name], complete, doubtful))
                except Exception as fault:  # noqa: BLE001 - the others must get theirs
                    faults.append(fault)
        if faults:
            raise ExceptionGroup("records could not be taken in", faults)

    def known(self, *, lost: bool) -> list[Record]:
        """Return the records that the store must hold; see Follower.known."""
        followers = self._followers.values()
        return [record for follower in followers for record in follower.known(lost=lost)]

    def unsaved(self, *, last: bool) -> list[Record]:
        """Return the changed records that were not put; see Follower.unsaved."""
        followers = self._followers.values()
        return [record for follower in followers for record in follower.unsaved(last=last)]

    def _erase(self, sub: str, *, in_force: bool) -> None:
        for follower in self._followers.values():
            follower.erase(sub, in_force=in_force)
