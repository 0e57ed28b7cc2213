"""Records as rows of a database, each with a checksum."""

from zlib import crc32

from tailchat_gate.state.store import MAX_TEXT, Record, is_second

#: A record with its number.
Row = tuple[int, Record]


def checksum(record: Record) -> int:
    """Return a checksum of a record, because SQLite does not notice a flipped bit in a row."""
    until = "" if record.until is None else str(record.until)
    parts = (record.kind, record.key, record.sub, until, record.body)
    return crc32("\x00".join(parts).encode("utf-8", "surrogatepass"))


def to_row(seq: int | None, record: Record) -> tuple[object, ...]:
    """Return the columns of a record; with `seq` None the next number is used."""
    fields = (record.kind, record.key, record.sub, record.until, record.body)
    return (seq, *fields, checksum(record))


def from_row(row: tuple[object, ...]) -> Row | None:
    """Return the record of a row, None for one that is damaged beyond reading."""
    seq, kind, key, sub, until, body, written = row
    if not (isinstance(seq, int) and isinstance(kind, str) and isinstance(key, str)):
        return None
    if not (isinstance(sub, str) and isinstance(body, str)):
        return None
    if not (until is None or is_second(until)) or len(key) + len(body) > MAX_TEXT:
        return None
    record = Record(kind, key, body, sub, until)
    if checksum(record) != written:
        record = Record(kind, key, body, sub, until, intact=False)
    return seq, record
