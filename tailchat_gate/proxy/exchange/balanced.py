"""An exchange with one of several backends, which may move to another one."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.proxy.exchange.buffered import BufferedExchange, discarded
from tailchat_gate.proxy.exchange.exchange import Exchange
from tailchat_gate.proxy.exchange.forward_request import (
    ForwardRequest,
    UpstreamSettings,
    claims_no_other,
)
from tailchat_gate.proxy.exchange.stored_body import BodyStore, StoredBody
from tailchat_gate.proxy.upstream.balancer import Balancer, Member
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.proxy.upstream.health import GATEWAY_FAULTS
from tailchat_gate.proxy.upstream.interfaces import (
    KINDS,
    NO_DESCRIPTOR,
    PASSING,
    End,
    ExchangeResult,
    kind_of,
    unreachable,
)
from tailchat_gate.proxy.upstream.pool import Pool
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.syntax import SAFE_METHODS

#: Ends that are never the client's fault, unlike a timeout, which a slow client can cause.
_FAULTS: Final = (End.UNANSWERED, End.BROKEN, End.TRUNCATED)

Ended = Callable[[ClientConnection, Exchange], None]


def balanced_person(visitor: Visitor | Machine | None) -> str:
    """Return the key by which a person's or machine's requests stay at one backend, or ""."""
    if isinstance(visitor, Visitor):
        return f"sub:{visitor.record.sub}"
    return "" if visitor is None else f"token:{visitor.name}"


@dataclass(frozen=True, slots=True)
class Backends:
    """The backends of a route, and the settings for each.

    Bodies are stored first, up to `kept` bytes of each in memory; 0 sends them as they arrive.
    """

    balancer: Balancer
    settings: Mapping[Member, UpstreamSettings]
    bodies: BodyStore
    kept: int

    def enter(
        self, client: ClientConnection, context: RequestContext, person: str
    ) -> UpstreamSettings | Reason:
        """Give a request a slot of a backend; return its settings, or why there is no slot."""
        tried: set[Member] = set()
        who, own = context.client_address.network, client.own
        if own is not None:
            # The client has an authenticated connection to that backend.
            for member, settings in self.settings.items():
                if own.has(member.pool) and member.health.up:
                    busy = settings.enter(who)
                    return settings if busy is None else busy
        reason = Reason.UPSTREAM_BUSY
        while (chosen := self.balancer.choose(person, tried)) is not None:
            settings = self.settings[chosen]
            busy = settings.enter(who)
            if busy is None:
                return settings
            reason = busy
            if self.balancer.is_held(person):
                break
            tried.add(chosen)
        return reason

    def exchange(
        self,
        client: ClientConnection,
        context: RequestContext,
        forward_request: ForwardRequest,
        settings: UpstreamSettings,
        ended: Ended,
    ) -> Exchange:
        """Return a new exchange with the backend of `settings`."""
        if not self.kept or forward_request.body is None:
            plain = BalancedExchange(client, context, forward_request, settings, ended)
            plain.begin(self)
            return plain
        stored = StoredBody(self.bodies, self.kept)
        over = partial(discarded, stored, ended)
        buffered = BufferedBalancedExchange(
            client, context, forward_request, settings, over, stored
        )
        buffered.begin(self)
        return buffered


class _Moving(Exchange):
    """Common parts of exchanges with one of several backends."""

    def begin(self, backends: Backends) -> None:
        """Set the backends; from now on, the exchange moves if its backend goes out."""
        self._backends = backends
        #: The backends that have failed this request since the last pause.
        self._tried: set[Member] = set()
        #: How many times the request may still be sent to another backend.
        self._moves = len(backends.settings) - 1
        self._member.health.listeners.add(self._backend_out)

    @property
    def _member(self) -> Member:
        member = self._settings.member
        assert member is not None  # noqa: S101 - `Backends` has only such settings
        return member

    def ended(self, end: End, result: ExchangeResult) -> None:
        """Record what the response says about the backend, then end like any exchange."""
        if end in (End.COMPLETE, End.SWITCHED):
            if result.status in GATEWAY_FAULTS:
                self._member.health.failed(f"status {result.status}")
            else:
                self._member.health.succeeded()
            self._forget()
        super().ended(end, result)

    def _is_repeated(self, end: End, upstream: UpstreamConnection, *, reused: bool) -> bool:
        if end is End.UNANSWERED and reused:
            # The connection was stale, which says nothing about the backend.
            return super()._is_repeated(end, upstream, reused=reused)
        if end in _FAULTS or (end is End.RESPONSE_TIMEOUT and self._whole):
            self._member.health.failed(KINDS[end])
        pool = self.pool
        if self._may_move(end) and self._move():
            pool.exchange_failed(end, upstream.fault, self.context.route)
            self._moves -= 1
            return True
        return super()._is_repeated(end, upstream, reused=reused)

    def _may_move(self, end: End) -> bool:
        """Whether another backend may get a request that was sent (RFC 9110 section 9.2.2).

        Not if its body was sent in part. If the backend is only silent, it may still act on the
        request, so only a safe method may move.
        """
        repeatable = end is End.UNANSWERED and self._repeatable
        return (
            self._moves > 0
            and not self.context.status
            and (repeatable or (end is End.RESPONSE_TIMEOUT and self._is_safe))
            and (self._sent_body is None or (self._whole and self._sent_body.is_kept()))
            and claims_no_other(self.forward_request.request)
        )

    @property
    def _is_safe(self) -> bool:
        return self.forward_request.request.method in SAFE_METHODS

    def _move(self) -> bool:
        """Change to another backend; return False if none has a free slot."""
        backends, who = self._backends, self.context.client_address.network
        person = balanced_person(self.forward_request.visitor)
        self._tried.add(self._member)
        while (member := backends.balancer.choose(person, self._tried)) is not None:
            settings = backends.settings[member]
            if settings.enter(who) is None:
                self._go_to(settings, who)
                return True
            self._tried.add(member)
        return False

    def _go_to(self, settings: UpstreamSettings, who: str) -> None:
        self.pool.leave(who)
        self._member.health.listeners.discard(self._backend_out)
        self._settings, self.pool = settings, settings.pool
        # These are about the previous backend.
        self.context.upstream, self.context.connect_seconds = "", 0.0
        self._member.health.listeners.add(self._backend_out)

    def _backend_out(self) -> None:
        """The backend went out: move on if it has not begun to answer."""
        upstream, pool = self._upstream, self.pool
        if upstream is None or upstream.reader.started or not self._whole:
            return
        if not self._may_move(End.RESPONSE_TIMEOUT) or not self._move():
            return
        self._moves -= 1
        self._upstream = None
        upstream.abort()
        pool.release(upstream)
        if self._sent_body is not None:
            self._sent_body.repeat()
        self._connect()

    async def _connected(self) -> None:
        loop, gate = asyncio.get_running_loop(), self._backends.balancer.reconnect_gate
        until = loop.time() + self._settings.connect_retry
        failed: set[Pool] = set()
        try:
            while True:
                try:
                    upstream = await self.pool.connect(self._settings.connect_timeout, 0, failed)
                except OSError as error:
                    if not await self._goes_on(error, until - loop.time()):
                        self._finish(unreachable(error))
                        return
                else:
                    gate.back()
                    self._connecting = None
                    self.context.connected(loop.time())
                    self._send(upstream)
                    return
        finally:
            gate.gave_up()

    async def _goes_on(self, error: OSError, left: float) -> bool:
        """Move on from an unreachable backend; wait if none is left. Return False to give up."""
        if error.errno in NO_DESCRIPTOR:
            return False
        self._member.health.failed(kind_of(error))
        if self._move():
            return True
        if left <= 0 or kind_of(error) not in PASSING:
            return False
        if not await self._backends.balancer.reconnect_gate.wait(left):
            return False
        here = self._member
        self._tried.clear()
        if self._move():
            self._tried.discard(here)
        else:
            self._tried.clear()
        return True

    def _finish(self, failure: Reason | None) -> None:
        self._forget()
        super()._finish(failure)

    def _forget(self) -> None:
        self._member.health.listeners.discard(self._backend_out)


class BalancedExchange(_Moving):
    """An exchange with one of several backends."""


class BufferedBalancedExchange(_Moving, BufferedExchange):
    """A balanced exchange that takes a connection once its request's body is complete."""
