"""Finds the position of each key and value in a TOML text; tomllib, which reads it, gives none.

docs/adr/0040-positions-in-the-configuration.md has the reason.
"""

import re
import tomllib
from typing import NamedTuple

from tailchat_gate.config.problems import Location
from tailchat_gate.syntax import BARE_KEYS

QUOTES = frozenset("\"'")
_PART = rf"""(?:{BARE_KEYS}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = re.compile(rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*")
_HEADER = re.compile(r"\[(\[)?[ \t]*")
#: The four kinds of string. One over several lines may end with two quotes of its own content.
_TEXT = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}|'
    r"'''(?:[^']|'{1,2}(?!'))*'{3,5}|"
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'[^'\n]*'",
    re.DOTALL,
)
#: A number, a boolean or a time; a time may contain a space.
_OTHER = re.compile(r"[^,\]}#\n]+")
_GAP = re.compile(r"[ \t\n]*")
_SPACE = re.compile(r"[ \t]*")
_COMMENT = re.compile(r"#[^\n]*")


class Span(NamedTuple):
    """The offsets of a key and its value. `is_leaf`: the value is neither a list nor a table.

    For an entry of a list both are the entry, for a table with a header both are the header.
    """

    key: tuple[int, int]
    value: tuple[int, int]
    is_leaf: bool


class TomlStatement(NamedTuple):
    """A line `key = value` or `[table]`: its offset, and the table that it stands in."""

    start: int
    table: Location


class Scan:
    """The positions in a text; if it is not TOML, those before the first mistake.

    `spans` has the keys by their place. `comments` has the offsets of comments. `statements` has
    all statements, the one with the mistake included. `lists` has the offsets of the brackets of
    lists in their order; the second one of an unclosed list is beyond the end of the text.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._last: dict[Location, int] = {}
        self.spans: dict[Location, Span] = {}
        self.comments: list[tuple[int, int]] = []
        self.lists: list[tuple[int, int]] = []
        self.statements: list[TomlStatement] = []
        try:
            self._document()
        except (ValueError, RecursionError):
            # tomllib reports the mistake.
            self.is_complete = False
        else:
            self.is_complete = True

    @property
    def end(self) -> int:
        """The offset up to which the text was understood."""
        return self._at

    def _document(self) -> None:
        table: Location = ()
        while self._skip():
            self.statements.append(TomlStatement(self._at, table))
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._end_line()

    def _end_line(self) -> None:
        """Skip the rest of a statement's line, which may only be a comment."""
        self._take(_SPACE)
        comment = _COMMENT.match(self._text, self._at)
        if comment is not None:
            self.comments.append(comment.span())
            self._at = comment.end()
        if self._at < len(self._text):
            self._expect("\n")

    def _skip(self) -> bool:
        """Skip white space and comments; return False at the end of the text."""
        while True:
            self._take(_GAP)
            comment = _COMMENT.match(self._text, self._at)
            if comment is None:
                return self._at < len(self._text)
            self.comments.append(comment.span())
            self._at = comment.end()

    def _header(self) -> Location:
        start, is_entry = self._at, self._take(_HEADER).group(1) is not None
        names = self.key()
        table: Location = ()
        for name in names[:-1]:
            table = self._entered((*table, name))
        table = (*table, names[-1])
        if is_entry:
            self._last[table] = self._last.get(table, -1) + 1
        self._take(_SPACE)
        self._expect("]]" if is_entry else "]")
        span = Span((start, self._at), (start, self._at), is_leaf=False)
        self.spans.setdefault(table, span)
        table = self._entered(table)
        self.spans[table] = span
        return table

    def _entered(self, table: Location) -> Location:
        """Return the place of the last entry of a list of tables, or that of a plain table."""
        return (*table, self._last[table]) if table in self._last else table

    def _pair(self, table: Location) -> None:
        start = self._at
        names = self.key()
        key = start, self._at
        self._take(_SPACE)
        self._expect("=")
        self._take(_SPACE)
        place = (*table, *names)
        value_at = self._at
        is_leaf = self._value(place)
        value = value_at, self._at
        for size in range(len(table) + 1, len(place)):
            self.spans.setdefault(place[:size], Span(key, value, is_leaf=False))
        self.spans[place] = Span(key, value, is_leaf)

    def key(self) -> Location:
        """Read a dotted key into its parts; tomllib unescapes them."""
        raw = self._take(_KEY).group()
        table: object = tomllib.loads(f"{raw} = 0")
        names: list[str] = []
        while isinstance(table, dict):
            ((name, table),) = table.items()
            names.append(name)
        return tuple(names)

    def _value(self, place: Location) -> bool:
        """Skip a value; return whether it is a leaf, neither a list nor a table."""
        first = self._text[self._at : self._at + 1]
        if first == "[":
            self._list(place)
        elif first == "{":
            self._table(place)
        elif first in QUOTES:
            self._take(_TEXT)
            return True
        else:
            match = self._take(_OTHER)
            self._at = match.start() + len(match.group().rstrip())
            return True
        return False

    def _list(self, place: Location) -> None:
        begin, number = self._at, len(self.lists)
        self._expect("[")
        self.lists.append((begin, len(self._text) + 1))
        index = 0
        while self._skip() and not self._text.startswith("]", self._at):
            start = self._at
            entry = (*place, index)
            is_leaf = self._value(entry)
            span = start, self._at
            self.spans[entry] = Span(span, span, is_leaf)
            index += 1
            self._skip()
            if not self._text.startswith("]", self._at):
                self._expect(",")
        self.lists[number] = begin, self._at
        self._expect("]")

    def _table(self, place: Location) -> None:
        self._expect("{")
        while self._skip() and not self._text.startswith("}", self._at):
            self._pair(place)
            self._skip()
            if not self._text.startswith("}", self._at):
                self._expect(",")
        self._expect("}")

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Skip a match of the pattern and return it. Raises ValueError if there is none here."""
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(self._at)
        self._at = match.end()
        return match

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._at):
            raise ValueError(self._at)
        self._at += len(text)
