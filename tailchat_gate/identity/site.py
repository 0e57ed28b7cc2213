"""The sessions of each host: a cookie sealed for one host opens on no other."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Final

from aiohttp import web

from tailchat_gate.identity.authenticate import Authenticator
from tailchat_gate.identity.cookie import CookieNames, CookieReader
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.session import (
    Lifetimes,
    SealedSessionStorage,
    SessionCookie,
    SessionRecord,
)


class SiteSession(SealedSessionStorage):
    """The session storage of one host, and the authenticator of its request path."""

    def __init__(self, cookie: SessionCookie, reader: CookieReader) -> None:
        super().__init__(cookie)
        self.authenticator: Final = Authenticator(cookie, cookie.clock, reader=reader)

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


class SiteSessions:
    """One SiteSession for each host of a route, and one for all other names of the gate."""

    def __init__(
        self,
        secrets: Iterable[bytes],
        hosts: Iterable[str],
        *,
        names: CookieNames,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
    ) -> None:
        ring, reader = tuple(secrets), CookieReader(names)

        def make(purpose: str) -> SiteSession:
            cookie = SessionCookie(KeyRing(ring, purpose), names, lifetimes, clock)
            return SiteSession(cookie, reader)

        self.names: Final = names
        self.lifetimes: Final = lifetimes
        self.clock: Final = clock
        self.reader: Final = reader
        self._default = make("session")
        self._by_host = {host: make(f"session {host}") for host in hosts}

    def at(self, host: str) -> SiteSession:
        """Return the sessions of a host, lower-case without port."""
        return self._by_host.get(host, self._default)
