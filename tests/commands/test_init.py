"""`init`: what it writes is what `check` accepts, and nothing is written over."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from clikit import environ, run
from compose_spec import PyCompose

from tailchat_gate.cli import main
from tailchat_gate.config.load import load

ROOT = Path(__file__).parents[2]
ANSWERS = ("--tailchat", "https://chat.example.com", "--public-url", "https://gate.example.com")
TOOL = ("--tool", "http://127.0.0.1:3000")


def _init(folder: Path, *arguments: str, typed: Sequence[str] = ()) -> Result:
    """Run `init` for a folder, with lines that are typed."""
    unset = dict.fromkeys(os.environ.keys() - environ().keys())
    text = "".join(f"{line}\n" for line in typed)
    return CliRunner().invoke(
        main, ["init", "--directory", str(folder), *arguments], input=text, env=unset
    )


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
    typed = ("https://chat.example.com/", "https://GATE.example.com", "http://127.0.0.1:3000")

    done = _init(folder, typed=(*typed, "tc_1", "s3cr3t-of-the-app"))
    settings = load(folder / "config.toml", {}).settings

    assert done.exit_code == 0, done.output
    assert settings.redirect_uri == "https://gate.example.com/oauth2/callback"
    assert f"\n    {settings.redirect_uri}\n" in done.output.partition("Client id")[0]
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


async def test_options_need_no_questions(tmp_path: Path) -> None:
    """With all options it asks nothing; `check` then names what is to be filled in."""
    code, out, err = await run("init", "--directory", str(tmp_path), *ANSWERS, *TOOL)
    refused = await run("check", "--config", str(tmp_path / "config.toml"))
    config = (tmp_path / "config.toml").read_text().replace("#client_id", "client_id")
    (tmp_path / "config.toml").write_text(config)
    (tmp_path / "client_secret").write_text("s3cr3t\n")
    accepted = await run("check", "--config", str(tmp_path / "config.toml"))

    assert (code, err) == (0, "")
    assert f"1. Write the app's client_id into {tmp_path}/config.toml." in out
    assert f"2. Write the app's client secret into {tmp_path}/client_secret" in out
    assert refused[0] == 2
    assert "tailchat.client_id" in refused[2]
    assert f"{tmp_path}/client_secret: empty" in refused[2]
    assert accepted[0] == 0, accepted[2]


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


def test_a_wrong_answer_is_asked_for_again(tmp_path: Path) -> None:
    """An answer that the configuration would refuse says what is expected."""
    typed = ("chat", "https://chat.example.com", "https://gate.example.com", "http://a", "", "")

    done = _init(tmp_path / "etc", typed=typed)

    assert done.exit_code == 0, done.output
    assert "Error: expected an http or https URL such as" in done.output


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
        assert (_mode(path), _mode(path.parent)) == (0o444, 0o700)
    assert "./config.toml:/etc/tailchat-gate/config.toml:ro" in gate["volumes"]
    assert _mode(docker / "config.toml") == 0o644


@pytest.mark.parametrize("mode", [0o755, 0o710])
def test_secrets_are_not_put_where_others_read(tmp_path: Path, mode: int) -> None:
    """A directory for the container's secrets that others may enter is refused, and stays empty."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets").chmod(mode)

    done = _init(tmp_path, "--docker", *ANSWERS, "--client-id", "tc_1", "--tool", "http://wiki:80")

    assert done.exit_code == 1
    assert f"{tmp_path}/secrets: open to other users; mode 0700 keeps them out" in done.output
    assert list((tmp_path / "secrets").iterdir()) == []


def test_the_container_is_one_for_compose(docker: Path) -> None:
    """The file is valid by the Compose specification."""
    text = (docker / "compose.yaml").read_text(encoding="utf-8")
    PyCompose.from_yaml(text).validate()


def test_where_nobody_answers_it_names_the_options(tmp_path: Path) -> None:
    """At the end of its input it has written nothing, and says how to go without questions."""
    done = _init(tmp_path / "etc", "--tool", "http://127.0.0.1:3000", typed=["https://a.example"])

    assert done.exit_code == 1
    assert "--tailchat, --public-url and --tool" in done.output
    assert not (tmp_path / "etc").exists()


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
