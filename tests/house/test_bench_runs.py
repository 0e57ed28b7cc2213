import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import process
import pytest
import roster
import run
import scene
import soak
import work
import works
from parts import missing
from peers import Stage

#: Several times what it takes alone: other tests may want the same processors.
pytestmark = pytest.mark.timeout(240)

#: Works that together use all that a peer is configured for.
SHOWN = {
    "differ-all",
    "unchanged",
    "question",
    "new-session",
    "small",
    "page",
    "upload",
    "tunnel",
    "idle-ws",
}
#: A load that shows that it works.
FEW = work.Options(seconds=1, connections=4, idle=10, websockets=10, waiting=10, count=40)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder for temporary files that everybody may enter, as /tmp is."""
    with TemporaryDirectory(prefix="bench-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def needs_peers(folder: Path, *peers: str) -> None:
    """Skip, or in CI fail, where a program of the harness or a peer is missing."""
    try:
        for name in ("nginx", "wrk"):
            process.program(name)
    except process.BenchError as problem:
        missing(str(problem))
    for name, reason in roster.absent(folder, None).items():
        if name in peers:
            missing(f"{name} ({reason})")


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The harness as a program, with its temporary files under `folder`."""
    return subprocess.Popen(
        [sys.executable, run.__file__, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def ended(harness: subprocess.Popen[str]) -> str:
    """What a run printed that ended well."""
    out, err = harness.communicate(timeout=150)
    assert harness.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A scene with all its peers, each of which is started when a test asks for it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-test-")))
        needs_peers(folder)
        around = stack.enter_context(scene.scene(folder, sys.executable, 4096))
        yield Stage(around, stack, load=4)


@pytest.mark.parametrize("peer", [name for name in roster.NAMES if name != roster.OAUTH2_PROXY])
def test_each_peer_serves_what_is_measured(stage: Stage, peer: str) -> None:
    """Every peer answers, logs and has metrics: plain ones, pairs, and those that sign in."""
    needs_peers(stage.scene.directory, peer)
    served = {
        one.name: entry.measure(stage, FEW)
        for one in works.works()
        for entry in one.entries
        if entry.name == peer and one.name in SHOWN
    }

    assert "small" in served
    assert peer in roster.FORWARD_AUTH or "upload" in served
    assert peer not in roster.PLAIN or set(served) == SHOWN
    assert all(sample.get("rate", 1) > 0 < sample.get("cpu_us", 1) for sample in served.values())
    assert served.get("idle-ws", {"connections": 10})["connections"] == 10


@pytest.mark.parametrize("peer", [name for name in roster.PLAIN if name != "nginx"])
def test_each_plain_proxy_works_with_one_thread(stage: Stage, peer: str) -> None:
    """What can be told how many threads to use is told one: as the gate, which has one loop."""
    needs_peers(stage.scene.directory, peer)
    pid = stage.peer(peer).pids[0]
    proc = Path(f"/proc/{pid}")
    words = (proc / "cmdline").read_text().split("\0")
    environment = (proc / "environ").read_text().split("\0")

    if peer == "envoy":
        assert words[words.index("--concurrency") + 1] == "1"
    elif peer == "haproxy":
        assert "nbthread 1\n" in Path(words[words.index("-f") + 1]).read_text()
    else:
        assert "GOMAXPROCS=1" in environment


@pytest.mark.parametrize("name", ["gate", "policy"])
def test_all_that_the_gate_does_is_measured(stage: Stage, name: str) -> None:
    """Refusals, questions, sessions in turn, many routes and all of policy work at the gate."""
    entries = next(one.entries for one in works.works() if one.name == name)

    assert all(entry.measure(stage, FEW)["cpu_us"] > 0 for entry in entries)


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


def test_memory_is_read_as_requests_go_by(stage: Stage) -> None:
    """A soak reads the memory of the gate at its first and last mark, signed in and signed out."""
    found = soak.soaks(stage, ["gate"], 200)

    assert [one.name for one in found] == ["gate", "gate, without a session"]
    assert all(one.requests == [200] and one.rss[0] > 1 << 20 for one in found)
    assert all(one.collections is not None for one in found)


def test_the_gate_takes_large_bodies_in_constant_memory(folder: Path, tmp_path: Path) -> None:
    """256 MiB down and up, with a reader that pauses, cost the gate a bounded buffer."""
    needs_peers(folder)
    kept = tmp_path / "out.json"
    options = ("--bodies", "--size", "256", "--peers", "gate", "--json", str(kept))
    out = ended(started(folder, *options))

    bodies = json.loads(kept.read_text())["bodies"]
    assert [body["direction"] for body in bodies] == ["download", "upload"]
    for body in bodies:
        assert 0 < body["peak_mib"] - body["before_mib"] < 32, body
    assert "gate, upload" in out


@pytest.mark.parametrize("peer", ["nginx", "caddy", "gate"])
def test_large_bodies_arrive_whole_through_each_peer(stage: Stage, peer: str) -> None:
    """The body scenario counts every byte through every peer that streams."""
    needs_peers(stage.scene.directory, peer)
    found = run.bodies(stage, [peer], 16 << 20)

    assert [(one.peer, one.direction) for one in found] == [(peer, "download"), (peer, "upload")]
    # Each reader paused for a second, so that a proxy without back-pressure would show.
    assert all(one.seconds > 1 for one in found)


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
    harness = started(folder, "--rounds", "50", "--work", "small", "--peers", "nginx,gate")
    limit, seen = time.monotonic() + 30, process.family(harness.pid)
    while len(seen) < members and time.monotonic() < limit:
        time.sleep(0.001)
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
