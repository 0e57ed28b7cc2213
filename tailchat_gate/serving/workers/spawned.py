"""One worker as its parent sees it: a process, the channel to it, and what it was asked."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from tailchat_gate.observe.turns import others
from tailchat_gate.serving.workers.channel import Channel, Message
from tailchat_gate.serving.workers.link import VARIABLE

#: How long a process that has left the channel may take to end.
END_SECONDS: Final = 5.0


class WorkerGoneError(Exception):
    """The process has ended, or cannot serve; the text says why, "" where only its end can tell."""


class WorkerSilentError(Exception):
    """The process did not answer in time."""


class Spawned:
    """A process that was started as worker `number` of `count`."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        number: int,
        count: int,
        memory: int,
    ) -> None:
        """Start it. Raises OSError."""
        self.number: Final = number
        loop = asyncio.get_running_loop()
        #: What it has read: its message, or WorkerGoneError.
        self.loaded: Final[asyncio.Future[Message]] = loop.create_future()
        #: Where it stores state, once it serves; or WorkerGoneError.
        self.ready: Final[asyncio.Future[str]] = loop.create_future()
        #: Set once it has left the channel.
        self.left: Final = asyncio.Event()
        #: Is called with each message in which it wants something of the others.
        self.wants: Callable[[Message], object] = bool
        self._asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._last_id = 0
        #: What was asked that it has not answered in time, by number.
        self._late: dict[int, str] = {}
        own, its = socket.socketpair()
        try:
            self._process = self._popen(command, environ, count, its.fileno(), memory)
        except OSError:
            own.close()
            raise
        finally:
            its.close()
        self.channel: Final = Channel(own, self._heard, self._lost)

    def _popen(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        count: int,
        descriptor: int,
        memory: int,
    ) -> "subprocess.Popen[bytes]":
        turns = others.begin()
        told = f"{os.getpid()}:{descriptor}:{self.number}:{count}:{memory}:{turns}"
        return subprocess.Popen(  # noqa: S603 - the gate's own command
            command, env={**environ, VARIABLE: told}, pass_fds=(descriptor, memory, turns)
        )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    async def ask(self, what: str, within: float, **given: object) -> Mapping[str, Any]:
        """Return the answer to a question. Raises WorkerSilentError and WorkerGoneError.

        One that owes an answer to the same question is not asked again, so no more than one of
        each caller waits in the channel; to other questions it may have an answer all the same.
        """
        if self.left.is_set():
            raise WorkerGoneError
        if what in self._late.values():
            raise WorkerSilentError
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.channel.send({"id": number, "ask": what, **given})
        try:
            async with asyncio.timeout(within):
                found = await answer
        except TimeoutError:
            self._late[number] = what
            raise WorkerSilentError from None
        finally:
            del self._asked[number]
        if "failed" in found:  # inside the worker, which has logged why
            raise WorkerSilentError
        return found

    def order(self, what: str, **given: object) -> None:
        """Send what needs no answer."""
        self.channel.send({"ask": what, **given})

    def kill(self) -> None:
        """End the process; it may have ended already."""
        # Popen looks first whether it has, and takes no other process of that number for it.
        with suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> str:
        """Wait until the process has ended, which has left or was killed, and return how.

        Its last lines are written after that, so it gets a moment.
        """
        try:
            code = await asyncio.to_thread(self._process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = await asyncio.to_thread(self._process.wait)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _heard(self, message: Message, sockets: Sequence[socket.socket]) -> None:
        for one in sockets:  # a worker sends none
            one.close()
        if "answer" in message:
            self._late.pop(message["id"], None)
            answer = self._asked.get(message["id"])
            if answer is not None and not answer.done():
                answer.set_result(message["answer"])
        elif "loaded" in message and not self.loaded.done():
            self.loaded.set_result(message)
        elif "ready" in message and not self.ready.done():
            self.ready.set_result(message["ready"])
        elif "want" in message:
            self.wants(message)
        elif "failed" in message:
            self._fail(str(message["failed"]))

    def _lost(self) -> None:
        self._fail()
        self.left.set()

    def _fail(self, *reason: str) -> None:
        futures: tuple[asyncio.Future[Any], ...] = self.loaded, self.ready, *self._asked.values()
        for waiting in futures:
            if not waiting.done():
                waiting.set_exception(WorkerGoneError(*reason))
                # Not everybody waits for it.
                waiting.exception()
