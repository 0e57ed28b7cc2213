"""What locks and ended sessions mean for one session, and how little of it is kept."""

from collections.abc import Callable

import pytest
from gatekit import ALICE, START, SUB, Clock
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.identity.revocation.state import (
    ALL,
    MOST_OF_ALL,
    MOST_OF_ONE,
    EndedSession,
    Entry,
    Lock,
    RevocationState,
    SignedOut,
    Unlock,
)
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import EXPIRY_MARGIN

NOW = int(START)
HOUR = 3600
RECORD = SessionRecord.begin(ALICE, now=START, login="l")
BOB = RECORD._replace(sub="66bob", sid="bob")


@pytest.fixture
def revocation(clock: Clock) -> RevocationState:
    """Return the standing of a gate where nothing is locked."""
    return RevocationState(clock)


def _ended(record: SessionRecord, *, at: int = NOW, until: int = NOW + HOUR) -> EndedSession:
    return EndedSession(record.sid, record.sub, at, until)


def test_nothing_is_locked_at_first(revocation: RevocationState) -> None:
    """Without an entry every session is good, and there is nothing to keep."""
    assert revocation.check(RECORD) is None
    assert revocation.bar(RECORD) is None
    assert (revocation.locks, revocation.entries(), revocation.version) == ((), [], 0)


@pytest.mark.parametrize(
    ("target", "reason"), [(f"sub:{SUB}", Reason.LOCKED), (ALL, Reason.MAINTENANCE)]
)
def test_a_lock_keeps_its_target_out(
    revocation: RevocationState, target: str, reason: Reason
) -> None:
    """A lock on a person is LOCKED, on all MAINTENANCE, with the lock that tells why."""
    lock = Lock(target, NOW, None, "not today")
    assert revocation.apply(lock)

    rejection = revocation.bar(RECORD)
    assert revocation.check(RECORD) is reason
    assert rejection is not None
    assert (rejection.reason, rejection.lock, rejection.record) == (reason, lock, RECORD)
    assert revocation.check(BOB) is (reason if target == ALL else None)
    assert revocation.lock_on(BOB.sub) is (lock if target == ALL else None)


def test_a_lock_on_a_person_says_more_than_one_on_all(revocation: RevocationState) -> None:
    """Of two locks that hold, the person's own is shown."""
    own = Lock(f"sub:{SUB}", NOW, None, "yours")
    revocation.apply(Lock(ALL, NOW, None, "everybody's"))
    revocation.apply(own)

    assert revocation.lock_on(SUB) is own


def test_a_lock_on_a_token_keeps_no_person_out(revocation: RevocationState) -> None:
    """A machine's lock is the machine's; a lock on all is a machine's too."""
    lock = Lock("token:backup", NOW)
    revocation.apply(lock)

    assert revocation.check(RECORD) is None
    assert revocation.lock_on_token("backup") is lock
    assert revocation.lock_on_token("other") is None
    revocation.apply(Lock(ALL, NOW))
    assert revocation.lock_on_token("other") is not None


def test_a_lock_ends_at_its_time(revocation: RevocationState, clock: Clock) -> None:
    """A lock holds up to its second and no longer, without anybody doing anything."""
    revocation.apply(Lock(f"sub:{SUB}", NOW, NOW + 10))
    clock.now += 9.9
    assert revocation.check(RECORD) is Reason.LOCKED
    clock.now += 0.1

    assert revocation.check(RECORD) is None
    assert revocation.locks == ()
    clock.now += EXPIRY_MARGIN
    assert revocation.entries() == []


def test_an_unlock_lifts_a_lock(revocation: RevocationState) -> None:
    """After an unlock sessions from before the lock are good again; another target is untouched."""
    revocation.apply(Lock(f"sub:{SUB}", NOW))
    revocation.apply(Lock(f"sub:{BOB.sub}", NOW))

    assert revocation.apply(Unlock(f"sub:{SUB}", NOW))
    assert not revocation.apply(Unlock(f"sub:{SUB}", NOW))
    assert revocation.check(RECORD) is None
    assert revocation.check(BOB) is Reason.LOCKED


