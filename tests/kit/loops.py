"""The event loop of most tests: asyncio's, with threads that outlive it.

Each test has a loop of its own, and starts and stops gates, which read files in threads. Starting
new threads for each loop took as long as the reading.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, Final

#: More than the executor of any loop has, so that a test that holds some delays no other test.
_THREADS: Final = ThreadPoolExecutor(64, thread_name_prefix="asyncio_tests")


class Loop(asyncio.SelectorEventLoop):
    """An event loop without an executor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._working = set[Future[Any]]()

    def run_in_executor(  # type: ignore[override] # as typeshed has it, for any arguments
        self,
        executor: Executor | None,
        func: Callable[..., Any],
        *args: Any,  # noqa: ANN401 - of any function
    ) -> asyncio.Future[Any]:
        """Run a function in one of the threads."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        work = _THREADS.submit(func, *args)
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        return asyncio.wrap_future(work, loop=self)

    async def shutdown_default_executor(self) -> None:
        """Wait for the calls under way; if one never returns, the test never ends."""
        wait(tuple(self._working))
