"""Caches with a bound, for values computed from keys that strangers choose."""

from array import array
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

#: Bytes that an entry takes in a dict's table, together with its key object.
ENTRY_BYTES: Final = 192
#: Slots for marks of keys that were seen once: 4 bytes each, 128 KiB in all.
_PLACE_BITS: Final = 15
_PLACES: Final = 1 << _PLACE_BITS
_LAST_PLACE: Final = _PLACES - 1
_MARK_BITS: Final = (1 << 32) - 1


def _one(_key: object, _made: object) -> int:
    return 1


def keep_in(cache: dict[_K, _V], key: _K, made: _V, most: int) -> None:
    """Store a value in a plain dict of at most `most` entries, emptying a full one first.

    A look-up in a BoundedCache costs a Python call, and the cache takes two dicts. Use a plain
    dict for what each request looks up several times, or where there is one cache for each session
    or header section, provided that values are cheap to compute again.
    """
    if len(cache) >= most and key not in cache:
        cache.clear()
    cache[key] = made


class BoundedCache(Generic[_K, _V]):
    """A cache with a bound, which keeps the entries that are used.

    All entries together cost at most `most`. `cost` gives the cost of a key and its value; without
    it each entry costs 1. The entries are in two halves: when the young half is full it becomes
    the old one, whose entries are dropped; an entry of the old half that is read becomes young
    again. So a stranger who sends ever new keys pushes out only entries that nobody reads.
    An entry that costs more than `largest` is not stored. With `twice` a key is stored only the
    second time it is seen, so that a key that never repeats takes no memory and pushes out nothing.
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
        #: For keys seen once: the low bits of the hash choose a slot, which holds its other bits.
        self._once = array("I", bytes(4 * _PLACES)) if twice else None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: _K) -> _V | None:
        """Return the value of a key, None if there is none."""
        value = self._young.get(key)
        if value is None and self._old and (value := self._old.pop(key, None)) is not None:
            self._put(key, value, self._cost(key, value))
        return value

    def keep(self, key: _K, made: _V) -> None:
        """Store a value, unless it is too large or, with `twice`, its key is seen first."""
        once = self._once
        if once is not None:
            hashed = hash(key)
            # By masks and shifts: dividing a 64-bit number takes Python several times as long.
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
        if (value := self._young.pop(key, None)) is not None:
            self._size -= self._cost(key, value)
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
