"""The pages of the admin listener: what a gate tells of itself, of one process or of several."""

from typing import NamedTuple, Protocol

from aiohttp import hdrs, web

from tailchat_gate.serving.orders import json_response


class Exposition(NamedTuple):
    """Metrics as text, and the media type of it."""

    body: bytes
    media_type: str


class Reports(Protocol):
    """What the pages show."""

    @property
    def is_ready(self) -> bool:
        """Whether the gate takes requests."""

    async def faults(self) -> list[str]:
        """Return what is wrong, one line each, and is no reason to take the gate out of service."""

    async def metrics(self, accept: str) -> Exposition:
        """Return the metrics in the format that a client accepts."""

    async def status(self) -> dict[str, object]:
        """Return what is in force, without secrets."""

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
        """Return what is in force, as JSON without secrets."""
        return json_response(await self._reports.status())

    async def refusals(self, _: web.BaseRequest) -> web.Response:
        """Return the last refusals of signed-in people, so that you can copy a sub into a group."""
        return json_response({"refusals": await self._reports.refusals()})
