"""The end of a connection: what the client still sends is thrown away, and not for long."""

import asyncio
from typing import Final

#: How long what a client still sends is thrown away behind the last answer: a connection closed
#: upon unread bytes is reset, and the reset destroys the answer (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0


class Lingering:
    """Tells how long a connection that is closing waits for its client; `now` is the loop's."""

    __slots__ = ("_unsent", "_until")

    def __init__(self, now: float) -> None:
        self._until = now + LINGER_SECONDS
        self._unsent = 0

    def is_over(self, transport: asyncio.Transport, now: float) -> bool:
        """Tell whether the client has had its time; one that still takes its answer has more."""
        if now < self._until:
            return False
        unsent = transport.get_write_buffer_size()
        if not unsent or unsent == self._unsent:
            return True
        self._unsent, self._until = unsent, now + LINGER_SECONDS
        return False
