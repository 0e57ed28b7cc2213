from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from gatekit import ALICE, SECRET, START, Clock

from tailchat_gate.identity import seal
from tailchat_gate.identity.authenticator import Authenticator, SessionCache, Visitor
from tailchat_gate.identity.recheck import RecheckRefused, RecheckResult, Rechecks, UndecidedError
from tailchat_gate.identity.revocation.state import Rejection, RevocationState
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes, SessionCookie
from tailchat_gate.reasons import Reason
from tailchat_gate.request.fields import FieldSection

HOUR = 3600.0
NAMES = CookieNames.for_origin("http://gate.test")
RECORD = SessionRecord.begin(ALICE, now=START, login="l")
NOBODY = RECORD._replace(sub="")


@dataclass
class Room:
    """An authenticator, what seals for it, and its clock."""

    cookie: SessionCookie
    authenticator: Authenticator
    clock: Clock

    def field(self, record: SessionRecord = RECORD) -> bytes:
        """Return a Cookie field with a freshly sealed session."""
        return self.cookie.set(record).partition(";")[0].encode()

    def visitor(self, fields: Sequence[bytes]) -> Visitor | None:
        """Return the visitor behind Cookie fields."""
        return self.authenticator.visitor_of(FieldSection([(b"Cookie", one) for one in fields]))

    def sub(self, *fields: bytes) -> str | None:
        """Return who is behind Cookie fields."""
        visitor = self.visitor(fields)
        return visitor.record.sub if visitor else None

    @property
    def kept(self) -> int:
        """The number of sessions kept."""
        return len(self.authenticator._opened)

    def rejection(self, *fields: bytes) -> Rejection | None:
        """Return whose session comes in Cookie fields and is no good."""
        return self.authenticator.explain_rejection(
            FieldSection([(b"Cookie", field) for field in fields])
        )


def make(
    clock: Clock,
    *,
    idle: float = 0.0,
    opened: SessionCache | None = None,
    rechecks: Rechecks | None = None,
    purpose: str = "session",
) -> Room:
    """Return a room with sessions of 12 hours."""
    ring = KeyRing([SECRET.encode()], purpose)
    cookie = SessionCookie(ring, NAMES, Lifetimes(12 * HOUR, idle), clock)
    authenticator = Authenticator(
        cookie, clock, RevocationState(clock), opened=opened, rechecks=rechecks
    )
    return Room(cookie, authenticator, clock)


def test_visitor(clock: Clock) -> None:
    """A sealed cookie is its visitor, with the end of the session beside the record."""
    room = make(clock)
    visitor = room.visitor([b"a=b; " + room.field()])

    assert visitor is not None
    assert visitor.record == RECORD
    assert visitor.expires_at == RECORD.signed_in_at + 12 * HOUR
    assert visitor.identity_headers == {}


@pytest.mark.parametrize("fields", [[], [b""], [b"a=b"], [b"tailchat_gate="], [b"tailchat_gate=x"]])
def test_nobody(fields: list[bytes], clock: Clock) -> None:
    """Without a cookie of this gate nobody is there."""
    assert make(clock).visitor(fields) is None


def test_same_cookie_is_the_same_visitor(clock: Clock) -> None:
    """A cookie is opened once: what was prepared for the visitor is there the next time."""
    room = make(clock)
    field = room.field()
    first = room.visitor([field])

    assert first is not None
    assert room.visitor([field]) is first
    assert room.kept == 1


def test_expiry_is_asked_every_time(clock: Clock) -> None:
    """A visitor who is kept ends with the second in which his session does, and is let go."""
    room = make(clock)
    field = room.field()

    assert room.sub(field) == RECORD.sub
    clock.now = RECORD.signed_in_at + 12 * HOUR - 0.001
    assert room.sub(field) == RECORD.sub
    clock.now += 0.001
    assert room.sub(field) is None
    assert room.kept == 0
    assert room.sub(field) is None


def test_idle_expiry(clock: Clock) -> None:
    """A session that nobody renewed ends by idleness, although it is kept."""
    room = make(clock, idle=HOUR)
    field = room.field()

    assert room.sub(field) == RECORD.sub
    clock.now += HOUR
    assert room.sub(field) is None


@pytest.mark.parametrize("signed_in_at", [0, int(START) - 12 * 3600, int(START) + 3600])
def test_dead_session_is_not_kept(signed_in_at: int, clock: Clock) -> None:
    """A session that is over, or from the future, is nobody's and takes no room."""
    room = make(clock)

    assert room.sub(room.field(RECORD._replace(signed_in_at=signed_in_at))) is None
    assert room.kept == 0


def test_junk_is_not_kept(clock: Clock) -> None:
    """Made-up cookies neither take room nor push a session out."""
    room = make(clock, opened=SessionCache(2))
    field = room.field()
    visitor = room.visitor([field])
    for index in range(100):
        assert room.sub(b"tailchat_gate=%d" % index) is None

    assert room.kept == 1
    assert room.visitor([field]) is visitor


