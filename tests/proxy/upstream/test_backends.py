"""Upstreams by TCP, by TLS and by Unix socket."""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gatekit import OK, RunningGate, ask, listening, make_settings, request_bytes
from tlskit import Authority
from wirekit import say

from tailchat_gate.config.values.address import HttpAddress, UnixAddress, upstream_address
from tailchat_gate.proxy.upstream.backends import Backend

pytestmark = pytest.mark.both_loops

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
    address = upstream_address(settings.backends[0])
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

    response = await ask(gate.port, request_bytes(Cookie=gate.cookie()))
    server.close()

    assert (response.status, response.body) == (200, b"ok")


@dataclass
class TlsTool:
    """A tool that speaks https, and what it saw of those who came."""

    authority: Authority
    port: int
    #: The name that each connection asked for (SNI).
    names: list[str | None]
    #: Whose certificate each connection showed.
    shown: list[str]

    @property
    def url(self) -> str:
        """Its URL."""
        return f"https://localhost:{self.port}"


StartTls = Callable[..., Awaitable[TlsTool]]


@pytest.fixture
async def tls_tool(tmp_path: Path) -> AsyncIterator[StartTls]:
    """Return a function that starts a tool with a certificate: (name, lifetime, clients)."""
    async with AsyncExitStack() as stack:

        async def start(
            name: str = "localhost", *, hours: int = 1, clients: Path | None = None
        ) -> TlsTool:
            authority = await asyncio.to_thread(Authority.create, tmp_path)
            issued = await asyncio.to_thread(authority.issue, name, ends=timedelta(hours=hours))
            context = await asyncio.to_thread(issued.server_context, clients=clients)
            tool = TlsTool(authority, 0, [], [])

            def asked(
                connection: ssl.SSLObject | ssl.SSLSocket, wanted: str | None, found: ssl.SSLContext
            ) -> None:
                tool.names.append(wanted)

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                while await reader.readline() not in {b"", b"\r\n"}:
                    pass
                peer = writer.get_extra_info("peercert")
                subject = dict(one[0] for one in peer["subject"]) if peer else {}
                tool.shown.append(subject.get("commonName", ""))
                writer.write(OK)
                writer.close()

            context.sni_callback = asked
            server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
            stack.callback(server.close)
            tool.port = server.sockets[0].getsockname()[1]
            return tool

        yield start


async def _asked(gate: RunningGate, path: str = "/") -> tuple[int, str]:
    """Return the status of a request, and the reason where it failed."""
    response = await ask(gate.port, request_bytes(path, Cookie=gate.cookie()))
    return response.status, "" if response.status == 200 else response.json["error"]


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_tool_by_tls(
    start_gate: Start,
    tls_tool: StartTls,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trusted: bool,
) -> None:
    """A tool by https is reached if its certificate verifies, and refused with the cause if not."""
    tool = await tls_tool()
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tool.authority.file))
    gate = await start_gate(tool.url)

    with caplog.at_level(logging.WARNING, "tailchat_gate"):
        found = [await _asked(gate) for _ in range(2)]

    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    if trusted:
        assert found == [(200, "")] * 2
        assert warned == []
    else:
        assert found == [(502, "upstream-down")] * 2
        assert tool.shown == []
        (told,) = (record for record in warned if record.name == "tailchat_gate")
        assert told.message == "an upstream cannot be reached"
        details = vars(told)["details"]
        assert (details["upstream"], details["cause"]) == (tool.url, "tls")
        assert "CERTIFICATE_VERIFY_FAILED" in details["error"]


async def test_an_authority_of_the_routes_own(
    start_gate: Start, tls_tool: StartTls, tmp_path: Path
) -> None:
    """`tls_ca` is trusted in place of the system's authorities, on its route alone."""
    tool = await tls_tool()
    other = await asyncio.to_thread(Authority.create, tmp_path, "another")
    gate = await start_gate(
        tool.url,
        route=[
            {"name": "own", "path": "/own", "tls_ca": str(tool.authority.file)},
            {"name": "another", "path": "/another", "tls_ca": str(other.file)},
            {"name": "systems", "path": "/systems"},
        ],
    )

    assert await _asked(gate, "/own") == (200, "")
    assert await _asked(gate, "/another") == (502, "upstream-down")
    assert await _asked(gate, "/systems") == (502, "upstream-down")
    assert len(tool.shown) == 1


@pytest.mark.parametrize(
    ("name", "hours", "wanted", "status"),
    [
        ("localhost", 1, None, 200),
        ("localhost", -1, None, 502),
        ("tool.lan", 1, None, 502),
        ("tool.lan", 1, "tool.lan", 200),
        ("localhost", 1, "tool.lan", 502),
    ],
)
async def test_a_tool_is_asked_for_by_name_and_verified_by_it(
    start_gate: Start,
    tls_tool: StartTls,
    name: str,
    hours: int,
    wanted: str | None,
    status: int,
) -> None:
    """SNI is the host of the address, or `tls_server_name`; a certificate of another is refused."""
    tool = await tls_tool(name, hours=hours)
    keys = {"tls_ca": str(tool.authority.file)}
    if wanted is not None:
        keys["tls_server_name"] = wanted
    gate = await start_gate(tool.url, route=[{"name": "tool", **keys}])

    assert (await _asked(gate))[0] == status
    assert tool.names == [wanted or "localhost"]
    assert len(tool.shown) == (1 if status == 200 else 0)


async def test_a_tool_that_wants_a_certificate(
    start_gate: Start, tls_tool: StartTls, tmp_path: Path
) -> None:
    """The route's certificate is shown to a tool that asks for one, and to no other route's."""
    clients = await asyncio.to_thread(Authority.create, tmp_path, "clients")
    mine = await asyncio.to_thread(clients.issue, "gate")
    tool = await tls_tool(clients=clients.file)
    trust = {"tls_ca": str(tool.authority.file)}
    shown = {"tls_certificate": str(mine.certificate), "tls_key": str(mine.key)}
    gate = await start_gate(
        tool.url,
        route=[
            {"name": "shows", "path": "/shows", **trust, **shown},
            {"name": "hides", "path": "/hides", **trust},
        ],
    )

    assert await _asked(gate, "/shows") == (200, "")
    status, reason = await _asked(gate, "/hides")
    assert status == 502
    assert reason.startswith("upstream-")
    assert await _asked(gate, "/shows") == (200, "")
    assert tool.shown == ["gate", "gate"]


@pytest.mark.parametrize("clean", [True, False])
async def test_a_reply_that_ends_with_its_tls(
    start_gate: Start, tmp_path: Path, clean: bool
) -> None:
    """Without a close alert a reply that ends with its connection is not whole (B 8 and 9.8)."""
    authority = await asyncio.to_thread(Authority.create, tmp_path)
    issued = await asyncio.to_thread(authority.issue, "localhost")
    context = await asyncio.to_thread(issued.server_context)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npart")
        await writer.drain()
        if not clean:
            # The end of TCP alone, as somebody in between could send it.
            found = writer.get_extra_info("socket")
            await asyncio.sleep(0.05)
            with socket.socket(fileno=os.dup(found.fileno())) as below:
                below.shutdown(socket.SHUT_WR)
            await reader.read()
        writer.close()

    route = [{"name": "tool", "tls_ca": str(authority.file)}]
    async with listening(answer, tls=context) as port:
        gate = await start_gate(f"https://localhost:{port}", route=route)
        found = await say(gate.port, request_bytes(Cookie=gate.cookie(), Connection="close"))

    assert found.statuses == [200]
    assert b"part" in found.data
    assert found.data.endswith(b"0\r\n\r\n") is clean
