"""Clients for one Redis server, for the primary that Sentinels name, and for a Cluster."""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydantic import SecretStr

from tailchat_gate.config.values.redis_url import Host, RedisAddress, redis_address
from tailchat_gate.state.redis.connections import Lookup, connection_class

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.sentinel import SentinelConnectionPool
    from redis.credentials import UsernamePasswordCredentialProvider

#: Seconds until the Sentinels are asked again for the primary, with and without an answer.
_ASK_SECONDS: Final = 1.0
_AWAY_SECONDS: Final = 10.0
_CONNECTIONS: Final = 4
#: All keys begin with this, so that a Cluster has them in one slot.
HASH_TAG: Final = "{tailchat-gate}"
#: How many nodes of a Cluster are remembered.
_MOST_NODES: Final = 64


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """A server, by its URL, and the passwords there and at its Sentinels.

    Without `lookup` the event loop looks names up, in threads that the whole process shares.
    """

    url: str
    password: SecretStr | None = field(default=None, repr=False)
    sentinel_password: SecretStr | None = field(default=None, repr=False)
    lookup: Lookup | None = field(default=None, repr=False, compare=False)

    @property
    def address(self) -> RedisAddress:
        """The address in the URL."""
        return redis_address(self.url)

    def __str__(self) -> str:
        """Return the URL, which has no password."""
        return self.url


class Servers(Protocol):
    """A client of the server that has the data."""

    async def prepare(self) -> None:
        """Find the server for the next command, if it may be another one now."""

    def execute(self, *words: object) -> Awaitable[Any]:
        """Send it a command."""

    def failed(self) -> None:
        """Note that the last command did not reach the server."""

    async def close(self) -> None:
        """Close every connection."""


def servers(place: RedisPlace, timeout: float) -> Servers:
    """Return the client for a place. Raises ImportError without redis-py."""
    address = place.address
    if address.service:
        return _Sentinels(place, timeout)
    return _Cluster(place, timeout) if address.hosts else _OneServer(place, timeout)


class _OneServer:
    def __init__(self, place: RedisPlace, timeout: float) -> None:
        from redis.asyncio import Redis  # noqa: PLC0415 - only where the store is Redis

        address = place.address
        common = {**_common(place, timeout), "db": address.database}
        if address.path:
            self._client: Redis = Redis(unix_socket_path=address.path, **common)
        else:
            self._client = _redis(place, (address.host, address.port), common)

    async def prepare(self) -> None:
        """Do nothing: it is always the same server."""

    def execute(self, *words: Any) -> Awaitable[Any]:  # noqa: ANN401 - as the library has it
        """Send it a command."""
        answer: Awaitable[Any] = self._client.execute_command(*words)  # type: ignore[no-untyped-call] # redis has no types for it
        return answer

    def failed(self) -> None:
        """Do nothing: the library connects again."""

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class _Sentinels:
    """The primary that Sentinels name.

    They are asked with each new connection, and once a second, because a former primary that is cut
    off from the new one still answers reads.
    """

    def __init__(self, place: RedisPlace, timeout: float) -> None:
        from redis.asyncio.sentinel import Sentinel  # noqa: PLC0415 - only where it is needed

        address = place.address
        # All are asked in turn within half of the time, because some may be dead.
        each = timeout / 2 / len(address.hosts)
        own = _credentials(address.sentinel_user, place.sentinel_password)
        common = {**_common(place, each), "credential_provider": own}
        self._sentinels = Sentinel(  # type: ignore[no-untyped-call] # redis has no types for it
            (),
            connection_class=connection_class(place.address, place.lookup, by_sentinels=True),
            **{**_common(place, timeout), "db": address.database, **_tls(address)},
        )
        self._sentinels.sentinels = [_redis(place, host, common) for host in address.hosts]
        self._client: Redis = self._sentinels.master_for(address.service)
        self._pool: SentinelConnectionPool = self._client.connection_pool
        self._ask_at = 0.0

    async def prepare(self) -> None:
        """Ask which server is the primary; without an answer keep the last one."""
        from redis.exceptions import RedisError  # noqa: PLC0415 - only where it is needed

        now = asyncio.get_running_loop().time()
        if now < self._ask_at or self._pool.master_address is None:
            return
        self._ask_at = now + _AWAY_SECONDS
        with contextlib.suppress(RedisError, OSError):
            # This also closes the connections to a former primary.
            await self._pool.get_master_address()  # type: ignore[no-untyped-call] # redis has no types for it
            self._ask_at = now + _ASK_SECONDS

    def execute(self, *words: Any) -> Awaitable[Any]:  # noqa: ANN401 - as the library has it
        """Send it a command."""
        answer: Awaitable[Any] = self._client.execute_command(*words)  # type: ignore[no-untyped-call] # redis has no types for it
        return answer

    def failed(self) -> None:
        """Ask again before the next command."""
        self._ask_at = 0.0

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        await self._sentinels.aclose()


