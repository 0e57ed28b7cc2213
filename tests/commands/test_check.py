"""`check` knows what stops a start: each obstacle is made, told, and met by `serve`."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from clikit import invoke, run
from gatekit import SECRET
from process import free_port

from tailchat_gate.config.state_directory import writable_by_all
from tailchat_gate.state.sqlite.files import NAME

ANYBODY = 65534


def _config(folder: Path, *, state: Path, more: str = "", listen: str = "") -> Path:
    """Write a configuration with its files below a folder."""
    path = folder / "config.toml"
    path.write_text(
        f"""
        [server]
        public_url = "http://127.0.0.1:4180"
        listen = ["127.0.0.1:{free_port()}"{listen and f', "{listen}"'}]
        admin_listen = ""
        [tailchat]
        api_url = "http://127.0.0.1:9"
        client_id = "tc_x"
        client_secret = "s3cr3t"
        [session]
        secret = "{SECRET}"
        [state]
        path = "{state}"
        [[route]]
        name = "tool"
        upstream = "static:204"
        {more}
        """,
        encoding="utf-8",
    )
    path.chmod(0o600)
    return path


def _open_directory(folder: Path) -> None:
    folder.chmod(0o777)


def _open_file(folder: Path) -> None:
    (folder / NAME).touch()
    (folder / NAME).chmod(0o666)


def _link(folder: Path) -> None:
    (folder / NAME).symlink_to(folder / "elsewhere")


def _directory(folder: Path) -> None:
    (folder / NAME).mkdir()


def _file_above(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


@pytest.mark.parametrize(
    ("make", "told", "started"),
    [
        (_open_directory, "can write to {}; run `chmod o-w {}`", "`chmod o-w {}`"),
        (
            _open_file,
            "can write to {}/state.sqlite; run `chmod o-w {}/state.sqlite`",
            "`chmod o-w {}/state.sqlite`",
        ),
        (_link, "{}/state.sqlite is a symbolic link", "a symbolic link"),
        (_directory, "{}/state.sqlite is a directory", "Is a directory"),
        (_file_above, "{} is not a directory", "Not a directory"),
    ],
)
async def test_check_tells_what_stops_the_start(
    tmp_path: Path, make: Callable[[Path], None], told: str, started: str
) -> None:
    """What is there and wrong ends `check` with 1 and its remedy, and changes nothing."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    path = _config(tmp_path, state=folder)
    assert (await asyncio.to_thread(invoke, "check", "--config", str(path)))[0] == 0
    assert list(folder.iterdir()) == []
    make(folder)
    code, out, err = await asyncio.to_thread(invoke, "check", "--config", str(path))
    ended, _, said = await run("serve", "--config", str(path))

    assert (code, ended) == (1, 1)
    assert f"warning: state.path: {'every user of this machine ' if 'can' in told else ''}" in err
    assert told.replace("{}", str(folder)) in err
    assert "valid by itself, 1 route" in out
    assert started.replace("{}", str(folder)) in said
    assert ("the directory must exist" in said) != ("chmod" in started)


async def test_check_tells_of_sockets_and_logs_that_cannot_be(tmp_path: Path) -> None:
    """All obstacles at once: a file in a socket's place, a directory in a log's, a group."""
    (tmp_path / "audit").mkdir()
    (tmp_path / "gate.sock").touch()
    path = _config(
        tmp_path,
        state=tmp_path,
        listen=f"unix:{tmp_path}/gate.sock",
        more=f"""
        [log]
        audit_file = "{tmp_path}/audit"
        """,
    )
    text = path.read_text().replace('admin_listen = ""', 'unix_group = "no-such-group"')
    path.write_text(
        text.replace("[tailchat]", f'admin_listen = "unix:{tmp_path}/no/s"\n[tailchat]')
    )
    code, _, err = await asyncio.to_thread(invoke, "check", "--config", str(path))

    assert code == 1
    assert re.findall(r"warning: ([a-z_.]+): ", err) == [
        *("log.audit_file", "server.listen", "server.admin_listen", "server.unix_group"),
    ]
    assert f"{tmp_path}/gate.sock exists and is not a socket" in err


def test_no_advice_closes_a_directory_of_everybody() -> None:
    """One that is sticky, as that for temporary files, is to stay as it is."""
    told = writable_by_all(Path("/tmp"), 0o41777)  # noqa: S108 - it is what is asked about

    assert "chmod" not in told
    assert "choose a directory that is the gate's alone" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a home away")
async def test_a_home_that_sudo_kept_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State below the home of another user is found by no gate of that user's, so it is said."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    kept = tmp_path / ".local" / "state" / "tailchat-gate"
    path = _config(tmp_path, state=kept)
    assert (
        "home of another user"
        not in (await asyncio.to_thread(invoke, "check", "--config", str(path)))[2]
    )
    os.chown(tmp_path, ANYBODY, ANYBODY)

    for command in (("check",), ("lock", "all")):
        code, _, err = await asyncio.to_thread(invoke, *command, "--config", str(path))
        assert code == 0, err
        assert f"warning: state.path: {kept} is in {tmp_path}, the home of another user" in err
