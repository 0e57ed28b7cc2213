"""The configuration in force, and earlier ones that still have open requests."""

import asyncio
import gc
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.config.load import Sources
from tailchat_gate.config.model import Settings
from tailchat_gate.gate import Gate
from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.sign_in_watch import SignInWatch
from tailchat_gate.identity.rechecker import AwaitableRechecks
from tailchat_gate.people.groups.watch import GroupTerms
from tailchat_gate.people.panel import Notices, Panel
from tailchat_gate.people.registration import RegistrationCheck
from tailchat_gate.people.watch import PeopleWatch
from tailchat_gate.proxy.client.active_request import ActiveRequest
from tailchat_gate.proxy.client.connection import ClientConnection, Service
from tailchat_gate.proxy.exchange.forwarder import Forwarder
from tailchat_gate.proxy.message.assertion import Assertions
from tailchat_gate.proxy.static.handler import LocalFiles
from tailchat_gate.serving.listening.tls import ServerTls
from tailchat_gate.serving.process_state import ProcessState

#: Seconds between two checks of whether a configuration's last request is done.
SWEEP_SECONDS: Final = 0.5
#: Seconds after which the memory of a closed configuration is freed. Some of its parts form
#: reference cycles, which the collector, tuned for requests without cycles, would only find
#: thousands of requests later. After this time no idle connection refers to its last exchange
#: (proxy/upstream/pool.py).
COLLECT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One configuration: its settings, the gate built from them, and the parts to close."""

    settings: Settings
    gate: Gate
    service: Service
    tailchat: TailchatClient
    sign_in: SignInWatch
    people: PeopleWatch
    registration: RegistrationCheck
    groups: GroupTerms
    panel: Panel
    notices: Notices
    forwarder: Forwarder
    assertions: Assertions | None
    tls: ServerTls | None
    process_state: ProcessState
    #: Files with certificates, and when these expire.
    certificate_expiries: tuple[tuple[str, float], ...] = ()
    #: Where settings came from that are not in the file.
    sources: Sources = field(default_factory=dict)

    def start(self) -> None:
        """Start serving; needs a running event loop."""
        self.process_state.start()
        self.forwarder.start()
        self.people.start()
        if self.process_state.tailchat.has_notices:
            self.notices.start()
        self.process_state.tailchat.group_watch.use(self.groups)
        kids = self.assertions.kids if self.assertions is not None else ()
        # Only now: a configuration that is built and then refused must not publish its keys.
        self.process_state.published_keys.publish(kids, self.process_state.clock())
        self.process_state.certificates.use(self.tls.facts if self.tls else ())
        self.process_state.token_expiries = tuple(
            token.expires for token in self.settings.token if token.expires is not None
        )
        self.process_state.certificate_expiries = self.certificate_expiries
        self.process_state.access_log.choose(self.settings.log.access_fields)

    def check_tailchat(self) -> None:
        """Check in the background whether people can sign in, and strangers register."""
        self.sign_in.start()
        self.registration.start()

    def retire(self) -> None:
        """Clear the caches: this configuration gets no further requests.

        One WebSocket can hold a configuration for weeks; the caches would hold megabytes with it.
        """
        self.sign_in.close()
        self.registration.close()
        self.people.stop()
        self.notices.stop()
        self.panel.close()
        self.service.reader.forget()
        self.gate.clients.forget()
        self.gate.authorizer.sessions.forget()

    def release(self) -> "Remainder":
        """Release the parts that answer requests; no request may be open.

        Returns what an open WebSocket still needs: the gate keeps rechecking its session at
        Tailchat.
        """
        self.sign_in.close()
        self.registration.close()
        self.forwarder.close()
        for backend in self.gate.local.values():
            if isinstance(backend, LocalFiles):
                backend.close()
        names = frozenset(route.name for route in self.settings.route)
        rechecker = self.gate.authorizer.sessions.rechecker
        return Remainder(self.forwarder.tunnels, names, rechecker, self.tailchat, self.people)

    async def close(self) -> None:
        """Close everything that no other configuration uses; no request may be open."""
        await self.release().close()


@dataclass(frozen=True, slots=True, eq=False)
class Remainder:
    """What remains of a configuration while WebSockets opened under it are open."""

    tunnels: Collection[object]
    route_names: frozenset[str]
    rechecker: AwaitableRechecks
    tailchat: TailchatClient
    people: PeopleWatch

    async def close(self) -> None:
        """Stop the calls to Tailchat."""
        await self.people.close()
        self.rechecker.close()
        await self.tailchat.close()


class _Retired:
    """A configuration that gets no new requests, with its open ones."""

    def __init__(
        self,
        generation: Generation,
        active_requests: Iterable[tuple[ClientConnection, ActiveRequest]],
    ) -> None:
        #: None once only WebSockets are left.
        self._generation: Generation | None = generation
        self._remainder: Remainder | None = None
        self._tunnels = generation.forwarder.tunnels
        self.active_requests = list(active_requests)
        self._was_idle = False

    @property
    def route_names(self) -> Iterable[str]:
        """The names of its routes."""
        if self._generation is not None:
            return (route.name for route in self._generation.settings.route)
        return self._remainder.route_names if self._remainder is not None else ()

    def is_over(self) -> bool:
        """Whether no request was open, at this call and at the previous one.

        Twice, because the task of a page ends a moment after its client has disconnected.
        """
        self.active_requests = [
            (client, active_request)
            for client, active_request in self.active_requests
            if _is_open(client, active_request)
        ]
        idle = not self.active_requests
        settled, self._was_idle = idle and self._was_idle, idle
        return settled and not self._tunnels

    def lighten(self) -> bool:
        """Release everything but the WebSockets once nothing else is open; return True if so.

        A WebSocket may be open for weeks. Without this, each reload in that time would keep another
        table of routes in memory, with everything built from it.
        """
        if self._generation is None or self.active_requests or not self._was_idle:
            return False
        self._remainder = self._generation.release()
        self._generation = None
        return True

    async def close(self) -> None:
        """Release the configuration and close its remainder."""
        if self._generation is not None:
            self._remainder = self._generation.release()
        if self._remainder is not None:
            await self._remainder.close()


class Generations:
    """The configuration in force, and the retired ones.

    A request keeps the configuration with which it started, and a configuration lives until its
    last request is done. Requests are not counted; instead, the gate looks at every connection once
    when another configuration comes into force.
    """

    def __init__(self, first: Generation) -> None:
        self.in_force = first
        self._retired: list[_Retired] = []
        self._know_routes()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._collector: asyncio.TimerHandle | None = None

    @property
    def retired(self) -> int:
        """How many earlier configurations still have open requests."""
        return len(self._retired)

    def follow(self, generation: Generation, clients: Iterable[ClientConnection]) -> None:
        """Put another configuration, already started, into force.

        `clients` are all open client connections.
        """
        before, self.in_force = self.in_force, generation
        before.retire()
        self._retired.append(_Retired(before, self._under_way(before, clients)))
        self._know_routes()
        if self._sweeper is None:
            self._wait()

    async def close(self) -> None:
        """Close every configuration, even with open requests."""
        for timer in (self._sweeper, self._collector):
            if timer is not None:
                timer.cancel()
        for retired in self._retired:
            await retired.close()
        self._retired.clear()
        await asyncio.gather(*self._closing)
        await self.in_force.close()

    def _under_way(
        self, generation: Generation, clients: Iterable[ClientConnection]
    ) -> Iterator[tuple[ClientConnection, ActiveRequest]]:
        """Yield the open requests of the configuration that was in force, with their connections.

        Tunnels are left out: each configuration has its own list of them.
        """
        others: set[object] = set(generation.process_state.upstream_pools.tunnels)
        others.update(
            active_request
            for retired in self._retired
            for _, active_request in retired.active_requests
        )
        for client in clients:
            if client.active_request is not None and client.active_request not in others:
                yield client, client.active_request

    def _wait(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        try:
            self._close_retired()
        finally:
            self._sweeper = None
            if self._retired:
                self._wait()

    def _close_retired(self) -> None:
        loop = asyncio.get_running_loop()
        over = [retired for retired in self._retired if retired.is_over()]
        for retired in over:
            self._retired.remove(retired)
            closing = loop.create_task(retired.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closed)
        for retired in self._retired:
            if retired.lighten():
                self._collect_soon()
        if over:
            self._know_routes()

    def _closed(self, closing: "asyncio.Task[None]") -> None:
        self._closing.discard(closing)
        self._collect_soon()

    def _collect_soon(self) -> None:
        if self._collector is None:
            loop = asyncio.get_running_loop()
            self._collector = loop.call_later(COLLECT_SECONDS, self._collect)

    def _collect(self) -> None:
        self._collector = None
        gc.collect()

    def _know_routes(self) -> None:
        """Create the counters of new routes, and drop those of routes in no configuration."""
        names = {route.name for route in self.in_force.settings.route}
        for retired in self._retired:
            names.update(retired.route_names)
        self.in_force.process_state.metrics.know_routes(names)


def _is_open(client: ClientConnection, active_request: ActiveRequest) -> bool:
    return client.active_request is active_request and client.transport is not None
