"""Reads the request that `explain` is asked about, as the gate's own reader does."""

import re
from typing import Final
from urllib.parse import quote

from tailchat_gate.config.model import Settings
from tailchat_gate.config.values import url
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.head import RequestHead, RequestReader
from tailchat_gate.serving.wiring import request_limits
from tailchat_gate.syntax import ANY_CASE, BROWSER_AUTHORITY_ENDS, HTTP_SCHEME, METHOD, VCHAR

_URL: Final = re.compile(
    f"({HTTP_SCHEME})://([^{BROWSER_AUTHORITY_ENDS}]+)([^#]*)(?:#.*)?", ANY_CASE | re.DOTALL
)
#: What a browser escapes: everything but visible ASCII.
_ESCAPED: Final = re.compile(f"[^{VCHAR}]+")

Asked = RequestHead | RefusedError


class NotAskedError(ValueError):
    """The typed text is not a request; the message says what is accepted."""


def read_asked(text: str, method: str, settings: Settings, typed: bytes = b"") -> Asked:
    """Return the request for a URL, read by the gate's own reader, or why the reader refuses it.

    Non-ASCII letters and spaces are escaped as in browsers; everything else is unchanged.
    `typed` are lines of further fields. Raises NotAskedError.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise NotAskedError('URL: expected a URL such as "https://wiki.example.com/page"')
    if METHOD.fullmatch(method) is None:
        raise NotAskedError("--method: expected a method such as GET")
    authority = _ascii(match[2])
    target = _ESCAPED.sub(lambda found: quote(found[0]), match[3])
    if not target.startswith("/"):
        target = f"/{target}"
    sent = f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\n".encode("ascii")
    try:
        read = RequestReader(request_limits(settings)).read(b"%b%b\r\n" % (sent, typed))
    except RefusedError as refused:
        return refused
    if read is None:
        raise NotAskedError("URL: expected one whole request")
    return read[0]


def _ascii(authority: str) -> str:
    """Return a host and port as a browser writes them in Host."""
    if authority.isascii() and authority.isprintable() and " " not in authority:
        return authority
    name, colon, port = authority.partition(":")
    try:
        return url.host(name) + colon + port
    except ValueError as wrong:
        raise NotAskedError(f"URL: expected {wrong}") from None
