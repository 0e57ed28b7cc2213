"""Chooses which of several backends of a route gets a request."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Final

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.proxy.upstream.health import BackendHealth
from tailchat_gate.proxy.upstream.pool import Pool, ReconnectGate

_ALL: Final = 100
#: The most people whose order of backends is cached.
_PEOPLE: Final = 4096


class Member:
    """One of several backends: its connections, its health, and its turn."""

    __slots__ = ("health", "pool", "turn")

    def __init__(self, pool: Pool, health: BackendHealth) -> None:
        self.pool: Final = pool
        self.health: Final = health
        #: The current weight of the smooth weighted round robin.
        self.turn = 0.0


class Balancer:
    """Chooses a backend for each request of a route.

    While less than `panic_threshold` percent of the backends are up, it chooses among all of them:
    the few would be overloaded, and the checks themselves may be wrong.
    """

    def __init__(
        self,
        members: Sequence[Member],
        time: Callable[[], float],
        *,
        in_turn: bool,
        sticky: bool,
        panic_threshold: int,
    ) -> None:
        self.members: Final = tuple(members)
        #: Queues the requests that wait until any of the backends can be reached.
        self.reconnect_gate: Final = ReconnectGate()
        self._time = time
        self._in_turn = in_turn
        self._sticky = sticky
        self._panic_threshold = panic_threshold
        self._orders: BoundedCache[str, tuple[Member, ...]] = BoundedCache(_PEOPLE)
        self._next = 0

    def candidates(self) -> tuple[Member, ...]:
        """Return the backends that may get requests."""
        members = self.members
        up = tuple(member for member in members if member.health.up)
        if not up or len(up) * _ALL < len(members) * self._panic_threshold:
            return members
        return up

    def is_held(self, person: str) -> bool:
        """Whether a person's requests go to one backend while it is up."""
        return self._sticky and bool(person)

    def choose(self, person: str, tried: Collection[Member] = ()) -> Member | None:
        """Return the backend for a request of `person` (or ""), None if all are tried."""
        left = [member for member in self.candidates() if member not in tried]
        if not left:
            return None
        if self.is_held(person):
            return next(member for member in self._order(person) if member in left)
        if self._in_turn:
            return self._in_their_turn(left)
        return self._least_used(left)

    def _order(self, person: str) -> tuple[Member, ...]:
        """Return the backends in a person's order, by rendezvous (highest random weight) hashing.

        So a backend that goes out moves only its own people, who return to it later.
        """
        order = self._orders.get(person)
        if order is None:
            order = tuple(
                sorted(self.members, key=lambda member: _rank(person, member), reverse=True)
            )
            self._orders.keep(person, order)
        return order

    def _in_their_turn(self, left: Sequence[Member]) -> Member:
        """Return the next backend by smooth weighted round robin, as in nginx and Envoy."""
        now, total = self._time(), 0.0
        for member in left:
            weight = member.health.weight(now)
            member.turn += weight
            total += weight
        best = max(left, key=lambda member: member.turn)
        best.turn -= total
        return best

    def _least_used(self, left: Sequence[Member]) -> Member:
        """Return the backend with the fewest requests for its weight; of equal ones the next."""
        now = self._time()
        self._next += 1
        start = self._next % len(left)
        return min(
            (*left[start:], *left[:start]),
            key=lambda member: (member.pool.entered + 1) / member.health.weight(now),
        )


def _rank(person: str, member: Member) -> bytes:
    text = f"{member.pool.backend.url}\n{person}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
