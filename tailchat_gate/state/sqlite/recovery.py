"""Recovers a damaged database: reads what is readable, and writes it to a new file."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from tailchat_gate.state.rows import Row, from_row
from tailchat_gate.state.sqlite.database import (
    BUSY_SECONDS,
    connect,
    insert_record,
    is_corrupt,
    put_record,
    quick_check,
    uri,
)
from tailchat_gate.state.sqlite.files import Files
from tailchat_gate.state.sqlite.schema import (
    ADD_RESERVATION,
    EVERY_RECORD,
    EVERY_RESERVATION,
    RECORDS_AFTER,
    ReservationRow,
    migrate,
    version_of,
)
from tailchat_gate.state.store import Record

_PAUSE: Final = 0.01
_INTEGER_TYPES: Final = (int, float)


class Salvage(NamedTuple):
    """The readable records of damaged files, the oldest change first.

    A key may occur twice, from the copy and from the database.
    """

    rows: list[Row]
    reservations: list[ReservationRow]

    @property
    def last_seq(self) -> int:
        """The number of the last change, 0 for none."""
        return self.rows[-1][0] if self.rows else 0

    @property
    def records(self) -> list[Record]:
        """The records, in the order of the rows."""
        return [record for _, record in self.rows]


class CopyError(Exception):
    """The database is damaged, so it was not copied; the text says what is wrong."""


def salvage(files: Files) -> Salvage:
    """Read what is readable of the database and its copy. Raises nothing."""
    rows, reservations = _read_copy(files)
    own_rows, own_reservations = _read_database(files)
    # Of two rows with one number the intact one counts: a damaged one may name another person.
    by_seq = dict((*rows, *own_rows))
    by_seq.update((seq, record) for seq, record in (*rows, *own_rows) if record.intact)
    merged = sorted(by_seq.items(), key=lambda row: row[0])
    by_key = {tuple(row[:2]): row for row in (*reservations, *own_reservations)}
    return Salvage(merged, list(by_key.values()))


def read_only(files: Files) -> Salvage | None:
    """Read a database that cannot be written; None if that is not safe.

    On a full or read-only disk SQLite cannot create its index of the log. It needs none in
    exclusive mode, or if the log is empty.
    """
    attempts = [("mode=rw", False), ("mode=ro", False), ("mode=rw", True)]
    if _is_empty(files.log):
        attempts.append(("immutable=1", False))
    for query, exclusive in attempts:
        with suppress(sqlite3.Error), closing(connect(uri(files.database, query))) as connection:
            if exclusive:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            if version_of(connection) == 0:
                return Salvage([], [])
            if quick_check(connection):
                return None
            rows = [from_row(columns) for columns in connection.execute(EVERY_RECORD[0])]
            reservations = list(connection.execute(EVERY_RESERVATION[0]))
            return Salvage([row for row in rows if row is not None], reservations)
    return None


def read_after(files: Files, seq: int) -> list[Row]:
    """Return the records that changed after a number, without writing; [] if that fails."""
    with suppress(sqlite3.Error), closing(connect(uri(files.database, "mode=ro"))) as connection:
        rows = (from_row(columns) for columns in connection.execute(RECORDS_AFTER, (seq,)))
        return [row for row in rows if row is not None]
    return []


def rebuild(
    files: Files, salvaged: Salvage, known: Iterable[Record], followed: set[str], floor: int
) -> None:
    """Put a new database in place of the damaged one.

    It has the `known` records of the kinds that are `followed`, and the salvaged records of all
    other kinds. The next change gets a number above `floor`. Raises OSError and sqlite3.Error; the
    damaged database is then unchanged.
    """
    files.new.unlink(missing_ok=True)
    files.create(files.new)
    with closing(connect(uri(files.new, "mode=rw"))) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
        connection.execute("BEGIN IMMEDIATE")
        for seq, record in salvaged.rows:
            if record.intact and record.kind not in followed:
                insert_record(connection, record, seq)
        # Continue after every number that any process has read.
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'record'")
        connection.execute("INSERT INTO sqlite_sequence VALUES ('record', ?)", (floor,))
        for record in known:
            put_record(connection, record, {})
        connection.executemany(ADD_RESERVATION, salvaged.reservations)
        connection.execute("COMMIT")
    _sync(files.new)
    with suppress(FileNotFoundError):
        files.database.rename(files.damaged)
    for path in (files.log, files.index):
        path.unlink(missing_ok=True)
    files.new.rename(files.database)
    files.sync()


def make_copy(files: Files) -> None:
    """Put an intact copy beside the database, to recover from when the database is damaged.

    Raises CopyError if the database is damaged already, and keeps the last copy; OSError and
    sqlite3.Error if the copy cannot be written.
    """
    files.new.unlink(missing_ok=True)
    files.create(files.new)
    # A new connection, because it reads the disk and not another connection's cache.
    with (
        closing(connect(uri(files.database, "mode=rw"))) as source,
        closing(connect(uri(files.new, "mode=rw"))) as target,
    ):
        source.backup(target)
        # So that the copy can be opened without a log beside it.
        target.execute("PRAGMA journal_mode = DELETE").fetchone()
        problem = problem_of(target)
    if problem:
        raise CopyError(problem)
    _sync(files.new)
    files.new.rename(files.copy)
    files.sync()


def problem_of(connection: sqlite3.Connection) -> str:
    """Check a database down to each record; return its fault, "" if there is none."""
    try:
        if wrong := quick_check(connection):
            return wrong
        rows = (from_row(columns) for columns in connection.execute(EVERY_RECORD[0]))
        damaged = sum(row is None or not row[1].intact for row in rows)
    except sqlite3.Error as error:
        if not is_corrupt(error):
            raise
        return str(error)
    return f"{damaged} damaged records" if damaged else ""


@contextmanager
def alone(files: Files, *, timeout: float = BUSY_SECONDS) -> Iterator[bool]:
    """Lock out other processes that replace files; yield False if one takes too long."""
    descriptor = os.open(files.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _take(descriptor, time.monotonic() + timeout)
    finally:
        os.close(descriptor)


def _take(descriptor: int, end: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_PAUSE)
        else:
            return True


def _read_copy(files: Files) -> tuple[list[Row], list[ReservationRow]]:
    if not files.copy.exists():
        return [], []
    return _read_from(uri(files.copy, "immutable=1"))


def _read_database(files: Files) -> tuple[list[Row], list[ReservationRow]]:
    everything: tuple[list[Row], list[ReservationRow]] = ([], [])
    if not files.exists():
        return everything
    # With the log and without it, because either may be damaged.
    for query in ("mode=rw", "immutable=1"):
        rows, reservations = _read_from(uri(files.database, query))
        known = {seq for seq, record in everything[0] if record.intact}
        everything[0].extend(row for row in rows if row[0] not in known)
        everything[1].extend(reservations)
    return everything


def _read_from(name: str) -> tuple[list[Row], list[ReservationRow]]:
    rows: dict[int, Row] = {}
    reservations: dict[tuple[object, ...], ReservationRow] = {}
    # From both ends, because reading stops at the first damaged page.
    for query in EVERY_RECORD:
        with suppress(sqlite3.Error), closing(connect(name)) as connection:
            for columns in connection.execute(query):
                if (row := from_row(columns)) is not None:
                    rows[row[0]] = row
    for query in EVERY_RESERVATION:
        with suppress(sqlite3.Error), closing(connect(name)) as connection:
            for reservation in connection.execute(query):
                if _is_reservation(reservation):
                    reservations[reservation[:2]] = reservation
    return list(rows.values()), list(reservations.values())


def _is_reservation(row: ReservationRow) -> bool:
    kind, key, reserved_at, until, spent, sub, outcome, outcome_until = row
    texts = all(isinstance(value, str) for value in (kind, key, sub))
    numbers = all(
        isinstance(value, _INTEGER_TYPES) for value in (reserved_at, until, spent, outcome_until)
    )
    return texts and numbers and (outcome is None or isinstance(outcome, bytes))


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
