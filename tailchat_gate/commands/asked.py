"""Makes the request of a URL that is asked about on the command line, as a client would send it."""

import re
from typing import Final
from urllib.parse import quote

from tailchat_gate.build import request_limits
from tailchat_gate.config import url
from tailchat_gate.config.model import Settings
from tailchat_gate.request.head import RequestHead, RequestReader
from tailchat_gate.request.refusal import RefusedError
from tailchat_gate.syntax import ANY_CASE, BROWSER_AUTHORITY_ENDS, HTTP_SCHEME, METHOD, VCHAR

_URL: Final = re.compile(
    f"({HTTP_SCHEME})://([^{BROWSER_AUTHORITY_ENDS}]+)([^#]*)(?:#.*)?", ANY_CASE | re.DOTALL
)
#: What a browser escapes: all but visible ASCII.
_ESCAPED: Final = re.compile(f"[^{VCHAR}]+")

Asked = RequestHead | RefusedError


class NotAskedError(ValueError):
    """What was typed is no request; the text says what would be one."""


def read_asked(text: str, method: str, settings: Settings) -> Asked:
    """Return the request for a URL by the gate's own reader, or why the gate refuses to read it.

    Letters beyond ASCII and spaces are written as browsers do, everything else stands as typed.
    Raises NotAskedError.
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
    sent = f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii")
    try:
        read = RequestReader(request_limits(settings)).read(sent)
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
