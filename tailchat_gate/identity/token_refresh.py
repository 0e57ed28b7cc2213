"""Refreshes a session's tokens, so that only one process at a time uses a refresh token."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from tailchat_gate.identity.oauth.client import TailchatClient
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.responses import TokenSet
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.stored import SessionVault
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import Outcome, Reservation, ReservationStatus, Store
from tailchat_gate.state.waiting import SharedKeys
from tailchat_gate.syntax import COMPACT

#: The kind of these reservations, and how many are stored: one for each session and hour.
REFRESH: Final = "refresh"
ROOM: Final = 100_000
#: Seconds for which a use and its outcome are stored; by then the stored session has the tokens.
KEPT_SECONDS: Final = 3600.0
#: Seconds after which a process that has not stored its outcome is dead or cut off; a call takes
#: ten at most.
OWNER_SECONDS: Final = 20.0
#: Seconds after which its call counts as lost; until then the process may still write the outcome.
LOST_SECONDS: Final = 60.0
#: Seconds from the sign-in during which Tailchat surely returns the same refresh token. Tailchat
#: replaces it after 9.8 of its 14 days, and ends the grant if the replaced one comes again.
REUSED_SECONDS: Final = 7 * 86_400.0
#: Processes that may die, one after the other, in the middle of one refresh.
_ATTEMPTS: Final = 4

#: Refusals of calls that did not reach Tailchat, or that it did not carry out.
_UNSPENT: Final = frozenset(
    (
        *(Reason.TAILCHAT_DOWN, Reason.TAILCHAT_UNTRUSTED, Reason.TAILCHAT_BUSY),
        Reason.GATE_NOT_ACCEPTED,
    )
)
_WITHDRAWN: Final = b"-"


def is_reusable(record: SessionRecord, now: float) -> bool:
    """Whether Tailchat accepts a session's refresh token again after its use."""
    return now - record.signed_in_at < REUSED_SECONDS


class RefreshTokens:
    """Uses refresh tokens, each one once among all processes that share a store.

    `keys` seal the outcome for the other processes. `vault` has the newest tokens of sessions.
    `clock` returns Unix seconds.

    While another process refreshes a session, this one waits for the outcome and takes it over. If
    no outcome comes, nobody knows whether the token is spent. A young token is then used again,
    because Tailchat returns the same one. An old token is never used again: the session ends.
    """

    def __init__(
        self,
        tailchat: TailchatClient,
        store: Store,
        *,
        keys: KeyRing,
        vault: SessionVault,
        clock: Callable[[], float],
    ) -> None:
        self._tailchat = tailchat
        self._uses = SharedKeys(store, REFRESH, ROOM, OWNER_SECONDS, clock)
        self._keys = keys
        self.vault: Final = vault
        self._clock = clock

    async def refreshed(self, record: SessionRecord) -> SessionRecord:
        """Return the session with newer tokens. Raises LoginRefused.

        Its reason is SESSION_REVOKED if the grant has ended or the refresh token is lost.
        """
        for attempt in range(_ATTEMPTS):
            if (newer := self._newer(record)) is not None:
                return newer
            key = _key(record, attempt)
            reservation = await self._uses.reserve(key, self._clock() + KEPT_SECONDS)
            if reservation.status is ReservationStatus.GRANTED:
                return await self._use(key, record)
            if reservation.status is not ReservationStatus.TAKEN:
                return await self._use_alone(key, record)
            if reservation.outcome is not None:
                return self._taken_over(record, reservation.outcome)
            self._give_up(record, reservation)
        raise _lost()

    def _newer(self, record: SessionRecord) -> SessionRecord | None:
        """Return the session with newer tokens if another process has stored them."""
        stored = self.vault.find(record.sid)
        if stored is None or not stored.has_newer_tokens(record):
            return None
        return record.with_tokens_of(stored)

    def _give_up(self, record: SessionRecord, reservation: Reservation) -> None:
        """Raise LoginRefused unless a token whose use has no known outcome may be used again."""
        if is_reusable(record, self._clock()):
            return
        if self._clock() - reservation.reserved_at < LOST_SECONDS:
            problem = "another process is refreshing the session and has not stored the outcome yet"
            raise LoginRefused(Reason.RECHECK_FAILED, {"call": "refresh", "problem": problem})
        raise _lost()

    async def _use_alone(self, key: str, record: SessionRecord) -> SessionRecord:
        """Use a token although the store cannot tell the other processes about it."""
        if is_reusable(record, self._clock()):
            return await self._use(key, record)
        await self._uses.release(key)
        problem = (
            "the state store does not answer, and another process may use the same refresh token"
        )
        raise LoginRefused(Reason.RECHECK_FAILED, {"call": "refresh", "problem": problem})

    async def _use(self, key: str, record: SessionRecord) -> SessionRecord:
        try:
            tokens = await self._tailchat.refresh(record.refresh_token)
        except LoginRefused as refused:
            await self._refused(key, record, refused.reason)
            raise
        newest = record.with_tokens(tokens)
        # First of all, because a process that ends still writes what was saved.
        self.vault.save(newest)
        await self._settle(key, record.sub, b"+" + _dump(tokens))
        return newest

    async def _refused(self, key: str, record: SessionRecord, reason: Reason) -> None:
        if reason is Reason.SESSION_REVOKED:
            await self._settle(key, record.sub, _WITHDRAWN)
        elif reason in _UNSPENT or is_reusable(record, self._clock()):
            await self._uses.release(key)

    async def _settle(self, key: str, sub: str, data: bytes) -> None:
        sealed = self._keys.seal(data).encode("ascii")
        outcome = Outcome(sealed, self._clock() + KEPT_SECONDS, spent=False, sub=sub)
        await self._uses.settle(key, outcome)

    def _taken_over(self, record: SessionRecord, sealed: bytes) -> SessionRecord:
        data = self._keys.open(sealed.decode("latin-1"))
        if data is None:
            raise _lost()
        if data == _WITHDRAWN:
            raise LoginRefused(Reason.SESSION_REVOKED, {"call": "refresh"})
        return record.with_tokens(_load(data[1:]))


def _key(record: SessionRecord, attempt: int) -> str:
    """Return the key of one use; a refresh token is the same for several access tokens."""
    used = f"{record.refresh_token} {record.access_token} {attempt}"
    return sha256(used.encode()).hexdigest()


def _dump(tokens: TokenSet) -> bytes:
    fields = (tokens.access_token, tokens.refresh_token, tokens.expires_at)
    return json.dumps(fields, separators=COMPACT).encode()


def _load(data: bytes) -> TokenSet:
    access, refresh, expires_at = json.loads(data)
    return TokenSet(access, refresh_token=refresh, expires_at=expires_at)


def _lost() -> LoginRefused:
    problem = "Tailchat's answer to the session's refresh token is lost"
    return LoginRefused(Reason.SESSION_REVOKED, {"call": "refresh", "problem": problem})
