"""Draws the admin page, and carries out its orders."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from tailchat_gate.config.files import FileError
from tailchat_gate.config.model import Pages
from tailchat_gate.config.suggested import completed
from tailchat_gate.config.tables.admin_page import is_admin_page
from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.endpoints.form_outcome import FormOutcome, Value
from tailchat_gate.pages import admin_page as pages
from tailchat_gate.pages.brand import Brand
from tailchat_gate.people.slices import in_slices
from tailchat_gate.request.target import query_pairs
from tailchat_gate.responses.chosen_language import fitting
from tailchat_gate.serving.dashboard.doctor_run import DoctorRun
from tailchat_gate.serving.dashboard.facts import SOON_SECONDS, Sampler, overview
from tailchat_gate.serving.dashboard.orders import (
    APPROVERS_UNKNOWN,
    DONE,
    FORMS,
    HARMLESS,
    NOTHING_TYPED,
    OrderResult,
    order_result,
)
from tailchat_gate.serving.dashboard.page_request import PageAnswer, PageRequest, refusal
from tailchat_gate.serving.dashboard.processes import ServingProcesses, Values
from tailchat_gate.serving.dashboard.settings_shown import effective
from tailchat_gate.serving.reload import Reloader
from tailchat_gate.serving.wiring.config_parts import brand_of
from tailchat_gate.syntax import READ_METHODS

#: The message for an order without an answer: it may have been carried out or not.
UNANSWERED: Final = "unanswered"
#: Results of orders that get a page of their own, with status 503.
_UNAVAILABLE: Final = frozenset((APPROVERS_UNKNOWN, UNANSWERED))


class DrawnPage:
    """The admin page of `processes`; a gate without a configuration file has no `reloader`."""

    def __init__(
        self, processes: ServingProcesses, reloader: Reloader | None, clock: Callable[[], float]
    ) -> None:
        self._processes = processes
        self._reloader = reloader
        self._clock = clock
        self._sampler = Sampler(processes.figures, self._own_routes)
        self._doctor = DoctorRun(reloader.source if reloader else None, clock)
        self._brand, self._branded = Brand(), Pages()

    async def start(self) -> None:
        """Compile the templates, and begin to take samples."""
        await asyncio.to_thread(pages.prepare)
        self._sampler.start()

    def close(self) -> None:
        """Stop taking samples, and kill a run of doctor."""
        self._sampler.close()
        self._doctor.close()

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""
        reloads = self._processes.reloads
        return (
            self._sampler.count,
            (reloads.generation, reloads.tried_at),
            (self._doctor.running, self._doctor.at),
            await self._processes.state(),
        )

    async def answer(self, wanted: PageRequest) -> PageAnswer:
        """Return a page, or the response to an order."""
        name = wanted.path.removeprefix("/") or "overview"
        if name == "orders":
            return await self._ordered(wanted)
        if name not in pages.PAGES or wanted.path == "/overview":
            return refusal(HTTPStatus.NOT_FOUND, "no such page\n")
        if wanted.method not in READ_METHODS:
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, Allow=", ".join(sorted(READ_METHODS)))
        values = await self._values(name, dict(query_pairs(wanted.query)), wanted.operator)
        return await self._page(wanted, name, wanted.outcome, values)

    async def _ordered(self, wanted: PageRequest) -> PageAnswer:
        """Carry out an order, and redirect to the page that shows its result."""
        form = wanted.form
        if form is None and wanted.method in READ_METHODS:
            # A rejected form is shown at this path, so reloading that page sends a GET.
            headers = {"Location": f"{wanted.operator.base}/people", "Cache-Control": "no-store"}
            return PageAnswer(HTTPStatus.SEE_OTHER, "", headers)
        if form is None:
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, Allow="POST")
        came_from = form.get("page", "")
        back = came_from if came_from in pages.PAGES else pages.PAGES[0]
        if not wanted.is_own:
            foreign = order_result("foreign").outcome
            return await self._message(wanted, foreign, back, HTTPStatus.FORBIDDEN)
        result = await self._carried_out(wanted, form)
        outcome = result.outcome
        if outcome.code in _UNAVAILABLE:
            return await self._message(wanted, outcome, back, HTTPStatus.SERVICE_UNAVAILABLE)
        if form.get("order") in FORMS and outcome.code not in DONE:
            return await self._once_more(wanted, form, result)
        path = "" if back == pages.PAGES[0] else back
        location = f"{wanted.operator.base}/{path}"
        headers = {"Location": location, "Cache-Control": "no-store"}
        return PageAnswer(HTTPStatus.SEE_OTHER, "", headers, outcome.shown())

    async def _once_more(
        self, wanted: PageRequest, form: Mapping[str, str], result: OrderResult
    ) -> PageAnswer:
        """Show a form again with its inputs, and what is wrong with one of them."""
        order, values = form["order"], await self._values("people", {}, wanted.operator)
        typed = {name: form.get(name, "") for name in FORMS[order]}
        if result.instead:
            typed[result.field] = result.instead
        values["typed"] = {**NOTHING_TYPED, order: typed}
        said = {**result.outcome.shown(), "unlock": self._to_type("tailchat-gate unlock all")}
        values["wrong"] = {"order": order, "field": result.field, "said": said}
        page = await self._page(wanted, "people", {}, values)
        return page._replace(status=HTTPStatus.UNPROCESSABLE_ENTITY)

    async def _carried_out(self, wanted: PageRequest, form: Mapping[str, str]) -> OrderResult:
        order, operator = form.get("order", ""), wanted.operator
        if order not in HARMLESS:
            return await self._processes.carry_out(form, operator)
        if not operator.is_known:
            return order_result("not-a-person")
        if self._reloader is None:
            return order_result("no-file")
        await self._processes.note(order, operator)
        if order == "doctor":
            self._doctor.start()
            return order_result("started")
        outcome = await self._reloader.reload("an order on the admin page")
        return order_result("refused" if outcome.problems else "reloaded")

    async def _message(
        self, wanted: PageRequest, outcome: FormOutcome, back: str, status: HTTPStatus
    ) -> PageAnswer:
        path = "" if back == pages.PAGES[0] else back
        page = await self._page(wanted, "message", outcome.shown(), {"back": path})
        return page._replace(status=status)

    async def _page(
        self, wanted: PageRequest, name: str, outcome: Mapping[str, Value], values: Values
    ) -> PageAnswer:
        operator = wanted.operator
        # After a change of language the page is requested with GET, which /orders does not answer.
        path, query = wanted.path, wanted.query
        if path == "/orders":
            path, query = f"/{name}" if name in pages.PAGES[1:] else "/", ""
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
            "password_known": operator.password_known,
            "said": outcome,
            "switch": wanted.switch,
            "here": fitting(f"{operator.base}{path}", query),
        }
        language, brand = wanted.accept_language, await self._brand_now()
        text = await in_slices(pages.render(name, language, {**shared, **values}, brand))
        return PageAnswer(HTTPStatus.OK, text, pages.headers(language, brand))

    async def _brand_now(self) -> Brand:
        """Return the organisation's brand, without its logo if that file is no longer there."""
        settings = self._processes.settings.pages
        if self._branded is not settings:
            try:
                self._brand = await asyncio.to_thread(brand_of, settings)
            except FileError:
                self._brand = brand_of(settings.model_copy(update={"logo": ""}))
            self._branded = settings
        return self._brand

    async def _values(self, name: str, query: Mapping[str, str], operator: Operator) -> Values:
        processes = self._processes
        if name == "people":
            told: dict[str, Any] = await processes.tell(name, {})
            for refusal in told["refusals"]["shown"]:
                for remedy in refusal["remedies"]:
                    remedy["line"] = self._to_type(remedy["line"])
            return {**told, "typed": NOTHING_TYPED, "wrong": {}}
        if name == "configuration":
            only_set = query.get("values") == "set"
            return self._configuration(await processes.tell(name, {}), only_set=only_set)
        if name == "overview":
            facts: dict[str, Any] = await processes.tell(name, {})
            every = query.get("routes") == "all"
            if processes.reloads.problems:
                facts["notices"].append({"kind": "reload", "text": "", "what": "", "name": ""})
            given = processes.settings, facts["up"], facts["streams"], self._sampler
            return {
                "notices": facts["notices"],
                "waiting": sum(sub != operator.sub for sub in facts["asking"]),
                "approvals": self._approvals_url(operator),
                **await in_slices(overview(*given, every=every)),
            }
        question = {
            "url": query.get("url", ""),
            "who": query.get("as", ""),
            "method": query.get("method", "") or "GET",
        }
        answer: dict[str, Any] = await processes.tell(name, question if question["url"] else {})
        if lines := answer["explained"].get("lines"):
            answer["explained"]["lines"] = list(map(self._to_type, lines))
        return {"asked": question, **answer, "doctor": self._doctor.shown()}

    def _to_type(self, text: str) -> str:
        """Return a text with its commands for the file that this gate reads."""
        return completed(text, self._reloader.source.path if self._reloader else None)

    def _approvals_url(self, operator: Operator) -> str:
        """Return the URL where requests for access are decided: here, or the approvers' page."""
        server = self._processes.settings.server
        if operator.approves and operator.changes_people:
            return f"{operator.base}/people#requests"
        return f"{server.public_url}{server.prefix}/approvals"

    def _own_routes(self) -> frozenset[str]:
        """Return the routes of this page, whose event streams would count as slow requests."""
        routes = self._processes.settings.route
        return frozenset(route.name for route in routes if is_admin_page(route))

    def _configuration(self, facts: Mapping[str, Any], *, only_set: bool) -> Values:
        processes, now = self._processes, self._clock()
        settings = effective(processes.settings, processes.sources)
        reloads = processes.reloads
        ends: Sequence[Mapping[str, Any]] = facts["expiries"]
        return {
            "file": self._reloader.source.name if self._reloader else "",
            "generation": reloads.generation,
            "changed_at": reloads.changed_at,
            "tried_at": reloads.tried_at,
            "problems": [
                {"key_path": problem.place, "found": problem.found, "expected": problem.expected}
                for problem in reloads.problems
            ],
            "expiries": [{**expiry, "state": _state_of(expiry["at"], now)} for expiry in ends],
            "settings": [
                setting for setting in settings if not only_set or setting["source"] != "default"
            ],
            "only_set": only_set,
        }


def _state_of(at: float, now: float) -> str:
    if at <= now:
        return "over"
    return "soon" if at <= now + SOON_SECONDS else "good"
