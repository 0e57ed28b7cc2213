"""Batches concurrent writes into one transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from tailchat_gate.state.store import Record


class _Batch:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.done: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()


class Batches:
    """Writes records one batch after another; `write` raises no expected error."""

    def __init__(self, write: Callable[[Sequence[Record]], Awaitable[None]]) -> None:
        self._write = write
        self._next: _Batch | None = None
        self._writing: asyncio.Task[None] | None = None

    def put(self, records: Iterable[Record]) -> Awaitable[None]:
        """Add records to the next batch; the result is done once that batch is written."""
        if self._next is None:
            self._next = _Batch()
        batch = self._next
        batch.records.extend(records)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        # One caller that stops waiting must not cancel the others.
        return asyncio.shield(batch.done)

    async def written(self) -> None:
        """Wait until every batch has been written."""
        while self._writing is not None and not self._writing.done():
            await asyncio.wait((self._writing,))

    async def _write_all(self) -> None:
        while self._next is not None:
            batch, self._next = self._next, None
            try:
                await self._write(batch.records)
            finally:
                batch.done.set_result(None)
