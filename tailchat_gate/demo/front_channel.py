"""The stand-in Tailchat's login for browsers: /open/auth and its pages."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web

from tailchat_gate.demo.authorize import (
    AuthorizationError,
    Callback,
    callback_url,
    next_page,
    read_request,
)
from tailchat_gate.demo.oauth import OAuthError, Parameters, bad_request
from tailchat_gate.demo.store import (
    CODE_SECONDS,
    GRANT_SECONDS,
    INTERACTION_SECONDS,
    SESSION_SECONDS,
    AuthRequest,
    Grant,
    Interaction,
    Result,
    Session,
    Store,
    Token,
)
from tailchat_gate.demo.users import User
from tailchat_gate.demo.wire import Attributes, Cookies, UntypedPage, render

_NO_STORE: Final = {"Cache-Control": "no-store"}


class PageError(Exception):
    """A failure that Tailchat shows on a page of its own (HTTP 500); its text is on the page."""


@dataclass(slots=True)
class _Context:
    """One request of a browser, and its session.

    `cookie` is the value of the session cookie; `keep`: the response sets it again.
    """

    origin: str
    issuer: str
    session: Session
    cookie: str
    keep: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """The page to show next, and its data."""

    page: str
    missing: tuple[str, ...]
    grant: Grant | None
    result: Result


def _new_id() -> str:
    return secrets.token_urlsafe(16)[:21]


class FrontChannel:
    """The pages of a login.

    `issuer` is Tailchat's API_URL, "" for the origin of each request. `under_proxy`: trust
    X-Forwarded-Proto and X-Forwarded-Host.
    """

    def __init__(self, store: Store, issuer: str, *, under_proxy: bool) -> None:
        self._store = store
        self._issuer = issuer
        self._under_proxy = under_proxy
        self._cookies = Cookies(secrets.token_bytes(32))

    def origin(self, request: web.BaseRequest) -> str:
        """Return the origin that the client claims; Tailchat builds its URLs from it."""
        scheme, host = request.scheme, request.headers.get("Host", "")
        if self._under_proxy:
            scheme = request.headers.get("X-Forwarded-Proto", scheme)
            host = request.headers.get("X-Forwarded-Host", host)
        return f"{scheme.partition(',')[0].strip()}://{host.partition(',')[0].strip()}"

    def issuer(self, request: web.BaseRequest) -> str:
        """Return the value of `iss`."""
        return self._issuer or self.origin(request)

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        """GET /open/auth: show a page, or redirect to the app with a code or an error."""
        context = self._context(request)
        try:
            wanted = read_request(request.rel_url.raw_query_string, self._store.apps)
        except AuthorizationError as error:
            members = {**error.members, "iss": context.issuer}
            if error.callback is None:
                response: web.StreamResponse = _refused(members, error.status)
            else:
                response = _answer(error.callback, members)
        else:
            response = self._go_on(context, wanted, Result())
        return self._with_session(context, response)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """GET /open/auth/:uid: continue after a page was submitted."""
        context = self._context(request)
        try:
            waiting = self._waiting(request, context.session)
        except OAuthError as error:
            members = {**error.members(), "iss": context.issuer}
            return self._with_session(context, _refused(members, error.status))
        result = waiting.result or Result()
        if result.sub and context.session.sub and result.sub != context.session.sub:
            # Tailchat: signing in with a different account ends here, because the target is a 404.
            waiting.session_uid = ""
            target = f"{context.origin}/open/session/end/confirm"
            return self._with_session(
                context, _form_post(target, {"xsrf": _new_id(), "logout": "yes"})
            )
        self._store.interactions.pop(waiting.uid)
        if result.sub:
            context.session.sub = result.sub
            context.session.signed_in_at = int(self._store.clock())
        if context.cookie:
            self._store.session_uids.pop(context.cookie)  # a new value after each page
        context.cookie, context.keep = _new_id(), True
        response = self._go_on(context, waiting.request, result)
        path = f"/open/auth/{waiting.uid}"
        self._cookies.write(
            response, "_interaction_resume", "", self._attributes(context, path, "lax", until=0)
        )
        return self._with_session(context, response)

    def _waiting(self, request: web.Request, session: Session) -> Interaction:
        uid = self._cookies.read(request, "_interaction_resume")
        if not uid:
            raise bad_request("authorization request has expired")
        waiting = self._store.interactions.get(uid)
        if waiting is None:
            raise bad_request("interaction session not found")
        if waiting.session_uid and waiting.session_uid != session.uid:
            raise bad_request("interaction session and authentication session mismatch")
        return waiting

    def _go_on(self, context: _Context, wanted: AuthRequest, result: Result) -> web.StreamResponse:
        session = context.session
        grant = None
        if session.sub:
            grant_id = result.grant_id or session.grants.get(wanted.client_id, "")
            grant = self._store.grants.get(grant_id)
            if grant is not None:
                session.grants[wanted.client_id] = grant.id
        callback = Callback(wanted.redirect_uri, wanted.response_mode)
        state = {} if wanted.state is None else {"state": wanted.state}
        try:
            page, missing = next_page(wanted, session, grant, result, self._store.clock())
        except OAuthError as error:
            return _answer(callback, {**error.members(), **state, "iss": context.issuer})
        if page or grant is None:
            return self._show(context, wanted, _Step(page, missing, grant, result))
        code = self._code(wanted, session, grant)
        return _answer(callback, {"code": code, **state, "iss": context.issuer})

    def _code(self, wanted: AuthRequest, session: Session, grant: Grant) -> str:
        scope = grant.allowed(wanted.scope)
        with_auth_time = wanted.max_age is not None or "login" in wanted.prompt
        code = Token(
            value=secrets.token_urlsafe(32),
            sub=session.sub,
            client_id=wanted.client_id,
            grant_id=grant.id,
            scope=scope,
            session_uid=session.uid,
            ends_with_session="offline_access" not in scope,
            issued_at=self._store.clock(),
            nonce=wanted.nonce,
            auth_time=session.signed_in_at if with_auth_time else None,
            redirect_uri=wanted.redirect_uri,
            code_challenge=wanted.code_challenge,
        )
        self._store.codes.put(code.value, code, CODE_SECONDS)
        return code.value

    def _show(self, context: _Context, wanted: AuthRequest, step: _Step) -> web.StreamResponse:
        uid = _new_id()
        waiting = Interaction(
            uid=uid,
            kind=step.page,
            request=wanted,
            session_uid=context.session.uid if context.session.sub else "",
            grant_id=step.grant.id if step.grant is not None else "",
            missing_scope=step.missing,
            earlier=step.result,
            return_to=f"{context.origin}/open/auth/{uid}",
        )
        self._store.interactions.put(uid, waiting, INTERACTION_SECONDS)
        response = _redirect(f"/open/interaction/{uid}")
        until = self._store.clock() + INTERACTION_SECONDS
        for name, path in (
            ("_interaction", f"/open/interaction/{uid}"),
            ("_interaction_resume", f"/open/auth/{uid}"),
        ):
            attributes = self._attributes(context, path, "lax", until=until)
            self._cookies.write(response, name, uid, attributes)
        return response

    async def page(self, request: web.Request) -> web.StreamResponse:
        """GET /open/interaction/:uid: show the login form or the consent form."""
        try:
            waiting = self._interaction(request)
        except PageError as error:
            return _failed(error)
        app = self._store.apps.get(waiting.request.client_id)
        # Nobody knows the password of an app's bot, so it is not offered.
        users = tuple(user for user in self._store.users.values() if user.kind == "normalUser")
        html = render(
            f"{waiting.kind}.html",
            uid=waiting.uid,
            app=app.name if app is not None else "",
            users=users,
        )
        return web.Response(text=html, content_type="text/html")

    async def login(self, request: web.Request) -> web.StreamResponse:
        """POST /open/interaction/:uid/login: check an e-mail address and a password."""
        try:
            waiting = self._interaction(request, "login")
            form = Parameters.parse((await request.read()).decode("utf-8", "replace"))
            user = self._user(form.get("email") or "", form.get("password") or "")
        except PageError as error:
            return _failed(error)
        waiting.result = Result(sub=user.sub)
        return _redirect(waiting.return_to)

    async def confirm(self, request: web.Request) -> web.StreamResponse:
        """POST /open/interaction/:uid/confirm: record the consent."""
        store = self._store
        try:
            waiting = self._interaction(request, "consent")
            session = store.sessions.get(waiting.session_uid)
            grant = store.grants.get(waiting.grant_id)
        except PageError as error:
            return _failed(error)
        if session is None or (waiting.grant_id and grant is None):
            return _failed(PageError("SessionNotFound: invalid_request"))
        if grant is None:
            # Tailchat: a grant lives 14 days from the first consent; nothing extends that.
            grant = Grant(_new_id(), session.sub, waiting.request.client_id)
            store.grants.put(grant.id, grant, GRANT_SECONDS)
        grant.scope.extend(name for name in waiting.missing_scope if name not in grant.scope)
        waiting.result = Result(waiting.earlier.sub, consented=True, grant_id=grant.id)
        return _redirect(waiting.return_to)

    def _interaction(self, request: web.Request, kind: str = "") -> Interaction:
        uid = self._cookies.read(request, "_interaction")
        waiting = self._store.interactions.get(uid) if uid else None
        if waiting is None:
            raise PageError("SessionNotFound: invalid_request")
        if waiting.session_uid and self._store.sessions.get(waiting.session_uid) is None:
            raise PageError("SessionNotFound: invalid_request")
        if kind not in ("", waiting.kind):
            raise PageError("AssertionError: another page is waiting")
        return waiting

    def _user(self, email: str, password: str) -> User:
        for user in self._store.users.values():
            if user.email == email:
                if not secrets.compare_digest(user.password.encode(), password.encode()):
                    raise PageError("EntityError: Wrong password")
                if user.banned:
                    # Tailchat checks a ban only here; it ends no session, code or token.
                    raise PageError("BannedError: User banned")
                return user
        raise PageError("EntityError: User does not exist, please check your email")

    def _context(self, request: web.Request) -> _Context:
        # The second cookie is for browsers that refuse SameSite=None without Secure.
        cookie = self._cookies.read(request, "_session") or self._cookies.read(
            request, "_session.legacy"
        )
        session = self._store.session(cookie) if cookie else None
        if cookie and session is None:
            cookie = _new_id()  # an expired session becomes an empty one
        return _Context(
            origin=self.origin(request),
            issuer=self.issuer(request),
            session=session or Session(_new_id()),
            cookie=cookie,
            keep=bool(cookie),
        )

    def _with_session(self, context: _Context, response: web.StreamResponse) -> web.StreamResponse:
        """Renew the session for another 14 days, as Tailchat does on each request to /open/auth."""
        if context.keep:
            self._store.keep_session(context.cookie, context.session)
            until = self._store.clock() + SESSION_SECONDS
            for name, same_site in (("_session", "none"), ("_session.legacy", "")):
                attributes = self._attributes(context, "/", same_site, until=until)
                self._cookies.write(response, name, context.cookie, attributes)
        return response

    def _attributes(
        self, context: _Context, path: str, same_site: str, *, until: float
    ) -> Attributes:
        return Attributes(path, until, same_site, secure=context.origin.startswith("https:"))


def _redirect(url: str) -> web.Response:
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": url, **_NO_STORE})


def _answer(callback: Callback, members: Mapping[str, str]) -> web.Response:
    if callback.response_mode == "form_post":
        return _form_post(callback.redirect_uri, members)
    return _redirect(callback_url(callback, members))


def _form_post(action: str, members: Mapping[str, str]) -> web.Response:
    status = HTTPStatus.BAD_REQUEST if "error" in members else HTTPStatus.OK
    html = render("form_post.html", action=action, members=members)
    return web.Response(text=html, status=status, content_type="text/html", headers=_NO_STORE)


def _refused(members: Mapping[str, str], status: int) -> web.Response:
    html = render("message.html", title="oops! something went wrong", members=members)
    return web.Response(text=html, status=status, content_type="text/html", headers=_NO_STORE)


def _failed(error: PageError) -> web.Response:
    html = render("message.html", title="Error", members={"error": str(error)})
    return UntypedPage(body=html.encode(), status=HTTPStatus.INTERNAL_SERVER_ERROR)
