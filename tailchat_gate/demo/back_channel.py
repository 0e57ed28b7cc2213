"""Answers /open/token and /open/me of the stand-in Tailchat; wire.py reads and writes HTTP."""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import unquote

from tailchat_gate.demo.oauth import (
    FORBIDDEN,
    FORM,
    MAX_BODY,
    UNAUTHORIZED,
    OAuthError,
    Parameters,
    bad_request,
    check_callbacks,
    check_proof_format,
    server_error,
)
from tailchat_gate.demo.store import (
    REFRESH_SECONDS,
    TOKEN_SECONDS,
    App,
    Grant,
    Shelf,
    Store,
    Token,
)
from tailchat_gate.syntax import base64url

_CREDENTIALS: Final = ("client_id", "client_secret")
_GRANT_PARAMETERS: Final = {
    "authorization_code": ("code", "redirect_uri", "code_verifier"),
    "refresh_token": ("refresh_token", "scope"),
}
# oidc-provider rotates a refresh token after this fraction of its lifetime.
_ROTATION: Final = 0.7


@dataclass(frozen=True, slots=True)
class Call:
    """One request on the back channel.

    `body` is None if the request has none. `content_type`, `authorization` and `origin` are the
    values of these fields, "" if they were not sent. `path` is without /open, as in error texts.
    """

    method: str
    path: str
    content_type: str = ""
    authorization: str = field(default="", repr=False)
    origin: str = ""
    query: str = field(default="", repr=False)
    body: bytes | None = field(default=None, repr=False)

    def form(self) -> Parameters:
        """Return the form in the body; raises OAuthError for another media type."""
        is_form = self.content_type.partition(";")[0].strip().lower() == FORM
        if self.body is not None and is_form:
            if len(self.body) > MAX_BODY:
                raise bad_request("failed to parse the request body")
            return Parameters.parse(self.body.decode("utf-8", "replace"))
        if self.content_type:
            raise bad_request(
                f"only {FORM} content-type bodies are supported on {self.method} {self.path}"
            )
        return Parameters({})


class Signer(Protocol):
    """Signs the id_token."""

    def sign(self, claims: dict[str, object]) -> str:
        """Return the claims as a signed JWT."""
        ...


@dataclass(frozen=True, slots=True)
class _Issued:
    """The scopes granted and requested in a token response; `refresh_token` is "" for none."""

    scope: tuple[str, ...]
    asked: tuple[str, ...]
    refresh_token: str = field(repr=False)


