"""`check` for people, programs and workflows: its whole output, its colours and exit codes."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from clikit import GATE, environ, invoke
from gatekit import SECRET
from terminals import all_of

BAD = f"""\
[server]
public_url = "https://gate.example.com"

[tailchat]
api_url = "https://chat.example.com"
client_id = "tc_1"
client_secret = "d6f1c0a97be24853"

[session]
secret = "{SECRET}" # not for others

[[route]]
name = "wiki"
host = "wiki.example.com"
upstrem = "http://wiki:3000"
upstream = "static:204"
allow = ["group:opps"]

[groups]
ops = ["660000000000000000000001"]
"""
GOOD = (
    BAD.replace('upstrem = "http://wiki:3000"\n', "")
    .replace("opps", "ops")
    .replace("example.com", "example.lan")
    .replace("660000000000000000000001", "66f3a1c09b2e4d5f60718293")
)
#: What gives a warning.
DOUBTFUL = GOOD.replace('"group:ops"', '"group:ops", "signed-in"')

TEXT = """\
gate.toml: 2 problems in the configuration

error: route[0].upstrem (wiki, wiki.example.com/): found an unknown key
  --> gate.toml:15:1
   |
15 | upstrem = "***"
   | ^^^^^^^
   = expected: a key that [[route]] has
   = help: write "upstream"

error: route[0].allow[0] (wiki, wiki.example.com/): found "group:opps"
  --> gate.toml:17:10
   |
17 | allow = ["group:opps"]
   |          ^^^^^^^^^^^^
   = expected: a group that [groups] names
   = help: write "ops"
"""
COMMANDS = """\
::error file=gate.toml,line=15,col=1,endColumn=8,title=route[0].upstrem (wiki%2C \
wiki.example.com/)::found an unknown key; expected a key that [[route]] has; did you mean \
"upstream"?
::error file=gate.toml,line=17,col=10,endColumn=22,title=route[0].allow[0] (wiki%2C \
wiki.example.com/)::found "group:opps"; expected a group that [groups] names; did you mean "ops"?
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, where nothing else is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return tmp_path


def _write(folder: Path, text: str) -> None:
    (folder / "gate.toml").touch(mode=0o600)
    (folder / "gate.toml").write_text(text)


def _check(*arguments: str) -> tuple[int, str, str]:
    return invoke("check", "-c", "gate.toml", *arguments)


@pytest.mark.parametrize(
    ("arguments", "out", "err"), [((), "", TEXT), (("--format", "github"), COMMANDS, "")]
)
def test_problems_for_people_and_for_workflows(
    folder: Path, arguments: tuple[str, ...], out: str, err: str
) -> None:
    """This is all that is printed, by the program as it is installed."""
    _write(folder, BAD)
    done = subprocess.run(
        [*GATE, "check", "-c", "gate.toml", *arguments],
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (2, out, err)


def test_problems_for_programs(folder: Path) -> None:
    """One document has the file, whether it is valid, and each problem with its place."""
    _write(folder, BAD)
    code, out, err = _check("--format", "json")
    found = json.loads(out)
    first = found.pop("problems")[0]

    assert (code, err) == (2, "")
    assert found == {
        "file": "gate.toml",
        "valid": False,
        "starts": False,
        "routes": None,
        "redirect_uri": None,
    }
    assert first == {
        "severity": "error",
        "key": "route[0].upstrem",
        "name": "wiki, wiki.example.com/",
        "message": "found an unknown key",
        "expected": 'a key that [[route]] has; did you mean "upstream"?',
        "hint": None,
        "file": "gate.toml",
        "line": 15,
        "column": 1,
        "end_column": 8,
    }


def test_warnings_for_programs(folder: Path) -> None:
    """A valid file has its redirect_uri, and warnings are no errors."""
    _write(folder, DOUBTFUL)
    code, out, err = _check("--format", "json")
    found = json.loads(out)

    assert (code, err) == (0, "")
    assert (found["valid"], found["starts"], found["routes"]) == (True, True, 1)
    assert found["redirect_uri"] == "https://gate.example.lan/oauth2/callback"
    assert [(one["severity"], one["line"]) for one in found["problems"]] == [("warning", 16)]


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_strict_fails_for_warnings_alone(folder: Path, form: str) -> None:
    """Its exit code is its own, 4; notes, which describe a normal set-up, do not count."""
    codes = []
    for text in (DOUBTFUL, GOOD, GOOD.replace('host = "wiki.example.lan"\n', ""), BAD):
        _write(folder, text)
        codes.append((_check("--format", form)[0], _check("--format", form, "--strict")[0]))

    assert codes == [(0, 4), (0, 0), (0, 0), (2, 2)]


def test_a_note_is_a_notice_in_a_workflow(folder: Path) -> None:
    """What is normal with one trusted tool is neither a warning nor an error."""
    _write(
        folder, GOOD.replace('host = "wiki.example.lan"\n', "").replace("static:204", "http://a")
    )

    assert _check("--format", "github")[1].startswith(
        "::notice file=gate.toml,line=2,col=14,endColumn=40,title=server.public_url::wiki can be "
    )


def _on_a_terminal(variables: Mapping[str, str]) -> str:
    """Return what `check` writes to a terminal."""
    ours, its = pty.openpty()
    try:
        command = [sys.executable, "-m", "tailchat_gate", "check", "-c", "gate.toml"]
        try:
            environment = {**environ(), **variables}
            subprocess.run(command, env=environment, stdout=its, stderr=its, check=False)
        finally:
            os.close(its)
        return all_of(ours).decode()
    finally:
        os.close(ours)


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_a_terminal_gets_colours(
    folder: Path, variables: dict[str, str], *, coloured: bool
) -> None:
    """NO_COLOR, FORCE_COLOR and a terminal that has none are heard."""
    _write(folder, BAD)

    assert ("\x1b[31m\x1b[1merror\x1b[0m: " in _on_a_terminal(variables)) == coloured


@pytest.mark.parametrize(("variable", "coloured"), [("FORCE_COLOR", True), ("LANG", False)])
def test_a_pipe_gets_colours_on_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, *, coloured: bool
) -> None:
    """Without FORCE_COLOR no escape reaches a file or a log."""
    _write(folder, BAD)
    monkeypatch.setenv(variable, "C")

    assert ("\x1b" in _check()[2]) == coloured
