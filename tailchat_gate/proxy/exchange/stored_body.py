"""Stores request bodies until they are complete: in memory, and in temporary files."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, TypeVar

from tailchat_gate.observe.log import FaultLog
from tailchat_gate.proxy.sockets import Descriptors

#: The size of one read from a file, and the most bytes in memory that wait to be written to it.
PIECE_BYTES: Final = 65_536
#: The memory for all bodies together. Bodies without room there go to files.
MEMORY_BYTES: Final = 64 << 20
#: The free bytes that bodies leave on a file system, at most an eighth of it, because the gate's
#: state and logs may be there.
_FREE_BYTES: Final = 256 << 20
#: A separate pool of threads, so that a disk that hangs delays nothing else.
_THREADS: Final = 8

_T = TypeVar("_T")


class BodyStore:
    """Limits the memory of all stored bodies.

    `directory` returns the directory for files; it may block and raise OSError. `descriptors` are
    those of the process.
    """

    def __init__(
        self,
        directory: Callable[[], Path],
        descriptors: Descriptors,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._directory = directory
        self._descriptors = descriptors
        self._memory_bytes = memory_bytes
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bodies")
        self._faults = FaultLog(time.monotonic)
        #: How many bytes of memory bodies use, and how many bodies have a file.
        self.memory = self.files = 0

    def reserve(self, count: int) -> bool:
        """Reserve memory for `count` bytes; return False if there is no room."""
        if self.memory + count > self._memory_bytes:
            return False
        self.memory += count
        return True

    def open(self) -> "_File":
        """Return a new file, which its first write creates. Raises OSError."""
        if not self._descriptors.make_room():
            raise OSError(errno.EMFILE, "all file descriptors are in use")
        self.files += 1
        self._descriptors.upstreams += 1
        return _File(self._directory)

    def close(self, file: "_File") -> None:
        """Close a file, which also frees its space."""
        self.files -= 1
        self._descriptors.upstreams -= 1
        # `submit` queues the call before it starts a thread. If none can start, a running one takes
        # the call; and without a running one no file was made.
        with suppress(RuntimeError):
            # In a thread, without waiting, because a call under way holds the file's lock.
            self._threads.submit(file.close)

    async def run(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Run a blocking call in a thread. Raises OSError, also if no thread can start."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, call, *arguments)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error

    def tell(self, error: OSError) -> None:
        """Log why a body could not be stored: once a minute."""
        self._faults.tell("the body of a request cannot be stored", {"error": str(error)})


class StoredBody:
    """One body: in memory up to `most` bytes, beyond that in a file."""

    __slots__ = ("_file", "_memory", "_most", "_store", "size")

    def __init__(self, store: BodyStore, most: int) -> None:
        self._store: Final = store
        self._most = most
        self._memory = bytearray()
        self._file: _File | None = None
        #: How many bytes are stored so far.
        self.size = 0

    @property
    def unsaved(self) -> bool:
        """Whether part of it is not yet in its file."""
        return self._file is not None and bool(self._memory)

    @property
    def start(self) -> bytes:
        """The first piece of a body in memory, b"" of one in a file."""
        return b"" if self._file is not None else bytes(self._memory[:PIECE_BYTES])

    def keep(self, content: bytes) -> bool:
        """Store content in memory; return False if there is no room."""
        most = self._most if self._file is None else PIECE_BYTES
        room = len(self._memory) + len(content) <= most and self._store.reserve(len(content))
        if room:
            self._memory += content
            self.size += len(content)
        return room

    async def save(self, content: bytes) -> None:
        """Write what is in memory, then `content`, to the file. Raises OSError."""
        if self._file is None:
            self._file = self._store.open()
        await self._store.run(self._file.write, self._memory, content)
        self.size += len(content)
        self._empty()

    async def read(self, offset: int) -> bytes:
        """Return a piece of the body, never b"". Raises OSError."""
        if self._file is None:
            piece = bytes(self._memory[offset : offset + PIECE_BYTES])
        else:
            piece = await self._store.run(self._file.read, offset)
        if not piece:
            raise OSError("the stored body's file has become shorter")
        return piece

    def tell(self, error: OSError) -> None:
        """Log why the body could not be stored."""
        self._store.tell(error)

    def discard(self) -> None:
        """Free its memory and its file."""
        self._empty()
        file, self._file = self._file, None
        if file is not None:
            self._store.close(file)

    def _empty(self) -> None:
        self._store.memory -= len(self._memory)
        # A new bytearray, because a thread may still read the old one.
        self._memory = bytearray()


class _File:
    """A file without a name; its calls block, and run one at a time."""

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._closed = False

    def write(self, *pieces: bytes | bytearray) -> None:
        """Write pieces at the end; the first ones make the file. Raises OSError."""
        with self._lock:
            if self._closed:
                return
            if self._file is None:
                self._file = TemporaryFile(  # noqa: SIM115 - see close
                    buffering=0, dir=self._directory()
                )
            try:
                check_space(self._file.fileno(), sum(map(len, pieces)))
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[self._file.write(rest) :]
            except OSError as error:
                error.filename = str(self._directory())
                raise

    def read(self, offset: int) -> bytes:
        """Return a piece, b"" after the end. Raises OSError."""
        with self._lock:
            if self._file is None or self._closed:
                return b""
            return os.pread(self._file.fileno(), PIECE_BYTES, offset)

    def close(self) -> None:
        """Close the file, even if nothing was written yet."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


def check_space(descriptor: int, count: int) -> None:
    """Raise OSError if a file system would be too full after `count` more bytes."""
    volume = os.fstatvfs(descriptor)
    # Some file systems report no size.
    if volume.f_blocks:
        free = volume.f_bavail * volume.f_frsize
        if free - count < min(_FREE_BYTES, volume.f_blocks * volume.f_frsize // 8):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
