"""A real process reloads its configuration: by the command, a signal, a changed file."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from clikit import GATE, environ, run
from gatekit import listening, make_settings, running_gate
from process import free_port
from reloadkit import FileGate, file_gate, file_text, sections

from tailchat_gate.cli import main
from tailchat_gate.config.load import admin_address
from tailchat_gate.config.values.address import TcpAddress, UnixAddress

TOOL = "http://127.0.0.1:9"
WARNING = (
    "server.public_url: it is http, so cookies are sent without Secure and can be read on the way"
)
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
#: For the command in this process: no variable of the gate's.
NO_VARIABLES = {name: None for name in os.environ if name.startswith("TAILCHAT_GATE_")}


async def _write(path: Path, **given: Any) -> None:  # noqa: ANN401 - as in reloadkit.sections
    def write() -> None:
        path.write_text(file_text(sections(TOOL, **given)), "utf-8")
        path.chmod(0o600)

    await asyncio.to_thread(write)


@asynccontextmanager
async def _serving(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Serve a file in a process until the block ends, and see it end well."""
    process = await asyncio.create_subprocess_exec(
        *GATE, "serve", "-c", str(path), stderr=asyncio.subprocess.PIPE, env=environ()
    )
    assert process.stderr is not None
    try:
        await process.stderr.readuntil(b'"the gate is open"')
        yield process
        process.send_signal(signal.SIGTERM)
        rest = await process.stderr.read()
        assert b"Traceback" not in rest
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _told(process: asyncio.subprocess.Process, text: str) -> str:
    """Return the log up to a text."""
    assert process.stderr is not None
    return (await process.stderr.readuntil(text.encode())).decode()


def _admin(gate: FileGate) -> str:
    host, port = gate.gate.admin_address
    return f"{host}:{port}"


async def _reload(path: Path, *arguments: str) -> tuple[int, str, str]:
    return await _command("reload", path, *arguments)


