"""The gate's bot signs in at the stand-in Tailchat and calls its actions."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from gatekit import Clock
from pydantic import SecretStr
from storykit import served
from tailchat_browser import APP

from tailchat_gate.demo.faults import Response
from tailchat_gate.demo.gateway import CACHED_SECONDS, LOGIN, Bots, bot_sub
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.identity.oauth.back_channel import BackChannel
from tailchat_gate.people.api import CannotTell, Done, Refused, TailchatApi
from tailchat_gate.people.bot import RETRY_SECONDS, Bot
from tailchat_gate.reasons import Reason

GROUPS = "group/getUserGroups"
MONTH = 30 * 86_400
FROZEN_REDIS = Response(
    401,
    b'{"name":"UnAuthorizedError","message":"401","code":401,"type":"INVALID_TOKEN",'
    b'"data":{"name":"RequestTimeoutError"}}',
)


@pytest.fixture
def stand_in(clock: Clock) -> StandInTailchat:
    """Return a stand-in that goes by the test's clock."""
    return StandInTailchat(apps=(APP,), clock=clock)


@pytest.fixture
async def api(stand_in: StandInTailchat, clock: Clock) -> AsyncIterator[TailchatApi]:
    """Return the calls of the stand-in's actions."""
    async with served(stand_in.app()) as port:
        channel = BackChannel(f"http://127.0.0.1:{port}")
        yield TailchatApi(channel, clock=clock)
        await channel.close()


@pytest.fixture
def bot(api: TailchatApi, clock: Clock) -> Bot:
    """Return the app's bot."""
    return Bot(api, APP.client_id, SecretStr(APP.client_secret), clock)


def logins(stand_in: StandInTailchat) -> int:
    """Return how often a bot asked to sign in."""
    return stand_in.seen[LOGIN].count


async def test_one_sign_in_serves_many_calls(bot: Bot, stand_in: StandInTailchat) -> None:
    """The bot signs in with the app's id and secret, once, and is a user of its own."""
    for _ in range(3):
        assert await bot.call(GROUPS, {}) == Done([])

    assert logins(stand_in) == 1
    assert bot.sub == bot_sub(APP.client_id)
    assert bot.problem == ""


async def test_token_is_replaced_before_it_ends(
    bot: Bot, stand_in: StandInTailchat, clock: Clock
) -> None:
    """Days before the month is over the bot signs in again, and not earlier."""
    await bot.call(GROUPS, {})
    clock.now += 0.89 * MONTH
    await bot.call(GROUPS, {})
    assert logins(stand_in) == 1

    clock.now += 0.02 * MONTH
    assert await bot.call(GROUPS, {}) == Done([])
    assert logins(stand_in) == 2


async def test_failed_renewal_keeps_the_older_token(
    bot: Bot, stand_in: StandInTailchat, clock: Clock
) -> None:
    """While the sign-in fails the bot goes on with a token that Tailchat still takes."""
    await bot.call(GROUPS, {})
    clock.now += 0.95 * MONTH
    stand_in.faults.actions[LOGIN] = Response(503, b"{}")

    assert await bot.call(GROUPS, {}) == Done([])
    assert bot.problem == "status 503"


async def test_core_that_was_restarted_alone(
    bot: Bot, stand_in: StandInTailchat, clock: Clock
) -> None:
    """A sign-in that Tailchat takes for a closed action succeeds with the older token."""
    await bot.call(GROUPS, {})
    clock.now += 0.95 * MONTH
    stand_in.gateway.open_actions.discard(LOGIN)
    assert await bot.call(GROUPS, {}) == Done([])
    assert bot.problem == ""

    clock.now += 60
    await bot.call(GROUPS, {})
    assert logins(stand_in) == 3  # the one refused without a token included


async def test_core_that_was_restarted_alone_before_the_first_sign_in(
    bot: Bot, stand_in: StandInTailchat
) -> None:
    """Without an older token it is an outage, which says nothing about anybody."""
    stand_in.gateway.open_actions.discard(LOGIN)

    found = await bot.call(GROUPS, {})

    assert isinstance(found, Refused)
    assert bot.problem == "401 NO_TOKEN"


async def test_revoked_token_is_replaced_at_once(
    bot: Bot, stand_in: StandInTailchat, clock: Clock
) -> None:
    """A token that Tailchat no longer takes costs one more sign-in, and no call fails."""
    await bot.call(GROUPS, {})
    stand_in.store.api_tokens.clear()
    clock.now += 1  # two sign-ins within a second give the same token

    assert await bot.call(GROUPS, {}) == Done([])
    assert logins(stand_in) == 2


async def test_unauthorized_call_is_an_outage(bot: Bot, stand_in: StandInTailchat) -> None:
    """With a Redis that does not answer Tailchat calls every token invalid: no statement."""
    stand_in.faults.actions[GROUPS] = FROZEN_REDIS

    found = await bot.call(GROUPS, {})

    assert found == CannotTell(Reason.TAILCHAT_BROKEN, "status 401 INVALID_TOKEN")


async def test_missing_capability_is_told_and_counts_once_it_is_there(
    bot: Bot, stand_in: StandInTailchat, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what to switch on, once; after that the next try works."""
    stand_in.store.apps[APP.client_id] = replace(APP, bot=False)
    for _ in range(3):
        found = await bot.call(GROUPS, {})
        assert isinstance(found, Refused)
        assert found.status == 500
    assert logins(stand_in) == 1

    stand_in.store.apps[APP.client_id] = APP
    clock.now += RETRY_SECONDS
    assert await bot.call(GROUPS, {}) == Done([])
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "switch on the bot" in str(errors[0].__dict__["details"])


async def test_wrong_secret_is_refused_for_as_long_as_tailchat_remembers_it(
    api: TailchatApi, stand_in: StandInTailchat, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A secret that became right counts an hour later, and stands in no log or repr."""
    bot = Bot(api, APP.client_id, SecretStr("the-later-secret"), clock)
    assert isinstance(await bot.call(GROUPS, {}), Refused)
    stand_in.store.apps[APP.client_id] = replace(APP, client_secret="the-later-secret")
    clock.now += CACHED_SECONDS - 1
    assert isinstance(await bot.call(GROUPS, {}), Refused)
    clock.now += RETRY_SECONDS
    assert await bot.call(GROUPS, {}) == Done([])

    token = next(iter(stand_in.store.api_tokens))
    told = f"{[record.__dict__ for record in caplog.records]} {bot!r}"
    assert "the-later-secret" not in told
    assert token not in told


async def test_token_of_an_hour(
    bot: Bot, stand_in: StandInTailchat, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that does not say when it ends is replaced after a day."""
    monkeypatch.setattr(Bots, "token_of", _plain_token)
    await bot.call(GROUPS, {})
    clock.now += 80_000
    await bot.call(GROUPS, {})
    assert logins(stand_in) == 2


def _plain_token(bots: Bots, sub: str) -> str:
    bots._store.api_tokens["opaque"] = sub
    return "opaque"


@pytest.mark.parametrize("data", [b"null", b"{}", b'{"jwt":1,"userId":"a"}', b'{"jwt":"\xc3\xa9"}'])
async def test_sign_in_without_a_token(bot: Bot, stand_in: StandInTailchat, data: bytes) -> None:
    """An answer that is no sign-in is an outage."""
    stand_in.faults.actions[LOGIN] = Response(200, b'{"code":200,"data":%b}' % data)

    assert isinstance(await bot.call(GROUPS, {}), CannotTell)
    assert bot.problem == "a sign-in without a token"
