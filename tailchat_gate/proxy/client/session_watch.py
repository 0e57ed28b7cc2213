"""Ends what is under way for a session when that session is over."""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from tailchat_gate.identity.revocation.state import Standing
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.client.connection import Work
from tailchat_gate.reasons import Reason

_log: Final = logging.getLogger(LOGGER_NAME)


class LiveSessions:
    """Finds the work whose session or token has expired, was ended or is locked, and ends it.

    A request that is answered at once is never looked at: whoever has the connections asks twice
    a second, and when something changes. `clock` gives Unix seconds.
    """

    def __init__(self, standing: Standing, clock: Callable[[], float]) -> None:
        self._standing = standing
        self._clock = clock

    def check(self, works: Iterable[Work]) -> None:
        """End the work whose session is over."""
        now, standing = self._clock(), self._standing
        for work in works:
            session = work.session
            if session is not None and (reason := session.over(standing, now)) is not None:
                _end(work, reason)


def _end(work: Work, reason: Reason) -> None:
    try:
        work.session_over(reason)
    except Exception:  # noqa: BLE001 - one that cannot be ended must not keep the others alive
        _log.exception("what was under way for a session that is over could not be ended")
