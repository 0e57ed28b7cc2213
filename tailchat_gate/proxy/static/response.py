"""Sends a part of a file as a response: reads it in threads, as fast as the client takes it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar, TypeVarTuple

from aiohttp import web
from aiohttp.http import StreamWriter

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.static.conditional import ByteSpan
from tailchat_gate.proxy.static.tree import OpenFile

#: Bytes read from a file at once. A file that has no more is sent without another step.
FIRST_BYTES: Final = 65_536
READ_BYTES: Final = 262_144
#: Bytes written at once: a client that reads nothing leaves only these in memory.
WRITE_BYTES: Final = 16_384
#: Threads that read for one route. A separate pool, so that a disk that hangs does not delay other
#: users of threads in the process.
THREADS: Final = 8

_log = logging.getLogger(LOGGER_NAME)

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class Reads:
    """The threads that read files for one route.

    A reader holds one of `turns` until its piece is written, so that not a thousand pieces are in
    memory before the first is sent.
    """

    def __init__(self) -> None:
        self.turns: Final = asyncio.Semaphore(THREADS)
        self.threads: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="local-files")

    async def run(self, read: Callable[[*_Args], _T], *args: *_Args) -> _T:
        """Read in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, read, *args)


class Rest(NamedTuple):
    """The part of a file to send, and the first piece of it."""

    file: OpenFile
    span: ByteSpan
    first: bytes


class FileAnswer(web.StreamResponse):
    """Sends a part of an open file, as fast as the client reads it.

    It replaces aiohttp's FileResponse, which has three faults. FileResponse opens the file by path
    again after any check; a path /proc/self/fd/N does not exist in every container. If the file has
    become shorter, it ends the response as if complete and keeps the connection, so that the next
    response is read as the rest of this one. It ignores an If-Range with a tag, and rejects a
    Range in another unit.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        rest: Rest,
        reads: Reads,
        idle_timeout: float | None,
    ) -> None:
        super().__init__(status=status, headers=headers)
        self._file = rest.file
        self._span = rest.span
        self._first = rest.first
        self._reads = reads
        self._idle_timeout = idle_timeout
        self._transport: asyncio.Transport | None = None
        self._writer: StreamWriter | None = None
        self._path = ""

    async def prepare(self, request: web.BaseRequest) -> StreamWriter | None:
        """Send the head."""
        self._transport = request.transport
        # Without the query, which the gate never logs.
        self._path = request.raw_path.partition("?")[0]
        writer = await super().prepare(request)
        self._writer = writer if isinstance(writer, StreamWriter) else None
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body; `data` is b"".

        Raises ConnectionError if the client has left or the body cannot be sent completely; the
        connection is then reset.
        """
        try:
            await self._send()
        except OSError as error:
            # Never a clean close: the client must see that the response is incomplete (RFC 9112
            # section 8).
            if self._transport is not None:
                self._transport.abort()
            if isinstance(error, ConnectionError):
                raise
            if not isinstance(error, TimeoutError):
                details = {"path": self._path, "problem": str(error)}
                _log.warning("a file could not be sent completely", extra={"details": details})
            raise ConnectionResetError("a file could not be sent completely") from error
        finally:
            # In a thread, without waiting, because a read under way holds the file's lock.
            self._reads.threads.submit(self._file.close)
        await super().write_eof(data)

    async def _send(self) -> None:
        offset, left = self._span
        piece, self._first = self._first, b""
        sent = await self._write(piece)
        # Not kept while waiting for the client: the rest of the piece is read again.
        del piece
        while True:
            offset, left = offset + sent, left - sent
            await self._taken()
            if not left:
                return
            async with self._reads.turns:
                count = min(left, READ_BYTES)
                sent = await self._write(await self._reads.run(self._file.read, offset, count))
            if not sent:
                raise OSError("the file has become shorter")

    async def _write(self, piece: bytes) -> int:
        """Write a piece until the client's socket is full; return how many bytes were written."""
        transport, writer, sent = self._transport, self._writer, 0
        if transport is None or writer is None:
            raise ConnectionResetError("the client left before the response began")
        while sent < len(piece):
            part = piece[sent : sent + WRITE_BYTES]
            # No drain here: a client that reads nothing would hold its turn.
            await writer.write(part, drain=False)
            sent += len(part)
            if transport.get_write_buffer_size():
                break
        return sent

    async def _taken(self) -> None:
        """Wait until the write buffer is empty; aiohttp itself only waits after each 64 KiB."""
        if self._writer is not None:
            async with asyncio.timeout(self._idle_timeout):
                await self._writer.drain()
