"""The output of a log: a bounded queue, its file, and a thread of its own that writes.

Nothing here blocks the caller: with a full disk, a pipe that nobody reads or a dead mount, lines
are lost and counted, but no request waits.
"""

import errno
import logging
import os
import select
import stat
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition, Thread
from typing import Final

from tailchat_gate.observe.turns import WriteLock, others, write_lock_of

#: For the gate's user and its group only: the lines name people and what they opened.
_MODE: Final = 0o640
#: O_NONBLOCK: opening a FIFO without a reader then fails instead of blocking the gate.
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK


class SinkFile:
    """An open file that takes whole lines."""

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor
        self._turn: WriteLock | None = None
        #: Nothing was written yet: the file may end in a line that an earlier process left open.
        self._is_new = True
        #: Another process was ended within a line.
        self._is_within = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep all other sinks, also of other processes, from writing into this file meanwhile."""
        if self._turn is None:
            self._turn = write_lock_of(self._descriptor)
        with self._turn.lock, others.turn(self._descriptor) as was_cut:
            self._is_within = was_cut
            yield

    def refresh(self) -> bool:
        """Reopen the file if it was replaced; return whether it was. Raises OSError."""
        return False

    def write(self, data: memoryview) -> int:
        """Write some of `data` and return how many bytes that was. Raises OSError."""
        if self._is_new:
            self._is_within = self._is_within or _ends_within_a_line(self._descriptor)
            self._is_new = False
        if self._is_within:
            os.write(self._descriptor, b"\n")
            self._is_within = False
        return os.write(self._descriptor, data)

    def wait(self, seconds: float) -> None:
        """Wait until the descriptor, which does not block, is writable."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll(seconds * 1000)


class RotatedFile(SinkFile):
    """A file by its path, reopened after it was moved away or removed, or its reader left.

    A FIFO without a reader is waited for.
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
        """Reopen the path if another file is there now; return whether it was reopened."""
        if self._descriptor >= 0 and self._is_in_place():
            return False
        self.close()
        descriptor = _opened(self._path)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            os.set_blocking(descriptor, True)
        self._descriptor, self._is_new = descriptor, True
        self._identity = status.st_dev, status.st_ino
        return True

    def write(self, data: memoryview) -> int:
        """Write some of `data`; after an error other than a full disk the file is reopened."""
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                self.close()
            raise

    def _is_in_place(self) -> bool:
        try:
            status = Path(self._path).stat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


def _opened(path: str) -> int:
    """Open a log; one that root creates gets the owner of its directory, who may go on with it."""
    if os.geteuid() != 0:
        return os.open(path, _FLAGS, _MODE)
    try:
        descriptor = os.open(path, _FLAGS | os.O_EXCL, _MODE)
    except FileExistsError:
        return os.open(path, _FLAGS, _MODE)
    like = Path(path).parent.stat()
    if like.st_uid != 0:
        os.fchown(descriptor, like.st_uid, like.st_gid)
    return descriptor


def _ends_within_a_line(descriptor: int) -> bool:
    """Whether a regular file ends within a line."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        # Opened again, because the descriptor itself is write-only.
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pread(again, 1, status.st_size - 1) != b"\n"
    except OSError:
        return False
    finally:
        os.close(again)


#: Bytes that may wait, about 20,000 lines; lines about strangers may take half of it.
CAPACITY: Final = 8 << 20
#: Lines are joined up to this many bytes, so that a busy log makes few system calls.
_BATCH: Final = 1 << 17
#: Seconds until the next attempt on a file that cannot be written.
RETRY_SECONDS: Final = 1.0
#: Seconds between two log lines about the same fault.
REPEAT_SECONDS: Final = 60.0
#: Seconds that the end of the process waits for a reader that has stopped.
CLOSE_SECONDS: Final = 2.0

_log: Final = logging.getLogger(__name__)


