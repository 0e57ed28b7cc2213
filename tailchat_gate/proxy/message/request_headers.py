"""Header fields on their way through: what is dropped, what is set, in bytes; strip, then set."""

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from tailchat_gate.config.model import Route as RouteSettings
from tailchat_gate.identity.sessions.cookies import CookieReader
from tailchat_gate.proxy.message.field_rules import Action, FieldRules, Rule
from tailchat_gate.proxy.message.identity_headers import client_fields
from tailchat_gate.request.authorization import Way
from tailchat_gate.request.client import Client
from tailchat_gate.request.field_names import fold
from tailchat_gate.request.fields import FieldSection, RawFields
from tailchat_gate.request.head import RequestHead
from tailchat_gate.syntax import DEFAULT_PORTS

CRLF: Final = b"\r\n"

_PORTS: Final = {scheme: str(port) for scheme, port in DEFAULT_PORTS.items()}
#: Options of Connection that name no field to drop: the framing, and Cookie, which is for the tool
#: and which a sender must not list (RFC 9110 section 7.6.1).
_NO_FIELDS: Final = frozenset(
    (b"close", b"content-length", b"cookie", b"keep-alive", b"te", b"transfer-encoding", b"upgrade")
)
#: What says how a body is still to come (RFC 9110 sections 6.6.2 and 10.1.1).
_NOT_OF_KEPT: Final = frozenset((b"expect", b"trailer"))
_AUTHORIZATION: Final = frozenset((b"authorization",))
#: Ways to present a token in that field.
_IN_AUTHORIZATION: Final = frozenset((Way.BEARER, Way.BASIC))
#: Methods for which a recipient counts Max-Forwards down (RFC 9110 section 7.6.2).
COUNTS_HOPS: Final = frozenset(("OPTIONS", "TRACE"))
_MAX_FORWARDS: Final = re.compile(rb"(?i)(?<=\r\n)(max-forwards: )0*([1-9][0-9]{0,8})(?=\r\n)")
_AS_SENT: Final[Mapping[bytes, bytes]] = MappingProxyType({})
# Globals: see reasons.py.
_KEEP, _COOKIE = Action.KEEP, Action.COOKIE


class Fate(NamedTuple):
    """What becomes of a request field on a route.

    `rule` is that of its name. `listed`: it stays here for what the rest of the request says.
    `own`: the gate sets a field of this name for the route's tool.
    """

    passed: bool
    rule: Rule
    listed: bool
    own: bool


