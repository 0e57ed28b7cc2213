"""Refresh tokens over several processes: one uses a token, the others have its outcome."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from gatekit import (
    ALICE,
    START,
    SUB,
    Clock,
    RawUpstream,
    ask,
    make_settings,
    request_bytes,
    running_gate,
)
from processkit import gate_process
from recheckkit import DAY, HOUR, OFFLINE, refresh_tokens, stand_in_and_client
from storykit import CLIENT_ID, CLIENT_SECRET, served
from usual_faults import BROKEN

from tailchat_gate.demo.faults import Fault, Hang
from tailchat_gate.demo.faults import Response as Said
from tailchat_gate.demo.store import App
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.identity import token_refresh as module
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.responses import TokenSet
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.token_refresh import OWNER_SECONDS, RefreshTokens
from tailchat_gate.reasons import Reason
from tailchat_gate.state import waiting
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.store import Reservation, ReservationStatus

OLD = 8 * DAY
NEW_TOKENS = Said(
    200,
    b'{"access_token":"a2","refresh_token":"r2","token_type":"Bearer","expires_in":3600}',
)
WITHDRAWN = Said(400, b'{"error":"invalid_grant","error_description":"grant request is invalid"}')


def session(age: float = 0.0) -> SessionRecord:
    """Return a session that began so many seconds ago, with tokens that have expired."""
    tokens = TokenSet("a1", refresh_token="r1", expires_at=int(START) - 1)
    return SessionRecord.begin(ALICE, now=START - age, login="l", tokens=tokens)


@dataclass
class Room:
    """Processes that share a store, and the Tailchat that they ask."""

    tailchat: StandInTailchat
    client: TailchatClient
    clock: Clock
    store: MemoryStore
    processes: list[RefreshTokens] = field(default_factory=list)

    def process(self) -> RefreshTokens:
        """Return one more process, which has read nothing of the store yet."""
        return refresh_tokens(self.client, self.clock, self.store)

    def says(self, fault: Fault | None) -> None:
        """Have /open/token answer so."""
        self.tailchat.faults.token = fault

    @property
    def sent(self) -> int:
        """How often a refresh token was sent."""
        return self.tailchat.seen["token"].count


@pytest.fixture
async def room(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    """Return a room in which the processes look for an outcome every few milliseconds."""
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.005)
    async with stand_in_and_client(clock) as (tailchat, client):
        tailchat.faults.token = NEW_TOKENS
        yield Room(tailchat, client, clock, MemoryStore(clock))


async def refusal(process: RefreshTokens, record: SessionRecord) -> tuple[Reason, str]:
    """Return why a session gets no new tokens."""
    with pytest.raises(LoginRefused) as caught:
        await process.refreshed(record)
    return caught.value.reason, caught.value.detail.get("problem", "")


async def abandoned(room: Room, record: SessionRecord) -> None:
    """Let a process die while Tailchat has its refresh token and has not answered."""
    hang = Hang()
    room.says(hang)
    dying = asyncio.create_task(room.process().refreshed(record))
    await hang.started.wait()
    dying.cancel()
    await asyncio.wait((dying,))
    room.says(NEW_TOKENS)
    hang.release()


@pytest.mark.parametrize("age", [0.0, OLD])
async def test_others_wait_for_the_outcome_and_take_it_over(room: Room, age: float) -> None:
    """Three processes need new tokens at once: one sends, all have the same ones."""
    record = session(age)
    found = await asyncio.gather(*(room.process().refreshed(record) for _ in range(3)))

    assert [one.refresh_token for one in found] == ["r2"] * 3
    assert found[0] == record._replace(
        access_token="a2", refresh_token="r2", access_expires_at=int(START) + 3600
    )
    assert room.sent == 1


async def test_the_end_of_a_grant_is_everybodys(room: Room) -> None:
    """What Tailchat withdraws at one process is not sent to it by another."""
    room.says(WITHDRAWN)
    first, second = room.process(), room.process()
    record = session(OLD)

    assert (await refusal(first, record))[0] is Reason.SESSION_REVOKED
    assert (await refusal(second, record))[0] is Reason.SESSION_REVOKED
    assert room.sent == 1


async def test_the_same_token_is_used_with_each_access_token(room: Room) -> None:
    """Tailchat returns one refresh token for days: each use of it is one, and is made once."""
    process, record = room.process(), session()
    for number in range(3):
        room.says(
            Said(
                200,
                b'{"access_token":"b%d","refresh_token":"r1","token_type":"Bearer",'
                b'"expires_in":%d}' % (number, 3600 + number),
            )
        )
        record = await process.refreshed(record)
        assert (record.access_token, record.refresh_token) == (f"b{number}", "r1")

    assert room.sent == 3


async def test_an_older_cookie_finds_the_newest_tokens(room: Room) -> None:
    """A cookie of another host, days later, gets what the session has by then; nothing is sent."""
    process, record = room.process(), session()
    newest = await process.refreshed(record)
    room.clock.now += 2 * DAY

    assert await process.refreshed(record) == newest
    assert room.sent == 1


async def test_a_young_token_of_a_dead_process_is_used_again(room: Room) -> None:
    """In its first week Tailchat returns the same token, so the session lives on."""
    record = session()
    await abandoned(room, record)
    room.clock.now += OWNER_SECONDS
    found = await asyncio.gather(*(room.process().refreshed(record) for _ in range(2)))

    assert {one.refresh_token for one in found} == {"r2"}
    assert room.sent == 2


async def test_an_old_token_of_a_dead_process_is_never_used_again(room: Room) -> None:
    """Nobody knows whether it is spent: for a minute that is an outage, then the session ends."""
    record = session(OLD)
    await abandoned(room, record)
    room.clock.now += OWNER_SECONDS
    assert (await refusal(room.process(), record))[0] is Reason.RECHECK_FAILED
    room.clock.now += module.LOST_SECONDS
    reason, problem = await refusal(room.process(), record)

    assert reason is Reason.SESSION_REVOKED
    assert problem == "Tailchat's answer to the session's refresh token is lost"
    assert room.sent == 1


async def test_an_old_token_without_an_answer_is_not_sent_again(room: Room) -> None:
    """Nor does the process that sent it: Tailchat may have replaced it before it failed."""
    process, record = room.process(), session(OLD)
    room.says(BROKEN)
    assert (await refusal(process, record))[0] is Reason.TAILCHAT_BROKEN
    room.says(NEW_TOKENS)
    room.clock.now += module.LOST_SECONDS

    assert (await refusal(process, record))[0] is Reason.SESSION_REVOKED
    assert room.sent == 1


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (0.0, BROKEN),
        (OLD, Said(429, b"{}")),
        (OLD, Said(401, b'{"error":"invalid_client"}')),
    ],
)
async def test_what_spent_nothing_is_tried_again(room: Room, age: float, said: Said) -> None:
    """A refusal before Tailchat looked at the token, or a young token, leaves it usable by all."""
    record = session(age)
    room.says(said)
    await refusal(room.process(), record)
    room.says(NEW_TOKENS)
    room.clock.now += HOUR

    assert (await room.process().refreshed(record)).refresh_token == "r2"
    assert room.sent == 2


class _Away(MemoryStore):
    """A store that cannot be reached."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.released = 0

    async def reserve(self, kind: str, key: str, *, until: float, room: int) -> Reservation:
        del kind, key, until, room
        return Reservation(ReservationStatus.UNAVAILABLE)

    async def release(self, kind: str, key: str) -> None:
        del kind, key
        self.released += 1


