"""What is said of a host: by its whole name, or by the wildcard that covers it."""

from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from tailchat_gate.syntax import WILDCARD

_T = TypeVar("_T")


class HostPatterns(Generic[_T]):
    """What is said of hosts, by patterns: whole names in lower case, and wildcards.

    A wildcard covers one or more labels to the left of its name, never the bare name, and is
    compared label by label, so that "badexample.com" is never below "example.com".
    """

    def __init__(self, said: Mapping[str, _T]) -> None:
        self._exact: Final = {
            name: value for name, value in said.items() if not name.startswith(WILDCARD)
        }
        self._below: Final = {
            pattern.removeprefix(WILDCARD): value
            for pattern, value in said.items()
            if pattern.startswith(WILDCARD)
        }
        # How many labels the names of the wildcards have, the longest first: a host of a hundred
        # labels costs no more look-ups than one of three.
        self._sizes: Final = tuple(
            sorted({name.count(".") + 1 for name in self._below}, reverse=True)
        )

    def get(self, host: str) -> _T | None:
        """Return what is said of a host in lower case, without port and trailing dot.

        The whole name counts before a wildcard, a longer wildcard before a shorter one.
        """
        found = self._exact.get(host)
        if found is None and self._sizes:
            labels = host.split(".")
            for size in self._sizes:
                found = self._below.get(".".join(labels[-size:]))
                if found is not None and size < len(labels) and "" not in labels:
                    return found
            return None
        return found

    def covering(self, name: str) -> list[_T]:
        """Return what the wildcards say that cover a name, the longest first."""
        labels = name.split(".")
        found = (
            self._below.get(".".join(labels[-size:])) for size in self._sizes if size < len(labels)
        )
        return [each for each in found if each is not None]
