"""What the metrics tell of connections: how many are open, and how tools fail."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatekit import OK, RawClient, RawUpstream, Received, RunningGate, ask, request_bytes, until
from prometheus_client.parser import text_string_to_metric_families
from tlskit import Authority
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.serving.workers.reports import status_of

Start = Callable[..., Any]


def _samples(gate: RunningGate) -> dict[tuple[str, ...], float]:
    """Return the metrics: values by name and by label values in the order of their names."""
    text = gate.generation.process_state.metrics.render().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_open_connections_are_counted(start_gate: Start, upstream: RawUpstream) -> None:
    """Those of visitors, and those to each tool, idle ones among them."""
    gate = await start_gate(upstream.url)
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/", Cookie=gate.cookie()))
        await client.response()
        found = _samples(gate)
        assert found["gate_client_connections", "idle"] == 1
        assert found["gate_upstream_connections", "idle", upstream.url] == 1
    await until(lambda: _samples(gate)["gate_client_connections", "idle"] == 0)
    gate.generation.process_state.upstream_pools.pools[0].close()
    await until(lambda: _samples(gate)["gate_upstream_connections", "idle", upstream.url] == 0)


async def test_connections_are_counted_by_side_and_state(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A request under way and a WebSocket have states of their own on both sides."""
    may_end = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.value("Upgrade"):
            writer.write(SWITCH)
            await reader.read()
        else:
            await may_end.wait()
            writer.write(OK)

    upstream.answer = answer
    gate = await start_gate(upstream.url)
    sides = (
        *(("gate_client_connections", state) for state in ("idle", "active", "websocket")),
        *(("gate_upstream_connections", one, upstream.url) for one in ("idle", "active", "other")),
    )
    async with RawClient.connect(gate.port) as slow, RawClient.connect(gate.port) as socket_:
        slow.send(request_bytes("/", Cookie=gate.cookie()))
        socket_.send(request_bytes("/ws", Cookie=gate.cookie(), **UPGRADE))
        await socket_.head()
        await until(lambda: [_samples(gate)[side] for side in sides] == [0, 1, 1, 0, 1, 1])
        assert _samples(gate)["gate_websockets_total", "tool"] == 1
        may_end.set()
        await slow.response()
        await until(lambda: [_samples(gate)[side] for side in sides] == [1, 0, 1, 1, 0, 1])


async def test_what_a_tool_does_is_counted(start_gate: Start, upstream: RawUpstream) -> None:
    """Requests by class of status, by new and reused connections, bytes, and both times."""
    url = upstream.url
    gate = await start_gate(url)
    before = _samples(gate)
    async with RawClient.connect(gate.port) as client:
        for _ in range(3):
            client.send(
                request_bytes("/", method="PUT", Cookie=gate.cookie(), Content_Length="5")
                + b"hello"
            )
            await client.response()
    found = _samples(gate)

    assert ("gate_upstream_up", url) not in before
    assert before["gate_upstream_requests_total", "5xx", url] == 0
    assert found["gate_upstream_up", url] == 1
    assert found["gate_upstream_requests_total", "2xx", url] == 3
    assert found["gate_upstream_request_connections_total", "new", url] == 1
    assert found["gate_upstream_request_connections_total", "reused", url] == 2
    assert found["gate_upstream_connect_seconds_count", url] == 1
    assert found["gate_upstream_first_byte_seconds_count", url] == 3
    assert 0 < found["gate_upstream_first_byte_seconds_sum", url] < 60
    assert found["gate_request_body_bytes_total", "tool"] == 15
    assert found["gate_response_body_bytes_total", "tool"] == 6


async def test_a_tool_that_is_gone_is_not_up(start_gate: Start, upstream: RawUpstream) -> None:
    """Once no connection can be opened the tool is down, and its requests have no status."""
    url = upstream.url
    gate = await start_gate(url, route=[{"name": "tool", "connect_retry": "0s"}])
    await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))
    assert _samples(gate)["gate_upstream_up", url] == 1
    await upstream.__aexit__()
    gate.generation.process_state.upstream_pools.pools[0].close()
    await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))
    found = _samples(gate)

    assert found["gate_upstream_up", url] == 0
    assert found["gate_upstream_requests_total", "none", url] == 1
    assert found["gate_requests_total", "502", "GET", "tool"] == 1


async def test_a_request_without_a_connection_counts_one_failure(start_gate: Start) -> None:
    """However often the gate tries; it neither opened a connection nor used one again."""
    tools = tuple(f"http://127.0.0.1:{port}" for port in (9, 11, 13))
    routes = [
        {"name": "one", "path": "/one", "upstream": tools[0], "connect_retry": "1s"},
        {"name": "two", "path": "/two", "upstream": list(tools[1:]), "connect_retry": "1s"},
    ]
    gate = await start_gate(route=routes)
    asked = [ask(gate.port, request_bytes(path, Cookie=gate.cookie())) for path in ("/one", "/two")]
    assert {response.status for response in await asyncio.gather(*asked)} == {502}
    found = _samples(gate)
    for url in tools:
        assert found["gate_upstream_failures_total", "refused", url] == 1
        for connection in ("new", "reused"):
            assert found["gate_upstream_request_connections_total", connection, url] == 0


