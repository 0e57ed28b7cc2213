"""Serves the admin page: on the admin listener, and on routes with `upstream = "admin:"`."""

import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from hmac import compare_digest
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from tailchat_gate.config.tables.admin_page import is_admin_page
from tailchat_gate.endpoints.account import form_fields
from tailchat_gate.endpoints.admin import AdminRequest, Operator
from tailchat_gate.pages import admin_page as pages
from tailchat_gate.people.slices import in_slices
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.request.target import query_pairs
from tailchat_gate.responses.chosen_language import fitting
from tailchat_gate.serving.dashboard.doctor_run import DoctorRun
from tailchat_gate.serving.dashboard.events import Events
from tailchat_gate.serving.dashboard.explained_shown import explained_shown
from tailchat_gate.serving.dashboard.facts import expiries, overview
from tailchat_gate.serving.dashboard.orders import APPROVERS_UNKNOWN, OrderDesk
from tailchat_gate.serving.dashboard.people_shown import people
from tailchat_gate.serving.dashboard.sampler import Sampler
from tailchat_gate.serving.dashboard.settings_shown import effective
from tailchat_gate.serving.generations import Generations
from tailchat_gate.serving.reload import Reloader
from tailchat_gate.syntax import READ_METHODS

#: Who gives orders on the listener, in the audit log and as the giver of grants.
LISTENER: Final = "admin listener"
#: Seconds before its end at which a certificate or token is marked.
_SOON: Final = 14 * 86_400.0
_SAME_ORIGIN: Final = "same-origin"

Values = dict[str, object]