class BackChannel:
    """The two endpoints that an app's server calls."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer

    def token(self, call: Call, issuer: str) -> dict[str, object]:
        """Return the members of a token response (RFC 6749 section 5.1); raises OAuthError.

        `issuer` is Tailchat's API_URL.
        """
        params = call.form()
        app = self._client(params, call)
        params.must_be_single(("grant_type",))
        params.must_have("grant_type")
        grant_type = params.get("grant_type") or ""
        known = _GRANT_PARAMETERS.get(grant_type)
        if known is None:
            raise OAuthError("unsupported_grant_type", "unsupported grant_type requested")
        params.must_be_single(known)
        if grant_type == "refresh_token":
            return self._refresh(params, app, issuer)
        return self._redeem(params, app, issuer)

    def _client(self, params: Parameters, call: Call) -> App:
        params.must_be_single(_CREDENTIALS)
        client_id, secret = params.get("client_id"), params.get("client_secret")
        if call.authorization:
            basic_id, basic_secret = _basic(call.authorization)
            if client_id not in (None, basic_id):
                raise bad_request("mismatch in body and authorization client ids")
            if not basic_secret:
                raise bad_request("client_secret must be provided in the Authorization header")
            if secret is not None:
                raise bad_request("client authentication must only be provided using one mechanism")
            client_id, secret = basic_id, basic_secret
        if not client_id:
            raise bad_request("no client authentication mechanism provided")
        app = self._store.apps.get(client_id)
        if app is not None:
            check_callbacks(app.redirect_uris)
            _refuse_origin(call, app)
        expected = app.client_secret if app is not None else ""
        if not hmac.compare_digest((secret or "").encode(), expected.encode()) or app is None:
            raise OAuthError("invalid_client", "client authentication failed", UNAUTHORIZED)
        return app

    def _redeem(self, params: Parameters, app: App, issuer: str) -> dict[str, object]:
        """Redeem a code (RFC 6749 section 4.1.3); a failed attempt leaves it valid.

        Tailchat: a second redemption ends the grant and everything issued under it.
        """
        params.must_have("code", "redirect_uri")
        store = self._store
        code = store.find(store.codes, params.get("code") or "")
        if code is None or code.client_id != app.client_id:
            raise _invalid_grant()
        grant = self._grant(code, app)
        _check_proof(params.get("code_verifier"), code.code_challenge)
        if code.redirect_uri != params.get("redirect_uri"):
            raise _invalid_grant()
        if code.used:
            store.revoke(code.grant_id)
            raise _invalid_grant()
        code.used = True
        if code.sub not in store.users:
            raise server_error()
        refresh = ""
        if "offline_access" in code.scope:
            refresh = self._keep(store.refresh_tokens, code, code.scope, REFRESH_SECONDS)
        issued = _Issued(grant.allowed(code.scope), code.scope, refresh)
        return self._tokens(code, issued, issuer)

    def _refresh(self, params: Parameters, app: App, issuer: str) -> dict[str, object]:
        """Return new tokens for a refresh token (RFC 6749 section 6).

        Tailchat returns the same refresh token for most of its lifetime. Then it issues a new one,
        and the next use of the old one ends the grant.
        """
        params.must_have("refresh_token")
        store = self._store
        value = params.get("refresh_token") or ""
        token = store.find(store.refresh_tokens, value)
        if token is None or token.client_id != app.client_id:
            raise _invalid_grant()
        grant = self._grant(token, app)
        wanted = tuple((params.get("scope") or "").split()) or token.scope
        beyond = [name for name in wanted if name not in token.scope]
        if beyond:
            word = "scope" if len(beyond) == 1 else "scopes"
            raise OAuthError(
                "invalid_scope", f"refresh token missing requested {word}", scope=" ".join(beyond)
            )
        if token.sub not in store.users:
            raise server_error()
        if token.used:
            store.revoke(token.grant_id)
            raise _invalid_grant()
        if store.clock() - token.issued_at >= _ROTATION * REFRESH_SECONDS:
            token.used = True
            value = self._keep(store.refresh_tokens, token, token.scope, REFRESH_SECONDS)
        return self._tokens(token, _Issued(grant.allowed(wanted), wanted, value), issuer)

    def _grant(self, token: Token, app: App) -> Grant:
        grant = self._store.grants.get(token.grant_id)
        if grant is None or grant.client_id != app.client_id:
            raise _invalid_grant()
        return grant

    def _keep(
        self, shelf: Shelf[Token], origin: Token, scope: tuple[str, ...], seconds: int
    ) -> str:
        value = secrets.token_urlsafe(32)
        shelf.put(
            value,
            Token(
                value=value,
                sub=origin.sub,
                client_id=origin.client_id,
                grant_id=origin.grant_id,
                scope=scope,
                session_uid=origin.session_uid,
                ends_with_session=origin.ends_with_session,
                issued_at=self._store.clock(),
                nonce=origin.nonce,
                auth_time=origin.auth_time,
            ),
            seconds,
        )
        return value

    def _tokens(self, origin: Token, issued: "_Issued", issuer: str) -> dict[str, object]:
        access = self._keep(self._store.access_tokens, origin, issued.scope, TOKEN_SECONDS)
        answer: dict[str, object] = {"access_token": access, "expires_in": TOKEN_SECONDS}
        if "openid" in issued.asked:
            # Tailchat: the id_token has no nickname, no picture and no sid.
            now = int(self._store.clock())
            claims: dict[str, object] = {"sub": origin.sub}
            if origin.auth_time is not None:
                claims["auth_time"] = origin.auth_time
            if origin.nonce is not None:
                claims["nonce"] = origin.nonce
            claims |= {"at_hash": _half_hash(access), "aud": origin.client_id}
            claims |= {"exp": now + TOKEN_SECONDS, "iat": now, "iss": issuer}
            answer["id_token"] = self._signer.sign(claims)
        if issued.refresh_token:
            answer["refresh_token"] = issued.refresh_token
        return answer | {"scope": " ".join(issued.scope), "token_type": "Bearer"}

    def userinfo(self, call: Call) -> dict[str, object]:
        """Return the claims in `/open/me` (OIDC Core section 5.3.2); raises OAuthError."""
        params = call.form() if call.method == "POST" else Parameters.parse(call.query)
        params.must_be_single(("scope", "access_token"))
        store = self._store
        token = store.find(store.access_tokens, _bearer(call, params))
        if token is None:
            raise _invalid_token()
        if "openid" not in token.scope:
            raise OAuthError(
                "insufficient_scope", "access token missing openid scope", FORBIDDEN, "openid"
            )
        app = store.apps.get(token.client_id)
        if app is None:
            raise _invalid_token()
        check_callbacks(app.redirect_uris)
        _refuse_origin(call, app)
        user = store.users.get(token.sub)
        if user is None:
            raise server_error()
        if store.grants.get(token.grant_id) is None:
            raise _invalid_token()
        claims: dict[str, object] = {"sub": user.sub}
        if "profile" in token.scope:
            claims.update(user.claims)
        return claims


def _basic(authorization: str) -> tuple[str, str]:
    wrong = bad_request("invalid authorization header value format")
    words = authorization.split(" ")
    if len(words) != 2 or words[0].lower() != "basic":  # noqa: PLR2004 - RFC 7617 section 2
        raise wrong
    try:
        pair = base64.b64decode(words[1], validate=False).decode("utf-8", "replace")
    except binascii.Error:
        raise wrong from None
    client_id, colon, secret = pair.partition(":")
    if not colon:
        raise wrong
    return _unescaped(client_id), _unescaped(secret)


def _unescaped(text: str) -> str:
    return unquote(text.replace("+", "%20"))  # RFC 6749 appendix B


def _bearer(call: Call, params: Parameters) -> str:
    query = Parameters.parse(call.query).get("access_token") or ""
    body = (params.get("access_token") or "") if call.method == "POST" else ""
    sent = [value for value in (body, call.authorization, query) if value]
    if not sent:
        raise bad_request("no access token provided")
    if len(sent) > 1:
        raise bad_request("access token must only be provided using one mechanism")
    if not call.authorization:
        return sent[0]
    words = call.authorization.split(" ")
    if len(words) != 2:  # noqa: PLR2004 - RFC 6750 section 2.1
        raise bad_request("invalid authorization header value format")
    if words[0].lower() != "bearer":
        raise bad_request("authorization header scheme must be `Bearer`")
    return words[1]


def _check_proof(verifier: str | None, challenge: str | None) -> None:
    """Check a PKCE verifier (RFC 7636 section 4.6); raises OAuthError, also without a challenge."""
    if verifier is not None:
        check_proof_format(verifier, "code_verifier")
    if verifier is None and challenge is None:
        return
    digest = base64url(hashlib.sha256((verifier or "").encode()).digest())
    if verifier is None or not hmac.compare_digest(digest, challenge or ""):
        raise _invalid_grant()


def _refuse_origin(call: Call, app: App) -> None:
    if call.origin:
        raise bad_request(f"origin {call.origin} not allowed for client: {app.client_id}")


def _half_hash(access_token: str) -> str:
    """Return at_hash (OIDC Core section 3.1.3.6)."""
    return base64url(hashlib.sha256(access_token.encode()).digest()[:16])


def _invalid_grant() -> OAuthError:
    return OAuthError("invalid_grant", "grant request is invalid")


def _invalid_token() -> OAuthError:
    return OAuthError("invalid_token", "invalid token provided", UNAUTHORIZED)
