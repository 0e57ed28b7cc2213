"""The parent: binds the sockets, starts the workers, and reports for all of them."""

import asyncio
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from aiohttp import web

from tailchat_gate import __version__, is_compiled
from tailchat_gate.config.load import ConfigError, Loaded, Source
from tailchat_gate.config.model import Settings
from tailchat_gate.config.problems import Problem
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.serving.admin.listener import admin_server
from tailchat_gate.serving.dashboard.drawn import DrawnPage
from tailchat_gate.serving.dashboard.page import GateAdminPage
from tailchat_gate.serving.listening.balance import takes_none
from tailchat_gate.serving.listening.listeners import Binder, StartError
from tailchat_gate.serving.reload import Reloader, ReloadOutcome, StoppingError
from tailchat_gate.serving.reload_outcome import Reloads
from tailchat_gate.serving.surroundings import Surroundings
from tailchat_gate.serving.systemd import ServiceManager
from tailchat_gate.serving.upgrade import NO_SUCCESSOR, UpgradeOutcome, Upgrader
from tailchat_gate.serving.workers.addresses import Addresses
from tailchat_gate.serving.workers.all_workers import AllWorkers
from tailchat_gate.serving.workers.crew import Crew, Slot
from tailchat_gate.serving.workers.digests import MOVING, digest_of
from tailchat_gate.serving.workers.parents_page import answers_of
from tailchat_gate.serving.workers.reports import ASK_SECONDS, CrewReports
from tailchat_gate.serving.workers.spawned import Spawned, WorkerGoneError

#: How long a worker may take to build a configuration, and to put it into force.
PREPARE_SECONDS: Final = 30.0
COMMIT_SECONDS: Final = 10.0
#: How long a worker may take from its start until it serves, also on a busy machine.
_START_SECONDS: Final = 120.0
#: How long of that it may take to open its store and its listeners; reloads wait meanwhile.
_OPEN_SECONDS: Final = 20.0
#: A worker that answers no ping for this long is killed, or earlier if the service manager's
#: watchdog is shorter.
STUCK_SECONDS: Final = 30.0
#: Pings within that time. What a killed worker counted after the last one is lost.
_LOOKS: Final = 3
#: How long a stop may exceed the configured limits before workers are killed: less than the parent
#: itself may take (signals.py).
_STOP_SECONDS: Final = 6.0
_OTHER_FILES: Final = "the configuration files have changed since they were loaded: reload them"

_log: Final = logging.getLogger(LOGGER_NAME)


class _Store(NamedTuple):
    """The workers' store, as the next process learns of it in an upgrade."""

    location: str
    faults: Sequence[str]


class Start(NamedTuple):
    """How to start a worker: `workers` is how many there are, `memory` as in ParentLink."""

    command: Sequence[str]
    environ: Mapping[str, str]
    workers: int
    memory: int


