"""Records and single-use keys in Redis; every call may raise StoreFault."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from tailchat_gate.state.bookkeeping import FaultKind, StoreFault
from tailchat_gate.state.redis import scripts
from tailchat_gate.state.redis.client import COMMAND_SECONDS, RedisClient
from tailchat_gate.state.redis.servers import HASH_TAG, RedisPlace
from tailchat_gate.state.rows import Row, from_row, to_row
from tailchat_gate.state.store import (
    EXPIRY_MARGIN,
    USE_MARGIN,
    Charge,
    Kind,
    Outcome,
    Record,
    Reservation,
    ReservationStatus,
)
from tailchat_gate.syntax import COMPACT

#: The prefix of all keys; the number is the version of the format.
PREFIX: Final = f"{HASH_TAG}:1:"
_LOG, _CHANGES, _UNTIL = (PREFIX + name for name in ("log", "changes", "until"))
_RATES: Final = tuple(PREFIX + name for name in ("rates:known", "rates:strangers", "rates:at"))
_KNOWN_RATES: Final = _RATES[0]
#: The most buckets of each of the two kinds, about 150 bytes each.
_MOST_RATES: Final = 1 << 17
#: Records in one call, which the server handles in a few milliseconds.
_BATCH: Final = 500
#: How many marks of writes the server keeps; a process that missed more reads everything again.
_MARKS: Final = 1000
#: How often a write is tried while other processes change the same records.
_TRIES: Final = 50
_SWEPT: Final = 1000

_T = TypeVar("_T")


class RowsRead(NamedTuple):
    """The rows read, the oldest change first.

    `replaced`: the data on the server were emptied or replaced. `lost`: how many rows are damaged.
    """

    rows: Sequence[Row]
    replaced: bool = False
    lost: int = 0


class _Position(NamedTuple):
    """Up to where this process has read: the mark of a write, and the number of its last change.

    `written` is the mark of the last write of this process, "" once that was read.
    """

    mark: bytes = b""
    last: str = "0"
    written: str = ""


class Change(NamedTuple):
    """A record to write in place of the one with the number `seq`; None deletes that."""

    kind: str
    key: str
    seq: str
    record: Record | None


class RedisDatabase:
    """The data in one server; `kinds` by name say how records are merged."""

    def __init__(
        self, client: RedisClient, clock: Callable[[], float], kinds: Mapping[str, Kind]
    ) -> None:
        self._client = client
        self._clock = clock
        self._kinds = kinds
        self._position = _Position()
        self._compacted: dict[str, int] = {}
        self._uncounted: Counter[str] = Counter()

    async def read_all(self) -> RowsRead:
        """Read every record; mark an empty server, so that its loss is noticed."""
        read, self._position = await self._read(_Position())
        if not self._position.mark:
            await self._write([])
            read = await self.read_new()
        return read

    async def read_new(self) -> RowsRead:
        """Read what was written since the last time."""
        read, self._position = await self._read(self._position)
        return read

    async def peek(self) -> RowsRead:
        """Read every record; this does not change what `read_new` reads next."""
        read, _ = await self._read(_Position())
        return read

    async def _read(self, start: _Position) -> tuple[RowsRead, _Position]:
        rows: list[Row] = []
        lost = 0
        after = start.last
        while True:
            known, mark, head, page = await self._client.run(
                scripts.READ, (_LOG, _CHANGES), (PREFIX, start.mark, after, _BATCH, start.written)
            )
            if not known:
                return RowsRead((), replaced=True), start
            if not head.isdigit():
                problem = "the numbers of changes in Redis are damaged: empty it, gates write again"
                raise StoreFault(FaultKind.UNREADABLE, problem)
            for entry in page:
                row = _row(*entry)
                lost += row is None
                if row is not None:
                    rows.append(row)
            if len(page) < _BATCH:
                return RowsRead(rows, lost=lost), _Position(mark, head.decode())
            after = page[-1][0].decode()

    async def write(self, records: Iterable[Record]) -> None:
        """Write records, each merged with the stored record of its key."""
        for batch in _batches(records):
            await self._put(batch)
        for name, kind in self._kinds.items():
            if self._uncounted[name] > kind.room // 4:
                self._uncounted[name] = 0
                await self._compact(kind)

    async def delete(self, keys: Iterable[tuple[str, str]], notice: Record) -> None:
        """Delete records, and write a record about that for the running processes."""
        for batch in _batches(keys):
            await self._replace(batch, lambda _place, _old: None)
        await self._put((notice,))

    async def _put(self, records: Sequence[Record]) -> None:
        wanted: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            wanted.setdefault((record.kind, record.key), []).append(record)
        changes = await self._replace(
            list(wanted), lambda place, old: self._merged(old, wanted[place])
        )
        self._uncounted.update(change.kind for change in changes)

    async def _replace(
        self,
        places: Sequence[tuple[str, str]],
        replacement: Callable[[tuple[str, str], Record | None], Record | None],
    ) -> Sequence[Change]:
        """Replace the record of each kind and key; return the changes that this took."""
        for _ in range(_TRIES):
            changes: list[Change] = []
            for place, (seq, old) in zip(places, await self._current(places), strict=True):
                new = replacement(place, old)
                # An unreadable record is None too, so a deletion is written even without one.
                if new is None or new != old:
                    changes.append(Change(*place, seq, new))
            if not changes or await self._write(changes):
                return changes
        raise StoreFault(FaultKind.UNWRITABLE, "other processes write the same records")

    def _merged(self, old: Record | None, versions: Sequence[Record]) -> Record | None:
        kind = self._kinds.get(versions[0].kind)
        for record in versions:
            usable = old is not None and old.intact and kind is not None
            old = kind.merge(old, record) if usable and kind and old else record
        return old

    async def _current(self, places: Sequence[tuple[str, str]]) -> list[tuple[str, Record | None]]:
        """Return the number and the record of each kind and key."""
        flat = [text for place in places for text in place]
        answers = await self._client.run(scripts.CURRENT, (_CHANGES,), (PREFIX, *flat))
        rows = [
            (seq, _row(seq, _bytes(kind), _bytes(key), document))
            for (kind, key), (seq, document) in zip(places, answers, strict=True)
        ]
        return [(seq.decode(), row[1] if row else None) for seq, row in rows]

    async def _write(self, changes: Sequence[Change]) -> bool:
        """Make changes in one step; False if a record is not what it was."""
        mark = os.urandom(16).hex()
        arguments: list[object] = [PREFIX, mark, _MARKS]
        for change in changes:
            record = change.record
            document = "" if record is None else _document(record)
            until = "" if record is None or record.until is None else record.until
            arguments += [change.kind, change.key, change.seq, document, until]
        done = await self._client.run(scripts.WRITE, (_LOG, _CHANGES, _UNTIL), arguments)
        if done:
            self._position = self._position._replace(written=mark)
        return bool(done)

    async def _compact(self, kind: Kind) -> None:
        """Replace the records of a kind by fewer of the same meaning, if that saves enough."""
        rows = [row for row in (await self.peek()).rows if row[1].kind == kind.name]
        if len(rows) <= max(kind.room, 2 * self._compacted.get(kind.name, 0)):
            return
        left = {record.key: record for record in kind.compact([record for _, record in rows])}
        seqs = {record.key: str(seq) for seq, record in rows}
        there = {record.key: record for _, record in rows}
        changes = [
            Change(kind.name, key, seq, left.get(key))
            for key, seq in seqs.items()
            if left.get(key) != there[key]
        ]
        changes += [Change(kind.name, key, "0", left[key]) for key in left if key not in there]
        for batch in _batches(changes):
            # If another process changes these records first, the next compaction does the rest.
            await self._write(batch)
        self._compacted[kind.name] = len(left)

    async def evicts(self) -> str:
        """Return the policy by which a full server deletes data, "" if it does not."""
        answer: bytes = await self._client.run(scripts.MEMORY, (_LOG,), ())
        members = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
        policy = members.get("maxmemory_policy", "noeviction")
        return "" if policy == "noeviction" or members.get("maxmemory") == "0" else policy

    async def sweep(self) -> None:
        """Delete what expired long ago."""
        arguments = (PREFIX, int(self._clock()), EXPIRY_MARGIN, _SWEPT)
        await self._client.run(scripts.SWEEP, (_CHANGES, _UNTIL), arguments)

    async def outcomes(self, sub: str, *, erase: bool) -> int:
        """Return the number of outcomes about a person, and erase them if `erase`."""
        count = await self._client.run(scripts.OUTCOMES, (f"{PREFIX}about:{sub}",), (int(erase),))
        return int(count)

    async def forget_rates(self, sub: str) -> None:
        """Delete the buckets of a person."""
        await self._client.run(scripts.FORGET_RATES, (_KNOWN_RATES,), (sub,))

    async def reserve(
        self, kind: str, key: str, nonce: str, *, until: float, room: int, at: float
    ) -> Reservation:
        """Reserve a key under a nonce, or only look for it, with the nonce ""."""
        # The server's clock counts, because gates' clocks differ.
        age = self._clock() - at
        lifetime = max(1, int((until + EXPIRY_MARGIN - self._clock()) * 1000))
        expired = int(self._clock()) - USE_MARGIN
        answer: Any = await self._client.run(
            scripts.RESERVE,
            (f"{PREFIX}use:{kind}:{key}",),
            (PREFIX, kind, key, nonce, age, int(until), lifetime, room, expired),
        )
        if answer[0] == b"granted":
            return Reservation(ReservationStatus.GRANTED)
        if answer[0] == b"full":
            return Reservation(ReservationStatus.FULL)
        is_kept = self._clock() < float(answer[3])
        outcome = answer[2] if is_kept and answer[2] else None
        return Reservation(ReservationStatus.TAKEN, self._clock() - float(answer[1]), outcome)

    async def charge(self, charges: Sequence[Charge]) -> Sequence[float]:
        """Add charges to buckets; return in how many seconds each is full again."""
        arguments: list[object] = [_MOST_RATES]
        for charge in charges:
            arguments += [2 if charge.strangers else 1, charge.key, charge.seconds]
        answer = await self._client.run(scripts.CHARGE, _RATES, arguments)
        return [float(ahead) for ahead in answer]

    async def settle(self, kind: str, key: str, nonce: str, outcome: Outcome) -> None:
        """Store the outcome of a key that was reserved under a nonce."""
        lifetime = int((outcome.until - self._clock()) * 1000)
        arguments = (int(outcome.spent), outcome.data or b"", repr(outcome.until), lifetime)
        await self._client.run(
            scripts.SETTLE,
            (f"{PREFIX}use:{kind}:{key}", f"{PREFIX}outcome:{kind}:{key}"),
            (PREFIX, kind, key, nonce, *arguments, outcome.sub),
        )

    async def release(self, kind: str, key: str, nonce: str) -> None:
        """Release a key that was reserved under a nonce."""
        await self._client.run(
            scripts.RELEASE,
            (f"{PREFIX}use:{kind}:{key}", f"{PREFIX}outcome:{kind}:{key}"),
            (PREFIX, kind, key, nonce),
        )


async def peek_at(place: RedisPlace) -> RowsRead:
    """Read every record of a server over a connection of its own. Raises StoreError, StoreFault."""
    async with _opened(place) as database:
        return await database.peek()


async def evicts_at(place: RedisPlace) -> str:
    """Return by which policy a server evicts; see RedisDatabase.evicts. Raises StoreError."""
    try:
        async with _opened(place) as database:
            return await database.evicts()
    except StoreFault:
        # The user may have no right to ask, which the gate does not need.
        return ""


@asynccontextmanager
async def _opened(place: RedisPlace) -> AsyncIterator[RedisDatabase]:
    client = RedisClient(place, timeout=COMMAND_SECONDS)
    await asyncio.to_thread(client.connect)
    try:
        yield RedisDatabase(client, time.time, {})
    finally:
        await client.close()


def _document(record: Record) -> str:
    _, _, _, sub, until, body, checksum = to_row(None, record)
    return json.dumps([sub, until, body, checksum], separators=COMPACT)


def _row(seq: bytes, kind: bytes, key: bytes, document: bytes) -> Row | None:
    """Return a record with its number, None for one that is missing or damaged beyond reading."""
    try:
        names = (kind.decode("utf-8", "surrogatepass"), key.decode("utf-8", "surrogatepass"))
        sub, until, body, checksum = json.loads(document)
        return from_row((int(seq), *names, sub, until, body, checksum))
    except (ValueError, TypeError, RecursionError):
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _batches(items: Iterable[_T]) -> Iterator[tuple[_T, ...]]:
    rest = iter(items)
    while batch := tuple(islice(rest, _BATCH)):
        yield batch
