"""Signing out ends a session for good: for copies of its cookie, on every host, everywhere."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from accounts import user_named
from gatekit import (
    ALICE,
    START,
    SUB,
    Clock,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    cookie_value,
    login_cookie,
    make_settings,
    request_bytes,
    running_gate,
    until,
)
from storekit import StoredEntries
from storykit import Story, story
from visitor import NAVIGATION, Page, Visitor
from yarl import URL

from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.state.bookkeeping import LOOK_SECONDS

WIKI, NOTES = "wiki.test", "notes.test"
HOSHINO = user_named("hoshino")
SESSION = "tailchat_gate"
PAGE = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
BOB = ALICE._replace(sub="660000000000000000000002", nickname="Bob")

Start = Callable[..., Any]


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a tool at gate.test and two on hosts of their own."""
    routes = [
        {"name": "home"},
        {"name": "wiki", "host": WIKI},
        {"name": "notes", "host": NOTES},
    ]
    server = {"trusted_proxies": ["127.0.0.1"]}
    found = await start_gate(upstream.url, server=server, route=routes)
    assert isinstance(found, RunningGate)
    return found


async def _get(
    gate: RunningGate, cookie: str, host: str = "gate.test", path: str = "/x"
) -> Response:
    return await ask(gate.port, request_bytes(path, host=host, Cookie=cookie))


async def _post(
    gate: RunningGate, cookie: str, *, host: str = "gate.test", form: str = "", **fields: str
) -> Response:
    sent = {"Sec_Fetch_Site": "same-origin", **fields, "Content_Length": str(len(form))}
    head = request_bytes("/oauth2/sign_out", method="POST", host=host, Cookie=cookie, **sent)
    return await ask(gate.port, head + form.encode())


async def _token(gate: RunningGate, cookie: str) -> str:
    """Return the token in the form of a session's confirming page."""
    page = await ask(gate.port, request_bytes("/oauth2/sign_out", Cookie=cookie, **PAGE))
    csrf = page.body.decode().partition('name="csrf" value="')[2].partition('"')[0]
    assert len(csrf) > 20
    return csrf


async def _on_host(gate: RunningGate, host: str, cookie: str) -> str:
    """Return the Cookie value of the session that a host gets from the public one."""
    begun = await ask(gate.port, request_bytes("/oauth2/start?rd=/", host=host))
    login = login_cookie(begun)
    handed = await _get(gate, cookie, path=begun.value("Location").removeprefix("http://gate.test"))
    arrival = urlsplit(handed.value("Location"))
    done = await _get(gate, login, host, f"{arrival.path}?{arrival.query}")
    return f"{SESSION}=" + cookie_value(done, SESSION)


