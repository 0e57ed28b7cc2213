"""A person's own pages: who is signed in, and signing out with a form of this site."""

import hmac
import json
import math
from collections.abc import Callable
from typing import Final

from aiohttp import web

from tailchat_gate.endpoints.form_outcome import FormOutcome
from tailchat_gate.endpoints.form_tokens import FormTokens, form_fields
from tailchat_gate.identity.grants import GrantState
from tailchat_gate.identity.host_sessions import HostSessions
from tailchat_gate.identity.machine_tokens import TokenRefused, Tokens
from tailchat_gate.identity.revocation.store import Revocations
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sites import HANDOFF_LIFETIME, Sites
from tailchat_gate.observe.audit import Audit
from tailchat_gate.proxy.message.identity_headers import IdentityHeaders
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import Intent, read_intent
from tailchat_gate.request.target import cookie_fields, query_pairs
from tailchat_gate.responses.answers import Answers
from tailchat_gate.responses.refusals import Refusals

#: The start of the sealed text that signs out on the public host.
_SIGN_OUT: Final = "sign-out "
#: The start of the sealed text for the last page, and its word for a sign-out everywhere.
_DONE: Final = b"signed-out "
_EVERYWHERE: Final = "everywhere"

#: Reasons for which a session is rejected now and may become valid again.
_LASTS: Final = frozenset(
    (Reason.LOCKED, Reason.MAINTENANCE, Reason.RECHECK_FAILED, Reason.SESSION_STORE_AWAY)
)


