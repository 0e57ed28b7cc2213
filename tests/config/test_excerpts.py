"""A problem shows its line in the file with a caret below it, and never a secret."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from configkit import SECRETS, good, problems, refused, write_smallest

from tailchat_gate.config.load import ConfigError, load
from tailchat_gate.config.report import as_json, github, report

Write = Callable[[str], Path]

ALL = """\
[server]
public_url = "https://gate.example.com"
[tailchat]
api_url = "https://chat.example.com"
client_id = "tc_1"
client_secret = "hunter2hunter2" # hunter2
[session]
secrets = [ # hunter2
  "hunter2-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 'hunter2-bbbbbbbbbbbbbbbbbbbbbbbbbbbbb'
]
[state]
url = "rediss://gate:hunter2@redis:6379"
[[token]]
name = "backup"
hash = "hunter2"
[[route]]
name = "wiki"
host = "wiki.example.com"
upstream = "http://wiki:3000"
headers = { "X-Api-Key" = "hunter2", Authorization = '''
Basic hunter2''' }
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what writes a file that its owner alone can read."""
    file = tmp_path / "gate.toml"
    file.touch(mode=0o600)

    def written(text: str) -> Path:
        file.write_text(text, encoding="utf-8")
        return file

    return written


def _drawn(file: Path) -> list[tuple[str, str]]:
    """Return the lines of the problems of a file, with their carets."""
    found = [one.excerpt for one in problems(file, SECRETS)]
    return [(one.source, one.caret) for one in found if one is not None]


def _routes(more: str) -> str:
    return '[[route]]\nname = "wiki"\nupstream = "static:204"\n' + more


SERVER = '[server]\npublic_url = "https://gate.example.com"\n'
TAILCHAT = '[tailchat]\napi_url = "https://chat.example.com"\nclient_id = "tc_1"\n'
REST = SERVER + TAILCHAT


@pytest.mark.parametrize(
    ("line", "source", "marked"),
    [
        ('path = "a"', 'path = "a"', '"a"'),
        ('path = "a" # why', 'path = "a"', '"a"'),
        ("\tgrants  =\t5", " grants  = 5", "5"),
        ('allow = ["sub:1", "x"]', 'allow = ["sub:1", "x"]', '"x"'),
        ("allow = [\n  # why\n  'x',\n]", "  'x',", "'x'"),
        ('alow = "x"', 'alow = "***"', "alow"),
        ('headers = { "A B" = "x", C = "y" }', 'headers = { "A B" = "***", C = "***" }', '"A B"'),
        ('path = """\na"""', "path = ***", "***"),
        ('icon = "\u4e2d\u6587x" # \u4e2d', 'icon = "\u4e2d\u6587x"', '"\u4e2d\u6587x"'),
        ('path = "/\u202e\x7f"'.replace("\x7f", "\\u007f"), 'path = "/?\\u007f"', '"/?\\u007f"'),
        ('host = "http://u:p@h"', 'host = "http://***@h"', '"http://***@h"'),
    ],
)
def test_the_value_is_marked(write: Write, line: str, source: str, marked: str) -> None:
    """The caret is below the value, or below the key where that is wrong, as wide as it looks."""
    ((shown, caret),) = _drawn(write(REST + _routes(line + "\n")))
    wide = [2 if "\u4e00" <= one <= "\u9fff" else 1 for one in shown]
    start = shown.index(marked)

    assert shown == source
    assert caret.index("^") == sum(wide[:start])
    assert caret.count("^") == sum(wide[start : start + len(marked)])


def test_a_long_line_is_cut_around_its_mark(write: Write) -> None:
    """A line of a hundred entries shows the wrong one, and that there is more on both sides."""
    entries = ", ".join(f'"sub:{"a" * 24}"' for _ in range(50))
    text = REST + _routes(f'allow = [{entries}, "x", {entries}]\n')
    ((shown, caret),) = _drawn(write(text))

    assert (shown[:3], shown[-3:]) == ("...", "...")
    assert shown[caret.index("^") :].startswith('"x"')
    assert len(shown) <= 106


def test_positions_are_those_of_the_file(write: Write) -> None:
    """Lines that end with CR LF and a byte-order mark move nothing."""
    text = REST + _routes('host = "a b"\n')
    file = write("")
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (problem,) = problems(file, SECRETS)

    assert problem.excerpt is not None
    at = text.split("\n")[problem.excerpt.line - 1]
    assert at[problem.excerpt.column - 1 : problem.excerpt.end_column - 1] == '"a b"'


def test_what_is_missing_is_missed_in_its_table(write: Write) -> None:
    """The header of the table is marked, and a table that is not there has its file alone."""
    routes = '[[route]]\nname = "wiki"\nhost = "wiki.example.com"\n'
    found = problems(write(SERVER + routes), SECRETS)

    assert [(one.key, one.excerpt and one.excerpt.source) for one in found] == [
        ("route[0].upstream (wiki, wiki.example.com/)", "[[route]]"),
        ("tailchat.api_url", ""),
        ("tailchat.client_id", ""),
    ]
    assert [one.excerpt.position for one in found[1:] if one.excerpt] == [str(write(""))] * 2


def test_what_the_environment_sets_has_no_line(write: Write) -> None:
    """A variable is named in place of a line, though the file has the key as well."""
    file = write(REST + _routes("") + '[log]\nlevel = "info"\n')
    (problem,) = refused(file, LOG__LEVEL="loud")
    loaded = good(file, SERVER__PUBLIC_URL="http://gate.example.com")

    assert (problem.key_path, problem.excerpt) == ("TAILCHAT_GATE_LOG__LEVEL", None)
    assert "--> the environment" in report([problem])
    assert [one.key for one in loaded.located] == ["TAILCHAT_GATE_SERVER__PUBLIC_URL"]
    assert loaded.located[0].excerpt is None


def test_a_secret_file_is_named_with_its_line(write: Write) -> None:
    """The key that names the file is marked; what is wrong says the file and its own line."""
    file = write(REST + '[session]\nsecret_file = "secrets"\n' + _routes(""))
    file.with_name("secrets").write_text("\nhunter2\n")
    environ = {name: text for name, text in SECRETS.items() if "SESSION" not in name}
    (problem,) = problems(file, environ)

    assert problem.found.startswith(f"{file.with_name('secrets')}, line 2: a secret of 7 ")
    assert problem.excerpt is not None
    assert problem.excerpt.source == 'secret_file = "secrets"'


def test_problems_come_once_in_the_order_of_the_file(write: Write) -> None:
    """What two checks find is one problem, and lines go up."""
    text = '[limits]\ncookie_bytes = "x"\n' + _routes('path = "x"\nbody_limit = "x"\n') + REST
    found = refused(write(text + "prefix = 1\n"), LOG__LEVEL="loud")
    lines = [one.excerpt.line if one.excerpt else 0 for one in found]

    assert lines == sorted(lines)
    assert lines[0] == 0
    assert len({(one.key_path, one.found) for one in found}) == len(found)


def _mangled() -> list[tuple[str, int, str]]:
    """Return one change for each place in the file; three signs for each would take too long."""
    signs = ('"', "'", "\n", "=", ",", "]", "{", "#", "\\", "[[", '"""')
    inserted = [("insert", at, signs[at % len(signs)]) for at in range(len(ALL))]
    return [*inserted, *(("delete", at, "") for at in range(len(ALL)) if ALL[at] != "@")]


