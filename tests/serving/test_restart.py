"""A tool that is restarted, or that closes its connections at will, loses no request by it."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gatekit import (
    RawClient,
    RawUpstream,
    Response,
    ask,
    request_bytes,
    until,
)
from process import free_port

from tailchat_gate.proxy.upstream.backends import Backend, Dialer

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]
_APPLICATION = """
def application(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def _route(upstream: str, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - as in the file
    return {"name": "tool", "upstream": upstream, "allow": ["public"], **keys}


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often the gate tries to connect to each tool."""
    found: Counter[str] = Counter()
    connect = Dialer.connect

    async def counted(self: Dialer, backend: Backend, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - any protocol
        found[backend.url] += 1
        return await connect(self, backend, make)

    monkeypatch.setattr(Dialer, "connect", counted)
    return found


def _put(body: bytes, *, method: str = "PUT") -> bytes:
    return (
        f"{method} / HTTP/1.1\r\nHost: gate.test\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


@asynccontextmanager
async def _gunicorn(directory: Path, port: int) -> AsyncIterator[None]:
    """Serve _APPLICATION with gunicorn until the block ends, and end it as a redeploy does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gunicorn", "--chdir", str(directory), "--workers", "1"),
        *("--bind", f"127.0.0.1:{port}", "--no-control-socket", "served"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_a_real_tool_is_restarted_under_load(start_gate: Start, tmp_path: Path) -> None:
    """While gunicorn is restarted no GET and no PUT fails, within connect_retry."""
    port = free_port()
    await asyncio.to_thread((tmp_path / "served.py").write_text, _APPLICATION)
    gate = await start_gate(route=[_route(f"http://127.0.0.1:{port}", connect_retry="30s")])
    answers: list[Response] = []
    stop = asyncio.Event()

    async def load(data: bytes) -> None:
        async with RawClient.connect(gate.port) as client:
            while not stop.is_set():
                client.send(data)
                answers.append(await client.response())

    data = (request_bytes("/"), _put(b"some content"))
    loads = [asyncio.create_task(load(one)) for one in data * 3]

    async def more(count: int) -> None:
        end = len(answers) + count
        await until(lambda: len(answers) >= end, within=60)

    for _ in range(3):
        async with _gunicorn(tmp_path, port):
            await more(50)
    stop.set()
    async with _gunicorn(tmp_path, port):
        await asyncio.gather(*loads)

    assert {response.status for response in answers} == {200}
    assert {response.body for response in answers} == {b"", b"some content"}


async def test_a_refused_post_waits_for_the_tool(start_gate: Start, tries: Counter[str]) -> None:
    """Where a connection was refused nothing was sent: any method is tried again, and once."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gate = await start_gate(route=[_route(url, connect_retry="20s")])
    async with RawClient.connect(gate.port) as client:
        client.send(_put(b"x" * 100_000, method="POST"))
        await until(lambda: tries[url] > 1)

        async with RawUpstream(port=port) as tool:
            response = await client.response()

    assert (response.status, response.body) == (200, b"ok")
    (request,) = tool.requests
    assert (request.line, request.body) == (b"POST / HTTP/1.1", b"x" * 100_000)


async def test_those_who_wait_do_not_storm_the_tool(start_gate: Start, tries: Counter[str]) -> None:
    """However many wait for a tool that is down, one of them tries at a time; then all get 502."""
    url = f"http://127.0.0.1:{free_port()}"
    gate = await start_gate(route=[_route(url, connect_retry="1s")])

    responses = await asyncio.gather(*(ask(gate.port, request_bytes("/")) for _ in range(40)))

    assert {(response.status, response.json["error"]) for response in responses} == {
        (502, "upstream-down")
    }
    # Each once, and the one whose turn it is each 100 ms: ten times as many without turns.
    assert tries[url] < 40 * 2


async def test_who_waits_has_a_place_and_leaves_it(start_gate: Start, tries: Counter[str]) -> None:
    """Waiting requests are bounded, and a client that leaves frees its place for the next."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    route = _route(url, connect_retry="20s", max_connections=2)
    gate = await start_gate(
        server={"half_closed_timeout": "1s"}, limits={"client_requests": 2}, route=[route]
    )
    async with AsyncExitStack() as stack:
        first, second, third = [
            await stack.enter_async_context(RawClient.connect(gate.port)) for _ in range(3)
        ]
        first.send(request_bytes("/"))
        second.send(request_bytes("/"))
        await until(lambda: tries[url] > 2)
        assert (await ask(gate.port, request_bytes("/"))).json["error"] == "upstream-busy"

        # The one whose turn it is, so that the other has to take it.
        first.writer.close()
        await until(lambda: len(gate.server._server.connections) == 2)
        third.send(request_bytes("/"))
        async with RawUpstream(port=port):
            assert [(await one.response()).body for one in (second, third)] == [b"ok", b"ok"]


@pytest.mark.usefixtures("_reuses_late")
@pytest.mark.parametrize(
    ("request_again", "status"),
    [
        (_put(b"kept"), 200),
        (
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nput\r\n0\r\n\r\n",
            200,
        ),
        (_put(b"", method="DELETE"), 200),
        (_put(b"sent once", method="POST"), 502),
        (_put(b"x" * 70_000), 502),
    ],
)
async def test_a_body_in_memory_is_sent_again(
    start_gate: Start, fickle: RawUpstream, request_again: bytes, status: int
) -> None:
    """On a stale connection what may be repeated is sent again, with its body, and nothing else."""
    gate = await start_gate(route=[_route(fickle.url)])
    await ask(gate.port, request_bytes("/"))

    response = await ask(gate.port, request_again)

    assert response.status == status
    assert len(fickle.requests) == (3 if status == 200 else 2)
    if status == 200:
        assert fickle.requests[-1].body == fickle.requests[-2].body
        assert fickle.requests[-1].head == fickle.requests[-2].head


async def test_a_tool_that_closes_at_will(start_gate: Start, fickle: RawUpstream) -> None:
    """With upstream_keepalive = false each request has a connection of its own."""
    gate = await start_gate(route=[_route(fickle.url, upstream_keepalive=False)])

    for _ in range(3):
        response = await ask(gate.port, _put(b"sent once", method="POST"))
        assert response.body == b"ok"

    assert fickle.connections == 3
    await until(lambda: fickle.open_connections == 0)
