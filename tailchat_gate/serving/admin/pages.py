"""What the admin listener serves to programs: health, metrics, status, and two orders."""

import json
from dataclasses import asdict
from http import HTTPStatus
from typing import NamedTuple, Protocol

from aiohttp import hdrs, web

from tailchat_gate.request.field_names import ORDER_HEADER
from tailchat_gate.serving.reload import Reloader
from tailchat_gate.serving.upgrade import Upgrader


class Orders:
    """The handlers of `POST /reload` and `POST /upgrade`.

    The listener has no sign-in: they only check that no browser sends the request by accident.
    """

    def __init__(self, reloader: Reloader | None, upgrader: Upgrader | None) -> None:
        self._reloader = reloader
        self._upgrader = upgrader

    async def reload(self, request: web.BaseRequest) -> web.Response:
        """Reload the configuration and return the outcome; 422 if it is refused."""
        if (refusal := _refusal(request, "reload")) is not None:
            return refusal
        if self._reloader is None:
            return web.Response(status=404, text="this gate has no configuration file to reload\n")
        outcome = await self._reloader.reload("an order on the admin listener")
        body = {"file": self._reloader.source.name, **asdict(outcome)}
        return json_response(body, status=422 if outcome.problems else 200)

    async def upgrade(self, request: web.BaseRequest) -> web.Response:
        """Let another process take over, and return the outcome; 422 if that fails."""
        if (refusal := _refusal(request, "upgrade")) is not None:
            return refusal
        if self._upgrader is None:
            return web.Response(
                status=404, text="this gate runs inside another program, so it cannot upgrade\n"
            )
        outcome = await self._upgrader.ask("an order on the admin listener")
        answer = json_response(asdict(outcome), status=422 if outcome.problem else 200)
        answer.force_close()
        return answer


def json_response(body: object, *, status: int = 200) -> web.Response:
    """Return a response with indented JSON."""
    text = json.dumps(body, indent=2) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")


def _refusal(request: web.BaseRequest, order: str) -> web.Response | None:
    if request.headers.get(ORDER_HEADER) == order and "Origin" not in request.headers:
        return None
    return web.Response(
        status=HTTPStatus.FORBIDDEN,
        text=f"send the header {ORDER_HEADER}: {order}, and no Origin\n",
    )


class Exposition(NamedTuple):
    """Metrics as text, and its media type."""

    body: bytes
    media_type: str


class Reports(Protocol):
    """The source of the pages' values."""

    @property
    def is_ready(self) -> bool:
        """Whether the gate takes requests."""

    async def faults(self) -> list[str]:
        """Return faults, one line each, with which the gate stays in service."""

    async def metrics(self, accept: str) -> Exposition:
        """Return the metrics in the format that the Accept field `accept` asks for."""

    async def status(self) -> dict[str, object]:
        """Return the configuration in force, without secrets."""

    async def refusals(self) -> list[dict[str, object]]:
        """Return the last refusals of signed-in people and machines, the latest first."""


class AdminPages:
    """The handlers of the reports."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def healthz(self, _: web.BaseRequest) -> web.Response:
        """Respond 200 while the process runs."""
        return web.Response(text="ok\n")

    async def readyz(self, _: web.BaseRequest) -> web.Response:
        """Respond 200 while the gate takes requests, 503 once it drains.

        The response names faults of the state store and of signing in, but stays 200: people who
        are signed in can still work.
        """
        if self._reports.is_ready:
            faults = [f"{fault}\n" for fault in await self._reports.faults()]
            return web.Response(text="".join(("ready\n", *faults)))
        return web.Response(status=503, text="draining\n")

    async def metrics(self, request: web.BaseRequest) -> web.Response:
        """Return the metrics in Prometheus's text format, or in OpenMetrics."""
        accept = ",".join(request.headers.getall(hdrs.ACCEPT, ()))
        exposition = await self._reports.metrics(accept)
        return web.Response(body=exposition.body, headers={"Content-Type": exposition.media_type})

    async def status(self, _: web.BaseRequest) -> web.Response:
        """Return the configuration in force, as JSON without secrets."""
        return json_response(await self._reports.status())

    async def refusals(self, _: web.BaseRequest) -> web.Response:
        """Return the last refusals of signed-in people and machines, as JSON."""
        return json_response({"refusals": await self._reports.refusals()})
