"""The members of Tailchat's groups: from its answers to the index that requests use."""

import hashlib
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Self

from tailchat_gate.config.values.group import Group, MemberSource
from tailchat_gate.people.groups.answer import TailchatGroup
from tailchat_gate.syntax import CLOCK_SKEW

_NO_GROUPS_BY_SUB: Final[Mapping[str, frozenset[str]]] = MappingProxyType({})
_NO_GROUPS: Final[frozenset[str]] = frozenset()
#: One less than the number of entries between two pauses, a power of two.
_SOME: Final = 255
_NOBODY: Final[frozenset[str]] = frozenset()


class Members:
    """The groups of one configuration that have members from Tailchat.

    Both attributes are replaced, never changed, so that requests read them without a lock or copy.
    `groups_of` maps a sub to the names of these groups that the person is in. `unknown` has the
    names of groups whose members are unknown at present: at first all.
    """

    __slots__ = ("groups_of", "unknown")

    def __init__(self, groups: Mapping[str, Group] = MappingProxyType({})) -> None:
        self.groups_of = _NO_GROUPS_BY_SUB
        self.unknown = frozenset(name for name, group in groups.items() if group.sources)

    def __repr__(self) -> str:
        """Show only numbers."""
        return f"<Members {len(self.groups_of)} people, {len(self.unknown)} groups unknown>"

    def of(self, sub: str) -> frozenset[str]:
        """Return the names of the groups that a person is in."""
        return self.groups_of.get(sub, _NO_GROUPS)


def index(groups: Mapping[str, frozenset[str]]) -> Generator[None, None, dict[str, frozenset[str]]]:
    """Return the groups of each person; `groups` has the people of each group.

    The generator yields now and then, because half a million entries take a second. People in the
    same groups share one object.
    """
    groups_of: dict[str, frozenset[str]] = {}
    combined: dict[frozenset[str], frozenset[str]] = {}
    for name, people in groups.items():
        alone = frozenset((name,))
        for count, sub in enumerate(people):
            held = groups_of.get(sub)
            both = alone if held is None else held | alone
            groups_of[sub] = combined.setdefault(both, both)
            if count & _SOME == _SOME:
                yield
    return groups_of


@dataclass(frozen=True, slots=True)
class SourceMembers:
    """The members of a source at the Unix second `at`.

    `gone`: the group or role does not exist, or the bot is not in the group. `digest` depends only
    on the members.
    """

    people: frozenset[str]
    at: float
    gone: bool
    digest: str

    @classmethod
    def of(cls, people: frozenset[str], at: float, *, gone: bool = False) -> Self:
        """Make one with the digest of the members."""
        return cls(people, at, gone, digest_of(pack(people)))


def pack(people: Collection[str]) -> bytes:
    """Return ids in a fixed order, 12 bytes each."""
    return bytes.fromhex("".join(sorted(people)))


def digest_of(packed: bytes) -> str:
    """Return the digest of packed ids."""
    return hashlib.sha256(packed).hexdigest()[:32]


class Memberships:
    """The last good answer about each source, in the memory of one process."""

    def __init__(self) -> None:
        self._known: dict[MemberSource, SourceMembers] = {}

    def get(self, source: MemberSource) -> SourceMembers | None:
        """Return the members of a source, None if they are unknown."""
        return self._known.get(source)

    @property
    def sources(self) -> Collection[MemberSource]:
        """The sources of which anything is known."""
        return self._known.keys()

    def restore(self, source: MemberSource, known: SourceMembers) -> None:
        """Take the members that an earlier or another process knew, if they are newer."""
        mine = self._known.get(source)
        if mine is None or mine.at < known.at:
            self._known[source] = known

    def take(
        self,
        answer: Mapping[str, TailchatGroup],
        wanted: Iterable[MemberSource],
        bot: str,
        now: float,
    ) -> Generator[None, None, set[MemberSource]]:
        """Replace the members by those of an answer; return the sources that changed.

        A group that is not in the answer was deleted, or the bot, whose sub is `bot`, is not in it.
        Sources that are not in `wanted` are forgotten.
        """
        current: dict[MemberSource, SourceMembers] = {}
        changed: set[MemberSource] = set()
        for source in wanted:
            group, before = answer.get(source.group), self._known.get(source)
            people = group.who(source.role) if group is not None else None
            gone = people is None
            now_in = (people or _NOBODY) - {bot}
            if before is not None and before.gone == gone and before.people == now_in:
                # The same set of people, so that what depends on it is not computed again.
                current[source] = replace(before, at=now)
            else:
                changed.add(source)
                current[source] = SourceMembers.of(now_in, now, gone=gone)
            yield
        self._known = current
        return changed

    def forget(self, sub: str) -> bool:
        """Remove a person from all members; return whether they were among any."""
        held = {source: known for source, known in self._known.items() if sub in known.people}
        for source, known in held.items():
            self._known[source] = SourceMembers.of(known.people - {sub}, known.at, gone=known.gone)
        return bool(held)

    def confirm(self, now: float) -> None:
        """Note that Tailchat gave the same answer again."""
        self._known = {source: replace(known, at=now) for source, known in self._known.items()}

    def age(self, sources: Iterable[MemberSource], now: float) -> float | None:
        """Return the seconds since the oldest answer about some sources, None if one has none."""
        known = [self._known.get(source) for source in sources]
        ages = [now - each.at for each in known if each is not None]
        return max(ages) if ages and len(ages) == len(known) else None


@dataclass(slots=True)
class Resolved:
    """The members of a configuration's groups: `people` of each by its name.

    Groups in `unknown` may have further members. `too_large` has the number of members of each
    group that lets nobody in because it has more than its `max`.
    """

    people: dict[str, frozenset[str]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    too_large: dict[str, int] = field(default_factory=dict)


def is_current(known: SourceMembers | None, now: float, max_age: float) -> bool:
    """Whether an answer still counts: not too old, and not from the future beyond CLOCK_SKEW."""
    return known is not None and -CLOCK_SKEW <= now - known.at <= max_age


def resolve(
    groups: Mapping[str, Group], memberships: Memberships, now: float, max_age: float
) -> Generator[None, None, Resolved]:
    """Return the members of the groups that have some from Tailchat."""
    resolved = Resolved()
    for name, group in groups.items():
        if not group.sources:
            continue
        sources = {source: memberships.get(source) for source in group.sources}
        current = [
            known.people
            for known in sources.values()
            if known is not None and is_current(known, now, max_age)
        ]
        people = current[0] if len(current) == 1 else _NOBODY
        if len(current) > 1:
            people = yield from _union(current)
        count = len(people) + sum(sub not in people for sub in set(group.subs))
        if group.most is not None and count > group.most:
            resolved.people[name] = _NOBODY
            resolved.too_large[name] = count
        else:
            resolved.people[name] = people
            if len(current) < len(sources):
                resolved.unknown.add(name)
        yield
    return resolved


def _union(parts: Iterable[frozenset[str]]) -> Generator[None, None, frozenset[str]]:
    people: set[str] = set()
    for part in parts:
        people |= part
        yield
    return frozenset(people)
