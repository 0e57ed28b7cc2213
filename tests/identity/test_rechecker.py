"""Who asks Tailchat again: one question a sign-in, few at once, all within bounds."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from gatekit import ALICE, START, SUB, Clock, until
from recheckkit import refresh_tokens, stand_in_and_client
from usual_faults import BROKEN

from tailchat_gate.demo.faults import Fault, Hang
from tailchat_gate.demo.faults import Response as Said
from tailchat_gate.demo.tailchat import StandInTailchat
from tailchat_gate.identity import rechecker as module
from tailchat_gate.identity import sign_ins
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.responses import TokenSet
from tailchat_gate.identity.recheck import (
    RETRY_SECONDS,
    RecheckRefused,
    RecheckResult,
    RecheckTerms,
)
from tailchat_gate.identity.rechecker import AT_ONCE, OF_ONE, QUEUE, Rechecker
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sign_ins import PendingRecheck, SignIn, SignIns
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import LOGGER_NAME, FaultLog
from tailchat_gate.reasons import Reason

INTERVAL = 900.0
ALICE_SAYS = Said(200, json.dumps({"sub": SUB, "nickname": "Alicia"}).encode())


def signed_in(number: int = 0) -> SessionRecord:
    """Return a session of its own, with a token."""
    record = SessionRecord.begin(ALICE, now=START, login="l", tokens=TokenSet(f"token-{number}"))
    return record._replace(sid=f"sid-{number}")


@dataclass
class Room:
    """A rechecker, the Tailchat it asks, and what it told."""

    tailchat: StandInTailchat
    client: TailchatClient
    clock: Clock
    sign_ins: SignIns = field(default_factory=SignIns)
    ended: list[SessionRecord] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    timeout: float = 5.0

    def rechecker(self) -> Rechecker:
        """Return a rechecker, one of several over the same knowledge."""
        return Rechecker(
            RecheckTerms(INTERVAL, "keep"),
            self.client,
            sign_ins=self.sign_ins,
            tokens=refresh_tokens(self.client, self.clock),
            end=self.ended.append,
            timeout=self.timeout,
            clock=self.clock,
            observe=self.outcomes.append,
            audit=Audit(self.clock),
            faults=FaultLog(self.clock),
        )

    def says(self, fault: Fault) -> None:
        """Have /open/me answer so."""
        self.tailchat.faults.me = fault

    @property
    def asked(self) -> int:
        """How often /open/me was asked."""
        return self.tailchat.seen["me"].count


@pytest.fixture
async def room(clock: Clock) -> AsyncIterator[Room]:
    """Return a room whose Tailchat knows Alice under a new name."""
    async with stand_in_and_client(clock) as (tailchat, client):
        tailchat.faults.me = ALICE_SAYS
        yield Room(tailchat, client, clock)


async def test_a_question_and_its_answer(room: Room, clock: Clock) -> None:
    """A look at a session that is due brings a question about, and its answer shows at the next."""
    rechecker, record = room.rechecker(), signed_in()
    clock.now += INTERVAL
    assert rechecker.look(record, clock()) == RecheckResult(record, clock())
    await until(lambda: room.outcomes == ["ok"])
    found = rechecker.look(record, clock())

    assert found.record == record._replace(
        nickname="Alicia", discriminator="", avatar="", checked_at=int(clock())
    )
    assert found.until == clock() + INTERVAL
    assert (found.refused, found.waits) == (None, False)


async def test_nothing_is_kept_of_who_is_not_due(room: Room, clock: Clock) -> None:
    """A session takes memory only once Tailchat was asked about it."""
    rechecker = room.rechecker()
    for number in range(100):
        rechecker.look(signed_in(number), clock())

    assert len(room.sign_ins) == 0


async def test_what_is_kept_is_bounded(room: Room, clock: Clock) -> None:
    """However many sign-ins are asked about, the oldest make room."""
    room.sign_ins = SignIns(capacity=4)
    rechecker = room.rechecker()
    clock.now += INTERVAL
    for number in range(20):
        rechecker.look(signed_in(number), clock())
    await until(lambda: len(room.outcomes) == 20)

    assert len(room.sign_ins) == 4


async def test_a_full_queue_takes_no_more(
    room: Room, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question too many is not asked, and told; the session goes on as in an outage."""
    assert QUEUE == 1000
    monkeypatch.setattr(module, "QUEUE", 3)
    hang = Hang()
    room.says(hang)
    rechecker = room.rechecker()
    clock.now += 2 * INTERVAL
    looks = [rechecker.look(signed_in(number), clock()) for number in range(AT_ONCE + 5)]

    assert [look.waits for look in looks] == [True] * (AT_ONCE + 3) + [False] * 2
    assert room.outcomes == ["skipped", "skipped"]
    assert looks[-1].refused is None
    hang.release()
    await until(lambda: not room.sign_ins.pending)
    assert room.asked == AT_ONCE + 3


