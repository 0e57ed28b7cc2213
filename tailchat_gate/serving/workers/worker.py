"""A worker: serves on its parent's sockets, answers its questions and carries out its orders."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from hashlib import blake2s
from itertools import chain
from socket import socket
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from tailchat_gate.config.load import Loaded, Source
from tailchat_gate.config.model import Settings
from tailchat_gate.endpoints.admin import Operator
from tailchat_gate.observe.log import LOGGER_NAME, set_level
from tailchat_gate.observe.metrics import ProcessMetrics
from tailchat_gate.observe.turns import others
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.listening.balance import Balance
from tailchat_gate.serving.listening.listeners import StartError
from tailchat_gate.serving.process import run_loop, serve
from tailchat_gate.serving.reload import problems_of
from tailchat_gate.serving.server import GateServer
from tailchat_gate.serving.signals import Signals
from tailchat_gate.serving.surroundings import Surroundings
from tailchat_gate.serving.systemd import PassedSockets, ServiceManager
from tailchat_gate.serving.upgrade import Predecessor
from tailchat_gate.serving.wiring.build import build
from tailchat_gate.serving.workers.answers import metrics_text
from tailchat_gate.serving.workers.channel import FIND_SECONDS, Channel, Message, Questions
from tailchat_gate.serving.workers.digests import MOVING, digest_of, read
from tailchat_gate.serving.workers.link import ParentLink, passed_with
from tailchat_gate.serving.workers.parents_page import ParentsPage

Answer = Mapping[str, object]
#: Open questions of each kind: visitors cause those about return targets, so they need a limit.
_MOST_QUESTIONS: Final = {"target": 32, "page": 32, "state": 1}

_log: Final = logging.getLogger(LOGGER_NAME)


def run_worker(loaded: Loaded, signals: Signals, source: Source, link: ParentLink) -> None:
    """Serve until the parent says to stop or has ended. Raises StartError."""
    others.share(link.turns)
    generation = build(share_of(loaded.settings, link.count), sources=loaded.sources)
    generation.process_state.login_queue.share(link.count)
    generation.process_state.tailchat.speak(for_all=link.number == 1)
    digest = digest_of(source)
    try:
        sockets = link.join(digest)
    except OSError as error:
        raise StartError(str(error), "server.workers") from None
    balance = Balance(link.memory, link.number, link.count)
    around = Surroundings(sockets, ServiceManager(), Predecessor(), None, balance)
    worker = Worker(source, link, sockets)
    run_loop(serve(generation, signals, surroundings=around, started=worker.begin))


class Worker:
    """The worker's end of the channel, once it serves."""

    def __init__(self, source: Source, link: ParentLink, sockets: PassedSockets) -> None:
        self._source = source
        self._link = link
        self._sockets = sockets
        self._process = ProcessMetrics()
        self._tasks: set[asyncio.Task[None]] = set()
        self._questions = Questions(_MOST_QUESTIONS)
        #: A configuration that was built and is not in force yet.
        self._prepared: Generation | None = None

    def begin(self, server: GateServer) -> None:
        """Tell the parent that this process serves, and handle its messages from now on."""
        self._server = server
        self._handlers: Mapping[str, Callable[[Message], Awaitable[Answer | str]]] = {
            "ping": self._ping,
            "metrics": self._metrics,
            "status": self._status,
            "refusals": self._refusals,
            "target": self._target,
            "tell": self._tell,
            "order": self._order,
            "note": self._note,
            "state": self._state,
            "prepare": self._prepare,
            "commit": self._commit,
        }
        self._channel = self._questions.channel = Channel(self._link.end, self._heard, self._lost)
        server.show_page(ParentsPage(self._questions))
        self._targets = server.in_force.process_state.stored_targets
        self._targets.others = self._target_elsewhere
        self._channel.send({"ready": server.location})

    def _lost(self) -> None:
        """Stop: nobody else would end this process, and another gate may need its addresses."""
        _log.error("the parent of this worker has ended; the worker stops")
        self._server.over.set()

    def _heard(self, message: Message, sockets: Sequence[socket]) -> None:
        if sockets:
            self._sockets.add(passed_with(message, list(sockets)))
        if "got" in message:
            self._questions.hear(message)
            return
        match str(message.get("ask")):
            case "stop":
                self._server.stop_soon(succeeded=bool(message["succeeded"]))
            case "hurry":
                self._server.hurry()
            case "drop":
                self._prepared = None
            case "notice":
                self._server.in_force.notices.hear(message["text"], message["details"])
            case question if question in self._handlers:
                self._start(self._reply(message, self._handlers[question]))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(
        self, message: Message, handler: Callable[[Message], Awaitable[Answer | str]]
    ) -> None:
        try:
            answer = await handler(message)
        except Exception as error:  # noqa: BLE001 - reported to the parent, and logged
            _log.exception("a question of the parent could not be answered")
            answer = {"failed": type(error).__name__}
        if isinstance(answer, str):
            self._channel.send_text(f'{{"id":{int(message["id"])},"answer":{answer}}}')
        else:
            self._channel.send({"id": message["id"], "answer": answer})

    async def _ping(self, _: Message) -> Answer:
        return {}

    async def _metrics(self, message: Message) -> str:
        about_process = await asyncio.to_thread(self._process.collect)
        own = self._server.report.collect()
        text = await metrics_text(chain(own, about_process), exemplars=message["exemplars"])
        return f'{{"metrics":{text}}}'

    async def _status(self, _: Message) -> Answer:
        report = self._server.report
        return {"status": await report.status(), "faults": await report.faults()}

    async def _refusals(self, _: Message) -> Answer:
        return {"refusals": await self._server.report.refusals()}

    async def _target(self, message: Message) -> Answer:
        return {"target": self._targets.find(message["name"], message["origin"])}

    async def _target_elsewhere(self, name: str, origin: str) -> str | None:
        """Ask the other workers for a return target."""
        target = await self._questions.get("target", 2 * FIND_SECONDS, name=name, origin=origin)
        return str(target) if target else None

    # Parts of the admin page, which the parent draws.

    async def _tell(self, message: Message) -> Answer:
        return {"told": await self._server.this_process.tell(message["page"], message["query"])}

    async def _order(self, message: Message) -> Answer:
        operator = Operator(**message["operator"])
        result = await self._server.this_process.carry_out(message["form"], operator)
        return {"result": result.to_json()}

    async def _note(self, message: Message) -> Answer:
        await self._server.this_process.note(message["order"], Operator(**message["operator"]))
        return {}

    async def _state(self, _: Message) -> Answer:
        state = repr(await self._server.this_process.state())
        return {"state": blake2s(state.encode("utf-8", "replace")).hexdigest()}

    # A reload, in two steps.

    async def _prepare(self, message: Message) -> Answer:
        """Read and build the configuration that the parent has read; nothing changes yet."""
        self._prepared = None
        try:
            loaded, digest = await asyncio.to_thread(read, self._source)
            if digest != message["digest"]:
                return {"problems": [MOVING.to_json()]}
            settings = share_of(loaded.settings, self._link.count)
            state = self._server.in_force.process_state
            self._prepared = await asyncio.to_thread(build, settings, state, loaded.sources)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old one stays in force
            return {"problems": [problem.to_json() for problem in problems_of(error)]}
        return {"problems": []}

    async def _commit(self, _: Message) -> Answer:
        """Put the prepared configuration into force."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise RuntimeError("no configuration was prepared to put into force")
        await self._server.swap(prepared)
        set_level(prepared.settings.log.level)
        self._server.reloads.took(changed=True)
        return {}


_LIMITS: Final = ("client_connections", "client_requests", "handshakes", "tls_connections")
_RATES: Final = ("logins", "requests_per_person", "requests_per_token")
_Table = TypeVar("_Table", bound=BaseModel)


def share_of(settings: Settings, count: int) -> Settings:
    """Return the settings with each limit divided by the number of workers, rounded up.

    A limit of 0 stays 0, which is the default of each process.
    """
    # With a state server, rates are counted there for all processes together.
    of_rates = 1 if settings.state.url else count
    routes = tuple(
        _shared(route, ("max_connections",), count, ("rate", "rate_per_client"), of_rates)
        for route in settings.route
    )
    limits = _shared(settings.limits, _LIMITS, count, _RATES, of_rates)
    return settings.model_copy(update={"limits": limits, "route": routes})


def _shared(
    table: _Table, limits: Iterable[str], count: int, rates: Iterable[str], of_rates: int
) -> _Table:
    parts: dict[str, int | str] = {name: _part(getattr(table, name), count) for name in limits}
    for name in rates:
        number, mark, unit = getattr(table, name).partition("/")
        parts[name] = f"{_part(int(number), of_rates)}{mark}{unit}" if mark else ""
    return table.model_copy(update=parts)


def _part(limit: int, count: int) -> int:
    return -(-limit // count)