class GateAdminPage:
    """The admin page of one process, the same for every configuration.

    `connections` returns those of clients. Its parts end with `close`, open event streams first.
    """

    def __init__(
        self,
        generations: Generations,
        connections: Callable[[], Iterable[ClientConnection]],
        reloader: Reloader | None,
    ) -> None:
        self._generations = generations
        self._process_state = generations.in_force.process_state
        self._connections = connections
        self._reloader = reloader
        self._sampler = Sampler(self._process_state.metrics, self._own_routes)
        self._doctor = DoctorRun(reloader.source if reloader else None, self._process_state.clock)
        self._orders = OrderDesk(generations, connections, reloader, self._doctor)
        self.events: Final = Events(self._state)
        self._token = os.urandom(24).hex()

    def start(self) -> None:
        """Begin to take samples; needs a running event loop."""
        self._sampler.start()

    def close(self) -> None:
        """End every stream, the samples and the checks under way."""
        self.events.close()
        self._sampler.close()
        self._doctor.close()

    def listener_operator(self) -> Operator:
        """Return who uses the page on the admin listener: nobody in particular."""
        orders = self._generations.in_force.settings.server.admin_orders
        return Operator(
            base="",
            by=LISTENER,
            who=LISTENER,
            sub="",
            csrf=self._token,
            holds=lambda text: compare_digest(
                text.encode("utf-8", "replace"), self._token.encode()
            ),
            origins=frozenset(),
            is_known=True,
            changes_people=orders,
            approves=orders,
            approvers_unknown=False,
            fresh_url="",
        )

    def _holds(self, text: str) -> bool:
        return compare_digest(text.encode("utf-8", "replace"), self._token.encode())

    async def answer(self, request: web.BaseRequest, asked: AdminRequest) -> web.StreamResponse:
        """Return the response, of which nothing is sent yet, or the end of an event stream."""
        name = asked.path.removeprefix("/") or "overview"
        if name == "events":
            return await self.events.answer(request)
        if name == "orders":
            return await self._ordered(request, asked)
        if name not in pages.PAGES or asked.path == "/overview":
            return web.Response(status=HTTPStatus.NOT_FOUND, text="no such page\n")
        if asked.method not in READ_METHODS:
            return web.Response(
                status=HTTPStatus.METHOD_NOT_ALLOWED,
                headers={"Allow": ", ".join(sorted(READ_METHODS))},
            )
        query = dict(query_pairs(asked.query))
        said = query.get("said", "")
        values = await in_slices(self._values(name, query))
        return await self._page(asked, name, said if said in pages.said_codes() else "", values)

    async def _ordered(self, request: web.BaseRequest, asked: AdminRequest) -> web.StreamResponse:
        """Carry out an order, and lead to the page that shows what came of it."""
        if asked.method != "POST":
            return web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "POST"})
        operator = asked.operator
        form = await form_fields(request)
        came_from = form.get("page", "")
        back = came_from if came_from in pages.PAGES else pages.PAGES[0]
        if not is_own(request.headers, operator.origins) or not operator.holds(
            form.get("csrf", "")
        ):
            return await self._message(asked, "foreign", back, HTTPStatus.FORBIDDEN)
        said = await self._orders.carry_out(form, operator)
        if said == APPROVERS_UNKNOWN:
            return await self._message(asked, said, back, HTTPStatus.SERVICE_UNAVAILABLE)
        path = "" if back == pages.PAGES[0] else back
        return web.Response(
            status=HTTPStatus.SEE_OTHER,
            headers={
                "Location": f"{operator.base}/{path}?said={said}",
                "Cache-Control": "no-store",
            },
        )

    async def _message(
        self, asked: AdminRequest, said: str, back: str, status: HTTPStatus
    ) -> web.Response:
        path = "" if back == pages.PAGES[0] else back
        response = await self._page(asked, "message", said, {"back": path})
        response.set_status(status)
        return response

    async def _page(
        self, asked: AdminRequest, name: str, said: str, values: Values
    ) -> web.Response:
        operator = asked.operator
        # The message stands at the path of orders, which no GET shows.
        path, query = (asked.path, asked.query) if name in pages.PAGES else ("/", "")
        shared: Values = {
            "page": name,
            "base": operator.base,
            "who": operator.who,
            "sub": operator.sub,
            "csrf": operator.csrf,
            "orders": operator.is_known and operator.changes_people,
            "harmless": operator.is_known,
            "approves": operator.approves,
            "approvers_unknown": operator.approvers_unknown,
            "fresh_url": operator.fresh_url,
            "said": said,
            "switch": asked.switch,
            "here": fitting(f"{operator.base}{path}", query),
            "site": self._generations.in_force.settings.pages.title,
        }
        text = await in_slices(pages.render(name, asked.accept_language, {**shared, **values}))
        return web.Response(text=text, headers=pages.headers(asked.accept_language))

    def _values(self, name: str, query: Mapping[str, str]) -> Generator[None, None, Values]:
        generation, process_state = self._generations.in_force, self._process_state
        settings = generation.settings
        if name == "overview":
            every = query.get("routes") == "all"
            return (yield from overview(settings, process_state, self._sampler, every=every))
        if name == "people":
            return (yield from people(generation, self._connections()))
        if name == "configuration":
            return self._configuration()
        asked = {
            "url": query.get("url", ""),
            "who": query.get("as", ""),
            "method": query.get("method", "") or "GET",
        }
        explained = explained_shown(generation, **asked) if asked["url"] else None
        return {"asked": asked, "explained": explained, "doctor": self._doctor.shown()}

    def _own_routes(self) -> frozenset[str]:
        """Return the page's own routes: an event stream is no slow request."""
        routes = self._generations.in_force.settings.route
        return frozenset(route.name for route in routes if is_admin_page(route))

    def _configuration(self) -> Values:
        generation, process_state = self._generations.in_force, self._process_state
        reloads, now = process_state.reloads, process_state.clock()
        return {
            "file": self._reloader.source.name if self._reloader else "",
            "generation": reloads.generation,
            "changed_at": reloads.changed_at,
            "tried_at": reloads.tried_at,
            "problems": [
                {"key_path": one.place, "found": one.found, "expected": one.expected}
                for one in reloads.problems
            ],
            "expiries": [
                {**one._asdict(), "state": _state_of(one.at, now)}
                for one in expiries(generation.settings, process_state)
            ],
            "settings": effective(generation.settings, generation.sources),
        }

    def _state(self) -> object:
        """Return what differs once a page may show something else."""
        process_state = self._process_state
        refusals, reloads = process_state.audit.refusals[:1], process_state.reloads
        return (
            self._sampler.count,
            process_state.revocation.version,
            process_state.grants.state.in_force,
            process_state.access_requests.open,
            [(one.person.sub, one.last, one.count) for one in refusals],
            (reloads.generation, reloads.tried_at),
            (self._doctor.running, self._doctor.at),
        )


def is_own(headers: Mapping[str, str], origins: Collection[str]) -> bool:
    """Whether a browser says that a form comes from the page's own origin.

    `origins` is empty where the page has whatever Host was asked for. Every browser sends Origin
    with a form; without one nothing is known of the page that sent it.
    """
    if headers.get("Sec-Fetch-Site", _SAME_ORIGIN) != _SAME_ORIGIN:
        return False
    found = headers.get(hdrs.ORIGIN, "")
    if origins:
        return found in origins
    host = headers.get(hdrs.HOST, "")
    return bool(host) and found in {f"http://{host}", f"https://{host}"}


def _state_of(at: float, now: float) -> str:
    if at <= now:
        return "over"
    return "soon" if at <= now + _SOON else "good"
