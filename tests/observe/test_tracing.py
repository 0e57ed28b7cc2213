"""Traces and ids of requests, from the edge to the tool, into logs, pages and metrics."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatekit import Clock, RawUpstream, ask, make_settings, request_bytes, running_gate
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tailchat_gate.observe.families import text
from tailchat_gate.observe.log import AUDIT_LOGGER_NAME

Start = Callable[..., Any]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = f"00-{TRACE}-00f067aa0ba902b7-01"
FIELDS = {"traceparent": GOOD, "tracestate": "a=1", "X-Request-Id": "edge-1"}
EDGE = {"trusted_proxies": ["127.0.0.1"]}
PUBLIC = [{"name": "tool", "allow": ["public"]}]


async def test_an_edge_names_trace_and_id(start_gate: Start, upstream: RawUpstream) -> None:
    """What a trusted proxy sends goes to the tool as it is, and into the line of the log."""
    gate = await start_gate(upstream.url, server=EDGE, route=PUBLIC)
    for _ in range(3):
        await ask(gate.port, request_bytes("/", **FIELDS))

    for request in upstream.requests:
        assert {name: request.value(name) for name in FIELDS} == {
            name: value.encode() for name, value in FIELDS.items()
        }
    assert [(line["id"], line["trace_id"]) for line in await gate.log()] == [("edge-1", TRACE)] * 3


@pytest.mark.parametrize("spelling", ["traceparent", "Traceparent", "TRACEPARENT", "TraceState"])
async def test_a_stranger_names_none(
    start_gate: Start, upstream: RawUpstream, spelling: str
) -> None:
    """No tool gets a trace or an id that comes from somebody else, often as it comes."""
    gate = await start_gate(upstream.url, route=PUBLIC)
    for _ in range(70):  # more often than what makes a shape of the section
        await ask(gate.port, request_bytes("/", **{spelling: GOOD, "X-Request-Id": "edge-1"}))

    assert all(not request.values(spelling) for request in upstream.requests)
    lines = await gate.log()
    assert all("trace_id" not in line for line in lines)
    assert [line["id"].encode() for line in lines] == [
        request.value("X-Request-Id") for request in upstream.requests
    ]
    assert len({line["id"] for line in lines}) == 70


async def test_a_trace_that_begins_here_is_one_for_each_request(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """With a share, equal requests get traces of their own, the same in the log and at the tool."""
    gate = await start_gate(upstream.url, route=PUBLIC, tracing={"sample": 1})
    for _ in range(3):
        await ask(gate.port, request_bytes("/"))

    traces = [(request.value("traceparent") or b"").split(b"-") for request in upstream.requests]
    assert [flags for *_, flags in traces] == [b"01"] * 3
    assert [line["trace_id"].encode() for line in await gate.log()] == [one[1] for one in traces]
    assert len({one[1] for one in traces}) == 3


async def test_a_websocket_has_the_trace_too(start_gate: Start, upstream: RawUpstream) -> None:
    """A request for a switch goes the same way."""
    gate = await start_gate(upstream.url, server=EDGE, route=PUBLIC)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    await ask(gate.port, request_bytes("/", **FIELDS, **upgrade))

    assert upstream.requests[0].value("traceparent") == GOOD.encode()
    assert upstream.requests[0].value("Upgrade") == b"websocket"


async def test_a_trailer_names_no_trace(start_gate: Start, upstream: RawUpstream) -> None:
    """A traceparent behind a body is dropped."""
    gate = await start_gate(upstream.url, server=EDGE, route=PUBLIC)
    chunked = request_bytes("/", method="PUT", **{"Transfer-Encoding": "chunked"})
    end = f"0\r\nX-Kept: 1\r\ntraceparent: {GOOD}\r\ntracestate: a=1\r\n\r\n".encode()
    await ask(gate.port, chunked + end)

    assert upstream.requests[0].trailers == [b"X-Kept: 1"]


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_a_problem_shows_both_ids(start_gate: Start, accept: str) -> None:
    """Who asks for help can pass on the trace, from a page and from JSON."""
    gate = await start_gate(server=EDGE, route=PUBLIC)
    found = await ask(gate.port, request_bytes("/", Accept=accept, **FIELDS))

    assert found.status == 502
    assert b"edge-1" in found.body
    assert TRACE.encode() in found.body


async def test_a_problem_without_a_trace_shows_none(start_gate: Start) -> None:
    """There is no empty line, and no empty member."""
    gate = await start_gate(route=PUBLIC)
    page = await ask(gate.port, request_bytes("/", Accept="text/html"))
    answer = await ask(gate.port, request_bytes("/", Accept="application/json"))

    assert b"Trace ID" not in page.body
    assert "trace_id" not in answer.json


async def test_a_question_of_a_proxy_has_the_trace_of_what_it_asks_about(start_gate: Start) -> None:
    """The line, and the page for the visitor, name the trace that the proxy sent."""
    gate = await start_gate(server=EDGE)
    fields = {**FIELDS, "X-Forwarded-Uri": "/page", "X-Forwarded-Method": "POST"}
    found = await ask(gate.port, request_bytes("/oauth2/auth", Accept="application/json", **fields))

    assert (found.status, found.json["request_id"], found.json["trace_id"]) == (
        401,
        "edge-1",
        TRACE,
    )
    (line,) = await gate.log()
    assert (line["asked"], line["trace_id"]) == ("POST gate.test/page", TRACE)


async def test_audit_and_faults_name_the_trace(
    start_gate: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal in the audit log can be found in the traces."""
    gate = await start_gate(server=EDGE, route=[{"name": "tool", "allow": ["sub:" + "7" * 24]}])
    caplog.set_level(logging.INFO, AUDIT_LOGGER_NAME)
    await ask(gate.port, request_bytes("/", Cookie=gate.cookie(), **FIELDS))

    (event,) = [record for record in caplog.records if record.name == AUDIT_LOGGER_NAME]
    details = vars(event)["details"]
    assert (details["event"], details["request_id"]) == ("refused", "edge-1")
    assert details["trace_id"] == TRACE


async def test_an_exemplar_names_the_trace(start_gate: Start, upstream: RawUpstream) -> None:
    """In OpenMetrics a slow request leads to its trace, within the 128 characters of a standard."""
    gate = await start_gate(upstream.url, server=EDGE, route=PUBLIC)
    longest = "e" * 64
    await ask(gate.port, request_bytes("/", **{**FIELDS, "X-Request-Id": longest}))

    collected = gate.generation.process_state.metrics.collect()
    document = b"".join(text(collected, openmetrics=True)).decode() + "# EOF\n"
    exemplars = [
        sample.exemplar.labels
        for family in text_string_to_metric_families(document)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert exemplars == [{"request_id": longest, "trace_id": TRACE}]


async def test_the_time_of_the_tool_can_be_logged(tmp_path: Path, upstream: RawUpstream) -> None:
    """The whole time of an exchange is a field beside those of its parts, where it is chosen."""
    fields = ["upstream", "connect_ms", "first_byte_ms", "upstream_ms", "ms", "trace_id"]
    settings = make_settings(upstream.url, server=EDGE, route=PUBLIC, log={"access_fields": fields})
    async with running_gate(settings, tmp_path / "log", Clock()) as gate:
        await ask(gate.port, request_bytes("/", **FIELDS))
        await ask(gate.port, request_bytes("/oauth2/ping"))
        first, own = await gate.log()

    assert list(first) == fields
    assert first["upstream"] == upstream.url.removeprefix("http://")
    assert 0 < first["first_byte_ms"] <= first["upstream_ms"] <= first["ms"]
    assert list(own) == ["ms"]
