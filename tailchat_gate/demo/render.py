"""Renders the demo's pages from the templates beside it."""

from importlib.resources import files
from typing import Final

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

#: Characters of a stranger's text that a page shows.
MAX_SHOWN: Final = 200

# Characters that would reverse the text around a nickname, or that HTML cannot contain.
_CONTROLS: Final = dict.fromkeys(
    (
        *(*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, 0x2028, 0x2029),
        *(*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)),
    ),
    "\N{REPLACEMENT CHARACTER}",
)


def shown(text: object) -> str:
    """Return untrusted text for a page: without control characters, cut to MAX_SHOWN."""
    clean = str(text).translate(_CONTROLS)
    return clean if len(clean) <= MAX_SHOWN else f"{clean[:MAX_SHOWN]}…"


def _environment() -> Environment:
    sources = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in files(__package__).joinpath("templates").iterdir()
        if entry.is_file()
    }
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.globals.update(
        style=Markup(sources["style.css"]),  # noqa: S704 - the package's own file
        script=Markup(sources["tool.js"]),  # noqa: S704 - the package's own file
    )
    return environment


# Read at import, so that the event loop reads no file.
_TEMPLATES: Final = _environment()


def render(template: str, **values: object) -> str:
    """Return the page; every value is escaped."""
    return _TEMPLATES.get_template(template).render(values)
