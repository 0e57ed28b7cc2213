"""Accepts connections on listening sockets, and pauses while there is no room for one.

asyncio's loop and workers need it for every address, uvloop in a single process only for addresses
with TLS or a PROXY header.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from tailchat_gate.serving.listening.balance import Balance

#: How many connections are accepted in one iteration of the loop.
_BATCH: Final = 32
#: The most connections accepted before a close; the kernel's queue is usually shorter.
_MOST_WAITING: Final = 4096
#: Seconds of a pause when the system has no descriptor or memory for a connection.
BACK_OFF_SECONDS: Final = 0.25
#: Seconds of a pause while as many connections are being opened as allowed.
CROWDED_SECONDS: Final = 0.02
#: A worker that is ahead leaves connections to the others for _LEFT_SECONDS, and checks again every
#: _AHEAD_SECONDS. If the others are busy or hang, it then accepts one connection, two after another
#: such time, then four, and so on.
_AHEAD_SECONDS: Final = 0.001
_LEFT_SECONDS: Final = 0.01


class Taker(Protocol):
    """Turns accepted sockets into client connections."""

    def has_room(self) -> bool:
        """Whether another connection may be accepted now."""

    def make_room(self) -> None:
        """Called when a connection waits for which there is no room."""

    def take(self, accepted: socket.socket, peer: object) -> None:
        """Start a connection; `peer` is the address of the socket's peer."""

    async def settled(self) -> None:
        """Wait until all accepted sockets have their connections."""


class Acceptor:
    """Accepts connections on a listening socket; `close` closes the socket.

    It replaces asyncio's own server, which retries once per connection in the backlog and logs a
    traceback each time: hundreds of megabytes while the process has no descriptor left.

    `taker` gets each socket; while it has no room, connections wait in the kernel's queue. `failed`
    is called when the system is out of descriptors or memory. `balance` is given if other processes
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
        """Accept what waits in the kernel's queue, then close the socket."""
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
                # Only the first time is it certain that a connection waits.
                if not turn:
                    self._taker.make_room()
                    self._wait(CROWDED_SECONDS)
                return
            if self._balance is not None and self._leaves_next(self._balance):
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

    def _leaves_next(self, balance: Balance) -> bool:
        """Whether to leave the next connection to another worker for now."""
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
    """Starts connections of plain HTTP, each with a protocol from `make`."""

    def __init__(self, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()

    def has_room(self) -> bool:
        """Return True: a connection needs no handshake."""
        return True

    def make_room(self) -> None:
        """Do nothing: there is always room."""

    def take(self, accepted: socket.socket, peer: object) -> None:  # noqa: ARG002 - not needed
        """Start a connection."""
        opening = self._loop.create_task(self._loop.connect_accepted_socket(self._make, accepted))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def settled(self) -> None:
        """Wait until all accepted sockets have their connections."""
        if self._opening:
            await asyncio.wait(self._opening)


def waiting(listening: socket.socket) -> Iterator[tuple[socket.socket, object]]:
    """Accept and yield the connections in the kernel's queue, with their peers' addresses.

    Closing the socket would reset them.
    """
    for _ in range(_MOST_WAITING):
        try:
            yield listening.accept()
        except OSError:
            return
