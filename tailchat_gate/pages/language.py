"""Chooses the language of a page by the visitor's Accept-Language; pure."""

import re
from typing import Final, Literal

Language = Literal["en", "zh"]

#: In order of preference where the visitor has none; the first is the fallback.
LANGUAGES: Final[tuple[Language, ...]] = ("en", "zh")

#: Browsers send well under 100 characters; the rest is not read.
MAX_LENGTH: Final = 256

# RFC 9110 sections 12.4.2 (weight) and 12.5.4, RFC 4647 section 2.1 (language-range).
_RANGE: Final = re.compile(
    r"""
    [ \t]* (?: (?P<primary> [a-z]{1,8} ) (?: - [a-z0-9]{1,8} )* | \* ) [ \t]*
    (?: ; [ \t]* q= (?P<weight> 0 (?: \. [0-9]{0,3} )? | 1 (?: \. 0{0,3} )? ) [ \t]* )?
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


def choose_language(accept_language: str) -> Language:
    """Return the language to answer in, for the value of an Accept-Language field ("" = none).

    A range counts by its primary subtag alone (`zh-TW`, `zh-Hans-CN` -> `zh`), since one Chinese
    serves its readers better than English does. `*` stands for every language that no other range
    names. The highest weight wins, then the earlier range, then the order of `LANGUAGES`. A
    language of weight 0 is not acceptable; if none is acceptable, the result is English.
    A malformed range is ignored (RFC 9110 section 12.5.4).
    """
    weights: dict[str, float] = {}
    for element in _elements(accept_language):
        found = _RANGE.fullmatch(element)
        if found is not None:
            primary = (found["primary"] or "*").lower()
            weight = float(found["weight"] or 1)
            weights[primary] = max(weight, weights.get(primary, 0.0))
    order = list(weights)
    best: Language = LANGUAGES[0]
    best_rank = (0.0, 0)
    for language in LANGUAGES:
        name = language if language in weights else "*"
        weight = weights.get(name, 0.0)
        rank = (weight, -order.index(name)) if weight else (0.0, 0)
        if rank[0] and (not best_rank[0] or rank > best_rank):
            best, best_rank = language, rank
    return best


def _elements(field: str) -> list[str]:
    if len(field) > MAX_LENGTH:
        # The element that the bound cuts through could read as another one (q=0.9 as q=0).
        field = field[:MAX_LENGTH].rpartition(",")[0]
    return field.split(",")
