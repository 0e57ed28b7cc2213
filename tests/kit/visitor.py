"""A browser without a screen: cookies, redirects, links and forms, over real sockets."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDictProxy
from yarl import URL

NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
FETCH = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}


@dataclass
class Form:
    """A form of a page: where it goes and what it holds."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class Page:
    """What a navigation ended at; `trail` are the URLs it was redirected over."""

    status: int
    url: str
    text: str
    headers: "CIMultiDictProxy[str]"
    trail: list[str]

    @property
    def location(self) -> str:
        """The Location field, "" without one."""
        return self.headers.get("Location", "")

    @property
    def cookies(self) -> tuple[str, ...]:
        """The Set-Cookie lines."""
        return tuple(self.headers.getall("Set-Cookie", ()))

    @property
    def json(self) -> Any:  # noqa: ANN401 - as JSON has it
        """The body of a JSON answer, None for any other and for an empty one."""
        is_json = "json" in self.headers.get("Content-Type", "")
        return json.loads(self.text) if is_json and self.text else None

    @property
    def forms(self) -> list[Form]:
        """The forms of the page."""
        parser = _Forms()
        parser.feed(self.text)
        return parser.forms

    @property
    def links(self) -> list[str]:
        """The addresses of the page's links."""
        parser = _Forms()
        parser.feed(self.text)
        return [urljoin(self.url, link) for link in parser.links]

    @property
    def query(self) -> dict[str, str]:
        """The query of the page's address."""
        return dict(parse_qsl(urlsplit(self.url).query))


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(values.get("action", ""), values.get("method", "get").lower()))
        elif tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in {"input", "button"} and self.forms and "name" in values:
            self.forms[-1].fields[values["name"]] = values.get("value", "")


class Loopback(AbstractResolver):
    """Finds every name on loopback, as a hosts file would."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the loopback address for any name."""
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


class Visitor:
    """One browser: its cookies and what it does; every host name leads to this machine."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            connector=aiohttp.TCPConnector(resolver=Loopback()),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    def cookies(self, url: str) -> dict[str, str]:
        """Return the cookies the browser would send to a URL."""
        return {
            name: m.value for name, m in self.session.cookie_jar.filter_cookies(URL(url)).items()
        }

    def cookie(self, url: str) -> str:
        """Return the same as the value of a Cookie field."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies(url).items())

    async def open(
        self,
        url: str,
        *,
        method: str = "GET",
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] = NAVIGATION,
        stop_before: str = "\0",
        follow: bool = True,
    ) -> Page:
        """Navigate, over redirects, up to the first URL that begins with `stop_before`."""
        trail: list[str] = []
        for _ in range(20):
            trail.append(url)
            response = await self.session.request(
                method, URL(url, encoded=True), data=data, headers=headers, allow_redirects=False
            )
            location = response.headers.get("Location", "")
            if response.status not in {301, 302, 303, 307, 308} or not follow:
                return Page(response.status, url, await response.text(), response.headers, trail)
            url = urljoin(url, location)
            if url.startswith(stop_before):
                return Page(response.status, url, "", response.headers, trail)
            if response.status not in {307, 308}:
                method, data = "GET", None
        raise AssertionError(f"redirected too often: {trail}")

    async def submit(self, page: Page, action: str, **fields: str) -> Page:
        """Send the form of a page whose action ends with `action`."""
        form = next(form for form in page.forms if form.action.endswith(action))
        return await self.open(
            urljoin(page.url, form.action or page.url),
            method=form.method.upper(),
            data={**form.fields, **fields},
        )

    async def sign_in(self, url: str, email: str, password: str) -> Page:
        """Open a URL of the gate and go through Tailchat's login and consent pages."""
        page = await self.open(url)
        if page.status == HTTPStatus.UNAUTHORIZED and "Refresh" in page.headers:
            # What a proxy hands on of the gate's answer: a page that goes on by itself.
            page = await self.open(urljoin(url, page.headers["Refresh"].partition("url=")[2]))
        page = await self.submit(page, "/login", email=email, password=password)
        return await self.submit(page, "/confirm")
