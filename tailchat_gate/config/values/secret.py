"""Checks whether a text is strong enough for a secret."""

import itertools
import re

from tailchat_gate.config.values.placeholder import is_instead_of_password, is_placeholder
from tailchat_gate.syntax import CTL, SURROGATES

_SHORTEST = 32
_FEWEST_SIGNS = 8
_WORDS = re.compile(
    r"change.?me|replace.?(me|with|this)|place.?holder|your.?(session.?)?secret|insert.?(your|here)"
    r"|example|password|tailchat|secret.?secret|x{8}|\.{3}|^<.*>$",
    re.IGNORECASE,
)
_CONTROL = re.compile(f"[{CTL}{SURROGATES}]")

SESSION = "at least 32 random characters; `tailchat-gate secret` prints some"
_SERVER = "the password of the server, on one line, without white space at its ends"
CLIENT = (
    "the \"App Secret\" of the app's page in Tailchat's open platform, on one line, without white "
    "space at its ends"
)
_PLACEHOLDER = "this one reads like a placeholder"


def client_secret(text: str) -> None:
    """Check the app's secret; raises ValueError, whose text says what is accepted."""
    if not text or text != text.strip() or _CONTROL.search(text):
        raise ValueError(CLIENT)
    if is_placeholder(text):
        raise ValueError(f"{CLIENT}; {_PLACEHOLDER}")


def password(text: str) -> None:
    """Check the password of a server; raises ValueError, whose text says what is accepted."""
    if not text or text != text.strip() or _CONTROL.search(text):
        raise ValueError(_SERVER)
    if is_instead_of_password(text):
        raise ValueError(f"{_SERVER}; {_PLACEHOLDER}")


def session_secret(text: str) -> None:
    """Check a secret that cookies are sealed with.

    Length alone does not make a secret. Text that people type to pass a length check is refused
    too: placeholders, few different characters, repetitions, runs such as "abcdef...".
    Raises ValueError, whose text says what is accepted and nothing of the secret.
    """
    if len(text) < _SHORTEST:
        raise ValueError(SESSION)
    if text != text.strip() or _CONTROL.search(text):
        raise ValueError(f"{SESSION}, on one line, without white space at its ends")
    if text.startswith("#"):
        raise ValueError(f"{SESSION}; no sign # at the start, which is not read as a comment here")
    if _WORDS.search(text):
        raise ValueError(f"{SESSION}; {_PLACEHOLDER}")
    if len(set(text)) < _FEWEST_SIGNS or _repeats(text) or _runs(text):
        raise ValueError(f"{SESSION}; this one is easy to guess")


def _repeats(text: str) -> bool:
    """Whether the text repeats one part of at most half its length."""
    return any(text.startswith(text[size:]) for size in range(1, len(text) // 2 + 1))


def _runs(text: str) -> bool:
    """Whether two thirds of the characters follow their neighbour in the alphabet."""
    steps = [abs(ord(a) - ord(b)) <= 1 for a, b in itertools.pairwise(text)]
    return 3 * sum(steps) > 2 * len(steps)
