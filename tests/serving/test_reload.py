"""A configuration that is loaded while the gate serves: whole, at once, and only if it is good."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest
from gatekit import (
    OK,
    SECRET,
    SUB,
    Clock,
    PausedAnswer,
    RawClient,
    RawUpstream,
    Received,
    ask,
    listening,
    make_settings,
    request_bytes,
    until,
)
from reloadkit import FileGate, file_gate
from tlskit import Authority, write_key

from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.observe.log import LOGGER_NAME, SinkHandler
from tailchat_gate.observe.sink import Sink, SinkFile
from tailchat_gate.request.field_names import ORDER_HEADER
from tailchat_gate.serving.reload import Reloader, StoppingError
from tailchat_gate.serving.server import GateServer
from tailchat_gate.serving.wiring.build import build

OTHER_SECRET = "w7Tn3LqYv9HsKd2RmXc5JzBf8GpVe4UaNi6QoWtE"


@pytest.fixture
async def gate(tmp_path: Path, upstream: RawUpstream, clock: Clock) -> AsyncIterator[FileGate]:
    """Return a gate that serves a file with one route, for everybody who is signed in."""
    async with file_gate(tmp_path, upstream.url, clock) as found:
        yield found


def _admitted(gate: FileGate) -> bytes:
    return request_bytes(Cookie=gate.gate.cookie())


# What takes effect, on a connection that was open before


@pytest.mark.both_loops
@pytest.mark.usefixtures("_reuses_late")
async def test_the_next_request_on_an_open_connection_is_answered_anew(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """Headers, Via, Host and path change with the next request; the tool's connection stays."""
    async with RawClient.connect(gate.port) as client:
        client.send(_admitted(gate))
        assert (await client.response()).status == 200
        await gate.change(
            server={"via": "other"},
            route=[
                {
                    "name": "tool",
                    "headers": {"X-Who": "{sub}"},
                    "upstream_host": "tool.lan",
                    "upstream_path": "/inner",
                }
            ],
        )
        client.send(_admitted(gate))
        assert (await client.response()).status == 200

    first, second = upstream.requests
    assert (first.value("X-Who"), first.value("Via")) == (None, b"1.1 tailchat-gate")
    assert (second.value("X-Who"), second.value("Via")) == (SUB.encode(), b"1.1 other")
    assert second.value("Host") == b"tool.lan"
    assert second.line == b"GET /inner/ HTTP/1.1"
    assert upstream.connections == 1


