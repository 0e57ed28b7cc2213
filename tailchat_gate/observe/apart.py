"""Work that may block, in a thread of its own."""

import asyncio
from collections.abc import Callable
from threading import Thread


async def apart(work: Callable[[], object], name: str) -> None:
    """Do work that takes a bounded time, and wait for it.

    Not in a thread of the loop's pool: a disk that hangs may block all of those.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        work()
        loop.call_soon_threadsafe(done.set)

    Thread(target=run, name=name, daemon=True).start()
    await done.wait()
