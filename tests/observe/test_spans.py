"""Spans of sampled requests, at a collector that reads them by the protocol's own messages."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from accounts import user_named
from collectorkit import Collector, Found, collecting
from gatekit import (
    SUB,
    Clock,
    PausedAnswer,
    RawClient,
    RawUpstream,
    RunningGate,
    ask,
    request_bytes,
    until,
)
from storykit import story, until_callback

from tailchat_gate.observe import spans as spans_module
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.observe.spans import RequestSpans, Spans
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.recorded import Trace

Start = Callable[..., Any]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"
EDGE = {"trusted_proxies": ["127.0.0.1"]}
HOSHINO = user_named("hoshino")
CALLBACK = "/oauth2/callback"
PUBLIC = [{"name": "tool", "allow": ["public"]}]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait while spans are gathered."""
    monkeypatch.setattr(spans_module, "_GATHER_SECONDS", 0.01)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """Run a collector."""
    async with collecting() as found:
        yield found


async def spans(gate: RunningGate, collector: Collector, count: int) -> list[Found]:
    """Return the spans once so many have come."""
    await until(lambda: len(collector.spans) >= count)
    assert len(collector.spans) == count
    await until(lambda: gate.generation.process_state.spans.exported == count)
    return collector.spans


async def test_a_request_has_a_span_and_one_for_its_tool(
    start_gate: Start, upstream: RawUpstream, collector: Collector
) -> None:
    """The caller's span is the parent of the gate's, which is that of what the tool was sent."""
    before = time.time_ns()
    gate = await start_gate(
        upstream.url, server=EDGE, route=PUBLIC, tracing={"endpoint": collector.url}
    )
    fields = {"traceparent": GOOD, "tracestate": "a=1", "X-Request-Id": "edge-1"}
    await ask(gate.port, request_bytes("/a/page?token=secret", **fields))
    await spans(gate, collector, 2)

    (server,), (client,) = collector.of("server"), collector.of("client")
    sent = upstream.requests[0]
    assert (server.trace_id, server.parent_id) == (TRACE, PARENT)
    assert (client.trace_id, client.parent_id) == (TRACE, server.span_id)
    assert sent.value("traceparent") == f"00-{TRACE}-{client.span_id}-01".encode()
    assert sent.value("tracestate") == b"a=1"
    assert before <= server.began <= client.began < client.ended <= server.ended <= time.time_ns()
    assert client.events == ["connected", "first byte"]
    assert (server.name, client.name) == ("GET tool", "GET")
    assert not server.failed
    assert not client.failed


async def test_what_spans_say(
    start_gate: Start, upstream: RawUpstream, collector: Collector
) -> None:
    """They have the attributes of the semantic conventions, and nothing of person or query."""
    gate = await start_gate(upstream.url, tracing={"endpoint": collector.url, "sample": 1})
    data = request_bytes("/page?token=secret", Cookie=gate.cookie(), X_Secret="secret")
    await ask(gate.port, data)
    await spans(gate, collector, 2)

    (server,), (client,) = collector.of("server"), collector.of("client")
    (line,) = await gate.log()
    assert server.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "tool",
        "network.protocol.version": "1.1",
        "server.address": "gate.test",
        "tailchat_gate.reason": "signed-in",
        "tailchat_gate.request_id": line["id"],
        "url.path": "/page",
        "url.scheme": "http",
    }
    assert client.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "tool",
        "server.address": "127.0.0.1",
        "server.port": int(upstream.url.rpartition(":")[2]),
        "url.path": "/page",
    }
    assert (server.parent_id, server.trace_id) == ("", line["trace_id"])
    (resource,) = collector.resources
    assert resource["service.name"] == "tailchat-gate"


async def test_spans_name_people_on_request(
    start_gate: Start, upstream: RawUpstream, collector: Collector
) -> None:
    """With `identity` they tell the sub and the address, of a signed-in person."""
    tracing = {"endpoint": collector.url, "sample": 1, "identity": True}
    gate = await start_gate(upstream.url, tracing=tracing)
    await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))
    await spans(gate, collector, 2)

    (server,) = collector.of("server")
    assert server.attributes["user.id"] == SUB
    assert server.attributes["client.address"] == "127.0.0.1"
    assert "Alice" not in json.dumps([span.attributes for span in collector.spans])


async def test_faults_are_errors(start_gate: Start, collector: Collector) -> None:
    """A tool that is down is an error of both spans, by its reason; a refusal is none."""
    gate = await start_gate(
        route=[*PUBLIC, {"name": "closed", "path": "/closed"}],
        tracing={"endpoint": collector.url, "sample": 1},
    )
    await ask(gate.port, request_bytes("/", method="BREW"))
    await ask(gate.port, request_bytes("/closed"))
    await spans(gate, collector, 3)

    down, refused = collector.of("server")
    (client,) = collector.of("client")
    assert down.failed
    assert client.failed
    assert (down.name, down.attributes["http.request.method"]) == ("HTTP tool", "_OTHER")
    assert down.attributes["http.request.method_original"] == "BREW"
    assert down.attributes["error.type"] == client.attributes["error.type"] == "upstream-down"
    assert "http.response.status_code" not in client.attributes
    assert not refused.failed
    assert refused.attributes["http.response.status_code"] == 401
    assert "error.type" not in refused.attributes


