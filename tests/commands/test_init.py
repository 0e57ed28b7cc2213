"""`init`: what it writes is what `check` accepts, and nothing is written over."""

import asyncio
import os
import pwd
import select
import stat
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from clikit import GATE, environ, invoke
from compose_spec import PyCompose

from tailchat_gate.cli import main
from tailchat_gate.config.load import load

ROOT = Path(__file__).parents[2]
ANSWERS = ("--tailchat", "https://chat.example.com", "--public-url", "https://gate.example.com")
TOOL = ("--tool", "http://127.0.0.1:3000")
#: The addresses that are asked for, and no host of the tool.
TYPED = ("https://chat.example.com", "https://gate.example.com", "http://127.0.0.1:3000", "")
#: Seconds for a question to appear; only a fault takes so long.
TIMEOUT = 30


def _init(folder: Path, *arguments: str, typed: Sequence[str] = ()) -> Result:
    """Run `init` for a folder, with lines that are typed."""
    unset = dict.fromkeys(os.environ.keys() - environ().keys())
    text = "".join(f"{line}\n" for line in typed)
    return CliRunner().invoke(
        main, ["init", "--directory", str(folder), *arguments], input=text, env=unset
    )


def _on_terminal(folder: Path, typed: Iterable[str]) -> tuple[int, str]:
    """Run `init` on a terminal of its own and type at each question; return what it showed."""
    ours, its = os.openpty()
    # A shell that starts the tests in the background has them ignore the signal.
    command = ("env", "--default-signal=INT", "setsid", "--ctty", *GATE, "init")
    with subprocess.Popen(
        [*command, "--directory", str(folder)], stdin=its, stdout=its, stderr=its, env=environ()
    ) as process:
        os.close(its)
        shown, lines = b"", iter(typed)
        try:
            with suppress(OSError):  # the end of the terminal
                while select.select([ours], [], [], TIMEOUT)[0]:
                    shown += os.read(ours, 4096)
                    if shown.endswith(b": "):
                        os.write(ours, next(lines).encode())
            process.wait(TIMEOUT)
        finally:
            process.kill()
            os.close(ours)
    return process.returncode, shown.decode()


def _tree(path: Path) -> dict[str, Any]:
    """Return a file of YAML, whose reader has no types."""
    yaml: Any = __import__("yaml")
    tree: dict[str, Any] = yaml.safe_load(path.read_text())
    return tree


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_three_answers_make_a_configuration(tmp_path: Path) -> None:
    """What is typed is what the gate loads; the callback to register is shown before the id."""
    folder = tmp_path / "etc"
    typed = ("https://chat.example.com/", "https://GATE.example.com", "http://127.0.0.1:3000", "")

    done = _init(folder, typed=(*typed, "tc_1", "s3cr3t-of-the-app"))
    settings = load(folder / "config.toml", {}).settings

    assert done.exit_code == 0, done.output
    assert settings.redirect_uri == "https://gate.example.com/oauth2/callback"
    assert f"\n    {settings.redirect_uri}\n" in done.output.partition("App ID")[0]
    assert settings.tailchat.client_secret.get_secret_value() == "s3cr3t-of-the-app"
    assert "s3cr3t" not in done.output
    assert [route.upstream for route in settings.route] == ["http://127.0.0.1:3000"]


def test_the_name_of_the_directory_is_written_as_toml(tmp_path: Path) -> None:
    """Characters that JSON escapes otherwise than TOML are read back, as are quotes."""
    folder = tmp_path / '\U0001f511 "\u5bc6\u94a5" \\ \x7f'
    done = _init(folder, *ANSWERS, *TOOL, "--client-id", "tc_1")
    (folder / "client_secret").write_text("s3cr3t-of-the-app")

    assert done.exit_code == 0, done.output
    assert folder / "session_secret" in load(folder / "config.toml", {}).files


def test_only_the_owner_reads_what_it_writes(tmp_path: Path) -> None:
    """The directory and each file in it are the owner's alone."""
    folder = tmp_path / "etc"
    _init(folder, *ANSWERS, *TOOL)

    assert _mode(folder) == 0o700
    assert {path.name: _mode(path) for path in folder.iterdir()} == dict.fromkeys(
        ("client_secret", "config.toml", "session_secret"), 0o600
    )


