"""Ends requests under way whose session has ended, or that changed rules would refuse."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Protocol

from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.client.active_request import ActiveRequest, Admission
from tailchat_gate.proxy.client.connection import CurrentService
from tailchat_gate.reasons import Reason

#: The most seconds that block the event loop; thousands of WebSockets are judged in slices.
SLICE_SECONDS = 0.002

_log: Final = logging.getLogger(LOGGER_NAME)


class Connection(Protocol):
    """The connection of a client."""

    @property
    def active_request(self) -> ActiveRequest | None:
        """The request under way, None if there is none."""


class RightWatch:
    """Ends requests under way that would be refused now, with the reason of a new request.

    It costs nothing without a change, because requests are not registered here. Requests that
    arrive during a run are judged by the new rules anyway.
    """

    def __init__(self, connections: Collection[Connection], service: CurrentService) -> None:
        self._connections = connections
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None

    def changed(self) -> None:
        """Judge every request under way again, soon; restarts a run under way."""
        self.close()
        self._next = self._loop.call_soon(self._begin)

    def close(self) -> None:
        """End the run."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _begin(self) -> None:
        self._run(iter(tuple(self._connections)))

    def _run(self, connections: Iterator[Connection]) -> None:
        self._next = None
        end = self._loop.time() + SLICE_SECONDS
        for connection in connections:
            active_request = connection.active_request
            admission = None if active_request is None else active_request.admission
            if active_request is not None and admission is not None:
                self._judge(active_request, admission)
            if self._loop.time() >= end:
                self._next = self._loop.call_soon(self._run, connections)
                return

    def _judge(self, active_request: ActiveRequest, admission: Admission) -> None:
        try:
            reason = self._service.handler.judge_again(admission)
        except Exception:  # noqa: BLE001 - a fault of any kind must deny
            _log.exception("a request under way could not be judged again")
            reason = Reason.INTERNAL_ERROR
        if reason is not None:
            _end(active_request, reason)


class SessionWatch:
    """Ends requests under way whose session or token has expired, was ended or is locked.

    The server calls `check` twice a second and after each change, so that short requests cost
    nothing. `clock` returns Unix seconds.
    """

    def __init__(self, revocation: RevocationState, clock: Callable[[], float]) -> None:
        self._revocation = revocation
        self._clock = clock

    def check(self, active_requests: Iterable[ActiveRequest]) -> None:
        """End the requests whose session has ended."""
        now = self._clock()
        for active_request in active_requests:
            reason = self._why_over(active_request, now)
            if reason is not None:
                _end(active_request, reason)

    def _why_over(self, active_request: ActiveRequest, now: float) -> Reason | None:
        session = active_request.session
        if session is None:
            return None
        try:
            return session.ended_because(self._revocation, now)
        except Exception:  # noqa: BLE001 - a fault of any kind must deny, and this request alone
            _log.exception("a session of a request under way could not be checked")
            return Reason.INTERNAL_ERROR


def _end(active_request: ActiveRequest, reason: Reason) -> None:
    try:
        active_request.session_over(reason)
    except Exception:  # noqa: BLE001 - the other requests must still be ended
        _log.exception("a request that lost its session or right could not be ended")
