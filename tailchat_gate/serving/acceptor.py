"""Accepts connections of listening sockets, and pauses while there is no room for one.

On asyncio's loop and in workers it does so for every address; on uvloop in a single process only
for those with TLS or a PROXY header.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from tailchat_gate.serving.balance import Balance

#: How many connections are accepted in one iteration of the loop.
_BATCH: Final = 32
#: The most connections that are accepted at the end; the kernel's queue is not longer as a rule.
_MOST_WAITING: Final = 4096
#: How long accepting pauses after the system had no descriptor or memory for a connection.
BACK_OFF_SECONDS: Final = 0.25
#: How long it pauses where as many connections are being opened as may be.
CROWDED_SECONDS: Final = 0.02
#: How often a worker that is ahead of another looks again, and how long it leaves connections to
#: the others. One that is busy or hangs does not take them: then this one takes a connection, after
#: the same time two, then four.
_AHEAD_SECONDS: Final = 0.001
_LEFT_SECONDS: Final = 0.01


class Taker(Protocol):
    """Makes client connections of accepted sockets."""

    def has_room(self) -> bool:
        """Whether one more may be accepted now."""

    def make_room(self) -> None:
        """One waits, and there is no room for it."""

    def take(self, accepted: socket.socket, peer: object) -> None:
        """Make a connection; `peer` is the name of the socket's peer."""

    async def settled(self) -> None:
        """Wait until those that were taken are connections."""


class Acceptor:
    """Accepts connections on a listening socket; `close` closes the socket.

    asyncio's own server retries once per connection in the backlog and logs a traceback each
    time: hundreds of megabytes while the process has no descriptor left. uvloop does not. `taker`
    gets each connection; `failed` is called when the system is out of descriptors or memory.
    While there is no room, connections wait in the system's queue. `balance`: other processes
    accept from the same queue.
    """

    def __init__(
        self,
        listening: socket.socket,
        taker: Taker,
        failed: Callable[[], None],
        balance: Balance | None = None,
    ) -> None:
        self.socket: Final = listening
        self._taker = taker
        self._failed = failed
        self._balance = balance
        self._left_until = 0.0
        self._allowed, self._next_allowed = 0, 1
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def start(self, backlog: int) -> None:
        """Listen and accept connections."""
        self.socket.setblocking(False)  # noqa: FBT003 - socket's own signature
        self.socket.listen(backlog)
        self._resume()

    async def close(self) -> None:
        """Accept no further connection, after those that wait in the kernel's queue already."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self.socket)
        for accepted, peer in waiting(self.socket):
            self._open(accepted, peer)
        self.socket.close()
        await self._taker.settled()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self.socket, self._accept)

    def _accept(self) -> None:
        for turn in range(_BATCH):
            if not self._taker.has_room():
                # After the first one it is not known if another waits; the loop says so.
                if not turn:
                    self._taker.make_room()
                    self._wait(CROWDED_SECONDS)
                return
            if self._balance is not None and self._leaves_it(self._balance):
                self._wait(_AHEAD_SECONDS)
                return
            try:
                accepted, peer = self.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._wait(BACK_OFF_SECONDS)
                self._failed()
                return
            if self._balance is not None:
                self._balance.took()
            self._open(accepted, peer)

    def _leaves_it(self, balance: Balance) -> bool:
        """Whether another worker may take the next connection."""
        now = self._loop.time()
        if not balance.is_ahead or now > self._left_until + _LEFT_SECONDS:
            self._allowed, self._next_allowed = 0, 1
            self._left_until = now + _LEFT_SECONDS
            return balance.is_ahead
        if self._allowed:
            self._allowed -= 1
            return False
        if now < self._left_until:
            return True
        self._allowed, self._next_allowed = self._next_allowed - 1, 2 * self._next_allowed
        self._left_until = now + _LEFT_SECONDS
        return False

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self.socket)
        self._pause = self._loop.call_later(seconds, self._resume)

    def _open(self, accepted: socket.socket, peer: object) -> None:
        accepted.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._taker.take(accepted, peer)


class PlainTaker:
    """Takes connections of plain HTTP, with protocols that `make` makes."""

    def __init__(self, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()

    def has_room(self) -> bool:
        """Return True: what is accepted is a connection at once."""
        return True

    def make_room(self) -> None:
        """Do nothing: there always is."""

    def take(self, accepted: socket.socket, peer: object) -> None:  # noqa: ARG002 - not needed
        """Make a connection."""
        opening = self._loop.create_task(self._loop.connect_accepted_socket(self._make, accepted))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def settled(self) -> None:
        """Wait until those that were taken are connections."""
        if self._opening:
            await asyncio.wait(self._opening)


def waiting(listening: socket.socket) -> Iterator[tuple[socket.socket, object]]:
    """Yield the connections that clients have made and the gate has not accepted, and their peers.

    To close the socket would reset them.
    """
    for _ in range(_MOST_WAITING):
        try:
            yield listening.accept()
        except OSError:
            return
