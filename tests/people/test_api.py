"""Calls of the actions of Tailchat's gateway, against the stand-in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from gatekit import Clock
from storykit import served
from tailchat_browser import APP
from usual_faults import HTML

from tailchat_gate.demo.faults import Close, Fault, Hang, Response
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.demo.users import USERS
from tailchat_gate.identity.oauth.back_channel import BackChannel
from tailchat_gate.people.api import CannotTell, Done, Refused, TailchatApi
from tailchat_gate.reasons import Reason

INFO = "user/getUserInfo"
LIST = "user/getUserInfoList"
SEARCH = "user/searchUserWithUniqueName"
HOSHINO, BOB = USERS[0], USERS[1]
UNKNOWN = "77" * 12

Connect = Callable[..., Awaitable[TailchatApi]]


@pytest.fixture
def stand_in(clock: Clock) -> StandInTailchat:
    """Return a stand-in that goes by the test's clock."""
    return StandInTailchat(apps=(APP,), clock=clock)


@pytest.fixture
async def connect(stand_in: StandInTailchat, clock: Clock) -> AsyncIterator[Connect]:
    """Return a function that connects to the stand-in; arguments as BackChannel."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(served(stand_in.app()))

        async def start(**arguments: float) -> TailchatApi:
            channel = BackChannel(f"http://127.0.0.1:{port}", **arguments)  # type: ignore[arg-type]
            stack.push_async_callback(channel.close)
            return TailchatApi(channel, clock=clock, observe=lambda *told: seen.append(told))

        seen: list[tuple[object, ...]] = []
        yield start


@pytest.fixture
async def api(connect: Connect) -> TailchatApi:
    """Return the calls of the stand-in's actions."""
    return await connect()


async def test_people_come_in_the_order_asked(api: TailchatApi) -> None:
    """The list has an entry for each id, in order, and null for an unknown one."""
    found = await api.call(LIST, {"userIds": [BOB.sub, UNKNOWN, HOSHINO.sub]})

    assert isinstance(found, Done)
    assert isinstance(found.data, list)
    assert [entry and entry["_id"] for entry in found.data] == [BOB.sub, None, HOSHINO.sub]
    assert found.data[0] == {
        "_id": BOB.sub,
        "email": "bob@demo.example",
        "nickname": "Plain Bob",
        "discriminator": "7",
        "temporary": False,
        "type": "normalUser",
        "emailVerified": False,
        "banned": False,
        "createdAt": "2026-01-01T00:00:00.000Z",
    }


async def test_malformed_id_fails_the_whole_call(api: TailchatApi) -> None:
    """One id that is none fails the call for all of them, by a status of Tailchat's own."""
    found = await api.call(LIST, {"userIds": [BOB.sub, "nobody"]})

    assert found == Refused(442, "EntityError", "", "Include invalid userId")


async def test_action_that_needs_a_token(api: TailchatApi, stand_in: StandInTailchat) -> None:
    """Without a token it is refused, with a good one in X-Token it is done."""
    stand_in.store.api_tokens["the-token"] = HOSHINO.sub
    asked = {"uniqueName": "Plain Bob#7"}

    without = await api.call(SEARCH, asked)
    with_wrong = await api.call(SEARCH, asked, "another-token")
    with_right = await api.call(SEARCH, asked, "the-token")

    assert without == Refused(401, "UnAuthorizedError", "NO_TOKEN", "401")
    assert with_wrong == Refused(401, "UnAuthorizedError", "INVALID_TOKEN", "401")
    assert without.is_closed
    assert isinstance(with_right, Done)
    assert isinstance(with_right.data, dict)
    assert with_right.data["_id"] == BOB.sub


