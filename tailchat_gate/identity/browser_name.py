"""A browser in words, from its User-Agent: what a person recognises, and nothing more."""

from typing import Final

#: The first mark that is found counts: browsers name those that they descend from, too.
_BROWSERS: Final = (
    ("MicroMessenger/", "WeChat"),
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("HarmonyOS", "HarmonyOS"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
#: Characters of a User-Agent that are read.
_READ: Final = 512


def browser_name(agent: str) -> str:
    """Return words such as "Firefox, Linux", "" for a program that is none of these."""
    read = agent[:_READ]
    found = [
        next((name for mark, name in marks if mark in read), "") for marks in (_BROWSERS, _SYSTEMS)
    ]
    return ", ".join(filter(None, found))
