"""Several real Redis servers: a primary and a replica that Sentinels watch, and a Cluster."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rediskit import RedisServer, own_addresses, redis_server
from tlskit import Authority

from tailchat_gate.state.redis.database import PREFIX
from tailchat_gate.state.redis.servers import RedisPlace

SERVICE: Final = "gates"
PASSWORD: Final = "hush-of-the-server"
SENTINEL_PASSWORD: Final = "hush-of-the-sentinel"
_HOST, _ = own_addresses()
_FIRST, _SECOND, _NOBODY = range(6401, 6404)
_SENTINELS: Final = range(6404, 6407)
_NODES: Final = range(6411, 6415)
_WATCHED: Final = f"""\
requirepass {SENTINEL_PASSWORD}
sentinel monitor {SERVICE} {_HOST} {_FIRST} {{quorum}}
sentinel announce-ip {_HOST}
sentinel auth-pass {SERVICE} {PASSWORD}
sentinel down-after-milliseconds {SERVICE} 3000
sentinel failover-timeout {SERVICE} 2000
"""


@dataclass
class Several:
    """Where several servers are, and the one that has the data at first."""

    place: RedisPlace
    primary: RedisServer


class Secured(NamedTuple):
    """How servers speak TLS alone, also with each other, and how clients verify them."""

    arguments: Sequence[str]
    authority: Path

    @classmethod
    async def create(cls, folder: Path) -> "Secured":
        """Issue one certificate for all of them."""
        authority = await asyncio.to_thread(Authority.create, folder)
        issued = await asyncio.to_thread(authority.issue, _HOST)
        arguments = (
            *("--tls-cert-file", str(issued.certificate), "--tls-key-file", str(issued.key)),
            *("--tls-ca-cert-file", str(authority.file), "--tls-auth-clients", "no"),
            *("--tls-replication", "yes", "--tls-cluster", "yes"),
        )
        return cls(arguments, authority.file)


class _Net(NamedTuple):
    """Where servers listen: by TLS if that is `secured`."""

    secured: Secured | None

    def listen(self, port: int) -> tuple[str, ...]:
        """Return the arguments of a server for its address."""
        if self.secured is None:
            return ("--bind", _HOST, "--port", str(port))
        return ("--bind", _HOST, "--tls-port", str(port), *self.secured.arguments)

    def url(self, rest: str) -> str:
        """Return the address of several servers, from what follows the "redis"."""
        if self.secured is None:
            return f"redis{rest}"
        return f"rediss{rest}?ssl_ca_certs={self.secured.authority}"

    @asynccontextmanager
    async def client(self, port: int, password: str) -> AsyncIterator[Redis]:
        """Give a client of one server."""
        by_tls: dict[str, Any] = {}
        if self.secured is not None:
            by_tls = {"ssl": True, "ssl_ca_certs": str(self.secured.authority)}
        client = Redis(host=_HOST, port=port, password=password or None, protocol=2, **by_tls)
        # The answers as they are.
        client.response_callbacks.clear()
        try:
            yield client
        finally:
            await client.aclose()


@asynccontextmanager
async def sentinels(secured: Secured | None = None, *, count: int = 1) -> AsyncIterator[Several]:
    """Run a primary, its replica, and so many Sentinels, most of which must agree.

    Another Sentinel in the address does not answer.
    """
    net = _Net(secured)
    own = (
        *("--requirepass", PASSWORD, "--masterauth", PASSWORD),
        *("--repl-diskless-sync-delay", "0", "--replica-announce-ip", _HOST),
    )
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(redis_server(*net.listen(_FIRST), *own))
        arguments = (*net.listen(_SECOND), "--replicaof", f"{_HOST} {_FIRST}", *own)
        await stack.enter_async_context(redis_server(*arguments))
        replica = await stack.enter_async_context(net.client(_SECOND, PASSWORD))
        await _until(lambda: _is_synchronised(replica))
        config, ports = _WATCHED.format(quorum=count // 2 + 1), _SENTINELS[:count]
        for port in ports:
            arguments = ("--sentinel", *net.listen(port))
            await stack.enter_async_context(redis_server(*arguments, config=config))
            watcher = await stack.enter_async_context(net.client(port, SENTINEL_PASSWORD))
            await _until(partial(_knows_replica, watcher))
        await _until(lambda: _knows_others(watcher, count - 1))
        hosts = ",".join(f"{_HOST}:{port}" for port in (_NOBODY, *ports))
        url = net.url(f"+sentinel://{hosts}/{SERVICE}/1")
        yield Several(RedisPlace(url, SecretStr(PASSWORD), SecretStr(SENTINEL_PASSWORD)), first)


@asynccontextmanager
async def cluster(secured: Secured | None = None) -> AsyncIterator[Several]:
    """Run three primaries, and a replica of the one that has the gate's slot."""
    net = _Net(secured)
    async with AsyncExitStack() as stack:
        nodes: list[RedisServer] = []
        clients: list[Redis] = []
        for port in _NODES:
            arguments = (
                *(*net.listen(port), "--cluster-enabled", "yes"),
                *("--cluster-node-timeout", "3000", "--repl-diskless-sync-delay", "0"),
                *("--cluster-announce-ip", _HOST),
            )
            nodes.append(await stack.enter_async_context(redis_server(*arguments)))
            clients.append(await stack.enter_async_context(net.client(port, "")))
        owner = await _share_slots(clients)
        await _until(lambda: _are_all_well(clients))
        yield Several(RedisPlace(net.url(f"+cluster://{_HOST}:{_NODES[0]}")), nodes[owner])


