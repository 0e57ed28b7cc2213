"""Runs the steps of an exchange that have to wait, and ends it if there is a fault in them."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.request.context import RequestContext, log_extra

_log: Final = logging.getLogger(LOGGER_NAME)


def run(
    steps: Coroutine[object, object, None], context: RequestContext, failed: Callable[[], None]
) -> "asyncio.Task[None]":
    """Run steps in a task. If a fault inside the gate ends them, log it and call `failed`.

    Otherwise nobody would notice the fault: the client would wait for its response forever.
    """

    def done(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            message = "a request failed inside the gate"
            _log.error(message, exc_info=error, extra=log_extra(context))
            failed()

    task = asyncio.get_running_loop().create_task(steps)
    task.add_done_callback(done)
    return task


def ended_before(_client: object, _exchange: object) -> None:
    """Do nothing: the end of an exchange has failed, and must not free its slot a second time."""
