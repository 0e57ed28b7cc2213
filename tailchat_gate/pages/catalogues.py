"""The texts of the pages by language, and the links to switch languages.

The links are not made by a template, where they took a third of the time of a whole page.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from markupsafe import Markup

from tailchat_gate.pages.language import LANGUAGES

_PLACEHOLDER: Final = re.compile(r"{[a-z_]+}")
#: The entries of a catalogue that describe its language.
_OF_LANGUAGE: Final = frozenset(("tag", "name"))
Texts = Mapping[str, str]
#: A placeholder for the path to return to; no path and no name contains it.
_BACK: Final = "\0"
_LINK: Final = Markup('<li><a href="{}?to={}&amp;rd=\0" lang="{}" hreflang="{}"{}>{}</a></li>\n')
_CURRENT: Final = Markup(' aria-current="true"')


class LanguageChoice(NamedTuple):
    """A language in the switch: `name` is in that language, `tag` is for `lang` attributes."""

    language: str
    tag: str
    name: str


@cache
def catalogues(folder: str) -> Mapping[str, Mapping[str, Any]]:
    """Read the texts in a folder of the package, by language, once in a process."""
    place = files(__package__).joinpath(folder)
    return MappingProxyType(
        {
            language: tomllib.loads(place.joinpath(f"{language}.toml").read_text(encoding="utf-8"))
            for language in LANGUAGES
        }
    )


@cache
def listed() -> tuple[LanguageChoice, ...]:
    """Return the languages for the switch."""
    by_language = catalogues("locales")
    return tuple(
        LanguageChoice(language, by_language[language]["tag"], by_language[language]["name"])
        for language in LANGUAGES
    )


def names() -> Mapping[str, str]:
    """Return the names of the languages, each in that language, by their tags."""
    return {language.tag: language.name for language in listed()}


@cache
def replaceable() -> Mapping[str, frozenset[str]]:
    """Return the keys of the texts that an organisation may replace, with their placeholders.

    The keys of all languages are joined, since languages differ in their plural forms.
    """
    texts = (text for catalogue in catalogues("locales").values() for text in _flat(catalogue))
    return MappingProxyType(
        {key: placeholders(text) for key, text in texts if key not in _OF_LANGUAGE}
    )


def placeholders(text: str) -> frozenset[str]:
    """Return the placeholders in a text, such as {tool}."""
    return frozenset(_PLACEHOLDER.findall(text))


def with_texts(catalogue: Mapping[str, Any], texts: Texts) -> Mapping[str, Any]:
    """Return a copy of a catalogue in which `texts` replace others, by their dotted keys."""
    replaced = dict(catalogue)
    for key, text in texts.items():
        name, _, rest = key.partition(".")
        replaced[name] = with_texts(replaced[name], {rest: text}) if rest else text
    return replaced


def _flat(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield path + key, value


def switch_links(path: str, current: str, here: str) -> Markup:
    """Return a link for each language.

    `path` receives the choice, `current` is the tag of the page's language, and `here` is the path
    to return to.
    """
    return Markup(_links(path, current).replace(_BACK, quote(here, safe="/")))  # noqa: S704 - quoted


@lru_cache(maxsize=64)
def _links(path: str, current: str) -> str:
    return "".join(
        _LINK.format(path, language, tag, tag, _CURRENT if tag == current else "", name)
        for language, tag, name in listed()
    )
