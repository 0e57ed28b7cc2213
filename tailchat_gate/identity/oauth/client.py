"""The OAuth client: the requests to Tailchat for sign-ins and rechecks, and their checks."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from pydantic import SecretStr

from tailchat_gate.identity.oauth.back_channel import BackChannel
from tailchat_gate.identity.oauth.id_token import (
    ExpectedClaims,
    JsonObject,
    SignedClaims,
    check_id_token,
)
from tailchat_gate.identity.oauth.id_token import json_object as parse_json
from tailchat_gate.identity.oauth.login import ClientRegistration, LoginRefused
from tailchat_gate.identity.oauth.login_state import LoginState
from tailchat_gate.identity.oauth.responses import (
    Profile,
    ProfileError,
    TokenSet,
    broken,
    busy,
    profile_from_userinfo,
    read_tokens,
    refused,
)
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import OPENID, VCHAR

#: Seconds for which a response is cached.
LIFETIME: Final = 600.0
#: Seconds between two fetches after a failure or for a newer response, so that strangers cannot
#: cause many.
PAUSE: Final = 5.0

T = TypeVar("T")

# A server may echo its request in an error text; these must not get into a log that way.
_SECRETS: Final = frozenset({"client_secret", "code", "code_verifier", "refresh_token", "bearer"})

Observer = Callable[[str, float, str], None]


class CachedAnswer(Generic[T]):
    """A response of Tailchat that is the same for everybody, fetched once for all callers."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: tuple[float, T] | None = None
        self._failure: tuple[float, Reason, dict[str, str]] | None = None

    async def get(self, *, newer: bool = False) -> T:
        """Return the value, at most LIFETIME seconds old, or PAUSE with `newer`.

        Raises LoginRefused; for PAUSE seconds after a failed fetch the same one, without a fetch.
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


@dataclass(frozen=True, slots=True)
class LoginResult:
    """The person who logged in, and their tokens.

    `auth_time`: the Unix second at which they gave their password, 0 if Tailchat did not say it.
    """

    profile: Profile
    tokens: TokenSet = field(repr=False)
    auth_time: int = 0


class TailchatClient:
    """The back channel to one Tailchat server, for one registered app.

    `api_url`: its base URL; endpoints are `api_url + /open/{auth,token,me,jwks}` and never
    taken from discovery, which Tailchat builds from the Host header of each request.
    `issuer`: the expected `iss`, "" to learn it by discovery. `clock` returns Unix seconds.
    `observe(call, seconds, outcome)` is called after every call. `call` is discovery, jwks, token,
    me (at a login), recheck (`/open/me` later) or refresh; `outcome` is ok, cancelled or a reason.
    `channel`: the connection to use, None for a plain one to `api_url`.

    Every method that calls Tailchat may raise LoginRefused. No exception or repr holds a secret.
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
        clock: Callable[[], float],
        observe: Observer | None = None,
        channel: BackChannel | None = None,
    ) -> None:
        self.registration = ClientRegistration(client_id, redirect_uri, scope)
        self._api_url = api_url.rstrip("/")
        self._channel = channel or BackChannel(self._api_url)
        self._secret = (
            client_secret if isinstance(client_secret, SecretStr) else SecretStr(client_secret)
        )
        self._configured_issuer = issuer
        self._clock = clock
        self._observe = observe
        #: Tailchat asked for no calls before this Unix second.
        self._rests_until = 0.0
        self._issuer = CachedAnswer(self._discover, clock)
        self._keys = CachedAnswer(self._fetch_keys, clock)

    def __repr__(self) -> str:
        """The base URL and the client id, no secret."""
        return f"<TailchatClient {self._api_url} as {self.registration.client_id}>"

    async def close(self) -> None:
        """Close the open connections once the calls in progress have ended."""
        await self._channel.close()

    def authorization_url(self, params: Sequence[tuple[str, str]]) -> str:
        """Return the URL to send the browser to. Raises ValueError if a parameter comes twice."""
        if len(dict(params)) != len(params):
            raise ValueError("a parameter of an authorization request came twice")
        return f"{self._api_url}/open/auth?{urlencode(params, quote_via=quote)}"

    async def issuer(self, *, newer: bool = False) -> str:
        """Return the expected `iss`, to be compared character by character.

        `newer`: the learned value may be out of date, because another one came.
        Tailchat sends its API_URL setting verbatim, which may differ from `api_url`.
        """
        return self._configured_issuer or await self._issuer.get(newer=newer)

    async def identity(self, code: str, state: LoginState) -> LoginResult:
        """Return the person of a login: redeem the code, check any id_token, call `/open/me`."""
        tokens = await self.redeem(code, state.code_verifier)
        signed = await self._signed_claims(tokens, state) if tokens.id_token else None
        profile = self._read_profile("me", await self.userinfo(tokens.access_token))
        # OIDC Core 5.3.2: the userinfo response may be about another user.
        if signed is None:
            return LoginResult(profile, tokens)
        if signed.sub != profile.sub:
            raise LoginRefused(Reason.LOGIN_ID_TOKEN, {"claim": "sub", "call": "me"})
        return LoginResult(profile, tokens, signed.auth_time)

    async def profile(self, access_token: str) -> Profile:
        """Return the current profile for an access token of a session.

        Raises LoginRefused, with SESSION_REVOKED if the token is no longer valid.
        """
        return self._read_profile("recheck", await self.userinfo(access_token, call="recheck"))

    async def redeem(self, code: str, code_verifier: str) -> TokenSet:
        """Return the tokens for a code. The request is sent once and never again.

        RFC 6749 4.1.3, 5.1; RFC 7636 4.5. Tailchat accepts only a form and refuses an Origin field.
        If a code comes a second time, it revokes all tokens of that code.
        """
        tokens, signed = await self._tokens(
            "token",
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self.registration.redirect_uri,
                "code_verifier": code_verifier,
            },
        )
        if signed is None:
            if OPENID in self.registration.scope.split(" "):
                # OIDC Core 3.1.3.3: without one it is no OpenID Connect response.
                raise LoginRefused(Reason.LOGIN_ID_TOKEN, {"claim": "absent"})
            return tokens
        if not isinstance(signed, str) or not signed:
            raise LoginRefused(Reason.LOGIN_ID_TOKEN, {"claim": "form"})
        return replace(tokens, id_token=signed)

    async def refresh(self, refresh_token: str) -> TokenSet:
        """Return new tokens for a refresh token. The request is sent once and never again.

        RFC 6749 6. Tailchat returns the same refresh token, or a new one late in its life. If a
        replaced one comes again, the whole grant ends, so no two calls may use one refresh token at
        a time. The id_token in the response is not read: `/open/me` says who the user is.

        Raises LoginRefused, with SESSION_REVOKED if the grant has ended.
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        tokens, _ = await self._tokens("refresh", form)
        return replace(tokens, refresh_token=tokens.refresh_token or refresh_token)

    async def _tokens(self, call: str, form: Mapping[str, str]) -> tuple[TokenSet, object]:
        """Return the tokens that the token endpoint gives for a form, and the raw id_token."""
        form = {
            **form,
            "client_id": self.registration.client_id,
            "client_secret": self._secret.get_secret_value(),
        }
        with self._observed(call):
            answer = await self._ask(call, "POST", "/open/token", form=form)
            return read_tokens(call, answer, now=self._clock()), answer.get("id_token")

    def _read_profile(self, call: str, userinfo: JsonObject) -> Profile:
        try:
            return profile_from_userinfo(userinfo, api_url=self._api_url)
        except ProfileError as error:
            detail = {"call": call, "problem": error.reason}
        raise LoginRefused(Reason.TAILCHAT_BROKEN, detail)

    async def userinfo(self, access_token: str, *, call: str = "me") -> JsonObject:
        """Return the unchecked response of `/open/me`; `call` is the name for the observer.

        It is a GET with a header, as OIDC Core 5.3.1 recommends. Tailchat would refuse a POST whose
        content type a proxy has changed, and would log a token in the query.
        """
        with self._observed(call):
            return await self._ask(call, "GET", "/open/me", bearer=access_token)

    async def _signed_claims(self, tokens: TokenSet, state: LoginState) -> SignedClaims:
        """Return the claims of the id_token.

        If the token contradicts the cached keys or issuer, they are fetched again first, because
        new keys may have the same id.
        """
        issuer, keys = await self.issuer(), await self._keys.get()
        try:
            return self._check(tokens, state, keys, issuer)
        except LoginRefused as refused:
            learned = refused.detail.get("claim")
            if learned in {"kid", "signature"}:
                keys = await self._keys.get(newer=True)
            elif learned == "iss":
                issuer = await self.issuer(newer=True)
            else:
                raise
        return self._check(tokens, state, keys, issuer)

    def _check(
        self, tokens: TokenSet, state: LoginState, keys: Sequence[JsonObject], issuer: str
    ) -> SignedClaims:
        expected = ExpectedClaims(
            issuer=issuer,
            client_id=self.registration.client_id,
            nonce=state.nonce,
            access_token=tokens.access_token,
        )
        return check_id_token(tokens.id_token, keys, expected, now=self._clock())

    async def _discover(self) -> str:
        # Not at the issuer's own well-known path: Tailchat sends HTML there, or hangs.
        with self._observed("discovery"):
            answer = await self._ask("discovery", "GET", "/open/.well-known/openid-configuration")
            issuer = answer.get("issuer")
            if not isinstance(issuer, str) or re.fullmatch(f"[{VCHAR}]{{1,1024}}", issuer) is None:
                raise broken("discovery", problem="no usable issuer")
            return issuer

    async def _fetch_keys(self) -> tuple[JsonObject, ...]:
        with self._observed("jwks"):
            keys = (await self._ask("jwks", "GET", "/open/jwks")).get("keys")
            if not isinstance(keys, list):
                raise broken("jwks", problem="no keys")
            return tuple(key for key in keys if isinstance(key, dict))

    @contextmanager
    def _observed(self, call: str) -> Iterator[None]:
        """Report a call's duration and outcome to the observer."""
        loop = asyncio.get_running_loop()
        start, outcome = loop.time(), "internal-error"
        try:
            yield
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except LoginRefused as error:
            outcome = error.reason
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
        """Return the JSON object of a 200 response without an error, or raise LoginRefused."""
        headers, body = {}, None
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(form).encode()
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        if (rest := self._rests_until - self._clock()) > 0:
            raise busy(call, str(math.ceil(rest)))
        response = await self._channel.exchange(call, method, path, headers, body)
        status = response.status
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            refusal = busy(call, response.retry_after)
            self._rests_until = self._clock() + int(refusal.detail["retry_after"])
            raise refusal
        if not response.is_json:
            raise broken(call, status, "not JSON")
        try:
            answer = parse_json(response.body)
        except ValueError:
            raise broken(call, status, "not a JSON object") from None
        if status != HTTPStatus.OK or "error" in answer:
            sent = {**(form or {}), "bearer": bearer}
            raise refused(call, status, answer, [v for k, v in sent.items() if k in _SECRETS])
        return answer