async def test_one_person_does_not_fill_the_queue(room: Room, clock: Clock) -> None:
    """Of somebody with any number of sign-ins some wait; the next person is asked about soon."""
    hang = Hang()
    room.says(hang)
    rechecker = room.rechecker()
    clock.now += 2 * INTERVAL
    looks = [rechecker.look(signed_in(number), clock()) for number in range(QUEUE)]
    other = signed_in(QUEUE)._replace(sub="660000000000000000000002")

    assert sum(look.waits for look in looks) == AT_ONCE + OF_ONE
    assert rechecker.look(other, clock()).waits
    assert len(rechecker._queue) == OF_ONE + 1
    hang.release()
    await until(lambda: not room.sign_ins.pending)


async def test_a_full_queue_refuses_where_an_outage_does(
    room: Room, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an outage does not keep sessions a question that is not asked does not either."""
    monkeypatch.setattr(module, "QUEUE", 0)
    for outage, retry_after in (("sign-in", 0), ("fail", 15)):
        rechecker = room.rechecker()
        rechecker._terms = RecheckTerms(INTERVAL, outage)  # type: ignore[arg-type] # one of them

        due = rechecker.look(signed_in(), START + INTERVAL)
        overdue = rechecker.look(signed_in(), START + 2 * INTERVAL)
        assert (due.refused, due.waits) == (None, False)
        assert overdue.refused == RecheckRefused(Reason.RECHECK_FAILED, retry_after)
        assert not overdue.waits


async def test_generations_share_what_is_known(room: Room, clock: Clock) -> None:
    """Two recheckers over one memory ask once, and wait for the same answer."""
    hang = Hang()
    room.says(hang)
    old, new, record = room.rechecker(), room.rechecker(), signed_in()
    clock.now += 2 * INTERVAL
    assert old.look(record, clock()).waits
    assert new.look(record, clock()).waits
    settled = new.settled(record)
    await until(lambda: room.asked == 1)
    old.close()
    assert not settled.done()
    hang.release()
    await asyncio.wait_for(settled, 60)

    assert (room.asked, room.outcomes) == (1, ["revoked"])
    assert [ended.sid for ended in room.ended] == [record.sid]


async def test_close_asks_nothing_more(room: Room, clock: Clock) -> None:
    """What is in the queue is dropped at once, what was sent at the end of the process."""
    hang = Hang()
    room.says(hang)
    rechecker = room.rechecker()
    clock.now += 2 * INTERVAL
    records = [signed_in(number) for number in range(AT_ONCE + 3)]
    for record in records:
        assert rechecker.look(record, clock()).waits
    waiting = [rechecker.settled(record) for record in records]
    await until(lambda: room.asked == AT_ONCE)
    rechecker.close()
    assert [one.done() for one in waiting] == [False] * AT_ONCE + [True] * 3
    await room.sign_ins.close()

    assert all(one.done() for one in waiting)
    assert room.sign_ins.pending == {}
    assert room.asked == AT_ONCE
    hang.release()


async def test_nobody_waits_for_what_is_not_asked(room: Room) -> None:
    """Without a question there is nothing to wait for."""
    assert room.rechecker().settled(signed_in()).done()


async def test_the_timeout_begins_anew_for_each_later_request(room: Room, clock: Clock) -> None:
    """Who gave up on a question does not make the next one give up at once."""
    room.timeout = 0.05
    hang = Hang()
    room.says(hang)
    rechecker, record = room.rechecker(), signed_in()
    clock.now += 2 * INTERVAL
    assert rechecker.look(record, clock()).waits
    first = rechecker.settled(record)
    assert rechecker.settled(record) is first
    await first
    assert not rechecker.look(record, clock()).waits
    clock.now += INTERVAL
    assert rechecker.look(record, clock()).waits
    second = rechecker.settled(record)

    assert not second.done()
    await second
    await until(lambda: room.asked == 1)
    hang.release()
    await until(lambda: room.outcomes == ["revoked"])
    assert room.asked == 1


@pytest.mark.parametrize(("outage", "retry_after"), [("keep", None), ("sign-in", 0), ("fail", 15)])
async def test_nobody_waits_twice_for_a_question_in_the_queue(
    room: Room,
    clock: Clock,
    outage: str,
    retry_after: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a wait for a question that was never sent, the answer is that of an outage."""
    monkeypatch.setattr(sign_ins, "TURN_SECONDS", 0.05)
    hang = Hang()
    room.says(hang)
    rechecker = room.rechecker()
    rechecker._terms = RecheckTerms(INTERVAL, outage)  # type: ignore[arg-type] # one of them
    clock.now += 2 * INTERVAL
    *_, queued = [signed_in(number) for number in range(AT_ONCE + 1) if _waits(rechecker, number)]
    await rechecker.settled(queued)
    found = rechecker.look(queued, clock())

    refused = None if retry_after is None else RecheckRefused(Reason.RECHECK_FAILED, retry_after)
    assert (found.waits, found.refused) == (False, refused)
    hang.release()
    await until(lambda: not room.sign_ins.pending)
    assert room.asked == AT_ONCE + 1


async def test_the_wait_for_an_answer_begins_when_the_question_is_sent(
    room: Room, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose question gets its turn waits for the answer as long as any, and no longer."""
    monkeypatch.setattr(module, "AT_ONCE", 1)
    room.timeout = 0.05
    hang = Hang()
    room.says(hang)
    rechecker = room.rechecker()
    clock.now += 2 * INTERVAL
    _, queued = [signed_in(number) for number in range(2) if _waits(rechecker, number)]
    settled = rechecker.settled(queued)
    hang.release()
    room.says(second := Hang())
    await second.started.wait()
    await settled

    assert not rechecker.look(queued, clock()).waits
    second.release()
    await until(lambda: not room.sign_ins.pending)


def _waits(rechecker: Rechecker, number: int) -> bool:
    return rechecker.look(signed_in(number), rechecker.clock()).waits


async def test_a_fault_of_the_gates_own_is_an_outage(
    room: Room, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong in a question, it ends, is told, and the session is asked about again."""

    async def broken(_: str) -> None:
        raise ZeroDivisionError

    rechecker, record = room.rechecker(), signed_in()
    with monkeypatch.context() as patched:
        patched.setattr(room.client, "profile", broken)
        clock.now += INTERVAL
        rechecker.look(record, clock())
        await until(lambda: room.outcomes == ["outage"])
    assert [one.message for one in caplog.records] == ["a recheck failed inside the gate"]
    assert record.access_token not in caplog.text
    clock.now += RETRY_SECONDS
    rechecker.look(record, clock())
    await until(lambda: room.outcomes == ["outage", "ok"])


async def test_an_outage_is_told_once_a_minute(
    room: Room, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why Tailchat could not be asked, and not for each session."""
    caplog.set_level(logging.WARNING, LOGGER_NAME)
    room.says(BROKEN)
    rechecker = room.rechecker()
    clock.now += INTERVAL
    for number in range(20):
        rechecker.look(signed_in(number), clock())
    await until(lambda: len(room.outcomes) == 20)
    assert len(caplog.records) == 1
    told = caplog.records[0].__dict__["details"]
    assert (told["call"], told["status"], told["error"]) == ("recheck", "500", "server_error")

    clock.now += 60
    rechecker.look(signed_in(0), clock())
    await until(lambda: len(room.outcomes) == 21)
    assert len(caplog.records) == 2


async def test_another_process_has_asked(room: Room, clock: Clock) -> None:
    """A cookie that knows more than this process is believed, and nobody is asked for nothing."""
    rechecker, record = room.rechecker(), signed_in()
    clock.now += INTERVAL
    rechecker.look(record, clock())
    await until(lambda: room.outcomes == ["ok"])
    clock.now += INTERVAL
    newer = record._replace(
        nickname="Alison", checked_at=int(clock()), access_token="t2", refresh_token="r2"
    )

    assert rechecker.look(newer, clock()).record == newer
    assert rechecker.look(record, clock()).record == newer
    assert room.asked == 1


async def test_an_answer_about_old_tokens_does_not_end_a_new_sign_in(
    room: Room, clock: Clock
) -> None:
    """A person who signs in again while the gate asks with the old tokens stays signed in."""
    hang = Hang()
    room.says(hang)
    rechecker, record = room.rechecker(), signed_in()
    clock.now += INTERVAL
    rechecker.look(record, clock())
    await until(lambda: room.asked == 1)
    anew = record._replace(access_token="other", checked_at=int(clock()))
    assert rechecker.look(anew, clock()).refused is None
    hang.release()
    await until(lambda: room.outcomes == ["skipped"])

    assert rechecker.look(anew, clock()) == RecheckResult(anew, clock() + INTERVAL)
    assert room.ended == []


def test_a_question_is_known_before_its_answer() -> None:
    """What fails while a first question is under way counts for the sign-in it is about."""
    sign_ins, record = SignIns(), signed_in()
    pending = PendingRecheck(SignIn(record))
    sign_ins.pending[record.sid] = pending

    assert sign_ins.get(record) is pending.sign_in


async def test_a_confirmation_under_a_clock_that_was_set_back(room: Room, clock: Clock) -> None:
    """One that is yet to come is asked for again at once, and once, not when its time is there."""
    clock.now += INTERVAL
    rechecker, record = room.rechecker(), signed_in()._replace(checked_at=int(clock()) + 7200)
    found = rechecker.look(record, clock())
    assert (found.refused, found.waits) == (None, False)
    await until(lambda: room.outcomes == ["ok"])
    for _ in range(3):
        found = rechecker.look(record, clock())

    assert (found.record.nickname, found.record.checked_at) == ("Alicia", int(clock()))
    assert found.until == clock() + INTERVAL
    assert room.asked == 1
