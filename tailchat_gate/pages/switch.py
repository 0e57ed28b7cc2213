"""Writes the links of the switch of the pages' language.

By hand, as in a template they take a third of the time of a whole page.
"""

from functools import lru_cache
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from tailchat_gate.pages.catalogues import listed

#: Stands where the way back goes; no path and no name has it.
_BACK: Final = "\0"
_LINK: Final = Markup('<li><a href="{}?to={}&amp;rd=\0" lang="{}" hreflang="{}"{}>{}</a></li>\n')
_CURRENT: Final = Markup(' aria-current="true"')


def switch_links(path: str, current: str, here: str) -> Markup:
    """Return a link for each language; `path` takes the choice, `current` is the page's tag.

    `here` is the path that each leads back to.
    """
    return Markup(_links(path, current).replace(_BACK, quote(here, safe="/")))  # noqa: S704 - quoted


@lru_cache(maxsize=64)
def _links(path: str, current: str) -> str:
    return "".join(
        _LINK.format(path, language, tag, tag, _CURRENT if tag == current else "", name)
        for language, tag, name in listed()
    )
