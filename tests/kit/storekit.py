"""Writes and reads the locks in a store, as another process does."""

from collections.abc import Callable, Iterable
from pathlib import Path

from gatekit import Clock

from tailchat_gate.identity.revocation.records import read_record, revocations, to_record
from tailchat_gate.identity.revocation.state import Entry
from tailchat_gate.state.sqlite.database import Database
from tailchat_gate.state.sqlite.files import Files


class StoredEntries:
    """The locks and ended sessions in the store of a directory."""

    def __init__(self, directory: Path, clock: Callable[[], float] | None = None) -> None:
        self._files = Files(directory)
        kind = revocations(clock or Clock())
        self._database = Database(self._files, clock or Clock(), {kind.name: kind})

    def append(self, entries: Iterable[Entry]) -> None:
        """Write entries; the store is made where it is missing."""
        self._files.prepare()
        self._database.open()
        self._database.write([to_record(entry) for entry in entries])
        self._database.close()

    def read(self) -> list[Entry]:
        """Return what is stored, the oldest change first."""
        self._database.open()
        records = [record for _, record in self._database.read_all().rows]
        self._database.close()
        entries = (read_record(record) for record in records if record.kind == "revocation")
        return [entry for entry in entries if entry is not None]
