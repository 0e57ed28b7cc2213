"""The state of the process, which outlives every configuration."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from tailchat_gate.config.problems import Problem
from tailchat_gate.config.state_directory import body_directory
from tailchat_gate.identity.access_requests import AccessRequests
from tailchat_gate.identity.grants import Grants
from tailchat_gate.identity.oauth.login_queue import LoginQueue
from tailchat_gate.identity.oauth.redemptions import CAPACITY, Redemptions
from tailchat_gate.identity.oauth.return_targets import StoredTargets
from tailchat_gate.identity.oauth.shared_redemptions import SharedRedemptions
from tailchat_gate.identity.oauth.sign_in_watch import SignInState
from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.identity.revocation.store import Revocations
from tailchat_gate.identity.sessions.session import SessionRecord
from tailchat_gate.identity.sign_ins import SignIns
from tailchat_gate.observe.access_log import AccessLog
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import FaultLog, sinks
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.people.bot import SignIn
from tailchat_gate.people.group_watch import GroupWatch
from tailchat_gate.people.known import KnownPeople
from tailchat_gate.proxy.client.aiohttp_bridge import AiohttpBridge
from tailchat_gate.proxy.client.session_watch import SessionWatch
from tailchat_gate.proxy.exchange.stored_body import BodyStore
from tailchat_gate.proxy.exchange.upstream_pools import ConnectionMetrics, UpstreamPools
from tailchat_gate.proxy.message.assertion import PublishedKeys
from tailchat_gate.proxy.sockets import Descriptors
from tailchat_gate.proxy.upstream.backends import Dialer
from tailchat_gate.proxy.upstream.resolver import Names
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestIds
from tailchat_gate.serving.certificate_watch import CertificateWatch
from tailchat_gate.state.activity import StoredRefusals, TokenUse
from tailchat_gate.state.bookkeeping import Health
from tailchat_gate.state.memory import MemoryStore
from tailchat_gate.state.sqlite import SqliteStore
from tailchat_gate.state.store import Store

#: The name of a gauge, what it says, and what reads it.
Gauge = tuple[str, str, Callable[[], float]]

#: Handoff tokens remembered, about 2 KiB each for a minute.
USED_HANDOFFS: Final = 10_000


@dataclass(slots=True)
class Reloads:
    """Which configuration is in force, and the outcome of the last reload.

    `generation` counts configurations, from 1; times are Unix seconds. `changed_at` is when a
    configuration that differs from the one before came into force. `problems` say why the last
    attempt was refused, and are empty if it was not.
    """

    loaded_at: float
    tried_at: float
    changed_at: float
    generation: int = 1
    problems: tuple[Problem, ...] = field(default=())

    def took(self, now: float, *, changed: bool) -> None:
        """Record that another configuration is in force, and whether it differs."""
        self.generation += 1
        self.loaded_at = self.tried_at = now
        if changed:
            self.changed_at = now
        self.problems = ()

    def refused(self, now: float, problems: tuple[Problem, ...]) -> None:
        """Record that a configuration was refused."""
        self.tried_at = now
        self.problems = problems


class ProcessState:
    """What outlives configurations: created with the first one, closed with the process.

    After a reload, a redeemed login stays redeemed, Tailchat's cached answers stay valid, metrics
    continue, and connections to unchanged backends stay open. State is stored in the directory
    `state_path`; "" means in memory only. `clock` returns Unix seconds, `monotonic` seconds that
    never go back. The access log goes to `log_descriptor` (standard output).
    """

    def __init__(
        self,
        *,
        state_path: str = "",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        log_descriptor: int = 1,
    ) -> None:
        self.clock: Final = clock
        self.monotonic: Final = monotonic
        self.names: Final = Names()
        self.descriptors: Final = Descriptors()
        bodies = BodyStore(partial(body_directory, state_path, os.environ), self.descriptors)
        self.upstream_pools: Final = UpstreamPools(
            clock, Dialer(self.names), self.descriptors, bodies
        )
        self.bridge: Final = AiohttpBridge()
        self.access_log: Final = AccessLog(log_descriptor, clock)
        self.audit: Final = Audit(clock)
        self.faults: Final = FaultLog(clock)
        self.request_ids: Final = RequestIds(os.urandom)
        self.published_keys: Final = PublishedKeys()
        self.stored_targets: Final = StoredTargets(os.urandom(32), clock)
        self.sign_ins: Final = SignIns()
        self.people: Final = KnownPeople()
        #: What was logged last of routes that strangers may enter.
        self.told_of_registration: Final[set[str]] = set()
        #: Unix second of Tailchat's last answer about people, 0 for none yet.
        self.people_heard_at = 0.0
        self.login_queue: Final = LoginQueue()
        self.sign_in: Final = SignInState()
        now = clock()
        self.reloads: Final = Reloads(now, now, now)
        #: Locks and ended sessions: the state itself, then what closes open connections for it.
        self.revocation: Final = RevocationState(clock)
        self.live: Final = SessionWatch(self.revocation, clock)
        #: The gate's own certificates.
        self.certificates: Final = CertificateWatch(clock)
        #: When the machine tokens of the configuration in force expire.
        self.token_expiries: tuple[float, ...] = ()
        self.metrics: Final = self._make_metrics()
        self.health: Final = Health(self.metrics.state_error)
        #: Stores state across restarts.
        self.store: Final = _store(state_path, clock, self.health)
        #: Who is in Tailchat's groups, and the sign-in of the bot that asks.
        self.group_watch: Final = GroupWatch(self.store, clock, self.audit)
        self.bot_sign_in: Final = SignIn()
        self.token_use: Final = TokenUse()
        self.store.follow(StoredRefusals(self.audit))
        self.store.follow(self.token_use)
        self.used_states: Final[Redemptions[SessionRecord]] = Redemptions(
            clock=clock, shared=SharedRedemptions(self.store, "login", CAPACITY, clock)
        )
        self.used_handoffs: Final = _handoffs(self.store, clock)
        self.grants: Final = Grants(self.store, clock)
        self.access_requests: Final = AccessRequests(self.store, clock, os.urandom)
        self.locks: Final = Revocations(self.revocation, self.store, self.metrics, clock)

    def start(self) -> None:
        """Start the background work; needs a running event loop. Idempotent."""
        self.descriptors.measure()
        self.bridge.start()
        self.upstream_pools.start()

    async def close(self) -> None:
        """Close upstream connections, end calls to Tailchat, write pending state and log lines."""
        self.upstream_pools.close()
        self.certificates.close()
        self.audit.tell_left_out()
        self.grants.close()
        await self.group_watch.close()
        await self.sign_ins.close()
        await self.store.close()
        await self.access_log.close()

    def heard_of_people(self) -> None:
        """Note that Tailchat answered about people."""
        self.people_heard_at = self.clock()

    def keep_out(self, sub: str, reason: Reason | None, *, lifetime: float) -> None:
        """Keep an account out for what Tailchat says of it, None: no longer.

        `lifetime` is how many seconds a session lasts at most.
        """
        if self.locks.keep_out(sub, reason, lifetime=lifetime):
            self.audit.account_changed(sub, reason)

    def _make_metrics(self) -> Metrics:
        reloads = self.reloads
        gauges: tuple[Gauge, ...] = (
            ("gate_websockets_open", "WebSockets open.", lambda: len(self.upstream_pools.tunnels)),
            (
                "gate_request_buffer_memory_bytes",
                "Bytes of requests' bodies that are kept in memory.",
                lambda: self.upstream_pools.bodies.memory,
            ),
            (
                "gate_request_buffer_files",
                "Requests' bodies that are kept in files.",
                lambda: self.upstream_pools.bodies.files,
            ),
            *self._gauges_of_people(),
            (
                "gate_state_faults",
                "Faults of the state store at present.",
                lambda: len(self.store.faults),
            ),
            (
                "gate_sign_in_broken",
                "Whether the last check found that nobody can sign in.",
                lambda: self.sign_in.obstacle is not None,
            ),
            (
                "gate_generation",
                "How many configurations were in force, the present one among them.",
                lambda: reloads.generation,
            ),
            (
                "gate_config_last_reload_success",
                "Whether the last configuration that was loaded is in force.",
                lambda: not reloads.problems,
            ),
            (
                "gate_config_last_reload_timestamp_seconds",
                "When a configuration was last loaded or refused, in Unix seconds.",
                lambda: reloads.tried_at,
            ),
        )
        return Metrics(
            gauges,
            lambda: (self.access_log.sink, *sinks()),
            (ConnectionMetrics(self.upstream_pools), *self._sources()),
        )

    def _sources(self) -> tuple[Callable[[], Iterator[Metric]], ...]:
        return self._token_expiries, self._group_metrics, self.certificates.metrics

    def _group_metrics(self) -> Iterator[Metric]:
        watch = self.group_watch
        yield GaugeMetricFamily(
            "gate_tailchat_groups_age_seconds",
            "Age of what is known of Tailchat's groups, 0 where no group needs them.",
            watch.age,
        )
        yield GaugeMetricFamily(
            "gate_tailchat_groups_unknown",
            "Groups of which it is not known who is in them.",
            len(watch.unknown),
        )
        family = GaugeMetricFamily(
            "gate_tailchat_group_members",
            "Members that a group has from Tailchat.",
            labels=("group",),
        )
        for name, size in watch.sizes.items():
            family.add_metric((name,), size)
        yield family

    def _gauges_of_people(self) -> tuple[Gauge, ...]:
        return (
            ("gate_locks", "Locks in force.", lambda: len(self.revocation.locks)),
            ("gate_people", "People whom Tailchat is asked about.", lambda: len(self.people)),
            (
                "gate_people_kept_out",
                "Accounts kept out because Tailchat banned or deleted them, guests and bots.",
                lambda: len(self.revocation.kept_out()),
            ),
            (
                "gate_people_answer_timestamp_seconds",
                "When Tailchat last answered about people, in Unix seconds; 0 for never.",
                lambda: self.people_heard_at,
            ),
            ("gate_grants", "Grants in force.", lambda: len(self.grants.state.in_force)),
            (
                "gate_access_requests",
                "Requests for access that wait for a decision.",
                lambda: len(self.access_requests.open),
            ),
        )

    def _token_expiries(self) -> Iterator[Metric]:
        # No names: readers of the metrics need not know the machines.
        ahead = [expires for expires in self.token_expiries if expires > self.clock()]
        family = GaugeMetricFamily(
            "gate_token_next_expiry_timestamp_seconds",
            "When the next token of a machine expires, in Unix seconds.",
        )
        if ahead:
            family.add_metric((), min(ahead))
        yield family


def _handoffs(store: Store, clock: Callable[[], float]) -> Redemptions[SessionRecord]:
    """Return the used handoff tokens.

    One used twice still works for one browser and one host only, and for one minute.
    """
    return Redemptions(
        clock=clock,
        capacity=USED_HANDOFFS,
        harmless=True,
        shared=SharedRedemptions(store, "pass", USED_HANDOFFS, clock),
    )


def _store(path: str, clock: Callable[[], float], health: Health) -> Store:
    return SqliteStore(Path(path), clock, health) if path else MemoryStore(clock)
