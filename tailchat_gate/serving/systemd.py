"""Sockets passed by another process (sd_listen_fds(3)), messages to a manager (sd_notify(3)).

A gate passes its sockets to its successor in the same way.
"""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import quote

from tailchat_gate.config.values.address import TcpAddress, UnixAddress, listen_address
from tailchat_gate.observe.log import LOGGER_NAME

_log: Final = logging.getLogger(LOGGER_NAME)

#: How much longer than its own limits a stop may take.
_MARGIN_SECONDS: Final = 5.0
_MICROSECONDS: Final = 1_000_000
#: The first descriptor that is passed; the others follow it.
FIRST_DESCRIPTOR: Final = 3
_INET: Final = (socket.AF_INET, socket.AF_INET6)
#: A program that moves the descriptors in its first argument to 3 and up, and then runs the command
#: in the other arguments. It sets LISTEN_PID, since only the new process knows its ID, and unblocks
#: the signals that the gate's threads block.
_MOVE: Final = """
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, [])
given = [int(number) for number in sys.argv[1].split(",")]
wanted = range(3, 3 + len(given))
moved = [fcntl.fcntl(number, fcntl.F_DUPFD, wanted.stop) for number in given]
for number in given:
    os.close(number)
for number, place in zip(moved, wanted):
    os.dup2(number, place)
    os.close(number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServiceManager:
    """Sends messages to the socket at `address`, unless ""; `watchdog` is in seconds, 0 for none.

    A message that cannot be sent is dropped: the gate must not stop because its manager is busy.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        # "@" begins a name in the abstract namespace (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog: Final = watchdog
        self._timer: asyncio.TimerHandle | None = None

    def ready(self, status: str) -> None:
        """Report that the gate serves: after the start, and after each reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report that a reload has begun; `ready` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=loading the configuration")

    def stopping(self, seconds: float) -> None:
        """Report a stop that may take `seconds`, even if that is more than the manager allows."""
        limit = int((seconds + _MARGIN_SECONDS) * _MICROSECONDS)
        self._send(
            "STOPPING=1",
            f"EXTEND_TIMEOUT_USEC={limit}",
            "STATUS=waiting for open requests",
        )

    def succeeded(self, pid: int) -> None:
        """Report that the process `pid` is the service from now on, and send nothing more."""
        self._send(f"MAINPID={pid}")
        self._address = ""

    def start_watchdog(self) -> None:
        """Report regularly from the event loop, twice per limit, so that a stuck loop shows."""
        if self.watchdog:
            self._send("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.watchdog / 2, self.start_watchdog)

    def close(self) -> None:
        """End the reports of the event loop."""
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, *lines: str) -> None:
        if self._address:
            # A new socket each time: a manager that was restarted listens on another one.
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)  # noqa: FBT003 - socket's own signature
                out.sendto("\n".join(lines).encode(), self._address)


def service_manager(environ: Mapping[str, str]) -> ServiceManager:
    """Return the service manager that the variables in `environ` name."""
    address = environ.get("NOTIFY_SOCKET", "")
    limit = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
    watchdog = int(limit) / _MICROSECONDS if limit.isdecimal() and meant else 0.0
    # Other kinds of addresses, such as vsock, only occur in virtual machines.
    return ServiceManager(address if address.startswith(("/", "@")) else "", watchdog)


class PassedSocketError(ValueError):
    """A passed descriptor is not a listening socket."""


class PassedSockets:
    """Sockets that were passed to the process, until each is taken for its address.

    A gate passes the configured address, percent-encoded, in LISTEN_FDNAMES. It takes precedence
    over the socket's own address, which differs for port 0 and for Unix sockets.
    """

    def __init__(self, sockets: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._left = list(sockets)

    def take(self, address: str) -> list[socket.socket]:
        """Return the sockets for an address, which the caller owns from now on."""
        named = [sock for name, sock in self._left if name == name_for(address)]
        taken = named or [sock for _, sock in self._left if _is_at(sock, address)]
        self._left = [(name, sock) for name, sock in self._left if sock not in taken]
        return taken

    def add(self, others: "PassedSockets") -> None:
        """Move the sockets of `others`, which were passed later, to this object."""
        self._left += others._left  # noqa: SLF001 - of the same class
        others._left = []  # noqa: SLF001 - as above

    def close_rest(self) -> None:
        """Close the sockets that were not taken, with a warning about each."""
        for _, sock in self._left:
            _log.warning(
                "a socket was passed that no listener is configured for; it is closed",
                extra={"details": {"address": _shown(sock)}},
            )
            sock.close()
        self._left.clear()


def name_for(address: str) -> str:
    """Return the name in LISTEN_FDNAMES for an address: colons separate names there."""
    return quote(address, safe="")


def passed_sockets(environ: Mapping[str, str]) -> PassedSockets:
    """Return the sockets that the variables in `environ` name. Raises PassedSocketError."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return PassedSockets()
    count = environ.get("LISTEN_FDS", "")
    if not count.isdecimal():
        return PassedSockets()
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * int(count)
    return PassedSockets(
        (name, _listening(FIRST_DESCRIPTOR + index))
        for index, name in zip(range(int(count)), names, strict=False)
    )


def _listening(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - os's own signature
        sock = socket.socket(fileno=descriptor)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise PassedSocketError(f"LISTEN_FDS: descriptor {descriptor}: {error.strerror}") from None
    if not listens or sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise PassedSocketError(
            f"LISTEN_FDS: descriptor {descriptor} is not a listening stream socket "
            "(a socket unit needs ListenStream=, without Accept=yes)"
        )
    sock.setblocking(False)  # noqa: FBT003 - socket's own signature
    if sock.family in _INET:
        # As on the sockets that binding.py makes.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _is_at(sock: socket.socket, address: str) -> bool:
    where = listen_address(address)
    own = sock.getsockname()
    if isinstance(where, UnixAddress):
        return sock.family == socket.AF_UNIX and own == where.path
    return sock.family in _INET and own[:2] in _numeric(where)


def _numeric(where: TcpAddress) -> Sequence[object]:
    """Return the numeric addresses of a host and port; a host name may have several."""
    try:
        infos = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        return ()
    return [info[4][:2] for info in infos]


def _shown(sock: socket.socket) -> str:
    own = sock.getsockname()
    if sock.family not in _INET:
        return f"unix:{own}"
    host, port = own[:2]
    return str(TcpAddress(host, port))


class Passing(NamedTuple):
    """A command, the descriptors that its process inherits, and its environment."""

    command: Sequence[str]
    descriptors: Sequence[int]
    environ: Mapping[str, str]


def passing(
    command: Sequence[str],
    sockets: Sequence[tuple[str, socket.socket]],
    environ: Mapping[str, str],
) -> Passing:
    """Return how to start `command`, whose first word is a path, with the sockets of addresses."""
    descriptors = [sock.fileno() for _, sock in sockets]
    if not descriptors:
        return Passing(command, (), environ)
    variables = {
        "LISTEN_FDS": str(len(descriptors)),
        "LISTEN_FDNAMES": ":".join(name_for(address) for address, _ in sockets),
    }
    moved = ",".join(map(str, descriptors))
    return Passing(
        (sys.executable, "-I", "-S", "-c", _MOVE, moved, *command),
        descriptors,
        {**environ, **variables},
    )
