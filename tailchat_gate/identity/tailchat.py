"""Asks a Tailchat server: who issued this code, what it is worth, and who the user is."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from pydantic import SecretStr
from yarl import URL

from tailchat_gate.identity.id_token import Expected, JsonObject, UnknownKey, check_id_token
from tailchat_gate.identity.id_token import json_object as parse_json
from tailchat_gate.identity.login import LoginRefused, LoginState, Registration, short_text
from tailchat_gate.identity.profile import Profile, ProfileError, profile_from_userinfo
from tailchat_gate.reasons import Reason

MAX_TIMEOUT: Final = 10.0
"""Seconds for a whole call (Tailchat: with a frozen Redis it never answers)."""
MAX_ANSWER: Final = 65_536
"""Bytes of an answer that are read; a real one has less than ten thousand."""
LIFETIME: Final = 600.0
"""Seconds for which the issuer and the keys are remembered."""
PAUSE: Final = 5.0
"""Seconds after a failure, or before newer keys are asked for: no stranger sets the pace."""

_OK: Final = 200
_SERVER_ERROR: Final = 500

# Errors of the back channel that the admin must mend (RFC 6749 5.2; RFC 6750 3.1). Tailchat: one
# faulty entry of the app gives the last two on every call, `/me` of live sessions too.
_GATE_FAULTS: Final = frozenset(
    {
        *("invalid_client", "unauthorized_client", "invalid_request", "invalid_scope"),
        *("unsupported_grant_type", "insufficient_scope"),
        *("invalid_redirect_uri", "invalid_client_metadata"),
    }
)

# What no server that echoes its request may carry into a log by way of an error text.
_SECRETS: Final = frozenset({"client_secret", "code", "code_verifier", "bearer"})

T = TypeVar("T")
Observer = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a code was worth; `id_token` is "" where none came."""

    access_token: str = field(repr=False)
    id_token: str = field(repr=False, default="")