async def test_a_copied_cookie_is_dead_after_the_sign_out(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Who copied a cookie is refused as soon as its owner has signed out."""
    cookie = gate.cookie()
    assert (await _get(gate, cookie)).status == 200
    out = await _post(gate, cookie)
    before = len(upstream.requests)
    stolen = await _get(gate, cookie)

    assert out.status == 303
    assert (stolen.status, stolen.json["error"]) == (401, "session-ended")
    assert len(upstream.requests) == before
    line = (await gate.log())[-1]
    assert (line["reason"], line["sub"], line["status"]) == ("session-ended", SUB, 401)
    metrics = gate.generation.process_state.metrics.render()
    assert b'gate_sessions_ended_total{why="signed-out"} 1.0' in metrics


async def test_a_page_with_a_dead_cookie_goes_to_the_login(gate: RunningGate) -> None:
    """For a person an ended session is no session: the way leads to the sign-in."""
    cookie = gate.cookie()
    await _post(gate, cookie)
    for path in ("/x", "/oauth2/userinfo"):
        response = await ask(gate.port, request_bytes(path, Cookie=cookie, **PAGE))
        assert response.status == 302
        assert response.value("Location").startswith("http://gate.test/oauth2/start?rd=")
    for fields in ({}, PAGE):
        question = request_bytes("/oauth2/auth", Cookie=cookie, X_Forwarded_Uri="/x", **fields)
        asked = await ask(gate.port, question)
        assert (asked.status, asked.value("X-Tailchat-Sub")) == (401, "")
        line = (await gate.log())[-1]
        assert (line["reason"], line["sub"]) == ("session-ended", SUB)
    assert asked.value("X-Tailchat-Sign-In") == "http://gate.test/oauth2/start?rd=/x"


@pytest.mark.parametrize("where", ["gate.test", WIKI, NOTES])
async def test_one_sign_out_is_one_on_every_host(gate: RunningGate, where: str) -> None:
    """Wherever a person signs out, the copies on all other hosts are dead at once."""
    public = gate.cookie()
    cookies = {"gate.test": public}
    for host in (WIKI, NOTES):
        cookies[host] = await _on_host(gate, host, public)
    for host, cookie in cookies.items():
        assert (await _get(gate, cookie, host)).status == 200
    await _post(gate, cookies[where], host=where)

    for host, cookie in cookies.items():
        refused = await _get(gate, cookie, host)
        assert (refused.status, refused.json["error"]) == (401, "session-ended")


async def test_a_sign_out_on_a_tools_host_leaves_no_cookie(gate: RunningGate) -> None:
    """The way over the public host takes the dead cookie there away; its end leads back here."""
    public = gate.cookie()
    wiki = await _on_host(gate, WIKI, public)
    out = await _post(gate, wiki, host=WIKI)
    over = out.value("Location").removeprefix("http://gate.test")
    done = await _get(gate, public, path=over)
    page = await ask(gate.port, request_bytes(done.value("Location"), Cookie=public, **PAGE))

    assert over.startswith("/oauth2/sign_out?pass=")
    assert done.status == 303
    assert done.value("Location").startswith("/oauth2/sign_out?done=")
    for response in (out, done, page):
        assert f'{SESSION}=""; ' in response.value("Set-Cookie")
    assert b"You are signed out" in page.body
    assert b'href="http://wiki.test/oauth2/start?rd=/"' in page.body


async def test_a_tools_host_without_a_session_leads_to_the_public_one(gate: RunningGate) -> None:
    """There a session may go on, which nothing on the tool's host has ended; it leads back here."""
    asked = await ask(gate.port, request_bytes("/oauth2/sign_out", host=WIKI, **PAGE))
    assert asked.status == 303
    place = asked.value("Location").removeprefix("http://gate.test")
    assert place.startswith("/oauth2/sign_out?done=")
    signed_in = await ask(gate.port, request_bytes(place, Cookie=gate.cookie(), **PAGE))
    nobody = await ask(gate.port, request_bytes(place, **PAGE))
    assert b"Sign out?" in signed_in.body
    assert b"You are signed out" in nobody.body
    assert b'href="http://wiki.test/oauth2/start?rd=/"' in nobody.body


async def test_the_sign_out_page_of_a_stranger_sets_nothing(gate: RunningGate) -> None:
    """Without a session's cookie there is none to take away."""
    for path in ("/oauth2/sign_out", "/oauth2/sign_out?pass=x", "/oauth2/sign_out?done=x"):
        response = await ask(gate.port, request_bytes(path, **PAGE))
        assert response.values("Set-Cookie") == []
        assert b"all devices" not in response.body


async def test_another_session_of_the_person_goes_on(gate: RunningGate) -> None:
    """A sign-out in one browser is none in another."""
    here, there = gate.cookie(), gate.cookie()
    await _post(gate, here)

    assert (await _get(gate, there)).status == 200


async def test_signing_out_everywhere_ends_all_sessions_of_the_person(gate: RunningGate) -> None:
    """All that was signed in so far is over, on every host; nobody else's is."""
    here, there, bobs = gate.cookie(), gate.cookie(), gate.cookie(BOB)
    wiki = await _on_host(gate, WIKI, there)
    out = await _post(gate, here, form="everywhere=1")

    assert out.status == 303
    for cookie, host in ((here, "gate.test"), (there, "gate.test"), (wiki, WIKI)):
        assert (await _get(gate, cookie, host)).json["error"] == "session-ended"
    assert (await _get(gate, bobs)).status == 200
    metrics = gate.generation.process_state.metrics.render()
    assert b'gate_sessions_ended_total{why="signed-out-everywhere"} 1.0' in metrics


async def test_a_sign_in_after_it_is_good(gate: RunningGate, clock: Clock) -> None:
    """What is signed in later is not over; what was signed in up to that second is."""
    before = gate.cookie()
    await _post(gate, gate.cookie(), form="everywhere=1")
    assert (await _get(gate, before)).status == 401
    clock.now += 1

    assert (await _get(gate, gate.cookie())).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": ""},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://gate.test"},
    ],
)
@pytest.mark.parametrize("csrf", ["", "x", "of another session"])
async def test_a_foreign_page_signs_nobody_out(
    gate: RunningGate, fields: Mapping[str, str], csrf: str
) -> None:
    """A form of another site ends nothing, here or everywhere; it gets the confirming page."""
    cookie = gate.cookie()
    if csrf == "of another session":
        csrf = await _token(gate, gate.cookie())
    for form in (f"csrf={csrf}", f"csrf={csrf}&everywhere=1"):
        response = await _post(gate, cookie, form=form, **fields, Accept="text/html")
        assert (response.status, b"Sign out?" in response.body) == (200, True)

    assert (await _get(gate, cookie)).status == 200


