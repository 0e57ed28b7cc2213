"""Decides about logins: request parameters, valid callbacks, return targets; pure."""

import hashlib
import re
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

from tailchat_gate.identity.oauth.login_state import (
    STATE_LIFETIME,
    LoginState,
    browser_hash,
    is_bound_to,
    is_browser_cookie,
    open_state,
    seal_state,
)
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.reasons import Reason
from tailchat_gate.syntax import (
    ANY_CASE,
    AUTHORITY_ENDS,
    C1,
    CLOCK_SKEW,
    CTL,
    DEFAULT_PORTS,
    HTTP_ORIGIN,
    OFFLINE_ACCESS,
    SURROGATES,
    VCHAR,
    base64url,
)

#: Longest return target; an authorization URL over 16 KB is a bare 431 at Tailchat.
MAX_RETURN_TO: Final = 2048

_MAX_CODE: Final = 512
# RFC 6749 4.1.2.1; OIDC Core 3.1.2.6; RFC 8707 2.
_ERRORS: Final = frozenset(
    {
        *("invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type"),
        *("invalid_scope", "server_error", "temporarily_unavailable", "invalid_target"),
        *("interaction_required", "login_required", "consent_required", "request_not_supported"),
    }
)


class LoginRefused(Exception):  # noqa: N818 - a refusal is an outcome, not a fault of the gate
    """A login that does not succeed.

    `detail`: short texts for a page and the log, without secrets: `return_to` (where to start
    again), `error` and `description` (Tailchat's words, cleaned, to be escaped like any text),
    `iss`, `call`, `status`, `problem`, `claim`.
    """

    def __init__(self, reason: Reason, detail: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail: dict[str, str] = dict(detail or {})


@dataclass(frozen=True, slots=True)
class ClientRegistration:
    """What an authorization request says about this client (RFC 6749, 4.1.1)."""

    client_id: str
    redirect_uri: str
    scope: str


class StrayLogin(LoginRefused):
    """A login that began at this gate, but that this browser cannot finish with this callback.

    A stranger may have begun it: `return_to` says where to continue, `prompt` how it began, and
    neither names a person. `again`: this login replaced an earlier one.
    """

    def __init__(
        self,
        reason: Reason,
        detail: Mapping[str, str] | None = None,
        *,
        return_to: str,
        prompt: str = "",
        again: bool = False,
    ) -> None:
        super().__init__(reason, {"return_to": return_to, **(detail or {})})
        self.return_to = return_to
        self.prompt = prompt
        self.again = again


@dataclass(frozen=True, slots=True)
class LoginStart:
    """A new login: its state, and the parameters of the authorization request, each once."""

    state: LoginState
    params: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PendingCallback:
    """A callback whose state this browser began here; the rest of its query is not yet checked."""

    state: LoginState
    query: Mapping[str, str] = field(repr=False)


def begin_login(
    client: ClientRegistration,
    *,
    return_to: str,
    browser_cookie: str,
    keyring: KeyRing,
    now: float,
    random_bytes: Callable[[int], bytes],
    prompt: str = "",
    again: bool = False,
) -> LoginStart:
    """Begin a login with its own state, nonce and PKCE verifier.

    `return_to`: a result of `safe_return_to`. `browser_cookie`: the login cookie that the
    response sets or the browser already has. `prompt`: "" or "login" (OIDC Core 3.1.2.1); with
    offline_access in the scope, consent is asked for each time, because Tailchat would otherwise
    drop that scope silently (OIDC Core 11).
    RFC 6749 4.1.1; RFC 7636 4.1 to 4.3; RFC 9700 2.1.1. Raises ValueError for a `return_to` that
    is too long and for a `browser_cookie` of another form.
    """
    if len(return_to) > MAX_RETURN_TO or not is_browser_cookie(browser_cookie):
        raise ValueError("return_to is too long, or browser_cookie is no login cookie")
    state = LoginState(
        state_id=base64url(random_bytes(16)),
        return_to=return_to,
        code_verifier=base64url(random_bytes(32)),
        nonce=base64url(random_bytes(16)),
        issued_at=int(now),
        browser=browser_hash(browser_cookie),
        prompt=prompt,
        again=again,
    )
    challenge = base64url(hashlib.sha256(state.code_verifier.encode()).digest())
    params = [
        ("client_id", client.client_id),
        ("redirect_uri", client.redirect_uri),
        ("response_type", "code"),
        ("scope", client.scope),
        ("state", seal_state(state, keyring)),
        ("nonce", state.nonce),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]
    prompts = [prompt] if prompt else []
    if OFFLINE_ACCESS in client.scope.split(" "):
        prompts.append("consent")
    if prompts:
        params.append(("prompt", " ".join(prompts)))
    return LoginStart(state, tuple(params))


def open_callback(
    query_pairs: Sequence[tuple[str, str]],
    browser_cookies: Sequence[str],
    *,
    keyring: KeyRing,
    now: float,
) -> PendingCallback:
    """Return the login of a callback, once it is proven that this browser began it here.

    `query_pairs`: the decoded query, in order. `browser_cookies`: the values of all login cookies
    that the browser sent, maybe planted ones. Nothing else in the query is trusted before this.
    RFC 6749 3.1, 10.12; RFC 9700 4.7. Raises LoginRefused, StrayLogin for a login of this gate.
    """
    query = _single(query_pairs)
    return PendingCallback(_own_state(query, browser_cookies, keyring, now), query)


def accept_callback(pending: PendingCallback, *, expected_issuer: str) -> str:
    """Return the code to redeem. Raises LoginRefused.

    Checks `iss` first, for errors too, by comparing it with `expected_issuer` character by
    character (RFC 9207 2.4); then `error`, which takes precedence over `code` (RFC 6749 4.1.2.1);
    then `code`.
    """
    state, query = pending.state, pending.query
    again = {"return_to": state.return_to}
    if not query["iss"]:
        raise LoginRefused(Reason.LOGIN_ISSUER_MISSING, again)
    if query["iss"] != expected_issuer:
        issuers = {"iss": short_text(query["iss"]), "expected": short_text(expected_issuer)}
        raise LoginRefused(Reason.LOGIN_ISSUER_WRONG, {**again, **issuers})
    if query["error"]:
        error = {"error": short_text(query["error"], 64)}
        # Tailchat: a missing scope comes back as access_denied without a description.
        if description := short_text(query["error_description"]):
            error["description"] = description
        raise LoginRefused(Reason.LOGIN_REFUSED, {**again, **error})
    if re.fullmatch(f"[{VCHAR}]{{1,{_MAX_CODE}}}", query["code"]) is None:
        raise LoginRefused(Reason.LOGIN_MALFORMED, {**again, "problem": "no usable code"})
    return query["code"]


def short_text(text: str, cap: int = 200) -> str:
    """Return at most `cap` characters of foreign text, without controls and line breaks."""
    return "".join(char for char in text[: cap * 2] if char.isprintable())[:cap].strip()


def _single(query_pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters of an authorization response, "" for a missing one."""
    query = dict.fromkeys(("code", "state", "iss", "error", "error_description"), "")
    seen: set[str] = set()
    for name, value in query_pairs:
        if name in seen:
            raise LoginRefused(Reason.LOGIN_MALFORMED, {"problem": f"{name} came twice"})
        if name in query:
            seen.add(name)
            query[name] = value
    return query


def _own_state(
    query: Mapping[str, str], browser_cookies: Sequence[str], keyring: KeyRing, now: float
) -> LoginState:
    """Return the state if this gate made it lately for this browser. Raises LoginRefused."""
    # Without a proven state, texts may come from an attacker: only known error codes are shown.
    unproven = {"error": query["error"]} if query["error"] in _ERRORS else {}
    if not query["state"]:
        # Tailchat sends some errors without the state.
        raise LoginRefused(
            Reason.LOGIN_REFUSED if query["error"] else Reason.LOGIN_STATE_MISSING, unproven
        )
    state = open_state(query["state"], keyring)
    if state is None:
        raise LoginRefused(Reason.LOGIN_STATE_FORGED, unproven)
    # The cookie may have expired together with the state: the age explains more.
    if not -CLOCK_SKEW <= now - state.issued_at <= STATE_LIFETIME:
        reason = Reason.LOGIN_STATE_EXPIRED
    elif not is_bound_to(state.browser, browser_cookies):
        reason = Reason.LOGIN_OTHER_BROWSER
    else:
        return state
    raise StrayLogin(
        reason, unproven, return_to=state.return_to, prompt=state.prompt, again=state.again
    )


#: The gate's own pages to which no login returns.
LOGIN_PAGES: Final = ("start", "callback", "sign_in", "sign_out")
# The part of a URL before its path.
_ORIGIN: Final = re.compile(f"{HTTP_ORIGIN}(?=[{AUTHORITY_ENDS}]|$)", ANY_CASE)
_UNFIT: Final = re.compile(f"[{CTL}{C1}{SURROGATES}]")
# A path that some browser or server resolves to another place: a control or backslash in it,
# a second slash or white space at its start, a dot segment anywhere.
_ASTRAY: Final = re.compile(rf"[{CTL}\\]|^/[\s/]|/\.{{1,2}}(?:[;{AUTHORITY_ENDS}]|$)")


def safe_return_to(
    rd: str,
    *,
    public_origin: str,
    allowed_origins: Container[str],
    prefix: str = "/oauth2",
    pages: Collection[str] = LOGIN_PAGES,
    longest: int = MAX_RETURN_TO,
) -> str:
    """Return the target after a login, "/" for every target that may not be the gate's own.

    `rd`: the visitor's text, percent-decoded once like any query value. `public_origin`: the
    gate's own; a target there is returned as a path. `allowed_origins`: the origins of routes, in
    normal form; a target there is returned as an absolute URL. `prefix`: that of the gate's own
    paths, of which `pages` are no targets, because logins would nest.

    Path, query and fragment keep their bytes, but spaces and non-ASCII characters are
    percent-encoded (UTF-8), as a browser would. The path is checked as sent, percent-decoded
    once, and twice. RFC 9700 4.11. The result is ASCII, at most `longest` characters.
    """
    if len(rd) > longest or _UNFIT.search(rd):
        return "/"
    origin, target = "", rd
    if not rd.startswith("/"):
        origin_of_rd, target = _split_origin(rd)
        own, _ = _split_origin(public_origin)
        if not origin_of_rd or (origin_of_rd != own and origin_of_rd not in allowed_origins):
            return "/"
        origin = "" if origin_of_rd == own else origin_of_rd
        target = target if target.startswith("/") else "/" + target
    path = re.split(r"[?#]", target, maxsplit=1)[0]
    readings = (path, unquote(path), unquote(unquote(path)))
    if any(_ASTRAY.search(reading) or _is_one(pages, reading, prefix) for reading in readings):
        return "/"
    safe = origin + re.sub(f"[^{VCHAR}]+", lambda unsafe: quote(unsafe[0]), target)
    return safe if len(safe) <= longest else "/"


def _split_origin(url: str) -> tuple[str, str]:
    """Return (origin in normal form, the rest); the origin is "" if there is none."""
    match = _ORIGIN.match(url)
    if match is None:
        return "", url
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    shown = f":{int(port)}" if port and int(port) != DEFAULT_PORTS[scheme] else ""
    return f"{scheme}://{host}{shown}", url[match.end() :]


def _is_one(pages: Collection[str], path: str, prefix: str) -> bool:
    """Whether some server could read a path as one of the gate's own `pages`."""
    plain = re.sub("/{2,}", "/", path).lower()
    return any(
        re.match(rf"{re.escape(prefix.lower())}/{page}(?:[/;?#]|$)", plain) for page in pages
    )
