"""Decides the outcome of an authorization request to the stand-in Tailchat, without I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from tailchat_gate.demo.oauth import (
    OAuthError,
    Parameters,
    bad_request,
    check_callbacks,
    check_proof_format,
)
from tailchat_gate.demo.store import App, AuthRequest, Grant, Result, Session

SCOPES: Final = ("openid", "offline_access", "profile")
RESPONSE_MODES: Final = ("form_post", "fragment", "query")
RESPONSE_TYPES: Final = ("code id_token", "code", "id_token", "none")
_PROMPTS: Final = frozenset(("none", "login", "consent"))
_NAMES: Final = frozenset(
    (
        *("acr_values", "claims_locales", "client_id", "code_challenge", "code_challenge_method"),
        *("display", "id_token_hint", "login_hint", "max_age", "nonce", "prompt", "redirect_uri"),
        *("registration", "request", "request_uri", "resource", "response_mode", "response_type"),
        *("scope", "state", "ui_locales"),
    )
)
# Node does not escape these in a query either.
_UNESCAPED: Final = "!()*-._~"
# These need the scope openid (OIDC Core section 3.1.2.1).
_OPENID_ONLY: Final = ("acr_values", "claims_locales", "id_token_hint", "max_age", "nonce")


@dataclass(frozen=True, slots=True)
class Callback:
    """Where a response goes, and in which form: `response_mode` is one of RESPONSE_MODES."""

    redirect_uri: str
    response_mode: str


class AuthorizationError(Exception):
    """An authorization request that failed.

    `callback` is where the error goes; None if it must stay on a page of Tailchat, because the
    client or its redirect_uri is unknown. `members` are the response's members, without `iss`.
    """

    def __init__(
        self, error: OAuthError, callback: Callback | None = None, state: str | None = None
    ) -> None:
        super().__init__(error.error)
        self.status = error.status
        self.callback = callback
        self.members = error.members() | ({} if state is None else {"state": state})


def read_request(query: str, apps: Mapping[str, App]) -> AuthRequest:
    """Return the authorization request of a query; raises AuthorizationError.

    Tailchat compares redirect_uri as text and drops unknown scopes. It also drops offline_access
    unless prompt=consent. PKCE is optional; S256 is its only method.
    """
    params = Parameters.parse(query)
    app = apps.get(params.get("client_id") or "")
    try:
        _check_client(params, app)
        _check_response(params)
        scope, prompt = _scope_and_prompt(params)
        if app is None or (params.get("redirect_uri") or "") not in app.redirect_uris:
            raise _unregistered()
        _check_proof(params)
        max_age = _max_age(params)
    except OAuthError as error:
        raise _with_callback(error, params, app) from None
    if max_age == 0:
        prompt, max_age = prompt | {"login"}, None
    return AuthRequest(
        client_id=app.client_id,
        redirect_uri=params.get("redirect_uri") or "",
        response_mode=params.get("response_mode") or "query",
        state=params.get("state"),
        scope=scope,
        prompt=prompt,
        nonce=params.get("nonce"),
        code_challenge=params.get("code_challenge"),
        max_age=max_age,
    )


def _check_client(params: Parameters, app: App | None) -> None:
    params.must_be_single(_NAMES)
    if params.get("request"):
        raise OAuthError("request_not_supported", "request parameter provided but not supported")
    if params.get("request_uri"):
        raise OAuthError(
            "request_uri_not_supported", "request_uri parameter provided but not supported"
        )
    params.must_have("client_id")
    if app is None:
        raise OAuthError("invalid_client", "client is invalid")
    check_callbacks(app.redirect_uris)


def _check_response(params: Parameters) -> None:
    wanted = params.get("response_type")
    mode = params.get("response_mode")
    if mode is not None and mode not in RESPONSE_MODES:
        raise OAuthError("unsupported_response_mode", "unsupported response_mode requested")
    if mode == "query" and _default_mode(wanted) == "fragment":
        raise bad_request("response_mode not allowed for this response_type")
    params.must_have("response_type")
    if params.get("registration"):
        raise OAuthError(
            "registration_not_supported", "registration parameter provided but not supported"
        )
    kind = " ".join(sorted(set((wanted or "").split(" "))))
    if kind not in RESPONSE_TYPES:
        raise OAuthError("unsupported_response_type", "unsupported response_type requested")
    if kind != "code":
        raise OAuthError(
            "unauthorized_client", "requested response_type is not allowed for this client"
        )
    params.must_have("redirect_uri")


def _scope_and_prompt(params: Parameters) -> tuple[tuple[str, ...], frozenset[str]]:
    prompt = frozenset((params.get("prompt") or "").split(" ")) - {""}
    if not prompt <= _PROMPTS:
        raise bad_request("unsupported prompt value requested")
    if "none" in prompt and len(prompt) > 1:
        raise bad_request("prompt none must only be used alone")
    if params.get("resource"):
        raise OAuthError("invalid_target", "resource indicator is missing, or unknown")
    scopes = dict.fromkeys((params.get("scope") or "").split(" "))
    scope = tuple(
        name
        for name in scopes
        if name in SCOPES and (name != "offline_access" or "consent" in prompt)
    )
    if "openid" not in scope:
        for name in _OPENID_ONLY:
            if params.get(name):
                raise bad_request(f"openid scope must be requested when using the {name} parameter")
    return scope, prompt


def _check_proof(params: Parameters) -> None:
    challenge, method = params.get("code_challenge"), params.get("code_challenge_method")
    if challenge and not method:
        raise bad_request(
            "plain code_challenge_method fallback disabled, code_challenge_method must be provided"
        )
    if method and method != "S256":
        raise bad_request("not supported value of code_challenge_method")
    if method and not challenge:
        raise bad_request("code_challenge must be provided with code_challenge_method")
    if challenge:
        check_proof_format(challenge, "code_challenge")


def _max_age(params: Parameters) -> int | None:
    text = params.get("max_age")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise bad_request("invalid max_age parameter value")
    return int(text)


def _unregistered() -> OAuthError:
    return OAuthError(
        "invalid_redirect_uri",
        "redirect_uri did not match any of the client's registered redirect_uris",
    )


def _with_callback(error: OAuthError, params: Parameters, app: App | None) -> AuthorizationError:
    state = params.get("state")
    redirect_uri = params.get("redirect_uri")
    if app is None or redirect_uri is None or not all(app.redirect_uris):
        return AuthorizationError(error, state=state)
    if redirect_uri not in app.redirect_uris:  # takes precedence over every other error
        return AuthorizationError(_unregistered(), state=state)
    mode = params.get("response_mode")
    if mode not in RESPONSE_MODES:
        mode = _default_mode(params.get("response_type"))
    return AuthorizationError(error, Callback(redirect_uri, mode), state)


def _default_mode(response_type: str | None) -> str:
    return "fragment" if "token" in (response_type or "") else "query"


def next_page(
    request: AuthRequest, session: Session, grant: Grant | None, result: Result, now: float
) -> tuple[str, tuple[str, ...]]:
    """Return the page to show next, and the scopes that it must ask for.

    The page is "login" or "consent"; "" means that a code can be issued. `result` is the result of
    the pages so far. Raises OAuthError if a page is needed and prompt=none forbids it, or if
    nothing is granted.
    """
    reason = _login_reason(request, session, result, now)
    if reason:
        return _page("login", reason, request)
    missing = tuple(name for name in request.scope if grant is None or name not in grant.scope)
    if "consent" in request.prompt and not result.consented:
        return _page("consent", "consent prompt was not resolved", request, missing)
    if missing:
        return _page("consent", "requested scopes not granted", request, missing)
    if grant is None or not grant.allowed(request.scope):
        # Tailchat: a request without any known scope ends like this, without a description.
        raise OAuthError("access_denied", None)
    return "", ()


def _login_reason(request: AuthRequest, session: Session, result: Result, now: float) -> str:
    if "login" in request.prompt and not result.sub:
        return "login prompt was not resolved"
    if not session.sub:
        return "End-User authentication is required"
    too_old = request.max_age is not None and int(now) - session.signed_in_at > request.max_age
    return "End-User authentication could not be obtained" if too_old and not result.sub else ""


def _page(
    kind: str, reason: str, request: AuthRequest, missing: tuple[str, ...] = ()
) -> tuple[str, tuple[str, ...]]:
    if "none" in request.prompt:
        raise OAuthError(f"{kind}_required", reason)
    return kind, missing


def callback_url(callback: Callback, members: Mapping[str, str]) -> str:
    """Return the redirect URL with `members` in the query or in the fragment.

    A query that is registered with the redirect_uri stays (RFC 6749 section 3.1.2).
    """
    parts = urlsplit(callback.redirect_uri)
    parts = parts._replace(path=parts.path or "/")
    if callback.response_mode == "fragment":
        return urlunsplit(parts._replace(fragment=_encoded(members)))
    query = dict(parse_qsl(parts.query, keep_blank_values=True)) | dict(members)
    return urlunsplit(parts._replace(query=_encoded(query)))


def _encoded(members: Mapping[str, str]) -> str:
    return "&".join(
        f"{quote(name, safe=_UNESCAPED)}={quote(value, safe=_UNESCAPED)}"
        for name, value in members.items()
    )
