"""The API gateway of the stand-in Tailchat (`/api/SERVICE/ACTION`): its actions, and its bots."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from tailchat_gate.demo.store import App, Store
from tailchat_gate.demo.users import User
from tailchat_gate.demo.wire import json_answer, read_body
from tailchat_gate.syntax import base64url

Params = Mapping[str, object]
#: Runs an action: takes its parameters and the caller (None without a token), returns its data.
Action = Callable[[Params, User | None], object]

_OBJECT_ID: Final = re.compile("[0-9a-fA-F]{24}")
#: The same for every account.
_CREATED_AT: Final = "2026-01-01T00:00:00.000Z"
#: Tailchat's own status for a value that it does not accept.
INVALID: Final = 442
LOGIN: Final = "openapi/bot/login"
#: How long Tailchat caches whether a login was accepted or refused.
CACHED_SECONDS: Final = 3600
_TOKEN_SECONDS: Final = 30 * 86_400
_HEADER: Final = MappingProxyType({"alg": "HS256", "typ": "JWT"})


class ActionError(Exception):
    """The error response of an action; its `type` is left out if `kind` is ""."""

    def __init__(self, status: int, message: str, *, name: str = "Error", kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.members = {"name": name, "message": message, "code": status}
        if kind:
            self.members["type"] = kind


class Gateway:
    """Answers calls of actions.

    `actions` has them by name, for example `user/getUserInfo`; those in `open_actions` need no
    token. Both may be changed while it runs. Valid tokens are in `store.api_tokens`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.actions: dict[str, Action] = {
            "user/getUserInfo": self._user_info,
            "user/getUserInfoList": self._user_info_list,
            "user/searchUserWithUniqueName": self._search,
            "config/client": lambda _params, _caller: dict(store.client_config),
        }
        self.open_actions: set[str] = {"user/getUserInfo", "user/getUserInfoList", "config/client"}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        try:
            action = request.match_info["action"]
            caller = self._caller(request)
            if caller is None and action not in self.open_actions:
                raise _unauthorized("NO_TOKEN")
            done = self.actions.get(action)
            if done is None:
                raise _unknown(action)
            data = done(await _params(request), caller)
        except ActionError as error:
            return json_answer(error.members, status=error.status)
        return json_answer({"code": 200, "data": data})

    def _caller(self, request: web.Request) -> User | None:
        """Return the owner of a call's token, None without one; raises ActionError if unknown.

        Tailchat: only X-Token counts, never Authorization.
        """
        token = request.headers.get("X-Token")
        if not token:
            return None
        caller = self._store.users.get(self._store.api_tokens.get(token, ""))
        if caller is None:
            raise _unauthorized("INVALID_TOKEN")
        return caller

    def _user_info(self, params: Params, _caller: User | None) -> object:
        sub = params.get("userId")
        if not isinstance(sub, str) or not _OBJECT_ID.fullmatch(sub):
            text = f'Cast to ObjectId failed for value "{sub}" at path "_id"'
            raise ActionError(HTTPStatus.INTERNAL_SERVER_ERROR, text, name="CastError")
        return self._public(sub)

    def _user_info_list(self, params: Params, _caller: User | None) -> object:
        subs = params.get("userIds")
        if not isinstance(subs, list):
            raise ActionError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "Parameters validation error!",
                name="ValidationError",
                kind="VALIDATION_ERROR",
            )
        if any(not isinstance(sub, str) or not _OBJECT_ID.fullmatch(sub) for sub in subs):
            # Tailchat: one malformed id fails the whole call.
            raise ActionError(INVALID, "Include invalid userId", name="EntityError")
        return [self._public(sub) for sub in subs]

    def _search(self, params: Params, _caller: User | None) -> object:
        """Return the first account with a name; after a rename two can have the same."""
        nickname, mark, discriminator = str(params.get("uniqueName", "")).partition("#")
        for user in self._store.users.values():
            claims = user.claims
            name = (claims.get("nickname"), claims.get("discriminator"))
            if mark and name == (nickname, discriminator):
                return self._public(user.sub)
        return None

    def _public(self, sub: str) -> object:
        """Return the public fields of an account, None for an unknown or deleted one."""
        user = self._store.users.get(sub)
        if user is None:
            return None
        return {
            "_id": user.sub,
            "email": user.email,
            **user.claims,
            "temporary": user.temporary,
            "type": user.kind,
            "emailVerified": user.email_verified,
            "banned": user.banned,
            "createdAt": _CREATED_AT,
        }