class Parent:
    """Serves a configuration, which was read from `source`, in several processes."""

    def __init__(self, loaded: Loaded, source: Source, start: Start, around: Surroundings) -> None:
        self._loaded = loaded
        self._start = start
        self._around = around
        self._manager = around.manager
        self.over: Final = asyncio.Event()
        self.reloads: Final = Reloads(time.time)
        self.reloader: Final = _Reloader(source, self, self._manager)
        self.upgrader: Final = Upgrader(self._hand_over)
        self._crew = Crew(start.workers, self._spawn, self._admit, self._gone)
        self._reports = CrewReports(
            self._crew,
            self.reloads,
            lambda: self._ready and bool(self._crew.serving or self._successor_pid),
            lambda: source.name,
        )
        processes = AllWorkers(self._crew, self._reports, self.reloads, lambda: self._loaded)
        self._drawn = DrawnPage(processes, self.reloader, time.time)
        self._page = GateAdminPage(self._drawn, lambda: self.settings.server)
        self._crew.wanted |= answers_of(self._drawn)
        self._source = source
        self._digest = ""
        self._store = ""
        self._addresses: Addresses | None = None
        self._admin: web.BaseRunner | None = None
        #: Held while a worker begins to serve, and while a configuration is put into force.
        self._changing = asyncio.Lock()
        self._ready = self._stopping = False
        self._successor_pid = 0
        self._hurried = False
        self._watchdog: asyncio.Task[None] | None = None

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._loaded.settings

    async def start(self) -> None:
        """Bind, start all workers, and return once they serve. Raises StartError."""
        self._digest = await asyncio.to_thread(digest_of, self._source)
        await self._drawn.start()
        self._admin = admin_server(
            self._reports,
            lambda: self.settings.server,
            reloader=self.reloader,
            upgrader=self.upgrader,
            page=self._page,
        ).runner()
        await self._admin.setup()
        self._addresses = Addresses(Binder(self._around.passed), self._admin)
        await self._addresses.open(self.settings.server)
        self._around.passed.close_rest()
        if not await self._start_workers():
            return
        before = self._around.predecessor
        if problem := before.store_problem(self._store):
            raise StartError(problem, "state.path")
        self._ready = True
        await self._addresses.serve_admin()
        if not before:
            self._manager.ready("serving")
        before.ready()
        self._manager.start_watchdog()
        self._watchdog = asyncio.get_running_loop().create_task(self._watch_workers())
        details = {
            "version": __version__,
            "compiled": is_compiled(),
            "listen": list(self.settings.server.public_addresses),
            "state": self._store,
            "redirect_uri": self.settings.redirect_uri,
            "workers": {slot.number: slot.process.pid for slot in self._crew.slots if slot.process},
        }
        _log.info("the gate is open", extra={"details": details})

    async def _start_workers(self) -> bool:
        """Start the workers; return False if a signal came first. Raises StartError."""
        starting = asyncio.ensure_future(self._crew.start())
        over = asyncio.ensure_future(self.over.wait())
        await asyncio.wait((starting, over), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if starting.done():
            starting.result()
            return True
        self._crew.abandon()
        await asyncio.gather(starting, return_exceptions=True)
        return False

    async def stop(self) -> None:
        """Stop all workers as a single process would; with a successor, probes still get 200."""
        opened, self._ready, self._stopping = self._ready, bool(self._successor_pid), True
        successor = self._around.successor
        if successor is not None and not self._successor_pid:
            successor.abandon()
        limit = self.settings.server.longest_stop
        if opened and not self._successor_pid:
            self._manager.stopping(limit)
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._page.close()
        self._crew.abandon()
        if self._addresses is not None:
            # Workers still have them open, and accept the connections that are queued.
            await self._addresses.close_public()
        if self._hurried:
            self._crew.order("hurry")
        await self._crew.stop(limit + _STOP_SECONDS, succeeded=bool(self._successor_pid))
        await self.reloader.close()
        if self._admin is not None:
            await self._admin.cleanup()
        self._manager.close()
        if opened:
            _log.info("the gate is closed")

    def hurry(self) -> None:
        """Tell the workers not to wait for open requests."""
        self._hurried = True
        self._crew.order("hurry")

    async def put_into_force(self, loaded: Loaded) -> None:
        """Have all workers build a configuration, then put it into force.

        Raises ConfigError, StartError or StoppingError, and then the old one stays in force.
        """
        digest = await asyncio.to_thread(digest_of, self._source)
        if not digest:
            raise ConfigError((MOVING,))
        async with self._changing:
            if self._stopping or self._addresses is None:
                raise StoppingError(self._successor_pid)
            opened = await self._addresses.open(loaded.settings.server)
            try:
                await self._prepare(digest)
            except BaseException:
                self._crew.order("drop")
                await self._addresses.close(opened)
                raise
            await self._commit(self._addresses.public(opened))
            self._loaded, self._digest = loaded, digest
            self._crew.hasten()
            await self._addresses.close_others(loaded.settings.server)

    async def _prepare(self, digest: str) -> None:
        """Have every worker build the configuration. Raises ConfigError and StoppingError."""
        for process, answer in (
            await self._crew.ask("prepare", PREPARE_SECONDS, digest=digest)
        ).items():
            if answer is None:
                found = f"no answer in {PREPARE_SECONDS:g} seconds"
                wanted = "an answer; end a worker that hangs, and another one replaces it"
                raise ConfigError((Problem(f"worker {process.number}", found, wanted),))
            if answer["problems"]:
                raise ConfigError(
                    tuple(Problem.from_json(problem) for problem in answer["problems"])
                )
        if self._stopping:
            raise StoppingError(self._successor_pid)

    async def _commit(self, opened: Sequence[tuple[str, socket.socket]]) -> None:
        """Have every worker put it into force; a worker that does not is killed and replaced."""
        if opened:
            for process in self._crew.serving:
                self._pass(process, "sockets", opened)
        for process, answer in (await self._crew.ask("commit", COMMIT_SECONDS)).items():
            if answer is None:
                details = {"worker": process.number, "pid": process.pid}
                _log.error(
                    "a worker did not put the configuration into force and is killed",
                    extra={"details": details},
                )
                process.kill()

    # Workers that start and end.

    def _spawn(self, number: int) -> Spawned:
        start = self._start
        return Spawned(start.command, start.environ, number, start.workers, start.memory)

    async def _admit(self, process: Spawned) -> None:
        """Let a worker serve if it read the files in force. Raises WorkerGoneError."""
        try:
            await self._admit_one(process)
        except BaseException:
            takes_none(self._start.memory, process.number)
            raise

    async def _admit_one(self, process: Spawned) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                loaded = await process.loaded
                if loaded["version"] != __version__:
                    raise WorkerGoneError(
                        f"version {loaded['version']} is installed, but {__version__} is running: "
                        f"run `{self.reloader.to_type('tailchat-gate upgrade')}`"
                    )
                if loaded["loaded"] != self._digest:
                    await self.reloader.reload("a worker that found other files")
                async with self._changing:
                    await self._let_in(process, str(loaded["loaded"]))
        except TimeoutError:
            raise WorkerGoneError(f"it did not serve within {_START_SECONDS:g} seconds") from None

    async def _let_in(self, process: Spawned, digest: str) -> None:
        if digest != self._digest:
            raise WorkerGoneError(_OTHER_FILES)
        if self._stopping or self._addresses is None:
            raise WorkerGoneError("the gate is stopping")
        self._pass(process, "serve", self._addresses.public())
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                self._store = await process.ready
        except TimeoutError:
            raise WorkerGoneError(
                f"it did not open its store and listeners within {_OPEN_SECONDS:g} seconds"
            ) from None

    def _pass(
        self, process: Spawned, what: str, named: Sequence[tuple[str, socket.socket]]
    ) -> None:
        addresses = [address for address, _ in named]
        process.channel.send({"ask": what, "addresses": addresses}, [sock for _, sock in named])

    def _gone(self, slot: Slot) -> None:
        takes_none(self._start.memory, slot.number)
        self._reports.gone(slot)

    async def _watch_workers(self) -> None:
        """Kill each worker that is stuck, and fetch the counts of the others."""
        limit = min(self._manager.watchdog or STUCK_SECONDS, STUCK_SECONDS)
        while True:
            await self._reports.learn()
            for process, answer in (await self._crew.ask("ping", limit)).items():
                if answer is None:
                    details = {"worker": process.number, "pid": process.pid, "seconds": limit}
                    _log.error("a worker is stuck and is killed", extra={"details": details})
                    process.kill()
            await asyncio.sleep(limit / _LOOKS)

    def refused(self, outcome: ReloadOutcome) -> None:
        """Have one worker report a refused reload to Tailchat."""
        for process in self._crew.serving[:1]:
            process.order(
                "notice",
                text="the configuration was not loaded",
                details={"problems": [problem.place for problem in outcome.problems]},
            )

    async def _hand_over(self) -> UpgradeOutcome:
        """Start another parent, with its own workers, that takes over the sockets."""
        answers = (await self._crew.ask("status", ASK_SECONDS)).values()
        faults = [fault for each in answers if each for fault in each["status"]["state_faults"]]
        async with self._changing:
            successor = self._around.successor
            if self._stopping or self._addresses is None or successor is None:
                return UpgradeOutcome(problem=NO_SUCCESSOR)
            sockets = tuple(self._addresses.sockets())
            outcome = await successor.start(sockets, _Store(self._store, faults))
            if not outcome.problem:
                self._successor_pid, self._stopping = outcome.pid, True
                self._manager.succeeded(outcome.pid)
                self._manager.close()
                await self._addresses.close_all()
                self.over.set()
        return outcome


class _Reloader(Reloader):
    """Also tells a worker about a refusal: the parent's own log reaches no panel of Tailchat."""

    def __init__(self, source: Source, parent: Parent, manager: ServiceManager) -> None:
        super().__init__(source, parent, manager)
        self._parent = parent

    async def _take_turn(self, cause: str) -> ReloadOutcome:
        outcome = await super()._take_turn(cause)
        if outcome.problems:
            self._parent.refused(outcome)
        return outcome
