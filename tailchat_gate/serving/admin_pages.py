"""The pages and the orders of the admin listener, of one process or of several."""

import json
from dataclasses import asdict
from http import HTTPStatus
from typing import NamedTuple, Protocol

from aiohttp import hdrs, web

from tailchat_gate.request.field_names import ORDER_HEADER
from tailchat_gate.serving.reload import Reloader
from tailchat_gate.serving.upgrade import Upgrader


class Orders:
    """The handlers of the orders.

    The only check of a request is that it is this order and does not come from a browser.
    """

    def __init__(self, reloader: Reloader | None, upgrader: Upgrader | None) -> None:
        self._reloader = reloader
        self._upgrader = upgrader

    async def reload(self, request: web.BaseRequest) -> web.Response:
        """Reload the configuration and return the outcome; 422 if it is refused."""
        if (refusal := _refusal(request, "reload")) is not None:
            return refusal
        if self._reloader is None:
            return web.Response(status=404, text="this gate has no configuration file\n")
        outcome = await self._reloader.reload("an order on the admin listener")
        body = {"file": self._reloader.source.name, **asdict(outcome)}
        return json_response(body, status=422 if outcome.problems else 200)

    async def upgrade(self, request: web.BaseRequest) -> web.Response:
        """Have another process take over and return the outcome; 422 if none does."""
        if (refusal := _refusal(request, "upgrade")) is not None:
            return refusal
        if self._upgrader is None:
            return web.Response(status=404, text="this gate is part of another program\n")
        outcome = await self._upgrader.ask("an order on the admin listener")
        answer = json_response(asdict(outcome), status=422 if outcome.problem else 200)
        answer.force_close()
        return answer


def json_response(body: object, *, status: int = 200) -> web.Response:
    """Return a response with JSON for people."""
    text = json.dumps(body, indent=2) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")


def _refusal(request: web.BaseRequest, order: str) -> web.Response | None:
    if request.headers.get(ORDER_HEADER) == order and "Origin" not in request.headers:
        return None
    return web.Response(
        status=HTTPStatus.FORBIDDEN, text=f"this needs the header {ORDER_HEADER}: {order}\n"
    )


class Exposition(NamedTuple):
    """Metrics as text, and the media type of it."""

    body: bytes
    media_type: str


class Reports(Protocol):
    """The source of the pages' values."""

    @property
    def is_ready(self) -> bool:
        """Whether the gate takes requests."""

    async def faults(self) -> list[str]:
        """Return faults, one line each, that are no reason to take the gate out of service."""

    async def metrics(self, accept: str) -> Exposition:
        """Return the metrics in the format that a client accepts."""

    async def status(self) -> dict[str, object]:
        """Return the configuration in force, without secrets."""

    async def refusals(self) -> list[dict[str, object]]:
        """Return the last refusals of signed-in people and machines, the latest first."""


class AdminPages:
    """The handlers of the pages."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def healthz(self, _: web.BaseRequest) -> web.Response:
        """Respond 200 while the process runs."""
        return web.Response(text="ok\n")

    async def readyz(self, _: web.BaseRequest) -> web.Response:
        """Respond 200 while the gate takes requests. Tailchat may be down: sessions still work.

        The response names faults of the state store and of signing in, but stays 200: the gate
        keeps enforcing what it has read, and people who are signed in can work.
        """
        if self._reports.is_ready:
            faults = [f"{fault}\n" for fault in await self._reports.faults()]
            return web.Response(text="".join(("ready\n", *faults)))
        return web.Response(status=503, text="draining\n")

    async def metrics(self, request: web.BaseRequest) -> web.Response:
        """Return the metrics in Prometheus's text format, or in OpenMetrics."""
        accept = ",".join(request.headers.getall(hdrs.ACCEPT, ()))
        found = await self._reports.metrics(accept)
        return web.Response(body=found.body, headers={"Content-Type": found.media_type})

    async def status(self, _: web.BaseRequest) -> web.Response:
        """Return the configuration in force, as JSON without secrets."""
        return json_response(await self._reports.status())

    async def refusals(self, _: web.BaseRequest) -> web.Response:
        """Return the last refusals of signed-in people, so that you can copy a sub into a group."""
        return json_response({"refusals": await self._reports.refusals()})