class SignOut:
    """The handler of /oauth2/sign_out; `keys` seal its texts in URLs."""

    def __init__(
        self,
        *,
        answers: Answers,
        sessions: HostSessions,
        sites: Sites,
        forms: FormTokens,
        keys: KeyRing,
        locks: Revocations,
        audit: Audit,
        prefix: str,
    ) -> None:
        self._answers = answers
        self._sessions = sessions
        self._sites = sites
        self._forms = forms
        self._keys = keys
        self._locks = locks
        self._audit = audit
        self._page = f"{prefix}/sign_out"
        self._userinfo = f"{prefix}/userinfo"

    async def answer(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Show the confirming page on GET, end the session on POST: no link signs anybody out.

        A POST with the field `everywhere` ends all sessions of the person on every host. One with
        the field `session` ends that other session of theirs and shows the list again. A GET with
        a sealed `pass` is the second half of a POST on a tool's host: it deletes the cookie of the
        public host and ends the session there. The last page leads back to the tool.
        """
        query = dict(query_pairs(context.target.query))
        record = await self._record(request, context)
        if record is None:
            return await self._signed_out(request, context, query)
        context.sub = record.sub
        passed = context.method == "GET" and self._is_sign_out_pass(query, record)
        own_form = context.method == "POST" and await self._forms.is_own(
            request, record, context.host
        )
        if not passed and not own_form:
            return self._answers.page(
                context,
                "sign_out",
                csrf=self._forms.token(record, context.host),
                nickname=record.nickname,
            )
        lifetime = self._sessions.lifetimes.absolute
        done = self._done(query)
        fields = await form_fields(request) if own_form else {}
        if fields.get("session", record.sid) != record.sid:
            return await self._end_other(context, record, fields["session"])
        everywhere = "everywhere" in fields
        if own_form:
            done = self._seal_done(context.host, everywhere=everywhere)
        # First, because a browser that disconnects cancels this handler at its next await.
        self._audit.event("signed-out", context, everywhere=everywhere)
        if everywhere:
            await self._locks.sign_out_everywhere(record, lifetime=lifetime)
        else:
            await self._locks.end_session(record, lifetime=lifetime)
        answer = self._answers.redirect(self._next(context, record, done), status=303)
        await self._sessions.at(context.host).close(request, answer)
        return answer

    async def _end_other(
        self, context: RequestContext, record: SessionRecord, sid: str
    ) -> web.StreamResponse:
        """End another session of the person, if it is theirs."""
        sessions = self._sessions.of(record.sub)
        other = next((session for session in sessions if session.sid == sid), None)
        if other is not None:
            self._audit.event("signed-out", context, everywhere=False, session=sid)
            ended = record._replace(sid=sid)
            await self._locks.end_session(ended, lifetime=self._sessions.lifetimes.absolute)
            outcome = FormOutcome("session_ended", {"browser": other.browser})
        else:
            outcome = FormOutcome("nothing", {})
        query = self._forms.notes.query(record.sid, outcome)
        return self._answers.redirect(f"{self._userinfo}?{query}", status=303)

    async def _signed_out(
        self, request: web.BaseRequest, context: RequestContext, query: dict[str, str]
    ) -> web.StreamResponse:
        """Show the last page, and delete the cookie of a session that has ended."""
        done = self._done(query)
        if self._sites.is_tool(context.host):
            # The page on the public host answers, because there may still be a session there.
            back = self._seal_done(context.host, everywhere=False)
            url = _with_done(f"{self._sites.public_url}{self._page}", back)
            answer = self._answers.redirect(url, status=303)
        elif "pass" in query:
            # Removes the used `pass` from the address bar.
            answer = self._answers.redirect(_with_done(self._page, done), status=303)
        else:
            everywhere, host = self._read_done(done)
            # The configuration may no longer have that tool.
            origin = self._sites.origin(host) if self._sites.is_tool(host) else ""
            answer = self._answers.page(
                context,
                "signed_out",
                start_url=f"{origin}{self._answers.start_url('/')}",
                everywhere=everywhere,
            )
        reader = self._sessions.reader
        fields = cookie_fields(request.raw_headers)
        if any(value for field in fields for value in reader.session_values(field)):
            await self._sessions.at(context.host).close(request, answer)
        return answer

    def _done(self, query: dict[str, str]) -> str:
        """Return the query's text for the last page if this gate sealed it, else ""."""
        done = query.get("done", "")
        sealed = self._keys.open(done)
        return done if sealed is not None and sealed.startswith(_DONE) else ""

    def _seal_done(self, host: str, *, everywhere: bool) -> str:
        """Return the sealed text for the last page, "" for an ordinary sign-out."""
        tool = host if self._sites.is_tool(host) else ""
        if not (tool or everywhere):
            return ""
        return self._keys.seal(_DONE + f"{tool} {_EVERYWHERE if everywhere else ''}".encode())

    def _read_done(self, done: str) -> tuple[bool, str]:
        """Return whether every session was ended, and the tool's host where that began."""
        sealed = (self._keys.open(done) or b"").removeprefix(_DONE).decode()
        host, _, scope = sealed.partition(" ")
        return scope == _EVERYWHERE, host

    def _next(self, context: RequestContext, record: SessionRecord, done: str) -> str:
        """Return the URL to continue at; a sign-out on a tool's host goes on to the public one."""
        if not self._sites.is_tool(context.host):
            return _with_done(self._page, done)
        issued = int(self._sessions.clock())
        sealed = self._keys.seal(f"{_SIGN_OUT}{issued} {record.sid}".encode())
        return _with_done(f"{self._sites.public_url}{self._page}?pass={sealed}", done)

    def _is_sign_out_pass(self, query: dict[str, str], record: SessionRecord) -> bool:
        """Whether the query holds a fresh, sealed request to end this session."""
        sealed = self._keys.open(query.get("pass", ""))
        if sealed is None or not sealed.startswith(_SIGN_OUT.encode()):
            return False
        issued, _, sid = sealed.decode().removeprefix(_SIGN_OUT).partition(" ")
        fresh = abs(self._sessions.clock() - int(issued)) <= HANDOFF_LIFETIME
        return fresh and hmac.compare_digest(sid, record.sid)

    async def _record(
        self, request: web.BaseRequest, context: RequestContext
    ) -> SessionRecord | None:
        """Return the session to end, also one that is only rejected for now."""
        host_session = self._sessions.at(context.host)
        record = await host_session.stored_record(cookie_fields(request.raw_headers))
        if record is not None:
            return record
        rejection = host_session.authenticator.explain_rejection(context.head.fields)
        lasts = rejection is not None and rejection.reason in _LASTS
        return rejection.record if rejection is not None and lasts else None


def _with_done(url: str, done: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}done={done}" if done else url


class UserInfo:
    """The handler of /oauth2/userinfo."""

    def __init__(
        self,
        *,
        refusals: Refusals,
        sessions: HostSessions,
        tokens: Tokens,
        identity: IdentityHeaders,
        forms: FormTokens,
        grants: GrantState,
        has_tool: Callable[[str], bool],
    ) -> None:
        """`has_tool` returns whether a host has a tool at "/"."""
        self._forms = forms
        self._has_tool = has_tool
        self._grants = grants
        self._answers = refusals.answers
        self._refusals = refusals
        self._sessions = sessions
        self._tokens = tokens
        self._identity = identity

    async def answer(self, request: web.BaseRequest, context: RequestContext) -> web.StreamResponse:
        """Show the signed-in person or the token; redirect anonymous page navigations to login."""
        if context.head.fields.bearer is not None:
            return self._machine(context)
        host_session, cookies = self._sessions.at(context.host), cookie_fields(request.raw_headers)
        record = await host_session.settled_record(cookies)
        if record is None:
            return self._refusals.not_let_in(
                context, host_session.authenticator.explain_rejection(context.head.fields)
            )
        context.sub = record.sub
        until = self._sessions.lifetimes.expires_at(record)
        groups = self._identity.groups_of(record.sub)
        grants = self._grants.of(record.sub)
        if read_intent(context.method, request.headers) is Intent.NAVIGATION:
            outcome = self._forms.notes.read(record.sid, dict(query_pairs(context.target.query)))
            return self._answers.page(
                context,
                "userinfo",
                sub=record.sub,
                nickname=record.nickname,
                discriminator=record.discriminator,
                groups=groups,
                grants=[(self._answers.title(grant.route), grant.until) for grant in grants],
                signed_in_at=record.signed_in_at,
                until=until,
                csrf=self._forms.token(record, context.host),
                sessions=self._listed(record, context),
                has_tool=self._has_tool(context.head.fields.host.name),
                said=outcome.shown() if outcome else {},
            )
        body = {
            "sub": record.sub,
            "nickname": record.nickname,
            "discriminator": record.discriminator,
            "avatar": record.avatar,
            "groups": groups,
            "grants": [{"route": grant.route, "until": grant.until} for grant in grants],
            "signed_in_at": record.signed_in_at,
            "expires_at": int(until),
        }
        if listed := self._listed(record, context):
            body["sessions"] = listed
        return self._answers.json(json.dumps(body).encode("ascii"))

    def _listed(self, record: SessionRecord, context: RequestContext) -> list[dict[str, object]]:
        """Return the person's sessions; none on a tool's host, whose scripts can read the page."""
        if self._sessions.sites.is_tool(context.host):
            return []
        return [
            {
                "id": session.sid,
                "browser": session.browser,
                "signed_in_at": session.began,
                "seen_at": session.seen,
                "is_this": session.sid == record.sid,
            }
            for session in self._sessions.of(record.sub)
        ]

    def _machine(self, context: RequestContext) -> web.StreamResponse:
        """Return the name and the expiry of the token that a machine presents."""
        try:
            machine = self._tokens.machine_of(context.head.fields)
        except TokenRefused as refused:
            context.token = refused.name
            return self._refusals.token_refused(context, refused.reason, refused.lock)
        context.token = machine.name
        ends_at = int(machine.ends_at) if machine.ends_at < math.inf else None
        body = {"token": machine.name, "expires_at": ends_at}
        return self._answers.json(json.dumps(body).encode("ascii"))
