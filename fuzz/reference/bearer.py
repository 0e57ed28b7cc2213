"""Tokens of the gate (RFC 6750 section 2.1, RFC 7617), and how else they may be written."""

from string import ascii_letters, digits
from typing import NamedTuple

from fuzz.reference.syntax import BadError

_WORD = frozenset((ascii_letters + digits + "_").encode("ascii"))
_TOKEN = _WORD | {ord("-")}
_BETWEEN = frozenset(b" \t\"':=")
_SCHEME, _PREFIX = b"bearer", b"tg_"
_SIXTY_FOUR = (ascii_letters[26:] + ascii_letters[:26] + digits + "+/").encode("ascii")
_TOKEN_LENGTH = 46


class Told(NamedTuple):
    """A token, b"" for one that is malformed, and where it is."""

    token: bytes
    place: str


def is_meant(value: bytes) -> bool:
    """Tell whether a value holds what somebody meant as a token of the gate."""
    words = bytes(octet if octet in _TOKEN else 0x20 for octet in value).split()
    if any(len(word) == _TOKEN_LENGTH and word.startswith(_PREFIX) for word in words):
        return True
    lower = value.lower()
    place = lower.find(_SCHEME)
    while place >= 0:
        rest = value[place + len(_SCHEME) :]
        rest = rest[next((i for i, o in enumerate(rest) if o not in _BETWEEN), len(rest)) :]
        if rest.startswith(_PREFIX) and (not place or value[place - 1] not in _WORD):
            return True
        place = lower.find(_SCHEME, place + 1)
    return False


def presented(values: list[bytes], own: list[bytes]) -> Told | None:
    """Return the token that Authorization values, or those of X-Tailchat-Token, present.

    None where none of them is of the gate. Raises BadError where it does not stand alone.
    """
    found = [
        Told(token, place)
        for place, token in (
            ("bearer", _bearer(values)),
            ("basic", _basic(values)),
            ("field", _field(own)),
        )
        if token is not None
    ]
    if len(found) > 1:
        raise BadError("two tokens")
    return found[0] if found else None


def _bearer(values: list[bytes]) -> bytes | None:
    if not any(map(is_meant, values)):
        return None
    if len(values) > 1:
        raise BadError("two Authorizations")
    scheme, space, rest = values[0].partition(b" ")
    token = rest.lstrip(b" ")
    if scheme.lower() != _SCHEME or not space:
        return b""
    return _plain(token)


def _plain(token: bytes) -> bytes:
    """Return a token that is one, else b""."""
    grammar = token.startswith(_PREFIX) and len(token) > len(_PREFIX)
    return token if grammar and _TOKEN.issuperset(token) else b""


def _field(values: list[bytes]) -> bytes | None:
    if not any(_PREFIX in value for value in values):
        return None
    if len(values) > 1:
        raise BadError("two fields for a token")
    return _plain(values[0])


def _basic(values: list[bytes]) -> bytes | None:
    if not any(map(is_meant_as_password, values)):
        return None
    if len(values) > 1:
        raise BadError("two Authorizations")
    scheme, space, rest = values[0].partition(b" ")
    text = rest.lstrip(b" ")
    bare = text.rstrip(b"=")
    padded = len(text) % 4 == 0 and len(text) - len(bare) <= 2
    plain = bool(bare) and all(octet in _SIXTY_FOUR for octet in bare)
    if scheme.lower() != b"basic" or not space or not padded or not plain:
        return b""
    user, colon, password = _decoded(bare).partition(b":")
    if not colon or len(user) != _TOKEN_LENGTH or not _plain(user):
        return _plain(password)
    if not _begins(password):
        return user
    if password != user:
        raise BadError("a token on either side of the colon")
    return user


def _begins(password: bytes) -> bool:
    """Tell whether a password is a token in its first letters, behind blanks and quotes."""
    return password.lstrip(b" \t\"'").startswith(_PREFIX)


def is_meant_as_password(value: bytes) -> bool:
    """Tell whether a value holds Basic credentials with what was meant as a token of the gate."""
    lower = value.lower()
    place = lower.find(b"basic")
    while place >= 0:
        end = place + len(b"basic")
        while end < len(value) and value[end] in _BETWEEN | {ord(",")}:
            end += 1
        start = end
        while end < len(value) and value[end] in _SIXTY_FOUR + b"-_":
            end += 1
        text = value[start:end].replace(b"-", b"+").replace(b"_", b"/")
        user, _, password = _decoded(text).partition(b":")
        name = user.lstrip(b" \t\"'")[:_TOKEN_LENGTH]
        is_user = len(name) == _TOKEN_LENGTH and _plain(name)
        is_word = bool(place) and value[place - 1] in _WORD
        if not is_word and (_begins(password) or is_user):
            return True
        # What was read as a value is not read as a scheme.
        place = lower.find(b"basic", max(end if not is_word and end > start else 0, place + 1))
    return False


def _decoded(text: bytes) -> bytes:
    """Return what base64 stands for, six bits a character; a rest of less than eight is nothing."""
    bits = 0
    for octet in text:
        bits = bits << 6 | _SIXTY_FOUR.index(octet)
    left = len(text) * 6 % 8
    return (bits >> left).to_bytes(len(text) * 6 // 8, "big")
