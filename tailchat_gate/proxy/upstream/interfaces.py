"""The interfaces between an upstream's connection, its exchange and its pool; how exchanges end."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, Protocol

from tailchat_gate.proxy.message.response_fields import Expected
from tailchat_gate.reasons import Reason


class End(Enum):
    """The end of an exchange."""

    COMPLETE = "complete"
    #: The connection was closed before any byte of the response: it may have been stale.
    UNANSWERED = "unanswered"
    #: The response was malformed or stopped before its head was whole.
    BROKEN = "broken"
    #: The head was relayed, the body stopped short.
    TRUNCATED = "cut-off"
    RESPONSE_TIMEOUT = "slow"
    #: The head was relayed, then no byte moved for the idle timeout.
    IDLE_TIMEOUT = "silent"
    CLIENT_GONE = "client-gone"
    #: The upstream switched protocols, as the client asked.
    SWITCHED = "switched"


class ExchangeResult(Protocol):
    """The part of a response that the client got; the connection's reader holds it.

    `status` is 0 if no final head was relayed. `keep_client`: the response lets the client's
    connection stay open. `personal`: the upstream's connection may be authenticated.
    """

    status: int
    body_bytes: int
    keep_client: bool
    personal: bool


class ResponseTaker(Expected, Protocol):
    """The exchange, as the upstream's connection sees it."""

    @property
    def client_transport(self) -> asyncio.Transport | None:
        """The client's transport, None if it is closed."""

    def write_client(self, data: bytes) -> bool:
        """Send bytes of the response; return whether the client was still there."""

    def upstream_full(self, *, full: bool) -> None:
        """The upstream's write buffer is full, or has room again."""

    def ended(self, end: End, result: ExchangeResult) -> None:
        """The exchange has ended; `result` is valid during this call only."""


class BytesSink(Protocol):
    """The receiver of a switched connection's bytes."""

    def from_upstream(self, data: bytes) -> None:
        """The upstream sent these bytes."""

    def upstream_ended(self) -> None:
        """The upstream sent EOF; it may still read."""

    def upstream_lost(self, *, reset: bool) -> None:
        """The upstream's connection was closed or `reset`."""

    def upstream_full(self, *, full: bool) -> None:
        """The upstream's write buffer is full, or has room again."""


class ConnectionOwner(Protocol):
    """Counts open connections."""

    def opened(self) -> None:
        """A connection is open."""

    def closed(self) -> None:
        """A connection is closed."""


@dataclass(frozen=True, slots=True)
class ResponseTimeouts:
    """Seconds to wait for a response's head, and for its next bytes (0 = no limit)."""

    response: float
    idle: float


#: The errno if the process or the system has no descriptor left.
NO_DESCRIPTOR: Final = frozenset((errno.EMFILE, errno.ENFILE))
#: The metrics labels of the ends of exchanges that are the upstream's fault.
KINDS: Final = MappingProxyType(
    {
        End.UNANSWERED: "closed",
        End.BROKEN: "broken",
        End.TRUNCATED: "cut-off",
        End.RESPONSE_TIMEOUT: "slow",
        End.IDLE_TIMEOUT: "silent",
    }
)
#: The reason for a request, by the end of its exchange.
REASONS: Final[Mapping[End, Reason]] = MappingProxyType(
    {
        End.UNANSWERED: Reason.UPSTREAM_BROKEN,
        End.BROKEN: Reason.UPSTREAM_BROKEN,
        End.TRUNCATED: Reason.UPSTREAM_BROKEN,
        End.RESPONSE_TIMEOUT: Reason.UPSTREAM_SLOW,
        End.IDLE_TIMEOUT: Reason.UPSTREAM_BROKEN,
        End.CLIENT_GONE: Reason.CLIENT_GONE,
    }
)
#: The lookup of the name failed, or took the whole time for a connection.
DNS: Final = "dns"
#: The labels of failures to connect.
CONNECT_KINDS: Final = (DNS, "refused", "reset", "timeout", "tls", "unreachable", "descriptors")
#: Failures that a restart of the upstream causes: no connection, so nothing was sent.
PASSING: Final = frozenset((DNS, "refused", "reset", "unreachable"))


def unreachable(error: OSError) -> Reason:
    """Return the reason of a request for which there is no connection."""
    if isinstance(error, TimeoutError):
        return Reason.UPSTREAM_SLOW
    return Reason.GATE_BUSY if error.errno in NO_DESCRIPTOR else Reason.UPSTREAM_DOWN


def kind_of(error: OSError) -> str:
    """Return the metrics label of a failure to connect."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, socket.gaierror):
        return DNS
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError):
        return "reset"
    return "descriptors" if error.errno in NO_DESCRIPTOR else "unreachable"
