"""Sockets of clients and upstreams: limits of their number, buffers, EOF and reset."""

import asyncio
import fcntl
import logging
import mmap
import os
import resource
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from tailchat_gate.observe.log import LOGGER_NAME, FaultLog
from tailchat_gate.reasons import Reason

_T = TypeVar("_T")

#: The bytes of a normal read; what the other peer does not take stays in memory.
READ_BYTES: Final = 65_536
#: The bytes of a read if the other peer's socket has room for all of it. Large bodies then need a
#: third less CPU time than with small reads.
LARGE_READ_BYTES: Final = 262_144
#: Linux's SO_MEMINFO, and the positions in it of the send buffer's size and used bytes: allocated
#: (Unix sockets) or queued (TCP). See sock_diag(7).
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("9I")
_ALLOCATED, _SIZE, _QUEUED = 2, 3, 5

_INT: Final = struct.Struct("i")
#: Linux's TCP_INFO: tcpi_bytes_acked, after 120 bytes.
_BYTES_ACKED: Final = struct.Struct("120xQ")

#: A value of SO_LINGER: on, with 0 seconds (socket(7)).
_RESET: Final = struct.pack("ii", 1, 0)
#: The most bytes that `read_remaining` reads.
_MAX_BYTES: Final = 262_144


class ReadBuffers:
    """The read buffer that all connections of one event loop share."""

    __slots__ = ("large", "octets", "small")

    def __init__(self) -> None:
        #: The memory of both views; a map, because slicing it returns `bytes` in one step.
        self.octets: Final = mmap.mmap(-1, LARGE_READ_BYTES)
        self.large: Final = memoryview(self.octets)
        self.small: Final = self.large[:READ_BYTES]

    def fitting(self, onward: asyncio.Transport | None) -> memoryview:
        """Return the large buffer if `onward` can take all of it at once, else the small one."""
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
    """Make the transport call `pause_writing` as soon as a write is not sent completely.

    The source of the bytes then stops after one read. The default limits are 64 KiB, and 512 KiB
    for TLS. The limit is not 0, because asyncio's TLS would then never call `resume_writing`.
    """
    transport.set_write_buffer_limits(high=1, low=0)


def peer_address(peer: object) -> str:
    """Return the address of a socket's peer from getpeername.

    The peer of a Unix socket is on this machine. An IPv4 address is mapped into IPv6 if a listener
    accepts both (RFC 4291 section 2.5.5.2).
    """
    if isinstance(peer, tuple) and peer:
        return str(peer[0]).removeprefix("::ffff:")
    return "127.0.0.1"


def reset_on_close(transport: asyncio.Transport) -> None:
    """Let a close reset the connection, so that the peer does not take a message for complete."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _room(transport: asyncio.Transport) -> int:
    """Return the least number of bytes that the transport's socket takes at once."""
    sock = transport.get_extra_info("socket")
    if sock is None or transport.is_closing():
        return 0
    try:
        info = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):
        return 0
    # Half, because the kernel also counts its bookkeeping (socket(7), SO_SNDBUF).
    size, used = int(info[_SIZE]), max(int(info[_ALLOCATED]), int(info[_QUEUED]))
    return (size - used) // 2


def unacknowledged_bytes(transport: asyncio.Transport) -> tuple[int, int]:
    """Return the bytes in the kernel's send buffer, and those that the peer has acknowledged.

    A TLS transport does not count the bytes in the kernel's buffer.
    """
    sock = transport.get_extra_info("socket")
    try:
        waiting = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    except OSError:
        return 0, 0
    return int(_INT.unpack(waiting)[0]), int(_BYTES_ACKED.unpack(info)[0])


def read_remaining(transport: asyncio.Transport | None) -> bytes:
    """Return the unread bytes that the peer sent before its connection was reset; b"" for TLS.

    Call it in connection_lost, while the socket is still open. A failed write closes a transport at
    once, even if the peer's last bytes, such as a 413 or a close frame, are unread.
    """
    if transport is None or transport.get_extra_info("ssl_object") is not None:
        return b""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return b""
    words = b""
    try:
        while len(words) < _MAX_BYTES and (more := os.read(sock.fileno(), _MAX_BYTES)):
            words += more
    except OSError:
        return words
    return words


def end_writing(transport: asyncio.Transport) -> bool:
    """Send EOF after the written bytes; return False if the peer has reset the connection.

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
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if tls is None:
        return True
    try:
        # The protocol got all bytes before EOF, so this read takes none away.
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


#: Reserved for the admin listener, the locks, the logs and the files of a configuration.
_RESERVE: Final = 64
#: A further reserve, one in this many: the event loop accepts all connections of one turn before
#: the gate can reject any.
_BURST_PART: Final = 8
_MOST_BURST: Final = 1024
#: The limit if the system sets none.
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
            "the limit of file descriptors could not be raised",
            extra={"details": {"error": str(error)}},
        )


def shares(limit: int) -> tuple[int, int]:
    """Return the descriptors that a process's limit leaves for accepting, and for traffic."""
    every = _UNLIMITED if limit == resource.RLIM_INFINITY else limit
    backlog = max(16, min(every // _BURST_PART, _MOST_BURST))
    return backlog, max(every - _RESERVE - backlog, every // 2)


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
        #: Each closes the oldest idle connection, and returns False if none was idle.
        self.closers: Final[list[Callable[[], bool]]] = []
        #: Counts the clients with a request under way.
        self.busy_clients: Callable[[], int] = int
        self.measure()

    def measure(self) -> None:
        """Read the limit of the process."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        #: How many connections may wait to be accepted, and how many descriptors traffic may use.
        self.backlog, self.limit = shares(soft)
        #: How many more descriptors rejected connections may use.
        self._grace = self.backlog // 2

    @property
    def tool_requests(self) -> int:
        """The most requests and WebSockets of one tool; each takes two descriptors."""
        return max(1, min(self.limit // 4, _MOST_REQUESTS))

    @property
    def client_connections(self) -> int:
        """The number of connections that one client may have."""
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
        """Count that all descriptors are in use, and log it at most once a minute."""
        self.exhausted += 1
        details = {"limit": self.limit, "clients": self.clients, "upstreams": self.upstreams}
        self._faults.tell("all file descriptors are in use", details)


def check_each(
    checked: Iterable[_T], check: Callable[[_T], object], end: Callable[[_T], object] | None = None
) -> None:
    """Check each of them; a fault in the check of one `end`s that one, and skips no other."""
    for one in checked:
        try:
            check(one)
        except Exception:  # noqa: BLE001 - of any kind: the time limits of the others still hold
            _log.exception("a check of time limits failed inside the gate")
            if end is not None:
                # Later, because a fault in this must skip no other either.
                asyncio.get_running_loop().call_soon(end, one)


def slots_of_one(most: int, wanted: int) -> int:
    """Return the number of a tool's slots that one client may hold; `wanted` is 0 by default."""
    return wanted or (most + 1) // 2


class RequestSlots:
    """Counts the requests and tunnels that hold a slot, in all and of each client."""

    def __init__(self) -> None:
        self._entered = 0
        self._clients: dict[str, int] = {}

    @property
    def entered(self) -> int:
        """The number of requests and tunnels that hold a slot."""
        return self._entered

    def enter(self, who: str, most: int, most_of_one: int) -> Reason | None:
        """Give a request of the client `who` a slot; return why not, None if it got one.

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
        count = self._clients[who] - 1
        self._entered -= 1
        if count:
            self._clients[who] = count
        else:
            del self._clients[who]
