"""Completion in a real bash and a real fish, and what zsh asks for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clikit import environ, invoke
from parts import missing

BASH = shutil.which("bash") or "/bin/bash"
ID, OTHER = "660000000000000000000001", "660000000000000000000002"
CONFIG = f"""
[server]
public_url = "https://gate.example.com"
[groups]
ops = ["{ID}", "tailchat-group:660000000000000000000003"]
[[token]]
name = "backup"
[[token]]
name = "build"
[[route]]
name = "wiki"
host = "wiki.example.com"
deny = ["sub:{OTHER}"]
[[route]]
name = "week\\u001b"
[[route]]
name = "grafana"
host = "grafana.example.com"
path = "/g"
not = "valid"
"""
#: Completes one line, as bash does when Tab is pressed at its end.
ASK = r"""
eval "$(tailchat-gate completion bash)"
line=$1
COMP_LINE=$line COMP_POINT=${#line} COMP_WORDS=(tailchat-gate)
complete -p tailchat-gate >/dev/null || exit 9
_tailchat_gate_completion tailchat-gate
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a configuration, and the program as it is installed."""
    found = tmp_path_factory.mktemp("completion")
    (found / "gate.toml").write_text(CONFIG)
    program = found / "tailchat-gate"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tailchat_gate "$@"\n')
    program.chmod(0o755)
    return found


def _variables(folder: Path) -> dict[str, str]:
    """Return the environment of a shell, in which the program and its file are found."""
    return {
        **environ(),
        "PATH": f"{folder}:{environ()['PATH']}",
        "TAILCHAT_GATE_CONFIG": str(folder / "gate.toml"),
    }


def _completed(folder: Path, line: str, *, breaks: str = "") -> list[str]:
    """Return what bash offers for a line."""
    done = subprocess.run(
        [BASH, "--norc", "-c", breaks + ASK, "bash", line],
        env=_variables(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tailchat-gate gra", ["grant", "grants"]),
        ("tailchat-gate check --for", ["--format"]),
        ("tailchat-gate check --format g", ["github"]),
        (
            "tailchat-gate lock ",
            ["all", "token:backup", "token:build", f"sub:{ID}", f"sub:{OTHER}"],
        ),
        ("tailchat-gate lock tok", ["token:backup", "token:build"]),
        ("tailchat-gate lock token:bu", ["build"]),
        ("tailchat-gate sign-out sub:", [ID, OTHER]),
        (f"tailchat-gate grant sub:{ID} w", ["wiki"]),
        ("tailchat-gate explain --token ", ["backup", "build"]),
        ("tailchat-gate explain --as s", [f"sub:{ID}", f"sub:{OTHER}"]),
        ("tailchat-gate explain https:", ["//wiki.example.com/", "//grafana.example.com/g"]),
        ("tailchat-gate grant --config /nowhere sub:1 ", []),
        ("tailchat-gate completion f", ["fish"]),
    ],
)
def test_bash_completes(folder: Path, line: str, offered: list[str]) -> None:
    """Commands, options, and names of the configuration, in a file that is not valid."""
    assert _completed(folder, line) == offered


def test_bash_that_breaks_at_no_colon(folder: Path) -> None:
    """Where COMP_WORDBREAKS has none, the whole word is replaced."""
    breaks = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n"
    assert _completed(folder, "tailchat-gate lock token:bu", breaks=breaks) == ["token:build"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tailchat-gate gra", ["grant", "grants"]),
        ("tailchat-gate lock token:bu", ["token:build"]),
        (f"tailchat-gate grant sub:{ID} w", ["wiki"]),
    ],
)
def test_fish_completes(folder: Path, line: str, offered: list[str]) -> None:
    """A real fish offers the same."""
    fish = shutil.which("fish")
    if fish is None:
        missing("fish")
    script = "tailchat-gate completion fish | source; complete --do-complete $argv"
    done = subprocess.run(
        [fish, "--no-config", "--command", script, line],
        env={**_variables(folder), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert [one.partition("\t")[0] for one in done.stdout.splitlines()] == offered, done.stderr


def test_zsh_gets_what_its_script_asks_for(folder: Path) -> None:
    """The script is click's own, and asks the program with the words of the line."""
    _, script, _ = invoke("completion", "zsh")
    asked = (
        'COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) _TAILCHAT_GATE_COMPLETE=zsh_complete'
    )
    words = {"COMP_WORDS": "tailchat-gate lock token:bu", "COMP_CWORD": "2"}
    done = subprocess.run(
        [folder / "tailchat-gate"],
        env={**_variables(folder), **words, "_TAILCHAT_GATE_COMPLETE": "zsh_complete"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert asked in script
    assert done.stdout.split() == ["plain", "token:build", "_"], done.stderr
