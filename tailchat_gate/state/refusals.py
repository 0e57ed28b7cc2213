"""Stores the last refusals as records, so that they survive a restart."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final

from tailchat_gate.observe.audit import MAX_REFUSALS, Audit, Person, Refusal
from tailchat_gate.state.store import Changes, Kind, Record
from tailchat_gate.syntax import COMPACT

REFUSAL: Final = "refusal"
#: Seconds after which a refusal is deleted: it names a person, and is no longer needed.
RETENTION: Final = 30 * 86_400
#: Characters of a path and of a name that are stored.
_LONGEST_PATH: Final = 1024
_LONGEST_NAME: Final = 256


def _compact(records: Sequence[Record]) -> Sequence[Record]:
    """Return the latest refusals, as many as are shown."""
    return records[-MAX_REFUSALS:]


class StoredRefusals:
    """Stores the refusals of the audit log.

    Two processes that refuse the same within a few seconds may count it as one.
    """

    kind: Final = Kind(REFUSAL, 2 * MAX_REFUSALS, _compact)

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def take(self, changes: Changes) -> None:
        """Add what was read from the store."""
        for record in changes.records:
            refusal = _read(record) if record.intact else None
            if refusal is not None:
                self._audit.restore(refusal)

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return every refusal."""
        del lost
        return [_record(refusal) for refusal in reversed(self._audit.refusals)]

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return the refusals that have changed."""
        del last
        return [_record(refusal) for refusal in self._audit.take_changed()]

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget a person's refusals."""
        del in_force
        self._audit.forget(sub)


def _record(refusal: Refusal) -> Record:
    person = refusal.person
    body = {
        **asdict(refusal),
        "person": [person.sub, person.nickname[:_LONGEST_NAME], person.discriminator],
        "path": refusal.path[:_LONGEST_PATH],
    }
    del body["told"]
    key = f"{person.sub} {refusal.route} {refusal.reason}"
    until = int(refusal.last) + RETENTION
    return Record(REFUSAL, key, json.dumps(body, separators=COMPACT), person.sub, until)


def _read(record: Record) -> Refusal | None:
    try:
        fields = json.loads(record.body)
        fields["person"] = Person(*fields["person"])
        return Refusal(**fields)
    except (ValueError, TypeError, LookupError):
        return None
