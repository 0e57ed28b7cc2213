"""A browser and an app's server for the tests that log in at a Tailchat, stand-in or real."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import aiohttp

from tailchat_gate.demo.store import App
from tailchat_gate.demo.users import User, user_named

REDIRECT: Final = "http://127.0.0.1:18080/cb"
APP: Final = App(
    "tc_649aa2179e97b8b3b2d10041",
    "the-secret-of-the-app",
    (REDIRECT, "http://gate.lan/cb?x=1", "http://gate.lan"),
    "Gate",
)
OTHER_APP: Final = App("tc_649aa2179e97b8b3b2d10042", "another-secret", (REDIRECT,), "Other")
VERIFIER: Final = "v" * 43
CHALLENGE: Final = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)
MAX_STEPS: Final = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; `cookies` are the Set-Cookie lines."""

    status: int
    headers: Mapping[str, str]
    text: str
    cookies: tuple[str, ...]
    json: Any = None

    @property
    def location(self) -> str:
        """The Location field, "" without one."""
        return self.headers.get("Location", "")


@dataclass(frozen=True, slots=True)
class Ended:
    """How an authorization request ended: the pages in between, the last answer, what came back."""

    pages: tuple[str, ...]
    answer: Answer
    callback: Mapping[str, str]

    @property
    def code(self) -> str:
        """The code; KeyError where none came."""
        return self.callback["code"]


class Browser:
    """Follows redirects, keeps cookies by path, and fills in Tailchat's two forms."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Self:
        """Return the browser, its cookies empty."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        await self.session.close()

    async def send(
        self,
        method: str,
        target: str,
        **options: Any,  # noqa: ANN401 - as aiohttp takes them
    ) -> Answer:
        """Send one request and follow nothing; `target` is a path or a URL."""
        url = urljoin(self.url, target)
        if not {"data", "json"} & set(options):
            # Without a body aiohttp would name the type of one, which the provider refuses.
            options["skip_auto_headers"] = ("Content-Type",)
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            is_json = "json" in response.headers.get("Content-Type", "")
            body = await response.read()
            return Answer(
                response.status,
                response.headers.copy(),
                body.decode(),
                tuple(response.headers.getall("Set-Cookie", ())),
                await response.json(content_type=None) if is_json and body else None,
            )

    async def start(self, **changes: str | None) -> Answer:
        """Send an authorization request; a change to None leaves a parameter out."""
        return await self.send("GET", authorization_path(**changes))

    async def authorize(self, user: User | None = None, /, **changes: str | None) -> Ended:
        """Go through the pages as `user` until the redirect_uri, or an answer without redirect."""
        user = user or user_named("hoshino")
        answer = await self.start(**changes)
        pages: list[str] = []
        target = changes.get("redirect_uri") or REDIRECT
        for _ in range(MAX_STEPS):
            if answer.location.startswith(target):
                return Ended(tuple(pages), answer, callback(answer.location))
            if answer.location:
                answer = await self.send("GET", answer.location)
                continue
            found = re.search(r'action="(/open/interaction/[^"]+/(login|confirm))"', answer.text)
            if found is None:
                return Ended(tuple(pages), answer, {})
            page = {"login": "login", "confirm": "consent"}[found[2]]
            pages.append(page)
            form = {"email": user.email, "password": user.password} if page == "login" else {}
            answer = await self.send("POST", unescape(found[1]), data=form)
        raise AssertionError("too many redirects")

    async def token(self, app: App = APP, /, **changes: str | None) -> Answer:
        """POST /open/token with the form of a code; a change to None leaves a field out."""
        form = {
            "grant_type": "authorization_code",
            "redirect_uri": REDIRECT,
            "client_id": app.client_id,
            "client_secret": app.client_secret,
        }
        return await self.send("POST", "/open/token", data=changed(form, changes))

    async def refresh(self, refresh_token: str, **changes: str | None) -> Answer:
        """POST /open/token with the form of a refresh token."""
        return await self.token(
            grant_type="refresh_token",
            refresh_token=refresh_token,
            redirect_uri=None,
            **changes,
        )

    async def me(self, access_token: str) -> Answer:
        """GET /open/me."""
        return await self.send(
            "GET", "/open/me", headers={"Authorization": f"Bearer {access_token}"}
        )


def authorization_path(**changes: str | None) -> str:
    """Return the path and query of an authorization request."""
    params = {
        "client_id": APP.client_id,
        "redirect_uri": REDIRECT,
        "response_type": "code",
        "scope": "openid profile",
        "state": "af0ifjsldkj",
    }
    return f"/open/auth?{urlencode(changed(params, changes))}"


def changed(form: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return `form` with the changes; None takes a field out."""
    merged = {**form, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def callback(location: str) -> dict[str, str]:
    """Return the parameters of a callback, from its query or its fragment."""
    parts = urlsplit(location)
    return dict(parse_qsl(parts.fragment or parts.query, keep_blank_values=True))
