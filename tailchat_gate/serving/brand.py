"""Reads what the pages show of an organisation."""

from tailchat_gate.config.files import read_picture
from tailchat_gate.config.model import Pages
from tailchat_gate.pages.brand import Brand


def brand_of(pages: Pages) -> Brand:
    """Return the brand that a configuration names. Raises FileError for its logo."""
    return Brand(
        pages.title,
        read_picture("logo", pages.logo),
        pages.accent,
        pages.accent_dark,
        pages.footer,
        pages.texts,
    )
