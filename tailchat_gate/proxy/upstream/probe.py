"""One request of the gate's own to a tool, of whose response only the status is read."""

import asyncio
from typing import Any, Final, cast

from tailchat_gate.config.values.address import HttpAddress, UnixAddress
from tailchat_gate.syntax import OWN_AGENT

#: Bytes of a response that are enough to know it by (RFC 9112 section 4).
_START: Final = b"HTTP/1."
_STATUS_AT: Final = 9
_ENOUGH: Final = 12


def probe_request(address: HttpAddress | UnixAddress, host: str, path: str) -> bytes:
    """Return a GET of a tool; `host` "" or with a wildcard becomes the tool's own."""
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
    """Return the status of a response by its start; 0 where it is not HTTP/1.1."""
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
        #: The addresses of both ends, as sockets name them: the gate's, and that of the tool.
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
        """Take what came for the start."""
        del exc
        if not self.start.done():
            self.start.set_result(self._received)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
