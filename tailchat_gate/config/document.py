"""Reads TOML and explains where and why a text is invalid, without quoting any of its values."""

import re
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

from tailchat_gate.config.keys import all_keys, names_in
from tailchat_gate.config.positions import QUOTES, Scan
from tailchat_gate.syntax import BARE_KEYS

Document = dict[str, object]

_AT = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$")
#: A header, or a key and the beginning of its value.
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]\n]*?)\s*\]")
_ASSIGNED = re.compile(r"""\s*([A-Za-z0-9_."'-]+?)\s*=\s*([^\n]*)""")
_MARKS = frozenset("\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb`")
_BOOLEANS = frozenset(("true", "false", "yes", "no", "on", "off"))
#: A line that begins a statement, and so cannot be inside a list.
_PAIR = re.compile(rf"[ \t]*({BARE_KEYS}(?:\.{BARE_KEYS})*)[ \t]*=(?!=)")
_TABLE = re.compile(rf"[ \t]*\[\[?[ \t]*({BARE_KEYS})[^\]\n]*\]\]?[ \t]*(?:#.*)?\Z")
#: The quotes of multi-line strings, by the parser's message about an unclosed one.
_LONG_QUOTES = (("Unterminated string", '"""'), ("Expected \"'''\"", "'''"))
#: The parser reports this at the end of the text, wherever the quote is.
_UNCLOSED = 'Expected "\'"'
_TOML = "TOML"
_QUOTED = 'text in quotes, such as key = "text"'
_ONE_FORM = "each table in one form, in one place: [table] and keys below it, or table = { ... }"


class Mistake(NamedTuple):
    """What was found and what was expected, as in a Problem."""

    found: str
    expected: str


_BACKSLASH = Mistake(
    "a backslash in text with double quotes",
    "single quotes, as in 'C:\\folder', or each backslash doubled",
)
_OPEN = Mistake("text whose quotes are not closed", "the same quote at its end, in one line")
_OPEN_LONG = Mistake("text whose three quotes are not closed", "the same three quotes at its end")
#: By the start of the parser's message.
_PLAIN = (
    ("Unescaped '\\'", _BACKSLASH),
    ("Invalid hex value", _BACKSLASH),
    ("Escaped character", _BACKSLASH),
    ("Illegal character '\\n'", _OPEN),
    ("Unterminated string", _OPEN),
    (_UNCLOSED, _OPEN),
    (
        "Unclosed inline table",
        Mistake("a { that is not closed in its line", "{ ... } in one line, or a [table]"),
    ),
    (
        "Unclosed array",
        Mistake("a [ that is not closed, or a comma that is missing", "[first, second]"),
    ),
)


class DocumentError(ValueError):
    """A text is not TOML.

    `line` and `column` count from 1 and are 0 if the position is unknown. `plain` is what was
    found there; `found` is the same after the position.
    """

    def __init__(self, position: "_Position | None", wrong: Mistake) -> None:
        super().__init__(wrong.expected)
        self.found = f"{position}: {wrong.found}" if position else wrong.found
        self.expected = wrong.expected
        self.line, self.column = (position.line, position.column) if position else (0, 0)
        self.plain = wrong.found


class _Position(NamedTuple):
    """A position in a text; `line` and `column` count from 1."""

    text: str
    line: int
    column: int

    @property
    def row(self) -> str:
        """The whole line."""
        return self.text.split("\n")[self.line - 1]

    @property
    def begin(self) -> int:
        """The offset at which the line begins."""
        return sum(len(row) + 1 for row in self.text.split("\n")[: self.line - 1])

    @property
    def rest(self) -> str:
        """The line from the position on."""
        return self.row[self.column - 1 :]

    def __str__(self) -> str:
        tabs = ", a tab counts as one" if "\t" in self.row[: self.column - 1] else ""
        return f"line {self.line}, column {self.column}{tabs}"


