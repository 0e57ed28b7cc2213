"""The command line, as a program."""

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from clikit import GATE, environ, invoke, run
from gatekit import SECRET, listening
from process import free_port
from visitor import Visitor

from tailchat_gate import __version__
from tailchat_gate.config.files import read_key
from tailchat_gate.config.load import load
from tailchat_gate.identity.machine_tokens import hash_of

COMMANDS = (
    *("serve", "reload", "check", "explain", "routes", "secret", "token", "key", "schema"),
    *("health", "refusals", "demo"),
)


def _config(tmp_path: Path, *, port: int = 4180, admin: str = "", upstream: str = "") -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
        server = {{ public_url = "http://127.0.0.1:{port}", listen = "127.0.0.1:{port}",
                   admin_listen = "{admin}" }}
        tailchat = {{ api_url = "http://127.0.0.1:9", client_id = "tc_x",
                     client_secret = "s3cr3t" }}
        session = {{ secret = "{SECRET}" }}
        state = {{ path = "{tmp_path}" }}
        route = [{{ name = "tool", upstream = "{upstream or "http://127.0.0.1:9"}" }}]
        """.replace(",\n", ",")
    )
    path.chmod(0o600)
    return path


async def test_version_and_help() -> None:
    """--version tells the version, --help every command."""
    assert await run("--version") == (0, f"tailchat-gate, version {__version__}\n", "")
    code, out, _ = await asyncio.to_thread(invoke, "--help")
    assert code == 0
    for command in COMMANDS:
        assert f"  {command} " in out


def test_every_command_has_help() -> None:
    """Each command tells what it does and takes."""
    for command in COMMANDS:
        code, text, _ = invoke(command, "--help")
        assert code == 0
        assert len(text) > 100


@pytest.mark.parametrize("command", ["check", "health"])
def test_what_serves_is_loaded_by_serve_alone(command: str) -> None:
    """What a health check or a script runs again and again starts quickly."""
    loaded = _loaded([command, "--help"])
    assert "tailchat_gate.config.load" in loaded
    assert not loaded & {"aiohttp", "prometheus_client", "jinja2", "tailchat_gate.gate"}


def _loaded(arguments: list[str], **variables: str) -> set[str]:
    """Return the modules that a command imports."""
    code = f"from tailchat_gate.cli import main; main({arguments}, prog_name='tailchat-gate')"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **variables},
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_a_shell_that_starts_loads_little() -> None:
    """Neither `completion` nor a command's name that is completed imports any configuration."""
    line = {"_TAILCHAT_GATE_COMPLETE": "bash_complete", "COMP_LINE": "tailchat-gate gra"}
    for loaded in (_loaded(["completion", "bash"]), _loaded([], **line)):
        assert "tailchat_gate.cli" in loaded
        assert not {
            name for name in loaded if name.startswith(("pydantic", "tailchat_gate.config"))
        }


def test_secret_prints_a_new_one_each_time() -> None:
    """Two secrets differ and are long enough to be accepted."""
    first, second = invoke("secret")[1].strip(), invoke("secret")[1].strip()

    assert first != second
    assert len(first) >= 43


def test_token_prints_what_each_side_needs(tmp_path: Path) -> None:
    """Standard output is a table that loads and has no secret, standard error has the token."""
    code, out, err = invoke("token", "backup-1")
    assert code == 0
    made = err.splitlines()[-1]
    assert re.fullmatch("tg_[A-Za-z0-9_-]{43}", made)
    assert err.count(made) == 1
    assert made not in out
    assert invoke("token", "backup-1")[2].splitlines()[-1] != made

    path = _config(tmp_path)
    text = path.read_text()
    allowing = text.replace('upstream = "', 'allow = ["token:backup-1"], upstream = "')
    path.write_text(textwrap.dedent(allowing) + out)
    (token,) = load(path, {}).settings.token
    assert (token.name, token.hash) == ("backup-1", hash_of(made))


@pytest.mark.parametrize("name", ["", "a b", "-a", "ü", 'a"', "a\n[x]", "x" * 65])
def test_token_refuses_a_name_that_is_none(name: str) -> None:
    """A name that the configuration would refuse gets no token."""
    code, out, err = invoke("token", "--", name)

    assert (code, out) == (2, "")
    assert err.startswith("NAME: 1 to 64 letters")


def test_key_prints_a_key_that_loads(tmp_path: Path) -> None:
    """Each run makes another P-256 key, as a file of assertion.key_files has it."""
    found = []
    for name in "ab":
        code, out, err = invoke("key")
        assert (code, err) == (0, "")
        (tmp_path / name).write_text(out)
        found.append(read_key(str(tmp_path / name)))

    first, second = (key.private_numbers().private_value for key in found)
    assert first != second


def test_a_file_without_its_option_is_told_of_it() -> None:
    """Other servers take the file to check as an argument."""
    code, _, err = invoke("check", "gate.toml")

    assert code == 2
    assert err.endswith("Got unexpected extra argument (gate.toml); --config names it\n")


@pytest.mark.parametrize(("typed", "near"), [("serv", "serve"), ("explian", "explain")])
def test_a_command_that_is_mistyped_has_a_neighbour(typed: str, near: str) -> None:
    """Nobody has to read the list for one letter."""
    code, _, err = invoke(typed)

    assert code == 2
    assert err.endswith(f"Error: No such command '{typed}'. Did you mean {near}?\n")


async def test_check_says_good_and_what_to_register(tmp_path: Path) -> None:
    """A good file ends with 0 and prints the exact redirect_uri; a tool beside the gate is told."""
    code, out, err = await asyncio.to_thread(invoke, "check", "--config", str(_config(tmp_path)))

    assert code == 0
    assert re.findall("^[a-z]+: .*", err, re.MULTILINE) == [err.partition("\n")[0]]
    assert re.match("note: server.public_url: tool can be reached at 127.0.0.1, ", err)
    assert "good, 1 route" in out
    assert "callback address to enter in Tailchat: http://127.0.0.1:4180/oauth2/callback" in out


async def test_check_tells_of_directories_that_a_start_would_miss(tmp_path: Path) -> None:
    """The file may be for another machine, so a directory that is not here is a warning."""
    path, gone = _config(tmp_path), tmp_path / "gone"
    text = path.read_text().replace(f'path = "{tmp_path}"', f'path = "{gone}"')
    path.write_text(f'{text}\nlog.audit_file = "{gone}/audit"\n')
    code, _, err = await asyncio.to_thread(invoke, "check", "--config", str(path))
    started, _, told = await run("serve", "--config", str(path))

    assert code == 0
    for key in ("state.path", "log.audit_file"):
        assert f"warning: {key}: this machine has no directory {gone}; " in err
    assert started == 1
    assert told == f"log.audit_file cannot be opened: {gone}/audit: No such file or directory\n"


def test_check_tells_every_problem_and_no_secret(tmp_path: Path) -> None:
    """A bad file ends with 2, all problems at once, and not a word of the secrets."""
    path = _config(tmp_path, upstream="tool:3000")
    path.write_text(path.read_text().replace("admin_listen", "admin_lisen") + "\n[typo]\nx = 1\n")

    code, out, err = invoke("check", "--config", str(path))

    assert (code, out) == (2, "")
    for text in ("server.admin_lisen", "route[0].upstream", "typo", "tool:3000"):
        assert text in err
    for secret in (SECRET, "s3cr3t", "Traceback"):
        assert secret not in err


async def test_a_missing_file_is_said_plainly(tmp_path: Path) -> None:
    """A path that does not exist ends with 2 and names it."""
    code, _, err = await run("serve", "--config", str(tmp_path / "none.toml"))

    assert code == 2
    assert "none.toml" in err
    assert "Traceback" not in err


async def test_an_address_in_use_ends_with_1(tmp_path: Path) -> None:
    """A port that is taken ends the start with 1 and one line."""
    async with listening(lambda *_: None) as port:
        code, _, err = await run("serve", "--config", str(_config(tmp_path, port=port)))

    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in err
    assert "Traceback" not in err


async def test_serve_and_health(tmp_path: Path) -> None:
    """A gate answers, is found healthy, and ends with 0 on SIGTERM; no health without a gate."""
    port, admin = free_port(), free_port()
    config = str(_config(tmp_path, port=port, admin=f"127.0.0.1:{admin}"))
    assert (await asyncio.to_thread(invoke, "health", "--config", config))[0] == 1
    process = await asyncio.create_subprocess_exec(
        *GATE, "serve", "--config", config, stderr=asyncio.subprocess.PIPE, env=environ()
    )
    assert process.stderr is not None
    err = await process.stderr.readuntil(b'"the gate is open"')

    assert (await asyncio.to_thread(invoke, "health", "--config", config))[:2] == (0, "ok\n")
    async with Visitor() as visitor:
        page = await visitor.open(f"http://127.0.0.1:{port}/ping")
        assert page.text == "OK\n"
    process.send_signal(signal.SIGTERM)
    err += await process.stderr.read()
    assert await process.wait() == 0
    assert b"/oauth2/callback" in err
    assert b"Traceback" not in err


def test_health_needs_an_admin_listener(tmp_path: Path) -> None:
    """Without admin_listen there is nobody to ask, which is a usage error."""
    assert (invoke("health", "--config", str(_config(tmp_path))))[0] == 2


@pytest.mark.parametrize("command", ["health", "refusals", "reload", "doctor"])
async def test_another_program_at_the_admin_address_is_no_gate(
    tmp_path: Path, command: str
) -> None:
    """Whatever answers every path with a page is not taken for a gate, and ends no traceback."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    async with listening(answer) as port:
        path = str(_config(tmp_path, admin=f"127.0.0.1:{port}"))
        code, out, err = await asyncio.to_thread(invoke, command, "--config", path)
    assert code != 0
    assert "no gate answers at" in out + err
    assert "another program does" in out + err


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (
            True,
            "Connection refused; the socket is left over from a gate that has ended; start",
        ),
        (False, "No such file or directory; start the gate"),
    ],
    ids=["stale", "none"],
)
@pytest.mark.parametrize("command", ["health", "refusals", "reload", "upgrade"])
def test_a_gate_that_does_not_run_is_said_with_the_next_step(
    tmp_path: Path, command: str, left: bool, said: str
) -> None:
    """A socket that a gate has left is told from none; both say how to name another gate."""
    where = tmp_path / "admin.sock"
    if left:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(where))
    path = str(_config(tmp_path, admin=f"unix:{where}"))
    code, _, err = invoke(command, "--config", path)

    assert code == 1
    assert err.startswith(f"no gate answers at unix:{where}: {said}")
    assert ("--config" if command in {"health", "refusals"} else "--admin") in err


def test_a_store_that_is_not_there_is_said_with_the_next_step(tmp_path: Path) -> None:
    """It is on the machine of the gate."""
    path = _config(tmp_path)
    path.write_text(path.read_text().replace(f'path = "{tmp_path}"', 'path = "/nowhere/state"'))
    code, _, err = invoke("sign-out", "all", "--config", str(path))

    assert code == 1
    assert "/nowhere/state: No such file or directory; run this where the gate runs" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("exec {} schema >/dev/full", "Error: input or output: No space left on device"),
        ("mkdir gone && cd gone && rmdir ../gone && exec {} check -c a", "change to another one"),
        ("exec {} schema | true", ""),
    ],
    ids=["full disk", "no directory", "nobody reads"],
)
def test_what_the_system_refuses_is_no_traceback(tmp_path: Path, line: str, said: str) -> None:
    """An output that cannot be written, and a directory that is gone, are said in a line."""
    line = line.format(shlex.join(GATE))
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert said in done.stderr
    assert len(done.stderr.splitlines()) == bool(said)


def test_schema_prints_the_schema() -> None:
    """The printed schema is the one in docs/."""
    document = Path(__file__).parents[2] / "docs/config.schema.json"
    text = document.read_text("utf-8")

    assert invoke("schema")[1] == text


@pytest.mark.parametrize("arguments", [("nonsense",), ("serve", "--nonsense")])
async def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    """An unknown command or option ends with 2."""
    assert (await asyncio.to_thread(invoke, *arguments))[0] == 2