def test_an_ended_session_is_over_and_no_other(revocation: RevocationState) -> None:
    """A session that was ended is over; the other sessions of that person are not."""
    revocation.apply(_ended(RECORD))

    assert revocation.check(RECORD) is Reason.SESSION_ENDED
    assert revocation.check(RECORD._replace(seen_at=NOW + 5, login="x")) is Reason.SESSION_ENDED
    assert revocation.check(RECORD._replace(sid="another")) is None
    assert revocation.check(BOB._replace(sid=RECORD.sid)) is None
    rejection = revocation.bar(RECORD)
    assert rejection is not None
    assert rejection.lock is None


@pytest.mark.parametrize("target", [f"sub:{SUB}", ALL])
def test_signed_out_everywhere_is_all_up_to_a_second(
    revocation: RevocationState, target: str
) -> None:
    """What was signed in up to that second is over, what was signed in after it is not."""
    revocation.apply(SignedOut(target, NOW, NOW + HOUR))

    assert revocation.check(RECORD) is Reason.SESSION_ENDED
    assert revocation.check(RECORD._replace(signed_in_at=NOW + 1)) is None
    assert revocation.check(BOB) is (Reason.SESSION_ENDED if target == ALL else None)
    assert revocation.signed_out_at(SUB) == NOW


def test_an_earlier_sign_out_takes_nothing_back(revocation: RevocationState) -> None:
    """Entries that come out of order leave the latest second and the longest memory."""
    revocation.apply(SignedOut(f"sub:{SUB}", NOW, NOW + HOUR))

    assert not revocation.apply(SignedOut(f"sub:{SUB}", NOW - 9, NOW + HOUR - 9))
    assert revocation.signed_out_at(SUB) == NOW


def test_a_lock_is_told_before_an_ended_session(revocation: RevocationState) -> None:
    """A locked person is told of the lock, even if the session has ended too."""
    revocation.apply(_ended(RECORD))
    revocation.apply(Lock(f"sub:{SUB}", NOW))

    assert revocation.check(RECORD) is Reason.LOCKED


def test_only_a_change_has_a_new_version(revocation: RevocationState) -> None:
    """The version moves when something changed, and stays when an entry is read again."""
    entries: list[Entry] = [
        Lock(f"sub:{SUB}", NOW),
        _ended(RECORD),
        SignedOut("sub:66bob", NOW, NOW + 9),
    ]
    for number, entry in enumerate(entries, 1):
        assert revocation.apply(entry)
        assert revocation.version == number
    for entry in entries:
        assert not revocation.apply(entry)

    assert revocation.version == len(entries)


def test_what_is_over_by_itself_is_forgotten(revocation: RevocationState, clock: Clock) -> None:
    """A day after the last session could be alive, nothing is kept of its end."""
    revocation.apply(_ended(RECORD))
    revocation.apply(SignedOut("sub:66bob", NOW, NOW + HOUR))
    clock.now += HOUR + EXPIRY_MARGIN - 1
    assert len(revocation.entries()) == 2
    clock.now += 1

    assert revocation.entries() == []


def test_signing_in_and_out_in_a_loop_costs_one_entry(revocation: RevocationState) -> None:
    """Beyond the bound a person's ended sessions become one entry, and all of them stay over."""
    records = [RECORD._replace(sid=f"s{n}", signed_in_at=NOW + n) for n in range(MOST_OF_ONE * 3)]
    for record in records:
        revocation.apply(_ended(record, at=record.signed_in_at))
        assert len(revocation.entries()) <= MOST_OF_ONE + 1

    assert all(revocation.check(record) is Reason.SESSION_ENDED for record in records)
    assert revocation.check(BOB) is None


