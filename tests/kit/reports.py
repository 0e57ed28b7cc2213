"""Lets a process that shares the tests send only reports that are shown, not three of each test.

Nobody reads that a set-up and a tear-down passed; packing, sending and unpacking those reports
takes as long as a short test.
"""

from typing import Literal

import pytest
from _pytest.runner import runtestprotocol


def are_all_read(config: pytest.Config) -> bool:
    """Whether an option needs all reports."""
    option = config.option
    return bool(option.weigh or option.durations or option.xmlpath)


class FewReports:
    """A plugin of a process that runs tests for another one."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Literal[True]:
        """Run a test as pytest does; report its outcome, and a set-up or tear-down that failed."""
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.when == "call" or not report.passed:
                item.ihook.pytest_runtest_logreport(report=report)
        return True
