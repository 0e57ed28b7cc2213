"""Finds routes that are open to strangers, by Tailchat's settings for new accounts."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tailchat_gate.config.model import RouteSettings, Settings
from tailchat_gate.config.values.identifier import SIGNED_IN
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.api import CannotTell, Done, TailchatApi

RETRY: Final = 60.0
"""Seconds until Tailchat is asked again if it did not answer."""
_ACTION: Final = "config/client"

_log: Final = logging.getLogger(LOGGER_NAME)


@dataclass(frozen=True, slots=True)
class Registration:
    """The rules of Tailchat for new accounts.

    `is_open`: everybody can register. `verifies`: e-mail addresses are verified. `guests`:
    everybody can get a guest account, without an address.
    """

    is_open: bool
    verifies: bool
    guests: bool


def read_registration(data: object) -> Registration | None:
    """Read the rules from Tailchat's settings for its clients, None if they have another form.

    Tailchat: by default registration and guest accounts are open, and nothing is verified.
    """
    if not isinstance(data, dict):
        return None
    names = ("disableUserRegister", "emailVerification", "disableGuestLogin")
    values = [data.get(name, False) for name in names]
    if not all(isinstance(value, bool) for value in values):
        return None
    closed, verifies, no_guests = map(bool, values)
    return Registration(not closed, verifies, not no_guests)


def open_to_strangers(settings: Settings, registration: Registration) -> Iterator[str]:
    """Yield a sentence for each route that strangers may enter after they made an account.

    If Tailchat does not verify e-mail addresses, yield one also for each route that uses these.
    """
    entrants = _entrants(settings, registration)
    for route in settings.route:
        if SIGNED_IN in route.allow and entrants:
            remedy = "name a group in allow, or close registration in Tailchat"
            yield f"{route.name}: {entrants}; {remedy}"
    if not registration.verifies:
        yield from _unverified(settings.route, passed_on=settings.tailchat.unverified_email)


def _entrants(settings: Settings, registration: Registration) -> str:
    """Say which strangers may enter routes for everybody who is signed in, "" for none."""
    if registration.guests and settings.access.guests:
        return "everybody who reaches Tailchat may enter, as a guest and without an address"
    if not registration.is_open:
        return ""
    address = (
        "an e-mail address"
        if registration.verifies
        else "any e-mail address, which nobody verifies"
    )
    return f"everybody who reaches Tailchat may enter, by registering there with {address}"


def _unverified(routes: Sequence[RouteSettings], *, passed_on: bool) -> Iterator[str]:
    for route in routes:
        if route.uses_email:
            effect = (
                "it gets addresses that anybody can have registered with"
                if passed_on
                else "it gets none of people whose address was never verified"
            )
            yield f"{route.name}: Tailchat does not verify e-mail addresses, so {effect}"


class RegistrationCheck:
    """Asks Tailchat who can get an account, and logs for which routes that matters.

    `logged` has the sentences that were logged last; it survives a reload.
    """

    def __init__(self, settings: Settings, api: TailchatApi, logged: set[str]) -> None:
        self._settings = settings
        self._api = api
        self._logged = logged
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> tuple[str, ...] | CannotTell:
        """Return the sentences about the routes; raises nothing."""
        result = await self._api.call(_ACTION, {})
        if isinstance(result, CannotTell):
            return result
        if not isinstance(result, Done):
            return ()
        registration = read_registration(result.data)
        return tuple(open_to_strangers(self._settings, registration)) if registration else ()

    def start(self) -> None:
        """Ask in the background until Tailchat answers; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._log_findings())

    def close(self) -> None:
        """Ask nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _log_findings(self) -> None:
        sentences = await self.run()
        while isinstance(sentences, CannotTell):
            await asyncio.sleep(RETRY)
            sentences = await self.run()
        for sentence in sentences:
            if sentence not in self._logged:
                _log.warning("%s", sentence)
        self._logged.clear()
        self._logged.update(sentences)
