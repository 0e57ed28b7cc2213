"""Shows where a problem is in the file: its line, with a caret, and with all secrets masked."""

import re
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple
from unicodedata import combining, east_asian_width

from tailchat_gate.config.document import DocumentError
from tailchat_gate.config.keys import may_show, names_in
from tailchat_gate.config.positions import QUOTES, Scan, Span
from tailchat_gate.config.problems import (
    ENV_PREFIX,
    KINDS,
    Excerpt,
    Location,
    Problem,
    key_path,
    without_userinfo,
)
from tailchat_gate.config.report import hint_for
from tailchat_gate.syntax import BARE_KEYS

_MASK: Final = "***"
#: Columns of a line that are shown, and those of them before the mistake.
_WIDEST: Final = 100
_LEAD: Final = 40
#: The last part of a path as `key_path` writes it.
_LAST = re.compile(rf'(?:(?:^|\.)(?:{BARE_KEYS}|"(?:[^"\\]|\\.)*")|\[[0-9]+\])$')
_NUMBERED = re.compile(r"(?:^|_)(route|token)\[([0-9]+)\]", re.IGNORECASE)
_HEADER = re.compile(r"\[\[?[^\]#]*\]{0,2}")
#: The text at a mistake, up to what may be a value of its own.
_WORD = re.compile(r"[^\s,\]}#]*")
_LONGEST_NAME: Final = 60


class _Piece(NamedTuple):
    """A part of a line from one offset to another, and what is shown of it.

    `is_whole`: the shown text differs from the line, so offsets inside it mean nothing.
    """

    start: int
    end: int
    text: str
    is_whole: bool


