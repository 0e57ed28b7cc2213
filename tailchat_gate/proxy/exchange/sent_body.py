"""Which requests are sent again where a connection was stale, and what of a body that takes."""

from typing import Final

from tailchat_gate.request.claims import claimed_methods
from tailchat_gate.request.head import RequestHead

#: How much of a body is kept, to be sent again where a connection was stale.
REPEATED_BYTES: Final = 65_536
#: Sending these again has the effect of sending them once (RFC 9110 section 9.2.2).
IDEMPOTENT: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))


def claims_no_other(request: RequestHead) -> bool:
    """Tell whether the tool cannot take a request for one that must not be sent twice."""
    return claimed_methods(request.fields, request.target.query) <= IDEMPOTENT


class SentBody:
    """What has come of a request's body: waiting for a connection, and kept to be sent again."""

    __slots__ = ("_copied", "_copy", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        #: None once it is too much to keep.
        self._copy: list[bytes] | None = []
        self._copied = 0

    def is_kept(self) -> bool:
        """Tell whether all of it can be sent again."""
        return self._copy is not None

    def keep(self, data: bytes) -> None:
        """Keep a copy of what is sent, up to `REPEATED_BYTES`."""
        if self._copy is None:
            return
        self._copied += len(data)
        if self._copied > REPEATED_BYTES:
            self._copy = None
        else:
            self._copy.append(data)

    def wait(self, data: bytes) -> None:
        """Keep it until there is a connection."""
        self._waiting.append(data)

    def repeat(self) -> None:
        """Let all that was sent wait for another connection."""
        self._waiting = list(self._copy or ())

    def take_waiting(self) -> list[bytes]:
        """Return what waited."""
        waiting, self._waiting = self._waiting, []
        return waiting
