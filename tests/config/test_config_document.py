"""TOML that is none: what is wrong in plain words, where, and none of the text itself."""

import tomllib
from pathlib import Path

import pytest
from configkit import SECRETS, good, problems, write_smallest

from tailchat_gate.config.document import DocumentError, parse
from tailchat_gate.config.load import admin_address, state_path

CASES = [
    (
        'tailchat = {scope = "a"}\n[tailchat]\nx = 1\n',
        (
            "line 2, column 10: [...] for a table that was written before (tailchat), in line 1 as "
            "key = ..."
        ),
    ),
    (
        'route = [{name = "a"}]\n[[route]]\nname = "b"\n',
        (
            "line 2, column 8: [[...]] for a table that was written before (route), in line 1 as "
            "key = ..."
        ),
    ),
    (
        '[[route]]\nname = "a"\n[route]\nname = "b"\n',
        "line 3, column 7: [...] for a table that was written before (route), in line 1 as [[...]]",
    ),
    (
        "server.prefix = 1\n[server]\nvia = 1\n",
        (
            "line 2, column 8: [...] for a table that was written before (server), in line 1 as "
            "dotted keys"
        ),
    ),
    ("[server]\nlisten = 1\nlisten = 2\n", "line 3, column 11: a key that was set before (listen)"),
    ("hunter2 = 1\nhunter2 = 2\n", "line 2, column 12: a key that was set before"),
    ("a = hunter2\n", "line 1, column 5: text without quotes"),
    ("a = C:\\hunter2\n", "line 1, column 5: text without quotes"),
    ("a = 12h\n", "line 1, column 7: text without quotes that begins like a number"),
    ("a = 127.0.0.1:80\n", "line 1, column 10: text without quotes that begins like a number"),
    ("a = Yes\n", "line 1, column 5: a word without quotes"),
    ("a =\n", "line 1, column 4: nothing where a value has to be"),
    ('a = "C:\\Users\\hunter2"\n', "line 1, column 10: a backslash in text with double quotes"),
    ('a = "C:\\data\\x"\n', "line 1, column 10: a backslash in text with double quotes"),
    ("a = \u201chunter2\u201d\n", "line 1, column 5: quotes that are not straight"),
    ("\ta =\thunter2\n", "line 1, column 6, a tab counts as one: text without quotes"),
    ("\ufeff\ufeffa = 1\n", "line 1, column 1: an invisible character, U+FEFF"),
    ("a\u00a0= 1\n", "line 1, column 2: an invisible character, U+00A0"),
    ('a = "hunter2\n', "line 1, column 13: text whose quotes are not closed"),
    ("a = 1\nb = 'hunter2\nc = 2\n", "line 2, column 5: text whose quotes are not closed"),
    ("a: 1\n", "line 1, column 2: a colon after a key"),
    ("a = [1, 2\nb = 1\n", "line 1, column 5: a [ that is not closed before line 2"),
    ("a = [1\n 2]\n", "line 2, column 2: a [ that is not closed, or a comma that is missing"),
    (
        'x = 1\nroute = [{ a = ["b"] },\n\ngroups.ops = ["hunter2"]\n[server]\nvia = "x"\n',
        "line 2, column 9: a [ that is not closed before line 4",
    ),
    ("route = [{ a = 1 },\n[server]\n", "line 1, column 9: a [ that is not closed before line 2"),
    ("x = 1\na = [[1],\n  [2,\n", "line 3, column 3: a [ that is not closed"),
    ("a = [\n# hunter2\n\n", "line 1, column 5: a [ that is not closed"),
    ("a = [\n  hunter2,\n]\n", "line 2, column 3: text without quotes"),
    ("a = [\n  [hunter2],\n]\n", "line 2, column 4: text without quotes"),
    (
        'a = """x"""\nb = """hunter2\nc = 1\n',
        "line 2, column 5: text whose three quotes are not closed",
    ),
    ("a = ['''hunter2\nc = 1\n", "line 1, column 6: text whose three quotes are not closed"),
    ('a = "x", b = "y"\n', "line 1, column 8: a comma after a value"),
]


@pytest.mark.parametrize(("text", "found"), CASES)
def test_a_mistake_is_told_in_plain_words(text: str, found: str) -> None:
    """Each common mistake has its words, line and column, by the parser's attributes or text."""
    with pytest.raises(DocumentError) as refused:
        parse(text.encode())

    assert refused.value.found == found
    assert refused.value.expected != "TOML"
    assert "hunter2" not in refused.value.found + refused.value.expected


@pytest.mark.parametrize(("text", "found"), CASES)
def test_the_parsers_attributes_are_used_where_it_has_them(
    monkeypatch: pytest.MonkeyPatch, text: str, found: str
) -> None:
    """As Python 3.14 tells a position, which no message has to be taken apart for."""

    class ToldError(ValueError):
        def __init__(self, plain: str) -> None:
            super().__init__("in words of another version")
            self.msg, _, at = plain.partition(" (at ")
            last = len(text.split("\n"))
            line, column = str(last), "1"
            if at.startswith("line"):
                line, column = at.removeprefix("line ").rstrip(")").split(", column ")
            self.lineno, self.colno = int(line), int(column)

    plain = tomllib.loads

    def loads(content: str) -> dict[str, object]:
        try:
            return plain(content)
        except ValueError as wrong:
            raise ToldError(str(wrong)) from None

    monkeypatch.setattr(tomllib, "loads", loads)
    with pytest.raises(DocumentError) as refused:
        parse(text.encode())

    assert refused.value.found == found


def test_a_file_in_utf_16_is_told(tmp_path: Path) -> None:
    """What an editor saved in another encoding is named as that."""
    file = write_smallest(tmp_path)
    file.write_bytes(file.read_text(encoding="utf-8").encode("utf-16"))

    ((problem),) = problems(file)
    assert problem.found == "text in UTF-16"


def test_a_byte_order_mark_hides_no_key_from_any_reader(tmp_path: Path) -> None:
    """With one before it, the file is the same to the gate and to commands that read one key."""
    file = write_smallest(tmp_path)
    text = file.read_text(encoding="utf-8")
    more = f'state.path = "{tmp_path}/locks"\nserver.admin_listen = "127.0.0.1:5000"\n'
    file.write_text(f"\ufeff{more}", encoding="utf-8")

    assert str(admin_address(file, SECRETS)) == "127.0.0.1:5000"
    assert state_path(file, SECRETS) == f"{tmp_path}/locks"
    file.write_text(f"\ufeff{text}", encoding="utf-8")
    assert good(file).warnings is not None


def test_a_list_that_nobody_closed_is_shown_where_it_begins(tmp_path: Path) -> None:
    """Its line is named, with nothing of the lines below."""
    file = tmp_path / "config.toml"
    file.write_text(
        'session.secret = "x"\nroute = [\n  { name = "a" },\ngroups.ops = ["hunter2"]\n'
    )

    (problem,) = problems(file)
    assert problem.found == "a [ that is not closed before line 4"
    assert problem.excerpt is not None
    assert (problem.excerpt.position, problem.excerpt.source) == (f"{file}:2:9", "route = [")
