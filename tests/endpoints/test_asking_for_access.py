"""A refused person asks for a tool; another decides on a page of the gate; the first is in."""

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from accounts import user_named
from clikit import invoke
from gatekit import Clock, until
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, expect
from playwright.async_api import Page as Tab
from storykit import CLIENT_ID, Story, story
from visitor import FETCH, Page, Visitor
from yarl import URL

from tailchat_gate.demo.groups import Group
from tailchat_gate.demo.users import User
from tailchat_gate.endpoints.access import CHOICES, FRESH_SECONDS, Decided
from tailchat_gate.identity.access_requests import (
    MOST,
    MOST_OF_ONE,
    MOST_OF_ROUTE,
    REST_SECONDS,
    SAFE_SECONDS,
    WAIT_SECONDS,
    AccessRequest,
    AccessRequests,
    TooManyRequestsError,
)
from tailchat_gate.identity.grants import Grants
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME
from tailchat_gate.state.bookkeeping import FaultKind, Health
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.sqlite.store import SqliteStore
from tailchat_gate.state.store import Changes

HOSHINO, BOB, EVE = user_named("hoshino"), user_named("bob"), user_named("eve")
APPROVALS = "/oauth2/approvals"
GROUP, PANEL = "6a" + 11 * "01", "6b" + 11 * "02"


def _sections(**access: Any) -> dict[str, Any]:  # noqa: ANN401 - values of a table
    return {
        "groups": {"ops": [BOB.sub]},
        "access": {"requests": True, "approvers": ["group:ops"], **access},
        "route": [
            {"name": "wiki", "title": "Team notes", "path": "/wiki", "allow": ["group:ops"]},
            {
                "name": "mail",
                "path": "/mail",
                "allow": ["group:ops"],
                "deny": [f"sub:{HOSHINO.sub}"],
            },
            {"name": "never", "path": "/never", "allow": ["group:ops"], "grants": False},
            {"name": "home"},
        ],
    }


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the usual setting with a wiki for Bob's group, and a panel of a Tailchat group."""
    sections = _sections(panel=f"{GROUP}/{PANEL}")
    async with story(tmp_path / "access.log", clock, **sections) as found:
        group = Group(GROUP, "Ops", BOB.sub, {BOB.sub: []}, panels={PANEL: "general"})
        found.tailchat.groups.by_id[GROUP] = group
        found.tailchat.groups.add_bot(group, CLIENT_ID)
        yield found


async def _sign_in(visitor: Visitor, scene: Story, user: User, path: str = "/") -> Page:
    return await visitor.sign_in(scene.url + path, user.email, user.password)


async def _ask(visitor: Visitor, scene: Story, reason: str = "on call") -> Page:
    page = await visitor.open(scene.url + "/wiki/page?a=1")
    assert page.status == 403
    return await visitor.submit(page, "/request", reason=reason)


async def _decide(visitor: Visitor, scene: Story, choice: str) -> Page:
    page = await visitor.open(scene.url + "/oauth2/approvals")
    return await visitor.submit(page, "/approvals", **{"for": choice})


async def test_a_refusal_that_can_be_asked_about_says_one_thing(scene: Story) -> None:
    """To ask is its one primary button, before everything else; to send one's ID is none of it."""
    async with scene.visitor() as mine:
        await _sign_in(mine, scene, HOSHINO)
        page = await mine.open(scene.url + "/wiki/page")
    assert page.text.count('class="button"') == 1
    assert page.text.index("Ask for access") < page.text.index(HOSHINO.sub)
    assert "send your Tailchat user ID" not in page.text


async def test_a_refused_person_asks_and_is_let_in(scene: Story) -> None:
    """The page that waits leads to the address asked for; the grant ends after its time."""
    async with scene.visitor() as mine, scene.visitor() as bobs:
        await _sign_in(mine, scene, HOSHINO)
        await _sign_in(bobs, scene, BOB, APPROVALS)
        waiting = await _ask(mine, scene)
        assert (waiting.status, "You asked for access" in waiting.text) == (200, True)
        listed = await bobs.open(scene.url + "/oauth2/approvals")
        assert HOSHINO.sub in listed.text
        assert "on call" in listed.text

        done = await _decide(bobs, scene, "8h")
        assert "There is no request." in done.text
        page = await mine.open(waiting.url)
        assert (page.status, page.text) == (200, "ok")
        assert page.url == scene.url + "/wiki/page?a=1"

        scene.clock.now += CHOICES["8h"]
        assert (await mine.open(scene.url + "/wiki")).status == 403


