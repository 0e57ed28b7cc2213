"""Receives signals in a separate thread, so that a stop works even if the event loop is blocked."""

import logging
import math
import os
import signal
from collections.abc import Callable
from threading import Lock, Thread, Timer
from time import monotonic
from typing import Final

from tailchat_gate.observe.log import LOGGER_NAME, close_logging

#: The exit code of a process that had to be killed at the end because something hung.
EXIT_HUNG: Final = 3
#: Seconds that a shutdown may take beyond `server.shutdown_timeout`; the systemd unit and
#: compose.yaml allow ten.
GRACE_SECONDS: Final = 8.0
#: Seconds for closing open connections after a second stop signal.
HURRY_SECONDS: Final = 2.0
#: Seconds for the remaining work after everything is closed, within those of the whole shutdown;
#: threads that wait for a disk or a DNS name are abandoned.
LEAVE_SECONDS: Final = 3.0
_LOG_SECONDS: Final = 0.5

_STOP: Final = frozenset((signal.SIGTERM, signal.SIGINT))
#: Signals that wait until `listen` is called.
_ORDERS: Final = frozenset((signal.SIGHUP, signal.SIGUSR2))
_TAKEN: Final = _STOP | _ORDERS

_log: Final = logging.getLogger(LOGGER_NAME)


class Signals:
    """Receives signals, and kills this process if it does not end by itself.

    The event loop cannot see a signal while something blocks it, and cannot end the process while
    a thread waits for a disk. Until `listen` is called, SIGTERM and SIGINT have their default
    action, and the others wait. `grace`, `hurry` and `leave` are seconds, as above.
    """

    def __init__(
        self,
        *,
        grace: float = GRACE_SECONDS,
        hurry: float = HURRY_SECONDS,
        leave: float = LEAVE_SECONDS,
    ) -> None:
        self._grace, self._hurry, self._leave = grace, hurry, leave
        self._lock = Lock()
        self._listener: Callable[[int], None] | None = None
        self._limit: Callable[[], float] = lambda: 0.0
        self._waiting: list[int] = []
        self._orders = 0
        self._timer: Timer | None = None
        #: When the process is killed, on the monotonic clock.
        self._end_at = math.inf
        #: The exit code if the process has to be killed.
        self.code = EXIT_HUNG

    def take(self) -> None:
        """Start receiving; call this in the main thread before other threads exist."""
        # Ctrl-C before `listen` must not wait for Python to return from a disk read.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
        Thread(target=self._run, name="signals", daemon=True).start()

    def listen(self, listener: Callable[[int], None], limit: Callable[[], float]) -> None:
        """Call `listener` with each signal from now on, in another thread.

        `limit` returns how many seconds a shutdown waits for open requests.
        """
        with self._lock:
            self._listener, self._limit = listener, limit
            waiting, self._waiting = self._waiting, []
        for number in waiting:
            listener(number)

    def ending(self) -> None:
        """Limit the time of a shutdown that began without a signal."""
        if not self._orders:
            self._end_in(self._limit() + self._grace)

    def ended(self) -> None:
        """Record that the gate has closed everything; threads that hang now are abandoned."""
        self.code = 0
        self._end_in(min(self._leave, max(0.0, self._end_at - monotonic())))

    def _run(self) -> None:
        while True:
            self._take_one(signal.sigwait(_TAKEN))

    def _take_one(self, number: int) -> None:
        with self._lock:
            listener = self._listener
            if listener is None and number in _ORDERS:
                self._waiting.append(number)
                return
        if listener is None:
            # The default action: the process ends.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            os.kill(os.getpid(), number)
            return
        if number in _STOP:
            self._ordered()
        listener(number)

    def _ordered(self) -> None:
        self._orders += 1
        if self._orders == 1:
            self._end_in(self._limit() + self._grace)
        elif self._orders == 2:  # noqa: PLR2004 - the second signal
            self._end_in(self._hurry)
        else:
            self._cut_off()

    def _end_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end_at = monotonic() + seconds
        self._timer = Timer(seconds, self._cut_off)
        self._timer.daemon = True
        self._timer.start()

    def _cut_off(self) -> None:
        if self.code == EXIT_HUNG:
            _log.error("the shutdown takes too long, so the process is killed")
        close_logging(_LOG_SECONDS)
        os._exit(self.code)
