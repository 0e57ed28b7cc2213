"""The process: listeners, the admin port, and an end that lets requests finish."""

import asyncio
import logging
import os
import socket
import stat
import subprocess
import sys
from asyncio import IncompleteReadError
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gatekit import (
    OK,
    PausedAnswer,
    RawClient,
    RawUpstream,
    Received,
    RunningGate,
    ask,
    break_route,
    request_bytes,
)
from process import free_port
from prometheus_client.parser import text_string_to_metric_families
from wirekit import heard

from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.serving.server import StartError

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]


async def _admin(gate: RunningGate, path: str) -> tuple[int, str]:
    host, port = gate.admin_address
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_the_admin_listener_tells_health_and_metrics(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Health, readiness, status and metrics are on the admin port and not on the public one."""
    gate = await start_gate(upstream.url, server={"admin_listen": "127.0.0.1:0"})
    await ask(gate.port, request_bytes("/x?secret=1", Cookie=gate.cookie()))
    await ask(gate.port, request_bytes("/x"))

    assert await _admin(gate, "/healthz") == (200, "ok\n")
    assert await _admin(gate, "/readyz") == (200, "ready\n")
    status, text = await _admin(gate, "/status")
    assert status == 200
    assert '"name": "tool"' in text
    assert "q8Zr1X" not in text
    assert "app-secret" not in text
    status, text = await _admin(gate, "/metrics")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    labels = (("method", "GET"), ("route", "tool"))
    assert samples["gate_requests_total", ("code", "200"), *labels] == 1
    assert samples["gate_requests_total", ("code", "401"), *labels] == 1
    assert samples["gate_decisions_total", ("reason", "signed-in"), ("route", "tool")] == 1
    assert samples[("gate_websockets_open",)] == 0
    for path in ("/healthz", "/readyz", "/metrics", "/status"):
        assert (await ask(gate.port, request_bytes(path))).status == 401
    assert (await _admin(gate, "/nothing"))[0] == 404


async def test_metrics_tell_of_the_process_and_of_tokens_that_expire(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Descriptors, memory and the collector are told, and when the next token expires."""
    tokens = [
        {"name": "ci", "hash": hash_of(make_token(bytes(32))), "expires": "2027-03-01"},
        {"name": "backup", "hash": hash_of(make_token(b"1" * 32))},
    ]
    gate = await start_gate(upstream.url, server={"admin_listen": "127.0.0.1:0"}, token=tokens)
    _, text = await _admin(gate, "/metrics")
    samples = {
        (sample.name, *sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    assert samples[("process_open_fds",)] > 3
    assert samples[("process_resident_memory_bytes",)] > 1 << 20
    assert ("python_gc_collections_total", ("generation", "2")) in samples
    assert samples[("gate_token_next_expiry_timestamp_seconds",)] == 1803859200


async def test_a_client_that_is_gone_without_a_word_is_noticed(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """The kernel asks every silent connection whether its other end is still there."""
    gate = await start_gate(upstream.url)
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes("/x"))
        await client.response()
        (connection,) = gate.server._server.connections
        found = connection.transport.get_extra_info("socket")

        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def test_open_requests_finish_and_new_ones_are_refused(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """After the order to stop, a request under way gets its answer; nobody new is let in."""
    upstream.answer = paused = PausedAnswer()
    server = {"admin_listen": "127.0.0.1:0", "shutdown_timeout": "1m"}
    gate = await start_gate(upstream.url, server=server)
    port = gate.port
    async with RawClient.connect(port) as idle, RawClient.connect(port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        await paused.arrived.wait()
        stopping = asyncio.create_task(gate.server.stop())
        assert await idle.reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert await _admin(gate, "/readyz") == (503, "draining\n")
        paused.go_on.set()

        assert (await client.response()).body == b"ok"
        assert await client.reader.read() == b""
    await stopping


async def test_an_upload_under_way_finishes(start_gate: Start, upstream: RawUpstream) -> None:
    """After the order to stop, the rest of a body still arrives, and its answer too."""
    arrived = asyncio.Event()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request.body = await reader.readexactly(3)
        arrived.set()
        request.body += await reader.readexactly(3)
        writer.write(OK)

    upstream.answer = answer
    gate = await start_gate(upstream.url, server={"shutdown_timeout": "1m"})
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(method="PUT", Cookie=gate.cookie(), Content_Length="6") + b"abc")
        await arrived.wait()
        stopping = asyncio.create_task(gate.server.stop())
        await asyncio.sleep(0)
        client.send(b"def")

        assert (await client.response()).body == b"ok"
        assert await client.reader.read() == b""
    await stopping
    assert upstream.requests[0].body == b"abcdef"


async def test_a_second_order_to_stop_waits_for_nobody(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """`hurry`, which a second signal calls, cuts open requests off at once."""
    upstream.answer = paused = PausedAnswer()
    gate = await start_gate(upstream.url, server={"shutdown_timeout": "1h"})
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        await paused.arrived.wait()
        stopping = asyncio.create_task(gate.server.stop())
        await asyncio.sleep(0)
        gate.server.hurry()
        await stopping

        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_a_request_past_the_limit_is_cut_off(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """A request that does not finish within shutdown_timeout does not keep the gate."""
    upstream.answer = paused = PausedAnswer()
    gate = await start_gate(upstream.url, server={"shutdown_timeout": "0"})
    async with RawClient.connect(gate.port) as client:
        client.send(request_bytes(Cookie=gate.cookie()))
        await paused.arrived.wait()
        await gate.server.stop()

        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_it_listens_on_a_unix_socket(
    start_gate: Start, upstream: RawUpstream, tmp_path: Path
) -> None:
    """A unix: address serves, and a socket left behind by a crash is no obstacle."""
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    gate = await start_gate(upstream.url, server={"listen": [f"unix:{path}"]})
    reader, writer = await asyncio.open_unix_connection(path)
    client = RawClient(reader, writer)
    client.send(request_bytes(Cookie=gate.cookie()))

    assert (await client.response()).status == 200
    writer.close()
    assert upstream.requests[0].value("X-Forwarded-For") == b"127.0.0.1"


async def test_every_address_takes_both_versions_of_ip(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """`[::]` is reached by IPv4 and by IPv6, and an IPv4 client is known by its own address."""
    gate = await start_gate(
        upstream.url,
        server={"listen": ["[::]:0"]},
        route=[{"name": "tool", "allow": ["public"]}],
    )
    for host in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(host, gate.port)
        client = RawClient(reader, writer)
        client.send(request_bytes())
        assert (await client.response()).status == 200
        writer.close()

    seen = [request.value("X-Forwarded-For") for request in upstream.requests]
    assert seen == [b"127.0.0.1", b"::1"]
    assert {connection.peer for connection in gate.server._server.connections} <= {
        *("127.0.0.1", "::1")
    }


async def test_both_versions_of_ip_can_be_listed(start_gate: Start) -> None:
    """Where every IPv4 address is listed beside it, `[::]` leaves those to it."""
    port = free_port()
    gate = await start_gate(server={"listen": [f"0.0.0.0:{port}", f"[::]:{port}"]})

    assert sorted(gate.addresses_of("listen")) == [("0.0.0.0", port), ("::", port)]  # noqa: S104 - compared only


async def test_a_unix_socket_has_the_mode_and_group_that_are_named(
    start_gate: Start, tmp_path: Path
) -> None:
    """The proxy in front can be let in by its group, before the socket has its name."""
    path = tmp_path / "gate.sock"
    group = next(iter(os.getgroups()), os.getgid())
    gate = await start_gate(
        server={"listen": [f"unix:{path}"], "unix_mode": "0620", "unix_group": str(group)}
    )

    found = await asyncio.to_thread(path.stat)
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o620, group)
    assert gate.addresses_of("listen") == []
    left = await asyncio.to_thread(lambda: sorted(one.name for one in tmp_path.iterdir()))
    assert [name for name in left if name.startswith(".")] == []


async def test_the_admin_socket_is_for_the_gates_user_alone(
    start_gate: Start, tmp_path: Path
) -> None:
    """Its mode is not that of the visitors' socket."""
    path = tmp_path / "admin.sock"
    await start_gate(server={"admin_listen": f"unix:{path}", "unix_mode": "0666"})

    assert stat.S_IMODE((await asyncio.to_thread(path.stat)).st_mode) == 0o600


@pytest.mark.parametrize("key", ["listen", "admin_listen"])
async def test_a_socket_that_somebody_listens_on_is_not_taken(
    start_gate: Start, tmp_path: Path, key: str
) -> None:
    """A second gate on one socket ends with a message, and the first goes on."""
    address = f"unix:{tmp_path / 'gate.sock'}"
    await start_gate(server={"listen": [address]})

    with pytest.raises(StartError, match=rf"cannot listen on {address}: Address already in use"):
        await start_gate(server={key: address})

    _, writer = await asyncio.open_unix_connection(tmp_path / "gate.sock")
    writer.close()


async def test_a_file_in_the_place_of_a_socket_stays(start_gate: Start, tmp_path: Path) -> None:
    """What is not a socket may be somebody's work."""
    path = tmp_path / "gate.sock"
    await asyncio.to_thread(path.write_text, "work")

    with pytest.raises(StartError, match="a file that is not a socket has this name"):
        await start_gate(server={"listen": [f"unix:{path}"]})

    assert await asyncio.to_thread(path.read_text) == "work"


async def test_a_group_that_is_not_there_is_said(start_gate: Start, tmp_path: Path) -> None:
    """The start ends, and leaves no socket behind."""
    with pytest.raises(StartError, match="there is no group nobodys-group"):
        await start_gate(
            server={"listen": [f"unix:{tmp_path}/gate.sock"], "unix_group": "nobodys-group"}
        )

    left = await asyncio.to_thread(lambda: [one.name for one in tmp_path.iterdir()])
    assert left in ([], ["access.log"])


async def test_an_address_in_use_is_said_plainly(start_gate: Start) -> None:
    """A port that is taken ends the start with the address in the message."""
    gate = await start_gate()

    with pytest.raises(StartError, match=rf"cannot listen on 127\.0\.0\.1:{gate.port}: "):
        await start_gate(server={"listen": [f"127.0.0.1:{gate.port}"]})


async def test_it_starts_while_tailchat_is_down(start_gate: Start, upstream: RawUpstream) -> None:
    """Nothing is asked of Tailchat at the start, so the order of starting does not matter."""
    gate = await start_gate(upstream.url, tailchat={"api_url": "http://127.0.0.1:1"})

    assert (await ask(gate.port, request_bytes("/ping"))).body == b"OK\n"


async def test_a_fault_inside_the_gate_denies(
    gate: RunningGate,
    upstream: RawUpstream,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unexpected error is a 500 with the request id, logged once, and nothing is forwarded."""
    break_route(gate, "tool")
    with caplog.at_level(logging.ERROR):
        response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))

    assert (response.status, response.json["error"]) == (500, "internal-error")
    assert upstream.requests == []
    assert [record.message for record in caplog.records] == ["a request failed inside the gate"]


async def test_a_refusal_that_fails_ends_the_connection(
    gate: RunningGate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where even the 500 cannot be made, the client is not left waiting."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(gate.generation.gate.refusals.answers), "serialize", fail)
    with caplog.at_level(logging.ERROR), pytest.raises((IncompleteReadError, ConnectionError)):
        await ask(gate.port, request_bytes())

    assert [record.message for record in caplog.records] == [
        "a request failed inside the gate",
        "a refusal failed inside the gate",
    ]


async def test_a_refusal_that_fails_frees_its_slot_once(
    start_gate: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the answer for a tool that is down cannot be made, its connection ends, and only it."""
    gate = await start_gate("http://127.0.0.1:9", route=[{"name": "a", "allow": ["public"]}])
    monkeypatch.setattr(type(gate.generation.gate.refusals.answers), "serialize", _fail)

    await _ends_without_an_answer(gate)


async def test_a_refusal_that_fails_in_a_response_ends_its_connection(
    start_gate: Start,
    upstream: RawUpstream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the answer for a malformed response cannot be made, the client does not wait for it."""
    upstream.answer = b"no HTTP at all\r\n\r\n"
    gate = await start_gate(upstream.url, route=[{"name": "a", "allow": ["public"]}])
    monkeypatch.setattr(type(gate.generation.gate.refusals.answers), "serialize", _fail)

    await _ends_without_an_answer(gate)
    assert "ZeroDivisionError" in caplog.text


async def test_a_response_that_cannot_be_recorded_ends_its_connection(
    start_gate: Start, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the record of a complete response frees the slot, and ends the connection."""
    gate = await start_gate(upstream.url, route=[{"name": "a", "allow": ["public"]}])
    monkeypatch.setattr(type(gate.generation.gate.recorder.metrics), "request", _fail)

    for _ in range(2):
        async with RawClient.connect(gate.port) as client:
            client.send(request_bytes())
            with suppress(ConnectionError):
                assert (await client.reader.read()).endswith(b"ok")
    assert _entered(gate) == [0]


async def test_a_page_that_cannot_be_recorded_ends_its_connection(
    start_gate: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in the record of the gate's own page is in the log, and its client does not wait."""
    gate = await start_gate()
    monkeypatch.setattr(type(gate.generation.gate.recorder.metrics), "request", _fail)
    async with RawClient.connect(gate.port) as client, asyncio.timeout(60):
        client.send(request_bytes("/oauth2/sign_in"))
        await heard(client)

    assert [record.message for record in caplog.records] == ["a request failed inside the gate"]


def _fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError


def _entered(gate: RunningGate) -> list[int]:
    return [pool.entered for pool in gate.generation.process_state.upstream_pools.pools]


async def _ends_without_an_answer(gate: RunningGate) -> None:
    for _ in range(2):
        with pytest.raises((IncompleteReadError, ConnectionError)):
            await ask(gate.port, request_bytes())
    assert _entered(gate) == [0]


@pytest.mark.parametrize(("allow", "status"), [("signed-in", 401), ("public", 502)])
async def test_an_origin_in_other_letters_is_answered(
    start_gate: Start, allow: str, status: int
) -> None:
    """Below a wildcard any text may stand in an Origin field: no refusal repeats it."""
    routes = [{"name": "a", "allow": [allow]}, {"name": "b", "host": "*.lab.test"}]
    gate = await start_gate("http://127.0.0.1:9", route=routes)
    data = b"GET / HTTP/1.1\r\nHost: gate.test\r\nOrigin: http://\xe9.lab.test\r\n\r\n"
    response = await ask(gate.port, data)

    assert response.status == status
    assert response.values("Access-Control-Allow-Origin") == []


async def test_what_cannot_be_parsed_is_one_line_and_no_traceback(
    gate: RunningGate, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken request is answered 400, counted and logged in one line."""
    response = await ask(gate.port, b"GET / HTTP/1.1\r\nHost : gate.test\r\n\r\n")

    assert (response.status, response.json["error"]) == (400, "bad-request")
    assert caplog.records == []
    lines = await gate.log()
    assert [(line["status"], line["reason"]) for line in lines] == [(400, "bad-request")]


def test_no_later_error_begins_with_a_missing_uvloop() -> None:
    """Without the package the loop runs outside of what handles its absence."""
    program = (
        "import sys\n"
        "sys.modules['uvloop'] = None\n"
        "from tailchat_gate.serving.process import run_loop\n"
        "async def look(): print(sys.exception())\n"
        "run_loop(look())\n"
    )
    ran = subprocess.run(
        (sys.executable, "-c", program), capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.stdout, ran.stderr) == ("None\n", "")


async def test_a_gate_that_never_opened_is_not_said_to_be_closed(
    start_gate: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """A start that fails says why, and nothing of an end."""
    gate = await start_gate()
    with caplog.at_level(logging.INFO, LOGGER_NAME), pytest.raises(StartError):
        await start_gate(server={"listen": [f"127.0.0.1:{gate.port}"]})

    assert "the gate is closed" not in [record.message for record in caplog.records]
