"""The orders that the admin listener takes: a reload, an upgrade."""

import json
from dataclasses import asdict
from http import HTTPStatus

from aiohttp import web

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
