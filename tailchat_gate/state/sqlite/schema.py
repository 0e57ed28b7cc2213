"""The tables of the database, and the migration of older files to this version."""

import sqlite3
from collections.abc import Sequence
from typing import Final

#: Each step migrates the version before it; `PRAGMA user_version` counts the steps taken.
#: A released step never changes: a new one follows it.
MIGRATIONS: Final[Sequence[tuple[str, ...]]] = (
    (
        # AUTOINCREMENT never uses a number twice, so a process that reads all rows after the last
        # number it has read gets every change.
        """
        CREATE TABLE record (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            sub TEXT NOT NULL,
            until INTEGER,
            body TEXT NOT NULL,
            checksum INTEGER NOT NULL,
            UNIQUE (kind, key)
        )
        """,
        "CREATE INDEX record_sub ON record (sub) WHERE sub != ''",
        """
        CREATE TABLE reservation (
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            reserved_at REAL NOT NULL,
            until INTEGER NOT NULL,
            spent INTEGER NOT NULL,
            sub TEXT NOT NULL,
            outcome BLOB,
            outcome_until REAL NOT NULL,
            PRIMARY KEY (kind, key)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX reservation_order ON reservation (kind, spent, reserved_at)",
    ),
)
VERSION: Final = len(MIGRATIONS)

#: Settings of every connection.
#:
#: synchronous=FULL: acknowledged writes survive a power cut. secure_delete: erased data is
#: overwritten. journal_size_limit: a log that has grown shrinks again.
PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA journal_size_limit = 1048576",
    "PRAGMA trusted_schema = OFF",
)

#: Statements that more than one module needs, each with all columns.
RECORDS_AFTER: Final = (
    "SELECT seq, kind, key, sub, until, body, checksum FROM record WHERE seq > ? ORDER BY seq"
)
RECORDS_OF_KIND: Final = (
    "SELECT seq, kind, key, sub, until, body, checksum FROM record WHERE kind = ? ORDER BY seq"
)
RECORDS_OF_SUB: Final = (
    "SELECT seq, kind, key, sub, until, body, checksum FROM record WHERE sub = ? ORDER BY seq"
)
RECORD_OF_KEY: Final = (
    "SELECT seq, kind, key, sub, until, body, checksum FROM record WHERE kind = ? AND key = ?"
)
#: From both ends, and not by an index, which may be damaged even if the table is not.
EVERY_RECORD: Final = (
    "SELECT seq, kind, key, sub, until, body, checksum FROM record NOT INDEXED ORDER BY seq",
    "SELECT seq, kind, key, sub, until, body, checksum FROM record NOT INDEXED ORDER BY seq DESC",
)
EVERY_RESERVATION: Final = (
    """
    SELECT kind, key, reserved_at, until, spent, sub, outcome, outcome_until FROM reservation
    ORDER BY kind, key
    """,
    """
    SELECT kind, key, reserved_at, until, spent, sub, outcome, outcome_until FROM reservation
    ORDER BY kind DESC, key DESC
    """,
)
PUT_RECORD: Final = (
    "INSERT OR REPLACE INTO record (seq, kind, key, sub, until, body, checksum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
ADD_RESERVATION: Final = (
    "INSERT INTO reservation (kind, key, reserved_at, until, spent, sub, outcome, outcome_until) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)

#: A reservation as it is stored.
ReservationRow = tuple[object, ...]


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of a database, 0 for an empty one."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Migrate a database of this version or an older one to this one, in one transaction."""
    if version_of(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have migrated it while this one waited.
        for step in range(version_of(connection), VERSION):
            for statement in MIGRATIONS[step]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {step + 1}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
