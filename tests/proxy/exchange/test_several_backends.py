"""Several backends of a route: one that fails costs no request that another may answer."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from gatekit import (
    OK,
    Clock,
    RawClient,
    RawUpstream,
    Received,
    Response,
    RunningGate,
    ask,
    request_bytes,
    until,
)
from process import free_port
from reloadkit import file_gate
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.identity.oauth.responses import Profile

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]
#: Its process id is the body; while a file with that name exists its check fails.
_APPLICATION = """
import os
from pathlib import Path

async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    pid = str(os.getpid())
    bad = scope["path"] == "/healthz" and (Path(__file__).parent / pid).exists()
    head = {"type": "http.response.start", "status": 503 if bad else 200, "headers": []}
    await send(head)
    await send({"type": "http.response.body", "body": pid.encode()})
"""
HOUR = 3600
_QUICK = {"path": "/healthz", "interval": "1s", "timeout": "1s", "fall": 1, "rise": 1}


def _route(upstream: Sequence[str], **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - as in the file
    return {"name": "tool", "upstream": list(upstream), "allow": ["public"], **keys}


def _request(method: str, body: bytes = b"") -> bytes:
    head = f"{method} / HTTP/1.1\r\nHost: gate.test\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _up(gate: RunningGate) -> list[bool]:
    return [one.up for one in gate.generation.process_state.upstream_pools.health]


async def _hang_up(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _say_nothing(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await reader.read()


def _bound() -> socket.socket:
    """Return a socket whose port refuses connections until it listens."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


def _url(bound: socket.socket) -> str:
    return f"http://127.0.0.1:{bound.getsockname()[1]}"


@asynccontextmanager
async def _uvicorn(directory: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Serve _APPLICATION on a port with uvicorn, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--app-dir", str(directory), "--no-access-log"),
        *("--port", str(port), "--lifespan", "off", "several_served:application"),
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class _Load:
    """Asks a gate without a pause until the block ends, and keeps what was answered."""

    def __init__(self, gate: RunningGate, clients: int = 4) -> None:
        self._gate = gate
        self.clients = clients
        self._stop = False
        self.answers: list[Response] = []
        #: Responses that ended within their body, which nobody can ask for again.
        self.cut_off = 0

    async def _run(self) -> None:
        while not self._stop:
            async with RawClient.connect(self._gate.port) as client:
                await self._ask(client)

    async def _ask(self, client: RawClient) -> None:
        while not self._stop:
            client.send(request_bytes("/"))
            head = await client.head()
            try:
                self.answers.append(await client.rest(head))
            except (asyncio.IncompleteReadError, ConnectionError):
                self.cut_off += 1
                return
            await asyncio.sleep(0.005)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self.clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int = 20) -> None:
        """Wait for further answers."""
        wanted = len(self.answers) + count
        await until(lambda: len(self.answers) >= wanted)


async def test_real_backends_fail_in_turn_under_load(start_gate: Start, tmp_path: Path) -> None:
    """No GET fails while one comes back, is stopped, fails its checks and is killed.

    But for responses that the killed one had begun.
    """
    await asyncio.to_thread((tmp_path / "several_served.py").write_text, _APPLICATION)
    async with AsyncExitStack() as stack:
        first, second = free_port(), free_port()
        urls = [f"http://127.0.0.1:{port}" for port in (first, second)]
        lives = await stack.enter_async_context(_uvicorn(tmp_path, second))
        route = _route(urls, health=_QUICK, connect_retry="30s")
        gate = await start_gate(route=[route])
        load = await stack.enter_async_context(_Load(gate))
        await until(lambda: _up(gate) == [False, True])
        await load.more()

        async with _uvicorn(tmp_path, first) as process:
            await until(lambda: _up(gate) == [True, True])
            await load.more()
            process.send_signal(signal.SIGSTOP)
            await until(lambda: _up(gate) == [False, True])
            await load.more()
            process.send_signal(signal.SIGCONT)
            await until(lambda: _up(gate) == [True, True])
            mark = tmp_path / str(lives.pid)
            await asyncio.to_thread(mark.touch)
            await until(lambda: _up(gate) == [True, False])
            await load.more()
            await asyncio.to_thread(mark.unlink)
            await until(lambda: _up(gate) == [True, True])
            process.kill()
            await until(lambda: _up(gate) == [False, True])
            await load.more()

    assert load.cut_off <= load.clients
    assert {answer.status for answer in load.answers} == {200}
    assert {answer.body for answer in load.answers} == {
        str(lives.pid).encode(),
        str(process.pid).encode(),
    }