async def test_a_backend_that_fails_before_another_answers_is_counted(start_gate: Start) -> None:
    """Its failure is its own; a connection to it is none of the one that answers."""
    asked: list[str] = []

    async def first_fails(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        asked.append(f"http://127.0.0.1:{writer.get_extra_info('sockname')[1]}")
        if len(asked) > 1:
            writer.write(OK)
        else:
            writer.close()

    async with RawUpstream(first_fails) as one, RawUpstream(first_fails) as other:
        gate = await start_gate(route=[{"name": "tool", "upstream": [one.url, other.url]}])
        answered = await ask(gate.port, request_bytes("/", Cookie=gate.cookie()))
        found = _samples(gate)
    assert answered.status == 200
    for url, failures in zip(asked, (1, 0), strict=True):
        assert found["gate_upstream_failures_total", "closed", url] == failures
        assert found["gate_upstream_request_connections_total", "new", url] == 1 - failures


async def test_status_tells_the_state_of_each_tool(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Unknown, up or down, and since when; of several workers, the one that cannot reach it."""
    url, began = upstream.url, int(time.time())
    routes = [{"name": "tool"}, {"name": "files", "path": "/files"}]
    gates = [await start_gate(url, route=routes) for _ in range(3)]

    async def told(*asked: RunningGate) -> tuple[str, int | None]:
        whole = status_of([await gate.server.report.status() for gate in asked])
        (tool,), (same,) = (route["tools"] for route in whole["routes"])
        assert tool == same
        assert tool["upstream"] == url
        return tool["state"], tool["since"]

    assert await told(*gates) == ("unknown", None)
    await ask(gates[0].port, request_bytes("/", Cookie=gates[0].cookie()))
    await upstream.__aexit__()
    await ask(gates[1].port, request_bytes("/", Cookie=gates[1].cookie()))
    states = {(await told(gate))[0] for gate in gates}
    assert states == {"unknown", "up", "down"}
    assert (await told(gates[0], gates[2]))[0] == "up"
    state, since = await told(*gates)
    assert state == "down"
    assert since is not None
    assert since >= began


def _raw(answer: bytes) -> Any:  # noqa: ANN401 - an Answer
    async def send(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer)
        writer.close()

    return send


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", "closed"),
        (b"no HTTP\r\n\r\n", "broken"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "cut-off"),
    ],
)
async def test_a_reply_that_fails_is_counted(start_gate: Start, answer: bytes, kind: str) -> None:
    """Every fault of a reply has its kind, once for each request."""
    async with RawUpstream(_raw(answer)) as tool:
        gate = await start_gate(tool.url)
        async with RawClient.connect(gate.port) as client:
            client.send(request_bytes("/", Cookie=gate.cookie()))
            await client.reader.read(65_536)

            await until(
                lambda: _samples(gate).get(("gate_upstream_failures_total", kind, tool.url)) == 1
            )


async def test_a_connection_that_fails_is_counted(
    start_gate: Start, tmp_path: Path, upstream: RawUpstream
) -> None:
    """A tool that refuses, is missing, has no name, does not answer or is not trusted."""
    authority = await asyncio.to_thread(Authority.create, tmp_path)
    issued = await asyncio.to_thread(authority.issue, "localhost")
    context = await asyncio.to_thread(issued.server_context)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        where = full.getsockname()
        # The one place in its queue is taken, and nobody accepts.
        filling = [socket.socket() for _ in range(3)]
        for one in filling:
            one.setblocking(False)
            one.connect_ex(where)
        async with RawUpstream(OK, tls=context) as tls:
            tools = {
                "refused": "http://127.0.0.1:9",
                "unreachable": f"unix:{tmp_path}/nothing.sock",
                "dns": "http://nothing.invalid",
                "timeout": f"http://127.0.0.1:{where[1]}",
                "tls": tls.url,
            }
            routes = [
                {"name": kind, "path": f"/{kind}", "upstream": url} for kind, url in tools.items()
            ]
            routes[list(tools).index("timeout")]["connect_timeout"] = "1s"
            gate = await start_gate(route=routes)

            asked = [
                ask(gate.port, request_bytes(f"/{kind}", Cookie=gate.cookie())) for kind in tools
            ]
            statuses = [response.status for response in await asyncio.gather(*asked)]

        for one in filling:
            one.close()
    found = _samples(gate)
    # What a name server is not there for may take until the time is over.
    assert statuses[:2] + statuses[3:] == [502, 502, 504, 502]
    for kind, url in tools.items():
        assert found["gate_upstream_failures_total", kind, url] == 1
