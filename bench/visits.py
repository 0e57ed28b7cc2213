"""A load of visits: browsers that load a recorded page, on several connections each.

Standard input: JSON with `port`, `session` (cookies), `visitors`, `seconds`, `seed` and `once`.
Each visitor loads the page repeatedly until the time is over, or once: the document first,
then all else in the recorded order on six connections, and each WebSocket on one of its own.
Standard output: one line of JSON as load.lua writes it; a WebSocket counts as one request.
"""

import array
import asyncio
import base64
import itertools
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from recording import Answer, Entry, answers, filled, frame, recording, turns
from tool import accepted, run

_CONNECTIONS = 6
_LIMIT = 60.0
_STATUS = slice(9, 12)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_EMPTY = frozenset((204, 304))
_CLOSE = bytes((0x88, 0x80, 0, 0, 0, 0))
# Bytes of the tool's close frame, which has no reason.
_CLOSED = 2
# A year in which nobody asks, in milliseconds.
_THEN = 1_900_000_000_000


class Connection(asyncio.Protocol):
    """A connection of a browser, which asks one thing at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._missing = -1
        self._response: tuple[int, int] = (0, 0)
        self._done: asyncio.Future[tuple[int, int]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The request that waits for its response fails."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(f"a connection was closed: {exc}"))

    async def ask(self, request: bytes) -> tuple[int, int]:
        """Send a request; returns status and size of the body."""
        assert self._transport is not None  # noqa: S101 - narrows for the checker
        self._head, self._missing = b"", -1
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._done

    def data_received(self, data: bytes) -> None:
        """Read a head, then count the body."""
        if self._missing < 0:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            status, length = int(head[_STATUS]), _LENGTH.search(head)
            size = int(length[1]) if length and status not in _EMPTY else 0
            self._response, self._missing = (status, size), size - len(rest)
        else:
            self._missing -= len(data)
        if self._missing <= 0 and self._done is not None and not self._done.done():
            self._done.set_result(self._response)

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()


@dataclass(slots=True)
class Tally:
    """What was asked and answered; `times` are seconds."""

    times: "array.array[float]" = field(default_factory=lambda: array.array("d"))
    wrong: "Counter[str]" = field(default_factory=Counter)

    def result(self, seconds: float) -> dict[str, object]:
        """As load.lua has it."""
        times = sorted(self.times)
        return {
            "requests": len(times),
            "duration": int(seconds * 1e6),
            "p50": int(times[len(times) // 2] * 1e6) if times else 0,
            "p99": int(times[len(times) * 99 // 100] * 1e6) if times else 0,
            "failed": self.wrong.total(),
            "why": ", ".join(f"{count} {kind}" for kind, count in self.wrong.items()),
        }


@dataclass(slots=True)
class Step:
    """One entry, prepared."""

    entry: Entry
    pieces: list[bytes]
    answer: Answer
    turns: list[tuple[bytes, int]]


class Visitor:
    """One person with one browser."""

    def __init__(self, order: dict[str, object], number: int, tally: Tally) -> None:
        self._port = int(str(order["port"]))
        self._tally = tally
        self._random = random.Random(f"{order['seed']}-{number}")  # noqa: S311 - no secret
        self._clock = itertools.count(_THEN + int(str(order["seed"])) * 10**8 + number * 10**6)
        entries = recording()
        known = answers(entries)
        session = str(order["session"])
        steps = [
            Step(one, one.request(session), known[one.key], list(_turns(known[one.key].entry)))
            for one in entries
        ]
        self._parts = [list(part) for _, part in itertools.groupby(steps, lambda s: s.entry.visit)]
        self._marks: dict[bytes, bytes] = {}

    async def visits(self, until: float) -> None:
        """Visit until the clock says `until`, at least once."""
        connections = [await self._connect() for _ in range(_CONNECTIONS)]
        while True:
            self._marks = {b"host": b"127.0.0.1:%d" % self._port}
            self._marks[b"origin"] = b"http://" + self._marks[b"host"]
            for part in self._parts:
                await self._part(part, connections)
            if time.perf_counter() >= until:
                break
        for one in connections:
            one.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
        return connection

    async def _part(self, steps: list[Step], connections: list[Connection]) -> None:
        document, *rest = steps
        await self._ask(document, connections[0])
        turn, sockets = iter(rest), list[asyncio.Task[None]]()

        async def some(connection: Connection) -> None:
            for step in turn:
                if step.entry.upgrade:
                    sockets.append(asyncio.create_task(self._talk(step)))
                else:
                    await self._ask(step, connection)

        async with asyncio.timeout(_LIMIT), asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(some(connection))
        async with asyncio.timeout(_LIMIT):
            await asyncio.gather(*sockets)

    async def _ask(self, step: Step, connection: Connection) -> None:
        request, began = filled(step.pieces, self._value), time.perf_counter()
        status, size = await connection.ask(request)
        self._tally.times.append(time.perf_counter() - began)
        if (status, size) != (step.answer.status, step.answer.size):
            self._tally.wrong[f"{status} with {size} bytes to {step.entry.target}"] += 1

    async def _talk(self, step: Step) -> None:
        """Open a WebSocket, say what was said, and close it."""
        key = base64.b64encode(self._random.randbytes(16))
        self._marks[b"key"] = key
        request, began = filled(step.pieces, self._value), time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        self._tally.times.append(time.perf_counter() - began)
        if not head.startswith(b"HTTP/1.1 101") or accepted(key) not in head:
            self._tally.wrong[f"no WebSocket: {head[:60]!r}"] += 1
        else:
            for sent, expected in step.turns:
                writer.write(sent)
                await reader.readexactly(expected)
            writer.write(_CLOSE)
            # Not until the connection ends: Envoy keeps it for a second.
            await reader.readexactly(_CLOSED)
        writer.close()
        await writer.wait_closed()

    def _value(self, mark: bytes) -> bytes:
        if mark == b"time":
            return b"%d" % next(self._clock)
        if mark not in self._marks:
            self._marks[mark] = self._made(mark)
        return self._marks[mark]

    def _made(self, mark: bytes) -> bytes:
        name, _, size = mark.partition(b":")
        if name == b"token":
            return self._random.randbytes(int(size)).hex()[: int(size)].encode()
        text = self._random.randbytes(16).hex()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])).encode()


def _turns(entry: Entry) -> Iterator[tuple[bytes, int]]:
    """What is sent, and how many bytes come before the next."""
    for sent, received in turns(entry.messages):
        message = b"" if sent < 0 else frame(sent, b"mask")
        yield message, sum(len(frame(size)) for size in received)


async def main() -> None:
    """Let all visitors visit."""
    order = json.loads(sys.stdin.read())
    tally, began = Tally(), time.perf_counter()
    until = began + (0 if order["once"] else order["seconds"])
    visitors = [Visitor(order, number, tally) for number in range(order["visitors"])]
    async with asyncio.TaskGroup() as group:
        for visitor in visitors:
            group.create_task(visitor.visits(until))
    print(json.dumps(tally.result(time.perf_counter() - began)), flush=True)


if __name__ == "__main__":
    run(main())
