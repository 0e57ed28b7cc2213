"""Makes the request head for the upstream: drops the client's fields, then adds the gate's own."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from tailchat_gate.access.claimed_paths import AS_SENT
from tailchat_gate.bounded import ENTRY_BYTES, BoundedCache
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.identity.sessions.cookie_fields import CookieReader
from tailchat_gate.proxy.message.field_rules import FieldAction, FieldRule, FieldRules, RouteRules
from tailchat_gate.proxy.message.identity_headers import client_fields
from tailchat_gate.request.authorization import TokenWay
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.field_names import fold
from tailchat_gate.request.fields import FieldSection, RawFields
from tailchat_gate.request.head import RequestHead
from tailchat_gate.request.target import Host
from tailchat_gate.syntax import DEFAULT_PORTS

CRLF: Final = b"\r\n"

_PORTS: Final = {scheme: str(port) for scheme, port in DEFAULT_PORTS.items()}
#: Options of Connection that name no field to drop: the framing, and Cookie, which is for the tool
#: and which a sender must not list (RFC 9110 section 7.6.1).
_NO_FIELDS: Final = frozenset(
    (b"close", b"content-length", b"cookie", b"keep-alive", b"te", b"transfer-encoding", b"upgrade")
)
#: Fields that announce a body still to come (RFC 9110 sections 6.6.2 and 10.1.1).
_NOT_OF_STORED: Final = frozenset((b"expect", b"trailer"))
_AUTHORIZATION: Final = frozenset((b"authorization",))
#: Ways to present a token in that field.
_IN_AUTHORIZATION: Final = frozenset((TokenWay.BEARER, TokenWay.BASIC))
#: Methods for which a recipient counts Max-Forwards down (RFC 9110 section 7.6.2).
COUNTS_HOPS: Final = frozenset(("OPTIONS", "TRACE"))
_MAX_FORWARDS: Final = re.compile(rb"(?i)(?<=\r\n)(max-forwards: )0*([1-9][0-9]{0,8})(?=\r\n)")
#: Bytes of the gate's own lines that are cached.
_KEPT_OWN: Final = 4 << 20
# Globals: see reasons.py.
_KEEP, _COOKIE = FieldAction.KEEP, FieldAction.COOKIE


class Fate(NamedTuple):
    """The action of the gate on a request field, on a route.

    `rule` is the rule of its name. `listed`: it is dropped because of other fields of the request
    (Connection, a token in Authorization). `own`: the gate sets a field of this name for the tool.
    """

    passed: bool
    rule: FieldRule
    listed: bool
    own: bool


class RequestHeaders:
    """Makes an upstream request's fields from the client's.

    `routes` are all routes of the configuration. `via` is the gate's name in the Via field; if it
    is "", `authority` is sent in CDN-Loop (RFC 8586) instead, which no server acts on. `forwarded`,
    `real_ip`, `certificate`: whether Forwarded (RFC 7239), X-Real-IP and Client-Cert are sent.
    """

    def __init__(
        self,
        cookies: CookieReader,
        routes: Iterable[RouteSettings],
        *,
        via: str,
        authority: str = "",
        forwarded: bool,
        real_ip: bool = False,
        certificate: bool = False,
    ) -> None:
        self._cookies = cookies
        self._rules = FieldRules(routes, real_ip=real_ip, certificate=certificate)
        # The version received (RFC 9110 section 7.6.3): index 0 is HTTP/1.1, index 1 is HTTP/1.0.
        own = (via or authority).encode("ascii")
        loop = b"CDN-Loop: %b\r\n" % own if own else b""
        self._via = tuple(b"Via: 1.%d %b\r\n" % (m, own) if via else loop for m in (1, 0))
        self._forwarded = forwarded
        #: The gate's own lines, by their inputs: the first line, and those after the client's.
        self._own: BoundedCache[tuple[object, ...], tuple[bytes, bytes]] = BoundedCache(
            _KEPT_OWN, cost=_cost_of_own
        )
        self._name, self._name_at = own.lower(), 1 if via else 0

    def passed_here(self, passed: Iterable[bytes]) -> bool:
        """Whether values of Via or CDN-Loop name this gate, so that the request is in a loop.

        A route's upstream is then the gate itself (RFC 9110 section 7.6.3, RFC 8586 section 2).
        """
        own, at = self._name, self._name_at
        return bool(own) and any(
            own in element.lower().replace(b";", b" ").split()[at : at + 1]
            for value in passed
            for element in value.split(b",")
        )

    def head(
        self, request: RequestHead, raw_target: bytes, *, address: ClientAddress,
        settings: RouteSettings, request_id: str, identity: bytes, upgrade: bool,
        rewritten: Mapping[bytes, bytes] = AS_SENT,
    ) -> bytes:  # fmt: skip
        """Return the whole request head for the upstream of the route with `settings`.

        `raw_target` is the target to send. The gate's own fields come after the client's, so that
        no client field can remove one. `identity` are the identity header lines, none on a public
        route without a visitor, and those of the request's trace. `upgrade`: the requested
        protocol switch is passed on. `rewritten` has new values of fields, by lower-case names;
        these may differ by method for equal fields, because a path may have another route for each
        method.
        """
        fields = request.fields
        made_for = fields.sent_for
        if (
            made_for is None
            or made_for[0] is not address
            or made_for[1] is not settings
            or (made_for[2] is not rewritten and made_for[2] != rewritten)
        ):
            fields.sent = self._lines(fields, address, settings, rewritten)
            fields.sent_for = (address, settings, rewritten)
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
        """Return the first field that the gate drops because of what it claims, "" for none.

        `besides` are lower-case names to ignore.
        """
        rules = self._rules.of_route[settings.name]
        for name, _ in fields.pairs:
            if name.lower() not in besides and self._rules.drops(name, rules):
                return name.decode("ascii")
        return ""

    def fate(self, name: bytes, fields: FieldSection, settings: RouteSettings) -> Fate:
        """Return the action of `rewrite` on the field `name` of a request."""
        return Fate(
            name in self.rewrite(fields, settings)[::4],
            self._rules.rule(name),
            name.lower() in self._listed(fields, settings),
            fold(name) in self._rules.of_route[settings.name].own,
        )

    def credentials(self, fields: FieldSection, settings: RouteSettings) -> bytes:
        """Return the Authorization lines that `rewrite` would pass on, for forward-auth."""
        if _AUTHORIZATION & self._listed(fields, settings):
            return b""
        rules = self._rules.of_route[settings.name]
        return b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in fields.pairs
            if name.lower() in _AUTHORIZATION and not self._rules.drops(name, rules)
        )

    def trailers(self, settings: RouteSettings, fields: RawFields) -> bytes:
        """Return the trailer lines for the upstream, without fields that only a head may have."""
        rules = self._rules.of_route[settings.name]
        lines = (
            b"%b: %b\r\n" % (name, value)
            for name, value in fields
            if self._rules.trails(name, rules)
        )
        return b"".join(lines)

    def rewrite(self, fields: FieldSection, settings: RouteSettings) -> list[bytes]:
        """Return the client's fields that are passed on, as pieces to be joined.

        It drops hop-by-hop fields, those that Connection names, every spelling of a name that the
        gate sets, claims that the route does not pass, the gate's cookies, and a token of the gate
        that the route does not forward. The rest keeps its bytes and order. The gate writes the
        framing field itself, a length as plain decimal (RFC 9112 section 6.2); if the route stores
        the body first, `with_length` adds it later.
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
                if cookies := self._cookies.for_upstream(value, host):
                    pieces += (name, b": ", cookies, CRLF)
            elif rules.passes(name, action):
                pieces += (name, b": ", value, CRLF)
        if listed := self._listed(fields, settings):
            pieces = without(pieces, listed)
        return pieces if _is_stored(fields, settings) else pieces + _framing(fields)

    def _listed(self, fields: FieldSection, settings: RouteSettings) -> frozenset[bytes]:
        """Return lower-case names to drop: Connection's options, the token's and the body's."""
        listed = fields.connection - _NO_FIELDS if fields.connection else fields.connection
        if fields.token_way in _IN_AUTHORIZATION and not settings.forward_authorization:
            listed |= _AUTHORIZATION
        return listed | _NOT_OF_STORED if _is_stored(fields, settings) else listed

    def _lines(
        self,
        fields: FieldSection,
        address: ClientAddress,
        settings: RouteSettings,
        rewritten: Mapping[bytes, bytes],
    ) -> bytes:
        """Return the field lines for the upstream that may be the same for further requests."""
        rules = self._rules.of_route[settings.name]
        # The client's values, not the object, of which connections of a proxy make many.
        key = (rules, fields.host.raw, address.forwarded_for, address.scheme, address.address)
        own = self._own.get(key)
        if own is None:
            own = (_host(fields.host, settings), self._tail(fields.host, address, settings, rules))
            self._own.keep(key, own)
        first, tail = own
        # A cheap test first: nearly every section has none of these.
        drops = fields.connection or fields.has_body or fields.token_way is not None
        if rewritten or len(fields.cookies) > 1 or (drops and self._listed(fields, settings)):
            client_lines = _replaced(self.rewrite(fields, settings), rewritten)
        else:
            client_lines = self._rewrite_simple(fields, rules)
        if b"te" in fields.connection and takes_trailers(fields):
            tail += b"TE: trailers\r\nConnection: TE\r\n"
        return b"".join((first, *client_lines, tail))

    def _rewrite_simple(self, fields: FieldSection, rules: RouteRules) -> list[bytes]:
        """Return the result of `rewrite` for a section in which no field drops another.

        It has one Cookie field at most. The names alone decide which lines pass, except for a
        Cookie field of which nothing is left.
        """
        shape = fields.shape
        values: Sequence[bytes] = fields.sent_values
        passed = shape.passed(rules, self._passes)
        if shape.cookies:
            place = shape.cookies[0]
            left = self._cookies.for_upstream(values[place], fields.host.name)
            if left:
                values = list(values)
                values[place] = left
            else:
                passed = passed.but_cookies or passed
        return [passed.write(values), *_framing(fields)]

    def _passes(self, rules: RouteRules, name: bytes) -> bool:
        action = self._rules.judge(name)
        return action is _KEEP or action is _COOKIE or rules.passes(name, action)

    def _tail(
        self, host: Host, address: ClientAddress, settings: RouteSettings, rules: RouteRules
    ) -> bytes:
        """Return the gate's own lines, the same for all requests of one client to one host."""
        port = host.port or _PORTS[address.scheme]
        pieces = [
            b"X-Forwarded-Host: %b\r\n" % host.raw,
            (
                f"X-Forwarded-For: {address.forwarded_for}\r\nX-Forwarded-Proto: {address.scheme}"
                f"\r\nX-Forwarded-Port: {port}\r\n"
            ).encode("ascii"),
        ]
        if self._forwarded:
            pieces.append(_forwarded(address, host.raw))
        pieces.append(rules.prefix_line)
        if rules.real_ip and address.address:
            pieces.append(b"X-Real-IP: %b\r\n" % address.address.encode("ascii"))
        if rules.tells_client:
            pieces.append(client_fields(settings, address.address))
        return b"".join(pieces)


