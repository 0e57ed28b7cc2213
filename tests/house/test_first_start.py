"""A first start on a machine where nothing was prepared, by a user who may write nowhere else."""

import asyncio
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clikit import GATE, environ
from gatekit import SECRET, ask, request_bytes
from process import free_port

from tailchat_gate.config.state_directory import SYSTEM, make_for, state_directory

ROOT = Path(__file__).parents[2]
NOBODY = 65534
#: Where Python keeps byte code, if not beside the sources.
_CACHED = ("PYTHONPYCACHEPREFIX",)
SETTINGS = {
    "SERVER__PUBLIC_URL": "http://localhost",
    "TAILCHAT__API_URL": "http://127.0.0.1:9",
    "TAILCHAT__CLIENT_ID": "tc_1",
    "TAILCHAT__CLIENT_SECRET": "d6f1c0a97be24853",
    "SESSION__SECRET": SECRET,
    "ROUTE": '[{"name": "all", "upstream": "static:204", "allow": ["public"]}]',
}


def _drops_root() -> bool:
    """Tell whether the programs can be run as somebody else: root, in a place others can read."""
    places = (Path(sys.executable), *Path(sys.executable).resolve().parents, *ROOT.parents, ROOT)
    return os.geteuid() == 0 and all(place.stat().st_mode & stat.S_IXOTH for place in places)


@pytest.fixture
def home() -> Iterator[Path]:
    """Return the home of an ordinary user, empty."""
    made = Path(tempfile.mkdtemp())
    if _drops_root():
        os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def _started(
    home: Path, *arguments: str, environ: Mapping[str, str]
) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """Serve as an ordinary user; yield the port and what the line of the start says."""
    port = free_port()
    given = {
        "SERVER__LISTEN": f"127.0.0.1:{port}",
        "SERVER__ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        **environ,
    }
    user: dict[str, Any] = (
        {"user": NOBODY, "group": NOBODY, "extra_groups": ()} if _drops_root() else {}
    )
    process = await asyncio.create_subprocess_exec(
        *GATE,
        *("serve", *arguments),
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            **{name: os.environ[name] for name in _CACHED if name in os.environ},
            **{f"TAILCHAT_GATE_{name}": value for name, value in given.items()},
        },
        **user,
    )
    assert process.stderr is not None
    try:
        told = b""
        async with asyncio.timeout(50):
            while b"the gate is open" not in told:
                line = await process.stderr.readline()
                assert line, told
                told = line
        yield port, json.loads(told)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_a_start_with_the_readmes_five_lines(home: Path) -> None:
    """Nothing is prepared but the two secrets; the line of the start says where locks are."""

    def write() -> Path:
        (home / "client_secret").write_text("d6f1c0a97be24853\n")
        (home / "session_secret").write_text(SECRET + "\n")
        blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        text = next(block for block in blocks if "public_url" in block)
        (home / "config.toml").write_text(
            text.replace("/etc/tailchat-gate", str(home)).replace("tc_...", "tc_1")
        )
        return home / "config.toml"

    config = await asyncio.to_thread(write)
    async with _started(home, "-c", str(config), environ={}) as (port, told):
        assert (await ask(port, request_bytes("/ping"))).status == 200

    if not os.access(SYSTEM, os.W_OK):
        made = home / ".local/state/tailchat-gate"
        assert told["state"] == str(made / "state.sqlite")
        assert stat.S_IMODE((await asyncio.to_thread(made.stat)).st_mode) == 0o700


@pytest.mark.skipif(Path("/etc/tailchat-gate/config.toml").exists(), reason="a gate is set up here")
async def test_a_start_from_the_environment_alone(home: Path) -> None:
    """A container needs no file: every setting can be a variable."""
    async with _started(home, environ={**SETTINGS, "STATE__PATH": ""}) as (port, told):
        assert (await ask(port, request_bytes("/x"))).status == 204

    assert told["state"] == ""


