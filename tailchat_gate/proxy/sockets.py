"""Sockets of clients and upstreams: bounded buffers, EOF and reset."""

import asyncio
import mmap
import os
import socket
import ssl
import struct
from typing import Final, Protocol

#: The size of a normal read: what the other peer does not take of it stays in memory.
READ_BYTES: Final = 65_536
#: The size of a read where the other peer's socket has room for all of it. Large bodies then cost
#: a third less CPU time than with small reads.
LARGE_READ_BYTES: Final = 262_144
#: Linux's SO_MEMINFO, and where in it the size of the send buffer is, and what of it is in use:
#: allocated (Unix sockets), queued (TCP). See sock_diag(7).
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("9I")
_ALLOCATED, _SIZE, _QUEUED = 2, 3, 5

#: Of SO_LINGER: on, for no time (socket(7)).
_RESET: Final = struct.pack("ii", 1, 0)
#: The most that `read_remaining` reads.
_MAX_BYTES: Final = 262_144


class ReadBuffers:
    """The read buffer that all connections of one event loop share."""

    __slots__ = ("large", "octets", "small")

    def __init__(self) -> None:
        #: What both views show; a map, because a slice of one is `bytes`: one step in place of two.
        self.octets: Final = mmap.mmap(-1, LARGE_READ_BYTES)
        self.large: Final = memoryview(self.octets)
        self.small: Final = self.large[:READ_BYTES]

    def fitting(self, onward: asyncio.Transport | None) -> memoryview:
        """Return the large buffer where `onward` can take all of it at once, else the small one."""
        if onward is not None and _room(onward) >= LARGE_READ_BYTES:
            return self.large
        return self.small


class Receiver(Protocol):
    """A connection that is read through shared buffers."""

    @property
    def buffers(self) -> ReadBuffers:
        """The read buffers of its event loop."""

    def eof_received(self) -> bool | None:
        """The peer sent EOF."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""

    def pause_writing(self) -> None:
        """The write buffer is full."""

    def resume_writing(self) -> None:
        """The write buffer has room again."""


def tell_of_rest(transport: asyncio.Transport) -> None:
    """Have `pause_writing` called as soon as a write does not go out whole.

    The source of the bytes then stops after one read. The default limits are 64 KiB, and 512 KiB
    for TLS. The limit is not 0, because asyncio's TLS then never calls `resume_writing`.
    """
    transport.set_write_buffer_limits(high=1, low=0)


def reset_on_close(transport: asyncio.Transport) -> None:
    """Let a close reset the connection, so that the peer does not take a message for complete."""
    found = transport.get_extra_info("socket")
    if found is not None and not transport.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _room(transport: asyncio.Transport) -> int:
    """Return how many bytes the transport's socket takes at once, at least."""
    found = transport.get_extra_info("socket")
    if found is None or transport.is_closing():
        return 0
    try:
        info = _MEMINFO.unpack(found.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):
        return 0
    # Half, because the kernel also counts its bookkeeping (socket(7), SO_SNDBUF).
    size, used = int(info[_SIZE]), max(int(info[_ALLOCATED]), int(info[_QUEUED]))
    return (size - used) // 2


def read_remaining(transport: asyncio.Transport | None) -> bytes:
    """Return the unread bytes that the peer sent before its connection was reset; b"" for TLS.

    Call it in connection_lost, while the socket is still open. A failed write closes a transport
    at once, even where the peer's last bytes are unread: a 413 or a close frame.
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
    """Send EOF after what was written; return False where the peer has reset the connection.

    In that case asyncio's transport raises, uvloop's does not.
    """
    try:
        transport.write_eof()
    except OSError:
        transport.abort()
        return False
    return True


def eof_is_authentic(transport: asyncio.Transport | None) -> bool:
    """Whether EOF is authenticated: always for TCP; for TLS only after close_notify.

    Anyone on the network path can send a FIN, so with TLS only close_notify shows that all bytes
    have arrived (RFC 9112 section 9.8, RFC 8446 section 6.1).
    """
    found = transport.get_extra_info("ssl_object") if transport is not None else None
    if found is None:
        return True
    try:
        # The protocol got all bytes before EOF, so this read takes none away.
        return not found.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
