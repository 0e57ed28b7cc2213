"""A worker's questions to the others, over its parent."""

import asyncio
from collections import Counter
from collections.abc import Mapping

from tailchat_gate.serving.workers.channel import Channel, Message


class Wants:
    """What is wanted and has not come yet, by number; so many of a kind at a time are in `most`."""

    def __init__(self, most: Mapping[str, int]) -> None:
        self._most = most
        self._open: Counter[str] = Counter()
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._last = 0
        self.channel: Channel | None = None

    async def get(self, kind: str, within: float, **given: object) -> object:
        """Return the others' answer, None for none in time or for too many questions at once."""
        if self.channel is None or self._open[kind] >= self._most[kind]:
            return None
        self._last += 1
        number = self._last
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._open[kind] += 1
        self.channel.send({"want": number, "kind": kind, **given})
        try:
            async with asyncio.timeout(within):
                return await waiting
        except TimeoutError:
            return None
        finally:
            self._open[kind] -= 1
            del self._waiting[number]

    def hear(self, message: Message) -> None:
        """Take what has come."""
        waiting = self._waiting.get(message["got"])
        if waiting is not None and not waiting.done():
            waiting.set_result(message["found"])
