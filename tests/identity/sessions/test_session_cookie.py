import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from aiohttp_session import get_session, new_session, setup
from gatekit import ALICE, SECRET, START, SUB, Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from tables import check_each

from tailchat_gate.identity.host_sessions import SealedSessionStorage
from tailchat_gate.identity.oauth.responses import Profile, TokenSet
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import (
    MAX_COOKIE_BYTES,
    Lifetimes,
    SessionCookie,
    SessionTooLargeError,
)
from tailchat_gate.syntax import COMPACT

HOUR = 3600.0
OTHER_SECRET = "another secret of 32 bytes or more, for the ring"
NAMES = CookieNames.for_origin("https://gate.test")
RECORD = SessionRecord.begin(ALICE, now=START, login="login-1")
OPTIONAL = (
    *("checked_at", "access_token", "access_expires_at", "refresh_token", "embedded"),
    "password_at",
)
WITH_TOKENS = SessionRecord.begin(
    ALICE,
    now=START,
    login="login-1",
    tokens=TokenSet("access-1", refresh_token="refresh-1", expires_at=int(START) + 3600),
)


def make_cookie(
    clock: Clock,
    *secrets: str,
    absolute: float = 12 * HOUR,
    idle: float = 0.0,
    purpose: str = "session",
) -> SessionCookie:
    """Return a session cookie sealed by the first of `secrets`."""
    ring = KeyRing([secret.encode() for secret in secrets or (SECRET,)], purpose)
    return SessionCookie(ring, NAMES, Lifetimes(absolute, idle), clock)


def value_of(set_cookie: str) -> str:
    """Return the value in a Set-Cookie line."""
    return set_cookie.partition(";")[0].partition("=")[2]


def max_age_of(set_cookie: str) -> int:
    """Return Max-Age in a Set-Cookie line."""
    return int(set_cookie.partition("Max-Age=")[2].partition(";")[0])


def request_with(*cookies: str) -> web.Request:
    """Return a request with these Cookie fields."""
    fields = CIMultiDict([("Cookie", cookie) for cookie in cookies])
    return make_mocked_request("GET", "/", headers=fields)


# The record.


def test_begin() -> None:
    """A new session takes the profile, the whole second and a name of its own."""
    other = SessionRecord.begin(ALICE, now=START + 0.9, login="login-1")

    assert other._replace(sid=RECORD.sid) == RECORD
    assert other.sid != RECORD.sid
    assert len(other.sid) == 22
    assert (RECORD.sub, RECORD.nickname) == (SUB, "Alice")
    assert RECORD.signed_in_at == RECORD.seen_at == int(START)


def test_the_name_of_a_session_is_no_option_of_a_command() -> None:
    """One that begins with a dash could not be given to `tailchat-gate sessions end`."""
    begun = (SessionRecord.begin(ALICE, now=START, login="") for _ in range(2000))

    assert not any(record.sid.startswith("-") for record in begun)


@given(nickname=st.text(st.characters(codec="utf-8")), at=st.integers(0, 2**40))
def test_record_survives_bytes(nickname: str, at: int) -> None:
    """A record comes back from its bytes unchanged, whatever the nickname is."""
    record = RECORD._replace(nickname=nickname, seen_at=at)

    assert SessionRecord.from_bytes(record.to_bytes()) == record


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"NaN",
        b"\xff\xfe",
        b"\x00",
        b"{}",
        b"[" * 2000,
        b'{"a":' * 2000,
        b"9" * 5000,
    ],
)
def test_other_bytes_are_no_record(data: bytes) -> None:
    """What is no JSON object of a record's fields is no record."""
    assert SessionRecord.from_bytes(data) is None


@pytest.mark.parametrize("name", [name for name in RECORD._asdict() if name not in OPTIONAL])
def test_missing_field_is_refused(name: str) -> None:
    """A record that lacks a field is no record."""
    fields = RECORD._asdict()
    del fields[name]

    assert SessionRecord.from_fields(fields) is None


def test_a_session_without_tokens_is_short() -> None:
    """A cookie opens without the fields that most sessions lack, and does not have them."""
    required = list(RECORD)[: -len(OPTIONAL)]

    assert json.loads(RECORD.to_bytes()) == required
    assert SessionRecord.from_bytes(json.dumps(required, separators=COMPACT).encode()) == RECORD


