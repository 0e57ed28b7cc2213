"""The gate's own paths: sign in, come back from Tailchat, who am I, sign out."""

import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from tailchat_gate.answers import Answers
from tailchat_gate.identity.cookie import CookieNames, CookieReader, set_cookie
from tailchat_gate.identity.login import (
    STATE_LIFETIME,
    LoginRefused,
    accept_callback,
    begin_login,
    is_browser_cookie,
    new_browser_cookie,
    open_callback,
    safe_return_to,
)
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.session import (
    SealedSessionStorage,
    SessionCookie,
    SessionRecord,
    SessionTooLargeError,
)
from tailchat_gate.identity.tailchat import TailchatClient
from tailchat_gate.identity.used_states import UsedStates
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.proxy.identity_headers import IdentityHeaders, identity_fields
from tailchat_gate.reasons import Reason
from tailchat_gate.request.intent import Intent, read_intent
from tailchat_gate.request.visit import Visit

PING: Final = "/ping"
_READ: Final = frozenset(("GET", "HEAD"))
_MAX_PARAMETERS: Final = 32
_MAX_FORM_BYTES: Final = 16_384

Handler = Callable[[web.BaseRequest, Visit], Awaitable[web.StreamResponse]]

_log = logging.getLogger(LOGGER_NAME)


