"""The fast path of a tunnel, from one socket to the other."""

import asyncio
from typing import Final

from tailchat_gate.proxy.message.websocket_frames import (
    CONTROL_BIT,
    SHORT_FRAME_SIZES,
    FrameTracker,
)
from tailchat_gate.proxy.sockets import READ_BYTES, Receiver


class Shortcut(asyncio.BufferedProtocol):
    """Replaces a connection's protocol in a tunnel, so that relaying takes one call, not four.

    `frames` tracks the frames relayed to `onward`, None if it is no WebSocket.
    """

    __slots__ = (
        "_buffer", "_buffers", "_frames", "_octets", "_onward", "_owner", "_small", "_write",
        "size",
    )  # fmt: skip

    def __init__(
        self, owner: Receiver, onward: asyncio.Transport, frames: FrameTracker | None
    ) -> None:
        self._owner = owner
        self._onward = onward
        self._write = onward.write
        self._frames = frames
        self._buffers: Final = owner.buffers
        self._buffer = self._small = self._buffers.small
        self._octets = self._buffers.octets
        #: How many bytes it has relayed.
        self.size = 0

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - not what is wanted here
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Relay the bytes of one read."""
        data = self._octets[:nbytes]
        self.size += nbytes
        frames = self._frames
        # Most reads are one short data frame, which does not change the tracker.
        if frames is not None and (
            frames.missing
            or nbytes == 1
            or SHORT_FRAME_SIZES[data[1]] != nbytes
            or data[0] & CONTROL_BIT
        ):
            frames.feed(data)
        self._write(data)
        if nbytes >= READ_BYTES:
            self._buffer = self._buffers.fitting(self._onward)
        else:
            self._buffer = self._small

    def eof_received(self) -> bool | None:
        """Forwarded to the connection."""
        return self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forwarded to the connection."""
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Forwarded to the connection."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Forwarded to the connection."""
        self._owner.resume_writing()
