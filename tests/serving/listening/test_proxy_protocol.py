"""The PROXY protocol on the wire: HAProxy and nginx as they speak it, and what nobody should."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from edgekit import program, serving
from gatekit import RawClient, RawUpstream, RunningGate, ask, request_bytes, until
from parts import missing
from process import free_port
from tlsgatekit import Certificates, https_port

pytestmark = pytest.mark.both_loops

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1 = b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n"
PUBLIC = [{"name": "tool", "allow": ["public"]}]
#: The port is not known beforehand: 0 is that of the listener.
ON = {
    "listen": ["127.0.0.1:0"],
    "proxy_protocol": ["127.0.0.1:0"],
    "trusted_proxies": ["127.0.0.1"],
}
CLOSE = {"Connection": "close"}
StartGate = Callable[..., Any]


def v2(command: int, family: int, rest: bytes) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + bytes((0x20 | command, family)) + struct.pack(">H", len(rest)) + rest


def addresses(source: str, family: socket.AddressFamily = socket.AF_INET) -> bytes:
    """Return addresses and ports as version 2 has them."""
    to = "127.0.0.1" if family == socket.AF_INET else "::1"
    packed = socket.inet_pton(family, source) + socket.inet_pton(family, to)
    return packed + struct.pack(">HH", 56324, 443)


async def answered(port: int, *pieces: bytes) -> bytes:
    """Send bytes in pieces, each on its own; return what comes until the end."""
    async with RawClient.connect(port) as client:
        for piece in pieces:
            client.send(piece)
            await client.writer.drain()
            # The gate has read one piece before it gets the next one.
            await asyncio.sleep(0)
        with suppress(ConnectionError):
            return await client.reader.read()
    return b""


def openings(gate: RunningGate) -> dict[str, int]:
    """Return what became of connections."""
    return dict(gate.generation.process_state.certificates.openings)


@pytest.fixture
async def gate(start_gate: StartGate, upstream: RawUpstream) -> RunningGate:
    """Return a gate whose only address requires a header."""
    found = await start_gate(upstream.url, server=ON, route=PUBLIC)
    assert isinstance(found, RunningGate)
    return found


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (V1, b"203.0.113.7"),
        (b"PROXY TCP6 2001:db8::9 ::1 56324 443\r\n", b"2001:db8::9"),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", b"203.0.113.7"),
        (b"PROXY UNKNOWN\r\n", b"unknown"),
        (b"PROXY UNKNOWN a b c d\r\n", b"unknown"),
        (v2(1, 0x11, addresses("203.0.113.7")), b"203.0.113.7"),
        (v2(1, 0x21, addresses("2001:db8::9", socket.AF_INET6)), b"2001:db8::9"),
        (v2(1, 0x11, addresses("203.0.113.7") + b"\x04\x00\x04abcd\xee"), b"203.0.113.7"),
        (v2(1, 0x31, bytes(216)), b"unknown"),
        (v2(1, 0x00, b""), b"unknown"),
        (v2(0, 0x00, b""), b"127.0.0.1"),
        (v2(0, 0x11, addresses("203.0.113.7")), b"127.0.0.1"),
    ],
)
async def test_the_header_names_the_client(
    gate: RunningGate, upstream: RawUpstream, header: bytes, client: bytes
) -> None:
    """The tool and the log are told of it; what follows the header is the request, whole."""
    for pieces in ((header + request_bytes("/a", **CLOSE),), (header[:9], header[9:])):
        rest = () if len(pieces) == 1 else (request_bytes("/a", **CLOSE),)
        assert (await answered(gate.port, *pieces, *rest)).startswith(b"HTTP/1.1 200 ")
        assert upstream.requests[-1].value("X-Forwarded-For") == client
    assert (await gate.log())[-1]["client"] == client.decode()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 56324\r\n",
        b"PROXY TCP4 203.0.113.007 127.0.0.1 56324 443\r\n",
        b"PROXY TCP4 2001:db8::9 ::1 56324 443\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 65536\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY  TCP4 203.0.113.7 127.0.0.1 56324 443\r\n",
        b"proxy TCP4 203.0.113.7 127.0.0.1 56324 443\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\n",
        b"PROXY UNKNOWN" + b" " * 120 + b"\r\n",
        v2(1, 0x11, addresses("203.0.113.7")[:-1]),
        v2(1, 0x12, addresses("203.0.113.7")),
        v2(2, 0x11, addresses("203.0.113.7")),
        v2(1, 0x11, bytes(9000)),
    ],
)
async def test_anything_else_is_no_connection(
    gate: RunningGate, upstream: RawUpstream, header: bytes
) -> None:
    """A malformed header, and none, end the connection without an answer."""
    assert await answered(gate.port, header + request_bytes("/a", **CLOSE) * 5) == b""
    await until(lambda: openings(gate).get("no-proxy-header") == 1)
    assert upstream.requests == []


async def test_a_client_cannot_add_its_own(gate: RunningGate, upstream: RawUpstream) -> None:
    """A second header is a malformed request, and X-Forwarded-For of such a client is ignored."""
    request = request_bytes("/a", X_Forwarded_For="198.51.100.1", **CLOSE)
    assert b" 400 " in (await answered(gate.port, V1 + V1 + request))[:20]
    assert b" 200 " in (await answered(gate.port, V1 + request))[:20]
    assert upstream.requests[-1].value("X-Forwarded-For") == b"203.0.113.7"


async def test_a_named_proxy_is_trusted_like_a_peer(
    start_gate: StartGate, upstream: RawUpstream
) -> None:
    """A trusted proxy that comes through another one has its X-Forwarded-For believed."""
    server = {**ON, "trusted_proxies": ["127.0.0.1", "203.0.113.7"]}
    gate = await start_gate(upstream.url, server=server, route=PUBLIC)
    request = request_bytes("/a", X_Forwarded_For="198.51.100.1", **CLOSE)
    assert b" 200 " in (await answered(gate.port, V1 + request))[:20]
    assert upstream.requests[-1].value("X-Forwarded-For") == b"198.51.100.1, 203.0.113.7"
    # A client that the proxy does not know is none, whatever it says of itself.
    assert b" 200 " in (await answered(gate.port, b"PROXY UNKNOWN\r\n" + request))[:20]
    assert upstream.requests[-1].value("X-Forwarded-For") == b"unknown"


async def test_only_trusted_proxies_are_heard(start_gate: StartGate, upstream: RawUpstream) -> None:
    """A header of anybody else ends the connection before it is read."""
    server = {**ON, "trusted_proxies": ["10.0.0.0/8"]}
    gate = await start_gate(upstream.url, server=server, route=PUBLIC)
    assert await answered(gate.port, V1 + request_bytes("/a", **CLOSE)) == b""
    assert upstream.requests == []


async def test_it_is_never_looked_for_elsewhere(
    start_gate: StartGate, upstream: RawUpstream
) -> None:
    """On an address that does not require it, a header of a trusted proxy is a bad request."""
    gate = await start_gate(upstream.url, server={**ON, "proxy_protocol": []}, route=PUBLIC)
    for header in (V1, v2(1, 0x11, addresses("203.0.113.7"))):
        assert b" 400 " in (await answered(gate.port, header + request_bytes("/a")))[:20]
    assert upstream.requests == []


async def test_a_slow_header_ends(start_gate: StartGate) -> None:
    """One that does not come within the time for a handshake is not waited for."""
    gate = await start_gate(server={**ON, "handshake_timeout": "1s"})
    assert await answered(gate.port, V1[:20]) == b""
    await until(lambda: openings(gate) == {"slow": 1})
    assert gate.generation.process_state.descriptors.clients == 0


async def test_a_proxy_that_leaves_is_no_client(gate: RunningGate) -> None:
    """Health checks that only connect, or leave within a header, leave nothing behind."""
    for sent in (b"", V1[:20], v2(0, 0, b"")):
        async with RawClient.connect(gate.port) as client:
            client.send(sent)
            client.writer.write_eof()
            with suppress(ConnectionError):
                assert await client.reader.read() == b""
    await until(lambda: not gate.generation.process_state.descriptors.clients)
    assert openings(gate) == {"failed": 2, "opened": 1}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates of gate.test."""
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


