"""When Tailchat is asked again about a session, and what its answers mean."""

import math

import pytest
from gatekit import ALICE, START

from tailchat_gate.config.model import Outage
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.responses import Profile, TokenSet
from tailchat_gate.identity.recheck import (
    ENOUGH_FAULTS,
    FAULTY_SECONDS,
    NEVER,
    RETRY_SECONDS,
    ErrorMeaning,
    FaultStreak,
    LastAnswers,
    NoRecheck,
    RecheckDecision,
    RecheckResult,
    RecheckTerms,
    caught_up,
    confirmed,
    decide_recheck,
    error_meaning,
)
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.reasons import Reason

RECORD = SessionRecord.begin(
    ALICE,
    now=START,
    login="l",
    tokens=TokenSet("a1", refresh_token="r1", expires_at=int(START) + 60),
)
OUTAGES: tuple[Outage, ...] = ("keep", "sign-in", "fail")


def verdict(
    outage: Outage, now: float, failed_at: float = NEVER, *, askable: bool = True
) -> RecheckDecision:
    """Return the verdict on a session that was confirmed at 0 and is asked about each 100 s."""
    return decide_recheck(
        RecheckTerms(100.0, outage), checked_at=0.0, failed_at=failed_at, askable=askable, now=now
    )


# When.


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_young_confirmation_is_enough(outage: Outage) -> None:
    """Within the interval nobody asks, and nothing has to be looked at before its end."""
    for now in (-50.0, 0.0, 99.9):
        assert verdict(outage, now) == RecheckDecision(100.0)


@pytest.mark.parametrize("outage", OUTAGES)
def test_after_the_interval_it_is_asked_beside_the_request(outage: Outage) -> None:
    """From its end on, for as long again, a request goes on while Tailchat is asked."""
    for now in (100.0, 199.9):
        assert verdict(outage, now) == RecheckDecision(now, asks=True)


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_failure_is_not_repeated_at_once(outage: Outage) -> None:
    """After a failure Tailchat is left alone for a while, and requests go on."""
    assert verdict(outage, 110.0, 100.0) == RecheckDecision(100.0 + RETRY_SECONDS)
    assert verdict(outage, 195.0, 190.0) == RecheckDecision(200.0)
    assert verdict(outage, 115.0, 100.0) == RecheckDecision(115.0, asks=True)


@pytest.mark.parametrize("outage", OUTAGES)
def test_after_a_long_absence_the_request_waits(outage: Outage) -> None:
    """A session that was not confirmed for two intervals opens nothing before that."""
    for now in (200.0, 10**6):
        assert verdict(outage, now) == RecheckDecision(now, asks=True, waits=True)


def test_a_clock_that_was_set_back_stops_no_question() -> None:
    """A failure in the future is none: Tailchat is asked as if there had been no failure."""
    assert verdict("fail", 200.0, 5000.0) == RecheckDecision(200.0, asks=True, waits=True)
    assert verdict("keep", 200.0, 5000.0) == RecheckDecision(200.0, asks=True, waits=True)
    assert verdict("keep", 150.0, 5000.0) == RecheckDecision(150.0, asks=True)


def test_keep_goes_on_in_an_outage_and_waits_once() -> None:
    """After a wait without an answer requests go on, while the gate asks again."""
    assert verdict("keep", 205.0, 200.0) == RecheckDecision(200.0 + RETRY_SECONDS)
    assert verdict("keep", 215.0, 200.0) == RecheckDecision(215.0, asks=True)
    assert verdict("keep", 299.9, 200.0) == RecheckDecision(299.9, asks=True)
    assert verdict("keep", 300.0, 200.0) == RecheckDecision(300.0, asks=True, waits=True)


@pytest.mark.parametrize("outage", ["sign-in", "fail"])
def test_the_other_settings_refuse_in_an_outage(outage: Outage) -> None:
    """Without a confirmation a request is refused, or waits for the next question's answer."""
    assert verdict(outage, 205.0, 200.0) == RecheckDecision(205.0, refuses=True)
    assert verdict(outage, 205.0, 195.0) == RecheckDecision(205.0, refuses=True)
    assert verdict(outage, 215.0, 200.0) == RecheckDecision(215.0, asks=True, waits=True)


def test_a_session_without_tokens() -> None:
    """Where there is nothing to ask with it is as in an outage, and nobody waits for its end."""
    for outage in OUTAGES:
        assert verdict(outage, 99.0, askable=False) == RecheckDecision(100.0)
        assert verdict(outage, 100.0, askable=False) == RecheckDecision(200.0)
    assert verdict("keep", 200.0, askable=False) == RecheckDecision(math.inf)
    assert verdict("sign-in", 200.0, askable=False).refuses
    assert verdict("fail", 200.0, askable=False).refuses


def test_no_interval_never_asks() -> None:
    """With rechecks off no session is ever due."""
    found = decide_recheck(
        RecheckTerms(math.inf, "fail"), checked_at=0.0, failed_at=NEVER, askable=True, now=10**12
    )

    assert found == RecheckDecision(math.inf)
    assert NoRecheck().look(RECORD, 10**12) == RecheckResult(RECORD, math.inf)