async def test_a_refused_request_of_any_method_goes_to_another(start_gate: Start) -> None:
    """Where a connection is refused nothing was sent: a POST is answered elsewhere."""
    with closing(_bound()) as refusing:
        async with RawUpstream() as tool:
            route = _route((_url(refusing), tool.url), balance="round-robin", max_fails=0)
            gate = await start_gate(route=[route])
            answers = [await ask(gate.port, _request("POST", b"x" * 100_000)) for _ in range(4)]

    assert [answer.status for answer in answers] == [200] * 4
    assert [request.body for request in tool.requests] == [b"x" * 100_000] * 4


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("GET", b"", 200),
        ("PUT", b"content", 200),
        ("DELETE", b"", 200),
        ("POST", b"content", 502),
        ("PATCH", b"", 502),
    ],
)
async def test_what_was_sent_goes_to_another_by_its_method(
    start_gate: Start, method: str, body: bytes, status: int
) -> None:
    """A backend that hangs up on a request costs only methods that may not be repeated."""
    async with RawUpstream(_hang_up) as first, RawUpstream() as second:
        route = _route((first.url, second.url), balance="round-robin", max_fails=0)
        gate = await start_gate(route=[route])
        found = {(await ask(gate.port, _request(method, body))).status for _ in range(2)}

    assert found == {200, status}
    assert len(first.requests) == 1


async def test_nothing_is_repeated_after_the_first_byte(start_gate: Start) -> None:
    """A response that breaks off after its status line goes to no other backend."""

    async def break_off(
        _: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        writer.close()

    async with RawUpstream(break_off) as first, RawUpstream() as second:
        route = _route((first.url, second.url), balance="round-robin", max_fails=0)
        gate = await start_gate(route=[route])
        found = [(await ask(gate.port, request_bytes("/"))).status for _ in range(2)]

    assert sorted(found) == [200, 502]
    assert (len(first.requests), len(second.requests)) == (1, 1)


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("PUT", 504)])
async def test_a_silent_backend_costs_no_safe_request(
    start_gate: Start, method: str, status: int
) -> None:
    """After response_timeout a GET goes to another; a PUT does not, which may yet be acted on."""
    async with RawUpstream(_say_nothing) as first, RawUpstream() as second:
        route = _route(
            (first.url, second.url), balance="round-robin", response_timeout="3s", max_fails=0
        )
        gate = await start_gate(route=[route])
        found = {(await ask(gate.port, _request(method))).status for _ in range(2)}

    assert found == {200, status}


async def test_a_body_that_was_sent_in_part_is_not_repeated(start_gate: Start) -> None:
    """A PUT whose body is on its way when the backend hangs up fails."""
    async with RawUpstream(_hang_up) as first, RawUpstream() as second:
        route = _route((first.url, second.url), balance="round-robin", max_fails=0)
        gate = await start_gate(route=[route])
        async with RawClient.connect(gate.port) as client:
            client.send(_request("PUT", b"12345")[:-1])
            assert (await client.response()).status == 502

    assert (len(first.requests), len(second.requests)) == (1, 0)


