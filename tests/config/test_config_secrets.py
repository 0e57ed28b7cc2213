"""Secrets: from which source they come, and which text may be one."""

import random
import secrets as random_secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from configkit import (
    OTHER_SECRET,
    SESSION_SECRET,
    SMALLEST,
    good,
    problems,
    refused,
    saying,
)
from pydantic import SecretStr

from tailchat_gate.config.files import exposed
from tailchat_gate.config.load import load
from tailchat_gate.config.values import secret


def write_secret(file: Path, content: str | bytes, mode: int = 0o600) -> Path:
    """Write a file that holds secrets."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SESSION_SECRET, (SESSION_SECRET,)),
        (f"{SESSION_SECRET}\n", (SESSION_SECRET,)),
        (f"{SESSION_SECRET}\r\n\r\n{OTHER_SECRET}\n\n", (SESSION_SECRET, OTHER_SECRET)),
    ],
)
def test_a_key_ring_is_read_from_a_file(
    smallest: Path, content: str, expected: tuple[str, ...]
) -> None:
    """Each line of the file is a secret, in order; a relative path starts at the file's folder."""
    write_secret(smallest.parent / "ring", content)
    client = write_secret(smallest.parent / "client", "app-secret\n")
    smallest.write_text(
        SMALLEST.replace('client_id = "', f'client_secret_file = "{client}"\nclient_id = "')
        + '[session]\nsecret_file = "ring"\n',
        encoding="utf-8",
    )

    loaded = load(smallest, {})
    assert loaded.warnings == ()
    assert loaded.settings.session.secrets == tuple(map(SecretStr, expected))
    assert loaded.settings.tailchat.client_secret == SecretStr("app-secret")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "No such file or directory"),
        ("", "empty"),
        ("\n \n", "empty"),
        (b"\xff\xfe" + SESSION_SECRET.encode(), "not UTF-8 text"),
        ("x" * 70000, "more than 64 KiB"),
        (f"{SESSION_SECRET}\nhunter2\n", "line 2: a secret of 7 characters"),
        (f"# our secret of this year, do not tell\n{SESSION_SECRET}\n", "line 1: a secret of 38"),
    ],
)
def test_a_secret_file_that_does_not_serve_is_named(
    smallest: Path, content: str | bytes | None, found: str
) -> None:
    """The problem names the variable, the file and the line, and nothing of the content."""
    ring = smallest.parent / "ring"
    if content is not None:
        write_secret(ring, content)
    environ = {
        "TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET": "app-secret",
        "TAILCHAT_GATE_SESSION__SECRET_FILE": str(ring),
    }

    (problem,) = problems(smallest, environ)
    assert problem.key_path == "TAILCHAT_GATE_SESSION__SECRET_FILE"
    assert problem.found.startswith(f"{ring}{', ' if 'line' in found else ': '}{found}")
    assert "hunter2" not in problem.found
    assert "tell" not in problem.found


@pytest.mark.parametrize(
    ("written", "found"), [("5", "a number"), ('""', "text"), ('"a\\u0000b"', "text")]
)
def test_what_cannot_be_a_path_is_refused(smallest: Path, written: str, found: str) -> None:
    """A secret's file is named by text that can be a path."""
    smallest.write_text(f"{SMALLEST}[session]\nsecret_file = {written}\n", encoding="utf-8")
    environ = {"TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET": "app-secret"}

    assert saying(problems(smallest, environ)) == [("session.secret_file", found)]


def test_text_in_place_of_a_table_is_refused_as_a_whole(smallest: Path) -> None:
    """A table that is none is one problem, and neither its secret nor its variables add to it."""
    smallest.write_text('session = "hunter2"\n' + SMALLEST, encoding="utf-8")

    assert saying(refused(smallest, SESSION__LIFETIME="8h")) == [("session", "text")]


def test_an_unreadable_place_is_not_exposed(tmp_path: Path) -> None:
    """A file that is gone when its mode is looked at gives no warning."""
    assert not exposed(tmp_path / "gone")


def test_a_client_secret_has_one_line(smallest: Path) -> None:
    """A file with more than the app's secret in it is refused, not cut."""
    client = write_secret(smallest.parent / "client", "one\ntwo\n")
    environ = {
        "TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET_FILE": str(client),
        "TAILCHAT_GATE_SESSION__SECRET": SESSION_SECRET,
    }

    assert saying(problems(smallest, environ)) == [
        ("TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET_FILE", f"{client}: 2 lines")
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("changeme", "Change-Me", "change this", "client_secret", "your-client-secret", "secret"),
        *("<client secret>", "${CLIENT_SECRET}", "{{ secret }}", "...", "xxxxxxxx", "password"),
        *("replace-with-your-secret", "insert_your_secret_here", "TODO", "********"),
    ],
)
def test_a_placeholder_is_no_client_secret(smallest: Path, text: str) -> None:
    """What stands in a template in place of the app's secret is refused before Tailchat does."""
    (problem,) = refused(smallest, TAILCHAT__CLIENT_SECRET=text)

    assert problem.expected.endswith("this one reads like a placeholder")
    assert problem.found == f"a secret of {len(text)} characters"


