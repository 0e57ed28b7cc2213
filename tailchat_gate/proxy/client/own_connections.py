"""Connections to upstreams that were authenticated by a person: kept for that person alone.

Why they exist and what they belong to: docs/adr/0020-what-a-reply-may-reach.md.
"""

from typing import Final, NamedTuple

from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.proxy.upstream.pool import Pool
from tailchat_gate.request.fields import FieldSection

#: Upstreams with which one client connection keeps a connection of its own.
MAX_KEPT: Final = 4
#: Fields that a proxy between adds: behind one, a connection may carry several people.
_BY_PROXY: Final = (b"via", b"forwarded", b"x-forwarded-for", b"x-real-ip")

#: Whose a connection is, None where there is no telling.
Person = tuple[str, str] | None


class _Kept(NamedTuple):
    person: Person
    connection: UpstreamConnection


class OwnConnections:
    """The upstream connections of one client's connection, one for each upstream."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Pool, _Kept] = {}

    def take(self, pool: Pool, person: Person) -> UpstreamConnection | None:
        """Return the connection of that person to an upstream, where it is still good.

        Those of any other person are closed: the client's connection has changed hands.
        """
        for other, kept in tuple(self._kept.items()):
            if person is None or kept.person != person:
                other.drop_own(kept.connection)
                del self._kept[other]
        found = self._kept.pop(pool, None)
        return found.connection if found and pool.take_own(found.connection) else None

    def keep(self, pool: Pool, person: Person, connection: UpstreamConnection) -> None:
        """Keep a connection for that person's next request."""
        if len(self._kept) >= MAX_KEPT:
            oldest = next(iter(self._kept))
            oldest.drop_own(self._kept.pop(oldest).connection)
        pool.keep_own(connection)
        self._kept[pool] = _Kept(person, connection)

    def close(self) -> None:
        """Close all: the client's connection is gone."""
        for pool, kept in self._kept.items():
            pool.drop_own(kept.connection)
        self._kept.clear()


def person_of(visitor: Visitor | Machine | None, fields: FieldSection, *, direct: bool) -> Person:
    """Return whose request it is; None where somebody else could be behind the next one.

    `direct`: no trusted proxy is in front. Without a session people can be told apart by their
    connection alone, which one behind a proxy is not.
    """
    if isinstance(visitor, Visitor):
        return "session", visitor.record.sid
    if isinstance(visitor, Machine):
        return "token", visitor.name
    return ("nobody", "") if direct and not any(map(fields.values, _BY_PROXY)) else None
