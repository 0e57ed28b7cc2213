"""The unit of systemd fits the README, the command line and the defaults."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from click import Context
from parts import missing

from tailchat_gate.cli import main
from tailchat_gate.config.model import Server, State
from tailchat_gate.config.values.quantities import read_duration

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "tailchat-gate.service"
PROGRAM = "/opt/tailchat-gate/bin/tailchat-gate"


def value(key: str) -> str:
    """Return what the unit sets a key to, once."""
    (found,) = re.findall(rf"^{key}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)
    return str(found)


def test_the_service_runs_what_the_readme_installs() -> None:
    """Start and reload call commands that there are, with the README's program and file."""
    readme = (ROOT / "README.md").read_text("utf-8")
    for key, command in (("ExecStart", "serve"), ("ExecReload", "reload")):
        arguments = ["--config", "/etc/tailchat-gate/config.toml"]
        assert shlex.split(value(key)) == [PROGRAM, command, *arguments]
        assert command in main.list_commands(Context(main))
    assert f"ln -s {PROGRAM} /usr/local/bin/" in readme
    assert "`/etc/tailchat-gate/config.toml`" in readme
    assert f"useradd --system {value('User')}\n" in readme
    assert "deploy/systemd/tailchat-gate.service" in readme


def test_the_service_fits_the_defaults() -> None:
    """It may write where state is kept, and is not killed while requests may finish."""
    assert f"/var/lib/{value('StateDirectory')}" == State().path
    timeout = Server.model_fields["shutdown_timeout"].default
    assert read_duration(value("TimeoutStopSec")) > timeout


def test_systemd_has_nothing_to_say_of_the_service(tmp_path: Path) -> None:
    """Every key of the unit is one that systemd knows, with a value that it takes."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        missing("systemd-analyze, of systemd,")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace(PROGRAM, sys.executable), "utf-8")
    done = subprocess.run(
        [analyze, "verify", str(unit)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (
        0,
        [],
    )
