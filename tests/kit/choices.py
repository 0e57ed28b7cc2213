"""Examples that are read from a few bytes, for properties that are checked with hundreds of them.

Hypothesis spends more on each draw of its own than most of the code that is checked.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

_T = TypeVar("_T")


class Choices:
    """Choices that bytes make: small bytes the first of the options, as missing ones do."""

    def __init__(self, data: bytes) -> None:
        self._octets = iter(data)

    def below(self, count: int) -> int:
        """Return a number from 0, below `count`."""
        number = next(self._octets, 0)
        if count <= 256:
            return number * count >> 8
        return (number << 8 | next(self._octets, 0)) * count >> 16

    def between(self, first: int, last: int) -> int:
        """Return a number; both ends may be it."""
        return first + self.below(last - first + 1)

    def of(self, options: Sequence[_T]) -> _T:
        """Return one of the options."""
        return options[self.below(len(options))]

    def several(self, options: Sequence[_T], most: int, least: int = 0) -> list[_T]:
        """Return some of the options, of which one may come again."""
        return [self.of(options) for _ in range(self.between(least, most))]

    def shuffled(self, items: Sequence[_T]) -> list[_T]:
        """Return the items in some order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in items]

    def stretch(self, pool: bytes, most: int, least: int = 0) -> bytes:
        """Return some of the octets of a long row, as they stand in it."""
        start = self.below(len(pool) - most)
        return pool[start : start + self.between(least, most)]


def choices(size: int) -> st.SearchStrategy[Choices]:
    """Return a strategy for the choices that `size` bytes make."""
    return st.binary(min_size=size, max_size=size).map(Choices)


def chosen(make: Callable[[Choices], _T], size: int = 64) -> st.SearchStrategy[_T]:
    """Return a strategy for what `make` makes of the choices."""
    return choices(size).map(make)


def pool(octets: Iterable[int]) -> bytes:
    """Return a long row in which each of some octets stands as often as any other."""
    chance, each = random.Random(1), list(octets)  # noqa: S311 - the same one each time
    return b"".join(bytes(chance.sample(each, len(each))) for _ in range(16))