class Endpoints:
    """Handlers of the gate's own paths for one configuration."""

    def __init__(  # noqa: PLR0913 - the parts of a login, each by name
        self,
        *,
        answers: Answers,
        tailchat: TailchatClient,
        storage: SealedSessionStorage,
        cookie: SessionCookie,
        used_states: UsedStates[SessionRecord],
        states: KeyRing,
        forms: KeyRing,
        identity: IdentityHeaders,
        metrics: Metrics,
        public_url: str,
        prefix: str,
        hosts: frozenset[str],
    ) -> None:
        self._answers = answers
        self._tailchat = tailchat
        self._storage = storage
        self._cookie = cookie
        self._used_states = used_states
        self._states = states
        self._forms = forms
        self._identity = identity
        self._metrics = metrics
        self._public_url = public_url
        self._prefix = prefix
        scheme = urlsplit(public_url).scheme
        self._origins = frozenset(f"{scheme}://{host}" for host in hosts)
        self._names: CookieNames = cookie.names
        self._reader = CookieReader(cookie.names)
        self._handlers: Mapping[str, tuple[frozenset[str], Handler]] = MappingProxyType(
            {
                PING: (_READ, self._ping),
                f"{prefix}/start": (_READ, self._start),
                f"{prefix}/callback": (_READ, self._callback),
                f"{prefix}/sign_in": (_READ, self._sign_in),
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

    async def answer(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Answer a request for one of the gate's own paths."""
        found = self._handlers.get(visit.target.path)
        if found is None:
            return self._answers.problem(request, visit, Reason.NO_ROUTE)
        methods, handler = found
        if request.method not in methods:
            return self._answers.problem(
                request,
                visit,
                Reason.METHOD_REFUSED,
                headers={"Allow": ", ".join(sorted(methods))},
            )
        visit.reason = Reason.OWN_PATH
        return await handler(request, visit)

    async def _ping(self, _request: web.BaseRequest, _visit: Visit) -> web.StreamResponse:
        return self._answers.text("OK\n")

    # Signing in.

    async def _start(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Begin a login: set the login cookie where it is missing, and send the browser away."""
        if request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
            # A page's fetch cannot show Tailchat's pages, and must not leave cookies behind.
            return self._answers.not_signed_in(request, visit)
        query = self._query(visit)
        browser = next(filter(is_browser_cookie, self._login_cookies(request)), None)
        browser = browser or new_browser_cookie(os.urandom)
        login = begin_login(
            self._tailchat.registration,
            return_to=self._return_to(query),
            browser_cookie=browser,
            keyring=self._states,
            now=self._cookie.clock(),
            random_bytes=os.urandom,
            prompt="login" if query.get("prompt") == "login" else "",
        )
        answer = self._answers.redirect(self._tailchat.authorization_url(login.params))
        answer.headers.add(
            "Set-Cookie",
            set_cookie(
                self._names.login, browser, max_age=STATE_LIFETIME, secure=self._names.secure
            ),
        )
        return answer

    async def _sign_in(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        return_to = self._return_to(self._query(visit))
        return self._answers.page(
            request,
            "sign_in",
            start_url=self._answers.start_url(return_to),
            return_to="" if return_to == "/" else return_to,
        )

    async def _callback(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Finish a login: believe the callback, redeem its code once, open the session."""
        try:
            return await self._finish_login(request, visit)
        except LoginRefused as refused:
            return self._refuse_login(request, visit, Reason(refused.reason), refused.detail)
        except SessionTooLargeError:
            return self._refuse_login(request, visit, Reason.SESSION_TOO_LARGE, {})

    async def _finish_login(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        pending = open_callback(
            _pairs(visit.target.query),
            self._login_cookies(request),
            keyring=self._states,
            now=self._cookie.clock(),
        )
        state = pending.state
        session = self._storage.load_record(_cookie_fields(request))
        if session is not None and session.login == state.short_id:
            # The callback page was reloaded or gone back to: the login is done already.
            return self._answers.redirect(state.return_to, status=303)
        code = accept_callback(pending, expected_issuer=await self._tailchat.issuer())

        async def redeem() -> SessionRecord:
            profile = await self._tailchat.identity(code, state)
            return SessionRecord.begin(profile, now=self._cookie.clock(), login=state.short_id)

        record = await self._used_states.redeem_once(state.state_id, state.expires_at, redeem)
        answer = self._answers.redirect(state.return_to, status=303)
        fresh = await self._storage.new_session()
        fresh.update(asdict(record))
        await self._storage.save_session(request, answer, fresh)
        self._metrics.login(Reason.SIGNED_IN)
        visit.sub = record.sub
        return answer

    def _refuse_login(
        self,
        request: web.BaseRequest,
        visit: Visit,
        reason: Reason,
        detail: Mapping[str, str],
    ) -> web.StreamResponse:
        self._metrics.login(reason)
        shown = {name: text for name, text in detail.items() if name != "return_to"}
        _log.warning(
            "a login was refused",
            extra={"details": {"reason": reason, "request_id": visit.request_id, **shown}},
        )
        return self._answers.problem(
            request,
            visit,
            reason,
            detail=shown,
            retry_url=self._answers.start_url(detail.get("return_to", "/")),
        )

    # Being signed in.

    async def _auth(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Answer a proxy in front that asks who a visitor is; never with a redirect."""
        record = self._storage.load_record(_cookie_fields(request))
        if record is None:
            return self._answers.problem(request, visit, Reason.NOT_SIGNED_IN)
        visit.sub = record.sub
        return self._answers.identity(identity_fields(record, self._identity.groups_of(record.sub)))

    async def _userinfo(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        record = self._storage.load_record(_cookie_fields(request))
        if record is None:
            return self._answers.not_signed_in(request, visit)
        visit.sub = record.sub
        until = self._cookie.lifetimes.expires_at(record)
        groups = self._identity.groups_of(record.sub)
        if read_intent(request.method, request.headers) is Intent.NAVIGATION:
            return self._answers.page(
                request,
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
        """Show the confirming page on GET, end the session on POST (never on a mere link)."""
        record = self._storage.load_record(_cookie_fields(request))
        if record is None:
            return self._answers.page(request, "signed_out", start_url=self._answers.start_url("/"))
        visit.sub = record.sub
        if request.method != "POST" or not await self._is_own_form(request, record):
            return self._answers.page(
                request,
                "sign_out",
                csrf=self._forms.seal(record.sid.encode()),
                nickname=record.nickname,
            )
        answer = self._answers.redirect(f"{self._prefix}/sign_out", status=303)
        session = await self._storage.load_session(request)
        session.invalidate()
        await self._storage.save_session(request, answer, session)
        return answer

    async def _is_own_form(self, request: web.BaseRequest, record: SessionRecord) -> bool:
        """Tell whether a POST comes from this origin: by Fetch Metadata, or by the form's token."""
        if request.headers.get("Sec-Fetch-Site") == "same-origin":
            return True
        body = await request.content.read(_MAX_FORM_BYTES)
        fields = dict(_pairs("?" + body.decode("ascii", "replace")))
        sealed = self._forms.open(fields.get("csrf", ""))
        return sealed is not None and secrets.compare_digest(sealed, record.sid.encode())

    # What a request says.

    def _query(self, visit: Visit) -> dict[str, str]:
        return dict(_pairs(visit.target.query))

    def _return_to(self, query: Mapping[str, str]) -> str:
        return safe_return_to(
            query.get("rd", "/"),
            public_origin=self._public_url,
            allowed_origins=self._origins,
            prefix=self._prefix,
        )

    def _login_cookies(self, request: web.BaseRequest) -> list[str]:
        return [
            value for field in _cookie_fields(request) for value in self._reader.login_values(field)
        ]


def _cookie_fields(request: web.BaseRequest) -> list[bytes]:
    return [value for name, value in request.raw_headers if name.lower() == b"cookie"]


def _pairs(query: str) -> list[tuple[str, str]]:
    """Return the decoded pairs of a query that begins with "?"; none of one that is too long."""
    try:
        return parse_qsl(query[1:], keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return []
