"""Asks Tailchat about sessions in the background, one question at a time for each sign-in."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.recheck import (
    NEVER,
    RETRY_SECONDS,
    ErrorMeaning,
    FaultStreak,
    RecheckDecision,
    RecheckRefused,
    RecheckResult,
    Rechecks,
    RecheckTerms,
    caught_up,
    confirmed,
    decide_recheck,
    error_meaning,
    without_waiting,
)
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sign_ins import PendingRecheck, SignIn, SignIns
from tailchat_gate.identity.token_refresh import RefreshTokens
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import LOGGER_NAME, FaultLog
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import CLOCK_SKEW

#: Questions to Tailchat at the same time.
AT_ONCE = 8
#: The most questions that wait for their turn.
QUEUE = 1000
#: Of these, questions about one person, so that one person's many sign-ins delay nobody else.
OF_ONE: Final = 16
#: Seconds for the difference between Tailchat's clock and the gate's, and for the transfer.
_TOKEN_MARGIN: Final = 60
#: How often one recheck takes over newer tokens that another process has stored.
_STATES: Final = 2

_log: Final = logging.getLogger(LOGGER_NAME)

_RECHECK_FAILED: Final = Reason.RECHECK_FAILED
_NO_ANSWER: Final = frozenset(
    (Reason.TAILCHAT_SLOW, Reason.TAILCHAT_DOWN, Reason.TAILCHAT_UNTRUSTED)
)
_TRY_LATER: Final = RecheckRefused(_RECHECK_FAILED, math.ceil(RETRY_SECONDS))
_SIGN_IN_AGAIN: Final = RecheckRefused(_RECHECK_FAILED)


class AwaitableRechecks(Rechecks, Protocol):
    """Rechecks for which a request can wait."""

    def settled(self, record: SessionRecord) -> "asyncio.Future[None]":
        """Return a future that is done once `look` knows more; do not cancel it."""

    def close(self) -> None:
        """Empty the queue of questions; waiting requests proceed without an answer."""


class Rechecker:
    """Asks Tailchat about sessions, and applies the answers.

    `terms`: how often, and what an outage does. `timeout`: the most seconds a request
    waits for an answer.
    `end(record)` ends a session that Tailchat no longer confirms. `sign_ins` holds what is known,
    also across reloads; `tokens` refreshes tokens. `observe(outcome)` is called after every
    question: ok, revoked, outage, or skipped if the queue was full or a newer answer came first.
    """

    def __init__(  # noqa: PLR0913 - one argument for each part, all by name
        self,
        terms: RecheckTerms,
        tailchat: TailchatClient,
        *,
        sign_ins: SignIns,
        tokens: RefreshTokens,
        end: Callable[[SessionRecord], None],
        timeout: float,
        clock: Callable[[], float],
        observe: Callable[[str], None],
        audit: Audit,
        faults: FaultLog,
    ) -> None:
        self._terms = terms
        self._tailchat = tailchat
        self._sign_ins = sign_ins
        self._tokens = tokens
        self.vault: Final = tokens.vault
        self._end_session = end
        self._timeout = timeout
        self.clock: Final = clock
        self._observe = observe
        self._audit = audit
        self._faults = faults
        self._queue: deque[PendingRecheck] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def look(self, record: SessionRecord, now: float) -> RecheckResult:
        """Return the state of a session at `now`; ask Tailchat in the background if that is due.

        Call it again from `RecheckResult.until` on.
        """
        record = self._set_back(record, now)
        known = self._sign_ins.get(record)
        if known is not None:
            known.record = self._set_back(known.record, now)
        newest = record if known is None else caught_up(record, known.record)
        decision = self._decide(newest, NEVER if known is None else known.failed_at, now)
        waits, refuses = decision.waits, decision.refuses
        if decision.asks and not self._ask_soon(known or SignIn(newest)):
            refuses = refuses or (waits and self._terms.outage != "keep")
            waits = False
        return RecheckResult(
            newest, decision.until, self._refusal(newest) if refuses else None, waits
        )

    def _decide(self, newest: SessionRecord, failed_at: float, now: float) -> RecheckDecision:
        silent_at = self._sign_ins.silence.failed_at(now)
        decision = decide_recheck(
            self._terms,
            # A session from before rechecks were configured was confirmed at its sign-in.
            checked_at=max(newest.checked_at, newest.signed_in_at),
            failed_at=max(failed_at, silent_at),
            askable=bool(newest.access_token),
            now=now,
        )
        if silent_at == NEVER:
            return decision
        return without_waiting(decision, self._terms, asks=not self._sign_ins.pending)

    def settled(self, record: SessionRecord) -> "asyncio.Future[None]":
        """Return a future that is done once `look` knows more about a waiting session.

        All waiting requests share it: do not cancel it.
        """
        pending = self._sign_ins.pending.get(record.sid)
        if pending is not None:
            return pending.settled(self._timeout, self.clock)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def close(self) -> None:
        """Ask nothing more; waiting requests proceed without an answer.

        A question that was sent is completed, because its answer may hold a refresh token that
        replaces a spent one.
        """
        while self._queue:
            self._answered(self._queue.popleft())

    def _set_back(self, record: SessionRecord, now: float) -> SessionRecord:
        """Return the record, without a confirmation from before the clock was set back.

        Such a confirmation lies in the future. Without it the gate asks Tailchat soon.
        """
        if record.checked_at <= now + CLOCK_SKEW:
            return record
        return record._replace(checked_at=int(now - self._terms.interval))

    def _refusal(self, record: SessionRecord) -> RecheckRefused:
        fails = self._terms.outage == "fail" and record.access_token
        return _TRY_LATER if fails else _SIGN_IN_AGAIN

    def _ask_soon(self, sign_in: SignIn) -> bool:
        """Queue a question unless one is in progress; return whether a request may wait for it."""
        pending = self._sign_ins.pending
        sid = sign_in.record.sid
        if sid in pending:
            return not pending[sid].is_overdue
        if len(self._queue) >= QUEUE or self._queued_about(sign_in.record.sub) >= OF_ONE:
            self._observe("skipped")
            return False
        pending[sid] = PendingRecheck(sign_in)
        self._queue.append(pending[sid])
        self._ask_next()
        return True

    def _queued_about(self, sub: str) -> int:
        return sum(pending.sign_in.record.sub == sub for pending in self._queue)

    def _ask_next(self) -> None:
        while self._queue and len(self._tasks) < AT_ONCE:
            pending = self._queue.popleft()
            task = asyncio.get_running_loop().create_task(self._recheck(pending))
            pending.ask(task)
            self._tasks.add(task)
            task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._ask_next()

    def _answered(self, pending: PendingRecheck) -> None:
        self._sign_ins.pending.pop(pending.sign_in.record.sid, None)
        pending.end()

    async def _recheck(self, pending: PendingRecheck) -> None:
        """Ask about one sign-in and store the outcome; raises nothing but CancelledError."""
        sign_in, outcome = pending.sign_in, "outage"
        try:
            outcome = await self._outcome(sign_in)
        except Exception:  # noqa: BLE001 - the question must end, and waiting requests proceed
            # The traceback shows lines of code, and no values.
            _log.exception("a recheck failed inside the gate")
        finally:
            if outcome == "outage":
                sign_in.failed_at = self.clock()
            if outcome == "revoked":
                self._sign_ins.forget(sign_in)
            else:
                self._sign_ins.keep(sign_in)
            self._answered(pending)
            self._observe(outcome)

    async def _outcome(self, sign_in: SignIn) -> str:
        started, known = self.clock(), sign_in.record.checked_at
        try:
            profile = await self._ask(sign_in, started)
            self._sign_ins.silence.heard(self.clock())
            return self._confirm(sign_in, profile, started)
        except LoginRefused as refused:
            self._note_silence(refused.reason, started)
            # After a new sign-in meanwhile, the tokens differ from those that were asked about.
            overtaken = sign_in.record.checked_at > known
            return "skipped" if overtaken else self._apply_error(sign_in, refused)

    async def _ask(self, sign_in: SignIn, now: float) -> Profile:
        """Return the sign-in's profile; refreshes the access token first if it has expired."""
        refreshed = False
        # Tokens that another process has stored may have expired as well.
        for _ in range(_STATES):
            record = sign_in.record
            if record.refresh_token and 0 < record.access_expires_at <= now + _TOKEN_MARGIN:
                await self._refresh(sign_in)
                refreshed = True
        try:
            return await self._tailchat.profile(sign_in.record.access_token)
        except LoginRefused as refused:
            gone = error_meaning(refused) is ErrorMeaning.REVOKED
            if refreshed or not (gone and sign_in.record.refresh_token):
                raise
        await self._refresh(sign_in)
        return await self._tailchat.profile(sign_in.record.access_token)

    async def _refresh(self, sign_in: SignIn) -> None:
        """Get new tokens and store them at once, because the old refresh token may be spent."""
        sign_in.refreshes = True
        try:
            newest = await self._tokens.refreshed(sign_in.record)
        finally:
            sign_in.refreshes = False
        # A request's cookie may have brought a newer state meanwhile.
        if not sign_in.record.has_newer_tokens(newest):
            sign_in.record = sign_in.record.with_tokens_of(newest)

    def _confirm(self, sign_in: SignIn, profile: Profile, now: float) -> str:
        if profile.sub != sign_in.record.sub:
            return self._end(sign_in, "Tailchat answers for another user")
        self._sign_ins.answers.note(profile.sub, now)
        sign_in.record = confirmed(sign_in.record, profile, now)
        sign_in.failed_at, sign_in.faults = NEVER, FaultStreak()
        self.vault.refresh(sign_in.record)
        return "ok"

    def _apply_error(self, sign_in: SignIn, refused: LoginRefused) -> str:
        meaning = error_meaning(refused)
        if meaning is ErrorMeaning.REVOKED:
            problem = refused.detail.get("problem", "")
            return self._end(sign_in, problem or "Tailchat no longer accepts its tokens")
        now, sub = self.clock(), sign_in.record.sub
        if meaning is ErrorMeaning.FAULT:
            other_at = self._sign_ins.answers.about_another(sub)
            sign_in.faults = sign_in.faults.grown(now, other_at)
            if sign_in.faults.is_certain:
                return self._end(sign_in, "Tailchat answers for others and not for this user")
        else:
            sign_in.faults = FaultStreak()
        self._faults.tell(
            "Tailchat could not be asked about a session",
            {**refused.detail, "reason": refused.reason},
            level=logging.WARNING,
        )
        return "outage"

    def _note_silence(self, reason: Reason, asked_at: float) -> None:
        """Note if Tailchat answered; release waiting requests while it answers nothing at all."""
        silence, now = self._sign_ins.silence, self.clock()
        if reason not in _NO_ANSWER:
            silence.heard(now)
        elif silence.failed(asked_at, now):
            self.close()
            for pending in self._sign_ins.pending.values():
                pending.end()

    def _end(self, sign_in: SignIn, why: str) -> str:
        record = sign_in.record
        self._end_session(record)
        self._audit.session_ended(record.sub, Reason.SESSION_REVOKED, why)
        return "revoked"
