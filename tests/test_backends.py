"""Upstreams by TCP, by TLS and by Unix socket."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificatekit import make_certificate
from gatekit import OK, ask, make_settings, request_bytes

from tailchat_gate.config.address import HttpAddress, UnixAddress, upstream_address
from tailchat_gate.proxy.backends import Backend

Start = Callable[..., Any]


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "tls"),
    [
        ("http://tool:3000", "tool", 3000, "", False),
        ("http://tool", "tool", 80, "", False),
        ("https://tool", "tool", 443, "", True),
        ("https://tool:8443", "tool", 8443, "", True),
        ("http://[::1]:3000", "::1", 3000, "", False),
        ("unix:/run/tool.sock", "", 0, "/run/tool.sock", False),
    ],
)
def test_where_an_upstream_is(url: str, host: str, port: int, path: str, tls: bool) -> None:
    """An upstream's text becomes host and port, or a path; https verifies."""
    settings = make_settings(url).route[0]
    address = upstream_address(settings.upstream)
    assert isinstance(address, (HttpAddress, UnixAddress))

    backend = Backend.of_route(settings, address)

    assert (backend.host, backend.port, backend.path) == (host, port, path)
    assert (backend.tls is not None) is tls
    if backend.tls is not None:
        assert backend.tls.verify_mode is ssl.CERT_REQUIRED
        assert backend.tls.check_hostname


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    await writer.drain()
    writer.close()


async def test_a_tool_on_a_unix_socket(start_gate: Start, tmp_path: Path) -> None:
    """A request reaches a tool that listens on a Unix socket."""
    path = tmp_path / "tool.sock"
    server = await asyncio.start_unix_server(_serve, path)
    gate = await start_gate(f"unix:{path}")

    reply = await ask(gate.port, request_bytes(Cookie=gate.cookie()))
    server.close()

    assert (reply.status, reply.body) == (200, b"ok")


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_tool_by_tls(
    start_gate: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trusted: bool,
) -> None:
    """A tool by https is reached if its certificate verifies, and refused with the cause if not."""
    certificate, key = await asyncio.to_thread(make_certificate, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(context.load_cert_chain, certificate, key)
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    gate = await start_gate(f"https://localhost:{port}")

    with caplog.at_level(logging.WARNING, "tailchat_gate"):
        replies = [await ask(gate.port, request_bytes(Cookie=gate.cookie())) for _ in range(2)]
    server.close()

    if trusted:
        assert [reply.status for reply in replies] == [200, 200]
        assert caplog.records == []
    else:
        assert [reply.json["error"] for reply in replies] == ["upstream-down"] * 2
        (told,) = (record for record in caplog.records if record.name == "tailchat_gate")
        assert told.message == "an upstream cannot be reached"
        assert "CERTIFICATE_VERIFY_FAILED" in str(vars(told)["details"])
