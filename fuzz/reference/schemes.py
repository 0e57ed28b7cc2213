"""Authentication schemes in credentials and challenges (RFC 9110 sections 11.3 and 11.6.1)."""

from collections.abc import Collection
from string import ascii_letters, digits

_TOKEN = frozenset((ascii_letters + digits + "!#$%&'*+-.^_`|~").encode("ascii"))
_BLANK = b" \t"


def _word(text: bytes) -> bytes:
    return text[: next((i for i, octet in enumerate(text) if octet not in _TOKEN), len(text))]


def of_credentials(value: bytes) -> bytes:
    """Return the scheme of credentials in lower case, b"" where there is none."""
    return _word(value.lstrip(_BLANK + b",")).lower()


def _unquoted(value: bytes) -> bytes | None:
    """Return a value without its quoted strings, None where one has no end."""
    kept = bytearray()
    quoted = escaped = False
    for octet in value:
        if escaped:
            escaped = False
        elif quoted and octet == ord("\\"):
            escaped = True
        elif octet == ord('"'):
            quoted = not quoted
        elif not quoted:
            kept.append(octet)
    return None if quoted else bytes(kept)


def challenged(value: bytes, known: Collection[bytes]) -> bool:
    """Tell whether a challenge names a scheme that is not known, or cannot be read."""
    plain = _unquoted(value)
    if plain is None:
        return True
    for element in plain.split(b","):
        name = _word(element.lstrip(_BLANK))
        rest = element.lstrip(_BLANK)[len(name) :].lstrip(_BLANK)
        if name and not rest.startswith(b"=") and name.lower() not in known:
            return True
    return False
