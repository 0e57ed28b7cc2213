"""The machine's clock runs ahead by hours and is set back, or the other way round."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatekit import ALICE, START, Clock, RawUpstream, ask, request_bytes, until
from storekit import StoredEntries

from tailchat_gate.identity.oauth.redemptions import AlreadyUsed, Redemptions, TooManyLogins
from tailchat_gate.identity.revocation.records import ROOM
from tailchat_gate.identity.revocation.state import (
    ALL,
    EndedSession,
    Lock,
    RevocationState,
    SignedOut,
)
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.observe.audit import Audit, Person
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.state.sqlite.files import NAME

Start = Callable[..., Any]

NOW = int(START)
HOUR = 3600
AHEAD = 2 * HOUR
RECORD = SessionRecord.begin(ALICE, now=START, login="l")
LOCK = Lock(f"sub:{RECORD.sub}", NOW, NOW + HOUR)
ENDED = EndedSession(RECORD.sid, RECORD.sub, NOW, NOW + HOUR)


def test_a_lock_and_an_end_hold_after_the_clock_ran_ahead(clock: Clock) -> None:
    """What was over by a clock two hours ahead, and swept, holds again when it is set back."""
    for entry, reason in ((LOCK, Reason.LOCKED), (ENDED, Reason.SESSION_ENDED)):
        revocation = RevocationState(clock)
        revocation.apply(entry)
        clock.now += AHEAD
        assert revocation.locks == ()
        kept = revocation.entries()
        revocation.renew(kept)
        clock.now -= AHEAD

        assert revocation.check(RECORD) is reason
        assert kept == [entry]


def test_a_file_that_was_made_shorter_meanwhile_keeps_them(tmp_path: Path, clock: Clock) -> None:
    """A writer whose clock ran ahead takes no lock out of the file."""
    stored = StoredEntries(tmp_path, clock)
    stored.append((LOCK, ENDED))
    clock.now += AHEAD
    stored.append(EndedSession("x", f"66{number}", NOW, NOW) for number in range(ROOM))
    clock.now -= AHEAD

    assert set(stored.read()) >= {LOCK, ENDED}


def test_a_lock_that_was_lifted_meanwhile_stays_lifted(clock: Clock) -> None:
    """A history that says nothing of a lock lifts it, though its time seemed to be over."""
    revocation = RevocationState(clock)
    revocation.apply(LOCK)
    clock.now += AHEAD
    revocation.renew([])
    clock.now -= AHEAD

    assert revocation.check(RECORD) is None


async def test_a_timed_lock_of_a_running_gate(
    start_gate: Start, upstream: RawUpstream, clock: Clock, tmp_path: Path
) -> None:
    """Two hours ahead and back, and somebody locked for an hour is refused, over the real file."""
    stored = StoredEntries(tmp_path, clock)
    await asyncio.to_thread(stored.append, (LOCK,))
    gate = await start_gate(upstream.url, state={"path": str(tmp_path)})
    clock.now += AHEAD
    # What the gate knows is written to a new file, and read from it.
    await asyncio.to_thread((tmp_path / NAME).unlink)
    await until((tmp_path / NAME).exists)
    while LOCK not in await asyncio.to_thread(stored.read):  # noqa: ASYNC110 - it is a file
        await asyncio.sleep(0.01)
    clock.now -= AHEAD

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))
    assert response.status == 403


async def test_who_signs_in_after_a_sign_out_of_all_under_a_clock_ahead(
    start_gate: Start, upstream: RawUpstream, clock: Clock
) -> None:
    """Their session, which is of the second after, is good; those from before it are over."""
    gate = await start_gate(upstream.url)
    gate.generation.process_state.revocation.apply(
        SignedOut(ALL, NOW + AHEAD, NOW + AHEAD + 8 * HOUR)
    )
    found = []
    for signed_in_at in (NOW - 60, NOW, NOW + AHEAD - 600, NOW + AHEAD + 1, NOW + AHEAD + 600):
        cookie = gate.cookie(signed_in_at=signed_in_at)
        found.append((await ask(gate.port, request_bytes(Cookie=cookie))).status)

    assert found == [401, 401, 401, 200, 401]


async def test_a_state_that_was_redeemed_is_redeemed_once(clock: Clock) -> None:
    """A clock that ran ahead and was set back does not make a used login state good again."""
    states: Redemptions[str] = Redemptions(clock=clock)

    async def redeemed() -> str:
        return "x"

    await states.redeem_once("a", clock.now + AHEAD, redeemed)
    clock.now += AHEAD + HOUR
    await states.redeem_once("b", clock.now + AHEAD, redeemed)
    clock.now -= AHEAD + HOUR

    with pytest.raises(AlreadyUsed):
        await states.redeem_once("a", clock.now + AHEAD, redeemed)


async def test_states_that_are_kept_for_longer_make_room(clock: Clock) -> None:
    """Where all is full those that have expired go first; those that are good still do not."""
    states: Redemptions[str] = Redemptions(clock=clock, capacity=10)

    async def redeemed() -> str:
        return "x"

    for number in range(10):
        await states.redeem_once(str(number), clock.now + AHEAD, redeemed)
    with pytest.raises(TooManyLogins):
        await states.redeem_once("more", clock.now + AHEAD, redeemed)
    clock.now += AHEAD + HOUR
    assert await states.redeem_once("more", clock.now + AHEAD, redeemed) == "x"
    assert repr(states) == "<Redemptions 0 running, 1 used>"


def test_refusals_are_told_after_the_clock_was_set_back(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal that was told under a clock ahead is told again at once."""
    caplog.set_level(logging.INFO)
    audit, context = Audit(clock), RequestContext("id", 0.0, route="r", reason=Reason.DENIED)
    clock.now += AHEAD
    audit.refused(context, Person("s", "n", "1"))
    clock.now -= AHEAD
    audit.refused(context, Person("s", "n", "1"))

    assert [json.dumps(vars(record)["details"]["count"]) for record in caplog.records] == ["1", "2"]
