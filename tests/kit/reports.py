"""A process that shares the tests sends the reports that somebody reads, not three of each test.

That a set-up and a tear-down passed is nothing that is shown; to pack it, send it and unpack it
takes as long as a short test.
"""

from typing import Literal

import pytest
from _pytest.runner import runtestprotocol


def are_all_read(config: pytest.Config) -> bool:
    """Whether something that was asked for is made of all reports."""
    option = config.option
    return bool(option.weigh or option.durations or option.xmlpath)


class FewReports:
    """A plugin of a process that runs tests for another one."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Literal[True]:
        """Run a test as pytest does, and report how it went, or what failed beside it."""
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.when == "call" or not report.passed:
                item.ihook.pytest_runtest_logreport(report=report)
        return True
