"""A process on a store: reserves keys, and says what others noted.

    reserving_process.py DIRECTORY COUNT FIRST

It prints "ready"; after a line on standard input it reserves COUNT keys, begun at the FIRST, prints
how many it was granted, and then each key that another process notes.
"""

import asyncio
import sys
import time
from pathlib import Path

from statekit import Notes

from tailchat_gate.state.bookkeeping import Health
from tailchat_gate.state.sqlite.store import SqliteStore
from tailchat_gate.state.store import Changes, ReservationStatus


def _say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


class _Told(Notes):
    """Prints each key once it is known here."""

    def take(self, changes: Changes) -> None:
        """Print what was read."""
        super().take(changes)
        for record in changes.records:
            _say(record.key)


async def _run(directory: Path, count: int, first: int) -> None:
    store = SqliteStore(directory, time.time, Health())
    store.follow(_Told())
    await store.open()
    store.start()
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    until = time.time() + 7200
    keys = [str((first + number) % count) for number in range(count)]
    found = [await store.reserve("login", key, until=until, room=10_000) for key in keys]
    _say(sum(reservation.status is ReservationStatus.GRANTED for reservation in found))
    await asyncio.to_thread(sys.stdin.readline)
    await store.close()


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