class RequestHeaders:
    """Makes the fields of a request for the upstream out of the client's.

    `routes` are those of the configuration. `via` is the gate's name in the Via field, "" for
    none; `forwarded` says whether RFC 7239's field is sent beside the X-Forwarded ones, and
    `real_ip` the same of X-Real-IP.
    """

    def __init__(
        self,
        cookies: CookieReader,
        routes: Iterable[RouteSettings],
        *,
        via: str,
        forwarded: bool,
        real_ip: bool = False,
    ) -> None:
        self._cookies = cookies
        self._rules = FieldRules(routes, real_ip=real_ip)
        # RFC 9110 section 7.6.3: the version received, 1.0 at False's place's neighbour.
        self._via = tuple(
            b"Via: 1.%d %b\r\n" % (minor, via.encode("ascii")) if via else b"" for minor in (1, 0)
        )
        self._forwarded = forwarded
        self._name = via.lower().encode("ascii")

    def passed_here(self, via: Iterable[bytes]) -> bool:
        """Tell from the values of Via whether the gate forwarded the request once already.

        It has come back then, by a route that leads to the gate itself (RFC 9110 section 7.6.3).
        """
        own = self._name
        return bool(own) and any(
            own in element.lower().split()[1:2] for value in via for element in value.split(b",")
        )

    def head(
        self, request: RequestHead, raw_target: bytes, *, client: Client, settings: RouteSettings,
        request_id: str, identity: bytes, upgrade: bool,
        told: Mapping[bytes, bytes] = _AS_SENT,
    ) -> bytes:  # fmt: skip
        """Return the whole request head for the upstream of the route with `settings`.

        `raw_target` is the target to send. The gate's own fields come behind the client's, so
        that nothing in those can take one away. `identity` are the identity header lines, b""
        on a public route without a visitor; `upgrade`: the switch that is asked for is passed on.
        `told` are values of fields in place of those that came, by names in lower case. They may
        differ by the method for the same fields: a path may be served by another route for each.
        """
        fields = request.fields
        made_for = fields.sent_for
        if (
            made_for is None
            or made_for[0] is not client
            or made_for[1] is not settings
            or (made_for[2] is not told and made_for[2] != told)
        ):
            fields.sent = self._lines(fields, client, settings, told)
            fields.sent_for = (client, settings, told)
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

    def claim(
        self, fields: FieldSection, settings: RouteSettings, besides: Collection[bytes]
    ) -> str:
        """Return the first field that would not reach the route's tool for what it claims, or "".

        `besides` are lower-case names that do not count.
        """
        rules = self._rules.of_route[settings.name]
        for name, _ in fields.pairs:
            if name.lower() not in besides and self._rules.drops(name, rules):
                return name.decode("ascii")
        return ""

    def fate(self, name: bytes, fields: FieldSection, settings: RouteSettings) -> Fate:
        """Return what becomes of a field with a name in a request, as `rewrite` has it."""
        return Fate(
            name in self.rewrite(fields, settings)[::4],
            self._rules.rule(name),
            name.lower() in self._listed(fields, settings),
            fold(name) in self._rules.of_route[settings.name].own,
        )

    def credentials(self, fields: FieldSection, settings: RouteSettings) -> bytes:
        """Return the Authorization lines of the client's that `rewrite` passes on, for an edge."""
        if _AUTHORIZATION & self._listed(fields, settings):
            return b""
        rules = self._rules.of_route[settings.name]
        return b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in fields.pairs
            if name.lower() in _AUTHORIZATION and not self._rules.drops(name, rules)
        )

    def trailers(self, settings: RouteSettings, fields: RawFields) -> bytes:
        """Return the trailer lines for the upstream: none that only a head may carry."""
        rules = self._rules.of_route[settings.name]
        kept = (
            b"%b: %b\r\n" % (name, value)
            for name, value in fields
            if self._rules.trails(name, rules)
        )
        return b"".join(kept)

    def rewrite(self, fields: FieldSection, settings: RouteSettings) -> list[bytes]:
        """Return the client's fields that are passed on, as pieces to be joined.

        Hop-by-hop fields go, also those that Connection names; every spelling of a name goes that
        is the gate's to set, and so does a claim that the route does not pass; cookies of the gate
        go, and so does a token of the gate where the route does not forward it; the rest keeps
        its bytes and order. The framing field is written anew, a length as plain decimal
        (RFC 9112 section 6.2); where the route keeps a body first, `with_length` adds it then.
        """
        known = self._rules.known
        rules = self._rules.of_route[settings.name]
        host = fields.host.name
        pieces: list[bytes] = []
        for name, value in fields.pairs:
            action = known.get(name)
            if action is None:
                action = self._rules.judge(name)
            if action is _KEEP:
                pieces += (name, b": ", value, CRLF)
            elif action is _COOKIE:
                if kept := self._cookies.for_upstream(value, host):
                    pieces += (name, b": ", kept, CRLF)
            elif rules.passes(name, action):
                pieces += (name, b": ", value, CRLF)
        if listed := self._listed(fields, settings):
            pieces = without(pieces, listed)
        return pieces if _is_kept(fields, settings) else pieces + _framing(fields)

    def _listed(self, fields: FieldSection, settings: RouteSettings) -> frozenset[bytes]:
        """Return lower-case names that stay here for what the client says: hops, and its token."""
        listed = fields.connection - _NO_FIELDS
        if fields.token_way in _IN_AUTHORIZATION and not settings.forward_authorization:
            listed |= _AUTHORIZATION
        return listed | _NOT_OF_KEPT if _is_kept(fields, settings) else listed

    def _lines(
        self,
        fields: FieldSection,
        client: Client,
        settings: RouteSettings,
        told: Mapping[bytes, bytes],
    ) -> bytes:
        host = fields.host
        port = host.port or _PORTS[client.scheme]
        own_host = settings.upstream_host
        pieces = [
            b"Host: %b\r\n" % (own_host.encode("ascii") if own_host else host.raw),
            *_replaced(self.rewrite(fields, settings), told),
            b"X-Forwarded-Host: %b\r\n" % host.raw,
            (
                f"X-Forwarded-For: {client.forwarded_for}\r\nX-Forwarded-Proto: {client.scheme}"
                f"\r\nX-Forwarded-Port: {port}\r\n"
            ).encode("ascii"),
        ]
        if self._forwarded:
            pieces.append(_forwarded(client, host.raw))
        rules = self._rules.of_route[settings.name]
        pieces.append(rules.prefix_line)
        if rules.real_ip and client.address:
            pieces.append(b"X-Real-IP: %b\r\n" % client.address.encode("ascii"))
        if rules.tells_client:
            pieces.append(client_fields(settings, client.address))
        if takes_trailers(fields):
            pieces.append(b"TE: trailers\r\nConnection: TE\r\n")
        return b"".join(pieces)


