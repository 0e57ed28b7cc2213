"""Lets one sink of one process write into the file of a log at a time."""

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


class QueueSlot:
    """The lock for writing into one file."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = Lock()


class OtherProcesses:
    """Keeps processes that write into the same files from splitting each other's lines.

    A pipe takes at most 4 KiB at once, so a longer line of one could come into a line of another
    (pipe(7)). They lock a byte for each file in a file that they share; the byte itself says
    whether a line has begun there, since a process may be killed within one.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        #: In memory: what a process may write into files can be limited (setrlimit(2)).
        self._begun: mmap.mmap | None = None

    def share(self, descriptor: int) -> None:
        """Use a file, by a descriptor of whichever process. Raises OSError."""
        # Opened again: a lock belongs to an opening, and a descriptor that was inherited is of the
        # same one (fcntl(2), open file description locks).
        self._use(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC))

    def begin(self) -> int:
        """Return the descriptor of a file for others to `share`, the same one each time.

        This process uses it from now on: call it before the first line, because a line that is half
        written already has no turn. Raises OSError.
        """
        if self._descriptor < 0:
            found = os.memfd_create("gate-turns", os.MFD_CLOEXEC)
            os.pwrite(found, b"\0", _PLACES - 1)
            self._use(found)
        return self._descriptor

    def _use(self, descriptor: int) -> None:
        self._begun = mmap.mmap(descriptor, _PLACES)
        self._descriptor = descriptor

    @contextmanager
    def turn(self, descriptor: int) -> Iterator[bool]:
        """Stop every other process from writing meanwhile; yields whether a line was cut off."""
        begun = self._begun
        if begun is None:
            yield False
            return
        try:
            found = os.fstat(descriptor)
        except OSError:
            yield False
            return
        place = hash((found.st_dev, found.st_ino)) % _PLACES
        self._lock(place, fcntl.F_WRLCK)
        try:
            was_cut = begun[place] == _BEGUN
            begun[place] = _BEGUN
            yield was_cut
        finally:
            begun[place] = _DONE
            self._lock(place, fcntl.F_UNLCK)

    def _lock(self, place: int, kind: int) -> None:
        wanted = _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLKW, wanted)


others: Final = OtherProcesses()
_turns: Final[WeakValueDictionary[tuple[int, int], QueueSlot]] = WeakValueDictionary()
_making: Final = Lock()


def turn_of(descriptor: int) -> QueueSlot:
    """Return the lock of this process for the file of a descriptor."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return QueueSlot()
    with _making:
        return _turns.setdefault((found.st_dev, found.st_ino), QueueSlot())
