"""The signed identity without a socket: what is signed, by which key, and when again."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from gatekit import ALICE, START, SUB, Clock, make_settings
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.access.routes import Route, RouteTable
from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.proxy.message.assertion import (
    HEADER,
    KEY_SET_MAX_AGE,
    Assertions,
    PublishedKeys,
    SigningKey,
    signer,
)
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders

KEY, OTHER = (SigningKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
RECORD = SessionRecord.begin(ALICE, now=START, login="l")
ISSUER = "https://gate.test"


def make(
    clock: Clock,
    *keys: SigningKey,
    published: PublishedKeys | None = None,
    lifetime: float = 300.0,
    random_bytes: Callable[[int], bytes] = bytes,
) -> Assertions:
    """Return what signs with these keys, or with KEY, and is in force."""
    published = published or PublishedKeys()
    made = Assertions(
        keys or (KEY,),
        published,
        issuer=ISSUER,
        lifetime=lifetime,
        clock=clock,
        random_bytes=random_bytes,
    )
    published.publish(made.kids, clock())
    return made


def visitor(ends_at: float = START + 43_200, **values: str) -> Visitor:
    """Return a visitor with these values in the record."""
    record = RECORD._replace(**values)  # type: ignore[arg-type] # texts
    return Visitor(record, ends_at, ends_at)


def token_in(lines: bytes) -> str:
    """Return the one assertion in some header lines."""
    (found,) = [line for line in lines.split(b"\r\n") if line.startswith(HEADER + b": ")]
    return found.partition(b": ")[2].decode("ascii")


def opened(lines: bytes, *keys: SigningKey) -> dict[str, Any]:
    """Return the claims of the assertion in some lines, its signature checked by PyJWT."""
    token = token_in(lines)
    by_kid = {key.kid: key.jwk for key in keys or (KEY,)}
    key = jwt.PyJWK(by_kid[jwt.get_unverified_header(token)["kid"]])
    return jwt.decode(  # the times are the tests' own
        token,
        key,
        algorithms=["ES256"],
        options={
            "verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False
        },
    )  # fmt: skip


def test_the_claims_of_a_person(clock: Clock) -> None:
    """Who it is, for whom, by whom and until when; the session's own name is not in it."""
    minted = make(clock, random_bytes=lambda size: b"\xff" * size).mint(
        visitor(), ["dev", "ops"], "wiki"
    )
    sid = hashlib.sha256(b"tailchat-gate sid " + RECORD.sid.encode()).digest()[:16]

    assert opened(minted.line) == {
        "iss": ISSUER,
        "aud": "wiki",
        "sub": SUB,
        "nickname": "Alice",
        "groups": ["dev", "ops"],
        "sid": urlsafe_b64encode(sid).rstrip(b"=").decode(),
        "jti": "_____________________w",
        "iat": int(START),
        "nbf": int(START),
        "exp": int(START) + 300,
    }
    assert jwt.get_unverified_header(token_in(minted.line)) == {
        "alg": "ES256",
        "kid": KEY.kid,
        "typ": "JWT",
    }
    assert RECORD.sid not in str(opened(minted.line))


def test_the_claims_of_a_machine(clock: Clock) -> None:
    """A machine has no nickname and no session, and says in a claim of its own that it is one."""
    claims = opened(make(clock).mint(Machine("ci", START + 60), [], "wiki").line)

    assert (claims["sub"], claims["token"], claims["groups"]) == ("token:ci", "ci", [])
    assert claims["exp"] == int(START) + 60
    assert claims.keys() == {"iss", "aud", "sub", "token", "groups", "jti", "iat", "nbf", "exp"}


def test_nobodys_groups_are_a_list(clock: Clock) -> None:
    """A person without groups has an empty list, which no reader takes for anything else."""
    assert opened(make(clock).mint(visitor(), [], "wiki").line)["groups"] == []


