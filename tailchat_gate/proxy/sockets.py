"""Sockets on both sides: bounded buffers, half-closed clients, the end of a connection.

A peer that reads nothing costs little memory, and one client has a bounded number of connections.
"""

import asyncio
import fcntl
import heapq
import os
import select
import socket
import ssl
import struct
import termios
from collections.abc import Collection
from enum import Enum
from typing import Final, Protocol

#: How much one read takes as a rule: what the other side does not take of it stays in memory.
READ_BYTES: Final = 65_536
#: How much it takes where the other side's socket has room for all of it. Large bodies then cost
#: a third less CPU time than with small reads.
LARGE_READ_BYTES: Final = 262_144
#: Linux's SO_MEMINFO, and where in it the size of the send buffer is, and what of it is in use:
#: allocated (Unix sockets), queued (TCP). See sock_diag(7).
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("9I")
_ALLOCATED, _SIZE, _QUEUED = 2, 3, 5

#: How much of them is read at most.
_MAX_BYTES: Final = 262_144

_INT: Final = struct.Struct("i")

#: Of the idle connections this part is closed at once, so that to find them costs little.
_CLOSED_PART: Final = 16


class ReadBuffers:
    """The memory through which the connections of one event loop are read."""

    __slots__ = ("large", "small")

    def __init__(self) -> None:
        self.large: Final = memoryview(bytearray(LARGE_READ_BYTES))
        self.small: Final = self.large[:READ_BYTES]

    def fitting(self, onward: asyncio.Transport | None) -> memoryview:
        """Return where to read what will be written to `onward`: it should go out whole."""
        if onward is not None and _room(onward) >= LARGE_READ_BYTES:
            return self.large
        return self.small


class Receiver(Protocol):
    """A connection that is read through shared buffers."""

    @property
    def buffers(self) -> ReadBuffers:
        """Those of its loop."""

    def eof_received(self) -> bool | None:
        """Hear that the peer sends no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the connection is gone."""

    def pause_writing(self) -> None:
        """Hear that the peer takes no more for now."""

    def resume_writing(self) -> None:
        """Hear that it takes more again."""


def tell_of_rest(transport: asyncio.Transport) -> None:
    """Have `pause_writing` called as soon as a write does not go out whole.

    Whoever feeds the connection then stops with what one read brought. The loops would wait for
    64 KiB, and for 512 KiB of TLS. Not 0, at which asyncio's TLS never calls `resume_writing`.
    """
    transport.set_write_buffer_limits(high=1, low=0)


def _room(transport: asyncio.Transport) -> int:
    """Return how many bytes the transport's socket will take at once, at the least."""
    found = transport.get_extra_info("socket")
    if found is None or transport.is_closing():
        return 0
    try:
        info = _MEMINFO.unpack(found.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):
        return 0
    # Half, because the kernel counts what it keeps beside the bytes, too (socket(7), SO_SNDBUF).
    size, used = int(info[_SIZE]), max(int(info[_ALLOCATED]), int(info[_QUEUED]))
    return (size - used) // 2


def read_remaining(transport: asyncio.Transport | None) -> bytes:
    """Return what the peer had sent before its connection broke, as far as nobody has read it.

    To be asked while connection_lost runs, when the socket is still open. A write that fails is
    the end of a transport at once, even where the reason for it lies unread in the socket: the
    413 or the close frame behind which the peer has closed. Of TLS nothing is returned.
    """
    if transport is None or transport.get_extra_info("ssl_object") is not None:
        return b""
    found = transport.get_extra_info("socket")
    if found is None:
        return b""
    words = b""
    try:
        while len(words) < _MAX_BYTES and (more := os.read(found.fileno(), _MAX_BYTES)):
            words += more
    except OSError:
        return words
    return words


def end_writing(transport: asyncio.Transport) -> bool:
    """Send the end of what was written; return False where the peer has reset the connection.

    asyncio's own transport raises then, uvloop's does not.
    """
    try:
        transport.write_eof()
    except OSError:
        transport.abort()
        return False
    return True


def eof_is_authentic(transport: asyncio.Transport | None) -> bool:
    """Tell whether the peer itself has ended what it sends, once an end was heard of.

    The end of TCP is enough. Of TLS it is not: anybody between can make one, so only the closing
    alert says that all has come (RFC 9112 section 9.8, RFC 8446 section 6.1).
    """
    found = transport.get_extra_info("ssl_object") if transport is not None else None
    if found is None:
        return True
    try:
        # All that came was given to the protocol before the end was: nothing is taken here.
        return not found.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


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


class Closable(Protocol):
    """A connection, as far as it can be closed for want of room."""

    @property
    def idle_deadline(self) -> float:
        """When it ends if no request comes, 0 while one is under way or while it is closing."""

    def close_idle(self) -> None:
        """Close it."""


class ClientConnectionLimits:
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
