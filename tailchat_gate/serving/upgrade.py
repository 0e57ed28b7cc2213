"""Another process of the program takes over: it gets the sockets, and serves before this one stops.

The two speak over a pipe: the new process writes READY and its version, or why it cannot start.
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
from typing import Final

from tailchat_gate import __version__
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.serving.inherited import FIRST_DESCRIPTOR
from tailchat_gate.serving.passing import passing

#: How long the new process may take until it serves.
START_SECONDS: Final = 60.0
_VARIABLE: Final = "GATE_PREDECESSOR"
_READY: Final = b"READY "
_MOST: Final = 65_536
_MOST_SHOWN: Final = 2000
_IN_A_CONTAINER: Final = (
    "this is process 1, whose end is the end of its container: start a new container instead"
)
_log: Final = logging.getLogger(LOGGER_NAME)


class Predecessor:
    """The process that this one takes over from; `descriptor` is the pipe to it, None for none."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    def __bool__(self) -> bool:
        return self._descriptor is not None

    def ready(self) -> None:
        """This process serves."""
        self._tell(_READY + __version__.encode())

    def failed(self, reason: str) -> None:
        """This process cannot start."""
        self._tell(reason.encode(errors="replace")[:_MOST_SHOWN])

    def _tell(self, data: bytes) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.write(descriptor, data)
            os.close(descriptor)


def predecessor(environ: MutableMapping[str, str]) -> Predecessor:
    """Return the process that started this one to take over, and take it out of `environ`."""
    given = environ.pop(_VARIABLE, "")
    pid, _, descriptor = given.partition(":")
    if not descriptor.isdecimal() or pid != str(os.getppid()):
        return Predecessor()
    try:
        os.set_inheritable(int(descriptor), False)  # noqa: FBT003 - os's own signature
    except OSError:
        return Predecessor()
    return Predecessor(int(descriptor))


@dataclass(frozen=True, slots=True)
class UpgradeOutcome:
    """The process that serves now and its version, or why this one still does."""

    pid: int = 0
    version: str = ""
    problem: str = ""


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

    async def start(self, sockets: Sequence[tuple[str, socket.socket]]) -> UpgradeOutcome:
        """Start it with `sockets`, and wait until it serves or has failed."""
        if os.getpid() == 1:
            return UpgradeOutcome(problem=_IN_A_CONTAINER)
        return await asyncio.to_thread(self._start, sockets)

    def abandon(self) -> None:
        """Kill a process that does not serve yet."""
        if self._process is not None:
            self._process.kill()

    def _start(self, sockets: Sequence[tuple[str, socket.socket]]) -> UpgradeOutcome:
        with _pipe(FIRST_DESCRIPTOR + len(sockets)) as (reader, writer):
            try:
                self._process = process = self._popen(sockets, writer)
            except OSError as error:
                return UpgradeOutcome(problem=f"{self._command[0]}: {error.strerror}")
            finally:
                os.close(writer)
            told = _told(reader, time.monotonic() + self._limit)
        self._process = None
        if told is not None and told.startswith(_READY):
            return UpgradeOutcome(process.pid, told.removeprefix(_READY).decode(errors="replace"))
        process.kill()
        code = process.wait()
        if told is None:
            return UpgradeOutcome(problem=f"it did not serve within {self._limit:g} seconds")
        reason = told.decode(errors="replace")
        return UpgradeOutcome(problem=reason or f"it ended with {code}; its log says why")

    def _popen(
        self, sockets: Sequence[tuple[str, socket.socket]], writer: int
    ) -> "subprocess.Popen[bytes]":
        started = passing(self._command, sockets, self._environ)
        environ = {**started.environ, _VARIABLE: f"{os.getpid()}:{writer}"}
        # The manager's limit for its loop is for whichever process is the service.
        environ.pop("WATCHDOG_PID", None)
        return subprocess.Popen(  # noqa: S603 - the gate's own command
            started.command, env=environ, pass_fds=(*started.descriptors, writer)
        )


@contextmanager
def _pipe(least: int) -> Iterator[tuple[int, int]]:
    """Yield the two ends of a pipe; the writing one, at least `least`, is the caller's to close."""
    reader, low = os.pipe()
    writer = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, least)
    os.close(low)
    try:
        yield reader, writer
    finally:
        os.close(reader)


def _told(reader: int, until: float) -> bytes | None:
    """Return what was written to a pipe until its end, None where it has none in time."""
    told = b""
    while (left := until - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            continue
        data = os.read(reader, _MOST)
        told += data
        if not data or told.startswith(_READY):
            return told
    return None


class Upgrader:
    """Takes the orders to have another process take over, one at a time, and logs the outcome."""

    def __init__(self, hand_over: Callable[[], Awaitable[UpgradeOutcome]]) -> None:
        self._hand_over = hand_over
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[UpgradeOutcome]] = set()

    def ask(self, cause: str) -> asyncio.Task[UpgradeOutcome]:
        """Begin without waiting for it; the log names `cause`."""
        task = asyncio.get_running_loop().create_task(self._take_turn(cause))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _take_turn(self, cause: str) -> UpgradeOutcome:
        async with self._turn:
            outcome = await self._hand_over()
        if outcome.problem:
            _log.error(
                "no other process took over; this one continues to serve",
                extra={"details": {"cause": cause, "problem": outcome.problem}},
            )
        else:
            details = {"cause": cause, "pid": outcome.pid, "version": outcome.version}
            _log.info("another process serves from now on", extra={"details": details})
        return outcome
