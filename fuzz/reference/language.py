"""Accept-Language (RFC 9110 section 12.5.4), looked up as RFC 4647 section 3.4 says."""

from collections.abc import Collection, Iterator
from string import ascii_letters, digits

_SUBTAG = 8
_ZERO_TO_ONE = {"0": digits, "1": "0"}
_DECIMALS = 3
#: What else a language is called.
_NAMES = {"zh-TW": ("zh-hant", "zh-hk", "zh-mo"), "pt-BR": ("pt",)}


def choose(field: str, languages: Collection[str]) -> str:
    """Return the language that a visitor likes best, English where they like none."""
    names = {name: language for language in languages for name in _names(language)}
    liked = []
    for place, element in enumerate(field.split(",")):
        wanted, weight = _range(element) or ("", 0.0)
        tried = [name for name in _shorter(wanted) if name in names]
        if weight and tried:
            liked.append((-weight, place, names[tried[0]]))
    return min(liked)[2] if liked else "en"


def _names(language: str) -> tuple[str, ...]:
    return (language.lower(), *_NAMES.get(language, ()))


def _shorter(wanted: str) -> Iterator[str]:
    """Yield a range, and what lookup makes of it; no tag ends in a single letter or digit."""
    subtags = wanted.split("-")
    for count in range(len(subtags), 0, -1):
        if count in {1, len(subtags)} or len(subtags[count - 1]) > 1:
            yield "-".join(subtags[:count])


def _range(element: str) -> tuple[str, float] | None:
    """Return the range of an element and its weight, None where it is malformed."""
    text, separator, parameter = element.partition(";")
    text = text.strip(" \t").lower()
    weight = _weight(parameter.strip(" \t").lower()) if separator else 1.0
    if weight is None:
        return None
    primary, *others = text.split("-")
    for subtag, signs in ((primary, ascii_letters), *((o, ascii_letters + digits) for o in others)):
        if not 0 < len(subtag) <= _SUBTAG or set(subtag) - set(signs):
            return None
    return text, weight


def _weight(text: str) -> float | None:
    whole, dot, decimals = text[2:].partition(".")
    if text[:2] != "q=" or whole not in _ZERO_TO_ONE:
        return None
    if len(decimals) > _DECIMALS or set(decimals) - set(_ZERO_TO_ONE[whole]):
        return None
    return float(f"{whole}.{decimals}" if dot else whole)
