"""Service workers of tools: none may see the steps of a sign-in, others work."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from accounts import user_named
from aiohttp import web
from gatekit import Clock, RawUpstream, RunningGate, ask, request_bytes, running_gate
from parts import in_browser
from playwright.async_api import Browser, BrowserContext, Page
from storykit import log_in, registered, served
from visitor import NAVIGATION, Visitor

from tailchat_gate.access.browser_origin import WorkerScopes

HOSHINO = user_named("hoshino")
#: Takes the steps of a sign-in and tells their addresses; passes on what it is asked to.
TAKER = """
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
    const url = new URL(event.request.url);
    if (/^.oauth2.(callback|arrive)$/.test(url.pathname) && !url.search.includes("refused")) {
        event.respondWith(new Response("taken " + event.request.url));
    } else if (url.pathname.startsWith("/oauth2/")) {
        event.respondWith(fetch(event.request));
    } else if (url.pathname.endsWith("/asked")) {
        event.respondWith(new Response("the worker answers"));
    }
});
"""
#: Registers a worker; tells its scope, or why there is none.
REGISTER = """async ([script, scope]) => {
    try {
        const made = await navigator.serviceWorker.register(script, scope ? {scope} : {});
        const worker = made.installing || made.waiting || made.active;
        if (worker.state !== "activated") {
            await new Promise((done) => worker.addEventListener(
                "statechange", () => ["activated", "redundant"].includes(worker.state) && done(),
            ));
        }
        return worker.state + " " + new URL(made.scope).pathname;
    } catch (error) {
        return String(error);
    }
}"""


@dataclass
class HostileTool:
    """A tool whose pages would take sign-ins; `asked` are the paths that reached it."""

    allowed: str = ""
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer any request."""
        self.asked.append(request.path)
        if request.path.endswith(".js"):
            fields = {"Service-Worker-Allowed": self.allowed} if self.allowed else {}
            return web.Response(text=TAKER, content_type="text/javascript", headers=fields)
        return web.Response(text=f"<h1>the tool at {request.path}</h1>", content_type="text/html")

    def app(self) -> web.Application:
        """Return it as an application."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        return app


@dataclass
class Stage:
    """The gate and what is around it; `tool_url` is the tool's own host."""

    tool: HostileTool
    tool_app_port: int
    url: str
    tool_url: str
    settings: Any
    log_file: Path
    clock: Clock

    @asynccontextmanager
    async def gate(self) -> AsyncIterator[RunningGate]:
        """Serve the gate until the block ends."""
        async with running_gate(self.settings, self.log_file, self.clock) as found:
            yield found


@pytest_asyncio.fixture(loop_scope="session")
async def stage(tmp_path: Path, clock: Clock) -> AsyncIterator[Stage]:
    """Set up a tool on the gate's own host and one on a host beside it, as https would have it.

    Browsers take names below localhost for a secure context, where workers may run.
    """
    tool = HostileTool()
    async with registered("gate.site.localhost", clock) as at, served(tool.app()) as tool_port:
        wiki = f"http://wiki.site.localhost:{at.port}"
        settings = at.settings(
            f"http://127.0.0.1:{tool_port}",
            route=[{"name": "tool"}, {"name": "wiki", "host": "wiki.site.localhost"}],
        )
        yield Stage(tool, at.port, at.url, wiki, settings, tmp_path / "access.log", clock)


async def _sign_in(context: BrowserContext, url: str) -> Page:
    tab = await context.new_page()
    await tab.goto(url)
    await log_in(tab)
    await tab.wait_for_url(url)
    return tab


async def _attackers_login(stage: Stage, host_url: str) -> str:
    """Return the address that begins an attacker's own sign-in, for a victim to be sent to."""
    async with Visitor() as attacker:
        begun = await attacker.open(f"{host_url}/oauth2/start?rd=/loot", follow=False)
        return begun.headers["Location"]


@pytest.mark.parametrize("own_host", [True, False], ids=["gate's host", "tool's host"])
@in_browser
async def test_a_tool_cannot_take_a_sign_in_by_a_worker(
    browser: Browser, stage: Stage, own_host: bool
) -> None:
    """A victim who is sent through an attacker's sign-in goes on as who they are."""
    url = stage.tool_url if own_host else stage.url
    async with stage.gate():
        tab = await _sign_in(await browser.new_context(), f"{url}/page")

        registered = await tab.evaluate(REGISTER, ["/sw.js", ""])
        await tab.goto(await _attackers_login(stage, url))

        assert "evaluation failed" in registered
        assert "/sw.js" not in stage.tool.asked
        assert "taken" not in await tab.content()
        assert (tab.url, "the tool at /loot" in await tab.content()) == (f"{url}/loot", True)


