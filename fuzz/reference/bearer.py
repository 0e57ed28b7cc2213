"""Tokens of the gate in Authorization (RFC 6750 section 2.1), and how else they may be written."""

from string import ascii_letters, digits

from fuzz.reference.syntax import BadError

_WORD = frozenset((ascii_letters + digits + "_").encode("ascii"))
_TOKEN = _WORD | {ord("-")}
_BETWEEN = frozenset(b" \t\"':=")
_SCHEME, _PREFIX = b"bearer", b"tg_"


def is_meant(value: bytes) -> bool:
    """Tell whether a value holds what somebody meant as a token of the gate."""
    lower = value.lower()
    place = lower.find(_SCHEME)
    while place >= 0:
        rest = value[place + len(_SCHEME) :]
        rest = rest[next((i for i, o in enumerate(rest) if o not in _BETWEEN), len(rest)) :]
        if rest.startswith(_PREFIX) and (not place or value[place - 1] not in _WORD):
            return True
        place = lower.find(_SCHEME, place + 1)
    return False


def presented(values: list[bytes]) -> bytes | None:
    """Return the token that Authorization values present, b"" for one that is malformed.

    None where none of them is of the gate. Raises BadError where it does not stand alone.
    """
    if not any(map(is_meant, values)):
        return None
    if len(values) > 1:
        raise BadError("two Authorizations")
    scheme, space, rest = values[0].partition(b" ")
    token = rest.lstrip(b" ")
    if scheme.lower() != _SCHEME or not space or not token.startswith(_PREFIX):
        return b""
    return token if len(token) > len(_PREFIX) and _TOKEN.issuperset(token) else b""
