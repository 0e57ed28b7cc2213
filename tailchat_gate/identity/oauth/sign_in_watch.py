"""Decides when to check whether people can sign in, and stores the last result."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tailchat_gate.identity.oauth.sign_in_check import Finding
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.syntax import OWN_AGENT

#: Seconds after a check during which a sign-in does not start another one, so that strangers cannot
#: cause many checks.
PAUSE: Final = 5.0
#: Seconds between two checks while something is wrong.
RETRY: Final = 30.0
#: How many logins in a row must begin without one coming back before the gate checks again.
LOST_LOGINS: Final = 5
#: How many seconds ago the first of them must have begun: a person needs time to type a password.
LOST_SECONDS: Final = 60.0

_log: Final = logging.getLogger(LOGGER_NAME)


@dataclass(slots=True)
class SignInState:
    """The result of the last check; `checked_at` is its Unix second, 0 before the first one."""

    findings: tuple[Finding, ...] = ()
    checked_at: float = 0.0

    @property
    def obstacle(self) -> Finding | None:
        """The fault that prevents every sign-in, None if none is known."""
        return next((finding for finding in self.findings if finding.reason is not None), None)


class SignInWatch:
    """Runs a check at the start, while something is wrong, and when logins do not come back.

    `check` returns what it finds and raises nothing. `state` takes the result. `clock`: Unix
    seconds. Before `start`, nothing is checked.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[tuple[Finding, ...]]],
        state: SignInState,
        *,
        clock: Callable[[], float],
        retry: float = RETRY,
    ) -> None:
        self._check = check
        self.state: Final = state
        self._clock = clock
        self._retry = retry
        self._is_open = False
        self._checking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._lost = 0
        self._lost_since = 0.0
        self._is_loss_known = False

    def start(self) -> None:
        """Check in the background; needs a running event loop."""
        self._is_open = True
        self._watch()

    def close(self) -> None:
        """Stop checking."""
        self._is_open = False
        for task in (self._checking, self._watching):
            if task is not None:
                task.cancel()

    async def obstacle(self) -> Finding | None:
        """Return the fault that prevents every sign-in; check again if the result is old."""
        if self.state.obstacle is None:
            return None
        if self._is_open and not 0 <= self._clock() - self.state.checked_at < PAUSE:
            # Shielded: if this person leaves, the check goes on for others.
            await asyncio.shield(self._checked())
        return self.state.obstacle

    def login_began(self, agent: str = "") -> None:
        """Record that a browser was sent to Tailchat; check if none has come back for a while.

        `agent` is its User-Agent, to leave out the logins that `doctor` begins and never finishes.
        """
        if agent == OWN_AGENT:
            return
        now = self._clock()
        if self._lost == 0:
            self._lost_since = now
        self._lost += 1
        if self._lost >= LOST_LOGINS and now - self._lost_since >= LOST_SECONDS:
            self._lost = 0
            if self._is_open and not self._is_loss_known:
                self._is_loss_known = True
                self._watch(f"{LOST_LOGINS} sign-ins began and none came back")

    def login_returned(self) -> None:
        """Record that Tailchat sent a browser back."""
        self._lost, self._is_loss_known = 0, False

    def _watch(self, symptom: str = "") -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._keep_checking(symptom))

    async def _keep_checking(self, symptom: str) -> None:
        await self._checked()
        if symptom and not self.state.findings:
            _log.warning(
                "%s, although Tailchat answers the gate properly: check that browsers reach "
                "tailchat.api_url",
                symptom,
            )
        while self.state.findings:
            await asyncio.sleep(self._retry)
            await self._checked()

    def _checked(self) -> "asyncio.Task[None]":
        """Return the check under way; start one if there is none."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.get_running_loop().create_task(self._run())
        return self._checking

    async def _run(self) -> None:
        findings = await self._check()
        before, self.state.findings = self.state.findings, findings
        self.state.checked_at = self._clock()
        known = {finding.name for finding in before}
        for finding in findings:
            if finding.name not in known:
                level = logging.WARNING if finding.reason is None else logging.ERROR
                _log.log(level, "%s", finding.text, extra={"details": {"finding": finding.name}})
        if before and not findings:
            _log.info("Tailchat accepts sign-ins from this gate again")