@pytest.mark.parametrize(
    ("nickname", "claim"),
    [
        ("", ""),
        ("星野 ☆", "星野 ☆"),
        ("a" * 96, "a" * 96),
        ("a" * 97, "a" * 96),
        ("星" * 128, "星" * 32),
        ("😀" * 128, "😀" * 24),
        ("a" + "😀" * 128, "a" + "😀" * 23),
        ('"}\r\n\x00', '"}\r\n\x00'),
        ("\ud800a\udfff", "a"),
    ],
)
def test_the_nickname_is_cut_between_characters(nickname: str, claim: str, clock: Clock) -> None:
    """It takes 96 bytes at most, and nothing in it gets out of its quotes or breaks the line."""
    line = make(clock).mint(visitor(nickname=nickname), [], "wiki").line

    assert opened(line)["nickname"] == claim
    assert line.count(b"\r\n") == 1


@given(st.text())
def test_any_nickname_is_one_claim(nickname: str) -> None:
    """Whatever a person calls himself, every other claim is as it was."""
    claims = opened(make(Clock()).mint(visitor(nickname=nickname), ["ops"], "wiki").line)
    cut = nickname.encode("utf-8", "ignore")[:96]

    assert claims["nickname"] == cut.decode("utf-8", "ignore")
    assert (claims["sub"], claims["groups"], claims["aud"]) == (SUB, ["ops"], "wiki")


def test_an_assertion_is_small(clock: Clock) -> None:
    """With the longest nickname and a handful of groups it stays below 1 KiB, name included."""
    groups = [f"a-group-of-{number}" for number in range(8)]
    line = make(clock).mint(visitor(nickname='"' * 500), groups, "https://wiki.example.com").line

    assert len(line) < 1024
    assert len(make(clock).mint(visitor(), ["ops"], "wiki").line) < 600


# Keys.


def test_a_key_is_named_by_its_own_value() -> None:
    """The kid is the thumbprint of RFC 7638, computed here by hand, and the JWK has no secret."""
    members = {name: KEY.jwk[name] for name in ("crv", "kty", "x", "y")}
    text = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()

    assert urlsafe_b64decode(KEY.kid + "=") == hashlib.sha256(text).digest()
    assert KEY.jwk.keys() == {"crv", "kty", "x", "y", "use", "alg", "kid"}
    assert (KEY.jwk["use"], KEY.jwk["alg"], KEY.jwk["kid"]) == ("sig", "ES256", KEY.kid)
    assert OTHER.kid != KEY.kid
    assert repr(KEY) == f"<SigningKey {KEY.kid}>"


def test_coordinates_keep_their_zeros() -> None:
    """A coordinate that begins with a zero byte is 32 bytes all the same (RFC 7518 6.2.1.2)."""
    for scalar in range(1, 2000):
        key = ec.derive_private_key(scalar, ec.SECP256R1())
        if key.public_key().public_numbers().x < 2**248:
            break
    found = SigningKey(key).jwk

    assert (
        len(urlsafe_b64decode(found["x"] + "=")) == len(urlsafe_b64decode(found["y"] + "=")) == 32
    )
    assert urlsafe_b64decode(found["x"] + "=")[0] == 0


def test_the_key_set_is_that_of_the_configuration(clock: Clock) -> None:
    """Every key is in it, in order, as a JSON Web Key Set that PyJWT reads."""
    found = json.loads(make(clock, OTHER, KEY).key_set)

    assert found == {"keys": [OTHER.jwk, KEY.jwk]}
    assert [key.key_id for key in jwt.PyJWKSet.from_dict(found).keys] == [OTHER.kid, KEY.kid]


LATER = START + KEY_SET_MAX_AGE


