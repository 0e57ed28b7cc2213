import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import roster
import run
import scene
import soak
import work
import works
from benchkit import needs_peers
from peers import Stage

#: Several times what it takes alone: other tests may want the same processors.
pytestmark = pytest.mark.timeout(240)

#: Works that together use all that a peer is configured for.
SHOWN = {
    "differ-all",
    "unchanged",
    "question",
    "new-session",
    "new-person",
    "small",
    "page",
    "upload",
    "tunnel",
    "idle-ws",
}
#: A load that shows that it works.
FEW = work.Options(seconds=1, connections=4, idle=10, websockets=10, waiting=10, count=40)


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


@pytest.mark.parametrize("name", ["gate", "policy", "tls", "tls-close"])
def test_all_that_the_gate_does_is_measured(stage: Stage, name: str) -> None:
    """Refusals, questions, sessions in turn, many routes, all of policy, and TLS of its own."""
    entries = next(one.entries for one in works.works() if one.name == name)

    assert all(entry.measure(stage, FEW)["cpu_us"] > 0 for entry in entries)


def test_memory_is_read_as_requests_go_by(stage: Stage) -> None:
    """A soak reads the memory of the gate at its first and last mark, signed in and signed out."""
    found = soak.soaks(stage, ["gate"], 200)

    assert [one.name for one in found] == ["gate", "gate, without a session"]
    assert all(one.requests == [200] and one.rss[0] > 1 << 20 for one in found)
    assert all(one.collections is not None for one in found)


@pytest.mark.parametrize("peer", ["nginx", "caddy", "gate"])
def test_large_bodies_arrive_whole_through_each_peer(stage: Stage, peer: str) -> None:
    """The body scenario counts every byte through every peer that streams."""
    needs_peers(stage.scene.directory, peer)
    found = run.bodies(stage, [peer], 16 << 20)

    assert [(one.peer, one.direction) for one in found] == [(peer, "download"), (peer, "upload")]
    # Each reader paused for a second, so that a proxy without back-pressure would show.
    assert all(one.seconds > 1 for one in found)
