"""The sessions of each host, and how a session gets from the public host to a tool's host."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.identity.authenticator import Authenticator, SessionCache
from tailchat_gate.identity.oauth.login import LoginRefused, StrayLogin
from tailchat_gate.identity.oauth.login_state import is_bound_to
from tailchat_gate.identity.rechecker import PatientRechecks
from tailchat_gate.identity.revocation.state import RevocationState
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookies import CookieNames, CookieReader
from tailchat_gate.identity.sessions.session import (
    Lifetimes,
    SessionCookie,
    SessionRecord,
    Ticket,
)
from tailchat_gate.identity.sessions.storage import SealedSessionStorage
from tailchat_gate.identity.stored_sessions import SessionVault, StoredSession
from tailchat_gate.reasons import Reason
from tailchat_gate.request.target import HostPatterns, query_pairs
from tailchat_gate.syntax import CLOCK_SKEW, COMPACT, WILDCARD

#: What a session may wait for: that the store is read, that Tailchat confirms it, and what Tailchat
#: says of the person.
_QUESTIONS: Final = range(3)
#: The redirect that carries a handoff token uses it at once; a minute allows for a slow phone.
HANDOFF_LIFETIME: Final = 60
_PORT: Final = re.compile(r":[0-9]+$")


class Sites:
    """The origins that one gate serves: its public one, and one for each host of a route.

    A session cookie belongs to one host, so that one tool's host cannot use another's. `hosts`
    are the hosts in routes, wildcards included. `origin in sites` (in normal form) holds if a
    route's host covers it: a login may return there.
    """

    def __init__(self, public_url: str, hosts: Iterable[str]) -> None:
        self.public_url: Final = public_url
        #: Hosts as routes write them.
        self.hosts: Final = frozenset(hosts)
        self._scheme, _, authority = public_url.partition("://")
        self._port = (_PORT.search(authority) or [""])[0]
        #: The host name of the public origin.
        self.public_host: Final = authority.removesuffix(self._port)
        self._covered = HostPatterns(dict.fromkeys(self.hosts, True))

    def origin(self, host: str) -> str:
        """Return the origin of a host: its own for a tool's host, else the public one."""
        if not self.is_tool(host):
            return self.public_url
        return f"{self._scheme}://{host}{self._port}"

    def is_tool(self, host: str) -> bool:
        """Whether a host is a tool's own, other than the public one."""
        return self._covered.get(host) is not None and host != self.public_host

    def port(self, host: str) -> str:
        """Return the port that visitors add to a host of the gate, "" for the scheme's default.

        A proxy in front may leave it out of the Host field.
        """
        known = host == self.public_host or self.is_tool(host)
        return self._port.removeprefix(":") if known else ""

    def __contains__(self, origin: object) -> bool:
        host = str(origin).partition("://")[2].removesuffix(self._port)
        return self._covered.get(host) is not None and self.origin(host) == origin


@dataclass(frozen=True, slots=True)
class HandoffTarget:
    """Where to sign in: the tool's `host`, the `browser` there, and the path to continue at.

    `again`: this target replaces one that reached another browser. `framed`: the session is for a
    frame in a page of another site.
    """

    host: str
    browser: str
    return_to: str
    again: bool = False
    framed: bool = False


@dataclass(frozen=True, slots=True)
class HandoffToken:
    """A sign-in on its way to a tool's host; `token_id` identifies it, so that it is used once."""

    token_id: str
    record: SessionRecord
    return_to: str
    expires_at: float
    language: str = ""


def handoff_url(
    origin: str,
    prefix: str,
    *,
    browser: str,
    return_to: str,
    again: bool = False,
    framed: bool = False,
) -> str:
    """Return the address on a tool's host that finishes a sign-in there.

    `browser` is the hash of a login cookie on that host. It needs no seal: a forged hash yields a
    token that only the browser with that cookie can use, and only the visitor gets that token.
    """
    flags = ("&again=1" if again else "") + ("&framed=1" if framed else "")
    query = f"for={quote(browser)}&rd={quote(return_to, safe='/')}{flags}"
    return f"{origin}{prefix}/arrive?{query}"


def read_handoff_target(return_to: str, sites: Sites, prefix: str) -> HandoffTarget | None:
    """Return the handoff target in a return target, None for any other return target."""
    parts = urlsplit(return_to)
    query = dict(query_pairs("?" + parts.query))
    framed = query.get("framed") == "1"
    # A target on the public host is a path; only a frame there needs a handoff.
    host = parts.hostname or sites.public_host
    if parts.path != f"{prefix}/arrive" or not (framed or sites.is_tool(host)):
        return None
    browser, target = query.get("for", ""), query.get("rd", "/")
    again = query.get("again") == "1"
    return HandoffTarget(host, browser, target, again, framed) if browser else None


