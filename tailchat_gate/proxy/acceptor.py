"""Accepts connections on asyncio's own loop, and waits where the system has no room for one."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

#: How many connections are accepted in one turn of the loop.
_BATCH: Final = 32
#: How long nothing is accepted after the system had no descriptor or memory for a connection.
BACK_OFF_SECONDS: Final = 0.25


class Acceptor:
    """Accepts on a listening socket, which it closes in the end.

    asyncio's own way asks again for each connection that may wait, and writes a traceback each
    time: hundreds of megabytes of log while the process has no descriptor left. uvloop's has none
    of this. `make` makes the protocol of a connection; `failed` hears that the system has no room.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        failed: Callable[[], None],
    ) -> None:
        self._socket = listening
        self._make = make
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None

    def start(self, backlog: int) -> None:
        """Listen, and begin to accept."""
        self._socket.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._socket.listen(backlog)
        self._resume()

    def close(self) -> None:
        """Accept no further connection."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(BACK_OFF_SECONDS, self._resume)
                self._failed()
                return
            accepted.setblocking(False)  # noqa: FBT003 - socket's own signature
            opening = self._loop.create_task(
                self._loop.connect_accepted_socket(self._make, accepted)
            )
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
