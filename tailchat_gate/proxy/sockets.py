"""Sockets on both sides: bounded buffers and the end of a connection.

A peer that reads nothing costs little memory.
"""

import asyncio
import os
import socket
import ssl
import struct
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

#: Of SO_LINGER: on, for no time (socket(7)).
_RESET: Final = struct.pack("ii", 1, 0)
#: How much of them is read at most.
_MAX_BYTES: Final = 262_144


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


def reset_on_close(transport: asyncio.Transport) -> None:
    """Have the peer see a reset where a close would look like the end of a whole message."""
    found = transport.get_extra_info("socket")
    if found is not None and not transport.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


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
    """Whether the peer itself has ended what it sends, once an end was heard of.

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
