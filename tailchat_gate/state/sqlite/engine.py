"""All database work of one process, run in its own thread: open, read, write, repair."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

from tailchat_gate.state.bookkeeping import FaultKind, StoreFault
from tailchat_gate.state.sqlite.database import (
    BUSY_SECONDS,
    Database,
    NewerError,
    Read,
    ReplacedError,
    is_corrupt,
)
from tailchat_gate.state.sqlite.files import Files
from tailchat_gate.state.sqlite.recovery import (
    CopyError,
    Salvage,
    alone,
    make_copy,
    problem_of,
    read_after,
    read_only,
    rebuild,
    salvage,
)
from tailchat_gate.state.sqlite.reservations import Reservations
from tailchat_gate.state.store import Kind, Record, StoreError

_T = TypeVar("_T")


class StoredState(NamedTuple):
    """The result of opening a database.

    `doubtful`: records may be missing. `salvaged` is set if the database must be rebuilt.
    `faults` are the lasting ones.
    """

    records: Sequence[Record]
    doubtful: bool = False
    salvaged: Salvage | None = None
    faults: Mapping[FaultKind, str] = {}


class Engine:
    """The database of one process. Every call may block; raises StoreFault."""

    def __init__(
        self,
        files: Files,
        clock: Callable[[], float],
        kinds: Mapping[str, Kind],
        *,
        busy: float = BUSY_SECONDS,
    ) -> None:
        self.files: Final = files
        self._database = Database(files, clock, kinds, busy=busy)
        self._reservations = Reservations(self._database, clock)
        self._is_open = False

    @property
    def is_open(self) -> bool:
        """Whether the database can be read and, as far as is known, written."""
        return self._is_open

    def open(self, *, create: bool = True) -> StoredState:
        """Read everything. Raises StoreError if nothing can be read.

        Without `create` a missing database counts as an empty one.
        """
        self.close()
        self.files.check()
        missing = not self.files.exists()
        if missing and self.files.copy.exists():
            return self._salvaged("the database is missing, but its copy exists")
        if missing and not create:
            return StoredState(())
        no_room = self.files.prepare()
        if no_room:
            return StoredState((), faults={FaultKind.UNWRITABLE: no_room})
        return self._open()

    def _open(self) -> StoredState:
        try:
            read = self._load()
        except NewerError as newer:
            return self._unwritable(FaultKind.NEWER, str(newer))
        except sqlite3.Error as error:
            self.close()
            if is_corrupt(error):
                return self._salvaged(str(error))
            return self._unwritable(FaultKind.UNWRITABLE, str(error))
        return StoredState([record for _, record in read.rows])

    def reopen(self) -> StoredState | None:
        """Open the file that replaced the database; None if it is not usable."""
        if not self.files.exists():
            return None
        last = self._database.last_seq
        loaded = self.open()
        if loaded.salvaged is None:
            return loaded
        self._database.last_seq = last
        return None

    def open_to_write(self) -> None:
        """Open a database that was not writable before, and may lack what this process knows."""
        last = self._database.last_seq
        try:
            self.files.check()
        except StoreError as error:
            raise StoreFault(FaultKind.UNREADABLE, str(error)) from None
        if not self.files.exists():
            raise StoreFault(FaultKind.REPLACED, "the database is missing")
        with self._faults(FaultKind.UNWRITABLE):
            self._database.open()
        self._is_open = True
        # The next look reads what other processes have changed since.
        self._database.rewind(last)

    def read_aside(self) -> list[Record]:
        """Read the changes of other processes in a database that this process cannot write."""
        rows = read_after(self.files, self._database.last_seq)
        self._database.last_seq = max((seq for seq, _ in rows), default=self._database.last_seq)
        return [record for _, record in rows]

    def close(self) -> None:
        """Close the database."""
        self._is_open = False
        self._database.close()

    def look(self) -> Read | None:
        """Read what other processes changed, None if nothing."""
        with self._faults(FaultKind.UNREADABLE):
            return self._database.read_new()

    def reread(self) -> None:
        """Let the next look read everything."""
        self._database.rewind(0)

    def write(self, records: Iterable[Record]) -> None:
        """Write records, durably."""
        with self._faults(FaultKind.UNWRITABLE):
            self._database.write(list(records))

    def single_use(self, action: Callable[[Reservations], _T]) -> _T:
        """Run an action on the single-use keys."""
        with self._faults(FaultKind.UNWRITABLE):
            return action(self._reservations)

    def sweep(self) -> bool:
        """Delete what expired long ago; return whether there was any."""
        with self._faults(FaultKind.UNWRITABLE):
            return self._database.sweep()

    def copy(self, *, timeout: float = 0) -> bool:
        """Put an intact copy beside the database, unless another process is doing so.

        Returns whether this process did; it waits `timeout` seconds for another one. Raises
        StoreFault: UNCOPIED if the copy cannot be written, DAMAGED if the database is damaged.
        """
        try:
            with alone(self.files, timeout=timeout) as mine:
                if mine:
                    make_copy(self.files)
                return mine
        except CopyError as error:
            raise StoreFault(FaultKind.DAMAGED, str(error)) from None
        except OSError as error:
            raise StoreFault(FaultKind.UNCOPIED, str(error.strerror or error)) from None
        except sqlite3.Error as error:
            fault = FaultKind.DAMAGED if is_corrupt(error) else FaultKind.UNCOPIED
            raise StoreFault(fault, str(error)) from None

    def erase(self, keys: Iterable[tuple[str, str]], sub: str, notice: Record) -> None:
        """Delete records and all outcomes about a person, also from the copy.

        `notice` is a record that informs the running processes.
        """
        with self._faults(FaultKind.UNWRITABLE):
            self._database.erase(list(keys), sub)
        if not self.copy(timeout=BUSY_SECONDS):
            # What the other process began to copy may have what was erased.
            problem = "another process is copying the database"
            raise StoreFault(FaultKind.UNCOPIED, problem, may_pass=True)
        self.files.damaged.unlink(missing_ok=True)
        self.write((notice,))

    def about(self, sub: str) -> tuple[list[Record], int]:
        """Return the records about a person, and how many stored outcomes are about them."""
        with self._faults(FaultKind.UNREADABLE):
            return self._database.about(sub)

    def salvage(self) -> Salvage:
        """Close a damaged or lost database, and read what is still readable.

        Only changes after the last one that this process has read are returned: it has the others.
        """
        last = self._database.last_seq
        self.close()
        salvaged = salvage(self.files)
        newer = [(seq, record) for seq, record in salvaged.rows if seq > last]
        return salvaged._replace(rows=newer)

    def rebuild(self, salvaged: Salvage, known: Iterable[Record], followed: set[str]) -> Read:
        """Put a new database in place of a damaged or lost one, and read it.

        If another process has done so already, its database is read; it may have more or fewer
        records than this process knows.
        """
        with self._faults(FaultKind.UNWRITABLE), alone(self.files) as mine:
            if (mended := self._load_mended()) is not None:
                return mended
            if not mine:
                raise StoreFault(FaultKind.UNWRITABLE, "another process is replacing the database")
            # New changes must not get numbers that processes have already read.
            floor = max(salvaged.last_seq, self._database.last_seq)
            rebuild(self.files, salvaged, list(known), followed, floor)
            return self._load()

    def _load(self) -> Read:
        """Open the database and read it. Raises sqlite3.DatabaseError for a damaged one."""
        self._database.open()
        if problem := problem_of(self._database.connection):
            raise _corrupt(problem)
        read = self._database.read_all()
        self._is_open = True
        return read

    def _load_mended(self) -> Read | None:
        if not self.files.exists():
            return None
        last = self._database.last_seq
        try:
            return self._load()
        except (sqlite3.Error, NewerError):
            self.close()
            self._database.last_seq = last
            return None

    def _salvaged(self, problem: str) -> StoredState:
        self.close()
        salvaged = salvage(self.files)
        return StoredState(
            salvaged.records, doubtful=True, salvaged=salvaged, faults={FaultKind.DAMAGED: problem}
        )

    def _unwritable(self, fault: FaultKind, problem: str) -> StoredState:
        self.close()
        read = read_only(self.files)
        faults = {fault: problem}
        if read is not None:
            self._database.last_seq = read.last_seq
            return StoredState(read.records, faults=faults)
        read = salvage(self.files) if fault is not FaultKind.NEWER else Salvage([], [])
        if not read.rows:
            raise StoreError(f"{self.files.database}: {problem}")
        return StoredState(read.records, doubtful=True, faults=faults)

    @contextmanager
    def _faults(self, usual: FaultKind) -> Iterator[None]:
        """Turn errors into StoreFault; `usual` is the fault for an ordinary error of SQLite."""
        try:
            yield
        except ReplacedError as error:
            raise StoreFault(FaultKind.REPLACED, str(error)) from None
        except NewerError as error:
            self.close()
            raise StoreFault(FaultKind.NEWER, str(error)) from None
        except sqlite3.Error as error:
            fault = FaultKind.DAMAGED if is_corrupt(error) else usual
            raise StoreFault(fault, str(error)) from None
        except OSError as error:
            raise StoreFault(usual, str(error.strerror or error)) from None


def _corrupt(problem: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(problem)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
