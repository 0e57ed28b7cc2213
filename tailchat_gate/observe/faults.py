"""Faults that stop everybody, told as errors: each once a minute, with how often it came."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from tailchat_gate.observe.log import LOGGER_NAME

#: A fault that comes again and again is told once in so many seconds, with its count.
TELL_SECONDS: Final = 60.0

_log: Final = logging.getLogger(LOGGER_NAME)


class Faults:
    """Tells faults to the gate's own log; `clock` gives Unix seconds.

    A message is one of few that the gate has, so what is kept is small.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, message: str, details: Mapping[str, str]) -> None:
        """Log a fault as an error, unless it was told within a minute; `details` without secrets.

        `count` is how often it came since it was told before.
        """
        now = self._clock()
        told_at, count = self._told.get(message, (-TELL_SECONDS, 0))
        if told_at <= now < told_at + TELL_SECONDS:
            self._told[message] = (told_at, count + 1)
            return
        self._told[message] = (now, 0)
        _log.error(message, extra={"details": {**details, "count": count + 1}})
