"""Asking Tailchat again, over real sockets: a person, the gate, the stand-in Tailchat, a tool."""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from accounts import revoke_user
from gatekit import elsewhere, running_gate
from recheckkit import (
    BOB,
    DAY,
    HOSHINO,
    HOUR,
    INTERVAL,
    Person,
    answered,
    asked,
    at_tool,
    counted,
    nickname,
    recheck,
    refusal,
    sign_in,
    sign_in_at,
)
from storykit import Story
from usual_faults import BROKEN, CLOSE, HTML

from tailchat_gate.demo.faults import Rewrite
from tailchat_gate.identity.recheck import RETRY_SECONDS
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME, LOGGER_NAME
from tailchat_gate.serving.wiring.build import build

Start = Callable[..., Awaitable[Story]]
WIKI = "wiki.test"
TWO_HOSTS = [{"name": "home"}, {"name": "wiki", "host": WIKI}]


@pytest.fixture
async def scene(start_rechecks: Start) -> Story:
    """Return the usual setting: an outage keeps sessions."""
    return await start_rechecks()


def refreshed(scene: Story) -> int:
    """Return how often a token was asked for beyond the one login of a test."""
    return scene.tailchat.seen["token"].count - 1


# Confirmed.


async def test_within_the_interval_nobody_is_asked(scene: Story) -> None:
    """For 15 minutes after the sign-in its answer is enough."""
    person = await sign_in(scene)
    scene.clock.now += INTERVAL - 1
    for _ in range(3):
        assert (await person.get()).status == 200

    assert asked(scene) == 1
    assert person.renewals == []


async def test_a_rename_reaches_the_tool(scene: Story) -> None:
    """The request that is due goes on as before; the next carries the new name, and a cookie."""
    person = await sign_in(scene)
    scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    scene.clock.now += INTERVAL
    assert (await person.get()).status == 200
    assert nickname(scene).endswith("Hoshino %E2%98%86")
    assert person.renewals == []
    await answered(scene.gate)

    assert (await person.get()).status == 200
    assert nickname(scene) == "Renamed"
    (renewal,) = person.renewals
    assert f"Max-Age={13 * DAY - INTERVAL};" in renewal
    assert (person.record.nickname, person.record.checked_at) == ("Renamed", scene.clock.now)
    assert (await person.get()).status == 200
    assert len(person.renewals) == 1
    assert (asked(scene), counted(scene, "ok")) == (2, 1)


async def test_a_confirmation_outlives_a_restart(scene: Story, tmp_path: Path) -> None:
    """The cookie has what Tailchat said: a restarted gate knows it, and asks no sooner."""
    person = await sign_in(scene)
    scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    await recheck(person)
    await person.get()
    settings = elsewhere(scene.gate.generation.settings)
    async with running_gate(settings, tmp_path / "other.log", scene.clock) as other:
        scene.gate = other
        scene.clock.now += INTERVAL - 1
        await person.get()

    assert nickname(scene) == "Renamed"
    assert asked(scene) == 2


async def test_what_is_known_outlives_a_reload(start_rechecks: Start) -> None:
    """Another configuration neither asks again nor forgets who was refused."""
    scene = await start_rechecks()
    gone, other = await sign_in(scene), await sign_in(scene, BOB)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    scene.tailchat.store.rename(BOB.sub, "Robert")
    await recheck(gone)
    await other.get()
    await answered(scene.gate)
    before = scene.gate.generation
    after = await asyncio.to_thread(build, before.settings, before.process_state)
    await scene.gate.server.swap(after)

    assert refusal(await gone.get()) == (401, "session-revoked")
    assert (await other.get()).status == 200
    assert nickname(scene) == "Robert"
    assert asked(scene) == 4


async def test_every_cookie_of_a_sign_in_catches_up(scene: Story) -> None:
    """A copy of the old cookie is served under the new name at once, and renewed as well."""
    person = await sign_in(scene)
    copy = Person(scene, person.cookie, person.host)
    scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    await recheck(person)
    await copy.get()

    assert nickname(scene) == "Renamed"
    assert copy.record.nickname == "Renamed"
    assert asked(scene) == 2


async def test_all_hosts_share_what_is_known(start_rechecks: Start) -> None:
    """One question answers for the cookies of one sign-in on every host."""
    scene = await start_rechecks(route=TWO_HOSTS)
    home, wiki = await sign_in_at(scene, WIKI)
    assert home.record.sid == wiki.record.sid
    assert wiki.record.access_token == home.record.access_token
    scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    await recheck(wiki)
    await home.get()

    assert nickname(scene) == "Renamed"
    assert home.record.checked_at == scene.clock.now
    assert asked(scene) == 2


