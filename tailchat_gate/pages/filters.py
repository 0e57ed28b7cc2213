"""Filters of the templates, above all for texts that strangers chose."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from markupsafe import Markup, escape

from tailchat_gate.pages.language import plural_form

#: The longest text of a stranger that a page shows, in characters.
MAX_SHOWN: Final = 300
_NO_MARK: Final = Markup()
# Embeddings, overrides and isolates in a nickname could reorder the words around it; a stray U+2069
# ends even the isolation by <bdi>. A lone surrogate cannot be encoded.
_HARMLESS: Final = MappingProxyType(
    dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029), " ")
    | dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
    | dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
)


def csp_source(content: str) -> str:
    """Return the CSP source that allows exactly this inline content (CSP Level 3, 2.3.1)."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode('ascii')}'"


def clean(value: object) -> object:
    """Replace characters, at any depth of a value, that would break the page or its encoding."""
    if isinstance(value, Markup):
        # The output of a template, whose values were cleaned.
        return value
    if isinstance(value, str):
        return value.translate(_HARMLESS)
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {clean(name): clean(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [clean(item) for item in value]
    return value


def fill(message: str, **values: str) -> Markup:
    """Put values into a sentence of a catalogue, each isolated from its writing direction."""
    isolated = {name: Markup("<bdi>{}</bdi>").format(text) for name, text in values.items()}
    return escape(message).format(**isolated)


def counted(forms: Mapping[str, str], language: str, total: int, /, **values: str) -> Markup:
    """Put `total` and other values into the plural form of a sentence for that number."""
    return fill(forms[plural_form(language, total)], total=str(total), **values)


def shorten(text: str, limit: int = MAX_SHOWN) -> str:
    """Return a text, or its start if it is longer than `limit`."""
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def visible(nickname: str, fallback: str) -> str:
    """Return a nickname to show, or `fallback` for one without a visible character."""
    seen = any(ch.isprintable() and not ch.isspace() for ch in nickname)
    return shorten(nickname.strip(), 80) if seen else fallback


def initial(nickname: str) -> str:
    """Return the first letter or digit of a nickname, "?" without any."""
    return next((ch.upper() for ch in nickname if ch.isalnum()), "?")[:1]


def local(seconds: float) -> Markup:
    """Return a <time> element that a script rewrites in the reader's time zone."""
    return utc(seconds, Markup(" data-local"))


def utc(seconds: float, mark: Markup = _NO_MARK) -> Markup:
    """Return a <time> element for Unix seconds; `mark` is a further attribute."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time{} datetime="{}">{}</time>').format(
        mark, moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    )
