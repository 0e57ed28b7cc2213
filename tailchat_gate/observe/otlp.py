"""Makes OpenTelemetry spans of requests, and sends them over OTLP/HTTP.

It is imported only if `tracing.endpoint` is set, because it needs the extra `tracing`.
"""

import logging
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from tailchat_gate import __version__
from tailchat_gate.observe.spans import CallSpan, RequestSpans, SentSpan
from tailchat_gate.reasons import STATUS
from tailchat_gate.request.recorded import Trace
from tailchat_gate.syntax import COMMON_METHODS

#: Seconds for one batch, with its retries.
_TIMEOUT: Final = 10.0
_SERVER_ERROR: Final = 500
_CLIENT_ERROR: Final = 400
_LONGEST_PROBLEM: Final = 300


class OtlpExporter:
    """Sends spans to the collector at `endpoint`, a URL without /v1/traces.

    The SDK's own variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME and so on) count too.
    """

    def __init__(self, endpoint: str) -> None:
        self._exporter: Final = OTLPSpanExporter(
            f"{endpoint}/v1/traces", timeout=_TIMEOUT, session=_Session()
        )
        self._ids: Final = _GivenIds()
        self._random: Final = RandomIdGenerator()
        self._ended: Final = _Ended()
        resource = Resource({"service.name": "tailchat-gate", "service.version": __version__})
        # Only requests of sampled traces come here.
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource.merge(OTELResourceDetector().detect()),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._ended)
        self._tracer: Final = provider.get_tracer("tailchat_gate", __version__)
        self._last_message: Final = _LastMessage()
        logger = logging.getLogger("opentelemetry")
        # The SDK logs each attempt; the gate logs the last message, at most once a minute.
        logger.handlers[:], logger.propagate = [self._last_message], False

    def send(self, requests: Sequence[RequestSpans]) -> str:
        """Send the spans of requests; return why the collector refused them, "" if it did not."""
        for request in requests:
            self._make(request)
        if self._exporter.export(self._ended.take()) is SpanExportResult.SUCCESS:
            return ""
        return self._last_message.last or "the export failed"

    def close(self) -> None:
        """Stop sending."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call] # it has no types

    def _make(self, request: RequestSpans) -> None:
        trace = request.trace
        self._ids.trace_id = int(trace.trace_id, 16)
        parent = _context(trace.trace_id, trace.parent_id) if trace.parent_id else Context()
        method = request.method if request.method in COMMON_METHODS else "HTTP"
        name = f"{method} {request.route}" if request.route else method
        span = self._begin(name, trace.span_id, parent, SpanKind.SERVER, request.began)
        span.set_attributes(dict(_of_request(request)))
        if request.status >= _SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
        if request.sent is not None:
            self._make_sent(request, request.sent, method)
        for call in request.calls:
            self._make_call(trace, call)
        span.end(request.ended)

    def _make_call(self, trace: Trace, call: CallSpan) -> None:
        parent = _context(trace.trace_id, trace.span_id)
        span_id = self._random.generate_span_id()
        span = self._begin(
            f"{call.method} {call.name}", f"{span_id:016x}", parent, SpanKind.CLIENT, call.began
        )
        span.set_attributes(
            {"http.request.method": call.method, "server.address": call.host}
            | ({"http.response.status_code": call.status} if call.status else {})
        )
        if not call.status or call.status >= _CLIENT_ERROR:
            span.set_attribute("error.type", str(call.status or "no-response"))
            span.set_status(StatusCode.ERROR)
        span.end(call.ended)

    def _make_sent(self, request: RequestSpans, sent: SentSpan, method: str) -> None:
        trace = request.trace
        parent = _context(trace.trace_id, trace.span_id)
        span = self._begin(method, trace.sent_id, parent, SpanKind.CLIENT, sent.began)
        attributes = dict(_of_sent(request, sent))
        span.set_attributes(attributes)
        if "error.type" in attributes:
            span.set_status(StatusCode.ERROR)
        for event, moment in (("connected", sent.connected), ("first byte", sent.first_byte)):
            if moment:
                span.add_event(event, timestamp=moment)
        span.end(request.ended)

    def _begin(self, name: str, span_id: str, parent: Context, kind: SpanKind, began: int) -> Span:
        self._ids.span_id = int(span_id, 16)
        return self._tracer.start_span(name, parent, kind, start_time=began)


class _Session(requests.Session):
    """Reads only the status and the header fields of a response.

    The body is not used and could be endless. A redirect is an error: followed, it could lead the
    spans and the collector's credentials elsewhere; ignored, it would count as a success.
    """

    def request(self, *args: Any, **named: Any) -> requests.Response:  # noqa: ANN401 - as it is there
        """Send a request; return its response without a body. Raises RequestException."""
        response = super().request(*args, **named | {"stream": True})
        response.close()
        response.raw = BytesIO()
        if response.is_redirect:
            raise requests.RequestException("the collector answers with a redirect")
        return response

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None, so that no redirect is followed: the library would read its body, too."""


class _GivenIds(IdGenerator):
    """Returns the ids of the request's own trace context."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        """Return the id of the request's trace."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        return self.span_id


class _Ended(SpanProcessor):
    """Keeps spans that have ended until they are taken."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span."""
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        """Return the spans since the last call."""
        spans, self._spans = self._spans, []
        return spans


class _LastMessage(logging.Handler):
    """Keeps the last log message of the SDK."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a record."""
        self.last = record.getMessage()[:_LONGEST_PROBLEM]


def _context(trace_id: str, span_id: str) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED)
    span = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(span), Context())


def _of_request(request: RequestSpans) -> Iterator[tuple[str, AttributeValue]]:
    """Yield the attributes of the server span (semantic conventions for HTTP, 1.23 and later)."""
    yield from _method(request.method)
    yield "url.scheme", request.scheme
    yield "url.path", request.path
    yield "network.protocol.version", request.version
    yield "http.response.status_code", request.status
    yield "tailchat_gate.request_id", request.request_id
    yield "tailchat_gate.reason", request.reason
    if request.host:
        yield "server.address", request.host
    if request.route:
        yield "http.route", request.route
    if request.status >= _SERVER_ERROR:
        yield "error.type", request.reason if request.reason in STATUS else str(request.status)
    if request.client:
        yield "client.address", request.client
    if request.sub:
        yield "user.id", request.sub


def _of_sent(request: RequestSpans, sent: SentSpan) -> Iterator[tuple[str, AttributeValue]]:
    """Yield the attributes of the client span: the request to the tool."""
    yield from _method(request.method)
    yield "url.path", request.path
    if request.route:
        yield "http.route", request.route
    yield from _peer(sent.peer)
    # Without a response of the tool the status is that of the gate's own answer.
    if sent.first_byte:
        yield "http.response.status_code", request.status
    if request.reason in STATUS:
        yield "error.type", request.reason
    elif request.status >= _CLIENT_ERROR:
        yield "error.type", str(request.status)


def _method(method: str) -> Iterator[tuple[str, AttributeValue]]:
    if method in COMMON_METHODS:
        yield "http.request.method", method
    else:
        yield "http.request.method", "_OTHER"
        yield "http.request.method_original", method


def _peer(peer: str) -> Iterator[tuple[str, AttributeValue]]:
    """Yield the attributes of the tool's socket; `peer` is an address with a port, or unix:PATH."""
    if peer.startswith("unix:"):
        yield "network.transport", "unix"
        yield "server.address", peer.removeprefix("unix:")
    elif peer:
        address, _, port = peer.rpartition(":")
        yield "server.address", address.strip("[]")
        yield "server.port", int(port)
