"""Which form of a text goes with a number; pure.

The cardinal rules of Unicode CLDR for the languages of the pages, for whole numbers. A table, as a
library brings the rules and the names of hundreds of languages. French, Spanish and Portuguese
have a further form for round millions ("1 000 000 de"); here these take `other`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final


def _one_alone(number: int) -> str:
    return "one" if number == 1 else "other"


def _up_to_one(number: int) -> str:
    return "one" if number in {0, 1} else "other"


def _never(_number: int) -> str:
    return "other"


def _by_last_digits(number: int) -> str:
    tens, units = number // 10 % 10, number % 10
    if tens == 1 or units not in {1, 2, 3, 4}:
        return "many"
    return "one" if units == 1 else "few"


#: By the primary subtag of a language; what is not here has the forms of English.
_RULES: Final[Mapping[str, Callable[[int], str]]] = MappingProxyType(
    {
        **dict.fromkeys(("ja", "zh"), _never),
        **dict.fromkeys(("fr", "pt"), _up_to_one),
        "ru": _by_last_digits,
    }
)


def plural_form(language: str, number: int) -> str:
    """Return which form a number takes in a language: one, few, many or other."""
    return _RULES.get(language.partition("-")[0], _one_alone)(number)


def plural_forms(language: str) -> frozenset[str]:
    """Return the forms of a language."""
    return frozenset(plural_form(language, number) for number in range(101))
