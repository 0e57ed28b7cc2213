"""The connections to one upstream: idle or in use, limited, and retried while it is down."""

import asyncio
import errno
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from tailchat_gate.observe.log import LOGGER_NAME, FaultLog
from tailchat_gate.observe.request_counts import UpstreamCounts
from tailchat_gate.observe.sink import REPEAT_SECONDS
from tailchat_gate.observe.tls import expiry_of
from tailchat_gate.proxy.message.response_lines import ResponseLines
from tailchat_gate.proxy.message.response_reader import ResponseReader
from tailchat_gate.proxy.sockets import Descriptors, RequestSlots, check_each
from tailchat_gate.proxy.upstream.backends import Backend, Dialer
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.proxy.upstream.interfaces import DNS, KINDS, NO_DESCRIPTOR, PASSING, End, kind_of

#: The pause between two tries to connect.
PAUSE_SECONDS: Final = 0.1

#: Shorter than the 5 s after which Node and uvicorn close an idle connection: a request sent on
#: a connection that is about to be closed is lost.
IDLE_SECONDS: Final = 4.0
#: A request that must not be sent twice only takes a connection idle for less than this.
UNSAFE_IDLE_SECONDS: Final = 1.0
MAX_IDLE: Final = 256
#: Seconds between two checks of deadlines, which is how exact timeouts are.
SWEEP_SECONDS: Final = 0.5
#: Authenticating a new connection of one person costs two more requests, so such a connection
#: stays open for longer than others, as in nginx.
OWN_IDLE_SECONDS: Final = 60.0

_log = logging.getLogger(LOGGER_NAME)


class ReconnectGate:
    """Queues the requests that wait for one upstream, so that one of them at a time reconnects."""

    def __init__(self) -> None:
        self._pausing = False
        self._waiters: deque[asyncio.Future[bool]] = deque()

    async def wait(self, seconds: float) -> bool:
        """Wait until it is time to try again; return False after `seconds` without a turn.

        After True the caller tries, then calls `back` or `gave_up`, or waits again.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        if self._pausing:
            waiter = loop.create_future()
            self._waiters.append(waiter)
            try:
                await asyncio.wait((waiter,), timeout=seconds)
            finally:
                # Also if the client has left, because its turn would be lost.
                waiter.cancel()
            if waiter.cancelled():
                return False
            if waiter.result():
                return True
        self._pausing = True
        try:
            await asyncio.sleep(max(0.0, min(PAUSE_SECONDS, end - loop.time())))
        finally:
            self._pausing = False
        return True

    def back(self) -> None:
        """The upstream accepts connections again: let all waiting requests try."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(True)

    def gave_up(self) -> None:
        """A request has stopped trying: the next one tries if no other does."""
        while self._waiters and not self._pausing:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(False)
                return


