"""The file that locks and ended sessions are kept in: lines, added by whoever has something to say.

Several processes write and read it at once, the gate's and those of the command line. A writer
holds the file's flock, adds whole lines and waits until the disk has them; a line that its writer
did not live to finish has no end, is read by nobody, and is closed by the next writer. Grown too
long, the file is replaced by a shorter one of the same meaning.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from tailchat_gate.config.state_directory import writable_by_all
from tailchat_gate.identity.lock_lines import read_line, to_line
from tailchat_gate.identity.locks import Entry, Standing

#: Bytes up to which nobody looks whether the file could be shorter.
ROOM: Final = 131_072
#: A longer file is not of the gate's making: 100,000 ended sessions take an eighth of it.
MAX_BYTES: Final = 128 << 20
#: Seconds that a writer waits for another one, which needs milliseconds.
PATIENCE: Final = 5.0
_PAUSE: Final = 0.005
#: The path itself, never where a link leads: an admin runs the commands as root, and whoever can
#: put a link there would have root write to, and give away, any file. Nothing waits for a pipe.
_ITSELF: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_PRIVATE: Final = 0o600


class LockFileError(Exception):
    """The file cannot be used; the text names it and says why. `missing`: it is not there.

    `says_remedy`: the text says what to do as well.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path}: {error.strerror or error}")
        self.missing = isinstance(error, FileNotFoundError)
        self.says_remedy = isinstance(error, ExposedError)


class ExposedError(PermissionError):
    """Every user of this machine could lift a lock."""


class History(NamedTuple):
    """What was read: entries in order, from the file's beginning where `whole`.

    `damaged` counts the lines that are not as they were written.
    """

    entries: list[Entry]
    whole: bool
    damaged: int


class LockFile:
    """The file at `path`. Every call may block, and only one thread may call at a time.

    `clock` gives Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float], *, room: int = ROOM) -> None:
        self._path = path
        self._clock = clock
        self._room = self._compact_at = room
        #: Whether every user of this machine may read it; known once it is open.
        self.exposed = False
        #: Of the file as it was read last: device and inode, size, time of change.
        self._seen: tuple[int, int, int, int] | None = None
        self._read_to = 0

    def open(self) -> History:
        """Make the file where it is missing, and read it. Raises LockFileError."""
        try:
            with self._locked() as descriptor:
                _check_rights(self._path, descriptor)
                self.exposed = bool(os.fstat(descriptor).st_mode & stat.S_IROTH)
        except OSError as error:
            raise LockFileError(self._path, error) from None
        return self.read()

    def read(self) -> History:
        """Read the file from its beginning. Raises LockFileError."""
        self.forget()
        try:
            found = self.read_new()
        except OSError as error:
            raise LockFileError(self._path, error) from None
        return found or History([], whole=True, damaged=0)

    def forget(self) -> None:
        """Read the file from its beginning the next time, changed or not."""
        self._seen = None

    def read_new(self) -> History | None:
        """Read what was added since the last time, None where the file is unchanged.

        A file that was replaced, shortened or altered is read from its beginning. Raises OSError.
        """
        found = self._path.stat()
        if self._seen == _identity(found):
            return None
        descriptor = _open(self._path, os.O_RDONLY)
        try:
            found = os.fstat(descriptor)
            seen = self._seen
            grown = (
                seen is not None and seen[:2] == _identity(found)[:2] and found.st_size > seen[2]
            )
            start = self._read_to if grown else 0
            data = _read_from(descriptor, start)
        finally:
            os.close(descriptor)
        # A line without an end is being written, or will never be whole.
        end = data.rfind(b"\n") + 1
        entries, damaged = _read_lines(data[:end])
        if start and damaged:
            # Lines may have been taken back and others have come in their place.
            self._seen = None
            return self.read_new()
        self._seen, self._read_to = _identity(found), start + end
        return History(entries, not start, damaged)

    def append(self, entries: Iterable[Entry], anew: Sequence[Entry] = ()) -> None:
        """Add entries, and return when the disk has them. Raises OSError.

        `anew` goes before them where the file turns out to be empty, because it was lost.
        """
        with self._locked() as descriptor:
            size = os.fstat(descriptor).st_size
            lines = [to_line(entry) for entry in (*(() if size else anew), *entries)]
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # Somebody died in the middle of a line. It must not swallow this one.
                lines.insert(0, b"\n")
            _add(descriptor, b"".join(lines), size)
            if os.fstat(descriptor).st_size > self._compact_at:
                self._compact(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Open the file for writing and hold its flock; raises OSError."""
        end = time.monotonic() + PATIENCE
        descriptor = None
        while descriptor is None:
            descriptor = self._try_to_lock(end)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _try_to_lock(self, end: float) -> int | None:
        """Return the file open and locked; None where it was replaced while that was waited for."""
        descriptor, kept = self._open(), False
        try:
            _take(descriptor, end)
            kept = os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            if time.monotonic() >= end:
                raise
        finally:
            if not kept:
                os.close(descriptor)
        return descriptor if kept else None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND
        try:
            return _open(self._path, flags)
        except FileNotFoundError:
            descriptor = _open(self._path, flags | os.O_CREAT)
        # Made by an admin, it must be the gate's to write, as its directory is.
        _give(descriptor, self._path.parent.stat())
        _sync_directory(self._path.parent)
        return descriptor

    def _compact(self, descriptor: int) -> None:
        """Replace the file by the shortest with the same meaning, where that is worth it.

        A disk without room for it is no fault: the file is whole as it is.
        """
        data = _read_from(descriptor, 0)
        standing = Standing(self._clock)
        for entry in _read_lines(data.rpartition(b"\n")[0])[0]:
            standing.apply(entry)
        shorter = b"".join(map(to_line, standing.entries()))
        if 2 * len(shorter) < len(data):
            with suppress(OSError):
                self._replace(descriptor, shorter)
                data = shorter
        self._compact_at = max(self._room, 2 * len(data))

    def _replace(self, descriptor: int, data: bytes) -> None:
        old = os.fstat(descriptor)
        beside = self._path.with_name(f"{self._path.name}.new")
        # One that was left behind by a crash may be somebody else's to write.
        beside.unlink(missing_ok=True)
        new = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        try:
            _write(new, data)
            _give(new, old)
            os.fchmod(new, stat.S_IMODE(old.st_mode))
            os.fsync(new)
        finally:
            os.close(new)
        beside.rename(self._path)
        _sync_directory(self._path.parent)


