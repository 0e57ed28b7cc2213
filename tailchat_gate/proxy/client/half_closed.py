"""Clients that send no more: those that still read are told from those that have left."""

import asyncio
import fcntl
import select
import struct
import termios
from enum import Enum
from typing import Final

_INT: Final = struct.Struct("i")


class PeerEnd(Enum):
    """What is known of a peer whose bytes nobody reads for now: the event loop tells nothing."""

    NONE = "none"
    #: It sends no more than what lies unread; it may still read.
    SENT = "sent"
    BROKEN = "broken"


def peer_end(transport: asyncio.BaseTransport) -> PeerEnd:
    """Ask the socket whether its peer has ended its side, or left."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    events = poll.poll(0)
    if not events:
        return PeerEnd.NONE
    broken = events[0][1] & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
    return PeerEnd.BROKEN if broken else PeerEnd.SENT


def unread_bytes(transport: asyncio.BaseTransport) -> int:
    """Return how many bytes of the peer's lie in the socket."""
    found = transport.get_extra_info("socket").fileno()
    return int(_INT.unpack(fcntl.ioctl(found, termios.FIONREAD, bytes(_INT.size)))[0])


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