def _cost_of_own(_key: object, own: tuple[bytes, bytes]) -> int:
    return 2 * len(own[1]) + 3 * len(own[0]) + 384 + ENTRY_BYTES


def _host(host: Host, settings: RouteSettings) -> bytes:
    """Return the Host field of the tool."""
    own = settings.upstream_host
    return b"Host: %b\r\n" % (own.encode("ascii") if own else host.raw)


def _one_hop_less(lines: bytes) -> bytes:
    """Return field lines with Max-Forwards, if present, less one."""
    return _MAX_FORWARDS.sub(lambda match: b"%b%d" % (match[1], int(match[2]) - 1), lines, 1)


def _framing(fields: FieldSection) -> list[bytes]:
    """Return the field that frames the body, [] if there is no body."""
    if fields.chunked:
        return [b"Transfer-Encoding: chunked\r\n"]
    return [] if fields.length is None else [b"Content-Length: %d\r\n" % fields.length]


def _is_stored(fields: FieldSection, settings: RouteSettings) -> bool:
    """Whether the route stores the request's body until it is complete."""
    return fields.has_body and settings.request_buffer > 0


def with_length(head: bytes, length: int) -> bytes:
    """Return the request head of a stored body with the body's length."""
    return b"%bContent-Length: %d\r\n\r\n" % (head[: -len(CRLF)], length)


