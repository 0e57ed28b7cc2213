"""A switched connection: relays bytes unchanged until one side closes or the gate ends it."""

import asyncio
import secrets
from collections.abc import Callable
from types import MappingProxyType
from typing import Final, NamedTuple

from tailchat_gate.identity.revocation.state import SessionHolder
from tailchat_gate.proxy.client.active_request import Admission
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.proxy.client.flow_control import UPSTREAM_FULL
from tailchat_gate.proxy.exchange.tunnel_relay import Shortcut
from tailchat_gate.proxy.message.websocket_frames import FrameTracker, close_frame
from tailchat_gate.proxy.sockets import end_writing
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.reasons import Reason

#: How long both peers may take to answer a close frame before the gate cuts them off.
CLOSE_SECONDS: Final = 2.0
#: How long one peer of a WebSocket may be silent after the other has sent a close frame and EOF;
#: without a limit, it could keep both connections open.
LEFT_SECONDS: Final = 10.0
#: In place of CLOSE_SECONDS if the session has ended: not even a frame under way may last longer.
OVER_SECONDS: Final = 0.5
#: Close codes of RFC 6455 section 7.4.1 and of its registry (1013: try again later,
#: 3000: unauthorized, 3003: forbidden, 3008: timeout).
GOING_AWAY: Final = 1001
TRY_AGAIN_LATER: Final = 1013
UNAUTHORIZED: Final = 3000
FORBIDDEN: Final = 3003
TIMED_OUT: Final = 3008
STOPPING: Final = "the gate is stopping"
SESSION_OVER: Final = "the session is over"
LOCKED: Final = "locked"
TOO_OLD: Final = "open for as long as this tool allows"
SILENT: Final = "silent for too long"
#: The close code and text for a reason; for any other, FORBIDDEN and the reason itself.
_FAREWELLS: Final = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *(Reason.NOT_SIGNED_IN, Reason.TOKEN_EXPIRED, Reason.SESSION_ENDED),
                *(Reason.SESSION_REVOKED, Reason.RECHECK_FAILED),
            ),
            (UNAUTHORIZED, SESSION_OVER),
        ),
        Reason.LOCKED: (UNAUTHORIZED, LOCKED),
        **{
            reason: (TRY_AGAIN_LATER, reason.value)
            for reason in (Reason.GROUPS_UNKNOWN, Reason.MAINTENANCE)
        },
    }
)


class TunnelLimits(NamedTuple):
    """The time limits of a tunnel.

    `oldest` is the Unix second at which it must end, infinite for no limit. `idle` is how many
    seconds both peers may be silent, 0 for no limit; `idle_session`: that limit is the session's.
    `websocket`: the protocol is WebSocket, so that close frames can end it cleanly.
    """

    oldest: float
    idle: float
    idle_session: bool
    websocket: bool