def parse(content: bytes) -> Document:
    """Read a TOML file, with or without a byte-order mark. Raises DocumentError."""
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        utf16 = Mistake("text in UTF-16", "TOML, which is UTF-8: save the file in that encoding")
        raise DocumentError(_Position("", 1, 1), utf16)
    try:
        text = decoded(content)
    except UnicodeDecodeError as wrong:
        last = _end_of(content[: wrong.start].decode(errors="replace"))
        position = _Position("\n" * last.line, last.line, last.column)
    else:
        return parse_text(text)
    raise DocumentError(position, Mistake("a byte that is not UTF-8", "TOML, which is UTF-8"))


def decoded(content: bytes) -> str:
    """Return the text of a file as positions count in it. Raises UnicodeDecodeError."""
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def parse_text(text: str, *, before: str = "") -> Document:
    """Read TOML; `before` is prepended and not counted in positions. Raises DocumentError."""
    try:
        return tomllib.loads(before + text)
    except RecursionError:
        error = DocumentError(None, Mistake("too many lists or tables within each other", _TOML))
    except ValueError as wrong:
        position, message = _where(wrong, before + text)
        explained = _explained(message, position)
        if opened := _unclosed(position, message):
            position, explained = opened
        shift = len(before) if position.line == 1 else 0
        shown = _Position(text, position.line, max(position.column - shift, 1))
        error = DocumentError(shown, explained)
    # Raised outside the handler, so that the traceback holds nothing of the text.
    raise error


def _where(wrong: ValueError, text: str) -> tuple[_Position, str]:
    """Return the position of the syntax error, and the parser's own message."""
    # Python 3.14 has attributes for this; older versions have it only in the message.
    line, column = getattr(wrong, "lineno", None), getattr(wrong, "colno", None)
    message = str(getattr(wrong, "msg", wrong))
    at = _AT.search(message)
    if isinstance(line, int) and isinstance(column, int):
        position = _Position(text, line, column)
    elif at is not None and at[1]:
        position = _Position(text, int(at[1]), int(at[2]))
    else:
        position = _end_of(text)
    message = _AT.sub("", message)
    return _opening(position) if message.startswith(_UNCLOSED) else position, message


def _unclosed(at: _Position, message: str) -> tuple[_Position, Mistake] | None:
    """Return where an unclosed list or string begins, if that is the mistake; else None.

    The parser reads on into the lines below it and reports the first one that does not fit.
    """
    scan, begin = Scan(at.text), at.begin
    is_at_end = not at.text[begin + at.column - 1 :].strip()
    quotes = next((long for start, long in _LONG_QUOTES if message.startswith(start)), "")
    if is_at_end and quotes:
        opened = at.text.rfind(quotes, 0, scan.end + 1)
        return (_at(at.text, opened), _OPEN_LONG) if opened >= 0 else None
    pair, table = _PAIR.match(at.row), _TABLE.match(at.row)
    is_statement = (pair and pair.start(1) == at.column - 1) or (table and table[1] in names_in(""))
    if not (is_statement or is_at_end):
        return None
    before = len(at.text) if is_at_end else begin
    open_lists = [first for first, last in scan.lists if first < before <= last]
    if not open_lists:
        return None
    where = "" if is_at_end else f" before line {at.line}"
    return _at(at.text, open_lists[-1]), Mistake(f"a [ that is not closed{where}", "a ] at its end")


def _opening(end: _Position) -> _Position:
    """Return the position of the last quote that is not closed on its line."""
    for number, row in reversed(list(enumerate(end.text.split("\n"), start=1))):
        assigned = _ASSIGNED.match(row)
        if assigned and assigned[2][:1] == "'" and assigned[2].count("'") == 1:
            return _Position(end.text, number, assigned.start(2) + 1)
    return end


def _at(text: str, offset: int) -> _Position:
    line = text.count("\n", 0, offset) + 1
    return _Position(text, line, offset - text.rfind("\n", 0, offset))


def _end_of(text: str) -> _Position:
    lines = text.split("\n")
    return _Position(text, len(lines), len(lines[-1]) + 1)


def _explained(message: str, position: _Position) -> Mistake:
    """Put the parser's message into plain words, by the text at the position."""
    return next(_explanations(message, position), Mistake(message, _TOML))


