"""Has the workers of a gate take about as many connections each, from sockets that they share.

The kernel wakes all of them for a connection, and the first one to run takes whatever waits: of 32
connections that came at once, one of two workers took up to 32.
"""

import mmap
import os
from typing import Final

#: Words and bytes from one count to the next: processors do not wait for each other's.
_STEP: Final = 8
_STEP_BYTES: Final = 64
#: The count of a worker that takes none; no number of connections is greater.
_NONE: Final = (1 << 64) - 1
#: One worker may have this part more than another, and at least one connection.
_SLACK_BITS: Final = 4


class Balance:
    """The count of worker `number`, of `count`, beside those of the others; all by `memory`."""

    def __init__(self, memory: int, number: int, count: int) -> None:
        """Begin to count, from none. Raises OSError and ValueError."""
        shared = mmap.mmap(memory, count * _STEP_BYTES)
        self._counts: Final = memoryview(shared).cast("Q")[::_STEP]
        #: How many share what the gate may have.
        self.workers: Final = count
        self._own: Final = number - 1
        self._others: Final = [at for at in range(count) if at != self._own]
        self._leaving = False
        self._counts[self._own] = 0

    def tell(self, connections: int) -> None:
        """The worker has so many connections now."""
        if not self._leaving:
            self._counts[self._own] = connections

    def took(self) -> None:
        """The worker has accepted another one, which is none of those told yet."""
        if not self._leaving:
            self._counts[self._own] += 1

    @property
    def is_ahead(self) -> bool:
        """Whether another worker is to take the next one."""
        own = self._counts[self._own]
        slack = max(1, own >> _SLACK_BITS)
        return own > min(self._counts[at] for at in self._others) + slack

    def leave(self) -> None:
        """Take none any longer, and let the others not wait for it."""
        self._leaving = True
        self._counts[self._own] = _NONE


def takes_none(memory: int, number: int) -> None:
    """Say of a worker that it takes none: before its start, and after its end. Raises OSError."""
    os.pwrite(memory, _NONE.to_bytes(8), (number - 1) * _STEP_BYTES)
    # The last count's whole step has to be in the file.
    if os.fstat(memory).st_size < number * _STEP_BYTES:
        os.ftruncate(memory, number * _STEP_BYTES)
