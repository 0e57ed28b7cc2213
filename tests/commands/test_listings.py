"""Listings for programs: each has --json, and one shape; the help has its commands in groups."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from clikit import invoke
from configkit import CORPUS, SECRETS

from tailchat_gate.cli import main
from tailchat_gate.commands.common import print_json, print_table

RULES = CORPUS / "good" / "rules.toml"
LISTINGS = (
    *("check", "doctor", "explain", "grants", "locks", "refusals", "requests", "routes"),
    *("sessions", "tailchat-groups"),
)
ID = "660000000000000000000003"


def _printed(name: str, *arguments: str) -> tuple[int, Any]:
    """Return what a command prints as JSON, and its exit code."""
    done = CliRunner().invoke(
        main, [name, "--config", str(RULES), "--json", *arguments], env=dict(SECRETS)
    )
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.parametrize("name", LISTINGS)
def test_every_listing_has_the_option(name: str) -> None:
    """A program asks each of them in the same way."""
    code, out, _ = invoke(name, "--help")

    assert code == 0
    assert re.search(r"^ +--json +", out, re.MULTILINE)


def test_routes_for_programs() -> None:
    """Each route in the order of the table, with lists in place of text, and what all deny."""
    code, found = _printed("routes")

    assert (code, found["deny"]) == (0, ["group:former", "token:stolen"])
    assert found["routes"][0] == {
        "name": "wiki-export",
        "host": "wiki.example.com",
        "path": "/export",
        "methods": ["GET"],
        "allow": ["group:ops", "token:backup"],
        "deny": [],
        "upstream": ["http://wiki:3000"],
    }
    assert found["routes"][-1]["host"] is None


def test_a_refusal_for_programs() -> None:
    """The steps, what would let the person in, and nothing that a tool would get."""
    code, found = _printed("explain", "https://wiki.example.com/export", "--as", ID)
    allow = f'allow = ["group:ops", "token:backup", "sub:{ID}"]'
    grant = f"sub:{ID} wiki-export --for 8h"

    assert (code, found["allowed"], found["sent"]) == (1, False, [])
    assert found["steps"][-1] == {"what": "decision", "text": "refused: denied, 403"}
    assert found["lets_in"] == [
        {"table": "[[route]] wiki-export", "line": allow},
        {"table": None, "line": f"tailchat-gate grant --config {RULES} {grant}"},
    ]


def test_what_passes_for_programs() -> None:
    """The lines of the request that the tool gets are a list of their own."""
    code, found = _printed("explain", "https://wiki.example.com/", "--as", ID)

    assert (code, found["allowed"], found["lets_in"]) == (0, True, [])
    assert found["sent"][0] == "GET / HTTP/1.1"
    assert all(step["what"] and step["text"] for step in found["steps"])


def test_what_lets_in_does_let_in(tmp_path: Path) -> None:
    """The file with the line that `explain` prints lets the person in."""
    _, found = _printed("explain", "https://wiki.example.com/export", "--as", ID)
    text = RULES.read_text(encoding="utf-8")
    before = 'allow = ["group:ops", "token:backup"]'
    assert text.count(before) == 1
    changed = tmp_path / "gate.toml"
    changed.write_text(text.replace(before, found["lets_in"][0]["line"]), encoding="utf-8")
    done = CliRunner().invoke(
        main,
        ["explain", "https://wiki.example.com/export", "--as", ID, "-c", str(changed)],
        env=dict(SECRETS),
    )

    assert (done.exit_code, "lets in" in done.output) == (0, False)


def test_help_has_every_command_in_a_group() -> None:
    """The headings are those of what people want to do, with each command below one of them."""
    _, out, _ = invoke("--help")
    headings = re.findall(r"^([A-Z][a-z]+):$", out, re.MULTILINE)
    names = re.findall(r"^  ([a-z][a-z0-9-]+) {2,}", out, re.MULTILINE)

    assert headings == ["Options", "Run", "Configuration", "People", "Machines", "Look"]
    assert sorted(names) == sorted(main.list_commands(click.Context(main)))


@pytest.mark.parametrize("text", ["\x1b]0;x\x07", "\x9b31m", "\u202egnp", "\u2028", "\ufeff"])
def test_a_terminal_obeys_no_text_of_a_person(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Nor a name or reason in JSON, of which a program reads the same; other languages stay."""
    shown = f"名前{text}é"
    print_json([shown])
    printed = capsys.readouterr().out
    print_table([(shown, "x")])
    table = capsys.readouterr().out

    assert json.loads(printed) == [shown]
    for out in (printed, table):
        assert out.replace("\n", "").isprintable()
        assert "名前" in out
