"""The settings of machines and of the signed identity: moments, tokens, keys, audiences."""

import datetime as dt
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
from configkit import good, refused, saying
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from gatekit import make_settings
from pydantic import ValidationError

from tailchat_gate.config.files import KeyFileError, read_key
from tailchat_gate.config.values import quantities

HASH = "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
MIDNIGHT = 1_798_761_600.0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (dt.date(2027, 1, 1), MIDNIGHT),
        (dt.datetime(2027, 1, 1, tzinfo=UTC), MIDNIGHT),
        (dt.datetime(2027, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), MIDNIGHT),
        ("2027-01-01", MIDNIGHT),
        ("2027-01-01T00:00:00Z", MIDNIGHT),
        ("2027-01-01t00:00:00z", MIDNIGHT),
        ("2027-01-01 00:00:01.5+00:00", MIDNIGHT + 1.5),
        ("2026-12-31T19:00:00-05:00", MIDNIGHT),
    ],
)
def test_a_moment_is_read(written: object, seconds: float) -> None:
    """A day begins at 00:00 UTC, and a time counts in its own zone."""
    assert quantities.read_timestamp(written) == seconds
    assert quantities.read_timestamp(quantities.format_timestamp(seconds)) == seconds


@pytest.mark.parametrize(
    "written",
    [
        *("", "soon", "2027", "2027-1-1", "2027-13-01", "2027-02-30", "20270101", "2027-W01-1"),
        *("2027-01-01T12:00:00", "2027-01-01T12:00", "2027-01-01T25:00:00Z", " 2027-01-01"),
        *("2027-01-01\n", "٢٠٢٧-01-01"),
        *(0, 1.5, 1_800_000_000, True, None, [], dt.time(12)),
        dt.datetime(2027, 1, 1),  # noqa: DTZ001 - as TOML gives a time without its zone
    ],
)
def test_what_is_no_moment_is_refused(written: object) -> None:
    """A time without its zone, which would be another elsewhere, is refused like any nonsense."""
    with pytest.raises(ValueError, match="a date such as 2027-01-01"):
        quantities.read_timestamp(written)


def test_tokens_come_from_the_environment_too(smallest: Path) -> None:
    """One variable holds all tokens, and a date in JSON is text."""
    text = f'[{{"name": "ci", "hash": "{HASH}", "expires": "2027-01-01"}}]'
    route = '[{"name": "a", "upstream": "http://a", "allow": ["token:ci"]}]'
    (token,) = good(smallest, TOKEN=text, ROUTE=route).settings.token

    assert (token.name, token.hash, token.routes, token.expires) == ("ci", HASH, None, MIDNIGHT)


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("ci", "TAILCHAT_GATE_TOKEN", "text that is neither TOML nor JSON"),
        ("{}", "TAILCHAT_GATE_TOKEN", "a table"),
        ("[1]", "TAILCHAT_GATE_TOKEN[0]", "a number"),
        ('[{"name": "ci", "hash": "hunter2"}]', "TAILCHAT_GATE_TOKEN[0].hash", "text"),
    ],
)
def test_bad_tokens_in_the_environment_are_refused(
    smallest: Path, text: str, place: str, found: str
) -> None:
    """Each problem has its place in the variable, and what may be a token is never shown."""
    assert saying(refused(smallest, TOKEN=text)) == [(place, found)]


def test_settings_refuse_conflicts_of_tokens_however_they_are_built() -> None:
    """A Settings object without a file behind it holds the same promises."""
    with pytest.raises(ValidationError, match=r"route\[0\]\.allow\[0\]"):
        make_settings(route=[{"name": "a", "allow": ["token:ci"]}])
    with pytest.raises(ValidationError, match=r"token\[0\]\.routes\[0\]"):
        make_settings(token=[{"name": "ci", "hash": HASH, "routes": ["a"]}], route=[{"name": "a"}])
    with pytest.raises(ValidationError, match=r"token\[1\]\.hash"):
        make_settings(token=[{"name": "ci", "hash": HASH}, {"name": "cd", "hash": HASH}])


def test_problems_of_a_token_do_not_hide_or_make_others(smallest: Path) -> None:
    """A name is known though its token or route has problems; only real mistakes are listed."""
    tokens = f'[{{name = "ci", hash = "x"}}, {{name = "cd", hash = "{HASH}", routes = ["b"]}}]'
    routes = (
        '[{name = "a", upstream = "http://a", allow = ["token:ci", "token:co"]},'
        ' {name = "b", path = "/b", upstream = "b", allow = ["token:cd"]}]'
    )

    assert [place for place, _ in saying(refused(smallest, TOKEN=tokens, ROUTE=routes))] == [
        "TAILCHAT_GATE_TOKEN[0].hash",
        "TAILCHAT_GATE_ROUTE[1].upstream",
        "TAILCHAT_GATE_ROUTE[0].allow[1]",
    ]


