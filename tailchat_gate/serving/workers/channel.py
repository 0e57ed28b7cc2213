"""Messages between the parent and a worker, over a socket pair: JSON, and listening sockets.

Each message is its length and its text. Sockets travel as ancillary data (SCM_RIGHTS, unix(7)).
"""

import array
import asyncio
import json
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

#: The longest message: the metrics of some thousands of routes take a tenth of it.
MOST_BYTES: Final = 64 << 20
_LENGTH: Final = struct.Struct("!I")
_READ_BYTES: Final = 262_144
#: The most descriptors that the kernel passes with one message (SCM_MAX_FD).
MOST_SOCKETS: Final = 253

#: How long one worker's question to all the others may take.
FIND_SECONDS: Final = 1.0

Message = Mapping[str, Any]
Heard = Callable[[Message, Sequence[socket.socket]], None]


class ChannelError(ConnectionError):
    """The data received is no message, or the other side has closed the channel."""


def encoded(text: str) -> bytes:
    """Return the bytes of a message with the JSON `text`. Raises ChannelError if it is too long."""
    data = text.encode()
    if len(data) > MOST_BYTES:
        raise ChannelError(f"a message to send has {len(data)} bytes, more than {MOST_BYTES}")
    return _LENGTH.pack(len(data)) + data


class Reader:
    """Puts messages together from what was received."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._sockets: list[socket.socket] = []

    def receive(self, source: socket.socket) -> bool:
        """Receive once; False at the end. Raises OSError."""
        data, descriptors, _, _ = socket.recv_fds(
            source, _READ_BYTES, MOST_SOCKETS, socket.MSG_CMSG_CLOEXEC
        )
        self._sockets += (socket.socket(fileno=descriptor) for descriptor in descriptors)
        self._data += data
        return bool(data)

    def message(self) -> tuple[Message, list[socket.socket]] | None:
        """Return the next complete message with its sockets, or None. Raises ChannelError."""
        if len(self._data) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._data)
        if length > MOST_BYTES:
            raise ChannelError(f"a message received has {length} bytes, more than {MOST_BYTES}")
        end = _LENGTH.size + length
        if len(self._data) < end:
            return None
        members = json.loads(self._data[_LENGTH.size : end])
        del self._data[:end]
        count = members.get("sockets", 0)
        sockets, self._sockets = self._sockets[:count], self._sockets[count:]
        return members, sockets


class Channel:
    """One end of the pair, in an event loop.

    `heard` gets each message and owns the sockets that came with it; `lost` is called once, when
    the other side has closed the channel.
    """

    def __init__(self, end: socket.socket, heard: Heard, lost: Callable[[], None]) -> None:
        self._end = end
        self._heard = heard
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._reader = Reader()
        self._waiting: deque[tuple[memoryview, Sequence[socket.socket]]] = deque()
        self._is_open = True
        end.setblocking(False)  # noqa: FBT003 - socket's own signature
        self._loop.add_reader(end, self._readable)

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> None:
        """Send a message once there is room for it. The caller still owns the sockets."""
        whole = {**message, "sockets": len(sockets)} if sockets else message
        self.send_text(json.dumps(whole), sockets)

    def send_text(self, text: str, sockets: Sequence[socket.socket] = ()) -> None:
        """Send a message that is already JSON. Raises ChannelError if it is too long."""
        if self._is_open:
            self._waiting.append((memoryview(encoded(text)), tuple(sockets)))
            if len(self._waiting) == 1:
                self._write()

    def close(self) -> None:
        """Close this end without calling `lost`."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            self._waiting.clear()
            self._end.close()

    def _disconnect(self) -> None:
        if self._is_open:
            self.close()
            self._lost()

    def _readable(self) -> None:
        try:
            if not self._reader.receive(self._end):
                self._disconnect()
                return
            while self._is_open and (received := self._reader.message()) is not None:
                self._heard(*received)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self._disconnect()

    def _write(self) -> None:
        try:
            while self._waiting:
                data, sockets = self._waiting[0]
                sent = send_some(self._end, data, sockets)
                if sent < len(data):
                    self._waiting[0] = data[sent:], ()
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._end, self._write)
        except OSError:
            # Later, since the caller of `send` does not expect `lost` to be called meanwhile.
            self._loop.call_soon(self._disconnect)
        else:
            self._loop.remove_writer(self._end)


def send_some(end: socket.socket, data: memoryview, sockets: Sequence[socket.socket]) -> int:
    """Send sockets and as much of `data` as fits; return the number of bytes. Raises OSError."""
    if not sockets:
        return end.send(data)
    descriptors = array.array("i", [sock.fileno() for sock in sockets])
    return end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])


class Questions:
    """A worker's open questions to the other workers or its parent, over the channel.

    `most` limits how many of each kind are open at a time.
    """

    def __init__(self, most: Mapping[str, int]) -> None:
        self._most = most
        self._open: Counter[str] = Counter()
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._last = 0
        self.channel: Channel | None = None

    async def get(self, kind: str, within: float, **given: object) -> object:
        """Return the answer, None if it does not arrive in time or too many questions are open."""
        if self.channel is None or self._open[kind] >= self._most[kind]:
            return None
        self._last += 1
        number = self._last
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._open[kind] += 1
        self.channel.send({"want": number, "kind": kind, **given})
        try:
            await asyncio.wait((waiting,), timeout=within)
        finally:
            self._open[kind] -= 1
            del self._waiting[number]
        return waiting.result() if waiting.done() else None

    def hear(self, message: Message) -> None:
        """Take the answer in a message."""
        waiting = self._waiting.get(message["got"])
        if waiting is not None and not waiting.done():
            waiting.set_result(message["found"])
