"""Which route a request meets: by host and whole path segments, the longest prefix first."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from tailchat_gate.access.place import COMMON_METHODS, ODD_METHOD, Match, Place, Route
from tailchat_gate.access.policy import NO_METHOD, Groups, Listed, Rule, listed, make_rule
from tailchat_gate.config.model import Route as RouteSettings
from tailchat_gate.request.hosts import WILDCARD, HostPatterns
from tailchat_gate.request.readings import readings

__all__ = ["Match", "Meeting", "Route", "RouteTable"]

#: Judged paths that are kept, over all hosts and methods together; about 1 KiB each.
_MAX_KEPT_PATHS: Final = 8192
_MAX_KEPT_LENGTH: Final = 512
#: Hosts that no route names in full, of which is kept what covers them.
_MAX_KEPT_HOSTS: Final = 4096

_T = TypeVar("_T")
_Kept = dict[str, Match | None]


class Meeting(NamedTuple):
    """One reading of a path, and what it meets: a match of each place that it may lead to.

    There is none where the reading leads to no route at all, and then nobody may have the path.
    """

    reading: str
    matches: tuple[Match, ...]


class RouteTable:
    """Finds the route of a request in time that does not grow with the number of routes.

    A path is cut at its segment boundaries from the right and each prefix looked up, so that
    "/public" never matches "/publicx" (CVE-2026-32716's class), whatever is configured. Of the
    routes whose host fits, the longest path counts; at one path, a whole host name before the
    longest wildcard before a route for any host; at one path and host, the method.
    """

    def __init__(
        self,
        routes: Iterable[RouteSettings],
        groups: Groups,
        denied: Iterable[str] = (),
        confined: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Take the routes, who is denied on all, and by tokens' names the only routes of each."""
        everywhere = listed(denied, groups)
        self.routes: Final = tuple(
            Route(each, _rule(each, groups, everywhere, confined), each.name) for each in routes
        )
        layers = _layers(self.routes)
        above = HostPatterns({host: layer for host, layer in layers.items() if host})
        any_host = layers.get("", _Layer(()))
        self._kept = kept = _KeptPaths()

        def table(host: str) -> _HostTable:
            name = host.removeprefix(WILDCARD)
            own = [layers[host]] if host else []
            return _HostTable([*own, *above.covering(name), any_host], kept)

        self._any_host = table("")
        tables = {host: table(host) for host in layers if host}
        self._patterns = HostPatterns(tables)
        self._named = {host: made for host, made in tables.items() if not host.startswith(WILDCARD)}
        #: By whole host names: those that routes name, and others that were asked for.
        self._by_host = dict(self._named)
        #: Whether a route names methods, so that the method of a request counts.
        self.names_methods: Final = any(route.settings.methods for route in self.routes)

    @property
    def hosts(self) -> frozenset[str]:
        """Every host that a route names, wildcards as "*.example.com"."""
        return frozenset(route.settings.host for route in self.routes if route.settings.host)

    @property
    def in_order(self) -> tuple[Route, ...]:
        """The routes so that the first one that fits a request is the one that serves it.

        A route whose host and path fit and whose methods do not is passed over only for the
        routes with the same host and path.
        """
        return tuple(sorted(self.routes, key=_specificity))

    def match(self, host: str, path: str, method: str) -> Match | None:
        """Return the route for a raw path on a host, and the rules that the request meets.

        `host` is in lower case, without port and trailing dot; `method` as sent. None where no
        route serves the path; the rule is NO_METHOD where routes do, but not with this method.
        Raises TooManyReadingsError for a path made to be read in many ways.
        """
        return (self._by_host.get(host) or self._table(host)).match(path, method)

    def match_each(
        self, match: Match, host: str, path: str, methods: Iterable[str]
    ) -> Match | None:
        """Return `match` with the rules that further methods meet, which a tool may go by."""
        table = self._table(host)
        rules: list[Rule] = [*match.rules]
        for method in {method if method in table.methods else ODD_METHOD for method in methods}:
            other = table.match(path, method)
            if other is None:
                return None
            rules += other.rules
        return Match(match.route, _strictest(rules))

    def meetings(self, host: str, path: str, method: str) -> list[Meeting]:
        """Return what each reading of a raw path meets, the path itself first; as `match` does."""
        return self._table(host).meetings(path, method)

    def methods(self, host: str, path: str) -> frozenset[str]:
        """Return the methods that every reading of a raw path takes, among those by name."""
        return self._table(host).taken(path)

    def _table(self, host: str) -> "_HostTable":
        table = self._by_host.get(host)
        if table is None:
            if len(self._by_host) >= len(self._named) + _MAX_KEPT_HOSTS:
                self._by_host = dict(self._named)
            table = self._by_host[host] = self._patterns.get(host) or self._any_host
        return table


class _Layer:
    """The places of the routes that name one and the same host."""

    def __init__(self, routes: Sequence[Route]) -> None:
        by_path: dict[str, list[Route]] = {}
        for route in routes:
            by_path.setdefault(route.settings.path, []).append(route)
        self.exact: Final = {path: Place(routes) for path, routes in by_path.items()}
        self.folded: Final[dict[str, tuple[Place, ...]]] = {}
        for path, place in self.exact.items():
            folded = path.lower()
            self.folded[folded] = (*self.folded.get(folded, ()), place)
        self.depth: Final = max((path.count("/") for path in self.exact), default=1)
        self.methods: Final = frozenset(
            method for place in self.exact.values() for method in place.methods
        )


class _HostTable:
    """The places of one host: those of its own routes, of wildcards that cover it, of any host.

    A place of an earlier layer stands before those of later ones at the same path.
    """

    def __init__(self, layers: Sequence[_Layer], kept: "_KeptPaths") -> None:
        self._layers = tuple(layer for layer in layers if layer.exact)
        self._depth = max((layer.depth for layer in self._layers), default=1)
        #: The methods that are told apart here.
        self.methods = frozenset(method for layer in self._layers for method in layer.methods)
        if self.methods:
            self.methods |= COMMON_METHODS
        self._by_method: dict[str, _Kept] = {method: kept.more() for method in self.methods}
        self._odd = kept.more()
        self._keep = kept.keep
        # With one place at "/" every reading of every path meets the same rules. A confined route
        # is judged all the same: "/../x" leads above what takes the place of its path.
        root = self._at("/")
        alone = root is not None and not root.is_confined
        alone = alone and all(layer.exact.keys() == {"/"} for layer in self._layers)
        self._root = root if alone else None
        self._only = self._root.only if self._root else None

    def match(self, path: str, method: str) -> Match | None:
        if self._only is not None:
            return self._only
        if self._root is not None:
            return self._root.match(method)
        kept = self._by_method.get(method, self._odd)
        if path in kept:
            return kept[path]
        match = self._judge(path, method)
        if len(path) <= _MAX_KEPT_LENGTH:
            self._keep(kept, path, match)
        return match

    def meetings(self, path: str, method: str) -> list[Meeting]:
        if self._root is not None:
            return [Meeting(path, (self._root.match(method),))]
        found = [
            Meeting(reading, tuple(dict.fromkeys(place.match(method) for place in places)))
            for reading, places in self._places(path, method)
        ]
        return sorted(found, key=lambda meeting: (meeting.reading != path, meeting.reading))

    def taken(self, path: str) -> frozenset[str]:
        met = {self._root} if self._root else set()
        if self._root is None:
            met.update(place for _, places in self._places(path, ODD_METHOD) for place in places)
        return frozenset(
            method
            for method in self.methods or COMMON_METHODS
            if all(NO_METHOD not in place.match(method).rules for place in met)
        )

    def _judge(self, path: str, method: str) -> Match | None:
        serving = self._exact(path)
        if serving is None:
            return None
        rules: list[Rule] = []
        for _, places in self._places(path, method):
            if not places:
                # Some server would serve what no route offers: nobody may have it.
                return None
            for place in places:
                rules += place.match(method).rules
        return Match(serving.match(method).route, _strictest(rules))

    def _places(self, path: str, method: str) -> Iterator[tuple[str, tuple[Place, ...]]]:
        """Yield each reading of a path with the places that it may lead to, none for no route."""
        serving = self._exact(path)
        confined = serving is not None and serving.match(method).route.is_confined
        for reading in readings(path):
            # Servers differ on whether case counts: the rules of both answers are met. Without
            # the first, "/PUBLIC" would go to the route at "/" by the rule of "/public".
            exact = self._exact(reading)
            folded = self._longest_prefix(self._folded_at, reading.lower())
            if serving is None or exact is None or not folded:
                yield reading, ()
            elif confined and (exact is not serving or "/../" in f"{reading}/"):
                # A ".." that stays inside here may lead out behind the replacement of a path:
                # "/app/../app/x" becomes "/tool/../app/x".
                yield reading, ()
            else:
                yield reading, (exact, *folded)

    def _exact(self, path: str) -> Place | None:
        return self._longest_prefix(self._at, path)

    def _longest_prefix(self, at: Callable[[str], _T | None], path: str) -> _T | None:
        # No route is deeper than this many segments: a path of a thousand slashes costs no more.
        prefix = "/".join(path.split("/", self._depth + 1)[: self._depth + 1])
        while prefix:
            if found := at(prefix):
                return found
            prefix = prefix[: prefix.rfind("/")]
        return at("/")

    def _at(self, path: str) -> Place | None:
        for layer in self._layers:
            place = layer.exact.get(path)
            if place is not None:
                return place
        return None

    def _folded_at(self, folded: str) -> tuple[Place, ...]:
        found: dict[str, Place] = {}
        for layer in self._layers:
            for place in layer.folded.get(folded, ()):
                found.setdefault(place.path, place)
        return tuple(found.values())


def _rule(
    settings: RouteSettings,
    groups: Groups,
    everywhere: Listed,
    confined: Mapping[str, Collection[str]],
) -> Rule:
    """Return the rule of a route, less the tokens that are confined to other routes.

    In the rule, so that it holds for every reading of a path.
    """
    rule = make_rule(settings.allow, groups, settings.deny, everywhere)
    elsewhere = {
        name for name in rule.tokens if settings.name not in confined.get(name, (settings.name,))
    }
    return replace(rule, tokens=rule.tokens - elsewhere) if elsewhere else rule


class _KeptPaths:
    """What was judged of paths, in a dict for each host and method, and bounded as a whole.

    Whoever sends ever new paths makes the others be judged again, which costs time and no memory.
    """

    def __init__(self) -> None:
        self.all: Final[list[_Kept]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def more(self) -> _Kept:
        """Return a new dict for paths."""
        self.all.append({})
        return self.all[-1]

    def keep(self, kept: _Kept, path: str, match: Match | None) -> None:
        """Keep what was judged of a path in one of the dicts."""
        if self._count >= _MAX_KEPT_PATHS:
            for each in self.all:
                each.clear()
            self._count = 0
        kept[path] = match
        self._count += 1


def _layers(routes: Iterable[Route]) -> Mapping[str, _Layer]:
    """Return the places of routes by the host they name, "" for any."""
    by_host: dict[str, list[Route]] = {}
    for route in routes:
        by_host.setdefault(route.settings.host or "", []).append(route)
    return {host: _Layer(routes) for host, routes in by_host.items()}


def _strictest(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return rules each once; one that refuses the method stands alone, nothing is before it."""
    distinct = tuple(dict.fromkeys(rules))
    return (NO_METHOD,) if NO_METHOD in distinct else distinct


def _specificity(route: Route) -> tuple[object, ...]:
    host, path = route.settings.host or "", route.settings.path
    depth = 0 if path == "/" else path.count("/")
    below = host.startswith(WILDCARD)
    rank = 2 if not host else 1 if below else 0
    return (-depth, path, rank, -host.count("."), host, not route.settings.methods, route.name)