@pytest.mark.parametrize(
    ("token", "allow", "warning"),
    [
        ("", '["token:ci"]', ""),
        (', routes = ["a", "b"]', '["token:ci"]', ""),
        ("", '["signed-in"]', "token[0]: no route allows it"),
        (', routes = ["b"]', '["token:ci"]', "token[0].routes: it leaves out a, whose allow"),
    ],
)
def test_tokens_that_open_less_than_meant_are_told(
    smallest: Path, token: str, allow: str, warning: str
) -> None:
    """A token that nothing allows, or that one place allows and another forbids, is a warning."""
    routes = (
        f'[{{name = "a", upstream = "http://a", allow = {allow}}},'
        f' {{name = "b", path = "/b", upstream = "http://b", allow = {allow}}}]'
    )
    found = good(
        smallest, TOKEN=f'[{{name = "ci", hash = "{HASH}"{token}}}]', ROUTE=routes
    ).warnings

    assert [one[: len(warning)] for one in found] == ([warning] if warning else [])


# Keys and audiences.


def pem(key: PrivateKeyTypes, password: bytes = b"") -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        Encoding.PEM,
        PrivateFormat.PKCS8,
        BestAvailableEncryption(password) if password else NoEncryption(),
    )


P256 = ec.generate_private_key(ec.SECP256R1())


def write(path: Path, content: bytes) -> str:
    """Write a file that its owner alone can read; return its path."""
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def test_a_key_is_read(tmp_path: Path) -> None:
    """What `openssl` and the gate write is read: PKCS #8, and the older form of EC keys."""
    old = P256.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    for content in (pem(P256), old, b"text before\n" + pem(P256)):
        found = read_key(write(tmp_path / "key.pem", content))
        assert found.private_numbers() == P256.private_numbers()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no private key"),
        (b"hunter2", "no private key"),
        (pem(P256)[:-60], "no private key"),
        (pem(P256) + b" " * 65_536, "no private key"),
        (
            P256.public_key().public_bytes(
                Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            "no private key",
        ),
        (pem(P256, b"hunter2"), "a private key with a password"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "a private key that is not EC P-256"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "a private key that is not EC P-256"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "a private key that is not EC P-256"),
        (pem(rsa.generate_private_key(65537, 2048)), "a private key that is not EC P-256"),
    ],
    ids=[
        *("empty", "text", "cut", "too long", "public", "password", "P-384", "secp256k1"),
        *("Ed25519", "RSA"),
    ],
)
def test_what_is_no_key_is_refused(
    tmp_path: Path, smallest: Path, content: bytes, found: str
) -> None:
    """A file without an EC P-256 key is named, with what it is and nothing of what is in it."""
    path = write(tmp_path / "key.pem", content)
    with pytest.raises(KeyFileError) as error:
        read_key(path)

    assert error.value.found == f"{path}: {found}"
    assert error.value.__cause__ is None
    assert saying(refused(smallest, ASSERTION__KEY_FILES=path)) == [
        ("TAILCHAT_GATE_ASSERTION__KEY_FILES[0]", f"{path}: {found}")
    ]


def test_every_key_file_is_looked_at(tmp_path: Path, smallest: Path) -> None:
    """A missing file and a key that stands in two files are both told at once."""
    first, again = write(tmp_path / "a", pem(P256)), write(tmp_path / "b", pem(P256))
    missing = str(tmp_path / "none.pem")
    found = refused(smallest, ASSERTION__KEY_FILES=f"{first},{missing},{again}")

    assert saying(found) == [
        ("TAILCHAT_GATE_ASSERTION__KEY_FILES[1]", f"{missing}: No such file or directory"),
        ("TAILCHAT_GATE_ASSERTION__KEY_FILES[2]", f"{again}: the key of key_files[0] again"),
    ]


def test_a_key_that_everybody_can_read_is_told(tmp_path: Path, smallest: Path) -> None:
    """A process that can read the key can sign as the gate."""
    path = write(tmp_path / "key.pem", pem(P256))
    assert good(smallest, ASSERTION__KEY_FILES=path).warnings == ()

    Path(path).chmod(0o644)
    (warning,) = good(smallest, ASSERTION__KEY_FILES=path).warnings
    assert warning.startswith("assertion.key_files[0]: every user of this machine can read")


@pytest.mark.parametrize(
    ("first", "second", "warning"),
    [
        ("", 'audience = "b"', ""),
        ("", 'audience = "a"', "route[1].audience: route[0] has it too"),
        ('audience = "x"', 'audience = "x"', "route[1].audience: route[0] has it too"),
        ('audience = "x"', 'audience = "x", upstream = "http://a"', ""),
        ("", 'audience = "a", assertion = false', "route[1].audience: no assertion is sent"),
    ],
)
def test_audiences_that_may_not_be_meant_are_told(
    tmp_path: Path, smallest: Path, first: str, second: str, warning: str
) -> None:
    """Tools with one audience could use each other's assertions; without any it does nothing."""
    path = write(tmp_path / "key.pem", pem(P256))
    if "upstream" not in second:
        second += ', upstream = "http://b"'
    routes = (
        f'[{{name = "a", upstream = "http://a", {first}}}, {{name = "b", path = "/b", {second}}}]'
    )
    found = good(smallest, ASSERTION__KEY_FILES=path, ROUTE=routes.replace(", }", "}")).warnings

    assert [one[: len(warning)] for one in found] == ([warning] if warning else [])