async def test_a_pass_hands_over_what_is_known_by_now(start_rechecks: Start) -> None:
    """A sign-in that is carried to another host is the one of by now, not that of its cookie."""
    scene = await start_rechecks(route=TWO_HOSTS)
    async with scene.visitor() as visitor:
        await visitor.sign_in(f"{scene.url}/", HOSHINO.email, HOSHINO.password)
        home = at_tool(scene, visitor)
        scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
        await recheck(home)
        page = await visitor.open(f"{scene.url.replace('127.0.0.1', WIKI)}/")
        wiki = at_tool(scene, visitor, WIKI)

    assert not any("/open/" in url for url in page.trail)
    assert nickname(scene) == "Renamed"
    assert wiki.record.nickname == "Renamed"
    assert wiki.record.checked_at == scene.clock.now


async def test_forward_auth_follows_too(scene: Story) -> None:
    """The proxy that asks gets the new name, with the new cookie beside it."""
    person = await sign_in(scene)
    scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    scene.clock.now += INTERVAL
    first = await person.asked_for()
    await answered(scene.gate)
    second = await person.asked_for()

    assert (first.status, second.status) == (202, 202)
    assert first.value("X-Tailchat-Nickname") != "Renamed"
    assert second.value("X-Tailchat-Nickname") == "Renamed"
    assert len(second.values("Set-Cookie")) == 1
    assert person.record.nickname == "Renamed"


async def test_what_the_gate_serves_itself_renews_too(
    start_rechecks: Start, tmp_path: Path
) -> None:
    """Files and fixed answers carry the new cookie as a tool's replies do."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("text")
    files = {"name": "docs", "path": "/docs", "upstream": f"file:{tmp_path}/docs"}
    fixed = {"name": "none", "path": "/none", "upstream": "static:204"}
    scene = await start_rechecks(route=[{"name": "home"}, files, fixed])
    person = await sign_in(scene)
    for target, status in (("/docs/a.txt", 200), ("/none", 204)):
        await recheck(person)
        before = len(person.renewals)
        response = await person.get(target)

        assert (response.status, len(person.renewals)) == (status, before + 1)
        assert person.record.checked_at == scene.clock.now


async def test_only_the_person_the_tokens_are_for(scene: Story) -> None:
    """Where Tailchat answers with another user the session ends."""
    person = await sign_in(scene)
    scene.tailchat.faults.me = Rewrite(lambda members: {**members, "sub": BOB.sub})
    await recheck(person)

    assert refusal(await person.get()) == (401, "session-revoked")


# Revoked.


async def test_a_revoked_session_ends_with_all_its_copies(
    start_rechecks: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Once Tailchat refuses the tokens no cookie of that sign-in opens anything, on any host."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER_NAME)
    scene = await start_rechecks(route=TWO_HOSTS)
    home, wiki = await sign_in_at(scene, WIKI)
    copy = Person(scene, home.cookie, home.host)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    await recheck(home)
    reached = len(scene.tool.requests)

    for one in (home, copy, wiki):
        assert refusal(await one.get()) == (401, "session-revoked")
        assert refusal(await one.get(method="POST")) == (401, "session-revoked")
        assert refusal(await one.asked_for()) == (401, "session-revoked")
        assert refusal(await one.get("/oauth2/userinfo")) == (401, "session-revoked")
        page = await one.page("/deep?x=1")
        assert page.status == 302
        assert page.value("Location").endswith("/oauth2/start?rd=/deep%3Fx%3D1")
    assert len(scene.tool.requests) == reached
    assert counted(scene, "revoked") == 1
    told = [one.__dict__["details"] for one in caplog.records if one.name == AUDIT_LOGGER_NAME]
    (ended,) = (details for details in told if details["event"] == "session-ended")
    assert (ended["sub"], ended["reason"]) == (HOSHINO.sub, "session-revoked")
    assert {line["reason"] for line in (await scene.gate.log())[-15:]} == {"session-revoked"}


async def test_who_was_revoked_signs_in_again(start_rechecks: Start) -> None:
    """A page leads over Tailchat's pages to a session of its own, and no pass carries the old."""
    scene = await start_rechecks(route=TWO_HOSTS)
    async with scene.visitor() as visitor:
        await visitor.sign_in(f"{scene.url}/", HOSHINO.email, HOSHINO.password)
        person = at_tool(scene, visitor)
        revoke_user(scene.tailchat.store, HOSHINO.sub)
        await recheck(person)
        elsewhere = await visitor.open(f"{scene.url.replace('127.0.0.1', WIKI)}/")
        assert any("/open/auth" in url for url in elsewhere.trail)
        page = await visitor.open(f"{scene.url}/deep")
        page = await visitor.submit(page, "/confirm")
        renewed = at_tool(scene, visitor)

    assert (page.status, page.url) == (200, f"{scene.url}/deep")
    assert renewed.record.sid != person.record.sid
    assert refusal(await person.get()) == (401, "session-revoked")