def test_no_mistake_shows_a_secret(write: Write) -> None:
    """One sign too many or too few anywhere in a file never has a secret shown."""
    shown = 0
    for order, at, sign in _mangled():
        text = ALL[:at] + sign + ALL[at + (order == "delete") :]
        try:
            found = list(load(write(text), {}).located)
        except ConfigError as refused:
            found = list(refused.problems)
        for problem in found:
            shown += bool(problem.excerpt and problem.excerpt.source)
            told = [report([problem]), github(problem, "error"), str(problem), repr(problem)]
            assert "hunter2" not in "".join([*told, json.dumps(as_json(problem, "error"))]), text

    assert shown > 100


GITHUB = re.compile(
    r"::(error|warning|notice) (?:file=[^:,]+,)?(?:line=\d+,col=\d+,(?:endColumn=\d+,)?)?"
    r"title=[^:,]+::[^\r\n]+"
)


def test_a_workflow_command_is_one_line(tmp_path: Path) -> None:
    """Signs that end a property or a command are escaped, in the file's name as well."""
    folder = tmp_path / "a,b:c%"
    folder.mkdir()
    file = write_smallest(folder)
    file.write_text(file.read_text() + 'alow = "x"\npath = "a%0A::b"\n')
    commands = [github(one, "error") for one in problems(file, SECRETS)]

    assert all(GITHUB.fullmatch(one) for one in commands)
    assert len(commands) == 2
    assert f"file={tmp_path}/a%2Cb%3Ac%25/gate.toml,line=" in commands[0]
    assert "title=route[0].alow (" in commands[0]
    assert 'found "a%250A::b"' in commands[1]
