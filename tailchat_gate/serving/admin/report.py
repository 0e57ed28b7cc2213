"""The reports of a gate with one process: faults, metrics, status and refusals."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from tailchat_gate import __version__
from tailchat_gate.observe.audit import Refusal
from tailchat_gate.observe.families import Collected, expose
from tailchat_gate.observe.metrics import ProcessMetrics
from tailchat_gate.proxy.exchange.upstream_pools import UpstreamPools
from tailchat_gate.proxy.upstream.health import BackendHealth
from tailchat_gate.serving.admin.pages import Exposition
from tailchat_gate.serving.generations import Generations

_WORDS: Final = MappingProxyType({True: "up", False: "down", None: "unknown"})


class ProcessReport:
    """The reports of this process; `file` returns the name of its configuration file."""

    def __init__(
        self, generations: Generations, is_ready: Callable[[], bool], file: Callable[[], str | None]
    ) -> None:
        self._generations = generations
        self._process_state = generations.in_force.process_state
        self._is_ready = is_ready
        self._file = file
        self._started = self._process_state.clock()
        self._process = ProcessMetrics()
        # Its own thread, because those of the default executor may all wait for a disk.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    @property
    def is_ready(self) -> bool:
        """Whether the process takes requests."""
        return self._is_ready()

    async def faults(self) -> list[str]:
        """Return faults of the state store, of groups and of signing in."""
        state = self._process_state
        return [
            *(f"state store: {fault}" for fault in state.store.faults),
            *(f"Tailchat's groups: {fault}" for fault in state.tailchat.group_watch.faults),
            *(f"sign-in: {finding.text}" for finding in state.tailchat.sign_in.findings),
        ]

    async def metrics(self, accept: str) -> Exposition:
        """Return the metrics in the format that the Accept field `accept` asks for."""
        loop = asyncio.get_running_loop()
        about_process, media_type = await loop.run_in_executor(
            self._thread, self._process.render, accept
        )
        openmetrics = media_type.startswith("application/openmetrics-text")
        parts = await expose(self.collect(), openmetrics=openmetrics)
        # The client library's part comes last, because it ends with OpenMetrics's end mark.
        return Exposition(b"".join((*parts, about_process)), media_type)

    def collect(self) -> Iterator[Collected]:
        """Yield the families of the gate's own metrics."""
        return self._process_state.metrics.collect()

    async def status(self) -> dict[str, object]:
        """Return the configuration in force, without secrets."""
        settings = self._generations.in_force.settings
        states = _states(self._process_state.upstream_pools)
        return {
            "version": __version__,
            "uptime_seconds": int(self._process_state.clock() - self._started),
            "ready": self.is_ready,
            "public_url": settings.server.public_url,
            "tailchat": settings.tailchat.api_url,
            "locks": len(self._process_state.revocation.locks),
            "state_faults": list(self._process_state.store.faults),
            "group_faults": list(self._process_state.tailchat.group_watch.faults),
            "sign_in": {
                "checked_at": int(self._process_state.tailchat.sign_in.checked_at),
                "findings": [
                    {"name": each.name, "text": each.text, "broken": each.reason is not None}
                    for each in self._process_state.tailchat.sign_in.findings
                ],
            },
            "tokens": [
                {
                    "name": token.name,
                    "last_used": _used(self._process_state.token_use.last.get(token.name)),
                }
                for token in settings.token
            ],
            "websockets_open": len(self._process_state.upstream_pools.tunnels),
            "malformed_replies": [
                {"upstream": pool.backend.url, "fault": pool.fault[0], "at": pool.fault[1]}
                for pool in self._process_state.upstream_pools.pools
                if pool.fault is not None
            ],
            "backends": [
                {"upstream": health.backend.url, "up": health.up, "reason": health.reason}
                for health in self._process_state.upstream_pools.health
            ],
            "configuration": {
                "file": self._file(),
                "state_path": settings.state.url or settings.state.path,
                **self._process_state.reloads.to_status(),
                "retired": self._generations.retired,
            },
            "routes": [
                {
                    "name": route.name,
                    "host": route.host,
                    "path": route.path,
                    "methods": list(route.methods),
                    "upstream": route.upstream,
                    "allow": list(route.allow),
                    "deny": list(route.deny),
                    "tools": [states[url] for url in route.backends if url in states],
                }
                for route in settings.route
            ],
        }

    async def refusals(self) -> list[dict[str, object]]:
        """Return the last refusals, the latest first."""
        return [_refusal_json(refusal) for refusal in self._process_state.audit.refusals]


def _states(pools: UpstreamPools) -> dict[str, dict[str, Any]]:
    """Return the state of each tool by its URL, as known from requests and health checks."""
    states: dict[str, dict[str, Any]] = {
        url: {"upstream": url, "state": _WORDS[counts.up], "since": counts.since}
        for url, counts in tuple(pools.counts.items())
    }
    # Backends that are out come last and win, even if another route's checks call them up.
    for health in sorted(pools.health, key=_is_out):
        known = states[health.backend.url]
        if not health.up:
            known.update(state="down", since=health.since)
        elif health.since is not None and health.since >= (known["since"] or 0):
            known.update(state="up", since=health.since)
    return states


def _is_out(health: BackendHealth) -> bool:
    return not health.up


def _refusal_json(refusal: Refusal) -> dict[str, object]:
    return {
        **asdict(refusal.person),
        "route": refusal.route,
        "host": refusal.host,
        "path": refusal.path,
        "reason": refusal.reason,
        "count": refusal.count,
        "first": _stamp(refusal.first),
        "last": _stamp(refusal.last),
    }


def _used(seconds: float | None) -> str | None:
    return None if seconds is None else _stamp(seconds)


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
