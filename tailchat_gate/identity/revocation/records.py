"""Locks and ended sessions as records of the store: one JSON object each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Final

from tailchat_gate.config.values.identifier import SUB, TOKEN, is_sub, is_token_name
from tailchat_gate.identity.revocation.state import (
    ALL,
    EndedSession,
    Entry,
    Lock,
    RevocationState,
    SignedOut,
    Unlock,
)
from tailchat_gate.state.store import Kind, Record, is_second
from tailchat_gate.syntax import COMPACT, SESSION_ID, UNFIT_FOR_A_LINE

#: The kind of these records.
REVOCATION: Final = "revocation"
#: Longest message of a lock, in characters.
MAX_MESSAGE: Final = 300
#: The store does not compact fewer records than this.
ROOM: Final = 1024

_KINDS: Final[Mapping[str, type[Entry]]] = MappingProxyType(
    {"lock": Lock, "unlock": Unlock, "ended": EndedSession, "signed-out": SignedOut}
)
_NAMES: Final = MappingProxyType({kind: name for name, kind in _KINDS.items()})


def to_record(entry: Entry) -> Record:
    """Return an entry as a record: a lock and its unlock share a key, and the later one counts."""
    body = json.dumps({"kind": _NAMES[type(entry)], **asdict(entry)}, separators=COMPACT)
    until: int | None
    match entry:
        case EndedSession():
            key, until, sub = f"ended {entry.sub} {entry.sid}", entry.until, entry.sub
        case SignedOut():
            key, until, sub = f"signed-out {entry.target}", entry.until, _sub(entry.target)
        case Lock():
            key, until, sub = f"lock {entry.target}", entry.until, _sub(entry.target)
        case Unlock():
            # Once every process has read it, a missing lock says the same.
            key, until, sub = f"lock {entry.target}", entry.at, _sub(entry.target)
    return Record(REVOCATION, key, body, sub, until)


def read_record(record: Record) -> Entry | None:
    """Return the entry of a record, None if it has none.

    A damaged record that is still readable counts if it locks someone out, not if it lets someone
    in: a new record can correct only the first mistake.
    """
    entry = _entry(record.body)
    return None if isinstance(entry, Unlock) and not record.intact else entry


def revocations(clock: Callable[[], float]) -> Kind:
    """Return the kind of records for locks and ended sessions; `clock` gives Unix seconds."""

    def compact(records: Sequence[Record]) -> Sequence[Record]:
        revocation = RevocationState(clock)
        read = [(record, read_record(record)) for record in records]
        entries = [entry for _, entry in read if entry is not None]
        # Keep records that only a newer version of the gate understands.
        unknown = [record for record, entry in read if entry is None and record.intact]
        for entry in entries:
            revocation.apply(entry)
        # An unlock that some process may not have read yet stays until it expires.
        remaining = revocation.entries()
        locked = {entry.target for entry in remaining if isinstance(entry, Lock)}
        lifted = [
            entry for entry in entries if isinstance(entry, Unlock) and entry.target not in locked
        ]
        return [*unknown, *(to_record(entry) for entry in (*lifted, *remaining))]

    return Kind(REVOCATION, ROOM, compact, _merge)


def _merge(old: Record, new: Record) -> Record:
    """Merge two records of one key; of two sign-outs, keep the later times of both."""
    before, after = read_record(old), read_record(new)
    if not (isinstance(before, SignedOut) and isinstance(after, SignedOut)):
        return new
    at, until = max(before.at, after.at), max(before.until, after.until)
    return to_record(SignedOut(after.target, at, until))


def _sub(target: str) -> str:
    return target.removeprefix(SUB) if target.startswith(SUB) else ""


def is_target(text: str) -> bool:
    """Whether a text is the target of a lock: `sub:ID`, `token:NAME` or `all`."""
    if text.startswith(TOKEN):
        return is_token_name(text.removeprefix(TOKEN))
    return is_person(text)


def is_person(text: str) -> bool:
    """Whether a text names persons: `sub:ID` or `all`."""
    return text == ALL or (text.startswith(SUB) and is_sub(text.removeprefix(SUB)))


def is_message(text: str) -> bool:
    """Whether a text can be the message of a lock: one line that is not too long."""
    return len(text) <= MAX_MESSAGE and UNFIT_FOR_A_LINE.search(text) is None


def _is_text(check: Callable[[str], object]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and bool(check(value))


_CHECKS: Final[Mapping[str, Callable[[object], bool]]] = MappingProxyType(
    {
        "target": _is_text(is_target),
        "message": _is_text(is_message),
        "sid": _is_text(SESSION_ID.fullmatch),
        "sub": _is_text(is_sub),
        "at": is_second,
        "until": is_second,
        "revoked": lambda value: isinstance(value, bool),
    }
)


def _entry(body: str) -> Entry | None:
    """Return the entry in the JSON of a record, None for any other shape."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    kind = _KINDS.get(str(fields.pop("kind", ""))) if isinstance(fields, dict) else None
    if kind is None or fields.keys() != set(kind.__match_args__):
        return None
    open_ended = kind is Lock and fields["until"] is None
    checked = fields.keys() - {"until"} if open_ended else fields.keys()
    if not all(_CHECKS[name](fields[name]) for name in checked):
        return None
    entry = kind(**fields)
    return None if isinstance(entry, SignedOut) and not is_person(entry.target) else entry
