"""Asks Tailchat regularly who is in its groups, and updates the rules."""

import asyncio
import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from tailchat_gate.config.values.group import Group, MemberSource
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.api import USER_GROUPS, CannotTell, Raw, TailchatApi
from tailchat_gate.people.bot import Bot, has_public_key
from tailchat_gate.people.groups.answer import UnreadableError, read_groups
from tailchat_gate.people.groups.keeping import GroupKeeper, GroupReport, whole_seconds
from tailchat_gate.people.groups.memberships import Members, Memberships, Resolved, index, resolve
from tailchat_gate.people.groups.records import StoredMembers
from tailchat_gate.people.slices import at_once, in_slices
from tailchat_gate.state.store import Store

#: Seconds after which the key of Tailchat's tokens is checked again.
KEY_SECONDS: Final = 3600.0
_KEY_RETRY_SECONDS: Final = 300.0
#: The shortest pause between two rounds, in seconds.
_SHORTEST: Final = 0.1

KEY_PROBLEM: Final = (
    "Tailchat signs with a key that everybody knows, so anybody can act as anybody there and its "
    "groups count for nothing"
)
KEY_REMEDY: Final = "set SECRET in Tailchat's environment"
KEY_IS_PUBLIC: Final = f"{KEY_PROBLEM}: {KEY_REMEDY}"

_log: Final = logging.getLogger(LOGGER_NAME)


class GroupTerms(NamedTuple):
    """The settings for Tailchat's groups, and the parts that ask Tailchat about them.

    `server` is the address of Tailchat; the rules read `members`. `refresh` and `max_age` are in
    seconds; `max_bytes` is the largest answer.
    """

    server: str
    groups: Mapping[str, Group]
    members: Members
    api: TailchatApi
    bot: Bot
    refresh: float
    max_age: float
    max_bytes: int

    @property
    def sources(self) -> tuple[MemberSource, ...]:
        """The groups and roles of Tailchat that the configuration names."""
        return tuple(
            dict.fromkeys(source for group in self.groups.values() for source in group.sources)
        )


