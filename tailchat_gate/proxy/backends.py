"""Where an upstream is: the address in a route's `upstream`, and how to connect to it."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tailchat_gate.config.address import HttpAddress, UnixAddress
from tailchat_gate.config.model import Route as RouteSettings
from tailchat_gate.config.tls import client_context

_P = TypeVar("_P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Backend:
    """An upstream: `host` and `port`, or `path` of a Unix socket; `tls` where it speaks https.

    `server_name` is the name that is asked for (SNI) and verified, "" for `host`.
    """

    url: str
    host: str = ""
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""

    @classmethod
    def of_route(cls, settings: RouteSettings, address: HttpAddress | UnixAddress) -> "Backend":
        """Return the backend of a route with that address; reads the PEM files it names."""
        if isinstance(address, UnixAddress):
            return cls(str(address), path=address.path)
        tls = None
        if address.tls:
            tls = client_context(settings.tls_ca, settings.tls_certificate, settings.tls_key)
        name = settings.tls_server_name or ""
        return cls(str(address), address.host, address.port, tls=tls, server_name=name)

    async def connect(self, make: Callable[[], _P]) -> _P:
        """Open a connection whose protocol `make` builds. Raises OSError or ssl.SSLError."""
        loop = asyncio.get_running_loop()
        if self.path:
            return (await loop.create_unix_connection(make, self.path))[1]
        name = (self.server_name or self.host) if self.tls else None
        return (
            await loop.create_connection(
                make, self.host, self.port, ssl=self.tls, server_hostname=name
            )
        )[1]


def shared_by(settings: RouteSettings) -> tuple[object, ...]:
    """Return what routes must have in common to share connections."""
    return (
        settings.upstream,
        settings.tls_ca,
        settings.tls_certificate,
        settings.tls_key,
        settings.tls_server_name,
    )
