"""The file of a sink: an inherited descriptor, or a path that may be rotated.

Only the thread of a sink calls this, because every call of it may wait for a disk.
"""

import errno
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final
from weakref import WeakValueDictionary

_MODE: Final = 0o666  # as `open` does; the umask decides
#: O_NONBLOCK: opening a FIFO without a reader then fails instead of blocking the gate.
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK


class _QueueSlot:
    """The lock for writing into one file."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = Lock()


_turns: Final[WeakValueDictionary[tuple[int, int], _QueueSlot]] = WeakValueDictionary()
_making: Final = Lock()


class SinkFile:
    """An open file that takes whole lines."""

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor
        self._turn: _QueueSlot | None = None
        #: Whether the file may end within a line that an earlier process could not finish.
        self._is_new = True

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Stop every other sink of the process from writing into this file meanwhile."""
        if self._turn is None:
            self._turn = _turn_of(self._descriptor)
        with self._turn.lock:
            yield

    def refresh(self) -> bool:
        """Whether the file has changed since the last call. Raises OSError."""
        return False

    def write(self, data: memoryview) -> int:
        """Write some of `data` and return how many bytes that was. Raises OSError."""
        if self._is_new:
            if _ends_within_a_line(self._descriptor):
                os.write(self._descriptor, b"\n")
            self._is_new = False
        return os.write(self._descriptor, data)

    def wait(self, seconds: float) -> None:
        """Wait until the descriptor, which does not block, is writable."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll(seconds * 1000)


class RotatedFile(SinkFile):
    """A file by its path; reopened once it was moved away or removed, or its reader left.

    `open` raises OSError if the file cannot exist. A FIFO without a reader is waited for.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._identity = (-1, -1)

    def open(self) -> None:
        """Open the path. Raises OSError; a FIFO without a reader is no error."""
        try:
            self.refresh()
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise

    def refresh(self) -> bool:
        """Reopen the path if it is another file now; return whether it was."""
        if self._descriptor >= 0 and self._is_in_place():
            return False
        self._close()
        descriptor = os.open(self._path, _FLAGS, _MODE)
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            os.set_blocking(descriptor, True)
        self._descriptor, self._is_new = descriptor, True
        self._identity = found.st_dev, found.st_ino
        return True

    def write(self, data: memoryview) -> int:
        """Write some of `data`; after an error other than a full disk the file is reopened."""
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                self._close()
            raise

    def _is_in_place(self) -> bool:
        try:
            found = Path(self._path).stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


def _turn_of(descriptor: int) -> _QueueSlot:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return _QueueSlot()
    with _making:
        return _turns.setdefault((found.st_dev, found.st_ino), _QueueSlot())


def _ends_within_a_line(descriptor: int) -> bool:
    """Whether a regular file ends in a line without a line break."""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return False
        # Opened again, because the descriptor itself is write-only.
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pread(again, 1, found.st_size - 1) != b"\n"
    except OSError:
        return False
    finally:
        os.close(again)
