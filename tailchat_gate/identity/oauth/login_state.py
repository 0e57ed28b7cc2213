"""One login in progress: sealed into `state`, bound to a browser by a cookie."""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.syntax import (
    BASE64URL,
    BASE64URL_32_BYTES,
    CLOCK_SKEW,
    COMPACT,
    base64url,
    from_base64url,
)

#: The purpose that separates the keys for `state` from all others (KeyRing).
KEY_PURPOSE: Final = "state"

#: Seconds during which new logins share a login cookie; the next login gets a new one.
SHARED_SECONDS: Final = 7200

#: Login cookies that a browser may keep, about 80 bytes each; surplus ones are deleted.
MAX_KEPT: Final = 20

#: The random end of a login cookie's name, as a pattern.
SUFFIX: Final = f"_[{BASE64URL}]{{6}}"

_TIME_BYTES: Final = 4
_VALUE_BYTES: Final = 32
_NAME: Final = re.compile(SUFFIX)

#: Seconds a login may take (Tailchat: one hour for its login page, one for the consent).
STATE_LIFETIME: Final = 7200


class LoginCookie(NamedTuple):
    """A login cookie: `name` is its whole name, `value` binds logins to the browser."""

    name: str
    value: str


def new_browser_cookie(random_bytes: Callable[[int], bytes], now: float = 0.0) -> str:
    """Return a value for a login cookie: the time and 224 random bits.

    43 characters of base64url. The time is neither secret nor protected: it only decides which
    cookies are deleted, and anyone who can forge it could delete them directly.
    """
    made_at = (int(now) & 0xFFFF_FFFF).to_bytes(_TIME_BYTES, "big")
    return base64url(made_at + random_bytes(_VALUE_BYTES - _TIME_BYTES))


def is_browser_cookie(value: str) -> bool:
    """Whether a cookie's value has the form of a login cookie's value."""
    return re.fullmatch(BASE64URL_32_BYTES, value) is not None


def browser_hash(cookie: str) -> str:
    """Return the hash of a login cookie, which binds a login to the browser."""
    # A cookie's value comes from a header: it may hold surrogates.
    return base64url(hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).digest())


def is_bound_to(browser: str, browser_cookies: Collection[str]) -> bool:
    """Whether one of a browser's login cookies has this hash; compared in constant time."""
    return any(
        hmac.compare_digest(browser.encode("utf-8", "surrogatepass"), browser_hash(c).encode())
        for c in browser_cookies
    )


def is_name(name: str, prefix: str) -> bool:
    """Whether a cookie's name is that of a login cookie; `prefix` is the start of all of them."""
    return name.startswith(prefix) and _NAME.fullmatch(name, len(prefix)) is not None


def choose(
    cookies: Sequence[LoginCookie],
    *,
    prefix: str,
    now: float,
    random_bytes: Callable[[int], bytes],
) -> LoginCookie:
    """Return the login cookie for a new login: the browser's newest, or a new one.

    `cookies`: those that the browser sent. A new one has its own name, so that logins that begin
    at the same time each keep theirs.
    """
    shared = [cookie for cookie in cookies if _is_shared(cookie, now)]
    if shared:
        return max(shared, key=_made_at)
    name = f"{prefix}_{base64url(random_bytes(5))[:6]}"
    return LoginCookie(name, new_browser_cookie(random_bytes, now))


def surplus(cookies: Sequence[LoginCookie], keep: str = "") -> list[str]:
    """Return the names of the cookies to delete, so that MAX_KEPT are left.

    Cookies that no gate made come first, then the oldest; `keep` is the name of one to leave.
    """
    others = sorted({c for c in cookies if c.name != keep}, key=_made_at)
    excess = len(others) + bool(keep) - MAX_KEPT
    # At most MAX_KEPT at a time, so that the response's header section stays small too.
    return [cookie.name for cookie in others[: min(max(excess, 0), MAX_KEPT)]]


def _is_shared(cookie: LoginCookie, now: float) -> bool:
    return (
        is_browser_cookie(cookie.value) and -CLOCK_SKEW <= now - _made_at(cookie) < SHARED_SECONDS
    )


def _made_at(cookie: LoginCookie) -> int:
    """Return the Unix second at which a cookie was made, -1 for one that no gate made."""
    if not is_browser_cookie(cookie.value):
        return -1
    return int.from_bytes(from_base64url(cookie.value)[:_TIME_BYTES], "big")


@dataclass(frozen=True, slots=True)
class LoginState:
    """One login in progress; it travels sealed in `state`, so the gate stores nothing for it.

    `state_id`: 128 random bits. `browser`: hash of the login cookie it is bound to.
    `issued_at`: Unix seconds. `prompt`: "" or what the authorization request asked for.
    `again`: it replaces a login that this browser could not finish.
    """

    state_id: str = field(repr=False)
    return_to: str
    code_verifier: str = field(repr=False)
    nonce: str = field(repr=False)
    issued_at: int
    browser: str = field(repr=False)
    prompt: str = ""
    again: bool = False

    @property
    def expires_at(self) -> int:
        """Unix second after which its callback is refused."""
        return self.issued_at + STATE_LIFETIME

    @property
    def short_id(self) -> str:
        """16 hex digits that identify the login of a session and reveal nothing."""
        return hashlib.sha256(self.state_id.encode()).hexdigest()[:16]


def seal_state(state: LoginState, keyring: KeyRing) -> str:
    """Return the `state` for an authorization request."""
    fields = [
        state.state_id,
        state.return_to,
        state.code_verifier,
        state.nonce,
        state.issued_at,
        state.browser,
        state.prompt,
        state.again,
    ]
    return keyring.seal(json.dumps(fields, separators=COMPACT).encode())


def open_state(token: str, keyring: KeyRing) -> LoginState | None:
    """Return the login in a `state`, None for one that this gate did not seal."""
    data = keyring.open(token)
    if data is None:
        return None
    try:
        state_id, return_to, verifier, nonce, issued_at, browser, prompt, *more = json.loads(data)
    except (ValueError, TypeError):
        # Another version of the gate sealed it.
        return None
    texts = (state_id, return_to, verifier, nonce, browser, prompt)
    if not all(isinstance(text, str) for text in texts) or not isinstance(issued_at, int):
        return None
    if more not in ([], [False], [True]):
        return None
    again = more == [True]
    return LoginState(state_id, return_to, verifier, nonce, issued_at, browser, prompt, again)
