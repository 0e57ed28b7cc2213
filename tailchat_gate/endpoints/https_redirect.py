"""Answers requests on listeners for plain HTTP, only with redirects to HTTPS."""

from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Final, Protocol

from tailchat_gate.identity.sites import Sites
from tailchat_gate.proxy.client.active_request import Admission
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext, RequestIds
from tailchat_gate.request.fields import FieldSection
from tailchat_gate.request.head import RequestHead
from tailchat_gate.responses.refusals import Refusals
from tailchat_gate.responses.writer import ResponseWriter
from tailchat_gate.syntax import READ_METHODS


class MainHandler(Protocol):
    """The handler of the gate's other listeners."""

    def direct(self, peer: str) -> ClientAddress | None:
        """Return a peer as the client, None for a trusted proxy."""

    def address_of(self, client: ClientConnection, fields: FieldSection) -> ClientAddress:
        """Return the client's address."""


class HttpsRedirect:
    """Redirects each request to the same URL with https.

    Only for hosts of the gate and its routes: a cache would store redirects for a made-up Host.
    Methods that may change something are redirected with 308, so that the client repeats them with
    their body (RFC 9110 section 15.4.9).
    """

    def __init__(
        self,
        main: MainHandler,
        sites: Sites,
        refusals: Refusals,
        writer: ResponseWriter,
        request_ids: RequestIds,
        monotonic: Callable[[], float],
    ) -> None:
        self._main: Final = main
        self._sites: Final = sites
        self._refusals: Final = refusals
        # Strict-Transport-Security must not be sent over plain HTTP (RFC 6797 section 7.2).
        self._writer: Final = replace(writer, hsts="")
        self._request_ids: Final = request_ids
        self._monotonic: Final = monotonic

    def handle(self, client: ClientConnection, head: RequestHead) -> None:
        """Answer a request."""
        context = RequestContext(self._request_ids.next(), self._monotonic(), head)
        context.client_address = client.address or self._main.address_of(client, head.fields)
        host = context.host
        if not self._knows(host):
            answer = self._refusals.failure(context, Reason.NO_ROUTE)
        else:
            context.reason = Reason.OWN_PATH
            status = (
                HTTPStatus.MOVED_PERMANENTLY
                if head.method in READ_METHODS
                else HTTPStatus.PERMANENT_REDIRECT
            )
            location = f"{self._sites.origin(host)}{head.target.raw.decode('ascii')}"
            answer = self._writer.answers.redirect(location, status=status)
        self._writer.say(client, context, answer)

    def _knows(self, host: str) -> bool:
        return host == self._sites.public_host or self._sites.is_tool(host)

    def resume(self, client: ClientConnection, context: RequestContext) -> None:
        """Answer a request that was on hold; here none ever is."""
        self.handle(client, context.head)

    def judge_again(self, admission: Admission) -> Reason | None:  # noqa: ARG002 - as Handler declares it
        """Return None: every request is answered at once."""
        return None

    def refuse_unread(self, client: ClientConnection, error: RefusedError, sent: bytes) -> bytes:
        """Return the response to `sent`, bytes that could not be read as a request."""
        context = RequestContext(self._request_ids.next(), self._monotonic())
        context.client_address = self._main.address_of(client, context.head.fields)
        context.reason = error.reason
        return self._writer.unreadable(context, str(error), sent)

    def direct(self, peer: str) -> ClientAddress | None:
        """Return a peer as the client, None for a trusted proxy."""
        return self._main.direct(peer)
