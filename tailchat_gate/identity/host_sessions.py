"""The sessions of each host: they begin, are renewed and end there, in sealed cookies."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from aiohttp import web
from aiohttp_session import AbstractStorage, Session, SessionData

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.identity.authenticator import Authenticator, SessionCache
from tailchat_gate.identity.rechecker import AwaitableRechecks
from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames, CookieReader
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import Lifetimes, SessionCookie
from tailchat_gate.identity.sessions.stored import SessionVault, StoredSession
from tailchat_gate.identity.sessions.ticket import Ticket
from tailchat_gate.identity.sites import Sites
from tailchat_gate.request.target import cookie_fields
from tailchat_gate.syntax import WILDCARD

#: A session may wait for three things: the store, Tailchat's confirmation, and what Tailchat says
#: about the person.
_QUESTIONS: Final = range(3)


class _QuietSession(Session):
    """A session whose repr does not show its content, which may include tokens."""

    def __repr__(self) -> str:
        return f"<Session, new: {self.new}>"


class SealedSessionStorage(AbstractStorage):
    """aiohttp-session's storage interface over the sealed cookie.

    The stock EncryptedCookieStorage takes one key, resets `created` on every write, cannot
    delete a `__Host-` cookie and skips streamed responses: docs/adr/0003-session-storage.md.
    """

    def __init__(self, cookie: SessionCookie) -> None:
        super().__init__(
            cookie_name=cookie.names.session, secure=cookie.names.secure, samesite="Lax"
        )
        self._cookie = cookie
        self._reader = CookieReader(cookie.names)

    def load_record(self, fields: Sequence[bytes]) -> SessionRecord | None:
        """Return the first valid session in the raw Cookie fields of a request, or None."""
        return next(filter(None, map(self.newest, self.living(fields))), None)

    def living(self, fields: Sequence[bytes]) -> Iterator[SessionRecord]:
        """Yield the unexpired sessions in the raw Cookie fields of a request."""
        return self._cookie.living_in(fields, self._reader, self.second_for)

    def second_for(self, record: SessionRecord) -> float:  # noqa: ARG002 - a site knows of sign-outs
        """Return the Unix second at which a session's lifetime is checked."""
        return self._cookie.clock()

    def newest(self, record: SessionRecord) -> SessionRecord | None:
        """Return the newest record of an unexpired session, None if it has ended."""
        return None if isinstance(record, Ticket) else record

    async def new_session(self) -> Session:
        """Return an empty session."""
        return _QuietSession(None, data=None, new=True)

    async def load_session(self, request: web.BaseRequest) -> Session:
        """Return the session of `request`, or a new, empty one if it has none that is alive."""
        record = self.load_record(cookie_fields(request.raw_headers))
        if record is None:
            return await self.new_session()
        data: SessionData = {"created": record.signed_in_at, "session": record._asdict()}
        return _QuietSession(record.sid, data=data, new=False)

    async def save_session(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        session: Session,
    ) -> None:
        """Set the cookie for `session` on `response`, or delete it if the session is empty.

        Raises SessionTooLargeError, and ValueError for a mapping that is not a SessionRecord.
        """
        if session.empty:
            records = self._cookie.records_in(cookie_fields(request.raw_headers), self._reader)
            embedded = any(record.embedded for record in records)
            response.headers.add("Set-Cookie", self._cookie.delete(embedded=embedded))
            return
        mapping: dict[str, Any] = dict(session)
        record = SessionRecord.from_fields(mapping)
        if record is None:
            raise ValueError("the session's mapping is not a SessionRecord")
        response.headers.add("Set-Cookie", self._cookie.set(record))


