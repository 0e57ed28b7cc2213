"""A whole setting for a login: a Tailchat, a recording tool and the gate between them."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

from accounts import user_named
from aiohttp import web
from gatekit import (
    Clock,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    make_settings,
    request_bytes,
    running_gate,
)
from playwright.async_api import Page
from process import free_port
from visitor import NAVIGATION, Visitor

from tailchat_gate.config.model import Settings
from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat

CLIENT_ID = "tc_649aa2179e97b8b3b2d10041"
CLIENT_SECRET = "the-secret-of-the-app"
HOSHINO = user_named("hoshino")


@asynccontextmanager
async def served(
    app: web.Application, port: int = 0, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve an application on loopback until the block ends; yields the port."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class RegisteredGate:
    """Where a gate is to listen that is registered at a stand-in Tailchat."""

    tailchat: StandInTailchat
    port: int
    url: str
    api_url: str

    def settings(
        self,
        upstream: str,
        *,
        tailchat: Mapping[str, str] = MappingProxyType({}),
        **sections: Any,  # noqa: ANN401 - as in gatekit.make_settings
    ) -> Settings:
        """Return settings of such a gate before an upstream."""
        return make_settings(
            upstream,
            server={"public_url": self.url, "listen": [f"127.0.0.1:{self.port}"]},
            tailchat={
                "api_url": self.api_url,
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                **tailchat,
            },
            **sections,
        )


@asynccontextmanager
async def registered(
    host: str, clock: Clock, *, tailchat_host: str = "localhost"
) -> AsyncIterator[RegisteredGate]:
    """Serve a Tailchat for a gate at a host name, which the test starts itself."""
    port, tailchat_port = free_port(), free_port()
    url, api_url = f"http://{host}:{port}", f"http://{tailchat_host}:{tailchat_port}"
    app = App(CLIENT_ID, CLIENT_SECRET, (f"{url}/oauth2/callback",))
    tailchat = StandInTailchat(api_url, apps=[app], clock=clock)
    async with served(tailchat.app(), tailchat_port):
        yield RegisteredGate(tailchat, port, url, api_url)


async def log_in(tab: Page) -> None:
    """Go through Tailchat's login and consent pages in a tab of a real browser."""
    await tab.locator("input[name=email]").first.fill(HOSHINO.email)
    await tab.locator("input[name=password]").first.fill(HOSHINO.password)
    await tab.locator("input[name=password]").first.press("Enter")
    await tab.get_by_role("button", name="授权").click()


@dataclass
class Story:
    """The setting of a test: gate.url is where visitors go."""

    gate: RunningGate
    tool: RawUpstream
    tailchat: StandInTailchat
    clock: Clock
    url: str
    stop_tailchat: Callable[[], Awaitable[None]]

    def visitor(self) -> Visitor:
        """Return a fresh browser."""
        return Visitor()


@asynccontextmanager
async def story(
    log_file: Path,
    clock: Clock,
    *,
    issuer: str = "",
    callback: str = "",
    secret: str = "",
    checks_sign_in: bool = False,
    **sections: Any,  # noqa: ANN401 - as in gatekit.make_settings
) -> AsyncIterator[Story]:
    """Set the scene: the stand-in Tailchat, the tool, the gate before it.

    `callback` is the address registered at Tailchat, where the gate's own is another; `secret` is
    the key of Tailchat's tokens, where it matters.
    """
    port, tailchat_port = free_port(), free_port()
    # Another name than the gate's, because cookies ignore ports.
    api_url = f"http://localhost:{tailchat_port}"
    url = f"http://127.0.0.1:{port}"
    app = App(CLIENT_ID, CLIENT_SECRET, (callback or f"{url}/oauth2/callback",))
    tailchat = StandInTailchat(issuer or api_url, apps=[app], clock=clock)
    tailchat.store.secret = secret or tailchat.store.secret
    server = {"public_url": url, "listen": [f"127.0.0.1:{port}"], **sections.pop("server", {})}
    given = {
        "api_url": api_url,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "people_refresh": "30s",
        **sections.pop("tailchat", {}),
    }
    async with AsyncExitStack() as stand_in, RawUpstream() as tool:
        await stand_in.enter_async_context(served(tailchat.app(), tailchat_port))
        settings = make_settings(tool.url, server=server, tailchat=given, **sections)
        async with running_gate(settings, log_file, clock, checks_sign_in=checks_sign_in) as gate:
            yield Story(gate, tool, tailchat, clock, url, stand_in.aclose)


class Place(Protocol):
    """A gate that visitors go to."""

    @property
    def url(self) -> str:
        """Where it is."""


async def until_callback(visitor: Visitor, scene: Place, path: str = "/") -> str:
    """Go through Tailchat's pages and return the callback URL without opening it."""
    page = await visitor.open(scene.url + path)
    page = await visitor.submit(page, "/login", email=HOSHINO.email, password=HOSHINO.password)
    form = next(form for form in page.forms if form.action.endswith("/confirm"))
    done = await visitor.open(
        urlsplit(page.url)._replace(path=urlsplit(form.action).path, query="").geturl(),
        method="POST",
        data=form.fields,
        stop_before=f"{scene.url}/oauth2/callback",
    )
    return done.url


async def callback_at(gate: RunningGate, url: str, cookies: str) -> Response:
    """Open a callback at a gate, whichever address it listens on."""
    parts = urlsplit(url)
    fields = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
    target = f"{parts.path}?{parts.query}"
    return await ask(gate.port, request_bytes(target, host=parts.netloc, Cookie=cookies, **fields))


def gate_app(port: int) -> dict[str, object]:
    """Return the registration of a gate at a port, with the id and secret of every test's gate."""
    return {
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "name": "Tailchat Gate",
        "redirect_uris": [f"http://127.0.0.1:{port}/oauth2/callback"],
    }
