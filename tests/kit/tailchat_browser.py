"""A browser and an app's server for the tests that log in at a Tailchat, stand-in or real."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from accounts import user_named
from visitor import Page, Visitor

from tailchat_gate.demo.store import App
from tailchat_gate.demo.users import User

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
MAX_PAGES: Final = 6
#: Where the forms of the login page and of the consent page are sent.
_STEP: Final = re.compile("/open/interaction/[^/]+/(?:login|confirm)$")


@dataclass(frozen=True, slots=True)
class Ended:
    """How an authorization request ended: the pages in between, the last answer, what came back."""

    pages: tuple[str, ...]
    answer: Page
    callback: Mapping[str, str]

    @property
    def code(self) -> str:
        """The code; KeyError where none came."""
        return self.callback["code"]


class Browser(Visitor):
    """A browser at one Tailchat, and what the server of an app asks that Tailchat."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    async def send(
        self,
        method: str,
        target: str,
        **options: Any,  # noqa: ANN401 - as aiohttp takes them
    ) -> Page:
        """Send one request and follow nothing; `target` is a path or a URL."""
        url = urljoin(self.url, target)
        if not {"data", "json"} & set(options):
            # Without a body aiohttp would name the type of one, which the provider refuses.
            options["skip_auto_headers"] = ("Content-Type",)
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            body = (await response.read()).decode()
            return Page(response.status, url, body, response.headers, [url])

    async def start(self, **changes: str | None) -> Page:
        """Send an authorization request; a change to None leaves a parameter out."""
        return await self.send("GET", authorization_path(**changes))

    async def authorize(self, user: User | None = None, /, **changes: str | None) -> Ended:
        """Go through the pages as `user` until the redirect_uri, or an answer without redirect."""
        user = user or user_named("hoshino")
        target = changes.get("redirect_uri") or REDIRECT
        pages: list[str] = []
        url, data = urljoin(self.url, authorization_path(**changes)), None
        for _ in range(MAX_PAGES):
            page = await self.open(
                url, method="POST" if pages else "GET", data=data, headers={}, stop_before=target
            )
            if page.location.startswith(target):
                return Ended(tuple(pages), page, callback(page.location))
            form = next((form for form in page.forms if _STEP.search(form.action)), None)
            if form is None:
                return Ended(tuple(pages), page, {})
            is_login = form.action.endswith("/login")
            pages.append("login" if is_login else "consent")
            url = urljoin(page.url, form.action)
            data = {"email": user.email, "password": user.password} if is_login else {}
        raise AssertionError("too many pages")

    async def token(self, app: App = APP, /, **changes: str | None) -> Page:
        """POST /open/token with the form of a code; a change to None leaves a field out."""
        form = {
            "grant_type": "authorization_code",
            "redirect_uri": REDIRECT,
            "client_id": app.client_id,
            "client_secret": app.client_secret,
        }
        return await self.send("POST", "/open/token", data=changed(form, changes))

    async def refresh(self, refresh_token: str, **changes: str | None) -> Page:
        """POST /open/token with the form of a refresh token."""
        return await self.token(
            grant_type="refresh_token",
            refresh_token=refresh_token,
            redirect_uri=None,
            **changes,
        )

    async def me(self, access_token: str) -> Page:
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
