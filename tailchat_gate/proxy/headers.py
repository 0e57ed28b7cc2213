"""Header fields on their way through: what is dropped, what is set, in bytes; strip, then set."""

import re
from collections.abc import Collection, Iterable
from enum import IntEnum
from typing import Final

from tailchat_gate.config.model import Route as RouteSettings
from tailchat_gate.identity.cookie import CookieReader
from tailchat_gate.request.client import Client
from tailchat_gate.request.fields import FieldSection, RawFields, fold
from tailchat_gate.request.head import RequestHead

CRLF: Final = b"\r\n"

#: Fields of the connection, not of the message (RFC 9110 section 7.6.1).
HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
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

#: Options of Connection that name no field to drop: the framing, and Cookie, which is for the tool
#: and which a sender must not list (RFC 9110 section 7.6.1).
_NO_FIELDS: Final = frozenset(
    (b"close", b"content-length", b"cookie", b"keep-alive", b"te", b"transfer-encoding", b"upgrade")
)
_AUTHORIZATION: Final = frozenset((b"authorization",))
#: Fields that mean nothing, or too much, behind a body (RFC 9110 section 6.5.1).
_NEVER_TRAILERS: Final = frozenset(
    (
        *(b"authorization", b"cache-control", b"cookie", b"expect", b"host", b"max-forwards"),
        *(b"origin", b"pragma", b"proxy-authorization", b"range", b"set-cookie", b"te", b"trailer"),
        *(b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since"),
    )
)
_NEVER_TRAILER_PREFIXES: Final = (b"content-", *_MANAGED_PREFIXES)

#: Methods for which a recipient counts Max-Forwards down (RFC 9110 section 7.6.2).
COUNTS_HOPS: Final = frozenset(("OPTIONS", "TRACE"))
_MAX_FORWARDS: Final = re.compile(rb"(?i)(?<=\r\n)(max-forwards: )0*([1-9][0-9]{0,8})(?=\r\n)")
_MAX_KNOWN_NAMES: Final = 2048
_MAX_KNOWN_LENGTH: Final = 64


class _Action(IntEnum):
    KEEP = 0
    DROP = 1
    COOKIE = 2


# Names of their own, because an enum's attribute costs ten times a global and is read per field.
_KEEP, _DROP, _COOKIE = _Action


class RequestHeaders:
    """Makes the fields of a request for the upstream out of the client's.

    `managed` are further names that only the gate may set: those of the routes' own `headers`.
    They are stripped on every route, public ones too, because two routes may share an upstream.
    `via` is the gate's name in the Via field, "" for none; `forwarded` says whether RFC 7239's
    field is sent beside the X-Forwarded ones.
    """

    def __init__(
        self, cookies: CookieReader, managed: Iterable[str], *, via: str, forwarded: bool
    ) -> None:
        self._cookies = cookies
        self._managed = _MANAGED | {fold(name.encode("ascii")) for name in managed}
        # RFC 9110 section 7.6.3: the version received, 1.0 at False's place's neighbour.
        self._via = tuple(
            b"Via: 1.%d %b\r\n" % (minor, via.encode("ascii")) if via else b"" for minor in (1, 0)
        )
        self._forwarded = forwarded
        # Names repeat from request to request; judging one costs more than looking it up.
        self._known: dict[bytes, _Action] = {}

    def head(
        self, request: RequestHead, raw_target: bytes, *, client: Client, settings: RouteSettings,
        request_id: str, identity: bytes, upgrade: bool,
    ) -> bytes:  # fmt: skip
        """Return the whole request head for the upstream of the route with `settings`.

        `raw_target` is the target to send. The gate's own fields come behind the client's, so
        that nothing in those can take one away. `identity` are the identity header lines, b""
        on a public route without a visitor; `upgrade`: the switch that is asked for is passed on.
        """
        fields = request.fields
        made_for = fields.sent_for
        if made_for is None or made_for[0] is not client or made_for[1] is not settings:
            fields.sent = self._lines(fields, client, settings)
            fields.sent_for = (client, settings)
        return b"".join(
            (
                request.line
                if raw_target is request.target.raw and request.line
                else b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), raw_target),
                _one_hop_less(fields.sent) if request.method in COUNTS_HOPS else fields.sent,
                b"X-Request-Id: %b\r\n" % request_id.encode("ascii"),
                identity,
                self._via[request.http10],
                b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % fields.upgrade if upgrade else CRLF,
            )
        )

    def trailers(self, fields: RawFields) -> bytes:
        """Return the trailer lines for the upstream: none that only a head may carry."""
        kept = (
            b"%b: %b\r\n" % (name, value)
            for name, value in fields
            if self._judge(name) is _KEEP and may_trail(name)
        )
        return b"".join(kept)

    def rewrite(self, fields: FieldSection, *, keep_token: bool = False) -> list[bytes]:
        """Return the client's fields that are passed on, as pieces to be joined.

        Hop-by-hop fields go, also those that Connection names; every spelling of a managed name
        goes; cookies of the gate go, and so does a token of the gate unless `keep_token`; the
        rest keeps its bytes and order. The framing field is written anew, a length as plain
        decimal (RFC 9112 section 6.2).
        """
        known = self._known
        pieces: list[bytes] = []
        for name, value in fields.pairs:
            action = known.get(name)
            if action is None:
                action = self._judge(name)
            if action is _KEEP:
                pieces += (name, b": ", value, CRLF)
            elif action is _COOKIE and (kept := self._cookies.for_upstream(value)):
                pieces += (name, b": ", kept, CRLF)
        listed = fields.connection - _NO_FIELDS
        if fields.bearer is not None and not keep_token:
            listed |= _AUTHORIZATION
        if listed:
            pieces = without(pieces, listed)
        if fields.chunked:
            pieces.append(b"Transfer-Encoding: chunked\r\n")
        elif fields.length is not None:
            pieces.append(b"Content-Length: %d\r\n" % fields.length)
        return pieces

    def _lines(self, fields: FieldSection, client: Client, settings: RouteSettings) -> bytes:
        host = fields.host
        port = host.port or ("443" if client.scheme == "https" else "80")
        own_host = settings.upstream_host
        pieces = [
            b"Host: %b\r\n" % (own_host.encode("ascii") if own_host else host.raw),
            *self.rewrite(fields, keep_token=settings.forward_authorization),
            b"X-Forwarded-Host: %b\r\n" % host.raw,
            (
                f"X-Forwarded-For: {client.forwarded_for}\r\nX-Forwarded-Proto: {client.scheme}"
                f"\r\nX-Forwarded-Port: {port}\r\n"
            ).encode("ascii"),
        ]
        if self._forwarded:
            pieces.append(_forwarded(client, host.raw))
        if takes_trailers(fields):
            pieces.append(b"TE: trailers\r\nConnection: TE\r\n")
        return b"".join(pieces)

    def _judge(self, name: bytes) -> _Action:
        action = self._classify(name)
        if len(self._known) < _MAX_KNOWN_NAMES and len(name) <= _MAX_KNOWN_LENGTH:
            self._known[name] = action
        return action

    def _classify(self, name: bytes) -> _Action:
        if name.lower() == b"cookie":
            return _COOKIE
        folded = fold(name)
        if folded.startswith(_MANAGED_PREFIXES) or folded in self._managed:
            return _DROP
        return _DROP if folded in HOP_BY_HOP or folded in _ROUTING else _KEEP


