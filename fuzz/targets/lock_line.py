"""Records of locks in the store: a damaged one never lets anybody in."""

import json
from dataclasses import replace

from fuzz.cutting import steered
from fuzz.target import Target
from tailchat_gate.identity.revocation.records import REVOCATION, read_record, to_record
from tailchat_gate.identity.revocation.state import Lock, RevocationState, SignedOut, Unlock
from tailchat_gate.state.rows import from_row, to_row
from tailchat_gate.state.store import Record

_NOW = 1_800_000_000.0


def check(data: bytes) -> None:
    """Read a body as it is, and one in a row of which one bit is turned; one byte says which."""
    steer, rest = steered(data, 1)
    body = rest.decode("utf-8", "surrogateescape")
    found = read_record(Record(REVOCATION, "k", body))
    _check_damaged(body)
    if found is None:
        return
    said = json.loads(body)
    for name in found.__match_args__:
        assert said[name] == getattr(found, name)
    target = getattr(found, "target", "all")
    assert target == "all" or target.startswith(("sub:", "token:"))
    assert not isinstance(found, SignedOut) or not target.startswith("token:")
    record = to_record(found)
    assert read_record(record) == found
    revocation = RevocationState(lambda: _NOW)
    revocation.apply(found)
    if isinstance(found, Lock) and (found.until is None or found.until > _NOW):
        assert [lock.target for lock in revocation.locks] == [found.target]
    _check_turned(record, steer[0])


def _check_damaged(body: str) -> None:
    entry = read_record(Record(REVOCATION, "k", body, intact=False))
    assert not isinstance(entry, Unlock), "a damaged record lets somebody in"


def _check_turned(record: Record, steer: int) -> None:
    """Turn one bit of the body in a row: the checksum tells."""
    body = bytearray(record.body.encode())
    body[steer % len(body)] ^= 1 << steer % 7
    *fields, checksum = to_row(1, record)
    turned = replace(record, body=body.decode("utf-8", "surrogateescape"))
    row = from_row((*to_row(1, turned)[:-1], checksum))
    assert fields[0] == 1
    assert row is not None
    assert not row[1].intact


TARGET = Target(
    check,
    parsers=("identity.revocation.records", "identity.revocation.state"),
    seeds=(
        b'\0{"kind":"lock","target":"sub:a","at":1,"until":null,"message":"no"}',
        b'\1{"kind":"unlock","target":"token:ci","at":1}',
        b'\2{"kind":"ended","sid":"s","sub":"a","at":1,"until":2}',
        b'\3{"kind":"signed-out","target":"all","at":1,"until":2}',
        b'\7{"kind":"signed-out","target":"token:ci","at":1,"until":2}',
        b'\5{"kind":"lock","target":"all","at":true,"until":1e3,"message":"\\u2028"}',
        b"\0" + to_record(Lock("sub:b", 1, 2_000_000_000, "\u661f")).body.encode(),
        b"\0" + to_record(Unlock("all", 1)).body.encode(),
    ),
    words=(
        *(b'"kind":"unlock"', b'"kind":"lock"', b'"target":"all"', b'"target":"sub:a"', b'"at":1'),
        *(b'"until":null', b'"until":2', b'"message":""', b'"sid":"s"', b'"sub":"a"', b",", b"{"),
        *(b"null", b"true", b"1.5", b"-1", b"\\n", b"\\ud800", b"[]", b'"token:ci"', b"NaN"),
    ),
)
