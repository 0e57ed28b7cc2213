"""Listening sockets that another process opened: systemd (sd_listen_fds(3)), or a predecessor."""

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from tailchat_gate.config.values.address import TcpAddress, UnixAddress, listen_address

#: The first descriptor that is passed; the others follow it.
FIRST_DESCRIPTOR: Final = 3
_INET: Final = (socket.AF_INET, socket.AF_INET6)


class PassedSocketError(ValueError):
    """A descriptor that was passed is not a socket that listens."""


class PassedSockets:
    """Sockets that were passed to the process, until each was taken for its address.

    A name in LISTEN_FDNAMES that is an address, percent-encoded, says what the socket is for; it
    counts before the socket's own address, which for a port 0 and for a Unix socket is another.
    """

    def __init__(self, sockets: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._left = list(sockets)

    def take(self, address: str) -> list[socket.socket]:
        """Return the sockets for an address; they are the caller's from now on."""
        named = [found for name, found in self._left if name == name_for(address)]
        taken = named or [found for _, found in self._left if _is_at(found, address)]
        self._left = [(name, found) for name, found in self._left if found not in taken]
        return taken

    def add(self, others: "PassedSockets") -> None:
        """Take over the sockets of others, which came later."""
        self._left += others._left  # noqa: SLF001 - of the same class
        others._left = []  # noqa: SLF001 - as above

    def close_rest(self) -> list[str]:
        """Close the sockets that were not taken; return their addresses."""
        rest = [_shown(found) for _, found in self._left]
        for _, found in self._left:
            found.close()
        self._left.clear()
        return rest


def name_for(address: str) -> str:
    """Return the name by which a socket is passed for an address: it has no colon."""
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
        found = socket.socket(fileno=descriptor)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise PassedSocketError(f"LISTEN_FDS: descriptor {descriptor}: {error.strerror}") from None
    if not listens or found.type != socket.SOCK_STREAM:
        found.detach()
        raise PassedSocketError(
            f"LISTEN_FDS: descriptor {descriptor} is not a stream socket that listens "
            "(in a socket unit: ListenStream=, and not Accept=yes)"
        )
    found.setblocking(False)  # noqa: FBT003 - socket's own signature
    if found.family in _INET:
        # As binding.py sets it on its own.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return found


def _is_at(found: socket.socket, address: str) -> bool:
    where = listen_address(address)
    own = found.getsockname()
    if isinstance(where, UnixAddress):
        return found.family == socket.AF_UNIX and own == where.path
    return found.family in _INET and own[:2] in _numeric(where)


def _numeric(where: TcpAddress) -> Sequence[object]:
    """Return the addresses of a host and a port, of which several belong to a name."""
    try:
        infos = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        return ()
    return [info[4][:2] for info in infos]


def _shown(found: socket.socket) -> str:
    own = found.getsockname()
    if found.family not in _INET:
        return f"unix:{own}"
    host, port = own[:2]
    return str(TcpAddress(host, port))