def takes_trailers(fields: FieldSection) -> bool:
    """Whether the client reads trailers (RFC 9110 section 10.1.4)."""
    return b"te" in fields.connection and any(
        element.strip(b" \t") == b"trailers"
        for value in fields.values(b"te")
        for element in value.lower().split(b",")
    )


def without(pieces: list[bytes], listed: Collection[bytes]) -> list[bytes]:
    """Return field pieces (name, ": ", value, CRLF, ...) without the lower-case names `listed`."""
    passed: list[bytes] = []
    for start in range(0, len(pieces), 4):
        if pieces[start].lower() not in listed:
            passed += pieces[start : start + 4]
    return passed


def _replaced(pieces: list[bytes], rewritten: Mapping[bytes, bytes]) -> list[bytes]:
    """Return pieces (as in `without`) with the values of the lower-case names in `rewritten`."""
    for start in range(0, len(pieces), 4) if rewritten else ():
        if (value := rewritten.get(pieces[start].lower())) is not None:
            pieces[start + 2] = value
    return pieces


def _forwarded(address: ClientAddress, host: bytes) -> bytes:
    """Return the Forwarded field (RFC 7239 section 4): the chain, the host and the scheme."""
    hops = [f'"[{hop}]"' if ":" in hop else hop for hop in address.forwarded_for.split(", ")]
    first, *rest = [f"for={hop}" for hop in hops]
    seen = f';host="{host.decode("ascii")}";proto={address.scheme}'
    return f"Forwarded: {', '.join([first + seen, *rest])}\r\n".encode("ascii")
