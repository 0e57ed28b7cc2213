"""A page of one tool cannot have its visitor's browser change something at another."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from gatekit import ALICE, RawUpstream, RunningGate, ask, make_settings, request_bytes, running_gate
from parts import in_browser
from playwright.async_api import Browser, Page
from process import free_port
from storykit import served

from tailchat_gate.identity.machine_tokens import hash_of, make_token

SITE = "site.localhost"
#: What a form or a call from a page elsewhere looks like, with Sec-Fetch fields and without.
ELSEWHERE = [
    {"Sec-Fetch-Site": "same-site", "Origin": "http://evil.site.test"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "null"},
    {"Sec-Fetch-Site": "something-new"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://gate.test"},
    {"Origin": "http://evil.test"},
    {"Origin": "https://gate.test"},
    {"Origin": "http://gate.test:81"},
    {"Origin": "http://gate.test.evil.test"},
    {"Origin": "null"},
    {"Origin": ""},
]
#: What a tool's own pages send, a program, and who reloads a form.
OWN = [
    {},
    {"Origin": "http://gate.test"},
    {"Origin": "http://GATE.test:80"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://gate.test"},
    # A form of a page with `Referrer-Policy: no-referrer`.
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
    # Behind a proxy that does not tell the port.
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://gate.test:8443"},
    {"Sec-Fetch-Site": "none"},
]


def _post(fields: dict[str, str], method: str = "POST", target: str = "/act") -> bytes:
    sent = {"Content-Length": "0", **fields} if method not in {"GET", "HEAD"} else fields
    return request_bytes(target, method=method, **sent)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "post"])
@pytest.mark.parametrize("fields", ELSEWHERE)
async def test_a_page_elsewhere_changes_nothing(
    gate: RunningGate, upstream: RawUpstream, fields: dict[str, str], method: str
) -> None:
    """A request that can change something never reaches the tool with the visitor's cookie."""
    response = await ask(gate.port, _post({"Cookie": gate.cookie(), **fields}, method))

    assert (response.status, response.json["error"]) == (403, "cross-origin")
    assert response.json.get("origin", "") == fields.get("Origin", "")
    assert upstream.requests == []
    assert (await gate.log())[-1]["reason"] == "cross-origin"


@pytest.mark.parametrize("fields", OWN)
async def test_a_tools_own_pages_and_programs_pass(
    gate: RunningGate, upstream: RawUpstream, fields: dict[str, str]
) -> None:
    """The same request from a page of the tool itself, or from no page, is passed on."""
    response = await ask(gate.port, _post({"Cookie": gate.cookie(), **fields}))

    assert response.status == 200
    assert upstream.requests[0].value("X-Tailchat-Sub") == ALICE.sub.encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_links_and_pictures_of_pages_elsewhere_pass(
    gate: RunningGate, upstream: RawUpstream, method: str
) -> None:
    """What is not meant to change anything is judged by no origin."""
    for fields in ELSEWHERE:
        sent = request_bytes("/x", method=method, Cookie=gate.cookie(), **fields)
        assert (await ask(gate.port, sent, to_head=method == "HEAD")).status == 200
    assert len(upstream.requests) == len(ELSEWHERE)


@pytest.mark.parametrize(
    ("target", "claim"),
    [
        ("/x?_method=DELETE", {}),
        ("/x?a=1&_Method=put", {}),
        ("/x", {"X-HTTP-Method-Override": "PATCH"}),
        ("/x", {"X-Method-Override": "GET, POST"}),
    ],
)
async def test_a_claimed_method_counts(
    gate: RunningGate, upstream: RawUpstream, target: str, claim: dict[str, str]
) -> None:
    """A link that a tool may take for a DELETE is judged as one."""
    fields = {"Cookie": gate.cookie(), "Sec-Fetch-Site": "cross-site", **claim}

    response = await ask(gate.port, request_bytes(target, **fields))
    own = await ask(gate.port, request_bytes(target, **{**fields, "Sec-Fetch-Site": "same-origin"}))

    assert (response.status, response.json["error"]) == (403, "cross-origin")
    assert (own.status, len(upstream.requests)) == (200, 1)


