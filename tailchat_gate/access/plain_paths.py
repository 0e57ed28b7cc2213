"""Reduces plain paths to the parts that decide which routes they lead to, for a cache."""

from collections.abc import Iterable
from typing import Final

from tailchat_gate.request.readings import is_plain, names_script


class PlainPaths:
    """Maps plain paths that lead to the same places to one form.

    `keys` are all texts under which a place is found, in lower case: paths, and paths up to a dot
    in a segment. In a path with one reading, only the segments that begin some key count, and the
    next one. That one, if it is no key and has no dot, and all further segments can be replaced by
    any name that is in no key.
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
        """Return a path that stands for all that lead to the same places, None if there is none.

        Like `path` itself, it has one reading.
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
            # An empty segment, which ends the path.
            return path
        matters = node in self._keys or "." in path[start:stop]
        beginning = path[:stop] if matters else path[: start + 1] + self._any_name
        if stop == len(path):
            return beginning
        return f"{beginning}/{self._any_name}" if stop + 1 < len(path) else f"{beginning}/"
