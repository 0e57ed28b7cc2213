"""A long table as one test, which says of every row that fails what it is and why.

A test for each row is right for a few dozen: every process that shares the tests collects all of
them, and to collect, set up and report one takes longer than to look at a row of a pure function.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

_T = TypeVar("_T")


def check_each(rows: Iterable[_T], check: Callable[[_T], None]) -> None:
    """Check all rows; fail if one of them does, with each that does."""
    failed: list[str] = []
    for row in rows:
        try:
            check(row)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - as a test of its own
            failed.append(f"{row!r}: {type(error).__name__}: {error}")
    assert not failed, "\n\n".join([f"{len(failed)} rows", *failed])
