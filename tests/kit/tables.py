"""Checks a long table in one test, which reports each row that fails, and why.

A test for each row suits a few dozen rows. Beyond that, to collect, set up and report a test takes
longer than to check a row of a pure function.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

_T = TypeVar("_T")


def check_each(rows: Iterable[_T], check: Callable[[_T], None]) -> None:
    """Check all rows; fail with all rows that fail."""
    failed: list[str] = []
    for row in rows:
        try:
            check(row)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - as a test of its own
            failed.append(f"{row!r}: {type(error).__name__}: {error}")
    assert not failed, "\n\n".join([f"{len(failed)} rows", *failed])
