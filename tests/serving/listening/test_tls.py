"""The gate's own TLS, by real clients: certificates by name, versions, reloads, limits."""

import asyncio
import re
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gatekit import OK, RawClient, RawUpstream, ask, request_bytes, until
from parts import missing
from reloadkit import file_gate
from tlsgatekit import Certificates, files_of, https_port, names_of, resumed, tls_client, tls_of
from tlskit import Authority
from websocketkit import MASK, SWITCH, UPGRADE

from tailchat_gate.proxy.client import closing
from tailchat_gate.serving.listening import openings as openings_module

pytestmark = pytest.mark.both_loops

CLOSE = {"Connection": "close"}
PUBLIC = [{"name": "tool", "allow": ["public"]}]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates that no test replaces."""
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


StartGate = Callable[..., Any]


async def run(*command: str, text: str = "") -> tuple[int, str]:
    """Run a client program; return its code and what it wrote."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            # No pipe for nothing: uvloop's raises RuntimeError where the program has ended.
            stdin=subprocess.PIPE if text else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except FileNotFoundError:
        missing(command[0])
    out, _ = await process.communicate(text.encode() if text else None)
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace")


async def test_a_request_comes_by_tls(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates
) -> None:
    """It reaches the tool like any other, with the scheme and the port of HTTPS."""
    gate = await start_gate(upstream.url, server=certificates.server(), route=PUBLIC)
    async with tls_client(https_port(gate), certificates.trusting()) as client:
        for path in ("/a", "/b"):
            client.send(request_bytes(path))
            assert (await client.response()).body == b"ok"
        assert tls_of(client).version() == "TLSv1.3"

    received = upstream.requests[-1]
    assert received.value("X-Forwarded-Proto") == b"https"
    assert received.value("X-Forwarded-Port") == b"443"
    assert received.value("X-Forwarded-For") == b"127.0.0.1"


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("gate.test", "gate.test"),
        ("GATE.test", "gate.test"),
        ("tools.test", "tools.test"),
        ("wiki.tools.test", "tools.test"),
        ("a.wiki.tools.test", "gate.test"),
        ("other.test", "gate.test"),
        ("127.0.0.1", "gate.test"),
    ],
)
async def test_the_name_asked_for_chooses_the_certificate(
    start_gate: StartGate, certificates: Certificates, asked: str, shown: str
) -> None:
    """Whole names and one label of a wildcard; the first one for every other name, and for none."""
    gate = await start_gate(server=certificates.server())
    unchecked = certificates.trusting(check_hostname=False)
    async with tls_client(https_port(gate), unchecked, asked) as client:
        assert shown in names_of(client)


async def test_http_1_1_is_all_that_is_offered(
    start_gate: StartGate, certificates: Certificates
) -> None:
    """A browser that would speak HTTP/2 is told of HTTP/1.1."""
    gate = await start_gate(server=certificates.server())
    context = certificates.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name in ("gate.test", "wiki.tools.test"):
        async with tls_client(https_port(gate), context, name) as client:
            assert tls_of(client).selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize(
    ("option", "version"), [("-tls1_1", ""), ("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")]
)
async def test_versions_begin_with_1_2(
    start_gate: StartGate, certificates: Certificates, option: str, version: str
) -> None:
    """By openssl's own client, which verifies the chain; an older version gets no connection."""
    gate = await start_gate(server=certificates.server())
    where = f"127.0.0.1:{https_port(gate)}"
    authority = ("-CAfile", str(certificates.authority.file), "-servername", "gate.test")
    old = ("-cipher", "ALL@SECLEVEL=0")
    code, told = await run(
        *("openssl", "s_client", "-connect", where, option, "-verify_return_error", *authority),
        *old,
    )

    assert (code == 0) == bool(version), told
    assert not version or (version in told and "Verify return code: 0 (ok)" in told)


