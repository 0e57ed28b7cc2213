"""What an upstream's connection, its exchange and its pool ask of each other."""

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tailchat_gate.proxy.message.response_fields import Expected


class End(Enum):
    """How an exchange ended."""

    COMPLETE = "complete"
    #: The connection was closed before any byte of the reply: it may have been stale.
    UNANSWERED = "unanswered"
    #: The reply was malformed or stopped before its head was whole.
    BROKEN = "broken"
    #: The head was relayed, the body stopped short.
    TRUNCATED = "cut-off"
    RESPONSE_TIMEOUT = "slow"
    #: The head was relayed, then nothing moved for as long as may be.
    IDLE_TIMEOUT = "silent"
    CLIENT_GONE = "client-gone"
    #: The upstream switched protocols, as the client asked.
    SWITCHED = "switched"


class ExchangeResult(Protocol):
    """What the client got of a response, as the connection's reader tells it.

    `status` is 0 where no final head was relayed. `keep_client`: the client was told that its
    connection stays. `personal`: the upstream's connection may be authenticated.
    """

    status: int
    body_bytes: int
    keep_client: bool
    personal: bool


class ResponseTaker(Expected, Protocol):
    """What an exchange is to the connection that it uses."""

    @property
    def client_transport(self) -> asyncio.Transport | None:
        """That of the client, None where it is gone."""

    def write_client(self, data: bytes) -> bool:
        """Send bytes of the reply; return whether the client was still there."""

    def upstream_full(self, *, full: bool) -> None:
        """Hear that the upstream takes no more bytes for now, or takes them again."""

    def ended(self, end: End, result: ExchangeResult) -> None:
        """The exchange is over; `result` is valid during this call only."""


class BytesSink(Protocol):
    """Where the bytes of a switched connection go."""

    def from_upstream(self, data: bytes) -> None:
        """Take bytes that the upstream sent."""

    def upstream_ended(self) -> None:
        """Hear that the upstream sends no more, though it may still read."""

    def upstream_lost(self, *, reset: bool) -> None:
        """Hear that the upstream closed, or that the connection broke."""

    def upstream_full(self, *, full: bool) -> None:
        """Hear that the upstream takes no more bytes for now, or takes them again."""


class ConnectionOwner(Protocol):
    """What counts the connections that are open."""

    def opened(self) -> None:
        """Hear that a connection is open."""

    def closed(self) -> None:
        """Hear that one is closed."""


@dataclass(frozen=True, slots=True)
class ResponseTimeouts:
    """Seconds to wait: for a reply's head, and for its next bytes (0 = no limit)."""

    response: float
    idle: float
