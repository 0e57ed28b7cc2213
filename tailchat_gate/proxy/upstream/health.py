"""Decides whether one of several backends is up, by failed requests and by active checks."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from tailchat_gate.config.model import RouteSettings
from tailchat_gate.config.values.address import HttpAddress, UnixAddress, upstream_address
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.upstream.backends import Backend, Dialer
from tailchat_gate.proxy.upstream.interfaces import NO_DESCRIPTOR, kind_of
from tailchat_gate.syntax import OWN_AGENT

#: The start of a status line, and the position and end of the status in it (RFC 9112 section 4).
_START: Final = b"HTTP/1."
_STATUS_AT: Final = 9
_ENOUGH: Final = 12
#: The share of a backend that has just come back, at the beginning of a slow start.
_LEAST_WEIGHT: Final = 0.1
#: Statuses by which a backend that is a gateway reports a failure behind it.
GATEWAY_FAULTS: Final = frozenset((502, 503, 504))
_GOOD: Final = range(200, 400)
#: The causes for which a backend goes out, in the log and metrics.
BY_CHECK: Final = "check"
BY_REQUESTS: Final = "requests"

_log: Final = logging.getLogger(LOGGER_NAME)


def probe_request(address: HttpAddress | UnixAddress, host: str, path: str) -> bytes:
    """Return a GET request to a tool; a `host` that is "" or a wildcard becomes the tool's own."""
    if not host or host.startswith("*"):
        host = address.url.authority if isinstance(address, HttpAddress) else "localhost"
    lines = (
        f"GET {path or '/'} HTTP/1.1",
        f"Host: {host}",
        "Accept: */*",
        f"User-Agent: {OWN_AGENT}",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def status_of(start: bytes) -> int:
    """Return the status in the start of a response, 0 if it is not HTTP/1."""
    status = start[_STATUS_AT:_ENOUGH]
    return int(status) if start.startswith(_START) and status.isdigit() else 0


class Probe(asyncio.Protocol):
    """Sends one request and keeps the start of the response, b"" for none."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.start: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.certificate = b""
        #: The socket addresses of both ends: the gate's and the tool's.
        self.ends: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        # A cast, because uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        names = (transport.get_extra_info(key) for key in ("sockname", "peername"))
        here, there = (name if isinstance(name, tuple) else () for name in names)
        self.ends = here, there
        tls = transport.get_extra_info("ssl_object")
        self.certificate = (tls.getpeercert(binary_form=True) or b"") if tls is not None else b""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Keep the start of the response."""
        self._received += data[:_ENOUGH]
        if len(self._received) >= _ENOUGH and not self.start.done():
            self.start.set_result(self._received[:_ENOUGH])

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the bytes received so far as the start."""
        del exc
        if not self.start.done():
            self.start.set_result(self._received)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


@dataclass(frozen=True, slots=True)
class CheckRules:
    """The health check of a backend: `interval` and `timeout` in seconds.

    `rise` good checks in a row take it back, `fall` bad ones put it out.
    """

    request: bytes
    interval: float
    timeout: float
    rise: int
    fall: int


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a backend goes out and for how long; without `check` only requests decide."""

    max_fails: int
    fail_timeout: float
    slow_start: float
    check: CheckRules | None


def health_rules(settings: RouteSettings, backend: str) -> HealthRules:
    """Return the rules of a route for one of its backends."""
    health, check = settings.health, None
    address = upstream_address(backend)
    if health is not None and isinstance(address, HttpAddress | UnixAddress):
        request = probe_request(address, settings.upstream_host or settings.host or "", health.path)
        check = CheckRules(request, health.interval, health.timeout, health.rise, health.fall)
    return HealthRules(settings.max_fails, settings.fail_timeout, settings.slow_start, check)


class BackendHealth:
    """The state of one backend; its `listeners` are called when it goes out.

    `ejections` counts how often backends went out, by URL and cause.
    """

    def __init__(
        self,
        backend: Backend,
        rules: HealthRules,
        time: Callable[[], float],
        ejections: Counter[tuple[str, str]],
    ) -> None:
        self.backend: Final = backend
        self.rules: Final = rules
        self._time = time
        self._ejections = ejections
        for cause in (BY_CHECK, BY_REQUESTS):
            ejections.setdefault((backend.url, cause), 0)
        self.up = True
        #: Why it is out, "" while it is up.
        self.reason = ""
        #: How many requests failed in a row.
        self.fails = 0
        #: Checks in a row: good ones, bad ones.
        self._good = self._bad = 0
        #: Until when failed requests keep it out, and when it came back.
        self.until = 0.0
        self.back_at = float("-inf")
        #: The Unix second at which it last went out or came back, None for never.
        self.since: int | None = None
        self.listeners: Final[set[Callable[[], None]]] = set()
        self._checker: asyncio.Task[None] | None = None

    def adopt(self, other: "BackendHealth") -> None:
        """Take over the state of the same backend under other rules."""
        self.up, self.reason, self.fails = other.up, other.reason, other.fails
        self.until, self.back_at, self.since = other.until, other.back_at, other.since

    def weight(self, now: float) -> float:
        """Return the backend's share of requests: 1, but less during a slow start."""
        window = self.rules.slow_start
        if not window or now - self.back_at >= window:
            return 1.0
        return max(_LEAST_WEIGHT, (now - self.back_at) / window)

    def succeeded(self) -> None:
        """A request was answered."""
        self.fails = 0

    def failed(self, reason: str) -> None:
        """A request failed by the backend's fault."""
        self.fails += 1
        most = self.rules.max_fails
        if self.up and most and self.fails >= most:
            self.until = self._time() + self.rules.fail_timeout
            self._put_out(BY_REQUESTS, reason)

    def checked(self, fault: str) -> None:
        """A check has ended, with a `fault` or "" for none."""
        check = self.rules.check
        if check is None:
            return
        if fault:
            self._good, self._bad = 0, self._bad + 1
            if self.up and self._bad >= check.fall:
                self._put_out(BY_CHECK, fault)
        else:
            self._good, self._bad = self._good + 1, 0
            if not self.up and self._good >= check.rise and self._time() >= self.until:
                self._take_back()

    def sweep(self, now: float) -> None:
        """Try a backend again after its fail_timeout, if it has no active check."""
        if not self.up and self.rules.check is None and now >= self.until:
            self._take_back()
            # On trial: the next failure puts it out again.
            self.fails = max(self.rules.max_fails - 1, 0)

    def _put_out(self, cause: str, reason: str) -> None:
        self.up, self.reason, self._good = False, reason, 0
        self.since = int(time.time())
        self._ejections[self.backend.url, cause] += 1
        details = {"upstream": self.backend.url, "by": cause, "reason": reason}
        _log.warning("a backend is out", extra={"details": details})
        for listener in tuple(self.listeners):
            listener()

    def _take_back(self) -> None:
        self.up, self.reason, self.fails = True, "", 0
        self.back_at, self.since = self._time(), int(time.time())
        details = {"upstream": self.backend.url}
        _log.info("a backend is back", extra={"details": details})

    def start(self, dialer: Dialer) -> None:
        """Begin the active checks, if any; needs a running event loop."""
        if self.rules.check is not None and self._checker is None:
            checks = self._check_for_ever(dialer, self.rules.check)
            self._checker = asyncio.get_running_loop().create_task(checks)

    def close(self) -> None:
        """End the checks."""
        if self._checker is not None:
            self._checker.cancel()
            self._checker = None

    async def _check_for_ever(self, dialer: Dialer, check: CheckRules) -> None:
        while True:
            try:
                fault = await self._fault(dialer, check)
                if fault is not None:
                    self.checked(fault)
            except Exception:  # noqa: BLE001 - without checks, a backend that is out stays out
                _log.exception("a check of a backend failed inside the gate")
            await asyncio.sleep(check.interval)

    async def _fault(self, dialer: Dialer, check: CheckRules) -> str | None:
        """Return the fault found by one check, "" for none, None if the gate could not check."""
        try:
            async with asyncio.timeout(check.timeout):
                probe = await dialer.connect(self.backend, partial(Probe, check.request))
                try:
                    status = status_of(await probe.start)
                finally:
                    probe.close()
        except OSError as error:
            return None if error.errno in NO_DESCRIPTOR else kind_of(error)
        return "" if status in _GOOD else f"status {status}" if status else "broken"
