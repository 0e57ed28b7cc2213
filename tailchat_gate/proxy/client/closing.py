"""Ends clients' connections: half-closed clients, which still read, and lingering connections."""

import asyncio
import fcntl
import select
import struct
import termios
from enum import Enum
from typing import Final

from tailchat_gate.proxy.sockets import unacknowledged_bytes

#: How long the gate reads and drops a client's bytes after the last response: closing with unread
#: bytes resets the connection, and the reset destroys the response (RFC 9112 section 9.6).
LINGER_SECONDS = 2.0
_INT: Final = struct.Struct("i")


class Lingering:
    """Limits how long a closing connection waits for its client; `now` is the loop's time."""

    __slots__ = ("_acknowledged", "_unsent", "_until")

    def __init__(self, now: float) -> None:
        self._until = now + LINGER_SECONDS
        self._unsent = self._acknowledged = 0

    def is_over(self, transport: asyncio.Transport, now: float) -> bool:
        """Whether the time is up; a client that still reads its response gets more time."""
        if now < self._until:
            return False
        unsent, acknowledged = transport.get_write_buffer_size(), 0
        if transport.get_extra_info("ssl_object") is not None:
            waiting, acknowledged = unacknowledged_bytes(transport)
            unsent += waiting
        if not unsent or (unsent == self._unsent and acknowledged == self._acknowledged):
            return True
        self._unsent, self._acknowledged = unsent, acknowledged
        self._until = now + LINGER_SECONDS
        return False


class PeerEnd(Enum):
    """The state of a peer while reading is paused, which the event loop does not report."""

    OPEN = "open"
    #: It sent EOF after the unread bytes; it may still read.
    EOF = "eof"
    BROKEN = "broken"


def peer_end(transport: asyncio.BaseTransport) -> PeerEnd:
    """Return whether the socket's peer has sent EOF or left."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    events = poll.poll(0)
    if not events:
        return PeerEnd.OPEN
    broken = events[0][1] & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
    return PeerEnd.BROKEN if broken else PeerEnd.EOF


def unread_bytes(transport: asyncio.BaseTransport) -> int:
    """Return the number of received bytes that are unread in the socket."""
    descriptor = transport.get_extra_info("socket").fileno()
    return int(_INT.unpack(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(_INT.size)))[0])


class HalfClosed:
    """Distinguishes a client that still reads from one that has left.

    shutdown(SHUT_WR) and close() send the same FIN; they only differ when the gate sends bytes,
    which a closed TCP socket answers with a reset. A closed Unix socket is noticed at once. A
    client to which nothing is sent counts as gone after `timeout` seconds.
    """

    __slots__ = ("_broken", "_timeout", "_until")

    def __init__(self, transport: asyncio.BaseTransport, now: float, timeout: float) -> None:
        self._timeout: Final = timeout
        self._until = now + timeout
        self._broken: Final = select.poll()
        # poll always reports POLLERR and POLLHUP, which a FIN alone does not cause. The event
        # loop does not report them for a socket that it no longer reads from.
        self._broken.register(transport.get_extra_info("socket").fileno(), 0)

    def wait(self, now: float) -> None:
        """Restart the wait: bytes were sent, or another part of the work began."""
        self._until = now + self._timeout

    def has_left(self, now: float, *, quiet: bool) -> bool:
        """Whether the client counts as gone; `quiet`: nothing was sent since the last call."""
        if self._broken.poll(0):
            return True
        if not quiet:
            self.wait(now)
        return now >= self._until
