"""What the metrics tell of connections: how many are open, and how tools fail."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatekit import OK, RawClient, RawUpstream, Received, RunningGate, ask, request_bytes, until
from prometheus_client.parser import text_string_to_metric_families
from tlskit import Authority

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
        assert found[("gate_client_connections",)] == 1
        assert found["gate_upstream_connections", upstream.url] == 1
    await until(lambda: _samples(gate)[("gate_client_connections",)] == 0)
    gate.generation.process_state.upstream_pools.pools[0].close()
    await until(lambda: _samples(gate)["gate_upstream_connections", upstream.url] == 0)


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
                {"name": kind, "path": f"/{kind}", "upstream": url, "connect_timeout": "1s"}
                for kind, url in tools.items()
            ]
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
