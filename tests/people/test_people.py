"""What Tailchat says of an account reaches its sessions: bans, deletions, guests, names."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gatekit import SECRET, Clock, RawClient, Received, request_bytes, until
from recheckkit import BOB, HOSHINO, Person, at_tool, nickname, refusal, sign_in
from storykit import CLIENT_SECRET, Story, story
from visitor import NAVIGATION
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.config.model import Settings
from tailchat_gate.demo.faults import Hang, Response
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.facts import DELETED, Facts, KnownPeople
from tailchat_gate.people.watch import PeopleWatch
from tailchat_gate.proxy.exchange.recorder import SESSION_OVER
from tailchat_gate.reasons import BLOCKED
from tailchat_gate.serving.wiring.build import build

LIST = "user/getUserInfoList"
PAGE = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
NOT_FOR_YOU = Response(401, b'{"name":"UnAuthorizedError","type":"NO_TOKEN","code":401}')
DOWN = Response(504, b'{"name":"RequestTimeoutError","code":504}')

Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path, clock: Clock) -> AsyncIterator[Start]:
    """Return a function that sets a scene; arguments as storykit.story."""
    async with AsyncExitStack() as stack:

        async def begin(**sections: Any) -> Story:  # noqa: ANN401 - as story
            return await stack.enter_async_context(
                story(tmp_path / "access.log", clock, **sections)
            )

        yield begin


@pytest.fixture
async def scene(start: Start) -> Story:
    """Return a scene whose proxies may ask, before a tool and a public one."""
    routes = [{"name": "tool"}, {"name": "open", "path": "/open", "allow": ["public"]}]
    found = await start(server={"trusted_proxies": ["127.0.0.1"]}, route=routes)
    assert isinstance(found, Story)
    return found


def people(scene: Story) -> PeopleWatch:
    """Return what asks Tailchat about people in a gate."""
    return scene.gate.generation.people


async def asked_again(scene: Story, sub: str = HOSHINO.sub) -> None:
    """Have Tailchat asked about a person, and let the next request look again."""
    await people(scene).confirm(sub)
    scene.clock.now += people(scene).terms.refresh


def calls(scene: Story) -> int:
    """Return how often Tailchat was asked about people."""
    return scene.tailchat.seen[LIST].count


def with_cookie(scene: Story, sub: str = HOSHINO.sub) -> Person:
    """Return a person with a session that this gate has not seen yet."""
    host = scene.url.removeprefix("http://")
    return Person(scene, scene.gate.cookie(Profile(sub, "Before", "0001", "")), host)


async def switch(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Accept a WebSocket and hold it."""
    del request
    writer.write(SWITCH)
    await reader.read()


async def test_ban_ends_an_open_websocket(start: Start) -> None:
    """Without offline_access and without a request, the first answer after the ban ends it."""
    scene = await start(tailchat={"people_refresh": "1s"})
    person = await sign_in(scene)
    scene.tool.answer = switch
    async with RawClient.connect(scene.gate.port) as client:
        client.send(request_bytes("/ws", host=person.host, Cookie=person.cookie, **UPGRADE))
        assert b" 101 " in await client.head()
        scene.tailchat.store.change(HOSHINO.sub, banned=True)
        before = calls(scene)

        await client.reader.read()
        # One question may have been on its way, one had to come.
        assert calls(scene) <= before + 2
    line = (await scene.gate.log())[-1]
    assert (line["status"], line["reason"]) == (101, "banned")
    metrics = scene.gate.generation.process_state.metrics.render()
    assert b'gate_live_ended_total{why="banned"} 1.0' in metrics


def test_all_that_keeps_an_account_out_is_counted() -> None:
    """What Tailchat says of an account ends what is open, and each such end has its counter."""
    assert SESSION_OVER.keys() >= BLOCKED


CASES: Mapping[str, tuple[dict[str, Any] | None, str]] = {
    "banned": ({"banned": True}, "banned"),
    "deleted": (None, "account-deleted"),
    "guest": ({"temporary": True}, "guest-refused"),
    "app's bot": ({"kind": "openapiBot"}, "bot-refused"),
    "plugin's bot": ({"kind": "pluginBot"}, "bot-refused"),
    "banned guest": ({"temporary": True, "banned": True}, "banned"),
}


