"""Texts of an organisation in the place of the pages' own."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from tailchat_gate import syntax
from tailchat_gate.config.problems import did_you_mean
from tailchat_gate.pages.catalogues import placeholders, replaceable
from tailchat_gate.pages.language import LANGUAGES

_LONGEST: Final = 1000


def language(text: str) -> str:
    """Check the name of a language; raises ValueError."""
    if text not in LANGUAGES:
        raise ValueError(f"a language of the pages: {', '.join(LANGUAGES)}")
    return text


def flat(value: object) -> object:
    """Return a table of tables as one, whose keys have dots, as in `"sign_in.title"`."""
    return dict(_flat(value)) if isinstance(value, Mapping) else value


def _flat(table: Mapping[object, object], path: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def key(text: str) -> str:
    """Check the key of a text; raises ValueError."""
    if text not in replaceable():
        raise ValueError(
            "the key of a text of the pages, as docs/pages.md tells"
            + did_you_mean(text, replaceable())
        )
    return text


def text(value: str) -> str:
    """Check a text by itself; raises ValueError."""
    if not value.strip() or len(value) > _LONGEST or syntax.UNFIT_FOR_A_LINE.search(value):
        raise ValueError(f"a text in one line of at most {_LONGEST} characters")
    return value


def whole(texts: Mapping[str, str]) -> Mapping[str, str]:
    """Check that texts have the placeholders of those that they replace; raises ValueError."""
    for name, found in texts.items():
        wanted = replaceable()[name]
        bare = found
        for place in placeholders(found):
            bare = bare.replace(place, "")
        if placeholders(found) != wanted or not {"{", "}"}.isdisjoint(bare):
            with_what = f"with {' and '.join(sorted(wanted))}" if wanted else "without braces"
            raise ValueError(f"for {name} a text {with_what}, and no other braces")
    return MappingProxyType(dict(texts))


def frozen(texts: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
    """Return texts by language that nobody changes."""
    return MappingProxyType(dict(texts))
