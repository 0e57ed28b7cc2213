"""Decides by their names which request fields reach a tool."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from tailchat_gate.bounded import keep_in
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.address import tool_of, upstream_address
from tailchat_gate.config.values.header import CLIENT, fields
from tailchat_gate.config.values.path import stripped
from tailchat_gate.request.claims import NAMES as PATH_CLAIMS
from tailchat_gate.request.field_names import (
    HOP_BY_HOP,
    TRACE_CONTEXT,
    NamePatterns,
    fold,
    is_claim,
    is_order,
    is_own,
    is_plain,
)
from tailchat_gate.syntax import ROUTING_FIELDS

_COOKIE: Final = b"cookie"
_PREFIX: Final = b"x-forwarded-prefix"
_REAL_IP: Final = b"x-real-ip"
_CERT: Final = b"client-cert"
#: Fields that must not be trailers (RFC 9110 section 6.5.1).
_NEVER_TRAILERS: Final = frozenset(
    (
        *(b"authorization", b"cache-control", b"cookie", b"expect", b"host", b"max-forwards"),
        *(b"origin", b"pragma", b"proxy-authorization", b"range", b"set-cookie", b"te", b"trailer"),
        *(b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since"),
    )
)
_NEVER_TRAILER_PREFIXES: Final = (b"content-",)
#: The same for a response: redirects, authentication, freshness, and instructions to the browser or
#: to an edge in front.
_NEVER_RESPONSE_TRAILERS: Final = NamePatterns(
    *("age", "alt-svc", "clear-site-data", "date", "expires", "link", "location", "refresh"),
    *("retry-after", "service-worker-allowed", "sourcemap", "status", "strict-transport-security"),
    *("vary", "warning", "www-authenticate", "access-control-*", "cross-origin-*"),
)

_MAX_KNOWN_NAMES: Final = 2048
_MAX_KNOWN_LENGTH: Final = 64


class FieldAction(IntEnum):
    """The action of the gate on a field.

    CLAIM: drop the field unless the route passes it. SET: drop the field if the gate sets it for
    the route's tool.
    """

    KEEP = 0
    DROP = 1
    COOKIE = 2
    CLAIM = 3
    SET = 4


class FieldRule(Enum):
    """The rule that applies to a field's name, and the rule's action."""

    NONE = "none", FieldAction.KEEP
    COOKIE = "cookie", FieldAction.COOKIE
    OWN = "own", FieldAction.DROP
    HOP_BY_HOP = "hop-by-hop", FieldAction.DROP
    ROUTING = "routing", FieldAction.DROP
    TRACE = "trace", FieldAction.DROP
    CLAIM = "claim", FieldAction.CLAIM
    ODD_NAME = "odd name", FieldAction.CLAIM
    SET = "set", FieldAction.SET

    def __init__(self, _: str, action: FieldAction) -> None:
        self.action: Final = action


# Globals: see reasons.py.
_KEEP, _CLAIM, _SET = FieldAction.KEEP, FieldAction.CLAIM, FieldAction.SET


# Compared by identity, because it is the key of a cache.
@dataclass(frozen=True, slots=True, eq=False)
class RouteRules:
    """One route's rules for request fields.

    `own` are the folded names of the fields that the gate sets for the tool, `passed` the
    lower-case names of claims that the route passes. `prefix_line` is the line with the stripped
    prefix, b"" for none. `real_ip`: X-Real-IP is sent. `tells_client`: one of the route's headers
    contains the visitor's address.
    """

    own: frozenset[bytes]
    passed: frozenset[bytes]
    prefix_line: bytes
    real_ip: bool
    tells_client: bool

    def passes(self, name: bytes, action: FieldAction) -> bool:
        """Whether the route passes a field whose action is CLAIM or SET."""
        if action is _CLAIM:
            return name.lower() in self.passed
        return action is _SET and fold(name) not in self.own


class FieldRules:
    """Judges the names of request fields.

    What a route's `headers` set is stripped on that route and on all routes to the same tool.
    """

    def __init__(
        self, routes: Iterable[RouteSettings], *, real_ip: bool = False, certificate: bool = False
    ) -> None:
        """`real_ip`: tools get X-Real-IP, except those whose `headers` set it themselves.

        `certificate`: tools get Client-Cert.
        """
        everywhere = {name for name, sent in ((_REAL_IP, real_ip), (_CERT, certificate)) if sent}
        self.of_route: Final[Mapping[str, RouteRules]] = _rules(
            list(routes), everywhere, real_ip=real_ip
        )
        self._set = frozenset(name for rules in self.of_route.values() for name in rules.own)
        #: A cache of actions by name, because names repeat from request to request.
        self.known: Final[dict[bytes, FieldAction]] = {}

    def judge(self, name: bytes) -> FieldAction:
        """Return the action for a field name, and cache it in `known`."""
        action = self.rule(name).action
        if len(name) <= _MAX_KNOWN_LENGTH:
            keep_in(self.known, name, action, _MAX_KNOWN_NAMES)
        return action

    def drops(self, name: bytes, rules: RouteRules) -> bool:
        """Whether the gate drops a field because of its claim, not because of framing."""
        action = self.judge(name)
        if action is FieldAction.DROP:
            return is_own(fold(name))
        return action in {_CLAIM, _SET} and not rules.passes(name, action)

    def trails(self, name: bytes, rules: RouteRules) -> bool:
        """Whether a trailer is passed on; routes cannot pass one that may not be a trailer."""
        action = self.judge(name)
        is_sent = action is _KEEP or (action is _SET and rules.passes(name, action))
        return is_sent and may_trail(name)

    def rule(self, name: bytes) -> FieldRule:
        """Return the first rule that applies to a field's name."""
        if name.lower() == _COOKIE:
            return FieldRule.COOKIE
        folded = fold(name)
        if is_own(folded):
            rule = FieldRule.OWN
        elif folded in HOP_BY_HOP:
            rule = FieldRule.HOP_BY_HOP
        elif folded in ROUTING_FIELDS:
            rule = FieldRule.ROUTING
        elif folded in TRACE_CONTEXT:
            rule = FieldRule.TRACE
        elif is_claim(folded):
            rule = FieldRule.CLAIM
        elif not is_plain(name):
            rule = FieldRule.ODD_NAME
        else:
            rule = FieldRule.SET if folded in self._set else FieldRule.NONE
        return rule


