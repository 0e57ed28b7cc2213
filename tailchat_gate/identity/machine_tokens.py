"""Machine tokens: a machine presents one instead of a sign-in; the gate stores only its hash.

Why a plain SHA-256 is the right hash for them: docs/adr/0009-machine-tokens.md.
"""

import hashlib
import hmac
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.config.model import Token
from tailchat_gate.identity.revocation.state import Lock, RevocationState
from tailchat_gate.reasons import Reason
from tailchat_gate.request.authorization import PREFIX
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.syntax import base64url

#: Random bytes of a token: 256 bits, 43 characters of base64url.
TOKEN_BYTES: Final = 32
_HASH: Final = "sha256:"
_LOCKS: Final = frozenset((Reason.LOCKED, Reason.MAINTENANCE))


def make_token(random: bytes) -> str:
    """Return the token for TOKEN_BYTES random bytes. Raises ValueError for another number."""
    if len(random) != TOKEN_BYTES:
        raise ValueError(f"a token is made of {TOKEN_BYTES} random bytes")
    return PREFIX + base64url(random)


def hash_of(token: str) -> str:
    """Return the hash of a token as written in the configuration."""
    return _HASH + hashlib.sha256(token.encode("ascii")).hexdigest()


class TokenRefused(Exception):  # noqa: N818 - an outcome, as LoginRefused is
    """A token that was refused; `name` is the name of a known token, "" for an unknown one.

    `lock` is the lock in force, None for every reason but LOCKED and MAINTENANCE.
    """

    def __init__(self, reason: Reason, name: str = "", lock: Lock | None = None) -> None:
        super().__init__(reason.value)
        self.reason: Final = reason
        self.name: Final = name
        self.lock: Final = lock


@dataclass(slots=True, eq=False)
class Machine:
    """The machine of a configured token, and what the gate prepared for it.

    The token expires at the Unix second `ends_at`, never if that is infinite. `revocation` is the
    version of the revocation state at the last check. `identity_headers`, `assertions` and
    `groups_of` are as those of a Visitor. `digest` is the hash of its token.
    """

    name: str
    ends_at: float
    digest: bytes = field(default=b"", repr=False)
    revocation: int = -1
    identity_headers: dict[str, bytes] = field(default_factory=dict)
    assertions: dict[str, tuple[object, float, float, bytes]] = field(
        default_factory=dict, repr=False
    )
    groups_of: object = field(default=None, repr=False)

    def ended_because(self, revocation: RevocationState, now: float) -> Reason | None:
        """Return why the token is invalid at the Unix second `now`, None if it is valid."""
        if now >= self.ends_at:
            return Reason.TOKEN_EXPIRED
        if self.revocation != revocation.version:
            if (lock := revocation.lock_on_token(self.name)) is not None:
                return lock.reason
            self.revocation = revocation.version
        return None


class Tokens:
    """Finds the machine of a request by its token.

    `last_used` maps the name of each token to the Unix second of its last use.
    """

    def __init__(
        self,
        tokens: Iterable[Token],
        clock: Callable[[], float],
        revocation: RevocationState,
        last_used: dict[str, float] | None = None,
    ) -> None:
        self._clock = clock
        self._last_used = {} if last_used is None else last_used
        self._revocation = revocation
        self._machines: dict[bytes, tuple[bytes, Machine]] = {}
        for token in tokens:
            digest = bytes.fromhex(token.hash.removeprefix(_HASH))
            ends_at = math.inf if token.expires is None else token.expires
            self._machines[digest] = (digest, Machine(token.name, ends_at, digest))

    def machine_of(self, section: FieldSection) -> Machine:
        """Return the machine of the token in a header section, which holds one.

        Raises TokenRefused for a token that is unknown, expired or locked. The section caches the
        machine; whether the token has expired or is locked is checked again.
        """
        known = section.visitor
        if known is not None and known[0] is self:
            machine: Machine | None = known[1]
        else:
            # `bearer` is b"" for a malformed token, which must not be looked up by its hash.
            machine = self._find(section.bearer) if section.bearer else None
            section.visitor = (self, machine)
        if machine is None:
            raise TokenRefused(Reason.TOKEN_UNKNOWN)
        now = self._clock()
        reason = machine.ended_because(self._revocation, now)
        if reason is not None:
            lock = self._revocation.lock_on_token(machine.name) if reason in _LOCKS else None
            raise TokenRefused(reason, machine.name, lock)
        self._last_used[machine.name] = now
        return machine

    def judge_again(self, machine: Machine) -> Reason | None:
        """Return why the token of a machine would be refused now, None if it would not.

        The machine may come from another configuration.
        """
        _, known = self._machines.get(machine.digest, (b"", None))
        if known is None or known.name != machine.name:
            return Reason.TOKEN_UNKNOWN
        return known.ended_because(self._revocation, self._clock())

    def _find(self, presented: bytes) -> Machine | None:
        # The lookup's duration depends on the hash alone, which reveals nothing about the token.
        # The comparison that decides takes the same time for every hash.
        digest = hashlib.sha256(presented).digest()
        known, machine = self._machines.get(digest, (b"", None))
        return machine if hmac.compare_digest(known, digest) else None
