"""Completion in a real bash, fish and zsh.

The program that they find has its processes started here, where those of the gate are forked.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
from clikit import environ
from parts import missing
from terminals import all_of

BASH = shutil.which("bash") or "/bin/bash"
#: Seconds for a shell to say something; only a fault takes so long.
TIMEOUT = 60
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
#: Passes on its arguments and environment, and prints what the gate does with them.
PROGRAM = """\
#!{bash}
exec 3<>/dev/tcp/127.0.0.1/{port}
{{ printf '%s\\0' $# "$@"; cat /proc/$$/environ; printf '\\0'; }} >&3
exec cat <&3
"""
#: Lines, and what bash offers for each.
IN_BASH = {
    "tailchat-gate gra": ["grant", "grants"],
    "tailchat-gate check --for": ["--format"],
    "tailchat-gate check --format g": ["github"],
    "tailchat-gate lock ": ["all", "token:backup", "token:build", f"sub:{ID}", f"sub:{OTHER}"],
    "tailchat-gate lock tok": ["token:backup", "token:build"],
    "tailchat-gate lock token:bu": ["build"],
    "tailchat-gate sign-out sub:": [ID, OTHER],
    f"tailchat-gate grant sub:{ID} w": ["wiki"],
    "tailchat-gate explain --token ": ["backup", "build"],
    "tailchat-gate explain --as s": [f"sub:{ID}", f"sub:{OTHER}"],
    "tailchat-gate explain https:": ["//wiki.example.com/", "//grafana.example.com/g"],
    "tailchat-gate grant --config /nowhere sub:1 ": [],
    "tailchat-gate completion f": ["fish"],
}
IN_FISH = {
    "tailchat-gate gra": ["grant", "grants"],
    "tailchat-gate lock token:bu": ["token:build"],
    f"tailchat-gate grant sub:{ID} w": ["wiki"],
}
#: Completes lines, as bash does when Tab is pressed at the end of each.
ASK_BASH = r"""
eval "$(tailchat-gate completion bash)"
complete -p tailchat-gate >/dev/null || exit 9
for line; do
    COMP_LINE=$line COMP_POINT=${#line} COMP_WORDS=(tailchat-gate)
    _tailchat_gate_completion tailchat-gate
    printf '%s\n' "${COMPREPLY[@]}" ---
done
"""
ASK_FISH = r"""
tailchat-gate completion fish | source
for line in $argv
    complete --do-complete $line
    echo ---
end
"""


class Starter(StreamRequestHandler):
    """Runs the gate with the arguments and the environment that PROGRAM sends."""

    def handle(self) -> None:
        """Read them up to an empty one, and answer with the output, and with any complaint."""
        words = (word.decode() for word in iter(self._word, b""))
        arguments = [next(words) for _ in range(int(next(words)))]
        variables = dict(word.split("=", 1) for word in words)
        gate = [sys.executable, "-m", "tailchat_gate", *arguments]
        done = subprocess.run(gate, env=variables, capture_output=True, check=False)
        self.wfile.write(done.stdout + done.stderr)

    def _word(self) -> bytes:
        return b"".join(iter(lambda: self.rfile.read(1).rstrip(b"\0"), b""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory with a configuration, and the program as if it were installed."""
    found = tmp_path_factory.mktemp("completion")
    (found / "gate.toml").write_text(CONFIG)
    program = found / "tailchat-gate"
    with ThreadingTCPServer(("127.0.0.1", 0), Starter) as server:
        program.write_text(PROGRAM.format(bash=BASH, port=server.server_address[1]))
        program.chmod(0o755)
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield found
        server.shutdown()
        serving.join()


def _variables(folder: Path) -> dict[str, str]:
    """Return the environment of a shell, in which the program and its file are found."""
    return {
        **environ(),
        "PATH": f"{folder}:{environ()['PATH']}",
        "TAILCHAT_GATE_CONFIG": str(folder / "gate.toml"),
    }


def _completed(folder: Path, command: Sequence[str], lines: Iterable[str]) -> dict[str, list[str]]:
    """Return what a shell offers for each line, without descriptions."""
    done = subprocess.run(
        [*command, *lines],
        env={**_variables(folder), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    found = iter(words)
    return {line: [word for word in iter(partial(next, found), "---") if word] for line in lines}


@pytest.fixture(scope="module")
def in_bash(folder: Path) -> Mapping[str, list[str]]:
    """Return what one bash offers for all lines."""
    return _completed(folder, [BASH, "--norc", "-c", ASK_BASH, "bash"], IN_BASH)


@pytest.fixture(scope="module")
def in_fish(folder: Path) -> Mapping[str, list[str]]:
    """Return what one fish offers for all lines."""
    fish = shutil.which("fish")
    if fish is None:
        missing("fish")
    return _completed(folder, [fish, "--no-config", "--command", ASK_FISH], IN_FISH)


@pytest.mark.parametrize("line", IN_BASH)
def test_bash_completes(in_bash: Mapping[str, list[str]], line: str) -> None:
    """Commands, options, and names of the configuration, in a file that is not valid."""
    assert in_bash[line] == IN_BASH[line]


def test_bash_that_breaks_at_no_colon(folder: Path) -> None:
    """Where COMP_WORDBREAKS has none, the whole word is replaced."""
    breaks = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n"
    line = "tailchat-gate lock token:bu"
    found = _completed(folder, [BASH, "--norc", "-c", breaks + ASK_BASH, "bash"], [line])
    assert found == {line: ["token:build"]}


@pytest.mark.parametrize("line", IN_FISH)
def test_fish_completes(in_fish: Mapping[str, list[str]], line: str) -> None:
    """A real fish offers the same."""
    assert in_fish[line] == IN_FISH[line]


#: As a .zshrc: completes lines as if Tab were pressed at the end of each, and leaves.
ZSHRC = r"""
eval "$(tailchat-gate completion zsh)"
compadd() {
    local -a hits
    builtin compadd -O hits "$@"
    offered+=("${hits[@]}")
    builtin compadd "$@"
}
zle-line-init() {
    local line
    for line in "${(@f)$(<$LINES_FILE)}"; do
        offered=() BUFFER=$line CURSOR=$#line
        zle complete-word
        print -r -- "$BUFFER|${(j:|:)offered}" >>$OUTPUT
    done
    BUFFER=exit
    zle accept-line
}
zle -N zle-line-init
"""


def test_zsh_completes(folder: Path) -> None:
    """An interactive zsh offers the same, and files; with the program by its path, too."""
    zsh = shutil.which("zsh")
    if zsh is None:
        missing("zsh")
    file = folder / "gate.toml"
    completed = {
        "tailchat-gate gra": ("tailchat-gate grant", "grant", "grants"),
        "tailchat-gate lock token:bu": ("tailchat-gate lock token:build ", "token:build"),
        f"{folder}/tailchat-gate lock tok": (
            *(f"{folder}/tailchat-gate lock token:b", "token:backup", "token:build"),
        ),
        "tailchat-gate explain https:": (
            "tailchat-gate explain https://",
            *("https://wiki.example.com/", "https://grafana.example.com/g"),
        ),
        f"tailchat-gate check --config={folder}/ga": (f"tailchat-gate check --config={file} ",),
    }
    (folder / ".zshrc").write_text(ZSHRC)
    (folder / "lines").write_text("\n".join(completed))
    output = folder / "offered"
    ours, its = os.openpty()
    places = {"LINES_FILE": str(folder / "lines"), "OUTPUT": str(output), "TERM": "dumb"}
    with subprocess.Popen(
        [zsh, "-i"],
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=folder,
        env={**_variables(folder), **places, "ZDOTDIR": str(folder)},
    ) as process:
        os.close(its)
        try:
            shown = all_of(ours)
            process.wait(TIMEOUT)
        finally:
            process.kill()
            os.close(ours)

    assert output.exists(), shown
    found = [line.split("|") for line in output.read_text().splitlines()]
    for (line, wanted), (buffer, *offered) in zip(completed.items(), found, strict=True):
        assert buffer == wanted[0], (line, shown)
        assert len(wanted) == 1 or tuple(offered) == wanted[1:], line
