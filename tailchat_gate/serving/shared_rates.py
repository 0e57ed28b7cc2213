"""The buckets of rate limits, which several gates share through a store.

A request only looks at the buckets of its own process, so it never waits for the store. A few times
a second each gate adds its requests to the store's buckets and reads the totals. If the gates
together let too many requests through meanwhile, later requests are delayed for it, so the limit
holds over time.

While the store does not answer, each gate counts for itself.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from tailchat_gate.access.rates import NAMES, Bucket, Buckets
from tailchat_gate.observe.families import Collected, by_one
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.serving.process_gauges import RATE_LIMITED, RATES_SHARED
from tailchat_gate.state.store import Changes, Charge, Kind, Record, Store

#: Seconds between two exchanges with the store.
SHARE_SECONDS: Final = 0.25
#: Buckets in one call, for which redis-py blocks the event loop for half a millisecond.
_BATCH: Final = 100

_log: Final = logging.getLogger(LOGGER_NAME)


class SharedRates:
    """The buckets of one process, shared if the store is a server.

    `clock` is the one that requests use. Buckets are not stored as records; this follows the store
    only to learn whose data are to be erased.
    """

    kind: Final = Kind("rate", 0, lambda records: records)

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.buckets: Final = Buckets()
        self._charge = store.charge
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        #: Whether the store answered at the last exchange.
        self._answered = True
        if self._charge is not None:
            self.buckets.changed = []
        store.follow(self)

    def take(self, changes: Changes) -> None:
        """Do nothing: there are no records."""

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return nothing."""
        del lost
        return ()

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return nothing."""
        del last
        return ()

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget the buckets of a person."""
        del in_force
        self.buckets.forget(sub)

    def metrics(self) -> Iterator[Collected]:
        """Yield the metrics of rate limits."""
        yield RATE_LIMITED, by_one(self.buckets.refused, NAMES)
        yield RATES_SHARED, () if self._charge is None else (((), self._answered),)

    def start(self) -> None:
        """Begin to share; needs a running event loop. Idempotent."""
        if self._charge is not None and self._task is None:
            self._task = asyncio.create_task(self._share_all())

    async def close(self) -> None:
        """Stop sharing, after a last exchange with the store."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
            await self._share()

    async def _share_all(self) -> None:
        while True:
            await asyncio.sleep(SHARE_SECONDS)
            try:
                await self._share()
            except Exception:  # noqa: BLE001 - a fault here must not stop the sharing
                _log.exception("the counts of rate limits could not be shared")

    async def _share(self) -> None:
        changed = self.buckets.changed
        if self._charge is None or changed is None or (not changed and self._answered):
            return
        self.buckets.changed = []
        # At least one call, even without a bucket: it shows whether a store that was down is back.
        for start in range(0, max(len(changed), 1), _BATCH):
            batch = changed[start : start + _BATCH]
            charges = [
                Charge(bucket.key, bucket.taken * bucket.limit.interval, bucket.stranger)
                for bucket in batch
            ]
            for bucket in batch:
                bucket.taken = 0
            answer = await self._charge(charges)
            self._tell(answered=answer is not None)
            self._take_over(batch, answer or ())

    def _take_over(self, batch: Sequence[Bucket], answer: Sequence[float]) -> None:
        now = self._clock()
        for bucket, ahead in zip(batch, answer, strict=False):
            # Requests that passed here during the call are not in the store's total yet.
            due = now + ahead + bucket.taken * bucket.limit.interval
            bucket.due = max(bucket.due, due)

    def _tell(self, *, answered: bool) -> None:
        if answered == self._answered:
            return
        self._answered = answered
        if answered:
            _log.info("rate limits count the requests of all gates again")
        else:
            _log.warning(
                "the state store does not answer: rate limits count the requests of this gate alone"
            )
