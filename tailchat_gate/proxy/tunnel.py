"""A switched connection: bytes both ways untouched, until one side leaves or the gate ends it."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

from tailchat_gate.proxy.connection import UpstreamConnection
from tailchat_gate.proxy.downstream import UPSTREAM_FULL, ClientConnection
from tailchat_gate.proxy.frames import CLOSE_OPCODE, FrameTracker, close_frame
from tailchat_gate.request.fields import RawFields
from tailchat_gate.request.refusal import RefusedError

#: How long the two ends may take to answer a close frame before they are cut off.
CLOSE_SECONDS: Final = 2.0
#: Close codes of RFC 6455 section 7.4.1 and of its registry (3000: unauthorized, 3008: timeout).
GOING_AWAY: Final = 1001
UNAUTHORIZED: Final = 3000
TIMED_OUT: Final = 3008
STOPPING: Final = "the gate is stopping"
SESSION_OVER: Final = "the session is over"
TOO_OLD: Final = "open for as long as this tool allows"
SILENT: Final = "silent for too long"


class Terms(NamedTuple):
    """How long a tunnel may last.

    `until` is the Unix second at which its session is over, `oldest` the one at which it has been
    open long enough; infinite where there is none. `idle` is how many seconds both ends may be
    silent, 0 for any. `websocket`: its frames are known, so that it can be ended cleanly.
    """

    until: float
    oldest: float
    idle: float
    websocket: bool


class _Shortcut(asyncio.Protocol):
    """Stands in for a connection in a tunnel, so that its bytes take one step instead of four."""

    def __init__(self, owner: asyncio.Protocol, relay: Callable[[bytes], None]) -> None:
        self._owner = owner
        self.data_received = relay  # type: ignore[assignment,method-assign] # a call less

    def eof_received(self) -> bool | None:
        """Tell the connection."""
        return self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell the connection."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Tell the connection."""
        self._owner.resume_writing()


class Tunnel:
    """Relays between a client and an upstream whose protocol was switched."""

    def __init__(
        self,
        client: ClientConnection,
        upstream: UpstreamConnection,
        terms: Terms,
        ended: Callable[["Tunnel"], None],
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._terms = terms
        self._ended = ended
        self._to_client = FrameTracker()
        self._to_upstream = FrameTracker()
        self._ending: tuple[int, str] | None = None
        self._ended_client = self._ended_upstream = False
        self._client_done = self._upstream_done = self._finished = False
        self._moved = True
        self._deadline = 0.0
        self._cut_off: asyncio.TimerHandle | None = None
        self.bytes_to_client = 0

    def start(self) -> None:
        """Take over both connections."""
        upstream, client = self._upstream, self._client
        upstream.tunnel = self
        client.begin(self)
        if leftover := upstream.take_leftover():
            self.from_upstream(leftover)
        client.switch(self)
        if upstream.transport is None:
            self.upstream_lost()
            return
        if client.full:
            upstream.pause_reading()
        self._take_shortcuts(client, upstream)

    def _take_shortcuts(self, client: ClientConnection, upstream: UpstreamConnection) -> None:
        """Let bytes pass from socket to socket until the gate has to put in a word of its own."""
        if client.transport is None or upstream.transport is None or self._ending is not None:
            return
        to_client, to_upstream = client.transport.write, upstream.transport.write
        feed_client, feed_upstream = self._to_client.feed, self._to_upstream.feed

        def from_client(data: bytes) -> None:
            self._moved = True
            feed_upstream(data)
            to_upstream(data)

        def from_upstream(data: bytes) -> None:
            self._moved = True
            self.bytes_to_client += len(data)
            feed_client(data)
            to_client(data)

        client.transport.set_protocol(_Shortcut(client, from_client))
        upstream.transport.set_protocol(_Shortcut(upstream, from_upstream))

    def _leave_shortcuts(self) -> None:
        for connection in (self._client, self._upstream):
            if connection.transport is not None:
                connection.transport.set_protocol(connection)

    def end(self, code: int, reason: str) -> None:
        """End a WebSocket with a close frame to both sides, at the next frame boundary."""
        if self._ending is not None or self._finished:
            return
        if not self._terms.websocket:
            self._finish()
            return
        self._ending = (code, reason)
        self._leave_shortcuts()
        self._try_end_client(b"")
        self._try_end_upstream(b"")
        self._cut_off = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._finish)

    def check(self, now: float, clock: float) -> None:
        """End what has lasted too long; `now` is the loop's time, `clock` the Unix second."""
        terms = self._terms
        if clock >= terms.until:
            self.end(UNAUTHORIZED, SESSION_OVER)
        elif clock >= terms.oldest:
            self.end(UNAUTHORIZED, TOO_OLD)
        elif terms.idle:
            if self._moved:
                self._moved = False
                self._deadline = now + terms.idle
            elif now >= self._deadline:
                self.end(TIMED_OUT, SILENT)

    # From the upstream.

    def from_upstream(self, data: bytes) -> None:
        """Relay bytes to the client."""
        self._moved = True
        self.bytes_to_client += len(data)
        if self._ending is not None:
            self._try_end_client(data)
            return
        self._to_client.feed(data)
        self._write_client(data)

    def upstream_ended(self) -> None:
        """Pass on that the upstream sends no more."""
        self._upstream_done = True
        transport = self._client.transport
        if self._client_done or transport is None or not transport.can_write_eof():
            self._finish()
        elif not transport.is_closing():
            transport.write_eof()

    def upstream_lost(self) -> None:
        """End the tunnel: the upstream closed."""
        self._finish()

    def upstream_full(self, *, full: bool) -> None:
        """Stop or resume reading from the client while the upstream takes no more."""
        if full:
            self._client.hold(UPSTREAM_FULL)
        else:
            self._client.release(UPSTREAM_FULL)

    # From the client.

    def from_client(self, data: bytes) -> None:
        """Relay bytes to the upstream."""
        self._moved = True
        if self._ending is not None:
            self._try_end_upstream(data)
            return
        self._to_upstream.feed(data)
        self._upstream.write(data)

    def client_ended(self) -> None:
        """Pass on that the client sends no more."""
        self._client_done = True
        if self._upstream_done or not self._upstream.finish_writing():
            self._finish()

    def client_gone(self) -> None:
        """End the tunnel: the client closed."""
        self._finish()

    def client_full(self, *, full: bool) -> None:
        """Stop or resume reading from the upstream while the client takes no more."""
        if full:
            self._upstream.pause_reading()
        else:
            self._upstream.resume_reading()

    def body(self, content: bytes) -> None:
        """Refuse: a request that switches protocols has no body here."""

    def body_complete(self, trailers: RawFields) -> None:
        """As body."""

    def body_failed(self, error: RefusedError) -> None:
        """As body."""

    # Ending it.

    def _try_end_client(self, data: bytes) -> None:
        if self._ended_client or self._ending is None:
            return
        tracker = self._to_client
        if not tracker.at_boundary:
            self._write_client(data[: tracker.feed(data, stop_at_boundary=True)])
        if tracker.at_boundary:
            if not tracker.closed:
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
        tracker = self._to_upstream
        if not tracker.at_boundary:
            self._upstream.write(data[: tracker.feed(data, stop_at_boundary=True)])
        if tracker.at_boundary:
            if not tracker.closed:
                self._upstream.write(close_frame(*self._ending, mask=secrets.token_bytes(4)))
            self._ended_upstream = True

    def _write_client(self, data: bytes) -> None:
        if data and not self._client.write(data):
            self._finish()

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        if self._cut_off is not None:
            self._cut_off.cancel()
        self._upstream.close()
        self._ended(self)
