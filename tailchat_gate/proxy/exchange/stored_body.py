"""Where the bodies of requests are kept until they are whole: in memory, and in temporary files."""

import asyncio
import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, TypeVar

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.descriptors import Descriptors

#: How much is written to a file, or read from one, at once.
PIECE_BYTES: Final = 65_536
#: How much memory all bodies have together. What has no room there goes to files.
MEMORY_BYTES: Final = 64 << 20
#: How much of a file system bodies leave free, an eighth of it at most: the state and logs that
#: may be on it must go on.
_FREE_BYTES: Final = 256 << 20
#: A pool of its own, so that a disk that hangs keeps nothing else waiting.
_THREADS: Final = 8
_TELL_SECONDS: Final = 60.0

_log: Final = logging.getLogger(LOGGER_NAME)
_T = TypeVar("_T")


class BodyStore:
    """Bounds what all bodies take together.

    `directory` returns where files are made; it may block and raise OSError. `descriptors` are
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
        self._told_at = float("-inf")
        #: How many bytes bodies take of the memory, and how many have a file.
        self.memory = self.files = 0

    def reserve(self, count: int) -> bool:
        """Take memory for some bytes; return whether there was room."""
        if self.memory + count > self._memory_bytes:
            return False
        self.memory += count
        return True

    def open(self) -> "_File":
        """Return a new file, which is made when it is written. Raises OSError."""
        if not self._descriptors.make_room():
            raise OSError(errno.EMFILE, "all file descriptors are in use")
        self.files += 1
        self._descriptors.upstreams += 1
        return _File(self._directory)

    def close(self, file: "_File") -> None:
        """Close a file, which also frees its space."""
        self.files -= 1
        self._descriptors.upstreams -= 1
        # In a thread, because a call that is under way holds it; and not waited for.
        self._threads.submit(file.close)

    async def run(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Return what a blocking call returns. Raises OSError, also where there is no thread."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, call, *arguments)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error

    def tell(self, error: OSError) -> None:
        """Log why a body could not be stored: once a minute."""
        now = time.monotonic()
        if now >= self._told_at + _TELL_SECONDS:
            self._told_at = now
            details = {"error": str(error)}
            _log.error("the body of a request cannot be stored", extra={"details": details})


class StoredBody:
    """One body: in memory up to `most` bytes, from there on in a file."""

    __slots__ = ("_file", "_memory", "_most", "_store", "size")

    def __init__(self, store: BodyStore, most: int) -> None:
        self._store: Final = store
        self._most = most
        self._memory = bytearray()
        self._file: _File | None = None
        #: How many bytes it has so far.
        self.size = 0

    @property
    def in_memory(self) -> bool:
        """Whether all of it is in memory."""
        return self._file is None

    @property
    def unsaved(self) -> bool:
        """Whether its file lacks some of it still."""
        return self._file is not None and bool(self._memory)

    @property
    def start(self) -> bytes:
        """The first piece of a body in memory, b"" of one in a file."""
        return b"" if self._file is not None else bytes(self._memory[:PIECE_BYTES])

    def keep(self, content: bytes) -> bool:
        """Keep content in memory; return whether there was room for it."""
        most = self._most if self._file is None else PIECE_BYTES
        room = len(self._memory) + len(content) <= most and self._store.reserve(len(content))
        if room:
            self._memory += content
            self.size += len(content)
        return room

    async def save(self, content: bytes) -> None:
        """Write what is in memory, and content behind it, to the file. Raises OSError."""
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
            raise OSError("the file became shorter")
        return piece

    def tell(self, error: OSError) -> None:
        """Log why it could not be stored."""
        self._store.tell(error)

    def discard(self) -> None:
        """Free what it takes."""
        self._empty()
        file, self._file = self._file, None
        if file is not None:
            self._store.close(file)

    def _empty(self) -> None:
        self._store.memory -= len(self._memory)
        # Another, because a thread may still read this one.
        self._memory = bytearray()


class _File:
    """A file without a name; its calls block, and take turns."""

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._closed = False

    def write(self, *pieces: bytes) -> None:
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
        """Return a piece, b"" behind the end. Raises OSError."""
        with self._lock:
            if self._file is None or self._closed:
                return b""
            return os.pread(self._file.fileno(), PIECE_BYTES, offset)

    def close(self) -> None:
        """Close it, before it was made too."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


def check_space(descriptor: int, count: int) -> None:
    """Raise OSError where a file system would be too full with `count` bytes more."""
    found = os.fstatvfs(descriptor)
    # Some file systems tell nothing.
    if found.f_blocks:
        free = found.f_bavail * found.f_frsize
        if free - count < min(_FREE_BYTES, found.f_blocks * found.f_frsize // 8):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
