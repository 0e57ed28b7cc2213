"""Reads the request that `explain` is about, and describes what happens to its fields.

The forwarding code decides; this module only has the words for its decisions.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote

from tailchat_gate.config.model import RouteSettings, Settings
from tailchat_gate.config.values import url
from tailchat_gate.proxy.message.field_rules import FieldRule
from tailchat_gate.proxy.message.request_headers import Fate, RequestHeaders
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.field_names import claimed, fold
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead, RequestReader
from tailchat_gate.serving.wiring.config_parts import request_limits
from tailchat_gate.syntax import (
    ANY_CASE,
    BROWSER_AUTHORITY_ENDS,
    FIELD_VALUE_OCTETS,
    HTTP_SCHEME,
    METHOD,
    ROUTING_FIELDS,
    TOKEN_OCTETS,
    VCHAR,
)

_URL: Final = re.compile(
    f"({HTTP_SCHEME})://([^{BROWSER_AUTHORITY_ENDS}]+)([^#]*)(?:#.*)?", ANY_CASE | re.DOTALL
)
#: What a browser escapes: everything but visible ASCII.
_ESCAPED: Final = re.compile(f"[^{VCHAR}]+")
_FIELD: Final = re.compile(b"(%b)(?:=(%b))?" % (TOKEN_OCTETS, FIELD_VALUE_OCTETS))
_CLAIMED: Final = {
    "path": "the path",
    "person": "the person",
    "address": "the visitor's address, scheme or host",
    "server": "an order to the server",
}
_NO_KEY: Final = "no key passes it on"
_ALWAYS_DROPPED: Final = {
    FieldRule.OWN: f"the gate alone sets it; {_NO_KEY}",
    FieldRule.HOP_BY_HOP: f"hop-by-hop, for one connection; {_NO_KEY}",
    FieldRule.ROUTING: f"the gate writes its own; {_NO_KEY}",
    FieldRule.TRACE: "the gate writes the trace itself, as `tracing.trust` says",
    FieldRule.COOKIE: "it holds no cookie but the gate's own",
}
_PASSED: Final = {
    FieldRule.NONE: "no rule drops it",
    FieldRule.COOKIE: "without the gate's own cookies",
    FieldRule.CLAIM: "`pass_fields` of the route names it",
    FieldRule.ODD_NAME: "`pass_fields` of the route names it",
    FieldRule.SET: "the gate sets it for another tool only",
}

TypedRequest = RequestHead | RefusedError


class NoRequestError(ValueError):
    """The typed text is not a request; the message says what is expected."""


def read_typed(text: str, method: str, settings: Settings, typed: bytes = b"") -> TypedRequest:
    """Read the request for a URL with the gate's own reader; return it or the reader's refusal.

    Non-ASCII letters and spaces are escaped as in browsers; everything else is unchanged.
    `typed` holds the lines of further fields. Raises NoRequestError.
    """
    match = _URL.fullmatch(_whole(text, settings.server.public_url))
    if match is None:
        raise NoRequestError('URL: expected a URL such as "https://wiki.example.com/page"')
    if METHOD.fullmatch(method) is None:
        raise NoRequestError("--method: expected a method such as GET")
    authority = _ascii(match[2])
    target = _ESCAPED.sub(lambda unsafe: quote(unsafe[0]), match[3])
    if not target.startswith("/"):
        target = f"/{target}"
    sent = f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\n".encode("ascii")
    try:
        read = RequestReader(request_limits(settings)).read(b"%b%b\r\n" % (sent, typed))
    except RefusedError as refused:
        return refused
    if read is None:
        raise NoRequestError("--header: expected fields of one request")
    return read[0]


def _whole(text: str, public_url: str) -> str:
    """Complete a URL that may lack its scheme, or its host too (then that of `public_url`)."""
    if text.startswith("/"):
        return public_url + text
    scheme, mark, _ = text.partition("://")
    if mark and "/" not in scheme:
        return text
    return f"{public_url.partition(':')[0]}://{text}"


def _ascii(authority: str) -> str:
    """Return a host and port as a browser writes them in Host."""
    if authority.isascii() and authority.isprintable() and " " not in authority:
        return authority
    name, colon, port = authority.partition(":")
    try:
        return url.host(name) + colon + port
    except ValueError as wrong:
        raise NoRequestError(f"URL: expected {wrong}") from None


def read_field(text: str) -> tuple[bytes, bytes | None]:
    """Return the name and value of NAME=VALUE, None for NAME alone. Raises ValueError."""
    match = _FIELD.fullmatch(text.encode("utf-8", "surrogateescape"))
    if match is None:
        raise ValueError("expected NAME or NAME=VALUE, such as X-Real-IP=192.0.2.7")
    return match[1], match[2]


def field_lines(typed: list[tuple[bytes, bytes | None]]) -> bytes:
    """Return the lines of fields in a request.

    A name alone gets an empty value; a routing field without a value is left out.
    """
    return b"".join(
        b"%b: %b\r\n" % (name, value or b"")
        for name, value in typed
        if value is not None or fold(name) not in ROUTING_FIELDS
    )


def fates(
    headers: RequestHeaders, names: Sequence[bytes], fields: FieldSection, route: RouteSettings
) -> Iterator[str]:
    """Yield what happens to each of the named fields in a request on a route."""
    for name in dict.fromkeys(names):
        fate = headers.fate(name, fields, route)
        what = f"passed on: {_PASSED[fate.rule]}" if fate.passed else _dropped(name, fate, route)
        yield f"{name.decode('ascii')}, {what}"


def _dropped(name: bytes, fate: Fate, route: RouteSettings) -> str:
    if why := _ALWAYS_DROPPED.get(fate.rule):
        return f"dropped: {why}"
    if fate.own:
        return f"dropped: {_setter(name, route)}"
    if fate.rule in {FieldRule.CLAIM, FieldRule.ODD_NAME} and not fate.listed:
        what = _CLAIMED.get(claimed(fold(name)), "")
        why = f"tools may take it for {what}" if what else "its name has more than A-Z, 0-9 and -"
        shown = name.decode("ascii")
        return f'dropped: {why}; pass_fields = ["{shown}"] of route {route.name} passes it on'
    if name.lower() == b"authorization":
        return "dropped: for the gate itself; `forward_authorization` of the route passes it on"
    return "dropped: Connection names it, or `request_buffer` has read the body already"


def _setter(name: bytes, route: RouteSettings) -> str:
    if fold(name) in {fold(header.encode("ascii")) for header in route.headers}:
        return f"`headers` of route {route.name} set it"
    return "the gate sets it for this tool: `headers` of a route to it, its prefix or `real_ip`"
