"""Runs blocking work in a thread of its own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T], name: str = "blocking") -> _T:
    """Run `work` in a thread called `name`; return its result or raise its exception.

    It may block forever, as on a dead disk. So the loop's executor is not used: such work could
    take all of its threads, and the end of the process would wait for them.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # _T may be None itself

    def run() -> None:
        result, fault = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised by the caller's await
            fault = error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, result, fault)

    Thread(target=run, name=name, daemon=True).start()
    return await done