async def _command(name: str, path: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a thread of this process, which a gate may be in as well."""
    arguments = (name, "-c", str(path), *arguments)
    found = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=dict(NO_VARIABLES))
    assert found.exception is None or isinstance(found.exception, SystemExit)
    return found.exit_code, found.stdout, found.stderr


async def test_the_command_prints_what_changed(tmp_path: Path) -> None:
    """It ends with 0 once the file is in force, tells what differs, and warns as check does."""
    server = {"admin_listen": f"127.0.0.1:{free_port()}", "watch": False}
    async with file_gate(tmp_path, TOOL, server=server) as gate:
        await gate.write(server=server, groups={"ops": ["a" * 24]}, log={"access": False})
        code, out, err = await _reload(gate.path)
        assert code == 0
        assert out == (f"{gate.path}: in force, generation 2\n  groups.ops\n  log.access\n")
        assert "warning: groups.ops: no route allows or denies it" in err
        code, out, _ = await _reload(gate.path)

    since = "the gate already serves with this, since 20[0-9-]+T[0-9:]+Z"
    assert code == 0
    assert re.fullmatch(f"{gate.path}: in force, generation 3\n  {since}\n", out)


async def test_a_save_that_was_taken_already_is_no_lost_change(tmp_path: Path) -> None:
    """After the gate has loaded a changed file by itself, the command tells since when."""
    path = tmp_path / "gate.toml"
    server = {"admin_listen": f"127.0.0.1:{free_port()}", "watch": True}
    await _write(path, server=server)
    async with _serving(path) as process:
        await _write(path, server={**server, "via": "other"})
        log = await _told(process, '"changes": ["server.via"]')
        code, out, _ = await _reload(path)

    assert '"cause": "a changed file"' in log
    assert code == 0
    assert "the gate already serves with this, since 20" in out


async def test_the_whole_path_of_the_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that was started with a relative path tells the whole one."""
    server = {"admin_listen": f"127.0.0.1:{free_port()}", "listen": f"127.0.0.1:{free_port()}"}
    await _write(tmp_path / "gate.toml", server=server)
    monkeypatch.chdir(tmp_path)
    async with _serving(Path("gate.toml")):
        _, out, _ = await _reload(Path("gate.toml"))

    assert out.startswith(f"{tmp_path / 'gate.toml'}: in force")


async def test_the_command_prints_every_problem_as_check_does(tmp_path: Path) -> None:
    """It ends with 2 and the same text as check, and a word that nothing has changed."""
    async with file_gate(tmp_path, TOOL) as gate:
        await gate.write(server={"admin_listen": _admin(gate), "prefix": "x", "typo": 1})
        code, out, err = await _reload(gate.path)
        _, _, checked = await run("check", "-c", str(gate.path))

    assert (code, out) == (2, "")
    assert err == f"{checked}\nnothing has changed\n"
    assert "server.prefix" in checked
    assert "server.typo" in checked


async def test_a_file_that_does_not_tell_where_the_gate_is(tmp_path: Path) -> None:
    """What is no TOML is told by the command itself, and by the gate where --admin names it."""
    async with file_gate(tmp_path, TOOL) as gate:
        admin = _admin(gate)
        await gate.write_text("server = {")
        alone = await _reload(gate.path)
        asked = await _reload(gate.path, "--admin", admin)

    assert (alone[0], asked[0]) == (2, 2)
    assert "expected: TOML" in alone[2]
    assert asked[2] == f"{alone[2]}\nnothing has changed\n"


async def test_where_no_gate_is_the_command_ends_with_1(tmp_path: Path) -> None:
    """It names the address that was asked, and how to name another."""
    async with file_gate(tmp_path, TOOL) as gate:
        await gate.write(server={"admin_listen": "127.0.0.1:1"})
        code, out, err = await _reload(gate.path)

    assert (code, out) == (1, "")
    assert err.startswith("no gate answers at 127.0.0.1:1: ")
    assert "--admin" in err


async def test_a_gate_without_a_file_says_so(tmp_path: Path) -> None:
    """A gate that was not started from a file cannot load one; the command ends with 1."""
    settings = make_settings(server={"admin_listen": "127.0.0.1:0"})
    async with running_gate(settings, tmp_path / "access.log") as gate:
        host, port = gate.admin_address
        code, _, err = await _reload(tmp_path / "none", "--admin", f"{host}:{port}")

    assert code == 1
    assert "this gate has no configuration file" in err


async def test_the_command_over_a_unix_socket(tmp_path: Path) -> None:
    """The admin listener may be a socket in the file system."""
    server = {"admin_listen": f"unix:{tmp_path / 'admin.sock'}"}
    async with file_gate(tmp_path, TOOL, server=server) as gate:
        code, out, _ = await _reload(gate.path)

    assert (code, out.splitlines()[0]) == (0, f"{gate.path}: in force, generation 2")


async def test_health_and_refusals_do_not_depend_on_the_file(tmp_path: Path) -> None:
    """A gate that goes on after its file went wrong is well; a failed check would restart it."""
    server = {"admin_listen": f"unix:{tmp_path / 'admin.sock'}"}
    async with file_gate(tmp_path, TOOL, server=server) as gate:
        await gate.write(server={**server, "typo": 1})
        refused = await _reload(gate.path)
        health = await _command("health", gate.path)
        refusals = await _command("refusals", gate.path)

    assert refused[0] == 2
    assert health == (0, "ok\n", "")
    assert refusals == (0, "nobody was refused in the last 30 days\n", "")


@pytest.mark.parametrize("command", ["health", "refusals"])
async def test_where_no_gate_is_nothing_is_well(tmp_path: Path, command: str) -> None:
    """Without a gate the commands end with 1 and name the address; without an address, with 2."""
    path = tmp_path / "gate.toml"
    await _write(path, server={"admin_listen": "127.0.0.1:1"})
    nobody = await _command(command, path)
    await _write(path, server={"admin_listen": ""})
    nowhere = await _command(command, path)

    assert (nobody[0], nobody[1]) == (1, "")
    assert nobody[2].startswith("no gate answers at 127.0.0.1:1: ")
    assert nowhere[0] == 2
    assert "server.admin_listen" in nowhere[2]


@pytest.mark.parametrize(
    ("arguments", "admin", "said"),
    [
        ((), "", "send the gate SIGHUP"),
        (("--admin", "nonsense"), "127.0.0.1:1", "--admin: expected"),
        ((), "nonsense", "server.admin_listen: expected"),
    ],
)
async def test_a_gate_that_cannot_be_asked_is_a_usage_error(
    tmp_path: Path, arguments: tuple[str, ...], admin: str, said: str
) -> None:
    """Without an address, or with one that is none, the command ends with 2 and says so."""
    path = tmp_path / "gate.toml"
    await _write(path, server={"admin_listen": admin})
    code, _, err = await _reload(path, *arguments)

    assert code == 2
    assert said in err


@pytest.mark.parametrize("command", ["reload", "upgrade"])
@pytest.mark.parametrize("answer", [_OK + b"ok", _OK + b"[]", b"x"])
async def test_another_server_is_no_gate(tmp_path: Path, command: str, answer: bytes) -> None:
    """An answer that is not a gate's ends with 1."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    path = tmp_path / "gate.toml"
    async with listening(serve) as port:
        await _write(path, server={"admin_listen": f"127.0.0.1:{port}"})
        code, _, err = await _command(command, path)

    assert code == 1
    assert "no gate answers" in err


async def test_the_command_and_the_process(tmp_path: Path) -> None:
    """The command as a program has the gate as another one load its file."""
    path = tmp_path / "gate.toml"
    server = {"admin_listen": f"127.0.0.1:{free_port()}"}
    await _write(path, server=server)
    async with _serving(path) as process:
        await _write(path, server={**server, "via": "other"})
        assert await run("reload", "-c", str(path)) == (
            0,
            f"{path}: in force, generation 2\n  server.via\n",
            f"warning: {WARNING}\n",
        )
        assert '"cause": "an order' in await _told(process, '"changes": ["server.via"]')


async def test_a_signal_loads_the_file(tmp_path: Path) -> None:
    """SIGHUP loads a good file, says what is wrong with a bad one, and never ends the process."""
    path = tmp_path / "gate.toml"
    await _write(path)
    async with _serving(path) as process:
        await _write(path, server={"via": "other"})
        process.send_signal(signal.SIGHUP)
        line = await _told(process, '"changes": ["server.via"]')
        assert '"cause": "SIGHUP"' in line
        await asyncio.to_thread(path.write_text, "x", "utf-8")
        process.send_signal(signal.SIGHUP)
        assert "gate.toml:1:2: found " in await _told(process, "expected key = value")
        await _write(path, server={"via": "third"})
        process.send_signal(signal.SIGHUP)
        await _told(process, '"generation": 3')


async def test_a_changed_file_is_loaded_by_itself(tmp_path: Path) -> None:
    """With the default the process sees a change within seconds; the environment stays."""
    path = tmp_path / "gate.toml"
    await _write(path, server={"watch": True})
    async with _serving(path) as process:
        await _write(path, server={"watch": True, "via": "other"})
        line = await _told(process, '"changes": ["server.via"]')

        assert '"cause": "a changed file"' in line


# Where the gate is asked


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ('[server]\nadmin_listen = "127.0.0.1:9"\nnonsense = 1', {}, TcpAddress("127.0.0.1", 9)),
        ('server.admin_listen = "unix:/run/a"', {}, UnixAddress("/run/a")),
        ('server.admin_listen = ""', {}, None),
        ("", {}, TcpAddress("127.0.0.1", 4181)),
        ("server = 1", {}, TcpAddress("127.0.0.1", 4181)),
        ("server.admin_listen = 1", {}, TcpAddress("127.0.0.1", 4181)),
        ("not TOML", {}, TcpAddress("127.0.0.1", 4181)),
        (
            'server.admin_listen = "127.0.0.1:9"',
            {"TAILCHAT_GATE_SERVER__ADMIN_LISTEN": "127.0.0.1:8"},
            TcpAddress("127.0.0.1", 8),
        ),
    ],
)
def test_the_address_is_found_in_a_file_that_is_wrong(
    tmp_path: Path, text: str, environ: dict[str, str], expected: object
) -> None:
    """Only the address itself has to be right; the environment goes over the file."""
    path = tmp_path / "gate.toml"
    path.write_text(text)

    assert admin_address(path, environ) == expected
    path.unlink()
    assert admin_address(path, {}) == TcpAddress("127.0.0.1", 4181)
