"""Collects tests cheaper: each of the processes that share the tests collects all of them."""

import contextlib
import gc
import importlib
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]


def begin() -> None:
    """Keep the collector from looking through what is collected, which stays until the end."""
    gc.disable()


def end() -> None:
    """Let the collector look through what comes now alone."""
    gc.collect()
    gc.freeze()
    gc.enable()


def import_in_turn(config: pytest.Config) -> None:
    """Import the test modules, each process from another one on.

    pytest rewrites the assertions of a module that it imports for the first time, and keeps the
    result. Processes that begin at the same module would all do that for all of them.
    """
    given = getattr(config, "workerinput", None)
    if given is None or [Path(name).resolve() for name in config.args] != [_TESTS]:
        return
    files = sorted(_TESTS.rglob("test_*.py"))
    first = len(files) * int(given["workerid"].removeprefix("gw")) // given["workercount"]
    for file in files[first:] + files[:first]:
        if str(file.parent) not in sys.path:
            sys.path.insert(0, str(file.parent))
        # What cannot be imported is told of when it is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(file.stem)
