"""The audit log: sign-ins, sign-outs, refusals and orders; and the list of the last refusals."""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tailchat_gate.observe.log import AUDIT_LOGGER_NAME
from tailchat_gate.observe.sink import REPEAT_SECONDS
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext

#: The most refusals that are remembered, one for each person or machine, route and reason.
MAX_REFUSALS: Final = 500
#: The most refused sign-ins that are logged per minute for each reason: anyone can cause them.
MAX_SIGN_INS: Final = 5

_log: Final = logging.getLogger(AUDIT_LOGGER_NAME)


def write_event(event: str, **facts: object) -> None:
    """Write an event; `facts` are its members, without secrets."""
    _log.info("audit", extra={"details": {"event": event, **facts}})


@dataclass(frozen=True, slots=True)
class Person:
    """A known person, as the audit log names them; a machine's `sub` is "token:NAME"."""

    sub: str
    nickname: str
    discriminator: str


@dataclass(slots=True)
class _Window:
    """Counts the refused sign-ins of one reason in the minute from `since`, a Unix second, on."""

    since: float
    count: int = 0


@dataclass(slots=True)
class Refusal:
    """A person or machine that was refused a route, how often, and when; times are Unix seconds.

    `logged` is when the refusal was last logged.
    """

    person: Person
    route: str
    host: str
    path: str
    reason: str
    first: float
    last: float
    count: int = 1
    logged: float = 0.0


class Audit:
    """Writes the audit events of one process; `clock` gives Unix seconds.

    Of anonymous requests it logs only refused sign-ins, a few per minute for each reason, and the
    number of the others. All other anonymous requests are only in the access log.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refusals: OrderedDict[tuple[str, str, str], Refusal] = OrderedDict()
        #: The keys of the refusals that changed since the last take_changed.
        self._changed: set[tuple[str, str, str]] = set()
        self._sign_ins: dict[str, _Window] = {}

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The last refusals, the latest first."""
        return tuple(reversed(self._refusals.values()))

    def restore(self, refusal: Refusal) -> None:
        """Add a refusal that another process, or an earlier one, noted; call it oldest first."""
        key = (refusal.person.sub, refusal.route, refusal.reason)
        known = self._refusals.get(key)
        if known is None:
            self._add(key, refusal)
        elif refusal.last >= known.last:
            known.count = max(known.count, refusal.count)
            known.first = min(known.first, refusal.first)
            known.person, known.last = refusal.person, refusal.last
            known.host, known.path = refusal.host, refusal.path
            self._refusals.move_to_end(key)

    def take_changed(self) -> list[Refusal]:
        """Return the refusals that have changed since the last call."""
        changed = [refusal for key, refusal in self._refusals.items() if key in self._changed]
        self._changed.clear()
        return changed

    def forget(self, sub: str) -> None:
        """Forget the refusals of a person."""
        for key in [key for key in self._refusals if key[0] == sub]:
            del self._refusals[key]

    def _add(self, key: tuple[str, str, str], refusal: Refusal) -> None:
        if len(self._refusals) >= MAX_REFUSALS:
            self._refusals.popitem(last=False)
        self._refusals[key] = refusal

    def event(self, event: str, context: RequestContext, **facts: object) -> None:
        """Log an event of a request; `facts` are further members, without secrets."""
        self._log_left_out(self._clock())
        self._write(event, context, **facts)

    def _write(self, event: str, context: RequestContext, **facts: object) -> None:
        known = {
            "request_id": context.request_id,
            **({} if context.trace is None else {"trace_id": context.trace_id}),
            "client": context.client,
            "host": context.host,
            "route": context.route,
            "sub": context.sub,
            "reason": context.reason,
        }
        write_event(event, **{**known, **facts})

    def sign_in_refused(self, context: RequestContext, detail: Mapping[str, str]) -> None:
        """Log a refused sign-in, for each reason at most MAX_SIGN_INS a minute.

        The number of those left out is logged before the first event after that minute.
        """
        now = self._clock()
        self._log_left_out(now)
        window = self._sign_ins.setdefault(context.reason, _Window(now))
        window.count += 1
        if window.count <= MAX_SIGN_INS:
            self._write("sign-in-refused", context, detail=dict(detail))

    def log_left_out(self) -> None:
        """Log how many refused sign-ins were left out so far; call it at the end of the process."""
        self._log_left_out(math.inf)

    def _log_left_out(self, now: float) -> None:
        for reason, window in list(self._sign_ins.items()):
            if window.since <= now < window.since + REPEAT_SECONDS:
                continue
            del self._sign_ins[reason]
            if window.count > MAX_SIGN_INS:
                left_out = window.count - MAX_SIGN_INS
                write_event("sign-ins-left-out", reason=reason, count=left_out)

    def ordered(self, order: str, by: str, **facts: object) -> None:
        """Log an order given on the admin page by `by`; `facts` are without secrets."""
        write_event("admin-order", order=order, by=by, **facts)

    def session_ended(self, sub: str, reason: Reason, why: str) -> None:
        """Log that a session was ended, but not by a sign-out of the person."""
        write_event("session-ended", sub=sub, reason=reason, why=why)

    def account_changed(self, sub: str, reason: Reason | None) -> None:
        """Log that an account is refused, or, without a reason, no longer is."""
        if reason is None:
            write_event("account-let-in", sub=sub)
        else:
            write_event("account-blocked", sub=sub, reason=reason)

    def membership_changed(self, sub: str, group: str, *, joined: bool) -> None:
        """Log that a person joined or left a group of the configuration, according to Tailchat."""
        write_event("group-joined" if joined else "group-left", sub=sub, group=group)

    def memberships_changed(self, group: str, joined: Sequence[str], left: Sequence[str]) -> None:
        """Log who joined and left a group, on one line if they are too many for a line each."""
        write_event("group-changed", group=group, joined=joined, left=left)

    def refused(self, context: RequestContext, person: Person) -> None:
        """Note that a known person or machine was refused, and log it at most once a minute."""
        now = self._clock()
        key = (person.sub, context.route, context.reason)
        known = self._refusals.pop(key, None)
        if known is None:
            known = Refusal(person, context.route, "", "", context.reason, now, now)
        else:
            known.count += 1
        known.person, known.last = person, now
        original = context.original
        known.host = original.host.name if original else context.host
        known.path = original.target.path if original else context.path
        self._add(key, known)
        self._changed.add(key)
        # A time in the future dates from before the clock was set back.
        if not known.logged <= now < known.logged + REPEAT_SECONDS:
            known.logged = now
            self.event(
                "refused",
                context,
                sub=person.sub,
                nickname=person.nickname,
                discriminator=person.discriminator,
                path=known.path,
                count=known.count,
            )