class HostSession(SealedSessionStorage):
    """The session storage of one host, and its authenticator.

    `revocation` holds locks and ended sessions; `rechecker` knows what happened to sessions since
    their cookies were sealed; `opened` caches the opened cookies of all hosts. `vault` holds the
    sessions if cookies are tickets to them.
    """

    def __init__(
        self,
        cookie: SessionCookie,
        reader: CookieReader,
        revocation: RevocationState,
        rechecker: AwaitableRechecks,
        opened: SessionCache,
        vault: SessionVault | None = None,
    ) -> None:
        super().__init__(cookie)
        self._vault = vault
        self._clock = cookie.clock
        self._revocation = revocation
        self._rechecker = rechecker
        self.authenticator: Final = Authenticator(
            cookie,
            cookie.clock,
            revocation,
            opened=opened,
            reader=reader,
            rechecks=rechecker,
            save=None if vault is None else vault.save,
        )

    def second_for(self, record: SessionRecord) -> float:
        """Return the Unix second at which a session's lifetime is checked."""
        return self._revocation.second_for(record.sub, self._clock())

    def newest(self, record: SessionRecord) -> SessionRecord | None:
        """Return the newest record of an unexpired session, None if it has ended."""
        if self._revocation.check(record) is not None:
            return None
        look = self._rechecker.look(record, self._clock())
        # The session of a ticket may not have been read from the store yet.
        return None if look.refused or isinstance(look.record, Ticket) else look.record

    async def stored_record(self, fields: Sequence[bytes]) -> SessionRecord | None:
        """Return the same as load_record, but first read tickets' sessions from the store."""
        for record in self.living(fields):
            if isinstance(record, Ticket) and self._rechecker.look(record, self._clock()).waits:
                await asyncio.wait((self._rechecker.settled(record),))
        return self.load_record(fields)

    async def settled_record(self, fields: Sequence[bytes]) -> SessionRecord | None:
        """Return the same as load_record, but first ask Tailchat if a recheck is overdue."""
        for record in self.living(fields):
            if self._revocation.check(record) is not None:
                continue
            for _ in _QUESTIONS:
                if self._rechecker.look(record, self._clock()).waits:
                    await asyncio.wait((self._rechecker.settled(record),))
        return self.load_record(fields)

    def joined(self, signed_in: SessionRecord, fields: list[bytes]) -> SessionRecord:
        """Return `signed_in` with the id of the person's session in this browser, if there is one.

        Otherwise two tabs that sign in at once would leave two ids on the tools' hosts, and a
        sign-out would end only one of them. `fields` are the raw Cookie fields.
        """
        for record in self._cookie.records_in(fields, self._reader):
            if record.sub != signed_in.sub or self._revocation.check(record) is not None:
                continue
            if self._vault is None or self._vault.stored.get(record.sid) is not None:
                return signed_in._replace(sid=record.sid)
        return signed_in

    async def open(
        self, request: web.BaseRequest, answer: web.StreamResponse, record: SessionRecord
    ) -> None:
        """Set a new session on `answer`; it replaces the browser's earlier one.

        Raises SessionTooLargeError.
        """
        if self._vault is not None:
            await self._vault.save(record, agent=request.headers.get("User-Agent", ""))
        session = await self.new_session()
        session.update(record._asdict())
        await self.save_session(request, answer, session)

    async def close(self, request: web.BaseRequest, answer: web.StreamResponse) -> None:
        """Delete the session's cookie on `answer`."""
        session = await self.load_session(request)
        session.invalidate()
        await self.save_session(request, answer, session)


#: Hosts below wildcards whose sessions are cached; a few KiB each, before anyone signs in.
CAPACITY: Final = 1024


class HostSessions:
    """One HostSession for each host of a tool, and one for all other names of the gate.

    Each host below a wildcard has its own. Anyone can make up such hosts, so unused ones are
    evicted. That loses no session, since these are in cookies; it only costs a key derivation
    later.
    """

    def __init__(
        self,
        secrets: Iterable[bytes],
        sites: Sites,
        *,
        names: CookieNames,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        revocation: RevocationState,
        rechecker: AwaitableRechecks,
        vault: SessionVault | None = None,
    ) -> None:
        if vault is not None and not vault.holds_sessions:
            vault = None
        ring, reader, opened = tuple(secrets), CookieReader(names), SessionCache()

        def make(host: str) -> HostSession:
            purpose = f"session {host}" if host else "session"
            keys, tickets = KeyRing(ring, purpose), vault is not None
            cookie = SessionCookie(keys, names, lifetimes, clock, tickets=tickets)
            return HostSession(cookie, reader, revocation, rechecker, opened, vault)

        self.names: Final = names
        self.lifetimes: Final = lifetimes
        self.clock: Final = clock
        self.reader: Final = reader
        self.revocation: Final = revocation
        self.rechecker: Final = rechecker
        self._opened = opened
        self._vault = vault
        self._make = make
        self.sites: Final = sites
        self._default = make("")
        # Listed by name, because a wildcard may cover the public host.
        self._by_host = {sites.public_host: self._default}
        exact = [host for host in sites.hosts if not host.startswith(WILDCARD)]
        self._by_host |= {host: make(host) for host in exact if sites.is_tool(host)}
        self._has_wildcards = any(host.startswith(WILDCARD) for host in sites.hosts)
        self._below: BoundedCache[str, HostSession] = BoundedCache(CAPACITY)

    def at(self, host: str) -> HostSession:
        """Return the sessions of a host (lower-case, without port)."""
        host_session = self._by_host.get(host)
        if host_session is None:
            return self._below_wildcard(host) if self._has_wildcards else self._default
        return host_session

    def of(self, sub: str) -> list[StoredSession]:
        """Return a person's stored sessions, the last used first; none if cookies hold them."""
        return [] if self._vault is None else self._vault.stored.of(sub)

    def forget(self) -> None:
        """Clear the caches of every host, because no further request will come."""
        self.reader.forget()
        self._below.clear()
        self._opened.clear()

    def _below_wildcard(self, host: str) -> HostSession:
        host_session = self._below.get(host)
        if host_session is None:
            if not self.sites.is_tool(host):
                return self._default
            host_session = self._make(host)
            self._below.keep(host, host_session)
        return host_session
