"""Spreads connections evenly over the workers of a gate, which accept from the same sockets.

The kernel wakes all workers for a connection, and the first to run accepts everything that waits:
of 32 connections that arrived at once, one of two workers accepted up to 32.
"""

import mmap
import os
from typing import Final

#: Each count has its own cache line, so that processors do not wait for each other: words and bytes
#: from one count to the next.
_STEP: Final = 8
_STEP_BYTES: Final = 64
#: The count of a worker that accepts no connections: greater than any real one.
_NONE: Final = (1 << 64) - 1
#: A worker may have this much more than another: its own count shifted by these bits, at least 1.
_SLACK_BITS: Final = 4


class Balance:
    """The connection count of worker `number` of `count`; `memory` holds those of all workers."""

    def __init__(self, memory: int, number: int, count: int) -> None:
        """Begin to count at zero. Raises OSError and ValueError."""
        shared = mmap.mmap(memory, count * _STEP_BYTES)
        self._counts: Final = memoryview(shared).cast("Q")[::_STEP]
        #: The number of workers, among which the gate's limits are divided.
        self.workers: Final = count
        self._own: Final = number - 1
        self._others: Final = [at for at in range(count) if at != self._own]
        self._leaving = False
        self._counts[self._own] = 0

    def tell(self, connections: int) -> None:
        """Set the worker's count to its number of connections."""
        if not self._leaving:
            self._counts[self._own] = connections

    def took(self) -> None:
        """Count a connection that was just accepted and is not part of the next `tell` yet."""
        if not self._leaving:
            self._counts[self._own] += 1

    @property
    def is_ahead(self) -> bool:
        """Whether another worker should accept the next connection."""
        own = self._counts[self._own]
        slack = max(1, own >> _SLACK_BITS)
        return own > min(self._counts[at] for at in self._others) + slack

    def leave(self) -> None:
        """Mark this worker as accepting no more, so that the others do not wait for it."""
        self._leaving = True
        self._counts[self._own] = _NONE


def takes_none(memory: int, number: int) -> None:
    """Mark a worker that has not started or has ended as accepting none. Raises OSError."""
    os.pwrite(memory, _NONE.to_bytes(8), (number - 1) * _STEP_BYTES)
    # mmap needs the whole cache line of the last count.
    if os.fstat(memory).st_size < number * _STEP_BYTES:
        os.ftruncate(memory, number * _STEP_BYTES)
