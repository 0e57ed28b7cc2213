"""Waits for an upstream that refuses connections: one request tries, the others wait for it."""

import asyncio
from collections import deque
from typing import Final

#: How long it is left alone between two tries.
PAUSE_SECONDS: Final = 0.1


class Comeback:
    """Those who wait for one upstream. However many they are, one connection at a time is tried."""

    def __init__(self) -> None:
        self._pausing = False
        self._waiters: deque[asyncio.Future[bool]] = deque()

    async def wait(self, seconds: float) -> bool:
        """Wait until it is time to try again; return False where that takes so many seconds.

        Whoever was told to try calls `back` or `gave_up` after that, or waits again.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        if self._pausing:
            waiter = loop.create_future()
            self._waiters.append(waiter)
            try:
                await asyncio.wait((waiter,), timeout=seconds)
            finally:
                # Also where the client has left: its turn would be nobody's.
                waiter.cancel()
            if waiter.cancelled():
                return False
            if waiter.result():
                return True
        self._pausing = True
        try:
            await asyncio.sleep(max(0.0, min(PAUSE_SECONDS, end - loop.time())))
        finally:
            self._pausing = False
        return True

    def back(self) -> None:
        """Hear that the upstream takes connections again: everybody tries."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(True)

    def gave_up(self) -> None:
        """Hear that somebody tries no more: if nobody else does, the next one does."""
        while self._waiters and not self._pausing:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(False)
                return
