"""A request that is held, unread behind its head, until the gate knows how to answer it."""

import asyncio
from collections.abc import Callable

from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext


class PendingRequest:
    """The work of a client's connection while its request is held."""

    __slots__ = ("_client", "_context", "_gone", "_is_over")

    def __init__(
        self,
        client: ClientConnection,
        context: RequestContext,
        settled: "asyncio.Future[None]",
        gone: Callable[[RequestContext], None],
    ) -> None:
        """Hold the request of a visit until `settled` is done; then it is answered.

        `gone` hears that the client has left before.
        """
        self._client = client
        self._context = context
        self._gone = gone
        self._is_over = False
        client.begin(self, unread=context.head.fields.has_body)
        settled.add_done_callback(self._settled)

    def _settled(self, _: "asyncio.Future[None]") -> None:
        if not self._is_over:
            self._is_over = True
            self._client.resume(self._context)

    # What the client's connection calls.

    @property
    def session(self) -> None:
        """Nobody's yet: whose request it is, and whether that is over, is asked in the end."""
        return

    def session_over(self, reason: Reason) -> None:
        """Never called: it is nobody's."""

    def client_full(self, *, full: bool) -> None:
        """Nothing is being sent."""

    def quiet(self) -> bool:
        """Return True: nothing is being sent."""
        return True

    def client_gone(self) -> None:
        """Give up."""
        if not self._is_over:
            self._is_over = True
            self._gone(self._context)
