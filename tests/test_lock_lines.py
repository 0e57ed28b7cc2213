"""The lines of the locks' file: what goes in comes out, and damage frees nobody."""

import json
from zlib import crc32

import pytest
from gatekit import START
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.config.word import token_name
from tailchat_gate.identity.lock_lines import (
    MAX_LINE,
    MAX_MESSAGE,
    is_message,
    is_person,
    is_target,
    read_line,
    to_line,
)
from tailchat_gate.identity.locks import EndedSession, Entry, Lock, SignedOut, Unlock

NOW = int(START)
SECONDS = st.integers(0, 253_402_300_799)
SUBS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
PERSONS = st.one_of(st.just("all"), SUBS.map("sub:{}".format))
TARGETS = st.one_of(
    PERSONS, st.from_regex(r"token:[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
)
MESSAGES = st.text(st.characters(codec="utf-8"), max_size=MAX_MESSAGE).filter(is_message)
SIDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
ENTRIES = st.one_of(
    st.builds(Lock, TARGETS, SECONDS, st.none() | SECONDS, MESSAGES),
    st.builds(Unlock, TARGETS, SECONDS),
    st.builds(EndedSession, SIDS, SUBS, SECONDS, SECONDS),
    st.builds(SignedOut, PERSONS, SECONDS, SECONDS),
)
LOCK = Lock("sub:66a", NOW, NOW + 60, "hands off")


def _line(fields: object, *, checksum: int | None = None) -> bytes:
    body = json.dumps(fields).encode()
    return b"%08x " % (crc32(body) if checksum is None else checksum) + body


def _fields(entry: Entry) -> dict[str, object]:
    fields = json.loads(to_line(entry)[9:])
    assert isinstance(fields, dict)
    return fields


@given(ENTRIES)
def test_an_entry_comes_back(entry: Entry) -> None:
    """Whatever can be said is one line, not too long, and is read as it was meant."""
    line = to_line(entry)

    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert len(line) <= MAX_LINE
    assert read_line(line[:-1]) == (entry, True)


@given(ENTRIES, st.data())
def test_a_cut_line_says_nothing(entry: Entry, data: st.DataObject) -> None:
    """No beginning of a line is taken for an entry, wherever its writer was stopped."""
    line = to_line(entry)[:-1]
    cut = data.draw(st.integers(0, len(line) - 1))

    assert read_line(line[:cut]) == (None, False)


@given(ENTRIES, st.data())
def test_a_changed_byte_is_noticed_and_lets_nobody_in(entry: Entry, data: st.DataObject) -> None:
    """With any one byte changed a line is damaged, and is never an unlock."""
    line = bytearray(to_line(entry)[:-1])
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))

    found = read_line(bytes(line))

    assert not found.whole
    assert not isinstance(found.entry, Unlock)


def test_a_damaged_line_that_can_be_read_still_keeps_somebody_out() -> None:
    """A wrong checksum does not undo what restricts; what frees is not believed."""
    ended = EndedSession("s", "66a", NOW, NOW)
    out = SignedOut("all", NOW, NOW)
    for entry in (LOCK, ended, out):
        assert read_line(_line(_fields(entry), checksum=1)) == (entry, False)

    assert read_line(_line(_fields(Unlock("sub:66a", NOW)), checksum=1)) == (None, False)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "lok"},
        {"kind": None},
        {"kind": ["lock"]},
        {"target": "66a"},
        {"target": "group:ops"},
        {"target": "sub:"},
        {"target": 7},
        {"at": -1},
        {"at": 1.5},
        {"at": True},
        {"at": None},
        {"until": "tomorrow"},
        {"until": 10**15},
        {"message": "two\nlines"},
        {"message": "x" * (MAX_MESSAGE + 1)},
        {"message": None},
        {"more": 1},
    ],
)
def test_another_shape_says_nothing(change: dict[str, object]) -> None:
    """A line with a right checksum and a field that no gate writes is damaged."""
    assert read_line(_line({**_fields(LOCK), **change})) == (None, False)


def test_a_missing_field_says_nothing() -> None:
    """Every field has to be there."""
    for name in _fields(LOCK):
        fields = {key: value for key, value in _fields(LOCK).items() if key != name}
        assert read_line(_line(fields)) == (None, False)


@pytest.mark.parametrize(
    "line",
    [b"", b" ", b"x", b"{}", b"00000000 ", b"\xff" * 40, b"00000000 [1]", b"0 " + b"[" * 9000],
)
def test_what_is_no_line_says_nothing(line: bytes) -> None:
    """Text, bytes and depth that are no entry are damaged, not an error."""
    assert read_line(line) == (None, False)


def test_only_a_lock_can_be_open_ended() -> None:
    """An ended session without an end would be kept for ever, so there is none."""
    fields = {**_fields(EndedSession("s", "66a", NOW, NOW)), "until": None}

    assert read_line(_line(fields)) == (None, False)


def test_a_machine_is_never_signed_out() -> None:
    """A token has no sessions: it can be locked and nothing else."""
    fields = {**_fields(SignedOut("all", NOW, NOW)), "target": "token:backup"}

    assert read_line(_line(fields)) == (None, False)
    assert is_target("token:backup")
    assert not is_person("token:backup")


@pytest.mark.parametrize("text", ["", "sub:", "sub:a b", "token:", "token:-x", "ALL", "sub:é", "*"])
def test_what_is_no_target(text: str) -> None:
    """Only sub:ID, token:NAME and all can be locked."""
    assert not is_target(text)


@pytest.mark.parametrize("name", ["my.backup", "a", "A1-_.", "x" * 64, ".x", "x" * 65, "", "a b"])
def test_what_can_be_a_token_can_be_locked(name: str) -> None:
    """A name of a token is one to the configuration and to a lock alike."""
    try:
        known = bool(token_name(name))
    except ValueError:
        known = False

    assert is_target(f"token:{name}") is known
