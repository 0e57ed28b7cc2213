"""Makes examples for property tests from a few bytes that Hypothesis draws at once.

A draw by Hypothesis itself takes longer than most of the code that is checked.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

_T = TypeVar("_T")


class Choices:
    """Makes choices from bytes: a small or missing byte chooses the first option."""

    def __init__(self, data: bytes) -> None:
        self._octets = iter(data)

    def below(self, count: int) -> int:
        """Return a number from 0, below `count`."""
        number = next(self._octets, 0)
        if count <= 256:
            return number * count >> 8
        return (number << 8 | next(self._octets, 0)) * count >> 16

    def between(self, first: int, last: int) -> int:
        """Return a number from `first` to `last`, both included."""
        return first + self.below(last - first + 1)

    def of(self, options: Sequence[_T]) -> _T:
        """Return one of the options."""
        return options[self.below(len(options))]

    def several(self, options: Sequence[_T], most: int, least: int = 0) -> list[_T]:
        """Return some of the options, in which one may be repeated."""
        return [self.of(options) for _ in range(self.between(least, most))]

    def shuffled(self, items: Sequence[_T]) -> list[_T]:
        """Return the items in some order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in items]

    def stretch(self, pool: bytes, most: int, least: int = 0) -> bytes:
        """Return adjacent octets of a pool (see `pool`)."""
        start = self.below(len(pool) - most)
        return pool[start : start + self.between(least, most)]


def choices(size: int) -> st.SearchStrategy[Choices]:
    """Return a strategy for Choices from `size` bytes."""
    return st.binary(min_size=size, max_size=size).map(Choices)


def chosen(make: Callable[[Choices], _T], size: int = 64) -> st.SearchStrategy[_T]:
    """Return a strategy for the results of `make`."""
    return choices(size).map(make)


def pool(octets: Iterable[int]) -> bytes:
    """Return a long text with each of the octets equally often, in random order.

    One may stand beside itself, as "//" and ".." do in paths.
    """
    row = list(octets) * 16
    random.Random(1).shuffle(row)  # noqa: S311 - the same one each time
    return bytes(row)