async def test_an_approver_is_led_to_requests_and_told_what_was_decided(scene: Story) -> None:
    """The launcher counts those that this person may decide; each decision says what it did."""
    process_state = scene.gate.generation.process_state
    launcher = scene.url + "/oauth2/"
    async with scene.visitor() as mine, scene.visitor() as bobs:
        await _sign_in(mine, scene, HOSHINO)
        await _sign_in(bobs, scene, BOB, APPROVALS)
        record = SessionRecord("s", BOB.sub, "Bob", "7", "", 0, 0, "l")
        await process_state.access_requests.ask(record, "wiki", "")
        assert "waiting" not in (await bobs.open(launcher)).text
        await _ask(mine, scene)
        front = await bobs.open(launcher)
        assert "<bdi>1</bdi> request for access is waiting." in front.text
        assert scene.url + APPROVALS in front.links
        assert APPROVALS not in (await mine.open(launcher)).text

        listed = await bobs.open(scene.url + APPROVALS)
        done = await bobs.submit(listed, "/approvals", **{"for": "8h"})
        said = _said(done)
        assert re.search("Done: .*Hoshino.*#0042 can use Team notes until 20.* UTC", said)
        assert launcher in done.links
        assert _said(await bobs.open(done.url)) == said
        assert _said(await mine.open(done.url)) == ""
        again = await bobs.submit(listed, "/approvals", **{"for": "8h"})
        assert "decided already" in _said(again)
        assert len(process_state.grants.state.in_force) == 1


async def test_a_decision_that_is_not_possible_or_not_stored_is_said(
    tmp_path: Path, clock: Clock
) -> None:
    """Nobody believes that somebody was let in, or declined for good, who was not."""
    state = {"path": str(tmp_path)}
    async with (
        story(tmp_path / "log", clock, state=state, **_sections()) as scene,
        scene.visitor() as bobs,
    ):
        process_state = scene.gate.generation.process_state
        await _sign_in(bobs, scene, BOB, APPROVALS)
        for route in ("wiki", "home"):
            await process_state.access_requests.ask(_account(1), route, "")
        listed = await bobs.open(scene.url + APPROVALS)
        keys = {one.route: one.key for one in process_state.access_requests.open}
        closed = await bobs.submit(listed, "/approvals", **{"for": "1h", "id": keys["home"]})
        assert "no longer allows access for a while" in _said(closed)
        process_state.health.report(FaultKind.REPLACED, "elsewhere")
        assert "could not be stored" in _said(await _decide(bobs, scene, "no"))
        process_state.health.clear(FaultKind.REPLACED)


def _said(page: Page) -> str:
    """Return what a page says of the form that was sent, "" for nothing."""
    found = re.search('id="said">(.*?)</p>', page.text, re.DOTALL)
    return re.sub("<[^>]+>", "", found[1]) if found else ""


async def test_every_page_shows_the_title_of_a_tool(scene: Story) -> None:
    """Who wants in reads no name of the configuration: refused, waiting, declined, let in."""
    async with scene.visitor() as mine, scene.visitor() as bobs:
        front = await mine.open(f"{scene.url}/oauth2/sign_in?rd=/wiki/page?a=1")
        assert "<h1>Sign in to Team notes</h1>" in front.text
        unnamed = await mine.open(f"{scene.url}/oauth2/sign_in?rd=/mail")
        assert "<h1>Sign in</h1>" in unnamed.text
        await _sign_in(mine, scene, HOSHINO)
        await _sign_in(bobs, scene, BOB, APPROVALS)
        pages = [await mine.open(scene.url + "/wiki"), await _ask(mine, scene)]
        pages.append(await bobs.open(scene.url + APPROVALS))
        await _decide(bobs, scene, "8h")
        pages += [await mine.open(scene.url + path) for path in ("/oauth2/userinfo", "/oauth2/")]
        call = await mine.open(scene.url + "/oauth2/userinfo", headers=FETCH)

    for page in pages:
        assert "<bdi>Team notes</bdi>" in re.sub(' class="tag"', "", page.text), page.url
        assert ">wiki<" not in page.text
    assert [grant["route"] for grant in call.json["grants"]] == ["wiki"]