class GroupWatch:
    """Asks Tailchat for the groups of the configuration in force, one question at a time.

    The last answer is in `memberships` and in the store. Only a good answer changes the members of
    a group. Once the last good answer is too old, the group lets nobody in.
    """

    def __init__(self, store: Store, clock: Callable[[], float], audit: Audit) -> None:
        self.memberships: Final = Memberships()
        self._keeper = GroupKeeper(store, self.memberships, clock)
        store.follow(StoredMembers(self.memberships, self._forgot))
        self._clock = clock
        self._changed: Callable[[], None] = lambda: None
        self._terms: GroupTerms | None = None
        self._task: asyncio.Task[None] | None = None
        #: The last answer's digest, and for which sources and bot it was read.
        self._read: tuple[bytes, tuple[MemberSource, ...], str] | None = None
        self._resolved = Resolved()
        self._published_to: Members | None = None
        self._report = GroupReport(audit)
        self._key_checked_at = -KEY_SECONDS
        self._published = asyncio.Event()
        self.key_is_public: bool | None = None
        #: Whether changes are written to the logs.
        self.tells = True
        #: Why the last answer cannot be used, "" if it can.
        self.problem = ""

    # What others ask.

    @property
    def age(self) -> float:
        """The age of the oldest answer in use, in seconds; 0 if no group needs one."""
        sources = self._terms.sources if self._terms is not None else ()
        age = self.memberships.age(sources, self._clock())
        return math.inf if sources and age is None else age or 0.0

    @property
    def sizes(self) -> Mapping[str, int]:
        """The number of people that each group has from Tailchat, by its name."""
        return {name: len(people) for name, people in self._resolved.people.items()}

    @property
    def unknown(self) -> Sequence[str]:
        """The names of the groups whose members are unknown."""
        return sorted(self._resolved.unknown)

    @property
    def faults(self) -> Sequence[str]:
        """The present faults, one sentence each."""
        sentences = [KEY_IS_PUBLIC] if self.key_is_public else []
        if self.problem and not self.key_is_public:
            sentences.append(f"Tailchat's groups cannot be read: {self.problem}")
        if self._resolved.unknown:
            sentences.append(f"the members of {', '.join(self.unknown)} are unknown")
        for name, count in self._resolved.too_large.items():
            sentences.append(f"{name} has {count} members, more than its max, so it lets nobody in")
        for source in self._terms.sources if self._terms is not None else ():
            known = self.memberships.get(source)
            if known is not None and known.gone and not self.key_is_public:
                sentences.append(f"{source.entry} is gone, so it lets nobody in")
        return sentences

    # The life of the watch.

    def start(self, changed: Callable[[], None]) -> None:
        """Set the function to call whenever somebody may have got or lost a right."""
        self._changed = changed

    def use(self, terms: GroupTerms) -> None:
        """Follow the groups of a configuration that comes into force."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        before, self._terms = self._terms, terms
        self._published.clear()
        if before is not None and before.server != terms.server:
            self.key_is_public, self._read = None, None
            self._key_checked_at = -KEY_SECONDS
        if self.key_is_public:
            # The admin may have changed the key, so check it again.
            self._key_checked_at = -KEY_SECONDS
        self._task = asyncio.get_running_loop().create_task(self._run(terms))

    async def published(self) -> None:
        """Wait until the rules in force have what was known when they came into force."""
        await self._published.wait()

    async def close(self) -> None:
        """Stop asking, and write what the store does not have yet."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._keeper.close()

    async def _run(self, terms: GroupTerms) -> None:
        # First publish what the store or an earlier configuration knows already.
        await self._follow(terms, new=False)
        self._published.set()
        while True:
            problem = await self._ask(terms)
            if terms.sources:
                self._note(problem)
                # Also without an answer, because the last one may be too old now.
                await self._follow(terms, new=not problem)
            else:
                self.problem = ""
            await asyncio.sleep(self._pause(terms))

    async def _follow(self, terms: GroupTerms, *, new: bool) -> None:
        """Publish the members to the rules and, after a good answer (`new`), store them."""
        try:
            await self._publish(terms)
            if new:
                self._keeper.follow_up(terms.sources, terms.api)
        except Exception:  # noqa: BLE001 - the watch must go on
            _log.exception("the members of Tailchat's groups could not be followed")

    async def _ask(self, terms: GroupTerms) -> str:
        """Ask what is due; return why the answer cannot be used, "" if it can."""
        try:
            problem = await self._check_key(terms)
            return problem or (await self._refresh(terms) if terms.sources else "")
        except Exception as error:  # noqa: BLE001 - a fault of the gate's own is no answer
            problem = f"a fault of the gate, {type(error).__name__}"
            if problem != self.problem:
                _log.exception("Tailchat could not be asked about groups")
            return problem

    def _pause(self, terms: GroupTerms) -> float:
        """Return the seconds until the next question, or until an answer is too old."""
        if not terms.sources:
            return self._key_seconds(terms)
        age = self.memberships.age(terms.sources, self._clock())
        left = terms.max_age - age if age is not None else terms.refresh
        return max(_SHORTEST, min(terms.refresh, left + _SHORTEST) if left > 0 else terms.refresh)

    def _note(self, problem: str) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            details = {"problem": problem, "age": whole_seconds(self.age)}
            _log.error("Tailchat's groups cannot be read", extra={"details": details})
        else:
            _log.info("Tailchat's groups can be read again")

    def _forgot(self) -> None:
        """Parse and store the next answer even if it is unchanged, since a person was erased."""
        self._read = None
        self._keeper.rewrite()

    # One question.

    async def _refresh(self, terms: GroupTerms) -> str:
        """Ask Tailchat; return why its answer cannot be used, "" if it can."""
        result = await terms.bot.fetch(USER_GROUPS, {}, limit=terms.max_bytes)
        if isinstance(result, CannotTell):
            return result.why
        if not isinstance(result, Raw):
            return f"{result.status} {result.message or result.name}"
        sources, now = terms.sources, self._clock()
        digest = (await asyncio.to_thread(hashlib.sha256, result.body)).digest()
        read = (digest, sources, terms.bot.sub)
        if read == self._read:
            self.memberships.confirm(now)
            return ""
        try:
            answer = await in_slices(read_groups(result.body, {source.group for source in sources}))
        except UnreadableError as error:
            return f"an answer that cannot be read: {error}"
        gone = self._gone(sources)
        changed = await in_slices(self.memberships.take(answer, sources, terms.bot.sub, now))
        # No await from here on, so that a reload that cancels the task loses nothing.
        newly_gone = self._gone(sources) - gone
        self._keeper.note(changed, {source: source.group in answer for source in newly_gone})
        self._read = read
        return ""

    async def _check_key(self, terms: GroupTerms) -> str:
        """Check whether Tailchat's key is public; return why groups cannot be used, else ""."""
        now = self._clock()
        if not self._key_checked_at <= now < self._key_checked_at + self._key_seconds(terms):
            public = await has_public_key(terms.api, now)
            self._key_checked_at = now
            if isinstance(public, CannotTell):
                if self.key_is_public is None:
                    return f"it does not say whether its key is public: {public.problem}"
            else:
                if public and not self.key_is_public:
                    _log.error(KEY_IS_PUBLIC)
                self.key_is_public = public
        return KEY_IS_PUBLIC if self.key_is_public else ""

    def _key_seconds(self, terms: GroupTerms) -> float:
        """Return after how many seconds the key is checked again."""
        if self.key_is_public is not None:
            return KEY_SECONDS
        return 0.0 if terms.sources else _KEY_RETRY_SECONDS

    def _gone(self, sources: Sequence[MemberSource]) -> set[MemberSource]:
        known = {source: self.memberships.get(source) for source in sources}
        return {source for source, each in known.items() if each is not None and each.gone}

    # What follows for requests.

    async def _publish(self, terms: GroupTerms) -> None:
        """Publish the members known now to the rules, in one step."""
        groups = terms.groups
        resolved = await in_slices(resolve(groups, self.memberships, self._clock(), terms.max_age))
        if self.key_is_public:
            resolved = Resolved(people=dict.fromkeys(resolved.people, frozenset()))
        if terms.members is self._published_to and _is_same(resolved, self._resolved):
            return
        groups_of = await in_slices(index(resolved.people))
        terms.members.groups_of = groups_of
        terms.members.unknown = frozenset(resolved.unknown)
        before = self._resolved
        self._resolved, self._published_to = resolved, terms.members
        self._changed()
        if self.tells:
            # Last, so that a fault of the log does not keep a right in force.
            self._report.tell(terms.groups, before, resolved, age=self.age)


def _is_same(before: Resolved, after: Resolved) -> bool:
    """Whether two are equal; comparing is quick, since unchanged members are mostly one object."""
    return (before.unknown, before.too_large) == (after.unknown, after.too_large) and (
        before.people == after.people
    )


def fill(terms: GroupTerms, watch: GroupWatch, now: float) -> None:
    """Give the rules of a new configuration the members that `watch` knows already.

    Do not call it in the event loop: it may take a second. `now` is in Unix seconds.
    """
    if watch.key_is_public:
        terms.members.unknown = frozenset()
    else:
        fill_from(terms.members, terms.groups, watch.memberships, (now, terms.max_age))


def fill_from(
    members: Members,
    groups: Mapping[str, Group],
    memberships: Memberships,
    when: tuple[float, float],
) -> None:
    """Fill `members` with those that still count; `when` is the Unix second and the largest age."""
    resolved = at_once(resolve(groups, memberships, *when))
    members.groups_of = at_once(index(resolved.people))
    members.unknown = frozenset(resolved.unknown)