class _Cluster:
    """The node of a Cluster that has the one slot of the gate's keys.

    The library's own client for a Cluster is not used, because it leaks sockets after faults.
    """

    def __init__(self, place: RedisPlace, timeout: float) -> None:
        self._place = place
        self._nodes = list(place.address.hosts)
        self._common = _common(place, timeout)
        # All nodes in the URL are asked in turn within half of the time, because some may be dead.
        each = timeout / 2 / len(self._nodes)
        self._brief = {**self._common, "socket_timeout": each, "socket_connect_timeout": each}
        self._client: Redis | None = None
        self._old: list[Redis] = []

    async def prepare(self) -> None:
        """Find the node, unless the last command reached it. Raises ConnectionError."""
        await self._close_old()
        if self._client is not None:
            return
        from redis.exceptions import ConnectionError as NoneAnswers  # noqa: PLC0415 - as above
        from redis.exceptions import RedisError  # noqa: PLC0415 - as above

        problem: Exception | None = None
        for node in tuple(self._nodes):
            try:
                self._client = self._at(await self._primary(node))
            except (RedisError, OSError) as error:
                problem = error
                # The others are asked first next time.
                self._nodes.remove(node)
                self._nodes.append(node)
            else:
                return
        raise NoneAnswers(f"no node answers; the last: {problem}") from problem

    async def _primary(self, node: Host) -> Host:
        """Ask a node which node has the slot, and remember the others. Raises RedisError."""
        from redis.crc import key_slot  # noqa: PLC0415 - only where it is needed
        from redis.exceptions import ClusterDownError  # noqa: PLC0415 - as above

        client = self._at(node, brief=True)
        try:
            slots = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call] # redis has no types for it
        finally:
            await client.aclose()
        slot, owner = key_slot(HASH_TAG.encode()), None
        for first, last, *nodes in slots:
            there = [(_text(host) or node[0], int(port)) for host, port, *_ in nodes]
            new = [node for node in there if node not in self._nodes]
            self._nodes += new[: _MOST_NODES - len(self._nodes)]
            if first <= slot <= last:
                owner = there[0]
        if owner is None:
            raise ClusterDownError("no node has the slot")
        return owner

    def _at(self, node: Host, *, brief: bool = False) -> "Redis":
        return _redis(self._place, node, self._brief if brief else self._common)

    async def execute(self, *words: Any) -> Any:  # noqa: ANN401 - as the library has it
        """Send a command; if the slot has moved, send it to its new node."""
        from redis.exceptions import MovedError  # noqa: PLC0415 - as above

        assert self._client is not None  # noqa: S101 - `prepare` has found it
        try:
            return await self._client.execute_command(*words)  # type: ignore[no-untyped-call] # redis has no types for it
        except MovedError:
            self.failed()
        await self.prepare()
        return await self._client.execute_command(*words)  # type: ignore[no-untyped-call] # redis has no types for it

    def failed(self) -> None:
        """Find the node again before the next command."""
        if self._client is not None:
            self._old.append(self._client)
            self._client = None

    async def close(self) -> None:
        """Close every connection."""
        self.failed()
        await self._close_old()

    async def _close_old(self) -> None:
        while self._old:
            await self._old.pop().aclose()


def _text(host: bytes | None) -> str:
    """Return the address of a node, "" if the node does not know its own."""
    return "" if host is None or host == b"?" else host.decode()


def _common(place: RedisPlace, timeout: float) -> dict[str, Any]:
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - only where the store is Redis
    from redis.backoff import NoBackoff  # noqa: PLC0415 - as above

    return {
        "credential_provider": _credentials(place.address.user, place.password),
        # The retries of the library would take 14 s in all when a server is frozen.
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "max_connections": _CONNECTIONS,
        **_driver_info(),
    }


def _driver_info() -> dict[str, Any]:
    """Return the driver's name and version, which newer libraries read from disk per connection."""
    try:
        from redis import DriverInfo  # noqa: PLC0415 - only where the store is Redis
    except ImportError:
        return {}
    return {"driver_info": DriverInfo()}


def _credentials(
    user: str, password: SecretStr | None
) -> "UsernamePasswordCredentialProvider | None":
    from redis.credentials import UsernamePasswordCredentialProvider  # noqa: PLC0415 - as above

    # Not as plain arguments, which the repr of a client could show.
    if not user and not password:
        return None
    return UsernamePasswordCredentialProvider(
        user or None, password.get_secret_value() if password else ""
    )


def _tls(address: RedisAddress) -> dict[str, Any]:
    if not address.tls:
        return {}
    # The name is compared with the certificate, whatever the library's default is.
    return {"ssl_ca_certs": address.ca_file or None, "ssl_check_hostname": True}


def _redis(place: RedisPlace, host: Host, common: dict[str, Any]) -> "Redis":
    from redis.asyncio import ConnectionPool, Redis  # noqa: PLC0415 - as above

    kind = connection_class(place.address, place.lookup, by_sentinels=False)
    kwargs = {**common, **_tls(place.address), "host": host[0], "port": host[1]}
    return Redis.from_pool(ConnectionPool(connection_class=kind, **kwargs))
