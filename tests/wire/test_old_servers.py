"""Replies of small old servers: what has one meaning is mended, for the rest the gate says why."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from gatekit import RawUpstream, Received, RunningGate, ask, request_bytes

Start = Callable[..., Any]
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
MENDED = {
    "LF line ends": b"HTTP/1.1 200 OK\nX: a\nContent-Length: 5\n\nhello",
    "LF line ends, CRLF in the body": b"HTTP/1.1 200 OK\nX: a\nContent-Length: 5\n\n\r\n\r\nx",
    "padded sizes": b"HTTP/1.1 200 OK\r\nX: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5   \r\nhello\r\n0\t\r\n\r\n",
    "equal lengths": b"HTTP/1.1 200 OK\r\nX: a\r\nContent-Length: 5\r\n"
    b"Content-Length: 05\r\n\r\nhello",
    "a list of equal lengths": b"HTTP/1.1 200 OK\r\nX: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    "a length beside chunks": b"HTTP/1.1 200 OK\r\nX: a\r\nContent-Length: 9\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n" + HELLO,
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nX: a\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n" + HELLO,
    "two blanks": b"HTTP/1.1  200 OK\r\nX: a\r\nContent-Length: 5\r\n\r\nhello",
}
REFUSED = {
    "LF among CRLF": (
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 0\r\n\r\n",
        "header field",
    ),
    "CRLF among LF": (b"HTTP/1.1 200 OK\nX: a\r\nContent-Length: 0\n\n", "line ends of two kinds"),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "Content-Length",
    ),
    "no status line": (b"hello there\r\n\r\n", "status line"),
    "a size that is none": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n x\r\n",
        "chunk size",
    ),
    "gzip beside a length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "transfer coding",
    ),
}


def _says(data: bytes) -> Any:  # noqa: ANN401 - as RawUpstream.answer
    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # Open, so that the gate alone decides whether the connection is used again.
        writer.write(data)
        await writer.drain()

    return answer


@pytest.mark.parametrize("data", MENDED.values(), ids=MENDED.keys())
async def test_what_has_one_meaning_is_written_anew(
    start_gate: Start, upstream: RawUpstream, data: bytes
) -> None:
    """The visitor gets a clean reply, and its connection to the tool is not used again."""
    upstream.answer = _says(data)
    gate = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["public"]}])

    for count in (1, 2):
        response = await ask(gate.port, request_bytes())
        assert (response.status, response.value("X"), len(response.body)) == (200, "a", 5)
        assert len(response.values("Content-Length") + response.values("Transfer-Encoding")) == 1
        assert response.head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert upstream.connections == count


@pytest.mark.parametrize(("data", "fault"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_refused_is_told(
    start_gate: Start,
    upstream: RawUpstream,
    data: bytes,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says once a minute and tool what was wrong, and /status what was last."""
    upstream.answer = _says(data)
    gate: RunningGate = await start_gate(
        upstream.url,
        server={"admin_listen": "127.0.0.1:0"},
        route=[{"name": "tool", "allow": ["public"]}],
    )
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert (await ask(gate.port, request_bytes())).status == 502

    (told,) = [one for one in caplog.records if "malformed" in one.message]
    details = vars(told)["details"]
    assert (details["route"], details["upstream"]) == ("tool", upstream.url)
    assert fault in details["fault"]
    port = gate.admin_address[1]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/status") as response,
    ):
        (last,) = (await response.json())["malformed_replies"]
    assert (last["upstream"], last["fault"]) == (upstream.url, details["fault"])
