"""Answers on listeners for plain HTTP: nothing but the way to HTTPS."""

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


class Story(Protocol):
    """The service of the gate's other listeners."""

    def direct(self, peer: str) -> ClientAddress | None:
        """Return the client where a peer is one itself, None for a trusted proxy."""

    def address_of(self, client: ClientConnection, fields: FieldSection) -> ClientAddress:
        """Return the client's address."""


class HttpsRedirect:
    """Redirects each request to the same target of the same host by HTTPS.

    Only hosts of the gate's own and of its routes are redirected: a cache in between would keep
    what a stranger's Host field made of it. A request that may change something is repeated with
    its method and body by 308 (RFC 9110 section 15.4.9); the first one was readable on the way.
    """

    def __init__(
        self,
        story: Story,
        sites: Sites,
        refusals: Refusals,
        writer: ResponseWriter,
        request_ids: RequestIds,
        monotonic: Callable[[], float],
    ) -> None:
        self._story: Final = story
        self._sites: Final = sites
        self._refusals: Final = refusals
        # A browser must not believe Strict-Transport-Security here (RFC 6797 section 7.2).
        self._writer: Final = replace(writer, hsts="")
        self._request_ids: Final = request_ids
        self._monotonic: Final = monotonic

    def handle(self, client: ClientConnection, head: RequestHead) -> None:
        """Answer a request."""
        context = RequestContext(self._request_ids.next(), self._monotonic(), head)
        context.client_address = client.address or self._story.address_of(client, head.fields)
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
        """Answer a request that was on hold, which none ever is here."""
        self.handle(client, context.head)

    def judge_again(self, admission: Admission) -> Reason | None:  # noqa: ARG002 - as Handler declares it
        """Return None: no request stays under way."""
        return None

    def refuse_unread(self, client: ClientConnection, error: RefusedError, sent: bytes) -> bytes:
        """Return the response to bytes, `sent`, that could not be read as a request."""
        context = RequestContext(self._request_ids.next(), self._monotonic())
        context.client_address = self._story.address_of(client, context.head.fields)
        context.reason = error.reason
        return self._writer.unreadable(context, str(error), sent)

    def direct(self, peer: str) -> ClientAddress | None:
        """Return the client where a peer is one itself, None for a trusted proxy."""
        return self._story.direct(peer)