class Pool(RequestSlots):
    """Keep-alive connections to one backend, the most recently used first."""

    def __init__(
        self,
        backend: Backend,
        dialer: Dialer,
        descriptors: Descriptors,
        failures: Counter[tuple[str, str]],
        counts: UpstreamCounts,
        lines: ResponseLines,
    ) -> None:
        super().__init__()
        self.backend: Final = backend
        self._descriptors = descriptors
        self._failures = failures
        self.counts: Final = counts
        #: How many connections are open, including those of tunnels.
        self.open = 0
        self._dialer = dialer
        self._time: Callable[[], float] = time.monotonic
        self._lines = lines
        self._idle: list[UpstreamConnection] = []
        self._busy: set[UpstreamConnection] = set()
        #: The addresses of the backend's name at the last check of its connections.
        self._addresses: frozenset[str] | None = None
        #: Idle connections of one person each; the clients' connections hold them.
        self._own: set[UpstreamConnection] = set()
        self._reconnect_gate = ReconnectGate()
        self._logged = ""
        self._logged_at = 0.0
        #: The last malformed response's fault, and its Unix second; None before the first.
        self.fault: tuple[str, int] | None = None
        self._faults = FaultLog(self._time)

    def __repr__(self) -> str:
        return f"<Pool {self.backend.url}: {len(self._busy)} busy, {len(self._idle)} idle>"

    @property
    def states(self) -> dict[str, int]:
        """The number of open connections by state: idle, with a request, of a tunnel, closing."""
        idle, active = len(self._idle) + len(self._own), len(self._busy)
        return {"idle": idle, "active": active, "other": max(0, self.open - idle - active)}

    def failed(self, kind: str) -> None:
        """Count a fault of the upstream."""
        self._failures[self.backend.url, kind] += 1

    def opened(self) -> None:
        """A connection is open: count it."""
        self.open += 1
        self._descriptors.upstreams += 1

    def closed(self) -> None:
        """A connection is closed: count one less."""
        self.open -= 1
        self._descriptors.upstreams -= 1

    def close_oldest(self) -> bool:
        """Close the connection that was idle for longest; return whether there was one."""
        if self._idle:
            self._idle.pop(0).abort()
            return True
        if self._own:
            self.drop_own(min(self._own, key=lambda connection: connection.idle_since))
            return True
        return False

    def take(self, now: float, *, repeatable: bool) -> UpstreamConnection | None:
        """Return a clean idle connection, or None; `now` is in seconds of the monotonic clock."""
        limit = IDLE_SECONDS if repeatable else UNSAFE_IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            rested = now - connection.idle_since
            if rested < limit and connection.is_ready():
                self._busy.add(connection)
                return connection
            connection.abort()
        return None

    async def connect(
        self,
        timeout: float,  # noqa: ASYNC109 - see below
        retry: float,
        failed: "set[Pool] | None" = None,
    ) -> UpstreamConnection:
        """Return a new connection; if it is refused, try again for `retry` seconds.

        `failed` has the pools for which a failure of this request is already counted, and gets this
        one after a failure.
        Raises OSError if the backend cannot be reached, TimeoutError if one try takes `timeout`
        seconds. The timeout is a parameter because it is a route's setting.
        """
        loop, reconnect_gate = asyncio.get_running_loop(), self._reconnect_gate
        end = loop.time() + retry
        failed = set() if failed is None else failed
        try:
            while True:
                try:
                    connection = await self._open(timeout, failed)
                except OSError as error:
                    left = end - loop.time()
                    if (
                        left <= 0
                        or kind_of(error) not in PASSING
                        or not await reconnect_gate.wait(left)
                    ):
                        raise
                else:
                    reconnect_gate.back()
                    return connection
        finally:
            reconnect_gate.gave_up()

    async def _open(
        self,
        timeout: float,  # noqa: ASYNC109 - as above
        failed: "set[Pool]",
    ) -> UpstreamConnection:
        loop, descriptors = asyncio.get_running_loop(), self._descriptors
        if not descriptors.make_room():
            raise OSError(errno.EMFILE, "all file descriptors are in use")
        descriptors.upstreams += 1
        began = self._time()
        try:
            async with asyncio.timeout(timeout):
                connection = await self._dialer.connect(self.backend, self._make)
        except OSError as error:
            kind = kind_of(error)
            if error.errno in NO_DESCRIPTOR:
                descriptors.note()
            else:
                self.counts.tried(time.time(), up=False)
            if isinstance(error, TimeoutError) and self._dialer.names.waits(self.backend.host):
                kind = DNS
            if self not in failed:
                failed.add(self)
                self.failed(kind)
            self._tell(error, kind, loop.time())
            raise
        finally:
            # From here on, the connection is counted by `opened`.
            descriptors.upstreams -= 1
        self._busy.add(connection)
        self._count_opened(connection, self._time() - began)
        if self._logged:
            self._logged = ""
            details = {"upstream": self.backend.url}
            _log.info("an upstream can be reached again", extra={"details": details})
        return connection

    def _count_opened(self, connection: UpstreamConnection, seconds: float) -> None:
        counts, transport = self.counts, connection.transport
        counts.tried(time.time(), up=True)
        counts.connect.observe(seconds)
        if self.backend.tls is not None and transport is not None:
            counts.certificate_expires = expiry_of(transport.get_extra_info("ssl_object"))

    def _make(self) -> UpstreamConnection:
        loop, reader = asyncio.get_running_loop(), ResponseReader(self._lines)
        return UpstreamConnection(loop, reader, self, self._dialer.buffers)

    def exchange_failed(self, end: End, fault: str, route: str) -> None:
        """Count a failed exchange if the upstream is at fault; log the response's `fault`."""
        if fault:
            self._tell_fault(fault, route)
        if end in KINDS:
            self.failed(KINDS[end])

    def _tell_fault(self, fault: str, route: str) -> None:
        """Record a malformed response; log at most one a minute."""
        self.fault = (fault, int(time.time()))
        details = {"upstream": self.backend.url, "route": route, "fault": fault}
        self._faults.tell("a response of a tool is malformed", details, level=logging.WARNING)

    def _tell(self, error: OSError, kind: str, now: float) -> None:
        """Log why the backend cannot be reached: once, and again each minute of an outage."""
        reason = f"{type(error).__name__}: {error}"
        if reason != self._logged or now >= self._logged_at + REPEAT_SECONDS:
            self._logged, self._logged_at = reason, now
            details = {"upstream": self.backend.url, "cause": kind, "error": reason}
            _log.warning("an upstream cannot be reached", extra={"details": details})

    def release(self, connection: UpstreamConnection) -> bool:
        """Take back a connection after its exchange; close it if it is not clean.

        Returns whether the connection was reused, not new.
        """
        self._busy.discard(connection)
        reused = connection.idle_since > 0
        if connection.reader.personal:
            # The upstream would take the next request on it for the same person's.
            connection.abort()
        elif connection.is_reusable() and len(self._idle) < MAX_IDLE:
            connection.idle_since = self._time()
            self._idle.append(connection)
        else:
            connection.abort()
        return reused

    def keep_own(self, connection: UpstreamConnection) -> None:
        """Let a connection of one person idle; `take` never returns it."""
        self._busy.discard(connection)
        connection.idle_since = self._time()
        self._own.add(connection)

    def take_own(self, connection: UpstreamConnection) -> bool:
        """Use a connection of one person again; return False if it is not clean."""
        self._own.discard(connection)
        if connection.is_ready():
            self._busy.add(connection)
            return True
        connection.abort()
        return False

    def drop_own(self, connection: UpstreamConnection) -> None:
        """Close a connection of one person."""
        self._own.discard(connection)
        connection.abort()

    def forget(self, connection: UpstreamConnection) -> None:
        """Forget a connection, which a tunnel uses from now on."""
        self._busy.discard(connection)

    def _follow_name(self) -> None:
        """Retire the connections to addresses that the backend's name no longer has."""
        addresses = self._dialer.names.refresh(self.backend.host)
        if addresses is None or addresses == self._addresses:
            return
        self._addresses = addresses
        for connection in (*self._idle, *self._busy, *self._own):
            if connection.address not in addresses:
                # It is closed once an exchange under way has ended.
                connection.spoil()

    def sweep(self, now: float) -> None:
        """Close connections that were idle for too long; end overdue exchanges."""
        if self._idle or self._busy or self._own:
            self._follow_name()
        open_connections: list[UpstreamConnection] = []
        for connection in self._idle:
            if connection.is_reusable() and now - connection.idle_since < IDLE_SECONDS:
                open_connections.append(connection)
            else:
                connection.abort()
        self._idle = open_connections
        for connection in tuple(self._own):
            if not connection.is_reusable() or now - connection.idle_since >= OWN_IDLE_SECONDS:
                self.drop_own(connection)
        check_each(
            tuple(self._busy), lambda connection: connection.check(now), UpstreamConnection.give_up
        )

    def close(self) -> None:
        """Close every connection, idle or not."""
        for connection in [*self._idle, *self._busy, *self._own]:
            connection.abort()
        self._idle.clear()
        self._own.clear()
        self._busy.clear()
