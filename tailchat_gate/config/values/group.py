"""The members of a group: subs, and groups and roles of Tailchat by their ids."""

import re
from collections.abc import Iterable
from typing import NamedTuple, Self

from tailchat_gate import syntax
from tailchat_gate.config.values import identifier

TAILCHAT_GROUP = "tailchat-group:"
TAILCHAT_ROLE = "tailchat-role:"
MEMBER = (
    f'{identifier.SUBS}, or "{TAILCHAT_GROUP}ID" or "{TAILCHAT_ROLE}GROUP/ROLE" with ids of 24 hex '
    "digits in lower case, as `tailchat-gate tailchat-groups` prints them; anybody may give a "
    "group of Tailchat any name"
)
_OF_TAILCHAT = "tailchat-"
_ID = syntax.TAILCHAT_ID.pattern
PANEL = '"GROUP/PANEL", the ids of a Tailchat group and of one of its panels, or "" for none'
PANEL_IDS = f"(?:{_ID}/{_ID})?"
_PANEL = re.compile(PANEL_IDS)
_SOURCE = re.compile(f"{TAILCHAT_GROUP}({_ID})|{TAILCHAT_ROLE}({_ID})/({_ID})")

#: One entry of a group, for a JSON Schema.
MEMBER_ENTRY = (
    f"(?:{TAILCHAT_GROUP}{_ID}|{TAILCHAT_ROLE}{_ID}/{_ID}|(?!{_OF_TAILCHAT}){syntax.SUB})"
)


def panel(text: str) -> str:
    """Check the panel of a Tailchat group; raises ValueError, whose text says what is accepted."""
    if not _PANEL.fullmatch(text):
        raise ValueError(PANEL)
    return text


class MemberSource(NamedTuple):
    """A group of Tailchat whose members belong to a group here; `role`: only those with it."""

    group: str
    role: str = ""

    @property
    def entry(self) -> str:
        """The entry in the configuration."""
        if self.role:
            return f"{TAILCHAT_ROLE}{self.group}/{self.role}"
        return f"{TAILCHAT_GROUP}{self.group}"


class Group(tuple[str, ...]):  # noqa: SLOT001 - a tuple of any length cannot have more slots
    """The entries of a group as written; `most` is its largest size, None for no limit."""

    most: int | None

    def __new__(cls, entries: Iterable[str] = (), most: int | None = None) -> Self:
        """Make a group of entries that were checked."""
        made = super().__new__(cls, entries)
        made.most = most
        return made

    def __eq__(self, other: object) -> bool:
        """Compare the entries, and the limits of two groups."""
        same_limit = not isinstance(other, Group) or self.most == other.most
        return same_limit and super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        """Negate `==`; the comparison of tuple would ignore the limit."""
        return not self == other

    def __hash__(self) -> int:
        """Hash as equal tuples do."""
        return super().__hash__()

    @property
    def subs(self) -> tuple[str, ...]:
        """The people listed one by one."""
        return tuple(entry for entry in self if not entry.startswith(_OF_TAILCHAT))

    @property
    def sources(self) -> tuple[MemberSource, ...]:
        """The groups and roles of Tailchat."""
        read = map(read_source, self)
        return tuple(source for source in read if source is not None)


def read_source(text: str) -> MemberSource | None:
    """Return the group or role of Tailchat that an entry names, None for any other text."""
    match = _SOURCE.fullmatch(text)
    if match is None:
        return None
    return MemberSource(match[1]) if match[1] else MemberSource(match[2], match[3])


def member(text: str) -> str:
    """Check one entry of a group; raises ValueError, whose text says what is accepted."""
    if text.startswith(_OF_TAILCHAT):
        if not _SOURCE.fullmatch(text):
            raise ValueError(MEMBER)
        return text
    return identifier.sub(text)
