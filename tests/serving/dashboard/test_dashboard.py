"""The admin page: who sees it, what it shows, and what it hides."""

import asyncio
import logging
import re
import tomllib
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from configkit import problems
from dashboardkit import (
    BOB,
    DASH,
    HEADER_SECRET,
    ROUTES,
    SECTIONS,
    WIKI,
    Desk,
    at_listener,
    at_route,
    explain_url,
    status_at_wiki,
)
from gatekit import (
    ALICE,
    SECRET,
    SUB,
    Clock,
    RawClient,
    RawUpstream,
    RunningGate,
    ask,
    make_settings,
    request_bytes,
    until,
)
from reloadkit import file_gate, file_text, sections
from storykit import story
from wirekit import reset

from tailchat_gate.config.lint.settings import lint
from tailchat_gate.identity.grants import Grant
from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.pages.admin_page import PAGES, headers, render
from tailchat_gate.pages.filters import csp_source
from tailchat_gate.people.slices import at_once
from tailchat_gate.reasons import Reason
from tailchat_gate.serving.dashboard.drawn import DrawnPage
from tailchat_gate.serving.dashboard.events import MOST_STREAMS
from tailchat_gate.serving.dashboard.facts import Sampler, overview

Start = Callable[..., Any]
ADDRESSES = ("/", "/people", "/configuration", "/checks", explain_url(f"http://{WIKI}/x"))
OPS = ["group:ops"]
TOKEN = make_token(bytes(32))


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a tool, the admin page on a route, and the admin listener."""
    found = await start_gate(
        upstream.url,
        server={"admin_listen": "127.0.0.1:0", "admin_orders": True},
        token=[{"name": "probe", "hash": hash_of(TOKEN)}],
        **{
            **SECTIONS,
            "route": [
                ROUTES[0],
                {**ROUTES[1], "allow": ["group:ops", "token:probe"]},
            ],
        },
    )
    assert isinstance(found, RunningGate)
    return found


@pytest.mark.parametrize("where", [at_listener, at_route])
async def test_every_page_is_whole_and_keeps_secrets(
    gate: RunningGate, where: Callable[[RunningGate], Desk]
) -> None:
    """In both languages, with a policy that lets nothing in, and without a secret."""
    await status_at_wiki(gate, ALICE)
    for address in ADDRESSES:
        for language, tag in (("en", "en"), ("zh-CN", "zh-Hans")):
            page = await where(gate).open(address, Accept_Language=language)
            assert page.status == 200, address
            policy = page.value("Content-Security-Policy")
            assert policy.startswith("default-src 'none'; style-src 'sha256-")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert page.value("Content-Language") == tag
            assert page.value("Cache-Control") == "no-store"
            text = page.body.decode()
            for secret in (SECRET, "app-secret-of-the-test", HEADER_SECRET, hash_of(TOKEN)):
                assert secret not in text, address


async def test_a_foreign_name_gets_no_page_and_gives_no_order(gate: RunningGate) -> None:
    """421 for every path of the page and for its orders: DNS rebinding reads and does nothing."""
    desk = at_listener(gate)
    token = await desk.token()
    foreign = Desk(desk.port, "evil.example")
    for path in (*ADDRESSES, "/events"):
        assert (await foreign.open(path)).status == 421
    form = {"order": "lock", "target": "all", "csrf": token, "page": "people"}
    assert (await foreign.send(form)).status == 421
    assert gate.generation.process_state.revocation.locks == ()


async def test_the_route_is_judged_as_any_other(gate: RunningGate) -> None:
    """Nobody is sent to the sign-in, the wrong person is refused, a machine may only look."""
    nobody = await ask(gate.port, request_bytes("/people", host=DASH))
    assert nobody.status == 401
    assert (await at_route(gate, ALICE).open("/people")).status == 403
    assert (await at_route(gate).open("/people")).status == 200
    assert (await at_route(gate).open("/nothing")).status == 404
    assert (await at_route(gate).open("/overview")).status == 404
    machine = request_bytes("/people", host=DASH, Authorization=f"Bearer {TOKEN}")
    page = await ask(gate.port, machine)
    assert page.status == 200
    assert b'name="order"' not in page.body
    forward = request_bytes(
        "/oauth2/auth", X_Forwarded_Host=DASH, X_Forwarded_Uri="/orders", X_Forwarded_Method="POST"
    )
    assert (await ask(gate.port, forward)).status == 403


async def test_a_grant_never_opens_the_page(gate: RunningGate) -> None:
    """Who may give rights is the configuration's to say alone."""
    now = int(gate.clock())
    state = gate.generation.process_state
    await state.grants.put(Grant(SUB, "dash", now, now + 60))
    await state.grants.put(Grant(SUB, "wiki", now, now + 60))
    assert await status_at_wiki(gate, ALICE) == 200
    assert (await at_route(gate, ALICE).open("/")).status == 403


