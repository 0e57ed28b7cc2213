"""Whatever a visitor sends, what answers on the gate's own paths and files is the gate itself."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gatekit import Response, RunningGate, ask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wirekit import say

from tailchat_gate.observe.log import LOGGER_NAME

Start = Callable[..., Any]
#: Fields that an HTTP library has opinions on; the framing is judged before any of them.
FIELDS = (
    *("Accept", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Method", "Age"),
    *("Authorization", "Cache-Control", "Connection", "Content-Disposition", "Content-Encoding"),
    *("Content-Language", "Content-Location", "Content-Range", "Content-Type", "Cookie", "Date"),
    *("ETag", "Expect", "Expires", "Forwarded", "From", "HTTP2-Settings", "If-Match"),
    *("If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Keep-Alive"),
    *("Last-Modified", "Link", "Location", "Max-Forwards", "Origin", "Pragma"),
    *("Proxy-Authorization", "Proxy-Connection", "Range", "Referer", "Retry-After"),
    *("Sec-Fetch-Mode", "Sec-WebSocket-Key", "Sec-WebSocket-Key1", "Sec-WebSocket-Version"),
    *("Server", "Set-Cookie", "TE", "Trailer", "Upgrade", "User-Agent", "Vary", "Via", "Warning"),
    *("WWW-Authenticate", "X-HTTP-Method-Override", "X-Forwarded-For", "X-Requested-With"),
)
VALUES = (
    *(
        "",
        "x",
        ", ,",
        '"',
        "a=b; c",
        "\u00e9\u00ff",
        "gzip, deflate, x-none",
        "text/html; charset=;",
    ),
    *("multipart/form-data", "multipart/form-data; boundary=", "application/x-www-form-urlencoded"),
    *(
        "bytes=0-",
        "bytes=9-1,,",
        "100-continue",
        "200-ok",
        "websocket",
        "Thu, 99 Foo 0000",
        "1" * 400,
    ),
)
PATHS = (
    *("/ping", "/oauth2/start", "/oauth2/callback?state=x&code=y", "/oauth2/sign_in"),
    *("/oauth2/sign_out", "/oauth2/userinfo", "/oauth2/auth", "/oauth2/jwks.json"),
    *("/oauth2/nothing", "/files/a.txt", "/files/", "/status", "/files/a.txt?%zz#", "/private/"),
)
METHODS = ("GET", "HEAD", "POST", "OPTIONS")


@pytest.fixture
async def gate(start_gate: Start, tmp_path: Path) -> RunningGate:
    """Return a gate with files, a fixed status, and a route for people who are signed in."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("hello")
    public: dict[str, Any] = {"allow": ["public"]}
    found = await start_gate(
        route=[
            {"name": "f", "path": "/files", "upstream": f"file:{tmp_path / 'files'}", **public},
            {"name": "s", "path": "/status", "upstream": "static:204", **public},
            {"name": "p", "path": "/private"},
        ]
    )
    assert isinstance(found, RunningGate)
    return found


def _request(method: str, path: str, fields: list[tuple[str, str]]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    head = f"{method} {path} HTTP/1.1\r\nHost: gate.test\r\n{lines}Connection: close\r\n\r\n"
    return head.encode("utf-8")


def _is_the_gates(response: Response) -> None:
    assert response.values("Server") == ["tailchat-gate"], response.head
    assert b"Python" not in response.head
    assert b"aiohttp" not in response.head
    assert response.value("Cache-Control") or response.status == 204, response.head
    assert response.status < 500


async def _judge(
    gate: RunningGate, method: str, path: str, fields: list[tuple[str, str]]
) -> Response:
    data = _request(method, path, fields)
    response = await ask(gate.port, data, to_head=method == "HEAD")
    try:
        _is_the_gates(response)
    except AssertionError as error:
        error.add_note(repr(data))
        raise
    return response


@pytest.mark.parametrize("name", FIELDS)
async def test_a_field_that_comes_twice_is_answered_by_the_gate(
    gate: RunningGate, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Repeated, empty or odd, no field gets an answer, or a line in the log, from elsewhere."""
    caplog.set_level(logging.DEBUG, f"{LOGGER_NAME}.http")
    for path in PATHS:
        for fields in ([(name, "x"), (name, "y")], [(name, "")], [(name, '"')] * 3):
            await _judge(gate, "GET", path, fields)
    assert [one for one in caplog.records if one.name.endswith(".http")] == []


@pytest.mark.parametrize(
    "name", ["ETag", "Content-Type", "User-Agent", "Server", "Max-Forwards", "Content-Location"]
)
async def test_a_repeated_field_changes_no_answer(gate: RunningGate, name: str) -> None:
    """What means nothing to a page is as if it were not there."""
    for path in PATHS:
        plain = await _judge(gate, "GET", path, [])
        twice = await _judge(gate, "GET", path, [(name, "1"), (name, "2")])
        assert (twice.status, len(twice.body)) == (plain.status, len(plain.body)), path


async def test_any_fields_in_any_number(gate: RunningGate) -> None:
    """No mixture of fields and values, and no method, gets past the gate's own answers."""
    field = st.tuples(
        st.sampled_from(FIELDS), st.sampled_from(VALUES) | st.text('x,;=" /\t', max_size=9)
    )
    asked = st.tuples(st.sampled_from(METHODS), st.sampled_from(PATHS), st.lists(field, max_size=6))
    found: list[tuple[str, str, list[tuple[str, str]]]] = []

    @settings(max_examples=300, database=None, suppress_health_check=list(HealthCheck))
    @given(asked)
    def gather(one: tuple[str, str, list[tuple[str, str]]]) -> None:
        found.append(one)

    await asyncio.to_thread(gather)
    for method, path, fields in found:
        heard = await say(gate.port, _request(method, path, fields))
        head, _, body = heard.data.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head, _, body = body.partition(b"\r\n\r\n")
        try:
            _is_the_gates(Response(int(head.split(b" ")[1]), head, body))
        except AssertionError as error:
            error.add_note(repr((method, path, fields)))
            raise