async def test_failures_put_a_backend_out_and_time_brings_it_back(
    start_gate: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """After max_fails in a row a backend gets nothing until fail_timeout is over."""
    caplog.set_level(logging.INFO)
    async with RawUpstream(_hang_up) as first, RawUpstream() as second:
        route = _route(
            (first.url, second.url), balance="round-robin", max_fails=2, fail_timeout="1h"
        )
        gate = await start_gate(route=[route])
        for _ in range(4):
            assert (await ask(gate.port, request_bytes("/"))).status == 200
        assert _up(gate) == [False, True]
        assert len(first.requests) == 2
        url = first.url
        first.answer = OK
        gate.generation.process_state.upstream_pools.health[0].until -= HOUR
        await until(lambda: _up(gate) == [True, True])
        for _ in range(2):
            await ask(gate.port, request_bytes("/"))
        assert len(first.requests) == 3

    said = [
        (record.message, getattr(record, "details", {}))
        for record in caplog.records
        if record.message.startswith("a backend is")
    ]
    assert said == [
        ("a backend is out", {"upstream": url, "by": "requests", "reason": "closed"}),
        ("a backend is back", {"upstream": url}),
    ]


async def test_statuses_of_gateways_put_a_backend_out(start_gate: Start) -> None:
    """503s in a row count as failures; a 500 does not, which one page may have by itself."""
    away = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"
    async with RawUpstream(away) as first, RawUpstream(away.replace(b"503", b"500")) as second:
        route = _route((first.url, second.url), balance="round-robin", fail_timeout="60s")
        gate = await start_gate(route=[route])
        found = [(await ask(gate.port, request_bytes("/"))).status for _ in range(12)]

    assert (found.count(503), found.count(500)) == (3, 9)


async def test_too_few_backends_are_a_panic(start_gate: Start) -> None:
    """While fewer than panic_threshold percent are up, requests go to all of them."""
    async with AsyncExitStack() as stack:
        tools = [await stack.enter_async_context(RawUpstream()) for _ in range(3)]
        urls = [tool.url for tool in tools]
        counts = []
        for threshold in (33, 34):
            route = _route(urls, balance="round-robin", panic_threshold=threshold)
            gate = await start_gate(route=[route])
            for health in gate.generation.process_state.upstream_pools.health[:2]:
                for _ in range(3):
                    health.failed("by hand")
            before = [len(tool.requests) for tool in tools]
            for _ in range(6):
                await ask(gate.port, request_bytes("/"))
            counts.append([len(t.requests) - b for t, b in zip(tools, before, strict=True)])

    assert counts == [[0, 0, 6], [2, 2, 2]]


async def test_one_person_keeps_a_backend_until_it_is_out(start_gate: Start) -> None:
    """Sticky: one sub, one backend; the people of one that is out move, and nobody else does."""
    async with AsyncExitStack() as stack:
        tools = [await stack.enter_async_context(RawUpstream()) for _ in range(3)]
        route = _route([tool.url for tool in tools], sticky=True, allow=["signed-in"])
        gate = await start_gate(route=[route])
        people = [Profile(f"66000000000000000000{n:04}", "n", "0001", "") for n in range(12)]

        async def where() -> list[int]:
            found = []
            for person in people:
                for _ in range(2):
                    before = [len(tool.requests) for tool in tools]
                    data = request_bytes("/", Cookie=gate.cookie(person))
                    assert (await ask(gate.port, data)).status == 200
                    moved = [len(t.requests) > b for t, b in zip(tools, before, strict=True)]
                    found.append(moved.index(True))
            assert found[::2] == found[1::2]
            return found[::2]

        first = await where()
        out = gate.generation.process_state.upstream_pools.health[first[0]]
        for _ in range(3):
            out.failed("by hand")
        second = await where()

    assert len(set(first)) > 1
    assert first[0] not in second
    assert all(a == b for a, b in zip(first, second, strict=True) if a != first[0])


async def test_least_connections_go_where_the_fewest_are(start_gate: Start) -> None:
    """While one backend holds a request, the next ones go to the other."""
    async with RawUpstream(_say_nothing) as first, RawUpstream(_say_nothing) as second:
        gate = await start_gate(route=[_route((first.url, second.url))])
        async with AsyncExitStack() as stack:
            for count in range(1, 7):
                client = await stack.enter_async_context(RawClient.connect(gate.port))
                client.send(request_bytes("/"))
                await until(lambda c=count: len(first.requests) + len(second.requests) == c)  # type: ignore[misc]
            assert (len(first.requests), len(second.requests)) == (3, 3)


async def test_websockets_go_to_a_backend_that_lives(start_gate: Start) -> None:
    """An upgrade is refused by one backend and switched by another."""
    with closing(_bound()) as refusing:
        async with RawUpstream(SWITCH) as tool:
            route = _route((_url(refusing), tool.url), balance="round-robin")
            gate = await start_gate(route=[route])
            for _ in range(2):
                async with RawClient.connect(gate.port) as client:
                    client.send(request_bytes("/ws", **UPGRADE))
                    assert (await client.head()).startswith(b"HTTP/1.1 101 ")


async def test_all_full_is_said_with_a_time_to_come_back(start_gate: Start) -> None:
    """Where each backend has max_connections requests, one more gets 503 with Retry-After."""
    async with RawUpstream(_say_nothing) as first, RawUpstream(_say_nothing) as second:
        route = _route((first.url, second.url), max_connections=1)
        gate = await start_gate(limits={"client_requests": 1}, route=[route])
        async with AsyncExitStack() as stack:
            for count in (1, 2):
                client = await stack.enter_async_context(RawClient.connect(gate.port))
                client.send(request_bytes("/"))
                await until(lambda c=count: len(first.requests) + len(second.requests) == c)  # type: ignore[misc]
            refused = await ask(gate.port, request_bytes("/"))

    assert (refused.status, refused.json["error"]) == (503, "upstream-busy")
    assert refused.values("Retry-After")


async def test_what_is_known_of_a_backend_survives_a_reload(tmp_path: Path, clock: Clock) -> None:
    """One that is out stays out where its URL stays, under other rules too; /status lists it."""
    async with RawUpstream() as first, RawUpstream() as second:
        urls = (first.url, second.url)
        route = _route(urls, fail_timeout="1h")
        async with file_gate(tmp_path, first.url, clock) as gate:
            await gate.change(route=[route])
            for _ in range(3):
                gate.gate.generation.process_state.upstream_pools.health[0].failed("by hand")
            for other in ({}, {"sticky": True}, {"max_fails": 7}):
                await gate.change(route=[{**route, **other}])
                for _ in range(4):
                    assert (await ask(gate.port, request_bytes("/"))).status == 200
            status = await gate.status()

    assert not first.requests
    assert {"upstream": urls[0], "up": False, "reason": "by hand"} in status["backends"]
    assert {"upstream": urls[1], "up": True, "reason": ""} in status["backends"]
    tools = status["routes"][0]["tools"]
    assert [(tool["upstream"], tool["state"]) for tool in tools] == [
        (urls[0], "down"),
        (urls[1], "up"),
    ]
    assert all(tool["since"] > 0 for tool in tools)


async def test_a_stored_body_goes_to_another_backend(start_gate: Start) -> None:
    """With request_buffer a POST that one backend refuses is sent to another, once and whole."""
    with closing(_bound()) as refusing:
        async with RawUpstream() as tool:
            route = _route((_url(refusing), tool.url), request_buffer="1KiB")
            gate = await start_gate(route=[route])
            answers = [await ask(gate.port, _request("POST", b"x" * 9000)) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    assert [request.body for request in tool.requests] == [b"x" * 9000] * 2
