"""A client that has closed its side of the connection while it waits for its response."""

import asyncio
import select
from typing import Final


class HalfClosed:
    """Tells a client that still reads from one that has left.

    The FIN of shutdown(SHUT_WR) is the same as that of close(): the difference shows in what the
    other end does with bytes that are sent to it. A closed TCP socket answers them with a reset,
    a closed Unix socket is known at once. While nothing is sent there is nothing to tell by, so
    such a client is taken for gone after `patience` seconds.
    """

    __slots__ = ("_broken", "_patience", "_until")

    def __init__(self, transport: asyncio.BaseTransport, now: float, patience: float) -> None:
        self._patience: Final = patience
        self._until = now + patience
        self._broken: Final = select.poll()
        # No event but those that are always reported: POLLERR and POLLHUP, which a FIN alone is
        # not. The event loop does not tell them of a socket that it no longer reads from.
        self._broken.register(transport.get_extra_info("socket").fileno(), 0)

    def wait(self, now: float) -> None:
        """Begin to wait, as something was sent or another part of the work began."""
        self._until = now + self._patience

    def has_left(self, now: float, *, quiet: bool) -> bool:
        """Tell whether the client is taken for gone; `quiet`: nothing was sent to it lately."""
        if self._broken.poll(0):
            return True
        if not quiet:
            self.wait(now)
        return now >= self._until