def ask_by_tls(port: int, context: ssl.SSLContext, header: bytes) -> bytes:
    """Send a header, then a request by TLS; return the answer. It blocks."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        plain.sendall(header)
        with context.wrap_socket(plain, server_hostname="gate.test") as client:
            client.sendall(request_bytes("/a", **CLOSE))
            answer = b""
            while more := client.recv(65536):
                answer += more
            return answer


async def test_tls_begins_behind_the_header(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates
) -> None:
    """The header is in plain text, and none of the handshake's bytes are taken for it."""
    server = certificates.server(**{**ON, "listen": ["127.0.0.1:0"]})
    gate = await start_gate(upstream.url, server=server, route=PUBLIC)
    port = gate.addresses_of("https_listen")[0][1]
    for header in (V1, v2(1, 0x11, addresses("203.0.113.7") + bytes(500))):
        answer = await asyncio.to_thread(ask_by_tls, port, certificates.trusting(), header)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert upstream.requests[-1].value("X-Forwarded-For") == b"203.0.113.7"


async def test_a_named_client_has_a_part_of_the_handshakes(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates
) -> None:
    """The address in the header is counted, not the proxy's: one client shuts out no other one."""
    https = {"https_listen": ["127.0.0.1:0"], "proxy_protocol": ["127.0.0.1:0"]}
    server = certificates.server(**https, trusted_proxies=["127.0.0.1"], handshake_timeout="60s")
    gate = await start_gate(upstream.url, server=server, limits={"handshakes": 8}, route=PUBLIC)
    port, context = https_port(gate), certificates.trusting()
    other = v2(1, 0x11, addresses("198.51.100.1"))
    async with AsyncExitStack() as silent:
        for _ in range(5):
            client = await silent.enter_async_context(RawClient.connect(port))
            client.send(V1)
        await until(lambda: openings(gate).get("refused") == 3)
        answer = await asyncio.to_thread(ask_by_tls, port, context, other)
        assert answer.startswith(b"HTTP/1.1 200 ")
    await until(lambda: openings(gate).get("failed") == 2)
    answer = await asyncio.to_thread(ask_by_tls, port, context, V1)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert openings(gate) == {"refused": 3, "failed": 2, "opened": 2}


