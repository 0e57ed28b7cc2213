"""Who is in the configuration's groups by Tailchat's word, prepared for requests."""

from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Final

from tailchat_gate.config.values.group import Group

_NOBODY: Final[Mapping[str, frozenset[str]]] = MappingProxyType({})
_NONE: Final[frozenset[str]] = frozenset()
#: One less than the number of entries between two pauses, a power of two.
_SOME: Final = 255


class Members:
    """The groups of one configuration that have members from Tailchat.

    Both attributes are replaced, never changed: a request reads them without a lock or a copy.
    `groups_of` maps a sub to the names of such groups that the person is in. `unknown` names those
    of which the gate cannot tell at present who is in them, at first all of them.
    """

    __slots__ = ("groups_of", "unknown")

    def __init__(self, groups: Mapping[str, Group] = MappingProxyType({})) -> None:
        self.groups_of = _NOBODY
        self.unknown = frozenset(name for name, group in groups.items() if group.sources)

    def __repr__(self) -> str:
        """Numbers only."""
        return f"<Members {len(self.groups_of)} people, {len(self.unknown)} groups unknown>"

    def of(self, sub: str) -> frozenset[str]:
        """Return the names of the groups that a person is in."""
        return self.groups_of.get(sub, _NONE)


def index(groups: Mapping[str, frozenset[str]]) -> Generator[None, None, dict[str, frozenset[str]]]:
    """Return the groups of each person; `groups` has the people of each group.

    It yields now and then, so that other work is done meanwhile: half a million entries take a
    second. People in the same groups share one object.
    """
    found: dict[str, frozenset[str]] = {}
    combined: dict[frozenset[str], frozenset[str]] = {}
    for name, people in groups.items():
        alone = frozenset((name,))
        for count, sub in enumerate(people):
            held = found.get(sub)
            both = alone if held is None else held | alone
            found[sub] = combined.setdefault(both, both)
            if count & _SOME == _SOME:
                yield
    return found
