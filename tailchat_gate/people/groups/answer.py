"""Parses the answer of `group/getUserGroups` in small steps.

Half a million members take a second to parse, for which `json.loads` would block the event loop.
"""

import itertools
import json
import re
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from http import HTTPStatus
from json.decoder import JSONDecodeError
from typing import Final

from tailchat_gate.syntax import TAILCHAT_ID

#: Bytes that are parsed in one step, in less than a tenth of a millisecond.
_PIECE: Final = 4096
#: How many values are parsed one by one between two pauses.
_SOME: Final = 32
#: The deepest nesting, which is that of a document of MongoDB.
_DEEPEST: Final = 110
_SPACE: Final = frozenset(b" \t\r\n")
_COMMA, _COLON, _QUOTE = b',:"'
#: The characters of a text, up to its end or a pause.
_CHARACTERS: Final = re.compile(rb'(?:[^"\\]|\\.)*+', re.DOTALL)
_DECODER: Final = json.JSONDecoder()

#: Yields after each step, and returns the value.
Steps = Generator[None, None, object]
_Part = Callable[[str], Steps]
_Item = Callable[[], Steps]


class UnreadableError(ValueError):
    """The answer does not have Tailchat's form; the text says why."""


@dataclass(slots=True)
class TailchatGroup:
    """A group of the answer: the ids of its members and roles, and the members of each role.

    `panels` has the type of each panel by its id. A role that is not in `roles` was deleted, even
    if members still have it.
    """

    members: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    by_role: dict[str, frozenset[str]] = field(default_factory=dict)
    panels: dict[str, int] = field(default_factory=dict)

    def who(self, role: str) -> frozenset[str] | None:
        """Return the members with a role, None for a deleted role; "" is for all members."""
        if not role:
            return self.members
        return self.by_role.get(role, frozenset()) if role in self.roles else None


