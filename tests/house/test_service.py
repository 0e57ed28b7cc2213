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
    """It may write to state and to the logs of the documents, and requests may finish."""
    assert f"/var/lib/{value('StateDirectory')}" == State().path
    pages = [page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md")]
    logs = {place for page in pages for place in re.findall(r"/var/log/(?!nginx)[\w-]+", page)}
    assert logs == {f"/var/log/{value('LogsDirectory')}"}
    # Log files have mode 0640 (docs/configure/logs.md).
    assert not int(value("UMask"), 8) & 0o640
    assert not int(value("LogsDirectoryMode"), 8) & 0o7
    timeout = Server.model_fields["shutdown_timeout"].default
    assert read_duration(value("TimeoutStopSec")) > timeout


def test_the_socket_unit_opens_what_the_gate_listens_on() -> None:
    """Without changes to either, systemd passes the socket of the default address."""
    unit = UNIT.with_suffix(".socket").read_text("utf-8")
    (address,) = re.findall(r"^ListenStream=(.*)$", unit, re.MULTILINE)

    assert Server.model_fields["listen"].default == (address,)
    assert "Accept" not in unit
    assert value("Type") == "notify"


def test_the_documentation_has_the_exposure_of_the_service(tmp_path: Path) -> None:
    """The documented score is at least what systemd-analyze gives the unit."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8"), "utf-8")
    done = subprocess.run(
        [_analyze(), "security", "--offline=true", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    (score,) = re.findall(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    page = (ROOT / "docs/operate/start-stop-reload.md").read_text("utf-8")
    (documented,) = re.findall(r"rates the exposure of the service ([0-9.]+)", page)

    # Newer versions know of more to close.
    assert abs(float(score) - float(documented)) < 0.6


def _analyze() -> str:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        missing("systemd-analyze, of systemd,")
    return analyze


def test_systemd_has_nothing_to_say_of_the_service(tmp_path: Path) -> None:
    """Every key of the unit is one that systemd knows, with a value that it takes."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace(PROGRAM, sys.executable), "utf-8")
    opened = unit.with_suffix(".socket")
    shutil.copy(UNIT.with_suffix(".socket"), opened)
    done = subprocess.run(
        [_analyze(), "verify", str(unit), str(opened)], capture_output=True, text=True, check=False
    )

    told = [line for line in done.stderr.splitlines() if UNIT.stem in line]
    assert (done.returncode, told) == (0, [])