async def test_a_declined_person_is_told_and_rests(scene: Story) -> None:
    """The page says so, and asking again is possible after an hour."""
    async with scene.visitor() as mine, scene.visitor() as bobs:
        await _sign_in(mine, scene, HOSHINO)
        await _sign_in(bobs, scene, BOB, APPROVALS)
        waiting = await _ask(mine, scene)
        await _decide(bobs, scene, "no")
        assert "Your request was declined" in (await mine.open(waiting.url)).text
        again = await _ask(mine, scene)
        assert (again.status, "was not sent" in again.text) == (429, True)
        scene.clock.now += REST_SECONDS
        assert "You asked for access" in (await _ask(mine, scene)).text


async def test_nobody_approves_their_own_request(scene: Story) -> None:
    """Not by the page, which has no button, and not by a form made by hand."""
    requests = scene.gate.generation.process_state.access_requests
    async with scene.visitor() as bobs:
        await _sign_in(bobs, scene, BOB, APPROVALS)
        record = SessionRecord("s", BOB.sub, "Bob", "7", "", 0, 0, "l")
        asked = await requests.ask(record, "wiki", "")
        page = await bobs.open(scene.url + "/oauth2/approvals")
        assert "This is your own request" in page.text
        assert page.forms == []

        data = {"id": asked.key, "for": "8h"}
        headers = {**FETCH, "Sec-Fetch-Site": "same-origin"}
        await bobs.open(scene.url + "/oauth2/approvals", method="POST", data=data, headers=headers)
        assert [one.state for one in requests.open] == ["open"]


async def test_only_approvers_see_and_decide(scene: Story) -> None:
    """Another person gets 403 and learns nothing of the requests."""
    requests = scene.gate.generation.process_state.access_requests
    async with scene.visitor() as mine, scene.visitor() as eves:
        await _sign_in(mine, scene, HOSHINO)
        await _ask(mine, scene)
        await _sign_in(eves, scene, EVE)
        page = await eves.open(scene.url + "/oauth2/approvals")
        assert (page.status, HOSHINO.sub in page.text) == (403, False)
        data = {"id": requests.open[0].key, "for": "8h"}
        headers = {**FETCH, "Sec-Fetch-Site": "same-origin"}
        page = await eves.open(
            scene.url + "/oauth2/approvals", method="POST", data=data, headers=headers
        )
        assert (page.status, len(requests.open)) == (403, 1)


async def test_a_sign_in_without_the_password_approves_nothing(scene: Story) -> None:
    """Tailchat's own session is enough for one; the address in the browser can lose its prompt."""
    async with scene.visitor() as bobs:
        await _sign_in(bobs, scene, BOB)
        first = await bobs.open(scene.url + APPROVALS)
        (link,) = (link for link in first.links if "prompt=login" in link)
        silent = await bobs.open(link.replace("&prompt=login", ""))
        asked = await bobs.open(link)
        done = await bobs.submit(asked, "/login", email=BOB.email, password=BOB.password)

    assert "Please sign in again" in first.text
    assert "Tailchat did not say when you last typed your password" in first.text
    assert "Please sign in again" in silent.text
    assert (done.url, "There is no request." in done.text) == (scene.url + APPROVALS, True)


async def test_a_program_gets_no_login_to_approve(scene: Story) -> None:
    """Only a page is led to the login, as everywhere."""
    async with scene.visitor() as nobody:
        answer = await nobody.open(scene.url + APPROVALS, headers={"Accept": "*/*"})

    assert answer.status == 401


async def test_an_old_sign_in_approves_nothing(scene: Story) -> None:
    """An approver signs in again, with the password, before the list is shown."""
    async with scene.visitor() as bobs:
        await _sign_in(bobs, scene, BOB, APPROVALS)
        scene.clock.now += FRESH_SECONDS
        page = await bobs.open(scene.url + "/oauth2/approvals")

    assert "Please sign in again" in page.text
    assert any("prompt=login" in link for link in page.links)