@pytest.mark.parametrize("length", [*range(len(RECORD) - len(OPTIONAL)), len(RECORD) + 1])
def test_a_list_of_another_length_is_refused(length: int) -> None:
    """A list that is too short for a session, or too long, is no record, whatever is in it."""
    values = [*WITH_TOKENS, 0][:length]

    assert SessionRecord.from_bytes(json.dumps(values, separators=COMPACT).encode()) is None


def test_tokens_survive_bytes_and_stay_out_of_sight() -> None:
    """A record with tokens comes back from its bytes, and shows them in no repr."""
    assert SessionRecord.from_bytes(WITH_TOKENS.to_bytes()) == WITH_TOKENS
    assert WITH_TOKENS.checked_at == WITH_TOKENS.signed_in_at
    assert "access-1" not in repr(WITH_TOKENS)
    assert "refresh-1" not in repr(WITH_TOKENS)


def test_additional_field_is_refused() -> None:
    """A record with one field more, of whatever name, is no record."""
    assert SessionRecord.from_fields({**RECORD._asdict(), "admin": True}) is None


@pytest.mark.parametrize("wrong", [None, True, 1.0, [], {}, b"x", float("nan")])
def test_mistyped_field_is_refused(wrong: object) -> None:
    """No field takes a value of another type, not even a true for a 1."""

    def check(name: str) -> None:
        value = 1 if name == "embedded" and wrong is True else wrong
        assert SessionRecord.from_fields({**RECORD._asdict(), name: value}) is None

    check_each(RECORD._asdict(), check)


@pytest.mark.parametrize("name", list(RECORD._asdict()))
def test_text_and_number_are_not_exchanged(name: str) -> None:
    """A text is refused where a number belongs, and a number where a text does."""
    fields: dict[str, Any] = RECORD._asdict()
    fields[name] = str(fields[name]) if isinstance(fields[name], int) else 1

    assert SessionRecord.from_fields(fields) is None


# Lifetimes.


@pytest.mark.parametrize(
    ("absolute", "idle", "signed_in", "seen", "now", "alive"),
    [
        (100, 0, 0, 0, 0, True),
        (100, 0, 0, 0, 99.9, True),
        (100, 0, 0, 0, 100, False),
        (100, 0, 0, 99, 100, False),
        (100, 0, 0, 5000, 100, False),
        (100, 10, 0, 0, 9.9, True),
        (100, 10, 0, 0, 10, False),
        (100, 10, 0, 50, 59, True),
        (100, 10, 0, 50, 60, False),
        (100, 10, 0, 95, 99, True),
        (100, 10, 0, 95, 100, False),
        (100, 10, 0, 10**9, 100, False),
        (100, 0, 1000, 1000, 940, True),
        (100, 0, 1000, 1000, 939, False),
        (100, 0, 10**9, 10**9, 0, False),
        (100, 0, -(10**9), 0, 0, False),
    ],
)
def test_alive(
    absolute: float, idle: float, signed_in: int, seen: int, now: float, alive: bool
) -> None:
    """The sign-in bounds a session whatever was seen since, idleness ends it sooner."""
    record = RECORD._replace(signed_in_at=signed_in, seen_at=seen)

    assert Lifetimes(absolute, idle).is_alive(record, now) is alive


@pytest.mark.parametrize(
    ("idle", "now", "due"),
    [(0, 10**9, False), (100, 0, False), (100, 24.9, False), (100, 25, True), (100, 99, True)],
)
def test_renewal_due(idle: float, now: float, due: bool) -> None:
    """A session is renewed after a quarter of its idle lifetime, and never without one."""
    record = RECORD._replace(signed_in_at=0, seen_at=0)

    assert Lifetimes(10**6, idle).renewal_due(record, now) is due


# The cookie.


def test_set_and_open(clock: Clock) -> None:
    """What is set comes back, under the name and flags of a cookie of this host alone."""
    cookie = make_cookie(clock)
    line = cookie.set(RECORD)

    assert cookie.open(value_of(line)) == RECORD
    assert line.startswith("__Host-tailchat_gate=")
    assert set(line.split("; ")[1:]) == {
        *("HttpOnly", "Secure", "Path=/", "SameSite=Lax", "Max-Age=43200")
    }


