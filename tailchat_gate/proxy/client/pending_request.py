"""A request that is on hold, its body unread, until the gate knows how to answer it."""

import asyncio
from collections.abc import Callable

from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext


class PendingRequest:
    """The active request of a client's connection while the request is on hold."""

    __slots__ = ("_client", "_context", "_gone", "_is_over")

    def __init__(
        self,
        client: ClientConnection,
        context: RequestContext,
        settled: "asyncio.Future[None]",
        gone: Callable[[RequestContext], None],
    ) -> None:
        """Put the request of `context` on hold until `settled` is done; then resume it.

        `gone` is called if the client leaves before that.
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
    def admission(self) -> None:
        """None: the request is judged when it resumes."""
        return

    @property
    def session(self) -> None:
        """None: the session is checked when the request resumes."""
        return

    def session_over(self, reason: Reason) -> None:
        """Never called: `session` is None."""

    def client_full(self, *, full: bool) -> None:
        """Nothing to do: nothing is being sent."""

    def quiet(self) -> bool:
        """Return True: nothing is being sent."""
        return True

    def close_after(self) -> None:
        """Nothing to do: the request is answered when it resumes."""

    def client_gone(self) -> None:
        """The client has left: never resume."""
        if not self._is_over:
            self._is_over = True
            self._gone(self._context)
