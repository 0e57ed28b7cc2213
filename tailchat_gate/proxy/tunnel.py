"""A switched connection: bytes both ways untouched, until one side leaves or the gate ends it."""

import asyncio
import secrets
from typing import Final

from tailchat_gate.proxy.connection import UpstreamConnection
from tailchat_gate.proxy.downstream import ClientConnection
from tailchat_gate.proxy.frames import CLOSE_OPCODE, FrameTracker, close_frame

#: How long the two ends may take to answer a close frame before they are cut off.
CLOSE_SECONDS: Final = 2.0
GOING_AWAY: Final = 1001
STOPPING: Final = "the gate is stopping"


class Tunnel:
    """Relays a WebSocket between a client and an upstream.

    Implements what aiohttp expects of a payload parser (`feed_data`, `feed_eof`) for the
    client's side, and `BytesSink` for the upstream's.
    """

    def __init__(self, client: ClientConnection, upstream: UpstreamConnection) -> None:
        self._client = client
        self._upstream = upstream
        self._to_client = FrameTracker()
        self._to_upstream = FrameTracker()
        self._ending: tuple[int, str] | None = None
        self._ended_client = self._ended_upstream = False
        self._closed = asyncio.get_running_loop().create_future()
        self.bytes_to_client = 0

    async def run(self) -> None:
        """Relay until either side is gone; then close both."""
        self._client.set_parser(self)  # type: ignore[arg-type] # a reader by shape, not by class
        self._upstream.tunnel = self
        if leftover := self._upstream.take_leftover():
            self.from_upstream(leftover)
        if self._upstream.transport is None:
            self.upstream_lost()
        try:
            await self._closed
        finally:
            self._upstream.close()
            if self._client.transport is not None:
                self._client.transport.close()

    def end(self, code: int, reason: str) -> None:
        """End the WebSocket with a close frame to both sides, at the next frame boundary."""
        if self._ending is not None or self._closed.done():
            return
        self._ending = (code, reason)
        self._try_end_client(b"")
        self._try_end_upstream(b"")
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._finish)

    # From the upstream.

    def from_upstream(self, data: bytes) -> None:
        """Relay bytes to the client."""
        self.bytes_to_client += len(data)
        if self._ending is None:
            self._to_client.feed(data)
            self._write_client(data)
        else:
            self._try_end_client(data)

    def upstream_lost(self) -> None:
        """End the tunnel: the upstream closed."""
        self._finish()

    def hold_client(self, *, hold: bool) -> None:
        """Stop or resume reading from the client while the upstream takes no more."""
        transport = self._client.transport
        if transport is None or transport.is_closing():
            return
        if hold:
            transport.pause_reading()
        else:
            transport.resume_reading()

    # From the client: aiohttp's payload parser interface.

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Relay bytes to the upstream."""
        if self._ending is None:
            self._to_upstream.feed(data)
            self._upstream.write(data)
        else:
            self._try_end_upstream(data)
        return False, b""

    def feed_eof(self) -> None:
        """End the tunnel: the client closed."""
        self._finish()

    # Ending it.

    def _try_end_client(self, data: bytes) -> None:
        if self._ended_client or self._ending is None:
            return
        if not self._to_client.at_boundary:
            self._write_client(data[: self._to_client.feed(data, stop_at_boundary=True)])
        if self._to_client.at_boundary:
            self._write_client(close_frame(*self._ending))
            self._ended_client = True

    def _try_end_upstream(self, data: bytes) -> None:
        if self._ending is None:
            return
        if self._ended_upstream:
            if self._ended_client and data[:1] == CLOSE_OPCODE:
                # The client has answered the close frame: there is nothing left to wait for.
                self._finish()
            return
        if not self._to_upstream.at_boundary:
            self._upstream.write(data[: self._to_upstream.feed(data, stop_at_boundary=True)])
        if self._to_upstream.at_boundary:
            self._upstream.write(close_frame(*self._ending, mask=secrets.token_bytes(4)))
            self._ended_upstream = True

    def _write_client(self, data: bytes) -> None:
        transport = self._client.transport
        if transport is None or transport.is_closing():
            self._finish()
        elif data:
            transport.write(data)

    def _finish(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