async def test_after_a_night_nothing_is_served_unasked(scene: Story) -> None:
    """The first request of a session that was away for long waits, and a revoked one is refused."""
    person = await sign_in(scene)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    reached = len(scene.tool.requests)
    scene.clock.now += 2 * INTERVAL

    assert refusal(await person.get()) == (401, "session-revoked")
    assert (await person.page()).status == 302
    assert len(scene.tool.requests) == reached
    assert asked(scene) == 2


async def test_the_gates_own_answers_wait_too(scene: Story) -> None:
    """Who am I, and who is it for a proxy that asks, are not told from a night ago."""
    person = await sign_in(scene)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    scene.clock.now += 8 * HOUR

    assert refusal(await person.get("/oauth2/userinfo")) == (401, "session-revoked")


async def test_a_proxys_question_waits_too(scene: Story) -> None:
    """Where a proxy in front asks after a night, its question is answered once Tailchat was."""
    gone, other = await sign_in(scene), await sign_in(scene, BOB)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    scene.tailchat.store.rename(BOB.sub, "Robert")
    scene.clock.now += 8 * HOUR

    assert refusal(await gone.asked_for()) == (401, "session-revoked")
    response = await other.asked_for()
    assert (response.status, response.value("X-Tailchat-Nickname")) == (202, "Robert")


async def test_who_am_i_tells_the_name_of_by_now(scene: Story) -> None:
    """After a night the page that tells who is signed in has asked before."""
    person = await sign_in(scene)
    scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    scene.clock.now += 8 * HOUR

    assert (await person.get("/oauth2/userinfo")).json["nickname"] == "Renamed"


async def test_no_websocket_for_a_revoked_session(scene: Story) -> None:
    """A handshake waits for the answer like any request, and reaches no tool."""
    person = await sign_in(scene)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    reached = len(scene.tool.requests)
    scene.clock.now += HOUR
    response = await person.get(
        Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="x", Sec_WebSocket_Version="13"
    )

    assert refusal(response) == (401, "session-revoked")
    assert len(scene.tool.requests) == reached


async def test_a_public_route_knows_the_revoked_as_nobody(start_rechecks: Start) -> None:
    """What everybody may see stays open, without a word on who it was."""
    scene = await start_rechecks(
        route=[{"name": "home"}, {"name": "p", "path": "/p", "allow": ["public"]}]
    )
    person = await sign_in(scene)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    scene.clock.now += HOUR

    assert (await person.get("/p")).status == 200
    assert scene.tool.requests[-1].values("X-Tailchat-Sub") == []
    assert (await scene.gate.log())[-1]["reason"] == "public"


async def test_a_planted_cookie_of_a_revoked_session_costs_nothing(scene: Story) -> None:
    """Beside a good session a revoked one does not count, in either order."""
    revoked, good = await sign_in(scene), await sign_in(scene, BOB)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    scene.clock.now += HOUR
    assert refusal(await revoked.get()) == (401, "session-revoked")
    for cookies in ((revoked.cookie, good.cookie), (good.cookie, revoked.cookie)):
        both = Person(scene, "; ".join(cookies), good.host)

        assert (await both.get()).status == 200
        assert scene.tool.requests[-1].value("X-Tailchat-Sub") == BOB.sub.encode()


# The tokens.


async def test_without_offline_access_a_session_lasts_an_hour(start_rechecks: Start) -> None:
    """The access token dies after an hour, and the session with the next question."""
    scene = await start_rechecks(scope="openid profile")
    person = await sign_in(scene)
    for _ in range(3):
        await recheck(person)
        assert (await person.get()).status == 200
    await recheck(person)

    assert scene.clock.now - person.record.signed_in_at == HOUR
    assert refusal(await person.get()) == (401, "session-revoked")
    assert refreshed(scene) == 0


async def test_without_offline_access_it_ends_with_the_one_at_tailchat(
    start_rechecks: Start,
) -> None:
    """Where the person's own session at Tailchat is over, so is the one here."""
    scene = await start_rechecks(scope="openid profile")
    person = await sign_in(scene)
    scene.tailchat.store.sessions.drop(lambda _: True)
    await recheck(person)

    assert refusal(await person.get()) == (401, "session-revoked")


async def test_with_offline_access_it_goes_on(scene: Story) -> None:
    """After an hour a new access token is fetched, once, and is in the cookie from then on."""
    person = await sign_in(scene)
    first = person.record
    scene.tailchat.store.sessions.drop(lambda _: True)
    for _ in range(6):
        await recheck(person)
        assert (await person.get()).status == 200

    assert person.record.access_token != first.access_token
    assert person.record.access_expires_at > scene.clock.now
    assert person.record.refresh_token == first.refresh_token
    assert (refreshed(scene), asked(scene)) == (1, 7)


