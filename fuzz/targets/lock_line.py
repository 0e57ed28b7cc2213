"""Lines of the locks' file: a damaged one never lets anybody in."""

import json
from zlib import crc32

from fuzz.cutting import steered
from fuzz.target import Target
from tailchat_gate.identity.lock_lines import MAX_LINE, read_line, to_line
from tailchat_gate.identity.locks import Lock, SignedOut, Standing, Unlock

_NOW = 1_800_000_000.0


def check(data: bytes) -> None:
    """Read a line as it is, and one whose checksum is right; one byte says which bit is turned."""
    steer, rest = steered(data, 1)
    _check_line(rest)
    whole = b"%08x " % crc32(rest) + rest
    found = read_line(whole)
    if found.entry is None:
        assert not found.whole
        return
    assert found.whole
    line = to_line(found.entry)
    assert line.endswith(b"\n")
    assert read_line(line[:-1]) == found
    assert b"\n" not in line[:-1]
    standing = Standing(lambda: _NOW)
    standing.apply(found.entry)
    if isinstance(found.entry, Lock) and (found.entry.until is None or found.entry.until > _NOW):
        assert [lock.target for lock in standing.locks] == [found.entry.target]
    place = steer[0] % len(whole)
    _check_line(whole[:place] + bytes((whole[place] ^ (1 << steer[0] % 8),)) + whole[place + 1 :])


def _check_line(line: bytes) -> None:
    entry, whole = read_line(line)
    checksum, body = line[:8], line[9:]
    right = line[8:9] == b" " and checksum == b"%08x" % crc32(body)
    assert whole == (right and entry is not None)
    assert right or not isinstance(entry, Unlock), "a damaged line lets somebody in"
    if entry is None:
        return
    assert len(line) <= MAX_LINE
    said = json.loads(body)
    for name in entry.__match_args__:
        assert said[name] == getattr(entry, name)
    target = getattr(entry, "target", "all")
    assert target == "all" or target.startswith(("sub:", "token:"))
    assert not isinstance(entry, SignedOut) or not target.startswith("token:")


TARGET = Target(
    check,
    parsers=("identity.lock_lines", "identity.locks"),
    seeds=(
        b'\0{"kind":"lock","target":"sub:a","at":1,"until":null,"message":"no"}',
        b'\1{"kind":"unlock","target":"token:ci","at":1}',
        b'\2{"kind":"ended","sid":"s","sub":"a","at":1,"until":2}',
        b'\3{"kind":"signed-out","target":"all","at":1,"until":2}',
        b'\7{"kind":"signed-out","target":"token:ci","at":1,"until":2}',
        b'\5{"kind":"lock","target":"all","at":true,"until":1e3,"message":"\\u2028"}',
        b"\0" + to_line(Lock("sub:b", 1, 2_000_000_000, "\u661f"))[:-1],
        b"\0" + to_line(Unlock("all", 1))[:-1],
    ),
    words=(
        *(b'"kind":"unlock"', b'"kind":"lock"', b'"target":"all"', b'"target":"sub:a"', b'"at":1'),
        *(b'"until":null', b'"until":2', b'"message":""', b'"sid":"s"', b'"sub":"a"', b",", b"{"),
        *(b"null", b"true", b"1.5", b"-1", b"\\n", b"\\ud800", b"[]", b'"token:ci"', b"NaN"),
    ),
)
