"""Header fields in the configuration: names, templates of values, upgrades and origins."""

import re
from collections.abc import Mapping

from tailchat_gate import syntax
from tailchat_gate.config.problems import did_you_mean
from tailchat_gate.config.values import url
from tailchat_gate.config.values.identifier import distinct
from tailchat_gate.request.field_names import (
    HOP_BY_HOP,
    OWN,
    TRACE_CONTEXT,
    NamePatterns,
    fold,
    is_claim,
    is_order,
    is_plain,
)
from tailchat_gate.syntax import SHORT_TOKEN, VCHAR

#: Fields of a template: CLIENT is about the request, the others are about the person.
CLIENT = "client"
EMAIL = "email"
FIELDS = ("sub", "nickname", "discriminator", "avatar", "groups", EMAIL, CLIENT)
NAME = 'the name of a header such as "X-WEBAUTH-USER"'
RESPONSE = 'the name of a header such as "Clear-Site-Data"'
PASSED = 'the name of a header such as "X-Real-IP"'
TEMPLATE = (
    "visible ASCII with any of "
    + " ".join(f"{{{name}}}" for name in FIELDS)
    + "; {{ and }} stand for braces"
)

_TOKEN = re.compile(SHORT_TOKEN)
#: Header fields that a route cannot set: they frame or route a message, belong to its connection,
#: or are the gate's own.
_MANAGED = NamePatterns(
    *OWN,
    *(name.decode("ascii") for name in (*HOP_BY_HOP, *TRACE_CONTEXT)),
    *("host", "content-length", "cookie", "trailer", "expect", "http2-settings", "proxy-*"),
)
_PIECE = re.compile(r"(\{\{|\}\})|\{([a-z]+)\}|([^{}]+)")
_TEXT = re.compile(f"[{VCHAR}](?:[ {VCHAR}]*[{VCHAR}])?")
_LONGEST = 1024

ANY_ORIGIN = "*"
#: What browsers send for a page without an origin: a sandboxed frame, a file, a form by a page
#: with `Referrer-Policy: no-referrer`.
NO_ORIGIN = "null"
WEBSOCKET = "websocket"

PROTOCOL = 'the name of a protocol in lower case, without a version, such as "websocket"'
ORIGIN = (
    'an origin such as "https://app.example.com" or "capacitor://localhost", "null", or "*" alone'
)

_PROTOCOL = re.compile(syntax.PROTOCOL_NAME)
#: An origin of an application: "capacitor://localhost", "file://", "vscode-webview://*".
_APPLICATION = re.compile(
    rf"(?=.{{1,32}}:)({syntax.SCHEME})://((?:\*|[{syntax.UNRESERVED}]{{1,253}}(?::{syntax.PORT})?)/?)?"
)
_NOT_APPLICATIONS = frozenset(
    ("http", "https", "ws", "wss", "ftp", "data", "blob", "about", "javascript")
)
# Inside these protocols further requests would pass unchecked (h2c smuggling) or encrypted.
REFUSED = ("h2", "h2c", "h3", "http", "https", "tls", "ssl")


def folded(name: str) -> bytes:
    """Fold a header name as those tools do that read `X_A` and `x-a` as one header."""
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
    parts: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None or (piece[2] and piece[2] not in FIELDS):
            raise ValueError(TEMPLATE)
        position = piece.end()
        if piece[2]:
            parts.append(("field", piece[2]))
            continue
        literal = piece[1][0] if piece[1] else piece[3]
        if parts and parts[-1][0] == "text":
            literal = parts.pop()[1] + literal
        parts.append(("text", literal))
    return tuple(parts)


def protocol(text: str) -> str:
    """Check the name of a protocol that a connection may be upgraded to.

    Raises ValueError, whose text says what is accepted.
    """
    if text.lower().partition("/")[0] in REFUSED:
        raise ValueError(f"{PROTOCOL}; no form of HTTP or TLS, in which requests pass unseen")
    if not _PROTOCOL.fullmatch(text):
        raise ValueError(PROTOCOL + did_you_mean(text, (WEBSOCKET,)))
    return text


def origin(text: str) -> str:
    """Read one origin as browsers write it in Origin (RFC 6454 section 6.2), `null` or `*`.

    Applications have schemes of their own; "*" as the host stands for one that changes each time.
    Raises ValueError, whose text says what is accepted.
    """
    if text in {ANY_ORIGIN, NO_ORIGIN}:
        return text
    application = _APPLICATION.fullmatch(text.lower())
    if application is not None and application[1] not in _NOT_APPLICATIONS:
        return application[0].removesuffix("/") if application[2] else application[0]
    try:
        return url.origin(text)
    except ValueError as wrong:
        raise ValueError(str(wrong).replace(url.ORIGIN, ORIGIN)) from None


def origins(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check a list of origins as a whole; raises ValueError."""
    if ANY_ORIGIN in values and len(values) > 1:
        raise ValueError('"*" alone, or a list without it')
    return distinct(values)
