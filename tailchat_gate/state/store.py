"""The interface that every store has, and what is stored: records and single-use keys."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol

#: Seconds for which something is kept after its expiry: a clock that ran ahead may be set back,
#: and what was dropped meanwhile would be valid again.
EXPIRY_MARGIN: Final = 86_400
#: Longest key and body of a record; what is longer was not written by the gate.
MAX_TEXT: Final = 16_384
#: Records of this kind tell every process that a person's data was erased. The key is the sub;
#: the body tells whether that includes what keeps the person out.
ERASURE: Final = "erasure"
ALL_OF_IT: Final = "all"
ALL_BUT_IN_FORCE: Final = "all but what is in force"
#: Seconds after which every running process has read an erasure.
ERASURE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Record:
    """The latest document of a kind and key.

    `sub` is the person whom it is about, "" for nobody. From the Unix second `until` it has
    expired; None: never. `intact` is False where its checksum is wrong.
    """

    kind: str
    key: str
    body: str
    sub: str = ""
    until: int | None = None
    intact: bool = True


def newer(_old: Record, new: Record) -> Record:
    """Merge two records of one key where the last write wins."""
    return new


@dataclass(frozen=True, slots=True)
class Kind:
    """How records of one kind are kept.

    `merge` decides what a key holds after a second write. `compact` returns the shortest list of
    the same meaning; it is asked for one when there are twice as many records as it last left,
    and more than `room`. Both are pure, because the store calls them in its own thread.
    """

    name: str
    room: int
    compact: Callable[[Sequence[Record]], Sequence[Record]]
    merge: Callable[[Record, Record], Record] = newer


class Changes(NamedTuple):
    """What was read of one kind, the oldest change first.

    `complete`: these are all records there are. `doubtful`: some may have been lost to damage,
    so that a record which is missing proves nothing.
    """

    records: Sequence[Record]
    complete: bool
    doubtful: bool = False


class Follower(Protocol):
    """Keeps in memory what the store holds of one kind, and is called in the event loop alone."""

    @property
    def kind(self) -> Kind:
        """What it follows."""

    def take(self, changes: Changes) -> None:
        """Apply what was read."""

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return what the store has to hold, to write again what it may lack.

        `lost`: it may lack everything. Else it lacks at most what this process failed to write.
        """

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return what changed here since the last time and was not put; asked every few seconds.

        `last`: the process ends, and does not ask again.
        """

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget what is known about a person, because it was erased from the store.

        Without `in_force` what still keeps the person out is not forgotten.
        """


class ClaimStatus(Enum):
    """How an attempt to claim a single-use key ended."""

    #: The caller, and no other, may use the key.
    GRANTED = 1
    #: It was claimed before.
    TAKEN = 2
    #: As many keys are stored as may be, and none of them can be dropped.
    FULL = 3
    #: The store cannot be written; nothing is known about other processes.
    UNAVAILABLE = 4


class Claim(NamedTuple):
    """An attempt to claim a key.

    Of a key that was TAKEN, `claimed_at` is the Unix second of the claim and `outcome` what was
    stored for those who repeat the request, None where there is nothing yet or no more.
    """

    status: ClaimStatus
    claimed_at: float = 0.0
    outcome: bytes | None = None


class Outcome(NamedTuple):
    """What becomes of a key that was claimed.

    `data` is sealed by the caller and returned until the Unix second `until`; None keeps nothing
    but the mark. `spent`: a second use would do harm, so the mark is never dropped early. `sub` is
    the person whom `data` is about.
    """

    data: bytes | None = None
    until: float = 0.0
    spent: bool = True
    sub: str = ""


class Store(Protocol):
    """Where state lies. All methods are called in one event loop.

    What is followed is in the process's memory, and follows changes by other processes within
    half a second. A store that fails changes nothing of that: `faults` says what is wrong.
    """

    @property
    def location(self) -> str:
        """Where it is, for people; "" for memory alone."""

    @property
    def faults(self) -> Sequence[str]:
        """What is wrong at present, one sentence each."""

    def follow(self, follower: Follower) -> None:
        """Hand a follower every record of its kind, now and later; before `open`."""

    async def open(self) -> None:
        """Read everything and hand it to the followers. Raises StoreError."""

    def start(self) -> None:
        """Begin to follow changes."""

    async def close(self) -> None:
        """Write what is left to write, within a bounded time, and let go of everything."""

    def put(self, records: Iterable[Record]) -> Awaitable[None]:
        """Write records; what is returned is done when they are durable, or could not be written.

        The writing goes to its end whether or not anybody waits for it.
        """

    def written(self) -> Awaitable[None]:
        """Return what is done when everything that was put so far was written."""

    async def claim(self, kind: str, key: str, *, until: float, room: int) -> Claim:
        """Claim a single-use key: of all processes, one is granted it, once.

        It is kept until the Unix second `until` and for EXPIRY_MARGIN; `room` is the number of
        keys of a kind.
        """

    async def find_claim(self, kind: str, key: str) -> Claim:
        """Return what is stored of a key, GRANTED where it is not stored; claims nothing."""

    async def settle(self, kind: str, key: str, outcome: Outcome) -> None:
        """Store what became of a key that was claimed here."""

    async def release(self, kind: str, key: str) -> None:
        """Let a key be claimed again, because it was not used."""


class StoreError(Exception):
    """The store cannot be used at all; the text says where it is and why.

    `says_remedy`: it says what to do as well.
    """

    def __init__(self, problem: str, *, says_remedy: bool = False) -> None:
        super().__init__(problem)
        self.says_remedy: Final = says_remedy