@pytest.mark.parametrize(
    ("ring", "since", "now", "signs"),
    [
        # A start: everything was published a moment ago.
        ("a", {"a": START}, START, "a"),
        ("ab", {"a": START, "b": START}, START, "a"),
        ("ab", {"a": START, "b": START}, LATER, "a"),
        # A new key in front: the old one signs until no cache can be without the new one.
        ("ba", {"b": START, "a": START - 9999}, START, "a"),
        ("ba", {"b": START, "a": START - 9999}, LATER - 0.001, "a"),
        ("ba", {"b": START, "a": START - 9999}, LATER, "b"),
        # The old one is as young itself: it has been published longer all the same.
        ("ba", {"b": START, "a": START - 1}, START, "a"),
        ("ba", {"b": START, "a": START - 1}, LATER - 1, "a"),
        ("ba", {"b": START, "a": START - 1}, LATER, "b"),
        # A new key behind changes nothing.
        ("ab", {"a": START - 9999, "b": START}, START, "a"),
        # The old one is gone: there is no other.
        ("b", {"b": START}, START, "b"),
        # Several are known to all: the first signs.
        ("cba", {"c": START, "b": START - 9999, "a": START - 99999}, START, "b"),
        # A request of a configuration that was replaced, some keys of which are gone.
        ("ab", {"b": START}, START, "b"),
        ("ab", {"b": START - 9999}, START, "b"),
        ("ab", {}, START, "a"),
        # The clock was put back.
        ("ba", {"b": START + 50, "a": START + 10}, START, "a"),
    ],
)
def test_which_key_signs(ring: str, since: dict[str, float], now: float, signs: str) -> None:
    """No key signs before everybody can know it, as long as there is one that everybody knows."""
    assert signer(tuple(ring), since, now) == signs


@given(
    since=st.dictionaries(st.sampled_from("abcd"), st.floats(-600, 0), min_size=1),
    order=st.permutations("abcd"),
)
def test_a_key_that_not_all_know_signs_only_without_another(
    since: dict[str, float], order: list[str]
) -> None:
    """The first of those that everybody knows signs; where there is none, the oldest."""
    ring = [kid for kid in order if kid in since]
    found = signer(ring, since, 0.0)
    known = [kid for kid in ring if since[kid] <= -KEY_SET_MAX_AGE]

    assert found == (known[0] if known else found)
    assert known or since[found] == min(since.values())


def test_publication_outlives_a_configuration(clock: Clock) -> None:
    """A new key in front signs five minutes later; what was published before stays so."""
    published = PublishedKeys()
    make(clock, KEY, published=published)
    clock.now += 1000
    assertions = make(clock, OTHER, KEY, published=published)
    signs = []
    for step in (0.0, 299.0, 1.0):
        clock.now += step
        line = assertions.mint(visitor(), [], "wiki").line
        signs.append(jwt.get_unverified_header(token_in(line))["kid"])
    # The same configuration taken up again, a moment later, is no new publication.
    again = make(clock, OTHER, KEY, published=published).mint(visitor(), [], "wiki").line

    assert signs == [KEY.kid, KEY.kid, OTHER.kid]
    assert jwt.get_unverified_header(token_in(again))["kid"] == OTHER.kid


def test_a_key_that_was_away_is_new_again(clock: Clock) -> None:
    """A key that was taken out is no longer known, however long it was before."""
    published = PublishedKeys()
    make(clock, OTHER, KEY, published=published)
    clock.now += 1000
    make(clock, KEY, published=published)
    clock.now += 1000
    line = make(clock, OTHER, KEY, published=published).mint(visitor(), [], "wiki").line

    assert jwt.get_unverified_header(token_in(line))["kid"] == KEY.kid
    published.publish((), clock())
    assert published.since == {}


# Once a session and route.


@dataclass
class Bench:
    """Routes, what makes the lines for them, and how many random ids were drawn."""

    routes: Sequence[Route]
    headers: IdentityHeaders
    drawn: list[int]

    @classmethod
    def make(cls, clock: Clock, *, lifetime: float = 300.0, **groups: list[str]) -> "Bench":
        """Return three routes: the default, one with an audience, one without assertions."""
        made = make_settings(
            route=[
                {"name": "wiki"},
                {"name": "docs", "path": "/docs", "audience": "https://docs.test/api"},
                {"name": "off", "path": "/off", "assertion": False},
                *({"name": f"r{n}", "path": f"/r{n}"} for n in range(40)),
            ]
        )
        drawn: list[int] = []

        def random_bytes(size: int) -> bytes:
            drawn.append(size)
            return len(drawn).to_bytes(size, "big")

        assertions = make(clock, lifetime=lifetime, random_bytes=random_bytes)
        return cls(RouteTable(made.route, {}).routes, IdentityHeaders(groups, assertions), drawn)


