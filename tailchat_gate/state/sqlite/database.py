"""The database in one SQLite file, used in one thread only; every call may block."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from tailchat_gate.state.rows import Row, from_row, to_row
from tailchat_gate.state.sqlite.files import FileIdentity, Files
from tailchat_gate.state.sqlite.schema import (
    PRAGMAS,
    PUT_RECORD,
    RECORD_OF_KEY,
    RECORDS_AFTER,
    RECORDS_OF_KIND,
    RECORDS_OF_SUB,
    VERSION,
    migrate,
    version_of,
)
from tailchat_gate.state.store import ERASURE, EXPIRY_MARGIN, Kind, Record

#: Seconds that a write waits for another process's, which takes milliseconds.
BUSY_SECONDS: Final = 2.0
#: Seconds between two attempts meanwhile. SQLite's own pauses grow to a tenth of a second: where
#: several processes write without a break, one of them can miss every gap.
_TRY_SECONDS: Final = 0.005
#: Pages that one sweep returns to the disk: 2 MiB, a few milliseconds.
_FREED_PAGES: Final = 512
_CORRUPT: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_PRIMARY_CODE: Final = 0xFF


class ReplacedError(Exception):
    """The file was deleted or replaced: the last writes may be lost."""


class NewerError(Exception):
    """The file belongs to a newer version of the gate, and must not be written."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"a newer version of the gate wrote it (schema {version}, this one knows {VERSION})"
        )


class Read(NamedTuple):
    """Rows that were read, the oldest change first; `complete`: these are all rows.

    `lost`: how many rows are damaged beyond reading.
    """

    rows: Sequence[Row]
    complete: bool
    lost: int = 0


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is damaged."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE in _CORRUPT