class Sink:
    """Writes whole lines to a file, in order, from its own thread.

    While the file cannot be written the lines wait, up to `capacity` bytes. `lost` counts those
    that do not fit; once the file can be written again, the gate's own log says how many.
    `written` counts the lines that the file took.
    """

    def __init__(self, name: str, file: SinkFile, *, capacity: int = CAPACITY) -> None:
        self.name: Final = name
        self.written = 0
        self.lost = 0
        self._file = file
        self._capacity = capacity
        #: The waiting data, with the number of lines in each entry.
        self._entries: deque[tuple[bytes, int]] = deque()
        #: The bytes in the current write.
        self._batch = b""
        #: Bytes that wait, including those in the current write.
        self._size = 0
        # Its lock is re-entrant: the garbage collector may run anywhere, and a destructor may log.
        self._changed = Condition()
        self._closing = self._failing = False
        self._writer: Thread | None = None
        self._told_lost, self._told_at = 0, -REPEAT_SECONDS

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._size

    @property
    def is_running(self) -> bool:
        """Whether its thread runs."""
        return self._writer is not None and self._writer.is_alive()

    def put(self, data: bytes, lines: int = 1, *, stranger: bool = False) -> None:
        """Queue whole lines; lines of a `stranger` are lost first when the queue fills."""
        room = self._capacity // 2 if stranger else self._capacity
        if sys.is_finalizing():
            # At the end of the interpreter no other thread runs: waiting for a new one, or for a
            # lock that one holds, would keep the process from ending.
            self.lost += lines
            return
        with self._changed:
            if self._size + len(data) > room:
                self.lost += lines
                return
            self._entries.append((data, lines))
            self._size += len(data)
            self._closing = False
            if self.is_running:
                self._changed.notify()
            else:
                self._start()

    def finish(self) -> None:
        """Have the thread write what is left, without waiting for a file that fails, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self, within: float = CLOSE_SECONDS) -> int:
        """Finish, and return how many lines were not written within `within` seconds."""
        self.finish()
        writer = self._writer
        if writer is not None:
            writer.join(within)
        with self._changed:
            waiting = self._batch.count(b"\n") + sum(lines for _, lines in self._entries)
            return self.lost - self._told_lost + waiting

    def close_and_log(self, within: float = CLOSE_SECONDS) -> None:
        """Close, and log how many lines were not written."""
        unwritten = self.close(within)
        if unwritten:
            _log.error(
                "lines of the %s log were lost at the end",
                self.name,
                extra={"details": {"sink": self.name, "lost": unwritten}},
            )

    def _start(self) -> None:
        self._writer = Thread(target=self._run, name=f"{self.name}-log", daemon=True)
        try:
            self._writer.start()
        except RuntimeError:  # no thread is available now; the next line tries again
            self._writer = None

    def _run(self) -> None:
        while (next_batch := self._next_batch()) is not None:
            batch, lines = next_batch
            try:
                self._write(batch, lines)
            except Exception:  # noqa: BLE001 - any error costs these lines only
                self._lose(lines)
                if not self._failing:
                    self._failing = True
                    _log.exception("the %s log cannot be written", self.name)
            with self._changed:
                self._batch = b""
                self._size = self._size - len(batch) if self._entries else 0
            self._tell_lost()

    def _next_batch(self) -> tuple[bytes, int] | None:
        """Wait for lines; return some and their number, None when the sink is closed and empty."""
        with self._changed:
            while not self._entries:
                if self._closing:
                    self._writer = None
                    return None
                self._changed.wait()
            batch = [self._entries.popleft()]
            size = len(batch[0][0])
            while self._entries and size + len(self._entries[0][0]) <= _BATCH:
                batch.append(self._entries.popleft())
                size += len(batch[-1][0])
            self._batch = b"".join(data for data, _ in batch)
            return self._batch, sum(lines for _, lines in batch)

    def _write(self, data: bytes, lines: int) -> None:
        """Write these lines, waiting for the file until the sink is closed; the rest is lost.

        A partial write is continued, or, if the file was replaced meanwhile, its last line is
        written again.
        """
        done, view = 0, memoryview(data)
        # Two logs may share a pipe, and must not split each other's lines.
        with self._file.turn():
            while done < len(data):
                try:
                    if self._file.refresh():
                        done = data.rfind(b"\n", 0, done) + 1
                    done += self._file.write(view[done:])
                except OSError as error:
                    self._note(error)
                    if self._is_over_after(error):
                        break
        lost = data.count(b"\n", done)
        self.written += lines - lost
        if lost:
            self._lose(lost)
        elif self._failing:
            self._failing = False
            _log.warning("the %s log can be written again", self.name)

    def _lose(self, lines: int) -> None:
        with self._changed:
            self.lost += lines

    def _note(self, error: OSError) -> None:
        """Log once that the file fails; a full pipe is not a failure."""
        if not self._failing and not isinstance(error, BlockingIOError):
            self._failing = True
            _log.error("the %s log cannot be written, its lines wait: %s", self.name, error)

    def _is_over_after(self, error: OSError) -> bool:
        """Wait before the next attempt; return whether the sink was closed meanwhile."""
        if isinstance(error, BlockingIOError):
            self._file.wait(RETRY_SECONDS)
            return False
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)

    def _tell_lost(self) -> None:
        """Log how many lines were lost, once the queue is empty or a minute has passed."""
        lost, now = self.lost - self._told_lost, time.monotonic()
        if lost and not self._failing and (not self._size or now > self._told_at + REPEAT_SECONDS):
            self._told_lost, self._told_at = self.lost, now
            _log.error(
                "lines of the %s log were lost",
                self.name,
                extra={"details": {"sink": self.name, "lost": lost}},
            )
