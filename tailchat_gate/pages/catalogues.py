"""What the pages say, by language; read once in a process."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple

from tailchat_gate.pages.language import LANGUAGES


class Listed(NamedTuple):
    """A language as the switch lists it, in its own words; `tag` is for `lang` attributes."""

    language: str
    tag: str
    name: str


@cache
def catalogues(folder: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the texts of the files in a folder of the package, by language."""
    place = files(__package__).joinpath(folder)
    return MappingProxyType(
        {
            language: tomllib.loads(place.joinpath(f"{language}.toml").read_text(encoding="utf-8"))
            for language in LANGUAGES
        }
    )


@cache
def listed() -> tuple[Listed, ...]:
    """Return the languages for the switch."""
    found = catalogues("locales")
    return tuple(Listed(one, found[one]["tag"], found[one]["name"]) for one in LANGUAGES)
