"""The places of the routes that name one and the same host, by their paths and near spellings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tailchat_gate.access.place import Place, Route

Places = Mapping[str, tuple[Place, ...]]

#: Files that servers answer a folder with, whatever their ending.
_INDEXES: Final = frozenset(("default", "index"))


class Layer:
    """The places of the routes that name one host, by path.

    `folded` has them by their paths in lower case; `stems` by those without an ending of a name,
    "/page" for "/page.html"; `indexes` by the folder that an index file stands for.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        by_path: dict[str, list[Route]] = {}
        for route in routes:
            by_path.setdefault(route.settings.path, []).append(route)
        self.exact: Final = {path: Place(routes) for path, routes in by_path.items()}
        places = self.exact.values()
        self.folded: Final = _grouped((place.path.lower(), place) for place in places)
        self.stems: Final = _grouped((stem, place) for place in places for stem in _stems(place))
        self.indexes: Final = _grouped((_folder(place), place) for place in places)
        self.depth: Final = max((path.count("/") for path in self.exact), default=1)
        self.longest: Final = max(map(len, self.exact), default=1)
        self.methods: Final = frozenset(method for place in places for method in place.methods)


def layers_of(routes: Iterable[Route]) -> Mapping[str, Layer]:
    """Return the places of routes by the host they name, "" for any."""
    by_host: dict[str, list[Route]] = {}
    for route in routes:
        by_host.setdefault(route.settings.host or "", []).append(route)
    return {host: Layer(routes) for host, routes in by_host.items()}


def _grouped(pairs: Iterable[tuple[str, Place]]) -> Places:
    found: dict[str, tuple[Place, ...]] = {}
    for key, place in pairs:
        if key:
            found[key] = (*found.get(key, ()), place)
    return found


def _stems(place: Place) -> Iterator[str]:
    """Yield the paths, in lower case, that lack the end of one name from a dot on."""
    path = place.path.lower()
    position = path.find(".")
    while position >= 0:
        if path[position - 1] != "/":
            slash = path.find("/", position)
            yield path[:position] + (path[slash:] if slash >= 0 else "")
        position = path.find(".", position + 1)


def _folder(place: Place) -> str:
    """Return the folder whose index file a path names, "" for any other path."""
    folder, _, name = place.path.lower().rpartition("/")
    return folder or "/" if name.partition(".")[0] in _INDEXES else ""