async def test_a_link_signs_nobody_out_everywhere(gate: RunningGate) -> None:
    """A GET, whatever its query says, ends nothing."""
    cookie = gate.cookie()
    await _get(gate, cookie, path="/oauth2/sign_out?everywhere=1")

    assert (await _get(gate, cookie)).status == 200


async def test_a_word_in_the_address_says_nothing_untrue(gate: RunningGate) -> None:
    """That all was ended is believed only where the gate itself says it, and goes nowhere else."""
    cookie = gate.cookie()
    out = await _post(gate, cookie, form="everywhere=1", Accept="text/html")
    told = await ask(gate.port, request_bytes(out.value("Location"), **PAGE))
    forged = await ask(gate.port, request_bytes("/oauth2/sign_out?done=1", **PAGE))
    odd = await ask(gate.port, request_bytes("/oauth2/sign_out?pass=x&done=%0d%0aX:y", **PAGE))

    assert b"on all devices" in told.body
    assert b"on all devices" not in forged.body
    assert odd.value("Location") == "/oauth2/sign_out"


async def test_it_outlives_a_restart(upstream: RawUpstream, tmp_path: Path, clock: Clock) -> None:
    """What was signed out is over in the next process as well."""
    settings = make_settings(upstream.url, state={"path": str(tmp_path)})
    async with running_gate(settings, tmp_path / "first.log", clock) as first:
        cookie = first.cookie()
        await _post(first, cookie)
    async with running_gate(settings, tmp_path / "second.log", clock) as second:
        refused = await _get(second, cookie)

    assert refused.json["error"] == "session-ended"


async def test_it_is_heard_by_the_other_processes(
    upstream: RawUpstream, tmp_path: Path, clock: Clock
) -> None:
    """Two gates with one store: who signs out at one is out at the other within a second."""
    settings = make_settings(upstream.url, state={"path": str(tmp_path)})
    async with (
        running_gate(settings, tmp_path / "first.log", clock) as first,
        running_gate(settings, tmp_path / "second.log", clock) as second,
    ):
        cookie = first.cookie()
        assert (await _get(second, cookie)).status == 200
        await _post(first, cookie)
        revocation = second.generation.process_state.revocation
        assert LOOK_SECONDS < 1
        await until(lambda: revocation.version > 0)

        assert (await _get(second, cookie)).json["error"] == "session-ended"


async def test_signing_out_in_a_loop_writes_little(
    upstream: RawUpstream, tmp_path: Path, clock: Clock
) -> None:
    """A dead cookie adds nothing more to the store, however often it is sent."""
    settings = make_settings(upstream.url, state={"path": str(tmp_path)})
    async with running_gate(settings, tmp_path / "log", clock) as gate:
        cookie = gate.cookie()
        for _ in range(5):
            await _post(gate, cookie)

    assert len(await asyncio.to_thread(StoredEntries(tmp_path).read)) == 1


