"""WebSocket frames by hand (RFC 6455 section 5), and a client that writes and records them."""

import asyncio
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from gatekit import RawClient, Received, request_bytes

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
#: The fields of an upgrade, as gatekit.request_bytes takes them (RFC 6455 section 4.1).
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": KEY,
}
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
MASK = b"\x37\xfa\x21\x3d"
_SWITCHED = 101
#: A longer payload is recorded by its size and digest: no report could show it.
_SHOWN = 200
#: Fields of the response that a handshake is about.
_FIELDS = (
    *("Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"),
    "Sec-WebSocket-Version",
)


class Frame(NamedTuple):
    """A frame; `bits` are FIN and the reserved ones, as in the first byte (0x80: FIN alone)."""

    bits: int
    opcode: int
    payload: bytes


class Pieces(NamedTuple):
    """Bytes that are written `size` at a time."""

    data: bytes
    size: int


class Until(NamedTuple):
    """Wait until that many frames have come in all, or the server has left."""

    frames: int


class HalfClose:
    """Send EOF, and go on reading."""


#: What a client does: it writes bytes at once or in pieces, waits, or half-closes.
Step = bytes | Pieces | Until | HalfClose


class Heard(NamedTuple):
    """All that a client got: fields of the handshake, frames, bytes of no whole frame, the end."""

    status: int
    handshake: tuple[tuple[str, str], ...]
    frames: tuple[Frame, ...]
    rest: bytes
    end: str

    @property
    def code(self) -> int:
        """The code of the close frame at the end, 1005 for one without, 1006 where none came."""
        last = self.frames[-1] if self.frames else None
        if last is None or last.opcode != CLOSE:
            return 1006
        return int.from_bytes(last.payload[:2], "big") if last.payload else 1005


def masked(payload: bytes, mask: bytes) -> bytes:
    """Return a payload under a masking key (RFC 6455 section 5.3)."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    # As one number, because 16 MB octet by octet would take seconds.
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def frame(
    opcode: int,
    payload: bytes | str = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes = MASK,
    form: int = 0,
) -> bytes:
    """Return a frame of a client; `mask` b"" for none.

    `form` is the least size in bytes of the length's extension: 0, 2 or 8.
    """
    data = payload.encode() if isinstance(payload, str) else payload
    size = len(data)
    form = max(form, 0 if size < 126 else 2 if size < 65_536 else 8)
    mark = {0: size, 2: 126, 8: 127}[form]
    length = size.to_bytes(form, "big") if form else b""
    head = bytes((fin << 7 | rsv << 4 | opcode, mark | (0x80 if mask else 0)))
    return head + length + mask + (masked(data, mask) if mask else data)


def close(code: int | None = 1000, reason: bytes | str = b"") -> bytes:
    """Return a close frame of a client; None for one without a code."""
    text = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + text)


def fragments(opcode: int, payload: bytes, size: int, *, rsv: int = 0) -> list[bytes]:
    """Return a message in frames of at most `size` bytes of payload."""
    parts = [payload[place : place + size] for place in range(0, len(payload), size)] or [b""]
    last = len(parts) - 1
    return [
        frame(
            CONTINUATION if place else opcode,
            part,
            fin=place == last,
            rsv=0 if place else rsv,
        )
        for place, part in enumerate(parts)
    ]


def frames_in(data: bytes | bytearray) -> Iterator[tuple[Frame, int]]:
    """Yield each whole unmasked frame, and where it ends."""
    place = 0
    while place + 2 <= len(data):
        size, start = data[place + 1], place + 2
        if size >= 126:
            form = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + form], "big"), start + form
        if start + size > len(data):
            return
        payload = bytes(data[start : start + size])
        yield Frame(data[place] & 0xF0, data[place] & 0x0F, payload), start + size
        place = start + size


def _shown(payload: bytes) -> bytes:
    if len(payload) <= _SHOWN:
        return payload
    return b"%d bytes, %b" % (len(payload), hashlib.sha256(payload).hexdigest().encode())


class WebSocketClient:
    """A client over a raw connection, which does the steps and records all that it receives."""

    def __init__(self, raw: RawClient) -> None:
        self._raw = raw
        self._data = bytearray()
        self._news = asyncio.Event()
        self._frames: list[Frame] = []
        self._end = ""

    async def run(self, steps: tuple[Step, ...], fields: dict[str, str]) -> Heard:
        """Open a WebSocket, do the steps, and return all that came until the server left."""
        self._raw.send(request_bytes("/ws", **UPGRADE, **fields))
        head = Received(await self._raw.head())
        status = int(head.line.split(b" ")[1])
        found = ((name, head.value(name)) for name in _FIELDS)
        handshake = tuple((name, value.decode().lower()) for name, value in found if value)
        if status != _SWITCHED:
            return Heard(status, handshake, (), b"", "refused")
        reading = asyncio.create_task(self._read())
        for step in steps:
            await self._do(step)
        await reading
        frames = tuple(one._replace(payload=_shown(one.payload)) for one in self._frames)
        return Heard(status, handshake, frames, bytes(self._data), self._end)

    async def _do(self, step: Step) -> None:
        if isinstance(step, Until):
            while len(self._frames) < step.frames and not self._end:
                self._news.clear()
                await self._news.wait()
            return
        try:
            if isinstance(step, bytes):
                self._raw.send(step)
            elif isinstance(step, Pieces):
                for place in range(0, len(step.data), step.size):
                    self._raw.send(step.data[place : place + step.size])
                    # A turn each, so that the pieces are segments of their own.
                    await asyncio.sleep(0)
                    await self._raw.writer.drain()
            else:
                self._raw.writer.write_eof()
            await self._raw.writer.drain()
        except ConnectionError:
            return

    async def _read(self) -> None:
        try:
            while more := await self._raw.reader.read(2**20):
                self._data += more
                self._take_frames()
        except ConnectionError:
            self._end = "reset"
        else:
            self._end = "end"
        self._news.set()

    def _take_frames(self) -> None:
        taken = list(frames_in(self._data))
        if taken:
            self._frames += (one for one, _ in taken)
            del self._data[: taken[-1][1]]
            self._news.set()