@asynccontextmanager
async def _copied_ticket(
    tmp_path: Path, clock: Clock, **limits: str
) -> AsyncIterator[tuple[Story, Visitor, Visitor]]:
    """Yield a scene, Bob in it, and a thief with a copy of his ticket."""
    stored: dict[str, Any] = {
        "session": {"store": True, **limits},
        "state": {"path": str(tmp_path)},
    }
    async with (
        story(tmp_path / "access.log", clock, **_sections(), **stored) as scene,
        scene.visitor() as bobs,
        scene.visitor() as thief,
    ):
        await _sign_in(bobs, scene, BOB)
        copied = {cookie.key: cookie.value for cookie in bobs.session.cookie_jar}
        thief.session.cookie_jar.update_cookies(copied, URL(scene.url))
        yield scene, bobs, thief


async def test_a_copied_ticket_stays_as_old_as_it_is(tmp_path: Path, clock: Clock) -> None:
    """The password that its owner gives later, in the same session, makes no copy fresh."""
    async with _copied_ticket(tmp_path, clock) as (scene, bobs, thief):
        asked = await bobs.open(f"{scene.url}/oauth2/start?rd={APPROVALS}&prompt=login")
        done = await bobs.submit(asked, "/login", email=BOB.email, password=BOB.password)
        (session,) = scene.gate.generation.process_state.stored_sessions.of(BOB.sub)
        page = await thief.open(scene.url + APPROVALS)
        tool = await thief.open(scene.url + "/wiki")

    assert "There is no request." in done.text
    assert (tool.status, session.sub) == (200, BOB.sub)
    assert "Please sign in again" in page.text


async def test_a_copied_ticket_ends_when_it_would_have_ended(tmp_path: Path, clock: Clock) -> None:
    """A later sign-in of its owner to the same session prolongs no copy, however it is renewed."""
    limits = {"lifetime": "2h", "idle": "1h"}
    async with _copied_ticket(tmp_path, clock, **limits) as (scene, bobs, thief):
        scene.clock.now += 1_800
        asked = await bobs.open(f"{scene.url}/oauth2/start?rd=/wiki&prompt=login")
        await bobs.submit(asked, "/login", email=BOB.email, password=BOB.password)
        came_to = []
        for _ in range(4):
            came_to.append([(await one.open(scene.url + "/wiki")).url for one in (bobs, thief)])
            scene.clock.now += 1_801

    there = scene.url + "/wiki"
    assert came_to[:3] == [[there, there]] * 3
    assert (came_to[3][0] == there, came_to[3][1] == there) == (True, False)


