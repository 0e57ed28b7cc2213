"""How the processes share the tests: see tests/kit/sharing.py."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import weights
from sharing import Shares, common, shares

FILES = sorted(Path(__file__).parents[1].rglob("test_*.py"))


def test_every_file_is_in_one_share() -> None:
    """No file is left out, and none is run twice, by however many processes."""
    for count in (1, 2, 6, len(FILES) + 1):
        found = shares(FILES, count)
        assert len(found) == count
        assert sorted(file for share in found for file in share) == FILES


def test_the_shares_take_as_long_as_each_other() -> None:
    """They differ by no more than one file takes."""
    found = [sum(map(weights.weight, share)) for share in shares(FILES, 6)]

    assert max(found) - min(found) <= max(map(weights.weight, FILES))


def test_what_any_process_runs_evens_out_how_long_the_others_take() -> None:
    """These files are a quarter of the time, none is long, and the longest comes first."""
    found = [weights.weight(file) for file in common(FILES, 6)]
    whole = sum(map(weights.weight, FILES))

    assert 0.2 * whole < sum(found) <= 0.25 * whole
    assert found == sorted(found, reverse=True)
    assert found[0] < whole / 6 / 10


class _Process:
    """What a scheduler sees of a process that runs tests."""

    def __init__(self) -> None:
        self.shutting_down = False
        self.sent: list[int] = []

    def send_runtest_some(self, tests: list[int]) -> None:
        """Take tests."""
        self.sent += tests

    def shutdown(self) -> None:
        """Take the order to end."""
        self.shutting_down = True


def test_whichever_process_is_free_runs_the_next_common_file() -> None:
    """One that is slow runs its own file alone; each test is run once, and all processes end."""
    session: Any = SimpleNamespace(testscollected=0)
    config: Any = SimpleNamespace(getvalue=lambda _: ["2*popen"])
    found = Shares(config, None, session, ["x", "y", "z"])
    nodes: Any = (_Process(), _Process())
    slow, quick = nodes
    shared = ["x::1", "y::1", "y::2", "z::1"]
    for node, own in zip(nodes, (["a::1", "a::2"], ["b::1", "b::2"]), strict=True):
        found.add_node(node)
        found.add_node_collection(node, [*own, *shared])
    assert session.testscollected == 8
    found.schedule()
    for done, test in enumerate(quick.sent):
        assert not found.tests_finished
        # It would wait for the test after its last.
        assert quick.shutting_down or len(quick.sent) > done + 1
        found.mark_test_complete(quick, test)
    assert (slow.sent, sorted(quick.sent)) == ([0, 1], [0, 1, 2, 3, 4, 5])
    assert not slow.shutting_down
    found.mark_test_complete(slow, 0)
    assert slow.shutting_down
    assert found.tests_finished
