"""Several real Redis servers: a primary and a replica that Sentinels watch, and a Cluster."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rediskit import RedisServer, own_addresses, redis_server

from tailchat_gate.state.redis_database import PREFIX
from tailchat_gate.state.redis_servers import RedisPlace

SERVICE: Final = "gates"
PASSWORD: Final = "hush-of-the-server"
SENTINEL_PASSWORD: Final = "hush-of-the-sentinel"
_HOST, _ = own_addresses()
_FIRST, _SECOND, _SENTINEL, _NOBODY = range(6401, 6405)
_NODES: Final = range(6411, 6415)
_WATCHED: Final = f"""\
requirepass {SENTINEL_PASSWORD}
sentinel monitor {SERVICE} {_HOST} {_FIRST} 1
sentinel auth-pass {SERVICE} {PASSWORD}
sentinel down-after-milliseconds {SERVICE} 400
sentinel failover-timeout {SERVICE} 2000
"""


@dataclass
class Several:
    """Where several servers are, and the one that has the data at first."""

    place: RedisPlace
    primary: RedisServer


@asynccontextmanager
async def sentinels() -> AsyncIterator[Several]:
    """Run a primary, its replica, and one Sentinel; another in the address does not answer."""
    own = (
        *("--bind", _HOST, "--requirepass", PASSWORD, "--masterauth", PASSWORD),
        *("--repl-diskless-sync-delay", "0", "--replica-announce-ip", _HOST),
    )
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(redis_server("--port", str(_FIRST), *own))
        arguments = ("--port", str(_SECOND), "--replicaof", f"{_HOST} {_FIRST}", *own)
        await stack.enter_async_context(redis_server(*arguments))
        replica = await stack.enter_async_context(_client(_SECOND, PASSWORD))
        await _until(lambda: _is_synchronised(replica))
        place = ("--port", str(_SENTINEL), "--bind", _HOST)
        await stack.enter_async_context(redis_server("--sentinel", *place, config=_WATCHED))
        watcher = await stack.enter_async_context(_client(_SENTINEL, SENTINEL_PASSWORD))
        await _until(lambda: _knows_replica(watcher))
        hosts = f"{_HOST}:{_NOBODY},{_HOST}:{_SENTINEL}"
        url = f"redis+sentinel://{hosts}/{SERVICE}/1"
        yield Several(RedisPlace(url, SecretStr(PASSWORD), SecretStr(SENTINEL_PASSWORD)), first)


@asynccontextmanager
async def cluster() -> AsyncIterator[Several]:
    """Run three primaries, and a replica of the one that has the gate's slot."""
    async with AsyncExitStack() as stack:
        nodes: list[RedisServer] = []
        clients: list[Redis] = []
        for port in _NODES:
            arguments = (
                *("--port", str(port), "--bind", _HOST, "--cluster-enabled", "yes"),
                *("--cluster-node-timeout", "700", "--repl-diskless-sync-delay", "0"),
                *("--cluster-announce-ip", _HOST),
            )
            nodes.append(await stack.enter_async_context(redis_server(*arguments)))
            clients.append(await stack.enter_async_context(_client(port, "")))
        owner = await _share_slots(clients)
        await _until(lambda: _are_all_well(clients))
        yield Several(RedisPlace(f"redis+cluster://{_HOST}:{_NODES[0]}"), nodes[owner])


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
    for port in _NODES[1:]:
        await _said(primaries[0], "CLUSTER", "MEET", _HOST, port)
    name = await _said(primaries[owner], "CLUSTER", "MYID")
    await _until(lambda: _replicates(replica, name))
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


async def _said(client: Redis, *words: object) -> Any:  # noqa: ANN401 - as the server has it
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def _client(port: int, password: str) -> AsyncIterator[Redis]:
    client = Redis(host=_HOST, port=port, password=password or None, protocol=2)
    # The answers as they are.
    client.response_callbacks.clear()
    try:
        yield client
    finally:
        await client.aclose()


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while True:
            try:
                if await holds():
                    return
            except RedisError:
                pass
            await asyncio.sleep(0.02)
