"""A request whose body is stored until it is complete, then sent upstream with a length."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.proxy.client.flow_control import UPSTREAM_FULL
from tailchat_gate.proxy.exchange.exchange import Exchange
from tailchat_gate.proxy.exchange.forward_request import ForwardRequest, UpstreamSettings
from tailchat_gate.proxy.exchange.steps import run
from tailchat_gate.proxy.exchange.stored_body import BodyStore, StoredBody
from tailchat_gate.proxy.exchange.subclassed import mypyc_attr
from tailchat_gate.proxy.message.request_headers import with_length
from tailchat_gate.proxy.upstream.connection import UpstreamConnection
from tailchat_gate.proxy.upstream.interfaces import NO_DESCRIPTOR, End, ExchangeResult
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.fields import RawFields

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class MakeExchange(Protocol):
    """Makes an exchange, with the arguments of Exchange."""

    def __call__(
        self,
        client: ClientConnection,
        context: RequestContext,
        forward_request: ForwardRequest,
        settings: UpstreamSettings,
        ended: Callable[[ClientConnection, Exchange], None],
        /,
    ) -> Exchange:
        """Return a new exchange."""


def exchange_for(
    store: BodyStore,
    most: int,
    client: ClientConnection,
    context: RequestContext,
    forward_request: ForwardRequest,
    settings: UpstreamSettings,
    ended: Callable[[ClientConnection, Exchange], None],
) -> Exchange:
    """Return the exchange of a route that stores bodies, up to `most` bytes of each in memory."""
    if forward_request.body is None:
        return Exchange(client, context, forward_request, settings, ended)
    stored = StoredBody(store, most)
    return BufferedExchange(
        client, context, forward_request, settings, partial(discarded, stored, ended), stored
    )


def discarded(
    stored: StoredBody,
    ended: Callable[[ClientConnection, Exchange], None],
    client: ClientConnection,
    exchange: Exchange,
) -> None:
    """End an exchange, and discard its stored body."""
    try:
        stored.discard()
    finally:
        ended(client, exchange)


@mypyc_attr(allow_interpreted_subclasses=True)
class BufferedExchange(Exchange):
    """An exchange that takes an upstream connection once its request's body is complete.

    The stored body can be sent again from its start, and a slow upstream never pauses the client.
    """

    __slots__ = ("_has_come", "_room", "_stored", "_task", "_unsaved")

    def __init__(
        self,
        client: ClientConnection,
        context: RequestContext,
        forward_request: ForwardRequest,
        settings: UpstreamSettings,
        ended: Callable[[ClientConnection, Exchange], None],
        stored: StoredBody,
    ) -> None:
        super().__init__(client, context, forward_request, settings, ended)
        self._stored = stored
        #: Content that waits to be written to the body's file.
        self._unsaved: list[bytes] = []
        #: Whether the client has sent the whole body.
        self._has_come = False
        #: The task that writes the file, and later the one that sends the body.
        self._task: asyncio.Task[None] | None = None
        #: Set while the upstream's write buffer has room.
        self._room: Final = asyncio.Event()

    def start(self, now: float) -> None:  # noqa: ARG002 - it begins with the whole body
        """Ask the client for its body if it waits for 100 (Continue)."""
        request = self.forward_request.request
        if request.fields.expects_continue and not request.http10:
            self._client.write(_CONTINUE)

    def body(self, content: bytes) -> None:
        """Store content of the body; reading from the client pauses while a file is written."""
        self.context.received_bytes += len(content)
        if self._task is None and self._stored.keep(content):
            return
        self._unsaved.append(content)
        self._save()

    def body_complete(self, trailers: RawFields) -> None:  # noqa: ARG002 - a length has none
        """The body is complete: contact the upstream as soon as all of it is stored."""
        self._has_come = True
        self.keep_alive = self.forward_request.request.keep_alive and not self._client.leaving
        if self._stored.unsaved:
            self._save()
        if self._task is None:
            self._begin()

    def upstream_full(self, *, full: bool) -> None:
        """Pause sending the body while the upstream's write buffer is full."""
        if full:
            self._room.clear()
        else:
            self._room.set()

    def ended(self, end: End, result: ExchangeResult) -> None:
        """Stop sending the body, then end like any exchange."""
        self._stop()
        super().ended(end, result)

    def _drop(self) -> None:
        self._stop()
        super()._drop()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # Storing the body.

    def _save(self) -> None:
        if self._task is None:
            self._client.hold(UPSTREAM_FULL)
            self._task = run(self._saved(), self.context, self._failed)

    async def _saved(self) -> None:
        stored = self._stored
        try:
            while self._unsaved or stored.unsaved:
                content, self._unsaved = b"".join(self._unsaved), []
                await stored.save(content)
        except OSError as error:
            self._fail_body(error)
            return
        self._task = None
        self._client.release(UPSTREAM_FULL)
        if self._has_come:
            self._begin()

    def _fail_body(self, error: OSError) -> None:
        self._task = None
        if error.errno in NO_DESCRIPTOR:
            reason = Reason.GATE_BUSY
        else:
            reason = Reason.BODY_NOT_STORED
            self._stored.tell(error)
        self.body_failed(RefusedError("a body that cannot be stored", reason))

    # Sending the body.

    def _begin(self) -> None:
        stored = self._stored
        data = with_length(self.forward_request.data, stored.size) + stored.start
        self.forward_request = self.forward_request.stored(data)
        # `start` chooses a connection by it; `_send` then sets it for the upstream.
        self._whole = True
        self.context.upstream_at = time.monotonic()
        super().start(self.context.upstream_at)

    def _send(self, upstream: UpstreamConnection) -> None:
        sent = len(self._stored.start)
        self._whole = sent == self._stored.size
        self._room.set()
        super()._send(upstream)
        if not self._whole:
            self._task = run(self._send_rest(upstream, sent), self.context, self._failed)

    async def _send_rest(self, upstream: UpstreamConnection, offset: int) -> None:
        stored, size = self._stored, self._stored.size
        try:
            while offset < size:
                await self._room.wait()
                piece = await stored.read(offset)
                upstream.write(piece)
                offset += len(piece)
        except OSError as error:
            self._fail_body(error)
            return
        self._task = None
        self._whole = True
        upstream.request_sent()
