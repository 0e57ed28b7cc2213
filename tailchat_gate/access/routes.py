"""Which route a request meets: by host and by whole path segments, the longest prefix first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tailchat_gate.access.policy import Rule, make_rule
from tailchat_gate.config.model import Route as RouteSettings
from tailchat_gate.request.readings import readings

_MAX_CACHED_PATHS: Final = 4096
_MAX_CACHED_LENGTH: Final = 512

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One tool behind the gate: what was configured, and the rule made of it.

    `name` is unique in a configuration.
    """

    settings: RouteSettings
    rule: Rule
    name: str

    def upstream_target(self, raw: bytes) -> bytes:
        """Return the request target for the upstream: `raw`, its prefix replaced if configured."""
        replacement = self.settings.upstream_path
        if replacement is None:
            return raw
        rest = raw if self.settings.path == "/" else raw[len(self.settings.path) :]
        prefix = replacement.removesuffix("/")
        return prefix.encode("ascii") + rest if prefix or rest[:1] == b"/" else b"/" + rest

    @property
    def is_confined(self) -> bool:
        """Whether what lies above the route's path is out of its upstream's sight.

        Where the path is replaced, or cut off before a directory, no reading of a path may lead
        out of the route: behind the replacement it would lead to what no route offers.
        """
        return self.settings.upstream_path is not None or self.settings.upstream.startswith("file:")


@dataclass(frozen=True, slots=True)
class Match:
    """The route that serves a request, and the rules of every reading of its path."""

    route: Route
    rules: tuple[Rule, ...]


class RouteTable:
    """Finds the route of a target in time that does not grow with the number of routes.

    A path is cut at its segment boundaries from the right and each prefix looked up, so that
    "/public" never matches "/publicx" (CVE-2026-32716's class), whatever is configured.
    """

    def __init__(
        self, routes: Iterable[RouteSettings], groups: Mapping[str, Iterable[str]]
    ) -> None:
        self.routes: Final = tuple(
            Route(settings, make_rule(settings.allow, groups), settings.name) for settings in routes
        )
        hosts = {route.settings.host for route in self.routes}
        self._tables: dict[str | None, _HostTable] = {
            host: _HostTable(
                [route for route in self.routes if route.settings.host in {host, None}], host
            )
            for host in hosts | {None}
        }
        self._any_host = self._tables[None]

    @property
    def hosts(self) -> frozenset[str]:
        """Every host that a route names."""
        return frozenset(host for host in self._tables if host is not None)

    def match(self, host: str, path: str) -> Match | None:
        """Return the route for a raw path on a host in lower case; None where none serves it.

        Raises TooManyReadingsError for a path made to be read in many ways.
        """
        return self._tables.get(host, self._any_host).match(path)


class _HostTable:
    """The routes of one host; those without a host stand behind those that name it."""

    def __init__(self, routes: Sequence[Route], host: str | None) -> None:
        self._exact: dict[str, Route] = {}
        self._folded: dict[str, tuple[Rule, ...]] = {}
        # Routes that name the host come last and so replace those for any host at the same path.
        for route in sorted(routes, key=lambda route: route.settings.host == host):
            self._exact[route.settings.path] = route
        for path, route in self._exact.items():
            folded = path.lower()
            self._folded[folded] = (*self._folded.get(folded, ()), route.rule)
        self._depth = max((path.count("/") for path in self._exact), default=1)
        root = self._exact.get("/")
        # With one route at "/" every reading of every path meets the same rule.
        self._only = (
            Match(root, (root.rule,)) if root is not None and len(self._exact) == 1 else None
        )
        self._cache: dict[str, Match | None] = {}

    def match(self, path: str) -> Match | None:
        if self._only is not None:
            return self._only
        if path in self._cache:
            return self._cache[path]
        match = self._judge(path)
        if len(path) <= _MAX_CACHED_LENGTH:
            if len(self._cache) >= _MAX_CACHED_PATHS:
                self._cache.clear()
            self._cache[path] = match
        return match

    def _judge(self, path: str) -> Match | None:
        route = _longest_prefix(self._exact, path, self._depth)
        if route is None:
            return None
        rules: list[Rule] = []
        for reading in readings(path):
            # Servers differ on whether case counts: the rules of both answers are met. Without
            # the first, "/PUBLIC" would go to the route at "/" by the rule of "/public".
            exact = _longest_prefix(self._exact, reading, self._depth)
            folded = _longest_prefix(self._folded, reading.lower(), self._depth)
            if exact is None or folded is None or _leads_out(route, exact, reading):
                # Some server would serve what no route offers: nobody may have it.
                return None
            rules += (exact.rule, *folded)
        return Match(route, tuple(dict.fromkeys(rules)))


def _leads_out(route: Route, exact: Route, reading: str) -> bool:
    """Tell whether a reading may lead out of a route that is confined to its path.

    A ".." that stays inside here may lead out behind the replacement: "/app/../app/x" becomes
    "/tool/../app/x".
    """
    return route.is_confined and (exact is not route or "/../" in f"{reading}/")


def _longest_prefix(table: Mapping[str, _T], path: str, depth: int) -> _T | None:
    # No route is deeper than `depth` segments: a path of a thousand slashes costs no more.
    prefix = "/".join(path.split("/", depth + 1)[: depth + 1])
    while prefix:
        found = table.get(prefix)
        if found is not None:
            return found
        prefix = prefix[: prefix.rfind("/")]
    return table.get("/")
