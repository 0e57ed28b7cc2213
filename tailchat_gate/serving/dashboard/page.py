"""Serves the admin page: on the admin listener, and on routes with `upstream = "admin:"`."""

import os
from collections.abc import Callable, Collection, Mapping
from hmac import compare_digest
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from tailchat_gate.config.model import Server
from tailchat_gate.endpoints.admin import AdminRequest, Operator
from tailchat_gate.endpoints.form_outcome import FormOutcome, SealedOutcomes
from tailchat_gate.endpoints.form_tokens import form_fields
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.request.target import query_pairs
from tailchat_gate.serving.dashboard.events import Events
from tailchat_gate.serving.dashboard.page_request import PageRenderer, PageRequest

#: The operator's name on the admin listener, in the audit log and in grants.
LISTENER: Final = "admin listener"
_SAME_ORIGIN: Final = "same-origin"


class GateAdminPage:
    """Answers HTTP requests for the admin page; reloads do not replace it.

    `settings` returns those in force.
    """

    def __init__(self, renderer: PageRenderer, settings: Callable[[], Server]) -> None:
        self._renderer = renderer
        self._settings = settings
        self.events: Final = Events(renderer.state)
        self._token = os.urandom(24).hex()
        self._notes = SealedOutcomes(KeyRing((os.urandom(32),), LISTENER))

    def close(self) -> None:
        """End every event stream, and close the renderer."""
        self.events.close()
        self._renderer.close()

    def listener_request(
        self, request: web.BaseRequest, accept_language: str, switch: str
    ) -> AdminRequest:
        """Return the page's view of a request on the admin listener, which has no sign-in."""
        path, mark, query = request.raw_path.partition("?")
        orders = self._settings().admin_orders
        operator = Operator(
            base="",
            by=LISTENER,
            who=LISTENER,
            sub="",
            csrf=self._token,
            is_known=True,
            changes_people=orders,
            approves=orders,
            approvers_unknown=False,
            fresh_url="",
        )
        parts = request.method, path, mark + query if query else "", accept_language, switch
        return AdminRequest(*parts, operator, self._holds, frozenset(), self._notes, LISTENER)

    def _holds(self, text: str) -> bool:
        return compare_digest(text.encode("utf-8", "replace"), self._token.encode())

    async def answer(
        self, request: web.BaseRequest, admin_request: AdminRequest
    ) -> web.StreamResponse:
        """Return a response to be sent, or that of an event stream that has ended."""
        if admin_request.path == "/events":
            if not _is_by_own_page(request.headers):
                # Otherwise any web page could use up the few streams with images of this URL.
                return web.Response(status=HTTPStatus.FORBIDDEN)
            return await self.events.answer(request)
        outcome = admin_request.notes.read(
            admin_request.reader, dict(query_pairs(admin_request.query))
        )
        wanted = PageRequest(
            *admin_request[:6], outcome=outcome.shown() if outcome is not None else {}
        )
        if admin_request.path == "/orders" and admin_request.method == "POST":
            form = await form_fields(request)
            own = is_own(request.headers, admin_request.origins) and admin_request.holds(
                form.get("csrf", "")
            )
            wanted = wanted._replace(form=form, is_own=own)
        answer = await self._renderer.answer(wanted)
        response = answer.response()
        if answer.outcome:
            query = admin_request.notes.query(
                admin_request.reader, FormOutcome.from_shown(answer.outcome)
            )
            response.headers[hdrs.LOCATION] += f"?{query}"
        return response


def is_own(headers: Mapping[str, str], origins: Collection[str]) -> bool:
    """Whether a form was sent by a page of this origin, by what the browser says.

    With empty `origins` the page's origin is that of the Host field. Every browser sends Origin
    with a form, so a form without it is refused.
    """
    if not _is_by_own_page(headers):
        return False
    origin = headers.get(hdrs.ORIGIN, "")
    if origins:
        return origin in origins
    host = headers.get(hdrs.HOST, "")
    return bool(host) and origin in {f"http://{host}", f"https://{host}"}


def _is_by_own_page(headers: Mapping[str, str]) -> bool:
    """Whether a request was sent by a page of this origin, or by no browser that says otherwise."""
    return headers.get("Sec-Fetch-Site", _SAME_ORIGIN) == _SAME_ORIGIN
