"""Stores the members of Tailchat's groups and logs changes, after each round of questions.

No round waits for this, because a slow store or Tailchat must not delay the end of a right.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Final

from tailchat_gate.config.values.group import Group, MemberSource
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.api import GROUP_INFO, CannotTell, Done, TailchatApi
from tailchat_gate.people.groups.memberships import Memberships, Resolved
from tailchat_gate.people.groups.records import to_records
from tailchat_gate.state.store import Record, Store

#: How many people who joined or left a group at once get a line each in the audit log; further
#: lines name as many each.
MOST_NAMED: Final = 100


#: Seconds after which unchanged members are written to the store again as a whole.
_REWRITE_SECONDS: Final = 86_400.0

_log: Final = logging.getLogger(LOGGER_NAME)


class GroupReport:
    """Logs the differences between the members known now and those known for certain before."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        #: The last members of each group that were certain, with the group's settings then.
        self._certain: dict[str, tuple[Group, frozenset[str]]] = {}

    def tell(
        self, groups: Mapping[str, Group], before: Resolved, now: Resolved, *, age: float
    ) -> None:
        """Log the differences; `age` is that of the oldest answer, in seconds."""
        if now.unknown - before.unknown and before.people:
            details: dict[str, object] = {
                "groups": sorted(now.unknown),
                "age": whole_seconds(age),
            }
            _log.error("the members of groups of Tailchat are unknown", extra={"details": details})
        elif before.unknown and not now.unknown:
            _log.info("the members of Tailchat's groups are known again")
        for name, count in now.too_large.items():
            if before.too_large.get(name) != count:
                details = {"group": name, "members": count}
                _log.error("a group has more members than its max", extra={"details": details})
        for name, people in now.people.items():
            if name not in now.unknown:
                self._compare(name, groups[name], people)

    def _compare(self, name: str, group: Group, people: frozenset[str]) -> None:
        """Log who joined and who left a group."""
        before = self._certain.get(name)
        self._certain[name] = group, people
        if before is None or before[0] != group:
            details = {"group": name, "members": len(people)}
            _log.info("the members of a group are known", extra={"details": details})
            return
        listed = frozenset(group.subs)
        joined, left = people - before[1] - listed, before[1] - people - listed
        changes = [(sub, True) for sub in sorted(joined)] + [(sub, False) for sub in sorted(left)]
        for sub, has_joined in changes[:MOST_NAMED]:
            self._audit.membership_changed(sub, name, joined=has_joined)
        for start in range(MOST_NAMED, len(changes), MOST_NAMED):
            some = changes[start : start + MOST_NAMED]
            came, went = ([sub for sub, came in some if came is wanted] for wanted in (True, False))
            self._audit.memberships_changed(name, came, went)


def whole_seconds(age: float) -> int | None:
    """Return an age in whole seconds for a log, None for an infinite one."""
    return int(age) if math.isfinite(age) else None


class GroupKeeper:
    """Writes `memberships` to the store, and logs deleted groups, in a background task each.

    Call `note` with the changes of an answer as soon as it counts, and `follow_up` once the rules
    have them. `clock` gives Unix seconds.
    """

    def __init__(self, store: Store, memberships: Memberships, clock: Callable[[], float]) -> None:
        self._store = store
        self._memberships = memberships
        self._clock = clock
        self._writing: asyncio.Task[None] | None = None
        self._logging: asyncio.Task[None] | None = None
        #: Sources whose members in the store differ from those in memory.
        self._unwritten: set[MemberSource] = set()
        self._written_at = -_REWRITE_SECONDS
        #: Sources whose members did not change, but whose stored time is too old.
        self._confirmed: Collection[MemberSource] = ()
        #: Sources that are gone, which is not logged yet, with whether their group exists.
        self._unlogged: dict[MemberSource, bool] = {}

    def note(self, changed: Iterable[MemberSource], gone: Mapping[MemberSource, bool]) -> None:
        """Remember sources to write, and those that are gone, with whether their group exists."""
        self._unwritten.update(changed)
        self._unlogged.update(gone)

    def rewrite(self) -> None:
        """Write all members again at the next `follow_up`."""
        self._written_at = -_REWRITE_SECONDS

    def follow_up(self, sources: Collection[MemberSource], api: TailchatApi) -> None:
        """Soon write and log what was noted; of the other sources write only the new time."""
        now = self._clock()
        if not 0 <= now - self._written_at < _REWRITE_SECONDS:
            self._unwritten.update(sources)
            self._written_at = now
        self._confirmed = sources
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(_guarded(self._write()))
        if self._unlogged and (self._logging is None or self._logging.done()):
            self._logging = asyncio.create_task(_guarded(self._log_gone(api)))

    async def close(self) -> None:
        """Stop both tasks, and hand what is not yet written to the store."""
        for task in (self._writing, self._logging):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._writing = self._logging = None
        while self._unwritten:
            self._store.put(self._next_whole())

    async def _write(self) -> None:
        while self._unwritten or self._confirmed:
            while self._unwritten:
                # The store completes this write even if this task is cancelled.
                await self._store.put(self._next_whole())
            confirmed, self._confirmed = self._confirmed, ()
            heads: list[Record] = []
            for source in confirmed:
                known = self._memberships.get(source)
                if known is not None and source not in self._unwritten:
                    heads += to_records(source, known, whole=False)
            await self._store.put(heads)

    def _next_whole(self) -> list[Record]:
        source = self._unwritten.pop()
        known = self._memberships.get(source)
        return to_records(source, known) if known is not None else []

    async def _log_gone(self, api: TailchatApi) -> None:
        while self._unlogged:
            source, has_group = self._unlogged.popitem()
            why = "the group has no such role" if has_group else await _why_gone(api, source)
            known = self._memberships.get(source)
            if known is not None and known.gone:
                details = {"entry": source.entry, "why": why}
                _log.error(
                    "nobody is in a group of Tailchat: it is gone", extra={"details": details}
                )


async def _guarded(work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - the next round tries again
        _log.exception("members of Tailchat's groups could not be stored or logged")


async def _why_gone(api: TailchatApi, source: MemberSource) -> str:
    info = await api.call(GROUP_INFO, {"groupId": source.group})
    if isinstance(info, CannotTell):
        return "there is no such group, or the gate's bot is not in it"
    exists = isinstance(info, Done) and info.data is not None
    return "the gate's bot is not in this group" if exists else "there is no such group"
