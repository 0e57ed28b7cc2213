"""The connections of each client: how many one may have, and which of them makes room."""

import heapq
from collections.abc import Collection
from typing import Final, Protocol

#: Of the idle connections this part is closed at once, so that to find them costs little.
_CLOSED_PART: Final = 16


class Closable(Protocol):
    """A connection, as far as it can be closed for want of room."""

    @property
    def idle_deadline(self) -> float:
        """When it ends if no request comes, 0 while one is under way or while it is closing."""

    def close_idle(self) -> None:
        """Close it."""


class Peers:
    """Counts connections by client. A client that fills its places with idle ones loses these."""

    def __init__(self) -> None:
        self._open: dict[str, set[Closable]] = {}
        #: Clients of which no connection was idle a moment ago.
        self._busy: set[str] = set()

    def enter(self, who: str, connection: Closable, most: int) -> bool:
        """Count a connection; return False, and do not, where the client has too many."""
        found = self._open.get(who)
        if found is None:
            found = self._open[who] = set()
        elif len(found) >= most and not self._make_room(who, found):
            return False
        found.add(connection)
        return True

    def leave(self, who: str, connection: Closable) -> None:
        """Forget a connection."""
        found = self._open.get(who)
        if found is not None:
            found.discard(connection)
            if not found:
                del self._open[who]

    def sweep(self) -> None:
        """Look again whether connections are idle."""
        self._busy.clear()

    def _make_room(self, who: str, connections: Collection[Closable]) -> bool:
        if who in self._busy:
            return False
        if close_oldest(connections):
            return True
        self._busy.add(who)
        return False


def close_oldest(connections: Collection[Closable]) -> bool:
    """Close those that are idle and end soonest; return whether there was one."""
    idle = [one for one in connections if one.idle_deadline]
    for one in heapq.nsmallest(len(idle) // _CLOSED_PART + 1, idle, key=lambda c: c.idle_deadline):
        one.close_idle()
    return bool(idle)