async def test_an_access_token_that_died_early_is_replaced(scene: Story) -> None:
    """Where the token is refused before its time, a new one is fetched and decides."""
    person = await sign_in(scene)
    scene.tailchat.store.access_tokens.drop(lambda _: True)
    await recheck(person)

    assert (await person.get()).status == 200
    assert (refreshed(scene), asked(scene)) == (1, 3)


async def test_a_refused_refresh_ends_the_session(scene: Story) -> None:
    """After the hour it is the refresh token that a revoked person's session ends by."""
    person = await sign_in(scene)
    revoke_user(scene.tailchat.store, HOSHINO.sub)
    scene.clock.now += 2 * HOUR

    assert refusal(await person.get()) == (401, "session-revoked")
    assert (refreshed(scene), asked(scene)) == (1, 1)


async def test_a_rotated_refresh_token_takes_the_place_of_the_old(scene: Story) -> None:
    """Late in its life Tailchat replaces it; the old one, in any cookie, is not sent again."""
    person = await sign_in(scene)
    first, copy = person.record, Person(scene, person.cookie, person.host)
    scene.clock.now += 10 * DAY
    assert (await person.get()).status == 200
    second = person.record
    scene.clock.now += 2 * HOUR
    assert (await copy.get()).status == 200
    assert (await person.get()).status == 200

    assert second.refresh_token not in {"", first.refresh_token}
    assert copy.record.refresh_token == person.record.refresh_token == second.refresh_token
    assert refreshed(scene) == 2


async def test_new_tokens_are_kept_although_the_question_failed(scene: Story) -> None:
    """A refresh may have used up the old token: what it brought is in the cookie at once."""
    person = await sign_in(scene)
    first = person.record
    scene.clock.now += 10 * DAY
    scene.tailchat.faults.me = BROKEN
    assert (await person.get()).status == 200

    assert person.record.refresh_token not in {"", first.refresh_token}
    assert person.record.checked_at == first.checked_at
    scene.tailchat.faults.me = None
    scene.clock.now += RETRY_SECONDS
    await person.get()
    await answered(scene.gate)
    await person.get()
    assert person.record.checked_at == scene.clock.now
    assert refreshed(scene) == 1


async def test_a_consent_ends_after_14_days(start_rechecks: Start) -> None:
    """Nothing makes Tailchat's grant live longer, so the session ends with it."""
    scene = await start_rechecks(session={"lifetime": "30d"})
    person = await sign_in(scene)
    scene.clock.now += 14 * DAY - HOUR
    assert (await person.get()).status == 200
    scene.clock.now += HOUR

    assert refusal(await person.get()) == (401, "session-revoked")


async def test_tokens_are_nowhere_to_be_seen(
    start_rechecks: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """No token reaches a tool, a reply, a log or an address, nor stands readable in the cookie."""
    caplog.set_level(logging.INFO, LOGGER_NAME)
    scene = await start_rechecks(route=TWO_HOSTS)
    async with scene.visitor() as visitor:
        page = await visitor.sign_in(
            f"{scene.url.replace('127.0.0.1', WIKI)}/", HOSHINO.email, HOSHINO.password
        )
        person = at_tool(scene, visitor, WIKI)
    tokens = {person.record.access_token, person.record.refresh_token}
    responses = []
    for fault in (None, BROKEN, CLOSE, HTML):
        scene.tailchat.faults.me = scene.tailchat.faults.token = fault
        scene.clock.now += 2 * HOUR
        responses += [await person.get(), await person.asked_for()]
        responses += [await person.get("/oauth2/userinfo"), await person.page("/oauth2/sign_out")]
        tokens |= {person.record.access_token, person.record.refresh_token}
    sealed = person.cookie.partition("=")[2]
    raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    seen = b"".join(one.head + one.body for one in scene.tool.requests)
    seen += b"".join(response.head + response.body for response in responses)
    seen += raw + "".join(page.trail).encode() + str(await scene.gate.log()).encode()
    told = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)

    assert len(tokens) == 3
    assert "" not in tokens
    assert "Tailchat could not be asked about a session" in told
    for token in tokens:
        assert token.encode() not in seen
        assert token not in told
        assert token not in repr(person.record)


async def test_no_tokens_are_kept_where_nobody_needs_them(start_rechecks: Start) -> None:
    """With rechecks off a session holds none, and Tailchat is not asked again."""
    scene = await start_rechecks(session={"recheck": "0"})
    person = await sign_in(scene)
    scene.clock.now += 12 * DAY

    assert (await person.get()).status == 200
    assert (person.record.access_token, person.record.refresh_token) == ("", "")
    assert person.record.checked_at == 0
    assert asked(scene) == 1
