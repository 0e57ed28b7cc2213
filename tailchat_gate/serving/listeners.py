"""The public addresses: opened, closed, and left open across a reload.

On asyncio's own loop the gate accepts connections itself and pauses while the system is out of
descriptors or memory.
"""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from tailchat_gate.config.model import Server
from tailchat_gate.config.values.address import UnixAddress, listen_address
from tailchat_gate.proxy.client.server import ClientServer
from tailchat_gate.serving.binding import OWNER_ONLY, Rights, bind, set_rights, takes_ipv4_elsewhere
from tailchat_gate.serving.inherited import PassedSockets

#: How many connections are accepted in one iteration of the loop.
_BATCH: Final = 32
#: The most connections that are accepted at the end; the kernel's queue is not longer as a rule.
_MOST_WAITING: Final = 4096
#: How long accepting pauses after the system had no descriptor or memory for a connection.
BACK_OFF_SECONDS: Final = 0.25

#: systemd's own sockets would be gone for the next start.
_KEEP_FILE: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
#: asyncio logs a line for each waiting connection while it cannot accept any.
_ADMIN_BACKLOG: Final = 16
_LISTEN: Final = "server.listen"
_ADMIN: Final = "server.admin_listen"


class Acceptor:
    """Accepts connections on a listening socket; `close` closes the socket.

    asyncio's own server retries once per connection in the backlog and logs a traceback each
    time: hundreds of megabytes while the process has no descriptor left. uvloop does not. `make`
    makes the protocol of a connection; `failed` is called when the system is out of descriptors
    or memory.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        failed: Callable[[], None],
    ) -> None:
        self.socket: Final = listening
        self._make = make
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None

    def start(self, backlog: int) -> None:
        """Listen and accept connections."""
        self.socket.setblocking(False)  # noqa: FBT003 - socket's own signature
        self.socket.listen(backlog)
        self._resume()

    async def close(self) -> None:
        """Accept no further connection, after those that wait in the kernel's queue already."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self.socket)
        for accepted in waiting(self.socket):
            self._open(accepted)
        self.socket.close()
        if self._opening:
            await asyncio.wait(self._opening)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self.socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                accepted, _ = self.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self.socket)
                self._pause = self._loop.call_later(BACK_OFF_SECONDS, self._resume)
                self._failed()
                return
            self._open(accepted)

    def _open(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)  # noqa: FBT003 - socket's own signature
        opening = self._loop.create_task(self._loop.connect_accepted_socket(self._make, accepted))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)


