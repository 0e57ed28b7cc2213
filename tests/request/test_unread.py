"""Browsers get a page also for what cannot be read as a request; programs get JSON."""

from collections.abc import Callable
from typing import Any

import pytest
from gatekit import RawClient, RawUpstream, Response, RunningGate

from tailchat_gate.request.unread import glimpse

Start = Callable[..., Any]

BROWSER = (
    b"Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\nAccept-Language: zh-CN\r\n\r\n"
)
REFUSED = {
    "bad-request": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
    "target-too-long": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: gate.test\r\n",
    "head-too-large": b"GET / HTTP/1.1\r\nHost: gate.test\r\nCookie: " + b"a" * 60_000 + b"\r\n",
    "version-refused": b"GET / HTTP/3.0\r\nHost: gate.test\r\n",
    "coding-refused": b"GET / HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: gzip\r\n",
}


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with one tool."""
    found = await start_gate(upstream.url)
    assert isinstance(found, RunningGate)
    return found


async def _answer(gate: RunningGate, sent: bytes) -> Response:
    async with RawClient.connect(gate.port) as client:
        client.send(sent)
        return await client.response()


@pytest.mark.parametrize("reason", REFUSED)
async def test_a_browser_gets_a_page_in_its_language(gate: RunningGate, reason: str) -> None:
    """It says what happened, has the policy of all pages, and a way on."""
    page = await _answer(gate, REFUSED[reason] + BROWSER)

    assert page.value("Content-Type") == "text/html; charset=utf-8"
    assert page.value("Content-Language") == "zh-Hans"
    assert page.value("Content-Security-Policy").startswith("default-src 'none'")
    assert f"{page.status} {reason}</code>" in page.body.decode()
    assert b'href="http://gate.test/' in page.body


@pytest.mark.parametrize("reason", REFUSED)
async def test_a_program_gets_json(gate: RunningGate, reason: str) -> None:
    """As before: without an Accept field that names HTML nobody reads a page."""
    answer = await _answer(gate, REFUSED[reason] + b"Accept: */*\r\n\r\n")

    assert answer.json["error"] == reason


def test_only_the_first_head_is_looked_at() -> None:
    """What another request behind it says of itself is not its own; no byte is too odd."""
    second = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nAccept: text/html\r\n\r\n"

    assert glimpse(second) == {"Host": "a"}
    assert glimpse(b"\x00\nACCEPT:\ttext/html\xff\r\nX") == {"Accept": "text/html\xff"}
    assert glimpse(b"") == {}
