"""Checks the tile of a route in the launcher: its texts, its icon and the path it opens."""

import re
import unicodedata

from tailchat_gate import syntax
from tailchat_gate.config.values import path

#: The media types of icons, by the extension of the file's name.
PICTURES = {
    ".gif": "image/gif",
    ".ico": "image/vnd.microsoft.icon",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
ICON = f"an emoji, or the absolute path of a {', '.join(PICTURES)} file"
LAUNCH = 'a path such as "/wiki/", with or without a query, or false'

_LONGEST_TITLE = 60
_LONGEST_DESCRIPTION = 200
#: An emoji may be of several code points: a skin tone, a variation, a family of joined ones.
_LONGEST_EMOJI = 12
#: Symbols, what joins and modifies them, and symbols that are newer than this Python.
_PICTORIAL = frozenset(("Cf", "Cn", "Me", "Mn", "Sk", "Sm", "So"))
#: Before U+20E3 these are keys of a telephone.
_KEYCAPS = "*#0123456789"
_LAUNCH = re.compile(syntax.LAUNCH)
_FILE = re.compile(syntax.FILE)


def title(text: str) -> str:
    """Check the name of a tool for people; raises ValueError."""
    return _line(text, _LONGEST_TITLE)


def description(text: str) -> str:
    """Check what a tool is for; raises ValueError."""
    return _line(text, _LONGEST_DESCRIPTION)


def icon(text: str) -> str:
    """Check an icon, "" for none; its file need not exist. Raises ValueError."""
    if text.startswith("/"):
        if not _FILE.fullmatch(text) or picture(text) is None:
            raise ValueError(ICON)
    elif len(text) > _LONGEST_EMOJI or not all(map(_is_pictorial, text)):
        raise ValueError(ICON)
    return text


def picture(file: str) -> str | None:
    """Return the media type of a picture by the name of its file, None for any other file."""
    return PICTURES.get(file[file.rfind(".") :].lower())


def launch(value: object) -> str | bool:
    """Check what a tile opens: the route's path (True), another path, or nothing (False).

    Raises ValueError.
    """
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or not _LAUNCH.fullmatch(value):
        raise ValueError(LAUNCH)
    return value


def leads_into(target: str, folder: str) -> bool:
    """Whether a path, with or without a query, is that of a route or below it."""
    begin = target.partition("?")[0]
    return folder == "/" or path.inside(begin, folder)


def _line(text: str, longest: int) -> str:
    if len(text) > longest or syntax.UNFIT_FOR_A_LINE.search(text):
        raise ValueError(f"one line of at most {longest} characters")
    return text


def _is_pictorial(char: str) -> bool:
    return unicodedata.category(char) in _PICTORIAL or char in _KEYCAPS
