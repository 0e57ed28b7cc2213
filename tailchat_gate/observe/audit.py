"""The audit log: who signed in and out, and who was refused what; the last refusals are kept."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tailchat_gate.observe.log import AUDIT_LOGGER_NAME
from tailchat_gate.reasons import Reason
from tailchat_gate.request.visit import Visit

#: Refusals that are kept: by person or machine, route and reason.
MAX_REFUSALS: Final = 500
#: A refusal that comes again and again is told once in so many seconds, with its count.
_TELL_SECONDS: Final = 60.0

_log: Final = logging.getLogger(AUDIT_LOGGER_NAME)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is known, as the audit log names them; a machine's `sub` is "token:NAME"."""

    sub: str
    nickname: str
    discriminator: str


@dataclass(slots=True)
class Refusal:
    """A person or machine that was refused a route, how often, and when; times are Unix seconds."""

    person: Person
    route: str
    host: str
    path: str
    reason: str
    first: float
    last: float
    count: int = 1
    told: float = 0.0


class Audit:
    """Writes the audit events of one process; `clock` gives Unix seconds.

    Nothing is written of a stranger's requests: who is not signed in is in the access log alone.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refusals: OrderedDict[tuple[str, str, str], Refusal] = OrderedDict()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The last refusals, the latest first."""
        return tuple(reversed(self._refusals.values()))

    def event(self, event: str, visit: Visit, **facts: object) -> None:
        """Write an event of a request; `facts` are further members, without secrets."""
        _log.info(
            "audit",
            extra={
                "details": {
                    "event": event,
                    "request_id": visit.request_id,
                    "client": visit.client,
                    "host": visit.host,
                    "route": visit.route,
                    "sub": visit.sub,
                    "reason": visit.reason,
                    **facts,
                }
            },
        )

    def session_ended(self, sub: str, reason: Reason, why: str) -> None:
        """Write that a session was ended without a request that asked for it."""
        details = {"event": "session-ended", "sub": sub, "reason": reason, "why": why}
        _log.info("audit", extra={"details": details})

    def refused(self, visit: Visit, person: Person) -> None:
        """Note that somebody who is known was refused; it is written at most once a minute."""
        now = self._clock()
        key = (person.sub, visit.route, visit.reason)
        known = self._refusals.pop(key, None)
        if known is None:
            if len(self._refusals) >= MAX_REFUSALS:
                self._refusals.popitem(last=False)
            known = Refusal(person, visit.route, "", "", visit.reason, now, now)
        else:
            known.count += 1
        known.person, known.last = person, now
        original = visit.original
        known.host = original.host.name if original else visit.host
        known.path = original.target.path if original else visit.path
        self._refusals[key] = known
        # A time that lies ahead is from before the clock was set back.
        if not known.told <= now < known.told + _TELL_SECONDS:
            known.told = now
            self.event(
                "refused",
                visit,
                sub=person.sub,
                nickname=person.nickname,
                discriminator=person.discriminator,
                path=known.path,
                count=known.count,
            )
