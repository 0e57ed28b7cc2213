"""Connects to upstreams: every address of a name has its turn, the next soon after the last."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from aiohappyeyeballs import start_connection

from tailchat_gate.proxy.backends import Backend
from tailchat_gate.proxy.names import AddressInfo, Names
from tailchat_gate.proxy.pin import check_pin
from tailchat_gate.proxy.receiving import ReadBuffers

#: How long an address may be silent before the next is tried beside it (RFC 8305 section 5).
STAGGER_SECONDS: Final = 0.25
#: How long an address that did not answer comes behind the others.
SILENT_SECONDS: Final = 60.0
_MOST_SILENT: Final = 1024

_P = TypeVar("_P", bound=asyncio.BaseProtocol)


class Dialer:
    """Opens connections, and remembers which addresses did not answer."""

    def __init__(self, names: Names) -> None:
        self.names: Final = names
        self.buffers: Final = ReadBuffers()
        self._time = time.monotonic
        self._silent: dict[tuple[str, int], float] = {}

    async def connect(self, backend: Backend, make: Callable[[], _P]) -> _P:
        """Open a connection whose protocol `make` builds. Raises OSError or ssl.SSLError."""
        loop = asyncio.get_running_loop()
        if backend.path:
            return (await loop.create_unix_connection(make, backend.path))[1]
        opened = await self._open(await self.names.addresses(backend.host, backend.port))
        name = (backend.server_name or backend.host) if backend.tls else None
        transport, made = await loop.create_connection(
            make, sock=opened, ssl=backend.tls, server_hostname=name
        )
        if backend.pins:
            try:
                check_pin(transport.get_extra_info("ssl_object"), backend.pins)
            except ssl.SSLError:
                # Nothing was sent yet.
                transport.abort()
                raise
        return made

    async def _open(self, infos: Sequence[AddressInfo]) -> socket.socket:
        """Return a socket that is connected to the first address that answers."""
        tried: list[tuple[socket.socket, AddressInfo]] = []

        def make(info: AddressInfo) -> socket.socket:
            made = socket.socket(info[0], info[1], info[2])
            tried.append((made, info))
            return made

        opened = await start_connection(
            self._ordered(infos),
            happy_eyeballs_delay=STAGGER_SECONDS,
            socket_factory=make,
            loop=asyncio.get_running_loop(),
        )
        self._note(opened, tried)
        return opened

    def _ordered(self, infos: Sequence[AddressInfo]) -> list[AddressInfo]:
        if not self._silent:
            return list(infos)
        now = self._time()
        return sorted(infos, key=lambda info: self._silent.get(info[4][:2], now) > now)

    def _note(
        self, opened: socket.socket, tried: Sequence[tuple[socket.socket, AddressInfo]]
    ) -> None:
        """Remember the addresses that had their turn before the one that answered."""
        now = self._time()
        for made, info in tried:
            where = info[4][:2]
            if made is opened:
                self._silent.pop(where, None)
                return
            if len(self._silent) >= _MOST_SILENT:
                self._silent.clear()
            self._silent[where] = now + SILENT_SECONDS