def _explanations(message: str, position: _Position) -> Iterator[Mistake]:
    char = position.rest[:1]
    if char and not char.isascii() and not char.isprintable():
        yield Mistake(f"an invisible character, U+{ord(char):04X}", "the line without it")
    yield from (wrong for begin, wrong in _PLAIN if message.startswith(begin))
    if message.startswith(("Cannot declare", "Cannot mutate", "Cannot overwrite")):
        yield _repeated(position)
    if message.startswith("Expected '=' after a key"):
        sign = "a colon after a key" if char == ":" else "a key without = after it"
        yield Mistake(sign, "key = value, in one line")
    if message.startswith("Invalid initial character for a key part") and char == "}":
        yield Mistake("a comma before the }", "{ ... } without a comma at its end")
    if message.startswith("Invalid value"):
        yield from _of_value(position.rest)
    if message.startswith("Expected newline or end of document"):
        yield from _of_end(position)
    if message.startswith("Invalid statement") and char in {"{", "}", "-"}:
        yield Mistake("a line that is neither [table] nor key = value", "TOML, not JSON or YAML")


def _of_value(rest: str) -> Iterator[Mistake]:
    """Explain text that is no value, by what comes where the value should be."""
    value = re.split(r"[\s,\]}#]", rest, maxsplit=1)[0]
    if not value:
        yield Mistake("nothing where a value has to be", "a value after the = or the comma")
    elif value[0] in _MARKS:
        yield Mistake("quotes that are not straight", 'straight quotes, as in "text"')
    elif value.lower() in _BOOLEANS:
        yield Mistake("a word without quotes", "true or false, in small letters, or text in quotes")
    elif value[0].isalnum() or value[0] in "/.~*$%@_:<-+!":
        yield Mistake("text without quotes", _QUOTED)


def _of_end(position: _Position) -> Iterator[Mistake]:
    """Explain unexpected text after a value."""
    assigned = _ASSIGNED.match(position.row)
    before = position.row[: position.column - 1]
    if position.rest[:1] == ",":
        yield Mistake("a comma after a value", "each key in a line of its own")
    elif assigned and assigned[2][:1].isdigit() and not before[-1:].isspace():
        yield Mistake("text without quotes that begins like a number", _QUOTED)
    elif assigned and assigned[2][:1] in QUOTES:
        expected = "a line that ends with the value; a quote within quotes has a backslash before"
        yield Mistake("something after a value", expected)


def _repeated(position: _Position) -> Mistake:
    """Explain a duplicate table or key."""
    header = _HEADER.match(position.row)
    if header is None:
        assigned = _ASSIGNED.match(position.row)
        name = assigned[1] if assigned else ""
        return Mistake(f"a key that was set before{_known(name)}", "each key once")
    name = header[2]
    first = _first_of(name.partition(".")[0], position)
    form = "[[...]]" if header[1] == "[[" else "[...]"
    return Mistake(f"{form} for a table that was written before{_known(name)}{first}", _ONE_FORM)


def _first_of(table: str, position: _Position) -> str:
    """Return in which line, and how, a table was first written."""
    for number, row in enumerate(position.text.split("\n")[: position.line - 1], start=1):
        header, assigned = _HEADER.match(row), _ASSIGNED.match(row)
        if header and header[2].partition(".")[0] == table:
            return f", in line {number} as {'[[...]]' if header[1] == '[[' else '[...]'}"
        if assigned and assigned[1].partition(".")[0] == table:
            dotted = "." in assigned[1]
            return f", in line {number} as {'dotted keys' if dotted else 'key = ...'}"
    return ""


def _known(name: str) -> str:
    """Return the name in brackets if it is a key of the gate; other text may be a secret."""
    table, _, key = name.partition(".")
    if table not in names_in(""):
        # A key inside its table is written without the table's name.
        return f" ({table})" if any(table in known.path for known in all_keys()) else ""
    return f" ({table}.{key})" if key in names_in(table) else f" ({table})"