def test_absolute_lifetime_never_moves(clock: Clock) -> None:
    """However often a session is renewed, its cookie ends twelve hours after the sign-in."""
    cookie = make_cookie(clock, idle=HOUR)
    record = RECORD
    for _ in range(23):
        clock.now += HOUR / 2
        line = cookie.renew(record)
        renewed = cookie.open(value_of(line))
        assert renewed is not None
        assert cookie.lifetimes.is_alive(renewed, clock.now)
        assert renewed.signed_in_at == RECORD.signed_in_at
        assert max_age_of(line) == min(HOUR, RECORD.signed_in_at + 12 * HOUR - clock.now)
        record = renewed
    clock.now += HOUR / 2
    over = cookie.open(value_of(cookie.renew(record)))

    assert over is not None
    assert not cookie.lifetimes.is_alive(over, clock.now)
    assert max_age_of(cookie.renew(record)) == 0


def test_renewal_leaves_the_cookie_before_it_valid(clock: Clock) -> None:
    """Two tabs at once: the answer that comes second does not invalidate the first's cookie."""
    cookie = make_cookie(clock, idle=HOUR)
    before = value_of(cookie.set(RECORD))
    clock.now += HOUR / 2
    after = value_of(cookie.renew(RECORD))

    for value in (before, after):
        record = cookie.open(value)
        assert record is not None
        assert record.sid == RECORD.sid
        assert cookie.lifetimes.is_alive(record, clock.now)


def test_rotation_of_secrets(clock: Clock) -> None:
    """The first secret seals, all open, and one that is taken out opens nothing any more."""
    old, both, new = (
        make_cookie(clock, *secrets)
        for secrets in ([SECRET], [OTHER_SECRET, SECRET], [OTHER_SECRET])
    )

    assert both.open(value_of(old.set(RECORD))) == RECORD
    assert new.open(value_of(both.set(RECORD))) == RECORD
    assert old.open(value_of(both.set(RECORD))) is None
    assert new.open(value_of(old.set(RECORD))) is None


def test_value_sealed_for_another_purpose(clock: Clock) -> None:
    """What the same secret sealed for another purpose is no session."""
    other = make_cookie(clock, purpose="login")

    assert make_cookie(clock).open(value_of(other.set(RECORD))) is None


def test_sealed_but_no_record(clock: Clock) -> None:
    """Authentic bytes that are no record, as of an older version, are no session."""
    ring = KeyRing([SECRET.encode()], "session")

    assert make_cookie(clock).open(ring.seal(b'{"sub":"x"}')) is None
    assert make_cookie(clock).open(ring.seal(b"[" * 2000)) is None


def test_size_is_capped(clock: Clock) -> None:
    """A record that does not fit into a cookie of 3 KiB is refused, however large it is."""
    cookie = make_cookie(clock)
    fitting = 0
    for size in (*range(0, 3000, 25), 5000, 50_000, 5_000_000):
        record = RECORD._replace(nickname="n" * size)
        try:
            line = cookie.set(record)
        except SessionTooLargeError:
            continue
        fitting = size
        assert len(line) <= MAX_COOKIE_BYTES
        assert cookie.open(value_of(line)) == record

    assert 1500 < fitting < 2500
    with pytest.raises(
        SessionTooLargeError, match=r"^the session cookie has \d+ bytes, more than 3072$"
    ):
        cookie.set(RECORD._replace(nickname="n" * 2500))
    with pytest.raises(SessionTooLargeError, match=r"^the session has \d+ bytes, more than 3072$"):
        cookie.set(RECORD._replace(nickname="n" * 4000))


def test_largest_profile_fits(clock: Clock) -> None:
    """The largest profile that Tailchat's answer can become fits into a cookie."""
    largest = Profile("s" * 255, "\U0001f600" * 128, "\U0001f600" * 16, "https://x/" + "a" * 1014)
    cookie = make_cookie(clock)
    record = SessionRecord.begin(largest, now=START, login="l" * 22)

    assert cookie.open(value_of(cookie.set(record))) == record


