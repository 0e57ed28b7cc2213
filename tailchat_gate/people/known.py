"""The accounts that Tailchat is asked about, and what it last said; bounded, no I/O."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from tailchat_gate.people.facts import Account, Facts

#: People in memory, less than 1 KiB each.
CAPACITY: Final = 20_000
NEVER: Final = -math.inf


class KnownPerson:
    """What is known of one person.

    `about_at`: when a request of theirs was last seen. `asked_at`: when Tailchat was last asked
    about them, and answered; NEVER if it was not. Both are monotonic seconds. `facts` is what it
    said, None for nothing, in the Unix second `told_at`.
    """

    __slots__ = ("about_at", "asked_at", "facts", "told_at")

    def __init__(self, about_at: float) -> None:
        self.about_at = about_at
        self.asked_at = NEVER
        self.facts: Account | None = None
        self.told_at = 0.0


class KnownPeople:
    """The people who are signed in and about, in one process.

    It holds no configuration, so that it survives a reload. Over `capacity` it forgets first those
    who were asked about longest ago: they count as unknown, and are asked about when they return.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._keeps_emails = False
        #: The longest unasked first.
        self._all: OrderedDict[str, KnownPerson] = OrderedDict()

    def __len__(self) -> int:
        """How many people are in memory."""
        return len(self._all)

    def __iter__(self) -> Iterator[tuple[str, KnownPerson]]:
        return iter(self._all.items())

    def seen(self, sub: str, now: float) -> KnownPerson:
        """Note a request of a person; return what is known of them."""
        known = self._all.get(sub)
        if known is None:
            known = self._all[sub] = KnownPerson(now)
            if len(self._all) > self._capacity:
                self._all.popitem(last=False)
        known.about_at = now
        return known

    def get(self, sub: str) -> KnownPerson | None:
        """Return what is known of a person."""
        return self._all.get(sub)

    def learn(self, sub: str, facts: Account | None, *, asked_at: float, told_at: float) -> bool:
        """Store the answer to a question of `asked_at`; return whether it is the newest.

        A later question may have been answered already. None: it said nothing of this person, and
        what is known stays.
        """
        known = self._all.get(sub)
        if known is None:
            return True
        if asked_at < known.asked_at:
            return False
        known.asked_at = asked_at
        if facts is not None:
            known.facts, known.told_at = facts, told_at
        self._all.move_to_end(sub)
        return True

    def about(self, since: float) -> list[str]:
        """Return who was about since then, the longest unasked first; forget the others."""
        self._forget(sub for sub, known in self._all.items() if known.about_at < since)
        return list(self._all)

    def keep_emails(self, keep: bool) -> None:  # noqa: FBT001 - a setting's value
        """Keep addresses from now on, or forget those that are known.

        Once they are to be kept, everybody is unknown until they were asked about again.
        """
        before, self._keeps_emails = self._keeps_emails, keep
        for known in self._all.values():
            if keep and not before:
                known.asked_at = NEVER
            elif not keep and isinstance(known.facts, Facts):
                known.facts = replace(known.facts, email="")

    def _forget(self, subs: Iterable[str]) -> None:
        for sub in tuple(subs):
            del self._all[sub]
