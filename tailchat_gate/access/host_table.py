"""Which places of one host a path leads to, by each of its readings."""

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

#: Bytes that judged paths take, over all hosts and methods together; and one of them.
MAX_KEPT: Final = 4 << 20
_LARGEST_KEPT: Final = 1024
#: The objects of one.
_OBJECTS: Final = 512
#: Paths that are refused for their readings, in bytes: to refuse one again costs nothing.
_KEPT_REFUSALS: Final = 512 << 10
_LARGEST_REFUSAL: Final = 16 << 10

_T = TypeVar("_T")
#: A table, a method as that table distinguishes it, and a path.
_Key = tuple["HostTable", str, str]
#: A match, or None where no route serves a path.
_Found = tuple[Match | None]


class PathMatch(NamedTuple):
    """One reading of a path, and what it meets: a match of each place that it may lead to.

    There is none where the reading leads to no route at all, and then nobody may have the path.
    """

    reading: str
    matches: tuple[Match, ...]


class _Spot(NamedTuple):
    """One reading of a path: the place it leads to, and all whose rules it meets, that one first.

    `by_name`: it is read so only by a tool that adds or drops names, such as an ending.
    """

    reading: str
    exact: RouteGroup | None
    groups: tuple[RouteGroup, ...]
    by_name: bool = False