# With a whole login.


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> Any:  # noqa: ANN401 - an async generator
    """Set the scene of a login."""
    async with story(tmp_path / "log", clock) as scene:
        yield scene


async def _sign_in(visitor: Visitor, scene: Story, target: str = "/d") -> Page:
    return await visitor.sign_in(scene.url + target, HOSHINO.email, HOSHINO.password)


async def test_the_button_on_the_who_am_i_page(scene: Story) -> None:
    """The button signs out in every browser; the page says so, and a new sign-in works at once."""
    async with scene.visitor() as phone, scene.visitor() as laptop:
        await _sign_in(phone, scene)
        await _sign_in(laptop, scene)
        page = await phone.open(f"{scene.url}/oauth2/userinfo")
        out = await phone.submit(page, "/sign_out")

        assert out.status == 200
        assert "on all devices" in out.text
        assert SESSION not in phone.cookies(scene.url)
        call = {"Accept": "application/json"}
        lost = await laptop.open(f"{scene.url}/d", headers=call)
        assert (lost.status, "session-ended" in lost.text) == (401, True)
        # In the very second of the sign-out, which is a second that all is over of.
        await phone.open(f"{scene.url}/d")
        assert scene.tool.requests[-1].line == b"GET /d HTTP/1.1"
        again = await phone.open(f"{scene.url}/d", headers=call)
        assert again.status == 200


async def test_the_callback_opens_no_session_again(scene: Story) -> None:
    """Who goes back to the callback after signing out does not get the ended session back."""
    async with scene.visitor() as visitor:
        page = await _sign_in(visitor, scene)
        callback = next(url for url in page.trail if "/oauth2/callback" in url)
        confirm = await visitor.open(f"{scene.url}/oauth2/sign_out")
        await visitor.submit(confirm, "/sign_out")
        back = await visitor.open(callback)

        assert (back.status, "401 session-ended" in back.text) == (401, True)
        assert SESSION not in visitor.cookies(scene.url)


async def test_two_sign_ins_in_one_browser_are_one_to_sign_out_of(scene: Story) -> None:
    """Who signs in again where a session is gets a new one that ends with the old one."""
    async with scene.visitor() as visitor:
        await _sign_in(visitor, scene)
        first = visitor.cookies(scene.url)[SESSION]
        await visitor.open(f"{scene.url}/oauth2/start?rd=/d")
        second = visitor.cookies(scene.url)[SESSION]
        assert first != second
        for cookie in (first, second):
            assert (await _get(scene.gate, f"{SESSION}={cookie}")).status == 200
        confirm = await visitor.open(f"{scene.url}/oauth2/sign_out")
        await visitor.submit(confirm, "/sign_out")

        for cookie in (first, second):
            assert (await _get(scene.gate, f"{SESSION}={cookie}")).status == 401


async def test_a_session_of_somebody_else_gives_no_name(scene: Story, clock: Clock) -> None:
    """A session planted before the login shares nothing with the new one, no form's token either.

    Otherwise the person who planted it could sign its finder out from another site.
    """
    planted = SessionRecord.begin(BOB, now=START, login="l")
    async with scene.visitor() as visitor:
        cookie = scene.gate.seal(planted).partition("=")[2]
        visitor.session.cookie_jar.update_cookies({SESSION: cookie}, URL(scene.url))
        assert visitor.cookies(scene.url)[SESSION] == cookie
        page = await visitor.open(f"{scene.url}/oauth2/start?rd=/d")
        page = await visitor.submit(page, "/login", email=HOSHINO.email, password=HOSHINO.password)
        await visitor.submit(page, "/confirm")
        own = visitor.cookies(scene.url)[SESSION]
        form = f"csrf={await _token(scene.gate, scene.gate.seal(planted))}"
        foreign = {"Sec_Fetch_Site": "cross-site", "Accept": "text/html"}
        response = await _post(scene.gate, f"{SESSION}={own}", form=form, **foreign)
        assert (response.status, b"Sign out?" in response.body) == (200, True)
        assert (await _post(scene.gate, scene.gate.seal(planted), form=form)).status == 303

        assert (await _get(scene.gate, f"{SESSION}={own}")).status == 200
