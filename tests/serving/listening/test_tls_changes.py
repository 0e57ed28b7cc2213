"""What a change of the gate's own TLS does to connections that are open, and what strangers log."""

import asyncio
import logging
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gatekit import PausedAnswer, RawClient, RawUpstream, request_bytes, until
from reloadkit import FileGate, file_gate
from tlsgatekit import Certificates, https_port, tls_client
from tlskit import Authority
from websocketkit import SWITCH, UPGRADE

from tailchat_gate.observe.log import log_python_faults

pytestmark = pytest.mark.both_loops

PUBLIC = [{"name": "tool", "allow": ["public"]}]
#: Longer than any test: what ends earlier was ended.
LONG = {"keepalive_timeout": "1h", "header_timeout": "1h", "shutdown_timeout": "1h"}


class Clients:
    """An authority of client certificates whose file a test replaces, and one it issued for."""

    def __init__(self, folder: Path) -> None:
        self.own = Certificates.create(folder)
        self.folder = folder
        self.authority = Authority.create(folder, "clients")
        self.issued = self.authority.issue("laptop")

    def server(self, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - as in the file
        """Return a [server] that needs a certificate of the authority."""
        return self.own.server(**{"client_ca": str(self.authority.file), **LONG, **keys})

    def context(self) -> ssl.SSLContext:
        """Return the context of a client with a certificate of the authority."""
        context = self.own.trusting()
        context.load_cert_chain(self.issued.certificate, self.issued.key)
        return context

    async def change(self, gate: FileGate, **keys: Any) -> None:  # noqa: ANN401 - as in server
        """Change [server]; without a key, replace the authority by another one in the same file."""
        if not keys:
            Authority.create(self.folder, "clients")
        await gate.change(server=self.server(**keys), route=PUBLIC)


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    """Return an authority of client certificates."""
    return Clients(tmp_path)


@pytest.fixture
async def gate(tmp_path: Path, upstream: RawUpstream, clients: Clients) -> AsyncIterator[FileGate]:
    """A gate whose clients need a certificate."""
    async with file_gate(tmp_path, upstream.url, server=clients.server(), route=PUBLIC) as found:
        yield found


async def ended(client: RawClient) -> bytes:
    """Return what a client still reads until the gate ends its connection."""
    async with asyncio.timeout(30):
        try:
            return await client.reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("keys", [{}, {"client_certificate": "optional"}])
async def test_idle_connections_end_with_their_client_ca(
    gate: FileGate, clients: Clients, keys: dict[str, str]
) -> None:
    """One that was let in by a certificate of before is closed; one without TLS stays."""
    async with (
        RawClient.connect(gate.port) as plain,
        tls_client(https_port(gate.gate), clients.context()) as client,
    ):
        for each in (plain, client):
            each.send(request_bytes("/a"))
            assert (await each.response()).status == 200
        await clients.change(gate, **keys)
        assert await ended(client) == b""
        plain.send(request_bytes("/a"))
        assert (await plain.response()).status == 200


async def test_other_changes_end_no_connection(gate: FileGate, clients: Clients) -> None:
    """A renewed certificate of the gate and other settings leave clients their connections."""
    async with tls_client(https_port(gate.gate), clients.context()) as client:
        clients.own.authority.issue("gate.test")
        await clients.change(gate, handshake_timeout="9s")
        for _ in range(2):
            client.send(request_bytes("/a"))
            response = await client.response()
            assert (response.status, response.values("Connection")) == (200, [])


async def test_a_request_under_way_is_the_last(
    gate: FileGate, clients: Clients, upstream: RawUpstream
) -> None:
    """It is answered, and the connection ends with its response."""
    upstream.answer = paused = PausedAnswer()
    async with tls_client(https_port(gate.gate), clients.context()) as client:
        client.send(request_bytes("/a"))
        await paused.arrived.wait()
        await clients.change(gate)
        paused.go_on.set()
        response = await client.response()
        assert (response.status, response.value("Connection")) == (200, "close")
        assert await ended(client) == b""


async def test_a_websocket_ends_in_time(
    gate: FileGate, clients: Clients, upstream: RawUpstream
) -> None:
    """A WebSocket, which may have no end, ends after shutdown_timeout."""

    async def switch(_: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        await reader.read()

    upstream.answer = switch
    async with tls_client(https_port(gate.gate), clients.context()) as client:
        client.send(request_bytes("/ws", **UPGRADE))
        assert b" 101 " in await client.head()
        Authority.create(clients.folder, "clients")
        await clients.change(gate, shutdown_timeout="1s")
        await ended(client)
        await until(lambda: not upstream.open_connections)


async def test_a_handshake_across_the_change(gate: FileGate, clients: Clients) -> None:
    """One that began before it does not stay open either."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = clients.context().wrap_bio(into, out, server_hostname="gate.test")
    async with RawClient.connect(https_port(gate.gate)) as client:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        client.send(out.read())
        while True:
            into.write(await client.reader.read(65536))
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        await clients.change(gate)
        client.send(out.read())
        await ended(client)
    openings = gate.gate.generation.process_state.certificates.openings
    await until(lambda: openings["opened"] == 1)


@contextmanager
def stray_complaints_logged() -> Iterator[None]:
    """Log stray complaints as the serving process does, until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)
        patch.setattr(threading, "excepthook", threading.excepthook)
        log_python_faults()
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)


def hello(name: bytes) -> bytes:
    """Return a ClientHello that asks for any bytes as a name."""
    placeholder = "x" * len(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=placeholder)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read().replace(placeholder.encode(), name)


class Broken:
    """Something whose destructor fails."""

    def __del__(self) -> None:
        """Fail."""
        raise ArithmeticError


async def test_names_that_are_no_text_fill_no_log(
    gate: FileGate, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that ask for them leave a line a minute without a traceback; faults keep theirs."""
    sent = hello(b"gate\xff\xfe.test")
    with stray_complaints_logged():
        caplog.clear()
        for _ in range(5):
            async with RawClient.connect(https_port(gate.gate)) as client:
                client.send(sent)
                await ended(client)
        found = [one for one in caplog.records if one.levelno >= logging.WARNING]
        caplog.clear()
        Broken()
        (fault,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert 1 <= len(found) < 5
    assert {(one.levelname, one.exc_info) for one in found} == {("WARNING", None)}
    assert "is not ASCII" in found[0].getMessage()
    assert fault.exc_info is not None
    assert fault.exc_info[0] is ArithmeticError
    async with tls_client(https_port(gate.gate), clients.context()) as client:
        client.send(request_bytes("/a"))
        assert (await client.response()).status == 200
