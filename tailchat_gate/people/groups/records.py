"""The members of Tailchat's groups as records of the store, so that they survive a restart."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from tailchat_gate.config.values.group import MemberSource, read_source
from tailchat_gate.people.groups.memberships import Memberships, SourceMembers, digest_of, pack
from tailchat_gate.state.store import Changes, Kind, Record
from tailchat_gate.syntax import COMPACT

MEMBERS: Final = "tailchat-members"
#: How many members a record has: they take 16 characters each, of at most 16,384.
IN_ONE: Final = 900
#: Seconds for which an answer is stored: twice as long as any can count.
RETENTION: Final = 2 * 86_400
#: The same for the parts of an answer, which are written again once a day if they do not change.
PART_RETENTION: Final = 8 * 86_400
_ROOM: Final = 256
_ID_BYTES: Final = 12
#: What reading a record that no gate has written may raise; a binascii.Error is a ValueError.
_DAMAGED: Final = (ValueError, TypeError, LookupError, OverflowError, RecursionError)


def to_records(source: MemberSource, known: SourceMembers, *, whole: bool = True) -> list[Record]:
    """Return the records of a source, the head last; without `whole` only the head.

    Each part has the digest of its answer, so that parts of two answers are never combined.
    """
    at, digest = int(known.at), known.digest
    parts = -(-len(known.people) // IN_ONE)
    head = {"at": at, "gone": known.gone, "digest": digest, "parts": parts}
    records = [Record(MEMBERS, source.entry, _json(head), "", at + RETENTION)]
    if whole:
        packed, size = pack(known.people), IN_ONE * _ID_BYTES
        for number in range(parts):
            part = base64.b64encode(packed[number * size : (number + 1) * size]).decode()
            body = _json({"digest": digest, "members": part})
            key = f"{source.entry} {number}"
            records.insert(number, Record(MEMBERS, key, body, "", at + PART_RETENTION))
    return records


def read_records(records: Iterable[Record]) -> Iterator[tuple[MemberSource, SourceMembers]]:
    """Yield the members of each source whose records are complete and intact."""
    bodies = {record.key: record.body for record in records if record.intact}
    for key in bodies:
        source = read_source(key)
        known = None if source is None else _read(key, bodies)
        if source is not None and known is not None:
            yield source, known


def _read(key: str, bodies: dict[str, str]) -> SourceMembers | None:
    try:
        head = json.loads(bodies[key])
        parts = [json.loads(bodies[f"{key} {number}"]) for number in range(head["parts"])]
        if any(part["digest"] != head["digest"] for part in parts):
            return None
        packed = b"".join(base64.b64decode(part["members"], validate=True) for part in parts)
        if digest_of(packed) != head["digest"]:
            return None
        people = frozenset(
            packed[start : start + _ID_BYTES].hex() for start in range(0, len(packed), _ID_BYTES)
        )
        return SourceMembers(people, float(head["at"]), bool(head["gone"]), head["digest"])
    except _DAMAGED:
        return None


def _compact(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records without parts of answers that were replaced."""
    heads: dict[str, tuple[object, object]] = {}
    for record in records:
        if read_source(record.key) is not None:
            try:
                head = json.loads(record.body)
                heads[record.key] = head["digest"], head["parts"]
            except _DAMAGED:
                continue
    return [record for record in records if _belongs(record, heads)]


def _belongs(record: Record, heads: dict[str, tuple[object, object]]) -> bool:
    key, space, number = record.key.partition(" ")
    if key not in heads or not space:
        return key in heads
    digest, parts = heads[key]
    return (
        number.isdecimal()
        and isinstance(parts, int)
        and int(number) < parts
        and f'"digest":"{digest}"' in record.body
    )


def _json(members: dict[str, object]) -> str:
    return json.dumps(members, separators=COMPACT)


class Erasure(NamedTuple):
    """The changes that remove a person from stored members: records to write, keys to delete.

    `entries` are the groups and roles that the person was stored in.
    """

    written: Sequence[Record]
    deleted: Sequence[str]
    entries: Sequence[str]


def without(records: Sequence[Record], sub: str) -> Erasure:
    """Return the changes that remove a person from the stored members; the others stay."""
    written: list[Record] = []
    before: set[str] = set()
    entries: list[str] = []
    for source, known in read_records(records):
        if sub in known.people:
            entries.append(source.entry)
            before.update(record.key for record in to_records(source, known))
            left = known.people - {sub}
            written += to_records(source, SourceMembers.of(left, known.at, gone=known.gone))
    kept_keys = {record.key for record in written}
    # Parts of incomplete answers are never read, but they contain the person.
    torn = [record.key for record in records if record.key not in before and _has(record, sub)]
    if torn:
        entries.append("an incomplete answer about groups")
    return Erasure(written, [*(before - kept_keys), *torn], entries)


def _has(record: Record, sub: str) -> bool:
    try:
        packed = base64.b64decode(json.loads(record.body)["members"])
        return bytes.fromhex(sub) in packed
    except _DAMAGED:
        return False


class StoredMembers:
    """Reads stored members into `memberships`; GroupKeeper writes them.

    `forgot` is called after a person was erased.
    """

    kind: Final = Kind(MEMBERS, _ROOM, _compact)

    def __init__(self, memberships: Memberships, forgot: Callable[[], None] = lambda: None) -> None:
        self._memberships = memberships
        self._forgot = forgot

    def take(self, changes: Changes) -> None:
        """Restore the members of a complete read; changes are not needed, as Tailchat is asked."""
        if changes.complete:
            for source, known in read_records(changes.records):
                self._memberships.restore(source, known)

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return every answer."""
        del lost
        records: list[Record] = []
        for source in self._memberships.sources:
            known = self._memberships.get(source)
            records += to_records(source, known) if known is not None else []
        return records

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return nothing: GroupKeeper puts each answer."""
        del last
        return ()

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget a person, until Tailchat says again that they are in a group."""
        del in_force
        if self._memberships.forget(sub):
            self._forgot()