@pytest.mark.parametrize("page", ["request", "approvals"])
async def test_a_page_of_another_site_asks_and_decides_nothing(scene: Story, page: str) -> None:
    """Its form lacks the token of the gate's own, and the browser says where it comes from."""
    headers = {**FETCH, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example.com"}
    requests = scene.gate.generation.process_state.access_requests
    async with scene.visitor() as bobs:
        await _sign_in(bobs, scene, BOB, APPROVALS)
        record = SessionRecord("s", HOSHINO.sub, "H", "1", "", 0, 0, "l")
        asked = await requests.ask(record, "wiki", "")
        data = {"route": "never", "reason": "x", "id": asked.key, "for": "8h", "csrf": "forged"}
        answer = await bobs.open(
            f"{scene.url}/oauth2/{page}", method="POST", data=data, headers=headers
        )

    assert answer.status == 403
    assert [one.state for one in requests.open] == ["open"]


@pytest.mark.parametrize("path", ["/mail", "/never"])
async def test_what_nobody_can_be_granted_has_no_form(scene: Story, path: str) -> None:
    """A deny list and grants = false say no already; a form made by hand changes nothing."""
    async with scene.visitor() as mine:
        await _sign_in(mine, scene, HOSHINO)
        page = await mine.open(scene.url + path)
        assert (page.status, [form for form in page.forms if "request" in form.action]) == (403, [])
        headers = {**FETCH, "Sec-Fetch-Site": "same-origin"}
        data = {"route": path[1:], "reason": "please", "rd": "/"}
        answer = await mine.open(
            scene.url + "/oauth2/request", method="POST", data=data, headers=headers
        )

    assert answer.status in {403, 404}
    assert scene.gate.generation.process_state.access_requests.open == ()


async def test_the_bot_tells_the_panel_without_markup(scene: Story) -> None:
    """A nickname and a reason stay text: no link, mention or line of their own."""
    sub = HOSHINO.sub
    users = scene.tailchat.store.users
    name = "[at=66]Bob[/at]\n[url=https://evil.example.com]x"
    users[sub] = replace(users[sub], claims={**users[sub].claims, "nickname": name})
    async with scene.visitor() as mine:
        await _sign_in(mine, scene, HOSHINO)
        await _ask(mine, scene, "[b]now[/b]\nplease")
        await until(lambda: bool(scene.tailchat.messages.sent))

    (message,) = scene.tailchat.messages.sent
    assert (message["groupId"], message["converseId"]) == (GROUP, PANEL)
    text = str(message["content"])
    assert not set(text) & set("[]")
    who = "at=66Bob/aturl=https:/ evil.example.comx#0042"
    assert text.splitlines() == [
        f"{who} asks for access to Team notes: bnow/b please",
        f"{scene.url}/oauth2/approvals",
    ]


async def test_a_panel_that_is_not_there_is_said_once(
    scene: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """Tailchat would take the message and show it to nobody; the request counts all the same."""
    scene.tailchat.groups.by_id[GROUP].panels.clear()
    panel = scene.gate.generation.panel
    async with scene.visitor() as mine:
        await _sign_in(mine, scene, HOSHINO)
        await _ask(mine, scene)
        await until(lambda: bool(panel.problem))

    assert scene.tailchat.messages.sent == []
    assert [line for line in caplog.messages if "access.panel" in line] == [
        f"access.panel: the group {GROUP} has no panel {PANEL}"
    ]
    assert len(scene.gate.generation.process_state.access_requests.open) == 1


async def test_every_step_is_in_the_audit_log(
    scene: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asked, who decided, and the grant that follows."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER_NAME)
    async with scene.visitor() as mine, scene.visitor() as bobs:
        await _sign_in(mine, scene, HOSHINO)
        await _sign_in(bobs, scene, BOB, APPROVALS)
        await _ask(mine, scene)
        await _decide(bobs, scene, "1h")

    lines = [vars(record)["details"] for record in caplog.records if record.message == "audit"]
    steps = [
        (line["event"], line["sub"], line["by"])
        for line in lines
        if line["event"].startswith(("access-", "grant"))
    ]
    assert steps == [
        ("access-requested", HOSHINO.sub, ""),
        ("granted", HOSHINO.sub, BOB.sub),
        ("access-approved", HOSHINO.sub, BOB.sub),
    ]


async def test_what_a_reload_has_closed_is_not_approved(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the audit log nor the person is told of an approval that opens nothing."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER_NAME)
    async with story(tmp_path / "access.log", clock, **_sections()) as scene:
        requests = scene.gate.generation.process_state.access_requests
        record = SessionRecord("s", HOSHINO.sub, "H", "1", "", 0, 0, "l")
        # As one that was made before a reload with `grants = false`.
        asked = await requests.ask(record, "never", "")
        url, headers = scene.url + APPROVALS, {**FETCH, "Sec-Fetch-Site": "same-origin"}
        async with scene.visitor() as bobs:
            await _sign_in(bobs, scene, BOB, APPROVALS)
            for choice in ("8h", "no"):
                data = {"id": asked.key, "for": choice}
                await bobs.open(url, method="POST", data=data, headers=headers)
    lines = [vars(record)["details"] for record in caplog.records if record.message == "audit"]
    steps = [line["event"] for line in lines if line["event"].startswith(("access-", "grant"))]
    assert steps == ["access-requested", "access-declined"]


async def test_of_two_processes_one_decides(tmp_path: Path, clock: Clock) -> None:
    """Neither has heard of the other's answer: one counts, and the other approver is told."""
    stores = [SqliteStore(tmp_path, clock, Health()) for _ in range(3)]
    sides = [(AccessRequests(one, clock, os.urandom), Grants(one, clock)) for one in stores]
    try:
        await stores[0].open()
        await stores[1].open()
        asked = await sides[0][0].ask(_account(1), "wiki", "")
        decisions = Decided(asked, 3600, BOB.sub), Decided(asked, 0, EVE.sub)
        approved, declined = await asyncio.gather(
            *(one.carry_out(*side, clock()) for one, side in zip(decisions, sides, strict=False))
        )
        assert approved is not declined
        await stores[2].open()
        requests, grants = sides[2]
        found = requests.of(asked.sub, "wiki")
        assert found is not None
        assert found.state == ("approved" if approved else "declined")
        assert len(grants.state.in_force) == int(approved)
    finally:
        for store in stores:
            await store.close()


async def test_requests_are_bounded_and_end(clock: Clock) -> None:
    """One open request a tool, a few a person, and each for a week."""
    requests = AccessRequests(MemoryStore(clock), clock, bytes)
    person = SessionRecord("s", HOSHINO.sub, "H", "1", "", 0, 0, "l")
    first = await requests.ask(person, "tool-0", "why")
    assert await requests.ask(person, "tool-0", "again") == first
    for number in range(1, MOST_OF_ONE):
        await requests.ask(person, f"tool-{number}", "")
    with pytest.raises(TooManyRequestsError):
        await requests.ask(person, "one-more", "")

    clock.now += WAIT_SECONDS
    assert requests.open == ()
    assert (await requests.ask(person, "one-more", "")).state == "open"


def _account(number: int) -> SessionRecord:
    return SessionRecord("s", f"{number:024x}", "E", "1", "", 0, 0, "l")


async def test_a_stranger_with_many_accounts_fills_one_list_and_for_an_hour(clock: Clock) -> None:
    """The oldest request makes room after an hour; those for other tools stay."""
    store = MemoryStore(clock)
    requests = AccessRequests(store, clock, bytes)
    other = await requests.ask(_account(1), "mail", "")
    first = await requests.ask(_account(2), "wiki", "")
    clock.now += 1
    for number in range(3, MOST_OF_ROUTE + 2):
        await requests.ask(_account(number), "wiki", "")
    told: list[int] = []
    with pytest.raises(TooManyRequestsError, match="full"):
        await requests.ask(_account(100), "wiki", "", lambda: told.append(1))
    clock.now += SAFE_SECONDS - 1
    await requests.ask(_account(100), "wiki", "", lambda: told.append(2))
    with pytest.raises(TooManyRequestsError, match="full"):
        await requests.ask(_account(101), "wiki", "")
    await requests.ask(_account(101), "mail", "")

    assert told == [1, 2]
    assert other in requests.open
    assert first not in requests.open
    assert requests.of(first.sub, "wiki") is None
    assert sum(one.route == "wiki" for one in requests.open) == MOST_OF_ROUTE
    again = AccessRequests(MemoryStore(clock), clock, bytes)
    again.take(Changes([one.to_record() for one in requests._requests.values()], complete=True))
    assert set(again.open) == set(requests.open)


async def test_all_lists_together_are_bounded(clock: Clock) -> None:
    """One more takes the place of the oldest for the tool with the most requests."""
    requests = AccessRequests(MemoryStore(clock), clock, bytes)
    small = await requests.ask(_account(1), "small", "")
    number = 1
    for tool in range(MOST // MOST_OF_ROUTE):
        for _ in range(MOST_OF_ROUTE - (tool == 0)):
            number += 1
            await requests.ask(_account(number), f"tool-{tool}", "")
    clock.now += SAFE_SECONDS
    await requests.ask(_account(number + 1), "new", "")

    assert len(requests.open) == MOST
    assert small in requests.open
    assert sum(one.route == "tool-1" for one in requests.open) == MOST_OF_ROUTE - 1


async def test_the_bot_says_that_a_list_is_full(scene: Story) -> None:
    """The person is told that they cannot ask, and the panel that the list is full."""
    requests = scene.gate.generation.process_state.access_requests
    for number in range(MOST_OF_ROUTE):
        await requests.ask(_account(number), "wiki", "")
    async with scene.visitor() as mine:
        await _sign_in(mine, scene, HOSHINO)
        page = await _ask(mine, scene)
        await until(lambda: bool(scene.tailchat.messages.sent))

    assert page.status == 429
    (message,) = scene.tailchat.messages.sent
    assert "The list of requests for access is full, the last one is for Team notes" in str(message)


async def test_the_command_lists_what_waits(tmp_path: Path, clock: Clock) -> None:
    """With the reason and the name, in which no control reaches the terminal; as JSON, too."""
    clock.now = time.time()
    state = tmp_path / "state"
    await asyncio.to_thread(state.mkdir, 0o700)
    file = ("requests", "--state", str(state))
    nobody = await asyncio.to_thread(invoke, *file)
    async with story(
        tmp_path / "access.log", clock, **_sections(), state={"path": str(state)}
    ) as scene:
        person = _account(7)._replace(nickname="E\x1b[31m\x9b1m")
        requests = scene.gate.generation.process_state.access_requests
        await requests.ask(person, "wiki", "on call")
        listed = await asyncio.to_thread(invoke, *file)
        printed = await asyncio.to_thread(invoke, *file, "--json")

    assert nobody[:2] == (0, "nobody asks for access\n")
    assert listed[:2] == (0, f"sub:{person.sub}  wiki  'E\\x1b[31m\\x9b1m#1'  'on call'\n")
    assert printed[1].replace("\n", "").isprintable()
    (row,) = json.loads(printed[1])
    assert row["nickname"] == person.nickname
    assert (row["sub"], row["route"], row["reason"]) == (person.sub, "wiki", "on call")
    assert row["asked_at"] == int(clock.now)


async def test_a_damaged_request_is_none(clock: Clock) -> None:
    """Neither is one of another form."""
    requests = AccessRequests(MemoryStore(clock), clock, bytes)
    person = SessionRecord("s", HOSHINO.sub, "H", "1", "", 0, 0, "l")
    record = (await requests.ask(person, "wiki", "")).to_record()
    assert AccessRequest.from_record(record) is not None
    broken = [
        replace(record, intact=False),
        replace(record, body="{"),
        replace(record, body=record.body.replace('"open"', '"granted"')),
    ]
    assert [AccessRequest.from_record(one) for one in broken] == [None] * 3
    requests.take(Changes(broken, complete=True))
    assert requests.open == ()


@pytest_asyncio.fixture(loop_scope="session")
async def page_scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the setting for a browser."""
    async with story(tmp_path / "access.log", clock, **_sections()) as found:
        yield found


async def _browse(browser: Browser, scene: Story, user: User, path: str) -> Tab:
    tab = await (await browser.new_context(java_script_enabled=False)).new_page()
    await tab.goto(scene.url + path)
    await tab.locator("input[name=email]").first.fill(user.email)
    await tab.locator("input[name=password]").first.fill(user.password)
    await tab.locator("input[name=password]").first.press("Enter")
    await tab.get_by_role("button", name="授权").click()
    return tab


@in_browser
async def test_the_whole_way_in_a_browser_without_javascript(
    browser: Browser, page_scene: Story
) -> None:
    """The keyboard alone fills in the form, decides, and gets to the tool."""
    mine = await _browse(browser, page_scene, HOSHINO, "/wiki/page")
    await keep_screenshot(mine, "access-1-denied")
    await mine.get_by_label("What do you need it for?").focus()
    await mine.keyboard.type("on call")
    await mine.keyboard.press("Tab")
    await mine.keyboard.press("Enter")
    await expect(mine.get_by_role("heading", name="You asked for access")).to_be_visible()
    await keep_screenshot(mine, "access-2-waiting")

    bobs = await _browse(browser, page_scene, BOB, "/oauth2/approvals")
    await expect(bobs.get_by_text("on call")).to_be_visible()
    await keep_screenshot(bobs, "access-3-approvals")
    await bobs.get_by_role("button", name="Allow for 8 hours").focus()
    await bobs.keyboard.press("Enter")
    await expect(bobs.get_by_text("There is no request.")).to_be_visible()

    await mine.get_by_role("link", name="Look again").click()
    await expect(mine.get_by_text("ok")).to_be_visible()
    assert mine.url == page_scene.url + "/wiki/page"


async def test_a_decision_counts_before_it_is_written(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another approver finds nothing to decide, and an approver who leaves undoes nothing."""
    sections = _sections()
    sections["groups"]["ops"].append(EVE.sub)
    async with story(tmp_path / "access.log", clock, **sections) as scene:
        state, written = scene.gate.generation.process_state, asyncio.Event()
        record = SessionRecord("s", HOSHINO.sub, "H", "1", "", 0, 0, "l")
        asked = await state.access_requests.ask(record, "wiki", "")
        url, data = scene.url + "/oauth2/approvals", {"id": asked.key, "for": "8h"}
        headers = {**FETCH, "Sec-Fetch-Site": "same-origin"}
        async with scene.visitor() as bobs, scene.visitor() as eves:
            await _sign_in(bobs, scene, BOB, APPROVALS)
            await _sign_in(eves, scene, EVE, APPROVALS)
            monkeypatch.setattr(state.store, "put", lambda _: written.wait())
            deciding = asyncio.ensure_future(
                bobs.open(url, method="POST", data=data, headers=headers)
            )
            await until(lambda: bool(state.grants.state.of(HOSHINO.sub)))
            page = await eves.open(url)
            written.set()
            await deciding

    assert "There is no request." in page.text
    found = state.access_requests.of(HOSHINO.sub, "wiki")
    assert found is not None
    assert (found.state, found.by) == ("approved", BOB.sub)


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
async def test_a_form_token_counts_for_no_form_that_another_page_sends(
    scene: Story, site: str
) -> None:
    """The browser's word counts before the token's, which a tool's page may have read."""
    requests = scene.gate.generation.process_state.access_requests
    async with scene.visitor() as mine:
        await _sign_in(mine, scene, HOSHINO)
        page = await mine.open(scene.url + "/wiki")
        data = {**page.forms[0].fields, "reason": "x"}
        headers = {**FETCH, "Sec-Fetch-Site": site}
        answer = await mine.open(
            scene.url + "/oauth2/request", method="POST", data=data, headers=headers
        )
    assert (answer.status, requests.open) == (403, ())


async def test_a_form_token_of_a_tools_host_counts_nowhere_else(
    tmp_path: Path, clock: Clock
) -> None:
    """The tool can read it on its own host; the session of the public host has the same id."""
    sections = _sections()
    sections["route"].append({"name": "tool", "host": "tool.localhost"})
    async with story(tmp_path / "access.log", clock, **sections) as scene:
        requests = scene.gate.generation.process_state.access_requests
        async with scene.visitor() as mine:
            tool = scene.url.replace("127.0.0.1", "tool.localhost")
            await mine.sign_in(f"{tool}/", HOSHINO.email, HOSHINO.password)
            page = await mine.open(f"{tool}/oauth2/sign_out")
            data = {"csrf": page.forms[0].fields["csrf"], "route": "wiki", "rd": "/"}
            answer = await mine.open(
                scene.url + "/oauth2/request", method="POST", data=data, headers=FETCH
            )
        assert (answer.status, requests.open) == (403, ())


async def test_a_frames_session_approves_nothing(scene: Story) -> None:
    """The page around a frame is another site's: nothing is shown there nor decided from there."""
    requests = scene.gate.generation.process_state.access_requests
    record = SessionRecord("s", HOSHINO.sub, "H", "1", "", 0, 0, "l")
    asked = await requests.ask(record, "wiki", "")
    now = int(scene.clock())
    framed = SessionRecord("b", BOB.sub, "Bob", "7", "", now, now, "l", embedded=True)
    own = {**FETCH, "Sec-Fetch-Site": "same-origin", "Cookie": scene.gate.seal(framed)}
    async with scene.visitor() as bobs:
        url = scene.url + "/oauth2/approvals"
        shown = await bobs.open(url, headers=own)
        data = {"id": asked.key, "for": "8h"}
        decided = await bobs.open(url, method="POST", data=data, headers=own)

    assert (shown.status, HOSHINO.sub in shown.text, decided.status) == (403, False, 403)
    assert len(requests.open) == 1
