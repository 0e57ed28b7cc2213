"""A real sign-in, page by page as a browser does it, for the session cookie of the load."""

import ssl
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http import HTTPStatus

import aiohttp
from process import BenchError
from yarl import URL

# Login page, consent page, and room for one more.
_PAGES = 4
# Characters of a page that are read at once: those after its first form may be very many.
_PART = 4096
_BROWSER = {
    "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}


@dataclass(frozen=True, slots=True)
class Person:
    """Who signs in."""

    email: str
    password: str = field(repr=False)


@dataclass(slots=True)
class Form:
    """The first form of a page: where it goes and the values it holds."""

    action: str = ""
    method: str = ""
    values: dict[str, str] = field(default_factory=dict)


class _FormReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.form: Form | None = None
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and self.form is None:
            self.inside = True
            self.form = Form(given.get("action", ""), given.get("method", "get").lower())
        elif self.form and self.inside and tag in {"input", "button"} and given.get("name"):
            self.form.values[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.inside = False


def first_form(page: str) -> Form | None:
    """The first form of an HTML page, or None."""
    reader = _FormReader()
    for start in range(0, len(page), _PART):
        reader.feed(page[start : start + _PART])
        if reader.form and not reader.inside:
            break
    return reader.form


async def signed_in_cookies(start: str, person: Person, trust: ssl.SSLContext) -> dict[str, str]:
    """Sign in where the URL `start` leads; returns the cookies of its origin.

    `trust` verifies the provider. Raises BenchError when the pages do not lead back.
    """
    try:
        return await _signed_in(start, person, trust)
    except aiohttp.ClientError as problem:
        raise BenchError(f"the sign-in at {start} failed: {problem}") from None


async def _signed_in(start: str, person: Person, trust: ssl.SSLContext) -> dict[str, str]:
    origin = URL(start).origin()
    url, form, page = URL(start), Form(method="get"), ""
    typed = {"email": person.email, "password": person.password}
    names: set[str] = set()
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.CookieJar(unsafe=True),
        connector=aiohttp.TCPConnector(ssl=trust),
        headers=_BROWSER,
        timeout=aiohttp.ClientTimeout(total=20),
    ) as browser:
        for _ in range(_PAGES):
            values = {name: typed.get(name, value) for name, value in form.values.items()}
            data = values if form.method == "post" else None
            async with browser.request(form.method, url, data=data) as response:
                page = await response.text(errors="replace")
                for answer in (*response.history, response):
                    # The provider's own cookies may come from the same host and are not the peer's.
                    if answer.url.origin() == origin:
                        names.update(answer.cookies)
                form = first_form(page) or Form(method="get")
                url = response.url.join(URL(form.action))
            if response.url.origin() == origin:
                break
        jar = browser.cookie_jar.filter_cookies(origin)
        cookies = {name: jar[name].value for name in sorted(names) if name in jar}
    if not cookies or response.url.origin() != origin or response.status != HTTPStatus.OK:
        raise BenchError(f"the sign-in ended with {response.status} at {url.path}: {page[:300]!r}")
    return cookies
