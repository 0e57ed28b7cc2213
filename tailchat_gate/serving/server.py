"""The server of one process: opens the gate, puts configurations into force, and closes it."""

import asyncio
import logging
from asyncio import FIRST_COMPLETED
from contextlib import suppress
from typing import Final

from aiohttp import web

from tailchat_gate import __version__, is_compiled
from tailchat_gate.config.load import Loaded, Source
from tailchat_gate.config.model import Settings
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.client.server import ClientServer
from tailchat_gate.serving.admin.listener import admin_server
from tailchat_gate.serving.admin.report import ProcessReport
from tailchat_gate.serving.dashboard.drawn import DrawnPage
from tailchat_gate.serving.dashboard.page import GateAdminPage
from tailchat_gate.serving.dashboard.page_request import PageRenderer
from tailchat_gate.serving.dashboard.processes import SingleProcess
from tailchat_gate.serving.generations import Generation, Generations
from tailchat_gate.serving.listening.listeners import Binder, Listeners, StartError
from tailchat_gate.serving.listening.openings import Openings, OpeningTerms
from tailchat_gate.serving.listening.tls import clients_of, memory_limit, tls_connections
from tailchat_gate.serving.reload import Reloader, StoppingError
from tailchat_gate.serving.reload_outcome import Reloads
from tailchat_gate.serving.surroundings import Surroundings, no_surroundings
from tailchat_gate.serving.upgrade import NO_SUCCESSOR, UpgradeOutcome, Upgrader
from tailchat_gate.serving.wiring.build import build
from tailchat_gate.state.places import unusable
from tailchat_gate.state.store import StoreError

__all__ = ["GateServer", "StartError"]

#: The ID of a successor that a worker does not know.
_ANOTHER: Final = -1
_log: Final = logging.getLogger(LOGGER_NAME)


