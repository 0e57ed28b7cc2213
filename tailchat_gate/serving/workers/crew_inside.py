"""The admin page's access to all workers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tailchat_gate.config.load import Loaded, Sources
from tailchat_gate.config.model import Settings
from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.observe.history import Figures
from tailchat_gate.observe.summed_figures import SummedFigures
from tailchat_gate.serving.dashboard.drawn import UNANSWERED
from tailchat_gate.serving.dashboard.inside import Query, Values
from tailchat_gate.serving.dashboard.orders import ENDED, OrderResult, said_of
from tailchat_gate.serving.dashboard.page_request import Form
from tailchat_gate.serving.reloads import Reloads
from tailchat_gate.serving.workers.crew import Crew
from tailchat_gate.serving.workers.reports import ASK_SECONDS, CrewReports
from tailchat_gate.serving.workers.spawned import Spawned, WorkerGoneError, WorkerSilentError
from tailchat_gate.serving.workers.told import together

#: How long an order may take, which waits for the store.
_ORDER_SECONDS: Final = 15.0
#: Orders about connections, which every worker has of its own. All else is in the store.
_TO_ALL: Final = frozenset(("end", "end-all"))


class CrewInside:
    """All workers of a gate, as one; `loaded` returns the configuration in force."""

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
        """The sources of the settings."""
        return self._loaded().sources

    async def tell(self, page: str, query: Query) -> Values:
        """Return the values of a page that only those who serve know."""
        if page == "overview":
            await self._reports.learn()
        answers = await self._crew.ask("tell", ASK_SECONDS, page=page, query=dict(query))
        found = [answer["told"] for answer in answers.values() if answer is not None]
        return together(page, found, self._reports.problems(answers))

    async def carry_out(self, form: Form, operator: Operator) -> OrderResult:
        """Carry out an order, and return what came of it."""
        given: Mapping[str, Any] = {"form": dict(form), "operator": operator._asdict()}
        if form.get("order") in _TO_ALL:
            answers = await self._crew.ask("order", _ORDER_SECONDS, **given)
            found = [one["result"] for one in answers.values() if one is not None]
            return _of_all([OrderResult.from_json(one) for one in found])
        answer = await self._ask_one("order", given)
        return said_of(UNANSWERED) if answer is None else OrderResult.from_json(answer["result"])

    async def note(self, order: str, operator: Operator) -> None:
        """Write an order into the audit log."""
        await self._ask_one("note", {"order": order, "operator": operator._asdict()})

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""
        answers = await self._crew.ask("state", ASK_SECONDS)
        return [(process.pid, answer and answer["state"]) for process, answer in answers.items()]

    async def _ask_one(self, what: str, given: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Ask the worker whose lists a page shows, so that it has the order when it is drawn."""
        process = await self._first()
        try:
            return await process.ask(what, _ORDER_SECONDS, **given) if process else None
        except (WorkerGoneError, WorkerSilentError):
            return None

    async def _first(self) -> Spawned | None:
        """Return the first worker that answers."""
        answers = await self._crew.ask("state", ASK_SECONDS)
        return next((one for one, answer in answers.items() if answer is not None), None)


def _of_all(results: Sequence[OrderResult]) -> OrderResult:
    """Return as one what came of an order at each worker, about connections of its own."""
    ended = [one.said.values for one in results if one.said.code == ENDED]
    if not ended:
        return (*results, said_of(UNANSWERED))[0]
    return said_of(ENDED, **{**ended[0], "count": sum(int(one["count"]) for one in ended)})