def test_options_need_no_questions(tmp_path: Path) -> None:
    """With all options it asks nothing; `check` then names what is to be filled in."""
    code, out, err = invoke("init", "--directory", str(tmp_path), *ANSWERS, *TOOL)
    refused = invoke("check", "--config", str(tmp_path / "config.toml"))
    config = (tmp_path / "config.toml").read_text()
    filled_in = config.replace('#client_id = "tc_..."', 'client_id = "tc_1"')
    (tmp_path / "config.toml").write_text(filled_in)
    (tmp_path / "client_secret").write_text("s3cr3t\n")
    accepted = invoke("check", "--config", str(tmp_path / "config.toml"))

    assert (code, err) == (0, "")
    assert f"1. Write the App ID as client_id into {tmp_path}/config.toml." in out
    assert f"2. Write the App Secret into {tmp_path}/client_secret" in out
    assert refused[0] == 2
    assert "tailchat.client_id" in refused[2]
    assert f"{tmp_path}/client_secret: empty" in refused[2]
    assert accepted[0] == 0, accepted[2]


@pytest.mark.parametrize("user", ["root", "no-such-user-here"])
def test_root_gives_the_files_to_a_user_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    """Where the README's user was not made yet, the step makes it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    known = pwd.getpwnam
    monkeypatch.setattr(pwd, "getpwnam", lambda _: known(user))
    told = _init(tmp_path / "my gate", *ANSWERS, *TOOL).output
    (step,) = (line for line in told.splitlines() if "chown" in line)

    given = f"chown -R tailchat-gate '{tmp_path}/my gate'"
    made = "" if user == "root" else "useradd --system tailchat-gate && "
    assert step.endswith(f"gate's user: {made}{given}")


def test_the_secret_comes_from_a_file_or_a_pipe(tmp_path: Path) -> None:
    """With every option the configuration is complete; the secret is never in the command line."""
    given, folder = tmp_path / "given", tmp_path / "etc"
    given.write_text("s3cr3t-of-the-app\n")
    more = (*ANSWERS, *TOOL, "--client-id", "tc_1", "--client-secret-file")
    done = _init(folder, *more, str(given))
    piped = subprocess.run(
        [*GATE, "init", "--directory", str(tmp_path / "piped"), *more, "/dev/stdin"],
        input=b"s3cr3t-of-the-app\n",
        capture_output=True,
        env=environ(),
        check=True,
    )

    assert (done.exit_code, "s3cr3t" in done.output + piped.stdout.decode()) == (0, False)
    for where in (folder, tmp_path / "piped"):
        tailchat = load(where / "config.toml", {}).settings.tailchat
        assert tailchat.client_secret.get_secret_value() == "s3cr3t-of-the-app"
    assert "App Secret into" not in done.output
    asked = _init(tmp_path / "asked", "--client-secret-file", str(given), typed=(*TYPED, "tc_1"))
    assert (asked.exit_code, "Client secret" in asked.output) == (0, False)


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"two words", b"x" * 70_000])
def test_a_secret_that_cannot_be_one_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """The file is named, nothing of it is shown, and nothing is written."""
    given = tmp_path / "given"
    if content is not None:
        given.write_bytes(content)
    done = _init(tmp_path / "etc", *ANSWERS, *TOOL, "--client-secret-file", str(given))

    assert (done.exit_code, "--client-secret-file" in done.output) == (2, True)
    assert "two words" not in done.output
    assert not (tmp_path / "etc").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A second start stops before it asks, and every file is as it was."""
    _init(tmp_path, *ANSWERS, *TOOL)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    again = _init(tmp_path)

    assert (again.exit_code, "Address" in again.output) == (2, False)
    assert str(tmp_path / "session_secret") in again.output
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the place of a file, even one to nowhere, stops it."""
    (tmp_path / "client_secret").symlink_to(tmp_path / "elsewhere")

    assert _init(tmp_path, *ANSWERS, *TOOL).exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["client_secret"]


def test_a_terminal_asks_again_and_never_shows_the_secret(tmp_path: Path) -> None:
    """A wrong answer says what is expected; the secret is typed without an echo."""
    typed = ("chat", *TYPED, "tc_1", "s3cr3t-of-the-app")

    code, shown = _on_terminal(tmp_path / "etc", [f"{line}\n" for line in typed])

    assert code == 0, shown
    assert "Error: expected an http or https URL such as" in shown
    assert "s3cr3t" not in shown
    assert (tmp_path / "etc" / "client_secret").read_text() == "s3cr3t-of-the-app"


def test_control_c_at_the_secret_leaves_nothing(tmp_path: Path) -> None:
    """It ends like the end of the input does, at the last question too."""
    typed = [*(f"{line}\n" for line in (*TYPED, "tc_1")), "\x03"]

    code, shown = _on_terminal(tmp_path / "etc", typed)

    assert (code, "nothing was written" in shown, "Traceback" in shown) == (1, True, False)
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("answered", range(6))
def test_at_each_question_the_input_may_end(tmp_path: Path, answered: int) -> None:
    """Nothing is written then, and the options are named that answer without questions."""
    done = _init(tmp_path / "etc", typed=(*TYPED, "tc_1")[:answered])

    assert (done.exit_code, "Address of your Tailchat" in done.output) == (1, True)
    assert "--tailchat, --public-url and --tool" in done.output
    assert not (tmp_path / "etc").exists()


async def test_a_pipe_is_read_without_a_warning(tmp_path: Path) -> None:
    """The secret is its last line, and nothing is said of an echo."""
    typed = "\n".join((*TYPED, "tc_1", "s3cr3t-of-the-app"))
    process = await asyncio.create_subprocess_exec(
        *("setsid", *GATE, "init", "--directory", str(tmp_path / "etc")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ(),
    )
    out, err = await process.communicate(typed.encode())

    assert (process.returncode, err) == (0, b""), out
    assert (tmp_path / "etc" / "client_secret").read_text() == "s3cr3t-of-the-app"


def test_a_wrong_line_of_a_pipe_is_not_read_over(tmp_path: Path) -> None:
    """The next line is the answer to another question, so it ends there."""
    done = _init(tmp_path / "etc", typed=("chat", *TYPED))

    assert done.exit_code == 2
    assert 'expected an http or https URL such as "https://tailchat.example.com"' in done.output
    assert not (tmp_path / "etc").exists()


def test_a_placeholder_is_no_secret(tmp_path: Path) -> None:
    """What `check` would refuse is not taken, and is not repeated."""
    done = _init(tmp_path / "etc", typed=(*TYPED, "tc_1", "<your client secret>"))

    assert done.exit_code == 2
    assert "this one reads like a placeholder" in done.output
    assert not (tmp_path / "etc").exists()


def test_a_tool_with_a_host_of_its_own(tmp_path: Path) -> None:
    """Its route has that host and its name; the host has to lead to the gate, too."""
    done = _init(tmp_path / "etc", *ANSWERS, *TOOL, "--host", "Grafana.example.com")
    text = (tmp_path / "etc" / "config.toml").read_text()

    assert done.exit_code == 0, done.output
    assert 'name = "grafana"\nhost = "grafana.example.com"\n' in text
    assert "Point grafana.example.com at the gate too" in done.output


def test_what_cannot_be_written_is_said_before_the_questions() -> None:
    """A directory in which nobody can make files, not even root, ends it at once."""
    code, out, err = invoke("init", "--directory", "/proc/new")

    assert (code, out) == (1, "")
    assert err.startswith("/proc/new: ")
    assert err.endswith("; --directory names another place\n")


def test_what_was_typed_outlives_a_directory(tmp_path: Path) -> None:
    """If the files cannot be written after the questions, another directory is asked for."""
    first, second = tmp_path / "etc", tmp_path / "second"
    answers = (*TYPED, "tc_1", "s3cr3t-of-the-app")

    def typed() -> Iterable[str]:
        yield from (f"{line}\n" for line in answers[:-1])
        (first / "config.toml").mkdir(parents=True)  # meanwhile
        yield from (f"{answers[-1]}\n", f"{first}\n", f"{second}\n")

    code, shown = _on_terminal(first, typed())

    assert code == 0, shown
    assert "config.toml: File exists; --directory names another place" in shown
    assert (second / "client_secret").read_text() == answers[-1]
    assert [path.name for path in first.iterdir()] == ["config.toml"]


def test_a_wrong_option_writes_nothing(tmp_path: Path) -> None:
    """It ends with the usage's code."""
    done = _init(tmp_path / "etc", *ANSWERS, "--tool", "3000")

    assert done.exit_code == 2
    assert "Invalid value for '--tool': expected " in done.output
    assert not (tmp_path / "etc").exists()


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """Return a directory as `init --docker` leaves it."""
    done = _init(tmp_path, "--docker", *ANSWERS, "--client-id", "tc_1", "--tool", "http://wiki:80")
    assert done.exit_code == 0, done.output
    return tmp_path