async def test_curl_and_its_upload(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates
) -> None:
    """It verifies the name, and a body of many records arrives whole."""
    gate = await start_gate(upstream.url, server=certificates.server(), route=PUBLIC)
    port = https_port(gate)
    code, told = await run(
        *("curl", "--silent", "--show-error", "--cacert", str(certificates.authority.file)),
        *("--resolve", f"gate.test:{port}:127.0.0.1", "--data-binary", "@-"),
        f"https://gate.test:{port}/form",
        text="a" * 300_000,
    )

    assert (code, told) == (0, "ok")
    assert upstream.requests[-1].body == b"a" * 300_000


async def test_a_client_refuses_what_is_not_its_hosts(
    start_gate: StartGate, certificates: Certificates, tmp_path: Path
) -> None:
    """An expired certificate and one for another name are served, and clients go away."""
    old = Authority.create(tmp_path, "old").issue("gate.test", ends=timedelta(hours=-1))
    gate = await start_gate(server=certificates.server(tls=[files_of(old)]))
    expired = ssl.create_default_context(cafile=tmp_path / "old.pem")
    for context in (expired, certificates.trusting()):
        with pytest.raises(ssl.SSLCertVerificationError):
            async with tls_client(https_port(gate), context):
                pass
    assert (await ask(gate.port, request_bytes("/ping", **CLOSE))).status == 200


async def test_plain_http_gets_no_answer(start_gate: StartGate, certificates: Certificates) -> None:
    """Bytes that are no TLS end the connection, and the gate serves the next one."""
    gate = await start_gate(server=certificates.server())
    for sent in (request_bytes("/ping"), b"\x16\x03\x01\xff\xff" + b"a" * 70_000, b""):
        async with RawClient.connect(https_port(gate)) as client:
            client.send(sent)
            client.writer.write_eof()
            with suppress(ConnectionError):
                assert b"HTTP" not in await client.reader.read()
    async with tls_client(https_port(gate), certificates.trusting()) as good:
        good.send(request_bytes("/ping"))
        assert (await good.response()).status == 200
    openings = gate.generation.process_state.certificates.openings
    assert (openings["failed"], openings["opened"]) == (3, 1)


async def test_a_slow_handshake_ends(start_gate: StartGate, certificates: Certificates) -> None:
    """One that does not complete within its time limit is closed and counted."""
    server = certificates.server(handshake_timeout="1s")
    gate = await start_gate(server=server)
    async with RawClient.connect(https_port(gate)) as client:
        client.send(b"\x16")
        with suppress(ConnectionError):
            assert await client.reader.read() == b""
    openings = gate.generation.process_state.certificates.openings
    await until(lambda: gate.generation.process_state.descriptors.clients == 0)
    assert openings["slow"] == 1


@asynccontextmanager
async def _silent(port: int, count: int) -> AsyncIterator[None]:
    """Keep so many connections whose clients say nothing."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        yield
    finally:
        for _, writer in opened:
            writer.close()


async def test_handshakes_are_bounded(start_gate: StartGate, certificates: Certificates) -> None:
    """One client may have a quarter of them; of many clients, those that take long make room."""
    gate = await start_gate(
        server=certificates.server(trusted_proxies=["127.0.0.1"]), limits={"handshakes": 4}
    )
    port, openings = https_port(gate), gate.generation.process_state.certificates.openings
    # A trusted proxy's are not counted by client.
    async with _silent(port, 5), tls_client(port, certificates.trusting()) as client:
        client.send(request_bytes("/ping"))
        assert (await client.response()).status == 200
    assert openings["crowded"] >= 1
    assert openings["refused"] == 0


async def test_all_that_take_long_make_room(
    start_gate: StartGate, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One client that comes ends every handshake that takes long, not one for each look."""
    monkeypatch.setattr(openings_module, "SLOW_SECONDS", 1e9)
    gate = await start_gate(
        server=certificates.server(trusted_proxies=["127.0.0.1"], handshake_timeout="60s"),
        limits={"handshakes": 8},
    )
    port, openings = https_port(gate), gate.generation.process_state.certificates.openings
    async with _silent(port, 8):
        await until(lambda: gate.generation.process_state.descriptors.clients == 8)
        monkeypatch.setattr(openings_module, "SLOW_SECONDS", 0.0)
        async with tls_client(port, certificates.trusting()) as client:
            client.send(request_bytes("/ping"))
            assert (await client.response()).status == 200
            await until(lambda: openings["failed"] >= 1)
            assert openings["crowded"] == 8
            await until(lambda: openings["failed"] == 8)


