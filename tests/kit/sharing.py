"""Divides the test files among the processes before they collect tests.

pytest-xdist lets each process collect all tests and divides them after that: six processes would
import all modules six times, and make each of thousands of tests six times. Here each process has
files of its own, which take most of its share of the time by weights.SECONDS. Times differ from run
to run, so all processes also collect some common files, which are cheap to collect; a process that
is free runs the next of these. All processes are forked from one that has imported the gate.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import weights
from forking import forked
from xdist.scheduler.each import EachScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

_TESTS: Final = Path(__file__).parents[1]
#: The part of the whole time that the common files take.
_COMMON: Final = 0.25
#: A common file takes at most this part of a process's time, because it may be the last to end.
_SHORT: Final = 1 / 16


def common(files: Sequence[Path], count: int) -> list[Path]:
    """Return the common files of `count` processes, those that take longest first."""
    whole = sum(map(weights.weight, files))
    short = [file for file in files if weights.weight(file) <= whole / count * _SHORT]
    # A long file with many tests is expensive to collect.
    short.sort(key=lambda file: weights.weight(file) / file.stat().st_size, reverse=True)
    found, taken = list[Path](), 0.0
    for file in short:
        taken += weights.weight(file)
        if taken > whole * _COMMON:
            break
        found.append(file)
    return weights.longest_first(found)


def shares(files: Sequence[Path], count: int) -> list[list[Path]]:
    """Divide files among `count` processes; those of each that take longest come first."""
    found: list[list[Path]] = [[] for _ in range(count)]
    taken = [0.0] * count
    for file in weights.longest_first(files):
        least = taken.index(min(taken))
        found[least].append(file)
        taken[least] += weights.weight(file)
    return found


def is_shared(config: pytest.Config) -> bool:
    """Whether the files are shared: not if single tests or another --dist are asked for."""
    return config.option.dist == "loadfile" and not any("::" in name for name in config.args)


def take_share(config: pytest.Config) -> None:
    """Let one of the processes collect its files alone."""
    if "files" in getattr(config, "workerinput", {}):
        config.args = config.workerinput["files"]  # type: ignore[attr-defined]


def _named(config: pytest.Config) -> list[Path]:
    named = [config.invocation_params.dir / name for name in config.args]
    below = [file for path in named if path.is_dir() for file in path.rglob("test_*.py")]
    return sorted({file.resolve() for file in (*below, *filter(Path.is_file, named))})


def _file(test: str) -> str:
    return test.partition("::")[0]


class Sharing:
    """A plugin of the controller, the process that gets the reports."""

    def __init__(self) -> None:
        self._session: pytest.Session | None = None
        self._told = 0
        self._common: list[str] = []

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session, which counts the tests."""
        self._session = session

    def pytest_xdist_setupnodes(self, config: pytest.Config) -> None:
        """Fork the processes until the end."""
        forks = ExitStack()
        forks.enter_context(forked())
        config.add_cleanup(forks.close)

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Give a process its files; a process that replaces a crashed one gets none."""
        if not is_shared(node.config):
            return
        number, self._told = self._told, self._told + 1
        count = node.workerinput["workercount"]
        named = _named(node.config)
        of_all = common(named, count)
        own = shares([file for file in named if file not in of_all], count)
        mine = [*own[number], *of_all] if number < count else []
        node.workerinput["files"] = [str(file) for file in mine]
        self._common = [str(file.relative_to(node.config.rootpath.resolve())) for file in of_all]

    def pytest_xdist_make_scheduler(
        self,
        config: pytest.Config,
        log: Any,  # noqa: ANN401 - xdist's own
    ) -> "Shares | None":
        """Return the scheduler of shared files, None for xdist's own."""
        if not is_shared(config):
            return None
        assert self._session is not None
        return Shares(config, log, self._session, self._common)


class Shares(EachScheduling):  # type: ignore[misc] # xdist has no types
    """Lets each process run its own files, and then hands out the common ones one by one.

    The tests that a crashed process had left are not run: the run has failed by then.
    """

    def __init__(
        self,
        config: pytest.Config,
        log: Any,  # noqa: ANN401 - xdist's own
        session: pytest.Session,
        common: Iterable[str],
    ) -> None:
        super().__init__(config, log)
        self._session = session
        self._common = deque(common)

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Store the tests that a process collected."""
        if self.collection_is_completed:
            self._started.append(node)
            node.shutdown()
            return
        super().add_node_collection(node, collection)
        # pytest shows percentages of this number.
        self._session.testscollected = len(set[str]().union(*self.node2collection.values()))

    def schedule(self) -> None:
        """Let each process run its own files."""
        common = set(self._common)
        for node, collected in self.node2collection.items():
            if node not in self._started:
                self._started.append(node)
                self._send(node, {_file(test) for test in collected} - common)

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        """Send more tests to a process that has few left."""
        super().mark_test_complete(node, item_index, duration)
        self._send(node, ())

    def _send(self, node: WorkerController, files: Collection[str]) -> None:
        pending = self.node2pending[node]
        # A process begins a test only when it knows the next one, or that there is none.
        while files or (len(pending) < 2 and self._common):
            files = files or {self._common.popleft()}
            collected = enumerate(self.node2collection[node])
            tests = [number for number, test in collected if _file(test) in files]
            files = ()
            pending += tests
            node.send_runtest_some(tests)
        if not self._common and not node.shutting_down:
            node.shutdown()

    def remove_node(self, node: WorkerController) -> str | None:
        """Return the test in which a process crashed, if it did."""
        crashed: str | None = super().remove_node(node)
        self._removed2pending.clear()
        return crashed
