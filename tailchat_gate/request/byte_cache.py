"""A bounded memory of what was read, for texts that repeat; the oldest half goes at once."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")

#: What an entry takes in the table of a dict, and the object of its key.
ENTRY_BYTES: Final = 192


def _of_key(key: bytes, _made: object) -> int:
    return len(key) + ENTRY_BYTES


class ByteKeyedCache(Generic[_T]):
    """What was made of byte strings, by the strings.

    Bounded by `cost`, in bytes, of strings and what was made of them: when the young half has
    taken `max_bytes` it becomes the old one, and the old one is dropped; what is asked for again
    is young again. Longer strings than `longest` are not kept. So a stranger who sends ever new
    ones, however short, costs twice that memory and no more, and pushes out only what nobody
    asks for.
    """

    __slots__ = ("_cost", "_longest", "_max_bytes", "_old", "_size", "_young")

    def __init__(
        self, max_bytes: int, longest: int, cost: Callable[[bytes, _T], int] = _of_key
    ) -> None:
        self._max_bytes = max_bytes
        self._longest = longest
        self._cost = cost
        self._young: dict[bytes, _T] = {}
        self._old: dict[bytes, _T] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> _T | None:
        """Return what is kept for a string, None where nothing is."""
        found = self._young.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self.keep(key, found)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old, self._size = {}, {}, 0

    def keep(self, key: bytes, made: _T) -> None:
        """Keep what was made of a string."""
        if len(key) > self._longest:
            return
        if self._size >= self._max_bytes:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[key] = made
        self._size += self._cost(key, made)
