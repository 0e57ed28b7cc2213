"""The listeners: opened, closed, and left open across a reload."""

import asyncio
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from tailchat_gate.config.model import Server
from tailchat_gate.config.tables.server import PUBLIC_ADDRESSES
from tailchat_gate.config.values.address import UnixAddress, listen_address
from tailchat_gate.proxy.client.server import ClientServer
from tailchat_gate.proxy.sockets import peer_address
from tailchat_gate.serving.listening.acceptor import Acceptor, PlainTaker, Taker
from tailchat_gate.serving.listening.balance import Balance
from tailchat_gate.serving.listening.binding import (
    OWNER_ONLY,
    Rights,
    bind,
    bound_here,
    set_rights,
    takes_ipv4_elsewhere,
)
from tailchat_gate.serving.listening.openings import MakeProtocol, Openings, OpeningWay
from tailchat_gate.serving.systemd import PassedSockets

#: asyncio must not delete the file of a socket of systemd's, which the next start needs.
_KEEP_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
#: Short, because asyncio logs a line for each waiting connection while it cannot accept any.
ADMIN_BACKLOG: Final = 16
_HTTPS: Final = "server.https_listen"
_REDIRECT: Final = "server.redirect_listen"
ADMIN_KEY: Final = "server.admin_listen"


class StartError(RuntimeError):
    """An address or a file cannot be used; the text says which and why, `key` names the setting."""

    def __init__(self, text: str, key: str) -> None:
        super().__init__(text)
        self.key: Final = key