async def test_without_the_store_only_young_tokens_are_used(room: Room) -> None:
    """Where nobody can say what another process does, an old token waits, as in an outage."""
    room.store = away = _Away(room.clock)

    assert (await room.process().refreshed(session())).refresh_token == "r2"
    assert (await refusal(room.process(), session(OLD)))[0] is Reason.RECHECK_FAILED
    assert (room.sent, away.released) == (1, 1)


class Refreshes:
    """Counts the refreshes that reach Tailchat, and holds the first one back."""

    def __init__(self) -> None:
        self.count = 0
        self.hang = Hang()

    @web.middleware
    async def hold(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Handle one request."""
        # A gate that starts asks at the same address whether people can sign in.
        if (await request.post()).get("grant_type") == "refresh_token":
            self.count += 1
            if self.count == 1:
                await self.hang.wait()
            return web.Response(body=NEW_TOKENS.body, content_type="application/json")
        return await handler(request)


@pytest.mark.parametrize(("age", "status", "sent"), [(0.0, 200, 2), (OLD, 401, 1)])
async def test_a_gate_is_killed_while_it_refreshes(
    tmp_path: Path, upstream: RawUpstream, age: float, status: int, sent: int
) -> None:
    """Another gate on its store lets the person go on, or has them sign in again, by the rule."""
    refreshes, now = Refreshes(), time.time()
    tailchat = StandInTailchat(apps=[App(CLIENT_ID, CLIENT_SECRET, ())], clock=time.time)
    tailchat.faults.me = Said(200, b'{"sub":"%s","nickname":"Alicia"}' % SUB.encode())
    app = tailchat.app()
    app.middlewares.append(refreshes.hold)
    async with served(app) as port:
        tables: dict[str, Any] = {
            "tailchat": {
                "api_url": f"http://127.0.0.1:{port}",
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "scope": OFFLINE,
            },
            "session": {"recheck": "15m", "lifetime": "30d"},
            "state": {"path": str(tmp_path)},
        }
        # An hour later, as the other gate sees it.
        settings, later = make_settings(upstream.url, **tables), Clock(now + HOUR)
        async with running_gate(settings, tmp_path / "log", later) as other:
            tokens = TokenSet("a1", refresh_token="r1", expires_at=int(now) - 1)
            began = now - DAY - age
            record = SessionRecord.begin(ALICE, now=began, login="l", tokens=tokens)
            data = request_bytes(Cookie=other.seal(record))
            async with gate_process(tmp_path, upstream.url, **tables) as first:
                asking = asyncio.create_task(ask(first.port, data))
                await refreshes.hang.started.wait()
                first.process.kill()
                await first.process.wait()
                await asyncio.wait((asking,))
                assert asking.exception() is not None
            refreshes.hang.release()
            response = await ask(other.port, data)

    assert (response.status, refreshes.count) == (status, sent)