@in_browser
async def test_a_worker_from_before_is_ended(browser: Browser, stage: Stage) -> None:
    """One that was registered without the gate takes no further sign-in once the gate was asked."""
    context = await browser.new_context()
    tab = await context.new_page()
    async with served(stage.tool.app(), stage.tool_app_port):
        await tab.goto(f"{stage.url}/page")
        assert await tab.evaluate(REGISTER, ["/sw.js", ""]) == "activated /"
        await tab.goto(f"{stage.url}/oauth2/callback?code=c")
        assert "taken" in await tab.content()
    # A browser that takes its time reads the script a second time.
    before = stage.tool.asked.count("/sw.js")
    async with stage.gate():
        # A browser does so by itself, with a page that it opens or when the worker comes to rest.
        looks = "navigator.serviceWorker.getRegistration().then((one) => one.update())"
        assert "evaluation" in await tab.evaluate(looks + ".catch(String)")
        # The browser takes the worker out a moment after its script has failed.
        gone = "navigator.serviceWorker.getRegistrations().then((found) => !found.length)"
        await tab.wait_for_function(f"() => {gone}")
        await tab.goto(f"{stage.url}/oauth2/callback?code=c")
        assert "login-state-missing" in await tab.content()
    assert stage.tool.asked.count("/sw.js") == before >= 1


@in_browser
async def test_a_worker_of_a_directory_works(browser: Browser, stage: Stage) -> None:
    """A worker below a directory of the tool answers there; a wider scope is not to be had."""
    stage.tool.allowed = "/"
    async with stage.gate():
        tab = await _sign_in(await browser.new_context(), f"{stage.url}/app/page")

        wide = await tab.evaluate(REGISTER, ["/app/static/sw.js", "/"])
        narrow = await tab.evaluate(REGISTER, ["/app/sw.js", ""])
        await tab.goto(f"{stage.url}/app/asked")

        assert "SecurityError" in wide
        assert narrow == "activated /app/"
        assert await tab.inner_text("body") == "the worker answers"


@in_browser
async def test_a_worker_may_get_a_harmless_wider_scope(browser: Browser, stage: Stage) -> None:
    """A directory above that of its script is allowed where the gate has no paths."""
    stage.tool.allowed = "/app/"
    async with stage.gate():
        tab = await _sign_in(await browser.new_context(), f"{stage.url}/app/page")

        wide = await tab.evaluate(REGISTER, ["/app/static/sw.js", "/app/"])

        assert wide == "activated /app/"


@pytest.mark.parametrize(
    ("prefix", "path", "refused"),
    [
        ("/oauth2", "/sw.js", True),
        ("/oauth2", "/", True),
        ("/oauth2", "//sw.js", False),
        ("/oauth2", "/app/sw.js", False),
        ("/oauth2", "/oauth2x/sw.js", False),
        ("/a/gate", "/sw.js", True),
        ("/a/gate", "/a/sw.js", True),
        ("/a/gate", "/a/b/sw.js", False),
        ("/a/gate", "/A/sw.js", False),
    ],
)
async def test_scripts_of_workers_by_their_directory(
    start_gate: Callable[..., Any], upstream: RawUpstream, prefix: str, path: str, refused: bool
) -> None:
    """What covers the gate's own paths is never asked of the tool, signed in or not."""
    gate = await start_gate(upstream.url, server={"prefix": prefix})
    for fields in ({"Service-Worker": "script"}, {"Sec-Fetch-Dest": "serviceworker"}):
        upstream.requests.clear()
        nobody = await ask(gate.port, request_bytes(path, **fields))
        alice = await ask(gate.port, request_bytes(path, Cookie=gate.cookie(), **fields))

        assert nobody.status == (200 if refused else 401)
        assert (b"unregister()" in alice.body) is refused
        assert bool(upstream.requests) is not refused
    if refused:
        assert alice.value("Content-Type").startswith("text/javascript")
        assert (await gate.log())[-1]["reason"] == "worker-refused"


@pytest.mark.parametrize(
    ("scope", "kept"),
    [
        *(("/app/", True), ("/app", True), ("/oauth2x/", True), ("/o/", True), ("/Oauth2/", True)),
        *(("/", False), ("/o", False), ("/oauth2", False), ("/oauth2/", False)),
        *(("/oauth2/arrive", False), ("", False), ("app/", False), ("./", False), ("../", False)),
        *(("/app/../", False), ("/app/%2e%2e/", False), ("/app/..", False), ("//x/", False)),
        *(("\\", False), ("/app\\..\\..\\", False), ("http://gate.test/", False)),
        *(("/\t", False), ("/app/\t../", False), ("?", False), ("#", False), ("/app/./x", False)),
    ],
)
async def test_scopes_that_a_reply_allows(
    gate: RunningGate, upstream: RawUpstream, scope: str, kept: bool
) -> None:
    """Service-Worker-Allowed passes only where it surely leaves the gate's paths out."""
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nsErvice-Worker-Allowed: %b\r\nContent-Length: 2\r\n\r\nok"
        % scope.encode()
    )
    fields = {"Service-Worker": "script", "Cookie": gate.cookie()}

    response = await ask(gate.port, request_bytes("/app/sw.js", **fields))

    assert (response.status, response.body) == (200, b"ok")
    assert response.values("Service-Worker-Allowed") == ([scope] if kept else [])


