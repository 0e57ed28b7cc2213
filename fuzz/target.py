"""What a target is: a check of one parser that must hold for any bytes."""

from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """One parser and what must hold for it.

    `check` raises for an input that shows a fault. `parsers` are the modules that it runs, by
    their names within the package. `seeds` are inputs to begin with, `words` what a mutation may
    put in: the fuzzer learns neither from a regular expression.
    """

    check: Callable[[bytes], None]
    parsers: tuple[str, ...]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