class TailchatClient:
    """The back channel to one Tailchat server, for one registered app.

    `api_url`: its base URL; endpoints are `api_url + /open/{auth,token,me,jwks}` and never
    taken from discovery, which Tailchat builds from the Host header of whoever asks.
    `issuer`: what `iss` must be; "" to learn it by discovery. `timeout`: seconds for one call,
    at most MAX_TIMEOUT. `clock`: Unix seconds. `observe(call, seconds, outcome)`: told after
    every call; `call` is discovery, token, me or jwks, `outcome` ok, cancelled or a reason.

    Every method that asks may raise LoginRefused. No exception or repr holds a secret.
    """

    def __init__(  # noqa: PLR0913 - one argument for each setting, all by name
        self,
        *,
        api_url: str,
        client_id: str,
        client_secret: str | SecretStr,
        redirect_uri: str,
        scope: str = "openid profile",
        issuer: str = "",
        timeout: float = MAX_TIMEOUT,
        clock: Callable[[], float],
        observe: Observer | None = None,
    ) -> None:
        self.registration = Registration(client_id, redirect_uri, scope)
        self._api_url = api_url.rstrip("/")
        self._secret = (
            client_secret if isinstance(client_secret, SecretStr) else SecretStr(client_secret)
        )
        self._configured_issuer = issuer
        self._timeout = aiohttp.ClientTimeout(total=min(timeout, MAX_TIMEOUT))
        self._clock = clock
        self._observe = observe
        self._session: aiohttp.ClientSession | None = None
        self._calls = 0
        self._closed = False
        self._issuer = _Remembered(self._discover, clock)
        self._keys = _Remembered(self._fetch_keys, clock)

    def __repr__(self) -> str:
        """Where it asks and as whom."""
        return f"<TailchatClient {self._api_url} as {self.registration.client_id}>"

    async def close(self) -> None:
        """Close what is open, once the calls under way have ended.

        A code that was sent must not be lost to a new configuration. A call that begins later is
        made, too, and leaves nothing open behind it.
        """
        self._closed = True
        await self._close_behind()

    async def _close_behind(self) -> None:
        if self._closed and not self._calls:
            session, self._session = self._session, None
            if session is not None:
                await session.close()

    def authorization_url(self, params: Sequence[tuple[str, str]]) -> str:
        """Return the URL to send the browser to; ValueError where a parameter comes twice."""
        if len(dict(params)) != len(params):
            raise ValueError("a parameter of an authorization request came twice")
        return f"{self._api_url}/open/auth?{urlencode(params, quote_via=quote)}"

    async def issuer(self) -> str:
        """Return what `iss` must be, character by character.

        Tailchat: it is its API_URL setting verbatim, which need not be the URL it is asked at.
        """
        return self._configured_issuer or await self._issuer.get()

    async def identity(self, code: str, state: LoginState) -> Profile:
        """Return who logged in: redeem the code, check the id_token if any, ask `/open/me`."""
        tokens = await self.redeem(code, state.code_verifier)
        signed_sub = await self._signed_sub(tokens, state) if tokens.id_token else None
        userinfo = await self.userinfo(tokens.access_token)
        try:
            profile = profile_from_userinfo(userinfo, api_url=self._api_url)
        except ProfileError as error:
            detail = {"call": "me", "problem": error.reason}
            raise LoginRefused(Reason.TAILCHAT_BROKEN, detail) from None
        # OIDC Core 5.3.2: the answer may be about another user.
        if signed_sub not in {None, profile.sub}:
            raise LoginRefused(Reason.LOGIN_ID_TOKEN, {"claim": "sub", "call": "me"})
        return profile

    async def redeem(self, code: str, code_verifier: str) -> Tokens:
        """Return the tokens for a code. The request is sent once and never again.

        RFC 6749 4.1.3, 5.1; RFC 7636 4.5. Tailchat takes a form only, refuses an Origin, and
        revokes all that a code gave when it comes a second time.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.registration.redirect_uri,
            "code_verifier": code_verifier,
            "client_id": self.registration.client_id,
            "client_secret": self._secret.get_secret_value(),
        }
        with self._observed("token"):
            answer = await self._ask("token", "POST", "/open/token", form=form)
            kind, access, signed = (
                answer.get(name) for name in ("token_type", "access_token", "id_token")
            )
            if not isinstance(kind, str) or kind.lower() != "bearer":
                raise _broken("token", problem="token_type is not Bearer")
            # It goes into a header: b64token (RFC 6750 2.1) is narrower still.
            if not isinstance(access, str) or re.fullmatch("[!-~]{1,4096}", access) is None:
                raise _broken("token", problem="no usable access_token")
        if signed is None:
            return Tokens(access)
        if not isinstance(signed, str) or not signed:
            raise LoginRefused(Reason.LOGIN_ID_TOKEN, {"claim": "form"})
        return Tokens(access, signed)

    async def userinfo(self, access_token: str) -> JsonObject:
        """Return what `/open/me` says, unchecked.

        GET with a header, as OIDC Core 5.3.1 recommends: a POST to Tailchat is refused for its
        content type as soon as anything on the way sets another one, and a token in the query
        would be logged there.
        """
        with self._observed("me"):
            return await self._ask("me", "GET", "/open/me", bearer=access_token)

    async def _signed_sub(self, tokens: Tokens, state: LoginState) -> str:
        """Return the `sub` of the id_token, asking once for newer keys if none fits."""
        expected = Expected(
            issuer=await self.issuer(),
            client_id=self.registration.client_id,
            nonce=state.nonce,
            access_token=tokens.access_token,
        )
        keys = await self._keys.get()
        try:
            return check_id_token(tokens.id_token, keys, expected, now=self._clock())
        except UnknownKey:
            keys = await self._keys.get(newer=True)
        return check_id_token(tokens.id_token, keys, expected, now=self._clock())

    async def _discover(self) -> str:
        # Not at the issuer's own well-known path: there Tailchat gives HTML, or hangs.
        with self._observed("discovery"):
            answer = await self._ask("discovery", "GET", "/open/.well-known/openid-configuration")
            issuer = answer.get("issuer")
            if not isinstance(issuer, str) or re.fullmatch("[!-~]{1,1024}", issuer) is None:
                raise _broken("discovery", problem="no usable issuer")
            return issuer

    async def _fetch_keys(self) -> tuple[JsonObject, ...]:
        with self._observed("jwks"):
            keys = (await self._ask("jwks", "GET", "/open/jwks")).get("keys")
            if not isinstance(keys, list):
                raise _broken("jwks", problem="no keys")
            return tuple(key for key in keys if isinstance(key, dict))

    @contextmanager
    def _observed(self, call: str) -> Iterator[None]:
        """Tell the observer how long a call took and how it ended."""
        loop = asyncio.get_running_loop()
        start, outcome = loop.time(), "internal-error"
        try:
            yield
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except LoginRefused as refused:
            outcome = refused.reason
            raise
        finally:
            if self._observe is not None:
                self._observe(call, loop.time() - start, outcome)

    async def _ask(
        self,
        call: str,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        bearer: str = "",
    ) -> JsonObject:
        """Return the JSON object of a 200 answer without an error, or raise LoginRefused."""
        headers, body = {}, None
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(form).encode()
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        status, content_type, data = await self._exchange(call, method, path, headers, body)
        if not re.fullmatch(r"application/([a-z.-]+\+)?json", content_type):
            raise _broken(call, status, "not JSON")
        try:
            answer = parse_json(data)
        except ValueError:
            raise _broken(call, status, "not a JSON object") from None
        if status != _OK or "error" in answer:
            sent = {**(form or {}), "bearer": bearer}
            raise _refused(call, status, answer, [v for k, v in sent.items() if k in _SECRETS])
        return answer

    async def _exchange(
        self, call: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, str, bytes]:
        """Return status, media type and body of one answer; only faults of transport raise."""
        reason = Reason.TAILCHAT_BROKEN
        self._calls += 1
        try:
            async with self._open_session().request(
                method,
                URL(self._api_url + path, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
            ) as response:
                data = bytearray()
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) > MAX_ANSWER:
                        response.close()
                        raise _broken(call, response.status, "too long")
                return response.status, response.content_type, bytes(data)
        except TimeoutError:
            reason, problem = Reason.TAILCHAT_SLOW, "no answer in time"
        except aiohttp.ClientConnectorError as error:
            reason, problem = Reason.TAILCHAT_DOWN, type(error).__name__
        except (aiohttp.ClientError, ValueError) as error:
            problem = type(error).__name__
        finally:
            self._calls -= 1
            await self._close_behind()
        # Outside of the handlers: aiohttp's exceptions hold the request with its headers.
        raise LoginRefused(reason, {"call": call, "problem": problem})

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Tailchat drops idle connections after 5 s: a POST on one that is just going
                # may have spent its code when it fails. So none is used twice.
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                trust_env=False,
                # Without Accept-Encoding no small answer unpacks into a large one.
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": "tailchat-gate",
                },
                auto_decompress=False,
            )
        return self._session


class _Remembered(Generic[T]):
    """Something Tailchat says to everybody alike, fetched by one caller for all."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: tuple[float, T] | None = None
        self._failure: tuple[float, Reason, dict[str, str]] | None = None

    async def get(self, *, newer: bool = False) -> T:
        """Return it, at most LIFETIME old, or with `newer` at most PAUSE.

        Raises what the fetch raised, for PAUSE seconds without another fetch.
        """
        async with self._lock:
            now = self._clock()
            if self._value and 0 <= now - self._value[0] < (PAUSE if newer else LIFETIME):
                return self._value[1]
            if self._failure and 0 <= now - self._failure[0] < PAUSE:
                raise LoginRefused(*self._failure[1:])
            try:
                value = await self._fetch()
            except LoginRefused as refused:
                self._failure = (self._clock(), refused.reason, refused.detail)
                raise
            self._value, self._failure = (self._clock(), value), None
            return value


def _broken(call: str, status: int = _OK, problem: str = "") -> LoginRefused:
    detail = {"call": call, "status": str(status), "problem": problem}
    return LoginRefused(Reason.TAILCHAT_BROKEN, detail)


def _refused(call: str, status: int, answer: JsonObject, secrets: Sequence[str]) -> LoginRefused:
    """Return the refusal that an error answer amounts to, with its words if they are clean."""
    error, description = str(answer.get("error", "")), answer.get("error_description")
    reason = Reason.TAILCHAT_BROKEN
    if status < _SERVER_ERROR and error in _GATE_FAULTS:
        reason = Reason.GATE_NOT_ACCEPTED
    elif status < _SERVER_ERROR and error == "invalid_grant" and call == "token":
        reason = Reason.LOGIN_CODE_REFUSED
    detail = {"call": call, "status": str(status)}
    for name, text in (("error", error), ("description", description)):
        if isinstance(text, str) and not any(s and s in text for s in secrets):
            detail[name] = short_text(text, 64 if name == "error" else 200)
    return LoginRefused(reason, detail)
