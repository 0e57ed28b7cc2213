"""One route's place in the table, and the places of all routes that share a host."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tailchat_gate.access.policy import NO_METHOD, Rule
from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.identifier import CONNECT, TRACE
from tailchat_gate.syntax import COMMON_METHODS

#: Stands for every method that is neither common nor named by a route. A tool may take it for
#: another one: Django and Werkzeug turn "delete" into "DELETE".
ODD_METHOD: Final = ""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One tool behind the gate: what was configured, and the rule made of it.

    `name` is unique in a configuration. `added_fields`: header lines that every response of the
    tool gets. `folder` is the path that the tool sees as "/", as it does that path with a slash,
    "" for none.
    """

    settings: RouteSettings
    rule: Rule
    name: str
    added_fields: bytes = b""
    folder: str = ""

    def upstream_target(self, raw: bytes) -> bytes:
        """Return the request target for the upstream: `raw`, its prefix replaced if configured."""
        replacement = self.settings.upstream_path
        if replacement is None:
            return raw
        rest = raw if self.settings.path == "/" else raw[len(self.settings.path) :]
        prefix = replacement.removesuffix("/")
        return prefix.encode("ascii") + rest if prefix or rest[:1] == b"/" else b"/" + rest

    def passes_on(self, method: str) -> bool:
        """Whether requests with a method are forwarded to the upstream.

        CONNECT is not, because the gate is no proxy to other servers. TRACE is only if configured,
        because it shows scripts fields that they cannot read (RFC 9110 sections 9.3.6 and 9.3.8).
        """
        return method != CONNECT and (method != TRACE or self.settings.trace)

    @property
    def is_confined(self) -> bool:
        """Whether no reading of a path may lead out of the route.

        If the route's path is replaced, or cut off before a directory, ".." would lead out of the
        replacement, to something that no route offers.
        """
        return self.settings.upstream_path is not None or self.settings.backends[0].startswith(
            "file:"
        )


@dataclass(frozen=True, slots=True)
class Match:
    """The route that serves a request, and the rules for every reading of its path and method."""

    route: Route
    rules: tuple[Rule, ...]


class RouteGroup:
    """The routes at one host and path.

    One of them may name no methods, and takes those that the others do not name. GET includes HEAD,
    unless a route names HEAD. A method that none takes is refused here. It must not fall back to a
    shorter path or another host, because that could evade a stricter rule.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes: Final = tuple(routes)
        self.path: Final = routes[0].settings.path
        named = {method: route for route in routes for method in route.settings.methods}
        rest = next((route for route in routes if not route.settings.methods), None)
        self.methods: Final = frozenset(named)
        if "GET" in named:
            named.setdefault("HEAD", named["GET"])
        self._named: Final = {
            method: Match(route, (route.rule,)) for method, route in named.items()
        }
        if rest is None:
            self._other = self._odd = Match(routes[0], (NO_METHOD,))
        else:
            self._other = Match(rest, (rest.rule,))
            # A tool may take an odd method for any other one, so every rule applies.
            rules = dict.fromkeys((rest.rule, *(route.rule for route in named.values())))
            self._odd = Match(rest, tuple(rules))

    @property
    def is_confined(self) -> bool:
        """Whether one of the routes is confined to its path."""
        return any(route.is_confined for route in self._routes)

    @property
    def reads_names(self) -> bool:
        """Whether a tool of one of the routes may add or drop names."""
        return any(route.settings.name_variants for route in self._routes)

    @property
    def only(self) -> Match | None:
        """The match for every method, None if routes name methods."""
        return None if self._named else self._other

    def match(self, method: str) -> Match:
        """Return the route that takes a method here, and the rules that apply.

        If none does, the rule is NO_METHOD, and the route any of them.
        """
        match = self._named.get(method)
        if match is None:
            match = self._other if method in COMMON_METHODS else self._odd
        return match


RouteGroups = Mapping[str, tuple[RouteGroup, ...]]

#: The names of files that servers send for a folder, without their ending.
_INDEXES: Final = frozenset(("default", "index"))


class Layer:
    """The places of the routes that name one host, by path.

    `folded` has them by paths in lower case; `stems` by such paths without the ending of a name,
    "/page" for "/page.html"; `indexes` by the folder for which an index file is sent.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        by_path: dict[str, list[Route]] = {}
        for route in routes:
            by_path.setdefault(route.settings.path, []).append(route)
        self.exact: Final = {path: RouteGroup(routes) for path, routes in by_path.items()}
        groups = self.exact.values()
        self.folded: Final = _grouped((group.path.lower(), group) for group in groups)
        self.stems: Final = _grouped((stem, group) for group in groups for stem in _stems(group))
        self.indexes: Final = _grouped((_folder(group), group) for group in groups)
        self.depth: Final = max((path.count("/") for path in self.exact), default=1)
        self.longest: Final = max(map(len, self.exact), default=1)
        self.methods: Final = frozenset(method for group in groups for method in group.methods)

    def lookups(self) -> frozenset[str]:
        """Return all keys, in lower case, under which paths and starts of paths are looked up."""
        return frozenset((*self.folded, *self.stems, *self.indexes))


def layers_of(routes: Iterable[Route]) -> Mapping[str, Layer]:
    """Return the places of routes by the host that they name, "" for any host."""
    by_host: dict[str, list[Route]] = {}
    for route in routes:
        by_host.setdefault(route.settings.host or "", []).append(route)
    return {host: Layer(routes) for host, routes in by_host.items()}


def _grouped(pairs: Iterable[tuple[str, RouteGroup]]) -> RouteGroups:
    groups: dict[str, tuple[RouteGroup, ...]] = {}
    for key, group in pairs:
        if key:
            groups[key] = (*groups.get(key, ()), group)
    return groups


def _stems(group: RouteGroup) -> Iterator[str]:
    """Yield the paths, in lower case, in which one segment is cut at a dot."""
    path = group.path.lower()
    position = path.find(".")
    while position >= 0:
        if path[position - 1] != "/":
            slash = path.find("/", position)
            yield path[:position] + (path[slash:] if slash >= 0 else "")
        position = path.find(".", position + 1)


def _folder(group: RouteGroup) -> str:
    """Return the folder whose index file a path names, "" for any other path."""
    folder, _, name = group.path.lower().rpartition("/")
    return folder or "/" if name.partition(".")[0] in _INDEXES else ""
