"""After a round about Tailchat's groups: stores members and logs changes.

No round waits for it: a slow store or a slow Tailchat must not keep a door open.
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
from tailchat_gate.people.api import CannotTell, Done, TailchatApi
from tailchat_gate.people.group_records import to_records
from tailchat_gate.people.memberships import Memberships, Resolved
from tailchat_gate.state.store import Record, Store

#: People of one group who came or went at once that have a line of the audit log each; of more,
#: a line names as many.
MOST_NAMED: Final = 100


#: Seconds after which unchanged members are written to the store again as a whole.
_REWRITE_SECONDS: Final = 86_400.0
_BASIC_INFO: Final = "group/getGroupBasicInfo"

_log: Final = logging.getLogger(LOGGER_NAME)


class GroupReport:
    """Compares what is known now with what was certain before."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        #: The last people of each group that were certain, with what the group was then.
        self._certain: dict[str, tuple[Group, frozenset[str]]] = {}

    def tell(
        self, groups: Mapping[str, Group], before: Resolved, now: Resolved, *, age: float
    ) -> None:
        """Say what is different; `age` is that of the oldest answer, in seconds."""
        if now.unknown - before.unknown and before.people:
            details: dict[str, object] = {
                "groups": sorted(now.unknown),
                "age": whole_seconds(age),
            }
            _log.error("nobody is known to be in groups of Tailchat", extra={"details": details})
        elif before.unknown and not now.unknown:
            _log.info("it is known who is in the groups of Tailchat")
        for name, count in now.too_large.items():
            if before.too_large.get(name) != count:
                details = {"group": name, "members": count}
                _log.error("a group has more members than its max", extra={"details": details})
        for name, people in now.people.items():
            if name not in now.unknown:
                self._compare(name, groups[name], people)

    def _compare(self, name: str, group: Group, people: frozenset[str]) -> None:
        """Write for whom a door was opened or closed."""
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
    """Return an age for a log, None for none."""
    return int(age) if math.isfinite(age) else None


class GroupKeeper:
    """Writes `memberships` to the store, and tells of what is gone: one of each at a time.

    `note` what an answer changed as soon as it counts, and `follow_up` once the rules know it.
    `clock`: Unix seconds.
    """

    def __init__(self, store: Store, memberships: Memberships, clock: Callable[[], float]) -> None:
        self._store = store
        self._memberships = memberships
        self._clock = clock
        self._writing: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        #: Whose members in the store are not those in memory. A task that ends early leaves them.
        self._unwritten: set[MemberSource] = set()
        self._written_at = -_REWRITE_SECONDS
        #: Whose heads say too early a time.
        self._confirmed: Collection[MemberSource] = ()
        #: What is gone and not yet told, with whether its group is there.
        self._untold: dict[MemberSource, bool] = {}

    def note(self, changed: Iterable[MemberSource], gone: Mapping[MemberSource, bool]) -> None:
        """Remember what is to be written, and what is gone, with whether its group is there."""
        self._unwritten.update(changed)
        self._untold.update(gone)

    def rewrite(self) -> None:
        """Write everything as a whole the next time."""
        self._written_at = -_REWRITE_SECONDS

    def follow_up(self, sources: Collection[MemberSource], api: TailchatApi) -> None:
        """Write and tell what is noted, soon; of what did not change, only that it still holds."""
        now = self._clock()
        if not 0 <= now - self._written_at < _REWRITE_SECONDS:
            self._unwritten.update(sources)
            self._written_at = now
        self._confirmed = sources
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(_logged(self._write()))
        if self._untold and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(_logged(self._tell(api)))

    async def close(self) -> None:
        """Stop telling, and leave what is not yet written to the store, which writes it."""
        for task in (self._writing, self._telling):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._writing = self._telling = None
        while self._unwritten:
            self._store.put(self._next_whole())

    async def _write(self) -> None:
        while self._unwritten or self._confirmed:
            while self._unwritten:
                # The store completes what it was given, even where this task is cancelled.
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

    async def _tell(self, api: TailchatApi) -> None:
        while self._untold:
            source, has_group = self._untold.popitem()
            why = "the group has no such role" if has_group else await _why_gone(api, source)
            known = self._memberships.get(source)
            if known is not None and known.gone:
                details = {"entry": source.entry, "why": why}
                _log.error(
                    "nobody is in a group of Tailchat: it is gone", extra={"details": details}
                )


async def _logged(work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - the next round tries again
        _log.exception("what follows an answer about Tailchat's groups was not done")


async def _why_gone(api: TailchatApi, source: MemberSource) -> str:
    info = await api.call(_BASIC_INFO, {"groupId": source.group})
    if isinstance(info, CannotTell):
        return "there is no such group, or the gate's bot is not in it"
    exists = isinstance(info, Done) and info.data is not None
    return "the gate's bot is not in this group" if exists else "there is no such group"
