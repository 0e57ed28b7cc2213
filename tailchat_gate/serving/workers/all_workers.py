"""The admin page's access to all workers, whose reports it combines as if from one process."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tailchat_gate.config.load import Loaded, Sources
from tailchat_gate.config.model import Settings
from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.observe.history import Figures
from tailchat_gate.observe.summed_figures import SummedFigures
from tailchat_gate.serving.dashboard.drawn import UNANSWERED
from tailchat_gate.serving.dashboard.facts import SHOWN, rows
from tailchat_gate.serving.dashboard.orders import ENDED, OrderResult, order_result
from tailchat_gate.serving.dashboard.page_request import Form
from tailchat_gate.serving.dashboard.people_shown import MOST_LIVE
from tailchat_gate.serving.dashboard.processes import Query, Values
from tailchat_gate.serving.reload_outcome import Reloads
from tailchat_gate.serving.workers.crew import Crew
from tailchat_gate.serving.workers.reports import ASK_SECONDS, CrewReports
from tailchat_gate.serving.workers.spawned import Spawned, WorkerGoneError, WorkerSilentError

PageValues = Mapping[str, Any]
_NO_PEOPLE: Final[PageValues] = {
    "refusals": rows((), 0),
    "requests": (),
    "locks": (),
    "grants": (),
    "live": rows((), 0),
    "grantable": (),
    "people": (),
    "machines": (),
    "addresses": (),
    "called": {},
}
#: How long an order may take, which waits for the store.
_ORDER_SECONDS: Final = 15.0
#: Orders about connections, of which each worker has its own. Everything else is in the store.
_TO_ALL: Final = frozenset(("end", "end-all"))


class AllWorkers:
    """All workers of a gate; `loaded` returns the configuration in force."""

    def __init__(
        self, crew: Crew, reports: CrewReports, reloads: Reloads, loaded: Callable[[], Loaded]
    ) -> None:
        self._crew = crew
        self._reports = reports
        self._loaded = loaded
        self.reloads: Final = reloads
        self.figures: Final[Figures] = SummedFigures(reports.counts)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._loaded().settings

    @property
    def sources(self) -> Sources:
        """Where each setting came from."""
        return self._loaded().sources

    async def tell(self, page: str, query: Query) -> Values:
        """Return the values of a page that only the serving processes know."""
        if page == "overview":
            await self._reports.learn()
        answers = await self._crew.ask("tell", ASK_SECONDS, page=page, query=dict(query))
        pages = [answer["told"] for answer in answers.values() if answer is not None]
        return _combined(page, pages, self._reports.problems(answers))

    async def carry_out(self, form: Form, operator: Operator) -> OrderResult:
        """Carry out an order, and return its result."""
        given: Mapping[str, Any] = {"form": dict(form), "operator": operator._asdict()}
        if form.get("order") in _TO_ALL:
            answers = await self._crew.ask("order", _ORDER_SECONDS, **given)
            results = [answer["result"] for answer in answers.values() if answer is not None]
            return _of_all([OrderResult.from_json(result) for result in results])
        answer = await self._ask_one("order", given)
        return (
            order_result(UNANSWERED) if answer is None else OrderResult.from_json(answer["result"])
        )

    async def note(self, order: str, operator: Operator) -> None:
        """Write an order into the audit log."""
        await self._ask_one("note", {"order": order, "operator": operator._asdict()})

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""
        answers = await self._crew.ask("state", ASK_SECONDS)
        return [(process.pid, answer and answer["state"]) for process, answer in answers.items()]

    async def _ask_one(self, what: str, given: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Ask the worker whose lists the page shows, so that the next page shows the change."""
        process = await self._first()
        try:
            return await process.ask(what, _ORDER_SECONDS, **given) if process else None
        except (WorkerGoneError, WorkerSilentError):
            return None

    async def _first(self) -> Spawned | None:
        """Return the first worker that answers."""
        answers = await self._crew.ask("state", ASK_SECONDS)
        return next((process for process, answer in answers.items() if answer is not None), None)


def _of_all(results: Sequence[OrderResult]) -> OrderResult:
    """Return one result for an order that each worker carried out on its own connections."""
    ended = [result.outcome.values for result in results if result.outcome.code == ENDED]
    if not ended:
        return (*results, order_result(UNANSWERED))[0]
    return order_result(
        ENDED, **{**ended[0], "count": sum(int(values["count"]) for values in ended)}
    )


def _combined(page: str, pages: Sequence[PageValues], problems: Iterable[str]) -> Values:
    """Combine the workers' reports; `problems` are lines about workers that do not answer."""
    return _COMBINERS[page](pages, problems)


def _overview(pages: Sequence[PageValues], problems: Iterable[str]) -> Values:
    notices = [{"kind": "plain", "text": text, "what": "", "name": ""} for text in problems]
    for notice in (each for facts in pages for each in facts["notices"]):
        if notice not in notices:
            notices.append(notice)
    up: dict[str, bool | None] = {}
    for url, is_up in (item for facts in pages for item in facts["up"].items()):
        # A worker that cannot reach a tool fails requests, whatever the others do.
        known = up.get(url)
        up[url] = is_up if known is None else known and is_up is not False
    streams: Counter[str] = Counter()
    for facts in pages:
        streams.update(facts["streams"])
    asking = pages[0]["asking"] if pages else ()
    return {"notices": notices, "up": up, "streams": streams, "asking": asking}


def _people(pages: Sequence[PageValues], _: Iterable[str]) -> Values:
    """Return the stored lists as the first worker has them, and all workers' connections."""
    first = pages[0] if pages else _NO_PEOPLE
    latest: dict[tuple[str, ...], PageValues] = {}
    for refusal in (refusal for facts in pages for refusal in facts["refusals"]["shown"]):
        key = refusal["who"], refusal["route"], refusal["reason"]
        if key not in latest or latest[key]["last"] < refusal["last"]:
            latest[key] = refusal
    refusals = sorted(latest.values(), key=lambda refusal: -refusal["last"])
    total = max((facts["refusals"]["total"] for facts in pages), default=0)
    live = [stream for facts in pages for stream in facts["live"]["shown"]]
    live.sort(key=lambda stream: (stream["who"], stream["id"]))
    return {
        **first,
        "refusals": rows(refusals[:SHOWN], max(total, len(refusals))),
        "live": rows(live[:MOST_LIVE], sum(facts["live"]["total"] for facts in pages)),
    }


def _configuration(pages: Sequence[PageValues], _: Iterable[str]) -> Values:
    latest: dict[tuple[str, str], PageValues] = {}
    for expiry in (expiry for facts in pages for expiry in facts["expiries"]):
        # Some workers may not have seen a renewed certificate yet.
        key = expiry["what"], expiry["name"]
        if key not in latest or latest[key]["at"] < expiry["at"]:
            latest[key] = expiry
    order = sorted(
        latest.values(), key=lambda expiry: (expiry["at"], expiry["what"], expiry["name"])
    )
    return {"expiries": order}


def _checks(pages: Sequence[PageValues], problems: Iterable[str]) -> Values:
    if pages:
        return dict(pages[0])
    return {**_NO_PEOPLE, "explained": {"allowed": False, "lines": list(problems)}}


_COMBINERS: Final[Mapping[str, Callable[[Sequence[PageValues], Iterable[str]], Values]]] = {
    "overview": _overview,
    "people": _people,
    "configuration": _configuration,
    "checks": _checks,
}
