"""An upstream that reads with the reader of fuzz/reference, and a client that sends in pieces."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from gatekit import LoopbackServer, RawClient, until

from fuzz.reference import reply as responses
from fuzz.reference import request as requests
from fuzz.reference.reply import Response
from fuzz.reference.request import Bounds, Request
from fuzz.reference.syntax import BadError
from tailchat_gate.config.model import Settings

#: Larger than any request that a gate or nginx passes on in a test.
NO_BOUNDS = Bounds(1 << 20, 1 << 20, 1 << 12, 1 << 20, empty_host=True)


def bounds_of(settings: Settings) -> Bounds:
    """Return the limits of a gate, for the reader of fuzz/reference."""
    limits = settings.limits
    return Bounds(
        limits.target_bytes, limits.header_bytes, limits.header_count, limits.cookie_bytes
    )


@dataclass(eq=False)
class Arrived:
    """The requests on one connection: complete ones, and the bytes of an incomplete one.

    `unreadable`: the bytes are no request, or could be read in two ways. `ended`: the other side
    has left.
    """

    whole: list[Request] = field(default_factory=list)
    rest: bytes = b""
    unreadable: bool = False
    ended: bool = False

    @property
    def begun(self) -> Request | None:
        """The part of the incomplete request that has arrived, None for none."""
        try:
            return requests.request(self.rest, NO_BOUNDS) if self.rest else None
        except BadError:
            return None


@dataclass
class StrictUpstream(LoopbackServer):
    """An upstream that answers each complete request with the request's target."""

    connections: list[Arrived] = field(default_factory=list)
    #: The complete requests of all connections, in the order of their completion.
    whole: list[Request] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Its port on loopback."""
        assert self._server is not None
        found = self._server.sockets[0].getsockname()[1]
        assert isinstance(found, int)
        return found

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def begun(self) -> list[Request]:
        """The incomplete requests of all connections."""
        return [one.begun for one in self.connections if one.begun is not None]

    @property
    def unreadable(self) -> bool:
        """Whether a connection got bytes that are no request."""
        return any(one.unreadable for one in self.connections)

    async def forget(self) -> None:
        """Forget all requests, once none is incomplete on an open connection."""
        await until(lambda: all(one.ended or not one.rest for one in self.connections))
        self.connections = [one for one in self.connections if not one.ended]
        self.whole.clear()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As in the base class."""
        arrived = Arrived()
        self.connections.append(arrived)
        try:
            while data := await reader.read(65_536):
                arrived.rest += data
                self._answer(arrived, writer)
                await writer.drain()
        finally:
            arrived.ended = True

    def _answer(self, arrived: Arrived, writer: asyncio.StreamWriter) -> None:
        try:
            while found := requests.request(arrived.rest, NO_BOUNDS):
                if not found.complete:
                    return
                arrived.rest = arrived.rest[found.size :]
                arrived.whole.append(found)
                self.whole.append(found)
                writer.write(_answer_to(found))
                if not requests.stays(found):
                    writer.close()
        except BadError:
            arrived.unreadable = True
            writer.close()


def _answer_to(request: Request) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.target)
    return head + (b"" if request.method == b"HEAD" else request.target)


@dataclass
class Answered:
    """The responses that a client got; `ended`: the other side closed the connection."""

    responses: list[Response]
    ended: bool

    @property
    def statuses(self) -> list[int]:
        """The statuses of the responses, in order."""
        return [one.head.status for one in self.responses if one.head is not None]


async def converse(
    port: int, pieces: Iterable[bytes], methods: list[bytes], *, to_end: bool, seconds: float = 15.0
) -> Answered:
    """Send pieces, so that each is read by itself, and return the responses.

    `methods` are those of the requests in the pieces. Waits for a response to each, or for the end
    of the connection; with `to_end` only for the end. Raises TimeoutError if neither comes.
    """
    data, ended = b"", False
    async with RawClient.connect(port) as client, asyncio.timeout(seconds):
        for piece in pieces:
            client.send(piece)
            await _turns()
        while not ended and (to_end or len(_responses(data, methods)) < len(methods)):
            try:
                more = await client.reader.read(65_536)
            except ConnectionError:
                more = b""
            ended = not more
            data += more
        # Bytes that the gate should not have passed on may still be on their way.
        await _turns()
    return Answered(_responses(data, methods), ended=ended)


async def _turns() -> None:
    """Let this loop, which is also the gate's, read the bytes that have arrived."""
    for _ in range(3):
        await asyncio.sleep(0)


def _responses(data: bytes, methods: list[bytes]) -> list[Response]:
    """Return the complete responses in `data`. Raises BadError for a malformed one."""
    found = []
    # One more than there are requests: bytes that are no request get a response too.
    for method in (*methods, b"GET"):
        if not data:
            break
        one = responses.read(data, is_head=method == b"HEAD")
        if not one.complete:
            break
        found.append(one)
        data = one.rest
    return found