def _one_hop_less(lines: bytes) -> bytes:
    """Return field lines with Max-Forwards, where there is one, counted down."""
    return _MAX_FORWARDS.sub(lambda match: b"%b%d" % (match[1], int(match[2]) - 1), lines, 1)


def _framing(fields: FieldSection) -> list[bytes]:
    """Return the field that frames the body, none where there is no body."""
    if fields.chunked:
        return [b"Transfer-Encoding: chunked\r\n"]
    return [] if fields.length is None else [b"Content-Length: %d\r\n" % fields.length]


def _is_kept(fields: FieldSection, settings: RouteSettings) -> bool:
    """Whether there is a body that is kept until it is whole."""
    return fields.has_body and settings.request_buffer > 0


def with_length(head: bytes, length: int) -> bytes:
    """Return a request head, made for a body that was kept first, with the body's length."""
    return b"%bContent-Length: %d\r\n\r\n" % (head[: -len(CRLF)], length)


def takes_trailers(fields: FieldSection) -> bool:
    """Whether the client says that it reads trailers (RFC 9110 section 10.1.4)."""
    return b"te" in fields.connection and any(
        element.strip(b" \t") == b"trailers"
        for value in fields.values(b"te")
        for element in value.lower().split(b",")
    )


def without(pieces: list[bytes], listed: Collection[bytes]) -> list[bytes]:
    """Return field pieces (name, ": ", value, CRLF and so on) less the lower-case names listed."""
    kept: list[bytes] = []
    for start in range(0, len(pieces), 4):
        if pieces[start].lower() not in listed:
            kept += pieces[start : start + 4]
    return kept


def _replaced(pieces: list[bytes], told: Mapping[bytes, bytes]) -> list[bytes]:
    """Return pieces as `without` takes them, with other values for the lower-case names told."""
    for start in range(0, len(pieces), 4) if told else ():
        if (value := told.get(pieces[start].lower())) is not None:
            pieces[start + 2] = value
    return pieces


def _forwarded(client: Client, host: bytes) -> bytes:
    """Return the Forwarded field (RFC 7239 section 4): the chain, and what the gate saw."""
    hops = [f'"[{hop}]"' if ":" in hop else hop for hop in client.forwarded_for.split(", ")]
    first, *rest = [f"for={hop}" for hop in hops]
    seen = f';host="{host.decode("ascii")}";proto={client.scheme}'
    return f"Forwarded: {', '.join([first + seen, *rest])}\r\n".encode("ascii")
