"""Ends TLS connections that began when other client certificates were good."""

import asyncio
from collections.abc import Collection
from typing import Final

from tailchat_gate.proxy.client.protocol import ClientProtocol

#: How long one that is idle stays open: a request may be on its way.
IDLE_SECONDS: Final = 1.0


class ClientTrust:
    """Knows which client certificates are good now, by a value that differs where they do.

    TLS asks for a certificate once, when a connection begins. Where another one is needed since,
    a connection answers what is under way, within the time that a stopping gate gives, and ends.
    """

    def __init__(self, connections: Collection[ClientProtocol]) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._value = b""
        self._limit = 0.0
        self._timers: dict[ClientProtocol, asyncio.TimerHandle] = {}

    def change(self, value: bytes, limit: float) -> None:
        """Let connections of another value end, within `limit` seconds, from now on."""
        self._value, self._limit = value, limit
        for connection in self._connections:
            self.look_at(connection)

    def look_at(self, connection: ClientProtocol) -> None:
        """Let a connection end if it began under another value, as a slow handshake may have."""
        # Once for each: later values may not give it more time.
        if not connection.secure or connection.trust in (self._value, None):
            return
        connection.trust = None
        connection.leave()
        connection.idle_at_most(IDLE_SECONDS, self._loop.time())
        self._timers[connection] = self._loop.call_later(self._limit, self._end, connection)

    def close(self) -> None:
        """End nothing further."""
        for timer in self._timers.values():
            timer.cancel()

    def _end(self, connection: ClientProtocol) -> None:
        del self._timers[connection]
        connection.abort()