class HostTable:
    """The places of one host: those of its own routes, of wildcards that cover it, of any host.

    A place of an earlier layer comes before those of later ones at the same path.
    """

    def __init__(self, layers: Sequence[Layer], kept: "PathCache") -> None:
        self._layers = tuple(layer for layer in layers if layer.exact)
        self._depth = max((layer.depth for layer in self._layers), default=1)
        self._longest = max((layer.longest for layer in self._layers), default=1)
        self._has_stems = any(layer.stems or layer.indexes for layer in self._layers)
        #: The methods that this table distinguishes.
        self.methods = frozenset(method for layer in self._layers for method in layer.methods)
        if self.methods:
            self.methods |= COMMON_METHODS
        self._kept = kept
        self._plain: Final = PlainPaths(key for layer in self._layers for key in layer.lookups())
        # With one place at "/" every reading of every path meets the same rules. A confined route
        # is judged all the same: "/../x" leads above what takes the place of its path.
        root = self._at("/")
        alone = root is not None and not root.is_confined
        alone = alone and all(layer.exact.keys() == {"/"} for layer in self._layers)
        self._root = root if alone else None
        self._only = self._root.only if self._root else None

    def match(self, path: str, method: str) -> Match | None:
        """Return the route for a raw path, and the rules that the request meets."""
        if self._only is not None:
            return self._only
        if self._root is not None:
            return self._root.match(method)
        told = method if method in self.methods else ODD_METHOD
        found = self._kept.paths.get((self, told, path))
        if found is None:
            found = self._found(told, path, method)
            self._kept.paths.keep((self, told, path), found)
        return found[0]

    def _found(self, told: str, path: str, method: str) -> _Found:
        """Return what is known of paths of this form, or else what is judged of this one."""
        form = self._plain.form(path)
        if form is None:
            return (self._judge(path, method),)
        found = self._kept.forms.get((self, told, form))
        if found is None:
            found = (self._judge(path, method),)
            self._kept.forms.keep((self, told, form), found)
        return found

    def told_apart(self, methods: Iterable[str]) -> set[str]:
        """Return the methods as this table distinguishes them: of any number, only few differ."""
        return {method if method in self.methods else ODD_METHOD for method in methods}

    def path_matches(self, path: str, method: str) -> list[PathMatch]:
        """Return the match of each reading of a raw path, the path itself first."""
        if self._root is not None:
            return [PathMatch(path, (self._root.match(method),))]
        found = [
            PathMatch(reading, tuple(dict.fromkeys(group.match(method) for group in groups)))
            for reading, groups in self._met(path, method)
        ]
        return sorted(
            found, key=lambda path_match: (path_match.reading != path, path_match.reading)
        )

    def touched(self, path: str, method: str) -> list[Rule]:
        """Return the rules at every place that some reading of a path leads to.

        They are also told where another reading leads to no route, so that `match` finds none.
        """
        spots = self._spots(path, self._exact(path))
        groups = {group for spot in spots for group in spot.groups}
        return [rule for group in groups for rule in group.match(method).rules]

    def taken(self, path: str) -> frozenset[str]:
        """Return the methods that every reading of a raw path takes, among those by name."""
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
                # Some server would serve what no route offers: refuse it to everybody.
                return None
            for group in groups:
                rules += group.match(method).rules
        return Match(serving.match(method).route, strictest(rules))

    def _met(self, path: str, method: str) -> Iterator[tuple[str, tuple[RouteGroup, ...]]]:
        """Yield each reading of a path with the places that it may lead to, none for no route."""
        serving = self._exact(path)
        route = None if serving is None else serving.match(method).route
        confined = route is not None and route.is_confined
        for reading, exact, groups, by_name in self._spots(path, serving):
            if serving is None or route is None:
                yield reading, ()
            elif by_name:
                # What stands above a confined route is no part of what its tool sees of a path.
                seen = _inside(groups, serving.path) if confined else groups
                if seen and route.settings.name_variants:
                    yield reading, seen
            elif confined and (exact is not serving or "/../" in f"{reading}/"):
                # A ".." that stays inside here may lead out behind the replacement of a path:
                # "/app/../app/x" becomes "/tool/../app/x".
                yield reading, ()
            else:
                yield reading, groups

    def _spots(self, path: str, serving: RouteGroup | None) -> Sequence[_Spot]:
        """Return the readings of a path; once for all methods that are asked for in a row."""
        last = self._kept.last
        if last is not None and last[0] is self and last[1] == path:
            return last[2]
        by_name = serving is not None and serving.reads_names
        key = b"%d%b" % (by_name, path.encode("utf-8", "surrogateescape"))
        if self._kept.refused.get(key):
            raise TooManyReadingsError
        meter = self._kept.meter
        most = meter.most()
        try:
            spots = self._read(path, most, by_name=by_name)
        except TooManyReadingsError:
            if most < MAX_READINGS:
                text = "too many paths that can be read in many ways"
                raise RefusedError(text, Reason.RATE_LIMITED) from None
            meter.count(MAX_READINGS)
            self._kept.refused.keep(key, True)  # noqa: FBT003 - what is kept
            raise
        meter.count(len(spots), len(path))
        self._kept.last = (self, path, spots)
        return spots

    def _read(self, path: str, most: int, *, by_name: bool) -> Sequence[_Spot]:
        found = readings(path, most)
        spots = [self._spot(reading) for reading in found]
        if by_name:
            further = shortened(found, most)
            spots += [self._spot(reading)._replace(by_name=True) for reading in further]
            for reading in (*found, *further):
                spots += self._near(reading)
        return spots

    def _spot(self, reading: str) -> _Spot:
        # Servers differ on whether case counts: the rules of both answers are met. Without
        # the first, "/PUBLIC" would go to the route at "/" by the rule of "/public".
        exact = self._exact(reading)
        folded = self._longest_prefix(self._folded_at, reading.lower())
        return _Spot(reading, exact, (exact, *folded) if exact is not None and folded else ())

    def _near(self, reading: str) -> Iterator[_Spot]:
        """Yield the places whose paths differ from a reading in the endings of names alone."""
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
            # What has a place of its own is no file that lacks its ending.
            no_group = prefix == whole or len(prefix) > nearest
            if no_group and (groups := self._near_at("stems", prefix)):
                yield _Spot(prefix, None, groups, by_name=True)

    def _exact(self, path: str) -> RouteGroup | None:
        return self._longest_prefix(self._at, path)

    def _longest_prefix(self, at: Callable[[str], _T | None], path: str) -> _T | None:
        for prefix in self._prefixes(path):
            if found := at(prefix):
                return found
        return at("/")

    def _prefixes(self, path: str) -> Iterator[str]:
        """Yield what a path begins with, by whole segments, the longest first; not "/"."""
        # No route is deeper than this many segments: a path of a thousand slashes costs no more.
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
    """Caches judgements of paths by table, method and path; bounded as a whole.

    `paths` are those that came again, `forms` the forms of plain ones. A stranger who sends new
    paths all the time makes them be judged again, which costs time and no memory. `last` is the
    path that was read last, at which table and what came of it; `refused` are paths with too many
    readings; `meter` bounds how many paths with many readings a client may send.
    """

    def __init__(self) -> None:
        self.meter: Final = ReadingMeter()
        self.paths: Final[BoundedCache[_Key, _Found]] = BoundedCache(
            MAX_KEPT, cost=_cost, largest=_LARGEST_KEPT, twice=True
        )
        self.forms: Final[BoundedCache[_Key, _Found]] = BoundedCache(
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
    """Return rules each once; one that refuses the method stands alone, nothing is before it."""
    distinct = tuple(dict.fromkeys(rules))
    return (NO_METHOD,) if NO_METHOD in distinct else distinct


def _visible(layers: Iterable[RouteGroups], key: str) -> tuple[RouteGroup, ...]:
    """Return the places of all layers by a key, of each path the first."""
    found: dict[str, RouteGroup] = {}
    for groups in layers:
        for group in groups.get(key, ()):
            found.setdefault(group.path, group)
    return tuple(found.values())


def _inside(groups: Iterable[RouteGroup], folder: str) -> tuple[RouteGroup, ...]:
    """Return the places at or below a folder, in any case."""
    below = folder.lower().rstrip("/")
    return tuple(group for group in groups if inside(group.path.lower(), below) or not below)


def _cuts(path: str, longest: int) -> Iterator[str]:
    """Yield the starts of a path, no longer than `longest`, that end before a dot in a name.

    "/admin.json" begins with "/admin", which tools serve it as. In a name with more behind it
    only an ending that begins with a letter counts: "/v1.1/x" is no file of "/v1".
    """
    position = path.find(".", 0, longest + 1)
    while position >= 0:
        if path[position - 1] != "/":
            slash = path.find("/", position)
            last = slash < 0 or slash == len(path) - 1
            if last or path[position + 1 : position + 2].isalpha():
                yield path[:position]
        position = path.find(".", position + 1, longest + 1)
