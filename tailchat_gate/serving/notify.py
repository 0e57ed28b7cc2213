"""Tells the service manager how the gate is, as sd_notify(3) describes it."""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

#: How much longer than its own limits a stop may take.
_MARGIN_SECONDS: Final = 5.0
_MICROSECONDS: Final = 1_000_000


class ServiceManager:
    """Sends messages to the socket at `address`, "" for nobody; `watchdog` is in seconds, 0 = off.

    A message that cannot be sent is dropped: the gate must not stop because its manager is busy.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        # "@" begins a name in the abstract namespace (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog: Final = watchdog
        self._timer: asyncio.TimerHandle | None = None

    def ready(self, status: str) -> None:
        """The gate serves: after the start, and after each reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun; `ready` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=loading the configuration")

    def stopping(self, seconds: float) -> None:
        """The gate stops, which may take some seconds: more than the manager allows, if need be."""
        limit = int((seconds + _MARGIN_SECONDS) * _MICROSECONDS)
        self._send(
            "STOPPING=1",
            f"EXTEND_TIMEOUT_USEC={limit}",
            "STATUS=waiting for open requests",
        )

    def succeeded(self, pid: int) -> None:
        """Another process is the service from now on, and tells how it is."""
        self._send(f"MAINPID={pid}")
        self._address = ""

    def start_watchdog(self) -> None:
        """Report from the event loop at half of the manager's limit, so that a stuck loop shows."""
        if self.watchdog:
            self._send("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.watchdog / 2, self.start_watchdog)

    def close(self) -> None:
        """End the reports of the event loop."""
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, *lines: str) -> None:
        if self._address:
            # Made each time: a manager that was started again has another socket there.
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)  # noqa: FBT003 - socket's own signature
                out.sendto("\n".join(lines).encode(), self._address)


def service_manager(environ: Mapping[str, str]) -> ServiceManager:
    """Return the service manager that the variables in `environ` name."""
    address = environ.get("NOTIFY_SOCKET", "")
    limit = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
    watchdog = int(limit) / _MICROSECONDS if limit.isdecimal() and meant else 0.0
    # Other kinds of addresses, such as vsock, are for virtual machines.
    return ServiceManager(address if address.startswith(("/", "@")) else "", watchdog)
