"""Limits the requests that a tool, or a directory, has at once: in all and of one client."""

from tailchat_gate.proxy.descriptors import Descriptors
from tailchat_gate.reasons import Reason


class RequestSlots:
    """Counts the requests and tunnels that hold a slot, in all and of each client."""

    def __init__(self) -> None:
        self._entered = 0
        self._clients: dict[str, int] = {}

    def enter(self, who: str, most: int, most_of_one: int) -> Reason | None:
        """Give a request of the client `who` a slot; return why not, None where it got one.

        One client may hold `most_of_one` of `most` slots, so that it cannot shut out the others;
        `most` keeps an upstream that hangs from using up the gate's descriptors.
        """
        if self._entered >= most:
            return Reason.UPSTREAM_BUSY
        count = self._clients.get(who, 0)
        if count >= most_of_one:
            return Reason.CLIENT_BUSY
        self._entered += 1
        self._clients[who] = count + 1
        return None

    def leave(self, who: str) -> None:
        """Free a slot."""
        self._entered -= 1
        count = self._clients[who] - 1
        if count:
            self._clients[who] = count
        else:
            del self._clients[who]


class StaticSlots:
    """The slots of a route that the gate answers itself; each may hold a file open.

    `most` and `most_of_one` are as in RequestSlots, 0 for the limit by the descriptors.
    """

    def __init__(self, descriptors: Descriptors, most: int, most_of_one: int) -> None:
        self._descriptors = descriptors
        self._most = most
        self._most_of_one = most_of_one
        self._slots = RequestSlots()

    def enter(self, who: str) -> Reason | None:
        """Give a request of the client `who` a slot; return why not, None where it got one."""
        descriptors = self._descriptors
        most = self._most or descriptors.tool_requests
        refused = self._slots.enter(who, most, self._most_of_one or (most + 1) // 2)
        if refused is None:
            descriptors.upstreams += 1
        return refused

    def leave(self, who: str) -> None:
        """Free a slot."""
        self._descriptors.upstreams -= 1
        self._slots.leave(who)
