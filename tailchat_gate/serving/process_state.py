"""The state of the process, which outlives each configuration."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from tailchat_gate.config.model import Settings, Tracing
from tailchat_gate.config.state_directory import body_directory
from tailchat_gate.endpoints.admin import AdminPage
from tailchat_gate.identity.access_requests import AccessRequests
from tailchat_gate.identity.grants import Grants
from tailchat_gate.identity.oauth.login_queue import LoginQueue
from tailchat_gate.identity.oauth.reachability import Reachability
from tailchat_gate.identity.oauth.redemptions import CAPACITY, Redemptions
from tailchat_gate.identity.oauth.return_targets import StoredTargets
from tailchat_gate.identity.oauth.shared_redemptions import SharedRedemptions
from tailchat_gate.identity.oauth.sign_in_watch import SignInState
from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.identity.revocation.store import SESSION_ENDS, Revocations
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.stored import StoredSessions
from tailchat_gate.identity.sign_ins import SignIns
from tailchat_gate.observe.access_log import AccessLog
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.families import Collected
from tailchat_gate.observe.log import FaultLog, Pace, sinks
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.observe.spans import Spans
from tailchat_gate.observe.threads import in_thread
from tailchat_gate.people.bot import BotSignIn
from tailchat_gate.people.facts import KnownPeople
from tailchat_gate.people.groups.watch import GroupWatch
from tailchat_gate.people.panel import Outages
from tailchat_gate.proxy.client.aiohttp_bridge import AiohttpBridge
from tailchat_gate.proxy.client.watches import SessionWatch
from tailchat_gate.proxy.exchange.recorder import SESSION_OVER
from tailchat_gate.proxy.exchange.stored_body import BodyStore
from tailchat_gate.proxy.exchange.upstream_pools import ConnectionMetrics, UpstreamPools
from tailchat_gate.proxy.message.assertion import PublishedKeys
from tailchat_gate.proxy.sockets import Descriptors
from tailchat_gate.proxy.upstream.backends import Dialer
from tailchat_gate.proxy.upstream.resolver import Names
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestIds
from tailchat_gate.request.trace_context import TraceContexts
from tailchat_gate.serving import process_gauges as families
from tailchat_gate.serving.listening.tls import CertificateWatch
from tailchat_gate.serving.reload_outcome import Reloads
from tailchat_gate.serving.shared_rates import SharedRates
from tailchat_gate.state.activity import StoredRefusals, TokenUse
from tailchat_gate.state.bookkeeping import FaultKind, Health
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.places import server_of, shared_store
from tailchat_gate.state.redis.servers import RedisPlace
from tailchat_gate.state.store import Store

_STANDARD_OUTPUT: Final = 1
#: Handoff tokens remembered, about 2 KiB each for a minute.
USED_HANDOFFS: Final = 10_000


def spans_of(tracing: Tracing) -> Spans:
    """Return the sink for the spans of requests.

    If a collector is configured, this imports the SDK now: later that would block the event loop.
    """
    if not tracing.endpoint:
        return Spans()
    from tailchat_gate.observe.otlp import OtlpExporter  # noqa: PLC0415 - the extra `tracing`

    return Spans(partial(OtlpExporter, tracing.endpoint))


def trace_contexts(tracing: Tracing, spans: Spans) -> TraceContexts:
    """Return the part that finds the trace of each request."""
    return TraceContexts(
        os.urandom,
        trusted=tracing.trust,
        share=tracing.sample,
        records=spans.are_recorded,
    )


class TailchatState:
    """Tailchat's answers, and the calls under way.

    `clock` returns Unix seconds, `monotonic` seconds that never go back.
    """

    #: The Unix second of Tailchat's last answer about people, 0 for none yet.
    people_heard_at = 0.0
    #: Whether log lines are also posted in a panel of Tailchat.
    has_notices = True

    def __init__(
        self,
        store: Store,
        audit: Audit,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._clock = clock
        self.reachability: Final = Reachability(monotonic)
        self.sign_in: Final = SignInState()
        self.sign_ins: Final = SignIns()
        self.people: Final = KnownPeople()
        #: Who is in Tailchat's groups, and the sign-in of the bot that asks for it.
        self.group_watch: Final = GroupWatch(store, clock, audit)
        self.bot_sign_in: Final = BotSignIn()
        #: The warnings that were logged last about routes that strangers may enter.
        self.told_of_registration: Final[set[str]] = set()
        #: When each notice was last posted in the panel, and which tools are down.
        self.panel_pace: Final = Pace(clock)
        self.tools_down: Final[Outages] = {}

    async def close(self) -> None:
        """End the calls under way."""
        await self.group_watch.close()
        await self.sign_ins.close()

    def speak(self, *, for_all: bool) -> None:
        """Let one worker, with `for_all`, report what all workers find out alike."""
        self.has_notices = self.group_watch.tells = for_all

    def heard_of_people(self) -> None:
        """Record an answer about people."""
        self.people_heard_at = self._clock()


class ProcessState:
    """What outlives configurations: created with the first one, closed with the process.

    After a reload, a redeemed login stays redeemed, Tailchat's cached answers stay valid, metrics
    continue, and connections to unchanged backends stay open. State is stored in the directory
    `state_path`, or in the server `redis`; "" and None mean in memory only. `clock` returns Unix
    seconds, `monotonic` seconds that never go back. The access log goes to `access_log`, None for
    JSON to `log_descriptor` (standard output).
    """

    #: Serves the admin page; set once the gate is open.
    admin_page: AdminPage | None = None

    def __init__(
        self,
        *,
        state_path: str = "",
        redis: RedisPlace | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        log_descriptor: int = 1,
        access_log: AccessLog | None = None,
        spans: Spans | None = None,
    ) -> None:
        self.clock: Final = clock
        self.monotonic: Final = monotonic
        self.names: Final = Names()
        self.descriptors: Final = Descriptors()
        self.upstream_pools: Final = self._make_pools(state_path)
        self.bridge: Final = AiohttpBridge()
        self.access_log: Final = access_log or AccessLog(log_descriptor, clock)
        self.spans: Final = spans or Spans()
        self.audit: Final = Audit(clock)
        self.faults: Final = FaultLog(clock)
        self.request_ids: Final = RequestIds(os.urandom)
        self.published_keys: Final = PublishedKeys()
        self.stored_targets: Final = StoredTargets(os.urandom(32), clock)
        self.login_queue: Final = LoginQueue()
        self.reloads: Final = Reloads(clock)
        #: Locks and ended sessions: the state itself, then what closes open connections for it.
        self.revocation: Final = RevocationState(clock)
        self.live: Final = SessionWatch(self.revocation, clock)
        self.certificates: Final = CertificateWatch(clock)
        #: When the configuration's machine tokens and certificate files expire, in Unix seconds.
        self.token_expiries: tuple[float, ...] = ()
        self.certificate_expiries: tuple[tuple[str, float], ...] = ()
        self.metrics: Final = self._make_metrics()
        self.health: Final = Health(self.metrics.state_error, worked=self.metrics.state_worked)
        #: Stores state across restarts.
        self.store: Final = _store(redis or state_path, clock, self.health, self.names)
        self.rates: Final = SharedRates(self.store, monotonic)
        self.tailchat: Final = TailchatState(self.store, self.audit, clock, monotonic)
        self.token_use: Final = TokenUse()
        self.store.follow(StoredRefusals(self.audit))
        self.store.follow(self.token_use)
        self.stored_sessions: Final = StoredSessions(self.store, clock, self.revocation.touch)
        self.used_states: Final = _states(self.store, clock)
        self.used_handoffs: Final = _handoffs(self.store, clock)
        self.grants: Final = Grants(self.store, clock)
        self.access_requests: Final = AccessRequests(self.store, clock, os.urandom)
        self.locks: Final = self._make_locks()

    def start(self) -> None:
        """Start the background work; needs a running event loop. Idempotent."""
        self.descriptors.measure()
        self.bridge.start()
        self.upstream_pools.start()
        self.rates.start()

    async def close(self) -> None:
        """Close upstream connections, end calls to Tailchat, write pending state and log lines."""
        self.upstream_pools.close()
        self.certificates.close()
        self.audit.log_left_out()
        self.grants.close()
        await self.tailchat.close()
        await self.rates.close()
        await self.store.close()
        await in_thread(self.spans.close, "spans-close")
        await self.access_log.close()

    def set_blocked(self, sub: str, reason: Reason | None, *, lifetime: float) -> None:
        """Keep an account out for the reason that Tailchat gives; None lets it in again.

        `lifetime` is how many seconds a session lasts at most.
        """
        if self.locks.set_blocked(sub, reason, lifetime=lifetime):
            self.audit.account_changed(sub, reason)

    def _make_pools(self, state_path: str) -> UpstreamPools:
        descriptors = self.descriptors
        bodies = BodyStore(partial(body_directory, state_path, os.environ), descriptors)
        return UpstreamPools(self.clock, Dialer(self.names), descriptors, bodies)

    def _make_locks(self) -> Revocations:
        ended = self.stored_sessions.end_until
        return Revocations(self.revocation, self.store, self.metrics, self.clock, ended)

    def _make_metrics(self) -> Metrics:
        connections = ConnectionMetrics(self.upstream_pools)
        return Metrics(
            lambda: (self.access_log.sink, *sinks()),
            (
                connections,
                self._gauges,
                self.certificates.metrics,
                self.spans.collect,
            ),
            live_ends=SESSION_OVER.values(),
            session_ends=SESSION_ENDS,
            state_errors=tuple(FaultKind),
        )

    def _gauges(self) -> Iterator[Collected]:
        """Yield the gauges of this process."""
        tailchat = self.tailchat
        yield from tailchat.reachability.collect()
        for family, value in (
            (families.WEBSOCKETS, len(self.upstream_pools.tunnels)),
            (families.BUFFER_MEMORY, self.upstream_pools.bodies.memory),
            (families.BUFFER_FILES, self.upstream_pools.bodies.files),
            (families.LOCKS, len(self.revocation.locks)),
            (families.PEOPLE, len(tailchat.people)),
            (families.BLOCKED, len(self.revocation.blocked())),
            (families.HEARD, tailchat.people_heard_at),
            (families.GRANTS, len(self.grants.state.in_force)),
            (families.ACCESS_REQUESTS, len(self.access_requests.open)),
            (families.STATE_FAULTS, len(self.store.faults)),
            (families.SIGN_IN_BROKEN, tailchat.sign_in.obstacle is not None),
            (families.GROUPS_AGE, tailchat.group_watch.age),
            (families.GROUPS_UNKNOWN, len(tailchat.group_watch.unknown)),
        ):
            yield family, (((), value),)
        yield from self.reloads.metrics()
        yield from self.rates.metrics()
        sizes = tuple(tailchat.group_watch.sizes.items())
        yield families.GROUP_MEMBERS, (((name,), size) for name, size in sizes)
        # No names: readers of the metrics need not know the machines.
        ahead = [expires for expires in self.token_expiries if expires > self.clock()]
        yield families.TOKEN_EXPIRY, (((), min(ahead)),) if ahead else ()
        expiries = {**self.certificates.expiries, **dict(self.certificate_expiries)}
        yield families.CERTIFICATE_EXPIRY, (((file,), at) for file, at in expiries.items())


def _states(store: Store, clock: Callable[[], float]) -> Redemptions[SessionRecord]:
    """Return the store of redeemed login states."""
    return Redemptions(clock=clock, shared=SharedRedemptions(store, "login", CAPACITY, clock))


def _handoffs(store: Store, clock: Callable[[], float]) -> Redemptions[SessionRecord]:
    """Return the store of redeemed handoff tokens.

    `harmless`: even a token used twice works for one browser, one host and one minute only.
    """
    return Redemptions(
        clock=clock,
        capacity=USED_HANDOFFS,
        harmless=True,
        shared=SharedRedemptions(store, "pass", USED_HANDOFFS, clock),
    )


def _store(
    place: RedisPlace | str, clock: Callable[[], float], health: Health, names: Names
) -> Store:
    if not place:
        return MemoryStore(clock)
    if isinstance(place, RedisPlace):
        return shared_store(replace(place, lookup=names.addresses), clock, health)
    return shared_store(Path(place), clock, health)


def process_state_of(settings: Settings) -> ProcessState:
    """Return the state of a process that starts with these settings."""
    log = settings.log
    access_log = AccessLog(
        _STANDARD_OUTPUT, time.time, file=log.access_file, form=log.format, environ=os.environ
    )
    state = settings.state
    return ProcessState(
        state_path=state.path,
        redis=server_of(state),
        access_log=access_log,
        spans=spans_of(settings.tracing),
    )
