"""The parent's listening sockets: workers accept visitors on them, the parent serves the admin."""

import asyncio
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from aiohttp import web

from tailchat_gate.config.model import Server
from tailchat_gate.proxy.sockets import Descriptors
from tailchat_gate.serving.listening.listeners import (
    ADMIN_BACKLOG,
    ADMIN_KEY,
    Binder,
    StartError,
    addresses_of,
)

#: The setting that names a listener, and its address.
Key = tuple[str, str]


class _Opened(NamedTuple):
    sockets: Sequence[socket.socket]
    sites: Sequence[web.SockSite] = ()


class Addresses:
    """Opens and closes the listening sockets; `admin` answers on those of the admin listener."""

    def __init__(self, binder: Binder, admin: web.BaseRunner) -> None:
        self._binder = binder
        self._admin = admin
        self._backlog = Descriptors().backlog
        self._open: dict[Key, _Opened] = {}
        self._serves_admin = False

    async def open(self, settings: Server) -> Sequence[Key]:
        """Open the configured addresses that are not open yet, and return their keys.

        Raises StartError if one cannot be opened; then none of them has been.
        """
        opened: list[Key] = []
        try:
            for key in addresses_of(settings):
                if key not in self._open:
                    self._open[key] = await self._listen(*key, settings)
                    opened.append(key)
                await self._binder.keep_rights(*key, settings)
        except StartError:
            await self.close(opened)
            raise
        return opened

    async def serve_admin(self) -> None:
        """Answer on the admin listener from now on; until then its connections wait.

        During an upgrade the old process goes on answering: this one would tell probes that the
        gate is not ready, and its counters begin at zero.
        """
        self._serves_admin = True
        for key, opened in self._open.items():
            if key[0] == ADMIN_KEY:
                self._open[key] = await self._answered(opened.sockets)

    async def _answered(self, bound: Sequence[socket.socket]) -> _Opened:
        sites = [web.SockSite(self._admin, sock, backlog=ADMIN_BACKLOG) for sock in bound]
        for site in sites:
            await site.start()
        return _Opened(bound, sites)

    async def close(self, keys: Iterable[Key]) -> None:
        """Close the sockets of `keys` in this process; workers may still have them open."""
        for key in keys:
            opened = self._open.pop(key, _Opened(()))
            for site in opened.sites:
                await site.stop()
            for sock in opened.sockets:
                sock.close()

    async def close_others(self, settings: Server) -> None:
        """Close the sockets that `settings` do not name."""
        named = frozenset(addresses_of(settings))
        await self.close([key for key in self._open if key not in named])

    async def close_public(self) -> None:
        """Close all sockets but the admin listener's."""
        await self.close([key for key in self._open if key[0] != ADMIN_KEY])

    async def close_all(self) -> None:
        """Close all sockets."""
        await self.close(tuple(self._open))

    def sockets(self) -> Iterator[tuple[str, socket.socket]]:
        """Yield every socket with its configured address."""
        for (_, address), opened in self._open.items():
            yield from ((address, sock) for sock in opened.sockets)

    def public(self, keys: Iterable[Key] | None = None) -> list[tuple[str, socket.socket]]:
        """Return the addresses and sockets for visitors: all of them, or those of `keys`."""
        chosen = self._open if keys is None else keys
        return [
            (key[1], sock)
            for key in chosen
            if key[0] != ADMIN_KEY
            for sock in self._open[key].sockets
        ]

    async def _listen(self, key: str, address: str, settings: Server) -> _Opened:
        try:
            bound = await asyncio.to_thread(self._binder.bound, key, address, settings)
            for sock in bound:
                # Two sockets can be bound to one address; only one of them can listen.
                sock.listen(ADMIN_BACKLOG if key == ADMIN_KEY else self._backlog)
            if key == ADMIN_KEY and self._serves_admin:
                return await self._answered(bound)
            return _Opened(bound)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror}", key) from None
