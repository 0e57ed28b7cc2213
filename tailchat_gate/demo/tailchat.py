"""A stand-in Tailchat, which behaves under /open and /api as a real server does."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from http import HTTPStatus
from time import time
from typing import Final

from aiohttp import web

from tailchat_gate.demo.authorize import RESPONSE_MODES, RESPONSE_TYPES, SCOPES
from tailchat_gate.demo.back_channel import BackChannel, Call
from tailchat_gate.demo.faults import Close, Faults, Hang, Response, Rewrite, Seen
from tailchat_gate.demo.front_channel import FrontChannel
from tailchat_gate.demo.gateway import Bots, Gateway
from tailchat_gate.demo.groups import Groups, Messages
from tailchat_gate.demo.oauth import MAX_BODY, UNAUTHORIZED, OAuthError, SigningKey
from tailchat_gate.demo.store import App, Store
from tailchat_gate.demo.users import USERS, User, picture
from tailchat_gate.demo.wire import (
    Answer,
    Members,
    UntypedPage,
    drop_content_type,
    json_answer,
    only_loopback,
    prefers_html,
    quoted,
    read_body,
    read_call,
    render,
)

_OPEN: Final = "/open"
_DISCOVERY: Final = "/.well-known/openid-configuration"
_NOT_FOUND: Final = {
    "name": "NotFoundError",
    "message": "Not found",
    "code": 404,
    "type": "NOT_FOUND",
}
# Routes of the provider itself: it answers these with an error of its own after a trailing slash.
_PROVIDER_ROUTES: Final = frozenset(
    (
        *(("GET", "/auth"), ("POST", "/token"), ("GET", "/me"), ("POST", "/me")),
        *(("GET", "/jwks"), ("GET", _DISCOVERY)),
    )
)
_JWK_SET: Final = "application/jwk-set+json; charset=utf-8"


class StandInTailchat:
    """One stand-in server; its state is in memory only.

    `issuer` is its API_URL, used verbatim as `iss` (in Tailchat it may differ from the address in
    use); "" for the origin of each request. `apps` are the registered apps. `clock` gives Unix
    seconds. `under_proxy`: trust X-Forwarded-Proto and X-Forwarded-Host, as Tailchat's own compose
    file does.

    `faults` makes endpoints fail; `seen` records the calls of discovery, jwks, token and me, and of
    the gateway's actions by their names. `store.users` and `store.apps` may be changed while it
    runs. `key` signs the id_tokens; `gateway` has the actions, `groups` and `messages` their state.
    """

    def __init__(
        self,
        issuer: str = "",
        *,
        apps: Iterable[App],
        users: Iterable[User] = USERS,
        clock: Callable[[], float] = time,
        under_proxy: bool = True,
    ) -> None:
        self.store = Store(
            {app.client_id: app for app in apps}, {user.sub: user for user in users}, clock
        )
        self.key = SigningKey()
        self.faults = Faults()
        self.seen: defaultdict[str, Seen] = defaultdict(Seen)
        self._front = FrontChannel(self.store, issuer, under_proxy=under_proxy)
        self._back = BackChannel(self.store, self.key)
        self.gateway = Gateway(self.store)
        self.groups = Groups(self.store)
        self.messages = Messages(self.groups)
        for part in (Bots(self.store), self.groups, self.messages):
            self.gateway.actions.update(part.actions)
            self.gateway.open_actions.update(part.open_actions)

    def app(self, *, everywhere: bool = False) -> web.Application:
        """Return the application; unless `everywhere`, it refuses peers on other machines."""
        middlewares = () if everywhere else (only_loopback,)
        app = web.Application(client_max_size=2 * MAX_BODY, middlewares=middlewares)
        app.on_response_prepare.append(drop_content_type)
        front = self._front
        for method, path, answer in (
            ("GET", f"{_OPEN}{_DISCOVERY}", self._watched("discovery", self._discovery)),
            ("GET", f"{_OPEN}/jwks", self._watched("jwks", self._jwks)),
            ("GET", f"{_OPEN}/auth", front.authorize),
            ("GET", f"{_OPEN}/auth/{{uid}}", front.resume),
            ("GET", f"{_OPEN}/interaction/{{uid}}", front.page),
            ("POST", f"{_OPEN}/interaction/{{uid}}/login", front.login),
            ("POST", f"{_OPEN}/interaction/{{uid}}/confirm", front.confirm),
            ("POST", f"{_OPEN}/token", self._watched("token", self._token)),
            ("GET", f"{_OPEN}/me", self._watched("me", self._me)),
            ("POST", f"{_OPEN}/me", self._watched("me", self._me)),
            ("OPTIONS", f"{_OPEN}/token", _preflight),
            ("OPTIONS", f"{_OPEN}/me", _preflight),
            ("*", f"{_OPEN}{{rest:(/.*)?}}", _not_found),
            ("GET", "/api/{action:[^/]+/.+}", self._action),
            ("POST", "/api/{action:[^/]+/.+}", self._action),
            ("GET", "/health", _health),
            ("GET", "/static/{rest:.*}", self._static),
            ("*", "/{rest:.*}", _web_client),
        ):
            app.router.add_route(method, path, answer)
        return app

    def _watched(self, name: str, answer: Answer) -> Answer:
        async def watched(request: web.Request) -> web.StreamResponse:
            seen = self.seen[name]
            seen.count += 1
            seen.headers = tuple(request.headers.items())
            seen.body = await read_body(request) or b""
            fault = self.faults.of(name)
            if isinstance(fault, Hang):
                await fault.wait()
            if isinstance(fault, Response):
                headers = {**fault.headers, "Content-Type": fault.content_type}
                return web.Response(status=fault.status, body=fault.body, headers=headers)
            if isinstance(fault, Close):
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            response = await answer(request)
            if isinstance(fault, Rewrite):
                return _rewritten(response, fault)
            return response

        return watched

    async def _action(self, request: web.Request) -> web.StreamResponse:
        return await self._watched(request.match_info["action"], self.gateway.answer)(request)

    async def _discovery(self, request: web.Request) -> web.Response:
        here = f"{self._front.origin(request)}{_OPEN}"
        return json_answer(
            {
                "authorization_endpoint": f"{here}/auth",
                "claims_parameter_supported": False,
                "claims_supported": [
                    *("sub", "nickname", "discriminator", "avatar", "sid", "auth_time", "iss")
                ],
                "code_challenge_methods_supported": ["S256"],
                "end_session_endpoint": f"{here}/session/end",
                "grant_types_supported": ["implicit", "authorization_code", "refresh_token"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "issuer": self._front.issuer(request),
                "jwks_uri": f"{here}/jwks",
                "authorization_response_iss_parameter_supported": True,
                "response_modes_supported": [*RESPONSE_MODES],
                "response_types_supported": [*RESPONSE_TYPES],
                "scopes_supported": [*SCOPES],
                "subject_types_supported": ["public"],
                # A real server names five; an app in Tailchat can use only these two.
                "token_endpoint_auth_methods_supported": [
                    *("client_secret_basic", "client_secret_post")
                ],
                "token_endpoint": f"{here}/token",
                "userinfo_endpoint": f"{here}/me",
                "claim_types_supported": ["normal"],
            }
        )

    async def _jwks(self, _: web.Request) -> web.Response:
        return json_answer(self.key.jwks, content_type=_JWK_SET)

    async def _token(self, request: web.Request) -> web.Response:
        issuer = self._front.issuer(request)
        return await self._answered(request, lambda call: self._back.token(call, issuer))

    async def _me(self, request: web.Request) -> web.Response:
        return await self._answered(request, self._back.userinfo)

    async def _answered(
        self, request: web.Request, answer: Callable[[Call], Members]
    ) -> web.Response:
        call = await read_call(request)
        headers = {"Cache-Control": "no-store", "Vary": "Origin"}
        try:
            return json_answer(answer(call), headers=headers)
        except OAuthError as error:
            challenge = _challenge(call, error, self._front.issuer(request))
            members = error.members()
            if challenge:
                headers["WWW-Authenticate"] = challenge
            if prefers_html(request.headers.get("Accept", "*/*")):
                html = render("message.html", title="oops! something went wrong", members=members)
                return web.Response(
                    text=html, status=error.status, content_type="text/html", headers=headers
                )
            return json_answer(members, status=error.status, headers=headers)

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info["rest"]
        owners = [sub for sub in self.store.users if name == f"files/{sub}/avatar.png"]
        if owners:
            return web.Response(body=picture(owners[0]), content_type="image/png")
        return UntypedPage(body=b"static file not found")


def _challenge(call: Call, error: OAuthError, issuer: str) -> str:
    """Return the WWW-Authenticate field of an error, "" for none.

    Errors at /me have one (RFC 6750 section 3), those at /token only if the client used
    Authorization (RFC 6749 section 5.2).
    """
    scheme = "Bearer" if call.path == "/me" else "Basic"
    asked_for = call.path == "/me" or (error.status == UNAUTHORIZED and call.authorization)
    if not asked_for or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ""
    fields = {"realm": issuer}
    if error.description != "no access token provided":
        fields |= error.members()
    return f"{scheme} " + ", ".join(f'{name}="{quoted(value)}"' for name, value in fields.items())


def _rewritten(response: web.StreamResponse, fault: Rewrite) -> web.StreamResponse:
    if not isinstance(response, web.Response) or response.status != HTTPStatus.OK:
        return response
    body = response.body
    members = json.loads(body) if isinstance(body, bytes) else {}
    return json_answer(fault.change(members))


async def _preflight(request: web.Request) -> web.Response:
    origin = request.headers.get("Origin", "")
    headers = {"Access-Control-Allow-Origin": origin} if origin else {}
    return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Vary": "Origin", **headers})


async def _not_found(request: web.Request) -> web.Response:
    path = request.rel_url.raw_path.removeprefix(_OPEN)
    if path.endswith("/") and (request.method, path[:-1]) in _PROVIDER_ROUTES:
        text = f"unrecognized route or not allowed method ({request.method} on {path})"
        members: Members = {"error": "invalid_request", "error_description": text}
    else:
        members = _NOT_FOUND
    return json_answer(members, status=HTTPStatus.NOT_FOUND)


async def _health(_: web.Request) -> web.Response:
    return json_answer({"nodeID": "stand-in", "services": []})


async def _web_client(_: web.Request) -> web.Response:
    # Tailchat: its gateway answers every other path with the web client's index.html.
    html = render("message.html", title="Tailchat", members={})
    return web.Response(text=html, content_type="text/html")
