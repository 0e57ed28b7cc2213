"""Signing out: a confirming page, the end of the session, a page that does not sign in again."""

import secrets
from typing import Final

from aiohttp import web

from tailchat_gate.answers import Answers
from tailchat_gate.identity.handoff import PASS_LIFETIME, Sites
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.session import SessionRecord
from tailchat_gate.identity.site import SiteSessions
from tailchat_gate.observe.audit import Audit
from tailchat_gate.request.query import cookie_fields, query_pairs
from tailchat_gate.request.visit import Visit

#: Marks a pass to sign out among what the forms' keys seal; a session's id holds no space.
_SIGN_OUT: Final = "sign-out "


class SignOut:
    """The handler of /oauth2/sign_out."""

    def __init__(
        self,
        *,
        answers: Answers,
        sessions: SiteSessions,
        sites: Sites,
        forms: KeyRing,
        audit: Audit,
        prefix: str,
    ) -> None:
        self._answers = answers
        self._sessions = sessions
        self._sites = sites
        self._forms = forms
        self._audit = audit
        self._prefix = prefix

    async def answer(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Show the confirming page on GET, end the session on POST (never on a mere link).

        A GET with a pass is the second half of a POST on a tool's host, which has ended the
        session there and comes to end the one that would sign in again silently.
        """
        record = self._record(request, visit)
        if record is None:
            return self._answers.page(visit, "signed_out", start_url=self._answers.start_url("/"))
        visit.sub = record.sub
        passed = visit.method == "GET" and self._is_sign_out_pass(visit, record)
        own_form = visit.method == "POST" and await self._is_own_form(request, record)
        if not passed and not own_form:
            return self._answers.page(
                visit,
                "sign_out",
                csrf=self._forms.seal(record.sid.encode()),
                nickname=record.nickname,
            )
        page = f"{self._prefix}/sign_out"
        if self._sites.is_tool(visit.host):
            page = f"{self._sites.public_url}{page}?pass={self._sign_out_pass(record)}"
        self._audit.event("signed-out", visit)
        answer = self._answers.redirect(page, status=303)
        await self._sessions.at(visit.host).close(request, answer)
        return answer

    def _sign_out_pass(self, record: SessionRecord) -> str:
        return self._forms.seal(f"{_SIGN_OUT}{int(self._sessions.clock())} {record.sid}".encode())

    def _is_sign_out_pass(self, visit: Visit, record: SessionRecord) -> bool:
        """Tell whether the query holds a fresh pass to end this very session."""
        sealed = self._forms.open(dict(query_pairs(visit.target.query)).get("pass", ""))
        if sealed is None or not sealed.startswith(_SIGN_OUT.encode()):
            return False
        issued, _, sid = sealed.decode().removeprefix(_SIGN_OUT).partition(" ")
        fresh = abs(self._sessions.clock() - int(issued)) <= PASS_LIFETIME
        return fresh and secrets.compare_digest(sid, record.sid)

    async def _is_own_form(self, request: web.BaseRequest, record: SessionRecord) -> bool:
        """Tell whether a POST comes from this origin: by Fetch Metadata, or by the form's token."""
        if request.headers.get("Sec-Fetch-Site") == "same-origin":
            return True
        body = await request.read()
        fields = dict(query_pairs("?" + body.decode("ascii", "replace")))
        sealed = self._forms.open(fields.get("csrf", ""))
        return sealed is not None and secrets.compare_digest(sealed, record.sid.encode())

    def _record(self, request: web.BaseRequest, visit: Visit) -> SessionRecord | None:
        return self._sessions.at(visit.host).load_record(cookie_fields(request.raw_headers))