async def test_only_what_a_browser_sends_by_itself_is_judged(
    start_gate: Callable[..., Any], upstream: RawUpstream
) -> None:
    """Nobody on a public route, and a machine, have no cookie that a page could use."""
    text = make_token(bytes(32))
    gate = await start_gate(
        upstream.url,
        token=[{"name": "ci", "hash": hash_of(text)}],
        route=[
            {"name": "public", "path": "/public", "allow": ["public"]},
            {"name": "tool", "allow": ["signed-in", "token:ci"]},
        ],
    )
    evil = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}

    hook = await ask(gate.port, _post(evil, target="/public/hook"))
    machine = await ask(gate.port, _post({**evil, "Authorization": f"Bearer {text}"}))
    person = await ask(gate.port, _post({**evil, "Cookie": gate.cookie()}, target="/public/hook"))
    stranger = await ask(gate.port, _post(evil))

    assert (hook.status, machine.status) == (200, 200)
    assert (person.status, person.json["error"]) == (403, "cross-origin")
    assert (stranger.status, stranger.json["error"]) == (401, "not-signed-in")


async def test_origins_that_a_route_names_pass(
    start_gate: Callable[..., Any], upstream: RawUpstream
) -> None:
    """A page of an origin in `origins` may act, with and without Sec-Fetch fields; no other."""
    named = ["https://app.test", "null", "capacitor://localhost"]
    gate = await start_gate(upstream.url, route=[{"name": "tool", "origins": named}])
    for site in ({}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}):
        for origin in (*named, "https://APP.test:443"):
            sent = {"Cookie": gate.cookie(), "Origin": origin, **site}
            assert (await ask(gate.port, _post(sent))).status == 200, sent
        for origin in ("http://app.test", "https://app.test:444", "capacitor://local"):
            sent = {"Cookie": gate.cookie(), "Origin": origin, **site}
            assert (await ask(gate.port, _post(sent))).status == 403, sent
        twice = _post({"Cookie": gate.cookie(), "Origin": "null", "origin": "null", **site})
        assert (await ask(gate.port, twice)).status == 403


async def test_the_scheme_is_what_a_trusted_proxy_says(
    start_gate: Callable[..., Any], upstream: RawUpstream
) -> None:
    """Behind a proxy that ends TLS a page by https is the tool's own, one by http is not."""
    gate = await start_gate(upstream.url, server={"trusted_proxies": ["127.0.0.1"]})
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x" * 24}
    for origin, status in (("https://gate.test", 200), ("http://gate.test", 403)):
        fields = {"Cookie": gate.cookie(), "X-Forwarded-Proto": "https", "Origin": origin}

        form = await ask(gate.port, _post(fields))
        socket = await ask(gate.port, request_bytes("/ws", **fields, **upgrade))

        assert (form.status, socket.status) == (status, status)
    assert socket.json["error"] == "origin-refused"


async def test_a_proxy_that_leaves_out_the_port(start_gate: Callable[..., Any]) -> None:
    """A tool's own form passes where the Host has no port and public_url has; no other port."""
    gate = await start_gate(
        server={"public_url": "http://gate.test:8080"},
        route=[{"name": "tool", "upstream": "static:204"}, {"name": "a", "host": "a.test"}],
    )
    for host, origin, refused in (
        ("gate.test", "http://gate.test:8080", False),
        ("gate.test", "http://gate.test", False),
        ("gate.test", "http://gate.test:8081", True),
        ("gate.test", "https://gate.test:8080", True),
        ("gate.test", "http://a.test:8080", True),
        ("other.test", "http://gate.test:8080", True),
    ):
        fields = {"Cookie": gate.cookie(), "Origin": origin, "Content-Length": "0"}
        response = await ask(gate.port, request_bytes("/", method="POST", host=host, **fields))
        assert (b"cross-origin" in response.body) is refused, (host, origin)


@pytest.mark.parametrize(
    ("asked", "fields", "status"),
    [
        ({"X-Forwarded-Method": "POST"}, {"Origin": "http://evil.test"}, 403),
        ({"X-Forwarded-Method": "POST"}, {"Sec-Fetch-Site": "same-site"}, 403),
        ({"X-Forwarded-Method": "POST"}, {"Origin": "https://tool.test"}, 202),
        ({"X-Forwarded-Method": "POST"}, {"Origin": "http://tool.test"}, 403),
        ({"X-Forwarded-Method": "POST"}, {}, 202),
        ({"X-Forwarded-Method": "GET"}, {"Sec-Fetch-Site": "cross-site"}, 202),
        # A proxy that does not tell the method: browsers send Origin with all but GET and HEAD.
        ({}, {"Sec-Fetch-Site": "same-site", "Origin": "https://evil.test"}, 403),
        ({}, {"Sec-Fetch-Site": "cross-site"}, 202),
    ],
)
async def test_a_proxy_that_asks_hears_the_same(
    start_gate: Callable[..., Any], asked: dict[str, str], fields: dict[str, str], status: int
) -> None:
    """At /oauth2/auth the Origin and Sec-Fetch-Site of the original request are judged."""
    gate = await start_gate(
        server={"trusted_proxies": ["127.0.0.1"]}, route=[{"name": "tool", "host": "tool.test"}]
    )
    original = {
        "X-Forwarded-Uri": "/act",
        "X-Forwarded-Host": "tool.test",
        "X-Forwarded-Proto": "https",
        "Cookie": gate.cookie_for("tool.test"),
    }

    response = await ask(gate.port, request_bytes("/oauth2/auth", **original, **asked, **fields))

    assert response.status == status
    if status == 403:
        assert response.json["error"] == "cross-origin"