class _Listener(Protocol):
    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets on which it listens."""

    async def close(self) -> None:
        """Stop accepting connections."""


class _OpeningTaker:
    """Takes connections that begin with TLS or a PROXY header."""

    def __init__(self, openings: Openings, way: OpeningWay) -> None:
        self._openings = openings
        self._way = way

    def has_room(self) -> bool:
        return self._openings.has_room(self._way)

    def make_room(self) -> None:
        self._openings.make_room(self._way)

    def take(self, accepted: socket.socket, peer: object) -> None:
        # If the peer has already left, only accept() tells its address.
        self._openings.take(accepted, peer_address(peer), self._way)

    async def settled(self) -> None:
        """Return at once: openings continue after their listener is closed."""


class _Visitors:
    """A public address: one server for each of its sockets."""

    def __init__(self, servers: Sequence[asyncio.Server], acceptors: Sequence[Acceptor]) -> None:
        self._servers = servers
        self._acceptors = acceptors

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return [acceptor.socket for acceptor in self._acceptors]

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for acceptor in self._acceptors:
            await acceptor.close()
        # Under uvloop a protocol gets its connection one iteration of the loop after the accept.
        await asyncio.sleep(0)


class _Admin:
    """The address of the admin listener."""

    def __init__(self, sites: Sequence[web.BaseSite], bound: Sequence[socket.socket]) -> None:
        self._sites = sites
        self.sockets: Final = bound

    async def close(self) -> None:
        for site in self._sites:
            await site.stop()


class Binder:
    """Binds the sockets of a configuration's addresses, and sets who may connect.

    It uses the sockets in `passed` for their addresses. A socket that no gate bound keeps its
    rights.
    """

    def __init__(self, passed: PassedSockets) -> None:
        self._passed = passed
        #: Addresses whose sockets a service manager bound.
        self._bound_by_manager: set[str] = set()

    def bound(self, key: str, address: str, settings: Server) -> Sequence[socket.socket]:
        """Return the passed or new sockets for an address. Blocks; raises OSError."""
        self._bound_by_manager.discard(address)
        if passed := self._passed.take(address):
            if not all(map(bound_here, passed)):
                self._bound_by_manager.add(address)
            return passed
        rights = OWNER_ONLY if key == ADMIN_KEY else rights_of(settings)
        others = settings.public_addresses
        return bind(address, rights, ipv6_only=takes_ipv4_elsewhere(address, others))

    async def keep_rights(self, key: str, address: str, settings: Server) -> None:
        """Set the configured rights of a Unix socket. Raises StartError.

        This process's predecessor or an earlier configuration may have opened it.
        """
        where = listen_address(address)
        if key == ADMIN_KEY or address in self._bound_by_manager:
            return
        if isinstance(where, UnixAddress):
            try:
                await asyncio.to_thread(set_rights, Path(where.path), rights_of(settings))
            except OSError as error:
                raise StartError(f"{address}: {error.strerror}", "server.unix_group") from None


class Listeners:
    """Listens on the public addresses and on the admin address of a configuration.

    `server` makes the protocols of client connections; `openings` opens those with TLS or a PROXY
    header; `admin` serves the admin address, unless None. `binder` binds the sockets. With a
    `balance`, other workers accept from them too.
    """

    def __init__(
        self,
        server: ClientServer,
        openings: Openings,
        admin: web.BaseRunner | None,
        binder: Binder,
        balance: Balance | None = None,
    ) -> None:
        self._server = server
        self._openings = openings
        self._admin = admin
        self._binder = binder
        self._balance = balance
        self._open: dict[tuple[str, str], _Listener] = {}

    async def open(self, settings: Server) -> None:
        """Listen on every configured address that is not open yet.

        Raises StartError if one cannot be opened, after closing those that this call opened.
        """
        opened: list[tuple[str, str]] = []
        try:
            for key in self._keys_of(settings):
                if key not in self._open:
                    self._open[key] = await self._listen(*key, settings)
                    opened.append(key)
                await self._binder.keep_rights(*key, settings)
        except StartError:
            await self._close(opened)
            raise

    async def close_others(self, settings: Server) -> None:
        """Close the addresses that are no longer configured; their connections stay open."""
        named = frozenset(self._keys_of(settings))
        await self._close([key for key in self._open if key not in named])

    async def close(self) -> None:
        """Close the public addresses; the admin address stays until its runner is cleaned up."""
        await self._close([key for key in self._open if key[0] != ADMIN_KEY])

    async def close_all(self) -> None:
        """Close every address, because another process serves on the same sockets."""
        await self._close(list(self._open))

    def sockets(self) -> Iterator[tuple[str, socket.socket]]:
        """Yield each open socket with its configured address."""
        for (_, address), listener in self._open.items():
            for sock in listener.sockets:
                yield address, sock

    def _keys_of(self, settings: Server) -> Iterator[tuple[str, str]]:
        keys = addresses_of(settings)
        return (key for key in keys if self._admin is not None or key[0] != ADMIN_KEY)

    async def _close(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            await self._open.pop(key).close()

    async def _listen(self, key: str, address: str, settings: Server) -> _Listener:
        try:
            bound = await asyncio.to_thread(self._binder.bound, key, address, settings)
            if key == ADMIN_KEY and self._admin is not None:
                return await self._listen_for_admin(bound, self._admin)
            make = self._server.redirected if key == _REDIRECT else self._server
            proxied = address in settings.proxy_protocol
            if proxied or key == _HTTPS:
                return self._accept(
                    bound, _OpeningTaker(self._openings, OpeningWay(proxied, key == _HTTPS, make))
                )
            return await self._listen_for_visitors(bound, make)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror}", key) from None

    def _accept(self, bound: Sequence[socket.socket], taker: Taker) -> _Listener:
        acceptors = self._acceptors(bound, taker)
        for acceptor in acceptors:
            acceptor.start(self._server.descriptors.backlog)
        return _Visitors((), acceptors)

    def _acceptors(self, bound: Iterable[socket.socket], taker: Taker) -> list[Acceptor]:
        failed = self._server.out_of_descriptors
        return [Acceptor(sock, taker, failed, self._balance) for sock in bound]

    async def _listen_for_visitors(
        self, bound: Sequence[socket.socket], make: MakeProtocol
    ) -> _Listener:
        loop, taker = asyncio.get_running_loop(), PlainTaker(make)
        # uvloop's own server accepts everything that waits, with no regard for other workers.
        if isinstance(loop, asyncio.BaseEventLoop) or self._balance is not None:
            return self._accept(bound, taker)
        backlog = self._server.descriptors.backlog
        # They accept from the same queues what still waits there when the servers are closed.
        acceptors = self._acceptors([sock.dup() for sock in bound], taker)
        servers = [
            await loop.create_server(make, sock=sock, backlog=backlog)
            if sock.family != socket.AF_UNIX
            else await loop.create_unix_server(make, sock=sock, backlog=backlog, **_KEEP_FILE)
            for sock in bound
        ]
        return _Visitors(servers, acceptors)

    async def _listen_for_admin(
        self, bound: Sequence[socket.socket], admin: web.BaseRunner
    ) -> _Listener:
        sites = [web.SockSite(admin, sock, backlog=ADMIN_BACKLOG) for sock in bound]
        for site in sites:
            await site.start()
        return _Admin(sites, bound)


def rights_of(settings: Server) -> Rights:
    """Return the access rights of the public Unix sockets."""
    return Rights(int(settings.unix_mode, 8), settings.unix_group)


def addresses_of(settings: Server) -> Iterator[tuple[str, str]]:
    """Yield the setting and the address of each listener."""
    for key in PUBLIC_ADDRESSES:
        for address in getattr(settings, key):
            yield f"server.{key}", address
    if settings.admin_listen:
        yield ADMIN_KEY, settings.admin_listen