async def test_nobody_makes_room_for_nobody(
    start_gate: StartGate, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where as many handshakes as may be take long, they go on until somebody waits."""
    monkeypatch.setattr(openings_module, "SLOW_SECONDS", 0.0)
    gate = await start_gate(
        server=certificates.server(trusted_proxies=["127.0.0.1"], handshake_timeout="60s"),
        limits={"handshakes": 4},
    )
    port, openings = https_port(gate), gate.generation.process_state.certificates.openings
    async with _silent(port, 4):
        await until(lambda: gate.generation.process_state.descriptors.clients == 4)
        for _ in range(3):
            assert (await ask(gate.port, request_bytes("/ping"))).status == 200
        assert openings["crowded"] == 0


async def test_one_client_has_a_part_of_them(
    start_gate: StartGate, certificates: Certificates
) -> None:
    """A client with as many handshakes as one may have is refused the next one."""
    gate = await start_gate(server=certificates.server(), limits={"handshakes": 8})
    port, openings = https_port(gate), gate.generation.process_state.certificates.openings
    async with _silent(port, 3):
        await until(lambda: openings["refused"] == 1)
    await until(lambda: openings["failed"] == 2)
    async with tls_client(port, certificates.trusting()):
        pass


async def test_sessions_are_resumed(certificates: Certificates, tmp_path: Path) -> None:
    """A second handshake is short, after a reload too; with other files it is a whole one."""
    request = request_bytes("/ping", **CLOSE)
    server = certificates.server()
    async with file_gate(tmp_path, "http://127.0.0.1:9", server=server) as gate:
        port, context = https_port(gate.gate), certificates.trusting()
        again, session, _ = await asyncio.to_thread(resumed, port, context, None, request)
        assert not again
        await gate.change(log={"level": "warning"}, server=server)
        again, session, _ = await asyncio.to_thread(resumed, port, context, session, request)
        assert again
        other = certificates.server(tls=[files_of(certificates.gate)])
        await gate.change(server=other)
        again, _, answer = await asyncio.to_thread(resumed, port, context, session, request)
        assert not again
        assert answer.startswith(b"HTTP/1.1 200")


async def test_a_renewal_loses_no_connection(tmp_path: Path, upstream: RawUpstream) -> None:
    """New connections are shown the new pair; those under load go on without one fault."""
    own = Certificates.create(tmp_path)
    served: list[int] = []
    async with file_gate(tmp_path, upstream.url, server=own.server(), route=PUBLIC) as gate:
        port, context = https_port(gate.gate), own.trusting()

        async def visit() -> None:
            async with tls_client(port, context) as client:
                while len(served) < 400:
                    client.send(request_bytes("/a"))
                    served.append((await client.response()).status)
            async with tls_client(port, context) as client:
                client.send(request_bytes("/a"))
                served.append((await client.response()).status)

        visitors = [asyncio.ensure_future(visit()) for _ in range(4)]
        try:
            serials: set[str] = set()
            for count in (50, 150, 250):
                await until(lambda: len(served) > count)  # noqa: B023 - waited for at once
                own.authority.issue("gate.test")
                assert (await gate.load()).problems == ()
                async with tls_client(port, context) as client:
                    serials.add(str((tls_of(client).getpeercert() or {})["serialNumber"]))
            await asyncio.gather(*visitors)
        finally:
            for visitor in visitors:
                visitor.cancel()
    assert len(serials) == 3
    assert set(served) == {200}


async def test_a_changed_file_is_loaded_by_itself(tmp_path: Path) -> None:
    """The watcher of the configuration's files sees both, as a client of ACME replaces them."""
    own = Certificates.create(tmp_path)
    async with file_gate(
        tmp_path, "http://127.0.0.1:9", server={**own.server(), "watch": True}
    ) as gate:
        reloader = gate.gate.server.reloader
        assert reloader is not None
        watching = asyncio.ensure_future(reloader.watch(0.02))
        try:
            before = own.gate.certificate.read_bytes()
            own.authority.issue("gate.test")
            assert own.gate.certificate.read_bytes() != before
            reloads = gate.gate.generation.process_state.reloads
            await until(lambda: reloads.generation > 1 and not reloads.problems)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_a_broken_pair_keeps_the_old_one(tmp_path: Path) -> None:
    """A key of another certificate is refused with its place, and what was in force serves on."""
    own = Certificates.create(tmp_path)
    async with file_gate(tmp_path, "http://127.0.0.1:9", server=own.server()) as gate:
        old = own.gate.certificate.read_bytes()
        own.gate.certificate.write_bytes(own.tools.certificate.read_bytes())
        (problem,) = (await gate.load()).problems
        assert problem.key_path == "server.tls[0].key"
        assert problem.found.endswith("the private key of another certificate")
        own.gate.certificate.write_bytes(b"")
        (problem,) = (await gate.load()).problems
        assert problem.key_path == "server.tls[0].certificate"
        async with tls_client(https_port(gate.gate), own.trusting()) as client:
            assert names_of(client) == {"gate.test"}
        own.gate.certificate.write_bytes(old)
        assert (await gate.load()).problems == ()


async def test_tls_is_switched_on_by_a_reload(certificates: Certificates, tmp_path: Path) -> None:
    """A listener that a reload adds has its certificates from its first connection on."""
    plain = {"public_url": "https://gate.test"}
    async with file_gate(tmp_path, "http://127.0.0.1:9", server=plain) as gate:
        await gate.change(server=certificates.server())
        async with tls_client(https_port(gate.gate), certificates.trusting()) as client:
            client.send(request_bytes("/ping"))
            assert (await client.response()).status == 200
        await gate.change(server=plain)
        assert gate.gate.addresses_of("https_listen") == []


async def test_a_websocket_by_tls(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates
) -> None:
    """Its bytes go both ways, and the client's end reaches the tool."""
    ended = asyncio.Event()

    async def echo(_: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        while data := await reader.read(65536):
            writer.write(data)
        ended.set()

    upstream.answer = echo
    gate = await start_gate(upstream.url, server=certificates.server(), route=PUBLIC)
    async with tls_client(https_port(gate), certificates.trusting()) as client:
        client.send(request_bytes("/ws", **UPGRADE))
        assert b" 101 " in await client.head()
        frame = b"\x82\xfe\x40\x00" + MASK + bytes(0x4000)
        for _ in range(20):
            client.send(frame)
            assert await client.reader.readexactly(len(frame)) == frame
    async with asyncio.timeout(30):
        await ended.wait()


def send_all_first(port: int, context: ssl.SSLContext) -> bytes:
    """Send a request with a large body, and read nothing before all of it is sent. It blocks."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="gate.test") as client,
    ):
        client.sendall(request_bytes("/a", method="POST", Content_Length="8000000"))
        client.sendall(b"a" * 8_000_000)
        return client.recv(65536)


async def test_a_refused_upload_reads_why(
    start_gate: StartGate, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends all before it reads gets the answer: the rest is read and dropped."""
    # As long as a busy machine may take over it.
    monkeypatch.setattr(closing, "LINGER_SECONDS", 60.0)
    gate = await start_gate(server=certificates.server())
    port, context = https_port(gate), certificates.trusting()
    answer = await asyncio.to_thread(send_all_first, port, context)
    assert answer.startswith(b"HTTP/1.1 401 ")


def read_slowly(port: int, context: ssl.SSLContext) -> int:
    """Read a response in small pieces; return the size of its body.

    It blocks, and not only because it is simple: uvloop's own client loses what it has not read.
    """
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", port))
        with context.wrap_socket(plain, server_hostname="gate.test") as client:
            client.sendall(request_bytes("/a", **CLOSE))
            got = b""
            while more := client.recv(1024):
                got += more
                time.sleep(0.02)
    return len(got.partition(b"\r\n\r\n")[2])


async def test_a_slow_reader_gets_all_of_it(
    start_gate: StartGate,
    upstream: RawUpstream,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as a client reads, a connection that is to end is not cut off."""
    monkeypatch.setattr(closing, "LINGER_SECONDS", 60.0)
    body = b"b" * 60_000
    upstream.answer = OK.replace(b"Content-Length: 2", b"Content-Length: 60000")[:-2] + body
    gate = await start_gate(upstream.url, server=certificates.server(), route=PUBLIC)
    # The system takes little, so the end of the response waits below TLS, where it is not told of.
    for _, listening in gate.server._listeners.sockets():
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    port, context = https_port(gate), certificates.trusting()
    reading = asyncio.create_task(asyncio.to_thread(read_slowly, port, context))

    server = gate.server._server
    assert server is not None

    def lingering() -> closing.Lingering | None:
        return next((one._lingering for one in server.connections), None)

    await until(lambda: lingering() is not None)
    one = lingering()
    assert one is not None
    # The first look comes at once, and must find that the client reads; no other one is needed.
    one._until = 0.0
    assert await reading == len(body)


async def test_cookies_are_secure(start_gate: StartGate, certificates: Certificates) -> None:
    """What a sign-in sets goes back by HTTPS alone."""
    gate = await start_gate(server=certificates.server())
    async with tls_client(https_port(gate), certificates.trusting()) as client:
        client.send(request_bytes("/oauth2/start?rd=/", Sec_Fetch_Mode="navigate", Accept="*/*"))
        cookies = (await client.response()).values("Set-Cookie")
    assert cookies
    assert all(re.match("__Host-.*; Secure", one) for one in cookies)


@pytest.mark.parametrize(
    ("method", "host", "status", "location"),
    [
        ("GET", "gate.test", 301, "https://gate.test/a%2Fb?c=d"),
        ("HEAD", "gate.test:80", 301, "https://gate.test/a%2Fb?c=d"),
        ("POST", "Wiki.Tools.test", 308, "https://wiki.tools.test/a%2Fb?c=d"),
        ("GET", "tools.test", 404, ""),
        ("GET", "evil.test", 404, ""),
    ],
)
async def test_plain_http_is_redirected(
    start_gate: StartGate,
    certificates: Certificates,
    method: str,
    host: str,
    status: int,
    location: str,
) -> None:
    """To the same target of a host that the gate knows, and to no other; a method is kept."""
    gate = await start_gate(
        server=certificates.server(redirect_listen=["127.0.0.1:0"], hsts="1h"),
        route=[{"name": "wiki", "host": "*.tools.test", "allow": ["public"]}],
    )
    port = gate.addresses_of("redirect_listen")[0][1]
    request = request_bytes("/a%2Fb?c=d", method=method, host=host)
    response = await ask(port, request, to_head=method == "HEAD")

    assert (response.status, response.value("Location")) == (status, location)
    assert response.values("Strict-Transport-Security") == []
    assert (await gate.log())[-1]["status"] == status


async def test_a_redirecting_listener_answers_nothing_else(
    start_gate: StartGate, certificates: Certificates
) -> None:
    """Neither the gate's own pages nor bytes that are no request; connections stay open."""
    gate = await start_gate(server=certificates.server(redirect_listen=["127.0.0.1:0"]))
    port = gate.addresses_of("redirect_listen")[0][1]
    async with RawClient.connect(port) as client:
        for path in ("/oauth2/userinfo", "/ping", "/oauth2/auth"):
            client.send(request_bytes(path, Cookie=gate.cookie()))
            assert (await client.response()).status == 301
    assert (await ask(port, b"nonsense\r\n\r\n")).status == 400


async def test_browsers_are_told_to_stay_with_https(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates
) -> None:
    """Responses of tools, pages and refusals have the header once, where it is asked for."""
    gate = await start_gate(
        upstream.url,
        server=certificates.server(hsts="365d"),
        route=[*PUBLIC, {"name": "closed", "path": "/closed"}],
    )
    async with tls_client(https_port(gate), certificates.trusting()) as client:
        for path in ("/tool", "/closed", "/ping", "/oauth2/sign_in", "/oauth2/nothing"):
            client.send(request_bytes(path))
            found = (await client.response()).values("Strict-Transport-Security")
            assert (path, found) == (path, ["max-age=31536000"])


async def is_turned_away(port: int, context: ssl.SSLContext) -> bool:
    """Whether a client gets no response; TLS 1.3 tells it after its own part of the handshake."""
    try:
        async with tls_client(port, context) as client:
            client.send(request_bytes("/a"))
            await client.response()
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return True
    return False


async def test_a_client_certificate_is_required(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates, tmp_path: Path
) -> None:
    """Without one, or with another authority's, no request is read; the tool is told of a good one.

    What a visitor says of a certificate is stripped, also where a route passes such a field.
    """
    clients = Authority.create(tmp_path, "clients")
    good = clients.issue("laptop")
    bad = Authority.create(tmp_path, "others").issue("laptop")
    gate = await start_gate(
        upstream.url,
        server=certificates.server(client_ca=str(clients.file), pass_client_certificate=True),
        route=[{**PUBLIC[0], "pass_fields": ["Client-Cert"]}],
    )
    port = https_port(gate)
    for files in ((), (bad.certificate, bad.key)):
        context = certificates.trusting()
        if files:
            context.load_cert_chain(*files)
        assert await is_turned_away(port, context)
    assert upstream.requests == []

    context = certificates.trusting()
    context.load_cert_chain(good.certificate, good.key)
    for name in ("gate.test", "wiki.tools.test"):
        async with tls_client(port, context, name) as client:
            client.send(request_bytes("/a", host=name, Client_Cert=":forged:"))
            assert (await client.response()).status == 200
    value = upstream.requests[-1].value("Client-Cert") or b""
    der = ssl.PEM_cert_to_DER_cert(good.certificate.read_text())
    assert value == b":%b:" % b64encode(der)


async def test_the_gate_serves_without_a_plain_listener(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates
) -> None:
    """With an empty list every connection is one by TLS."""
    gate = await start_gate(upstream.url, server=certificates.server(listen=[]), route=PUBLIC)
    assert gate.addresses_of("listen") == []
    async with tls_client(https_port(gate), certificates.trusting()) as client:
        client.send(request_bytes("/a"))
        assert (await client.response()).status == 200


async def test_a_client_certificate_is_optional(
    start_gate: StartGate, upstream: RawUpstream, certificates: Certificates, tmp_path: Path
) -> None:
    """A visitor without one may enter, and the tool is told of none; a bad one ends it."""
    clients = Authority.create(tmp_path, "clients")
    gate = await start_gate(
        upstream.url,
        server=certificates.server(
            client_ca=str(clients.file),
            client_certificate="optional",
            pass_client_certificate=True,
        ),
        route=PUBLIC,
    )
    async with tls_client(https_port(gate), certificates.trusting()) as client:
        client.send(request_bytes("/a", Client_Cert=":forged:"))
        assert (await client.response()).status == 200
    assert upstream.requests[-1].values("Client-Cert") == []
    bad = Authority.create(tmp_path, "others").issue("laptop")
    context = certificates.trusting()
    context.load_cert_chain(bad.certificate, bad.key)
    assert await is_turned_away(https_port(gate), context)
    assert len(upstream.requests) == 1


def told_problems(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Return how the problems of certificates begin that the log tells."""
    details = [getattr(one, "details", {}) for one in caplog.records]
    return {one["problem"][:10] for one in details if "problem" in one}


async def test_the_expiry_is_told(
    start_gate: StartGate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a metric by file, and in the log while it is near."""
    own = Certificates.create(tmp_path)
    issued = own.authority.issue("other.test", ends=timedelta(days=30))
    server = own.server(tls=[files_of(issued)])
    gate = await start_gate(server=server)
    process_state = gate.generation.process_state
    name = "gate_certificate_expiry_timestamp_seconds"
    pattern = rf'^{name}{{file="{issued.certificate}"}} (\S+)$'
    found = re.search(pattern, process_state.metrics.render().decode(), re.MULTILINE)
    assert found is not None
    for days, told in ((15, set()), (13, {"expires at"}), (-1, {"expired at"})):
        gate.clock.now = float(found[1]) - days * 86_400
        caplog.clear()
        process_state.certificates.look()
        assert told_problems(caplog) == told