async def test_a_person_reads_who_sent_the_form(gate: RunningGate) -> None:
    """The page says where the form came from and leads to the tool."""
    fields = {"Cookie": gate.cookie(), "Origin": "http://evil.test", "Accept": "text/html"}

    response = await ask(gate.port, _post(fields))

    assert (response.status, response.value("Content-Type")) == (403, "text/html; charset=utf-8")
    assert b"http://evil.test" in response.body
    assert b'href="http://gate.test/"' in response.body


@dataclass
class Tool:
    """A tool that keeps what it is sent, and serves any page that a query asks for."""

    got: list[tuple[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Keep a POST; serve a page with the policy and the form that the query names."""
        if request.method != "GET":
            self.got.append((request.host.partition(":")[0], request.headers["X-Tailchat-Sub"]))
            return web.Response(text="<h1>done</h1>", content_type="text/html")
        action = request.query.get("to", "/act")
        policy = request.query.get("policy", "")
        page = f'<form method="post" action="{action}"><button>Go</button></form>'
        fields = {"Referrer-Policy": policy} if policy else {}
        return web.Response(text=page, content_type="text/html", headers=fields)


@dataclass
class Site:
    """Two tools on two hosts of one site."""

    gate: RunningGate
    tool: Tool
    one: str
    two: str


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Any, clock: Any) -> AsyncIterator[Site]:  # noqa: ANN401 - fixtures
    """Serve both, with Sec-Fetch fields as over https: names below localhost are trustworthy."""
    port = free_port()
    tool = Tool()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", tool.answer)
    async with AsyncExitStack() as stack:
        tool_port = await stack.enter_async_context(served(app))
        settings = make_settings(
            f"http://127.0.0.1:{tool_port}",
            server={
                "public_url": f"http://gate.{SITE}:{port}",
                "listen": [f"127.0.0.1:{port}"],
            },
            route=[{"name": name, "host": f"{name}.{SITE}"} for name in ("one", "two")],
        )
        gate = await stack.enter_async_context(
            running_gate(settings, tmp_path / "access.log", clock)
        )
        yield Site(gate, tool, f"http://one.{SITE}:{port}", f"http://two.{SITE}:{port}")


async def _signed_in(browser: Browser, site: Site) -> Page:
    context = await browser.new_context()
    for url in (site.one, site.two):
        host = url.removeprefix("http://").partition(":")[0]
        name, _, value = site.gate.cookie_for(host).partition("=")
        await context.add_cookies(
            [{"name": name, "value": value, "url": url, "httpOnly": True, "sameSite": "Lax"}]
        )
    return await context.new_page()


@pytest.mark.parametrize("policy", ["", "no-referrer", "same-origin", "origin"])
@in_browser
async def test_forms_in_a_browser(browser: Browser, site: Site, policy: str) -> None:
    """A form to the tool's own host arrives under any referrer policy, one to a sibling never."""
    tab = await _signed_in(browser, site)

    await tab.goto(f"{site.one}/?policy={policy}")
    await tab.get_by_role("button").click()
    await tab.get_by_role("heading", name="done").wait_for()
    await tab.goto(f"{site.one}/?policy={policy}&to={site.two}/act")
    await tab.get_by_role("button").click()
    await tab.get_by_text("Another page sent this request").first.wait_for()

    assert site.tool.got == [(f"one.{SITE}", ALICE.sub)]


@in_browser
async def test_calls_in_a_browser(browser: Browser, site: Site) -> None:
    """A simple POST by fetch goes to the tool's own host and not to a sibling's."""
    tab = await _signed_in(browser, site)
    await tab.goto(f"{site.one}/")
    send = """(url) => fetch(url, {method: "POST", body: "a", credentials: "include",
        mode: "no-cors"}).then((reply) => reply.type, String)"""

    await tab.evaluate(send, f"{site.one}/act")
    await tab.evaluate(send, f"{site.two}/act")

    assert site.tool.got == [(f"one.{SITE}", ALICE.sub)]
    reasons = [line["reason"] for line in await site.gate.log() if line["method"] == "POST"]
    assert reasons == ["signed-in", "cross-origin"]
