import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import process
import pytest
import run
from benchkit import needs_peers
from processkit import NOT_FORKED

#: Several times what it takes alone: other tests may want the same processors.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder for temporary files that everybody may enter, as /tmp is."""
    with TemporaryDirectory(prefix="bench-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def started(folder: Path, *options: str, **environ: str) -> subprocess.Popen[str]:
    """The harness as a program, with its temporary files under `folder`."""
    return subprocess.Popen(
        [sys.executable, run.__file__, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder), **environ},
    )


def ended(harness: subprocess.Popen[str]) -> str:
    """What a run printed that ended well."""
    out, err = harness.communicate(timeout=150)
    assert harness.returncode == 0, err
    return out


def test_a_run_prints_and_writes_its_tables(folder: Path, tmp_path: Path) -> None:
    """A quick run prints tables and goals, keeps the samples, and leaves nothing behind."""
    needs_peers(folder)
    kept, written = tmp_path / "out.json", tmp_path / "out.md"
    options = ("--quick", "--work", "differ-all,small", "--peers", "nginx,gate")
    out = ended(started(folder, *options, "--json", str(kept), "--markdown", str(written)))

    for words in ("us CPU/request", "gate / nginx", "all of these", "\nGoals, mixed\n"):
        assert words in out
    rounds = json.loads(kept.read_text())["rounds"]
    assert {work: tuple(samples) for work, samples in rounds.items()} == {
        "differ-all": ("nginx", "gate"),
        "small": ("nginx", "gate"),
    }
    assert all(len(samples) == 1 for work in rounds.values() for samples in work.values())
    assert "### small: small keep-alive GET with a session" in written.read_text()
    assert list(folder.iterdir()) == []


def test_the_gate_takes_large_bodies_in_constant_memory(folder: Path, tmp_path: Path) -> None:
    """64 MiB down and up, with a reader that pauses, cost the gate a bounded buffer."""
    needs_peers(folder)
    kept = tmp_path / "out.json"
    options = ("--bodies", "--size", "64", "--peers", "gate", "--json", str(kept))
    out = ended(started(folder, *options))

    bodies = json.loads(kept.read_text())["bodies"]
    assert [body["direction"] for body in bodies] == ["download", "upload"]
    for body in bodies:
        assert 0 < body["peak_mib"] - body["before_mib"] < 32, body
    assert "gate, upload" in out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Apache works as somebody else")
def test_a_peer_that_cannot_run_here_is_refused_by_name(folder: Path) -> None:
    """A run for Apache alone, where it could not work, ends with the reason and with 1."""
    needs_peers(folder, "mod_auth_openidc")
    folder.chmod(0o700)
    harness = started(folder, "--quick", "--peers", "nginx,mod_auth_openidc")
    _, err = harness.communicate(timeout=150)

    assert harness.returncode == 1
    assert err.startswith("bench: mod_auth_openidc cannot be measured: root's Apache works as")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("members", [2, 9], ids=["early", "loading"])
def test_a_run_that_is_ended_ends_what_it_started(
    folder: Path, number: signal.Signals, members: int
) -> None:
    """After Ctrl-C or SIGTERM, even twice, no server of the run lives and no file is left."""
    needs_peers(folder)
    options = ("--rounds", "50", "--work", "small", "--peers", "nginx,gate")
    harness = started(folder, *options, **NOT_FORKED)
    limit, seen = time.monotonic() + 120, process.family(harness.pid)
    while len(seen) < members and time.monotonic() < limit:
        time.sleep(0.01)
        seen |= process.family(harness.pid)
    harness.send_signal(number)
    harness.send_signal(number)
    harness.communicate(timeout=150)

    assert len(seen) >= members
    assert harness.returncode == 128 + number
    assert not [pid for pid, stat in seen.items() if lives(pid, stat)]
    assert list(folder.iterdir()) == []


def lives(pid: int, known: process.Stat) -> bool:
    """Whether a process that was seen before still runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return process.parse_stat(text).born == known.born and text[text.rindex(")") + 2] not in "ZX"
