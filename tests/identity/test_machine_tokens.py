"""Machine tokens without a socket: how one is made, known, presented and forgotten."""

import base64
import hashlib
import hmac
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from gatekit import Clock
from hypothesis import given
from hypothesis import strategies as st
from parts import missing

from tailchat_gate.config.model import Token
from tailchat_gate.identity.machine_tokens import TokenRefused, Tokens, hash_of, make_token
from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.authorization import read_bearer
from tailchat_gate.request.fields import FieldSection

SECRET = make_token(bytes(range(32)))
OTHER = make_token(bytes(range(1, 33)))


def section(*values: bytes, name: bytes = b"Authorization") -> FieldSection:
    """Return the section of a request with these Authorization values."""
    return FieldSection([(b"Host", b"gate.test"), *((name, value) for value in values)])


def bearer(token: str) -> FieldSection:
    """Return the section of a request that presents a token."""
    return section(b"Bearer " + token.encode("ascii"))


def known(clock: Clock, **values: object) -> Tokens:
    """Return the tokens of a configuration with one, named "ci"."""
    token = Token.model_validate({"name": "ci", "hash": hash_of(SECRET), **values})
    return Tokens([token], clock, RevocationState(clock))


def test_a_token_is_256_random_bits_behind_the_prefix() -> None:
    """It is the prefix and base64url of what it was made of, and nothing else."""
    assert SECRET == "tg_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert base64.urlsafe_b64decode(SECRET[3:] + "=") == bytes(range(32))
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 random bytes"):
            make_token(bytes(size))


def test_the_hash_is_what_sha256sum_prints() -> None:
    """Anybody can compute it by hand, with a program that is not the gate's."""
    program = shutil.which("sha256sum")
    if program is None:
        missing("sha256sum")
    done = subprocess.run([program], input=SECRET.encode(), capture_output=True, check=True)

    assert hash_of(SECRET) == f"sha256:{done.stdout.split()[0].decode()}"


@pytest.mark.parametrize(
    ("value", "presented"),
    [
        (b"Bearer " + SECRET.encode(), SECRET.encode()),
        (b"bearer " + SECRET.encode(), SECRET.encode()),
        (b"BEARER    " + SECRET.encode(), SECRET.encode()),
        (b"bEaReR tg_x", b"tg_x"),
        (b"Bearer tg_", b""),
        # Meant as a token of the gate, and not in the form of one.
        (b"Bearer\t" + SECRET.encode(), b""),
        (b"Bearer tg_a b", b""),
        (b"Bearer tg_\xff", b""),
        (b'Bearer "tg_a"', b""),
        (b"Bearer: tg_a", b""),
        (b"Bearer=tg_a", b""),
        (b"Bearertg_a", b""),
        (b"Basic YTpi, Bearer " + SECRET.encode(), b""),
        # The tool's own.
        (b"Bearer eyJhbGciOiJFUzI1NiJ9.tg_.tg_", None),
        (b"Bearer xtg_a", None),
        (b"Bearer TG_a", None),
        (b"Bearer", None),
        (b"Basic dGdfOmE=", None),
        (b"Token tg_a", None),
        (b"tg_a", None),
        (b"Forbearer tg_a", None),
        (b"", None),
    ],
)
def test_what_is_presented(value: bytes, presented: bytes | None) -> None:
    """A Bearer that begins as the gate's tokens do is the gate's to judge, any other is not."""
    assert read_bearer([value]) == presented
    assert section(value).bearer == presented
    assert section(value, name=b"aUTHORIZATION").bearer == presented


def test_nothing_presented() -> None:
    """No Authorization, or several of the tool's own, present nothing."""
    assert section().bearer is None
    assert section(b"Basic YTpi", b"Bearer x").bearer is None
    assert section(b"Bearer tg_a", name=b"X-Authorization").bearer is None
    assert section(b"Bearer tg_a", name=b"Proxy-Authorization").bearer is None


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("other", [b"Basic YTpi", b"", b"Bearer " + SECRET.encode()])
def test_a_token_beside_another_authorization_is_refused(other: bytes, place: int) -> None:
    """Nobody can tell which of two Authorization fields counts, so neither does."""
    values = [other]
    values.insert(place, b"Bearer " + SECRET.encode())
    with pytest.raises(RefusedError, match="more than one Authorization") as refused:
        section(*values)

    assert refused.value.reason is Reason.BAD_REQUEST


def test_a_known_token_is_a_machine(clock: Clock) -> None:
    """A client that presents it is the machine of that name, the same one each time."""
    tokens = known(clock, expires="2027-06-01", routes=["wiki"])
    machine = tokens.machine_of(bearer(SECRET))

    assert (machine.name, machine.ends_at) == ("ci", 1_811_808_000.0)
    assert tokens.machine_of(bearer(SECRET)) is machine
    assert known(clock).machine_of(bearer(SECRET)).ends_at == math.inf


