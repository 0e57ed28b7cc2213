"""The server of clients' connections: creates them, counts them, checks their deadlines."""

import asyncio
import heapq
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final, Protocol

from tailchat_gate.proxy.client.active_request import ActiveRequest
from tailchat_gate.proxy.client.connection import CurrentService, Service
from tailchat_gate.proxy.client.protocol import ClientProtocol
from tailchat_gate.proxy.client.watches import RightWatch
from tailchat_gate.proxy.sockets import Descriptors, ReadBuffers, check_each
from tailchat_gate.reasons import Reason

#: How long an idle connection that is to end stays open, because a request may be on its way.
IDLE_SECONDS: Final = 1.0
#: Seconds between two checks of deadlines, which is how exact timeouts are.
SWEEP_SECONDS: Final = 0.5
#: Seconds from a change of sessions or locks until the requests under way are checked, so that
#: several changes cause one check.
PROMPT_SECONDS: Final = 0.05
#: How long a stopping gate leaves an idle connection open. A busy client sends a request within
#: that time, and the response tells it to leave.
GRACE_SECONDS: Final = 1.0
#: Seconds between two rounds of closing idle TLS connections; most clients close within that time.
TLS_ROUND_SECONDS: Final = 0.25
#: One in this many idle connections is closed at once, so that searching for them costs little.
_CLOSED_PART: Final = 16


class ClientTrust:
    """Ends connections that began when other client certificates were accepted.

    A value stands for the accepted certificates. TLS asks for a certificate only when a connection
    begins. After a change, a connection finishes the request under way, within the time that a
    stopping gate allows, and ends.
    """

    def __init__(self, connections: Collection[ClientProtocol]) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._value = b""
        self._limit = 0.0
        self._timers: dict[ClientProtocol, asyncio.TimerHandle] = {}

    def change(self, value: bytes, limit: float) -> None:
        """End connections of another value than this, within `limit` seconds."""
        self._value, self._limit = value, limit
        for connection in self._connections:
            self.look_at(connection)

    def look_at(self, connection: ClientProtocol) -> None:
        """End a connection if it began under another value, for instance after a slow handshake."""
        # Only once for each: a later change must not give it more time.
        if not connection.secure or connection.trust in (self._value, None):
            return
        connection.trust = None
        connection.leave()
        connection.idle_at_most(IDLE_SECONDS, self._loop.time())
        self._timers[connection] = self._loop.call_later(self._limit, self._end, connection)

    def close(self) -> None:
        """Cancel the pending ends."""
        for timer in self._timers.values():
            timer.cancel()

    def _end(self, connection: ClientProtocol) -> None:
        del self._timers[connection]
        connection.abort()


class SessionWatcher(Protocol):
    """Ends requests under way whose session has ended."""

    def check(self, active_requests: Iterable[ActiveRequest]) -> None:
        """End the requests whose session has ended."""


class ClientConnectionLimits:
    """Limits the connections of each client; at the limit, its oldest idle ones are closed."""

    def __init__(self) -> None:
        self._open: dict[str, set[ClientProtocol]] = {}
        #: Clients without an idle connection at the last search, until the next sweep.
        self._busy: set[str] = set()

    def enter(self, who: str, connection: ClientProtocol, most: int) -> bool:
        """Count a connection; return False and count nothing if the client has too many."""
        connections = self._open.get(who)
        if connections is None:
            connections = self._open[who] = set()
        elif len(connections) >= most and not self._make_room(who, connections):
            return False
        connections.add(connection)
        return True

    def leave(self, who: str, connection: ClientProtocol) -> None:
        """Count one connection less, because one is closed."""
        connections = self._open.get(who)
        if connections is not None:
            connections.discard(connection)
            if not connections:
                del self._open[who]

    def sweep(self) -> None:
        """Allow new searches for idle connections."""
        self._busy.clear()

    def _make_room(self, who: str, connections: Collection[ClientProtocol]) -> bool:
        if who in self._busy:
            return False
        if close_oldest(connections):
            return True
        self._busy.add(who)
        return False