@pytest.mark.parametrize(
    "text", ["d6f1c0a97be24853", "V1StGXR8_Z5jdHi6B-myT", "secretary7", "x", "changeme7f3a9"]
)
def test_an_odd_client_secret_is_taken(smallest: Path, text: str) -> None:
    """Tailchat's secrets are random: one that only begins like a placeholder is none."""
    found = good(smallest, TAILCHAT__CLIENT_SECRET=text).settings.tailchat.client_secret
    assert found.get_secret_value() == text


def test_the_environment_replaces_all_forms_of_the_file(smallest: Path) -> None:
    """A secret of the environment leaves both forms in the file aside, missing files included."""
    smallest.write_text(
        SMALLEST.replace('client_id = "', 'client_secret_file = "/nowhere"\nclient_id = "')
        + f'[session]\nsecrets = ["{OTHER_SECRET}"]\n',
        encoding="utf-8",
    )

    settings = good(smallest).settings
    assert settings.session.secrets == (SecretStr(SESSION_SECRET),)
    assert settings.tailchat.client_secret == SecretStr("app-secret")


def test_two_forms_in_the_environment_are_a_problem(smallest: Path) -> None:
    """Which of two secrets is meant is not guessed."""
    assert saying(refused(smallest, SESSION__SECRET_FILE="/nowhere")) == [
        ("TAILCHAT_GATE_SESSION__SECRET_FILE", "TAILCHAT_GATE_SESSION__SECRET is set too")
    ]


@pytest.mark.parametrize(
    "text", [f"{SESSION_SECRET},{OTHER_SECRET}", f'["{SESSION_SECRET}", "{OTHER_SECRET}"]']
)
def test_a_key_ring_comes_from_the_environment(smallest: Path, text: str) -> None:
    """The first of several secrets in a variable seals."""
    environ = {
        "TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET": "app-secret",
        "TAILCHAT_GATE_SESSION__SECRETS": text,
    }

    secrets = load(smallest, environ).settings.session.secrets
    assert [value.get_secret_value() for value in secrets] == [SESSION_SECRET, OTHER_SECRET]


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        (
            '["hunter2',
            "",
            (
                "text that is neither TOML nor JSON; as TOML, line 1, column 10: "
                "text whose quotes are not closed"
            ),
        ),
        ("[]", "", "a list"),
        ("", "", "a list"),
        (f"{SESSION_SECRET},hunter2", "[1]", "a secret of 7 characters"),
    ],
)
def test_a_wrong_key_ring_of_the_environment_does_not_fall_back(
    smallest: Path, text: str, place: str, found: str
) -> None:
    """A broken variable is a problem even if the file has a good secret."""
    smallest.write_text(
        f'{SMALLEST}[session]\nsecret = "{OTHER_SECRET}"\n',
        encoding="utf-8",
    )
    environ = {
        "TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET": "app-secret",
        "TAILCHAT_GATE_SESSION__SECRETS": text,
    }

    assert saying(problems(smallest, environ)) == [
        (f"TAILCHAT_GATE_SESSION__SECRETS{place}", found)
    ]


def test_secrets_that_everyone_can_read_give_a_warning(smallest: Path) -> None:
    """A world-readable file with a secret in it is used and commented on, by key and path."""
    ring = write_secret(smallest.parent / "ring", SESSION_SECRET, mode=0o644)
    smallest.write_text(
        SMALLEST.replace('client_id = "', 'client_secret = "app-secret"\nclient_id = "')
        + '[session]\nsecret_file = "ring"\n',
        encoding="utf-8",
    )
    smallest.chmod(0o644)

    in_file, in_ring = load(smallest, {}).warnings
    assert in_file.startswith("tailchat.client_secret: every user of this machine can read")
    assert str(smallest) in in_file
    assert in_ring.startswith(f"session.secret_file: every user of this machine can read {ring}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 31,
        "x" * 64,
        "ab" * 32,
        "0123456789abcdef" * 4,
        "0123456789abcdefghijklmnopqrstuvwxyz",
        "correct-horse-correct-horse-correct-horse",
        "changeme-8f14e45fceea167a5a36dedd4bea2543",
        "CHANGE_ME-8f14e45fceea167a5a36dedd4bea2543",
        "<put thirty-two or more random characters here>",
        "your-secret-8f14e45fceea167a5a36dedd4bea2543",
        "my-tailchat-gate-session-secret-for-production",
        f" {SESSION_SECRET}",
        f"{SESSION_SECRET}\n",
        f"#{SESSION_SECRET}",
        f"{SESSION_SECRET}\udcff",
    ],
)
def test_what_only_looks_like_a_secret_is_refused(text: str) -> None:
    """Length alone makes no secret, and a refusal says nothing of the text."""
    with pytest.raises(ValueError, match="at least 32 random characters") as refused_:
        secret.session_secret(text)

    assert len(text) < 5 or text not in str(refused_.value)


@pytest.mark.parametrize("make", [random_secrets.token_urlsafe, random_secrets.token_hex])
def test_random_secrets_are_accepted(
    make: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check for guessable secrets does not refuse what a generator makes."""
    source = random.Random(20)  # noqa: S311 - the same texts in every run
    monkeypatch.setattr(random_secrets, "token_bytes", source.randbytes)

    for _ in range(500):
        secret.session_secret(make(32))
