"""Header fields on their way through: what is dropped, what is set, in bytes; strip, then set."""

import re
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import Final

from tailchat_gate.identity.cookie import CookieReader
from tailchat_gate.request.client import Client
from tailchat_gate.request.target import Target

CRLF: Final = b"\r\n"
_ODD: Final = re.compile(rb"[^a-z0-9]")

#: Fields of the connection, not of the message (RFC 9110 section 7.6.1).
HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
#: Fields that frame a body; every other spelling of them goes, as `host` does.
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
_ROUTING: Final = _FRAMING | {b"host"}
#: Fields by which servers are told who asks, from where, or for which path: the gate's alone.
_MANAGED: Final = frozenset(
    (
        b"forwarded",
        b"proxy",  # becomes HTTP_PROXY in CGI
        b"x-original-host",
        b"x-original-uri",
        b"x-original-url",  # some frameworks take their path from this and the next
        b"x-rewrite-url",
        b"x-real-ip",
        b"x-request-id",
    )
)
_MANAGED_PREFIXES: Final = (b"x-tailchat-", b"x-forwarded-")

#: What nearly every client sends; it names no field.
_PLAIN_CONNECTION: Final = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Upgrade"))

_MAX_KNOWN_NAMES: Final = 2048
_MAX_KNOWN_LENGTH: Final = 64


class _Action(IntEnum):
    KEEP = 0
    DROP = 1
    COOKIE = 2
    CONNECTION = 3
    FRAME = 4


# Names of their own, because an enum's attribute costs ten times a global and is read per field.
_KEEP, _DROP, _COOKIE, _CONNECTION, _FRAME = _Action


def fold(name: bytes) -> bytes:
    """Return a field name as CGI, WSGI and PHP may fold it: lower case, "-" for odd bytes."""
    return _ODD.sub(b"-", name.lower())


class BadFieldError(ValueError):
    """A header field that no honest client sends."""


class RequestHeaders:
    """Rewrites the fields of a request for the upstream.

    `managed` are further names that only the gate may set: those of the routes' own `headers`.
    They are stripped on every route, public ones too, because two routes may share an upstream.
    """

    def __init__(self, cookies: CookieReader, managed: Iterable[str]) -> None:
        self._cookies = cookies
        self._managed = _MANAGED | {fold(name.encode("ascii")) for name in managed}
        # Names repeat from request to request; judging one costs more than looking it up.
        self._known: dict[bytes, _Action] = {}

    def rewrite(
        self, fields: Sequence[tuple[bytes, bytes]], *, chunked: bool, has_body: bool
    ) -> list[bytes]:
        """Return the fields to send, as pieces to be joined.

        `fields` are the client's, as received. Hop-by-hop fields go, also those that Connection
        names; every spelling of a managed name goes; cookies of the gate go; the rest keeps its
        bytes and order. The framing field is set anew: `chunked` says that the body comes in
        chunks, `has_body` that there is one at all. Raises BadFieldError where the framing fields
        say anything else: what they announce and what is sent must be the same.
        """
        known = self._known
        pieces: list[bytes] = []
        listed: Collection[bytes] = ()
        for name, value in fields:
            action = known.get(name)
            if action is None:
                action = self._judge(name)
            if action is _KEEP:
                pieces += (name, b": ", value, CRLF)
            elif action is _COOKIE:
                if kept := self._cookies.for_upstream(value):
                    pieces += (name, b": ", kept, CRLF)
            elif action is _FRAME:
                pieces += _framing(name, value, chunked=chunked, has_body=has_body)
            elif action is _CONNECTION and value not in _PLAIN_CONNECTION:
                listed = _listed(fields)
        return without(pieces, listed) if listed else pieces

    def _judge(self, name: bytes) -> _Action:
        action = self._classify(name)
        if len(self._known) < _MAX_KNOWN_NAMES and len(name) <= _MAX_KNOWN_LENGTH:
            self._known[name] = action
        return action

    def _classify(self, name: bytes) -> _Action:
        lower = name.lower()
        if lower in _FRAMING:
            return _FRAME
        if lower == b"connection":
            return _CONNECTION
        if lower == b"cookie":
            return _COOKIE
        folded = fold(name)
        if folded.startswith(_MANAGED_PREFIXES) or folded in self._managed:
            return _DROP
        return _DROP if folded in HOP_BY_HOP or folded in _ROUTING else _KEEP


def _listed(fields: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Return the lower-case names that the Connection fields list."""
    values = [value for name, value in fields if name.lower() == b"connection"]
    options = {option.strip().lower() for value in values for option in value.split(b",")}
    # Cookie is for the tool, and a sender must not list such a field (RFC 9110 section 7.6.1).
    return frozenset(options - _FRAMING - {b"cookie"})


def without(pieces: list[bytes], listed: Collection[bytes]) -> list[bytes]:
    """Return field pieces (name, ": ", value, CRLF and so on) less the lower-case names listed."""
    kept: list[bytes] = []
    for start in range(0, len(pieces), 4):
        if pieces[start].lower() not in listed:
            kept += pieces[start : start + 4]
    return kept


def _framing(name: bytes, value: bytes, *, chunked: bool, has_body: bool) -> tuple[bytes, ...]:
    """Return the field that frames the body, made of the client's own.

    A length becomes plain decimal (RFC 9112 section 6.2). Raises BadFieldError.
    """
    if name.lower() == b"transfer-encoding":
        if not chunked or value.strip().lower() != b"chunked":
            raise BadFieldError("a transfer coding other than chunked")
        return (b"Transfer-Encoding", b": ", b"chunked", CRLF)
    if not value.isdigit():
        raise BadFieldError("a Content-Length that is not a number")
    length = value.lstrip(b"0") or b"0"
    if chunked or has_body is (length == b"0"):
        # llhttp takes 2^64 - 1 for "no length": the body would be read as the next request.
        raise BadFieldError("a Content-Length that is not that of the body")
    return (b"Content-Length", b": ", length, CRLF)


def request_head(
    method: str,
    target: Target,
    fields: list[bytes],
    *,
    client: Client,
    request_id: str,
    upgrade: bool,
    identity: bytes,
) -> bytes:
    """Return the whole request head for the upstream.

    `fields` are what RequestHeaders.rewrite returned; the gate's own come behind them, so that
    nothing in them can take one away. `identity` are the identity header lines, b"" on a public
    route without a visitor.
    """
    host = target.host
    port = host.port or ("443" if client.scheme == "https" else "80")
    forwarded = (
        f"X-Forwarded-For: {client.forwarded_for}\r\nX-Forwarded-Proto: {client.scheme}\r\n"
        f"X-Forwarded-Port: {port}\r\nX-Request-Id: {request_id}\r\n"
    )
    return b"".join(
        (
            f"{method} ".encode("ascii"),
            target.raw,
            b" HTTP/1.1\r\nHost: ",
            host.raw,
            b"\r\nX-Forwarded-Host: ",
            host.raw,
            CRLF,
            forwarded.encode("ascii"),
            *fields,
            identity,
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" if upgrade else CRLF,
        )
    )
