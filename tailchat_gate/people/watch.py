"""Asks Tailchat regularly about the people who use the tools."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.api import CannotTell, Refused
from tailchat_gate.people.facts import Account, Facts, KnownPeople, blocked_because, is_askable
from tailchat_gate.people.inquiry import MOST_ASKED, Inquiry, Records
from tailchat_gate.reasons import Reason

ABOUT_SECONDS: Final = 300.0
"""For how many seconds after a person's last request the gate asks about them."""
OFF_SECONDS: Final = 600.0
"""Seconds until a call that Tailchat refused is tried again."""
MOST_WAITING: Final = 5000
"""How many people's requests may wait for a first answer; those of others do not wait."""
#: Seconds beyond `refresh` that an answer and a round may take.
_MARGIN: Final = 20.0
#: The reasons to keep an account out that depend on the configuration.
_BY_CONFIGURATION: Final = frozenset((Reason.GUEST_REFUSED, Reason.BOT_REFUSED))

_OUTAGE: Final = "Tailchat could not be asked about people; what is known of them stays"
CLOSED: Final = (
    "Tailchat does not let the gate ask about people: bans, new names and e-mail addresses do not "
    "arrive, and guests are not known as guests"
)

_log: Final = logging.getLogger(LOGGER_NAME)


@dataclass(frozen=True, slots=True)
class WatchTerms:
    """The settings about people.

    `refresh`: seconds between two questions about a person, 0 for no questions. `guests`: guests
    and bots may enter. `keeps_emails`: a route uses e-mail addresses; `unverified`: also those that
    Tailchat did not verify.
    """

    refresh: float
    guests: bool = False
    keeps_emails: bool = False
    unverified: bool = False


class PersonFacts(NamedTuple):
    """The present facts about a person.

    `facts` is Tailchat's answer of the Unix second `facts_at`, None for none. `waits`: the facts
    are missing or too old, and Tailchat is being asked.
    """

    facts: Facts | None
    facts_at: float
    waits: bool