def _unknown(action: str) -> ActionError:
    text = f"Service '{action.replace('/', '.')}' is not found."
    return ActionError(
        HTTPStatus.NOT_FOUND, text, name="ServiceNotFoundError", kind="SERVICE_NOT_FOUND"
    )


def _unauthorized(kind: str) -> ActionError:
    return ActionError(HTTPStatus.UNAUTHORIZED, "401", name="UnAuthorizedError", kind=kind)


async def _params(request: web.Request) -> Params:
    """Return the parameters of a call: from the query, and from a JSON or form body."""
    params: dict[str, object] = dict(parse_qsl(request.rel_url.raw_query_string))
    body = await read_body(request) or b""
    if request.content_type == "application/json" and body:
        try:
            params |= json.loads(body)
        except (ValueError, TypeError):
            raise ActionError(HTTPStatus.BAD_REQUEST, "invalid json") from None
    elif body:
        params |= dict(parse_qsl(body.decode("utf-8", "replace")))
    return params


def bot_sub(client_id: str) -> str:
    """Return the sub of an app's bot."""
    return "b0" + hashlib.sha256(client_id.encode()).hexdigest()[:22]


class Bots:
    """Answers `openapi/bot/login` and `user/checkTokenValid`.

    To behave like a Tailchat of which only the core was restarted, remove LOGIN from the gateway's
    `open_actions`: then a login without an older token is answered with 401 NO_TOKEN.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: dict[tuple[str, str], tuple[float, bool]] = {}
        self.logins = 0
        self.actions: Final[Mapping[str, Action]] = MappingProxyType(
            {LOGIN: self._login, "user/checkTokenValid": self._check_token}
        )
        self.open_actions: Final = frozenset(self.actions)

    def _login(self, params: Params, _caller: User | None) -> object:
        app_id, token = params.get("appId"), params.get("token")
        if not isinstance(app_id, str) or not isinstance(token, str):
            raise ActionError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "Parameters validation error!",
                name="ValidationError",
                kind="VALIDATION_ERROR",
            )
        self.logins += 1
        app = self._store.apps.get(app_id)
        if app is not None and not app.bot:
            # Raised before the cache is read, so the next call works once the app has a bot.
            raise _refused("Open app not enabled capability:bot")
        if not self._is_good(app_id, token, app):
            raise _refused("Auth failed." if app else f"Not found open app:{app_id}")
        assert app is not None  # noqa: S101 - _is_good
        return self._signed_in(app)

    def _is_good(self, app_id: str, token: str, app: App | None) -> bool:
        now, key = self._store.clock(), (app_id, token)
        until, good = self._cached.get(key, (0.0, False))
        if now < until:
            return good and app is not None
        digest = "" if app is None else login_token(app.client_id, app.client_secret)
        good = app is not None and hmac.compare_digest(digest, token)
        self._cached[key] = (now + CACHED_SECONDS, good)
        return good

    def _signed_in(self, app: App) -> object:
        sub, email = bot_sub(app.client_id), f"open_{app.client_id}@openapi.msgbyte.com"
        claims = MappingProxyType({"nickname": app.name, "discriminator": "0000"})
        self._store.users[sub] = User(
            sub, "", email, secrets.token_urlsafe(), claims, kind="openapiBot"
        )
        token = self.token_of(sub)
        return {"jwt": token, "userId": sub, "email": email, "nickname": app.name, "avatar": None}

    def token_of(self, sub: str) -> str:
        """Issue a token of a user; within one second it is always the same."""
        now, user = int(self._store.clock()), self._store.users[sub]
        payload = {
            "_id": sub,
            "nickname": user.claims.get("nickname"),
            "email": user.email,
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
        }
        parts = (json.dumps(part).encode() for part in (dict(_HEADER), payload))
        signed = ".".join(map(base64url, parts))
        token = f"{signed}.{self._signature(signed)}"
        self._store.api_tokens[token] = sub
        return token

    def _signature(self, signed: str) -> str:
        # Not by PyJWT, which warns of a key as short as Tailchat's default.
        key, data = self._store.secret.encode(), signed.encode()
        return base64url(hmac.new(key, data, hashlib.sha256).digest())

    def _check_token(self, params: Params, _caller: User | None) -> object:
        signed, _, signature = str(params.get("token")).rpartition(".")
        return hmac.compare_digest(self._signature(signed), signature)


def login_token(client_id: str, client_secret: str) -> str:
    """Return the token with which an app's bot logs in (Tailchat: an MD5 digest)."""
    return hashlib.md5((client_id + client_secret).encode(), usedforsecurity=False).hexdigest()


def _refused(message: str) -> ActionError:
    return ActionError(HTTPStatus.INTERNAL_SERVER_ERROR, message)