async def test_the_status_of_a_tool_is_an_error_of_its_span(
    start_gate: Start, upstream: RawUpstream, collector: Collector
) -> None:
    """A client's span has an error from 400, a server's from 500 (semantic conventions)."""
    upstream.answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    gate = await start_gate(
        upstream.url, route=PUBLIC, tracing={"endpoint": collector.url, "sample": 1}
    )
    await ask(gate.port, request_bytes("/"))
    await spans(gate, collector, 2)

    (server,), (client,) = collector.of("server"), collector.of("client")
    assert (server.failed, client.failed) == (False, True)
    assert client.attributes["error.type"] == "404"


async def test_a_trace_that_is_not_sampled_has_no_spans(
    start_gate: Start, upstream: RawUpstream, collector: Collector
) -> None:
    """The caller's flag decides, not the share of the traces that begin here."""
    gate = await start_gate(
        upstream.url, server=EDGE, route=PUBLIC, tracing={"endpoint": collector.url, "sample": 1}
    )
    unsampled = f"{GOOD[:-2]}00"
    await ask(gate.port, request_bytes("/", traceparent=unsampled))
    await ask(gate.port, request_bytes("/"))
    await spans(gate, collector, 2)

    assert TRACE not in {span.trace_id for span in collector.spans}
    assert upstream.requests[0].value("traceparent") == unsampled.encode()


async def test_a_websocket_is_a_span_while_it_is_open(
    start_gate: Start, upstream: RawUpstream, collector: Collector
) -> None:
    """Its spans end with it."""
    upstream.answer = PausedAnswer(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    gate = await start_gate(
        upstream.url, route=PUBLIC, tracing={"endpoint": collector.url, "sample": 1}
    )
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/", **upgrade))
        upstream.answer.go_on.set()
        await client.head()
        assert gate.generation.process_state.spans.exported == 0
    await spans(gate, collector, 2)

    assert {span.attributes["http.response.status_code"] for span in collector.spans} == {101}


async def test_a_collector_that_hangs_costs_spans_and_no_request(
    start_gate: Start,
    upstream: RawUpstream,
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While it does not answer, requests go on; what the queue cannot take is counted and told."""
    collector.go_on.clear()
    gate = await start_gate(
        upstream.url, route=PUBLIC, tracing={"endpoint": collector.url, "sample": 1}
    )
    state = gate.generation.process_state
    state.spans._capacity = 3
    await ask(gate.port, request_bytes("/"))
    await until(lambda: collector.requests == 1)
    for _ in range(5):
        assert (await ask(gate.port, request_bytes("/"))).status == 200

    assert (state.spans.exported, state.spans.lost) == (0, 4)
    assert b"gate_spans_lost_total 4.0" in state.metrics.render()
    assert [one for one in caplog.records if "spans were lost" in one.getMessage()]
    collector.go_on.set()
    await until(lambda: state.spans.exported == 8)
    assert len(collector.spans) == 8
    assert state.spans.lost == 4


async def test_a_collector_that_refuses_is_logged_once(
    start_gate: Start,
    upstream: RawUpstream,
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Spans that are not taken are lost; the log says why, and the requests go on."""
    collector.status = HTTPStatus.UNAUTHORIZED
    gate = await start_gate(
        upstream.url, route=PUBLIC, tracing={"endpoint": collector.url, "sample": 1}
    )
    state = gate.generation.process_state
    for done in (2, 4):
        assert (await ask(gate.port, request_bytes("/"))).status == 200
        await until(lambda done=done: state.spans.lost == done)  # type: ignore[misc]

    lines = [one for one in caplog.records if "spans were lost" in one.getMessage()]
    await until(lambda: bool(lines))
    (line,) = lines
    assert "401" in vars(line)["details"]["problem"]
    assert collector.spans == []


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:9/\r\n\r\n", False),
    ],
    ids=["without end", "redirect"],
)
async def test_of_a_collectors_answer_only_the_status_counts(
    start_gate: Start,
    upstream: RawUpstream,
    answer: bytes,
    taken: bool,
) -> None:
    """A body without an end is not waited for or kept, and a redirect takes no spans."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
                await writer.drain()
        writer.close()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        tracing = {"endpoint": f"http://{host}:{port}", "sample": 1}
        gate = await start_gate(upstream.url, route=PUBLIC, tracing=tracing)
        found = gate.generation.process_state.spans
        await ask(gate.port, request_bytes("/"))
        await until(lambda: found.exported + found.lost == 2)
        await ended.wait()
        await gate.server.stop()

    assert (found.exported, found.lost) == ((2, 0) if taken else (0, 2))


@pytest.fixture
def _waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stop wait for the collector longer than a busy machine takes."""
    monkeypatch.setattr(Spans.close, "__defaults__", (30.0,))