def test_least_recently_used_leaves_first(clock: Clock) -> None:
    """A full memory lets the one go who was away longest; he is opened again when he is back."""
    room = make(clock, opened=SessionCache(2))
    first, second, third = (room.field() for _ in range(3))
    kept: list[Visitor | None] = [room.visitor([one]) for one in (first, second)]

    assert room.visitor([first]) is kept[0]
    assert room.sub(third) == RECORD.sub
    assert room.kept == 2
    assert room.visitor([first]) is kept[0]
    assert room.visitor([second]) is not kept[1]
    assert room.sub(second) == RECORD.sub


def test_memory_is_bounded(clock: Clock) -> None:
    """However many sessions come, no more than the capacity is kept."""
    room = make(clock, opened=SessionCache(10))
    for _ in range(50):
        assert room.sub(room.field()) == RECORD.sub

    assert room.kept == 10


def test_hosts_share_the_room_and_no_session(clock: Clock) -> None:
    """All hosts together keep no more than the capacity; what one opened is good on no other."""
    opened = SessionCache(10)
    rooms = [make(clock, opened=opened, purpose=f"session host-{n}.test") for n in range(5)]
    for room in rooms:
        fields = [room.field() for _ in range(5)]
        for field in fields:
            assert room.sub(field) == RECORD.sub
            assert [other.sub(field) for other in rooms if other is not room] == [None] * 4

    assert len(opened) == 10


def test_first_good_cookie_counts(clock: Clock) -> None:
    """A planted cookie of the name, before or behind, in this field or another, costs nothing."""
    room = make(clock)
    good, junk = room.field(), b"tailchat_gate=junk"
    other = room.field(RECORD._replace(sub="other"))
    dead = room.field(RECORD._replace(sub="dead", signed_in_at=0))

    assert room.sub(junk + b"; " + good) == RECORD.sub
    assert room.sub(good + b"; " + junk) == RECORD.sub
    assert room.sub(junk, dead, good) == RECORD.sub
    assert room.sub(good, junk) == RECORD.sub
    assert room.sub(good + b"; " + other) == RECORD.sub
    assert room.sub(other + b"; " + good) == "other"


def test_other_bytes_in_the_cookie(clock: Clock) -> None:
    """Bytes that are no ASCII in the cookie's value make it nobody's."""
    room = make(clock)

    assert room.sub(room.field() + b"\xff") is None
    assert room.sub(room.field() + b"\x00") is None


def test_renewal(clock: Clock) -> None:
    """A renewal is offered when a quarter of the idle time is over, and is the same session."""
    room = make(clock, idle=HOUR)
    visitor = room.visitor([room.field()])
    assert visitor is not None

    assert room.authenticator.renewal(visitor) is None
    clock.now += HOUR / 4
    line = room.authenticator.renewal(visitor)
    assert line is not None
    renewed = room.visitor([line.partition(";")[0].encode()])
    assert renewed is not None
    assert renewed.record == RECORD._replace(seen_at=int(clock.now))
    assert renewed.expires_at == clock.now + HOUR


@dataclass
class Learned:
    """What somebody else knows of every session."""

    look_at: RecheckResult
    looks: int = 0

    def look(self, record: SessionRecord, now: float) -> RecheckResult:
        """Return what the test has set; the record itself where it is nobody's."""
        self.looks += 1
        if self.look_at.record is NOBODY:
            return self.look_at._replace(record=record)
        return self.look_at


def test_what_was_learned_is_looked_at_when_it_is_time(clock: Clock) -> None:
    """A visitor is looked at again from the given second on, and stays the same one."""
    learned = Learned(RecheckResult(NOBODY, START + 900))
    room = make(clock, rechecks=learned)
    field = room.field()
    visitor = room.visitor([field])
    assert visitor is not None
    clock.now = START + 899.9
    assert room.visitor([field]) is visitor
    assert learned.looks == 1
    clock.now = START + 900
    learned.look_at = RecheckResult(NOBODY, START + 1800)

    assert room.visitor([field]) is visitor
    assert (learned.looks, visitor.good_until) == (2, START + 1800)
    assert room.authenticator.renewal(visitor) is None


def test_a_changed_person_is_another_visitor(clock: Clock) -> None:
    """Under another name nothing that was prepared is kept, and every answer renews the cookie."""
    learned = Learned(RecheckResult(NOBODY, START))
    room = make(clock, rechecks=learned)
    field = room.field()
    before = room.visitor([field])
    assert before is not None
    before.identity_headers["tool"] = b"old"
    renamed = RECORD._replace(nickname="Alicia", checked_at=int(START))
    learned.look_at = RecheckResult(renamed, START + 900)
    visitor = room.visitor([field])

    assert visitor is not None
    assert (visitor.record, visitor.identity_headers) == (renamed, {})
    assert room.authenticator.renewal(visitor) is not None
    line = room.authenticator.renewal(visitor)
    assert line is not None
    learned.look_at = RecheckResult(NOBODY, START + 1800)
    renewed = room.visitor([line.partition(";")[0].encode()])
    assert renewed is not None
    assert renewed.record.nickname == "Alicia"
    assert room.authenticator.renewal(renewed) is None


