"""How an organisation adapts the pages; contrast (WCAG 2.2) and shades of its colours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Colour = tuple[int, int, int]

BLACK: Final[Colour] = (0, 0, 0)
WHITE: Final[Colour] = (255, 255, 255)
#: The contrast of text to its background (WCAG 2.2, success criterion 1.4.3, level AA).
ENOUGH: Final = 4.5
#: The backgrounds of links and buttons, light and dark: a card, and a row under the pointer.
LIGHT_GROUNDS: Final = ("#ffffff", "#eef3fa")
DARK_GROUNDS: Final = ("#1a2029", "#252d39")

_STEPS: Final = 100
_LINEAR_BELOW: Final = 0.04045
#: The name on the pages if `pages.title` is empty.
_NAME: Final = "Tailchat Gate"
_HOVER: Final = 0.15


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours #rrggbb, from 1 to 21."""
    low, high = sorted((_luminance(_numbers(first)), _luminance(_numbers(second))))
    return (high + 0.05) / (low + 0.05)


def least_contrast(colour: str, grounds: tuple[str, ...]) -> float:
    """Return the lowest contrast of a colour to any of the backgrounds."""
    return min(contrast(colour, ground) for ground in grounds)


def mixed(colour: str, other: Colour, share: float) -> str:
    """Return a mixture of two colours; `share`, from 0 to 1, is that of `other`."""
    parts = zip(_numbers(colour), other, strict=True)
    return "#{:02x}{:02x}{:02x}".format(*(round(a + (b - a) * share) for a, b in parts))


def readable_shade(colour: str, grounds: tuple[str, ...], towards: Colour) -> str:
    """Return the first shade from a colour towards BLACK or WHITE that has ENOUGH contrast."""
    shades = (mixed(colour, towards, step / _STEPS) for step in range(_STEPS + 1))
    return next(shade for shade in shades if least_contrast(shade, grounds) >= ENOUGH)


def _numbers(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: Colour) -> float:
    red, green, blue = (
        share / 12.92 if share <= _LINEAR_BELOW else ((share + 0.055) / 1.055) ** 2.4
        for share in (part / 255 for part in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@dataclass(frozen=True, slots=True)
class Brand:
    """The brand of one configuration; what is empty stays as in the gate's own pages.

    `logo` is a data: URL. `accent` and `accent_dark` are #rrggbb, for light and dark pages.
    `links` maps the texts of links to their addresses. `texts` has, by language and dotted key,
    the texts that replace the pages' own.
    """

    title: str = ""
    logo: str = field(default="", repr=False)
    accent: str = ""
    accent_dark: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the site on the pages."""
        return self.title or _NAME

    def style(self) -> str:
        """Return the CSS rules that replace the colours of the pages."""
        light, dark = self.accent, self.accent_dark
        return "".join(
            (
                _scheme("light", light, mixed(light, BLACK, _HOVER)) if light else "",
                _scheme("dark", dark, mixed(dark, WHITE, _HOVER)) if dark else "",
            )
        )


def _scheme(scheme: str, colour: str, hover: str) -> str:
    return (
        f"@media (prefers-color-scheme: {scheme}) {{ :root {{ --link: {colour}; "
        f"--button: {colour}; --button-hover: {hover}; --focus: {colour}; }} }}\n"
    )
