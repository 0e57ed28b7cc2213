"""Connections that are being opened: their PROXY header is read, or their TLS handshake runs.

They have limits of their own: in time, in number, and for each client. While there is no room,
further connections wait in the kernel's queue, and openings that take long are ended for them.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from tailchat_gate.observe.log import LOGGER_NAME, FaultLog
from tailchat_gate.proxy.client.protocol import ClientProtocol
from tailchat_gate.proxy.client.server import ClientServer
from tailchat_gate.request.proxy_header import (
    LONGEST_HEADER,
    ProxyHeaderError,
    read_proxy_header,
)
from tailchat_gate.serving.listening.tls import ServerTls

#: Openings that have taken this long are ended when another connection needs room.
SLOW_SECONDS: Final = 1.0
#: The most that are ended at a time. Ending one at a time would let a few silent clients slow down
#: all others, however many `limits.handshakes` allows.
_MOST_AT_ONCE: Final = 32
#: How long closing a TLS connection may take while its client reads; for a client that does not
#: read, proxy/client/closing.py ends it earlier.
SHUTDOWN_SECONDS: Final = 300.0
#: One client may have one in this many of all openings.
_CLIENT_PART: Final = 4

_log: Final = logging.getLogger(LOGGER_NAME)

MakeProtocol = Callable[[], ClientProtocol]


class OpeningTerms(NamedTuple):
    """The settings for openings: `most` at a time, each for at most `timeout` seconds.

    `connections` is the limit of TLS connections, opened or being opened.
    """

    tls: ServerTls | None
    most: int
    timeout: float
    connections: int


class OpeningWay(NamedTuple):
    """How a listener's connections begin: with a PROXY header, with TLS, or with both.

    `make` makes the protocol of a connection.
    """

    proxied: bool
    tls: bool
    make: MakeProtocol


class _NoRoomError(Exception):
    """The client that a PROXY header names has too many openings."""


class _Opening:
    """A connection that is being opened."""

    __slots__ = ("accepted", "ended", "peer", "protocol", "since", "who")

    def __init__(self, accepted: socket.socket, peer: str, who: str, since: float) -> None:
        self.accepted: Final = accepted
        self.peer: Final = peer
        self.who = who
        self.since: Final = since
        self.ended = False
        #: The protocol that serves the connection once it is open.
        self.protocol: ClientProtocol | None = None

    def end(self) -> None:
        """Shut the connection down, which makes its handshake fail."""
        self.ended = True
        with suppress(OSError):  # it may be closed already
            self.accepted.shutdown(socket.SHUT_RDWR)


class Openings:
    """Opens the connections of listeners with TLS or a PROXY header.

    `outcomes` counts them by outcome (tls.OUTCOMES).
    """

    def __init__(self, server: ClientServer, outcomes: Counter[str], terms: OpeningTerms) -> None:
        self._server = server
        self._outcomes = outcomes
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self._open: dict[asyncio.Task[str], _Opening] = {}
        self._clients: Counter[str] = Counter()
        self._faults = FaultLog(self._loop.time)
        server.tls_connections = terms.connections

    def __len__(self) -> int:
        return len(self._open)

    def use(self, terms: OpeningTerms) -> None:
        """Open connections by other terms; a TLS context of unchanged files stays in use."""
        old, new = self._terms.tls, terms.tls
        if old is not None and new is not None and old.digest == new.digest:
            terms = terms._replace(tls=old)
        self._terms = terms
        self._server.tls_connections = terms.connections

    def prepare(self, terms: OpeningTerms) -> None:
        """Use the certificates of `terms` if there are none yet, for listeners that open now."""
        if self._terms.tls is None:
            self._terms = self._terms._replace(tls=terms.tls)

    def has_room(self, way: OpeningWay) -> bool:
        """Whether another connection may be opened now."""
        return len(self._open) < self._terms.most and not self._is_full(way)

    def make_room(self, way: OpeningWay) -> None:
        """End connections to make room for one that waits; there is room once they have ended."""
        if self._is_full(way):
            if not self._server.close_idle_tls():
                details = {"limits.tls_connections": self._terms.connections}
                self._faults.tell(
                    "a TLS connection has to wait: limits.tls_connections is reached, and none of "
                    "them is idle",
                    details,
                )
            return
        for opening in tuple(islice(self._slow(), _MOST_AT_ONCE)):
            self._outcomes["crowded"] += 1
            opening.end()

    def take(self, accepted: socket.socket, peer: str, way: OpeningWay) -> None:
        """Open an accepted connection; `peer` is its address."""
        who = self._who(peer)
        opening = _Opening(accepted, peer, who, self._loop.time())
        # A listener that is closing passes on everything that waits, even without room.
        if self._is_full(way) or not self._enter(opening):
            self._outcomes["refused"] += 1
            accepted.close()
            return
        self._server.by_tls += way.tls
        task = self._loop.create_task(self._open_one(opening, way))
        self._open[task] = opening
        task.add_done_callback(lambda task: self._ended(task, way))

    async def close(self) -> None:
        """Wait a moment for the connections that are being opened, and end the rest."""
        if self._open:
            await asyncio.wait(tuple(self._open), timeout=SLOW_SECONDS)
        for opening in self._open.values():
            opening.end()
        if self._open:
            await asyncio.wait(tuple(self._open))

    def _slow(self) -> Iterator[_Opening]:
        """Yield the openings that take long and have not been ended, the oldest first."""
        since = self._loop.time() - SLOW_SECONDS
        for opening in self._open.values():
            if opening.since > since:
                return
            if not opening.ended:
                yield opening

    def _is_full(self, way: OpeningWay) -> bool:
        """Whether the limit of TLS connections is reached."""
        return way.tls and self._server.by_tls >= self._terms.connections

    def _has_too_many(self, who: str) -> bool:
        return bool(who) and self._clients[who] >= max(1, self._terms.most // _CLIENT_PART)

    def _enter(self, opening: _Opening) -> bool:
        if self._has_too_many(opening.who):
            return False
        if not self._server.descriptors.make_room():
            return False
        self._clients[opening.who] += 1
        self._server.descriptors.clients += 1
        return True

    def _ended(self, task: "asyncio.Task[str]", way: OpeningWay) -> None:
        opening = self._open.pop(task)
        # An opened connection stays counted until it is closed (ClientServer).
        if way.tls and (opening.protocol is None or not opening.protocol.secure):
            self._server.by_tls -= 1
        self._server.descriptors.clients -= 1
        self._leave(opening.who)
        # Counted last, so that an opening in the metrics no longer takes up room.
        if not task.cancelled():
            self._outcomes[task.result()] += 1

    def _leave(self, who: str) -> None:
        self._clients[who] -= 1
        if not self._clients[who]:
            del self._clients[who]

    def _who(self, address: str) -> str:
        """Return the key under which an address is counted, "" for a trusted proxy."""
        client = self._server.service.handler.direct(address)
        return client.network if client is not None else ""

    def _count_as(self, opening: _Opening, address: str) -> None:
        """Count an opening under the client that its PROXY header names. Raises _NoRoomError."""
        who = self._who(address)
        if self._has_too_many(who):
            raise _NoRoomError
        self._clients[who] += 1
        self._leave(opening.who)
        opening.who = who

    async def _open_one(self, opening: _Opening, way: OpeningWay) -> str:
        """Open a connection, or close it; return the outcome."""
        accepted, outcome = opening.accepted, "opened"
        end = self._loop.time() + self._terms.timeout
        try:
            await self._begin(opening, way, end)
        except _NoRoomError:
            outcome = "refused"
        except TimeoutError:
            outcome = "slow"
        except ProxyHeaderError as error:
            outcome = "no-proxy-header"
            details = {"peer": opening.peer, "problem": str(error)}
            self._faults.tell("a connection lacks the required PROXY header", details)
        except OSError:  # ssl.SSLError among them
            outcome = "failed" if self._loop.time() < end else "slow"
        except Exception:  # noqa: BLE001 - a fault of one connection must not end others
            outcome = "failed"
            _log.exception("a connection could not be opened")
        finally:
            if outcome != "opened":
                accepted.close()
        return outcome

    async def _begin(self, opening: _Opening, way: OpeningWay, end: float) -> None:
        accepted = opening.accepted
        address = await self._proxied(opening, end) if way.proxied else ""
        context, left = self._context(way), end - self._loop.time()
        if address and context is not None:  # without TLS the opening ends here
            self._count_as(opening, address)

        def make() -> ClientProtocol:
            protocol = way.make()
            protocol.named_peer = address
            opening.protocol = protocol
            return protocol

        if context is None:
            await self._loop.connect_accepted_socket(make, accepted)
            return
        if left <= 0:
            raise TimeoutError
        await self._loop.connect_accepted_socket(
            make,
            accepted,
            ssl=context,
            ssl_handshake_timeout=left,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )

    def _context(self, way: OpeningWay) -> ssl.SSLContext | None:
        if not way.tls:
            return None
        if self._terms.tls is None:
            raise ConnectionAbortedError  # a listener that is about to be closed
        return self._terms.tls.context

    async def _proxied(self, opening: _Opening, end: float) -> str:
        """Read the PROXY header of a connection, and nothing after it; return the client's address.

        The address is "" if the proxy opened the connection for itself. Raises ProxyHeaderError,
        TimeoutError and OSError.
        """
        if self._server.service.handler.direct(opening.peer) is not None:
            raise ProxyHeaderError("the peer is not in server.trusted_proxies")
        accepted = opening.accepted
        data = b""
        async with asyncio.timeout_at(end):
            while True:
                await _readable(self._loop, accepted)
                seen = data + accepted.recv(LONGEST_HEADER - len(data), socket.MSG_PEEK)
                if len(seen) == len(data):
                    raise ConnectionAbortedError
                header, size = read_proxy_header(seen)
                data += accepted.recv(size - len(data))
                if header is not None:
                    return header.address


async def _readable(loop: asyncio.AbstractEventLoop, accepted: socket.socket) -> None:
    """Wait until a socket has bytes or EOF."""
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(accepted, tell)
    try:
        await ready
    finally:
        loop.remove_reader(accepted)