@pytest.mark.parametrize(
    "presented",
    [
        *(OTHER, SECRET[:-1], SECRET + "A", SECRET + "=", SECRET.upper().replace("TG_", "tg_")),
        *("tg_", "tg_" + SECRET, "tg_" + hash_of(SECRET), "tg_" + hash_of(SECRET)[7:]),
        # 43 characters hold two bits more than 32 bytes: no other spelling of them is good.
        SECRET[:-1] + "9",
    ],
)
def test_any_other_token_is_unknown(clock: Clock, presented: str) -> None:
    """Nothing but the token itself is good: no part, no other spelling, not its hash."""
    with pytest.raises(TokenRefused) as refused:
        known(clock).machine_of(bearer(presented))

    assert (refused.value.reason, refused.value.name) == (Reason.TOKEN_UNKNOWN, "")


@given(st.binary(max_size=60))
def test_no_bytes_but_the_token_are_good(data: bytes) -> None:
    """Whatever stands behind the scheme, it is no machine and no error of another kind."""
    found = FieldSection([(b"Host", b"h"), (b"Authorization", b"Bearer tg_" + data)])
    with pytest.raises(TokenRefused):
        known(Clock()).machine_of(found)


def test_malformed_is_unknown(clock: Clock) -> None:
    """A malformed token is not that of the empty text, even where that were configured."""
    empty = Token(name="empty", hash="sha256:" + hashlib.sha256(b"").hexdigest())
    with pytest.raises(TokenRefused) as refused:
        Tokens([empty], clock, RevocationState(clock)).machine_of(section(b"Bearer tg_a b"))

    assert refused.value.reason is Reason.TOKEN_UNKNOWN


def test_expiry_is_asked_every_time(clock: Clock) -> None:
    """A token ends with its second, also on a section for which it was good before."""
    tokens, fields = known(clock, expires="2027-06-01"), bearer(SECRET)
    ends_at = tokens.machine_of(fields).ends_at

    clock.now = ends_at - 0.001
    assert tokens.machine_of(fields).name == "ci"
    for now in (ends_at, ends_at + 1, ends_at + 10**9):
        clock.now = now
        with pytest.raises(TokenRefused) as refused:
            tokens.machine_of(fields)
        assert (refused.value.reason, refused.value.name) == (Reason.TOKEN_EXPIRED, "ci")


def test_a_token_is_hashed_once_a_section(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client repeats its fields: what was found is kept, for good tokens and for others."""
    hashed: list[bytes] = []
    sha256 = hashlib.sha256

    def counting(data: bytes) -> Any:  # noqa: ANN401 - the library's own type
        hashed.append(data)
        return sha256(data)

    tokens = known(clock)
    monkeypatch.setattr(hashlib, "sha256", counting)
    good, bad = bearer(SECRET), bearer(OTHER)
    for _ in range(3):
        assert tokens.machine_of(good).name == "ci"
        with pytest.raises(TokenRefused):
            tokens.machine_of(bad)

    assert hashed == [SECRET.encode(), OTHER.encode()]


def test_what_is_kept_is_of_one_configuration(clock: Clock) -> None:
    """A section that was found good by one configuration is asked again by the next."""
    fields = bearer(SECRET)
    assert known(clock).machine_of(fields).name == "ci"

    with pytest.raises(TokenRefused) as refused:
        Tokens([], clock, RevocationState(clock)).machine_of(fields)
    assert refused.value.reason is Reason.TOKEN_UNKNOWN
    renamed = known(clock, name="cd")
    assert renamed.machine_of(fields).name == "cd"


def test_the_comparison_that_decides_is_of_constant_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good and unknown tokens are told apart by hmac.compare_digest, over whole hashes."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    tokens = known(clock)
    tokens.machine_of(bearer(SECRET))
    with pytest.raises(TokenRefused):
        tokens.machine_of(bearer(OTHER))

    digest, other = (hashlib.sha256(t.encode()).digest() for t in (SECRET, OTHER))
    assert compared == [(digest, digest), (b"", other)]


SHOWN: list[Callable[[Tokens, FieldSection], object]] = [
    lambda tokens, fields: tokens,
    lambda tokens, fields: tokens.machine_of(fields),
    lambda tokens, fields: fields,
    lambda tokens, fields: TokenRefused(Reason.TOKEN_EXPIRED, "ci"),
]


@pytest.mark.parametrize("of", SHOWN)
def test_no_text_of_an_object_shows_a_token(
    clock: Clock, of: Callable[[Tokens, FieldSection], object]
) -> None:
    """Nothing that a log or a traceback may print of what holds a token has it in it."""
    token = make_token(os.urandom(32))
    configured = Token(name="ci", hash=hash_of(token))
    shown = of(Tokens([configured], clock, RevocationState(clock)), bearer(token))

    for text in (repr(shown), str(shown), f"{shown}"):
        assert token not in text
        assert token[3:] not in text
