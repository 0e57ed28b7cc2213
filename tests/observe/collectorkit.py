"""A collector of OpenTelemetry: it reads what is sent to it by the protocol's own messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

KINDS = {Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_CLIENT: "client"}
PROTOBUF = "application/x-protobuf"


@dataclass
class Found:
    """A span as the collector got it; times are Unix nanoseconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    failed: bool
    attributes: dict[str, Any]
    events: list[str]


@dataclass
class Collector:
    """What came, and what is answered; while `go_on` is not set, nothing is."""

    url: str = ""
    spans: list[Found] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = HTTPStatus.OK
    requests: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, kind: str) -> list[Found]:
        """Return the spans of a kind."""
        return [span for span in self.spans if span.kind == kind]

    async def take(self, request: web.Request) -> web.Response:
        """Read one request."""
        self.requests += 1
        data = await request.read()
        await self.go_on.wait()
        if self.status != HTTPStatus.OK:
            return web.Response(status=self.status)
        assert request.content_type == PROTOBUF
        self.headers.append(dict(request.headers))
        message = ExportTraceServiceRequest()
        message.ParseFromString(data)
        for resource in message.resource_spans:
            self.resources.append(_attributes(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += map(_found, scope.spans)
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type=PROTOBUF)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector until the block ends."""
    collector = Collector()
    collector.go_on.set()
    app = web.Application()
    app.router.add_post("/base/v1/traces", collector.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/base"
        yield collector
    finally:
        collector.go_on.set()
        await runner.cleanup()


def _found(span: Span) -> Found:
    return Found(
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == span.status.STATUS_CODE_ERROR,
        _attributes(span.attributes),
        [event.name for event in span.events],
    )


def _attributes(pairs: "list[KeyValue]") -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in pairs
    }
