"""Which requests are sent again after a stale connection, and the copy of the body for that."""

from typing import Final

from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.head import RequestHead

#: The largest body that is copied, to be sent again after a stale connection.
REPEATED_BYTES: Final = 65_536
#: Sending these twice has the same effect as sending them once (RFC 9110 section 9.2.2).
IDEMPOTENT: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))


def claims_no_other(request: RequestHead) -> bool:
    """Whether no override, such as X-HTTP-Method-Override, makes the method non-idempotent."""
    return claimed_methods(request.fields, request.target.query) <= IDEMPOTENT


class SentBody:
    """What has arrived of a request's body: unsent bytes, and a copy to send again."""

    __slots__ = ("_copied", "_copy", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        #: None once the body is larger than `REPEATED_BYTES`.
        self._copy: list[bytes] | None = []
        self._copied = 0

    def is_kept(self) -> bool:
        """Whether the whole body can be sent again."""
        return self._copy is not None

    def keep(self, data: bytes) -> None:
        """Copy bytes of the body, up to `REPEATED_BYTES` in all."""
        if self._copy is None:
            return
        self._copied += len(data)
        if self._copied > REPEATED_BYTES:
            self._copy = None
        else:
            self._copy.append(data)

    def wait(self, data: bytes) -> None:
        """Hold bytes until there is a connection."""
        self._waiting.append(data)

    def repeat(self) -> None:
        """Hold the whole copy for another connection."""
        self._waiting = list(self._copy or ())

    def take_waiting(self) -> list[bytes]:
        """Return the bytes that waited for a connection, and forget them."""
        waiting, self._waiting = self._waiting, []
        return waiting
