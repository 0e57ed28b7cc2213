"""Decides when to ask Tailchat about a session again, and what the response means; pure."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol

from tailchat_gate.config.model import Outage
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.reasons import Reason

#: Seconds after a failure before Tailchat is asked again about the same session.
RETRY_SECONDS: Final = 15.0
#: Seconds for which Tailchat counts as silent after a call without an answer.
SILENCE_SECONDS: Final = 60.0
#: This many faults for one person, while others are answered, show that the person is gone.
ENOUGH_FAULTS: Final = 3
#: Seconds that must lie between the first of these faults and the last.
FAULTY_SECONDS: Final = 300.0
NEVER: Final = -math.inf


@dataclass(frozen=True, slots=True)
class RecheckTerms:
    """How often, in seconds, the gate asks Tailchat about a session, and what an outage does."""

    interval: float
    outage: Outage


class RecheckDecision(NamedTuple):
    """The decision about a request of a session.

    `asks`: ask Tailchat; `waits`: the request waits for the answer; `refuses`: the request is
    refused. The decision holds until the Unix second `until`.
    """

    until: float
    asks: bool = False
    waits: bool = False
    refuses: bool = False


def decide_recheck(
    terms: RecheckTerms, *, checked_at: float, failed_at: float, askable: bool, now: float
) -> RecheckDecision:
    """Decide about a request at `now`; times are Unix seconds.

    `checked_at`: when Tailchat last confirmed the session. `failed_at`: when asking last failed,
    NEVER if it has not failed since. `askable`: whether the session holds a token to ask with.

    During the first interval the session is valid. During the second the gate asks Tailchat
    while the request proceeds on what is known. After that the request waits for the answer; if
    none comes, the outage setting decides.
    """
    due = checked_at + terms.interval
    overdue = due + terms.interval
    if now < due:
        return RecheckDecision(due)
    keeps = terms.outage == "keep"
    if not askable:
        return RecheckDecision(
            overdue if now < overdue else math.inf, refuses=now >= overdue and not keeps
        )
    # A failure in the future dates from before the clock was set back.
    failed_at = failed_at if failed_at <= now else NEVER
    retry_at = failed_at + RETRY_SECONDS
    asks = now >= retry_at
    if now < overdue:
        return RecheckDecision(now if asks else min(retry_at, overdue), asks=asks)
    if keeps:
        # Only the first request after an interval waits; otherwise all would in a long outage.
        waits = asks and now >= failed_at + terms.interval
        return RecheckDecision(now if asks else retry_at, asks=asks, waits=waits)
    return RecheckDecision(now, asks=asks, waits=asks, refuses=not asks)


class Silence:
    """Whether Tailchat currently answers no question at all, about any session."""

    def __init__(self) -> None:
        self._heard_at = NEVER
        self._failed_at = NEVER

    def heard(self, now: float) -> None:
        """Note that Tailchat answered, whatever the answer."""
        self._heard_at, self._failed_at = now, NEVER

    def failed(self, asked_at: float, now: float) -> bool:
        """Note an unanswered question; return whether none was answered since it was asked."""
        if asked_at < self._heard_at <= now:
            return False
        self._failed_at = now
        return True

    def failed_at(self, now: float) -> float:
        """Return when Tailchat last failed to answer, NEVER if that does not matter at `now`."""
        return self._failed_at if 0 <= now - self._failed_at < SILENCE_SECONDS else NEVER


def without_waiting(
    decision: RecheckDecision, terms: RecheckTerms, *, asks: bool
) -> RecheckDecision:
    """Return the decision that replaces `decision` while Tailchat answers nothing.

    No request waits. With `asks`, this session asks in the background on behalf of all.
    """
    refuses = decision.refuses or (decision.waits and terms.outage != "keep")
    return RecheckDecision(decision.until, asks=decision.asks and asks, refuses=refuses)


class RecheckRefused(NamedTuple):
    """Why a session is refused; retry after `retry_after` seconds, 0: only a new sign-in helps."""

    reason: Reason
    retry_after: int = 0


class RecheckResult(NamedTuple):
    """A session's newest record; `until` is when to call `look` again.

    `refused`: why it is refused. `waits`: Tailchat must be asked first. `email`: the address for
    tools, "" for none; no cookie holds it. `renamed`: `record` differs from the given one by names
    only, for which no new cookie is needed.
    """

    record: SessionRecord
    until: float
    refused: RecheckRefused | None = None
    waits: bool = False
    email: str = ""
    renamed: bool = False


class Rechecks(Protocol):
    """Knows what Tailchat said about sessions since their cookies were sealed."""

    def look(self, record: SessionRecord, now: float) -> RecheckResult:
        """Return the state of a session at `now`; ask Tailchat if that is due."""


class NoRecheck:
    """Trusts the cookies, and never asks Tailchat."""

    def look(self, record: SessionRecord, now: float) -> RecheckResult:  # noqa: ARG002 - as Rechecks
        """Return the session as its cookie has it."""
        return RecheckResult(record, math.inf)


class UndecidedError(Exception):
    """Whether the session in a cookie is still valid is unknown until Tailchat is asked."""

    def __init__(self, record: SessionRecord) -> None:
        super().__init__("Tailchat must be asked about the session first")
        self.record = record


def confirmed(record: SessionRecord, profile: Profile, now: float) -> SessionRecord:
    """Return the record of a session that Tailchat confirmed, with the current name and picture."""
    return record.with_names_of(profile)._replace(checked_at=int(now))


def caught_up(record: SessionRecord, newest: SessionRecord) -> SessionRecord:
    """Return a cookie's record with everything newer that `newest`, of the same sign-in, has.

    Every host has its own cookie for one sign-in. Returns `record` itself if it lacks nothing.
    One process may refresh the tokens of a session that another confirms later.
    """
    if newest.checked_at < record.checked_at:
        return record.with_tokens_of(newest) if newest.has_newer_tokens(record) else record
    updated = record.with_tokens_of(newest).with_names_of(newest)
    updated = updated._replace(checked_at=newest.checked_at)
    return record if updated == record else updated


class ErrorMeaning(Enum):
    """The meaning of an error response from Tailchat for the session."""

    REVOKED = "revoked"
    FAULT = "fault"
    OUTAGE = "outage"


def error_meaning(refused: LoginRefused) -> ErrorMeaning:
    """Return the meaning of an error response.

    FAULT is Tailchat's own error (500 server_error): it sends that for a deleted user, and also
    when its Redis is down. Everything else that is not clearly about the token is an outage.
    """
    if refused.reason is Reason.SESSION_REVOKED:
        return ErrorMeaning.REVOKED
    detail = refused.detail
    if (detail.get("status"), detail.get("error")) == ("500", "server_error"):
        return ErrorMeaning.FAULT
    return ErrorMeaning.OUTAGE


@dataclass(frozen=True, slots=True)
class FaultStreak:
    """Consecutive faults for one person: how many counted, the first, the last."""

    count: int = 0
    since: float = 0.0
    last: float = 0.0

    def grown(self, now: float, other_at: float) -> "FaultStreak":
        """Return the streak after one more fault at `now`.

        It counts only if Tailchat answered about another person since the last one: `other_at` is
        when it last did. Otherwise Tailchat may be down for everyone.
        """
        if not self.count:
            return FaultStreak(1, now, now)
        return FaultStreak(self.count + 1, self.since, now) if other_at > self.last else self

    @property
    def is_certain(self) -> bool:
        """Whether the person is treated as deleted."""
        return self.count >= ENOUGH_FAULTS and self.last - self.since >= FAULTY_SECONDS


class LastAnswers:
    """When Tailchat last answered about each of two different people."""

    def __init__(self) -> None:
        self._latest: tuple[str, float] = ("", NEVER)
        self._before: tuple[str, float] = ("", NEVER)

    def note(self, sub: str, now: float) -> None:
        """Note an answer about `sub`."""
        if self._latest[0] != sub:
            self._before = self._latest
        self._latest = (sub, now)

    def about_another(self, sub: str) -> float:
        """Return when Tailchat last answered about anyone but `sub`, NEVER if it has not."""
        return self._before[1] if self._latest[0] == sub else self._latest[1]
