"""Finds the places of one host to which the readings of a path lead."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from tailchat_gate.access.plain_paths import PlainPaths
from tailchat_gate.access.policy import NO_METHOD, Rule
from tailchat_gate.access.reading_meter import ReadingMeter
from tailchat_gate.access.route import ODD_METHOD, Layer, Match, RouteGroup, RouteGroups
from tailchat_gate.bounded import ENTRY_BYTES, BoundedCache
from tailchat_gate.config.values.path import inside
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.readings import (
    MAX_READINGS,
    TooManyReadingsError,
    readings,
    shortened,
)
from tailchat_gate.syntax import COMMON_METHODS

#: The most bytes of cached judgements of paths, for all hosts and methods, and of one of them.
MAX_KEPT = 4 << 20
_LARGEST_KEPT: Final = 1024
#: The bytes of a judgement's objects.
_OBJECTS: Final = 512
#: The most bytes of cached paths with too many readings, which are cheap to refuse again.
_KEPT_REFUSALS: Final = 512 << 10
_LARGEST_REFUSAL: Final = 16 << 10

_T = TypeVar("_T")
#: A table, a method as that table distinguishes it, and a path.
_Key = tuple["HostTable", str, str]
#: A match, or None if no route serves a path.
_Judgement = tuple[Match | None]


class PathMatch(NamedTuple):
    """One reading of a path, and a match for each place to which it may lead.

    Without a match the reading leads to no route at all, and the path is refused to everybody.
    """

    reading: str
    matches: tuple[Match, ...]


class _Spot(NamedTuple):
    """One reading of a path: the place to which it leads, and all places whose rules apply.

    `by_name`: only a tool that adds or drops names, such as an ending, reads it so.
    """

    reading: str
    exact: RouteGroup | None
    groups: tuple[RouteGroup, ...]
    by_name: bool = False


class HostTable:
    """The places of one host, in layers: its own routes, wildcards that cover it, any host.

    At the same path, a place of an earlier layer wins.
    """

    def __init__(self, layers: Sequence[Layer], cache: "PathCache") -> None:
        self._layers = tuple(layer for layer in layers if layer.exact)
        self._depth = max((layer.depth for layer in self._layers), default=1)
        self._longest = max((layer.longest for layer in self._layers), default=1)
        self._has_stems = any(layer.stems or layer.indexes for layer in self._layers)
        #: The methods that this table distinguishes.
        self.methods = frozenset(method for layer in self._layers for method in layer.methods)
        if self.methods:
            self.methods |= COMMON_METHODS
        self._cache = cache
        self._plain: Final = PlainPaths(key for layer in self._layers for key in layer.lookups())
        # With a single place at "/", the same rules apply to every path. But a confined route must
        # be judged, because "/../x" would lead out of the replacement of its path.
        root = self._at("/")
        alone = root is not None and not root.is_confined
        alone = alone and all(layer.exact.keys() == {"/"} for layer in self._layers)
        self._root = root if alone else None
        self._only = self._root.only if self._root else None

    def match(self, path: str, method: str) -> Match | None:
        """Return the route for a raw path, and the rules that apply to the request."""
        if self._only is not None:
            return self._only
        if self._root is not None:
            return self._root.match(method)
        method_key = method if method in self.methods else ODD_METHOD
        judged = self._cache.paths.get((self, method_key, path))
        if judged is None:
            judged = self._judge_form(method_key, path, method)
            self._cache.paths.keep((self, method_key, path), judged)
        return judged[0]

    def _judge_form(self, method_key: str, path: str, method: str) -> _Judgement:
        """Return the judgement of this path or of one with the same form."""
        form = self._plain.form(path)
        if form is None:
            return (self._judge(path, method),)
        judged = self._cache.forms.get((self, method_key, form))
        if judged is None:
            judged = (self._judge(path, method),)
            self._cache.forms.keep((self, method_key, form), judged)
        return judged

    def distinguished(self, methods: Iterable[str]) -> set[str]:
        """Return the methods as this table distinguishes them, which are few."""
        return {method if method in self.methods else ODD_METHOD for method in methods}

    def path_matches(self, path: str, method: str) -> list[PathMatch]:
        """Return the match of each reading of a raw path, the path itself first."""
        if self._root is not None:
            return [PathMatch(path, (self._root.match(method),))]
        matches = [
            PathMatch(reading, tuple(dict.fromkeys(group.match(method) for group in groups)))
            for reading, groups in self._met(path, method)
        ]
        return sorted(
            matches, key=lambda path_match: (path_match.reading != path, path_match.reading)
        )

    def touched(self, path: str, method: str) -> list[Rule]:
        """Return the rules at every place to which some reading of a path leads.

        Unlike `match`, returns them even if another reading leads to no route.
        """
        spots = self._spots(path, self._exact(path))
        groups = {group for spot in spots for group in spot.groups}
        return [rule for group in groups for rule in group.match(method).rules]

    def taken(self, path: str) -> frozenset[str]:
        """Return the known methods that the places of every reading of a raw path take."""
        met = {self._root} if self._root else set()
        if self._root is None:
            met.update(group for _, groups in self._met(path, ODD_METHOD) for group in groups)
        return frozenset(
            method
            for method in self.methods or COMMON_METHODS
            if all(NO_METHOD not in group.match(method).rules for group in met)
        )

    def _judge(self, path: str, method: str) -> Match | None:
        serving = self._exact(path)
        if serving is None:
            return None
        rules: list[Rule] = []
        for _, groups in self._met(path, method):
            if not groups:
                # Some server would serve something that no route offers: refuse it to everybody.
                return None
            for group in groups:
                rules += group.match(method).rules
        return Match(serving.match(method).route, strictest(rules))

    def _met(self, path: str, method: str) -> Iterator[tuple[str, tuple[RouteGroup, ...]]]:
        """Yield each reading of a path with the places to which it may lead, () for no route."""
        serving = self._exact(path)
        route = None if serving is None else serving.match(method).route
        confined = route is not None and route.is_confined
        for reading, exact, groups, by_name in self._spots(path, serving):
            if serving is None or route is None:
                yield reading, ()
            elif by_name:
                # A confined route's tool does not see the part of a path above the route.
                seen = _inside(groups, serving.path) if confined else groups
                if seen and route.settings.name_variants:
                    yield reading, seen
            elif confined and (exact is not serving or "/../" in f"{reading}/"):
                # A ".." that stays inside the route may lead out after the path is replaced:
                # "/app/../app/x" becomes "/tool/../app/x".
                yield reading, ()
            else:
                yield reading, groups

    def _spots(self, path: str, serving: RouteGroup | None) -> Sequence[_Spot]:
        """Return the readings of a path; cached for further methods of the same path."""
        last = self._cache.last
        if last is not None and last[0] is self and last[1] == path:
            return last[2]
        by_name = serving is not None and serving.reads_names
        key = b"%d%b" % (by_name, path.encode("utf-8", "surrogateescape"))
        if self._cache.refused.get(key):
            raise TooManyReadingsError
        meter = self._cache.meter
        most = meter.most()
        try:
            spots = self._read(path, most, by_name=by_name)
        except TooManyReadingsError:
            if most < MAX_READINGS:
                text = "too many paths that can be read in many ways; slow down"
                raise RefusedError(text, Reason.RATE_LIMITED) from None
            meter.count(MAX_READINGS)
            self._cache.refused.keep(key, True)  # noqa: FBT003 - what is kept
            raise
        meter.count(len(spots), len(path))
        self._cache.last = (self, path, spots)
        return spots

    def _read(self, path: str, most: int, *, by_name: bool) -> Sequence[_Spot]:
        plain = readings(path, most)
        spots = [self._spot(reading) for reading in plain]
        if by_name:
            further = shortened(plain, most)
            spots += [self._spot(reading)._replace(by_name=True) for reading in further]
            for reading in (*plain, *further):
                spots += self._near(reading)
        return spots

    def _spot(self, reading: str) -> _Spot:
        # Servers differ on whether case matters, so the rules for both apply. Otherwise "/PUBLIC"
        # would go to the route at "/" by the rule of "/public".
        exact = self._exact(reading)
        folded = self._longest_prefix(self._folded_at, reading.lower())
        return _Spot(reading, exact, (exact, *folded) if exact is not None and folded else ())

    def _near(self, reading: str) -> Iterator[_Spot]:
        """Yield the places whose paths differ from a reading only in the endings of names."""
        lower = reading.lower()
        for cut in _cuts(lower, self._longest):
            if groups := (*self._folded_at(cut), *self._near_at("stems", cut)):
                yield _Spot(cut, None, groups, by_name=True)
        if not self._has_stems:
            return
        whole = lower.rstrip("/") or "/"
        if groups := self._near_at("indexes", whole):
            yield _Spot(whole, None, groups, by_name=True)
        exact = self._exact(reading)
        nearest = 0 if exact is None else len(exact.path)
        for prefix in self._prefixes(lower):
            # A path with its own place is no file without its ending.
            no_group = prefix == whole or len(prefix) > nearest
            if no_group and (groups := self._near_at("stems", prefix)):
                yield _Spot(prefix, None, groups, by_name=True)

    def _exact(self, path: str) -> RouteGroup | None:
        return self._longest_prefix(self._at, path)

    def _longest_prefix(self, at: Callable[[str], _T | None], path: str) -> _T | None:
        for prefix in self._prefixes(path):
            if value := at(prefix):
                return value
        return at("/")

    def _prefixes(self, path: str) -> Iterator[str]:
        """Yield the starts of a path that end with a segment, the longest first, without "/"."""
        # Longer ones than the deepest route are skipped, so that many slashes cost no time.
        prefix = "/".join(path.split("/", self._depth + 1)[: self._depth + 1])
        while prefix:
            yield prefix
            prefix = prefix[: prefix.rfind("/")]

    def _at(self, path: str) -> RouteGroup | None:
        for layer in self._layers:
            group = layer.exact.get(path)
            if group is not None:
                return group
        return None

    def _folded_at(self, folded: str) -> tuple[RouteGroup, ...]:
        return _visible([layer.folded for layer in self._layers], folded)

    def _near_at(self, kind: str, key: str) -> tuple[RouteGroup, ...]:
        return _visible([getattr(layer, kind) for layer in self._layers], key)


class PathCache:
    """Caches the judgements of paths of all tables; bounded.

    `paths` has paths that came more than once, `forms` the forms of plain paths. A stranger who
    always sends new paths costs time, but no memory. `last` is the path read last, with its table
    and readings. `refused` has paths with too many readings. `meter` limits the readings that one
    client may cause.
    """

    def __init__(self) -> None:
        self.meter: Final = ReadingMeter()
        self.paths: Final[BoundedCache[_Key, _Judgement]] = BoundedCache(
            MAX_KEPT, cost=_cost, largest=_LARGEST_KEPT, twice=True
        )
        self.forms: Final[BoundedCache[_Key, _Judgement]] = BoundedCache(
            MAX_KEPT, cost=_cost, largest=_LARGEST_KEPT
        )
        self.last: tuple[HostTable, str, Sequence[_Spot]] | None = None
        self.refused: Final[BoundedCache[bytes, bool]] = BoundedCache(
            _KEPT_REFUSALS, cost=_cost_of_refusal, largest=_LARGEST_REFUSAL
        )


def _cost(key: _Key, _match: object) -> int:
    return _OBJECTS + len(key[2])


def _cost_of_refusal(key: bytes, _refused: object) -> int:
    return len(key) + ENTRY_BYTES


def strictest(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return each rule once; only NO_METHOD if it is among them."""
    distinct = tuple(dict.fromkeys(rules))
    return (NO_METHOD,) if NO_METHOD in distinct else distinct


def _visible(layers: Iterable[RouteGroups], key: str) -> tuple[RouteGroup, ...]:
    """Return the places of all layers under a key, for each path that of the first layer."""
    visible: dict[str, RouteGroup] = {}
    for groups in layers:
        for group in groups.get(key, ()):
            visible.setdefault(group.path, group)
    return tuple(visible.values())


def _inside(groups: Iterable[RouteGroup], folder: str) -> tuple[RouteGroup, ...]:
    """Return the places at or below a folder, ignoring case."""
    below = folder.lower().rstrip("/")
    return tuple(group for group in groups if inside(group.path.lower(), below) or not below)


def _cuts(path: str, longest: int) -> Iterator[str]:
    """Yield the starts of a path, no longer than `longest`, that end before a dot in a segment.

    Tools may serve "/admin.json" as "/admin". In a segment that is not the last, only an ending
    that begins with a letter counts: "/v1.1/x" is no file of "/v1".
    """
    position = path.find(".", 0, longest + 1)
    while position >= 0:
        if path[position - 1] != "/":
            slash = path.find("/", position)
            last = slash < 0 or slash == len(path) - 1
            if last or path[position + 1 : position + 2].isalpha():
                yield path[:position]
        position = path.find(".", position + 1, longest + 1)
