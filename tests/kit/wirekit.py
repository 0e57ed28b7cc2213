"""What the tests of the wire share: request bytes, whole conversations, ends of connections."""

import asyncio
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gatekit import Answer, RawClient, Received

HOST = b"Host: gate.test\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
#: A whole request that must never be taken for one where it stands in a body.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n"
#: Control bytes other than the tab, CR and LF.
CONTROLS = (0x00, 0x01, 0x07, 0x08, 0x0B, 0x0C, 0x0E, 0x1B, 0x1F, 0x7F)

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


class Heard(NamedTuple):
    """All bytes that came before a connection ended, and whether it ended in a reset."""

    data: bytes
    reset: bool

    @property
    def statuses(self) -> list[int]:
        """The statuses of the answers, in order."""
        return [int(status) for status in _STATUS.findall(self.data)]


def get(fields: bytes = b"", target: bytes = b"/", *, version: bytes = b"1.1") -> bytes:
    """Return a GET with further field lines."""
    return b"GET %b HTTP/%b\r\n" % (target, version) + HOST + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    """Return a POST with further field lines and a body."""
    return b"POST / HTTP/%b\r\n" % version + HOST + fields + b"\r\n" + body


async def heard(client: RawClient, *, seconds: float = 60.0) -> Heard:
    """Return all that comes until the connection ends; TimeoutError where it does not end."""
    data = b""
    async with asyncio.timeout(seconds):
        try:
            while more := await client.reader.read(65_536):
                data += more
        except ConnectionError:
            return Heard(data, reset=True)
    return Heard(data, reset=False)


async def say(port: int, data: bytes, *, seconds: float = 60.0) -> Heard:
    """Send bytes on a connection of their own; return all that comes until it ends."""
    async with RawClient.connect(port) as client:
        client.send(data)
        return await heard(client, seconds=seconds)


async def say_each(port: int, cases: Mapping[str, bytes]) -> dict[str, list[int]]:
    """Send each case on a connection of its own; return the statuses that each was answered."""
    found = await asyncio.gather(*(say(port, data) for data in cases.values()))
    return {name: one.statuses for name, one in zip(cases, found, strict=True)}


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset in place of a clean end."""
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def answers_by_path(cases: Mapping[str, bytes], *, close: bool = False) -> Answer:
    """Return an upstream that answers a request for `/N` with the bytes of the N-th case."""
    data = list(cases.values())

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(data[int(request.line.split(b" ")[1].strip(b"/"))])
        await writer.drain()
        if close:
            writer.close()

    return answer


def paths(cases: Iterable[object]) -> list[str]:
    """Return the path of each case for an upstream of `answers_by_path`."""
    return [f"/{number}" for number, _ in enumerate(cases)]
