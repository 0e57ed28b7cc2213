"""The orders of the admin page: each changes one thing, and returns a result to show."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from tailchat_gate.config.values.identifier import SUB, TOKEN
from tailchat_gate.config.values.quantities import read_duration
from tailchat_gate.endpoints.access import CHOICES, Decided
from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.endpoints.form_outcome import FormOutcome
from tailchat_gate.identity.grants import Grant
from tailchat_gate.identity.revocation.records import is_message
from tailchat_gate.identity.revocation.state import ALL, Lock, Unlock
from tailchat_gate.people.slices import in_slices
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.reasons import Reason
from tailchat_gate.serving.dashboard.page_request import Form
from tailchat_gate.serving.dashboard.people_shown import grantable, under_way
from tailchat_gate.serving.dashboard.typed_names import (
    display_name,
    known_names,
    resolve_person,
    resolve_target,
)
from tailchat_gate.serving.generations import Generation, Generations
from tailchat_gate.serving.wiring.config_parts import askable

#: Orders that give no rights, so everybody who reaches the page may give them. The page itself
#: carries them out (drawn.py).
HARMLESS: Final = frozenset(("reload", "doctor"))
#: Orders that let people in; they need a recent sign-in, so a stolen cookie is not enough.
_LET_IN: Final = frozenset(("grant", "decide", "unlock"))
#: The result of an approver's order while the gate cannot learn from Tailchat who is an approver.
APPROVERS_UNKNOWN: Final = "approvers-unknown"

#: The orders whose inputs are typed, and the names of these inputs.
FORMS: Final = MappingProxyType(
    {"lock": ("target", "for", "message"), "grant": ("sub", "route", "for", "reason")}
)
NOTHING_TYPED: Final = {
    "lock": {"target": "", "for": "", "message": ""},
    "grant": {"sub": "", "route": "", "for": "8h", "reason": ""},
}
#: The result of an order that ended connections.
ENDED: Final = "ended"
#: The results of typed orders that were carried out.
DONE: Final = frozenset(("locked", "locked-forever", "granted"))


class OrderResult(NamedTuple):
    """The result of an order.

    `field` is the input that is wrong or needs a confirmation; `instead` replaces its value in the
    form, unless "".
    """

    outcome: FormOutcome
    field: str = ""
    instead: str = ""

    def to_json(self) -> list[object]:
        """Return the result as JSON for another process."""
        return [self.outcome.shown(), self.field, self.instead]

    @classmethod
    def from_json(cls, sent: Sequence[Any]) -> Self:
        """Return the result from another process's JSON."""
        outcome, field, instead = sent
        return cls(FormOutcome.from_shown(outcome), str(field), str(instead))


def order_result(code: str, **values: str | int) -> OrderResult:
    """Return a result that is about no particular input."""
    return OrderResult(FormOutcome(code, values))


def _not_fresh(operator: Operator) -> OrderResult:
    return order_result("not-fresh" if operator.password_known else "no-password-time")


def _wrong(field: str, code: str, **values: str | int) -> OrderResult:
    return OrderResult(FormOutcome(code, values), field)


Order = Callable[[Form, Operator], Awaitable[OrderResult]]
_UNCHANGED: Final = order_result("unchanged")


