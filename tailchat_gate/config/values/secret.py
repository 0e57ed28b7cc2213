"""Checks whether a text can be a secret: strong enough, and not a placeholder of a template."""

import itertools
import re

from tailchat_gate.syntax import CTL, SURROGATES

#: Fewest characters of a session secret, and so of its bytes; 32 random bytes in base64url are 43.
MIN_SECRET = 32
_FEWEST_SIGNS = 8
_WORDS = re.compile(
    r"change.?me|replace.?(me|with|this)|place.?holder|your.?(session.?)?secret|insert.?(your|here)"
    r"|example|password|tailchat|secret.?secret|x{8}|\.{3}|^<.*>$",
    re.IGNORECASE,
)
_CONTROL = re.compile(f"[{CTL}{SURROGATES}]")

_SIGNS = r"x{3,}|\*+|\.{2,}|…|-+|0+|<.*>|\{\{?.*\}\}?|\$\{?\w+\}?|%\w+%|\[.*\]"
_OURS = (
    r"(?:your[ _-])?(?:(?:tailchat|oauth|client)[ _-]?){0,2}(?:secret|password|id)(?:[ _-]?here)?"
)
_TEMPLATE = re.compile(
    r"(?:change|replace|insert|fill|enter|put|paste).?(?:me|this|it|with|in|your|here|the)(?![a-z0-9]).*"
    rf"|{_OURS}|(?:your[ _-])?app[ _-]?id|your[ _-]app[ _-]?(?:id|secret)"
    r"|place.?holder|todo|tbd|none|null|undefined|test"
    r"|(?:[a-z0-9-]+\.)*example(?:\.(?:com|net|org))?"
    rf"|(?:tc_)?(?:{_SIGNS}|your[ _-].*)",
    re.IGNORECASE,
)
#: People choose the password of a server, so only an obvious placeholder is refused.
_NO_PASSWORD = re.compile(
    r"(?:change|replace).?(?:me|this|with|your|the)(?![a-z0-9]).*|the password of .*|<.*>|\.{2,}|…",
    re.IGNORECASE,
)

SESSION = "at least 32 random characters; `tailchat-gate secret` prints some"
_SERVER = "the password of the server, on one line, without white space at its ends"
CLIENT = (
    "the \"App Secret\" of the app's page in Tailchat's open platform, on one line, without white "
    "space at its ends"
)
_PLACEHOLDER = "this one reads like a placeholder"


def is_placeholder(text: str) -> bool:
    """Whether a text, in place of a random id or secret of Tailchat, is one of a template.

    Neither has white space in it: a text with white space is a sentence about the value.
    """
    return _TEMPLATE.fullmatch(text) is not None or len(text.split()) > 1


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
    if _NO_PASSWORD.fullmatch(text):
        raise ValueError(f"{_SERVER}; {_PLACEHOLDER}")


def session_secret(text: str) -> None:
    """Check a secret that cookies are sealed with.

    Length is not enough. Text that people type to pass a length check is refused too:
    placeholders, few different characters, repetitions, runs such as "abcdef...".
    Raises ValueError, whose text says what is accepted and nothing of the secret.
    """
    if len(text) < MIN_SECRET:
        raise ValueError(SESSION)
    if text != text.strip() or _CONTROL.search(text):
        raise ValueError(f"{SESSION}, on one line, without white space at its ends")
    if text.startswith("#"):
        raise ValueError(f"{SESSION}; not a line that begins with #: a secret file has no comments")
    if _WORDS.search(text):
        raise ValueError(f"{SESSION}; {_PLACEHOLDER}")
    if len(set(text)) < _FEWEST_SIGNS or _repeats(text) or _runs(text):
        raise ValueError(f"{SESSION}; this one is easy to guess")


def _repeats(text: str) -> bool:
    """Whether the text is one part, of at most half its length, again and again."""
    return any(text.startswith(text[size:]) for size in range(1, len(text) // 2 + 1))


def _runs(text: str) -> bool:
    """Whether more than two thirds of the characters are next to, or equal to, their neighbour."""
    steps = [abs(ord(a) - ord(b)) <= 1 for a, b in itertools.pairwise(text)]
    return 3 * sum(steps) > 2 * len(steps)
