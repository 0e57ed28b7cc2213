"""Sends the gate's own responses to clients, and records them."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.proxy.client.active_request import Admission
from tailchat_gate.proxy.client.aiohttp_bridge import AiohttpBridge
from tailchat_gate.proxy.client.connection import ClientConnection
from tailchat_gate.proxy.exchange.recorder import Recorder
from tailchat_gate.proxy.static.handler import StaticSlots
from tailchat_gate.reasons import CLIENT_CLOSED_REQUEST, Reason
from tailchat_gate.request.body import Body
from tailchat_gate.request.context import RequestContext, log_extra
from tailchat_gate.request.recorded import CURRENT_TRACE
from tailchat_gate.responses.answers import Answers
from tailchat_gate.responses.plain import HSTS

_log = logging.getLogger(LOGGER_NAME)

#: Makes the answer to a request for one of the gate's own pages.
MakeAnswer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class ResponseWriter:
    """Sends and records the gate's own responses, not those of tools.

    `hsts` is the value of Strict-Transport-Security, "" for none.
    """

    answers: Answers
    bridge: AiohttpBridge
    recorder: Recorder
    hsts: str = ""

    def say(
        self,
        client: ClientConnection,
        context: RequestContext,
        answer: web.Response,
        *,
        last: bool = False,
    ) -> None:
        """Send a response at once; `last`: close the connection after it."""
        keep = not last and client.keeps(context.head)
        self._record(context, answer)
        client.answer(
            self.answers.serialize(answer, context.head, keep=keep), context.head, keep=keep
        )

    def unreadable(self, context: RequestContext, problem: str, sent: bytes) -> bytes:
        """Return and record the response to `sent`, which could not be read as a request."""
        answer = self.answers.unreadable(context, problem, sent)
        self._record(context, answer)
        return self.answers.serialize(answer, context.head, keep=False)

    def page(
        self,
        client: ClientConnection,
        context: RequestContext,
        make: MakeAnswer,
        *,
        body: Body | None = None,
        target: bytes = b"/",
        admission: Admission | None = None,
        slots: StaticSlots | None = None,
    ) -> None:
        """Let aiohttp's server send the response that `make` returns, and record it at its end.

        The response is cut off once `admission` no longer holds. `slots` are freed at its end.
        """

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            if context.trace is not None and context.trace.span_id:
                context.trace.calls = []
            CURRENT_TRACE.set(context.trace)
            try:
                response = await make(request)
            except ConnectionError:
                raise
            except Exception:  # noqa: BLE001 - a fault of any kind must deny, not pass
                _log.exception("a request failed inside the gate", extra=log_extra(context))
                response = self.answers.problem(context, Reason.INTERNAL_ERROR)
            self._mark(response)
            return response

        def ended(answer: web.StreamResponse | Reason) -> None:
            if slots is not None:
                slots.leave(context.client_address.network)
            if isinstance(answer, Reason):
                context.reason, context.status = answer, CLIENT_CLOSED_REQUEST
                self.recorder.live_ended(answer)
            else:
                context.status = answer.status
                context.sent_bytes = answer.content_length or 0
            self.recorder.record(context)

        self.bridge.serve(
            client, context.head, answer, ended, body=body, target=target, admission=admission
        )

    def _mark(self, answer: web.StreamResponse) -> None:
        if self.hsts and not answer.prepared:
            answer.headers[HSTS] = self.hsts

    def _record(self, context: RequestContext, answer: web.Response) -> None:
        self._mark(answer)
        context.status = answer.status
        context.sent_bytes = answer.content_length or 0
        self.recorder.record(context)