async def _share_slots(clients: list[Redis]) -> int:
    """Join the nodes; return which one has the gate's slot, whose replica is the last node."""
    *primaries, replica = clients
    slot = await _said(primaries[0], "CLUSTER", "KEYSLOT", PREFIX)
    edges = (0, 5461, 10_923, 16_384)
    owner = sum(edge <= int(slot) for edge in edges) - 1
    for number, client in enumerate(primaries):
        last = edges[number + 1] - 1
        await _said(client, "CLUSTER", "ADDSLOTSRANGE", edges[number], last)
        await _said(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    name = await _said(primaries[owner], "CLUSTER", "MYID")

    async def joined() -> bool:
        # A node that does not answer in time, on a busy machine, is met again.
        for port in _NODES[1:]:
            await _said(primaries[0], "CLUSTER", "MEET", _HOST, port)
        return await _replicates(replica, name)

    await _until(joined)
    return owner


async def _replicates(replica: Redis, name: bytes) -> bool:
    """Tell the replica whose it is, once it knows that node."""
    return bool(await _said(replica, "CLUSTER", "REPLICATE", name) == b"OK")


async def _are_all_well(clients: list[Redis]) -> bool:
    found = [await _said(client, "CLUSTER", "INFO") for client in clients]
    known = all(b"state:ok" in one and b"known_nodes:4" in one for one in found)
    return known and await _is_synchronised(clients[-1])


async def _is_synchronised(replica: Redis) -> bool:
    return b"master_link_status:up" in await _said(replica, "INFO", "replication")


async def _knows_replica(watcher: Redis) -> bool:
    found = await _said(watcher, "SENTINEL", "REPLICAS", SERVICE)
    return any(one[one.index(b"master-link-status") + 1] == b"ok" for one in found)


async def _knows_others(watcher: Redis, count: int) -> bool:
    found = await _said(watcher, "SENTINEL", "SENTINELS", SERVICE)
    return [one[one.index(b"flags") + 1] for one in found] == [b"sentinel"] * count


async def _said(client: Redis, *words: object) -> Any:  # noqa: ANN401 - as the server has it
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while True:
            try:
                if await holds():
                    return
            except RedisError:
                pass
            await asyncio.sleep(0.02)
