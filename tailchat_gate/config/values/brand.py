"""Checks how an organisation adapts the pages: its logo, colours, links and own texts."""

from collections.abc import Iterator, Mapping
from string import hexdigits
from types import MappingProxyType
from typing import Final

from tailchat_gate import syntax
from tailchat_gate.config.problems import did_you_mean
from tailchat_gate.config.values import path, tile
from tailchat_gate.pages.brand import (
    BLACK,
    DARK_GROUNDS,
    ENOUGH,
    LIGHT_GROUNDS,
    WHITE,
    Colour,
    least_contrast,
    readable_shade,
)
from tailchat_gate.pages.catalogues import placeholders, replaceable
from tailchat_gate.pages.language import LANGUAGES

_LONGEST_OWN_TEXT: Final = 1000
COLOUR: Final = 'a colour such as "#1f5fbf"'
LOGO: Final = f"the absolute path of a {', '.join(tile.PICTURES)} file"
LINK: Final = "a web address that begins with https:// or http://, or mailto: and an address"

_MOST_LINKS: Final = 8
_LONGEST_TEXT: Final = 40
_LONGEST_LINK: Final = 1000


def text_language(text: str) -> str:
    """Check the name of a language; raises ValueError."""
    if text not in LANGUAGES:
        raise ValueError(f"a language of the pages: {', '.join(LANGUAGES)}")
    return text


def flat_texts(value: object) -> object:
    """Flatten a table of tables into one whose keys have dots, as in "sign_in.title"."""
    return dict(_flat(value)) if isinstance(value, Mapping) else value


def _flat(table: Mapping[object, object], path: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def text_key(text: str) -> str:
    """Check the key of a text; raises ValueError."""
    if text not in replaceable():
        raise ValueError(
            "the key of a text of the pages, as docs/pages.md lists them"
            + did_you_mean(text, replaceable())
        )
    return text


def own_text(value: str) -> str:
    """Check a text that replaces one of the pages' own; raises ValueError."""
    if not value.strip() or len(value) > _LONGEST_OWN_TEXT or syntax.UNFIT_FOR_A_LINE.search(value):
        raise ValueError(f"a text in one line of at most {_LONGEST_OWN_TEXT} characters")
    return value


def with_placeholders(texts: Mapping[str, str]) -> Mapping[str, str]:
    """Check that each text has the placeholders of the one it replaces; raises ValueError."""
    for name, text in texts.items():
        wanted = replaceable()[name]
        bare = text
        for place in placeholders(text):
            bare = bare.replace(place, "")
        if placeholders(text) != wanted or not {"{", "}"}.isdisjoint(bare):
            with_what = f"with {' and '.join(sorted(wanted))}" if wanted else "without braces"
            raise ValueError(f"for {name} a text {with_what}, and no other braces")
    return MappingProxyType(dict(texts))


def frozen_texts(texts: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
    """Return texts by language, read-only."""
    return MappingProxyType(dict(texts))


def logo(text: str) -> str:
    """Check the path of a logo, "" for none; its file need not exist. Raises ValueError."""
    if path.file_or_none(text) and tile.picture(text) is None:
        raise ValueError(LOGO)
    return text


def accent(text: str) -> str:
    """Check a colour for light pages, "" for the pages' own; raises ValueError."""
    return _readable(text, LIGHT_GROUNDS, BLACK, "light")


def accent_dark(text: str) -> str:
    """Check a colour for dark pages, "" for the pages' own; raises ValueError."""
    return _readable(text, DARK_GROUNDS, WHITE, "dark")


def link_text(text: str) -> str:
    """Check the text of a link; raises ValueError."""
    if not text.strip() or len(text) > _LONGEST_TEXT or syntax.UNFIT_FOR_A_LINE.search(text):
        raise ValueError(f"a text in one line of at most {_LONGEST_TEXT} characters")
    return text


def link(text: str) -> str:
    """Check the address of a link; raises ValueError."""
    begins = text.startswith(("https://", "http://", "mailto:"))
    plain = text.isascii() and text.isprintable() and " " not in text
    if not (begins and plain and len(text) <= _LONGEST_LINK):
        raise ValueError(LINK)
    return text


def few(links: Mapping[str, str]) -> Mapping[str, str]:
    """Check how many links there are; raises ValueError."""
    if len(links) > _MOST_LINKS:
        raise ValueError(f"at most {_MOST_LINKS} links")
    return MappingProxyType(dict(links))


def _readable(text: str, grounds: tuple[str, ...], towards: Colour, scheme: str) -> str:
    if not text:
        return text
    if len(text) != len("#rrggbb") or text[0] != "#" or not set(text[1:]) <= set(hexdigits):
        raise ValueError(COLOUR)
    contrast = least_contrast(text, grounds)
    if contrast < ENOUGH:
        nearest = readable_shade(text, grounds, towards)
        raise ValueError(
            f"a colour with a contrast of at least {ENOUGH} to the {scheme} pages (WCAG 2.2 AA), "
            f'such as "{nearest}"; this one has {contrast:.1f}'
        )
    return text.lower()
