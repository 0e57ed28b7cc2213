"""Loads the configuration anew while the gate serves; it comes into force whole or not at all."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Protocol

from tailchat_gate.config.diff import beyond_reload, changes
from tailchat_gate.config.files import KeyFileError, PemError
from tailchat_gate.config.load import ConfigError, Loaded
from tailchat_gate.config.problems import Problem
from tailchat_gate.config.source import FileStates, Source, file_states
from tailchat_gate.observe.log import LOGGER_NAME, set_level
from tailchat_gate.serving.generations import Generation
from tailchat_gate.serving.listeners import StartError
from tailchat_gate.serving.wiring import build

#: How often files are looked at. A change is loaded once a file was left alone for that long, so
#: that nothing is read that an editor or a copy has written in part.
POLL_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 2.0

_log = logging.getLogger(LOGGER_NAME)


class StoppingError(RuntimeError):
    """The gate takes no other configuration any more, because it stops."""


class Serving(Protocol):
    """What serves a configuration, and can serve another one in its place."""

    @property
    def in_force(self) -> Generation:
        """The configuration that answers new requests."""

    async def swap(self, generation: Generation) -> None:
        """Let another one answer them. Raises StartError or StoppingError; nothing changed then."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt went: refused for its `problems`, or in force where there are none.

    `generation` is the number of the one in force, and since `since`, in Unix seconds, the gate
    serves with what it says. `changes` name what differs from the one before, `warnings` are
    sentences on what may not be meant.
    """

    generation: int
    since: int
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


class Reloader:
    """Reads, builds and swaps, one at a time, in threads as far as it blocks."""

    def __init__(self, source: Source, serving: Serving) -> None:
        self.source: Final = source
        self._serving = serving
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[Outcome] | None = None
        self._tasks: set[asyncio.Task[Outcome]] = set()

    async def reload(self, cause: str) -> Outcome:
        """Load the configuration anew; `cause` is told in the log.

        Whoever asks while others wait for their turn gets the same outcome as they: all of them
        want what the file says when the turn comes.
        """
        return await asyncio.shield(self.ask(cause))

    def ask(self, cause: str) -> asyncio.Task[Outcome]:
        """Begin to load it, and wait for nothing."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_task(self._take_turn(cause))
            self._tasks.add(self._waiting)
            self._waiting.add_done_callback(self._tasks.discard)
        return self._waiting

    async def watch(self, seconds: float = POLL_SECONDS) -> None:
        """Load it whenever a file has changed and been left alone since; runs until cancelled."""
        last: FileStates = {}
        while True:
            await asyncio.sleep(seconds)
            try:
                last = await self._look(last)
            except Exception:  # noqa: BLE001 - such as no thread to be had; the next look may be luckier
                _log.exception("the files of the configuration could not be looked at")

    async def _look(self, last: FileStates) -> FileStates:
        """Look at the files once, and load them where they differ and are as at the last look."""
        loaded = self.source.states
        if not self._serving.in_force.settings.server.watch:
            return {}
        found = await asyncio.to_thread(file_states, loaded)
        if found == last and found != loaded and loaded is self.source.states:
            await self.reload("a changed file")
        return found

    async def close(self) -> None:
        """Wait for what is being loaded, which does not come into force where the gate stops.

        A disk that hangs is not waited for longer than CLOSE_SECONDS.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    async def _take_turn(self, cause: str) -> Outcome:
        async with self._turn:
            # Whoever asks from now on may have changed the file since it was read.
            self._waiting = None
            old, states = self._serving.in_force, self.source.states
            reloads, clock = old.process_state.reloads, old.process_state.clock
            try:
                loaded = await self._load(old)
            except Exception as error:  # noqa: BLE001 - whatever it is, the old one stays in force
                problems = _problems(error)
                reloads.refused(clock(), problems)
                details = {"cause": cause, "problems": [_told(problem) for problem in problems]}
                _log.error("the configuration was not loaded", extra={"details": details})
                return Outcome(reloads.generation, int(reloads.changed_at), problems=problems)
            if loaded.settings.log.level != old.settings.log.level:
                set_level(loaded.settings.log.level)
            changed = (*changes(old.settings, loaded.settings), *self._files_changed(states))
            reloads.took(clock(), changed=bool(changed))
            told = {"cause": cause, "generation": reloads.generation, "changes": changed}
            _log.info("the configuration was loaded anew", extra={"details": told})
            for warning in loaded.warnings:
                _log.warning(warning)
            since = int(reloads.changed_at)
            return Outcome(reloads.generation, since, changed, loaded.warnings)

    async def _load(self, old: Generation) -> Loaded:
        """Read, check, build and swap."""
        loaded = await asyncio.to_thread(self.source.read)
        problems = beyond_reload(old.settings, loaded.settings)
        if problems:
            raise ConfigError(problems)
        await self._serving.swap(await asyncio.to_thread(build, loaded.settings, old.process_state))
        return loaded

    def _files_changed(self, before: FileStates) -> tuple[str, ...]:
        """Name the files that settings name and that hold something else than before."""
        return tuple(
            f"file {path}"
            for path, state in self.source.states.items()
            if path != self.source.path and path in before and before[path] != state
        )


def _problems(error: Exception) -> tuple[Problem, ...]:
    """Return why an attempt was refused, for the admin."""
    match error:
        case ConfigError():
            return error.problems
        case KeyFileError():
            return (Problem("assertion.key_files", error.found, "a file with a key that signs"),)
        case PemError():
            return (Problem(error.key, error.found, error.expected),)
        case StartError():
            wanted = "an address that is free; one that overlaps with an open one needs a restart"
            return (Problem(error.key, str(error), wanted),)
        case StoppingError():
            return (Problem("the gate", "on its way to stop", "a gate that serves"),)
    _log.error("a configuration could not be built", exc_info=error)
    found = f"a fault inside the gate: {type(error).__name__}"
    return (Problem("the configuration", found, "one that can be built; the log tells more"),)


def _told(problem: Problem) -> str:
    return f"{problem.key_path}: found {problem.found}; expected {problem.expected}"
