import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailchat_gate.identity.seal import MAX_TOKEN, KeyRing, new_secret

OLD = b"old secret of at least 32 bytes!"
NEW = b"new secret of at least 32 bytes!"
# Found by trying: for the purpose "collide" both have the same key id.
SAME_ID = (b"%032d" % 3512, b"%032d" % 54099)
ALPHABET = string.ascii_letters + string.digits + "-_"


@given(data=st.binary(max_size=300))
def test_opens_what_it_sealed(data: bytes) -> None:
    """What a ring seals, the same ring and another of the same secret open unchanged."""
    token = KeyRing([NEW], "session").seal(data)

    assert KeyRing([NEW], "session").open(token) == data
    assert set(token) <= set(ALPHABET)


def test_two_tokens_of_one_text_differ() -> None:
    """Sealing twice gives two tokens, because each has a nonce of its own."""
    ring = KeyRing([NEW], "session")

    assert len({ring.seal(b"same") for _ in range(100)}) == 100


def test_token_says_nothing_about_its_content() -> None:
    """No part of the sealed text can be read in the token or in its decoded bytes."""
    token = KeyRing([NEW], "session").seal(b"660000000000000000000001")
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))

    assert len(raw) == 1 + 4 + 12 + 24 + 16
    assert b"66000000" not in raw


def test_rotation() -> None:
    """After a rotation the new secret seals, the old still opens, and a dropped one does not."""
    before, during, after = (KeyRing(s, "session") for s in ([OLD], [NEW, OLD], [NEW]))

    assert during.open(before.seal(b"x")) == b"x"
    assert after.open(during.seal(b"x")) == b"x"
    assert before.open(during.seal(b"x")) is None
    assert after.open(before.seal(b"x")) is None


def test_purposes_are_apart() -> None:
    """A token of one purpose is worth nothing under another, although the secret is the same."""
    assert KeyRing([NEW], "login-state").open(KeyRing([NEW], "session").seal(b"x")) is None


def test_colliding_key_ids() -> None:
    """Two secrets that happen to share a key id both open their own tokens."""
    both = KeyRing(SAME_ID, "collide")
    tokens = [KeyRing([secret], "collide").seal(secret) for secret in SAME_ID]

    assert tokens[0][:6] == tokens[1][:6]
    assert [both.open(token) for token in tokens] == list(SAME_ID)


def test_every_changed_character_is_noticed() -> None:
    """A token with any one character replaced by any other does not open."""
    ring = KeyRing([NEW], "session")
    token = ring.seal(b"x")

    for place, right in enumerate(token):
        for wrong in ALPHABET.replace(right, ""):
            assert ring.open(token[:place] + wrong + token[place + 1 :]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: "A",
        lambda token: token[:-1],
        lambda token: token[: len(token) // 2],
        lambda token: token[len(token) // 2 :],
        lambda token: token + token,
        lambda token: token + "A",
        lambda token: token + "=",
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token + "\x00",
        lambda token: token + "é",
        lambda token: token + "\ud800",
        lambda token: "\uff21" + token[1:],
        lambda token: "A" * 44,
        lambda token: "AQ" + "A" * 43,
        lambda token: token + "A" * MAX_TOKEN,
        lambda token: "-" * 1_000_000,
    ],
)
def test_junk_is_not_opened(change: object) -> None:
    """Cut, doubled, padded, non-ASCII, over-long and made-up tokens give None, no exception."""
    ring = KeyRing([NEW], "session")
    token = ring.seal(b"some text")

    assert callable(change)
    assert ring.open(change(token)) is None


def test_one_spelling() -> None:
    """The same bytes in the standard base64 alphabet or with padding are not accepted."""
    ring = KeyRing([NEW], "session")
    tokens = [ring.seal(b"seven77") for _ in range(50)]
    raw = [base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)) for token in tokens]
    standard = [base64.b64encode(one).decode() for one in raw]

    assert any(set("+/") & set(one) for one in standard)
    assert all(one.endswith("=") for one in standard)
    for one in standard:
        assert ring.open(one) is None
        if set("+/") & set(one):
            assert ring.open(one.rstrip("=")) is None


@given(token=st.text(alphabet=st.characters(), max_size=200))
def test_open_never_raises(token: str) -> None:
    """Any text at all, surrogates and controls among it, is answered with None."""
    assert KeyRing([NEW], "session").open(token) is None


def test_size_limit() -> None:
    """The largest text that can be sealed opens again, and one byte more is refused."""
    ring = KeyRing([NEW], "session")
    most = MAX_TOKEN * 3 // 4 - 33

    assert ring.open(ring.seal(b"x" * most)) == b"x" * most
    with pytest.raises(ValueError, match="make a token of more than 8192 characters"):
        ring.seal(b"x" * (most + 1))


@pytest.mark.parametrize("secrets", [[], [b""], [b"x" * 31], [NEW, b"short"]])
def test_weak_secrets(secrets: list[bytes]) -> None:
    """A ring without a secret, or with one under 32 bytes, cannot be made."""
    with pytest.raises(ValueError, match="secret"):
        KeyRing(secrets, "session")


def test_new_secret() -> None:
    """A new secret is 32 random bytes in base64url, good for a ring, and never the same."""
    first, second = new_secret(), new_secret()

    assert len(base64.urlsafe_b64decode(first + "=")) == 32
    assert first != second
    assert KeyRing([first.encode()], "session").open("") is None


def test_repr_shows_no_key() -> None:
    """The repr names the purpose and shows no byte of a secret."""
    shown = repr(KeyRing([NEW, OLD], "session"))

    assert shown == "<KeyRing 'session', 2 keys>"