def change(scene: Story, case: str) -> str:
    """Change the account in Tailchat; return the reason that it is refused for."""
    changes, reason = CASES[case]
    if changes is None:
        del scene.tailchat.store.users[HOSHINO.sub]
    else:
        scene.tailchat.store.change(HOSHINO.sub, **changes)
    return reason


@pytest.mark.parametrize("case", CASES)
async def test_account_is_out_of_every_tool(scene: Story, case: str) -> None:
    """Requests and a proxy's questions are refused with the reason, and no tool hears of them."""
    person = await sign_in(scene)
    reason = change(scene, case)
    await asked_again(scene)
    scene.tool.requests.clear()

    assert refusal(await person.get("/x")) == (403, reason)
    assert refusal(await person.asked_for("/x")) == (403, reason)
    assert refusal(await person.get("/oauth2/userinfo")) == (403, reason)
    assert refusal(await person.get("/x", **UPGRADE)) == (403, reason)
    assert scene.tool.requests == []
    line = (await scene.gate.log())[-1]
    assert (line["reason"], line["sub"]) == (reason, HOSHINO.sub)


async def test_public_route_takes_a_banned_person_for_anonymous(scene: Story) -> None:
    """Where everybody may, they do as nobody."""
    person = await sign_in(scene)
    change(scene, "banned")
    await asked_again(scene)

    assert (await person.get("/open")).status == 200
    assert scene.tool.requests[-1].value("X-Tailchat-Sub") is None


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("case", ["banned", "deleted", "guest", "app's bot"])
async def test_person_gets_a_page(scene: Story, case: str, language: str) -> None:
    """A page says why, whom to talk to, which account it is, and offers to look again."""
    person = await sign_in(scene)
    reason = change(scene, case)
    await asked_again(scene)

    page = await person.get("/x?a=1", **PAGE, Accept_Language=language)
    text = page.body.decode()

    assert page.status == 403
    for part in (f"403 {reason}", HOSHINO.sub, "Hoshino", 'href="/oauth2/sign_out"'):
        assert part in text
    assert f'href="{scene.url}/x?a=1"' in text


async def test_first_request_after_a_restart_waits_for_the_answer(scene: Story) -> None:
    """A session that this process does not know enters no tool before Tailchat has answered."""
    change(scene, "banned")
    person = with_cookie(scene)

    assert refusal(await person.get()) == (403, "banned")
    assert scene.tool.requests == []


async def test_many_first_requests_ask_once(scene: Story) -> None:
    """Requests of one person that come at once are one question."""
    person = with_cookie(scene)
    found = await asyncio.gather(*(person.get() for _ in range(20)))

    assert [response.status for response in found] == [200] * 20
    assert calls(scene) == 1


async def test_login_of_a_banned_person_is_refused(scene: Story) -> None:
    """Tailchat signs a banned person in silently; the callback refuses, and opens no session."""
    async with scene.visitor() as visitor:
        await visitor.sign_in(f"{scene.url}/", HOSHINO.email, HOSHINO.password)
        visitor.session.cookie_jar.clear(lambda cookie: cookie.key == "tailchat_gate")
        change(scene, "banned")

        page = await visitor.open(f"{scene.url}/")

        assert (page.status, "403 banned" in page.text) == (403, True)
        assert HOSHINO.sub in page.text
        assert "tailchat_gate" not in visitor.cookies(scene.url)


async def test_login_of_a_guest_is_refused(scene: Story) -> None:
    """The first sign-in of a guest is refused at once."""
    change(scene, "guest")
    async with scene.visitor() as visitor:
        page = await visitor.sign_in(f"{scene.url}/", HOSHINO.email, HOSHINO.password)

        assert (page.status, "403 guest-refused" in page.text) == (403, True)
    assert scene.tool.requests == []


