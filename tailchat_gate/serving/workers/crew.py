"""The set of workers: starts them, replaces each that ends, and queries all of them at once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.serving.listening.listeners import StartError
from tailchat_gate.serving.workers.channel import FIND_SECONDS, Message
from tailchat_gate.serving.workers.spawned import Spawned, WorkerGoneError, WorkerSilentError

#: A worker that served this long is replaced at once. Each one in a row that ended sooner doubles
#: the pause before the next start.
STEADY_SECONDS: Final = 60.0
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 15.0

_log: Final = logging.getLogger(LOGGER_NAME)

#: Starts the worker with this number. Raises OSError.
Spawn = Callable[[int], Spawned]
#: Answers a worker's question.
Wanted = Callable[[Message], Awaitable[object]]
#: Lets a worker begin to serve. Raises WorkerGoneError if it cannot.
Admit = Callable[[Spawned], Awaitable[None]]


class Slot:
    """The place of one worker: the process that serves in it, None while there is none."""

    def __init__(self, number: int) -> None:
        self.number: Final = number
        self.serving: Spawned | None = None
        #: The last process started here, whether it serves or not.
        self.process: Spawned | None = None
        #: How many processes replaced one that had ended.
        self.restarts = 0
        #: Why the last process ended, "" while none has.
        self.problem = ""


class Crew:
    """The workers of a gate; `gone` is called with the slot of each that served and ended."""

    def __init__(
        self, count: int, spawn: Spawn, admit: Admit, gone: Callable[[Slot], None]
    ) -> None:
        self.slots: Final = tuple(Slot(number) for number in range(1, count + 1))
        self._spawn = spawn
        self._admit = admit
        self._gone = gone
        self._is_stopping = False
        #: Set to cut short the pauses before starts.
        self._hasten = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._finding: set[asyncio.Task[None]] = set()
        #: The handlers of workers' questions, by kind.
        self.wanted: dict[str, Wanted] = {"target": self._target}

    @property
    def serving(self) -> Sequence[Spawned]:
        """The workers that serve now."""
        return [slot.serving for slot in self.slots if slot.serving is not None]

    async def start(self) -> None:
        """Start all workers, and return once they serve. Raises StartError if one cannot."""
        started = await asyncio.gather(
            *(self._start_one(slot) for slot in self.slots), return_exceptions=True
        )
        for slot, problem in zip(self.slots, started, strict=True):
            if problem is not None:
                raise StartError(f"worker {slot.number} cannot serve: {problem}", "server.workers")
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(slot)) for slot in self.slots]

    async def _start_one(self, slot: Slot) -> None:
        """Start a worker and let it serve. Raises OSError and WorkerGoneError."""
        process = slot.process = self._spawn(slot.number)
        process.wants = partial(self._find, process)
        try:
            await self._admit(process)
        except BaseException as error:
            if not process.left.is_set():
                process.kill()
            process.channel.close()
            how = await process.ended()
            if isinstance(error, WorkerGoneError) and not error.args:
                raise WorkerGoneError(how) from None
            raise
        slot.serving = process

    async def _keep(self, slot: Slot) -> None:
        """Replace the slot's worker each time it ends, until the gate stops."""
        failures = 0
        while True:
            since = time.monotonic()
            await self._ended(slot)
            if self._is_stopping:
                return
            if time.monotonic() - since >= STEADY_SECONDS:
                failures = 0
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1)) if failures else 0.0
            failures += 1
            self._log_end(slot, pause)
            self._hasten.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hasten.wait()
            if self._is_stopping:
                return
            await self._replace(slot)

    async def _ended(self, slot: Slot) -> None:
        """Wait until no worker serves in the slot."""
        process = slot.serving
        if process is None:
            return
        await process.left.wait()
        try:
            self._gone(slot)
        except Exception:  # noqa: BLE001 - a worker must be started even without these counts
            _log.exception("the counts of a worker that has ended are lost")
        slot.serving = None
        slot.problem = await process.ended()

    async def _replace(self, slot: Slot) -> None:
        slot.restarts += 1
        try:
            await self._start_one(slot)
        except (OSError, WorkerGoneError) as error:
            slot.problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next start may succeed
            _log.exception("a worker could not be started")
            slot.problem = type(error).__name__
        else:
            slot.problem = ""
            details = {"worker": slot.number, "pid": slot.process.pid if slot.process else 0}
            _log.info("a worker serves in place of one that ended", extra={"details": details})

    def _log_end(self, slot: Slot, pause: float) -> None:
        details = {
            "worker": slot.number,
            "pid": slot.process.pid if slot.process else 0,
            "problem": slot.problem,
            "restart_in": pause,
            "restarts": slot.restarts,
        }
        _log.error("a worker has ended; another one takes its place", extra={"details": details})

    async def ask(
        self, what: str, within: float, **given: object
    ) -> dict[Spawned, Mapping[str, Any] | None]:
        """Put the question `what` to all serving workers at once.

        Returns each one's answer, None for a worker that did not answer within so many seconds.
        """

        async def answer(process: Spawned) -> Mapping[str, Any] | None:
            try:
                return await process.ask(what, within, **given)
            except WorkerSilentError:
                return None

        processes = self.serving
        answers = await asyncio.gather(*map(answer, processes), return_exceptions=True)
        return {
            process: each
            for process, each in zip(processes, answers, strict=True)
            if not isinstance(each, BaseException)
        }

    def _find(self, process: Spawned, wanted: Message) -> None:
        """Answer a worker's question in a task."""
        finding = asyncio.get_running_loop().create_task(self._answer(process, wanted))
        self._finding.add(finding)
        finding.add_done_callback(self._finding.discard)

    async def _answer(self, process: Spawned, wanted: Message) -> None:
        try:
            answer = await self.wanted[wanted["kind"]](wanted)
        except Exception:  # noqa: BLE001 - logged; the worker gets an empty answer
            _log.exception("a worker's question could not be answered")
            answer = None
        process.channel.send({"got": wanted["want"], "found": answer})

    async def _target(self, wanted: Message) -> object:
        """Ask all workers for the return target that one of them looks for."""
        name, origin = str(wanted["name"]), str(wanted["origin"])
        answers = await self.ask("target", FIND_SECONDS, name=name, origin=origin)
        targets = [answer["target"] for answer in answers.values() if answer and answer["target"]]
        return targets[0] if targets else None

    def order(self, what: str, **given: object) -> None:
        """Send an order, which needs no answer, to all serving workers."""
        for process in self.serving:
            process.order(what, **given)

    def hasten(self) -> None:
        """Cut short the pauses before starts: what made workers end may be mended."""
        self._hasten.set()

    def abandon(self) -> None:
        """Start no more workers, and kill those that do not serve yet."""
        self._is_stopping = True
        self._hasten.set()
        for process in self._starting():
            process.kill()

    async def stop(self, within: float, *, succeeded: bool) -> None:
        """Tell all workers to stop, and kill those that run for more than `within` seconds.

        `succeeded`: another gate already serves on the same sockets.
        """
        self.abandon()
        self.order("stop", succeeded=succeeded)
        serving = self.serving
        if serving:
            ends = [asyncio.ensure_future(process.left.wait()) for process in serving]
            await asyncio.wait(ends, timeout=within)
            for process, end in zip(serving, ends, strict=True):
                if not end.done():
                    end.cancel()
                    details = {"worker": process.number, "pid": process.pid}
                    _log.error("a worker did not stop and is killed", extra={"details": details})
                    process.kill()
        await self._settle()
        for slot in self.slots:
            if slot.process is not None:
                await slot.process.ended()
                slot.process.channel.close()

    def _starting(self) -> Iterator[Spawned]:
        for slot in self.slots:
            if slot.process is not None and slot.serving is None:
                yield slot.process

    async def _settle(self) -> None:
        tasks = (*self._tasks, *self._finding)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
