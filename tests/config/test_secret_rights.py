"""Rights of secrets' files: what the documentation advises is what the gate does not warn about."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clikit import environ
from configkit import SESSION_SECRET, SMALLEST
from parts import missing

from tailchat_gate.config.files import exposed

ROOT = Path(__file__).parents[2]
#: What a page or a manifest says, with a group for the mode.
ADVISED = (
    ("README.md", r"umask (\d{3}) && tailchat-gate secret"),
    ("README.md", r"umask (\d{3}) && cat > /etc/tailchat-gate/client_secret"),
    ("deploy/helm/tailchat-gate/templates/deployment.yaml", r"defaultMode: (\d+)"),
    ("deploy/kubernetes/tailchat-gate.yaml", r"defaultMode: (\d+)"),
)


@pytest.mark.parametrize(("name", "pattern"), ADVISED)
def test_a_mode_that_is_advised_keeps_the_secret(tmp_path: Path, name: str, pattern: str) -> None:
    """A file with it, at an ordinary place, is not read by every user."""
    found = re.findall(pattern, (ROOT / name).read_text())
    assert found
    for text in found:
        mode = 0o666 & ~int(text, 8) if "umask" in pattern else int(text)
        secret = tmp_path / "secret"
        secret.touch()
        secret.chmod(mode)
        assert (oct(mode), exposed(secret)) == (oct(mode), False)


@pytest.mark.parametrize(("mounted", "warned"), [("secret \\ 一", False), ("", True)])
def test_a_secret_that_is_mounted_by_itself_is_no_fault(
    tmp_path: Path, mounted: str, warned: bool
) -> None:
    """Compose mounts files with mode 0444 singly; in a directory of others they are open to all."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        missing("a mount namespace (root and unshare)")
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
        (folder / "secret \\ 一").write_text(SESSION_SECRET)
        (folder / "secret \\ 一").chmod(0o444)
    config = tmp_path / "config.toml"
    config.write_text(f"{SMALLEST}[session]\nsecret_file = '{here}/secret \\ 一'\n")
    config.chmod(0o600)
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    gate = (sys.executable, "-m", "tailchat_gate", "check", "--config", str(config))
    done = subprocess.run(
        [unshare, "--mount", "sh", "-c", script, "sh", there / mounted, here / mounted, *gate],
        capture_output=True,
        text=True,
        check=False,
        env={**environ(), "TAILCHAT_GATE_TAILCHAT__CLIENT_SECRET": "app-secret"},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert ("every user of this machine can read" in done.stdout + done.stderr) is warned
