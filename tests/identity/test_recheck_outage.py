"""What happens to sessions while Tailchat cannot be asked, and how a deleted user is told apart."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from gatekit import ALICE, until
from recheckkit import (
    BOB,
    DAY,
    HOSHINO,
    HOUR,
    INTERVAL,
    Person,
    answered,
    asked,
    counted,
    nickname,
    recheck,
    rechecker_of,
    refusal,
    sign_in,
)
from storykit import Story
from usual_faults import BROKEN, CLOSE, HTML

from tailchat_gate.demo.faults import Fault, Hang
from tailchat_gate.demo.faults import Response as Said
from tailchat_gate.identity import rechecker
from tailchat_gate.identity.recheck import NEVER, RETRY_SECONDS

Start = Callable[..., Awaitable[Story]]
CLOSED = Said(401, b"<h1>401</h1>", "text/html")


@pytest.fixture
async def scene(start_rechecks: Start) -> Story:
    """Return the usual setting: an outage keeps sessions."""
    return await start_rechecks()


# An outage.


@pytest.mark.parametrize("fault", [BROKEN, CLOSE, HTML, CLOSED])
async def test_keep_goes_on(scene: Story, fault: Fault) -> None:
    """Whatever is wrong with Tailchat, sessions go on to their end, and catch up afterwards."""
    person = await sign_in(scene)
    scene.tailchat.faults.me = fault
    for _ in range(10):
        await recheck(person)
        assert (await person.get()).status == 200
    assert counted(scene, "outage") == 10
    scene.tailchat.faults.me = None
    scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    await recheck(person)
    await person.get()

    assert nickname(scene) == "Renamed"


async def test_keep_ends_with_the_lifetime(scene: Story) -> None:
    """A session that survives an outage does not last forever."""
    person = await sign_in(scene)
    scene.tailchat.faults.me = BROKEN
    scene.clock.now += 13 * DAY - 1
    assert (await person.get()).status == 200
    scene.clock.now += 1

    assert refusal(await person.get()) == (401, "not-signed-in")


async def test_sign_in_asks_for_a_new_sign_in(start_rechecks: Start) -> None:
    """One interval after it was due the session opens nothing, and pages go to the sign-in."""
    scene = await start_rechecks(outage="sign-in")
    person = await sign_in(scene)
    scene.tailchat.faults.me = BROKEN
    await recheck(person)
    scene.clock.now += INTERVAL - 1
    assert (await person.get()).status == 200
    reached = len(scene.tool.requests)
    scene.clock.now += 1
    await answered(scene.gate)

    assert refusal(await person.get()) == (401, "recheck-failed")
    assert refusal(await person.get(method="POST")) == (401, "recheck-failed")
    assert refusal(await person.asked_for("/")) == (401, "recheck-failed")
    asked_for = await person.asked_for("/deep", Accept="text/html", Sec_Fetch_Mode="navigate")
    assert (asked_for.status, asked_for.value("Location")) == (401, "")
    assert asked_for.value("X-Tailchat-Sign-In").endswith("/oauth2/start?rd=/deep")
    assert (await scene.gate.log())[-1]["reason"] == "recheck-failed"
    assert refusal(await person.get("/oauth2/userinfo")) == (401, "recheck-failed")
    page = await person.page("/deep")
    assert (page.status, page.value("Retry-After")) == (302, "")
    assert page.value("Location").endswith("/oauth2/start?rd=/deep")
    assert len(scene.tool.requests) == reached
    assert (await scene.gate.log())[-1]["reason"] == "recheck-failed"


async def test_fail_refuses_until_tailchat_answers(start_rechecks: Start) -> None:
    """Everybody gets 503 with a time to wait, and nobody is sent away from the page."""
    scene = await start_rechecks(outage="fail")
    person = await sign_in(scene)
    scene.tailchat.faults.me = BROKEN
    await recheck(person)
    reached = len(scene.tool.requests)
    scene.clock.now += INTERVAL
    page = await person.page("/deep?x=1")
    assert (page.status, page.value("Retry-After")) == (503, "15")
    assert b"recheck-failed" in page.body
    assert b'href="http://127.0.0.1' in page.body
    assert b'/deep?x=1"' in page.body
    for response, status in (
        (await person.get("/"), 503),
        (await person.get("/oauth2/userinfo"), 503),
        # To a proxy that asks any other status is a fault.
        (await person.asked_for("/"), 403),
    ):
        assert refusal(response) == (status, "recheck-failed")
        assert (response.value("Retry-After"), response.values("Set-Cookie")) == ("15", [])
    assert len(scene.tool.requests) == reached
    asked_so_far = asked(scene)

    scene.tailchat.faults.me = None
    assert refusal(await person.get()) == (503, "recheck-failed")
    assert asked(scene) == asked_so_far
    scene.clock.now += RETRY_SECONDS
    assert (await person.get()).status == 200
    assert asked(scene) == asked_so_far + 1


@pytest.mark.parametrize("outage", ["sign-in", "fail"])
async def test_a_public_route_stays_open_in_an_outage(start_rechecks: Start, outage: str) -> None:
    """Where nobody needs a session none is missed."""
    route = [{"name": "home"}, {"name": "p", "path": "/p", "allow": ["public"]}]
    scene = await start_rechecks(outage=outage, route=route)
    person = await sign_in(scene)
    scene.tailchat.faults.me = BROKEN
    scene.clock.now += HOUR

    assert (await person.get("/p")).status == 200
    assert scene.tool.requests[-1].values("X-Tailchat-Sub") == []


@pytest.mark.parametrize(
    ("outage", "expected"),
    [("keep", 200), ("sign-in", 401), ("fail", 503)],
)
async def test_a_tailchat_that_hangs_holds_nobody_for_long(
    start_rechecks: Start, outage: str, expected: int
) -> None:
    """A request waits for an answer for so long and no longer; then the setting decides."""
    scene = await start_rechecks(outage=outage)
    person = await sign_in(scene)
    assert rechecker_of(scene.gate)._timeout == 10.0
    rechecker_of(scene.gate)._timeout = 0.05
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += HOUR
    for _ in range(3):
        assert (await person.get()).status == expected
    # Once more, behind the pause: the question of before is still under way.
    scene.clock.now += INTERVAL
    assert (await person.get()).status == expected
    await until(lambda: asked(scene) == 2)

    hang.release()
    await answered(scene.gate)
    assert (await person.get()).status == 200


async def test_a_session_without_tokens_is_kept(scene: Story) -> None:
    """A session from before rechecks were asked for lives on, and nobody is asked about it."""
    old = Person(scene, scene.gate.cookie(ALICE), scene.url.removeprefix("http://"))
    for _ in range(5):
        scene.clock.now += INTERVAL
        assert (await old.get()).status == 200

    assert asked(scene) == 0
    assert old.renewals == []


@pytest.mark.parametrize("outage", ["sign-in", "fail"])
async def test_a_session_without_tokens_is_asked_to_sign_in(
    start_rechecks: Start, outage: str
) -> None:
    """Where what cannot be confirmed is not kept, such a session ends politely."""
    scene = await start_rechecks(outage=outage)
    old = Person(scene, scene.gate.cookie(ALICE), scene.url.removeprefix("http://"))
    scene.clock.now += 2 * INTERVAL - 1
    assert (await old.get()).status == 200
    scene.clock.now += 1

    assert refusal(await old.get()) == (401, "recheck-failed")
    assert (await old.page()).status == 302


# A deleted user.


async def test_a_deleted_user_is_out(scene: Story) -> None:
    """Tailchat answers 500 for a deleted user; who is answered meanwhile tells that apart."""
    gone, other = await sign_in(scene), await sign_in(scene, BOB)
    del scene.tailchat.store.users[HOSHINO.sub]
    await recheck(gone)
    await recheck(other)
    assert (await gone.get()).status == 200
    await recheck(other)

    assert counted(scene, "outage") == 2
    assert refusal(await gone.get()) == (401, "session-revoked")
    assert (await other.get()).status == 200


async def test_an_outage_ends_no_session(scene: Story) -> None:
    """The same 500 for everybody, for however long, is no deleted user."""
    people = [await sign_in(scene), await sign_in(scene, BOB)]
    scene.tailchat.faults.me = BROKEN
    for _ in range(10):
        scene.clock.now += INTERVAL
        for person in people:
            await person.get()
        await answered(scene.gate)
    assert counted(scene, "revoked") == 0
    scene.tailchat.faults.me = None
    scene.clock.now += INTERVAL
    for person in people:
        assert (await person.get()).status == 200
    await answered(scene.gate)

    assert counted(scene, "ok") == 2


async def test_a_deleted_user_is_out_after_the_hour_as_well(scene: Story) -> None:
    """A refresh for a deleted user fails with the same 500, and counts as well."""
    gone, other = await sign_in(scene), await sign_in(scene, BOB)
    del scene.tailchat.store.users[HOSHINO.sub]
    scene.clock.now += 2 * HOUR
    for _ in range(2):
        assert (await gone.get()).status == 200
        await recheck(other)
    asked_before = asked(scene)

    assert refusal(await gone.get()) == (401, "session-revoked")
    assert asked(scene) == asked_before


# Signing out.


@pytest.mark.parametrize("outage", ["keep", "sign-in", "fail"])
async def test_signing_out_works_in_an_outage(start_rechecks: Start, outage: str) -> None:
    """Who signs out is signed out, also where the session opens nothing for the time being."""
    scene = await start_rechecks(outage=outage)
    person = await sign_in(scene)
    scene.tailchat.faults.me = BROKEN
    scene.clock.now += HOUR
    await person.get()
    assert b"sign_out" in (await person.page("/oauth2/sign_out")).body
    response = await person.get("/oauth2/sign_out", method="POST", Sec_Fetch_Site="same-origin")

    assert response.status == 303
    assert any("Max-Age=0" in line for line in response.values("Set-Cookie"))


# A Tailchat that does not answer at all.


@pytest.mark.parametrize(
    ("outage", "answer"),
    [("keep", (200, "")), ("fail", (503, "recheck-failed")), ("sign-in", (401, "recheck-failed"))],
)
async def test_one_session_waits_for_a_tailchat_that_hangs(
    start_rechecks: Start, outage: str, answer: tuple[int, str]
) -> None:
    """What one request has waited for is known for all; one asks again for all, and none waits."""
    scene = await start_rechecks(outage=outage, tailchat={"timeout": "5s"})
    people = [await sign_in(scene, user) for user in (HOSHINO, BOB)] + [await sign_in(scene)]
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += 2 * INTERVAL
    silence = rechecker_of(scene.gate)._sign_ins.silence

    responses = [await people[0].get()]
    # The call itself ends a moment after the wait for it.
    await until(lambda: silence.failed_at(scene.clock()) != NEVER)
    before = asked(scene)
    responses += [await person.get() for person in people]
    assert asked(scene) == before
    scene.clock.now += RETRY_SECONDS
    responses += [await person.get() for person in people]
    await until(lambda: asked(scene) == before + 1)

    for response in responses:
        assert (response.status, response.json["error"] if response.status != 200 else "") == answer
    hang.release()
    scene.tailchat.faults.me = None
    await answered(scene.gate)
    scene.clock.now += RETRY_SECONDS
    await people[0].get()
    await answered(scene.gate)
    assert [(await person.get()).status for person in people] == [200] * 3


async def test_a_call_that_hangs_while_others_are_answered_is_no_silence(
    start_rechecks: Start,
) -> None:
    """Where Tailchat answers about others meanwhile, they go on to be asked about."""
    scene = await start_rechecks(outage="fail", tailchat={"timeout": "5s"})
    people = [await sign_in(scene, user) for user in (HOSHINO, BOB)]
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += 2 * INTERVAL
    waiting = asyncio.create_task(people[0].get())
    await hang.started.wait()
    scene.tailchat.faults.me = None
    scene.clock.now += 1
    assert (await people[1].get()).status == 200
    assert (await waiting).status == 503

    scene.clock.now += 2 * INTERVAL
    before = asked(scene)
    assert (await people[1].get()).status == 200
    assert asked(scene) == before + 1


async def test_waiting_for_ones_turn_is_no_outage(
    start_rechecks: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits in the queue for longer than a call may take is asked about, not sent away."""
    monkeypatch.setattr(rechecker, "AT_ONCE", 1)
    scene = await start_rechecks(outage="sign-in", tailchat={"timeout": "8s"})
    people = [await sign_in(scene, user) for user in (HOSHINO, BOB)]
    monkeypatch.setattr(rechecker_of(scene.gate), "_timeout", 4.0)
    hang = scene.tailchat.faults.me = Hang()
    scene.clock.now += 2 * INTERVAL
    first = asyncio.create_task(people[0].get())
    await hang.started.wait()
    second = asyncio.create_task(people[1].get())
    assert refusal(await first) == (401, "recheck-failed")
    scene.tailchat.faults.me = None
    hang.release()

    assert (await second).status == 200
