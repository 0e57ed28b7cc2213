"""A load of connections that wrk cannot make: held open, played on in turn, or waiting long.

Standard input, first line: JSON with `port`, `path`, `fields` (lines of a request head), `count`
and `websocket`. When all connections are open it says {"open": COUNT}. Then it obeys:

    ping SECONDS               one masked message of 125 bytes each way at a time on each WebSocket
    ask PATH TIMES SECONDS     each connection asks TIMES, one after another; they begin within
                               SECONDS, evenly spread
    check                      {"open": how many are still open}

and answers with one line of JSON each; times are microseconds. The end of its input ends it.
"""

import array
import asyncio
import base64
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from tool import accepted, run

_AT_ONCE = 64
# Below the 28,000 ports that Linux gives to clients of one address.
_PER_ADDRESS = 10_000
# IP_BIND_ADDRESS_NO_PORT, which Python's socket module does not name.
_BIND_ADDRESS_NO_PORT = 24
_LIMIT = 30.0
_PAYLOAD = 125
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class LoadError(Exception):
    """A connection that did not answer as it must; the text says how."""


@dataclass(slots=True)
class Tally:
    """What was asked and answered; `times` are seconds."""

    times: "array.array[float]" = field(default_factory=lambda: array.array("d"))
    wrong: int = 0

    def result(self, seconds: float, messages: int) -> dict[str, int]:
        """As load.lua has it; `messages` is how many there are to one answer."""
        kept = sorted(self.times)
        return {
            "requests": len(kept) * messages,
            "duration": int(seconds * 1e6),
            "p50": int(kept[len(kept) // 2] * 1e6) if kept else 0,
            "p99": int(kept[len(kept) * 99 // 100] * 1e6) if kept else 0,
            "failed": self.wrong,
        }


class Held(asyncio.Protocol):
    """A connection to the peer, which answers one request at a time."""

    def __init__(self) -> None:
        self.open = False
        self.transport: asyncio.Transport | None = None
        self._data = b""
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, because uvloop\'s transports are no subclasses of asyncio\'s.
        self.transport = cast("asyncio.Transport", transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody gets an answer any more."""
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(LoadError(f"a connection was closed: {exc}"))

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a request; returns head and body of the answer. Raises LoadError."""
        assert self.transport is not None  # noqa: S101 - narrows for the checker
        if not self.open:
            raise LoadError("a connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(_LIMIT):
            return await self._answer

    def data_received(self, data: bytes) -> None:
        """Complete the answer when all of it is there."""
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(rest) < (int(length[1]) if length else 0):
            return
        self._data = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((head, rest))


class PingPong(asyncio.Protocol):
    """A WebSocket on which one message goes out when the one before has come back."""

    __slots__ = ("_done", "_frame", "_got", "_response", "_sent", "_tally", "_transport", "_until")

    def __init__(self, transport: asyncio.Transport, tally: Tally) -> None:
        payload, mask = os.urandom(_PAYLOAD), os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self._frame = bytes((0x82, 0x80 | _PAYLOAD)) + mask + masked
        self._response = bytes((0x82, _PAYLOAD)) + payload
        self._transport, self._tally = transport, tally
        self._got = b""
        self._sent = self._until = 0.0
        self._done: Callable[[], None] | None = None

    def play(self, until: float, done: Callable[[], None]) -> None:
        """Go on until the clock says `until`; then call `done`, once."""
        self._until, self._done = until, done
        self._send(time.perf_counter())

    def _send(self, now: float) -> None:
        self._sent = now
        self._transport.write(self._frame)

    def data_received(self, data: bytes) -> None:
        """Count a message that came back, and send the next."""
        if self._got:
            data = self._got + data
        if len(data) < len(self._response):
            self._got = data
            return
        self._got = b""
        now = time.perf_counter()
        self._tally.times.append(now - self._sent)
        if data != self._response:
            self._tally.wrong += 1
        if now < self._until:
            self._send(now)
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface's
        """Count a connection that was lost in play."""
        if self._done is not None:
            self._tally.wrong += 1
            self._end()

    def _end(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()


class SessionHolder:
    """All connections of the load."""

    def __init__(self, order: dict[str, object]) -> None:
        self._port = int(str(order["port"]))
        self._path = str(order["path"])
        fields = order["fields"]
        assert isinstance(fields, list)  # noqa: S101 - narrows for the checker
        self._fields = [str(line) for line in fields]
        self._count = int(str(order["count"]))
        self._websocket = bool(order["websocket"])
        self._held: list[Held] = []

    async def open(self) -> int:
        """Open all connections, a few at once. Raises LoadError and OSError."""
        turns = iter(range(self._count))

        async def some() -> None:
            for number in turns:
                self._held.append(await self._opened(number))

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(some())
        return self.still_open()

    def still_open(self) -> int:
        """How many connections nobody has closed."""
        return sum(one.open for one in self._held)

    async def _opened(self, number: int) -> Held:
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        # The port is chosen when it connects: chosen before, by its own address alone, it could
        # be none of those that wait for the end of connections of the load before (ip(7)).
        connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        connection.bind((f"127.0.0.{1 + number // _PER_ADDRESS}", 0))
        connection.setblocking(False)  # noqa: FBT003 - the standard library's
        await loop.sock_connect(connection, ("127.0.0.1", self._port))
        _, held = await loop.create_connection(Held, sock=connection)
        if self._websocket:
            await self._upgrade(held)
        else:
            await self._ask(held, self._request(self._path))
        return held

    def _request(self, path: str, more: Sequence[str] = ()) -> bytes:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}", *self._fields, *more]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def _upgrade(self, held: Held) -> None:
        key = base64.b64encode(os.urandom(16))
        head, _ = await held.ask(
            self._request(
                self._path,
                (
                    f"Origin: http://127.0.0.1:{self._port}",
                    "Connection: Upgrade",
                    "Upgrade: websocket",
                    f"Sec-WebSocket-Key: {key.decode()}",
                    "Sec-WebSocket-Version: 13",
                ),
            )
        )
        if not head.startswith(b"HTTP/1.1 101") or accepted(key) not in head:
            raise LoadError(f"no WebSocket: {head[:500]!r}")

    async def _ask(self, held: Held, request: bytes) -> None:
        head, _ = await held.ask(request)
        if not head.startswith(b"HTTP/1.1 200"):
            raise LoadError(f"no answer: {head[:500]!r}")

    async def ping(self, seconds: float) -> dict[str, int]:
        """Play on all WebSockets; each there and back are two messages."""
        tally, over, left = Tally(), asyncio.Event(), len(self._held)

        def done() -> None:
            nonlocal left
            left -= 1
            if not left:
                over.set()

        began = time.perf_counter()
        for held in self._held:
            assert held.transport is not None  # noqa: S101 - narrows for the checker
            player = PingPong(held.transport, tally)
            held.transport.set_protocol(player)
            player.play(began + seconds, done)
        async with asyncio.timeout(seconds + _LIMIT):
            await over.wait()
        return tally.result(time.perf_counter() - began, messages=2)

    async def ask(self, path: str, times: int, spread: float) -> dict[str, int]:
        """Let each connection ask `times`; the first requests are spread over `spread` seconds."""
        tally, request = Tally(), self._request(path)

        async def some(held: Held, wait: float) -> None:
            await asyncio.sleep(wait)
            for _ in range(times):
                sent = time.perf_counter()
                await self._ask(held, request)
                tally.times.append(time.perf_counter() - sent)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for place, held in enumerate(self._held):
                group.create_task(some(held, spread * place / len(self._held)))
        return tally.result(time.perf_counter() - began, messages=1)


async def main() -> None:
    """Open what the first line asks for, and obey the others."""
    holder = SessionHolder(json.loads(await asyncio.to_thread(sys.stdin.readline)))
    print(json.dumps({"open": await holder.open()}), flush=True)
    while words := (await asyncio.to_thread(sys.stdin.readline)).split():
        if words[0] == "ping":
            answer = await holder.ping(float(words[1]))
        elif words[0] == "ask":
            answer = await holder.ask(words[1], int(words[2]), float(words[3]))
        else:
            answer = {"open": holder.still_open()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    run(main())
