"""The sockets of a gate whose workers serve: the parent binds them, and serves the admin's."""

import asyncio
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from aiohttp import web

from tailchat_gate.config.model import Server
from tailchat_gate.proxy.sockets import Descriptors
from tailchat_gate.serving.listeners import ADMIN_KEY, Binder, StartError, addresses_of

#: As in listeners.py.
_ADMIN_BACKLOG: Final = 16

Key = tuple[str, str]


class _Opened(NamedTuple):
    sockets: Sequence[socket.socket]
    sites: Sequence[web.SockSite] = ()


class Addresses:
    """Opens and closes them; `admin` serves the admin's."""

    def __init__(self, binder: Binder, admin: web.BaseRunner) -> None:
        self._binder = binder
        self._admin = admin
        self._backlog = Descriptors().backlog
        self._open: dict[Key, _Opened] = {}
        self._serves_admin = False

    async def open(self, settings: Server) -> Sequence[Key]:
        """Open those that are not open yet; return which.

        Raises StartError if one cannot be opened, and nothing has changed then.
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
        """Answer on the admin listener from now on. Before that, its connections wait.

        In an upgrade the one before answers them meanwhile: this one's probes would say that the
        gate takes no requests, and its counts would begin again.
        """
        self._serves_admin = True
        for key, opened in self._open.items():
            if key[0] == ADMIN_KEY:
                self._open[key] = await self._answered(opened.sockets)

    async def _answered(self, bound: Sequence[socket.socket]) -> _Opened:
        sites = [web.SockSite(self._admin, one, backlog=_ADMIN_BACKLOG) for one in bound]
        for site in sites:
            await site.start()
        return _Opened(bound, sites)

    async def close(self, keys: Iterable[Key]) -> None:
        """Close some of them here; workers may have them still."""
        for key in keys:
            opened = self._open.pop(key, _Opened(()))
            for site in opened.sites:
                await site.stop()
            for one in opened.sockets:
                one.close()

    async def close_others(self, settings: Server) -> None:
        """Close those that are not configured any longer."""
        named = frozenset(addresses_of(settings))
        await self.close([key for key in self._open if key not in named])

    async def close_public(self) -> None:
        """Close those of visitors."""
        await self.close([key for key in self._open if key[0] != ADMIN_KEY])

    async def close_all(self) -> None:
        """Close all of them."""
        await self.close(tuple(self._open))

    def sockets(self) -> Iterator[tuple[str, socket.socket]]:
        """Yield every socket with its configured address."""
        for (_, address), opened in self._open.items():
            yield from ((address, one) for one in opened.sockets)

    def public(self, keys: Iterable[Key] | None = None) -> list[tuple[str, socket.socket]]:
        """Return the sockets of visitors with their addresses: all, or those of some keys."""
        chosen = self._open if keys is None else keys
        return [
            (key[1], one)
            for key in chosen
            if key[0] != ADMIN_KEY
            for one in self._open[key].sockets
        ]

    async def _listen(self, key: str, address: str, settings: Server) -> _Opened:
        try:
            bound = await asyncio.to_thread(self._binder.bound, key, address, settings)
            for one in bound:
                # Two sockets can be bound to one address; only one of them can listen.
                one.listen(_ADMIN_BACKLOG if key == ADMIN_KEY else self._backlog)
            if key == ADMIN_KEY and self._serves_admin:
                return await self._answered(bound)
            return _Opened(bound)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror}", key) from None