def test_no_claim_can_be_read(clock: Clock) -> None:
    """No name, id or time can be read in the cookie, in its base64 at any offset or its bytes."""
    value = value_of(make_cookie(clock).set(RECORD))
    parts = [value[offset : offset + (len(value) - offset) // 4 * 4] for offset in range(4)]
    seen = value.encode() + b"".join(map(base64.urlsafe_b64decode, parts))

    for claim in (SUB, "Alice", "chat.example", "login-1", RECORD.sid, str(int(START))):
        assert claim.encode() not in seen


def test_every_flipped_bit_is_noticed(clock: Clock) -> None:
    """A cookie with any one bit of its bytes flipped is no session."""
    cookie = make_cookie(clock)
    value = value_of(cookie.set(RECORD))
    raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    for place in range(len(raw)):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << place % 8
        assert cookie.open(base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()) is None

    for place, sign in enumerate(value):
        assert (
            cookie.open(value[:place] + ("A" if sign != "A" else "B") + value[place + 1 :]) is None
        )


def test_every_cut_is_noticed(clock: Clock) -> None:
    """A cookie cut at any place, at either end, is no session."""
    cookie = make_cookie(clock)
    value = value_of(cookie.set(RECORD))

    for place in range(len(value)):
        assert cookie.open(value[:place]) is None
        assert place == 0 or cookie.open(value[place:]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value + value,
        lambda value: value + "\x00",
        lambda value: "\x00" + value,
        lambda value: value.replace("A", "A\x00", 1) + "\x00",
        lambda value: value + "=",
        lambda value: value + "==",
        lambda value: value + "A",
        lambda value: f'"{value}"',
        lambda value: f" {value}",
        lambda value: value + "\n",
        lambda value: value.swapcase(),
        lambda value: value[::-1],
        lambda value: value + "é",
        lambda value: value + "\udcff",
        lambda value: value + "." + value,
        lambda value: "A" * 10_000_000,
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: value.encode().hex(),
        lambda value: "",
        lambda value: "null",
        lambda value: json.dumps(RECORD._asdict()),
    ],
)
def test_other_values_are_no_session(change: Callable[[str], str], clock: Clock) -> None:
    """A doubled, padded, quoted, re-encoded or made-up cookie is no session, and no error."""
    cookie = make_cookie(clock)

    assert cookie.open(change(value_of(cookie.set(RECORD)))) is None


def test_standard_base64_is_no_second_spelling(clock: Clock) -> None:
    """The same bytes in the other base64 alphabet are no session: one session, one spelling."""
    cookie = make_cookie(clock)
    values = [value_of(cookie.set(RECORD)) for _ in range(20)]
    spelled = [value.replace("-", "+").replace("_", "/") for value in values]

    assert any(one != other for one, other in zip(values, spelled, strict=True))
    for one, other in zip(values, spelled, strict=True):
        assert (cookie.open(other) is None) is (one != other)


@given(text=st.text(max_size=100))
@settings(deadline=None)
def test_any_text_is_no_session(text: str) -> None:
    """No text that this gate did not seal opens, and none raises."""
    assert make_cookie(Clock()).open(text) is None


def test_delete(clock: Clock) -> None:
    """The cookie is deleted with the flags that it was set with."""
    line = make_cookie(clock).delete()

    assert value_of(line).strip('"') == ""
    assert set(line.split("; ")[1:]) == {
        *("HttpOnly", "Secure", "Path=/", "SameSite=Lax", "Max-Age=0")
    }


def test_the_largest_person_fits_with_tokens() -> None:
    """The longest names and picture that a profile lets pass fit beside Tailchat's tokens."""
    cookie = make_cookie(Clock(), absolute=30 * 24 * HOUR)
    largest = Profile("s" * 255, "\N{LINEAR B SYLLABLE B008 A}" * 128, '"' * 16, "a" * 1024)
    tokens = TokenSet("a" * 43, refresh_token="r" * 43, expires_at=int(START) + 3600)
    record = SessionRecord.begin(largest, now=START, login="f" * 16, tokens=tokens)

    assert len(cookie.set(record)) <= MAX_COOKIE_BYTES


# The storage.


def test_first_living_session_counts(clock: Clock) -> None:
    """Junk, foreign and dead cookies beside a good one cost nothing, in any order and field."""
    cookie = make_cookie(clock)
    storage = SealedSessionStorage(cookie)
    dead = value_of(cookie.set(RECORD._replace(signed_in_at=0)))
    good = value_of(cookie.set(RECORD))
    name = NAMES.session.encode()

    fields = [b"a=b", name + b"=junk; " + name + b"=" + dead.encode(), name + b"=" + good.encode()]
    assert storage.load_record(fields) == RECORD
    assert storage.load_record(fields[::-1]) == RECORD
    assert storage.load_record(fields[:2]) is None
    assert storage.load_record([]) is None


async def test_load_session(clock: Clock) -> None:
    """A sealed cookie is a session of aiohttp-session: not new, created at the sign-in."""
    cookie = make_cookie(clock)
    storage = SealedSessionStorage(cookie)
    session = await storage.load_session(request_with("a=b", cookie.set(RECORD).partition(";")[0]))

    assert not session.new
    assert dict(session) == RECORD._asdict()
    assert session.created == RECORD.signed_in_at
    assert session.identity == RECORD.sid


async def test_a_session_shows_no_token(clock: Clock) -> None:
    """The repr of a session with tokens in it has neither, loaded or new."""
    cookie = make_cookie(clock)
    storage = SealedSessionStorage(cookie)
    sent = cookie.set(WITH_TOKENS).partition(";")[0]
    loaded, new = await storage.load_session(request_with(sent)), await storage.new_session()
    new.update(WITH_TOKENS._asdict())

    for session in (loaded, new):
        assert session["refresh_token"] == "refresh-1"
        assert "refresh-1" not in f"{session} {session!r}"


async def test_load_session_without_cookie(clock: Clock) -> None:
    """Without a living session there is a new, empty one."""
    cookie = make_cookie(clock)
    storage = SealedSessionStorage(cookie)
    sent = cookie.set(RECORD).partition(";")[0]
    clock.now += 13 * HOUR

    for request in (request_with(), request_with("a=b"), request_with(sent)):
        session = await storage.load_session(request)
        assert session.new
        assert session.empty


async def test_save_of_another_mapping_is_refused(clock: Clock) -> None:
    """A session is a record or nothing: other values never get into the cookie."""
    storage = SealedSessionStorage(make_cookie(clock))
    session = await storage.new_session()
    session["access_token"] = "secret"
    response = web.Response()

    with pytest.raises(ValueError, match="not a SessionRecord"):
        await storage.save_session(request_with(), response, session)
    assert "Set-Cookie" not in response.headers


async def test_save_of_too_large_session_is_refused(clock: Clock) -> None:
    """A session that no cookie holds is refused and sets nothing."""
    storage = SealedSessionStorage(make_cookie(clock))
    session = await storage.new_session()
    session.update(RECORD._replace(nickname="n" * 4000)._asdict())
    response = web.Response()

    with pytest.raises(SessionTooLargeError):
        await storage.save_session(request_with(), response, session)
    assert "Set-Cookie" not in response.headers


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")  # aiohttp-session's own
async def test_storage_in_an_application(clock: Clock) -> None:
    """Through aiohttp-session's own middleware a person signs in, is known, and signs out."""

    async def sign_in(request: web.Request) -> web.Response:
        session = await new_session(request)
        session.update(RECORD._asdict())
        return web.Response()

    async def who(request: web.Request) -> web.Response:
        session = await get_session(request)
        return web.json_response(dict(session))

    async def sign_out(request: web.Request) -> web.Response:
        (await get_session(request)).invalidate()
        return web.Response()

    application = web.Application()
    setup(application, SealedSessionStorage(make_cookie(clock)))
    application.router.add_get("/in", sign_in)
    application.router.add_get("/who", who)
    application.router.add_get("/out", sign_out)

    async with TestClient(TestServer(application)) as client:
        line = (await client.get("/in")).headers["Set-Cookie"]
        sent = {"Cookie": line.partition(";")[0]}
        known = await client.get("/who", headers=sent)
        unknown = await client.get("/who")
        out = await client.get("/out", headers=sent)

        assert await known.json() == RECORD._asdict()
        assert "Set-Cookie" not in known.headers
        assert await unknown.json() == {}
        assert out.headers.getall("Set-Cookie") == [make_cookie(clock).delete()]
        assert "Secure" in out.headers["Set-Cookie"]