def test_the_container_has_every_file_that_the_configuration_names(docker: Path) -> None:
    """compose.yaml mounts them where the configuration looks for them, readable for its user."""
    compose = _tree(docker / "compose.yaml")
    gate = compose["services"]["gate"]
    config = (docker / "config.toml").read_text()

    for name in gate["secrets"]:
        assert f'"/run/secrets/{name}"' in config
        path = docker / compose["secrets"][name]["file"]
        assert (_mode(path), _mode(path.parent)) == (0o644, 0o700)
    assert "./config.toml:/etc/tailchat-gate/config.toml:ro" in gate["volumes"]
    assert _mode(docker / "config.toml") == 0o644


def test_the_steps_for_docker_lead_into_the_directory(tmp_path: Path) -> None:
    """From the network of the tool and a check to the start, each command as it is typed."""
    folder = tmp_path / "my gate"
    told = _init(folder, "--docker", *ANSWERS, "--client-id", "tc_1", "--tool", "http://wiki:80")
    network, _, check, start = told.output.splitlines()[-4:]

    assert f"Add the network of the tool to {folder}/compose.yaml, where its comments" in network
    assert check.endswith(f": cd '{folder}' && docker compose run --rm gate check --online")
    assert start.endswith(f": cd '{folder}' && docker compose up --detach")


