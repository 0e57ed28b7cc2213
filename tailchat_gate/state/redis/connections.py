"""Opens connections to Redis: how names are looked up, and which certificates are trusted."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from aiohappyeyeballs import AddrInfoType, start_connection

from tailchat_gate.config.values.redis_url import RedisAddress

#: Seconds for which an address may be silent before the next is tried (RFC 8305 section 5).
_STAGGER_SECONDS: Final = 0.25
#: Seconds between two looks whether a file of authorities has changed.
_LOOK_SECONDS: Final = 60.0

#: Finds the addresses of a host and port. Raises OSError.
Lookup = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]


def connection_class(address: RedisAddress, lookup: Lookup | None, *, by_sentinels: bool) -> Any:  # noqa: ANN401 - made here
    """Return the library's connection class with our own verification and lookup of names.

    Without `lookup` the event loop looks names up. `by_sentinels`: for servers that they name.
    """
    from redis.asyncio import connection, sentinel  # noqa: PLC0415 - only where the store is Redis

    kinds: tuple[Any, Any] = (connection.Connection, connection.SSLConnection)
    if by_sentinels:
        kinds = (sentinel.SentinelManagedConnection, sentinel.SentinelManagedSSLConnection)
    base = kinds[address.tls]
    if address.tls:
        base = _verified(base, _contexts_of(address.ca_file))
    return base if lookup is None else _looked_up(base, lookup)


class _Contexts:
    """The TLS context of all connections that trust one file, or the system's authorities.

    The library would make a context for each connection. That blocks the event loop for some 30 ms
    to read the system's authorities, and trusts these besides the file.
    """

    def __init__(self, ca_file: str) -> None:
        self._file = ca_file
        self._made: ssl.SSLContext | None = None
        self._state: tuple[int, int] | None = None
        self._look_at = 0.0

    async def get(self, within: float | None) -> ssl.SSLContext:
        """Return the context, made again if the file has changed. Raises OSError."""
        now, made = asyncio.get_running_loop().time(), self._made
        if made is None or now >= self._look_at:
            try:
                async with asyncio.timeout(within):
                    made = await asyncio.to_thread(self._look)
            except OSError:
                # The file is being replaced, or no thread is free: use the last context.
                if made is None:
                    raise
            self._look_at = now + _LOOK_SECONDS
        return made

    def _look(self) -> ssl.SSLContext:
        status = Path(self._file).stat() if self._file else None
        state = (status.st_mtime_ns, status.st_ino) if status else None
        made = self._made
        if made is None or state != self._state:
            made = self._made = ssl.create_default_context(cafile=self._file or None)
            self._state = state
        return made


@cache
def _contexts_of(ca_file: str) -> _Contexts:
    return _Contexts(ca_file)


def _verified(base: Any, contexts: _Contexts) -> Any:  # noqa: ANN401 - as above
    class Verified(base):  # type: ignore[misc] # a class that is chosen when the gate runs
        """A connection that verifies the server by the shared context."""

        async def _connect(self) -> None:
            self.ssl_context.context = await contexts.get(self.socket_connect_timeout)
            await super()._connect()

    return Verified


def _looked_up(base: Any, lookup: Lookup) -> Any:  # noqa: ANN401 - as above
    class LookedUp(base):  # type: ignore[misc] # a class that is chosen when the gate runs
        """A connection whose host is looked up by `lookup`."""

        async def _connect(self) -> None:
            async with asyncio.timeout(self.socket_connect_timeout):
                infos = await lookup(self.host, self.port)
                self._opened = await start_connection(infos, happy_eyeballs_delay=_STAGGER_SECONDS)
            try:
                await super()._connect()
            except BaseException:
                self._opened.close()
                raise

        def _connection_arguments(self) -> dict[str, Any]:
            arguments = {**super()._connection_arguments(), "sock": self._opened}
            del arguments["host"], arguments["port"]
            if "ssl" in arguments:
                arguments["server_hostname"] = self.host
            return arguments

    return LookedUp
