"""The upstream for what nginx cannot play: uploads, slow replies, WebSockets, a recorded page.

It must cost little, because it shares the machine with what is measured.
"""

import asyncio
import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import cast

from recording import PREFIX, Answer, answers, frames, key, recording

SLOW = 1.0
"""Seconds before the answer to /slow."""

# A proxy that reads ahead of its upstream would fill its memory in this pause.
PAUSE_AFTER = 8 << 20
PAUSE = 1.0

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_KEY = re.compile(rb"\r\nsec-websocket-key: *([!-~]+)", re.IGNORECASE)
_CODED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_MAX_HEAD = 65_536
_BACKLOG = 4096
_MASKED, _LENGTH_BITS = 0x80, 0x7F
_LONGEST = 125
_CLOSE = 8
_CLOSED = bytes((0x88, 0))
# Where a path begins, after the longest method.
_METHOD = 20


def accepted(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324 - the RFC's choice


def echo(frames: bytes) -> tuple[bytes, int, bool]:
    """Answer the whole frames at the beginning of `frames`, which a client sent, with their like.

    Returns the answer (RFC 6455 section 5.1: not masked), how many bytes it answers, and whether
    the client closes. Raises ValueError for a frame that is not masked or longer than 125 bytes.
    """
    answer, at = bytearray(), 0
    while len(frames) - at >= 2:  # noqa: PLR2004 - the least that tells a frame's length
        length = frames[at + 1] & _LENGTH_BITS
        if not frames[at + 1] & _MASKED or length > _LONGEST:
            raise ValueError("a frame that this echo does not speak")
        end = at + 6 + length
        if len(frames) < end:
            break
        answer += bytes((frames[at], length))
        answer += _unmasked(frames[at + 6 : end], frames[at + 2 : at + 6])
        if frames[at] & 0x0F == _CLOSE:
            return bytes(answer), end, True
        at = end
    return bytes(answer), at, False


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)


def response(body: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole HTTP/1.1 reply."""
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


class Echo(asyncio.Protocol):
    """A connection that has become a WebSocket."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Send every frame back."""
        data = self._rest + data
        answer, used, over = echo(data)
        self._rest = data[used:]
        self._transport.write(answer)
        if over:
            self._transport.close()


class Recorded(asyncio.Protocol):
    """A connection that has become a WebSocket of a recorded page."""

    def __init__(self, transport: asyncio.Transport, messages: Sequence[bytes]) -> None:
        self._transport, self._messages = transport, iter(messages)
        self._rest = b""
        transport.write(next(self._messages))

    def data_received(self, data: bytes) -> None:
        """Answer each message with what followed it when it was recorded."""
        self._rest += data
        count, used, over = frames(self._rest)
        self._rest = self._rest[used:]
        for _ in range(count):
            self._transport.write(next(self._messages, b""))
        if over:
            self._transport.write(_CLOSED)
            self._transport.close()


class Tool(asyncio.Protocol):
    """A connection that speaks HTTP; one request at a time, as proxies send them."""

    recorded: Mapping[bytes, Answer] = MappingProxyType({})
    """The answers of the recorded page."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._received = 0
        self._missing = 0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, because uvloop\'s transports are no subclasses of asyncio\'s.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take a head, or a part of a body."""
        if self._missing:
            self._body(len(data))
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            self._head = b""
            self._request(head, rest)
        elif len(self._head) > _MAX_HEAD:
            self._write(response(b"", b"431 Request Header Fields Too Large"), last=True)

    def _request(self, head: bytes, rest: bytes) -> None:
        page = self.recorded.get(key(head)) if PREFIX in head[:_METHOD] else None
        self._answer = page.whole if page else b""
        if _CODED.search(head):
            self._write(response(b"a length is needed", b"411 Length Required"), last=True)
        elif asked := _KEY.search(head):
            self._upgrade(asked[1], rest, page)
        elif length := _LENGTH.search(head):
            self._received, self._missing = 0, int(length[1])
            self._body(len(rest))
        elif page:
            self._write(page.whole)
        elif head.startswith(b"GET /slow "):
            asyncio.get_running_loop().call_later(SLOW, self._write, response(b'{"slow": true}'))
        else:
            self._write(response(b'{"tool": true}'))

    def _upgrade(self, asked: bytes, rest: bytes, page: Answer | None) -> None:
        assert self._transport is not None  # noqa: S101 - narrows for the checker
        head = page.head if page else b"HTTP/1.1 101 Switching Protocols\r\n"
        self._write(
            head + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accepted(asked)
        )
        websocket: Echo | Recorded = (
            Recorded(self._transport, page.messages) if page else Echo(self._transport)
        )
        self._transport.set_protocol(websocket)
        if rest:
            websocket.data_received(rest)

    def _body(self, size: int) -> None:
        assert self._transport is not None  # noqa: S101 - narrows for the checker
        before = self._received
        self._received += size
        self._missing -= size
        if not self._missing:
            received = json.dumps({"received": self._received}).encode()
            self._write(self._answer or response(received))
        elif before < PAUSE_AFTER <= self._received:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE, self._transport.resume_reading)

    def _write(self, data: bytes, *, last: bool = False) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if last:
                self._transport.close()


def run(main: Coroutine[None, None, None]) -> None:
    """Run on uvloop where it is installed, because it costs less."""
    runner: Callable[[Coroutine[None, None, None]], None] = asyncio.run
    # Nothing runs inside the `except`: every later traceback would begin with this error.
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415 - optional: the `speed` extra

        runner = uvloop.run
    runner(main)


async def serve(port: int) -> None:
    """Serve on a loopback port until the process is ended."""
    loop = asyncio.get_running_loop()
    Tool.recorded = answers(recording())
    server = await loop.create_server(Tool, "127.0.0.1", port, backlog=_BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    run(serve(int(sys.argv[1])))
