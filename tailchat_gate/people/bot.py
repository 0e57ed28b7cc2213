"""The gate's bot at Tailchat: it signs in with the id and secret of the app, and calls actions."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeVar

from pydantic import SecretStr

from tailchat_gate.identity.oauth.back_channel import MAX_ANSWER
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.people.api import (
    ApiResult,
    CannotTell,
    Done,
    Raw,
    RawResult,
    Refused,
    TailchatApi,
)
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import COMPACT, base64url

#: Tailchat: the default of SECRET, which its own compose file uses.
PUBLIC_KEY: Final = b"tailchat"
_CHECK: Final = "user/checkTokenValid"
_PROBE_SECONDS: Final = 60
_LOGIN: Final = "openapi/bot/login"
#: A token is replaced after this part of its lifetime (Tailchat: 30 days, without a refresh).
_USED_PART: Final = 0.9
#: The lifetime of a token that does not say when it expires.
_USUAL_SECONDS: Final = 86_400.0
#: Seconds after which a refused sign-in is tried again. Tailchat caches the refusal of a wrong
#: secret for an hour, but not that of an app without a bot, which may get one at any time.
RETRY_SECONDS: Final = 60.0
_NO_TOKEN: Final = "NO_TOKEN"  # noqa: S105 - the type of an error
_CAPABILITY: Final = "capability"

_Result = TypeVar("_Result", Done | Refused | CannotTell, Raw | Refused | CannotTell)

_log: Final = logging.getLogger(LOGGER_NAME)


async def has_public_key(api: TailchatApi, now: float) -> bool | CannotTell:
    """Return whether Tailchat signs tokens with the default key, so that anybody can forge them.

    The question is a token signed with that key, which names nobody and expires after a minute.
    `now` is in Unix seconds.
    """
    payload = {"_id": "0" * 24, "iat": int(now), "exp": int(now) + _PROBE_SECONDS}
    parts = [
        base64url(json.dumps(part, separators=COMPACT).encode())
        for part in ({"alg": "HS256", "typ": "JWT"}, payload)
    ]
    signed = ".".join(parts)
    signature = hmac.new(PUBLIC_KEY, signed.encode("ascii"), hashlib.sha256).digest()
    result = await api.call(_CHECK, {"token": f"{signed}.{base64url(signature)}"})
    if isinstance(result, Done) and isinstance(result.data, bool):
        return result.data
    if isinstance(result, CannotTell):
        return result
    status = "" if isinstance(result, Done) else f"status {result.status}, "
    return CannotTell(Reason.TAILCHAT_BROKEN, f"{status}no answer about its key")


@dataclass(slots=True)
class BotSignIn:
    """The sign-in of a bot, which survives reloads.

    `owner` identifies the server, app and secret that it is for. `token` is in memory only, None
    for none; it is renewed from `renew_at` on, in Unix seconds. `sub` is the bot's own user.
    """

    owner: str = ""
    token: str | None = field(default=None, repr=False)
    renew_at: float = 0.0
    sub: str = ""


class Bot:
    """Calls actions as the bot of the app `client_id`, signing in when that is due.

    `server` is the address of Tailchat; `sign_in` is that of an earlier bot. The token is in no log
    and no repr. `clock` gives Unix seconds. After a failed sign-in `problem` says why and `remedy`
    what to do; otherwise they are "".
    """

    def __init__(
        self,
        api: TailchatApi,
        client_id: str,
        client_secret: SecretStr,
        clock: Callable[[], float],
        *,
        server: str = "",
        sign_in: BotSignIn | None = None,
    ) -> None:
        self._api = api
        self._client_id = client_id
        self._client_secret = client_secret
        self._clock = clock
        self._retry_at = 0.0
        self._refusal: Refused | None = None
        self._signing_in = asyncio.Lock()
        self._now = BotSignIn() if sign_in is None else sign_in
        whose = f"{server} {client_id} {client_secret.get_secret_value()}"
        self._owner = hashlib.sha256(whose.encode()).hexdigest()
        self.problem = self.remedy = ""

    @property
    def sub(self) -> str:
        """The bot's own user, "" until the bot has signed in."""
        return self._now.sub if self._now.owner == self._owner else ""

    @property
    def _token(self) -> str | None:
        return self._now.token if self._now.owner == self._owner else None

    def __repr__(self) -> str:
        """Show the app and whether the bot is signed in, without the secret and the token."""
        return f"<Bot of {self._client_id}, {'signed in' if self._token else 'not signed in'}>"

    async def call(
        self, action: str, body: Mapping[str, object], *, limit: int = MAX_ANSWER
    ) -> ApiResult:
        """Call an action as TailchatApi.call does; a 401 is CannotTell.

        If Tailchat refuses the sign-in the result is Refused, if that fails otherwise CannotTell.
        """

        async def once(token: str) -> ApiResult:
            return await self._api.call(action, body, token, limit=limit)

        return await self._signed_in(once)

    async def fetch(self, action: str, body: Mapping[str, object], *, limit: int) -> RawResult:
        """Call an action as `call` does, but return the answer unparsed, as TailchatApi.fetch."""

        async def once(token: str) -> RawResult:
            return await self._api.fetch(action, body, token, limit=limit)

        return await self._signed_in(once)

    async def token(self) -> str | None:
        """Return the bot's token, signing in if that is due; None if that fails."""
        token = await self._fresh_token()
        return token if isinstance(token, str) else None

    async def sign_in(self) -> Refused | CannotTell | None:
        """Sign in if that is due; return why it failed, None if the bot is signed in."""
        token = await self._fresh_token()
        return None if isinstance(token, str) else token

    async def _signed_in(self, once: Callable[[str], Awaitable[_Result]]) -> _Result:
        """Make a call with the bot's token, and after a 401 once more with a new token."""
        token = await self._fresh_token()
        if not isinstance(token, str):
            return token
        result = await once(token)
        if not _is_unauthorized(result):
            return result
        again = await self._fresh_token(instead_of=token)
        if isinstance(again, str) and again != token:
            result = await once(again)
        if isinstance(result, Refused) and _is_unauthorized(result):
            # Tailchat: while its Redis does not answer, every token is invalid.
            return CannotTell(Reason.TAILCHAT_BROKEN, f"status 401 {result.type}".rstrip())
        return result

    async def _fresh_token(self, instead_of: str = "") -> str | Refused | CannotTell:
        """Return a token other than `instead_of`; only one sign-in runs at a time."""
        async with self._signing_in:
            token, now = self._token, self._clock()
            if token is not None and token != instead_of and now < self._now.renew_at:
                return token
            if now < self._retry_at and self._refusal is not None:
                return self._refusal
            result = await self._sign_in(token)
            if isinstance(result, Done) and self._take(result.data):
                return self._token or ""
            if isinstance(result, Done):
                result = CannotTell(Reason.TAILCHAT_BROKEN, "a sign-in without a token")
            self._failed(result)
            # Use the old token for as long as Tailchat accepts it.
            return result if token is None or token == instead_of else token

    async def _sign_in(self, old: str | None) -> ApiResult:
        secret = self._client_secret.get_secret_value()
        # Tailchat requires this digest; MD5 does no harm here, since it stands for the secret.
        digest = hashlib.md5((self._client_id + secret).encode(), usedforsecurity=False)
        body = {"appId": self._client_id, "token": digest.hexdigest()}
        result = await self._api.call(_LOGIN, body)
        if isinstance(result, Refused) and result.type == _NO_TOKEN and old is not None:
            # Tailchat: if only core was restarted, it requires a token for the sign-in until
            # openapi is restarted too; any valid token will do.
            result = await self._api.call(_LOGIN, body, old)
        return result

    def _take(self, data: object) -> bool:
        members = data if isinstance(data, dict) else {}
        token, sub = members.get("jwt"), members.get("userId")
        if not isinstance(token, str) or not token.isascii() or not isinstance(sub, str):
            return False
        now = self._clock()
        self._now.owner, self._now.token, self._now.sub = self._owner, token, sub
        self._now.renew_at = now + _USED_PART * (_end_of(token, now + _USUAL_SECONDS) - now)
        self._retry_at, self._refusal = 0.0, None
        if self.problem:
            _log.info("the gate's bot is signed in at Tailchat again")
        self.problem = self.remedy = ""
        return True

    def _failed(self, result: Refused | CannotTell) -> None:
        if isinstance(result, Refused) and result.status != HTTPStatus.UNAUTHORIZED:
            self._retry_at, self._refusal = self._clock() + RETRY_SECONDS, result
            problem = f"{result.status} {result.message or result.name}"
            remedy = (
                "switch on the bot in Tailchat's settings of the app"
                if _CAPABILITY in result.message
                else "compare client_id and client_secret with the App ID and App Secret; Tailchat "
                "remembers a refused sign-in for an hour"
            )
        else:
            problem = result.problem if isinstance(result, CannotTell) else f"401 {result.type}"
            remedy = "check that Tailchat runs; if only core was restarted, restart openapi too"
        if problem != self.problem:
            self.problem, self.remedy = problem, remedy
            details = {"problem": problem, "remedy": remedy}
            _log.error("the gate's bot cannot sign in at Tailchat", extra={"details": details})


def _is_unauthorized(result: object) -> bool:
    return isinstance(result, Refused) and result.status == HTTPStatus.UNAUTHORIZED


def _end_of(token: str, otherwise: float) -> float:
    """Return the Unix second at which a token says that it expires; its signature is not checked.

    The time only decides when the token is renewed.
    """
    try:
        part = token.split(".")[1]
        payload = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        end = payload["exp"]
    except (binascii.Error, ValueError, LookupError, TypeError, RecursionError):
        return otherwise
    return float(end) if type(end) is int and end > 0 else otherwise