class GateServer:
    """Serves a configuration, and its successors after reloads, on its listeners.

    Reloads read `source`; without it there are no reloads. `checks_sign_in`: whether each
    configuration checks by itself that people can sign in.
    """

    def __init__(
        self,
        generation: Generation,
        source: Source | None = None,
        *,
        checks_sign_in: bool = False,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.generations: Final = Generations(generation)
        around = surroundings or no_surroundings()
        self._manager, self._passed = around.manager, around.passed
        self._predecessor = around.predecessor
        self.reloader: Final = Reloader(source, self, self._manager) if source is not None else None
        self.upgrader: Final = Upgrader(self._hand_over)
        self._successor = around.successor
        self._balance = around.balance
        self._is_worker = around.balance is not None
        #: Set when the process is to stop.
        self.over: Final = asyncio.Event()
        #: The ID of the process that has taken over, 0 if none has.
        self._successor_pid = 0
        self._process_state = generation.process_state
        self._checks_sign_in = checks_sign_in
        self._server: ClientServer | None = None
        self._listeners: Listeners | None = None
        self._openings: Openings | None = None
        self._admin: web.BaseRunner | None = None
        self._page: GateAdminPage | None = None
        #: This process, as the admin page shows and controls it.
        self.this_process: Final = SingleProcess(
            self.generations, lambda: tuple(self._server.connections) if self._server else ()
        )
        #: Held while listeners are opened or closed.
        self._changing = asyncio.Lock()
        self._opened = asyncio.Event()
        self._tls_connections = 1
        self._ready = self._stopping = False
        self._hurry = asyncio.Event()
        self.report: Final = ProcessReport(
            self.generations,
            lambda: self._ready,
            lambda: self.reloader.source.name if self.reloader else None,
        )

    @property
    def in_force(self) -> Generation:
        """The configuration that answers new requests."""
        return self.generations.in_force

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.in_force.settings

    @property
    def reloads(self) -> Reloads:
        """Which configuration is in force, and how the last reload ended."""
        return self._process_state.reloads

    @property
    def location(self) -> str:
        """Where state is stored, "" for memory only."""
        return self._process_state.store.location

    async def start(self) -> None:
        """Open the store and the listeners, and begin to serve. Raises StartError."""
        settings = self.in_force.settings
        is_uvloop = not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
        memory = await asyncio.to_thread(memory_limit)
        workers = self._balance.workers if self._balance is not None else 1
        self._tls_connections = tls_connections(memory // workers, uvloop=is_uvloop)
        await self._open_store()
        self.in_force.start()
        self._server = ClientServer(
            self.in_force.service, self._process_state.live, self._process_state.descriptors
        )
        self._server.trust.change(clients_of(self.in_force.tls), settings.server.shutdown_timeout)
        self._process_state.locks.start(self._server.sessions_changed)
        self._process_state.grants.start(self._server.rights_changed)
        self._process_state.tailchat.group_watch.start(self._server.rights_changed)
        await self._process_state.tailchat.group_watch.published()
        self._process_state.store.start()
        if not self._is_worker:
            drawn = DrawnPage(self.this_process, self.reloader, self._process_state.clock)
            await drawn.start()
            self._admin = admin_server(
                self.report,
                lambda: self.in_force.settings.server,
                reloader=self.reloader,
                upgrader=self.upgrader,
                page=self.show_page(drawn),
            ).runner()
            await self._admin.setup()
        await self._listen(self._server)
        self._passed.close_rest()
        self._ready = True
        if not self._predecessor:
            self._manager.ready("serving")
        self._predecessor.ready()
        self._manager.start_watchdog()
        self._opened.set()
        if self._checks_sign_in:
            self.in_force.check_tailchat()
        # Of several workers, their parent says so once.
        _log.log(
            logging.DEBUG if self._is_worker else logging.INFO,
            "the gate is open",
            extra={
                "details": {
                    "version": __version__,
                    "compiled": is_compiled(),
                    "listen": list(settings.server.public_addresses),
                    "state": self._process_state.store.location,
                    "redirect_uri": settings.redirect_uri,
                }
            },
        )

    def show_page(self, renderer: PageRenderer) -> GateAdminPage:
        """Serve the admin page on routes with this renderer, and return the page."""
        page = GateAdminPage(renderer, lambda: self.settings.server)
        self._process_state.admin_page = self._page = page
        return page

    async def _listen(self, server: ClientServer) -> None:
        """Open the listeners. Raises StartError."""
        terms = _terms(self.in_force, self._tls_connections)
        openings = Openings(server, self._process_state.certificates.openings, terms)
        if self._balance is not None:
            server.tell = self._balance.tell
        binder = Binder(self._passed)
        self._openings = openings
        self._listeners = Listeners(server, openings, self._admin, binder, self._balance)
        await self._listeners.open(self.in_force.settings.server)

    async def put_into_force(self, loaded: Loaded) -> None:
        """Build a configuration and put it into force, or raise with nothing changed."""
        settings, state = loaded.settings, self._process_state
        await self.swap(await asyncio.to_thread(build, settings, state, loaded.sources))

    async def swap(self, generation: Generation) -> None:
        """Put another configuration into force for all requests that are read from now on.

        Open requests keep the old one. Raises StartError for an address that cannot be used and
        StoppingError once the gate is stopping; then nothing has changed.
        """
        await self._opened.wait()
        async with self._changing:
            server, listeners, openings = self._server, self._listeners, self._openings
            if self._stopping or server is None or listeners is None or openings is None:
                raise StoppingError(self._successor_pid)
            settings = generation.settings.server
            terms = _terms(generation, self._tls_connections)
            openings.prepare(terms)
            await listeners.open(settings)
            # No await up to the end of the change: no request must see half of it.
            generation.start()
            openings.use(terms)
            server.change(generation.service)
            server.trust.change(clients_of(generation.tls), settings.shutdown_timeout)
            self.generations.follow(generation, server.connections)
            if self._checks_sign_in:
                generation.check_tailchat()
            await listeners.close_others(settings)

    async def stop(self) -> None:
        """Stop listening, let open requests finish within the limit, close WebSockets with 1001.

        For `drain_delay` before that, the gate still serves but announces its end: to readiness
        probes, and to clients with each response.
        """
        opened = self._opened.is_set()
        self._ready = False
        self._stopping = True
        self._opened.set()
        if self._successor is not None and not self._successor_pid:
            self._successor.abandon()
        if self._page is not None:
            self._page.close()
        if self._server is not None:
            self._server.leave()
        if self._balance is not None:
            self._balance.leave()
        if opened and not self._successor_pid:
            self._manager.stopping(self.in_force.settings.server.longest_stop)
            await self._pause(self.in_force.settings.server.drain_delay)
        async with self._changing:
            await self._close_listeners()
        if self._server is not None:
            self._process_state.upstream_pools.end_tunnels()
            await self._drain(self._server, self.in_force.settings.server.shutdown_timeout)
            self._server.close()
        if self.reloader is not None:
            await self.reloader.close()
        if self._admin is not None:
            await self._admin.cleanup()
        await self._process_state.tailchat.group_watch.close()
        await self.generations.close()
        await self._process_state.close()
        self._manager.close()
        if opened and not self._is_worker:
            _log.info("the gate is closed")

    async def _close_listeners(self) -> None:
        if self._listeners is not None:
            await self._listeners.close()
        if self._openings is not None:
            await self._openings.close()

    async def _hand_over(self) -> UpgradeOutcome:
        """Let another process take over the listeners, and then stop; on failure nothing changes.

        A reload waits meanwhile, since it may change listeners, and is refused after the takeover.
        """
        async with self._changing:
            if self._stopping or self._listeners is None or self._successor is None:
                return UpgradeOutcome(problem=NO_SUCCESSOR)
            sockets = tuple(self._listeners.sockets())
            outcome = await self._successor.start(sockets, self._process_state.store)
            if not outcome.problem:
                self._successor_pid, self._stopping = outcome.pid, True
                self._manager.succeeded(outcome.pid)
                self._manager.close()
                await self._listeners.close_all()
                self.over.set()
        return outcome

    def stop_soon(self, *, succeeded: bool) -> None:
        """Order the stop; `succeeded`: another process already serves on the same sockets."""
        if succeeded:
            self._successor_pid = self._successor_pid or _ANOTHER
        self.over.set()

    def hurry(self) -> None:
        """Stop waiting for open requests."""
        self._hurry.set()

    async def _pause(self, seconds: float) -> None:
        """Wait, unless `hurry` was called."""
        if seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._hurry.wait()

    async def _drain(self, server: ClientServer, limit: float) -> None:
        """Wait until every connection is closed, for at most `limit` seconds."""
        closed = server.empty()
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((closed, hurried), timeout=limit, return_when=FIRST_COMPLETED)
        hurried.cancel()

    async def _open_store(self) -> None:
        """Read the stored locks before the first request. Raises StartError."""
        if problem := self._predecessor.store_problem(self._process_state.store.location):
            raise StartError(problem, "state.path")
        try:
            await self._process_state.store.open()
        except StoreError as error:
            key, problem = unusable(self.settings.state, error)
            raise StartError(problem, f"state.{key}") from None


def _terms(generation: Generation, default: int) -> OpeningTerms:
    """Return the settings for connections that are being opened.

    `default` is the limit of TLS connections if the configuration sets none.
    """
    limits, server = generation.settings.limits, generation.settings.server
    most = limits.tls_connections or default
    return OpeningTerms(generation.tls, limits.handshakes, server.handshake_timeout, most)
