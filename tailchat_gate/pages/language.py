"""The languages of the pages: which one a visitor gets, and their plural forms.

The forms follow the cardinal rules of Unicode CLDR for whole numbers. No library is used, because
one brings the rules and names of hundreds of languages. French, Spanish and Portuguese have a
further form for round millions ("1 000 000 de"), which takes `other` here.
"""

import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from tailchat_gate.syntax import QVALUE

#: The language for visitors whose languages the pages do not have.
ENGLISH: Final = "en"
_ENDING: Final = ".toml"
_FOUND: Final = frozenset(
    entry.name.removesuffix(_ENDING)
    for entry in files(__package__).joinpath("locales").iterdir()
    if entry.name.endswith(_ENDING)
)
#: The languages of the pages, by the files of their texts.
LANGUAGES: Final = (ENGLISH, *sorted(_FOUND - {ENGLISH}))

# The language for tags without a catalogue. Hong Kong and Macau write traditional characters, as
# Taiwan does (Unicode CLDR, likely subtags). For readers of any Portuguese, Brazilian Portuguese is
# better than English.
_STANDS_FOR: Final = {"zh-hant": "zh-TW", "zh-hk": "zh-TW", "zh-mo": "zh-TW", "pt": "pt-BR"}
_BY_TAG: Final = MappingProxyType(
    {name: language for name, language in _STANDS_FOR.items() if language in LANGUAGES}
    | {language.lower(): language for language in LANGUAGES}
)

#: Browsers send well under 100 characters; the rest is not read.
MAX_LENGTH: Final = 256

# RFC 9110 sections 12.4.2 (weight) and 12.5.4, RFC 4647 section 2.1 (language-range). "*" alone
# names no language, so lookup skips it (RFC 4647 section 3.4).
_RANGE: Final = re.compile(
    rf"""
    [ \t]* (?P<range> [a-z]{{1,8}} (?: - [a-z0-9]{{1,8}} )* ) [ \t]*
    (?: ; [ \t]* q= (?P<weight> {QVALUE} ) [ \t]* )?
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


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


#: By the primary subtag of a language; other languages have the forms of English.
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


def choose_language(accept_language: str) -> str:
    """Return the language for a value of Accept-Language, "" if there is none.

    Each range is looked up (RFC 4647 section 3.4). Of those that find a language the one with the
    highest weight wins, then the earlier one. If none does, or all weights are 0, it is English.
    A malformed range is ignored (RFC 9110 section 12.5.4).
    """
    best, most = ENGLISH, 0.0
    for element in _elements(accept_language):
        match = _RANGE.fullmatch(element)
        if match is None:
            continue
        weight = float(match["weight"] or 1)
        language = _look_up(match["range"].lower()) if weight > most else None
        if language is not None:
            best, most = language, weight
    return best


def _look_up(wanted: str) -> str | None:
    """Return the language for a range, dropping its last subtags until one is known."""
    while wanted and wanted not in _BY_TAG:
        wanted = wanted.rpartition("-")[0]
        # "and if the resulting subtag is a single letter or digit, it is removed as well"
        if wanted[-2:-1] == "-":
            wanted = wanted[:-2]
    return _BY_TAG.get(wanted)


def _elements(field: str) -> list[str]:
    if len(field) > MAX_LENGTH:
        # An element cut short could mean something else (q=0.9 as q=0), so it is dropped.
        field = field[:MAX_LENGTH].rpartition(",")[0]
    return field.split(",")
