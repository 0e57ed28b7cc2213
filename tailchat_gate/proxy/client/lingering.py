"""Closing a connection: for a short time, what the client still sends is read and dropped."""

import asyncio
from typing import Final

from tailchat_gate.proxy.sockets import unacknowledged_bytes

#: How long the gate reads and drops a client's bytes after the last response: closing with unread
#: bytes resets the connection, and the reset destroys the response (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0


class Lingering:
    """Limits how long a closing connection waits for its client; `now` is the loop's time."""

    __slots__ = ("_acknowledged", "_unsent", "_until")

    def __init__(self, now: float) -> None:
        self._until = now + LINGER_SECONDS
        self._unsent = self._acknowledged = 0

    def is_over(self, transport: asyncio.Transport, now: float) -> bool:
        """Whether the time is up; a client that still reads its response gets more."""
        if now < self._until:
            return False
        unsent, acknowledged = transport.get_write_buffer_size(), 0
        if transport.get_extra_info("ssl_object") is not None:
            waiting, acknowledged = unacknowledged_bytes(transport)
            unsent += waiting
        if not unsent or (unsent == self._unsent and acknowledged == self._acknowledged):
            return True
        self._unsent, self._acknowledged = unsent, acknowledged
        self._until = now + LINGER_SECONDS
        return False