def test_an_assertion_is_made_once_a_session_and_route(clock: Clock) -> None:
    """Every request of a session gets the same bytes; another session or route its own."""
    bench = Bench.make(clock)
    wiki, docs = bench.routes[:2]
    one, two = visitor(), visitor(sid="another")
    lines = bench.headers.fields(one, wiki)

    assert all(bench.headers.fields(one, wiki) is lines for _ in range(100))
    assert bench.drawn == [16]
    assert opened(lines)["aud"] == "wiki"
    assert opened(bench.headers.fields(one, docs))["aud"] == "https://docs.test/api"
    claims = opened(bench.headers.fields(two, wiki))
    assert claims["sid"] != opened(lines)["sid"]
    assert len({claims["jti"], opened(lines)["jti"]}) == 2
    assert lines.startswith(b"X-Tailchat-Sub: " + SUB.encode() + b"\r\n")


def test_a_route_without_assertions(clock: Clock) -> None:
    """Assertion = false leaves the line out, and costs no signature."""
    bench = Bench.make(clock)

    assert HEADER not in bench.headers.fields(visitor(), bench.routes[2])
    assert HEADER not in bench.headers.fields(Machine("ci", START + 9), bench.routes[2])
    assert bench.drawn == []


@pytest.mark.parametrize(("lifetime", "early"), [(300.0, 60.0), (60.0, 30.0), (30.0, 15.0)])
def test_it_is_made_anew_shortly_before_it_ends(
    lifetime: float, early: float, clock: Clock
) -> None:
    """A tool never gets one with less than a minute left, or half of a short one."""
    bench = Bench.make(clock, lifetime=lifetime)
    person, wiki = visitor(), bench.routes[0]
    first = bench.headers.fields(person, wiki)

    clock.now += lifetime - early - 0.001
    assert bench.headers.fields(person, wiki) is first
    clock.now += 0.001
    second = bench.headers.fields(person, wiki)
    assert opened(second)["exp"] == int(clock.now + lifetime)
    assert opened(second)["iat"] == int(clock.now)
    assert len(bench.drawn) == 2


def test_it_ends_with_the_session(clock: Clock) -> None:
    """None outlives the session, and in its last minutes it is not made with every request."""
    bench = Bench.make(clock)
    person, wiki = visitor(ends_at=START + 100), bench.routes[0]
    for _ in range(100):
        assert opened(bench.headers.fields(person, wiki))["exp"] == int(START) + 100
        clock.now += 0.999

    assert len(bench.drawn) == 1


def test_it_is_of_one_configuration(clock: Clock) -> None:
    """With the next configuration come its groups, keys and audiences, for a kept visitor too."""
    person = visitor()
    before, after = Bench.make(clock, ops=[SUB]), Bench.make(clock)

    assert opened(before.headers.fields(person, before.routes[0]))["groups"] == ["ops"]
    assert opened(after.headers.fields(person, after.routes[0]))["groups"] == []
    assert b"X-Tailchat-Groups" not in after.headers.fields(person, after.routes[0])
    # Requests that began before go on as they were.
    assert opened(before.headers.fields(person, before.routes[0]))["groups"] == ["ops"]


def test_what_is_kept_of_a_visitor_is_bounded(clock: Clock) -> None:
    """For a visitor of many routes the gate keeps only a few assertions at a time."""
    bench, person = Bench.make(clock), visitor()
    for route in bench.routes:
        bench.headers.fields(person, route)

    assert len(person.assertions) <= 16


def test_without_assertions_nothing_is_signed() -> None:
    """Where no key is configured, the lines are those of before."""
    route = RouteTable(make_settings(route=[{"name": "wiki"}]).route, {}).routes[0]
    person = visitor()

    assert HEADER not in IdentityHeaders({}).fields(person, route)
    assert person.assertions == {}
