"""Keeps what Tailchat says to everybody alike, so that one question answers all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from tailchat_gate.identity.login import LoginRefused
from tailchat_gate.reasons import Reason

LIFETIME: Final = 600.0
"""Seconds for which an answer is remembered."""
PAUSE: Final = 5.0
"""Seconds after a failure, or before a newer answer is asked for: no stranger sets the pace."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """Something Tailchat says to everybody alike, fetched by one caller for all."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: tuple[float, T] | None = None
        self._failure: tuple[float, Reason, dict[str, str]] | None = None

    async def get(self, *, newer: bool = False) -> T:
        """Return it, at most LIFETIME old, or with `newer` at most PAUSE.

        Raises what the fetch raised, for PAUSE seconds without another fetch.
        """
        async with self._lock:
            now = self._clock()
            if self._value and 0 <= now - self._value[0] < (PAUSE if newer else LIFETIME):
                return self._value[1]
            if self._failure and 0 <= now - self._failure[0] < PAUSE:
                raise LoginRefused(*self._failure[1:])
            try:
                value = await self._fetch()
            except LoginRefused as refused:
                self._failure = (self._clock(), refused.reason, refused.detail)
                raise
            self._value, self._failure = (self._clock(), value), None
            return value
