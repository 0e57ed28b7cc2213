"""Which headers a route may add for its tool, and the templates their values come from."""

import re

FIELDS = ("sub", "nickname", "discriminator", "avatar", "groups")
NAME = 'the name of a header such as "X-WEBAUTH-USER"'
TEMPLATE = (
    "visible ASCII with any of "
    + " ".join(f"{{{name}}}" for name in FIELDS)
    + "; {{ and }} stand for braces"
)

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110 section 5.6.2
_MANAGED = frozenset(
    {
        "forwarded",
        "x-request-id",
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "cookie",
        "upgrade",
        "te",
        "trailer",
        "keep-alive",
        "expect",
        "http2-settings",
    }
)
_MANAGED_STARTS = ("x-tailchat-", "x-forwarded-", "proxy-")
_PIECE = re.compile(r"(\{\{|\}\})|\{([a-z]+)\}|([^{}]+)")
_TEXT = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_LONGEST = 1024


def folded(name: str) -> str:
    """Fold a header name as tools do that read `X_A` and `x-a` as one header."""
    return name.lower().replace("_", "-")


def header_name(name: str) -> str:
    """Check the name of a header that a route adds.

    Refused are names the gate manages itself, and those that frame or route a message
    (RFC 9110 section 7.6.1), in any case and with `_` for `-`.
    Raises ValueError, whose text says what would be right.
    """
    if not _TOKEN.fullmatch(name):
        raise ValueError(NAME)
    plain = folded(name)
    if plain in _MANAGED or plain.startswith(_MANAGED_STARTS):
        raise ValueError(f"{NAME}; this one is managed by the gate")
    return name


def template(text: str) -> str:
    """Check the template of a header value and return it unchanged.

    Raises ValueError, whose text says what would be right.
    """
    pieces(text)
    return text


def pieces(text: str) -> tuple[tuple[str, str], ...]:
    """Take a template apart into `("text", literal)` and `("field", name)`, in order.

    A name is one of FIELDS; `{{` and `}}` are already single braces in the literals, and
    neighbouring literals are joined.
    Raises ValueError, whose text says what would be right.
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