async def test_lifted_ban_lets_in_again(scene: Story) -> None:
    """Once the ban is lifted, the person is in again by one silent sign-in."""
    async with scene.visitor() as visitor:
        await visitor.sign_in(f"{scene.url}/", HOSHINO.email, HOSHINO.password)
        person = at_tool(scene, visitor)
        change(scene, "banned")
        await asked_again(scene)
        assert refusal(await person.get()) == (403, "banned")

        scene.tailchat.store.change(HOSHINO.sub, banned=False)
        await asked_again(scene)
        page = await visitor.open(f"{scene.url}/")

        assert (page.status, page.url) == (200, f"{scene.url}/")


async def test_banned_person_who_looks_again_is_asked_about(scene: Story) -> None:
    """A request of somebody who is kept out has Tailchat asked about them later on."""
    person = await sign_in(scene)
    change(scene, "banned")
    await asked_again(scene)
    known = scene.gate.generation.process_state.tailchat.people
    known.about(float("inf"))
    assert len(known) == 0

    await person.get()

    assert len(known) == 1


async def test_ban_outlives_a_restart_while_tailchat_is_down(start: Start, tmp_path: Path) -> None:
    """The sign-ins of a banned person are over in the store, so no restart brings them back."""
    state = {"path": str(tmp_path)}
    scene = await start(state=state)
    person = await sign_in(scene)
    change(scene, "banned")
    await asked_again(scene)
    await scene.gate.server.stop()

    later = await start(state=state, tailchat={"api_url": "http://127.0.0.1:9"})
    again = Person(later, person.cookie, later.url.removeprefix("http://"))

    assert refusal(await again.get()) == (401, "session-ended")


async def test_guests_and_bots_may_enter_where_that_is_configured(start: Start) -> None:
    """With access.guests both are let in, and a banned one is not."""
    scene = await start(access={"guests": True})
    for case in ("guest", "app's bot", "plugin's bot"):
        change(scene, case)
        await asked_again(scene)
        assert (await with_cookie(scene).get()).status == 200
    change(scene, "banned guest")
    await asked_again(scene)

    assert refusal(await with_cookie(scene).get()) == (403, "banned")


async def test_name_and_picture_follow_without_a_sign_in(scene: Story) -> None:
    """The tool gets the new name and picture, and the browser keeps its cookie."""
    person = await sign_in(scene)
    scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    scene.tailchat.store.change(
        HOSHINO.sub,
        claims={**scene.tailchat.store.users[HOSHINO.sub].claims, "avatar": "https://a.test/b.png"},
    )
    await asked_again(scene)

    assert (await person.get()).status == 200
    assert nickname(scene) == "Renamed"
    assert scene.tool.requests[-1].value("X-Tailchat-Avatar") == b"https://a.test/b.png"
    assert person.renewals == []


async def test_outage_keeps_what_is_known(scene: Story, caplog: pytest.LogCaptureFixture) -> None:
    """While Tailchat fails, who is in stays in and who is out stays out; one line says so."""
    person, bob = await sign_in(scene), await sign_in(scene, BOB)
    scene.tailchat.store.change(BOB.sub, banned=True)
    await asked_again(scene, BOB.sub)
    scene.tailchat.store.change(HOSHINO.sub, banned=True)
    scene.tailchat.faults.actions[LIST] = DOWN
    for sub in (HOSHINO.sub, BOB.sub, HOSHINO.sub):
        await asked_again(scene, sub)

    assert (await person.get()).status == 200
    assert refusal(await bob.get()) == (403, "banned")
    assert [line.levelname for line in caplog.records if "about people" in line.message] == [
        "WARNING"
    ]

    del scene.tailchat.faults.actions[LIST]
    await asked_again(scene)
    assert refusal(await person.get()) == (403, "banned")


async def test_sign_in_passes_on_in_an_outage(scene: Story) -> None:
    """A login at which Tailchat says nothing of the account goes on; the next answer corrects."""
    change(scene, "banned")
    scene.tailchat.store.change(HOSHINO.sub, banned=False)
    scene.tailchat.faults.actions[LIST] = DOWN
    person = await sign_in(scene)
    scene.tailchat.store.change(HOSHINO.sub, banned=True)
    assert (await person.get()).status == 200

    del scene.tailchat.faults.actions[LIST]
    await asked_again(scene)

    assert refusal(await person.get()) == (403, "banned")


