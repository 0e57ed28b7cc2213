"""The flow of bytes from and to one client: when it is read from, and what is sent to it."""

import asyncio
from typing import Final

from tailchat_gate.proxy.sockets import reset_on_close

# Why a client is not read from, as bits.
UPSTREAM_FULL: Final = 1
PIPELINED: Final = 2


class FlowControl(asyncio.BufferedProtocol):
    """What may be done with a client's transport.

    A base and not a part of the connection, so that a write for the client is one call.
    """

    __slots__ = ("_holds", "_moved", "full", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        #: Whether the client takes no more bytes for now.
        self.full = False
        #: Why it is not read from, 0 where it is.
        self._holds = 0
        #: Whether bytes have moved lately, or may move again.
        self._moved = False

    def write(self, data: bytes) -> bool:
        """Send bytes; return whether the client was still there."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        return True

    def hold(self, reason: int) -> None:
        """Stop reading from the client for a reason (one of the bits above)."""
        if not self._holds and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self._holds |= reason

    def release(self, reason: int) -> None:
        """Drop a reason; the client is read from where none is left."""
        if not self._holds & reason:
            return
        self._holds &= ~reason
        if not self._holds and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self._moved = True

    def abort(self) -> None:
        """Reset the connection: the client must see that its answer is not whole.

        A mere close would be a clean end to a client that takes it for the end of a body.
        """
        if self.transport is not None:
            reset_on_close(self.transport)
            self.transport.abort()
