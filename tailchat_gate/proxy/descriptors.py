"""The process's file descriptors: how many traffic may use, and who gets them."""

import logging
import resource
import time
from collections.abc import Callable
from typing import Final

from tailchat_gate.observe.log import LOGGER_NAME, FaultLog
from tailchat_gate.reasons import Reason

#: Reserved for the admin listener, the locks, the logs and the files of a configuration.
_RESERVE: Final = 64
#: A further reserve, one in this many: the event loop accepts all connections of one turn before
#: the gate can reject any.
_BURST_PART: Final = 8
_MOST_BURST: Final = 1024
#: Where the system sets no limit.
_UNLIMITED: Final = 1 << 20
_MOST_REQUESTS: Final = 10_000
_MOST_CONNECTIONS: Final = 4000

_log: Final = logging.getLogger(LOGGER_NAME)


def raise_limit() -> None:
    """Raise the process's soft limit of descriptors to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        _log.warning(
            "the limit of file descriptors stays", extra={"details": {"error": str(error)}}
        )


class Descriptors:
    """Counts the descriptors that connections to clients and upstreams use.

    What opens a connection counts it in `clients` or `upstreams`.
    """

    def __init__(self) -> None:
        self._time = time.monotonic
        self.clients = self.upstreams = 0
        #: How often no descriptor was left.
        self.exhausted = 0
        self._faults = FaultLog(self._time)
        #: Each closes the oldest idle connection, and returns False where none was idle.
        self.closers: Final[list[Callable[[], bool]]] = []
        self.measure()

    def measure(self) -> None:
        """Read the limit of the process."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        every = _UNLIMITED if soft == resource.RLIM_INFINITY else soft
        #: How many connections may wait to be accepted.
        self.backlog = max(16, min(every // _BURST_PART, _MOST_BURST))
        #: How many descriptors traffic may use.
        self.limit = max(every - _RESERVE - self.backlog, every // 2)
        #: How many more descriptors rejected connections may use.
        self._grace = self.backlog // 2

    @property
    def tool_requests(self) -> int:
        """How many requests and WebSockets one tool may have; each takes two descriptors."""
        return max(1, min(self.limit // 4, _MOST_REQUESTS))

    @property
    def client_connections(self) -> int:
        """How many connections one client may have."""
        return max(1, min(self.limit // 2, _MOST_CONNECTIONS))

    def make_room(self) -> bool:
        """Whether one more descriptor may be used; at the limit, close an idle connection."""
        if self.clients + self.upstreams < self.limit:
            return True
        self.note()
        return any(close() for close in self.closers)

    def may_linger(self) -> bool:
        """Whether a rejected client may stay connected until it has read why."""
        return self.clients + self.upstreams < self.limit + self._grace

    def note(self) -> None:
        """Note that all descriptors are in use: count it, and log it once a minute."""
        self.exhausted += 1
        details = {"limit": self.limit, "clients": self.clients, "upstreams": self.upstreams}
        self._faults.tell("all file descriptors are in use", details)


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
