"""Which headers a route may set for its tool, and the templates of their values."""

import re
from collections.abc import Mapping

from tailchat_gate.request.field_names import (
    HOP_BY_HOP,
    OWN,
    Names,
    fold,
    is_claim,
    is_order,
    is_plain,
)
from tailchat_gate.syntax import SHORT_TOKEN, VCHAR

#: The template fields about the request; the others are about the person.
CLIENT = "client"
FIELDS = ("sub", "nickname", "discriminator", "avatar", "groups", CLIENT)
NAME = 'the name of a header such as "X-WEBAUTH-USER"'
RESPONSE = 'the name of a header such as "Clear-Site-Data"'
PASSED = 'the name of a header such as "X-Real-IP"'
TEMPLATE = (
    "visible ASCII with any of "
    + " ".join(f"{{{name}}}" for name in FIELDS)
    + "; {{ and }} stand for braces"
)

_TOKEN = re.compile(SHORT_TOKEN)
#: Fields that frame a message, route it or belong to its connection, and the gate's own.
_MANAGED = Names(
    *OWN,
    *(name.decode("ascii") for name in HOP_BY_HOP),
    *("host", "content-length", "cookie", "trailer", "expect", "http2-settings", "proxy-*"),
)
_PIECE = re.compile(r"(\{\{|\}\})|\{([a-z]+)\}|([^{}]+)")
_TEXT = re.compile(f"[{VCHAR}](?:[ {VCHAR}]*[{VCHAR}])?")
_LONGEST = 1024


def folded(name: str) -> bytes:
    """Fold a header name as some tools do, which read `X_A` and `x-a` as one header."""
    return fold(name.encode("ascii"))


def header_name(name: str) -> str:
    """Check the name of a header that a route adds.

    Refused are names the gate manages itself, and those that frame or route a message
    (RFC 9110 section 7.6.1), in any spelling that a tool may fold onto them.
    Raises ValueError, whose text says what is accepted.
    """
    return _free(name, NAME)


def passed_name(name: str) -> str:
    """Check the name of a request header that a route passes on instead of dropping it.

    Refuses the same names as `header_name`. Raises ValueError, whose text says what is accepted.
    """
    return _free(name, PASSED)


def passed_response_name(name: str) -> str:
    """Check the name of a response header that a route passes on; raises ValueError."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(RESPONSE)
    if folded(name) in HOP_BY_HOP:
        raise ValueError(f"{RESPONSE}; this one belongs to one connection")
    return name


def is_dropped_from_responses(name: str) -> bool:
    """Whether a response header of this name is dropped unless the route passes it."""
    return is_order(folded(name))


def is_dropped(name: str) -> bool:
    """Whether a request header of this name is dropped unless the route passes it."""
    return is_claim(folded(name)) or not is_plain(name.encode("ascii"))


def _free(name: str, expected: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(expected)
    if folded(name) in _MANAGED:
        raise ValueError(f"{expected}; this one is managed by the gate")
    return name


def template(text: str) -> str:
    """Check the template of a header value and return it unchanged.

    Raises ValueError, whose text says what is accepted.
    """
    names = fields(text)
    if CLIENT in names and len(names) > 1:
        raise ValueError(f"{TEMPLATE}; {{{CLIENT}}} without the others, which are the person's")
    return text


def fields(text: str) -> frozenset[str]:
    """Return the names of the fields in a checked template."""
    return frozenset(name for kind, name in pieces(text) if kind == "field")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a checked template with its fields replaced."""
    return "".join(values[piece] if kind == "field" else piece for kind, piece in pieces(text))


def pieces(text: str) -> tuple[tuple[str, str], ...]:
    """Split a template into `("text", literal)` and `("field", name)`, in order.

    A name is one of FIELDS; `{{` and `}}` are already single braces in the literals, and
    neighbouring literals are joined.
    Raises ValueError, whose text says what is accepted.
    """
    if len(text) > _LONGEST or not _TEXT.fullmatch(text):
        raise ValueError(f"{TEMPLATE}; not empty, no white space at its ends")
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None or (piece[2] and piece[2] not in FIELDS):
            raise ValueError(TEMPLATE)
        position = piece.end()
        if piece[2]:
            found.append(("field", piece[2]))
            continue
        literal = piece[1][0] if piece[1] else piece[3]
        if found and found[-1][0] == "text":
            literal = found.pop()[1] + literal
        found.append(("text", literal))
    return tuple(found)