@pytest.mark.parametrize("mode", [0o755, 0o710])
def test_secrets_are_not_put_where_others_read(tmp_path: Path, mode: int) -> None:
    """A directory for the container's secrets that others may enter is refused, and stays empty."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets").chmod(mode)

    done = _init(tmp_path, "--docker", *ANSWERS, "--client-id", "tc_1", "--tool", "http://wiki:80")

    assert done.exit_code == 1
    assert f"{tmp_path}/secrets: other users can enter it; set its mode to 0700" in done.output
    assert list((tmp_path / "secrets").iterdir()) == []


def test_secrets_are_not_put_into_a_directory_of_another(tmp_path: Path) -> None:
    """A directory for the container's secrets that belongs to another user is refused."""
    if os.geteuid() != 0:
        pytest.skip("needs the right to give a directory away")
    (tmp_path / "secrets").mkdir(mode=0o700)
    os.chown(tmp_path / "secrets", 65534, 65534)

    done = _init(tmp_path, "--docker", *ANSWERS, "--client-id", "tc_1", "--tool", "http://wiki:80")

    assert done.exit_code == 1
    assert f"{tmp_path}/secrets: belongs to another user" in done.output
    assert list((tmp_path / "secrets").iterdir()) == []


def test_the_container_is_one_for_compose(docker: Path) -> None:
    """The file is valid by the Compose specification."""
    text = (docker / "compose.yaml").read_text(encoding="utf-8")
    PyCompose.from_yaml(text).validate()


def test_the_container_has_no_more_rights_than_ours(docker: Path) -> None:
    """The hardening of the gate's own compose.yaml is in it."""
    ours = _tree(ROOT / "compose.yaml")["services"]["gate"]
    made = _tree(docker / "compose.yaml")["services"]["gate"]

    for key in ("read_only", "cap_drop", "security_opt", "stop_grace_period", "ports", "image"):
        assert made[key] == ours[key], key


@pytest.mark.parametrize("tool", ["http://127.0.0.1:3000", "http://localhost:80", "http://[::1]"])
def test_a_container_is_not_sent_to_itself(tmp_path: Path, tool: str) -> None:
    """A loopback address is refused, with what to write instead."""
    done = _init(tmp_path / "new", "--docker", *ANSWERS, "--tool", tool)

    assert done.exit_code == 2
    assert "name the tool's service, such as http://grafana:3000" in done.output
    assert not (tmp_path / "new").exists()


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """It names the path and the option that takes another."""
    (tmp_path / "file").touch()

    done = _init(tmp_path / "file" / "etc", *ANSWERS, *TOOL)

    assert done.exit_code == 1
    assert "--directory names another place" in done.output
