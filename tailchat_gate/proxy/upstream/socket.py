"""One socket to an upstream: writing, flow control and half-close."""

import asyncio
import select
from typing import Final, cast

from tailchat_gate.proxy.sockets import ReadBuffers, end_writing, tell_of_rest


class UpstreamSocket(asyncio.BufferedProtocol):
    """A socket to an upstream, for any protocol."""

    __slots__ = ("address", "buffer", "buffers", "moved", "paused", "peer", "transport", "unread")

    def __init__(self, buffers: ReadBuffers) -> None:
        self.buffers: Final = buffers
        #: The buffer of the next read.
        self.buffer = buffers.small
        self.transport: asyncio.Transport | None = None
        #: The address of the upstream, "" for a Unix socket.
        self.address = ""
        #: The same with its port, or the path of the Unix socket, for logs.
        self.peer = ""
        #: Polls whether the socket holds unread bytes or EOF.
        self.unread: Final = select.poll()
        #: Whether bytes moved, in either direction, since the last check.
        self.moved = False
        #: Whether reading is paused.
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport and the peer's address."""
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        tell_of_rest(self.transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
            self.address, self.peer = peer[0], f"{host}:{peer[1]}"
        else:
            self.peer = f"unix:{peer}"
        self.unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - not what is wanted here
        """Return where the next read goes."""
        return self.buffer

    def write(self, data: bytes) -> None:
        """Send bytes; drop them if the connection is closing."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self.moved = True
            transport.write(data)

    def pause_reading(self) -> None:
        """Stop reading from the upstream."""
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read from the upstream again."""
        if self.paused:
            self.paused = False
            self.moved = True
            if self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    def finish_writing(self) -> bool:
        """Send EOF and go on reading; return False if the transport cannot."""
        transport = self.transport
        if transport is None or transport.is_closing() or not transport.can_write_eof():
            return False
        return end_writing(transport)
