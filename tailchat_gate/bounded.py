"""The one bounded memory of the gate: what was made of keys that strangers choose."""

from array import array
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

#: What an entry takes in the table of a dict, and the object of its key.
ENTRY_BYTES: Final = 192
#: Places of marks, one for each key that came once: 128 KiB, whatever the keys are.
_PLACE_BITS: Final = 15
_PLACES: Final = 1 << _PLACE_BITS
_LAST_PLACE: Final = _PLACES - 1
_MARK_BITS: Final = (1 << 32) - 1


def _one(_key: object, _made: object) -> int:
    return 1


def keep_in(cache: dict[_K, _V], key: _K, made: _V, most: int) -> None:
    """Keep what was made of a key in a plain dict of `most` entries; a full one is emptied first.

    A look-up in a BoundedCache is a call of Python's, and it takes two dicts. So a plain dict is
    for what each request looks up several times, and for what each session or header section has
    one of, where it takes little to make again what was dropped.
    """
    if len(cache) >= most and key not in cache:
        cache.clear()
    cache[key] = made


class BoundedCache(Generic[_K, _V]):
    """A cache with a bound.

    All entries together cost at most `most`: by `cost` of a key and what was made of it, and
    without one by their number. What is used stays. The entries are in two halves: when the young
    half is full it becomes the old one, whose entries are dropped; an entry of the old half that is
    asked for is young again. So a stranger with ever new keys pushes out only what nobody asks for.
    An entry that costs more than `largest` is not kept. With `twice` neither is a key that came
    only once: a key that never repeats then takes no memory, and pushes out nothing.
    """

    __slots__ = ("_cost", "_half", "_largest", "_old", "_once", "_size", "_young")

    def __init__(
        self,
        most: int,
        *,
        cost: Callable[[_K, _V], int] = _one,
        largest: int | None = None,
        twice: bool = False,
    ) -> None:
        self._half: Final = max(most // 2, 1)
        self._cost = cost
        self._largest: Final = self._half if largest is None else largest
        self._young: dict[_K, _V] = {}
        self._old: dict[_K, _V] = {}
        #: What the young half costs.
        self._size = 0
        #: Of keys that came once: of those whose hashes end alike, the last one's other bits.
        self._once = array("I", bytes(4 * _PLACES)) if twice else None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: _K) -> _V | None:
        """Return the value of a key, None if there is none."""
        found = self._young.get(key)
        if found is None and self._old and (found := self._old.pop(key, None)) is not None:
            self._put(key, found, self._cost(key, found))
        return found

    def keep(self, key: _K, made: _V) -> None:
        """Keep what was made of a key, unless it is too large, or the key came only once."""
        once = self._once
        if once is not None:
            hashed = hash(key)
            # By bits: to divide numbers of 64 takes Python several times as long.
            place, mark = hashed & _LAST_PLACE, hashed >> _PLACE_BITS & _MARK_BITS
            if once[place] != mark:
                once[place] = mark
                return
        cost = self._cost(key, made)
        if cost <= self._largest:
            self.drop(key)
            self._put(key, made, cost)

    def values(self) -> Iterator[_V]:
        """Yield all values."""
        yield from self._young.values()
        yield from self._old.values()

    def drop(self, key: _K) -> None:
        """Forget one key."""
        if (found := self._young.pop(key, None)) is not None:
            self._size -= self._cost(key, found)
        else:
            self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old, self._size = {}, {}, 0

    def _put(self, key: _K, made: _V, cost: int) -> None:
        if self._size + cost > self._half and self._young:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[key] = made
        self._size += cost
