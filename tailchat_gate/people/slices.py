"""Does long work in the event loop in slices, between which requests are answered."""

import asyncio
from collections.abc import Generator
from typing import Final, TypeVar

#: Seconds of work before a pause, and of the pause.
SLICE_SECONDS: Final = 0.002
PAUSE_SECONDS: Final = 0.002

_T = TypeVar("_T")


def at_once(steps: Generator[None, None, _T]) -> _T:
    """Return the result of a generator without pauses; not for the event loop."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: _T = done.value
            return result


async def in_slices(steps: Generator[None, None, _T]) -> _T:
    """Return the result of a generator; each of its steps must be short.

    Not in a thread: a thread that computes holds the interpreter for 5 ms at a time.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + SLICE_SECONDS
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: _T = done.value
            return result
        if loop.time() >= end:
            await asyncio.sleep(PAUSE_SECONDS)
            end = loop.time() + SLICE_SECONDS
