"""The sessions of each host: a cookie sealed for one host opens on no other."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Final

from aiohttp import web

from tailchat_gate.identity.authenticate import Authenticator, Opened
from tailchat_gate.identity.cookie import CookieNames, CookieReader
from tailchat_gate.identity.handoff import Sites
from tailchat_gate.identity.locks import Standing
from tailchat_gate.identity.rechecker import Rechecker
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.session import (
    Lifetimes,
    SealedSessionStorage,
    SessionCookie,
    SessionRecord,
)
from tailchat_gate.syntax import WILDCARD


class SiteSession(SealedSessionStorage):
    """The session storage of one host, and the authenticator of its request path.

    `standing` knows who is kept out and what has ended, `rechecker` what became of sessions since
    their cookies were sealed; `opened` keeps the cookies that were opened, of all hosts.
    """

    def __init__(
        self,
        cookie: SessionCookie,
        reader: CookieReader,
        standing: Standing,
        rechecker: Rechecker,
        opened: Opened,
    ) -> None:
        super().__init__(cookie)
        self._clock = cookie.clock
        self._standing = standing
        self._rechecker = rechecker
        self.authenticator: Final = Authenticator(
            cookie, cookie.clock, standing, opened=opened, reader=reader, rechecks=rechecker
        )

    def second_for(self, record: SessionRecord) -> float:
        """Return the Unix second by which a session is judged."""
        return self._standing.second_for(record.sub, self._clock())

    def newest(self, record: SessionRecord) -> SessionRecord | None:
        """Return what is known by now of a session within its time, None where it is no good."""
        if self._standing.check(record) is not None:
            return None
        look = self._rechecker.look(record, self._clock())
        return None if look.turned_away else look.record

    async def settled_record(self, fields: Sequence[bytes]) -> SessionRecord | None:
        """Return what load_record does, once Tailchat was asked where that cannot wait."""
        for record in self.living(fields):
            if self._standing.check(record) is not None:
                continue
            if self._rechecker.look(record, self._clock()).waits:
                await asyncio.wait((self._rechecker.settled(record),))
        return self.load_record(fields)

    def joined(self, begun: SessionRecord, fields: list[bytes]) -> SessionRecord:
        """Return a new session under the name of one that the same person has in this browser.

        Two tabs that sign in at once would else leave two names on the tools' hosts, and to sign
        out would end but one of them. `fields` are the raw Cookie fields.
        """
        for field in fields:
            for value in self._reader.session_values(field):
                record = self._cookie.open(value)
                if (
                    record is not None
                    and record.sub == begun.sub
                    and self._standing.check(record) is None
                ):
                    return replace(begun, sid=record.sid)
        return begun

    async def open(
        self, request: web.BaseRequest, answer: web.StreamResponse, record: SessionRecord
    ) -> None:
        """Set a new session on `answer`; what the browser had before is worth nothing now.

        Raises SessionTooLargeError.
        """
        session = await self.new_session()
        session.update(asdict(record))
        await self.save_session(request, answer, session)

    async def close(self, request: web.BaseRequest, answer: web.StreamResponse) -> None:
        """Delete the session's cookie on `answer`."""
        session = await self.load_session(request)
        session.invalidate()
        await self.save_session(request, answer, session)


#: Hosts below wildcards whose sessions are at hand; a few KiB each, before anybody signs in.
CAPACITY: Final = 1024


class SiteSessions:
    """One SiteSession for each host of a tool, and one for all other names of the gate.

    A host below a wildcard is a host of its own like any other. Anybody can name any number of
    them, so those asked for least recently are forgotten: making one anew costs a key's
    derivation, and the sessions there, which are in cookies, stay.
    """

    def __init__(
        self,
        secrets: Iterable[bytes],
        sites: Sites,
        *,
        names: CookieNames,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        standing: Standing,
        rechecker: Rechecker,
    ) -> None:
        ring, reader, opened = tuple(secrets), CookieReader(names), Opened()

        def make(host: str) -> SiteSession:
            purpose = f"session {host}" if host else "session"
            cookie = SessionCookie(KeyRing(ring, purpose), names, lifetimes, clock)
            return SiteSession(cookie, reader, standing, rechecker, opened)

        self.names: Final = names
        self.lifetimes: Final = lifetimes
        self.clock: Final = clock
        self.reader: Final = reader
        self.standing: Final = standing
        self.rechecker: Final = rechecker
        self._opened = opened
        self._make = make
        self._sites = sites
        self._default = make("")
        # The public host by its name, because a wildcard may cover it.
        self._by_host = {sites.public_host: self._default}
        exact = [host for host in sites.hosts if not host.startswith(WILDCARD)]
        self._by_host |= {host: make(host) for host in exact if sites.is_tool(host)}
        self._has_wildcards = any(host.startswith(WILDCARD) for host in sites.hosts)
        self._below: OrderedDict[str, SiteSession] = OrderedDict()

    def at(self, host: str) -> SiteSession:
        """Return the sessions of a host, lower-case without port."""
        site = self._by_host.get(host)
        if site is None:
            return self._below_wildcard(host) if self._has_wildcards else self._default
        return site

    def forget(self) -> None:
        """Drop the opened sessions of every host: no further request will be asked about."""
        self.reader.forget()
        self._below.clear()
        self._opened.forget()

    def _below_wildcard(self, host: str) -> SiteSession:
        site = self._below.get(host)
        if site is not None:
            self._below.move_to_end(host)
            return site
        if not self._sites.is_tool(host):
            return self._default
        site = self._below[host] = self._make(host)
        if len(self._below) > CAPACITY:
            self._below.popitem(last=False)
        return site