def test_a_name_that_does_not_fit_renews_nothing(clock: Clock) -> None:
    """Where the cookie cannot hold what was learned the visitor goes on without a new one."""
    learned = Learned(RecheckResult(RECORD._replace(nickname="n" * 4000), START + 900))
    room = make(clock, rechecks=learned)
    visitor = room.visitor([room.field()])

    assert visitor is not None
    assert visitor.outdated
    assert room.authenticator.renewal(visitor) is None


def test_who_is_turned_away(clock: Clock) -> None:
    """A session that opens nothing is nobody, with a reason; a dead one has none."""
    away = RecheckRefused(Reason.SESSION_REVOKED, 15)
    room = make(clock, rechecks=Learned(RecheckResult(NOBODY, START, away)))
    field = room.field()

    assert room.sub(field) is None
    assert room.kept == 0
    rejection = Rejection(Reason.SESSION_REVOKED, RECORD, None, 15)
    assert room.rejection(b"tailchat_gate=junk; " + field) == rejection
    assert room.rejection(b"a=b", b"tailchat_gate=junk") is None
    clock.now += 12 * HOUR
    assert room.rejection(field) is None


def test_who_has_to_be_asked_about(clock: Clock) -> None:
    """A session that cannot be judged yet is neither let in nor refused."""
    room = make(clock, rechecks=Learned(RecheckResult(NOBODY, START, waits=True)))

    with pytest.raises(UndecidedError) as undecided:
        room.visitor([room.field()])
    assert undecided.value.record == RECORD
    assert room.kept == 0


def test_a_visitor_who_waits_still_gets_a_new_cookie(clock: Clock) -> None:
    """What the cookie lacks, it lacks also after a wait for Tailchat that brought nothing new."""
    renamed = RECORD._replace(nickname="Alicia")
    learned = Learned(RecheckResult(renamed, START))
    room = make(clock, rechecks=learned)
    section = FieldSection([(b"Cookie", room.field())])
    before = room.authenticator.visitor_of(section)
    assert before is not None
    assert room.authenticator.renewal(before) is not None
    learned.look_at = RecheckResult(NOBODY, START, waits=True)
    with pytest.raises(UndecidedError):
        room.authenticator.visitor_of(section)
    learned.look_at = RecheckResult(NOBODY, START + 900)
    after = room.authenticator.visitor_of(section)

    assert after is not None
    assert after.record == renamed
    assert room.authenticator.renewal(after) is not None


class CountingKey:
    """A key that counts how many tokens it opens, for all keys."""

    opened = 0

    def __init__(self, key: bytes) -> None:
        """Take the bytes of a key."""
        self._key = AESGCM(key)
        self.encrypt = self._key.encrypt

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """Open a token."""
        CountingKey.opened += 1
        return self._key.decrypt(nonce, data, associated_data)


def test_a_cookie_that_waited_is_opened_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened before the wait is judged after it, and only by who opened it."""
    monkeypatch.setattr(CountingKey, "opened", 0)
    monkeypatch.setattr(seal, "AESGCM", CountingKey)
    ring = KeyRing([SECRET.encode()], "session")
    cookie = SessionCookie(ring, NAMES, Lifetimes(12 * HOUR, 0.0), clock)
    revocation = RevocationState(clock)
    learned = Learned(RecheckResult(NOBODY, START, waits=True))
    first, other = (Authenticator(cookie, clock, revocation, rechecks=learned) for _ in range(2))
    section = FieldSection([(b"Cookie", cookie.set(RECORD).partition(";")[0].encode())])
    for _ in range(2):
        with pytest.raises(UndecidedError):
            first.visitor_of(section)

    learned.look_at = RecheckResult(NOBODY, START + 900)
    visitor = first.visitor_of(section.apart())
    assert visitor is not None
    assert CountingKey.opened == 2
    assert first.visitor_of(section) is visitor
    assert CountingKey.opened == 2

    learned.look_at = RecheckResult(NOBODY, START, waits=True)
    waiting = FieldSection(section.pairs)
    with pytest.raises(UndecidedError):
        other.visitor_of(waiting)
    learned.look_at = RecheckResult(NOBODY, START + 900)
    revocation.set_blocked(RECORD.sub, Reason.BANNED)
    assert other.visitor_of(waiting) is None


def test_no_renewal_without_idle_lifetime(clock: Clock) -> None:
    """With the idle lifetime off no cookie is ever set again."""
    room = make(clock)
    visitor = room.visitor([room.field()])
    assert visitor is not None
    clock.now += 11 * HOUR

    assert room.authenticator.renewal(visitor) is None