@pytest.mark.usefixtures("_waits")
async def test_what_waits_is_sent_at_the_end(
    tmp_path: Path, upstream: RawUpstream, collector: Collector, start_gate: Start
) -> None:
    """A stop sends the spans of the last requests."""
    gate = await start_gate(
        upstream.url, route=PUBLIC, tracing={"endpoint": collector.url, "sample": 1}
    )
    await ask(gate.port, request_bytes("/"))
    await gate.server.stop()

    assert len(collector.spans) == 2


async def test_the_sdks_variables_count(
    start_gate: Start,
    upstream: RawUpstream,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Credentials for the collector and the name of the service are given as everywhere."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gate-west")
    gate = await start_gate(
        upstream.url, route=PUBLIC, tracing={"endpoint": collector.url, "sample": 1}
    )
    await ask(gate.port, request_bytes("/"))
    await spans(gate, collector, 2)

    headers = {name.lower(): value for name, value in collector.headers[0].items()}
    assert headers["authorization"] == "Bearer abc"
    assert collector.resources[0]["service.name"] == "gate-west"


@pytest.mark.usefixtures("_waits")
async def test_a_sign_in_has_a_span_for_each_call_to_tailchat(
    tmp_path: Path, clock: Clock, collector: Collector
) -> None:
    """The callback's span has those of what it waited for below it, with the host's name."""
    tracing = {"endpoint": collector.url, "sample": 1}
    async with story(tmp_path / "log", clock, tracing=tracing) as scene, scene.visitor() as visitor:
        await visitor.sign_in(scene.url, HOSHINO.email, HOSHINO.password)
        await scene.gate.server.stop()

    (callback,) = [one for one in collector.of("server") if one.attributes["url.path"] == CALLBACK]
    calls = [one for one in collector.of("client") if one.parent_id == callback.span_id]
    assert {(one.name, one.attributes["server.address"]) for one in calls} >= {
        ("POST token", "localhost"),
        ("GET me", "localhost"),
    }
    assert all(one.trace_id == callback.trace_id and not one.failed for one in calls)
    assert all(callback.began <= one.began < one.ended <= callback.ended for one in calls)
    assert "code=" not in json.dumps([one.attributes for one in collector.spans])


@pytest.mark.usefixtures("_waits")
async def test_a_tailchat_that_is_down_is_an_error_of_the_call(
    tmp_path: Path, clock: Clock, collector: Collector
) -> None:
    """The span of the call has no status then."""
    tracing = {"endpoint": collector.url, "sample": 1}
    async with story(tmp_path / "log", clock, tracing=tracing) as scene, scene.visitor() as visitor:
        callback = await until_callback(visitor, scene)
        await scene.stop_tailchat()
        await visitor.open(callback)
        await scene.gate.server.stop()

    (failed,) = [one for one in collector.of("client") if one.failed]
    assert failed.name == "GET discovery"
    assert failed.attributes["error.type"] == "no-response"
    assert "http.response.status_code" not in failed.attributes


class Hanging:
    """An exporter that hangs until it is given up."""

    def __init__(self) -> None:
        self.begun, self.given_up = Event(), Event()

    def send(self, requests: Sequence[RequestSpans]) -> str:
        """Wait."""
        self.begun.set()
        self.given_up.wait(60)
        return "given up"

    def close(self) -> None:
        """Wait no longer."""
        self.given_up.set()


def test_a_stop_does_not_wait_for_a_collector_that_hangs() -> None:
    """What cannot be sent in time is given up, and counted."""
    exporter = Hanging()
    found = Spans(lambda: exporter, lambda: 1.0)
    context = RequestContext(
        "id", 1.0, client_address=ClientAddress("192.0.2.1", "http", "192.0.2.1")
    )
    context.trace = Trace(TRACE, "", b"", PARENT, PARENT)
    found.record(context, 1.0, identity=False)
    assert exporter.begun.wait(60)
    found.record(context, 1.0, identity=False)
    found.close(within=0.0)

    assert exporter.given_up.is_set()
    assert (found.exported, found.lost) in {(0, 1), (0, 2)}


LOOK = """
import json, sys
from gatekit import make_settings
from tailchat_gate.serving.process_state import spans_of
from tailchat_gate.serving.wiring.build import build
import tailchat_gate.cli, tailchat_gate.commands.serve, tailchat_gate.serving.process

settings = make_settings(tracing={"sample": 1})
build(settings)
print(json.dumps([name for name in sys.modules if name.partition(".")[0] in
    {"opentelemetry", "google", "requests", "urllib3"}]))
"""


def test_nothing_of_the_sdk_is_imported_without_a_collector(tmp_path: Path) -> None:
    """A gate that only passes traces on, or begins them, knows nothing of OpenTelemetry."""
    kit = Path(__file__).parents[1] / "kit"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(kit)!r}){LOOK}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=kit.parents[1],
    )

    assert json.loads(done.stdout) == []


def test_losses_have_a_metric_from_the_start() -> None:
    """An alert on an increase sees the first loss."""
    rendered = Metrics(sources=(Spans().collect,)).render().decode()

    assert "gate_spans_exported_total 0.0" in rendered
    assert "gate_spans_lost_total 0.0" in rendered
