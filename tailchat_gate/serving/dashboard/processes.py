"""What the admin page shows and controls: one process, or all workers of a gate."""

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Protocol

from tailchat_gate.config.load import Sources
from tailchat_gate.config.model import Settings
from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.observe.history import Figures
from tailchat_gate.people.slices import in_slices
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.serving.dashboard.explained_shown import explained_shown
from tailchat_gate.serving.dashboard.facts import backends_up, expiries, notices
from tailchat_gate.serving.dashboard.orders import OrderDesk, OrderResult
from tailchat_gate.serving.dashboard.page_request import Form
from tailchat_gate.serving.dashboard.people_shown import open_streams, people
from tailchat_gate.serving.dashboard.typed_names import suggestions_for
from tailchat_gate.serving.generations import Generations
from tailchat_gate.serving.reload_outcome import Reloads

Values = dict[str, object]
Query = Mapping[str, str]


class ServingProcesses(Protocol):
    """The serving processes, as the admin page needs them."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    @property
    def sources(self) -> Sources:
        """Where each setting came from."""

    @property
    def reloads(self) -> Reloads:
        """Which configuration is in force, and how the last reload ended."""

    @property
    def figures(self) -> Figures:
        """The counters."""

    async def tell(self, page: str, query: Query) -> Values:
        """Return the values of a page that only the serving processes know."""

    async def carry_out(self, form: Form, operator: Operator) -> OrderResult:
        """Carry out an order, and return its result."""

    async def note(self, order: str, operator: Operator) -> None:
        """Write an order into the audit log."""

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""


class SingleProcess:
    """A gate with one process; `connections` returns its clients' connections."""

    def __init__(
        self, generations: Generations, connections: Callable[[], Iterable[ClientConnection]]
    ) -> None:
        self._generations = generations
        self._process_state = generations.in_force.process_state
        self._connections = connections
        self._orders = OrderDesk(generations, connections)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._generations.in_force.settings

    @property
    def sources(self) -> Sources:
        """Where each setting came from."""
        return self._generations.in_force.sources

    @property
    def reloads(self) -> Reloads:
        """Which configuration is in force, and how the last reload ended."""
        return self._process_state.reloads

    @property
    def figures(self) -> Figures:
        """The counters."""
        return self._process_state.metrics

    async def tell(self, page: str, query: Query) -> Values:
        """Return the values of a page that only the serving processes know."""
        facts = await in_slices(self._facts(page))
        if query:
            url, who, method = query["url"], query["who"], query["method"]
            gate = self._generations.in_force, self._connections()
            facts["explained"] = await explained_shown(*gate, url=url, who=who, method=method)
        return facts

    async def carry_out(self, form: Form, operator: Operator) -> OrderResult:
        """Carry out an order, and return its result."""
        return await self._orders.carry_out(form, operator)

    async def note(self, order: str, operator: Operator) -> None:
        """Write an order into the audit log."""
        self._orders.note(order, operator)

    async def state(self) -> object:
        """Return a value that changes when the page may show something else."""
        process_state = self._process_state
        refusals = process_state.audit.refusals[:1]
        return (
            process_state.revocation.version,
            process_state.grants.state.in_force,
            process_state.access_requests.open,
            [(refusal.person.sub, refusal.last, refusal.count) for refusal in refusals],
        )

    def _facts(self, page: str) -> Generator[None, None, Values]:
        generation, process_state = self._generations.in_force, self._process_state
        if page == "overview":
            shown = [notice._asdict() for notice in notices(generation.settings, process_state)]
            now = process_state.monotonic()
            streams = yield from open_streams(self._connections(), now)
            for route in generation.settings.route:
                streams[route.name] += process_state.metrics.route(route.name).open_tunnels
            asking = [request.sub for request in process_state.access_requests.open]
            return {
                "notices": shown,
                "up": backends_up(process_state),
                "streams": streams,
                "asking": asking,
            }
        if page == "configuration":
            ends = expiries(generation.settings, process_state)
            return {"expiries": [expiry._asdict() for expiry in ends]}
        suggestions = yield from suggestions_for(generation, self._connections())
        if page == "people":
            return {**(yield from people(generation, self._connections())), **suggestions}
        return {**suggestions, "explained": {}}
