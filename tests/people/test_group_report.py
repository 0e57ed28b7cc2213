"""What the audit log says of changes in a group, without a Tailchat."""

import logging

import pytest

from tailchat_gate.config.values.group import Group
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME
from tailchat_gate.people.group_report import MOST_NAMED, GroupReport
from tailchat_gate.people.memberships import Resolved


def test_everybody_who_comes_or_goes_is_in_the_audit_log(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred have a line each, all others are named a hundred to a line."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER_NAME)
    report, groups = GroupReport(Audit(lambda: 0.0)), {"ops": Group(())}
    before, after = (
        frozenset(f"{number:024x}" for number in range(first, first + 250)) for first in (0, 125)
    )
    first, then = Resolved({"ops": before}), Resolved({"ops": after})
    report.tell(groups, Resolved(), first, age=0.0)
    report.tell(groups, first, then, age=0.0)

    written = [record.__dict__["details"] for record in caplog.records]
    single = [one for one in written if one["event"] != "group-changed"]
    several = [one for one in written if one["event"] == "group-changed"]
    joined = {one["sub"] for one in single if one["event"] == "group-joined"}
    left = {one["sub"] for one in single if one["event"] == "group-left"}
    assert (len(single), len(several)) == (MOST_NAMED, 2)
    assert joined.union(*(one["joined"] for one in several)) == after - before
    assert left.union(*(one["left"] for one in several)) == before - after
