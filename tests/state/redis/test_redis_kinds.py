"""A Redis with TLS, and servers of kinds that are refused: a Sentinel, a node of a Cluster."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from rediskit import own_addresses, redis_server
from tlskit import Authority

from tailchat_gate.config.tables.process import State
from tailchat_gate.diagnosis.machine import store
from tailchat_gate.proxy.upstream.resolver import Names
from tailchat_gate.state.bookkeeping import StoreFault
from tailchat_gate.state.redis.database import peek_at
from tailchat_gate.state.redis.servers import RedisPlace

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "hush-of-the-test"
HOST, OTHER = own_addresses()
PORT = 6390


@dataclass
class Secured:
    """A server that speaks TLS, the file of its authority, and that of another one."""

    authority: Path
    other: Path

    def url(self, host: str, authority: Path) -> str:
        """Return its address."""
        return f"rediss://{host}:{PORT}?ssl_ca_certs={authority}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    """Start it with a certificate for one of its two addresses."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = await asyncio.to_thread(Authority.create, folder)
    other = await asyncio.to_thread(Authority.create, folder, "other")
    issued = await asyncio.to_thread(authority.issue, HOST)
    arguments = {
        "--tls-port": str(PORT),
        "--tls-cert-file": str(issued.certificate),
        "--tls-key-file": str(issued.key),
        "--tls-ca-cert-file": str(authority.file),
        "--tls-auth-clients": "no",
        "--requirepass": PASSWORD,
    }
    flat = [text for pair in arguments.items() for text in pair]
    async with redis_server(*flat, "--bind", HOST, OTHER):
        yield Secured(authority.file, other.file)


async def _said(url: str, password: str | None = PASSWORD) -> str:
    """Return what doctor and check --online say of a server."""
    given = SecretStr(password) if password else None
    state = State(path="", url=url, password=given)
    (statement,) = [one async for one in store(state, {})]
    return f"{statement.mark}: {statement.text}"


@pytest.mark.parametrize(
    ("own_address", "own_authority", "password", "said"),
    [
        (True, True, PASSWORD, "answers"),
        (True, False, PASSWORD, "shows a certificate that is not valid here: 'self-signed"),
        (False, True, PASSWORD, 'shows a certificate that is not valid here: "IP address mismatch'),
        (True, True, "another-of-the-test", "refuses the user or the password"),
    ],
)
async def test_a_server_with_tls(
    secured: Secured,
    monkeypatch: pytest.MonkeyPatch,
    password: str,
    said: str,
    *,
    own_address: bool,
    own_authority: bool,
) -> None:
    """Its certificate must be of the named authority and for its address; no password is told.

    Authorities that the system trusts count for nothing beside one that is named.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority))
    authority = secured.authority if own_authority else secured.other
    text = await _said(secured.url(HOST if own_address else OTHER, authority), password)

    assert said in text
    assert text.startswith("ok") == (said == "answers")
    assert "of-the-test" not in text


@pytest.mark.parametrize("own_address", [True, False])
async def test_a_gate_verifies_the_name_that_it_looks_up(
    secured: Secured, *, own_address: bool
) -> None:
    """Over the socket that a gate opens itself, the certificate must be for the name in the URL."""
    url = secured.url(HOST if own_address else OTHER, secured.authority)
    place = RedisPlace(url, SecretStr(PASSWORD), lookup=Names().addresses)
    if own_address:
        assert (await peek_at(place)).lost == 0
        return
    with pytest.raises(StoreFault, match="shows a certificate that is not valid here"):
        await peek_at(place)


@pytest.mark.parametrize(
    ("argument", "config", "said"),
    [
        ("--appendonly", "cluster-enabled yes", "is a node of a Cluster: state.url names one as"),
        ("--sentinel", "", "is a Sentinel, or takes no scripts: state.url names Sentinels as"),
    ],
)
async def test_servers_of_other_kinds(argument: str, config: str, said: str) -> None:
    """A node of a Cluster and a Sentinel are named as that, with what is needed."""
    arguments = (argument, "no") if config else (argument,)
    async with redis_server(*arguments, config=config) as server:
        text = await _said(server.place.url, None)

    assert f"wrong: {server.place.url} {said}" in text


@pytest.mark.parametrize(
    ("policy", "memory", "said"),
    [
        (
            "allkeys-lru",
            "1gb",
            "warning: {} deletes records when it is full, also of used logins (allkeys-lru)",
        ),
        ("allkeys-lru", "0", "ok: {} answers"),
        ("noeviction", "1gb", "ok: {} answers"),
    ],
)
async def test_a_server_that_evicts(policy: str, memory: str, said: str) -> None:
    """One that may delete what is in force is warned of; one without a limit never does."""
    async with redis_server("--maxmemory-policy", policy, "--maxmemory", memory) as server:
        text = await _said(server.place.url, None)

    assert said.format(server.place.url) in text