def test_no_scope_that_is_allowed_covers_a_step_of_the_sign_in() -> None:
    """Whatever is allowed is no beginning of an address of the gate's, by the browser's rule."""
    scopes = WorkerScopes("/a/oauth2")
    steps = [f"/a/oauth2/{step}?x" for step in ("start", "callback", "arrive")]
    pieces = ["", "a", "/", "oauth", "oauth2", ".", "..", "b"]
    for tried in {f"/{one}{two}{three}" for one in pieces for two in pieces for three in pieces}:
        if scopes.may_allow(tried.encode()):
            assert not any(step.startswith(tried) for step in steps), tried
    assert scopes.may_allow(b"/a/b/")


async def test_a_proxy_that_asks_is_told_too(start_gate: Callable[..., Any]) -> None:
    """At /oauth2/auth the script of a worker over the gate's paths is 403, others are judged."""
    gate = await start_gate(server={"trusted_proxies": ["127.0.0.1"]})
    asked = {"Service-Worker": "script", "Cookie": gate.cookie()}

    wide = await ask(gate.port, request_bytes("/oauth2/auth", X_Forwarded_Uri="/sw.js", **asked))
    own = await ask(gate.port, request_bytes("/oauth2/auth", X_Forwarded_Uri="/a/sw.js", **asked))

    assert (wide.status, wide.json["error"]) == (403, "worker-refused")
    assert own.status == 202


@pytest.mark.parametrize("path", ["callback?code=c&state=s&iss=i", "arrive?pass=p", "start"])
@pytest.mark.parametrize(
    "fields",
    [
        {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Dest": "object", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Dest": "worker", "Sec-Fetch-Mode": "same-origin"},
        {**NAVIGATION, "Sec-Purpose": "prefetch"},
        {**NAVIGATION, "Sec-Purpose": "prefetch;prerender"},
        {**NAVIGATION, "Purpose": "prefetch"},
        {**NAVIGATION, "X-Moz": "prefetch"},
    ],
)
async def test_steps_of_a_sign_in_are_for_tabs(
    gate: RunningGate, path: str, fields: dict[str, str]
) -> None:
    """A script, a worker, a frame or a look ahead gets no step of a sign-in, and no cookie."""
    sent = {"Accept": "*/*", **fields} | {"Accept": "*/*"}

    response = await ask(gate.port, request_bytes(f"/oauth2/{path}", **sent))

    assert response.values("Set-Cookie") == []
    assert response.value("Location") == ""
    assert (response.status, response.json["error"]) in {
        (403, "login-not-a-page"),
        (401, "not-signed-in"),
    }


async def test_a_step_that_a_worker_passes_on_is_refused_at_another_address(
    gate: RunningGate,
) -> None:
    """The page of the refusal is not shown at the address with the code."""
    fields = {"Accept": "text/html", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "navigate"}

    moved = await ask(gate.port, request_bytes("/oauth2/callback?code=c&state=s", **fields))
    page = await ask(gate.port, request_bytes(moved.value("Location"), **fields))

    assert (moved.status, moved.value("Location")[:25]) == (303, "/oauth2/callback?refused=")
    assert (page.status, b"login-not-a-page" in page.body) == (403, True)


async def test_clients_that_do_not_say_what_for_sign_in(gate: RunningGate) -> None:
    """Without Sec-Fetch fields a step is taken, as by a browser that has none."""
    response = await ask(gate.port, request_bytes("/oauth2/start", Accept="text/html"))

    assert (response.status, response.value("Location")[:24]) == (302, "http://127.0.0.1:9/open/")


async def test_a_tool_cannot_have_errors_of_the_host_reported(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """NEL and Report-To, by which a browser would tell a tool addresses of the host, end here."""
    upstream.answer = (
        b'HTTP/1.1 200 OK\r\nnel: {"report_to":"x","max_age":9,"success_fraction":1}\r\n'
        b"Report-To: {}\r\nContent-Length: 2\r\n\r\nok"
    )

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))

    assert (response.values("NEL"), response.values("Report-To")) == ([], [])
