"""The admin listener: to whom it answers, and what every answer carries."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gatekit import Response, RunningGate, ask, make_settings, request_bytes, running_gate
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tailchat_gate.commands.admin import exchange
from tailchat_gate.config.values.address import UnixAddress
from tailchat_gate.serving.wiring.build import build

NAMED = ["metrics.example.com", "*.svc.cluster.local"]
LONG = "a" * 9000


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[RunningGate]:
    """A gate whose admin listener has two further names."""
    server = {"admin_listen": "127.0.0.1:0", "admin_hosts": NAMED}
    async with running_gate(make_settings(server=server), tmp_path / "log") as found:
        yield found


async def admin(gate: RunningGate, data: bytes) -> Response:
    """Send bytes to the admin listener; return the answer."""
    return await ask(gate.admin_address[1], data, to_head=data.startswith(b"HEAD"))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:4181", "127.0.0.1", "10.2.3.4:9", "[::1]:4181", "[fd00::7]"),
        *("localhost", "LOCALHOST:4181", "localhost.", "gate.localhost", "gate", "gate:4181"),
        *("metrics.example.com", "Metrics.Example.com.:443", "gate.monitoring.svc.cluster.local"),
    ],
)
async def test_it_answers_to_names_that_are_no_strangers(gate: RunningGate, host: str) -> None:
    """Addresses, localhost, names without a dot and those that the configuration has."""
    response = await admin(gate, request_bytes("/status", host=host))

    assert response.status == 200
    assert response.json["ready"] is True


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:4181", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("evillocalhost.com", "metrics.example.com.evil.example", "x.metrics.example.com"),
        *("svc.cluster.local", "127.1", "gate.test"),
    ],
)
@pytest.mark.parametrize("path", ["/status", "/refusals", "/metrics", "/healthz", "/nothing"])
async def test_a_page_of_another_name_reads_nothing(
    gate: RunningGate, host: str, path: str
) -> None:
    """421, whatever is asked for: a stranger's name may lead to this address."""
    response = await admin(gate, request_bytes(path, host=host))

    assert response.status == 421
    assert b"server.admin_hosts" in response.body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /status HTTP/1.1\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: local host\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: user@localhost\r\n\r\n", 400),
        (b"GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_a_host_that_is_in_doubt_is_refused(
    gate: RunningGate, data: bytes, status: int
) -> None:
    """None, two, or no host at all; a load balancer's check in HTTP/1.0 has none."""
    assert (await admin(gate, data)).status == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request_bytes("/healthz", host="localhost"), 200),
        (request_bytes("/healthz", method="HEAD", host="localhost"), 200),
        (request_bytes("/metrics", host="localhost"), 200),
        (request_bytes("/refusals", host="localhost"), 200),
        (request_bytes("/status", host="evil.example"), 421),
        (request_bytes("/nothing", host="localhost"), 404),
        (request_bytes("/status", method="POST", host="localhost", Content_Length="0"), 405),
        (request_bytes("/reload", method="POST", host="localhost", Content_Length="0"), 403),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + LONG.encode() + b"\r\n\r\n", 400),
    ],
)
async def test_every_answer_is_for_nobodys_cache_and_names_no_server(
    gate: RunningGate, data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """no-store and nosniff on errors too, no banner, and no traceback for bytes."""
    response = await admin(gate, data)

    assert response.status == status
    assert response.values("Cache-Control") == ["no-store"]
    assert response.values("X-Content-Type-Options") == ["nosniff"]
    assert response.values("Server") == []
    assert b"aiohttp" not in response.head + response.body
    assert not [record for record in caplog.records if record.exc_info]


async def test_names_follow_the_configuration_in_force(gate: RunningGate) -> None:
    """A name that a reload adds is answered to at once, one that it drops no longer."""
    # The address as it is written: what listens stays.
    server = {"admin_listen": "127.0.0.1:0", "admin_hosts": ["new.example.com"]}
    settings = make_settings(server=server)
    assert (await admin(gate, request_bytes("/healthz", host="new.example.com"))).status == 421

    await gate.server.swap(await asyncio.to_thread(build, settings, gate.generation.process_state))

    statuses = [
        (await admin(gate, request_bytes("/healthz", host=name))).status
        for name in ("new.example.com", "metrics.example.com")
    ]
    assert statuses == [200, 421]


async def test_what_may_be_asked_is_told(gate: RunningGate) -> None:
    """A method that a page does not take gets those that it does."""
    asked = request_bytes("/status", method="DELETE", host="localhost")
    assert (await admin(gate, asked)).value("Allow") == "GET, HEAD"


@pytest.mark.both_loops
async def test_commands_ask_over_a_socket_in_the_file_system(tmp_path: Path) -> None:
    """What the commands send is answered there too."""
    path = tmp_path / "admin.sock"
    settings = make_settings(server={"admin_listen": f"unix:{path}"})
    async with running_gate(settings, tmp_path / "log"):
        status, body = await asked(UnixAddress(str(path)))

    assert (status, json.loads(body)["ready"]) == (200, True)


async def asked(where: UnixAddress) -> tuple[int, bytes]:
    """Ask as the commands do, beside the loop that answers."""
    return await asyncio.to_thread(exchange, where, "GET", "/status", seconds=60)


async def _said_behind_the_end(gate: RunningGate, data: bytes) -> bytes:
    """Send bytes, close that side, and return all that comes until the gate closes its own."""
    reader, writer = await asyncio.open_connection(*gate.admin_address)
    writer.write(data)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


@pytest.mark.both_loops
@pytest.mark.parametrize("count", [1, 3])
async def test_a_half_closed_client_gets_its_answers(gate: RunningGate, count: int) -> None:
    """What was asked before the client ended its side is answered, then the connection closes."""
    data = request_bytes("/metrics", host="localhost") * count
    async with asyncio.timeout(40):
        said = await _said_behind_the_end(gate, data)

    assert (
        said.count(b"HTTP/1.1 200 OK\r\n")
        == said.count(b'collections_total{generation="2"}')
        == count
    )


@pytest.mark.both_loops
@pytest.mark.parametrize("data", [b"", b"GET /status HTTP/1.1\r\nHost: localh", b"\x00\r\n\r\n"])
async def test_an_end_without_a_request_closes(gate: RunningGate, data: bytes) -> None:
    """A client that ends its side before a whole request keeps no connection open."""
    async with asyncio.timeout(40):
        said = await _said_behind_the_end(gate, data)

    assert said.partition(b"\r\n")[0] in {b"", b"HTTP/1.0 400 Bad Request"}


@pytest.mark.both_loops
async def test_a_half_closed_client_with_half_a_body_is_let_go(gate: RunningGate) -> None:
    """A request whose body ends early is not whole: the connection closes, at once."""
    data = request_bytes("/reload", method="POST", host="localhost", **{"Content-Length": "9"})
    async with asyncio.timeout(40):
        said = await _said_behind_the_end(gate, data + b"half")

    assert said == b"" or said.startswith(b"HTTP/1.1 4")


async def test_metrics_come_in_the_format_that_is_accepted(gate: RunningGate) -> None:
    """Prometheus's text by default; OpenMetrics, whole with its end, where that is accepted."""
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    plain = await admin(gate, request_bytes("/metrics", host="localhost"))
    open_ = await admin(gate, request_bytes("/metrics", host="localhost", Accept=accept))

    assert plain.value("Content-Type").startswith("text/plain; version=0.0.4")
    assert open_.value("Content-Type").startswith("application/openmetrics-text; version=1.0.0")
    assert open_.body.endswith(b"\n# EOF\n")
    document = open_.body.decode()
    found = {family.name for family in openmetrics(document)}  # type: ignore[no-untyped-call]
    read = {family.name for family in text_string_to_metric_families(plain.body.decode())}
    assert found == read
    assert {"gate_requests", "process_open_fds", "python_gc_collections"} <= found