class Excerpts:
    """Finds the places of problems in one file, whose content is `text`, "" for no file.

    `document` has the names of routes and tokens, `sources` the variables of values that are not
    from the file. The object holds secrets, so only its results, which have none, are passed on.
    """

    def __init__(
        self,
        path: Path,
        text: str,
        document: Mapping[str, object],
        sources: Mapping[Location, str],
    ) -> None:
        self._path = path
        self._text = text
        self._document = document
        #: Keys whose value is of a wrong kind: it may be a secret in the wrong place.
        self._hidden: set[str] = set()
        self._variables = {
            key_path(place): name for place, name in sources.items() if name.startswith(ENV_PREFIX)
        }

    def __repr__(self) -> str:
        """Only the path: the text may hold secrets."""
        return f"<Excerpts {self._path}>"

    def all_of(self, problems: Iterable[Problem], at_keys: Container[str]) -> tuple[Problem, ...]:
        """Return the problems with their places, without duplicates, in the order of the file.

        `at_keys` has the paths of problems with a key itself, not with its value. Problems of the
        environment come first, those without a place last.
        """
        listed = tuple(problems)
        self._hidden.update(problem.key_path for problem in listed if problem.found in KINDS)
        located = {
            self._located(problem, at_key=problem.key_path in at_keys): None for problem in listed
        }
        return tuple(sorted(located, key=_order))

    def warning(self, sentence: str) -> Problem:
        """Return a warning with its place; `sentence` begins with the key and a colon."""
        key, _, text = sentence.partition(": ")
        return self._located(Problem(self._named(key), text, ""))

    def of_valid(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """Return problems with their places, for values that are valid by themselves."""
        return self.all_of(
            (replace(problem, key_path=self._named(problem.key_path)) for problem in problems), ()
        )

    def _named(self, key: str) -> str:
        """Return the environment variable that sets a key, or the key itself if none does."""
        for path in _above(key):
            if path in self._variables:
                key = self._variables[path] + key.removeprefix(path)
        return key

    def _located(self, problem: Problem, *, at_key: bool = False) -> Problem:
        return replace(
            problem,
            excerpt=self._excerpt(problem.key_path, at_key=at_key),
            table=self._table(problem.key_path),
            hint=hint_for(problem),
        )

    def _excerpt(self, path: str, *, at_key: bool) -> Excerpt | None:
        first, *others = path.split(" and ")
        place = next((above for above in _above(first) if above in self._known), None)
        if place is None:
            named = self._text and first.partition(".")[0].partition("[")[0] in names_in("")
            return Excerpt(str(self._path)) if named else None
        span = self._known[place]
        # A missing key has no place of its own: the header or key of its table is marked.
        start, end = span.value if place == first and not at_key and not others else span.key
        return self._lined(start, end)

    @cached_property
    def _scanned(self) -> Scan:
        return Scan(self._text)

    @cached_property
    def _known(self) -> Mapping[str, Span]:
        return {key_path(place): span for place, span in self._scanned.spans.items()}

    @cached_property
    def _leaves(self) -> Sequence[tuple[int, int, Location]]:
        """The values in their order."""
        spans = self._scanned.spans.items()
        return sorted(
            ((*span.value, place) for place, span in spans if span.is_leaf), key=itemgetter(0)
        )

    def _lined(self, start: int, end: int) -> Excerpt:
        begin = self._text.rfind("\n", 0, start) + 1
        stop = _end_of_line(self._text, start)
        pieces = tuple(self._pieces(begin, stop))
        # Only the first line of a value over several lines is marked.
        return _drawn(self._path, self._text, (start, min(end, stop)), pieces)

    def _pieces(self, begin: int, stop: int) -> Iterator[_Piece]:
        """Split a line into pieces; values that may be secret are masked, comments are left out."""
        leaves = self._leaves
        at = begin
        comments = self._scanned.comments
        comment = bisect_left(comments, (begin, 0))
        if comment < len(comments) and comments[comment][0] < stop:
            stop = comments[comment][0]
        first = max(bisect_left(leaves, begin, key=itemgetter(0)) - 1, 0)
        for start, end, place in leaves[first:]:
            if start >= stop:
                break
            if end <= begin:
                continue
            if start > at:
                yield _Piece(at, start, _visible(self._text[at:start]), is_whole=False)
            yield self._value(max(start, begin), min(end, stop), self._text[start:end], place)
            at = min(end, stop)
        yield _Piece(at, stop, _visible(self._text[at:stop]).rstrip(), is_whole=False)

    def _value(self, start: int, end: int, whole: str, place: Location) -> _Piece:
        hidden = not self._hidden.isdisjoint(_above(key_path(place)))
        if hidden or not may_show(place) or "\n" in whole:
            quote = whole[0] if whole[0] in QUOTES and "\n" not in whole else ""
            return _Piece(start, end, f"{quote}{_MASK}{quote}", is_whole=True)
        quote = whole[0] if whole[0] in QUOTES else ""
        shown = quote + without_userinfo(whole.removeprefix(quote))
        return _Piece(start, end, _visible(shown), is_whole=shown != whole)

    def _table(self, path: str) -> str:
        """Return the name of the token, or name and address of the route, that a path numbers."""
        numbered = _NUMBERED.search(path)
        rows = self._document.get(numbered[1].lower()) if numbered else None
        if numbered is None or not isinstance(rows, list) or int(numbered[2]) >= len(rows):
            return ""
        row = rows[int(numbered[2])]
        if not isinstance(row, dict) or not _is_plain(row.get("name")):
            return ""
        if numbered[1].lower() == "token":
            return str(row["name"])
        host, where = (row.get(key) for key in ("host", "path"))
        address = f"{host if _is_plain(host) else ''}{where if _is_plain(where) else '/'}"
        return f"{row['name']}, {address}"

    def of_mistake(self, wrong: DocumentError) -> Excerpt:
        """Return the place of a TOML error.

        Any text may be a secret in the wrong place, so only the text of known keys is shown.
        """
        if not wrong.line or not self._text:
            return Excerpt(str(self._path), wrong.line, wrong.column, wrong.column)
        begin = sum(len(row) + 1 for row in self._text.split("\n")[: wrong.line - 1])
        at = begin + wrong.column - 1
        pieces = tuple(self._before_mistake(begin, at))
        return _drawn(self._path, self._text, (at, at + 1), pieces)

    def _before_mistake(self, begin: int, at: int) -> Iterator[_Piece]:
        stop = _end_of_line(self._text, begin)
        scan = self._scanned
        statements = [statement for statement in scan.statements if statement.start <= at]
        shown = begin
        is_here = bool(statements) and statements[-1].start >= begin
        if is_here and not self._text[begin : statements[-1].start].strip():
            shown = self._known_part(statements[-1].start, statements[-1].table, at, stop)
        if shown > begin:
            yield _Piece(begin, shown, _visible(self._text[begin:shown]), is_whole=False)
        rest = self._text[shown:stop].rstrip()
        if rest:
            space = len(rest) - len(rest.lstrip())
            yield _Piece(shown, shown + space, _visible(rest[:space]), is_whole=False)
            yield _Piece(shown + space, stop, _MASK, is_whole=True)

    def _known_part(self, start: int, table: Location, at: int, stop: int) -> int:
        """Return the offset up to which a line with a mistake can be shown without a secret."""
        opened = re.compile(r"\[\[?[ \t]*").match(self._text, start)
        line = self._text[start:stop]
        if opened:
            name = line[opened.end() - start :].partition("]")[0].strip()
            first, _, key = name.partition(".")
            known = first in names_in("") and (not key or key in names_in(first))
            header = _HEADER.match(line)
            return start + header.end() if known and header else start
        name, sign, _ = line.partition("=")
        place = (*table, *name.strip().split("."))
        value = start + len(name) + 1
        value += len(self._text[value:stop]) - len(self._text[value:stop].lstrip())
        if sign and at == value and place in {(table,) for table in names_in("")}:
            # A bracket that nobody closed, such as that of route = [.
            return at + 1
        if not sign or not _is_known(place):
            return start
        if at < value or not may_show(place) or "@" in self._text[value:stop]:
            # The text before an @ may be a password.
            return value
        if at == value:
            word = _WORD.match(self._text, at)
            return word.end() if word else at
        # Complete text before the mistake is a value; an unclosed string is not shown.
        return at if Scan(self._text[start:at].rstrip(" ,")).is_complete else value


def _is_known(place: Location) -> bool:
    """Whether a place in the file is a key of the gate."""
    table, *below = (part for part in place if isinstance(part, str))
    return bool(below) and below[0] in names_in(table)


def _above(path: str) -> Iterator[str]:
    """Yield a path and the paths of the tables around it, from the inside out."""
    while path:
        yield path
        last = _LAST.search(path)
        path = path[: last.start()] if last else ""


def _order(problem: Problem) -> tuple[int, int, int]:
    excerpt = problem.excerpt
    if excerpt is not None and excerpt.line:
        return 1, excerpt.line, excerpt.column
    return (0 if problem.key_path.startswith(ENV_PREFIX) else 2), 0, 0


def _end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _drawn(path: Path, text: str, mark: tuple[int, int], pieces: tuple[_Piece, ...]) -> Excerpt:
    """Draw the line of `mark`, two offsets in `text`, and the caret below it."""
    begin = text.rfind("\n", 0, mark[0]) + 1
    source = "".join(piece.text for piece in pieces)
    start, end = _shown_at(pieces, mark[0], is_end=False), _shown_at(pieces, mark[1], is_end=True)
    end = min(max(end, start + 1), max(len(source), start + 1))
    if len(source) > _WIDEST:
        cut = max(0, min(start - _LEAD, len(source) - _WIDEST))
        before, after = "..." if cut else "", "..." if cut + _WIDEST < len(source) else ""
        source = before + source[cut : cut + _WIDEST] + after
        start, end = start - cut + len(before), end - cut + len(before)
        end = max(start + 1, min(end, len(source)))
    caret = " " * _width(source[:start]) + "^" * max(1, _width(source[start:end]))
    line = text.count("\n", 0, begin) + 1
    column = mark[0] - begin + 1
    return Excerpt(str(path), line, column, mark[1] - begin + 1, source, caret)


def _shown_at(pieces: tuple[_Piece, ...], offset: int, *, is_end: bool) -> int:
    """Return at which character of the shown line an offset of the text is."""
    shown = 0
    for piece in pieces:
        if piece.start <= offset < piece.end or (is_end and piece.start < offset <= piece.end):
            if piece.is_whole:
                return shown + (len(piece.text) if is_end else 0)
            return shown + min(offset - piece.start, len(piece.text))
        shown += len(piece.text)
    return shown


def _visible(text: str) -> str:
    """Replace each character that could move a terminal's cursor, keeping the length."""
    return "".join(
        character if character.isprintable() else " " if character == "\t" else "?"
        for character in text
    )


def _width(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    return sum(
        0 if combining(character) else 2 if east_asian_width(character) in {"W", "F"} else 1
        for character in text
    )


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()