async def test_groups_change_for_an_open_session_at_once(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """Taking a sub out of its group refuses the next request, on the same connection, and back."""
    route = [{"name": "tool", "allow": ["group:ops"], "headers": {"X-Groups": "{groups}"}}]
    async with RawClient.connect(gate.port) as client:
        statuses = []
        for subs in ([SUB], ["660000000000000000000009"], [SUB]):
            await gate.change(groups={"ops": subs}, route=route)
            client.send(_admitted(gate))
            statuses.append((await client.response()).status)

    assert statuses == [200, 403, 200]
    assert [request.value("X-Groups") for request in upstream.requests] == [b"ops", b"ops"]


@pytest.mark.both_loops
async def test_trusted_proxies_change_for_an_open_connection(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """The same bytes on the same connection are believed, and no longer believed, at once."""
    data = request_bytes(
        Cookie=gate.gate.cookie(), X_Forwarded_For="203.0.113.7", X_Forwarded_Proto="https"
    )
    async with RawClient.connect(gate.port) as client:
        for trusted in ([], ["127.0.0.1"], [], ["127.0.0.0/8"], ["10.0.0.0/8"]):
            await gate.change(server={"trusted_proxies": trusted})
            client.send(data)
            assert (await client.response()).status == 200

    seen = [(r.value("X-Forwarded-For"), r.value("X-Forwarded-Proto")) for r in upstream.requests]
    believed, own = (b"203.0.113.7, 127.0.0.1", b"https"), (b"127.0.0.1", b"http")
    assert seen == [own, believed, own, believed, own]


async def test_limits_change_for_an_open_connection(gate: FileGate) -> None:
    """A header that was read before is too many after, and read again later."""
    data = request_bytes(Cookie=gate.gate.cookie(), **{f"X_{n}": "1" for n in range(10)})
    statuses = []
    for count in (128, 8, 128):
        await gate.change(limits={"header_count": count})
        async with RawClient.connect(gate.port) as client:
            client.send(data)
            statuses.append((await client.response()).status)

    assert statuses == [200, 431, 200]


@pytest.mark.both_loops
async def test_a_head_that_came_in_part_is_judged_by_what_is_in_force_when_it_is_whole(
    gate: FileGate,
) -> None:
    """The second half of a head may meet another limit than the first."""
    data = request_bytes(Cookie=gate.gate.cookie(), X_Long="x" * 4000)
    async with RawClient.connect(gate.port) as client:
        client.send(data[:1200])
        await asyncio.sleep(0)
        await gate.change(limits={"header_bytes": 1024, "cookie_bytes": 1024})
        client.send(data[1200:])

        assert (await client.response()).status == 431


@pytest.mark.both_loops
async def test_the_requests_behind_one_that_is_under_way_are_answered_anew(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """Of requests sent at once the first keeps its configuration, the others get the new one."""
    upstream.answer = held = PausedAnswer()
    async with RawClient.connect(gate.port) as client:
        client.send(_admitted(gate) * 3)
        await held.arrived.wait()
        await gate.change(server={"via": "other"})
        held.go_on.set()
        assert [(await client.response()).status for _ in range(3)] == [200, 200, 200]

    seen = [request.value("Via") for request in upstream.requests]
    assert seen == [b"1.1 tailchat-gate", b"1.1 other", b"1.1 other"]


async def test_a_secret_in_front_keeps_sessions_and_one_taken_out_ends_them(
    gate: FileGate,
) -> None:
    """Sessions survive a rotation, and end at once when their secret goes."""
    secret = gate.gate.generation.settings.session.secrets[0].get_secret_value()
    data = _admitted(gate)
    async with RawClient.connect(gate.port) as client:
        statuses = []
        for secrets in ([OTHER_SECRET, secret], [OTHER_SECRET], [secret]):
            await gate.change(session={"secrets": secrets})
            client.send(data)
            statuses.append((await client.response()).status)

    assert statuses == [200, 401, 200]


async def test_who_is_denied_is_refused_at_once(gate: FileGate) -> None:
    """access.deny and a token that is taken out hold with the next request on a connection."""
    machine = make_token(bytes(32))
    tables = {
        "token": [{"name": "ci", "hash": hash_of(machine)}],
        "route": [{"name": "tool", "allow": ["signed-in", "token:ci"]}],
    }
    refusing = {
        "access": {"deny": [f"sub:{SUB}"]},
        "token": [{"name": "ci", "hash": hash_of(make_token(bytes([1]) * 32))}],
        "route": tables["route"],
    }
    statuses = []
    async with RawClient.connect(gate.port) as client:
        for change in (tables, refusing, tables):
            await gate.change(**change)
            for data in (_admitted(gate), request_bytes(Authorization=f"Bearer {machine}")):
                client.send(data)
                statuses.append((await client.response()).status)

    assert statuses == [200, 200, 403, 401, 200, 200]


async def test_a_new_key_signs_when_every_tool_can_know_it(
    gate: FileGate, upstream: RawUpstream, clock: Clock, tmp_path: Path
) -> None:
    """A key put in front is published at once and signs five minutes later.

    One in a file that is refused is not published, and changes nothing for who signs.
    """
    one = await asyncio.to_thread(write_key, tmp_path / "one.pem")
    two = await asyncio.to_thread(write_key, tmp_path / "two.pem")

    async def kids() -> tuple[list[str], str]:
        """Return the names of the published keys, and that of the one that signs."""
        key_set = (await ask(gate.port, request_bytes("/oauth2/jwks.json"))).json
        await ask(gate.port, _admitted(gate))
        signed = upstream.requests[-1].value("X-Tailchat-Assertion")
        assert signed is not None
        kid = str(jwt.get_unverified_header(signed.decode())["kid"])
        return [found["kid"] for found in key_set["keys"]], kid

    await gate.change(assertion={"key_files": [one]})
    ((first,), signing) = await kids()
    assert signing == first
    clock.now += 301
    async with listening(lambda *_: None) as port:
        listen = f"127.0.0.1:{port}"
        await gate.write(server={"listen": listen}, assertion={"key_files": [two]})
        assert (await gate.load()).problems[0].key_path == "server.listen"
    clock.now += 301
    assert await kids() == ([first], first)

    await gate.change(assertion={"key_files": [two, one]})
    ((second, old), signing) = await kids()
    assert (old, signing) == (first, first)
    clock.now += 301
    assert await kids() == ([second, first], second)


@pytest.mark.both_loops
async def test_a_shorter_lifetime_ends_open_sessions(gate: FileGate, clock: Clock) -> None:
    """A session that is older than the new lifetime is over with the next request."""
    data = _admitted(gate)
    clock.now += 3600
    async with RawClient.connect(gate.port) as client:
        client.send(data)
        assert (await client.response()).status == 200
        await gate.change(session={"lifetime": "30m"})
        client.send(data)
        assert (await client.response()).status == 401


async def test_the_gates_own_paths_move(gate: FileGate, upstream: RawUpstream) -> None:
    """Another prefix takes the gate's pages with it, and gives the old path to the tool."""
    await gate.change(server={"prefix": "/door"}, pages={"contact": "ops@example.com"})

    page = await ask(gate.port, request_bytes("/door/userinfo", Cookie=gate.gate.cookie()))
    old = await ask(gate.port, request_bytes("/oauth2/userinfo", Cookie=gate.gate.cookie()))
    assert (page.status, page.json["sub"]) == (200, SUB)
    assert (old.status, old.body) == (200, b"ok")
    refused = await ask(gate.port, request_bytes(Accept="text/html", Sec_Fetch_Mode="navigate"))
    assert refused.value("Location").startswith("http://gate.test/door/start")


async def test_the_cookies_that_a_tool_may_not_set_follow_the_public_url(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """With https the gate's cookies have another name, which kept connections know too."""
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: door=1\r\nSet-Cookie: __Host-door=2\r\n"
        b"Set-Cookie: tailchat_gate=3\r\nContent-Length: 2\r\n\r\nok"
    )
    await gate.change(session={"cookie_name": "door"})
    before = await ask(gate.port, _admitted(gate))
    await gate.change(session={"cookie_name": "door"}, server={"public_url": "https://gate.test"})
    after = await ask(gate.port, _admitted(gate))

    assert before.values("Set-Cookie") == ["__Host-door=2"]
    assert after.values("Set-Cookie") == ["door=1"]


@pytest.mark.both_loops
async def test_an_idle_connection_waits_no_longer_than_the_new_limit(gate: FileGate) -> None:
    """A connection that may idle for an hour is closed soon after the limit became short."""
    await gate.change(server={"keepalive_timeout": "1h"})
    async with RawClient.connect(gate.port) as client:
        client.send(_admitted(gate))
        assert (await client.response()).status == 200
        await gate.change(server={"keepalive_timeout": "1s"})

        assert await client.reader.read() == b""


async def test_the_access_log_is_turned_off_and_on(gate: FileGate) -> None:
    """log.access changes with a reload, and the request ids go on."""
    for access in (True, False, True):
        await gate.change(log={"access": access})
        await ask(gate.port, request_bytes(f"/{access}", Cookie=gate.gate.cookie()))

    lines = await gate.gate.log()
    assert [line["path"] for line in lines] == ["/True", "/True"]
    first, last = (int(line["id"], 16) for line in lines)
    assert last == first + 2


async def test_the_log_level_changes(gate: FileGate, tmp_path: Path) -> None:
    """log.level changes with a reload, for what is written."""
    root, log = logging.getLogger(), logging.getLogger(LOGGER_NAME)
    descriptor = await asyncio.to_thread(os.open, tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    handler = SinkHandler(Sink("gate", SinkFile(descriptor)))
    root.addHandler(handler)
    try:
        await gate.change(log={"level": "error"})
        log.warning("left out")
        await gate.change(log={"level": "debug"})
        log.debug("written")
    finally:
        root.removeHandler(handler)
        await asyncio.to_thread(handler.sink.close_and_log, 5.0)
        await asyncio.to_thread(os.close, descriptor)

    written = await asyncio.to_thread((tmp_path / "log").read_text)
    assert ("left out" in written, "written" in written) == (False, True)


async def test_counts_go_on_and_those_of_a_route_that_is_gone_are_forgotten(
    gate: FileGate,
) -> None:
    """Metrics are not reset by a reload; a route's go when its last configuration is closed."""
    await ask(gate.port, _admitted(gate))
    await gate.change(route=[{"name": "tool"}, {"name": "new", "path": "/new"}])
    await ask(gate.port, _admitted(gate))
    counted = 'gate_requests_total{code="200",method="GET",route="tool"} 2.0'
    assert counted in (await gate.ask_admin("/metrics"))[1]
    await gate.change(route=[{"name": "new"}])
    await until(lambda: not gate.gate.server.generations.retired)
    await ask(gate.port, _admitted(gate))

    text = (await gate.ask_admin("/metrics"))[1]
    assert 'route="tool"' not in text
    assert 'gate_requests_total{code="200",method="GET",route="new"} 1.0' in text


# What stays


@pytest.mark.both_loops
async def test_a_request_under_way_keeps_its_configuration(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """A request whose route is taken away while the tool works still gets its answer."""
    upstream.answer = held = PausedAnswer()
    async with RawUpstream() as other, RawClient.connect(gate.port) as client:
        client.send(_admitted(gate))
        await held.arrived.wait()
        await gate.change(route=[{"name": "other", "upstream": other.url}])
        client.send(_admitted(gate))
        held.go_on.set()

        assert (await client.response()).body == b"ok"
        assert (await client.response()).status == 200
        assert (len(upstream.requests), len(other.requests)) == (1, 1)
    lines = await gate.gate.log()
    assert [line["route"] for line in lines] == ["tool", "other"]


@pytest.mark.both_loops
async def test_an_upload_under_way_keeps_its_configuration(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """A body that is half sent arrives whole, whatever the new configuration allows."""
    body = b"x" * 5000
    head = request_bytes(method="PUT", Cookie=gate.gate.cookie(), Content_Length=str(len(body)))
    async with RawClient.connect(gate.port) as client:
        client.send(head + body[:100])
        await until(lambda: bool(upstream.requests))
        await gate.change(
            server={"body_timeout": "1s"}, route=[{"name": "tool", "max_body_bytes": 10}]
        )
        client.send(body[100:])
        assert (await client.response()).status == 200
        client.send(head)
        assert (await client.response()).status == 413

    assert upstream.requests[0].body == body


@pytest.mark.both_loops
async def test_a_time_limit_of_a_request_under_way_still_holds(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """A tool that is too slow by the old configuration is given up on after the reload."""
    await gate.change(route=[{"name": "tool", "response_timeout": "1s"}])
    upstream.answer = held = PausedAnswer()
    async with RawClient.connect(gate.port) as client:
        client.send(_admitted(gate))
        await held.arrived.wait()
        await gate.change(route=[{"name": "tool", "response_timeout": "0"}])
        response = await client.response()

    assert (response.status, response.json["error"]) == (504, "upstream-slow")


@pytest.mark.both_loops
async def test_a_body_under_way_may_take_as_long_as_it_might_before(
    gate: FileGate, upstream: RawUpstream
) -> None:
    """A longer body_timeout does not help an upload that has begun, and a shorter one not hurt."""
    head = request_bytes(method="PUT", Cookie=gate.gate.cookie(), Content_Length="5")
    await gate.change(server={"body_timeout": "1s"})
    async with RawClient.connect(gate.port) as stalled, RawClient.connect(gate.port) as patient:
        stalled.send(head)
        await until(lambda: len(upstream.requests) == 1)
        await gate.change(server={"body_timeout": "1h"})
        patient.send(head)
        await until(lambda: len(upstream.requests) == 2)
        await gate.change(server={"body_timeout": "1s"})
        assert (await stalled.response()).status == 408
        patient.send(b"whole")
        assert (await patient.response()).status == 200


@pytest.mark.both_loops
async def test_a_stream_goes_on(gate: FileGate, upstream: RawUpstream) -> None:
    """Events keep coming over several reloads."""
    steps: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Content-Length: 30\r\n\r\n")
        for _ in range(3):
            writer.write(await steps.get())

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(_admitted(gate))
        await client.head()
        for number in range(3):
            await gate.change(server={"via": f"v{number}"})
            event = b"data: 00%d\n" % number
            steps.put_nowait(event[:10])
            assert await client.reader.readexactly(10) == event[:10]


@pytest.mark.both_loops
async def test_a_websocket_goes_on_and_still_ends_with_its_session(
    gate: FileGate, upstream: RawUpstream, clock: Clock
) -> None:
    """A WebSocket outlives reloads, also of its route by another, but not its session."""

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        while data := await reader.read(100):
            writer.write(data)

    upstream.answer = answer
    async with RawClient.connect(gate.port) as client:
        client.send(
            request_bytes(Cookie=gate.gate.cookie(), Connection="Upgrade", Upgrade="websocket")
        )
        await client.head()
        await gate.change(route=[{"name": "other", "upstream": "static:204"}])
        await gate.change(session={"secrets": [OTHER_SECRET, SECRET]})
        client.send(b"\x82\x04ping")
        assert await client.reader.readexactly(6) == b"\x82\x04ping"
        assert await gate.metric("gate_websockets_open") == 1
        clock.now += 12 * 3600 + 1

        assert (await client.reader.readexactly(4))[2:] == (3000).to_bytes(2, "big")
    await until(lambda: not gate.gate.generation.process_state.upstream_pools.tunnels)


# Files and addresses


@pytest.mark.both_loops
async def test_another_certificate_in_the_same_file_takes_effect(
    tmp_path: Path, clock: Clock
) -> None:
    """tls_ca is read again: a tool whose authority is no longer in it is refused."""
    right, wrong = [
        await asyncio.to_thread(Authority.create, tmp_path, name) for name in ("right", "wrong")
    ]
    good = await asyncio.to_thread(right.file.read_bytes)
    bad = await asyncio.to_thread(wrong.file.read_bytes)
    issued = await asyncio.to_thread(right.issue, "localhost")
    context = await asyncio.to_thread(issued.server_context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)

    authorities = tmp_path / "ca.pem"
    await asyncio.to_thread(authorities.write_bytes, good)
    route = [{"name": "tool", "tls_ca": str(authorities)}]
    statuses, told = [], []
    async with (
        listening(serve, tls=context) as port,
        file_gate(tmp_path, f"https://localhost:{port}", clock, route=route) as gate,
    ):
        for content in (good, bad, good):
            await asyncio.to_thread(authorities.write_bytes, content)
            told.append((await gate.load()).changes)
            statuses.append((await ask(gate.port, _admitted(gate))).status)
        await asyncio.to_thread(authorities.write_bytes, b"no certificate")
        refused = await gate.load()
        statuses.append((await ask(gate.port, _admitted(gate))).status)

    assert statuses == [200, 502, 200, 200]
    assert told[1:] == [(f"file {authorities}",), (f"file {authorities}",)]
    assert [problem.key_path for problem in refused.problems] == ["route[0].tls_ca"]


@pytest.mark.both_loops
async def test_listeners_are_opened_and_closed(
    gate: FileGate, upstream: RawUpstream, tmp_path: Path
) -> None:
    """A new address serves, one that is gone takes nobody new, and its connections live on."""
    path = tmp_path / "gate.sock"
    first = gate.port
    async with RawClient.connect(first) as client:
        await gate.change(server={"listen": ["127.0.0.1:0", f"unix:{path}"]})
        assert gate.port == first
        await gate.change(server={"listen": [f"unix:{path}"]})
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", first)
        reader, writer = await asyncio.open_unix_connection(path)
        other = RawClient(reader, writer)
        for one in (client, other):
            one.send(_admitted(gate))
            assert (await one.response()).status == 200
        writer.close()


@pytest.mark.both_loops
async def test_the_admin_listener_moves(gate: FileGate) -> None:
    """The order is answered on the address it came to, though that is closed by it."""
    before = gate.gate.addresses_of("admin_listen")
    await gate.write(server={"admin_listen": "localhost:0"})
    assert (await gate.order())[0] == 200

    assert gate.gate.addresses_of("admin_listen") != before
    assert (await gate.ask_admin("/healthz"))[0] == 200
    await gate.change(server={"admin_listen": ""})
    assert gate.gate.addresses_of("admin_listen") == []


@pytest.mark.both_loops
async def test_an_address_that_cannot_be_had_changes_nothing(
    gate: FileGate, upstream: RawUpstream, tmp_path: Path
) -> None:
    """A port in use refuses the whole file, and what was opened before it is closed again."""
    path = tmp_path / "gate.sock"
    async with listening(lambda *_: None) as port:
        listen = [f"unix:{path}", f"127.0.0.1:{port}", "127.0.0.1:0"]
        await gate.write(server={"listen": listen, "via": "other"})
        outcome = await gate.load()

    (problem,) = outcome.problems
    assert problem.key_path == "server.listen"
    assert f"cannot listen on 127.0.0.1:{port}" in problem.found
    assert "restart" in problem.expected
    assert (await ask(gate.port, _admitted(gate))).status == 200
    assert upstream.requests[0].value("Via") == b"1.1 tailchat-gate"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_unix_connection(path)


# What is refused


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("server = {", "gate.toml"),
        ('[[route]]\nname = "x"', "route[0].upstream"),
        ("", "route"),
        (None, "gate.toml"),
    ],
    ids=["syntax", "model", "empty", "gone"],
)
async def test_a_bad_file_changes_nothing_and_says_why(
    gate: FileGate, caplog: pytest.LogCaptureFixture, text: str | None, key: str
) -> None:
    """The log, the metric, /status and the order tell each problem; requests go on as before."""
    assert await gate.metric("gate_config_last_reload_success") == 1
    if text is None:
        await asyncio.to_thread(gate.path.unlink)
    else:
        await gate.write_text(text)
    gate.gate.clock.now += 5
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        status, body = await gate.order()

    assert status == 422
    assert (body["generation"], body["changes"]) == (1, [])
    assert any(problem["key_path"].endswith(key) for problem in body["problems"])
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.message == "the configuration was not loaded"
    told = vars(record)["details"]["problems"]
    assert any(key in problem.partition(": found ")[0] for problem in told)
    assert await gate.metric("gate_config_last_reload_success") == 0
    assert await gate.metric("gate_config_last_reload_timestamp_seconds") == gate.gate.clock.now
    assert await gate.metric("gate_generation") == 1
    found = (await gate.status())["configuration"]
    assert (found["generation"], found["problems"]) == (1, body["problems"])
    assert found["file"] == body["file"] == str(gate.path)
    assert (await ask(gate.port, _admitted(gate))).status == 200

    with caplog.at_level(logging.INFO, LOGGER_NAME):
        await gate.change(server={"via": "other"})
    assert await gate.metric("gate_config_last_reload_success") == 1
    found = (await gate.status())["configuration"]
    assert (found["generation"], found["problems"]) == (2, [])
    (record,) = (r for r in caplog.records if r.message == "the configuration was reloaded")
    assert vars(record)["details"] == {
        "cause": "a test",
        "generation": 2,
        "changes": ("server.via",),
    }


async def test_a_command_in_the_log_reads_the_same_file(
    gate: FileGate, caplog: pytest.LogCaptureFixture
) -> None:
    """What a problem suggests works as the log has it, from any directory."""
    await gate.write(groups={"ops": ["tailchat-group:Ops"]})
    assert (await gate.order())[0] == 422

    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    (problem,) = vars(record)["details"]["problems"]
    assert f"`tailchat-gate tailchat-groups --config {gate.path}`" in problem


async def test_what_is_settled_at_the_start_refuses_the_whole_file(
    gate: FileGate, upstream: RawUpstream, tmp_path: Path
) -> None:
    """A key that only a restart can change is named, and nothing else of the file is taken."""
    await gate.write(server={"via": "other"}, log={"audit_file": str(tmp_path / "audit")})
    status, body = await gate.order()

    assert (status, [one["key_path"] for one in body["problems"]]) == (422, ["log.audit_file"])
    (problem,) = body["problems"]
    assert problem["found"].startswith('"/')
    assert problem["expected"] == '"", the value in force; another one needs a restart'
    assert problem["excerpt"]["line"] > 0
    assert '"audit_file" = ' in problem["excerpt"]["source"]
    await ask(gate.port, _admitted(gate))
    assert upstream.requests[0].value("Via") == b"1.1 tailchat-gate"


async def test_no_secret_is_told(gate: FileGate, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a good nor a bad file shows a secret in the log, the outcome or /status."""
    with caplog.at_level(logging.DEBUG, LOGGER_NAME):
        await gate.write(session={"secrets": [OTHER_SECRET, "short-secret"]})
        refused = await gate.order()
        await gate.write(session={"secrets": [OTHER_SECRET]}, tailchat={"client_secret": "s3cr3t"})
        taken = await gate.order()

    assert (refused[0], taken[0]) == (422, 200)
    assert taken[1]["changes"] == ["tailchat.client_secret", "session.secrets"]
    said = f"{refused} {taken} {await gate.status()} {[vars(r) for r in caplog.records]}"
    for secret in (OTHER_SECRET, "short-secret", "s3cr3t"):
        assert secret not in said


async def test_a_fault_while_building_changes_nothing(
    gate: FileGate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong in a thread is told by its kind, with a traceback in the log alone."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tailchat_gate.serving.server.build", fail)
    status, body = await gate.order()

    assert status == 422
    assert body["problems"][0]["found"] == "a fault inside the gate: ZeroDivisionError"
    assert any(record.exc_info for record in caplog.records)
    assert (await ask(gate.port, _admitted(gate))).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(ORDER_HEADER, "other")],
        [(ORDER_HEADER, "reload"), ("Origin", "http://127.0.0.1:4181")],
        [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", "null")],
    ],
)
async def test_a_page_cannot_give_the_order(gate: FileGate, headers: list[tuple[str, str]]) -> None:
    """Without its header, or from a browser, an order is 403 and nothing is read."""
    await gate.write(server={"via": "other"})
    assert (await gate.ask_admin("/reload", "POST", headers))[0] == 403
    assert (await gate.ask_admin("/reload", "GET", [(ORDER_HEADER, "reload")]))[0] == 405
    assert (await gate.ask_admin("/reload", "OPTIONS", [(ORDER_HEADER, "reload")]))[0] == 405

    assert await gate.metric("gate_generation") == 1


@pytest.mark.both_loops
async def test_a_stopping_gate_loads_nothing(gate: FileGate, upstream: RawUpstream) -> None:
    """While open requests finish, a reload is refused, and they finish all the same."""
    await gate.change(server={"shutdown_timeout": "1m"})
    upstream.answer = held = PausedAnswer()
    async with RawClient.connect(gate.port) as client:
        client.send(_admitted(gate))
        await held.arrived.wait()
        stopping = asyncio.create_task(gate.gate.server.stop())
        await until(lambda: not gate.gate.addresses_of("listen"))
        await gate.write(server={"listen": ["127.0.0.1:0", "localhost:0"]})
        status, body = await gate.order()
        assert (status, body["problems"][0]["found"]) == (422, "is stopping")
        assert gate.gate.addresses_of("listen") == []
        held.go_on.set()

        assert (await client.response()).body == b"ok"
    await stopping


@pytest.mark.both_loops
async def test_a_reload_under_way_ends_with_the_gate(tmp_path: Path, clock: Clock) -> None:
    """A gate that stops while a file is read waits for the thread, and opens nothing."""
    async with file_gate(tmp_path, "http://127.0.0.1:9", clock) as gate:
        reloader = gate.gate.server.reloader
        assert reloader is not None
        waiting = reloader.ask("a test")
        await asyncio.sleep(0)
        await gate.gate.server.stop()

        assert waiting.done()
        assert waiting.result().problems[0].key_path == "the gate"


async def test_what_is_ready_before_the_gate_is_open_waits_for_it() -> None:
    """A reload that is asked for while the listeners are opened is no fault, and is not lost."""
    first = await asyncio.to_thread(build, make_settings())
    second = await asyncio.to_thread(
        build, make_settings(server={"via": "other"}), first.process_state
    )
    server = GateServer(first)
    swapping = asyncio.create_task(server.swap(second))
    await asyncio.sleep(0)
    await server.start()
    await swapping
    assert server.in_force is second
    await server.stop()


async def test_what_is_ready_for_a_gate_that_never_opens_is_refused() -> None:
    """A reload does not wait forever for a gate that never opens."""
    first = await asyncio.to_thread(build, make_settings())
    server = GateServer(first)
    swapping = asyncio.create_task(server.swap(first))
    await asyncio.sleep(0)
    await server.stop()

    with pytest.raises(StoppingError):
        await swapping


# Several at once


async def test_orders_at_once_are_one_and_none_is_lost(gate: FileGate) -> None:
    """While one is under way all who ask wait for one more, which reads what they wrote."""
    reloader = gate.gate.server.reloader
    assert isinstance(reloader, Reloader)
    first = reloader.ask("first")
    await asyncio.sleep(0)  # its turn begins
    await gate.write(server={"via": "written-later"})
    others = [reloader.ask("other") for _ in range(50)]
    outcomes = await asyncio.gather(first, *others)

    assert [outcome.generation for outcome in outcomes] == [2] + [3] * 50
    assert gate.gate.generation.settings.server.via == "written-later"
