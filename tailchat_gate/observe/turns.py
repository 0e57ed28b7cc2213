"""Locks for log files, so that sinks and processes do not split each other's lines."""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final
from weakref import WeakValueDictionary

#: C's struct flock (fcntl(2)).
_FLOCK: Final = struct.Struct("@hhqqi0q")
_PLACES: Final = 1 << 16
_BEGUN, _DONE = 1, 0


class WriteLock:
    """The lock of this process for writing into one file."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = Lock()


class OtherProcesses:
    """Keeps processes that write into the same files from splitting each other's lines.

    A pipe takes at most 4 KiB at once (pipe(7)), so a longer line could be split by one of another
    process. The processes share a file with one byte for each log file, and lock that byte. Its
    value says whether a line has begun, since a process may be killed within one.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        #: Mapped, because the size of files that a process writes can be limited (setrlimit(2)).
        self._lines_begun: mmap.mmap | None = None

    def share(self, descriptor: int) -> None:
        """Use the shared file of another process, by its inherited descriptor. Raises OSError."""
        # Opened again: a lock belongs to an open file description, and an inherited descriptor has
        # the same one as its parent (fcntl(2)).
        self._use(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC))

    def begin(self) -> int:
        """Return the descriptor of a file for other processes to `share`, always the same one.

        Call it before the first line is written, because from then on this process locks there.
        Raises OSError.
        """
        if self._descriptor < 0:
            descriptor = os.memfd_create("gate-turns", os.MFD_CLOEXEC)
            os.pwrite(descriptor, b"\0", _PLACES - 1)
            self._use(descriptor)
        return self._descriptor

    def _use(self, descriptor: int) -> None:
        self._lines_begun = mmap.mmap(descriptor, _PLACES)
        self._descriptor = descriptor

    @contextmanager
    def turn(self, descriptor: int) -> Iterator[bool]:
        """Lock a file against other processes; yield whether one of them left a line unfinished."""
        lines_begun = self._lines_begun
        if lines_begun is None:
            yield False
            return
        try:
            status = os.fstat(descriptor)
        except OSError:
            yield False
            return
        place = hash((status.st_dev, status.st_ino)) % _PLACES
        self._lock(place, fcntl.F_WRLCK)
        try:
            was_cut = lines_begun[place] == _BEGUN
            lines_begun[place] = _BEGUN
            yield was_cut
        finally:
            lines_begun[place] = _DONE
            self._lock(place, fcntl.F_UNLCK)

    def _lock(self, place: int, kind: int) -> None:
        wanted = _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLKW, wanted)


others: Final = OtherProcesses()
_turns: Final[WeakValueDictionary[tuple[int, int], WriteLock]] = WeakValueDictionary()
_making: Final = Lock()


def write_lock_of(descriptor: int) -> WriteLock:
    """Return the lock of this process for the file of a descriptor."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return WriteLock()
    with _making:
        return _turns.setdefault((status.st_dev, status.st_ino), WriteLock())
