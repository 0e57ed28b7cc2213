"""Binds sockets to the addresses of a configuration, with the configured mode and group."""

import errno
import fcntl
import grp
import os
import socket
import stat
from pathlib import Path
from typing import Final, NamedTuple

from tailchat_gate.config.values.address import TcpAddress, UnixAddress, listen_address

_EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104 - compared only
_EVERY_IPV6: Final = "::"
#: A name such as localhost has an address of a family that this machine does not support.
_NOT_HERE: Final = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))
#: Results of a non-blocking connect that count as listened on; EAGAIN: the queue is full.
_LISTENED_ON: Final = frozenset((0, errno.EAGAIN, errno.EACCES, errno.EPERM))

#: A Unix socket is first bound in this directory, under a name with this prefix.
_DESCRIPTORS: Final = "/proc/self/fd"
_FIRST_NAME: Final = ".gate-"

#: A result of getaddrinfo: family, type, protocol, canonical name, address.
_AddressInfo = tuple[
    int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]


class Rights(NamedTuple):
    """The access rights of a Unix socket: its mode, and its group ("" for the process's own)."""

    mode: int
    group: str = ""


#: For the admin socket: only the user of the process.
OWNER_ONLY: Final = Rights(0o600)


def bind(address: str, rights: Rights, *, ipv6_only: bool = False) -> list[socket.socket]:
    """Return the sockets for an address: several if it is a name with several addresses.

    `[::]` also accepts IPv4 unless `ipv6_only`. Raises OSError. Blocks.
    """
    where = listen_address(address)
    if isinstance(where, UnixAddress):
        return [_bind_unix(Path(where.path), rights)]
    return _bind_tcp(where, ipv6_only=ipv6_only)


def takes_ipv4_elsewhere(address: str, others: tuple[str, ...]) -> bool:
    """Whether `address` is `[::]` and another address is `0.0.0.0` on the same port."""
    where = listen_address(address)
    return (
        isinstance(where, TcpAddress)
        and where.host == _EVERY_IPV6
        and str(TcpAddress(_EVERY_IPV4, where.port)) in others
    )


def set_rights(path: Path, rights: Rights) -> None:
    """Give a socket in the file system its group and mode. Raises OSError."""
    if rights.group:
        os.chown(path, -1, _group_id(rights.group), follow_symlinks=False)
    path.chmod(rights.mode)


def bound_here(bound: socket.socket) -> bool:
    """Whether `bind` made this Unix socket, in this process or in one that passed it on.

    The kernel keeps the name under which a socket was first bound, even after a rename.
    """
    first = bound.getsockname() if bound.family == socket.AF_UNIX else b""
    if not isinstance(first, str):  # bytes: an address without a file
        return False
    name = Path(first)
    return name.parent.parent == Path(_DESCRIPTORS) and name.name.startswith(_FIRST_NAME)


def _bind_tcp(where: TcpAddress, *, ipv6_only: bool) -> list[socket.socket]:
    infos = socket.getaddrinfo(
        where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[socket.socket] = []
    refused: OSError | None = None
    for info in dict.fromkeys(infos):
        try:
            bound.append(_bind_one(info, ipv6_only=ipv6_only or where.host != _EVERY_IPV6))
        except OSError as error:
            refused = error
            if error.errno not in _NOT_HERE:
                break
    if refused is not None and (not bound or refused.errno not in _NOT_HERE):
        for made in bound:
            made.close()
        raise refused
    return bound


def _bind_one(info: _AddressInfo, *, ipv6_only: bool) -> socket.socket:
    family, kind, protocol, _, address = info
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)  # noqa: FBT003 - socket's own signature
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Keep-alive detects a client that vanished without closing (tcp(7)). Connections inherit it
        # from their listener, which costs less than setting it on each.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _bind_unix(path: Path, rights: Rights) -> socket.socket:
    """Return a socket bound to `path`.

    Replaces an old socket on which nobody listens, and no other file. The socket gets its rights
    before its final name, so nobody can connect in between. Raises OSError.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    bound = socket.socket(socket.AF_UNIX)
    # A socket's address holds 107 bytes (unix(7)); this name is short even if the folder's path is
    # not. `bound_here` recognises it.
    made = Path(f"{_DESCRIPTORS}/{folder}/{_FIRST_NAME}{os.getpid()}")
    try:
        # Of two gates that start at once, one must see the other's socket.
        fcntl.flock(folder, fcntl.LOCK_EX)
        _check_free(path)
        bound.setblocking(False)  # noqa: FBT003 - socket's own signature
        made.unlink(missing_ok=True)
        bound.bind(str(made))
        try:
            set_rights(made, rights)
            # Before the rename: another gate would replace a socket without a listener.
            bound.listen()
            made.rename(path)
        except OSError:
            made.unlink()
            raise
    except OSError:
        bound.close()
        raise
    finally:
        os.close(folder)
    return bound


def _check_free(path: Path) -> None:
    """Raise OSError if a process listens on the socket or another file has the name."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(
            errno.EEXIST,
            "a file that is not a socket has this name; move it or choose another path",
        )
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)  # noqa: FBT003 - socket's own signature
        if client.connect_ex(str(path)) in _LISTENED_ON:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _group_id(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no group {group}") from None