def may_trail(name: bytes) -> bool:
    """Whether a field may be a trailer: not framing, routing or identity."""
    folded = fold(name)
    return not (
        folded in _NEVER_TRAILERS
        or folded in HOP_BY_HOP
        or folded in ROUTING_FIELDS
        or folded in TRACE_CONTEXT
        or folded.startswith(_NEVER_TRAILER_PREFIXES)
        or is_own(folded)
        or is_claim(folded)
        or folded in PATH_CLAIMS
    )


def may_trail_response(name: bytes) -> bool:
    """Whether a field may be a trailer of a response (RFC 9110 section 6.5.1)."""
    folded = fold(name)
    return may_trail(name) and folded not in _NEVER_RESPONSE_TRAILERS and not is_order(folded)


def _rules(
    routes: list[RouteSettings], everywhere: Collection[bytes], *, real_ip: bool
) -> dict[str, RouteRules]:
    """Return the rules of each route by its name; the gate sets `everywhere` for all tools."""
    by_tool: dict[object, set[bytes]] = {}
    tools = [[tool_of(upstream_address(address)) for address in route.backends] for route in routes]
    for route, backends in zip(routes, tools, strict=True):
        for tool in backends:
            own = by_tool.setdefault(tool, set(everywhere))
            own.update(fold(name.encode("ascii")) for name in route.headers)
            if stripped(route.path, route.upstream_path):
                own.add(_PREFIX)
    return {
        route.name: _of_route(
            route, frozenset().union(*(by_tool[tool] for tool in backends)), real_ip=real_ip
        )
        for route, backends in zip(routes, tools, strict=True)
    }


def _of_route(route: RouteSettings, own: frozenset[bytes], *, real_ip: bool) -> RouteRules:
    passed = (name.lower().encode("ascii") for name in route.pass_fields)
    named = frozenset(fold(name.encode("ascii")) for name in route.headers)
    prefix = b"" if _PREFIX in named else stripped(route.path, route.upstream_path).encode("ascii")
    return RouteRules(
        own,
        frozenset(name for name in passed if fold(name) not in own),
        b"X-Forwarded-Prefix: %b\r\n" % prefix if prefix else b"",
        real_ip and _REAL_IP not in named,
        any(CLIENT in fields(template) for template in route.headers.values()),
    )