# What is known.


def test_confirmed() -> None:
    """A confirmation brings the names of by now and its second; the session stays the same one."""
    found = confirmed(RECORD, Profile(RECORD.sub, "Alicia", "1", "http://x/y"), START + 900.7)

    assert found == RECORD._replace(
        nickname="Alicia",
        discriminator="1",
        avatar="http://x/y",
        checked_at=int(START) + 900,
    )


def test_a_cookie_catches_up_with_another() -> None:
    """A cookie of another host takes over what was learned, and keeps what is its own."""
    other = RECORD._replace(login="pass", seen_at=int(START) + 5)
    newest = RECORD._replace(
        nickname="Alicia",
        checked_at=int(START) + 900,
        access_token="a2",
        refresh_token="r2",
    )

    assert caught_up(other, newest) == newest._replace(login="pass", seen_at=int(START) + 5)


def test_a_cookie_that_lacks_nothing_stays_itself() -> None:
    """Neither the same knowledge nor an older one makes another record."""
    later = RECORD._replace(checked_at=RECORD.checked_at + 1)

    assert caught_up(later, later) is later
    assert caught_up(later, RECORD) is later


def test_new_tokens_count_without_a_confirmation() -> None:
    """A refresh token that was exchanged is kept although Tailchat could not say more."""
    newest = RECORD.with_tokens(TokenSet("a2", refresh_token="r2", expires_at=7))

    assert caught_up(RECORD, newest) == newest


# What answers mean.


@pytest.mark.parametrize(
    ("reason", "detail", "expected"),
    [
        (Reason.SESSION_REVOKED, {"status": "401", "error": "invalid_token"}, ErrorMeaning.REVOKED),
        (Reason.TAILCHAT_BROKEN, {"status": "500", "error": "server_error"}, ErrorMeaning.FAULT),
        (Reason.TAILCHAT_BROKEN, {"status": "502", "error": "server_error"}, ErrorMeaning.OUTAGE),
        (Reason.TAILCHAT_BROKEN, {"status": "500", "problem": "not JSON"}, ErrorMeaning.OUTAGE),
        (Reason.TAILCHAT_BROKEN, {"status": "401", "problem": "not JSON"}, ErrorMeaning.OUTAGE),
        (Reason.TAILCHAT_DOWN, {}, ErrorMeaning.OUTAGE),
        (Reason.TAILCHAT_SLOW, {}, ErrorMeaning.OUTAGE),
        (
            Reason.GATE_NOT_ACCEPTED,
            {"status": "401", "error": "invalid_client"},
            ErrorMeaning.OUTAGE,
        ),
    ],
)
def test_meaning(reason: Reason, detail: dict[str, str], expected: ErrorMeaning) -> None:
    """Only a clear word ends a session; 500 server_error may be a deleted user or an outage."""
    assert error_meaning(LoginRefused(reason, detail)) is expected


def grown(*faults: tuple[float, float]) -> FaultStreak:
    """Return the doubt after faults, each with the time of the last answer about another person."""
    doubt = FaultStreak()
    for now, other_at in faults:
        doubt = doubt.grown(now, other_at)
    return doubt


def test_a_deleted_user_is_told_from_an_outage() -> None:
    """Three faults in five minutes, with others answered in between, are a deleted user."""
    assert (ENOUGH_FAULTS, FAULTY_SECONDS) == (3, 300.0)
    assert grown((0, NEVER), (100, 50), (300, 200)).is_certain
    assert grown((0, NEVER), (15, 10), (30, 20), (300, 200)).is_certain


@pytest.mark.parametrize(
    "faults",
    [
        [(0, NEVER)],
        [(0, NEVER), (300, 200)],
        [(0, NEVER), (15, 10), (30, 20)],
        [(0, NEVER), (100, 50), (299.9, 200)],
        [(0, NEVER), (100, NEVER), (300, NEVER), (10**6, NEVER)],
        [(0, NEVER), (100, 50), (300, 50), (10**6, 50)],
        [(0, -1), (100, 0), (300, 0)],
    ],
)
def test_an_outage_is_no_deleted_user(faults: list[tuple[float, float]]) -> None:
    """Too few faults, too short a time, or nobody else who was answered, prove nothing."""
    assert not grown(*faults).is_certain


def test_the_last_answer_about_another_person() -> None:
    """Two people are remembered, which is enough to know when another one was answered last."""
    answers = LastAnswers()
    assert answers.about_another("a") == NEVER

    answers.note("a", 1)
    assert (answers.about_another("a"), answers.about_another("b")) == (NEVER, 1)
    answers.note("b", 2)
    answers.note("b", 3)
    assert (answers.about_another("a"), answers.about_another("b")) == (3, 1)
    answers.note("c", 4)
    assert (answers.about_another("c"), answers.about_another("a")) == (3, 4)
