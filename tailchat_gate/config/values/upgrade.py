"""Which protocols a connection may upgrade to (RFC 9110 section 7.8), and from which origins."""

import re

from tailchat_gate import syntax
from tailchat_gate.config.problems import did_you_mean
from tailchat_gate.config.values import url
from tailchat_gate.config.values.identifier import distinct

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
# Inside these, further requests would pass unjudged (h2c smuggling) or unreadable.
REFUSED = ("h2", "h2c", "h3", "http", "https", "tls", "ssl")


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

    Applications have schemes of their own. Some have a host that changes each time: write "*" for
    it. Raises ValueError, whose text says what is accepted.
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