def _one_hop_less(lines: bytes) -> bytes:
    """Return field lines with Max-Forwards, where there is one, counted down."""
    return _MAX_FORWARDS.sub(lambda match: b"%b%d" % (match[1], int(match[2]) - 1), lines, 1)


def takes_trailers(fields: FieldSection) -> bool:
    """Tell whether the client says that it reads trailers (RFC 9110 section 10.1.4)."""
    return b"te" in fields.connection and any(
        element.strip(b" \t") == b"trailers"
        for value in fields.values(b"te")
        for element in value.lower().split(b",")
    )


def may_trail(name: bytes) -> bool:
    """Tell whether a field may stand behind a body: no framing, routing or identity."""
    folded = fold(name)
    return not (
        folded in _NEVER_TRAILERS
        or folded in HOP_BY_HOP
        or folded in _ROUTING
        or folded.startswith(_NEVER_TRAILER_PREFIXES)
    )


def without(pieces: list[bytes], listed: Collection[bytes]) -> list[bytes]:
    """Return field pieces (name, ": ", value, CRLF and so on) less the lower-case names listed."""
    kept: list[bytes] = []
    for start in range(0, len(pieces), 4):
        if pieces[start].lower() not in listed:
            kept += pieces[start : start + 4]
    return kept


def _forwarded(client: Client, host: bytes) -> bytes:
    """Return the Forwarded field (RFC 7239 section 4): the chain, and what the gate saw."""
    hops = [f'"[{hop}]"' if ":" in hop else hop for hop in client.forwarded_for.split(", ")]
    first, *rest = [f"for={hop}" for hop in hops]
    seen = f';host="{host.decode("ascii")}";proto={client.scheme}'
    return f"Forwarded: {', '.join([first + seen, *rest])}\r\n".encode("ascii")
