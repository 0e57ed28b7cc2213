"""Redeemed logins that other processes, and a restart, must know."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import ClaimStatus, Outcome, Store

#: Seconds that a process waits for another one that is redeeming the same login.
PATIENCE: Final = 10.0
_LOOK_SECONDS: Final = 0.25

T = TypeVar("T")


class Codec(NamedTuple, Generic[T]):
    """How a result is stored: sealed with `keys`, because it may hold tokens.

    `subject` returns the sub of the person in a result.
    """

    keys: KeyRing
    dump: Callable[[T], bytes]
    load: Callable[[bytes], T | None]
    subject: Callable[[T], str]


@dataclass(frozen=True, slots=True)
class Redeemed(Generic[T]):
    """A login that was redeemed before, with its result or the reason of its refusal.

    Both are absent once the outcome is no longer stored.
    """

    result: T | None = None
    reason: Reason | None = None
    detail: Mapping[str, str] | None = None


class Unclaimed(NamedTuple):
    """A login that this process may redeem; `full`: no more logins can be remembered."""

    full: bool = False


class SharedClaims:
    """Claims logins in a store, under their own kind; `clock` gives Unix seconds."""

    def __init__(self, store: Store, kind: str, room: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._kind = kind
        self._room = room
        self._clock = clock

    async def claim(
        self, key: str, until: float, codec: Codec[T] | None
    ) -> Redeemed[T] | Unclaimed:
        """Claim a login; if it was claimed before, return its outcome.

        A store that cannot be written refuses nobody: the process knows what it redeemed itself.
        """
        claim = await self._store.claim(self._kind, key, until=until, room=self._room)
        while claim.status is ClaimStatus.TAKEN and claim.outcome is None:
            if not 0 <= self._clock() - claim.claimed_at < PATIENCE:
                break
            # Another process is redeeming it.
            await asyncio.sleep(_LOOK_SECONDS)
            claim = await self._store.find_claim(self._kind, key)
            if claim.status is ClaimStatus.GRANTED:
                # The other process released it.
                claim = await self._store.claim(self._kind, key, until=until, room=self._room)
        if claim.status is ClaimStatus.TAKEN:
            return _read(claim.outcome, codec)
        return Unclaimed(full=claim.status is ClaimStatus.FULL)

    async def settle(
        self,
        key: str,
        redeemed: Redeemed[T],
        codec: Codec[T] | None,
        *,
        until: float,
        spent: bool,
    ) -> None:
        """Store the outcome of a login until a Unix second, for repeated callbacks."""
        if codec is None:
            await self._store.settle(self._kind, key, Outcome(spent=spent))
            return
        subject = "" if redeemed.result is None else codec.subject(redeemed.result)
        outcome = Outcome(_write(redeemed, codec), until, spent, subject)
        await self._store.settle(self._kind, key, outcome)

    async def release(self, key: str) -> None:
        """Release a login, because its code was not sent."""
        await self._store.release(self._kind, key)


def _write(redeemed: Redeemed[T], codec: Codec[T]) -> bytes:
    if redeemed.result is not None:
        body = b"+" + codec.dump(redeemed.result)
    else:
        body = b"-" + json.dumps([redeemed.reason, redeemed.detail]).encode()
    return codec.keys.seal(body).encode()


def _read(sealed: bytes | None, codec: Codec[T] | None) -> Redeemed[T]:
    """Return the stored outcome, without its data if the sealing key is gone."""
    body = None if sealed is None or codec is None else codec.keys.open(sealed.decode("ascii"))
    if not body or codec is None:
        return Redeemed()
    if body[:1] == b"+":
        return Redeemed(codec.load(body[1:]))
    reason, detail = json.loads(body[1:])
    return Redeemed(reason=Reason(reason), detail=detail)
