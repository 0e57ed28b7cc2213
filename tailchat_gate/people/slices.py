"""Runs long computations in the event loop in slices, so that requests are answered in between."""

import asyncio
from collections.abc import Generator
from typing import Final, TypeVar

#: Seconds of work before a pause, and of the pause.
SLICE_SECONDS: Final = 0.002
PAUSE_SECONDS: Final = 0.002

_T = TypeVar("_T")


def at_once(steps: Generator[None, None, _T]) -> _T:
    """Run a generator to its end without pauses and return its result; not in the event loop."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: _T = done.value
            return result


async def in_slices(steps: Generator[None, None, _T]) -> _T:
    """Run a generator, whose steps must be short, to its end with pauses, and return its result.

    No thread is used, because a computing thread holds the interpreter for 5 ms at a time.
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
