"""Where an upstream is: the address in a route's `upstream`, and how to connect to it."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

_P = TypeVar("_P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Backend:
    """An upstream: `host` and `port`, or `path` of a Unix socket; `tls` where it speaks https."""

    url: str
    host: str = ""
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None

    @classmethod
    def from_url(cls, url: str) -> "Backend":
        """Return the backend that an `upstream` names. Raises ValueError for any other text."""
        if url.startswith("unix:"):
            return cls(url, path=url.removeprefix("unix:"))
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"not an upstream: {url!r}")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        return cls(url, host=parts.hostname, port=port, tls=tls)

    async def connect(self, make: Callable[[], _P]) -> _P:
        """Open a connection whose protocol `make` builds. Raises OSError or ssl.SSLError."""
        loop = asyncio.get_running_loop()
        if self.path:
            return (await loop.create_unix_connection(make, self.path))[1]
        return (await loop.create_connection(make, self.host, self.port, ssl=self.tls))[1]
