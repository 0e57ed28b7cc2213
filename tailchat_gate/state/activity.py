"""Stores recent activity: the last refusals, and when each machine token was last used."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final

from tailchat_gate.observe.audit import MAX_REFUSALS, Audit, Person, Refusal
from tailchat_gate.state.store import LAST_SECOND, Changes, Kind, Record, is_second
from tailchat_gate.syntax import COMPACT

REFUSAL: Final = "refusal"
#: Seconds after which a refusal, which names a person, is deleted.
REFUSAL_RETENTION: Final = 30 * 86_400
#: The longest path and name that are stored, in characters.
_LONGEST_PATH: Final = 1024
_LONGEST_NAME: Final = 256

USE: Final = "token-use"
#: Seconds between two writes for a token in use.
_USE_INTERVAL: Final = 60.0
#: Seconds after which a token's last use is forgotten: the token was probably removed.
_USE_RETENTION: Final = 400 * 86_400
_MOST_TOKENS: Final = 1024


def _latest_refusals(records: Sequence[Record]) -> Sequence[Record]:
    """Return the latest refusals, as many as the audit log remembers."""
    return records[-MAX_REFUSALS:]


class StoredRefusals:
    """Stores the refusals of the audit log.

    If two processes note the same refusal within a few seconds, it may be counted once.
    """

    kind: Final = Kind(REFUSAL, 2 * MAX_REFUSALS, _latest_refusals)

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def take(self, changes: Changes) -> None:
        """Add what was read from the store."""
        for record in changes.records:
            refusal = _read_refusal(record) if record.intact else None
            if refusal is not None:
                self._audit.restore(refusal)

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return every refusal."""
        del lost
        return [_refusal_record(refusal) for refusal in reversed(self._audit.refusals)]

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return the refusals that have changed."""
        del last
        return [_refusal_record(refusal) for refusal in self._audit.take_changed()]

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget a person's refusals."""
        del in_force
        self._audit.forget(sub)


def _refusal_record(refusal: Refusal) -> Record:
    person = refusal.person
    body = {
        **asdict(refusal),
        "person": [person.sub, person.nickname[:_LONGEST_NAME], person.discriminator],
        "path": refusal.path[:_LONGEST_PATH],
    }
    del body["logged"]
    key = f"{person.sub} {refusal.route} {refusal.reason}"
    until = int(refusal.last) + REFUSAL_RETENTION
    return Record(REFUSAL, key, json.dumps(body, separators=COMPACT), person.sub, until)


def _read_refusal(record: Record) -> Refusal | None:
    try:
        fields = json.loads(record.body)
        fields["person"] = Person(*fields["person"])
        refusal = Refusal(**fields)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return refusal if _is_valid(refusal) else None


def _is_valid(refusal: Refusal) -> bool:
    """Whether every field has the form that the gate writes."""
    person = refusal.person
    texts = (person.sub, person.nickname, person.discriminator, refusal.route, refusal.host)
    return (
        all(isinstance(text, str) for text in (*texts, refusal.path, refusal.reason))
        and all(map(_is_moment, (refusal.first, refusal.last)))
        and type(refusal.count) is int
    )


def _is_moment(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= LAST_SECOND


class TokenUse:
    """The Unix second of each token's last use, by its name; requests write to `last`."""

    kind: Final = Kind(USE, 2 * _MOST_TOKENS, lambda records: records[-_MOST_TOKENS:])

    def __init__(self) -> None:
        self.last: Final[dict[str, float]] = {}
        self._saved: dict[str, float] = {}

    def take(self, changes: Changes) -> None:
        """Apply the uses that are later than those known."""
        for record in changes.records:
            at = _read_use(record) if record.intact else None
            if at is not None:
                self._saved[record.key] = at
                self.last[record.key] = max(at, self.last.get(record.key, at))

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return every use."""
        del lost
        return [_use_record(name, at) for name, at in self.last.items()]

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return the uses that are not written yet; at the end all of them."""
        least = 0.0 if last else _USE_INTERVAL
        changed = {
            name: at for name, at in self.last.items() if at - self._saved.get(name, 0.0) > least
        }
        self._saved.update(changed)
        return [_use_record(name, at) for name, at in changed.items()]

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Do nothing: a token belongs to no person."""


def _use_record(name: str, at: float) -> Record:
    return Record(USE, name, json.dumps(int(at)), "", int(at) + _USE_RETENTION)


def _read_use(record: Record) -> float | None:
    try:
        at = json.loads(record.body)
    except (ValueError, RecursionError):
        return None
    return float(at) if is_second(at) else None
