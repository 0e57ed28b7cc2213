"""Accept-Language (RFC 9110 section 12.5.4), element by element."""

from collections.abc import Sequence
from string import ascii_letters, digits

_SUBTAG = 8
_ZERO_TO_ONE = {"0": digits, "1": "0"}
_DECIMALS = 3


def choose(field: str, languages: Sequence[str]) -> str:
    """Return the language that a visitor likes best, the first where he likes none."""
    ranges = [found for element in field.split(",") if (found := _range(element)) is not None]
    names = [name for name, _ in ranges]
    liked = []
    for place, language in enumerate(languages):
        name = language if language in names else "*"
        if name in names:
            weight = max(weight for found, weight in ranges if found == name)
            liked.append((-weight, names.index(name), place, language))
    liked = [one for one in liked if one[0]]
    return min(liked)[3] if liked else languages[0]


def _range(element: str) -> tuple[str, float] | None:
    """Return the primary subtag of an element and its weight, None where it is malformed."""
    text, separator, parameter = element.partition(";")
    text = text.strip(" \t").lower()
    weight = _weight(parameter.strip(" \t").lower()) if separator else 1.0
    if weight is None:
        return None
    if text == "*":
        return text, weight
    primary, *others = text.split("-")
    for subtag, signs in ((primary, ascii_letters), *((o, ascii_letters + digits) for o in others)):
        if not 0 < len(subtag) <= _SUBTAG or set(subtag) - set(signs):
            return None
    return primary, weight


def _weight(text: str) -> float | None:
    whole, dot, decimals = text[2:].partition(".")
    if text[:2] != "q=" or whole not in _ZERO_TO_ONE:
        return None
    if len(decimals) > _DECIMALS or set(decimals) - set(_ZERO_TO_ONE[whole]):
        return None
    return float(f"{whole}.{decimals}" if dot else whole)
