"""The storage of sessions for aiohttp-session: sealed cookies."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web
from aiohttp_session import AbstractStorage, Session, SessionData

from tailchat_gate.identity.sessions.cookies import CookieReader
from tailchat_gate.identity.sessions.session import SessionCookie, SessionRecord, Ticket
from tailchat_gate.request.target import cookie_fields


class _QuietSession(Session):
    """A session that may hold tokens."""

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
        """Return an empty session whose repr does not show its content."""
        return _QuietSession(None, data=None, new=True)

    async def load_session(self, request: web.BaseRequest) -> Session:
        """Return the session of `request`, or a new, empty one if it has none that is alive."""
        record = self.load_record(cookie_fields(request.raw_headers))
        if record is None:
            return await self.new_session()
        data: SessionData = {"created": record.signed_in_at, "session": asdict(record)}
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
            raise ValueError("a session that is not a SessionRecord")
        response.headers.add("Set-Cookie", self._cookie.set(record))