async def test_unknown_action_is_closed(api: TailchatApi, stand_in: StandInTailchat) -> None:
    """An action that Tailchat does not have is refused as one that is not for the caller."""
    stand_in.gateway.open_actions.add("user/none")

    found = await api.call("user/none", {})

    assert isinstance(found, Refused)
    assert (found.status, found.name, found.is_closed) == (404, "ServiceNotFoundError", True)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (HTML, Reason.TAILCHAT_BROKEN),
        (Close(), Reason.TAILCHAT_BROKEN),
        (Response(200, b'{"code":200,"code":500}'), Reason.TAILCHAT_BROKEN),
        (Response(200, b"[]"), Reason.TAILCHAT_BROKEN),
        (Response(200, b'{"data":null}'), Reason.TAILCHAT_BROKEN),
        (Response(401, b"{}"), Reason.TAILCHAT_BROKEN),
        (Response(503, b'{"name":"ServiceNotAvailableError","code":503}'), Reason.TAILCHAT_BROKEN),
        (Response(504, b'{"name":"RequestTimeoutError","code":504}'), Reason.TAILCHAT_BROKEN),
        (Response(302, b"{}", headers={"Location": "/"}), Reason.TAILCHAT_BROKEN),
        (Response(429, b"{}"), Reason.TAILCHAT_BUSY),
        (Response(200, b'{"code":200,"data":"' + b"x" * 2**20 + b'"}'), Reason.TAILCHAT_BROKEN),
    ],
)
async def test_unreadable_answer_tells_nothing(
    api: TailchatApi, stand_in: StandInTailchat, fault: Fault, reason: Reason
) -> None:
    """What is not Tailchat's form is neither a result nor a refusal."""
    stand_in.faults.actions[INFO] = fault

    found = await api.call(INFO, {"userId": BOB.sub})

    assert isinstance(found, CannotTell)
    assert found.reason is reason


async def test_larger_answer_is_read_where_the_caller_allows_it(
    api: TailchatApi, stand_in: StandInTailchat
) -> None:
    """The caller sets how many bytes of an answer are read."""
    stand_in.faults.actions[INFO] = Response(200, b'{"code":200,"data":"' + b"x" * 2**20 + b'"}')

    assert isinstance(await api.call(INFO, {}, limit=2**21), Done)


async def test_call_ends_in_time(connect: Connect, stand_in: StandInTailchat) -> None:
    """A Tailchat that never answers is an outage after the time limit."""
    hang = stand_in.faults.actions[INFO] = Hang()
    api = await connect(timeout=2.0)

    found = await api.call(INFO, {"userId": BOB.sub})

    assert hang.started.is_set()
    assert found == CannotTell(Reason.TAILCHAT_SLOW, "no answer in time")
    hang.release()


async def test_no_call_while_tailchat_asks_for_fewer(
    api: TailchatApi, stand_in: StandInTailchat, clock: Clock
) -> None:
    """After a 429 no call is made for the seconds that it names."""
    stand_in.faults.actions[INFO] = Response(429, b"{}", headers={"Retry-After": "7"})
    await api.call(INFO, {})
    del stand_in.faults.actions[INFO]

    clock.now += 6
    early = await api.call(INFO, {"userId": BOB.sub})
    clock.now += 1
    late = await api.call(INFO, {"userId": BOB.sub})

    assert early == CannotTell(Reason.TAILCHAT_BUSY, "it asked for fewer calls")
    assert isinstance(late, Done)
    assert stand_in.seen[INFO].count == 2


async def test_message_that_quotes_the_token_is_dropped(
    api: TailchatApi, stand_in: StandInTailchat
) -> None:
    """An error's text is kept only where it does not repeat a secret of the call."""
    token = "a-long-token-that-is-secret"
    echo = b'{"name":"Error","message":"no such token: %b","code":500}'
    stand_in.faults.actions[INFO] = Response(500, echo % token.encode())

    by_header = await api.call(INFO, {}, token)
    by_body = await api.call(INFO, {"token": token})
    other = await api.call(INFO, {}, "quite-another-secret-one")

    assert by_header == by_body == Refused(500, "Error")
    assert isinstance(other, Refused)
    assert other.message == f"no such token: {token}"


async def test_concurrent_calls(api: TailchatApi) -> None:
    """Calls at the same time do not wait for one another."""
    found = await asyncio.gather(*(api.call(INFO, {"userId": BOB.sub}) for _ in range(20)))

    assert all(isinstance(one, Done) for one in found)
