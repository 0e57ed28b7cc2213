"""The interfaces between a client's connection and the handlers of its requests."""

import asyncio
from typing import NamedTuple, Protocol

from tailchat_gate.identity.revocation.state import SessionHolder
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import RawFields


class Admission(NamedTuple):
    """The basis on which a request was let in: the request, and its session or token if any."""

    context: RequestContext
    holder: SessionHolder | None


class ActiveRequest(Protocol):
    """The request under way, as the client's connection sees it."""

    @property
    def admission(self) -> Admission | None:
        """The basis on which it was let in, None if no change of the rules may end it."""

    @property
    def session(self) -> SessionHolder | None:
        """The session or token with which it ends, None for an anonymous request."""

    def session_over(self, reason: Reason) -> None:
        """The session has ended: relay nothing further; `session` is None from now on.

        `reason` is what a new request would get: NOT_SIGNED_IN, TOKEN_EXPIRED, SESSION_ENDED,
        SESSION_REVOKED, RECHECK_FAILED, LOCKED or MAINTENANCE; any refusal if a right was lost.
        """

    def client_full(self, *, full: bool) -> None:
        """The client's write buffer is full, or has room again."""

    def quiet(self) -> bool:
        """Whether nothing was sent to the client since the last call; False for a tunnel.

        The connection calls it while the client is half closed.
        """

    def close_after(self) -> None:
        """The gate is stopping: the response says `Connection: close`, unless its head is sent."""

    def client_gone(self) -> None:
        """The client has left."""


class BodySink(Protocol):
    """Gets a request's body as it arrives."""

    @property
    def upstream_transport(self) -> asyncio.Transport | None:
        """The transport to which the body is written, None if it is stored."""

    def body(self, content: bytes) -> None:
        """A part of the body's content has arrived."""

    def body_complete(self, trailers: RawFields) -> None:
        """The body is complete."""

    def body_failed(self, error: RefusedError) -> None:
        """The body is malformed or too slow; it will not be complete."""


class BytesTaker(Protocol):
    """Gets a client's bytes after a protocol switch."""

    def from_client(self, data: bytes) -> None:
        """The client sent these bytes."""

    def client_ended(self) -> None:
        """The client sent EOF; it may still read."""
