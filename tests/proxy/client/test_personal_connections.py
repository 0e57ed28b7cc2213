"""Connections to tools that a person authenticated: nobody else's request goes over one."""

import asyncio
import base64
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import spnego
from edgekit import program
from gatekit import (
    ALICE,
    OK,
    Answer,
    RawClient,
    RawUpstream,
    Received,
    Response,
    RunningGate,
    request_bytes,
)
from parts import missing
from process import free_port

from tailchat_gate.identity.oauth.responses import Profile

pytestmark = pytest.mark.both_loops

Start = Callable[..., Any]
BOB = Profile("660000000000000000000002", "Bob", "0043", "")
_GSSAPI = Path("/usr/lib/apache2/modules/mod_auth_gssapi.so")
_NTLM = Path("/etc/gss/mech.d/mech.ntlmssp.conf")
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}


def _authenticates_connections(challenge: bytes = b"WWW-Authenticate: NTLM\r\n") -> Answer:
    """Return a tool that takes a connection for whom its credentials named, as IIS does."""
    people: dict[asyncio.StreamWriter, bytes] = {}

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for value in request.values("Authorization"):
            people[writer] = value.split()[-1]
        who = people.get(writer, b"")
        status = b"200 OK\r\n" if who else b"401 Unauthorized\r\n" + challenge
        body = who or b"nobody"
        writer.write(b"HTTP/1.1 %bContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    return answer


@pytest.fixture
async def public(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate with a public route to a tool that authenticates connections."""
    upstream.answer = _authenticates_connections()
    found = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["public"]}])
    assert isinstance(found, RunningGate)
    return found


async def _body(client: RawClient, **fields: str) -> bytes:
    client.send(request_bytes(**fields))
    return (await client.response()).body


@pytest.mark.parametrize(
    "scheme", ["NTLM", "Negotiate", "nEGOTIATE", "Kerberos", "Nego2", "\tNTLM", "Unheard-Of"]
)
async def test_a_connection_that_credentials_authenticated_serves_nobody_else(
    public: RunningGate, scheme: str
) -> None:
    """Who comes on another connection is not answered as who authenticated the first."""
    async with RawClient.connect(public.port) as alice, RawClient.connect(public.port) as bob:
        assert await _body(alice, Authorization=f"{scheme} alice") == b"alice"
        assert await _body(bob) == b"nobody"
        assert await _body(alice) == b"alice", "her own connection still knows her"
        assert await _body(bob) == b"nobody"


@pytest.mark.parametrize(
    "challenge",
    [
        b"WWW-Authenticate: Negotiate\r\n",
        b"www-authenticate: nTLM TlRMTVNTUAAC\r\n",
        b'WWW-Authenticate: Basic realm="a, b", NTLM\r\n',
        b"WWW-Authenticate: Basic\r\nWWW-Authenticate:\tDigest a=b,\tKerberos\r\n",
        b"Persistent-Auth: true\r\n",
    ],
)
async def test_a_connection_that_a_challenge_is_bound_to_serves_nobody_else(
    start_gate: Start, upstream: RawUpstream, challenge: bytes
) -> None:
    """A challenge of a handshake keeps its connection for the client that it was sent to."""
    upstream.answer = _authenticates_connections(challenge)
    gate = await start_gate(upstream.url, route=[{"name": "tool", "allow": ["public"]}])
    async with RawClient.connect(gate.port) as alice, RawClient.connect(gate.port) as bob:
        for client in (alice, bob, alice, bob):
            await _body(client)
    assert upstream.connections == 2


@pytest.mark.parametrize("scheme", ["Basic", "bearer", "Digest", "AWS4-HMAC-SHA256"])
async def test_credentials_of_one_request_leave_the_connection_to_all(
    public: RunningGate, upstream: RawUpstream, scheme: str
) -> None:
    """What is sent with every request ties no connection to a client."""
    challenge = b'WWW-Authenticate: Basic realm="NTLM, a"\r\n'
    upstream.answer = OK.replace(b"\r\n\r\n", b"\r\n" + challenge + b"\r\n")
    async with RawClient.connect(public.port) as alice, RawClient.connect(public.port) as bob:
        for client in (alice, bob, alice):
            assert await _body(client, Authorization=f"{scheme} x") == b"ok"
    assert upstream.connections == 1


async def test_it_ends_with_the_connection_of_the_client(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """When the client's connection closes, the tool's does too."""
    async with RawClient.connect(public.port) as alice:
        await _body(alice, Authorization="NTLM alice")
        assert upstream.open_connections == 1
    async with asyncio.timeout(15):
        while upstream.open_connections:  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.002)


async def test_it_ends_when_another_person_comes_on_the_same_connection(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Signed out, signed in as somebody else, or nobody: each is a stranger to the tool."""
    upstream.answer = _authenticates_connections()
    gate = await start_gate(
        upstream.url,
        route=[{"name": "all", "allow": ["public"]}, {"name": "in", "path": "/in"}],
    )
    alice, bob = gate.cookie(ALICE), gate.cookie(BOB)
    async with RawClient.connect(gate.port) as client:
        for cookie, other in ((alice, bob), (bob, alice), (alice, ""), ("", bob)):
            assert await _body(client, Cookie=cookie, Authorization="NTLM x") == b"x"
            assert await _body(client, Cookie=cookie) == b"x"
            assert await _body(client, Cookie=other) == b"nobody"
            assert await _body(client, Cookie=cookie) == b"nobody", "it was closed for good"


async def test_another_session_of_the_same_person_is_another_person(
    gate: RunningGate, upstream: RawUpstream
) -> None:
    """Whom the tool knows was known to one sign-in, not to all of them."""
    upstream.answer = _authenticates_connections()
    one, other = gate.cookie(ALICE), gate.cookie(ALICE)
    async with RawClient.connect(gate.port) as client:
        assert await _body(client, Cookie=one, Authorization="NTLM alice") == b"alice"
        assert await _body(client, Cookie=other) == b"nobody"


async def test_another_route_keeps_it_and_another_person_there_closes_it(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """The tool's connection waits while its person visits another tool, and for nobody else."""
    upstream.answer = _authenticates_connections()
    async with RawUpstream() as second:
        gate = await start_gate(
            upstream.url,
            route=[{"name": "one"}, {"name": "two", "path": "/two", "upstream": second.url}],
        )
        alice, bob = gate.cookie(ALICE), gate.cookie(BOB)
        async with RawClient.connect(gate.port) as client:
            assert await _body(client, Cookie=alice, Authorization="NTLM a") == b"a"
            assert await _body(client, target="/two", Cookie=alice) == b"ok"
            assert await _body(client, Cookie=alice) == b"a"
            assert await _body(client, target="/two", Cookie=bob) == b"ok"
            assert await _body(client, Cookie=alice) == b"nobody"


@pytest.mark.parametrize("trusted", [True, False])
async def test_behind_a_proxy_only_a_session_tells_people_apart(
    start_gate: Start, upstream: RawUpstream, *, trusted: bool
) -> None:
    """One connection of a proxy carries many: without a session nothing is kept for any."""
    upstream.answer = _authenticates_connections()
    gate = await start_gate(
        upstream.url,
        server={"trusted_proxies": ["127.0.0.1"] if trusted else []},
        route=[{"name": "tool", "allow": ["public"]}],
    )
    via = {} if trusted else {"X_Forwarded_For": "192.0.2.1"}
    alice = gate.cookie(ALICE)
    async with RawClient.connect(gate.port) as edge:
        assert await _body(edge, Authorization="NTLM x", **via) == b"x"
        assert await _body(edge, **via) == b"nobody"
        assert await _body(edge, Cookie=alice, Authorization="NTLM a", **via) == b"a"
        assert await _body(edge, Cookie=alice, **via) == b"a"
        assert await _body(edge, **via) == b"nobody"


async def test_a_websocket_opens_on_the_connection_that_was_authenticated(
    public: RunningGate, upstream: RawUpstream
) -> None:
    """A switch of protocols finds the person that the handshake before it named."""
    known = _authenticates_connections()

    async def answer(
        request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.value("Upgrade") is None:
            await known(request, reader, writer)
        else:
            writer.write(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            await reader.read()

    upstream.answer = answer
    async with RawClient.connect(public.port) as alice:
        assert await _body(alice, Authorization="NTLM alice") == b"alice"
        alice.send(request_bytes(**UPGRADE))
        assert (await alice.head()).startswith(b"HTTP/1.1 101 ")
    assert upstream.connections == 1


# Apache, which keeps whom it knows by connection (GssapiConnectionBound), with real NTLM.


@asynccontextmanager
async def _apache(directory: Path) -> AsyncIterator[str]:
    apache = program("apache2")
    for part in (_GSSAPI, _NTLM):
        if not part.exists():
            missing(str(part))
    port = free_port()
    (directory / "site").mkdir()
    (directory / "site" / "index.html").write_text("in")
    (directory / "users").write_text("D:alice:secret-a\nD:bob:secret-b\n")
    modules = ("mpm_event", "authn_core", "authz_core", "authz_user", "auth_gssapi", "dir", "mime")
    lines = [
        f"ServerRoot {directory}",
        f"Listen 127.0.0.1:{port}",
        "KeepAliveTimeout 60",
        *("ServerName localhost", "PidFile pid", "ErrorLog error.log", "TypesConfig /dev/null"),
        *(f"LoadModule {m}_module {_GSSAPI.parent}/mod_{m}.so" for m in modules),
        f"LoadModule headers_module {_GSSAPI.parent}/mod_headers.so",
        *(f"DocumentRoot {directory}/site", "DirectoryIndex index.html"),
        *("<Location />", "AuthType GSSAPI", "AuthName x", "GssapiConnectionBound On"),
        *("GssapiAllowedMech ntlmssp", "Require valid-user"),
        *('Header always set X-User "expr=%{REMOTE_USER}"', "</Location>"),
    ]
    (directory / "httpd.conf").write_text("\n".join(lines) + "\n")
    process = subprocess.Popen(  # noqa: ASYNC220 - it is a moment, and the loop has nothing else
        [apache, "-X", "-f", str(directory / "httpd.conf")],
        env={**os.environ, "NTLM_USER_FILE": str(directory / "users")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


async def _ask(client: RawClient, **fields: str) -> Response:
    client.send(request_bytes(**fields))
    return await client.response()


async def _ntlm(client: RawClient, user: str, password: str, cookie: str) -> Response:
    """Sign in at Apache by NTLM, in two requests on one connection."""
    context = spnego.client(user, password, hostname="localhost", service="HTTP", protocol="ntlm")
    token = await asyncio.to_thread(context.step)
    response = Response(0, b"", b"")
    for _ in range(2):
        shown = "NTLM " + base64.b64encode(token or b"").decode("ascii")
        response = await _ask(client, Cookie=cookie, Authorization=shown)
        challenges = [one for one in response.values("WWW-Authenticate") if one.startswith("NTLM ")]
        if challenges:
            token = await asyncio.to_thread(context.step, base64.b64decode(challenges[0][5:]))
    return response


async def test_apache_signs_each_in_by_ntlm_and_mixes_nobody_up(
    start_gate: Start, tmp_path: Path
) -> None:
    """Real NTLM works through the gate, and Apache answers nobody as somebody else."""
    folder = tmp_path / "apache"
    folder.mkdir()
    async with _apache(folder) as tool:
        gate = await start_gate(tool)
        alice, bob = gate.cookie(ALICE), gate.cookie(BOB)
        async with RawClient.connect(gate.port) as one, RawClient.connect(gate.port) as two:
            assert (await _ntlm(one, "D\\alice", "secret-a", alice)).value("X-User") == "D\\alice"
            assert (await _ask(two, Cookie=bob)).status == 401
            assert (await _ntlm(two, "D\\bob", "secret-b", bob)).value("X-User") == "D\\bob"
            assert (await _ask(one, Cookie=alice)).value("X-User") == "D\\alice"
            assert (await _ask(two, Cookie=bob)).value("X-User") == "D\\bob"
            # The next to sign in at the gate, on the connection that the first one left.
            assert (await _ask(one, Cookie=bob)).status == 401
        async with RawClient.connect(gate.port) as third:
            assert (await _ask(third, Cookie=alice)).status == 401
