"""What an organisation puts on the pages: its name, logo, colour, links and words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.pages.colours import BLACK, WHITE, mixed

#: The name on the pages of a gate that has none.
_NAME: Final = "Tailchat Gate"
_HOVER: Final = 0.15


@dataclass(frozen=True, slots=True)
class Brand:
    """The brand of one configuration; "" and nothing stand for the gate's own.

    `logo` is a data: URL. `accent` and `accent_dark` are #rrggbb, for light and dark pages.
    `links` are addresses by their texts. `texts` are those of a language in the place of the
    pages' own, by their dotted keys.
    """

    title: str = ""
    logo: str = field(default="", repr=False)
    accent: str = ""
    accent_dark: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the pages call the site."""
        return self.title or _NAME

    def style(self) -> str:
        """Return the rules that put the colours in the place of the pages' own."""
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
