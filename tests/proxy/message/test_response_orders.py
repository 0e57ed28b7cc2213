"""Fields of a reply that are orders for a server in front or for the whole browser end here."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatekit import OK, RawUpstream, RunningGate, ask, request_bytes
from wirekit import say

from tailchat_gate.request.field_names import ORDERS, is_order

Start = Callable[..., Any]
HEADERS = Path(__file__).parents[3] / "docs" / "headers.md"
DROPPED = (
    *("X-Accel-Redirect", "x-accel-expires", "X-ACCEL-Limit-Rate", "X_Accel_Redirect"),
    *("X-Sendfile", "X-SendFile2", "X-LIGHTTPD-send-file", "X-LIGHTTPD-send-tempfile"),
    *("X-Reproxy-URL", "X-Reproxy-File", "X-LiteSpeed-Location", "Fly-Replay"),
    *("X-Envoy-Immediate-Health-Check-Fail", "Clear-Site-Data", "Alt-Svc", "NEL", "Report-To"),
    *("Public-Key-Pins", "Public-Key-Pins-Report-Only", "Set-Cookie2"),
    *("Sec-Session-Registration", "Secure-Session-Registration"),
)
PASSED = (
    *("X-Accel-Buffering", "Strict-Transport-Security", "Reporting-Endpoints", "Refresh"),
    *("Origin-Agent-Cluster", "Accept-CH", "Content-Security-Policy", "X-Sender", "Nelly"),
)


def _with(*names: str) -> bytes:
    lines = "".join(f"{name}: x\r\n" for name in names)
    return OK.replace(b"\r\n\r\n", b"\r\n" + lines.encode("ascii") + b"\r\n")


def _names(head: bytes) -> list[str]:
    return [line.partition(b":")[0].decode("ascii") for line in head.split(b"\r\n")[1:] if line]


async def test_orders_end_at_the_gate(gate: RunningGate, upstream: RawUpstream) -> None:
    """None reaches a visitor, in any spelling; what a reply says of itself does."""
    upstream.answer = _with(*DROPPED, *PASSED)

    for _ in range(2):
        response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))
        assert _names(response.head) == ["Content-Length", *PASSED]


async def test_orders_pass_where_a_route_asks(start_gate: Start, upstream: RawUpstream) -> None:
    """`pass_response_fields` lets a name through, in any case, on its own route alone."""
    upstream.answer = _with("clear-site-data", "NEL", "X-Accel-Redirect")
    passed = {"name": "a", "path": "/a", "pass_response_fields": ["Clear-Site-Data", "nel"]}
    gate = await start_gate(upstream.url, route=[passed, {"name": "tool"}])

    found = [
        _names((await ask(gate.port, request_bytes(path, Cookie=gate.cookie()))).head)
        for path in ("/a", "/", "/a")
    ]

    assert found[0] == found[2] == ["Content-Length", "clear-site-data", "NEL"]
    assert found[1] == ["Content-Length"]


async def test_no_trailer_is_an_order(gate: RunningGate, upstream: RawUpstream) -> None:
    """What may not stand in a head may not stand behind a body either."""
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        b"X-Accel-Redirect: /x\r\nClear-Site-Data: *\r\nX-Sum: 1\r\n\r\n"
    )
    asked = request_bytes(Cookie=gate.cookie(), TE="trailers", Connection="TE, close")

    assert (await say(gate.port, asked)).data.endswith(b"0\r\nX-Sum: 1\r\n\r\n")


@pytest.mark.parametrize("name", DROPPED)
def test_each_is_documented(name: str) -> None:
    """docs/headers.md has the whole list, and the list nothing else."""
    section = HEADERS.read_text(encoding="utf-8").split("## What a tool cannot say")[1]
    table = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("| ")]
    told = {found.lower() for line in table for found in re.findall("`([^`]+)`", line)}

    assert told - {"x-accel-buffering"} == {name for names in ORDERS.values() for name in names}
    assert is_order(re.sub("[^a-z0-9]", "-", name.lower()).encode("ascii"))
