"""Flow control of one client's connection: pausing reads, and writing."""

import asyncio
from typing import Final

from tailchat_gate.proxy.sockets import reset_on_close

# Why reading from a client is paused, as bits.
UPSTREAM_FULL: Final = 1
PIPELINED: Final = 2


class FlowControl(asyncio.BufferedProtocol):
    """Reads from and writes to a client's transport.

    A base class, not a member of the connection, so that a write is one call.
    """

    __slots__ = ("_holds", "_moved", "full", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        #: Whether the write buffer is full.
        self.full = False
        #: Why reading is paused (bits), 0 if it is not.
        self._holds = 0
        #: Whether bytes have moved since the last check, or may move again.
        self._moved = False

    def write(self, data: bytes) -> bool:
        """Send bytes; return False if the connection is closed or closing."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        return True

    def hold(self, reason: int) -> None:
        """Pause reading for a reason (one of the bits above)."""
        if not self._holds and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self._holds |= reason

    def release(self, reason: int) -> None:
        """Remove a reason; resume reading if none is left."""
        if not self._holds & reason:
            return
        self._holds &= ~reason
        if not self._holds and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self._moved = True

    def abort(self) -> None:
        """Reset the connection, so that the client sees that its response is incomplete.

        A client that reads a body up to the close would take a clean close for its end.
        """
        if self.transport is not None:
            reset_on_close(self.transport)
            self.transport.abort()
