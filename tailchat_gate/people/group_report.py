"""Says what changed in the groups that have members from Tailchat: to the log and the audit log."""

import logging
import math
from collections.abc import Mapping
from typing import Final

from tailchat_gate.config.values.group import Group
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.memberships import Resolved

#: People of one group who came or went at once that have a line of the audit log each; of more,
#: a line names as many.
MOST_NAMED: Final = 100

_log: Final = logging.getLogger(LOGGER_NAME)


class GroupReport:
    """Compares what is known now with what was certain before."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        #: The last people of each group that were certain, with what the group was then.
        self._certain: dict[str, tuple[Group, frozenset[str]]] = {}

    def tell(
        self, groups: Mapping[str, Group], before: Resolved, now: Resolved, *, age: float
    ) -> None:
        """Say what is different; `age` is that of the oldest answer, in seconds."""
        if now.unknown - before.unknown and before.people:
            details: dict[str, object] = {
                "groups": sorted(now.unknown),
                "age": whole_seconds(age),
            }
            _log.error("nobody is known to be in groups of Tailchat", extra={"details": details})
        elif before.unknown and not now.unknown:
            _log.info("it is known who is in the groups of Tailchat")
        for name, count in now.too_large.items():
            if before.too_large.get(name) != count:
                details = {"group": name, "members": count}
                _log.error("a group has more members than its max", extra={"details": details})
        for name, people in now.people.items():
            if name not in now.unknown:
                self._compare(name, groups[name], people)

    def _compare(self, name: str, group: Group, people: frozenset[str]) -> None:
        """Write for whom a door was opened or closed."""
        before = self._certain.get(name)
        self._certain[name] = group, people
        if before is None or before[0] != group:
            details = {"group": name, "members": len(people)}
            _log.info("the members of a group are known", extra={"details": details})
            return
        listed = frozenset(group.subs)
        joined, left = people - before[1] - listed, before[1] - people - listed
        changes = [(sub, True) for sub in sorted(joined)] + [(sub, False) for sub in sorted(left)]
        for sub, has_joined in changes[:MOST_NAMED]:
            self._audit.membership_changed(sub, name, joined=has_joined)
        for start in range(MOST_NAMED, len(changes), MOST_NAMED):
            some = changes[start : start + MOST_NAMED]
            came, went = ([sub for sub, came in some if came is wanted] for wanted in (True, False))
            self._audit.memberships_changed(name, came, went)


def whole_seconds(age: float) -> int | None:
    """Return an age for a log, None for none."""
    return int(age) if math.isfinite(age) else None
