"""The buckets of rate limits, which other gates share through their store, a few times a second.

A request asks only the memory of its process, and so never waits for the store. Each gate tells the
store what passed there since the last time, and learns what passed at all of them. What several
gates let through meanwhile delays the requests after it: over time no more pass than the limit
says.

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
#: Buckets in one call, which redis-py takes half a millisecond of the event loop to write.
_BATCH: Final = 100

_log: Final = logging.getLogger(LOGGER_NAME)


class SharedRates:
    """The buckets of one process; they are its own where the store is not other gates' too.

    `clock` is the one of the requests. It follows the store only to hear whose data were erased:
    there are no records of buckets.
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
        """Yield the families."""
        yield RATE_LIMITED, by_one(self.buckets.refused, NAMES)
        yield RATES_SHARED, () if self._charge is None else (((), self._answered),)

    def start(self) -> None:
        """Begin to share; needs a running event loop. Idempotent."""
        if self._charge is not None and self._task is None:
            self._task = asyncio.create_task(self._share_all())

    async def close(self) -> None:
        """Stop, and tell the store what passed last if it answers."""
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
        # At least once: without a bucket too, a store that was away is asked whether it is back.
        for start in range(0, max(len(changed), 1), _BATCH):
            batch = changed[start : start + _BATCH]
            charges = [
                Charge(one.key, one.taken * one.limit.interval, one.stranger) for one in batch
            ]
            for bucket in batch:
                bucket.taken = 0
            found = await self._charge(charges)
            self._tell(answered=found is not None)
            self._take_over(batch, found or ())

    def _take_over(self, batch: Sequence[Bucket], found: Sequence[float]) -> None:
        now = self._clock()
        for bucket, ahead in zip(batch, found, strict=False):
            # What passed here during the call comes on top.
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