class _Members:
    """The members of one group while they are read."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = known
        self.subs: set[str] = set()
        self.by_role: dict[str, set[str]] = {}

    def add(self, member: object) -> None:
        sub = member.get("userId") if isinstance(member, dict) else None
        if not isinstance(member, dict) or not isinstance(sub, str):
            raise UnreadableError("a member without userId")
        if TAILCHAT_ID.fullmatch(sub) is None:
            return  # nobody can sign in as this
        sub = self._known.setdefault(sub, sub)
        self.subs.add(sub)
        roles = member.get("roles")
        for role in roles if isinstance(roles, list) else ():
            if isinstance(role, str):
                self.by_role.setdefault(role, set()).add(sub)


class _Reader:
    """Parses one JSON text, keeping only the wanted groups."""

    def __init__(self, body: bytes, wanted: Collection[str]) -> None:
        self._body = body
        self._at = 0
        self._wanted = wanted
        #: One string object for each member, however many groups name it.
        self._known: dict[str, str] = {}
        self.groups: dict[str, TailchatGroup] = {}
        self.code: object = None
        self._has_data = False

    def document(self) -> Steps:
        """Read the whole answer."""
        yield from self._object(self._top)
        self._skip_space()
        if self._at != len(self._body) or self.code != HTTPStatus.OK or not self._has_data:
            raise UnreadableError("not Tailchat's form")
        return None

    def _top(self, key: str) -> Steps:
        if key == "data":
            self._has_data = True
            yield from self._list(self._group)
        elif key == "code":
            self.code = yield from self._value(0)
        else:
            yield from self._value(0)
        return None

    def _group(self) -> Steps:
        members = _Members(self._known)
        parts: dict[str, object] = {}

        def part(key: str) -> Steps:
            if key == "members":
                yield from self._members(members)
            else:
                parts[key] = yield from self._value(0)
            return None

        yield from self._object(part)
        name = parts.get("_id")
        if not isinstance(name, str):
            raise UnreadableError("a group without _id")
        if name in self._wanted:
            self.groups[name] = _group_of(members, parts.get("roles"), parts.get("panels"))
        return None

    def _members(self, members: _Members) -> Steps:
        self._expect(ord("["))
        if self._is_next(ord("]")):
            return None
        while True:
            for member in self._several() or [(yield from self._value(0))]:
                members.add(member)
            yield
            if not self._is_next(_COMMA):
                break
        self._expect(ord("]"))
        return None

    def _several(self) -> list[object]:
        """Parse as many complete objects of a list as one piece has; none if that fails."""
        self._skip_space()
        cut = self._body.rfind(b"},{", self._at, self._at + _PIECE)
        if cut < 0:
            return []
        piece = self._body[self._at : cut + 1].decode("latin-1")
        try:
            values: list[object] = json.loads(f"[{piece}]")
        except (ValueError, RecursionError):
            return []
        self._at = cut + 1
        return values

    def _object(self, part: _Part) -> Steps:
        self._expect(ord("{"))
        if self._is_next(ord("}")):
            return None
        for count in itertools.count(1):
            key = yield from self._value(0)
            self._expect(_COLON)
            if not isinstance(key, str):
                raise UnreadableError("not JSON")
            yield from part(key)
            if not count % _SOME:
                yield
            if not self._is_next(_COMMA):
                break
        self._expect(ord("}"))
        return None

    def _list(self, item: _Item) -> Steps:
        self._expect(ord("["))
        if self._is_next(ord("]")):
            return None
        for count in itertools.count(1):
            yield from item()
            if not count % _SOME:
                yield
            if not self._is_next(_COMMA):
                break
        self._expect(ord("]"))
        return None

    def _value(self, depth: int) -> Steps:
        """Parse any value: a small one in one step, a large one item by item."""
        self._skip_space()
        piece = self._body[self._at : self._at + _PIECE]
        try:
            # As Latin-1, because a piece may end within a character; all ids are ASCII.
            value, end = _DECODER.raw_decode(piece.decode("latin-1"))
        except (JSONDecodeError, RecursionError):
            pass
        else:
            # A number at the end of a piece may continue after it.
            if end < len(piece) or self._at + end == len(self._body):
                self._at += end
                return value
        yield
        return (yield from self._large(piece[:1], depth))

    def _large(self, first: bytes, depth: int) -> Steps:
        if depth > _DEEPEST:
            raise UnreadableError("nested too deeply")
        if first == b'"':
            yield from self._text()
            return ""
        items: list[object] = []
        members: dict[str, object] = {}

        def item() -> Steps:
            items.append((yield from self._value(depth + 1)))
            return None

        def part(key: str) -> Steps:
            members[key] = yield from self._value(depth + 1)
            return None

        if first == b"[":
            yield from self._list(item)
            return items
        yield from self._object(part)
        return members

    def _text(self) -> Steps:
        """Skip a long text, which is no id, in steps: strangers may have filled it with escapes."""
        self._at += 1
        while True:
            characters = _CHARACTERS.match(self._body, self._at, self._at + _PIECE)
            if characters is None or characters.end() == self._at:
                break
            self._at = characters.end()
            yield
        self._expect(_QUOTE)
        return None

    def _skip_space(self) -> None:
        while self._at < len(self._body) and self._body[self._at] in _SPACE:
            self._at += 1

    def _is_next(self, byte: int) -> bool:
        self._skip_space()
        if self._body[self._at : self._at + 1] != bytes((byte,)):
            return False
        self._at += 1
        return True

    def _expect(self, byte: int) -> None:
        if not self._is_next(byte):
            raise UnreadableError("not JSON")


def _group_of(members: _Members, listed: object, shown: object) -> TailchatGroup:
    roles = {
        role["_id"]
        for role in (listed if isinstance(listed, list) else ())
        if isinstance(role, dict) and isinstance(role.get("_id"), str)
    }
    by_role = {role: frozenset(subs) for role, subs in members.by_role.items() if role in roles}
    panels = {
        panel["id"]: panel["type"]
        for panel in (shown if isinstance(shown, list) else ())
        if isinstance(panel, dict)
        and isinstance(panel.get("id"), str)
        and type(panel.get("type")) is int
    }
    return TailchatGroup(frozenset(members.subs), frozenset(roles), by_role, panels)


def read_groups(
    body: bytes, wanted: Collection[str]
) -> Generator[None, None, dict[str, TailchatGroup]]:
    """Return the groups of an answer whose ids are in `wanted`, by id; raises UnreadableError.

    A missing group was deleted, or the bot is not in it.
    """
    reader = _Reader(body, wanted)
    try:
        yield from reader.document()
    except IndexError:
        raise UnreadableError("not JSON") from None
    return reader.groups
