"""Takes the samples of the last ten minutes, so that they are there when a page opens."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from tailchat_gate.observe.history import STEP_SECONDS, Figures, History
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.slices import in_slices

_log: Final = logging.getLogger(LOGGER_NAME)


class Sampler:
    """Samples `figures`, of one process or of all workers.

    `apart` returns the routes that are not part of the total.
    """

    def __init__(self, figures: Figures, apart: Callable[[], Collection[str]]) -> None:
        self.figures: Final = figures
        self.history: Final = History(apart)
        #: How many samples were taken.
        self.count = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take samples; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop taking samples."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                await in_slices(self.history.sample(self.figures))
                self.count += 1
            except Exception:  # noqa: BLE001 - the next sample may succeed
                _log.exception("a sample for the admin page's plots could not be taken")
            await asyncio.sleep(STEP_SECONDS)
