"""What a client's connection tells those that answer its requests, and what it asks them."""

import asyncio
from typing import Protocol

from tailchat_gate.identity.revocation.state import SessionHolder
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.fields import RawFields


class ActiveRequest(Protocol):
    """What a connection does for the request under way.

    `session` is whose session or token it ends with, None where it ends with nobody's.
    """

    @property
    def session(self) -> SessionHolder | None:
        """Whose session it ends with."""

    def session_over(self, reason: Reason) -> None:
        """Hear that this session is over; nothing more may pass, and `session` is None from now.

        `reason` is that of a new request: NOT_SIGNED_IN, SESSION_ENDED, TOKEN_EXPIRED or LOCKED.
        """

    def client_full(self, *, full: bool) -> None:
        """Hear that the client takes no more bytes for now, or takes them again."""

    def quiet(self) -> bool:
        """Tell whether the client was sent nothing since this was asked before.

        It is asked while the client sends no more. False where the work ends by itself.
        """

    def client_gone(self) -> None:
        """Hear that the client has left."""


class BodySink(Protocol):
    """Where a request's body goes while it comes; only what reads bodies has one."""

    @property
    def upstream_transport(self) -> asyncio.Transport | None:
        """Where the body is written, None where it is kept."""

    def body(self, content: bytes) -> None:
        """Take content of the body."""

    def body_complete(self, trailers: RawFields) -> None:
        """Hear that the body is whole."""

    def body_failed(self, error: RefusedError) -> None:
        """Hear that the body never will be."""


class BytesTaker(Protocol):
    """Where a client's bytes go once the protocol was switched."""

    def from_client(self, data: bytes) -> None:
        """Take bytes."""

    def client_ended(self) -> None:
        """Hear that the client sends no more, though it may still read."""
