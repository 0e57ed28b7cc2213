"""The route table: finds the route and the rules for a request, and explains the match."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

from tailchat_gate.access.browser_origin import framing_field
from tailchat_gate.access.host_table import HostTable, PathCache, PathMatch, strictest
from tailchat_gate.access.policy import (
    NO_GRANTS,
    NO_MEMBERS,
    NO_METHOD,
    Groups,
    Listed,
    Rule,
    listed,
    make_rule,
)
from tailchat_gate.access.route import Layer, Match, Route, layers_of
from tailchat_gate.bounded import keep_in
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.tables.admin_page import takes_grants
from tailchat_gate.identity.grants import GrantState
from tailchat_gate.people.groups.memberships import Members
from tailchat_gate.request.target import HostPatterns
from tailchat_gate.syntax import WILDCARD

__all__ = ["Match", "PathMatch", "Route", "RouteTable"]

#: Hosts for which the routes that cover them are cached.
_MAX_KEPT_HOSTS: Final = 4096


class RouteTable:
    """Finds the route of a request in a time that does not grow with the number of routes.

    It looks up the path and each of its prefixes at a segment boundary, the longest first, so that
    "/public" never matches "/publicx" (CVE-2026-32716's class). Of the routes whose host fits, the
    longest path wins; at one path, a whole host name wins over a wildcard, the longest wildcard
    over a shorter one, and both over a route for any host; at one path and host, the method
    decides.
    """

    def __init__(
        self,
        routes: Iterable[RouteSettings],
        groups: Groups,
        denied: Iterable[str] = (),
        confined: Mapping[str, Collection[str]] = MappingProxyType({}),
        members: Members = NO_MEMBERS,
        grants: GrantState = NO_GRANTS,
        added: bytes = b"",
    ) -> None:
        """`denied` are the entries denied on all routes.

        `confined` maps the name of a token to the only routes that it may use. `members` knows who
        is in the groups that Tailchat defines, `grants` who may use a route for a while. `added`
        are header lines for every response of a tool.
        """
        everywhere = listed(denied, groups)
        self.routes: Final = tuple(
            Route(
                each,
                _granting(each, _rule(each, groups, everywhere, confined, members), grants),
                each.name,
                added + framing_field(each.embed),
                each.path if each.upstream_path == "/" and each.path != "/" else "",
            )
            for each in routes
        )
        layers = layers_of(self.routes)
        above = HostPatterns({host: layer for host, layer in layers.items() if host})
        any_host = layers.get("", Layer(()))
        self._cache = cache = PathCache()

        def table(host: str) -> HostTable:
            name = host.removeprefix(WILDCARD)
            own = [layers[host]] if host else []
            return HostTable([*own, *above.covering(name), any_host], cache)

        #: Limits the readings that one client may cause.
        self.meter: Final = cache.meter
        self._any_host = table("")
        self._patterns = HostPatterns({host: table(host) for host in layers if host})
        #: Tables by the host names of requests.
        self._by_host: dict[str, HostTable] = {}
        #: Whether a route names methods, so that a request's method matters.
        self.names_methods: Final = any(route.settings.methods for route in self.routes)

    @property
    def hosts(self) -> frozenset[str]:
        """Every host that a route names, wildcards as "*.example.com"."""
        return frozenset(route.settings.host for route in self.routes if route.settings.host)

    @property
    def in_order(self) -> tuple[Route, ...]:
        """The routes in an order in which the first that fits a request serves it.

        A route that fits but for its methods is skipped only for routes with the same host and
        path.
        """
        return tuple(sorted(self.routes, key=_specificity))

    def match(self, host: str, path: str, method: str) -> Match | None:
        """Return the route for a raw path on a host, and the rules that apply to the request.

        `host` is in lower case, without port and trailing dot; `method` as sent. Returns None if no
        route serves the path; the rule is NO_METHOD if routes do, but not with this method. Raises
        TooManyReadingsError, and RefusedError for a client that causes too many readings.
        """
        return (self._by_host.get(host) or self._table(host)).match(path, method)

    def match_each(
        self, match: Match, host: str, path: str, methods: Iterable[str]
    ) -> Match | None:
        """Return `match` with the rules for further methods, which a tool may obey instead."""
        table = self._table(host)
        rules: list[Rule] = [*match.rules]
        for method in table.distinguished(methods):
            other = table.match(path, method)
            if other is None:
                return None
            rules += other.rules
        return Match(match.route, strictest(rules))

    def path_matches(self, host: str, path: str, method: str) -> list[PathMatch]:
        """Return the matches of each reading of a raw path, the path itself first; see `match`."""
        self.meter.asker = None
        return self._table(host).path_matches(path, method)

    def touched(self, host: str, path: str, methods: Iterable[str]) -> list[Rule]:
        """Return the rules at every place to which some reading of a raw path leads."""
        table = self._table(host)
        return [
            rule for method in table.distinguished(methods) for rule in table.touched(path, method)
        ]

    def allow(self, host: str, path: str) -> str:
        """Return the value of Allow for a raw path (RFC 9110 section 10.2.1).

        It has the known methods that the places of every reading of the path take.
        """
        return ", ".join(sorted(self._table(host).taken(path)))

    def _table(self, host: str) -> HostTable:
        table = self._by_host.get(host)
        if table is None:
            table = self._patterns.get(host) or self._any_host
            keep_in(self._by_host, host, table, _MAX_KEPT_HOSTS)
        return table


def _rule(
    settings: RouteSettings,
    groups: Groups,
    everywhere: Listed,
    confined: Mapping[str, Collection[str]],
    members: Members,
) -> Rule:
    """Return the rule of a route, without the tokens that are confined to other routes.

    The rule must leave them out, so that this holds for every reading of a path.
    """
    rule = make_rule(settings.allow, groups, settings.deny, everywhere, members)
    if settings.preflight:
        rule = replace(rule, preflight=True)
    elsewhere = {
        name for name in rule.tokens if settings.name not in confined.get(name, (settings.name,))
    }
    return replace(rule, tokens=rule.tokens - elsewhere) if elsewhere else rule


def _granting(settings: RouteSettings, rule: Rule, grants: GrantState) -> Rule:
    """Return the rule of a route with its grants, if it can have any.

    This makes the rules of two routes differ, as a grant is for one route.
    """
    if not takes_grants(settings) or rule.public or rule.signed_in:
        return rule
    return replace(rule, route=settings.name, grants=grants)


def _specificity(route: Route) -> tuple[object, ...]:
    host, path = route.settings.host or "", route.settings.path
    depth = 0 if path == "/" else path.count("/")
    below = host.startswith(WILDCARD)
    rank = 2 if not host else 1 if below else 0
    return (-depth, path, rank, -host.count("."), host, not route.settings.methods, route.name)


class ExplainedMatch(NamedTuple):
    """Routes at one place whose rules apply to a request, and one reading that leads there.

    `routes` is empty if the reading leads to no route, or out of a route that is confined to its
    path. `taken` is False if the place does not take `method`.
    """

    routes: tuple[Route, ...]
    reading: str
    method: str
    taken: bool


def explain_match(
    table: RouteTable, host: str, path: str, methods: Iterable[str]
) -> tuple[ExplainedMatch, ...]:
    """Return the places to which a raw path on a host may lead, each once, the path itself first.

    `methods` are the request's own method and those that it claims. Raises TooManyReadingsError.
    """
    explained: dict[tuple[object, ...], ExplainedMatch] = {}
    for method in methods:
        for path_match in table.path_matches(host, path, method):
            if not path_match.matches:
                explained.setdefault(
                    (), ExplainedMatch((), path_match.reading, method, taken=False)
                )
            for match in path_match.matches:
                each = ExplainedMatch(
                    tuple(_ruling(table, match)),
                    path_match.reading,
                    method,
                    taken=NO_METHOD not in match.rules,
                )
                explained.setdefault((each.routes, each.taken or method), each)
    return tuple(explained.values())


def _ruling(table: RouteTable, match: Match) -> Iterator[Route]:
    """Yield the routes at the place of a match whose rules are in the match."""
    here = (match.route.settings.host, match.route.settings.path)
    for route in table.routes:
        if (route.settings.host, route.settings.path) == here and (
            route.rule in match.rules or NO_METHOD in match.rules
        ):
            yield route
