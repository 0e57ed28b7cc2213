"""Turns Tailchat's userinfo response into a profile that is safe to pass on."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tailchat_gate.syntax import ANY_CASE, AUTHORITY_ENDS, C1, CTL, HTTP_ORIGIN, SUB, SURROGATES

MAX_NICKNAME: Final = 128
MAX_DISCRIMINATOR: Final = 16
MAX_AVATAR: Final = 1024

# Characters read of a text: leading invisible ones are dropped before it is cut.
_LONGEST_READ: Final = 131_072
_ZWJ: Final = "\u200d"
_SUB: Final = re.compile(SUB)
# Invisible or line-breaking, yet of a visible category: separators, joiners and blank letters.
_BLANKS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2028\u2029\u3164\uffa0")
# A joiner joins emoji and Indic letters; beside ASCII, or at an end, it only disguises.
_STRAY_ZWJ: Final = re.compile(f"(?<![^\x00-\x7f]){_ZWJ}|{_ZWJ}(?![^\x00-\x7f])")
# U+3000 is the last character that is a space. A joiner has nothing to join at an end.
_EDGES: Final = _ZWJ + "".join(char for char in map(chr, range(0x3001)) if char.isspace())
_SKIN_TONES: Final = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
_ABSOLUTE: Final = re.compile(f"{HTTP_ORIGIN}(?:[{AUTHORITY_ENDS}].*)?", ANY_CASE)
_NOT_IN_URL: Final = re.compile(rf"[ \\{CTL}{C1}{SURROGATES}]")


class ProfileError(Exception):
    """The response names no usable user; `reason` says why, without quoting it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Profile:
    """A Tailchat user; "" for a field without a usable value. Authorize on `sub` alone."""

    sub: str
    nickname: str = ""
    discriminator: str = ""
    avatar: str = ""


def profile_from_userinfo(data: object, *, api_url: str) -> Profile:
    """Return the profile in a response of `/open/me`; every field of it is hostile input.

    `data`: the parsed JSON. `api_url`: replaces `{BACKEND}` in an avatar.
    Raises ProfileError if `sub` is not 1 to 255 characters of visible ASCII
    (Tailchat: 24 hex digits). The other fields never refuse a user: a missing key, null, ""
    and a number all give "" (Tailchat: nickname and avatar may be any string of any length).
    """
    if not isinstance(data, Mapping):
        raise ProfileError("not an object")
    sub = data.get("sub")
    if not isinstance(sub, str):
        raise ProfileError("no sub")
    if _SUB.fullmatch(sub) is None:
        raise ProfileError("unusable sub")
    return Profile(
        sub=sub,
        nickname=_text(data.get("nickname"), MAX_NICKNAME),
        discriminator=_text(data.get("discriminator"), MAX_DISCRIMINATOR),
        avatar=_avatar(data.get("avatar"), api_url),
    )


def _text(value: object, cap: int) -> str:
    """Return `value` without what breaks lines or disguises text, at most `cap` characters."""
    if not isinstance(value, str):
        return ""
    # Tailchat: a nickname has any length, and every character costs time.
    visible = "".join(char for char in value[:_LONGEST_READ] if _is_visible(char))
    joined = _STRAY_ZWJ.sub("", re.sub(f"{_ZWJ}{{2,}}", _ZWJ, visible))
    return _cut(joined.strip(_EDGES), cap)


def _is_visible(char: str) -> bool:
    """Whether a character stays: no control, surrogate, format character or blank letter."""
    if char == _ZWJ:
        return True
    return char not in _BLANKS and unicodedata.category(char) not in {"Cc", "Cf", "Cs"}


def _cut(text: str, cap: int) -> str:
    """Return the start of `text`, ending before a sequence that would be cut in two."""
    if len(text) <= cap:
        return text
    end = cap
    while end > 0 and (text[end - 1] == _ZWJ or _extends(text[end])):
        end -= 1
    # One sequence is longer than `cap`: cut it.
    return text[: end or cap].rstrip(_EDGES)


def _extends(char: str) -> bool:
    """Whether a character belongs to the one before: joiner, mark, variation, skin tone."""
    return char == _ZWJ or char in _SKIN_TONES or unicodedata.category(char) in {"Mn", "Mc", "Me"}


def _avatar(value: object, api_url: str) -> str:
    """Return an absolute http(s) URL in visible ASCII, or ""."""
    if not isinstance(value, str):
        return ""
    # Tailchat: its own clients replace the first placeholder only.
    url = value.replace("{BACKEND}", api_url, 1)
    if len(url) > MAX_AVATAR or _NOT_IN_URL.search(url) or _ABSOLUTE.fullmatch(url) is None:
        return ""
    ascii_url = quote(url, safe="!#$%&'()*+,/:;=?@[]~")
    return ascii_url if len(ascii_url) <= MAX_AVATAR else ""