@pytest.mark.skipif(Path("/etc/tailchat-gate/config.toml").exists(), reason="a gate is set up here")
@pytest.mark.parametrize("command", [("serve",), ("check",), ("lock", "all")])
def test_problems_of_the_environment_stand_under_its_name(command: tuple[str, ...]) -> None:
    """Where no file is used none is named: the variables are what there is to mend."""
    wrong = {"TAILCHAT_GATE_SERVER__PREFIX": "x", "TAILCHAT_GATE_STATE__PATH": "relative"}
    done = subprocess.run(
        [*GATE, *command], env={**environ(), **wrong}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert re.match("environment: [0-9]+ problems in the configuration", done.stderr)
    assert "/etc/tailchat-gate" not in done.stdout + done.stderr


async def test_a_file_that_is_named_has_to_be_there(home: Path) -> None:
    """The environment stands in for the usual file, not for one that was misspelt."""
    with pytest.raises(AssertionError, match="`tailchat-gate init` writes a first one"):
        async with _started(home, "-c", str(home / "gate.toml"), environ=SETTINGS):
            pass


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/home/a"}, "/var/lib/a"),
        ({"STATE_DIRECTORY": "a", "HOME": "/home/a"}, "/home/a/.local/state/tailchat-gate"),
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/a"}, "/state/tailchat-gate"),
        ({"XDG_STATE_HOME": "state", "HOME": "/a"}, "/a/.local/state/tailchat-gate"),
        ({"HOME": "relative"}, "/var/lib/tailchat-gate"),
        ({}, "/var/lib/tailchat-gate"),
    ],
)
def test_where_state_is_kept(
    monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], expected: str
) -> None:
    """Systemd's directory comes first, the user's own where the machine has none for the gate."""
    monkeypatch.setattr("tailchat_gate.config.state_directory.SYSTEM", Path("/nowhere/at/all"))

    assert (
        str(state_directory(environ)).replace("/nowhere/at/all", "/var/lib/tailchat-gate")
        == expected
    )


def test_the_directory_of_the_machine_comes_before_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A directory that was prepared for the gate is used, and a file of that name is not."""
    monkeypatch.setattr("tailchat_gate.config.state_directory.SYSTEM", tmp_path)
    assert state_directory({"HOME": "/home/a"}) == tmp_path

    monkeypatch.setattr("tailchat_gate.config.state_directory.SYSTEM", tmp_path / "file")
    (tmp_path / "file").write_text("")
    assert state_directory({"HOME": "/home/a"}) == Path("/home/a/.local/state/tailchat-gate")


def test_only_the_users_own_directory_is_made(tmp_path: Path) -> None:
    """A path that an admin misspelt does not become a directory."""
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    make_for(str(tmp_path / "other"), environ)
    assert list(tmp_path.iterdir()) == []

    make_for(str(state_directory({**environ, "STATE_DIRECTORY": ""})), environ)
    if not os.access(SYSTEM, os.W_OK):
        made = (tmp_path / "state", tmp_path / "state/tailchat-gate")
        assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700, 0o700]


async def test_a_lock_is_never_written_where_the_running_gate_does_not_look(home: Path) -> None:
    """The gate runs as another user, who has another directory: the command says which."""

    def write() -> Path:
        (home / "gate.toml").write_text(f'state.path = "{home}"\n')
        return home / "gate.toml"

    config = await asyncio.to_thread(write)
    admin = free_port()
    named = {**SETTINGS, "SERVER__ADMIN_LISTEN": f"127.0.0.1:{admin}"}
    async with _started(home, "-c", str(config), environ=named):
        await asyncio.to_thread(config.write_text, "")
        other = {f"TAILCHAT_GATE_{name}": value for name, value in named.items()}
        process = await asyncio.create_subprocess_exec(
            *GATE,
            *("lock", "sub:66000000000000000000000a", "-c", str(config)),
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**environ(), **other, "XDG_STATE_HOME": str(home / "other")},
        )
        _, said = await process.communicate()

    assert process.returncode == 1
    assert f"the running gate keeps its state in {home}, not in " in said.decode()
    assert "give the directory by --state" in said.decode()
    assert not (home / "other").exists()
