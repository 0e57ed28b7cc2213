"""The addresses that the gate listens on, opened and closed while it serves."""

import asyncio
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from aiohttp import web

from tailchat_gate.config.address import UnixAddress, listen_address
from tailchat_gate.config.model import Server
from tailchat_gate.proxy.acceptor import Acceptor
from tailchat_gate.proxy.downstream import ClientServer

#: Each connection that waits is a line of log while asyncio cannot accept any.
_ADMIN_BACKLOG: Final = 16
_LISTEN: Final = "server.listen"
_ADMIN: Final = "server.admin_listen"


class StartError(RuntimeError):
    """An address or a file cannot be had; the text says which and why, `key` is the setting."""

    def __init__(self, text: str, key: str) -> None:
        super().__init__(text)
        self.key: Final = key


class _Listener(Protocol):
    async def close(self) -> None:
        """Take no further connection."""


class _Visitors:
    """An address for visitors."""

    def __init__(self, server: asyncio.Server, acceptors: Sequence[Acceptor]) -> None:
        self._server = server
        self._acceptors = acceptors

    @property
    def addresses(self) -> list[tuple[str, int]]:
        inet = (socket.AF_INET, socket.AF_INET6)
        return [one.getsockname()[:2] for one in self._server.sockets if one.family in inet]

    async def close(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        self._server.close()


class _Admin:
    """The admin's address."""

    def __init__(self, site: web.BaseSite) -> None:
        self._site = site

    async def close(self) -> None:
        await self._site.stop()


class Listeners:
    """Listens for visitors and for the admin on the addresses that a configuration names.

    `server` makes the connections of visitors, `admin` answers on the admin's address.
    """

    def __init__(self, server: ClientServer, admin: web.BaseRunner) -> None:
        self._server = server
        self._admin = admin
        self._open: dict[tuple[str, str], _Listener] = {}

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where visitors are listened for on TCP: (host, port), the one given for port 0."""
        found: list[tuple[str, int]] = []
        for listener in self._open.values():
            if isinstance(listener, _Visitors):
                found += listener.addresses
        return found

    async def open(self, settings: Server) -> None:
        """Listen on every address that is named and not listened on yet.

        Raises StartError where one cannot be had; those that are not named before are closed
        again then.
        """
        opened: list[tuple[str, str]] = []
        try:
            for place in _places(settings):
                if place not in self._open:
                    self._open[place] = await self._listen(*place)
                    opened.append(place)
        except StartError:
            await self._close(opened)
            raise

    async def close_others(self, settings: Server) -> None:
        """Close the addresses that are not named any more; their connections stay."""
        named = frozenset(_places(settings))
        await self._close([place for place in self._open if place not in named])

    async def close(self) -> None:
        """Take no further visitor; the admin's address stays until its runner is cleaned up."""
        await self._close([place for place in self._open if place[0] == _LISTEN])

    async def _close(self, places: Iterable[tuple[str, str]]) -> None:
        for place in places:
            await self._open.pop(place).close()

    async def _listen(self, key: str, address: str) -> _Listener:
        listen = self._listen_for_admin if key == _ADMIN else self._listen_for_visitors
        try:
            return await listen(address)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror}", key) from None

    async def _listen_for_visitors(self, address: str) -> _Listener:
        loop = asyncio.get_running_loop()
        where = listen_address(address)
        backlog = self._server.descriptors.backlog
        if isinstance(where, UnixAddress):
            bound = await asyncio.to_thread(_bind_unix, Path(where.path))
            server = await loop.create_unix_server(
                self._server, sock=bound, backlog=backlog, start_serving=False
            )
        else:
            server = await loop.create_server(
                self._server, where.host, where.port, backlog=backlog, start_serving=False
            )
            for one in server.sockets:
                # A client that is gone without a word must be noticed (tcp(7)). Connections take
                # this from their listener, which costs less than to tell each.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not isinstance(loop, asyncio.BaseEventLoop):
            await server.start_serving()
            return _Visitors(server, ())
        acceptors = [
            Acceptor(listening.dup(), self._server, self._server.out_of_descriptors)
            for listening in server.sockets
        ]
        for acceptor in acceptors:
            acceptor.start(backlog)
        return _Visitors(server, acceptors)

    async def _listen_for_admin(self, address: str) -> _Listener:
        where = listen_address(address)
        site: web.BaseSite
        if isinstance(where, UnixAddress):
            site = web.UnixSite(self._admin, where.path, backlog=_ADMIN_BACKLOG)
        else:
            site = web.TCPSite(self._admin, where.host, where.port, backlog=_ADMIN_BACKLOG)
        try:
            await site.start()
        except OSError:
            await site.stop()
            raise
        return _Admin(site)


def _places(settings: Server) -> Iterator[tuple[str, str]]:
    """Yield the setting and the address of everything that is to be listened on."""
    for address in settings.listen:
        yield _LISTEN, address
    if settings.admin_listen:
        yield _ADMIN, settings.admin_listen


def _bind_unix(path: Path) -> socket.socket:
    """Return a socket bound to `path`; one that an earlier process left behind is removed."""
    if path.is_socket():
        path.unlink()
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)  # noqa: FBT003 - socket's own signature
    return bound
