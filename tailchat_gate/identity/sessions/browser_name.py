"""Names a browser and its system from a User-Agent, so that people recognise their sessions."""

from typing import Final

#: The first match counts, because browsers also name the browsers that they descend from.
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
    """Return a name such as "Firefox, Linux", "" for any other program."""
    read = agent[:_READ]
    names = [
        next((name for mark, name in marks if mark in read), "") for marks in (_BROWSERS, _SYSTEMS)
    ]
    return ", ".join(filter(None, names))
