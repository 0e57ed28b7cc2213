"""Lets a new process take over: it gets the sockets, and serves before this one stops.

The new process writes READY and its version into a pipe, or why it cannot start. Memory is not
passed on, so both processes must use the same store.
"""

import asyncio
import fcntl
import logging
import os
import select
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Final, Protocol

from tailchat_gate import __version__
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.observe.turns import others
from tailchat_gate.serving.systemd import FIRST_DESCRIPTOR, passing

#: How long the new process may take until it serves.
START_SECONDS: Final = 60.0
_VARIABLE: Final = "GATE_PREDECESSOR"
_TURNS: Final = "GATE_LOG_TURNS"
_READY: Final = b"READY "
_MOST: Final = 65_536
_MOST_SHOWN: Final = 2000
_IN_A_CONTAINER: Final = (
    "this is process 1, and its container ends with it: start a new container instead"
)
_IN_MEMORY: Final = (
    "locks, ended sessions and used logins are only in this process's memory, so another process "
    "would not know them: set state.path or state.url, and restart the gate, which loses them"
)
_FAULT: Final = (
    "the state store may lack what this process knows ({}), so another process would not know "
    "it: repair the store, or restart the gate, which loses it"
)
_OTHER_STORE: Final = (
    "[state] names another place than {}, where the running gate keeps locks and ended sessions; "
    "to change it, restart the gate instead of upgrading it"
)
_STOPS: Final = "this gate is stopping"
NO_SUCCESSOR: Final = "this gate does not serve, or it runs inside another program"
_log: Final = logging.getLogger(LOGGER_NAME)


class Predecessor:
    """The process from which this one takes over; false if there is none.

    `descriptor` is the pipe to it; `store` is where its state is; `turns` is the file that both
    lock to write whole log lines.
    """

    def __init__(
        self, descriptor: int | None = None, store: str = "", turns: int | None = None
    ) -> None:
        self._descriptor = descriptor
        self.store: Final = store
        self._turns = turns

    def __bool__(self) -> bool:
        return self._descriptor is not None

    def share_logs(self) -> None:
        """Take turns with it when writing log lines. Raises OSError."""
        turns, self._turns = self._turns, None
        if turns is not None:
            others.share(turns)
            os.close(turns)

    def store_problem(self, location: str) -> str:
        """Return what is wrong if this process stores its state elsewhere, else ""."""
        return _OTHER_STORE.format(self.store) if self and location != self.store else ""

    def ready(self) -> None:
        """Report that this process serves."""
        self._tell(_READY + __version__.encode())

    def failed(self, reason: str) -> None:
        """Report why this process cannot start."""
        self._tell(reason.encode(errors="replace")[:_MOST_SHOWN])

    def _tell(self, data: bytes) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.write(descriptor, data)
            os.close(descriptor)


def predecessor(environ: MutableMapping[str, str]) -> Predecessor:
    """Return the process from which this one takes over; removes it from `environ`."""
    pid, _, rest = environ.pop(_VARIABLE, "").partition(":")
    descriptor, _, store = rest.partition(":")
    if not descriptor.isdecimal() or pid != str(os.getppid()):
        return Predecessor()
    # Versions that did not share logs do not set it.
    turns = environ.pop(_TURNS, "")
    try:
        for passed in (descriptor, turns):
            if passed:
                os.set_inheritable(int(passed), False)  # noqa: FBT003 - os's own signature
    except (OSError, ValueError):
        return Predecessor()
    return Predecessor(int(descriptor), store, int(turns) if turns else None)


@dataclass(frozen=True, slots=True)
class UpgradeOutcome:
    """The ID and version of the process that took over, or the problem if none did.

    `stops`: this process does not go on either, because it is stopping.
    """

    pid: int = 0
    version: str = ""
    problem: str = ""
    stops: bool = False


class StoreFacts(Protocol):
    """What matters about this process's store in an upgrade."""

    @property
    def location(self) -> str:
        """Where the state is stored, "" for memory only."""

    @property
    def faults(self) -> Sequence[str]:
        """Why the store may be incomplete."""