class ClientServer:
    """Makes the connections of a gate, and checks their deadlines.

    Connections outlive configurations: the service in force when a request's head is complete
    answers it. `watch` ends the requests of sessions that have ended; `descriptors` are the
    process's.
    """

    def __init__(self, service: Service, watch: SessionWatcher, descriptors: Descriptors) -> None:
        self.descriptors: Final = descriptors
        self.buffers: Final = ReadBuffers()
        self._peers = ClientConnectionLimits()
        #: Whether no connection was idle at the last search, until the next sweep.
        self._none_idle = False
        self.connections: Final[set[ClientProtocol]] = set()
        #: Called with the number of connections.
        self.tell: Callable[[int], object] = bool
        #: How many connections use TLS, including those being opened, and their limit.
        self.by_tls = 0
        self.tls_connections = 0
        self._next_tls = 0.0
        self._loop = asyncio.get_running_loop()
        self.time: Final[Callable[[], float]] = self._loop.time
        self._watch = watch
        self._sweeper: asyncio.TimerHandle | None = None
        self._prompt: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        #: Whether every response is now the last of its connection.
        self._leaving = False
        self.service: Final = CurrentService(service)
        #: Answers requests on listeners that only redirect.
        self.redirects: Final = CurrentService(service.redirects())
        #: Ends connections whose client certificate may no longer be accepted.
        self.trust: Final = ClientTrust(self.connections)
        self._rights = RightWatch(self.connections, self.service)
        self._set_limit(service)
        descriptors.closers.append(self._close_oldest)
        descriptors.busy_clients = self._busy_clients
        self._sweep()

    def change(self, service: Service) -> None:
        """Answer every request that is read from now on with `service`."""
        self.service.change(service)
        self.redirects.change(service.redirects())
        self._set_limit(service)
        now = self.time()
        for connection in self.connections:
            connection.configuration_changed(now)
        self.rights_changed()

    def _set_limit(self, service: Service) -> None:
        self._client_connections = service.client_connections or self.descriptors.client_connections

    def __call__(self) -> ClientProtocol:
        """Return the protocol for a new connection."""
        return ClientProtocol(self)

    def redirected(self) -> ClientProtocol:
        """Return the protocol for a new connection whose requests are only redirected."""
        return ClientProtocol(self, self.redirects)

    def _sweep(self) -> None:
        # First, because an exception below must not stop all deadlines.
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        # Before the time limits, whose faults must not keep a session alive.
        self._check_sessions()
        now = self.time()
        self._none_idle = False
        self._peers.sweep()
        check_each(
            tuple(self.connections),
            lambda connection: connection.check(now),
            lambda connection: connection.abort(),
        )

    def _check_sessions(self) -> None:
        self._prompt = None
        self._watch.check(
            [
                client.active_request
                for client in self.connections
                if client.active_request is not None
            ]
        )

    def sessions_changed(self) -> None:
        """Check soon whether sessions have ended, once for all changes until then."""
        if self._prompt is None:
            self._prompt = self._loop.call_later(PROMPT_SECONDS, self._check_sessions)

    def rights_changed(self) -> None:
        """Judge the requests under way again: a person may have lost a right."""
        self._rights.changed()

    def opened(self, connection: ClientProtocol) -> Reason | None:
        """Count a new connection; return why it is rejected, None if it may stay."""
        descriptors = self.descriptors
        room = descriptors.make_room()
        self.connections.add(connection)
        descriptors.clients += 1
        self.tell(descriptors.clients)
        connection.leaving = self._leaving
        self.trust.look_at(connection)
        if not room:
            return Reason.GATE_BUSY
        connection.address = client = self.service.handler.direct(connection.peer)
        who = client.network if client is not None else ""
        if who and not self._peers.enter(who, connection, self._most_of_one(connection)):
            return Reason.CLIENT_BUSY
        connection.counted_as = who
        if self._empty is not None:
            connection.idle_at_most(GRACE_SECONDS, self.time())
        return None

    def _most_of_one(self, connection: ClientProtocol) -> int:
        """Return the number of connections that the client of this one may have."""
        if not connection.secure:
            return self._client_connections
        return min(self._client_connections, max(1, self.tls_connections // 2))

    def close_idle_tls(self) -> bool:
        """Close the oldest idle TLS connections; return False if none is idle.

        A connection keeps its memory until its client has closed it too, so the next round comes
        later.
        """
        now = self.time()
        if now < self._next_tls:
            return True
        self._next_tls = now + TLS_ROUND_SECONDS
        return close_oldest([connection for connection in self.connections if connection.secure])

    def may_linger(self) -> bool:
        """Whether a rejected client may stay connected until it has read why."""
        return self.descriptors.may_linger()

    def out_of_descriptors(self) -> None:
        """Make room, because a connection could not be accepted for lack of descriptors."""
        self.descriptors.note()
        self._close_oldest()

    def _busy_clients(self) -> int:
        return sum(connection.busy for connection in self.connections)

    def _close_oldest(self) -> bool:
        self._none_idle = self._none_idle or not close_oldest(self.connections)
        return not self._none_idle

    def closed(self, connection: ClientProtocol) -> None:
        """Count a connection that is closed."""
        self.connections.discard(connection)
        self.descriptors.clients -= 1
        self.tell(self.descriptors.clients)
        self.by_tls -= connection.secure
        self._peers.leave(connection.counted_as, connection)
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)

    def leave(self) -> None:
        """Make every response from now on the last of its connection, which says so."""
        self._leaving = True
        for connection in self.connections:
            connection.leave()

    def empty(self) -> "asyncio.Future[None]":
        """Close connections once they are idle; the future is done when all are closed."""
        self._empty = self._loop.create_future()
        timeouts = self.service.timeouts
        grace = min(GRACE_SECONDS, timeouts.keepalive)
        self.service.timeouts = replace(timeouts, keepalive=grace)
        now = self.time()
        for connection in self.connections:
            connection.idle_at_most(grace, now)
        if not self.connections:
            self._empty.set_result(None)
        return self._empty

    def close(self) -> None:
        """Reset the remaining connections."""
        for timer in (self._sweeper, self._prompt):
            if timer is not None:
                timer.cancel()
        self._rights.close()
        self.trust.close()
        for connection in tuple(self.connections):
            connection.abort()


def close_oldest(connections: Collection[ClientProtocol]) -> bool:
    """Close the idle connections whose deadline is next; return False if none was idle."""
    idle = [connection for connection in connections if connection.idle_deadline]
    for connection in heapq.nsmallest(
        len(idle) // _CLOSED_PART + 1, idle, key=lambda c: c.idle_deadline
    ):
        connection.close_idle()
    return bool(idle)
