"""Closing a connection: for a short time, what the client still sends is read and dropped."""

import asyncio
from typing import Final

#: How long the gate reads and drops a client's bytes after the last response: closing with unread
#: bytes resets the connection, and the reset destroys the response (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0


class Lingering:
    """Limits how long a closing connection waits for its client; `now` is the loop's time."""

    __slots__ = ("_unsent", "_until")

    def __init__(self, now: float) -> None:
        self._until = now + LINGER_SECONDS
        self._unsent = 0

    def is_over(self, transport: asyncio.Transport, now: float) -> bool:
        """Whether the time is up; a client that still reads its response gets more."""
        if now < self._until:
            return False
        unsent = transport.get_write_buffer_size()
        if not unsent or unsent == self._unsent:
            return True
        self._unsent, self._until = unsent, now + LINGER_SECONDS
        return False