async def test_requests_wait_once_for_a_silent_tailchat(start: Start) -> None:
    """After one call without an answer nobody waits, until Tailchat answers again."""
    scene = await start(tailchat={"timeout": "3s"})
    hang = scene.tailchat.faults.actions[LIST] = Hang()

    assert (await with_cookie(scene).get()).status == 200
    assert (await with_cookie(scene, BOB.sub).get()).status == 200
    assert calls(scene) == 1
    hang.release()


def close_call(scene: Story, *, bot: bool) -> None:
    """Have Tailchat want a token; `bot`: the app has the capability of that name."""
    scene.tailchat.gateway.open_actions.discard(LIST)
    (app,) = scene.tailchat.store.apps.values()
    scene.tailchat.store.apps[app.client_id] = replace(app, bot=bot)


async def test_closed_call_is_switched_off_with_one_warning(
    scene: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """A Tailchat that wants a token is not asked again and again, and nobody is kept waiting."""
    close_call(scene, bot=False)
    with caplog.at_level(logging.WARNING, LOGGER_NAME):
        for sub in (HOSHINO.sub, BOB.sub):
            assert (await with_cookie(scene, sub).get()).status == 200
            await people(scene).confirm(sub)

    assert calls(scene) == 1
    assert len([one for one in caplog.records if "does not let the gate" in one.message]) == 1


async def test_closed_call_is_made_by_the_bot(scene: Story) -> None:
    """Where the app has a bot, its token opens the call, and is sent at once from then on."""
    close_call(scene, bot=True)
    change(scene, "banned")

    assert refusal(await with_cookie(scene).get()) == (403, "banned")
    assert calls(scene) == 2
    await people(scene).confirm(BOB.sub)
    assert calls(scene) == 3


async def test_401_for_the_bots_token_is_an_outage(
    scene: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """With a token a 401 can be an outage, so the call is not switched off for it."""
    scene.tailchat.faults.actions[LIST] = NOT_FOR_YOU
    assert (await with_cookie(scene).get()).status == 200
    del scene.tailchat.faults.actions[LIST]
    change(scene, "banned")
    await asked_again(scene)

    assert refusal(await with_cookie(scene).get()) == (403, "banned")
    assert not [one for one in caplog.records if "does not let the gate" in one.message]


ODD: Mapping[str, bytes] = {
    "fewer records": b"[]",
    "no list": b"{}",
    "another account": b'[{"_id":"660000000000000000000002","banned":true}]',
    "banned is a text": b'[{"_id":"660000000000000000000001","banned":"true"}]',
    "a record is a text": b'["banned"]',
}


@pytest.mark.parametrize("case", ODD)
async def test_odd_answer_says_nothing(scene: Story, case: str) -> None:
    """An answer of another form bans nobody, deletes nobody and keeps nobody waiting."""
    scene.tailchat.faults.actions[LIST] = Response(200, b'{"code":200,"data":%b}' % ODD[case])

    assert (await with_cookie(scene).get()).status == 200


async def test_only_tailchats_ids_are_asked(scene: Story) -> None:
    """A sub of another form would fail the call for everybody, so it is not asked about."""
    assert (await with_cookie(scene, "someone@else").get()).status == 200
    assert (await with_cookie(scene, "66" + "A" * 22).get()).status == 200
    assert calls(scene) == 0


async def test_rounds_ask_in_batches(start: Start) -> None:
    """Everybody who is about is asked about, in calls of at most 200."""
    scene = await start(tailchat={"people_refresh": "1s"})
    asked: list[int] = []
    answer = scene.tailchat.gateway.actions[LIST]

    def counted(params: Mapping[str, object], caller: Any) -> object:  # noqa: ANN401 - as Action
        subs = params["userIds"]
        assert isinstance(subs, list)
        asked.append(len(subs))
        return answer(params, caller)

    scene.tailchat.gateway.actions[LIST] = counted
    known = scene.gate.generation.process_state.tailchat.people
    for number in range(450):
        known.seen(f"77{number:022x}", scene.gate.generation.process_state.monotonic())
    await until(lambda: len(asked) >= 3)

    assert asked[:3] == [200, 200, 50]


async def test_long_names_of_others_hide_no_ban(start: Start) -> None:
    """Accounts with names of a megabyte do not keep the gate from reading about anybody else."""
    scene = await start(tailchat={"people_refresh": "1s"})
    process_state = scene.gate.generation.process_state
    for sub in tuple(scene.tailchat.store.users):
        process_state.tailchat.people.seen(sub, process_state.monotonic())
        if sub != HOSHINO.sub:
            scene.tailchat.store.rename(sub, "x" * 900_000)
    change(scene, "banned")
    await until(lambda: HOSHINO.sub in process_state.revocation.blocked())

    assert process_state.revocation.blocked() == {HOSHINO.sub: "banned"}
    known = process_state.tailchat.people.get(BOB.sub)
    assert known is not None
    assert isinstance(known.facts, Facts)
    assert known.facts.profile.nickname == "x" * 128


def test_later_answer_wins() -> None:
    """An answer that arrives after that to a later question changes nothing."""
    known = KnownPeople()
    known.seen(HOSHINO.sub, 0.0)
    facts = Facts(Profile(HOSHINO.sub, "New"))

    assert known.learn(HOSHINO.sub, facts, asked_at=2.0, facts_at=2.0)
    assert not known.learn(HOSHINO.sub, DELETED, asked_at=1.0, facts_at=1.0)
    found = known.get(HOSHINO.sub)
    assert found is not None
    assert found.facts is facts


async def changed(scene: Story, **sections: dict[str, object]) -> None:
    """Put another configuration into force."""
    before = scene.gate.generation
    document = before.settings.model_dump(mode="json")
    for name, values in sections.items():
        document[name] |= values
    document["tailchat"]["client_secret"] = CLIENT_SECRET
    document["session"]["secrets"] = [SECRET]
    settings = Settings.model_validate(document)
    built = await asyncio.to_thread(build, settings, before.process_state)
    await scene.gate.server.swap(built)


async def test_reload_judges_guests_again(scene: Story) -> None:
    """What is known of people is judged by each configuration, also of those not seen for long."""
    person = await sign_in(scene)
    change(scene, "guest")
    await asked_again(scene)
    assert refusal(await person.get()) == (403, "guest-refused")

    scene.gate.generation.process_state.tailchat.people.about(float("inf"))
    await changed(scene, access={"guests": True})
    assert (await person.get()).status == 200

    await changed(scene, access={"guests": False})
    assert refusal(await person.get()) == (403, "guest-refused")


async def test_switching_it_off_keeps_nobody_out(scene: Story) -> None:
    """With people_refresh = 0 nobody would learn that a ban is lifted, so none counts."""
    person = await sign_in(scene)
    change(scene, "guest")
    await asked_again(scene)
    await changed(scene, tailchat={"people_refresh": "0"})

    assert (await person.get()).status == 200


async def test_metrics_and_audit(scene: Story, caplog: pytest.LogCaptureFixture) -> None:
    """The audit log has who is kept out and let in; metrics count them."""
    process_state = scene.gate.generation.process_state
    with caplog.at_level(logging.INFO):
        await sign_in(scene)
        change(scene, "banned")
        await asked_again(scene)
        assert b"gate_people_blocked 1.0" in process_state.metrics.render()
        scene.tailchat.store.change(HOSHINO.sub, banned=False)
        await asked_again(scene)
    events = [line.__dict__["details"] for line in caplog.records if line.message == "audit"]

    assert {"event": "account-blocked", "sub": HOSHINO.sub, "reason": "banned"} in events
    assert {"event": "account-let-in", "sub": HOSHINO.sub} in events
    text = process_state.metrics.render()
    assert b"gate_people_blocked 0.0" in text
    assert b"gate_people 1.0" in text
    assert b'gate_sessions_ended_total{why="banned"} 1.0' in text


async def test_nothing_is_asked_where_it_is_off(start: Start) -> None:
    """With people_refresh = 0 no call is made, and everybody enters as before."""
    scene = await start(tailchat={"people_refresh": "0"})
    person = await sign_in(scene)

    assert (await person.get()).status == 200
    assert calls(scene) == 0