def waiting(listening: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that clients have made and the gate has not accepted.

    To close the socket would reset them.
    """
    for _ in range(_MOST_WAITING):
        try:
            yield listening.accept()[0]
        except OSError:
            return


class StartError(RuntimeError):
    """An address or a file cannot be used; the text says which and why, `key` is the setting."""

    def __init__(self, text: str, key: str) -> None:
        super().__init__(text)
        self.key: Final = key


class _Listener(Protocol):
    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it listens on."""

    async def close(self) -> None:
        """Accept no further connection."""


class _Visitors:
    """A public address: one server for each of its sockets."""

    def __init__(self, servers: Sequence[asyncio.Server], acceptors: Sequence[Acceptor]) -> None:
        self._servers = servers
        self._acceptors = acceptors

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return [acceptor.socket for acceptor in self._acceptors]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        inet = (socket.AF_INET, socket.AF_INET6)
        return [one.getsockname()[:2] for one in self.sockets if one.family in inet]

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for acceptor in self._acceptors:
            await acceptor.close()
        # uvloop has a connection's protocol hear of it one turn after it was accepted.
        await asyncio.sleep(0)


class _Admin:
    """The address of the admin listener."""

    def __init__(self, sites: Sequence[web.BaseSite], bound: Sequence[socket.socket]) -> None:
        self._sites = sites
        self.sockets: Final = bound

    async def close(self) -> None:
        for site in self._sites:
            await site.stop()


class Listeners:
    """Listens on the public addresses and on the admin address of a configuration.

    `server` makes the protocols of client connections; `admin` serves the admin address. A socket
    in `passed` is used where its address is configured, with the rights that it has.
    """

    def __init__(
        self, server: ClientServer, admin: web.BaseRunner, passed: PassedSockets | None = None
    ) -> None:
        self._server = server
        self._admin = admin
        self._passed = passed or PassedSockets()
        #: Addresses whose sockets came from another process.
        self._of_others: set[str] = set()
        self._open: dict[tuple[str, str], _Listener] = {}

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The public TCP addresses as (host, port), with the assigned port for port 0."""
        found: list[tuple[str, int]] = []
        for listener in self._open.values():
            if isinstance(listener, _Visitors):
                found += listener.addresses
        return found

    async def open(self, settings: Server) -> None:
        """Listen on every configured address that is not open yet.

        Raises StartError if one cannot be opened; the addresses opened by this call are closed
        again then.
        """
        opened: list[tuple[str, str]] = []
        try:
            for key in _keys_of(settings):
                if key not in self._open:
                    self._open[key] = await self._listen(*key, settings)
                    opened.append(key)
                else:
                    await self._keep_rights(*key, settings)
        except StartError:
            await self._close(opened)
            raise

    async def close_others(self, settings: Server) -> None:
        """Close the addresses that are no longer configured; their connections stay open."""
        named = frozenset(_keys_of(settings))
        await self._close([key for key in self._open if key not in named])

    async def close(self) -> None:
        """Close the public addresses; the admin address stays until its runner is cleaned up."""
        await self._close([key for key in self._open if key[0] == _LISTEN])

    def sockets(self) -> Iterator[tuple[str, socket.socket]]:
        """Yield each open socket with its configured address."""
        for (_, address), listener in self._open.items():
            for found in listener.sockets:
                yield address, found

    async def _keep_rights(self, key: str, address: str, settings: Server) -> None:
        """Give an open socket the rights that the new configuration names."""
        where = listen_address(address)
        if key == _LISTEN and isinstance(where, UnixAddress) and address not in self._of_others:
            try:
                await asyncio.to_thread(set_rights, Path(where.path), rights_of(settings))
            except OSError as error:
                raise StartError(f"{address}: {error.strerror}", "server.unix_group") from None

    async def _close(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            await self._open.pop(key).close()

    async def _listen(self, key: str, address: str, settings: Server) -> _Listener:
        try:
            bound = await asyncio.to_thread(self._bound, key, address, settings)
            if key == _ADMIN:
                return await self._listen_for_admin(bound)
            return await self._listen_for_visitors(bound)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror}", key) from None

    def _bound(self, key: str, address: str, settings: Server) -> Sequence[socket.socket]:
        """Return the sockets for an address: those that were passed, or new ones. Blocks."""
        if passed := self._passed.take(address):
            self._of_others.add(address)
            return passed
        rights = OWNER_ONLY if key == _ADMIN else rights_of(settings)
        return bind(address, rights, ipv6_only=takes_ipv4_elsewhere(address, settings.listen))

    async def _listen_for_visitors(self, bound: Sequence[socket.socket]) -> _Listener:
        loop = asyncio.get_running_loop()
        backlog = self._server.descriptors.backlog
        acceptors = [
            Acceptor(one.dup(), self._server, self._server.out_of_descriptors) for one in bound
        ]
        if isinstance(loop, asyncio.BaseEventLoop):
            for one, acceptor in zip(bound, acceptors, strict=True):
                one.close()
                acceptor.start(backlog)
            return _Visitors((), acceptors)
        servers = [
            await loop.create_server(self._server, sock=one, backlog=backlog)
            if one.family != socket.AF_UNIX
            else await loop.create_unix_server(
                self._server, sock=one, backlog=backlog, **_KEEP_FILE
            )
            for one in bound
        ]
        return _Visitors(servers, acceptors)

    async def _listen_for_admin(self, bound: Sequence[socket.socket]) -> _Listener:
        sites = [web.SockSite(self._admin, one, backlog=_ADMIN_BACKLOG) for one in bound]
        for site in sites:
            await site.start()
        return _Admin(sites, bound)


def rights_of(settings: Server) -> Rights:
    """Return who may connect to the public Unix sockets."""
    return Rights(int(settings.unix_mode, 8), settings.unix_group)


def _keys_of(settings: Server) -> Iterator[tuple[str, str]]:
    """Yield the setting and the address of each listener."""
    for address in settings.listen:
        yield _LISTEN, address
    if settings.admin_listen:
        yield _ADMIN, settings.admin_listen
