"""The second listener: health, readiness, metrics and status, never on the public port."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from tailchat_gate import __version__
from tailchat_gate.admin_server import AdminServer, Handler
from tailchat_gate.config.address import TcpAddress, listen_address
from tailchat_gate.generations import Generations
from tailchat_gate.observe.audit import Refusal
from tailchat_gate.observe.process_metrics import ProcessMetrics
from tailchat_gate.reload import Reloader

#: What an order to the gate has to carry. No page can send it to another origin unasked, because
#: a browser asks first whether it may (Fetch standard, CORS-preflight), and is never told so.
ORDER_HEADER: Final = "X-Tailchat-Gate"


class Admin:
    """The handlers of the admin listener."""

    def __init__(
        self, generations: Generations, is_ready: Callable[[], bool], reloader: Reloader | None
    ) -> None:
        self._generations = generations
        self._lasting = generations.in_force.lasting
        self._is_ready = is_ready
        self._reloader = reloader
        self._started = self._lasting.clock()
        self._process = ProcessMetrics()
        # Its own, because the others may all be waiting for a disk.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    async def healthz(self, _: web.BaseRequest) -> web.Response:
        """Say that the process runs."""
        return web.Response(text="ok\n")

    async def readyz(self, _: web.BaseRequest) -> web.Response:
        """Say whether it takes requests; Tailchat is not asked, since sessions work without it.

        A fault of the state store is told, and is no reason to take the gate out of service: what
        is known stays in force.
        """
        if self._is_ready():
            faults = [f"state store: {fault}\n" for fault in self._lasting.store.faults]
            return web.Response(text="".join(("ready\n", *faults)))
        return web.Response(status=503, text="draining\n")

    async def metrics(self, _: web.BaseRequest) -> web.Response:
        """Tell the metrics in Prometheus's text."""
        loop = asyncio.get_running_loop()
        about_process = await loop.run_in_executor(self._thread, self._process.render)
        body = self._lasting.metrics.render() + about_process
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self, _: web.BaseRequest) -> web.Response:
        """Tell what is in force, without secrets."""
        settings, reloads = self._generations.in_force.settings, self._lasting.reloads
        body = {
            "version": __version__,
            "uptime_seconds": int(self._lasting.clock() - self._started),
            "ready": self._is_ready(),
            "public_url": settings.server.public_url,
            "tailchat": settings.tailchat.api_url,
            "locks": len(self._lasting.standing.locks),
            "state_faults": list(self._lasting.store.faults),
            "tokens": [
                {
                    "name": token.name,
                    "last_used": _used(self._lasting.token_use.last.get(token.name)),
                }
                for token in settings.token
            ],
            "websockets_open": len(self._lasting.traffic.tunnels),
            "malformed_replies": [
                {"upstream": pool.backend.url, "fault": pool.fault[0], "at": pool.fault[1]}
                for pool in self._lasting.traffic.pools
                if pool.fault is not None
            ],
            "configuration": {
                "file": str(self._reloader.source.path) if self._reloader else None,
                "state_path": settings.state.path,
                "generation": reloads.generation,
                "loaded_at": int(reloads.loaded_at),
                "tried_at": int(reloads.tried_at),
                "problems": [asdict(problem) for problem in reloads.problems],
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
                }
                for route in settings.route
            ],
        }
        return _json(body)

    async def refusals(self, _: web.BaseRequest) -> web.Response:
        """Tell the last refusals of signed-in persons, so that a sub can be copied into a group."""
        return _json({"refusals": [_told(found) for found in self._lasting.audit.refusals]})

    async def reload(self, request: web.BaseRequest) -> web.Response:
        """Load the configuration anew and tell how it went; 422 where it is refused.

        Nothing of the request is read but that it is an order, and no browser's.
        """
        if request.headers.get(ORDER_HEADER) != "reload" or "Origin" in request.headers:
            return web.Response(status=403, text=f"this needs the header {ORDER_HEADER}: reload\n")
        if self._reloader is None:
            return web.Response(status=404, text="this gate has no configuration file\n")
        outcome = await self._reloader.reload("an order on the admin listener")
        body = {"file": str(self._reloader.source.path), **asdict(outcome)}
        return _json(body, status=422 if outcome.problems else 200)


def admin_server(
    generations: Generations, *, is_ready: Callable[[], bool], reloader: Reloader | None = None
) -> AdminServer:
    """Return what answers on the admin listener.

    `/healthz`: 200 while the process runs. `/readyz`: 200 while it takes requests, 503 once it
    drains. `/metrics`: Prometheus's text. `/status`: JSON. `POST /reload` is the one order.
    """
    admin = Admin(generations, is_ready, reloader)
    pages: Mapping[str, Handler] = {
        "/healthz": admin.healthz,
        "/readyz": admin.readyz,
        "/metrics": admin.metrics,
        "/status": admin.status,
        "/refusals": admin.refusals,
    }
    handlers = {path: {"GET": handler} for path, handler in pages.items()}

    def hosts() -> Iterator[str]:
        server = generations.in_force.settings.server
        yield from server.admin_hosts
        where = listen_address(server.admin_listen) if server.admin_listen else None
        if isinstance(where, TcpAddress):
            yield where.host

    return AdminServer({**handlers, "/reload": {"POST": admin.reload}}, hosts)


def _json(body: object, *, status: int = 200) -> web.Response:
    text = json.dumps(body, indent=2) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")


def _told(refusal: Refusal) -> dict[str, object]:
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
