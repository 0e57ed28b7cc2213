"""When each machine token was last used, as records of the store."""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from tailchat_gate.state.store import Changes, Kind, Record

USE: Final = "token-use"
#: Seconds between two writes for a token in use.
_INTERVAL: Final = 60.0
#: Seconds after which a token's last use is forgotten; for tokens that were removed long ago.
_RETENTION: Final = 400 * 86_400
_ROOM: Final = 1024


def _compact(records: Sequence[Record]) -> Sequence[Record]:
    return records[-_ROOM:]


class TokenUse:
    """The Unix second of each token's last use, by its name; requests write to `last`."""

    kind: Final = Kind(USE, 2 * _ROOM, _compact)

    def __init__(self) -> None:
        self.last: Final[dict[str, float]] = {}
        self._saved: dict[str, float] = {}

    def take(self, changes: Changes) -> None:
        """Apply what is later than what is known."""
        for record in changes.records:
            at = _read(record) if record.intact else None
            if at is not None:
                self._saved[record.key] = at
                self.last[record.key] = max(at, self.last.get(record.key, at))

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return every use."""
        del lost
        return [_record(name, at) for name, at in self.last.items()]

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return the uses that are not written yet; at the end all of them."""
        least = 0.0 if last else _INTERVAL
        found = {
            name: at for name, at in self.last.items() if at - self._saved.get(name, 0.0) > least
        }
        self._saved.update(found)
        return [_record(name, at) for name, at in found.items()]

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Do nothing: a token belongs to no person."""


def _record(name: str, at: float) -> Record:
    return Record(USE, name, json.dumps(int(at)), "", int(at) + _RETENTION)


def _read(record: Record) -> float | None:
    try:
        at = json.loads(record.body)
    except ValueError:
        return None
    return float(at) if isinstance(at, int) else None
