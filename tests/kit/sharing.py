"""The processes that run the tests share the files before they collect them.

pytest-xdist lets each process collect everything, and shares it then: six processes would import
all modules six times, and make each of thousands of tests six times. Here each has the files that
take its share of the time, as weights.SECONDS knows it, and collects these alone. All are forked
from one that has imported the gate.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import weights
from forking import forked
from xdist.scheduler.each import EachScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

_TESTS: Final = Path(__file__).parents[1]


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
    """Whether the files are shared so: not where somebody asks for single tests, or otherwise."""
    return config.option.dist == "loadfile" and not any("::" in name for name in config.args)


def take_share(config: pytest.Config) -> None:
    """Let one of the processes collect its files alone."""
    if "files" in getattr(config, "workerinput", {}):
        config.args = config.workerinput["files"]  # type: ignore[attr-defined]


def _named(config: pytest.Config) -> list[Path]:
    named = [config.invocation_params.dir / name for name in config.args]
    below = [file for path in named if path.is_dir() for file in path.rglob("test_*.py")]
    return sorted({file.resolve() for file in (*below, *filter(Path.is_file, named))})


class Sharing:
    """A plugin of the process that gets the reports."""

    def __init__(self) -> None:
        self._session: pytest.Session | None = None
        self._told = 0

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session, which counts the tests."""
        self._session = session

    def pytest_xdist_setupnodes(self, config: pytest.Config) -> None:
        """Fork the processes until the end."""
        forks = ExitStack()
        forks.enter_context(forked())
        config.add_cleanup(forks.close)

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Tell a process its files; one that replaces another that crashed has none."""
        if not is_shared(node.config):
            return
        number, self._told = self._told, self._told + 1
        count = node.workerinput["workercount"]
        mine = shares(_named(node.config), count)[number] if number < count else []
        node.workerinput["files"] = [str(file) for file in mine]

    def pytest_xdist_make_scheduler(
        self,
        config: pytest.Config,
        log: Any,  # noqa: ANN401 - xdist's own
    ) -> "Shares | None":
        """Return what lets each process run what it collected."""
        if not is_shared(config):
            return None
        assert self._session is not None
        return Shares(config, log, self._session)


class Shares(EachScheduling):  # type: ignore[misc] # xdist has no types
    """Lets each process run all that it collected.

    The tests that a crashed process had before it are not run: the run has failed by then.
    """

    def __init__(
        self,
        config: pytest.Config,
        log: Any,  # noqa: ANN401 - xdist's own
        session: pytest.Session,
    ) -> None:
        super().__init__(config, log)
        self._session = session

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Take what a process collected."""
        if self.collection_is_completed:
            self._started.append(node)
            node.shutdown()
            return
        super().add_node_collection(node, collection)
        # Of which the percentages are told.
        self._session.testscollected = sum(map(len, self.node2collection.values()))

    def remove_node(self, node: WorkerController) -> str | None:
        """Return the test in which a process crashed, if it did."""
        crashed: str | None = super().remove_node(node)
        self._removed2pending.clear()
        return crashed
