"""One worker as its parent sees it: the process, the channel to it, and open questions."""

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

#: How long a process that has closed its channel may take to end.
END_SECONDS: Final = 5.0


class WorkerGoneError(Exception):
    """The process has ended or cannot serve; without a text, only its exit status can say why."""


class WorkerSilentError(Exception):
    """The process did not answer in time."""


class Spawned:
    """A process that serves as worker `number` of `count`."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        number: int,
        count: int,
        memory: int,
    ) -> None:
        """Start the process. Raises OSError."""
        self.number: Final = number
        loop = asyncio.get_running_loop()
        #: Its message about the configuration that it read, or WorkerGoneError.
        self.loaded: Final[asyncio.Future[Message]] = loop.create_future()
        #: Set once it serves, to the location of its store; or WorkerGoneError.
        self.ready: Final[asyncio.Future[str]] = loop.create_future()
        #: Set once it has closed the channel.
        self.left: Final = asyncio.Event()
        #: Called with each question that it has to the others.
        self.wants: Callable[[Message], object] = bool
        self._answers: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._last_id = 0
        #: Questions that it did not answer in time, by number.
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
        link = f"{os.getpid()}:{descriptor}:{self.number}:{count}:{memory}:{turns}"
        return subprocess.Popen(  # noqa: S603 - the gate's own command
            command, env={**environ, VARIABLE: link}, pass_fds=(descriptor, memory, turns)
        )

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    async def ask(self, what: str, within: float, **given: object) -> Mapping[str, Any]:
        """Return the answer to a question. Raises WorkerSilentError and WorkerGoneError.

        A worker that owes an answer to the same question is not asked it again, so that questions
        do not pile up in the channel.
        """
        if self.left.is_set():
            raise WorkerGoneError
        if what in self._late.values():
            raise WorkerSilentError
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self.channel.send({"id": number, "ask": what, **given})
        try:
            # Not asyncio.timeout, which drops an answer that came in the same turn of a busy event
            # loop: no later one would end the silence.
            await asyncio.wait((answer,), timeout=within)
        finally:
            del self._answers[number]
        if not answer.done():
            self._late[number] = what
            raise WorkerSilentError
        members = answer.result()
        if "failed" in members:  # inside the worker, which has logged why
            raise WorkerSilentError
        return members

    def order(self, what: str, **given: object) -> None:
        """Send a message that needs no answer."""
        self.channel.send({"ask": what, **given})

    def kill(self) -> None:
        """Kill the process, unless it has ended."""
        # Popen checks that, so it does not kill another process that got the same ID.
        with suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> str:
        """Wait until the process has ended, and return how: its exit code or signal.

        It must have closed the channel or been killed. It still gets a moment to write its last
        log lines.
        """
        try:
            code = await asyncio.to_thread(self._process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = await asyncio.to_thread(self._process.wait)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _heard(self, message: Message, sockets: Sequence[socket.socket]) -> None:
        for sock in sockets:  # a worker sends none
            sock.close()
        if "answer" in message:
            self._late.pop(message["id"], None)
            answer = self._answers.get(message["id"])
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
        futures: tuple[asyncio.Future[Any], ...] = self.loaded, self.ready, *self._answers.values()
        for waiting in futures:
            if not waiting.done():
                waiting.set_exception(WorkerGoneError(*reason))
                # Marks it as retrieved: nobody may be waiting for this one.
                waiting.exception()