class Successor:
    """Starts `command`, whose first word is a path, as the process that takes over."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        limit: float = START_SECONDS,
    ) -> None:
        self._command = command
        self._environ = environ
        self._limit = limit
        self._process: subprocess.Popen[bytes] | None = None
        #: Held while the process is started or stopped.
        self._lock = Lock()
        self._serves = self._abandoned = False

    async def start(
        self, sockets: Sequence[tuple[str, socket.socket]], store: StoreFacts
    ) -> UpgradeOutcome:
        """Start it with `sockets`, and wait until it serves or has failed.

        Refuses unless `store` has everything that the new process must know.
        """
        if os.getpid() == 1:
            return UpgradeOutcome(problem=_IN_A_CONTAINER)
        if not store.location:
            return UpgradeOutcome(problem=_IN_MEMORY)
        if store.faults:
            return UpgradeOutcome(problem=_FAULT.format(store.faults[0]))
        outcome = await asyncio.to_thread(self._start, sockets, store.location)
        if self._abandoned:
            return UpgradeOutcome(problem=_STOPS, stops=True)
        return outcome

    def abandon(self) -> None:
        """End the process, and do not start another."""
        with self._lock:
            self._abandoned = True
            if self._process is not None and self._serves:
                self._process.terminate()
            elif self._process is not None:
                self._process.kill()

    def _start(self, sockets: Sequence[tuple[str, socket.socket]], store: str) -> UpgradeOutcome:
        least = FIRST_DESCRIPTOR + len(sockets)
        with _pipe(least) as (reader, writer):
            try:
                with _copy(others.begin(), least) as turns:
                    process = self._popen(sockets, store, writer, turns)
            except OSError as error:
                return UpgradeOutcome(problem=f"{self._command[0]}: {error.strerror}")
            finally:
                os.close(writer)
            if process is None:
                return UpgradeOutcome(problem=_STOPS, stops=True)
            report = _read_report(reader, time.monotonic() + self._limit)
        if report is not None and report.startswith(_READY):
            self._serves = True
            return UpgradeOutcome(process.pid, report.removeprefix(_READY).decode(errors="replace"))
        with self._lock:
            self._process = None
        process.kill()
        code = process.wait()
        if report is None:
            return UpgradeOutcome(problem=f"it did not serve within {self._limit:g} seconds")
        reason = report.decode(errors="replace")
        return UpgradeOutcome(problem=reason or f"it ended with {code}; its log says why")

    def _popen(
        self, sockets: Sequence[tuple[str, socket.socket]], store: str, writer: int, turns: int
    ) -> "subprocess.Popen[bytes] | None":
        """Return the new process, None if none is to be started. Raises OSError."""
        started = passing(self._command, sockets, self._environ)
        environ = {**started.environ, _VARIABLE: f"{os.getpid()}:{writer}:{store}"}
        environ[_TURNS] = str(turns)
        # The service manager's watchdog applies to the new process from now on.
        environ.pop("WATCHDOG_PID", None)
        with self._lock:
            if self._abandoned:
                return None
            self._process = subprocess.Popen(  # noqa: S603 - the gate's own command
                started.command, env=environ, pass_fds=(*started.descriptors, writer, turns)
            )
            return self._process


@contextmanager
def _pipe(least: int) -> Iterator[tuple[int, int]]:
    """Yield the reading and the writing end of a pipe; the caller closes the writing end.

    The writing end is at least `least`, because sockets are moved to the descriptors below.
    """
    reader, low = os.pipe()
    writer = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, least)
    os.close(low)
    try:
        yield reader, writer
    finally:
        os.close(reader)


@contextmanager
def _copy(descriptor: int, least: int) -> Iterator[int]:
    """Yield a copy of a descriptor that is at least `least`, as in `_pipe`."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)
    try:
        yield copy
    finally:
        os.close(copy)


def _read_report(reader: int, until: float) -> bytes | None:
    """Return the bytes written to a pipe, None if the writer did not finish in time."""
    report = b""
    while (left := until - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            continue
        data = os.read(reader, _MOST)
        report += data
        if not data or report.startswith(_READY):
            return report
    return None


class Upgrader:
    """Carries out orders to let another process take over, one at a time, and logs the outcome.

    Once a process has taken over, every other order returns the same outcome.
    """

    def __init__(self, hand_over: Callable[[], Awaitable[UpgradeOutcome]]) -> None:
        self._hand_over = hand_over
        self._turn = asyncio.Lock()
        self._done: UpgradeOutcome | None = None
        self._tasks: set[asyncio.Task[UpgradeOutcome]] = set()

    def ask(self, cause: str) -> asyncio.Task[UpgradeOutcome]:
        """Start the takeover in a task; the log names `cause`."""
        task = asyncio.get_running_loop().create_task(self._take_turn(cause))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _take_turn(self, cause: str) -> UpgradeOutcome:
        async with self._turn:
            if self._done is not None:
                return self._done
            outcome = await self._hand_over()
            if not outcome.problem:
                self._done = outcome
        if outcome.problem:
            after = "as this one stops" if outcome.stops else "this one continues to serve"
            _log.error(
                f"no other process took over; {after}",
                extra={"details": {"cause": cause, "problem": outcome.problem}},
            )
        else:
            details = {"cause": cause, "pid": outcome.pid, "version": outcome.version}
            _log.info("another process serves from now on", extra={"details": details})
        return outcome
