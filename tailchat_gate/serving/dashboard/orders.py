"""The orders of the admin page: each changes one thing, and says with one word what came of it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from tailchat_gate.config.values.identifier import SUB, is_sub, no_tailchat_id
from tailchat_gate.config.values.quantities import read_duration
from tailchat_gate.endpoints.access import CHOICES, Decided
from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.identity.grants import Grant
from tailchat_gate.identity.revocation.records import is_message, is_target
from tailchat_gate.identity.revocation.state import Lock, Unlock
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.reasons import Reason
from tailchat_gate.serving.dashboard.page_request import Form
from tailchat_gate.serving.dashboard.people_shown import grantable, under_way
from tailchat_gate.serving.generations import Generations
from tailchat_gate.serving.rooms import askable

#: Orders that give nobody a right: everybody who reaches the page may give them.
#: They are those of the page itself (drawn.py).
HARMLESS: Final = frozenset(("reload", "doctor"))
#: Orders that let somebody in: for these a copied cookie must not be enough.
_LET_IN: Final = frozenset(("grant", "decide", "unlock"))
#: What an order says that only an approver may give, while Tailchat does not say who is one.
APPROVERS_UNKNOWN: Final = "approvers-unknown"


class OrderDesk:
    """Carries out orders for one process; `connections` returns those of clients."""

    def __init__(
        self,
        generations: Generations,
        connections: Callable[[], Iterable[ClientConnection]],
    ) -> None:
        self._generations = generations
        self._process_state = generations.in_force.process_state
        self._connections = connections
        self._orders: Mapping[str, Callable[[Form, Operator], Awaitable[str]]] = MappingProxyType(
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

    async def carry_out(self, form: Form, operator: Operator) -> str:
        """Carry out the order of a form of the page; return a word for what came of it."""
        order = form.get("order", "")
        action = self._orders.get(order)
        if action is None:
            return "unchanged"
        if not operator.is_known:
            return "not-a-person"
        if not operator.changes_people:
            return "off"
        if order in _LET_IN and operator.fresh_url:
            return "not-fresh"
        return await action(form, operator)

    async def _lock(self, form: Form, operator: Operator) -> str:
        target, message = form.get("target", "").strip(), form.get("message", "")
        seconds = _seconds(form.get("for", ""))
        if not is_target(target) or (target.startswith(SUB) and _is_nobody(target)):
            return "invalid-target"
        if not is_message(message):
            return "invalid-message"
        if seconds is None:
            return "invalid-duration"
        now = self._now()
        lock = Lock(target, now, now + seconds if seconds else None, message)
        if operator.fresh_url and self._ends_earlier(lock):
            return "not-fresh"
        return await self._store(self._process_state.locks.order, lock, "lock", operator)

    def _ends_earlier(self, lock: Lock) -> bool:
        """Whether a lock would take the place of one that ends later: as good as unlocking."""
        if lock.until is None:
            return False
        locks = self._process_state.revocation.locks
        known = next((one for one in locks if one.target == lock.target), None)
        return known is not None and (known.until is None or known.until > lock.until)

    async def _unlock(self, form: Form, operator: Operator) -> str:
        target = form.get("target", "")
        if target not in {one.target for one in self._process_state.revocation.locks}:
            return "unchanged"
        entry = Unlock(target, self._now())
        return await self._store(self._process_state.locks.order, entry, "unlock", operator)

    async def _store(
        self,
        write: Callable[[Lock | Unlock], Awaitable[None]],
        entry: Lock | Unlock,
        order: str,
        operator: Operator,
    ) -> str:
        if self._process_state.store.faults:
            # As the command: a lock that the next start does not know is a trap.
            return "not-stored"
        self.note(order, operator, target=entry.target)
        await write(entry)
        return self._done()

    async def _grant(self, form: Form, operator: Operator) -> str:
        sub, route = form.get("sub", "").strip().removeprefix(SUB), form.get("route", "")
        reason, seconds = form.get("reason", ""), _seconds(form.get("for", ""))
        if not is_sub(sub) or _is_nobody(sub):
            return "invalid-person"
        if route not in grantable(self._generations.in_force):
            return "invalid-route"
        if not seconds:
            return "invalid-duration"
        if not is_message(reason):
            return "invalid-message"
        if sub == operator.sub:
            return "own"
        now = self._now()
        self.note("grant", operator, target=sub, route=route)
        grant = Grant(sub, route, now, now + seconds, reason, operator.by)
        await self._process_state.grants.put(grant)
        return self._done()

    async def _revoke(self, form: Form, operator: Operator) -> str:
        sub, route = form.get("sub", ""), form.get("route", "")
        grants = self._process_state.grants
        found = next((one for one in grants.state.of(sub) if one.route == route), None)
        if found is None:
            return "unchanged"
        self.note("revoke", operator, target=sub, route=route)
        await grants.put(found.revoked(self._now()))
        return self._done()

    async def _decide(self, form: Form, operator: Operator) -> str:
        if operator.approvers_unknown:
            return APPROVERS_UNKNOWN
        if not operator.approves:
            return "no-approver"
        requests = self._process_state.access_requests
        found, seconds = requests.find(form.get("id", "")), CHOICES.get(form.get("for", ""))
        if found is None or seconds is None:
            return "unchanged"
        if found.sub == operator.sub:
            return "own"
        if seconds and found.route not in askable(self._generations.in_force.settings):
            return "invalid-route"
        decision, grants = Decided(found, seconds, operator.by), self._process_state.grants
        done = await decision.carry_out(requests, grants, self._process_state.clock())
        if done:
            order = "approve" if seconds else "decline"
            self.note(order, operator, target=found.sub, route=found.route)
        return self._done() if done else "unchanged"

    async def _end(self, form: Form, operator: Operator) -> str:
        return self._end_those("end", operator, request_id=form.get("id", ""))

    async def _end_all(self, form: Form, operator: Operator) -> str:
        return self._end_those("end-all", operator, who=form.get("who", ""))

    def _end_those(
        self, order: str, operator: Operator, *, who: str = "", request_id: str = ""
    ) -> str:
        """End what is under way, of one person or machine or of one request."""
        found = [
            (owner, request)
            for owner, name, request in under_way(self._generations.in_force, self._connections())
            if (owner == who if who else name == request_id)
        ]
        if not found:
            return "unchanged"
        self.note(order, operator, target=found[0][0], count=len(found))
        for _, request in found:
            request.session_over(Reason.SESSION_ENDED)
        return "done"

    def note(self, order: str, operator: Operator, **facts: object) -> None:
        """Write an order into the audit log."""
        named = {"by_name": operator.who} if operator.who != operator.by else {}
        self._process_state.audit.ordered(order, operator.by, **named, **facts)

    def _now(self) -> int:
        return int(self._process_state.clock())

    def _done(self) -> str:
        return "unsaved" if self._process_state.store.faults else "done"


def _is_nobody(target: str) -> bool:
    """Whether nobody can sign in as a sub; the commands only warn of that."""
    return bool(no_tailchat_id(target.removeprefix(SUB)))


def _seconds(text: str) -> int | None:
    """Return the seconds of a duration, 0 for "", None for any other text."""
    try:
        return int(read_duration(text.strip())) if text.strip() else 0
    except ValueError:
        return None
