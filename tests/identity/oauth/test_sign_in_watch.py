"""When the gate checks whether people can sign in."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import pytest
from gatekit import Clock, until

from tailchat_gate.identity.oauth.sign_in_check import Finding
from tailchat_gate.identity.oauth.sign_in_watch import (
    LOST_LOGINS,
    LOST_SECONDS,
    PAUSE,
    SignInState,
    SignInWatch,
)
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import OWN_AGENT

#: Turns of the loop, more than it takes to begin a check.
TURNS = 20
BROKEN = Finding("redirect-uri", "add the callback", Reason.GATE_NOT_ACCEPTED)
ODD = Finding("issuer", "another host")


class Tailchat:
    """What the check finds, and how often it was run."""

    def __init__(self) -> None:
        self.findings: tuple[Finding, ...] = ()
        self.checks = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def check(self) -> tuple[Finding, ...]:
        """Return the findings once it answers."""
        self.checks += 1
        await self.answers.wait()
        return self.findings


@pytest.fixture
def tailchat() -> Tailchat:
    """Return one where people can sign in."""
    return Tailchat()


@pytest.fixture
async def make_watch(tailchat: Tailchat, clock: Clock) -> AsyncIterator[Callable[..., SignInWatch]]:
    """Return what makes a watch; each is closed after the test."""
    made: list[SignInWatch] = []

    def make(retry: float = 3600.0) -> SignInWatch:
        watch = SignInWatch(tailchat.check, SignInState(), clock=clock, retry=retry)
        made.append(watch)
        return watch

    yield make
    for watch in made:
        watch.close()


Make = Callable[..., SignInWatch]


async def test_the_start_checks_in_the_background(tailchat: Tailchat, make_watch: Make) -> None:
    """Until Tailchat answers, nobody is stopped."""
    tailchat.findings = (ODD, BROKEN)
    tailchat.answers.clear()
    watch = make_watch()
    watch.start()
    await until(lambda: tailchat.checks == 1)
    assert await watch.obstacle() is None

    tailchat.answers.set()
    await until(lambda: watch.state.findings == (ODD, BROKEN))
    assert await watch.obstacle() is BROKEN


async def test_a_mended_fault_is_seen_by_itself(
    tailchat: Tailchat, make_watch: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Each fault is logged once, and its end too."""
    caplog.set_level(logging.INFO)
    tailchat.findings = (BROKEN,)
    watch = make_watch(retry=0.001)
    watch.start()
    await until(lambda: tailchat.checks > 2)
    tailchat.findings = ()
    await until(lambda: watch.state.checked_at > 0 and not watch.state.findings)

    assert caplog.messages == [
        "add the callback",
        "Tailchat accepts sign-ins from this gate again",
    ]


async def test_a_person_who_comes_after_the_pause_causes_one_check(
    tailchat: Tailchat, make_watch: Make, clock: Clock
) -> None:
    """An admin mends the app and tries at once; a crowd costs Tailchat one check."""
    tailchat.findings = (BROKEN,)
    watch = make_watch()
    watch.start()
    await until(lambda: bool(watch.state.findings))
    assert await watch.obstacle() is BROKEN
    assert tailchat.checks == 1

    tailchat.findings = ()
    clock.now += PAUSE
    assert await asyncio.gather(*(watch.obstacle() for _ in range(100))) == [None] * 100
    assert tailchat.checks == 2


async def test_a_person_who_leaves_does_not_end_the_check(
    tailchat: Tailchat, make_watch: Make, clock: Clock
) -> None:
    """The next one gets its result."""
    tailchat.findings = (BROKEN,)
    watch = make_watch()
    watch.start()
    await until(lambda: bool(watch.state.findings))
    clock.now += PAUSE
    tailchat.findings = ()
    tailchat.answers.clear()
    person = asyncio.create_task(watch.obstacle())
    await until(lambda: tailchat.checks == 2)
    person.cancel()
    tailchat.answers.set()

    await until(lambda: not watch.state.findings)


async def test_logins_that_do_not_come_back_cause_a_check(
    tailchat: Tailchat, make_watch: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the check finds nothing either, the log says what it can be; once."""
    watch = make_watch()
    watch.start()
    await until(lambda: tailchat.checks == 1 and watch.state.checked_at > 0)
    for _ in range(2):
        watch.login_began()
        clock.now += LOST_SECONDS
        for _ in range(LOST_LOGINS - 1):
            watch.login_began()
        await until(lambda: bool(caplog.messages))

    assert tailchat.checks == 2
    (message,) = caplog.messages
    assert "check that browsers reach tailchat.api_url" in message


def of_doctor(watch: SignInWatch) -> None:
    """Begin a login as `doctor` does: it goes no further."""
    watch.login_began(OWN_AGENT)


def that_comes_back(watch: SignInWatch) -> None:
    """Begin a login and end it."""
    watch.login_began()
    watch.login_returned()


@pytest.mark.parametrize("login", [of_doctor, that_comes_back])
async def test_logins_that_show_no_fault_cause_no_check(
    tailchat: Tailchat, make_watch: Make, clock: Clock, login: Callable[[SignInWatch], None]
) -> None:
    """However many begin: a night of runs of `doctor` says nothing of people."""
    watch = make_watch()
    watch.start()
    await until(lambda: watch.state.checked_at > 0)
    for _ in range(5 * LOST_LOGINS):
        clock.now += LOST_SECONDS
        login(watch)
    # A check that was due would have begun.
    for _ in range(TURNS):
        await asyncio.sleep(0)

    assert tailchat.checks == 1


async def test_a_watch_that_was_not_started_checks_nothing(
    tailchat: Tailchat, make_watch: Make, clock: Clock
) -> None:
    """Nor does one that was closed."""
    watch = make_watch()
    for _ in range(2 * LOST_LOGINS):
        clock.now += LOST_SECONDS
        watch.login_began()
    assert await watch.obstacle() is None
    watch.start()
    watch.close()
    await asyncio.sleep(0)

    assert tailchat.checks == 0
