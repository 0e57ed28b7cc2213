"""Upstream connections that one person authenticated, used for that person only.

The reasons: docs/adr/0020-what-a-reply-may-reach.md.
"""

from typing import Final, NamedTuple

from tailchat_gate.identity.authenticator import Visitor
from tailchat_gate.identity.machine_tokens import Machine
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.proxy.upstream.pool import Pool
from tailchat_gate.request.fields import FieldSection

#: The most upstreams to which one client connection has its own connection.
MAX_KEPT: Final = 4
#: Fields that an intermediary adds, whose connection may carry requests of several people.
_BY_PROXY: Final = (b"via", b"forwarded", b"x-forwarded-for", b"x-real-ip")

#: The person to whom a connection belongs (a kind and an id), None if unknown.
Person = tuple[str, str] | None


class _OwnConnection(NamedTuple):
    person: Person
    connection: UpstreamConnection


class OwnConnections:
    """The upstream connections of one client's connection, one for each upstream."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Pool, _OwnConnection] = {}

    def has(self, pool: Pool) -> bool:
        """Whether there is a connection to the pool's upstream."""
        return pool in self._kept

    def take(self, pool: Pool, person: Person) -> UpstreamConnection | None:
        """Return `person`'s connection to an upstream, None if there is none to use.

        Closes the connections of any other person, who no longer uses the client's connection.
        """
        for other, own in tuple(self._kept.items()):
            if person is None or own.person != person:
                other.drop_own(own.connection)
                del self._kept[other]
        entry = self._kept.pop(pool, None)
        return entry.connection if entry and pool.take_own(entry.connection) else None

    def keep(self, pool: Pool, person: Person, connection: UpstreamConnection) -> None:
        """Store a connection for `person`'s next request."""
        if len(self._kept) >= MAX_KEPT:
            oldest = next(iter(self._kept))
            oldest.drop_own(self._kept.pop(oldest).connection)
        pool.keep_own(connection)
        self._kept[pool] = _OwnConnection(person, connection)

    def close(self) -> None:
        """Close all connections, because the client's connection is closed."""
        for pool, own in self._kept.items():
            pool.drop_own(own.connection)
        self._kept.clear()


def person_of(visitor: Visitor | Machine | None, fields: FieldSection, *, direct: bool) -> Person:
    """Return the person of a request, None if the next request could be another person's.

    `direct`: no trusted proxy is in front. Without a session only the connection identifies a
    person, which it does not behind a proxy.
    """
    if isinstance(visitor, Visitor):
        return "session", visitor.record.sid
    if isinstance(visitor, Machine):
        return "token", visitor.name
    return ("nobody", "") if direct and not any(map(fields.values, _BY_PROXY)) else None
