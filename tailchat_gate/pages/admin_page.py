"""Renders the admin page; unlike the visitors' pages it has no prefix, contact or public host."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Template
from markupsafe import Markup

from tailchat_gate.pages.brand import Brand
from tailchat_gate.pages.catalogues import catalogues
from tailchat_gate.pages.environment import make_environment
from tailchat_gate.pages.filters import clean, csp_source
from tailchat_gate.pages.language import choose_language
from tailchat_gate.pages.plots import bars, lines, spark

_NO_BRAND: Final = Brand()
#: The pages, in the order of their links.
PAGES: Final = ("overview", "people", "configuration", "checks")
#: Results of orders that were carried out; all others are shown as failures.
_DONE: Final = frozenset(
    (
        *("locked", "locked-forever", "unlocked", "granted", "revoked", "declined"),
        *("ended", "reloaded", "started"),
    )
)


def render(
    page: str, accept_language: str, values: Mapping[str, object], brand: Brand = _NO_BRAND
) -> Generator[None, None, str]:
    """Return the HTML of one of PAGES or of "message"; the generator yields after short steps.

    Any text in `values` may be hostile. `brand` has the logo and colours of the organisation.
    """
    package = _package()
    language = choose_language(accept_language)
    catalogue = catalogues("admin")[language]
    shown: dict[str, object] = {}
    for name, value in values.items():
        shown[name] = yield from _cleaned(value)
    parts: list[str] = []
    shown |= {"done": _DONE, "results": catalogues("locales")[language]["reason"]}
    shown |= {"logo": brand.logo, "site": clean(brand.title), "style": _style(brand)}
    for part in package.templates[page].generate(shown, t=catalogue, pages=PAGES):
        parts.append(part)
        yield
    return "".join(parts)


def _cleaned(value: object) -> Generator[None, None, object]:
    """Do the same as `clean`, yielding after each entry of a list."""
    if isinstance(value, dict):
        cleaned: dict[object, object] = {}
        for name, item in value.items():
            cleaned[clean(name)] = yield from _cleaned(item)
        return cleaned
    if not isinstance(value, list):
        return clean(value)
    items: list[object] = []
    for item in value:
        items.append(clean(item))
        yield
    return items


def _style(brand: Brand) -> Markup:
    return _package().style + Markup(brand.style())  # noqa: S704 - contains only checked colours


def headers(accept_language: str, brand: Brand = _NO_BRAND) -> dict[str, str]:
    """Return the response fields of a page."""
    package = _package()
    return {
        "X-Frame-Options": "DENY",
        "Content-Type": "text/html; charset=utf-8",
        "Content-Language": catalogues("admin")[choose_language(accept_language)]["tag"],
        "Content-Security-Policy": package.policy.format(style=csp_source(_style(brand))),
        "X-Content-Type-Options": "nosniff",
        # Orders need the field Origin, which would be null with no-referrer (Fetch, "append a
        # request Origin header").
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Vary": "Accept-Language, Cookie",
    }


def prepare() -> None:
    """Read and compile the pages; do not call it in the event loop, which it would block."""
    _package()
    catalogues("admin")


@dataclass(frozen=True, slots=True)
class _Package:
    """The templates, the style of all pages, and the policy, with a placeholder for its hash."""

    templates: Mapping[str, Template]
    style: Markup
    policy: str


@cache
def _package() -> _Package:
    """Read and compile the package's files, once."""
    package = files(__package__)
    own = package.joinpath("admin")
    sources = {
        entry.name: entry.read_text(encoding="utf-8") for entry in own.iterdir() if entry.is_file()
    }
    shared = package.joinpath("templates")
    usual = shared.joinpath("style.css").read_text(encoding="utf-8")
    sources["languages.html"] = shared.joinpath("languages.html").read_text(encoding="utf-8")
    style, script = usual + sources["admin.css"], sources["admin.js"]
    own_script = Markup(script)  # noqa: S704 - the package's own file
    environment = make_environment(
        {name: text for name, text in sources.items() if name.endswith(".html")},
        {"script": own_script, "spark": spark, "bars": bars, "lines": lines},
        seconds=_seconds,
        percent=_percent,
    )
    policy = "; ".join(
        (
            "default-src 'none'",
            "style-src {style}",
            f"script-src {csp_source(script)}",
            "connect-src 'self'",
            "img-src data:",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )
    templates = {page: environment.get_template(f"{page}.html") for page in (*PAGES, "message")}
    return _Package(templates, Markup(style), policy)  # noqa: S704 - the package's own file


_MILLI: Final = 1000
_MINUTE: Final = 60


def _seconds(value: float | None) -> str:
    """Return a duration in milliseconds, seconds or minutes."""
    if value is None:
        return "\N{EN DASH}"
    if value < 1:
        return f"{value * _MILLI:.3g} ms"
    return f"{value:.3g} s" if value < _MINUTE else f"{value / _MINUTE:.0f} min"


def _percent(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value * 100:.3g} %"
