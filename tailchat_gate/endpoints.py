"""The gate's own paths: which handler answers each; who am I, and sign out."""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web

from tailchat_gate.answers import Answers
from tailchat_gate.identity.handoff import PASS_LIFETIME, Sites
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.session import SessionRecord
from tailchat_gate.identity.site import SiteSessions
from tailchat_gate.login_endpoints import LoginEndpoints
from tailchat_gate.proxy.identity_headers import IdentityHeaders
from tailchat_gate.reasons import Reason
from tailchat_gate.request.intent import Intent, read_intent
from tailchat_gate.request.query import cookie_fields, query_pairs
from tailchat_gate.request.visit import Visit

PING: Final = "/ping"
_READ: Final = frozenset(("GET", "HEAD"))
#: The steps of a login are no HEAD: whoever looks ahead at a link must not spend its code.
_STEP: Final = frozenset(("GET",))
MAX_FORM_BYTES: Final = 16_384
#: Marks a pass to sign out among what the forms' keys seal; a session's id holds no space.
_SIGN_OUT: Final = "sign-out "

# Names of their own, because an enum's attribute costs ten times a global.
_OWN_PATH: Final = Reason.OWN_PATH
_ACCEPTED: Final = 202

Handler = Callable[[web.BaseRequest, Visit], Awaitable[web.StreamResponse]]


class Endpoints:
    """Handlers of the gate's own paths for one configuration."""

    def __init__(
        self,
        login: LoginEndpoints,
        *,
        answers: Answers,
        sessions: SiteSessions,
        sites: Sites,
        forms: KeyRing,
        identity: IdentityHeaders,
        prefix: str,
    ) -> None:
        self._answers = answers
        self._sessions = sessions
        self._sites = sites
        self._forms = forms
        self._identity = identity
        self._prefix = prefix
        self._auth_path = f"{prefix}/auth"
        self._form_path = f"{prefix}/sign_out"
        self._handlers: Mapping[str, tuple[frozenset[str], Handler]] = MappingProxyType(
            {
                PING: (_READ, self._ping),
                f"{prefix}/start": (_STEP, login.start),
                f"{prefix}/callback": (_STEP, login.callback),
                f"{prefix}/arrive": (_STEP, login.arrive),
                f"{prefix}/sign_in": (_READ, login.sign_in),
                f"{prefix}/sign_out": (_READ | {"POST"}, self._sign_out),
                f"{prefix}/auth": (_READ, self._auth),
                f"{prefix}/userinfo": (_READ, self._userinfo),
            }
        )

    def owns(self, path: str) -> bool:
        """Tell whether a path is the gate's own; no route ever sees one."""
        prefix = self._prefix
        return path == PING or (
            path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/")
        )

    def reads_body(self, visit: Visit) -> bool:
        """Tell whether the answer to a request depends on its body."""
        return visit.method == "POST" and visit.path == self._form_path

    async def answer(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Answer a request for one of the gate's own paths."""
        found = self._handlers.get(visit.target.path)
        if found is None:
            return self._answers.problem(visit, Reason.NO_ROUTE)
        methods, handler = found
        if visit.method not in methods:
            return self._answers.problem(
                visit,
                Reason.METHOD_REFUSED,
                headers={"Allow": ", ".join(sorted(methods))},
            )
        visit.reason = Reason.OWN_PATH
        return await handler(request, visit)

    async def _ping(self, _request: web.BaseRequest, _visit: Visit) -> web.StreamResponse:
        return self._answers.text("OK\n")

    # Being signed in.

    def ready_answer(self, visit: Visit, *, keep: bool) -> bytes | None:
        """Return the answer to a proxy in front that asks who a signed-in visitor is.

        It is asked for with every request that the proxy gets, so it is made without a page. None
        for every other path and for who is not signed in.
        """
        head = visit.head
        if head.target.path != self._auth_path or head.method not in _READ:
            return None
        fields = head.fields
        authenticator = self._sessions.at(fields.host.name).authenticator
        visitor = authenticator.visitor_of(fields)
        if visitor is None:
            return None
        visit.reason, visit.status, visit.sub = _OWN_PATH, _ACCEPTED, visitor.record.sub
        return self._answers.identity(self._identity.plain_fields(visitor), head, keep=keep)

    async def _auth(self, _request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Refuse a visitor who is not signed in; never with a redirect."""
        return self._answers.problem(visit, Reason.NOT_SIGNED_IN)

    async def _userinfo(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        record = self._record(request, visit)
        if record is None:
            return self._answers.not_signed_in(visit)
        visit.sub = record.sub
        until = self._sessions.lifetimes.expires_at(record)
        groups = self._identity.groups_of(record.sub)
        if read_intent(visit.method, request.headers) is Intent.NAVIGATION:
            return self._answers.page(
                visit,
                "userinfo",
                sub=record.sub,
                nickname=record.nickname,
                discriminator=record.discriminator,
                groups=groups,
                signed_in_at=record.signed_in_at,
                until=until,
            )
        body = {
            "sub": record.sub,
            "nickname": record.nickname,
            "discriminator": record.discriminator,
            "avatar": record.avatar,
            "groups": groups,
            "signed_in_at": record.signed_in_at,
            "expires_at": int(until),
        }
        return self._answers.json(json.dumps(body).encode("ascii"))

    # Signing out.

    async def _sign_out(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
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