class PeopleWatch:
    """Follows bans, names and addresses for one configuration, while it is in force.

    `people` has the known facts; it survives a reload. `set_blocked(sub, reason)` is called with
    every answer: why a person may enter no tool, None if they may; `blocked()` returns those who
    may not. `heard()` is called after every good answer. `clock` gives Unix seconds, `monotonic`
    seconds that never go back.
    """

    def __init__(
        self,
        terms: WatchTerms,
        inquiry: Inquiry,
        people: KnownPeople,
        *,
        set_blocked: Callable[[str, Reason | None], None],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        blocked: Callable[[], Mapping[str, Reason]],
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self.terms: Final = terms
        self._inquiry = inquiry
        self._people = people
        self._set_blocked = set_blocked
        self._clock = clock
        self._monotonic = monotonic
        self._blocked = blocked
        self._heard = heard
        self._stale_after = terms.refresh + _MARGIN
        self._about_for = max(ABOUT_SECONDS, 3 * terms.refresh)
        self._is_running = False
        #: The last call failed, so no request waits until a call succeeds.
        self._is_failing = False
        #: The message that was logged about that, "" for none.
        self._logged = ""
        self._off_until = 0.0
        #: People to be asked about at once, each with the future that ends their wait.
        self._urgent: dict[str, asyncio.Future[None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to ask; needs a running event loop."""
        self._is_running = self.terms.refresh > 0
        for sub, reason in self._blocked().items():
            if not self._is_running or (self.terms.guests and reason in _BY_CONFIGURATION):
                # Without questions the gate would not learn that this no longer holds.
                self._set_blocked(sub, None)
        if not self._is_running:
            return
        self._people.keep_emails(self.terms.keeps_emails)
        for sub, known in self._people:
            if known.facts is not None:
                self._judge(sub, known.facts)
        self._run(self._rounds())

    def stop(self) -> None:
        """Ask nothing more; waiting requests proceed with the known facts."""
        self._is_running = False
        for task in self._tasks:
            task.cancel()
        self._release(tuple(self._urgent))

    async def close(self) -> None:
        """Stop, and end the calls in progress."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def look(self, sub: str) -> PersonFacts:
        """Note a request of a person and return the facts about them, without waiting."""
        now = self._monotonic()
        known = self._people.seen(sub, now)
        facts = known.facts if isinstance(known.facts, Facts) else None
        is_stale = now - known.asked_at >= self._stale_after
        waits = is_stale and not self._is_failing and self._ask_soon(sub)
        return PersonFacts(facts, known.facts_at, waits)

    def settled(self, sub: str) -> "asyncio.Future[None] | None":
        """Return a future that is done once the question about a person has ended.

        It is None if there is no question. All waiting requests share it, so do not cancel it.
        """
        return self._urgent.get(sub)

    async def confirm(self, sub: str) -> None:
        """Ask about a person who signs in, and wait for the answer or the failure."""
        if not is_askable(sub) or not self._is_running:
            return
        self._people.seen(sub, self._monotonic())
        # A question under way may have been sent before a ban, so ask once more after it.
        waiting = self._urgent.get(sub)
        if waiting is not None:
            await asyncio.wait((waiting,))
        if self._ask_soon(sub):
            await asyncio.wait((self._urgent[sub],))

    def address(self, facts: Facts | None) -> str:
        """Return the e-mail address that tools may get, "" for none."""
        if facts is None or not (facts.email_verified or self.terms.unverified):
            return ""
        return facts.email

    def _run(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Who signs in, or comes back after a while.

    def _ask_soon(self, sub: str) -> bool:
        """Ask about a person at once, in the background; return whether that is possible."""
        if not self._is_running or self._monotonic() < self._off_until:
            return False
        if sub not in self._urgent:
            if len(self._urgent) >= MOST_WAITING:
                return False
            self._urgent[sub] = asyncio.get_running_loop().create_future()
        if self._asking is None or self._asking.done():
            self._asking = self._run(self._ask_urgent())
        return True

    async def _ask_urgent(self) -> None:
        """Ask about the people whose requests wait, as many in one call as allowed."""
        while self._urgent:
            subs = tuple(islice(self._urgent, MOST_ASKED))
            try:
                answered = await self._ask(subs)
            finally:
                self._release(subs)
            if not answered:
                self._release(tuple(self._urgent))

    def _release(self, subs: Iterable[str]) -> None:
        for sub in subs:
            waiting = self._urgent.pop(sub, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    # Everybody with recent requests.

    async def _rounds(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self._round()
            await asyncio.sleep(max(0.0, began + self.terms.refresh - loop.time()))

    async def _round(self) -> None:
        """Ask about everybody with recent requests, until a call fails."""
        now = self._monotonic()
        # Also about those just asked about: a ban right after a sign-in must not wait two rounds.
        due = self._people.about(now - self._about_for)
        for start in range(0, len(due), MOST_ASKED):
            if now < self._off_until or not await self._ask(due[start : start + MOST_ASKED]):
                return

    # One call.

    async def _ask(self, subs: Sequence[str]) -> bool:
        """Ask about some people and apply the answer; return whether there was one."""
        asked_at, facts_at = self._monotonic(), self._clock()
        try:
            records = await self._inquiry.ask(subs)
            if not isinstance(records, dict):
                self._failed(records)
                return False
            self._answered(subs, records, asked_at, facts_at)
        except Exception:  # noqa: BLE001 - the rounds go on
            _log.exception("people could not be looked up because of a fault inside the gate")
            self._is_failing = True
            return False
        return True

    def _answered(
        self,
        subs: Sequence[str],
        records: Records,
        asked_at: float,
        facts_at: float,
    ) -> None:
        if self._logged:
            _log.info("Tailchat can be asked about people again")
        self._is_failing, self._off_until, self._logged = False, 0.0, ""
        self._heard()
        for sub in subs:
            facts = records.get(sub)
            is_newest = self._people.learn(sub, facts, asked_at=asked_at, facts_at=facts_at)
            if facts is not None and is_newest:
                self._judge(sub, facts)

    def _failed(self, result: Refused | CannotTell) -> None:
        """Keep the known facts, and log the failure once, until Tailchat answers again."""
        self._is_failing = True
        message = _OUTAGE
        if isinstance(result, Refused) and result.is_closed:
            message = CLOSED
            self._off_until = self._monotonic() + OFF_SECONDS
        if self._logged != message:
            self._logged = message
            _log.warning(message, extra={"details": {"problem": _problem(result)}})

    def _judge(self, sub: str, facts: Account) -> None:
        self._set_blocked(sub, blocked_because(facts, guests=self.terms.guests))


def _problem(result: Refused | CannotTell) -> str:
    if isinstance(result, CannotTell):
        return f"{result.reason}: {result.problem}"
    return f"status {result.status} {result.name}"