async def test_the_first_page_has_figures_tools_and_sign_ins(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Requests, failures, times and the tool's state, drawn by the server."""
    for _ in range(3):
        await status_at_wiki(gate, BOB)
    upstream.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    await status_at_wiki(gate, BOB)
    gate.generation.process_state.metrics.login("login-refused")
    text = await at_listener(gate).text("/")
    row = text[text.index("<bdi>wiki</bdi>") :]
    assert row.index(">up<") < row.index("25 %") < row.index("ms</td>") < row.index("<polyline")
    assert "wiki: 4 requests in ten minutes" in row
    assert "4 requests, 1 of them failed" in re.sub(r"</?bdi>", "", text)
    assert "login-refused" in text


async def test_results_of_sign_ins_are_told_in_words(gate: RunningGate) -> None:
    """The code stands beside them, as metrics have it."""
    for result in (Reason.SIGNED_IN, Reason.SESSION_TOO_LARGE):
        gate.generation.process_state.metrics.login(result)
    text = await at_listener(gate).text()
    assert 'signed in <code class="quiet">signed-in</code>' in text
    assert 'too large to store <code class="quiet">session-too-large</code>' in text


async def test_only_what_is_set_can_be_shown(gate: RunningGate) -> None:
    """The page of all values is long."""
    every = await at_listener(gate).text("/configuration")
    some = await at_listener(gate).text("/configuration?values=set")
    for page, shown in ((every, True), (some, False)):
        assert ("<code>server.prefix</code>" in page) is shown
        assert "<code>server.public_url</code>" in page
    assert 'href="/configuration?values=set#settings"' in every


async def test_streams_are_shown_by_themselves(gate: RunningGate, upstream: RawUpstream) -> None:
    """One that is open is counted as such, and at its end its time is no time of a request."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n"
    upstream.answer = head + b"Content-Length: 9\r\n\r\ndata: a\n"
    cookie = gate.cookie_for(WIKI, BOB)
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/x", host=WIKI, Cookie=cookie))
        await client.reader.readuntil(b"data: a\n")
        row = await _row(gate, "wiki")
        assert '<td role="cell" data-label="Open streams" class="number">1</td>' in row
        reset(client.writer)
    counts = gate.generation.process_state.metrics.route("wiki")
    await until(lambda: sum(counts.streams.counts) == 1)
    row = await _row(gate, "wiki")
    assert '<td role="cell" data-label="Open streams" class="number">0</td>' in row
    assert "wiki: 1 request in ten minutes" in row
    assert '<td role="cell" data-label="p99" class="number">\N{EN DASH}</td>' in row


async def _row(gate: RunningGate, route: str) -> str:
    text = await at_listener(gate).text("/")
    row = text[text.index(f"<bdi>{route}</bdi>") :]
    return row[: row.index("</tr>")]


async def test_the_page_has_the_brand(start_gate: Start, tmp_path: Path) -> None:
    """Name, logo and colours of the organisation, which the policy of the page allows."""
    logo = tmp_path / "logo.gif"
    logo.write_bytes(bytes.fromhex("47494638396101000100000000002c00000000010001000002003b"))
    brand = {"title": "Example Ltd", "logo": str(logo), "accent": "#8a1c4a"}
    gate = await start_gate(pages=brand, server={"admin_listen": "127.0.0.1:0"})
    page = await at_listener(gate).open("/")
    text = page.body.decode()
    assert "<bdi>Example Ltd</bdi>" in text
    assert text.count("data:image/gif;base64,R0lGODlh") == 2
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    assert "--link: #8a1c4a" in style
    assert csp_source(style) in page.value("Content-Security-Policy")


async def test_what_needs_attention_is_on_the_first_page(tmp_path: Path, clock: Clock) -> None:
    """Whom signed-in lets in, addresses that nobody verified, a public key, a broken sign-in."""
    route = [{"name": "home"}, {"name": "mail", "path": "/mail", "allow": OPS, "email": True}]
    async with story(
        tmp_path / "log",
        clock,
        server={"admin_listen": "127.0.0.1:0"},
        groups={"ops": [BOB.sub]},
        route=route,
        callback="http://elsewhere.example/oauth2/callback",
        secret="tailchat",
        checks_sign_in=True,
    ) as scene:
        state = scene.gate.generation.process_state
        told, watch, sign_in = (
            state.tailchat.told_of_registration,
            state.tailchat.group_watch,
            state.tailchat.sign_in,
        )
        await until(lambda: bool(told and watch.key_is_public and sign_in.findings))
        text = await at_listener(scene.gate).text("/")
        for notice in (
            "home: everybody who reaches Tailchat may enter, by registering there",
            "mail: Tailchat does not verify e-mail addresses",
            "Tailchat signs with a key that everybody knows",
            "Sign-in: ",
        ):
            assert notice in text[text.index('id="notices"') :], notice


async def test_what_needs_attention_is_said_in_the_readers_language(
    start_gate: Start, clock: Clock
) -> None:
    """What ends soon is named in words of the page."""
    ends = datetime.fromtimestamp(clock() + 86_400, UTC)
    token = {"name": "backup", "hash": hash_of(make_token(b"x" * 32)), "expires": ends}
    gate = await start_gate(token=[token], server={"admin_listen": "127.0.0.1:0"})
    text = await at_listener(gate).text("/", Accept_Language="de")
    assert "<li>Läuft bald ab: Token <bdi>backup</bdi></li>" in text
    text = await at_listener(gate).text("/configuration", Accept_Language="ja")
    assert "トークン <bdi>backup</bdi>" in text


async def test_a_refusal_has_the_line_that_lets_the_person_in(
    gate: RunningGate, start_gate: Start, upstream: RawUpstream
) -> None:
    """The line for `allow`, put into the file, does; so does the command's grant."""
    assert await status_at_wiki(gate, ALICE) == 403
    text = await at_listener(gate).text("/people")
    assert f"tailchat-gate grant sub:{SUB} wiki --for 8h" in text
    line = re.search(r"allow = \[.*?\]", text)
    assert line is not None
    allow = tomllib.loads(line[0])["allow"]
    assert allow == ["group:ops", f"sub:{SUB}"]
    changed = [{**ROUTES[0], "allow": allow}]
    other = await start_gate(upstream.url, **{**SECTIONS, "route": changed})
    assert await status_at_wiki(other, ALICE) == 200


@pytest.mark.parametrize(
    ("tables", "wanted"),
    [
        ({"access": {"deny": [f"sub:{SUB}"]}}, "deny = []"),
        ({"groups": {"ops": [SUB], "out": [SUB, BOB.sub]}, "access": {"deny": ["group:out"]}},
         f'out = ["{BOB.sub}"]'),
    ],
)  # fmt: skip
async def test_a_deny_list_has_the_line_without_the_person(
    start_gate: Start, upstream: RawUpstream, tables: dict[str, Any], wanted: str
) -> None:
    """That of the list itself, or that of the group in it."""
    server = {"admin_listen": "127.0.0.1:0"}
    route = [{"name": "wiki", "host": WIKI}]
    gate = await start_gate(upstream.url, server=server, route=route, **tables)
    assert await status_at_wiki(gate, ALICE) == 403
    assert wanted in await at_listener(gate).text("/people")


async def test_the_explain_box_says_verdict_and_why(gate: RunningGate) -> None:
    """Who is refused, by which rule, and what would let them in; what the reader refuses, too."""
    desk = at_listener(gate)
    text = await desk.text(explain_url(f"http://{WIKI}/x"))
    for part in ("is refused", "wiki: allow group:ops", "refused: denied, 403", "lets in:"):
        assert part in text
    text = await desk.text(explain_url(f"http://{WIKI}/x", f"sub:{BOB.sub}"))
    assert "The request passes." in text
    assert "let through: signed-in" in text
    assert HEADER_SECRET not in text
    page = await desk.open(explain_url(f"http://{WIKI}/%00<b>", ""))
    assert page.status == 200
    assert b"is refused" in page.body
    assert b"<b>" not in page.body


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_elsewhere_holds_no_stream(gate: RunningGate, site: str) -> None:
    """A picture of that address would, as long as its page is open; there are few streams."""
    for desk in (at_listener(gate), at_route(gate)):
        assert (await desk.open("/events", Sec_Fetch_Site=site)).status == 403


async def test_events_tell_of_changes_and_are_few(gate: RunningGate) -> None:
    """A change is told to an open page; the stream after the last one allowed gets 503."""
    desk = at_listener(gate)
    page = gate.server._page
    assert page is not None
    request = request_bytes("/events", host=desk.host)
    async with RawClient.connect(desk.port) as client:
        client.send(request)
        assert b"text/event-stream" in await client.head()
        await client.reader.readuntil(b"retry: 5000\n\n")
        now = int(gate.clock())
        await gate.generation.process_state.grants.put(Grant(SUB, "wiki", now, now + 60))
        await client.reader.readuntil(b"event: changed\ndata: 1\n\n")
        async with AsyncExitStack() as stack:
            for status in (*[b"200"] * (MOST_STREAMS - 1), b"503"):
                other = await stack.enter_async_context(RawClient.connect(desk.port))
                other.send(request)
                assert (await other.head()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.both_loops
async def test_an_open_page_never_holds_up_a_stop(gate: RunningGate) -> None:
    """Streams on the listener and on the route end when the gate is told to stop, not later."""
    listener, route = at_listener(gate), at_route(gate)
    async with RawClient.connect(listener.port) as one, RawClient.connect(route.port) as other:
        one.send(request_bytes("/events", host=listener.host))
        other.send(request_bytes("/events", host=DASH, Cookie=route.cookie))
        for client in (one, other):
            await client.reader.readuntil(b"retry: 5000\n\n")
        stopping = asyncio.create_task(gate.server.stop())
        try:
            for client in (one, other):
                # Far less than the time that a stop gives requests under way.
                async with asyncio.timeout(60):
                    rest = await client.reader.read()
                assert rest.endswith(b"0\r\n\r\n")
        finally:
            await stopping


async def test_a_page_that_was_closed_is_no_error(
    gate: RunningGate, caplog: pytest.LogCaptureFixture
) -> None:
    """What is sent to a browser that has left ends its stream, and the log stays quiet."""
    page, listener, route = gate.server._page, at_listener(gate), at_route(gate)
    assert page is not None
    caplog.set_level(logging.WARNING)
    async with RawClient.connect(listener.port) as one, RawClient.connect(route.port) as other:
        one.send(request_bytes("/events", host=listener.host))
        other.send(request_bytes("/events", host=DASH, Cookie=route.cookie))
        for client in (one, other):
            await client.reader.readuntil(b"retry: 5000\n\n")

    def send_to_all() -> int:
        for changed in page.events._streams:
            changed.set()
        return len(page.events)

    await until(lambda: not send_to_all())
    await gate.server.stop()
    assert [record.getMessage() for record in caplog.records] == []


async def test_a_stream_ends_with_its_session(gate: RunningGate) -> None:
    """A lock ends the stream of the page on its route."""
    desk = at_route(gate)
    async with RawClient.connect(desk.port) as client:
        client.send(request_bytes("/events", host=DASH, Cookie=desk.cookie))
        await client.reader.readuntil(b"retry: 5000\n\n")
        assert await at_listener(gate).order("lock", target=f"sub:{BOB.sub}") == "locked-forever"
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.reader.readuntil(b"never")


async def test_the_file_its_problems_and_where_values_are_from(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """The button reloads; a refused file has its problems there, and the old values stay."""
    environ = {"TAILCHAT_GATE_PAGES__CONTACT": "ops@example.com"}
    async with file_gate(tmp_path, upstream.url, environ=environ) as found:
        desk = at_listener(found.gate)
        assert await desk.order("reload") == "reloaded"
        text = await desk.text("/configuration")
        for key, value, source in (
            ("pages.contact", '"ops@example.com"', "TAILCHAT_GATE_PAGES__CONTACT"),
            ("session.secrets", "[(hidden)]", "session.secrets"),
            ("server.prefix", '"/oauth2"', "default"),
            ("state.path", '""', "file"),
        ):
            row = text[text.index(f"<code>{key}</code>") :].split("</tr>")[0]
            assert (f"<code>{value}</code>" in row, f">{source}</td>" in row) == (True, True), row
        await found.write(route=[{"name": "tool", "path": "nowhere"}])
        said, text = await desk.ordered("reload", page="configuration")
        assert said == "refused"
        assert "The file was refused" in text
        assert "route[0].path" in text
        assert "data-code" not in await desk.text("/configuration?said=reloaded")


async def test_commands_on_the_page_name_the_file_of_the_gate(
    tmp_path: Path, upstream: RawUpstream
) -> None:
    """A gate that does not read the usual file shows commands that work as they stand."""
    orders = {"admin_listen": "127.0.0.1:0", "admin_orders": True}
    async with file_gate(tmp_path, upstream.url, server=orders, **SECTIONS) as found:
        desk = at_listener(found.gate)
        assert await status_at_wiki(found.gate, ALICE) == 403
        grant = f"tailchat-gate grant --config {found.path} sub:{SUB} wiki --for 8h"
        assert grant in await desk.text("/people")
        assert grant in await desk.text(explain_url(f"http://{WIKI}/x"))
        said, text = await desk.ordered("lock", target="all")
        assert said == "confirm-all-forever"
        assert f"tailchat-gate unlock --config {found.path} all" in text


async def test_doctor_runs_on_demand(
    tmp_path: Path, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The findings of the gate's own command, whatever lies where the gate was started."""
    planted = tmp_path / "started" / "tailchat_gate"
    planted.mkdir(parents=True)
    (planted / "__init__.py").touch()
    (planted / "__main__.py").write_text("""print('{"checks": []}')""", encoding="utf-8")
    monkeypatch.chdir(planted.parent)
    async with file_gate(tmp_path, upstream.url) as found:
        desk, page = at_listener(found.gate), found.gate.server._page
        assert page is not None
        drawn = page._renderer
        assert isinstance(drawn, DrawnPage)
        assert await desk.order("doctor", page="checks") == "started"
        assert "The checks are running" in await desk.text("/checks")
        await until(lambda: drawn._doctor.at > 0, within=100)
        text = await desk.text("/checks")
        assert "<code>secret-files</code>" in text
        assert re.search('<span class="(good|bad)">(ok|wrong): [0-9]+</span>', text)


@pytest.mark.parametrize(
    ("route", "others", "key", "expected"),
    [
        ({"allow": ["public"]}, [], "route[1].allow[0]", "admin page"),
        ({"host": None}, [], "route[1].host", "one whole host name"),
        ({"host": "*.test"}, [], "route[1].host", "one whole host name"),
        ({"outlive": True}, [], "route[1].outlive", "left out"),
        ({}, [{"name": "x", "host": DASH, "path": "/x"}], "route[2].host", "only route[1] has"),
        ({}, [{"name": "x", "path": "/x"}], "route[2].path", "only route[1] has"),
        ({}, [{"name": "x", "host": "*.test", "path": "/x"}], "route[2].path", "only route[1]"),
        ({"path": "/gate"}, [{"name": "x", "host": "*.test"}], "route[2].path", "only route[1]"),
        ({"origins": ["https://x.example"]}, [], "route[1].origins", "without a tool"),
    ],
)
def test_a_page_that_others_could_use_is_an_error(
    tmp_path: Path, route: dict[str, Any], others: list[dict[str, Any]], key: str, expected: str
) -> None:
    """Public, on a host with a tool, or open longer than its session: `check` refuses it."""
    own = {name: one for name, one in {**ROUTES[1], **route}.items() if one is not None}
    file = tmp_path / "config.toml"
    tables = sections(
        "http://127.0.0.1:9",
        groups=SECTIONS["groups"],
        route=[{"name": "wiki", "host": WIKI}, own, *others],
    )
    file.write_text(file_text(tables), "utf-8")
    found = problems(file, {})
    assert any(one.key_path == key and expected in one.expected for one in found), found


def test_a_host_of_its_own_is_enough() -> None:
    """Also below a wildcard, beside routes that the gate answers itself; signed-in is warned of."""
    settings = make_settings(
        route=[
            {"name": "tools", "host": "*.test"},
            {"name": "dash", "host": DASH, "upstream": "admin:"},
            {"name": "health", "host": DASH, "path": "/health", "upstream": "static:204"},
        ]
    )
    assert any("everybody with an account can use the admin page" in one for one in lint(settings))


@pytest.mark.parametrize("where", [at_listener, at_route])
async def test_the_language_can_be_chosen(
    gate: RunningGate, where: Callable[[RunningGate], Desk]
) -> None:
    """The switch leads back to the page, and its cookie counts for more than the browser's list."""
    desk = where(gate)
    page = await desk.open("/checks?url=http://gate.test/&method=GET")
    (link,) = re.findall(r'<a href="([^"]+)" lang="ru"', page.body.decode())
    answer = await ask(desk.port, request_bytes(unescape(link), host=desk.host))
    chosen = answer.value("Set-Cookie").partition(";")[0]
    assert chosen == "tailchat_gate_language=ru"
    assert answer.value("Location") == "/checks?url=http://gate.test/&method=GET"

    cookie = "; ".join(filter(None, (desk.cookie, chosen)))
    page = await replace(desk, cookie=cookie).open("/people", Accept_Language="en")
    assert page.value("Content-Language") == "ru"


async def test_a_long_page_is_made_in_steps(start_gate: Start) -> None:
    """At least one a row, so that a thousand routes hold nobody else up."""
    route = [{"name": f"r{number}", "host": f"r{number}.test"} for number in range(120)]
    gate = await start_gate(route=route, server={"admin_listen": "127.0.0.1:0"})
    desk = at_listener(gate)
    assert (await desk.text("/")).count('<tr role="row">') == 50 + 1
    assert (await desk.text("/?routes=all")).count('<tr role="row">') == 120 + 1
    processes = gate.server.this_process
    sampler = Sampler(processes.figures, tuple)
    values, steps = _counted(overview(processes.settings, {}, {}, sampler, every=True))
    assert steps > 120
    shared = {
        "page": "overview",
        "base": "",
        "who": "",
        "said": {},
        "switch": "",
        "here": "",
        "waiting": 0,
        "approvals": "",
        "notices": [],
    }
    text, steps = _counted(render("overview", "en", {**shared, **values}))
    assert text.count("</tr>") == 120 + 1
    assert steps > 240


def _counted(work: Generator[None, None, Any]) -> tuple[Any, int]:
    """Return what a generator returns, and in how many steps."""
    steps = 0
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value, steps
        steps += 1


HOSTILE = "<script>\u202e" + "W" * 3000


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_hostile_words_stay_text(gate: RunningGate, language: str) -> None:
    """Names, paths and reasons of strangers are escaped, cut, and turn no words round."""
    values = {
        "base": "", "who": HOSTILE, "sub": "", "csrf": "c", "orders": True, "approves": True,
        "approvers_unknown": False,
        "harmless": True, "fresh_url": "", "page": "people",
        "said": {"code": "confirm", "who": HOSTILE, "text": HOSTILE},
        "grantable": [{"name": "wiki", "title": HOSTILE}], "switch": "/language",
        "here": "/people?" + HOSTILE,
        "requests": [{"id": "k", "sub": HOSTILE, "nickname": HOSTILE, "discriminator": HOSTILE,
                      "tool": HOSTILE, "title": HOSTILE, "reason": HOSTILE, "at": 1.0}],
        "refusals": {"shown": [{"who": HOSTILE, "nickname": HOSTILE, "discriminator": HOSTILE,
                                "route": "wiki", "title": HOSTILE, "is_let_in": False,
                                "where": HOSTILE, "reason": "denied", "count": 1,
                                "last": 1.0, "remedies": [{"table": "", "line": HOSTILE}]}],
                     "total": 1},
        "locks": [{"target": HOSTILE, "until": None, "message": HOSTILE, "at": 1}],
        "grants": [{"sub": HOSTILE, "route": "wiki", "title": HOSTILE, "until": 1.0,
                    "by": HOSTILE, "reason": HOSTILE}],
        "live": {"shown": [{"who": HOSTILE, "id": "r", "nickname": HOSTILE, "route": "wiki",
                            "title": HOSTILE, "path": HOSTILE, "client": "::1",
                            "seconds": 1.0}], "total": 1},
        "called": {"sub:" + HOSTILE: HOSTILE},
        "people": [{"value": "sub:x", "name": HOSTILE}], "machines": [HOSTILE],
        "typed": {"lock": dict.fromkeys(("target", "for", "message"), HOSTILE),
                  "grant": dict.fromkeys(("sub", "route", "for", "reason"), HOSTILE)},
        "wrong": {"order": "lock", "field": "target",
                  "said": {"code": "not-asked", "text": HOSTILE, "why": HOSTILE}},
    }  # fmt: skip
    text = at_once(render("people", language, values))
    assert "<script>W" not in text
    assert "\u202e" not in text
    assert text.count("<script>") == 1
    assert set(PAGES) == {"overview", "people", "configuration", "checks"}
    assert headers(language)["X-Frame-Options"] == "DENY"