def connect(name: str, *, busy: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Return a connection to a database by its URI, without implicit transactions."""
    connection = sqlite3.connect(
        name, uri=True, isolation_level=None, timeout=busy, check_same_thread=False
    )
    # Not strict, so that one damaged text does not end the reading of all others.
    connection.text_factory = _decoded
    return connection


def uri(path: object, query: str = "") -> str:
    """Return the URI of a database file."""
    name = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{name}?{query}"


def quick_check(connection: sqlite3.Connection) -> str:
    """Return the fault of a database's structure, "" if there is none."""
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()
    return "" if answer == ("ok",) else str(answer[0] if answer else "no answer")


class Database:
    """One connection to the file; `kinds` by name say how records are merged.

    Raises sqlite3.Error for everything that SQLite refuses, ReplacedError and NewerError.
    """

    def __init__(
        self,
        files: Files,
        clock: Callable[[], float],
        kinds: Mapping[str, Kind],
        *,
        busy: float = BUSY_SECONDS,
    ) -> None:
        self._files = files
        self._clock = clock
        self._kinds = kinds
        self._busy = busy
        self._connection: sqlite3.Connection | None = None
        self._identity = FileIdentity(None, None)
        self._data_version = -1
        #: The number of the last change that was read.
        self.last_seq = 0
        #: How many rows of a kind were left after its last compaction.
        self._compacted: dict[str, int] = {}
        #: How many rows of a kind were written since the last count; counting takes time.
        self._uncounted: Counter[str] = Counter()

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        if self._connection is None:
            raise sqlite3.OperationalError("the database is not open")
        return self._connection

    def open(self) -> None:
        """Open the file, which must exist, and migrate it to this version."""
        self.close()
        connection = connect(uri(self._files.database, "mode=rw"), busy=self._busy)
        try:
            for pragma in PRAGMAS:
                connection.execute(pragma)
            _check_version(connection)
            if version_of(connection) == 0:
                # Must precede the first write. Free pages are returned in small steps: VACUUM
                # would write the whole database a second time, and lock out every process
                # meanwhile.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            migrate(connection)
            # A write that changes nothing: it creates the log, whose identity can then be
            # compared, and shows at once whether the database can be written.
            self._wait_to_run(connection, "BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity = self._files.identity()
        self._data_version = -1

    def close(self) -> None:
        """Close the file; the last process to do so moves the log into it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def check_identity(self) -> None:
        """Raise ReplacedError if the paths no longer lead to the open files."""
        if self._files.identity() != self._identity:
            raise ReplacedError("the file was deleted or replaced")

    def read_all(self) -> Read:
        """Read every record."""
        self.last_seq = 0
        read = self._read_new()
        return read._replace(complete=True)

    def rewind(self, seq: int) -> None:
        """Let the next `read_new` read every change after a number."""
        self.last_seq, self._data_version = seq, -1

    def read_new(self) -> Read | None:
        """Read what other processes changed since the last time, None if nothing."""
        self.check_identity()
        if self._data_version == self._version():
            return None
        last = self.connection.execute("SELECT max(seq) FROM record").fetchone()[0] or 0
        if last < self.last_seq and self._highest() < self.last_seq:
            # The content was replaced in place, for example by a backup.
            return self.read_all()
        return self._read_new()

    def _read_new(self) -> Read:
        # Read before the rows: a commit in between is then read twice, but never missed.
        self._data_version = self._version()
        rows: list[Row] = []
        lost = 0
        for columns in self.connection.execute(RECORDS_AFTER, (self.last_seq,)):
            self.last_seq = max(self.last_seq, int(columns[0]))
            row = from_row(columns)
            lost += row is None
            if row is not None:
                rows.append(row)
        return Read(rows, complete=False, lost=lost)

    def _version(self) -> int:
        version: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def _highest(self) -> int:
        row = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'")
        return int((row.fetchone() or (0,))[0])

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Enclose writes in one transaction, which is durable afterwards, and in the right file."""
        connection = self.connection
        self._wait_to_run(connection, "BEGIN IMMEDIATE")
        try:
            _check_version(connection)
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has ended the transaction itself after some errors.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        # SQLite continues to write, without an error, into a file that was deleted.
        self.check_identity()

    def _wait_to_run(self, connection: sqlite3.Connection, script: str) -> None:
        """Run what takes the lock of writers, waiting briefly for other processes."""
        end = time.monotonic() + self._busy
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while not _ran(connection, script, last=time.monotonic() >= end):
                time.sleep(_TRY_SECONDS)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self._busy * 1000)}")

    def write(self, records: Iterable[Record]) -> None:
        """Write records, each merged with the stored record of its key."""
        with self.transaction() as connection:
            for record in records:
                if put_record(connection, record, self._kinds):
                    self._uncounted[record.kind] += 1
            for name, kind in self._kinds.items():
                if self._uncounted[name] > kind.room // 4:
                    self._uncounted[name] = 0
                    self._compact(connection, kind)

    def _compact(self, connection: sqlite3.Connection, kind: Kind) -> None:
        """Replace the records of a kind by fewer with the same meaning, if that saves enough."""
        count = connection.execute(
            "SELECT count(*) FROM record WHERE kind = ?", (kind.name,)
        ).fetchone()[0]
        if count <= max(kind.room, 2 * self._compacted.get(kind.name, 0)):
            return
        rows = [from_row(columns) for columns in connection.execute(RECORDS_OF_KIND, (kind.name,))]
        records = [row[1] for row in rows if row is not None]
        left = {record.key: record for record in kind.compact(records)}
        there = {record.key: record for record in records}
        connection.executemany(
            "DELETE FROM record WHERE kind = ? AND key = ?",
            [(kind.name, key) for key in there if key not in left],
        )
        for key, record in left.items():
            if there.get(key) != record:
                insert_record(connection, record)
        self._compacted[kind.name] = len(left)

    def sweep(self) -> bool:
        """Delete what expired long ago and free its space; return whether there was any."""
        now = int(self._clock())
        before = self.connection.total_changes
        with self.transaction() as connection:
            connection.execute("DELETE FROM record WHERE until <= ?", (now - EXPIRY_MARGIN,))
            connection.execute("DELETE FROM record WHERE kind = ? AND until <= ?", (ERASURE, now))
            connection.execute("DELETE FROM reservation WHERE until <= ?", (now - EXPIRY_MARGIN,))
            connection.execute(
                "UPDATE reservation SET outcome = NULL, sub = '' "
                "WHERE outcome IS NOT NULL AND outcome_until <= ?",
                (now,),
            )
        # As a script, because execute() runs only its first step, which frees one page.
        self._wait_to_run(self.connection, f"PRAGMA incremental_vacuum({_FREED_PAGES})")
        swept = self.connection.total_changes > before
        # The log still has the old pages with the deleted data.
        mode = "TRUNCATE" if swept else "PASSIVE"
        self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        return swept

    def erase(self, keys: Iterable[tuple[str, str]], sub: str) -> None:
        """Delete records and all outcomes about a person, also from the disk."""
        with self.transaction() as connection:
            connection.executemany("DELETE FROM record WHERE kind = ? AND key = ?", keys)
            connection.execute(
                "UPDATE reservation SET outcome = NULL, sub = '' WHERE sub = ?", (sub,)
            )
        self.empty_log()

    def empty_log(self) -> None:
        """Move the log into the database and empty it, waiting briefly for other processes."""
        end = time.monotonic() + self._busy
        while True:
            busy = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if not busy or time.monotonic() >= end:
                return
            time.sleep(0.01)

    def about(self, sub: str) -> tuple[list[Record], int]:
        """Return the records about a person, and how many stored outcomes are about them."""
        rows = [from_row(columns) for columns in self.connection.execute(RECORDS_OF_SUB, (sub,))]
        count = "SELECT count(*) FROM reservation WHERE sub = ? AND outcome IS NOT NULL"
        outcomes = self.connection.execute(count, (sub,)).fetchone()[0]
        return [row[1] for row in rows if row is not None], outcomes


def _ran(connection: sqlite3.Connection, script: str, *, last: bool) -> bool:
    """Run a script unless another process writes, and return whether it ran.

    Raises sqlite3.Error if this was the `last` attempt.
    """
    try:
        connection.executescript(script)
    except sqlite3.OperationalError as error:
        if last or error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _check_version(connection: sqlite3.Connection) -> None:
    """Raise NewerError for a database that this version must not write."""
    if (version := version_of(connection)) > VERSION:
        raise NewerError(version)


def put_record(connection: sqlite3.Connection, record: Record, kinds: Mapping[str, Kind]) -> bool:
    """Write one record; return whether that changed anything."""
    columns = connection.execute(RECORD_OF_KEY, (record.kind, record.key)).fetchone()
    old = from_row(columns) if columns is not None else None
    if old is not None and old[1].intact:
        kind = kinds.get(record.kind)
        if kind is not None:
            record = kind.merge(old[1], record)
        if old[1] == record:
            return False
    insert_record(connection, record)
    return True


def insert_record(connection: sqlite3.Connection, record: Record, seq: int | None = None) -> None:
    """Replace the stored record of a key; `seq` is the number of the change, None for the next."""
    connection.execute(PUT_RECORD, to_row(seq, record))


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
