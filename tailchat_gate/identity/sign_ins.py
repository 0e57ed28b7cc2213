"""What this process knows about sign-ins beyond their cookies; bounded."""

import asyncio
from collections.abc import Callable
from typing import Final

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.identity.recheck import NEVER, FaultStreak, LastAnswers, Silence, caught_up
from tailchat_gate.identity.sessions.record import SessionRecord

#: Sign-ins in memory, about 2 KiB each.
CAPACITY: Final = 10_000
#: Seconds that the end of the process waits for Tailchat's answer to a refresh token.
END_SECONDS: Final = 2.0
#: The most seconds that a request waits for the turn of its question, as at a sign-in.
TURN_SECONDS = 30.0


class SignIn:
    """One sign-in, whose cookies on several hosts share an id and the tokens.

    `record`: the newest known. `failed_at`: when asking Tailchat last failed, NEVER if it has
    answered since. `faults`: consecutive faults, which suggest a deleted person. `refreshes`: a
    refresh of its tokens is under way.
    """

    __slots__ = ("failed_at", "faults", "record", "refreshes")

    def __init__(self, record: SessionRecord) -> None:
        self.record = record
        self.failed_at = NEVER
        self.faults = FaultStreak()
        self.refreshes = False


class PendingRecheck:
    """One question to Tailchat about a sign-in, from the queue to its answer.

    `task` asks it; None while it is in the queue. `is_overdue`: it is still there after the time
    that a request waits for its turn, so no further request waits.
    """

    __slots__ = ("_clock", "_settled", "_timeout", "_timer", "is_overdue", "sign_in", "task")

    def __init__(self, sign_in: SignIn) -> None:
        self.sign_in: Final = sign_in
        self.task: asyncio.Task[None] | None = None
        self.is_overdue = False
        self._settled: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def settled(self, timeout: float, clock: Callable[[], float]) -> "asyncio.Future[None]":
        """Return a future that is done with the answer, or when it takes too long.

        Once the question was sent, `timeout` seconds without an answer are a failure at the Unix
        second of `clock`. TURN_SECONDS in the queue are none: they say nothing about Tailchat.
        """
        if self._settled is None or self._settled.done():
            self._settled = asyncio.get_running_loop().create_future()
            self._timeout, self._clock = timeout, clock
            self._limit()
        return self._settled

    def ask(self, task: "asyncio.Task[None]") -> None:
        """Its turn has come: `task` asks it."""
        self.task, self.is_overdue = task, False
        if self._settled is not None and not self._settled.done():
            self._limit()

    def end(self) -> None:
        """Release the waiting requests."""
        if self._timer is not None:
            self._timer.cancel()
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _limit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = TURN_SECONDS if self.task is None else self._timeout
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self.task is None:
            self.is_overdue = True
        else:
            self.sign_in.failed_at = self._clock()
        self.end()


class SignIns:
    """The recently used sign-ins about which Tailchat was asked.

    Depends on no configuration, so that it survives a reload.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._known: BoundedCache[str, SignIn] = BoundedCache(capacity)
        #: By the session's id: one question at a time for each sign-in.
        self.pending: Final[dict[str, PendingRecheck]] = {}
        self.answers: Final = LastAnswers()
        self.silence: Final = Silence()

    def __len__(self) -> int:
        """How many sign-ins are in memory."""
        return len(self._known)

    def get(self, record: SessionRecord) -> SignIn | None:
        """Return the facts about a cookie's sign-in, including everything in the cookie."""
        known = self._known.get(record.sid)
        if known is None and (pending := self.pending.get(record.sid)) is not None:
            known = pending.sign_in
        if known is not None and (
            record.checked_at > known.record.checked_at or record.has_newer_tokens(known.record)
        ):
            # Another process has asked since then, and the cookie has the answer.
            known.record = caught_up(known.record, record)
        return known

    def keep(self, sign_in: SignIn) -> None:
        """Store a sign-in."""
        self._known.keep(sign_in.record.sid, sign_in)

    def forget(self, sign_in: SignIn) -> None:
        """Forget a sign-in."""
        self._known.drop(sign_in.record.sid)

    async def close(self) -> None:
        """End every question in progress, after waiting END_SECONDS for refreshes.

        The answer to a refresh may hold the only refresh token that is still valid.
        """
        running = [
            (pending.task, pending.sign_in)
            for pending in self.pending.values()
            if pending.task is not None
        ]
        tasks = [task for task, _ in running]
        refreshing = [task for task, sign_in in running if sign_in.refreshes]
        if refreshing:
            await asyncio.wait(refreshing, timeout=END_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
