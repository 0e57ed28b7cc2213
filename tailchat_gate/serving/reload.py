"""Reloads the configuration while the gate serves: completely, or not at all."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Protocol

from tailchat_gate.config.files import FileError, KeyFileError
from tailchat_gate.config.load import (
    ConfigError,
    FileStates,
    Loaded,
    Source,
    excerpts_of,
    file_states,
)
from tailchat_gate.config.model import Settings, changes, restart_problems
from tailchat_gate.config.problems import Problem
from tailchat_gate.config.suggested import completed
from tailchat_gate.observe.log import LOGGER_NAME, set_level
from tailchat_gate.serving.listening.listeners import StartError
from tailchat_gate.serving.reload_outcome import Reloads
from tailchat_gate.serving.systemd import ServiceManager

#: Seconds between two checks of the files. A changed file is loaded once it has not changed for
#: this long, so the gate does not read a file that an editor has only partly written.
POLL_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 2.0

_log = logging.getLogger(LOGGER_NAME)


class StoppingError(RuntimeError):
    """The gate is stopping and accepts no new configuration.

    `successor` is the ID of the process that has taken over, 0 if none has.
    """

    def __init__(self, successor: int = 0) -> None:
        found, wanted = "is stopping", "a gate that serves"
        if successor:
            found, wanted = f"replaced by process {successor}", "a reload of that process"
        super().__init__(found)
        self.problem: Final = Problem("the gate", found, wanted)


class Serving(Protocol):
    """Serves a configuration and can replace it by another one."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    @property
    def reloads(self) -> Reloads:
        """Which configuration is in force, and how the last reload ended."""

    async def put_into_force(self, loaded: Loaded) -> None:
        """Build a configuration and put it into force. If it raises, nothing has changed."""


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """The outcome of a reload: refused for its `problems`, or in force if there are none.

    `generation` is the number of the configuration in force; `since`, in Unix seconds, is when its
    content came into force. `changes` name what differs from the one before; `warnings` are
    sentences about settings that are probably mistakes.
    """

    generation: int
    since: int
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


class Reloader:
    """Reads, builds and puts configurations into force, one at a time; blocking work in threads."""

    def __init__(
        self, source: Source, serving: Serving, manager: ServiceManager | None = None
    ) -> None:
        self.source: Final = source
        self._manager = manager or ServiceManager()
        self._serving = serving
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[ReloadOutcome] | None = None
        self._tasks: set[asyncio.Task[ReloadOutcome]] = set()

    async def reload(self, cause: str) -> ReloadOutcome:
        """Reload the configuration and return the outcome; the log names `cause`.

        Calls that arrive while a reload is under way share the next one and its outcome, which
        reads the file after all of them.
        """
        return await asyncio.shield(self.ask(cause))

    def ask(self, cause: str) -> asyncio.Task[ReloadOutcome]:
        """Start a reload without waiting for it."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_task(self._take_turn(cause))
            self._tasks.add(self._waiting)
            self._waiting.add_done_callback(self._tasks.discard)
        return self._waiting

    async def watch(self, seconds: float = POLL_SECONDS) -> None:
        """Reload after each change of a file, once the file is stable; runs until cancelled."""
        last: FileStates = {}
        while True:
            await asyncio.sleep(seconds)
            try:
                last = await self._look(last)
            except Exception:  # noqa: BLE001 - such as no free thread; the next check may succeed
                _log.exception("the files of the configuration could not be checked for changes")

    async def _look(self, last: FileStates) -> FileStates:
        """Check the files once; reload if they changed and are stable since the last check."""
        loaded = self.source.states
        if not self._serving.settings.server.watch:
            return {}
        states = await asyncio.to_thread(file_states, loaded)
        if states == last and states != loaded and loaded is self.source.states:
            await self.reload("a changed file")
        return states

    async def close(self) -> None:
        """Wait for a reload under way, whose result a stopping gate does not put into force.

        Waits at most CLOSE_SECONDS, because a disk can hang.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    def to_type(self, text: str) -> str:
        """Return a text for the log with its commands as they work for this file."""
        return completed(text, self.source.path.absolute())

    async def _take_turn(self, cause: str) -> ReloadOutcome:
        async with self._turn:
            self._manager.reloading()
            # Calls from now on get the next reload: the file may change after this one has read it.
            self._waiting = None
            old, states = self._serving.settings, self.source.states
            reloads = self._serving.reloads
            try:
                loaded = await self._load(old)
            except Exception as error:  # noqa: BLE001 - after any error the old one stays in force
                problems = problems_of(error)
                reloads.refused(problems)
                details = {
                    "cause": cause,
                    "problems": [self.to_type(str(each)) for each in problems],
                }
                _log.error("the configuration was not loaded", extra={"details": details})
                self._manager.ready("serving; the configuration in the file was refused")
                return ReloadOutcome(reloads.generation, int(reloads.changed_at), problems=problems)
            if loaded.settings.log.level != old.log.level:
                set_level(loaded.settings.log.level)
            changed = (*changes(old, loaded.settings), *self._files_changed(states))
            reloads.took(changed=bool(changed))
            news = {"cause": cause, "generation": reloads.generation, "changes": changed}
            _log.info("the configuration was reloaded", extra={"details": news})
            self._manager.ready("serving")
            for warning in loaded.located:
                _log.warning(self.to_type(str(warning)))
            since = int(reloads.changed_at)
            return ReloadOutcome(reloads.generation, since, changed, loaded.warnings)

    async def _load(self, old: Settings) -> Loaded:
        """Read, check, build and put into force."""
        loaded = await asyncio.to_thread(self.source.read)
        problems = restart_problems(old, loaded.settings)
        if problems:
            raise ConfigError(await asyncio.to_thread(self._located, loaded, problems))
        await self._serving.put_into_force(loaded)
        return loaded

    def _located(self, loaded: Loaded, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        return excerpts_of(self.source.path, loaded).of_valid(problems)

    def _files_changed(self, before: FileStates) -> tuple[str, ...]:
        """Return the names of configured files whose content has changed."""
        return tuple(
            f"file {path}"
            for path, state in self.source.states.items()
            if path != self.source.path and path in before and before[path] != state
        )


def problems_of(error: Exception) -> tuple[Problem, ...]:
    """Return why a reload was refused, for the operator; logs an unexpected error."""
    match error:
        case ConfigError():
            return error.problems
        case KeyFileError():
            return (Problem("assertion.key_files", error.found, "a file with a key that signs"),)
        case FileError():
            return (Problem(error.key, error.found, error.expected),)
        case StartError():
            wanted = "an address that is free; one that overlaps with an open one needs a restart"
            return (Problem(error.key, str(error), wanted),)
        case StoppingError():
            return (error.problem,)
    _log.error("a configuration could not be built", exc_info=error)
    found = f"a fault inside the gate: {type(error).__name__}"
    return (Problem("the configuration", found, "one that can be built; see the gate's log"),)