class Tunnel:
    """Relays between a client and an upstream whose protocol was switched.

    `admission` is the basis on which it was let in, None if it may outlive that. When it has ended,
    `failure` is None, or the reason that a new request would get because the session has ended.
    """

    __slots__ = (
        "_client", "_client_done", "_cut_off", "_deadline", "_ended", "_ending", "_farewells",
        "_finished", "_idle", "_limits", "_moved", "_shortcuts", "_size", "_to_client",
        "_to_upstream", "_upstream", "_upstream_done", "admission", "bytes_to_client", "failure",
    )  # fmt: skip

    def __init__(
        self,
        client: ClientConnection,
        upstream: UpstreamConnection,
        limits: TunnelLimits,
        admission: Admission | None,
        ended: Callable[["Tunnel"], None],
    ) -> None:
        self.admission = admission
        self.failure: Reason | None = None
        self._client = client
        self._upstream = upstream
        self._limits = limits
        self._ended = ended
        self._to_client = FrameTracker()
        self._to_upstream = FrameTracker()
        self._ending = self._finished = False
        #: The gate's close frames: for the client, for the upstream.
        self._farewells = (b"", b"")
        #: Whether a peer has sent EOF, and the gate has passed it on.
        self._client_done = self._upstream_done = False
        #: Whether bytes moved without a shortcut since the last check, and how many bytes shortcuts
        #: had relayed at that check.
        self._moved = True
        self._size = 0
        self._shortcuts: tuple[()] | tuple[Shortcut, Shortcut] = ()
        self._idle = limits.idle
        self._deadline = 0.0
        self._cut_off: asyncio.TimerHandle | None = None
        self.bytes_to_client = 0

    @property
    def session(self) -> SessionHolder | None:
        """The session or token with which it ends, None for an anonymous one."""
        return None if self.admission is None else self.admission.holder

    def start(self) -> None:
        """Take over both connections."""
        upstream, client = self._upstream, self._client
        upstream.tunnel = self
        client.begin(self)
        client.switch(self)
        leftover = upstream.take_leftover()
        if leftover and not self._finished:
            self.from_upstream(leftover)
        if self._finished:
            return
        if upstream.transport is None:
            self.upstream_lost(reset=False)
            return
        if client.full:
            upstream.pause_reading()
        self._take_shortcuts(client, upstream)

    def _take_shortcuts(self, client: ClientConnection, upstream: UpstreamConnection) -> None:
        """Relay bytes from socket to socket until the gate sends a close frame of its own."""
        if client.transport is None or upstream.transport is None:
            return
        to_client = to_upstream = None
        if self._limits.websocket:
            to_client, to_upstream = self._to_client, self._to_upstream
        from_client = Shortcut(client, upstream.transport, to_upstream)
        from_upstream = Shortcut(upstream, client.transport, to_client)
        client.transport.set_protocol(from_client)
        upstream.transport.set_protocol(from_upstream)
        self._shortcuts = (from_client, from_upstream)

    def _leave_shortcuts(self) -> None:
        for connection in (self._client, self._upstream):
            if connection.transport is not None:
                connection.transport.set_protocol(connection)
        if self._shortcuts:
            self.bytes_to_client += self._shortcuts[1].size
            self._shortcuts = ()

    def end(self, code: int, reason: str, *, within: float = CLOSE_SECONDS) -> None:
        """End a WebSocket with a close frame to both peers, at the next frame boundary.

        The gate cuts it off after `within` seconds. A tunnel of another protocol is reset, because
        after a clean close the peers would take their data for complete.
        """
        if self._ending or self._finished:
            return
        if not self._limits.websocket:
            self.abort()
            return
        self._ending = True
        self._leave_shortcuts()
        mask = secrets.token_bytes(4)
        self._farewells = (close_frame(code, reason), close_frame(code, reason, mask=mask))
        self._cut_off = asyncio.get_running_loop().call_later(within, self._finish)
        self._end_client(b"")
        self._end_upstream(b"")

    def abort(self) -> None:
        """Reset both connections."""
        self._finish(reset=True)

    def check(self, now: float, clock: float) -> None:
        """End the tunnel if a limit has passed; `now` is the loop's time, `clock` Unix time."""
        limits = self._limits
        if clock >= limits.oldest:
            self.end(UNAUTHORIZED, TOO_OLD)
        elif self._idle:
            if self._has_moved():
                self._deadline = now + self._idle
            elif now < self._deadline:
                pass
            elif limits.idle_session and self._idle == limits.idle:
                self.session_over(Reason.NOT_SIGNED_IN)
            else:
                self.end(TIMED_OUT, SILENT)

    def _has_moved(self) -> bool:
        """Whether bytes have moved since the last call."""
        size = sum(shortcut.size for shortcut in self._shortcuts)
        moved = self._moved or size != self._size
        self._moved, self._size = False, size
        return moved

    def session_over(self, reason: Reason) -> None:
        """The session or the right to use the route has ended: end the tunnel."""
        if self._finished:
            return
        self.admission, self.failure = None, reason
        code, text = _FAREWELLS.get(reason, (FORBIDDEN, reason.value))
        self.end(code, text, within=OVER_SECONDS)

    # From the upstream.

    def from_upstream(self, data: bytes) -> None:
        """Relay bytes to the client."""
        self._moved = True
        self.bytes_to_client += len(data)
        if self._ending:
            self._end_client(data)
        else:
            self._to_client.feed(data)
            self._write_client(data)

    def upstream_ended(self) -> None:
        """The upstream sent EOF: pass it on to the client."""
        self._upstream_done = True
        transport = self._client.transport
        if self._client_done or transport is None or not transport.can_write_eof():
            self._finish()
        elif not transport.is_closing() and end_writing(transport):
            self._wait_less(self._to_client)

    def upstream_lost(self, *, reset: bool) -> None:
        """The upstream's connection was closed or reset: end the tunnel."""
        over = self._upstream_done or self._ending or self._has_closed(self._to_client)
        self._finish(reset=reset and not over)

    def upstream_full(self, *, full: bool) -> None:
        """Pause reading from the client while the upstream's write buffer is full."""
        if full:
            self._client.hold(UPSTREAM_FULL)
        else:
            self._client.release(UPSTREAM_FULL)

    # From the client.

    def from_client(self, data: bytes) -> None:
        """Relay bytes to the upstream."""
        self._moved = True
        if self._ending:
            self._end_upstream(data)
        else:
            self._to_upstream.feed(data)
            self._upstream.write(data)

    def client_ended(self) -> None:
        """The client sent EOF: pass it on to the upstream."""
        self._client_done = True
        if self._ending:
            self._finish_if_answered()
        elif self._upstream_done:
            self._finish()
        elif self._upstream.finish_writing() or self._has_closed(self._to_upstream):
            self._wait_less(self._to_upstream)
        else:
            # TLS cannot be half closed, and the upstream must learn that the client has left.
            self._finish()

    def quiet(self) -> bool:
        """Return False: a tunnel goes on in one direction."""
        return False

    def close_after(self) -> None:
        """Nothing to do: a connection ends with its tunnel."""

    def client_gone(self) -> None:
        """The client's connection was closed or reset: end the tunnel."""
        over = self._client_done or self._ending or self._has_closed(self._to_upstream)
        self._finish(reset=self._client.was_reset and not over)

    def client_full(self, *, full: bool) -> None:
        """Pause reading from the upstream while the client's write buffer is full."""
        if full:
            self._upstream.pause_reading()
        else:
            self._upstream.resume_reading()

    # Ending it.

    def _has_closed(self, frames: FrameTracker) -> bool:
        """Whether a close frame has passed, after which its sender sends no further frame."""
        return self._limits.websocket and frames.closed

    def _wait_less(self, frames: FrameTracker) -> None:
        """Shorten the idle limit if the peer that sent EOF has sent a close frame."""
        if self._has_closed(frames):
            self._idle = LEFT_SECONDS
            self._moved = True

    def _end_client(self, data: bytes) -> None:
        """Relay the rest of the current frame, then send the gate's close frame, then nothing."""
        farewell = b"" if self._upstream_done else self._farewells[0]
        self._write_client(self._to_client.finish(data, farewell))
        self._finish_if_answered()

    def _end_upstream(self, data: bytes) -> None:
        """Do the same as _end_client for the upstream."""
        farewell = b"" if self._client_done else self._farewells[1]
        if passed := self._to_upstream.finish(data, farewell):
            self._upstream.write(passed)
        self._finish_if_answered()

    def _finish_if_answered(self) -> None:
        """Finish once the client got a close frame and has closed too (RFC 6455 section 7.1.1).

        The gate does not wait for the upstream's close frame: its connection lingers.
        """
        answered = self._to_upstream.finished and self._to_upstream.closed
        if self._to_client.finished and (answered or self._client_done):
            self._finish()

    def _write_client(self, data: bytes) -> None:
        if data and not self._client.write(data):
            self._finish()

    def _finish(self, *, reset: bool = False) -> None:
        if self._finished:
            return
        self._finished = True
        if self._cut_off is not None:
            self._cut_off.cancel()
        self._leave_shortcuts()
        if reset:
            self._client.abort()
            self._upstream.reset()
        else:
            self._upstream.close()
        # Breaks a reference cycle, which would wait for the garbage collector.
        self._upstream.tunnel = None
        self._ended(self)
