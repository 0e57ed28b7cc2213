"""How long the tests of each file take: what takes long is begun first.

The processes that share the tests take whole files; a long one that is begun last would be waited
for by all of them. `pytest --weigh` measures the files that it runs.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
#: Seconds of a file, by its path below tests/.
SECONDS = _TESTS / "data" / "seconds.json"
#: Of a file that nobody has measured.
_UNKNOWN = 15.0


class Weights:
    """A plugin of the process that gets the reports: sums up how long the tests of a file took."""

    def __init__(self) -> None:
        self._seconds = defaultdict[str, float](float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a phase of a test into account."""
        path = report.nodeid.partition("::")[0]
        self._seconds[path.removeprefix("tests/")] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write what was measured over what was known of the same files."""
        known = {name: time for name, time in _known().items() if (_TESTS / name).is_file()}
        measured = {name: round(time, 1) for name, time in self._seconds.items()}
        text = json.dumps({**known, **measured}, indent=0, sort_keys=True)
        SECONDS.write_text(f"{text}\n", encoding="utf-8")


def order(items: list[pytest.Item]) -> None:
    """Put the tests of the files that take longest first; those of a file stay together."""
    known = _known()

    def weight(path: Path) -> float:
        return known.get(path.relative_to(_TESTS).as_posix(), _UNKNOWN)

    items.sort(key=lambda item: (-weight(item.path), str(item.path)))


def _known() -> dict[str, float]:
    found: dict[str, float] = json.loads(SECONDS.read_text(encoding="utf-8"))
    return found
