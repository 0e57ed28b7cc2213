"""The stand-in Tailchat's bots: how an app signs in as one, and which tokens are good."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from tailchat_gate.demo.gateway import Action, ActionError, Params
from tailchat_gate.demo.store import App, Store
from tailchat_gate.demo.users import User
from tailchat_gate.syntax import base64url

LOGIN: Final = "openapi/bot/login"
#: Tailchat caches the answer to a login, good and bad alike.
CACHED_SECONDS: Final = 3600
_TOKEN_SECONDS: Final = 30 * 86_400
_HEADER: Final = MappingProxyType({"alg": "HS256", "typ": "JWT"})


def bot_sub(client_id: str) -> str:
    """Return the user of an app's bot."""
    return "b0" + hashlib.sha256(client_id.encode()).hexdigest()[:22]


class Bots:
    """Answers `openapi/bot/login` and `user/checkTokenValid`.

    To behave like a Tailchat whose core was restarted alone, take LOGIN out of the gateway's
    `open_actions`: then it answers 401 NO_TOKEN, and 200 where an older token comes along.
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
            # Thrown before the cache: once the capability is there, the next call works.
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
        """Return a token of a user; within a second it is the same."""
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
        # By hand: PyJWT warns of a key as short as Tailchat's default.
        key, data = self._store.secret.encode(), signed.encode()
        return base64url(hmac.new(key, data, hashlib.sha256).digest())

    def _check_token(self, params: Params, _caller: User | None) -> object:
        signed, _, signature = str(params.get("token")).rpartition(".")
        return hmac.compare_digest(self._signature(signed), signature)


def login_token(client_id: str, client_secret: str) -> str:
    """Return what an app signs in with."""
    return hashlib.md5((client_id + client_secret).encode(), usedforsecurity=False).hexdigest()


def _refused(message: str) -> ActionError:
    return ActionError(HTTPStatus.INTERNAL_SERVER_ERROR, message)
