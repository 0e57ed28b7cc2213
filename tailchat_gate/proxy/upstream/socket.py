"""One socket to an upstream: what is written to it, held back, shut and reset."""

import asyncio
import select
from typing import Final, cast

from tailchat_gate.proxy.sockets import ReadBuffers, end_writing, tell_of_rest


class UpstreamSocket(asyncio.BufferedProtocol):
    """A socket to an upstream, whatever is spoken on it."""

    __slots__ = ("address", "buffer", "buffers", "moved", "paused", "transport", "unread")

    def __init__(self, buffers: ReadBuffers) -> None:
        self.buffers: Final = buffers
        #: Where the next read goes.
        self.buffer = buffers.small
        self.transport: asyncio.Transport | None = None
        #: The address of the upstream, "" for a Unix socket.
        self.address = ""
        #: Tells whether the socket holds something that was not read, or an end.
        self.unread: Final = select.poll()
        #: Whether bytes moved, either way, since it was last looked at.
        self.moved = False
        #: Whether the upstream is held back.
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        tell_of_rest(self.transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self.unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - not what is wanted here
        """Return where the next read goes."""
        return self.buffer

    def write(self, data: bytes) -> None:
        """Send bytes of the request; dropped where the connection is closing."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self.moved = True
            transport.write(data)

    def pause_reading(self) -> None:
        """Hold the upstream back while the client takes no more."""
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the upstream send again."""
        if self.paused:
            self.paused = False
            self.moved = True
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    def finish_writing(self) -> bool:
        """Send the end of what is written, and go on reading; return whether that can be."""
        transport = self.transport
        if transport is None or transport.is_closing() or not transport.can_write_eof():
            return False
        return end_writing(transport)
