"""Commands that the gate suggests work as they are printed."""

import shlex
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from configkit import CORPUS, SECRETS

from tailchat_gate.cli import main
from tailchat_gate.commands.common import program, to_type
from tailchat_gate.config.overlay import DEFAULT_CONFIG
from tailchat_gate.config.suggested import READERS, completed

WHO = "660000000000000000000003"


def test_the_suggested_command_lets_the_person_in(tmp_path: Path) -> None:
    """What `explain` prints grants access in the file that it was given, as it stands."""
    config = tmp_path / "the gate.toml"
    (tmp_path / "state").mkdir()
    text = (CORPUS / "good" / "rules.toml").read_text("utf-8")
    config.write_text(f'state.path = "{tmp_path / "state"}"\n{text}', "utf-8")
    asked = ("explain", "https://wiki.example.com/export", "--as", WHO, "--config", str(config))
    refused = CliRunner().invoke(main, asked, env=dict(SECRETS))
    name, *arguments = shlex.split(refused.output.rpartition("lets in:")[2])
    granted = CliRunner().invoke(main, arguments, env=dict(SECRETS))
    allowed = CliRunner().invoke(main, asked, env=dict(SECRETS))

    assert (refused.exit_code, name) == (1, "tailchat-gate")
    assert (granted.exit_code, allowed.exit_code) == (0, 0), granted.output


def test_every_command_with_the_option_is_known() -> None:
    """A new command that reads the configuration is completed too."""
    context = click.Context(main)
    commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    readers = {
        name
        for name, command in commands.items()
        if command and any(option.name == "config" for option in command.params)
    }

    assert readers == READERS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`tailchat-gate grants` lists who", "`tailchat-gate grants --config /x/g.toml` lists who"),
        ("`tailchat-gate secret` prints one", "`tailchat-gate secret` prints one"),
        ("tailchat-gate lock all --config /y", "tailchat-gate lock all --config /y"),
        ("/var/lib/tailchat-gate check", "/var/lib/tailchat-gate check"),
    ],
)
def test_the_option_is_added_where_it_is_missing(text: str, expected: str) -> None:
    """Once, to commands that take it, and to nothing that only looks like one."""
    assert completed(text, Path("/x/g.toml")) == expected


@pytest.mark.parametrize("config", [None, DEFAULT_CONFIG])
def test_the_usual_file_needs_no_option(config: Path | None) -> None:
    """A command that works without it stays short."""
    assert completed("`tailchat-gate locks`", config) == "`tailchat-gate locks`"


def test_a_program_outside_the_path_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell finds what is printed, from a virtual environment and in another directory too."""
    typed = tmp_path / "my venv" / "tailchat-gate"
    typed.parent.mkdir()
    typed.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(typed.relative_to(tmp_path)), "explain"])
    monkeypatch.setenv("PATH", str(tmp_path))

    assert to_type("tailchat-gate secret") == f"'{typed}' secret"
    monkeypatch.setenv("PATH", str(typed.parent))
    assert program() == "tailchat-gate"
