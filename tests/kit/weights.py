"""How long the tests of each file take; sharing.py divides the files among processes by it.

`pytest --weigh` measures the files that it runs.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
#: The file of the seconds by test file, with paths below tests/.
SECONDS = _TESTS / "data" / "seconds.json"
#: The seconds of a file that is not yet measured.
_UNKNOWN = 5.0


class Weights:
    """A plugin of the process that gets the reports: sums up how long each file's tests took."""

    def __init__(self) -> None:
        self._seconds = defaultdict[str, float](float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the time of a test's phase."""
        path = report.nodeid.partition("::")[0]
        self._seconds[path.removeprefix("tests/")] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write the measured times in place of the known times of the same files."""
        known = {name: time for name, time in _known().items() if (_TESTS / name).is_file()}
        measured = {name: round(time, 1) for name, time in self._seconds.items()}
        text = json.dumps({**known, **measured}, indent=0, sort_keys=True)
        SECONDS.write_text(f"{text}\n", encoding="utf-8")


def longest_first(files: Iterable[Path]) -> list[Path]:
    """Return the files in the order in which a process runs them."""
    return sorted(files, key=lambda file: (-weight(file), str(file)))


def weight(file: Path) -> float:
    """Return how many seconds the tests of a file took when they were measured."""
    return _known().get(file.relative_to(_TESTS).as_posix(), _UNKNOWN)


@cache
def _known() -> dict[str, float]:
    found: dict[str, float] = json.loads(SECONDS.read_text(encoding="utf-8"))
    return found
