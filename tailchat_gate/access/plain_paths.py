"""Finds the parts of a plain path that can decide which places it leads to."""

from collections.abc import Iterable
from typing import Final

from tailchat_gate.request.readings import is_plain, names_script


class PlainPaths:
    """Tells which plain paths lead to the same places, by the keys under which these are found.

    `keys` are the paths of places in lower case, and whatever else a path or the start of one is
    looked up as: by whole segments, or by all before a dot in a segment. So of a path with one
    reading only the segments count that begin some key, and the one behind them. What is behind
    that one, and it itself where it is no key and has no dot, may be any name that is in no key.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys: Final = frozenset(keys)
        self._above: Final = frozenset(
            key[:place] for key in self._keys for place in range(1, len(key)) if key[place] == "/"
        )
        name = "x"
        while any(f"/{name}" in key for key in self._keys):
            name += "x"
        self._any_name: Final = name

    def form(self, path: str) -> str | None:
        """Return a path that leads to the same places, one for very many; None where none is known.

        It has as many readings as `path`: one.
        """
        if not is_plain(path) or names_script(path):
            return None
        lower, end = path.lower(), 0
        node = ""
        while end >= 0 and (not end or node in self._above):
            start = end
            end = lower.find("/", start + 1)
            node = lower if end < 0 else lower[:end]
        stop = len(path) if end < 0 else end
        if stop == start + 1:
            # An empty name, which ends the path.
            return path
        matters = node in self._keys or "." in path[start:stop]
        kept = path[:stop] if matters else path[: start + 1] + self._any_name
        if stop == len(path):
            return kept
        return f"{kept}/{self._any_name}" if stop + 1 < len(path) else f"{kept}/"