def seal_handoff_token(
    record: SessionRecord, target: HandoffTarget, *, keys: KeyRing, now: float, language: str = ""
) -> str:
    """Return the sealed token with which one browser on one host takes over `record`."""
    if target.framed:
        record = replace(record, embedded=True)
    body = {"record": asdict(record), "arrival": asdict(target), "at": int(now)}
    body |= {"language": language} if language else {}
    return keys.seal(json.dumps(body, ensure_ascii=False, separators=COMPACT).encode())


def open_handoff_token(
    sealed: str, browser_cookies: Collection[str], *, host: str, keys: KeyRing, now: float
) -> HandoffToken:
    """Return the sign-in in a token. Raises LoginRefused, StrayLogin for a token of this gate.

    This gate must have sealed it for this host and browser, at most HANDOFF_LIFETIME seconds ago.
    """
    data = keys.open(sealed)
    if data is None:
        raise LoginRefused(Reason.LOGIN_STATE_FORGED)
    body = json.loads(data)
    record = SessionRecord.from_fields(body["record"])
    target = HandoffTarget(**body["arrival"])
    if record is None or target.host != host:
        raise LoginRefused(Reason.LOGIN_STATE_FORGED)
    reason = None
    if not -CLOCK_SKEW <= now - body["at"] <= HANDOFF_LIFETIME:
        reason = Reason.LOGIN_STATE_EXPIRED
    elif not is_bound_to(target.browser, browser_cookies):
        reason = Reason.LOGIN_OTHER_BROWSER if browser_cookies else Reason.COOKIES_BLOCKED
    if reason is not None:
        raise StrayLogin(reason, return_to=target.return_to, again=target.again)
    token_id = hashlib.sha256(sealed.encode()).hexdigest()[:32]
    ends_at = body["at"] + HANDOFF_LIFETIME
    return HandoffToken(token_id, record, target.return_to, ends_at, body.get("language", ""))


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
        rechecker: PatientRechecks,
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
        # A ticket whose session is not known yet is no session.
        return None if look.refused or isinstance(look.record, Ticket) else look.record

    async def stored_record(self, fields: Sequence[bytes]) -> SessionRecord | None:
        """As load_record, but wait until the store was read for a ticket that is not known."""
        for record in self.living(fields):
            if isinstance(record, Ticket) and self._rechecker.look(record, self._clock()).waits:
                await asyncio.wait((self._rechecker.settled(record),))
        return self.load_record(fields)

    async def settled_record(self, fields: Sequence[bytes]) -> SessionRecord | None:
        """As load_record, but ask Tailchat first if that cannot wait."""
        for record in self.living(fields):
            if self._revocation.check(record) is not None:
                continue
            for _ in _QUESTIONS:
                if self._rechecker.look(record, self._clock()).waits:
                    await asyncio.wait((self._rechecker.settled(record),))
        return self.load_record(fields)

    def joined(self, begun: SessionRecord, fields: list[bytes]) -> SessionRecord:
        """Return a new session under the id of one that the same person has in this browser.

        Two tabs that sign in at once would otherwise leave two ids on the tools' hosts, and a
        sign-out would end only one of them. `fields` are the raw Cookie fields.
        """
        for record in self._cookie.records_in(fields, self._reader):
            if record.sub != begun.sub or self._revocation.check(record) is not None:
                continue
            if self._vault is None or self._vault.stored.get(record.sid) is not None:
                return replace(begun, sid=record.sid)
        return begun

    async def open(
        self, request: web.BaseRequest, answer: web.StreamResponse, record: SessionRecord
    ) -> None:
        """Set a new session on `answer`; it replaces the browser's earlier one.

        Raises SessionTooLargeError.
        """
        if self._vault is not None:
            await self._vault.save(record, agent=request.headers.get("User-Agent", ""))
        session = await self.new_session()
        session.update(asdict(record))
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

    A host below a wildcard has a HostSession of its own. Anyone can name any number of such hosts,
    so those that nobody asks for are evicted. To make one again costs a key derivation; the
    sessions there are in cookies and are not lost.
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
        rechecker: PatientRechecks,
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
        # The public host by its name, because a wildcard may cover it.
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
        """Return a person's sessions, the last used first; none where cookies hold them."""
        return [] if self._vault is None else self._vault.stored.of(sub)

    def forget(self) -> None:
        """Drop the opened sessions of every host: no further request will come."""
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