def _open(path: Path, flags: int) -> int:
    """Open a file that is one, for its owner alone where it is made. Raises OSError."""
    try:
        descriptor = os.open(path, flags | _ITSELF, _PRIVATE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, which may lead anywhere") from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    what = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "not a file"
    raise OSError(errno.EINVAL, what)


def _read_lines(data: bytes) -> tuple[list[Entry], int]:
    """Return the entries in whole lines, and how many of the lines are damaged."""
    entries: list[Entry] = []
    damaged = 0
    for line in data.split(b"\n"):
        if line:
            entry, whole = read_line(line)
            damaged += not whole
            if entry is not None:
                entries.append(entry)
    return entries, damaged


def _read_from(descriptor: int, start: int) -> bytes:
    """Return what stands in a file from `start` on. Raises OSError for one that is too long."""
    pieces: list[bytes] = []
    while piece := os.pread(descriptor, 1 << 20, start):
        pieces.append(piece)
        start += len(piece)
        if start > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES >> 20} MiB")
    return b"".join(pieces)


def _add(descriptor: int, data: bytes, size: int) -> None:
    """Write behind the end, which is at `size`, all or nothing."""
    try:
        _write(descriptor, data)
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _take(descriptor: int, end: float) -> None:
    """Wait for the flock until `end` of the monotonic clock. Raises TimeoutError, an OSError."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError("another process has kept it locked for too long") from None
            time.sleep(_PAUSE)
        else:
            return


def _give(descriptor: int, like: os.stat_result) -> None:
    """Give a file the owner of another one; only root can, and only root has to."""
    own = os.fstat(descriptor)
    if os.geteuid() == 0 and (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(descriptor, like.st_uid, like.st_gid)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_rights(path: Path, descriptor: int) -> None:
    """Raise ExposedError where any user of this machine could lift a lock."""
    for what, found in ((path, os.fstat(descriptor)), (path.parent, path.parent.stat())):
        told = writable_by_all(what, found.st_mode)
        if told:
            raise ExposedError(told)


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
