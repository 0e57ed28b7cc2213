"""Locks and ended sessions as records: what goes in comes out, and damage frees nobody."""

import json
from dataclasses import replace

import pytest
from gatekit import START
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.config.values.identifier import token_name
from tailchat_gate.identity.revocation.records import (
    MAX_MESSAGE,
    REVOCATION,
    is_message,
    is_person,
    is_target,
    read_record,
    revocations,
    to_record,
)
from tailchat_gate.identity.revocation.state import EndedSession, Entry, Lock, SignedOut, Unlock
from tailchat_gate.state.rows import from_row, to_row
from tailchat_gate.state.store import MAX_TEXT, Record

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


def _read(fields: object, *, intact: bool = True) -> Entry | None:
    return read_record(Record(REVOCATION, "k", json.dumps(fields), intact=intact))


def _fields(entry: Entry) -> dict[str, object]:
    fields = json.loads(to_record(entry).body)
    assert isinstance(fields, dict)
    return fields


@given(ENTRIES)
def test_an_entry_comes_back(entry: Entry) -> None:
    """Whatever can be said is one record, not too long, and is read as it was meant."""
    record = to_record(entry)

    assert len(record.key) + len(record.body) <= MAX_TEXT
    assert read_record(record) == entry
    assert from_row(to_row(1, record)) == (1, record)


@given(ENTRIES, st.data())
def test_a_changed_byte_is_noticed_and_lets_nobody_in(entry: Entry, data: st.DataObject) -> None:
    """With any one byte changed a record is damaged, and is never an unlock."""
    record = to_record(entry)
    body = bytearray(record.body.encode())
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    changed = replace(record, body=body.decode("utf-8", "surrogateescape"))
    row = from_row((*to_row(1, changed)[:-1], to_row(1, record)[-1]))

    assert row is not None
    assert not row[1].intact
    assert not isinstance(read_record(row[1]), Unlock)


def test_a_damaged_record_that_can_be_read_still_keeps_somebody_out() -> None:
    """A wrong checksum does not undo what restricts; what frees is not believed."""
    ended = EndedSession("s", "66a", NOW, NOW)
    out = SignedOut("all", NOW, NOW)
    for entry in (LOCK, ended, out):
        assert _read(_fields(entry), intact=False) == entry

    assert _read(_fields(Unlock("sub:66a", NOW)), intact=False) is None


def test_a_lock_and_its_unlock_have_one_key() -> None:
    """The later of the two is what the store holds; another person's is another key."""
    keys = [to_record(entry).key for entry in (LOCK, Unlock("sub:66a", NOW), Lock("sub:66b", NOW))]

    assert keys[0] == keys[1] != keys[2]


def test_two_sign_outs_are_merged() -> None:
    """What one of them covers and the other does not stays over."""
    early, late = SignedOut("all", NOW, NOW + 900), SignedOut("all", NOW + 60, NOW + 600)
    merge = revocations(lambda: NOW).merge

    merged = read_record(merge(to_record(early), to_record(late)))
    assert merged == SignedOut("all", NOW + 60, NOW + 900)
    assert merge(to_record(LOCK), to_record(Unlock("sub:66a", NOW))).body.startswith(
        '{"kind":"unlock"'
    )


def test_fewer_records_of_the_same_meaning() -> None:
    """Sessions that a sign-out covers leave; locks, what lifted one, and the unknown stay."""
    newer = Record(REVOCATION, "new", '{"kind":"new"}')
    ended = [EndedSession(f"s{number}", "66a", NOW, NOW + 60) for number in range(3)]
    entries: list[Entry] = [
        *ended,
        LOCK,
        Unlock("all", NOW),
        SignedOut("sub:66a", NOW, NOW + 60),
    ]
    compact = revocations(lambda: NOW).compact
    kept = compact([newer, *(to_record(entry) for entry in entries)])

    assert kept[0] == newer
    assert {read_record(record) for record in kept[1:]} == {*entries[3:]}


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
    """An intact record with a field that no gate writes says nothing."""
    assert _read({**_fields(LOCK), **change}) is None


def test_a_missing_field_says_nothing() -> None:
    """Every field has to be there."""
    for name in _fields(LOCK):
        fields = {key: value for key, value in _fields(LOCK).items() if key != name}
        assert _read(fields) is None


@pytest.mark.parametrize("body", ["", " ", "x", "{}", "\udcff" * 40, "[1]", "[" * 9000])
def test_what_is_no_entry_says_nothing(body: str) -> None:
    """Text and depth that are no entry are damaged, not an error."""
    assert read_record(Record(REVOCATION, "k", body)) is None


def test_only_a_lock_can_be_open_ended() -> None:
    """An ended session without an expiry is refused: it would be stored forever."""
    fields = {**_fields(EndedSession("s", "66a", NOW, NOW)), "until": None}

    assert _read(fields) is None


def test_a_machine_is_never_signed_out() -> None:
    """A token has no sessions: it can be locked and nothing else."""
    fields = {**_fields(SignedOut("all", NOW, NOW)), "target": "token:backup"}

    assert _read(fields) is None
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
