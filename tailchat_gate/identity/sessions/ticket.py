"""Tickets: the cookies of sessions that are in the store."""

import json
from typing import Any, Final

from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.syntax import COMPACT

_KINDS: Final = (str, str, int, int, str, bool, int)
#: A ticket has fewer parts than any session.
PARTS: Final = len(_KINDS)


class Ticket(SessionRecord):
    """The cookie of a stored session: its ID, and the parts that are the cookie's own.

    Among these are the times of the sign-in and of the password: a later sign-in to the same
    session must not extend the life of a stolen copy. All other fields are empty.
    """

    __slots__ = ()

    def applied_to(self, stored: SessionRecord) -> SessionRecord:
        """Return the stored session with the fields of this cookie."""
        return stored._replace(
            signed_in_at=self.signed_in_at,
            seen_at=self.seen_at,
            login=self.login,
            embedded=self.embedded,
            password_at=self.password_at,
        )


def ticket_bytes(record: SessionRecord) -> bytes:
    """Return a ticket to a session as compact JSON: a list that is shorter than any session's."""
    parts = (
        *(record.sid, record.sub, record.signed_in_at, record.seen_at),
        *(record.login, record.embedded, record.password_at),
    )
    return json.dumps(parts, ensure_ascii=False, separators=COMPACT).encode()


def read_ticket(parts: list[Any]) -> Ticket | None:
    """Return the ticket with these parts; None if one is mistyped."""
    if tuple(map(type, parts)) != _KINDS:
        return None
    sid, sub, signed_in_at, seen_at, login, embedded, password_at = parts
    return Ticket(
        *(sid, sub, "", "", "", signed_in_at, seen_at, login),
        embedded=embedded,
        password_at=password_at,
    )