class OrderDesk:
    """Carries out orders for one process; `connections` returns its clients' connections."""

    def __init__(
        self,
        generations: Generations,
        connections: Callable[[], Iterable[ClientConnection]],
    ) -> None:
        self._generations = generations
        self._process_state = generations.in_force.process_state
        self._connections = connections
        self._orders: Mapping[str, Order] = MappingProxyType(
            {
                "lock": self._lock,
                "unlock": self._unlock,
                "grant": self._grant,
                "revoke": self._revoke,
                "decide": self._decide,
                "end": self._end,
                "end-all": self._end_all,
            }
        )

    async def carry_out(self, form: Form, operator: Operator) -> OrderResult:
        """Carry out the order of a submitted form, and return its result."""
        order = form.get("order", "")
        action = self._orders.get(order)
        if action is None:
            return _UNCHANGED
        if not operator.is_known:
            return order_result("not-a-person")
        if not operator.changes_people:
            return order_result("off")
        if order in _LET_IN and operator.fresh_url:
            return _not_fresh(operator)
        return await action(form, operator)

    async def _lock(self, form: Form, operator: Operator) -> OrderResult:
        message, time = form.get("message", ""), form.get("for", "").strip()
        seconds = _seconds(time)
        resolved = await resolve_target(form.get("target", ""), *self._seen())
        if resolved.outcome is not None:
            return OrderResult(resolved.outcome, "target", resolved.target)
        if not is_message(message):
            return _wrong("message", "invalid-message")
        if seconds is None:
            return _wrong("for", "invalid-duration", text=time)
        now = self._now()
        lock = Lock(resolved.target, now, now + seconds if seconds else None, message)
        everybody = resolved.target == ALL
        if operator.fresh_url and (everybody or self._ends_earlier(lock)):
            return _not_fresh(operator)
        # The time is part of it, so that confirming one hour does not confirm a lock without end.
        if everybody and form.get("confirmed") != f"{ALL}:{time}":
            return _wrong("target", "confirm-all" if time else "confirm-all-forever", text=time)
        return await self._store(self._process_state.locks.order, lock, "lock", operator)

    def _ends_earlier(self, lock: Lock) -> bool:
        """Whether a lock would replace one that ends later, which amounts to unlocking."""
        if lock.until is None:
            return False
        locks = self._process_state.revocation.locks
        known = next((other for other in locks if other.target == lock.target), None)
        return known is not None and (known.until is None or known.until > lock.until)

    async def _unlock(self, form: Form, operator: Operator) -> OrderResult:
        target = form.get("target", "")
        if target not in {lock.target for lock in self._process_state.revocation.locks}:
            return _UNCHANGED
        entry = Unlock(target, self._now())
        return await self._store(self._process_state.locks.order, entry, "unlock", operator)

    async def _store(
        self,
        write: Callable[[Lock | Unlock], Awaitable[None]],
        entry: Lock | Unlock,
        order: str,
        operator: Operator,
    ) -> OrderResult:
        if self._process_state.store.faults:
            # As with the command: nobody expects a lock to be lost at the next restart.
            return order_result("not-stored")
        self.note(order, operator, target=entry.target)
        await write(entry)
        until = entry.until if isinstance(entry, Lock) else None
        code = "unlocked" if isinstance(entry, Unlock) else "locked" if until else "locked-forever"
        return await self._done(code, entry.target, until=until or 0)

    async def _grant(self, form: Form, operator: Operator) -> OrderResult:
        route, reason = form.get("route", ""), form.get("reason", "")
        time = form.get("for", "").strip()
        seconds = _seconds(time)
        resolved = await resolve_person(form.get("sub", ""), *self._seen())
        if resolved.outcome is not None:
            return OrderResult(resolved.outcome, "sub", resolved.target)
        if route not in grantable(self._generations.in_force):
            return _wrong("route", "invalid-route", tool=route)
        if not seconds:
            return _wrong("for", "invalid-duration", text=time)
        if not is_message(reason):
            return _wrong("reason", "invalid-message")
        sub = resolved.target.removeprefix(SUB)
        if sub == operator.sub:
            return _wrong("sub", "own")
        now = self._now()
        self.note("grant", operator, target=sub, route=route)
        grant = Grant(sub, route, now, now + seconds, reason, operator.by)
        await self._process_state.grants.put(grant)
        return await self._done("granted", resolved.target, route, until=grant.until)

    async def _revoke(self, form: Form, operator: Operator) -> OrderResult:
        sub, route = form.get("sub", ""), form.get("route", "")
        grants = self._process_state.grants
        in_force = next((grant for grant in grants.state.of(sub) if grant.route == route), None)
        if in_force is None:
            return _UNCHANGED
        self.note("revoke", operator, target=sub, route=route)
        await grants.put(in_force.revoked(self._now()))
        return await self._done("revoked", SUB + sub, route)

    async def _decide(self, form: Form, operator: Operator) -> OrderResult:
        if operator.approvers_unknown or not operator.approves:
            return order_result(APPROVERS_UNKNOWN if operator.approvers_unknown else "no-approver")
        requests = self._process_state.access_requests
        request, seconds = requests.find(form.get("id", "")), CHOICES.get(form.get("for", ""))
        if request is None or seconds is None:
            return _UNCHANGED
        if request.sub == operator.sub:
            return order_result("own")
        if seconds and request.route not in askable(self._generations.in_force.settings):
            return order_result("invalid-route", tool=request.route)
        decision, grants = Decided(request, seconds, operator.by), self._process_state.grants
        now = self._process_state.clock()
        if not await decision.carry_out(requests, grants, now):
            return _UNCHANGED
        order, code = ("approve", "granted") if seconds else ("decline", "declined")
        self.note(order, operator, target=request.sub, route=request.route)
        return await self._done(code, SUB + request.sub, request.route, until=int(now) + seconds)

    async def _end(self, form: Form, operator: Operator) -> OrderResult:
        return await self._end_those("end", operator, request_id=form.get("id", ""))

    async def _end_all(self, form: Form, operator: Operator) -> OrderResult:
        return await self._end_those("end-all", operator, who=form.get("who", ""))

    async def _end_those(
        self, order: str, operator: Operator, *, who: str = "", request_id: str = ""
    ) -> OrderResult:
        """End all requests of one person or machine, or the one request with `request_id`."""
        named = await in_slices(known_names(*self._seen()))
        ended = [
            (owner, request)
            for owner, name, request in under_way(*self._seen())
            if (owner == who if who else name == request_id)
        ]
        if not ended:
            return _UNCHANGED
        whose = ended[0][0]
        self.note(order, operator, target=whose, count=len(ended))
        for _, request in ended:
            request.session_over(Reason.SESSION_ENDED)
        shown = display_name(whose if whose.startswith(TOKEN) else SUB + whose, named)
        return order_result(ENDED, who=shown, count=len(ended))

    def note(self, order: str, operator: Operator, **facts: object) -> None:
        """Write an order into the audit log."""
        named = {"by_name": operator.who} if operator.who != operator.by else {}
        self._process_state.audit.ordered(order, operator.by, **named, **facts)

    def _now(self) -> int:
        return int(self._process_state.clock())

    def _seen(self) -> tuple[Generation, Iterable[ClientConnection]]:
        return self._generations.in_force, self._connections()

    async def _done(
        self, code: str, target: str, route: str = "", *, until: int = 0
    ) -> OrderResult:
        """Return the result of an order that was carried out."""
        names = await in_slices(known_names(*self._seen()))
        titles = self._generations.in_force.settings.titles
        values: dict[str, str | int] = {"who": display_name(target, names), "until": until}
        if self._process_state.store.faults:
            values["unsaved"] = 1
        return order_result(code, tool=titles.get(route, route), **values)


def _seconds(text: str) -> int | None:
    """Return the seconds of a duration, 0 for "", None for any other text."""
    try:
        return int(read_duration(text)) if text else 0
    except ValueError:
        return None
