"""One login under way, sealed into the `state` that travels over Tailchat."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.syntax import COMPACT

STATE_LIFETIME: Final = 7200
"""Seconds a login may take (Tailchat: one hour for its login page, one for the consent)."""


@dataclass(frozen=True, slots=True)
class LoginState:
    """One login under way; travels sealed in `state`, so nothing is kept for it here.

    `state_id`: 128 random bits. `browser`: hash of the login cookie it is bound to.
    `issued_at`: Unix seconds. `prompt`: "" or what the authorization request asked for.
    `again`: it was begun in the place of one that this browser could not end.
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
        """Unix seconds after which its callback is refused."""
        return self.issued_at + STATE_LIFETIME

    @property
    def short_id(self) -> str:
        """16 hex digits that tell which login a session came from and reveal nothing."""
        return hashlib.sha256(self.state_id.encode()).hexdigest()[:16]


def seal_state(state: LoginState, keyring: KeyRing) -> str:
    """Return what travels as `state` in an authorization request."""
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
    """Return the login that a `state` names, None for one that this gate did not seal."""
    data = keyring.open(token)
    if data is None:
        return None
    try:
        state_id, return_to, verifier, nonce, issued_at, browser, prompt, *more = json.loads(data)
    except (ValueError, TypeError):
        # Sealed by another version of the gate.
        return None
    texts = (state_id, return_to, verifier, nonce, browser, prompt)
    if not all(isinstance(text, str) for text in texts) or not isinstance(issued_at, int):
        return None
    if more not in ([], [False], [True]):
        return None
    again = more == [True]
    return LoginState(state_id, return_to, verifier, nonce, issued_at, browser, prompt, again)
