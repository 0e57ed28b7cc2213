"""Limits how many logins call Tailchat at a time; the others wait, and clients take turns."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.reasons import Reason
from tailchat_gate.request.client import SITE_BITS, network_of

#: The most logins that call Tailchat at a time.
AT_ONCE: Final = 32
#: The most of them from one client.
OF_ONE: Final = 8
#: How many of them are reserved for clients that have none, so that a few clients cannot take all.
FOR_FIRST: Final = 8
#: The most logins that wait for their turn.
WAITING: Final = 2000
#: The most of them from one client, which may be a whole office with one address.
WAITING_OF_ONE: Final = 100
#: Seconds that a login waits for its turn.
WAITING_SECONDS: Final = 30.0
#: Seconds after which a refused visitor may try again.
RETRY_SECONDS: Final = 10


class LoginBusy(LoginRefused):
    """Too many logins, of this client or of all; nothing was sent for this one."""

    def __init__(self) -> None:
        super().__init__(Reason.LOGIN_BUSY, {"retry_after": str(RETRY_SECONDS)})


class LoginQueue:
    """The logins that call Tailchat and those that wait, in one event loop.

    Clients take turns, however many logins each has waiting. All networks of a site (SITE_BITS)
    count as one client. If the queue is full, the client with the most waiting logins loses one.
    """

    def __init__(self) -> None:
        #: How many queues share the limits.
        self._count = 1
        self._asking: Counter[str] = Counter()
        #: Waiting logins by site; the first site has the next turn.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def share(self, count: int) -> None:
        """Take this queue's part of the limits, which `count` queues share."""
        self._count = count

    def _part(self, limit: int) -> int:
        return -(-limit // self._count)

    @property
    def asking(self) -> int:
        """How many logins call Tailchat now."""
        return self._asking.total()

    @property
    def waiting(self) -> int:
        """How many logins wait."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, network: str) -> AsyncIterator[None]:
        """Wait for the turn of a client (ClientAddress.network), and hold it. Raises LoginBusy."""
        site = network_of(network, SITE_BITS)
        if not self._may_ask(site) or self._waiting:
            await self._wait(site)
        else:
            self._asking[site] += 1
        try:
            yield
        finally:
            self._asking[site] -= 1
            if not self._asking[site]:
                del self._asking[site]
            self._next()

    def _may_ask(self, site: str) -> bool:
        asking, own = self.asking, self._asking[site]
        most = self._part(AT_ONCE - FOR_FIRST if own else AT_ONCE)
        return own < self._part(OF_ONE) and asking < most

    async def _wait(self, site: str) -> None:
        line = self._waiting.setdefault(site, deque())
        try:
            if len(line) >= WAITING_OF_ONE:
                raise LoginBusy
            if self.waiting >= WAITING:
                self._make_room(len(line))
            turn = asyncio.get_running_loop().create_future()
            line.append(turn)
            self._next()
            await self._take_turn(turn, site)
        finally:
            if not line and self._waiting.get(site) is line:
                del self._waiting[site]

    def _make_room(self, own: int) -> None:
        """Refuse the last waiting login of the longest line; the new client has `own` waiting."""
        longest = max(self._waiting.values(), key=len)
        if len(longest) <= own + 1:
            raise LoginBusy
        longest.pop().set_exception(LoginBusy())

    async def _take_turn(self, turn: "asyncio.Future[None]", site: str) -> None:
        try:
            async with asyncio.timeout(WAITING_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # The turn came at the moment the login gave up.
                self._asking[site] -= 1
                self._next()
            elif turn in self._waiting.get(site, ()):
                self._waiting[site].remove(turn)
            if isinstance(error, TimeoutError):
                raise LoginBusy from None
            raise

    def _next(self) -> None:
        """Give free turns to the next clients."""
        for site in list(self._waiting):
            if self.asking >= self._part(AT_ONCE):
                return
            if not self._may_ask(site):
                continue
            line = self._waiting.pop(site)
            while line and line[0].done():
                line.popleft()
            if not line:
                continue
            self._asking[site] += 1
            line.popleft().set_result(None)
            if line:
                self._waiting[site] = line