# Proxies that speak it.

_HAPROXY = """
defaults
    mode {mode}
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    # Else "inter", and the first check that fails puts a server out.
    timeout check 30s
frontend web
    bind 127.0.0.1:{port}
    default_backend gate
backend gate
    option httpchk GET /ping
    server gate 127.0.0.1:{gate} {options}
"""
_NGINX = """
{load}daemon off; master_process off; worker_processes 1; pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections 64; }}
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_protocol on;
        proxy_pass 127.0.0.1:{gate};
    }}
}}
"""
_STREAM_MODULES = (
    Path("/usr/lib/nginx/modules/ngx_stream_module.so"),
    Path("/usr/share/nginx/modules/ngx_stream_module.so"),
)


@asynccontextmanager
async def haproxy(directory: Path, gate: int, options: str, mode: str) -> AsyncIterator[int]:
    """Run HAProxy before a gate until the block ends; yield its port."""
    port = free_port()
    text = _HAPROXY.format(mode=mode, port=port, gate=gate, options=options)
    file = directory / "haproxy.cfg"
    await asyncio.to_thread(file.write_text, text)
    async with serving([program("haproxy"), "-db", "-f", str(file)], directory, port):
        yield port


@pytest.mark.parametrize("mode", ["tcp", "http"])
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 check"])
async def test_haproxy(
    gate: RunningGate, upstream: RawUpstream, tmp_path: Path, version: str, mode: str
) -> None:
    """Both of its versions, passing on bytes or requests; its client has an address of its own."""
    options = version.replace("check", "check check-send-proxy inter 100ms fall 1000")
    async with haproxy(tmp_path, gate.port, options, mode) as port:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=("127.0.0.9", 0)
        )
        client = RawClient(reader, writer)
        try:
            for _ in range(2):
                client.send(request_bytes("/a", X_Forwarded_For="198.51.100.1"))
                assert (await client.response()).status == 200
        finally:
            writer.close()
        if "check" in version:
            # Its health checks come by LOCAL.
            await until(lambda: openings(gate).get("opened", 0) >= 4)
    assert upstream.requests[-1].value("X-Forwarded-For") == b"127.0.0.9"
    assert "no-proxy-header" not in openings(gate)


async def test_nginx(gate: RunningGate, upstream: RawUpstream, tmp_path: Path) -> None:
    """Its stream module passes on bytes, version 1 before them."""
    found = next((module for module in _STREAM_MODULES if module.exists()), None)
    if found is None:
        missing("nginx's stream module")
    port = free_port()
    load = f"load_module {found}; "
    text = _NGINX.format(load=load, directory=tmp_path, port=port, gate=gate.port)
    file = tmp_path / "nginx.conf"
    await asyncio.to_thread(file.write_text, text)
    command = [program("nginx"), "-p", str(tmp_path), "-c", str(file)]
    async with serving(command, tmp_path, port):
        assert (await ask(port, request_bytes("/a", **CLOSE))).status == 200
    assert upstream.requests[-1].value("X-Forwarded-For") == b"127.0.0.1"
