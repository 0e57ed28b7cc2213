"""How many requests a tool, or a directory of files, may have at once, in all and of one client."""

from tailchat_gate.proxy.descriptors import Descriptors
from tailchat_gate.reasons import Reason


class RequestSlots:
    """Counts the requests and tunnels that have a place, in all and of each client."""

    def __init__(self) -> None:
        self._entered = 0
        self._clients: dict[str, int] = {}

    def enter(self, who: str, most: int, most_of_one: int) -> Reason | None:
        """Give a request of a client a place; return why it gets none, None where it has one.

        One client may fill `most_of_one` of `most` places, so that no client closes the upstream
        to the others, and no upstream that hangs takes all that the gate has.
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
        """Take a place back."""
        self._entered -= 1
        count = self._clients[who] - 1
        if count:
            self._clients[who] = count
        else:
            del self._clients[who]


class StaticSlots:
    """The places of a route that the gate answers itself; each may hold a file open.

    `most` and `most_of_one` as for Places, 0 for what the descriptors allow.
    """

    def __init__(self, descriptors: Descriptors, most: int, most_of_one: int) -> None:
        self._descriptors = descriptors
        self._most = most
        self._most_of_one = most_of_one
        self._slots = RequestSlots()

    def enter(self, who: str) -> Reason | None:
        """Give a request of a client a place; return why it gets none, None where it has one."""
        descriptors = self._descriptors
        most = self._most or descriptors.tool_requests
        refused = self._slots.enter(who, most, self._most_of_one or (most + 1) // 2)
        if refused is None:
            descriptors.upstreams += 1
        return refused

    def leave(self, who: str) -> None:
        """Take a place back."""
        self._descriptors.upstreams -= 1
        self._slots.leave(who)
