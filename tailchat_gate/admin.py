"""The second listener: health, readiness, metrics and status, never on the public port."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from tailchat_gate import __version__
from tailchat_gate.build import Generation
from tailchat_gate.observe.audit import Refusal


def admin_app(
    generation: Generation, *, is_ready: Callable[[], bool], clock: Callable[[], float]
) -> web.Application:
    """Return the admin listener's application.

    `/healthz`: 200 while the process runs. `/readyz`: 200 while it takes requests, 503 once it
    drains; it does not ask Tailchat, because who is signed in can work on without it.
    `/metrics`: Prometheus's text. `/status`: JSON, without secrets. `/refusals`: the last
    refusals of signed-in persons as JSON, so that a sub can be copied into a group.
    """
    started = clock()

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if is_ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="draining\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generation.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def status(_: web.Request) -> web.Response:
        settings = generation.settings
        body = {
            "version": __version__,
            "uptime_seconds": int(clock() - started),
            "ready": is_ready(),
            "public_url": settings.server.public_url,
            "tailchat": settings.tailchat.api_url,
            "websockets_open": generation.forwarder.open_tunnels,
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

    async def refusals(_: web.Request) -> web.Response:
        return _json({"refusals": [_told(found) for found in generation.audit.refusals]})

    app = web.Application()
    for path, handler in (
        ("/healthz", healthz),
        ("/readyz", readyz),
        ("/metrics", metrics),
        ("/status", status),
        ("/refusals", refusals),
    ):
        app.router.add_get(path, handler)
    return app


def _json(body: object) -> web.Response:
    return web.json_response(body, dumps=lambda value: json.dumps(value, indent=2) + "\n")


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


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