def test_too_many_ended_sessions_end_everybodys(revocation: RevocationState) -> None:
    """Beyond the bound for all persons one entry stands for everything up to that second."""
    first = RECORD._replace(sub="0", sid="s")
    for number in range(MOST_OF_ALL):
        revocation.apply(EndedSession("s", str(number), NOW, NOW + HOUR))
    assert revocation.check(RECORD) is None
    assert len(revocation.entries()) == MOST_OF_ALL

    revocation.apply(EndedSession("s", "last", NOW, NOW + HOUR))

    assert revocation.entries() == [SignedOut(ALL, NOW, NOW + HOUR)]
    assert revocation.check(first) is revocation.check(RECORD) is Reason.SESSION_ENDED


def test_expired_entries_do_not_count_against_the_bound(
    revocation: RevocationState, clock: Clock
) -> None:
    """A person who signs out now and then is never signed out everywhere for it."""
    other = RECORD._replace(sid="other")
    for number in range(MOST_OF_ONE * 3):
        record = RECORD._replace(sid=f"s{number}")
        revocation.apply(_ended(record, at=int(clock.now), until=int(clock.now) + 60))
        clock.now += 30

    assert revocation.check(other) is None


def test_a_history_read_anew_sets_the_locks(revocation: RevocationState) -> None:
    """Read from the beginning, locks are as the file says; what is over stays over."""
    revocation.apply(Lock(f"sub:{SUB}", NOW))
    revocation.apply(Lock("sub:66bob", NOW, None, "old"))
    revocation.apply(_ended(RECORD))
    new = Lock("sub:66bob", NOW, None, "new")

    changed = revocation.renew([Lock("sub:x", NOW), new, Unlock("sub:x", NOW)])

    assert changed == [Unlock(f"sub:{SUB}", NOW), new]
    assert revocation.locks == (new,)
    assert revocation.check(RECORD) is Reason.SESSION_ENDED
    assert revocation.renew([new]) == []


SUBS = st.sampled_from(("a", "b"))
TARGETS = st.one_of(st.just(ALL), SUBS.map("sub:{}".format))
SECONDS = st.integers(NOW - 5, NOW + 5)
ENTRIES = st.one_of(
    st.builds(Lock, TARGETS, SECONDS, st.none() | SECONDS, st.just("m")),
    st.builds(Unlock, TARGETS, SECONDS),
    st.builds(EndedSession, st.sampled_from(("1", "2")), SUBS, SECONDS, SECONDS),
    st.builds(SignedOut, TARGETS, SECONDS, SECONDS),
)


@given(st.lists(ENTRIES, max_size=12))
def test_the_shortest_history_means_the_same(history: list[Entry]) -> None:
    """With the shortened history every living session is judged as before."""
    clock = Clock()
    revocation, again = RevocationState(clock), RevocationState(clock)
    for entry in history:
        revocation.apply(entry)
    before = _judgements(revocation.check)
    shorter = revocation.entries()
    for entry in shorter:
        again.apply(entry)

    assert len(shorter) <= len(history)
    assert _judgements(again.check) == _judgements(revocation.check)
    # What was forgotten is what no session can need that ends with its entry.
    for record, judgement in before.items():
        if judgement is not None and revocation.check(record) is None:
            assert judgement is Reason.SESSION_ENDED


def _judgements(
    check: Callable[[SessionRecord], Reason | None],
) -> dict[SessionRecord, Reason | None]:
    records = [
        RECORD._replace(sub=sub, sid=sid, signed_in_at=at)
        for sub in "abc"
        for sid in "12"
        for at in (NOW - 6, NOW, NOW + 6)
    ]
    return {record: check(record) for record in records}


def test_its_text_tells_numbers_only(revocation: RevocationState) -> None:
    """No id and no message is in the text of a standing."""
    revocation.apply(Lock(f"sub:{SUB}", NOW, None, "secret"))
    revocation.apply(_ended(RECORD))

    assert repr(revocation) == "<RevocationState 1 locks, 1 sessions over>"
