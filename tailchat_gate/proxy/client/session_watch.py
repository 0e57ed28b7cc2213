"""Ends the requests under way of a session that has ended."""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.client.active_request import ActiveRequest
from tailchat_gate.reasons import Reason

_log: Final = logging.getLogger(LOGGER_NAME)


class SessionWatch:
    """Ends requests under way whose session or token has expired, was ended or is locked.

    The server calls `check` twice a second and after each change, so a request that is answered
    at once costs nothing. `clock` returns Unix seconds.
    """

    def __init__(self, revocation: RevocationState, clock: Callable[[], float]) -> None:
        self._revocation = revocation
        self._clock = clock

    def check(self, active_requests: Iterable[ActiveRequest]) -> None:
        """End the requests whose session has ended."""
        now, revocation = self._clock(), self._revocation
        for active_request in active_requests:
            session = active_request.session
            if (
                session is not None
                and (reason := session.ended_because(revocation, now)) is not None
            ):
                _end(active_request, reason)


def _end(active_request: ActiveRequest, reason: Reason) -> None:
    try:
        active_request.session_over(reason)
    except Exception:  # noqa: BLE001 - one that cannot be ended must not keep the others alive
        _log.exception("what was under way for a session that is over could not be ended")
